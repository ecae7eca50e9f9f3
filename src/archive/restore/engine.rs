//! What walk and fetch share: the sources, the counts, and how things end.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use super::batch::{Batch, Place};
use super::decide::Policy;
use super::directory::Directory;
use super::file::{Ended, FileJob, OpenFiles};
use super::{Overwrite, Ownership, RestoreOptions, RestoreSummary, TreeSource};
use crate::archive::entry::{Content, Metadata, Time};
use crate::archive::path::escape;
use crate::archive::posix::{self, Owners, Refused, Wanted};
use crate::error::{Error, ErrorKind, Result};
use crate::observer::{Context, Counter, Problem};
use crate::pipeline::lock;
use crate::store::ChunkSource;

/// Files that were taken apart and are longer than this are made again one after the other.
const APART_LEN_SHORT: u64 = 4 << 20;
/// Their bytes are written in steps of this.
const APART_STEP_LEN: usize = 1 << 20;

#[derive(Debug, Default)]
struct Tally {
    restored: AtomicU64,
    right: AtomicU64,
    kept: AtomicU64,
    directories: AtomicU64,
    deleted: AtomicU64,
    bytes: AtomicU64,
    problems: AtomicU64,
}

/// One restore.
pub(super) struct Engine<'a> {
    pub chunks: &'a dyn ChunkSource,
    pub trees: &'a dyn TreeSource,
    pub options: &'a RestoreOptions,
    pub context: &'a Context<'a>,
    pub policy: Policy,
    pub open_files: OpenFiles,
    owners: Owners,
    owner_refused: AtomicBool,
    privileged_refused: AtomicBool,
    target: Vec<u8>,
    tally: Tally,
    /// Why a write had to stop everything, on its way past the chunk source.
    fatal: Mutex<Option<Error>>,
}

impl<'a> Engine<'a> {
    pub fn new(
        chunks: &'a dyn ChunkSource,
        trees: &'a dyn TreeSource,
        target: &Path,
        options: &'a RestoreOptions,
        context: &'a Context<'a>,
    ) -> Self {
        let uid = rustix::process::geteuid().as_raw();
        Self {
            chunks,
            trees,
            options,
            context,
            policy: Policy { overwrite: options.overwrite, verify: options.verify, uid },
            open_files: OpenFiles::default(),
            owners: Owners::new(),
            owner_refused: AtomicBool::new(false),
            privileged_refused: AtomicBool::new(false),
            target: target.as_os_str().as_bytes().to_vec(),
            tally: Tally::default(),
            fatal: Mutex::new(None),
        }
    }

    pub fn summary(&self) -> RestoreSummary {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RestoreSummary {
            files_restored: value(&self.tally.restored),
            files_right: value(&self.tally.right),
            files_kept: value(&self.tally.kept),
            directories: value(&self.tally.directories),
            files_deleted: value(&self.tally.deleted),
            bytes_restored: value(&self.tally.bytes),
            problems: value(&self.tally.problems),
        }
    }

    pub fn count_restored(&self) {
        self.tally.restored.fetch_add(1, Ordering::Relaxed);
        self.context.count(Counter::FilesRestored, 1);
    }

    pub fn count_right(&self) {
        self.tally.right.fetch_add(1, Ordering::Relaxed);
        self.context.count(Counter::FilesRight, 1);
    }

