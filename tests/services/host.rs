//! A host that backs up to somewhere: a tree to save, a key, a cache, an environment.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// Variables of the process.
pub type Variables = Vec<(&'static str, String)>;

pub struct Host {
    pub scratch: TempDir,
    pub location: String,
    pub variables: Variables,
}

pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub fn of(output: std::process::Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap_or(-1);
        Self { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    pub fn must(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// That it failed with `code`, and said each of `words`.
    pub fn fails(self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{word}: {}", self.stderr);
        }
    }
}

impl Host {
    pub fn of(location: String, variables: Variables) -> Self {
        Self { scratch: TempDir::new().unwrap(), location, variables }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Some hundred files, small and large, all of them of their own.
    pub fn make_tree(&self) {
        for at in 0..40u64 {
            let directory = self.path(&format!("tree/{}", at % 10));
            std::fs::create_dir_all(&directory).unwrap();
            for file in 0..10u64 {
                std::fs::write(directory.join(format!("{at}-{file}")), noise(at * 100 + file, 2_000)).unwrap();
            }
        }
        std::fs::write(self.path("tree/large"), noise(7, 30_000_000)).unwrap();
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let key = self.path("key");
        self.bare(&[&["-r", &self.location, "--key-file", key.to_str().unwrap()], words].concat())
    }

    /// The program with its cache and its environment, and without a repository.
    pub fn bare(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_compline"));
        command.arg("--cache-dir").arg(self.path("cache")).args(words);
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"] {
            command.env_remove(name);
        }
        command.env("HOME", self.scratch.path()).env("AWS_EC2_METADATA_DISABLED", "true");
        command.envs(self.variables.clone()).current_dir(self.scratch.path()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, words: &[&str]) -> Outcome {
        Outcome::of(self.command(words).output().unwrap())
    }

    /// The same, while the test does something else.
    pub fn begin(&self, words: &[&str]) -> Child {
        self.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    pub fn must(&self, words: &[&str]) -> String {
        succeeded(words, self.command(words))
    }

    /// The same for [`bare`](Self::bare).
    pub fn bare_must(&self, words: &[&str]) -> String {
        succeeded(words, self.bare(words))
    }

    pub fn snapshot_count(&self) -> usize {
        self.must(&["snapshots", "--json"]).matches("\"id\"").count()
    }

    /// Restores the newest snapshot and compares it with the tree.
    pub fn must_restore(&self, target: &str) {
        self.must_restore_snapshot("latest", &self.path("tree"), target);
    }

    /// Restores what `snapshot` has of `tree`, and compares it with that.
    pub fn must_restore_snapshot(&self, snapshot: &str, tree: &Path, target: &str) {
        let what = format!("{snapshot}:/files{}", tree.display());
        self.must(&["restore", &what, "--target", target]);
        let diff = Command::new("diff").args(["-r", "--brief"]).arg(tree).arg(self.path(target)).output().unwrap();
        assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
    }
}

fn succeeded(words: &[&str], mut command: Command) -> String {
    let outcome = Outcome::of(command.output().unwrap());
    assert_eq!(outcome.code, 0, "{words:?}: {}{}", outcome.stdout, outcome.stderr);
    outcome.stdout
}

pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A value of a report in JSON.
pub fn value(report: &str, name: &str) -> serde_json::Value {
    let object: serde_json::Value = serde_json::from_str(report).unwrap();
    object[name].clone()
}
