//! Who has a read-only key reads everything and changes nothing; and what such a holder puts all the same, with every key in
//! hand that the key object has, nobody believes.

use std::collections::BTreeMap;
use std::sync::Arc;

use compline::archive::relabel::{Relabel, relabel};
use compline::commands::copy::{Wish, of_repositories};
use compline::commands::{App, forget};
use compline::crypto::Secret;
use compline::error::{ErrorKind, Result};
use compline::id::{PackId, RetiredId, SegmentId, SnapshotId};
use compline::storage::{MemoryStorage, ObjectKey, ObjectKind, Storage};
use compline::store::check::DataSubset;
use compline::store::config::{Config, ConfigHead};
use compline::store::envelope::{self, HEADER_LEN, Header, ObjectType};
use compline::store::index_segment::{self, PackEntry};
use compline::store::pack::{self, Frame, FrameKind};
use compline::store::pack_reader::PackKeys;
use compline::store::rights::{ReadKeys, Rights};
use compline::store::session::Session;
use compline::store::signature::Signer;
use compline::store::{Repository, Role, Unlock, keyring, retired};
use jiff::Timestamp;

use crate::prune::{EVERYTHING, prune};
use crate::shelf::{self, State};
use crate::support::World;
use crate::support::nasty::noise;

/// Two nights of a host that can read and one of a host that can't; a full key, and a read-only one.
fn repository() -> (Arc<MemoryStorage>, Unlock, Unlock) {
    let storage = Arc::new(MemoryStorage::new());
    let unlock = shelf::create(&*storage);
    let new = || Unlock::new_key_file().unwrap().0;
    let (host, auditor) = (new(), new());
    let full = shelf::open(&storage, &unlock, None).unwrap();
    full.add_write_only_key(&host, "host", Timestamp::UNIX_EPOCH).unwrap();
    full.add_read_only_key(&auditor, "auditor", Timestamp::UNIX_EPOCH).unwrap();
    for night in 1..=2 {
        shelf::save(&full, &World::new(), &shelf::state(night), night).unwrap();
    }
    shelf::save(&shelf::open(&storage, &host, None).unwrap(), &World::new(), &shelf::state(3), 3).unwrap();
    (storage, unlock, auditor)
}

fn states(repository: &Repository) -> Vec<State> {
    let world = World::new();
    let all = shelf::published(repository, &world).unwrap();
    all.iter().map(|one| shelf::state_of(repository, &world, one).unwrap()).collect()
}

fn objects(storage: &MemoryStorage) -> BTreeMap<ObjectKey, Vec<u8>> {
    storage.keys().into_iter().map(|key| (key, storage.get(&key).unwrap().to_vec())).collect()
}

#[test]
fn who_only_reads_reads_everything_and_changes_nothing() {
    let (storage, _, auditor) = repository();
    let before = objects(&storage);
    let reader = shelf::open(&storage, &auditor, None).unwrap();
    assert!(reader.can_read() && !reader.can_write());
    assert_eq!(states(&reader), [1, 2, 3].map(shelf::state));
    assert_eq!(shelf::check(&reader, DataSubset::All).unwrap(), Vec::<String>::new());
    assert_eq!(reader.list_keys().unwrap().len(), 3);

    let (world, unlock) = (World::new(), Unlock::new_key_file().unwrap().0);
    let id = reader.list_snapshots().unwrap()[0];
    let all = shelf::published(&reader, &world).unwrap();
    let pinned = Relabel { pin: Some(true), ..Relabel::default() };
    let foreign = reader.list_keys().unwrap().into_iter().find(|key| !key.current).unwrap();
    let packs = [PackId::from_bytes([7; 32])];
    let refused: Vec<Result<()>> = vec![
        shelf::save(&reader, &world, &shelf::state(4), 4).map(drop),
        Session::begin(&reader, "backup", &world.context()).map(Session::end),
        reader.publish_snapshot(&reader.read_snapshot(id).unwrap(), &world.context()).map(drop),
        reader.remove_snapshot(id).map(drop),
        relabel(&reader, id, &pinned, &all, &world.context()).map(drop),
        prune(&reader, EVERYTHING).map(drop),
        retired::publish(&reader, &packs, &world.context()).map(drop),
        reader.add_key(&unlock, "", Timestamp::UNIX_EPOCH).map(drop),
        reader.add_read_only_key(&unlock, "", Timestamp::UNIX_EPOCH).map(drop),
        reader.add_write_only_key(&unlock, "", Timestamp::UNIX_EPOCH).map(drop),
        reader.remove_key(foreign.id),
        reader.component_secrets().map(drop),
        reader.create_twin(&MemoryStorage::new(), &unlock, "", &Config::new(Timestamp::UNIX_EPOCH)).map(drop),
    ];
    let kinds: Vec<Option<ErrorKind>> = refused.into_iter().map(|what| what.err().map(|error| error.kind())).collect();
    assert_eq!(kinds, vec![Some(ErrorKind::WrongKey); kinds.len()]);
    assert!(objects(&storage) == before);
}

