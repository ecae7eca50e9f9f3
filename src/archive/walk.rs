//! Capturing file trees.
//!
//! ```text
//! scouts: open, list, stat, compare, several directories ahead
//!    walker thread: depth first, units of work -> [read, cut, hash small files] x cores -> caller: store, build trees
//! ```
//! A file whose change time, modification time, length and inode are as in the parent snapshot is not read. A directory in
//! which nothing is different from the parent has the parent's tree, which is neither encoded nor hashed again: it was just
//! read, so it is stored. A file that changes while it is read is read again, twice; if it never holds still it is kept as
//! it was read last, marked, and counted as a problem. Names that vanish between listing and looking are no problem: the
//! state without them is as good.

mod reading;
mod scout;
mod selection;
mod walker;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::FilesSource;
use super::entry::{Content, Entry, EntryKind, Metadata, Piece};
use super::path::escape;
use super::posix::{self, Inspected, Owners};
use super::reflated::{KnownPieces, Opened, Opener, RecipeChunk};
use super::tree::Tree;
use super::writer::ComponentWriter;
use crate::error::{Error, ErrorKind, Result};
use crate::id::ChunkId;
use crate::observer::{Counter, Problem};
use crate::pipeline::{self, Sender};
use crate::reflate::{Policy, next_start};
use crate::store::{Offered, Older};
use reading::{ReadUnit, Reading, TakeApart};
use scout::Scout;
use selection::Selection;
use walker::Walker;

/// Files up to this length are read whole by a worker; longer ones are streamed.
const SMALL_LEN_MAX: usize = 512 << 10;
/// Bytes of small files that one worker reads at once; a unit has at most one file more.
const UNIT_LEN: usize = 1 << 20;
/// How often a file that changes while it is read is read.
const ATTEMPTS: usize = 3;
/// Threads that look at directories: more than cores, as they mostly wait for the disk when the cache is cold.
const SCOUT_COUNT: usize = 8;
/// Directories that are looked at ahead of need. Each has its descriptor open.
const SCOUTED_COUNT_MAX: usize = 64;

/// What is to be done, in the order of the walk.
enum Step {
    Enter {
        name: Vec<u8>,
        inspected: Box<io::Result<Inspected>>,
        /// What the parent has of the directory.
        tree: Option<Arc<Tree>>,
    },
    /// Entries of that tree that are as they were: their positions.
    Same(Vec<usize>),
    /// Needs no content: special files, links, files whose content is unchanged. The flag: as in the parent.
    Entry(Entry, bool),
    /// To be read by a worker, which makes `Small` or `Large` of it.
    Read(ToRead),
    Small(SmallFile),
    /// To be streamed by the caller.
    Large(ToRead),
    Problem(Problem),
    Vanished(PathBuf),
    Leave,
    Failed(Error),
}

/// A file whose content is wanted.
struct ToRead {
    directory: Arc<OwnedFd>,
    path: PathBuf,
    name: Vec<u8>,
    inspected: Inspected,
    is_new: bool,
    /// What the parent has of it.
    old: Option<Content>,
}

/// A file that was read whole.
struct SmallFile {
    name: Vec<u8>,
    inspected: Inspected,
    len: u64,
    /// Where its first chunk begins in the buffer of the unit, and where each ends.
    cuts: Vec<usize>,
    /// Of each chunk its id, and what lay at its place in the parent.
    ids: Vec<(ChunkId, Vec<ChunkId>)>,
    /// If it was compressed: the buffer holds its plain bytes, and the rest is here.
    taken: Option<Taken>,
    /// Its path, if it never held still.
    changed: Option<PathBuf>,
    is_new: bool,
}

/// A file that was taken apart.
struct Taken {
    plain: Vec<u8>,
    recipe: Vec<RecipeChunk>,
    opened: Opened,
}

