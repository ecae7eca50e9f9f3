//! Nights in a bucket, by the program: from `init` to `check`, and what happens when the server is sick, gone or says no.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::host::{Host, Variables, noise};
use crate::night::{NIGHTS, night, night_with_postgres};
use crate::postgres_server::PostgresServer;
use crate::s3_server::{ACCESS_KEY, Instead, S3Server, SECRET_KEY, Seen};

pub fn keys() -> Variables {
    vec![("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned())]
}

/// A host that has the keys of the server.
fn host_at(location: String) -> Host {
    Host::of(location, keys())
}

/// `GET 3, PUT 2` and each request.
fn told(requests: &[Seen]) -> String {
    let lines = requests.iter().map(|seen| format!("  {} {}\n", seen.method, seen.path));
    format!("{} requests\n{}", requests.len(), lines.collect::<String>())
}

/// Streams of databases and programs are as old as the night, so that the trees with their times are stored: a pack, and a
/// segment of the index.
#[test]
fn a_night_from_init_to_check_and_an_unchanged_one_in_fourteen_requests() {
    let server = S3Server::start();
    let host = host_at(server.location("nights/shop"));
    let mut unchanged = Vec::new();
    night(&host, &mut || unchanged = server.take_requests());
    assert!(unchanged.len() <= 14, "{}", told(&unchanged));
    let left = |repository: &str, kind: &str| {
        std::fs::read_dir(server.directory().join("nights").join(repository).join(kind)).map_or(0, Iterator::count)
    };
    assert_eq!((left("shop", "snapshots"), left("shop", "sessions")), (1, 0));
    assert_eq!((left("shop-vault", "snapshots"), left("shop-vault", "sessions")), (NIGHTS, 0));
}

#[test]
fn an_unchanged_night_of_a_tree_takes_twelve_requests_however_many_keys_there_are() {
    let server = S3Server::start();
    let host = host_at(server.location("nights/shop"));
    host.make_tree();
    host.must(&["init"]);
    for _ in 0..3 {
        host.must(&["backup", "tree"]);
    }
    for number in 0..9 {
        host.must(&["key", "add", "--new-key-file", &format!("key-{number}")]);
    }
    server.take_requests();
    host.must(&["backup", "tree"]);
    let unchanged = server.take_requests();
    assert!(unchanged.len() <= 12, "{}", told(&unchanged));
}

#[test]
fn a_diff_lists_snapshots_once() {
    let server = S3Server::start();
    let host = host_at(server.location("x"));
    std::fs::create_dir(host.path("tree")).unwrap();
    host.must(&["init"]);
    for number in 0..2 {
        std::fs::write(host.path("tree/file"), noise(number, 1_000)).unwrap();
        host.must(&["backup", "tree"]);
    }
    server.take_requests();
    assert!(host.must(&["diff", "latest~1", "latest"]).contains("tree/file"));
    let requests = server.take_requests();
    let lists = requests.iter().filter(|seen| seen.path.contains("snapshots%2F&list-type")).count();
    assert_eq!(lists, 1, "{}", told(&requests));
}

#[test]
fn a_night_of_a_platform_with_a_server_of_postgres() {
    let server = S3Server::start();
    night_with_postgres(&host_at(server.location("nights")), &PostgresServer::start());
}

#[test]
fn a_night_with_a_server_that_knows_no_conditions() {
    let server = S3Server::start();
    server.ignore_conditions();
    night(&host_at(server.location("nights")), &mut || ());
}

#[test]
fn a_night_with_the_bucket_in_the_name_of_the_host() {
    let server = S3Server::start_with_hosts();
    night(&host_at(server.location("nights")), &mut || ());
}

#[test]
fn a_night_over_tls_with_an_authority_of_ones_own() {
    let server = S3Server::start_with_tls();
    night(&host_at(server.location("nights")), &mut || ());
}

#[test]
fn a_prune_tells_what_stays_locked_and_gives_what_is_needed_more_time() {
    let server = S3Server::start();
    server.keep_locks();
    let host = host_at(server.location("x") + "&lock=governance&lock_for=30d");
    host.make_tree();
    host.must(&["init"]);
    host.must(&["backup", "tree"]);
    std::fs::write(host.path("tree/large"), noise(8, 30_000_000)).unwrap();
    host.must(&["backup", "tree"]);
    let objects = all_files(&server.directory());
    let month_ago = SystemTime::now() - Duration::from_secs(29 * 86_400);
    let tomorrow = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24)).to_string();
    for object in &objects {
        server.make_old(object, month_ago, &tomorrow);
    }
    let said = host.must(&["forget", "--keep-last", "1", "--prune"]);
    assert!(said.contains("deleted and locked: space is taken until") && said.contains("locked for longer"), "{said}");
    assert!(said.contains("No space was freed."), "{said}");
    let left = all_files(&server.directory());
    let is_fresh = |object: &String| server.lock(object).is_some_and(|lock| lock.until > tomorrow);
    assert!(left.len() > 5 && left.len() < objects.len() + 3 && left.iter().all(is_fresh), "{left:?}");
    let report = host.must(&["prune", "--json"]);
    assert!(report.contains("\"locks_extended\":0") && report.contains("\"locked_until\":null"), "{report}");
    host.must(&["check", "--read-data"]);
}

