//! What happens to files that are there already.

use std::os::unix::fs::MetadataExt;

use compline::archive::Entry;
use compline::archive::restore::{Overwrite, RestoreOptions};

use crate::support::compare::Ignore;
use crate::support::nasty::noise;
use crate::{Place, set_mtime, with};

/// A snapshot of `file` (200 kB, second 1,000) and `other`.
fn snapshot(place: &mut Place) -> Entry {
    place.write("file", noise(1, 200_000));
    place.write("other", "other");
    set_mtime(&place.source().join("file"), 1000);
    place.capture()
}

fn target_file(place: &Place, bytes: &[u8], seconds: i64) {
    place.write_target("file", bytes);
    set_mtime(&place.target().join("file"), seconds);
}

#[test]
fn never_keeps_every_file_and_writes_only_what_is_missing() {
    let mut place = Place::new();
    let root = snapshot(&mut place);
    target_file(&place, b"mine", 1);
    let summary = place.restore_well(&root, &with(Overwrite::Never));
    assert_eq!((summary.files_kept, summary.files_restored), (1, 1));
    assert_eq!(place.read_target("file"), b"mine");
    assert_eq!(place.read_target("other"), b"other");
}

#[test]
fn if_newer_overwrites_only_older_files() {
    let mut place = Place::new();
    let root = snapshot(&mut place);
    for (seconds, kept) in [(1001, true), (1000, true), (999, false)] {
        target_file(&place, b"mine", seconds);
        place.restore_well(&root, &with(Overwrite::IfNewer));
        assert_eq!(place.read_target("file") == b"mine", kept, "{seconds}");
    }
}

#[test]
fn if_changed_trusts_length_and_time_and_always_does_not() {
    let mut place = Place::new();
    let root = snapshot(&mut place);
    target_file(&place, &noise(2, 200_000), 1000);
    let trusting = place.restore_well(&root, &with(Overwrite::IfChanged));
    assert_eq!(trusting.files_right, 1);
    assert_eq!(place.read_target("file"), noise(2, 200_000));
    place.restore_well(&root, &with(Overwrite::Always));
    assert_eq!(place.read_target("file"), noise(1, 200_000));
}

#[test]
fn verify_trusts_nothing_and_still_writes_only_what_differs() {
    let mut place = Place::new();
    let root = snapshot(&mut place);
    let mut bytes = noise(1, 200_000);
    bytes[150_000] ^= 1;
    target_file(&place, &bytes, 1000);
    let verify = RestoreOptions { verify: true, ..RestoreOptions::default() };
    let summary = place.restore_well(&root, &verify);
    assert_eq!(place.read_target("file"), noise(1, 200_000));
    assert_eq!(summary.bytes_restored, 65_536 + 5, "one chunk of the file, and the other file");
    let again = place.restore_well(&root, &verify);
    assert_eq!((again.files_right, again.files_restored, again.bytes_restored), (2, 0, 0));
}

#[test]
fn a_file_of_equal_length_is_patched_in_place_and_one_of_another_length_replaced() {
    let mut place = Place::new();
    let root = snapshot(&mut place);
    let inode = |place: &Place| std::fs::metadata(place.target().join("file")).unwrap().ino();
    target_file(&place, &noise(2, 200_000), 5);
    let before = inode(&place);
    place.restore_well(&root, &RestoreOptions::default());
    assert_eq!((inode(&place), place.read_target("file")), (before, noise(1, 200_000)));
    target_file(&place, b"short", 5);
    let before = inode(&place);
    place.restore_well(&root, &RestoreOptions::default());
    assert_ne!(inode(&place), before);
    assert_eq!(place.read_target("file"), noise(1, 200_000));
}

#[test]
fn holes_are_recreated_in_a_file_that_is_patched() {
    let mut place = Place::new();
    place.write("file", "start");
    let file = std::fs::File::options().write(true).open(place.source().join("file")).unwrap();
    file.set_len(8 << 20).unwrap();
    file.sync_all().unwrap();
    let root = place.capture();
    place.write_target("file", vec![b'x'; 8 << 20]);
    place.restore_well(&root, &RestoreOptions::default());
    crate::support::compare::assert_equal(&place.source(), &place.target());
}

