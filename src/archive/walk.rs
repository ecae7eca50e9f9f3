//! Capturing file trees.
//!
//! ```text
//! walker thread: open directories, list names, find parents -> [inspect, compare, read, cut, hash] x cores -> caller: store, build trees
//! ```
//! A file whose change time, modification time, length and inode are as in the parent snapshot is not read. A file that
//! changes while it is read is read again, twice; if it never holds still it is kept as it was read last, marked, and
//! counted as a problem. Names that vanish between listing and looking are no problem: the state without them is as good.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::FilesSource;
use super::content::{self, Leaves};
use super::entry::{Content, Entry, EntryKind, Metadata, Piece, name_is_valid};
use super::path::escape;
use super::posix::{self, FoundKind, Inspected, Owners};
use super::tree::Tree;
use super::writer::ComponentWriter;
use crate::chunker::{Batch, Chunker};
use crate::error::{Error, ErrorKind, Result};
use crate::id::ChunkId;
use crate::observer::{Counter, Problem};
use crate::pipeline;
use crate::store::{ChunkReader, ChunkSource, Repository};

/// Files up to this length are read whole by a worker; longer ones are streamed.
const SMALL_LEN_MAX: u64 = 512 << 10;
/// Names that one worker takes at once.
const GROUP_COUNT: usize = 32;
/// Bytes that one worker reads before it leaves the rest of its names to be streamed.
const GROUP_LEN_MAX: usize = 2 << 20;
/// How often a file that changes while it is read is read.
const ATTEMPTS: usize = 3;
/// Chunk ids of an unchanged file that are looked up at once.
const LOOK_UP_COUNT: usize = 4096;
const CACHEDIR_TAG: &[u8] = b"CACHEDIR.TAG";
const CACHEDIR_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// The paths to capture, as a tree of names. A selected node is captured with all that is below it.
#[derive(Debug, Default)]
struct Selection {
    selected: bool,
    below: BTreeMap<OsString, Selection>,
}

impl Selection {
    fn of(paths: &[PathBuf]) -> Result<Self> {
        let mut root = Self::default();
        for path in paths {
            let mut node = &mut root;
            for name in absolute(path)?.components().skip(1) {
                node = node.below.entry(name.as_os_str().to_owned()).or_default();
            }
            node.selected = true;
        }
        Ok(root)
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    let missing = |cause| {
        Error::io(format!("{} can't be captured", path.display()), cause)
            .hint("Correct the path in the plan or on the command line; `compline plan check` shows what is asked for")
    };
    let has_dots = path.components().any(|part| part == std::path::Component::ParentDir);
    let path = if has_dots { path.canonicalize() } else { std::path::absolute(path) }.map_err(missing)?;
    path.symlink_metadata().map_err(missing)?;
    Ok(path)
}

/// A name in an open directory that a worker is to look at.
struct Candidate {
    name: OsString,
    parent: Option<Entry>,
}

enum Event {
    Enter { name: Vec<u8>, directory: Arc<OwnedFd> },
    Group { directory: Arc<OwnedFd>, path: Arc<PathBuf>, candidates: Vec<Candidate> },
    Leave,
    Problem(Problem),
    Failed(Error),
}

/// What a worker found out about one name.
enum Found {
    /// Needs no content: special files, links, unchanged files.
    Entry(Entry, bool),
    /// Read whole.
    Small {
        name: Vec<u8>,
        inspected: Inspected,
        chunks: Batch,
        ids: Vec<ChunkId>,
        changed: Option<PathBuf>,
        is_new: bool,
    },
    /// To be streamed by the caller.
    Large {
        name: Vec<u8>,
        directory: Arc<OwnedFd>,
        path: PathBuf,
        is_new: bool,
    },
    Problem(Problem),
    Vanished(PathBuf),
}

enum Outcome {
    Enter { name: Vec<u8>, metadata: io::Result<Inspected> },
    Group(Vec<Found>),
    Leave,
    Problem(Problem),
    Failed(Error),
}

fn problem(path: &Path, message: impl std::fmt::Display) -> Problem {
    Problem::new(escape(path.as_os_str().as_bytes()), message.to_string())
}

/// Walks the source and makes events, in depth-first order.
struct Walker<'w> {
    source: &'w FilesSource,
    omit: &'w [PathBuf],
    chunks: &'w dyn ChunkSource,
    emit: &'w dyn Fn(Event) -> bool,
}

