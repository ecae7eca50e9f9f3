//! Many programs at once on one repository, a third of them killed: two hosts that back up streams and trees, one that
//! prunes, others that restore, forget and check. A snapshot that is published is what was captured until it is forgotten,
//! and nobody has to clean up.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::program::{Host, Random, asked, noise, snapshots};

/// Snapshots that are kept at least.
const KEPT_MIN: usize = 5;
/// A program is killed, if at all, before it has run for so long. Most run for less.
const LIFE_MS_MAX: u64 = 250;

#[derive(Default)]
struct Tally {
    counts: Mutex<BTreeMap<String, u64>>,
    kills: AtomicU64,
}

impl Tally {
    fn add(&self, what: &str) {
        *self.counts.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    }
}

struct Thrash {
    scratch: PathBuf,
    /// Snapshots that somebody began to forget.
    forgotten: Mutex<HashSet<String>>,
    /// Snapshots that somebody was told of.
    acknowledged: Mutex<HashSet<String>>,
    next: AtomicU64,
    until: Instant,
    kills_wanted: u64,
    failed: AtomicBool,
    tally: Tally,
}

/// What the stream of this number is: half of it is in the next one too, and a part that never changes.
fn stream(number: u64) -> Vec<u8> {
    let len = 20_000 + usize::try_from(number * 7919 % 150_000).unwrap();
    [noise(1 << 40, 100_000), noise(number / 2, 150_000), noise(number << 20, len)].concat()
}

/// The files of the tree of this number: most are those of earlier ones.
fn tree(number: u64) -> BTreeMap<String, Vec<u8>> {
    let file = |at: u64| {
        let seed = (at << 48) + number / (1 + at);
        (format!("directory {}/file {at}", at % 3), noise(seed, usize::try_from(500 + at * 4000).unwrap()))
    };
    (0..12).map(file).collect()
}

fn read_tree(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for outer in std::fs::read_dir(directory).unwrap() {
        let outer = outer.unwrap();
        for inner in std::fs::read_dir(outer.path()).unwrap() {
            let inner = inner.unwrap();
            let name = format!("{}/{}", outer.file_name().display(), inner.file_name().display());
            files.insert(name, std::fs::read(inner.path()).unwrap());
        }
    }
    files
}

impl Thrash {
    fn goes_on(&self) -> bool {
        let kills = self.tally.kills.load(Ordering::SeqCst);
        !self.failed.load(Ordering::SeqCst) && (Instant::now() < self.until || kills < self.kills_wanted)
    }

    /// Runs a program, which may be killed. None if it was.
    fn run(
        &self,
        host: &Host,
        random: &mut Random,
        words: &[&str],
        stdin: Option<Vec<u8>>,
    ) -> Option<(i32, Vec<u8>, String)> {
        let kill_after = (random.below(3) == 0).then(|| Duration::from_millis(random.below(LIFE_MS_MAX)));
        let outcome = host.run(words, stdin, kill_after);
        let name = words.iter().find(|word| !word.starts_with('-')).unwrap();
        if outcome.was_killed() {
            self.tally.kills.fetch_add(1, Ordering::SeqCst);
            self.tally.add(&format!("{name} killed"));
            return None;
        }
        self.tally.add(name);
        Some((outcome.code(), outcome.stdout, outcome.stderr))
    }

