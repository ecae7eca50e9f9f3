//! The verbs: each opens what it needs, decides, executes, and returns a report. Nothing here prints; `cli` does.

pub mod backup;
pub mod check;
pub mod copy;
pub mod diff;
pub mod find;
pub mod forget;
pub mod init;
mod inside;
pub mod keys;
pub mod listing;
pub mod plan;
pub mod prune;
pub mod recover;
pub mod repair;
pub mod restore;
pub mod snapshots;
pub mod stats;
pub mod tag;

use std::path::{Path, PathBuf};

use crate::archive::path::ArchivePath;
use crate::archive::snapshots::{self as finding, Published, Selector};
use crate::error::{Error, ErrorKind, Result};
use crate::observer::{Context, Ledger, Problem};
use crate::storage::{Limits, Location, StorageErrorKind};
use crate::store::{Repository, Unlock, rights};

/// What every verb gets from the command line.
#[derive(Clone, Copy)]
pub struct App<'a> {
    /// Clock, observer, wish to stop.
    pub context: Context<'a>,
    /// Where the observer counts.
    pub ledger: &'a Ledger,
    /// The process environment.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

/// Which repository, how to open it, and where its local index lies.
pub struct Target {
    /// Where it lies.
    pub location: Location,
    /// What opens it.
    pub unlock: Unlock,
    /// Directory of local caches.
    pub cache: Option<PathBuf>,
    /// How much of the line and the server may be used.
    pub limits: Limits,
    /// What named it.
    pub named: Named,
}

/// What named a repository, and is to be corrected when there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Named {
    /// `-r`, its variable, or the plan's `[repository]`: the one that every command is about.
    #[default]
    Repo,
    /// `--from` of a copy, or its variable.
    From,
    /// `--from` of a repair.
    Mirror,
    /// `--copy-keys-from`.
    CopyKeysFrom,
    /// `[[copy]]` of the plan.
    PlannedCopy,
}

impl Named {
    /// As people write it.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Repo => "-r, COMPLINE_REPO, or the plan",
            Self::From => "--from, or COMPLINE_FROM_REPO",
            Self::Mirror => "--from",
            Self::CopyKeysFrom => "--copy-keys-from",
            Self::PlannedCopy => "[[copy]] in the plan",
        }
    }

    /// What to do where there is none. Only what is written to is worth creating.
    fn hint(self) -> String {
        let words = self.words();
        match self {
            Self::Repo => format!("Create one with `compline init`, or correct the location ({words})"),
            Self::PlannedCopy => {
                format!("Create one with `compline -r LOCATION init`, or correct the location ({words})")
            }
            Self::From | Self::Mirror | Self::CopyKeysFrom => format!("Correct the location ({words})"),
        }
    }
}

impl Target {
    /// Opens the repository with a key that can read.
    ///
    /// # Errors
    /// `NoRepository`, `WrongKey`, and what storage and cache say.
    pub fn open(&self) -> Result<Repository> {
        let repository = self.open_with_any()?;
        if repository.can_read() { Ok(repository) } else { Err(rights::cannot_read()) }
    }

    /// Opens the repository with a key that can back up.
    ///
    /// # Errors
    /// As [`Target::open`].
    pub fn open_to_write(&self) -> Result<Repository> {
        let repository = self.open_with_any()?;
        if repository.can_write() { Ok(repository) } else { Err(rights::cannot_write()) }
    }

    /// Opens the repository with a key that can do everything.
    ///
    /// # Errors
    /// As [`Target::open`].
    pub fn open_fully(&self) -> Result<Repository> {
        let repository = self.open_with_any()?;
        repository.master()?;
        Ok(repository)
    }

    fn open_with_any(&self) -> Result<Repository> {
        let storage = self.location.open().map_err(|error| match error.kind() {
            StorageErrorKind::NotFound => {
                Error::new(ErrorKind::NoRepository, format!("There is no repository at {}", self.location))
                    .hint(self.named.hint())
            }
            _ => error.into(),
        })?;
        let opened = Repository::open(self.limits.around(storage), &self.unlock, self.cache.as_deref());
        opened.map_err(|error| match error.kind() {
            ErrorKind::NoRepository => error.hint(self.named.hint()),
            _ => error,
        })
    }

    /// Directories of this machine that belong to the repository: a backup of them would feed on itself, a restore must
    /// not remove them.
    fn own_places(&self) -> Vec<PathBuf> {
        let places = self.location.local_path().into_iter().chain(self.cache.as_deref());
        places.filter_map(|path| path.canonicalize().ok()).collect()
    }
}

/// A snapshot and a path in it, as `SNAP` or `SNAP:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPath {
    /// Which snapshot.
    pub selector: Selector,
    /// Where in it; the first name is the component.
    pub path: ArchivePath,
}

