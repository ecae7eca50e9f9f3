//! The index: chunk id -> place, in SQLite, one file for each repository in the local cache. Never the truth: it is fed
//! by index segments, and by pack footers when those are gone; the file can be deleted at any time.
//!
//! A pack is `published` once an index segment in storage lists it. Packs of this machine that were uploaded by a run
//! which then died stay here unpublished; the next writer lists them in its own segment and so takes them over.

mod aside;
mod intake;
mod liveness;
mod orphans;
mod precious;
mod recipes;
mod reclaim;
mod translation;
mod verified;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

pub use self::intake::Intake;
pub use self::liveness::{Liveness, PackUse, Standing, Usage};
pub use self::translation::Translation;
use super::index_segment::PackEntry;
use super::pack::{Lineage, Role};
use crate::delta::Features;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ChunkId, PackId, RepositoryId, SegmentId};
use crate::pipeline::lock;

/// Raised when the tables change; an older file is thrown away and rebuilt.
const SCHEMA_VERSION: i64 = 9;

const SCHEMA: &str = "
    CREATE TABLE segments (no INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE);
    CREATE TABLE packs (no INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, role INTEGER NOT NULL, len INTEGER NOT NULL);
    CREATE TABLE segment_packs (segment INTEGER NOT NULL, pack INTEGER NOT NULL, PRIMARY KEY (segment, pack)) WITHOUT ROWID;
    CREATE INDEX pack_segments ON segment_packs (pack);
    CREATE TABLE suspects (segment BLOB PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE frames (no INTEGER PRIMARY KEY AUTOINCREMENT, pack INTEGER NOT NULL, offset INTEGER NOT NULL,
        sealed_len INTEGER NOT NULL, kind INTEGER NOT NULL, plain_len INTEGER NOT NULL,
        depth INTEGER NOT NULL, extension BLOB);
    CREATE INDEX pack_frames ON frames (pack);
    CREATE TABLE chunks (id BLOB NOT NULL, frame INTEGER NOT NULL, offset INTEGER NOT NULL, len INTEGER NOT NULL,
        PRIMARY KEY (id, frame)) WITHOUT ROWID;
    CREATE TABLE orphans (id BLOB NOT NULL, frame INTEGER NOT NULL, offset INTEGER NOT NULL, len INTEGER NOT NULL,
        PRIMARY KEY (id, frame)) WITHOUT ROWID;
    CREATE INDEX orphan_frames ON orphans (frame);
    CREATE TABLE looked_at (frame INTEGER NOT NULL);
    INSERT INTO looked_at VALUES (0);
    CREATE TABLE features (slot INTEGER PRIMARY KEY, feature INTEGER NOT NULL, chunk BLOB NOT NULL);
    CREATE TABLE verified (pack BLOB PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE recipes (proof BLOB PRIMARY KEY, chunk BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE signs (session BLOB PRIMARY KEY, sign INTEGER NOT NULL, seen INTEGER NOT NULL) WITHOUT ROWID;
";

/// A frame and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FramePlace {
    /// The pack.
    pub pack: PackId,
    /// Where in the pack.
    pub offset: u64,
    /// Length of the sealed bytes.
    pub sealed_len: u64,
    /// Length of the plain text.
    pub plain_len: u64,
    /// Kind as stored.
    pub kind: u8,
    /// Role of the pack.
    pub role: Role,
    /// What it is made of, if it is a delta.
    pub lineage: Option<Arc<Lineage>>,
}

impl FramePlace {
    /// How many deltas have to be undone to read it.
    #[must_use]
    pub fn depth(&self) -> u8 {
        self.lineage.as_ref().map_or(0, |lineage| lineage.depth)
    }

    /// What its footer calls its extension.
    #[must_use]
    pub fn extension(&self) -> Vec<u8> {
        self.lineage.as_ref().map(|lineage| lineage.encode()).unwrap_or_default()
    }
}

/// Where a chunk lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkPlace {
    /// The frame that holds it.
    pub frame: FramePlace,
    /// Where in the frame's plain text.
    pub offset: u64,
    /// Its length.
    pub len: u64,
}

/// Totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IndexTotals {
    /// Packs.
    pub packs: u64,
    /// Bytes of packs.
    pub pack_bytes: u64,
    /// Places of chunks; a chunk stored twice counts twice.
    pub chunks: u64,
    /// Plain bytes of those.
    pub chunk_bytes: u64,
}

