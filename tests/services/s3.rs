//! Nights in a bucket, by the program: from `init` to `check`, and what happens when the server is sick, gone or says no.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::s3_server::{ACCESS_KEY, Instead, S3Server, SECRET_KEY, Seen};

/// A host with a tree to save, a key and a cache.
struct Host {
    scratch: TempDir,
    location: String,
    keys: [(&'static str, String); 2],
}

struct Outcome {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Host {
    fn of(location: String) -> Self {
        let keys = [("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned())];
        Self { scratch: TempDir::new().unwrap(), location, keys }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Some hundred files, small and large, all of them of their own.
    fn make_tree(&self) {
        for at in 0..40u64 {
            let directory = self.path(&format!("tree/{}", at % 10));
            std::fs::create_dir_all(&directory).unwrap();
            for file in 0..10u64 {
                std::fs::write(directory.join(format!("{at}-{file}")), noise(at * 100 + file, 2_000)).unwrap();
            }
        }
        std::fs::write(self.path("tree/large"), noise(7, 30_000_000)).unwrap();
    }

    fn run(&self, words: &[&str]) -> Outcome {
        let mut command = Command::new(env!("CARGO_BIN_EXE_compline"));
        command.arg("-r").arg(&self.location).arg("--key-file").arg(self.path("key"));
        command.arg("--cache-dir").arg(self.path("cache")).args(words);
        command.env("HOME", self.scratch.path()).envs(self.keys.clone()).env_remove("AWS_PROFILE");
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        let output = command.current_dir(self.scratch.path()).stdin(Stdio::null()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap_or(-1);
        Outcome { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    fn must(&self, words: &[&str]) -> String {
        let outcome = self.run(words);
        assert_eq!(outcome.code, 0, "{words:?}: {}{}", outcome.stdout, outcome.stderr);
        outcome.stdout
    }

    /// Restores the newest snapshot and compares it with the tree.
    fn must_restore(&self, target: &str) {
        let tree = self.path("tree");
        let what = format!("latest:/files{}", tree.display());
        self.must(&["restore", &what, "--target", target]);
        let diff = Command::new("diff").args(["-r", "--brief"]).arg(&tree).arg(self.path(target)).output().unwrap();
        assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// `GET 3, PUT 2` and each request.
fn told(requests: &[Seen]) -> String {
    let lines = requests.iter().map(|seen| format!("  {} {}\n", seen.method, seen.path));
    format!("{} requests\n{}", requests.len(), lines.collect::<String>())
}

/// Init, backup, an unchanged night, a changed one, restore, forget, prune, check. Gives the requests of the unchanged night.
fn night(host: &Host, requests: &dyn Fn() -> Vec<Seen>) -> Vec<Seen> {
    host.make_tree();
    host.must(&["init"]);
    assert_eq!(host.run(&["init"]).code, 1, "there is a repository already");
    for _ in 0..3 {
        host.must(&["backup", "tree"]);
    }
    let _before = requests();
    host.must(&["backup", "tree"]);
    let unchanged = requests();
    std::fs::write(host.path("tree/0/new"), noise(1, 100_000)).unwrap();
    std::fs::remove_file(host.path("tree/1/1-1")).unwrap();
    host.must(&["backup", "tree"]);
    host.must_restore("out");
    assert_eq!(host.must(&["snapshots", "--json"]).matches("\"id\"").count(), 5);
    host.must(&["check", "--read-data"]);
    host.must(&["forget", "--keep-last", "1", "--prune"]);
    host.must(&["prune", "--max-unused", "0%"]);
    host.must(&["check", "--read-data"]);
    host.must_restore("out-again");
    unchanged
}

#[test]
fn a_night_from_init_to_check_and_an_unchanged_one_in_thirteen_requests() {
    let server = S3Server::start();
    let host = Host::of(server.location("nights/shop"));
    let unchanged = night(&host, &|| server.take_requests());
    println!("{}", told(&unchanged));
    assert!(unchanged.len() <= 13, "{}", told(&unchanged));
    let left =
        |kind: &str| std::fs::read_dir(server.directory().join("nights/shop").join(kind)).map_or(0, Iterator::count);
    assert_eq!((left("snapshots"), left("sessions")), (1, 0));
}

#[test]
fn a_night_with_a_server_that_knows_no_conditions() {
    let server = S3Server::start();
    server.ignore_conditions();
    night(&Host::of(server.location("nights")), &Vec::new);
}

#[test]
fn a_night_with_the_bucket_in_the_name_of_the_host() {
    let server = S3Server::start_with_hosts();
    night(&Host::of(server.location("nights")), &Vec::new);
}

#[test]
fn a_night_over_tls_with_an_authority_of_ones_own() {
    let server = S3Server::start_with_tls();
    night(&Host::of(server.location("nights")), &Vec::new);
}

#[test]
fn a_prune_tells_what_stays_locked_and_gives_what_is_needed_more_time() {
    let server = S3Server::start();
    server.keep_locks();
    let host = Host::of(server.location("x") + "&lock=governance&lock_for=30d");
    host.make_tree();
    host.must(&["init"]);
    host.must(&["backup", "tree"]);
    std::fs::write(host.path("tree/large"), noise(8, 30_000_000)).unwrap();
    host.must(&["backup", "tree"]);
    let objects = all_files(&server.directory());
    let month_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(29 * 86_400);
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

#[test]
fn a_night_elsewhere() {
    let Ok(location) = std::env::var("COMPLINE_TEST_S3") else {
        println!("SKIPPED: COMPLINE_TEST_S3 names no server (tests/ceph starts one)");
        return;
    };
    let (place, query) = location.split_once('?').unwrap();
    let scratch = TempDir::new().unwrap();
    let name = scratch.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_owned();
    let mut host = Host::of(format!("{place}/{name}?{query}"));
    host.keys = host.keys.map(|(name, _)| (name, std::env::var(name).unwrap()));
    night(&host, &Vec::new);
}

#[test]
fn a_server_that_dies_in_the_middle_of_an_upload_costs_nothing_that_was_uploaded() {
    let server = S3Server::start();
    let mut host = Host::of(server.location("x") + "&patience=1s");
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
    assert_eq!(host.must(&["snapshots", "--json"]).matches("\"id\"").count(), 0, "nothing was published");
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
    let mut host = Host::of(server.location("x") + "&patience=1s");
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
    let host = Host::of(server.location("x"));
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
    let mut host = Host::of(server.location("x"));
    host.make_tree();
    let outcome = host.run(&["backup", "tree"]);
    assert!(outcome.stderr.contains("key"), "there is no key file yet: {}", outcome.stderr);
    host.must(&["init"]);
    host.keys[1].1 = "wrong".to_owned();
    let outcome = host.run(&["backup", "tree"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("secret key") && outcome.stderr.contains("[C-0030]"), "{}", outcome.stderr);
    host.keys[1].0 = "UNUSED";
    let outcome = host.run(&["snapshots"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("There are no credentials"), "{}", outcome.stderr);
    host.keys = Host::of(String::new()).keys;
    host.location = host.location.replace("/x?", "/empty?");
    assert_eq!(host.run(&["snapshots"]).code, 10, "no repository there");
    server.set_rule(|_| Some(Instead::Refuse(404, "NoSuchBucket")));
    let outcome = host.run(&["snapshots"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("there is no bucket backups"), "{}", outcome.stderr);
}

#[test]
fn credentials_come_from_the_shared_file_and_its_profiles() {
    let server = S3Server::start();
    let mut host = Host::of(server.location("x"));
    host.must(&["init"]);
    let content = format!(
        "[default]\naws_access_key_id = NOBODY\naws_secret_access_key = x\n\
         [night]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    );
    std::fs::create_dir(host.path(".aws")).unwrap();
    std::fs::write(host.path(".aws/credentials"), content).unwrap();
    host.keys = [("UNUSED_A", String::new()), ("UNUSED_B", String::new())];
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
