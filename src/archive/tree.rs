//! Trees: the ordered entries of one directory (format-spec 08).

use super::entry::Entry;
use crate::codec::{Decoded, Reader, Writer};

/// First byte of every encoded tree.
pub const TREE_VERSION: u8 = 1;

/// The entries of a directory, sorted by name as bytes, each name once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    /// Sorted by name.
    pub entries: Vec<Entry>,
}

impl Tree {
    /// The bytes that are chunked and stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(TREE_VERSION).varint(self.entries.len() as u64);
        for entry in &self.entries {
            entry.encode(&mut w);
        }
        w.into_bytes()
    }

    /// Reads what [`Tree::encode`] wrote.
    ///
    /// # Errors
    /// On an unknown version, bad entries, wrong order, a name twice, trailing bytes.
    pub fn decode(bytes: &[u8]) -> Decoded<Self> {
        let mut r = Reader::new(bytes);
        if r.u8()? != TREE_VERSION {
            return Err(r.error("unknown tree version"));
        }
        let count = r.varint()?;
        let mut entries: Vec<Entry> = Vec::new();
        for _ in 0..count {
            let entry = Entry::decode(&mut r)?;
            if entries.last().is_some_and(|last| last.name >= entry.name) {
                return Err(r.error("entries not sorted"));
            }
            entries.push(entry);
        }
        r.end()?;
        Ok(Self { entries })
    }

    /// The entry called `name`.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&Entry> {
        self.entries.binary_search_by(|entry| entry.name.as_slice().cmp(name)).ok().map(|at| &self.entries[at])
    }
}
