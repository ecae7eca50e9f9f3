//! Damage of any object is found, costs what lay in it and no more, and never gives wrong bytes; and nothing at all where
//! parity covers it.

use std::io::Read;
use std::sync::Arc;

use compline::archive::snapshots::Published;
use compline::archive::{ArchivePath, ArchiveReader, CaptureSource, ComponentReader, EntryKind};
use compline::error::{ErrorKind, Result};
use compline::storage::{MemoryStorage, ObjectKey, ObjectKind, Storage};
use compline::store::check::DataSubset;
use compline::store::parity::Share;
use compline::store::{Repository, Role, Unlock};
use tempfile::TempDir;

use crate::shelf;
use crate::support::World;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Delete,
    Truncate,
    Flip,
    Swap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Object {
    Config,
    Key,
    ContentPack,
    TreePack,
    Segment,
    Snapshot,
}

/// What `check` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Clean,
    Problem,
    Fails(ErrorKind),
}

/// What of the snapshots that are listed can be had. What can be had is always right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restore {
    All,
    Part,
    Fails(ErrorKind),
}

/// What the next backup brings about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backup {
    /// Everything that is listed restores afterwards.
    Whole,
    /// It can't see the damage without reading packs; `check --read-data` can.
    Unaware,
    Fails(ErrorKind),
}

use Backup::{Unaware, Whole};
use Check::{Clean, Problem};
use Restore::{All, Part};

/// Object, damage, check, check --read-data, restore, next backup.
type Row = (Object, Damage, Check, Check, Restore, Backup);

const fn fails(object: Object, damage: Damage, kind: ErrorKind) -> Row {
    (object, damage, Check::Fails(kind), Check::Fails(kind), Restore::Fails(kind), Backup::Fails(kind))
}

/// Small objects carry as much parity as they are long: half of one is enough.
const RECORDS: [Row; 12] = [
    fails(Object::Config, Damage::Delete, ErrorKind::NoRepository),
    (Object::Config, Damage::Truncate, Problem, Problem, All, Whole),
    (Object::Config, Damage::Flip, Problem, Problem, All, Whole),
    fails(Object::Config, Damage::Swap, ErrorKind::WrongKey),
    fails(Object::Key, Damage::Delete, ErrorKind::WrongKey),
    (Object::Key, Damage::Truncate, Problem, Problem, All, Whole),
    (Object::Key, Damage::Flip, Problem, Problem, All, Whole),
    fails(Object::Key, Damage::Swap, ErrorKind::Damaged),
    // That a snapshot is gone nobody can know.
    (Object::Snapshot, Damage::Delete, Clean, Clean, All, Whole),
    (Object::Snapshot, Damage::Truncate, Problem, Problem, All, Whole),
    (Object::Snapshot, Damage::Flip, Problem, Problem, All, Whole),
    (Object::Snapshot, Damage::Swap, Problem, Problem, All, Whole),
];

const WITHOUT_PARITY: [Row; 12] = [
    (Object::ContentPack, Damage::Delete, Problem, Problem, Part, Whole),
    (Object::ContentPack, Damage::Truncate, Problem, Problem, Part, Whole),
    (Object::ContentPack, Damage::Flip, Clean, Problem, Part, Unaware),
    // Each still tells what it really holds.
    (Object::ContentPack, Damage::Swap, Problem, Problem, All, Whole),
    (Object::TreePack, Damage::Delete, Problem, Problem, Part, Whole),
    (Object::TreePack, Damage::Truncate, Problem, Problem, Part, Whole),
    (Object::TreePack, Damage::Flip, Problem, Problem, Part, Unaware),
    (Object::TreePack, Damage::Swap, Problem, Problem, All, Whole),
    (Object::Segment, Damage::Delete, Clean, Clean, All, Whole),
    (Object::Segment, Damage::Truncate, Problem, Problem, All, Whole),
    (Object::Segment, Damage::Flip, Problem, Problem, All, Whole),
    (Object::Segment, Damage::Swap, Problem, Problem, All, Whole),
];

