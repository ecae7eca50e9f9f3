//! What is known of the compressor, in front of the corrections: as `bitcode` 0.6 encodes a struct.
//!
//! Of `bitcode`, which packs columns of many values, only columns of one value occur, but for the last, the bytes of the corrections.

use super::{DYNAMIC, FIXED, STORED};

/// Most candidates for one match that any compressor looks at: `gzip -9` does.
pub const CHAIN_LEN_MAX: u32 = 4096;
/// A parameter that nobody asks for.
const LEAST_LEN: u32 = 3;
/// Lengths that don't fit in a byte follow it.
const LEN_IS_LONG: u8 = 255;

/// How a compressor hashes, and with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// It looks for no matches.
    None,
    /// As zlib does, and so many others.
    Zlib {
        mask: u16,
        shift: u32,
    },
    MinizFast,
    LibdeflateFast,
    Libdeflate,
    ZlibNg,
    RandomVector,
    Crc32c,
}

/// Which positions of a match get into the chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    All,
    /// All of those up to this length, else the first.
    First(u32),
    /// All of those up to this length, else the first and the last.
    FirstAndLast(u32),
    /// The first, unless it is one of the last three of 4 KiB.
    FirstExceptNear4K,
    /// The first, and the last where a match crosses into the end of 32 KiB.
    FirstAndLastOf32K,
}

/// Which matches are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    Default,
    /// Those of distance 1.
    Runs,
    HuffmanOnly,
    Store,
}

/// Whether the next position is tried as well before a match is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lazy {
    Never,
    /// For matches shorter than `len_max`; with a quarter of the effort from `good_len` on.
    Below {
        good_len: u32,
        len_max: u32,
    },
}

/// The kinds of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocks {
    Dynamic,
    Mixed,
    Fixed,
    Stored,
}

impl Blocks {
    /// The kind that is predicted for each.
    pub fn predicted(self) -> u32 {
        match self {
            Self::Dynamic | Self::Mixed => DYNAMIC,
            Self::Fixed => FIXED,
            Self::Stored => STORED,
        }
    }
}

/// All of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    pub reaches_start: bool,
    pub reaches_far: bool,
    pub window_bits: u32,
    pub strategy: Strategy,
    pub nice_len: u32,
    pub added: Added,
    pub token_count_max: u32,
    pub is_like_zlib: bool,
    pub distance_max_of_3: u32,
    pub lazy: Lazy,
    pub chain_len_max: u32,
    pub algorithm: Algorithm,
    pub blocks: Blocks,
}

/// The parameters, and the coded corrections behind them.
pub fn decode(bytes: &[u8]) -> Option<(Parameters, Vec<u8>)> {
    let mut r = Columns(bytes);
    let parameters = Parameters {
        reaches_start: r.flag()?,
        reaches_far: r.flag()?,
        window_bits: r.u32()?,
        strategy: match r.u8()? {
            0 => Strategy::Default,
            1 => Strategy::Runs,
            2 => Strategy::HuffmanOnly,
            3 => Strategy::Store,
            _ => return None,
        },
        nice_len: r.u32()?,
        added: match r.u8()? {
            0 => Added::All,
            1 => Added::First(r.u16()?.into()),
            2 => Added::FirstAndLast(r.u16()?.into()),
            3 => Added::FirstExceptNear4K,
            4 => Added::FirstAndLastOf32K,
            _ => return None,
        },
        token_count_max: r.u16()?.into(),
        is_like_zlib: r.flag()?,
        distance_max_of_3: r.u32()?,
        lazy: match r.u8()? {
            0 => Lazy::Never,
            1 => Lazy::Below { good_len: r.u16()?.into(), len_max: r.u16()?.into() },
            _ => return None,
        },
        chain_len_max: {
            let chain_len_max = r.u32()?;
            let _min_len = r.u32()?;
            chain_len_max
        },
        algorithm: match r.u8()? {
            0 => Algorithm::None,
            1 => Algorithm::Zlib { mask: r.u16()?, shift: r.u32()? },
            2 => Algorithm::MinizFast,
            3 => Algorithm::LibdeflateFast,
            4 => Algorithm::Libdeflate,
            5 => Algorithm::ZlibNg,
            6 => Algorithm::RandomVector,
            7 => Algorithm::Crc32c,
            _ => return None,
        },
        blocks: match r.u8()? {
            0 => Blocks::Dynamic,
            1 => Blocks::Mixed,
            2 => Blocks::Fixed,
            3 => Blocks::Stored,
            _ => return None,
        },
    };
    let coded = r.last_bytes()?;
    parameters.are_possible().then_some((parameters, coded))
}