#[test]
fn who_only_reads_copies_to_elsewhere_and_a_twin_takes_frames_as_they_are() {
    let (storage, unlock, auditor) = repository();
    let (full, reader) =
        (shelf::open(&storage, &unlock, None).unwrap(), shelf::open(&storage, &auditor, None).unwrap());
    let (twin, stranger) = (Arc::new(MemoryStorage::new()), Arc::new(MemoryStorage::new()));
    let config = Config { pack_len: 1 << 16, frame_len: 1 << 14, ..Config::new(Timestamp::UNIX_EPOCH) };
    full.create_twin(&*twin, &unlock, "twin", &config).unwrap();
    let key = shelf::create(&*stranger);
    for (storage, unlock, shares_keys) in [(twin, &unlock, true), (stranger, &key, false)] {
        let (world, target) = (World::new(), shelf::open(&storage, unlock, None).unwrap());
        let app = App { context: world.context(), ledger: &world.ledger, variable: &|_| None };
        let wish = Wish::Fitting(forget::Only::default());
        let report = of_repositories(app, &reader, &target, &wish, false).unwrap();
        assert_eq!((report.count("copied"), report.shares_keys), (3, shares_keys));
        assert_eq!(states(&target), [1, 2, 3].map(shelf::state));
        assert_eq!(shelf::check(&target, DataSubset::All).unwrap(), Vec::<String>::new());
        let other = of_repositories(app, &target, &reader, &wish, false).unwrap();
        assert_eq!(other.count("there"), 3, "nothing is to be done");
    }
}

#[test]
fn a_repository_keeps_a_key_that_opens_everything() {
    let (storage, unlock, auditor) = repository();
    let full = shelf::open(&storage, &unlock, None).unwrap();
    assert_eq!(full.remove_key(full.current_key().id).unwrap_err().kind(), ErrorKind::Usage);
    let kinds: Vec<&str> = full.list_keys().unwrap().iter().map(|key| key.kind).collect();
    assert!(kinds.contains(&"key-file, read-only"), "{kinds:?}");
    // A changed right is another object: the plain part is sealed along.
    let id = shelf::open(&storage, &auditor, None).unwrap().current_key().id;
    for change in [32, 48] {
        let mut object = storage.get(&ObjectKey::Key(id)).unwrap().to_vec();
        object[60] ^= change;
        storage.overwrite(&ObjectKey::Key(id), &object);
        // It heals, by its parity.
        assert!(!shelf::open(&storage, &auditor, None).is_ok_and(|repository| repository.can_write()));
    }
    full.remove_key(id).unwrap();
    assert_eq!(shelf::open(&storage, &auditor, None).err().unwrap().kind(), ErrorKind::WrongKey);
}

/// Somebody with a read-only key and a storage that takes whatever is put.
struct Forger {
    storage: Arc<MemoryStorage>,
    keys: PackKeys,
    rights: Rights,
    /// Not the repository's: it has to be one of their own.
    signer: Signer,
}

