//! Two writers, two pruners, a reader and one who forgets, on one storage in bad weather: whatever fails, comes late or
//! happens twice, a snapshot that is published is what was captured, until it is forgotten.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use compline::archive::snapshots::{self as finding, Published};
use compline::commands::prune::of_repository;
use compline::error::{Error, ErrorKind};
use compline::id::SnapshotId;
use compline::pipeline;
use compline::storage::{MemoryStorage, ObjectKey, ObjectKind, Storage};
use compline::store::prune::{Allowance, PruneOptions};
use compline::store::{Repository, Unlock};
use tempfile::TempDir;

use crate::prune::{EVERYTHING, count, holds, prune};
use crate::shelf;
use crate::support::World;
use crate::weather::{INJECTED, Line, Trouble, Weather};

/// Nights of each of the two writers.
const NIGHTS: u64 = 8;
/// Snapshots that are kept at least.
const KEPT_MIN: usize = 3;

/// How many faults; the variable asks for more of them.
fn faults() -> u64 {
    std::env::var("COMPLINE_TEST_FAULTS").map_or(300, |text| text.parse().unwrap())
}

/// What was seen in all storms together.
#[derive(Default)]
struct Tally {
    saved: AtomicU64,
    failed: AtomicU64,
    prunes: AtomicU64,
    prunes_failed: AtomicU64,
    packs_deleted: AtomicU64,
    forgotten: AtomicU64,
    read: AtomicU64,
    sessions_ended: AtomicU64,
    left_open: AtomicU64,
    alarms: AtomicU64,
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

#[derive(Default)]
struct Record {
    /// Of which the writer heard that they are published.
    acknowledged: HashMap<SnapshotId, u64>,
    /// Somebody asked for them to be deleted.
    forgotten: HashSet<SnapshotId>,
}

struct Storm<'s> {
    seed: u64,
    /// Sessions of living writers are ended.
    is_rude: bool,
    weather: Arc<Weather>,
    unlock: Unlock,
    record: Mutex<Record>,
    next_night: AtomicU64,
    writers_left: AtomicU64,
    /// One of the threads found something wrong.
    died: AtomicBool,
    tally: &'s Tally,
}

/// A machine: a cache, which it keeps or loses, and one program after the other.
struct Machine<'m, 's> {
    storm: &'m Storm<'s>,
    what: &'static str,
    cache: Option<TempDir>,
}

impl<'m, 's> Machine<'m, 's> {
    fn new(storm: &'m Storm<'s>, what: &'static str) -> Self {
        Self { storm, what, cache: None }
    }

    /// Runs a program. What it says of itself when it fails must have been done to it.
    fn run<T>(
        &mut self,
        work: impl FnOnce(&Repository, &World) -> Result<T, Error>,
        is_excused: impl FnOnce(&Error) -> bool,
    ) -> Option<T> {
        let storm = self.storm;
        match storm.weather.random(8) {
            0 => self.cache = Some(TempDir::new().unwrap()),
            1 => self.cache = None,
            _ => {}
        }
        let line: Arc<Line> = storm.weather.line();
        let cache = self.cache.as_ref().map(|cache| cache.path().display().to_string());
        storm.weather.note(format!("line {} opens as {} with cache {cache:?} (session)", line.number(), self.what));
        let world = World::new();
        let result = shelf::open(&line, &storm.unlock, self.cache.as_ref().map(TempDir::path))
            .and_then(|repository| work(&repository, &world));
        line.close();
        let strange = storm.strange(&world);
        assert_eq!(strange, Vec::<String>::new(), "seed {}", storm.seed);
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let is_injected = error.kind() == ErrorKind::Storage && is_injected(&error, &line);
                assert!(is_injected || is_excused(&error), "seed {}: {}", storm.seed, error.chain());
                None
            }
        }
    }
}

/// Or what somebody hears whose put was carried out twice, or who could not look whether a snapshot was forgotten.
fn is_injected(error: &Error, line: &Line) -> bool {
    let text = error.chain();
    text.contains(INJECTED)
        || line.is_troubled() && (text.contains("exists already") || text.contains("Object snapshots/"))
}

