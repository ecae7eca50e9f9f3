//! The storage with faults does what it says: otherwise the crash tests prove nothing.

use compline::storage::{MemoryStorage, ObjectKind, Storage, StorageErrorKind};

use super::faulty_storage::{Fault, FaultyStorage};
use super::pack;

/// Three puts with a list between them; stops at the first error, as a writer does.
fn scenario(storage: &dyn Storage) -> Result<(), StorageErrorKind> {
    let put = |number| storage.put_new(&pack(number), b"x").map_err(|error| error.kind());
    put(1)?;
    storage.list(ObjectKind::Pack).map_err(|error| error.kind())?;
    put(2)?;
    put(3)
}

#[test]
fn a_scenario_without_faults_is_counted() {
    let storage = FaultyStorage::counting(MemoryStorage::new());
    scenario(&storage).unwrap();
    assert_eq!(storage.calls(), 4);
    assert!(!storage.was_hit());
}

#[test]
fn every_fault_is_hit_at_every_call_and_leaves_what_it_says() {
    for fault in Fault::ALL {
        for at in 0..4 {
            let storage = FaultyStorage::failing(MemoryStorage::new(), at, fault);
            assert_eq!(scenario(&storage), Err(StorageErrorKind::Other));
            assert!(storage.was_hit());
            let puts_before = [0, 1, 1, 2][usize::try_from(at).unwrap()];
            let is_put = at != 1;
            let took_effect = is_put && matches!(fault, Fault::AnswerLost | Fault::DiedAfter);
            assert_eq!(storage.remains().keys().len(), puts_before + usize::from(took_effect), "{fault:?} at {at}");
            let is_dead = matches!(fault, Fault::DiedBefore | Fault::DiedAfter);
            assert_eq!(storage.list(ObjectKind::Pack).is_err(), is_dead, "{fault:?} at {at}");
        }
    }
}

#[test]
fn a_fault_behind_the_last_call_is_not_hit() {
    let storage = FaultyStorage::failing(MemoryStorage::new(), 4, Fault::DiedBefore);
    scenario(&storage).unwrap();
    assert!(!storage.was_hit());
}
