//! compline writes, the reference reader restores.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use compline::archive::snapshots;
use compline::archive::{
    ArchivePath, ArchiveWriter, CaptureSink, ComponentRecord, Entry, FilesSource, Parent, Snapshot,
};
use compline::chunker::Profile;
use compline::clock::FixedClock;
use compline::error::ErrorKind;
use compline::observer::{Context, Ledger};
use compline::storage::{LocalStorage, MemoryStorage};
use compline::store::{Repository, Unlock};
use jiff::Timestamp;
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::reference_reader::{self, Found, Key};
use super::valid::SNAPSHOT_MINIMAL;

static NEVER: AtomicBool = AtomicBool::new(false);

fn noise(len: usize, seed: &str) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// About 3 MB of a table as text.
fn rows() -> Vec<u8> {
    let row = |n: usize| format!("{n}\tcustomer {}\t{}.00\topen\n", n * 7919 % 100_003, n * 31 % 9973);
    (0..90_000).map(row).collect::<String>().into_bytes()
}

/// A gzip member. Its sum is none.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    [b"\x1f\x8b\x08\0time\0\xff".as_slice(), &miniz_oxide::deflate::compress_to_vec(bytes, 6), b"sum and length"]
        .concat()
}

/// Another night: one row in 700 changed, some are gone, some are new, all over the table.
fn edit(table: &mut Vec<u8>, night: usize) {
    let lines: Vec<&[u8]> = table.split_inclusive(|byte| *byte == b'\n').collect();
    let mut edited = Vec::new();
    for (n, line) in lines.into_iter().enumerate() {
        match (n + night * 97) % 2100 {
            0 => edited.extend_from_slice(format!("{n}\tchanged in night {night}\n").as_bytes()),
            700 => edited.extend_from_slice(&[line, b"a new row\n"].concat()),
            1400 => {}
            _ => edited.extend_from_slice(line),
        }
    }
    *table = edited;
}

/// Odd names, modes, links, holes, long and many files.
fn build(root: &Path) {
    let write = |name: &[u8], bytes: &[u8]| fs::write(root.join(OsStr::from_bytes(name)), bytes).unwrap();
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    write(b"not \xff utf-8\n", b"x");
    write(b"nothing", b"");
    write(b"a/text", &b"the last office of the day\n".repeat(10_000));
    write(b"a/b/noise", &noise(3_000_000, "noise"));
    write(b"a/table", &rows());
    write(b"a/table.gz", &gzip(&rows()));
    write(b"a/b/several.gz", &[gzip(&rows()[..40_000]), noise(500, "between"), gzip(&rows()[..300_000])].concat());
    for n in 0..300 {
        write(format!("a/b/c/{n}").as_bytes(), &noise(n * 7, "small"));
    }
    symlink("../nowhere/\u{fffd}", root.join("link")).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(5 << 20).unwrap();
    sparse.write_all_at(b"island", 3 << 20).unwrap();
    fs::set_permissions(root.join("nothing"), fs::Permissions::from_mode(0o4755)).unwrap();
}

/// What a restore of `path` and all below it must give.
fn expected(path: &Path, name: Vec<u8>, found: &mut BTreeMap<Vec<u8>, Found>) {
    let stat = fs::symlink_metadata(path).unwrap();
    let (mut target, mut bytes) = (Vec::new(), Vec::new());
    let letter = if stat.is_dir() {
        for below in fs::read_dir(path).unwrap() {
            let below = below.unwrap();
            expected(&below.path(), [&name, b"/".as_slice(), below.file_name().as_bytes()].concat(), found);
        }
        'd'
    } else if stat.is_symlink() {
        target = fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec();
        'l'
    } else {
        bytes = fs::read(path).unwrap();
        '-'
    };
    let mtime = (stat.mtime(), u32::try_from(stat.mtime_nsec()).unwrap());
    let (mode, uid, gid) = (u64::from(stat.mode() & 0o7777), u64::from(stat.uid()), u64::from(stat.gid()));
    found.insert(name, Found { letter, mode, uid, gid, mtime, target, bytes, xattrs: Vec::new() });
}

fn component(name: &str, kind: &str, root: &Entry) -> ComponentRecord {
    let json = serde_json::json!({
        "name": name, "kind": kind, "role": "source", "status": "complete", "chunker": "default",
        "started_at": Timestamp::UNIX_EPOCH, "finished_at": Timestamp::UNIX_EPOCH, "stats": {},
        "root": ComponentRecord::encode_root(root),
    });
    serde_json::from_value(json).unwrap()
}

/// What is in `source` and `dump`, the name of its snapshot, and the root of `files` in it.
struct Night {
    snapshot: String,
    files: Entry,
    tree: BTreeMap<Vec<u8>, Found>,
    dump: Vec<u8>,
}

