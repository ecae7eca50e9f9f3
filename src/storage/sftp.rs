//! `sftp://`: a directory of a machine that has no compline, by the SFTP subsystem of its SSH server.
//!
//! An object is written under `tmp/`, made durable, and then gets its name:
//!
//! ```text
//! write tmp/.sftp-…, fsync@openssh.com     may be repeated when the line breaks: nobody sees it
//! hardlink@openssh.com tmp -> name         refuses to replace; lost answer: what has the name tells, or the caller is told
//! remove tmp, fsync of the directory       only now the call returns
//! ```
//!
//! A server without these extensions gets what is left of it: a look whether the name is free and a rename, and files that
//! are as durable as the server pleases (docs/src/storage-sftp.md). Temporary files have a prefix of their own, because a
//! local process can't see by a lock that they are being written ([`durable`](crate::durable)).

mod channel;
mod packet;

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};

use self::channel::{Channel, Looking, Making, Stop};
use self::packet::{DATA_LEN, Extensions, PACKET_LEN_MAX, kind, status};
use super::address::SshAddress;
use super::line::{self, Failure, Line, Lines};
use super::ssh::{Remote, SshProcess};
use super::wire;
use super::{Listed, ObjectBytes, ObjectKey, ObjectKind, Storage, StorageError, StorageErrorKind};
use crate::durable::LEFT_BEHIND_SECONDS;
use crate::pipeline;

/// How the names of temporary files begin.
const TEMP_PREFIX: &str = ".sftp-";
/// Longest object that is read: the longest pack that the format has.
const OBJECT_LEN_MAX: u64 = 4 << 30;
/// A write that fails where less than this would stay free is taken for a full disk.
const FREE_MIN: u64 = 1 << 20;

/// A directory that an SFTP server gives access to.
#[derive(Debug)]
pub struct SftpStorage {
    lines: Lines<Channel>,
    root: Vec<u8>,
    /// Directories that this process has seen to.
    prepared: Mutex<BTreeSet<Vec<u8>>>,
    swept: Once,
    given_back: GivenBack,
}

/// Bytes of all objects that could not be written: so much, at most, became free again when what there was of them went.
#[derive(Debug, Default)]
struct GivenBack {
    begun: AtomicU64,
    done: AtomicU64,
}

impl GivenBack {
    fn around(&self, len: usize, remove: impl FnOnce()) {
        self.begun.fetch_add(len as u64, Ordering::SeqCst);
        remove();
        self.done.fetch_add(len as u64, Ordering::SeqCst);
    }

    /// What may still become free from now on begins here.
    fn mark(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    /// What may have become free since then.
    fn since(&self, mark: u64) -> u64 {
        self.begun.load(Ordering::SeqCst) - mark
    }
}

impl SftpStorage {
    /// Connects to the storage at `address`, which must exist.
    ///
    /// # Errors
    /// `NotFound` if there is no such directory; `Other` with what ssh says.
    pub fn open(address: &SshAddress) -> Result<Self, StorageError> {
        let storage = Self::connect(address)?;
        storage.look()?;
        Ok(storage)
    }

    /// Connects, and makes the directory and its parents where they are missing.
    ///
    /// # Errors
    /// As [`open`](Self::open), and `Denied`.
    pub fn create(address: &SshAddress) -> Result<Self, StorageError> {
        let storage = Self::connect(address)?;
        let ends = (1..storage.root.len()).filter(|at| storage.root[*at] == b'/').chain([storage.root.len()]);
        let ancestors: Vec<&[u8]> = ends.map(|end| &storage.root[..end]).collect();
        storage.lines.again(0, |channel| {
            let making = channel.begin_directories(&ancestors).map_err(|stop| storage.of_root(stop))?;
            settle(channel, making).map_err(|stop| storage.of_root(stop))
        })?;
        storage.look()?;
        Ok(storage)
    }

