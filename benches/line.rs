//! Nights over a line: how much of it the program fills, beside the same nights in a directory, and beside plain programs.
//!
//! ```text
//! cargo bench --bench line -- [--rtt MS] [--rate MBPS] [--runs N] [--only dir,ssh,sftp,s3,azblob] [PATH [NEXT]]
//! ```
//! Compline and the server run on this machine with a line of `tests/support/rough_line.rs` between them: 20 ms there and back and
//! 100 MB/s each way if not said. PATH is a file, NEXT what it is a night later; or a tree. Without it, a GiB of noise.
//! Scratch files, twice the size of PATH, lie below TMPDIR. Of all runs the fastest counts. Servers, line and compline
//! share the cores, so a storage can't be faster here than where it runs by itself.

#![allow(
    missing_docs,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench prints what it measured on files of its own"
)]

#[path = "../tests/support/azurite.rs"]
mod azurite;
#[path = "support/corpus.rs"]
mod corpus;
#[path = "../tests/support/rough_line.rs"]
mod rough_line;
#[path = "../tests/support/s3_server.rs"]
mod s3_server;
#[path = "../tests/support/ssh_server.rs"]
mod ssh_server;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use compline::storage::{AzureStorage, Location};
use rough_line::{Nature, RoughLine};
use tempfile::TempDir;

const NOISE_LEN: usize = 1 << 30;
const NOISE_PIECE_LEN: usize = 64 << 20;
const STORAGES: [&str; 5] = ["dir", "ssh", "sftp", "s3", "azblob"];
const CONTAINER: &str = "backups";
/// How often a process is looked at.
const TICK: Duration = Duration::from_millis(5);
/// Bytes that plain programs carry.
const PLAIN_LEN: usize = 256 << 20;

fn main() {
    let asked = Asked::read();
    let scratch = TempDir::new().unwrap();
    let source = Source::of(&asked, scratch.path());
    let nature = Nature { way: asked.rtt / 2, rate: Some(asked.rate) };
    println!("rtt {:?}, {} MB/s, the best of {}; load {}", asked.rtt, asked.rate / 1_000_000, asked.runs, load());
    tell_plain(nature);
    println!("MB are 1e6 bytes on the line, up or down; % of its width; MiB the peak of resident memory");
    for name in STORAGES.into_iter().filter(|name| asked.only.is_empty() || asked.only.iter().any(|only| only == name))
    {
        let mut best: Vec<Run> = Vec::new();
        for _ in 0..asked.runs {
            let Some(nights) = Place::new(name, nature).map(|place| place.nights(&source)) else { break };
            for (at, run) in nights.into_iter().enumerate() {
                match best.get_mut(at) {
                    Some(best) if best.wall <= run.wall => {}
                    Some(best) => *best = run,
                    None => best.push(run),
                }
            }
        }
        for run in &best {
            println!("{name:7}{}", run.told(asked.rate));
        }
    }
    println!("load {}", load());
}

/// What the command line says.
struct Asked {
    rtt: Duration,
    rate: u64,
    runs: u32,
    only: Vec<String>,
    paths: Vec<PathBuf>,
}

impl Asked {
    fn read() -> Self {
        let mut asked =
            Self { rtt: Duration::from_millis(20), rate: 100_000_000, runs: 1, only: Vec::new(), paths: Vec::new() };
        let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
        while let Some(word) = words.next() {
            let mut value = || words.next().expect("a value behind each option");
            match word.as_str() {
                "--rtt" => asked.rtt = Duration::from_millis(value().parse().expect("milliseconds")),
                "--rate" => asked.rate = value().parse::<u64>().expect("megabytes a second") * 1_000_000,
                "--runs" => asked.runs = value().parse().expect("a number of runs"),
                "--only" => asked.only = value().split(',').map(str::to_owned).collect(),
                path => asked.paths.push(std::path::absolute(path).unwrap()),
            }
        }
        asked
    }
}

/// What is backed up.
struct Source {
    /// Under this name.
    path: PathBuf,
    /// What the file is on each night; none for a tree.
    nights: Vec<PathBuf>,
}

