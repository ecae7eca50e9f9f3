//! Files and directories of an SFTP server: several requests under way, one after the other only where one needs the answer
//! of another.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::super::line::{Failure, Line, Pending};
use super::super::wire::Frame;
use super::packet::{self, Attributes, DATA_LEN, Extensions, Name, kind, status};
use crate::pipeline;

/// Bytes that are read or written at once: they fill a line of 100 MB/s with 40 ms of latency.
const WINDOW_LEN: usize = 4 << 20;
/// Directories that are read at once.
const DIRECTORIES: usize = 32;
/// Most bytes that are taken for names: several million objects. A hostile server never comes to an end.
const NAMES_LEN_MAX: usize = 1 << 30;
/// Files of which parts were read that are kept open, for the next part.
const KEPT_COUNT_MAX: usize = 16;
/// For so long: what another process puts in the place of a file has to be seen some time.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// Why something was not done.
#[derive(Debug)]
pub enum Stop {
    /// The line broke.
    Lost,
    /// The server said no: its code and its words.
    Status(u32, String),
    /// The server said something that can't be.
    Nonsense,
    /// There is something of that name.
    Taken,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Lost => Self::Lost,
            Failure::Answer(_) => Self::Nonsense,
        }
    }
}

impl Stop {
    /// Whether the server has no file or directory of that name.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Status(status::NO_SUCH_FILE, _))
    }
}

/// A line with an SFTP server at its end.
#[derive(Debug)]
pub struct Channel {
    pub line: Line,
    pub extensions: Extensions,
    /// Bytes in one read or write, once somebody needed to know.
    data_len: OnceLock<usize>,
    /// The one that was opened last is the last.
    kept: Mutex<VecDeque<Kept>>,
}

/// A file that is open to be read. Who lets go of its handle last closes it.
#[derive(Debug)]
struct Kept {
    path: Vec<u8>,
    handle: Arc<Vec<u8>>,
    since: Instant,
}

impl AsRef<Line> for Channel {
    fn as_ref(&self) -> &Line {
        &self.line
    }
}

/// The answer must be a STATUS that says yes.
fn done(frame: &Frame) -> Result<(), Stop> {
    match status_of(frame)? {
        (status::OK, _) => Ok(()),
        (code, text) => Err(Stop::Status(code, text)),
    }
}

fn status_of(frame: &Frame) -> Result<(u32, String), Stop> {
    let status = (frame.kind == kind::STATUS).then(|| packet::status_of(&frame.body)).flatten();
    status.ok_or(Stop::Nonsense)
}

/// The answer must be of `kind`; a STATUS says why it is not.
fn of_kind(frame: Frame, kind: u8) -> Result<Vec<u8>, Stop> {
    if frame.kind == kind {
        return Ok(frame.body);
    }
    let (code, text) = status_of(&frame)?;
    Err(Stop::Status(code, text))
}

fn handle_of(frame: Frame) -> Result<Vec<u8>, Stop> {
    let body = of_kind(frame, kind::HANDLE)?;
    packet::only_text(&body).map(<[u8]>::to_vec).ok_or(Stop::Nonsense)
}

fn names_of(frame: Frame) -> Result<Vec<Name>, Stop> {
    let body = of_kind(frame, kind::NAME)?;
    packet::names(&body).filter(|names| !names.is_empty()).ok_or(Stop::Nonsense)
}

fn attributes_of(frame: Frame) -> Result<Attributes, Stop> {
    let body = of_kind(frame, kind::ATTRS)?;
    Attributes::take(&mut super::super::wire::Fields(&body)).ok_or(Stop::Nonsense)
}

impl Channel {
    pub fn new(line: Line, extensions: Extensions) -> Self {
        Self { line, extensions, data_len: OnceLock::new(), kept: Mutex::default() }
    }

    /// Bytes in one read or write of so many. A server that takes more than it must is asked only if that saves something.
    fn data_len(&self, len: u64) -> Result<usize, Stop> {
        if let Some(len) = self.data_len.get() {
            return Ok(*len);
        }
        if len < WINDOW_LEN as u64 / 4 || !self.extensions.limits {
            return Ok(DATA_LEN);
        }
        let answer = self.ask(kind::EXTENDED, &packet::extended("limits@openssh.com", &[]))?;
        let told = (answer.kind == kind::EXTENDED_REPLY).then(|| packet::data_len(&answer.body)).flatten();
        Ok(*self.data_len.get_or_init(|| told.unwrap_or(DATA_LEN)))
    }

