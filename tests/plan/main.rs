//! Plans, from the file to the snapshot and back into the platform.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test says what went wrong by stopping"
)]

mod documentation;
mod house;

use std::fs;

use compline::archive::Status;
use compline::components::Existing;
use compline::error::ErrorKind;
use house::{House, Only, statuses};

const TREE: &str = r#"
[[component]]
name = "tree"
kind = "files"
paths = ["data", "alone.txt"]
exclude = ["*.tmp", "data/cache"]
"#;

/// A tree of files, one of which is named by itself.
fn house_with_tree(more: &str) -> House {
    let house = House::new(&format!("{TREE}{more}"));
    house.write("data/a", "one");
    house.write("data/below/b", "two");
    house.write("alone.txt", "alone");
    house.write("beside.txt", "never captured");
    house
}

#[test]
fn a_tree_comes_back_where_it_was() {
    let house = house_with_tree("");
    house.write("data/x.tmp", "left out");
    house.write("data/cache/c", "left out");
    assert_eq!(house.backup().status, Status::Complete);
    house.remove("data");
    house.remove("alone.txt");
    house.restore(None).unwrap();
    assert_eq!(house.files("data"), ["a", "below/b"]);
    assert_eq!(house.read("alone.txt"), "alone");
    assert_eq!(house.read("beside.txt"), "never captured");
}

#[test]
fn a_tree_that_is_in_use_is_not_touched_unless_the_operator_says_how() {
    let house = house_with_tree("");
    house.backup();
    house.write("data/a", "changed");
    let error = house.restore(None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsafeTarget);
    assert!(error.chain().contains("data is not empty"), "{}", error.chain());
    assert_eq!(house.read("data/a"), "changed");
}

#[test]
fn a_file_that_exists_is_in_the_way_too() {
    let house = house_with_tree("");
    house.backup();
    house.remove("data");
    let error = house.restore(None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsafeTarget);
    assert!(error.chain().contains("alone.txt exists"), "{}", error.chain());
    assert!(!house.path("data").exists(), "what it decided before must not have begun");
}

#[test]
fn an_empty_directory_is_in_nobodys_way() {
    let house = house_with_tree("");
    house.backup();
    house.remove("data");
    house.remove("alone.txt");
    fs::create_dir(house.path("data")).unwrap();
    house.restore(None).unwrap();
    assert_eq!(house.files("data"), ["a", "below/b"]);
}

#[test]
fn directories_above_a_tree_come_back_as_they_were_and_with_nothing_else_in_them() {
    let house = House::new("[[component]]\nname = \"deep\"\nkind = \"files\"\npaths = [\"one/two/deep\"]\n");
    house.write("one/two/deep/d", "down");
    house.write("one/beside", "never captured");
    house.set_mode("one", 0o710);
    house.set_mode("one/two", 0o700);
    house.backup();
    house.remove("one");
    house.restore(None).unwrap();
    assert_eq!((house.mode("one"), house.mode("one/two")), (0o710, 0o700));
    assert_eq!(house.files("one"), ["two/deep/d"]);
    house.set_mode("one/two", 0o750);
    house.restore(Some(Existing::Update)).unwrap();
    assert_eq!(house.mode("one/two"), 0o750, "what exists above a tree is not the tree's business");
}

#[test]
fn each_word_for_what_exists_does_what_it_says() {
    for (existing, a, files) in [
        (Existing::Skip, "changed", &["a", "below/b", "extra"][..]),
        (Existing::Update, "one", &["a", "below/b", "extra"]),
        (Existing::Replace, "one", &["a", "below/b"]),
    ] {
        let house = house_with_tree("");
        house.backup();
        house.write("data/a", "changed");
        house.write("data/extra", "new");
        house.remove("data/below");
        house.restore(Some(existing)).unwrap();
        assert_eq!(house.read("data/a"), a, "{existing:?}");
        assert_eq!(house.files("data"), files, "{existing:?}");
        assert_eq!(house.read("beside.txt"), "never captured", "{existing:?}");
    }
}

#[test]
fn a_tree_can_be_restored_below_another_root() {
    let house = house_with_tree("");
    house.backup();
    let root = house.path("elsewhere");
    house.restore_with(|recovery| recovery.root = Some(root.clone())).unwrap();
    let restored = root.join(house.path("data/a").strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(restored).unwrap(), "one");
    assert_eq!(house.read("data/a"), "one");
}

#[test]
fn the_second_snapshot_of_an_unchanged_tree_reads_nothing() {
    let house = house_with_tree("");
    house.backup();
    assert_eq!(house.backup().bytes_read, 0);
}

