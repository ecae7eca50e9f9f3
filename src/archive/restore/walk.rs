//! Goes through the trees, makes directories, decides about every name, and fills batches with the pieces of files.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::batch::Batch;
use super::decide::{Decision, Present, decide, has_several_names};
use super::directory::{Directory, UNFINISHED_MODE};
use super::engine::{Engine, is_local};
use super::file::{FileJob, FilePlan, Way};
use super::link::{First, FirstState, Link};
use super::pieces::Pieces;
use super::remove::{remove, remove_missing};
use super::select::{Selected, select};
use super::{Overwrite, special};
use crate::archive::entry::{Content, Entry, EntryKind, Metadata};
use crate::archive::posix;
use crate::archive::tree::Tree;
use crate::error::{Error, Result};
use crate::pipeline;

/// A directory whose entries are being gone through. It is a task of the directory.
struct Frame {
    directory: Arc<Directory>,
    entries: std::vec::IntoIter<Entry>,
    /// A pattern included this directory or one above it.
    inside: bool,
}

struct Walk<'e, 'a> {
    engine: &'e Engine<'a>,
    frames: Vec<Frame>,
    /// The file whose pieces go into the batch at present.
    current: Option<(Arc<FileJob>, Pieces)>,
    /// A file that was taken apart, for the batch.
    apart: Option<(Arc<FileJob>, Content)>,
    firsts: HashMap<(u64, u64), Arc<First>>,
    waiting: Vec<Link>,
    ready: VecDeque<Link>,
}

/// Restores `root` into `target`.
pub(super) fn run(engine: &Engine<'_>, root: &Entry, target: &Path) -> Result<()> {
    let directory = open_target(root, target)?;
    let walked = Walk::start(engine, root, &directory).and_then(Walk::finish);
    directory.close();
    walked
}

fn open_target(root: &Entry, target: &Path) -> Result<Arc<Directory>> {
    let metadata = if root.is_directory() { root.metadata.clone() } else { Metadata::default() };
    make_target(target)
        .and_then(|(fd, new)| Directory::root(fd, metadata, new))
        .map_err(|error| Error::io(format!("Can't open the target {}", target.display()), error))
}

fn make_target(target: &Path) -> io::Result<(OwnedFd, bool)> {
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let new = match std::fs::DirBuilder::new().mode(UNFINISHED_MODE).create(target) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error),
    };
    Ok((posix::open_directory(target)?, new))
}

impl<'e, 'a> Walk<'e, 'a> {
    fn start(engine: &'e Engine<'a>, root: &Entry, directory: &Arc<Directory>) -> Result<Self> {
        let mut walk = Self {
            engine,
            frames: Vec::new(),
            current: None,
            apart: None,
            firsts: HashMap::new(),
            waiting: Vec::new(),
            ready: VecDeque::new(),
        };
        if let EntryKind::Directory(content) = &root.kind {
            walk.enter(Arc::clone(directory), content, false)?;
        } else {
            let entries = vec![root.clone()].into_iter();
            walk.frames.push(Frame { directory: Arc::clone(directory), entries, inside: false });
        }
        Ok(walk)
    }

