//! The protocol of `format-spec/11-sessions-and-reclaiming.md`, step by step. A step is named after the function that
//! takes it, and is one operation of storage (or none): between any two of them anybody else may act, and anybody
//! may die.

use crate::explore::{Model, Name};
use crate::frames::{self, Chunks, Frames, PLAIN_A, Sight};
use crate::pruner::superfluous;
use crate::state::{
    Half, Names, PRUNER_MAX, Packs, PrunerAt, ReaderAt, SWEEPER, Snapshot, State, WriterAt, name_of_earlier, places,
};

/// What is listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listing {
    Retired,
    Snapshots,
    Packs,
}

/// What a writer is out for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Task {
    /// A snapshot of these chunks, which it has.
    Backup(Chunks),
    /// The first of the earlier snapshots again, under another name; it has no chunks itself.
    Tag,
    /// The same without a look at its chunks, which is allowed when nothing is retired.
    TagUnseen,
}

/// A mistake, planted to see that it is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mistake {
    /// The writer lists retired packs, then shows its session.
    SessionAfterRetired,
    /// The writer lists packs, then what is retired.
    SettledBeforeRetired,
    /// The writer counts retired packs.
    RetiredCount,
    /// The writer takes over a snapshot without looking whether its chunks count.
    TrustsSnapshot,
    /// The writer doesn't look at its session again.
    NoConfirm,
    /// The writer lists packs, then what is retired, when it looks again.
    ConfirmsPacksFirst,
    /// The writer looks only whether packs are there, when it looks again.
    ConfirmsWithoutRetired,
    /// The writer puts its anchor again when it is gone.
    Revives,
    /// The pruner lists sessions, then publishes its list.
    SessionsBeforeList,
    /// The pruner waits for nobody.
    NoWait,
    /// The pruner deletes what its survey said.
    NoJudge,
    /// The pruner judges with the snapshots of its survey.
    OldSnapshots,
    /// The pruner believes in copies in packs that others retired.
    TrustsForeignLists,
    /// The pruner doesn't ask what bases its spared packs need.
    BasesNotFollowed,
    /// The pruner spares one of several copies on its list, each pruner another.
    SparesOneCopy,
    /// The pruner releases its list, then deletes.
    ReleasesFirst,
    /// The pruner executes somebody else's list.
    ExecutesForeignList,
    /// Lists are released by anybody, packs or no packs.
    ReleasesForeignLists,
}

/// The protocol within bounds.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each allows one thing to happen, and all go together")]
pub struct Protocol {
    /// Packs in the beginning.
    pub packs: &'static [Frames],
    /// Snapshots in the beginning.
    pub snapshots: &'static [Chunks],
    /// At most two.
    pub writers: &'static [Task],
    /// At most three.
    pub pruner_count: usize,
    /// How many packs a pruner retires besides those of foreign lists. Which ones is up to it, needed or not.
    pub choice_max: u32,
    /// Whether there is a reader, and after how many listings without a chunk it gives up.
    pub reader: Option<u8>,
    /// Whether actors die at any step.
    pub crashes: bool,
    /// Whether sessions of the living are ended. Those of the dead always are.
    pub rudeness: bool,
    /// Whether snapshots are forgotten at any time.
    pub forgetting: bool,
    /// Whether new chunks may be stored as deltas.
    pub deltas: bool,
    /// Whether a listing may miss what comes or goes while it runs.
    pub torn: bool,
    /// Whether a snapshot counts as promised even before its writer looked at its session again.
    pub promised_at_once: bool,
    pub judge: [Listing; 3],
    pub writer_sight: Sight,
    pub judge_sight: Sight,
    pub mistake: Option<Mistake>,
}

/// The order that the specification demands.
pub const JUDGE: [Listing; 3] = [Listing::Retired, Listing::Snapshots, Listing::Packs];

impl Protocol {
    /// Two writers, two pruners, everything allowed, one chunk in two packs.
    pub const WHOLE: Protocol = Protocol {
        packs: &[PLAIN_A, PLAIN_A],
        snapshots: &[frames::A],
        writers: &[Task::Backup(frames::A), Task::Backup(frames::A)],
        pruner_count: 2,
        choice_max: 1,
        reader: None,
        crashes: true,
        rudeness: true,
        forgetting: true,
        deltas: false,
        torn: false,
        promised_at_once: false,
        judge: JUDGE,
        writer_sight: Sight::Sound,
        judge_sight: Sight::Sound,
        mistake: None,
    };

