//! Reading ahead: a stream as runs of bytes, and the pieces of the members between them.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::reflate::{Header, Inflater, Piece, Policy, Step, header, held_back, next_start};

/// Read at once where something may have begun.
const READ_LEN: usize = 256 << 10;
/// So many bytes may be looked at in vain, ...
const WASTE_MIN: u64 = 64 << 20;
/// ... and beyond that one for each so many bytes of the stream. Then it is passed on as it is.
const WASTE_SHARE: u64 = 4;

/// What comes next in a stream.
pub(super) enum Segment {
    /// Bytes as they are.
    Raw(Vec<u8>),
    /// A piece; the first of a member or a further one.
    Piece {
        /// It.
        piece: Piece,
        /// It is the first.
        begins: bool,
    },
}

/// Takes a source apart.
pub(super) struct Splitter<'o> {
    source: &'o mut (dyn Read + Send),
    read_len: &'o AtomicU64,
    policy: Policy,
    /// Read, and not gone through yet.
    ahead: Vec<u8>,
    /// Nothing begins before this place of `ahead`.
    looked: usize,
    is_front: bool,
    at_end: bool,
    inflater: Option<Box<Inflater>>,
    /// A member goes on.
    inside: bool,
    wasted: u64,
    queue: VecDeque<Segment>,
}

impl<'o> Splitter<'o> {
    pub fn new(source: &'o mut (dyn Read + Send), read_len: &'o AtomicU64, policy: Policy) -> Self {
        Self {
            source,
            read_len,
            policy,
            ahead: Vec::new(),
            looked: 0,
            is_front: true,
            at_end: false,
            inflater: None,
            inside: false,
            wasted: 0,
            queue: VecDeque::new(),
        }
    }

    /// Where nothing is read ahead: bytes of the source in which nothing begins, without another copy of them. None: there may be
    /// more, but not this way.
    pub fn read_plainly(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if self.inside || !self.ahead.is_empty() || !self.queue.is_empty() {
            return Ok(None);
        }
        let len = self.read_source(buffer)?;
        let end = self.sure_len(&buffer[..len], 0).0;
        self.ahead.extend_from_slice(&buffer[end..len]);
        self.is_front &= end == 0;
        Ok(if end == 0 && len > 0 { None } else { Some(end) })
    }

    /// The next segment; none at the end.
    pub fn next(&mut self) -> io::Result<Option<Segment>> {
        loop {
            if let Some(segment) = self.queue.pop_front() {
                return Ok(Some(segment));
            }
            if self.inside {
                self.go_on()?;
            } else if self.ahead.is_empty() && self.at_end {
                return Ok(None);
            } else {
                self.search()?;
            }
        }
    }

    /// Ends the member that goes on, none of whose further pieces are wanted: what was read of it behind the last one.
    pub fn abandon(&mut self) -> Vec<u8> {
        let inflater = self.inflater.as_ref().filter(|_| self.inside);
        self.inside = false;
        let (unfinished, skipped) = inflater.map(|inflater| inflater.unfinished()).unwrap_or_default();
        // What is left of a byte that a piece ends in is told with that piece.
        unfinished.get(usize::from(skipped > 0)..).unwrap_or_default().to_vec()
    }

    /// So many plain bytes were looked at for nothing.
    pub fn waste(&mut self, plain_len: usize) {
        self.wasted += plain_len as u64;
    }

    fn read_source(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.source.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(len) => {
                    self.read_len.fetch_add(len as u64, Ordering::Relaxed);
                    self.at_end = len == 0;
                    return Ok(len);
                }
            }
        }
    }

    fn read_ahead(&mut self) -> io::Result<()> {
        let mut ahead = std::mem::take(&mut self.ahead);
        let len = ahead.len();
        ahead.resize(len + READ_LEN, 0);
        let read = self.read_source(&mut ahead[len..]);
        ahead.truncate(len + read.as_ref().copied().unwrap_or(0));
        self.ahead = ahead;
        read.map(drop)
    }

    fn gives_up(&self) -> bool {
        let read = self.read_len.load(Ordering::Relaxed);
        self.policy == Policy::Never || self.wasted > WASTE_MIN + read / WASTE_SHARE
    }

    /// How many of `bytes` are nothing but bytes, and whether something may begin behind them.
    fn sure_len(&self, bytes: &[u8], from: usize) -> (usize, bool) {
        if self.gives_up() {
            return (bytes.len(), false);
        }
        match next_start(bytes, from, self.is_front) {
            Some(start) => (start, true),
            None if self.at_end => (bytes.len(), false),
            None => (bytes.len() - held_back(bytes), false),
        }
    }

    /// Goes to the next beginning, or through what is at one.
    fn search(&mut self) -> io::Result<()> {
        let (len, begins) = self.sure_len(&self.ahead, self.looked);
        if len > 0 {
            (self.looked, self.is_front) = (0, false);
            self.queue.push_back(Segment::Raw(self.ahead.drain(..len).collect()));
            return Ok(());
        }
        if !begins {
            return self.read_ahead();
        }
        match header(&self.ahead) {
            Header::Unfinished if !self.at_end => self.read_ahead()?,
            Header::None | Header::Unfinished => self.looked = 1,
            Header::Len(len) => self.begin(len)?,
        }
        Ok(())
    }

    /// A member may begin behind a header. It does if its first piece can be inflated.
    fn begin(&mut self, header_len: usize) -> io::Result<()> {
        let mut inflater = self.inflater.take().unwrap_or_default();
        inflater.restart();
        let mut at = header_len;
        let step = loop {
            let (used, step) = inflater.step(self.ahead.get(at..).unwrap_or_default());
            at += used;
            match step {
                Step::Unfinished if self.at_end => break Step::Broken,
                Step::Unfinished => self.read_ahead()?,
                step => break step,
            }
        };
        self.inflater = Some(inflater);
        match step {
            Step::Piece(piece) if !self.policy.passes_over(&piece) => {
                self.inside = !piece.is_last;
                let header: Vec<u8> = self.ahead.drain(..at).take(header_len).collect();
                self.is_front = false;
                self.looked = 0;
                self.queue.push_back(Segment::Raw(header));
                self.queue.push_back(Segment::Piece { piece, begins: true });
            }
            _ => {
                self.wasted += at as u64;
                self.looked = 1;
            }
        }
        Ok(())
    }

    /// The next piece of the member. Where it ends without its last, what is left of it is bytes.
    fn go_on(&mut self) -> io::Result<()> {
        let Some(inflater) = &mut self.inflater else { return Ok(()) };
        let (used, step) = inflater.step(&self.ahead);
        self.ahead.drain(..used);
        match step {
            Step::Piece(piece) => {
                self.inside = !piece.is_last;
                self.queue.push_back(Segment::Piece { piece, begins: false });
            }
            Step::Unfinished if !self.at_end => self.read_ahead()?,
            Step::Unfinished | Step::Broken => {
                let rest = self.abandon();
                self.queue.push_back(Segment::Raw(rest));
            }
        }
        Ok(())
    }
}
