//! Clocks that jump, go back or lie: nobody loses anything by them, and nobody waits for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use compline::archive::FilesSource;
use compline::archive::snapshots::{self as finding, Selector};
use compline::clock::{Clock, FixedClock};
use compline::commands::backup::{Labels, Work};
use compline::commands::prune::of_repository;
use compline::commands::{App, Target};
use compline::observer::{Context, Ledger};
use compline::storage::{Location, MemoryStorage, ObjectKind};
use compline::store::Unlock;
use compline::store::check::DataSubset;
use compline::store::prune::PruneSummary;
use compline::store::session::Session;
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

use crate::prune::{EVERYTHING, after_nights, count, forget_but, holds};
use crate::shelf;
use crate::support::World;

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const YEAR: SignedDuration = SignedDuration::from_hours(365 * 24);

/// A world whose clock is off by so much.
fn off_by(time: SignedDuration) -> World {
    let mut world = World::new();
    world.clock = FixedClock(world.clock.0 + time);
    world
}

/// A machine that prunes: what it has seen of others is in its cache.
struct Pruner {
    storage: Arc<MemoryStorage>,
    unlock: Unlock,
    cache: TempDir,
}

impl Pruner {
    fn new(storage: &Arc<MemoryStorage>, unlock: &Unlock) -> Self {
        Self { storage: storage.clone(), unlock: unlock.clone(), cache: TempDir::new().unwrap() }
    }

    /// Prunes with a clock that is off by so much.
    fn prune(&self, off: SignedDuration) -> PruneSummary {
        let world = off_by(off);
        let repository = shelf::open(&self.storage, &self.unlock, Some(self.cache.path())).unwrap();
        of_repository(&repository, EVERYTHING, &world.context()).unwrap().1
    }

    /// Whether it waits for a writer.
    fn waits(&self, off: SignedDuration) -> bool {
        !self.prune(off).writers_waited_for.is_empty()
    }
}

#[test]
fn a_pruner_whose_clock_jumps_ends_a_living_writer_that_then_publishes_nothing_broken() {
    for loses in [true, false] {
        let (storage, unlock) = after_nights(3);
        let writer = shelf::open(&storage, &unlock, None).unwrap();
        let pruner = Pruner::new(&storage, &unlock);
        // All of the third night is stored, and relied on.
        let result = shelf::save_and_meanwhile(
            &writer,
            &World::new(),
            &shelf::state(3),
            4,
            || {},
            || {
                let repository = shelf::open(&storage, &unlock, None).unwrap();
                forget_but(&repository, |night| night == if loses { 1 } else { 3 });
                let packs = count(&storage, ObjectKind::Pack);
                assert!(pruner.waits(SignedDuration::ZERO), "a writer is waited for");
                assert!(count(&storage, ObjectKind::Pack) >= packs);
                let summary = pruner.prune(HOUR * 2);
                assert!(summary.writers_waited_for.is_empty() && summary.packs_deleted > 0, "{summary:?}");
            },
        );
        if loses {
            assert!(result.unwrap_err().chain().contains("given back meanwhile"));
            holds(&storage, &unlock, None, &[shelf::state(1)], "nothing was published");
            let again = shelf::open(&storage, &unlock, None).unwrap();
            shelf::save(&again, &World::new(), &shelf::state(3), 4).unwrap();
            holds(&storage, &unlock, None, &[1, 3].map(shelf::state), "again");
        } else {
            result.unwrap();
            holds(&storage, &unlock, None, &[3, 3].map(shelf::state), "nothing that it relied on went");
        }
        assert_eq!(count(&storage, ObjectKind::Session), 0);
        assert_eq!(count(&storage, ObjectKind::Retired), 0);
    }
}

#[test]
fn a_clock_that_was_wrong_keeps_no_dead_session_for_ever() {
    for first_seen in [YEAR * 40, SignedDuration::ZERO, YEAR * -40] {
        let (storage, unlock) = after_nights(2);
        let repository = shelf::open(&storage, &unlock, None).unwrap();
        forget_but(&repository, |night| night == 2);
        // Of a machine that nobody hears of again.
        Session::begin(&repository, "backup", &World::new().context()).unwrap().leave();
        let pruner = Pruner::new(&storage, &unlock);
        assert!(pruner.waits(first_seen), "nobody is dead at first sight");
        // The clock is set right. By then the first look is in the future, was just now, or is long ago.
        let is_taken_for_dead = !pruner.waits(SignedDuration::ZERO);
        assert_eq!(is_taken_for_dead, first_seen.is_negative(), "{first_seen}");
        if !is_taken_for_dead {
            assert!(pruner.waits(SignedDuration::from_mins(59)), "it is not long dead");
            assert!(!pruner.waits(SignedDuration::from_mins(61)), "it is dead");
        }
        assert_eq!(count(&storage, ObjectKind::Session), 0);
        holds(&storage, &unlock, None, &[shelf::state(2)], "the clock is right again");
    }
}

#[test]
fn a_clock_that_keeps_going_back_ends_nobody() {
    let (storage, unlock) = after_nights(2);
    let repository = shelf::open(&storage, &unlock, None).unwrap();
    forget_but(&repository, |night| night == 2);
    let living = Session::begin(&repository, "backup", &World::new().context()).unwrap();
    let pruner = Pruner::new(&storage, &unlock);
    for looks in 0..8 {
        assert!(pruner.waits(HOUR * -2 * looks));
    }
    assert!(living.stands().unwrap());
    living.end();
    assert!(!pruner.waits(YEAR * -1));
}

