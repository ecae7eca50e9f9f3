//! Where a prediction was wrong: numbers of seventeen kinds, coded as VP8 codes its bits (RFC 6386, section 7).
//!
//! Almost every prediction is right, so of each kind it is said how many are right one after the other, and then what the next one
//! differs by. Kinds that are never wrong are named in front and take nothing.

/// What is corrected. The order is that of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 0, or one more than the tokens of a block that has other than so many as most.
    TokenCount,
    /// The kind of a block.
    Block,
    /// Length of a match.
    Len,
    /// Distance of a match whose length was right.
    Distance,
    /// Distance of a match of another length.
    DistanceOfOtherLen,
    /// Lengths of the code of lengths, and how many there are.
    LenOfLenCode,
    /// Whether a length is told as it is or as a run.
    RunSymbol,
    /// Length of a run.
    RunLen,
    /// Length of a code.
    LenOfCode,
    /// Never used.
    _LenCodeCount,
    /// How many lengths there are of codes for literals.
    LiteralCount,
    /// How many of codes for distances.
    DistanceCount,
    /// Bytes of a stored block.
    StoredLen,
    /// Whether a block is the last of the stream.
    Last,
    /// Whether all is made.
    End,
    /// A match where a literal was predicted.
    LiteralIsWrong,
    /// A literal where a match was predicted.
    MatchIsWrong,
}

pub const KIND_COUNT: usize = Kind::MatchIsWrong as usize + 1;
/// A number of so many bits has a context for each.
const CONTEXT_COUNT: usize = 32;

/// How often a bit was 0 and was 1.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    zeros: u8,
    ones: u8,
}

impl Default for Context {
    fn default() -> Self {
        Self { zeros: 1, ones: 1 }
    }
}

impl Context {
    /// How likely it is that the next is 0, 1 to 255 of 256: neither count is ever 0.
    pub fn probability(self) -> u32 {
        (u32::from(self.zeros) << 8) / (u32::from(self.zeros) + u32::from(self.ones)).max(1)
    }

    pub fn learn(&mut self, bit: bool) {
        let (same, other) = if bit { (&mut self.ones, &mut self.zeros) } else { (&mut self.zeros, &mut self.ones) };
        if *same < u8::MAX {
            *same += 1;
        } else if *other > 1 {
            // Both are halved; but where the other was never seen, the odds stay as they are.
            (*same, *other) = (129, *other / 2 + *other % 2);
        }
    }
}

/// The decoder of bits. Behind the last byte there are zeros without end.
struct Bits<'a> {
    input: &'a [u8],
    /// What is read and not used, the first bit highest.
    value: u64,
    /// 128 to 255, between two bits.
    range: u32,
    /// How many bits there are beyond the first eight.
    spare: i32,
}

impl<'a> Bits<'a> {
    fn new(input: &'a [u8]) -> Self {
        let mut bits = Self { input, value: 0, range: 255, spare: -8 };
        // The first bit has no meaning.
        bits.next(&mut Context::default());
        bits
    }

    fn fill(&mut self) {
        while self.spare <= 48 {
            let Some((first, rest)) = self.input.split_first() else {
                self.spare = i32::MAX;
                return;
            };
            self.value |= u64::from(*first) << (48 - self.spare);
            self.input = rest;
            self.spare += 8;
        }
    }

    fn next(&mut self, context: &mut Context) -> bool {
        if self.spare < 0 {
            self.fill();
        }
        let split = 1 + (((self.range - 1) * context.probability()) >> 8);
        let high = u64::from(split) << 56;
        let bit = self.value >= high;
        if bit {
            self.value -= high;
            self.range -= split;
        } else {
            self.range = split;
        }
        context.learn(bit);
        let shift = self.range.leading_zeros().saturating_sub(24);
        self.value <<= shift;
        self.range <<= shift;
        self.spare -= shift.cast_signed();
        bit
    }
}

/// Contexts of the numbers of one sort.
#[derive(Default)]
pub struct Numbers {
    pub len: [Context; CONTEXT_COUNT],
    pub bits: [Context; CONTEXT_COUNT],
}

impl Numbers {
    /// How many bits it has, in ones and a zero; then those behind the highest one, the lowest last.
    fn next(&mut self, bits: &mut Bits<'_>) -> Option<u32> {
        let mut len = 0;
        while bits.next(self.len.get_mut(len)?) {
            len += 1;
        }
        if len == 0 {
            return Some(0);
        }
        let lower = self.bits.get_mut(..len - 1)?;
        Some(lower.iter_mut().rev().fold(1, |number, context| number << 1 | u32::from(bits.next(context))))
    }
}

#[derive(Default)]
pub struct Model {
    pub is_right: Context,
    pub right: Numbers,
    pub wrong: Numbers,
}

/// All corrections of a piece, each when it is asked for.
pub struct Corrections<'a> {
    bits: Bits<'a>,
    models: Box<[Model; KIND_COUNT]>,
    /// How many more predictions of each kind are right.
    right: [u64; KIND_COUNT],
}

impl<'a> Corrections<'a> {
    pub fn new(coded: &'a [u8]) -> Self {
        let mut bits = Bits::new(coded);
        let mut context = Context::default();
        let right = std::array::from_fn(|_| if bits.next(&mut context) { 0 } else { u64::MAX });
        Self { bits, models: Box::default(), right }
    }

    /// The next correction of this kind, 0 if there is nothing to correct. None if it is none.
    #[inline]
    pub fn next(&mut self, kind: Kind) -> Option<u32> {
        let right = &mut self.right[kind as usize];
        if *right > 0 {
            *right -= 1;
            return Some(0);
        }
        self.decode(kind)
    }

    #[inline(never)]
    fn decode(&mut self, kind: Kind) -> Option<u32> {
        let model = &mut self.models[kind as usize];
        if self.bits.next(&mut model.is_right) {
            // One of them is this one.
            self.right[kind as usize] = model.right.next(&mut self.bits)?.into();
            return Some(0);
        }
        model.wrong.next(&mut self.bits)?.checked_add(1)
    }

    /// A number that was predicted, corrected: twice of what it is less, or one more than twice of what it is more.
    pub fn differing(&mut self, kind: Kind, predicted: u32) -> Option<u32> {
        let by = self.next(kind)?;
        if by % 2 == 0 { predicted.checked_sub(by / 2) } else { predicted.checked_add(by / 2) }
    }

    /// A yes or no that was predicted, corrected.
    pub fn flipped(&mut self, kind: Kind, predicted: bool) -> Option<bool> {
        Some(predicted != (self.next(kind)? != 0))
    }
}
