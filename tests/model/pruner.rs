//! Pruners. One retires whatever it likes, needed or not: that nothing is lost doesn't depend on its survey.

use crate::explore::Name;
use crate::frames::{self, Chunks, Sight};
use crate::protocol::{Listing, Mistake, Protocol};
use crate::state::{PRUNER_MAX, Packs, Pruner, PrunerAt, SWEEPER, State, name_of_pruner, places};

impl Protocol {
    pub fn prune(&self, state: &State, i: usize, out: &mut Vec<(Name, State)>) {
        let name = |step| Name { actor: "pruner", number: i, step };
        let mut next = *state;
        match state.pruners[i].at {
            PrunerAt::Done | PrunerAt::Crashed => return,
            PrunerAt::SurveyPacks => self.survey(state, i, out),
            PrunerAt::Rewrite => self.rewrite(state, i, out),
            PrunerAt::Delete => self.delete(state, i, out),
            PrunerAt::JudgeFirst if state.pruners[i].waits != 0 => {}
            at => {
                let step = if at < PrunerAt::Retire {
                    self.prepare(state, &mut next, i)
                } else {
                    self.reclaim(state, &mut next, i)
                };
                out.push((name(step), next.tidied()));
            }
        }
        if state.pruners[i].at == PrunerAt::Begin {
            self.adopt(state, i, out);
        } else if self.crashes && i != SWEEPER {
            let mut next = *state;
            let Pruner { anchor, list_there, list, .. } = state.pruners[i];
            let list = if list_there { list } else { 0 };
            next.pruners[i] = Pruner { at: PrunerAt::Crashed, anchor, list_there, list, ..Pruner::default() };
            out.push((name("crash"), next.tidied()));
        }
    }

