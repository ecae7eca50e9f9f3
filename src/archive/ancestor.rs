//! What lay where a chunk lies now: aligns a stream, while it is cut, with the pieces of its older version.
//!
//! Chunks that did not change are anchors. Between them the distance of the two versions is followed along cuts that agree:
//! cut points depend on the content around them, so most survive a change elsewhere in the chunk. What comes of a chunk tells
//! more, but late: others have been cut meanwhile. So where each lies is reckoned again whenever one before it is found.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use super::content::Leaves;
use super::entry::{Content, Piece};
use crate::error::Result;
use crate::id::ChunkId;
use crate::pipeline::lock;
use crate::store::{Alignment, ChunkSource, Older, Outcome};

/// Pieces ahead of where the stream is that are known: it may have lost so much.
const AHEAD_COUNT: usize = 1024;
/// Pieces behind that are kept: it may have gained so much, and chunks wait to be stored.
const BEHIND_COUNT: usize = 1024;
/// Chunks of the new version that are remembered.
const STEP_COUNT: usize = 1024;
/// Pieces that are given for one chunk at most.
const OLDER_COUNT_MAX: usize = 4;
/// Cuts of both versions are taken for the same one when they are off by no more than this ...
const TOLERANCE: u64 = 1024;
/// ... and one byte in so many since the last such cut, ...
const TOLERANCE_SHARE: u64 = 16;
/// ... but never more than this.
const TOLERANCE_MAX: u64 = 32 << 10;
/// Where nothing was found in what was expected, the stream may have got bytes that the older version has not, and is
/// expected to go on with one of so many pieces behind the last proof.
const LOST_COUNT: usize = 3;
/// As long as cuts don't agree, the distance is off by one byte in so many since they last did ...
const DOUBT_SHARE: u64 = 12;
/// ... but by no more than this.
const DOUBT_MAX: u64 = 384 << 10;
/// Of a piece that reaches into a chunk's place by less than one part in so many of the chunk, ...
const OVERLAP_SHARE: u64 = 16;
/// ... or less than this, nothing is expected.
const OVERLAP_LEN: u64 = 8 << 10;

/// The older version of one stream, and how far the new one has come.
pub struct Ancestor<'s> {
    rest: Option<Box<dyn Iterator<Item = Result<Piece>> + 's>>,
    course: Arc<Mutex<Course>>,
}

impl<'s> Ancestor<'s> {
    /// The older version has this content.
    #[must_use]
    pub fn new(chunks: &'s dyn ChunkSource, content: &Content) -> Self {
        Self::of(Box::new(Leaves::new(chunks, content)))
    }

    /// The same, for contents whose pieces are in their entry; about others it knows nothing.
    #[must_use]
    pub fn of_short(content: &Content) -> Self {
        let pieces = if content.depth == 0 { content.pieces.clone() } else { Vec::new() };
        Self::of(Box::new(pieces.into_iter().map(Ok)))
    }

    fn of(pieces: Box<dyn Iterator<Item = Result<Piece>> + 's>) -> Self {
        Self { rest: Some(pieces), course: Arc::default() }
    }

    /// Passes over bytes that are not stored: a hole.
    pub fn skip(&mut self, len: u64) {
        lock(&self.course).at += len;
    }

    /// Takes in the next chunk of the new version. What it gives knows what lay there in the older one, better and better.
    pub fn place(&mut self, id: &ChunkId, len: u64) -> Older {
        let mut course = lock(&self.course);
        course.load(&mut self.rest);
        if course.push(*id, len) { Older::default() } else { Older::Aligned(self.course.clone()) }
    }

    /// The same, and what is known of it at once: the pieces of the older version that lay where the chunk lies; none if it is
    /// one of them.
    pub fn older(&mut self, id: &ChunkId, len: u64) -> Vec<ChunkId> {
        self.place(id, len).ids(id)
    }
}

/// A piece of the older version.
#[derive(Debug)]
struct Old {
    id: Option<ChunkId>,
    start: u64,
    len: u64,
}