impl Forger {
    fn new(storage: &Arc<MemoryStorage>, auditor: &Unlock) -> Self {
        let head = ConfigHead::read(&storage.get(&ObjectKey::Config).unwrap()).unwrap();
        let rights = keyring::open(&**storage, &head, auditor, None).unwrap().rights;
        let keys = PackKeys::new(head.repository, &rights).unwrap();
        assert!(keys.signer().is_none());
        let signer = Signer::new(head.repository, &Secret::from_bytes([6; 32])).unwrap();
        Self { storage: storage.clone(), keys, rights, signer }
    }

    fn read(&self) -> &ReadKeys {
        self.rights.read().unwrap()
    }

    fn put(&self, key: ObjectKey, object: &[u8]) {
        self.storage.put_new(&key, object).unwrap();
    }

    /// A snapshot record, signed by the forger; and one that bears the signature of a genuine snapshot.
    fn snapshots(&self, record: &[u8], genuine: &[u8]) -> Vec<SnapshotId> {
        let own = envelope::seal_record(ObjectType::Snapshot, &self.read().record, Some(&self.signer), &[], record);
        let borrowed = {
            let header = &genuine[..HEADER_LEN];
            let signed = self.signed_part(genuine);
            let mut body = [record, &signed[signed.len() - 64..]].concat();
            let header = [&header[..11], &[0], &header[12..]].concat();
            self.read().record.object_key(&header).seal(0, &header, &mut body);
            let mut object = [header, body].concat();
            object.extend_from_slice(&pack::encode_trailer(0));
            object
        };
        let put = |object: Vec<u8>| {
            let id = SnapshotId::from_bytes(*blake3::hash(&object).as_bytes());
            self.put(ObjectKey::Snapshot(id), &object);
            id
        };
        vec![put(own.unwrap()), put(borrowed)]
    }

    /// What a genuine snapshot has sealed, signature and all.
    fn signed_part(&self, object: &[u8]) -> Vec<u8> {
        let end = object.len() - 20;
        let parity_len = u64::from_le_bytes(object[end + 4..end + 12].try_into().unwrap());
        let mut body = object[HEADER_LEN..end - usize::try_from(parity_len).unwrap()].to_vec();
        let key = self.read().record.object_key(&object[..HEADER_LEN]);
        key.open(0, &object[..HEADER_LEN], &mut body).unwrap().to_vec()
    }

    /// A segment that says of a pack that it holds `chunk`.
    fn segment(&self, pack: PackId, len: u64, chunk: &[u8]) -> SegmentId {
        let plain =
            index_segment::encode(&[PackEntry { id: pack, role: Role::Content, len, frames: vec![self.frame(chunk)] }]);
        let object = envelope::seal_record(ObjectType::Segment, self.keys.index(), Some(&self.signer), &[], &plain);
        let object = object.unwrap();
        let id = SegmentId::from_bytes(*blake3::hash(&object).as_bytes());
        self.put(ObjectKey::Segment(id), &object);
        id
    }

    fn frame(&self, chunk: &[u8]) -> Frame {
        let plain_len = chunk.len() as u64;
        let chunks = vec![(self.keys.chunk_id(chunk), plain_len)];
        let (kind, extension) = (FrameKind::Raw, Vec::new());
        Frame { offset: HEADER_LEN as u64, sealed_len: plain_len + 16, kind, extension, plain_len, chunks }
    }

    /// A pack that says it holds `chunk`, and holds something else.
    fn pack(&self, chunk: &[u8]) -> PackId {
        let header = Header { detail: Role::Content as u8, salt: [9; 32] }.encode(ObjectType::Pack);
        let frame = self.frame(chunk);
        let mut other = vec![0; chunk.len()];
        let aad = pack::frame_aad(frame.kind, frame.plain_len, &frame.extension);
        self.keys.frames(Role::Content, &header).unwrap().seal(frame.offset, &aad, &mut other);
        let mut footer = pack::encode_footer(&[frame]);
        self.signer.sign(&header, &mut footer);
        self.keys.index().object_key(&header).seal((header.len() + other.len()) as u64, &header, &mut footer);
        let trailer = pack::encode_trailer(u32::try_from(footer.len()).unwrap());
        self.put_pack(&[header, other, footer, trailer].concat())
    }

