//! Chunks from another repository that has the same keys. Their names are the same there, so whole frames are taken over:
//! opened and sealed again for their new pack, but neither compressed nor made into deltas anew.
//!
//! A delta is taken as it is only over bases that lie here, or are going to, at a smaller depth than its own: readers rely on
//! depths that grow (format-spec 06), and this repository may have made the base into a delta of something else. Bases come
//! first, so each is known before what was made of it. What can't be taken so is read, and stored as any new chunk.
//!
//! Every chunk of a frame is compared with its id first, a delta's too: who has a read-only key can seal frames (format-spec 13), and
//! what is signed here must not be theirs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rayon::prelude::*;

use super::ChunkSource;
use super::alignment::Older;
use super::chunk_reader::ChunkReader;
use super::frame_maker::PackedFrame;
use super::index::{ChunkPlace, FramePlace};
use super::index_segment::PackEntry;
use super::pack::{FrameKind, Role};
use super::pack_reader;
use super::repository::Repository;
use super::writer::{Offered, Writer};
use crate::error::{Error, Result};
use crate::id::{ChunkId, PackId};
use crate::observer::{Context, Counter};

/// Sealed bytes that are held at once.
const HELD_LEN: u64 = 32 << 20;
/// Footers that are kept: which chunks a frame holds.
const ENTRY_COUNT_MAX: usize = 64;
/// Depths of chunks that are kept, until the index knows them. What is forgotten costs a delta that is made anew.
const DEPTH_COUNT_MAX: usize = 256 * 1024;
/// A frame is taken whole if no more than one byte in so many of it is not wanted now: it may be next.
const UNWANTED_SHARE: u64 = 4;

/// Takes chunks over from one repository into another with the same keys.
pub struct TakeOver<'t> {
    reader: ChunkReader<'t>,
    source: &'t Repository,
    target: &'t Repository,
    context: Context<'t>,
    entries: HashMap<PackId, Arc<PackEntry>>,
    /// Depths of what was taken over and may not be in the index yet.
    depths: HashMap<ChunkId, u8>,
}

/// A frame that is taken as it is, and all its chunks.
type Whole<'f> = (&'f Family, Vec<(ChunkId, u64)>);

/// Chunks that lie in one frame.
struct Family {
    place: FramePlace,
    wanted: Vec<(ChunkId, ChunkPlace)>,
}

impl<'t> TakeOver<'t> {
    /// From `source` into `target`, which must share their keys.
    #[must_use]
    pub fn new(source: &'t Repository, target: &'t Repository, context: Context<'t>) -> Self {
        let reader = source.reader(context);
        Self { reader, source, target, context, entries: HashMap::new(), depths: HashMap::new() }
    }

    /// Stores `ids`, and what they are deltas of, as far as it is not stored.
    ///
    /// # Errors
    /// `Damaged` when the source has lost one of them, and from both repositories.
    pub fn take(&mut self, ids: &[ChunkId], writer: &mut Writer) -> Result<()> {
        let mut families: Vec<Family> = self.families(ids, writer)?.into_values().collect();
        families.sort_by_key(|family| (family.place.depth(), family.place.pack, family.place.offset));
        let mut rest = families.as_slice();
        while !rest.is_empty() {
            let mut len = 0;
            let depth = rest[0].place.depth();
            let held = rest.iter().take_while(|family| {
                let fits = len < HELD_LEN && family.place.depth() == depth;
                len += family.place.sealed_len;
                fits
            });
            let (now, after) = rest.split_at(held.count());
            rest = after;
            self.take_families(now, writer)?;
        }
        Ok(())
    }

