//! Chunks by id: deduplicated, packed, indexed, encrypted. Knows no trees.

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
