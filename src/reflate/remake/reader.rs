//! Deflated blocks as their tokens (RFC 1951): what a compressor chose.

use std::cmp::Ordering;

use super::Token;
use super::code::{Code, DISTANCE_LENS_MAX, END, LITERAL_LENS_MAX, codes, distance_of, fixed_lens, len_of};
use super::predictor::Match;
use super::tree::Tree;

/// Bits from the lowest of each byte on.
pub struct BitReader<'a> {
    bytes: &'a [u8],
    value: u64,
    len: u32,
}

impl<'a> BitReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, value: 0, len: 0 }
    }

    #[inline]
    fn fill(&mut self) {
        while self.len <= 56 {
            let Some((first, rest)) = self.bytes.split_first() else { return };
            self.value |= u64::from(*first) << self.len;
            self.bytes = rest;
            self.len += 8;
        }
    }

    /// The next bits, up to 32. None where there are not so many.
    #[inline]
    pub fn take(&mut self, len: u32) -> Option<u32> {
        if self.len < len {
            self.fill();
        }
        self.len = self.len.checked_sub(len)?;
        let bits = self.value & ((1 << len) - 1);
        self.value >>= len;
        u32::try_from(bits).ok()
    }

    fn align(&mut self) -> Option<()> {
        self.take(self.len % 8).map(drop)
    }
}

/// The symbol that each string of bits begins with, and how long its code is. As long as the longest code asks for: there are streams of
/// very many blocks.
#[derive(Default)]
pub struct Table(Vec<(u16, u8)>);

impl Table {
    /// Every string of bits begins with one of `codes`.
    pub fn fill(&mut self, codes: &[Code]) {
        let longest = codes.iter().map(|code| code.len).max().unwrap_or(0);
        self.0.clear();
        self.0.resize(1 << longest, (0, 0));
        for (symbol, code) in (0..).zip(codes).filter(|(_, code)| code.len > 0) {
            let len = u8::try_from(code.len).unwrap_or_default();
            for entry in self.0.iter_mut().skip(code.bits as usize).step_by(1 << code.len) {
                *entry = (symbol, len);
            }
        }
    }

    #[inline]
    pub fn next(&self, bits: &mut BitReader<'_>) -> Option<u32> {
        if bits.len < 15 {
            bits.fill();
        }
        let mask = (self.0.len() as u64).checked_sub(1)?;
        let (symbol, len) = *self.0.get(usize::try_from(bits.value & mask).ok()?)?;
        bits.take(len.into())?;
        Some(symbol.into())
    }
}

/// Whole blocks, of which the last is the last of all, and what they say.
#[derive(Debug, Clone, Copy)]
pub struct Whole<'a> {
    pub dictionary: &'a [u8],
    pub plain: &'a [u8],
    pub deflated: &'a [u8],
}

/// How a block is told.
pub enum Told {
    /// So many bytes as they are.
    Stored(u16),
    Fixed,
    Dynamic(Tree),
}

/// Reads one block after the other.
pub struct BlockReader<'a> {
    bits: BitReader<'a>,
    literals: Table,
    distances: Table,
    /// What the tables are for.
    is_fixed: bool,
}

impl<'a> BlockReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        let (literals, distances) = (Table::default(), Table::default());
        Self { bits: BitReader::new(bytes), literals, distances, is_fixed: false }
    }

    /// The next block, its tokens in `tokens`, and whether it is the last one. None where there is none.
    pub fn next(&mut self, tokens: &mut Vec<Token>) -> Option<(Told, bool)> {
        tokens.clear();
        let is_last = self.bits.take(1)? == 1;
        let told = match self.bits.take(2)? {
            0 => return Some((Told::Stored(self.stored()?), is_last)),
            1 => Told::Fixed,
            2 => Told::Dynamic(Tree::read(&mut self.bits)?),
            _ => return None,
        };
        match &told {
            Told::Dynamic(tree) => self.fill(tree.literal_lens(), tree.distance_lens())?,
            _ if self.is_fixed => {}
            _ => {
                let (literals, distances) = fixed_lens();
                self.fill(&literals, &distances)?;
            }
        }
        self.is_fixed = matches!(told, Told::Fixed);
        self.tokens(tokens)?;
        Some((told, is_last))
    }

    fn fill(&mut self, literals: &[u8], distances: &[u8]) -> Option<()> {
        self.literals.fill(&codes::<LITERAL_LENS_MAX>(literals)?);
        self.distances.fill(&codes::<DISTANCE_LENS_MAX>(distances)?);
        Some(())
    }

    fn stored(&mut self) -> Option<u16> {
        self.bits.align()?;
        let (len, check) = (self.bits.take(16)?, self.bits.take(16)?);
        if len != !check & 0xffff {
            return None;
        }
        for _ in 0..len {
            self.bits.take(8)?;
        }
        u16::try_from(len).ok()
    }

    fn tokens(&mut self, tokens: &mut Vec<Token>) -> Option<()> {
        loop {
            let symbol = self.literals.next(&mut self.bits)?;
            match (symbol as usize).cmp(&END) {
                Ordering::Less => {
                    tokens.push(Token(symbol));
                    continue;
                }
                Ordering::Equal => return Some(()),
                Ordering::Greater => {}
            }
            let (least, extra_len) = len_of(symbol)?;
            let len = least + self.bits.take(extra_len)?;
            let (least, extra_len) = distance_of(self.distances.next(&mut self.bits)?)?;
            let distance = least + self.bits.take(extra_len)?;
            tokens.push(Token::of_match(Match { len, distance }));
        }
    }
}
