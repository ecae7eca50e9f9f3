//! One directory that several hosts have mounted, each by itself: what one of them writes, the others' kernels learn late. As NFS and
//! SMB do it, by FUSE: names, and that there are none, and lengths and times are kept for a minute.

use std::path::{Path, PathBuf};
use std::process::Command;

use compline::id::SessionId;
use compline::storage::{LocalStorage, ObjectKey, Storage, StorageErrorKind};

use crate::host::Host;
use crate::hosts::three_save_and_one_prunes;

const NATURE: &str = "entry_timeout=60,negative_timeout=60,attr_timeout=60";

/// A mount of a directory, until it is dropped.
struct Mount {
    point: PathBuf,
}

impl Mount {
    /// None: this machine has no FUSE, or the one who tests may not use it.
    fn of(directory: &Path, point: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&point).unwrap();
        let mounted = Command::new("bindfs").args(["-o", NATURE]).arg(directory).arg(&point).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { point }),
            Ok(output) => {
                println!("SKIPPED: bindfs can't mount here: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(_) => {
                println!("SKIPPED: there is no bindfs");
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let ended = Command::new("fusermount").arg("-u").arg(&self.point).status();
        if !ended.is_ok_and(|status| status.success()) {
            println!("{} stays mounted", self.point.display());
        }
    }
}

/// A writer asks so whether its session still stands.
#[test]
fn what_another_machine_deleted_has_no_length_though_the_mount_remembers_it() {
    let scratch = tempfile::TempDir::new().unwrap();
    let real = scratch.path().join("real");
    std::fs::create_dir(&real).unwrap();
    let Some(mount) = Mount::of(&real, scratch.path().join("mount")) else { return };
    let here = LocalStorage::open(&mount.point).unwrap();
    let session = ObjectKey::Session(SessionId::from_bytes([7; 16]), 0);
    here.put_new(&session, b"at work").unwrap();
    assert_eq!(here.len(&session).unwrap(), 7);
    LocalStorage::open(&real).unwrap().delete(&session).unwrap();
    assert!(mount.point.join(session.path()).exists(), "it is remembered");
    assert_eq!(here.len(&session).unwrap_err().kind(), StorageErrorKind::NotFound);
}

#[test]
fn hosts_that_have_mounted_one_directory_save_at_once_while_another_one_prunes() {
    let scratch = tempfile::TempDir::new().unwrap();
    let real = scratch.path().join("real");
    std::fs::create_dir(&real).unwrap();
    let mounts: Option<Vec<Mount>> = (0..6).map(|n| Mount::of(&real, scratch.path().join(n.to_string()))).collect();
    let Some(mounts) = mounts else { return };
    // What was not there a moment ago is known not to be there.
    assert!(!mounts[0].point.join("new").exists());
    std::fs::write(real.join("new"), b"").unwrap();
    assert!(!mounts[0].point.join("new").exists() && mounts[1].point.join("new").exists());
    let hosts: [Host; 6] =
        std::array::from_fn(|n| Host::of(mounts[n].point.join("repository").display().to_string(), Vec::new()));
    let [first, others @ ..] = &hosts;
    first.must(&["init"]);
    for host in others {
        std::fs::copy(first.path("key"), host.path("key")).unwrap();
    }
    three_save_and_one_prunes(hosts);
    let sessions = std::fs::read_dir(real.join("repository/sessions")).map_or(0, Iterator::count);
    assert_eq!(sessions, 0);
}
