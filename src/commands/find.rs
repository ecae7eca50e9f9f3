//! `find`: which snapshots hold a name.

use globset::{GlobBuilder, GlobMatcher};
use serde::Serialize;

use super::inside::visit_archive;
use super::listing::{Listed, component_path};
use super::{App, Target, snapshot};
use crate::archive::snapshots::{self as finding, Selector};
use crate::archive::{ArchivePath, ArchiveReader, Entry, EntryKind};
use crate::error::{Error, ErrorKind, Result};
use crate::id::SnapshotId;

/// One entry that was found.
#[derive(Debug, Serialize)]
pub struct Match {
    /// The snapshot that holds it.
    pub snapshot: SnapshotId,
    /// The entry.
    #[serde(flatten)]
    pub entry: Listed,
}

/// A pattern: matched against the last name, or against the whole path if it holds a `/`.
pub struct Pattern {
    glob: GlobMatcher,
    whole: bool,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// `Usage` when it is none.
    pub fn new(text: &str) -> Result<Self> {
        let bad = |cause| Error::new(ErrorKind::Usage, format!("`{text}` is no pattern")).cause(cause);
        let glob = GlobBuilder::new(text).literal_separator(true).build().map_err(bad)?.compile_matcher();
        Ok(Self { glob, whole: text.contains('/') })
    }

    fn fits(&self, path: &ArchivePath) -> bool {
        use std::os::unix::ffi::OsStrExt;
        let bytes = if self.whole {
            let mut bytes = vec![b'/'];
            bytes.extend(path.to_bytes());
            bytes
        } else {
            path.names().last().cloned().unwrap_or_default()
        };
        self.glob.is_match(std::ffi::OsStr::from_bytes(&bytes))
    }
}

/// Calls `found` for every entry that fits, in every snapshot or in one, newest snapshot first; in tar archives as well, if
/// `looks_inside`.
///
/// # Errors
/// From the repository, and the first error of `found`.
pub fn run(
    app: App<'_>,
    target: &Target,
    pattern: &Pattern,
    only: Option<&Selector>,
    looks_inside: bool,
    found: &mut dyn FnMut(&Match) -> Result<()>,
) -> Result<()> {
    let repository = target.open()?;
    let snapshots = match only {
        Some(selector) => vec![snapshot(app, &repository, selector)?],
        None => finding::all(&repository, &app.context)?,
    };
    let reader = ArchiveReader::new(&repository, app.context);
    for published in snapshots.iter().rev() {
        let mut tell = |path: &ArchivePath, entry: &Entry| {
            if pattern.fits(path) {
                return found(&Match { snapshot: published.id, entry: Listed::new(path, entry) });
            }
            Ok(())
        };
        let mut visit = |path: &ArchivePath, entry: &Entry| {
            tell(path, entry)?;
            match &entry.kind {
                EntryKind::File(content) if looks_inside => visit_archive(&reader, path, content, &mut tell),
                _ => Ok(()),
            }
        };
        for record in published.snapshot.components.iter().filter(|record| record.root.is_some()) {
            let (path, root) = (component_path(&record.name)?, record.root_entry()?);
            visit(&path, &root)?;
            reader.walk(&root, &path, &mut visit)?;
        }
    }
    Ok(())
}
