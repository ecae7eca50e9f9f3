//! What only a directory can do or suffer.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use compline::id::PackId;
use compline::storage::{Listed, LocalStorage, MemoryStorage, ObjectKey, ObjectKind, Storage, StorageErrorKind};
use rustix::thread::CapabilitySet;
use tempfile::TempDir;

use super::{bytes, config, one_of_each, pack};

fn storage_in(directory: &TempDir) -> LocalStorage {
    LocalStorage::create(directory.path()).unwrap()
}

/// Every regular file below `directory`.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn objects_lie_under_their_keys_private_and_nothing_else_stays() {
    let parent = TempDir::new().unwrap();
    let root = parent.path().join("new");
    let storage = LocalStorage::create(&root).unwrap();
    for key in one_of_each() {
        storage.put_new(&key, b"x").unwrap();
        let mode = fs::metadata(root.join(key.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    for directory in ["", "packs", "packs/02", "keys", "index", "snapshots", "tmp"] {
        let mode = fs::metadata(root.join(directory)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{directory}");
    }
    assert_eq!(files(&root).len(), one_of_each().len());
}

#[test]
fn opening_what_is_missing_is_not_found_and_creates_nothing() {
    let parent = TempDir::new().unwrap();
    let root = parent.path().join("nowhere");
    let error = LocalStorage::open(&root).unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::NotFound);
    assert!(error.to_string().contains("nowhere"));
    assert!(!root.exists());
}

#[test]
fn a_file_is_not_a_place_for_objects() {
    let parent = TempDir::new().unwrap();
    let root = parent.path().join("file");
    fs::write(&root, b"mine").unwrap();
    assert_eq!(LocalStorage::open(&root).unwrap_err().kind(), StorageErrorKind::Other);
    LocalStorage::create(&root).unwrap_err();
    LocalStorage::create(root.join("below")).unwrap_err();
    assert_eq!(fs::read(&root).unwrap(), b"mine");
}

#[test]
fn a_root_that_vanishes_is_an_error_and_never_an_empty_place() {
    let parent = TempDir::new().unwrap();
    let root = parent.path().join("root");
    let storage = LocalStorage::create(&root).unwrap();
    fs::remove_dir(&root).unwrap();
    for kind in ObjectKind::ALL {
        storage.list(kind).unwrap_err();
    }
    // A mount that went away: what is put now must not land on the disk below.
    let error = storage.put_new(&pack(1), b"x").unwrap_err();
    assert!(error.to_string().contains("is gone"), "{error}");
    storage.replace(&pack(1), b"x").unwrap_err();
    assert!(!root.exists());
}

#[test]
fn foreign_names_and_leftovers_are_passed_over() {
    let directory = TempDir::new().unwrap();
    let storage = storage_in(&directory);
    for key in one_of_each() {
        storage.put_new(&key, b"x").unwrap();
    }
    let root = directory.path();
    let upper = "AB".repeat(32);
    let elsewhere = "ab".repeat(32);
    for name in ["lost+found", "packs/.tmp-1", "packs/02/.tmp-2", "snapshots/.nfs0001", "keys/README", "index/x.bak"] {
        fs::write(root.join(name), b"foreign").unwrap();
    }
    for name in [format!("packs/02/{elsewhere}"), format!("packs/{elsewhere}"), format!("snapshots/{upper}")] {
        fs::write(root.join(name), b"misplaced").unwrap();
    }
    fs::create_dir_all(root.join(pack(3).path())).unwrap();
    fs::create_dir_all(root.join("packs/zz")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join(format!("snapshots/{elsewhere}")), 0o600.into()).unwrap();
    for key in one_of_each() {
        assert_eq!(storage.list(key.kind()).unwrap(), [Listed { key, len: 1 }]);
    }
}

#[test]
fn what_has_the_name_of_an_object_but_is_no_file_neither_blocks_nor_reads() {
    let directory = TempDir::new().unwrap();
    let storage = storage_in(&directory);
    fs::create_dir_all(directory.path().join("packs/01")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, directory.path().join(pack(1).path()), 0o600.into()).unwrap();
    fs::create_dir_all(directory.path().join(pack(2).path())).unwrap();
    for key in [pack(1), pack(2)] {
        assert_eq!(storage.get(&key).map(drop).unwrap_err().kind(), StorageErrorKind::Other);
        storage.get_range(&key, 0..1).unwrap_err();
        assert_eq!(storage.put_new(&key, b"x").unwrap_err().kind(), StorageErrorKind::Exists);
    }
}

#[test]
fn a_file_where_a_directory_belongs_fails_the_put_and_loses_nothing() {
    let directory = TempDir::new().unwrap();
    let storage = storage_in(&directory);
    storage.put_new(&config(), b"x").unwrap();
    fs::write(directory.path().join("packs"), b"in the way").unwrap();
    assert_eq!(storage.put_new(&pack(1), b"x").unwrap_err().kind(), StorageErrorKind::Other);
    assert_eq!(*storage.get(&config()).unwrap(), *b"x");
    assert_eq!(files(directory.path()).len(), 2);
}

#[test]
fn a_file_in_the_place_of_the_directory_of_an_object_is_not_told_as_the_object() {
    let directory = TempDir::new().unwrap();
    let storage = storage_in(&directory);
    let path = directory.path().join(pack(1).path());
    fs::create_dir(directory.path().join("packs")).unwrap();
    fs::write(path.parent().unwrap(), b"in the way").unwrap();
    let error = storage.put_new(&pack(1), b"x").unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Other, "{error}");
}

#[test]
fn leftovers_of_the_dead_are_swept_by_the_next_writer_and_work_in_progress_is_spared() {
    let directory = TempDir::new().unwrap();
    let temp = directory.path().join("tmp");
    fs::create_dir(&temp).unwrap();
    fs::write(temp.join(".tmp-dead"), b"torn").unwrap();
    let living = fs::File::create(temp.join(".tmp-living")).unwrap();
    living.try_lock().unwrap();

    let storage = LocalStorage::open(directory.path()).unwrap();
    assert!(temp.join(".tmp-dead").exists(), "opening writes nothing");
    storage.put_new(&pack(1), b"x").unwrap();
    assert_eq!(files(&temp), [temp.join(".tmp-living")]);
}

#[test]
fn a_directory_that_vanished_meanwhile_is_made_again() {
    let directory = TempDir::new().unwrap();
    let storage = storage_in(&directory);
    storage.put_new(&pack(1), b"x").unwrap();
    storage.delete(&pack(1)).unwrap();
    for gone in ["packs/01", "packs", "tmp"] {
        fs::remove_dir(directory.path().join(gone)).unwrap();
    }
    storage.put_new(&pack(1), b"again").unwrap();
    assert_eq!(*storage.get(&pack(1)).unwrap(), *b"again");
}

#[test]
fn a_linked_fan_out_directory_on_another_file_system_takes_objects() {
    let directory = TempDir::new().unwrap();
    let Some(other) = Tmpfs::mount("1m") else { return };
    fs::create_dir(directory.path().join("packs")).unwrap();
    std::os::unix::fs::symlink(other.path(), directory.path().join("packs/01")).unwrap();
    let storage = storage_in(&directory);
    storage.put_new(&pack(1), b"elsewhere").unwrap();
    assert_eq!(*storage.get(&pack(1)).unwrap(), *b"elsewhere");
    assert_eq!(storage.list(ObjectKind::Pack).unwrap(), [Listed { key: pack(1), len: 9 }]);
    assert_eq!(files(other.path()).len(), 1);
}

#[test]
fn a_full_disk_fails_the_put_keeps_the_rest_and_heals_when_space_returns() {
    let Some(disk) = Tmpfs::mount("1m") else { return };
    let storage = LocalStorage::create(disk.path()).unwrap();
    let content = bytes(1, 300_000);
    let stored: Vec<u8> = (0..10).take_while(|number| storage.put_new(&pack(*number), &content).is_ok()).collect();
    assert!((1..=3).contains(&stored.len()), "{stored:?}");

    let error = storage.put_new(&pack(100), &content).unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Full);
    assert!(error.hint().is_some());
    assert_eq!(storage.get(&pack(100)).map(drop).unwrap_err().kind(), StorageErrorKind::NotFound);
    assert_eq!(files(disk.path()).len(), stored.len(), "nothing half-written takes space");
    for number in &stored {
        assert!(*storage.get(&pack(*number)).unwrap() == content[..]);
    }
    storage.delete(&pack(stored[0])).unwrap();
    storage.put_new(&pack(100), &content).unwrap();
}

