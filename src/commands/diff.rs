//! `diff`: what changed from one snapshot to another.

use super::{App, SnapshotPath, Target, two_snapshots};
use crate::archive::diff::{Difference, compare};
use crate::archive::snapshots::Published;
use crate::archive::{ArchivePath, ArchiveReader, Entry};
use crate::error::{Error, ErrorKind, Result};

use super::inside::InsidePlace;
use super::listing::component_path;

/// Calls `found` for every difference between two snapshots, or between two paths in them.
///
/// # Errors
/// `NotFound` and the like, and the first error of `found`.
pub fn run(
    app: App<'_>,
    target: &Target,
    before: &SnapshotPath,
    after: &SnapshotPath,
    found: &mut dyn FnMut(&Difference) -> Result<()>,
) -> Result<()> {
    let repository = target.open()?;
    let [old, new] = two_snapshots(app, &repository, [&before.selector, &after.selector])?;
    let reader = ArchiveReader::new(&repository, app.context);
    if before.path.is_root() && after.path.is_root() {
        for name in names(&old, &new) {
            let path = component_path(&name)?;
            compare(&reader, &path, root(&old, &name)?.as_ref(), root(&new, &name)?.as_ref(), found)?;
        }
        return Ok(());
    }
    let places = [(&old, before), (&new, after)].map(|(of, what)| InsidePlace::find(&reader, of, what, true));
    match places {
        [Ok(Some(before)), Ok(Some(after))] => return InsidePlace::compare(&before, &after, found),
        [Ok(None), Ok(None)] => {}
        [Err(error), _] | [_, Err(error)] => return Err(error),
        _ => {
            return Err(Error::new(ErrorKind::Usage, "Only one of the two paths goes into an archive")
                .hint("Put a ! behind both archives"));
        }
    }
    let a = entry(&reader, &old, &before.path)?;
    let b = entry(&reader, &new, &after.path)?;
    compare(&reader, &after.path, a.as_ref(), b.as_ref(), found)
}

fn names(old: &Published, new: &Published) -> Vec<String> {
    let both = old.snapshot.components.iter().chain(&new.snapshot.components);
    let mut names: Vec<String> = both.map(|record| record.name.clone()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn root(published: &Published, name: &str) -> Result<Option<Entry>> {
    match published.snapshot.component(name) {
        Some(record) if record.root.is_some() => record.root_entry().map(Some),
        _ => Ok(None),
    }
}

/// The entry at `path`; none where one of the two snapshots lacks it.
fn entry(reader: &ArchiveReader<'_>, published: &Published, path: &ArchivePath) -> Result<Option<Entry>> {
    let found = crate::archive::reader::resolve(&published.snapshot, path)
        .and_then(|(record, below)| reader.entry(&record.root_entry()?, &below));
    match found {
        Ok(entry) => Ok(Some(entry)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
