//! Writes trees of a snapshot into a directory.
//!
//! ```text
//! walk: trees in order, directories made, files decided about ──batch of pieces──> fetch: chunks in any order, written,
//!   ^ links, once the first name is whole                                            files ended, directories ended
//! ```
//! While one batch is fetched the walk fills the next. Memory holds two batches, the trees on the way down, and one
//! record for each file that has several names; no number of files and no length of a file adds to it.
//!
//! **What holds at any moment.** A name of the snapshot is, in the target, what it was before, or what the snapshot says,
//! or a file whose modification time is not the snapshot's; the same call made again ends right from there. Directories
//! get their mode and times when nothing below them is left to do. Nothing outside the target is touched: all names are
//! used below open directories, and symbolic links are never followed.
//!
//! **What stops it**: interruption, a full or read-only target, a storage that doesn't answer. Everything else (a damaged
//! chunk, a name the file system can't take, a device we may not make) is a problem of that name, is counted, and the rest
//! goes on.

mod batch;
mod decide;
mod directory;
mod engine;
mod file;
mod link;
mod pieces;
mod remove;
mod select;
mod special;
mod walk;

use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use globset::GlobSet;

use super::entry::{Content, Entry};
use super::tree::Tree;
use crate::error::{Error, ErrorKind, Result};
use crate::observer::Context;
use crate::store::ChunkSource;

/// What happens to files that the target has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// Their content is compared and corrected whatever their times.
    Always,
    /// A file of equal length and modification time is taken as right; all others as with `Always`.
    #[default]
    IfChanged,
    /// A file is overwritten when the snapshot's modification time is later.
    IfNewer,
    /// They stay as they are.
    Never,
}

impl Overwrite {
    /// Every policy with the word people write.
    pub const ALL: [(&'static str, Self); 4] = [
        ("always", Self::Always),
        ("if-changed", Self::IfChanged),
        ("if-newer", Self::IfNewer),
        ("never", Self::Never),
    ];
}

impl FromStr for Overwrite {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, policy)| *policy).ok_or_else(|| {
            Error::new(ErrorKind::Usage, format!("Unknown overwrite policy `{text}`"))
                .hint("Use always, if-changed, if-newer or never")
        })
    }
}

/// Whom restored files belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ownership {
    /// The user and group of the recorded names, or of the recorded numbers where the names are unknown here.
    #[default]
    Names,
    /// The recorded numbers, whatever they are called here.
    Numbers,
    /// Whoever restores them.
    Leave,
}

/// How to restore.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// What happens to files that the target has already.
    pub overwrite: Overwrite,
    /// Remove from the target what the snapshot lacks.
    pub delete: bool,
    /// Take nothing as right by its looks, and read back everything that was written.
    pub verify: bool,
    /// Whom the files belong to.
    pub ownership: Ownership,
    /// Leave out long runs of zeros too, not only the holes that were recorded.
    pub sparse: bool,
    /// Only what matches, with all that is below it. Matched against the path below the target, without a slash at
    /// the start.
    pub include: Option<GlobSet>,
    /// Not what matches, nor anything below it.
    pub exclude: Option<GlobSet>,
}

/// What a restore did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct RestoreSummary {
    /// Files, links and special files that were written or corrected.
    pub files_restored: u64,
    /// Those that were right already.
    pub files_right: u64,
    /// Those that the overwrite policy left alone.
    pub files_kept: u64,
    /// Directories of the snapshot that the target now has.
    pub directories: u64,
    /// Names that were removed because the snapshot lacks them.
    pub files_deleted: u64,
    /// Content bytes written.
    pub bytes_restored: u64,
    /// Problems that were told to the observer.
    pub problems: u64,
}

/// Gives what contents stand for where that is more than their chunks.
pub trait TreeSource: Sync {
    /// Reads and decodes it.
    ///
    /// # Errors
    /// `Damaged` or `NotFound` when this tree can't be read: the restore goes on without it. Anything else stops it.
    fn tree(&self, content: &Content) -> Result<Tree>;

    /// The bytes of a file that was taken apart, made again. Its pieces are not these bytes.
    fn open(&self, content: &Content) -> Box<dyn Read + Send + '_>;
}

/// Writes `root` into the directory `target`, which is made where it is missing. A directory's entries go straight into
/// the target, which takes on the directory's metadata; anything else is written there under its name.
///
/// # Errors
/// When the restore had to stop (see the module). Problems that didn't stop it are told to the observer and counted in
/// the summary.
pub fn restore_tree(
    chunks: &dyn ChunkSource,
    trees: &dyn TreeSource,
    root: &Entry,
    target: &Path,
    options: &RestoreOptions,
    context: &Context<'_>,
) -> Result<RestoreSummary> {
    let engine = engine::Engine::new(chunks, trees, target, options, context);
    walk::run(&engine, root, target)?;
    Ok(engine.summary())
}
