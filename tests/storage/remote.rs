//! What only storage on another machine can do or suffer.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::thread::JoinHandle;

use compline::storage::{LocalStorage, Location, ObjectKind, Storage, StorageErrorKind};
use tempfile::TempDir;

use super::ssh_server::{
    COMPLINE, SshServer, bare_sftp_server, forgetful_ssh, pretended_ssh, sftp_server, shouting_ssh,
};
use super::{bytes, contract, one_of_each, pack};

/// `scheme://there/…/repository` below `directory`.
pub fn location(scheme: &str, directory: &Path, ssh: &str, remote: &str) -> Location {
    let text = format!("{scheme}://there{}/repository", directory.display());
    let variable = |name: &str| match name {
        "COMPLINE_SSH" => Some(ssh.to_owned()),
        "COMPLINE_SSH_REMOTE" => Some(remote.to_owned()),
        _ => None,
    };
    Location::parse(OsStr::new(&text)).unwrap().equipped(&variable)
}

/// Names of files below `directory` that are no objects.
fn leftovers(directory: &Path) -> usize {
    std::fs::read_dir(directory.join("repository/tmp")).map_or(0, Iterator::count)
}

#[test]
fn what_one_machine_puts_is_what_the_other_has() {
    let Some(server) = SshServer::start() else { return };
    for scheme in ["ssh", "sftp"] {
        let directory = TempDir::new().unwrap();
        let far = location(scheme, directory.path(), &server.ssh("user"), &server.remote()).create().unwrap();
        for key in one_of_each() {
            far.put_new(&key, &bytes(3, 3_000_000)).unwrap();
        }
        let near = LocalStorage::open(directory.path().join("repository")).unwrap();
        for key in one_of_each() {
            assert!(*near.get(&key).unwrap() == bytes(3, 3_000_000));
            assert_eq!(near.list(key.kind()).unwrap(), far.list(key.kind()).unwrap());
            near.delete(&key).unwrap();
            assert_eq!(far.list(key.kind()).unwrap(), []);
        }
        assert_eq!(leftovers(directory.path()), 0, "{scheme} tidies up");
        assert_eq!(far.location(), format!("{scheme}://there{}/repository", directory.path().display()));
    }
}

#[test]
fn a_directory_that_is_missing_is_not_found_and_not_made() {
    let Some(server) = SshServer::start() else { return };
    for scheme in ["ssh", "sftp"] {
        let directory = TempDir::new().unwrap();
        let there = location(scheme, directory.path(), &server.ssh("user"), &server.remote());
        let error = there.open().map(drop).unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::NotFound, "{error}");
        assert!(!directory.path().join("repository").exists());
        let storage = there.create().unwrap();
        std::fs::remove_dir(directory.path().join("repository")).unwrap();
        for kind in ObjectKind::ALL {
            storage.list(kind).unwrap_err();
        }
        storage.put_new(&pack(1), b"x").unwrap_err();
        assert!(!directory.path().join("repository").exists(), "{scheme} makes no second one");
    }
}

#[test]
fn a_file_is_not_a_place_for_objects_on_another_machine_either() {
    let Some(server) = SshServer::start() else { return };
    for scheme in ["ssh", "sftp"] {
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("repository"), b"mine").unwrap();
        let there = location(scheme, directory.path(), &server.ssh("user"), &server.remote());
        assert_eq!(there.open().map(drop).unwrap_err().kind(), StorageErrorKind::Other);
        there.create().map(drop).unwrap_err();
        assert_eq!(std::fs::read(directory.path().join("repository")).unwrap(), b"mine");
    }
}

