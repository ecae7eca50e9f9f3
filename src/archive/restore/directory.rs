//! Directories of the target while they are being filled.
//!
//! A directory is known by its parent and its name, not by a path: paths end at `PATH_MAX`, and a path can be bent by a
//! symbolic link. Descriptors are kept for the latest few directories only and opened again, name by name from the
//! target, when they are needed; so neither depth nor number of directories is limited by open files.
//!
//! A directory counts the tasks that still want to write into it (the walk itself, files, links, directories below).
//! Whoever ends the last one gives it its mode and times; nothing writes into it afterwards.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use rustix::fs::{AtFlags, FileType, Mode, Stat};

use crate::archive::entry::Metadata;
use crate::archive::posix;
use crate::pipeline::lock;

/// Most descriptors of directories that are kept open.
const OPEN_MAX: usize = 128;

/// Mode of a directory that is being filled. Nobody else looks into it, and the sticky bit, which says little for a
/// directory that only its owner can use, tells a later restore that one that was stopped made it.
pub(super) const UNFINISHED_MODE: u32 = 0o1700;

/// How a directory came to be in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Made {
    /// This restore made it, so there is nothing in it.
    pub new: bool,
    /// This restore or one that was stopped made it: its metadata is nobody's yet.
    pub ours: bool,
    /// Its mode before it was made accessible for the time of the restore.
    pub closed_mode: Option<u32>,
    /// The file system it is on.
    pub device: u64,
}

/// The directories whose descriptors are open, oldest first.
#[derive(Debug, Default)]
pub(super) struct OpenDirectories(Mutex<VecDeque<Arc<Directory>>>);

impl OpenDirectories {
    fn keep(&self, directory: &Arc<Directory>) {
        let mut kept = lock(&self.0);
        kept.push_back(Arc::clone(directory));
        let oldest = if kept.len() > OPEN_MAX { kept.pop_front() } else { None };
        drop(kept);
        if let Some(oldest) = oldest {
            lock(&oldest.fd).take();
        }
    }

    /// Breaks the ring of references between the directories and this list.
    pub fn close_all(&self) {
        let kept = std::mem::take(&mut *lock(&self.0));
        for directory in kept {
            lock(&directory.fd).take();
        }
    }
}

/// One directory of the target.
#[derive(Debug)]
pub(super) struct Directory {
    parent: Option<Arc<Directory>>,
    name: Vec<u8>,
    pub metadata: Metadata,
    pub made: OnceLock<Made>,
    tasks: AtomicUsize,
    fd: Mutex<Option<Arc<OwnedFd>>>,
    kept: Arc<OpenDirectories>,
}

impl Directory {
    /// The target itself, open.
    pub fn root(fd: OwnedFd, metadata: Metadata, new: bool) -> io::Result<Arc<Self>> {
        let stat = rustix::fs::fstat(&fd)?;
        let ours = new || is_unfinished(&stat);
        Ok(Arc::new(Self {
            parent: None,
            name: Vec::new(),
            metadata,
            made: OnceLock::from(Made { new, ours, closed_mode: None, device: stat.st_dev }),
            tasks: AtomicUsize::new(1),
            fd: Mutex::new(Some(Arc::new(fd))),
            kept: Arc::default(),
        }))
    }

    /// A directory below `parent` that the target may or may not have; it holds its parent open for changes until its
    /// own tasks have ended. The caller owns the first task.
    pub fn below(parent: &Arc<Self>, name: Vec<u8>, metadata: Metadata) -> Arc<Self> {
        parent.begin_task();
        Arc::new(Self {
            parent: Some(Arc::clone(parent)),
            name,
            metadata,
            made: OnceLock::new(),
            tasks: AtomicUsize::new(1),
            fd: Mutex::new(None),
            kept: Arc::clone(&parent.kept),
        })
    }

    pub fn parent(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref()
    }

    pub fn name(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }

    /// One more that wants to write into it.
    pub fn begin_task(&self) {
        self.tasks.fetch_add(1, Ordering::Relaxed);
    }

