//! Chunks by id, many at once: looked up in batches, read in pack order, neighbouring frames in one request, decoded on
//! all cores. Every chunk is compared with its id before anybody sees it.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::ChunkSource;
use super::envelope::HEADER_LEN;
use super::index::{ChunkPlace, FramePlace};
use super::pack::FrameKind;
use super::pack_reader::{self, FrameOpener, PackError};
use super::repository::Repository;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ChunkId, PackId};
use crate::observer::{Context, Counter};
use crate::storage::{ObjectKey, StorageErrorKind};

/// Ids that are looked up and delivered together.
const BATCH_COUNT: usize = 16 * 1024;
/// Plain bytes of recently opened frames that are kept.
const CACHE_LEN: usize = 24 << 20;
/// Packs whose keys are kept.
const OPENER_COUNT_MAX: usize = 4096;

type FrameKey = (PackId, u64);

#[derive(Default)]
struct FrameCache {
    frames: HashMap<FrameKey, Arc<Vec<u8>>>,
    order: VecDeque<FrameKey>,
    len: usize,
}

impl FrameCache {
    fn insert(&mut self, key: FrameKey, plain: Arc<Vec<u8>>) {
        self.len += plain.len();
        if self.frames.insert(key, plain).is_none() {
            self.order.push_back(key);
        }
        while self.len > CACHE_LEN {
            let Some(oldest) = self.order.pop_front() else { return };
            if let Some(plain) = self.frames.remove(&oldest) {
                self.len -= plain.len();
            }
        }
    }
}

/// Reads chunks of one repository.
pub struct ChunkReader<'c> {
    repository: Repository,
    context: Context<'c>,
    cache: Mutex<FrameCache>,
    openers: Mutex<HashMap<PackId, Arc<FrameOpener>>>,
}

/// A chunk that is wanted, and by whom.
struct Wanted {
    place: ChunkPlace,
    id: ChunkId,
    position: usize,
}

impl<'c> ChunkReader<'c> {
    pub(super) fn new(repository: Repository, context: Context<'c>) -> Self {
        Self { repository, context, cache: Mutex::default(), openers: Mutex::default() }
    }

    /// Where `ids` lie. What is not known is looked for again after a refresh of the index, and then in the packs.
    fn places(&self, ids: &[ChunkId]) -> Result<Vec<ChunkPlace>> {
        let index = self.repository.index();
        let complete = |places: Vec<Option<ChunkPlace>>| places.into_iter().collect::<Option<Vec<_>>>();
        if let Some(places) = complete(index.places(ids)?) {
            return Ok(places);
        }
        self.repository.refresh(&self.context)?;
        if let Some(places) = complete(index.places(ids)?) {
            return Ok(places);
        }
        self.repository.learn_packs(&self.context)?;
        let places = index.places(ids)?;
        let missing = places.iter().zip(ids).find(|(place, _)| place.is_none()).map(|(_, id)| *id);
        match missing {
            None => Ok(places.into_iter().flatten().collect()),
            Some(id) => Err(Error::damaged(format!("Chunk {} is in no pack of the repository", id.short()))),
        }
    }

