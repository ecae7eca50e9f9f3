//! Trees come back as they were, whatever is in them and whatever is in the way. One file for each promise.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test says what went wrong by stopping"
)]

#[path = "../support/mod.rs"]
mod support;

mod damage;
mod delete;
mod fidelity;
mod hostile;
mod overwrite;
mod repository;
mod resume;

use std::path::{Path, PathBuf};

use compline::archive::restore::{Overwrite, RestoreOptions, RestoreSummary, restore_tree};
use compline::archive::{Entry, Time};
use compline::error::Result;
use tempfile::TempDir;

use support::World;
use support::memory::MemoryArchive;

/// A place for a tree, its capture and what is restored of it.
struct Place {
    scratch: TempDir,
    archive: MemoryArchive,
    /// Name of the directory that is restored to.
    target: &'static str,
}

impl Place {
    fn new() -> Self {
        Self { scratch: TempDir::new().unwrap(), archive: MemoryArchive::new(), target: "target" }
    }

    fn source(&self) -> PathBuf {
        self.scratch.path().join("source")
    }

    fn target(&self) -> PathBuf {
        self.scratch.path().join(self.target)
    }

    /// A file of the source.
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        write(&self.source().join(name), bytes);
    }

    /// A file of the target.
    fn write_target(&self, name: &str, bytes: impl AsRef<[u8]>) {
        write(&self.target().join(name), bytes);
    }

    fn read_target(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.target().join(name)).unwrap()
    }

    fn capture(&mut self) -> Entry {
        let source = self.source();
        self.archive.capture(&source)
    }

    fn restore(&self, root: &Entry, options: &RestoreOptions) -> (Result<RestoreSummary>, World) {
        let world = World::new();
        let done = restore_tree(&self.archive, &self.archive, root, &self.target(), options, &world.context());
        (done, world)
    }

    /// Restores; there may be no problem.
    #[track_caller]
    fn restore_well(&self, root: &Entry, options: &RestoreOptions) -> RestoreSummary {
        let (done, world) = self.restore(root, options);
        let summary = done.unwrap();
        assert_eq!(world.problems(), Vec::<String>::new());
        assert_eq!(summary.problems, 0);
        summary
    }

    /// Restores; the problems are given back.
    #[track_caller]
    fn restore_badly(&self, root: &Entry, options: &RestoreOptions) -> (RestoreSummary, Vec<String>) {
        let (done, world) = self.restore(root, options);
        let (summary, problems) = (done.unwrap(), world.problems());
        assert_eq!(summary.problems, problems.len() as u64);
        (summary, problems)
    }
}

fn with(overwrite: Overwrite) -> RestoreOptions {
    RestoreOptions { overwrite, ..RestoreOptions::default() }
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn set_mtime(path: &Path, seconds: i64) {
    let time = Time { seconds, nanoseconds: 0 };
    let wanted = compline::archive::posix::Wanted { mtime: Some(time), ..Default::default() };
    let parent = compline::archive::posix::open_directory(path.parent().unwrap()).unwrap();
    compline::archive::posix::apply_at(&parent, path.file_name().unwrap(), &wanted).unwrap();
}

/// Every name below `path`, sorted; directories end with a slash.
fn names(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![path.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let entry = entry.unwrap();
            let name = entry.path().strip_prefix(path).unwrap().to_str().unwrap().to_owned();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
                found.push(name + "/");
            } else {
                found.push(name);
            }
        }
    }
    found.sort();
    found
}

/// A file system of one mebibyte, gone with this value.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// `None` where root may not mount, as in most containers.
    fn mount(path: &Path) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "compline-test"])
            .arg(path)
            .status();
        mounted.is_ok_and(|status| status.success()).then(|| Self { path: path.to_path_buf() })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.path).status();
    }
}

/// Runs one test of this binary again without the rights of root.
#[track_caller]
fn as_nobody(test: &str) {
    // The build directory may be closed to others.
    let scratch = TempDir::new().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(scratch.path(), open).unwrap();
    let program = scratch.path().join("tests");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let run = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .args(["--exact", test, "--nocapture"])
        .env("TMPDIR", scratch.path())
        .current_dir(scratch.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&run.stderr));
}
