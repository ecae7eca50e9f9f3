//! Runs of the program, which may be killed.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use compline::pipeline;

/// Bytes that no compressor makes shorter, others for each seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Numbers, others for each seed.
pub struct Random(pub u64);

impl Random {
    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        u64::from_le_bytes(noise(self.0, 8).try_into().unwrap()) % end.max(1)
    }
}

/// A number out of a variable.
pub fn asked(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

/// Who runs the program: a cache and a home of its own.
#[derive(Clone)]
pub struct Host {
    pub repository: PathBuf,
    pub key: PathBuf,
    pub cache: PathBuf,
    pub home: PathBuf,
}

/// How a run ended.
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Outcome {
    /// It was killed, and not by itself.
    pub fn was_killed(&self) -> bool {
        self.status.signal() == Some(9)
    }

    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }
}

impl Host {
    pub fn new(scratch: &Path, name: &str) -> Self {
        let home = scratch.join(name);
        std::fs::create_dir_all(&home).unwrap();
        let (repository, key) = (scratch.join("repository"), scratch.join("key"));
        Self { repository, key, cache: home.join("cache"), home }
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_compline"));
        command.arg("-r").arg(&self.repository).arg("--key-file").arg(&self.key).arg("--cache-dir").arg(&self.cache);
        command.args(words).env("HOME", &self.home).current_dir(&self.home);
        command
    }

    /// Runs the program to its end, or kills it after some time.
    pub fn run(&self, words: &[&str], stdin: Option<Vec<u8>>, kill_after: Option<Duration>) -> Outcome {
        let mut command = self.command(words);
        command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let input = child.stdin.take();
        thread::scope(|scope| {
            if let (Some(mut input), Some(bytes)) = (input, stdin) {
                // It may die before it has read all.
                scope.spawn(move || drop(input.write_all(&bytes)));
            }
            let stdout = scope.spawn(move || {
                let mut bytes = Vec::new();
                out.read_to_end(&mut bytes).map(|_| bytes)
            });
            let stderr = scope.spawn(move || {
                let mut bytes = Vec::new();
                err.read_to_end(&mut bytes).map(|_| bytes)
            });
            let started = Instant::now();
            let status = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break status;
                }
                if kill_after.is_some_and(|after| started.elapsed() >= after) {
                    child.kill().unwrap();
                    break child.wait().unwrap();
                }
                pipeline::pause(Duration::from_millis(1));
            };
            let stdout = stdout.join().unwrap().unwrap();
            let stderr = String::from_utf8_lossy(&stderr.join().unwrap().unwrap()).into_owned();
            Outcome { status, stdout, stderr }
        })
    }

    /// Runs the program, which has to succeed.
    #[track_caller]
    pub fn succeed(&self, words: &[&str], stdin: Option<Vec<u8>>) -> Vec<u8> {
        let outcome = self.run(words, stdin, None);
        assert_eq!(outcome.code(), 0, "{words:?}: {}", outcome.stderr);
        outcome.stdout
    }

    /// The ids of all snapshots and their first tags.
    #[track_caller]
    pub fn snapshots(&self) -> Vec<(String, String)> {
        snapshots(&self.succeed(&["--json", "snapshots"], None))
    }

    /// Bytes of the repository.
    pub fn used(&self) -> u64 {
        fn below(directory: &Path) -> u64 {
            let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
            paths.map(|path| if path.is_dir() { below(&path) } else { path.metadata().unwrap().len() }).sum()
        }
        below(&self.repository)
    }

    /// How many objects there are in a directory of the repository.
    pub fn count(&self, directory: &str) -> usize {
        std::fs::read_dir(self.repository.join(directory)).map_or(0, Iterator::count)
    }
}

/// What `snapshots --json` says.
pub fn snapshots(json: &[u8]) -> Vec<(String, String)> {
    let rows: Vec<serde_json::Value> = serde_json::from_slice(json).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    rows.iter().map(|row| (text(&row["id"]), text(&row["tags"][0]))).collect()
}
