//! What new chunks may be made of: stored ones that lay at their place in an older version.

use std::fmt::Debug;
use std::sync::Arc;

use crate::id::ChunkId;

/// What came of looking for something like a new chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The new chunk.
    pub new: ChunkId,
    /// A stored one that has much in common with it, and where the same bytes lie in that one, less where they lie in the
    /// new one.
    pub aligned: Option<(ChunkId, i64)>,
}

/// Two versions of a stream beside each other. It is asked when a chunk's turn has come, and knows better then than when
/// the chunk was cut: it was told of those before.
pub trait Alignment: Debug + Send + Sync {
    /// What lay where the new chunk lies, by what is known now.
    fn older(&self, new: &ChunkId) -> Vec<ChunkId>;

    /// Takes in what came of a chunk.
    fn learn(&self, outcome: &Outcome);
}

/// Stored chunks that lay at the place of a new one.
#[derive(Debug, Clone)]
pub enum Older {
    /// These.
    Known(Vec<ChunkId>),
    /// Those that the alignment tells.
    Aligned(Arc<dyn Alignment>),
}

impl Default for Older {
    fn default() -> Self {
        Self::Known(Vec::new())
    }
}

impl Older {
    /// Their ids, by what is known now, for the chunk `new`.
    #[must_use]
    pub fn ids(&self, new: &ChunkId) -> Vec<ChunkId> {
        match self {
            Self::Known(ids) => ids.clone(),
            Self::Aligned(alignment) => alignment.older(new),
        }
    }

    /// There are none, and won't be.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Known(ids) if ids.is_empty())
    }

    /// Takes in what came of the chunk.
    pub(super) fn learn(&self, outcome: &Outcome) {
        if let Self::Aligned(alignment) = self {
            alignment.learn(outcome);
        }
    }
}
