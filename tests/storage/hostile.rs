//! A client that means harm, with frames made by hand as the documentation has them (docs/src/serve-protocol.md). Whatever it
//! sends, what was there before is there afterwards, bit by bit.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use compline::storage::{LocalStorage, ObjectKey, Storage};
use tempfile::TempDir;

use super::ssh_server::COMPLINE;
use super::{bytes, one_of_each, pack};

const PUT_NEW: u8 = 3;
const REPLACE: u8 = 4;
const GET: u8 = 5;
const GET_RANGE: u8 = 6;
const LEN: u8 = 7;
const LIST: u8 = 8;
const DELETE: u8 = 9;
const ERROR: u8 = 103;

/// A repository beside something that has nothing to do with it.
struct Prey {
    directory: TempDir,
    before: BTreeMap<PathBuf, Vec<u8>>,
}

impl Prey {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("secret"), b"not for clients").unwrap();
        let storage = LocalStorage::create(directory.path().join("repository")).unwrap();
        for (seed, key) in (0..).zip(one_of_each()) {
            storage.put_new(&key, &bytes(seed, 2_000)).unwrap();
        }
        let before = files(directory.path());
        Self { directory, before }
    }

    fn serve(&self, rights: &str) -> Client {
        let mut command = Command::new(COMPLINE);
        command
            .args(["serve", "--stdio"])
            .args(rights.split_whitespace())
            .arg(self.directory.path().join("repository"));
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        Client { child, next: 0 }
    }

    /// A connection that has been welcomed.
    fn enter(&self, rights: &str) -> Client {
        let mut client = self.serve(rights);
        client.send(&hello(b""));
        assert_eq!(client.receive().unwrap().0, 2, "welcome");
        client
    }

    fn assert_unharmed(&self) {
        let after = files(self.directory.path());
        for (path, content) in &self.before {
            assert!(after.get(path) == Some(content), "{} was harmed", path.display());
        }
    }

    fn assert_untouched(&self) {
        assert!(files(self.directory.path()) == self.before);
    }
}

fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

fn frame(kind: u8, id: u32, body: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(body.len() + 5).unwrap().to_be_bytes().to_vec();
    frame.push(kind);
    frame.extend(id.to_be_bytes());
    frame.extend(body);
    frame
}

fn hello(path: &[u8]) -> Vec<u8> {
    let mut body = b"compline\0".to_vec();
    body.extend(u32::try_from(path.len()).unwrap().to_be_bytes());
    body.extend(path);
    frame(1, 1, &body)
}

fn named(path: &[u8]) -> Vec<u8> {
    let mut body = vec![u8::try_from(path.len()).unwrap()];
    body.extend(path);
    body
}

struct Client {
    child: Child,
    next: u32,
}

impl Client {
    /// A server that has hung up is no matter.
    fn send(&mut self, bytes: &[u8]) {
        let _gone = self.child.stdin.as_mut().unwrap().write_all(bytes);
    }

    /// Kind, id and body of the next frame.
    fn receive(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let output = self.child.stdout.as_mut().unwrap();
        let mut head = [0; 9];
        output.read_exact(&mut head).ok()?;
        let len = u32::from_be_bytes(head[..4].try_into().unwrap());
        let mut body = vec![0; usize::try_from(len).unwrap() - 5];
        output.read_exact(&mut body).ok()?;
        Some((head[4], u32::from_be_bytes(head[5..].try_into().unwrap()), body))
    }

    fn ask(&mut self, kind: u8, body: &[u8]) -> (u8, Vec<u8>) {
        self.next += 1;
        self.send(&frame(kind, self.next, body));
        let (kind, id, body) = self.receive().unwrap();
        assert_eq!(id, self.next);
        (kind, body)
    }

    /// Closes the line and waits.
    fn end(mut self) -> Option<i32> {
        drop(self.child.stdin.take());
        let mut rest = Vec::new();
        self.child.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
        self.child.wait().unwrap().code()
    }