/// The local index of one repository.
pub struct Index {
    connection: Mutex<Connection>,
    path: Option<PathBuf>,
    /// The file did not exist or was unusable and begins empty.
    pub is_new: bool,
    /// Some packs are not to be relied on.
    has_aside: AtomicBool,
    /// How often something was taken in that this process did not store itself.
    learned: AtomicU64,
}

/// How far an index has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexState {
    learned: u64,
    /// Changes when another process changes the file.
    file_version: i64,
}

impl IndexState {
    /// The same, but for what other processes did since `before`.
    #[must_use]
    pub fn without_others(self, before: Self) -> Self {
        Self { file_version: before.file_version, ..self }
    }
}

/// Up to where an index had come at some moment: what it learned later is not known by this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Known(i64);

impl Known {
    /// Whatever there is.
    pub const ALL: Self = Self(i64::MAX);
}

fn failed(cause: rusqlite::Error) -> Error {
    let full = cause.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull);
    let error = Error::new(ErrorKind::Environment, "The local index can't be used").cause(cause);
    error.hint(if full {
        "Free some space in the cache directory, or choose another with --cache-dir"
    } else {
        "Delete the cache directory of this repository; it is rebuilt by the next run"
    })
}

impl Index {
    /// Opens the index below `cache`, or begins an empty one where there is none or a damaged one.
    ///
    /// # Errors
    /// When the directory can't be written.
    pub fn open(cache: &Path, repository: RepositoryId) -> Result<Self> {
        let directory = cache.join(repository.to_hex());
        // One that exists is not made durable again, which would cost every run a sync: nothing is lost with a cache.
        if !directory.is_dir() {
            crate::durable::create_directories(&directory).map_err(|cause| {
                Error::io(format!("The cache directory {} can't be made", directory.display()), cause)
                    .hint("Choose another with --cache-dir or COMPLINE_CACHE_DIR; nothing is lost with a cache")
            })?;
        }
        let path = directory.join("index.sqlite");
        if !path.exists() {
            // Its log may be left, and must not be played into a new file.
            remove_files(&path);
        }
        let (connection, is_new) = match Self::open_file(&path) {
            Err(cause) if is_unusable(&cause) => {
                remove_files(&path);
                Self::open_file(&path).map_err(failed)?
            }
            other => other.map_err(failed)?,
        };
        Ok(Self {
            connection: Mutex::new(connection),
            path: Some(path),
            is_new,
            has_aside: AtomicBool::new(false),
            learned: AtomicU64::new(0),
        })
    }

    /// An index that lives in memory: for tests and for readers without a cache.
    ///
    /// # Errors
    /// When memory is short.
    pub fn in_memory() -> Result<Self> {
        let connection = Connection::open_in_memory().map_err(failed)?;
        connection.execute_batch(SCHEMA).map_err(failed)?;
        Ok(Self {
            connection: Mutex::new(connection),
            path: None,
            is_new: true,
            has_aside: AtomicBool::new(false),
            learned: AtomicU64::new(0),
        })
    }

    /// Opens the file, and makes its tables if it has none. Of several processes that meet a new file one makes them.
    /// The file is made before SQLite would make one that others can read; the files beside it get its mode.
    fn open_file(path: &Path) -> rusqlite::Result<(Connection, bool)> {
        // If this fails SQLite says why.
        let _made = File::options().append(true).create(true).mode(0o600).open(path);
        let mut connection = Connection::open(path).and_then(prepare)?;
        let mut is_new = false;
        if version(&connection)? == 0 {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            is_new = version(&transaction)? == 0;
            if is_new {
                transaction.execute_batch(SCHEMA)?;
                transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            }
            transaction.commit()?;
        }
        if version(&connection)? != SCHEMA_VERSION {
            return Err(rusqlite::Error::InvalidQuery);
        }
        let _segments: u64 = connection.query_row("SELECT count(*) FROM segments", [], |row| row.get(0))?;
        Ok((connection, is_new))
    }