impl SmallFile {
    fn chunks<'b>(&self, bytes: &'b [u8]) -> impl Iterator<Item = Offered<'b>> {
        let placed = self.ids.iter().zip(self.cuts.windows(2));
        placed.map(|((id, older), cuts)| Offered {
            id: *id,
            bytes: &bytes[cuts[0]..cuts[1]],
            older: Older::Known(older.clone()),
        })
    }

    fn pieces(&self) -> impl Iterator<Item = Piece> {
        self.ids
            .iter()
            .zip(self.cuts.windows(2))
            .map(|((id, _), cuts)| Piece { id: *id, len: (cuts[1] - cuts[0]) as u64 })
    }
}

fn problem(path: &Path, message: impl std::fmt::Display) -> Problem {
    Problem::new(escape(path.as_os_str().as_bytes()), message.to_string())
}

fn unreadable(path: &Path, cause: &io::Error) -> Step {
    if cause.kind() == io::ErrorKind::NotFound {
        Step::Vanished(path.to_owned())
    } else {
        Step::Problem(problem(path, format!("Can't be read: {cause}")))
    }
}

/// A directory whose entries are being gathered.
struct OpenDirectory {
    name: Vec<u8>,
    metadata: Metadata,
    tree: Option<Arc<Tree>>,
    /// Positions in `tree` of what is as it was.
    same: Vec<usize>,
    entries: Vec<Entry>,
}

impl OpenDirectory {
    /// Whether it holds what it held, all of it and nothing else.
    fn is_same(&self) -> bool {
        self.entries.is_empty() && self.tree.as_ref().is_some_and(|tree| tree.entries.len() == self.same.len())
    }

    fn into_entries(self) -> Vec<Entry> {
        let mut entries = self.entries;
        if let Some(tree) = &self.tree {
            entries.extend(self.same.iter().filter_map(|at| tree.entries.get(*at).cloned()));
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        entries
    }

    /// Where the parent has an entry of this name.
    fn known(&self, name: &[u8]) -> Option<(usize, &Entry)> {
        let tree = self.tree.as_ref()?;
        let at = tree.position(name)?;
        tree.entries.get(at).map(|entry| (at, entry))
    }

    /// Adds an entry, which may be the parent's.
    fn push(&mut self, entry: Entry) {
        match self.known(&entry.name) {
            Some((at, old)) if *old == entry => self.same.push(at),
            _ => self.entries.push(entry),
        }
    }
}

/// Captures `source` into `component`: the root directory's entries, and its metadata.
pub(super) fn capture(component: &mut ComponentWriter<'_>, source: &FilesSource) -> Result<()> {
    let selection = Selection::of(&source.paths)?;
    if selection.is_empty() {
        return Err(Error::new(ErrorKind::Usage, "There is nothing to capture: no path is given"));
    }
    let parent = component.parent();
    let omit = component.omitted().to_vec();
    let reader = component.repository().reader(component.context());
    let repository = component.repository().clone();
    let chunker = component.chunker().clone();
    let chunk_id = |bytes: &[u8]| repository.chunk_id(bytes);
    let contains = |ids: &[ChunkId]| repository.index().contains(ids);
    let owners = Owners::default();
    let scout = Scout {
        source,
        omit: &omit,
        chunks: &reader,
        contains: &contains,
        owners: &owners,
        takes_over: parent.as_ref().is_some_and(|parent| parent.tells_all),
    };
    let walk = |emit: &dyn Fn(Vec<Step>) -> bool| {
        pipeline::ahead(
            SCOUT_COUNT,
            SCOUTED_COUNT_MAX,
            |visit| scout.visit(visit),
            |ahead| Walker::new(&scout, ahead, emit).walk(&selection, parent.as_ref().map(|parent| &parent.root)),
        );
    };
    let policy = component.reflate_policy();
    let pieces = KnownPieces::new(&repository, component.context());
    let open = |bytes: &[u8]| take_apart(bytes, policy, &pieces);
    let open: &TakeApart<'_> = &open;
    let open = (policy != Policy::Never).then_some(open);
    let workers = pipeline::parallelism();
    let (spare, spares) = pipeline::bounded(workers * 2);
    let reading = Reading { chunker: &chunker, chunk_id: &chunk_id, owners: &owners, open, spares };
    let mut building = Building { component, owners: &owners, pieces: &pieces, spare, stack: Vec::new(), root: None };
    pipeline::ordered(walk, workers, workers, |unit| reading.unit(unit), |unit| building.unit(unit))?;
    let root = building.root.take();
    let Some(root) = root else {
        return Err(Error::new(ErrorKind::Bug, "The walk ended without a root"));
    };
    component.set_root(root.metadata.clone(), root.into_entries());
    Ok(())
}

/// Stores what the workers found, on the calling thread, and builds the trees.
struct Building<'b, 'w> {
    component: &'b mut ComponentWriter<'w>,
    owners: &'b Owners,
    pieces: &'b KnownPieces<'b>,
    /// Takes the buffers of units.
    spare: Sender<Vec<u8>>,
    stack: Vec<OpenDirectory>,
    root: Option<OpenDirectory>,
}

impl Building<'_, '_> {
    fn unit(&mut self, unit: ReadUnit) -> Result<()> {
        self.component.context().go_on()?;
        let ReadUnit { steps, mut bytes } = unit;
        self.store_small(&steps, &bytes)?;
        if bytes.capacity() > 0 {
            bytes.clear();
            let _enough = self.spare.try_send(bytes);
        }
        steps.into_iter().try_for_each(|step| self.step(step))
    }