    /// Most memory that the server ever held, in KiB.
    fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

#[test]
fn nothing_that_is_there_is_deleted_replaced_or_put_again() {
    // Nothing said is append-only.
    for rights in ["--append-only", "--read-only", ""] {
        let prey = Prey::new();
        let mut client = prey.enter(rights);
        for key in one_of_each() {
            let path = key.path();
            let with_bytes = [named(path.as_bytes()), b"harm".to_vec()].concat();
            for (kind, body) in [(DELETE, named(path.as_bytes())), (REPLACE, with_bytes.clone()), (PUT_NEW, with_bytes)]
            {
                assert_eq!(client.ask(kind, &body).0, ERROR, "{rights}: kind {kind} of {path}");
            }
        }
        assert_eq!(client.end(), Some(0));
        prey.assert_untouched();
    }
}

#[test]
fn who_may_only_look_adds_nothing_and_who_may_add_puts_no_retired_list() {
    let prey = Prey::new();
    let mut client = prey.enter("--read-only");
    let new = [named(pack(99).path().as_bytes()), b"x".to_vec()].concat();
    assert_eq!(client.ask(PUT_NEW, &new).0, ERROR);
    client.end();
    prey.assert_untouched();
    let mut client = prey.enter("--append-only");
    let retired = ObjectKey::Retired(compline::id::RetiredId::from_bytes([99; 16])).path();
    assert_eq!(client.ask(PUT_NEW, &[named(retired.as_bytes()), b"x".to_vec()].concat()).0, ERROR);
    assert_eq!(client.ask(PUT_NEW, &new).0, 102);
    assert_eq!(client.ask(DELETE, &named(pack(99).path().as_bytes())).0, ERROR, "not even its own packs");
    client.end();
    prey.assert_unharmed();
}

#[test]
fn names_that_are_no_keys_lead_nowhere() {
    let prey = Prey::new();
    let mut client = prey.enter("--allow-prune");
    let secret = prey.directory.path().join("secret");
    let long = "../".repeat(60);
    let wrong_fan_out = format!("packs/../{}", "ab".repeat(32));
    let names: [&[u8]; 12] = [
        b"",
        b".",
        b"..",
        b"../secret",
        b"/etc/passwd",
        b"tmp/x",
        b"keys/../config",
        b"keys/../../secret",
        b"config\0",
        secret.as_os_str().as_encoded_bytes(),
        long.as_bytes(),
        wrong_fan_out.as_bytes(),
    ];
    for name in names {
        for kind in [PUT_NEW, REPLACE, GET, GET_RANGE, LEN, DELETE] {
            let tail: &[u8] = if kind == GET_RANGE { &[0; 16] } else { b"" };
            let (answer, body) = client.ask(kind, &[&named(name), tail].concat());
            assert_eq!(answer, ERROR, "kind {kind} of {}", name.escape_ascii());
            assert!(!body.windows(3).any(|bytes| bytes == b"not"), "nothing of the secret");
        }
    }
    client.end();
    prey.assert_untouched();
}

#[test]
fn requests_that_are_none_are_refused_and_the_line_goes_on() {
    let prey = Prey::new();
    let mut client = prey.enter("--allow-prune");
    let config = named(b"config");
    for (kind, body) in [
        (0, vec![]),
        (2, vec![]),
        (77, vec![1, 2, 3]),
        (255, vec![0; 1000]),
        (LIST, vec![]),
        (LIST, vec![7]),
        (LIST, vec![0, 0]),
        (GET, vec![]),
        (GET, vec![255]),
        (GET, [config.clone(), vec![0]].concat()),
        (DELETE, [config.clone(), b"x".to_vec()].concat()),
        (GET_RANGE, config.clone()),
        (GET_RANGE, [config.clone(), vec![255; 16]].concat()),
        (GET_RANGE, [config.clone(), vec![0; 8], vec![255; 8]].concat()),
        (GET_RANGE, [config.clone(), vec![0; 17]].concat()),
    ] {
        assert_eq!(client.ask(kind, &body).0, ERROR, "kind {kind} {body:?}");
    }
    assert_eq!(client.ask(LEN, &config).1, 2_000u64.to_be_bytes());
    assert_eq!(client.end(), Some(0));
    prey.assert_untouched();
}

#[test]
fn a_request_that_is_cut_short_is_not_done() {
    let prey = Prey::new();
    let put = frame(PUT_NEW, 1, &[named(pack(99).path().as_bytes()), vec![7; 100]].concat());
    let delete = frame(DELETE, 1, &named(b"config"));
    for request in [put, delete] {
        for cut in [1, 4, 5, 9, 10, request.len() - 1] {
            let mut client = prey.enter("--allow-prune");
            client.send(&request[..cut]);
            assert_eq!(client.end(), Some(1), "cut at {cut}");
        }
    }
    prey.assert_untouched();
}

#[test]
fn announced_lengths_take_no_memory_and_impossible_ones_end_the_line() {
    let prey = Prey::new();
    for len in [0u32, 4, 600 << 20, u32::MAX] {
        let mut client = prey.enter("--append-only");
        client.send(&len.to_be_bytes());
        client.send(&[0; 100]);
        assert_eq!(client.end(), Some(1), "{len}");
    }
    let mut client = prey.enter("--append-only");
    assert_eq!(client.ask(LEN, &named(b"config")).0, 102);
    let before = client.peak_kib();
    // As long as it may be, of which a little comes.
    client.send(&(512u32 << 20).to_be_bytes());
    client.send(&vec![0; 100_000]);
    assert!(client.peak_kib() < before + 20_000, "{} KiB instead of {before}", client.peak_kib());
    client.end();
    prey.assert_untouched();
}

#[test]
fn garbage_of_every_sort_harms_nothing() {
    let prey = Prey::new();
    for seed in 0..60u64 {
        let mut noise = vec![0; 3_000];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
        let mut client = if seed % 3 == 0 { prey.serve("--append-only") } else { prey.enter("--append-only") };
        if seed % 3 == 1 {
            client.send(&noise);
        } else {
            // Frames that are well formed, kinds and keys that are known, and everything else by chance.
            for piece in noise.chunks(40) {
                let keys = one_of_each();
                let key = keys[usize::from(piece[0]) % keys.len()];
                let body = [named(key.path().as_bytes()), piece[2..].to_vec()].concat();
                let cut = usize::from(piece[1]) % body.len();
                client.send(&frame(
                    piece[1] % 12,
                    u32::from(piece[3]),
                    if piece[2] > 128 { &body } else { &body[..cut] },
                ));
            }
        }
        assert!(matches!(client.end(), Some(0 | 1)), "seed {seed}: it fell over");
    }
    prey.assert_unharmed();
}

#[test]
fn greetings_that_are_none_and_other_places_are_refused() {
    let prey = Prey::new();
    let root = prey.directory.path().join("repository");
    let other_version = {
        let mut other = hello(b"");
        other[8] = 9;
        other
    };
    let above = prey.directory.path().as_os_str().as_encoded_bytes().to_vec();
    for greeting in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        frame(1, 1, b"compline"),
        frame(9, 1, b""),
        other_version,
        hello(&above),
        hello(b"/"),
    ] {
        let mut client = prey.serve("--allow-prune");
        client.send(&greeting);
        client.send(&frame(DELETE, 1, &named(b"config")));
        assert_eq!(client.receive().unwrap().0, ERROR);
        assert_eq!(client.end(), Some(1));
    }
    for path in [root.clone(), root.join("../repository/."), PathBuf::new()] {
        let mut client = prey.serve("--read-only");
        client.send(&hello(path.as_os_str().as_encoded_bytes()));
        assert_eq!(client.receive().unwrap().0, 2, "{}", path.display());
        client.end();
    }
    prey.assert_untouched();
}

#[test]
fn many_requests_at_once_are_all_answered_by_their_ids() {
    let prey = Prey::new();
    let mut client = prey.enter("--read-only");
    let requests: Vec<u8> = (0..2_000).flat_map(|id| frame(LEN, id, &named(b"config"))).collect();
    let mut input = client.child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        input.write_all(&requests).unwrap();
        input
    });
    let mut ids: Vec<u32> = (0..2_000).map(|_| client.receive().unwrap().1).collect();
    ids.sort_unstable();
    assert!(ids.into_iter().eq(0..2_000));
    client.child.stdin = Some(writer.join().unwrap());
    assert_eq!(client.end(), Some(0));
}
