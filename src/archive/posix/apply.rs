//! Gives files the owner, attributes, mode and times they had.
//!
//! The order matters: a change of owner clears set-user-id bits and capabilities, setting an ACL changes mode bits, and
//! a read-only mode forbids setting `user.*` attributes to all but root. So: owner, attributes (ACLs after the others),
//! mode, times. A file that could not be given to its owner must not run with somebody else's rights, so it loses its
//! set-user-id and set-group-id bits.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::xattrs::{self, Place, Xattrs};
use super::{can_be_opened, mtime, stat_at};
use crate::archive::entry::Time;
use crate::archive::path::escape;

/// What a file is to become; `None` leaves it as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// User and group.
    pub owner: Option<(u32, u32)>,
    /// Attributes, sorted by name. Superfluous ones are removed.
    pub xattrs: Option<&'a Xattrs>,
    /// The low 12 bits.
    pub mode: Option<u32>,
    /// Modification time.
    pub mtime: Option<Time>,
}

/// What could not be applied.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// The system doesn't let us give files away.
    pub owner: bool,
    /// Nor set attributes in `security.*` and `trusted.*`.
    pub privileged: bool,
    /// Everything else, in words.
    pub problems: Vec<String>,
}

/// Applies `wanted` to an open file or directory. What is right already isn't touched.
///
/// # Errors
/// When the system can't even tell what the file is like now.
pub fn apply_open(file: impl AsFd, wanted: &Wanted<'_>) -> io::Result<Refused> {
    let file = file.as_fd();
    let stat = rustix::fs::fstat(file)?;
    Ok(apply(&Subject::Open(file), &stat, wanted))
}

/// Applies `wanted` to `name` in `dir`, whatever kind of file it is. Symbolic links aren't followed.
///
/// # Errors
/// When the system can't even tell what the file is like now.
pub fn apply_at(dir: impl AsFd, name: &OsStr, wanted: &Wanted<'_>) -> io::Result<Refused> {
    let dir = dir.as_fd();
    let stat = stat_at(dir, name)?;
    Ok(apply(&Subject::Named(dir, name, xattrs::short_path(dir, name)), &stat, wanted))
}

/// Changes the mode of `name` in `dir` unless it is a symbolic link. `fchmodat` follows links, so the file is pinned
/// first.
///
/// # Errors
/// When it is a symbolic link, or the system refuses.
pub fn change_mode_at(dir: impl AsFd, name: &OsStr, mode: u32) -> io::Result<()> {
    let pinned = rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&pinned)?.st_mode) == FileType::Symlink {
        return Err(Errno::LOOP.into());
    }
    Ok(rustix::fs::chmod(format!("/proc/self/fd/{}", pinned.as_raw_fd()), Mode::from_raw_mode(mode))?)
}

enum Subject<'a> {
    Open(BorrowedFd<'a>),
    Named(BorrowedFd<'a>, &'a OsStr, Vec<u8>),
}

impl Subject<'_> {
    fn place(&self) -> Place<'_> {
        match self {
            Self::Open(file) => Place::Open(*file),
            Self::Named(_, _, short) => Place::Short(short),
        }
    }

    fn change_owner(&self, user: Option<u32>, group: Option<u32>) -> Result<(), Errno> {
        let (user, group) = (user.map(Uid::from_raw), group.map(Gid::from_raw));
        match self {
            Self::Open(file) => rustix::fs::fchown(file, user, group),
            Self::Named(dir, name, _) => rustix::fs::chownat(dir, *name, user, group, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    fn change_mode(&self, mode: u32) -> io::Result<()> {
        match self {
            Self::Open(file) => Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?),
            Self::Named(dir, name, _) => change_mode_at(dir, name, mode),
        }
    }

    fn change_mtime(&self, time: Time) -> Result<(), Errno> {
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
            last_modification: Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() },
        };
        match self {
            Self::Open(file) => rustix::fs::futimens(file, &times),
            Self::Named(dir, name, _) => rustix::fs::utimensat(dir, *name, &times, AtFlags::SYMLINK_NOFOLLOW),
        }
    }
}

