//! A repository in any storage with small packs, and states of named byte strings that go in and come out.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use compline::archive::snapshot::{ComponentStats, SNAPSHOT_FORMAT};
use compline::archive::snapshots::{self as finding, Published};
use compline::archive::{
    ArchivePath, ArchiveReader, ArchiveWriter, CaptureSink, CaptureSource, ComponentReader, ComponentRecord, EntryKind,
    Parent, Snapshot, Status, check as archive_check,
};
use compline::chunker::Profile;
use compline::clock::Clock;
use compline::crypto::{self, Secret};
use compline::error::Result;
use compline::id::{RepositoryId, SnapshotId};
use compline::storage::{Listed, ObjectBytes, ObjectKey, ObjectKind, Storage, StorageError};
use compline::store::card::Card;
use compline::store::check::{self as store_check, DataSubset};
use compline::store::config::{Config, ConfigHead};
use compline::store::pack::{FrameKind, Lineage};
use compline::store::parity::Share;
use compline::store::rights::Grant;
use compline::store::{Repository, Unlock, keyring};

use crate::support::World;
use crate::support::dump::Dump;
use crate::support::gzip::gzip;
use crate::support::nasty::noise;

/// Names and what is in them.
pub type State = BTreeMap<String, Vec<u8>>;

/// Name of the one component.
pub const COMPONENT: &str = "component-of-test";

/// Storage that a test keeps a hand on.
pub struct Held<S>(pub Arc<S>);

impl<S: Storage> Storage for Held<S> {
    fn put_new(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        self.0.put_new(key, bytes)
    }
    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        self.0.replace(key, bytes)
    }
    fn get(&self, key: &ObjectKey) -> Result<ObjectBytes, StorageError> {
        self.0.get(key)
    }
    fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        self.0.get_range(key, range)
    }
    fn len(&self, key: &ObjectKey) -> Result<u64, StorageError> {
        self.0.len(key)
    }
    fn list(&self, kind: ObjectKind) -> Result<Vec<Listed>, StorageError> {
        self.0.list(kind)
    }
    fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        self.0.delete(key)
    }
    fn location(&self) -> String {
        self.0.location()
    }
    fn is_remote(&self) -> bool {
        self.0.is_remote()
    }
}

/// Creates a repository whose packs are so short that a few files fill several.
pub fn create(storage: &dyn Storage) -> Unlock {
    create_with(storage, Share::PACK)
}

/// The same with so much parity.
pub fn create_with(storage: &dyn Storage, parity: Share) -> Unlock {
    let now = World::new().clock.now();
    let (unlock, _) = Unlock::new_key_file().unwrap();
    let master = Secret::random().unwrap();
    let head = ConfigHead::new(RepositoryId::from_bytes(crypto::random().unwrap()), &master).unwrap();
    let config = Config { pack_len: 1 << 16, frame_len: 1 << 14, parity, ..Config::new(now) };
    let card = Card { label: "test".to_owned(), created_at: now };
    keyring::add(storage, head.repository, (&master, Grant::All), &unlock, &card).unwrap();
    storage.put_new(&ObjectKey::Config, &config.seal(head, &master).unwrap()).unwrap();
    unlock
}

/// Opens what a test holds.
pub fn open<S: Storage + 'static>(storage: &Arc<S>, unlock: &Unlock, cache: Option<&Path>) -> Result<Repository> {
    Repository::open(Box::new(Held(storage.clone())), unlock, cache)
}

/// A state of several packs; neighbouring nights share most of it.
pub fn state(night: u64) -> State {
    let mut state = State::new();
    for at in 0..4 {
        state.insert(format!("big/{at}"), noise(at, 90_000));
    }
    state.insert("big/changes".to_owned(), [noise(50, 120_000), noise(100 + night, 20_000)].concat());
    // Stored as deltas from the second night on.
    state.insert("big/rows".to_owned(), Dump::new(1, 400).after(night).text());
    // Taken apart, and deltas like the rows.
    state.insert("big/rows.gz".to_owned(), gzip(&Dump::new(2, 600).after(night).text(), 6));
    for at in 0..6 + night {
        state.insert(format!("small/{at}"), noise(1000 + at * night, 700));
    }
    state.insert(format!("only in night {night}"), format!("night {night}").into_bytes());
    state
}

/// Captures `state` as the one component of one snapshot; the newest snapshot is its parent.
pub fn save(repository: &Repository, world: &World, state: &State, night: u64) -> Result<SnapshotId> {
    save_cut(repository, world, state, night, Profile::named("db-page").unwrap())
}

/// The same with chunks of `profile`.
pub fn save_cut(
    repository: &Repository,
    world: &World,
    state: &State,
    night: u64,
    profile: Profile,
) -> Result<SnapshotId> {
    let parent = parent(repository, world)?;
    let mut archive = ArchiveWriter::new(repository, false, Vec::new(), world.context())?;
    let record = component(&mut archive, world, state, profile, parent)?;
    archive.publish(&snapshot(world, record, night))
}

/// The same, with something that happens when the writer has begun, and something when everything is captured and nothing
/// is published.
pub fn save_and_meanwhile(
    repository: &Repository,
    world: &World,
    state: &State,
    night: u64,
    first: impl FnOnce(),
    then: impl FnOnce(),
) -> Result<SnapshotId> {
    let parent = parent(repository, world)?;
    let mut archive = ArchiveWriter::new(repository, false, Vec::new(), world.context())?;
    first();
    let record = component(&mut archive, world, state, Profile::named("db-page").unwrap(), parent)?;
    then();
    archive.publish(&snapshot(world, record, night))
}