    /// While a batch is fetched, the next one is filled.
    fn finish(mut self) -> Result<()> {
        let mut batch = self.fill()?;
        while !self.is_done() || !batch.is_empty() {
            let engine = self.engine;
            let (fetched, next) = pipeline::both(|| engine.fetch(&batch), || self.fill());
            fetched?;
            batch = next?;
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.frames.is_empty()
            && self.current.is_none()
            && self.apart.is_none()
            && self.waiting.is_empty()
            && self.ready.is_empty()
    }

    fn fill(&mut self) -> Result<Batch> {
        let mut batch = Batch::default();
        self.wake_links();
        while !batch.is_full() {
            self.engine.context.go_on()?;
            if let Some((job, content)) = self.apart.take() {
                batch.push_apart(job, content);
            } else if self.current.is_some() {
                self.take_pieces(&mut batch)?;
            } else if let Some(link) = self.ready.pop_front() {
                self.follow(link)?;
            } else if let Some(frame) = self.frames.last_mut() {
                let (directory, inside) = (Arc::clone(&frame.directory), frame.inside);
                if let Some(entry) = frame.entries.next() {
                    self.visit(&directory, entry, inside)?;
                } else {
                    self.frames.pop();
                    self.engine.end_task(&directory);
                }
            } else {
                break;
            }
        }
        Ok(batch)
    }

    fn take_pieces(&mut self, batch: &mut Batch) -> Result<()> {
        let Some((job, mut pieces)) = self.current.take() else { return Ok(()) };
        while !batch.is_full() {
            match pieces.next(self.engine.chunks) {
                None => return self.engine.end_piece(&job),
                Some(Ok((offset, piece))) if piece.is_hole() => {
                    if let Err(error) = job.put_hole(offset, piece.len) {
                        self.engine.fail(&job, &error)?;
                    }
                }
                Some(Ok((offset, piece))) => batch.push(&piece, offset, &job),
                Some(Err((len, error))) if is_local(&error) => job.lose(len),
                Some(Err((_, error))) => return Err(error),
            }
        }
        self.current = Some((job, pieces));
        Ok(())
    }

    fn visit(&mut self, directory: &Arc<Directory>, entry: Entry, inside: bool) -> Result<()> {
        let selected = select(self.engine.options, directory, &entry.name, inside);
        let inside = inside || selected == Selected::Yes && self.engine.options.include.is_some();
        match (&entry.kind, selected) {
            (_, Selected::No) => Ok(()),
            (EntryKind::Directory(content), _) => {
                let child = Directory::below(directory, entry.name.clone(), entry.metadata.clone());
                if selected == Selected::Yes && !self.make(&child)? {
                    self.engine.end_task(&child);
                    return Ok(());
                }
                self.enter(child, content, inside)
            }
            (_, Selected::Below) => Ok(()),
            (_, Selected::Yes) => self.visit_file(directory, entry),
        }
    }

    /// Makes a directory; false, and a problem, when that can't be done.
    fn make(&self, directory: &Arc<Directory>) -> Result<bool> {
        if directory.made.get().is_some() {
            return Ok(true);
        }
        match directory.make(self.engine.options.overwrite != Overwrite::Never) {
            Ok(_) => {
                self.engine.count_directory();
                Ok(true)
            }
            Err(error) => {
                let what = "the directory can't be made, nothing below it is restored";
                self.engine.failed(directory, b".", what, error).map(|()| false)
            }
        }
    }

    /// Begins with the entries of a directory, whose task the caller hands over.
    fn enter(&mut self, directory: Arc<Directory>, content: &Content, inside: bool) -> Result<()> {
        let tree = match self.engine.trees.tree(content) {
            Ok(tree) => tree,
            Err(error) if is_local(&error) => {
                let message = format!("what is in this directory can't be read: {}", error.chain());
                self.engine.problem(&directory, b".", message);
                self.engine.end_task(&directory);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if self.engine.options.delete && directory.made.get().is_some_and(|made| !made.new) {
            remove_missing(self.engine, &directory, &tree, inside)?;
        }
        let Tree { entries } = tree;
        self.frames.push(Frame { directory, entries: entries.into_iter(), inside });
        Ok(())
    }

    fn visit_file(&mut self, directory: &Arc<Directory>, entry: Entry) -> Result<()> {
        if entry.kind == EntryKind::Socket {
            let subject = self.engine.subject(directory, &entry.name);
            self.engine
                .context
                .observer
                .detail(&format!("{subject}: sockets aren't restored, their servers make them"));
            return Ok(());
        }
        if !self.make(directory)? {
            return Ok(());
        }
        if !has_several_names(&entry.metadata) {
            return self.write(directory, entry, None);
        }
        let key = (entry.metadata.device, entry.metadata.inode);
        if let Some(first) = self.firsts.get(&key) {
            directory.begin_task();
            let link = Link { directory: Arc::clone(directory), entry, first: Arc::clone(first) };
            self.waiting.push(link);
            return Ok(());
        }
        let first = First::new(directory, &entry.name);
        self.firsts.insert(key, Arc::clone(&first));
        self.write(directory, entry, Some(first))
    }

    /// Brings one name that isn't a directory into the target, content and all.
    fn write(&mut self, directory: &Arc<Directory>, entry: Entry, first: Option<Arc<First>>) -> Result<()> {
        let name = entry.name.clone();
        let settle = first.clone();
        let begun = self.try_write(directory, entry, first);
        if let Some(first) = settle.filter(|_| !matches!(begun, Ok(Begun::Later))) {
            first.settle(matches!(begun, Ok(Begun::Whole)));
        }
        match begun {
            Ok(_) => Ok(()),
            Err(WriteError::Target(error)) => self.engine.failed(directory, &name, "not restored", error),
            Err(WriteError::Stop(error)) => Err(error),
        }
    }

    fn try_write(
        &mut self,
        directory: &Arc<Directory>,
        entry: Entry,
        first: Option<Arc<First>>,
    ) -> Result<Begun, WriteError> {
        let engine = self.engine;
        let fd = directory.open()?;
        let wanted = engine.wanted(&entry.metadata);
        match self.decide(directory, &fd, &entry)? {
            Decision::Keep { same } => {
                engine.count_kept();
                Ok(if same { Begun::Whole } else { Begun::Not })
            }
            Decision::Right => {
                let refused = posix::apply_at(&*fd, std::ffi::OsStr::from_bytes(&entry.name), &wanted);
                engine.note(directory, &entry.name, refused);
                engine.count_right();
                Ok(Begun::Whole)
            }
            Decision::RemoveDirectory => Err(not_empty().into()),
            Decision::Write(way) if matches!(entry.kind, EntryKind::File(_)) => {
                self.begin_file(directory, entry, way, first);
                Ok(Begun::Later)
            }
            Decision::Write(way) => {
                let refused = special::make(fd.as_fd(), &entry, way, &wanted)?;
                engine.note(directory, &entry.name, Ok(refused));
                engine.count_restored();
                Ok(Begun::Whole)
            }
        }
    }

    fn decide(&self, directory: &Arc<Directory>, fd: &OwnedFd, entry: &Entry) -> Result<Decision, WriteError> {
        let engine = self.engine;
        let owner = engine.owner_uid(&entry.metadata);
        let present = look(directory, fd, &entry.name)?;
        let decision = decide(engine.policy, entry, owner, present.as_ref());
        if decision != Decision::RemoveDirectory {
            return Ok(decision);
        }
        self.remove_directory(directory, fd, &entry.name)?;
        Ok(decide(engine.policy, entry, owner, None))
    }

    /// A directory stands where something else should be. An empty one goes; a full one only when the snapshot's state
    /// was asked for with `delete`.
    fn remove_directory(&self, directory: &Arc<Directory>, fd: &OwnedFd, name: &[u8]) -> Result<(), WriteError> {
        let os_name = std::ffi::OsStr::from_bytes(name);
        match rustix::fs::unlinkat(fd, os_name, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) if self.engine.options.delete => {
                let inside = self.frames.last().is_some_and(|frame| frame.inside);
                if remove(self.engine, directory, os_name, inside)? { Ok(()) } else { Err(not_empty().into()) }
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) => Err(not_empty().into()),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    fn begin_file(&mut self, directory: &Arc<Directory>, entry: Entry, way: Way, first: Option<Arc<First>>) {
        let Entry { name, kind, metadata, changed_while_read } = entry;
        let EntryKind::File(content) = kind else { return };
        let one_chunk = content.depth == 0 && matches!(content.pieces.as_slice(), [piece] if !piece.is_hole());
        directory.begin_task();
        let plan = FilePlan {
            directory: Arc::clone(directory),
            name,
            metadata,
            len: content.len,
            way,
            presize: !one_chunk && content.len > 0,
            first,
            changed_while_read,
        };
        let options = self.engine.options;
        let job = FileJob::new(plan, options.sparse, options.verify, &self.engine.open_files);
        if content.reflated.is_some() {
            self.apart = Some((job, content));
        } else {
            self.current = Some((job, Pieces::new(content)));
        }
    }

    fn wake_links(&mut self) {
        let (waiting, ready): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|link| link.first.state() == FirstState::Pending);
        self.waiting = waiting;
        self.ready.extend(ready);
    }

    /// Gives a file its further name. If that can't be, the name gets the content itself.
    fn follow(&mut self, link: Link) -> Result<()> {
        let Link { directory, entry, first } = link;
        match first.state() {
            FirstState::Pending => {
                self.waiting.push(Link { directory, entry, first });
                return Ok(());
            }
            FirstState::Unusable => self.begin_again(&directory, entry, &first)?,
            FirstState::Whole => match self.link(&directory, &entry, &first) {
                Ok(()) => {}
                Err(WriteError::Stop(error)) => return Err(error),
                Err(WriteError::Target(error)) => {
                    let what = "no hard link can be made, so it becomes a file of its own";
                    self.engine.failed(&directory, &entry.name, what, error)?;
                    self.write(&directory, entry, None)?;
                }
            },
        }
        self.engine.end_task(&directory);
        Ok(())
    }

    /// The first name came to nothing. This one takes its place, unless another one has done so.
    fn begin_again(&mut self, directory: &Arc<Directory>, entry: Entry, failed: &Arc<First>) -> Result<()> {
        let key = (entry.metadata.device, entry.metadata.inode);
        match self.firsts.get(&key) {
            Some(first) if !Arc::ptr_eq(first, failed) => {
                directory.begin_task();
                self.waiting.push(Link { directory: Arc::clone(directory), entry, first: Arc::clone(first) });
                Ok(())
            }
            _ => {
                let first = First::new(directory, &entry.name);
                self.firsts.insert(key, Arc::clone(&first));
                self.write(directory, entry, Some(first))
            }
        }
    }

    fn link(&self, directory: &Arc<Directory>, entry: &Entry, first: &First) -> Result<(), WriteError> {
        let (fd, first_fd) = (directory.open()?, first.directory.open()?);
        let found = look(directory, &fd, &entry.name)?;
        let way = match found {
            None => Way::Fresh,
            Some(present) => {
                let original = rustix::fs::statat(&first_fd, first.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW);
                let original = original.map_err(io::Error::from)?;
                if (original.st_dev, original.st_ino) == (present.device, present.inode) {
                    self.engine.count_right();
                    return Ok(());
                }
                let keep = match self.engine.options.overwrite {
                    Overwrite::Never => true,
                    Overwrite::IfNewer => entry.metadata.mtime <= present.mtime,
                    Overwrite::Always | Overwrite::IfChanged => false,
                };
                if keep {
                    self.engine.count_kept();
                    return Ok(());
                }
                if present.file_type == FileType::Directory {
                    self.remove_directory(directory, &fd, &entry.name)?;
                }
                Way::Replace
            }
        };
        special::link((first_fd.as_fd(), &first.name), fd.as_fd(), &entry.name, way)?;
        self.engine.count_restored();
        Ok(())
    }
}

/// How far a name got at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    /// It is what it should be.
    Whole,
    /// Its content is still to come.
    Later,
    /// It stays what it was.
    Not,
}

/// Why a name could not be written: a problem of that name, or the end.
enum WriteError {
    Target(io::Error),
    Stop(Error),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Target(error)
    }
}

impl From<Error> for WriteError {
    fn from(error: Error) -> Self {
        Self::Stop(error)
    }
}

fn not_empty() -> io::Error {
    io::Error::new(io::ErrorKind::DirectoryNotEmpty, "a directory that is not empty is in its place")
}

/// What the target has under `name`. A directory that was just made is empty: nobody is asked.
fn look(directory: &Directory, fd: &OwnedFd, name: &[u8]) -> io::Result<Option<Present>> {
    if directory.made.get().is_some_and(|made| made.new) {
        return Ok(None);
    }
    let stat = match rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let target = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => rustix::fs::readlinkat(fd, name, Vec::new())?.into_bytes(),
        _ => Vec::new(),
    };
    Ok(Some(Present::new(&stat, target)))
}
