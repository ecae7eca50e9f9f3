//! The leaves: cutting, hashing, compressing, sealing. One thread each.

#![allow(
    missing_docs,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a bench is read by its groups and runs on files of its own"
)]

#[path = "support/corpus.rs"]
mod corpus;

use std::hint::black_box;

use compline::chunker::{Chunker, Gear, Profile};
use compline::compress;
use compline::crypto::Secret;
use compline::id::RepositoryId;
use compline::store::signature::Signer;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const LEN: usize = 32 << 20;
const FRAME_LEN: usize = 1 << 20;

fn chunker(criterion: &mut Criterion) {
    let chunker = Chunker::new(Gear::new(&[1; 32]), Profile::default());
    let mut group = criterion.benchmark_group("chunker");
    group.throughput(Throughput::Bytes(LEN as u64)).sample_size(20);
    for (name, bytes) in [("dump", corpus::dump(LEN, 1)), ("noise", corpus::noise(LEN, 1))] {
        group.bench_function(name, |bencher| bencher.iter(|| chunker.split(black_box(&bytes)).count()));
    }
}

fn seal(criterion: &mut Criterion) {
    let key = Secret::from_bytes([1; 32]).object_key(&[2; 32]);
    let frame = corpus::noise(FRAME_LEN, 2);
    let mut group = criterion.benchmark_group("seal");
    group.throughput(Throughput::Bytes(FRAME_LEN as u64));
    group.bench_function("seal 1 MiB", |bencher| {
        bencher.iter(|| {
            let mut bytes = frame.clone();
            key.seal(44, b"", &mut bytes);
            bytes
        });
    });
    group.bench_function("chunk id of 256 KiB", |bencher| {
        bencher.iter(|| blake3::keyed_hash(&[1; 32], black_box(&frame[..256 << 10])));
    });
}

fn signature(criterion: &mut Criterion) {
    let signer = Signer::new(RepositoryId::from_bytes([1; 16]), &Secret::from_bytes([1; 32])).expect("any bytes sign");
    let mut signed = corpus::noise(FRAME_LEN, 2);
    signer.sign(&[2; 44], &mut signed);
    let mut group = criterion.benchmark_group("signature");
    group.bench_function("sign nothing", |bencher| bencher.iter(|| signer.sign(black_box(&[2; 44]), &mut Vec::new())));
    group.bench_function("verify 1 MiB", |bencher| {
        bencher.iter(|| signer.verifier().verified(&[2; 44], black_box(&signed)).map(<[u8]>::len));
    });
}

fn compression(criterion: &mut Criterion) {
    let frame = corpus::dump(FRAME_LEN, 3);
    let packed = compress::compress(&frame).expect("text gets smaller");
    let mut group = criterion.benchmark_group("compress");
    group.throughput(Throughput::Bytes(FRAME_LEN as u64));
    group.bench_function("dump", |bencher| bencher.iter(|| compress::compress(black_box(&frame))));
    group.bench_function("decompress dump", |bencher| {
        bencher.iter(|| compress::decompress(black_box(&packed), FRAME_LEN));
    });
    let noise = corpus::noise(FRAME_LEN, 4);
    group.bench_function("noise", |bencher| bencher.iter(|| compress::compress(black_box(&noise))));
}

criterion_group!(benches, chunker, seal, signature, compression);
criterion_main!(benches);
