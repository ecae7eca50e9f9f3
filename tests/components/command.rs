//! Kind `command`.

use std::path::Path;

use compline::components::Existing;
use compline::error::ErrorKind;

use crate::stage::{Stage, Wish};

fn capture_fails(settings: &str) -> compline::error::Error {
    let stage = Stage::new();
    let component = stage.component("command", settings);
    stage.capture(component.as_ref()).map(|night| panic!("captured {:?}", night.archive.paths())).unwrap_err()
}

#[test]
fn a_stream_goes_through_its_pipe_into_the_archive_and_back() {
    let stage = Stage::new();
    let target = stage.scratch.path().join("restored");
    let settings = format!(
        r#"
        dump = ["printf", 'b\na\n']
        pipe = [["sort"], ["tr", "a-z", "A-Z"]]
        filename = "dump/list.txt"
        version = ["echo", "lister 1.2"]
        check = {{ tail_contains = "B", min_bytes = "4B" }}
        restore = ["sh", "-c", "cat > \"$PLACE\""]
        verify = ["grep", "-q", "A", "{target}"]
        env = {{ PLACE = "{target}" }}
        "#,
        target = target.display()
    );
    let component = stage.component("command", &settings);
    let night = stage.capture(component.as_ref()).unwrap();
    assert_eq!(night.archive.file("dump/list.txt"), b"A\nB\n");
    assert_eq!(night.captured.versions["version"], "lister 1.2");
    assert_eq!(night.captured.completeness, "exit status, end holds \"B\", at least 4 bytes");
    assert_eq!(night.captured.commands.len(), 3);

    let steps = stage.plan(component.as_ref(), &night, &Wish::default()).unwrap();
    assert!(steps[0].destructive && steps.len() == 2, "{steps:?}");
    assert!(!target.exists(), "a plan must have no effect");
    stage.restore(component.as_ref(), &night, &Wish::default()).unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"A\nB\n");
}