/// A flipped bit costs nothing any more; what is beyond the parity of packs is as without.
const WITH_PARITY: [Row; 8] = [
    (Object::ContentPack, Damage::Delete, Problem, Problem, Part, Whole),
    (Object::ContentPack, Damage::Truncate, Problem, Problem, Part, Whole),
    (Object::ContentPack, Damage::Flip, Clean, Problem, All, Whole),
    (Object::ContentPack, Damage::Swap, Problem, Problem, All, Whole),
    (Object::TreePack, Damage::Delete, Problem, Problem, Part, Whole),
    (Object::TreePack, Damage::Truncate, Problem, Problem, Part, Whole),
    (Object::TreePack, Damage::Flip, Problem, Problem, All, Whole),
    (Object::TreePack, Damage::Swap, Problem, Problem, All, Whole),
];

/// Two nights, the second with nothing new but its own changes.
fn two_nights(parity: Share) -> (Arc<MemoryStorage>, Unlock) {
    let storage = Arc::new(MemoryStorage::new());
    let unlock = shelf::create_with(&*storage, parity);
    for night in 1..=2 {
        let repository = shelf::open(&storage, &unlock, None).unwrap();
        shelf::save(&repository, &World::new(), &shelf::state(night), night).unwrap();
    }
    (storage, unlock)
}

fn fork(storage: &Arc<MemoryStorage>) -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::clone(storage))
}

/// Keys of the objects of one sort, those that both nights need first.
fn objects(repository: &Repository, object: Object) -> Vec<ObjectKey> {
    let storage = repository.storage();
    let list = |kind| storage.list(kind).unwrap().into_iter().map(|row| row.key).collect::<Vec<_>>();
    let packs = |role| {
        let mut packs = storage.list(ObjectKind::Pack).unwrap();
        packs.retain(|row| {
            let ObjectKey::Pack(id) = row.key else { return false };
            repository.read_pack_entry(id, row.len).unwrap().role == role
        });
        packs.into_iter().map(|row| row.key).collect::<Vec<_>>()
    };
    match object {
        Object::Config => vec![ObjectKey::Config],
        Object::Key => list(ObjectKind::Key),
        Object::ContentPack => packs(Role::Content),
        Object::TreePack => packs(Role::Tree),
        Object::Segment => list(ObjectKind::Segment),
        Object::Snapshot => list(ObjectKind::Snapshot),
    }
}

fn flip(storage: &MemoryStorage, key: &ObjectKey, bit: usize) {
    let mut bytes = storage.get(key).unwrap().to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    storage.overwrite(key, &bytes);
}

fn hurt(storage: &MemoryStorage, objects: &[ObjectKey], damage: Damage) {
    let key = &objects[0];
    let bytes = storage.get(key).unwrap().to_vec();
    match damage {
        Damage::Delete => storage.delete(key).unwrap(),
        Damage::Truncate => storage.overwrite(key, &bytes[..bytes.len() / 2]),
        Damage::Flip => flip(storage, key, bytes.len() * 4),
        Damage::Swap => {
            let other = match objects.get(1) {
                Some(other) => {
                    let theirs = storage.get(other).unwrap().to_vec();
                    storage.overwrite(other, &bytes);
                    theirs
                }
                None => foreign(key),
            };
            storage.overwrite(key, &other);
        }
    }
}

/// The object of the same sort of another repository.
fn foreign(key: &ObjectKey) -> Vec<u8> {
    let storage = MemoryStorage::new();
    shelf::create(&storage);
    let key = storage.list(key.kind()).unwrap()[0].key;
    storage.get(&key).unwrap().to_vec()
}

fn check(storage: &Arc<MemoryStorage>, unlock: &Unlock, subset: DataSubset) -> Check {
    match shelf::open(storage, unlock, None).and_then(|repository| shelf::check(&repository, subset)) {
        Ok(problems) if problems.is_empty() => Clean,
        Ok(_) => Problem,
        Err(error) => Check::Fails(error.kind()),
    }
}

/// Whether all of a snapshot can be had. What can be had must be what was captured in one of the nights.
fn salvage(repository: &Repository, published: &Published, what: &str) -> bool {
    let world = World::new();
    let archive = ArchiveReader::new(repository, world.context());
    let reader = ComponentReader::new(&archive, published.snapshot.component(shelf::COMPONENT).unwrap()).unwrap();
    let mut paths = Vec::new();
    let walked = archive.walk(reader.root(), &ArchivePath::root(), &mut |path, entry| {
        if matches!(entry.kind, EntryKind::File(_)) {
            paths.push(path.clone());
        }
        Ok(())
    });
    let mut whole = is_whole(walked, what);
    for path in paths {
        let mut bytes = Vec::new();
        let read = reader.open(&path).and_then(|mut content| {
            content.read_to_end(&mut bytes).map(drop).map_err(compline::commands::listing::from_content)
        });
        let name = String::from_utf8(path.to_bytes()).unwrap();
        let right = (1..=2).any(|night| shelf::state(night).get(&name).is_some_and(|right| right.starts_with(&bytes)));
        assert!(right, "{what}: wrong bytes in {name}");
        whole &= is_whole(read, what);
    }
    whole
}