    /// A damaged file is thrown away, so that the next run begins a new one.
    fn failed(&self, cause: rusqlite::Error) -> Error {
        let code = cause.sqlite_error_code();
        let damaged = matches!(code, Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase));
        match &self.path {
            Some(path) if damaged => {
                remove_files(path);
                failed(cause)
                    .hint("It was damaged and has been thrown away; run the same command again, the index is rebuilt")
            }
            _ => failed(cause),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        lock(&self.connection)
    }

    /// Does `work` in one transaction: all of it or nothing.
    fn write(&self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>) -> Result<()> {
        let mut connection = self.lock();
        let written = connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|transaction| {
            work(&transaction)?;
            transaction.commit()
        });
        written.map_err(|cause| self.failed(cause))
    }

    /// How far it has come: two states that are equal say that nothing was learned in between but what this process stored.
    ///
    /// # Errors
    /// From SQLite, as everything below.
    pub fn state(&self) -> Result<IndexState> {
        let file_version = self.lock().pragma_query_value(None, "data_version", |row| row.get(0));
        let file_version = file_version.map_err(|cause| self.failed(cause))?;
        Ok(IndexState { learned: self.learned.load(Ordering::Relaxed), file_version })
    }

    /// What it knows now.
    ///
    /// # Errors
    /// From SQLite.
    pub fn known(&self) -> Result<Known> {
        let newest = self.lock().query_row("SELECT coalesce(max(no), 0) FROM frames", [], |row| row.get(0));
        newest.map(Known).map_err(|cause| self.failed(cause))
    }

    /// The segments that were taken in.
    ///
    /// # Errors
    /// From SQLite, as everything below.
    pub fn segments(&self) -> Result<HashSet<SegmentId>> {
        let connection = self.lock();
        let mut statement = connection.prepare("SELECT id FROM segments").map_err(|cause| self.failed(cause))?;
        let rows = statement.query_map([], |row| row.get::<_, [u8; 32]>(0)).map_err(|cause| self.failed(cause))?;
        rows.map(|id| id.map(SegmentId::from_bytes).map_err(|cause| self.failed(cause))).collect()
    }

    /// The packs that are known.
    ///
    /// # Errors
    /// From SQLite.
    pub fn packs(&self) -> Result<HashSet<PackId>> {
        let connection = self.lock();
        let mut statement = connection.prepare("SELECT id FROM packs").map_err(|cause| self.failed(cause))?;
        let rows = statement.query_map([], |row| row.get::<_, [u8; 32]>(0)).map_err(|cause| self.failed(cause))?;
        rows.map(|id| id.map(PackId::from_bytes).map_err(|cause| self.failed(cause))).collect()
    }

    /// The packs that are known, and how long they are.
    ///
    /// # Errors
    /// From SQLite.
    pub fn pack_lens(&self) -> Result<HashMap<PackId, u64>> {
        let connection = self.lock();
        let mut statement = connection.prepare("SELECT id, len FROM packs").map_err(|cause| self.failed(cause))?;
        let rows = statement
            .query_map([], |row| Ok((PackId::from_bytes(row.get(0)?), row.get(1)?)))
            .map_err(|cause| self.failed(cause))?;
        rows.map(|row| row.map_err(|cause| self.failed(cause))).collect()
    }

    /// How long a pack is, if it is known.
    ///
    /// # Errors
    /// From SQLite.
    pub fn pack_len(&self, id: &PackId) -> Result<Option<u64>> {
        let connection = self.lock();
        let mut statement =
            connection.prepare_cached("SELECT len FROM packs WHERE id = ?").map_err(|cause| self.failed(cause))?;
        statement.query_row([id.as_bytes()], |row| row.get(0)).optional().map_err(|cause| self.failed(cause))
    }

    /// Takes in segments and packs as they come, many at a time.
    #[must_use]
    pub fn intake(&self) -> Intake<'_> {
        Intake::new(self)
    }

    /// Takes in segments, all at once. They are held in memory: [`Index::intake`] divides any number of them.
    ///
    /// # Errors
    /// From SQLite.
    pub fn add_segments(&self, segments: &[(SegmentId, Vec<PackEntry>)]) -> Result<()> {
        if segments.is_empty() {
            return Ok(());
        }
        self.learned.fetch_add(1, Ordering::Relaxed);
        self.write(|transaction| intake::insert_segments(transaction, segments))
    }

    /// Takes in packs that no segment lists, all at once.
    ///
    /// # Errors
    /// From SQLite.
    pub fn add_packs(&self, packs: &[PackEntry]) -> Result<()> {
        if packs.is_empty() {
            return Ok(());
        }
        self.learned.fetch_add(1, Ordering::Relaxed);
        self.write(|transaction| intake::insert_packs(transaction, packs))
    }

    /// Takes in one pack that no segment lists yet, and the features of some of its chunks.
    ///
    /// # Errors
    /// From SQLite.
    pub fn add_pack(&self, entry: &PackEntry, features: &[(ChunkId, Features)]) -> Result<()> {
        self.write(|transaction| {
            intake::insert_packs(transaction, std::slice::from_ref(entry))?;
            intake::insert_features(transaction, features)
        })
    }

    /// Notes that the segment `id`, which is in storage now, lists `packs`.
    ///
    /// # Errors
    /// From SQLite.
    pub fn publish(&self, id: SegmentId, packs: &[PackId]) -> Result<()> {
        self.write(|transaction| {
            let segment = intake::insert_segment(transaction, id)?;
            for pack in packs {
                if let Some(no) = intake::pack_no(transaction, pack)? {
                    intake::insert_segment_pack(transaction, segment, no)?;
                }
            }
            Ok(())
        })
    }

    /// Forgets segments that are gone from storage. Packs that no other segment lists become unpublished.
    ///
    /// # Errors
    /// From SQLite.
    pub fn remove_segments(&self, gone: &[SegmentId]) -> Result<()> {
        if gone.is_empty() {
            // Nor does it wait for another process that is writing.
            return Ok(());
        }
        self.write(|transaction| {
            for id in gone {
                let id = id.as_bytes();
                transaction.execute(
                    "DELETE FROM segment_packs WHERE segment IN (SELECT no FROM segments WHERE id = ?)",
                    [id],
                )?;
                transaction.execute("DELETE FROM segments WHERE id = ?", [id])?;
            }
            Ok(())
        })
    }

    /// Forgets packs that are gone from storage, with all their chunks, and the chunks that were deltas of those. Their features
    /// stay until others take their slots: to find them the whole table would have to be read, and who finds a chunk by
    /// them looks it up.
    ///
    /// # Errors
    /// From SQLite.
    pub fn remove_packs(&self, gone: &[PackId]) -> Result<()> {
        if gone.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            let known: Vec<i64> = gone
                .iter()
                .filter_map(|id| intake::pack_no(transaction, id).transpose())
                .collect::<rusqlite::Result<_>>()?;
            if known.is_empty() {
                return Ok(());
            }
            let list = serde_json::json!(known).to_string();
            for statement in [
                // Chunks are not found by their frame, which would cost every one of them an entry in a second tree: the
                // whole table is read, once for all packs.
                "DELETE FROM chunks WHERE frame IN
                    (SELECT no FROM frames WHERE pack IN (SELECT value FROM json_each(?)))",
                "DELETE FROM orphans WHERE frame IN
                     (SELECT no FROM frames WHERE pack IN (SELECT value FROM json_each(?)))",
                "DELETE FROM frames WHERE pack IN (SELECT value FROM json_each(?))",
                "DELETE FROM segment_packs WHERE pack IN (SELECT value FROM json_each(?))",
                "DELETE FROM packs WHERE no IN (SELECT value FROM json_each(?))",
            ] {
                transaction.execute(statement, [&list])?;
            }
            orphans::forget(transaction, 0).map(drop)
        })
    }

    /// Forgets the chunks of deltas that came since this was called last and whose bases are not stored, so that the next
    /// backup that has such a chunk stores it again. Says how many frames that hit. The index must know all packs.
    ///
    /// # Errors
    /// From SQLite.
    pub fn forget_orphans(&self) -> Result<u64> {
        let are_any: bool = {
            let connection = self.lock();
            let query = "SELECT coalesce(max(no), 0) > (SELECT frame FROM looked_at) FROM frames";
            connection.query_row(query, [], |row| row.get(0)).map_err(|cause| self.failed(cause))?
        };
        if !are_any {
            return Ok(0);
        }
        let mut count = 0;
        self.write(|transaction| {
            let after = transaction.query_row("SELECT frame FROM looked_at", [], |row| row.get(0))?;
            count = orphans::forget(transaction, after)?;
            Ok(())
        })?;
        Ok(count)
    }

    /// Looks again whether the bases of forgotten deltas are stored: a pack that was lost may have come back.
    ///
    /// # Errors
    /// From SQLite.
    pub fn recall_orphans(&self) -> Result<()> {
        let are_any = {
            let connection = self.lock();
            let mut statement =
                connection.prepare_cached("SELECT 1 FROM orphans LIMIT 1").map_err(|cause| self.failed(cause))?;
            statement.exists([]).map_err(|cause| self.failed(cause))?
        };
        if !are_any {
            return Ok(());
        }
        self.write(|transaction| {
            if orphans::recall(transaction)? > 0 {
                self.learned.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })
    }

    /// Packs that no segment lists, and their lengths.
    ///
    /// # Errors
    /// From SQLite.
    pub fn unpublished(&self) -> Result<Vec<(PackId, u64)>> {
        let connection = self.lock();
        let mut statement = connection
            .prepare("SELECT id, len FROM packs WHERE no NOT IN (SELECT pack FROM segment_packs) ORDER BY no")
            .map_err(|cause| self.failed(cause))?;
        let rows = statement
            .query_map([], |row| Ok((PackId::from_bytes(row.get(0)?), row.get(1)?)))
            .map_err(|cause| self.failed(cause))?;
        rows.map(|row| row.map_err(|cause| self.failed(cause))).collect()
    }

    /// Which of `ids` are stored, in packs that may be relied on: one answer each, in order.
    ///
    /// # Errors
    /// From SQLite.
    pub fn contains(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        if self.has_aside() {
            return self.contains_of(ids, Known::ALL);
        }
        let connection = self.lock();
        // One transaction: outside of one, every look-up takes and gives back the lock of the file, which costs more.
        let transaction = connection.unchecked_transaction().map_err(|cause| self.failed(cause))?;
        let mut statement =
            transaction.prepare_cached("SELECT 1 FROM chunks WHERE id = ?").map_err(|cause| self.failed(cause))?;
        ids.iter().map(|id| statement.exists([id.as_bytes()]).map_err(|cause| self.failed(cause))).collect()
    }

    /// How many chunks of `entry` the index does not know at the place where it says they are.
    ///
    /// # Errors
    /// From SQLite.
    pub fn misplaced(&self, entry: &PackEntry) -> Result<u64> {
        let connection = self.lock();
        let mut statement = connection
            .prepare_cached(
                "SELECT 1 FROM chunks c JOIN frames f ON f.no = c.frame JOIN packs p ON p.no = f.pack
                 WHERE c.id = ? AND c.offset = ? AND c.len = ? AND f.offset = ? AND f.sealed_len = ? AND p.id = ?",
            )
            .map_err(|cause| self.failed(cause))?;
        let mut count = 0;
        for frame in &entry.frames {
            let mut offset = 0_u64;
            for (id, len) in &frame.chunks {
                let place = params![id.as_bytes(), offset, len, frame.offset, frame.sealed_len, entry.id.as_bytes()];
                count += u64::from(!statement.exists(place).map_err(|cause| self.failed(cause))?);
                offset += len;
            }
        }
        Ok(count)
    }

    /// Where `ids` lie: one answer each, in order. Of several places the first pack that was taken in.
    ///
    /// # Errors
    /// From SQLite.
    pub fn places(&self, ids: &[ChunkId]) -> Result<Vec<Option<ChunkPlace>>> {
        let connection = self.lock();
        let transaction = connection.unchecked_transaction().map_err(|cause| self.failed(cause))?;
        let mut statement = transaction
            .prepare_cached(
                "SELECT p.id, p.role, f.offset, f.sealed_len, f.plain_len, f.kind, c.offset, c.len, f.extension
                 FROM chunks c JOIN frames f ON f.no = c.frame JOIN packs p ON p.no = f.pack
                 WHERE c.id = ? ORDER BY f.depth, c.frame LIMIT 1",
            )
            .map_err(|cause| self.failed(cause))?;
        ids.iter()
            .map(|id| statement.query_row([id.as_bytes()], place).optional().map_err(|cause| self.failed(cause)))
            .collect()
    }

    /// Every place of one chunk, those that are read most easily first.
    ///
    /// # Errors
    /// From SQLite.
    pub fn all_places(&self, id: &ChunkId) -> Result<Vec<ChunkPlace>> {
        let connection = self.lock();
        let mut statement = connection
            .prepare_cached(
                "SELECT p.id, p.role, f.offset, f.sealed_len, f.plain_len, f.kind, c.offset, c.len, f.extension
                 FROM chunks c JOIN frames f ON f.no = c.frame JOIN packs p ON p.no = f.pack
                 WHERE c.id = ? ORDER BY f.depth, c.frame",
            )
            .map_err(|cause| self.failed(cause))?;
        let rows = statement.query_map([id.as_bytes()], place).map_err(|cause| self.failed(cause))?;
        rows.map(|row| row.map_err(|cause| self.failed(cause))).collect()
    }

    /// Chunks that have a feature in common with these, the likeliest first. They may be gone since.
    ///
    /// # Errors
    /// From SQLite.
    pub fn alike(&self, features: &Features) -> Result<Vec<ChunkId>> {
        let connection = self.lock();
        let mut statement = connection
            .prepare_cached("SELECT chunk FROM features WHERE slot = ? AND feature = ?")
            .map_err(|cause| self.failed(cause))?;
        let mut found: Vec<ChunkId> = Vec::new();
        for feature in features {
            let chunk = statement
                .query_row([intake::slot(*feature), feature.cast_signed()], |row| row.get(0).map(ChunkId::from_bytes))
                .optional()
                .map_err(|cause| self.failed(cause))?;
            match chunk {
                // Both features say so.
                Some(id) if found.contains(&id) => return Ok(vec![id]),
                Some(id) => found.push(id),
                None => {}
            }
        }
        Ok(found)
    }

    /// The greatest depth of any delta.
    ///
    /// # Errors
    /// From SQLite.
    pub fn deepest(&self) -> Result<u8> {
        let connection = self.lock();
        connection
            .query_row("SELECT coalesce(max(depth), 0) FROM frames", [], |row| row.get(0))
            .map_err(|cause| self.failed(cause))
    }

    /// Totals over everything that is known.
    ///
    /// # Errors
    /// From SQLite.
    pub fn totals(&self) -> Result<IndexTotals> {
        let connection = self.lock();
        connection
            .query_row(
                "SELECT (SELECT count(*) FROM packs), (SELECT coalesce(sum(len), 0) FROM packs),
                        (SELECT count(*) FROM chunks), (SELECT coalesce(sum(plain_len), 0) FROM frames)",
                [],
                |row| {
                    let (packs, pack_bytes) = (row.get(0)?, row.get(1)?);
                    Ok(IndexTotals { packs, pack_bytes, chunks: row.get(2)?, chunk_bytes: row.get(3)? })
                },
            )
            .map_err(|cause| self.failed(cause))
    }
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Whether another attempt would find the same: no database, damaged, of another schema. A lock, a full disk or a
/// forbidden directory is no reason to throw an index away that another process may be using.
fn is_unusable(cause: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, Unknown};
    cause.sqlite_error_code().is_none_or(|code| matches!(code, DatabaseCorrupt | NotADatabase | Unknown))
}

