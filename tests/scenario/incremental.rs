//! Cost follows change: what is as it was is neither read nor stored again, unless it was lost.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use compline::archive::{ArchivePath, ArchiveReader, Entry, FilesSource, RestoreOptions};
use compline::commands::backup::{self, BackupReport, Labels, Work};
use compline::commands::{App, SnapshotPath, Target, init, restore, snapshots};
use compline::observer::Counter;
use compline::storage::Location;
use compline::store::parity::Share;
use compline::store::{Repository, Unlock};
use jiff::SignedDuration;
use tempfile::TempDir;

use crate::support::World;
use crate::support::nasty::noise;

struct Machine {
    scratch: TempDir,
    target: Target,
    /// Backups so far: each is an hour later, so that `latest` is the one before.
    nights: Cell<i64>,
}

fn with_app<T>(world: &World, work: impl FnOnce(App<'_>) -> T) -> T {
    work(App { context: world.context(), ledger: &world.ledger, variable: &|_| None })
}

impl Machine {
    fn new() -> Self {
        let scratch = TempDir::new().unwrap();
        let location = Location::parse(scratch.path().join("repository").as_os_str()).unwrap();
        let (unlock, _) = Unlock::new_key_file().unwrap();
        with_app(&World::new(), |app| init::run(app, &location, &unlock, "", Share::PACK, None).unwrap());
        let target = Target {
            location,
            unlock,
            cache: Some(scratch.path().join("cache")),
            limits: compline::storage::Limits::default(),
            named: compline::commands::Named::Repo,
        };
        std::fs::create_dir_all(scratch.path().join("source/below")).unwrap();
        let machine = Self { scratch, target, nights: Cell::new(0) };
        for at in 0..20 {
            std::fs::write(machine.source().join(format!("below/{at}")), noise(at, 30_000)).unwrap();
        }
        std::fs::write(machine.source().join("large"), noise(99, 3_000_000)).unwrap();
        machine
    }

    fn source(&self) -> PathBuf {
        self.scratch.path().join("source")
    }

    fn backup(&self) -> (BackupReport, World) {
        self.backup_of("")
    }

    /// As `host`, whose first one has no parent.
    fn backup_of(&self, host: &str) -> (BackupReport, World) {
        let mut world = World::new();
        self.nights.set(self.nights.get() + 1);
        world.clock.0 += SignedDuration::from_hours(self.nights.get());
        let work = Work::Files(FilesSource { paths: vec![self.source()], ..FilesSource::default() });
        let labels = Labels { host: host.to_owned(), ..Labels::default() };
        let report = with_app(&world, |app| backup::run(app, &self.target, work, &labels, false)).unwrap();
        (report, world)
    }

    /// What `report` published of `path`: equal if all trees are, byte for byte.
    fn entry(&self, report: &BackupReport, path: &Path) -> Entry {
        let what = SnapshotPath::parse(report.snapshot.unwrap().to_string().as_bytes()).unwrap();
        let world = World::new();
        let published = with_app(&world, |app| snapshots::show(app, &self.target, &what)).unwrap();
        let root = published.snapshot.component("files").unwrap().root_entry().unwrap();
        let repository = Repository::open(self.target.location.open().unwrap(), &self.target.unlock, None).unwrap();
        ArchiveReader::new(&repository, world.context()).entry(&root, &ArchivePath::from_path(path).unwrap()).unwrap()
    }

    /// What `report` published, restored.
    fn restored(&self, name: &str, report: &BackupReport) -> PathBuf {
        let into = self.scratch.path().join(name);
        let what = format!("{}:/files{}", report.snapshot.unwrap(), self.source().display());
        let what = SnapshotPath::parse(what.as_bytes()).unwrap();
        let world = World::new();
        with_app(&world, |app| restore::run(app, &self.target, &what, &into, &RestoreOptions::default())).unwrap();
        assert_eq!(world.problems(), Vec::<String>::new());
        into
    }
}

#[test]
fn an_unchanged_tree_is_not_read_and_costs_a_snapshot() {
    let machine = Machine::new();
    machine.backup();
    // What is made beside it is nobody's business here.
    std::fs::create_dir(machine.scratch.path().join("beside")).unwrap();
    let (report, world) = machine.backup();
    assert_eq!((report.bytes_read, report.chunks_new), (0, 0));
    assert_eq!(world.ledger.get(Counter::ObjectsPut), 1);
    assert!(report.bytes_stored < 4096, "{} bytes", report.bytes_stored);
}

#[test]
fn a_directory_above_is_what_it_was_but_for_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    let machine = Machine::new();
    let above = machine.scratch.path();
    let entry = |report| machine.entry(&report, above);
    let first = entry(machine.backup().0);
    std::fs::create_dir(above.join("beside")).unwrap();
    assert_eq!(entry(machine.backup().0), first);
    std::fs::set_permissions(above, std::fs::Permissions::from_mode(0o751)).unwrap();
    assert_eq!(entry(machine.backup().0).metadata.mode, 0o751);
}

