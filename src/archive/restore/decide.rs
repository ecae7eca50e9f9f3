//! What is to be done about one name, decided from what the snapshot says and what the target has. No effects here.

use rustix::fs::{FileType, Stat};

use super::Overwrite;
use super::file::Way;
use crate::archive::entry::{Entry, EntryKind, Metadata, Time};

/// What the target has under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Present {
    pub file_type: FileType,
    pub len: u64,
    pub mtime: Time,
    pub uid: u32,
    pub link_count: u64,
    pub device: u64,
    pub inode: u64,
    /// Major and minor number of a device.
    pub numbers: (u32, u32),
    /// Target of a symbolic link.
    pub target: Vec<u8>,
}

impl Present {
    pub fn new(stat: &Stat, target: Vec<u8>) -> Self {
        Self {
            file_type: FileType::from_raw_mode(stat.st_mode),
            len: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: Time { seconds: stat.st_mtime, nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) },
            uid: stat.st_uid,
            link_count: stat.st_nlink,
            device: stat.st_dev,
            inode: stat.st_ino,
            numbers: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
            target,
        }
    }
}

/// What to do about a name that is not a directory in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing is there, or it has to go: write it, and how.
    Write(Way),
    /// A directory is there; if it can be removed, write it.
    RemoveDirectory,
    /// The content is right; metadata may still need correction.
    Right,
    /// The policy says that what is there stays.
    Keep {
        /// It looks like the snapshot's, so further names of the same file are linked to it.
        same: bool,
    },
}

/// Who restores, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    pub overwrite: Overwrite,
    pub verify: bool,
    /// Our own user id.
    pub uid: u32,
}

/// See [`Decision`].
pub(super) fn decide(policy: Policy, entry: &Entry, owner: u32, present: Option<&Present>) -> Decision {
    // What is left of a restore that was stopped must not look newer than the snapshot, nor like somebody's own file.
    let careful = matches!(policy.overwrite, Overwrite::IfNewer | Overwrite::Never);
    let Some(present) = present else {
        return Decision::Write(if careful { Way::Replace } else { Way::Fresh });
    };
    let same = looks_right(entry, present);
    match policy.overwrite {
        Overwrite::Never => return Decision::Keep { same },
        Overwrite::IfNewer if entry.metadata.mtime <= present.mtime => return Decision::Keep { same },
        _ => {}
    }
    if present.file_type == FileType::Directory {
        return Decision::RemoveDirectory;
    }
    // Only a file can look right and be wrong.
    let trusted = policy.overwrite == Overwrite::IfChanged && !policy.verify;
    if same && (trusted || !matches!(entry.kind, EntryKind::File(_))) {
        return Decision::Right;
    }
    let ours = present.uid == policy.uid || present.uid == owner;
    let comparable = present.file_type == FileType::RegularFile
        && matches!(&entry.kind, EntryKind::File(content) if content.len == present.len)
        && present.link_count == 1;
    Decision::Write(if comparable && ours && !careful { Way::Patch } else { Way::Replace })
}

fn looks_right(entry: &Entry, present: &Present) -> bool {
    match &entry.kind {
        EntryKind::File(content) => {
            present.file_type == FileType::RegularFile
                && content.len == present.len
                && entry.metadata.mtime == present.mtime
                && (present.link_count == 1 || has_several_names(&entry.metadata))
        }
        EntryKind::Symlink(target) => present.file_type == FileType::Symlink && *target == present.target,
        EntryKind::Fifo => present.file_type == FileType::Fifo,
        EntryKind::Socket => present.file_type == FileType::Socket,
        EntryKind::CharDevice(major, minor) => {
            present.file_type == FileType::CharacterDevice && present.numbers == (*major, *minor)
        }
        EntryKind::BlockDevice(major, minor) => {
            present.file_type == FileType::BlockDevice && present.numbers == (*major, *minor)
        }
        EntryKind::Directory(_) => present.file_type == FileType::Directory,
    }
}

/// Whether entries of equal device and inode are to be one file.
pub(super) fn has_several_names(metadata: &Metadata) -> bool {
    metadata.link_count > 1 && metadata.inode != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::entry::Content;

    fn file(len: u64, seconds: i64) -> Entry {
        let metadata = Metadata { mtime: Time { seconds, nanoseconds: 0 }, link_count: 1, ..Metadata::default() };
        let content = Content { len, ..Content::default() };
        Entry { name: b"f".to_vec(), kind: EntryKind::File(content), metadata, changed_while_read: false }
    }

    fn present(len: u64, seconds: i64) -> Present {
        Present {
            file_type: FileType::RegularFile,
            len,
            mtime: Time { seconds, nanoseconds: 0 },
            uid: 0,
            link_count: 1,
            device: 1,
            inode: 1,
            numbers: (0, 0),
            target: Vec::new(),
        }
    }

    fn decided(overwrite: Overwrite, verify: bool, present: Option<&Present>) -> Decision {
        decide(Policy { overwrite, verify, uid: 0 }, &file(10, 100), 0, present)
    }

    #[test]
    fn each_policy_decides_about_every_state_of_a_file() {
        use Decision::{Keep, Right, Write};
        use Overwrite::{Always, IfChanged, IfNewer, Never};
        let (same, older, newer) = (present(10, 100), present(10, 50), present(10, 150));
        let (longer, linked) = (present(11, 50), Present { link_count: 2, ..present(10, 100) });
        let table = [
            (Always, None, Write(Way::Fresh)),
            (IfChanged, None, Write(Way::Fresh)),
            (IfNewer, None, Write(Way::Replace)),
            (Never, None, Write(Way::Replace)),
            (Always, Some(&same), Write(Way::Patch)),
            (IfChanged, Some(&same), Right),
            (IfNewer, Some(&same), Keep { same: true }),
            (Never, Some(&same), Keep { same: true }),
            (Never, Some(&longer), Keep { same: false }),
            (IfChanged, Some(&older), Write(Way::Patch)),
            (IfChanged, Some(&newer), Write(Way::Patch)),
            (IfNewer, Some(&older), Write(Way::Replace)),
            (IfNewer, Some(&newer), Keep { same: false }),
            (IfChanged, Some(&longer), Write(Way::Replace)),
            (IfChanged, Some(&linked), Write(Way::Replace)),
        ];
        for (overwrite, present, expected) in table {
            assert_eq!(decided(overwrite, false, present), expected, "{overwrite:?} {present:?}");
        }
    }

    #[test]
    fn verifying_takes_nothing_as_right_by_its_looks() {
        let same = present(10, 100);
        assert_eq!(decided(Overwrite::IfChanged, true, Some(&same)), Decision::Write(Way::Patch));
    }

    #[test]
    fn a_file_of_a_third_user_is_replaced_and_not_written_into() {
        let foreign = Present { uid: 7, ..present(10, 50) };
        assert_eq!(decided(Overwrite::IfChanged, false, Some(&foreign)), Decision::Write(Way::Replace));
    }

    #[test]
    fn a_directory_is_never_overwritten_like_a_file() {
        let directory = Present { file_type: FileType::Directory, ..present(10, 100) };
        assert_eq!(decided(Overwrite::Always, false, Some(&directory)), Decision::RemoveDirectory);
    }
}
