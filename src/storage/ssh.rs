//! A program on another machine, reached by the system's `ssh`: keys, agents, jump hosts, known hosts and everything else in
//! `~/.ssh/config` work as they do for people.
//!
//! What ssh and the program there print to standard error is kept, so that it can stand in the error when the line breaks.

use std::borrow::Cow;
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::fcntl_setpipe_size;

use super::address::SshAddress;
use super::{StorageError, StorageErrorKind};
use crate::pipeline;

/// How much of standard error is kept: its end.
const SAID_LEN_MAX: usize = 2 << 10;
/// How long a program whose line was closed may take to end.
const ENDING_TRIES_MAX: u32 = 1000;
/// How often it is looked at meanwhile.
const ENDING_TICK: Duration = Duration::from_millis(10);
/// How long the rest of standard error is waited for. Somebody who outlives ssh may hold it open.
const LAST_WORDS: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Bytes that are read at once.
const LINE_LEN: usize = 256 << 10;
/// What fits in a pipe to or from ssh: the most that Linux gives to everybody. With less the two wake each other all the time.
const PIPE_LEN: usize = 1 << 20;

/// Exit code of the shell in [`STARTER`] when there is no such program on this machine.
const NO_SSH: i32 = 122;
/// Starts ssh so that Ctrl-C, which a terminal sends to everybody, does not end the line: compline decides when to stop, and
/// needs the line for it. Nothing of an address is part of this text.
const STARTER: &str = "command -v \"$1\" >/dev/null || exit 122; trap '' INT HUP; exec \"$@\"";
/// Options that make a line out of whatever the configuration says: no terminal, nothing forwarded, and an end when the
/// other machine has not answered for half a minute at first, and for two minutes later.
const OPTIONS: [&str; 11] = [
    "-T",
    "-x",
    "-a",
    "-o",
    "ClearAllForwardings=yes",
    "-o",
    "ConnectTimeout=30",
    "-o",
    "ServerAliveInterval=20",
    "-o",
    "ServerAliveCountMax=6",
];

/// What shall run there.
#[derive(Debug, Clone, Copy)]
pub enum Remote {
    /// `compline serve --stdio`.
    Serve,
    /// The subsystem `sftp`.
    Sftp,
}

/// A running ssh.
#[derive(Debug)]
pub struct SshProcess {
    child: Mutex<Child>,
    said: Arc<Mutex<Vec<u8>>>,
    remote: Remote,
    address: String,
}

/// What the other side writes.
pub type LineOutput = BufReader<Watched>;

