//! Files that are there after a power cut, whole, or not at all.
//!
//! [`create_new`] writes into a temporary file, makes its bytes durable, gives it its name without replacing anything,
//! and makes the name durable. A crash at any line leaves either the finished file or a temporary one, whose name
//! starts with [`TEMP_PREFIX`] and which nobody mistakes for an object:
//!
//! ```text
//! write temp        crash: a torn temporary file, no name
//! fsync temp        crash: a whole temporary file, no name
//! temp -> name      crash: no name, or the name with all bytes (they were durable before)
//! fsync directory   after this the name is durable too; only now the call returns
//! ```
//!
//! A writer keeps its temporary file locked, so that [`sweep`] can tell leftovers from work in progress without a clock. Where each
//! machine has locks of its own (FUSE, NFS without its lock daemon), they must be old as well.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use tempfile::NamedTempFile;

/// How the names of temporary files begin.
pub const TEMP_PREFIX: &str = ".tmp-";

/// How claims begin: temporary files like others to whoever sweeps.
const CLAIM_PREFIX: &str = ".tmp-claim-";

/// Temporary files that were last written so long before a new one, by the clock of who keeps them, have been left behind, whatever
/// locks say.
pub const LEFT_BEHIND_SECONDS: u32 = 24 * 60 * 60;

/// How often a temporary file is made anew when somebody swept it away between its birth and its lock.
const TEMP_TRIES_MAX: u32 = 8;

/// Creates `path` with `bytes`, mode 0600, durably and at once. The temporary file lies in `temp_directory`, which must
/// exist on the same file system.
///
/// # Errors
/// `AlreadyExists` if the name is taken; what had it stays as it was. After any error the name is absent, or, if only
/// the last sync failed, it has all bytes.
pub fn create_new(path: &Path, bytes: &[u8], temp_directory: &Path) -> io::Result<()> {
    let temp = write_temp(bytes, temp_directory)?;
    name_without_replacing(temp, path)?;
    sync_directory(parent(path))
}

/// Replaces `path`, or creates it, with mode 0600: afterwards it has the old bytes or the new ones, durably. The temporary
/// file lies in `temp_directory`, as with [`create_new`]. For objects that were damaged and are healed; nothing else that
/// has a name is replaced.
///
/// # Errors
/// What the file system says; the old file is then still there, or, if only the last sync failed, the new one.
pub fn replace_file(path: &Path, bytes: &[u8], temp_directory: &Path) -> io::Result<()> {
    let temp = write_temp(bytes, temp_directory)?;
    temp.persist(path).map_err(|error| error.error)?;
    sync_directory(parent(path))
}

/// Removes a file durably.
///
/// # Errors
/// `NotFound` if there is none.
pub fn remove_file(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    sync_directory(parent(path))
}

/// Makes sure that a file, which somebody else may have named a moment ago, survives a power cut.
///
/// # Errors
/// What the file system says.
pub fn settle(path: &Path) -> io::Result<()> {
    open_without_waiting(path)?.sync_all()?;
    sync_directory(parent(path))
}

/// Opens for reading. A fifo in the place of a file gives no bytes instead of waiting for a writer.
///
/// # Errors
/// What the file system says.
pub fn open_without_waiting(path: &Path) -> io::Result<File> {
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    File::options().read(true).custom_flags(nonblock).open(path)
}

/// Makes sure that the directory `path` exists, with its parents, and durably; new ones get mode 0700.
///
/// # Errors
/// What the file system says, among it `NotADirectory` and `AlreadyExists` when a file is in the way.
pub fn create_directories(path: &Path) -> io::Result<()> {
    match create_directory(path) {
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && path.parent().is_some_and(|up| up != Path::new("")) =>
        {
            create_directories(parent(path))?;
            // Where a parent is there and can't have children (/proc, a mount that went away) this says so.
            create_directory(path)
        }
        made => made,
    }
}