#[test]
fn a_component_that_fails_leaves_a_partial_snapshot_of_the_others() {
    let house = house_with_tree("[[component]]\nname = \"broken\"\nkind = \"command\"\ndump = [\"false\"]\n");
    let report = house.backup();
    assert_eq!(report.status, Status::Partial);
    assert!(report.has_problems());
    assert_eq!(statuses(&report), [("tree", Status::Complete), ("broken", Status::Failed)]);
}

#[test]
fn after_a_failure_the_rest_is_skipped_only_if_the_plan_says_stop_and_the_component_was_required() {
    for (importance, tree) in [("required", Status::Skipped), ("best-effort", Status::Complete)] {
        let broken = format!(
            "[defaults]\non_error = \"stop\"\n\
             [[component]]\nname = \"broken\"\nkind = \"command\"\ndump = [\"false\"]\nimportance = \"{importance}\"\n\
             [[component]]\nname = \"first\"\nkind = \"files\"\npaths = [\"first\"]\nreferences = [\"broken\"]"
        );
        let house = House::new(&format!("{broken}{TREE}"));
        for name in ["data/a", "alone.txt", "first"] {
            house.write(name, "1");
        }
        let report = house.backup();
        assert_eq!(
            statuses(&report),
            [("first", Status::Complete), ("broken", Status::Failed), ("tree", tree)],
            "{importance}"
        );
    }
}

#[test]
fn a_component_that_need_not_be_here_is_skipped_and_spoils_nothing() {
    let absent = "[[component]]\nname = \"absent\"\nkind = \"files\"\npaths = [\"absent\"]\n\
                  enabled = { command = [\"test\", \"-d\", \"absent\"] }\nwhen_missing = \"skip\"\n\
                  [[component]]\nname = \"off\"\nkind = \"files\"\npaths = [\"absent\"]\nenabled = false\n";
    let house = house_with_tree(absent);
    let report = house.backup();
    assert_eq!(statuses(&report), [("tree", Status::Complete), ("absent", Status::Skipped), ("off", Status::Skipped)]);
    assert_eq!(report.status, Status::Complete);
    assert!(!report.has_problems());
    house.remove("data");
    house.remove("alone.txt");
    house.restore(None).unwrap();
    assert_eq!(house.read("data/a"), "one");
}

#[test]
fn leaving_components_out_by_hand_makes_a_partial_snapshot() {
    let house = house_with_tree("[[component]]\nname = \"other\"\nkind = \"files\"\npaths = [\"beside.txt\"]\n");
    let report = house.backup_only(Only::These(&["other"]));
    assert_eq!(statuses(&report), [("tree", Status::Skipped), ("other", Status::Complete)]);
    assert_eq!(report.status, Status::Partial);
    let report = house.backup_only(Only::AllBut(&["other"]));
    assert_eq!(statuses(&report), [("tree", Status::Complete), ("other", Status::Skipped)]);
}

#[test]
fn a_name_that_the_plan_lacks_is_refused_with_the_one_that_was_meant() {
    let house = house_with_tree("");
    let error = house.try_backup(Only::These(&["tere"])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().ends_with("has no component \"tere\"; did you mean \"tree\"?"), "{error}");
}

#[test]
fn what_is_ephemeral_comes_back_only_by_name() {
    let house =
        house_with_tree("[[component]]\nname = \"cache\"\nkind = \"files\"\npaths = [\"hot\"]\nrole = \"ephemeral\"\n");
    house.write("hot/h", "warm");
    house.backup();
    for name in ["data", "alone.txt", "hot"] {
        house.remove(name);
    }
    house.restore(None).unwrap();
    assert!(house.path("data").exists() && !house.path("hot").exists());
    house.restore_with(|recovery| recovery.only = vec!["cache".to_owned()]).unwrap();
    assert_eq!(house.read("hot/h"), "warm");
}

#[test]
fn what_is_derived_is_rebuilt_after_its_source_came_back() {
    let house = house_with_tree(
        "[[component]]\nname = \"index\"\nkind = \"none\"\nderived_from = [\"tree\"]\n\
         rebuild = [[\"cp\", \"data/a\", \"index\"]]\nresync = [[\"sh\", \"-c\", \"echo synced >>index\"]]\n",
    );
    house.backup();
    house.remove("data");
    house.remove("alone.txt");
    house.restore(None).unwrap();
    assert_eq!(house.read("index"), "onesynced\n");
}

#[test]
fn the_snapshot_keeps_the_plan_and_the_order_of_restore() {
    let house = house_with_tree(
        "[[component]]\nname = \"db\"\nkind = \"files\"\npaths = [\"beside.txt\"]\nreferences = [\"tree\"]\n",
    );
    let report = house.backup();
    let snapshot = house.snapshot(&report);
    assert_eq!(snapshot.plan.as_deref(), Some(house.plan().text()));
    assert_eq!(snapshot.restore_order, [["tree"], ["db"]]);
    assert_eq!(snapshot.platform, "house");
}