/// A directory that the walker is in.
struct Place<'p> {
    directory: Arc<OwnedFd>,
    path: PathBuf,
    parent: Option<&'p Tree>,
    device: Option<u64>,
}

impl Place<'_> {
    /// On another file system than the path that led here, where that matters.
    fn is_foreign(&self) -> bool {
        self.device.is_some_and(|device| posix::state_of(&self.directory).is_ok_and(|state| state.device != device))
    }
}

impl Walker<'_> {
    fn walk(&self, selection: &Selection, parent: Option<&Entry>) {
        let root = PathBuf::from("/");
        match posix::open_directory(&root) {
            Ok(directory) => {
                let tree = self.parent_tree(parent);
                let place = Place { directory: Arc::new(directory), path: root, parent: tree.as_ref(), device: None };
                self.enter(&[], &place, selection);
            }
            Err(cause) => {
                (self.emit)(Event::Failed(Error::io("The root directory can't be opened", cause)));
            }
        }
    }

    fn parent_tree(&self, parent: Option<&Entry>) -> Option<Tree> {
        match &parent?.kind {
            // A parent that can't be read only costs the comparison.
            EntryKind::Directory(content) => content::read_tree(self.chunks, content).ok(),
            _ => None,
        }
    }

    /// False: nobody listens any more.
    fn enter(&self, name: &[u8], place: &Place<'_>, selection: &Selection) -> bool {
        (self.emit)(Event::Enter { name: name.to_vec(), directory: place.directory.clone() })
            && if selection.selected { self.all(place) } else { self.selected(place, selection) }
            && (self.emit)(Event::Leave)
    }

    /// Only the names that lead to what is selected.
    fn selected(&self, place: &Place<'_>, selection: &Selection) -> bool {
        selection.below.iter().all(|(name, below)| {
            let path = place.path.join(name);
            // A way to the selection may lead over symbolic links; what is selected itself is taken as it is.
            let is_directory =
                if below.selected { path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) } else { true };
            if !is_directory {
                return self.group(place, vec![name.clone()]);
            }
            match posix::open_directory(&path) {
                Ok(directory) => self.descend(place, name, directory, below),
                Err(cause) => (self.emit)(Event::Failed(Error::io(
                    format!("Directory {} can't be opened", path.display()),
                    cause,
                ))),
            }
        })
    }

    fn descend(&self, place: &Place<'_>, name: &OsStr, directory: OwnedFd, selection: &Selection) -> bool {
        let tree = self.parent_tree(place.parent.and_then(|tree| tree.get(name.as_bytes())));
        let device = place.device.or_else(|| {
            let wanted = self.source.one_file_system && selection.selected;
            wanted.then(|| posix::state_of(&directory).ok().map(|state| state.device)).flatten()
        });
        let path = place.path.join(name);
        let below = Place { directory: Arc::new(directory), path, parent: tree.as_ref(), device };
        self.enter(name.as_bytes(), &below, selection)
    }

    fn is_excluded(&self, path: &Path) -> bool {
        self.omit.iter().any(|omit| omit == path)
            || self.source.exclude.as_ref().is_some_and(|globs| globs.is_match(path))
    }

    fn all(&self, place: &Place<'_>) -> bool {
        if place.is_foreign() {
            return true;
        }
        let names = match list(&place.directory) {
            Ok(names) => names,
            Err(cause) => {
                return (self.emit)(Event::Problem(problem(&place.path, format!("Can't be listed: {cause}"))));
            }
        };
        let names = self.without_caches(place, names);
        let filtering = self.source.exclude.is_some() || !self.omit.is_empty();
        let wanted = names.into_iter().filter(|(name, _)| !(filtering && self.is_excluded(&place.path.join(name))));
        let (directories, files): (Vec<_>, Vec<_>) = wanted.partition(|(_, is_directory)| *is_directory);
        let files: Vec<OsString> = files.into_iter().map(|(name, _)| name).collect();
        files.chunks(GROUP_COUNT).all(|names| self.group(place, names.to_vec()))
            && directories.into_iter().all(|(name, _)| self.directory(place, &name))
    }

    fn directory(&self, place: &Place<'_>, name: &OsStr) -> bool {
        let everything = Selection { selected: true, below: BTreeMap::new() };
        match posix::open_directory_at(&place.directory, name) {
            Ok(directory) => self.descend(place, name, directory, &everything),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => true,
            Err(cause) => {
                (self.emit)(Event::Problem(problem(&place.path.join(name), format!("Can't be opened: {cause}"))))
            }
        }
    }

    fn without_caches(&self, place: &Place<'_>, names: Vec<(OsString, bool)>) -> Vec<(OsString, bool)> {
        let has_tag = self.source.exclude_caches && names.iter().any(|(name, _)| name.as_bytes() == CACHEDIR_TAG);
        if has_tag && is_cache(&place.directory) {
            return names.into_iter().filter(|(name, _)| name.as_bytes() == CACHEDIR_TAG).collect();
        }
        names
    }

    fn group(&self, place: &Place<'_>, names: Vec<OsString>) -> bool {
        let candidates = names
            .into_iter()
            .map(|name| {
                let parent = place.parent.and_then(|tree| tree.get(name.as_bytes())).cloned();
                Candidate { name, parent }
            })
            .collect();
        let path = Arc::new(place.path.clone());
        (self.emit)(Event::Group { directory: place.directory.clone(), path, candidates })
    }
}

