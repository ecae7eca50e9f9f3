//! Packs that are known and there, and yet not to be relied on: they are on their way out. What writers ask leaves them
//! out; readers may read them as long as they are there. Held for this process alone, in tables that others don't see.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{ChunkPlace, Index, Known, place};
use crate::error::Result;
use crate::id::{ChunkId, PackId};
use crate::store::pack::Lineage;

/// Deltas that are read together.
const PAGE_COUNT: usize = 4096;

const TABLES: &str = "
    CREATE TEMP TABLE IF NOT EXISTS aside_packs (id BLOB PRIMARY KEY) WITHOUT ROWID;
    CREATE TEMP TABLE IF NOT EXISTS aside_frames (no INTEGER PRIMARY KEY);
    DELETE FROM aside_packs;
    DELETE FROM aside_frames;
";

/// Of `chunks c`, `frames f`, `packs p`: those that may be relied on.
const COUNTS: &str = "
    NOT EXISTS (SELECT 1 FROM temp.aside_packs a WHERE a.id = p.id)
    AND NOT EXISTS (SELECT 1 FROM temp.aside_frames a WHERE a.no = f.no)
";

impl Index {
    /// Whether anything is set aside.
    #[must_use]
    pub fn has_aside(&self) -> bool {
        self.has_aside.load(Ordering::Relaxed)
    }

    /// From now on nothing in `packs` is relied on, nor deltas that rest on what is in no other pack. Replaces what was
    /// set aside before. The index must know all packs.
    ///
    /// # Errors
    /// From SQLite.
    pub fn set_aside(&self, packs: &HashSet<PackId>) -> Result<()> {
        if packs.is_empty() && !self.has_aside() {
            return Ok(());
        }
        let mut connection = self.lock();
        let set = connection.transaction().and_then(|transaction| {
            transaction.execute_batch(TABLES)?;
            for pack in packs {
                transaction.execute("INSERT INTO temp.aside_packs VALUES (?)", [pack.as_bytes()])?;
            }
            set_deltas_aside(&transaction)?;
            transaction.commit()
        });
        set.map_err(|cause| self.failed(cause))?;
        self.has_aside.store(!packs.is_empty(), Ordering::Relaxed);
        Ok(())
    }

    /// Whether a pack was set aside.
    ///
    /// # Errors
    /// From SQLite.
    pub fn is_aside(&self, pack: &PackId) -> Result<bool> {
        if !self.has_aside() {
            return Ok(false);
        }
        let connection = self.lock();
        let found = connection
            .prepare_cached("SELECT 1 FROM temp.aside_packs WHERE id = ?")
            .and_then(|mut statement| statement.exists([pack.as_bytes()]));
        found.map_err(|cause| self.failed(cause))
    }

    /// Which of `ids` lie in packs that may be relied on, and were known then: one answer each, in order.
    ///
    /// # Errors
    /// From SQLite.
    pub fn contains_of(&self, ids: &[ChunkId], known: Known) -> Result<Vec<bool>> {
        let connection = self.lock();
        let counts = if self.has_aside() { COUNTS } else { "1" };
        let found = connection.unchecked_transaction().and_then(|transaction| {
            let mut statement = transaction.prepare_cached(&format!(
                "SELECT 1 FROM chunks c JOIN frames f ON f.no = c.frame JOIN packs p ON p.no = f.pack
                 WHERE c.id = ? AND c.frame <= ? AND {counts}"
            ))?;
            ids.iter().map(|id| statement.exists(params![id.as_bytes(), known.0])).collect()
        });
        found.map_err(|cause| self.failed(cause))
    }

    /// Where `ids` lie that may be relied on: one answer each, in order.
    ///
    /// # Errors
    /// From SQLite.
    pub fn places_not_aside(&self, ids: &[ChunkId]) -> Result<Vec<Option<ChunkPlace>>> {
        if !self.has_aside() {
            return self.places(ids);
        }
        let connection = self.lock();
        places_not_aside(&connection, ids).map_err(|cause| self.failed(cause))
    }
}

fn places_not_aside(connection: &Connection, ids: &[ChunkId]) -> rusqlite::Result<Vec<Option<ChunkPlace>>> {
    let transaction = connection.unchecked_transaction()?;
    let mut statement = transaction.prepare_cached(&format!(
        "SELECT p.id, p.role, f.offset, f.sealed_len, f.plain_len, f.kind, c.offset, c.len, f.extension
         FROM chunks c JOIN frames f ON f.no = c.frame JOIN packs p ON p.no = f.pack
         WHERE c.id = ? AND {COUNTS} ORDER BY f.depth, c.frame LIMIT 1"
    ))?;
    ids.iter().map(|id| statement.query_row([id.as_bytes()], place).optional()).collect()
}

/// The least deep first: one whose base was just set aside is itself set aside then.
fn set_deltas_aside(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let deepest: u8 = transaction.query_row("SELECT coalesce(max(depth), 0) FROM frames", [], |row| row.get(0))?;
    let mut deltas = transaction.prepare(&format!(
        "SELECT f.no, f.extension FROM frames f JOIN packs p ON p.no = f.pack
         WHERE f.depth = ? AND f.no > ? AND {COUNTS} ORDER BY f.no LIMIT {PAGE_COUNT}"
    ))?;
    let mut sound = transaction.prepare(&format!(
        "SELECT 1 FROM chunks c JOIN frames f ON f.no = c.frame JOIN packs p ON p.no = f.pack
         WHERE c.id = ? AND f.depth < ? AND {COUNTS}"
    ))?;
    for depth in 1..=deepest {
        let mut last = 0_i64;
        loop {
            let page = deltas
                .query_map(params![depth, last], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let Some((end, _)) = page.last() else { break };
            last = *end;
            for (no, extension) in page {
                let lineage = Lineage::decode(&extension).map_err(|_| rusqlite::Error::InvalidQuery)?;
                for base in &lineage.bases {
                    if !sound.exists(params![base.as_bytes(), depth])? {
                        transaction.execute("INSERT INTO temp.aside_frames VALUES (?)", [no])?;
                        break;
                    }
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{id, pack};
    use super::*;

    #[test]
    fn what_rests_on_a_pack_that_is_set_aside_is_not_relied_on() {
        let index = Index::in_memory().unwrap();
        let packs =
            [pack(1, 1, 0, &[]), pack(2, 2, 1, &[1]), pack(3, 3, 2, &[2]), pack(4, 2, 0, &[]), pack(5, 4, 0, &[])];
        for entry in &packs {
            index.add_pack(entry, &[]).unwrap();
        }
        let ids = [1, 2, 3, 4].map(id);
        assert_eq!(index.contains(&ids).unwrap(), [true; 4]);
        index.set_aside(&HashSet::from([packs[0].id])).unwrap();
        // The second has another place, which is no delta.
        assert_eq!(index.contains(&ids).unwrap(), [false, true, true, true]);
        let places = index.places_not_aside(&ids).unwrap();
        assert_eq!(places.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, true, true]);
        index.set_aside(&HashSet::from([packs[0].id, packs[3].id])).unwrap();
        assert_eq!(index.contains(&ids).unwrap(), [false, false, false, true]);
        assert!(index.places(&ids).unwrap().iter().all(Option::is_some), "readers may still read");
        index.set_aside(&HashSet::new()).unwrap();
        assert_eq!(index.contains(&ids).unwrap(), [true; 4]);
    }
}
