//! `kill -9` of copies, of the real program.

use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::nasty::noise;

const STREAM_LEN: usize = 60_000_000;

struct Machine(TempDir);

impl Machine {
    fn command(&self, repository: &str, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_compline"));
        command.current_dir(self.0.path()).args(["-r", repository, "--cache-dir", "cache"]);
        command.args(["--key-file", &format!("{repository}.key")]).args(words);
        command
    }

    #[track_caller]
    fn succeed(&self, repository: &str, words: &[&str]) -> Vec<u8> {
        let Output { status, stdout, stderr } = self.command(repository, words).output().unwrap();
        assert!(status.success(), "{words:?}: {}", String::from_utf8_lossy(&stderr));
        stdout
    }

    /// Dies when so many packs more are there, if it isn't done before.
    fn kill_after(&self, words: &[&str], packs: usize) -> bool {
        let wanted = self.packs() + packs;
        let mut copy = self.command("there", words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while copy.try_wait().unwrap().is_none() && self.packs() < wanted {
            std::thread::yield_now();
        }
        let was_running = copy.try_wait().unwrap().is_none();
        copy.kill().unwrap();
        copy.wait().unwrap();
        was_running
    }

    fn packs(&self) -> usize {
        let Ok(directories) = std::fs::read_dir(self.0.path().join("there/packs")) else { return 0 };
        directories.map(|directory| std::fs::read_dir(directory.unwrap().path()).unwrap().count()).sum()
    }
}

/// How many kills; the variable asks for more of them in a soak.
fn kills() -> usize {
    std::env::var("COMPLINE_TEST_KILLS").map_or(12, |text| text.parse().unwrap())
}

#[test]
fn a_killed_copy_publishes_nothing_half_and_the_next_one_goes_on() {
    let machine = Machine(TempDir::new().unwrap());
    let path = |name: &str| machine.0.path().join(name);
    for (name, seed, len) in [("first", 2, 300_000), ("second", 1, STREAM_LEN)] {
        std::fs::write(path(name), noise(seed, len)).unwrap();
    }
    machine.succeed("here", &["init"]);
    for name in ["first", "second"] {
        machine.succeed("here", &["backup", "--stdin-name", name, "--stdin-from-command", "--", "cat", name]);
    }
    machine.succeed("there", &["init"]);
    let copy = ["copy", "--from", "here", "--from-key-file", "here.key"];
    let mut killed = 0;
    for kill in 0..kills() {
        killed += usize::from(machine.kill_after(&copy, kill % 3));
        if kill % 3 == 2 {
            std::fs::remove_dir_all(path("cache")).unwrap();
        }
        machine.succeed("there", &["check"]);
    }
    assert!(killed > 0, "no copy was killed");
    machine.succeed("there", &copy);
    assert!(machine.succeed("there", &["cat", "latest:/second"]) == noise(1, STREAM_LEN));
    assert!(machine.succeed("there", &["cat", "latest~1:/first"]) == noise(2, 300_000));
    machine.succeed("there", &["check", "--read-data"]);
}
