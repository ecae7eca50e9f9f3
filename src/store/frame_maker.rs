//! From new chunks to frames: look for something similar that is stored, keep the delta where it pays, compress the rest
//! together.
//!
//! Where a base comes from, in this order: what lay at the same place of an older version (the caller knows), else whatever
//! has a feature in common. A delta is decoded again before anybody relies on it.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use super::alignment::{Older, Outcome};
use super::frame_source::{FrameSource, WRITE_FRAMES_LEN};
use super::index::ChunkPlace;
use super::pack::{BASE_COUNT_MAX, BASE_LEN_MAX, FrameKind, Lineage, Role};
use super::repository::Repository;
use crate::compress;
use crate::delta::{self, BaseIndex, Encoded, Features};
use crate::error::Result;
use crate::id::ChunkId;

/// How deltas are chained (decision `delta-chains`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaPolicy {
    /// No chain is longer; 0: no deltas at all.
    pub depth_max: u8,
    /// Each so many-th version is a delta of the one so many versions ago, each square-th one of the one a square ago, and
    /// so on: chains grow with the logarithm of the number of versions.
    pub stride: u16,
}

impl Default for DeltaPolicy {
    fn default() -> Self {
        Self { depth_max: 32, stride: 8 }
    }
}

/// Longest generation number: then a chain begins anew.
const GENERATION_MAX: u16 = 60_000;

impl DeltaPolicy {
    /// Of which generation, at most, the bases of a version of `generation` are.
    fn base_generation(self, generation: u16) -> u16 {
        let stride = self.stride.max(2);
        let mut step = 1_u16;
        while generation > 0 && step <= generation / stride && generation.is_multiple_of(step * stride) {
            step *= stride;
        }
        generation.saturating_sub(step)
    }
}

/// Chunks of this length and below on average are small files, or trees: ...
const SMALL_LEN: usize = 64 << 10;
/// ... frames of them are so many times as long, because they compress better together (decision `solid-frames`).
const SMALL_FACTOR: u64 = 3;
/// Chunks shorter than this are not worth a frame of their own.
const DELTA_LEN_MIN: usize = 512;
/// A delta that is no longer than one part in so many of the chunk is kept without asking what else it could be.
const CLEAR_SHARE: usize = 8;
/// Chunks from this length on are looked for by what they resemble.
const FEATURES_LEN_MIN: [usize; 2] = [16 << 10, 4 << 10];
/// The level for the operations of a delta: they are few, and level 3 leaves some of their pattern.
const DELTA_LEVEL: i32 = 6;
/// A base from which less than one byte in so many of the chunk is copied is left out.
const USED_SHARE_MIN: usize = 64;
/// Before so many bytes came in, nothing is said about their novelty.
const NOVELTY_LEN: u64 = 64 << 20;
/// Where at most one byte in so many becomes no delta and was not stored before ...
const NOVELTY_SHARE: u64 = 16;
/// ... such bytes are few, and worth more of the processor's time.
const LEVEL_OF_FEW: i32 = 9;

/// A chunk that is not stored yet.
#[derive(Debug)]
struct NewChunk {
    id: ChunkId,
    len: usize,
    older: Older,
}

/// Chunks that are going to be frames together.
#[derive(Debug)]
pub struct Batch {
    plain: Vec<u8>,
    chunks: Vec<NewChunk>,
    role: Role,
    /// Bytes that came in before it was complete.
    offered: u64,
}

impl Batch {
    /// An empty one, for packs of `role`.
    pub fn new(role: Role) -> Self {
        Self { plain: Vec::new(), chunks: Vec::new(), role, offered: 0 }
    }

    /// Appends a chunk, and what lay at its place in an older version.
    pub fn push(&mut self, id: ChunkId, bytes: &[u8], older: Older) {
        self.plain.extend_from_slice(bytes);
        self.chunks.push(NewChunk { id, len: bytes.len(), older });
    }

