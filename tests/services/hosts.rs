//! Several hosts with caches of their own and one repository in a bucket: they save at once, one prunes meanwhile, and each uses
//! what the others have stored.

use std::path::Path;

use crate::host::{Host, Outcome, Variables, noise, value};
use crate::s3::{elsewhere, keys};
use crate::s3_server::S3Server;

/// Another host with the key of `first` and nothing else.
fn another(first: &Host) -> Host {
    let host = Host::of(first.location.clone(), first.variables.clone());
    std::fs::copy(first.path("key"), host.path("key")).unwrap();
    host
}

fn first(location: String, variables: Variables) -> Host {
    let host = Host::of(location, variables);
    host.must(&["init"]);
    host
}

/// One that has made the repository, and others like it.
fn six(first: Host) -> [Host; 6] {
    let mut others = std::iter::repeat_with(|| another(&first)).take(5).collect::<Vec<_>>();
    others.push(first);
    others.try_into().unwrap_or_else(|_| unreachable!("five and one"))
}

/// Three hosts save twice, at once, what they have in common and what is their own, and a fourth one prunes all the while.
pub fn three_save_and_one_prunes(hosts: [Host; 6]) {
    let [pruner, stranger, late, first, second, third] = hosts;
    let hosts = [first, second, third];
    hosts.iter().for_each(Host::make_tree);
    let mut saved = Vec::new();
    for round in 0..2u64 {
        let doomed = pruner.path("doomed");
        std::fs::write(&doomed, noise(1000 + round, 20_000_000)).unwrap();
        let report = pruner.must(&["backup", "doomed", "--json"]);
        pruner.must(&["forget", value(&report, "snapshot").as_str().unwrap()]);
        for (at, host) in (0..).zip(&hosts) {
            std::fs::write(host.path("tree/own"), noise(100 * round + at, 5_000_000)).unwrap();
        }
        let runs: Vec<_> = hosts.iter().map(|host| host.begin(&["backup", "tree", "--json"])).collect();
        let pruned = value(&pruner.must(&["prune", "--max-unused", "0%", "--wait", "10m", "--json"]), "packs_deleted");
        assert!(pruned.as_u64().unwrap() > 0, "round {round}");
        for (host, run) in hosts.iter().zip(runs) {
            let report = Outcome::of(run.wait_with_output().unwrap()).must();
            assert_eq!(value(&report, "status"), "complete");
            if round == 1 {
                saved.push((value(&report, "snapshot").as_str().unwrap().to_owned(), host.path("tree")));
            }
        }
    }
    assert_eq!(pruner.snapshot_count(), 6);
    for (at, (snapshot, tree)) in saved.iter().enumerate() {
        stranger.must_restore_snapshot(snapshot, tree, &format!("out-{at}"));
    }
    stranger.must(&["check", "--read-data"]);
    // Who comes later has nothing to store but a few trees.
    late.make_tree();
    let stored = value(&late.must(&["backup", "tree", "--json"]), "bytes_stored").as_u64().unwrap();
    assert!(stored < 300_000, "{stored} bytes of 31 million");
    late.must_restore("out");
}

#[test]
fn three_hosts_save_at_once_while_a_fourth_one_prunes() {
    let server = S3Server::start();
    three_save_and_one_prunes(six(first(server.location("shared"), keys())));
    let sessions = server.directory().join("shared/sessions");
    assert_eq!(std::fs::read_dir(sessions).map_or(0, Iterator::count), 0);
}

#[test]
fn three_hosts_save_at_once_while_a_fourth_one_prunes_elsewhere() {
    let Ok(location) = std::env::var("COMPLINE_TEST_S3") else {
        println!("SKIPPED: COMPLINE_TEST_S3 names no server (tests/ceph and tests/garage start one)");
        return;
    };
    let host = elsewhere(&location);
    host.must(&["init"]);
    three_save_and_one_prunes(six(host));
}

#[test]
fn a_host_uses_what_another_one_has_uploaded_that_has_not_published_yet() {
    let server = S3Server::start();
    let slow = first(server.location("shared"), keys());
    let quick = another(&slow);
    for host in [&slow, &quick] {
        std::fs::write(host.path("stream"), noise(5, 80_000_000)).unwrap();
    }
    let made = std::process::Command::new("mkfifo").arg(slow.path("go")).status().unwrap();
    assert!(made.success());
    let save = ["backup", "--json", "--stdin-name", "s", "--stdin-from-command", "--"];
    let mut run = slow.begin(&[&save[..], &["sh", "-c", "cat stream go"]].concat());
    // Two packs of 32 MiB; the third one waits for the end.
    while count(&server.directory().join("shared/packs")) < 2 {
        assert!(run.try_wait().unwrap().is_none(), "it ended early");
        std::thread::yield_now();
    }
    let report = quick.must(&[&save[..], &["cat", "stream"]].concat());
    let stored = value(&report, "bytes_stored").as_u64().unwrap();
    assert!(stored < 20_000_000, "{stored} bytes of 80 million");
    std::fs::write(slow.path("go"), b"the end").unwrap();
    Outcome::of(run.wait_with_output().unwrap()).must();
    assert_eq!(quick.snapshot_count(), 2);
    quick.must(&["check", "--read-data"]);
}

/// Objects of a directory that fans out once.
fn count(directory: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries.map(|entry| std::fs::read_dir(entry.unwrap().path()).map_or(0, Iterator::count)).sum()
}
