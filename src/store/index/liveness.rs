//! What is needed: from the chunks that snapshots refer to, down to the bases of their deltas, to how much of each pack
//! that is. On disk, in tables that others don't see: memory does not grow with the repository.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{Index, Known, intake, precious};
use crate::error::Result;
use crate::id::{ChunkId, PackId};
use crate::store::pack::{Frame, Lineage, Role};

/// Ids that are noted together: in the order of the table, so that those that share a page meet there.
const BATCH_COUNT: usize = 64 << 10;
/// Deltas whose bases are looked up together.
const PAGE_COUNT: usize = 4096;

const TABLES: &str = "
    CREATE TEMP TABLE IF NOT EXISTS reached (id BLOB PRIMARY KEY) WITHOUT ROWID;
    CREATE TEMP TABLE IF NOT EXISTS trees (key BLOB PRIMARY KEY) WITHOUT ROWID;
    CREATE TEMP TABLE IF NOT EXISTS standings (pack INTEGER PRIMARY KEY, standing INTEGER NOT NULL);
    CREATE TEMP TABLE IF NOT EXISTS needed (id BLOB NOT NULL, frame INTEGER NOT NULL, PRIMARY KEY (id, frame)) WITHOUT ROWID;
    CREATE TEMP TABLE IF NOT EXISTS live (frame INTEGER PRIMARY KEY, depth INTEGER NOT NULL, len INTEGER NOT NULL);
    CREATE INDEX IF NOT EXISTS temp.live_depth ON live (depth, frame);
";

const CLEAR: &str = "
    DELETE FROM temp.reached; DELETE FROM temp.trees; DELETE FROM temp.standings; DELETE FROM temp.needed; DELETE FROM temp.live;
";

/// Whether a pack is here to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It is on nobody's list.
    Stays = 0,
    /// This run has it on its list.
    Retired = 1,
    /// Somebody else has.
    RetiredByOthers = 2,
}

/// How much of a pack is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackUse {
    /// Its name.
    pub id: PackId,
    /// What it holds.
    pub role: Role,
    /// Its length.
    pub len: u64,
    /// Sealed bytes of its frames.
    pub frames_len: u64,
    /// How many of those are needed, about: of a frame that is needed in part, that part.
    pub live_len: u64,
    /// It is one of several places of what can't be read without packs that are on lists: none of them may go.
    pub is_precious: bool,
    /// Whether it is here to stay.
    pub standing: Standing,
}

/// What a count of needs came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Every pack that was known.
    pub packs: Vec<PackUse>,
    /// Chunks that are needed, and in no pack.
    pub missing_count: u64,
}

/// Notes what is reached, and counts what is needed for it.
pub struct Liveness<'i> {
    index: &'i Index,
    waiting: Vec<ChunkId>,
}

impl Index {
    /// Begins to note.
    ///
    /// # Errors
    /// From SQLite.
    pub fn liveness(&self) -> Result<Liveness<'_>> {
        let tables = [TABLES, precious::TABLES, CLEAR, precious::CLEAR].concat();
        self.lock().execute_batch(&tables).map_err(|cause| self.failed(cause))?;
        Ok(Liveness { index: self, waiting: Vec::new() })
    }
}

