//! Damage that parity covers costs nobody anything: everything restores as it was before any repair, `check` tells of it,
//! and a repair brings back the very bytes that were written.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use compline::storage::{
    Listed, MemoryStorage, ObjectBytes, ObjectKey, ObjectKind, Storage, StorageError, StorageErrorKind,
};
use compline::store::Unlock;
use compline::store::check::DataSubset;
use compline::store::heal::{self, State as Healing};
use compline::store::pack;
use compline::store::parity::Share;
use tempfile::TempDir;

use crate::shelf;
use crate::support::World;

const NIGHTS: u64 = 3;

type Objects = BTreeMap<ObjectKey, Vec<u8>>;
/// Which byte of an object of some length.
type Place = fn(usize) -> usize;

/// A few nights, with deltas.
fn nights() -> (Arc<MemoryStorage>, Unlock) {
    let storage = Arc::new(MemoryStorage::new());
    let unlock = shelf::create(&*storage);
    for night in 1..=NIGHTS {
        save(&storage, &unlock, night);
    }
    assert!(shelf::deltas(&shelf::open(&storage, &unlock, None).unwrap()).0 > 0);
    (storage, unlock)
}

fn save(storage: &Arc<MemoryStorage>, unlock: &Unlock, night: u64) {
    let repository = shelf::open(storage, unlock, None).unwrap();
    shelf::save(&repository, &World::new(), &shelf::state(night), night).unwrap();
}

fn objects(storage: &MemoryStorage) -> Objects {
    storage.keys().into_iter().map(|key| (key, storage.get(&key).unwrap().to_vec())).collect()
}

fn fork(storage: &Arc<MemoryStorage>) -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::clone(storage))
}

/// Whether every object carries parity. Segments don't: they are made again from packs.
fn is_protected(key: &ObjectKey) -> bool {
    key.kind() != ObjectKind::Segment
}

/// All snapshots restore as they were captured. What the observer was told.
fn restores_all<S: Storage + 'static>(
    storage: &Arc<S>,
    unlock: &Unlock,
    cache: Option<&TempDir>,
    what: &str,
) -> Vec<String> {
    let world = World::new();
    let repository = shelf::open(storage, unlock, cache.map(TempDir::path)).expect(what);
    let published = shelf::published(&repository, &world).expect(what);
    assert_eq!(published.len() as u64, NIGHTS, "{what}: {:?}", world.problems());
    for (night, published) in (1..).zip(&published) {
        let state = shelf::state_of(&repository, &world, published);
        let state = state.unwrap_or_else(|error| panic!("{what}, night {night}: {}", error.chain()));
        assert!(state == shelf::state(night), "{what}: night {night} is not what was captured");
    }
    world.problems()
}

/// After it everything is as it was.
fn repair_brings_back(storage: &Arc<MemoryStorage>, unlock: &Unlock, written: &Objects, damaged: usize, what: &str) {
    let world = World::new();
    let repository = shelf::open(storage, unlock, None).unwrap();
    let before = objects(storage);
    let rehearsed = heal::heal_all(&repository, None, true, &world.context()).unwrap();
    assert_eq!(rehearsed.len(), damaged, "{what}: {rehearsed:?}");
    assert!(rehearsed.iter().all(|finding| finding.state == Healing::CanBeHealed), "{what}: {rehearsed:?}");
    assert!(objects(storage) == before, "{what}: a rehearsal wrote");
    let healed = heal::heal_all(&repository, None, false, &world.context()).unwrap();
    assert!(healed.len() == damaged && healed.iter().all(|finding| finding.state == Healing::Healed), "{healed:?}");
    assert!(objects(storage) == *written, "{what}: repair made something else");
    let repository = shelf::open(storage, unlock, None).unwrap();
    assert_eq!(shelf::check(&repository, DataSubset::All).unwrap(), Vec::<String>::new(), "{what}");
    assert_eq!(heal::heal_all(&repository, None, false, &world.context()).unwrap(), Vec::new(), "{what}");
}

