use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::clock::FixedClock;
use crate::observer::Ledger;
use crate::storage::{
    Listed, MemoryStorage, ObjectBytes, ObjectKey, ObjectKind, Storage, StorageError, StorageErrorKind,
};
use crate::store::Unlock;

/// Refuses to delete what it is told to keep, and asks to stop after so many calls.
struct Stubborn {
    objects: MemoryStorage,
    refused: Vec<usize>,
    stop_after: usize,
    calls: std::sync::atomic::AtomicUsize,
    interrupt: Arc<AtomicBool>,
}

impl Storage for Stubborn {
    fn put_new(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        self.objects.put_new(key, bytes)
    }
    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        self.objects.replace(key, bytes)
    }
    fn get(&self, key: &ObjectKey) -> Result<ObjectBytes, StorageError> {
        self.objects.get(key)
    }
    fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        self.objects.get_range(key, range)
    }
    fn len(&self, key: &ObjectKey) -> Result<u64, StorageError> {
        self.objects.len(key)
    }
    fn list(&self, kind: ObjectKind) -> Result<Vec<Listed>, StorageError> {
        self.objects.list(kind)
    }
    fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        self.interrupt.fetch_or(call + 1 >= self.stop_after, Ordering::SeqCst);
        if self.refused.contains(&call) {
            return Err(StorageError::with_message(StorageErrorKind::Other, "No".to_owned()));
        }
        self.objects.delete(key)
    }
    fn location(&self) -> String {
        "memory".to_owned()
    }
}

/// What becomes of eight snapshots, one of which somebody else has removed: how many are removed, how many are not, how many
/// are left, how many problems there were.
fn forgotten(refused: &[usize], stop_after: usize) -> (Result<(usize, usize)>, usize, usize) {
    let objects = MemoryStorage::new();
    let (unlock, _) = Unlock::new_key_file().unwrap();
    let clock = FixedClock("2026-01-02T03:04:05Z".parse().unwrap());
    Repository::create(&objects, &unlock, "test", clock.0).unwrap();
    let interrupt = Arc::new(AtomicBool::new(false));
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let storage = Stubborn { objects, refused: refused.to_vec(), stop_after, calls, interrupt: interrupt.clone() };
    let repository = Repository::open(Box::new(storage), &unlock, None).unwrap();
    let ledger = Ledger::default();
    let context = Context { clock: &clock, observer: &ledger, interrupt: &interrupt };
    let mut remove: Vec<Decided> = (0..7)
        .map(|n| Decided::unread(repository.publish_snapshot(format!("{n}").as_bytes(), &context).unwrap()))
        .collect();
    remove.push(Decided::unread(SnapshotId::from_bytes([0xee; 32])));
    let groups = vec![GroupReport { group: Group::default(), keep: Vec::new(), remove }];
    let (removed, failed) = (Vec::new(), Vec::new());
    let mut report =
        ForgetReport { dry_run: false, time_zone: None, groups, removed, failed, interrupted: false, prune: None };
    let result = execute(&repository, &mut report, &context).map(|()| (report.removed.len(), report.failed.len()));
    (result, repository.list_snapshots().unwrap().len(), ledger.problems().len())
}

#[test]
fn what_cannot_be_removed_is_told_and_the_others_go_with_those_that_are_gone_already() {
    assert_eq!(forgotten(&[], 99).0.unwrap(), (8, 0));
    let (result, left, problems) = forgotten(&[0, 3], 99);
    assert_eq!((result.unwrap(), left, problems), ((6, 2), 2, 2));
}

#[test]
fn a_storage_that_refuses_everything_is_not_asked_for_ever_and_the_run_fails() {
    let (result, left, problems) = forgotten(&(0..99).collect::<Vec<_>>(), 99);
    assert_eq!((result.unwrap_err().kind(), left, problems), (ErrorKind::Storage, 7, 5));
    let (result, left, _) = forgotten(&(1..99).collect::<Vec<_>>(), 99);
    assert_eq!((result.unwrap(), left), ((1, 7), 6));
}

#[test]
fn an_interrupted_run_says_what_is_gone() {
    let (result, left, _) = forgotten(&[], 3);
    assert_eq!((result.unwrap(), left), ((3, 5), 4));
    let (result, left, _) = forgotten(&[0], 1);
    assert_eq!((result.unwrap_err().kind(), left), (ErrorKind::Storage, 7));
}
