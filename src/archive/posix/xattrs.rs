//! Extended attributes, POSIX ACLs (`system.posix_acl_access`, `system.posix_acl_default`) and capabilities
//! (`security.capability`) among them.
//!
//! Linux has no xattr call that takes a directory and a name before 6.13, and full paths fail on trees deeper than
//! `PATH_MAX`. `/proc/self/fd/N/NAME` says the same with a short path, and `l…xattr` does not follow a link in its last
//! name. Where `/proc` is not mounted, files and directories are opened instead.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use crate::archive::entry::{XATTR_COUNT_MAX, XATTR_NAME_LEN_MAX, XATTR_VALUE_LEN_MAX};
use crate::archive::path::escape;

/// Names with values.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// First size that is tried for lists and values: enough for nearly all, so that one call does.
const BUFFER_LEN: usize = 1024;

/// A file whose attributes are wanted, however it can be named.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// By path; a symbolic link is not followed.
    Path(&'a Path),
    /// An open file or directory.
    Open(BorrowedFd<'a>),
    /// `/proc/self/fd/N/NAME`
    Short(&'a [u8]),
}

/// The short path of `name` in `dir`.
pub(super) fn short_path(dir: BorrowedFd<'_>, name: &OsStr) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    path
}

/// Opens `name` for its attributes; only files and directories can be opened without side effects.
pub(super) fn open_quietly(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

impl Place<'_> {
    fn list_into(self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Path(path) => rustix::fs::llistxattr(path, buffer),
            Self::Open(fd) => rustix::fs::flistxattr(fd, buffer),
            Self::Short(path) => rustix::fs::llistxattr(path, buffer),
        }
    }

    fn get_into(self, name: &[u8], buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Path(path) => rustix::fs::lgetxattr(path, name, buffer),
            Self::Open(fd) => rustix::fs::fgetxattr(fd, name, buffer),
            Self::Short(path) => rustix::fs::lgetxattr(path, name, buffer),
        }
    }

    pub(super) fn set(self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        let flags = XattrFlags::empty();
        match self {
            Self::Path(path) => rustix::fs::lsetxattr(path, name, value, flags),
            Self::Open(fd) => rustix::fs::fsetxattr(fd, name, value, flags),
            Self::Short(path) => rustix::fs::lsetxattr(path, name, value, flags),
        }
    }

    pub(super) fn remove(self, name: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Path(path) => rustix::fs::lremovexattr(path, name),
            Self::Open(fd) => rustix::fs::fremovexattr(fd, name),
            Self::Short(path) => rustix::fs::lremovexattr(path, name),
        }
    }
}

/// The attributes of `place`, sorted by name. What an entry can't hold or the system doesn't give is told in
/// `problems` and left out. A file system without attributes has none.
pub(super) fn read(place: Place<'_>, problems: &mut Vec<String>) -> Result<Xattrs, Errno> {
    let names = match grow(XATTR_COUNT_MAX * XATTR_NAME_LEN_MAX, |buffer| place.list_into(buffer)) {
        Ok(names) => names,
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
        Err(error @ (Errno::RANGE | Errno::TOOBIG)) => {
            problems.push(format!("extended attributes can't be listed: {error}"));
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut xattrs = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if xattrs.len() == XATTR_COUNT_MAX || name.len() > XATTR_NAME_LEN_MAX {
            problems.push(format!("extended attribute {} left out: too many or too long", escape(name)));
            continue;
        }
        match grow(XATTR_VALUE_LEN_MAX, |buffer| place.get_into(name, buffer)) {
            Ok(value) => xattrs.push((name.to_vec(), value)),
            // It went away meanwhile, or the file system lists what it doesn't keep.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => problems.push(format!("extended attribute {} left out: {error}", escape(name))),
        }
    }
    xattrs.sort_unstable();
    xattrs.dedup_by(|a, b| a.0 == b.0);
    Ok(xattrs)
}

/// Calls `fill` with a small buffer and, where that is too small, with one of `len_max`.
fn grow(len_max: usize, fill: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0u8; BUFFER_LEN];
    match fill(&mut small) {
        Ok(len) => Ok(small[..len].to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0u8; len_max];
            let len = fill(&mut large)?;
            large.truncate(len);
            large.shrink_to_fit();
            Ok(large)
        }
        Err(error) => Err(error),
    }
}

/// The attributes of `name` in `dir`.
pub(super) fn read_at(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    openable: bool,
    problems: &mut Vec<String>,
) -> io::Result<Xattrs> {
    match read(Place::Short(&short_path(dir, name)), problems) {
        // Either the file went away or /proc isn't there.
        Err(Errno::NOENT | Errno::NOTDIR) if openable => {
            let file = open_quietly(dir, name)?;
            Ok(read(Place::Open(file.as_fd()), problems)?)
        }
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(Vec::new()),
        other => Ok(other?),
    }
}