impl SshProcess {
    /// Starts `remote` at `address`.
    ///
    /// # Errors
    /// When no process can be started.
    pub fn start(address: &SshAddress, remote: Remote) -> Result<(Self, ChildStdin, LineOutput), StorageError> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", STARTER, "compline"]).args(words(address, remote));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |cause: io::Error| {
            let message = format!("{} can't be started", address.ssh.join(" "));
            StorageError::with_message(StorageErrorKind::Other, message).cause(cause)
        };
        let mut child = command.spawn().map_err(failed)?;
        let pipes = child.stdin.take().zip(child.stdout.take()).zip(child.stderr.take());
        let ((input, output), errors) = pipes.expect("cannot fail because all three were asked for");
        for pipe in [input.as_fd(), output.as_fd()] {
            // Where it may not be so long, it does as it is.
            let _longer = fcntl_setpipe_size(pipe, PIPE_LEN);
        }
        let said = Arc::new(Mutex::new(Vec::new()));
        let watched = Watched { output, errors: Some(errors), said: said.clone() };
        let process = Self { child: Mutex::new(child), said, remote, address: address.to_string() };
        Ok((process, input, BufReader::with_capacity(LINE_LEN, watched)))
    }

    /// Ends it, if it doesn't end by itself now that its line is closed, and returns its exit code.
    fn end(&self) -> Option<i32> {
        let mut child = pipeline::lock(&self.child);
        for _ in 0..ENDING_TRIES_MAX {
            match child.try_wait() {
                Ok(Some(status)) => return status.code(),
                Ok(None) => pipeline::pause(ENDING_TICK),
                Err(_) => break,
            }
        }
        let _gone_already = child.kill();
        child.wait().ok().and_then(|status| status.code())
    }

    /// Why there is no line, from the exit code and from what was said.
    pub fn why(&self, cause: &io::Error) -> StorageError {
        let code = self.end();
        let (what, advice) = self.verdict(code);
        let said = last_words(&pipeline::lock(&self.said));
        let error = StorageError::with_message(StorageErrorKind::Other, format!("{}: {what}", self.address));
        let error = error.advise(advice);
        match code {
            _ if !said.is_empty() => error.cause(said),
            Some(NO_SSH) => error,
            Some(code) => error.cause(format!("it said nothing and ended with exit code {code}")),
            None => error.cause(cause.to_string()),
        }
    }

    fn verdict(&self, code: Option<i32>) -> (Cow<'static, str>, &'static str) {
        match (code, self.remote) {
            (Some(NO_SSH), _) => (
                "there is no ssh on this machine".into(),
                "Install OpenSSH's client (Debian: openssh-client), or name a program with COMPLINE_SSH",
            ),
            (Some(126 | 127), Remote::Serve) => (
                "there is no compline on the other machine".into(),
                "Install it there, name its path with COMPLINE_SSH_REMOTE, or use sftp://, which needs nothing there",
            ),
            (Some(255), _) => (
                "ssh could not connect, or lost the connection".into(),
                "Try `ssh HOST true` as the same user: it must work without questions, so the host's key has to be \
                 known and a key of yours to be allowed there. What was published is safe; run the command again",
            ),
            (_, Remote::Sftp) => (
                "the SFTP server ended".into(),
                "Try `sftp HOST` as the same user; the server needs a line `Subsystem sftp internal-sftp` in its \
                 sshd_config. What was published is safe; run the command again",
            ),
            (_, Remote::Serve) => (
                "compline ended on the other machine".into(),
                "What was published is safe; run the command again, and look at the log of the other machine if it \
                 happens again",
            ),
        }
    }
}

impl Drop for SshProcess {
    fn drop(&mut self) {
        self.end();
    }
}

/// ssh and its words. The host comes behind `--`, and what the other machine's shell gets is quoted.
fn words(address: &SshAddress, remote: Remote) -> Vec<std::ffi::OsString> {
    use std::os::unix::ffi::OsStringExt;
    let mut words = address.ssh.clone();
    words.extend(OPTIONS.map(str::to_owned));
    if let Some(port) = address.port {
        words.extend(["-p".to_owned(), port.to_string()]);
    }
    if let Some(user) = &address.user {
        words.extend(["-l".to_owned(), user.clone()]);
    }
    let mut command = b"sftp".to_vec();
    match remote {
        Remote::Sftp => words.push("-s".to_owned()),
        Remote::Serve => {
            command = quoted(address.program.as_bytes());
            command.extend(b" serve --stdio --allow-prune -- ");
            command.extend(quoted(address.path().as_os_str().as_encoded_bytes()));
        }
    }
    words.extend(["--".to_owned(), address.host.clone()]);
    let mut words: Vec<std::ffi::OsString> = words.into_iter().map(Into::into).collect();
    words.push(std::ffi::OsString::from_vec(command));
    words
}

