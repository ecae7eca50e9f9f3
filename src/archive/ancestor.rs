//! What lay where a chunk lies now: aligns a stream, while it is cut, with the pieces of its older version.
//!
//! Chunks that did not change are anchors. Between them the distance of the two versions is followed along cuts that agree:
//! cut points depend on the content around them, so most survive a change elsewhere in the chunk.

use std::collections::{HashMap, VecDeque};

use super::content::Leaves;
use super::entry::{Content, Piece};
use crate::error::Result;
use crate::id::ChunkId;
use crate::store::{ChunkSource, Outcome};

/// Pieces ahead of where the stream is that are known: it may have lost so much.
const AHEAD_COUNT: usize = 1024;
/// Pieces behind that are kept: it may have gained so much.
const BEHIND_COUNT: usize = 256;
/// Chunks of the new version that are remembered for [`Ancestor::learn`].
const RECENT_COUNT: usize = 1024;
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

/// A piece of the older version.
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

/// The older version of one stream, and how far the new one has come.
pub struct Ancestor<'s> {
    rest: Option<Box<dyn Iterator<Item = Result<Piece>> + 's>>,
    window: VecDeque<Old>,
    /// Number of the first piece of the window.
    first: u64,
    numbers: HashMap<ChunkId, u64>,
    /// Length of the new version so far.
    at: u64,
    /// How much further back the older version is at the same content.
    drift: i64,
    /// Where in the new version the two were last seen to have a cut in common.
    snapped: u64,
    /// Where in the new version, and where in the older one, they are proven to be the same.
    proven: (u64, u64),
    /// Nothing was found since.
    lost: bool,
    recent: VecDeque<Recent>,
}

/// A chunk of the new version, and where it was expected.
struct Recent {
    id: ChunkId,
    start: u64,
    drift: i64,
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
        Self {
            rest: Some(pieces),
            window: VecDeque::new(),
            first: 0,
            numbers: HashMap::new(),
            at: 0,
            drift: 0,
            snapped: 0,
            proven: (0, 0),
            lost: false,
            recent: VecDeque::new(),
        }
    }

    /// Passes over bytes that are not stored: a hole.
    pub fn skip(&mut self, len: u64) {
        self.at += len;
    }

    /// The pieces of the older version that lay where the next chunk of the new one lies; none if it is one of them.
    pub fn older(&mut self, id: &ChunkId, len: u64) -> Vec<ChunkId> {
        let start = self.at;
        self.at += len;
        self.load(self.expected(start));
        if let Some(old) = self.numbers.get(id).and_then(|number| self.numbered(*number)) {
            let proven = (self.at, old.end());
            self.drift = distance(old.start, start);
            self.snapped = self.at;
            self.proven = proven;
            self.lost = false;
            return Vec::new();
        }
        if self.recent.len() == RECENT_COUNT {
            self.recent.pop_front();
        }
        self.recent.push_back(Recent { id: *id, start, drift: self.drift });
        // The start comes first: the end may move the drift.
        let expected_start = self.expected(start);
        let before = ((start - self.snapped) / DOUBT_SHARE).min(DOUBT_MAX);
        self.snap();
        let expected_end = self.expected(self.at);
        let behind = ((self.at - self.snapped) / DOUBT_SHARE).min(DOUBT_MAX);
        let slack = (len / OVERLAP_SHARE).min(OVERLAP_LEN);
        let first = self.window.partition_point(|old| old.end() + before <= expected_start + slack);
        let overlapping = self.window.range(first..).take_while(|old| old.start + slack < expected_end + behind);
        let mut older: Vec<ChunkId> = overlapping.filter_map(|old| old.id).take(OLDER_COUNT_MAX).collect();
        if self.lost {
            let first = self.window.partition_point(|old| old.end() <= self.proven.1);
            for id in self.window.range(first..).filter_map(|old| old.id).take(LOST_COUNT) {
                if !older.contains(&id) {
                    older.push(id);
                }
            }
        }
        older
    }

    /// Takes in what came of the chunks that were given: where the alignment was lost, it is found again.
    pub fn learn(&mut self, outcomes: &[Outcome]) {
        for outcome in outcomes {
            let is_it = |recent: &Recent| recent.id == outcome.new && recent.start >= self.proven.0;
            let Some(n) = self.recent.iter().position(is_it) else { continue };
            let Some((old, shift)) = outcome.aligned else {
                self.lost = true;
                continue;
            };
            let Some(old) = self.numbers.get(&old).and_then(|number| self.numbered(*number)) else { continue };
            let recent = &self.recent[n];
            let drift = distance(old.start, recent.start) + shift;
            self.lost = false;
            self.proven = (recent.start, recent.start.saturating_add_signed(drift));
            // What was seen of cuts since then remains as good as it was.
            let correction = drift - recent.drift;
            self.drift += correction;
            for later in self.recent.iter_mut().skip(n) {
                later.drift += correction;
            }
        }
    }

    fn expected(&self, at: u64) -> u64 {
        at.saturating_add_signed(self.drift)
    }

    fn numbered(&self, number: u64) -> Option<&Old> {
        self.window.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// If the chunk that ends now ends about where a piece ended, it ended there.
    fn snap(&mut self) {
        let expected = self.expected(self.at);
        let tolerance = (TOLERANCE + (self.at - self.snapped) / TOLERANCE_SHARE).min(TOLERANCE_MAX);
        let next = self.window.partition_point(|old| old.end() < expected);
        let near = [next.checked_sub(1), Some(next)].into_iter().flatten().filter_map(|n| self.window.get(n));
        let nearest = near.map(Old::end).min_by_key(|end| end.abs_diff(expected));
        if let Some(end) = nearest.filter(|end| end.abs_diff(expected) <= tolerance) {
            self.drift = distance(end, self.at);
            self.snapped = self.at;
        }
    }

    /// Moves the window to where the older version is at `expected`.
    fn load(&mut self, expected: u64) {
        let mut here = self.window.partition_point(|old| old.end() <= expected);
        while self.window.len() < here + AHEAD_COUNT {
            // What can't be read any more is no base either.
            let Some(piece) = self.rest.as_mut().and_then(Iterator::next).and_then(Result::ok) else {
                self.rest = None;
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
        ancestor.learn(&[Outcome { new: id(NEW + 30), aligned: Some((id(10), 0)) }]);
        for (n, len) in rest.take(50) {
            assert_eq!(ancestor.older(&id(NEW + 100 + n), len), [id(n)]);
        }
    }

    #[test]
    fn anchors_far_ahead_are_found_and_memory_stays_bounded() {
        let mut ancestor = ancestor(lens(20_000));
        for (n, len) in (0..).zip(lens(20_000)).filter(|(n, _)| n % 1000 < 300) {
            ancestor.older(&id(n), len);
            assert!(ancestor.window.len() <= AHEAD_COUNT + BEHIND_COUNT + 1, "{}", ancestor.window.len());
            assert!(ancestor.numbers.len() <= ancestor.window.len());
            assert_eq!(ancestor.proven.0, ancestor.at, "{n}");
        }
    }
}