/// Everything that can happen to a tree between two nights.
fn change_all_sorts(machine: &Machine) {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let path = |name: &str| machine.source().join(name);
    std::fs::write(path("below/3"), noise(300, 20_000)).unwrap();
    std::fs::rename(path("below/4"), path("renamed")).unwrap();
    std::fs::hard_link(path("below/5"), path("linked")).unwrap();
    std::fs::remove_file(path("below/6")).unwrap();
    std::fs::create_dir_all(path("new/and/deep")).unwrap();
    std::fs::set_permissions(path("below/7"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::lsetxattr(path("below/8"), "user.changed", b"later", flags).unwrap();
    std::fs::remove_dir_all(path("odd/empty directory")).unwrap();
    symlink("elsewhere", path("odd/names/link")).unwrap();
    std::fs::remove_file(path("below/9")).unwrap();
    std::fs::create_dir(path("below/9")).unwrap();
    std::fs::set_permissions(path("odd/many"), std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_snapshot_is_the_same_with_and_without_a_parent() {
    let machine = Machine::new();
    crate::support::nasty::build(&machine.source().join("odd"));
    machine.backup();
    change_all_sorts(&machine);
    let (changed, _) = machine.backup();
    let (unchanged, world) = machine.backup();
    let (first, _) = machine.backup_of("other");
    let counted = |counter| world.ledger.get(counter);
    assert_eq!(counted(Counter::FilesNew) + counted(Counter::FilesChanged), 0);
    assert_eq!(world.problems(), Vec::<String>::new());
    let entry = |report| machine.entry(report, &machine.source());
    assert_eq!(entry(&first), entry(&changed));
    assert_eq!(entry(&first), entry(&unchanged));
}

#[test]
fn a_touched_file_is_read_and_a_renamed_or_linked_one_stores_nothing() {
    let machine = Machine::new();
    machine.backup();
    let path = |name: &str| machine.source().join(name);
    std::fs::write(path("below/3"), noise(3, 30_000)).unwrap();
    std::fs::rename(path("below/4"), path("renamed")).unwrap();
    std::fs::hard_link(path("below/5"), path("linked")).unwrap();
    let (report, _) = machine.backup();
    // Touched, renamed, and both names of the linked one, whose change time moved.
    assert_eq!((report.bytes_read, report.bytes_new), (4 * 30_000, 0));
}

#[test]
fn what_was_lost_from_the_storage_is_read_and_stored_again() {
    let machine = Machine::new();
    machine.backup();
    let packs = machine.scratch.path().join("repository/packs");
    std::fs::remove_dir_all(&packs).unwrap();
    let (report, world) = machine.backup();
    assert!(!world.problems().is_empty(), "packs that are gone must be told");
    assert_eq!(report.bytes_read, 20 * 30_000 + 3_000_000);
    assert_same(&machine.source(), &machine.restored("again", &report));
}

fn assert_same(left: &Path, right: &Path) {
    crate::support::compare::assert_equal(left, right);
}
