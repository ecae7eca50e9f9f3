//! What is restored equals what was captured: bytes, holes and all metadata.

use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use compline::archive::restore::{Overwrite, Ownership, RestoreOptions};
use compline::archive::{Content, EntryKind, Metadata, Piece};

use crate::support::compare::{Ignore, assert_equal, differences};
use crate::support::memory::{CHUNK_LEN, plain_metadata};
use crate::support::{is_root, nasty};
use crate::{Place, with};

#[test]
fn a_nasty_tree_comes_back_identical() {
    let mut place = Place::new();
    let skipped = nasty::build(&place.source());
    println!("not built here: {skipped:?}");
    let root = place.capture();
    place.restore_well(&root, &RestoreOptions::default());
    assert_equal(&place.source(), &place.target());
}

#[test]
fn a_nasty_tree_comes_back_identical_under_every_policy_and_verified() {
    let mut place = Place::new();
    nasty::build(&place.source());
    let root = place.capture();
    for (name, overwrite) in Overwrite::ALL {
        place.target = name;
        place.restore_well(&root, &RestoreOptions { verify: true, sparse: true, ..with(overwrite) });
        assert_equal(&place.source(), &place.target());
    }
}

#[test]
fn a_second_restore_finds_everything_right_and_writes_nothing() {
    let mut place = Place::new();
    nasty::build(&place.source());
    let root = place.capture();
    let first = place.restore_well(&root, &RestoreOptions::default());
    let second = place.restore_well(&root, &RestoreOptions::default());
    assert_eq!((second.files_restored, second.bytes_restored), (0, 0));
    assert_eq!(second.files_right, first.files_restored);
    assert_eq!(second.directories, first.directories);
    assert_equal(&place.source(), &place.target());
}

#[test]
fn lost_metadata_is_corrected_without_writing_content() {
    let mut place = Place::new();
    nasty::build(&place.source());
    let root = place.capture();
    place.restore_well(&root, &RestoreOptions::default());
    let modes = place.target().join("modes");
    for name in ["file 0755", "file 4755", "directory 1777"] {
        std::fs::set_permissions(modes.join(name), std::fs::Permissions::from_mode(0o711)).unwrap();
    }
    crate::set_mtime(&place.target().join("symlinks/dangling"), 5);
    crate::set_mtime(&place.target().join("times/directory epoch"), 5);
    assert_ne!(differences(&place.source(), &place.target(), Ignore { sockets: true, ..Ignore::default() }).len(), 0);
    let summary = place.restore_well(&root, &RestoreOptions::default());
    assert_eq!(summary.bytes_restored, 0);
    assert_equal(&place.source(), &place.target());
}

#[test]
fn a_single_file_is_restored_under_its_name() {
    let mut place = Place::new();
    place.write("file", "content");
    let source = place.source().join("file");
    let entry = place.archive.capture(&source);
    place.restore_well(&entry, &RestoreOptions::default());
    assert_eq!(place.read_target("file"), b"content");
}

#[test]
fn a_stream_has_no_owner_or_attributes_to_restore() {
    let mut place = Place::new();
    let mut stream = place.archive.file(b"dump.sql", b"select 1;");
    stream.metadata = Metadata::default();
    let mut root = place.archive.directory(b"database", vec![stream]);
    root.metadata = Metadata::default();
    std::fs::create_dir(place.target()).unwrap();
    std::fs::set_permissions(place.target(), std::fs::Permissions::from_mode(0o751)).unwrap();
    place.restore_well(&root, &RestoreOptions::default());
    assert_eq!(place.read_target("dump.sql"), b"select 1;");
    assert_eq!(std::fs::metadata(place.target()).unwrap().mode() & 0o7777, 0o751, "the target keeps its mode");
}

#[test]
fn directories_that_were_never_captured_are_made_passable_and_those_there_stay() {
    let mut place = Place::new();
    let file = place.archive.file(b"file", b"x");
    let mut inner = place.archive.directory(b"inner", vec![file]);
    inner.metadata = Metadata::default();
    let mut outer = place.archive.directory(b"outer", vec![inner]);
    outer.metadata = Metadata::default();
    let mut root = place.archive.directory(b"root", vec![outer]);
    root.metadata = Metadata::default();
    std::fs::create_dir_all(place.target().join("outer")).unwrap();
    std::fs::set_permissions(place.target().join("outer"), std::fs::Permissions::from_mode(0o710)).unwrap();
    place.restore_well(&root, &RestoreOptions::default());
    let mode = |name: &str| std::fs::metadata(place.target().join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("outer"), mode("outer/inner")), (0o710, 0o755));
}