    fn step(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Enter { name, inspected, tree } => self.enter(name, *inspected, tree)?,
            Step::Same(same) => self.same(&same),
            Step::Entry(entry, unchanged) => self.entry(entry, unchanged),
            Step::Small(file) => self.small(file)?,
            Step::Large(file) => self.large(file)?,
            Step::Problem(problem) => self.component.problem(problem),
            Step::Vanished(path) => {
                self.component.context().observer.detail(&format!("{} vanished", path.display()));
            }
            Step::Leave => self.leave()?,
            Step::Failed(error) => return Err(error),
            Step::Read(file) => {
                return Err(Error::new(ErrorKind::Bug, format!("{} was not read", file.path.display())));
            }
        }
        Ok(())
    }

    fn enter(&mut self, name: Vec<u8>, inspected: io::Result<Inspected>, tree: Option<Arc<Tree>>) -> Result<()> {
        let inspected = inspected.map_err(|cause| Error::io("A directory can't be inspected", cause))?;
        let metadata = inspected.metadata;
        self.stack.push(OpenDirectory { name, metadata, tree, same: Vec::new(), entries: Vec::new() });
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        let Some(directory) = self.stack.pop() else {
            return Err(Error::new(ErrorKind::Bug, "The walk left a directory that it had not entered"));
        };
        self.component.count(Counter::Directories, 1);
        let Some(above) = self.stack.last_mut() else {
            self.root = Some(directory);
            return Ok(());
        };
        let (name, metadata) = (directory.name.clone(), directory.metadata.clone());
        let old = match above.known(&name) {
            Some((_, Entry { kind: EntryKind::Directory(content), .. })) => Some(content.clone()),
            _ => None,
        };
        let content = match old {
            Some(content) if directory.is_same() && self.component.may_rely_on(&content)? => content,
            old => self.component.put_tree(&Tree { entries: directory.into_entries() }, old.as_ref())?,
        };
        above.push(Entry { name, kind: EntryKind::Directory(content), metadata, changed_while_read: false });
        Ok(())
    }

    fn push(&mut self, entry: Entry) {
        if let Some(directory) = self.stack.last_mut() {
            directory.push(entry);
        }
    }

    fn same(&mut self, same: &[usize]) {
        let Some(directory) = self.stack.last_mut() else { return };
        let entries = directory.tree.iter().flat_map(|tree| same.iter().filter_map(|at| tree.entries.get(*at)));
        let len = entries.map(Entry::len).sum();
        directory.same.extend_from_slice(same);
        self.component.count(Counter::FilesUnchanged, same.len() as u64);
        self.component.count_logical(len);
    }

