//! The codes of deflate (RFC 1951, 3.2): which symbols there are, and what bits they are written as.

use super::chains::{MATCH_LEN_MAX, MATCH_LEN_MIN};
use super::writer::BitWriter;

/// The symbol at the end of a block.
pub const END: usize = 256;
/// The first symbol for a length.
const FIRST_LEN: u32 = 257;
/// Symbols for literals, the end and lengths; and for distances.
pub const LITERAL_SYMBOLS: usize = 286;
pub const DISTANCE_SYMBOLS: usize = 30;
/// As many lengths of codes as can be told of each.
pub const LITERAL_LENS_MAX: usize = 288;
pub const DISTANCE_LENS_MAX: usize = 32;
/// Longest code.
pub const CODE_LEN_MAX: usize = 15;
const LEN_COUNT: usize = (MATCH_LEN_MAX - MATCH_LEN_MIN) as usize + 1;

/// A symbol, and what stands behind it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Parts {
    symbol: u32,
    extra: u32,
    extra_len: u32,
}

/// Of four symbols each, from the fourth or eighth on, one more extra bit than of the four before: the two highest bits tell which.
/// For distances it is two symbols and the highest bit but one.
const fn parts(value: u32, bits: u32) -> Parts {
    if value >> bits == 0 {
        return Parts { symbol: value, extra: 0, extra_len: 0 };
    }
    let extra_len = value.ilog2() - bits;
    let symbol = (extra_len << bits) + (value >> extra_len);
    Parts { symbol, extra: value & ((1 << extra_len) - 1), extra_len }
}

const fn len_parts(len: u32) -> Parts {
    if len == MATCH_LEN_MAX {
        return Parts { symbol: FIRST_LEN + 28, extra: 0, extra_len: 0 };
    }
    let parts = parts(len.saturating_sub(MATCH_LEN_MIN), 2);
    Parts { symbol: FIRST_LEN + parts.symbol, extra: parts.extra, extra_len: parts.extra_len }
}

fn distance_parts(distance: u32) -> Parts {
    parts(distance.saturating_sub(1), 1)
}

static LEN_PARTS: [Parts; LEN_COUNT] = all_len_parts();

const fn all_len_parts() -> [Parts; LEN_COUNT] {
    let (mut all, mut len) = ([Parts { symbol: 0, extra: 0, extra_len: 0 }; LEN_COUNT], MATCH_LEN_MIN);
    while len <= MATCH_LEN_MAX {
        all[(len - MATCH_LEN_MIN) as usize] = len_parts(len);
        len += 1;
    }
    all
}

fn parts_of_len(len: u32) -> Parts {
    LEN_PARTS.get(len.saturating_sub(MATCH_LEN_MIN) as usize).copied().unwrap_or_default()
}

/// The symbol for a length.
pub fn len_symbol(len: u32) -> usize {
    parts_of_len(len).symbol as usize
}

/// The symbol for a distance.
pub fn distance_symbol(distance: u32) -> usize {
    distance_parts(distance).symbol as usize
}

/// The least value that is told by a symbol, and the bits behind it.
fn least(symbol: u32, bits: u32) -> (u32, u32) {
    let extra_len = (symbol >> bits).saturating_sub(1);
    ((symbol - (extra_len << bits)) << extra_len, extra_len)
}

/// The least length that a symbol tells, and how many bits are behind it.
pub fn len_of(symbol: u32) -> Option<(u32, u32)> {
    match symbol.checked_sub(FIRST_LEN)? {
        28 => Some((MATCH_LEN_MAX, 0)),
        symbol @ ..28 => {
            let (value, extra_len) = least(symbol, 2);
            Some((value + MATCH_LEN_MIN, extra_len))
        }
        _ => None,
    }
}

/// The least distance that a symbol tells, and how many bits are behind it.
pub fn distance_of(symbol: u32) -> Option<(u32, u32)> {
    let (value, extra_len) = least(symbol, 1);
    ((symbol as usize) < DISTANCE_SYMBOLS).then_some((value + 1, extra_len))
}

/// The lengths of the codes of blocks that tell none.
pub fn fixed_lens() -> ([u8; LITERAL_LENS_MAX], [u8; DISTANCE_LENS_MAX]) {
    let mut literals = [8; LITERAL_LENS_MAX];
    literals[144..256].fill(9);
    literals[256..280].fill(7);
    (literals, [5; DISTANCE_LENS_MAX])
}

/// Bits as they are written, the first one lowest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Code {
    pub bits: u32,
    pub len: u32,
}

impl Code {
    fn then(self, bits: u32, len: u32) -> Self {
        Self { bits: self.bits | bits << self.len, len: self.len + len }
    }
}

