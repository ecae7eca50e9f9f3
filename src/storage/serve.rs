//! `compline serve --stdio`: the storage in a directory, for a client at the other end of a line.
//!
//! The client is not trusted. What it may do is decided here, by [`Rights`] that come from this side's command line (that of
//! a forced command in `authorized_keys`), request by request. It names objects by keys of the format and nothing else, so no
//! request leads out of the directory. Frames are bounded, memory is taken as bytes arrive, and the bytes of requests that
//! are under way are bounded together. A request that is cut short is not done.

pub(super) mod protocol;

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

pub use self::protocol::Rights;
use self::protocol::{GREETING_LEN_MAX, MAGIC, PART_LEN, REQUEST_LEN_MAX, Refusal, TEXT_LEN_MAX, VERSION, kind};
use super::wire::{self, Body, Fields, Frame};
use super::{LocalStorage, ObjectBytes, ObjectKey, ObjectKind, Storage, StorageError, StorageErrorKind};
use crate::pipeline::{self, Receiver, Worker, bounded};

/// Requests that are worked on at once: most of the time each waits for the disk.
const WORKERS: usize = 8;
/// Requests that wait.
const QUEUE: usize = 16;
/// Bytes of all requests that wait or are worked on; one that is longer comes alone.
const UNDER_WAY_LEN_MAX: usize = 64 << 20;

/// Serves the directory `root` until `input` ends.
///
/// # Errors
/// When the client sends what is no frame, or the greeting fails.
pub fn serve(
    root: &Path,
    rights: Rights,
    mut input: impl Read,
    output: impl Write + Send + 'static,
) -> Result<(), StorageError> {
    let mut output: Box<dyn Write + Send> = Box::new(output);
    let storage = match greet(root, rights, &mut input) {
        Ok(storage) => storage,
        Err((refusal, error)) => {
            // The client may be gone, which is then no news to it.
            let _unheard = write_refusal(&mut output, VERSION, refusal, &error);
            return Err(error);
        }
    };
    let welcome = Body(MAGIC.to_vec()).u8(rights.code()).0;
    wire::write_frame(&mut output, kind::WELCOME, VERSION, &[&welcome]).map_err(|error| lost("greeting", error))?;
    let server = Arc::new(Server {
        storage,
        rights,
        own: Mutex::default(),
        output: Mutex::new(output),
        under_way: Room::default(),
    });
    let (jobs, queue) = bounded::<Frame>(QUEUE);
    let workers: Vec<Worker> = (0..WORKERS)
        .map(|_| {
            let (server, queue) = (server.clone(), queue.clone());
            Worker::spawn("serve", move || server.work(&queue))
        })
        .collect::<io::Result<_>>()
        .map_err(|error| lost("start of a thread", error))?;
    drop(queue);
    let ended = receive(&mut input, &server.under_way, |frame| jobs.send(frame).is_ok());
    drop(jobs);
    drop(workers);
    ended
}

/// Hands requests on until there are no more.
fn receive(input: &mut impl Read, room: &Room, hand_on: impl Fn(Frame) -> bool) -> Result<(), StorageError> {
    while let Some(frame) = wire::read_frame(input, REQUEST_LEN_MAX).map_err(|error| lost("request", error))? {
        room.take(frame.body.len());
        if !hand_on(frame) {
            break;
        }
    }
    Ok(())
}

fn lost(what: &str, error: io::Error) -> StorageError {
    StorageError::with_message(StorageErrorKind::Other, format!("The line to the client broke at a {what}"))
        .cause(error)
}

/// Reads what the client asks for and opens it, if it is what is served here.
fn greet(root: &Path, rights: Rights, input: &mut impl Read) -> Result<LocalStorage, (Refusal, StorageError)> {
    let refuse = |text: String| (Refusal::Request, StorageError::with_message(StorageErrorKind::Other, text));
    let hello = wire::read_frame(input, GREETING_LEN_MAX);
    let hello = hello.ok().flatten().filter(|frame| frame.kind == kind::HELLO && frame.body.starts_with(MAGIC));
    let hello = hello.ok_or_else(|| refuse("This is no client of compline".to_owned()))?;
    if hello.id != VERSION {
        let text = format!("The client speaks version {} of the protocol, this compline {VERSION}", hello.id);
        return Err(refuse(text));
    }
    let mut fields = Fields(&hello.body[MAGIC.len()..]);
    let (create, asked) =
        fields.u8().zip(fields.text()).ok_or_else(|| refuse("The greeting is cut short".to_owned()))?;
    if !is_same(root, asked) {
        let asked = String::from_utf8_lossy(asked);
        return Err(refuse(format!("The account may use {}, not {asked}", root.display())));
    }
    let opened = match create {
        1 if rights != Rights::ReadOnly => LocalStorage::create(root),
        _ => LocalStorage::open(root),
    };
    opened.map_err(|error| (Refusal::Storage(error.kind()), error))
}

