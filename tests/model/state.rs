//! What storage holds and what each actor knows, and when two such states are the same.

use crate::frames::{self, Chunks, Frames};

/// A set of packs, by place. A place is used again once its pack is gone and nobody remembers it; names of packs
/// never come back.
pub type Packs = u8;
/// Actors, or what belongs to them: writers 0 and 1, pruners from 2. Snapshots that were there before: from 5.
pub type Names = u8;

pub const PACK_MAX: usize = 8;
pub const WRITER_MAX: usize = 2;
pub const PRUNER_MAX: usize = 3;
pub const EARLIER_MAX: usize = 3;
/// The place of a pruner that cleans up in states in which all others are quiet.
pub const SWEEPER: usize = PRUNER_MAX;

pub const fn name_of_writer(writer: usize) -> Names {
    1 << writer
}
pub const fn name_of_pruner(pruner: usize) -> Names {
    1 << (WRITER_MAX + pruner)
}
pub const fn name_of_earlier(snapshot: usize) -> Names {
    1 << (WRITER_MAX + PRUNER_MAX + snapshot)
}

/// What became of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Snapshot {
    /// Not there, or there no more.
    #[default]
    Absent,
    /// There, but its session had been ended by somebody else before, and its writer hasn't looked yet.
    Exposed,
    /// Promised to the user.
    Published,
}

/// A listing under way: what was there when it began. What comes or goes meanwhile may be missed.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Half {
    pub begun: bool,
    pub packs: Packs,
    pub names: Names,
}

/// The next step of a writer. The first three come in the order of `Protocol::opening`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum WriterAt {
    #[default]
    First,
    Second,
    Third,
    Upload,
    PublishIndex,
    PublishSnapshot,
    Confirm,
    ConfirmFirst,
    ConfirmSecond,
    Withdraw,
    End,
    Done,
    Crashed,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Writer {
    pub at: WriterAt,
    pub anchor: bool,
    /// Packs in the retired lists that it saw.
    pub retired: Packs,
    /// Packs that it saw, as long as it needs them.
    pub seen: Packs,
    /// Chunks that it has yet to store.
    pub missing: Chunks,
    /// Frames that count for it.
    pub kept: Frames,
    pub half: Half,
}