fn is_cache(directory: &OwnedFd) -> bool {
    let mut start = Vec::new();
    posix::open_file_at(directory, OsStr::from_bytes(CACHEDIR_TAG))
        .and_then(|file| file.take(CACHEDIR_SIGNATURE.len() as u64).read_to_end(&mut start))
        .is_ok_and(|_| start == CACHEDIR_SIGNATURE)
}

/// Names in a directory, sorted, and whether each is a directory.
fn list(directory: &OwnedFd) -> io::Result<Vec<(OsString, bool)>> {
    use rustix::fs::{AtFlags, Dir, FileType, statat};
    let mut names = Vec::new();
    for found in Dir::read_from(directory)? {
        let found = found?;
        let name = found.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let name = OsString::from_vec(name.to_vec());
        let is_directory = match found.file_type() {
            FileType::Unknown => statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir()),
            kind => kind.is_dir(),
        };
        names.push((name, is_directory));
    }
    names.sort_unstable();
    Ok(names)
}

/// What the workers share.
struct Look<'l> {
    chunker: &'l Chunker,
    chunk_id: &'l (dyn Fn(&[u8]) -> ChunkId + Sync),
    is_stored: &'l (dyn Fn(&Content) -> bool + Sync),
    owners: Owners,
}

impl Look<'_> {
    fn at(&self, event: Event) -> Outcome {
        match event {
            Event::Enter { name, directory } => {
                Outcome::Enter { name, metadata: posix::inspect_open(&*directory, &self.owners) }
            }
            Event::Group { directory, path, candidates } => Outcome::Group(self.group(&directory, &path, candidates)),
            Event::Leave => Outcome::Leave,
            Event::Problem(problem) => Outcome::Problem(problem),
            Event::Failed(error) => Outcome::Failed(error),
        }
    }

    fn group(&self, directory: &Arc<OwnedFd>, path: &Path, candidates: Vec<Candidate>) -> Vec<Found> {
        let mut budget = GROUP_LEN_MAX;
        let mut found = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let path = path.join(&candidate.name);
            found.extend(self.candidate(directory, &path, candidate, &mut budget));
        }
        found
    }

    fn candidate(&self, directory: &Arc<OwnedFd>, path: &Path, candidate: Candidate, budget: &mut usize) -> Vec<Found> {
        let inspected = match posix::inspect_at(&**directory, &candidate.name, &self.owners) {
            Ok(inspected) => inspected,
            Err(cause) => return vec![unreadable(path, &cause)],
        };
        let mut found: Vec<Found> =
            inspected.problems.iter().map(|message| Found::Problem(problem(path, message))).collect();
        let name = candidate.name.into_vec();
        if !name_is_valid(&name) {
            return vec![Found::Problem(problem(path, "The name is too long for the format"))];
        }
        let kind = match inspected.kind {
            FoundKind::File { len, sparse } => {
                found.push(self.file(directory, path, name, candidate.parent, inspected, (len, sparse), budget));
                return found;
            }
            // It became a directory since it was listed; the next backup has it.
            FoundKind::Directory => return found,
            FoundKind::Symlink(target) => EntryKind::Symlink(target),
            FoundKind::Fifo => EntryKind::Fifo,
            FoundKind::Socket => EntryKind::Socket,
            FoundKind::CharDevice(major, minor) => EntryKind::CharDevice(major, minor),
            FoundKind::BlockDevice(major, minor) => EntryKind::BlockDevice(major, minor),
        };
        let ctime = inspected.metadata.ctime;
        let unchanged = candidate.parent.is_some_and(|old| old.metadata.ctime == ctime && old.kind == kind);
        found.push(Found::Entry(
            Entry { name, kind, metadata: inspected.metadata, changed_while_read: false },
            unchanged,
        ));
        found
    }

    #[expect(clippy::too_many_arguments, reason = "all of them are parts of one name that is being looked at")]
    fn file(
        &self,
        directory: &Arc<OwnedFd>,
        path: &Path,
        name: Vec<u8>,
        parent: Option<Entry>,
        inspected: Inspected,
        (len, sparse): (u64, bool),
        budget: &mut usize,
    ) -> Found {
        let is_new = parent.is_none();
        if let Some(old) =
            parent.filter(|old| posix::is_unchanged(old, &inspected.metadata, len) && self.has_its_content(old))
        {
            return Found::Entry(Entry { metadata: inspected.metadata, ..old }, true);
        }
        if sparse || len > SMALL_LEN_MAX || len > *budget as u64 {
            return Found::Large { name, directory: directory.clone(), path: path.to_owned(), is_new };
        }
        let read = match self.read_small(directory, OsStr::from_bytes(&name), inspected) {
            Ok(Some(read)) => read,
            // It outgrew what is read whole.
            Ok(None) => return Found::Large { name, directory: directory.clone(), path: path.to_owned(), is_new },
            Err(cause) => return unreadable(path, &cause),
        };
        let (inspected, bytes, changed) = read;
        *budget = budget.saturating_sub(bytes.len());
        let chunks = Batch::whole(bytes, self.chunker);
        let ids = chunks.chunks().map(self.chunk_id).collect();
        let changed = changed.then(|| path.to_owned());
        Found::Small { name, inspected, chunks, ids, changed, is_new }
    }

    fn has_its_content(&self, old: &Entry) -> bool {
        matches!(&old.kind, EntryKind::File(content) if (self.is_stored)(content))
    }

    /// The bytes of a small file, read again while it changes. None when it is not small any more.
    fn read_small(
        &self,
        directory: &OwnedFd,
        name: &OsStr,
        mut inspected: Inspected,
    ) -> io::Result<Option<(Inspected, Vec<u8>, bool)>> {
        let mut bytes = Vec::new();
        for attempt in 1.. {
            let mut file = posix::open_file_at(directory, name)?;
            bytes.clear();
            let expected = usize::try_from(inspected.kind_len()).unwrap_or(0);
            bytes.reserve_exact(expected + 1);
            (&mut file).take(SMALL_LEN_MAX + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > SMALL_LEN_MAX {
                return Ok(None);
            }
            let held_still = posix::same_state(&inspected, &posix::state_of(&file)?);
            if held_still || attempt == ATTEMPTS {
                return Ok(Some((inspected, bytes, !held_still)));
            }
            inspected = posix::inspect_at(directory, name, &self.owners)?;
        }
        Ok(None)
    }
}

