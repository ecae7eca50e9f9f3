//! Nights over lines that are cut, end early or answer for the server: every storage on another machine, by the program.
//!
//! Object stores are asked again, so that nobody notices. Over ssh reading is; a backup is told what happened, has
//! published nothing, and the next one goes on with what was uploaded.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use compline::storage::{AzureStorage, Location};
use tempfile::TempDir;

use crate::azurite::{self, Azurite};
use crate::rough_line::{Fate, Nature, RoughLine};
use crate::s3_server::{self, S3Server};
use crate::ssh_server::{COMPLINE, SshServer};

/// What is at the far end.
enum Server {
    S3(S3Server),
    Azure(Azurite),
    Ssh(SshServer, &'static str),
}

/// A machine, a server, and a line between them.
struct Far {
    server: Server,
    line: RoughLine,
    scratch: TempDir,
}

impl Far {
    fn of(server: Server) -> Self {
        let port = match &server {
            Server::S3(server) => server.port(),
            Server::Azure(server) => server.port(),
            Server::Ssh(server, _) => server.port(),
        };
        let far = Self { server, line: RoughLine::to(port, Nature::default()), scratch: TempDir::new().unwrap() };
        std::fs::create_dir(far.path("files")).unwrap();
        for number in 0..50 {
            std::fs::write(far.path(&format!("files/{number}")), noise(number, 5_000)).unwrap();
        }
        std::fs::write(far.path("files/large"), noise(50, 6_000_000)).unwrap();
        far.must(&["init"]);
        far
    }

    /// Object stores.
    fn stores() -> Vec<Self> {
        let mut found = vec![Self::of(Server::S3(S3Server::start()))];
        match Azurite::start() {
            Some(server) => {
                create_container(&server);
                found.push(Self::of(Server::Azure(server)));
            }
            None => println!("SKIPPED: Azurite is not installed (tests/run does so where there is npm)"),
        }
        found
    }

    /// Servers that are reached by ssh.
    fn hosts() -> Vec<Self> {
        let servers = ["ssh", "sftp"].map(|scheme| Some(Server::Ssh(SshServer::start()?, scheme)));
        servers.into_iter().flatten().map(Self::of).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn name(&self) -> &'static str {
        match &self.server {
            Server::S3(_) => "s3",
            Server::Azure(_) => "azblob",
            Server::Ssh(_, scheme) => scheme,
        }
    }

    fn location(&self) -> String {
        match &self.server {
            Server::S3(server) => server.location_by(self.line.port(), "night", "&patience=60s"),
            Server::Azure(_) => Azurite::location_by(self.line.port(), CONTAINER, "night", "60s"),
            Server::Ssh(_, scheme) => format!("{scheme}://there{}", self.path("far/repository").display()),
        }
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(COMPLINE);
        command.current_dir(self.scratch.path()).stdin(Stdio::null());
        command.args(["-r", &self.location(), "--key-file", "key", "--cache-dir", "cache"]).args(words);
        match &self.server {
            Server::S3(_) => command
                .env("AWS_ACCESS_KEY_ID", s3_server::ACCESS_KEY)
                .env("AWS_SECRET_ACCESS_KEY", s3_server::SECRET_KEY),
            Server::Azure(_) => {
                command.env("AZURE_STORAGE_ACCOUNT", azurite::ACCOUNT).env("AZURE_STORAGE_KEY", azurite::KEY)
            }
            Server::Ssh(server, _) => command
                .env("COMPLINE_SSH", server.ssh_by(self.line.port(), "user"))
                .env("COMPLINE_SSH_REMOTE", server.remote()),
        };
        command.output().unwrap()
    }

    fn must(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{} {words:?}: {}", self.name(), text(&output.stderr));
        text(&output.stdout)
    }

    /// What comes from here on of the number of connections before.
    fn set_fates(&self, fates: impl Fn(u64) -> Fate + Send + 'static) {
        let before = self.line.connections();
        self.line.set_fates(move |number| fates(number - before));
    }

    fn restore(&self, target: &str) -> Output {
        let what = format!("latest:/files{}", self.path("files").display());
        self.run(&["restore", &what, "--target", target])
    }

    fn must_have_restored(&self, output: &Output, target: &str) {
        assert!(output.status.success(), "{}: {}", self.name(), text(&output.stderr));
        let diff = Command::new("diff").arg("-r").args([self.path("files"), self.path(target)]).output().unwrap();
        assert!(diff.status.success(), "{}: {}", self.name(), text(&diff.stdout));
    }

    /// A whole night on a line where connections end like this.
    fn night(&self, fates: impl Fn(u64) -> Fate + Send + 'static) {
        self.set_fates(fates);
        let before = self.line.connections();
        self.must(&["backup", "files"]);
        self.must_have_restored(&self.restore("out"), "out");
        self.must(&["forget", "--keep-last", "1", "--prune"]);
        assert!(self.line.connections() > before + 2, "{}: what was to happen has happened", self.name());
        self.set_fates(|_| Fate::Whole);
        self.must(&["check", "--read-data"]);
    }
}

const CONTAINER: &str = "backups";

fn create_container(server: &Azurite) {
    let Location::Azure(address) = server.location(CONTAINER, "").parse().unwrap() else { panic!("no container") };
    AzureStorage::with_key(&address, azurite::ACCOUNT, azurite::KEY).unwrap().create_container().unwrap();
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn object_stores_are_asked_again_when_connections_are_cut() {
    for far in Far::stores() {
        far.night(|number| match number % 3 {
            0 => Fate::CutUp(1_000_000),
            1 => Fate::CutDown(3_000),
            _ => Fate::Whole,
        });
    }
}

#[test]
fn object_stores_are_asked_again_when_answers_end_early() {
    for far in Far::stores() {
        far.night(|number| if number % 2 == 0 { Fate::Truncated(20 + number * 500) } else { Fate::Whole });
    }
}

#[test]
fn object_stores_are_asked_again_when_somebody_on_the_way_is_unavailable() {
    for far in Far::stores() {
        // A connection that lasts would be used for all that follows.
        far.night(|number| if number % 3 == 0 { Fate::CutDown(8_000_000) } else { Fate::Refused });
    }
}

#[test]
fn a_backup_over_a_line_that_is_cut_publishes_nothing_and_the_next_one_goes_on() {
    for far in Far::hosts() {
        std::fs::write(far.path("files/huge"), noise(51, 30_000_000)).unwrap();
        // The first connection brings a pack over; no later one brings a whole one.
        far.set_fates(|number| Fate::CutUp(if number == 0 { 12_000_000 } else { 300_000 }));
        let output = far.run(&["backup", "files"]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{}: {said}", far.name());
        assert!(said.contains("ssh could not connect, or lost the connection"), "{}: {said}", far.name());
        assert!(said.contains("What was published is safe"), "{}: {said}", far.name());
        far.set_fates(|_| Fate::Whole);
        assert!(!far.must(&["snapshots", "--json"]).contains("\"id\""), "{}", far.name());
        let report = far.must(&["backup", "files", "--json"]);
        assert!(report.contains("\"status\":\"complete\""), "{}: {report}", far.name());
        far.must_have_restored(&far.restore("out"), "out");
        far.must(&["check", "--read-data"]);
    }
}

#[test]
fn a_restore_over_a_line_that_is_cut_is_made_on_another_one() {
    for far in Far::hosts() {
        far.must(&["backup", "files"]);
        far.set_fates(|number| match number {
            0 => Fate::CutDown(2_000_000),
            1 => Fate::Truncated(4_000_000),
            _ => Fate::Whole,
        });
        far.must_have_restored(&far.restore("out"), "out");
    }
}