/// The next step of a pruner.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum PrunerAt {
    #[default]
    Begin,
    AvoidRetired,
    SurveySnapshots,
    SurveyPacks,
    Rewrite,
    EndSession,
    Retire,
    AwaitSessions,
    JudgeFirst,
    JudgeSecond,
    JudgeThird,
    Delete,
    Release,
    Done,
    Crashed,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruner {
    pub at: PrunerAt,
    pub anchor: bool,
    /// What it is going to retire, or has.
    pub list: Packs,
    /// Whether the list is in storage.
    pub list_there: bool,
    /// Packs in the retired lists that it saw; then those that it is going to delete.
    pub retired: Packs,
    /// Packs that it saw, as long as it needs them.
    pub seen: Packs,
    pub needed: Chunks,
    pub missing: Chunks,
    pub kept: Frames,
    /// Sessions that it waits for.
    pub waits: Names,
    /// One more than the pruner whose list it executes; only by mistake.
    pub adopted: u8,
    pub half: Half,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ReaderAt {
    #[default]
    Idle,
    Look,
    Read,
    Done,
    Failed,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Reader {
    pub at: ReaderAt,
    /// The snapshot that it reads.
    pub name: Names,
    pub known: Packs,
    pub left: Chunks,
    /// Listings without the chunk, one after the other.
    pub misses: u8,
    pub half: Half,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct State {
    /// What each pack holds. 0: the place is free.
    pub content: [Frames; PACK_MAX],
    pub there: Packs,
    /// Those of the writers.
    pub written: [Snapshot; WRITER_MAX],
    pub earlier: [Snapshot; EARLIER_MAX],
    pub writers: [Writer; WRITER_MAX],
    pub pruners: [Pruner; PRUNER_MAX + 1],
    pub reader: Reader,
}

impl State {
    /// All frames in `packs`.
    pub fn frames(&self, packs: Packs) -> Frames {
        places(packs).fold(0, |frames, place| frames | self.content[place])
    }

    /// The chunks that can be read now.
    pub fn found(&self) -> Chunks {
        frames::found(self.frames(self.there))
    }

    /// A new pack, from whoever. None if the bounds have no room for it.
    pub fn put_pack(&mut self, content: Frames) -> Option<()> {
        let place = self.content.iter().position(|content| *content == 0)?;
        self.content[place] = content;
        self.there |= 1 << place;
        Some(())
    }

    /// The anchors in storage.
    pub fn sessions(&self) -> Names {
        let writers = (0..WRITER_MAX).filter(|i| self.writers[*i].anchor).map(name_of_writer);
        let pruners = (0..PRUNER_MAX).filter(|i| self.pruners[*i].anchor).map(name_of_pruner);
        writers.chain(pruners).fold(0, |names, name| names | name)
    }

    /// Deletes an anchor. Nobody waits for it any more.
    pub fn end(&mut self, name: Names) {
        for (i, writer) in self.writers.iter_mut().enumerate() {
            writer.anchor &= name != name_of_writer(i);
        }
        for (i, pruner) in self.pruners.iter_mut().enumerate() {
            pruner.anchor &= i == SWEEPER || name != name_of_pruner(i);
            pruner.waits &= !name;
        }
    }

    /// The retired lists in storage, by owner.
    pub fn lists(&self) -> Names {
        let there = (0..PRUNER_MAX).filter(|i| self.pruners[*i].list_there);
        there.fold(0, |names, i| names | name_of_pruner(i))
    }

    /// The packs in those of the lists that are named.
    pub fn retired(&self, lists: Names) -> Packs {
        let named = (0..PRUNER_MAX).filter(|i| lists & name_of_pruner(*i) != 0);
        named.fold(0, |packs, i| packs | self.pruners[i].list)
    }

    /// The snapshots in storage, promised or not.
    pub fn snapshots(&self) -> Names {
        let written = (0..WRITER_MAX).filter(|i| self.written[*i] != Snapshot::Absent).map(name_of_writer);
        let earlier = (0..EARLIER_MAX).filter(|i| self.earlier[*i] != Snapshot::Absent).map(name_of_earlier);
        written.chain(earlier).fold(0, |names, name| names | name)
    }

    pub fn snapshot_mut(&mut self, name: Names) -> &mut Snapshot {
        let number = name.trailing_zeros() as usize;
        if number < WRITER_MAX {
            &mut self.written[number]
        } else {
            &mut self.earlier[number - WRITER_MAX - PRUNER_MAX]
        }
    }

    /// Nobody is between two steps of a run.
    pub fn is_quiet(&self) -> bool {
        let writers = self.writers.iter().all(|w| matches!(w.at, WriterAt::First | WriterAt::Done | WriterAt::Crashed));
        writers && self.pruners.iter().all(|p| matches!(p.at, PrunerAt::Begin | PrunerAt::Done | PrunerAt::Crashed))
    }

    /// Forgets what makes no difference any more: packs that are gone, where nobody still believes in them.
    pub fn tidied(mut self) -> Self {
        let there = self.there;
        let seen = self.writers.iter().map(|writer| writer.seen).chain(self.pruners.iter().map(|pruner| pruner.seen));
        let believed = seen.fold(there, |packs, seen| packs | seen);
        for writer in &mut self.writers {
            writer.retired &= believed;
            writer.half.packs &= there;
            if writer.at == WriterAt::Crashed && !writer.anchor {
                writer.at = WriterAt::Done;
            }
        }
        for pruner in &mut self.pruners {
            pruner.list &= believed;
            pruner.retired &= if pruner.at >= PrunerAt::Delete { there } else { believed };
            pruner.half.packs &= there;
            if pruner.at == PrunerAt::Crashed && !pruner.anchor && !pruner.list_there {
                pruner.at = PrunerAt::Done;
            }
        }
        self.reader.known &= there;
        self.reader.half.packs &= there;
        for place in 0..PACK_MAX {
            if believed & (1 << place) == 0 {
                self.content[place] = 0;
            }
        }
        self
    }

    /// Equal for states that differ only in the places of packs, and in which of two equal actors is which.
    pub fn key(&self, equal_writers: bool, pruner_count: usize) -> u128 {
        let mut pruners = [0, 1, 2];
        pruners[..pruner_count].sort_by_key(|i| self.pruners[*i].rank());
        let swapped = equal_writers && self.writers[1].rank() < self.writers[0].rank();
        let writers = if swapped { [1, 0] } else { [0, 1] };
        let mut key = self.key_in_order(writers, pruners);
        // Actors of one rank differ in what they know at most: the smallest key of all orders stands for them.
        let rank = |i: usize| self.pruners[pruners[i]].rank();
        let writers_tie = equal_writers && self.writers[0].rank() == self.writers[1].rank();
        let first_tie = pruner_count > 1 && rank(0) == rank(1);
        let second_tie = pruner_count > 2 && rank(1) == rank(2);
        let mut orders = vec![];
        if first_tie {
            orders.push([pruners[1], pruners[0], pruners[2]]);
        }
        if second_tie {
            orders.push([pruners[0], pruners[2], pruners[1]]);
        }
        if first_tie && second_tie {
            orders.push([pruners[1], pruners[2], pruners[0]]);
            orders.push([pruners[2], pruners[0], pruners[1]]);
            orders.push([pruners[2], pruners[1], pruners[0]]);
        }
        for order in &orders {
            key = key.min(self.key_in_order(writers, *order));
        }
        if writers_tie {
            orders.push(pruners);
            for order in &orders {
                key = key.min(self.key_in_order([1, 0], *order));
            }
        }
        key
    }

    fn key_in_order(&self, writers: [usize; WRITER_MAX], pruners: [usize; PRUNER_MAX]) -> u128 {
        let mut packs = [0_u32; PACK_MAX];
        for (pack, content) in packs.iter_mut().zip(self.content) {
            *pack = u32::from(content);
        }
        let mut column = 6;
        let mut mark = |set: Packs| {
            places(set).for_each(|place| packs[place] |= 1 << column);
            column += 1;
        };
        mark(self.there);
        for writer in writers.map(|i| &self.writers[i]) {
            mark(writer.retired);
            mark(writer.seen);
            mark(writer.half.packs);
        }
        for pruner in pruners.map(|i| &self.pruners[i]) {
            mark(pruner.list);
            mark(pruner.retired);
            mark(pruner.seen);
            mark(pruner.half.packs);
        }
        mark(self.reader.known);
        mark(self.reader.half.packs);
        packs.sort_unstable();

        let renamed = |names: Names| {
            let mut out = names & !0b11111;
            for (to, from) in writers.iter().enumerate() {
                out |= if names & name_of_writer(*from) == 0 { 0 } else { name_of_writer(to) };
            }
            for (to, from) in pruners.iter().enumerate() {
                out |= if names & name_of_pruner(*from) == 0 { 0 } else { name_of_pruner(to) };
            }
            out
        };
        // 64 bytes are one block of BLAKE3.
        let mut bytes = [0_u8; 64];
        for (four, pack) in bytes.chunks_exact_mut(4).zip(packs) {
            four.copy_from_slice(&pack.to_le_bytes());
        }
        let mut at = 4 * PACK_MAX;
        let mut push = |byte: u8| {
            bytes[at] = byte;
            at += 1;
        };
        push(self.earlier.iter().fold(0, |bits, snapshot| bits << 2 | *snapshot as u8));
        push(writers.iter().fold(0, |bits, i| bits << 2 | self.written[*i] as u8));
        for writer in writers.map(|i| &self.writers[i]) {
            push(writer.at as u8 | u8::from(writer.anchor) << 7 | u8::from(writer.half.begun) << 6);
            push(writer.missing);
            push(writer.kept);
            push(renamed(writer.half.names));
        }
        for pruner in pruners.map(|i| &self.pruners[i]) {
            push(pruner.at as u8 | u8::from(pruner.anchor) << 7 | u8::from(pruner.half.begun) << 6);
            push(u8::from(pruner.list_there) | pruner.adopted << 1);
            push(pruner.needed | pruner.missing << 3);
            push(pruner.kept);
            // Never both: it lists before it waits, and again after.
            push(renamed(pruner.waits | pruner.half.names));
        }
        push(self.reader.at as u8 | self.reader.misses << 3 | u8::from(self.reader.half.begun) << 7);
        push(renamed(self.reader.name));
        push(self.reader.left);
        let hash = blake3::hash(&bytes);
        u128::from_le_bytes(hash.as_bytes()[..16].try_into().expect("cannot fail because 16 bytes are 16 bytes"))
    }
}

impl Writer {
    fn rank(&self) -> (WriterAt, bool, Chunks, Frames) {
        (self.at, self.anchor, self.missing, self.kept)
    }
}

impl Pruner {
    fn rank(&self) -> (PrunerAt, bool, bool, Chunks, Chunks, Frames) {
        (self.at, self.anchor, self.list_there, self.needed, self.missing, self.kept)
    }
}

/// The members of a set of packs.
pub fn places(packs: Packs) -> impl Iterator<Item = usize> {
    (0..PACK_MAX).filter(move |place| packs & (1 << place) != 0)
}