/// Paths from the bucket on.
fn all_files(bucket: &Path) -> Vec<String> {
    fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { collect(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    collect(bucket, &mut found);
    found.iter().map(|path| path.strip_prefix(bucket).unwrap().to_str().unwrap().to_owned()).collect()
}

/// A host with a place of its own at `location`, and the keys of the environment.
pub fn elsewhere(location: &str) -> Host {
    let (place, query) = location.split_once('?').unwrap();
    let scratch = TempDir::new().unwrap();
    let name = scratch.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_owned();
    let mut host = host_at(format!("{place}/{name}?{query}"));
    host.variables.iter_mut().for_each(|(name, value)| *value = std::env::var(*name).unwrap());
    host
}

#[test]
fn a_night_elsewhere() {
    let Ok(location) = std::env::var("COMPLINE_TEST_S3") else {
        println!("SKIPPED: COMPLINE_TEST_S3 names no server (tests/ceph and tests/garage start one)");
        return;
    };
    night(&elsewhere(&location), &mut || ());
}

#[test]
fn what_is_wrong_is_told_elsewhere() {
    let Ok(location) = std::env::var("COMPLINE_TEST_S3") else {
        println!("SKIPPED: COMPLINE_TEST_S3 names no server (tests/ceph and tests/garage start one)");
        return;
    };
    let mut host = elsewhere(&location);
    host.must(&["init"]);
    let (right, (_, bucket)) = (host.location.clone(), host.location.split_once("s3://").unwrap());
    let bucket = bucket.split('/').next().unwrap().to_owned();
    host.location = right.replacen(&bucket, "no-such-bucket-of-anybody", 1);
    host.run(&["snapshots"]).fails(1, &["there is no bucket no-such", "Create the bucket", "[C-0030]"]);
    host.location = right;
    host.variables[1].1 = "wrong".to_owned();
    // Garage says no more than that it is forbidden.
    host.run(&["snapshots"]).fails(1, &["403", "heck the keys", "[C-0030]"]);
    host.variables[0].1 = "NOBODY".to_owned();
    host.run(&["snapshots"]).fails(1, &["403", "heck the keys", "[C-0030]"]);
}

/// As the bucket of `COMPLINE_TEST_S3_LOCKED`, whose objects can't be deleted by anybody.
#[test]
fn a_night_in_a_bucket_with_locks_elsewhere() {
    let Ok(location) = std::env::var("COMPLINE_TEST_S3_LOCKED") else {
        println!("SKIPPED: COMPLINE_TEST_S3_LOCKED names no bucket (tests/ceph makes one)");
        return;
    };
    night(&elsewhere(&(location + "&lock=compliance&lock_for=1d")), &mut || ());
}

#[test]
fn a_server_that_dies_in_the_middle_of_an_upload_costs_nothing_that_was_uploaded() {
    let server = S3Server::start();
    let mut host = host_at(server.location("x") + "&patience=1s");
    host.location = host.location.replace("&patience=20s", "");
    host.make_tree();
    host.must(&["init"]);
    let mut packs = 0;
    server.set_rule(move |seen| {
        packs += u32::from(seen.method == "PUT" && seen.path.contains("/packs/"));
        (packs > 2).then_some(Instead::Cut)
    });
    let outcome = host.run(&["backup", "tree"]);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("the connection to http://127.0.0.1"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("Run the same command again"), "{}", outcome.stderr);
    server.clear_rule();
    assert_eq!(host.snapshot_count(), 0, "nothing was published");
    let uploaded = files(&server.directory().join("x/packs"));
    let report: String = host.must(&["backup", "tree", "--json"]);
    assert!(uploaded > 0 && report.contains("\"status\":\"complete\""), "{report}");
    host.must_restore("out");
    host.must(&["check", "--read-data"]);
}

fn files(directory: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries.map(|entry| entry.unwrap().path()).map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}

#[test]
fn a_server_that_dies_in_the_middle_of_a_restore_is_told_and_the_next_run_goes_on() {
    let server = S3Server::start();
    let mut host = host_at(server.location("x") + "&patience=1s");
    host.location = host.location.replace("&patience=20s", "");
    host.make_tree();
    host.must(&["init"]);
    host.must(&["backup", "tree"]);
    let mut reads = 0;
    server.set_rule(move |seen| {
        reads += u32::from(seen.method == "GET" && seen.path.contains("/packs/"));
        (reads > 3).then_some(Instead::Refuse(503, "SlowDown"))
    });
    let what = format!("latest:/files{}", host.path("tree").display());
    let outcome = host.run(&["restore", &what, "--target", "out"]);
    assert!(matches!(outcome.code, 1 | 3), "{}: {}", outcome.code, outcome.stderr);
    assert!(outcome.stderr.contains("503 SlowDown"), "{}", outcome.stderr);
    server.clear_rule();
    host.must_restore("out");
}

#[test]
fn a_server_that_stumbles_all_the_time_spoils_nothing() {
    let server = S3Server::start();
    let host = host_at(server.location("x"));
    host.make_tree();
    host.must(&["init"]);
    server.set_rule(|seen| match seen.number % 5 {
        1 => Some(Instead::Refuse(503, "SlowDown")),
        3 => Some(Instead::LoseAnswer),
        _ => None,
    });
    host.must(&["backup", "tree"]);
    host.must_restore("out");
    host.must(&["forget", "--keep-last", "1", "--prune"]);
    server.clear_rule();
    host.must(&["check", "--read-data"]);
}

#[test]
fn what_is_wrong_is_told_with_a_code_and_what_to_do() {
    let server = S3Server::start();
    let mut host = host_at(server.location("x"));
    host.make_tree();
    let outcome = host.run(&["backup", "tree"]);
    assert!(outcome.stderr.contains("key"), "there is no key file yet: {}", outcome.stderr);
    host.must(&["init"]);
    host.variables[1].1 = "wrong".to_owned();
    let outcome = host.run(&["backup", "tree"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("secret key") && outcome.stderr.contains("[C-0030]"), "{}", outcome.stderr);
    host.variables[1].0 = "UNUSED";
    let outcome = host.run(&["snapshots"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("There are no credentials"), "{}", outcome.stderr);
    host.variables = keys();
    let right = host.location.clone();
    host.location = right.replace("/x?", "/empty?");
    host.run(&["snapshots"]).fails(10, &["There is no repository"]);
    host.location = right.replace("s3://backups/", "s3://nowhere/");
    // s3s-fs, asked for an object, says that the object is missing; servers say that the bucket is.
    host.run(&["init"]).fails(1, &["there is no bucket nowhere", "Create the bucket", "[C-0030]"]);
    host.location.clone_from(&right);
    for (status, code, what, advice) in [
        (403, "RequestTimeTooSkewed", "the clock of this machine differs", "NTP"),
        (400, "ExpiredToken", "the session token has expired", "AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "the secret key does not fit", "AWS_SECRET_ACCESS_KEY"),
        (400, "AuthorizationHeaderMalformed", "is in another region", "region=NAME"),
    ] {
        server.set_rule(move |_| Some(Instead::Refuse(status, code)));
        host.run(&["backup", "tree"]).fails(1, &[what, advice, "[C-0030]"]);
        // What begins with a HEAD, which is refused without a word.
        host.location = right.replace("/x?", "/fresh?");
        host.run(&["init"]).fails(1, &[what, advice, "[C-0030]"]);
        host.location.clone_from(&right);
    }
    server.clear_rule();
    host.must(&["backup", "tree"]);
}

#[test]
fn a_quota_that_is_used_up_is_told_and_the_next_run_goes_on_when_there_is_room() {
    let server = S3Server::start();
    let host = host_at(server.location("x"));
    host.make_tree();
    host.must(&["init"]);
    std::fs::create_dir(host.path("first")).unwrap();
    std::fs::write(host.path("first/file"), noise(99, 100_000)).unwrap();
    host.must(&["backup", "first"]);
    let mut packs = 0;
    server.set_rule(move |seen| {
        packs += u32::from(seen.method == "PUT" && seen.path.contains("/packs/"));
        (packs > 1 && seen.method == "PUT").then_some(Instead::Refuse(403, "QuotaExceeded"))
    });
    host.run(&["backup", "tree"]).fails(1, &["no space or quota is left", "Free some space", "[C-0030]"]);
    server.clear_rule();
    assert_eq!(host.snapshot_count(), 1, "what was there is there, and nothing else");
    host.must(&["check", "--read-data"]);
    host.must(&["backup", "tree"]);
    host.must_restore("out");
}

#[test]
fn credentials_come_from_the_shared_file_and_its_profiles() {
    let server = S3Server::start();
    let mut host = host_at(server.location("x"));
    host.must(&["init"]);
    let content = format!(
        "[default]\naws_access_key_id = NOBODY\naws_secret_access_key = x\n\
         [night]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    );
    std::fs::create_dir(host.path(".aws")).unwrap();
    std::fs::write(host.path(".aws/credentials"), content).unwrap();
    host.variables.clear();
    assert!(host.run(&["snapshots"]).stderr.contains("access key"), "the default profile is nobody");
    let with_keys = std::mem::replace(&mut host.location, server.location("x") + "&profile=night");
    host.must(&["snapshots"]);
    host.location = with_keys.replace("&region=us-east-1", "") + "&profile=program";
    let printed = format!(r#"{{"Version": 1, "AccessKeyId": "{ACCESS_KEY}", "SecretAccessKey": "{SECRET_KEY}"}}"#);
    std::fs::write(host.path("printed"), printed).unwrap();
    let config = format!(
        "[profile program]\nregion = us-east-1\ncredential_process = cat {}\n[profile roles]\nrole_arn = arn:aws:iam::1:role/x\n",
        host.path("printed").display()
    );
    std::fs::write(host.path(".aws/config"), config).unwrap();
    host.must(&["snapshots"]);
    host.location = server.location("x") + "&profile=roles";
    let said = host.run(&["snapshots"]).stderr;
    assert!(said.contains("profile roles has") && said.contains("credential_process = aws configure"), "{said}");
}