#[test]
fn a_file_that_is_linked_elsewhere_is_not_written_through() {
    let mut place = Place::new();
    let root = snapshot(&mut place);
    target_file(&place, &noise(2, 200_000), 5);
    let elsewhere = place.scratch.path().join("elsewhere");
    std::fs::hard_link(place.target().join("file"), &elsewhere).unwrap();
    place.restore_well(&root, &RestoreOptions::default());
    assert_eq!(place.read_target("file"), noise(1, 200_000));
    assert_eq!(std::fs::read(elsewhere).unwrap(), noise(2, 200_000));
}

#[test]
fn a_running_program_is_replaced() {
    let mut place = Place::new();
    std::fs::create_dir_all(place.source()).unwrap();
    std::fs::create_dir_all(place.target()).unwrap();
    std::fs::copy("/bin/sleep", place.source().join("sleep")).unwrap();
    set_mtime(&place.source().join("sleep"), 1000);
    std::fs::copy("/bin/sleep", place.target().join("sleep")).unwrap();
    let mut running = std::process::Command::new(place.target().join("sleep")).arg("600").spawn().unwrap();
    let root = place.capture();
    let (done, world) = place.restore(&root, &with(Overwrite::Always));
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(done.unwrap().files_restored, 1);
    assert_eq!(world.problems(), Vec::<String>::new());
    crate::support::compare::assert_equal(&place.source(), &place.target());
}

#[test]
fn hard_links_are_made_again_where_the_target_has_separate_files() {
    let mut place = Place::new();
    place.write("a", "same");
    std::fs::hard_link(place.source().join("a"), place.source().join("b")).unwrap();
    let root = place.capture();
    place.write_target("a", "same");
    place.write_target("b", "other");
    place.restore_well(&root, &RestoreOptions::default());
    crate::support::compare::assert_equal(&place.source(), &place.target());
}

#[test]
fn separate_files_come_apart_where_the_target_has_links() {
    let mut place = Place::new();
    place.write("a", "first");
    place.write("b", "other");
    set_mtime(&place.source().join("a"), 1000);
    set_mtime(&place.source().join("b"), 1000);
    let root = place.capture();
    target_file(&place, b"first", 1000);
    std::fs::rename(place.target().join("file"), place.target().join("a")).unwrap();
    std::fs::hard_link(place.target().join("a"), place.target().join("b")).unwrap();
    place.restore_well(&root, &RestoreOptions::default());
    crate::support::compare::assert_equal(&place.source(), &place.target());
}

#[test]
fn a_link_to_a_file_that_was_kept_gets_the_content_of_the_snapshot() {
    let mut place = Place::new();
    place.write("a", "snapshot");
    for name in ["b", "c"] {
        std::fs::hard_link(place.source().join("a"), place.source().join(name)).unwrap();
    }
    let root = place.capture();
    place.write_target("a", "mine");
    place.restore_well(&root, &with(Overwrite::Never));
    assert_eq!(place.read_target("a"), b"mine");
    assert_eq!(place.read_target("b"), b"snapshot");
    let inode = |name: &str| std::fs::metadata(place.target().join(name)).unwrap().ino();
    assert_eq!(inode("b"), inode("c"));
}

#[test]
fn patterns_choose_what_is_restored_and_nothing_else_is_made() {
    let mut place = Place::new();
    for name in ["etc/a.conf", "etc/a.log", "var/log/x.log", "var/lib/db/data", "var/lib/db/a.log"] {
        place.write(name, name);
    }
    let root = place.capture();
    let set = |patterns: &[&str]| {
        let mut builder = globset::GlobSetBuilder::new();
        for pattern in patterns {
            builder.add(globset::Glob::new(pattern).unwrap());
        }
        Some(builder.build().unwrap())
    };
    let include = set(&["var/lib/*", "**/*.conf"]);
    place.restore_well(&root, &RestoreOptions { include, exclude: set(&["**/*.log"]), ..RestoreOptions::default() });
    assert_eq!(
        crate::names(&place.target()),
        ["etc/", "etc/a.conf", "var/", "var/lib/", "var/lib/db/", "var/lib/db/data"]
    );
    assert!(
        crate::support::compare::differences(
            &place.source().join("var/lib/db"),
            &place.target().join("var/lib/db"),
            Ignore::default()
        )
        .iter()
        .all(|difference| difference.contains("a.log"))
    );
}