    /// Tells how many bytes came in before it was complete: what is known about novelty.
    pub fn set_offered(&mut self, offered: u64) {
        self.offered = offered;
    }

    /// Whether the next chunk, of `len` bytes, would make it longer than frames of `frame_len` should be.
    #[must_use]
    pub fn is_full(&self, len: usize, frame_len: u64) -> bool {
        let are_small = self.plain.len() <= self.chunks.len().saturating_mul(SMALL_LEN);
        let limit = if are_small { frame_len * SMALL_FACTOR } else { frame_len };
        !self.chunks.is_empty() && (self.plain.len() + len) as u64 > limit
    }

    /// The role of its packs.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Chunks so far.
    #[must_use]
    pub fn chunk_count(&self) -> usize {
        self.chunks.len()
    }
}

/// A frame that is ready to be sealed.
#[derive(Debug)]
pub struct PackedFrame {
    /// How it is kept.
    pub kind: FrameKind,
    /// Length of the plain text.
    pub plain_len: u64,
    /// What is sealed.
    pub bytes: Vec<u8>,
    /// Its chunks.
    pub chunks: Vec<(ChunkId, u64)>,
    /// The encoded lineage of a delta.
    pub extension: Vec<u8>,
    /// Of chunks that may be bases one day.
    pub features: Vec<(ChunkId, Features)>,
}

/// A delta that was found and proven.
struct Found {
    bytes: Vec<u8>,
    lineage: Lineage,
    /// Which base holds the longest copy, and how much further back the copy lies there.
    aligned: Option<(ChunkId, i64)>,
}

/// Makes frames; shared by the threads that do.
pub struct FrameMaker {
    source: FrameSource<'static>,
    policy: DeltaPolicy,
    /// Bytes of chunks that became no delta.
    whole_len: AtomicU64,
}

thread_local! {
    static INDEX: RefCell<BaseIndex> = RefCell::default();
}

impl FrameMaker {
    /// For chunks of `repository`.
    #[must_use]
    pub fn new(repository: Repository, policy: DeltaPolicy) -> Self {
        Self { source: FrameSource::new(repository, None, WRITE_FRAMES_LEN), policy, whole_len: AtomicU64::new(0) }
    }

    /// Whether it costs ways over the network to make deltas of the chunks of `batch`.
    #[must_use]
    pub fn has_far_bases(&self, batch: &Batch) -> bool {
        let is_far = self.source.repository().storage().is_remote();
        is_far && self.policy.depth_max > 0 && batch.chunks.iter().any(|chunk| !chunk.older.is_nothing())
    }

    /// Gets what [`make`](Self::make) is going to need for `batch` from far away.
    pub fn fetch_ahead(&self, batch: &Batch) {
        for chunk in &batch.chunks {
            // What goes wrong goes wrong again where it is needed.
            if let Ok(Some(lineage)) = self.lineage(&chunk.older.ids(&chunk.id)) {
                self.source.fetch_ahead(&lineage);
            }
        }
    }

    /// The frames of a batch: deltas first, then what is left, as one.
    pub fn make(&self, batch: Batch) -> Vec<PackedFrame> {
        let mut frames = Vec::new();
        let mut features = Vec::new();
        let mut left: Vec<(ChunkId, u64)> = Vec::new();
        let mut left_plain: Option<Vec<u8>> = None;
        let mut start = 0;
        for chunk in &batch.chunks {
            let bytes = &batch.plain[start..start + chunk.len];
            let (found, own) = self.delta(batch.role, chunk, bytes);
            features.extend(own.map(|own| (chunk.id, own)));
            let len = chunk.len as u64;
            if let Some(Found { bytes: delta, lineage, .. }) = found {
                // What follows the first delta has to move up.
                left_plain.get_or_insert_with(|| batch.plain[..start].to_vec());
                frames.push(PackedFrame {
                    kind: FrameKind::Delta,
                    plain_len: len,
                    bytes: delta,
                    chunks: vec![(chunk.id, len)],
                    extension: lineage.encode(),
                    features: Vec::new(),
                });
            } else {
                left.push((chunk.id, len));
                if let Some(plain) = &mut left_plain {
                    plain.extend_from_slice(bytes);
                }
            }
            start += chunk.len;
        }
        if !left.is_empty() {
            let plain = left_plain.unwrap_or(batch.plain);
            let whole = self.whole_len.fetch_add(plain.len() as u64, Ordering::Relaxed) + plain.len() as u64;
            let are_few = batch.offered >= NOVELTY_LEN && whole <= batch.offered / NOVELTY_SHARE;
            frames.push(together(plain, left, if are_few { LEVEL_OF_FEW } else { compress::LEVEL }));
        }
        if let Some(frame) = frames.last_mut() {
            frame.features = features;
        }
        frames
    }

