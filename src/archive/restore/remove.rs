//! Removes what the snapshot lacks. Never through a symbolic link, never from another file system, and nothing that the
//! patterns leave out.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Stat};

use super::directory::Directory;
use super::engine::{Engine, stops};
use super::select::{Selected, select};
use crate::archive::entry::Metadata;
use crate::archive::posix;
use crate::archive::tree::Tree;
use crate::error::Result;

/// A directory that is being emptied.
struct Frame {
    directory: Arc<Directory>,
    names: std::vec::IntoIter<OsString>,
    inside: bool,
    /// It goes itself when nothing in it stays.
    goes: bool,
}

/// Removes from `directory` every selected name that `tree` lacks, with all that is below it.
pub(super) fn remove_missing(engine: &Engine<'_>, directory: &Arc<Directory>, tree: &Tree, inside: bool) -> Result<()> {
    let names = match directory.open().and_then(|fd| posix::list_names(&*fd)) {
        Ok(names) => names,
        Err(error) => return engine.failed(directory, b".", "can't be listed, nothing is removed from it", error),
    };
    for name in names {
        if tree.get(name.as_bytes()).is_none() {
            remove(engine, directory, &name, inside)?;
        }
    }
    Ok(())
}

/// Removes `name`, whatever it is, as far as it is selected. True when it is gone.
pub(super) fn remove(
    engine: &Engine<'_>,
    directory: &Arc<Directory>,
    name: &std::ffi::OsStr,
    inside: bool,
) -> Result<bool> {
    let mut frames: Vec<Frame> = Vec::new();
    let Some(frame) = visit(engine, directory, name, inside)? else {
        return Ok(directory.open().and_then(|fd| exists(&fd, name)).is_ok_and(|there| !there));
    };
    frames.push(frame);
    let mut gone = false;
    while let Some(frame) = frames.last_mut() {
        engine.context.go_on()?;
        if let Some(name) = frame.names.next() {
            let (directory, inside) = (Arc::clone(&frame.directory), frame.inside);
            frames.extend(visit(engine, &directory, &name, inside)?);
        } else if let Some(frame) = frames.pop() {
            gone = leave(engine, &frame)?;
        }
    }
    Ok(gone)
}

fn exists(directory: &Arc<std::os::fd::OwnedFd>, name: &std::ffi::OsStr) -> io::Result<bool> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Removes a file, or opens a directory that is to be emptied.
fn visit(
    engine: &Engine<'_>,
    directory: &Arc<Directory>,
    name: &std::ffi::OsStr,
    inside: bool,
) -> Result<Option<Frame>> {
    let selected = select(engine.options, directory, name.as_bytes(), inside);
    if selected == Selected::No {
        return Ok(None);
    }
    match try_visit(engine, directory, name, selected, inside) {
        Ok(frame) => Ok(frame),
        Err(error) => engine.failed(directory, name.as_bytes(), "not removed", error).map(|()| None),
    }
}

fn try_visit(
    engine: &Engine<'_>,
    directory: &Arc<Directory>,
    name: &std::ffi::OsStr,
    selected: Selected,
    inside: bool,
) -> io::Result<Option<Frame>> {
    let fd = directory.open()?;
    let stat: Stat = rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let goes = selected == Selected::Yes;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        if goes {
            rustix::fs::unlinkat(&fd, name, AtFlags::empty())?;
            engine.count_deleted();
        }
        return Ok(None);
    }
    let child = Directory::below(directory, name.as_bytes().to_vec(), Metadata::default());
    let listed = child.make(false).and_then(|made| {
        if directory.made.get().is_some_and(|parent| parent.device != made.device) {
            return Err(io::Error::new(io::ErrorKind::CrossesDevices, "another file system is mounted there"));
        }
        posix::list_names(&*child.open()?)
    });
    let names = match listed {
        Ok(names) => names.into_iter(),
        Err(error) => {
            directory.end_task();
            return Err(error);
        }
    };
    Ok(Some(Frame { directory: child, names, inside: inside || goes && engine.options.include.is_some(), goes }))
}

/// Removes a directory that was emptied. One in which something stays, stays.
fn leave(engine: &Engine<'_>, frame: &Frame) -> Result<bool> {
    let directory = &frame.directory;
    directory.close();
    let Some(parent) = directory.parent() else { return Ok(false) };
    // Nothing below it writes any more; it isn't ended like one that was restored.
    parent.end_task();
    if !frame.goes {
        return Ok(false);
    }
    let removed = parent.open().and_then(|fd| Ok(rustix::fs::unlinkat(&fd, directory.name(), AtFlags::REMOVEDIR)?));
    match removed {
        Ok(()) => {
            engine.count_deleted();
            Ok(true)
        }
        // What stays in it was left out by a pattern, or is a problem that was told already.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && !stops(&error) => Ok(false),
        Err(error) => {
            engine.failed(parent, directory.name().as_bytes(), "not removed", error)?;
            Ok(false)
        }
    }
}