#[test]
fn a_read_only_mount_can_be_read_and_denies_writes() {
    let Some(disk) = Tmpfs::mount("1m") else { return };
    LocalStorage::create(disk.path()).unwrap().put_new(&pack(1), &bytes(1, 2_000)).unwrap();
    disk.remount_read_only();
    let storage = LocalStorage::create(disk.path()).unwrap();
    assert_eq!(*storage.get(&pack(1)).unwrap(), bytes(1, 2_000));
    assert_eq!(storage.get_range(&pack(1), 5..9).unwrap(), bytes(1, 9)[5..]);
    assert_eq!(storage.list(ObjectKind::Pack).unwrap().len(), 1);
    assert_eq!(storage.put_new(&pack(2), b"x").unwrap_err().kind(), StorageErrorKind::Denied);
    assert_eq!(storage.delete(&pack(1)).unwrap_err().kind(), StorageErrorKind::Denied);
}

/// Root is denied nothing, so this thread gives up root's two file capabilities; other threads keep theirs.
#[test]
fn missing_permissions_are_denials_and_neither_absence_nor_success() {
    let directory = TempDir::new().unwrap();
    let storage = storage_in(&directory);
    storage.put_new(&pack(1), b"x").unwrap();
    storage.put_new(&config(), b"x").unwrap();
    let set_mode = |path: &str, mode| {
        fs::set_permissions(directory.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut capabilities = rustix::thread::capabilities(None).unwrap();
            capabilities.effective &= !(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
            rustix::thread::set_capabilities(None, capabilities).unwrap();

            set_mode("packs/01", 0o500);
            assert_eq!(storage.delete(&pack(1)).unwrap_err().kind(), StorageErrorKind::Denied);
            set_mode("packs", 0o000);
            let denied = [
                storage.put_new(&pack(2), b"x").unwrap_err().kind(),
                storage.put_new(&pack(1), b"x").unwrap_err().kind(),
                storage.get(&pack(1)).map(drop).unwrap_err().kind(),
                storage.len(&pack(1)).map(drop).unwrap_err().kind(),
                storage.list(ObjectKind::Pack).map(drop).unwrap_err().kind(),
            ];
            set_mode("config", 0o000);
            let config = storage.get(&config()).map(drop).unwrap_err().kind();
            set_mode("packs", 0o700);
            set_mode("packs/01", 0o700);
            assert_eq!(denied, [StorageErrorKind::Denied; 5]);
            assert_eq!(config, StorageErrorKind::Denied);
        });
    });
    assert_eq!(*storage.get(&pack(1)).unwrap(), *b"x");
}