/// Backs `source` up as the component `files`, compared with an older one, and `dump` as the stream `db/all.sql`.
fn back_up(repository: &Repository, source: &Path, dump: &[u8], older: Option<&Night>) -> Night {
    let (clock, ledger) = (FixedClock(Timestamp::UNIX_EPOCH), Ledger::default());
    let context = Context { clock: &clock, observer: &ledger, interrupt: &NEVER };
    let mut writer = ArchiveWriter::new(repository, false, Vec::new(), context).unwrap();
    let parent = older.map(|night| Parent { root: night.files.clone(), tells_all: true });
    let mut files = writer.component("files", Profile::default(), parent, context);
    files.put_files(&FilesSource { paths: vec![source.to_owned()], ..FilesSource::default() }).unwrap();
    let files = files.finish().unwrap();
    let mut db = writer.component("db", Profile::named("db-page").unwrap(), None, context);
    db.put_stream(&ArchivePath::parse("all.sql").unwrap(), &mut &*dump).unwrap();
    let db = db.finish().unwrap();
    // What is lost is told when the writer begins.
    assert!(ledger.problems().iter().all(|problem| problem.subject.starts_with("packs")), "{:?}", ledger.problems());
    let mut snapshot: Snapshot = serde_json::from_str(SNAPSHOT_MINIMAL).unwrap();
    snapshot.components = vec![component("files", "files", &files.root), component("db", "command", &db.root)];
    let snapshot = writer.publish(&snapshot).unwrap().to_hex();
    let mut tree = BTreeMap::new();
    expected(source, [b"files".as_slice(), source.as_os_str().as_bytes()].concat(), &mut tree);
    Night { snapshot, files: files.root, tree, dump: dump.to_vec() }
}

fn assert_restores(repository: &reference_reader::Repository, nights: &[Night]) {
    let snapshots: BTreeMap<String, _> = repository.snapshots().unwrap().into_iter().collect();
    assert_eq!(snapshots.len(), nights.len());
    for night in nights {
        assert_restores_night(repository.restore(&snapshots[&night.snapshot]).unwrap(), night);
    }
}

