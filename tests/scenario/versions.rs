//! Whatever happens to a file between nights, every night comes back.

use std::sync::Arc;

use compline::storage::MemoryStorage;
use compline::store::check::DataSubset;
use proptest::prelude::*;

use crate::shelf::{self, State};
use crate::support::World;
use crate::support::dump::Dump;
use crate::support::nasty::noise;

/// What happens to a file; places and lengths are parts of it in 65536.
#[derive(Debug, Clone)]
enum Edit {
    Insert { at: u16, seed: u64, len: usize },
    Delete { at: u16, len: u16 },
    Replace { at: u16, seed: u64, len: usize },
    Move { from: u16, len: u16, to: u16 },
    Repeat { from: u16, len: u16 },
    Truncate(u16),
    Grow { seed: u64, len: usize },
    PassDay(u64),
    Another(u64),
    Empty,
    Zeros(usize),
}

fn place(len: usize, part: u16) -> usize {
    len * usize::from(part) / 65536
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<u16>;
    prop_oneof![
        5 => (at(), any::<u64>(), 1..3000_usize).prop_map(|(at, seed, len)| Edit::Insert { at, seed, len }),
        5 => (at(), 0..4000_u16).prop_map(|(at, len)| Edit::Delete { at, len }),
        5 => (at(), any::<u64>(), 1..3000_usize).prop_map(|(at, seed, len)| Edit::Replace { at, seed, len }),
        4 => (at(), 0..30_000_u16, at()).prop_map(|(from, len, to)| Edit::Move { from, len, to }),
        1 => (at(), 0..9000_u16).prop_map(|(from, len)| Edit::Repeat { from, len }),
        1 => at().prop_map(Edit::Truncate),
        2 => (any::<u64>(), 1..60_000_usize).prop_map(|(seed, len)| Edit::Grow { seed, len }),
        3 => (1..4_u64).prop_map(Edit::PassDay),
        1 => (1..4_u64).prop_map(Edit::Another),
        1 => Just(Edit::Empty),
        1 => (1..200_000_usize).prop_map(Edit::Zeros),
    ]
}

fn rows(seed: u64, days: u64) -> Vec<u8> {
    Dump::new(seed, 1500).after(days).text()
}

fn apply(bytes: &mut Vec<u8>, edit: &Edit) {
    let all = bytes.len();
    match *edit {
        Edit::Insert { at, seed, len } => {
            bytes.splice(place(all, at)..place(all, at), noise(seed, len));
        }
        Edit::Delete { at, len } => {
            bytes.drain(place(all, at)..(place(all, at) + place(all, len)).min(all));
        }
        Edit::Replace { at, seed, len } => {
            bytes.splice(place(all, at)..(place(all, at) + len).min(all), noise(seed, len));
        }
        Edit::Move { from, len, to } => {
            let moved: Vec<u8> = bytes.drain(place(all, from)..(place(all, from) + place(all, len)).min(all)).collect();
            let to = place(bytes.len(), to);
            bytes.splice(to..to, moved);
        }
        Edit::Repeat { from, len } => {
            bytes.extend_from_within(place(all, from)..(place(all, from) + place(all, len)).min(all));
        }
        Edit::Truncate(at) => bytes.truncate(place(all, at)),
        Edit::Grow { seed, len } => bytes.extend(noise(seed, len)),
        Edit::PassDay(days) => *bytes = rows(1, days),
        Edit::Another(seed) => *bytes = rows(100 + seed, 0),
        Edit::Empty => bytes.clear(),
        Edit::Zeros(len) => *bytes = vec![0; len],
    }
}

fn nights() -> impl Strategy<Value = Vec<Vec<(u8, Edit)>>> {
    prop::collection::vec(prop::collection::vec((0..3_u8, edit()), 0..8), 2..7)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_version_of_every_file_comes_back(nights in nights(), cold in any::<u8>()) {
        let storage = Arc::new(MemoryStorage::new());
        let unlock = shelf::create(&*storage);
        let cache = tempfile::TempDir::new().unwrap();
        let mut state: State = (0..3).map(|file| (file.to_string(), rows(1, file))).collect();
        let mut saved = Vec::new();
        for (night, edits) in (0_u64..).zip(&nights) {
            for (file, edit) in edits {
                apply(state.get_mut(&file.to_string()).unwrap(), edit);
            }
            let cache = (cold >> night & 1 == 0).then(|| cache.path());
            let repository = shelf::open(&storage, &unlock, cache).unwrap();
            shelf::save(&repository, &World::new(), &state, night).unwrap();
            saved.push(state.clone());
        }
        for cache in [None, Some(cache.path())] {
            let (repository, world) = (shelf::open(&storage, &unlock, cache).unwrap(), World::new());
            prop_assert_eq!(shelf::check(&repository, DataSubset::All).unwrap(), Vec::<String>::new());
            let published = shelf::published(&repository, &world).unwrap();
            prop_assert_eq!(published.len(), saved.len());
            for (published, saved) in published.iter().zip(&saved) {
                prop_assert!(shelf::state_of(&repository, &world, published).unwrap() == *saved);
            }
        }
    }
}