impl Source {
    fn of(asked: &Asked, scratch: &Path) -> Self {
        let mut nights = asked.paths.clone();
        if nights.first().is_some_and(|path| path.is_dir()) {
            return Self { path: nights.remove(0), nights: Vec::new() };
        }
        if nights.is_empty() {
            nights.push(noise(&scratch.join("noise")));
        }
        std::fs::create_dir(scratch.join("source")).unwrap();
        Self { path: scratch.join("source/data"), nights }
    }

    fn put(&self, night: usize) {
        if let Some(night) = self.nights.get(night) {
            std::fs::copy(night, &self.path).unwrap();
        }
    }
}

fn noise(path: &Path) -> PathBuf {
    let mut file = std::fs::File::create(path).unwrap();
    for seed in 0..NOISE_LEN / NOISE_PIECE_LEN {
        file.write_all(&corpus::noise(NOISE_PIECE_LEN, seed as u64)).unwrap();
    }
    path.to_owned()
}

/// Keeps a server running.
enum Server {
    Directory,
    Ssh(ssh_server::SshServer, &'static str),
    S3(s3_server::S3Server),
    Azure(azurite::Azurite),
}

impl Server {
    /// None: what it takes is not installed, which was said.
    fn start(name: &str) -> Option<Self> {
        match name {
            "ssh" => ssh_server::SshServer::start().map(|server| Self::Ssh(server, "ssh")),
            "sftp" => ssh_server::SshServer::start().map(|server| Self::Ssh(server, "sftp")),
            "s3" => Some(Self::S3(fast_s3_server())),
            "azblob" => azurite::Azurite::start().map(with_container),
            _ => Some(Self::Directory),
        }
    }

