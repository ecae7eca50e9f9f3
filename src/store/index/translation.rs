//! What the chunks of one repository are called in another that has other keys: the name is made of the bytes and a key, so
//! only who has read a chunk knows both. Kept beside the index of the repository that is copied to, so that what was
//! copied once is never read again. A cache like the index: an entry is true for ever, and one that is lost costs a read.

use std::path::Path;
use std::sync::Mutex;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::{Index, failed, is_unusable, prepare, remove_files};
use crate::error::Result;
use crate::id::{ChunkId, RepositoryId};
use crate::pipeline::lock;

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS names (there BLOB PRIMARY KEY, here BLOB NOT NULL) WITHOUT ROWID;";

/// Names of chunks in two repositories.
pub struct Translation {
    connection: Mutex<Connection>,
}

impl Translation {
    /// For chunks that come from the repository `from` into the one of `index`. Without a cache it lives as long as the run.
    ///
    /// # Errors
    /// When the file can't be made.
    pub fn open(index: &Index, from: RepositoryId) -> Result<Self> {
        let path = index.path.as_deref().and_then(Path::parent);
        let connection = match path {
            Some(directory) => {
                let path = directory.join(format!("from-{}.sqlite", from.to_hex()));
                match open_file(&path) {
                    Err(cause) if is_unusable(&cause) => {
                        remove_files(&path);
                        open_file(&path)
                    }
                    other => other,
                }
            }
            // An empty name is a file that nobody sees and that goes with the connection.
            None => Connection::open("").and_then(with_tables),
        };
        Ok(Self { connection: Mutex::new(connection.map_err(failed)?) })
    }

    /// The names here of chunks that are called `ids` there, as far as they are known.
    ///
    /// # Errors
    /// From SQLite.
    pub fn look_up(&self, ids: &[ChunkId]) -> Result<Vec<Option<ChunkId>>> {
        let connection = lock(&self.connection);
        let found = connection.unchecked_transaction().and_then(|transaction| {
            let mut statement = transaction.prepare_cached("SELECT here FROM names WHERE there = ?")?;
            let one = |id: &ChunkId| {
                statement.query_row([id.as_bytes()], |row| row.get(0).map(ChunkId::from_bytes)).optional()
            };
            ids.iter().map(one).collect()
        });
        found.map_err(failed)
    }

    /// Remembers names, there and here.
    ///
    /// # Errors
    /// From SQLite.
    pub fn note<'n>(&self, names: impl Iterator<Item = (&'n ChunkId, &'n ChunkId)>) -> Result<()> {
        let mut connection = lock(&self.connection);
        let noted = connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|transaction| {
            let mut statement = transaction.prepare_cached("INSERT OR REPLACE INTO names VALUES (?, ?)")?;
            for (there, here) in names {
                statement.execute([there.as_bytes(), here.as_bytes()])?;
            }
            drop(statement);
            transaction.commit()
        });
        noted.map_err(failed)
    }
}

fn open_file(path: &Path) -> rusqlite::Result<Connection> {
    use std::os::unix::fs::OpenOptionsExt;
    // As with the index: nobody else reads it, and if this fails SQLite says why.
    let _made = std::fs::File::options().append(true).create(true).mode(0o600).open(path);
    Connection::open(path).and_then(prepare).and_then(with_tables)
}

fn with_tables(connection: Connection) -> rusqlite::Result<Connection> {
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}
