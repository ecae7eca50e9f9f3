//! What who gives space back asks, besides [`Liveness`](super::Liveness).

use std::collections::HashSet;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::Index;
use crate::error::Result;
use crate::id::{PackId, SegmentId, SessionId};
use crate::store::pack::FrameKind;

impl Index {
    /// Those of `packs` that a segment lists.
    ///
    /// # Errors
    /// From SQLite.
    pub fn listed(&self, packs: &[PackId]) -> Result<Vec<PackId>> {
        let connection = self.lock();
        let mut statement = connection
            .prepare_cached("SELECT 1 FROM segment_packs s JOIN packs p ON p.no = s.pack WHERE p.id = ?")
            .map_err(|cause| self.failed(cause))?;
        let mut found = Vec::new();
        for id in packs {
            if statement.exists([id.as_bytes()]).map_err(|cause| self.failed(cause))? {
                found.push(*id);
            }
        }
        Ok(found)
    }

    /// The segments that list any of `packs`.
    ///
    /// # Errors
    /// From SQLite.
    pub fn segments_of(&self, packs: &[PackId]) -> Result<HashSet<SegmentId>> {
        let connection = self.lock();
        let mut statement = connection
            .prepare_cached(
                "SELECT s.id FROM segments s JOIN segment_packs l ON l.segment = s.no JOIN packs p ON p.no = l.pack
                 WHERE p.id = ?",
            )
            .map_err(|cause| self.failed(cause))?;
        let mut found = HashSet::new();
        for id in packs {
            let rows = statement.query_map([id.as_bytes()], |row| row.get(0).map(SegmentId::from_bytes));
            let rows = rows.map_err(|cause| self.failed(cause))?;
            for segment in rows {
                found.insert(segment.map_err(|cause| self.failed(cause))?);
            }
        }
        Ok(found)
    }

    /// Notes the segments that list any of `packs`, which are gone: the packs are about to be forgotten.
    ///
    /// # Errors
    /// From SQLite.
    pub fn suspect(&self, packs: &[PackId]) -> Result<()> {
        let segments = self.segments_of(packs)?;
        if segments.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            let mut add = transaction.prepare("INSERT OR IGNORE INTO suspects VALUES (?)")?;
            segments.iter().try_for_each(|segment| add.execute([segment.as_bytes()]).map(drop))
        })
    }

    /// The segments that were noted so and are still there.
    ///
    /// # Errors
    /// From SQLite.
    pub fn suspects(&self) -> Result<HashSet<SegmentId>> {
        self.write(|transaction| {
            transaction.execute("DELETE FROM suspects WHERE segment NOT IN (SELECT id FROM segments)", []).map(drop)
        })?;
        let connection = self.lock();
        let mut statement = connection.prepare("SELECT segment FROM suspects").map_err(|cause| self.failed(cause))?;
        let rows = statement.query_map([], |row| row.get(0).map(SegmentId::from_bytes));
        let rows = rows.map_err(|cause| self.failed(cause))?;
        rows.map(|row| row.map_err(|cause| self.failed(cause))).collect()
    }

    /// When a sign of life was first seen here; now, if it wasn't yet.
    ///
    /// # Errors
    /// From SQLite.
    pub fn sign_seen(&self, session: SessionId, sign: u32, now: Timestamp) -> Result<Timestamp> {
        let mut first = now;
        self.write(|transaction| {
            let seen: Option<i64> = transaction
                .query_row(
                    "SELECT seen FROM signs WHERE session = ? AND sign = ?",
                    params![session.as_bytes(), sign],
                    |row| row.get(0),
                )
                .optional()?;
            // A clock that was set back since counts from now.
            if let Some(seen) = seen.and_then(|seen| Timestamp::from_second(seen).ok()).filter(|seen| *seen <= now) {
                first = seen;
                return Ok(());
            }
            let row = params![session.as_bytes(), sign, now.as_second()];
            transaction.execute("INSERT OR REPLACE INTO signs VALUES (?, ?, ?)", row).map(drop)
        })?;
        Ok(first)
    }

    /// Whether there is a frame of a kind that a later version made.
    ///
    /// # Errors
    /// From SQLite.
    pub fn has_unknown_frames(&self) -> Result<bool> {
        let connection = self.lock();
        let mut statement =
            connection.prepare("SELECT 1 FROM frames WHERE kind > ? LIMIT 1").map_err(|cause| self.failed(cause))?;
        statement.exists([FrameKind::Delta.byte()]).map_err(|cause| self.failed(cause))
    }
}
