//! Paths that go on inside an archive: `SNAP:/registry/layer.tar.gz!/etc/passwd`.

use std::io::Read;

use super::SnapshotPath;
use crate::archive::diff::{Change, Difference};
use crate::archive::inside::{Inside, is_archive, split};
use crate::archive::reader::resolve;
use crate::archive::snapshots::Published;
use crate::archive::{ArchivePath, ArchiveReader, Content, Entry, EntryKind};
use crate::error::{Error, ErrorKind, Result};

/// A place in an archive that is in a snapshot.
pub(super) struct InsidePlace {
    content: Content,
    /// The path of the archive, with its mark.
    outer: ArchivePath,
    inner: ArchivePath,
    inside: Inside,
}

impl InsidePlace {
    /// The place at `what`, if that goes into an archive. A name that really ends with `!` comes first.
    pub fn find(
        reader: &ArchiveReader<'_>,
        published: &Published,
        what: &SnapshotPath,
        compares: bool,
    ) -> Result<Option<Self>> {
        let Some((path, inner)) = split(&what.path) else { return Ok(None) };
        if entry(reader, published, &what.path).is_ok() {
            return Ok(None);
        }
        let found = entry(reader, published, &path)?;
        let EntryKind::File(content) = found.kind else {
            return Err(Error::new(ErrorKind::Usage, format!("/{path} is no file that can be looked into")));
        };
        let inside = Inside::read(reader, &path, &content, compares)?;
        let outer = mark(&path);
        let place = Self { content, outer, inner, inside };
        place.here().map(|_| Some(place))
    }

    fn here(&self) -> Result<Entry> {
        let missing = || Error::new(ErrorKind::NotFound, format!("There is no /{} in /{}", self.inner, self.outer));
        self.inside.entry(&self.inner).ok_or_else(missing)
    }

    fn shown(&self, path: &ArchivePath) -> ArchivePath {
        path.names().iter().try_fold(self.outer.clone(), |whole, name| whole.join(name)).unwrap_or_default()
    }

    /// Calls `visit` for what is at and below the place.
    pub fn visit(&self, recursive: bool, visit: &mut dyn FnMut(&ArchivePath, &Entry) -> Result<()>) -> Result<()> {
        let here = self.here()?;
        if !here.is_directory() {
            return visit(&self.shown(&self.inner), &here);
        }
        self.inside.below(&self.inner, recursive).try_for_each(|(path, entry)| visit(&self.shown(&path), entry))
    }

    /// The bytes of the file at the place.
    pub fn open<'r>(&self, reader: &'r ArchiveReader<'_>) -> Result<Box<dyn Read + 'r>> {
        self.inside.open(reader, &self.content, &self.inner)
    }

    /// Calls `found` for each difference between two places; paths are those of `after`.
    pub fn compare(before: &Self, after: &Self, found: &mut dyn FnMut(&Difference) -> Result<()>) -> Result<()> {
        let relative = |place: &Self| {
            let depth = place.inner.names().len();
            let below = place.inside.below(&place.inner, true);
            below.map(|(path, entry)| (path.names()[depth..].to_vec(), path, entry.clone())).collect::<Vec<_>>()
        };
        let (old, new) = (relative(before), relative(after));
        let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(a), Some(b)) => a.0.cmp(&b.0),
            };
            let a = if order.is_le() { old.next() } else { None };
            let b = if order.is_ge() { new.next() } else { None };
            let change = match (a, b) {
                (Some(a), Some(b)) => {
                    let same = before.inside.hash(&a.1) == after.inside.hash(&b.1);
                    changed(&a.2, &b.2, same)
                }
                (Some(_), None) => Some(Change::Removed),
                _ => Some(Change::Added),
            };
            let Some((change, place)) = change.zip(b.map(|b| (after, b)).or(a.map(|a| (before, a)))) else { continue };
            let size =
                |side: Option<&(_, _, Entry)>| side.map(|side| &side.2).filter(|e| !e.is_directory()).map(Entry::len);
            found(&Difference {
                path: format!("/{}", place.0.shown(&place.1.1)),
                change,
                size_before: size(a),
                size_after: size(b),
            })?;
        }
    }
}

fn changed(a: &Entry, b: &Entry, same_content: bool) -> Option<Change> {
    let is_modified = match (&a.kind, &b.kind) {
        (EntryKind::File(_), EntryKind::File(_)) => !same_content,
        (a, b) => a != b,
    };
    match (is_modified, a.metadata == b.metadata) {
        (true, _) => Some(Change::Modified),
        (false, false) => Some(Change::Metadata),
        (false, true) => None,
    }
}

/// The path of an archive as it is written to look into it.
pub(super) fn mark(path: &ArchivePath) -> ArchivePath {
    let (above, name) = path.split_last().unwrap_or_default();
    let name = [name, b"!"].concat();
    above.join(&name).unwrap_or_default()
}

/// Calls `visit` for everything in `content`, if it is an archive at `path`.
pub(super) fn visit_archive(
    reader: &ArchiveReader<'_>,
    path: &ArchivePath,
    content: &Content,
    visit: &mut dyn FnMut(&ArchivePath, &Entry) -> Result<()>,
) -> Result<()> {
    if !is_archive(reader, content)? {
        return Ok(());
    }
    let inside = Inside::read(reader, path, content, false)?;
    let (content, outer, inner) = (content.clone(), mark(path), ArchivePath::root());
    InsidePlace { content, outer, inner, inside }.visit(true, visit)
}

fn entry(reader: &ArchiveReader<'_>, published: &Published, path: &ArchivePath) -> Result<Entry> {
    let (record, below) = resolve(&published.snapshot, path)?;
    reader.entry(&record.root_entry()?, &below)
}