#[test]
fn a_content_of_many_levels_and_holes_is_put_together_in_order() {
    let mut place = Place::new();
    let chunk_len = usize::try_from(CHUNK_LEN).unwrap();
    let mut pieces = Vec::new();
    for at in 0..600u64 {
        pieces.push(place.archive.store_chunk(nasty::noise(at % 50, 100 + usize::try_from(at).unwrap())));
        if at % 100 == 7 {
            pieces.push(Piece::hole(CHUNK_LEN));
        }
    }
    let content: Content = place.archive.list(pieces);
    assert_eq!(content.depth, 2);
    let mut file = place.archive.file(b"file", b"");
    file.kind = EntryKind::File(content.clone());
    place.restore_well(&file, &RestoreOptions::default());
    let restored = place.read_target("file");
    assert_eq!(restored.len() as u64, content.len);
    let mut offset = 0;
    for at in 0..600u64 {
        let expected = nasty::noise(at % 50, 100 + usize::try_from(at).unwrap());
        assert_eq!(restored[offset..offset + expected.len()], expected, "piece {at}");
        offset += expected.len();
        if at % 100 == 7 {
            assert!(restored[offset..offset + chunk_len].iter().all(|byte| *byte == 0));
            offset += chunk_len;
        }
    }
}

#[test]
fn a_file_longer_than_a_batch_is_restored_in_several() {
    let mut place = Place::new();
    let pieces: Vec<_> = (0..40_000u32).map(|at| place.archive.store_chunk(at.to_le_bytes().to_vec())).collect();
    let content = place.archive.list(pieces);
    let mut file = place.archive.file(b"file", b"");
    file.kind = EntryKind::File(content);
    let options = RestoreOptions { verify: true, ..RestoreOptions::default() };
    let summary = place.restore_well(&file, &options);
    let expected: Vec<u8> = (0..40_000u32).flat_map(u32::to_le_bytes).collect();
    assert_eq!(place.read_target("file"), expected);
    assert_eq!(summary.bytes_restored, 160_000);
    assert!(place.archive.batch_len_max.into_inner() <= 16_384);
}

#[test]
fn equal_chunks_of_a_batch_are_fetched_once() {
    let mut place = Place::new();
    for name in ["a", "b", "c"] {
        place.write(name, vec![b'x'; 1 << 20]);
    }
    let root = place.capture();
    place.restore_well(&root, &RestoreOptions::default());
    assert_equal(&place.source(), &place.target());
    assert_eq!(place.archive.delivered.into_inner(), 1);
}

#[test]
fn zeros_become_holes_only_where_asked_for() {
    let mut place = Place::new();
    let mut bytes = vec![0; 4 << 20];
    bytes[2 << 20] = 1;
    place.write("file", &bytes);
    let root = place.capture();
    let occupied = |place: &Place| std::fs::metadata(place.target().join("file")).unwrap().blocks() * 512;
    place.restore_well(&root, &RestoreOptions::default());
    assert!(occupied(&place) >= 4 << 20);
    std::fs::remove_file(place.target().join("file")).unwrap();
    place.restore_well(&root, &RestoreOptions { sparse: true, ..RestoreOptions::default() });
    assert!(occupied(&place) <= 128 << 10);
    assert_eq!(place.read_target("file"), bytes);
}

#[test]
fn names_of_owners_win_over_numbers_unless_numbers_are_asked_for() {
    let mut place = Place::new();
    let mut file = place.archive.file(b"file", b"x");
    // The recorded host called us differently by number and by name.
    file.metadata.uid = 54_321;
    file.metadata.user = compline::archive::posix::Owners::new().user(plain_metadata(0).uid);
    file.metadata.group = compline::archive::posix::Owners::new().group(plain_metadata(0).gid);
    place.restore_well(&file, &RestoreOptions::default());
    let owner = |place: &Place| std::fs::metadata(place.target().join("file")).unwrap().uid();
    assert_eq!(owner(&place), plain_metadata(0).uid);
    let numbers = RestoreOptions { ownership: Ownership::Numbers, ..RestoreOptions::default() };
    if is_root() {
        place.restore_well(&file, &numbers);
        assert_eq!(owner(&place), 54_321);
        let leave = RestoreOptions { ownership: Ownership::Leave, ..RestoreOptions::default() };
        place.restore_well(&file, &leave);
        assert_eq!(owner(&place), 54_321);
    } else {
        let (_, problems) = place.restore_badly(&file, &numbers);
        assert_eq!(problems.len(), 1);
    }
}

