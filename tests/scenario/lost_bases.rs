//! A pack that others are deltas of is lost: that is told, nothing wrong is given out, and the next backup heals it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use compline::archive::content::Leaves;
use compline::archive::{ArchivePath, ArchiveReader, ComponentReader, EntryKind};
use compline::compress;
use compline::delta::{self, BaseIndex};
use compline::error::ErrorKind;
use compline::id::{ChunkId, PackId};
use compline::storage::{MemoryStorage, ObjectKey, ObjectKind, Storage};
use compline::store::check::DataSubset;
use compline::store::envelope::{Header, ObjectType};
use compline::store::index_segment::PackEntry;
use compline::store::pack::{self, Frame, FrameKind, Lineage};
use compline::store::pack_reader::PackKeys;
use compline::store::rights::Rights;
use compline::store::{ChunkSource, Repository, Role, Unlock};
use tempfile::TempDir;

use crate::shelf::{self, State};
use crate::support::World;
use crate::support::dump::Dump;
use crate::support::nasty::noise;

/// Every pack that reading `nights` takes: their trees, their content, and all that those are deltas of.
pub fn packs_of_nights(repository: &Repository, nights: impl Iterator<Item = usize>) -> HashSet<PackId> {
    let world = World::new();
    let published = shelf::published(repository, &world).unwrap();
    let mut wanted = Vec::new();
    for night in nights {
        let archive = ArchiveReader::new(repository, world.context());
        let reader =
            ComponentReader::new(&archive, published[night].snapshot.component(shelf::COMPONENT).unwrap()).unwrap();
        let EntryKind::Directory(content) = &reader.root().kind else { panic!("a directory") };
        wanted.extend(content.pieces.iter().map(|piece| piece.id));
        let chunks = repository.reader(world.context());
        let visit = &mut |_: &ArchivePath, entry: &compline::archive::Entry| {
            if let EntryKind::File(content) | EntryKind::Directory(content) = &entry.kind {
                wanted.extend(content.pieces.iter().map(|piece| piece.id));
                wanted.extend(Leaves::new(&chunks, content).map(|piece| piece.unwrap().id));
            }
            Ok(())
        };
        archive.walk(reader.root(), &ArchivePath::root(), visit).unwrap();
    }
    let mut packs = HashSet::new();
    let mut seen = HashSet::new();
    while let Some(id) = wanted.pop() {
        if !seen.insert(id) {
            continue;
        }
        let place = repository.index().places(&[id]).unwrap().remove(0).unwrap();
        packs.insert(place.frame.pack);
        wanted.extend(place.frame.lineage.iter().flat_map(|lineage| lineage.bases.clone()));
    }
    packs
}

struct Lost {
    storage: Arc<MemoryStorage>,
    unlock: Unlock,
    cache: TempDir,
}

const NIGHTS: u64 = 4;

fn dump(night: u64) -> State {
    State::from([("dump".to_owned(), Dump::new(3, 4000).after(night).text())])
}

impl Lost {
    fn new() -> Self {
        let storage = Arc::new(MemoryStorage::new());
        let unlock = shelf::create(&*storage);
        let cache = TempDir::new().unwrap();
        for night in 0..NIGHTS {
            let repository = shelf::open(&storage, &unlock, Some(cache.path())).unwrap();
            shelf::save(&repository, &World::new(), &dump(night), night).unwrap();
        }
        Self { storage, unlock, cache }
    }

    fn cold(&self) -> Repository {
        shelf::open(&self.storage, &self.unlock, None).unwrap()
    }

    fn warm(&self) -> Repository {
        shelf::open(&self.storage, &self.unlock, Some(self.cache.path())).unwrap()
    }

    fn entries(&self) -> Vec<PackEntry> {
        let repository = self.cold();
        let listed = self.storage.list(ObjectKind::Pack).unwrap();
        let entry = |row: &compline::storage::Listed| match row.key {
            ObjectKey::Pack(id) => repository.read_pack_entry(id, row.len).unwrap(),
            _ => panic!("a pack"),
        };
        listed.iter().map(entry).filter(|entry| entry.role == Role::Content).collect()
    }

