//! Lines to another process with many requests on them at once: every thread writes its own, and one thread hands the
//! answers out by their ids. A line that broke is replaced by the next request; what may be asked twice is asked again.
//!
//! OpenSSH lets 2 MiB be under way on a line, which is 100 MB/s with a way of 20 ms there and back and less with a longer one, and has
//! one core for its cipher. So what is long goes over further lines, which are made when all others are busy with something
//! long. A handshake takes half a dozen ways there and back; nobody waits for it, and what is long goes over a busy line
//! meanwhile. Everything else goes over the first one: its order is kept, and a server that knows what a connection put is asked
//! by the one that put it.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::ssh::SshProcess;
use super::wire::{self, Frame};
use super::{ObjectKey, ObjectKind, StorageError, StorageErrorKind};
use crate::pipeline::{self, Receiver, Sender, Worker, bounded};

/// How long to wait before a broken line is tried again, each time. A server that is being restarted takes seconds.
const PAUSES: [Duration; 3] = [Duration::from_millis(100), Duration::from_secs(2), Duration::from_secs(8)];
/// Lines at once.
const LINES_MAX: usize = 4;
/// What is shorter is not worth another line, and waits for no longer than a way there and back.
const LONG_LEN: usize = 256 << 10;
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

    /// Nothing more is going to be asked. The other side ends, in its own time.
    fn hang_up(&self) {
        *pipeline::lock(&self.out) = None;
    }

    /// Whether nothing can be asked here any more.
    fn is_over(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed) || pipeline::lock(&self.waiting).ended.is_some()
    }

    /// Why it broke.
    fn why(&self, location: &str) -> StorageError {
        self.is_broken.store(true, Ordering::Relaxed);
        self.hang_up();
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
        self.hang_up();
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

/// Lines that are made again when they broke.
pub struct Lines<L: AsRef<Line>> {
    location: String,
    places: [Arc<Place<L>>; LINES_MAX],
    connect: Arc<Connect<L>>,
}

type Connect<L> = dyn Fn() -> Result<L, StorageError> + Send + Sync;

/// Whether nobody minds over which connection an object is put, nor when.
pub fn is_bulk(key: &ObjectKey) -> bool {
    matches!(key.kind(), ObjectKind::Pack | ObjectKind::Segment)
}

/// How long a request about `key` with so many bytes, there or back, is taken to be. Long ones may go over any line, but what a
/// server knows by the connection that put it never does.
pub fn len_of(key: &ObjectKey, len: usize) -> usize {
    if is_bulk(key) { len } else { 0 }
}

/// Where a line is, or may be.
struct Place<L> {
    current: Mutex<Option<Arc<L>>>,
    /// Long requests and answers that are under way.
    long_count: AtomicUsize,
    /// One of the three below.
    state: AtomicU8,
    opener: Mutex<Option<Worker>>,
}

/// Nobody has needed it so far.
const ABSENT: u8 = 0;
/// It is there, and made again when it broke.
const OPEN: u8 = 1;
/// It is being made, or could not be.
const CLOSED: u8 = 2;

impl<L> Default for Place<L> {
    fn default() -> Self {
        let (state, opener) = (AtomicU8::new(ABSENT), Mutex::default());
        Self { current: Mutex::default(), long_count: AtomicUsize::new(0), state, opener }
    }
}

/// What is still being made is waited for. Then the end of one is, so that of the others is to come meanwhile.
impl<L: AsRef<Line>> Drop for Lines<L> {
    fn drop(&mut self) {
        for place in &self.places {
            drop(pipeline::lock(&place.opener).take());
            pipeline::lock(&place.current).iter().for_each(|line| line.as_ref().as_ref().hang_up());
        }
    }
}

/// A place that is busy until this is dropped.
struct Busy<'p, L>(&'p Place<L>);

