//! Storage in a directory, local or mounted.
//!
//! Objects are files whose paths are those of their keys. They are written under `tmp/` and get their name when they
//! are durable ([`durable`](crate::durable) has the argument), so a reader finds a whole object or none. What a killed
//! writer leaves stays in `tmp/`, which no listing looks at; the next process that writes sweeps it. The whole
//! repository is on one file system; where an operator linked a part of it elsewhere, temporary files lie beside their
//! object. Reading needs no right to write.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};

use super::{Listed, ObjectBytes, ObjectKey, ObjectKind, Storage, StorageError, StorageErrorKind};
use crate::durable;
use crate::mmap::Map;

/// Objects longer than this are mapped where that is safe; shorter ones are read: below it the page faults cost more than
/// the copy.
const MAP_LEN_MIN: u64 = 1 << 20;

/// File systems that are known to be of this machine alone (`statfs(2)`): ext2 to ext4, XFS, Btrfs, tmpfs, overlay, ZFS, F2FS,
/// bcachefs. There everybody sees the same locks, and files stay readable through a map when somebody deletes them. Over
/// NFS another machine's delete takes the bytes away, and a server that is gone does; what read(2) tells as an error kills a
/// process that uses a map.
const LOCAL: [u64; 8] =
    [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630, 0x2fc1_2fc1, 0xf2f5_2010, 0xca45_1a4e];

/// A directory that holds objects.
#[derive(Debug)]
pub struct LocalStorage {
    root: PathBuf,
    is_local: bool,
    swept: Once,
    /// Directories that this process has seen to.
    prepared: Mutex<BTreeSet<PathBuf>>,
}

