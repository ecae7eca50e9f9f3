//! Lists of retired packs (format-spec 11): packs on their way out, which nobody may rely on any more.

use std::collections::HashSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::envelope::{ObjectType, no_random};
use super::repository::Repository;
use crate::crypto;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{PackId, RetiredId};
use crate::observer::Context;
use crate::storage::{ObjectKey, ObjectKind, StorageErrorKind};

/// `format` of the records that this program writes.
const RETIRED_FORMAT: u32 = 1;
/// Most packs of one list: far below what a record may hold.
pub const RETIRED_COUNT_MAX: usize = 500_000;

#[derive(Serialize, Deserialize)]
struct RetiredRecord {
    format: u32,
    host: String,
    started_at: Timestamp,
    packs: Vec<PackId>,
}

/// One list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retired {
    /// Its name.
    pub id: RetiredId,
    /// What is on it.
    pub packs: HashSet<PackId>,
}

/// Publishes a list. From now on no new writer relies on `packs`.
///
/// # Errors
/// From the storage.
pub fn publish(repository: &Repository, packs: &[PackId], context: &Context<'_>) -> Result<RetiredId> {
    let record = RetiredRecord {
        format: RETIRED_FORMAT,
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        started_at: context.clock.now(),
        packs: packs.to_vec(),
    };
    let plain = serde_json::to_vec(&record)
        .map_err(|cause| Error::new(ErrorKind::Bug, "The list of retired packs can't be encoded").cause(cause))?;
    let id = RetiredId::from_bytes(crypto::random().map_err(no_random)?);
    let object = repository.seal_record(ObjectType::Retired, &plain)?;
    repository.storage().put_new(&ObjectKey::Retired(id), &object)?;
    Ok(id)
}

/// All lists.
///
/// # Errors
/// From the storage; `Damaged` for one that can't be read, since what is on it must not be relied on.
pub fn list(repository: &Repository) -> Result<Vec<Retired>> {
    let mut found = Vec::new();
    for row in repository.storage().list(ObjectKind::Retired)? {
        let ObjectKey::Retired(id) = row.key else { continue };
        match repository.storage().get(&row.key) {
            Ok(object) => found.push(Retired { id, packs: read(repository, id, &object)? }),
            // It was taken back: what is still there of it is there to stay.
            Err(error) if error.kind() == StorageErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

fn read(repository: &Repository, id: RetiredId, object: &[u8]) -> Result<HashSet<PackId>> {
    let stored = |is_newer| {
        Error::stored(format!("The list of retired packs {}", ObjectKey::Retired(id)), is_newer)
            .hint("If no prune runs anywhere now, delete this object and run `compline prune`")
    };
    let plain =
        repository.open_record(ObjectType::Retired, object).map_err(|cause| stored(cause.is_newer()).cause(cause))?;
    let record: RetiredRecord = serde_json::from_slice(&plain).map_err(|cause| stored(false).cause(cause))?;
    if record.format > RETIRED_FORMAT { Err(stored(true)) } else { Ok(record.packs.into_iter().collect()) }
}

/// Takes a list back. Its own run does this at its end; anybody may once none of its packs is there any more.
///
/// # Errors
/// From the storage.
pub fn release(repository: &Repository, id: RetiredId) -> Result<()> {
    match repository.storage().delete(&ObjectKey::Retired(id)) {
        Err(error) if error.kind() != StorageErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
