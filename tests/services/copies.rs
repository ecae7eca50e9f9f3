//! Copies from one storage to the next: a directory, a bucket, a container, a machine behind SSH.

use crate::host::{Host, noise, value};
use crate::s3_server::S3Server;
use crate::ssh_server::SshServer;
use crate::{azure, s3};

#[test]
fn snapshots_go_from_a_directory_to_s3_to_azure_to_ssh_and_only_what_is_new_goes_again() {
    let (Some(container), Some(machine)) = (azure::server(), SshServer::start()) else { return };
    let bucket = S3Server::start();
    let ssh = [("COMPLINE_SSH", machine.ssh("user")), ("COMPLINE_SSH_REMOTE", machine.remote())];
    let variables = s3::keys().into_iter().chain(azure::keys()).chain(ssh).collect();
    let mut host = Host::of("near".to_owned(), variables);
    let far = format!("ssh://there{}", host.path("far").display());
    let places = ["near".to_owned(), bucket.location("copies"), container.location("backups", "copies"), far];
    host.make_tree();
    host.must(&["init"]);
    for (number, place) in places.iter().enumerate().skip(1) {
        host.location.clone_from(place);
        // The container gets keys of its own, so that everything is sealed anew on the way there and on the way on.
        let same_keys = ["init", "--copy-keys-from", &places[number - 1]];
        host.must(if number == 2 { &same_keys[..1] } else { &same_keys });
    }
    for night in 0..2u64 {
        std::fs::write(host.path("tree/of-the-night"), noise(50 + night, 1_000_000)).unwrap();
        host.location.clone_from(&places[0]);
        host.must(&["backup", "tree"]);
        for pair in places.windows(2) {
            host.location.clone_from(&pair[1]);
            let report = host.must(&["copy", "--from", &pair[0], "--json"]);
            let stored = value(&report, "copies")[0]["bytes_stored"].as_u64().unwrap();
            let most = if night == 0 { 40_000_000 } else { 2_000_000 };
            assert!((1_000_000..most).contains(&stored), "night {night} to {}: {report}", pair[1]);
        }
    }
    for (number, place) in places.iter().enumerate() {
        host.location.clone_from(place);
        assert_eq!(host.snapshot_count(), 2, "{place}");
        host.must(&["check", "--read-data"]);
        host.must_restore(&format!("out-{number}"));
    }
    let nothing = host.must(&["copy", "--from", &places[2], "--json"]);
    assert_eq!(value(&nothing, "copies")[0]["bytes_stored"], 0, "{nothing}");
}