    fn connect(address: &SshAddress) -> Result<Self, StorageError> {
        let mut root = address.path().as_os_str().as_encoded_bytes().to_vec();
        while root.len() > 1 && root.ends_with(b"/") {
            root.pop();
        }
        let again = address.without_questions();
        let lines = Lines::open(address.to_string(), start(address)?, move || start(&again));
        Ok(Self { lines, root, prepared: Mutex::default(), swept: Once::new(), given_back: GivenBack::default() })
    }

    /// A directory that has vanished must not look like one without objects.
    fn look(&self) -> Result<(), StorageError> {
        self.lines.again(0, |channel| {
            let attributes = channel.stat(&self.root).map_err(|stop| self.of_root(stop))?;
            if attributes.may_be_directory() {
                return Ok(());
            }
            let text = format!("{} is not a directory", self.lines.location());
            Err(StorageError::with_message(StorageErrorKind::Other, text).into())
        })
    }

    fn path(&self, below: &str) -> Vec<u8> {
        let mut path = self.root.clone();
        path.push(b'/');
        path.extend_from_slice(below.as_bytes());
        path
    }

    fn of_root(&self, stop: Stop) -> Failure {
        told(stop, |kind| {
            let what = match kind {
                StorageErrorKind::NotFound => "is not there",
                StorageErrorKind::Denied => "can't be entered",
                _ => "can't be reached",
            };
            StorageError::with_message(kind, format!("Directory {} {what}", self.lines.location()))
        })
    }

    /// Writes `bytes` into a temporary file and returns its path, unless there is something at `taken`. Doing it twice leaves one
    /// file too many, for the sweep.
    fn upload(&self, key: &ObjectKey, bytes: &[u8], taken: Option<&[u8]>) -> Result<Vec<u8>, StorageError> {
        self.lines.again(line::len_of(key, bytes.len()), |channel| {
            let mark = self.given_back.mark();
            let mut written = self.try_upload(channel, key, bytes, taken);
            if matches!(&written, Err(stop) if stop.is_missing()) {
                // Somebody tidied up an empty directory. Once more, from the start.
                pipeline::lock(&self.prepared).clear();
                written = self.try_upload(channel, key, bytes, taken);
            }
            written.map_err(|stop| match stop {
                stop if stop.is_missing() => self.of_root(stop),
                Stop::Status(code, text) => self.why_not_written(channel, key, mark, code, text),
                stop => of_key(key, stop),
            })
        })
    }

    /// The look, the directories and the file are asked for at once: each needs a way there and back.
    fn try_upload(
        &self,
        channel: &Channel,
        key: &ObjectKey,
        bytes: &[u8],
        taken: Option<&[u8]>,
    ) -> Result<Vec<u8>, Stop> {
        let temp = self.path(&format!("tmp/{TEMP_PREFIX}{}", random_name()?));
        let looking = taken.map(|path| channel.begin_look(path)).transpose()?;
        let unprepared = self.unprepared(key);
        let making = channel.begin_directories(&unprepared)?;
        let file = channel.begin_new(&temp)?;
        if let Err(stop) = looking.map_or(Ok(()), Looking::must_be_free) {
            // Waited for: a server may forget what it was asked when the line ends.
            let _swept_later = file.close().and_then(|()| channel.remove(&temp));
            return Err(stop);
        }
        settle(channel, making)?;
        pipeline::lock(&self.prepared).extend(unprepared);
        match file.write(bytes) {
            Ok(()) => Ok(temp),
            Err(stop) => {
                if !matches!(stop, Stop::Lost) {
                    self.given_back.around(bytes.len(), || {
                        let _swept_later = channel.remove(&temp);
                    });
                }
                Err(stop)
            }
        }
    }

    /// `tmp/` and the directories of `key`, if this process has not made them yet.
    fn unprepared(&self, key: &ObjectKey) -> Vec<Vec<u8>> {
        let path = key.path();
        let parents = path.match_indices('/').map(|(at, _)| self.path(&path[..at]));
        let prepared = pipeline::lock(&self.prepared);
        [self.path("tmp")].into_iter().chain(parents).filter(|path| !prepared.contains(path)).collect()
    }

