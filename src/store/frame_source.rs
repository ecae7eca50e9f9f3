//! Plain frames out of packs: fetched, opened, kept for a while; deltas resolved down to the frames that hold their bases.

mod proven;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use super::envelope::HEADER_LEN;
use super::index::{ChunkPlace, FramePlace};
use super::pack::{BASE_LEN_MAX, FrameKind, Lineage, Role};
use super::pack_reader::{self, FrameOpener, PackError};
use super::repository::Repository;
use super::rights;
use super::spans::{FrameKey, Recent, Spans};
use crate::compress;
use crate::delta::{Rope, Run};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ChunkId, PackId};
use crate::observer::{Context, Counter, Problem};
use crate::pipeline::lock;
use crate::storage::{ObjectKey, StorageError, StorageErrorKind};

/// Plain bytes of recently opened frames that are kept: for readers, who jump ...
pub const READ_FRAMES_LEN: usize = 16 << 20;
/// ... and for writers, who look for the bases of a stream one after the other.
pub const WRITE_FRAMES_LEN: usize = 8 << 20;
/// Sealed bytes around recently fetched delta frames that are kept ...
const SPANS_LEN: usize = 2 << 20;
/// ... and around all frames where the storage is far away: what eight threads fetch ahead of need, and what they did before.
const FAR_SPANS_LEN: usize = 16 << 20;
/// A delta frame is fetched with so many bytes that follow it: what comes next is likely to be needed next.
const SPAN_LEN: u64 = 64 << 10;
/// From far away everything but long reads is fetched in pieces like this: at 100 MB/s and 20 ms there and back they take as long as
/// the way.
const FAR_SPAN_LEN: u64 = 512 << 10;
/// Packs whose keys are kept.
const OPENER_COUNT_MAX: usize = 4096;
/// How often it is looked again for what is not where it should be. A listing may miss what moves while it runs, so once is
/// not enough beside two runs that reclaim, and one more is.
pub const LOOK_COUNT: u32 = 3;
/// Bases whose places are kept.
const PLACE_COUNT_MAX: usize = 16 * 1024;

/// Frames that can't be read and are remembered.
const UNREADABLE_COUNT_MAX: usize = 64 * 1024;

/// The base of a delta.
pub struct Base {
    /// Its chunks, one after the other.
    pub bytes: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
}

impl Base {
    /// How many bytes the `runs` copy out of each chunk; in which chunk the longest of them begins, and how much further
    /// back it lies there than in the target.
    pub fn usage(&self, runs: &[Run]) -> (Vec<usize>, (usize, i64)) {
        let mut used = vec![0; self.ends.len()];
        let mut aligned = (0, 0);
        let mut longest = 0;
        for run in runs {
            let mut at = run.base;
            while at < run.base + run.len {
                let number = self.ends.partition_point(|end| *end <= at);
                let Some(end) = self.ends.get(number) else { break };
                let len = (run.base + run.len).min(*end) - at;
                used[number] += len;
                if len > longest {
                    longest = len;
                    let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
                    aligned = (number, signed(at - start) - signed(run.target + (at - run.base)));
                }
                at += len;
            }
        }
        (used, aligned)
    }
}

fn signed(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// What bringing the index up to date has been good for.
#[derive(Default)]
struct Refreshing {
    generation: u64,
    /// The last so many times it changed nothing.
    in_vain_count: u32,
}

/// Reads frames of one repository.
pub struct FrameSource<'c> {
    repository: Repository,
    /// Counts what is read, if anybody wants to know; a writer does not, and takes no base that is on its way out.
    context: Option<Context<'c>>,
    openers: Mutex<HashMap<PackId, Arc<FrameOpener>>>,
    frames: Mutex<Recent>,
    spans: Spans,
    /// Each request costs a way over the network.
    is_far: bool,
    places: Mutex<HashMap<ChunkId, ChunkPlace>>,
    /// Frames that were wanted for bases in vain.
    unreadable: Mutex<HashSet<FrameKey>>,
    /// Chunks, by frame and offset in it, that are something else than they should.
    hollow: Mutex<HashSet<(PackId, u64, u64)>>,
    /// Packs for which others stood in.
    told: Mutex<HashSet<PackId>>,
    /// Held while the index is brought up to date.
    refreshing: Mutex<Refreshing>,
}

