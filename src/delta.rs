//! Deltas: one byte string as copies out of another, its base, and literals between them (format-spec 06).
//!
//! Where rows of a dump change here and there, base and target agree in long runs whose distance shifts slowly. So the base
//! is indexed by one block in sixteen places, every run is extended as far as it goes in both directions, and what remains is
//! what is really new. That is smaller than zstd with the base as prefix, which takes the nearest similar place for the right
//! one, and several times as fast in both directions (decision `delta-codec`).

mod features;
mod rope;

pub use features::{Features, features};
pub use rope::Rope;

use crate::codec::{Decoded, Reader, Writer};

/// Bytes of the base that are hashed together ...
const BLOCK_LEN: usize = 32;
/// ... at offsets divisible by this. A block must be so much longer that what tells a padded row from its neighbours, its
/// number perhaps, is whole in one of them: with 16 and 16 the copies of such a table fall into the wrong rows for good.
const STEP: usize = 16;
/// Where the last copy would go on, so many equal bytes are taken for it.
const STRAIGHT_LEN: usize = 16;
/// No copy is shorter, unless what follows it makes it longer: it would cost more than its bytes.
const COPY_LEN_MIN: usize = 16;
/// A search that has gone so far without finding anything is given up.
const TRIAL_LEN: usize = 256 << 10;
/// Less than one byte in so many in common is not worth a delta.
const SHARE_MIN: usize = 16;
/// Unused slot of the table.
const EMPTY: u32 = u32::MAX;

/// Literals, then a copy out of the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Op {
    literal_len: usize,
    base_start: usize,
    copy_len: usize,
}

/// Where the blocks of a base lie. Of equal blocks the first is kept.
#[derive(Debug, Default)]
pub struct BaseIndex {
    slots: Vec<u32>,
    shift: u32,
}

impl BaseIndex {
    /// Indexes `base`, in the memory of the last one.
    pub fn fill(&mut self, base: &[u8]) {
        let bits = (base.len() / STEP * 2).next_power_of_two().max(16).ilog2();
        self.shift = u64::BITS - bits;
        self.slots.clear();
        self.slots.resize(1 << bits, EMPTY);
        for (number, block) in base.windows(BLOCK_LEN).step_by(STEP).enumerate() {
            let slot = &mut self.slots[slot_of(block, self.shift)];
            if *slot == EMPTY {
                *slot = u32::try_from(number * STEP).unwrap_or(EMPTY);
            }
        }
    }

    /// Where in the base a block equal to `block` may begin.
    fn find(&self, block: &[u8]) -> Option<usize> {
        let start = self.slots[slot_of(block, self.shift)];
        (start != EMPTY).then_some(start as usize)
    }
}

fn slot_of(block: &[u8], shift: u32) -> usize {
    let mixed = block.chunks_exact(8).fold(0_u64, |mixed, word| {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        (mixed.rotate_left(29) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    });
    usize::try_from((mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93) >> shift).unwrap_or(0)
}

/// How many bytes two strings have in common at their beginning.
fn common_start(a: &[u8], b: &[u8]) -> usize {
    let words = a.chunks_exact(8).zip(b.chunks_exact(8));
    let mut len = 0;
    for (x, y) in words {
        let differ = u64::from_le_bytes(x.try_into().expect("eight bytes"))
            ^ u64::from_le_bytes(y.try_into().expect("eight bytes"));
        if differ != 0 {
            return len + differ.trailing_zeros() as usize / 8;
        }
        len += 8;
    }
    len + a[len..].iter().zip(&b[len..]).take_while(|(x, y)| x == y).count()
}

/// How many bytes two strings have in common at their end.
fn common_end(a: &[u8], b: &[u8]) -> usize {
    a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count()
}

/// A run that base and target have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Where it begins in the target.
    pub target: usize,
    /// Where it begins in the base.
    pub base: usize,
    /// Its length.
    pub len: usize,
}

