//! Which chain of deltas? Thirty nights of a dump under several policies: bytes per night, bytes in all, and how long the
//! newest and the oldest night take to read, beside a repository without deltas (decision `delta-chains`).
//!
//! ```text
//! cargo bench --bench chains                     thirty generated nights of 64 MiB
//! cargo bench --bench chains -- 128              of 128 MiB
//! cargo bench --bench chains -- FILE FILE ...    the nights are these files
//! ```

#![allow(
    missing_docs,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench prints its table and runs on files of its own"
)]

use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use compline::archive::entry::{Entry, EntryKind};
use compline::archive::reader::ArchiveReader;
use compline::archive::writer::{ArchiveWriter, Parent};
use compline::archive::{ArchivePath, CaptureSink};
use compline::chunker::Profile;
use compline::clock::{Clock, SystemClock};
use compline::observer::{Context, Counter, Ledger};
use compline::storage::Location;
use compline::store::{DeltaPolicy, Repository, Unlock};

const NIGHT_COUNT: u32 = 30;
const READ_COUNT: usize = 3;

/// A table that changes: each night 1 % of its rows are updated at random places, 0.3 % are added, 0.1 % deleted.
struct Table {
    rows: Vec<(u64, u64)>,
    next: u64,
    random: u64,
}

impl Table {
    fn new(len: usize) -> Self {
        let count = len as u64 / 180;
        Self { rows: (0..count).map(|n| (n, 0)).collect(), next: count, random: 7 }
    }

    fn random(&mut self, below: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.random >> 33) % below as u64).unwrap()
    }

    fn pass_night(&mut self) {
        let count = self.rows.len();
        for _ in 0..count / 100 {
            let at = self.random(count);
            self.rows[at].1 += 1;
        }
        for _ in 0..count / 1000 {
            let at = self.random(self.rows.len());
            self.rows.remove(at);
        }
        for _ in 0..count * 3 / 1000 {
            self.rows.push((self.next, 0));
            self.next += 1;
        }
    }

    fn write(&self, path: &Path) {
        let mut out = io::BufWriter::new(std::fs::File::create(path).unwrap());
        for (id, version) in &self.rows {
            let text = blake3::hash(&[id.to_le_bytes(), version.to_le_bytes()].concat()).to_hex();
            let (name, note) = (&text[..12], &text[12..40]);
            writeln!(out, "{id}\t{name}\tcustomer{}@example.org\t{:>10}\t{note}\t2026-01-01 00:00:00+00\tlorem ipsum dolor sit amet, consetetur sadipscing {}\t\\N", id % 9973, version * 17, id % 31).unwrap();
        }
        out.flush().unwrap();
    }
}

/// One way to keep thirty nights.
struct Shelf {
    _directory: tempfile::TempDir,
    repository: Repository,
}

#[derive(Default)]
struct Figures {
    nights: Vec<u64>,
    writing: Duration,
    newest: Duration,
    oldest: Duration,
    depth: u8,
}

fn shelf(policy: DeltaPolicy) -> Shelf {
    let directory = tempfile::tempdir().unwrap();
    let location = Location::Local(directory.path().join("repository"));
    let (unlock, _) = Unlock::new_key_file().unwrap();
    let storage = location.create().unwrap();
    Repository::create(storage.as_ref(), &unlock, "bench", SystemClock.now()).unwrap();
    let mut repository = Repository::open(storage, &unlock, Some(&directory.path().join("cache"))).unwrap();
    repository.set_delta_policy(policy);
    Shelf { _directory: directory, repository }
}

