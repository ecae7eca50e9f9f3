//! The conformance suite of storage: one function for each sentence of the contract of `compline::storage::Storage`,
//! run for every implementation. A new storage adds a function that makes one, and a line to `suite!`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test says what went wrong by stopping"
)]

mod azure;
#[path = "../support/azurite.rs"]
mod azurite;
mod contract;
mod credentials;
mod faulty;
#[path = "../support/faulty_storage.rs"]
mod faulty_storage;
mod hostile;
mod local;
mod remote;
#[path = "../support/rough_line.rs"]
mod rough_line;
mod s3;
#[path = "../support/s3_server.rs"]
mod s3_server;
#[path = "../support/ssh_server.rs"]
mod ssh_server;

use compline::id::{KeyId, PackId, RetiredId, SegmentId, SessionId, SnapshotId};
use compline::storage::{LimitedStorage, Limits, LocalStorage, MemoryStorage, ObjectKey, ObjectKind, Storage};
use rough_line::{Fate, Nature, RoughLine};
use std::sync::Arc;
use tempfile::TempDir;

/// A storage to test, and what must live as long.
struct Place {
    storage: Arc<dyn Storage>,
    _directory: Option<TempDir>,
    _server: Option<ssh_server::SshServer>,
    _s3_server: Option<s3_server::S3Server>,
    _azurite: Option<azurite::Azurite>,
    _line: Option<RoughLine>,
}

impl Place {
    fn of(storage: impl Storage + 'static, directory: Option<TempDir>) -> Self {
        let storage = Arc::new(storage);
        Self { storage, _directory: directory, _server: None, _s3_server: None, _azurite: None, _line: None }
    }

    fn beside(self, server: s3_server::S3Server) -> Self {
        Self { _s3_server: Some(server), ..self }
    }
}

fn memory() -> Place {
    Place::of(MemoryStorage::new(), None)
}

fn local() -> Place {
    let directory = TempDir::new().unwrap();
    let storage = LocalStorage::create(directory.path().join("repository")).unwrap();
    Place::of(storage, Some(directory))
}

/// The wrapper that every program uses: a shared pointer to whatever LOCATION named.
fn local_by_location() -> Place {
    let directory = TempDir::new().unwrap();
    let location = compline::storage::Location::parse(directory.path().join("a/b").as_os_str()).unwrap();
    let storage: Arc<dyn Storage> = Arc::from(location.create().unwrap());
    Place::of(storage, Some(directory))
}

/// The storage of the crash tests, without a fault.
fn faultless() -> Place {
    Place::of(faulty_storage::FaultyStorage::counting(MemoryStorage::new()), None)
}

/// Through a real SSH server, to a compline behind it.
fn ssh() -> Option<Place> {
    by_ssh_server("ssh")
}

/// Through a real SSH server, to its SFTP server.
fn sftp() -> Option<Place> {
    by_ssh_server("sftp")
}

fn by_ssh_server(scheme: &str) -> Option<Place> {
    let server = ssh_server::SshServer::start()?;
    let directory = TempDir::new().unwrap();
    let location = remote::location(scheme, directory.path(), &server.ssh("user"), &server.remote());
    let storage: Arc<dyn Storage> = Arc::from(location.create().unwrap());
    Some(Place { _server: Some(server), ..Place::of(storage, Some(directory)) })
}

/// The protocol of `compline serve` alone, on machines that have no SSH server.
fn served() -> Place {
    let directory = TempDir::new().unwrap();
    let ssh = ssh_server::pretended_ssh(directory.path(), "false");
    let location = remote::location("ssh", directory.path(), &ssh, ssh_server::COMPLINE);
    let storage: Arc<dyn Storage> = Arc::from(location.create().unwrap());
    Place::of(storage, Some(directory))
}

/// Held back, but not by much.
fn limited() -> Place {
    let many = Some(1 << 40);
    let limits = Limits { upload: many, download: many, requests: many, concurrency: Some(2) };
    Place::of(LimitedStorage::new(MemoryStorage::new(), limits), None)
}

/// A bucket of a server in this process.
fn s3() -> Place {
    let server = s3_server::S3Server::start();
    Place::of(s3::storage_in(&server), None).beside(server)
}

/// The same with the bucket in the name of the host.
fn s3_by_hosts() -> Place {
    let server = s3_server::S3Server::start_with_hosts();
    Place::of(s3::storage_in(&server), None).beside(server)
}

/// The same with a server that has never heard of conditions.
fn s3_without_conditions() -> Place {
    let server = s3_server::S3Server::start();
    server.ignore_conditions();
    Place::of(s3::storage_in(&server), None).beside(server)
}

/// The same over a line that is cut all the time.
fn s3_over_a_rough_line() -> Place {
    let server = s3_server::S3Server::start();
    let line = RoughLine::to(server.port(), Nature::default());
    line.set_fates(often_cut);
    let storage = s3::storage_at(&server.location_by(line.port(), "some/place", "&patience=60s"));
    Place { _line: Some(line), ..Place::of(storage, None).beside(server) }
}

