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
        self.position(name).map(|at| &self.entries[at])
    }

    /// Where the entry called `name` stands.
    #[must_use]
    pub fn position(&self, name: &[u8]) -> Option<usize> {
        self.entries.binary_search_by(|entry| entry.name.as_slice().cmp(name)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::entry::tests::entry;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn tree() -> impl Strategy<Value = Tree> {
        vec(entry(), 0..8).prop_map(|mut entries| {
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            entries.dedup_by(|a, b| a.name == b.name);
            Tree { entries }
        })
    }

    fn named(names: &[&[u8]]) -> Tree {
        use crate::archive::entry::{EntryKind, Metadata};
        let entry = |name: &&[u8]| Entry {
            name: name.to_vec(),
            kind: EntryKind::Fifo,
            metadata: Metadata::default(),
            changed_while_read: false,
        };
        Tree { entries: names.iter().map(entry).collect() }
    }

    #[test]
    fn names_out_of_order_or_twice_are_refused() {
        for names in [[b"b".as_slice(), b"a"], [b"a", b"a"]] {
            let decoded = Tree::decode(&named(&names).encode());
            assert_eq!(decoded.map_err(|error| error.what), Err("entries not sorted"));
        }
    }

    #[test]
    fn a_count_without_entries_is_refused_before_anything_is_allocated() {
        let mut w = Writer::new();
        w.u8(TREE_VERSION).varint(u64::MAX);
        assert_eq!(Tree::decode(&w.into_bytes()).map_err(|error| error.what), Err("truncated"));
    }

    #[test]
    fn another_version_and_trailing_bytes_are_refused() {
        let mut bytes = named(&[b"a"]).encode();
        bytes.push(0);
        assert_eq!(Tree::decode(&bytes).map_err(|error| error.what), Err("trailing bytes"));
        bytes.pop();
        bytes[0] = TREE_VERSION + 1;
        assert_eq!(Tree::decode(&bytes).map_err(|error| error.what), Err("unknown tree version"));
    }

    #[test]
    fn entries_are_found_by_name() {
        let tree = named(&[b"a", b"b", b"\xff"]);
        assert_eq!(tree.get(b"\xff").map(|entry| entry.name.as_slice()), Some(b"\xff".as_slice()));
        assert_eq!(tree.get(b"c"), None);
    }

    proptest! {
        #[test]
        fn trees_round_trip(tree in tree()) {
            prop_assert_eq!(Tree::decode(&tree.encode()), Ok(tree));
        }

        #[test]
        fn a_damaged_tree_is_refused_or_says_what_it_decodes_to(
            tree in tree(), at: prop::sample::Index, flip in 1..=255u8,
        ) {
            let mut bytes = tree.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if let Ok(decoded) = Tree::decode(&bytes) {
                prop_assert_eq!(decoded.encode(), bytes);
            }
        }

        #[test]
        fn any_bytes_are_a_tree_or_refused(bytes in vec(any::<u8>(), 0..400)) {
            if let Ok(decoded) = Tree::decode(&bytes) {
                prop_assert_eq!(decoded.encode(), bytes);
            }
        }
    }
}
