//! Taking packs in, many at a time.
//!
//! Chunk ids are random, so every chunk lands on a page of its own of a large table: a transaction of 4096 chunks writes
//! 4096 pages, twice, for 220 KB of rows. What helps is more chunks in a transaction and their rows in the order of the
//! table, so that those that share a page meet there: with 256 Ki instead of 4 Ki a rebuild of a million chunks is more
//! than ten times as fast (`cargo bench --bench index_scale`). From ten million on, when there are about as many pages
//! as rows in a batch, this helps less and less. Rows are held in memory meanwhile, some 40 MB at the most in all,
//! and that doesn't grow with the index.

use rusqlite::{OptionalExtension, Transaction, params};

use super::Index;
use crate::delta::Features;
use crate::error::Result;
use crate::id::{ChunkId, PackId, SegmentId};
use crate::store::index_segment::PackEntry;
use crate::store::pack::{FrameKind, Lineage};

/// Frames and chunks that are gathered before they are taken in.
const BATCH_ROWS_MAX: usize = 256 << 10;

/// The features that are remembered are 2^24, in as many slots, some 50 bytes each: those of the newest 8 million
/// chunks, which are a few TB. A feature takes the place of whichever other one was in its slot.
const FEATURE_SLOT_BITS: u32 = 24;

/// Gathers what is to be taken in, and takes it in whenever there is enough of it.
pub struct Intake<'i> {
    index: &'i Index,
    rows_max: usize,
    segments: Vec<(SegmentId, Vec<PackEntry>)>,
    packs: Vec<PackEntry>,
    row_count: usize,
}

impl<'i> Intake<'i> {
    pub(super) fn new(index: &'i Index) -> Self {
        Self { index, rows_max: BATCH_ROWS_MAX, segments: Vec::new(), packs: Vec::new(), row_count: 0 }
    }

    /// Adds a segment.
    ///
    /// # Errors
    /// From SQLite.
    pub fn segment(&mut self, id: SegmentId, packs: Vec<PackEntry>) -> Result<()> {
        let row_count = packs.iter().map(rows).sum();
        self.segments.push((id, packs));
        self.count(row_count)
    }

    /// Adds a pack that no segment lists.
    ///
    /// # Errors
    /// From SQLite.
    pub fn pack(&mut self, entry: PackEntry) -> Result<()> {
        let row_count = rows(&entry);
        self.packs.push(entry);
        self.count(row_count)
    }

    /// Takes the rest in.
    ///
    /// # Errors
    /// From SQLite.
    pub fn finish(mut self) -> Result<()> {
        self.take_in()
    }

    fn count(&mut self, row_count: usize) -> Result<()> {
        self.row_count += row_count;
        if self.row_count < self.rows_max { Ok(()) } else { self.take_in() }
    }

    fn take_in(&mut self) -> Result<()> {
        self.index.add_segments(&std::mem::take(&mut self.segments))?;
        self.index.add_packs(&std::mem::take(&mut self.packs))?;
        self.row_count = 0;
        Ok(())
    }
}

/// A pack costs something too, even an empty one.
fn rows(entry: &PackEntry) -> usize {
    1 + entry.frames.iter().map(|frame| 1 + frame.chunks.len()).sum::<usize>()
}

/// A row of the table of chunks; in its order, but for the first of several places in one frame, which is the one to
/// keep.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct ChunkRow {
    id: ChunkId,
    frame: i64,
    offset: u64,
    len: u64,
}

pub(super) fn insert_segments(
    transaction: &Transaction<'_>,
    segments: &[(SegmentId, Vec<PackEntry>)],
) -> rusqlite::Result<()> {
    let mut rows = Vec::new();
    for (id, packs) in segments {
        let segment = insert_segment(transaction, *id)?;
        for entry in packs {
            let pack = insert_pack(transaction, entry, &mut rows)?;
            insert_segment_pack(transaction, segment, pack)?;
        }
    }
    insert_chunks(transaction, rows)
}

pub(super) fn insert_packs(transaction: &Transaction<'_>, packs: &[PackEntry]) -> rusqlite::Result<()> {
    let mut rows = Vec::new();
    for entry in packs {
        insert_pack(transaction, entry, &mut rows)?;
    }
    insert_chunks(transaction, rows)
}

pub(super) fn insert_segment(transaction: &Transaction<'_>, id: SegmentId) -> rusqlite::Result<i64> {
    transaction.execute("INSERT OR IGNORE INTO segments (id) VALUES (?)", [id.as_bytes()])?;
    transaction.query_row("SELECT no FROM segments WHERE id = ?", [id.as_bytes()], |row| row.get(0))
}

pub(super) fn insert_segment_pack(transaction: &Transaction<'_>, segment: i64, pack: i64) -> rusqlite::Result<()> {
    let mut add = transaction.prepare_cached("INSERT OR IGNORE INTO segment_packs VALUES (?, ?)")?;
    add.execute([segment, pack]).map(drop)
}

