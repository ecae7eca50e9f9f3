//! Serving and ending the programs of a chain.
#![expect(clippy::disallowed_methods, reason = "limits of time are for programs that hang: only a stop-watch tells")]

use std::fs::File;
use std::io::{self, ErrorKind as Io, Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::chain::{Limits, Output};
use super::member::{Member, nonblocking};
use super::{Program, Tail};
use crate::archive::snapshot::CommandRecord;
use crate::error::{Error, ErrorKind, Result};
use crate::observer::Context;

/// How often waiting looks at the clock and at the wish to stop.
const TICK: Duration = Duration::from_millis(100);
/// How long programs may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);
/// How much of the output of a chain that is fed is kept.
const FED_OUTPUT_KEPT_LEN: usize = 64 << 10;
/// Size of one read or write.
const BUFFER_LEN: usize = 128 << 10;

/// A chain that was started. Reads as the last program's standard output; see the module for what its end means.
pub struct Running<'a> {
    context: Context<'a>,
    limits: Limits,
    started: Instant,
    members: Vec<Member>,
    input: Option<File>,
    pub(super) output: Option<File>,
    line: Vec<u8>,
    pub(super) fault: Option<Error>,
    reaped: bool,
}

#[derive(Clone, Copy, Default)]
struct Want {
    read: bool,
    write: bool,
    exit: bool,
}

impl<'a> Running<'a> {
    pub(super) fn new(context: Context<'a>, limits: Limits) -> Self {
        Self {
            context,
            limits,
            started: Instant::now(),
            members: Vec::new(),
            input: None,
            output: None,
            line: Vec::new(),
            fault: None,
            reaped: false,
        }
    }

    /// Starts the next program and returns its output.
    pub(super) fn spawn(&mut self, program: Program, stdin: Stdio) -> Result<OwnedFd> {
        let (member, pipes) = Member::start(program, stdin)?;
        self.members.push(member);
        if let Some(input) = pipes.input {
            self.input = Some(nonblocking(input)?);
        }
        if let (Some(member), Some(stderr)) = (self.members.last_mut(), pipes.stderr) {
            member.stderr = Some(nonblocking(stderr)?);
        }
        pipes.output.ok_or_else(|| Error::new(ErrorKind::Bug, "A program was started without its output"))
    }

