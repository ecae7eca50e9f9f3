//! In which chunk of a recipe the corrections of a piece are. Like the rest a cache: what is not here is found out again.

use rusqlite::{OptionalExtension, params};

use super::Index;
use crate::error::Result;
use crate::id::ChunkId;

impl Index {
    /// The chunk that holds the record with this proof, as far as is known.
    ///
    /// # Errors
    /// From SQLite.
    pub fn recipe_of(&self, proof: &ChunkId) -> Result<Option<ChunkId>> {
        let connection = self.lock();
        let found = connection.prepare_cached("SELECT chunk FROM recipes WHERE proof = ?").and_then(|mut statement| {
            statement.query_row([proof.as_bytes()], |row| row.get(0).map(ChunkId::from_bytes)).optional()
        });
        found.map_err(|cause| self.failed(cause))
    }

    /// Notes which records a chunk holds.
    ///
    /// # Errors
    /// From SQLite.
    pub fn note_recipe(&self, chunk: &ChunkId, proofs: &[ChunkId]) -> Result<()> {
        if proofs.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            let mut note = transaction.prepare_cached("INSERT OR REPLACE INTO recipes VALUES (?, ?)")?;
            proofs.iter().try_for_each(|proof| note.execute(params![proof.as_bytes(), chunk.as_bytes()]).map(drop))
        })
    }
}