impl<'c> FrameSource<'c> {
    pub(super) fn new(repository: Repository, context: Option<Context<'c>>, frames_len: usize) -> Self {
        let is_far = repository.storage().is_remote();
        Self {
            repository,
            context,
            openers: Mutex::default(),
            frames: Mutex::new(Recent::new(frames_len)),
            spans: Spans::new(if is_far { FAR_SPANS_LEN } else { SPANS_LEN }),
            is_far,
            places: Mutex::default(),
            unreadable: Mutex::default(),
            hollow: Mutex::default(),
            told: Mutex::default(),
            refreshing: Mutex::default(),
        }
    }

    pub(super) fn repository(&self) -> &Repository {
        &self.repository
    }

    fn count(&self, counter: Counter, n: u64) {
        if let Some(context) = &self.context {
            context.count(counter, n);
        }
    }

    fn opener(&self, place: &FramePlace) -> Result<Arc<FrameOpener>> {
        if let Some(opener) = lock(&self.openers).get(&place.pack) {
            return Ok(opener.clone());
        }
        let header = 0..HEADER_LEN as u64;
        let header =
            if self.is_spanned(place) { self.part(place, header)? } else { self.fetch_uncounted(place, header)? };
        self.new_opener(place.pack, &header)
    }

    /// Takes in the header of a pack that was read with something else. One that is none is read again by who needs it.
    pub(super) fn learn_header(&self, pack: PackId, header: &[u8]) {
        if !lock(&self.openers).contains_key(&pack) {
            let _is_read_again = self.new_opener(pack, header);
        }
    }

    fn new_opener(&self, pack: PackId, header: &[u8]) -> Result<Arc<FrameOpener>> {
        let opener = FrameOpener::new(header, &self.repository.inner.keys).map_err(|cause| match cause {
            PackError::NoKey => rights::cannot_read(),
            cause => Error::stored(format!("The header of pack {pack}"), cause.is_newer()).cause(cause),
        })?;
        let opener = Arc::new(opener);
        let mut openers = lock(&self.openers);
        if openers.len() >= OPENER_COUNT_MAX {
            openers.clear();
        }
        openers.insert(pack, opener.clone());
        Ok(opener)
    }

    /// Reads a part of the pack in which `place` is.
    pub(super) fn fetch(&self, place: &FramePlace, range: Range<u64>) -> Result<Vec<u8>> {
        self.count(Counter::ObjectsRead, 1);
        self.fetch_uncounted(place, range)
    }

    /// A part of a pack of trees out of a copy, which is made if there is none: who reads one tree is going to read others,
    /// now and in the next night.
    fn copied(&self, key: &ObjectKey, range: Range<u64>) -> Option<Vec<u8>> {
        let copies = self.repository.inner.copies.as_ref().filter(|copies| copies.are_used())?;
        if let Some(part) = copies.get_range(key, range.clone()) {
            return Some(part);
        }
        // What is wrong with the pack itself is found where it is read without a copy.
        copies.keep(key, &self.repository.storage().get(key).ok()?);
        copies.get_range(key, range)
    }

    /// Where the storage can't give a part, because it was cut off or lies on a bad sector, parity may.
    fn fetch_uncounted(&self, place: &FramePlace, range: Range<u64>) -> Result<Vec<u8>> {
        let pack = place.pack;
        let key = ObjectKey::Pack(pack);
        if place.role == Role::Tree
            && let Some(part) = self.copied(&key, range.clone())
        {
            return Ok(part);
        }
        let read = self.repository.storage().get_range(&key, range.clone());
        let cause = match read {
            Ok(bytes) => return Ok(bytes),
            Err(cause) => cause,
        };
        if matches!(cause.kind(), StorageErrorKind::OutOfRange | StorageErrorKind::Other)
            && let Some(part) = self.healed(pack, range)
        {
            return Ok(part.1);
        }
        Err(unreadable(pack, cause))
    }

