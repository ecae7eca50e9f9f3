//! Where the text has been before: chains of equal hashes, as compressors keep them.
#![expect(clippy::inline_always, reason = "the loops over candidates are slower by a tenth otherwise")]

use super::hash::{HASH_COUNT, Hash, LibdeflateShort};
use super::parameters::{Added, Algorithm, CHAIN_LEN_MAX, Lazy, Parameters, Strategy};
use super::predictor::Match;

/// Lengths of matches.
pub const MATCH_LEN_MIN: u32 = 3;
pub const MATCH_LEN_MAX: u32 = 258;
/// zlib keeps so much of its window free, so that no match gets over its end.
pub const WINDOW_FREE_LEN: u32 = 262;
const WINDOW_BITS_MAX: u32 = 15;
pub const LINK_COUNT: usize = 1 << WINDOW_BITS_MAX;
const LINK_MASK: u32 = (1 << WINDOW_BITS_MAX) - 1;
/// Where the text begins: so many zeros stand before it, so that the position 0, which is none, is farther away than any match.
pub const START: u32 = 1 << 16;
/// The tables of the format have 16 bits for a position: each time one gets here ...
const SHIFT_FROM: u32 = 0xfe08;
/// ... all are made so much less, and those below are forgotten. Not less than a window, so it shows in one place only.
const SHIFT: u32 = 0x7e00;
/// The start is 8 at first.
const SHIFT_START: u32 = 8;
/// Zeros behind the text, so that words can be read to its end.
const PADDING_LEN: usize = 8;
/// Candidates for a byte of text, and for any text: twice what the format asks for (RFL-10), because those that `long` finds may be looked at twice.
/// The most that any of two thousand honest pieces took was 48.
const CANDIDATES_PER_BYTE: u64 = 1024;
const CANDIDATES_ALWAYS: u64 = 1 << 21;

/// The candidates that may be looked at for so many bytes of text.
pub fn candidates_max(len: usize) -> u64 {
    CANDIDATES_ALWAYS + CANDIDATES_PER_BYTE * len as u64
}

/// The text, and the chains of all that was added of it.
pub struct Chains<H> {
    hash: H,
    /// From [`START`] on the dictionary and the plain bytes; padding before and behind them.
    text: Vec<u8>,
    text_end: u32,
    /// The last position of each hash.
    heads: Box<[u32; HASH_COUNT]>,
    /// Of each position of the window how far before it the one with the same hash is; 65,535 for farther than that.
    links: Box<[u16; LINK_COUNT]>,
    /// The last position of each hash of three bytes, where that is looked at first.
    short_heads: Box<[u32; HASH_COUNT]>,
    /// Where many candidates are looked at: a shortcut to those that have five bytes in common.
    long: Option<LongChains>,
    /// What is before is forgotten by `short_heads`.
    shifted: u32,
    added: Added,
    is_empty: bool,
    reach: Reach,
    nice_len: u32,
    /// How many more candidates may be looked at.
    effort: u64,
}

/// How far back matches are looked for.
struct Reach {
    window_len: u32,
    is_to_start: bool,
    strategy: Option<Strategy>,
}

impl Reach {
    fn new(parameters: &Parameters) -> Self {
        let strategy = (!parameters.reaches_far).then_some(parameters.strategy);
        Self {
            window_len: 1 << parameters.window_bits.min(WINDOW_BITS_MAX),
            is_to_start: parameters.reaches_start,
            strategy,
        }
    }

    /// The greatest distance at `start` of the first candidate and of all others.
    fn at(&self, start: u32) -> Option<(u32, u32)> {
        let to_start = start.checked_sub(if self.is_to_start { START } else { START + 1 })?;
        match self.strategy {
            None => Some((to_start.min(self.window_len), to_start.min(self.window_len))),
            Some(Strategy::Default) => {
                let free = self.window_len.checked_sub(WINDOW_FREE_LEN)?;
                Some((to_start.min(free + 1), to_start.min(free)))
            }
            Some(Strategy::Runs) => Some((1, 1)),
            Some(Strategy::HuffmanOnly | Strategy::Store) => None,
        }
    }
}