    fn put_pack(&self, object: &[u8]) -> PackId {
        let id = PackId::from_bytes(*blake3::hash(object).as_bytes());
        self.put(ObjectKey::Pack(id), object);
        id
    }

    /// A pack with header, footer and signature of a genuine one, and with zeros for each of its chunks.
    fn hollow(&self, genuine: &[u8], frames: &[Frame]) -> PackId {
        let mut object = genuine.to_vec();
        let header = &genuine[..HEADER_LEN];
        let role = if header[11] == 1 { Role::Content } else { Role::Tree };
        let key = self.keys.frames(role, header).unwrap();
        for frame in frames {
            let start = usize::try_from(frame.offset).unwrap();
            let end = start + usize::try_from(frame.sealed_len).unwrap();
            let mut zeros = vec![0; end - start - 16];
            key.seal(frame.offset, &pack::frame_aad(frame.kind, frame.plain_len, &frame.extension), &mut zeros);
            object[start..end].copy_from_slice(&zeros);
        }
        self.put_pack(&object)
    }
}

#[test]
fn a_snapshot_that_a_reader_forges_is_damage_that_names_it_and_goes_when_it_is_forgotten() {
    let (storage, unlock, auditor) = repository();
    let full = shelf::open(&storage, &unlock, None).unwrap();
    // One that a host that can't read sealed has another key.
    let is_own = |id: &SnapshotId| storage.get(&ObjectKey::Snapshot(*id)).unwrap()[10] == 0;
    let genuine = full.list_snapshots().unwrap().into_iter().find(is_own).unwrap();
    let record = String::from_utf8(full.read_snapshot(genuine).unwrap()).unwrap();
    let forged = record.replace("host-of-test", "host-of-none");
    assert_ne!(forged, record);
    let object = storage.get(&ObjectKey::Snapshot(genuine)).unwrap();
    let ids = Forger::new(&storage, &auditor).snapshots(forged.as_bytes(), &object);
    for unlock in [&unlock, &auditor] {
        let (world, repository) = (World::new(), shelf::open(&storage, unlock, None).unwrap());
        assert_eq!(states(&repository), [1, 2, 3].map(shelf::state));
        shelf::published(&repository, &world).unwrap();
        let problems = world.problems();
        for id in &ids {
            let told = problems.iter().any(|problem| problem.contains(&id.short()) && problem.contains("not signed"));
            assert!(told, "{problems:?}");
            assert_eq!(repository.read_snapshot(*id).unwrap_err().kind(), ErrorKind::Damaged);
        }
        assert_eq!(shelf::check(&repository, DataSubset::All).unwrap().len(), ids.len());
    }
    let before = storage.list(ObjectKind::Pack).unwrap();
    prune(&full, EVERYTHING).unwrap_err();
    assert_eq!(storage.list(ObjectKind::Pack).unwrap(), before);
    for id in ids {
        full.remove_snapshot(id).unwrap();
    }
    prune(&full, EVERYTHING).unwrap();
    assert_eq!(states(&full), [1, 2, 3].map(shelf::state));
    assert_eq!(shelf::check(&full, DataSubset::All).unwrap(), Vec::<String>::new());
}

#[test]
fn a_segment_or_footer_that_a_reader_forges_keeps_no_chunk_from_being_stored() {
    let (storage, unlock, auditor) = repository();
    let (wanted, forger) = (noise(77, 3000), Forger::new(&storage, &auditor));
    let state = State::from([("wanted".to_owned(), wanted.clone())]);
    let row = &storage.list(ObjectKind::Pack).unwrap()[0];
    let ObjectKey::Pack(genuine) = row.key else { panic!("{:?}", row.key) };
    let forged = [ObjectKey::Segment(forger.segment(genuine, row.len, &wanted)), ObjectKey::Pack(forger.pack(&wanted))];
    let (world, full) = (World::new(), shelf::open(&storage, &unlock, None).unwrap());
    full.refresh(&world.context()).unwrap();
    full.learn_packs(&world.context()).unwrap();
    for key in &forged {
        assert!(world.problems().iter().any(|problem| problem.starts_with(&key.path())), "{:?}", world.problems());
    }
    let id = full.chunk_id(&wanted);
    assert_eq!(full.index().contains(&[id]).unwrap(), [false]);
    shelf::save(&full, &World::new(), &state, 4).unwrap();
    let full = shelf::open(&storage, &unlock, None).unwrap();
    assert_eq!(states(&full).pop(), Some(state));
    let found = shelf::check(&full, DataSubset::All).unwrap();
    assert!(forged.iter().all(|key| found.iter().any(|problem| problem.starts_with(&key.path()))), "{found:?}");
}

