//! A directory with a plan, what the plan names, and the repository.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use compline::archive::snapshots;
use compline::archive::{Snapshot, Status};
use compline::clock::SystemClock;
use compline::commands::backup::{self, BackupReport, Labels, Work};
use compline::commands::recover::{self, Recovery, RecoveryReport};
use compline::commands::{App, Target, init};
use compline::components::Existing;
use compline::crypto::Secret;
use compline::error::Result;
use compline::observer::{Context, Ledger};
use compline::plan::Plan;
use compline::storage::Location;
use compline::store::Unlock;
use compline::store::parity::Share;

/// Which components a backup takes.
#[derive(Clone, Copy)]
pub enum Only<'a> {
    All,
    These(&'a [&'a str]),
    AllBut(&'a [&'a str]),
}

pub struct House {
    home: tempfile::TempDir,
    plan: String,
}

impl House {
    /// A house whose plan has these `components`, and a new repository.
    pub fn new(components: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let plan = format!("format = 1\nplatform = {{ name = \"house\" }}\n{components}");
        let house = Self { home, plan };
        with_app(|app| init::run(app, &house.location(), &unlock(), "first", Share::PACK, None)).unwrap();
        house
    }

    pub fn plan(&self) -> Plan {
        Plan::load(&self.path("plan.toml"), &self.plan).unwrap()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn remove(&self, name: &str) {
        let path = self.path(name);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }

    pub fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    pub fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path(name)).unwrap().permissions().mode() & 0o7777
    }

    /// Paths of the files below `name`, sorted.
    pub fn files(&self, name: &str) -> Vec<String> {
        let mut found = Vec::new();
        gather(&self.path(name), &self.path(name), &mut found);
        found.sort();
        found
    }

    pub fn backup(&self) -> BackupReport {
        self.backup_only(Only::All)
    }

    pub fn backup_only(&self, only: Only<'_>) -> BackupReport {
        self.try_backup(only).unwrap()
    }

    pub fn try_backup(&self, only: Only<'_>) -> Result<BackupReport> {
        let (only, skip) = match only {
            Only::All => (vec![], vec![]),
            Only::These(names) => (owned(names), vec![]),
            Only::AllBut(names) => (vec![], owned(names)),
        };
        let plan = self.plan();
        let work = Work::Plan { plan: &plan, only: &only, skip: &skip };
        let labels = Labels { host: "here".into(), user: "me".into(), ..Labels::default() };
        with_app(|app| backup::run(app, &self.target(), work, &labels, false))
    }

    /// Restores everything from the latest snapshot, partial ones included.
    pub fn restore(&self, existing: Option<Existing>) -> Result<RecoveryReport> {
        self.restore_with(|recovery| recovery.existing = existing)
    }

    pub fn restore_with(&self, wish: impl FnOnce(&mut Recovery)) -> Result<RecoveryReport> {
        let selector = "latest".parse().unwrap();
        let mut recovery = Recovery { selector, only: vec![], existing: None, force_version: None, root: None };
        wish(&mut recovery);
        let plan = self.plan();
        let done = with_app(|app| recover::run(app, &self.target(), &plan, &recovery, &mut |_| Ok(true)))?;
        Ok(done.unwrap())
    }

    pub fn snapshot(&self, report: &BackupReport) -> Snapshot {
        let repository = self.target().open().unwrap();
        snapshots::read(&repository, report.snapshot.unwrap()).unwrap().snapshot
    }

    fn location(&self) -> Location {
        Location::Local(self.path("repository"))
    }

    fn target(&self) -> Target {
        Target {
            location: self.location(),
            unlock: unlock(),
            cache: Some(self.path("cache")),
            limits: compline::storage::Limits::default(),
            named: compline::commands::Named::Repo,
        }
    }
}

pub fn statuses(report: &BackupReport) -> Vec<(&str, Status)> {
    report.components.iter().map(|component| (component.name.as_str(), component.status)).collect()
}

fn with_app<T>(act: impl FnOnce(App<'_>) -> T) -> T {
    let (ledger, interrupt) = (Ledger::default(), AtomicBool::new(false));
    let context = Context { clock: &SystemClock, observer: &ledger, interrupt: &interrupt };
    act(App { context, ledger: &ledger, variable: &|_| None })
}

fn unlock() -> Unlock {
    Unlock::KeyFile(Secret::from_bytes([7; 32]))
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn gather(root: &Path, directory: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gather(root, &path, found);
        } else {
            found.push(path.strip_prefix(root).unwrap().display().to_string());
        }
    }
}
