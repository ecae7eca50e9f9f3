//! What arrives compressed is stored as its plain bytes, and comes back bit for bit, whoever compressed it.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use compline::archive::snapshot::ReflateStats;
use compline::archive::{
    ArchivePath, ArchiveReader, ArchiveWriter, CaptureSink, Entry, EntryKind, FilesSource, Parent,
};
use compline::chunker::Profile;
use compline::observer::Counter;
use compline::reflate::Policy;
use compline::storage::{MemoryStorage, ObjectKind, Storage};
use compline::store::check::DataSubset;
use compline::store::{Repository, Unlock};

use crate::shelf::{self, State};
use crate::support::World;
use crate::support::dump::Dump;
use crate::support::gzip::gzip;
use crate::support::nasty::noise;

struct Shelf {
    storage: Arc<MemoryStorage>,
    unlock: Unlock,
    cache: tempfile::TempDir,
}

impl Shelf {
    fn new() -> Self {
        let storage = Arc::new(MemoryStorage::new());
        let unlock = shelf::create(&*storage);
        Self { storage, unlock, cache: tempfile::tempdir().unwrap() }
    }

    fn open(&self) -> Repository {
        shelf::open(&self.storage, &self.unlock, Some(self.cache.path())).unwrap()
    }

    fn len(&self) -> u64 {
        self.storage.list(ObjectKind::Pack).unwrap().iter().map(|row| row.len).sum()
    }
}

/// Stores one stream; its entry, and what was done about it.
fn store(repository: &Repository, bytes: &[u8], policy: Policy, parent: Option<&Entry>) -> (Entry, ReflateStats) {
    let world = World::new();
    let mut archive = ArchiveWriter::new(repository, false, Vec::new(), world.context()).unwrap();
    let parent = parent.map(|root| Parent { root: root.clone(), tells_all: true });
    let mut component = archive.component("it", Profile::named("db-text").unwrap(), parent, world.context());
    component.reflate(policy);
    component.put_stream(&ArchivePath::root(), &mut &bytes[..]).unwrap();
    let finished = component.finish().unwrap();
    assert_eq!((finished.stats.bytes_read, finished.stats.bytes_logical), (bytes.len() as u64, bytes.len() as u64));
    archive.discard().unwrap();
    (finished.root, finished.stats.reflated)
}

fn load(repository: &Repository, entry: &Entry) -> Vec<u8> {
    let world = World::new();
    let EntryKind::File(content) = &entry.kind else { panic!("no stream") };
    let mut bytes = Vec::new();
    ArchiveReader::new(repository, world.context()).open(content).read_to_end(&mut bytes).unwrap();
    bytes
}

/// Stores and loads; whether anything was taken apart.
fn goes_through(name: &str, bytes: &[u8], policy: Policy) -> ReflateStats {
    let shelf = Shelf::new();
    let repository = shelf.open();
    let (entry, stats) = store(&repository, bytes, policy, None);
    assert!(load(&repository, &entry) == bytes, "{name} came back different");
    println!(
        "{name:28} {:>9} bytes: {:>2} members, {:>9} deflated, {:>9} plain, {:>6} of corrections; {} refused",
        bytes.len(),
        stats.members,
        stats.bytes_deflated,
        stats.bytes_plain,
        stats.bytes_corrections,
        stats.members_refused
    );
    stats
}

/// Nearly 2 MB of text, and 100 kB that don't compress.
fn text() -> Vec<u8> {
    let mut text = Dump::new(3, 12_000).text();
    text.extend(noise(5, 100_000));
    text
}