#[test]
fn reading_and_storing_go_on_when_the_line_breaks_and_a_publication_in_flight_is_told() {
    let Some(server) = SshServer::start() else { return };
    for scheme in ["ssh", "sftp"] {
        let directory = TempDir::new().unwrap();
        let storage = location(scheme, directory.path(), &server.ssh("user"), &server.remote()).create().unwrap();
        let content = bytes(1, 2_000_000);
        storage.put_new(&pack(1), &content).unwrap();
        let before = server.connections();
        kill(&server);
        assert!(*storage.get(&pack(1)).unwrap() == content, "{scheme}");
        kill(&server);
        assert_eq!(storage.list(ObjectKind::Pack).unwrap().len(), 1);
        kill(&server);
        assert_eq!(storage.len(&pack(1)).unwrap(), 2_000_000);
        assert_eq!(server.connections(), before + 3);
        kill(&server);
        // Whether the break is known before the put begins is a race; what may not be is something in between.
        let snapshot = one_of_each().into_iter().find(|key| key.kind() == ObjectKind::Snapshot).unwrap();
        match storage.put_new(&snapshot, &content) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.kind(), StorageErrorKind::Other);
                match storage.get(&snapshot) {
                    Ok(found) => assert!(*found == content),
                    Err(error) => assert_eq!(error.kind(), StorageErrorKind::NotFound),
                }
            }
        }
        for number in 2..8 {
            let killer = kill_at_some_time(&server);
            storage.put_new(&pack(number), &content).unwrap();
            killer.join().unwrap().unwrap();
            assert!(*storage.get(&pack(number)).unwrap() == content, "{scheme}");
            assert_eq!(storage.put_new(&pack(number), &content).unwrap_err().kind(), StorageErrorKind::Exists);
        }
    }
}

#[test]
fn a_pack_whose_answer_was_lost_is_stored_and_a_snapshot_is_told_to_be_in_doubt() {
    if bare_sftp_server().is_none() {
        println!("SKIPPED: there is no sftp-server (Debian: openssh-sftp-server)");
        return;
    }
    let content = bytes(1, 2_000_000);
    for scheme in ["ssh", "sftp"] {
        for key in one_of_each() {
            let directory = TempDir::new().unwrap();
            let lost = directory.path().join("lost");
            let ssh = forgetful_ssh(directory.path(), &lost);
            let storage = location(scheme, directory.path(), &ssh, COMPLINE).create().unwrap();
            let put = storage.put_new(&key, &content);
            assert!(lost.exists(), "{scheme} {key}");
            let is_in_doubt = !matches!(key.kind(), ObjectKind::Pack | ObjectKind::Segment);
            assert_eq!(put.is_err_and(|error| error.kind() == StorageErrorKind::Other), is_in_doubt, "{scheme} {key}");
            assert!(*storage.get(&key).unwrap() == content, "{scheme} {key}");
            assert_eq!(storage.put_new(&key, b"other").unwrap_err().kind(), StorageErrorKind::Exists);
            drop(storage);
            assert!(leftovers(directory.path()) <= usize::from(is_in_doubt), "{scheme} {key}");
        }
    }
}

/// While what comes next is under way, with any luck.
fn kill_at_some_time(server: &SshServer) -> JoinHandle<io::Result<ExitStatus>> {
    let killer = server.killer();
    std::thread::spawn(move || std::process::Command::new("sh").args(["-c", &killer]).status())
}

fn kill(server: &SshServer) {
    let status = std::process::Command::new("sh").args(["-c", &server.killer()]).status();
    assert!(status.unwrap().success());
}

/// What a message and its cause say.
fn said(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", said(source)))
}

