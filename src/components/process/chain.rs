//! Chains of programs, before they are started and after they have ended.

use std::io::{self, Read};
use std::process::Stdio;
use std::time::Duration;

use super::member::nonblocking;
use super::rewrite::{Rewrite, Rewriting};
use super::{Program, Running};
use crate::archive::snapshot::CommandRecord;
use crate::archive::{ArchivePath, CaptureSink, StreamSummary};
use crate::error::Result;
use crate::observer::Context;

/// Longest output that [`Chain::output`] takes.
const OUTPUT_LEN_MAX: usize = 64 << 20;

/// How long a chain may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// From its start to its end.
    pub timeout: Option<Duration>,
    /// Without a byte going in or out while compline waits for one.
    pub stall_timeout: Option<Duration>,
}

/// What the first program of a chain reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Nothing: `/dev/null`.
    Nothing,
    /// What [`Running::send`] or [`Running::feed`] give it.
    Pipe,
}

/// Programs to be piped into each other.
#[derive(Debug, Clone)]
pub struct Chain {
    programs: Vec<Program>,
    limits: Limits,
}

/// What a chain gave, after every program in it exited 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What the last program wrote; of [`Running::feed`] only the end.
    pub stdout: Vec<u8>,
    /// The programs that ran.
    pub commands: Vec<CommandRecord>,
}

impl Output {
    /// Standard output as text without surrounding white space; foreign bytes are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }
}

impl Chain {
    /// One program alone.
    #[must_use]
    pub fn single(program: Program, limits: Limits) -> Self {
        Self { programs: vec![program], limits }
    }

    /// `programs`, each reading what the one before it writes.
    #[must_use]
    pub fn new(programs: Vec<Program>, limits: Limits) -> Self {
        Self { programs, limits }
    }

    /// Starts every program.
    ///
    /// # Errors
    /// When one can't be started; those that were are ended.
    pub fn start(self, context: Context<'_>, input: Input) -> Result<Running<'_>> {
        context.go_on()?;
        let mut running = Running::new(context, self.limits);
        let mut upstream: Option<Stdio> = match input {
            Input::Nothing => Some(Stdio::null()),
            Input::Pipe => None,
        };
        let last = self.programs.len().saturating_sub(1);
        for (position, program) in self.programs.into_iter().enumerate() {
            let stdin = upstream.take().unwrap_or_else(Stdio::piped);
            let stdout = running.spawn(program, stdin)?;
            if position < last {
                upstream = Some(Stdio::from(stdout));
            } else {
                running.output = Some(nonblocking(stdout)?);
            }
        }
        Ok(running)
    }

    /// Runs the chain on `input` and collects what it writes.
    ///
    /// # Errors
    /// As [`Running::finish`], and when it writes more than 64 MiB.
    pub fn output(self, context: Context<'_>, input: &[u8]) -> Result<Output> {
        let how = if input.is_empty() { Input::Nothing } else { Input::Pipe };
        self.start(context, how)?.serve(&mut &*input, OUTPUT_LEN_MAX, true)
    }

    /// Runs the chain, stores what it writes as the file `path` and shows it to `tee` on the way.
    ///
    /// # Errors
    /// When a program fails, or the sink does. The program's failure comes first, being the cause.
    pub fn store(
        self,
        context: Context<'_>,
        sink: &mut dyn CaptureSink,
        path: &ArchivePath,
        tee: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<(StreamSummary, Vec<CommandRecord>)> {
        self.store_rewritten(context, sink, path, tee, None)
    }

    /// As [`Chain::store`], but stores what `rewrite` makes of it. `tee` sees what was written.
    ///
    /// # Errors
    /// As [`Chain::store`].
    pub fn store_rewritten(
        self,
        context: Context<'_>,
        sink: &mut dyn CaptureSink,
        path: &ArchivePath,
        tee: &mut (dyn FnMut(&[u8]) + Send),
        rewrite: Option<&mut dyn Rewrite>,
    ) -> Result<(StreamSummary, Vec<CommandRecord>)> {
        let mut running = self.start(context, Input::Nothing)?;
        let mut written = Tee { inner: &mut running, tee };
        let stored = match rewrite {
            Some(rewrite) => sink.put_stream(path, &mut Rewriting::new(written, rewrite)),
            None => sink.put_stream(path, &mut written),
        };
        match (stored, running.fault.take()) {
            (_, Some(fault)) => Err(fault),
            (Err(error), None) => Err(error),
            (Ok(summary), None) => Ok((summary, running.finish()?)),
        }
    }
}

struct Tee<'a, 'b> {
    inner: &'a mut Running<'b>,
    tee: &'a mut (dyn FnMut(&[u8]) + Send),
}

impl Read for Tee<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        (self.tee)(&buffer[..len]);
        Ok(len)
    }
}
