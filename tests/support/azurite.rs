//! Azurite, Microsoft's stand-in for Azure Blob Storage, on a free port of the loopback with a directory of its own. There is
//! no other server of that protocol. `tests/run` installs it where there is npm.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// The account that Azurite always has, and its published key.
pub const ACCOUNT: &str = "devstoreaccount1";
pub const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A running server; it ends when this is dropped.
pub struct Azurite {
    process: Child,
    port: u16,
    _directory: TempDir,
}

/// Where `tests/run` puts it.
fn program() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from)?;
    let program = home.join(".cache/compline-tests/azurite/node_modules/.bin/azurite-blob");
    program.exists().then_some(program)
}

impl Azurite {
    /// Starts one. None where it is not installed.
    pub fn start() -> Option<Self> {
        let program = program()?;
        let directory = TempDir::new().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new(program)
            .args(["--disableTelemetry", "--skipApiVersionCheck", "--blobHost", "127.0.0.1"])
            .args(["--blobPort", &port.to_string(), "--location"])
            .arg(directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { process, port, _directory: directory };
        let mut output = BufReader::new(server.process.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("successfully listens") {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "Azurite ended");
        }
        // It goes on to say things, and must not wait for somebody to hear them.
        std::thread::spawn(move || output.lines().all(|line| line.is_ok()));
        Some(server)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// A place in `container` for LOCATION.
    pub fn location(&self, container: &str, prefix: &str) -> String {
        Self::location_by(self.port, container, prefix, "5s")
    }

    /// The same by way of any port, with more patience or less.
    pub fn location_by(port: u16, container: &str, prefix: &str, patience: &str) -> String {
        format!("azblob://{container}/{prefix}?endpoint=http://127.0.0.1:{port}/{ACCOUNT}&patience={patience}")
    }
}

/// The same, reached through `port`.
pub fn location_by(port: u16, container: &str, prefix: &str) -> String {
    Azurite::location_by(port, container, prefix, "5s")
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _ended_already = self.process.wait();
    }
}
