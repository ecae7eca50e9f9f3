//! The real program, killed while it stores a stream, at many places: by the very program that it reads from.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::nasty::noise;

/// Longer than a pack, so that some runs die with one uploaded.
const STREAM_LEN: usize = 20_000_000;

struct Machine {
    scratch: TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { scratch: TempDir::new().unwrap() };
        std::fs::write(machine.path("stream"), noise(1, STREAM_LEN)).unwrap();
        std::fs::write(machine.path("first"), noise(2, 300_000)).unwrap();
        machine.succeed(&["init"]);
        machine.succeed(&["backup", "--stdin-name", "first", "--stdin-from-command", "--", "cat", "first"]);
        machine
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.scratch.path().join(name)
    }

    fn run(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_compline"))
            .current_dir(self.scratch.path())
            .args(["-r", "repository", "--key-file", "key", "--cache-dir", "cache"])
            .args(words)
            .output()
            .unwrap()
    }

    #[track_caller]
    fn succeed(&self, words: &[&str]) -> Vec<u8> {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// A backup that dies when `len` bytes of the stream are on their way.
    fn die_after(&self, len: usize) {
        let script = format!("head -c {len} stream; kill -9 $PPID");
        let output = self.run(&["backup", "--stdin-name", "s", "--stdin-from-command", "--", "sh", "-c", &script]);
        assert_eq!(output.status.signal(), Some(9), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn len_below(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { len_below(&path) } else { path.metadata().unwrap().len() }).sum()
}

/// How many kills; the variable asks for more of them in a soak.
fn kills() -> usize {
    std::env::var("COMPLINE_TEST_KILLS").map_or(30, |text| text.parse().unwrap())
}

#[test]
fn a_killed_backup_loses_nothing_and_the_next_one_goes_on_from_what_it_uploaded() {
    let machine = Machine::new();
    let first = std::fs::read(machine.path("first")).unwrap();
    let kills = kills();
    for kill in 0..kills {
        machine.die_after(STREAM_LEN / kills * kill);
        if kill % 3 == 2 {
            // Another machine, or a lost cache: everything is known from the repository alone.
            std::fs::remove_dir_all(machine.path("cache")).unwrap();
        }
        assert!(machine.succeed(&["cat", "latest:/first"]) == first, "kill {kill}");
        machine.succeed(&["check"]);
    }
    machine.succeed(&["backup", "--stdin-name", "s", "--stdin-from-command", "--", "cat", "stream"]);
    assert!(machine.succeed(&["cat", "latest:/s"]) == noise(1, STREAM_LEN));
    machine.succeed(&["check", "--read-data"]);
    let stored = len_below(&machine.path("repository/packs"));
    let captured = (STREAM_LEN + first.len()) as u64;
    assert!(stored < captured + captured / 20, "{stored} bytes are stored for {captured}: packs were not used again");
}
