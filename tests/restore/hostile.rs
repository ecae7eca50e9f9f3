//! Nothing that a snapshot says and nothing that lies in the target leads outside it.

use std::os::unix::fs::symlink;

use compline::archive::posix::Owners;
use compline::archive::restore::{Overwrite, RestoreOptions};
use compline::archive::{EntryKind, Metadata};

use crate::support::compare::assert_equal;
use crate::support::memory::plain_metadata;
use crate::{Place, names, with};

#[test]
fn a_link_in_the_way_of_a_directory_is_replaced_and_not_followed() {
    let mut place = Place::new();
    place.write("etc/passwd", "from the snapshot");
    let root = place.capture();
    let outside = place.scratch.path().join("outside");
    crate::write(&outside.join("passwd"), "precious");
    std::fs::create_dir(place.target()).unwrap();
    symlink(&outside, place.target().join("etc")).unwrap();
    place.restore_well(&root, &RestoreOptions::default());
    assert_eq!(std::fs::read(outside.join("passwd")).unwrap(), b"precious");
    assert_equal(&place.source(), &place.target());
}

#[test]
fn a_link_in_the_way_of_a_directory_stays_where_nothing_may_be_overwritten() {
    let mut place = Place::new();
    place.write("etc/passwd", "from the snapshot");
    let root = place.capture();
    let outside = place.scratch.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::create_dir(place.target()).unwrap();
    symlink(&outside, place.target().join("etc")).unwrap();
    let (_, problems) = place.restore_badly(&root, &with(Overwrite::Never));
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(names(&outside), Vec::<String>::new());
}

#[test]
fn a_link_in_the_way_of_a_file_is_replaced_and_not_written_through() {
    let mut place = Place::new();
    place.write("file", "from the snapshot");
    let root = place.capture();
    let outside = place.scratch.path().join("outside");
    for overwrite in [Overwrite::Always, Overwrite::IfChanged] {
        std::fs::write(&outside, "precious precious").unwrap();
        let _ = std::fs::remove_dir_all(place.target());
        std::fs::create_dir(place.target()).unwrap();
        symlink(&outside, place.target().join("file")).unwrap();
        place.restore_well(&root, &with(overwrite));
        assert_eq!(std::fs::read(&outside).unwrap(), b"precious precious");
        assert_equal(&place.source(), &place.target());
    }
}

#[test]
fn a_link_of_the_snapshot_is_made_and_nothing_goes_through_it() {
    // A tree can't hold a name twice, but one name may differ from another only in a way this file system ignores, and
    // an earlier restore may have left the link.
    let mut place = Place::new();
    let outside = place.scratch.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let mut link = place.archive.file(b"way", b"");
    link.kind = EntryKind::Symlink(outside.to_str().unwrap().as_bytes().to_vec());
    let first = place.archive.directory(b"root", vec![link]);
    let file = place.archive.file(b"escaped", b"x");
    let way = place.archive.directory(b"way", vec![file]);
    let second = place.archive.directory(b"root", vec![way]);
    place.restore_well(&first, &RestoreOptions::default());
    place.restore_well(&second, &RestoreOptions::default());
    assert_eq!(names(&outside), Vec::<String>::new());
    assert_eq!(names(&place.target()), ["way/", "way/escaped"]);
}

#[test]
fn the_target_itself_may_be_a_link_because_the_caller_named_it() {
    let mut place = Place::new();
    place.write("file", "x");
    let root = place.capture();
    let real = place.scratch.path().join("real");
    std::fs::create_dir(&real).unwrap();
    symlink(&real, place.target()).unwrap();
    place.restore_well(&root, &RestoreOptions::default());
    assert_equal(&place.source(), &real);
}

#[test]
fn a_name_the_file_system_cannot_take_is_a_problem_of_that_name() {
    let mut place = Place::new();
    let long = vec![b'x'; 300];
    let files = vec![place.archive.file(&long, b"x"), place.archive.file(b"good", b"x")];
    let inner = place.archive.file(b"inner", b"x");
    let long_directory = vec![b'd'; 300];
    let directory = place.archive.directory(&long_directory, vec![inner]);
    let mut empty_link = place.archive.file(b"link", b"");
    empty_link.kind = EntryKind::Symlink(Vec::new());
    let root = place.archive.directory(b"root", files.into_iter().chain([directory, empty_link]).collect());
    let (summary, problems) = place.restore_badly(&root, &RestoreOptions::default());
    assert_eq!((summary.files_restored, problems.len()), (1, 3), "{problems:?}");
    assert_eq!(names(&place.target()), ["good"]);
}

