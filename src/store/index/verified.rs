//! When each pack was last read whole and found to be what was written, by this machine.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::params;

use super::Index;
use crate::error::Result;
use crate::id::PackId;

impl Index {
    /// When packs were verified, in seconds of the clock; those that never were are not there.
    ///
    /// # Errors
    /// From SQLite.
    pub fn verified(&self) -> Result<HashMap<PackId, i64>> {
        let connection = self.lock();
        let mut statement = connection.prepare("SELECT pack, at FROM verified").map_err(|cause| self.failed(cause))?;
        let rows = statement
            .query_map([], |row| Ok((PackId::from_bytes(row.get(0)?), row.get(1)?)))
            .map_err(|cause| self.failed(cause))?;
        rows.map(|row| row.map_err(|cause| self.failed(cause))).collect()
    }

    /// Notes that packs were verified, and forgets what was noted of packs that are not known any more.
    ///
    /// # Errors
    /// From SQLite.
    pub fn note_verified(&self, packs: &[PackId], at: Timestamp) -> Result<()> {
        if packs.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            let mut note = transaction.prepare("INSERT OR REPLACE INTO verified VALUES (?, ?)")?;
            for id in packs {
                note.execute(params![id.as_bytes(), at.as_second()])?;
            }
            transaction.execute("DELETE FROM verified WHERE pack NOT IN (SELECT id FROM packs)", []).map(drop)
        })
    }
}