#[test]
fn a_writer_killed_at_any_moment_leaves_whole_objects_only() {
    for kill_after in 0..6 {
        let directory = TempDir::new().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "local::writes_until_it_is_killed", "--nocapture"])
            .env("COMPLINE_TEST_DIRECTORY", directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let put = lines.filter(|line| line.ends_with("is durable")).take(kill_after).count();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(put, kill_after, "the writer ended by itself");

        let storage = LocalStorage::create(directory.path()).unwrap();
        let listed = storage.list(ObjectKind::Pack).unwrap();
        assert!(listed.len() >= kill_after, "what was reported durable is there");
        for object in listed {
            let content = storage.get(&object.key).unwrap();
            let id = PackId::from_bytes(*blake3::hash(&content).as_bytes());
            assert_eq!(object.key, ObjectKey::Pack(id), "a torn object has a name");
        }
        storage.put_new(&pack(0), b"the next writer").unwrap();
        assert_eq!(files(&directory.path().join("tmp")), [] as [PathBuf; 0], "and nothing of the dead is left");
    }
}

#[test]
#[ignore = "the child of a_writer_killed_at_any_moment_leaves_whole_objects_only"]
fn writes_until_it_is_killed() {
    let Some(directory) = std::env::var_os("COMPLINE_TEST_DIRECTORY") else { return };
    let storage = LocalStorage::create(PathBuf::from(directory)).unwrap();
    for seed in 0..=u8::MAX {
        let content = bytes(seed, 1 << 20);
        let id = PackId::from_bytes(*blake3::hash(&content).as_bytes());
        storage.put_new(&ObjectKey::Pack(id), &content).unwrap();
        println!("\n{id} is durable");
    }
}

