//! Content-defined chunking (format-spec 04): FastCDC, 2020, normalisation level 1, over a gear table of 256 random
//! numbers that comes from the repository's key, so that cut points don't fingerprint content.
//!
//! Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication Based Storage Systems", IEEE TPDS
//! 2020. Cut points depend on nothing but the bytes since the last one: not on read sizes, not on files around.

mod segment;

use std::io::Read;

use fastcdc::v2020::{Normalization, cut_gear, select_masks};

pub use segment::{Batch, Segment, Segments};

/// Longest chunk that the format allows, whatever the profile.
pub const CHUNK_LEN_MAX: usize = 8 << 20;

/// Lengths in bytes between which a stream is cut. All even, as the algorithm rolls two bytes each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Name in plans and snapshots.
    pub name: &'static str,
    /// No chunk but the last of a stream is shorter.
    pub len_min: usize,
    /// About the usual length.
    pub len_avg: usize,
    /// No chunk is longer.
    pub len_max: usize,
}

/// What a plan may ask for. A component should keep its profile: another one dedups with nothing.
pub const PROFILES: [Profile; 4] = [
    Profile { name: "default", len_min: 64 << 10, len_avg: 256 << 10, len_max: 1 << 20 },
    Profile { name: "db-text", len_min: 16 << 10, len_avg: 64 << 10, len_max: 256 << 10 },
    Profile { name: "db-page", len_min: 8 << 10, len_avg: 32 << 10, len_max: 128 << 10 },
    Profile { name: "blob", len_min: 256 << 10, len_avg: 1 << 20, len_max: 4 << 20 },
];

impl Profile {
    /// The profile called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        PROFILES.into_iter().find(|profile| profile.name == name)
    }
}

impl Default for Profile {
    fn default() -> Self {
        PROFILES[0]
    }
}

/// The gear table of one repository.
#[derive(Clone)]
pub struct Gear {
    gear: Box<[u64; 256]>,
    shifted: Box<[u64; 256]>,
}

impl Gear {
    /// The table for a chunker subkey: the first 2048 bytes of its BLAKE3 output as 256 little-endian numbers.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        let mut bytes = [0u8; 2048];
        blake3::Hasher::new_keyed(key).finalize_xof().fill(&mut bytes);
        let mut gear = Box::new([0u64; 256]);
        for (number, bytes) in gear.iter_mut().zip(bytes.chunks_exact(8)) {
            *number = u64::from_le_bytes(bytes.try_into().expect("chunks of eight"));
        }
        let mut shifted = gear.clone();
        for number in shifted.iter_mut() {
            *number <<= 1;
        }
        Self { gear, shifted }
    }
}

/// Cuts byte strings.
#[derive(Clone)]
pub struct Chunker {
    gear: Gear,
    profile: Profile,
    mask_s: u64,
    mask_l: u64,
}

impl Chunker {
    /// A chunker of `profile`.
    #[must_use]
    pub fn new(gear: Gear, profile: Profile) -> Self {
        let (mask_s, mask_l) = select_masks(profile.len_avg, Normalization::Level1);
        Self { gear, profile, mask_s, mask_l }
    }

    /// Its lengths.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Length of the first chunk of `bytes`, which hold at least `len_max` bytes or all that is left of the stream.
    #[must_use]
    pub fn cut(&self, bytes: &[u8]) -> usize {
        let Profile { len_min, len_avg, len_max, .. } = self.profile;
        let (_, len) = cut_gear(
            bytes,
            len_min,
            len_avg,
            len_max,
            self.mask_s,
            self.mask_l,
            self.mask_s << 1,
            self.mask_l << 1,
            self.gear.gear.as_slice(),
            self.gear.shifted.as_slice(),
        );
        len
    }

    /// The chunks of a whole byte string.
    pub fn split<'b>(&self, bytes: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
        let mut rest = bytes;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (chunk, after) = rest.split_at(self.cut(rest));
            rest = after;
            Some(chunk)
        })
    }

    /// Reads a stream in segments of about `segment_len` bytes, which can be cut at the same time.
    pub fn segments<R: Read>(&self, reader: R, segment_len: usize) -> Segments<R> {
        Segments::new(reader, segment_len, self.profile.len_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn small() -> Chunker {
        let profile = Profile { name: "test", len_min: 256, len_avg: 1024, len_max: 4096 };
        Chunker::new(Gear::new(&[5; 32]), profile)
    }

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn another_key_cuts_elsewhere() {
        let bytes = noise(200_000, 1);
        let other = Chunker::new(Gear::new(&[6; 32]), small().profile());
        let lens = |chunker: &Chunker| chunker.split(&bytes).map(<[u8]>::len).collect::<Vec<_>>();
        assert_ne!(lens(&small()), lens(&other));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn chunks_keep_to_their_bounds_and_are_the_bytes(len in 0usize..60_000, seed: u64) {
            let bytes = noise(len, seed);
            let chunker = small();
            let whole: Vec<&[u8]> = chunker.split(&bytes).collect();
            prop_assert_eq!(whole.concat(), bytes.as_slice());
            for chunk in whole.iter().rev().skip(1) {
                prop_assert!(chunk.len() >= 256 && chunk.len() <= 4096);
            }
        }
    }
}