    fn port(&self) -> u16 {
        match self {
            Self::Directory => 0,
            Self::Ssh(server, _) => server.port(),
            Self::S3(server) => server.port(),
            Self::Azure(server) => server.port(),
        }
    }
}

fn fast_s3_server() -> s3_server::S3Server {
    let server = s3_server::S3Server::start();
    server.read_fast();
    server
}

fn with_container(server: azurite::Azurite) -> Server {
    let Location::Azure(address) = server.location(CONTAINER, "").parse().unwrap() else { panic!("no container") };
    AzureStorage::with_key(&address, azurite::ACCOUNT, azurite::KEY).unwrap().create_container().unwrap();
    Server::Azure(server)
}

/// A new repository, and the way there.
struct Place {
    server: Server,
    line: RoughLine,
    scratch: TempDir,
}

impl Place {
    fn new(name: &str, nature: Nature) -> Option<Self> {
        let server = Server::start(name)?;
        let line = RoughLine::to(server.port(), nature);
        let place = Self { server, line, scratch: TempDir::new().unwrap() };
        place.run("init", "cache", &["init"]);
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn location(&self) -> String {
        let port = self.line.port();
        match &self.server {
            Server::Directory => self.path("repository").display().to_string(),
            Server::Ssh(_, scheme) => format!("{scheme}://there{}", self.path("repository").display()),
            Server::S3(server) => server.location_by(port, "nights", ""),
            Server::Azure(_) => azurite::Azurite::location_by(port, CONTAINER, "nights", "60s"),
        }
    }

    /// First, unchanged and next nights, and a restore on a machine that was never here.
    fn nights(&self, source: &Source) -> Vec<Run> {
        let path = source.path.to_str().unwrap();
        source.put(0);
        let mut runs = vec![self.run("first", "cache", &["backup", path])];
        runs.push(self.run("unchanged", "cache", &["backup", path]));
        for night in 1..source.nights.len() {
            source.put(night);
            runs.push(self.run("next", "cache", &["backup", path]));
        }
        let out = self.path("out");
        let what = format!("latest:/files{}", source.path.parent().unwrap().display());
        runs.push(self.run("restore", "other-cache", &["restore", &what, "--target", out.to_str().unwrap()]));
        runs
    }

    fn run(&self, what: &'static str, cache: &str, words: &[&str]) -> Run {
        let mut command = Command::new(ssh_server::COMPLINE);
        command.current_dir(self.scratch.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command.args(["-r", &self.location(), "--key-file", "key", "--cache-dir", cache, "--no-progress"]).args(words);
        command.env("AWS_ACCESS_KEY_ID", s3_server::ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", s3_server::SECRET_KEY);
        command.env("AZURE_STORAGE_ACCOUNT", azurite::ACCOUNT).env("AZURE_STORAGE_KEY", azurite::KEY);
        if let Server::Ssh(server, _) = &self.server {
            command.env("COMPLINE_SSH", server.ssh_by(self.line.port(), "user"));
            command.env("COMPLINE_SSH_REMOTE", ssh_server::COMPLINE);
        }
        let before = self.line.carried();
        let _other_requests = self.requests();
        let (wall, cpu, peak) = watch(command.spawn().unwrap());
        let after = self.line.carried();
        let carried = (after.0 - before.0, after.1 - before.1);
        Run { what, wall, cpu, carried, peak, requests: self.requests() }
    }

    fn requests(&self) -> Option<usize> {
        if let Server::S3(server) = &self.server { Some(server.take_requests().len()) } else { None }
    }
}

/// What one command took.
struct Run {
    what: &'static str,
    wall: Duration,
    /// Of compline itself, in seconds.
    cpu: f64,
    carried: (u64, u64),
    /// Resident memory at most, in KiB.
    peak: u64,
    requests: Option<usize>,
}

impl Run {
    fn told(&self, rate: u64) -> String {
        let wall = self.wall.as_secs_f64();
        let most = self.carried.0.max(self.carried.1) as f64;
        let requests = self.requests.map_or_else(String::new, |count| format!(", {count} requests"));
        format!(
            "{:10}{wall:7.2} s {:6.2} CPU s {:8.1} MB up {:8.1} down {:4.0} % {:5} MiB{requests}",
            self.what,
            self.cpu,
            self.carried.0 as f64 / 1e6,
            self.carried.1 as f64 / 1e6,
            most / wall / rate as f64 * 100.0,
            self.peak >> 10,
        )
    }
}

/// Time, processor time and memory of a process that must end well.
fn watch(mut process: Child) -> (Duration, f64, u64) {
    let started = Instant::now();
    let (mut cpu, mut peak) = (0.0, 0);
    loop {
        cpu = cpu_of(process.id()).unwrap_or(cpu);
        peak = peak_of(process.id()).unwrap_or(peak);
        if let Some(ended) = process.try_wait().unwrap() {
            assert!(ended.success(), "{ended}");
            return (started.elapsed(), cpu, peak);
        }
        thread::sleep(TICK);
    }
}

/// Seconds of processor time so far. The kernel counts in hundredths.
fn cpu_of(process: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?) / 100.0)
}

/// Resident memory at most, in KiB.
fn peak_of(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next().unwrap_or_default().to_owned()
}

/// What programs without a protocol make of the line: bytes over TCP, and over ssh.
fn tell_plain(nature: Nature) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let line = RoughLine::to(listener.local_addr().unwrap().port(), nature);
    let mut client = TcpStream::connect(("127.0.0.1", line.port())).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    tell_rate("plain TCP, up", || carry(&mut client, &mut server));
    tell_rate("plain TCP, down", || carry(&mut server, &mut client));
    let Some(server) = ssh_server::SshServer::start() else { return };
    let line = RoughLine::to(server.port(), nature);
    let ssh = |command: &str| {
        let words = server.ssh_by(line.port(), "user");
        Command::new("sh")
            .args(["-c", &format!("{words} there '{command}'")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    tell_rate("plain ssh, up", || {
        let mut process = ssh("cat > /dev/null");
        process.stdin.take().unwrap().write_all(&vec![7; PLAIN_LEN]).unwrap();
        assert!(process.wait().unwrap().success());
    });
    tell_rate("plain ssh, down", || {
        let mut process = ssh(&format!("head -c {PLAIN_LEN} /dev/zero"));
        drop(process.stdin.take());
        std::io::copy(&mut process.stdout.take().unwrap(), &mut std::io::sink()).unwrap();
        assert!(process.wait().unwrap().success());
    });
}

fn carry(from: &mut TcpStream, to: &mut TcpStream) {
    let bytes = vec![7; PLAIN_LEN];
    thread::scope(|scope| {
        scope.spawn(|| from.write_all(&bytes).unwrap());
        std::io::copy(&mut to.take(PLAIN_LEN as u64), &mut std::io::sink()).unwrap();
    });
}

fn tell_rate(what: &str, work: impl FnOnce()) {
    let started = Instant::now();
    work();
    println!("{what:18}{:6.1} MB/s", PLAIN_LEN as f64 / 1e6 / started.elapsed().as_secs_f64());
}
