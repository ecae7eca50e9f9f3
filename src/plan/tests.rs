use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;
use crate::archive::retention::{Count, Period};
use crate::clock::SystemClock;
use crate::components::Existing;
use crate::observer::{Context, Ledger};
use crate::units::Span;

const HEAD: &str = "format = 1\n[platform]\nname = \"demo\"\n";

const FULL: &str = r#"
format = 1

[platform]
name = "shop-prod"
description = "The shop \"and\" its search"
timezone = "Europe/Berlin"

[repository]
location = "archive"
password = { file = "keys/main.key" }

[defaults]
timeout = "2h"
on_error = "stop"
importance = "best-effort"
exclude_caches = true

[[component]]
name = "database"
kind = "files"
paths = ["/srv/db", "relative/data"]
references = ["uploads"]
importance = "required"
chunker = "db-page"
timeout = "30m"
exclude = "*.tmp"

[[component]]
name = "uploads"
kind = "files"
paths = ["/srv/uploads"]
exclude = ["/srv/uploads/cache", "**/*.part"]
one_file_system = true
restore = { existing = "update" }

[[component]]
name = "index"
kind = "files"
paths = ["/srv/index"]
derived_from = ["database", "uploads"]
resync = [["shop", "reindex", "--changed"]]
enabled = { command = ["test", "-d", "/srv/index"] }
when_missing = "skip"

[[component]]
name = "search"
kind = "none"
derived_from = ["index"]
rebuild = [["shop", "rebuild"], ["shop", "warm"]]

[retention]
keep = { last = 3, daily = 14, yearly = -1, within = "2d", within_monthly = "1y6mo" }
group_by = ["host", "platform"]
keep_tags = ["pre-upgrade"]
"#;

fn load(text: &str) -> Result<Plan> {
    Plan::load(Path::new("/etc/compline/plan.toml"), text)
}

fn refusal(text: &str) -> (String, String) {
    let error = load(text).err().unwrap_or_else(|| panic!("accepted: {text}"));
    assert_eq!(error.kind(), ErrorKind::InvalidPlan);
    (error.to_string(), error.hint_text().unwrap_or_default().to_owned())
}

#[test]
fn a_full_plan_is_read() {
    let plan = load(FULL).unwrap();
    assert_eq!(plan.platform().name, "shop-prod");
    let repository = plan.repository().unwrap();
    assert_eq!(repository.location, Location::Local("/etc/compline/archive".into()));
    assert_eq!(repository.password, Some(SecretSource::File("/etc/compline/keys/main.key".into())));
    assert_eq!(plan.on_error(), OnError::Stop);
    let names =
        |components: Vec<&PlannedComponent>| components.iter().map(|one| one.name().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(plan.in_capture_order().collect()), ["database", "uploads", "index", "search"]);
    assert_eq!(plan.restore_order(), [["uploads"], ["database"], ["index"], ["search"]]);
    let retention = plan.retention().unwrap();
    let policy = &retention.policy;
    assert_eq!(
        policy.counts,
        [(Period::Each, Count::Newest(3)), (Period::Day, Count::Newest(14)), (Period::Year, Count::Every)]
    );
    assert_eq!(policy.within_periods, [(Period::Month, Span { years: 1, months: 6, ..Span::default() })]);
    assert_eq!((policy.within.unwrap().days, policy.only_complete), (2, true));
    assert_eq!(retention.group_by.words(), ["platform", "host"]);
}