    /// What is lacking of `ids` and their bases, by the frames it lies in.
    fn families(&self, ids: &[ChunkId], writer: &Writer) -> Result<BTreeMap<(PackId, u64), Family>> {
        let mut families: BTreeMap<(PackId, u64), Family> = BTreeMap::new();
        let mut seen = std::collections::HashSet::new();
        let mut open: Vec<ChunkId> = ids.to_vec();
        while !open.is_empty() {
            let mut lacks = writer.lacks(&open)?.into_iter();
            open.retain(|id| lacks.next().unwrap_or(true) && seen.insert(*id));
            let mut bases = Vec::new();
            for (id, place) in open.iter().zip(self.reader.places(&open)?) {
                bases.extend(place.frame.lineage.iter().flat_map(|lineage| lineage.bases.iter().copied()));
                let key = (place.frame.pack, place.frame.offset);
                let family =
                    families.entry(key).or_insert_with(|| Family { place: place.frame.clone(), wanted: Vec::new() });
                family.wanted.push((*id, place));
            }
            open = bases;
        }
        Ok(families)
    }

    fn take_families(&mut self, families: &[Family], writer: &mut Writer) -> Result<()> {
        self.context.go_on()?;
        let mut whole = Vec::new();
        let mut single = Vec::new();
        for family in families {
            match self.chunks_if_whole(family, writer)? {
                Some(chunks) => whole.push((family, chunks)),
                None => single.push(family),
            }
        }
        for (family, frame) in self.frames(&whole)? {
            let Some(frame) = frame else {
                single.push(family);
                continue;
            };
            if self.depths.len() >= DEPTH_COUNT_MAX {
                self.depths.clear();
            }
            self.depths.extend(frame.chunks.iter().map(|(id, _)| (*id, family.place.depth())));
            self.context.count(Counter::BytesNew, frame.plain_len);
            writer.put_frame(family.place.role, frame, &self.context)?;
        }
        single.into_iter().try_for_each(|family| self.take_chunks(family, writer))
    }

    /// The chunks of a frame that can be taken as it is.
    fn chunks_if_whole(&mut self, family: &Family, writer: &Writer) -> Result<Option<Vec<(ChunkId, u64)>>> {
        let place = &family.place;
        let own = || family.wanted.iter().map(|(id, place)| (*id, place.len)).collect::<Vec<_>>();
        if let Some(lineage) = &place.lineage {
            return Ok(self.has_below(&lineage.bases, lineage.depth)?.then(own));
        }
        let wanted_len: u64 = family.wanted.iter().map(|(_, place)| place.len).sum();
        if family.wanted.len() == 1 && wanted_len == place.plain_len {
            return Ok(Some(own()));
        }
        if wanted_len < place.plain_len - place.plain_len / UNWANTED_SHARE {
            return Ok(None);
        }
        let Ok(entry) = self.entry(place.pack) else { return Ok(None) };
        let Some(frame) = entry.frames.iter().find(|frame| frame.offset == place.offset) else { return Ok(None) };
        let ids: Vec<ChunkId> = frame.chunks.iter().map(|(id, _)| *id).collect();
        let is_new = writer.lacks(&ids)?.into_iter().all(|lacking| lacking);
        Ok(is_new.then(|| frame.chunks.clone()))
    }

    /// Whether all of `bases` lie here less deep than a delta of `depth`.
    fn has_below(&self, bases: &[ChunkId], depth: u8) -> Result<bool> {
        let stored = self.target.index().places_not_aside(bases)?;
        Ok(bases.iter().zip(stored).all(|(base, stored)| {
            let stored = stored.map(|place| place.frame.depth());
            stored.or_else(|| self.depths.get(base).copied()).is_some_and(|base| base < depth)
        }))
    }

    fn entry(&mut self, pack: PackId) -> Result<Arc<PackEntry>> {
        if let Some(entry) = self.entries.get(&pack) {
            return Ok(entry.clone());
        }
        let len = self.source.index().pack_len(&pack)?;
        let len = len.ok_or_else(|| Error::damaged(format!("Pack {pack} is missing")))?;
        let entry = Arc::new(self.source.read_pack_entry(pack, len)?);
        if self.entries.len() >= ENTRY_COUNT_MAX {
            self.entries.clear();
        }
        self.entries.insert(pack, entry.clone());
        Ok(entry)
    }

