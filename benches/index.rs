//! The index: chunks inserted and looked up per second, in a file of a million.

#![allow(
    missing_docs,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a bench is read by its groups and runs on files of its own"
)]

use compline::id::{ChunkId, PackId};
use compline::store::index::Index;
use compline::store::index_segment::PackEntry;
use compline::store::pack::{Frame, FrameKind, Role};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const PACK_COUNT: u64 = 1000;
const CHUNKS_PER_PACK: u64 = 1000;

fn id(n: u64) -> [u8; 32] {
    *blake3::hash(&n.to_le_bytes()).as_bytes()
}

fn pack(n: u64) -> PackEntry {
    let chunks =
        (0..CHUNKS_PER_PACK).map(|chunk| (ChunkId::from_bytes(id(n * CHUNKS_PER_PACK + chunk)), 1000)).collect();
    let frame = Frame {
        offset: 44,
        sealed_len: 1 << 18,
        kind: FrameKind::Zstd,
        plain_len: 1_000_000,
        chunks,
        extension: Vec::new(),
    };
    PackEntry { id: PackId::from_bytes(id(u64::MAX - n)), role: Role::Content, len: 16 << 20, frames: vec![frame] }
}

fn index(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let index = Index::open(directory.path(), compline::id::RepositoryId::from_bytes([1; 16])).expect("an index");
    (0..PACK_COUNT).for_each(|n| index.add_pack(&pack(n)).expect("room"));
    let mut group = criterion.benchmark_group("index of 1M chunks");
    group.throughput(Throughput::Elements(1000)).sample_size(20);
    let mut next = PACK_COUNT;
    group.bench_function("insert", |bencher| {
        bencher.iter_batched(
            || {
                next += 1;
                pack(next)
            },
            |entry| index.add_pack(&entry),
            BatchSize::PerIteration,
        );
    });
    let ids = |from: u64| (from..from + 1000).map(|n| ChunkId::from_bytes(id(n * 997))).collect::<Vec<_>>();
    let (hits, misses) = (ids(0), ids(1 << 40));
    group.bench_function("contains, hits", |bencher| bencher.iter(|| index.contains(&hits)));
    group.bench_function("contains, misses", |bencher| bencher.iter(|| index.contains(&misses)));
    group.bench_function("places", |bencher| bencher.iter(|| index.places(&hits)));
}

criterion_group!(benches, index);
criterion_main!(benches);
