//! Reading an archive: paths to entries, entries to bytes.

use std::io::{self, Read};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::content::{self, Leaves};
use super::entry::{Content, Entry, EntryKind, Piece};
use super::path::{ArchivePath, escape};
use super::reflated::Recreated;
use super::restore::{self, RestoreOptions, RestoreSummary, TreeSource};
use super::tree::Tree;
use super::{CaptureSource, ComponentRecord, Snapshot};
use crate::error::{Error, ErrorKind, Result};
use crate::id::ChunkId;
use crate::observer::Context;
use crate::reflate::{Record, decode_records};
use crate::store::{ChunkReader, ChunkSource, Repository};

/// Content bytes that are fetched together when a stream is read from its first byte to its last.
const WINDOW_LEN: u64 = 8 << 20;
/// The same from far away, where nothing is under way between two windows.
const FAR_WINDOW_LEN: u64 = 32 << 20;

/// Reads trees and contents of one repository.
pub struct ArchiveReader<'c> {
    chunks: ChunkReader<'c>,
    context: Context<'c>,
}

fn not_found(root: &str, path: &ArchivePath) -> Error {
    let slash = if root.is_empty() || path.is_root() { "" } else { "/" };
    Error::new(ErrorKind::NotFound, format!("There is no /{root}{slash}{path} in the snapshot"))
        .hint("`compline ls SNAP` and `compline ls SNAP:PATH` show what there is")
}

impl<'c> ArchiveReader<'c> {
    /// A reader of `repository`.
    #[must_use]
    pub fn new(repository: &Repository, context: Context<'c>) -> Self {
        Self { chunks: repository.reader(context), context }
    }

    /// The chunks below.
    #[must_use]
    pub fn chunks(&self) -> &ChunkReader<'c> {
        &self.chunks
    }

    /// The tree of a directory.
    ///
    /// # Errors
    /// `Damaged`, or from the store.
    pub fn tree(&self, content: &Content) -> Result<Tree> {
        content::read_tree(&self.chunks, content)
    }

    /// The entry at `path` below `root`.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn entry(&self, root: &Entry, path: &ArchivePath) -> Result<Entry> {
        let mut entry = root.clone();
        let missing = || not_found(&escape(&root.name), path);
        for name in path.names() {
            let EntryKind::Directory(content) = &entry.kind else { return Err(missing()) };
            entry = self.tree(content)?.get(name).cloned().ok_or_else(missing)?;
        }
        Ok(entry)
    }

    /// Calls `visit` for everything below `entry`, in the order of paths, directories before what they hold.
    ///
    /// # Errors
    /// The first error of `visit` or of the store.
    pub fn walk(
        &self,
        entry: &Entry,
        path: &ArchivePath,
        visit: &mut dyn FnMut(&ArchivePath, &Entry) -> Result<()>,
    ) -> Result<()> {
        let EntryKind::Directory(content) = &entry.kind else { return Ok(()) };
        for below in self.tree(content)?.entries {
            self.context.go_on()?;
            let bad = |cause| Error::damaged("A tree holds a name that it must not").cause(cause);
            let path = path.join(&below.name).map_err(bad)?;
            visit(&path, &below)?;
            self.walk(&below, &path, visit)?;
        }
        Ok(())
    }

    /// Reads a content from its first byte to its last, made again where it was taken apart. Memory stays bounded.
    #[must_use]
    pub fn open(&self, content: &Content) -> Box<dyn Read + Send + '_> {
        match content.reflated {
            None => Box::new(self.bytes(content)),
            Some(reflated) => Box::new(Recreated::new(&self.chunks, content, reflated, self.bytes(content))),
        }
    }
}

impl ArchiveReader<'_> {
    /// The bytes that the pieces of a content hold.
    fn bytes(&self, content: &Content) -> ContentReader<'_> {
        let window_len = if self.chunks.is_far() { FAR_WINDOW_LEN } else { WINDOW_LEN };
        let leaves = Leaves::new(&self.chunks, content);
        ContentReader { chunks: &self.chunks, leaves, window: Vec::new(), window_len, at: 0, hole: 0 }
    }

    /// The first `len` bytes that the pieces of a content hold, whatever they are made into.
    #[must_use]
    pub fn plain(&self, content: &Content, len: u64) -> PlainReader<'_> {
        PlainReader { bytes: self.bytes(content), left: len }
    }

    /// Whether the plain bytes of a content that was taken apart are all that was compressed in it, and nothing else.
    ///
    /// # Errors
    /// When its recipe can't be read.
    pub fn is_all_deflated(&self, content: &Content) -> Result<bool> {
        let Some(reflated) = content.reflated else { return Ok(false) };
        for piece in Leaves::behind(&self.chunks, content, reflated.plain_len) {
            let records = decode_records(&self.chunks.get(&piece?.id)?)
                .map_err(|cause| Error::stored("A recipe of a compressed file", cause.is_newer()).cause(cause))?;
            if records.iter().any(|record| matches!(record, Record::Copy(_))) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Plain bytes, of which some can be passed over without reading them.
pub struct PlainReader<'s> {
    bytes: ContentReader<'s>,
    left: u64,
}

impl PlainReader<'_> {
    /// Passes over `len` bytes.
    ///
    /// # Errors
    /// When there are not so many, and when lists can't be read.
    pub fn pass(&mut self, len: u64) -> io::Result<()> {
        self.left = self.left.checked_sub(len).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.bytes.pass(len)
    }
}

impl Read for PlainReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.bytes.read(&mut buffer[..len])?;
        self.left -= read as u64;
        Ok(read)
    }
}