fn is_whole(result: Result<()>, what: &str) -> bool {
    match result {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Damaged, "{what}: {}", error.chain());
            false
        }
    }
}

fn restore(storage: &Arc<MemoryStorage>, unlock: &Unlock, what: &str) -> Restore {
    let repository = match shelf::open(storage, unlock, None) {
        Ok(repository) => repository,
        Err(error) => return Restore::Fails(error.kind()),
    };
    let published = shelf::published(&repository, &World::new()).unwrap();
    let whole = published.iter().fold(true, |whole, one| salvage(&repository, one, what) & whole);
    if whole { All } else { Part }
}

/// Captures both nights once more.
fn backup(storage: &Arc<MemoryStorage>, unlock: &Unlock, what: &str) -> Backup {
    for night in 1..=2 {
        let world = World::new();
        let saved = shelf::open(storage, unlock, None)
            .and_then(|repository| shelf::save(&repository, &world, &shelf::state(night), night));
        if let Err(error) = saved {
            return Backup::Fails(error.kind());
        }
    }
    match restore(storage, unlock, what) {
        All => Whole,
        Part => Unaware,
        Restore::Fails(kind) => Backup::Fails(kind),
    }
}

#[test]
fn every_object_damaged_in_every_way_has_the_stated_outcome() {
    have_outcomes(Share::PACK, &[RECORDS.as_slice(), &WITH_PARITY].concat());
    have_outcomes(Share::NONE, &[RECORDS.as_slice(), &WITHOUT_PARITY].concat());
}

