//! A PostgreSQL of one's own: in a temporary directory, on a free port, stopped when it is dropped.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// Who runs the server when the tests run as root, which PostgreSQL refuses to be.
const SERVICE_USER: &str = "postgres";

pub struct PostgresServer {
    home: TempDir,
    port: u16,
    bin: PathBuf,
}

/// Where the newest installed version has its programs.
pub fn bin() -> PathBuf {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists())
        .collect();
    versions.sort();
    versions
        .pop()
        .map_or_else(|| panic!("PostgreSQL's server is not installed: apt-get install postgresql"), |(_, bin)| bin)
}

impl PostgresServer {
    /// A fresh server. Everybody may come in through the socket; through 127.0.0.1 only with a password.
    pub fn start() -> Self {
        let home = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        if am_root() {
            let (uid, gid) = service_ids();
            chown(home.path(), Some(uid), Some(gid)).unwrap();
        }
        let mut server = Self { home, port: 0, bin: bin() };
        let data = server.data();
        server.must(
            "initdb",
            &["-D", &data, "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"],
        );
        let access = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(server.home.path().join("data/pg_hba.conf"), access).unwrap();
        // Another program may take the port between the look and the start.
        let started = (0..5).any(|_| server.try_start());
        assert!(started, "{}", std::fs::read_to_string(server.home.path().join("log")).unwrap_or_default());
        server
    }

    fn try_start(&mut self) -> bool {
        self.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={} -c unix_socket_directories={} -c fsync=off -c max_connections=30 \
             -c shared_buffers=16MB",
            self.port,
            self.home.path().display()
        );
        let log = self.home.path().join("log");
        let data = self.data();
        self.tool("pg_ctl", &["-D", &data, "-l", log.to_str().unwrap(), "-o", &options, "-w", "start"]).status.success()
    }

    pub fn stop(&self) {
        let data = self.data();
        self.must("pg_ctl", &["-D", &data, "-m", "immediate", "-w", "stop"]);
    }

    fn data(&self) -> String {
        self.home.path().join("data").to_str().unwrap().to_owned()
    }

    pub fn socket(&self) -> &Path {
        self.home.path()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Settings of a component that comes in through the socket.
    pub fn connect(&self) -> String {
        format!("connect = {{ socket = {:?}, port = {}, user = \"postgres\" }}\n", self.socket(), self.port)
    }

    /// Settings of a component that comes in with a password.
    pub fn connect_with_password(&self, user: &str, variable: &str) -> String {
        format!(
            "connect = {{ host = \"127.0.0.1\", port = {}, user = \"{user}\", password = {{ env = \"{variable}\" }} }}\n",
            self.port
        )
    }

    fn tool(&self, name: &str, words: &[&str]) -> Output {
        self.command(name).args(words).stdin(Stdio::null()).output().unwrap()
    }

    pub fn must(&self, name: &str, words: &[&str]) -> String {
        let output = self.tool(name, words);
        assert!(output.status.success(), "{name} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn command(&self, name: &str) -> Command {
        let program = self.bin.join(name);
        let mut command = if am_root() {
            let mut command = Command::new("setpriv");
            command.args([&format!("--reuid={SERVICE_USER}"), &format!("--regid={SERVICE_USER}"), "--clear-groups"]);
            command.arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.home.path()).env("HOME", self.home.path());
        command.env("PGHOST", self.home.path()).env("PGUSER", "postgres").env_remove("PGPORT");
        if self.port != 0 {
            command.env("PGPORT", self.port.to_string());
        }
        command
    }

    /// What `statements` print, one line for each row.
    pub fn sql(&self, database: &str, statements: &str) -> String {
        let mut psql = self.command("psql");
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", database]);
        let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(statements.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{statements}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Names of all databases that are no templates.
    pub fn databases(&self) -> Vec<String> {
        let names = self
            .sql("postgres", "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY datname COLLATE \"C\"");
        names.lines().map(str::to_owned).collect()
    }

    /// A session that stays open until its input is closed.
    pub fn hold(&self, database: &str, statements: &str) -> Held {
        let mut psql = self.command("psql");
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", database]);
        let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(format!("{statements}\n\\echo held\n").as_bytes()).unwrap();
        let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while line != "held\n" {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut output, &mut line).unwrap() > 0, "psql ended");
        }
        Held { child, input: Some(input) }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let Ok(text) = std::fs::read_to_string(self.home.path().join("data/postmaster.pid")) else { return };
        let data = self.data();
        if !self.tool("pg_ctl", &["-D", &data, "-m", "immediate", "-w", "stop"]).status.success() {
            let pid = text.lines().next().and_then(|pid| pid.parse().ok()).and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _gone_already = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// A session that is open.
pub struct Held {
    child: std::process::Child,
    input: Option<std::process::ChildStdin>,
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.input.take());
        let _status = self.child.wait();
    }
}

fn am_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn service_ids() -> (u32, u32) {
    let id = |flag: &str| {
        let output = Command::new("id").args([flag, SERVICE_USER]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    (id("-u"), id("-g"))
}