impl Liveness<'_> {
    /// Snapshots refer to these chunks.
    ///
    /// # Errors
    /// From SQLite.
    pub fn reach(&mut self, ids: impl IntoIterator<Item = ChunkId>) -> Result<()> {
        self.waiting.extend(ids);
        if self.waiting.len() >= BATCH_COUNT { self.note() } else { Ok(()) }
    }

    /// Notes that what is below a tree was reached. False if it was noted before.
    ///
    /// # Errors
    /// From SQLite.
    pub fn reach_tree(&mut self, key: &[u8; 32]) -> Result<bool> {
        let connection = self.index.lock();
        let mut add = connection
            .prepare_cached("INSERT OR IGNORE INTO temp.trees VALUES (?)")
            .map_err(|cause| self.index.failed(cause))?;
        Ok(add.execute([key]).map_err(|cause| self.index.failed(cause))? > 0)
    }

    /// Nothing counts as reached any more but chunks: whoever reaches a tree again reaches what is below it too.
    ///
    /// # Errors
    /// From SQLite.
    pub fn forget_trees(&mut self) -> Result<()> {
        self.index.lock().execute_batch("DELETE FROM temp.trees").map_err(|cause| self.index.failed(cause))
    }

    fn note(&mut self) -> Result<()> {
        let mut ids = std::mem::take(&mut self.waiting);
        ids.sort_unstable();
        ids.dedup();
        let mut connection = self.index.lock();
        let noted = connection.transaction().and_then(|transaction| {
            let mut add = transaction.prepare_cached("INSERT OR IGNORE INTO temp.reached VALUES (?)")?;
            for id in &ids {
                add.execute([id.as_bytes()])?;
            }
            drop(add);
            transaction.commit()
        });
        noted.map_err(|cause| self.index.failed(cause))
    }

    /// Counts what is needed for everything that was reached so far. Of several places of a chunk one in a pack that stays
    /// is taken, of those one that takes the fewest steps to read, of those the newest. `retired` and `others` are the
    /// packs on lists of this run and of others. With packs in `retired` it is found out too which packs are precious. What
    /// is not of `known` doesn't count; of what is the index must know all packs, and none that is gone.
    ///
    /// # Errors
    /// From SQLite.
    pub fn usage(&mut self, retired: &HashSet<PackId>, others: &HashSet<PackId>, known: Known) -> Result<Usage> {
        self.note()?;
        let mut connection = self.index.lock();
        let counted = connection.transaction().and_then(|transaction| {
            set_standings(&transaction, retired, others)?;
            let mut missing_count = need_what_is_reached(&transaction, known)?;
            missing_count += need_bases(&transaction, known)?;
            if !retired.is_empty() {
                precious::keep(&transaction, missing_count)?;
            }
            let packs = packs(&transaction, known)?;
            transaction.commit()?;
            Ok(Usage { packs, missing_count })
        });
        counted.map_err(|cause| self.index.failed(cause))
    }

    /// Which chunks of a frame are needed there, by the last count: one answer each, in order.
    ///
    /// # Errors
    /// From SQLite.
    pub fn needs(&self, pack: &PackId, frame: &Frame) -> Result<Vec<bool>> {
        let connection = self.index.lock();
        needs(&connection, pack, frame).map_err(|cause| self.index.failed(cause))
    }
}

impl Drop for Liveness<'_> {
    fn drop(&mut self) {
        let _kept_until_the_end = self.index.lock().execute_batch(&[CLEAR, precious::CLEAR].concat());
    }
}

fn set_standings(
    transaction: &Transaction<'_>,
    retired: &HashSet<PackId>,
    others: &HashSet<PackId>,
) -> rusqlite::Result<()> {
    transaction.execute_batch("DELETE FROM temp.standings; DELETE FROM temp.needed; DELETE FROM temp.live;")?;
    transaction.execute_batch(precious::CLEAR)?;
    // What both have is on a list of this run first.
    for (packs, standing) in [(retired, Standing::Retired), (others, Standing::RetiredByOthers)] {
        for id in packs {
            if let Some(no) = intake::pack_no(transaction, id)? {
                let row = params![no, standing as u8];
                transaction.execute("INSERT OR IGNORE INTO temp.standings VALUES (?, ?)", row)?;
            }
        }
    }
    Ok(())
}