#[test]
fn damage_of_all_objects_at_once_is_restored_through_told_and_repaired() {
    let (storage, unlock) = nights();
    let written = objects(&storage);
    let warm = TempDir::new().unwrap();
    shelf::open(&storage, &unlock, Some(warm.path())).unwrap().refresh(&World::new().context()).unwrap();
    // Header, the middle of the frames, footer and tables, parity, trailer.
    let places: [(&str, Place); 6] = [
        ("salt", |_| 20),
        ("version", |_| 9),
        ("middle", |len| len / 2),
        ("near the end", |len| len - len / 20),
        ("parity", |len| len - 200),
        ("trailer", |len| len - 3),
    ];
    for (what, place) in places {
        let hurt = fork(&storage);
        let victims: Vec<_> = written.iter().filter(|(key, _)| is_protected(key)).collect();
        for (key, bytes) in &victims {
            let mut bytes = Vec::clone(bytes);
            let at = place(bytes.len());
            bytes[at] ^= 0x10;
            hurt.overwrite(key, &bytes);
        }
        let told = restores_all(&hurt, &unlock, None, what);
        assert!(told.iter().filter(|problem| problem.starts_with("snapshots/")).count() as u64 == NIGHTS, "{told:?}");
        assert!(told.iter().any(|problem| problem.starts_with("config")), "{told:?}");
        assert!(told.iter().any(|problem| problem.starts_with("keys/")), "{told:?}");
        let mut once = told.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), told.len(), "told twice: {told:?}");
        restores_all(&hurt, &unlock, Some(&warm), what);
        let repository = shelf::open(&hurt, &unlock, None).unwrap();
        assert!(!shelf::check(&repository, DataSubset::Nothing).unwrap().is_empty(), "{what}");
        let repository = shelf::open(&hurt, &unlock, None).unwrap();
        let problems = shelf::check(&repository, DataSubset::All).unwrap();
        for (key, _) in &victims {
            let path = key.path();
            let healable = |problem: &&String| problem.starts_with(&path) && problem.contains("healed");
            assert!(problems.iter().any(|problem| healable(&problem)), "{what}: nothing of {path} in {problems:?}");
        }
        repair_brings_back(&hurt, &unlock, &written, victims.len(), what);
    }
}

#[test]
fn a_burst_of_the_promised_size_anywhere_in_any_pack_is_restored_through() {
    let (storage, unlock) = nights();
    let written = objects(&storage);
    for step in 0..24 {
        let hurt = fork(&storage);
        let packs: Vec<_> = written.iter().filter(|(key, _)| key.kind() == ObjectKind::Pack).collect();
        for (key, bytes) in &packs {
            // Of 2 % parity, which is 1.9 % of what it makes longer.
            let burst = bytes.len() * 19 / 1000;
            let start = (bytes.len() - burst) * step / 23;
            let mut bytes = Vec::clone(bytes);
            bytes[start..start + burst].fill(0xff);
            hurt.overwrite(key, &bytes);
        }
        let what = format!("step {step}");
        restores_all(&hurt, &unlock, None, &what);
        repair_brings_back(&hurt, &unlock, &written, packs.len(), &what);
    }
}

#[test]
fn packs_that_lost_their_tails_are_restored_through_and_stay_known() {
    let (storage, unlock) = nights();
    let written = objects(&storage);
    let warm = TempDir::new().unwrap();
    shelf::open(&storage, &unlock, Some(warm.path())).unwrap().refresh(&World::new().context()).unwrap();
    let hurt = fork(&storage);
    let packs: Vec<_> = written.iter().filter(|(key, _)| key.kind() == ObjectKind::Pack).collect();
    for (key, bytes) in &packs {
        hurt.overwrite(key, &bytes[..bytes.len() - bytes.len() * 19 / 1000]);
    }
    restores_all(&hurt, &unlock, None, "cold");
    restores_all(&hurt, &unlock, Some(&warm), "warm");
    // Nothing is stored again by the next night, which looks at all packs.
    let world = World::new();
    let repository = shelf::open(&hurt, &unlock, Some(warm.path())).unwrap();
    shelf::save(&repository, &world, &shelf::state(NIGHTS), NIGHTS + 1).unwrap();
    assert_eq!(world.ledger.get(compline::observer::Counter::ChunksNew), 0);
    assert_eq!(world.problems().iter().filter(|problem| problem.starts_with("packs/")).count(), packs.len());
}

#[test]
fn damage_beyond_parity_is_said_to_be_lost_and_is_left_as_it_is() {
    let (storage, unlock) = nights();
    let written = objects(&storage);
    let hurt = fork(&storage);
    let packs = written.iter().filter(|(key, _)| key.kind() == ObjectKind::Pack);
    let (key, bytes) = packs.max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let mut bytes = bytes.clone();
    let len = bytes.len();
    bytes[len / 4..len / 2].fill(0);
    hurt.overwrite(key, &bytes);
    let world = World::new();
    let repository = shelf::open(&hurt, &unlock, None).unwrap();
    let findings = heal::heal_all(&repository, None, false, &world.context()).unwrap();
    assert_eq!(findings.len(), 1);
    assert_eq!((findings[0].state, &findings[0].object), (Healing::Lost, &key.path()));
    assert!(*hurt.get(key).unwrap() == bytes);
    let problems = shelf::check(&repository, DataSubset::All).unwrap();
    assert!(problems.iter().any(|problem| problem.contains("can't be healed") && problem.contains("chunks in it")));
}