    /// Header and a part of a damaged pack that was healed.
    fn healed(&self, pack: PackId, range: Range<u64>) -> Option<(Vec<u8>, Vec<u8>)> {
        let bytes = self.repository.healed_pack(pack, self.context.as_ref())?;
        let range = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
        Some((bytes.get(..HEADER_LEN)?.to_vec(), bytes.get(range)?.to_vec()))
    }

    /// What was sealed of a frame whose bytes are at hand. If these, or the header of the pack, are not what was written, the
    /// pack is healed.
    pub(super) fn unseal<'s>(&self, place: &FramePlace, sealed: &'s mut Vec<u8>) -> Result<&'s [u8]> {
        self.count(Counter::BytesFetched, sealed.len() as u64);
        let opened = self.opener(place).and_then(|opener| try_unseal(&opener, place, sealed));
        let len = match opened {
            Ok(len) => len,
            Err(error) => {
                let range = place.offset..place.offset + place.sealed_len;
                let Some((header, part)) = self.healed(place.pack, range) else { return Err(error) };
                *sealed = part;
                try_unseal(&*self.new_opener(place.pack, &header)?, place, sealed)?
            }
        };
        Ok(&sealed[..len])
    }

    /// Opens a frame whose sealed bytes are at hand.
    pub(super) fn open(&self, place: &FramePlace, mut sealed: Vec<u8>, plain: &mut Vec<u8>) -> Result<()> {
        let body = self.unseal(place, &mut sealed)?;
        self.unpack(place, body, plain)
    }

    /// The plain text of a frame out of what was unsealed.
    pub(super) fn unpack(&self, place: &FramePlace, body: &[u8], plain: &mut Vec<u8>) -> Result<()> {
        match &place.lineage {
            Some(lineage) => *plain = self.patched(place, lineage, body)?.to_vec(),
            None => pack_reader::unpack(FrameKind::from_byte(place.kind), place.plain_len, body, plain)
                .map_err(|cause| unusable(place, cause))?,
        }
        Ok(())
    }

    /// The plain text of a frame, which is kept for a while.
    pub(super) fn plain(&self, place: &FramePlace) -> Result<Arc<Vec<u8>>> {
        if let Some(plain) = self.kept(place) {
            return Ok(plain);
        }
        let plain = Arc::new(self.plain_once(place)?);
        self.keep(place, plain.clone());
        Ok(plain)
    }

    /// The plain text of a frame that nobody is going to ask for again soon.
    pub(super) fn plain_once(&self, place: &FramePlace) -> Result<Vec<u8>> {
        let sealed = self.sealed(place)?;
        let mut plain = Vec::new();
        self.open(place, sealed, &mut plain)?;
        Ok(plain)
    }

    fn kept(&self, place: &FramePlace) -> Option<Arc<Vec<u8>>> {
        lock(&self.frames).get(&(place.pack, place.offset))
    }

    /// The plain text of a frame, as parts of what it was made of.
    fn rope(&self, place: &FramePlace) -> Result<Rope> {
        match &place.lineage {
            Some(lineage) => {
                if let Some(plain) = self.kept(place) {
                    return Ok(Rope::of(plain));
                }
                let mut sealed = self.sealed(place)?;
                let body = self.unseal(place, &mut sealed)?;
                self.patched(place, lineage, body)
            }
            None => Ok(Rope::of(self.plain(place)?)),
        }
    }

    fn patched(&self, place: &FramePlace, lineage: &Lineage, body: &[u8]) -> Result<Rope> {
        let plain_len = usize::try_from(place.plain_len).unwrap_or(usize::MAX);
        let delta = compress::decompress_up_to(body, plain_len).map_err(|cause| unusable(place, cause.into()))?;
        let (base, _) = self.base_rope(lineage)?;
        base.patched(Arc::new(delta), plain_len).map_err(|cause| unusable(place, cause.into()))
    }

    /// Keeps a frame that was opened elsewhere.
    pub(super) fn keep(&self, place: &FramePlace, plain: Arc<Vec<u8>>) {
        lock(&self.frames).insert((place.pack, place.offset), plain);
    }

    fn sealed(&self, place: &FramePlace) -> Result<Vec<u8>> {
        let end = place.offset + place.sealed_len;
        if self.is_spanned(place) {
            return self.part(place, place.offset..end);
        }
        if place.lineage.is_none() || place.sealed_len > SPAN_LEN {
            return self.fetch(place, place.offset..end);
        }
        // Spans begin at multiples of their length and overlap by one, so that each small frame is whole in one of them.
        let start = place.offset / SPAN_LEN * SPAN_LEN;
        let span = self.spans.get((place.pack, start), || {
            let len = self.repository.index().pack_len(&place.pack)?.unwrap_or(end);
            self.fetch(place, start..len.min(start + 2 * SPAN_LEN).max(end))
        })?;
        let at = usize::try_from(place.offset - start).unwrap_or(usize::MAX);
        let len = usize::try_from(place.sealed_len).unwrap_or(usize::MAX);
        Ok(span.get(at..at.saturating_add(len)).unwrap_or_default().to_vec())
    }

    /// Whether what is read of a pack is read in spans. Packs of trees have copies here.
    fn is_spanned(&self, place: &FramePlace) -> bool {
        self.is_far && place.role == Role::Content
    }

    /// A part of a far pack, out of the spans in which it lies.
    fn part(&self, place: &FramePlace, range: Range<u64>) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or(0));
        let mut at = range.start;
        while at < range.end {
            let start = at / FAR_SPAN_LEN * FAR_SPAN_LEN;
            let span = self.spans.get((place.pack, start), || {
                let len = self.repository.index().pack_len(&place.pack)?.unwrap_or(range.end);
                self.fetch(place, start..len.min(start + FAR_SPAN_LEN).max(at + 1))
            })?;
            let end = range.end.min(start + span.len() as u64);
            let within = usize::try_from(at - start).ok().zip(usize::try_from(end - start).ok());
            let part = within.and_then(|(from, to)| span.get(from..to)).filter(|part| !part.is_empty());
            // A pack that is shorter than the index says is damaged where it ends.
            let Some(part) = part else { return self.fetch(place, range) };
            bytes.extend_from_slice(part);
            at = end;
        }
        Ok(bytes)
    }

    /// Fetches what a delta over `lineage` needs from far away, so that it is here when it is made. What can't be had is told of
    /// then.
    pub(super) fn fetch_ahead(&self, lineage: &Lineage) {
        for place in self.base_places(&lineage.bases).into_iter().flatten().flatten() {
            let place = place.frame;
            if place.depth() >= lineage.depth || self.kept(&place).is_some() {
                continue;
            }
            if self.is_spanned(&place) {
                let _told_later = self.part(&place, place.offset..place.offset + place.sealed_len);
            }
            if let Some(below) = &place.lineage {
                self.fetch_ahead(below);
            }
        }
    }

    /// Where bases lie, as far as the index knows.
    pub(super) fn base_places(&self, ids: &[ChunkId]) -> Result<Vec<Option<ChunkPlace>>> {
        let mut places = lock(&self.places);
        let unknown: Vec<ChunkId> = ids.iter().filter(|id| !places.contains_key(*id)).copied().collect();
        if places.len() + unknown.len() > PLACE_COUNT_MAX {
            places.clear();
            return self.look_up(ids);
        }
        if !unknown.is_empty() {
            let found = self.look_up(&unknown)?;
            places.extend(unknown.into_iter().zip(found).filter_map(|(id, place)| place.map(|place| (id, place))));
        }
        Ok(ids.iter().map(|id| places.get(id).cloned()).collect())
    }

    fn look_up(&self, ids: &[ChunkId]) -> Result<Vec<Option<ChunkPlace>>> {
        let index = self.repository.index();
        if self.context.is_some() { index.places(ids) } else { index.places_not_aside(ids) }
    }

    /// How often the index was brought up to date.
    pub(super) fn generation(&self) -> u64 {
        lock(&self.refreshing).generation
    }

    /// Brings the index up to date with what is stored now, because something was not where it should be by what was known
    /// in `generation`. False if that is of no use: what is damaged stays damaged.
    pub(super) fn refresh(&self, generation: u64, context: &Context<'_>) -> Result<bool> {
        let mut refreshing = lock(&self.refreshing);
        if refreshing.generation == generation && refreshing.in_vain_count < LOOK_COUNT {
            let before = self.repository.index().totals()?;
            self.repository.settle(context)?;
            lock(&self.places).clear();
            lock(&self.unreadable).clear();
            lock(&self.hollow).clear();
            if self.repository.index().totals()? == before {
                refreshing.in_vain_count += 1;
            } else {
                refreshing.in_vain_count = 0;
            }
            refreshing.generation += 1;
        }
        Ok(refreshing.generation != generation)
    }

    /// The base of a delta, as parts of what that was made of, and where each of its chunks ends. Each is read from a frame
    /// of a smaller depth, so this comes to an end.
    fn base_rope(&self, lineage: &Lineage) -> Result<(Rope, Vec<usize>)> {
        let mut places = self.base_places(&lineage.bases)?;
        let is_sound =
            |place: &Option<ChunkPlace>| place.as_ref().is_some_and(|place| place.frame.depth() < lineage.depth);
        if let Some(context) = self.context.filter(|_| !places.iter().all(is_sound)) {
            // The delta became known before its base, or before the place of it that the delta was made from.
            self.refresh(self.generation(), &context)?;
            places = self.base_places(&lineage.bases)?;
        }
        let mut base = Rope::default();
        let mut ends = Vec::with_capacity(lineage.bases.len());
        for (id, place) in lineage.bases.iter().zip(places) {
            let place = place
                .filter(|place| place.frame.depth() < lineage.depth)
                .ok_or_else(|| Error::damaged(format!("Chunk {}, the base of a delta, is in no pack", id.short())))?;
            if base.len() as u64 + place.len > BASE_LEN_MAX {
                return Err(Error::damaged("The base of a delta is longer than the format allows"));
            }
            self.append_base(id, &place, &mut base).or_else(|error| {
                let sound = |place: &ChunkPlace| place.frame.depth() < lineage.depth;
                self.another_place(id, &place, error, |place| {
                    if sound(place) { self.append_base(id, place, &mut base) } else { Err(Error::damaged("too deep")) }
                })
            })?;
            ends.push(base.len());
        }
        Ok((base, ends))
    }

    /// Appends a chunk that lies at `place` to a base; not at all if it can't be read.
    fn append_base(&self, id: &ChunkId, place: &ChunkPlace, base: &mut Rope) -> Result<()> {
        let key = (place.frame.pack, place.frame.offset);
        // Known from before: with several places of each base, looking everywhere each time would never end.
        if lock(&self.unreadable).contains(&key) {
            return Err(Error::damaged(format!("Chunk {} can't be read", id.short())));
        }
        let frame = self.rope(&place.frame).inspect_err(|error| {
            let mut unreadable = lock(&self.unreadable);
            if error.is_of_one_object() && unreadable.len() < UNREADABLE_COUNT_MAX {
                unreadable.insert(key);
            }
        })?;
        let range = usize::try_from(place.offset).ok().zip(usize::try_from(place.offset + place.len).ok());
        match range {
            Some((start, end)) if end <= frame.len() => base.append(&frame, start..end),
            _ => return Err(Error::damaged(format!("Chunk {} is not where the index says", id.short()))),
        }
        Ok(())
    }

    /// Does with another place of a chunk what can't be done with `place`, because of `error`: a chunk may be stored twice.
    /// Not for writers, who must not rely on a base that is damaged where it is going to stay.
    pub(super) fn another_place<R>(
        &self,
        id: &ChunkId,
        place: &ChunkPlace,
        error: Error,
        mut act: impl FnMut(&ChunkPlace) -> Result<R>,
    ) -> Result<R> {
        if self.context.is_none() || !may_lie_elsewhere(&error) {
            return Err(error);
        }
        for other in self.repository.index().all_places(id)?.iter().filter(|other| *other != place) {
            match act(other) {
                Err(next) if may_lie_elsewhere(&next) => {}
                done => {
                    if done.is_ok() {
                        self.tell(place.frame.pack, &error)?;
                    }
                    return done;
                }
            }
        }
        Err(error)
    }

    /// A pack is damaged, and the observer hears of it once. One that is gone may have been given back or lost: which of them
    /// is told when the index hears of it.
    fn tell(&self, pack: PackId, error: &Error) -> Result<()> {
        if let Some(context) = self.context.filter(|_| lock(&self.told).insert(pack)) {
            if self.repository.storage().len(&ObjectKey::Pack(pack)).is_err() {
                return self.repository.settle(&context).map(drop);
            }
            let message = format!("Other copies of chunks in it were used. {}", error.chain());
            context.observer.problem(Problem::new(ObjectKey::Pack(pack).path(), message));
        }
        Ok(())
    }

    /// The base of a delta, each chunk of it compared with its id.
    pub(super) fn base(&self, lineage: &Lineage) -> Result<Base> {
        let (base, ends) = self.base_rope(lineage)?;
        let mut bytes = base.to_vec();
        let mut start = 0;
        for (id, end) in lineage.bases.iter().zip(&ends) {
            let chunk = &mut bytes[start..*end];
            if self.repository.chunk_id(chunk) != *id {
                let proven = self.proven_or(id, wrong(id))?;
                if proven.len() != chunk.len() {
                    return Err(wrong(id));
                }
                chunk.copy_from_slice(&proven);
            }
            start = *end;
        }
        Ok(Base { bytes, ends })
    }
}

