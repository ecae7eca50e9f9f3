//! Whatever is done in whatever order, every snapshot holds what was there when it was made.

use std::sync::Arc;

use compline::clock::Clock;
use compline::storage::MemoryStorage;
use compline::store::Unlock;
use compline::store::check::DataSubset;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::shelf::{self, State};
use crate::support::World;
use crate::support::nasty::noise;

#[derive(Debug, Clone)]
enum Operation {
    Write { file: u8, seed: u64, len: usize },
    Append { file: u8, seed: u64 },
    Delete(u8),
    Rename(u8, u8),
    Backup,
    Restore(prop::sample::Index),
    DropCache,
    AddKey,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let file = 0..6_u8;
    let operation = prop_oneof![
        4 => (file.clone(), 0..5_u64, 0..100_000_usize)
            .prop_map(|(file, seed, len)| Operation::Write { file, seed, len }),
        2 => (file.clone(), any::<u64>()).prop_map(|(file, seed)| Operation::Append { file, seed }),
        1 => file.clone().prop_map(Operation::Delete),
        1 => (file.clone(), file).prop_map(|(from, to)| Operation::Rename(from, to)),
        4 => Just(Operation::Backup),
        2 => any::<prop::sample::Index>().prop_map(Operation::Restore),
        1 => Just(Operation::DropCache),
        1 => Just(Operation::AddKey),
    ];
    prop::collection::vec(operation, 1..25)
}

struct Model {
    storage: Arc<MemoryStorage>,
    unlock: Unlock,
    cache: TempDir,
    state: State,
    snapshots: Vec<State>,
}

impl Model {
    fn new() -> Self {
        let storage = Arc::new(MemoryStorage::new());
        let unlock = shelf::create(&*storage);
        Self { storage, unlock, cache: TempDir::new().unwrap(), state: State::new(), snapshots: Vec::new() }
    }

    fn open(&self) -> compline::store::Repository {
        shelf::open(&self.storage, &self.unlock, Some(self.cache.path())).unwrap()
    }

    fn apply(&mut self, operation: &Operation) {
        let name = |file: &u8| format!("directory/{file}");
        match operation {
            Operation::Write { file, seed, len } => {
                self.state.insert(name(file), noise(*seed, *len));
            }
            Operation::Append { file, seed } => {
                self.state.entry(name(file)).or_default().extend(noise(*seed, 5000));
            }
            Operation::Delete(file) => {
                self.state.remove(&name(file));
            }
            Operation::Rename(from, to) => {
                if let Some(bytes) = self.state.remove(&name(from)) {
                    self.state.insert(name(to), bytes);
                }
            }
            Operation::Backup => {
                let night = self.snapshots.len() as u64;
                shelf::save(&self.open(), &World::new(), &self.state, night).unwrap();
                self.snapshots.push(self.state.clone());
            }
            Operation::Restore(which) => self.restore(*which),
            Operation::DropCache => self.cache = TempDir::new().unwrap(),
            Operation::AddKey => {
                let (unlock, _) = Unlock::new_key_file().unwrap();
                self.open().add_key(&unlock, "", World::new().clock.now()).unwrap();
                self.unlock = unlock;
            }
        }
    }

    fn restore(&self, which: prop::sample::Index) {
        if !self.snapshots.is_empty() {
            let at = which.index(self.snapshots.len());
            let (repository, world) = (self.open(), World::new());
            let published = shelf::published(&repository, &world).unwrap();
            assert!(shelf::state_of(&repository, &world, &published[at]).unwrap() == self.snapshots[at]);
        }
    }

    fn holds(&self) {
        let (repository, world) = (shelf::open(&self.storage, &self.unlock, None).unwrap(), World::new());
        assert_eq!(shelf::check(&repository, DataSubset::All).unwrap(), Vec::<String>::new());
        let published = shelf::published(&repository, &world).unwrap();
        assert_eq!(published.len(), self.snapshots.len());
        for (published, state) in published.iter().zip(&self.snapshots) {
            assert!(shelf::state_of(&repository, &world, published).unwrap() == *state);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_snapshot_holds_what_was_there_when_it_was_made(operations in operations()) {
        let mut model = Model::new();
        for operation in &operations {
            model.apply(operation);
        }
        model.holds();
    }
}
