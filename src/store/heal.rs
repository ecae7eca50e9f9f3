//! Healing objects from their own parity: in memory while they are read, in the storage when somebody asks for it.
//!
//! Reading never waits for a repair. Whoever finds that a part of a pack is not what was written has the whole pack
//! fetched once and healed in memory, and goes on with that. Nothing has to be trusted: healed bytes are used only if
//! their hash is the name of the object. The config, whose name is fixed, is proven by opening.
//!
//! Writing healed bytes back is safe for the same reason: they are what was published under that name. Two who do it at
//! once write the same, and a crash leaves the old bytes or the new ones ([`Storage::replace`]).

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use super::index_segment;
use super::pack::PACK_LEN_MAX;
use super::parity::{self, HealError, Healed};
use super::repository::Repository;
use super::session::Session;
use crate::error::{ErrorKind, Result};
use crate::id::PackId;
use crate::observer::{Context, Counter, Problem};
use crate::pipeline::lock;
use crate::storage::{Listed, ObjectKey, ObjectKind, Storage, StorageError, StorageErrorKind};

/// Healed packs are kept up to so many bytes, at least one.
const KEPT_LEN: usize = 24 << 20;
/// An object is read in pieces of this length ...
const PIECE_LEN: u64 = 1 << 20;
/// ... and where that fails in pieces of a sector, ...
const SECTOR_LEN: u64 = 4 << 10;
/// ... of which no more than so many may fail in a row: then it is not the disk under one object.
const BAD_SECTORS_MAX: u32 = 256;

/// What to do about damage that was met on the way, for messages.
pub const ADVICE: &str = "run `compline repair`";

/// What an object turns out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// What was written.
    Whole,
    /// Damaged; this is what was written.
    Healed(Healed),
    /// Damaged beyond that.
    Lost(HealError),
}

impl Verdict {
    /// What is wrong with the object, and what can be done.
    #[must_use]
    pub fn sentence(&self) -> Option<String> {
        match self {
            Self::Whole => None,
            Self::Healed(Healed { damaged: 0, .. }) => Some(format!("It is damaged and can be healed: {ADVICE}")),
            Self::Healed(Healed { damaged, shard_count, .. }) => Some(format!(
                "It is damaged and can be healed ({damaged} of {shard_count} shards are damaged): {ADVICE}"
            )),
            Self::Lost(why) => Some(format!("It is damaged and can't be healed: {why}")),
        }
    }
}

/// Whether `bytes` are what the name says. The names of config, sessions and retired lists say nothing.
fn is_named(key: &ObjectKey, bytes: &[u8]) -> bool {
    let hash = blake3::hash(bytes);
    match key {
        ObjectKey::Config | ObjectKey::Session(..) | ObjectKey::Retired(_) => true,
        ObjectKey::Key(id) => hash.as_bytes().starts_with(id.as_bytes()),
        ObjectKey::Pack(id) => hash.as_bytes() == id.as_bytes(),
        ObjectKey::Segment(id) => hash.as_bytes() == id.as_bytes(),
        ObjectKey::Snapshot(id) => hash.as_bytes() == id.as_bytes(),
    }
}

/// Looks at the bytes of an object.
#[must_use]
pub fn examine(key: &ObjectKey, bytes: &[u8]) -> Verdict {
    if *key != ObjectKey::Config && is_named(key, bytes) {
        return Verdict::Whole;
    }
    match parity::heal(bytes, |healed| is_named(key, healed)) {
        Ok(healed) if healed.bytes == bytes => Verdict::Whole,
        Ok(healed) => Verdict::Healed(healed),
        Err(why) => Verdict::Lost(why),
    }
}

/// The bytes of a small object as they were written, if that can be had, else as they are; and whether they had to be
/// healed.
pub(super) fn read_record(storage: &dyn Storage, key: &ObjectKey) -> Result<(Vec<u8>, Verdict), StorageError> {
    let mut bytes = storage.get(key)?.to_vec();
    let mut verdict = examine(key, &bytes);
    if let Verdict::Healed(healed) = &mut verdict {
        bytes = std::mem::take(&mut healed.bytes);
    }
    Ok((bytes, verdict))
}