/// What a program makes of its input; none where it isn't installed.
fn piped(argv: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let spawned = Command::new(argv[0]).args(&argv[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = spawned else {
        println!("SKIPPED: {} is not installed", argv[0]);
        return None;
    };
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{argv:?}");
    Some(output.stdout)
}

#[test]
fn what_any_program_compressed_comes_back_bit_for_bit() {
    let text = text();
    let short = &text[..200_000];
    let python = "import sys,zlib;w=zlib.compressobj(int(sys.argv[1]),8,31,int(sys.argv[2]),int(sys.argv[3]));\
                  b=sys.stdin.buffer.read();sys.stdout.buffer.write(w.compress(b)+w.flush())";
    let mut made: Vec<(String, Option<Vec<u8>>, bool)> = Vec::new();
    for level in 1..=9 {
        made.push((format!("gzip -{level}"), piped(&["gzip", "-n", &format!("-{level}")], &text), true));
    }
    for (level, memory, strategy, opens) in [
        ("1", "8", "0", true),
        ("6", "1", "0", true),
        ("9", "9", "0", true),
        ("6", "8", "1", true),
        ("6", "8", "2", true),
        ("6", "8", "3", true),
        ("6", "8", "4", true),
        ("0", "8", "0", false),
    ] {
        let name = format!("zlib {level} memory {memory} way {strategy}");
        made.push((name, piped(&["python3", "-c", python, level, memory, strategy], &text), opens));
    }
    made.push(("gzip --rsyncable".into(), piped(&["gzip", "-n", "--rsyncable"], &text), true));
    made.push(("pigz".into(), piped(&["pigz", "-n"], &text), true));
    made.push(("pigz -11".into(), piped(&["pigz", "-n", "-11"], short), true));
    made.push(("libdeflate 6".into(), piped(&["libdeflate-gzip", "-6"], &text), true));
    made.push(("libdeflate 12".into(), piped(&["libdeflate-gzip", "-12"], &text), true));
    made.push(("busybox gzip".into(), piped(&["busybox", "gzip"], &text), true));
    made.push(("7-Zip".into(), piped(&["7z", "a", "-tgzip", "-si", "-so", "x.gz"], &text), true));
    made.push(("7-Zip, ultra".into(), piped(&["7z", "a", "-tgzip", "-mx=9", "-si", "-so", "x.gz"], short), true));
    for level in [1, 2, 6, 9, 10] {
        made.push((format!("miniz {level}"), Some(gzip(&text, level)), true));
    }
    for sample in ["go-1.gz", "go-6.gz", "go-9.gz", "go-huffman.gz", "go.zlib", "java.gz", "java.jar"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples").join(sample);
        made.push((sample.into(), Some(std::fs::read(path).unwrap()), sample != "go-huffman.gz"));
    }
    for (name, bytes, opens) in made {
        let Some(bytes) = bytes else { continue };
        let stats = goes_through(&name, &bytes, Policy::Auto);
        let is_open = (stats.members > 0, stats.members_refused == 0) == (true, true);
        assert_eq!(is_open, opens, "{name}: {stats:?}");
    }
}

#[test]
fn members_in_a_row_in_a_stream_cut_short_or_with_more_behind_them_come_back() {
    let (text, more) = (text(), Dump::new(4, 3000).text());
    let member = gzip(&text, 6);
    let several = [gzip(&more, 6), gzip(&text, 9), gzip(b"", 6), gzip(b"short", 6), gzip(&more, 1)].concat();
    assert!(goes_through("several in a row", &several, Policy::Auto).members >= 3);
    let inside = [more.clone(), member.clone(), noise(9, 70_001), member.clone(), more.clone()].concat();
    assert_eq!(goes_through("inside a stream", &inside, Policy::Auto).members, 2);
    for len in [1, 2, 3, 9, 10, 11, 400, 5000, member.len() / 2, member.len() - 9, member.len() - 8, member.len() - 1] {
        goes_through(&format!("cut to {len}"), &member[..len], Policy::Always);
    }
    let mut with_garbage = member.clone();
    with_garbage.extend(noise(10, 1000));
    assert_eq!(goes_through("garbage behind it", &with_garbage, Policy::Auto).members, 1);
    for at in [5, 12, 100, 20_000, member.len() / 2, member.len() - 10] {
        let mut flipped = member.clone();
        flipped[at] ^= 0x10;
        goes_through(&format!("a bit flipped at {at}"), &flipped, Policy::Always);
    }
    let padded = {
        let mut padded = member.clone();
        // The last byte of the deflated data, whose highest bits nobody reads.
        let at = padded.len() - 9;
        padded[at] |= 0x80;
        padded
    };
    goes_through("bits behind the end", &padded, Policy::Always);
    let magic: Vec<u8> = std::iter::repeat_n([0x1f, 0x8b, 8, 0], 50_000).flatten().collect();
    assert_eq!(goes_through("nothing but beginnings", &magic, Policy::Always).members, 0);
}

#[test]
fn a_bomb_is_left_closed_beyond_a_bound() {
    let bomb = piped(&["gzip", "-n", "-9"], &vec![0; 80 << 20]).unwrap();
    let stats = goes_through("a bomb", &bomb, Policy::Always);
    assert!(stats.members == 1 && stats.bytes_plain < 72 << 20, "{stats:?}");
}

#[test]
fn a_compressed_dump_costs_what_its_rows_do() {
    let grown = |pack: &dyn Fn(&[u8]) -> Vec<u8>| {
        let shelf = Shelf::new();
        let repository = shelf.open();
        let mut dump = Dump::new(1, 12_000);
        let mut grown = Vec::new();
        for night in 0..4 {
            let before = shelf.len();
            let state = State::from([("db.sql".to_owned(), pack(&dump.text()))]);
            shelf::save_cut(&repository, &World::new(), &state, night, Profile::named("db-text").unwrap()).unwrap();
            grown.push(shelf.len() - before);
            dump.pass_day();
        }
        assert_eq!(shelf::check(&repository, DataSubset::All).unwrap(), Vec::<String>::new());
        grown
    };
    let (plain, packed) = (grown(&<[u8]>::to_vec), grown(&|bytes| piped(&["gzip", "-n", "-6"], bytes).unwrap()));
    let sum = |grown: &[u64]| grown[1..].iter().sum::<u64>();
    println!("plain {plain:?}, compressed {packed:?}");
    // Corrections of words drawn at random are many: half of it. Of real dumps they are a tenth (benches/RESULTS.md).
    assert!(sum(&packed) <= sum(&plain) * 3, "plain {plain:?}, compressed {packed:?}");
    assert!(sum(&packed) * 4 <= packed[0], "{packed:?}");
}

#[test]
fn what_is_known_is_not_found_out_again() {
    let shelf = Shelf::new();
    let bytes = gzip(&text(), 6);
    let repository = shelf.open();
    let (first, stats) = store(&repository, &bytes, Policy::Auto, None);
    assert_eq!((stats.members, stats.pieces_known), (1, 0));
    // Among other bytes, under another name, without a parent.
    let (_, stats) = store(&repository, &[b"header".as_slice(), &bytes].concat(), Policy::Auto, None);
    assert!(stats.pieces_known >= 2, "{stats:?}");
    // Where the cache is lost, the parent knows.
    let elsewhere = shelf::open(&shelf.storage, &shelf.unlock, None).unwrap();
    let world = World::new();
    elsewhere.refresh(&world.context()).unwrap();
    let (second, stats) = store(&elsewhere, &bytes, Policy::Auto, Some(&first));
    assert!(stats.pieces_known >= 2, "{stats:?}");
    assert_eq!(first.kind, second.kind);
}

#[test]
fn never_leaves_everything_as_it_is() {
    let stats = goes_through("never", &gzip(&text(), 6), Policy::Never);
    assert_eq!(stats, ReflateStats::default());
}

#[test]
fn files_are_taken_apart_like_streams_and_unchanged_ones_are_not_read() {
    let (shelf, place) = (Shelf::new(), tempfile::tempdir().unwrap());
    let write = |name: &str, bytes: &[u8]| std::fs::write(place.path().join(name), bytes).unwrap();
    write("long.gz", &gzip(&text(), 6));
    write("short.gz", &gzip(&Dump::new(7, 300).text(), 6));
    write("tiny.gz", &gzip(b"tiny", 6));
    write("text", b"text");
    let repository = shelf.open();
    let capture = |parent: Option<&Entry>| {
        let world = World::new();
        let mut archive = ArchiveWriter::new(&repository, false, Vec::new(), world.context()).unwrap();
        let parent = parent.map(|root| Parent { root: root.clone(), tells_all: true });
        let mut component = archive.component("it", Profile::default(), parent, world.context());
        component.put_files(&FilesSource { paths: vec![place.path().to_owned()], ..FilesSource::default() }).unwrap();
        let finished = component.finish().unwrap();
        archive.discard().unwrap();
        (finished, world.ledger.get(Counter::BytesRead))
    };
    let (first, _) = capture(None);
    assert_eq!(first.stats.reflated.members, 2);
    let (second, read) = capture(Some(&first.root));
    assert_eq!((second.root.kind.clone(), read), (first.root.kind.clone(), 0));
    let world = World::new();
    let reader = ArchiveReader::new(&repository, world.context());
    for name in ["long.gz", "short.gz", "tiny.gz", "text"] {
        let path = ArchivePath::from_path(&place.path().join(name)).unwrap();
        let entry = reader.entry(&first.root, &path).unwrap();
        assert!(load(&repository, &entry) == std::fs::read(place.path().join(name)).unwrap(), "{name}");
        assert_eq!(entry.len(), std::fs::metadata(place.path().join(name)).unwrap().len());
    }
}
