//! What only a bucket can do or suffer.

use std::thread;
use std::time::{Duration, Instant};

use compline::id::SnapshotId;
use compline::storage::{
    Listed, Location, ObjectKey, ObjectKind, RequestKind, S3Address, S3Storage, Storage, StorageErrorKind,
};

use super::s3_server::{ACCESS_KEY, Instead, S3Server, SECRET_KEY};
use super::{bytes, config, one_of_each, pack};

pub fn address(location: &str) -> S3Address {
    match location.parse::<Location>().unwrap() {
        Location::S3(address) => *address,
        other => panic!("{other} is not in a bucket"),
    }
}

pub fn storage_at(location: &str) -> S3Storage {
    S3Storage::with_keys(&address(location), ACCESS_KEY, SECRET_KEY).unwrap()
}

/// A place of its own in the bucket that `COMPLINE_TEST_S3` names; credentials come from the environment.
pub fn storage_elsewhere() -> Option<S3Storage> {
    let location = std::env::var("COMPLINE_TEST_S3").ok()?;
    let mut address = address(&location);
    let name = tempfile::TempDir::new().unwrap().path().file_name().unwrap().to_str().unwrap().to_owned();
    address.prefix = format!("{}/{}", address.prefix, name.trim_start_matches('.'));
    Some(S3Storage::open(&address).unwrap())
}

pub fn storage_in(server: &S3Server) -> S3Storage {
    storage_at(&server.location("some/place"))
}

/// A server of its own, a storage in it, and room for a rule.
fn place() -> (S3Server, S3Storage) {
    let server = S3Server::start();
    let storage = storage_in(&server);
    (server, storage)
}

#[test]
fn a_thousand_requests_over_tls_from_eight_threads_take_no_more_connections_than_threads() {
    let server = S3Server::start_with_tls();
    let storage = storage_in(&server);
    storage.put_new(&pack(0), b"x").unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..125).for_each(|_| assert_eq!(*storage.get(&pack(0)).unwrap(), *b"x")));
        }
    });
    assert_eq!(storage.requests().of(RequestKind::Get), 1000);
    let connections = server.connections();
    println!("{} over {connections} connections", storage.requests());
    // A thread may find the connection that it just gave back not there yet, and open another.
    assert!(connections <= 16, "{connections} connections");
}

#[test]
fn a_server_whose_authority_is_unknown_is_refused_at_once_and_told_so() {
    let server = S3Server::start_with_tls();
    let storage = storage_at(&server.location_by(server.port(), "x", ""));
    let error = storage.get(&pack(1)).unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Other);
    assert!(error.to_string().contains("no safe connection"), "{error}");
    assert!(error.hint().unwrap().contains("ca=FILE"));
    assert_eq!(storage.requests().repeated(), 0);
}

#[test]
fn an_object_lies_under_the_prefix_and_others_keys_are_passed_over() {
    let (server, storage) = place();
    for key in one_of_each() {
        storage.put_new(&key, b"x").unwrap();
        assert_eq!(std::fs::read(server.directory().join("some/place").join(key.path())).unwrap(), b"x");
    }
    for name in ["README", "packs/zz/x", "snapshots/short", "configuration", "../places/config"] {
        let path = server.directory().join("some/place").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"foreign").unwrap();
    }
    for key in one_of_each() {
        assert_eq!(storage.list(key.kind()).unwrap(), [Listed { key, len: 1 }]);
    }
}

#[test]
fn lists_of_more_than_a_thousand_objects_are_whole() {
    let (server, storage) = place();
    let keys: Vec<_> = (0..1205u32).map(|number| ObjectKey::Snapshot(SnapshotId::from_bytes(spread(number)))).collect();
    for key in &keys {
        let path = server.directory().join("some/place").join(key.path());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"12345").unwrap();
    }
    let listed = storage.list(ObjectKind::Snapshot).unwrap();
    let mut expected: Vec<_> = keys.into_iter().map(|key| Listed { key, len: 5 }).collect();
    expected.sort();
    assert!(listed == expected, "{} of {}", listed.len(), expected.len());
    assert_eq!(storage.requests().of(RequestKind::List), 2);
}

fn spread(number: u32) -> [u8; 32] {
    *blake3::hash(&number.to_le_bytes()).as_bytes()
}

