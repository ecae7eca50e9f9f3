//! One piece of deflated data: taken apart, and put together again.

use std::sync::{Mutex, PoisonError};

use super::bits::{self, Bits};
use super::recipe::CORRECTIONS_LEN_MAX;
use super::remake::{Parameters, Whole, guess, remake, trace};
use crate::id::PieceProof;

/// As far as deflate refers back.
pub const DICTIONARY_LEN_MAX: usize = 32 << 10;
/// Most plain bytes of a piece. A block of zlib has 8.5 MB at most, and a piece ends with a block.
pub const PIECE_PLAIN_LEN_MAX: usize = 16 << 20;
/// Most deflated bits of a piece: 16 MiB.
pub const PIECE_BITS_MAX: u64 = 128 << 20;

/// A block begins with whether it is the last, one bit, and its kind, two.
const BLOCK_STORED: u64 = 0b000;
const BLOCK_STORED_LAST: u64 = 0b001;
const BLOCK_FIXED: u64 = 0b010;
const BLOCK_DYNAMIC: u64 = 0b100;
/// The end of a block in the fixed code.
const FIXED_END: (u64, u32) = (0, 7);
/// What stands behind a piece at most: the beginning of a stored block, zeros up to a byte, and its two lengths.
const TAIL_BITS_MAX: u64 = 3 + 7 + 32;

/// Some blocks of a deflated stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The plain bytes before it, as far as it may refer back.
    pub dictionary: Vec<u8>,
    /// Its own plain bytes.
    pub plain: Vec<u8>,
    /// The bytes it lies in. The first one may begin with bits of what is before, the last one end with those of what is behind.
    pub deflated: Vec<u8>,
    /// Bits of the first byte that are not its own.
    pub skipped: u8,
    /// Its length in bits.
    pub bit_len: u64,
    /// Its last block is the last of the stream.
    pub is_last: bool,
}

impl Piece {
    /// This piece and the one behind it as one. None if that is too long.
    #[must_use]
    pub fn joined(&self, behind: &Self) -> Option<Self> {
        let plain = [self.plain.as_slice(), &behind.plain].concat();
        // The byte that both lie in stands at the end of this one and at the beginning of the other.
        let rest = behind.deflated.get(usize::from(behind.skipped > 0)..)?;
        let deflated = [self.deflated.as_slice(), rest].concat();
        let bit_len = self.bit_len + behind.bit_len;
        let fits = plain.len() <= PIECE_PLAIN_LEN_MAX && bit_len <= PIECE_BITS_MAX;
        let (dictionary, skipped, is_last) = (self.dictionary.clone(), self.skipped, behind.is_last);
        fits.then_some(Self { dictionary, plain, deflated, skipped, bit_len, is_last })
    }

    /// Its bits from the lowest of the first byte on, zeros behind them.
    #[must_use]
    pub fn bits(&self) -> Vec<u8> {
        bits::behind(&self.deflated, u64::from(self.skipped), self.bit_len).unwrap_or_default()
    }

    /// What has to be known beside the plain bytes to make the piece again, for a piece that begins so many bits behind a byte. None
    /// where nothing is known that would. What `compressor` knows is made use of, and more is told it.
    #[must_use]
    pub fn corrections(&self, bits: &[u8], alignment: u8, compressor: &Compressor) -> Option<Vec<u8>> {
        let deflated = self.whole(bits, alignment)?;
        let whole = Whole { dictionary: &self.dictionary, plain: &self.plain, deflated: &deflated };
        let mut best: Option<(Parameters, Vec<u8>)> = None;
        if let Some(known) = compressor.known() {
            let most = known.corrections_len_max(self.bit_len);
            // A correction takes about a byte, more or less.
            if let Some(corrections) = trace(whole, &known.parameters, 8 * most) {
                if corrections.len() <= most {
                    return Some(corrections);
                }
                best = Some((known.parameters, corrections));
            }
        }
        // What the beginning of a piece was chosen by may not do for the rest of it: pigz begins anew here and there, and knows more then.
        let guessed = [false, true].into_iter().find_map(|by_all| {
            let parameters = guess(whole, by_all)?;
            Some((parameters, trace(whole, &parameters, WRONG_COUNT_MAX)?))
        });
        let (parameters, corrections) =
            best.into_iter().chain(guessed).min_by_key(|(_, corrections)| corrections.len())?;
        compressor.learn(Known { parameters, corrections_len: corrections.len(), bit_len: self.bit_len });
        Some(corrections)
    }