    /// The delta of a chunk, if there is one that pays, and its features, if others should find it by them.
    fn delta(&self, role: Role, chunk: &NewChunk, bytes: &[u8]) -> (Option<Found>, Option<Features>) {
        if self.policy.depth_max == 0 || bytes.len() < DELTA_LEN_MIN {
            return (None, None);
        }
        // A base that can't be had costs the delta, never the backup: the chunk is stored whole then.
        let older = chunk.older.ids(&chunk.id);
        let learn = |aligned| chunk.older.learn(&Outcome { new: chunk.id, aligned });
        let first = self.over(&older, bytes).ok().flatten();
        if bytes.len() < FEATURES_LEN_MIN[role as usize - 1]
            || first.as_ref().is_some_and(|found| is_clear(found, bytes))
        {
            learn(first.as_ref().and_then(|found| found.aligned));
            return (first.filter(|found| pays(found, bytes)), None);
        }
        let Some(own) = delta::features(bytes) else { return (first.filter(|found| pays(found, bytes)), None) };
        let alike = self.source.repository().index().alike(&own).unwrap_or_default();
        let alike: Vec<ChunkId> = alike.into_iter().filter(|id| !older.contains(id)).take(1).collect();
        let second = self.over(&alike, bytes).ok().flatten();
        let found = [first, second].into_iter().flatten().min_by_key(|found| found.bytes.len());
        let close = found.as_ref().filter(|found| found.bytes.len() <= bytes.len() / 2);
        learn(close.and_then(|found| found.aligned));
        (found.filter(|found| pays(found, bytes)), Some(own))
    }

    /// `bytes` as a delta over `older` chunks or, where the chain would grow too long, what those were made of.
    fn over(&self, older: &[ChunkId], bytes: &[u8]) -> Result<Option<Found>> {
        let Some(mut lineage) = self.lineage(older)? else { return Ok(None) };
        let mut pieces = self.source.base(&lineage)?;
        let Some(mut encoded) = encode(&pieces.bytes, bytes) else { return Ok(None) };
        let (used, (number, shift)) = pieces.usage(&encoded.runs);
        let aligned = lineage.bases.get(number).map(|id| (*id, shift));
        let worth = bytes.len() / USED_SHARE_MIN;
        if used.len() > 1 && used.iter().any(|used| *used < worth) {
            let mut used = used.into_iter();
            lineage.bases.retain(|_| used.next().is_some_and(|used| used >= worth));
            if lineage.bases.is_empty() {
                return Ok(None);
            }
            pieces = self.source.base(&lineage)?;
            let Some(again) = encode(&pieces.bytes, bytes) else { return Ok(None) };
            encoded = again;
        }
        let Some(packed) = compress::always_compress(DELTA_LEVEL, &encoded.bytes) else { return Ok(None) };
        let decoded = compress::decompress_up_to(&packed, bytes.len())
            .ok()
            .and_then(|encoded| delta::decode(&encoded, &pieces.bytes, bytes.len()).ok());
        // Anything else would be a fault of ours or of the memory; the chunk is stored whole then.
        Ok((decoded.as_deref() == Some(bytes)).then_some(Found { bytes: packed, lineage, aligned }))
    }

