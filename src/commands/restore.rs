//! `restore SNAP[:PATH] --target DIR`: files out of a snapshot.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{App, SnapshotPath, Target, snapshot};
use crate::archive::reader::resolve;
use crate::archive::restore::restore_tree;
use crate::archive::{ArchiveReader, Entry, RestoreOptions, RestoreSummary};
use crate::clock::seconds_since;
use crate::error::{Error, ErrorKind, Result};
use crate::id::SnapshotId;
use crate::storage::Location;

/// What was restored.
#[derive(Debug, Serialize)]
pub struct RestoreReport {
    /// From which snapshot.
    pub snapshot: SnapshotId,
    /// Where to.
    pub target: PathBuf,
    /// Counts.
    #[serde(flatten)]
    pub summary: RestoreSummary,
    /// Wall time.
    pub seconds: f64,
}

/// Restores what is at the path into the directory `into`.
///
/// # Errors
/// `NotFound`, `UnsafeTarget`, `Damaged`, and what the file system says.
pub fn run(
    app: App<'_>,
    target: &Target,
    what: &SnapshotPath,
    into: &Path,
    options: &RestoreOptions,
) -> Result<RestoreReport> {
    refuse_unsafe(&target.location, into, options.delete)?;
    let started = app.context.clock.now();
    let repository = target.open()?;
    let published = snapshot(app, &repository, &what.selector)?;
    let reader = ArchiveReader::new(&repository, app.context);
    let mut summary = RestoreSummary::default();
    if what.path.is_root() {
        for record in published.snapshot.components.iter().filter(|record| record.root.is_some()) {
            app.context.observer.stage(&format!("Restoring {}", record.name));
            let root = record.root_entry()?;
            summary = add(summary, one(app, &reader, &root, &into.join(&record.name), into, options)?);
        }
    } else {
        let (record, below) = resolve(&published.snapshot, &what.path)?;
        let entry = reader.entry(&record.root_entry()?, &below)?;
        summary = one(app, &reader, &entry, into, into, options)?;
    }
    let seconds = seconds_since(app.context.clock, started);
    Ok(RestoreReport { snapshot: published.id, target: into.to_owned(), summary, seconds })
}

/// A directory goes into `directory`; anything else goes into `single` under its own name.
fn one(
    app: App<'_>,
    reader: &ArchiveReader<'_>,
    entry: &Entry,
    directory: &Path,
    single: &Path,
    options: &RestoreOptions,
) -> Result<RestoreSummary> {
    let into = if entry.is_directory() { directory } else { single };
    restore_tree(reader.chunks(), reader, entry, into, options, &app.context)
}

fn add(a: RestoreSummary, b: RestoreSummary) -> RestoreSummary {
    RestoreSummary {
        files_restored: a.files_restored + b.files_restored,
        files_right: a.files_right + b.files_right,
        files_kept: a.files_kept + b.files_kept,
        directories: a.directories + b.directories,
        files_deleted: a.files_deleted + b.files_deleted,
        bytes_restored: a.bytes_restored + b.bytes_restored,
        problems: a.problems + b.problems,
    }
}

/// A restore must not touch the repository it reads from, nor take a file for a directory. With `delete`, the repository
/// must not lie below the target either: no snapshot holds it, so it would be removed.
fn refuse_unsafe(location: &Location, into: &Path, delete: bool) -> Result<()> {
    let unsafe_target = |why: &str| {
        Error::new(ErrorKind::UnsafeTarget, format!("{} can't be the target: {why}", into.display()))
            .hint("Choose an empty or a new directory elsewhere")
    };
    if into.as_os_str().is_empty() {
        return Err(unsafe_target("it is empty"));
    }
    if into.exists() && !into.is_dir() {
        return Err(unsafe_target("it is not a directory"));
    }
    let repository = location.local_path().and_then(|path| path.canonicalize().ok());
    let into = std::path::absolute(into).unwrap_or_else(|_| into.to_owned());
    let existing = into.ancestors().find_map(|path| path.canonicalize().ok());
    match (repository, existing) {
        (Some(repository), Some(existing)) if existing.starts_with(&repository) => {
            Err(unsafe_target("it lies inside the repository"))
        }
        (Some(repository), Some(existing)) if delete && repository.starts_with(&existing) && into.exists() => {
            Err(unsafe_target("the repository lies inside it, and --delete would remove it"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(location: &Path, into: &Path, delete: bool) -> bool {
        let location = Location::parse(location.as_os_str()).expect("a path is a location");
        match refuse_unsafe(&location, into, delete) {
            Ok(()) => false,
            Err(error) => error.kind() == ErrorKind::UnsafeTarget,
        }
    }

    #[test]
    fn the_repository_is_never_in_reach_of_a_restore() {
        let scratch = tempfile::tempdir().expect("a directory");
        let (outer, repository) = (scratch.path().join("outer"), scratch.path().join("outer/repository"));
        std::fs::create_dir_all(repository.join("packs")).expect("a directory");
        std::os::unix::fs::symlink(&outer, scratch.path().join("link")).expect("a link");
        assert!(refused(&repository, &repository, false));
        assert!(refused(&repository, &repository.join("packs"), false));
        assert!(refused(&repository, &repository.join("new/deeper"), false));
        assert!(!refused(&repository, &outer, false));
        assert!(refused(&repository, &outer, true));
        assert!(refused(&repository, &scratch.path().join("link"), true));
        assert!(refused(&repository, scratch.path(), true));
        assert!(!refused(&repository, &outer.join("beside"), true));
    }

    #[test]
    fn a_target_is_a_directory_or_nothing_yet() {
        let scratch = tempfile::tempdir().expect("a directory");
        let file = scratch.path().join("file");
        std::fs::write(&file, "x").expect("a file");
        let repository = scratch.path().join("repository");
        assert!(refused(&repository, &file, false));
        assert!(refused(&repository, Path::new(""), false));
        assert!(!refused(&repository, &scratch.path().join("new"), true));
    }
}