fn zeros<T: Clone + Default, const N: usize>() -> Option<Box<[T; N]>> {
    vec![T::default(); N].into_boxed_slice().try_into().ok()
}

impl<H: Hash> Chains<H> {
    /// Of a text in parts, at which so many candidates may be looked. None if it is too long.
    pub fn new(hash: H, parameters: &Parameters, parts: &[&[u8]], effort: u64) -> Option<Self> {
        let mut text =
            Vec::with_capacity(START as usize + parts.iter().map(|part| part.len()).sum::<usize>() + PADDING_LEN);
        text.resize(START as usize, 0);
        for part in parts {
            text.extend_from_slice(part);
        }
        let text_end = u32::try_from(text.len()).ok().filter(|end| *end < u32::MAX / 2)?;
        text.resize(text.len() + PADDING_LEN, 0);
        let is_thorough = parameters.lazy != Lazy::Never && parameters.chain_len_max >= LONG_FROM;
        let is_long = is_thorough && !H::HAS_SHORT;
        Some(Self {
            hash,
            text,
            text_end,
            heads: zeros()?,
            links: zeros()?,
            short_heads: zeros()?,
            long: if is_long { Some(LongChains::new()?) } else { None },
            shifted: 0,
            added: parameters.added,
            is_empty: parameters.algorithm == Algorithm::None,
            reach: Reach::new(parameters),
            nice_len: parameters.nice_len,
            effort,
        })
    }

    /// Where the text ends.
    pub fn end(&self) -> u32 {
        self.text_end
    }

    pub fn text(&self, from: u32, to: u32) -> &[u8] {
        self.text.get(from as usize..to as usize).unwrap_or_default()
    }

    pub fn byte(&self, at: u32) -> u8 {
        self.text.get(at as usize).copied().unwrap_or_default()
    }

    /// Whether as many candidates were looked at as may be.
    pub fn is_exhausted(&self) -> bool {
        self.effort == 0
    }

    /// Adds what is to be added of a literal or a match at `at`.
    #[inline]
    pub fn add(&mut self, at: u32, len: u32) {
        if self.is_empty {
            return;
        }
        match self.added {
            Added::FirstExceptNear4K if is_near_4k(at) => {}
            Added::All => self.add_all(at, len),
            Added::First(len_max) | Added::FirstAndLast(len_max) if len <= len_max => self.add_all(at, len),
            Added::FirstAndLast(_) if len > 1 => self.add_first_and_last(at, len),
            Added::FirstAndLastOf32K if len > 1 && crosses_32k(at, len) => self.add_first_and_last(at, len),
            _ => self.add_all(at, 1),
        }
    }

    fn add_first_and_last(&mut self, at: u32, len: u32) {
        self.add_all(at, 1);
        self.add_all(at + len - 1, 1);
    }

    #[inline]
    fn add_all(&mut self, at: u32, len: u32) {
        if H::HAS_SHORT {
            self.add_short(at, len);
        }
        // Nothing is hashed beyond the end.
        let end = (at + len).min((self.text_end + 1).saturating_sub(H::LEN));
        for position in at..end {
            let head = &mut self.heads[self.hash.of(word(&self.text, position)) % HASH_COUNT];
            let before = std::mem::replace(head, position);
            self.links[(position & LINK_MASK) as usize] = u16::try_from(position - before).unwrap_or(u16::MAX);
            if let Some(long) = &mut self.long {
                long.add(position, before, long_word(&self.text, position));
            }
        }
    }

    fn add_short(&mut self, at: u32, len: u32) {
        if at - START + SHIFT_START - self.shifted >= SHIFT_FROM {
            self.shifted += SHIFT;
        }
        let end = (at + len).min((self.text_end + 1).saturating_sub(LibdeflateShort::LEN));
        for position in at..end {
            self.short_heads[LibdeflateShort.of(word(&self.text, position)) % HASH_COUNT] = position;
        }
    }

