//! Which process this is, so that another one of the same machine sees when it is gone.

use std::fs;

use serde::{Deserialize, Serialize};

/// A process, as far as the system tells; an empty text is what it does not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Name of the machine.
    pub host: String,
    /// `/etc/machine-id`.
    pub machine: String,
    /// Random name of the time since the machine was started.
    pub boot: String,
    /// Where its number means something: a container has numbers of its own.
    pub pid_space: String,
    /// Its number.
    pub pid: u32,
    /// When it was started, in ticks since the machine was: numbers are used again.
    pub pid_started: String,
}

fn line(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Field 22 of `/proc/<pid>/stat`. The second field is a name in brackets, which may hold anything.
fn started(stat: &str) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)
}

fn pid_started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    started(&stat).map(str::to_owned)
}

impl Process {
    /// This one.
    #[must_use]
    pub fn this() -> Self {
        let pid = std::process::id();
        let pid_space = fs::read_link("/proc/self/ns/pid").ok();
        Self {
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            machine: line("/etc/machine-id"),
            boot: line("/proc/sys/kernel/random/boot_id"),
            pid_space: pid_space.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
            pid,
            pid_started: pid_started(pid).unwrap_or_default(),
        }
    }

    /// Whether it certainly does not run any more, as far as `this` process can see. Who can't be seen may run.
    #[must_use]
    pub fn is_gone(&self, this: &Self) -> bool {
        let same = |a: &str, b: &str| !a.is_empty() && a == b;
        if !same(&self.boot, &this.boot) {
            // The machine was started again since. A clone of it may have the same id, but not often the same name too.
            return !self.boot.is_empty()
                && !this.boot.is_empty()
                && same(&self.machine, &this.machine)
                && same(&self.host, &this.host);
        }
        same(&self.pid_space, &this.pid_space)
            && !self.pid_started.is_empty()
            && pid_started(self.pid).is_none_or(|started| started != self.pid_started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_process_is_found_behind_any_name() {
        let tail: Vec<String> = (3..30).map(|n| n.to_string()).collect();
        assert_eq!(started(&format!("12 (a) b (c) {}", tail.join(" "))), Some("22"));
        assert_eq!(started("12 (a"), None);
    }

    #[test]
    fn a_process_is_gone_when_it_ended_or_its_machine_was_started_again() {
        let this = Process::this();
        assert!(!this.is_gone(&this));
        assert!(Process { pid: u32::MAX, ..this.clone() }.is_gone(&this));
        assert!(Process { pid_started: "1".to_owned(), ..this.clone() }.is_gone(&this));
        let before = Process { boot: "other".to_owned(), ..this.clone() };
        assert_eq!(before.is_gone(&this), !this.machine.is_empty());
        // Of another machine or another container nothing is known.
        assert!(!Process { machine: "other".to_owned(), ..before }.is_gone(&this));
        assert!(!Process { pid_space: "other".to_owned(), pid: u32::MAX, ..this.clone() }.is_gone(&this));
        assert!(!Process::default().is_gone(&this));
    }
}