    /// One less. True for the last.
    pub fn end_task(&self) -> bool {
        self.tasks.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Path below the target, of `name` in this directory or, for `.`, of this directory.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut names = Vec::new();
        if name != b"." || self.parent.is_none() {
            names.push(name);
        }
        let mut at = self;
        while let Some(parent) = &at.parent {
            names.push(&at.name);
            at = parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    fn open_fd(&self) -> Option<Arc<OwnedFd>> {
        lock(&self.fd).clone()
    }

    /// Its descriptor, opened again if it was closed meanwhile. Never through a symbolic link.
    pub fn open(self: &Arc<Self>) -> io::Result<Arc<OwnedFd>> {
        if let Some(fd) = self.open_fd() {
            return Ok(fd);
        }
        let mut closed = vec![self];
        let mut at = self;
        let mut fd = loop {
            let parent = at.parent.as_ref().ok_or(io::ErrorKind::NotFound)?;
            if let Some(fd) = parent.open_fd() {
                break fd;
            }
            closed.push(parent);
            at = parent;
        };
        for directory in closed.into_iter().rev() {
            fd = Arc::new(posix::open_directory_at(&*fd, directory.name())?);
            directory.remember(&fd);
        }
        Ok(fd)
    }

    fn remember(self: &Arc<Self>, fd: &Arc<OwnedFd>) {
        if lock(&self.fd).replace(Arc::clone(fd)).is_none() {
            self.kept.keep(self);
        }
    }

    /// Closes its descriptor, and for the target those of all below it.
    pub fn close(&self) {
        if self.parent.is_some() {
            lock(&self.fd).take();
        } else {
            self.kept.close_all();
        }
    }

    /// Makes it, and those above it that aren't there yet, or opens what is there. What is in the way is removed if
    /// `replace` says so.
    pub fn make(self: &Arc<Self>, replace: bool) -> io::Result<Made> {
        let mut missing = Vec::new();
        let mut at = self;
        while at.made.get().is_none() {
            missing.push(at);
            at = at.parent.as_ref().ok_or(io::ErrorKind::NotFound)?;
        }
        for directory in missing.into_iter().rev() {
            let parent = directory.parent.as_ref().ok_or(io::ErrorKind::NotFound)?.open()?;
            let (fd, made) = make_one(parent.as_fd(), directory.name(), replace)?;
            directory.remember(&Arc::new(fd));
            // Only the walk makes directories, so nobody was faster.
            let _ = directory.made.set(made);
        }
        self.made.get().copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Deep trees must not be dropped by recursion.
impl Drop for Directory {
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(parent) = next {
            next = Arc::into_inner(parent).and_then(|mut parent| parent.parent.take());
        }
    }
}

fn make_one(parent: BorrowedFd<'_>, name: &OsStr, replace: bool) -> io::Result<(OwnedFd, Made)> {
    let mut new = create(parent, name)?;
    let mut closed_mode = None;
    if !new {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            closed_mode = open_up(parent, name, &stat)?;
        } else if replace {
            rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
            new = create(parent, name)?;
        } else {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "something else is in its place"));
        }
    }
    let fd = posix::open_directory_at(parent, name)?;
    let stat = rustix::fs::fstat(&fd)?;
    let made = Made { new, ours: new || is_unfinished(&stat), closed_mode, device: stat.st_dev };
    Ok((fd, made))
}

fn is_unfinished(stat: &Stat) -> bool {
    stat.st_mode & 0o7777 == UNFINISHED_MODE && stat.st_uid == rustix::process::geteuid().as_raw()
}

/// False if there is something already.
fn create(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<bool> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(UNFINISHED_MODE)) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Lets its owner, if that is us and not root, write into a directory; the mode it had is returned.
fn open_up(parent: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> io::Result<Option<u32>> {
    let (us, mode) = (rustix::process::geteuid(), stat.st_mode & 0o7777);
    if mode & 0o700 == 0o700 || us.is_root() || us.as_raw() != stat.st_uid {
        return Ok(None);
    }
    posix::change_mode_at(parent, name, mode | 0o700)?;
    Ok(Some(mode))
}