#[test]
fn whoever_may_not_come_in_hears_why() {
    let Some(server) = SshServer::start() else { return };
    let directory = TempDir::new().unwrap();
    for scheme in ["ssh", "sftp"] {
        let refused = |ssh: &str, remote: &str| {
            let error = location(scheme, directory.path(), ssh, remote).open().map(drop).unwrap_err();
            assert_eq!(error.kind(), StorageErrorKind::Other);
            (said(&error), error.hint().unwrap())
        };
        let (text, hint) = refused(&server.ssh("stranger"), &server.remote());
        assert!(text.contains("Permission denied"), "{text}");
        assert!(hint.contains("ssh HOST true"), "{hint}");
        let strict = format!("{} -o UserKnownHostsFile=/dev/null -o BatchMode=yes", server.ssh("user"));
        let (text, _) = refused(&strict, &server.remote());
        assert!(text.contains("Host key verification failed"), "{text}");
        let (text, _) = refused(&format!("{} -o Port=1", server.ssh("user")), &server.remote());
        assert!(text.contains("refused"), "{text}");
        let (text, hint) = refused("/does/not/exist", &server.remote());
        assert!(text.contains("no ssh on this machine"), "{text}");
        assert!(hint.contains("COMPLINE_SSH"), "{hint}");
        let (text, _) = refused(&shouting_ssh(directory.path()), "compline");
        assert!(text.contains("what answers is no"), "{text}");
    }
    let missing = location("ssh", directory.path(), &server.ssh("user"), "/no/such/compline");
    let error = missing.open().map(drop).unwrap_err();
    assert!(said(&error).contains("no compline on the other machine"), "{}", said(&error));
    assert!(error.hint().unwrap().contains("COMPLINE_SSH_REMOTE"));
}

#[test]
fn a_forced_command_decides_on_place_and_rights() {
    let Some(server) = SshServer::start() else { return };
    let directory = TempDir::new().unwrap();
    let root = directory.path().join("repository");
    server.force(&format!("{} serve --stdio --append-only {}", server.remote(), root.display()));
    // What the client would like to start there doesn't matter.
    let far = location("ssh", directory.path(), &server.ssh("forced"), "rm -rf").create().unwrap();
    for key in one_of_each() {
        let put = far.put_new(&key, b"x");
        assert_eq!(put.is_err(), key.kind() == ObjectKind::Retired, "{key}: {put:?}");
        let error = far.replace(&key, b"y").unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Denied);
        assert!(error.to_string().contains("append-only"), "{error}");
        assert!(error.hint().unwrap().contains("authorized_keys"));
        let deleted = far.delete(&key).is_ok();
        assert_eq!(deleted, matches!(key.kind(), ObjectKind::Session | ObjectKind::Snapshot), "{key}: its own");
    }
    drop(far);
    let again = location("ssh", directory.path(), &server.ssh("forced"), "rm -rf").open().unwrap();
    for key in one_of_each() {
        let _put_or_there = again.put_new(&key, b"x");
    }
    drop(again);
    let third = location("ssh", directory.path(), &server.ssh("forced"), "rm -rf").open().unwrap();
    for key in one_of_each().into_iter().filter(|key| key.kind() != ObjectKind::Retired) {
        assert_eq!(third.delete(&key).unwrap_err().kind(), StorageErrorKind::Denied, "{key}: another connection's");
        assert_eq!(*third.get(&key).unwrap(), *b"x");
    }
    let other = TempDir::new().unwrap();
    let error = location("ssh", other.path(), &server.ssh("forced"), "x").create().map(drop).unwrap_err();
    assert!(error.to_string().contains("The account may use"), "{error}");
    assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 0);
}

type Sentence = fn(&dyn Storage);

/// What is promised of a server without extensions: all but atomic replacement, and one winner among many at once.
const OF_A_BARE_SERVER: [Sentence; 13] = [
    contract::a_put_object_is_read_back_whole,
    contract::an_empty_object_is_an_object,
    contract::a_large_object_is_read_back_whole,
    contract::a_put_of_an_existing_key_fails_and_keeps_the_old_bytes,
    contract::a_reader_sees_nothing_or_everything_of_an_object_being_put,
    contract::a_missing_object_is_not_found,
    contract::a_range_gives_exactly_its_bytes,
    contract::a_range_past_the_end_is_out_of_range,
    contract::listing_gives_one_kind_sorted_with_lengths,
    contract::listing_what_was_never_put_is_empty,
    contract::a_deleted_object_is_gone_and_its_name_free,
    contract::deleting_what_is_missing_is_not_found,
    contract::writers_of_different_keys_do_not_disturb_each_other,
];