#[test]
fn a_long_object_goes_in_parts_and_comes_back_whole() {
    let server = S3Server::start();
    let storage = storage_at(&(server.location("parts") + "&part_size=5MiB"));
    let content = bytes(3, (12 << 20) + 7);
    storage.put_new(&pack(1), &content).unwrap();
    assert!(*storage.get(&pack(1)).unwrap() == content[..]);
    assert_eq!(storage.requests().of(RequestKind::Put), 3);
    assert_eq!(storage.requests().of(RequestKind::Multipart), 2);
    assert_eq!(storage.put_new(&pack(1), &content).unwrap_err().kind(), StorageErrorKind::Exists);
    let other = bytes(4, 11 << 20);
    storage.replace(&pack(1), &other).unwrap();
    assert!(*storage.get(&pack(1)).unwrap() == other[..]);
}

#[test]
fn an_upload_in_parts_that_fails_leaves_no_object_and_is_given_up() {
    let server = S3Server::start();
    let storage = storage_at(&(server.location("parts") + "&part_size=5MiB&patience=1s"));
    server.set_rule(|seen| seen.path.contains("partNumber=2").then_some(Instead::Refuse(503, "SlowDown")));
    storage.put_new(&pack(1), &bytes(3, 12 << 20)).unwrap_err();
    server.clear_rule();
    assert_eq!(storage.len(&pack(1)).unwrap_err().kind(), StorageErrorKind::NotFound);
    let aborts =
        server.take_requests().into_iter().filter(|seen| seen.method == "DELETE" && seen.path.contains("uploadId"));
    assert_eq!(aborts.count(), 1);
    storage.put_new(&pack(1), &bytes(3, 12 << 20)).unwrap();
}

#[test]
fn what_passes_is_tried_again_until_it_succeeds() {
    let (server, storage) = place();
    storage.put_new(&pack(1), b"one").unwrap();
    for instead in [
        Instead::Refuse(503, "SlowDown"),
        Instead::Refuse(500, "InternalError"),
        Instead::Refuse(429, "TooManyRequests"),
        Instead::Refuse(400, "RequestTimeout"),
        Instead::Cut,
        Instead::LoseAnswer,
        Instead::CutShort,
    ] {
        let mut left = 2;
        let what = instead.clone();
        server.set_rule(move |_| {
            left -= 1;
            (left >= 0).then(|| what.clone())
        });
        let before = storage.requests().repeated();
        assert_eq!(*storage.get(&pack(1)).unwrap(), *b"one", "{instead:?}");
        assert!(storage.requests().repeated() > before, "{instead:?}");
    }
}

#[test]
fn a_put_whose_answer_is_lost_is_stored_and_never_taken_for_somebody_elses() {
    let (server, storage) = place();
    storage.put_new(&pack(1), b"one").unwrap();
    let mut is_first = true;
    server.set_rule(move |seen| (seen.method == "PUT" && std::mem::take(&mut is_first)).then_some(Instead::LoseAnswer));
    storage.put_new(&pack(2), b"two").unwrap();
    assert_eq!(storage.requests().of(RequestKind::Put), 3, "one, its trial, two: it was looked for and found");
    assert_eq!(*storage.get(&pack(2)).unwrap(), *b"two");
    // Somebody else was faster, and our answer was lost as well.
    let other = storage_in(&server);
    other.put_new(&pack(3), b"theirs").unwrap();
    let mut is_first = true;
    server.set_rule(move |seen| (seen.method == "PUT" && std::mem::take(&mut is_first)).then_some(Instead::LoseAnswer));
    assert_eq!(storage.put_new(&pack(3), b"ours").unwrap_err().kind(), StorageErrorKind::Exists);
    assert_eq!(*storage.get(&pack(3)).unwrap(), *b"theirs");
}

#[test]
fn a_server_that_stays_sick_is_given_up_in_time_with_its_own_words() {
    let server = S3Server::start();
    let storage = storage_at(&(server.location("x") + "&patience=1s"));
    server.set_rule(|_| Some(Instead::Refuse(503, "SlowDown")));
    let started = Instant::now();
    let error = storage.get(&pack(1)).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5));
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("503 SlowDown: as the test wants (tried "), "{cause}");
    assert!(error.hint().unwrap().contains("Run the same command again"));
}

#[test]
fn a_server_that_is_gone_is_not_waited_for_again_and_again() {
    let server = S3Server::start();
    let storage = storage_at(&(server.location("x") + "&patience=1s"));
    storage.put_new(&pack(1), b"x").unwrap();
    server.set_rule(|_| Some(Instead::Cut));
    let tries = || {
        let _before = server.take_requests();
        storage.get(&pack(1)).unwrap_err();
        server.take_requests().len()
    };
    let counts: Vec<usize> = (0..5).map(|_| tries()).collect();
    assert!(counts[0] > 1 && counts[3..] == [1, 1], "{counts:?}");
    server.clear_rule();
    assert_eq!(*storage.get(&pack(1)).unwrap(), *b"x");
    server.set_rule(|_| Some(Instead::Cut));
    assert!(tries() > 1, "once it has answered, it is waited for");
}

