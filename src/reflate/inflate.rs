//! Inflating a stream piece by piece: as many blocks as make a piece of some length.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use super::piece::{DICTIONARY_LEN_MAX, PIECE_BITS_MAX, Piece};

/// A piece ends with the block that makes it this long. A megabyte of source code took 12 kB of corrections for 66 MB in pieces of
/// half of that, 14 kB in these, 18 kB in pieces of twice as much; 4 MB each were slower by a fifth, out of the cache.
const PIECE_LEN: usize = 1 << 20;
/// More plain bytes of one block are not waited for. One of zlib has 8.5 MB at most.
const BLOCK_LEN_MAX: usize = 9 << 20;
/// A stream that grows by more than this, and is longer than that, is a bomb: what is left of it is not opened.
const GROWTH_MAX: u64 = 200;
const BOMB_LEN_MIN: u64 = 64 << 20;

/// How far a stream got.
#[derive(Debug)]
pub enum Step {
    /// All that was given is used, and it goes on.
    Unfinished,
    /// A piece. The stream goes on, unless it is the last.
    Piece(Piece),
    /// It can't be inflated further.
    Broken,
}

/// One deflated stream.
pub struct Inflater {
    state: Box<DecompressorOxide>,
    /// What is referred back to, and behind it the plain bytes of the piece.
    out: Vec<u8>,
    dictionary_len: usize,
    out_len: usize,
    /// The deflated bytes of the piece.
    deflated: Vec<u8>,
    skipped: u8,
    plain_len: u64,
    deflated_len: u64,
}

impl Default for Inflater {
    fn default() -> Self {
        Self {
            state: Box::default(),
            out: vec![0; DICTIONARY_LEN_MAX + PIECE_LEN + BLOCK_LEN_MAX],
            dictionary_len: 0,
            out_len: 0,
            deflated: Vec::new(),
            skipped: 0,
            plain_len: 0,
            deflated_len: 0,
        }
    }
}

impl Inflater {
    /// Begins another stream, in the memory of the last.
    pub fn restart(&mut self) {
        *self.state = DecompressorOxide::default();
        (self.dictionary_len, self.out_len, self.skipped) = (0, 0, 0);
        (self.plain_len, self.deflated_len) = (0, 0);
        self.deflated.clear();
    }

    /// The deflated bytes since the last piece, of which `skipped` bits belong to it.
    #[must_use]
    pub fn unfinished(&self) -> (&[u8], u8) {
        (&self.deflated, self.skipped)
    }

    /// Goes on with `input`; tells how many bytes of it were used. Once a piece was the last, nothing is used any more.
    pub fn step(&mut self, input: &[u8]) -> (usize, Step) {
        let mut used = 0;
        loop {
            let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF
                | TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY
                | TINFL_FLAG_HAS_MORE_INPUT;
            let (status, read, written) =
                decompress(&mut self.state, &input[used..], &mut self.out, self.out_len, flags);
            self.deflated.extend_from_slice(&input[used..used + read]);
            used += read;
            self.out_len += written;
            let is_last = status == TINFLStatus::Done;
            match status {
                TINFLStatus::NeedsMoreInput => return (used, self.unless_endless()),
                TINFLStatus::Done => return (used, self.piece(0, true)),
                TINFLStatus::BlockBoundary => {
                    let left = self.state.block_boundary_state().map_or(0, |state| state.num_bits);
                    if self.out_len - self.dictionary_len >= PIECE_LEN || self.deflated.len() >= PIECE_LEN {
                        return (used, self.piece(left, is_last));
                    }
                }
                _ => return (used, Step::Broken),
            }
        }
    }

    /// A block that has no end in sight is given up.
    fn unless_endless(&self) -> Step {
        if self.deflated.len() as u64 * 8 > PIECE_BITS_MAX { Step::Broken } else { Step::Unfinished }
    }

    /// Ends a piece `left` bits before the end of the bytes that were read.
    fn piece(&mut self, left: u8, is_last: bool) -> Step {
        let bits = self.deflated.len() as u64 * 8;
        let own = bits.checked_sub(u64::from(self.skipped) + u64::from(left));
        let Some(bit_len) = own.filter(|len| *len <= PIECE_BITS_MAX) else { return Step::Broken };
        self.plain_len += (self.out_len - self.dictionary_len) as u64;
        self.deflated_len += bit_len / 8;
        if self.plain_len > BOMB_LEN_MIN && self.plain_len / GROWTH_MAX > self.deflated_len {
            return Step::Broken;
        }
        let last = self.deflated.last().copied();
        let piece = Piece {
            dictionary: self.out[..self.dictionary_len].to_vec(),
            plain: self.out[self.dictionary_len..self.out_len].to_vec(),
            deflated: std::mem::take(&mut self.deflated),
            skipped: self.skipped,
            bit_len,
            is_last,
        };
        let kept = self.out_len.min(DICTIONARY_LEN_MAX);
        self.out.copy_within(self.out_len - kept..self.out_len, 0);
        (self.dictionary_len, self.out_len) = (kept, kept);
        // The byte that both share is the first of the next piece.
        self.skipped = (8 - left) % 8;
        self.deflated.extend(last.filter(|_| self.skipped != 0));
        Step::Piece(piece)
    }
}