impl Run {
    /// Where it ends in the target.
    fn end(&self) -> usize {
        self.target + self.len
    }
}

/// A delta, and what it copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The delta.
    pub bytes: Vec<u8>,
    /// Its copies, in order of the target.
    pub runs: Vec<Run>,
}

/// Finds the runs of one target.
struct Search<'s> {
    index: &'s BaseIndex,
    base: &'s [u8],
    target: &'s [u8],
    /// End of the last run, in the target and in the base.
    done: Run,
}

impl Search<'_> {
    /// The run through (`target`, `base`), as long as it goes. Backwards it may take from the last run.
    fn extend(&self, target: usize, base: usize) -> Run {
        let ahead = common_start(&self.target[target..], &self.base[base..]);
        let floor = self.done.target;
        let behind = common_end(&self.target[floor..target], &self.base[..base]);
        Run { target: target - behind, base: base - behind, len: ahead + behind }
    }

    /// The best run that begins to be seen at `at`: on the diagonal of the last one, or where the index leads.
    fn at(&self, at: usize) -> Option<Run> {
        let block = self.target.get(at..at + BLOCK_LEN)?;
        let base = self.index.find(block)?;
        if self.base[base..base + BLOCK_LEN] != *block {
            return None;
        }
        Some(self.extend(at, base))
    }

    /// The first run behind the last one that is worth a copy. Blocks that begin inside the last run are looked at too: in
    /// padded rows only a block that straddles its end tells where the base goes on.
    ///
    /// Gives up after `limit` bytes without one.
    fn next(&self, limit: usize) -> Option<Run> {
        let end = self.done.end();
        let last = end.saturating_add(limit).min(self.target.len());
        let from = end.saturating_sub(BLOCK_LEN - 1).max(self.done.target);
        let mut best: Option<Run> = None;
        let straight = self.done.base + self.done.len;
        let mut at = from;
        while at + STRAIGHT_LEN <= last {
            let mut seen = self.at(at).filter(|run| run.end() > end + COPY_LEN_MIN);
            if at >= end {
                let base = straight + (at - end);
                let here = &self.target[at..at + STRAIGHT_LEN];
                if self.base.get(base..base + STRAIGHT_LEN).is_some_and(|block| block == here) {
                    let run = self.extend(at, base);
                    if seen.is_none_or(|seen| run.end() >= seen.end()) {
                        seen = Some(run);
                    }
                }
            }
            if seen.as_ref().map(Run::end) > best.as_ref().map(Run::end) {
                best = seen;
            }
            if at >= end && best.is_some() {
                break;
            }
            at += 1;
        }
        best
    }
}

/// The runs in order of the target, which do not overlap there. None if base and target have too little in common to go on.
fn runs(index: &BaseIndex, base: &[u8], target: &[u8]) -> Option<Vec<Run>> {
    let start = common_start(target, base);
    let mut runs: Vec<Run> = Vec::new();
    let mut search = Search { index, base, target, done: Run { target: 0, base: 0, len: start } };
    let mut found = start;
    if start > 0 {
        runs.push(search.done);
    }
    loop {
        let limit = if found == 0 { TRIAL_LEN } else { usize::MAX };
        let Some(run) = search.next(limit) else { break };
        // What the new run reaches back over is taken from the last one.
        if let Some(last) = runs.last_mut() {
            last.len = last.len.min(run.target - last.target);
            if last.len == 0 {
                runs.pop();
            }
        }
        runs.push(run);
        found += run.len;
        search.done = run;
    }
    (found >= target.len() / SHARE_MIN).then_some(runs)
}

