use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

const INNER: &[Field] =
    &[Field::optional("host", Shape::Text, "where"), Field::optional("port", Shape::Integer, "which")];
const FIELDS: &[Field] = &[
    Field::required("name", Shape::Text, "how it is called"),
    Field::optional("paths", Shape::TextList, "what to take"),
    Field::optional("exclude", Shape::TextOrList, "what to leave"),
    Field::optional("timeout", Shape::Duration, "how long"),
    Field::optional("limit", Shape::Size, "how much"),
    Field::optional("dump", Shape::Argv, "the command"),
    Field::optional("before", Shape::ArgvList, "commands"),
    Field::optional("password", Shape::Secret, "the password"),
    Field::optional("mode", Shape::OneOf(&["fast", "safe"]), "how"),
    Field::optional("count", Shape::Integer, "how many"),
    Field::optional("all", Shape::Boolean, "whether"),
    Field::optional("connect", Shape::Table(INNER), "where to"),
    Field::optional("server", Shape::TableList(INNER), "where to, several"),
    Field::optional("anything", Shape::Any, "whatever"),
];

fn parse(text: &str) -> Settings {
    Settings::parse(Path::new("/etc/compline/plan.toml"), text).unwrap()
}

fn refusal(text: &str) -> (String, String) {
    let error = Settings::parse(Path::new("p.toml"), text).and_then(|settings| settings.check(FIELDS)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidPlan);
    (error.to_string(), error.hint_text().unwrap_or_default().to_owned())
}

#[test]
fn every_shape_is_read() {
    let settings = parse(
        r#"
        name = "n"
        paths = ["a", "/b"]
        exclude = "*.tmp"
        timeout = "2h"
        limit = "64KiB"
        dump = ["pg_dump", "app"]
        before = [["a", "b"], ["c"]]
        password = { env = "PW" }
        mode = "fast"
        count = 0x10
        all = true
        connect.host = "h"
        connect.port = 5
        anything = [1, [2.5, 1979-05-27]]
        [[server]]
        host = "one"
        [[server]]
        host = "two"
        "#,
    );
    settings.check(FIELDS).unwrap();
    assert_eq!(settings.text("name").as_deref(), Some("n"));
    assert_eq!(settings.paths("paths"), [Path::new("/etc/compline/a"), Path::new("/b")]);
    assert_eq!(settings.text_list("exclude"), ["*.tmp"]);
    assert_eq!(settings.duration("timeout"), Some(Duration::from_secs(7200)));
    assert_eq!(settings.size("limit"), Some(65_536));
    assert_eq!(settings.argv("dump").unwrap(), ["pg_dump", "app"]);
    assert_eq!(settings.argv_list("before"), [vec!["a", "b"], vec!["c"]]);
    assert_eq!(settings.secret("password"), Some(SecretSource::Env("PW".into())));
    assert_eq!(settings.integer("count"), Some(16));
    assert_eq!(settings.boolean("all"), Some(true));
    assert_eq!(settings.table("connect").unwrap().integer("port"), Some(5));
    assert_eq!(
        settings.tables("server").iter().filter_map(|server| server.text("host")).collect::<Vec<_>>(),
        ["one", "two"]
    );
    assert_eq!(settings.text("absent"), None);
}

#[test]
fn an_unknown_key_names_line_table_and_the_key_that_was_meant() {
    let settings = parse("\nname = \"etc\"\npahts = []\n").labelled("component \"etc\"");
    let error = settings.check(FIELDS).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Plan /etc/compline/plan.toml, line 3: unknown key \"pahts\" in component \"etc\"; did you mean \"paths\"?"
    );
    assert!(error.hint_text().unwrap().starts_with("Known keys here: all, anything, before, connect,"));
}

#[test]
fn wrong_values_are_refused_with_their_line_and_a_way_out() {
    for (text, message, hint) in [
        ("name = \"a\"\nzzzzzz = 1", "line 2: unknown key \"zzzzzz\"", "Known keys here"),
        (
            "name = \"a\"\n[connect]\nhots = 1",
            "line 3: unknown key \"hots\" in [connect]; did you mean \"host\"?",
            "host, port",
        ),
        (
            "name = \"a\"\n[[server]]\nhost=\"x\"\n[[server]]\npart=1",
            "line 5: unknown key \"part\" in [server]",
            "host, port",
        ),
        ("paths = []", "line 1: \"name\" is missing", "how it is called"),
        ("name = 1", "\"name\" must be a text, not a number", "quotes"),
        ("name = \"a\"\npaths = \"b\"", "line 2: \"paths\" must be a list of texts, not a text", "[\"one\""),
        ("name = \"a\"\npaths = [1]", "must be a list of texts, not such a list", "[\"one\""),
        ("name = \"a\"\ntimeout = \"5x\"", "has \"5x\", which is not a duration", "30s"),
        ("name = \"a\"\ntimeout = 5", "must be a duration, not a number", "\"30s\""),
        ("name = \"a\"\nlimit = \"much\"", "has \"much\", which is not a size", "64KiB"),
        ("name = \"a\"\ndump = \"pg_dump app\"", "must be a command, not a text", "program first"),
        ("name = \"a\"\ndump = []", "must be a command, not an empty list", "program first"),
        ("name = \"a\"\nbefore = [\"a\"]", "must be a list of commands", "[["),
        ("name = \"a\"\npassword = \"hunter2\"", "\"password\" must not be written into the plan", "{ file ="),
        ("name = \"a\"\npassword = { file = \"a\", env = \"b\" }", "in one way where the secret comes from", "{ env ="),
        ("name = \"a\"\npassword = { vault = \"a\" }", "in one way", "{ env ="),
        (
            "name = \"a\"\nmode = \"fats\"",
            "has \"fats\", which is not one of its words; did you mean \"fast\"?",
            "fast, safe",
        ),
        ("name = \"a\"\ncount = \"3\"", "must be a whole number, not a text", "without quotes"),
        ("name = \"a\"\ncount = 9223372036854775808", "not an integer out of range", "digits"),
        ("name = \"a\"\nall = \"yes\"", "must be true or false, not a text", "without quotes"),
        ("name = \"a\"\nconnect = 3", "must be a table, not a number", "section"),
        ("name = \"a\"\n[server]\nhost = \"a\"", "must be a list of tables, not a table", "[[name]]"),
        ("name = 1.5", "not a floating point number", "quotes"),
    ] {
        let (got, got_hint) = refusal(text);
        assert!(got.contains(message), "{text:?}: {got}");
        assert!(got_hint.contains(hint), "{text:?}: {got_hint}");
    }
}