    /// The content pack with the most bases in it.
    fn pack_of_bases(&self) -> PackId {
        let entries = self.entries();
        let frames: Vec<&Frame> = entries.iter().flat_map(|entry| &entry.frames).collect();
        let bases: HashSet<ChunkId> = frames.iter().flat_map(|frame| bases(frame)).collect();
        let count = |entry: &PackEntry| {
            let chunks = entry.frames.iter().flat_map(|frame| &frame.chunks);
            chunks.filter(|(id, _)| bases.contains(id)).count()
        };
        let best = entries.iter().max_by_key(|entry| count(entry)).unwrap();
        assert!(count(best) > 0);
        best.id
    }

    /// The content packs in which nothing but deltas lie.
    fn packs_of_deltas(&self) -> Vec<PackId> {
        let only_deltas = |entry: &PackEntry| entry.frames.iter().all(|frame| frame.kind == FrameKind::Delta);
        self.entries().into_iter().filter(only_deltas).map(|entry| entry.id).collect()
    }

    /// How each night comes back: whole, or as damaged.
    fn readable(repository: &Repository, what: &str) -> Vec<bool> {
        let world = World::new();
        let published = shelf::published(repository, &world).unwrap();
        let nights: BTreeMap<u64, _> = (0..).zip(published).collect();
        let read = |(night, published): (&u64, &_)| match shelf::state_of(repository, &world, published) {
            Ok(state) => {
                assert!(state == dump(NIGHTS.min(*night + 1) - 1), "{what}: night {night} is wrong");
                true
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damaged, "{what}: {}", error.chain());
                false
            }
        };
        nights.iter().map(read).collect()
    }

    /// Saves the newest night once more; it must come back, whoever reads it.
    fn heals(&self, machine: Machine, what: &str) {
        shelf::save(&open(machine, self), &World::new(), &dump(NIGHTS - 1), NIGHTS).unwrap();
        for (reader, repository) in [("writer's machine", &open(machine, self)), ("another", &self.cold())] {
            let readable = Self::readable(repository, what);
            assert_eq!(readable.last(), Some(&true), "{what}, read by {reader}: {readable:?}");
        }
    }
}

