//! Which compressor it was, by what it chose.
//!
//! What can be seen is seen: how far matches reach, how long blocks are, which positions matches refer to, and with which hash all
//! of them are found, at what depth. What can't be seen is tried at the beginning of the piece: zlib's levels, and what the
//! depth tells. The one of which least has to be corrected is it.

use super::chains::{LINK_COUNT, MATCH_LEN_MAX, MATCH_LEN_MIN, WINDOW_FREE_LEN, crosses_32k, is_near_4k};
use super::hash::Hash;
use super::parameters::{Added, Algorithm, Blocks, Lazy, Parameters, Strategy};
use super::predictor::Match;
use super::reader::{BlockReader, Told, Whole};
use super::trace::{predictor_of, wrong_count};
use super::{Job, with_hash};

/// So many plain bytes are tried.
const SAMPLE_LEN: usize = 96 << 10;
/// Who has so few corrections there is it.
const GOOD_COUNT: usize = 12;
/// Hashes that are tried, the ones that find all in the shortest chains.
const ALGORITHM_COUNT: usize = 2;
/// zlib takes no match of three bytes that is farther.
const FAR_OF_3: u32 = 4096;
/// Tokens of a block of a compressor that finds no matches, or stores.
const TOKEN_COUNT_OF_NONE: u32 = 16_386;

/// A level: which positions of a match are added, whether the next position is tried, what is nice, how many candidates there are.
type Level = (Added, Lazy, u32, u32);

/// The levels of zlib that try the next position, and of the `gzip`s.
const LAZY_LEVELS: [Level; 6] = [
    (Added::All, Lazy::Below { good_len: 4, len_max: 4 }, 16, 16),
    (Added::All, Lazy::Below { good_len: 8, len_max: 16 }, 32, 32),
    (Added::All, Lazy::Below { good_len: 8, len_max: 16 }, 128, 128),
    (Added::All, Lazy::Below { good_len: 8, len_max: 32 }, 128, 256),
    (Added::All, Lazy::Below { good_len: 32, len_max: 128 }, 258, 1024),
    (Added::All, Lazy::Below { good_len: 32, len_max: 258 }, 258, 4096),
];
/// Those that don't.
const GREEDY_LEVELS: [Level; 3] = [
    (Added::First(4), Lazy::Never, 8, 4),
    (Added::First(5), Lazy::Never, 16, 8),
    (Added::First(6), Lazy::Never, 32, 32),
];

/// The parameters of which least has to be corrected in `whole`. By all of it, or by its beginning, which is faster and may be wrong.
pub fn guess(whole: Whole<'_>, by_all: bool) -> Option<Parameters> {
    let seen = Seen::of(whole.deflated)?;
    let base = seen.base();
    if base.algorithm == Algorithm::None {
        return Some(base);
    }
    let mut found: Vec<(Depth, Parameters)> = Vec::new();
    for algorithm in seen.algorithms() {
        for added in [seen.added.policy(), Added::All] {
            let parameters = Parameters { added, algorithm, ..base };
            let job = Measuring { whole, parameters: &parameters, by_all };
            let is_new = |(_, other): &(Depth, Parameters)| *other != parameters;
            if found.iter().all(is_new)
                && let Some(depth) = with_hash(&parameters, &job)
            {
                found.push((depth, parameters));
            }
        }
    }
    found.sort_by_key(|(depth, _)| depth.most);
    let mut best: Option<(usize, Parameters)> = None;
    for (depth, base) in found.into_iter().take(2 * ALGORITHM_COUNT) {
        for parameters in levels(base, &depth, by_all) {
            let most = best.map_or(usize::MAX, |(wrong, _)| wrong);
            let wrong = wrong_count(whole, &parameters, most, SAMPLE_LEN);
            if let Some(wrong) = wrong.filter(|wrong| *wrong < most) {
                best = Some((wrong, parameters));
            }
            if best.is_some_and(|(wrong, _)| wrong <= GOOD_COUNT) {
                return best.map(|(_, parameters)| parameters);
            }
        }
    }
    best.map(|(_, parameters)| parameters)
}