impl LocalStorage {
    /// Opens the existing directory `root`. Writes nothing.
    ///
    /// # Errors
    /// `NotFound` if there is no such directory, `Denied` if it can't be entered.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let root = root.into();
        match fs::metadata(&root) {
            Ok(metadata) if metadata.is_dir() => {
                let is_local = is_local(&root);
                Ok(Self { root, is_local, swept: Once::new(), prepared: Mutex::default() })
            }
            Ok(_) => {
                let text = format!("{} is not a directory", root.display());
                let error = StorageError::with_message(StorageErrorKind::Other, text);
                Err(error.advise("Name the directory of a repository, or one that `init` is to make"))
            }
            Err(error) => Err(root_error(&root, "can't be opened", error)),
        }
    }

    /// Opens the directory `root` and makes it first, private to its owner, where it is missing.
    ///
    /// # Errors
    /// `Denied`, `Full` or `Other`.
    pub fn create(root: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let root = root.into();
        durable::create_directories(&root).map_err(|error| root_error(&root, "can't be created", error))?;
        Self::open(root)
    }

    fn path(&self, key: &ObjectKey) -> PathBuf {
        self.root.join(key.path())
    }

    /// Opens an object. Not blocking: somebody's fifo of that name must not stop a backup.
    fn open_object(&self, key: &ObjectKey) -> Result<(File, u64), StorageError> {
        let open = || -> io::Result<(File, u64)> {
            let file = durable::open_without_waiting(&self.path(key))?;
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Err(io::Error::other("it is not a regular file"));
            }
            Ok((file, metadata.len()))
        };
        open().map_err(|error| StorageError::from_io(key, error))
    }

    /// Makes `tmp/` and the directory of `path`. What dead writers left in `tmp/` goes, once in a process.
    fn prepare(&self, path: &Path) -> io::Result<PathBuf> {
        let temp = durable::temp_directory(&self.root);
        // Making the parents of these must not make the root: where a mount went away, it would lie on another disk.
        fs::metadata(&self.root)?;
        for directory in [&temp, directory_of(path)] {
            let is_prepared = |prepared: &BTreeSet<PathBuf>| prepared.contains(directory);
            if !is_prepared(&self.prepared.lock().unwrap_or_else(PoisonError::into_inner)) {
                durable::create_directories(directory).map_err(|error| in_the_way(directory, error))?;
                self.prepared.lock().unwrap_or_else(PoisonError::into_inner).insert(directory.to_owned());
            }
        }
        // Sweeping is a courtesy; what can't be swept harms nobody.
        self.swept.call_once(|| drop(durable::sweep(&temp, self.is_local)));
        Ok(temp)
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // In this order: a client of a server may remember that the directory wasn't there.
        let temp = self.prepare(path)?;
        if fs::symlink_metadata(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        match durable::create_new(path, bytes, &temp) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                durable::create_new(path, bytes, directory_of(path))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Somebody tidied up an empty directory. Once more, from the start.
                self.prepared.lock().unwrap_or_else(PoisonError::into_inner).clear();
                durable::create_new(path, bytes, &self.prepare(path)?)
            }
            other => other,
        }
    }

    /// A hole in the disk under the old bytes stays with the old file, which loses its name.
    fn write_again(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temp = self.prepare(path)?;
        match durable::replace_file(path, bytes, &temp) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                durable::replace_file(path, bytes, directory_of(path))
            }
            other => other,
        }
    }

    /// Everything below the root has just been made.
    fn gone(&self, key: &ObjectKey, error: io::Error) -> StorageError {
        if fs::metadata(&self.root).is_err() {
            return root_error(&self.root, "is gone", error);
        }
        StorageError::vanished(key).cause(error).advise(
            "Another machine, or this one's memory of a mounted directory, is in the way: see \"Storage in a directory\" in the \
             manual for how to mount it",
        )
    }

    /// The writer who lost a race relies on the winner's object, and the winner may not have got as far as making it
    /// durable.
    fn settle(path: &Path, error: io::Error) -> io::Error {
        if error.kind() != io::ErrorKind::AlreadyExists || !fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
        {
            return error;
        }
        match durable::settle(path) {
            Err(failed) if !matches!(failed.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
                failed
            }
            _ => error,
        }
    }

    /// Adds the objects of `kind` that lie in `directory`, a path below the root that ends in `/` or is empty. A
    /// directory that is missing holds nothing.
    fn list_directory(&self, kind: ObjectKind, directory: &str, found: &mut Vec<Listed>) -> io::Result<()> {
        let Some(entries) = present(fs::read_dir(self.root.join(directory)))? else {
            return Ok(());
        };
        for entry in entries {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            let path = format!("{directory}{name}");
            match ObjectKey::from_path(&path) {
                Some(key) if key.kind() == kind => found.extend(self.listed(key)?),
                _ if kind == ObjectKind::Pack && is_fan_out(&path) => {
                    self.list_directory(kind, &format!("{path}/"), found)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The row of `key`, or none if it has just been deleted or is no regular file.
    fn listed(&self, key: ObjectKey) -> io::Result<Option<Listed>> {
        let metadata = present(fs::metadata(self.path(&key)))?;
        Ok(metadata.filter(fs::Metadata::is_file).map(|metadata| Listed { key, len: metadata.len() }))
    }
}

impl Storage for LocalStorage {
    fn put_new(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        let path = self.path(key);
        self.write_new(&path, bytes).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.gone(key, error),
            _ => StorageError::from_io(key, Self::settle(&path, error)),
        })
    }

    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        self.write_again(&self.path(key), bytes).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.gone(key, error),
            _ => StorageError::from_io(key, error),
        })
    }

    fn get(&self, key: &ObjectKey) -> Result<ObjectBytes, StorageError> {
        let (mut file, len) = self.open_object(key)?;
        if len > MAP_LEN_MIN && self.is_local {
            return Map::of(&file).map(ObjectBytes::Mapped).map_err(|error| StorageError::from_io(key, error));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| StorageError::from_io(key, error))?;
        Ok(ObjectBytes::Owned(bytes))
    }

    fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        let (file, len) = self.open_object(key)?;
        let out_of_range = || StorageError::new(StorageErrorKind::OutOfRange, key);
        if range.end > len {
            return Err(out_of_range());
        }
        let range_len = range.end.checked_sub(range.start).and_then(|len| usize::try_from(len).ok());
        let mut bytes = vec![0; range_len.ok_or_else(out_of_range)?];
        file.read_exact_at(&mut bytes, range.start).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => out_of_range().cause(error),
            _ => StorageError::from_io(key, error),
        })?;
        Ok(bytes)
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StorageError> {
        let failed = |error| StorageError::from_io(key, error);
        let listed = self.listed(*key).map_err(failed)?;
        let len = listed.map(|listed| listed.len).ok_or_else(|| StorageError::new(StorageErrorKind::NotFound, key))?;
        if !self.is_local {
            // A mounted directory may remember what another machine has deleted; who opens it is told.
            durable::open_without_waiting(&self.path(key)).map_err(failed)?;
        }
        Ok(len)
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<Listed>, StorageError> {
        let directory = match kind.prefix() {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let mut found = Vec::new();
        self.list_directory(kind, &directory, &mut found)
            .and_then(|()| fs::metadata(&self.root)) // a root that has vanished must not look like one without objects
            .map_err(|error| root_error(&self.root, "can't be listed", error))?;
        found.sort_unstable();
        Ok(found)
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        durable::remove_file(&self.path(key)).map_err(|error| StorageError::from_io(key, error))
    }

    fn location(&self) -> String {
        self.root.display().to_string()
    }

    fn requests_die_with_sender(&self) -> bool {
        true
    }
}

/// What is not known is read.
fn is_local(root: &Path) -> bool {
    // The type of the number depends on the machine; none of those above fills more than 32 bits.
    let file_system = |statfs: rustix::fs::StatFs| u64::try_from(i128::from(statfs.f_type) & 0xffff_ffff).ok();
    rustix::fs::statfs(root).ok().and_then(file_system).is_some_and(|kind| LOCAL.contains(&kind))
}

/// A file where a directory should be is none that was stored.
fn in_the_way(directory: &Path, error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::AlreadyExists {
        return io::Error::new(io::ErrorKind::NotADirectory, format!("{} is not a directory", directory.display()));
    }
    error
}

/// None if it isn't there.
fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// `packs/` and two digits.
fn is_fan_out(path: &str) -> bool {
    let digits = path.strip_prefix("packs/").unwrap_or_default().as_bytes();
    digits.len() == 2 && digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn root_error(root: &Path, what: &str, error: io::Error) -> StorageError {
    let kind = StorageError::from_io(&ObjectKey::Config, io::Error::from(error.kind())).kind();
    StorageError::with_message(kind, format!("Directory {} {what}", root.display())).cause(error)
}