/// Whether the client means what is served. It may have no opinion.
fn is_same(root: &Path, asked: &[u8]) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let asked = Path::new(std::ffi::OsStr::from_bytes(asked));
    let absolute = |path: &Path| std::path::absolute(path).map(|path| path.components().collect::<PathBuf>()).ok();
    let real = |path: &Path| path.canonicalize().ok();
    asked.as_os_str().is_empty()
        || absolute(asked).is_some_and(|asked| Some(asked) == absolute(root))
        || real(asked).is_some_and(|asked| Some(asked) == real(root))
}

/// Bytes under way, which are bounded.
#[derive(Debug, Default)]
struct Room {
    taken: Mutex<usize>,
    freed: Condvar,
}

impl Room {
    /// Waits until there is room for `len` more, or nothing else.
    fn take(&self, len: usize) {
        let mut taken = pipeline::lock(&self.taken);
        while *taken > 0 && *taken + len > UNDER_WAY_LEN_MAX {
            taken = self.freed.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        *taken += len;
    }

    fn give_back(&self, len: usize) {
        *pipeline::lock(&self.taken) -= len;
        self.freed.notify_all();
    }
}

struct Server {
    storage: LocalStorage,
    rights: Rights,
    /// Sessions and snapshots that this connection put.
    own: Mutex<HashSet<ObjectKey>>,
    output: Mutex<Box<dyn Write + Send>>,
    under_way: Room,
}

/// What a request is answered with.
enum Answer {
    Nothing,
    Bytes(Vec<u8>),
    /// A part of an object, which need not be in memory.
    Object(ObjectBytes, Range<usize>),
}

type Answered = Result<Answer, (Refusal, StorageError)>;

impl Server {
    fn work(&self, queue: &Receiver<Frame>) {
        for frame in queue {
            let len = frame.body.len();
            let answered = self.answer(&frame);
            // Its bytes are as good as gone: only the answer is left.
            let id = frame.id;
            drop(frame);
            self.under_way.give_back(len);
            // A client that went away shows at the next read.
            let _gone = self.send(id, &answered);
        }
    }

    fn send(&self, id: u32, answered: &Answered) -> io::Result<()> {
        let bytes: &[u8] = match answered {
            Err((refusal, error)) => return write_refusal(&mut *pipeline::lock(&self.output), id, *refusal, error),
            Ok(Answer::Nothing) => &[],
            Ok(Answer::Bytes(bytes)) => bytes,
            Ok(Answer::Object(object, range)) => object.get(range.clone()).unwrap_or_default(),
        };
        let mut parts = bytes.chunks(PART_LEN).peekable();
        while let Some(part) = parts.next_if(|part| part.len() == PART_LEN) {
            // Others get a word in between two parts.
            wire::write_frame(&mut *pipeline::lock(&self.output), kind::PART, id, &[part])?;
        }
        let last = parts.next().unwrap_or_default();
        wire::write_frame(&mut *pipeline::lock(&self.output), kind::DONE, id, &[last])
    }

    fn answer(&self, frame: &Frame) -> Answered {
        let mut fields = Fields(&frame.body);
        match frame.kind {
            kind::PUT_NEW => self.put_new(&key(&mut fields)?, fields.0),
            kind::REPLACE => self.replace(&key(&mut fields)?, fields.0),
            kind::GET => self.storage.get(&only_key(fields)?).map(whole).map_err(said),
            kind::GET_RANGE => {
                let key = key(&mut fields)?;
                self.range(&key, two_numbers(fields)?)
            }
            kind::LEN => {
                let len = self.storage.len(&only_key(fields)?).map_err(said)?;
                Ok(Answer::Bytes(Body::default().u64(len).0))
            }
            kind::LIST => self.list(fields),
            kind::DELETE => self.delete(&only_key(fields)?),
            other => Err(no_request(format!("Nobody knows requests of kind {other}"))),
        }
    }

    fn put_new(&self, key: &ObjectKey, bytes: &[u8]) -> Answered {
        // A retired list tells others to let packs go. Only who may prune has business with it.
        let may = match self.rights {
            Rights::ReadOnly => false,
            Rights::AppendOnly => key.kind() != ObjectKind::Retired,
            Rights::AllowPrune => true,
        };
        if !may {
            return Err(self.beyond_rights("added", key));
        }
        self.storage.put_new(key, bytes).map_err(said)?;
        if matches!(key.kind(), ObjectKind::Session | ObjectKind::Snapshot) {
            pipeline::lock(&self.own).insert(*key);
        }
        Ok(Answer::Nothing)
    }

    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Answered {
        if self.rights != Rights::AllowPrune {
            return Err(self.beyond_rights("replaced", key));
        }
        self.storage.replace(key, bytes).map(|()| Answer::Nothing).map_err(said)
    }

