//! A line to another process with many requests on it at once: every thread writes its own, and one thread hands the
//! answers out by their ids. A line that broke is replaced by the next request; what may be asked twice is asked again.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::ssh::SshProcess;
use super::wire::{self, Frame};
use super::{StorageError, StorageErrorKind};
use crate::pipeline::{self, Receiver, Sender, Worker, bounded};

/// How long to wait before a broken line is tried again, each time. A server that is being restarted takes seconds.
const PAUSES: [Duration; 3] = [Duration::from_millis(100), Duration::from_secs(2), Duration::from_secs(8)];
/// Answers to one request that wait for who asked. Who asked is always listening.
const ROOM: usize = 8;

/// Why a request has no answer.
#[derive(Debug)]
pub enum Failure {
    /// The line broke. Nobody knows whether the request was done.
    Lost,
    /// An answer, and no good one.
    Answer(StorageError),
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::Answer(error)
    }
}

type Slots = HashMap<u32, Sender<Frame>>;

#[derive(Debug, Default)]
struct Waiting {
    slots: Slots,
    /// Why nothing comes any more.
    ended: Option<io::Error>,
}

/// A line that is open, or was.
pub struct Line {
    out: Mutex<Option<Box<dyn Write + Send>>>,
    waiting: Arc<Mutex<Waiting>>,
    next: AtomicU32,
    /// Nothing can be written any more.
    is_broken: AtomicBool,
    reader: Option<Worker>,
    process: Option<SshProcess>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("process", &self.process).finish_non_exhaustive()
    }
}

impl Line {
    /// Takes over a line on which both sides have greeted each other. Frames longer than `len_max` break it.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn new(
        mut input: impl Read + Send + 'static,
        out: Box<dyn Write + Send>,
        process: Option<SshProcess>,
        len_max: usize,
    ) -> Result<Self, StorageError> {
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let answered = waiting.clone();
        let reader = Worker::spawn("line", move || {
            let ended = hand_out(&mut input, len_max, &answered);
            let mut waiting = pipeline::lock(&answered);
            waiting.ended = Some(ended);
            waiting.slots.clear();
        });
        let reader = reader.map_err(|cause| {
            StorageError::with_message(StorageErrorKind::Other, "A thread can't be started").cause(cause)
        })?;
        let (out, reader) = (Mutex::new(Some(out)), Some(reader));
        Ok(Self { out, waiting, next: AtomicU32::new(1), is_broken: AtomicBool::new(false), reader, process })
    }

    /// Sends a request. Its answers come by [`Pending::next`].
    ///
    /// # Errors
    /// `Lost`.
    pub fn begin(&self, kind: u8, parts: &[&[u8]]) -> Result<Pending<'_>, Failure> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answers) = bounded(ROOM);
        {
            let mut waiting = pipeline::lock(&self.waiting);
            if waiting.ended.is_some() {
                return Err(Failure::Lost);
            }
            waiting.slots.insert(id, sender);
        }
        let pending = Pending { line: self, id, answers };
        let mut out = pipeline::lock(&self.out);
        let open = out.as_mut().ok_or(Failure::Lost)?;
        if wire::write_frame(open, kind, id, parts).is_err() {
            // Half a frame may be on its way: nothing sensible can follow it.
            self.is_broken.store(true, Ordering::Relaxed);
            *out = None;
            return Err(Failure::Lost);
        }
        Ok(pending)
    }

    /// Whether nothing can be asked here any more.
    fn is_over(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed) || pipeline::lock(&self.waiting).ended.is_some()
    }

    /// Why it broke.
    fn why(&self, location: &str) -> StorageError {
        self.is_broken.store(true, Ordering::Relaxed);
        *pipeline::lock(&self.out) = None;
        let mut waiting = pipeline::lock(&self.waiting);
        let cause = waiting.ended.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
        waiting.ended = Some(cause.kind().into());
        drop(waiting);
        match &self.process {
            Some(process) => process.why(&cause),
            None => StorageError::with_message(StorageErrorKind::Other, format!("The line to {location} broke"))
                .cause(cause),
        }
    }
}