    fn begin(&self, kind: u8, body: &[u8]) -> Result<Pending<'_>, Stop> {
        Ok(self.line.begin(kind, &[body])?)
    }

    fn ask(&self, kind: u8, body: &[u8]) -> Result<Frame, Stop> {
        Ok(self.begin(kind, body)?.next()?)
    }

    pub fn stat(&self, path: &[u8]) -> Result<Attributes, Stop> {
        attributes_of(self.ask(kind::STAT, &packet::text(path))?)
    }

    pub fn remove(&self, path: &[u8]) -> Result<(), Stop> {
        done(&self.ask(kind::REMOVE, &packet::text(path))?)
    }

    /// Has a file removed; nobody waits for the answer.
    pub fn have_removed(&self, path: &[u8]) -> Result<(), Stop> {
        self.begin(kind::REMOVE, &packet::text(path)).map(drop)
    }

    /// Has directories made, parents first.
    pub fn begin_directories<'p>(&self, paths: &'p [impl AsRef<[u8]>]) -> Result<Making<'_, 'p>, Stop> {
        let begin = |path: &'p _| {
            let path = AsRef::<[u8]>::as_ref(path);
            Ok((path, self.begin(kind::MKDIR, &packet::make_directory(path))?))
        };
        Ok(Making(paths.iter().map(begin).collect::<Result<_, Stop>>()?))
    }

    /// Names `from` `to` unless that is taken, in one step.
    pub fn link(&self, from: &[u8], to: &[u8]) -> Result<(), Stop> {
        let body = packet::extended("hardlink@openssh.com", &packet::two_paths(from, to));
        done(&self.ask(kind::EXTENDED, &body)?)
    }

    /// Renames. The draft says that a name which is taken is not replaced; not every server keeps to it.
    pub fn rename(&self, from: &[u8], to: &[u8]) -> Result<(), Stop> {
        done(&self.ask(kind::RENAME, &packet::two_paths(from, to))?)
    }

    /// Renames and replaces, in one step.
    pub fn rename_over(&self, from: &[u8], to: &[u8]) -> Result<(), Stop> {
        let body = packet::extended("posix-rename@openssh.com", &packet::two_paths(from, to));
        done(&self.ask(kind::EXTENDED, &body)?)
    }

    /// Opens a directory to make the names in it durable, where the server can. OpenSSH opens a directory like a file.
    pub fn begin_directory(&self, path: &[u8]) -> Result<Directory<'_>, Stop> {
        let opening = self.extensions.fsync.then(|| self.begin(kind::OPEN, &packet::open_to_read(path)));
        Ok(Directory { channel: self, opening: opening.transpose()? })
    }

    /// Lets go of a handle; nobody waits for the answer.
    fn close(&self, handle: &[u8]) -> Result<(), Stop> {
        self.begin(kind::CLOSE, &packet::text(handle)).map(drop)
    }

    /// Asks whether there is something at `path`.
    pub fn begin_look(&self, path: &[u8]) -> Result<Looking<'_>, Stop> {
        Ok(Looking(self.begin(kind::STAT, &packet::text(path))?))
    }

    /// Makes a new file.
    pub fn begin_new(&self, path: &[u8]) -> Result<NewFile<'_>, Stop> {
        Ok(NewFile { channel: self, opening: self.begin(kind::OPEN, &packet::open_new(path))? })
    }

    /// Writes a file that was opened, durably where the server can, and closes it.
    fn write(&self, handle: &[u8], bytes: &[u8]) -> Result<(), Stop> {
        let data_len = self.data_len(bytes.len() as u64)?;
        let mut under_way = VecDeque::new();
        let mut offset = 0;
        for part in bytes.chunks(data_len) {
            if under_way.len() >= WINDOW_LEN / data_len
                && let Err(stop) = settle(&mut under_way, 1)
            {
                self.close(handle)?;
                return Err(stop);
            }
            let len = u32::try_from(part.len()).map_err(|_| Stop::Nonsense)?;
            let head = packet::write_head(handle, offset, len);
            under_way.push_back(self.line.begin(kind::WRITE, &[&head, part])?);
            offset += u64::from(len);
        }
        if self.extensions.fsync {
            under_way.push_back(self.begin(kind::EXTENDED, &sync(handle))?);
        }
        // What a network file system couldn't store it says when the file is closed. Closed twice, it might be another one by then.
        under_way.push_back(self.begin(kind::CLOSE, &packet::text(handle))?);
        let count = under_way.len();
        settle(&mut under_way, count)
    }

    /// The bytes of a file: the range that `choose` makes of its length. `guess` is what that range is likely to be, or how it
    /// begins: those bytes are asked for together with the length, which saves a way there and back. To open the file takes
    /// another one; it is saved as well where the file is kept open, which `keep` asks for.
    pub fn read<E>(
        &self,
        path: &[u8],
        guess: Range<u64>,
        keep: bool,
        choose: impl Fn(&Attributes) -> Result<Range<u64>, E>,
    ) -> Result<Result<Vec<u8>, E>, Stop> {
        if let Some(handle) = keep.then(|| self.kept(path)).flatten() {
            let bytes = self.read_open(&handle, guess.clone(), &choose);
            self.let_go(handle)?;
            match bytes {
                // It may be another file by now, or the server may not have kept it.
                Err(Stop::Status(..)) => self.forget(path)?,
                bytes => return bytes,
            }
        }
        let handle = Arc::new(handle_of(self.ask(kind::OPEN, &packet::open_to_read(path))?)?);
        let bytes = self.read_open(&handle, guess, &choose);
        if keep && matches!(bytes, Ok(Ok(_))) {
            self.keep(path, &handle)?;
        }
        self.let_go(handle)?;
        bytes
    }

    fn read_open<E>(
        &self,
        handle: &[u8],
        guess: Range<u64>,
        choose: impl Fn(&Attributes) -> Result<Range<u64>, E>,
    ) -> Result<Result<Vec<u8>, E>, Stop> {
        let guess_len = guess.end.saturating_sub(guess.start);
        let data_len = self.data_len(guess_len)?;
        let attributes = self.begin(kind::FSTAT, &packet::text(handle))?;
        let (start, under_way) = (guess.start, VecDeque::new());
        let mut reading = Reading { channel: self, handle, data_len, start, under_way };
        let mut asked = 0;
        if guess_len <= WINDOW_LEN as u64 {
            asked = usize::try_from(guess_len).map_err(|_| Stop::Nonsense)?;
            for from in (0..asked).step_by(data_len) {
                reading.ask(from, asked.min(from + data_len))?;
            }
        }
        match attributes_of(attributes.next()?).map(|attributes| choose(&attributes)) {
            Ok(Ok(range)) if range.start == guess.start => reading.all(asked, range.end - range.start).map(Ok),
            Ok(Ok(_)) => Err(Stop::Nonsense),
            Ok(Err(error)) => Ok(Err(error)),
            Err(stop) => Err(stop),
        }
    }

    /// The handle of a file that was opened a moment ago.
    fn kept(&self, path: &[u8]) -> Option<Arc<Vec<u8>>> {
        let kept = pipeline::lock(&self.kept);
        let file = kept.iter().find(|file| file.path == path && file.since.elapsed() < KEPT_FOR)?;
        Some(file.handle.clone())
    }

    #[expect(clippy::disallowed_methods, reason = "how long a file is kept open is a matter of the stop-watch")]
    fn keep(&self, path: &[u8], handle: &Arc<Vec<u8>>) -> Result<(), Stop> {
        self.forget(path)?;
        let mut kept = pipeline::lock(&self.kept);
        kept.push_back(Kept { path: path.to_vec(), handle: handle.clone(), since: Instant::now() });
        let oldest = (kept.len() > KEPT_COUNT_MAX).then(|| kept.pop_front()).flatten();
        drop(kept);
        oldest.map_or(Ok(()), |file| self.let_go(file.handle))
    }

    /// The file is not going to be what it was: it is opened anew by who reads it next.
    pub fn forget(&self, path: &[u8]) -> Result<(), Stop> {
        let mut kept = pipeline::lock(&self.kept);
        let place = kept.iter().position(|file| file.path == path);
        let file = place.and_then(|place| kept.remove(place));
        drop(kept);
        file.map_or(Ok(()), |file| self.let_go(file.handle))
    }

    fn let_go(&self, handle: Arc<Vec<u8>>) -> Result<(), Stop> {
        Arc::into_inner(handle).map_or(Ok(()), |handle| self.close(&handle))
    }

    /// The names in directories, with the directory's number. A directory that is missing holds nothing.
    pub fn list(&self, directories: &[Vec<u8>]) -> Result<Vec<(usize, Name)>, Stop> {
        self.list_within(NAMES_LEN_MAX, directories)
    }

    fn list_within(&self, len_max: usize, directories: &[Vec<u8>]) -> Result<Vec<(usize, Name)>, Stop> {
        let mut found = Found { names: Vec::new(), room: len_max };
        let numbers: Vec<usize> = (0..directories.len()).collect();
        for some in numbers.chunks(DIRECTORIES) {
            self.list_some(some, directories, &mut found)?;
        }
        Ok(found.names)
    }

    fn list_some(&self, numbers: &[usize], directories: &[Vec<u8>], found: &mut Found) -> Result<(), Stop> {
        let asked: Vec<_> = numbers
            .iter()
            .map(|number| Ok((*number, self.begin(kind::OPENDIR, &packet::text(&directories[*number]))?)))
            .collect::<Result<_, Stop>>()?;
        let (mut open, mut refused) = (Vec::new(), Ok(()));
        for (number, pending) in asked {
            match handle_of(pending.next()?) {
                Ok(handle) => open.push((number, handle)),
                Err(stop) if stop.is_missing() => {}
                Err(stop) => refused = Err(stop),
            }
        }
        while refused.is_ok() && !open.is_empty() {
            // Most directories tell all at once, and then that this was all.
            let ask = |handle: &[u8]| self.begin(kind::READDIR, &packet::text(handle));
            let asked: Vec<_> =
                open.iter().map(|(_, handle)| Ok([ask(handle)?, ask(handle)?])).collect::<Result<_, Stop>>()?;
            let mut still_open = Vec::new();
            for (both, (number, handle)) in asked.into_iter().zip(open) {
                let mut is_at_end = false;
                for pending in both {
                    let answer = pending.next()?;
                    match names_of(answer) {
                        // Who is asked behind the end may say anything.
                        _ if is_at_end => {}
                        Ok(names) => found.take(number, names)?,
                        Err(Stop::Status(status::EOF, _)) => is_at_end = true,
                        Err(stop) => (is_at_end, refused) = (true, Err(stop)),
                    }
                }
                if is_at_end {
                    self.close(&handle)?;
                } else {
                    still_open.push((number, handle));
                }
            }
            open = still_open;
        }
        open.iter().try_for_each(|(_, handle)| self.close(handle))?;
        refused
    }

    /// Bytes that are free where `path` is, if the server tells.
    pub fn free_space(&self, path: &[u8]) -> Result<Option<u64>, Stop> {
        if !self.extensions.statvfs {
            return Ok(None);
        }
        let body = packet::extended("statvfs@openssh.com", &packet::text(path));
        let answer = self.ask(kind::EXTENDED, &body)?;
        Ok((answer.kind == kind::EXTENDED_REPLY).then(|| packet::free_space(&answer.body)).flatten())
    }
}

