//! Objects by key: the place where a repository lies.
//!
//! [`Storage`] is the seam. Its comments are the contract, `tests/storage` is the proof that runs for every
//! implementation. Storage knows no formats and no encryption; it keeps write-once byte strings.

mod address;
mod azure;
mod error;
mod key;
mod limit;
mod line;
mod local;
mod memory;
mod s3;
mod serve;
mod served;
mod sftp;
mod ssh;
mod url;
mod web;
mod wire;

use std::ops::Range;

use jiff::Timestamp;

pub use address::SshAddress;
pub use azure::{AzureAddress, AzureAddressError, AzureStorage};
pub use error::{StorageError, StorageErrorKind};
pub use key::{ObjectKey, ObjectKind};
pub use limit::{LimitedStorage, Limits};
pub use local::LocalStorage;
pub use memory::MemoryStorage;
pub use s3::{LockMode, ObjectLock, S3Address, S3AddressError, S3Storage};
pub use serve::{Rights, serve};
pub use served::ServedStorage;
pub use sftp::SftpStorage;
pub use url::{Location, ParseLocationError};
pub use web::{RequestKind, Requests};

use crate::mmap::Map;

/// One row of a listing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// The object's name.
    pub key: ObjectKey,
    /// Its length in bytes.
    pub len: u64,
}

/// The bytes of an object: owned, or a map of an immutable file.
#[derive(Debug)]
pub enum ObjectBytes {
    /// Bytes in memory.
    Owned(Vec<u8>),
    /// A read-only map.
    Mapped(Map),
}

impl std::ops::Deref for ObjectBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}

/// A place for write-once objects. Single objects are linearizable: once a put or delete has returned, every later
/// get and list, by anybody, sees it. Nothing is promised across objects, and no clock is used.
pub trait Storage: Send + Sync {
    /// Stores `bytes` under `key`, which must not exist yet.
    ///
    /// On `Ok` the object is complete and durable: it survives a power cut that happens after the return. On `Err` it
    /// is absent or complete, never partial, for every reader. If the key exists already the call fails with
    /// [`StorageErrorKind::Exists`] and the old bytes stay. Of two writers of one key at once at most one succeeds, but for
    /// those who give the same bytes: after a lost answer nobody can tell whose they are, and nobody needs to.
    fn put_new(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError>;

    /// Puts `bytes` in the place of a damaged object, atomically: every reader sees the old bytes or all of the new ones, and
    /// on `Ok` the new ones are durable. An object that is not there is created.
    ///
    /// The only way to change an object, and no change at all: callers give bytes that the name proves to be those that
    /// were written under it, so that it makes no difference who of several comes last.
    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError>;

    /// All bytes of an object. Fails with [`StorageErrorKind::NotFound`].
    fn get(&self, key: &ObjectKey) -> Result<ObjectBytes, StorageError>;

    /// The bytes `range` of an object. A range that reaches past the end fails with
    /// [`StorageErrorKind::OutOfRange`], never with fewer bytes.
    fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Vec<u8>, StorageError>;

    /// The length of an object in bytes, without reading it. Fails with [`StorageErrorKind::NotFound`].
    fn len(&self, key: &ObjectKey) -> Result<u64, StorageError>;

    /// Every object of one kind, sorted by key. Things in the place that are not objects are passed over, among them
    /// what a crashed [`put_new`](Self::put_new) left behind.
    fn list(&self, kind: ObjectKind) -> Result<Vec<Listed>, StorageError>;

    /// Removes an object durably. Fails with [`StorageErrorKind::NotFound`] if it is not there; where that would take another
    /// request, it may be `Ok` for a session, of which everybody wants nothing but that it is gone.
    fn delete(&self, key: &ObjectKey) -> Result<(), StorageError>;

    /// Where what is stored is locked against deletion for a time, by anybody: sees to it that no object of `kind` for which
    /// `is_needed` has less than half of that time left. Gives how many got more. Elsewhere nothing is asked or done.
    fn extend_locks(&self, _kind: ObjectKind, _is_needed: &dyn Fn(&ObjectKey) -> bool) -> Result<u64, StorageError> {
        Ok(0)
    }

    /// Until when an object is locked, so that [`delete`](Self::delete) hides it and gives no space back. None: it isn't, or
    /// it is not there.
    fn locked_until(&self, _key: &ObjectKey) -> Result<Option<Timestamp>, StorageError> {
        Ok(None)
    }

    /// Where this is, for messages: a path or an address, without secrets.
    fn location(&self) -> String;

    /// Whether each call costs a way over the network, so that it pays to keep copies of what is read again and again.
    fn is_remote(&self) -> bool {
        false
    }

    /// Whether no request can have its effect any more once the process that sent it is gone: where there is nobody in
    /// between that could still be carrying it. Then what a dead process began is over (format-spec 11, RECL-6).
    fn requests_die_with_sender(&self) -> bool {
        false
    }
}

impl<S: Storage + ?Sized> Storage for std::sync::Arc<S> {
    fn put_new(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        (**self).put_new(key, bytes)
    }
    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        (**self).replace(key, bytes)
    }
    fn get(&self, key: &ObjectKey) -> Result<ObjectBytes, StorageError> {
        (**self).get(key)
    }
    fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        (**self).get_range(key, range)
    }
    fn len(&self, key: &ObjectKey) -> Result<u64, StorageError> {
        (**self).len(key)
    }
    fn list(&self, kind: ObjectKind) -> Result<Vec<Listed>, StorageError> {
        (**self).list(kind)
    }
    fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        (**self).delete(key)
    }
    fn extend_locks(&self, kind: ObjectKind, is_needed: &dyn Fn(&ObjectKey) -> bool) -> Result<u64, StorageError> {
        (**self).extend_locks(kind, is_needed)
    }
    fn locked_until(&self, key: &ObjectKey) -> Result<Option<Timestamp>, StorageError> {
        (**self).locked_until(key)
    }
    fn location(&self) -> String {
        (**self).location()
    }
    fn is_remote(&self) -> bool {
        (**self).is_remote()
    }
    fn requests_die_with_sender(&self) -> bool {
        (**self).requests_die_with_sender()
    }
}
