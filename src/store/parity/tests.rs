use proptest::prelude::*;

use super::*;

const TENTH: Share = Share(100);

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn protected(len: usize, share: Share) -> (Vec<u8>, Geometry) {
    let mut object = noise(len);
    protect(&mut object, 17, share);
    (object, Geometry::choose(len, 17, share).expect("some share"))
}

fn heals(damaged: &[u8], object: &[u8]) -> bool {
    match heal(damaged, |bytes| bytes == object) {
        Ok(healed) => {
            assert!(healed.bytes == object);
            true
        }
        Err(_) => false,
    }
}

#[test]
fn any_flipped_bit_of_a_small_object_heals() {
    let (object, _) = protected(700, TENTH);
    for at in 0..object.len() {
        for bit in [0, 3, 7] {
            let mut damaged = object.clone();
            damaged[at] ^= 1 << bit;
            assert!(heals(&damaged, &object), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn any_burst_up_to_the_promised_share_heals_wherever_it_lies() {
    let cases = [(700, TENTH), (3000, Share(20)), (64, TENTH), (129, Share(500)), (500, Share::RECORD)];
    for (len, share) in cases {
        let (object, geometry) = protected(len, share);
        let promised = (len * usize::from(share.0)).div_ceil(1000);
        assert!(promised <= (geometry.parity_count - SPARE_COUNT) * geometry.shard_len);
        let burst = (geometry.parity_count - SPARE_COUNT) * geometry.shard_len;
        for start in 0..object.len() - burst {
            let mut damaged = object.clone();
            damaged[start..start + burst].iter_mut().for_each(|byte| *byte = !*byte);
            assert!(heals(&damaged, &object), "{len} bytes, {burst} from {start}");
        }
    }
}

#[test]
fn a_tail_cut_off_heals_up_to_the_promised_share_and_an_appended_one_always() {
    let (object, geometry) = protected(5000, TENTH);
    for len in geometry.data_len + geometry.table_len()..=object.len() {
        assert!(heals(&object[..len], &object), "cut to {len}");
    }
    assert!(object.len() - geometry.data_len - geometry.table_len() > 500);
    assert!(heals(&[object.as_slice(), &[7; 99]].concat(), &object));
}

#[test]
fn as_many_shards_as_are_parity_heal_and_one_more_does_not() {
    let (object, geometry) = protected(300_000, Share(20));
    assert!(geometry.parity_count >= 4);
    let flip = |count: usize| {
        let mut damaged = object.clone();
        (0..count).for_each(|n| damaged[n * 3 * geometry.shard_len] ^= 0x40);
        damaged
    };
    assert!(heals(&flip(geometry.parity_count), &object));
    let error = heal(&flip(geometry.parity_count + 1), |_| true).unwrap_err();
    let shard_count = geometry.shard_count() + geometry.parity_count;
    let damaged = geometry.parity_count + 1;
    assert_eq!(error, HealError::TooMuch { damaged, shard_count, parity_count: geometry.parity_count });
}

#[test]
fn one_label_is_enough() {
    let (object, geometry) = protected(5000, TENTH);
    let labels: Vec<usize> = geometry
        .tables()
        .iter()
        .map(|table| table.start)
        .chain((0..geometry.parity_count).map(|n| geometry.block(n).start))
        .collect();
    for survivor in &labels {
        let mut damaged = object.clone();
        labels.iter().filter(|at| *at != survivor).for_each(|at| damaged[*at] ^= 1);
        let end = damaged.len();
        damaged[end - TRAILER_LEN..].fill(0);
        assert!(heals(&damaged, &object), "{survivor}");
    }
    let mut damaged = object.clone();
    for at in labels {
        damaged[at] ^= 1;
    }
    assert_eq!(heal(&damaged, |_| true), Err(HealError::NoParity));
}

#[test]
fn data_that_is_whole_needs_no_table() {
    let (object, geometry) = protected(5000, TENTH);
    let mut damaged = object.clone();
    for table in geometry.tables() {
        damaged[table].fill(0);
    }
    assert!(heals(&damaged, &object));
    damaged[0] ^= 1;
    assert_eq!(heal(&damaged, |bytes| bytes == object), Err(HealError::NotIt));
}

#[test]
fn what_was_not_written_is_refused_even_if_its_parity_fits() {
    let (object, _) = protected(5000, TENTH);
    assert_eq!(heal(&object, |_| false), Err(HealError::NotIt));
    assert_eq!(heal(&object[..4000], |_| true), Err(HealError::NoParity));
    assert_eq!(heal(b"", |_| true), Err(HealError::NoParity));
}

#[test]
fn both_engines_and_all_widths_of_columns_make_the_same_parity() {
    let data = noise(100_000);
    let geometry = Geometry::choose(data.len(), 0, TENTH).expect("some share");
    let mut parts = vec![vec![0; geometry.part_len()]; 2];
    encode(&Naive::new(), &data, &mut parts[0], &geometry);
    encode(&DefaultEngine::new(), &data, &mut parts[1], &geometry);
    assert!(parts[0] == parts[1]);
    let shards: Vec<&[u8]> = data.chunks_exact(geometry.shard_len).collect();
    let tail = &data[shards.len() * geometry.shard_len..];
    let last = [tail, &vec![0; geometry.shard_len - tail.len()]].concat();
    let shards = shards.into_iter().chain([last.as_slice()]);
    // By the crate, all at once.
    let theirs = reed_solomon_simd::encode(geometry.shard_count(), geometry.parity_count, shards).expect("it fits");
    for (block, shard) in geometry.blocks(&mut parts[0]).zip(theirs) {
        assert!(block[LABEL_LEN..] == shard);
    }
}

#[test]
fn every_length_has_an_arrangement_and_pays_about_its_share() {
    for share in [1, 10, 20, 50, 100, 500] {
        for len in (0..32).flat_map(|power| [1_usize << power, (3_usize << power) / 2 + 1]) {
            let geometry = Geometry::choose(len, 0, Share(share)).expect("an arrangement");
            assert!(geometry.is_allowed());
            let promised = (len as u128 * u128::from(share)).div_ceil(1000);
            let healed = (geometry.parity_count - SPARE_COUNT) * geometry.shard_len;
            assert!(healed as u128 >= promised, "{len} {share}");
            let most = len / 1000 * usize::from(share) + len / 1000 * usize::from(share) / 8 + 40 * len.isqrt() + 1500;
            assert!(geometry.part_len() < most, "{len} {share}: {} of {most}", geometry.part_len());
        }
    }
    assert_eq!(Geometry::choose(1000, 0, Share::NONE), None);
}

#[test]
fn a_label_that_promises_too_much_costs_nothing() {
    // An object of a few bytes that claims to be the rest of four gigabytes.
    let geometry = Geometry { data_len: 1 << 32, footer_len: 0, shard_len: 1 << 20, parity_count: 4098 };
    assert!(geometry.is_allowed());
    let label = Label { number: TABLE_NUMBER, geometry, hash: [0; 8] }.encode();
    assert_eq!(Label::decode(&label).map(|label| label.geometry), Ok(geometry));
    assert_eq!(heal(&label, |_| true), Err(HealError::NoParity), "it lies elsewhere than it says");
    let small = Geometry { data_len: 100_000, shard_len: 64, ..geometry };
    let error = heal_as(&label, &small).unwrap_err();
    assert_eq!(error, HealError::TooMuch { damaged: 1563, shard_count: 1563 + 4098, parity_count: 4098 });
    assert_eq!(heal(&label.repeat(100), |_| true), Err(HealError::NoParity));
}

proptest! {
    #[test]
    fn scattered_flips_and_a_burst_heal_or_fail_and_never_lie(
        len in 1_usize..60_000,
        share in 1_u16..=500,
        flips in proptest::collection::vec(any::<u32>(), 0..8),
        burst in (any::<u32>(), 0_usize..3000),
        cut in 0_usize..200,
    ) {
        let (object, geometry) = protected(len, Share(share));
        let mut damaged = object.clone();
        for flip in &flips {
            let bit = *flip as usize % (damaged.len() * 8);
            damaged[bit / 8] ^= 1 << (bit % 8);
        }
        let start = burst.0 as usize % damaged.len();
        let end = damaged.len().min(start + burst.1);
        damaged[start..end].fill(0xa5);
        damaged.truncate(damaged.len() - cut.min(damaged.len()));
        let healed = heal(&damaged, |bytes| bytes == object);
        let hit = flips.len() + burst.1 / geometry.shard_len + 3 + cut.div_ceil(geometry.block_len()) + 1;
        // A cut takes the second table; with the first gone too, nobody knows which shards to trust.
        let first = &geometry.tables()[0];
        let is_blind = cut > TRAILER_LEN && start < first.end && first.start < end;
        if let Ok(healed) = healed {
            prop_assert!(healed.bytes == object);
        } else {
            prop_assert!(is_blind || hit > geometry.parity_count, "{healed:?}");
        }
    }

    #[test]
    fn healing_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..400), number in 0_u32..9, data_len in 0_u64..500) {
        let _refused = Label::decode(&bytes);
        let _refused = heal(&bytes, |_| true);
        let geometry = Geometry { data_len: usize::try_from(data_len).unwrap(), footer_len: 0, shard_len: 64, parity_count: 3 };
        let label = Label { number, geometry, hash: [0; 8] }.encode();
        let mut object = bytes;
        let at = if number == 0 { geometry.block(0).start } else { geometry.tables()[0].start };
        object.resize(at, 0);
        object.extend_from_slice(&label);
        let _refused = heal(&object, |_| true);
    }
}