impl TreeSource for ArchiveReader<'_> {
    fn tree(&self, content: &Content) -> Result<Tree> {
        Self::tree(self, content)
    }

    fn open(&self, content: &Content) -> Box<dyn Read + Send + '_> {
        Self::open(self, content)
    }
}

/// Reads what pieces hold. Errors of the repository come out as `io::Error` with an [`Error`] inside.
pub struct ContentReader<'s> {
    chunks: &'s dyn ChunkSource,
    leaves: Leaves<'s>,
    window: Vec<u8>,
    window_len: u64,
    at: usize,
    hole: u64,
}

impl ContentReader<'_> {
    /// Passes over `len` bytes; chunks that lie in them are not read.
    fn pass(&mut self, len: u64) -> io::Result<()> {
        let ready = (self.window.len() - self.at).min(usize::try_from(len).unwrap_or(usize::MAX));
        self.at += ready;
        let mut left = len - ready as u64;
        let hole = self.hole.min(left);
        self.hole -= hole;
        left -= hole;
        let unread = self.leaves.pass(left).map_err(io::Error::other)?;
        io::copy(&mut self.take(unread), &mut io::sink()).map(drop)
    }

    /// Fetches the next pieces; false at the end.
    fn fill(&mut self) -> Result<bool> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut len = 0;
        while len < self.window_len {
            match self.leaves.next().transpose()? {
                Some(piece) if piece.is_hole() => {
                    self.hole = piece.len;
                    break;
                }
                Some(piece) => {
                    len += piece.len;
                    pieces.push(piece);
                }
                None => break,
            }
        }
        self.fetch(&pieces)?;
        Ok(!pieces.is_empty() || self.hole > 0)
    }

    fn fetch(&mut self, pieces: &[Piece]) -> Result<()> {
        let ids: Vec<ChunkId> = pieces.iter().map(|piece| piece.id).collect();
        let found: Vec<Mutex<Vec<u8>>> = ids.iter().map(|_| Mutex::default()).collect();
        self.chunks.get_many(&ids, &|position, bytes| {
            *found[position].lock().unwrap_or_else(PoisonError::into_inner) = bytes.to_vec();
            Ok(())
        })?;
        self.window.clear();
        self.at = 0;
        for (piece, bytes) in pieces.iter().zip(found) {
            let bytes = bytes.into_inner().unwrap_or_else(PoisonError::into_inner);
            if bytes.len() as u64 != piece.len {
                return Err(Error::damaged(format!(
                    "Chunk {} has another length than its list says",
                    piece.id.short()
                )));
            }
            self.window.extend_from_slice(&bytes);
        }
        Ok(())
    }
}

impl Read for ContentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let ready = &self.window[self.at..];
            if !ready.is_empty() {
                let len = ready.len().min(buffer.len());
                buffer[..len].copy_from_slice(&ready[..len]);
                self.at += len;
                return Ok(len);
            }
            if self.hole > 0 {
                let len = usize::try_from(self.hole).unwrap_or(usize::MAX).min(buffer.len());
                buffer[..len].fill(0);
                self.hole -= len as u64;
                return Ok(len);
            }
            if !self.fill().map_err(io::Error::other)? {
                return Ok(0);
            }
        }
    }
}

/// One component of one snapshot.
pub struct ComponentReader<'r> {
    archive: &'r ArchiveReader<'r>,
    root: Entry,
}

impl<'r> ComponentReader<'r> {
    /// The component that `record` describes.
    ///
    /// # Errors
    /// When it was not committed or its record is damaged.
    pub fn new(archive: &'r ArchiveReader<'r>, record: &ComponentRecord) -> Result<Self> {
        Ok(Self { archive, root: record.root_entry()? })
    }

    /// Its root.
    #[must_use]
    pub fn root(&self) -> &Entry {
        &self.root
    }
}

impl CaptureSource for ComponentReader<'_> {
    fn entry(&self, path: &ArchivePath) -> Result<Entry> {
        self.archive.entry(&self.root, path)
    }

    fn list(&self, path: &ArchivePath) -> Result<Vec<Entry>> {
        match self.entry(path)?.kind {
            EntryKind::Directory(content) => Ok(self.archive.tree(&content)?.entries),
            _ => Err(Error::new(ErrorKind::NotFound, format!("{path} is not a directory"))),
        }
    }

    fn open(&self, path: &ArchivePath) -> Result<Box<dyn Read + Send + '_>> {
        match self.entry(path)?.kind {
            EntryKind::File(content) => Ok(self.archive.open(&content)),
            _ => Err(Error::new(ErrorKind::NotFound, format!("{path} is not a file"))),
        }
    }

    fn restore_files(&self, path: &ArchivePath, target: &Path, options: &RestoreOptions) -> Result<RestoreSummary> {
        let entry = self.entry(path)?;
        restore::restore_tree(self.archive.chunks(), self.archive, &entry, target, options, &self.archive.context)
    }
}

/// Splits a path in a snapshot into its component and the path below it.
///
/// # Errors
/// `NotFound` when the snapshot has no such component, or it was not committed.
pub fn resolve<'s>(snapshot: &'s Snapshot, path: &ArchivePath) -> Result<(&'s ComponentRecord, ArchivePath)> {
    let Some((name, rest)) = path.split_first() else {
        return Err(Error::new(ErrorKind::Usage, "The path names no component"));
    };
    let component = snapshot.components.iter().find(|component| component.name.as_bytes() == name);
    component.map(|component| (component, rest)).ok_or_else(|| not_found("", path))
}