/// `target` as a delta over `base`, which `index` was filled with. None if it would not be shorter than the target.
#[must_use]
pub fn encode(index: &BaseIndex, base: &[u8], target: &[u8]) -> Option<Encoded> {
    let runs = runs(index, base, target)?;
    let mut at = 0;
    let mut literals = Vec::new();
    let mut ops = Vec::with_capacity(runs.len());
    for run in &runs {
        literals.extend_from_slice(&target[at..run.target]);
        ops.push(Op { literal_len: run.target - at, base_start: run.base, copy_len: run.len });
        at = run.end();
    }
    literals.extend_from_slice(&target[at..]);
    let bytes = write(&ops, &literals);
    (bytes.len() < target.len()).then_some(Encoded { bytes, runs })
}

/// In columns, because like goes with like when zstd comes over it.
fn write(ops: &[Op], literals: &[u8]) -> Vec<u8> {
    let mut w = Writer::new();
    w.varint(ops.len() as u64);
    for op in ops {
        w.varint(op.literal_len as u64);
    }
    for op in ops {
        w.varint(op.copy_len as u64);
    }
    let mut end = 0;
    for op in ops {
        let straight = end + op.literal_len;
        w.varint(zigzag(signed(op.base_start) - signed(straight)));
        end = op.base_start + op.copy_len;
    }
    w.bytes(literals);
    w.into_bytes()
}

fn signed(n: usize) -> i64 {
    i64::try_from(n).expect("a position in memory")
}

fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)).cast_unsigned()
}

fn unzigzag(n: u64) -> i64 {
    (n >> 1).cast_signed() ^ -(n & 1).cast_signed()
}

/// The target, `plain_len` bytes, that `delta` makes out of `base`.
///
/// # Errors
/// When it copies from beyond the base, makes more or less than `plain_len` bytes, or is no delta at all.
pub fn decode(delta: &[u8], base: &[u8], plain_len: usize) -> Decoded<Vec<u8>> {
    let mut r = Reader::new(delta);
    let (ops, literals) = read(&mut r, base.len(), plain_len)?;
    let mut plain = Vec::with_capacity(plain_len);
    let mut rest = literals;
    for op in ops {
        let (new, after) = rest.split_at(op.literal_len);
        plain.extend_from_slice(new);
        plain.extend_from_slice(&base[op.base_start..op.base_start + op.copy_len]);
        rest = after;
    }
    plain.extend_from_slice(rest);
    Ok(plain)
}

/// Operations that stay within the base, and the literals; together they make `plain_len` bytes.
fn read<'d>(r: &mut Reader<'d>, base_len: usize, plain_len: usize) -> Decoded<(Vec<Op>, &'d [u8])> {
    // Each operation takes three bytes at least.
    let count = r.varint_at_most(r.remaining() as u64 / 3, "too many operations")?;
    let mut ops = Vec::new();
    let (mut literal_len, mut copied_len) = (0_usize, 0_usize);
    for _ in 0..count {
        let len = length(r, plain_len - literal_len, "literal too long")?;
        literal_len += len;
        ops.push(Op { literal_len: len, base_start: 0, copy_len: 0 });
    }
    for op in &mut ops {
        op.copy_len = length(r, plain_len - literal_len - copied_len, "copy too long")?;
        copied_len += op.copy_len;
    }
    let mut end = 0_usize;
    for op in &mut ops {
        let step = unzigzag(r.varint()?);
        let start = signed(end + op.literal_len).checked_add(step).and_then(|start| usize::try_from(start).ok());
        op.base_start = start
            .filter(|start| start.checked_add(op.copy_len).is_some_and(|end| end <= base_len))
            .ok_or_else(|| r.error("copy from beyond the base"))?;
        end = op.base_start + op.copy_len;
    }
    let literals = r.bytes(r.remaining())?;
    if literals.len() < literal_len || literals.len() + copied_len != plain_len {
        return Err(r.error("another length than the chunk's"));
    }
    Ok((ops, literals))
}

