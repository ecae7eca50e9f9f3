//! Writers: backup, and tag, which has no chunks of its own.

use crate::explore::Name;
use crate::frames::{self, Chunks, Frames, PLAIN_A, PLAIN_B, PLAIN_C, Sight};
use crate::protocol::{Mistake, Protocol, Task};
use crate::state::{Snapshot, State, Writer, WriterAt, name_of_writer};

impl Protocol {
    /// What a writer does before it stores anything.
    fn opening(&self) -> [&'static str; 3] {
        match self.mistake {
            Some(Mistake::SessionAfterRetired) => ["avoid_retired", "begin", "settle"],
            Some(Mistake::SettledBeforeRetired) => ["begin", "settle", "avoid_retired"],
            _ => ["begin", "avoid_retired", "settle"],
        }
    }

    pub fn write(&self, state: &State, i: usize, out: &mut Vec<(Name, State)>) {
        use WriterAt as At;
        let mut next = *state;
        let writer = &mut next.writers[i];
        let me = name_of_writer(i);
        let step = match writer.at {
            At::Done | At::Crashed => return,
            At::First | At::Second | At::Third => {
                let at = writer.at as usize;
                let step = self.opening()[at];
                let done = self.open(state, i, writer, step);
                if done && at < 2 {
                    writer.at = [At::Second, At::Third][at];
                } else if done {
                    self.decide_upload(state, i, writer);
                }
                step
            }
            At::Upload => {
                self.upload(&next, i, out);
                "upload"
            }
            At::PublishIndex => {
                // Segments repeat footers: nobody's decisions depend on them. The first look at the session is here,
                // so that one that was ended long ago publishes nothing.
                writer.at = if writer.anchor || self.errs(Mistake::NoConfirm) { At::PublishSnapshot } else { At::End };
                "publish_index"
            }
            At::PublishSnapshot => {
                let promised = writer.anchor || self.errs(Mistake::NoConfirm);
                writer.at = if self.errs(Mistake::NoConfirm) { At::End } else { At::Confirm };
                next.written[i] = if promised { Snapshot::Published } else { Snapshot::Exposed };
                "publish_snapshot"
            }
            At::Confirm => {
                if self.errs(Mistake::Revives) && !writer.anchor {
                    writer.anchor = true;
                    *next.snapshot_mut(me) = confirmed(state.written[i]);
                    next.writers[i].at = At::End;
                } else {
                    writer.at = if writer.anchor { At::End } else { At::ConfirmFirst };
                }
                "confirm"
            }
            At::ConfirmFirst | At::ConfirmSecond => {
                self.confirm(state, &mut next, i);
                "confirm"
            }
            At::Withdraw => {
                writer.at = At::End;
                next.written[i] = Snapshot::Absent;
                "withdraw"
            }
            At::End => {
                writer.at = At::Done;
                next.end(me);
                "end"
            }
        };
        let name = |step| Name { actor: "writer", number: i, step };
        if state.writers[i].at != At::Upload {
            out.push((name(step), next.tidied()));
        }
        if self.crashes && state.writers[i].at != At::First {
            let mut next = *state;
            next.writers[i] = Writer { at: At::Crashed, anchor: state.writers[i].anchor, ..Writer::default() };
            out.push((name("crash"), next.tidied()));
        }
    }

    /// One step of the opening; whether it is done.
    fn open(&self, state: &State, i: usize, writer: &mut Writer, step: &str) -> bool {
        match step {
            "begin" => writer.anchor = true,
            "avoid_retired" => {
                let Some(lists) = self.names(&mut writer.half, state.lists()) else { return false };
                writer.retired = if self.errs(Mistake::RetiredCount) { 0 } else { state.retired(lists) };
                if self.writers[i] == Task::TagUnseen && lists != 0 {
                    (writer.at, writer.retired) = (WriterAt::End, 0);
                    return false;
                }
            }
            _ => {
                let Some(packs) = self.packs(&mut writer.half, state.there) else { return false };
                writer.seen = packs;
            }
        }
        true
    }

    /// What counts is in packs that are there and that nobody retired, with its bases.
    fn decide_upload(&self, state: &State, i: usize, writer: &mut Writer) {
        let kept = self.writer_sight.readable(state.frames(writer.seen & !writer.retired));
        let missing = self.wanted(name_of_writer(i)) & !frames::chunks(kept);
        (writer.seen, writer.retired) = (0, 0);
        (writer.at, writer.missing, writer.kept) = (WriterAt::PublishIndex, 0, 0);
        if matches!(self.writers[i], Task::Tag | Task::TagUnseen) {
            let trusts = self.errs(Mistake::TrustsSnapshot) || self.writers[i] == Task::TagUnseen;
            if state.earlier[0] == Snapshot::Absent || missing != 0 && !trusts {
                writer.at = WriterAt::End;
            }
        } else if missing != 0 {
            (writer.at, writer.missing, writer.kept) = (WriterAt::Upload, missing, kept);
        }
    }

    /// A pack with the next chunk, plain or as a delta of what counts.
    fn upload(&self, state: &State, i: usize, out: &mut Vec<(Name, State)>) {
        let writer = state.writers[i];
        let chunk = 1 << writer.missing.trailing_zeros();
        for way in self.ways_to_store(chunk, writer.kept, self.writer_sight) {
            let mut next = *state;
            let writer = &mut next.writers[i];
            writer.missing &= !chunk;
            writer.kept |= way;
            if writer.missing == 0 {
                (writer.at, writer.kept) = (WriterAt::PublishIndex, 0);
            }
            next.put_pack(way).expect("the bounds have room for every pack");
            out.push((Name { actor: "writer", number: i, step: "upload" }, next.tidied()));
        }
    }

    pub fn ways_to_store(&self, missing: Chunks, kept: Frames, sight: Sight) -> Vec<Frames> {
        let plain = PLAIN_A | PLAIN_B | PLAIN_C;
        let ways = frames::ways_to_store(missing, kept, sight);
        ways.into_iter().filter(|way| self.deltas || way & !plain == 0).collect()
    }

    /// The session was ended by somebody else: is everything there, and nothing of it retired?
    fn confirm(&self, state: &State, next: &mut State, i: usize) {
        let packs_first = self.errs(Mistake::ConfirmsPacksFirst);
        let writer = &mut next.writers[i];
        if (writer.at == WriterAt::ConfirmFirst) == packs_first {
            let Some(packs) = self.packs(&mut writer.half, state.there) else { return };
            writer.seen = packs;
        } else {
            let Some(lists) = self.names(&mut writer.half, state.lists()) else { return };
            writer.retired = if self.errs(Mistake::ConfirmsWithoutRetired) { 0 } else { state.retired(lists) };
        }
        if writer.at == WriterAt::ConfirmFirst {
            writer.at = WriterAt::ConfirmSecond;
            return;
        }
        let kept = self.writer_sight.readable(state.frames(writer.seen & !writer.retired));
        let whole = self.wanted(name_of_writer(i)) & !frames::chunks(kept) == 0;
        (writer.seen, writer.retired) = (0, 0);
        writer.at = if whole { WriterAt::End } else { WriterAt::Withdraw };
        if whole {
            next.written[i] = confirmed(state.written[i]);
        }
    }
}

/// Somebody looked and found everything; unless it was forgotten meanwhile.
fn confirmed(snapshot: Snapshot) -> Snapshot {
    if snapshot == Snapshot::Absent { Snapshot::Absent } else { Snapshot::Published }
}