/// What may be, where the hash and the depth are known.
fn levels(base: Parameters, depth: &Depth, is_sure: bool) -> impl Iterator<Item = Parameters> {
    let most = depth.most.max(1);
    let reaches_far = depth.reaches_far;
    let of = move |(added, lazy, nice_len, chain_len_max): Level| {
        let is_bound = base.distance_max_of_3 < FAR_OF_3 + 1 || added != Added::All;
        let is_like_zlib = !base.reaches_start && !reaches_far && is_bound;
        Parameters { reaches_far, nice_len, added, is_like_zlib, lazy, chain_len_max, ..base }
    };
    let (all, greedy) = (base.added == Added::All, base.added != Added::All);
    let lazy = LAZY_LEVELS.into_iter().filter(move |level| all && level.3 >= most);
    // zlib's levels have the depth that they have; others as much as was seen.
    let seen =
        LAZY_LEVELS.into_iter().find(move |level| level.3 >= most).map(|level| (level.0, level.1, level.2, most));
    let eager = GREEDY_LEVELS.into_iter().find(move |level| level.3 >= most);
    let eager = (base.added, Lazy::Never, eager.map_or(258, |level| level.2), most);
    let known = GREEDY_LEVELS.into_iter().filter(move |level| greedy && (!is_sure || level.0 == base.added));
    let unbound = (base.added, Lazy::Never, 258, most);
    lazy.chain(seen.filter(move |_| all)).chain(known).chain([eager, unbound]).map(of)
}

/// What can be seen of all tokens.
struct Seen {
    distance_max: u32,
    len_min: u32,
    token_count_max: u32,
    distance_max_of_3: u32,
    reaches_start: bool,
    blocks: u32,
    stored: u32,
    fixed: u32,
    without_matches: u32,
    with_runs_alone: u32,
    added: AddedSeen,
}

impl Seen {
    fn of(deflated: &[u8]) -> Option<Self> {
        let mut seen = Self {
            distance_max: 0,
            len_min: u32::MAX,
            token_count_max: 0,
            distance_max_of_3: 0,
            reaches_start: false,
            blocks: 0,
            stored: 0,
            fixed: 0,
            without_matches: 0,
            with_runs_alone: 0,
            added: AddedSeen::new(),
        };
        let (mut reader, mut tokens, mut is_done) = (BlockReader::new(deflated), Vec::new(), false);
        while !is_done {
            let (told, is_last) = reader.next(&mut tokens)?;
            is_done = is_last;
            seen.blocks += 1;
            match told {
                Told::Stored(len) => {
                    seen.stored += 1;
                    (0..len).for_each(|_| seen.added.literal());
                    continue;
                }
                Told::Fixed => seen.fixed += 1,
                Told::Dynamic(_) => {}
            }
            seen.token_count_max = seen.token_count_max.max(u32::try_from(tokens.len()).ok()?);
            let mut distance_max = 0;
            for token in &tokens {
                match token.as_match() {
                    None => seen.added.literal(),
                    Some(found) => {
                        distance_max = distance_max.max(found.distance);
                        seen.found(found);
                    }
                }
            }
            seen.distance_max = seen.distance_max.max(distance_max);
            seen.without_matches += u32::from(distance_max == 0);
            seen.with_runs_alone += u32::from(distance_max == 1);
        }
        Some(seen)
    }

    fn found(&mut self, found: Match) {
        self.reaches_start |= found.distance == self.added.at;
        self.len_min = self.len_min.min(found.len);
        if found.len == MATCH_LEN_MIN {
            self.distance_max_of_3 = self.distance_max_of_3.max(found.distance);
        }
        self.added.found(found);
    }

    /// All but how matches were looked for.
    fn base(&self) -> Parameters {
        let strategy = match self.blocks {
            blocks if blocks == self.stored => Strategy::Store,
            blocks if blocks == self.without_matches + self.stored => Strategy::HuffmanOnly,
            blocks if blocks == self.with_runs_alone + self.stored => Strategy::Runs,
            _ => Strategy::Default,
        };
        let blocks = match self.blocks {
            // The dictionary is stored, whatever comes behind it.
            blocks if blocks == self.stored => Blocks::Stored,
            blocks if blocks == self.fixed + self.stored => Blocks::Fixed,
            _ if self.fixed == 0 => Blocks::Dynamic,
            _ => Blocks::Mixed,
        };
        let finds_none = matches!(strategy, Strategy::Store | Strategy::HuffmanOnly);
        let window_bits = (self.distance_max + WINDOW_FREE_LEN - 1).checked_ilog2().unwrap_or(0) + 1;
        let token_bits = (self.token_count_max.checked_ilog2().unwrap_or(0) + 1).clamp(7, 15);
        Parameters {
            reaches_start: self.reaches_start,
            reaches_far: false,
            window_bits: if finds_none { 0 } else { window_bits.clamp(9, 15) },
            strategy,
            nice_len: 0,
            added: Added::All,
            token_count_max: if finds_none { TOKEN_COUNT_OF_NONE } else { (1 << token_bits) - 1 },
            is_like_zlib: true,
            distance_max_of_3: if (1..FAR_OF_3).contains(&self.distance_max_of_3) {
                FAR_OF_3
            } else {
                self.distance_max_of_3
            },
            lazy: Lazy::Never,
            chain_len_max: u32::from(!finds_none),
            algorithm: if finds_none { Algorithm::None } else { Algorithm::MinizFast },
            blocks,
        }
    }

