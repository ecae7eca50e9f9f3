//! `ls` and `cat`: look into a snapshot.

use std::io::{Read, Write};

use serde::Serialize;

use super::inside::InsidePlace;
use super::{App, SnapshotPath, Target, snapshot};
use crate::archive::path::{ArchivePath, escape};
use crate::archive::reader::resolve;
use crate::archive::{ArchiveReader, Entry, EntryKind, Time};
use crate::error::{Error, ErrorKind, Result};

/// One entry as it is listed.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// Path in the snapshot, with bytes that aren't text escaped.
    pub path: String,
    /// `file`, `directory`, `symlink`, `fifo`, `socket`, `char-device`, `block-device`.
    pub kind: &'static str,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Name of the owner.
    pub user: String,
    /// Name of the group.
    pub group: String,
    /// Length of the content.
    pub size: u64,
    /// Modification time, seconds since 1970.
    pub mtime: i64,
    /// Target of a symbolic link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// It changed while it was read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub changed_while_read: bool,
}

/// The word for a kind.
#[must_use]
pub fn kind_name(kind: &EntryKind) -> &'static str {
    match kind {
        EntryKind::File(_) => "file",
        EntryKind::Directory(_) => "directory",
        EntryKind::Symlink(_) => "symlink",
        EntryKind::Fifo => "fifo",
        EntryKind::Socket => "socket",
        EntryKind::CharDevice(..) => "char-device",
        EntryKind::BlockDevice(..) => "block-device",
    }
}

impl Listed {
    /// The entry at `path`.
    #[must_use]
    pub fn new(path: &ArchivePath, entry: &Entry) -> Self {
        let Time { seconds, .. } = entry.metadata.mtime;
        let target = match &entry.kind {
            EntryKind::Symlink(target) => Some(escape(target)),
            _ => None,
        };
        Self {
            path: format!("/{path}"),
            kind: kind_name(&entry.kind),
            mode: entry.metadata.mode,
            uid: entry.metadata.uid,
            gid: entry.metadata.gid,
            user: escape(&entry.metadata.user),
            group: escape(&entry.metadata.group),
            size: entry.len(),
            mtime: seconds,
            target,
            changed_while_read: entry.changed_while_read,
        }
    }
}

/// Calls `row` for what is at and below the path: the components of a snapshot, the entries of a directory, a file itself.
///
/// # Errors
/// `NotFound` and the like, and the first error of `row`.
pub fn ls(
    app: App<'_>,
    target: &Target,
    what: &SnapshotPath,
    recursive: bool,
    row: &mut dyn FnMut(&Listed) -> Result<()>,
) -> Result<()> {
    let repository = target.open()?;
    let published = snapshot(app, &repository, &what.selector)?;
    let reader = ArchiveReader::new(&repository, app.context);
    let mut visit = |path: &ArchivePath, entry: &Entry| row(&Listed::new(path, entry));
    let (entry, path) = if what.path.is_root() {
        for record in published.snapshot.components.iter().filter(|record| record.root.is_some()) {
            let path = component_path(&record.name)?;
            let root = record.root_entry()?;
            visit(&path, &root)?;
            if recursive {
                reader.walk(&root, &path, &mut visit)?;
            }
        }
        return Ok(());
    } else if let Some(place) = InsidePlace::find(&reader, &published, what, false)? {
        return place.visit(recursive, &mut visit);
    } else {
        let (record, below) = resolve(&published.snapshot, &what.path)?;
        (reader.entry(&record.root_entry()?, &below)?, what.path.clone())
    };
    let EntryKind::Directory(content) = &entry.kind else { return visit(&path, &entry) };
    if recursive {
        return reader.walk(&entry, &path, &mut visit);
    }
    for below in reader.tree(content)?.entries {
        visit(&join(&path, &below.name)?, &below)?;
    }
    Ok(())
}

/// The path of a component.
///
/// # Errors
/// `Damaged` when its name can't stand in a path.
pub fn component_path(name: &str) -> Result<ArchivePath> {
    join(&ArchivePath::root(), name.as_bytes())
}

fn join(path: &ArchivePath, name: &[u8]) -> Result<ArchivePath> {
    path.join(name).map_err(|cause| Error::damaged("A snapshot holds a name that it must not").cause(cause))
}

/// Writes the content of a file to `out`.
///
/// # Errors
/// `NotFound`, `Damaged`, and what `out` says.
pub fn cat(app: App<'_>, target: &Target, what: &SnapshotPath, out: &mut dyn Write) -> Result<u64> {
    let repository = target.open()?;
    let published = snapshot(app, &repository, &what.selector)?;
    let reader = ArchiveReader::new(&repository, app.context);
    if let Some(place) = InsidePlace::find(&reader, &published, what, false)? {
        return copy(&mut *place.open(&reader)?, out);
    }
    let (record, below) = resolve(&published.snapshot, &what.path)?;
    let entry = reader.entry(&record.root_entry()?, &below)?;
    let EntryKind::File(content) = &entry.kind else {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("/{} is a {}, not a file", what.path, kind_name(&entry.kind)),
        )
        .hint("`compline ls` lists directories, `compline restore` brings them back"));
    };
    copy(&mut *reader.open(content), out)
}

fn copy(reader: &mut dyn Read, out: &mut dyn Write) -> Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        let len = reader.read(&mut buffer).map_err(from_content)?;
        if len == 0 {
            break;
        }
        out.write_all(&buffer[..len]).map_err(|cause| Error::io("The output can't be written", cause))?;
        total += len as u64;
    }
    out.flush().map_err(|cause| Error::io("The output can't be written", cause))?;
    Ok(total)
}

/// The error of the repository inside an error of a content's reader.
#[must_use]
pub fn from_content(cause: std::io::Error) -> Error {
    match cause.downcast::<Error>() {
        Ok(error) => error,
        Err(cause) => Error::io("The content can't be read", cause),
    }
}
