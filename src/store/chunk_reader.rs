//! Chunks by id, many at once: looked up in batches, read in pack order, neighbouring frames in one request, decoded on
//! all cores. Every chunk is compared with its id before anybody sees it.
//!
//! A delta is delivered along with the frame at the bottom of its chain: that frame is opened anyway, for the chunks that
//! never changed, and is then at hand as a base.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::ChunkSource;
use super::envelope::HEADER_LEN;
use super::frame_source::{FrameSource, LOOK_COUNT, READ_FRAMES_LEN, may_lie_elsewhere};
use super::index::{ChunkPlace, FramePlace};
use super::pack_reader;
use super::repository::Repository;
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::observer::Context;

/// Ids that are looked up and delivered together: all that a restore asks for at once, some ten MiB of notes. Between two
/// batches a line lies idle, and 4096 small files are less than it carries in a tenth of a second.
const BATCH_COUNT: usize = 16 * 1024;
/// Plain bytes that one thread delivers at once: few enough that all threads have work.
const SHARE_LEN: u64 = 8 << 20;

/// Reads chunks of one repository.
pub struct ChunkReader<'c> {
    pub(super) frames: FrameSource<'c>,
    context: Context<'c>,
}

/// A chunk that is wanted, and by whom.
struct Wanted {
    place: ChunkPlace,
    /// The frame at the bottom of its chain; its own, if it is no delta.
    root: Arc<FramePlace>,
    id: ChunkId,
    position: usize,
}

impl Wanted {
    fn is_in_root(&self) -> bool {
        self.place.frame.lineage.is_none()
    }
}

impl<'c> ChunkReader<'c> {
    pub(super) fn new(repository: Repository, context: Context<'c>) -> Self {
        Self { frames: FrameSource::new(repository, Some(context), READ_FRAMES_LEN), context }
    }

    /// Whether each request costs a way over the network.
    pub fn is_far(&self) -> bool {
        self.frames.repository().storage().is_remote()
    }

    /// Where `ids` lie. What is not known is looked for again after a refresh of the index, and then in the packs.
    pub(super) fn places(&self, ids: &[ChunkId]) -> Result<Vec<ChunkPlace>> {
        let repository = self.frames.repository();
        let index = repository.index();
        let complete = |places: Vec<Option<ChunkPlace>>| places.into_iter().collect::<Option<Vec<_>>>();
        if let Some(places) = complete(index.places(ids)?) {
            return Ok(places);
        }
        repository.refresh(&self.context)?;
        if let Some(places) = complete(index.places(ids)?) {
            return Ok(places);
        }
        repository.learn_packs(&self.context)?;
        let places = index.places(ids)?;
        let missing = places.iter().zip(ids).find(|(place, _)| place.is_none()).map(|(_, id)| *id);
        match missing {
            None => Ok(places.into_iter().flatten().collect()),
            Some(id) => Err(Error::damaged(format!("Chunk {} is in no pack of the repository", id.short()))),
        }
    }

    fn get_once(&self, id: &ChunkId) -> Result<Vec<u8>> {
        let place = self.places(std::slice::from_ref(id))?.remove(0);
        self.chunk_anyhow(id, &place)
    }

