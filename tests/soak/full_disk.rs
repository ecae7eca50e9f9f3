//! A disk that is full: backups fail with words and an exit code, nothing that is published is lost, and forgetting and
//! pruning make room again, though not even a small file fits.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::program::{Host, asked, noise};

/// Size of the disk.
const DISK: &str = "24m";
const PART_LEN: usize = 600_000;

/// A small file system, gone with this value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let options = format!("size={DISK}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "compline-soak"]).arg(path).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(path.to_owned()))
    }

    /// Takes the last byte of it.
    fn fill(&self) -> u64 {
        let mut file = std::fs::File::create(self.0.join("ballast")).unwrap();
        let mut len = 0;
        for block in [1 << 16, 1 << 12, 1 << 8, 1] {
            while let Ok(written) = file.write(&vec![0; block]) {
                len += written as u64;
            }
        }
        len
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg(&self.0).status();
    }
}

/// Each shares a part with the one before and another with the next, so that forgetting one frees a third of some packs.
fn stream(number: u64) -> Vec<u8> {
    [noise(number, PART_LEN), noise(number << 32, PART_LEN), noise(number + 1, PART_LEN)].concat()
}

struct Story {
    host: Host,
    next: u64,
    published: Vec<u64>,
    refused: u64,
}

impl Story {
    /// Whether it was published. If not, it must have said why.
    fn back_up(&mut self) -> bool {
        let number = self.next;
        let tag = format!("s-{number}");
        let outcome =
            self.host.run(&["backup", "--tag", &tag, "--stdin", "--stdin-name", "s"], Some(stream(number)), None);
        if outcome.code() == 0 {
            self.next += 1;
            self.published.push(number);
            return true;
        }
        assert_eq!(outcome.code(), 1, "{}", outcome.stderr);
        assert!(
            outcome.stderr.contains("no space left") && outcome.stderr.contains("nothing that was published is lost")
        );
        self.refused += 1;
        false
    }

    /// Everything that was published and not forgotten is there, and whole.
    fn holds(&self) {
        let listed: Vec<String> = self.host.snapshots().into_iter().map(|(_, tag)| tag).collect();
        let expected: Vec<String> = self.published.iter().map(|number| format!("s-{number}")).collect();
        assert_eq!(listed, expected);
        for number in &self.published {
            let bytes = self.host.succeed(&["cat", &format!("tag:s-{number}:/s")], None);
            assert!(bytes == stream(*number), "snapshot {number} is not what was captured");
        }
        self.host.succeed(&["check", "--read-data"], None);
    }

    fn forget(&mut self, at: usize) {
        let number = self.published.remove(at);
        self.host.succeed(&["forget", &format!("tag:s-{number}")], None);
    }
}

#[test]
fn a_full_disk_refuses_backups_loses_nothing_and_is_given_back_by_forgetting_and_pruning() {
    let scratch = TempDir::new().unwrap();
    let Some(disk) = SmallDisk::mount(&scratch.path().join("disk")) else {
        println!("SKIPPED: this test mounts a tmpfs, which takes root with CAP_SYS_ADMIN");
        return;
    };
    let mut host = Host::new(scratch.path(), "host");
    host.repository = disk.0.join("repository");
    host.succeed(&["init"], None);
    let mut story = Story { host, next: 1, published: Vec::new(), refused: 0 };
    let passes = asked("COMPLINE_SOAK_DISKS", 2);
    let mut freed = 0;
    for pass in 0..passes {
        while story.back_up() {}
        story.holds();
        // In every other pass there is no room for one byte more.
        let ballast = if pass % 2 == 1 { disk.fill() } else { 0 };
        assert!(!story.back_up());
        let before = story.host.used();
        // Neighbours, so that some packs are needed in part only; and some that stand alone.
        for at in [1, 1, 2] {
            story.forget(at);
        }
        story.host.succeed(&["prune", "--max-unused", "0%", "--wait", "0s"], None);
        let after = story.host.used();
        assert!(after + (2 * PART_LEN as u64) < before, "pass {pass}: {before} bytes became {after}");
        freed += before - after;
        story.holds();
        assert!(
            story.back_up(),
            "pass {pass}: {ballast} bytes of ballast, {after} of the repository, and still no room"
        );
        assert_eq!(["sessions", "retired", "tmp"].map(|directory| story.host.count(directory)), [0, 0, 0]);
        if ballast > 0 {
            std::fs::remove_file(disk.0.join("ballast")).unwrap();
        }
    }
    println!(
        "{passes} passes on a full disk: {} snapshots published, {} backups refused, {freed} bytes given back",
        story.next - 1,
        story.refused
    );
}
