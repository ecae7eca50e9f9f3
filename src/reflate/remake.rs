//! Makes deflated bits of plain bytes and corrections: the reader of algorithm 1 (format-spec 15 and 16).
//!
//! A compressor is a few parameters and habits. With them each next token is predicted as that compressor would have chosen it, then
//! what the corrections say is changed, then the hash chains learn what was really chosen. A block is done when it has its
//! tokens; of their frequencies its codes are predicted and corrected in the same way, and it is written.
//!
//! Corrections may come from anybody who holds a key for writing, so nothing they say is believed, and nothing they say costs more
//! than it should. Memory: four tables of fixed size, the tokens of one block, of which each takes a byte of the text
//! or more, and as many bits as the caller asked for. Work: each position of the text is inserted once; candidates are counted,
//! and so many for a byte of text are the most ([`candidates_max`]); a block makes three bits or more, and when there are more bits than
//! the caller wants, all is over. What is odd in any way ends in `None`; it isn't told why, since whoever has the proof of the piece
//! (`reflate::piece`) can't do anything about it.

mod chains;
mod code;
mod coder;
mod corrections;
mod guess;
mod hash;
mod parameters;
mod predictor;
mod reader;
mod trace;
mod tree;
mod writer;

use chains::candidates_max;
use code::Codes;
use corrections::{Corrections, Kind};
use hash::{Crc32c, Hash, Libdeflate, LibdeflateFast, MinizFast, RandomVector, Zlib, ZlibDefault, ZlibNg};
use parameters::{Algorithm, Blocks};
use predictor::{Match, Predictor};
use tree::Frequencies;
use writer::BitWriter;

pub use guess::guess;
pub use parameters::Parameters;
pub use reader::Whole;
pub use trace::trace;

/// What is predicted, and what a correction of the kind of a block counts from.
const DYNAMIC: u32 = 0;
const STORED: u32 = 1;
const FIXED: u32 = 2;
const STORED_LEN_MAX: u32 = 65_535;

/// The bits that these corrections make of `plain` behind `dictionary`, and whatever they make in front of them. None if these are
/// more than `bit_len_max`, or if they are no corrections of these bytes.
pub(super) fn remake(dictionary: &[u8], plain: &[u8], corrections: &[u8], bit_len_max: u64) -> Option<Vec<u8>> {
    let (parameters, coded) = parameters::decode(corrections)?;
    let job = Remaking { dictionary, plain, parameters, coded: &coded, bit_len_max };
    with_hash(&parameters, &job)
}

/// What is done with the hash of some parameters.
trait Job {
    type Done;

    fn run<H: Hash>(&self, hash: H) -> Option<Self::Done>;
}

fn with_hash<J: Job>(parameters: &Parameters, job: &J) -> Option<J::Done> {
    match parameters.algorithm {
        Algorithm::None => job.run(Zlib { mask: 0, shift: 0 }),
        Algorithm::Zlib { mask: 0x7fff, shift: 5 } => job.run(ZlibDefault),
        Algorithm::Zlib { mask, shift } => job.run(Zlib { mask, shift }),
        Algorithm::MinizFast => job.run(MinizFast),
        Algorithm::LibdeflateFast => job.run(LibdeflateFast),
        Algorithm::Libdeflate => job.run(Libdeflate),
        Algorithm::ZlibNg => job.run(ZlibNg),
        Algorithm::RandomVector => job.run(RandomVector),
        Algorithm::Crc32c => job.run(Crc32c),
    }
}

/// What is to be made.
struct Remaking<'a> {
    dictionary: &'a [u8],
    plain: &'a [u8],
    parameters: Parameters,
    coded: &'a [u8],
    bit_len_max: u64,
}

impl Job for Remaking<'_> {
    type Done = Vec<u8>;

    fn run<H: Hash>(&self, hash: H) -> Option<Vec<u8>> {
        let effort = candidates_max(self.dictionary.len() + self.plain.len());
        let mut maker = Maker {
            blocks: self.parameters.blocks,
            token_count_max: self.parameters.token_count_max,
            predictor: Predictor::new(hash, &self.parameters, &[self.dictionary, self.plain], effort)?,
            corrections: Corrections::new(self.coded),
            tokens: Vec::new(),
            writer: BitWriter::new(self.bit_len_max)?,
        };
        maker.run()?;
        maker.writer.finish()
    }
}