fn night_of(published: &Published) -> u64 {
    let first = World::new().clock.0;
    u64::try_from(published.snapshot.time.duration_since(first).as_hours() / 24).unwrap()
}

impl Storm<'_> {
    /// Problems that nobody made on purpose. A segment that comes late, or from one that was taken for dead, may list packs
    /// that are gone by then: that is told, and mended by the next prune. A snapshot of one that was taken for dead may be
    /// seen before it is withdrawn.
    fn strange(&self, world: &World) -> Vec<String> {
        let problems = world.problems().into_iter().filter(|problem| !problem.contains(INJECTED));
        let is_alarm = |problem: &String| {
            problem.contains("It is missing or cut short") || self.is_rude && problem.contains("are in no pack")
        };
        let (alarms, strange): (Vec<_>, Vec<_>) = problems.partition(is_alarm);
        add(&self.tally.alarms, alarms.len() as u64);
        strange
    }

    fn linger(&self) {
        pipeline::pause(Duration::from_micros(self.weather.random(20_000)));
    }

    fn goes_on(&self) -> bool {
        self.writers_left.load(Ordering::SeqCst) > 0 && !self.died.load(Ordering::SeqCst)
    }

    fn write(&self) {
        let mut machine = Machine::new(self, "writer");
        for _ in 0..NIGHTS {
            self.linger();
            let night = self.next_night.fetch_add(1, Ordering::SeqCst);
            let ended = |error: &Error| self.is_rude && error.chain().contains("given back meanwhile");
            let saved =
                machine.run(|repository, world| shelf::save(repository, world, &shelf::state(night), night), ended);
            match saved {
                Some(id) => {
                    self.record.lock().unwrap().acknowledged.insert(id, night);
                    add(&self.tally.saved, 1);
                }
                None => add(&self.tally.failed, 1),
            }
        }
        self.writers_left.fetch_sub(1, Ordering::SeqCst);
    }

    fn reclaim(&self) {
        let mut machine = Machine::new(self, "pruner");
        while self.goes_on() {
            self.linger();
            let allowance = if self.weather.random(2) == 0 { Allowance::Percent(0.0) } else { Allowance::default() };
            let options = PruneOptions { allowance, ..EVERYTHING };
            let work = |repository: &Repository, world: &World| of_repository(repository, options, &world.context());
            // A snapshot of one that was taken for dead, before it is withdrawn.
            let is_open = |error: &Error| self.is_rude && error.chain().contains("Nobody knows what snapshot");
            match machine.run(work, is_open) {
                Some((_, summary)) => {
                    add(&self.tally.prunes, 1);
                    add(&self.tally.packs_deleted, summary.packs_deleted);
                }
                None => add(&self.tally.prunes_failed, 1),
            }
        }
    }

    /// Forgets snapshots, and finds machines dead.
    fn forget(&self) {
        let mut machine = Machine::new(self, "keeper");
        while self.goes_on() {
            self.linger();
            add(&self.tally.sessions_ended, self.weather.end_sessions(self.is_rude && self.weather.random(3) == 0));
            let work = |repository: &Repository, _: &World| {
                let ids = repository.list_snapshots()?;
                if ids.len() > KEPT_MIN {
                    let at = usize::try_from(self.weather.random(ids.len() as u64)).unwrap();
                    self.record.lock().unwrap().forgotten.insert(ids[at]);
                    repository.storage().delete(&ObjectKey::Snapshot(ids[at]))?;
                    add(&self.tally.forgotten, 1);
                }
                Ok(())
            };
            // Of a delete that was carried out twice.
            machine.run(work, |error| error.chain().contains("does not exist"));
        }
    }

    fn read(&self) {
        let mut machine = Machine::new(self, "reader");
        while self.goes_on() {
            let ids = self.weather.objects().list(ObjectKind::Snapshot).unwrap();
            let at = usize::try_from(self.weather.random(ids.len().max(1) as u64)).unwrap();
            let Some(ObjectKey::Snapshot(id)) = ids.get(at).map(|row| row.key) else { continue };
            let work = |repository: &Repository, world: &World| {
                let published = finding::read(repository, id)?;
                Ok((night_of(&published), shelf::state_of(repository, world, &published)?))
            };
            let is_forgotten = |error: &Error| {
                let is_forgotten = self.record.lock().unwrap().forgotten.contains(&id) || self.is_open(id);
                if !is_forgotten {
                    eprintln!("{id} can't be read");
                    self.explain(error);
                }
                is_forgotten
            };
            if let Some((night, state)) = machine.run(work, is_forgotten) {
                assert!(state == shelf::state(night), "seed {}: night {night} is not what was captured", self.seed);
                add(&self.tally.read, 1);
            }
        }
    }

    /// It may lack what it needs: its writer was taken for dead while it lived, and then died before it could look, as the
    /// specification says. Nobody was told that it is published.
    fn is_open(&self, id: SnapshotId) -> bool {
        self.is_rude && !self.record.lock().unwrap().acknowledged.contains_key(&id)
    }

    /// Prints what became of the chunk that can't be read.
    fn explain(&self, error: &Error) {
        let text = error.chain();
        let Some(chunk) = text.split("Chunk ").nth(1).map(|rest| rest[..8].to_owned()) else { return };
        let now = Arc::new(self.weather.objects().clone());
        let repository = shelf::open(&now, &self.unlock, None).unwrap();
        let world = World::new();
        for published in shelf::published(&repository, &world).unwrap() {
            if let Err(error) = shelf::state_of(&repository, &world, &published) {
                eprintln!("who looks for the first time can't read {} either: {}", published.id, error.chain());
            }
        }
        let all = Arc::new(self.weather.everything());
        let repository = shelf::open(&all, &self.unlock, None).unwrap();
        let mut words = ["snapshots/", "retired/", "session", "lists"].map(str::to_owned).to_vec();
        for row in all.list(ObjectKind::Pack).unwrap() {
            let ObjectKey::Pack(id) = row.key else { continue };
            let Ok(entry) = repository.read_pack_entry(id, row.len) else { continue };
            let holds = |frame: &compline::store::pack::Frame| frame.chunks.iter().any(|(id, _)| id.short() == chunk);
            for frame in entry.frames.iter().filter(|frame| holds(frame)) {
                let bases = compline::store::pack::Lineage::decode(&frame.extension).map(|lineage| lineage.bases);
                eprintln!("chunk {chunk} is in {id}, {:?}, {bases:?}", frame.kind);
                words.push(id.to_string());
            }
        }
        for line in self.weather.history(&words) {
            eprintln!("{line}");
        }
    }

    /// The sky is clear again, and everybody is gone.
    fn clears(&self) {
        self.weather.settle();
        let storage = Arc::new(self.weather.objects().clone());
        for row in storage.list(ObjectKind::Session).unwrap() {
            storage.delete(&row.key).unwrap();
        }
        let what = format!("seed {}", self.seed);
        let open = || shelf::open(&storage, &self.unlock, None).unwrap();
        let record = self.record.lock().unwrap();
        let world = World::new();
        let repository = open();
        let published = shelf::published(&repository, &world).unwrap();
        for (id, night) in record.acknowledged.iter().filter(|(id, _)| !record.forgotten.contains(*id)) {
            assert!(published.iter().any(|published| published.id == *id), "{what}: night {night} is lost");
        }
        let mut nights = BTreeMap::new();
        for published in &published {
            let night = night_of(published);
            match shelf::state_of(&repository, &world, published) {
                Ok(state) => {
                    assert!(state == shelf::state(night), "{what}: night {night} is not what was captured");
                    nights.insert(night, shelf::state(night));
                }
                Err(_) if self.is_rude && !record.acknowledged.contains_key(&published.id) => {
                    add(&self.tally.left_open, 1);
                    storage.delete(&ObjectKey::Snapshot(published.id)).unwrap();
                }
                Err(error) => {
                    self.explain(&error);
                    panic!("{what}: night {night} is broken, snapshot {}: {}", published.id, error.chain());
                }
            }
        }
        let next = self.next_night.load(Ordering::SeqCst);
        shelf::save(&open(), &World::new(), &shelf::state(next), next).expect(&what);
        nights.insert(next, shelf::state(next));
        let states: Vec<_> = nights.into_values().collect();
        let world = World::new();
        let (_, summary) = of_repository(&open(), EVERYTHING, &world.context()).expect(&what);
        assert_eq!(self.strange(&world), Vec::<String>::new(), "{what}");
        holds(&storage, &self.unlock, None, &states, &what);
        let left = [ObjectKind::Session, ObjectKind::Retired].map(|kind| count(&storage, kind));
        assert_eq!(left, [0, 0], "{what}: sessions and lists are left: {summary:?}");
        let again = prune(&open(), EVERYTHING).expect(&what);
        assert_eq!((again.packs_deleted, again.decision.bytes_left), (0, 0), "{what}");
    }
}

