//! The other way: what has to be corrected for a compressor of some parameters to have chosen what was chosen.

use super::chains::START;
use super::coder::Coder;
use super::corrections::Kind;
use super::hash::Hash;
use super::parameters::{self, Parameters};
use super::predictor::{Match, Predictor};
use super::reader::{BlockReader, Told, Whole};
use super::tree::{self, Frequencies};
use super::{DYNAMIC, FIXED, Job, STORED, STORED_LEN_MAX, Token, with_hash};

/// Candidates that are looked at for each byte, and for any text: what takes more is given up. zlib's levels take 48 a byte at most, 7-Zip and
/// libdeflate, whose choices are far from any prediction, more than 96.
const CANDIDATES_PER_BYTE: u64 = 256;
const CANDIDATES_ALWAYS: u64 = 1 << 20;

/// The corrections for `whole`. None where no corrections make its blocks, and where more than `wrong_count_max` are needed.
pub fn trace(whole: Whole<'_>, parameters: &Parameters, wrong_count_max: usize) -> Option<Vec<u8>> {
    let job = Tracing { whole, parameters, wrong_count_max, len_max: usize::MAX };
    parameters::encode(parameters, &with_hash(parameters, &job)?.finish())
}

/// How many corrections are needed for the first so many plain bytes of `whole`, up to `wrong_count_max`.
pub fn wrong_count(whole: Whole<'_>, parameters: &Parameters, wrong_count_max: usize, len_max: usize) -> Option<usize> {
    let job = Tracing { whole, parameters, wrong_count_max, len_max };
    with_hash(parameters, &job).map(|coder| coder.wrong_count())
}

/// A predictor that looks at so many plain bytes behind the dictionary, and where these end.
pub fn predictor_of<H: Hash>(
    hash: H,
    whole: Whole<'_>,
    parameters: &Parameters,
    len_max: usize,
) -> Option<(Predictor<H>, u32)> {
    let len = whole.dictionary.len() + whole.plain.len().min(len_max);
    let effort = CANDIDATES_ALWAYS + CANDIDATES_PER_BYTE * len as u64;
    let end = START.checked_add(u32::try_from(len).ok()?)?;
    Some((Predictor::new(hash, parameters, &[whole.dictionary, whole.plain], effort)?, end))
}

struct Tracing<'a> {
    whole: Whole<'a>,
    parameters: &'a Parameters,
    wrong_count_max: usize,
    /// Plain bytes behind the dictionary.
    len_max: usize,
}

impl Job for Tracing<'_> {
    type Done = Coder;

    fn run<H: Hash>(&self, hash: H) -> Option<Coder> {
        let (predictor, end) = predictor_of(hash, self.whole, self.parameters, self.len_max)?;
        let is_part = self.len_max < self.whole.plain.len();
        let (parameters, wrong_count_max) = (self.parameters, self.wrong_count_max);
        let mut tracer = Tracer { parameters, predictor, coder: Coder::new(), end, wrong_count_max };
        let (mut reader, mut tokens) = (BlockReader::new(self.whole.deflated), Vec::new());
        loop {
            let (told, is_last) = reader.next(&mut tokens)?;
            tracer.block(&told, &tokens, is_last)?;
            if tracer.predictor.is_exhausted() {
                return None;
            }
            if is_part && tracer.predictor.position() >= end {
                return Some(tracer.coder);
            }
            tracer.coder.flipped(Kind::End, tracer.predictor.is_at_end(), is_last);
            if is_last {
                return tracer.predictor.is_at_end().then_some(tracer.coder);
            }
        }
    }
}

/// The state between two blocks.
struct Tracer<'a, H> {
    parameters: &'a Parameters,
    predictor: Predictor<H>,
    coder: Coder,
    /// Nothing behind it matters.
    end: u32,
    wrong_count_max: usize,
}

impl<H: Hash> Tracer<'_, H> {
    fn block(&mut self, told: &Told, tokens: &[Token], is_last: bool) -> Option<()> {
        self.predictor.begin_block();
        let kind = match told {
            Told::Stored(_) => STORED,
            Told::Fixed => FIXED,
            Told::Dynamic(_) => DYNAMIC,
        };
        self.coder.differing(Kind::Block, self.parameters.blocks.predicted(), kind);
        if let Told::Stored(len) = told {
            self.coder.differing(Kind::StoredLen, STORED_LEN_MAX, u32::from(*len));
            self.predictor.pass_stored(u32::from(*len))?;
        } else {
            let frequencies = self.tokens(tokens)?;
            if let Told::Dynamic(tree) = told {
                tree::correct(&frequencies, tree, &mut self.coder)?;
            }
        }
        self.coder.flipped(Kind::Last, self.predictor.is_at_end(), is_last);
        Some(())
    }

    fn tokens(&mut self, tokens: &[Token]) -> Option<Frequencies> {
        let count = u32::try_from(tokens.len()).ok()?;
        let len = tokens.iter().map(|token| u64::from(token.as_match().map_or(1, |found| found.len))).sum::<u64>();
        let is_to_end = self.predictor.left_behind(u32::try_from(len).ok()?)? == 0;
        let max = self.parameters.token_count_max;
        let is_predicted = count == max || is_to_end && count < max;
        self.coder.push(Kind::TokenCount, if is_predicted { 0 } else { count.checked_add(1)? });
        let mut frequencies = Frequencies::default();
        for token in tokens {
            if self.predictor.position() >= self.end {
                break;
            }
            let is = token.as_match();
            self.choice(is)?;
            match is {
                Some(is) => {
                    frequencies.count_match(is.len, is.distance);
                    self.predictor.pass_match(is)?;
                }
                None => frequencies.count_literal(self.predictor.pass_literal()),
            }
        }
        Some(frequencies)
    }

    /// What comes next: this match, or a literal.
    #[inline]
    fn choice(&mut self, is: Option<Match>) -> Option<()> {
        let found = match (self.predictor.predict(), is) {
            (None, None) => {
                self.coder.push(Kind::LiteralIsWrong, 0);
                return Some(());
            }
            (Some(_), None) => {
                self.coder.push(Kind::MatchIsWrong, 1);
                return Some(());
            }
            (None, Some(_)) => {
                self.coder.push(Kind::LiteralIsWrong, 1);
                self.predictor.predict_match()?
            }
            (Some(found), Some(_)) => {
                self.coder.push(Kind::MatchIsWrong, 0);
                found
            }
        };
        let is = is?;
        if self.coder.wrong_count() > self.wrong_count_max {
            return None;
        }
        self.coder.differing(Kind::Len, found.len, is.len);
        if is.len != found.len {
            self.coder.push(Kind::DistanceOfOtherLen, self.predictor.hops(is)?.checked_sub(1)?);
        } else if is.distance == found.distance {
            self.coder.push(Kind::Distance, 0);
        } else {
            self.coder.push(Kind::Distance, self.predictor.hops(is)?);
        }
        Some(())
    }
}
