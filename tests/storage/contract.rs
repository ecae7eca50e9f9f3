//! The sentences of the contract.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use compline::storage::{Listed, ObjectKind, Storage, StorageErrorKind};

use super::{bytes, config, one_of_each, pack};

const LARGE: usize = 3 << 20;

pub fn a_put_object_is_read_back_whole(storage: &dyn Storage) {
    for (seed, key) in (0..).zip(one_of_each()) {
        let content = bytes(seed, 1000 + usize::from(seed));
        storage.put_new(&key, &content).unwrap();
        assert_eq!(*storage.get(&key).unwrap(), content);
        assert_eq!(storage.len(&key).unwrap(), content.len() as u64);
    }
}

pub fn an_empty_object_is_an_object(storage: &dyn Storage) {
    storage.put_new(&pack(1), b"").unwrap();
    assert_eq!(storage.len(&pack(1)).unwrap(), 0);
    assert!(storage.get(&pack(1)).unwrap().is_empty());
    assert!(storage.get_range(&pack(1), 0..0).unwrap().is_empty());
    assert_eq!(storage.list(ObjectKind::Pack).unwrap(), [Listed { key: pack(1), len: 0 }]);
}

pub fn a_large_object_is_read_back_whole(storage: &dyn Storage) {
    let content = bytes(7, LARGE + 1);
    storage.put_new(&pack(1), &content).unwrap();
    assert!(*storage.get(&pack(1)).unwrap() == content[..]);
    assert!(storage.get_range(&pack(1), 1_000_000..2_100_000).unwrap() == content[1_000_000..2_100_000]);
}

pub fn a_put_of_an_existing_key_fails_and_keeps_the_old_bytes(storage: &dyn Storage) {
    for key in one_of_each() {
        storage.put_new(&key, b"old").unwrap();
        let error = storage.put_new(&key, b"new, and longer").unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Exists);
        assert!(error.to_string().contains(&key.to_string()), "{error} names its subject");
        assert_eq!(*storage.get(&key).unwrap(), *b"old");
    }
}

pub fn of_many_writers_of_one_key_exactly_one_wins_and_its_bytes_stand(storage: &dyn Storage) {
    const WRITERS: u8 = 4;
    for round in 0..10 {
        let start = Barrier::new(usize::from(WRITERS));
        let put = &|writer| {
            start.wait();
            storage.put_new(&pack(round), &bytes(writer, 100_000)).map_err(|error| error.kind())
        };
        let results: Vec<_> = thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS).map(|writer| (writer, scope.spawn(move || put(writer)))).collect();
            writers.into_iter().map(|(writer, thread)| (writer, thread.join().unwrap())).collect()
        });
        let (winners, losers): (Vec<_>, Vec<_>) = results.into_iter().partition(|(_, result)| result.is_ok());
        assert!(losers.iter().all(|(_, result)| *result == Err(StorageErrorKind::Exists)), "{losers:?}");
        let [(winner, _)] = winners[..] else { panic!("writers {winners:?} all believe that they won") };
        assert!(*storage.get(&pack(round)).unwrap() == bytes(winner, 100_000)[..]);
    }
}

pub fn a_reader_sees_nothing_or_everything_of_an_object_being_put(storage: &dyn Storage) {
    let content = bytes(9, LARGE);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = 0;
            loop {
                let last = done.load(Ordering::SeqCst);
                match storage.get(&pack(1)) {
                    Ok(object) => assert!(*object == content[..]),
                    Err(error) => assert_eq!(error.kind(), StorageErrorKind::NotFound),
                }
                for listed in storage.list(ObjectKind::Pack).unwrap() {
                    assert_eq!(listed, Listed { key: pack(1), len: LARGE as u64 });
                    seen += 1;
                }
                if last {
                    return seen;
                }
            }
        });
        let put = storage.put_new(&pack(1), &content);
        done.store(true, Ordering::SeqCst);
        put.unwrap();
        assert!(reader.join().unwrap() >= 1, "what was put is seen by everybody");
    });
}

pub fn a_replaced_object_has_the_new_bytes_and_keeps_its_name(storage: &dyn Storage) {
    for key in one_of_each() {
        storage.put_new(&key, b"damaged, and longer").unwrap();
        storage.replace(&key, b"healed").unwrap();
        assert_eq!(*storage.get(&key).unwrap(), *b"healed");
        assert_eq!(storage.list(key.kind()).unwrap(), [Listed { key, len: 6 }]);
        assert_eq!(storage.put_new(&key, b"x").unwrap_err().kind(), StorageErrorKind::Exists);
    }
    storage.replace(&pack(9), b"was gone meanwhile").unwrap();
    assert_eq!(*storage.get(&pack(9)).unwrap(), *b"was gone meanwhile");
}

