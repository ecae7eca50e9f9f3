//! Tags and pins change a record and nothing of what it refers to; a crash on the way leaves the snapshot, perhaps twice.

use std::sync::Arc;

use compline::archive::relabel::{Relabel, relabel};
use compline::archive::snapshots::Published;
use compline::error::ErrorKind;
use compline::id::PackId;
use compline::storage::{MemoryStorage, ObjectKey, ObjectKind, Storage};
use compline::store::check::DataSubset;
use compline::store::{Repository, retired};

use crate::faulty_storage::{Fault, FaultyStorage};
use crate::shelf;
use crate::support::World;

fn pin() -> Relabel {
    Relabel { add: vec!["pre-upgrade".to_owned()], pin: Some(true), ..Relabel::default() }
}

fn records(repository: &Repository) -> Vec<Published> {
    shelf::published(repository, &World::new()).unwrap()
}

#[test]
fn labels_change_and_all_else_stays_also_where_they_change_twice() {
    let storage = Arc::new(MemoryStorage::new());
    let unlock = shelf::create(&*storage);
    let repository = shelf::open(&storage, &unlock, None).unwrap();
    let world = World::new();
    let first = shelf::save(&repository, &world, &shelf::state(1), 1).unwrap();
    let before = records(&repository).remove(0).snapshot;

    let pinned = relabel(&repository, first, &pin(), &records(&repository), &world.context()).unwrap();
    assert!(pinned.id != first && pinned.pinned);
    let same = relabel(&repository, pinned.id, &pin(), &records(&repository), &world.context()).unwrap();
    assert_eq!(same.id, pinned.id, "nothing changed, nothing was written");
    let unpin = Relabel { set: Some(before.tags.clone()), pin: Some(false), ..Relabel::default() };
    let last = relabel(&repository, pinned.id, &unpin, &records(&repository), &world.context()).unwrap();

    let now = records(&repository);
    assert_eq!(now.len(), 1);
    assert_eq!((now[0].id, now[0].snapshot.original), (last.id, Some(first)));
    let mut after = now[0].snapshot.clone();
    after.original = None;
    assert_eq!(after, before);
    assert_eq!(shelf::state_of(&repository, &world, &now[0]).unwrap(), shelf::state(1));
    let gone = relabel(&repository, first, &pin(), &records(&repository), &world.context()).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Storage);
}

#[test]
fn what_is_on_its_way_out_is_not_relied_on_by_a_new_record() {
    let storage = Arc::new(MemoryStorage::new());
    let unlock = shelf::create(&*storage);
    let repository = shelf::open(&storage, &unlock, None).unwrap();
    let world = World::new();
    let first = shelf::save(&repository, &world, &shelf::state(1), 1).unwrap();
    let listed = storage.list(ObjectKind::Pack).unwrap().into_iter();
    let packs: Vec<PackId> =
        listed.filter_map(|row| if let ObjectKey::Pack(id) = row.key { Some(id) } else { None }).collect();
    let list = retired::publish(&repository, &packs, &world.context()).unwrap();
    let all = records(&repository);
    let refused = relabel(&repository, first, &pin(), &all, &world.context()).unwrap_err();
    assert!(refused.to_string().contains("about to delete"), "{}", refused.chain());
    assert_eq!(records(&repository), all);
    retired::release(&repository, list).unwrap();
    relabel(&repository, first, &pin(), &all, &world.context()).unwrap();
    assert!(storage.list(ObjectKind::Session).unwrap().is_empty(), "a session was left behind");
}

#[test]
fn a_crash_at_any_call_leaves_the_snapshot_and_the_next_try_succeeds() {
    let before = Arc::new(MemoryStorage::new());
    let unlock = shelf::create(&*before);
    let first = shelf::save(&shelf::open(&before, &unlock, None).unwrap(), &World::new(), &shelf::state(1), 1).unwrap();
    let before = MemoryStorage::clone(&before);
    let run = |storage: &Arc<FaultyStorage>| {
        let repository = shelf::open(storage, &unlock, None)?;
        relabel(&repository, first, &pin(), &shelf::published(&repository, &World::new())?, &World::new().context())
    };
    let counting = Arc::new(FaultyStorage::counting(before.clone()));
    run(&counting).unwrap();
    let mut twice = 0;
    for fault in Fault::ALL {
        for at in 0..counting.calls() {
            let what = format!("{fault:?} at call {at}");
            let storage = Arc::new(FaultyStorage::failing(before.clone(), at, fault));
            let result = run(&storage);
            assert!(storage.was_hit(), "{what}");
            let repository = shelf::open(&Arc::new(storage.remains()), &unlock, None).expect(&what);
            let left = records(&repository);
            assert!(!left.is_empty(), "{what}: the snapshot is lost");
            for published in &left {
                assert_eq!(shelf::state_of(&repository, &World::new(), published).expect(&what), shelf::state(1));
                assert!(published.id == first || published.snapshot.original == Some(first), "{what}");
            }
            assert!(result.is_err() || left.iter().any(|published| published.snapshot.pinned), "{what}");
            twice += usize::from(left.len() == 2);
            // The same command once more, if its snapshot is there, makes one of two.
            if left.iter().any(|published| published.id == first) {
                relabel(&repository, first, &pin(), &left, &World::new().context()).expect(&what);
            }
            let left = records(&repository);
            assert!(left.len() == 1 && left[0].snapshot.pinned, "{what}");
            assert_eq!(shelf::check(&repository, DataSubset::All).expect(&what), Vec::<String>::new(), "{what}");
        }
    }
    assert!(twice > 0, "no crash came between the two records");
}
