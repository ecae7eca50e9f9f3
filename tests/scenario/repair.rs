//! What is beyond healing: the rest is saved, what is lost is named, comes from a mirror, or from the next backup.

use std::sync::Arc;
use std::time::Duration;

use compline::commands::App;
use compline::commands::prune::of_repository as prune;
use compline::commands::repair::{RepairOptions, RepairReport, of_repository};
use compline::storage::{MemoryStorage, ObjectKey, ObjectKind, Storage};
use compline::store::check::DataSubset;
use compline::store::prune::{Allowance, PruneOptions};
use compline::store::{Repository, Unlock};

use crate::shelf::{self, State};
use crate::support::World;

fn after_nights(nights: u64) -> (Arc<MemoryStorage>, Unlock) {
    let storage = Arc::new(MemoryStorage::new());
    let unlock = shelf::create(&*storage);
    for night in 1..=nights {
        let repository = shelf::open(&storage, &unlock, None).unwrap();
        shelf::save(&repository, &World::new(), &shelf::state(night), night).unwrap();
    }
    (storage, unlock)
}

fn repair(storage: &Arc<MemoryStorage>, unlock: &Unlock, mirrors: &[Repository], dry_run: bool) -> RepairReport {
    let world = World::new();
    let app = App { context: world.context(), ledger: &world.ledger, variable: &|_| None };
    let options = RepairOptions { dry_run, from: Vec::new(), wait: Duration::ZERO };
    of_repository(app, &shelf::open(storage, unlock, None).unwrap(), mirrors, &options).unwrap()
}

fn states(storage: &Arc<MemoryStorage>, unlock: &Unlock) -> Vec<State> {
    let world = World::new();
    let repository = shelf::open(storage, unlock, None).unwrap();
    let published = shelf::published(&repository, &world).unwrap();
    // What can't be read is what nobody has any more.
    published.iter().filter_map(|published| shelf::state_of(&repository, &world, published).ok()).collect()
}

fn is_clean(storage: &Arc<MemoryStorage>, unlock: &Unlock) -> bool {
    shelf::check(&shelf::open(storage, unlock, None).unwrap(), DataSubset::All).unwrap().is_empty()
}

/// Zeros in a part of every pack that `which` names by its number, too many for its parity.
fn ruin(storage: &MemoryStorage, which: impl Fn(usize) -> bool) -> usize {
    let mut count = 0;
    for (_, row) in storage.list(ObjectKind::Pack).unwrap().iter().enumerate().filter(|(n, _)| which(*n)) {
        let mut bytes = storage.get(&row.key).unwrap().to_vec();
        let (start, end) = (bytes.len() / 4, bytes.len() / 2);
        bytes[start..end].fill(0);
        storage.overwrite(&row.key, &bytes);
        count += 1;
    }
    count
}

fn rebuilt(storage: &MemoryStorage) -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::clone(storage))
}

#[test]
fn what_can_be_read_is_saved_what_is_lost_is_named_and_the_next_backup_brings_it_back() {
    let (written, unlock) = after_nights(3);
    let pack_count = written.list(ObjectKind::Pack).unwrap().len();
    let mut hit_count = 0;
    for victim in 0..pack_count {
        let storage = rebuilt(&written);
        assert_eq!(ruin(&storage, |n| n == victim), 1);
        let rehearsal = repair(&storage, &unlock, &[], true);
        assert_eq!((rehearsal.lost, rehearsal.healed), (1, 0), "pack {victim}");
        let report = repair(&storage, &unlock, &[], false);
        assert_eq!((report.lost, report.salvage.packs_removed), (1, 1), "pack {victim}: {report:?}");
        hit_count += report.snapshots_hit.len();
        // The old ones that lost something go, their mended copies stay.
        for hit in &report.snapshots_hit {
            assert!(hit.lost_count > 0 && !hit.lost.is_empty());
            storage.delete(&ObjectKey::Snapshot(hit.snapshot)).unwrap();
        }
        assert!(is_clean(&storage, &unlock), "pack {victim}");
        let whole = [1, 2, 3].map(shelf::state);
        for state in states(&storage, &unlock) {
            let is_part_of = |whole: &State| state.iter().all(|(name, bytes)| whole.get(name) == Some(bytes));
            assert!(whole.iter().any(is_part_of), "pack {victim}");
        }
        let again = repair(&storage, &unlock, &[], false);
        assert!(!again.leaves_damage() && again.findings.is_empty(), "pack {victim}: {again:?}");
        let repository = shelf::open(&storage, &unlock, None).unwrap();
        shelf::save(&repository, &World::new(), &shelf::state(3), 4).unwrap();
        assert!(states(&storage, &unlock).pop().unwrap() == shelf::state(3), "pack {victim}");
        assert!(is_clean(&storage, &unlock), "pack {victim}");
    }
    assert!(hit_count > pack_count / 2, "{hit_count} snapshots were hit by the loss of {pack_count} packs");
}

