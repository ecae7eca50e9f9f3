//! A repository: config, keys, index and storage wired together.

mod create;
mod snapshots;

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;

use super::card::{Card, CardReader};
use super::chunk_reader::ChunkReader;
use super::config::{Config, ConfigHead};
use super::copies::Copies;
use super::envelope::{self, ObjectType, RecordError};
use super::frame_maker::DeltaPolicy;
use super::heal::{self, Healer, Verdict};
use super::index::{Index, IndexState, Intake, Known};
use super::index_segment::{self, PackEntry};
use super::keyring::{self, KeyInfo, Opened, Unlock};
use super::pack_reader::{self, PackError, PackKeys};
use super::parity::Share;
use super::relied::Relied;
use super::rights::{self, Access, Grant, ReadKeys, Rights, WriteKeys};
use super::writer::Writer;
use crate::chunker::{Chunker, Gear, Profile};
use crate::crypto::Secret;
use crate::durable;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{KeyId, PackId, RepositoryId, SegmentId};
use crate::observer::{Context, Problem};
use crate::pipeline;
use crate::storage::{ObjectKey, ObjectKind, Storage, StorageError, StorageErrorKind};

/// How often segments are listed again of which some had vanished when they were read. What is not known after that is
/// taken from the packs.
const SEGMENT_LOOKS_MAX: usize = 8;
/// How often packs are listed to know all that were listed, at most.
const SETTLE_LOOKS_MAX: usize = 4;

/// Requests that wait for answers at once, where the storage is far away.
const REQUESTS_AT_ONCE: usize = 8;

/// How reading segments went.
#[derive(Default)]
struct SegmentsRead {
    vanished_count: u64,
    damaged_count: u64,
}

/// An open repository. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Repository {
    pub(super) inner: Arc<Inner>,
    delta_policy: DeltaPolicy,
}

pub(super) struct Inner {
    pub(super) storage: Box<dyn Storage>,
    pub(super) head: ConfigHead,
    pub(super) config: Config,
    pub(super) keys: PackKeys,
    pub(super) index: Index,
    /// Where the storage is far away and there is a cache.
    pub(super) copies: Option<Copies>,
    pub(super) healer: Healer,
    rights: Rights,
    gear: Gear,
    key: KeyInfo,
    /// What the writer at work counts on, for who can't read it again.
    pub(super) relied: Mutex<Option<Relied>>,
}

