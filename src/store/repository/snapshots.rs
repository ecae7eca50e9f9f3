//! Records of snapshots, as objects: what is in them is the archive's matter.

use std::collections::HashSet;

use super::Repository;
use crate::error::{Error, ErrorKind, Result};
use crate::id::SnapshotId;
use crate::observer::{Context, Counter};
use crate::storage::{ObjectKey, ObjectKind, StorageErrorKind};
use crate::store::envelope::{self, ObjectType, no_random};
use crate::store::heal::Verdict;

impl Repository {
    /// Publishes a snapshot record and returns its id. Everything it refers to must be published before.
    ///
    /// # Errors
    /// From the storage.
    pub fn publish_snapshot(&self, record: &[u8], context: &Context<'_>) -> Result<SnapshotId> {
        let keys = &self.inner.keys;
        let signer = keys.signer();
        let (object, key) = if let Some(read) = self.inner.rights.read() {
            let key = read.record.clone();
            (envelope::seal_record(ObjectType::Snapshot, &key, signer, &[], record)?, key)
        } else {
            let (salt, key) = keys.deposits().draw().map_err(no_random)?;
            (envelope::seal_deposit(ObjectType::Snapshot, salt, &key, signer, record)?, key)
        };
        let back = envelope::open_record(ObjectType::Snapshot, &key, Some(keys.verifier()), &object);
        if back.as_deref() != Ok(record) {
            return Err(Error::new(ErrorKind::Bug, "The snapshot is not what was written: nothing was published")
                .hint("Run the backup again; if it happens again, test the memory of this machine"));
        }
        let id = SnapshotId::from_bytes(*blake3::hash(&object).as_bytes());
        self.storage().put_new(&ObjectKey::Snapshot(id), &object)?;
        context.count(Counter::ObjectsPut, 1);
        context.count(Counter::BytesStored, object.len() as u64);
        self.keep_copy(&ObjectKey::Snapshot(id), &object);
        Ok(id)
    }

    /// The ids of all published snapshots.
    ///
    /// # Errors
    /// From the storage.
    pub fn list_snapshots(&self) -> Result<Vec<SnapshotId>> {
        let listed = self.storage().list(ObjectKind::Snapshot)?;
        if let Some(copies) = &self.inner.copies {
            let there: HashSet<ObjectKey> = listed.iter().map(|row| row.key).collect();
            copies.keep_only(ObjectKind::Snapshot, |key| there.contains(key));
        }
        Ok(listed
            .into_iter()
            .filter_map(|row| match row.key {
                ObjectKey::Snapshot(id) => Some(id),
                _ => None,
            })
            .collect())
    }

    /// The record of a snapshot.
    ///
    /// # Errors
    /// `Damaged` when it is not what was published, or was published by who may not write.
    pub fn read_snapshot(&self, id: SnapshotId) -> Result<Vec<u8>> {
        let key = ObjectKey::Snapshot(id);
        let (record, keys) = (&self.read_keys()?.record, &self.inner.keys);
        let open = |bytes: &[u8]| {
            let deposit = Some(bytes).filter(|bytes| envelope::is_deposit(bytes));
            let deposit = deposit.and_then(|bytes| keys.deposits().key(bytes));
            let subkey = deposit.as_ref().unwrap_or(record);
            envelope::open_record(ObjectType::Snapshot, subkey, Some(keys.verifier()), bytes)
        };
        if let Some(copy) = self.inner.copies.as_ref().and_then(|copies| copies.get(&key))
            && let Ok(record) = open(&copy)
        {
            return Ok(record);
        }
        let (bytes, verdict) = self.read_small(&key)?;
        if let Verdict::Lost(why) = verdict {
            return Err(Error::damaged(format!("Snapshot {} is damaged", id.short())).cause(why));
        }
        self.keep_copy(&key, &bytes);
        open(&bytes).map_err(|cause| Error::stored(format!("Snapshot {}", id.short()), cause.is_newer()).cause(cause))
    }

    /// Removes a snapshot; its chunks stay until they are reclaimed. False if it was gone already.
    ///
    /// # Errors
    /// From the storage, and `WrongKey` for who holds a part.
    pub fn remove_snapshot(&self, id: SnapshotId) -> Result<bool> {
        self.master()?;
        match self.storage().delete(&ObjectKey::Snapshot(id)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == StorageErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