#[test]
fn a_clone_of_memory_is_what_a_crash_would_leave() {
    let storage = MemoryStorage::new();
    storage.put_new(&pack(1), b"before").unwrap();
    let crashed = storage.clone();
    storage.put_new(&pack(2), b"after").unwrap();
    storage.delete(&pack(1)).unwrap();
    crashed.overwrite(&config(), b"damaged");
    assert_eq!(crashed.keys(), [config(), pack(1)]);
    assert_eq!(storage.keys(), [pack(2)]);
}

/// A small disk of its own; none where this process may not mount one.
struct Tmpfs(TempDir);

impl Tmpfs {
    fn mount(size: &str) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let options = format!("size={size},mode=0700");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(directory.path()).status();
        if mount.is_ok_and(|status| status.success()) {
            return Some(Self(directory));
        }
        eprintln!("SKIPPED: this test mounts a tmpfs, which takes root with CAP_SYS_ADMIN");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount_read_only(&self) {
        let status = Command::new("mount").args(["-o", "remount,ro"]).arg(self.path()).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a map or an open file must not keep it.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Runs the program under strace, which fails the calls that `inject` says.
fn on_another_file_system(directory: &Path, inject: &[&str], words: &[&str]) -> std::process::Output {
    let mut command = Command::new("strace");
    command.args(["-f", "-o"]).arg(directory.join("trace"));
    for fault in inject {
        command.args(["-e", fault]);
    }
    command.arg(env!("CARGO_BIN_EXE_compline")).args(["-r", "repository", "--key-file", "key", "--cache-dir", "cache"]);
    command.args(words).current_dir(directory).env("HOME", directory).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_night_passes_where_there_is_no_exclusive_rename_and_where_there_are_no_hard_links() {
    let is_traced = Command::new("strace").args(["-o", "/dev/null", "true"]).status();
    if !is_traced.is_ok_and(|status| status.success()) {
        println!("SKIPPED: this test needs strace and the right to trace");
        return;
    }
    let nfs = ["inject=renameat2:error=EINVAL"];
    let fat = ["inject=renameat2:error=EINVAL", "inject=link,linkat:error=EPERM"];
    // Which calls the cache makes is its own business: it replaces and links nothing.
    for inject in [nfs.as_slice(), &fat] {
        let directory = TempDir::new().unwrap();
        let run = |words: &[&str]| {
            let output = on_another_file_system(directory.path(), inject, words);
            assert!(output.status.success(), "{inject:?} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        fs::create_dir(directory.path().join("files")).unwrap();
        fs::write(directory.path().join("files/a"), bytes(1, 3_000_000)).unwrap();
        run(&["init"]);
        run(&["backup", "files"]);
        let trace = fs::read_to_string(directory.path().join("trace")).unwrap();
        assert!(trace.contains("(INJECTED)"), "nothing was different here");
        fs::write(directory.path().join("files/b"), bytes(2, 3_000_000)).unwrap();
        fs::remove_file(directory.path().join("files/a")).unwrap();
        run(&["backup", "files"]);
        run(&["forget", "--keep-last", "1", "--prune"]);
        run(&["check", "--read-data"]);
        run(&["restore", "latest", "--target", "out"]);
        assert_eq!(fs::read_dir(directory.path().join("repository/tmp")).unwrap().count(), 0);
        // Whoever comes second is refused there as well.
        let again = on_another_file_system(directory.path(), inject, &["init"]);
        assert!(!again.status.success());
    }
}