#[test]
fn errors_of_servers_are_told_in_words_with_what_to_do_and_not_tried_again() {
    let (server, storage) = place();
    for (status, code, kind, word) in [
        (403, "InvalidAccessKeyId", StorageErrorKind::Denied, "access key"),
        (403, "AccessDenied", StorageErrorKind::Denied, "allow"),
        (403, "RequestTimeTooSkewed", StorageErrorKind::Denied, "clock"),
        (403, "QuotaExceeded", StorageErrorKind::Full, "quota"),
        (404, "NoSuchBucket", StorageErrorKind::Other, "there is no bucket backups"),
        (301, "PermanentRedirect", StorageErrorKind::Other, "another region"),
    ] {
        server.set_rule(move |_| Some(Instead::Refuse(status, code)));
        let error = storage.put_new(&pack(1), b"x").unwrap_err();
        assert_eq!(error.kind(), kind, "{code}");
        assert!(error.to_string().contains(word) && error.to_string().contains("Object packs/"), "{error}");
        assert!(error.hint().is_some(), "{code}");
    }
    assert_eq!(storage.requests().repeated(), 0);
}

#[test]
fn wrong_credentials_and_a_missing_bucket_are_told_by_a_real_server() {
    let server = S3Server::start();
    let address = address(&server.location("x"));
    let wrong_secret = S3Storage::with_keys(&address, ACCESS_KEY, "wrong").unwrap();
    let wrong_key = S3Storage::with_keys(&address, "NOBODY", SECRET_KEY).unwrap();
    for storage in [wrong_secret, wrong_key] {
        let error = storage.get(&pack(1)).unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Denied, "{error}");
        assert!(error.hint().unwrap().contains("AWS_SECRET_ACCESS_KEY"));
    }
    let nowhere = S3Address { bucket: "nowhere".to_owned(), ..address };
    let storage = S3Storage::with_keys(&nowhere, ACCESS_KEY, SECRET_KEY).unwrap();
    let error = storage.list(ObjectKind::Pack).unwrap_err();
    assert!(error.to_string().contains("there is no bucket nowhere"), "{error}");
}

#[test]
fn nobody_at_the_address_is_told_within_seconds() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let storage = storage_at(&format!("s3://b/x?endpoint=http://127.0.0.1:{port}"));
    let started = Instant::now();
    let error = storage.get(&pack(1)).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(error.to_string().contains("no connection to http://127.0.0.1"), "{error}");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("refused"));
}

#[test]
fn conditions_are_tried_out_once_and_cost_one_request() {
    let (server, storage) = place();
    for number in 0..3 {
        storage.put_new(&pack(number), b"x").unwrap();
    }
    assert_eq!((storage.requests().of(RequestKind::Put), storage.requests().of(RequestKind::Head)), (4, 0));
    server.ignore_conditions();
    let storage = storage_in(&server);
    for number in 3..6 {
        storage.put_new(&pack(number), b"x").unwrap();
    }
    assert_eq!((storage.requests().of(RequestKind::Put), storage.requests().of(RequestKind::Head)), (4, 2));
}

#[test]
fn packs_alone_are_of_the_storage_class() {
    let (server, _) = place();
    let storage = storage_at(&(server.location("x") + "&storage_class=NO_SUCH_CLASS"));
    storage.put_new(&config(), b"x").unwrap();
    // The server knows its classes and refuses others; that it was asked is what is to be seen.
    storage.put_new(&pack(1), b"x").unwrap_err();
}

#[test]
fn a_long_object_whose_answer_is_lost_is_not_sent_in_vain_again() {
    let (server, storage) = place();
    storage.put_new(&pack(1), b"one").unwrap();
    let content = bytes(1, 8 << 20);
    let mut is_first = true;
    server.set_rule(move |seen| (seen.method == "PUT" && std::mem::take(&mut is_first)).then_some(Instead::LoseAnswer));
    storage.put_new(&pack(2), &content).unwrap();
    assert_eq!(*storage.get(&pack(2)).unwrap(), content[..]);
    // The server refuses before it has read the body, so its answer may be lost.
    let error = storage.put_new(&pack(2), &bytes(2, 8 << 20)).unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Exists);
    // Every answer is lost, and nothing is stored.
    let mut puts = 0;
    server.set_rule(move |seen| {
        puts += u32::from(seen.method == "PUT");
        (seen.method == "PUT" && puts <= 3).then_some(Instead::Cut)
    });
    storage.put_new(&pack(3), &content).unwrap();
    assert!(*storage.get(&pack(3)).unwrap() == content[..]);
}