/// Does everything that [`save_cut`] does but store.
pub fn rehearse(repository: &Repository, world: &World, state: &State, profile: Profile) -> Result<()> {
    let parent = parent(repository, world)?;
    let mut archive = ArchiveWriter::new(repository, true, Vec::new(), world.context())?;
    component(&mut archive, world, state, profile, parent)?;
    archive.discard()
}

fn parent(repository: &Repository, world: &World) -> Result<Option<Parent>> {
    // Who can't read compares with nothing.
    let newest = if repository.can_read() { published(repository, world)?.pop() } else { None };
    let root = newest.and_then(|newest| newest.snapshot.component(COMPONENT)?.root_entry().ok());
    Ok(root.map(|root| Parent { root, tells_all: true }))
}

fn component(
    archive: &mut ArchiveWriter<'_>,
    world: &World,
    state: &State,
    profile: Profile,
    parent: Option<Parent>,
) -> Result<ComponentRecord> {
    let mut component = archive.component(COMPONENT, profile, parent, world.context());
    for (path, bytes) in state {
        component.put_stream(&ArchivePath::parse(path).unwrap(), &mut &bytes[..])?;
    }
    let finished = component.finish()?;
    let now = world.clock.now();
    Ok(ComponentRecord {
        name: COMPONENT.to_owned(),
        kind: "command".to_owned(),
        role: "source".to_owned(),
        references: Vec::new(),
        derived_from: Vec::new(),
        status: Status::Complete,
        reason: None,
        started_at: now,
        finished_at: now,
        versions: BTreeMap::new(),
        completeness: None,
        facts: serde_json::Map::new(),
        commands: Vec::new(),
        problems: Vec::new(),
        problem_count: 0,
        chunker: profile.name.to_owned(),
        stats: ComponentStats::default(),
        root: Some(ComponentRecord::encode_root(&finished.root)),
        other: serde_json::Map::new(),
    })
}

fn snapshot(world: &World, record: ComponentRecord, night: u64) -> Snapshot {
    let now = world.clock.now() + jiff::SignedDuration::from_hours(24 * i64::try_from(night).unwrap());
    Snapshot {
        format: SNAPSHOT_FORMAT,
        platform: "platform-of-test".to_owned(),
        host: "host-of-test".to_owned(),
        user: "user-of-test".to_owned(),
        time: now,
        finished_at: now,
        status: Status::Complete,
        tags: vec!["tag-of-test".to_owned()],
        pinned: false,
        original: None,
        parent: None,
        tool: "test".to_owned(),
        components: vec![record],
        restore_order: Vec::new(),
        plan: None,
        other: serde_json::Map::new(),
    }
}

/// All snapshots, oldest first.
pub fn published(repository: &Repository, world: &World) -> Result<Vec<Published>> {
    finding::all(repository, &world.context())
}

/// The paths of all files in a snapshot.
pub fn paths(repository: &Repository, world: &World, published: &Published) -> Result<Vec<ArchivePath>> {
    let archive = ArchiveReader::new(repository, world.context());
    let reader = ComponentReader::new(&archive, published.snapshot.component(COMPONENT).unwrap())?;
    let mut paths = Vec::new();
    archive.walk(reader.root(), &ArchivePath::root(), &mut |path, entry| {
        if matches!(entry.kind, EntryKind::File(_)) {
            paths.push(path.clone());
        }
        Ok(())
    })?;
    Ok(paths)
}

/// What a snapshot holds.
pub fn state_of(repository: &Repository, world: &World, published: &Published) -> Result<State> {
    let archive = ArchiveReader::new(repository, world.context());
    let reader = ComponentReader::new(&archive, published.snapshot.component(COMPONENT).unwrap())?;
    let mut state = State::new();
    for path in paths(repository, world, published)? {
        let mut bytes = Vec::new();
        reader.open(&path)?.read_to_end(&mut bytes).map_err(compline::commands::listing::from_content)?;
        state.insert(String::from_utf8(path.to_bytes()).unwrap(), bytes);
    }
    Ok(state)
}

/// How many deltas are stored, and how deep the deepest of them is.
pub fn deltas(repository: &Repository) -> (usize, u8) {
    let mut depths = Vec::new();
    for row in repository.storage().list(ObjectKind::Pack).unwrap() {
        let ObjectKey::Pack(id) = row.key else { continue };
        let frames = repository.read_pack_entry(id, row.len).unwrap().frames;
        let deltas = frames.iter().filter(|frame| frame.kind == FrameKind::Delta);
        depths.extend(deltas.map(|frame| Lineage::decode(&frame.extension).unwrap().depth));
    }
    (depths.len(), depths.into_iter().max().unwrap_or(0))
}

/// What `check` finds, one line each.
pub fn check(repository: &Repository, subset: DataSubset) -> Result<Vec<String>> {
    let world = World::new();
    store_check::run(repository, subset, &world.context())?;
    let snapshots = published(repository, &world)?;
    archive_check::run(repository, &snapshots, subset == DataSubset::All, world.context())?;
    Ok(world.problems())
}
