//! What a run that gives space back must not delete of its own list (RECL-15): whatever is not to be had from packs that
//! nobody has on a list is kept in every place, with all that it takes to read it there. To choose one place of several
//! would not do: who works off another list may choose another.

use rusqlite::{Transaction, params};

use crate::id::ChunkId;
use crate::store::pack::Lineage;

/// Rows that are looked at together.
const PAGE_COUNT: usize = 4096;

/// Tables of one count. `shaky` are frames that are needed and rest on a pack that is on a list.
pub(super) const TABLES: &str = "
    CREATE TEMP TABLE IF NOT EXISTS shaky (frame INTEGER PRIMARY KEY);
    CREATE TEMP TABLE IF NOT EXISTS precious (no INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE);
    CREATE TEMP TABLE IF NOT EXISTS kept (frame INTEGER PRIMARY KEY);
";

/// Empties them.
pub(super) const CLEAR: &str = "DELETE FROM temp.shaky; DELETE FROM temp.precious; DELETE FROM temp.kept;";

/// Notes the frames that have to stay, after places were found for everything that is needed.
pub(super) fn keep(transaction: &Transaction<'_>, missing_count: u64) -> rusqlite::Result<()> {
    let listed = transaction.execute(
        "INSERT INTO temp.shaky SELECT l.frame FROM temp.live l JOIN frames f ON f.no = l.frame
         JOIN temp.standings s ON s.pack = f.pack",
        [],
    )?;
    // Mostly everything is to be had without any pack that is on a list.
    if listed == 0 && missing_count == 0 {
        return Ok(());
    }
    shake(transaction)?;
    transaction.execute(
        "INSERT INTO temp.precious (id) SELECT r.id FROM temp.reached r WHERE NOT EXISTS (
             SELECT 1 FROM temp.needed n WHERE n.id = r.id AND n.frame NOT IN (SELECT frame FROM temp.shaky))",
        [],
    )?;
    keep_all_places(transaction)
}

/// Of deltas too, the least deep first: bases are less deep.
fn shake(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let deepest: u8 = transaction.query_row("SELECT coalesce(max(depth), 0) FROM temp.live", [], |row| row.get(0))?;
    let mut deltas = transaction.prepare(&format!(
        "SELECT l.frame, f.extension FROM temp.live l JOIN frames f ON f.no = l.frame
         WHERE l.depth = ? AND l.frame > ? ORDER BY l.frame LIMIT {PAGE_COUNT}"
    ))?;
    let mut find_firm = transaction.prepare(
        "SELECT 1 FROM temp.needed n JOIN temp.live l ON l.frame = n.frame
         WHERE n.id = ? AND l.depth < ? AND n.frame NOT IN (SELECT frame FROM temp.shaky)",
    )?;
    let mut add = transaction.prepare("INSERT OR IGNORE INTO temp.shaky VALUES (?)")?;
    for depth in 1..=deepest {
        let mut last = -1;
        loop {
            let page = deltas
                .query_map(params![depth, last], |row| Ok((row.get(0)?, bases(&row.get::<_, Vec<u8>>(1)?)?)))?
                .collect::<rusqlite::Result<Vec<(i64, _)>>>()?;
            let Some((end, _)) = page.last() else { break };
            last = *end;
            for (frame, bases) in page {
                for base in bases {
                    if !find_firm.exists(params![base.as_bytes(), depth])? {
                        add.execute([frame])?;
                        break;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Of deltas too that miss a base: it may come back.
fn keep_all_places(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut find = transaction
        .prepare(&format!("SELECT no, id FROM temp.precious WHERE no > ? ORDER BY no LIMIT {PAGE_COUNT}"))?;
    let mut places = transaction
        .prepare("SELECT f.no, f.depth, f.extension FROM chunks c JOIN frames f ON f.no = c.frame WHERE c.id = ?")?;
    let mut keep = transaction.prepare("INSERT OR IGNORE INTO temp.kept VALUES (?)")?;
    let mut add = transaction.prepare("INSERT OR IGNORE INTO temp.precious (id) VALUES (?)")?;
    let mut last = 0;
    loop {
        let page = find
            .query_map([last], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<Vec<(i64, Vec<u8>)>>>()?;
        let Some((end, _)) = page.last() else { return Ok(()) };
        last = *end;
        for (_, id) in page {
            let mut rows = places.query([id])?;
            while let Some(row) = rows.next()? {
                if keep.execute([row.get::<_, i64>(0)?])? == 0 || row.get::<_, u8>(1)? == 0 {
                    continue;
                }
                for base in bases(&row.get::<_, Vec<u8>>(2)?)? {
                    add.execute([base.as_bytes()])?;
                }
            }
        }
    }
}

fn bases(extension: &[u8]) -> rusqlite::Result<Vec<ChunkId>> {
    Lineage::decode(extension).map(|lineage| lineage.bases).map_err(|_| rusqlite::Error::InvalidQuery)
}