/// The reader of a line ends when its other side closes it, and its other side when there is nothing more to read.
impl Drop for Line {
    fn drop(&mut self) {
        *pipeline::lock(&self.out) = None;
        drop(self.process.take());
        drop(self.reader.take());
    }
}

/// Hands answers out until the line ends. Answers that nobody wants any more are dropped.
fn hand_out(input: &mut impl Read, len_max: usize, waiting: &Mutex<Waiting>) -> io::Error {
    loop {
        match wire::read_frame(input, len_max) {
            Ok(Some(frame)) => {
                let slot = pipeline::lock(waiting).slots.get(&frame.id).cloned();
                let _unwanted = slot.map(|slot| slot.send(frame));
            }
            Ok(None) => return io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed"),
            Err(error) => return error,
        }
    }
}

/// A request under way. Dropped, its answers go nowhere.
#[derive(Debug)]
pub struct Pending<'l> {
    line: &'l Line,
    id: u32,
    answers: Receiver<Frame>,
}

impl Pending<'_> {
    /// The next answer.
    ///
    /// # Errors
    /// `Lost`.
    pub fn next(&self) -> Result<Frame, Failure> {
        self.answers.recv().map_err(|_| Failure::Lost)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        pipeline::lock(&self.line.waiting).slots.remove(&self.id);
    }
}

/// A line that is made again when it broke.
pub struct Lines<L> {
    location: String,
    current: Mutex<Option<Arc<L>>>,
    connect: Box<dyn Fn() -> Result<L, StorageError> + Send + Sync>,
}

impl<L: AsRef<Line>> Lines<L> {
    /// Connects, or doesn't and says why.
    ///
    /// # Errors
    /// From `connect`.
    pub fn open(
        location: String,
        first: L,
        connect: impl Fn() -> Result<L, StorageError> + Send + Sync + 'static,
    ) -> Self {
        Self { location, current: Mutex::new(Some(Arc::new(first))), connect: Box::new(connect) }
    }

    /// The open line; a new one if the last one is known to be broken.
    fn current(&self) -> Result<Arc<L>, StorageError> {
        let mut current = pipeline::lock(&self.current);
        if let Some(line) = current.as_ref().filter(|line| !line.as_ref().as_ref().is_over()) {
            return Ok(line.clone());
        }
        *current = None;
        let line = Arc::new((self.connect)()?);
        *current = Some(line.clone());
        Ok(line)
    }

    /// Asks once: for what must not be done twice.
    ///
    /// # Errors
    /// From the answer; or why the line broke, in which case nobody knows whether it was done.
    pub fn once<T>(&self, ask: impl FnOnce(&L) -> Result<T, Failure>) -> Result<T, StorageError> {
        let line = self.current()?;
        ask(&line).map_err(|failure| match failure {
            Failure::Answer(error) => error,
            Failure::Lost => line.as_ref().as_ref().why(&self.location),
        })
    }

    /// Asks again when the line breaks: for what makes no difference when it is done twice.
    ///
    /// # Errors
    /// From the answer; or why the line broke.
    pub fn again<T>(&self, ask: impl Fn(&L) -> Result<T, Failure>) -> Result<T, StorageError> {
        let mut pauses = PAUSES.iter();
        loop {
            let error = match self.current() {
                Ok(line) => match ask(&line) {
                    Ok(answer) => return Ok(answer),
                    Err(Failure::Answer(error)) => return Err(error),
                    Err(Failure::Lost) => line.as_ref().as_ref().why(&self.location),
                },
                Err(error) if error.kind() != StorageErrorKind::Other => return Err(error),
                // Nobody there any more, though there was when this began: perhaps in a moment.
                Err(error) => error,
            };
            let Some(pause) = pauses.next() else { return Err(error) };
            pipeline::pause(*pause);
        }
    }

    /// Where this goes.
    pub fn location(&self) -> String {
        self.location.clone()
    }
}

impl<L> std::fmt::Debug for Lines<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("location", &self.location).finish_non_exhaustive()
    }
}