fn unreadable(path: &Path, cause: &io::Error) -> Found {
    if cause.kind() == io::ErrorKind::NotFound {
        Found::Vanished(path.to_owned())
    } else {
        Found::Problem(problem(path, format!("Can't be read: {cause}")))
    }
}

/// A directory whose entries are being gathered.
struct OpenDirectory {
    name: Vec<u8>,
    metadata: Metadata,
    entries: Vec<Entry>,
}

/// Whether every chunk of `content` is stored. What the parent snapshot refers to may have been lost since; then the file
/// is read again, which brings its chunks back. Looks up so many ids at once, however long the file is.
fn is_stored(repository: &Repository, chunks: &ChunkReader<'_>, content: &Content) -> bool {
    let mut leaves = Leaves::new(chunks, content)
        .filter(|piece| !piece.as_ref().is_ok_and(Piece::is_hole))
        .map(|piece| Ok(piece?.id));
    loop {
        let ids: Result<Vec<ChunkId>> = leaves.by_ref().take(LOOK_UP_COUNT).collect();
        match ids.and_then(|ids| repository.index().contains(&ids)) {
            Ok(found) if found.is_empty() => return true,
            Ok(found) if found.iter().all(|found| *found) => {}
            _ => return false,
        }
    }
}

/// Captures `source` into `component`: the root directory's entries, and its metadata.
pub(super) fn capture(component: &mut ComponentWriter<'_>, source: &FilesSource) -> Result<()> {
    let selection = Selection::of(&source.paths)?;
    if selection.below.is_empty() && !selection.selected {
        return Err(Error::new(ErrorKind::Usage, "There is nothing to capture: no path is given"));
    }
    let parent = component.parent();
    let omit = component.omitted().to_vec();
    let reader = component.repository().reader(component.context());
    let repository = component.repository().clone();
    let chunker = component.chunker().clone();
    let chunk_id = |bytes: &[u8]| repository.chunk_id(bytes);
    let is_stored = |content: &Content| is_stored(&repository, &reader, content);
    let look = Look { chunker: &chunker, chunk_id: &chunk_id, is_stored: &is_stored, owners: Owners::default() };
    let workers = pipeline::parallelism();
    let mut building = Building { component, look: &look, stack: Vec::new(), root: None };
    let walk = |emit: &dyn Fn(Event) -> bool| {
        Walker { source, omit: &omit, chunks: &reader, emit }.walk(&selection, parent.as_ref());
    };
    pipeline::ordered(walk, workers, workers * 2, |event| look.at(event), |outcome| building.take(outcome))?;
    let root = building.root.take();
    let Some(root) = root else {
        return Err(Error::new(ErrorKind::Bug, "The walk ended without a root"));
    };
    component.set_root(root.metadata, root.entries);
    Ok(())
}