impl<L> Drop for Busy<'_, L> {
    fn drop(&mut self) {
        self.0.long_count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<L: AsRef<Line> + Send + Sync + 'static> Lines<L> {
    /// Takes over the first line.
    pub fn open(
        location: String,
        first: L,
        connect: impl Fn() -> Result<L, StorageError> + Send + Sync + 'static,
    ) -> Self {
        let places: [Arc<Place<L>>; LINES_MAX] = std::array::from_fn(|_| Arc::default());
        *pipeline::lock(&places[0].current) = Some(Arc::new(first));
        places[0].state.store(OPEN, Ordering::Relaxed);
        Self { location, places, connect: Arc::new(connect) }
    }

    /// The open line at `place`; a new one if the last one is known to be broken.
    fn line_at(&self, place: &Place<L>) -> Result<Arc<L>, StorageError> {
        let mut current = pipeline::lock(&place.current);
        if let Some(line) = current.as_ref().filter(|line| !line.as_ref().as_ref().is_over()) {
            return Ok(line.clone());
        }
        *current = None;
        let line = Arc::new((self.connect)()?);
        *current = Some(line.clone());
        Ok(line)
    }

    /// A line for a request that is so long, with its answer, and what keeps it busy.
    fn line_for(&self, len: usize) -> Result<(Arc<L>, Option<Busy<'_, L>>), StorageError> {
        let first = &self.places[0];
        if len < LONG_LEN {
            return Ok((self.line_at(first)?, None));
        }
        let open = self.places.iter().filter(|place| place.state.load(Ordering::Acquire) == OPEN);
        let place = open.min_by_key(|place| place.long_count.load(Ordering::Relaxed)).unwrap_or(first);
        if place.long_count.fetch_add(1, Ordering::Relaxed) > 0 {
            self.open_another();
        }
        let busy = Busy(place);
        match self.line_at(place) {
            Ok(line) => Ok((line, Some(busy))),
            // It was there once, and may be again.
            Err(_) if !Arc::ptr_eq(place, first) => {
                place.state.store(ABSENT, Ordering::Relaxed);
                Ok((self.line_at(first)?, None))
            }
            Err(error) => Err(error),
        }
    }

    /// Does something with each line that is there. One that is just being made again is new.
    pub fn each(&self, tell: impl Fn(&L)) {
        for place in &self.places {
            let line = place.current.try_lock().ok().and_then(|current| current.clone());
            if let Some(line) = line {
                tell(&line);
            }
        }
    }

    /// Has one more line made, if there may be one more.
    fn open_another(&self) {
        let is_taken = |place: &&Arc<Place<L>>| {
            place.state.compare_exchange(ABSENT, CLOSED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        let Some(place) = self.places.iter().find(is_taken) else { return };
        let (there, connect) = (place.clone(), self.connect.clone());
        let opener = Worker::spawn("connect", move || {
            // A server may let only so many in.
            let Ok(line) = connect() else { return };
            *pipeline::lock(&there.current) = Some(Arc::new(line));
            there.state.store(OPEN, Ordering::Release);
        });
        *pipeline::lock(&place.opener) = opener.ok();
    }

    /// Asks once, over the first line: for what must not be done twice.
    ///
    /// # Errors
    /// From the answer; or why the line broke, in which case nobody knows whether it was done.
    pub fn once<T>(&self, ask: impl FnOnce(&L) -> Result<T, Failure>) -> Result<T, StorageError> {
        let line = self.line_at(&self.places[0])?;
        ask(&line).map_err(|failure| match failure {
            Failure::Answer(error) => error,
            Failure::Lost => line.as_ref().as_ref().why(&self.location),
        })
    }

    /// Asks again when the line breaks: for what makes no difference when it is done twice. `len` is how long the request is, with its
    /// answer.
    ///
    /// # Errors
    /// From the answer; or why the line broke.
    pub fn again<T>(&self, len: usize, ask: impl Fn(&L) -> Result<T, Failure>) -> Result<T, StorageError> {
        let mut pauses = PAUSES.iter();
        loop {
            let error = match self.line_for(len) {
                Ok((line, _busy)) => match ask(&line) {
                    Ok(answer) => return Ok(answer),
                    Err(Failure::Answer(error)) => return Err(error),
                    Err(Failure::Lost) => line.as_ref().as_ref().why(&self.location),
                },
                Err(error) if error.kind() != StorageErrorKind::Other => return Err(error),
                // Nobody there any more, though there was when this began: perhaps in a moment.
                Err(error) => error,
            };
            let Some(pause) = pauses.next() else { return Err(error) };
            pipeline::pause_unless_stopping(*pause);
        }
    }

    /// Puts what [`is_bulk`], again when the line breaks. Whether it was put when the answer was lost tells the next answer: there is
    /// something of that name, and `holds` says if it is what was put.
    ///
    /// # Errors
    /// From the answer; or why the line broke.
    pub fn put_bulk(
        &self,
        len: usize,
        put: impl Fn(&L) -> Result<(), Failure>,
        holds: impl Fn(&L) -> Result<bool, Failure>,
    ) -> Result<(), StorageError> {
        let was_lost = Cell::new(false);
        self.again(len, |line| {
            let answer = put(line);
            was_lost.set(was_lost.get() || matches!(answer, Err(Failure::Lost)));
            match answer {
                Err(Failure::Answer(error)) if was_lost.get() && error.kind() == StorageErrorKind::Exists => {
                    match holds(line) {
                        Ok(true) => Ok(()),
                        Err(Failure::Lost) => Err(Failure::Lost),
                        Ok(false) | Err(Failure::Answer(_)) => Err(error.into()),
                    }
                }
                answer => answer,
            }
        })
    }

    /// Where this goes.
    pub fn location(&self) -> String {
        self.location.clone()
    }
}

impl<L: AsRef<Line>> std::fmt::Debug for Lines<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("location", &self.location).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line to itself, which lasts until it is hung up.
    struct Loop(Line);

    impl AsRef<Line> for Loop {
        fn as_ref(&self) -> &Line {
            &self.0
        }
    }

    fn connect() -> Result<Loop, StorageError> {
        let (input, out) = io::pipe().unwrap();
        Line::new(input, Box::new(out), None, 1).map(Loop)
    }

    fn lines(connect_next: impl Fn() -> Result<Loop, StorageError> + Send + Sync + 'static) -> Lines<Loop> {
        Lines::open("there".to_owned(), connect().unwrap(), connect_next)
    }

    fn exists() -> Failure {
        StorageError::with_message(StorageErrorKind::Exists, "taken").into()
    }

    #[test]
    fn a_put_whose_answer_was_lost_is_done_if_there_is_what_was_put() {
        for is_ours in [true, false] {
            let lines = lines(connect);
            let tries = Cell::new(0);
            let put = |_: &Loop| {
                tries.set(tries.get() + 1);
                Err(if tries.get() == 1 { Failure::Lost } else { exists() })
            };
            assert_eq!(lines.put_bulk(0, put, |_| Ok(is_ours)).is_ok(), is_ours);
            assert_eq!(tries.get(), 2);
        }
        let error = lines(connect).put_bulk(0, |_| Err(exists()), |_| Ok(true)).unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Exists, "nothing was lost, so it is somebody else's");
    }

    #[test]
    fn long_requests_get_further_lines_which_nobody_waits_for() {
        let lines = lines(connect);
        let (first, _busy) = lines.line_for(LONG_LEN).unwrap();
        let (same, _busy_again) = lines.line_for(LONG_LEN).unwrap();
        assert!(Arc::ptr_eq(&first, &same));
        drop(pipeline::lock(&lines.places[1].opener).take());
        let (second, _also_busy) = lines.line_for(LONG_LEN).unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        let (short, _not_busy) = lines.line_for(LONG_LEN - 1).unwrap();
        assert!(Arc::ptr_eq(&first, &short));
    }

    #[test]
    fn where_only_one_line_may_be_it_carries_everything() {
        let lines = lines(|| Err(StorageError::with_message(StorageErrorKind::Other, "one is enough")));
        let busy: Vec<_> = (0..10)
            .map(|_| {
                let line = lines.line_for(LONG_LEN).unwrap();
                lines.places.iter().for_each(|place| drop(pipeline::lock(&place.opener).take()));
                line
            })
            .collect();
        assert!(busy.iter().all(|(line, _)| Arc::ptr_eq(line, &busy[0].0)));
    }
}