/// Names that were found, with the number of their directory, and room for more.
struct Found {
    names: Vec<(usize, Name)>,
    room: usize,
}

impl Found {
    fn take(&mut self, number: usize, names: Vec<Name>) -> Result<(), Stop> {
        let len: usize = names.iter().map(|name| size_of::<Name>() + name.name.len()).sum();
        self.room = self.room.checked_sub(len).ok_or(Stop::Nonsense)?;
        self.names.extend(names.into_iter().map(|name| (number, name)));
        Ok(())
    }
}

/// Directories that are being made.
pub struct Making<'c, 'p>(Vec<(&'p [u8], Pending<'c>)>);

impl<'p> Making<'_, 'p> {
    /// The new ones. Those that are there, or can't be made, are not among them.
    pub fn made(self) -> Result<Vec<&'p [u8]>, Stop> {
        let mut made = Vec::new();
        for (path, pending) in self.0 {
            if done(&pending.next()?).is_ok() {
                made.push(path);
            }
        }
        Ok(made)
    }
}

/// A question whether something is there.
pub struct Looking<'c>(Pending<'c>);

impl Looking<'_> {
    /// `Taken` if it is.
    pub fn must_be_free(self) -> Result<(), Stop> {
        match attributes_of(self.0.next()?) {
            Ok(_) => Err(Stop::Taken),
            Err(stop) if stop.is_missing() => Ok(()),
            Err(stop) => Err(stop),
        }
    }
}

