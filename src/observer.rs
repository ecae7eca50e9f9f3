//! What a run tells while it works. Work is counted once, through [`Observer::count`]; reports are read from the
//! counters, tests assert on them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::clock::Clock;
use crate::error::{Error, Result};

/// Things that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
#[expect(missing_docs, reason = "the names say it; units are bytes where the name says Bytes, else pieces")]
pub enum Counter {
    /// Content bytes read from the source.
    BytesRead,
    /// Content bytes that were not in the repository before.
    BytesNew,
    /// Bytes of objects written to storage.
    BytesStored,
    ChunksNew,
    ChunksKnown,
    ChunksDelta,
    FilesNew,
    FilesChanged,
    FilesUnchanged,
    Directories,
    BytesRestored,
    FilesRestored,
    /// Files in the target that were right already.
    FilesRight,
    FilesDeleted,
    /// Stored bytes that were read and verified.
    BytesChecked,
    ChunksChecked,
    ObjectsPut,
    ObjectsRead,
    /// Bytes read from storage.
    BytesFetched,
}

const COUNTERS: usize = Counter::BytesFetched as usize + 1;

/// Something wrong that did not stop the operation. Counted, printed, recorded and in the exit code.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Problem {
    /// What it is about: a path, a component, an object.
    pub subject: String,
    /// What is wrong with it.
    pub message: String,
}

impl Problem {
    /// A problem with `subject`.
    pub fn new(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { subject: subject.into(), message: message.into() }
    }
}

/// Receives what a run tells. Called from many threads.
pub trait Observer: Send + Sync {
    /// `n` more of `counter`.
    fn count(&self, counter: Counter, n: u64);
    /// A new phase begins, for people: "Saving database".
    fn stage(&self, _what: &str) {}
    /// The present phase expects to handle so many bytes and files.
    fn expect(&self, _bytes: u64, _files: u64) {}
    /// Something is wrong but the run goes on.
    fn problem(&self, problem: Problem);
    /// Something that people should know while it goes on, those who asked for quiet as well: why nothing seems to happen.
    fn notice(&self, _line: &str) {}
    /// A detail for those who asked for details.
    fn detail(&self, _line: &str) {}
}

/// Counts, and keeps the problems.
#[derive(Debug, Default)]
pub struct Ledger {
    counters: [AtomicU64; COUNTERS],
    problems: Mutex<Vec<Problem>>,
}

impl Ledger {
    /// The value of `counter` now.
    pub fn get(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Ordering::Relaxed)
    }

    /// The problems so far, in the order they were met.
    pub fn problems(&self) -> Vec<Problem> {
        self.problems.lock().map(|list| list.clone()).unwrap_or_default()
    }
}

impl Observer for Ledger {
    fn count(&self, counter: Counter, n: u64) {
        self.counters[counter as usize].fetch_add(n, Ordering::Relaxed);
    }

    fn problem(&self, problem: Problem) {
        if let Ok(mut list) = self.problems.lock() {
            list.push(problem);
        }
    }
}

/// Passes everything on, and keeps the problems of one part of a run.
pub struct Recorder<'a> {
    inner: &'a dyn Observer,
    kept: Mutex<(u64, Vec<Problem>)>,
}

impl<'a> Recorder<'a> {
    /// Problems that are kept in full; the rest is only counted.
    const KEPT_COUNT_MAX: usize = 100;

    /// A recorder in front of `inner`.
    #[must_use]
    pub fn new(inner: &'a dyn Observer) -> Self {
        Self { inner, kept: Mutex::default() }
    }

    /// How many problems there were, and the first of them.
    #[must_use]
    pub fn problems(&self) -> (u64, Vec<Problem>) {
        self.kept.lock().map(|kept| kept.clone()).unwrap_or_default()
    }
}

impl Observer for Recorder<'_> {
    fn count(&self, counter: Counter, n: u64) {
        self.inner.count(counter, n);
    }

    fn stage(&self, what: &str) {
        self.inner.stage(what);
    }

    fn expect(&self, bytes: u64, files: u64) {
        self.inner.expect(bytes, files);
    }

    fn problem(&self, problem: Problem) {
        if let Ok(mut kept) = self.kept.lock() {
            kept.0 += 1;
            if kept.1.len() < Self::KEPT_COUNT_MAX {
                kept.1.push(problem.clone());
            }
        }
        self.inner.problem(problem);
    }

    fn notice(&self, line: &str) {
        self.inner.notice(line);
    }

    fn detail(&self, line: &str) {
        self.inner.detail(line);
    }
}

/// What the world gives to every operation: time, ears, and the wish to stop.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Tells the time.
    pub clock: &'a dyn Clock,
    /// Is told what happens.
    pub observer: &'a dyn Observer,
    /// Set when a person or the system asked to stop.
    pub interrupt: &'a AtomicBool,
}

impl Context<'_> {
    /// Fails when the run was asked to stop. Called at least once for each chunk, file and request.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`](crate::error::ErrorKind::Interrupted).
    pub fn go_on(&self) -> Result<()> {
        if self.interrupt.load(Ordering::Relaxed) { Err(Error::interrupted()) } else { Ok(()) }
    }

    /// Counts `n` of `counter`.
    pub fn count(&self, counter: Counter, n: u64) {
        self.observer.count(counter, n);
    }
}
