//! Contents that are inflated where they can be: taken apart while they are read, and made again (format-spec 15).
//!
//! ```text
//! read:  source -> find members, inflate to pieces -> [corrections, make again, compare] x cores -> plain bytes, recipe
//! write: plain bytes, recipe -> [make again, compare with the proof] x cores -> the bytes that were read
//! ```
//! Whatever goes wrong on the way in, the bytes are stored as they are: the plain bytes of a stream hold what could not be
//! opened in the place where it was. What goes wrong on the way out is damage, and told: a wrong byte is never given.

mod known;
mod maker;
mod opener;
mod splitter;

pub use known::KnownPieces;
pub use maker::Recreated;
pub use opener::{Opened, Opener, RecipeChunk};