#[test]
fn what_a_writer_takes_for_the_time_makes_no_difference_to_others() {
    for off in [YEAR * -56, YEAR * 500] {
        let (storage, unlock) = after_nights(2);
        let repository = shelf::open(&storage, &unlock, None).unwrap();
        forget_but(&repository, |night| night == 2);
        let living = Session::begin(&repository, "backup", &off_by(off).context()).unwrap();
        let pruner = Pruner::new(&storage, &unlock);
        assert!(pruner.waits(SignedDuration::ZERO) && pruner.waits(HOUR / 2));
        assert!(living.stands().unwrap());
        living.end();
        assert!(!pruner.waits(HOUR / 2));
        holds(&storage, &unlock, None, &[shelf::state(2)], "a writer of another time");
    }
}

#[test]
fn snapshots_from_the_future_and_the_past_are_kept_read_and_built_upon() {
    let (storage, unlock) = after_nights(1);
    let open = || shelf::open(&storage, &unlock, None).unwrap();
    // Ten years too early, then too late, then right.
    let states = [2, 3, 4].map(shelf::state);
    shelf::save(&open(), &off_by(YEAR * 10), &states[0], 2).unwrap();
    shelf::save(&open(), &off_by(YEAR * -30), &states[1], 3).unwrap();
    shelf::save(&open(), &World::new(), &states[2], 4).unwrap();
    let by_time = [3, 1, 4, 2].map(shelf::state);
    holds(&storage, &unlock, None, &by_time, "three clocks");
    let snapshots = finding::all(&open(), &World::new().context()).unwrap();
    let now = World::new().clock.now() + YEAR;
    let select = |selector| finding::select(&snapshots, &selector).unwrap().id;
    assert_eq!(select(Selector::Latest(0)), snapshots[3].id);
    assert_eq!(select(Selector::At(now)), snapshots[2].id, "the newest that is not from the future");
    Pruner::new(&storage, &unlock).prune(YEAR * -5);
    holds(&storage, &unlock, None, &by_time, "pruned");
    forget_but(&open(), |at| at != 4);
    Pruner::new(&storage, &unlock).prune(YEAR * 100);
    holds(&storage, &unlock, None, &by_time[..3], "the one from the future is forgotten");
}

/// Goes back by seven hours, then forward by five, each time that it is looked at.
struct RestlessClock(AtomicI64);

impl Clock for RestlessClock {
    fn now(&self) -> Timestamp {
        let looks = self.0.fetch_add(1, Ordering::SeqCst);
        let hours = if looks % 2 == 0 { -looks } else { 5 - looks };
        World::new().clock.0 + HOUR * i32::try_from(hours).unwrap()
    }
}

#[test]
fn a_clock_that_steps_during_every_command_changes_nothing_but_the_times() {
    let scratch = TempDir::new().unwrap();
    let source = scratch.path().join("source");
    std::fs::create_dir(&source).unwrap();
    let clock = RestlessClock(AtomicI64::new(0));
    let (unlock, _) = Unlock::new_key_file().unwrap();
    let location = Location::parse(scratch.path().join("repository").as_os_str()).unwrap();
    compline::store::Repository::create(&*location.create().unwrap(), &unlock, "", clock.now()).unwrap();
    let cache = Some(scratch.path().join("cache"));
    let (limits, named) = (compline::storage::Limits::default(), compline::commands::Named::Repo);
    let target = Target { location, unlock, cache, limits, named };
    let interrupt = AtomicBool::new(false);
    for night in 0..4_u64 {
        std::fs::write(source.join(format!("night {night}")), format!("night {night}")).unwrap();
        std::fs::write(source.join("changes"), format!("as of night {night}")).unwrap();
        let ledger = Ledger::default();
        let context = Context { clock: &clock, observer: &ledger, interrupt: &interrupt };
        let app = App { context, ledger: &ledger, variable: &|_| None };
        let work = Work::Files(FilesSource { paths: vec![source.clone()], ..FilesSource::default() });
        let report = compline::commands::backup::run(app, &target, work, &Labels::default(), false).unwrap();
        assert!(!report.has_problems() && report.seconds >= 0.0, "{report:?}");
        let report = compline::commands::prune::run(app, &target, EVERYTHING).unwrap();
        assert!(report.problems.is_empty() && report.seconds >= 0.0, "{report:?}");
        let report = compline::commands::check::run(app, &target, DataSubset::All).unwrap();
        assert!(report.problems.is_empty() && report.seconds >= 0.0, "{report:?}");
    }
    // The times say nothing any more; what was captured does.
    let repository = target.open().unwrap();
    let world = World::new();
    let mut seen: Vec<usize> = Vec::new();
    for published in shelf::published(&repository, &world).unwrap() {
        let archive = compline::archive::ArchiveReader::new(&repository, world.context());
        let record = published.snapshot.component("files").unwrap();
        let reader = compline::archive::ComponentReader::new(&archive, record).unwrap();
        let mut files = 0;
        archive
            .walk(reader.root(), &compline::archive::ArchivePath::root(), &mut |_, entry| {
                files += usize::from(matches!(entry.kind, compline::archive::EntryKind::File(_)));
                Ok(())
            })
            .unwrap();
        seen.push(files);
    }
    seen.sort_unstable();
    assert_eq!(seen, [2, 3, 4, 5]);
}