#[test]
fn owners_that_cannot_be_restored_are_one_problem_and_take_setuid_with_them() {
    if is_root() {
        return crate::as_nobody("fidelity::owners_that_cannot_be_restored_are_one_problem_and_take_setuid_with_them");
    }
    let mut place = Place::new();
    let mut files = Vec::new();
    for name in [b"a", b"b", b"c"] {
        let mut file = place.archive.file(name, b"x");
        (file.metadata.uid, file.metadata.mode) = (0, 0o6755);
        files.push(file);
    }
    let root = place.archive.directory(b"root", files);
    let (summary, problems) = place.restore_badly(&root, &RestoreOptions::default());
    assert_eq!((summary.files_restored, problems.len()), (3, 1), "{problems:?}");
    assert_eq!(std::fs::metadata(place.target().join("b")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn the_comparison_sees_every_kind_of_difference() {
    let mut place = Place::new();
    nasty::build(&place.source());
    let root = place.capture();
    place.restore_well(&root, &RestoreOptions::default());
    let ignore = Ignore { sockets: true, ..Ignore::default() };
    let target = place.target();
    let file = std::fs::File::options().write(true).open(target.join("sparse/huge")).unwrap();
    file.write_all_at(b"x", 32 << 30).unwrap();
    crate::set_mtime(&target.join("symlinks/up"), 5);
    std::fs::set_permissions(target.join("sizes/zeros"), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::remove_file(target.join("third name")).unwrap();
    std::fs::write(target.join("third name"), "one file of three names").unwrap();
    std::fs::remove_file(target.join("many/small 7")).unwrap();
    let found = differences(&place.source(), &place.target(), ignore).join("\n");
    for expected in [
        "/sparse/huge: time",
        "/sparse/huge: content",
        "/symlinks/up: time",
        "/sizes/zeros: mode",
        "hard links",
        "/many/small 7: missing on the right",
    ] {
        assert!(found.contains(expected), "{expected} is missing in:\n{found}");
    }
}

#[test]
fn attributes_that_only_root_may_set_are_one_problem() {
    if is_root() {
        return crate::as_nobody("fidelity::attributes_that_only_root_may_set_are_one_problem");
    }
    let mut place = Place::new();
    let mut files = Vec::new();
    for name in [b"a", b"b", b"c"] {
        let mut file = place.archive.file(name, b"x");
        file.metadata.xattrs = vec![(b"trusted.x".to_vec(), b"x".to_vec())];
        files.push(file);
    }
    let root = place.archive.directory(b"root", files);
    let (summary, problems) = place.restore_badly(&root, &RestoreOptions::default());
    assert_eq!((summary.files_restored, problems.len()), (3, 1), "{problems:?}");
}

#[test]
fn all_of_this_holds_without_the_rights_of_root_too() {
    if is_root() {
        crate::as_nobody("fidelity::a_nasty_tree_comes_back_identical");
        crate::as_nobody("fidelity::a_second_restore_finds_everything_right_and_writes_nothing");
        crate::as_nobody("delete::a_nasty_tree_can_be_deleted_whole");
        crate::as_nobody("resume::a_restore_stopped_anywhere_ends_right_when_run_again_under_every_policy");
    }
}

#[test]
fn rsync_finds_no_difference() {
    let mut place = Place::new();
    nasty::build(&place.source());
    let root = place.capture();
    place.restore_well(&root, &RestoreOptions::default());
    let slash = |path: std::path::PathBuf| format!("{}/", path.display());
    let compared = std::process::Command::new("rsync")
        .args(["-aHAXn", "--checksum", "--itemize-changes", "--delete", "--devices", "--specials"])
        // Its paths may be 4096 bytes long, and it reads every byte of a hole.
        .args(["--exclude=/deep", "--exclude=/sparse/huge"])
        .args([slash(place.source()), slash(place.target())])
        .output();
    let Ok(compared) = compared else {
        println!("SKIPPED: rsync is not installed");
        return;
    };
    assert!(compared.status.success(), "{}", String::from_utf8_lossy(&compared.stderr));
    let lines = String::from_utf8_lossy(&compared.stdout).into_owned();
    // Sockets belong to programs that run, and are not restored.
    let differences: Vec<&str> = lines.lines().filter(|line| !line.contains("socket")).collect();
    assert_eq!(differences, Vec::<&str>::new());
}

#[test]
fn names_that_look_like_ways_up_are_names() {
    let mut place = Place::new();
    // Each was a bug of some archive program once.
    let unusual = [
        "...",
        "..a",
        "a..",
        ". ",
        " .",
        ".. ",
        " ..",
        "..\\up",
        "a\\..\\b",
        "%2e%2e",
        "~",
        "~root",
        "-",
        "--",
        "C:",
        "con",
        "a:b",
        "$(id)",
        "`id`",
        "a;b",
        "a|b",
        "@LongLink",
        "././@LongLink",
        "PaxHeader",
    ];
    for (at, name) in unusual.iter().enumerate() {
        place.write(&format!("files/{name}"), at.to_string());
        place.write(&format!("directories/{name}/.../{name}"), at.to_string());
        let links = place.source().join("links");
        std::fs::create_dir_all(&links).unwrap();
        let flat = name.replace('/', "_");
        std::os::unix::fs::symlink(format!("../../{name}/.."), links.join(flat)).unwrap();
    }
    let root = place.capture();
    place.restore_well(&root, &RestoreOptions::default());
    assert_equal(&place.source(), &place.target());
}
