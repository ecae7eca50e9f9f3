//! Snapshots and trees: what is in a repository, without saying where it lies.
//!
//! The two seams for those above are [`CaptureSink`] (a component puts its state in) and [`CaptureSource`] (it takes
//! it out again). Chunks are below them; components never see one.

mod ancestor;
pub mod check;
pub mod content;
pub mod copy;
pub mod diff;
pub mod entry;
pub mod fields;
pub mod inside;
pub mod mend;
pub mod path;
pub mod posix;
pub mod reach;
pub mod reader;
pub mod reflated;
pub mod relabel;
pub mod restore;
pub mod retention;
pub mod snapshot;
pub mod snapshots;
pub mod table;
pub mod tree;
mod walk;
pub mod writer;

use std::io::Read;
use std::path::{Path, PathBuf};

use globset::GlobSet;

pub use entry::{Content, Entry, EntryKind, Metadata, Piece, Time};
pub use path::ArchivePath;
pub use reader::{ArchiveReader, ComponentReader};
pub use restore::{Overwrite, RestoreOptions, RestoreSummary};
pub use snapshot::{ComponentRecord, Snapshot, Status};
pub use tree::Tree;
pub use writer::{ArchiveWriter, ComponentWriter, Parent};

use crate::error::Result;

/// What was stored of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSummary {
    /// Bytes read until the end.
    pub len: u64,
}

/// File trees of this machine that are to be captured.
#[derive(Debug, Clone, Default)]
pub struct FilesSource {
    /// Absolute or relative paths; each appears in the snapshot under its absolute path.
    pub paths: Vec<PathBuf>,
    /// Absolute paths that match are left out, with all that is below them.
    pub exclude: Option<GlobSet>,
    /// Stay on the file system of each path.
    pub one_file_system: bool,
    /// Leave out directories that hold a `CACHEDIR.TAG`.
    pub exclude_caches: bool,
}

/// Where a component puts what it captures.
pub trait CaptureSink {
    /// Stores everything that `reader` gives, up to its end, as the file `path`; the empty path makes the component one
    /// stream and nothing else. A read error is returned and nothing of
    /// the stream becomes visible. The caller decides afterwards, by exit status and completeness marker, whether the
    /// capture as a whole counts; until it has returned `Ok` nothing is published.
    fn put_stream(&mut self, path: &ArchivePath, reader: &mut (dyn Read + Send)) -> Result<StreamSummary>;

    /// Captures file trees. Files that can't be read are problems, counted by the observer; a path of `source` that
    /// does not exist is an error.
    fn put_files(&mut self, source: &FilesSource) -> Result<()>;
}

/// What a snapshot holds of one component.
pub trait CaptureSource: Sync {
    /// The entry at `path`; the empty path is the component's root.
    fn entry(&self, path: &ArchivePath) -> Result<Entry>;

    /// The entries of the directory at `path`, sorted by name.
    fn list(&self, path: &ArchivePath) -> Result<Vec<Entry>>;

    /// The content of the file at `path`, from its first byte to its last. Every chunk is verified; a read error means
    /// that the rest can't be had.
    fn open(&self, path: &ArchivePath) -> Result<Box<dyn Read + Send + '_>>;

    /// Writes the tree at `path` into the directory `target`, which is created where it is missing.
    fn restore_files(&self, path: &ArchivePath, target: &Path, options: &RestoreOptions) -> Result<RestoreSummary>;
}
