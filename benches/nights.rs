//! Whole backups and restores, in the file system's temporary directory: a tree and a dump, first night, unchanged night,
//! next night, restore.

#![allow(
    missing_docs,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a bench is read by its groups and runs on files of its own"
)]

#[path = "support/corpus.rs"]
mod corpus;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use compline::archive::{FilesSource, RestoreOptions};
use compline::clock::SystemClock;
use compline::commands::backup::{self, Labels, Work};
use compline::commands::{App, SnapshotPath, Target, restore};
use compline::observer::{Context, Ledger};
use compline::storage::Location;
use compline::store::{Repository, Unlock};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const FILE_COUNT: usize = 5000;
const DUMP_LEN: usize = 64 << 20;

struct Place {
    directory: tempfile::TempDir,
    target: Target,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let location = Location::Local(directory.path().join("repository"));
        let (unlock, _) = Unlock::new_key_file().expect("random bytes");
        let storage = location.create().expect("room");
        let now = compline::clock::Clock::now(&SystemClock);
        Repository::create(storage.as_ref(), &unlock, "bench", now).expect("a repository");
        let cache = Some(directory.path().join("cache"));
        let (limits, named) = (compline::storage::Limits::default(), compline::commands::Named::Repo);
        Self { target: Target { location, unlock, cache, limits, named }, directory }
    }

    fn backup(&self, path: &Path) {
        let source = FilesSource { paths: vec![path.to_owned()], ..FilesSource::default() };
        with(|app| backup::run(app, &self.target, Work::Files(source), &Labels::default(), false));
    }

    fn restore(&self) -> tempfile::TempDir {
        let into = tempfile::tempdir_in(self.directory.path()).expect("a temporary directory");
        let what = SnapshotPath::parse(b"latest").expect("a snapshot");
        with(|app| restore::run(app, &self.target, &what, &into.path().join("out"), &RestoreOptions::default()));
        into
    }
}

fn with<T>(verb: impl FnOnce(App<'_>) -> compline::error::Result<T>) -> T {
    let (ledger, interrupt) = (Ledger::default(), AtomicBool::new(false));
    let context = Context { clock: &SystemClock, observer: &ledger, interrupt: &interrupt };
    verb(App { context, ledger: &ledger, variable: &|_| None }).expect("the verb succeeds")
}

fn nights(criterion: &mut Criterion) {
    let sources = tempfile::tempdir().expect("a temporary directory");
    let (tree, dump) = (sources.path().join("tree"), sources.path().join("dump"));
    corpus::tree(&tree, FILE_COUNT).expect("room");
    std::fs::create_dir_all(&dump).expect("room");
    let first = corpus::dump(DUMP_LEN, 1);
    std::fs::write(dump.join("dump.sql"), &first).expect("room");

    let mut group = criterion.benchmark_group("tree of 5000 files");
    group.sample_size(10).throughput(Throughput::Elements(FILE_COUNT as u64));
    group.bench_function("first", |bencher| {
        bencher.iter_batched(
            Place::new,
            |place| {
                place.backup(&tree);
                place
            },
            BatchSize::PerIteration,
        );
    });
    let place = Place::new();
    place.backup(&tree);
    group.bench_function("unchanged", |bencher| bencher.iter(|| place.backup(&tree)));
    group.bench_function("restore", |bencher| bencher.iter_with_large_drop(|| place.restore()));
    group.finish();

    let mut group = criterion.benchmark_group("dump of 64 MiB");
    group.sample_size(10).throughput(Throughput::Bytes(DUMP_LEN as u64));
    group.bench_function("first", |bencher| {
        bencher.iter_batched(
            Place::new,
            |place| {
                place.backup(&dump);
                place
            },
            BatchSize::PerIteration,
        );
    });
    let next = corpus::next_night(&first);
    group.bench_function("next", |bencher| {
        bencher.iter_batched(
            || {
                std::fs::write(dump.join("dump.sql"), &first).expect("room");
                let place = Place::new();
                place.backup(&dump);
                std::fs::write(dump.join("dump.sql"), &next).expect("room");
                place
            },
            |place| {
                place.backup(&dump);
                place
            },
            BatchSize::PerIteration,
        );
    });
    let place = Place::new();
    place.backup(&dump);
    group.bench_function("restore", |bencher| bencher.iter_with_large_drop(|| place.restore()));
}

criterion_group!(benches, nights);
criterion_main!(benches);