    /// Two kinds of backups. One that was killed may have been published all the same.
    fn back_up(&self, host: &Host, random: &mut Random) {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let ended = if random.below(2) == 0 {
            let tag = format!("stream-{number}");
            let words = ["--json", "backup", "--tag", &tag, "--stdin", "--stdin-name", "s"];
            self.run(host, random, &words, Some(stream(number)))
        } else {
            let root = host.home.join("tree");
            let _none_yet = std::fs::remove_dir_all(&root);
            for (name, bytes) in tree(number) {
                let path = root.join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
            let tag = format!("tree-{number}-{}", host.home.file_name().unwrap().display());
            self.run(host, random, &["--json", "backup", "--tag", &tag, root.to_str().unwrap()], None)
        };
        let Some((code, stdout, stderr)) = ended else { return };
        if code == 3 && stderr.contains("It is missing or cut short") {
            // Of a segment that one wrote who was killed; nobody needs that pack, or what follows is going to tell.
            self.tally.add("false alarm");
        } else {
            assert_eq!(code, 0, "backup {number}: {stderr}");
        }
        let report: serde_json::Value = serde_json::from_slice(&stdout).unwrap();
        self.acknowledged.lock().unwrap().insert(report["snapshot"].as_str().unwrap().to_owned());
    }

    fn list(&self, host: &Host, random: &mut Random) -> Option<Vec<(String, String)>> {
        let (code, stdout, stderr) = self.run(host, random, &["--json", "snapshots"], None)?;
        assert_eq!(code, 0, "snapshots: {stderr}");
        Some(snapshots(&stdout))
    }

    fn is_forgotten(&self, id: &str) -> bool {
        self.forgotten.lock().unwrap().contains(id)
    }

    /// Reads a snapshot back.
    fn read(&self, host: &Host, random: &mut Random) {
        let Some(list) = self.list(host, random) else { return };
        if list.is_empty() {
            return;
        }
        let (id, tag) = &list[usize::try_from(random.below(list.len() as u64)).unwrap()];
        let out = host.home.join("out");
        let _none_yet = std::fs::remove_dir_all(&out);
        let path = self.path_of(id, tag);
        let is_tree = tag.starts_with("tree");
        let (restore, cat) = (["restore", &path, "--target", out.to_str().unwrap()], ["cat", &path]);
        let ended = self.run(host, random, if is_tree { &restore } else { &cat }, None);
        let Some((code, stdout, stderr)) = ended else { return };
        if code != 0 && self.is_forgotten(id) {
            return self.tally.add("forgotten while it was read");
        }
        assert_eq!(code, 0, "{tag} {id}: {stderr}");
        let number: u64 = tag.split('-').nth(1).unwrap().parse().unwrap();
        let is_right = if is_tree { read_tree(&out) == tree(number) } else { stdout == stream(number) };
        assert!(is_right, "{tag} {id} is not what was captured");
        self.tally.add("snapshot read back");
    }

    fn path_of(&self, id: &str, tag: &str) -> String {
        match tag.strip_prefix("tree-").and_then(|rest| rest.split_once('-')) {
            Some((_, host)) => format!("{id}:/files{}/{host}/tree", self.scratch.display()),
            None => format!("{id}:/s"),
        }
    }

    fn prune(&self, host: &Host, random: &mut Random) {
        let wait = ["0s", "1s"][usize::try_from(random.below(2)).unwrap()];
        let unused = ["0%", "5%", "unlimited"][usize::try_from(random.below(3)).unwrap()];
        let words = ["--json", "prune", "--wait", wait, "--max-unused", unused];
        let Some((code, stdout, stderr)) = self.run(host, random, &words, None) else { return };
        let report: serde_json::Value = serde_json::from_slice(&stdout).unwrap_or_default();
        let waited = report["writers_waited_for"].as_array().is_some_and(|writers| !writers.is_empty());
        let is_alarm = stderr.contains("It is missing or cut short")
            || stdout.windows(25).any(|text| text == b"It is missing or cut shor");
        if is_alarm {
            self.tally.add("false alarm");
        }
        assert!(
            code == 0 || code == 3 && (waited || is_alarm),
            "prune: {code}, {stderr}{}",
            String::from_utf8_lossy(&stdout)
        );
        if report["packs_deleted"].as_u64().unwrap_or(0) > 0 {
            self.tally.add("prune that deleted");
        }
    }

    fn forget(&self, host: &Host, random: &mut Random) {
        let Some(list) = self.list(host, random) else { return };
        let mut ids: Vec<String> = list.into_iter().map(|(id, _)| id).collect();
        let mut gone = Vec::new();
        while ids.len() > KEPT_MIN && random.below(6) > 0 {
            gone.push(ids.swap_remove(usize::try_from(random.below(ids.len() as u64)).unwrap()));
        }
        if !gone.is_empty() {
            self.forgotten.lock().unwrap().extend(gone.iter().cloned());
            let words: Vec<&str> = ["forget"].into_iter().chain(gone.iter().map(String::as_str)).collect();
            let Some((code, _, stderr)) = self.run(host, random, &words, None) else { return };
            assert_eq!(code, 0, "forget: {stderr}");
            self.tally
                .counts
                .lock()
                .unwrap()
                .entry("snapshot forgotten".to_owned())
                .and_modify(|n| *n += gone.len() as u64)
                .or_insert(gone.len() as u64);
        }
    }

    fn check(&self, host: &Host, random: &mut Random) {
        let words: &[&str] = if random.below(2) == 0 { &["check"] } else { &["check", "--read-data"] };
        let Some((code, stdout, stderr)) = self.run(host, random, words, None) else { return };
        let text = format!("{stderr}{}", String::from_utf8_lossy(&stdout));
        if code == 5
            && text.lines().filter(|line| line.contains("packs/")).all(|line| line.contains("It is missing or cut"))
            && text.contains("It is missing or cut")
        {
            return self.tally.add("false alarm");
        }
        assert_eq!(code, 0, "check: {text}");
    }

    /// Repeats `work` until it is time.
    fn repeat(&self, host: &Host, seed: u64, work: impl Fn(&Self, &Host, &mut Random)) {
        let mut random = Random(seed << 32);
        while self.goes_on() {
            // Now and then a machine loses its cache, if nobody else is using it.
            if random.below(40) == 0 && !host.cache.starts_with(self.scratch.join("first")) {
                let _none_yet = std::fs::remove_dir_all(&host.cache);
            }
            let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(self, host, &mut random)));
            if let Err(cause) = worked {
                self.failed.store(true, Ordering::SeqCst);
                std::panic::resume_unwind(cause);
            }
        }
    }

    /// Everybody is gone. Everything is right, and stays so without anybody cleaning up.
    fn ends_well(&self, host: &Host) {
        let list = host.snapshots();
        let forgotten = self.forgotten.lock().unwrap();
        for id in self.acknowledged.lock().unwrap().iter().filter(|id| !forgotten.contains(*id)) {
            assert!(list.iter().any(|(listed, _)| listed == id), "snapshot {id} is lost");
        }
        host.succeed(&["backup", "--tag", "stream-1000000", "--stdin", "--stdin-name", "s"], Some(stream(1_000_000)));
        host.succeed(&["prune", "--wait", "0s", "--max-unused", "0%"], None);
        host.succeed(&["check", "--read-data"], None);
        assert_eq!(["sessions", "retired", "tmp"].map(|directory| host.count(directory)), [0, 0, 0]);
        for (id, tag) in host.snapshots() {
            let path = self.path_of(&id, &tag);
            let number: u64 = tag.split('-').nth(1).unwrap().parse().unwrap();
            let is_right = if tag.starts_with("tree") {
                let out = host.home.join("out");
                let _none_yet = std::fs::remove_dir_all(&out);
                host.succeed(&["restore", &path, "--target", out.to_str().unwrap()], None);
                read_tree(&out) == tree(number)
            } else {
                host.succeed(&["cat", &path], None) == stream(number)
            };
            assert!(is_right, "{tag} {id} is not what was captured");
            self.tally.add("snapshot read back at the end");
        }
        // A machine that has seen nothing yet finds the same.
        let _none_yet = std::fs::remove_dir_all(&host.cache);
        host.succeed(&["check"], None);
    }
}

