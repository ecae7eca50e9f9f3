//! A stream of any length goes in and out in bounded pieces; one that breaks off leaves nothing.

use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use compline::archive::{ArchiveReader, EntryKind, FilesSource, RestoreOptions};
use compline::commands::backup::{self, Labels, Work};
use compline::commands::{App, SnapshotPath, Target, init, listing, restore};
use compline::error::ErrorKind;
use compline::observer::Counter;
use compline::storage::Location;
use compline::store::Unlock;
use compline::store::parity::Share;
use tempfile::TempDir;

use crate::support::World;

/// Bytes of a generator: the same for the same seed, without repetition.
struct Generated {
    bytes: blake3::OutputReader,
    left: u64,
    /// What comes at the end.
    breaks_off: bool,
}

impl Generated {
    fn new(len: u64, breaks_off: bool) -> Self {
        Self { bytes: blake3::Hasher::new().finalize_xof(), left: len, breaks_off }
    }
}

impl Read for Generated {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && self.breaks_off {
            return Err(io::Error::other("the source broke off"));
        }
        // Odd lengths: cut points must not depend on them.
        let len = buffer.len().min(70_001).min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.bytes.fill(&mut buffer[..len]);
        self.left -= len as u64;
        Ok(len)
    }
}

/// Compares what is written with what was generated.
struct Expecting {
    generated: Generated,
    len: u64,
}

impl io::Write for Expecting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut right = vec![0; bytes.len()];
        self.generated.bytes.fill(&mut right);
        assert!(right == bytes, "wrong bytes behind byte {}", self.len);
        self.len += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn with_app<T>(world: &World, work: impl FnOnce(App<'_>) -> T) -> T {
    work(App { context: world.context(), ledger: &world.ledger, variable: &|_| None })
}

fn target(scratch: &TempDir) -> Arc<Target> {
    let location = Location::parse(scratch.path().join("repository").as_os_str()).unwrap();
    let (unlock, _) = Unlock::new_key_file().unwrap();
    with_app(&World::new(), |app| init::run(app, &location, &unlock, "", Share::PACK, None).unwrap());
    Arc::new(Target {
        location,
        unlock,
        cache: Some(scratch.path().join("cache")),
        limits: compline::storage::Limits::default(),
        named: compline::commands::Named::Repo,
    })
}

fn round_trip(len: u64) {
    let scratch = TempDir::new().unwrap();
    let (target, world) = (target(&scratch), World::new());
    let work = Work::Stream { name: "dump".to_owned(), input: Box::new(Generated::new(len, false)) };
    with_app(&world, |app| backup::run(app, &target, work, &Labels::default(), false)).unwrap();
    let repository = target.open().unwrap();
    let published = compline::archive::snapshots::all(&repository, &world.context()).unwrap().remove(0);
    let root = published.snapshot.component("dump").unwrap().root_entry().unwrap();
    let EntryKind::File(content) = &root.kind else { panic!("a stream") };
    assert!(content.depth >= 1, "its content list is stored in chunks");
    assert_eq!(content.len, len);
    let reader = ArchiveReader::new(&repository, world.context());
    let mut expecting = Expecting { generated: Generated::new(len, false), len: 0 };
    io::copy(&mut reader.open(content), &mut expecting).unwrap();
    assert_eq!(expecting.len, len);
    let what = SnapshotPath::parse(b"latest:/dump").unwrap();
    let mut expecting = Expecting { generated: Generated::new(len, false), len: 0 };
    assert_eq!(with_app(&world, |app| listing::cat(app, &target, &what, &mut expecting)).unwrap(), len);
}

#[test]
fn a_stream_with_a_list_of_lists_comes_out_as_it_went_in() {
    round_trip(100_000_000);
}

#[test]
#[ignore = "a soak: three gigabytes"]
fn a_stream_of_three_gigabytes_comes_out_as_it_went_in() {
    round_trip(3_000_000_000);
}

#[test]
fn a_stream_that_breaks_off_publishes_nothing() {
    let scratch = TempDir::new().unwrap();
    let (target, world) = (target(&scratch), World::new());
    let work = Work::Stream { name: "dump".to_owned(), input: Box::new(Generated::new(5_000_000, true)) };
    let result = with_app(&world, |app| backup::run(app, &target, work, &Labels::default(), false));
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Component);
    assert_eq!(target.open().unwrap().list_snapshots().unwrap(), []);
}

#[test]
fn a_sparse_file_of_ten_gigabytes_costs_its_data_and_comes_back_sparse() {
    let scratch = TempDir::new().unwrap();
    let (target, world) = (target(&scratch), World::new());
    let path = scratch.path().join("sparse");
    let file = std::fs::File::create(&path).unwrap();
    let mut data = vec![0; 100_000];
    Generated::new(100_000, false).bytes.fill(&mut data);
    file.set_len(10 << 30).unwrap();
    file.write_all_at(&data, 6 << 30).unwrap();
    file.sync_all().unwrap();
    let work = Work::Files(FilesSource { paths: vec![path.clone()], ..FilesSource::default() });
    with_app(&world, |app| backup::run(app, &target, work, &Labels::default(), false)).unwrap();
    assert!(world.ledger.get(Counter::BytesRead) < 1 << 20);
    assert!(world.ledger.get(Counter::BytesStored) < 1 << 20);
    let what = SnapshotPath::parse(format!("latest:/files{}", path.display()).as_bytes()).unwrap();
    let into = scratch.path().join("restored");
    with_app(&world, |app| restore::run(app, &target, &what, &into, &RestoreOptions::default())).unwrap();
    let restored = std::fs::File::open(into.join("sparse")).unwrap();
    let metadata = restored.metadata().unwrap();
    assert_eq!(metadata.len(), 10 << 30);
    assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    let mut back = vec![0; 100_000];
    restored.read_exact_at(&mut back, 6 << 30).unwrap();
    assert!(back == data);
}
