//! The index with many chunks: how fast it takes segments in, answers, and counts what is needed for a prune; what it takes of
//! disk and memory.
//!
//! ```text
//! cargo bench --bench index_scale [-- CHUNKS [DIRECTORY]]       1000000 chunks in the temporary directory if not said
//! ```
//! A hundred million chunks are 25 TB of content and some 10 GB of index; flat memory is what to look for.

#![allow(
    missing_docs,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench prints what it measured on files of its own"
)]

#[path = "support/packs.rs"]
mod packs;

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use compline::id::{ChunkId, RepositoryId, SegmentId};
use compline::store::index::{Index, Known};
use compline::store::index_segment::{self, PackEntry};
use packs::{CHUNKS_PER_PACK, chunk, hash, pack};

/// One gigabyte of packs, as the writer publishes them.
const PACKS_PER_SEGMENT: u64 = 64;
const CHUNKS_PER_SEGMENT: u64 = PACKS_PER_SEGMENT * CHUNKS_PER_PACK;
/// As many as are asked for at once.
const BATCH: u64 = 4096;
const BATCH_COUNT: u64 = 50;
const REPOSITORY: [u8; 16] = [1; 16];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let chunks = words.first().map_or(1_000_000, |word| word.parse().expect("a number of chunks"));
    let parent = words.get(1).map_or_else(std::env::temp_dir, Into::into);
    let directory = tempfile::tempdir_in(parent).expect("a directory");
    let segments = u64::max(1, chunks / CHUNKS_PER_SEGMENT);
    let chunks = segments * CHUNKS_PER_SEGMENT;
    println!("index of {chunks} chunks in {segments} segments");
    fill(directory.path(), segments);

    let started = Instant::now();
    let index = open(directory.path());
    println!("open {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    let hits = |n: u64| mixed(n) % chunks;
    ask("contains, hits", hits, |ids| assert!(index.contains(ids).unwrap().into_iter().all(|known| known)));
    let misses = |n: u64| chunks + mixed(n) % (1 << 40);
    ask("contains, misses", misses, |ids| assert!(!index.contains(ids).unwrap().into_iter().any(|known| known)));
    ask("places", hits, |ids| assert!(index.places(ids).unwrap().iter().all(Option::is_some)));
    let started = Instant::now();
    let totals = index.totals().unwrap();
    println!("totals of {} chunks {:.2} s", totals.chunks, started.elapsed().as_secs_f64());
    println!("peak memory so far {}", peak_memory());
    count_needs(&index, chunks);
    println!(
        "files {:.0} MiB, {:.0} bytes a chunk",
        mib(len(directory.path())),
        len(directory.path()) as f64 / chunks as f64
    );
    println!("peak memory {}", peak_memory());
}

/// What a prune does: notes what snapshots reach, nine packs of ten, counts what is needed for it, and once more with one pack
/// in a hundred on its list.
fn count_needs(index: &Index, chunks: u64) {
    let started = Instant::now();
    let mut liveness = index.liveness().unwrap();
    for batch in 0..chunks / CHUNKS_PER_PACK {
        if batch % 10 != 0 {
            liveness.reach((batch * CHUNKS_PER_PACK..(batch + 1) * CHUNKS_PER_PACK).map(chunk)).unwrap();
        }
    }
    println!("noted what is reached in {:.1} s, peak memory {}", started.elapsed().as_secs_f64(), peak_memory());
    let none = HashSet::new();
    let started = Instant::now();
    let usage = liveness.usage(&none, &none, Known::ALL).unwrap();
    let unused = usage.packs.iter().filter(|pack| pack.live_len == 0).count();
    let packs = usage.packs.len();
    println!("counted needs in {:.1} s: {unused} of {packs} packs unused", started.elapsed().as_secs_f64());
    let listed: HashSet<_> = usage.packs.iter().step_by(99).map(|pack| pack.id).collect();
    let started = Instant::now();
    let usage = liveness.usage(&listed, &none, Known::ALL).unwrap();
    let precious = usage.packs.iter().filter(|pack| pack.is_precious).count();
    println!(
        "counted with {} packs on a list in {:.1} s: {precious} precious, peak memory {}",
        listed.len(),
        started.elapsed().as_secs_f64(),
        peak_memory()
    );
}

fn open(directory: &Path) -> Index {
    Index::open(directory, RepositoryId::from_bytes(REPOSITORY)).expect("an index")
}

/// What a rebuild does with the segments once they are here: reads them and takes them in.
fn fill(directory: &Path, segments: u64) {
    let index = open(directory);
    let mut intake = index.intake();
    let (mut decoding, mut adding, mut tenth) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    // No shorter than two batches: only a segment that closes one takes time.
    let tenth_len = u64::max(128, segments / 10);
    for n in 0..segments {
        let entries: Vec<PackEntry> = (n * PACKS_PER_SEGMENT..(n + 1) * PACKS_PER_SEGMENT).map(pack).collect();
        let bytes = index_segment::encode(&entries);
        let started = Instant::now();
        let entries = index_segment::decode(&bytes).expect("it was encoded");
        decoding += started.elapsed();
        let started = Instant::now();
        intake.segment(SegmentId::from_bytes(hash(u64::MAX / 2 - n)), entries).expect("room");
        tenth += started.elapsed();
        if (n + 1) % tenth_len == 0 {
            let rate = (tenth_len * CHUNKS_PER_SEGMENT) as f64 / tenth.as_secs_f64();
            println!(
                "  after {:>11} chunks: {rate:>9.0} inserts/s, peak memory {}",
                (n + 1) * CHUNKS_PER_SEGMENT,
                peak_memory()
            );
            adding += std::mem::take(&mut tenth);
        }
    }
    adding += tenth;
    let started = Instant::now();
    intake.finish().expect("room");
    adding += started.elapsed();
    let started = Instant::now();
    drop(index);
    let (decoding, adding, closing) = (decoding.as_secs_f64(), adding.as_secs_f64(), started.elapsed().as_secs_f64());
    let rate = (segments * CHUNKS_PER_SEGMENT) as f64 / (decoding + adding + closing);
    println!(
        "rebuild {rate:.0} chunks/s: segments read in {decoding:.1} s, taken in {adding:.1} s, closed in {closing:.1} s"
    );
}

fn ask(what: &str, number: impl Fn(u64) -> u64, question: impl Fn(&[ChunkId])) {
    let batches: Vec<Vec<ChunkId>> = (0..BATCH_COUNT)
        .map(|batch| (batch * BATCH..(batch + 1) * BATCH).map(|n| chunk(number(n))).collect())
        .collect();
    let started = Instant::now();
    for ids in &batches {
        question(ids);
    }
    let rate = (BATCH * BATCH_COUNT) as f64 / started.elapsed().as_secs_f64();
    println!("{what}: {rate:.0}/s in batches of {BATCH}");
}

/// Spreads numbers over the whole range.
fn mixed(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

fn len(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries.map(|entry| if entry.path().is_dir() { len(&entry.path()) } else { entry.metadata().unwrap().len() }).sum()
}

fn mib(len: u64) -> f64 {
    len as f64 / f64::from(1 << 20)
}

fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(|| "unknown".to_owned(), |rest| rest.trim().to_owned())
}