    /// SFTP has no word for a full disk: a look at what is free says more than "Failure". What became free since `mark`
    /// doesn't count: this object, and those beside it that could not be written either.
    fn why_not_written(&self, channel: &Channel, key: &ObjectKey, mark: u64, code: u32, text: String) -> Failure {
        let free = channel.free_space(&self.root).ok().flatten();
        let is_full = free.is_some_and(|free| free < self.given_back.since(mark) + FREE_MIN);
        let is_full = is_full && code != status::PERMISSION_DENIED;
        if is_full {
            return StorageError::new(StorageErrorKind::Full, key).cause(words(code, &text)).into();
        }
        of_key(key, Stop::Status(code, text))
    }

    /// Gives the temporary file its name, unless that is taken. Who lost relies on what has it, so both have to be durable.
    fn name(&self, channel: &Channel, key: &ObjectKey, temp: &[u8]) -> Result<(), Failure> {
        self.change(channel, key, |path| {
            let named = try_name(channel, temp, path);
            if !matches!(named, Err(Stop::Lost)) {
                // It has two names now, and needs one, or none. What stays goes with the sweep.
                let _swept_later = channel.have_removed(temp);
            }
            named.map_err(|stop| match stop {
                stop if stop.is_missing() => StorageError::vanished(key).into(),
                stop => of_key(key, stop),
            })
        })
    }

