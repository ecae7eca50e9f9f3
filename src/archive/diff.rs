//! What differs between two trees: a merge over their ordered entries. Equal subtrees are not read.

use serde::Serialize;

use super::entry::{Entry, EntryKind};
use super::path::ArchivePath;
use super::reader::ArchiveReader;
use crate::error::{Error, Result};

/// How an entry differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Only in the second.
    Added,
    /// Only in the first.
    Removed,
    /// Other content, or another kind.
    Modified,
    /// Same content, other owner, mode, times or attributes.
    Metadata,
}

/// One difference.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    /// Where.
    pub path: String,
    /// How.
    pub change: Change,
    /// Content length before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_before: Option<u64>,
    /// Content length after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_after: Option<u64>,
}

/// Compares two entries that have the same path, and all that is below them.
///
/// # Errors
/// From the store, and the first error of `found`.
pub fn compare(
    reader: &ArchiveReader<'_>,
    path: &ArchivePath,
    before: Option<&Entry>,
    after: Option<&Entry>,
    found: &mut dyn FnMut(&Difference) -> Result<()>,
) -> Result<()> {
    if let Some(change) = change(before, after) {
        let size = |entry: Option<&Entry>| entry.filter(|entry| !entry.is_directory()).map(Entry::len);
        let (size_before, size_after) = (size(before), size(after));
        found(&Difference { path: format!("/{path}"), change, size_before, size_after })?;
    }
    if before.and_then(tree_of) == after.and_then(tree_of) {
        return Ok(());
    }
    let (before, after) = (entries(reader, before)?, entries(reader, after)?);
    merge(reader, path, before, after, found)
}

fn tree_of(entry: &Entry) -> Option<&super::Content> {
    match &entry.kind {
        EntryKind::Directory(content) => Some(content),
        _ => None,
    }
}

fn entries(reader: &ArchiveReader<'_>, entry: Option<&Entry>) -> Result<Vec<Entry>> {
    entry.and_then(tree_of).map_or(Ok(Vec::new()), |content| Ok(reader.tree(content)?.entries))
}

fn merge(
    reader: &ArchiveReader<'_>,
    path: &ArchivePath,
    before: Vec<Entry>,
    after: Vec<Entry>,
    found: &mut dyn FnMut(&Difference) -> Result<()>,
) -> Result<()> {
    let mut before = before.into_iter().peekable();
    let mut after = after.into_iter().peekable();
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return Ok(()),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => a.name.cmp(&b.name),
        };
        let a = if order.is_le() { before.next() } else { None };
        let b = if order.is_ge() { after.next() } else { None };
        let Some(name) = a.as_ref().or(b.as_ref()).map(|entry| entry.name.clone()) else { return Ok(()) };
        let below =
            path.join(&name).map_err(|cause| Error::damaged("A tree holds a name that it must not").cause(cause))?;
        compare(reader, &below, a.as_ref(), b.as_ref(), found)?;
    }
}

fn change(before: Option<&Entry>, after: Option<&Entry>) -> Option<Change> {
    match (before, after) {
        (None, None) => None,
        (None, Some(_)) => Some(Change::Added),
        (Some(_), None) => Some(Change::Removed),
        (Some(a), Some(b)) if differs(&a.kind, &b.kind) => Some(Change::Modified),
        (Some(a), Some(b)) => metadata_differs(a, b).then_some(Change::Metadata),
    }
}

/// Directories are compared by what they hold, one by one.
fn differs(a: &EntryKind, b: &EntryKind) -> bool {
    !matches!((a, b), (EntryKind::Directory(_), EntryKind::Directory(_))) && a != b
}

/// What a restore would set. Change time, inode, device and link count are the file system's own.
fn metadata_differs(a: &Entry, b: &Entry) -> bool {
    let (a, b) = (&a.metadata, &b.metadata);
    (a.mode, a.uid, a.gid, a.mtime) != (b.mode, b.uid, b.gid, b.mtime)
        || (&a.user, &a.group, &a.xattrs) != (&b.user, &b.group, &b.xattrs)
}