#[test]
fn an_sftp_server_without_extensions_keeps_what_is_promised_of_it() {
    let Some(bare) = bare_sftp_server() else {
        println!("SKIPPED: there is no sftp-server (Debian: openssh-sftp-server)");
        return;
    };
    for sentence in OF_A_BARE_SERVER {
        let directory = TempDir::new().unwrap();
        let ssh = pretended_ssh(directory.path(), &bare);
        let storage = location("sftp", directory.path(), &ssh, COMPLINE).create().unwrap();
        sentence(&storage_of(storage));
    }
    let directory = TempDir::new().unwrap();
    let ssh = pretended_ssh(directory.path(), &bare);
    let storage = location("sftp", directory.path(), &ssh, COMPLINE).create().unwrap();
    storage.put_new(&pack(1), b"old").unwrap();
    let error = storage.replace(&pack(1), b"new").unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Denied);
    assert_eq!(*storage.get(&pack(1)).unwrap(), *b"old");
    storage.replace(&pack(2), b"was gone").unwrap();
    assert_eq!(leftovers(directory.path()), 0);
}

fn storage_of(storage: Box<dyn Storage>) -> std::sync::Arc<dyn Storage> {
    std::sync::Arc::from(storage)
}

#[test]
fn what_dead_uploads_left_goes_after_a_day_and_no_earlier() {
    let Some(server) = SshServer::start() else { return };
    let directory = TempDir::new().unwrap();
    let there = location("sftp", directory.path(), &server.ssh("user"), &server.remote());
    let storage = there.create().unwrap();
    let tmp = directory.path().join("repository/tmp");
    std::fs::create_dir(&tmp).unwrap();
    for (name, age) in [(".sftp-old", 25), (".sftp-new", 23), ("foreign", 99)] {
        let file = std::fs::File::create(tmp.join(name)).unwrap();
        let time = std::time::SystemTime::now() - std::time::Duration::from_secs(age * 3600);
        file.set_modified(time).unwrap();
    }
    storage.put_new(&pack(1), b"x").unwrap();
    let mut left: Vec<_> = std::fs::read_dir(&tmp).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".sftp-new", "foreign"]);
    // A process of the other machine that tidies up leaves uploads alone as well.
    LocalStorage::open(directory.path().join("repository")).unwrap().put_new(&pack(2), b"x").unwrap();
    assert!(tmp.join(".sftp-new").exists());
}

/// A disk of 4 MiB.
fn small_disk(directory: &Path) -> bool {
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(directory).status();
    let is_mounted = mounted.is_ok_and(|status| status.success());
    if !is_mounted {
        println!("SKIPPED: mounting takes root");
    }
    is_mounted
}

/// The kinds of the packets in a file.
fn kinds_of(requests: &Path) -> Vec<u32> {
    let sent = std::fs::read(requests).unwrap();
    let (mut rest, mut kinds) = (&sent[..], Vec::new());
    while let Some((head, behind)) = rest.split_first_chunk::<4>() {
        kinds.push(u32::from(behind[0]));
        rest = &behind[usize::try_from(u32::from_be_bytes(*head)).unwrap()..];
    }
    kinds
}