    /// All small files of a unit at once: one look-up for many chunks.
    fn store_small(&mut self, steps: &[Step], bytes: &[u8]) -> Result<()> {
        let small = steps.iter().filter_map(|step| if let Step::Small(file) = step { Some(file) } else { None });
        let (apart, whole): (Vec<_>, Vec<_>) = small.partition(|file| file.taken.is_some());
        self.component.put_chunks(whole.iter().flat_map(|file| file.chunks(bytes)))?;
        if !apart.is_empty() {
            let new = self.component.put_chunks(apart.iter().flat_map(|file| file.chunks(bytes)))?;
            self.component.count_plain_new(new);
        }
        Ok(())
    }

    fn small(&mut self, file: SmallFile) -> Result<()> {
        self.component.count(Counter::BytesRead, file.len);
        self.count_file(file.is_new, file.changed.as_deref());
        let mut recipe = Vec::new();
        if let Some(taken) = &file.taken {
            self.component.count_opened(&taken.opened);
            for chunk in &taken.recipe {
                recipe.push(self.component.put_recipe(chunk, self.pieces)?);
            }
        }
        let content = self.component.content_of(file.pieces(), &recipe, file.len)?;
        self.push(file_entry(file.name, content, file.inspected.metadata, file.changed.is_some()));
        Ok(())
    }

    fn entry(&mut self, entry: Entry, unchanged: bool) {
        self.component.count(if unchanged { Counter::FilesUnchanged } else { Counter::FilesNew }, 1);
        self.component.count_logical(entry.len());
        self.push(entry);
    }

    fn count_file(&mut self, is_new: bool, changed: Option<&Path>) {
        self.component.count(if is_new { Counter::FilesNew } else { Counter::FilesChanged }, 1);
        if let Some(path) = changed {
            self.component.problem(problem(path, "Changed while it was read, three times"));
        }
    }

    fn large(&mut self, file: ToRead) -> Result<()> {
        let ToRead { directory, path, name, is_new, old, .. } = file;
        for attempt in 1.. {
            let opened = posix::open_file_at(&directory, OsStr::from_bytes(&name))
                .and_then(|file| Ok((posix::inspect_open(&file, self.owners)?, file)));
            let (inspected, file) = match opened {
                Ok(opened) => opened,
                Err(cause) => return self.step(unreadable(&path, &cause)),
            };
            let content = match self.component.put_file(&file, &inspected, old.as_ref()) {
                Ok(Ok(content)) => content,
                Ok(Err(cause)) => return self.step(unreadable(&path, &cause)),
                Err(error) => return Err(error),
            };
            let held_still = posix::state_of(&file).is_ok_and(|state| posix::same_state(&inspected, &state));
            if held_still || attempt == ATTEMPTS {
                self.count_file(is_new, (!held_still).then_some(&path));
                self.push(file_entry(name, content, inspected.metadata, !held_still));
                return Ok(());
            }
        }
        Ok(())
    }
}

/// A small file as its plain bytes and how it is made of them; none if nothing in it is compressed.
fn take_apart(bytes: &[u8], policy: Policy, pieces: &KnownPieces<'_>) -> Option<Taken> {
    next_start(bytes, 0, true)?;
    let opened = Opened::default();
    let mut source = bytes;
    let mut plain = Vec::new();
    // Bytes in memory can be read.
    Opener::new(&mut source, policy, pieces, &opened).read_to_end(&mut plain).ok()?;
    let recipe = opened.take_recipe();
    (!recipe.is_empty()).then_some(Taken { plain, recipe, opened })
}

fn file_entry(name: Vec<u8>, content: Content, metadata: Metadata, changed: bool) -> Entry {
    Entry { name, kind: EntryKind::File(content), metadata, changed_while_read: changed }
}

/// Reads the data of a sparse file between two offsets.
pub(super) struct Section<'f> {
    file: &'f File,
    offset: u64,
    end: u64,
}

impl<'f> Section<'f> {
    pub(super) fn new(file: &'f File, offset: u64, end: u64) -> Self {
        Self { file, offset, end }
    }
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let len = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..len], self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}
