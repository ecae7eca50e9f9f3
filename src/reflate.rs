//! Inside gzip: deflated data as its plain bytes and what it takes to deflate them again, bit for bit (format-spec 15).
//!
//! One changed byte changes all of a deflated stream behind it, so nothing in it is ever found again. Its plain bytes are. What
//! is missing is how the compressor chose among the ways of saying the same: that is guessed from what it chose, and
//! where the guess is wrong a correction is kept. `remake` does both, in the format of `preflate-rs` (format-spec 16), which is not made
//! for corrections of enemies, and is used in tests as another opinion.
//!
//! A stream is opened in *pieces* that need nothing of each other but the 32 KiB of plain bytes before, which deflate refers back
//! to. So all cores work on one stream, in both directions, and memory doesn't grow with it. The format knows only whole
//! streams, so that is what they are made: the bytes before as a block that is not compressed, the blocks of the piece, and
//! where these are not the last ones an empty block that is. All that is taken off again afterwards.
//!
//! Nothing is believed: a piece counts when it was made again and is the same (`archive::reflated`).

mod bits;
mod find;
mod inflate;
mod piece;
mod policy;
mod recipe;
mod remake;

pub use bits::Bits;
pub use find::{HEADER_LEN_MAX, Header, header, held_back, next_start};
pub use inflate::{Inflater, Step};
pub use piece::{Compressor, DICTIONARY_LEN_MAX, PIECE_BITS_MAX, PIECE_PLAIN_LEN_MAX, Piece, proof, recreate};
pub use policy::Policy;
pub use recipe::{CORRECTIONS_LEN_MAX, LITERAL_LEN_MAX, Record, decode_records};

/// The way of making pieces again: that of `preflate-rs` 0.7.6, in whole streams, as described above. A change of a single byte of
/// what it makes, or takes, is another number.
pub const ALGORITHM: u64 = 1;