    /// Reads frames, neighbours in one request and on all cores, and unseals them. None for those that can't be had: a prune
    /// may have put their chunks elsewhere.
    fn frames<'f>(&self, whole: &[Whole<'f>]) -> Result<Vec<(&'f Family, Option<PackedFrame>)>> {
        let spans: Vec<(u64, u64)> =
            whole.iter().map(|(family, _)| (family.place.offset, family.place.sealed_len)).collect();
        let mut reads = Vec::new();
        let mut at = 0;
        for pack in whole.chunk_by(|a, b| a.0.place.pack == b.0.place.pack) {
            for (range, count) in pack_reader::coalesce(&spans[at..at + pack.len()]) {
                reads.push((range, &whole[at..at + count]));
                at += count;
            }
        }
        let read = |(range, frames): (std::ops::Range<u64>, &[Whole<'f>])| {
            self.context.go_on()?;
            let start = range.start;
            let bytes = frames.first().map(|(family, _)| self.reader.frames.fetch(&family.place, range));
            let bytes = match bytes {
                Some(Ok(bytes)) => bytes,
                Some(Err(error)) if !error.is_of_one_object() => return Err(error),
                _ => Vec::new(),
            };
            let one = |(family, chunks): &Whole<'f>| {
                let at = usize::try_from(family.place.offset - start).unwrap_or(usize::MAX);
                let len = usize::try_from(family.place.sealed_len).unwrap_or(usize::MAX);
                let sealed = bytes.get(at..at.saturating_add(len));
                (*family, sealed.and_then(|sealed| self.packed(&family.place, chunks, sealed.to_vec())))
            };
            Ok(frames.iter().map(one).collect::<Vec<_>>())
        };
        let read: Vec<Vec<_>> = reads.into_par_iter().map(read).collect::<Result<_>>()?;
        Ok(read.into_iter().flatten().collect())
    }

    /// A frame that holds what its footer says. None if it can't be had.
    fn packed(&self, place: &FramePlace, chunks: &[(ChunkId, u64)], mut sealed: Vec<u8>) -> Option<PackedFrame> {
        let frames = &self.reader.frames;
        let len = frames.unseal(place, &mut sealed).ok()?.len();
        sealed.truncate(len);
        let mut plain = Vec::new();
        frames.unpack(place, &sealed, &mut plain).ok()?;
        if !self.are_right(chunks, &plain) {
            return None;
        }
        if place.lineage.is_none() {
            frames.keep(place, Arc::new(plain));
        }
        Some(PackedFrame {
            kind: FrameKind::from_byte(place.kind),
            plain_len: place.plain_len,
            bytes: sealed,
            chunks: chunks.to_vec(),
            extension: place.extension(),
            features: Vec::new(),
        })
    }

    fn are_right(&self, chunks: &[(ChunkId, u64)], mut plain: &[u8]) -> bool {
        let is_next = |(id, len): &(ChunkId, u64)| {
            let split = usize::try_from(*len).ok().and_then(|len| plain.split_at_checked(len));
            split.is_some_and(|(chunk, rest)| {
                plain = rest;
                self.source.chunk_id(chunk) == *id
            })
        };
        chunks.iter().all(is_next)
    }

    /// Reads what is wanted of a frame, and stores it as any new chunks.
    fn take_chunks(&self, family: &Family, writer: &mut Writer) -> Result<()> {
        let role: Role = family.place.role;
        let older = family.place.lineage.as_ref().map(|lineage| lineage.bases.clone()).unwrap_or_default();
        for (id, _) in &family.wanted {
            self.context.go_on()?;
            let bytes = self.reader.get(id)?;
            let offered = Offered { id: *id, bytes: &bytes, older: Older::Known(older.clone()) };
            let summary = writer.put(role, std::iter::once(offered), &self.context)?;
            self.context.count(Counter::BytesNew, summary.bytes_new);
        }
        Ok(())
    }
}