/// Stores what the workers found, on the calling thread, and builds the trees.
struct Building<'b, 'w> {
    component: &'b mut ComponentWriter<'w>,
    look: &'b Look<'b>,
    stack: Vec<OpenDirectory>,
    root: Option<OpenDirectory>,
}

impl Building<'_, '_> {
    fn take(&mut self, outcome: Outcome) -> Result<()> {
        let context = self.component.context();
        context.go_on()?;
        match outcome {
            Outcome::Enter { name, metadata } => {
                let inspected = metadata.map_err(|cause| Error::io("A directory can't be inspected", cause))?;
                self.stack.push(OpenDirectory { name, metadata: inspected.metadata, entries: Vec::new() });
                Ok(())
            }
            Outcome::Group(found) => self.group(found),
            Outcome::Leave => self.leave(),
            Outcome::Problem(problem) => {
                self.component.problem(problem);
                Ok(())
            }
            Outcome::Failed(error) => Err(error),
        }
    }

    fn leave(&mut self) -> Result<()> {
        let Some(mut directory) = self.stack.pop() else {
            return Err(Error::new(ErrorKind::Bug, "The walk left a directory that it had not entered"));
        };
        directory.entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.component.count(Counter::Directories, 1);
        let Some(above) = self.stack.last_mut() else {
            self.root = Some(directory);
            return Ok(());
        };
        let content = self.component.put_tree(&Tree { entries: directory.entries })?;
        above.entries.push(Entry {
            name: directory.name,
            kind: EntryKind::Directory(content),
            metadata: directory.metadata,
            changed_while_read: false,
        });
        Ok(())
    }

