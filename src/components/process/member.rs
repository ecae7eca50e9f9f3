//! One program of a chain that was started.

use std::fs::File;
use std::io::{self, ErrorKind as Io, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ExitStatus, Stdio};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::{Program, Tail};
use crate::archive::snapshot::CommandRecord;
use crate::error::{Error, ErrorKind, Result};

/// How much of each program's standard error is kept.
const STDERR_KEPT_LEN: usize = 64 << 10;
/// How many of its last lines a message quotes.
const STDERR_LINES_SHOWN: usize = 5;

/// This side of a program's standard streams. One that isn't piped is absent.
pub struct Pipes {
    pub input: Option<OwnedFd>,
    pub output: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// A program that was started. It leads a process group of its own.
pub struct Member {
    pub program: Program,
    child: Child,
    /// Readable when the program has ended. It is reaped only when all have, so that no group id is used again.
    pub exit: OwnedFd,
    /// Whether that was seen.
    pub exited: bool,
    /// While it is open.
    pub stderr: Option<File>,
    tail: Tail,
    status: Option<ExitStatus>,
}

impl Member {
    /// Starts `program`, which reads `stdin`.
    pub fn start(program: Program, stdin: Stdio) -> Result<(Self, Pipes)> {
        let mut command = program.command();
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().map_err(|cause| cannot_start(&program, cause))?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let exit = match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(exit) => exit,
            Err(cause) => {
                // Without a handle it can't be watched; it has read nothing yet that matters.
                let _gone_already = child.kill();
                let _reaped = child.wait();
                return Err(cannot_start(&program, cause.into()));
            }
        };
        let tail = Tail::new(STDERR_KEPT_LEN);
        let pipes = Pipes {
            input: pipes.0.map(OwnedFd::from),
            output: pipes.1.map(OwnedFd::from),
            stderr: pipes.2.map(OwnedFd::from),
        };
        Ok((Self { program, child, exit, exited: false, stderr: None, tail, status: None }, pipes))
    }

    /// Takes what lies in the pipe of its standard error, without waiting.
    pub fn drain_stderr(&mut self) {
        let mut buffer = [0; 8192];
        // Bounded, so that a program that only complains can't keep the rest waiting.
        for _ in 0..16 {
            let Some(stderr) = &mut self.stderr else { return };
            match stderr.read(&mut buffer) {
                Ok(len) if len > 0 => self.tail.push(&buffer[..len]),
                Err(error) if error.kind() == Io::Interrupted => {}
                Err(error) if error.kind() == Io::WouldBlock => return,
                _ => self.stderr = None,
            }
        }
    }

    /// Signals its whole group.
    pub fn signal(&self, signal: Signal) {
        // The only possible failure is that nobody is left in the group.
        let _nobody_left = kill_process_group(Pid::from_child(&self.child), signal);
    }

    /// Waits until it can be forgotten. It has exited or been killed before, so that this takes no time.
    pub fn reap(&mut self) {
        self.status = self.child.wait().ok();
    }

    /// Whether it did anything but exit 0.
    pub fn failed(&self) -> bool {
        !self.status.is_some_and(|status| status.success())
    }

    /// Whether it ended because nobody read its output any more; shells report that as 128 + 13.
    pub fn ended_by_broken_pipe(&self) -> bool {
        let signal = Signal::PIPE.as_raw();
        self.status.is_some_and(|status| status.signal() == Some(signal) || status.code() == Some(128 + signal))
    }

    fn stderr_text(&self) -> String {
        self.program.blot(&String::from_utf8_lossy(self.tail.bytes()))
    }

    /// For the component's record.
    pub fn record(&self) -> CommandRecord {
        CommandRecord {
            argv: self.program.shown().to_vec(),
            exit_code: self.status.and_then(|status| status.code()),
            stderr: self.stderr_text(),
        }
    }

    /// How it ended, and its last words.
    pub fn failure(&self) -> Error {
        let how = match self.status.map(|status| (status.code(), status.signal())) {
            Some((Some(code), _)) => format!("failed with exit code {code}"),
            Some((None, Some(signal))) => format!("was ended by signal {signal}"),
            _ => "ended in an unknown way".to_owned(),
        };
        let error = Error::new(ErrorKind::Component, format!("{} {how}", self.program.name()));
        let stderr = self.stderr_text();
        let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        match &lines[lines.len().saturating_sub(STDERR_LINES_SHOWN)..] {
            [] => error,
            last => error.cause(last.join(" / ")),
        }
    }
}

/// Makes a pipe one that is served in a loop.
pub fn nonblocking(pipe: OwnedFd) -> Result<File> {
    let set = |fd: &OwnedFd| fcntl_setfl(fd.as_fd(), fcntl_getfl(fd.as_fd())? | OFlags::NONBLOCK);
    set(&pipe).map_err(|cause| Error::io("Can't prepare a pipe", cause.into()))?;
    Ok(File::from(pipe))
}

fn cannot_start(program: &Program, cause: io::Error) -> Error {
    let name = program.name();
    if cause.kind() != Io::NotFound {
        return Error::io(format!("Can't start {name}"), cause);
    }
    if let Some(directory) = program.working_directory().filter(|directory| !directory.is_dir()) {
        let message = format!("Can't start {name}: its directory {} does not exist", directory.display());
        return Error::new(ErrorKind::Environment, message).hint("Create the directory, or change `directory`");
    }
    let message = format!("Can't start {name}: there is no such program");
    Error::new(ErrorKind::Environment, message).hint(program.hint_if_missing())
}