    fn delete(&self, key: &ObjectKey) -> Answered {
        let may = match self.rights {
            Rights::ReadOnly => false,
            // Once: what somebody else puts there afterwards is theirs.
            Rights::AppendOnly => pipeline::lock(&self.own).remove(key),
            Rights::AllowPrune => true,
        };
        if !may {
            return Err(self.beyond_rights("deleted", key));
        }
        self.storage.delete(key).map(|()| Answer::Nothing).map_err(said)
    }

    /// Long ranges are sent out of a map of the object, and take no memory.
    fn range(&self, key: &ObjectKey, range: Range<u64>) -> Answered {
        let len = range.end.saturating_sub(range.start);
        if len <= PART_LEN as u64 {
            return self.storage.get_range(key, range).map(Answer::Bytes).map_err(said);
        }
        let object = self.storage.get(key).map_err(said)?;
        let bounds = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        match bounds.filter(|(_, end)| *end <= object.len()) {
            Some((start, end)) => Ok(Answer::Object(object, start..end)),
            None => Err(said(StorageError::new(StorageErrorKind::OutOfRange, key))),
        }
    }

    fn list(&self, mut fields: Fields<'_>) -> Answered {
        let number = fields.u8().filter(|_| fields.is_at_end()).map(usize::from);
        let kind = number.and_then(|number| ObjectKind::ALL.get(number)).copied();
        let kind = kind.ok_or_else(|| no_request("Nobody knows that kind of objects".to_owned()))?;
        let mut rows = Body::default();
        for row in self.storage.list(kind).map_err(said)? {
            rows = put_key(rows, &row.key).u64(row.len);
        }
        Ok(Answer::Bytes(rows.0))
    }

    fn beyond_rights(&self, done: &str, key: &ObjectKey) -> (Refusal, StorageError) {
        let text = format!("Object {key} can't be {done}: the server is {}", self.rights.words());
        (Refusal::Rights, StorageError::with_message(StorageErrorKind::Denied, text))
    }
}

fn whole(object: ObjectBytes) -> Answer {
    let len = object.len();
    Answer::Object(object, 0..len)
}

fn said(error: StorageError) -> (Refusal, StorageError) {
    (Refusal::Storage(error.kind()), error)
}

fn no_request(text: String) -> (Refusal, StorageError) {
    (Refusal::Request, StorageError::with_message(StorageErrorKind::Other, text))
}

/// A key of the format. Nothing else names an object, least of all a path.
fn key(fields: &mut Fields<'_>) -> Result<ObjectKey, (Refusal, StorageError)> {
    let found = take_key(fields);
    found.ok_or_else(|| no_request("The request names no object".to_owned()))
}

fn only_key(mut fields: Fields<'_>) -> Result<ObjectKey, (Refusal, StorageError)> {
    let key = key(&mut fields)?;
    if fields.is_at_end() { Ok(key) } else { Err(no_request("The request is too long".to_owned())) }
}

fn two_numbers(mut fields: Fields<'_>) -> Result<Range<u64>, (Refusal, StorageError)> {
    let numbers = fields.u64().zip(fields.u64()).filter(|_| fields.is_at_end());
    let (start, end) = numbers.ok_or_else(|| no_request("The range is none".to_owned()))?;
    Ok(start..end)
}

/// Reads a key: its length in a byte, and its path.
pub(super) fn take_key(fields: &mut Fields<'_>) -> Option<ObjectKey> {
    let len = usize::from(fields.u8()?);
    let (path, rest) = fields.0.split_at_checked(len)?;
    fields.0 = rest;
    ObjectKey::from_path(std::str::from_utf8(path).ok()?)
}

/// Writes a key. Paths of keys are shorter than a hundred bytes.
pub(super) fn put_key(body: Body, key: &ObjectKey) -> Body {
    let path = key.path();
    let mut body = body.u8(u8::try_from(path.len()).unwrap_or(u8::MAX));
    body.0.extend_from_slice(path.as_bytes());
    body
}

fn write_refusal(
    output: &mut (impl Write + ?Sized),
    id: u32,
    refusal: Refusal,
    error: &StorageError,
) -> io::Result<()> {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    while text.len() > TEXT_LEN_MAX {
        text.pop();
    }
    let body = Body::default().u8(refusal.code()).text(&text).0;
    wire::write_frame(output, kind::ERROR, id, &[&body])
}
