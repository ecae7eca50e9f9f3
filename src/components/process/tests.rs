use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use zeroize::Zeroizing;

use super::*;
use crate::clock::SystemClock;
use crate::error::ErrorKind;
use crate::observer::{Context, Ledger};

struct World {
    ledger: Ledger,
    interrupt: AtomicBool,
}

impl World {
    fn new() -> Self {
        Self { ledger: Ledger::default(), interrupt: AtomicBool::new(false) }
    }

    fn context(&self) -> Context<'_> {
        Context { clock: &SystemClock, observer: &self.ledger, interrupt: &self.interrupt }
    }
}

fn sh(script: &str) -> Program {
    Program::from_argv(["sh", "-c", script])
}

fn single(script: &str) -> Chain {
    Chain::single(sh(script), Limits::default())
}

fn read_all(chain: Chain, world: &World) -> io::Result<Vec<u8>> {
    let mut running = chain.start(world.context(), Input::Nothing).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    running.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn alive(pid: &str) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// Whether the process has ended, or does so now: a killed orphan takes a moment.
fn ends(pid: &str) -> bool {
    let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
    let Ok(exit) = pidfd_open(pid, PidfdFlags::empty()) else { return true };
    let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
    poll(&mut [PollFd::new(&exit, PollFlags::IN)], Some(&patience)).unwrap() == 1
}

#[test]
fn output_of_a_chain_passes_through_every_program() {
    let world = World::new();
    let chain = Chain::new(vec![sh("printf 'b\\na\\n'"), Program::new("sort"), sh("tr a-z A-Z")], Limits::default());
    assert_eq!(read_all(chain, &world).unwrap(), b"A\nB\n");
}

#[test]
fn a_failing_program_turns_the_end_of_its_output_into_an_error() {
    let world = World::new();
    let error = read_all(single("echo half; echo went wrong >&2; exit 3"), &world).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("sh failed with exit code 3") && text.contains("went wrong"), "{text}");
}

#[test]
fn a_failing_program_in_the_middle_of_a_chain_is_noticed_and_named() {
    let world = World::new();
    let middle = Program::new("false");
    let chain = Chain::new(vec![sh("yes"), middle, Program::new("cat")], Limits::default());
    let error = read_all(chain, &world).unwrap_err();
    assert!(error.to_string().contains("false failed with exit code 1"), "{error}");
}

#[test]
fn a_program_killed_by_a_signal_is_a_failure() {
    let world = World::new();
    let error = read_all(single("echo x; kill -9 $$"), &world).unwrap_err();
    assert!(error.to_string().contains("signal 9"), "{error}");
}

#[test]
fn a_chatty_standard_error_blocks_nobody_and_its_end_is_kept() {
    let world = World::new();
    let script =
        "i=0; while [ $i -lt 4000 ]; do echo line $i of many words that fill the pipe >&2; i=$((i+1)); done; echo done";
    let output = single(script).output(world.context(), b"").unwrap();
    assert_eq!(output.text(), "done");
    let stderr = &output.commands[0].stderr;
    assert!(stderr.ends_with("line 3999 of many words that fill the pipe\n") && stderr.len() <= 64 << 10);
}

#[test]
fn input_and_output_larger_than_any_pipe_pass_at_once() {
    let world = World::new();
    let input = vec![b'x'; 3 << 20];
    let output = Chain::single(Program::new("cat"), Limits::default()).output(world.context(), &input).unwrap();
    assert_eq!(output.stdout.len(), input.len());
}

#[test]
fn a_program_that_leaves_its_input_unread_is_a_failure_even_if_it_exits_0() {
    let world = World::new();
    let running = single("exec <&-; exit 0").start(world.context(), Input::Pipe).unwrap();
    let error = running.feed(&mut io::repeat(b'x')).unwrap_err();
    assert!(error.to_string().contains("before it had read the whole"), "{error}");
}

#[test]
fn a_reader_that_fails_never_shows_an_end_of_input_to_the_program() {
    struct Failing(u8);
    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::other(crate::error::Error::damaged("Pack x is damaged")));
            }
            self.0 -= 1;
            buffer[0] = b'x';
            Ok(1)
        }
    }
    let world = World::new();
    let scratch = tempfile::tempdir().unwrap();
    let marker = scratch.path().join("saw-the-end");
    let program = sh("cat >/dev/null; : > \"$MARKER\"").variable("MARKER", &marker);
    let running = Chain::single(program, Limits::default()).start(world.context(), Input::Pipe).unwrap();
    let error = running.feed(&mut Failing(3)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(!marker.exists());
}