    /// A stream that begins with the dictionary and ends with the piece.
    fn whole(&self, bits: &[u8], alignment: u8) -> Option<Vec<u8>> {
        let mut whole = head(&self.dictionary, alignment)?;
        whole.extend(bits, self.bit_len);
        if !self.is_last {
            whole.push(BLOCK_STORED_LAST, 3);
            whole.align();
            whole.extend(&[0, 0, 0xff, 0xff], 32);
        }
        Some(whole.into_bytes())
    }
}

/// With more corrections they are longer than any record takes.
const WRONG_COUNT_MAX: usize = 8 * CORRECTIONS_LEN_MAX;
/// Corrections up to one part in so many of the deflated bytes are as good as none: the compressor is the same.
const GOOD_SHARE: u64 = 256;
/// From one part in so many on, it may be somebody else.
const MANY_SHARE: u64 = 24;
/// Of short pieces they may take so many bytes.
const GOOD_LEN: u64 = 128;

/// What is known of a compressor from one piece.
#[derive(Debug, Clone, Copy)]
struct Known {
    parameters: Parameters,
    corrections_len: usize,
    bit_len: u64,
}

impl Known {
    /// More corrections for so many bits are a sign that it is another compressor: a fourth more than the last time, or many.
    fn corrections_len_max(&self, bit_len: u64) -> usize {
        let as_before = u128::from(bit_len) * self.corrections_len as u128 * 5 / 4 / u128::from(self.bit_len.max(1));
        let as_before = u64::try_from(as_before).unwrap_or(u64::MAX).min(bit_len / 8 / MANY_SHARE);
        usize::try_from(as_before.max(bit_len / 8 / GOOD_SHARE + GOOD_LEN)).unwrap_or(usize::MAX)
    }
}

/// Who deflated a stream, or the files of a tree, as far as the pieces before have shown it.
#[derive(Debug, Default)]
pub struct Compressor(Mutex<Option<Known>>);

impl Compressor {
    fn known(&self) -> Option<Known> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, known: Known) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }
}

/// What proves that a piece was made again: the hash of what it refers back to and of its bits. Their lengths stand behind, so that
/// no two pieces give the same bytes to hash.
#[must_use]
pub fn proof(dictionary: &[u8], bits: &[u8], bit_len: u64) -> PieceProof {
    let mut hasher = blake3::Hasher::new();
    hasher.update(dictionary).update(bits);
    hasher.update(&(dictionary.len() as u64).to_le_bytes()).update(&bit_len.to_le_bytes());
    PieceProof::from_bytes(*hasher.finalize().as_bytes())
}

/// Makes a piece again: its bits from the lowest of the first byte on, zeros behind them. None where these corrections
/// are none for these bytes.
#[must_use]
pub fn recreate(dictionary: &[u8], plain: &[u8], corrections: &[u8], alignment: u8, bit_len: u64) -> Option<Vec<u8>> {
    let head = head(dictionary, alignment)?;
    let bit_len_max = head.len().checked_add(bit_len)?.checked_add(TAIL_BITS_MAX)?;
    let made = remake(dictionary, plain, corrections, bit_len_max)?;
    bits::behind(&made, head.len(), bit_len)
}

