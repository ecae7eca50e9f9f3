//! `init`: create a repository.

use super::App;
use crate::error::Result;
use crate::id::RepositoryId;
use crate::storage::Location;
use crate::store::config::Config;
use crate::store::parity::Share;
use crate::store::{Repository, Unlock};

/// What was created.
#[derive(Debug, serde::Serialize)]
pub struct InitReport {
    /// Its random name.
    pub repository: RepositoryId,
    /// Where it lies.
    pub location: String,
}

/// Creates a repository at `location` that `unlock` opens, and whose packs get so much parity.
///
/// With `keys_of` it gets the keys of that repository.
///
/// # Errors
/// `RepositoryExists`, or from the storage.
pub fn run(
    app: App<'_>,
    location: &Location,
    unlock: &Unlock,
    label: &str,
    parity: Share,
    keys_of: Option<&Repository>,
) -> Result<InitReport> {
    let storage = location.create()?;
    let config = Config { parity, ..Config::new(app.context.clock.now()) };
    let repository = match keys_of {
        Some(other) => other.create_twin(storage.as_ref(), unlock, label, &config)?,
        None => Repository::create_with(storage.as_ref(), unlock, label, &config)?,
    };
    Ok(InitReport { repository, location: storage.location() })
}