    /// Who finds three bytes hashes three.
    fn algorithms(&self) -> Vec<Algorithm> {
        let bits = (self.token_count_max.checked_ilog2().unwrap_or(0) + 1).clamp(7, 15) + 1;
        let zlib =
            |bits: u32, shift| Algorithm::Zlib { mask: u16::try_from((1_u32 << bits) - 1).unwrap_or(u16::MAX), shift };
        let mut all = vec![zlib(15, 5)];
        if self.len_min == MATCH_LEN_MIN {
            all.extend([zlib(11, 4), zlib(bits.min(16), bits.div_ceil(3)), Algorithm::MinizFast]);
            all.extend([Algorithm::Libdeflate, Algorithm::RandomVector]);
        } else {
            all.extend([Algorithm::LibdeflateFast, Algorithm::ZlibNg, Algorithm::Crc32c]);
        }
        all
    }
}

/// Which positions of matches are referred to later: those were added.
struct AddedSeen {
    at: u32,
    /// How long the match is that each position of the window lies within; 0 for its first one, and for literals.
    lens: Vec<u16>,
    /// The longest match that was referred into; and into which before its last position.
    len_max: u16,
    len_max_before_last: u16,
    only_near_4k: bool,
    beyond_32k: bool,
}

const LAST: u16 = 0x8000;
const LAST_OF_32K: u16 = 0x4000;
const LEN: u16 = 0x0fff;

impl AddedSeen {
    fn new() -> Self {
        Self {
            at: 0,
            lens: vec![0; LINK_COUNT],
            len_max: 0,
            len_max_before_last: 0,
            only_near_4k: true,
            beyond_32k: false,
        }
    }

    fn put(&mut self, len: u16) {
        self.lens[self.at as usize % LINK_COUNT] = len;
        self.at += 1;
    }

    fn literal(&mut self) {
        self.put(0);
    }

    fn found(&mut self, found: Match) {
        let from = self.at.wrapping_sub(found.distance);
        self.only_near_4k &= !is_near_4k(self.at) && !is_near_4k(from);
        let within = self.lens[from as usize % LINK_COUNT];
        let len = within & LEN;
        self.len_max = self.len_max.max(len);
        if within & LAST == 0 {
            self.len_max_before_last = self.len_max_before_last.max(len);
        }
        self.beyond_32k |= len != 0 && within & LAST_OF_32K == 0;
        let last = LAST | if crosses_32k(self.at, found.len) { LAST_OF_32K } else { 0 };
        self.put(0);
        let len = u16::try_from(found.len).unwrap_or(0);
        for n in 1..len {
            self.put(if n + 1 == len { len | last } else { len });
        }
    }

    fn policy(&self) -> Added {
        if self.len_max == 0 && self.only_near_4k {
            Added::FirstExceptNear4K
        } else if !self.beyond_32k {
            Added::FirstAndLastOf32K
        } else if self.len_max_before_last < self.len_max {
            Added::FirstAndLast(self.len_max_before_last.into())
        } else if u32::from(self.len_max) < MATCH_LEN_MAX {
            Added::First(self.len_max.into())
        } else {
            Added::All
        }
    }
}

/// How deep in their chains matches are found.
struct Depth {
    most: u32,
    /// Farther than zlib goes.
    reaches_far: bool,
}

struct Measuring<'a> {
    whole: Whole<'a>,
    parameters: &'a Parameters,
    by_all: bool,
}

impl Job for Measuring<'_> {
    type Done = Depth;

    fn run<H: Hash>(&self, hash: H) -> Option<Depth> {
        let len_max = if self.by_all { usize::MAX } else { SAMPLE_LEN };
        let (mut predictor, end) = predictor_of(hash, self.whole, self.parameters, len_max)?;
        let mut depth = Depth { most: 0, reaches_far: false };
        let window_len = 1 << self.parameters.window_bits;
        let (mut reader, mut tokens) = (BlockReader::new(self.whole.deflated), Vec::new());
        loop {
            let (told, is_last) = reader.next(&mut tokens)?;
            if let Told::Stored(len) = told {
                predictor.pass_stored(len.into())?;
            }
            for token in &tokens {
                let Some(found) = token.as_match() else {
                    predictor.pass_literal();
                    continue;
                };
                let at = predictor.depth(found.distance)?;
                depth.most = depth.most.max(at);
                // The first candidate may be one farther than the others.
                depth.reaches_far |= found.distance + u32::from(at > 1) > window_len - WINDOW_FREE_LEN + 1
                    || at > 1 && found.distance > window_len - WINDOW_FREE_LEN;
                predictor.pass_match(found)?;
            }
            if is_last || predictor.position() > end {
                return Some(depth);
            }
        }
    }
}