const DAY: Duration = Duration::from_secs(86_400);

/// A time so many days from now, as a lock has it.
fn days(count: i64) -> String {
    let time = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * count);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[test]
fn what_a_restore_needs_is_locked_when_it_is_stored_and_what_goes_with_a_run_is_not() {
    let server = S3Server::start();
    server.keep_locks();
    let storage = storage_at(&(server.location("x") + "&lock=compliance&lock_for=30d&part_size=5MiB"));
    let least = days(30);
    for key in one_of_each() {
        storage.put_new(&key, b"x").unwrap();
    }
    storage.put_new(&pack(9), &vec![9; 6 << 20]).unwrap();
    for key in one_of_each().into_iter().chain([pack(9)]) {
        let lock = server.lock(&format!("x/{}", key.path()));
        if matches!(key.kind(), ObjectKind::Session | ObjectKind::Retired) {
            assert_eq!((lock, storage.locked_until(&key).unwrap()), (None, None), "{key}");
            continue;
        }
        // An object in parts is locked by the request that began it, which has another query.
        let lock = lock.unwrap();
        assert!(lock.mode == "COMPLIANCE" && least <= lock.until && lock.until <= days(31), "{key}: {lock:?}");
        assert_eq!(storage.locked_until(&key).unwrap(), Some(lock.until.parse().unwrap()), "{key}");
    }
    assert_eq!(storage.locked_until(&pack(7)).unwrap(), None, "there is no such pack");
    let unlocked = storage_in(&server);
    assert_eq!((unlocked.locked_until(&pack(9)).unwrap(), unlocked.requests().all()), (None, 0));
}

#[test]
fn locks_of_what_is_needed_are_extended_in_their_second_half_and_nothing_else_is_asked_for() {
    let server = S3Server::start();
    server.keep_locks();
    let storage = storage_at(&(server.location("x") + "&lock=governance&lock_for=30d"));
    let path = |number: u8| format!("x/{}", pack(number).path());
    for number in 0..6 {
        storage.put_new(&pack(number), b"x").unwrap();
    }
    let stored_at = std::time::SystemTime::now() - 20 * DAY;
    server.make_old(&path(1), stored_at, &days(10));
    server.make_old(&path(2), stored_at, &days(20));
    server.make_old(&path(3), stored_at, &days(10));
    server.make_old(&path(4), stored_at, &days(-1));
    let _stored = server.take_requests();
    let is_needed = |key: &ObjectKey| *key != pack(3);
    assert_eq!(storage.extend_locks(ObjectKind::Pack, &is_needed).unwrap(), 2);
    let requests: Vec<String> = server.take_requests().into_iter().map(|seen| seen.method).collect();
    let count = |method: &str| requests.iter().filter(|asked| *asked == method).count();
    assert_eq!((count("GET"), count("HEAD"), count("PUT")), (1, 3, 2), "{requests:?}");
    let days_left = [30, 30, 20, 10, 30, 30];
    for (number, left) in (0..).zip(days_left) {
        let until = server.lock(&path(number)).unwrap().until;
        assert!(days(left - 1) < until && until <= days(left + 1), "{number}: {until}");
    }
    assert_eq!(storage.extend_locks(ObjectKind::Pack, &is_needed).unwrap(), 0, "once is enough");
    assert_eq!(storage.extend_locks(ObjectKind::Session, &is_needed).unwrap(), 0);
    // The stricter lock stays one.
    let strict = storage_at(&(server.location("x") + "&lock=compliance&lock_for=60d"));
    strict.put_new(&pack(6), b"x").unwrap();
    server.make_old(&path(6), stored_at, &days(1));
    assert_eq!(storage.extend_locks(ObjectKind::Pack, &|key| *key == pack(6)).unwrap(), 1);
    assert_eq!(server.lock(&path(6)).unwrap().mode, "COMPLIANCE");
}

#[test]
fn a_bucket_without_locks_is_told_when_one_is_wanted() {
    let server = S3Server::start();
    let storage = storage_at(&(server.location("x") + "&lock=governance&lock_for=30d"));
    let error = storage.put_new(&config(), b"x").unwrap_err();
    assert!(error.hint().unwrap().contains("object lock"), "{error}");
    assert_eq!(storage.len(&config()).unwrap_err().kind(), StorageErrorKind::NotFound);
}