fn length(r: &mut Reader<'_>, max: usize, what: &'static str) -> Decoded<usize> {
    let len = r.varint_at_most(max as u64, what)?;
    usize::try_from(len).map_err(|_| r.error(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn delta(base: &[u8], target: &[u8]) -> Option<Vec<u8>> {
        let mut index = BaseIndex::default();
        index.fill(base);
        encode(&index, base, target).map(|encoded| encoded.bytes)
    }

    fn rows(count: u32) -> Vec<u8> {
        (0..count).flat_map(|n| format!("{}\t{}\t{:84}\n", n * 7, n % 3, "").into_bytes()).collect()
    }

    #[test]
    fn a_row_less_and_a_row_more_cost_a_few_bytes() {
        let base = rows(3000);
        let mut target = base.clone();
        target.drain(100_000..100_092);
        target.splice(200_000..200_000, *b"a new row\n");
        let delta = delta(&base, &target).expect("much in common");
        assert!(delta.len() < 40, "{}", delta.len());
        assert_eq!(decode(&delta, &base, target.len()), Ok(target));
    }

    #[test]
    fn copies_out_of_padded_rows_find_the_right_row_again() {
        let base = rows(5000);
        let mut target = base.clone();
        // Rows are about 96 bytes; one in fifty is gone.
        for n in (0..5000 / 50).rev() {
            let start = base.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(n * 50).map_or(0, |(at, _)| at);
            let end = start + 1 + base[start + 1..].iter().position(|byte| *byte == b'\n').unwrap_or(0);
            target.drain(start..end);
        }
        let delta = delta(&base, &target).expect("much in common");
        assert!(delta.len() < 100 * 8, "{}", delta.len());
        assert_eq!(decode(&delta, &base, target.len()), Ok(target));
    }

    #[test]
    fn an_unrelated_base_is_given_up() {
        let mut base = vec![0; 100_000];
        blake3::Hasher::new().finalize_xof().fill(&mut base);
        assert_eq!(delta(&base, &rows(1000)), None);
        assert_eq!(delta(b"", b""), None);
    }

    #[test]
    fn hostile_operations_are_errors() {
        let base = [7; 64];
        let cases: [(&[u8], &str); 6] = [
            (&[1, 0, 65, 0], "copy too long"),
            (&[1, 0, 64, 2], "copy from beyond the base"),
            (&[1, 0, 64, 1], "copy from beyond the base"),
            (&[100, 0, 0, 0], "too many operations"),
            (&[1, 65, 0, 0], "literal too long"),
            (&[1, 0, 60, 0, 1, 2, 3], "another length than the chunk's"),
        ];
        for (delta, what) in cases {
            assert_eq!(decode(delta, &base, 64).unwrap_err().what, what);
        }
        assert_eq!(decode(&[1, 0, 64, 0], &base, 64), Ok(base.to_vec()));
    }

    fn edited() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let piece = (0usize..4000, 0usize..300, prop::collection::vec(0u8..4, 0..200));
        let base = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..5000),
            prop::collection::vec(0u8..3, 0..5000),
            (0u32..60).prop_map(rows),
        ];
        (base, prop::collection::vec(piece, 0..12)).prop_map(|(base, pieces)| {
            let mut target = Vec::new();
            for (start, len, new) in pieces {
                let start = start.min(base.len());
                target.extend_from_slice(&base[start..(start + len * 8).min(base.len())]);
                target.extend_from_slice(&new);
            }
            (base, target)
        })
    }

    proptest! {
        #[test]
        fn what_was_encoded_comes_back((base, target) in edited()) {
            if let Some(delta) = delta(&base, &target) {
                prop_assert!(delta.len() < target.len());
                prop_assert_eq!(decode(&delta, &base, target.len()), Ok(target));
            }
        }

        #[test]
        fn arbitrary_bytes_are_no_panic(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..8], 0..60),
            base in prop::collection::vec(any::<u8>(), 0..200),
            len in 0usize..300,
        ) {
            if let Ok(plain) = decode(&bytes, &base, len) {
                prop_assert_eq!(plain.len(), len);
            }
        }
    }
}