    /// Gives `bytes` to the first program; for conversations, where its answers are short.
    ///
    /// # Errors
    /// When it doesn't take them, with the reason it gave for ending.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let mut ignored = Tail::new(0);
        match self.write_all(bytes, &mut ignored, false) {
            Ok(true) => Ok(()),
            Ok(false) => {
                let name = self.first_name();
                Err(self.verdict_or(|| Error::new(ErrorKind::Component, format!("{name} ended too early"))))
            }
            Err(error) => Err(self.stop_for(error)),
        }
    }

    /// The next line that the last program writes, without its end; none after the last, when all have exited 0.
    ///
    /// # Errors
    /// When a program failed.
    pub fn next_line(&mut self) -> Result<Option<String>> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.line.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            if self.reaped {
                let rest = std::mem::take(&mut self.line);
                return Ok((!rest.is_empty()).then(|| String::from_utf8_lossy(&rest).into_owned()));
            }
            match self.next_bytes(&mut buffer) {
                Ok(len) => self.line.extend_from_slice(&buffer[..len]),
                Err(error) => return Err(self.stop_for(error)),
            }
        }
    }

    /// Gives the first program everything that `reader` gives. If `reader` fails the programs are killed without
    /// ever seeing an end of their input.
    ///
    /// # Errors
    /// When `reader` or a program fails, or the programs leave some of the input unread.
    pub fn feed(self, reader: &mut dyn Read) -> Result<Output> {
        self.serve(reader, FED_OUTPUT_KEPT_LEN, false)
    }

    pub(super) fn serve(mut self, reader: &mut dyn Read, kept_len: usize, whole: bool) -> Result<Output> {
        let mut output = Tail::new(kept_len);
        match self.exchange(reader, &mut output) {
            Ok(true) => {}
            Ok(false) => {
                let name = self.first_name();
                let early = || {
                    Error::new(ErrorKind::Component, format!("{name} ended before it had read the whole of its input"))
                };
                return Err(self.verdict_or(early));
            }
            Err(error) => return Err(self.stop_for(error)),
        }
        if whole && output.stream_len() > kept_len as u64 {
            return Err(Error::new(ErrorKind::Component, format!("{} wrote more than 64 MiB", self.last_name())));
        }
        let stdout = output.bytes().to_vec();
        Ok(Output { stdout, commands: self.finish()? })
    }

    /// Input in, output out, to the end of both. False if the programs didn't want all of the input.
    fn exchange(&mut self, reader: &mut dyn Read, output: &mut Tail) -> Result<bool> {
        let mut buffer = vec![0; BUFFER_LEN];
        let mut all_taken = true;
        while self.input.is_some() {
            let len = match reader.read(&mut buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == Io::Interrupted => continue,
                Err(error) => return Err(unreadable(error, &self.first_name())),
            };
            if len == 0 {
                self.input = None;
            } else if !self.write_all(&buffer[..len], output, true)? {
                self.input = None;
                all_taken = false;
            }
        }
        loop {
            match self.next_bytes(&mut buffer)? {
                0 => return Ok(all_taken),
                len => output.push(&buffer[..len]),
            }
        }
    }

    /// False when the program has closed its input.
    fn write_all(&mut self, mut bytes: &[u8], output: &mut Tail, drain: bool) -> Result<bool> {
        let mut since = Instant::now();
        while !bytes.is_empty() {
            self.watch(since)?;
            let Some(input) = &mut self.input else { return Ok(false) };
            match input.write(bytes) {
                Ok(len) => {
                    bytes = &bytes[len..];
                    since = Instant::now();
                }
                Err(error) if error.kind() == Io::Interrupted => {}
                Err(error) if error.kind() == Io::BrokenPipe => return Ok(false),
                Err(error) if error.kind() == Io::WouldBlock => {
                    self.wait(Want { write: true, read: drain, exit: false }, since)?;
                    if drain {
                        self.drain_output(output)?;
                    }
                }
                Err(error) => return Err(Error::io(format!("Can't write to {}", self.first_name()), error)),
            }
        }
        Ok(true)
    }

    fn drain_output(&mut self, output: &mut Tail) -> Result<()> {
        let mut buffer = [0; 8192];
        while let Some(pipe) = &mut self.output {
            match pipe.read(&mut buffer) {
                Ok(0) => self.output = None,
                Ok(len) => output.push(&buffer[..len]),
                Err(error) if error.kind() == Io::WouldBlock => break,
                Err(error) if error.kind() == Io::Interrupted => {}
                Err(error) => return Err(Error::io(format!("Can't read from {}", self.last_name()), error)),
            }
        }
        Ok(())
    }

    /// The next bytes of the output; none only after every program exited 0.
    fn next_bytes(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let since = Instant::now();
        while let Some(output) = &mut self.output {
            match output.read(buffer) {
                Ok(0) => self.output = None,
                Ok(len) => {
                    self.watch(since)?;
                    return Ok(len);
                }
                Err(error) if error.kind() == Io::WouldBlock => {
                    self.wait(Want { read: true, ..Want::default() }, since)?;
                }
                Err(error) if error.kind() == Io::Interrupted => {}
                Err(error) => return Err(Error::io(format!("Can't read from {}", self.last_name()), error)),
            }
        }
        self.settle()?;
        Ok(0)
    }

    /// Sleeps until something that is wanted is ready, while keeping the standard errors empty.
    fn wait(&mut self, want: Want, since: Instant) -> Result<()> {
        loop {
            self.watch(since)?;
            let ready = self.poll(want)?;
            self.drain_stderr();
            if ready {
                return Ok(());
            }
        }
    }

    fn poll(&mut self, want: Want) -> Result<bool> {
        let mut fds = Vec::with_capacity(2 + 2 * self.members.len());
        let streams = [(want.read, &self.output, PollFlags::IN), (want.write, &self.input, PollFlags::OUT)];
        for (_, stream, flags) in streams.iter().filter(|(wanted, ..)| *wanted) {
            fds.extend(stream.as_ref().map(|stream| PollFd::new(stream, *flags)));
        }
        let stream_count = fds.len();
        let waited_for: Vec<usize> =
            (0..self.members.len()).filter(|at| want.exit && !self.members[*at].exited).collect();
        fds.extend(waited_for.iter().map(|at| PollFd::new(&self.members[*at].exit, PollFlags::IN)));
        fds.extend(self.members.iter().filter_map(|m| m.stderr.as_ref()).map(|fd| PollFd::new(fd, PollFlags::IN)));
        match poll(&mut fds, Some(&tick())) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(false),
            Err(cause) => return Err(Error::io("Can't wait for programs", cause.into())),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        let (streams, exits) = ready.split_at(stream_count);
        for (at, exited) in waited_for.iter().zip(exits) {
            self.members[*at].exited = *exited;
        }
        Ok(streams.iter().any(|ready| *ready) || exits[..waited_for.len()].iter().any(|ready| *ready))
    }

    fn drain_stderr(&mut self) {
        self.members.iter_mut().for_each(Member::drain_stderr);
    }

    /// Fails when it is time to stop. `since` is when the last byte went in or out.
    fn watch(&self, since: Instant) -> Result<()> {
        self.context.go_on()?;
        let over = |limit: Option<Duration>, since: Instant| limit.filter(|limit| since.elapsed() >= *limit);
        if let Some(limit) = over(self.limits.timeout, self.started) {
            let message = format!("{} took longer than {limit:?} and was stopped", self.names());
            return Err(
                Error::new(ErrorKind::Component, message).hint("Raise `timeout`, or find out what it waits for")
            );
        }
        if let Some(limit) = over(self.limits.stall_timeout, since) {
            let message = format!("{} moved no byte for {limit:?} and was stopped", self.names());
            let hint = "Raise `stall_timeout`, or find out what it waits for";
            return Err(Error::new(ErrorKind::Component, message).hint(hint));
        }
        Ok(())
    }

    /// Waits for every program; `Ok` when all exited 0.
    fn settle(&mut self) -> Result<()> {
        if self.reaped {
            return Ok(());
        }
        (self.input, self.output) = (None, None);
        let since = Instant::now();
        while self.members.iter().any(|member| !member.exited) {
            self.wait(Want { exit: true, ..Want::default() }, since)?;
        }
        self.drain_stderr();
        self.reap();
        match self.verdict() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn reap(&mut self) {
        self.members.iter_mut().for_each(Member::reap);
        self.reaped = true;
    }

    /// What to blame if not all exited 0: the first that failed by itself, not because its reader had gone.
    fn verdict(&self) -> Option<Error> {
        let failed = || self.members.iter().filter(|member| member.failed());
        let culprit = failed().find(|member| !member.ended_by_broken_pipe()).or_else(|| failed().next());
        culprit.map(Member::failure)
    }

    /// Waits for the programs and returns why they failed, or `otherwise`.
    fn verdict_or(&mut self, otherwise: impl FnOnce() -> Error) -> Error {
        match self.settle() {
            Err(error) => self.stop_for(error),
            Ok(()) => otherwise(),
        }
    }

    fn stop_for(&mut self, error: Error) -> Error {
        self.stop();
        error
    }

    /// Ends whatever still runs, and reaps.
    fn stop(&mut self) {
        if self.reaped {
            return;
        }
        // The input stays open until they are gone: an end of file could make a half-fed program succeed.
        self.signal(Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while self.members.iter().any(|member| !member.exited) && Instant::now() < deadline {
            if self.poll(Want { exit: true, ..Want::default() }).is_err() {
                break;
            }
            self.drain_stderr();
        }
        self.signal(Signal::KILL);
        self.reap();
        self.drain_stderr();
        (self.input, self.output) = (None, None);
    }

    fn signal(&self, signal: Signal) {
        self.members.iter().for_each(|member| member.signal(signal));
    }

    /// Waits for the end of a chain whose output was read, or isn't wanted.
    ///
    /// # Errors
    /// When a program failed, or the limits were passed.
    pub fn finish(mut self) -> Result<Vec<CommandRecord>> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        if let Err(error) = self.settle() {
            return Err(self.stop_for(error));
        }
        Ok(self.members.iter().map(Member::record).collect())
    }

    fn first_name(&self) -> String {
        self.members.first().map(|member| member.program.name()).unwrap_or_default()
    }

    fn last_name(&self) -> String {
        self.members.last().map(|member| member.program.name()).unwrap_or_default()
    }

    fn names(&self) -> String {
        self.members.iter().map(|member| member.program.name()).collect::<Vec<_>>().join(" | ")
    }
}

impl Read for Running<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.fault.is_none() {
            match self.next_bytes(buffer) {
                Ok(len) => return Ok(len),
                Err(error) => self.fault = Some(self.stop_for(error)),
            }
        }
        Err(io::Error::other(self.fault.as_ref().map(Error::chain).unwrap_or_default()))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}

fn tick() -> Timespec {
    Timespec { tv_sec: 0, tv_nsec: i64::from(TICK.subsec_nanos()) }
}

/// Keeps kind and hint of an error of ours that travelled through a reader.
fn unreadable(error: io::Error, reader_of: &str) -> Error {
    let message = format!("Can't read what is to be given to {reader_of}");
    if matches!(error.get_ref(), Some(inner) if inner.is::<Error>()) {
        let inner = error.into_inner().and_then(|inner| inner.downcast::<Error>().ok());
        return inner
            .map_or_else(|| Error::new(ErrorKind::Bug, message.clone()), |inner| inner.context(message.clone()));
    }
    Error::io(message, error)
}