#[test]
fn without_a_check_the_record_claims_no_more_than_the_exit_status() {
    let stage = Stage::new();
    let night = stage.capture(stage.component("command", r#"dump = ["echo", "x"]"#).as_ref()).unwrap();
    assert_eq!(night.captured.completeness, "exit status only");
    assert_eq!(night.archive.paths(), ["stream"]);
}

#[test]
fn what_differs_each_night_is_taken_out_as_the_plan_says_and_recorded() {
    let stage = Stage::new();
    let dump = |date: &str, normalise: &str| {
        let settings = format!(
            "dump = [\"printf\", 'INSERT INTO t VALUES (1);\\n\\n-- Dump completed on {date}\\n']\n\
             check = {{ tail_contains = \"Dump completed on {date}\" }}\nnormalise = {normalise}"
        );
        stage.capture(stage.component("command", &settings).as_ref()).unwrap()
    };
    let (first, second) =
        (dump("2026-11-20  2:10:07", "[\"mysqldump-date\"]"), dump("2026-11-21 22:10:09", "[\"mysqldump-date\"]"));
    assert_eq!(first.archive, second.archive);
    assert_eq!(first.archive.file("stream"), b"INSERT INTO t VALUES (1);\n\n-- Dump completed\n");
    assert_eq!(first.captured.facts["normalised"], serde_json::json!(["mysqldump-date"]));
    let plain = dump("2026-11-20  2:10:07", "[]");
    assert!(plain.archive.file("stream").ends_with(b"on 2026-11-20  2:10:07\n"));
    assert!(!plain.captured.facts.contains_key("normalised"));
    let other = dump("2026-11-20  2:10:07", "[\"pg-restrict-key\"]");
    assert_eq!(other.archive, plain.archive, "one that finds nothing changes nothing");
    assert!(!other.captured.facts.contains_key("normalised"), "and is not recorded");
}

#[test]
fn a_dump_that_exits_0_but_is_cut_short_is_not_committed() {
    let error = capture_fails(
        r#"
        dump = ["echo", "-- half a dump"]
        check = { tail_contains = "dump complete" }
        "#,
    );
    assert_eq!(error.kind(), ErrorKind::Component);
    assert!(error.to_string().contains("its end lacks \"dump complete\""), "{error}");
}

#[test]
fn an_empty_dump_is_not_committed_unless_it_may_be_empty() {
    assert!(capture_fails(r#"dump = ["true"]"#).to_string().contains("it is empty"));
    let stage = Stage::new();
    let component = stage.component("command", "dump = [\"true\"]\ncheck = { min_bytes = \"0B\" }");
    assert_eq!(stage.capture(component.as_ref()).unwrap().archive.file("stream"), b"");
}

#[test]
fn json_that_breaks_off_is_not_committed() {
    let error = capture_fails("dump = [\"printf\", '{\"items\": [1, 2']\ncheck = { json = true }");
    assert!(error.to_string().contains("breaks off"), "{error}");
}

#[test]
fn a_failure_names_the_program_its_exit_code_and_its_last_words() {
    let error = capture_fails(r#"dump = ["sh", "-c", "echo data; echo disk on fire >&2; exit 7"]"#);
    assert!(error.chain().contains("sh failed with exit code 7: disk on fire"), "{}", error.chain());
}

#[test]
fn a_failure_behind_a_pipe_is_not_hidden_by_the_last_program() {
    let error = capture_fails(
        r#"
        dump = ["sh", "-c", "echo data; exit 7"]
        pipe = [["cat"]]
        "#,
    );
    assert!(error.chain().contains("sh failed with exit code 7"), "{}", error.chain());
}

#[test]
fn a_dump_that_hangs_is_ended_by_either_timeout() {
    let stall = capture_fails("dump = [\"sh\", \"-c\", \"echo x; exec sleep 600\"]\nstall_timeout = \"200ms\"");
    assert!(stall.to_string().contains("moved no byte"), "{stall}");
    let hard = capture_fails("dump = [\"yes\"]\ntimeout = \"300ms\"");
    assert!(hard.to_string().contains("took longer"), "{hard}");
}

#[test]
fn complaints_are_treated_as_the_plan_says() {
    let chatty = r#"dump = ["sh", "-c", "echo x; echo careful >&2"]"#;
    let stage = Stage::new();
    let problems = |policy: &str| {
        let component = stage.component("command", &format!("{chatty}\nstderr = \"{policy}\""));
        stage.capture(component.as_ref()).map(|night| night.problems.len())
    };
    assert_eq!(problems("ignore").unwrap(), 0);
    assert_eq!(problems("warn").unwrap(), 1);
    assert!(problems("fail").unwrap_err().chain().contains("careful"));
}

#[test]
fn secrets_reach_the_program_but_neither_record_nor_messages() {
    let mut stage = Stage::new();
    stage.variables.insert("THE_SECRET".into(), "s3cret-word".into());
    let settings = r#"
        dump = ["sh", "-c", "echo ${#KEY}; echo using $KEY >&2"]
        env = { KEY = { env = "THE_SECRET" } }
        "#;
    let night = stage.capture(stage.component("command", settings).as_ref()).unwrap();
    assert_eq!(night.archive.file("stream"), b"11\n");
    let told = format!("{:?} {:?}", night.captured, night.problems);
    assert!(told.contains("using ***") && !told.contains("s3cret-word"), "{told}");
}

#[test]
fn a_missing_secret_stops_the_capture_before_anything_runs() {
    let error = capture_fails("dump = [\"touch\", \"/no/such/place\"]\nenv = { KEY = { env = \"NOT_SET\" } }");
    assert!(error.to_string().contains("NOT_SET"), "{error}");
}

#[test]
fn a_restore_that_fails_to_verify_says_so() {
    let stage = Stage::new();
    let settings = "dump = [\"echo\", \"x\"]\nrestore = [\"cat\"]\nverify = [\"false\"]";
    let component = stage.component("command", settings);
    let night = stage.capture(component.as_ref()).unwrap();
    let error = stage.restore(component.as_ref(), &night, &Wish::default()).unwrap_err();
    assert!(error.chain().contains("does not verify: false failed with exit code 1"), "{}", error.chain());
}

#[test]
fn without_a_restore_command_the_operator_is_told_how_to_get_the_stream() {
    let stage = Stage::new();
    let component = stage.component("command", r#"dump = ["echo", "x"]"#);
    let night = stage.capture(component.as_ref()).unwrap();
    let error = stage.restore(component.as_ref(), &night, &Wish::default()).unwrap_err();
    assert!(error.hint_text().unwrap().contains("compline cat"), "{error:?}");
}

#[test]
fn below_a_directory_the_stream_is_written_and_no_program_runs() {
    let stage = Stage::new();
    let component = stage.component("command", "dump = [\"echo\", \"x\"]\nrestore = [\"false\"]");
    let night = stage.capture(component.as_ref()).unwrap();
    let root = tempfile::tempdir().unwrap();
    let wish = Wish { root: Some(root.path()), ..Wish::default() };
    stage.restore(component.as_ref(), &night, &wish).unwrap();
    assert_eq!(std::fs::read(root.path().join("it/stream")).unwrap(), b"x\n");
}

#[test]
fn skipping_what_exists_runs_nothing() {
    let stage = Stage::new();
    let component = stage.component("command", "dump = [\"echo\", \"x\"]\nrestore = [\"false\"]");
    let night = stage.capture(component.as_ref()).unwrap();
    let wish = Wish { existing: Existing::Skip, ..Wish::default() };
    assert_eq!(stage.restore(component.as_ref(), &night, &wish).unwrap().proofs.len(), 0);
}

#[test]
fn settings_that_contradict_themselves_are_found_with_their_line() {
    let stage = Stage::new();
    for (settings, word) in [
        ("dump = [\"x\"]\ncheck = { magic = \"1f8\" }", "magic"),
        ("dump = [\"x\"]\ncheck = { min_bytes = \"2B\", max_bytes = \"1B\" }", "max_bytes"),
        ("dump = [\"x\"]\nfilename = \"../up\"", "filename"),
        ("dump = [\"x\"]\nrestore_pipe = [[\"y\"]]", "restore_pipe"),
        ("dump = [\"x\"]\nnormalise = [\"mysqldump-dates\"]", "did you mean \"mysqldump-date\""),
        ("dump = [\"x\"]\nnormalise = [\"mysqldump-date\", \"mysqldump-date\"]", "twice"),
        ("dump = [\"x\"]\nenv = { A = 1 }", "\"A\""),
    ] {
        let error = stage.try_component("command", settings).map(|_| panic!("accepted {settings}")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidPlan);
        assert!(error.to_string().contains(word) && error.to_string().contains("line 2"), "{error}");
    }
    assert!(!Path::new("up").exists());
}
