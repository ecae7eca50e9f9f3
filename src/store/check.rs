//! Checking what is stored, below trees: segments, footers, and on demand every byte of every pack.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use rayon::prelude::*;

use super::envelope::HEADER_LEN;
use super::frame_source::{FrameSource, READ_FRAMES_LEN};
use super::heal::{self, Verdict};
use super::index::ChunkPlace;
use super::index_segment::PackEntry;
use super::pack::{Frame, FrameKind, Lineage, Role};
use super::pack_reader::{self, FrameOpener, PackError};
use super::repository::Repository;
use crate::error::{Error, Result};
use crate::id::PackId;
use crate::observer::{Context, Counter, Problem};
use crate::pipeline::lock;
use crate::storage::{Listed, ObjectKey, ObjectKind, StorageErrorKind};

/// Which packs to read whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DataSubset {
    /// None: structure only.
    Nothing,
    /// Every one.
    All,
    /// The `n`-th of `of` parts, counted from 1: all parts together are all packs.
    Part {
        /// Which part.
        n: u64,
        /// Of how many.
        of: u64,
    },
    /// About so many hundredths, those first that were not read for the longest time.
    Percent(f64),
    /// About so many bytes, those first that were not read for the longest time.
    Bytes(u64),
}

impl DataSubset {
    /// Reads `n/t`, `P%` or a size such as `500MiB`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some((n, of)) = text.split_once('/') {
            let (n, of) = (n.trim().parse().ok()?, of.trim().parse().ok()?);
            return (n >= 1 && n <= of).then_some(Self::Part { n, of });
        }
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.trim().parse().ok()?;
            return (percent > 0.0 && percent <= 100.0).then_some(Self::Percent(percent));
        }
        crate::units::parse_size(text).filter(|bytes| *bytes > 0).map(Self::Bytes)
    }

    /// The packs to read, of all `packs`: where it is a share of them, those that were not `verified` for the longest time,
    /// so that all get their turn.
    #[must_use]
    pub fn choose<S: std::hash::BuildHasher>(
        self,
        packs: Vec<Listed>,
        verified: &HashMap<PackId, i64, S>,
    ) -> Vec<Listed> {
        let number = |row: &Listed| {
            let hash = blake3::hash(row.key.path().as_bytes());
            u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a hash is longer than eight bytes"))
        };
        let oldest_first = |mut packs: Vec<Listed>| {
            packs.sort_by_key(|row| (pack_id(&row.key).and_then(|id| verified.get(&id).copied()), number(row)));
            packs
        };
        match self {
            Self::Nothing => Vec::new(),
            Self::All => packs,
            Self::Part { n, of } => packs.into_iter().filter(|row| number(row) % of == n - 1).collect(),
            Self::Percent(percent) => {
                #[expect(
                    clippy::cast_precision_loss,
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a share of a few packs more or less"
                )]
                let count = (packs.len() as f64 * percent / 100.0).ceil() as usize;
                oldest_first(packs).into_iter().take(count).collect()
            }
            Self::Bytes(bytes) => {
                let mut left = bytes;
                let wanted = |row: &Listed| {
                    let wanted = left > 0;
                    left = left.saturating_sub(row.len);
                    wanted
                };
                oldest_first(packs).into_iter().take_while(wanted).collect()
            }
        }
    }
}

/// Checks every key, segment and footer, and every byte of the chosen packs. What is wrong goes to the observer.
///
/// # Errors
/// When the storage can't be read at all.
pub fn run(repository: &Repository, subset: DataSubset, context: &Context<'_>) -> Result<()> {
    repository.bypass_copies();
    context.observer.stage("Checking keys and index");
    repository.check_keys(context)?;
    // Tells of packs that segments list and that are not there, and forgets them: what snapshots need of them is missing
    // from now on.
    repository.settle(context)?;
    let packs = repository.storage().list(ObjectKind::Pack)?;
    let present: HashSet<PackId> = packs.iter().filter_map(|row| pack_id(&row.key)).collect();
    context.observer.stage("Checking packs");
    packs.par_iter().try_for_each(|row| check_footer(repository, row, &present, context))?;
    let chosen = subset.choose(packs, &repository.index().verified()?);
    if chosen.is_empty() {
        return Ok(());
    }
    context.observer.stage("Reading packs");
    context.observer.expect(chosen.iter().map(|row| row.len).sum(), chosen.len() as u64);
    let frames = FrameSource::new(repository.clone(), Some(*context), READ_FRAMES_LEN);
    let verified = Mutex::default();
    let checked = chosen.par_iter().try_for_each(|row| check_data(repository, &frames, row, &verified, context));
    // Whatever ended it, what was read is not the first to be read the next time.
    let noted = repository.index().note_verified(&std::mem::take(&mut *lock(&verified)), context.clock.now());
    checked.and(noted)
}

