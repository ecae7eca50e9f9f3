//! Symbolic links, pipes and devices: everything that is made by one call.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::file::{Way, temporary_name};
use crate::archive::entry::{Entry, EntryKind};
use crate::archive::posix::{self, Refused, Wanted};

/// Makes the special file `entry` in `directory` and gives it its metadata.
pub(super) fn make(directory: BorrowedFd<'_>, entry: &Entry, way: Way, wanted: &Wanted<'_>) -> io::Result<Refused> {
    place(directory, &entry.name, way, |directory, name| {
        create(directory, name, &entry.kind)?;
        posix::apply_at(directory, name, wanted)
    })
}

/// Makes one more name for a file that there is.
pub(super) fn link(from: (BorrowedFd<'_>, &[u8]), directory: BorrowedFd<'_>, name: &[u8], way: Way) -> io::Result<()> {
    let (from_directory, from_name) = (from.0, OsStr::from_bytes(from.1));
    place(directory, name, way, |directory, name| {
        Ok(rustix::fs::linkat(from_directory, from_name, directory, name, AtFlags::empty())?)
    })
}

/// Calls `create` with the final name, or with a temporary one that then replaces what is there.
fn place<T>(
    directory: BorrowedFd<'_>,
    name: &[u8],
    way: Way,
    create: impl Fn(BorrowedFd<'_>, &OsStr) -> io::Result<T>,
) -> io::Result<T> {
    if way == Way::Fresh {
        return create(directory, OsStr::from_bytes(name));
    }
    let temporary = temporary_name(name);
    let temporary = OsStr::from_bytes(&temporary);
    match rustix::fs::unlinkat(directory, temporary, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let made = create(directory, temporary)
        .and_then(|made| Ok(rustix::fs::renameat(directory, temporary, directory, name).map(|()| made)?));
    if made.is_err() {
        let _ = rustix::fs::unlinkat(directory, temporary, AtFlags::empty());
    }
    made
}

fn create(directory: BorrowedFd<'_>, name: &OsStr, kind: &EntryKind) -> io::Result<()> {
    let mode = Mode::RUSR | Mode::WUSR;
    let device = |major: u32, minor: u32| rustix::fs::makedev(major, minor);
    let (file_type, device) = match kind {
        EntryKind::Symlink(target) => return Ok(rustix::fs::symlinkat(target.as_slice(), directory, name)?),
        EntryKind::Fifo => (FileType::Fifo, 0),
        EntryKind::CharDevice(major, minor) => (FileType::CharacterDevice, device(*major, *minor)),
        EntryKind::BlockDevice(major, minor) => (FileType::BlockDevice, device(*major, *minor)),
        EntryKind::File(_) | EntryKind::Directory(_) | EntryKind::Socket => {
            return Err(io::ErrorKind::Unsupported.into());
        }
    };
    Ok(rustix::fs::mknodat(directory, name, file_type, mode, device)?)
}