    /// Changes what the path of `key` leads to, and makes the directory durable in any case, which is opened meanwhile.
    fn change(
        &self,
        channel: &Channel,
        key: &ObjectKey,
        change: impl FnOnce(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let path = self.path(&key.path());
        let directory = channel.begin_directory(parent(&path)).map_err(|stop| of_key(key, stop))?;
        let changed = change(&path);
        // Those that break have nothing open any more.
        self.lines.each(|channel| drop(channel.forget(&path)));
        let synced = directory.sync().map_err(|stop| of_key(key, stop));
        changed.and(synced)
    }

    /// Removes what dead writers left, once in a process. `temp` is new: its time is the server's now.
    fn sweep(&self, temp: &[u8]) {
        let sweep = |channel: &Channel| -> Result<(), Stop> {
            let files = channel.list(&[self.path("tmp")])?;
            let own = files.iter().find(|(_, file)| temp.ends_with(&file.name));
            let Some(now) = own.and_then(|(_, file)| file.attributes.changed_at) else { return Ok(()) };
            for (_, file) in &files {
                let is_old = file.attributes.changed_at.is_some_and(|at| at.saturating_add(LEFT_BEHIND_SECONDS) < now);
                let Some(name) = std::str::from_utf8(&file.name).ok().filter(|name| name.starts_with(TEMP_PREFIX))
                else {
                    continue;
                };
                if is_old && file.attributes.file_len().is_some() {
                    channel.remove(&self.path(&format!("tmp/{name}")))?;
                }
            }
            Ok(())
        };
        // Sweeping is a courtesy; what can't be swept harms nobody.
        let _courtesy = self.lines.once(|channel| sweep(channel).map_err(|stop| self.of_root(stop)));
    }

    fn read(&self, key: &ObjectKey, range: Option<&Range<u64>>) -> Result<Vec<u8>, StorageError> {
        let len = range.map_or(u64::MAX, |range| range.end.saturating_sub(range.start));
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.lines.again(line::len_of(key, len), |channel| self.read_by(channel, key, range))
    }

    fn read_by(&self, channel: &Channel, key: &ObjectKey, range: Option<&Range<u64>>) -> Result<Vec<u8>, Failure> {
        let out_of_range = || StorageError::new(StorageErrorKind::OutOfRange, key);
        let choose = |attributes: &packet::Attributes| match (attributes.file_len(), range) {
            (None, _) => Err(StorageError::new(StorageErrorKind::Other, key).cause("it is not a regular file")),
            (Some(len), None) if len > OBJECT_LEN_MAX => Err(out_of_range()),
            (Some(len), None) => Ok(0..len),
            (Some(len), Some(range)) if range.start <= range.end && range.end <= len => Ok(range.clone()),
            (Some(_), Some(_)) => Err(out_of_range()),
        };
        let guess = range.cloned().unwrap_or(0..DATA_LEN as u64);
        // Of packs many parts are read, one after the other.
        let is_part = range.is_some() && key.kind() == ObjectKind::Pack;
        let read = channel.read(&self.path(&key.path()), guess, is_part, choose);
        // Cut short between the look at its length and the last read: an object never is.
        let read = read.map_err(|stop| match stop {
            Stop::Status(status::EOF, _) => out_of_range().into(),
            stop => of_key(key, stop),
        })?;
        read.map_err(Failure::Answer)
    }

    /// The rows of one kind, unsorted.
    fn rows(&self, channel: &Channel, kind: ObjectKind) -> Result<Vec<Listed>, Stop> {
        if kind == ObjectKind::Config {
            let row = |len| Listed { key: ObjectKey::Config, len };
            return match channel.stat(&self.path("config")) {
                Ok(attributes) => Ok(attributes.file_len().map(row).into_iter().collect()),
                Err(stop) if stop.is_missing() => Ok(Vec::new()),
                Err(stop) => Err(stop),
            };
        }
        let mut directories = vec![kind.prefix().to_owned()];
        if kind == ObjectKind::Pack {
            let names = channel.list(&[self.path(kind.prefix())])?;
            let names = names.iter().filter_map(|(_, entry)| std::str::from_utf8(&entry.name).ok());
            directories = names.filter(|name| is_fan_out(name)).map(|name| format!("packs/{name}")).collect();
        }
        let paths: Vec<Vec<u8>> = directories.iter().map(|directory| self.path(directory)).collect();
        let mut rows = Vec::new();
        for (number, entry) in channel.list(&paths)? {
            let Ok(name) = std::str::from_utf8(&entry.name) else { continue };
            let Some(key) = ObjectKey::from_path(&format!("{}/{name}", directories[number])) else { continue };
            let mut attributes = entry.attributes;
            if attributes.tell_too_little() {
                attributes = match channel.stat(&self.path(&key.path())) {
                    Err(stop) if stop.is_missing() => continue,
                    attributes => attributes?,
                };
            }
            rows.extend(attributes.file_len().map(|len| Listed { key, len }));
        }
        Ok(rows)
    }
}

/// Starts ssh and agrees on a version.
fn start(address: &SshAddress) -> Result<Channel, StorageError> {
    let (process, mut out, mut input) = SshProcess::start(address, Remote::Sftp)?;
    let no_server = |cause: Box<dyn std::error::Error + Send + Sync>| {
        let text = format!("{address}: what answers is no SFTP server");
        StorageError::with_message(StorageErrorKind::Other, text).cause(cause).advise(
            "Try `sftp HOST` as the same user: a start-up file of the shell there that prints something, or a forced \
             command, is in the way",
        )
    };
    // If ssh is gone already, what it said is at the end of its output.
    let sent = wire::write_frame(&mut out, kind::INIT, packet::VERSION, &[]);
    match wire::read_frame(&mut input, PACKET_LEN_MAX) {
        Ok(Some(packet)) if packet.kind == kind::VERSION && packet.id >= packet::VERSION => {
            let extensions = Extensions::of(&packet);
            let line = Line::new(input, Box::new(out), Some(process), PACKET_LEN_MAX)?;
            Ok(Channel::new(line, extensions))
        }
        Ok(Some(_)) => Err(no_server("it gave another greeting".into())),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(no_server(error.into())),
        Ok(None) => Err(process.why(&sent.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()))),
        Err(error) => Err(process.why(&error)),
    }
}

fn try_name(channel: &Channel, temp: &[u8], path: &[u8]) -> Result<(), Stop> {
    if channel.extensions.hardlink {
        match channel.link(temp, path) {
            Err(Stop::Nonsense | Stop::Status(..)) => {}
            linked => return linked,
        }
    }
    // Taken, or a file system without hard links, or a server that has no word for them.
    channel.begin_look(path)?.must_be_free()?;
    let renamed = channel.rename(temp, path);
    if matches!(renamed, Err(Stop::Status(..))) {
        channel.begin_look(path)?.must_be_free()?;
    }
    renamed
}

/// Directories that were made are there after a power cut too.
fn settle(channel: &Channel, making: Making<'_, '_>) -> Result<(), Stop> {
    making.made()?.into_iter().try_for_each(|made| channel.begin_directory(parent(made))?.sync())
}

fn words(code: u32, text: &str) -> String {
    format!("the SFTP server says \"{text}\" (status {code})")
}

fn told(stop: Stop, error: impl FnOnce(StorageErrorKind) -> StorageError) -> Failure {
    let (code, text) = match stop {
        Stop::Lost => return Failure::Lost,
        Stop::Nonsense => {
            return error(StorageErrorKind::Other).cause("the SFTP server gave an answer that can't be").into();
        }
        Stop::Taken => return error(StorageErrorKind::Exists).into(),
        Stop::Status(code, text) => (code, text),
    };
    let kind = match code {
        status::NO_SUCH_FILE => StorageErrorKind::NotFound,
        status::PERMISSION_DENIED => StorageErrorKind::Denied,
        _ => StorageErrorKind::Other,
    };
    error(kind).cause(words(code, &text)).into()
}

fn of_key(key: &ObjectKey, stop: Stop) -> Failure {
    told(stop, |kind| StorageError::new(kind, key))
}

fn parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        None => b".",
        Some(0) => b"/",
        Some(slash) => &path[..slash],
    }
}