pub(super) fn pack_no(transaction: &Transaction<'_>, id: &PackId) -> rusqlite::Result<Option<i64>> {
    let mut find = transaction.prepare_cached("SELECT no FROM packs WHERE id = ?")?;
    find.query_row([id.as_bytes()], |row| row.get(0)).optional()
}

/// Inserts a pack with its frames, unless it is known already, and adds the rows of its chunks to `rows`.
fn insert_pack(transaction: &Transaction<'_>, entry: &PackEntry, rows: &mut Vec<ChunkRow>) -> rusqlite::Result<i64> {
    if let Some(no) = pack_no(transaction, &entry.id)? {
        return Ok(no);
    }
    transaction.prepare_cached("INSERT INTO packs (id, role, len) VALUES (?, ?, ?)")?.execute(params![
        entry.id.as_bytes(),
        entry.role as u8,
        entry.len
    ])?;
    let pack = transaction.last_insert_rowid();
    let mut add_frame = transaction.prepare_cached(
        "INSERT INTO frames (pack, offset, sealed_len, kind, plain_len, depth, extension) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?;
    for frame in &entry.frames {
        let (depth, extension) = match frame.kind {
            // The footer was decoded with it, so it is sound.
            FrameKind::Delta => {
                let depth = Lineage::decode(&frame.extension).map_or(u8::MAX, |lineage| lineage.depth);
                (depth, Some(&frame.extension))
            }
            _ => (0, None),
        };
        let kind = frame.kind.byte();
        add_frame.execute(params![pack, frame.offset, frame.sealed_len, kind, frame.plain_len, depth, extension])?;
        let no = transaction.last_insert_rowid();
        let mut offset = 0;
        for (id, len) in &frame.chunks {
            rows.push(ChunkRow { id: *id, frame: no, offset, len: *len });
            offset += len;
        }
    }
    Ok(pack)
}

fn insert_chunks(transaction: &Transaction<'_>, mut rows: Vec<ChunkRow>) -> rusqlite::Result<()> {
    rows.sort_unstable();
    let mut add = transaction.prepare_cached("INSERT OR IGNORE INTO chunks VALUES (?, ?, ?, ?)")?;
    for row in &rows {
        add.execute(params![row.id.as_bytes(), row.frame, row.offset, row.len])?;
    }
    Ok(())
}

/// Where a feature is remembered. They are hashes, so any bits will do.
pub(super) fn slot(feature: u64) -> i64 {
    (feature >> (u64::BITS - FEATURE_SLOT_BITS)).cast_signed()
}

pub(super) fn insert_features(transaction: &Transaction<'_>, features: &[(ChunkId, Features)]) -> rusqlite::Result<()> {
    let one_by_one = features.iter().flat_map(|(id, features)| features.iter().map(move |feature| (*feature, id)));
    let mut rows: Vec<(u64, &ChunkId)> = one_by_one.collect();
    // In the order of the table, and otherwise in that of the chunks: the newest chunk with a feature is the one to
    // find, as what comes next is likely to resemble it most.
    rows.sort_by_key(|(feature, _)| slot(*feature));
    let mut add = transaction.prepare_cached("INSERT OR REPLACE INTO features VALUES (?, ?, ?)")?;
    for (feature, id) in rows {
        add.execute(params![slot(feature), feature.cast_signed(), id.as_bytes()])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::index::ChunkPlace;
    use crate::store::pack::{Frame, Role};

    const FRAME_LEN: u64 = 1000;

    fn chunk(n: u8) -> ChunkId {
        ChunkId::from_bytes([n; 32])
    }

    fn pack_id(n: u8) -> PackId {
        PackId::from_bytes([n; 32])
    }

    fn segment_id(n: u8) -> SegmentId {
        SegmentId::from_bytes([n; 32])
    }

    /// Chunk `n` is `n` + 1 bytes long.
    fn pack(n: u8, frames: &[Vec<u8>]) -> PackEntry {
        let frame = |(number, chunks): (u64, &Vec<u8>)| Frame {
            offset: 44 + number * FRAME_LEN,
            sealed_len: FRAME_LEN,
            kind: FrameKind::Zstd,
            extension: Vec::new(),
            plain_len: chunks.iter().map(|n| u64::from(*n) + 1).sum(),
            chunks: chunks.iter().map(|n| (chunk(*n), u64::from(*n) + 1)).collect(),
        };
        let len = 44 + frames.len() as u64 * FRAME_LEN;
        PackEntry { id: pack_id(n), role: Role::Content, len, frames: (0..).zip(frames).map(frame).collect() }
    }

    fn where_is(place: &ChunkPlace) -> (PackId, u64, u64) {
        (place.frame.pack, place.frame.offset, place.offset)
    }

    /// The first place of a chunk in `packs`, of which the first of the same id counts.
    fn first_place(packs: &[PackEntry], id: ChunkId) -> Option<(PackId, u64, u64)> {
        let is_first = |n: usize| packs[..n].iter().all(|earlier| earlier.id != packs[n].id);
        let known = (0..packs.len()).filter(|n| is_first(*n)).map(|n| &packs[n]);
        known.flat_map(|entry| entry.frames.iter().map(|frame| (entry.id, frame))).find_map(|(pack, frame)| {
            let at = frame.chunks.iter().position(|(other, _)| *other == id)?;
            Some((pack, frame.offset, frame.chunks[..at].iter().map(|(_, len)| len).sum()))
        })
    }

    fn packs() -> impl Strategy<Value = Vec<PackEntry>> {
        let frames = prop::collection::vec(prop::collection::vec(0..12_u8, 0..6), 0..4);
        prop::collection::vec((0..6_u8, frames).prop_map(|(n, frames)| pack(n, &frames)), 0..5)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn however_segments_are_gathered_a_chunk_is_where_it_was_first(
            segments in prop::collection::vec(packs(), 1..5), rows_max in 1..40_usize, gone in prop::collection::vec(0..8_u8, 0..4),
        ) {
            let index = Index::in_memory().unwrap();
            let mut intake = Intake { rows_max, ..Intake::new(&index) };
            for (n, packs) in (0..).zip(&segments) {
                intake.segment(segment_id(n), packs.clone()).unwrap();
                prop_assert!(intake.row_count < rows_max);
            }
            intake.finish().unwrap();
            let all: Vec<PackEntry> = segments.concat();
            prop_assert_eq!(index.segments().unwrap().len(), segments.len());
            prop_assert_eq!(index.packs().unwrap(), all.iter().map(|entry| entry.id).collect());
            prop_assert_eq!(index.unpublished().unwrap(), []);
            let ids: Vec<ChunkId> = (0..13).map(chunk).collect();
            let expected = |packs: &[PackEntry]| ids.iter().map(|id| first_place(packs, *id)).collect::<Vec<_>>();
            let found = || index.places(&ids).unwrap().iter().map(|place| place.as_ref().map(where_is)).collect::<Vec<_>>();
            prop_assert_eq!(found(), expected(&all));

            let gone: Vec<PackId> = gone.into_iter().map(pack_id).collect();
            index.remove_packs(&gone).unwrap();
            let left: Vec<PackEntry> = all.into_iter().filter(|entry| !gone.contains(&entry.id)).collect();
            prop_assert_eq!(found(), expected(&left));
            prop_assert_eq!(index.packs().unwrap(), left.iter().map(|entry| entry.id).collect());
        }
    }

    #[test]
    fn packs_are_taken_in_when_there_are_enough_and_at_the_end() {
        let index = Index::in_memory().unwrap();
        let mut intake = Intake { rows_max: 6, ..Intake::new(&index) };
        for n in 0..5 {
            // Three rows each.
            intake.pack(pack(n, &[vec![n]])).unwrap();
        }
        assert_eq!(index.packs().unwrap().len(), 4);
        intake.finish().unwrap();
        assert_eq!(index.unpublished().unwrap().len(), 5);
        assert_eq!(index.contains(&[chunk(4), chunk(5)]).unwrap(), [true, false]);
    }

    #[test]
    fn the_newest_chunk_with_a_feature_is_found() {
        let index = Index::in_memory().unwrap();
        index.add_pack(&pack(1, &[]), &[(chunk(1), [7 << 50, 3 << 50]), (chunk(2), [3 << 50, 9 << 50])]).unwrap();
        assert_eq!(index.alike(&[7 << 50, 5 << 50]).unwrap(), [chunk(1)]);
        assert_eq!(index.alike(&[3 << 50, 5 << 50]).unwrap(), [chunk(2)]);
        index.add_pack(&pack(2, &[]), &[(chunk(3), [3 << 50, 9 << 50])]).unwrap();
        assert_eq!(index.alike(&[3 << 50, 9 << 50]).unwrap(), [chunk(3)]);
    }

    #[test]
    fn a_feature_takes_the_slot_of_another_and_is_not_taken_for_it() {
        let index = Index::in_memory().unwrap();
        let (old, new) = (5 << 50, (5 << 50) + 1);
        assert_eq!(slot(old), slot(new));
        index.add_pack(&pack(1, &[]), &[(chunk(1), [old, 6 << 50])]).unwrap();
        assert_eq!(index.alike(&[new, 0]).unwrap(), []);
        index.add_pack(&pack(2, &[]), &[(chunk(2), [new, 8 << 50])]).unwrap();
        assert_eq!(index.alike(&[old, 0]).unwrap(), []);
        assert_eq!(index.alike(&[new, 0]).unwrap(), [chunk(2)]);
        assert_eq!(slot(u64::MAX), (1 << 24) - 1);
    }
}