impl SnapshotPath {
    /// Reads `SNAP[:PATH]`. The path is bytes and may hold colons; the snapshot's own colons are those of `tag:` and of
    /// times.
    ///
    /// # Errors
    /// `Usage`.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let split = split_at(text);
        let (name, path) = text.split_at(split);
        let name = std::str::from_utf8(name)
            .map_err(|cause| Error::new(ErrorKind::Usage, "The name of a snapshot is not text").cause(cause))?;
        let path = path.strip_prefix(b":").unwrap_or(path);
        let path = ArchivePath::parse(path)
            .map_err(|cause| Error::new(ErrorKind::Usage, "The path in the snapshot can't be").cause(cause))?;
        Ok(Self { selector: name.parse()?, path })
    }
}

/// Where the name of the snapshot ends. A path begins behind the first colon that a `/` follows, or that ends the text, or
/// else behind the first colon that belongs neither to `tag:` nor to a time.
fn split_at(text: &[u8]) -> usize {
    let skip = if text.starts_with(b"tag:") { 4 } else { 0 };
    let colons = || text.iter().enumerate().skip(skip).filter(|(_, byte)| **byte == b':').map(|(at, _)| at);
    if text.starts_with(b"@") {
        // The colons of a time stand between digits.
        let of_time = |at: &usize| {
            at.checked_sub(1).and_then(|before| text.get(before)).is_some_and(u8::is_ascii_digit)
                && text.get(at + 1).is_some_and(u8::is_ascii_digit)
        };
        return colons().find(|at| !of_time(at)).unwrap_or(text.len());
    }
    let slashed = colons().find(|at| matches!(text.get(at + 1), Some(b'/') | None));
    slashed.or_else(|| colons().next()).unwrap_or(text.len())
}

/// Opens the snapshot that `selector` names.
///
/// # Errors
/// `NotFound`, `Ambiguous`, and what the repository says.
pub fn snapshot(app: App<'_>, repository: &Repository, selector: &Selector) -> Result<Published> {
    one_of(app, repository, selector, &mut None)
}

/// Opens the snapshots that `selectors` name. All that there are is listed once.
///
/// # Errors
/// As [`snapshot`].
pub fn two_snapshots(app: App<'_>, repository: &Repository, [one, other]: [&Selector; 2]) -> Result<[Published; 2]> {
    let mut all = None;
    Ok([one_of(app, repository, one, &mut all)?, one_of(app, repository, other, &mut all)?])
}

/// `all` are those that there are, once somebody has asked.
fn one_of(
    app: App<'_>,
    repository: &Repository,
    selector: &Selector,
    all: &mut Option<Vec<Published>>,
) -> Result<Published> {
    if let Selector::Prefix(prefix) = selector
        && let Ok(id) = prefix.parse()
    {
        return finding::read(repository, id).map_err(|error| match error.kind() {
            ErrorKind::Storage => {
                Error::new(ErrorKind::NotFound, format!("There is no snapshot {prefix}")).cause(error)
            }
            _ => error,
        });
    }
    let all = match all {
        Some(all) => all,
        None => all.insert(finding::all(repository, &app.context)?),
    };
    finding::select(all, selector).cloned()
}

/// Whom a command waited for in vain, and what stays for that.
fn tell_of_writers(writers: &[String], stays: &str, app: App<'_>) {
    for writer in writers {
        app.context.observer.problem(Problem::new(writer, format!("is still at work: {stays}")));
    }
}

/// A private directory for scratch files, removed when dropped.
///
/// # Errors
/// When it can't be made.
pub fn scratch(cache: Option<&Path>) -> Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("compline-");
    let made = match cache {
        Some(cache) => crate::durable::create_directories(cache).and_then(|()| builder.tempdir_in(cache)),
        None => builder.tempdir(),
    };
    made.map_err(|cause| Error::io("No scratch directory can be made", cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (Selector, String) {
        let parsed = SnapshotPath::parse(text.as_bytes()).expect("it parses");
        (parsed.selector, String::from_utf8(parsed.path.to_bytes()).expect("it is text"))
    }

    #[test]
    fn snapshots_and_paths_are_told_apart_at_the_right_colon() {
        assert_eq!(parts("latest"), (Selector::Latest(0), String::new()));
        assert_eq!(parts("latest~2:/files/a:b"), (Selector::Latest(2), "files/a:b".into()));
        assert_eq!(parts("tag:x:/files"), (Selector::Tag("x".into()), "files".into()));
        assert_eq!(parts("tag:x"), (Selector::Tag("x".into()), String::new()));
        assert_eq!(parts("ab12:db/app.sql"), (Selector::Prefix("ab12".into()), "db/app.sql".into()));
        assert_eq!(parts("latest:"), (Selector::Latest(0), String::new()));
        let (at, path) = parts("@2026-09-01T12:00:00Z:/db");
        assert_eq!((at, path.as_str()), ("@2026-09-01T12:00:00Z".parse().expect("a time"), "db"));
    }

    #[test]
    fn nonsense_names_no_snapshot() {
        for text in ["", "xyz", "latest~x", "@yesterday", "tag:", "latest:a/../b"] {
            assert!(SnapshotPath::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