pub fn a_reader_sees_the_old_bytes_or_the_new_ones_of_an_object_being_replaced(storage: &dyn Storage) {
    let contents = [bytes(1, LARGE), bytes(2, LARGE + 5)];
    storage.put_new(&pack(1), &contents[0]).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let found = storage.get(&pack(1)).unwrap();
                assert!(contents.iter().any(|content| *content == *found), "{} bytes of a mixture", found.len());
            }
        });
        let replaced = (0..6).try_for_each(|round| storage.replace(&pack(1), &contents[round % 2]));
        // In any case, or the reader goes on for ever.
        done.store(true, Ordering::SeqCst);
        replaced.unwrap();
        reader.join().unwrap();
    });
}

pub fn a_missing_object_is_not_found(storage: &dyn Storage) {
    for key in one_of_each() {
        let kinds = [
            storage.get(&key).map(drop).unwrap_err().kind(),
            storage.get_range(&key, 0..1).map(drop).unwrap_err().kind(),
            storage.len(&key).map(drop).unwrap_err().kind(),
        ];
        assert_eq!(kinds, [StorageErrorKind::NotFound; 3]);
    }
}

pub fn a_range_gives_exactly_its_bytes(storage: &dyn Storage) {
    let content = bytes(5, 10_000);
    storage.put_new(&pack(1), &content).unwrap();
    for (start, end) in [(0, 0), (0, 1), (1, 1), (4095, 4097), (9_999, 10_000), (0, 10_000), (10_000, 10_000)] {
        let range = storage.get_range(&pack(1), start..end).unwrap();
        let (start, end) = (usize::try_from(start).unwrap(), usize::try_from(end).unwrap());
        assert_eq!(range, content[start..end], "{start}..{end}");
    }
}

pub fn a_range_past_the_end_is_out_of_range(storage: &dyn Storage) {
    storage.put_new(&pack(1), &bytes(5, 100)).unwrap();
    #[expect(clippy::reversed_empty_ranges, reason = "stored bytes can ask for anything")]
    let ranges = [0..101, 99..101, 100..101, 101..101, 101..102, 0..u64::MAX, u64::MAX..u64::MAX, 3..2, u64::MAX..0];
    for range in ranges {
        let error = storage.get_range(&pack(1), range.clone()).unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::OutOfRange, "{range:?}");
    }
}

pub fn listing_gives_one_kind_sorted_with_lengths(storage: &dyn Storage) {
    for key in one_of_each() {
        storage.put_new(&key, b"x").unwrap();
    }
    for number in [250, 9, 100] {
        storage.put_new(&pack(number), &bytes(0, usize::from(number))).unwrap();
    }
    let packs = storage.list(ObjectKind::Pack).unwrap();
    let expected = [(2, 1), (9, 9), (100, 100), (250, 250)].map(|(number, len)| Listed { key: pack(number), len });
    assert_eq!(packs, expected);
    for key in one_of_each().into_iter().filter(|key| key.kind() != ObjectKind::Pack) {
        assert_eq!(storage.list(key.kind()).unwrap(), [Listed { key, len: 1 }]);
    }
}

pub fn listing_what_was_never_put_is_empty(storage: &dyn Storage) {
    for kind in ObjectKind::ALL {
        assert_eq!(storage.list(kind).unwrap(), []);
    }
}

pub fn a_deleted_object_is_gone_and_its_name_free(storage: &dyn Storage) {
    for key in one_of_each() {
        storage.put_new(&key, b"first").unwrap();
        storage.delete(&key).unwrap();
        assert_eq!(storage.get(&key).map(drop).unwrap_err().kind(), StorageErrorKind::NotFound);
        assert_eq!(storage.list(key.kind()).unwrap(), []);
        storage.put_new(&key, b"second").unwrap();
        assert_eq!(*storage.get(&key).unwrap(), *b"second");
    }
}

pub fn deleting_what_is_missing_is_not_found(storage: &dyn Storage) {
    storage.put_new(&pack(1), b"stays").unwrap();
    for key in [config(), pack(2)] {
        assert_eq!(storage.delete(&key).unwrap_err().kind(), StorageErrorKind::NotFound);
    }
    assert_eq!(*storage.get(&pack(1)).unwrap(), *b"stays");
}

pub fn writers_of_different_keys_do_not_disturb_each_other(storage: &dyn Storage) {
    thread::scope(|scope| {
        for writer in 0..4 {
            scope.spawn(move || {
                for number in (writer..40).step_by(4) {
                    storage.put_new(&pack(number), &bytes(number, 5_000)).unwrap();
                }
            });
        }
    });
    assert_eq!(storage.list(ObjectKind::Pack).unwrap().len(), 40);
    for number in 0..40 {
        assert_eq!(*storage.get(&pack(number)).unwrap(), bytes(number, 5_000));
    }
}