#[test]
fn a_timeout_ends_the_whole_group_and_reaps_it() {
    let world = World::new();
    let limits = Limits { timeout: Some(Duration::from_millis(300)), stall_timeout: None };
    let program = sh("sleep 600 & echo $$ $!; wait");
    let mut running = Chain::single(program, limits).start(world.context(), Input::Nothing).unwrap();
    let line = running.next_line().unwrap().unwrap();
    let error = running.next_line().unwrap_err();
    assert!(error.to_string().contains("took longer than 300ms"), "{error}");
    let pids: Vec<&str> = line.split(' ').collect();
    assert!(!alive(pids[0]), "the program is left behind");
    assert!(ends(pids[1]), "its child is left running");
}

#[test]
fn a_stalled_stream_is_ended() {
    let world = World::new();
    let limits = Limits { timeout: None, stall_timeout: Some(Duration::from_millis(200)) };
    let error = read_all(Chain::single(sh("echo x; exec sleep 600"), limits), &world).unwrap_err();
    assert!(error.to_string().contains("moved no byte for 200ms"), "{error}");
}

#[test]
fn a_program_that_closes_its_output_but_stays_is_bound_by_the_timeout() {
    let world = World::new();
    let limits = Limits { timeout: Some(Duration::from_millis(200)), stall_timeout: None };
    let error = read_all(Chain::single(sh("exec >&-; exec sleep 600"), limits), &world).unwrap_err();
    assert!(error.to_string().contains("took longer"), "{error}");
}

#[test]
fn a_wish_to_stop_ends_the_programs() {
    let world = World::new();
    let mut running = single("echo $$; exec sleep 600").start(world.context(), Input::Nothing).unwrap();
    let pid = running.next_line().unwrap().unwrap();
    world.interrupt.store(true, Ordering::Relaxed);
    assert_eq!(running.next_line().unwrap_err().kind(), ErrorKind::Interrupted);
    assert!(!alive(&pid));
}

#[test]
fn dropping_a_chain_leaves_no_program_behind() {
    let world = World::new();
    let mut running =
        single("trap '' TERM; echo $$; while :; do sleep 1; done").start(world.context(), Input::Nothing).unwrap();
    let pid = running.next_line().unwrap().unwrap();
    drop(running);
    assert!(!alive(&pid));
}

#[test]
fn a_missing_program_is_named_and_those_before_it_are_ended() {
    let world = World::new();
    let missing = Program::new("no-such-program-here").missing_hint("Install no-such-package");
    let chain = Chain::new(vec![sh("exec sleep 600"), missing], Limits::default());
    let error = chain.start(world.context(), Input::Nothing).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Environment);
    assert_eq!(error.hint_text(), Some("Install no-such-package"));
}

#[test]
fn a_missing_directory_is_not_taken_for_a_missing_program() {
    let world = World::new();
    let chain = Chain::single(Program::new("true").directory("/no/such/place"), Limits::default());
    let error = chain.start(world.context(), Input::Nothing).err().unwrap();
    assert!(error.to_string().contains("/no/such/place"), "{error}");
}

#[test]
fn secrets_are_neither_recorded_nor_repeated() {
    let world = World::new();
    let secret = Zeroizing::new("hunter2-and-more".to_owned());
    let program = sh("echo \"key $KEY is bad\" >&2; exit 1").secret_variable("KEY", &secret);
    let error = Chain::single(program, Limits::default()).output(world.context(), b"").unwrap_err();
    assert!(error.chain().contains("key *** is bad"), "{}", error.chain());
    let program = Program::new("true").arg_unrecorded("--restrict-key=", "abc123");
    let output = Chain::single(program, Limits::default()).output(world.context(), b"").unwrap();
    assert_eq!(output.commands[0].argv, ["true", "--restrict-key=***"]);
}

#[test]
fn a_conversation_can_be_held_with_a_program() {
    let world = World::new();
    let mut running = Chain::single(sh("while read -r a; do echo \"you said $a\"; done"), Limits::default())
        .start(world.context(), Input::Pipe)
        .unwrap();
    for word in ["one", "two"] {
        running.send(format!("{word}\n").as_bytes()).unwrap();
        assert_eq!(running.next_line().unwrap().unwrap(), format!("you said {word}"));
    }
    assert_eq!(running.finish().unwrap()[0].exit_code, Some(0));
}
