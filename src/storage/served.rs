//! `ssh://`: the client of [`serve`](mod@super::serve), started on the other machine by ssh.

use std::io::{self, Read, Write};
use std::ops::Range;

use super::address::SshAddress;
use super::line::{self, Failure, Line, Lines};
use super::serve::protocol::{ANSWER_LEN_MAX, GREETING_LEN_MAX, MAGIC, Refusal, VERSION, kind};
use super::serve::{put_key, take_key};
use super::ssh::{Remote, SshProcess};
use super::wire::{self, Body, Fields, Frame};
use super::{Listed, ObjectBytes, ObjectKey, ObjectKind, Storage, StorageError, StorageErrorKind};

/// Most bytes that are taken for a listing: several million objects.
const LISTING_LEN_MAX: usize = 1 << 30;
/// Most bytes that are taken for an object: the longest pack that the format has.
const OBJECT_LEN_MAX: usize = 4 << 30;

/// A directory that a compline on another machine serves.
#[derive(Debug)]
pub struct ServedStorage {
    lines: Lines<Served>,
}

/// A line with a server at its end.
#[derive(Debug)]
struct Served(Line);

impl AsRef<Line> for Served {
    fn as_ref(&self) -> &Line {
        &self.0
    }
}

impl ServedStorage {
    /// Connects to the storage at `address`, which must exist.
    ///
    /// # Errors
    /// `NotFound` if there is no such directory; `Other` with what ssh and the other machine say.
    pub fn open(address: &SshAddress) -> Result<Self, StorageError> {
        Self::connect(address, false)
    }

    /// Connects, and has the directory made where it is missing.
    ///
    /// # Errors
    /// As [`open`](Self::open), and `Denied`.
    pub fn create(address: &SshAddress) -> Result<Self, StorageError> {
        Self::connect(address, true)
    }

    fn connect(address: &SshAddress, create: bool) -> Result<Self, StorageError> {
        let first = start(address, create)?;
        let again = address.without_questions();
        Ok(Self { lines: Lines::open(address.to_string(), first, move || start(&again, false)) })
    }

    /// Asks for what is short.
    fn repeat(&self, request: u8, body: &[u8], len_max: usize) -> Result<Vec<u8>, StorageError> {
        self.lines.again(0, |line| ask(&line.0, request, &[body], len_max))
    }
}

/// Starts ssh and exchanges greetings.
fn start(address: &SshAddress, create: bool) -> Result<Served, StorageError> {
    let (process, mut out, mut input) = SshProcess::start(address, Remote::Serve)?;
    match greet(address, create, &mut out, &mut input) {
        Ok(()) => Line::new(input, Box::new(out), Some(process), ANSWER_LEN_MAX).map(Served),
        Err(Greeting::Refused(error)) => Err(error),
        Err(Greeting::Broken(cause)) => {
            drop(out);
            // What is left of the output is not for us, but ssh must be able to write it, and to end.
            let _nothing = io::copy(&mut input.take(1 << 20), &mut io::sink());
            Err(process.why(&cause))
        }
    }
}

enum Greeting {
    Broken(io::Error),
    Refused(StorageError),
}

impl From<io::Error> for Greeting {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

fn greet(address: &SshAddress, create: bool, out: &mut impl Write, input: &mut impl Read) -> Result<(), Greeting> {
    let hello = Body(MAGIC.to_vec()).u8(create.into()).text(address.path().as_os_str().as_encoded_bytes()).0;
    // If ssh is gone already, what it said is at the end of its output.
    let sent = wire::write_frame(out, kind::HELLO, VERSION, &[&hello]);
    let frame = match wire::read_frame(input, GREETING_LEN_MAX) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(Greeting::Refused(no_server(address, error)));
        }
        frame => frame?,
    };
    match frame {
        None => Err(Greeting::Broken(sent.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()))),
        Some(Frame { kind: kind::WELCOME, id: VERSION, body }) if body.starts_with(MAGIC) => Ok(()),
        Some(Frame { kind: kind::ERROR, body, .. }) => Err(Greeting::Refused(refusal(&body))),
        Some(_) => Err(Greeting::Refused(no_server(address, "it gave another greeting"))),
    }
}

