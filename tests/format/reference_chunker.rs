//! The chunker, written from format-spec 04 alone, one byte at a time.

/// Minimum, average, maximum length and the two masks of each profile.
const PROFILES: [(&str, usize, usize, usize, u64, u64); 4] = [
    ("default", 65_536, 262_144, 1_048_576, 0x0000_d917_0753_7000, 0x0000_d907_0353_7000),
    ("db-text", 16_384, 65_536, 262_144, 0x0000_d907_0353_7000, 0x0000_d90f_0353_0000),
    ("db-page", 8_192, 32_768, 131_072, 0x0000_d903_0353_7000, 0x0000_d903_1353_0000),
    ("blob", 262_144, 1_048_576, 4_194_304, 0x0000_d917_6753_7000, 0x0000_d917_0753_7000),
];

/// Lengths of the chunks of `stream`.
pub fn lens(key: &[u8; 32], profile: &str, stream: &[u8]) -> Vec<usize> {
    let (_, min, avg, max, strict, loose) = *PROFILES.iter().find(|row| row.0 == profile).unwrap();
    let mut table = [0u8; 2048];
    blake3::Hasher::new_keyed(key).finalize_xof().fill(&mut table);
    let gear: Vec<u64> = table.chunks(8).map(|number| u64::from_le_bytes(number.try_into().unwrap())).collect();
    let mut lens = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let window = rest.len().min(max);
        let centre = avg.min(window);
        let mut len = window;
        let mut hash = 0u64;
        if rest.len() > min {
            for at in min..window / 2 * 2 {
                hash = (hash << 1).wrapping_add(gear[usize::from(rest[at])]);
                let mask = if at < centre / 2 * 2 { strict } else { loose };
                if hash & mask == 0 {
                    len = at;
                    break;
                }
            }
        }
        lens.push(len);
        rest = &rest[len..];
    }
    lens
}