fn pack_id(key: &ObjectKey) -> Option<PackId> {
    match key {
        ObjectKey::Pack(id) => Some(*id),
        _ => None,
    }
}

/// The footer opens, and the index says of every chunk in it what it says. A pack that the index does not know is no
/// problem: a run may be writing it, or may have died. It only must be whole.
fn check_footer(repository: &Repository, row: &Listed, present: &HashSet<PackId>, context: &Context<'_>) -> Result<()> {
    context.go_on()?;
    let Some(id) = pack_id(&row.key) else { return Ok(()) };
    match repository.find_pack_entry(id, row.len, Some(context)) {
        // Who reclaims took it away since it was listed. What is missed is told of with what refers to it.
        Ok(None) => Ok(()),
        Ok(Some(entry)) => {
            if check_bases(repository, &entry, present, context)? {
                compare_index(repository, &entry, context)?;
            }
            Ok(())
        }
        Err(error) if error.is_of_one_object() => {
            context.observer.problem(Problem::new(row.key.path(), error.chain()));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Whether every base of a delta is stored, in a frame of a smaller depth. If not, the index has forgotten the delta, on
/// purpose: nobody needs it, and who reclaims took its base away; or it is damage, and what needs it is told of later.
/// That the index knows a base is not enough: it may not have heard yet that a pack is gone.
fn check_bases(
    repository: &Repository,
    entry: &PackEntry,
    present: &HashSet<PackId>,
    context: &Context<'_>,
) -> Result<bool> {
    let lineages = entry.frames.iter().filter(|frame| frame.kind == FrameKind::Delta);
    let mut count = 0;
    for lineage in lineages.filter_map(|frame| Lineage::decode(&frame.extension).ok()) {
        let places = repository.index().places(&lineage.bases)?;
        let is_sound = |place: &Option<ChunkPlace>| {
            let frame = place.as_ref().map(|place| &place.frame);
            frame.is_some_and(|frame| frame.depth() < lineage.depth && present.contains(&frame.pack))
        };
        count += u64::from(!places.iter().all(is_sound));
    }
    if count > 0 {
        let key = ObjectKey::Pack(entry.id);
        context.observer.detail(&format!("{count} chunks in {key} are deltas of chunks that are not stored any more"));
    }
    Ok(count == 0)
}

fn compare_index(repository: &Repository, entry: &PackEntry, context: &Context<'_>) -> Result<()> {
    if repository.index().pack_len(&entry.id)?.is_none() {
        context.observer.detail(&format!("{} is in no index segment yet", ObjectKey::Pack(entry.id)));
        return Ok(());
    }
    let count = repository.index().misplaced(entry)?;
    if count > 0 {
        let message = format!(
            "Its footer and the index differ about {count} chunks: one of them is not what was written. \
             `check --read-data` tells of the pack; the cache directory can be deleted at any time"
        );
        context.observer.problem(Problem::new(ObjectKey::Pack(entry.id).path(), message));
    }
    Ok(())
}

/// Every byte of a pack: by its name first, which knows of everything, then frame by frame.
fn check_data(
    repository: &Repository,
    source: &FrameSource<'_>,
    row: &Listed,
    verified: &Mutex<Vec<PackId>>,
    context: &Context<'_>,
) -> Result<()> {
    context.go_on()?;
    let Some(id) = pack_id(&row.key) else { return Ok(()) };
    let problem = |message: String| context.observer.problem(Problem::new(row.key.path(), message));
    let bytes = match heal::read_what_can_be(repository.storage(), &row.key) {
        Ok(bytes) => bytes,
        // As above.
        Err(error) if error.kind() == StorageErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    context.count(Counter::BytesChecked, bytes.len() as u64);
    let verdict = heal::examine(&row.key, &bytes);
    let bytes = match &verdict {
        Verdict::Healed(healed) => &healed.bytes,
        _ => &bytes,
    };
    let outcome = check_frames(repository, source, id, bytes, context).unwrap_or_else(|fault| Outcome {
        lost: 0,
        chunks: 0,
        first_fault: Some(fault),
    });
    let fault = match outcome.first_fault {
        None => None,
        Some(Fault::Pack(cause)) => Some(cause.to_string()),
        Some(Fault::Base(cause)) if cause.is_of_one_object() => {
            Some(format!("a delta in it can't be read: {}", cause.chain()))
        }
        Some(Fault::Base(cause)) => return Err(cause),
    };
    let lost = match outcome {
        Outcome { chunks: 0, .. } => "nothing in it can be read".to_owned(),
        Outcome { lost, chunks, .. } => format!("{lost} of {chunks} chunks in it can't be read"),
    };
    match (verdict.sentence(), fault) {
        (None, None) => lock(verified).push(id),
        (Some(sentence), None) => problem(sentence),
        (None, Some(fault)) => problem(format!("{lost}: {fault}")),
        (Some(sentence), Some(fault)) => problem(format!("{sentence}; {lost}: {fault}")),
    }
    Ok(())
}

/// What is wrong with a frame: itself, or what it is a delta of.
enum Fault {
    Pack(PackError),
    Base(Error),
}

impl From<PackError> for Fault {
    fn from(cause: PackError) -> Self {
        Self::Pack(cause)
    }
}

/// What came of the frames of a pack.
struct Outcome {
    /// Chunks that can't be read, ...
    lost: usize,
    /// ... of so many.
    chunks: usize,
    first_fault: Option<Fault>,
}

/// Opens every frame that can be opened.
fn check_frames(
    repository: &Repository,
    source: &FrameSource<'_>,
    id: PackId,
    bytes: &[u8],
    context: &Context<'_>,
) -> std::result::Result<Outcome, Fault> {
    let keys = &repository.inner.keys;
    let header = bytes.get(..HEADER_LEN).ok_or(PackError::WrongFooter)?;
    let opener = FrameOpener::new(header, keys)?;
    let (_, frames) = pack_reader::footer_of(bytes, keys)?;
    let mut plain = Vec::new();
    let mut outcome = Outcome { lost: 0, chunks: 0, first_fault: None };
    for frame in &frames {
        if frame.kind == FrameKind::Delta && is_forgotten(repository, id, frame).map_err(Fault::Base)? {
            continue;
        }
        outcome.chunks += frame.chunks.len();
        let start = usize::try_from(frame.offset).unwrap_or(usize::MAX);
        let len = usize::try_from(frame.sealed_len).unwrap_or(usize::MAX);
        let open = |plain: &mut Vec<u8>| {
            let mut sealed = bytes.get(start..start.saturating_add(len)).unwrap_or_default().to_vec();
            opener
                .unseal(frame.offset, frame.kind, frame.plain_len, &frame.extension, &mut sealed)
                .map_err(Fault::from)
                .and_then(|body| unpack(source, frame, body, plain))
                .and_then(|()| Ok(pack_reader::verify_chunks(frame, plain, keys)?))
        };
        let generation = source.generation();
        let mut opened = open(&mut plain);
        // Who reclaims may have put the base elsewhere, or taken it from a delta that nobody needs.
        if matches!(&opened, Err(Fault::Base(cause)) if cause.is_of_one_object()) {
            let is_newer = source.refresh(generation, context).map_err(Fault::Base)?;
            if is_forgotten(repository, id, frame).map_err(Fault::Base)? {
                outcome.chunks -= frame.chunks.len();
                continue;
            }
            if is_newer {
                opened = open(&mut plain);
            }
        }
        match opened {
            Ok(()) => context.count(Counter::ChunksChecked, frame.chunks.len() as u64),
            Err(cause) => {
                outcome.lost += frame.chunks.len();
                outcome.first_fault.get_or_insert(cause);
            }
        }
    }
    Ok(outcome)
}

/// Whether the index has forgotten a delta, because its base is gone. The same chunk may be known elsewhere.
fn is_forgotten(repository: &Repository, pack: PackId, frame: &Frame) -> Result<bool> {
    let entry = PackEntry { id: pack, role: Role::Content, len: 0, frames: vec![frame.clone()] };
    Ok(repository.index().misplaced(&entry)? > 0)
}

fn unpack(source: &FrameSource<'_>, frame: &Frame, body: &[u8], plain: &mut Vec<u8>) -> std::result::Result<(), Fault> {
    if frame.kind == FrameKind::Delta {
        let lineage = Lineage::decode(&frame.extension).map_err(PackError::from)?;
        let base = source.base(&lineage).map_err(Fault::Base)?;
        *plain = pack_reader::undo(frame.plain_len, body, &base.bytes)?;
    } else {
        pack_reader::unpack(frame.kind, frame.plain_len, body, plain)?;
    }
    Ok(())
}