#[test]
fn whatever_is_killed_published_snapshots_are_whole_and_nobody_has_to_clean_up() {
    let scratch = TempDir::new().unwrap();
    let host = |name: &str| Host::new(scratch.path(), name);
    host("first").succeed(&["init"], None);
    let thrash = Thrash {
        scratch: scratch.path().to_owned(),
        forgotten: Mutex::default(),
        acknowledged: Mutex::default(),
        next: AtomicU64::new(1),
        until: Instant::now() + Duration::from_secs(asked("COMPLINE_SOAK_SECONDS", 10)),
        kills_wanted: asked("COMPLINE_SOAK_KILLS", 0),
        failed: AtomicBool::new(false),
        tally: Tally::default(),
    };
    let started = Instant::now();
    thread::scope(|scope| {
        let (first, second, third) = (host("first"), host("second"), host("third"));
        // Shares the cache of the first.
        let fourth = Host { cache: first.cache.clone(), ..host("fourth") };
        let fifth = host("fifth");
        let thrash = &thrash;
        scope.spawn(move || thrash.repeat(&first, 1, Thrash::back_up));
        scope.spawn(move || thrash.repeat(&second, 2, Thrash::back_up));
        scope.spawn(move || thrash.repeat(&third, 3, Thrash::prune));
        scope.spawn(move || {
            thrash.repeat(&fifth, 5, |thrash, host, random| match random.below(4) {
                0 => thrash.check(host, random),
                1 => thrash.prune(host, random),
                _ => thrash.read(host, random),
            });
        });
        scope.spawn(move || {
            thrash.repeat(&fourth, 4, |thrash, host, random| match random.below(3) {
                0 => thrash.read(host, random),
                _ => thrash.forget(host, random),
            });
        });
    });
    let seconds = started.elapsed().as_secs();
    println!(
        "{seconds} s, {} kills: {:?}",
        thrash.tally.kills.load(Ordering::SeqCst),
        thrash.tally.counts.lock().unwrap()
    );
    thrash.ends_well(&host("first"));
    println!("at the end: {:?}", thrash.tally.counts.lock().unwrap());
    assert!(thrash.tally.kills.load(Ordering::SeqCst) > 0, "nobody was killed");
}