#[test]
fn components_take_defaults_where_they_say_nothing() {
    let plan = load(FULL).unwrap();
    let minutes = |name: &str| plan.component(name).unwrap().settings().duration("timeout").unwrap().as_secs() / 60;
    assert_eq!((minutes("database"), minutes("uploads"), minutes("search")), (30, 120, 120));
    let (database, uploads) = (plan.component("database").unwrap(), plan.component("uploads").unwrap());
    assert_eq!((database.importance(), uploads.importance()), (Importance::Required, Importance::BestEffort));
    assert_eq!((database.chunker(), uploads.chunker()), ("db-page", "default"));
    assert_eq!((database.existing(), uploads.existing()), (Existing::Fail, Existing::Update));
    assert_eq!(uploads.settings().boolean("exclude_caches"), Some(true));
    assert_eq!(plan.component("search").unwrap().settings().boolean("exclude_caches"), None);
    assert_eq!((database.role(), plan.component("index").unwrap().role()), (Role::Source, Role::Derived));
    assert_eq!(plan.component("search").unwrap().after_restore().len(), 2);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_is_wrong_is_said_with_line_and_a_way_out() {
    let component = "[[component]]\nname = \"a\"\nkind = \"files\"\npaths = [\"/a\"]\n";
    for (text, message, hint) in [
        (
            "format = 2\n[future]\n",
            "line 1: \"format\" is 2, and this program reads plans of format 1",
            "newer compline",
        ),
        (
            "format = 1\n[platfrom]\nname = \"x\"",
            "line 2: unknown key \"platfrom\"; did you mean \"platform\"?",
            "component, copy, defaults",
        ),
        (
            "format = 1\n[platform]\nnam = \"x\"",
            "line 3: unknown key \"nam\" in [platform]; did you mean \"name\"?",
            "description, name",
        ),
        ("format = 1\n[platform]\n", "line 2: \"name\" is missing in [platform]", "Name of the platform"),
        ("[platform]\nname = \"x\"", "line 1: \"format\" is missing", "Version"),
        ("format = 1", "\"platform\" is missing", "about"),
        (&format!("{HEAD}{component}[repository]\n"), "line 8: \"location\" is missing in [repository]", "directory"),
        (
            &format!("{HEAD}{component}[repository]\nlocation = \"a\"\npassword = \"hunter2\""),
            "line 10: \"password\" in [repository] must not be written into the plan",
            "{ file =",
        ),
        (
            &format!("{HEAD}{component}[repository]\nlocation = \"a\"\npassword = {{ env = \"A\" }}\nkey_file = \"k\""),
            "line 11: \"key_file\" in [repository] can't stand beside \"password\"",
            "Keep the one",
        ),
        (
            &format!("{HEAD}{component}[repository]\nlocation = \"azblob://B/p\""),
            "line 9: \"location\" in [repository] can't be used",
            "",
        ),
        (
            &format!("{HEAD}{component}[defaults]\ntimeuot = \"2h\""),
            "line 9: unknown key \"timeuot\" in [defaults]; did you mean \"timeout\"?",
            "chunker",
        ),
        (
            &format!("{HEAD}{component}[retention]\nkeep = {{ dayly = 3 }}"),
            "unknown key \"dayly\" in [retention.keep]; did you mean \"daily\"?",
            "hourly",
        ),
        (
            &format!("{HEAD}{component}[retention]\nkeep = {{ daily = -3 }}"),
            "\"daily\" in [retention.keep] must be a number of snapshots",
            "",
        ),
        (
            &format!("{HEAD}{component}[retention]\nkeep = {{ daily = 0 }}"),
            "\"keep\" in [retention] would keep no snapshot at all",
            "at least one rule",
        ),
        (
            &format!("{HEAD}{component}[retention]\nkeep = {{ within = \"6m\" }}"),
            "\"within\" in [retention.keep] has \"6m\", which is not a span of time",
            "mo are months, min minutes",
        ),
        (
            &format!("{HEAD}{component}[retention]\nkeep = {{ last = 1 }}\ngroup_by = [\"paths\"]"),
            "\"group_by\" in [retention] has \"paths\", by which snapshots can't be grouped",
            "components",
        ),
        (HEAD, "\"component\" is missing", "section"),
        ("format = 1\ncomponent = []\n[platform]\nname = \"demo\"", "must be one or more sections [[component]]", ""),
        (
            &format!("{HEAD}[component]\nname = \"a\""),
            "\"component\" must be a list of tables, not a table",
            "[[name]]",
        ),
        (
            &format!("{HEAD}[[component]]\nkind = \"files\""),
            "line 4: \"name\" is missing in a [[component]]",
            "Give it a name",
        ),
        (
            &format!("{HEAD}[[component]]\nname = \"A b\"\nkind = \"files\""),
            "line 5: \"name\" in [component] is not a name for a component",
            "a-z",
        ),
        (
            &format!("{HEAD}[[component]]\nname = \"{}\"\nkind = \"files\"", "a".repeat(64)),
            "is not a name for a component",
            "at most 63",
        ),
        (
            &format!("{HEAD}[[component]]\nname = \"-a\"\nkind = \"files\""),
            "is not a name for a component",
            "begin with",
        ),
        (&format!("{HEAD}[[component]]\nname = \"a\"\n"), "\"kind\" in component \"a\" is missing", "Kinds: "),
        (
            &format!("{HEAD}[[component]]\nname = \"a\"\nkind = 1"),
            "\"kind\" in component \"a\" must be a text",
            "Kinds: ",
        ),
        (
            &format!("{HEAD}[[component]]\nname = \"a\"\nkind = \"flies\""),
            "line 6: \"kind\" in component \"a\" is \"flies\", which nobody knows; did you mean \"files\"?",
            "files, none",
        ),
        (
            &format!("{HEAD}[[component]]\nname = \"a\"\nkind = \"redis\""),
            "is \"redis\", which this version of compline does not have yet",
            "`command` can run any dump",
        ),
        (
            &format!("{HEAD}[[component]]\nname = \"a\"\nkind = \"files\"\npahts = []"),
            "line 7: unknown key \"pahts\" in component \"a\"; did you mean \"paths\"?",
            "Known keys here: chunker, derived_from",
        ),
        (
            &format!("{HEAD}[[component]]\nname = \"a\"\nkind = \"files\"\n"),
            "line 4: \"paths\" is missing in component \"a\"",
            "Files and directories",
        ),
        (
            &format!("{HEAD}[[component]]\nname = \"a\"\nkind = \"files\"\npaths = []"),
            "\"paths\" in component \"a\" names no path",
            "",
        ),
        (
            &format!("{HEAD}{component}exclude = \"[a\""),
            "\"exclude\" in component \"a\" has a glob that can't be used",
            "",
        ),
        (
            &format!("{HEAD}{component}role = \"sorce\""),
            "has \"sorce\", which is not one of its words; did you mean \"source\"?",
            "derived, ephemeral, source",
        ),
        (&format!("{HEAD}{component}chunker = \"tiny\""), "\"chunker\" in component \"a\" has \"tiny\"", "db-text"),
        (
            &format!("{HEAD}{component}restore = {{ exsting = \"fail\" }}"),
            "unknown key \"exsting\" in [restore] of component \"a\"; did you mean \"existing\"?",
            "existing",
        ),
        (
            &format!("{HEAD}{component}[component.restore]\nexisting = \"overwrite\""),
            "\"existing\" in [restore] of component \"a\" has \"overwrite\"",
            "replace",
        ),
        (&format!("{HEAD}{component}enabled = \"yes\""), "\"enabled\" in component \"a\" must be true, false or", ""),
        (
            &format!("{HEAD}{component}enabled = {{ comand = [\"a\"] }}"),
            "unknown key \"comand\" in [enabled] of component \"a\"; did you mean \"command\"?",
            "",
        ),
        (
            &format!("{HEAD}{component}{component}"),
            "line 9: \"name\" in component \"a\" is \"a\", which another component has",
            "each component its own",
        ),
        (
            &format!("{HEAD}{component}references = [\"b\"]"),
            "line 8: \"references\" in component \"a\" names \"b\", which is no component",
            "Components: a",
        ),
        (
            &format!("{HEAD}{component}references = [\"a\"]"),
            "line 8: \"references\" in component \"a\" closes a ring: a references a",
            "no order",
        ),
        (
            &format!(
                "{HEAD}{component}references = [\"b\"]\n[[component]]\nname = \"b\"\nkind = \"none\"\nderived_from = [\"a\"]"
            ),
            "\"references\" in component \"a\" closes a ring: a references b, b is derived from a",
            "take one",
        ),
        (
            &format!(
                "{HEAD}{component}[[component]]\nname = \"b\"\nkind = \"files\"\npaths = [\"/b\"]\nderived_from = [\"a\"]"
            ),
            "line 12: \"derived_from\" in component \"b\" needs \"resync\" or \"rebuild\"",
            "",
        ),
        (
            &format!("{HEAD}{component}role = \"derived\""),
            "\"role\" in component \"a\" is \"derived\", but \"derived_from\" names no component",
            "",
        ),
        (
            &format!("{HEAD}[[component]]\nname = \"a\"\nkind = \"none\"\nrole = \"source\""),
            "\"role\" in component \"a\" is \"source\", but kind none stores nothing",
            "",
        ),
    ] {
        let (got, got_hint) = refusal(text);
        assert!(got.starts_with("Plan /etc/compline/plan.toml, line "), "{got}");
        assert!(got.contains(message), "{text}\n   gives {got}\n   wanted {message}");
        assert!(got_hint.contains(hint), "{text}\n   gives {got_hint}\n   wanted {hint}");
    }
}

#[test]
fn the_effective_plan_is_a_plan_that_says_the_same() {
    let plan = load(FULL).unwrap();
    let again = load(&plan.to_toml()).unwrap();
    assert_eq!(again.to_json(), plan.to_json());
    assert_eq!(again.to_toml(), plan.to_toml());
}

#[test]
fn the_effective_plan_shows_defaults_and_where_secrets_come_from() {
    let text = load(FULL).unwrap().to_toml();
    for line in [
        "location = \"/etc/compline/archive\"",
        "password = { file = \"keys/main.key\" }",
        "role = \"source\"",
        "chunker = \"default\"",
        "restore = { existing = \"fail\" }",
        "only_complete = true",
    ] {
        assert!(text.lines().any(|got| got == line), "{line} is not in\n{text}");
    }
}

fn at<'a>(value: &'a serde_json::Value, pointer: &str) -> &'a serde_json::Value {
    value.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not in {value}"))
}

