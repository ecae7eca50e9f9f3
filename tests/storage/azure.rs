//! What only a container of Azure can do or suffer.

use compline::id::SnapshotId;
use compline::storage::{
    AzureAddress, AzureStorage, Listed, Location, ObjectKey, ObjectKind, RequestKind, Storage, StorageErrorKind,
};

use super::azurite::{ACCOUNT, Azurite, KEY};
use super::{config, pack};

fn address(location: &str) -> AzureAddress {
    match location.parse::<Location>().unwrap() {
        Location::Azure(address) => *address,
        other => panic!("{other} is no container"),
    }
}

/// A storage in a container of its own.
fn storage_in(server: &Azurite) -> AzureStorage {
    let address = address(&server.location("backups", "some/place"));
    let storage = AzureStorage::with_key(&address, ACCOUNT, KEY).unwrap();
    storage.create_container().unwrap();
    storage
}

/// The same storage by way of another port.
pub fn storage_by(port: u16) -> AzureStorage {
    let address = address(&Azurite::location_by(port, "backups", "some/place", "60s"));
    AzureStorage::with_key(&address, ACCOUNT, KEY).unwrap()
}

pub fn place() -> Option<(Azurite, AzureStorage)> {
    let server = Azurite::start();
    if server.is_none() {
        println!("SKIPPED: Azurite is not installed (tests/run does so where there is npm)");
    }
    server.map(|server| {
        let storage = storage_in(&server);
        (server, storage)
    })
}

#[test]
fn lists_of_more_than_a_page_are_whole() {
    let Some((_server, storage)) = place() else { return };
    let mut expected: Vec<Listed> = (0..30_u8)
        .map(|n| Listed { key: ObjectKey::Snapshot(SnapshotId::from_bytes([n; 32])), len: u64::from(n) })
        .collect();
    for row in &expected {
        storage.put_new(&row.key, &vec![1; usize::try_from(row.len).unwrap()]).unwrap();
    }
    expected.sort();
    let storage = storage.with_page_count(7);
    let before = storage.requests().of(RequestKind::List);
    assert_eq!(storage.list(ObjectKind::Snapshot).unwrap(), expected);
    assert_eq!(storage.requests().of(RequestKind::List) - before, 5);
}

#[test]
fn wrong_keys_containers_and_servers_are_told_apart() {
    let Some((server, storage)) = place() else { return };
    storage.put_new(&config(), b"x").unwrap();
    let right = address(&server.location("backups", "some/place"));
    let wrong = AzureStorage::with_key(&right, ACCOUNT, "eHh4").unwrap();
    let error = wrong.get(&config()).unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Denied, "{error}");
    assert!(error.hint().unwrap().contains("AZURE_STORAGE_KEY"), "{error}");
    assert_eq!(AzureStorage::with_key(&right, ACCOUNT, "no base64!").unwrap_err().kind(), StorageErrorKind::Denied);
    let nowhere = address(&server.location("nowhere", ""));
    let error = AzureStorage::with_key(&nowhere, ACCOUNT, KEY).unwrap().put_new(&pack(1), b"x").unwrap_err();
    assert!(error.to_string().contains("no container nowhere"), "{error}");
    drop(server);
    let error = storage.get(&config()).unwrap_err();
    assert!(error.to_string().contains("no connection to"), "{error}");
}
