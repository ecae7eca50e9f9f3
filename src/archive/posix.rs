//! What the file system tells of a file, read and written.
//!
//! Reading ([`inspect_at`] and friends) costs one `lstat` and one `llistxattr` for an ordinary file, allocates little,
//! follows no symbolic link and may be called from any thread; [`see_at`] asks for the rest only where the `stat` differs from
//! an older entry. Writing ([`apply_open`], [`apply_at`]) is for `restore`.
//!
//! Every function has a form that takes an open directory and one name. Use it when walking: a tree may be deeper than
//! any path the system accepts (60 names of 255 bytes are 15 KiB, `PATH_MAX` is 4 KiB), and only names below an open
//! directory are safe from a directory being swapped for a symbolic link meanwhile. A walk goes
//! [`open_directory`] → [`list_names`] → [`inspect_at`] → [`open_directory_at`] or [`open_file_at`].

mod apply;
mod owners;
mod xattrs;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

pub use apply::{Refused, Wanted, apply_at, apply_open, change_mode_at};
pub use owners::Owners;
pub use xattrs::Xattrs;

use super::entry::{Entry, EntryKind, Metadata, Time};
use super::fields::Fields;

/// What a name stands for, with what only that kind has. Like [`EntryKind`] before there is content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundKind {
    /// A regular file.
    File {
        /// Length in bytes.
        len: u64,
        /// It occupies less than its length: ask [`holes`].
        sparse: bool,
    },
    /// A directory.
    Directory,
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device: major and minor number.
    CharDevice(u32, u32),
    /// A block device: major and minor number.
    BlockDevice(u32, u32),
}

/// All that is known of a file without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// What it is.
    pub kind: FoundKind,
    /// The rest.
    pub metadata: Metadata,
    /// What could not be read of it, in words: extended attributes that are refused or too long.
    pub problems: Vec<String>,
}

/// Inspects `path`. A symbolic link is inspected itself.
///
/// # Errors
/// When the system can't tell.
pub fn inspect(path: &Path, owners: &Owners) -> io::Result<Inspected> {
    let stat = rustix::fs::lstat(path)?;
    let target = link_target(&stat, |buffer| rustix::fs::readlink(path, buffer))?;
    let mut problems = Vec::new();
    let found = xattrs::read(xattrs::Place::Path(path), &mut problems)?;
    describe(&stat, target, found, problems, owners)
}

/// Inspects `name` in the open directory `dir`. A symbolic link is inspected itself.
///
/// # Errors
/// When the system can't tell.
pub fn inspect_at(dir: impl AsFd, name: &OsStr, owners: &Owners) -> io::Result<Inspected> {
    let dir = dir.as_fd();
    let stat = stat_at(dir, name)?;
    inspect_stat_at(dir, name, &stat, owners)
}

fn inspect_stat_at(dir: BorrowedFd<'_>, name: &OsStr, stat: &Stat, owners: &Owners) -> io::Result<Inspected> {
    let target = link_target(stat, |buffer| rustix::fs::readlinkat(dir, name, buffer))?;
    let mut problems = Vec::new();
    let found = xattrs::read_at(dir, name, can_be_opened(stat), &mut problems)?;
    describe(stat, target, found, problems, owners)
}

/// Inspects an open file or directory. Compare two of these, before and after reading, with [`same_state`] to see
/// whether the file changed while it was read.
///
/// # Errors
/// When the system can't tell.
pub fn inspect_open(file: impl AsFd, owners: &Owners) -> io::Result<Inspected> {
    let file = file.as_fd();
    let stat = rustix::fs::fstat(file)?;
    inspect_stat_open(file, &stat, owners)
}

fn inspect_stat_open(file: BorrowedFd<'_>, stat: &Stat, owners: &Owners) -> io::Result<Inspected> {
    let mut problems = Vec::new();
    let found = xattrs::read(xattrs::Place::Open(file), &mut problems)?;
    describe(stat, Vec::new(), found, problems, owners)
}

/// A second look at something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// An inspection would tell what the older entry tells.
    Same,
    /// It has to be compared.
    Other(Box<Inspected>),
}

/// Inspects `name` in `dir`, unless one `stat` shows that it is as `old` says.
///
/// # Errors
/// When the system can't tell.
pub fn see_at(dir: impl AsFd, name: &OsStr, old: Option<&Entry>, owners: &Owners) -> io::Result<Seen> {
    let dir = dir.as_fd();
    let stat = stat_at(dir, name)?;
    if old.is_some_and(|old| is_same(old, &stat, owners)) {
        return Ok(Seen::Same);
    }
    inspect_stat_at(dir, name, &stat, owners).map(|inspected| Seen::Other(Box::new(inspected)))
}