#[test]
fn a_retired_list_or_a_config_that_a_reader_forges_does_not_open() {
    let (storage, unlock, auditor) = repository();
    let (forger, full) = (Forger::new(&storage, &auditor), shelf::open(&storage, &unlock, None).unwrap());
    let packs = storage.list(ObjectKind::Pack).unwrap();
    for key in [&forger.read().record, &forger.rights.index] {
        let id = RetiredId::from_bytes([3; 16]);
        let list = envelope::seal_record(ObjectType::Retired, key, None, &[], b"{}").unwrap();
        forger.put(ObjectKey::Retired(id), &list);
        assert_eq!(retired::list(&full).unwrap_err().kind(), ErrorKind::Damaged);
        prune(&full, EVERYTHING).unwrap_err();
        assert_eq!(storage.list(ObjectKind::Pack).unwrap(), packs);
        storage.delete(&ObjectKey::Retired(id)).unwrap();
    }
    let genuine = storage.get(&ObjectKey::Config).unwrap().to_vec();
    let head = ConfigHead::read(&genuine).unwrap();
    let json = br#"{"created_at":"2026-09-21T12:00:00Z","pack_len":65536,"frame_len":1024,"parity":500}"#;
    let own = forger.signer.verifier().public();
    for (public, kind) in [(head.public, ErrorKind::Damaged), (own, ErrorKind::WrongKey)] {
        let extra = ConfigHead { public, ..head }.encode();
        let config =
            envelope::seal_record(ObjectType::Config, &forger.read().record, Some(&forger.signer), &extra, json);
        storage.overwrite(&ObjectKey::Config, &config.unwrap());
        for unlock in [&unlock, &auditor] {
            assert_eq!(shelf::open(&storage, unlock, None).err().unwrap().kind(), kind);
        }
    }
}

#[test]
fn a_pack_with_the_footer_of_another_is_found_out_and_hides_nothing() {
    let (storage, unlock, auditor) = repository();
    let (forger, full) = (Forger::new(&storage, &auditor), shelf::open(&storage, &unlock, None).unwrap());
    let mut hollow = Vec::new();
    for row in storage.list(ObjectKind::Pack).unwrap() {
        let ObjectKey::Pack(id) = row.key else { continue };
        let frames = full.read_pack_entry(id, row.len).unwrap().frames;
        hollow.push(forger.hollow(&storage.get(&row.key).unwrap(), &frames));
    }
    for unlock in [&unlock, &auditor] {
        let repository = shelf::open(&storage, unlock, None).unwrap();
        repository.learn_packs(&World::new().context()).unwrap();
        assert_eq!(states(&repository), [1, 2, 3].map(shelf::state));
    }
    let found = shelf::check(&full, DataSubset::All).unwrap();
    for id in &hollow {
        let path = ObjectKey::Pack(*id).path();
        assert!(found.iter().any(|problem| problem.starts_with(&path)), "{path}: {found:?}");
    }
    // A copy takes none of it, whether it takes frames as they are or not.
    let twin = Arc::new(MemoryStorage::new());
    full.create_twin(&*twin, &unlock, "twin", &Config::new(Timestamp::UNIX_EPOCH)).unwrap();
    let target = shelf::open(&twin, &unlock, None).unwrap();
    let world = World::new();
    let app = App { context: world.context(), ledger: &world.ledger, variable: &|_| None };
    of_repositories(app, &full, &target, &Wish::Fitting(forget::Only::default()), false).unwrap();
    assert_eq!(states(&target), [1, 2, 3].map(shelf::state));
}