    pub fn count_kept(&self) {
        self.tally.kept.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_deleted(&self) {
        self.tally.deleted.fetch_add(1, Ordering::Relaxed);
        self.context.count(Counter::FilesDeleted, 1);
    }

    pub fn count_directory(&self) {
        self.tally.directories.fetch_add(1, Ordering::Relaxed);
        self.context.count(Counter::Directories, 1);
    }

    /// For people: where `name` of `directory` is.
    pub fn subject(&self, directory: &Directory, name: &[u8]) -> String {
        let mut path = self.target.clone();
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(&directory.path_of(name));
        escape(&path)
    }

    pub fn problem(&self, directory: &Directory, name: &[u8], message: impl Into<String>) {
        self.tally.problems.fetch_add(1, Ordering::Relaxed);
        self.context.observer.problem(Problem::new(self.subject(directory, name), message));
    }

    /// A failed call on the target: a problem of that name, unless all others would fail the same way.
    pub fn failed(&self, directory: &Directory, name: &[u8], what: &str, error: io::Error) -> Result<()> {
        if stops(&error) {
            return Err(Error::io(format!("Can't write {}", self.subject(directory, name)), error));
        }
        self.problem(directory, name, format!("{what}: {error}"));
        Ok(())
    }

    /// What the file system is to say of an entry. Streams and the directories above captured paths were never files: of
    /// them only mode and time are known, if that.
    pub fn wanted<'m>(&self, metadata: &'m Metadata) -> Wanted<'m> {
        if was_file(metadata) {
            let mode = Some(metadata.mode);
            Wanted { owner: self.owner(metadata), xattrs: Some(&metadata.xattrs), mode, mtime: Some(metadata.mtime) }
        } else {
            let mode = Some(metadata.mode).filter(|mode| *mode != 0);
            Wanted { mode, mtime: Some(metadata.mtime).filter(|time| *time != Time::default()), ..Wanted::default() }
        }
    }

    fn owner(&self, metadata: &Metadata) -> Option<(u32, u32)> {
        let named = |name: &[u8], find: &dyn Fn(&[u8]) -> Option<u32>| if name.is_empty() { None } else { find(name) };
        match self.options.ownership {
            Ownership::Leave => None,
            Ownership::Numbers => Some((metadata.uid, metadata.gid)),
            Ownership::Names => Some((
                named(&metadata.user, &|name| self.owners.uid(name)).unwrap_or(metadata.uid),
                named(&metadata.group, &|name| self.owners.gid(name)).unwrap_or(metadata.gid),
            )),
        }
    }

    /// The uid that an entry will belong to.
    pub fn owner_uid(&self, metadata: &Metadata) -> u32 {
        self.owner(metadata).map_or(self.policy.uid, |(uid, _)| uid)
    }

    /// Tells what metadata was refused. Owners and the attributes of the system are refused for all files or none: that
    /// is one problem each.
    pub fn note(&self, directory: &Directory, name: &[u8], refused: io::Result<Refused>) {
        match refused {
            Ok(refused) => {
                if refused.owner && !self.owner_refused.swap(true, Ordering::Relaxed) {
                    let message = "owners and groups are not restored, nor set-user-id bits with them: \
                                   only root may give files away (this file is the first)";
                    self.problem(directory, name, message);
                }
                if refused.privileged && !self.privileged_refused.swap(true, Ordering::Relaxed) {
                    let message = "extended attributes in security.* and trusted.* are not restored: \
                                   only root may set them (this file is the first)";
                    self.problem(directory, name, message);
                }
                for message in refused.problems {
                    self.problem(directory, name, message);
                }
            }
            Err(error) => self.problem(directory, name, format!("metadata not restored: {error}")),
        }
    }

    /// Ends a task in `directory`, and with the last one the directory, and so on upwards.
    pub fn end_task(&self, directory: &Arc<Directory>) {
        let mut next = Some(directory);
        while let Some(directory) = next {
            if !directory.end_task() {
                break;
            }
            self.complete_directory(directory);
            next = directory.parent();
        }
    }

    fn complete_directory(&self, directory: &Arc<Directory>) {
        let Some(made) = directory.made.get() else { return };
        let mut wanted = self.wanted(&directory.metadata);
        if made.ours && !was_file(&directory.metadata) {
            wanted.mode = wanted.mode.or(Some(0o755));
        }
        if !made.ours && (self.options.overwrite == Overwrite::Never || !was_file(&directory.metadata)) {
            wanted = Wanted { mode: made.closed_mode, ..Wanted::default() };
        }
        let refused = directory.open().and_then(|fd| posix::apply_open(&*fd, &wanted));
        self.note(directory, b".", refused);
        directory.close();
    }

    /// Fetches the chunks of `batch` and writes them to their places. A damaged chunk costs the files it belongs to and
    /// no others: what failed as a whole is asked for in halves.
    pub fn fetch(&self, batch: &Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let done: Vec<AtomicBool> = batch.ids.iter().map(|_| AtomicBool::new(false)).collect();
        let mut wanted: Vec<Vec<usize>> = vec![(0..batch.ids.len()).collect()];
        while let Some(positions) = wanted.pop() {
            let Err(error) = self.fetch_positions(batch, &positions, &done) else { continue };
            if let Some(fatal) = lock(&self.fatal).take() {
                return Err(fatal);
            }
            if !is_local(&error) {
                return Err(error);
            }
            let missing: Vec<usize> =
                positions.into_iter().filter(|position| !done[*position].load(Ordering::Acquire)).collect();
            match missing.as_slice() {
                [] => {}
                [position] => self.lose(&batch.places[*position], &error)?,
                several => {
                    let (left, right) = several.split_at(several.len() / 2);
                    wanted.extend([right.to_vec(), left.to_vec()]);
                }
            }
        }
        self.make_again(batch)?;
        self.read_back(batch);
        Ok(())
    }

    /// Short files beside each other; long ones one after the other, as each keeps all cores busy.
    fn make_again(&self, batch: &Batch) -> Result<()> {
        let (long, short): (Vec<_>, Vec<_>) =
            batch.apart.iter().partition(|(_, content)| content.stored_len() > APART_LEN_SHORT);
        short.par_iter().try_for_each(|(job, content)| self.make_file(job, content))?;
        long.iter().try_for_each(|(job, content)| self.make_file(job, content))
    }

    fn make_file(&self, job: &FileJob, content: &Content) -> Result<()> {
        let mut reader = self.trees.open(content);
        let mut buffer = vec![0; usize::try_from(content.len).unwrap_or(APART_STEP_LEN).min(APART_STEP_LEN)];
        let mut offset = 0;
        while offset < content.len {
            self.context.go_on()?;
            match reader.read(&mut buffer) {
                Ok(0) => return self.lose_rest(job, content.len - offset, &Error::damaged("It ends early")),
                Ok(len) => {
                    self.write(job, offset, &buffer[..len])?;
                    offset += len as u64;
                }
                Err(cause) => {
                    let error = cause.downcast().unwrap_or_else(|cause| Error::io("Its bytes can't be read", cause));
                    return self.lose_rest(job, content.len - offset, &error);
                }
            }
        }
        self.end_piece(job)
    }

    /// What is behind a piece that can't be made again is of no use without it.
    fn lose_rest(&self, job: &FileJob, len: u64, error: &Error) -> Result<()> {
        if !is_local(error) {
            let copy = Error::new(error.kind(), error.chain());
            return Err(copy);
        }
        job.lose(len);
        let subject = self.subject(&job.plan.directory, &job.plan.name);
        self.context.observer.detail(&format!("{subject}: the last {len} bytes: {}", error.chain()));
        self.end_piece(job)
    }

    fn fetch_positions(&self, batch: &Batch, positions: &[usize], done: &[AtomicBool]) -> Result<()> {
        let ids: Vec<_> = positions.iter().map(|position| batch.ids[*position]).collect();
        self.chunks.get_many(&ids, &|at, bytes| {
            self.context.go_on()?;
            let Some(position) = positions.get(at).copied() else {
                return Err(Error::new(ErrorKind::Bug, "A chunk came that nobody asked for"));
            };
            if done[position].swap(true, Ordering::AcqRel) {
                return Ok(());
            }
            batch.places[position].iter().try_for_each(|place| {
                self.context.go_on()?;
                self.put(place, bytes)
            })
        })
    }

    fn put(&self, place: &Place, bytes: &[u8]) -> Result<()> {
        let job = &place.job;
        if bytes.len() as u64 == place.len {
            self.write(job, place.offset, bytes)?;
        } else {
            job.fail(format!("the chunk at offset {} has another length than the snapshot says", place.offset));
        }
        self.end_piece(job)
    }

    fn write(&self, job: &FileJob, offset: u64, bytes: &[u8]) -> Result<()> {
        match job.put(offset, bytes) {
            Ok(written) => {
                self.tally.bytes.fetch_add(written, Ordering::Relaxed);
                self.context.count(Counter::BytesRestored, written);
                Ok(())
            }
            Err(error) => self.fail(job, &error),
        }
    }

    /// A write failed. If that stops the restore, the reason is kept: a chunk source may wrap what `deliver` returns.
    pub fn fail(&self, job: &FileJob, error: &io::Error) -> Result<()> {
        if stops(error) {
            let subject = self.subject(&job.plan.directory, &job.plan.name);
            let copy = || error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
            let stop = || Error::io(format!("Can't write {subject}"), copy());
            lock(&self.fatal).get_or_insert_with(stop);
            return Err(stop());
        }
        job.fail(format!("can't be written: {error}"));
        Ok(())
    }

    fn lose(&self, places: &[Place], error: &Error) -> Result<()> {
        for place in places {
            place.job.lose(place.len);
            let subject = self.subject(&place.job.plan.directory, &place.job.plan.name);
            self.context.observer.detail(&format!(
                "{subject}: {} bytes at {}: {}",
                place.len,
                place.offset,
                error.chain()
            ));
            self.end_piece(&place.job)?;
        }
        Ok(())
    }

    /// One piece less; the last one ends the file.
    pub fn end_piece(&self, job: &FileJob) -> Result<()> {
        if job.end_piece() { self.end_file(job) } else { Ok(()) }
    }

    fn end_file(&self, job: &FileJob) -> Result<()> {
        let plan = &job.plan;
        let (directory, name) = (&plan.directory, plan.name.as_slice());
        let mut refused = None;
        let ended = job.end(|file| refused = Some(posix::apply_open(file, &self.wanted(&plan.metadata))));
        if let Some(refused) = refused {
            self.note(directory, name, refused);
        }
        let whole = matches!(ended, Ok(Ended::Right | Ended::Restored));
        match ended {
            Ok(Ended::Right) => self.count_right(),
            Ok(Ended::Restored) => self.count_restored(),
            Ok(Ended::Failed(reason)) => self.problem(directory, name, reason),
            Err(error) => {
                self.fail(job, &error)?;
                self.problem(directory, name, format!("not restored: {error}"));
            }
        }
        if whole && plan.changed_while_read {
            self.context.observer.detail(&format!(
                "{}: changed while it was captured; its content may mix two states",
                self.subject(directory, name)
            ));
        }
        if let Some(first) = &plan.first {
            first.settle(whole);
        }
        self.end_task(directory);
        Ok(())
    }

    /// Long files span batches; what was written of them is verified batch by batch, so that memory stays flat.
    fn read_back(&self, batch: &Batch) {
        if self.options.verify {
            for job in &batch.jobs {
                if let Err(error) = job.read_back() {
                    job.fail(error.to_string());
                }
            }
        }
    }
}

/// Whether the entry was a file of a file system. The others have no inode.
pub(super) fn was_file(metadata: &Metadata) -> bool {
    metadata.inode != 0
}

/// Errors of one chunk or tree, as opposed to those of the whole repository.
pub(super) fn is_local(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound)
}

/// Errors after which every further file would fail as well.
pub(super) fn stops(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
        || matches!(rustix::io::Errno::from_io_error(error), Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
}