/// The codes of so many symbols by their lengths, 0 where a symbol has none. None if that isn't a code in which every string of bits means
/// something: the writer takes no others.
pub fn codes<const N: usize>(lens: &[u8]) -> Option<[Code; N]> {
    let mut counts = [0_u32; CODE_LEN_MAX + 1];
    for len in lens {
        *counts.get_mut(usize::from(*len))? += 1;
    }
    counts[0] = 0;
    let mut next = [0_u32; CODE_LEN_MAX + 1];
    let mut code = 0;
    for len in 1..=CODE_LEN_MAX {
        code = (code + counts[len - 1]) << 1;
        next[len] = code;
        if code + counts[len] > 1 << len {
            return None;
        }
    }
    if code + counts[CODE_LEN_MAX] != 1 << CODE_LEN_MAX {
        return None;
    }
    let mut all = [Code::default(); N];
    for (code, len) in all.iter_mut().zip(lens).filter(|(_, len)| **len > 0) {
        let bits = &mut next[usize::from(*len)];
        let len = u32::from(*len);
        *code = Code { bits: bits.reverse_bits() >> (32 - len), len };
        *bits += 1;
    }
    Some(all)
}

/// The codes of a block.
pub struct Codes {
    literals: [Code; LITERAL_LENS_MAX],
    /// Of each length with its extra bits.
    lens: [Code; LEN_COUNT],
    distances: [Code; DISTANCE_LENS_MAX],
}

impl Codes {
    pub fn new(literal_lens: &[u8], distance_lens: &[u8]) -> Option<Self> {
        let literals = codes::<LITERAL_LENS_MAX>(literal_lens)?;
        let lens = LEN_PARTS.map(|parts| {
            let code = literals.get(parts.symbol as usize).copied().unwrap_or_default();
            code.then(parts.extra, parts.extra_len)
        });
        Some(Self { literals, lens, distances: codes(distance_lens)? })
    }

    /// Those of blocks that tell none.
    pub fn fixed() -> Option<Self> {
        let (literals, distances) = fixed_lens();
        Self::new(&literals, &distances)
    }

    pub fn put_literal(&self, writer: &mut BitWriter, byte: u32) {
        let code = self.literals[byte as usize % 256];
        writer.put(code.bits, code.len);
    }

    pub fn put_match(&self, writer: &mut BitWriter, len: u32, distance: u32) {
        let code = self.lens.get(len.saturating_sub(MATCH_LEN_MIN) as usize).copied().unwrap_or_default();
        writer.put(code.bits, code.len);
        let parts = distance_parts(distance);
        let code = self.distances[parts.symbol as usize % DISTANCE_LENS_MAX].then(parts.extra, parts.extra_len);
        writer.put(code.bits, code.len);
    }

    pub fn put_end(&self, writer: &mut BitWriter) {
        let code = self.literals[END];
        writer.put(code.bits, code.len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_those_of_the_tables_of_rfc_1951() {
        let of = |len| (len_symbol(len), parts_of_len(len).extra, parts_of_len(len).extra_len);
        assert_eq!(
            [3, 4, 10, 11, 12, 13, 18].map(of),
            [(257, 0, 0), (258, 0, 0), (264, 0, 0), (265, 0, 1), (265, 1, 1), (266, 0, 1), (268, 1, 1),]
        );
        assert_eq!(
            [19, 22, 23, 130, 131, 227, 257, 258].map(of),
            [(269, 0, 2), (269, 3, 2), (270, 0, 2), (280, 15, 4), (281, 0, 5), (284, 0, 5), (284, 30, 5), (285, 0, 0),]
        );
        let of = |distance| {
            let parts = distance_parts(distance);
            (parts.symbol, parts.extra, parts.extra_len)
        };
        assert_eq!(
            [1, 4, 5, 6, 7, 9, 12, 13].map(of),
            [(0, 0, 0), (3, 0, 0), (4, 0, 1), (4, 1, 1), (5, 0, 1), (6, 0, 2), (6, 3, 2), (7, 0, 2),]
        );
        assert_eq!([257, 24_576, 24_577, 32_768].map(of), [(16, 0, 7), (28, 8191, 13), (29, 0, 13), (29, 8191, 13)]);
    }

    #[test]
    fn what_a_symbol_tells_is_told_by_it() {
        for len in MATCH_LEN_MIN..=MATCH_LEN_MAX {
            let parts = parts_of_len(len);
            assert_eq!(len_of(parts.symbol), Some((len - parts.extra, parts.extra_len)), "{len}");
        }
        for distance in 1..=32_768 {
            let parts = distance_parts(distance);
            assert_eq!(distance_of(parts.symbol), Some((distance - parts.extra, parts.extra_len)), "{distance}");
        }
        assert_eq!((len_of(256), len_of(286), distance_of(30)), (None, None, None));
    }

    #[test]
    fn codes_that_leave_something_open_or_say_it_twice_are_none() {
        let code = |bits, len| Code { bits, len };
        assert_eq!(codes::<4>(&[2, 1, 3, 3]), Some([code(1, 2), code(0, 1), code(3, 3), code(7, 3)]));
        for wrong in [&[1][..], &[1, 2], &[1, 1, 1], &[16, 16], &[], &[0]] {
            assert_eq!(codes::<4>(wrong), None, "{wrong:?}");
        }
    }
}