fn create_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_directory(parent(path)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
            // Whoever made it may have died before the next line. Who may not read the parent didn't make it just now.
            let _settled = sync_directory(parent(path));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Removes what dead writers left in `temp_directory` and returns how many files that were. A living writer holds a
/// lock on its file and is left alone; so is everything on file systems that know no locks. Unless `all_see_locks`, other machines
/// may hold some that don't show here.
///
/// # Errors
/// When the directory can't be read, or written in. Files that can't be removed are left.
pub fn sweep(temp_directory: &Path, all_see_locks: bool) -> io::Result<usize> {
    let mut removed = 0;
    let now = if all_see_locks { None } else { Some(locked_temp(temp_directory)?.as_file().metadata()?.modified()?) };
    for entry in fs::read_dir(temp_directory)? {
        let path = entry?.path();
        let is_left = now.is_none_or(|now| is_old(&path, now)) && is_abandoned(&path);
        if is_temp(&path) && is_left && fs::remove_file(&path).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

/// Whether `path` is named like a temporary file of this module.
#[must_use]
pub fn is_temp(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(TEMP_PREFIX.as_bytes()))
}

fn is_old(path: &Path, now: SystemTime) -> bool {
    let written = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    written.is_ok_and(|written| {
        now.duration_since(written).is_ok_and(|age| age > Duration::from_secs(LEFT_BEHIND_SECONDS.into()))
    })
}

/// Nobody holds the lock. Opened for writing because NFS grants exclusive locks on such files only.
fn is_abandoned(path: &Path) -> bool {
    let is_file = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
    is_file && File::options().write(true).open(path).is_ok_and(|file| file.try_lock().is_ok())
}

fn write_temp(bytes: &[u8], directory: &Path) -> io::Result<NamedTempFile> {
    let mut temp = locked_temp(directory)?;
    temp.write_all(bytes)?;
    temp.as_file().sync_all()?;
    Ok(temp)
}

/// A new file of mode 0600 that is removed when it is dropped. The lock is taken after the birth; a sweeper that came
/// between the two has unlinked the file, which shows in its link count.
fn locked_temp(directory: &Path) -> io::Result<NamedTempFile> {
    for _ in 0..TEMP_TRIES_MAX {
        let temp = tempfile::Builder::new().prefix(TEMP_PREFIX).rand_bytes(12).tempfile_in(directory)?;
        match temp.as_file().try_lock() {
            Err(fs::TryLockError::WouldBlock) => continue,
            // A file system without locks: sweepers can't take one either.
            Err(fs::TryLockError::Error(_)) => return Ok(temp),
            Ok(()) => {}
        }
        if temp.as_file().metadata()?.nlink() > 0 {
            return Ok(temp);
        }
    }
    Err(io::Error::other("temporary files vanish as soon as they are made"))
}

/// Gives `temp` its name. Three ways, the best that the file system knows: rename that refuses to replace (local file
/// systems, SMB), hard link (NFS), look and rename (FAT, some FUSE). The first two are one atomic step; the last one is taken
/// by one writer of a name at a time.
fn name_without_replacing(temp: NamedTempFile, path: &Path) -> io::Result<()> {
    match rename_no_replace(&temp, path) {
        Err(error) if lacks(error, &[Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP]) => {}
        Err(error) => return Err(error.into()),
        Ok(()) => return forget(temp),
    }
    match link(&temp, path) {
        Err(error) if lacks(error, &[Errno::PERM, Errno::NOSYS, Errno::OPNOTSUPP, Errno::MLINK]) => {}
        other => return other.map_err(io::Error::from),
    }
    look_and_rename(temp, path)
}

fn lacks(error: Errno, unsupported: &[Errno]) -> bool {
    unsupported.contains(&error)
}

fn rename_no_replace(temp: &NamedTempFile, path: &Path) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(CWD, temp.path(), CWD, path, RenameFlags::NOREPLACE)
}

/// An NFS client that repeats a link whose answer got lost is told that the name exists; the link count knows better.
fn link(temp: &NamedTempFile, path: &Path) -> rustix::io::Result<()> {
    match rustix::fs::link(temp.path(), path) {
        Err(Errno::EXIST) if temp.as_file().metadata().is_ok_and(|metadata| metadata.nlink() == 2) => Ok(()),
        other => other,
    }
}

/// Whoever makes the claim, a file that nobody else can make, may look and rename. Others hear `ResourceBusy` meanwhile: not
/// `AlreadyExists`, because who holds the claim may die before the object is there. A dead claim is swept like every temporary
/// file.
fn look_and_rename(temp: NamedTempFile, path: &Path) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(CLAIM_PREFIX);
    name.push(path.file_name().unwrap_or_default());
    let claim_path = parent(temp.path()).join(name);
    let claim = File::options().write(true).create_new(true).mode(0o600).open(&claim_path);
    let claim = claim.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => io::Error::new(io::ErrorKind::ResourceBusy, "another program is writing it"),
        _ => error,
    })?;
    // A file system without locks: sweepers can't take one either.
    let _locked = claim.try_lock();
    let named = match fs::symlink_metadata(path) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => temp.persist(path).map(drop).map_err(|error| error.error),
    };
    let removed = fs::remove_file(&claim_path);
    named.and(removed)
}

/// The temporary name is gone already: keep the guard from removing it once more.
fn forget(temp: NamedTempFile) -> io::Result<()> {
    temp.keep().map(drop).map_err(|error| error.error)
}

