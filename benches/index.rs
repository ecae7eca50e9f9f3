//! The index: chunks inserted and looked up per second, in a file of a million.

#![allow(
    missing_docs,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a bench is read by its groups and runs on files of its own"
)]

#[path = "support/packs.rs"]
mod packs;

use compline::id::{ChunkId, SegmentId};
use compline::store::index::Index;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use packs::{CHUNKS_PER_PACK, chunk, hash, pack};

const PACK_COUNT: u64 = 1_000_000 / CHUNKS_PER_PACK;

fn index(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let index = Index::open(directory.path(), compline::id::RepositoryId::from_bytes([1; 16])).expect("an index");
    let add = |n: u64| index.add_segments(&[(SegmentId::from_bytes(hash(u64::MAX / 2 - n)), vec![pack(n)])]);
    let mut intake = index.intake();
    (0..PACK_COUNT).for_each(|n| intake.pack(pack(n)).expect("room"));
    intake.finish().expect("room");
    let mut group = criterion.benchmark_group("index of 1M chunks");
    group.throughput(Throughput::Elements(CHUNKS_PER_PACK)).sample_size(20);
    let mut next = PACK_COUNT;
    group.bench_function("insert", |bencher| {
        bencher.iter(|| {
            next += 1;
            add(next)
        });
    });
    group.throughput(Throughput::Elements(1000));
    let ids = |from: u64| (from..from + 1000).map(|n| chunk(n * 997)).collect::<Vec<ChunkId>>();
    let (hits, misses) = (ids(0), ids(1 << 40));
    group.bench_function("contains, hits", |bencher| bencher.iter(|| index.contains(&hits)));
    group.bench_function("contains, misses", |bencher| bencher.iter(|| index.contains(&misses)));
    group.bench_function("places", |bencher| bencher.iter(|| index.places(&hits)));
}

criterion_group!(benches, index);
criterion_main!(benches);