impl Old {
    fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// What is known of the distance of the two versions at one place.
#[derive(Debug, Clone, Copy, Default)]
struct Position {
    /// How much further back the older version is at the same content.
    drift: i64,
    /// Where in the new version the two were last seen to agree.
    snapped: u64,
    /// Where in the older version they are proven to be the same.
    proven: u64,
    /// Nothing was found since.
    lost: bool,
}

impl Position {
    fn expected(&self, at: u64) -> u64 {
        at.saturating_add_signed(self.drift)
    }

    /// By how much that may be wrong.
    fn doubt(&self, at: u64) -> u64 {
        (at.saturating_sub(self.snapped) / DOUBT_SHARE).min(DOUBT_MAX)
    }
}

/// What came of a chunk.
#[derive(Debug, Clone, Copy)]
enum Found {
    /// Not known yet.
    Later,
    /// The older version has nothing like it where it was looked for.
    Nothing,
    /// So much further back it lies there.
    At(i64),
}

/// A chunk of the new version.
#[derive(Debug)]
struct Step {
    id: ChunkId,
    start: u64,
    len: u64,
    /// Its place in the older version, which has it too.
    anchor: Option<u64>,
    found: Found,
    /// What is known where it begins, and where it ends.
    before: Position,
    behind: Position,
}

/// Where two versions of a stream lie beside each other.
#[derive(Debug, Default)]
struct Course {
    window: VecDeque<Old>,
    /// Number of the first piece of the window.
    first: u64,
    numbers: HashMap<ChunkId, u64>,
    /// Length of the new version so far.
    at: u64,
    /// What is known there.
    position: Position,
    steps: VecDeque<Step>,
}

impl Course {
    /// The next chunk of the new version; whether the older one has it too.
    fn push(&mut self, id: ChunkId, len: u64) -> bool {
        let anchor = self.numbers.get(&id).and_then(|number| self.numbered(*number)).map(|old| old.start);
        let before = self.position;
        let mut step = Step { id, start: self.at, len, anchor, found: Found::Later, before, behind: before };
        self.at += len;
        step.behind = self.behind(&step);
        self.position = step.behind;
        if self.steps.len() == STEP_COUNT {
            self.steps.pop_front();
        }
        self.steps.push_back(step);
        anchor.is_some()
    }

    /// What is known behind a chunk by what is known before it.
    fn behind(&self, step: &Step) -> Position {
        let end = step.start + step.len;
        if let Some(old) = step.anchor {
            return Position { drift: distance(old, step.start), snapped: end, proven: old + step.len, lost: false };
        }
        let mut position = step.before;
        match step.found {
            Found::Later => {}
            Found::Nothing => position.lost = true,
            Found::At(drift) => {
                let proven = step.start.saturating_add_signed(drift);
                position = Position { drift, snapped: position.snapped.max(step.start), proven, lost: false };
            }
        }
        self.snap(&mut position, end);
        position
    }

    /// If a chunk that ends here ends about where a piece ended, it ended there.
    fn snap(&self, position: &mut Position, end: u64) {
        let expected = position.expected(end);
        let tolerance = (TOLERANCE + (end - position.snapped) / TOLERANCE_SHARE).min(TOLERANCE_MAX);
        let next = self.window.partition_point(|old| old.end() < expected);
        let near = [next.checked_sub(1), Some(next)].into_iter().flatten().filter_map(|n| self.window.get(n));
        let nearest = near.map(Old::end).min_by_key(|end| end.abs_diff(expected));
        if let Some(old_end) = nearest.filter(|old_end| old_end.abs_diff(expected) <= tolerance) {
            position.drift = distance(old_end, end);
            position.snapped = end;
        }
    }

    /// Reckons again what is known behind the chunk `n`, up to the next one that the older version has too.
    fn follow(&mut self, n: usize) {
        let mut before = None;
        for n in n..self.steps.len() {
            let step = &mut self.steps[n];
            if let Some(before) = before {
                if step.anchor.is_some() {
                    return;
                }
                step.before = before;
            }
            let behind = self.behind(&self.steps[n]);
            self.steps[n].behind = behind;
            before = Some(behind);
        }
        self.position = before.unwrap_or(self.position);
    }