    /// The candidate that is looked at before the chain at `at`, and the first one of the chain.
    #[inline(always)]
    fn first<const AHEAD: u32>(&self, at: u32) -> (Option<u32>, u32) {
        let hash = self.hash.of(word(&self.text, at + AHEAD)) % HASH_COUNT;
        let first = if AHEAD > 0 {
            // The position before this one isn't in its chain yet.
            (self.hash.of(word(&self.text, at)) % HASH_COUNT == hash).then_some(at)
        } else if H::HAS_SHORT {
            let short = self.short_heads[LibdeflateShort.of(word(&self.text, at)) % HASH_COUNT];
            Some(short).filter(|short| *short > 0 && short - START + SHIFT_START > self.shifted)
        } else {
            None
        };
        (first, self.heads[hash])
    }

    /// The one behind it in its chain, or some position that is farther away than any match.
    #[inline(always)]
    fn next(&self, position: u32) -> u32 {
        position - u32::from(self.links[(position & LINK_MASK) as usize])
    }

    /// The first of the longest matches at `at` + `AHEAD`, 0 or 1, among so many candidates, if any is longer than `other_len`.
    #[inline(never)]
    pub fn longest<const AHEAD: u32>(&mut self, at: u32, other_len: u32, candidates: u32) -> Option<Match> {
        let start = at + AHEAD;
        let len_max = self.text_end.checked_sub(start)?.min(MATCH_LEN_MAX);
        let is_none = len_max <= other_len || len_max < H::LEN.max(MATCH_LEN_MIN) || candidates == 0;
        if self.is_empty || self.is_exhausted() || is_none {
            return None;
        }
        let (farthest, farthest_next) = self.reach.at(start)?;
        let nice_len = self.nice_len.min(len_max);
        let mut search = Search {
            text: &self.text,
            start,
            len_max,
            nice_len,
            filter: Filter::new(&self.text, start, other_len.max(1)),
            found: Match { len: other_len.max(1), distance: 0 },
        };
        let (first, mut position) = self.first::<AHEAD>(at);
        let mut lowest = start - farthest;
        let lowest_next = start - farthest_next;
        let mut left = candidates;
        let mut is_done = false;
        if let Some(first) = first {
            is_done = first < lowest || search.ends_with(first, search.len_at(first));
            lowest = lowest_next;
            left -= 1;
        }
        let mut steps = 0;
        if let Some(long) = self.long.as_ref().filter(|_| !is_done && nice_len >= LONG_LEN) {
            steps = long.search(&mut search, position, left, lowest, lowest_next);
            is_done = other_len + 1 >= LONG_LEN || search.found.len >= LONG_LEN;
            // What is that long was found.
            search.nice_len = search.nice_len.min(LONG_LEN - 1);
        }
        let left_before = left;
        if !is_done && left > 0 {
            while position >= lowest {
                lowest = lowest_next;
                if search.filter.passes(&self.text, position) && search.ends_with(position, search.len_at(position)) {
                    break;
                }
                left -= 1;
                if left == 0 {
                    break;
                }
                position = self.next(position);
            }
        }
        steps += left_before - left;
        let found = search.found;
        self.effort = self.effort.saturating_sub(u64::from(steps));
        (found.distance > 0).then_some(found)
    }

    /// The candidates at `at`: none that is too far away, or behind one that is.
    fn candidates(&self, at: u32) -> impl Iterator<Item = u32> {
        let lowest = at - (at - START).min(self.reach.window_len);
        let is_near = move |position: &u32| *position >= lowest;
        let (first, head) = self.first::<0>(at);
        let head = Some(head).filter(|head| first.as_ref().is_none_or(is_near) && is_near(head));
        let chain = std::iter::successors(head, move |position| Some(self.next(*position)).filter(is_near));
        first.filter(is_near).into_iter().chain(chain)
    }