#[test]
fn a_secret_in_the_plan_is_not_repeated_in_the_message() {
    let (message, hint) = refusal("name = \"a\"\npassword = \"hunter2\"");
    assert!(!message.contains("hunter2") && !hint.contains("hunter2"));
}

#[test]
fn syntax_errors_name_line_and_column() {
    let (message, _) = refusal("name = \"a\"\npaths = [\"ä\" \"b\"]\n");
    assert!(message.starts_with("Plan p.toml, line 2, column 1"), "{message}");
    let (message, _) = refusal("name = \"a\"\nname = \"b\"\n");
    assert!(message.starts_with("Plan p.toml, line 2, column 1: duplicate key"), "{message}");
}

#[test]
fn defaults_are_inherited_only_where_nothing_is_set() {
    let defaults = parse("timeout = \"1h\"\nmode = \"safe\"\ncount = 1");
    let settings = parse("name = \"a\"\ntimeout = \"5m\"").inherit(&defaults, &["timeout", "mode"]);
    assert_eq!(settings.duration("timeout"), Some(Duration::from_secs(300)));
    assert_eq!(settings.text("mode").as_deref(), Some("safe"));
    assert_eq!(settings.integer("count"), None);
}

#[test]
fn secrets_come_from_file_environment_command_and_systemd() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    std::fs::write(&file, "s3cret\n").unwrap();
    let credentials = directory.path().display().to_string();
    let env = |name: &str| match name {
        "PW" => Some("s3cret".to_owned()),
        "CREDENTIALS_DIRECTORY" => Some(credentials.clone()),
        _ => None,
    };
    for source in [
        SecretSource::File(file),
        SecretSource::Env("PW".into()),
        SecretSource::Command(vec!["printf".into(), "s3cret\\r\\n".into()]),
        SecretSource::Systemd("key".into()),
    ] {
        assert_eq!(source.resolve(&env).unwrap().as_str(), "s3cret", "{source}");
    }
}

#[test]
fn secrets_that_are_empty_missing_or_of_failing_commands_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty");
    std::fs::write(&empty, "\n").unwrap();
    let env = |_: &str| None;
    for (source, message) in [
        (SecretSource::File(empty), "is empty"),
        (SecretSource::File(directory.path().join("none")), "Can't read the secret in"),
        (SecretSource::Env("PW".into()), "PW is not set"),
        (SecretSource::Command(vec!["sh".into(), "-c".into(), "echo s3cret; exit 3".into()]), "exit status: 3"),
        (SecretSource::Command(vec!["/nonexistent/program".into()]), "Can't run /nonexistent/program"),
        (SecretSource::Systemd("key".into()), "CREDENTIALS_DIRECTORY is not set"),
    ] {
        let text = source.resolve(&env).unwrap_err().to_string();
        assert!(text.contains(message), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[test]
fn a_credential_name_can_not_leave_its_directory() {
    let env = |_: &str| Some("/tmp".to_owned());
    assert!(SecretSource::Systemd("../etc/passwd".into()).resolve(&env).is_err());
}

#[test]
fn a_secret_file_that_everybody_may_read_is_a_problem() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    std::fs::write(&file, "s").unwrap();
    let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o640);
    assert_eq!(SecretSource::File(file.clone()).exposure(), None);
    mode(0o644);
    assert!(SecretSource::File(file.clone()).exposure().unwrap().message.contains("chmod 600"));
}

proptest! {
    #[test]
    fn no_text_makes_reading_panic(text in "(\\PC|[\\[\\]{}=\"'\n.,#]){0,80}") {
        if let Ok(settings) = Settings::parse(Path::new("p"), &text) {
            let _ = settings.check(FIELDS);
            let _ = settings.to_json();
        }
    }
}