fn assert_restores_night(mut restored: BTreeMap<Vec<u8>, Found>, Night { tree: wanted, dump, .. }: &Night) {
    let stream = restored.remove(b"db/all.sql".as_slice()).unwrap();
    assert!(stream.bytes == *dump && stream.letter == '-');
    let top = wanted.keys().next().unwrap();
    restored.retain(|path, _| path.starts_with(top));
    assert_eq!(restored.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    for (path, found) in restored {
        let wanted = &wanted[&path];
        let path = String::from_utf8_lossy(&path);
        assert!(found.bytes == wanted.bytes, "{path} has other bytes");
        let without_bytes = |found: &Found| Found { bytes: Vec::new(), xattrs: Vec::new(), ..found.clone() };
        assert_eq!(without_bytes(&found), without_bytes(wanted), "{path}");
    }
}

#[test]
fn a_snapshot_of_a_later_format_is_called_newer_and_hides_no_other() {
    let (clock, ledger) = (FixedClock(Timestamp::UNIX_EPOCH), Ledger::default());
    let context = Context { clock: &clock, observer: &ledger, interrupt: &NEVER };
    let storage = MemoryStorage::new();
    let (unlock, _) = Unlock::new_key_file().unwrap();
    Repository::create(&storage, &unlock, "", Timestamp::UNIX_EPOCH).unwrap();
    let repository = Repository::open(Box::new(storage), &unlock, None).unwrap();
    let known = repository.publish_snapshot(SNAPSHOT_MINIMAL.as_bytes(), &context).unwrap();
    let later = repository.publish_snapshot(br#"{"format":2,"status":"of a later sort"}"#, &context).unwrap();
    assert_eq!(snapshots::read(&repository, later).unwrap_err().kind(), ErrorKind::UnsupportedFormat);
    let found = snapshots::all(&repository, &context).unwrap();
    assert_eq!(found.iter().map(|published| published.id).collect::<Vec<_>>(), [known]);
    assert_eq!(ledger.problems().len(), 1);
}

#[test]
fn a_reader_written_from_the_specification_restores_what_compline_wrote() {
    let place = TempDir::new().unwrap();
    let (source, location) = (place.path().join("source"), place.path().join("repository"));
    build(&source);
    // Nothing is known of its older versions but what they look like.
    let mut dump = [rows(), noise(3_000_000, "dump")].concat();
    let passphrase = "gr\u{fc}n & long enough";
    let (file, text) = Unlock::new_key_file().unwrap();
    let unlock = Unlock::Passphrase(Zeroizing::new(passphrase.to_owned()));
    let storage = LocalStorage::create(&location).unwrap();
    Repository::create(&storage, &unlock, "first", Timestamp::UNIX_EPOCH).unwrap();
    let repository = Repository::open(Box::new(storage), &unlock, None).unwrap();
    repository.add_key(&file, "second", Timestamp::UNIX_EPOCH).unwrap();
    let mut nights = vec![back_up(&repository, &source, &dump, None)];
    let mut table = rows();
    for night in 1..=3 {
        edit(&mut table, night);
        fs::write(source.join("a/table"), &table).unwrap();
        edit(&mut dump, night);
        nights.push(back_up(&repository, &source, &dump, nights.last()));
    }
    let found = reference_reader::Repository::open(&location, &Key::Passphrase(passphrase)).unwrap();
    assert_restores(&found, &nights);
    // Of the nights after the first, most is stored as what changed, and what changed thrice lies three deltas deep.
    let deepest = found.frames().map(|frame| frame.depth).max();
    let delta_count = found.frames().filter(|frame| frame.kind == 2).count();
    assert!(delta_count >= 20 && deepest >= Some(3), "{delta_count} deltas, {deepest:?} deep");
    // A host that can't read adds to it.
    let (writing, _) = Unlock::new_key_file().unwrap();
    repository.add_write_only_key(&writing, "host", Timestamp::UNIX_EPOCH).unwrap();
    let host = Repository::open(Box::new(LocalStorage::open(&location).unwrap()), &writing, None).unwrap();
    dump.extend(noise(200_000, "written and not read"));
    nights.push(back_up(&host, &source, &dump, None));
    let found = reference_reader::Repository::open(&location, &Key::Passphrase(passphrase)).unwrap();
    assert_restores(&found, &nights);
    // Somebody who was only named opens it too.
    let (identity, recipient) = Unlock::new_identity().unwrap();
    repository.add_key(&Unlock::Recipient(recipient), "somebody", Timestamp::UNIX_EPOCH).unwrap();
    let found = reference_reader::Repository::open(&location, &Key::Identity(&identity)).unwrap();
    assert_restores(&found, &nights);
    // So does somebody who may only look.
    let (reading, reading_text) = Unlock::new_key_file().unwrap();
    repository.add_read_only_key(&reading, "auditor", Timestamp::UNIX_EPOCH).unwrap();
    let found = reference_reader::Repository::open(&location, &Key::File(&reading_text)).unwrap();
    assert_restores(&found, &nights);
    // It needs no index: its map comes from the footers.
    fs::remove_dir_all(location.join("index")).unwrap();
    let found = reference_reader::Repository::open(&location, &Key::File(&text)).unwrap();
    assert_restores(&found, &nights);
    assert!(reference_reader::Repository::open(&location, &Key::Passphrase("wrong")).is_err());
    // What is damaged it heals. Only a short pack: it is slow.
    let shortest = packs(&location).into_iter().min_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap();
    let records = [list(&location.join("keys")), list(&location.join("snapshots"))].concat();
    for path in records.into_iter().chain([location.join("config"), shortest]) {
        let mut bytes = fs::read(&path).unwrap();
        bytes[60] ^= 0x20;
        bytes[9] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    let found = reference_reader::Repository::open(&location, &Key::File(&text)).unwrap();
    assert_restores(&found, &nights);
}

#[test]
fn a_delta_whose_base_was_lost_is_stored_again() {
    // The index knew the pack that is lost, or is made from what is left.
    for is_known in [true, false] {
        let place = TempDir::new().unwrap();
        let (source, location) = (place.path().join("source"), place.path().join("repository"));
        fs::create_dir(&source).unwrap();
        let (unlock, text) = Unlock::new_key_file().unwrap();
        let storage = LocalStorage::create(&location).unwrap();
        Repository::create(&storage, &unlock, "", Timestamp::UNIX_EPOCH).unwrap();
        let open = || Repository::open(Box::new(LocalStorage::open(&location).unwrap()), &unlock, None).unwrap();
        let newest = |night: &Night| {
            let found = reference_reader::Repository::open(&location, &Key::File(&text))?;
            let snapshots: BTreeMap<String, _> = found.snapshots()?.into_iter().collect();
            found.restore(&snapshots[&night.snapshot])
        };
        let remove = |path: &PathBuf| fs::remove_file(path).unwrap();
        let mut repository = open();
        let mut dump = rows();
        let night = back_up(&repository, &source, &dump, None);
        let bases = packs(&location);
        edit(&mut dump, 1);
        let night = back_up(&repository, &source, &dump, Some(&night));
        assert_restores_night(newest(&night).unwrap(), &night);
        bases.iter().for_each(remove);
        assert!(newest(&night).is_err());
        if !is_known {
            list(&location.join("index")).iter().for_each(remove);
            repository = open();
        }
        let night = back_up(&repository, &source, &dump, Some(&night));
        assert_restores_night(newest(&night).unwrap(), &night);
    }
}

fn packs(location: &Path) -> Vec<PathBuf> {
    list(&location.join("packs")).iter().flat_map(|directory| list(directory)).collect()
}

fn list(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|row| row.unwrap().path()).collect()
}
