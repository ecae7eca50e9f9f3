//! `key add|list|remove|passwd`: who can open the repository. None of them rewrites data.

use super::{App, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::id::KeyId;
use crate::store::{KeyInfo, Repository, Unlock};

/// All keys.
///
/// # Errors
/// From the repository.
pub fn list(target: &Target) -> Result<Vec<KeyInfo>> {
    target.open()?.list_keys()
}

/// Adds a key.
///
/// # Errors
/// From the repository, or when the passphrase is empty.
pub fn add(app: App<'_>, target: &Target, unlock: &Unlock, label: &str) -> Result<KeyId> {
    target.open()?.add_key(unlock, label, app.context.clock.now())
}

/// Removes the key whose name begins with `prefix`.
///
/// # Errors
/// `NotFound`, `Ambiguous`, `Usage` for the last key and for the one in use.
pub fn remove(target: &Target, prefix: &str) -> Result<KeyId> {
    let repository = target.open()?;
    let id = by_prefix(&repository, prefix)?;
    if id == repository.current_key().id {
        return Err(Error::new(ErrorKind::Usage, "This is the key that you are using")
            .hint("Use another key to remove it, or change its passphrase with `compline key passwd`"));
    }
    repository.remove_key(id)?;
    Ok(id)
}

fn by_prefix(repository: &Repository, prefix: &str) -> Result<KeyId> {
    let keys = repository.list_keys()?;
    let mut found = keys.iter().map(|key| key.id).filter(|id| !prefix.is_empty() && id.to_hex().starts_with(prefix));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => Err(Error::new(ErrorKind::NotFound, format!("There is no key that begins with `{prefix}`"))
            .hint("`compline key list` shows them")),
        (Some(_), Some(_)) => {
            Err(Error::new(ErrorKind::Ambiguous, format!("Several keys begin with {prefix}")).hint("Give more digits"))
        }
    }
}

/// Replaces the key in use by a new one. The new one is published before the old one goes.
///
/// # Errors
/// From the repository, or when the passphrase is empty.
pub fn change(app: App<'_>, target: &Target, unlock: &Unlock) -> Result<KeyId> {
    let repository = target.open()?;
    let old = repository.current_key().clone();
    let label = old.label.unwrap_or_default();
    let id = repository.add_key(unlock, &label, app.context.clock.now())?;
    repository.remove_key(old.id)?;
    Ok(id)
}