    fn chunk<'p>(&self, id: &ChunkId, place: &ChunkPlace, plain: &'p [u8]) -> Result<&'p [u8]> {
        let start = usize::try_from(place.offset).ok();
        let end = usize::try_from(place.offset + place.len).ok();
        let bytes = start.zip(end).and_then(|(start, end)| plain.get(start..end));
        match bytes {
            Some(bytes) if self.frames.repository().inner.keys.chunk_id(bytes) == *id => Ok(bytes),
            _ => Err(Error::damaged(format!(
                "Chunk {} in pack {} is not what its id says",
                id.short(),
                place.frame.pack
            ))),
        }
    }

    /// A chunk by itself, from `place` or, if it can't be read there, from any other.
    fn chunk_anyhow(&self, id: &ChunkId, place: &ChunkPlace) -> Result<Vec<u8>> {
        let read = |place: &ChunkPlace| {
            let plain = self.frames.plain(&place.frame)?;
            self.chunk(id, place, &plain).map(<[u8]>::to_vec)
        };
        let elsewhere = |error| self.frames.another_place(id, place, error, read);
        read(place).or_else(elsewhere).or_else(|error| self.frames.proven_or(id, error))
    }

    /// Delivers chunks one by one, after reading them together failed with `error`.
    fn deliver_anyhow(
        &self,
        wanted: &[Wanted],
        error: Error,
        deliver: &(dyn Fn(usize, &[u8]) -> Result<()> + Sync),
    ) -> Result<()> {
        if !may_lie_elsewhere(&error) {
            return Err(error);
        }
        wanted.iter().try_for_each(|wanted| {
            self.context.go_on()?;
            deliver(wanted.position, &self.chunk_anyhow(&wanted.id, &wanted.place)?)
        })
    }

    /// The frames at the bottom of the chains of `places`, looked up one step of all chains at a time. A base that is not
    /// known is an error when the delta is read.
    fn roots(&self, places: &[ChunkPlace]) -> Result<Vec<Arc<FramePlace>>> {
        let mut roots: Vec<Arc<FramePlace>> = places.iter().map(|place| Arc::new(place.frame.clone())).collect();
        let mut open: Vec<usize> = (0..roots.len()).filter(|n| roots[*n].lineage.is_some()).collect();
        while !open.is_empty() {
            let bases: Vec<ChunkId> =
                open.iter().filter_map(|n| roots[*n].lineage.as_ref().map(|lineage| lineage.bases[0])).collect();
            let found = self.frames.base_places(&bases)?;
            let mut next = Vec::new();
            for (n, place) in open.into_iter().zip(found) {
                let Some(place) = place.filter(|place| place.frame.depth() < roots[n].depth()) else { continue };
                if place.frame.lineage.is_some() {
                    next.push(n);
                }
                roots[n] = Arc::new(place.frame);
            }
            open = next;
        }
        Ok(roots)
    }

    /// Delivers chunks. Where one can't be had, a pack may have been rewritten meanwhile: the index is brought up to date,
    /// and what was not delivered is looked for again.
    fn deliver_batch(
        &self,
        ids: &[ChunkId],
        first: usize,
        deliver: &(dyn Fn(usize, &[u8]) -> Result<()> + Sync),
    ) -> Result<()> {
        let delivered: Vec<AtomicBool> = ids.iter().map(|_| AtomicBool::new(false)).collect();
        let mut left: Vec<usize> = (0..ids.len()).collect();
        for _ in 0..LOOK_COUNT {
            let generation = self.frames.generation();
            let wanted: Vec<ChunkId> = left.iter().map(|n| ids[*n]).collect();
            let note = |position: usize, bytes: &[u8]| {
                deliver(first + left[position], bytes)?;
                delivered[left[position]].store(true, Ordering::Relaxed);
                Ok(())
            };
            match self.deliver_once(&wanted, &note) {
                Err(error) if error.is_of_one_object() && self.frames.refresh(generation, &self.context)? => {}
                other => return other,
            }
            left.retain(|n| !delivered[*n].load(Ordering::Relaxed));
        }
        let wanted: Vec<ChunkId> = left.iter().map(|n| ids[*n]).collect();
        self.deliver_once(&wanted, &|position, bytes| deliver(first + left[position], bytes))
    }

    fn deliver_once(&self, ids: &[ChunkId], deliver: &(dyn Fn(usize, &[u8]) -> Result<()> + Sync)) -> Result<()> {
        let places = self.places(ids)?;
        let roots = self.roots(&places)?;
        let mut wanted: Vec<Wanted> = places
            .into_iter()
            .zip(roots)
            .zip(ids)
            .enumerate()
            .map(|(n, ((place, root), id))| Wanted { place, root, id: *id, position: n })
            .collect();
        wanted.sort_unstable_by_key(|wanted| {
            let frame = &wanted.place.frame;
            (
                wanted.root.pack,
                wanted.root.offset,
                frame.depth(),
                frame.pack,
                frame.offset,
                wanted.place.offset,
                wanted.position,
            )
        });
        let reads = plan_reads(&wanted);
        reads.into_par_iter().try_for_each(|read| self.deliver_read(&wanted[read], deliver))
    }

    /// Reads the root frames of `wanted`, which lie near each other in one pack, and delivers their chunks and what was made
    /// of them.
    fn deliver_read(&self, wanted: &[Wanted], deliver: &(dyn Fn(usize, &[u8]) -> Result<()> + Sync)) -> Result<()> {
        self.context.go_on()?;
        let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else { return Ok(()) };
        // The header is needed as well, and mostly near.
        let start = if first.root.offset <= HEADER_LEN as u64 { 0 } else { first.root.offset };
        let bytes = match self.frames.fetch(&first.root, start..last.root.offset + last.root.sealed_len) {
            Ok(bytes) => bytes,
            Err(error) => return self.deliver_anyhow(wanted, error, deliver),
        };
        if let Some(header) = bytes.get(..HEADER_LEN).filter(|_| start == 0) {
            self.frames.learn_header(first.root.pack, header);
        }
        let mut plain = Vec::new();
        for family in wanted.chunk_by(|a, b| a.root.offset == b.root.offset) {
            let root = &family[0].root;
            let at = usize::try_from(root.offset - start).unwrap_or(usize::MAX);
            let len = usize::try_from(root.sealed_len).unwrap_or(usize::MAX);
            let sealed = bytes.get(at..at.saturating_add(len)).unwrap_or_default().to_vec();
            if let Err(error) = self.frames.open(root, sealed, &mut plain) {
                self.deliver_anyhow(family, error, deliver)?;
                continue;
            }
            let count = family.iter().take_while(|wanted| wanted.is_in_root()).count();
            let (own, deltas) = family.split_at(count);
            self.deliver_frame(own, &plain, deliver)?;
            if deltas.is_empty() {
                continue;
            }
            self.frames.keep(root, Arc::new(std::mem::take(&mut plain)));
            for frame in deltas.chunk_by(|a, b| a.place.frame == b.place.frame) {
                self.context.go_on()?;
                match self.frames.plain_once(&frame[0].place.frame) {
                    Ok(plain) => self.deliver_frame(frame, &plain, deliver)?,
                    Err(error) => self.deliver_anyhow(frame, error, deliver)?,
                }
            }
        }
        Ok(())
    }

    fn deliver_frame(
        &self,
        wanted: &[Wanted],
        plain: &[u8],
        deliver: &(dyn Fn(usize, &[u8]) -> Result<()> + Sync),
    ) -> Result<()> {
        wanted.chunk_by(|a, b| a.id == b.id).try_for_each(|same| {
            let chunk = match self.chunk(&same[0].id, &same[0].place, plain) {
                Ok(chunk) => chunk,
                Err(error) => return self.deliver_anyhow(same, error, deliver),
            };
            same.iter().try_for_each(|wanted| deliver(wanted.position, chunk))
        })
    }
}

