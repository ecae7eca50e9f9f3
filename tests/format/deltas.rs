//! Deltas as compline writes and reads them, and as the reference does: the same strings are deltas to both, and mean the same.

use compline::delta::{self, BaseIndex};
use proptest::prelude::*;

use super::reference_delta::{self, Op};

fn encoded(base: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    let mut index = BaseIndex::default();
    index.fill(base);
    delta::encode(&index, base, target).map(|encoded| encoded.bytes)
}

/// Rows of a dump, noise, or few different bytes.
fn base() -> impl Strategy<Value = Vec<u8>> {
    let rows =
        |count: u32| (0..count).flat_map(|n| format!("{}\t{}\tx{:60}\n", n * 7, n % 5, n).into_bytes()).collect();
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..6000),
        prop::collection::vec(0u8..3, 0..6000),
        (0u32..80).prop_map(rows),
    ]
}

/// Pieces of the base in any order, with something new between them; with no piece, only what is new.
fn edited() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let piece = (any::<prop::sample::Index>(), 0usize..3000, prop::collection::vec(any::<u8>(), 0..60));
    (base(), prop::collection::vec(piece, 0..10)).prop_map(|(base, pieces)| {
        let mut target = Vec::new();
        for (start, len, new) in pieces {
            let start = start.index(base.len() + 1);
            target.extend_from_slice(&base[start..(start + len).min(base.len())]);
            target.extend_from_slice(&new);
        }
        (base, target)
    })
}

/// Operations within a base of so many bytes, and literals for them with some left over.
fn operations(base_len: usize) -> impl Strategy<Value = (Vec<Op>, Vec<u8>)> {
    let op =
        (0usize..9, any::<prop::sample::Index>(), any::<prop::sample::Index>()).prop_map(move |(literal_len, a, b)| {
            let (a, b) = (a.index(base_len + 1), b.index(base_len + 1));
            Op { literal_len, start: a.min(b), copy_len: a.abs_diff(b) }
        });
    (prop::collection::vec(op, 0..8), prop::collection::vec(any::<u8>(), 0..9)).prop_map(|(ops, mut literals)| {
        let len = ops.iter().map(|op| op.literal_len).sum::<usize>() + literals.len();
        literals.resize(len, b'.');
        (ops, literals)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_compline_encodes_the_reference_decodes((base, target) in edited()) {
        if let Some(delta) = encoded(&base, &target) {
            prop_assert_eq!(reference_delta::undo(&delta, &base, target.len()), Ok(target));
            let (ops, literals) = reference_delta::parse(&delta).unwrap();
            prop_assert_eq!(reference_delta::write(&ops, literals), delta);
        }
    }

    #[test]
    fn what_the_reference_writes_compline_decodes(
        (base, (ops, literals)) in base().prop_flat_map(|base| { let len = base.len(); (Just(base), operations(len)) }),
    ) {
        let delta = reference_delta::write(&ops, &literals);
        let len = literals.len() + ops.iter().map(|op| op.copy_len).sum::<usize>();
        let target = reference_delta::undo(&delta, &base, len).unwrap();
        prop_assert_eq!(delta::decode(&delta, &base, len), Ok(target));
        prop_assert!(delta::decode(&delta, &base, len + 1).is_err());
    }

    #[test]
    fn both_refuse_the_same_strings(
        bytes in prop::collection::vec(prop_oneof![0u8..6, 0u8..6, any::<u8>()], 0..24),
        base in prop::collection::vec(any::<u8>(), 0..12),
        plain_len in 0usize..24,
    ) {
        let (ours, theirs) = (delta::decode(&bytes, &base, plain_len), reference_delta::undo(&bytes, &base, plain_len));
        prop_assert_eq!(ours.ok(), theirs.ok());
    }

    #[test]
    fn both_refuse_the_same_changes_of_a_delta(
        (base, (ops, literals)) in base().prop_flat_map(|base| { let len = base.len(); (Just(base), operations(len)) }),
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
    ) {
        let mut delta = reference_delta::write(&ops, &literals);
        let len = literals.len() + ops.iter().map(|op| op.copy_len).sum::<usize>();
        let at = at.index(delta.len());
        delta[at] = with;
        let (ours, theirs) = (delta::decode(&delta, &base, len), reference_delta::undo(&delta, &base, len));
        prop_assert_eq!(ours.ok(), theirs.ok());
    }
}