fn bases(frame: &Frame) -> Vec<ChunkId> {
    if frame.kind != FrameKind::Delta {
        return Vec::new();
    }
    Lineage::decode(&frame.extension).unwrap().bases
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Machine {
    Warm,
    Cold,
    /// Not even the segments are left.
    WithoutSegments,
}

fn after(damage: impl Fn(&Lost)) -> impl Iterator<Item = (Machine, Lost)> {
    [Machine::Warm, Machine::Cold, Machine::WithoutSegments].into_iter().map(move |machine| {
        let lost = Lost::new();
        damage(&lost);
        if machine == Machine::WithoutSegments {
            for row in lost.storage.list(ObjectKind::Segment).unwrap() {
                lost.storage.delete(&row.key).unwrap();
            }
        }
        (machine, lost)
    })
}

fn open(machine: Machine, lost: &Lost) -> Repository {
    if machine == Machine::Warm { lost.warm() } else { lost.cold() }
}

#[test]
fn bases_that_are_gone_are_told_and_stored_again_by_the_next_backup() {
    for (machine, lost) in after(|lost| lost.storage.delete(&ObjectKey::Pack(lost.pack_of_bases())).unwrap()) {
        let what = format!("{machine:?}");
        for subset in [DataSubset::Nothing, DataSubset::All] {
            let problems = shelf::check(&open(machine, &lost), subset).unwrap();
            // What hit the bases hits the dumps that are made of them.
            let told = problems.iter().filter(|problem| problem.contains("/dump: Its content is incomplete"));
            assert!(told.count() > 0, "{what} {subset:?}: {problems:#?}");
        }
        assert_eq!(Lost::readable(&open(machine, &lost), &what).last(), Some(&false), "{what}");
        lost.heals(machine, &what);
        // Nothing was forgotten by the run after that either.
        lost.heals(machine, &what);
    }
}

#[test]
fn bases_that_are_cut_short_are_as_good_as_gone() {
    let cut = |lost: &Lost| {
        let key = ObjectKey::Pack(lost.pack_of_bases());
        let bytes = lost.storage.get(&key).unwrap().to_vec();
        lost.storage.overwrite(&key, &bytes[..bytes.len() / 2]);
    };
    for (machine, lost) in after(cut) {
        let what = format!("{machine:?}");
        assert!(!shelf::check(&open(machine, &lost), DataSubset::Nothing).unwrap().is_empty(), "{what}");
        lost.heals(machine, &what);
    }
}

#[test]
fn bases_that_rotted_are_found_by_reading_and_never_give_wrong_bytes() {
    let flip = |lost: &Lost| {
        let key = ObjectKey::Pack(lost.pack_of_bases());
        let mut bytes = lost.storage.get(&key).unwrap().to_vec();
        // In every frame, and in none of what tells where they lie.
        for frame in
            lost.entries().iter().filter(|entry| entry.id == lost.pack_of_bases()).flat_map(|entry| &entry.frames)
        {
            bytes[usize::try_from(frame.offset).unwrap() + 20] ^= 4;
        }
        lost.storage.overwrite(&key, &bytes);
    };
    for (machine, lost) in after(flip) {
        let what = format!("{machine:?}");
        let rotten = ObjectKey::Pack(lost.pack_of_bases()).path();
        let problems = shelf::check(&open(machine, &lost), DataSubset::All).unwrap();
        assert!(problems.iter().any(|problem| problem.starts_with(&rotten)), "{what}: {problems:#?}");
        assert!(
            problems.iter().any(|problem| problem.contains("a delta in it can't be read")),
            "{what}: {problems:#?}"
        );
        assert_eq!(Lost::readable(&open(machine, &lost), &what).last(), Some(&false), "{what}");
        // A backup can't see it, and must not fail on bases that can't be read.
        shelf::save(&open(machine, &lost), &World::new(), &dump(NIGHTS), NIGHTS).unwrap();
    }
}

#[test]
fn deltas_that_are_gone_cost_no_older_night() {
    let delete = |lost: &Lost| {
        let packs = lost.packs_of_deltas();
        assert!(!packs.is_empty());
        for pack in packs {
            lost.storage.delete(&ObjectKey::Pack(pack)).unwrap();
        }
    };
    for (machine, lost) in after(delete) {
        let what = format!("{machine:?}");
        let readable = Lost::readable(&open(machine, &lost), &what);
        assert_eq!((readable[0], readable.last()), (true, Some(&false)), "{what}");
        lost.heals(machine, &what);
    }
}

#[test]
fn bases_that_come_back_make_everything_readable_again() {
    let lost = Lost::new();
    let key = ObjectKey::Pack(lost.pack_of_bases());
    let bytes = lost.storage.get(&key).unwrap().to_vec();
    lost.storage.delete(&key).unwrap();
    lost.heals(Machine::Warm, "without");
    lost.storage.put_new(&key, &bytes).unwrap();
    for (reader, repository) in [("warm", lost.warm()), ("cold", lost.cold())] {
        assert!(Lost::readable(&repository, reader).iter().all(|whole| *whole), "{reader}");
        assert_eq!(shelf::check(&repository, DataSubset::All).unwrap(), Vec::<String>::new(), "{reader}");
    }
    lost.heals(Machine::Warm, "with");
}

/// A content pack of deltas, sealed by hand: each chunk, its depth, and its base.
fn pack_of_deltas(keys: &PackKeys, salt: u8, chunks: &[(&[u8], u8, &[u8])]) -> Vec<u8> {
    let header = Header { detail: Role::Content as u8, salt: [salt; 32] }.encode(ObjectType::Pack);
    let mut pack = header.clone();
    let mut frames = Vec::new();
    for (bytes, depth, base) in chunks {
        let mut index = BaseIndex::default();
        index.fill(base);
        let delta = delta::encode(&index, base, bytes).unwrap().bytes;
        let mut sealed = compress::always_compress(6, &delta).unwrap();
        let extension = Lineage { depth: *depth, generation: 1, bases: vec![keys.chunk_id(base)] }.encode();
        let (offset, plain_len) = (pack.len() as u64, bytes.len() as u64);
        let aad = pack::frame_aad(FrameKind::Delta, plain_len, &extension);
        keys.frames(Role::Content, &header).unwrap().seal(offset, &aad, &mut sealed);
        pack.extend_from_slice(&sealed);
        let (sealed_len, chunks) = (sealed.len() as u64, vec![(keys.chunk_id(bytes), plain_len)]);
        frames.push(Frame { offset, sealed_len, kind: FrameKind::Delta, extension, plain_len, chunks });
    }
    let mut footer = pack::encode_footer(&frames);
    keys.signer().unwrap().sign(&header, &mut footer);
    keys.index().object_key(&header).seal(pack.len() as u64, &header, &mut footer);
    pack.extend_from_slice(&footer);
    pack.extend_from_slice(&pack::encode_trailer(u32::try_from(footer.len()).unwrap()));
    pack
}

#[test]
fn deltas_of_each_other_are_an_error_and_never_a_loop() {
    let (x, mut y) = (noise(1, 50_000), noise(1, 50_000));
    y[25_000] ^= 1;
    // Whatever depths they claim, and in one pack or in two.
    for depths in [(1, 1), (1, 2), (2, 1), (255, 254), (255, 255)] {
        for is_one_pack in [true, false] {
            let what = format!("{depths:?}, in one pack: {is_one_pack}");
            let storage = Arc::new(MemoryStorage::new());
            let unlock = shelf::create(&*storage);
            let repository = shelf::open(&storage, &unlock, None).unwrap();
            let rights = Rights::all(repository.master().unwrap().clone()).unwrap();
            let keys = PackKeys::new(repository.id(), &rights).unwrap();
            let (over_y, over_x) = ((&x[..], depths.0, &y[..]), (&y[..], depths.1, &x[..]));
            let packs = if is_one_pack {
                vec![pack_of_deltas(&keys, 1, &[over_y, over_x])]
            } else {
                vec![pack_of_deltas(&keys, 1, &[over_y]), pack_of_deltas(&keys, 2, &[over_x])]
            };
            for pack in packs {
                let pack_id = PackId::from_bytes(*blake3::hash(&pack).as_bytes());
                storage.put_new(&ObjectKey::Pack(pack_id), &pack).unwrap();
            }
            let repository = shelf::open(&storage, &unlock, None).unwrap();
            let world = World::new();
            let ids = [keys.chunk_id(&x), keys.chunk_id(&y)];
            for id in ids {
                let error = repository.reader(world.context()).get(&id).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Damaged, "{what}: {}", error.chain());
            }
            let error = repository.reader(world.context()).get_many(&ids, &|_, _| Ok(())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{what}: {}", error.chain());
            // They are in nobody's way, nor a problem as long as nobody needs them.
            for subset in [DataSubset::Nothing, DataSubset::All] {
                let problems = shelf::check(&shelf::open(&storage, &unlock, None).unwrap(), subset).unwrap();
                assert_eq!(problems, Vec::<String>::new(), "{what}, {subset:?}");
            }
            let state = State::from([("x".to_owned(), [&x[..], &y].concat())]);
            shelf::save(&repository, &World::new(), &state, 1).unwrap();
            let published = shelf::published(&repository, &world).unwrap();
            assert!(shelf::state_of(&repository, &world, &published[0]).unwrap() == state, "{what}");
        }
    }
}
