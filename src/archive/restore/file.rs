//! One regular file on its way into the target.
//!
//! Three ways lead there. `Fresh`: nothing is there; the file is written under its own name, and its modification time
//! is set last, so that half a file is never taken for a right one. `Patch`: a file of the right length is there; what is
//! fetched is compared with it and only differences are written. `Replace`: written under a temporary name and renamed,
//! because what is there may be linked elsewhere, is of another length, runs as a program, or must not be lost half-way.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::directory::Directory;
use super::link::First;
use crate::archive::entry::Metadata;
use crate::pipeline::lock;

/// Most regular files that are kept open between two of their pieces.
const OPEN_MAX: usize = 256;
/// Zero runs are left out in multiples of this, where that was asked for.
const HOLE_GRAIN: usize = 4096;
/// Shorter zero runs are written: holes cost extents.
const HOLE_LEN_MIN: usize = 64 << 10;
/// Bytes compared or zeroed at once.
const STEP_LEN: usize = 1 << 20;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Way {
    #[default]
    Fresh,
    Patch,
    Replace,
}

/// A piece that was written and is to be read back.
#[derive(Debug, Clone, Copy)]
struct Written {
    offset: u64,
    len: u64,
    hash: blake3::Hash,
}

#[derive(Debug, Default)]
struct State {
    way: Way,
    begun: bool,
    file: Option<Arc<File>>,
    /// Something was written, or anything at all created.
    changed: bool,
    failure: Option<String>,
    lost_len: u64,
    got_len: u64,
    unread: Vec<Written>,
}

/// How a file ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was there and right.
    Right,
    /// It was written.
    Restored,
    /// It is not what it should be, for this reason.
    Failed(String),
}

/// Files of all jobs that are held open.
pub(super) type OpenFiles = Arc<AtomicUsize>;

/// What is known of a file before it is begun.
#[derive(Debug)]
pub(super) struct FilePlan {
    pub directory: Arc<Directory>,
    pub name: Vec<u8>,
    pub metadata: Metadata,
    pub len: u64,
    pub way: Way,
    /// It has holes or several pieces, so its length is set first.
    pub presize: bool,
    /// It is the first of several names of one file.
    pub first: Option<Arc<First>>,
    /// The snapshot says that it mixes two states.
    pub changed_while_read: bool,
}

/// One regular file.
#[derive(Debug)]
pub(super) struct FileJob {
    pub plan: FilePlan,
    /// Leave out long runs of zeros.
    sparse: bool,
    /// Remember what was written, for [`FileJob::read_back`].
    verify: bool,
    pending: AtomicUsize,
    open_files: OpenFiles,
    state: Mutex<State>,
}

impl FileJob {
    /// Nothing happens yet. The caller owns one pending piece, which stands for "there may be more".
    pub fn new(plan: FilePlan, sparse: bool, verify: bool, open_files: &OpenFiles) -> Arc<Self> {
        let state = State { way: plan.way, ..State::default() };
        let (pending, open_files) = (AtomicUsize::new(1), Arc::clone(open_files));
        Arc::new(Self { plan, sparse, verify, pending, open_files, state: Mutex::new(state) })
    }

    pub fn name(&self) -> &OsStr {
        OsStr::from_bytes(&self.plan.name)
    }