/// Opens `sealed` in place and says how long what was sealed is, which begins at the front.
fn try_unseal(opener: &FrameOpener, place: &FramePlace, sealed: &mut [u8]) -> Result<usize> {
    let kind = FrameKind::from_byte(place.kind);
    opener
        .unseal(place.offset, kind, place.plain_len, &place.extension(), sealed)
        .map(<[u8]>::len)
        .map_err(|cause| unusable(place, cause))
}

fn wrong(id: &ChunkId) -> Error {
    Error::damaged(format!("Chunk {} is not what its id says", id.short()))
}

fn unusable(place: &FramePlace, cause: PackError) -> Error {
    Error::stored(format!("Byte {} of pack {}", place.offset, place.pack), cause.is_newer()).cause(cause)
}

/// Whether a chunk that could not be read because of `error` is worth looking for in another pack.
pub(super) fn may_lie_elsewhere(error: &Error) -> bool {
    error.is_of_one_object() || error.kind() == ErrorKind::Storage
}

/// A pack that is missing or too short is damage; anything else is the storage's failure.
fn unreadable(pack: PackId, cause: StorageError) -> Error {
    match cause.kind() {
        StorageErrorKind::NotFound => Error::damaged(format!("Pack {pack} is missing")).cause(cause),
        StorageErrorKind::OutOfRange => Error::damaged(format!("Pack {pack} is truncated")).cause(cause),
        _ => Error::new(ErrorKind::Storage, format!("Pack {pack} can't be read")).cause(cause),
    }
}
