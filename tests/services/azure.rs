//! Nights in a container of Azure, by the program, and what happens when the server is gone or says no. The server is
//! Azurite; what it can't be made to do is done by a gate before it.

use compline::storage::{AzureStorage, Location};

use crate::azurite::{ACCOUNT, Azurite, KEY, location_by};
use crate::gate::{Gate, Instead};
use crate::host::{Host, Variables, noise, value};
use crate::night::night;

pub fn keys() -> Variables {
    vec![("AZURE_STORAGE_ACCOUNT", ACCOUNT.to_owned()), ("AZURE_STORAGE_KEY", KEY.to_owned())]
}

/// A server with a container `backups`. None where Azurite is not installed, which is said.
pub fn server() -> Option<Azurite> {
    let Some(server) = Azurite::start() else {
        println!("SKIPPED: Azurite is not installed (tests/run does so where there is npm)");
        return None;
    };
    let Ok(Location::Azure(address)) = server.location("backups", "").parse() else { panic!("no address") };
    AzureStorage::with_key(&address, ACCOUNT, KEY).unwrap().create_container().unwrap();
    Some(server)
}

/// A host that reaches the server through a gate.
fn gated() -> Option<(Azurite, Gate, Host)> {
    let server = server()?;
    let gate = Gate::to(server.port());
    let location = location_by(gate.port(), "backups", "x").replace("patience=5s", "patience=1s");
    let host = Host::of(location, keys());
    host.make_tree();
    host.must(&["init"]);
    Some((server, gate, host))
}

#[test]
fn a_night_from_init_to_check() {
    let Some(server) = server() else { return };
    night(&Host::of(server.location("backups", "nights/shop"), keys()), &mut || ());
}

#[test]
fn a_server_that_dies_in_the_middle_of_an_upload_costs_nothing_that_was_uploaded() {
    let Some((_server, gate, host)) = gated() else { return };
    std::fs::write(host.path("stream"), noise(3, 60_000_000)).unwrap();
    let save = ["backup", "--json", "--stdin-name", "s", "--stdin-from-command", "--", "cat", "stream"];
    // The first pack has 32 MiB.
    gate.close_after_sending(50_000_000);
    host.run(&save).fails(1, &["the connection to http://127.0.0.1", "Run the same command again", "[C-0030]"]);
    gate.open();
    assert_eq!(host.snapshot_count(), 0, "nothing was published");
    let report = host.must(&save);
    let stored = value(&report, "bytes_stored").as_f64().unwrap();
    assert!(stored < 40_000_000.0, "what was uploaded is used, {stored} bytes were stored");
    host.must(&["check", "--read-data"]);
}

#[test]
fn a_server_that_dies_in_the_middle_of_a_restore_is_told_and_the_next_run_goes_on() {
    let Some((_server, gate, host)) = gated() else { return };
    host.must(&["backup", "tree"]);
    gate.close_after_receiving(10_000_000);
    let what = format!("latest:/files{}", host.path("tree").display());
    let outcome = host.run(&["restore", &what, "--target", "out"]);
    assert!(matches!(outcome.code, 1 | 3), "{}: {}", outcome.code, outcome.stderr);
    assert!(outcome.stderr.contains("the connection to http://127.0.0.1"), "{}", outcome.stderr);
    gate.open();
    host.must_restore("out");
}

#[test]
fn what_is_wrong_is_told_with_a_code_and_what_to_do() {
    let Some((server, gate, mut host)) = gated() else { return };
    host.variables[1].1 = "eHh4".to_owned();
    host.run(&["backup", "tree"]).fails(1, &["does not accept the key", "AZURE_STORAGE_KEY", "[C-0030]"]);
    host.variables.pop();
    host.run(&["snapshots"]).fails(1, &["There is no key for", "AZURE_STORAGE_KEY", "[C-0030]"]);
    host.variables = keys();
    let right = host.location.clone();
    host.location = server.location("backups", "empty");
    host.run(&["snapshots"]).fails(10, &["There is no repository"]);
    host.location = server.location("nowhere", "x");
    host.run(&["snapshots"]).fails(1, &["there is no container nowhere", "Create the container", "[C-0030]"]);
    host.location = right;
    let head = "HTTP/1.1 403 x\r\ndate: Fri, 20 Nov 2020 22:00:00 GMT\r\nx-ms-error-code: AuthenticationFailed";
    gate.answer(Instead { begins: "", part: "HTTP", head: head.to_owned() });
    host.run(&["backup", "tree"]).fails(1, &["the clock of this machine differs", "NTP", "[C-0030]"]);
    gate.open();
    host.must(&["backup", "tree"]);
}

#[test]
fn a_storage_that_is_full_is_told_and_the_next_run_goes_on_when_there_is_room() {
    let Some((_server, gate, host)) = gated() else { return };
    // An account has no quota that could be reached here, but gateways before it have.
    let head = "HTTP/1.1 507 Insufficient Storage".to_owned();
    gate.answer(Instead { begins: "PUT ", part: "/packs/", head });
    host.run(&["backup", "tree"]).fails(1, &["no space or quota is left", "Free some space", "[C-0030]"]);
    gate.open();
    assert_eq!(host.snapshot_count(), 0);
    host.must(&["backup", "tree"]);
    host.must_restore("out");
    host.must(&["check", "--read-data"]);
}