    /// One more piece is on its way.
    pub fn begin_piece(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// One less. True for the last.
    pub fn end_piece(&self) -> bool {
        self.pending.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// The file is given up; what is still coming for it is dropped.
    pub fn fail(&self, reason: String) {
        lock(&self.state).failure.get_or_insert(reason);
    }

    /// `len` bytes can't be had.
    pub fn lose(&self, len: u64) {
        lock(&self.state).lost_len += len;
    }

    /// Writes one piece, or sees that it is there. Gives the number of bytes written.
    pub fn put(&self, offset: u64, bytes: &[u8]) -> io::Result<u64> {
        let Some((file, way)) = self.open_for_piece()? else { return Ok(0) };
        let written = match way {
            Way::Patch => self.patch(&file, offset, bytes)?,
            Way::Fresh | Way::Replace => self.write(&file, offset, bytes)?,
        };
        let mut state = lock(&self.state);
        state.got_len += bytes.len() as u64;
        if written > 0 && self.verify {
            state.unread.push(Written { offset, len: bytes.len() as u64, hash: blake3::hash(bytes) });
        }
        Ok(written)
    }

    /// Sees to it that a hole is one.
    pub fn put_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        let Some((file, way)) = self.open_for_piece()? else { return Ok(()) };
        if way == Way::Patch && has_data(&file, offset, len) {
            self.begin_change(&file)?;
            clear(&file, offset, len)?;
        }
        Ok(())
    }

    fn open_for_piece(&self) -> io::Result<Option<(Arc<File>, Way)>> {
        let mut state = lock(&self.state);
        if state.failure.is_some() {
            return Ok(None);
        }
        let file = self.open(&mut state)?;
        Ok(Some((file, state.way)))
    }

    fn open(&self, state: &mut State) -> io::Result<Arc<File>> {
        if let Some(file) = &state.file {
            return Ok(Arc::clone(file));
        }
        let directory = self.plan.directory.open()?;
        let file = Arc::new(if state.begun {
            open_existing(&directory, &self.present_name(state.way))?
        } else {
            self.begin(&directory, state)?
        });
        if self.open_files.fetch_add(1, Ordering::Relaxed) < OPEN_MAX {
            state.file = Some(Arc::clone(&file));
        } else {
            self.open_files.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(file)
    }

    fn close(&self, state: &mut State) {
        if state.file.take().is_some() {
            self.open_files.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn present_name(&self, way: Way) -> Vec<u8> {
        if way == Way::Replace { temporary_name(&self.plan.name) } else { self.plan.name.clone() }
    }

    fn begin(&self, directory: &impl AsFd, state: &mut State) -> io::Result<File> {
        if state.way == Way::Patch {
            if let Ok(file) = self.begin_patch(directory) {
                state.begun = true;
                return Ok(file);
            }
            // Busy, not ours to write, or no longer what it was.
            state.way = Way::Replace;
        }
        let name = self.present_name(state.way);
        let file = match create_new(directory, &name) {
            Err(Errno::EXIST) if state.way == Way::Replace => {
                rustix::fs::unlinkat(directory, name.as_slice(), AtFlags::empty())?;
                create_new(directory, &name)?
            }
            other => other?,
        };
        (state.begun, state.changed) = (true, true);
        if self.plan.presize {
            file.set_len(self.plan.len)?;
        }
        Ok(file)
    }

    fn begin_patch(&self, directory: &impl AsFd) -> io::Result<File> {
        let file = open_existing(directory, &self.plan.name)?;
        let stat = rustix::fs::fstat(&file)?;
        let same_len = u64::try_from(stat.st_size) == Ok(self.plan.len);
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1 && same_len {
            Ok(file)
        } else {
            Err(io::ErrorKind::AlreadyExists.into())
        }
    }

    /// What others may read now isn't what they may read of the snapshot's file.
    fn begin_change(&self, file: &File) -> io::Result<()> {
        let mut state = lock(&self.state);
        if !state.changed {
            rustix::fs::fchmod(file, Mode::RUSR | Mode::WUSR)?;
            state.changed = true;
        }
        Ok(())
    }

    fn patch(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<u64> {
        let mut present = vec![0; bytes.len().min(STEP_LEN)];
        let mut written = 0;
        for (wanted, offset) in bytes.chunks(STEP_LEN).zip((offset..).step_by(STEP_LEN)) {
            let present = &mut present[..wanted.len()];
            // A file that got shorter, or a bad sector, differs.
            let same = file.read_exact_at(present, offset).is_ok() && present == wanted;
            if !same {
                self.begin_change(file)?;
                file.write_all_at(wanted, offset)?;
                written += wanted.len() as u64;
            }
        }
        Ok(written)
    }

    fn write(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<u64> {
        if self.sparse {
            for (start, run) in data_runs(bytes, offset) {
                file.write_all_at(run, offset + start as u64)?;
            }
        } else {
            file.write_all_at(bytes, offset)?;
        }
        Ok(bytes.len() as u64)
    }

    /// Reads back what was written since the last call, from the disk where the system lets us.
    pub fn read_back(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        let unread = std::mem::take(&mut state.unread);
        if unread.is_empty() || state.failure.is_some() {
            return Ok(());
        }
        let file = self.open(&mut state)?;
        drop(state);
        file.sync_data()?;
        // Advice only: a file system that ignores it makes the proof weaker, not wrong.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        for piece in unread {
            let mut bytes = vec![0; usize::try_from(piece.len).map_err(io::Error::other)?];
            file.read_exact_at(&mut bytes, piece.offset)?;
            if blake3::hash(&bytes) != piece.hash {
                let message = format!("the bytes at offset {} read back differ from those written", piece.offset);
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        }
        Ok(())
    }

    /// Completes the file: length, what `finish` does to it while it is open (metadata), final name.
    pub fn end(&self, finish: impl FnOnce(&File)) -> io::Result<Ended> {
        let read_back = self.read_back();
        let mut state = lock(&self.state);
        let ended = match (state.failure.take(), state.lost_len) {
            (Some(reason), _) => Ok(Ended::Failed(reason)),
            (None, 0) => read_back.and_then(|()| self.complete(&mut state, finish)),
            (None, lost) => Ok(Ended::Failed(self.lost(&state, lost))),
        };
        if !matches!(ended, Ok(Ended::Right | Ended::Restored)) {
            self.discard(&mut state);
        }
        self.close(&mut state);
        ended
    }

    fn complete(&self, state: &mut State, finish: impl FnOnce(&File)) -> io::Result<Ended> {
        let file = self.open(state)?;
        if file.metadata()?.len() != self.plan.len {
            file.set_len(self.plan.len)?;
        }
        finish(&file);
        if state.way == Way::Replace {
            let directory = self.plan.directory.open()?;
            let temporary = self.present_name(state.way);
            rustix::fs::renameat(&directory, temporary.as_slice(), &directory, self.name())?;
        }
        // From here on there is nothing to discard.
        state.begun = false;
        Ok(if state.changed { Ended::Restored } else { Ended::Right })
    }

    fn lost(&self, state: &State, lost: u64) -> String {
        let what = format!("{lost} of {} bytes can't be read from the repository", self.plan.len);
        match state.way {
            Way::Fresh if state.got_len > 0 => what + "; the others are in the file, zeros in their place",
            Way::Fresh => what,
            Way::Patch | Way::Replace => what + "; the file that was there stays",
        }
    }

    /// Removes what was begun and is of no use. Half of a new file is better than nothing; it keeps a modification time
    /// that no later restore takes as right.
    fn discard(&self, state: &mut State) {
        let useless = match state.way {
            Way::Replace => true,
            Way::Fresh => state.got_len == 0,
            Way::Patch => false,
        };
        if state.begun
            && useless
            && let Ok(directory) = self.plan.directory.open()
        {
            let _ = rustix::fs::unlinkat(&directory, self.present_name(state.way).as_slice(), AtFlags::empty());
        }
        state.begun = false;
    }
}

/// A restore that stops leaves no temporary files.
impl Drop for FileJob {
    fn drop(&mut self) {
        let mut state = std::mem::take(&mut *lock(&self.state));
        if state.begun && state.way == Way::Replace {
            self.discard(&mut state);
        }
        self.close(&mut state);
    }
}

/// Name under which a replacement of `name` is written. The same for every run, so that a later one cleans up after one
/// that was killed.
pub(super) fn temporary_name(name: &[u8]) -> Vec<u8> {
    let hash = blake3::hash(name);
    format!(".compline-restore-{}", crate::id::to_hex(&hash.as_bytes()[..8])).into_bytes()
}

fn create_new(directory: &impl AsFd, name: &[u8]) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

fn open_existing(directory: &impl AsFd, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?))
}

fn has_data(file: &File, offset: u64, len: u64) -> bool {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(data) => data < offset + len,
        Err(Errno::NXIO) => false,
        Err(_) => true,
    }
}

fn clear(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    if rustix::fs::fallocate(file, punch, offset, len).is_ok() {
        return Ok(());
    }
    let zeros = vec![0; STEP_LEN];
    let end = offset + len;
    let mut at = offset;
    while at < end {
        let step = usize::try_from(end - at).unwrap_or(STEP_LEN).min(STEP_LEN);
        file.write_all_at(&zeros[..step], at)?;
        at += step as u64;
    }
    Ok(())
}

/// The parts of `bytes` that are not in long runs of zeros, with their positions. Runs start and end at multiples of
/// the grain in the file, where a hole can be.
fn data_runs(bytes: &[u8], offset: u64) -> Vec<(usize, &[u8])> {
    let grain = HOLE_GRAIN as u64;
    let head = usize::try_from(offset.next_multiple_of(grain) - offset).unwrap_or(0).min(bytes.len());
    let mut runs = Vec::new();
    let (mut data_start, mut at) = (0, head);
    while at < bytes.len() {
        let zeros = bytes[at..].chunks_exact(HOLE_GRAIN).take_while(|block| is_zero(block)).count() * HOLE_GRAIN;
        if zeros >= HOLE_LEN_MIN {
            runs.push((data_start, &bytes[data_start..at]));
            data_start = at + zeros;
        }
        at += zeros.max(HOLE_GRAIN);
    }
    runs.push((data_start, &bytes[data_start..]));
    runs.retain(|(_, run)| !run.is_empty());
    runs
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_runs_leave_out_long_aligned_zeros_and_keep_everything_else() {
        let mut bytes = vec![1; 300_000];
        bytes[50_000..250_000].fill(0);
        bytes[260_000..261_000].fill(0);
        let runs = data_runs(&bytes, 100);
        assert_eq!(runs.len(), 2);
        let mut rebuilt = vec![0; bytes.len()];
        for (start, run) in &runs {
            rebuilt[*start..start + run.len()].copy_from_slice(run);
        }
        assert_eq!(rebuilt, bytes);
        assert_eq!((runs[0].1.len() + 100) % HOLE_GRAIN, 0);
        assert!(data_runs(&vec![0; 1 << 20], 0).is_empty());
    }

    #[test]
    fn a_temporary_name_is_short_and_always_the_same() {
        assert_eq!(temporary_name(&[b'a'; 255]), temporary_name(&[b'a'; 255]));
        assert_ne!(temporary_name(b"a"), temporary_name(b"b"));
        assert!(temporary_name(&[b'a'; 255]).len() < 64);
    }
}