    fn push(&mut self, entry: Entry) {
        if let Some(directory) = self.stack.last_mut() {
            directory.entries.push(entry);
        }
    }

    fn group(&mut self, found: Vec<Found>) -> Result<()> {
        self.store_small(&found)?;
        for found in found {
            match found {
                Found::Entry(entry, unchanged) => self.entry(entry, unchanged),
                Found::Small { name, inspected, chunks, ids, changed, is_new } => {
                    self.component.count(Counter::BytesRead, chunks.len() as u64);
                    self.count_file(is_new, changed.as_deref());
                    let pieces = chunks.chunks().zip(ids).map(|(chunk, id)| Piece { id, len: chunk.len() as u64 });
                    let content = self.component.content_of(pieces)?;
                    self.push(file_entry(name, content, inspected.metadata, changed.is_some()));
                }
                Found::Large { name, directory, path, is_new } => self.large(name, &directory, &path, is_new)?,
                Found::Problem(problem) => self.component.problem(problem),
                Found::Vanished(path) => {
                    self.component.context().observer.detail(&format!("{} vanished", path.display()));
                }
            }
        }
        Ok(())
    }

    /// All small files of a group at once: one look-up for many chunks.
    fn store_small(&mut self, found: &[Found]) -> Result<()> {
        let chunks = found.iter().flat_map(|found| match found {
            Found::Small { chunks, ids, .. } => ids.iter().copied().zip(chunks.chunks()).collect(),
            _ => Vec::new(),
        });
        self.component.put_chunks(chunks)
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

    fn large(&mut self, name: Vec<u8>, directory: &OwnedFd, path: &Path, is_new: bool) -> Result<()> {
        for attempt in 1.. {
            let opened = posix::open_file_at(directory, OsStr::from_bytes(&name))
                .and_then(|file| Ok((posix::inspect_open(&file, &self.look.owners)?, file)));
            let (inspected, file) = match opened {
                Ok(opened) => opened,
                Err(cause) => return self.unreadable(path, &cause),
            };
            let content = match self.component.put_file(&file, &inspected) {
                Ok(Ok(content)) => content,
                Ok(Err(cause)) => return self.unreadable(path, &cause),
                Err(error) => return Err(error),
            };
            let held_still = posix::state_of(&file).is_ok_and(|state| posix::same_state(&inspected, &state));
            if held_still || attempt == ATTEMPTS {
                self.count_file(is_new, (!held_still).then_some(path));
                self.push(file_entry(name, content, inspected.metadata, !held_still));
                return Ok(());
            }
        }
        Ok(())
    }

    fn unreadable(&mut self, path: &Path, cause: &io::Error) -> Result<()> {
        self.group(vec![unreadable(path, cause)])
    }
}

fn file_entry(name: Vec<u8>, content: super::Content, metadata: Metadata, changed: bool) -> Entry {
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
