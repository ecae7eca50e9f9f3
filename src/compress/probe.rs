//! Telling noise from the rest, before zstd is asked: zstd needs about 0.4 ms to find out that 1 MiB of noise stays 1 MiB,
//! copying it included; a quarter of that is enough to see it.
//!
//! Two ways to get smaller, two questions:
//!
//! - **Are some bytes rarer than others?** Windows at fixed distances, each small enough to show a skew that holds for a
//!   part of the frame only. Measured is the sum of the squared counts of each byte: integers, no logarithms, and the
//!   same as chi square up to a constant.
//! - **Does anything repeat?** A string that occurs twice has the same bytes in it, so one byte value serves as anchor:
//!   what follows it is looked up among what followed it before. This sees all of the frame, but only 1 of 256 positions
//!   of noise. The anchor is the letter that text has most of; text ends the search within its first kilobyte.
//!
//! A wrong yes costs the time that zstd takes; a wrong no costs what it would have saved. So any sign is a yes, and what
//! escapes both is bounded: a skew between two windows without any repetition, or repetitions of less than one byte in
//! [`REPEATED_MIN`].

use std::cell::RefCell;

/// Below this there is nothing to gain.
pub const PROBED_LEN_MIN: usize = 64 << 10;

const WINDOW_LEN: usize = 1 << 10;
/// From the beginning of a window to the next.
const WINDOW_DISTANCE: usize = 32 << 10;
/// Sum of the squared counts from which on one window counts as skewed. Noise has `n + n(n-1)/256`, which is 5116, with a
/// deviation of 90. zstd codes literals only where that saves a good 64th of them; of the skewed bytes that were tried
/// (the top bit missing in some, one byte more frequent) those with 7200 got no smaller, and the first to get smaller
/// had 8600.
const SKEWED: u32 = 7_000;

const ANCHOR: u8 = b'e';
/// So many bytes behind an anchor must be the same: fewer occur twice by chance, and zstd looks for no shorter matches.
const REPEATED_LEN: usize = 5;
/// One in so many bytes must repeat for zstd to be asked.
const REPEATED_MIN: usize = 512;
const SLOT_BITS: u32 = 14;