/// A new file that is being opened.
pub struct NewFile<'c> {
    channel: &'c Channel,
    opening: Pending<'c>,
}

impl NewFile<'_> {
    /// Fills it, durably where the server can.
    pub fn write(self, bytes: &[u8]) -> Result<(), Stop> {
        self.channel.write(&handle_of(self.opening.next()?)?, bytes)
    }

    /// It is not wanted any more.
    pub fn close(self) -> Result<(), Stop> {
        self.channel.close(&handle_of(self.opening.next()?)?)
    }
}

/// A directory that is being opened, if that helps.
pub struct Directory<'c> {
    channel: &'c Channel,
    opening: Option<Pending<'c>>,
}

impl Directory<'_> {
    /// Makes what happened in it before durable, as far as its file system can.
    pub fn sync(self) -> Result<(), Stop> {
        let Some(opening) = self.opening else { return Ok(()) };
        match handle_of(opening.next()?) {
            Ok(handle) => {
                let synced = self.channel.begin(kind::EXTENDED, &sync(&handle))?;
                self.channel.close(&handle)?;
                // File systems that can't sync a directory say so, and there is nothing else to be done.
                let _as_durable_as_it_gets = synced.next()?;
                Ok(())
            }
            Err(Stop::Status(..)) => Ok(()),
            Err(stop) => Err(stop),
        }
    }
}

