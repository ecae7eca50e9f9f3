//! Restoring below a directory: for kinds whose state is a server's, the stored files themselves are put there, for
//! people to look at. Nothing that runs is touched.

use std::path::Path;

use super::{RestoreEnvironment, RestoreStep, Restored};
use crate::archive::{ArchivePath, RestoreOptions};
use crate::error::Result;

/// What [`restore_files_below`] will do.
#[expect(clippy::unnecessary_wraps, reason = "takes the place of a plan that can fail")]
pub(super) fn plan_files_below(env: &RestoreEnvironment<'_>, root: &Path) -> Result<Vec<RestoreStep>> {
    let place = root.join(env.name);
    let what = format!("Write what is stored of {} into {}", env.name, place.display());
    Ok(vec![RestoreStep { what, destructive: place.exists() }])
}

/// Writes everything stored of the component into a directory of its name below `root`.
pub(super) fn restore_files_below(env: &RestoreEnvironment<'_>, root: &Path) -> Result<Restored> {
    let place = root.join(env.name);
    let summary = env.source.restore_files(&ArchivePath::root(), &place, &RestoreOptions::default())?;
    let count = summary.files_restored + summary.files_right;
    Ok(Restored { proofs: vec![format!("{count} files are in {}, every chunk verified", place.display())] })
}
