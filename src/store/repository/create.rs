//! Making repositories.

use jiff::Timestamp;

use super::{Repository, exists};
use crate::crypto::{self, Secret};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{KeyId, RepositoryId};
use crate::storage::{ObjectKey, ObjectKind, Storage, StorageError, StorageErrorKind};
use crate::store::card::Card;
use crate::store::config::{Config, ConfigHead};
use crate::store::envelope::no_random;
use crate::store::keyring::{self, Unlock};
use crate::store::rights::Grant;

fn exists_already(location: &str) -> Error {
    Error::new(ErrorKind::RepositoryExists, format!("There is a repository at {location} already"))
        .hint("Use it as it is, or choose another location")
}

/// Packs or snapshots without a config are a repository that lost it. A new config would bury them.
fn refuse_orphans(storage: &dyn Storage) -> Result<()> {
    for kind in [ObjectKind::Snapshot, ObjectKind::Pack] {
        if !storage.list(kind)?.is_empty() {
            let location = storage.location();
            return Err(Error::new(
                ErrorKind::RepositoryExists,
                format!("There is a repository at {location}, but its config is missing"),
            )
            .hint("Bring the object `config` back from a copy of the repository, or choose another location"));
        }
    }
    Ok(())
}

/// The config could not be published, or the answer was lost. Our key goes only if the config is certainly not ours.
fn settle_creation(storage: &dyn Storage, config: &[u8], key: KeyId, error: StorageError) -> Result<()> {
    let is_absent = match storage.get(&ObjectKey::Config) {
        Ok(stored) if *stored == *config => return Ok(()),
        Ok(_) => false,
        Err(cause) if cause.kind() == StorageErrorKind::NotFound => true,
        Err(_) => return Err(error.into()),
    };
    let _left_behind_at_worst = storage.delete(&ObjectKey::Key(key));
    if is_absent { Err(error.into()) } else { Err(exists_already(&storage.location())) }
}

impl Repository {
    /// Creates a repository with one key. The config is published last: a crash before leaves no repository, and at worst
    /// a key that opens nothing.
    ///
    /// # Errors
    /// `RepositoryExists`, also where the packs of one are whose config is gone, or from the storage.
    pub fn create(storage: &dyn Storage, unlock: &Unlock, label: &str, now: Timestamp) -> Result<RepositoryId> {
        Self::create_with(storage, unlock, label, &Config::new(now))
    }

    /// The same with a config that is not the default.
    ///
    /// # Errors
    /// As [`Repository::create`].
    pub fn create_with(storage: &dyn Storage, unlock: &Unlock, label: &str, config: &Config) -> Result<RepositoryId> {
        Self::create_of(storage, unlock, label, config, &Secret::random().map_err(no_random)?)
    }

    /// A repository of its own with the keys of this one: what is copied from one to the other needs not be sealed anew, nor
    /// deltas made again, and each can heal the other.
    ///
    /// # Errors
    /// As [`Repository::create`].
    pub fn create_twin(
        &self,
        storage: &dyn Storage,
        unlock: &Unlock,
        label: &str,
        config: &Config,
    ) -> Result<RepositoryId> {
        Self::create_of(storage, unlock, label, config, self.master()?)
    }

    fn create_of(
        storage: &dyn Storage,
        unlock: &Unlock,
        label: &str,
        config: &Config,
        master: &Secret,
    ) -> Result<RepositoryId> {
        if exists(storage)? {
            return Err(exists_already(&storage.location()));
        }
        refuse_orphans(storage)?;
        let id = RepositoryId::from_bytes(crypto::random().map_err(no_random)?);
        let head = ConfigHead::new(id, master)
            .map_err(|cause| Error::new(ErrorKind::Environment, "The key that signs can't be made").cause(cause))?;
        let object = config.seal(head, master)?;
        let card = Card { label: label.to_owned(), created_at: config.created_at };
        let key = keyring::add(storage, id, (master, Grant::All), unlock, &card)?;
        match storage.put_new(&ObjectKey::Config, &object) {
            Ok(()) => Ok(id),
            Err(error) => settle_creation(storage, &object, key, error).map(|()| id),
        }
    }
}