    /// Of what a new version of `older` is to be made.
    fn lineage(&self, older: &[ChunkId]) -> Result<Option<Lineage>> {
        let places = self.source.base_places(older)?;
        let mut bases: Vec<(ChunkId, ChunkPlace)> =
            older.iter().zip(places).filter_map(|(id, place)| place.map(|place| (*id, place))).collect();
        let generation =
            bases.iter().map(|(_, place)| generation_of(place)).max().map(|newest| newest.saturating_add(1));
        let Some(generation) = generation.filter(|generation| *generation < GENERATION_MAX) else { return Ok(None) };
        let wanted = self.policy.base_generation(generation);
        loop {
            let too_far = |(_, place): &(ChunkId, ChunkPlace)| {
                place.frame.lineage.is_some()
                    && (generation_of(place) > wanted || place.frame.depth() >= self.policy.depth_max)
            };
            let Some(n) = bases.iter().position(too_far) else { break };
            let (_, place) = bases.remove(n);
            let Some(lineage) = &place.frame.lineage else { break };
            let places = self.source.base_places(&lineage.bases)?;
            let known = lineage.bases.iter().zip(places).filter_map(|(id, place)| place.map(|place| (*id, place)));
            for (at, base) in known.enumerate() {
                if !bases.iter().any(|(id, _)| *id == base.0) {
                    bases.insert((n + at).min(bases.len()), base);
                }
            }
        }
        let mut len = 0;
        bases.retain(|(_, place)| {
            len += place.len;
            len <= BASE_LEN_MAX
        });
        bases.truncate(BASE_COUNT_MAX);
        let depth = bases.iter().map(|(_, place)| place.frame.depth() + 1).max();
        let bases = bases.into_iter().map(|(id, _)| id).collect();
        Ok(depth.map(|depth| Lineage { depth, generation, bases }))
    }
}

fn encode(base: &[u8], bytes: &[u8]) -> Option<Encoded> {
    INDEX.with_borrow_mut(|index| {
        index.fill(base);
        delta::encode(index, base, bytes)
    })
}

/// Whether a delta is so short that nothing else needs to be tried.
fn is_clear(found: &Found, bytes: &[u8]) -> bool {
    found.bytes.len() <= bytes.len() / CLEAR_SHARE
}

/// Whether a delta is worth a step more at each restore.
fn pays(found: &Found, bytes: &[u8]) -> bool {
    let whole = || compress::compress(bytes).map_or(bytes.len(), |whole| whole.len());
    is_clear(found, bytes) || found.bytes.len() < whole() / 4 * 3
}

fn generation_of(place: &ChunkPlace) -> u16 {
    place.frame.lineage.as_ref().map_or(0, |lineage| lineage.generation)
}

/// One frame of several chunks.
pub fn together(plain: Vec<u8>, chunks: Vec<(ChunkId, u64)>, level: i32) -> PackedFrame {
    let plain_len = plain.len() as u64;
    let (kind, bytes) = match compress::compress_at(level, &plain) {
        Some(bytes) => (FrameKind::Zstd, bytes),
        None => (FrameKind::Raw, plain),
    };
    PackedFrame { kind, plain_len, bytes, chunks, extension: Vec::new(), features: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_grow_with_the_logarithm_of_the_versions() {
        let policy = DeltaPolicy { depth_max: 32, stride: 8 };
        let depth = |mut generation: u16| {
            let mut depth = 0;
            while generation > 0 {
                generation = policy.base_generation(generation);
                depth += 1;
            }
            depth
        };
        assert_eq!([1, 7, 8, 9, 16, 64, 65, 72].map(|n| policy.base_generation(n)), [0, 6, 0, 8, 8, 0, 64, 64]);
        assert_eq!((depth(7), depth(8), depth(63), depth(64), depth(511)), (7, 1, 14, 1, 21));
    }
}