/// Whether there is a repository at a storage.
///
/// # Errors
/// From the storage.
pub fn exists(storage: &dyn Storage) -> Result<bool> {
    match storage.len(&ObjectKey::Config) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == StorageErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What bringing the index up to date came to.
#[derive(Debug, Clone, Copy)]
pub struct Settled {
    /// Packs are lost.
    pub has_lost_packs: bool,
    /// What the index knew when packs were listed for the last time. Of this it knows now that it is there; what came later,
    /// out of a segment or from another process that shares the file, may name packs that are gone.
    pub known: Known,
    /// How far the index had come then.
    pub(super) state: IndexState,
}

impl Repository {
    /// Opens a repository. `cache` is the directory of local caches; without one the index lives in memory.
    ///
    /// # Errors
    /// `NoRepository`, `WrongKey`, `UnsupportedFormat`, `Damaged`, or from storage and cache.
    pub fn open(storage: Box<dyn Storage>, unlock: &Unlock, cache: Option<&Path>) -> Result<Self> {
        let (object, verdict) =
            heal::read_record(storage.as_ref(), &ObjectKey::Config).map_err(|error| match error.kind() {
                StorageErrorKind::NotFound => {
                    Error::new(ErrorKind::NoRepository, format!("There is no repository at {}", storage.location()))
                        .hint("Create one with `compline init`, or correct the location")
                }
                _ => error.into(),
            })?;
        let is_newer = envelope::record_extra(ObjectType::Config, &object).is_err_and(|cause| cause.is_newer());
        if let Verdict::Lost(why) = verdict
            && !is_newer
        {
            return Err(Error::damaged("The config of the repository is damaged")
                .hint("Bring the object `config` back from a copy of the repository")
                .cause(why));
        }
        let head = ConfigHead::read(&object)?;
        let remembered = cache.map(|cache| cache.join(head.repository.to_hex()).join("key"));
        let first = remembered.as_deref().and_then(remembered_key);
        let Opened { rights, info, verdict: key_verdict } = keyring::open(storage.as_ref(), &head, unlock, first)?;
        let config = match &rights.access {
            Access::All { read, .. } | Access::Read(read) => Config::open(&object, &read.record, &head.verifier())?,
            Access::Write(_, config) => config.clone(),
        };
        let index = match cache {
            Some(cache) => Index::open(cache, head.repository)?,
            None => Index::in_memory()?,
        };
        if let Some(path) = remembered.filter(|_| first != Some(info.id)) {
            let line = info.id.to_hex() + "\n";
            let _is_looked_for_again = durable::replace_file(&path, line.as_bytes(), durable::parent(&path));
        }
        if storage.is_remote() {
            pipeline::overlap_requests(REQUESTS_AT_ONCE);
        }
        let copies = cache.filter(|_| storage.is_remote());
        let copies = copies.map(|cache| Copies::new(cache.join(head.repository.to_hex()).join("copies")));
        let keys = PackKeys::new(head.repository, &rights).map_err(|cause| {
            Error::new(ErrorKind::Environment, "The keys of the repository can't be made").cause(cause)
        })?;
        let inner = Inner {
            keys,
            gear: Gear::new(rights.chunker.as_bytes()),
            rights,
            relied: Mutex::default(),
            key: info,
            storage,
            head,
            config,
            index,
            copies,
            healer: Healer::default(),
        };
        let repository = Self { inner: Arc::new(inner), delta_policy: DeltaPolicy::default() };
        repository.note_damage(&ObjectKey::Config, &verdict);
        repository.note_damage(&ObjectKey::Key(repository.current_key().id), &key_verdict);
        Ok(repository)
    }

    /// Writers from here on chain deltas by `policy`.
    pub fn set_delta_policy(&mut self, policy: DeltaPolicy) {
        self.delta_policy = policy;
    }

    pub(super) fn delta_policy(&self) -> DeltaPolicy {
        self.delta_policy
    }

    /// Its random name.
    #[must_use]
    pub fn id(&self) -> RepositoryId {
        self.inner.head.repository
    }

    /// The storage it lies in.
    #[must_use]
    pub fn storage(&self) -> &dyn Storage {
        self.inner.storage.as_ref()
    }

    /// The local index.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.inner.index
    }

    /// How much parity packs get.
    #[must_use]
    pub fn parity(&self) -> Share {
        self.inner.config.parity
    }

    /// How long packs should be.
    #[must_use]
    pub fn pack_len(&self) -> u64 {
        self.inner.config.pack_len
    }

    /// A chunker with the repository's secret cut points.
    #[must_use]
    pub fn chunker(&self, profile: Profile) -> Chunker {
        Chunker::new(self.inner.gear.clone(), profile)
    }

    /// Makes 32 secret bytes that are bound to this repository and a label.
    ///
    /// # Errors
    /// `WrongKey` for who can't write.
    pub fn component_secrets(&self) -> Result<impl Fn(&str) -> [u8; 32]> {
        let component = &self.write_keys()?.component;
        Ok(|label: &str| component.derive(label))
    }

    /// The id that `bytes` have as a chunk.
    #[must_use]
    pub fn chunk_id(&self, bytes: &[u8]) -> crate::id::ChunkId {
        self.inner.keys.chunk_id(bytes)
    }

    /// Its keys, damaged ones too.
    ///
    /// # Errors
    /// From the storage.
    pub fn list_keys(&self) -> Result<Vec<KeyInfo>> {
        let cards = CardReader::new(self.id(), &self.inner.rights);
        let keys = keyring::list(self.storage(), self.id(), self.inner.key.id, cards.as_ref())?;
        let noted = keys.into_iter().map(|(key, verdict)| {
            self.note_damage(&ObjectKey::Key(key.id), &verdict);
            key
        });
        Ok(noted.collect())
    }

    /// The same. What is wrong with them is told.
    ///
    /// # Errors
    /// As [`Repository::list_keys`].
    pub fn check_keys(&self, context: &Context<'_>) -> Result<Vec<KeyInfo>> {
        let keys = self.list_keys()?;
        for problem in keys.iter().filter_map(|key| key.problem.as_ref()) {
            context.observer.problem(Problem::new("keys", problem));
        }
        self.tell_damage(context);
        Ok(keys)
    }

    /// Adds a key.
    ///
    /// # Errors
    /// From the storage, or when the passphrase is empty.
    pub fn add_key(&self, unlock: &Unlock, label: &str, now: Timestamp) -> Result<KeyId> {
        self.add_key_to(Grant::All, unlock, label, now)
    }

    /// Adds a key that opens what is granted.
    ///
    /// # Errors
    /// As [`Repository::add_key`].
    fn add_key_to(&self, grant: Grant<'_>, unlock: &Unlock, label: &str, now: Timestamp) -> Result<KeyId> {
        let card = Card { label: label.to_owned(), created_at: now };
        keyring::add(self.storage(), self.id(), (self.master()?, grant), unlock, &card)
    }

    /// Adds a key for a host that is to back up and not to read.
    ///
    /// # Errors
    /// As [`Repository::add_key`].
    pub fn add_write_only_key(&self, unlock: &Unlock, label: &str, now: Timestamp) -> Result<KeyId> {
        self.add_key_to(Grant::Write(&self.inner.config), unlock, label, now)
    }

    /// Adds a key for somebody who is to look and restore, and to change nothing.
    ///
    /// # Errors
    /// As [`Repository::add_key`].
    pub fn add_read_only_key(&self, unlock: &Unlock, label: &str, now: Timestamp) -> Result<KeyId> {
        self.add_key_to(Grant::Read, unlock, label, now)
    }

    /// Whether the key in use can read what is stored.
    #[must_use]
    pub fn can_read(&self) -> bool {
        self.inner.rights.read().is_some()
    }

    /// Whether others believe what is stored with the key in use.
    #[must_use]
    pub fn can_write(&self) -> bool {
        self.inner.rights.write().is_some()
    }

    /// Removes a key; never the last one that opens everything.
    ///
    /// # Errors
    /// `Usage` for that, `NotFound`, `WrongKey` for who holds a part.
    pub fn remove_key(&self, id: KeyId) -> Result<()> {
        self.master()?;
        let cards = CardReader::new(self.id(), &self.inner.rights).ok_or_else(rights::cannot_read)?;
        keyring::remove(self.storage(), self.id(), id, &cards)
    }

    /// The master key, which whoever changes keys, forgets or gives back needs.
    ///
    /// # Errors
    /// `WrongKey` for who holds a part.
    pub fn master(&self) -> Result<&Secret> {
        self.inner.rights.master().ok_or_else(|| self.inner.rights.refusal())
    }

    pub(super) fn read_keys(&self) -> Result<&ReadKeys> {
        self.inner.rights.read().ok_or_else(rights::cannot_read)
    }

    fn write_keys(&self) -> Result<&WriteKeys> {
        self.inner.rights.write().ok_or_else(rights::cannot_write)
    }

    /// Whether these are the bytes of a config of this repository.
    pub(super) fn opens_config(&self, object: &[u8]) -> bool {
        let read = self.inner.rights.read();
        read.is_some_and(|read| Config::open(object, &read.record, self.inner.keys.verifier()).is_ok())
    }

    /// The key that opened it.
    #[must_use]
    pub fn current_key(&self) -> &KeyInfo {
        &self.inner.key
    }

    /// Brings the index up to date with the segments in storage. A segment that can't be read is a problem; what it
    /// listed is taken from the packs themselves.
    ///
    /// # Errors
    /// From storage and index.
    pub fn refresh(&self, context: &Context<'_>) -> Result<()> {
        if self.take_segments(context)? {
            self.learn_packs(context)?;
        }
        Ok(())
    }

    /// Takes in new segments and forgets those that are gone. True if packs may be in storage, or gone from it, without
    /// the index knowing.
    fn take_segments(&self, context: &Context<'_>) -> Result<bool> {
        let mut is_behind = self.index().is_new;
        for _ in 0..SEGMENT_LOOKS_MAX {
            let known = self.index().segments()?;
            let listed = self.list_segments()?;
            let gone: Vec<SegmentId> = known.difference(&listed).copied().collect();
            self.index().remove_segments(&gone)?;
            let mut intake = self.index().intake();
            let read = self.read_segments(listed.difference(&known), &mut intake, context);
            // Whatever ended it, what was read until then is not read again.
            let taken_in = intake.finish();
            let read = read?;
            taken_in?;
            is_behind |= !gone.is_empty() || read.damaged_count > 0;
            if read.vanished_count == 0 {
                return Ok(is_behind);
            }
        }
        Ok(true)
    }

    /// Reads segments into the index. One that vanished since it was listed was replaced by another, which is there
    /// already.
    fn read_segments<'s>(
        &self,
        ids: impl Iterator<Item = &'s SegmentId>,
        intake: &mut Intake<'_>,
        context: &Context<'_>,
    ) -> Result<SegmentsRead> {
        let mut read = SegmentsRead::default();
        for id in ids {
            context.go_on()?;
            match self.read_segment(*id) {
                Ok(Some(packs)) => intake.segment(*id, packs)?,
                Ok(None) => read.vanished_count += 1,
                Err(error) if error.is_of_one_object() => {
                    context.observer.problem(Problem::new(ObjectKey::Segment(*id).path(), error.chain()));
                    read.damaged_count += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    /// Brings the index up to date with the packs themselves: what a writer relies on must be there, and what a run
    /// uploaded that died before it could list it is used again. Costs one listing, and another if anything was new in it.
    ///
    /// # Errors
    /// From storage and index.
    pub fn settle(&self, context: &Context<'_>) -> Result<Settled> {
        self.take_segments(context)?;
        let index = self.index();
        let mut has_lost_packs = false;
        let mut look = 0;
        loop {
            let (known, before) = (index.known()?, index.state()?);
            has_lost_packs |= self.learn_packs(context)?;
            look += 1;
            // Where other processes bring in new ones all the time they would never all be known.
            if index.known()? == known || look == SETTLE_LOOKS_MAX {
                return Ok(Settled { has_lost_packs, known, state: index.state()?.without_others(before) });
            }
        }
    }

    fn list_segments(&self) -> Result<HashSet<SegmentId>> {
        let listed = self.storage().list(ObjectKind::Segment)?;
        Ok(listed
            .into_iter()
            .filter_map(|row| match row.key {
                ObjectKey::Segment(id) => Some(id),
                _ => None,
            })
            .collect())
    }

    /// What a segment lists. None if it is not there: who reclaims replaces segments at any time.
    pub(super) fn read_segment(&self, id: SegmentId) -> Result<Option<Vec<PackEntry>>> {
        let stored = |is_newer| Error::stored(format!("Index segment {id}"), is_newer);
        let bytes = match self.storage().get(&ObjectKey::Segment(id)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == StorageErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if SegmentId::from_bytes(*blake3::hash(&bytes).as_bytes()) != id {
            return Err(stored(false));
        }
        let keys = &self.inner.keys;
        let plain = envelope::open_record(ObjectType::Segment, keys.index(), Some(keys.verifier()), &bytes)
            .map_err(|cause| stored(cause.is_newer()).cause(cause))?;
        index_segment::decode(&plain).map(Some).map_err(|cause| stored(cause.is_newer()).cause(cause))
    }

    /// Compares the list of packs with the index: takes in unknown packs from their footers, drops packs that are gone
    /// or have another length.
    /// True if some are lost, or what deltas are made of is.
    ///
    /// # Errors
    /// From storage and index.
    pub fn learn_packs(&self, context: &Context<'_>) -> Result<bool> {
        let (mut gone, mut problems) = self.take_packs(context)?;
        self.index().recall_orphans()?;
        let is_complete = gone.is_empty() && self.index().forget_orphans()? == 0;
        if !is_complete {
            // A listing that was under way when packs came may have the delta and not its base, which came before. The
            // next one has both; what lacks its base then has lost it.
            (gone, problems) = self.take_packs(context)?;
            self.index().recall_orphans()?;
        }
        let mut lost: Vec<PackId> = Vec::new();
        loop {
            let mut listed = self.index().listed(&gone)?;
            listed.retain(|id| !lost.contains(id));
            if listed.is_empty() {
                break;
            }
            // Who reclaims takes a pack off the segments first. What other packs the new ones name is to be seen as well.
            self.take_segments(context)?;
            lost.extend(self.index().listed(&listed)?);
            (gone, problems) = self.take_packs(context)?;
        }
        for id in &lost {
            let message = "It is missing or cut short; what it held is stored again by the next backup that reads it";
            problems.push(Problem::new(ObjectKey::Pack(*id).path(), message));
        }
        for problem in problems {
            context.observer.problem(problem);
        }
        self.index().suspect(&lost)?;
        self.index().remove_packs(&gone)?;
        if let Some(copies) = &self.inner.copies {
            let is_known = |id: &PackId| self.index().pack_len(id).is_ok_and(|len| len.is_some());
            copies.keep_only(ObjectKind::Pack, |key| matches!(key, ObjectKey::Pack(id) if is_known(id)));
        }
        // Deltas that nobody needs may have lost their bases to who reclaims; whether somebody needs one that has is seen
        // where it is looked for.
        let orphans = self.index().forget_orphans()?;
        if orphans > 0 {
            context.observer.detail(&format!("{orphans} chunks are deltas of chunks that are not stored any more"));
        }
        Ok(!lost.is_empty())
    }

    /// Takes in unknown packs from their footers. Gives the known ones that are not in storage, or have another length
    /// there, and what is wrong with others.
    fn take_packs(&self, context: &Context<'_>) -> Result<(Vec<PackId>, Vec<Problem>)> {
        let mut known = self.index().pack_lens()?;
        let mut intake = self.index().intake();
        let read = self.read_footers(&mut known, &mut intake, context);
        // As with segments: what was read is kept.
        let taken_in = intake.finish();
        let problems = read?;
        taken_in?;
        Ok((known.into_keys().collect(), problems))
    }

    /// Reads the footers of the packs in storage that are not `known` into the index, and leaves in `known` those that
    /// are gone. Gives what is wrong with others.
    fn read_footers(
        &self,
        known: &mut HashMap<PackId, u64>,
        intake: &mut Intake<'_>,
        context: &Context<'_>,
    ) -> Result<Vec<Problem>> {
        let mut problems = Vec::new();
        for row in self.storage().list(ObjectKind::Pack)? {
            context.go_on()?;
            let ObjectKey::Pack(id) = row.key else { continue };
            match known.get(&id) {
                Some(len) if *len == row.len || self.is_cut_but_whole(id, *len, context) => {
                    known.remove(&id);
                    continue;
                }
                // Cut short or another pack: what it held is as good as gone.
                Some(_) => continue,
                None => {}
            }
            match self.find_pack_entry(id, row.len, Some(context)) {
                Ok(Some(entry)) => intake.pack(entry)?,
                // Who reclaims deletes packs at any time.
                Ok(None) => {}
                Err(error) if error.is_of_one_object() => problems.push(Problem::new(row.key.path(), error.chain())),
                Err(error) => return Err(error),
            }
        }
        Ok(problems)
    }

    /// Reads the footer of a pack that may be gone since it was listed; then there is none.
    pub(super) fn find_pack_entry(
        &self,
        id: PackId,
        len: u64,
        context: Option<&Context<'_>>,
    ) -> Result<Option<PackEntry>> {
        let gone = |error: &StorageError| error.kind() == StorageErrorKind::NotFound;
        match self.try_pack_entry(id, len, context) {
            // A mounted directory may tell for a while yet how long what is gone was.
            Err(PackError::Storage(error)) if gone(&error) => Ok(None),
            Err(_) if self.storage().len(&ObjectKey::Pack(id)).is_err_and(|error| gone(&error)) => Ok(None),
            Err(cause) => Err(unreadable_footer(id, cause)),
            Ok(entry) => Ok(Some(entry)),
        }
    }

    /// Reads the footer of a pack, from a healed copy if it has to be. The length in the entry is what was written.
    ///
    /// # Errors
    /// `Damaged` when it is not a whole pack of this repository.
    pub fn read_pack_entry(&self, id: PackId, len: u64) -> Result<PackEntry> {
        self.try_pack_entry(id, len, None).map_err(|cause| unreadable_footer(id, cause))
    }

    /// The same; the observer is told if the pack is damaged.
    fn try_pack_entry(
        &self,
        id: PackId,
        len: u64,
        context: Option<&Context<'_>>,
    ) -> std::result::Result<PackEntry, PackError> {
        let keys = &self.inner.keys;
        let cause = match pack_reader::read_footer(self.storage(), &ObjectKey::Pack(id), len, keys) {
            Ok((role, frames)) => return Ok(PackEntry { id, role, len, frames }),
            Err(cause) => cause,
        };
        let is_gone = matches!(&cause, PackError::Storage(error) if error.kind() == StorageErrorKind::NotFound);
        let healed = if is_gone { None } else { self.healed_pack(id, context) };
        if let Some(bytes) = healed
            && let Ok((role, frames)) = pack_reader::footer_of(&bytes, keys)
        {
            return Ok(PackEntry { id, role, len: bytes.len() as u64, frames });
        }
        Err(cause)
    }

    /// Whether a pack that has another length than it should can be had all the same. The observer is told.
    fn is_cut_but_whole(&self, id: PackId, len: u64, context: &Context<'_>) -> bool {
        self.healed_pack(id, Some(context)).is_some_and(|bytes| bytes.len() as u64 == len)
    }

    /// Seals a record that is no truth about content.
    pub(super) fn seal_record(&self, object: ObjectType, plain: &[u8]) -> Result<Vec<u8>> {
        envelope::seal_record(object, &self.write_keys()?.session, None, &[], plain)
    }

    /// Opens what [`Self::seal_record`] sealed.
    pub(super) fn open_record(&self, object: ObjectType, bytes: &[u8]) -> Result<Vec<u8>, RecordError> {
        let write = self.inner.rights.write().ok_or(RecordError::NoKey)?;
        envelope::open_record(object, &write.session, None, bytes)
    }

    /// Publishes an index segment about `packs`. Gives its name and length.
    ///
    /// # Errors
    /// From storage and index.
    pub(super) fn publish_segment(&self, packs: &[PackEntry]) -> Result<(SegmentId, u64)> {
        let (id, object) = self.seal_segment(packs)?;
        self.storage().put_new(&ObjectKey::Segment(id), &object)?;
        self.note_segment(id, packs)?;
        Ok((id, object.len() as u64))
    }

    /// An index segment about `packs` that is not published yet.
    pub(super) fn seal_segment(&self, packs: &[PackEntry]) -> Result<(SegmentId, Vec<u8>)> {
        let plain = index_segment::encode(packs);
        let keys = &self.inner.keys;
        let object = envelope::seal_record(ObjectType::Segment, keys.index(), keys.signer(), &[], &plain)?;
        Ok((SegmentId::from_bytes(*blake3::hash(&object).as_bytes()), object))
    }

    /// Tells the index that a segment about `packs` is published.
    pub(super) fn note_segment(&self, id: SegmentId, packs: &[PackEntry]) -> Result<()> {
        let packs: Vec<PackId> = packs.iter().map(|entry| entry.id).collect();
        self.index().publish(id, &packs)
    }

    /// Keeps a copy of an object that is going to be read again, where reading is dear.
    pub(super) fn keep_copy(&self, key: &ObjectKey, bytes: &[u8]) {
        if let Some(copies) = &self.inner.copies {
            copies.keep(key, bytes);
        }
    }

    /// From now on everything is read from the storage itself, whatever copies there are.
    pub fn bypass_copies(&self) {
        self.inner.copies.iter().for_each(Copies::bypass);
    }

    /// A writer of new chunks. In a rehearsal everything is done but the storing.
    ///
    /// # Errors
    /// When threads can't be had, or packs of an earlier run can't be taken over.
    pub fn writer(&self, rehearsal: bool, context: &Context<'_>) -> Result<Writer> {
        Writer::new(self.clone(), "backup", rehearsal, context)
    }

    /// The same for a run that others know as `command`.
    ///
    /// # Errors
    /// As [`Repository::writer`].
    pub fn writer_of(&self, command: &str, context: &Context<'_>) -> Result<Writer> {
        Writer::new(self.clone(), command, false, context)
    }

    /// Whether chunks have the same names in both, and each can open what the other sealed.
    #[must_use]
    pub fn shares_keys_with(&self, other: &Self) -> bool {
        self.inner.keys.are_those_of(&other.inner.keys)
    }

    /// A reader of chunks.
    #[must_use]
    pub fn reader<'c>(&self, context: Context<'c>) -> ChunkReader<'c> {
        ChunkReader::new(self.clone(), context)
    }
}

/// The key that opened the last time. Whatever else lies there is none.
fn remembered_key(path: &Path) -> Option<KeyId> {
    let mut line = String::new();
    durable::open_without_waiting(path).ok()?.take(64).read_to_string(&mut line).ok()?;
    line.trim().parse().ok()
}

fn unreadable_footer(id: PackId, cause: PackError) -> Error {
    match cause {
        PackError::Storage(error) if error.kind() != StorageErrorKind::OutOfRange => error.into(),
        cause => Error::stored(format!("The footer of pack {id}"), cause.is_newer()).cause(cause),
    }
}