/// The state between two blocks.
struct Maker<'a, H> {
    blocks: Blocks,
    token_count_max: u32,
    predictor: Predictor<H>,
    corrections: Corrections<'a>,
    /// Those of the block at hand.
    tokens: Vec<Token>,
    writer: BitWriter,
}

/// What comes next.
enum Chosen {
    Literal,
    Match(Match),
}

/// A literal as its byte; a match as its length, which is never less than 3, above the 16 bits of its distance.
#[derive(Clone, Copy)]
struct Token(u32);

impl Token {
    fn of_match(found: Match) -> Self {
        Self(found.len << 16 | found.distance)
    }

    /// The match, unless it is a literal.
    fn as_match(self) -> Option<Match> {
        let found = Match { len: self.0 >> 16, distance: self.0 & 0xffff };
        (found.len > 0).then_some(found)
    }
}

impl<H: Hash> Maker<'_, H> {
    fn run(&mut self) -> Option<()> {
        loop {
            self.block()?;
            let is_end = self.predictor.is_at_end();
            if self.writer.is_full() || self.predictor.is_exhausted() {
                return None;
            }
            if self.corrections.flipped(Kind::End, is_end)? {
                return Some(());
            }
        }
    }

    fn block(&mut self) -> Option<()> {
        self.predictor.begin_block();
        match self.corrections.differing(Kind::Block, self.blocks.predicted())? {
            STORED => self.stored(),
            FIXED => self.coded(false),
            DYNAMIC => self.coded(true),
            _ => None,
        }
    }

    fn stored(&mut self) -> Option<()> {
        let len = self.corrections.differing(Kind::StoredLen, STORED_LEN_MAX)?;
        let len = u16::try_from(len).ok()?;
        let bytes = self.predictor.pass_stored(u32::from(len))?;
        let is_last = self.corrections.flipped(Kind::Last, self.predictor.is_at_end())?;
        self.writer.put(u32::from(is_last), 3);
        self.writer.align();
        self.writer.put(u32::from(len), 16);
        self.writer.put(u32::from(!len), 16);
        self.writer.extend(self.predictor.bytes(bytes));
        Some(())
    }

    fn coded(&mut self, is_dynamic: bool) -> Option<()> {
        let frequencies = self.choose_tokens()?;
        // The codes are told before the tokens, and whether the block is the last one before them.
        let tree = if is_dynamic { Some(tree::remake(&frequencies, &mut self.corrections)?) } else { None };
        let is_last = self.corrections.flipped(Kind::Last, self.predictor.is_at_end())?;
        self.writer.put(u32::from(is_last) | if is_dynamic { 4 } else { 2 }, 3);
        let codes = match tree {
            Some(tree) => {
                tree.put(&mut self.writer)?;
                Codes::new(tree.literal_lens(), tree.distance_lens())?
            }
            None => Codes::fixed()?,
        };
        for token in &self.tokens {
            match token.as_match() {
                Some(found) => codes.put_match(&mut self.writer, found.len, found.distance),
                None => codes.put_literal(&mut self.writer, token.0),
            }
        }
        codes.put_end(&mut self.writer);
        if is_last {
            self.writer.align();
        }
        Some(())
    }

    fn choose_tokens(&mut self) -> Option<Frequencies> {
        let count = match self.corrections.next(Kind::TokenCount)? {
            0 => self.token_count_max,
            more => more - 1,
        };
        self.tokens.clear();
        let mut frequencies = Frequencies::default();
        while self.tokens.len() < count as usize && !self.predictor.is_at_end() {
            let token = match self.choose()? {
                Chosen::Match(found) => {
                    frequencies.count_match(found.len, found.distance);
                    self.predictor.pass_match(found)?;
                    Token::of_match(found)
                }
                Chosen::Literal => {
                    let byte = self.predictor.pass_literal();
                    frequencies.count_literal(byte);
                    Token(u32::from(byte))
                }
            };
            self.tokens.push(token);
        }
        Some(frequencies)
    }

    #[inline]
    fn choose(&mut self) -> Option<Chosen> {
        let found = match self.predictor.predict() {
            None if self.corrections.next(Kind::LiteralIsWrong)? == 0 => return Some(Chosen::Literal),
            None => self.predictor.predict_match()?,
            Some(_) if self.corrections.next(Kind::MatchIsWrong)? != 0 => return Some(Chosen::Literal),
            Some(found) => found,
        };
        let len = self.corrections.differing(Kind::Len, found.len)?;
        let hops = if len == found.len {
            self.corrections.next(Kind::Distance)?
        } else {
            self.corrections.next(Kind::DistanceOfOtherLen)?.checked_add(1)?
        };
        if hops == 0 {
            return Some(Chosen::Match(found));
        }
        let distance = self.predictor.distance_by_hops(len, hops)?;
        Some(Chosen::Match(Match { len, distance }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Parameters as `gzip -9` has them.
    const GZIP_9: [u8; 25] = [0, 0, 4, 15, 0, 2, 2, 1, 0, 0xff, 0x7f, 1, 2, 0, 16, 1, 32, 0, 2, 1, 2, 0, 16, 4, 3];
    /// Its hash, that all kinds of blocks occur, and that corrections are to come of this length.
    const GZIP_9_END: [u8; 6] = [1, 0xff, 0x7f, 4, 5, 1];

    fn corrections(coded: &[u8]) -> Vec<u8> {
        let len = [u8::try_from(coded.len()).unwrap(), 0];
        [&GZIP_9[..], &GZIP_9_END, &len, coded].concat()
    }

    /// All predictions are right, but that all is made, which is never right.
    fn is_endless(coded: &[u8]) -> bool {
        let mut corrections = Corrections::new(coded);
        let mut is_right = |kind| corrections.next(kind) == Some(0);
        let others =
            [Kind::TokenCount, Kind::Block, Kind::RunSymbol, Kind::LenOfCode, Kind::Last, Kind::LiteralIsWrong];
        others.into_iter().all(&mut is_right) && (0..9).all(|_| !is_right(Kind::End))
    }

    #[test]
    fn blocks_of_nothing_without_end_are_given_up_when_there_are_enough_bits() {
        let coded = (0..=u16::MAX).map(|n| [n.to_be_bytes(), [0; 2]].concat()).find(|coded| is_endless(coded)).unwrap();
        let forged = corrections(&coded);
        for bit_len_max in [0, 1000, 1 << 20] {
            assert_eq!(remake(b"", b"abc", &forged, bit_len_max), None);
        }
    }

    #[test]
    fn each_candidate_costs_effort_and_without_any_there_is_none() {
        let (parameters, _) = parameters::decode(&corrections(&[7; 3])).unwrap();
        let zeros = [0; 3000];
        let mut predictor = Predictor::new(ZlibDefault, &parameters, &[&zeros], 100).unwrap();
        predictor.pass_stored(1000).unwrap();
        assert_eq!(predictor.depth(50), Some(50));
        assert_eq!(predictor.hops(Match { len: 3, distance: 40 }), Some(40));
        assert!(!predictor.is_exhausted());
        assert_eq!(predictor.hops(Match { len: 3, distance: 40 }), None);
        assert!(predictor.is_exhausted());
        assert_eq!((predictor.predict(), predictor.depth(1), predictor.distance_by_hops(3, 1)), (None, None, None));
    }

    #[test]
    fn parameters_that_no_writer_finds_are_refused() {
        assert!(parameters::decode(&corrections(&[7; 3])).is_some());
        let wrong = [
            (0, 2),
            (2, 3),
            (3, 8),
            (3, 16),
            (4, 4),
            (5, 1),
            (8, 5),
            (11, 2),
            (15, 2),
            (22, 17),
            (25, 8),
            (29, 16),
            (30, 4),
        ];
        for (at, value) in wrong {
            let mut wrong = corrections(&[7; 3]);
            wrong[at] = value;
            assert_eq!(parameters::decode(&wrong), None, "{at}");
        }
        let whole = corrections(&[7; 3]);
        for len in 0..whole.len() {
            assert_eq!(parameters::decode(&whole[..len]), None, "{len}");
        }
    }

    proptest! {
        #[test]
        fn whatever_corrections_say_there_is_an_end(
            coded in proptest::collection::vec(any::<u8>(), 3..200), word in 1_usize..9, count in 0_usize..3000,
        ) {
            let plain: Vec<u8> = (0..count).map(|n| u8::try_from(n % word).unwrap()).collect();
            let (dictionary, plain) = plain.split_at(plain.len() / 3);
            let made = remake(dictionary, plain, &corrections(&coded), 8 * count as u64);
            prop_assert!(made.is_none_or(|made| made.len() <= count));
        }
    }
}