#[test]
fn a_mended_snapshot_is_written_once() {
    let (written, unlock) = after_nights(2);
    // One that hits a snapshot and leaves something of it.
    let ruined = (0..written.list(ObjectKind::Pack).unwrap().len()).find_map(|victim| {
        let storage = rebuilt(&written);
        ruin(&storage, |n| n == victim);
        let report = repair(&storage, &unlock, &[], false);
        report.snapshots_hit.iter().any(|hit| hit.mended.is_some()).then_some(storage)
    });
    let storage = ruined.unwrap();
    let count = storage.list(ObjectKind::Snapshot).unwrap().len();
    let second = repair(&storage, &unlock, &[], false);
    assert!(second.leaves_damage(), "the old ones are still there");
    assert!(second.snapshots_hit.iter().all(|hit| hit.mended.is_none()));
    assert_eq!(storage.list(ObjectKind::Snapshot).unwrap().len(), count);
}

#[test]
fn a_mirror_brings_everything_back_whatever_packs_it_has() {
    let (written, unlock) = after_nights(4);
    let same = rebuilt(&written);
    // Another one was pruned since: the same chunks, but in other packs.
    let other = rebuilt(&written);
    {
        let repository = shelf::open(&other, &unlock, None).unwrap();
        let first = shelf::published(&repository, &World::new()).unwrap().remove(0);
        other.delete(&ObjectKey::Snapshot(first.id)).unwrap();
        let options = PruneOptions { allowance: Allowance::Percent(0.0), wait: Duration::ZERO, dry_run: false };
        let world = World::new();
        assert!(prune(&repository, options, &world.context()).unwrap().1.decision.packs_rewritten > 0);
    }
    for (mirror, nights) in [(&same, 1..=4), (&other, 2..=4)] {
        let storage = rebuilt(&written);
        let ruined = ruin(&storage, |n| n % 2 == 0);
        let lost_snapshot = storage.list(ObjectKind::Snapshot).unwrap().pop().unwrap().key;
        storage.overwrite(&lost_snapshot, b"gone");
        let mirrors = [shelf::open(mirror, &unlock, None).unwrap()];
        let report = repair(&storage, &unlock, &mirrors, false);
        assert_eq!(report.findings.len(), ruined + 1);
        assert!(report.fetched + report.chunks_fetched > 0, "{report:?}");
        let found = states(&storage, &unlock);
        for night in nights {
            assert!(found.contains(&shelf::state(night)), "night {night}: {report:?}");
        }
    }
}

#[test]
fn segments_that_cannot_be_read_are_made_again() {
    let (storage, unlock) = after_nights(3);
    let segments = storage.list(ObjectKind::Segment).unwrap();
    for row in &segments {
        storage.overwrite(&row.key, b"no segment");
    }
    let report = repair(&storage, &unlock, &[], false);
    assert_eq!(report.segments_deleted, segments.len() as u64);
    assert_eq!(report.packs_listed, storage.list(ObjectKind::Pack).unwrap().len() as u64);
    assert!(is_clean(&storage, &unlock));
    assert_eq!(states(&storage, &unlock), [1, 2, 3].map(shelf::state));
}