/// Finds a place for every chunk that was reached. How many have none.
fn need_what_is_reached(transaction: &Transaction<'_>, known: Known) -> rusqlite::Result<u64> {
    let needed = transaction.execute(
        "INSERT INTO temp.needed SELECT r.id, (
             SELECT c.frame FROM chunks c JOIN frames f ON f.no = c.frame LEFT JOIN temp.standings s ON s.pack = f.pack
             WHERE c.id = r.id AND c.frame <= ? ORDER BY coalesce(s.standing, 0), f.depth, c.frame DESC LIMIT 1
         ) AS place FROM temp.reached r WHERE place IS NOT NULL",
        [known.0],
    )?;
    transaction.execute(
        "INSERT INTO temp.live SELECT n.frame, f.depth, sum(c.len) FROM temp.needed n
         JOIN frames f ON f.no = n.frame JOIN chunks c ON c.id = n.id AND c.frame = n.frame GROUP BY n.frame",
        [],
    )?;
    let reached: u64 = transaction.query_row("SELECT count(*) FROM temp.reached", [], |row| row.get(0))?;
    Ok(reached - needed as u64)
}

/// Needs the bases of needed deltas, the deepest first: bases are less deep. How many have no place.
fn need_bases(transaction: &Transaction<'_>, known: Known) -> rusqlite::Result<u64> {
    let deepest: u8 = transaction.query_row("SELECT coalesce(max(depth), 0) FROM temp.live", [], |row| row.get(0))?;
    let mut deltas = transaction.prepare(&format!(
        "SELECT l.frame, f.extension FROM temp.live l JOIN frames f ON f.no = l.frame
         WHERE l.depth = ? AND l.frame > ? ORDER BY l.frame LIMIT {PAGE_COUNT}"
    ))?;
    let mut find = transaction.prepare(
        "SELECT c.frame, f.depth, c.len FROM chunks c JOIN frames f ON f.no = c.frame
         LEFT JOIN temp.standings s ON s.pack = f.pack
         WHERE c.id = ? AND f.depth < ? AND c.frame <= ? ORDER BY coalesce(s.standing, 0), f.depth, c.frame DESC LIMIT 1",
    )?;
    let mut need = transaction.prepare("INSERT OR IGNORE INTO temp.needed VALUES (?, ?)")?;
    let mut count = transaction
        .prepare("INSERT INTO temp.live VALUES (?, ?, ?) ON CONFLICT (frame) DO UPDATE SET len = len + excluded.len")?;
    let mut missing_count = 0;
    for depth in (1..=deepest).rev() {
        let mut last = -1_i64;
        loop {
            let page = deltas
                .query_map(params![depth, last], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let Some((end, _)) = page.last() else { break };
            last = *end;
            for (_, extension) in page {
                let lineage = Lineage::decode(&extension).map_err(|_| rusqlite::Error::InvalidQuery)?;
                for base in &lineage.bases {
                    let place = find
                        .query_row(params![base.as_bytes(), depth, known.0], |row| {
                            Ok((row.get::<_, i64>(0)?, row.get::<_, u8>(1)?, row.get::<_, u64>(2)?))
                        })
                        .optional()?;
                    let Some((frame, depth, len)) = place else {
                        missing_count += 1;
                        continue;
                    };
                    if need.execute(params![base.as_bytes(), frame])? > 0 {
                        count.execute(params![frame, depth, len])?;
                    }
                }
            }
        }
    }
    Ok(missing_count)
}

fn packs(transaction: &Transaction<'_>, known: Known) -> rusqlite::Result<Vec<PackUse>> {
    let mut statement = transaction.prepare(
        "SELECT p.id, p.role, p.len, coalesce(s.standing, 0), sum(f.sealed_len),
                sum(CASE WHEN l.len IS NULL THEN 0 WHEN l.len >= f.plain_len THEN f.sealed_len
                    ELSE max(1, f.sealed_len * l.len / f.plain_len) END), count(k.frame) > 0
         FROM packs p JOIN frames f ON f.pack = p.no LEFT JOIN temp.live l ON l.frame = f.no
         LEFT JOIN temp.kept k ON k.frame = f.no LEFT JOIN temp.standings s ON s.pack = p.no GROUP BY p.no HAVING max(f.no) <= ? ORDER BY p.no",
    )?;
    let rows = statement.query_map([known.0], |row| {
        let standing = match row.get::<_, u8>(3)? {
            0 => Standing::Stays,
            1 => Standing::Retired,
            _ => Standing::RetiredByOthers,
        };
        Ok(PackUse {
            id: PackId::from_bytes(row.get(0)?),
            role: Role::from_byte(row.get(1)?).ok_or(rusqlite::Error::InvalidQuery)?,
            len: row.get(2)?,
            frames_len: row.get(4)?,
            live_len: row.get(5)?,
            is_precious: row.get(6)?,
            standing,
        })
    })?;
    rows.collect()
}

fn needs(connection: &Connection, pack: &PackId, frame: &Frame) -> rusqlite::Result<Vec<bool>> {
    let mut find = connection
        .prepare_cached("SELECT f.no FROM frames f JOIN packs p ON p.no = f.pack WHERE p.id = ? AND f.offset = ?")?;
    let no: Option<i64> = find.query_row(params![pack.as_bytes(), frame.offset], |row| row.get(0)).optional()?;
    let mut is_needed = connection.prepare_cached("SELECT 1 FROM temp.needed WHERE id = ? AND frame = ?")?;
    frame.chunks.iter().map(|(id, _)| is_needed.exists(params![id.as_bytes(), no])).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::tests::{id, pack};
    use super::*;

    fn live(usage: &Usage) -> Vec<bool> {
        usage.packs.iter().map(|pack| pack.live_len > 0 || pack.is_precious).collect()
    }

    #[test]
    fn bases_are_needed_and_of_two_places_one() {
        let index = Index::in_memory().unwrap();
        // 3 is a delta of 2, that of 1; 2 lies twice, as a delta and whole; 4 is garbage.
        let packs = [
            pack(1, 1, 0, &[]),
            pack(2, 2, 1, &[1]),
            pack(3, 3, 2, &[2]),
            pack(4, 2, 0, &[]),
            pack(5, 4, 0, &[]),
            pack(6, 2, 0, &[]),
        ];
        for entry in &packs {
            index.add_pack(entry, &[]).unwrap();
        }
        let none = HashSet::new();
        let mut liveness = index.liveness().unwrap();
        assert!(liveness.reach_tree(&[1; 32]).unwrap());
        assert!(!liveness.reach_tree(&[1; 32]).unwrap());
        liveness.reach([id(3)]).unwrap();
        let usage = liveness.usage(&none, &none, Known::ALL).unwrap();
        assert_eq!(live(&usage), [false, false, true, false, false, true]);
        assert_eq!(usage.missing_count, 0);
        assert_eq!(liveness.needs(&packs[5].id, &packs[5].frames[0]).unwrap(), [true]);
        assert_eq!(liveness.needs(&packs[3].id, &packs[3].frames[0]).unwrap(), [false]);
        // Packs that stay come first, even where it takes a step more; lists of this run before those of others.
        let (own, others) = (HashSet::from([packs[5].id, packs[4].id]), HashSet::from([packs[3].id]));
        let usage = liveness.usage(&own, &others, Known::ALL).unwrap();
        assert_eq!(live(&usage), [true, true, true, false, false, false]);
        let own = HashSet::from([packs[0].id, packs[5].id]);
        let others = HashSet::from([packs[1].id, packs[3].id]);
        let usage = liveness.usage(&own, &others, Known::ALL).unwrap();
        assert_eq!(usage.packs[5].standing, Standing::Retired);
        assert_eq!(liveness.needs(&packs[5].id, &packs[5].frames[0]).unwrap(), [true]);
        assert_eq!(liveness.needs(&packs[3].id, &packs[3].frames[0]).unwrap(), [false]);
        // All that there is of the base stays, with what it rests on.
        assert_eq!(live(&usage), [true, true, true, true, false, true]);
        // Reached later, and reached in vain.
        liveness.reach([id(4), id(9)]).unwrap();
        let usage = liveness.usage(&none, &none, Known::ALL).unwrap();
        assert_eq!(live(&usage), [false, false, true, false, true, true]);
        assert_eq!(usage.missing_count, 1);
    }

    #[test]
    fn a_base_is_taken_from_where_the_delta_may_have_it() {
        let index = Index::in_memory().unwrap();
        // 3 takes one step, so its base must be whole; the only whole place of that is retired.
        let packs = [pack(1, 1, 0, &[]), pack(2, 2, 0, &[]), pack(3, 3, 1, &[2]), pack(4, 2, 1, &[1])];
        for entry in &packs {
            index.add_pack(entry, &[]).unwrap();
        }
        let mut liveness = index.liveness().unwrap();
        liveness.reach([id(2), id(3)]).unwrap();
        let usage = liveness.usage(&HashSet::from([packs[1].id]), &HashSet::new(), Known::ALL).unwrap();
        assert_eq!(live(&usage), [true, true, true, true]);
    }
    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        /// Two runs whose lists overlap, each with an index that learned of the packs in another order, delete at once.
        #[test]
        fn runs_whose_lists_overlap_lose_nothing_together(
            shapes in prop::collection::vec((1_u8..5, prop::collection::vec(1_u8..5, 0..3)), 2..12),
            wanted in prop::collection::hash_set(1_u8..5, 1..4),
            lists in prop::collection::vec(0_u8..4, 12),
            order in Just((0..12_usize).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let mut packs = Vec::new();
            for (n, (chunk, bases)) in (1..).zip(&shapes) {
                let depth_of = |base: &u8| packs.iter().filter_map(|(chunk, depth, _)| (chunk == base).then_some(*depth)).min();
                // Only what can be read is ever stored.
                let Some(deepest) = bases.iter().map(depth_of).try_fold(None, |most, depth| depth.map(|depth| most.max(Some(depth)))) else {
                    continue;
                };
                let depth = deepest.map_or(0, |depth: u8| depth + 1);
                packs.push((*chunk, depth, pack(n, *chunk, depth, bases)));
            }
            let readable = |gone: &HashSet<PackId>| {
                let mut read: BTreeMap<u8, u8> = BTreeMap::new();
                for depth in 0..16 {
                    for (chunk, _, entry) in packs.iter().filter(|pack| pack.1 == depth && !gone.contains(&pack.2.id)) {
                        let bases = if depth == 0 { Vec::new() } else { Lineage::decode(&entry.frames[0].extension).unwrap().bases };
                        if bases.iter().all(|base| read.get(&base.as_bytes()[0]).is_some_and(|least| *least < depth)) {
                            read.entry(*chunk).or_insert(depth);
                        }
                    }
                }
                read.into_keys().collect::<HashSet<u8>>()
            };
            let listed = |bit: u8| -> HashSet<PackId> {
                packs.iter().zip(&lists).filter(|(_, list)| *list & bit != 0).map(|((_, _, entry), _)| entry.id).collect()
            };
            let before: HashSet<u8> = readable(&HashSet::new()).intersection(&wanted).copied().collect();
            let mut gone = HashSet::new();
            for (own, others, is_reversed) in [(listed(1), listed(2), false), (listed(2), listed(1), true)] {
                let index = Index::in_memory().unwrap();
                let mut order: Vec<usize> = order.iter().copied().filter(|at| *at < packs.len()).collect();
                if is_reversed {
                    order.reverse();
                }
                for at in order {
                    index.add_pack(&packs[at].2, &[]).unwrap();
                }
                let mut liveness = index.liveness().unwrap();
                liveness.reach(wanted.iter().map(|n| id(*n))).unwrap();
                let usage = liveness.usage(&own, &others, Known::ALL).unwrap();
                gone.extend(usage.packs.iter().filter(|pack| own.contains(&pack.id) && pack.live_len == 0 && !pack.is_precious).map(|pack| pack.id));
            }
            prop_assert!(before.is_subset(&readable(&gone)), "{packs:?}: {gone:?}");
        }
    }
}
