//! Storage in memory: for tests, and for looking at what a crash would leave.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Listed, ObjectBytes, ObjectKey, ObjectKind, Storage, StorageError, StorageErrorKind};

type Objects = BTreeMap<ObjectKey, Arc<[u8]>>;

/// Objects in a map. A clone is an independent copy of the present state, as a crash at this moment would leave it.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    objects: RwLock<Objects>,
}

impl MemoryStorage {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `bytes` in the place of what `key` had or lacked, as damage does. Storage proper never does this.
    pub fn overwrite(&self, key: &ObjectKey, bytes: &[u8]) {
        self.write().insert(*key, bytes.into());
    }

    /// Every object's key, sorted.
    #[must_use]
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.read().keys().copied().collect()
    }

    fn object(&self, key: &ObjectKey) -> Result<Arc<[u8]>, StorageError> {
        self.read().get(key).cloned().ok_or_else(|| StorageError::new(StorageErrorKind::NotFound, key))
    }

    // A panic of another thread can't leave the map half-changed: every change is one call.
    fn read(&self) -> RwLockReadGuard<'_, Objects> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Objects> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for MemoryStorage {
    fn clone(&self) -> Self {
        Self { objects: RwLock::new(self.read().clone()) }
    }
}

impl Storage for MemoryStorage {
    fn put_new(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        let mut objects = self.write();
        if objects.contains_key(key) {
            return Err(StorageError::new(StorageErrorKind::Exists, key));
        }
        objects.insert(*key, bytes.into());
        Ok(())
    }

    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        self.write().insert(*key, bytes.into());
        Ok(())
    }

    fn get(&self, key: &ObjectKey) -> Result<ObjectBytes, StorageError> {
        Ok(ObjectBytes::Owned(self.object(key)?.to_vec()))
    }

    fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        let object = self.object(key)?;
        let bounds = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        let bytes = bounds.and_then(|(start, end)| object.get(start..end));
        bytes.map(<[u8]>::to_vec).ok_or_else(|| StorageError::new(StorageErrorKind::OutOfRange, key))
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StorageError> {
        self.object(key).map(|object| object.len() as u64)
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<Listed>, StorageError> {
        let objects = self.read();
        let of_kind = objects.iter().filter(|(key, _)| key.kind() == kind);
        Ok(of_kind.map(|(key, bytes)| Listed { key: *key, len: bytes.len() as u64 }).collect())
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        let removed = self.write().remove(key);
        removed.map(drop).ok_or_else(|| StorageError::new(StorageErrorKind::NotFound, key))
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }

    fn requests_die_with_sender(&self) -> bool {
        true
    }
}