fn no_server(address: &SshAddress, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StorageError {
    let text = format!("{address}: what answers is no compline");
    StorageError::with_message(StorageErrorKind::Other, text).cause(cause).advise(
        "Try `ssh HOST compline version`: a start-up file of the shell there that prints something, or another forced \
         command, is in the way",
    )
}

/// Sends a request and collects its answer, which has at most `len_max` bytes.
fn ask(line: &Line, request: u8, parts: &[&[u8]], len_max: usize) -> Result<Vec<u8>, Failure> {
    let pending = line.begin(request, parts)?;
    let mut bytes = Vec::new();
    loop {
        let Frame { kind, body, .. } = pending.next()?;
        match kind {
            kind::PART | kind::DONE if bytes.len() + body.len() > len_max => return Err(nonsense().into()),
            // The usual answer comes in one piece and is not copied.
            kind::DONE if bytes.is_empty() => return Ok(body),
            kind::PART | kind::DONE => bytes.extend_from_slice(&body),
            kind::ERROR => return Err(refusal(&body).into()),
            _ => return Err(nonsense().into()),
        }
        if kind == kind::DONE {
            return Ok(bytes);
        }
    }
}

fn nonsense() -> StorageError {
    StorageError::with_message(
        StorageErrorKind::Other,
        "The compline on the other machine gave an answer that can't be",
    )
    .advise("Use the same version of compline on both machines")
}

/// An error of the server, in its words.
fn refusal(body: &[u8]) -> StorageError {
    let mut fields = Fields(body);
    let Some((code, text)) = fields.u8().zip(fields.text()) else { return nonsense() };
    let text: String = String::from_utf8_lossy(text).chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    match Refusal::of(code) {
        Refusal::Storage(kind) => StorageError::with_message(kind, text),
        Refusal::Rights => StorageError::with_message(StorageErrorKind::Denied, text).advise(
            "Do this on the machine where the repository lies, or with a key that may: its line in authorized_keys says \
             --append-only, --read-only or --allow-prune",
        ),
        Refusal::Request => StorageError::with_message(StorageErrorKind::Other, text).advise(
            "Correct the path of the location, or the forced command in authorized_keys on the other machine",
        ),
    }
}

fn of_key(key: &ObjectKey) -> Vec<u8> {
    put_key(Body::default(), key).0
}

fn usize_of(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

impl Storage for ServedStorage {
    fn put_new(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        let name = of_key(key);
        let put = |line: &Served| ask(&line.0, kind::PUT_NEW, &[&name, bytes], 0).map(drop);
        if !line::is_bulk(key) {
            return self.lines.once(put);
        }
        let holds = |line: &Served| Ok(ask(&line.0, kind::GET, &[&name], bytes.len())? == bytes);
        self.lines.put_bulk(bytes.len(), put, holds)
    }

    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        self.lines.once(|line| ask(&line.0, kind::REPLACE, &[&of_key(key), bytes], 0)).map(drop)
    }

    fn get(&self, key: &ObjectKey) -> Result<ObjectBytes, StorageError> {
        let (len, request) = (line::len_of(key, usize::MAX), of_key(key));
        let bytes = self.lines.again(len, |line| ask(&line.0, kind::GET, &[&request], OBJECT_LEN_MAX))?;
        Ok(ObjectBytes::Owned(bytes))
    }

    fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        let wanted = range.end.checked_sub(range.start).map(usize_of);
        let len = wanted.unwrap_or(0);
        let request = put_key(Body::default(), key).u64(range.start).u64(range.end).0;
        let get = |line: &Served| ask(&line.0, kind::GET_RANGE, &[&request], len);
        let bytes = self.lines.again(line::len_of(key, len), get)?;
        if Some(bytes.len()) == wanted { Ok(bytes) } else { Err(nonsense()) }
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StorageError> {
        let body = self.repeat(kind::LEN, &of_key(key), 8)?;
        Fields(&body).u64().ok_or_else(nonsense)
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<Listed>, StorageError> {
        let number = ObjectKind::ALL.iter().position(|of_all| *of_all == kind);
        let number = number.and_then(|number| u8::try_from(number).ok()).ok_or_else(nonsense)?;
        let body = self.repeat(kind::LIST, &[number], LISTING_LEN_MAX)?;
        let mut fields = Fields(&body);
        let mut rows = Vec::new();
        while !fields.is_at_end() {
            let row = take_key(&mut fields).filter(|key| key.kind() == kind).zip(fields.u64());
            let (key, len) = row.ok_or_else(nonsense)?;
            rows.push(Listed { key, len });
        }
        // The contract says sorted, and the server may be anybody.
        rows.sort_unstable();
        Ok(rows)
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        self.lines.once(|line| ask(&line.0, kind::DELETE, &[&of_key(key)], 0)).map(drop)
    }

    fn location(&self) -> String {
        self.lines.location()
    }

    fn is_remote(&self) -> bool {
        true
    }
}