/// The parameters, and coded corrections behind them.
pub fn encode(parameters: &Parameters, coded: &[u8]) -> Option<Vec<u8>> {
    let mut w = Vec::with_capacity(coded.len() + 64);
    let p = parameters;
    w.extend([u8::from(p.reaches_start), u8::from(p.reaches_far)]);
    put_number(&mut w, p.window_bits);
    w.push(match p.strategy {
        Strategy::Default => 0,
        Strategy::Runs => 1,
        Strategy::HuffmanOnly => 2,
        Strategy::Store => 3,
    });
    put_number(&mut w, p.nice_len);
    let (added, limit) = match p.added {
        Added::All => (0, None),
        Added::First(limit) => (1, Some(limit)),
        Added::FirstAndLast(limit) => (2, Some(limit)),
        Added::FirstExceptNear4K => (3, None),
        Added::FirstAndLastOf32K => (4, None),
    };
    w.push(added);
    for number in limit.into_iter().chain([p.token_count_max]) {
        w.extend(u16::try_from(number).ok()?.to_le_bytes());
    }
    w.push(u8::from(p.is_like_zlib));
    put_number(&mut w, p.distance_max_of_3);
    match p.lazy {
        Lazy::Never => w.push(0),
        Lazy::Below { good_len, len_max } => {
            w.push(1);
            w.extend(u16::try_from(good_len).ok()?.to_le_bytes());
            w.extend(u16::try_from(len_max).ok()?.to_le_bytes());
        }
    }
    put_number(&mut w, p.chain_len_max);
    put_number(&mut w, LEAST_LEN);
    w.push(match p.algorithm {
        Algorithm::None => 0,
        Algorithm::Zlib { .. } => 1,
        Algorithm::MinizFast => 2,
        Algorithm::LibdeflateFast => 3,
        Algorithm::Libdeflate => 4,
        Algorithm::ZlibNg => 5,
        Algorithm::RandomVector => 6,
        Algorithm::Crc32c => 7,
    });
    if let Algorithm::Zlib { mask, shift } = p.algorithm {
        w.extend(mask.to_le_bytes());
        put_number(&mut w, shift);
    }
    w.push(match p.blocks {
        Blocks::Dynamic => 0,
        Blocks::Mixed => 1,
        Blocks::Fixed => 2,
        Blocks::Stored => 3,
    });
    put_last_bytes(&mut w, coded)?;
    Some(w)
}

fn put_number(w: &mut Vec<u8>, number: u32) {
    if let Ok(byte) = u8::try_from(number) {
        w.extend([4, byte]);
    } else if let Ok(number) = u16::try_from(number) {
        w.push(2);
        w.extend(number.to_le_bytes());
    } else {
        w.push(0);
        w.extend(number.to_le_bytes());
    }
}

fn put_last_bytes(w: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    if let Some(len) = u8::try_from(bytes.len()).ok().filter(|len| *len < LEN_IS_LONG) {
        w.push(len);
    } else if let Ok(len) = u16::try_from(bytes.len()) {
        w.extend([LEN_IS_LONG, 4]);
        w.extend(len.to_le_bytes());
    } else {
        w.extend([LEN_IS_LONG, 2]);
        w.extend(u32::try_from(bytes.len()).ok()?.to_le_bytes());
    }
    if bytes.len() > 2 {
        w.push(0);
    }
    w.extend_from_slice(bytes);
    Some(())
}

impl Parameters {
    /// Whether a writer can have found them: what is beyond has no meaning, or no end.
    fn are_possible(&self) -> bool {
        if self.algorithm == Algorithm::None {
            return true;
        }
        let has_shift = !matches!(self.algorithm, Algorithm::Zlib { shift: 16.., .. });
        (9..=15).contains(&self.window_bits) && (1..=CHAIN_LEN_MAX).contains(&self.chain_len_max) && has_shift
    }
}

/// One value after the other.
struct Columns<'a>(&'a [u8]);

impl<'a> Columns<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(first)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// In as few bytes as are needed, which stand before it.
    fn u32(&mut self) -> Option<u32> {
        match self.u8()? {
            0 => self.array().map(u32::from_le_bytes),
            2 => self.u16().map(u32::from),
            4 => self.u8().map(u32::from),
            _ => None,
        }
    }

    fn long_len(&mut self) -> Option<usize> {
        let len = match self.u8()? {
            0 => u64::from_le_bytes(self.array()?),
            2 => u32::from_le_bytes(self.array()?).into(),
            4 => self.u16()?.into(),
            6 => self.u8()?.into(),
            _ => return None,
        };
        usize::try_from(len).ok()
    }

    /// Bytes behind which there is nothing. Small ones are several in a byte.
    fn last_bytes(mut self) -> Option<Vec<u8>> {
        let len = match self.u8()? {
            LEN_IS_LONG => self.long_len()?,
            len => len.into(),
        };
        let (base, least) = match if len <= 2 { 0 } else { self.u8()? } {
            0 => (None, 0),
            packing @ 1..=10 => {
                let least = if packing % 2 == 1 { self.u8()? } else { 0 };
                (Some([16, 6, 4, 3, 2][usize::from(packing.div_ceil(2)) - 1]), least)
            }
            _ => return None,
        };
        let bytes = match base {
            None => self.bytes(len)?.to_vec(),
            Some(base) => self.packed(len, base)?.into_iter().map(|digit| digit.wrapping_add(least)).collect(),
        };
        self.0.is_empty().then_some(bytes)
    }

    /// Digits of this base, as many in each byte as surely fit, the lowest first.
    fn packed(&mut self, len: usize, base: u8) -> Option<Vec<u8>> {
        let in_each = match base {
            2 => 8,
            3 => 5,
            4 => 4,
            6 => 3,
            _ => 2,
        };
        let bytes = self.bytes(len.div_ceil(in_each))?;
        let digits = bytes.iter().flat_map(|byte| {
            let mut left = *byte;
            (0..in_each).map(move |_| {
                let digit = left % base;
                left /= base;
                digit
            })
        });
        Some(digits.take(len).collect())
    }
}