/// Groups sorted chunks so that each group is one read of root frames, and not too much work for one thread.
fn plan_reads(wanted: &[Wanted]) -> Vec<std::ops::Range<usize>> {
    let mut reads = Vec::new();
    let mut start = 0;
    for pack in wanted.chunk_by(|a, b| a.root.pack == b.root.pack) {
        let families: Vec<&[Wanted]> = pack.chunk_by(|a, b| a.root.offset == b.root.offset).collect();
        let mut rest = families.as_slice();
        while !rest.is_empty() {
            let mut len = 0;
            let share = rest.iter().take_while(|family| {
                let fits = len < SHARE_LEN;
                len += family[0].root.plain_len + deltas_len(family);
                fits
            });
            let (share, after) = rest.split_at(share.count());
            rest = after;
            let spans: Vec<(u64, u64)> =
                share.iter().map(|family| (family[0].root.offset, family[0].root.sealed_len)).collect();
            let mut share = share.iter();
            for (_, count) in pack_reader::coalesce(&spans) {
                let len: usize = share.by_ref().take(count).map(|family| family.len()).sum();
                reads.push(start..start + len);
                start += len;
            }
        }
    }
    reads
}

fn deltas_len(family: &[Wanted]) -> u64 {
    family.iter().filter(|wanted| !wanted.is_in_root()).map(|wanted| wanted.place.len).sum()
}

impl ChunkSource for ChunkReader<'_> {
    fn get(&self, id: &ChunkId) -> Result<Vec<u8>> {
        for _ in 0..LOOK_COUNT {
            let generation = self.frames.generation();
            match self.get_once(id) {
                Err(error) if error.is_of_one_object() && self.frames.refresh(generation, &self.context)? => {}
                other => return other,
            }
        }
        self.get_once(id)
    }

    fn get_many(&self, ids: &[ChunkId], deliver: &(dyn Fn(usize, &[u8]) -> Result<()> + Sync)) -> Result<()> {
        for (n, batch) in ids.chunks(BATCH_COUNT).enumerate() {
            self.deliver_batch(batch, n * BATCH_COUNT, deliver)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PackId;
    use crate::store::pack::{Lineage, Role};

    fn frame(pack: u8, offset: u64, lineage: Option<Lineage>) -> FramePlace {
        let lineage = lineage.map(Arc::new);
        let pack = PackId::from_bytes([pack; 32]);
        FramePlace { pack, offset, sealed_len: 100, plain_len: 1 << 20, kind: 1, role: Role::Content, lineage }
    }

    fn wanted(frame: FramePlace, root: FramePlace, position: usize) -> Wanted {
        let place = ChunkPlace { frame, offset: 0, len: 1 << 20 };
        Wanted { place, root: Arc::new(root), id: ChunkId::from_bytes([0; 32]), position }
    }

    #[test]
    fn a_family_is_never_split_and_a_share_is_no_more_than_one_thread_should_do() {
        let lineage = Lineage { depth: 1, generation: 1, bases: vec![ChunkId::from_bytes([1; 32])] };
        let list: Vec<Wanted> = (0..40)
            .flat_map(|n| {
                let root = frame(1, 44 + n * 100, None);
                let delta = frame(2, 44 + n * 100, Some(lineage.clone()));
                [wanted(root.clone(), root.clone(), 0), wanted(delta, root, 1)]
            })
            .collect();
        let reads = plan_reads(&list);
        assert!(reads.len() >= 10, "{}", reads.len());
        assert!(reads.iter().all(|read| read.start % 2 == 0 && read.len() <= 10));
        assert_eq!(reads.iter().map(ExactSizeIterator::len).sum::<usize>(), list.len());
    }
}
