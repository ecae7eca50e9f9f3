//! Visits every state that can be reached, breadth first, so that the first wrong one has a shortest trace.
//!
//! Our own and not the crate `stateright`: that one brings fifty crates, a web server among them, and tells states
//! apart by 64 bits of hash. What is needed of it is this page.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// What is explored.
pub trait Model {
    type State: Copy;

    fn initial(&self) -> Self::State;
    /// Every step that somebody can take in `state`, in an order that is always the same, with its name for traces.
    fn steps(&self, state: &Self::State, out: &mut Vec<(Name, Self::State)>);
    /// Equal for states that differ in names only. 128 bits of BLAKE3: two states are mixed up as often as two chunks.
    fn key(&self, state: &Self::State) -> u128;
    /// What is wrong with `state`.
    fn wrong(&self, state: &Self::State) -> Option<String>;
    fn describe(&self, state: &Self::State) -> String;
    /// Counts for the reports, of whatever the model finds worth counting.
    fn is_notable(&self, state: &Self::State) -> bool;
}

/// Who does what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    pub actor: &'static str,
    pub number: usize,
    pub step: &'static str,
}

/// What was seen.
#[derive(Debug)]
pub struct Explored {
    pub state_count: usize,
    pub step_count: usize,
    pub notable_count: usize,
    /// The first wrong state, with the steps that lead to it.
    pub counterexample: Option<String>,
}

/// Keys are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only u128 are hashed")
    }
    fn write_u128(&mut self, key: u128) {
        self.0 = u64::try_from(key >> 64).expect("cannot fail because 64 bits are left");
    }
}

/// Visits all states, or stops at the first wrong one.
pub fn explore<M: Model>(model: &M) -> Explored {
    let mut seen: HashSet<u128, BuildHasherDefault<AsItIs>> = HashSet::default();
    let mut came_from: Vec<(u32, u16)> = Vec::new();
    let mut waiting = VecDeque::new();
    let mut explored = Explored { state_count: 0, step_count: 0, notable_count: 0, counterexample: None };
    let mut steps = Vec::new();

    let initial = model.initial();
    seen.insert(model.key(&initial));
    came_from.push((0, 0));
    waiting.push_back((0_u32, initial));
    while let Some((number, state)) = waiting.pop_front() {
        explored.notable_count += usize::from(model.is_notable(&state));
        if let Some(wrong) = model.wrong(&state) {
            explored.counterexample = Some(format!("{}\n{wrong}", trace(model, &came_from, number)));
            break;
        }
        steps.clear();
        model.steps(&state, &mut steps);
        explored.step_count += steps.len();
        for (which, (_, next)) in steps.iter().enumerate() {
            if seen.insert(model.key(next)) {
                let next_number = u32::try_from(came_from.len()).expect("cannot fail because memory ends before");
                came_from.push((number, u16::try_from(which).expect("cannot fail because few steps are possible")));
                waiting.push_back((next_number, *next));
            }
        }
    }
    explored.state_count = came_from.len();
    explored
}

/// The steps from the initial state to state `number`, one a line, with what they changed.
fn trace<M: Model>(model: &M, came_from: &[(u32, u16)], mut number: u32) -> String {
    let mut choices = Vec::new();
    while number != 0 {
        let (before, which) = came_from[number as usize];
        choices.push(which);
        number = before;
    }
    let mut state = model.initial();
    let mut lines = vec![format!("{:34} {}", "", model.describe(&state))];
    for which in choices.iter().rev() {
        let mut steps = Vec::new();
        model.steps(&state, &mut steps);
        let (name, next) = steps[usize::from(*which)];
        state = next;
        let who = format!("{} {}: {}", name.actor, name.number, name.step);
        lines.push(format!("{who:34} {}", model.describe(&state)));
    }
    lines.join("\n")
}
