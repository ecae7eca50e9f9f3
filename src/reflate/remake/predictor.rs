//! Which token a compressor would have chosen next.

use std::ops::Range;

use super::chains::{Chains, MATCH_LEN_MIN, START, is_near_4k};
use super::hash::Hash;
use super::parameters::{Added, CHAIN_LEN_MAX, Lazy, Parameters};

/// So many bytes as there are so far before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    pub len: u32,
    pub distance: u32,
}

/// The compressor, at some position of its text.
pub struct Predictor<H> {
    chains: Chains<H>,
    at: u32,
    /// The match found here when the position before was tried.
    pending: Option<Match>,
    lazy: Lazy,
    candidates: u32,
    distance_max_of_3: u32,
    is_like_zlib: bool,
    passes_near_4k: bool,
}

impl<H: Hash> Predictor<H> {
    /// At the beginning of a text in parts, at which so many candidates may be looked.
    pub fn new(hash: H, parameters: &Parameters, parts: &[&[u8]], effort: u64) -> Option<Self> {
        Some(Self {
            chains: Chains::new(hash, parameters, parts, effort)?,
            at: START,
            pending: None,
            lazy: parameters.lazy,
            candidates: parameters.chain_len_max,
            distance_max_of_3: parameters.distance_max_of_3,
            is_like_zlib: parameters.is_like_zlib,
            passes_near_4k: parameters.added == Added::FirstExceptNear4K,
        })
    }

    /// Where it is; the text begins at [`START`].
    pub fn position(&self) -> u32 {
        self.at
    }

    pub fn bytes(&self, range: Range<u32>) -> &[u8] {
        self.chains.text(range.start, range.end)
    }

    fn left(&self) -> u32 {
        self.chains.end().saturating_sub(self.at)
    }

    pub fn is_at_end(&self) -> bool {
        self.left() == 0
    }

    pub fn is_exhausted(&self) -> bool {
        self.chains.is_exhausted()
    }

    pub fn begin_block(&mut self) {
        self.pending = None;
    }

    /// The match that it would choose, if any.
    #[inline]
    pub fn predict(&mut self) -> Option<Match> {
        if self.at == START || self.left() < MATCH_LEN_MIN || self.passes_near_4k && is_near_4k(self.at) {
            return None;
        }
        let found = match self.pending.take() {
            Some(found) => found,
            None => self.chains.longest::<0>(self.at, 0, self.candidates)?,
        };
        if found.len == MATCH_LEN_MIN && found.distance > self.distance_max_of_3 {
            return None;
        }
        if let Some(next) = self.next_match(found.len) {
            self.pending = Some(next).filter(|_| self.is_like_zlib);
            return None;
        }
        Some(found)
    }

    /// A longer match at the next position, where that is tried.
    #[inline]
    fn next_match(&mut self, len: u32) -> Option<Match> {
        let Lazy::Below { good_len, len_max } = self.lazy else { return None };
        if len >= len_max || self.left() < len + 2 {
            return None;
        }
        let candidates = if self.is_like_zlib && len >= good_len { self.candidates >> 2 } else { self.candidates };
        self.chains.longest::<1>(self.at, len, candidates)
    }

    /// The match that corrections count from where no match was predicted and there is one.
    pub fn predict_match(&mut self) -> Option<Match> {
        if self.at == START || self.left() < MATCH_LEN_MIN {
            return None;
        }
        self.pending = None;
        let mut longest = |candidates| self.chains.longest::<0>(self.at, 0, candidates);
        longest(self.candidates).or_else(|| longest(CHAIN_LEN_MAX))
    }

    pub fn distance_by_hops(&mut self, len: u32, hops: u32) -> Option<u32> {
        self.chains.distance_by_hops(self.at, len, hops)
    }

    /// The other way: how many hops lead to this match.
    pub fn hops(&mut self, is: Match) -> Option<u32> {
        self.chains.hops(self.at, is.len, is.distance)
    }

    /// The how many-th candidate here is so far away.
    pub fn depth(&mut self, distance: u32) -> Option<u32> {
        self.chains.depth(self.at, distance)
    }

    /// What is left of the text when so many bytes are passed.
    pub fn left_behind(&self, len: u32) -> Option<u32> {
        self.left().checked_sub(len)
    }

    /// Goes behind a literal, and tells it.
    pub fn pass_literal(&mut self) -> u8 {
        let byte = self.chains.byte(self.at);
        self.chains.add(self.at, 1);
        self.at += 1;
        byte
    }

    /// Goes behind a match.
    pub fn pass_match(&mut self, found: Match) -> Option<()> {
        if found.len > self.left() {
            return None;
        }
        self.chains.add(self.at, found.len);
        self.at += found.len;
        Some(())
    }

    /// Goes behind bytes that are stored as they are, and tells where they stand.
    pub fn pass_stored(&mut self, len: u32) -> Option<Range<u32>> {
        let start = self.at;
        if len > self.left() {
            return None;
        }
        for _ in 0..len {
            self.chains.add(self.at, 1);
            self.at += 1;
        }
        Some(start..self.at)
    }
}
