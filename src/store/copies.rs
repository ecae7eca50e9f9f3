//! Copies of what is read again and again: snapshots, and packs of trees. Where each reading costs a request to a far
//! storage, a machine that has them looks and compares without one. They lie in the cache directory and may be deleted at any
//! time; their names are the hashes of their bytes, so a copy that is not what it should be is fetched anew.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::heal::{self, Verdict};
use crate::pipeline::lock;
use crate::storage::{LocalStorage, ObjectBytes, ObjectKey, ObjectKind, Storage};

/// Copies that are kept open.
const OPEN_COUNT_MAX: usize = 256;

/// Copies of objects of one repository.
pub(super) struct Copies {
    directory: PathBuf,
    is_bypassed: AtomicBool,
    open: Mutex<HashMap<ObjectKey, Arc<ObjectBytes>>>,
}

impl Copies {
    /// Copies in `directory`, which is made when there is something to keep.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, is_bypassed: AtomicBool::new(false), open: Mutex::default() }
    }

    /// From now on nothing is read from here: somebody wants to know what the storage has.
    pub(super) fn bypass(&self) {
        self.is_bypassed.store(true, Ordering::Relaxed);
    }

    /// Whether anything is read from here.
    pub(super) fn are_used(&self) -> bool {
        !self.is_bypassed.load(Ordering::Relaxed)
    }

    /// The bytes of an object, if there is a sound copy.
    pub(super) fn get(&self, key: &ObjectKey) -> Option<Arc<ObjectBytes>> {
        if !self.are_used() {
            return None;
        }
        if let Some(bytes) = lock(&self.open).get(key) {
            return Some(bytes.clone());
        }
        let place = LocalStorage::open(&self.directory).ok()?;
        let bytes = Arc::new(place.get(key).ok()?);
        if heal::examine(key, &bytes) != Verdict::Whole {
            let _is_found_unsound_again = place.delete(key);
            return None;
        }
        let mut open = lock(&self.open);
        if open.len() >= OPEN_COUNT_MAX {
            open.clear();
        }
        open.insert(*key, bytes.clone());
        Some(bytes)
    }

    /// A part of an object, if there is a sound copy.
    pub(super) fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Option<Vec<u8>> {
        let range = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
        self.get(key)?.get(range).map(<[u8]>::to_vec)
    }

    /// Keeps a copy. What can't be kept is fetched again the next time.
    pub(super) fn keep(&self, key: &ObjectKey, bytes: &[u8]) {
        let _is_fetched_again = LocalStorage::create(&self.directory).and_then(|place| place.put_new(key, bytes));
    }

    /// Drops the copies of objects of one kind that are gone.
    pub(super) fn keep_only(&self, kind: ObjectKind, is_there: impl Fn(&ObjectKey) -> bool) {
        let Ok(place) = LocalStorage::open(&self.directory) else { return };
        for row in place.list(kind).unwrap_or_default() {
            if !is_there(&row.key) {
                let _is_dropped_the_next_time = place.delete(&row.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SnapshotId;

    #[test]
    fn a_copy_is_what_its_name_says_or_none() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("copies");
        let copies = Copies::new(place.clone());
        let key = |bytes: &[u8]| ObjectKey::Snapshot(SnapshotId::from_bytes(*blake3::hash(bytes).as_bytes()));
        let (one, two) = (key(b"one"), key(b"two"));
        assert!(copies.get(&one).is_none());
        copies.keep(&one, b"one");
        copies.keep(&two, b"else");
        assert_eq!(copies.get_range(&one, 1..3).unwrap(), b"ne");
        assert!(copies.get_range(&one, 1..4).is_none());
        assert!(copies.get(&two).is_none());
        copies.keep(&two, b"two");
        let copies = Copies::new(place);
        assert!(copies.get(&two).is_some(), "it took the place of the unsound one");
        copies.keep_only(ObjectKind::Snapshot, |key| *key == two);
        assert!(copies.get(&one).is_none());
        copies.bypass();
        assert!(copies.get(&two).is_none());
    }
}
