//! A night, end to end, with the repository on another machine: through a real SSH server, with the program.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::host::Host;
use crate::night::night;
use crate::ssh_server::{COMPLINE, SshServer};

const SCHEMES: [&str; 2] = ["ssh", "sftp"];

/// A machine that is backed up to another one.
struct Machine {
    server: SshServer,
    scratch: TempDir,
    scheme: &'static str,
    key: &'static str,
}

impl Machine {
    fn new(scheme: &'static str) -> Option<Self> {
        let server = SshServer::start()?;
        let machine = Self { server, scratch: TempDir::new().unwrap(), scheme, key: "user" };
        std::fs::create_dir(machine.path("files")).unwrap();
        Some(machine)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn location(&self) -> String {
        format!("{}://there{}", self.scheme, self.path("far/repository").display())
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(COMPLINE);
        command
            .current_dir(self.scratch.path())
            .args(["-r", &self.location(), "--key-file", "key", "--cache-dir", "cache"])
            .args(words)
            .env("COMPLINE_SSH", self.server.ssh(self.key))
            .env("COMPLINE_SSH_REMOTE", self.server.remote())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn must(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(0), "{words:?} {}: {}", self.scheme, text(&output.stderr));
        text(&output.stdout)
    }

    /// Exit code and what was said.
    fn fails(&self, words: &[&str]) -> (i32, String) {
        let output = self.run(words);
        (output.status.code().unwrap(), text(&output.stderr))
    }

    fn write(&self, name: &str, seed: u8, len: usize) {
        std::fs::write(self.path("files").join(name), noise(seed, len)).unwrap();
    }

    fn restored(&self, what: &str, into: &str) -> PathBuf {
        let from = format!("{what}:/files{}", self.path("files").display());
        self.must(&["restore", &from, "--target", into]);
        self.path(into)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

fn same(a: &Path, b: &Path) -> bool {
    Command::new("diff").arg("-r").args([a, b]).status().unwrap().success()
}

/// A host whose repository lies on another machine.
fn host_beyond(server: &SshServer, scheme: &str) -> Host {
    let variables = vec![("COMPLINE_SSH", server.ssh("user")), ("COMPLINE_SSH_REMOTE", server.remote())];
    let mut host = Host::of(String::new(), variables);
    host.location = format!("{scheme}://there{}", host.path("far/repository").display());
    host
}

fn a_night_end_to_end(scheme: &str) {
    let Some(server) = SshServer::start() else { return };
    let mut host = host_beyond(&server, scheme);
    host.run(&["snapshots"]).fails(1, &["Key file"]);
    night(&host, &mut || ());
    let entries = |name: &str| std::fs::read_dir(host.path("far").join(name)).unwrap().count();
    for name in ["repository", "repository-vault"] {
        let left = ["tmp", "sessions"].map(|kind| entries(&format!("{name}/{kind}")));
        assert_eq!(left, [0, 0], "{scheme} leaves nothing behind in {name}");
    }
    // The same repository, on the machine where it lies.
    "far/repository".clone_into(&mut host.location);
    host.must(&["check", "--read-data"]);
}

#[test]
fn a_night_end_to_end_by_ssh() {
    a_night_end_to_end("ssh");
}

#[test]
fn a_night_end_to_end_by_sftp() {
    a_night_end_to_end("sftp");
}

#[test]
fn a_server_that_dies_in_a_backup_loses_nothing_and_the_next_run_goes_on() {
    for scheme in SCHEMES {
        let Some(machine) = Machine::new(scheme) else { return };
        machine.must(&["init"]);
        machine.write("first", 1, 2_000_000);
        machine.must(&["backup", "files"]);
        std::fs::write(machine.path("one"), noise(2, 20_000_000)).unwrap();
        std::fs::write(machine.path("two"), noise(3, 20_000_000)).unwrap();
        let script = format!("cat one; {}; cat two", machine.server.killer());
        let output = machine.run(&["backup", "--stdin-name", "s", "--stdin-from-command", "--", "sh", "-c", &script]);
        // Reads go on by themselves. Whether a put was on its way just then is a matter of luck.
        let code = output.status.code().unwrap();
        assert!(matches!(code, 0 | 1), "{scheme} {code}: {}", text(&output.stderr));
        if code == 1 {
            let said = text(&output.stderr);
            assert!(said.contains("C-0030") && said.contains("run the command again"), "{said}");
            assert!(machine.must(&["snapshots"]).contains("1 snapshot."));
        }
        machine.must(&["check", "--read-data"]);
        let again = ["backup", "--json", "--stdin-name", "s", "--stdin-from-command", "--", "cat", "one", "two"];
        let report = machine.must(&again);
        let stored: f64 = field(&report, "bytes_stored");
        assert!(stored < 36_000_000.0, "{scheme}: what was uploaded is used, {stored} bytes were stored");
        let back = machine.command(&["cat", "latest:/s"]).output().unwrap().stdout;
        assert!(back == [noise(2, 20_000_000), noise(3, 20_000_000)].concat());
        machine.must(&["check", "--read-data"]);
    }
}

/// A number of a JSON object.
fn field(json: &str, name: &str) -> f64 {
    let object: serde_json::Value = serde_json::from_str(json).unwrap();
    object[name].as_f64().unwrap()
}

#[test]
fn a_server_that_dies_in_a_restore_is_asked_again() {
    for scheme in SCHEMES {
        let Some(machine) = Machine::new(scheme) else { return };
        machine.must(&["init"]);
        std::fs::write(machine.path("stream"), noise(4, 60_000_000)).unwrap();
        machine.must(&["backup", "--stdin-name", "s", "--stdin-from-command", "--", "cat", "stream"]);
        let before = machine.server.connections();
        let mut reader = machine.command(&["cat", "latest:/s"]).stdout(Stdio::piped()).spawn().unwrap();
        // Who reads kills the server after the first megabyte, when most is still to come.
        let script = format!("head -c 1000000; {}; cat", machine.server.killer());
        let output = Command::new("sh").args(["-c", &script]).stdin(reader.stdout.take().unwrap()).output().unwrap();
        assert_eq!(reader.wait().unwrap().code(), Some(0), "{scheme}");
        assert!(output.stdout == noise(4, 60_000_000));
        assert!(machine.server.connections() >= before + 2, "{scheme}: there was a second connection");
    }
}

#[test]
fn ctrl_c_ends_a_run_in_order_though_ssh_hears_it_too() {
    for scheme in SCHEMES {
        let Some(machine) = Machine::new(scheme) else { return };
        machine.must(&["init"]);
        std::fs::write(machine.path("stream"), noise(5, 20_000_000)).unwrap();
        // What a terminal does: the signal goes to the whole group, when packs are on their way.
        let script = "cat stream; while [ ! -s group ]; do :; done; kill -s INT -- -$(cat group); cat stream stream";
        let before = machine.server.connections();
        let mut command =
            machine.command(&["backup", "--stdin-name", "s", "--stdin-from-command", "--", "sh", "-c", script]);
        let run = command.process_group(0).stderr(Stdio::piped()).spawn().unwrap();
        std::fs::write(machine.path("group"), run.id().to_string()).unwrap();
        let output = run.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{scheme}: {}", text(&output.stderr));
        let sessions = std::fs::read_dir(machine.path("far/repository/sessions")).unwrap().count();
        assert_eq!(sessions, 0, "{scheme}: the session is ended");
        // Several lines are there to carry packs; had any of them ended, there would be one more.
        assert!(machine.server.connections() <= before + 4, "{scheme}: and the line was there to end it");
        machine.must(&["check", "--read-data"]);
    }
}

#[test]
fn who_waits_for_what_was_killed_says_so_even_when_asked_for_quiet() {
    let Some(machine) = Machine::new("ssh") else { return };
    machine.must(&["init"]);
    machine.write("a", 1, 1_000_000);
    machine.must(&["backup", "files"]);
    machine.must(&["forget", "latest"]);
    let killed = ["backup", "--stdin-name", "s", "--stdin-from-command", "--", "sh", "-c", "kill -9 $PPID"];
    assert_eq!(machine.run(&killed).status.code(), None);
    // Beyond a line nobody knows whether a request of the dead process is still on its way.
    let output = machine.run(&["prune", "-q", "--max-unused", "0%", "--wait", "11s"]);
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 0), "{said}");
    let told = said.contains("Waiting until this ends, for 11 s at most: backup on ");
    assert!(told && said.contains("is still at work: what was to be deleted stays"), "{said}");
    machine.must(&["check", "--read-data"]);
}

#[test]
fn a_host_that_may_only_add_backs_up_and_can_destroy_nothing() {
    let Some(mut machine) = Machine::new("ssh") else { return };
    let root = machine.path("far/repository");
    let serve = format!("{} serve --stdio --append-only {}", machine.server.remote(), root.display());
    machine.server.force(&serve);
    machine.key = "forced";
    machine.must(&["init"]);
    machine.write("a", 1, 1_000_000);
    machine.must(&["backup", "files"]);
    machine.write("a", 2, 1_000_000);
    machine.must(&["backup", "files"]);
    machine.must(&["check", "--read-data"]);
    assert_eq!(std::fs::read_dir(root.join("sessions")).unwrap().count(), 0, "its own sessions it may end");
    for words in
        [["forget", "--keep-last=1"].as_slice(), &["forget", "latest"], &["forget", "--keep-last=1", "--prune"]]
    {
        let (code, said) = machine.fails(words);
        assert!(
            code == 1 && said.contains("append-only") && said.contains("authorized_keys"),
            "{words:?} {code}: {said}"
        );
    }
    // A new record it may add, but the old one stays.
    let (code, said) = machine.fails(&["tag", "--set=x", "latest"]);
    assert!(code == 3 && said.contains("append-only"), "{code}: {said}");
    assert!(machine.must(&["snapshots"]).contains("3 snapshots."));
    // Who may prune is another key.
    machine.key = "user";
    machine.must(&["forget", "--keep-last", "1"]);
    machine.must(&["prune", "--max-unused", "0%", "--wait", "0s"]);
    machine.must(&["check", "--read-data"]);
}

#[test]
fn whoever_may_only_look_restores_and_cannot_back_up() {
    let Some(mut machine) = Machine::new("ssh") else { return };
    machine.must(&["init"]);
    machine.write("a", 1, 1_000_000);
    machine.must(&["backup", "files"]);
    let root = machine.path("far/repository");
    machine.server.force(&format!("{} serve --stdio --read-only {}", machine.server.remote(), root.display()));
    machine.key = "forced";
    assert!(same(&machine.path("files"), &machine.restored("latest", "out")));
    let (code, said) = machine.fails(&["backup", "files"]);
    assert!(code == 1 && said.contains("read-only"), "{code}: {said}");
    machine.must(&["check"]);
}

#[test]
fn what_is_wrong_with_the_way_there_is_said() {
    for scheme in SCHEMES {
        let Some(mut machine) = Machine::new(scheme) else { return };
        machine.must(&["init"]);
        machine.key = "stranger";
        let (code, said) = machine.fails(&["snapshots"]);
        assert!(code == 1 && said.contains("Permission denied") && said.contains("ssh HOST true"), "{code}: {said}");
        machine.key = "user";
        let far = machine.path("far/repository");
        std::fs::rename(&far, machine.path("far/elsewhere")).unwrap();
        let (code, said) = machine.fails(&["snapshots"]);
        assert!(code == 10 && said.contains("no repository at"), "{scheme} {code}: {said}");
    }
}

/// A file system of the other machine that has little room.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&path).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=80m", "compline-far"]).arg(&path).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_on_the_other_machine_is_told_and_the_next_run_goes_on_when_there_is_room() {
    for scheme in SCHEMES {
        let Some(machine) = Machine::new(scheme) else { return };
        let Some(disk) = SmallDisk::mount(machine.path("far")) else {
            println!("SKIPPED: this test mounts a tmpfs, which takes root with CAP_SYS_ADMIN");
            return;
        };
        machine.must(&["init"]);
        machine.write("first", 1, 100_000);
        machine.must(&["backup", "files"]);
        let ballast = disk.0.join("ballast");
        std::fs::write(&ballast, vec![1; 60_000_000]).unwrap();
        machine.write("large", 2, 50_000_000);
        let (code, said) = machine.fails(&["backup", "files"]);
        assert!(code == 1 && said.contains("[C-0030]") && said.contains("Free some space"), "{scheme} {code}: {said}");
        std::fs::remove_file(&ballast).unwrap();
        assert!(machine.must(&["snapshots"]).contains("1 snapshot."));
        machine.must(&["check", "--read-data"]);
        machine.must(&["backup", "files"]);
        assert!(same(&machine.path("files"), &machine.restored("latest", "out")));
    }
}
