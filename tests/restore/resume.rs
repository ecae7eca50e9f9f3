//! A restore that was stopped, run again, ends right.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use compline::archive::restore::{Overwrite, RestoreOptions, restore_tree};
use compline::error::ErrorKind;

use crate::support::compare::assert_equal;
use crate::support::memory::MemoryArchive;
use crate::support::nasty;
use crate::{Place, World, names, with};

/// How many chunks the whole tree has in bulk.
fn deliveries(place: &mut Place) -> i64 {
    let root = place.capture();
    place.target = "measure";
    place.restore_well(&root, &RestoreOptions::default());
    i64::try_from(place.archive.delivered.load(Ordering::SeqCst)).unwrap()
}

#[test]
fn a_restore_stopped_anywhere_ends_right_when_run_again_under_every_policy() {
    let mut place = Place::new();
    nasty::build(&place.source());
    let total = deliveries(&mut place);
    assert!(total > 300);
    let root = place.capture();
    for (name, overwrite) in Overwrite::ALL {
        place.target = name;
        for patience in [0, total / 7, total / 2, total - 1] {
            place.archive.patience.store(patience, Ordering::SeqCst);
            let (done, _) = place.restore(&root, &with(overwrite));
            if let Err(error) = done {
                assert_eq!(error.kind(), ErrorKind::Interrupted, "{name} {patience}");
            }
        }
        place.archive.patience.store(i64::MAX, Ordering::SeqCst);
        place.restore_well(&root, &with(overwrite));
        assert_equal(&place.source(), &place.target());
    }
}

const VICTIM: &str = "COMPLINE_TEST_VICTIM";

/// Restores `source` to `target` below the directory that the environment names, and dies half-way.
#[test]
#[ignore = "started and killed by the test below"]
fn victim() {
    let scratch = PathBuf::from(std::env::var(VICTIM).unwrap());
    let [patience, policy] = ["patience", "policy"].map(|name| std::fs::read_to_string(scratch.join(name)).unwrap());
    let mut archive = MemoryArchive::new();
    let root = archive.capture(&scratch.join("source"));
    archive.patience.store(patience.parse().unwrap(), Ordering::SeqCst);
    archive.deadly.store(true, Ordering::SeqCst);
    let (world, options) = (World::new(), with(policy.parse().unwrap()));
    let _ = restore_tree(&archive, &archive, &root, &scratch.join(&policy), &options, &world.context());
}

#[test]
fn a_restore_killed_anywhere_ends_right_when_run_again_under_every_policy() {
    let mut place = Place::new();
    nasty::build(&place.source());
    let total = deliveries(&mut place);
    let root = place.capture();
    for (name, overwrite) in Overwrite::ALL {
        for patience in [0, total / 3, total - 1] {
            std::fs::write(place.scratch.path().join("patience"), patience.to_string()).unwrap();
            std::fs::write(place.scratch.path().join("policy"), name).unwrap();
            let killed = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "resume::victim", "--ignored"])
                .env(VICTIM, place.scratch.path())
                .output()
                .unwrap();
            // What the runs before have brought home needs no more deliveries.
            assert!(!killed.status.success() || patience > 0, "{killed:?}");
        }
        place.target = name;
        place.restore_well(&root, &with(overwrite));
        assert_equal(&place.source(), &place.target());
    }
}

#[test]
fn the_first_stop_is_an_error_of_kind_interrupted() {
    let mut place = Place::new();
    place.write("file", nasty::noise(1, 1 << 20));
    let root = place.capture();
    place.archive.patience.store(3, Ordering::SeqCst);
    let (done, _) = place.restore(&root, &RestoreOptions::default());
    assert_eq!(done.unwrap_err().kind(), ErrorKind::Interrupted);
}

#[test]
fn what_was_written_before_the_stop_is_not_written_again() {
    let mut place = Place::new();
    place.write("file", nasty::noise(1, 4 << 20));
    let root = place.capture();
    place.archive.patience.store(40, Ordering::SeqCst);
    assert!(place.restore(&root, &RestoreOptions::default()).0.is_err());
    place.archive.patience.store(i64::MAX, Ordering::SeqCst);
    let summary = place.restore_well(&root, &RestoreOptions::default());
    assert_eq!(summary.bytes_restored, 24 * 65_536);
    assert_equal(&place.source(), &place.target());
}

#[test]
fn a_stopped_restore_leaves_no_temporary_files_and_the_old_content() {
    let mut place = Place::new();
    place.write("file", nasty::noise(1, 4 << 20));
    let root = place.capture();
    place.write_target("file", "old");
    place.archive.patience.store(40, Ordering::SeqCst);
    assert!(place.restore(&root, &RestoreOptions::default()).0.is_err());
    assert_eq!(names(&place.target()), ["file"]);
    assert_eq!(place.read_target("file"), b"old");
}

#[test]
fn the_temporary_file_of_a_killed_restore_is_taken_over() {
    let mut place = Place::new();
    place.write("file", "new content");
    let root = place.capture();
    place.write_target("file", "old");
    let hash = blake3::hash(b"file").to_hex();
    place.write_target(&format!(".compline-restore-{}", &hash[..16]), "half of somethi");
    place.restore_well(&root, &RestoreOptions::default());
    assert_eq!(names(&place.target()), ["file"]);
    assert_eq!(place.read_target("file"), b"new content");
}

#[test]
fn a_request_to_stop_is_heard_before_the_first_file() {
    let mut place = Place::new();
    place.write("file", "x");
    let root = place.capture();
    let world = World::new();
    world.interrupt.store(true, Ordering::SeqCst);
    let options = RestoreOptions::default();
    let done = restore_tree(&place.archive, &place.archive, &root, &place.target(), &options, &world.context());
    assert_eq!(done.unwrap_err().kind(), ErrorKind::Interrupted);
    assert_eq!(names(&place.target()), Vec::<String>::new());
}

#[test]
fn directories_that_were_there_keep_their_mode_under_never_and_those_of_a_stopped_restore_get_theirs() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let mut place = Place::new();
    place.write("theirs/file", nasty::noise(1, 1 << 20));
    place.write("new/file", nasty::noise(2, 1 << 20));
    let root = place.capture();
    let theirs = place.target().join("theirs");
    std::fs::create_dir_all(&theirs).unwrap();
    std::fs::set_permissions(&theirs, std::fs::Permissions::from_mode(0o710)).unwrap();
    place.archive.patience.store(10, Ordering::SeqCst);
    assert!(place.restore(&root, &with(Overwrite::Never)).0.is_err());
    let mode = |name: &str| std::fs::metadata(place.target().join(name)).unwrap().mode() & 0o7777;
    assert_eq!(mode("new"), 0o1700);
    place.archive.patience.store(i64::MAX, Ordering::SeqCst);
    place.restore_well(&root, &with(Overwrite::Never));
    assert_eq!((mode("theirs"), mode("new")), (0o710, 0o755));
}