fn apply(subject: &Subject<'_>, stat: &Stat, wanted: &Wanted<'_>) -> Refused {
    let mut refused = Refused::default();
    let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    let mut touched = apply_owner(subject, stat, wanted, &mut refused);
    if let Some(xattrs) = wanted.xattrs {
        touched |= apply_xattrs(subject, stat, xattrs, &mut refused);
    }
    if let Some(mode) = wanted.mode.filter(|_| !is_link) {
        let mode = if refused.owner { mode & 0o1777 } else { mode & 0o7777 };
        if touched || stat.st_mode & 0o7777 != mode {
            note(&mut refused, "mode", subject.change_mode(mode));
        }
    }
    if let Some(time) = wanted.mtime.filter(|time| *time != mtime(stat)) {
        note(&mut refused, "modification time", subject.change_mtime(time));
    }
    refused
}

fn note<E: std::fmt::Display>(refused: &mut Refused, what: &str, result: Result<(), E>) {
    if let Err(error) = result {
        refused.problems.push(format!("{what} not restored: {error}"));
    }
}

fn apply_owner(subject: &Subject<'_>, stat: &Stat, wanted: &Wanted<'_>, refused: &mut Refused) -> bool {
    let Some((user, group)) = wanted.owner else { return false };
    if (stat.st_uid, stat.st_gid) == (user, group) {
        return false;
    }
    match subject.change_owner(Some(user), Some(group)) {
        Ok(()) => true,
        // Not root, or ids that this user namespace lacks. The group alone may still be one of ours.
        Err(Errno::PERM | Errno::INVAL) => {
            refused.owner = true;
            stat.st_gid != group && subject.change_owner(None, Some(group)).is_ok()
        }
        Err(error) => {
            refused.owner = true;
            refused.problems.push(format!("owner not restored: {error}"));
            false
        }
    }
}

/// Whether an attribute that the snapshot lacks is removed. Labels of security modules and the like come with the file
/// system and not with the file.
fn is_superfluous(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_") || name == b"security.capability"
}

fn apply_xattrs(subject: &Subject<'_>, stat: &Stat, wanted: &Xattrs, refused: &mut Refused) -> bool {
    let place = subject.place();
    let present = match xattrs::read(place, &mut Vec::new()) {
        Ok(present) => present,
        // No /proc: nothing can be done by name.
        Err(Errno::NOENT | Errno::NOTDIR) => Xattrs::new(),
        Err(error) => {
            refused.problems.push(format!("extended attributes not restored: {error}"));
            return false;
        }
    };
    if present == *wanted {
        return false;
    }
    // Attributes can only be set on what is writable; the mode is set after them.
    if can_be_opened(stat) && stat.st_mode & 0o200 == 0 {
        let _ = subject.change_mode(stat.st_mode & 0o7777 | 0o600);
    }
    for (name, _) in &present {
        if is_superfluous(name) && !has(wanted, name) {
            note_xattr(refused, name, place.remove(name));
        }
    }
    let (acls, others): (Vec<_>, Vec<_>) = wanted.iter().partition(|(name, _)| name.starts_with(b"system."));
    for (name, value) in others.into_iter().chain(acls) {
        if !present.iter().any(|(n, v)| n == name && v == value) {
            note_xattr(refused, name, place.set(name, value));
        }
    }
    true
}

fn has(xattrs: &Xattrs, name: &[u8]) -> bool {
    xattrs.binary_search_by(|(present, _)| present.as_slice().cmp(name)).is_ok()
}

fn note_xattr(refused: &mut Refused, name: &[u8], result: Result<(), Errno>) {
    match result {
        Ok(()) => {}
        Err(Errno::PERM) if name.starts_with(b"security.") || name.starts_with(b"trusted.") => {
            refused.privileged = true;
        }
        Err(error) => {
            refused.problems.push(format!("extended attribute {} not restored: {error}", escape(name)));
        }
    }
}
