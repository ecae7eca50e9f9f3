//! Readers, everybody who ends sessions and forgets snapshots, and who comes when all others are done.

use crate::explore::{Model, Name};
use crate::frames;
use crate::protocol::{Mistake, Protocol};
use crate::pruner::superfluous;
use crate::state::{
    PRUNER_MAX, Packs, Pruner, PrunerAt, Reader, ReaderAt, SWEEPER, Snapshot, State, WRITER_MAX, WriterAt, places,
};

impl Protocol {
    pub fn read(&self, state: &State, out: &mut Vec<(Name, State)>) {
        let Some(misses_max) = self.reader else { return };
        let name = |step| Name { actor: "reader", number: 0, step };
        let mut next = *state;
        let reader = &mut next.reader;
        match reader.at {
            ReaderAt::Done | ReaderAt::Failed => {}
            ReaderAt::Idle => {
                let there = state.snapshots();
                for snapshot in (0..8).map(|bit| there & (1 << bit)).filter(|snapshot| *snapshot != 0) {
                    let left = self.wanted(snapshot);
                    next.reader = Reader { at: ReaderAt::Look, name: snapshot, left, ..Reader::default() };
                    out.push((name("open"), next.tidied()));
                }
            }
            ReaderAt::Look => {
                if let Some(packs) = self.packs(&mut reader.half, state.there) {
                    let chunk = 1 << reader.left.trailing_zeros();
                    let found = frames::found(state.frames(packs)) & chunk != 0;
                    reader.known = packs;
                    (reader.at, reader.misses) =
                        if found { (ReaderAt::Read, 0) } else { (reader.at, reader.misses + 1) };
                    if reader.misses == misses_max {
                        let promised = *next.snapshot_mut(state.reader.name) == Snapshot::Published;
                        let at = if promised { ReaderAt::Failed } else { ReaderAt::Done };
                        next.reader = Reader { at, ..Reader::default() };
                    }
                }
                out.push((name("look_again"), next.tidied()));
            }
            ReaderAt::Read => {
                let chunk = 1 << reader.left.trailing_zeros();
                if frames::found(state.frames(reader.known)) & chunk == 0 {
                    reader.at = ReaderAt::Look;
                } else {
                    reader.left &= !chunk;
                    if reader.left == 0 {
                        next.reader = Reader { at: ReaderAt::Done, ..Reader::default() };
                    }
                }
                out.push((name("get"), next.tidied()));
            }
        }
    }

    /// What anybody may do at any time.
    pub fn meddle(&self, state: &State, out: &mut Vec<(Name, State)>) {
        let name = |number, step| Name { actor: "anybody", number, step };
        let sessions = state.sessions();
        for number in (0..8).filter(|bit| sessions & (1 << bit) != 0) {
            let dead = if number < WRITER_MAX {
                state.writers[number].at == WriterAt::Crashed
            } else {
                state.pruners[number - WRITER_MAX].at == PrunerAt::Crashed
            };
            if dead || self.rudeness {
                let mut next = *state;
                next.end(1 << number);
                out.push((name(number, "end_session"), next.tidied()));
            }
        }
        let snapshots = if self.forgetting { state.snapshots() } else { 0 };
        for number in (0..8).filter(|bit| snapshots & (1 << bit) != 0) {
            let mut next = *state;
            *next.snapshot_mut(1 << number) = Snapshot::Absent;
            out.push((name(number, "forget"), next.tidied()));
        }
        for i in 0..PRUNER_MAX {
            let pruner = state.pruners[i];
            if pruner.list_there && (pruner.list & state.there == 0 || self.errs(Mistake::ReleasesForeignLists)) {
                let mut next = *state;
                next.pruners[i].list_there = false;
                if pruner.at == PrunerAt::Crashed {
                    next.pruners[i].list = 0;
                }
                out.push((name(i, "release"), next.tidied()));
            }
        }
    }

    /// What another pruner, alone, would leave to wish for in a state in which nobody is at work.
    pub fn left_behind(&self, state: &State) -> Option<String> {
        let mut state = *state;
        for bit in 0..8 {
            state.end(1 << bit);
        }
        state.pruners[SWEEPER] = Pruner::default();
        while state.pruners[SWEEPER].at != PrunerAt::Done {
            let mut steps = Vec::new();
            self.prune(&state, SWEEPER, &mut steps);
            state = steps.first().expect("a pruner that is alone never waits").1;
        }
        let needed = self.wanted_by(state.snapshots());
        // What is left of a chunk that can't be read any more is spared: its base may come back from elsewhere. Only the
        // window between publishing and confirming leaves such chunks.
        let damaged = frames::with_bases(needed & !state.found(), state.frames(state.there));
        let in_the_way = |packs: Packs| places(packs).any(|place| frames::chunks(state.content[place]) & damaged == 0);
        if in_the_way(state.retired(state.lists()) & state.there) {
            return Some(format!("a retired list is never released: {}", self.describe(&state)));
        }
        let garbage = in_the_way(superfluous(&state, state.there, needed));
        garbage.then(|| format!("garbage is never deleted: {}", self.describe(&state)))
    }
}