/// What can be read of an object; sectors that can't are zeros.
///
/// Not through a map, which ends the process at such a sector.
pub(super) fn read_what_can_be(storage: &dyn Storage, key: &ObjectKey) -> Result<Vec<u8>, StorageError> {
    let len = storage.len(key)?;
    if len > PACK_LEN_MAX {
        return Err(StorageError::new(StorageErrorKind::OutOfRange, key));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    let mut in_a_row = 0;
    for start in (0..len).step_by(usize::try_from(PIECE_LEN).unwrap_or(usize::MAX)) {
        let end = len.min(start + PIECE_LEN);
        match storage.get_range(key, start..end) {
            Ok(piece) => {
                in_a_row = 0;
                bytes.extend_from_slice(&piece);
                continue;
            }
            Err(error) if error.kind() == StorageErrorKind::Other => {}
            Err(error) => return Err(error),
        }
        for start in (start..end).step_by(usize::try_from(SECTOR_LEN).unwrap_or(usize::MAX)) {
            let sector_end = end.min(start + SECTOR_LEN);
            match storage.get_range(key, start..sector_end) {
                Ok(sector) => {
                    in_a_row = 0;
                    bytes.extend_from_slice(&sector);
                }
                Err(error) if error.kind() == StorageErrorKind::Other && in_a_row < BAD_SECTORS_MAX => {
                    in_a_row += 1;
                    bytes.resize(bytes.len() + usize::try_from(sector_end - start).unwrap_or(0), 0);
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(bytes)
}

/// Objects that were damaged and were healed in memory.
#[derive(Default)]
pub(super) struct Healer(Mutex<Sick>);

#[derive(Default)]
struct Sick {
    healed: VecDeque<(PackId, Arc<Vec<u8>>)>,
    /// Not worth another try: beyond healing, or nothing is wrong with their bytes.
    hopeless: HashSet<PackId>,
    told: HashSet<ObjectKey>,
    /// Met where no observer was at hand.
    untold: Vec<Problem>,
}

impl Sick {
    fn keep(&mut self, id: PackId, bytes: &Arc<Vec<u8>>) {
        self.healed.push_back((id, bytes.clone()));
        while self.healed.len() > 1 && self.healed.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > KEPT_LEN {
            self.healed.pop_front();
        }
    }
}

impl Repository {
    /// The bytes of a small object as they were written, if that can be had, else as they are. Damage that was healed is
    /// told by the next [`Repository::tell_damage`].
    pub(super) fn read_small(&self, key: &ObjectKey) -> Result<(Vec<u8>, Verdict), StorageError> {
        let (bytes, verdict) = read_record(self.storage(), key)?;
        self.note_damage(key, &verdict);
        Ok((bytes, verdict))
    }

    /// Keeps for the observer that an object had to be healed. What can't be healed is its reader's error.
    pub(super) fn note_damage(&self, key: &ObjectKey, verdict: &Verdict) {
        if let Verdict::Healed(_) = verdict {
            let mut sick = lock(&self.inner.healer.0);
            if sick.told.insert(*key) {
                sick.untold.push(Problem::new(key.path(), verdict.sentence().unwrap_or_default()));
            }
        }
    }

    /// Tells the observer which small objects were found to be damaged, and were read all the same: each of them once.
    pub fn tell_damage(&self, context: &Context<'_>) {
        let untold = std::mem::take(&mut lock(&self.inner.healer.0).untold);
        for problem in untold {
            context.observer.problem(problem);
        }
    }

    /// Forgets what [`Repository::tell_damage`] would tell: who heals tells of it itself.
    pub fn hush_damage(&self) {
        lock(&self.inner.healer.0).untold.clear();
    }

    /// The bytes that were written as pack `id`, of which a part was found to be damaged; none if they can't be had. The
    /// observer is told once. One thread heals; others that want the same wait for it.
    pub(super) fn healed_pack(&self, id: PackId, context: Option<&Context<'_>>) -> Option<Arc<Vec<u8>>> {
        let mut sick = lock(&self.inner.healer.0);
        if let Some((_, bytes)) = sick.healed.iter().find(|(healed, _)| *healed == id) {
            return Some(bytes.clone());
        }
        if sick.hopeless.contains(&id) {
            return None;
        }
        let key = ObjectKey::Pack(id);
        // What the storage has to say the caller was told already.
        let bytes = read_what_can_be(self.storage(), &key).ok()?;
        let bytes = match examine(&key, &bytes) {
            Verdict::Healed(healed) => {
                if let Some(context) = context.filter(|_| sick.told.insert(key)) {
                    let message = format!(
                        "It is damaged and was healed in memory ({} of {} shards); to heal it for good, {ADVICE}",
                        healed.damaged, healed.shard_count
                    );
                    context.observer.problem(Problem::new(key.path(), message));
                }
                Arc::new(healed.bytes)
            }
            // The disk thought better of it.
            Verdict::Whole => {
                sick.hopeless.insert(id);
                return Some(Arc::new(bytes));
            }
            Verdict::Lost(_) => {
                sick.hopeless.insert(id);
                return None;
            }
        };
        sick.keep(id, &bytes);
        Some(bytes)
    }
}

/// What came of one object.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Its name.
    pub object: String,
    /// What was done, or could be.
    pub state: State,
    /// The same in words.
    pub message: String,
}

/// What was done about a damaged object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is what was written again.
    Healed,
    /// It would be, had this been no rehearsal.
    CanBeHealed,
    /// It can't be healed from itself.
    Lost,
}

/// Reads an object whole and heals it where it lies if it is damaged; in a rehearsal it is left as it is. None if it is
/// what was written, or gone.
///
/// # Errors
/// From the storage.
pub fn heal_object(
    repository: &Repository,
    key: &ObjectKey,
    rehearsal: bool,
    context: &Context<'_>,
) -> Result<Option<Finding>> {
    let bytes = match read_what_can_be(repository.storage(), key) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == StorageErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    context.count(Counter::BytesChecked, bytes.len() as u64);
    let mut verdict = examine(key, &bytes);
    if *key == ObjectKey::Config {
        let right = if let Verdict::Healed(healed) = &verdict { &healed.bytes } else { &bytes };
        if !repository.opens_config(right) {
            verdict = Verdict::Lost(HealError::NotIt);
        }
    }
    let Some(message) = verdict.sentence() else { return Ok(None) };
    let finding = |state, message| Ok(Some(Finding { object: key.path(), state, message }));
    match verdict {
        Verdict::Healed(_) if rehearsal => finding(State::CanBeHealed, message),
        Verdict::Healed(Healed { bytes, damaged, shard_count }) => {
            repository.storage().replace(key, &bytes)?;
            let message = format!("It was damaged and is healed ({damaged} of {shard_count} shards were damaged)");
            finding(State::Healed, message)
        }
        _ => finding(State::Lost, message),
    }
}

/// Heals every pack and every record that is damaged, in order of their names. Index segments are left out, which are
/// made again from packs, and sessions and retired lists, which don't outlive a run or two. So are packs that are on their
/// way out, whose names must not come back once they are deleted: who heals for good holds a session, so that no other
/// pack is deleted meanwhile.
///
/// # Errors
/// From the storage.
pub fn heal_all(
    repository: &Repository,
    session: Option<&Session>,
    rehearsal: bool,
    context: &Context<'_>,
) -> Result<Vec<Finding>> {
    let kinds = [ObjectKind::Config, ObjectKind::Key, ObjectKind::Snapshot, ObjectKind::Pack];
    let mut objects = Vec::new();
    for kind in kinds {
        let listed = repository.storage().list(kind)?;
        let is_going = |id| session.is_some_and(|session| session.avoided().contains(&id));
        let is_wanted = |row: &Listed| !matches!(row.key, ObjectKey::Pack(id) if is_going(id));
        objects.extend(listed.into_iter().filter(is_wanted));
    }
    context.observer.expect(objects.iter().map(|row| row.len).sum(), objects.len() as u64);
    let findings: Result<Vec<Option<Finding>>> = objects
        .par_iter()
        .map(|row| {
            context.go_on()?;
            heal_object(repository, &row.key, rehearsal, context)
        })
        .collect();
    Ok(findings?.into_iter().flatten().collect())
}

/// Takes an object over from another repository that has it as it was written, such as a mirror. False if it has not.
///
/// # Errors
/// From the storage that is written to.
pub fn fetch_object(repository: &Repository, elsewhere: &Repository, key: &ObjectKey) -> Result<bool> {
    let Ok(bytes) = elsewhere.storage().get(key) else { return Ok(false) };
    if *key == ObjectKey::Config || !is_named(key, &bytes) {
        return Ok(false);
    }
    repository.storage().replace(key, &bytes)?;
    Ok(true)
}

/// Deletes index segments that can't be read, and lists every pack that no segment lists. How many of both.
///
/// # Errors
/// From storage and index.
pub fn mend_index(repository: &Repository, context: &Context<'_>) -> Result<(u64, u64)> {
    let mut deleted = 0;
    for row in repository.storage().list(ObjectKind::Segment)? {
        context.go_on()?;
        let ObjectKey::Segment(id) = row.key else { continue };
        if repository.read_segment(id).is_err_and(|error| error.kind() == ErrorKind::Damaged) {
            super::prune::delete(repository, &row.key)?;
            deleted += 1;
        }
    }
    repository.settle(context)?;
    let mut entries = Vec::new();
    for (id, len) in repository.index().unpublished()? {
        context.go_on()?;
        entries.extend(repository.read_pack_entry(id, len).ok());
    }
    for entries in index_segment::split(&entries) {
        repository.publish_segment(entries)?;
    }
    Ok((deleted, entries.len() as u64))
}
