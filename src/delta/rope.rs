//! A byte string that is parts of other byte strings, one after the other: what a chain of deltas makes out of its first
//! base, before a byte is copied. A version ten deltas away costs its operations ten times, and its bytes once.

use std::ops::Range;
use std::sync::Arc;

use super::{Op, read};
use crate::codec::{Decoded, Reader};

/// With more parts than this, bytes are copied after all: looking parts up costs more by then.
const PART_COUNT_MAX: usize = 16 * 1024;

/// A part of one source.
#[derive(Debug, Clone, Copy)]
struct Part {
    /// Where it ends in the rope.
    end: usize,
    /// Which source.
    source: usize,
    /// Where it begins in the source.
    start: usize,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Rope {
    sources: Vec<Arc<Vec<u8>>>,
    parts: Vec<Part>,
}

impl Rope {
    /// All of `bytes`.
    #[must_use]
    pub fn of(bytes: Arc<Vec<u8>>) -> Self {
        let parts = if bytes.is_empty() { Vec::new() } else { vec![Part { end: bytes.len(), source: 0, start: 0 }] };
        Self { sources: vec![bytes], parts }
    }

    /// Its length.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.last().map_or(0, |part| part.end)
    }

    /// Whether it holds no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Its bytes.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        for part in &self.parts {
            let len = part.end - bytes.len();
            bytes.extend_from_slice(&self.sources[part.source][part.start..part.start + len]);
        }
        bytes
    }

    /// Appends the bytes `range` of another.
    ///
    /// # Panics
    /// When it has fewer.
    pub fn append(&mut self, other: &Self, range: Range<usize>) {
        assert!(range.end <= other.len() && range.start <= range.end, "the caller looked at the length");
        let first_source = self.sources.len();
        self.sources.extend(other.sources.iter().cloned());
        self.copy(&other.parts, range, first_source);
    }

    /// What `delta` makes out of it: `plain_len` bytes.
    ///
    /// # Errors
    /// As [`decode`](super::decode).
    pub fn patched(&self, delta: Arc<Vec<u8>>, plain_len: usize) -> Decoded<Self> {
        let mut r = Reader::new(&delta);
        let (ops, literals) = read(&mut r, self.len(), plain_len)?;
        let mut literal = delta.len() - literals.len();
        let mut made =
            Self { sources: self.sources.clone(), parts: Vec::with_capacity(self.parts.len() + ops.len() * 2) };
        let own = made.sources.len();
        for Op { literal_len, base_start, copy_len } in ops {
            made.push(own, literal, literal_len);
            literal += literal_len;
            made.copy(&self.parts, base_start..base_start + copy_len, 0);
        }
        made.push(own, literal, plain_len - made.len());
        made.sources.push(delta);
        if made.parts.len() > PART_COUNT_MAX {
            made = Self::of(Arc::new(made.to_vec()));
        }
        Ok(made)
    }

    /// Appends the parts of another in `range`, whose sources begin at `first_source` here.
    fn copy(&mut self, parts: &[Part], range: Range<usize>, first_source: usize) {
        let mut at = range.start;
        let mut n = parts.partition_point(|part| part.end <= at);
        while at < range.end {
            let part = &parts[n];
            let part_start = if n == 0 { 0 } else { parts[n - 1].end };
            let end = part.end.min(range.end);
            self.push(first_source + part.source, part.start + (at - part_start), end - at);
            at = end;
            n += 1;
        }
    }

    fn push(&mut self, source: usize, start: usize, len: usize) {
        if len == 0 {
            return;
        }
        let begin = self.len();
        let before = self.parts.len().checked_sub(2).map_or(0, |n| self.parts[n].end);
        match self.parts.last_mut() {
            // It goes on where the last part ended.
            Some(last) if last.source == source && last.start + (last.end - before) == start => last.end += len,
            _ => self.parts.push(Part { end: begin + len, source, start }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::{BaseIndex, decode, encode};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_chain_makes_what_its_deltas_make_one_by_one(
            first in prop::collection::vec(0u8..8, 0..3000),
            second in prop::collection::vec(0u8..8, 0..300),
            edits in prop::collection::vec((0usize..3000, 0usize..40, prop::collection::vec(any::<u8>(), 0..40)), 1..10),
        ) {
            let mut rope = Rope::of(Arc::new(first.clone()));
            rope.append(&Rope::of(Arc::new(second.clone())), 0..second.len());
            let mut plain = [first, second].concat();
            prop_assert_eq!(rope.to_vec(), plain.clone());
            for (at, gone, new) in edits {
                let start = at.min(plain.len());
                let mut target = plain.clone();
                target.splice(start..(start + gone).min(plain.len()), new);
                let mut index = BaseIndex::default();
                index.fill(&plain);
                let Some(delta) = encode(&index, &plain, &target).map(|encoded| encoded.bytes) else { continue };
                prop_assert_eq!(decode(&delta, &plain, target.len()), Ok(target.clone()));
                rope = rope.patched(Arc::new(delta), target.len()).unwrap();
                prop_assert_eq!(rope.len(), target.len());
                prop_assert_eq!(rope.to_vec(), target.clone());
                plain = target;
            }
        }
    }

    #[test]
    fn hostile_operations_are_errors_here_too() {
        let rope = Rope::of(Arc::new(vec![7; 64]));
        assert!(rope.patched(Arc::new(vec![1, 0, 64, 2]), 64).is_err());
        assert!(rope.patched(Arc::new(vec![0]), 1).is_err());
        assert_eq!(rope.patched(Arc::new(vec![1, 0, 64, 0]), 64).unwrap().to_vec(), [7; 64]);
    }
}
