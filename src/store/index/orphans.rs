//! Deltas whose bases are not stored: what they hold can't be read, so it doesn't count as stored. Their frames stay known,
//! so that their packs are as long as they are.

use std::collections::BTreeSet;

use rusqlite::{Statement, Transaction, params};

use crate::store::pack::Lineage;

/// Forgets the chunks of orphans among the frames after the frame `after`; 0: among all. How many frames that hit.
pub(super) fn forget(transaction: &Transaction<'_>, after: i64) -> rusqlite::Result<u64> {
    let mut deltas =
        transaction.prepare("SELECT no, depth, extension FROM frames WHERE no > ? AND depth > 0 ORDER BY depth")?;
    let mut places = places(transaction)?;
    let mut orphans: BTreeSet<i64> = BTreeSet::new();
    let mut rows = deltas.query([after])?;
    while let Some(row) = rows.next()? {
        let (no, extension): (i64, Vec<u8>) = (row.get(0)?, row.get(2)?);
        if !has_bases(&mut places, row.get(1)?, &extension, &orphans)? {
            orphans.insert(no);
        }
    }
    transaction.execute("UPDATE looked_at SET frame = (SELECT coalesce(max(no), 0) FROM frames)", [])?;
    if orphans.is_empty() {
        return Ok(0);
    }
    let list = serde_json::json!(orphans).to_string();
    // Those that hit nothing were hit before.
    let hit = transaction.query_row(
        "SELECT count(DISTINCT frame) FROM chunks WHERE frame IN (SELECT value FROM json_each(?))",
        [&list],
        |row| row.get(0),
    )?;
    transaction.execute(
        "INSERT OR IGNORE INTO orphans SELECT id, frame, offset, len FROM chunks
         WHERE frame IN (SELECT value FROM json_each(?))",
        [&list],
    )?;
    transaction.execute("DELETE FROM chunks WHERE frame IN (SELECT value FROM json_each(?))", [&list])?;
    Ok(hit)
}

/// Brings back what is no orphan any more. How many frames that are.
pub(super) fn recall(transaction: &Transaction<'_>) -> rusqlite::Result<u64> {
    let mut deltas = transaction
        .prepare("SELECT no, depth, extension FROM frames WHERE no IN (SELECT frame FROM orphans) ORDER BY depth")?;
    let mut places = places(transaction)?;
    let mut bring = transaction
        .prepare("INSERT OR IGNORE INTO chunks SELECT id, frame, offset, len FROM orphans WHERE frame = ?")?;
    let mut forget = transaction.prepare("DELETE FROM orphans WHERE frame = ?")?;
    let waiting = deltas.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let waiting = waiting.collect::<rusqlite::Result<Vec<(i64, u8, Vec<u8>)>>>()?;
    let mut count = 0;
    // The least deep first: one that is brought back may be the base of another.
    for (no, depth, extension) in waiting {
        if has_bases(&mut places, depth, &extension, &BTreeSet::new())? {
            bring.execute([no])?;
            forget.execute([no])?;
            count += 1;
        }
    }
    Ok(count)
}

fn places<'t>(transaction: &'t Transaction<'_>) -> rusqlite::Result<Statement<'t>> {
    transaction.prepare("SELECT f.no FROM chunks c JOIN frames f ON f.no = c.frame WHERE c.id = ? AND f.depth < ?")
}

/// Whether there is a place for each base, less deep and not among `orphans`.
fn has_bases(
    places: &mut Statement<'_>,
    depth: u8,
    extension: &[u8],
    orphans: &BTreeSet<i64>,
) -> rusqlite::Result<bool> {
    let lineage = Lineage::decode(extension).map_err(|_| rusqlite::Error::InvalidQuery)?;
    for base in &lineage.bases {
        let frames = places.query_map(params![base.as_bytes(), depth], |row| row.get(0))?;
        let frames = frames.collect::<rusqlite::Result<Vec<i64>>>()?;
        if frames.iter().all(|frame| orphans.contains(frame)) {
            return Ok(false);
        }
    }
    Ok(true)
}