/// Makes the names in a directory durable. File systems that can't say so, mostly with EINVAL; there a name is as durable as
/// it gets.
///
/// # Errors
/// What the file system says.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    match rustix::fs::fsync(File::open(path)?) {
        Ok(()) | Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The directory that holds the name `path`.
#[must_use]
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(up) if up != Path::new("") => up,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// The place for temporary files below `root`.
#[must_use]
pub fn temp_directory(root: &Path) -> PathBuf {
    root.join("tmp")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_file_is_private_and_leaves_nothing_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        create_new(&directory.path().join("a"), b"one", directory.path()).unwrap();
        assert_eq!(fs::read(directory.path().join("a")).unwrap(), b"one");
        assert_eq!(fs::metadata(directory.path().join("a")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(directory.path()), ["a"]);
    }

    #[test]
    fn every_way_of_naming_refuses_to_replace() {
        type Way = fn(NamedTempFile, &Path) -> io::Result<()>;
        let ways: [Way; 4] = [
            name_without_replacing,
            |temp, path| rename_no_replace(&temp, path).map_err(io::Error::from).and_then(|()| forget(temp)),
            |temp, path| link(&temp, path).map_err(io::Error::from),
            look_and_rename,
        ];
        for way in ways {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a");
            way(write_temp(b"one", directory.path()).unwrap(), &path).unwrap();
            let again = way(write_temp(b"two", directory.path()).unwrap(), &path);
            assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read(&path).unwrap(), b"one");
            assert_eq!(names(directory.path()), ["a"]);
        }
    }

    #[test]
    fn looking_and_renaming_is_for_one_writer_at_a_time_and_a_dead_claim_is_swept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let claim = directory.path().join(".tmp-claim-a");
        fs::write(&claim, b"").unwrap();
        let busy = look_and_rename(write_temp(b"one", directory.path()).unwrap(), &path).unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        assert_eq!(names(directory.path()), [".tmp-claim-a"]);
        assert_eq!(sweep(directory.path(), true).unwrap(), 1);
        look_and_rename(write_temp(b"one", directory.path()).unwrap(), &path).unwrap();
        assert_eq!(names(directory.path()), ["a"]);
    }

    #[test]
    fn of_many_that_look_and_rename_one_wins() {
        let directory = tempfile::tempdir().unwrap();
        let path = &directory.path().join("a");
        let directory = directory.path();
        let won: usize = std::thread::scope(|scope| {
            let name = move || look_and_rename(write_temp(b"one", directory).unwrap(), path).is_ok();
            let writers: Vec<_> = (0..8).map(|_| scope.spawn(name)).collect();
            writers.into_iter().map(|writer| usize::from(writer.join().unwrap())).sum()
        });
        assert_eq!(won, 1);
        assert_eq!(names(directory), ["a"]);
    }

    #[test]
    fn replacing_leaves_the_new_bytes_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        replace_file(&path, b"one", directory.path()).unwrap();
        replace_file(&path, b"two", directory.path()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(directory.path()), ["a"]);
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        fs::create_dir_all(path.join("in the way")).unwrap();
        assert!(replace_file(&path, b"two", directory.path()).is_err());
        assert_eq!(names(directory.path()), ["a"]);
        assert_eq!(names(&path), ["in the way"]);
    }

    #[test]
    fn new_directories_are_private_and_existing_ones_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a/b/c");
        create_directories(&deep).unwrap();
        create_directories(&deep).unwrap();
        assert_eq!(fs::metadata(directory.path().join("a/b")).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(directory.path().join("file"), b"").unwrap();
        assert!(create_directories(&directory.path().join("file")).is_err());
        assert!(create_directories(&directory.path().join("file/below")).is_err());
        assert!(create_directories(Path::new("/proc/has/no/room")).is_err(), "a parent that can't have children");
    }

    #[test]
    fn sweeping_takes_what_the_dead_left_and_spares_the_living() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(".tmp-dead"), b"torn").unwrap();
        fs::write(directory.path().join("foreign"), b"").unwrap();
        let living = write_temp(b"in progress", directory.path()).unwrap();
        assert_eq!(sweep(directory.path(), true).unwrap(), 1);
        assert!(living.path().exists());
        assert_eq!(names(directory.path()).len(), 2);
        drop(living);
        assert_eq!(names(directory.path()), ["foreign"]);
    }

    #[test]
    fn where_locks_of_others_do_not_show_only_what_is_old_is_swept() {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        for (name, hours) in [(".tmp-living", 1), (".tmp-dead", 25), ("foreign", 25)] {
            let file = File::create(directory.path().join(name)).unwrap();
            file.set_modified(now - Duration::from_secs(hours * 3600)).unwrap();
        }
        assert_eq!(sweep(directory.path(), false).unwrap(), 1);
        assert_eq!(names(directory.path()), [".tmp-living", "foreign"]);
    }
}