#[test]
fn a_chain_of_directories_deeper_than_any_stack_or_descriptor_table_is_restored_and_deleted() {
    const DEPTH: usize = 1200;
    let mut place = Place::new();
    let mut entry = place.archive.file(b"bottom", b"here");
    for _ in 0..DEPTH {
        entry = place.archive.directory(b"d", vec![entry]);
    }
    let summary = place.restore_well(&entry, &RestoreOptions::default());
    assert_eq!((summary.files_restored, summary.directories), (1, DEPTH as u64 - 1));
    let again = place.restore_well(&entry, &RestoreOptions::default());
    assert_eq!(again.files_right, 1);
    let empty = place.archive.directory(b"d", Vec::new());
    let deleted = place.restore_well(&empty, &RestoreOptions { delete: true, ..RestoreOptions::default() });
    assert_eq!(deleted.files_deleted, DEPTH as u64);
    assert_eq!(names(&place.target()), Vec::<String>::new());
}

#[test]
fn attributes_that_the_system_refuses_are_problems() {
    let mut place = Place::new();
    let mut file = place.archive.file(b"file", b"x");
    let xattrs = vec![(b"nonsense".to_vec(), b"x".to_vec()), (b"system.posix_acl_access".to_vec(), b"x".to_vec())];
    file.metadata = Metadata { xattrs, ..plain_metadata(0o644) };
    let (summary, problems) = place.restore_badly(&file, &RestoreOptions::default());
    assert_eq!((summary.files_restored, problems.len()), (1, 2), "{problems:?}");
}

#[test]
fn a_mode_of_the_snapshot_is_not_applied_before_the_owner() {
    if !crate::support::is_root() {
        return;
    }
    let mut place = Place::new();
    let mut file = place.archive.file(b"file", b"x");
    file.metadata = Metadata { uid: 1234, gid: 1234, ..plain_metadata(0o6755) };
    place.restore_well(&file, &RestoreOptions::default());
    let found = compline::archive::posix::inspect(&place.target().join("file"), &Owners::new()).unwrap().metadata;
    assert_eq!((found.uid, found.gid, found.mode), (1234, 1234, 0o6755));
}

#[test]
fn names_that_lead_elsewhere_are_damage_and_nothing_is_made_of_them() {
    for name in [b"..".as_slice(), b".", b"", b"a/b", b"/etc", b"../outside", b"a\0b"] {
        let mut place = Place::new();
        let file = place.archive.file(name, b"escaped");
        let inside = place.archive.directory(b"inside", vec![file]);
        let root = place.archive.directory(b"root", vec![inside]);
        let (done, world) = place.restore(&root, &RestoreOptions::default());
        let problems = world.problems();
        assert!(done.is_err() || !problems.is_empty(), "{:?} was taken", name.escape_ascii());
        let found = names(place.scratch.path());
        assert!(found.iter().all(|name| ["target/", "target/inside/"].contains(&name.as_str())), "{found:?}");
    }
}

#[test]
fn a_directory_that_becomes_a_link_while_it_is_restored_leads_nobody_outside() {
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::{CWD, RenameFlags, renameat_with};

    let mut place = Place::new();
    for at in 0..60 {
        place.write(&format!("way/{at}"), format!("file {at}"));
        place.write(&format!("way/below/{at}"), format!("file {at}"));
    }
    let root = place.capture();
    let outside = place.scratch.path().join("outside");
    std::fs::create_dir_all(outside.join("below")).unwrap();
    let link = place.scratch.path().join("link");
    symlink(&outside, &link).unwrap();
    let way = place.target().join("way");
    std::fs::create_dir_all(&way).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                // Whoever resolves the name again meets the one or the other.
                let _not_there = renameat_with(CWD, &link, CWD, &way, RenameFlags::EXCHANGE);
            }
        });
        for _ in 0..40 {
            // It may fail, and says so; what it must not do is write elsewhere.
            let _either = place.restore(&root, &with(Overwrite::Always));
        }
        is_over.store(true, Ordering::SeqCst);
    });
    assert_eq!(names(&outside), ["below/"]);
}