    fn opener(&self, pack: PackId) -> Result<Arc<FrameOpener>> {
        let mut openers = self.openers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opener) = openers.get(&pack) {
            return Ok(opener.clone());
        }
        let header = self
            .repository
            .storage()
            .get_range(&ObjectKey::Pack(pack), 0..HEADER_LEN as u64)
            .map_err(|cause| unreadable(pack, cause))?;
        let opener = FrameOpener::new(&header, &self.repository.inner.keys)
            .map_err(|cause| Error::stored(format!("The header of pack {pack}"), cause.is_newer()).cause(cause))?;
        let opener = Arc::new(opener);
        if openers.len() >= OPENER_COUNT_MAX {
            openers.clear();
        }
        openers.insert(pack, opener.clone());
        Ok(opener)
    }

    fn open_frame(&self, place: &FramePlace, sealed: Vec<u8>, plain: &mut Vec<u8>) -> Result<()> {
        let unreadable = |cause: PackError| {
            Error::stored(format!("Byte {} of pack {}", place.offset, place.pack), cause.is_newer()).cause(cause)
        };
        let kind = FrameKind::from_byte(place.kind);
        self.context.count(Counter::BytesFetched, sealed.len() as u64);
        self.opener(place.pack)?.open(place.offset, kind, place.plain_len, sealed, plain).map_err(unreadable)
    }

    fn chunk<'p>(&self, wanted: &Wanted, plain: &'p [u8]) -> Result<&'p [u8]> {
        let start = usize::try_from(wanted.place.offset).ok();
        let end = usize::try_from(wanted.place.offset + wanted.place.len).ok();
        let bytes = start.zip(end).and_then(|(start, end)| plain.get(start..end));
        match bytes {
            Some(bytes) if self.repository.inner.keys.chunk_id(bytes) == wanted.id => Ok(bytes),
            _ => Err(Error::damaged(format!(
                "Chunk {} in pack {} is not what its id says",
                wanted.id.short(),
                wanted.place.frame.pack
            ))),
        }
    }

    fn deliver_batch(
        &self,
        ids: &[ChunkId],
        first: usize,
        deliver: &(dyn Fn(usize, &[u8]) -> Result<()> + Sync),
    ) -> Result<()> {
        let places = self.places(ids)?;
        let mut wanted: Vec<Wanted> = places
            .into_iter()
            .zip(ids)
            .enumerate()
            .map(|(n, (place, id))| Wanted { place, id: *id, position: first + n })
            .collect();
        wanted.sort_unstable_by_key(|wanted| {
            (wanted.place.frame.pack, wanted.place.frame.offset, wanted.place.offset, wanted.position)
        });
        let reads = plan_reads(&wanted);
        reads.into_par_iter().try_for_each(|read| self.deliver_read(&wanted[read], deliver))
    }

    /// Reads the frames of `wanted`, which lie near each other in one pack, and delivers their chunks.
    fn deliver_read(&self, wanted: &[Wanted], deliver: &(dyn Fn(usize, &[u8]) -> Result<()> + Sync)) -> Result<()> {
        self.context.go_on()?;
        let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else { return Ok(()) };
        let pack = first.place.frame.pack;
        let start = first.place.frame.offset;
        let end = last.place.frame.offset + last.place.frame.sealed_len;
        let bytes = self.fetch(pack, start..end)?;
        let mut plain = Vec::new();
        for frame in wanted.chunk_by(|a, b| a.place.frame == b.place.frame) {
            let place = &frame[0].place.frame;
            let at = usize::try_from(place.offset - start).unwrap_or(usize::MAX);
            let len = usize::try_from(place.sealed_len).unwrap_or(usize::MAX);
            let sealed = bytes.get(at..at.saturating_add(len)).unwrap_or_default().to_vec();
            self.open_frame(place, sealed, &mut plain)?;
            for same in frame.chunk_by(|a, b| a.id == b.id) {
                let chunk = self.chunk(&same[0], &plain)?;
                same.iter().try_for_each(|wanted| deliver(wanted.position, chunk))?;
            }
        }
        Ok(())
    }

    fn fetch(&self, pack: PackId, range: std::ops::Range<u64>) -> Result<Vec<u8>> {
        self.context.count(Counter::ObjectsRead, 1);
        self.repository.storage().get_range(&ObjectKey::Pack(pack), range).map_err(|cause| unreadable(pack, cause))
    }
}

/// A pack that is missing or too short is damage; anything else is the storage's failure.
fn unreadable(pack: PackId, cause: crate::storage::StorageError) -> Error {
    match cause.kind() {
        StorageErrorKind::NotFound => Error::damaged(format!("Pack {pack} is missing")).cause(cause),
        StorageErrorKind::OutOfRange => Error::damaged(format!("Pack {pack} is truncated")).cause(cause),
        _ => Error::new(ErrorKind::Storage, format!("Pack {pack} can't be read")).cause(cause),
    }
}

/// Groups sorted chunks so that each group is one read.
fn plan_reads(wanted: &[Wanted]) -> Vec<std::ops::Range<usize>> {
    let mut reads = Vec::new();
    let mut start = 0;
    for pack in wanted.chunk_by(|a, b| a.place.frame.pack == b.place.frame.pack) {
        let frames: Vec<&[Wanted]> = pack.chunk_by(|a, b| a.place.frame == b.place.frame).collect();
        let spans: Vec<(u64, u64)> =
            frames.iter().map(|frame| (frame[0].place.frame.offset, frame[0].place.frame.sealed_len)).collect();
        let mut frames = frames.into_iter();
        for (_, count) in pack_reader::coalesce(&spans) {
            let len: usize = frames.by_ref().take(count).map(<[Wanted]>::len).sum();
            reads.push(start..start + len);
            start += len;
        }
    }
    reads
}

impl ChunkSource for ChunkReader<'_> {
    fn get(&self, id: &ChunkId) -> Result<Vec<u8>> {
        let place = self.places(std::slice::from_ref(id))?.remove(0);
        let key = (place.frame.pack, place.frame.offset);
        let cached = self.cache.lock().unwrap_or_else(PoisonError::into_inner).frames.get(&key).cloned();
        let plain = if let Some(plain) = cached {
            plain
        } else {
            let sealed =
                self.fetch(place.frame.pack, place.frame.offset..place.frame.offset + place.frame.sealed_len)?;
            let mut plain = Vec::new();
            self.open_frame(&place.frame, sealed, &mut plain)?;
            let plain = Arc::new(plain);
            self.cache.lock().unwrap_or_else(PoisonError::into_inner).insert(key, plain.clone());
            plain
        };
        self.chunk(&Wanted { place, id: *id, position: 0 }, &plain).map(<[u8]>::to_vec)
    }

    fn get_many(&self, ids: &[ChunkId], deliver: &(dyn Fn(usize, &[u8]) -> Result<()> + Sync)) -> Result<()> {
        for (n, batch) in ids.chunks(BATCH_COUNT).enumerate() {
            self.deliver_batch(batch, n * BATCH_COUNT, deliver)?;
        }
        Ok(())
    }
}