    /// A step of the half in which it is a writer.
    fn prepare(&self, state: &State, next: &mut State, i: usize) -> &'static str {
        use PrunerAt as At;
        let pruner = &mut next.pruners[i];
        match pruner.at {
            At::Begin => {
                pruner.anchor = true;
                pruner.at = At::AvoidRetired;
                "begin"
            }
            At::AvoidRetired => {
                if let Some(lists) = self.names(&mut pruner.half, state.lists()) {
                    pruner.retired = state.retired(lists);
                    pruner.at = At::SurveySnapshots;
                }
                "avoid_retired"
            }
            At::SurveySnapshots => {
                if let Some(snapshots) = self.names(&mut pruner.half, state.snapshots()) {
                    pruner.needed = self.wanted_by(snapshots);
                    pruner.at = At::SurveyPacks;
                }
                "survey"
            }
            _ => {
                pruner.at = match (pruner.list, self.mistake) {
                    (0, _) => At::Done,
                    (_, Some(Mistake::SessionsBeforeList)) => At::AwaitSessions,
                    _ => At::Retire,
                };
                if i == SWEEPER {
                    pruner.anchor = false;
                } else {
                    next.end(name_of_pruner(i));
                }
                "end"
            }
        }
    }

    /// A step of the half in which it takes away.
    fn reclaim(&self, state: &State, next: &mut State, i: usize) -> &'static str {
        use PrunerAt as At;
        let pruner = &mut next.pruners[i];
        match pruner.at {
            At::Retire => {
                pruner.list_there = true;
                pruner.at = if self.errs(Mistake::SessionsBeforeList) { At::JudgeFirst } else { At::AwaitSessions };
                "retire"
            }
            At::AwaitSessions => {
                if let Some(sessions) = self.names(&mut pruner.half, state.sessions()) {
                    pruner.waits = if self.errs(Mistake::NoWait) { 0 } else { sessions };
                    pruner.at = if self.errs(Mistake::SessionsBeforeList) { At::Retire } else { At::JudgeFirst };
                }
                "await_sessions"
            }
            At::Release => {
                let doomed = if self.errs(Mistake::ReleasesFirst) { pruner.retired } else { 0 };
                let adopted = usize::from(pruner.adopted);
                let at = if doomed == 0 { At::Done } else { At::Delete };
                *pruner = Pruner { at, retired: doomed, ..Pruner::default() };
                if adopted > 0 {
                    let other = &mut next.pruners[adopted - 1];
                    (other.list, other.list_there) = (0, false);
                }
                "release"
            }
            _ => {
                self.judge(state, next, i);
                "judge"
            }
        }
    }

    /// By mistake: goes on with a list that another one put.
    fn adopt(&self, state: &State, i: usize, out: &mut Vec<(Name, State)>) {
        for other in (0..PRUNER_MAX).filter(|other| *other != i && state.pruners[*other].list_there) {
            if self.errs(Mistake::ExecutesForeignList) {
                let mut next = *state;
                let pruner = &mut next.pruners[i];
                pruner.at = PrunerAt::AwaitSessions;
                pruner.list = state.pruners[other].list;
                pruner.adopted = u8::try_from(other + 1).expect("cannot fail because there are few pruners");
                out.push((Name { actor: "pruner", number: i, step: "adopt" }, next.tidied()));
            }
        }
    }

    /// Decides what to retire: what others retired, and whatever else it likes.
    fn survey(&self, state: &State, i: usize, out: &mut Vec<(Name, State)>) {
        let mut listed = *state;
        let Some(packs) = self.packs(&mut listed.pruners[i].half, state.there) else {
            out.push((Name { actor: "pruner", number: i, step: "survey" }, listed.tidied()));
            return;
        };
        let (state, pruner) = (&listed, listed.pruners[i]);
        let (foreign, own) = (packs & pruner.retired, packs & !pruner.retired);
        let needed = pruner.needed;
        for chosen in (0..=u8::MAX).filter(|chosen| chosen & !own == 0) {
            if i == SWEEPER {
                if chosen != superfluous(state, own, needed) {
                    continue;
                }
            } else if chosen.count_ones() > self.choice_max {
                continue;
            }
            let list = foreign | chosen;
            let kept = Sight::Sound.readable(state.frames(packs & !list));
            // What no pack holds can't be rewritten: it is reported, and doesn't keep anybody from reclaiming.
            let missing = needed & !frames::chunks(kept) & frames::found(state.frames(packs));
            let mut next = *state;
            let pruner = &mut next.pruners[i];
            (pruner.list, pruner.retired) = (list, 0);
            (pruner.missing, pruner.kept) = if missing == 0 { (0, 0) } else { (missing, kept) };
            pruner.needed = if self.errs(Mistake::OldSnapshots) { needed } else { 0 };
            pruner.at = if missing == 0 { PrunerAt::EndSession } else { PrunerAt::Rewrite };
            if list == 0 {
                pruner.needed = 0;
            }
            out.push((Name { actor: "pruner", number: i, step: "survey" }, next.tidied()));
        }
    }

    /// New packs for what is needed out of the packs that are to be retired. If somebody else was quicker, gives up.
    fn rewrite(&self, state: &State, i: usize, out: &mut Vec<(Name, State)>) {
        let Pruner { missing, kept, .. } = state.pruners[i];
        let mut next = *state;
        let pruner = &mut next.pruners[i];
        (pruner.missing, pruner.kept, pruner.at) = (0, 0, PrunerAt::EndSession);
        let name = Name { actor: "pruner", number: i, step: "rewrite" };
        if missing & !state.found() != 0 {
            (pruner.list, pruner.needed) = (0, 0);
            out.push((name, next.tidied()));
            return;
        }
        for way in self.ways_to_store(missing, kept, Sight::Sound) {
            let mut next = next;
            next.put_pack(way).expect("the bounds have room for every pack");
            out.push((name, next.tidied()));
        }
    }

    fn judge(&self, state: &State, next: &mut State, i: usize) {
        let pruner = &mut next.pruners[i];
        let at = pruner.at;
        let listing = self.judge[at as usize - PrunerAt::JudgeFirst as usize];
        match listing {
            Listing::Retired => {
                let Some(lists) = self.names(&mut pruner.half, state.lists()) else { return };
                pruner.retired = state.retired(lists);
            }
            Listing::Snapshots => {
                let Some(snapshots) = self.names(&mut pruner.half, state.snapshots()) else { return };
                pruner.needed =
                    if self.errs(Mistake::OldSnapshots) { pruner.needed } else { self.wanted_by(snapshots) };
            }
            Listing::Packs => {
                let Some(packs) = self.packs(&mut pruner.half, state.there) else { return };
                pruner.seen = packs;
            }
        }
        pruner.at = match at {
            PrunerAt::JudgeFirst => PrunerAt::JudgeSecond,
            PrunerAt::JudgeSecond => PrunerAt::JudgeThird,
            _ => {
                pruner.retired = self.doomed(state, i, pruner);
                (pruner.seen, pruner.needed) = (0, 0);
                let releases = pruner.retired == 0 || self.errs(Mistake::ReleasesFirst);
                if releases { PrunerAt::Release } else { PrunerAt::Delete }
            }
        };
    }

    /// The packs of its list that no snapshot needs, directly or as a base, except through copies in packs that are there
    /// and in nobody's list.
    fn doomed(&self, state: &State, i: usize, pruner: &Pruner) -> Packs {
        if self.errs(Mistake::NoJudge) {
            return pruner.list;
        }
        let foreign = if self.errs(Mistake::TrustsForeignLists) { 0 } else { pruner.retired };
        let safe = pruner.seen & !pruner.list & !foreign;
        let kept = frames::chunks(self.judge_sight.readable(state.frames(safe)));
        let unsafe_chunks = pruner.needed & !kept;
        let precious = if self.errs(Mistake::BasesNotFollowed) {
            unsafe_chunks
        } else {
            frames::with_bases(unsafe_chunks, state.frames(pruner.seen))
        };
        let holds_none = |place: &usize| frames::chunks(state.content[*place]) & precious == 0;
        let doomed = places(pruner.list & pruner.seen).filter(holds_none).fold(0, |set, place| set | 1 << place);
        let spared = pruner.list & pruner.seen & !doomed;
        // By mistake: one of those that are spared goes, if the others have what it has.
        let other = places(spared).filter(|place| {
            let rest = frames::found(state.frames(pruner.seen & !doomed & !(1 << place)));
            self.errs(Mistake::SparesOneCopy) && pruner.needed & !rest == 0
        });
        let goes = if i.is_multiple_of(2) { other.min() } else { other.max() };
        goes.map_or(doomed, |place| doomed | 1 << place)
    }

    fn delete(&self, state: &State, i: usize, out: &mut Vec<(Name, State)>) {
        let doomed = state.pruners[i].retired;
        let after = if self.errs(Mistake::ReleasesFirst) { PrunerAt::Done } else { PrunerAt::Release };
        let name = Name { actor: "pruner", number: i, step: "delete" };
        if doomed == 0 {
            let mut next = *state;
            next.pruners[i].at = after;
            out.push((name, next.tidied()));
        }
        for place in places(doomed) {
            let mut next = *state;
            next.there &= !(1 << place);
            next.pruners[i].retired &= !(1 << place);
            if next.pruners[i].retired == 0 {
                next.pruners[i].at = after;
            }
            out.push((name, next.tidied()));
        }
    }
}

/// Packs, as many as possible from the first on, without which the rest still gives what `packs` give of `needed`.
pub fn superfluous(state: &State, packs: Packs, needed: Chunks) -> Packs {
    let needed = needed & frames::found(state.frames(packs));
    places(packs).fold(0, |out, place| {
        let without = out | 1 << place;
        if needed & !frames::found(state.frames(packs & !without)) == 0 { without } else { out }
    })
}