    fn numbered(&self, number: u64) -> Option<&Old> {
        self.window.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn older(&self, step: &Step) -> Vec<ChunkId> {
        let end = step.start + step.len;
        let (expected_start, before) = (step.before.expected(step.start), step.before.doubt(step.start));
        let (expected_end, behind) = (step.behind.expected(end), step.behind.doubt(end));
        let slack = (step.len / OVERLAP_SHARE).min(OVERLAP_LEN);
        let first = self.window.partition_point(|old| old.end() + before <= expected_start + slack);
        let overlapping = self.window.range(first..).take_while(|old| old.start + slack < expected_end + behind);
        let mut older: Vec<ChunkId> = overlapping.filter_map(|old| old.id).take(OLDER_COUNT_MAX).collect();
        if step.before.lost {
            let first = self.window.partition_point(|old| old.end() <= step.before.proven);
            for id in self.window.range(first..).filter_map(|old| old.id).take(LOST_COUNT) {
                if !older.contains(&id) {
                    older.push(id);
                }
            }
        }
        older
    }

    /// Moves the window to where the older version is now.
    fn load(&mut self, rest: &mut Option<Box<dyn Iterator<Item = Result<Piece>> + '_>>) {
        let expected = self.position.expected(self.at);
        let mut here = self.window.partition_point(|old| old.end() <= expected);
        while self.window.len() < here + AHEAD_COUNT {
            // What can't be read any more is no base either.
            let Some(piece) = rest.as_mut().and_then(Iterator::next).and_then(Result::ok) else {
                *rest = None;
                break;
            };
            let start = self.window.back().map_or(0, Old::end);
            let id = (!piece.is_hole()).then_some(piece.id);
            if let Some(id) = id {
                self.numbers.entry(id).or_insert(self.first + self.window.len() as u64);
            }
            if start + piece.len <= expected {
                here += 1;
            }
            self.window.push_back(Old { id, start, len: piece.len });
        }
        while here > BEHIND_COUNT && self.window.len() > 1 {
            let Some(gone) = self.window.pop_front() else { break };
            if let Some(id) = gone.id.filter(|id| self.numbers.get(id) == Some(&self.first)) {
                self.numbers.remove(&id);
            }
            self.first += 1;
            here -= 1;
        }
    }
}

impl Alignment for Mutex<Course> {
    fn older(&self, new: &ChunkId) -> Vec<ChunkId> {
        let course = lock(self);
        let step = course.steps.iter().rev().find(|step| step.id == *new);
        step.map(|step| course.older(step)).unwrap_or_default()
    }