#[expect(clippy::redundant_closure_for_method_calls, reason = "a method is of one lifetime, a closure of any")]
fn storm(seed: u64, is_rude: bool, tally: &Tally) -> BTreeMap<Trouble, u64> {
    let objects = MemoryStorage::new();
    let unlock = shelf::create(&objects);
    let storm = Storm {
        seed,
        is_rude,
        weather: Weather::new(objects, seed << 32, 60),
        unlock,
        record: Mutex::default(),
        next_night: AtomicU64::new(1),
        writers_left: AtomicU64::new(2),
        died: AtomicBool::new(false),
        tally,
    };
    thread::scope(|scope| {
        // One that panics lets the others end.
        let spawn = |work: fn(&Storm<'_>)| {
            let storm = &storm;
            scope.spawn(move || {
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(storm))).is_err() {
                    storm.died.store(true, Ordering::SeqCst);
                }
            });
        };
        spawn(|storm| storm.write());
        spawn(|storm| storm.write());
        spawn(|storm| storm.reclaim());
        spawn(|storm| storm.reclaim());
        spawn(|storm| storm.forget());
        spawn(|storm| storm.read());
    });
    assert!(!storm.died.load(Ordering::SeqCst), "seed {seed}: see above");
    storm.clears();
    storm.weather.counts()
}