#[test]
fn a_chunk_that_is_stored_twice_is_read_from_the_pack_that_is_left() {
    // Two machines that knew nothing of each other stored the same night.
    let (mut first, mut second) = (Arc::new(MemoryStorage::new()), Arc::new(MemoryStorage::new()));
    let unlock = shelf::create(&*first);
    for (key, bytes) in objects(&first) {
        second.put_new(&key, &bytes).unwrap();
    }
    for night in 1..=NIGHTS {
        save(&first, &unlock, night);
        save(&second, &unlock, night);
    }
    for storage in [&mut first, &mut second] {
        assert!(shelf::deltas(&shelf::open(storage, &unlock, None).unwrap()).0 > 0);
    }
    let of_second: Objects = objects(&second).into_iter().filter(|(key, _)| key.kind() == ObjectKind::Pack).collect();
    for (key, bytes) in &of_second {
        first.put_new(key, bytes).unwrap();
    }
    let packs = |storage: &MemoryStorage| storage.list(ObjectKind::Pack).unwrap();
    // Each pack of the first machine in turn, then all of them: beyond healing, with the footer as it was, so that the
    // index still believes in it.
    let of_first: Vec<ObjectKey> =
        packs(&first).into_iter().map(|row| row.key).filter(|key| !of_second.contains_key(key)).collect();
    for victims in of_first.iter().map(std::slice::from_ref).chain([of_first.as_slice()]) {
        let warm = TempDir::new().unwrap();
        shelf::open(&first, &unlock, Some(warm.path())).unwrap().refresh(&World::new().context()).unwrap();
        for gone in [false, true] {
            let hurt = fork(&first);
            for key in victims {
                let mut bytes = first.get(key).unwrap().to_vec();
                let len = bytes.len();
                let footer = pack::decode_trailer(&bytes[len - 20..], len as u64).unwrap();
                let [start, end] = [footer.start, footer.end].map(|at| usize::try_from(at).unwrap());
                bytes[44..44.max(start / 2)].fill(0);
                bytes[end..len - 20].fill(0);
                if gone { hurt.delete(key).unwrap() } else { hurt.overwrite(key, &bytes) }
            }
            let told = restores_all(&hurt, &unlock, Some(&warm), &format!("{victims:?}, gone: {gone}"));
            assert!(told.iter().any(|problem| problem.starts_with("packs/")), "{told:?}");
        }
    }
}

/// Storage on a disk with bad sectors under one pack.
struct BadSectors {
    objects: MemoryStorage,
    pack: ObjectKey,
    bad: Range<u64>,
}

impl BadSectors {
    fn check(&self, key: &ObjectKey, range: &Range<u64>) -> Result<(), StorageError> {
        let is_hit = *key == self.pack && range.start < self.bad.end && self.bad.start < range.end;
        if is_hit { Err(StorageError::new(StorageErrorKind::Other, key)) } else { Ok(()) }
    }
}

impl Storage for BadSectors {
    fn put_new(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        self.objects.put_new(key, bytes)
    }
    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        self.objects.replace(key, bytes)
    }
    fn get(&self, key: &ObjectKey) -> Result<ObjectBytes, StorageError> {
        self.check(key, &(0..u64::MAX))?;
        self.objects.get(key)
    }
    fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        self.check(key, &range)?;
        self.objects.get_range(key, range)
    }
    fn len(&self, key: &ObjectKey) -> Result<u64, StorageError> {
        self.objects.len(key)
    }
    fn list(&self, kind: ObjectKind) -> Result<Vec<Listed>, StorageError> {
        self.objects.list(kind)
    }
    fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        self.objects.delete(key)
    }
    fn location(&self) -> String {
        "a disk with bad sectors".to_owned()
    }
}

#[test]
fn a_sector_that_the_disk_cannot_read_is_healed_like_any_other_damage() {
    let storage = Arc::new(MemoryStorage::new());
    // Sectors are long for packs as short as those of the tests.
    let unlock = shelf::create_with(&*storage, Share::of_packs(200).unwrap());
    for night in 1..=NIGHTS {
        save(&storage, &unlock, night);
    }
    let packs: Vec<Listed> =
        storage.list(ObjectKind::Pack).unwrap().into_iter().filter(|row| row.len > 50_000).collect();
    assert!(packs.len() > 3);
    for row in packs {
        for start in [0, row.len / 2, row.len - 600] {
            let objects = MemoryStorage::clone(&storage);
            let disk = Arc::new(BadSectors { objects, pack: row.key, bad: start..start + 500 });
            let told = restores_all(&disk, &unlock, None, &format!("{}, from byte {start}", row.key));
            let repository = shelf::open(&disk, &unlock, None).unwrap();
            let problems = shelf::check(&repository, DataSubset::All).unwrap();
            assert!(problems.iter().any(|problem| problem.contains("can be healed")), "{told:?} {problems:?}");
            heal::heal_all(&repository, None, false, &World::new().context()).unwrap();
            assert!(*disk.objects.get(&row.key).unwrap() == *storage.get(&row.key).unwrap());
        }
    }
}
