//! Pieces that were taken apart before: what is in the recipe of an older stream is not found out again, whatever that stream was
//! called. The index remembers in which chunk of a recipe each piece is, by its proof; a chunk that is not there any more, or
//! can't be read by this host, costs the time to do it again and nothing else.

use std::sync::Mutex;

use crate::archive::content::Leaves;
use crate::archive::entry::Content;
use crate::error::Result;
use crate::id::{ChunkId, PieceProof};
use crate::observer::{Context, Ledger};
use crate::pipeline::lock;
use crate::reflate::{Compressor, Record, decode_records};
use crate::store::{ChunkReader, ChunkSource, Repository};

/// What a repository knows of pieces.
pub struct KnownPieces<'k> {
    repository: &'k Repository,
    context: Context<'k>,
    /// What is wrong with what is only tried needs not be told.
    untold: Ledger,
    /// The chunk of a recipe that was asked for last. Pieces of one stream lie side by side.
    last: Mutex<Option<(ChunkId, Vec<Record>)>>,
    /// Who deflated what is new: mostly one for all that is in a stream, or in a tree.
    compressor: Compressor,
}

impl<'k> KnownPieces<'k> {
    /// Of `repository`.
    #[must_use]
    pub fn new(repository: &'k Repository, context: Context<'k>) -> Self {
        Self {
            repository,
            context,
            untold: Ledger::default(),
            last: Mutex::new(None),
            compressor: Compressor::default(),
        }
    }

    pub(super) fn compressor(&self) -> &Compressor {
        &self.compressor
    }

    /// None where nothing may be read.
    fn chunks(&self) -> Option<ChunkReader<'_>> {
        let context = Context { observer: &self.untold, ..self.context };
        self.repository.can_read().then(|| self.repository.reader(context))
    }

    /// What the index calls a piece: keyed, so that it tells nobody which files are here.
    fn name(&self, proof: &PieceProof) -> ChunkId {
        self.repository.chunk_id(proof.as_bytes())
    }

    /// The record of the piece with this proof, if it is known.
    pub(super) fn record(&self, wanted: &PieceProof) -> Option<Record> {
        let chunk = self.repository.index().recipe_of(&self.name(wanted)).ok()??;
        let mut last = lock(&self.last);
        if last.as_ref().is_none_or(|(id, _)| *id != chunk) {
            let records = decode_records(&self.chunks()?.get(&chunk).ok()?).ok()?;
            *last = Some((chunk, records));
        }
        let (_, records) = last.as_ref()?;
        records.iter().find(|record| proof_of(record).as_ref() == Some(wanted)).cloned()
    }

    /// Remembers the pieces of a chunk of a recipe.
    ///
    /// # Errors
    /// From the index.
    pub fn note(&self, chunk: &ChunkId, proofs: &[PieceProof]) -> Result<()> {
        let names: Vec<ChunkId> = proofs.iter().map(|proof| self.name(proof)).collect();
        self.repository.index().note_recipe(chunk, &names)
    }

    /// Remembers the pieces of a stream that was stored before, by another machine or before the cache was lost. What can't be read
    /// is not known.
    ///
    /// # Errors
    /// From the index.
    pub fn learn(&self, content: &Content) -> Result<()> {
        let (Some(chunks), Some(reflated)) = (self.chunks(), content.reflated) else { return Ok(()) };
        for (n, piece) in Leaves::behind(&chunks, content, reflated.plain_len).enumerate() {
            let Ok(records) = piece.and_then(|piece| chunks.get(&piece.id).map(|bytes| (piece.id, bytes))) else {
                break;
            };
            let proofs: Vec<PieceProof> =
                decode_records(&records.1).unwrap_or_default().iter().filter_map(proof_of).collect();
            if n == 0 && self.are_known(&proofs)? {
                break;
            }
            self.note(&records.0, &proofs)?;
        }
        Ok(())
    }

    fn are_known(&self, proofs: &[PieceProof]) -> Result<bool> {
        for proof in proofs {
            if self.repository.index().recipe_of(&self.name(proof))?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn proof_of(record: &Record) -> Option<PieceProof> {
    match record {
        Record::Piece { proof, .. } => Some(*proof),
        _ => None,
    }
}
