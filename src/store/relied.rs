//! What a writer counts on that can't read: it can't walk its snapshot again to see whether everything is still there, so it
//! keeps the id of every chunk that it offered. In a file without a name, since there may be millions.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};

use super::index::Known;
use super::repository::Repository;
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::pipeline::lock;

/// Ids that are looked up together.
const BATCH_COUNT: usize = 4096;

/// Ids of chunks in the order in which they were offered.
pub struct Relied(BufWriter<File>);

fn failed(cause: std::io::Error) -> Error {
    Error::io("The list of chunks can't be kept in a file", cause)
}

impl Relied {
    /// An empty list.
    ///
    /// # Errors
    /// When there is no room for a file.
    pub fn new() -> Result<Self> {
        tempfile::tempfile().map(BufWriter::new).map(Self).map_err(failed)
    }

    /// Appends ids.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn note(&mut self, ids: &[ChunkId]) -> Result<()> {
        ids.iter().try_for_each(|id| self.0.write_all(id.as_bytes())).map_err(failed)
    }

    fn each(&mut self, mut found: impl FnMut(&[ChunkId]) -> Result<bool>) -> Result<bool> {
        self.0.flush().map_err(failed)?;
        let file = self.0.get_mut();
        file.rewind().map_err(failed)?;
        let mut reader = BufReader::new(&*file);
        let mut ids = Vec::new();
        let mut bytes = [0; ChunkId::LEN];
        loop {
            let is_end = match reader.read_exact(&mut bytes) {
                Ok(()) => {
                    ids.push(ChunkId::from_bytes(bytes));
                    false
                }
                Err(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => true,
                Err(cause) => return Err(failed(cause)),
            };
            if (is_end || ids.len() >= BATCH_COUNT) && !found(&std::mem::take(&mut ids))? {
                return Ok(false);
            }
            if is_end {
                // What comes after goes behind what is there.
                return file.seek(std::io::SeekFrom::End(0)).map(|_| true).map_err(failed);
            }
        }
    }
}

impl Repository {
    /// Whether every chunk that the writer at work offered was there when it looked; for who can't read what it wrote.
    ///
    /// # Errors
    /// From the index, and when the list can't be read.
    pub fn relies_on_nothing_lost(&self, known: Known) -> Result<bool> {
        let mut relied = lock(&self.inner.relied);
        let Some(relied) = relied.as_mut() else { return Ok(true) };
        relied.each(|ids| Ok(self.index().contains_of(ids, known)?.iter().all(|stored| *stored)))
    }
}
