//! Pieces that are fetched together, so that packs are read once and in order, and memory stays flat.

use std::collections::HashMap;
use std::sync::Arc;

use super::file::FileJob;
use crate::archive::entry::{Content, Piece};
use crate::id::ChunkId;

/// Most pieces of a batch.
pub(super) const PIECE_COUNT_MAX: usize = 16_384;

/// Where a chunk goes.
#[derive(Debug)]
pub(super) struct Place {
    pub job: Arc<FileJob>,
    pub offset: u64,
    pub len: u64,
}

/// Chunks with the places that want them; each chunk is fetched once.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub ids: Vec<ChunkId>,
    pub places: Vec<Vec<Place>>,
    positions: HashMap<ChunkId, usize>,
    piece_count: usize,
    /// Files that were taken apart; their bytes are made again.
    pub apart: Vec<(Arc<FileJob>, Content)>,
    /// Files that have pieces in this batch.
    pub jobs: Vec<Arc<FileJob>>,
}

impl Batch {
    pub fn push(&mut self, piece: &Piece, offset: u64, job: &Arc<FileJob>) {
        let position = *self.positions.entry(piece.id).or_insert_with(|| {
            self.ids.push(piece.id);
            self.places.push(Vec::with_capacity(1));
            self.ids.len() - 1
        });
        if self.jobs.last().is_none_or(|last| !Arc::ptr_eq(last, job)) {
            self.jobs.push(Arc::clone(job));
        }
        job.begin_piece();
        self.places[position].push(Place { job: Arc::clone(job), offset, len: piece.len });
        self.piece_count += 1;
    }

    /// A file whose pieces are not its bytes.
    pub fn push_apart(&mut self, job: Arc<FileJob>, content: Content) {
        self.piece_count += content.pieces.len();
        self.jobs.push(Arc::clone(&job));
        self.apart.push((job, content));
    }

    pub fn is_full(&self) -> bool {
        self.piece_count >= PIECE_COUNT_MAX
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.apart.is_empty()
    }
}