    /// The first candidate at `at` that is it, as long as there is effort left.
    fn find(&mut self, at: u32, mut is_it: impl FnMut(&Self, u32) -> bool) -> Option<u32> {
        if self.is_empty || self.text_end.checked_sub(at)? < H::LEN {
            return None;
        }
        let mut effort = self.effort;
        let mut candidates = self.candidates(at).take_while(|_| {
            let is_left = effort > 0;
            effort -= u64::from(is_left);
            is_left
        });
        let found = candidates.find(|position| is_it(self, *position));
        drop(candidates);
        self.effort = effort;
        found
    }

    /// Whether there are `len` bytes at `at`, and these are as many as a match has.
    fn may_match(&self, at: u32, len: u32) -> bool {
        self.text_end.checked_sub(at).is_some_and(|left| (MATCH_LEN_MIN..=left.min(MATCH_LEN_MAX)).contains(&len))
    }

    fn are_equal(&self, a: u32, b: u32, len: u32) -> bool {
        common(from(&self.text, a), from(&self.text, b), len) == len
    }

    /// The distance of the candidate at `at` that is the so many-th one with `len` bytes in common.
    pub fn distance_by_hops(&mut self, at: u32, len: u32, hops: u32) -> Option<u32> {
        if !self.may_match(at, len) {
            return None;
        }
        let mut left = hops;
        let found = self.find(at, |chains, position| {
            left -= u32::from(chains.are_equal(position, at, len));
            left == 0
        });
        Some(at - found?)
    }

    /// The other way: which of the candidates at `at` with `len` bytes in common is so far away, counted from one.
    pub fn hops(&mut self, at: u32, len: u32, distance: u32) -> Option<u32> {
        if !self.may_match(at, len) {
            return None;
        }
        let wanted = at.checked_sub(distance)?;
        let mut hops = 0;
        let found = self.find(at, |chains, position| {
            hops += u32::from(chains.are_equal(position, at, len));
            position == wanted
        });
        found.map(|_| hops).filter(|hops| *hops > 0)
    }

    /// The how many-th candidate at `at` is so far away. None if none is, or more are before it than any compressor looks at.
    pub fn depth(&mut self, at: u32, distance: u32) -> Option<u32> {
        let wanted = at.checked_sub(distance)?;
        let mut depth = 0;
        let found = self.find(at, |_, position| {
            depth += 1;
            position == wanted || depth == CHAIN_LEN_MAX
        });
        (found? == wanted).then_some(depth)
    }
}

/// Where so many candidates are looked at, and most positions twice, chains of those with more bytes in common are worth their tables.
const LONG_FROM: u32 = 64;
const LONG_LEN: u32 = 5;
/// The part of a link that tells where the next one is.
const LINK: u32 = 0xffff;

/// Chains of positions with the same five bytes, which are parts of the chains of three or four; and how far down in those each one is.
struct LongChains {
    heads: Box<[u32; LINK_COUNT]>,
    /// How far before each position the one before it is. Above these 16 bits how many there are in the whole chain up to it: that goes
    /// around, but no two in a window are so far apart.
    links: Box<[u32; LINK_COUNT]>,
}

impl LongChains {
    fn new() -> Option<Self> {
        Some(Self { heads: zeros()?, links: zeros()? })
    }

    fn hash(word: u64) -> usize {
        ((word << 24).wrapping_mul(0x9E37_79B1_85EB_CA87) >> 49) as usize % LINK_COUNT
    }

    #[inline(always)]
    fn add(&mut self, position: u32, before: u32, word: u64) {
        let slot = (position & LINK_MASK) as usize;
        let count = (self.links[(before & LINK_MASK) as usize] & !LINK).wrapping_add(LINK + 1);
        let head = &mut self.heads[Self::hash(word)];
        self.links[slot] = (position - *head).min(LINK) | count;
        *head = position;
    }