fn remove_files(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let _was_not_there = std::fs::remove_file(with_suffix(path, suffix));
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn prepare(connection: Connection) -> rusqlite::Result<Connection> {
    connection.busy_timeout(std::time::Duration::from_secs(60))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A power cut may cost the last transactions of a cache, never its soundness.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -16 * 1024)?;
    Ok(connection)
}

/// Reads all deltas, the least deep first: one whose base was just forgotten is itself forgotten then.
fn place(row: &rusqlite::Row<'_>) -> rusqlite::Result<ChunkPlace> {
    let role = Role::from_byte(row.get(1)?).ok_or(rusqlite::Error::InvalidQuery)?;
    let extension: Option<Vec<u8>> = row.get(8)?;
    let lineage = match extension {
        Some(bytes) => Some(Arc::new(Lineage::decode(&bytes).map_err(|_| rusqlite::Error::InvalidQuery)?)),
        None => None,
    };
    let frame = FramePlace {
        pack: PackId::from_bytes(row.get(0)?),
        role,
        offset: row.get(2)?,
        sealed_len: row.get(3)?,
        plain_len: row.get(4)?,
        kind: row.get(5)?,
        lineage,
    };
    Ok(ChunkPlace { frame, offset: row.get(6)?, len: row.get(7)? })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::store::pack::{Frame, FrameKind};

    pub fn id(n: u8) -> ChunkId {
        ChunkId::from_bytes([n; 32])
    }

    /// A pack of one chunk, raw or as a delta of so many others.
    pub fn pack(n: u8, chunk: u8, depth: u8, bases: &[u8]) -> PackEntry {
        let (kind, extension) = match bases {
            [] => (FrameKind::Raw, Vec::new()),
            bases => {
                let bases = bases.iter().map(|base| id(*base)).collect();
                (FrameKind::Delta, Lineage { depth, generation: 1, bases }.encode())
            }
        };
        let frame =
            Frame { offset: 44, sealed_len: 116, kind, extension, plain_len: 100, chunks: vec![(id(chunk), 100)] };
        PackEntry { id: PackId::from_bytes([n; 32]), role: Role::Content, len: 300, frames: vec![frame] }
    }

    #[test]
    fn a_delta_whose_base_is_gone_is_not_stored_any_more() {
        let index = Index::in_memory().unwrap();
        let packs = [
            pack(1, 1, 0, &[]),
            pack(2, 2, 0, &[]),
            pack(3, 3, 1, &[2, 1]),
            pack(4, 4, 2, &[3]),
            pack(5, 5, 1, &[2]),
            pack(6, 3, 2, &[5]),
            pack(7, 6, 3, &[3]),
        ];
        for entry in &packs {
            index.add_pack(entry, &[]).unwrap();
        }
        assert_eq!(index.forget_orphans().unwrap(), 0);
        index.remove_packs(&[packs[0].id]).unwrap();
        // Chunk 3 is there still, but deeper than 4 could be a delta of it; 6 can.
        let stored = index.contains(&[1, 2, 3, 4, 5, 6].map(id)).unwrap();
        assert_eq!(stored, [false, true, true, false, true, true]);
        index.remove_packs(&[packs[1].id]).unwrap();
        assert_eq!(index.contains(&[1, 2, 3, 4, 5, 6].map(id)).unwrap(), [false; 6]);
        // When the first comes back, so does what rests on it alone.
        index.add_pack(&packs[1], &[]).unwrap();
        index.recall_orphans().unwrap();
        let stored = index.contains(&[1, 2, 3, 4, 5, 6].map(id)).unwrap();
        assert_eq!(stored, [false, true, true, false, true, true]);
    }

    #[test]
    fn a_delta_that_comes_after_its_base_went_is_not_stored() {
        let index = Index::in_memory().unwrap();
        index.add_pack(&pack(1, 1, 0, &[]), &[]).unwrap();
        index.remove_packs(&[PackId::from_bytes([1; 32])]).unwrap();
        // Such as one that was being made meanwhile.
        index.add_pack(&pack(2, 2, 1, &[1]), &[]).unwrap();
        assert_eq!(index.forget_orphans().unwrap(), 1);
        assert_eq!(index.contains(&[id(2)]).unwrap(), [false]);
        assert_eq!(index.forget_orphans().unwrap(), 0);
        index.add_pack(&pack(3, 3, 2, &[2]), &[]).unwrap();
        assert_eq!(index.forget_orphans().unwrap(), 1);
        index.add_pack(&pack(4, 1, 0, &[]), &[]).unwrap();
        index.recall_orphans().unwrap();
        assert_eq!(index.contains(&[1, 2, 3].map(id)).unwrap(), [true; 3]);
    }
}