/// As `COMPLINE_TEST_S3`, in a bucket with object lock.
#[test]
fn locks_hold_elsewhere() {
    let Ok(location) = std::env::var("COMPLINE_TEST_S3_LOCKED") else {
        println!("SKIPPED: COMPLINE_TEST_S3_LOCKED names no bucket (tests/ceph makes one)");
        return;
    };
    let name = tempfile::TempDir::new().unwrap().path().file_name().unwrap().to_str().unwrap().to_owned();
    let open = |options: &str| {
        let mut address = address(&(location.clone() + options));
        address.prefix = format!("{}/{}", address.prefix, name.trim_start_matches('.'));
        S3Storage::open(&address).unwrap()
    };
    let storage = open("&lock=governance&lock_for=3s");
    for key in one_of_each() {
        storage.put_new(&key, b"x").unwrap();
        let is_locked = storage.locked_until(&key).unwrap().is_some();
        assert_eq!(is_locked, !matches!(key.kind(), ObjectKind::Session | ObjectKind::Retired), "{key}");
    }
    let before = storage.locked_until(&config()).unwrap();
    let started = Instant::now();
    while storage.extend_locks(ObjectKind::Config, &|_| true).unwrap() == 0 {
        assert!(started.elapsed() < Duration::from_secs(20));
    }
    assert!(storage.locked_until(&config()).unwrap() > before);
    let storage = open("&lock=compliance&lock_for=1d");
    storage.put_new(&pack(9), &vec![9; 100_000]).unwrap();
    let until = storage.locked_until(&pack(9)).unwrap().unwrap();
    assert!(until > jiff::Timestamp::now() + jiff::SignedDuration::from_hours(23));
    storage.delete(&pack(9)).unwrap();
    assert_eq!(storage.get(&pack(9)).map(drop).unwrap_err().kind(), StorageErrorKind::NotFound, "it is hidden");
    storage.put_new(&pack(9), b"another version").unwrap();
    let (endpoint, bucket) = (address(&location).endpoint.unwrap(), address(&location).bucket);
    let versions = asked(&format!("{endpoint}/{bucket}?versions="), &[]);
    let (_, ours) = versions.split_once(&pack(9).path()).unwrap();
    let version = ours.split_once("<VersionId>").unwrap().1.split('<').next().unwrap();
    let path = versions.split("<Key>").find(|key| key.contains(&pack(9).path())).unwrap().split('<').next().unwrap();
    let answer = asked(&format!("{endpoint}/{bucket}/{path}?versionId={version}"), &["-X", "DELETE"]);
    assert!(answer.contains("AccessDenied"), "whoever has the key of the bucket can't delete a version: {answer}");
}

/// What the server answers to curl, which signs with the keys of the environment.
fn asked(url: &str, more: &[&str]) -> String {
    let key = |name: &str| std::env::var(name).unwrap();
    let user = format!("{}:{}", key("AWS_ACCESS_KEY_ID"), key("AWS_SECRET_ACCESS_KEY"));
    // curl signs by itself, but for the hash of nothing.
    let nothing = "x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let mut curl = std::process::Command::new("curl");
    curl.args(["-s", "--aws-sigv4", "aws:amz:default:s3", "-H", nothing, "-u", &user]).args(more).arg(url);
    String::from_utf8(curl.output().unwrap().stdout).unwrap()
}

#[test]
fn a_bucket_is_named_by_the_host_where_the_location_says_so() {
    let server = S3Server::start_with_hosts();
    let storage = storage_at(&(server.location("some place") + "&part_size=5MiB"));
    let content = bytes(1, 6 << 20);
    storage.put_new(&pack(1), &content).unwrap();
    assert!(*storage.get(&pack(1)).unwrap() == content[..]);
    assert_eq!(storage.list(ObjectKind::Pack).unwrap().len(), 1);
    storage.delete(&pack(1)).unwrap();
    let host = format!("backups.localhost:{}", server.port());
    let requests = server.take_requests();
    assert!(requests.iter().all(|seen| seen.header("host") == Some(&host)));
    assert!(requests.iter().all(|seen| seen.path.starts_with("/some%20place/packs/") || seen.path.starts_with("/?")));
    assert!(!server.directory().join("some place/packs").join(pack(1).path()).exists());
    let path_style = server.location("x").replace("path_style=false", "path_style=true");
    storage_at(&path_style).list(ObjectKind::Pack).unwrap();
    assert_eq!(server.take_requests()[0].path.split('?').next(), Some("/backups/"));
}