/// The same for an open directory or file.
///
/// # Errors
/// When the system can't tell.
pub fn see_open(file: impl AsFd, old: Option<&Entry>, owners: &Owners) -> io::Result<Seen> {
    let file = file.as_fd();
    let stat = rustix::fs::fstat(file)?;
    if old.is_some_and(|old| is_same(old, &stat, owners)) {
        return Ok(Seen::Same);
    }
    inspect_stat_open(file, &stat, owners).map(|inspected| Seen::Other(Box::new(inspected)))
}

/// Whether everything that an inspection would find is in `old`. Link targets and extended attributes aren't asked for:
/// they don't change without the change time. The rest is compared as well, although it doesn't either: the device, which
/// is another one after a remount, and the names of owners, which live in other files.
fn is_same(old: &Entry, stat: &Stat, owners: &Owners) -> bool {
    // Destructured so that a new field must be compared here too.
    let Metadata { mode, uid, gid, user, group, mtime, ctime, device, inode, link_count, xattrs: _, later } =
        &old.metadata;
    let same_kind = match (&old.kind, FileType::from_raw_mode(stat.st_mode)) {
        (EntryKind::File(content), FileType::RegularFile) => content.len == len(stat),
        (EntryKind::Directory(_), FileType::Directory)
        | (EntryKind::Symlink(_), FileType::Symlink)
        | (EntryKind::Fifo, FileType::Fifo)
        | (EntryKind::Socket, FileType::Socket) => true,
        (EntryKind::CharDevice(major, minor), FileType::CharacterDevice)
        | (EntryKind::BlockDevice(major, minor), FileType::BlockDevice) => {
            (*major, *minor) == (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
        }
        _ => false,
    };
    same_kind
        && !old.changed_while_read
        && *inode != 0
        && (*ctime, *mtime, *inode, *device) == (self::ctime(stat), self::mtime(stat), stat.st_ino, stat.st_dev)
        && (*mode, *uid, *gid, *link_count) == (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid, self::link_count(stat))
        && *later == Fields::default()
        && owners.is_user(*uid, user)
        && owners.is_group(*gid, group)
}

/// Modification time, change time and length of an open file: one `fstat`, cheaper than [`inspect_open`].
///
/// # Errors
/// When the system can't tell.
pub fn state_of(file: impl AsFd) -> io::Result<FileState> {
    let stat = rustix::fs::fstat(file)?;
    Ok(FileState { mtime: mtime(&stat), ctime: ctime(&stat), len: len(&stat), inode: stat.st_ino, device: stat.st_dev })
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileState {
    /// Content changed.
    pub mtime: Time,
    /// Anything changed.
    pub ctime: Time,
    /// Length in bytes.
    pub len: u64,
    /// Inode number.
    pub inode: u64,
    /// Device of the file system.
    pub device: u64,
}

/// Whether `inspected` and `state` are of the same file in the same state.
#[must_use]
pub fn same_state(inspected: &Inspected, state: &FileState) -> bool {
    let Metadata { mtime, ctime, inode, device, .. } = inspected.metadata;
    inspected.kind_len() == state.len
        && (mtime, ctime, inode, device) == (state.mtime, state.ctime, state.inode, state.device)
}

impl Inspected {
    /// Length of a regular file; 0 for everything else.
    #[must_use]
    pub fn kind_len(&self) -> u64 {
        match self.kind {
            FoundKind::File { len, .. } => len,
            _ => 0,
        }
    }
}

/// Whether the file that was captured as `old` is certainly still the same, so that its content need not be read:
/// change time, modification time, length and inode are equal, and the capture wasn't itself disturbed. The device
/// number isn't compared: it differs after a reboot or a remount of the same file system.
#[must_use]
pub fn is_unchanged(old: &Entry, new: &Metadata, len: u64) -> bool {
    let Metadata { mtime, ctime, inode, .. } = old.metadata;
    matches!(&old.kind, EntryKind::File(content) if content.len == len)
        && !old.changed_while_read
        && inode != 0
        && (mtime, ctime, inode) == (new.mtime, new.ctime, new.inode)
}

/// Opens the directory at `path`; a symbolic link to one is followed.
///
/// # Errors
/// When it can't be opened or is no directory.
pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Opens the directory `name` in `dir`; a symbolic link is refused.
///
/// # Errors
/// When it can't be opened, or is no directory (`ENOTDIR`, also for a symbolic link).
pub fn open_directory_at(dir: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// Opens the regular file `name` in `dir` for reading. A symbolic link is refused, a pipe doesn't block, and the access
/// time stays where the system lets us.
///
/// # Errors
/// When it can't be opened.
pub fn open_file_at(dir: impl AsFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    // Only the owner and root may leave the access time alone.
    let opened = match rustix::fs::openat(&dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(&dir, name, flags, Mode::empty()),
        other => other,
    };
    Ok(File::from(opened?))
}

/// The names in the open directory `dir` without `.` and `..`, sorted as bytes.
///
/// # Errors
/// When it can't be read.
pub fn list_names(dir: impl AsFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for found in rustix::fs::Dir::read_from(dir)? {
        let name = found?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A run of bytes of a file that is either data or hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Number of bytes; never 0.
    pub len: u64,
    /// Reads as zeros and occupies nothing.
    pub is_hole: bool,
}

/// The data and holes of the first `len` bytes of `file`, in order and without gaps. A file system that doesn't tell
/// gives one extent of data. A file that changes meanwhile gives extents that still cover `len`.
///
/// # Errors
/// When the system fails to tell.
pub fn holes(file: &File, len: u64) -> io::Result<Vec<Extent>> {
    let mut extents = Vec::new();
    let mut offset = 0;
    while offset < len {
        let data = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
            Ok(data) => data.min(len),
            Err(Errno::NXIO) => len,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => offset,
            Err(error) => return Err(error.into()),
        };
        push_extent(&mut extents, offset, data, true);
        let hole = match rustix::fs::seek(file, SeekFrom::Hole(data)) {
            Ok(hole) => hole.min(len),
            Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => len,
            Err(error) => return Err(error.into()),
        };
        push_extent(&mut extents, data, hole, false);
        if hole <= offset {
            push_extent(&mut extents, hole, len, false);
            break;
        }
        offset = hole;
    }
    rustix::fs::seek(file, SeekFrom::Start(0))?;
    Ok(extents)
}

fn push_extent(extents: &mut Vec<Extent>, from: u64, to: u64, is_hole: bool) {
    if to > from {
        extents.push(Extent { offset: from, len: to - from, is_hole });
    }
}

fn stat_at(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Stat> {
    Ok(rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn link_target(stat: &Stat, read: impl FnOnce(Vec<u8>) -> Result<std::ffi::CString, Errno>) -> io::Result<Vec<u8>> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => Ok(read(Vec::with_capacity(256))?.into_bytes()),
        _ => Ok(Vec::new()),
    }
}

fn can_be_opened(stat: &Stat) -> bool {
    matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Directory)
}

fn describe(
    stat: &Stat,
    target: Vec<u8>,
    xattrs: Xattrs,
    problems: Vec<String>,
    owners: &Owners,
) -> io::Result<Inspected> {
    let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FoundKind::File { len: len(stat), sparse: occupied(stat) < len(stat) },
        FileType::Directory => FoundKind::Directory,
        FileType::Symlink => FoundKind::Symlink(target),
        FileType::Fifo => FoundKind::Fifo,
        FileType::Socket => FoundKind::Socket,
        FileType::CharacterDevice => FoundKind::CharDevice(device.0, device.1),
        FileType::BlockDevice => FoundKind::BlockDevice(device.0, device.1),
        FileType::Unknown => return Err(io::Error::new(io::ErrorKind::Unsupported, "a file of unknown type")),
    };
    Ok(Inspected { kind, metadata: metadata(stat, xattrs, owners), problems })
}

fn metadata(stat: &Stat, xattrs: Xattrs, owners: &Owners) -> Metadata {
    Metadata {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        user: owners.user(stat.st_uid),
        group: owners.group(stat.st_gid),
        mtime: mtime(stat),
        ctime: ctime(stat),
        device: stat.st_dev,
        inode: stat.st_ino,
        link_count: link_count(stat),
        xattrs,
        later: Fields::default(),
    }
}

fn len(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// `st_blocks` counts 512 bytes whatever the block size.
fn occupied(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512)
}

#[allow(clippy::useless_conversion, reason = "st_nlink is 32 bits wide on some architectures")]
fn link_count(stat: &Stat) -> u64 {
    u64::from(stat.st_nlink)
}

fn mtime(stat: &Stat) -> Time {
    time(stat.st_mtime, stat.st_mtime_nsec)
}

fn ctime(stat: &Stat) -> Time {
    time(stat.st_ctime, stat.st_ctime_nsec)
}

#[allow(clippy::unnecessary_fallible_conversions, reason = "the width of the fields differs between architectures")]
fn time(seconds: i64, nanoseconds: impl TryInto<u32>) -> Time {
    Time { seconds, nanoseconds: nanoseconds.try_into().unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::entry::{Content, Piece};
    use std::os::unix::fs::FileExt;

    fn extent(offset: u64, len: u64, is_hole: bool) -> Extent {
        Extent { offset, len, is_hole }
    }

    #[test]
    fn holes_cover_the_length_in_order_and_without_gaps() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(3 << 20).expect("longer");
        assert_eq!(holes(&file, 3 << 20).expect("extents"), [extent(0, 3 << 20, true)]);
        file.write_all_at(&[1; 4096], 1 << 20).expect("written");
        file.sync_all().expect("synced");
        let found = holes(&file, 3 << 20).expect("extents");
        assert_eq!(
            found,
            [extent(0, 1 << 20, true), extent(1 << 20, 4096, false), extent((1 << 20) + 4096, (2 << 20) - 4096, true),]
        );
        assert_eq!(holes(&file, 0).expect("extents"), []);
    }

    #[test]
    fn holes_of_a_file_that_got_shorter_still_cover_what_was_asked_for() {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(&[1; 10_000], 0).expect("written");
        let found = holes(&file, 1 << 20).expect("extents");
        assert_eq!(found.iter().map(|extent| extent.len).sum::<u64>(), 1 << 20);
    }

    #[test]
    fn a_file_is_unchanged_only_if_everything_that_tells_is_equal() {
        let time = |seconds| Time { seconds, nanoseconds: 1 };
        let metadata = Metadata { mtime: time(1), ctime: time(2), inode: 3, device: 4, ..Metadata::default() };
        let content = Content { len: 5, pieces: vec![Piece::hole(5)], ..Content::default() };
        let kind = EntryKind::File(content);
        let old = Entry { name: b"x".to_vec(), kind, metadata: metadata.clone(), changed_while_read: false };
        assert!(is_unchanged(&old, &metadata, 5));
        assert!(is_unchanged(&old, &Metadata { device: 9, mode: 0o600, ..metadata.clone() }, 5));
        assert!(!is_unchanged(&old, &metadata, 6));
        assert!(!is_unchanged(&old, &Metadata { mtime: time(9), ..metadata.clone() }, 5));
        assert!(!is_unchanged(&old, &Metadata { ctime: time(9), ..metadata.clone() }, 5));
        assert!(!is_unchanged(&old, &Metadata { inode: 9, ..metadata.clone() }, 5));
        assert!(!is_unchanged(&Entry { changed_while_read: true, ..old.clone() }, &metadata, 5));
        assert!(!is_unchanged(&Entry { kind: EntryKind::Fifo, ..old.clone() }, &metadata, 5));
        let stream = Metadata { inode: 0, ..metadata };
        assert!(!is_unchanged(&Entry { metadata: stream.clone(), ..old }, &stream, 5));
    }

    #[test]
    fn a_file_and_its_open_descriptor_are_told_the_same() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        std::fs::write(&path, "content").expect("written");
        let owners = Owners::new();
        let open = open_directory(directory.path()).expect("open");
        let file = open_file_at(&open, OsStr::new("file")).expect("open");
        let found = inspect(&path, &owners).expect("inspected");
        assert_eq!(found, inspect_at(&open, OsStr::new("file"), &owners).expect("inspected"));
        assert_eq!(found, inspect_open(&file, &owners).expect("inspected"));
        assert!(same_state(&found, &state_of(&file).expect("a state")));
        std::fs::write(&path, "other content").expect("written");
        assert!(!same_state(&found, &state_of(&file).expect("a state")));
    }

    #[test]
    fn links_are_neither_followed_nor_opened() {
        let directory = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::symlink("/etc", directory.path().join("link")).expect("a link");
        let (open, name) = (open_directory(directory.path()).expect("open"), OsStr::new("link"));
        let found = inspect_at(&open, name, &Owners::new()).expect("inspected");
        assert_eq!(found.kind, FoundKind::Symlink(b"/etc".to_vec()));
        assert!(open_directory_at(&open, name).is_err());
        assert!(open_file_at(&open, name).is_err());
        assert!(change_mode_at(&open, name, 0o777).is_err());
    }
}
