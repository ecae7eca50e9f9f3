//! An SSH server of one's own: in a temporary directory, on a free port of the loopback, with its own keys and known hosts,
//! stopped when it is dropped. And a program that stands in for ssh where there is none to connect to.
#![allow(dead_code, reason = "each crate of tests uses a part of it")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

const SSHD: &str = "/usr/sbin/sshd";
const SFTP_SERVER: &str = "/usr/lib/openssh/sftp-server";

pub struct SshServer {
    home: TempDir,
    sshd: Child,
    port: u16,
}

/// The program under test.
pub const COMPLINE: &str = env!("CARGO_BIN_EXE_compline");

impl SshServer {
    /// A server that lets the calling user in with the key `user`; with other keys see [`allow`](Self::allow). None, said so,
    /// where the programs are missing.
    pub fn start() -> Option<Self> {
        for program in [SSHD, SFTP_SERVER] {
            if !Path::new(program).exists() {
                println!("SKIPPED: there is no {program} (Debian: openssh-server, openssh-sftp-server)");
                return None;
            }
        }
        let home = tempfile::Builder::new().prefix("ssh").tempdir().unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        // Where it separates privileges, and won't start without.
        let _not_root = std::fs::create_dir_all("/run/sshd");
        for key in ["host", "user"] {
            make_key(home.path(), key);
        }
        std::fs::copy(home.path().join("user.pub"), home.path().join("authorized")).unwrap();
        write_program(&home.path().join("sftp-server"), &noted(home.path(), SFTP_SERVER));
        write_program(&home.path().join("compline"), &noted(home.path(), COMPLINE));
        // Another program may take the port between the look and the start.
        let (sshd, port) = (0..5).find_map(|_| start(home.path())).unwrap();
        let server = Self { home, sshd, port };
        server.write_client_config();
        Some(server)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    fn write_client_config(&self) {
        let port = self.port;
        let home = self.home.path().display();
        let host_key = std::fs::read_to_string(self.path("host.pub")).unwrap();
        std::fs::write(self.path("known"), format!("[127.0.0.1]:{port} {host_key}")).unwrap();
        for key in ["user", "forced", "stranger"] {
            let config = format!(
                "Host there\n HostName 127.0.0.1\n Port {port}\n IdentityFile {home}/{key}\n IdentitiesOnly yes\n \
                 UserKnownHostsFile {home}/known\n StrictHostKeyChecking yes\n"
            );
            std::fs::write(self.path(&format!("config-{key}")), config).unwrap();
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Words for `COMPLINE_SSH`, with the key `key`.
    pub fn ssh(&self, key: &str) -> String {
        format!("ssh -F {}", self.path(&format!("config-{key}")).display())
    }

    /// The same by way of another port.
    pub fn ssh_by(&self, port: u16, key: &str) -> String {
        format!("{} -o Port={port} -o HostKeyAlias=[127.0.0.1]:{}", self.ssh(key), self.port)
    }

    /// A compline for `COMPLINE_SSH_REMOTE` that notes its process.
    pub fn remote(&self) -> String {
        self.path("compline").display().to_string()
    }

    /// Lets the key `forced` in, which can do nothing but this.
    pub fn force(&self, command: &str) {
        make_key(self.home.path(), "forced");
        let public = std::fs::read_to_string(self.path("forced.pub")).unwrap();
        let mut authorized = std::fs::read_to_string(self.path("authorized")).unwrap();
        authorized.push_str(&format!("command=\"{command}\",restrict {public}"));
        std::fs::write(self.path("authorized"), authorized).unwrap();
    }

    /// A shell command that kills what serves the newest connection.
    pub fn killer(&self) -> String {
        format!("kill -9 $(tail -n 1 {})", self.path("processes").display())
    }

    /// How many connections were served.
    pub fn connections(&self) -> usize {
        std::fs::read_to_string(self.path("processes")).map_or(0, |text| text.lines().count())
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        let _gone_already = self.sshd.kill();
        let _status = self.sshd.wait();
    }
}

/// A stand-in for ssh that runs the command of the other machine on this one; `sftp` becomes `sftp_server`.
pub fn pretended_ssh(directory: &Path, sftp_server: &str) -> String {
    let path = directory.join("pretended-ssh");
    let text = format!(
        "#!/bin/sh\nfor word; do command=$word; done\ncase $command in sftp) exec {sftp_server} ;; *) exec /bin/sh -c \
         \"$command\" ;; esac\n"
    );
    write_program(&path, &text);
    path.display().to_string()
}

/// A stand-in for ssh that loses the line when the server has put an object and is about to say so; once, and then `lost` is there.
pub fn forgetful_ssh(directory: &Path, lost: &Path) -> String {
    let between = directory.join("forgetful.py");
    write_program(&between, FORGETFUL);
    let path = directory.join("forgetful-ssh");
    let (between, lost) = (between.display(), lost.display());
    // What puts: the extension hardlink of SFTP, and PUT_NEW of compline.
    let text = format!(
        "#!/bin/sh\nfor word; do command=$word; done\ncase $command in sftp) set -- 200 hardlink {SFTP_SERVER} ;; *) set -- 3 '' \
         /bin/sh -c \"$command\" ;; esac\nexec python3 {between} {lost} \"$@\"\n"
    );
    write_program(&path, &text);
    path.display().to_string()
}

/// Stands between client and server, whose frames are `u32 length | u8 kind | u32 id | body`.
const FORGETFUL: &str = r#"
import os, subprocess, sys, threading
lost, kind, word, command = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode(), sys.argv[4:]
server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
awaited = None
def frame(stream):
    head = stream.read(4)
    return head and head + stream.read(int.from_bytes(head, "big"))
def ask():
    global awaited
    while question := frame(sys.stdin.buffer):
        if question[4] == kind and word in question[9:40] and not os.path.exists(lost):
            open(lost, "x").close()
            awaited = question[5:9]
        server.stdin.write(question)
        server.stdin.flush()
    server.stdin.close()
threading.Thread(target=ask, daemon=True).start()
while answer := frame(server.stdout):
    if answer[5:9] == awaited:
        os._exit(1)
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
"#;

/// A stand-in for ssh to a machine whose shell prints something at every login.
pub fn shouting_ssh(directory: &Path) -> String {
    let path = directory.join("shouting-ssh");
    write_program(&path, "#!/bin/sh\necho Welcome to the machine\nexec cat >/dev/null\n");
    path.display().to_string()
}

/// OpenSSH's SFTP server.
pub fn sftp_server() -> Option<&'static str> {
    Path::new(SFTP_SERVER).exists().then_some(SFTP_SERVER)
}

/// The same without the extensions that others lack.
pub fn bare_sftp_server() -> Option<String> {
    let without = "posix-rename,hardlink,fsync,statvfs,lsetstat,limits,expand-path,copy-data";
    sftp_server().map(|server| format!("{server} -P {without}"))
}

fn make_key(directory: &Path, name: &str) {
    let status =
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(directory.join(name)).status();
    assert!(status.unwrap().success());
}

fn write_program(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Notes the process and becomes `program`.
fn noted(home: &Path, program: &str) -> String {
    format!("#!/bin/sh\necho $$ >> {}\nexec {program} \"$@\"\n", home.join("processes").display())
}

fn start(home: &Path) -> Option<(Child, u16)> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let at = home.display();
    let config = format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {at}/host\nAuthorizedKeysFile {at}/authorized\nPidFile none\n\
         UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
         StrictModes no\nMaxStartups 100\nSubsystem sftp {at}/sftp-server\n"
    );
    std::fs::write(home.join("sshd_config"), config).unwrap();
    let mut sshd = Command::new(SSHD)
        .args(["-D", "-e", "-f"])
        .arg(home.join("sshd_config"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(sshd.stderr.take().unwrap());
    let mut line = String::new();
    while log.read_line(&mut line).unwrap() > 0 {
        if line.contains("Server listening") {
            // Somebody has to read the rest, or the server stops when the pipe is full.
            std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
            return Some((sshd, port));
        }
        line.clear();
    }
    let _status = sshd.wait();
    None
}
