//! Resemblance: a few numbers of a byte string that similar strings are likely to share.
//!
//! A gear hash rolls over the bytes; where its upper bits are zero, which content decides and not position, its value is
//! sampled. Several linear transforms of the samples are taken, the largest value of each survives small edits, and groups
//! of such maxima are hashed into features: strings that share one are alike in most of their samples (Zou et al., "Odess:
//! Speeding up resemblance detection for redundancy elimination by fast content-defined sampling", ICDE 2021).

/// Features of one string.
const FEATURE_COUNT: usize = 2;
/// Features of one string.
pub type Features = [u64; FEATURE_COUNT];

/// Maxima that are hashed into one feature: more of them make a match rarer and surer.
const GROUP_LEN: usize = 4;
const TRANSFORM_COUNT: usize = FEATURE_COUNT * GROUP_LEN;
/// One position in 2^7 is sampled.
const SAMPLE_SHIFT: u32 = u64::BITS - 7;
/// The string is rolled over at so many places at once: each step of one waits for the one before.
const LANES: usize = 4;

/// The splitmix64 sequence: numbers without a pattern, the same in every run, as features are compared between runs.
const fn scattered<const N: usize>(mut seed: u64) -> [u64; N] {
    let mut numbers = [0; N];
    let mut n = 0;
    while n < N {
        seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        numbers[n] = mixed ^ (mixed >> 31);
        n += 1;
    }
    numbers
}

static GEAR: [u64; 256] = scattered(1);
const FACTORS: [u64; TRANSFORM_COUNT] = scattered(2);
const ADDENDS: [u64; TRANSFORM_COUNT] = scattered(3);

/// The features of `bytes`. Strings with too few samples have none.
#[must_use]
pub fn features(bytes: &[u8]) -> Option<Features> {
    let mut maxima = [0_u64; TRANSFORM_COUNT];
    let mut sample = |hash: u64| {
        for ((maximum, factor), addend) in maxima.iter_mut().zip(FACTORS).zip(ADDENDS) {
            *maximum = (*maximum).max(hash.wrapping_mul(factor | 1).wrapping_add(addend));
        }
    };
    let lane_len = bytes.len() / LANES;
    let (lanes, rest) = bytes.split_at(lane_len * LANES);
    let mut hashes = [0_u64; LANES];
    for at in 0..lane_len {
        for (lane, hash) in hashes.iter_mut().enumerate() {
            *hash = (*hash << 1).wrapping_add(GEAR[usize::from(lanes[lane * lane_len + at])]);
            if *hash >> SAMPLE_SHIFT == 0 {
                sample(*hash);
            }
        }
    }
    for byte in rest {
        hashes[LANES - 1] = (hashes[LANES - 1] << 1).wrapping_add(GEAR[usize::from(*byte)]);
    }
    if maxima.contains(&0) {
        return None;
    }
    let mut features = [0; FEATURE_COUNT];
    for (feature, group) in features.iter_mut().zip(maxima.chunks_exact(GROUP_LEN)) {
        *feature = group
            .iter()
            .fold(0, |mixed: u64, maximum| (mixed.rotate_left(23) ^ maximum).wrapping_mul(0xD6E8_FEB8_6659_FD93));
    }
    Some(features)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize, seed: u8) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn are_alike(a: &[u8], b: &[u8]) -> bool {
        let (a, b) = (features(a).expect("long"), features(b).expect("long"));
        a.iter().zip(b).any(|(a, b)| *a == b)
    }

    #[test]
    fn most_strings_with_an_edit_share_a_feature_and_strangers_none() {
        let mut found = 0;
        for seed in 0..50 {
            let base = noise(100_000, seed);
            let mut edited = base.clone();
            edited.splice(30_000..30_100, *b"something else");
            edited.drain(70_000..70_010);
            found += usize::from(are_alike(&base, &edited));
            assert!(!are_alike(&base, &noise(100_000, seed + 100)));
        }
        assert!(found >= 45, "{found}");
    }

    #[test]
    fn what_has_no_samples_has_no_features() {
        assert_eq!(features(b""), None);
        assert_eq!(features(b"too short"), None);
    }
}