/// For the shell of the other machine, where a word that needs no quotes gets none.
fn quoted(word: &[u8]) -> Vec<u8> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%".contains(byte);
    if !word.is_empty() && word.iter().all(is_plain) {
        return word.to_vec();
    }
    let mut quoted = vec![b'\''];
    for byte in word {
        match byte {
            b'\'' => quoted.extend(b"'\\''"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

/// The end of what was said, on one line, without what a terminal could take for orders.
fn last_words(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let text = lines.collect::<Vec<_>>().join("; ");
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Standard output of a program whose standard error is listened to as well, by one thread, so that neither fills up.
#[derive(Debug)]
pub struct Watched {
    output: ChildStdout,
    errors: Option<ChildStderr>,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Watched {
    /// Waits for output or for errors, which are kept. True when there is output.
    fn wait(&mut self, timeout: Option<&Timespec>) -> io::Result<bool> {
        let ready = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        let mut fds = vec![PollFd::new(&self.output, PollFlags::IN)];
        fds.extend(self.errors.as_ref().map(|errors| PollFd::new(errors, PollFlags::IN)));
        if timeout.is_some() {
            fds.remove(0);
        }
        if poll(&mut fds, timeout)? == 0 {
            self.errors = None;
            return Ok(false);
        }
        let has_output = timeout.is_none() && fds[0].revents().intersects(ready);
        let has_errors =
            fds.last().is_some_and(|fd| (timeout.is_some() || fds.len() > 1) && fd.revents().intersects(ready));
        if has_errors {
            self.listen();
        }
        Ok(has_output)
    }

    fn listen(&mut self) {
        let mut buffer = [0; 4096];
        let read = self.errors.as_mut().map_or(Ok(0), |errors| errors.read(&mut buffer));
        match read {
            Ok(0) | Err(_) => self.errors = None,
            Ok(len) => {
                let mut said = pipeline::lock(&self.said);
                said.extend_from_slice(&buffer[..len]);
                let over = said.len().saturating_sub(SAID_LEN_MAX);
                said.drain(..over);
            }
        }
    }
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.wait(None)? {}
        let len = self.output.read(buffer)?;
        while len == 0 && self.errors.is_some() {
            self.wait(Some(&LAST_WORDS))?;
        }
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SshAddress {
        SshAddress::parse("ssh", text.as_bytes()).unwrap()
    }

    fn last(text: &str, remote: Remote) -> String {
        words(&address(text), remote).pop().unwrap().into_string().unwrap()
    }

    #[test]
    fn the_shell_of_the_other_machine_gets_one_word_for_the_path() {
        assert_eq!(last("//host/srv/b", Remote::Serve), "compline serve --stdio --allow-prune -- /srv/b");
        assert_eq!(last("//host/a b", Remote::Serve), "compline serve --stdio --allow-prune -- '/a b'");
        let hostile = last("//host/it's $(rm -rf /);`x`\n", Remote::Serve);
        assert_eq!(hostile, "compline serve --stdio --allow-prune -- '/it'\\''s $(rm -rf /);`x`\n'");
        assert_eq!(last("//host/~/-b", Remote::Serve), "compline serve --stdio --allow-prune -- -b");
        assert_eq!(last("//host/srv/b", Remote::Sftp), "sftp");
    }

    #[test]
    fn the_host_stands_behind_the_options() {
        let words = words(&address("//u@host:2222/b"), Remote::Sftp);
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(words[words.len() - 8..], ["-p", "2222", "-l", "u", "-s", "--", "host", "sftp"]);
    }

    #[test]
    fn last_words_are_one_line_that_no_terminal_obeys() {
        assert_eq!(last_words(b"one\r\n\n  two \x1b[2J\xff\n"), "one; two ?[2J\u{fffd}");
    }

    #[test]
    fn a_missing_program_and_its_errors_are_told() {
        let missing = address("//host/b").by(Some("/does/not/exist"), None);
        let (process, input, mut output) = SshProcess::start(&missing, Remote::Serve).unwrap();
        drop(input);
        assert_eq!(output.read(&mut [0; 10]).unwrap(), 0);
        let error = process.why(&io::ErrorKind::UnexpectedEof.into());
        assert_eq!(error.to_string(), "ssh://host/b: there is no ssh on this machine");
        assert!(error.hint().unwrap().contains("COMPLINE_SSH"));
    }
}