/// Saves a file as the next version of a stream; tells its entry and what it cost.
fn save(shelf: &Shelf, path: &Path, older: Option<&Entry>) -> (Entry, u64) {
    let (ledger, interrupt) = (Ledger::default(), AtomicBool::new(false));
    let context = Context { clock: &SystemClock, observer: &ledger, interrupt: &interrupt };
    let mut writer = ArchiveWriter::new(&shelf.repository, false, Vec::new(), context).unwrap();
    let parent = older.map(|root| Parent { root: root.clone(), tells_all: true });
    let mut component = writer.component("dump", Profile::default(), parent, context);
    component.put_stream(&ArchivePath::root(), &mut std::fs::File::open(path).unwrap()).unwrap();
    let root = component.finish().unwrap().root;
    // Stores everything; only the snapshot record is left out.
    writer.discard().unwrap();
    (root, ledger.get(Counter::BytesStored))
}

fn read(shelf: &Shelf, root: &Entry) -> Duration {
    let EntryKind::File(content) = &root.kind else { unreachable!("a stream is a file") };
    let (ledger, interrupt) = (Ledger::default(), AtomicBool::new(false));
    let context = Context { clock: &SystemClock, observer: &ledger, interrupt: &interrupt };
    let once = || {
        let start = Instant::now();
        let reader = ArchiveReader::new(&shelf.repository, context);
        let len = io::copy(&mut reader.open(content).take(u64::MAX), &mut io::sink()).unwrap();
        assert_eq!(len, content.len);
        start.elapsed()
    };
    (0..READ_COUNT).map(|_| once()).min().unwrap()
}

fn run(policy: DeltaPolicy, nights: &mut dyn FnMut(u32) -> Option<PathBuf>) -> Figures {
    let shelf = shelf(policy);
    let mut figures = Figures::default();
    let (mut first, mut last) = (None, None);
    for n in 0.. {
        let Some(path) = nights(n) else { break };
        let start = Instant::now();
        let (root, stored) = save(&shelf, &path, last.as_ref());
        figures.writing += start.elapsed();
        figures.nights.push(stored);
        first.get_or_insert_with(|| root.clone());
        last = Some(root);
    }
    figures.newest = read(&shelf, last.as_ref().unwrap());
    figures.oldest = read(&shelf, first.as_ref().unwrap());
    figures.depth = shelf.repository.index().deepest().unwrap();
    figures
}

fn main() {
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let files: Vec<PathBuf> = given.iter().map(PathBuf::from).filter(|path| path.is_file()).collect();
    let len = given.iter().find_map(|argument| argument.parse::<usize>().ok()).unwrap_or(64) << 20;
    let policies = [(0, 8), (255, 1000), (32, 16), (32, 8), (32, 4), (32, 2), (8, 1000), (4, 1000), (1, 1000)];
    println!(
        "| depth at most | stride | MB in all | MB a night, mean | last | deepest | writing s | newest ms | oldest ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let directory = tempfile::tempdir().unwrap();
    for (depth_max, stride) in policies {
        let mut table = Table::new(len);
        let mut generated = |n: u32| {
            if n > 0 {
                table.pass_night();
            }
            let path = directory.path().join("dump");
            table.write(&path);
            (n < NIGHT_COUNT).then_some(path)
        };
        let mut given = |n: u32| files.get(n as usize).cloned();
        let nights: &mut dyn FnMut(u32) -> Option<PathBuf> = if files.is_empty() { &mut generated } else { &mut given };
        let figures = run(DeltaPolicy { depth_max, stride }, nights);
        let total: u64 = figures.nights.iter().sum();
        let next: u64 = figures.nights.iter().skip(1).sum();
        let megabytes = |n: u64| format!("{}.{:02}", n / 1_000_000, n / 10_000 % 100);
        println!(
            "| {depth_max} | {stride} | {} | {} | {} | {} | {:.1} | {} | {} |",
            megabytes(total),
            megabytes(next / (figures.nights.len() as u64 - 1).max(1)),
            megabytes(*figures.nights.last().unwrap()),
            figures.depth,
            figures.writing.as_secs_f64(),
            figures.newest.as_millis(),
            figures.oldest.as_millis(),
        );
    }
}
