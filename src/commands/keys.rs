//! `key add|list|remove|passwd|recovery-sheet`: who can open the repository. None of them rewrites data.

use jiff::Timestamp;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{App, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{KeyId, RepositoryId};
use crate::observer::Problem;
use crate::store::rights::Sort;
use crate::store::{KeyInfo, Repository, Unlock};

/// All keys. What is wrong with one is a problem.
///
/// # Errors
/// From the repository.
pub fn list(app: App<'_>, target: &Target) -> Result<Vec<KeyInfo>> {
    target.open()?.check_keys(&app.context)
}

/// Adds a key of this sort to a repository that was opened fully.
///
/// # Errors
/// From the repository, or when the passphrase is empty.
pub fn add(app: App<'_>, repository: &Repository, unlock: &Unlock, label: &str, sort: Sort) -> Result<KeyId> {
    let now = app.context.clock.now();
    match sort {
        Sort::Full => repository.add_key(unlock, label, now),
        Sort::WriteOnly => repository.add_write_only_key(unlock, label, now),
        Sort::ReadOnly => repository.add_read_only_key(unlock, label, now),
    }
}

/// Removes the key whose name begins with `prefix`.
///
/// # Errors
/// `NotFound`, `Ambiguous`, `Usage` for the last key and for the one in use.
pub fn remove(target: &Target, prefix: &str) -> Result<KeyId> {
    let repository = target.open_fully()?;
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

/// Everything that a stranger with a computer needs to open the repository.
#[derive(Serialize)]
pub struct RecoverySheet {
    /// Where it lies.
    pub location: String,
    /// Which it is, if it was moved.
    pub repository: RepositoryId,
    /// A key file, of a key that was made for the sheet.
    pub key_file: Zeroizing<String>,
    /// The beginning of a hash of that, to tell a typing error.
    pub check: String,
    /// Which key it is: `key remove` makes the sheet worthless.
    pub key: KeyId,
    /// When it was made.
    pub made_at: Timestamp,
}

/// Digits of the key in one group on paper.
const GROUP_LEN: usize = 8;
/// Groups in one line.
const GROUP_COUNT: usize = 4;

impl RecoverySheet {
    /// For a printer.
    #[must_use]
    pub fn to_text(&self) -> String {
        let Self { location, repository, key_file, check, key, made_at } = self;
        let (magic, digits) = key_file.split_once(':').unwrap_or(("", key_file));
        let groups: Vec<&str> =
            (0..digits.len()).step_by(GROUP_LEN).filter_map(|at| digits.get(at..at + GROUP_LEN)).collect();
        let lines: Vec<String> = groups.chunks(GROUP_COUNT).map(|line| format!("    {}", line.join(" "))).collect();
        let lines = lines.join("\n");
        format!(
            "compline recovery sheet, made {}\n\
             \n\
             With this sheet and the storage anybody can read everything. Keep it away from both.\n\
             \n\
             Repository  {repository}\n\
             Location    {location}\n\
             Key         {key}\n\
             \n\
             1. Write the key into a file, in one line, without the blanks between the digits:\n\
             \n    {magic}:\n{lines}\n\n\
             \x20  `tr -d '\\n' < FILE | sha256sum` then begins with {check}.\n\
             2. Get compline, or write a reader: the format is specified in format-spec/ of its source.\n\
             3. compline -r LOCATION --key-file FILE snapshots\n\
             \x20  compline -r LOCATION --key-file FILE restore latest --target DIRECTORY\n\
             \n\
             `compline key remove {}` makes this sheet worthless.\n",
            made_at.strftime("%Y-%m-%d"),
            key.short(),
        )
    }
}

/// Adds a key that stands nowhere but on the sheet.
///
/// # Errors
/// From the repository.
pub fn recovery_sheet(app: App<'_>, target: &Target) -> Result<RecoverySheet> {
    let repository = target.open_fully()?;
    let made_at = app.context.clock.now();
    let (unlock, text) = Unlock::new_key_file()?;
    let key = repository.add_key(&unlock, "recovery sheet", made_at)?;
    let key_file = Zeroizing::new(text.trim_end().to_owned());
    Ok(RecoverySheet {
        location: absolute(target),
        repository: repository.id(),
        check: crate::crypto::sha256_start(key_file.as_bytes()),
        key_file,
        key,
        made_at,
    })
}

/// Who reads the sheet doesn't know where it was printed.
fn absolute(target: &Target) -> String {
    let path = target.location.local_path().and_then(|path| path.canonicalize().ok());
    path.map_or_else(|| target.location.to_string(), |path| path.display().to_string())
}

/// What became of the key in use.
#[derive(Serialize)]
pub struct ChangeReport {
    /// The new one.
    pub key: KeyId,
    /// The one that was in use.
    pub old: KeyId,
    /// Whether that one is gone.
    pub old_removed: bool,
}

/// Replaces the key in use by a new one, which is called `label`, or else what the old one is called. The new one is published
/// before the old one goes. Where the old one can't be removed that is a problem: from then on both open the repository.
///
/// # Errors
/// From the repository, or when the passphrase is empty; then there is no new key.
pub fn change(app: App<'_>, repository: &Repository, unlock: &Unlock, label: Option<&str>) -> Result<ChangeReport> {
    let old = repository.current_key().clone();
    let label = label.map(str::to_owned).or(old.label).unwrap_or_default();
    if matches!(unlock, Unlock::Recipient(_)) {
        return Err(Error::new(ErrorKind::Usage, "Nobody here can prove that a recipient can open the repository")
            .hint("Add it with `compline key add --recipient`, try its identity file, then remove the old key"));
    }
    let key = repository.add_key(unlock, &label, app.context.clock.now())?;
    let removed = repository.remove_key(old.id);
    if let Err(error) = &removed {
        let message = format!(
            "The new key {} is there, but the old one could not be removed and still opens the repository, until somebody who may \
             delete runs `compline key remove {}`: {}",
            key.short(),
            old.id.short(),
            error.chain()
        );
        app.context.observer.problem(Problem::new(format!("Key {}", old.id.short()), message));
    }
    Ok(ChangeReport { key, old: old.id, old_removed: removed.is_ok() })
}