thread_local! {
    static SLOTS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// Whether `bytes` may get smaller. Wrong now and then, see above.
#[must_use]
pub fn may_compress(bytes: &[u8]) -> bool {
    bytes.len() < PROBED_LEN_MIN || repeats(bytes) || is_skewed(bytes)
}

fn is_skewed(bytes: &[u8]) -> bool {
    let last = bytes.len() - WINDOW_LEN;
    // The last window is where the last file of a frame is, or its padding.
    (0..last).step_by(WINDOW_DISTANCE).chain([last]).any(|start| {
        let mut counts = [0_u32; 256];
        for byte in &bytes[start..start + WINDOW_LEN] {
            counts[usize::from(*byte)] += 1;
        }
        counts.iter().map(|count| count * count).sum::<u32>() >= SKEWED
    })
}

fn repeats(bytes: &[u8]) -> bool {
    SLOTS.with_borrow_mut(|slots| {
        slots.clear();
        slots.resize(1 << SLOT_BITS, 0);
        // Each anchor that repeats stands for the bytes to the next one, 256 in noise.
        let wanted = bytes.len() / 256 / REPEATED_MIN;
        let last = bytes.len() - 8;
        let mut found = 0;
        for at in memchr::memchr_iter(ANCHOR, &bytes[..last]) {
            let (slot, tag) = fingerprint(&bytes[at..]);
            found += usize::from(slots[slot] == tag);
            slots[slot] = tag;
            if found > wanted {
                return true;
            }
        }
        false
    })
}

/// Where to look for an anchor and what follows it, and what must stand there: 46 bits of a multiplicative hash.
fn fingerprint(bytes: &[u8]) -> (usize, u32) {
    let word = bytes.first_chunk().map_or(0, |eight| u64::from_le_bytes(*eight));
    let hash = (word << (8 * (7 - REPEATED_LEN))).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let slot = usize::try_from(hash >> (64 - SLOT_BITS)).unwrap_or(0);
    // An empty slot holds zero.
    (slot, u32::try_from(hash >> (32 - SLOT_BITS) & u64::from(u32::MAX)).unwrap_or(0) | 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// xorshift64*, whose bytes no compressor tells from noise.
    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let word = || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()
        };
        std::iter::repeat_with(word).flat_map(|word| word.into_iter().take(4)).take(len).collect()
    }

    /// Text as a dump has it: numbers that hardly repeat in words that do.
    fn text(len: usize, seed: u64) -> Vec<u8> {
        let rows = noise(len, seed);
        let rows = rows.chunks_exact(4).flat_map(|n| {
            format!("{}\tthe one or the other\n", u32::from_le_bytes([n[0], n[1], n[2], n[3]])).into_bytes()
        });
        rows.take(len).collect()
    }

    /// What zstd makes of it without being asked whether that is worth while.
    fn zstd_len(bytes: &[u8]) -> usize {
        zstd::bulk::compress(bytes, crate::compress::LEVEL).map_or(bytes.len(), |packed| packed.len().min(bytes.len()))
    }

    #[test]
    fn noise_of_any_length_is_told() {
        for (seed, len) in [(1, PROBED_LEN_MIN), (2, 100_001), (3, 1 << 20), (4, 3 << 20)] {
            assert!(!may_compress(&noise(len, seed)), "{len} bytes");
        }
    }

    #[test]
    fn what_is_short_is_left_to_zstd() {
        for len in [0, 1, REPEATED_LEN, WINDOW_LEN, PROBED_LEN_MIN - 1] {
            assert!(may_compress(&noise(len, 5)));
        }
    }

    #[test]
    fn zeros_text_and_tables_of_numbers_may_get_smaller() {
        let numbers: Vec<u8> = (0..100_000_u64).flat_map(|n| (n * n * n).to_be_bytes()).collect();
        for bytes in [vec![0; 1 << 20], vec![b'x'; 1 << 20], text(1 << 20, 1), numbers] {
            assert!(may_compress(&bytes));
        }
    }

    #[test]
    fn six_bits_in_a_byte_without_any_repetition_may_get_smaller() {
        let digits: Vec<u8> = noise(1 << 20, 6).into_iter().map(|byte| b'0' + byte % 64).collect();
        assert!(!repeats(&digits[..PROBED_LEN_MIN]), "else this test says nothing of the windows");
        assert!(may_compress(&digits));
    }

    #[test]
    fn the_faintest_skew_that_zstd_can_use_is_seen() {
        let mut bytes = noise(1 << 20, 7);
        bytes.iter_mut().step_by(16).for_each(|byte| *byte = 0x7b);
        assert!(zstd_len(&bytes) < bytes.len(), "else there is nothing to see");
        assert!(may_compress(&bytes));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_little_text_in_noise_is_found_wherever_it_lies(seed: u64, at in 0..(1_usize << 20) - 6144) {
            let mut bytes = noise(1 << 20, seed);
            bytes[at..at + 6144].copy_from_slice(&text(6144, seed));
            prop_assert!(may_compress(&bytes));
        }

        #[test]
        fn noise_that_comes_twice_is_found(seed: u64, len in 6144..200_000_usize, at in 300_000..800_000_usize) {
            let mut bytes = noise(1 << 20, seed);
            bytes.copy_within(1000..1000 + len, at);
            prop_assert!(may_compress(&bytes));
        }

        #[test]
        fn what_is_given_up_would_have_saved_next_to_nothing(
            seed: u64,
            parts in prop::collection::vec((0_u8..5, 1_usize..200_000), 1..8),
        ) {
            let mut bytes = Vec::new();
            let mut skewed_len = 0;
            for (number, (kind, len)) in parts.into_iter().enumerate() {
                let part = noise(len, seed.wrapping_add(number as u64));
                match kind {
                    0 | 1 => bytes.extend(part),
                    2 => bytes.extend(text(len / 50, seed)),
                    3 => {
                        skewed_len += len / 20;
                        bytes.extend(part.into_iter().take(len / 20).map(|byte| byte & 0x3f));
                    }
                    _ => bytes.extend_from_within(..bytes.len().min(len / 200)),
                }
            }
            let saved = bytes.len() - zstd_len(&bytes);
            // Between two windows two bits of each of these may go unseen.
            let unseen = bytes.len() / 100 + skewed_len / 4;
            prop_assert!(may_compress(&bytes) || saved <= unseen, "{saved} of {} bytes", bytes.len());
        }
    }
}