fn storms(is_rude: bool) {
    let tally = Tally::default();
    let mut counts: BTreeMap<Trouble, u64> = BTreeMap::new();
    let (mut seed, mut total) = (0, 0);
    let again = std::env::var("COMPLINE_TEST_STORM").ok().map(|text| text.parse::<u64>().unwrap());
    while total < faults() {
        seed += 1;
        // One that went wrong, again and again: threads make it another one each time.
        let number = again.unwrap_or(seed * 2 + u64::from(is_rude));
        for (trouble, count) in storm(number, is_rude, &tally) {
            *counts.entry(trouble).or_default() += count;
            // To be slow is no fault.
            total += if trouble == Trouble::Slow { 0 } else { count };
        }
    }
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{seed} storms, {total} faults {counts:?}: {} snapshots published, {} backups failed, {} prunes done and {} failed, \
         {} packs deleted, {} snapshots forgotten, {} read back, {} sessions ended, {} snapshots of unheard writers lost, \
         {} times a pack taken for lost that nobody needs",
        of(&tally.saved),
        of(&tally.failed),
        of(&tally.prunes),
        of(&tally.prunes_failed),
        of(&tally.packs_deleted),
        of(&tally.forgotten),
        of(&tally.read),
        of(&tally.sessions_ended),
        of(&tally.left_open),
        of(&tally.alarms),
    );
    assert!(counts.len() == 9, "not every trouble was met: {counts:?}");
    for counter in [&tally.saved, &tally.failed, &tally.packs_deleted, &tally.forgotten, &tally.read] {
        assert!(of(counter) > 0, "the weather was too good or too bad to tell anything");
    }
}

#[test]
fn what_is_published_in_a_storm_is_whole() {
    storms(false);
}

#[test]
fn what_is_published_is_whole_though_living_writers_are_taken_for_dead() {
    storms(true);
}