fn have_outcomes(parity: Share, outcomes: &[Row]) {
    let (storage, unlock) = two_nights(parity);
    let repository = shelf::open(&fork(&storage), &unlock, None).unwrap();
    let mut wrong = Vec::new();
    for expected in outcomes {
        let (object, damage, ..) = *expected;
        let objects = objects(&repository, object);
        let hurt_storage = fork(&storage);
        hurt(&hurt_storage, &objects, damage);
        let what = format!("{object:?} {damage:?}");
        let found = (
            object,
            damage,
            check(&hurt_storage, &unlock, DataSubset::Nothing),
            check(&hurt_storage, &unlock, DataSubset::All),
            restore(&hurt_storage, &unlock, &what),
            backup(&fork(&hurt_storage), &unlock, &what),
        );
        if found != *expected {
            wrong.push(format!("found    {found:?}\nexpected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{parity:?}:\n{}", wrong.join("\n"));
}

#[test]
fn a_flipped_bit_anywhere_in_a_pack_is_found_and_never_restored() {
    flipped_bits(Share::NONE);
}

#[test]
fn a_flipped_bit_anywhere_in_a_pack_with_parity_is_found_and_costs_nothing() {
    flipped_bits(Share::PACK);
}

fn flipped_bits(parity: Share) {
    let (storage, unlock) = two_nights(parity);
    let repository = shelf::open(&fork(&storage), &unlock, None).unwrap();
    for object in [Object::ContentPack, Object::TreePack] {
        let key = objects(&repository, object)[0];
        let bits = usize::try_from(storage.len(&key).unwrap()).unwrap() * 8;
        for bit in (0..60).map(|part| part * (bits - 1) / 59) {
            let hurt_storage = fork(&storage);
            flip(&hurt_storage, &key, bit);
            let what = format!("{object:?}, bit {bit} of {bits}");
            assert_eq!(check(&hurt_storage, &unlock, DataSubset::All), Problem, "{what}");
            let restored = restore(&hurt_storage, &unlock, &what);
            assert!(parity == Share::NONE || restored == All, "{what}: {restored:?}");
        }
    }
}

#[test]
fn an_index_that_is_lost_or_is_no_database_costs_a_rebuild_and_nothing_else() {
    type Damage = fn(Vec<u8>) -> Vec<u8>;
    let (storage, unlock) = two_nights(Share::PACK);
    let cache = TempDir::new().unwrap();
    let warm = || shelf::open(&storage, &unlock, Some(cache.path())).unwrap();
    warm().refresh(&World::new().context()).unwrap();
    let file = cache.path().join(warm().id().to_hex()).join("index.sqlite");
    let damages: [(&str, Damage); 4] = [
        ("empty", |_| Vec::new()),
        ("cut in its header", |bytes| bytes[..50].to_vec()),
        ("garbage", |bytes| vec![0xa5; bytes.len()]),
        ("of another schema", |mut bytes| {
            bytes[60..64].copy_from_slice(&77_u32.to_be_bytes());
            bytes
        }),
    ];
    for (what, damage) in damages {
        let bytes = damage(std::fs::read(&file).unwrap());
        std::fs::write(&file, bytes).unwrap();
        let world = World::new();
        let repository = warm();
        for (night, published) in (1..).zip(shelf::published(&repository, &world).unwrap()) {
            assert!(shelf::state_of(&repository, &world, &published).unwrap() == shelf::state(night), "{what}");
        }
        assert_eq!(shelf::check(&repository, DataSubset::Nothing).unwrap(), Vec::<String>::new(), "{what}");
    }
    std::fs::remove_file(&file).unwrap();
    assert_eq!(shelf::check(&warm(), DataSubset::All).unwrap(), Vec::<String>::new());
}

#[test]
fn a_repository_without_its_config_is_not_buried_under_a_new_one() {
    let (storage, unlock) = two_nights(Share::PACK);
    let config = storage.get(&ObjectKey::Config).unwrap().to_vec();
    storage.delete(&ObjectKey::Config).unwrap();
    let now = "2026-01-02T03:04:05Z".parse().unwrap();
    let error = Repository::create(&*storage, &unlock, "", now).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RepositoryExists);
    storage.put_new(&ObjectKey::Config, &config).unwrap();
    assert_eq!(check(&storage, &unlock, DataSubset::All), Clean);
}

#[test]
fn a_share_each_night_reads_every_pack_in_turn() {
    let storage = Arc::new(MemoryStorage::new());
    let unlock = shelf::create(&*storage);
    let cache = TempDir::new().unwrap();
    let open = || shelf::open(&storage, &unlock, Some(cache.path())).unwrap();
    for night in 1..=3 {
        shelf::save(&open(), &World::new(), &shelf::state(night), night).unwrap();
    }
    let packs = storage.list(ObjectKind::Pack).unwrap().len();
    let mut known = 0;
    for night in 1..=5 {
        assert_eq!(shelf::check(&open(), DataSubset::Percent(20.0)).unwrap(), Vec::<String>::new());
        let verified = open().index().verified().unwrap().len();
        assert!(verified > known || verified == packs, "night {night}: {verified} of {packs}");
        known = verified;
    }
    assert_eq!(known, packs);
    // What is damaged was not verified, and is the first to be read again.
    let victim = storage.list(ObjectKind::Pack).unwrap().remove(0).key;
    storage.overwrite(&victim, &vec![0; usize::try_from(storage.len(&victim).unwrap()).unwrap()]);
    assert!(!shelf::check(&open(), DataSubset::All).unwrap().is_empty());
}

/// Nothing of a cache is believed, nor waited for.
#[test]
fn whatever_lies_where_the_last_key_is_remembered_the_repository_opens_and_remembers_it_again() {
    let storage = Arc::new(MemoryStorage::new());
    let unlock = shelf::create(&*storage);
    let cache = TempDir::new().unwrap();
    let open = || shelf::open(&storage, &unlock, Some(cache.path())).unwrap();
    let path = cache.path().join(open().id().to_hex()).join("key");
    let remembered = std::fs::read_to_string(&path).unwrap();
    let fifo = || rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
    let endless = || std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    let garbage = || std::fs::write(&path, [0xff; 100]).unwrap();
    let of_nobody = || std::fs::write(&path, "00112233445566778899aabbccddeeff\n").unwrap();
    for put in [&fifo as &dyn Fn(), &endless, &garbage, &of_nobody] {
        std::fs::remove_file(&path).unwrap();
        put();
        open();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), remembered);
    }
}