/// Each part costs one way there and back, the first of a pack two.
#[test]
fn a_pack_on_an_sftp_server_is_opened_once_for_many_parts_and_again_when_it_is_another_one() {
    let Some(sftp_server) = sftp_server() else { return };
    let (directory, disk) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let requests = directory.path().join("requests");
    let ssh = pretended_ssh(directory.path(), &format!("tee {} | {sftp_server}", requests.display()));
    let storage = location("sftp", disk.path(), &ssh, COMPLINE).create().unwrap();
    let range = |number: u8, from: usize| {
        let from = u64::try_from(from).unwrap();
        storage.get_range(&pack(number), from..from + 1000)
    };
    for number in 0..40 {
        storage.put_new(&pack(number), &bytes(number, 100_000)).unwrap();
    }
    let opened = || kinds_of(&requests).iter().filter(|kind| **kind == 3).count();
    let before = opened();
    for from in (0..99_000).step_by(9_000) {
        assert!(range(1, from).unwrap() == bytes(1, 100_000)[from..from + 1000]);
    }
    assert_eq!(opened() - before, 1);
    assert_eq!(range(1, 99_001).unwrap_err().kind(), StorageErrorKind::OutOfRange);
    storage.replace(&pack(1), &bytes(50, 99_000)).unwrap();
    assert!(range(1, 0).unwrap() == bytes(50, 99_000)[..1000]);
    storage.delete(&pack(1)).unwrap();
    assert_eq!(range(1, 0).unwrap_err().kind(), StorageErrorKind::NotFound);
    // More than are kept, from several threads: none takes the handle of another.
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for number in (2..40).cycle().skip(thread * 5).take(200) {
                    assert!(range(number, 7).unwrap() == bytes(number, 100_000)[7..1007]);
                }
            });
        }
    });
    drop(storage);
    let kinds = kinds_of(&requests);
    let (opened, closed) = [3, 4].map(|wanted| kinds.iter().filter(|kind| **kind == wanted).count()).into();
    assert!(opened - closed <= 16, "{opened} opened, {closed} closed");
}

/// A handle that is closed twice may be another file's by then.
#[test]
fn what_an_sftp_server_could_not_write_is_closed_once() {
    let Some(sftp_server) = bare_sftp_server() else { return };
    for len in [5_000_000, 20_000_000] {
        let (directory, disk) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        if !small_disk(disk.path()) {
            return;
        }
        let requests = directory.path().join("requests");
        let ssh = pretended_ssh(directory.path(), &format!("tee {} | {sftp_server}", requests.display()));
        let storage = location("sftp", disk.path(), &ssh, COMPLINE).create().unwrap();
        let put = storage.put_new(&pack(2), &bytes(1, len));
        drop(storage);
        let _unmounted = std::process::Command::new("umount").arg("-l").arg(disk.path()).status();
        assert_eq!(put.unwrap_err().kind(), StorageErrorKind::Other, "a bare server has no word for it");
        let kinds = kinds_of(&requests);
        let count = |wanted: u32| kinds.iter().filter(|kind| **kind == wanted).count();
        let (open, close, open_directory) = (3, 4, 11);
        assert_eq!(count(close), count(open) + count(open_directory), "{kinds:?}");
    }
}

#[test]
fn a_full_disk_is_told_as_such() {
    let Some(server) = SshServer::start() else { return };
    for scheme in ["ssh", "sftp"] {
        let directory = TempDir::new().unwrap();
        if !small_disk(directory.path()) {
            return;
        }
        let storage = location(scheme, directory.path(), &server.ssh("user"), &server.remote()).create().unwrap();
        storage.put_new(&pack(1), b"small").unwrap();
        let error = storage.put_new(&pack(2), &bytes(1, 8_000_000)).unwrap_err();
        let listed = storage.list(ObjectKind::Pack).unwrap().len();
        // Each of several at once makes room for the others when it fails.
        let put = |number: u8| storage.put_new(&pack(number), &bytes(1, 1_500_000));
        let mut refused = Vec::new();
        for round in 0..10_u8 {
            std::thread::scope(|scope| {
                let numbers = (0..6).map(|of_round| 3 + round * 6 + of_round);
                let puts: Vec<_> = numbers.map(|number| (number, scope.spawn(move || put(number)))).collect();
                for (number, put) in puts {
                    match put.join().unwrap() {
                        Ok(()) => storage.delete(&pack(number)).unwrap(),
                        Err(error) => refused.push((error.kind(), error.to_string())),
                    }
                }
            });
        }
        drop(storage);
        let _unmounted = std::process::Command::new("umount").arg("-l").arg(directory.path()).status();
        assert_eq!(error.kind(), StorageErrorKind::Full, "{scheme}: {error}");
        assert_eq!(listed, 1);
        let told = refused.iter().filter(|(kind, _)| *kind == StorageErrorKind::Full).count();
        assert!(told > 0 && told == refused.len(), "{scheme}: {refused:#?}");
    }
}