/// Two digits.
fn is_fan_out(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

fn random_name() -> Result<String, Stop> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| Stop::Nonsense)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

impl Storage for SftpStorage {
    fn put_new(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        let temp = self.upload(key, bytes, Some(&self.path(&key.path())))?;
        self.swept.call_once(|| self.sweep(&temp));
        let name = |channel: &Channel| self.name(channel, key, &temp);
        if !line::is_bulk(key) {
            return self.lines.once(name);
        }
        self.lines.put_bulk(0, name, |channel| Ok(self.read_by(channel, key, None)? == bytes))
    }

    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        let temp = self.upload(key, bytes, None)?;
        self.lines.once(|channel| {
            self.change(channel, key, |path| {
                let renamed = if channel.extensions.posix_rename {
                    channel.rename_over(&temp, path).map_err(|stop| of_key(key, stop))
                } else if channel.stat(path).is_err() {
                    channel.rename(&temp, path).map_err(|stop| of_key(key, stop))
                } else {
                    let text =
                        format!("Object {key} can't be replaced: the SFTP server has no posix-rename@openssh.com");
                    let error = StorageError::with_message(StorageErrorKind::Denied, text);
                    Err(error.advise("Repair the repository on the machine where it lies").into())
                };
                if matches!(renamed, Err(Failure::Answer(_))) {
                    let _swept_later = channel.have_removed(&temp);
                }
                renamed
            })
        })
    }

    fn get(&self, key: &ObjectKey) -> Result<ObjectBytes, StorageError> {
        self.read(key, None).map(ObjectBytes::Owned)
    }

    fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        self.read(key, Some(&range))
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StorageError> {
        let attributes =
            self.lines.again(0, |channel| channel.stat(&self.path(&key.path())).map_err(|stop| of_key(key, stop)))?;
        attributes.file_len().ok_or_else(|| StorageError::new(StorageErrorKind::NotFound, key))
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<Listed>, StorageError> {
        let mut rows = self.lines.again(0, |channel| self.rows(channel, kind).map_err(|stop| self.of_root(stop)))?;
        if rows.is_empty() {
            self.look()?;
        }
        rows.sort_unstable();
        Ok(rows)
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        self.lines
            .once(|channel| self.change(channel, key, |path| channel.remove(path).map_err(|stop| of_key(key, stop))))
    }

    fn location(&self) -> String {
        self.lines.location()
    }

    fn is_remote(&self) -> bool {
        true
    }
}