    /// Looks at those with five bytes in common among `left` candidates from `chain` on; tells at how many it looked.
    #[inline(never)]
    fn search(&self, search: &mut Search<'_>, chain: u32, left: u32, lowest: u32, lowest_next: u32) -> u32 {
        let mut steps = 0;
        if chain < lowest {
            return steps;
        }
        search.filter = Filter::new(search.text, search.start, search.found.len.max(LONG_LEN - 1));
        let first = Filter::new(search.text, search.start, LONG_LEN - 1);
        let count = self.links[(chain & LINK_MASK) as usize] & !LINK;
        let too_many = u64::from(left) << 16;
        let mut position = self.heads[Self::hash(long_word(search.text, search.start))];
        while position >= lowest_next || position == chain {
            let link = self.links[(position & LINK_MASK) as usize];
            steps += 1;
            if u64::from(count.wrapping_sub(link & !LINK)) >= too_many {
                // It is not in that chain if its hash is the same by chance.
                if first.passes(search.text, position) {
                    break;
                }
            } else if search.filter.passes(search.text, position) && search.ends_with(position, search.len_at(position))
            {
                break;
            }
            position -= link & LINK;
        }
        if search.found.len < LONG_LEN {
            search.filter = Filter::new(search.text, search.start, search.found.len);
        }
        steps
    }
}

/// A search for the longest match.
struct Search<'a> {
    text: &'a [u8],
    start: u32,
    len_max: u32,
    nice_len: u32,
    filter: Filter,
    found: Match,
}

impl Search<'_> {
    /// How long a match with `position` is.
    #[inline(always)]
    fn len_at(&self, position: u32) -> u32 {
        common(from(self.text, position), from(self.text, self.start), self.len_max)
    }

    /// Takes the candidate at `position` if it is longer than what was found; tells whether that is long enough.
    #[inline(always)]
    fn ends_with(&mut self, position: u32, len: u32) -> bool {
        if len <= self.found.len || len < MATCH_LEN_MIN {
            return false;
        }
        self.found = Match { len, distance: self.start - position };
        if len >= self.nice_len || len == self.len_max {
            return true;
        }
        self.filter = Filter::new(self.text, self.start, len);
        false
    }
}

/// Whether it is one of the last three of 4 KiB, of which miniz takes no notice.
pub fn is_near_4k(at: u32) -> bool {
    at % 4096 >= 4093
}

/// Whether a match gets into the last bytes of 32 KiB, where zlib-ng moves its window.
pub fn crosses_32k(at: u32, len: u32) -> bool {
    let limit = 0x8000 - 0x106;
    at % 0x8000 <= limit && (at + len) % 0x8000 >= limit
}

/// The text from `start` on, and padding behind it.
#[inline(always)]
fn from(text: &[u8], start: u32) -> &[u8] {
    text.get(start as usize..).unwrap_or_default()
}

#[inline(always)]
fn word(text: &[u8], at: u32) -> u32 {
    let at = at as usize;
    text.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

#[inline(always)]
fn long_word(text: &[u8], at: u32) -> u64 {
    let at = at as usize;
    text.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// The last bytes of a match that is longer than some length, up to eight of them: what has others is shorter.
struct Filter {
    offset: u32,
    mask: u64,
    wanted: u64,
}

impl Filter {
    fn new(text: &[u8], start: u32, len: u32) -> Self {
        let wanted_len = (len + 1).max(MATCH_LEN_MIN);
        let count = wanted_len.min(8);
        let (offset, mask) = (wanted_len - count, u64::MAX >> (64 - 8 * count));
        Self { offset, mask, wanted: long_word(text, start + offset) & mask }
    }

    #[inline(always)]
    fn passes(&self, text: &[u8], position: u32) -> bool {
        long_word(text, position + self.offset) & self.mask == self.wanted
    }
}

/// How many bytes two texts have in common at their beginning, up to `len_max`.
fn common(a: &[u8], b: &[u8], len_max: u32) -> u32 {
    let mut len = 0;
    for (a, b) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        let differing = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differing != 0 {
            return (len + differing.trailing_zeros() / 8).min(len_max);
        }
        len += 8;
        if len >= len_max {
            break;
        }
    }
    len.min(len_max)
}