    fn learn(&self, outcome: &Outcome) {
        let mut course = lock(self);
        let Some(n) = course.steps.iter().rposition(|step| step.id == outcome.new) else { return };
        let mut found = Found::Nothing;
        if let Some((old, shift)) = outcome.aligned {
            // From a base that lay elsewhere nothing is learned.
            let Some(old) = course.numbers.get(&old).and_then(|number| course.numbered(*number)) else { return };
            found = Found::At(distance(old.start, course.steps[n].start) + shift);
        }
        course.steps[n].found = found;
        course.follow(n);
    }
}

fn distance(old: u64, new: u64) -> i64 {
    old.cast_signed() - new.cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> ChunkId {
        // All zeros is a hole.
        let mut bytes = [1; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        ChunkId::from_bytes(bytes)
    }

    fn ancestor(lens: impl Iterator<Item = u64>) -> Ancestor<'static> {
        let pieces: Vec<_> = (0..).zip(lens).map(|(n, len)| Ok(Piece { id: id(n), len })).collect();
        Ancestor::of(Box::new(pieces.into_iter()))
    }

    const NEW: u32 = 1 << 20;

    fn lens(count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(|n| 100_000 + n * 7919 % 150_000)
    }

    #[test]
    fn a_stream_that_changed_everywhere_is_followed_from_cut_to_cut() {
        let mut ancestor = ancestor(lens(2000));
        for (n, len) in (0..).zip(lens(2000)) {
            // Each chunk loses or gains a little, more in all than any slack.
            let older = ancestor.older(&id(NEW + n), len + 500);
            assert!(older.contains(&id(n)) && older.len() <= 2, "{n}: {older:?}");
        }
    }

    #[test]
    fn a_cut_that_moved_gives_both_neighbours() {
        let mut ancestor = ancestor([100_000; 6].into_iter());
        assert_eq!(ancestor.older(&id(0), 100_000), []);
        assert_eq!(ancestor.older(&id(NEW), 150_000), [id(1), id(2)]);
        // It ends where the third piece ended, so what follows is certain again.
        assert_eq!(ancestor.older(&id(NEW + 1), 50_100), [id(2)]);
        assert_eq!(ancestor.older(&id(NEW + 2), 100_000), [id(3)]);
    }

    #[test]
    fn after_what_is_new_a_match_shows_the_way_back() {
        let mut ancestor = ancestor(lens(100));
        for (n, len) in (0..).zip(lens(10)) {
            assert_eq!(ancestor.older(&id(n), len), []);
        }
        for n in 0..20 {
            ancestor.older(&id(NEW + n), 170_000);
        }
        let mut rest = (0..).zip(lens(100)).skip(10);
        let (_, len) = rest.next().expect("a piece");
        ancestor.older(&id(NEW + 30), len + 10);
        ancestor.course.learn(&Outcome { new: id(NEW + 30), aligned: Some((id(10), 0)) });
        for (n, len) in rest.take(50) {
            assert_eq!(ancestor.older(&id(NEW + 100 + n), len), [id(n)]);
        }
    }

    #[test]
    fn what_is_learned_late_moves_what_was_placed_meanwhile() {
        let mut ancestor = ancestor(lens(100));
        for (n, len) in (0..).zip(lens(10)) {
            assert_eq!(ancestor.older(&id(n), len), []);
        }
        // Bytes that the older version has not, and behind them all of it, a little changed.
        ancestor.older(&id(NEW), 3_000_000);
        let rest: Vec<(u32, u64)> = (0..).zip(lens(100)).skip(10).take(30).collect();
        let placed: Vec<Older> = rest.iter().map(|(n, len)| ancestor.place(&id(NEW + n), len + 10)).collect();
        let told = |n: usize| placed[n].ids(&id(NEW + rest[n].0));
        assert!(!told(20).contains(&id(30)));
        ancestor.course.learn(&Outcome { new: id(NEW), aligned: None });
        assert!(told(0).contains(&id(10)));
        ancestor.course.learn(&Outcome { new: id(NEW + 10), aligned: Some((id(10), 0)) });
        for n in 1..30 {
            assert_eq!(told(n), [id(10 + u32::try_from(n).expect("small"))]);
        }
    }

    #[test]
    fn nothing_that_is_learned_moves_what_lies_behind_an_anchor() {
        let mut ancestor = ancestor(lens(100));
        ancestor.older(&id(NEW), 150_000);
        let mut rest = (0..).zip(lens(100)).skip(1);
        let (n, len) = rest.next().expect("a piece");
        assert_eq!(ancestor.older(&id(n), len), []);
        let (n, len) = rest.next().expect("a piece");
        let behind = ancestor.place(&id(NEW + n), len + 5);
        ancestor.course.learn(&Outcome { new: id(NEW), aligned: Some((id(40), 0)) });
        ancestor.course.learn(&Outcome { new: id(NEW), aligned: None });
        assert_eq!(behind.ids(&id(NEW + n)), [id(n)]);
    }

    #[test]
    fn anchors_far_ahead_are_found_and_memory_stays_bounded() {
        let mut ancestor = ancestor(lens(20_000));
        for (n, len) in (0..).zip(lens(20_000)).filter(|(n, _)| n % 1000 < 300) {
            ancestor.older(&id(n), len);
            let course = lock(&ancestor.course);
            assert!(course.window.len() <= AHEAD_COUNT + BEHIND_COUNT + 1, "{}", course.window.len());
            assert!(course.numbers.len() <= course.window.len());
            assert!(course.steps.len() <= STEP_COUNT);
            assert_eq!(course.position.snapped, course.at, "{n}");
        }
    }
}