    pub fn errs(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    pub fn wanted(&self, name: Names) -> Chunks {
        let number = name.trailing_zeros() as usize;
        match self.writers.get(number) {
            Some(Task::Backup(chunks)) => *chunks,
            Some(Task::Tag | Task::TagUnseen) => self.snapshots[0],
            None => (0..self.snapshots.len()).find(|i| name == name_of_earlier(*i)).map_or(0, |i| self.snapshots[i]),
        }
    }

    pub fn wanted_by(&self, snapshots: Names) -> Chunks {
        (0..8).map(|bit| snapshots & (1 << bit)).filter(|name| *name != 0).fold(0, |all, name| all | self.wanted(name))
    }

    /// One listing of names, or one half of it.
    pub fn names(&self, half: &mut Half, now: Names) -> Option<Names> {
        self.listed(half, 0, now).map(|(_, names)| names)
    }

    /// One listing of packs, or one half of it.
    pub fn packs(&self, half: &mut Half, now: Packs) -> Option<Packs> {
        self.listed(half, now, 0).map(|(packs, _)| packs)
    }

    fn listed(&self, half: &mut Half, packs: Packs, names: Names) -> Option<(Packs, Names)> {
        if !self.torn {
            return Some((packs, names));
        }
        if !half.begun {
            *half = Half { begun: true, packs, names };
            return None;
        }
        let begun = std::mem::take(half);
        Some((begun.packs & packs, begun.names & names))
    }
}

impl Model for Protocol {
    type State = State;

    fn initial(&self) -> State {
        let mut state = State::default();
        for content in self.packs {
            state.put_pack(*content).expect("the bounds have room for every pack");
        }
        for i in 0..self.snapshots.len() {
            state.earlier[i] = Snapshot::Published;
        }
        for i in self.writers.len()..state.writers.len() {
            state.writers[i].at = WriterAt::Done;
        }
        for i in self.pruner_count..PRUNER_MAX {
            state.pruners[i].at = PrunerAt::Done;
        }
        state.pruners[SWEEPER].at = PrunerAt::Done;
        state
    }

    fn steps(&self, state: &State, out: &mut Vec<(Name, State)>) {
        for i in 0..self.writers.len() {
            self.write(state, i, out);
        }
        for i in 0..self.pruner_count {
            self.prune(state, i, out);
        }
        self.read(state, out);
        self.meddle(state, out);
    }

    fn key(&self, state: &State) -> u128 {
        let equal_writers = self.writers.len() == 2 && self.writers[0] == self.writers[1];
        state.key(equal_writers, self.pruner_count)
    }

    fn wrong(&self, state: &State) -> Option<String> {
        let found = state.found();
        let there = state.snapshots();
        for name in (0..8).map(|bit| there & (1 << bit)).filter(|name| *name != 0) {
            let promised = self.promised_at_once || *(*state).clone().snapshot_mut(name) == Snapshot::Published;
            if promised && self.wanted(name) & !found != 0 {
                return Some("a published snapshot can't be read".to_string());
            }
        }
        if state.reader.at == ReaderAt::Failed {
            return Some("a reader gave up on a snapshot that is there and whole".to_string());
        }
        if state.pruners.iter().any(|pruner| pruner.at == PrunerAt::Done && pruner.list_there) {
            return Some("a pruner is done and its list is still there".to_string());
        }
        if state.is_quiet() && self.mistake.is_none() { self.left_behind(state) } else { None }
    }

    fn is_notable(&self, state: &State) -> bool {
        let garbage = || superfluous(state, state.there, self.wanted_by(state.snapshots()));
        state.is_quiet() && state.there != self.initial().there && garbage() == 0
    }

    fn describe(&self, state: &State) -> String {
        let pack = |place: usize| format!("{place}={}", frames::names(state.content[place]));
        let packs = |set: Packs| places(set).map(pack).collect::<Vec<_>>().join(" ");
        let lists: Vec<_> = (0..PRUNER_MAX)
            .filter(|i| state.pruners[*i].list_there)
            .map(|i| format!("{i}:{{{}}}", packs(state.pruners[i].list)))
            .collect();
        format!(
            "packs [{}] retired [{}] sessions {:05b} snapshots {:?} {:?}",
            packs(state.there),
            lists.join(" "),
            state.sessions(),
            &state.earlier[..self.snapshots.len()],
            &state.written[..self.writers.len()],
        )
    }
}