/// Connections of which every third lasts.
fn often_cut(number: u64) -> Fate {
    match number % 6 {
        0 => Fate::CutUp(100_000),
        1 => Fate::CutDown(1_000),
        3 => Fate::Truncated(2_000),
        4 => Fate::Refused,
        _ => Fate::Whole,
    }
}

/// A server that somebody started: `COMPLINE_TEST_S3` has a LOCATION, the environment the credentials. `tests/ceph` and `tests/garage` do so.
fn s3_elsewhere() -> Option<Place> {
    let storage = s3::storage_elsewhere();
    if storage.is_none() {
        println!("SKIPPED: COMPLINE_TEST_S3 names no server (tests/ceph and tests/garage start one)");
    }
    storage.map(|storage| Place::of(storage, None))
}

/// The same, unless it is known to ignore conditions: `tests/garage` says so.
fn s3_elsewhere_with_conditions() -> Option<Place> {
    let ignores = std::env::var_os("COMPLINE_TEST_S3_IGNORES_CONDITIONS").is_some();
    if ignores { None } else { s3_elsewhere() }
}

/// A container of Azurite.
fn azure() -> Option<Place> {
    let (server, storage) = azure::place()?;
    Some(Place { _azurite: Some(server), ..Place::of(storage, None) })
}

/// The same over a line that is cut all the time.
fn azure_over_a_rough_line() -> Option<Place> {
    let (server, storage) = azure::place()?;
    drop(storage);
    let line = RoughLine::to(server.port(), Nature::default());
    line.set_fates(often_cut);
    let storage = azure::storage_by(line.port());
    Some(Place { _azurite: Some(server), _line: Some(line), ..Place::of(storage, None) })
}

macro_rules! suite {
    ([$($place:ident)*] $sentences:tt) => {
        $(suite!(@ $place $sentences);)*
    };
    (@ $place:ident [$($sentence:ident)*]) => {
        mod $place {
            $(#[test] fn $sentence() {
                // None: what it takes is missing, which was said.
                let Some(place) = Option::<crate::Place>::from(crate::$place()) else { return };
                crate::contract::$sentence(&place.storage);
            })*
        }
    };
}

mod suites {
    suite!([memory local local_by_location faultless served ssh sftp limited s3 s3_by_hosts s3_without_conditions s3_over_a_rough_line
        s3_elsewhere azure azure_over_a_rough_line] [
        a_put_object_is_read_back_whole
        an_empty_object_is_an_object
        a_large_object_is_read_back_whole
        a_put_of_an_existing_key_fails_and_keeps_the_old_bytes
        a_reader_sees_nothing_or_everything_of_an_object_being_put
        a_replaced_object_has_the_new_bytes_and_keeps_its_name
        a_reader_sees_the_old_bytes_or_the_new_ones_of_an_object_being_replaced
        a_missing_object_is_not_found
        a_range_gives_exactly_its_bytes
        a_range_past_the_end_is_out_of_range
        listing_gives_one_kind_sorted_with_lengths
        listing_what_was_never_put_is_empty
        a_deleted_object_is_gone_and_its_name_free
        writers_of_different_keys_do_not_disturb_each_other
    ]);
}

/// What can't be told where an answer was lost and there is no look before: it may have been deleted the first time.
mod losses {
    suite!([memory local local_by_location faultless served ssh sftp limited s3 s3_by_hosts s3_without_conditions s3_over_a_rough_line
        s3_elsewhere azure] [
        deleting_what_is_missing_is_not_found
    ]);
}

/// What a server without conditions can't keep: `src/storage/s3.rs` says why it does no harm.
mod races {
    suite!([memory local local_by_location faultless served ssh sftp limited s3 s3_by_hosts s3_over_a_rough_line
        s3_elsewhere_with_conditions azure azure_over_a_rough_line] [
        of_many_writers_of_one_key_exactly_one_wins_and_its_bytes_stand
    ]);
}

fn config() -> ObjectKey {
    ObjectKey::Config
}

fn pack(number: u8) -> ObjectKey {
    ObjectKey::Pack(PackId::from_bytes([number; 32]))
}

/// One key of each kind.
fn one_of_each() -> [ObjectKey; 7] {
    let keys = [
        config(),
        ObjectKey::Key(KeyId::from_bytes([1; 16])),
        pack(2),
        ObjectKey::Segment(SegmentId::from_bytes([3; 32])),
        ObjectKey::Snapshot(SnapshotId::from_bytes([4; 32])),
        ObjectKey::Session(SessionId::from_bytes([5; 16]), 6),
        ObjectKey::Retired(RetiredId::from_bytes([7; 16])),
    ];
    assert_eq!(keys.map(|key| key.kind()), ObjectKind::ALL, "a kind was added: add a key of it here");
    keys
}

/// Bytes that differ from place to place and from seed to seed.
fn bytes(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| seed ^ (at % 251).to_le_bytes()[0] ^ (at / 4096).to_le_bytes()[0]).collect()
}
