//! `init`: create a repository.

use super::App;
use crate::error::Result;
use crate::id::RepositoryId;
use crate::storage::Location;
use crate::store::{Repository, Unlock};

/// What was created.
#[derive(Debug, serde::Serialize)]
pub struct InitReport {
    /// Its random name.
    pub repository: RepositoryId,
    /// Where it lies.
    pub location: String,
}

/// Creates a repository at `location` that `unlock` opens.
///
/// # Errors
/// `RepositoryExists`, or from the storage.
pub fn run(app: App<'_>, location: &Location, unlock: &Unlock, label: &str) -> Result<InitReport> {
    let storage = location.create()?;
    let repository = Repository::create(storage.as_ref(), unlock, label, app.context.clock.now())?;
    Ok(InitReport { repository, location: storage.location() })
}