/// What stands before a piece: a block that holds the dictionary as it is and, for a piece that is to begin within a byte, blocks of
/// nothing. Blocks that are stored as they are begin at the next whole byte, so a piece that has some can't be moved to another place in
/// a byte.
fn head(dictionary: &[u8], alignment: u8) -> Option<Bits> {
    let mut head = Bits::default();
    if !dictionary.is_empty() {
        let len = u16::try_from(dictionary.len()).ok()?;
        head.push(BLOCK_STORED, 3);
        head.align();
        head.push(u64::from(len), 16);
        head.push(u64::from(!len), 16);
        head.extend(dictionary, dictionary.len() as u64 * 8);
    }
    if alignment % 2 == 1 {
        put_empty_dynamic(&mut head);
    }
    while head.len() % 8 != u64::from(alignment % 8) {
        head.push(BLOCK_FIXED, 3);
        head.push(FIXED_END.0, FIXED_END.1);
    }
    Some(head)
}

/// A block of nothing of 95 bits, an odd number, in a code of two literals and two distances of one bit each.
fn put_empty_dynamic(head: &mut Bits) {
    head.push(BLOCK_DYNAMIC, 3);
    // 257 literals, 2 distances, 19 lengths of the code of lengths: one bit for "many zeros", one for "1".
    for (value, count) in [(0, 5), (1, 5), (15, 4), (0, 6), (1, 3), (0, 42), (1, 3), (0, 3)] {
        head.push(value, count);
    }
    // 138 zeros and 117, then 1 for the literal 255, for the end, and for the distances. The end is the second of two.
    for (value, count) in [(1, 1), (127, 7), (1, 1), (106, 7), (0, 4), (1, 1)] {
        head.push(value, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reflate::{Inflater, Step};
    use miniz_oxide::deflate::compress_to_vec;
    use miniz_oxide::deflate::core::{CompressorOxide, create_comp_flags_from_zip_params};
    use miniz_oxide::deflate::stream::deflate;
    use miniz_oxide::{MZFlush, StreamResult};
    use preflate_rs::{PreflateConfig, preflate_whole_deflate_stream, recreate_whole_deflate_stream};
    use proptest::prelude::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn pieces(deflated: &[u8]) -> Vec<Piece> {
        let (mut inflater, mut pieces, mut at) = (Inflater::default(), Vec::new(), 0);
        while let (used, Step::Piece(piece)) = inflater.step(&deflated[at..]) {
            at += used;
            let is_last = piece.is_last;
            pieces.push(piece);
            if is_last {
                break;
            }
        }
        pieces
    }

    /// The library asserts what it believes of its input.
    fn quietly<T>(work: impl FnOnce() -> Option<T>) -> Option<T> {
        catch_unwind(AssertUnwindSafe(work)).ok().flatten()
    }

    /// The library makes of our corrections what we make of them, and we of its own what it makes, and that is what was read.
    fn compare(piece: &Piece, alignment: u8, must_do: bool) {
        let bits = piece.bits();
        let whole = piece.whole(&bits, alignment).unwrap();
        let text = [piece.dictionary.as_slice(), &piece.plain].concat();
        let head_len = head(&piece.dictionary, alignment).unwrap().len();
        let config = PreflateConfig { verify_compression: false, ..PreflateConfig::default() };
        let library = || preflate_whole_deflate_stream(&whole, &config).ok().map(|(result, _)| result.corrections);
        let own = piece.corrections(&bits, alignment, &Compressor::default());
        for corrections in [own.clone(), quietly(library)].into_iter().flatten() {
            let ours = recreate(&piece.dictionary, &piece.plain, &corrections, alignment, piece.bit_len);
            // Of corrections that don't make what they were found for, its own among them, the library may never come to an end.
            if ours.as_ref() != Some(&bits) && !(must_do && own.as_ref() != Some(&corrections)) {
                continue;
            }
            let theirs = quietly(|| recreate_whole_deflate_stream(&text, &corrections).ok());
            let theirs = theirs.and_then(|made| bits::behind(&made, head_len, piece.bit_len));
            assert_eq!(ours, theirs);
        }
        let own = own.and_then(|own| recreate(&piece.dictionary, &piece.plain, &own, alignment, piece.bit_len));
        assert!(own.as_ref() == Some(&bits) || alignment != piece.skipped || !must_do);
    }

    #[test]
    fn a_compressor_that_is_known_is_not_guessed_again_and_another_one_is() {
        let text = some_text(&(0..3000_u16).map(|n| (n.wrapping_mul(77), 3)).collect::<Vec<_>>());
        let compressor = Compressor::default();
        for level in [6, 1, 6] {
            let [piece] = &pieces(&compress_to_vec(&text, level))[..] else { panic!("it is short") };
            let bits = piece.bits();
            let corrections = piece.corrections(&bits, 0, &compressor).unwrap();
            let known = compressor.known().unwrap();
            let alone = Compressor::default();
            assert_eq!(corrections, piece.corrections(&bits, 0, &alone).unwrap(), "{level}");
            assert_eq!(known.parameters, alone.known().unwrap().parameters, "{level}");
            assert_eq!(piece.corrections(&bits, 0, &compressor), Some(corrections));
        }
    }

    /// Deflated with flushes in between, which leave empty blocks.
    fn flushed(plain: &[u8], level: i32, every: usize, flush: MZFlush) -> Vec<u8> {
        let mut compressor = CompressorOxide::new(create_comp_flags_from_zip_params(level, -15, 0));
        let mut out = vec![0; 2 * plain.len() + plain.len().div_ceil(every) * 64 + 1024];
        let (mut len, mut parts) = (0, plain.chunks(every).peekable());
        loop {
            let part = parts.next().unwrap_or_default();
            let flush = if parts.peek().is_none() { MZFlush::Finish } else { flush };
            let StreamResult { bytes_written, .. } = deflate(&mut compressor, part, &mut out[len..], flush);
            len += bytes_written;
            if flush == MZFlush::Finish {
                out.truncate(len);
                return out;
            }
        }
    }

    /// Rows, noise, and runs.
    fn some_text(rows: &[(u16, u8)]) -> Vec<u8> {
        let row = |(n, kind): &(u16, u8)| match kind % 4 {
            0 => blake3::hash(&n.to_le_bytes()).as_bytes().to_vec(),
            1 => vec![*kind; usize::from(*n) % 700],
            _ => format!("row {}: customer {} of part {}\n", n % 500, u32::from(*n) * 7919 % 1000, kind).into_bytes(),
        };
        rows.iter().flat_map(row).collect()
    }

    #[test]
    fn what_is_made_again_is_what_the_library_makes_at_every_level_and_place() {
        let rows: Vec<(u16, u8)> = (0..4000_u16).map(|n| (n.wrapping_mul(31), n.to_le_bytes()[0] % 11)).collect();
        let text = some_text(&rows);
        for level in 0..=10 {
            for len in [0, 1, 2, 3, 4, 5, 9, 300, 20_000, text.len()] {
                for piece in pieces(&compress_to_vec(&text[..len], level)) {
                    (0..8)
                        .filter(|alignment| *alignment == 0 || len < 400)
                        .for_each(|alignment| compare(&piece, alignment, true));
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_deflated_piece_is_made_as_the_library_makes_it(
            rows in proptest::collection::vec(any::<(u16, u8)>(), 0..100), level in 0..10, every in 50_usize..5000, is_full: bool,
            alignment in 0_u8..8, cut in 0_usize..40_000,
        ) {
            let text = some_text(&rows);
            let flush = if is_full { MZFlush::Full } else { MZFlush::Sync };
            for mut piece in pieces(&flushed(&text, level, every, flush)) {
                compare(&piece, alignment, false);
                compare(&piece, piece.skipped, false);
                piece.dictionary = text[..cut.min(text.len()).min(DICTIONARY_LEN_MAX)].to_vec();
                compare(&piece, alignment, false);
            }
        }
    }
}