#[test]
fn the_schema_has_a_case_for_each_kind_with_common_and_own_keys() {
    let schema = json_schema();
    let cases = at(&schema, "/properties/component/items/allOf").as_array().unwrap();
    assert_eq!(cases.len(), crate::components::KINDS.len());
    for (case, kind) in cases.iter().zip(crate::components::KINDS) {
        assert_eq!(at(case, "/if/properties/kind/const"), kind.name);
        assert_eq!(at(case, "/then/additionalProperties"), false);
        for name in kind.fields.iter().map(|field| field.name).chain(["name", "kind", "references", "chunker"]) {
            assert!(case.pointer(&format!("/then/properties/{name}")).is_some(), "{name} of {}", kind.name);
        }
    }
    assert_eq!(at(&schema, "/properties/platform/required/0"), "name");
    assert_eq!(at(&schema, "/properties/repository/properties/password/$ref"), "#/$defs/secret");
}

#[test]
fn the_schema_refers_only_to_definitions_that_are_there() {
    fn references(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(map) => {
                found.extend(map.get("$ref").and_then(|name| name.as_str()).map(str::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            serde_json::Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let schema = json_schema();
    let mut found = Vec::new();
    references(&schema, &mut found);
    assert!(found.len() > 5);
    for name in found {
        at(&schema, name.strip_prefix('#').unwrap());
    }
}

fn presence(extra: &str) -> Result<Presence> {
    let plan = load(&format!("{HEAD}[[component]]\nname = \"a\"\nkind = \"none\"\n{extra}")).unwrap();
    let (ledger, interrupt) = (Ledger::default(), AtomicBool::new(false));
    let context = Context { clock: &SystemClock, observer: &ledger, interrupt: &interrupt };
    let path = Path::new("/");
    let plan = Plan::load(&path.join("plan.toml"), plan.text()).unwrap();
    plan.components()[0].presence(context)
}

#[test]
fn a_component_is_there_when_its_command_says_so() {
    assert_eq!(presence("").unwrap(), Presence::Here);
    assert_eq!(presence("enabled = true").unwrap(), Presence::Here);
    assert_eq!(presence("enabled = { command = [\"true\"] }").unwrap(), Presence::Here);
    assert!(matches!(presence("enabled = false").unwrap(), Presence::Skipped(_)));
    let missing = "enabled = { command = [\"false\"] }\nwhen_missing = ";
    assert!(matches!(presence(&format!("{missing}\"skip\"")).unwrap(), Presence::Skipped(_)));
    assert_eq!(presence(&format!("{missing}\"fail\"")).unwrap_err().to_string(), "Component a is not here");
}

#[test]
fn commands_after_a_restore_run_in_the_plans_directory_and_stop_at_the_first_failure() {
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "{HEAD}[[component]]\nname = \"b\"\nkind = \"none\"\n[[component]]\nname = \"a\"\nkind = \"none\"\nderived_from = [\"b\"]\n\
         rebuild = [[\"touch\", \"one\"]]\nresync = [[\"false\"], [\"touch\", \"two\"]]"
    );
    let plan = Plan::load(&directory.path().join("plan.toml"), &text).unwrap();
    let (ledger, interrupt) = (Ledger::default(), AtomicBool::new(false));
    let context = Context { clock: &SystemClock, observer: &ledger, interrupt: &interrupt };
    assert!(plan.component("a").unwrap().finish_restore(context).is_err());
    assert!(directory.path().join("one").exists());
    assert!(!directory.path().join("two").exists());
}

#[test]
fn a_readable_password_and_an_unknown_time_zone_are_problems() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, "k").unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let text = "format = 1\n[platform]\nname = \"x\"\ntimezone = \"Mars/Olympus\"\n\
                [repository]\nlocation = \"r\"\npassword = { file = \"key\" }\n[[component]]\nname = \"a\"\nkind = \"none\"";
    let plan = Plan::load(&directory.path().join("plan.toml"), text).unwrap();
    let problems = plan.problems();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].message.contains("every user may read it"));
    assert_eq!(problems[1].subject, "Mars/Olympus");
}

/// Texts that look like plans: lines of the full one, in any number and order, with characters changed.
fn near_plans() -> impl Strategy<Value = String> {
    let lines: Vec<&'static str> = FULL.lines().collect();
    proptest::collection::vec(
        (proptest::sample::select(lines), proptest::option::weighted(0.2, (0usize..60, any::<char>()))),
        0..40,
    )
    .prop_map(|lines| lines.into_iter().map(mutate).collect::<Vec<_>>().join("\n"))
}

fn mutate((line, change): (&str, Option<(usize, char)>)) -> String {
    let mut letters: Vec<char> = line.chars().collect();
    if let Some((at, letter)) = change
        && let Some(place) = letters.get_mut(at)
    {
        *place = letter;
    }
    letters.into_iter().collect()
}

proptest! {
    #[test]
    fn no_text_makes_loading_panic(text in prop_oneof![near_plans(), ".{0,200}"]) {
        match load(&text) {
            Ok(plan) => prop_assert_eq!(load(&plan.to_toml()).unwrap().to_json(), plan.to_json()),
            Err(error) => prop_assert_eq!(error.kind(), ErrorKind::InvalidPlan),
        }
    }
}
