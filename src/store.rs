//! Chunks by id: deduplicated, packed, indexed, encrypted. Knows no trees.

mod alignment;
pub mod card;
pub mod check;
mod chunk_reader;
pub mod config;
mod copies;
pub mod envelope;
mod frame_maker;
mod frame_source;
pub mod heal;
pub mod index;
pub mod index_segment;
pub mod keyring;
pub mod pack;
pub mod pack_reader;
pub mod pack_writer;
pub mod parity;
pub mod prune;
mod relied;
mod repository;
pub mod retired;
pub mod rights;
pub mod salvage;
pub mod session;
pub mod signature;
mod spans;
mod take_over;
mod writer;

pub use alignment::{Alignment, Older, Outcome};
pub use chunk_reader::ChunkReader;
pub use frame_maker::{DeltaPolicy, PackedFrame};
pub use keyring::{KeyInfo, Recipient, Unlock};
pub use pack::Role;
pub use repository::{Repository, exists};
pub use take_over::TakeOver;
pub use writer::{Offered, PutSummary, Writer};

use crate::error::Result;
use crate::id::ChunkId;

/// Gives chunks by id, verified.
pub trait ChunkSource: Sync {
    /// The bytes of one chunk.
    fn get(&self, id: &ChunkId) -> Result<Vec<u8>>;

    /// Delivers every chunk of `ids`, in whatever order is fastest, from several threads. `deliver` gets the position
    /// in `ids` and the bytes, exactly once for each position on success. Memory stays bounded however many there are.
    fn get_many(&self, ids: &[ChunkId], deliver: &(dyn Fn(usize, &[u8]) -> Result<()> + Sync)) -> Result<()>;
}