/// A range of a file on its way.
struct Reading<'c> {
    channel: &'c Channel,
    handle: &'c [u8],
    data_len: usize,
    start: u64,
    under_way: VecDeque<(usize, usize, Pending<'c>)>,
}

impl Reading<'_> {
    /// Asks for the bytes from `from` to `to` of the range.
    fn ask(&mut self, from: usize, to: usize) -> Result<(), Stop> {
        let len = u32::try_from(to - from).map_err(|_| Stop::Nonsense)?;
        let request = packet::read(self.handle, self.start.saturating_add(from as u64), len);
        self.under_way.push_back((from, to, self.channel.begin(kind::READ, &request)?));
        Ok(())
    }

    /// All bytes of the range, which has `len` and is known to be there. The first `asked` are under way; if that is more than
    /// there is, so be it. A server may give less at once than it was asked for.
    fn all(mut self, asked: usize, len: u64) -> Result<Vec<u8>, Stop> {
        self.data_len = self.channel.data_len(len)?;
        let len = usize::try_from(len).map_err(|_| Stop::Nonsense)?;
        let mut bytes = vec![0; len];
        let mut next = asked.min(len);
        let mut missing = VecDeque::new();
        loop {
            while self.under_way.len() < WINDOW_LEN / self.data_len && (next < len || !missing.is_empty()) {
                let (from, to) = missing.pop_front().unwrap_or((next, len.min(next + self.data_len)));
                next = next.max(to);
                self.ask(from, to)?;
            }
            let Some((from, to, pending)) = self.under_way.pop_front() else { return Ok(bytes) };
            let to = to.min(len);
            if from >= to {
                continue;
            }
            let body = of_kind(pending.next()?, kind::DATA)?;
            let data = packet::only_text(&body).filter(|data| !data.is_empty() && data.len() <= to - from);
            let data = data.ok_or(Stop::Nonsense)?;
            bytes[from..from + data.len()].copy_from_slice(data);
            if from + data.len() < to {
                missing.push_back((from + data.len(), to));
            }
        }
    }
}

fn sync(handle: &[u8]) -> Vec<u8> {
    packet::extended("fsync@openssh.com", &packet::text(handle))
}

/// Waits for the first `count` answers. All of them must be yes.
fn settle(under_way: &mut VecDeque<Pending<'_>>, count: usize) -> Result<(), Stop> {
    for pending in under_way.drain(..count) {
        done(&pending.next()?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::pipe;

    use super::super::super::wire;
    use super::*;

    /// A server that answers each request with `answer`, until the line to it is dropped.
    fn served(answer: impl Fn(u8) -> (u8, Vec<u8>) + Send + 'static) -> (pipeline::Worker, Channel) {
        let ((mut requests, out), (input, mut answers)) = (pipe().unwrap(), pipe().unwrap());
        let server = pipeline::Worker::spawn("server", move || {
            while let Ok(Some(request)) = wire::read_frame(&mut requests, 1 << 20) {
                let (kind, body) = answer(request.kind);
                wire::write_frame(&mut answers, kind, request.id, &[&body]).unwrap();
            }
        });
        let line = Line::new(input, Box::new(out), None, 1 << 20).unwrap();
        (server.unwrap(), Channel::new(line, Extensions::default()))
    }

    #[test]
    fn a_listing_without_end_is_given_up() {
        let names = [&[0, 0, 0, 1][..], &packet::text(&[b'a'; 1000]), &packet::text(b"-"), &[0; 4]].concat();
        let (_server, channel) = served(move |request| match request {
            kind::OPENDIR => (kind::HANDLE, packet::text(b"handle")),
            _ => (kind::NAME, names.clone()),
        });
        assert!(matches!(channel.list_within(1 << 20, &[b"packs".to_vec()]), Err(Stop::Nonsense)));
    }
}
