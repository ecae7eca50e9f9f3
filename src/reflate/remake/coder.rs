//! Corrections as they are written: the other side of [`Corrections`](super::corrections::Corrections).

use super::corrections::{Context, KIND_COUNT, Kind, Model, Numbers};

/// The encoder of bits (RFC 6386, section 7.3).
struct Bits {
    out: Vec<u8>,
    bottom: u32,
    range: u32,
    /// Bits until a byte is full.
    room: u32,
}

impl Bits {
    fn new() -> Self {
        let mut bits = Self { out: Vec::new(), bottom: 0, range: 255, room: 24 };
        // The first bit has no meaning.
        bits.put(false, &mut Context::default());
        bits
    }

    fn put(&mut self, bit: bool, context: &mut Context) {
        let split = 1 + (((self.range - 1) * context.probability()) >> 8);
        if bit {
            // Never beyond 32 bits: what is carried is one of the upper eight.
            self.bottom = self.bottom.wrapping_add(split);
            self.range -= split;
        } else {
            self.range = split;
        }
        context.learn(bit);
        while self.range < 128 {
            self.range <<= 1;
            self.shift();
        }
    }

    fn carry(&mut self) {
        for byte in self.out.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                return;
            }
        }
    }

    fn shift(&mut self) {
        if self.bottom >> 31 == 1 {
            self.carry();
        }
        self.bottom <<= 1;
        self.room -= 1;
        if self.room == 0 {
            self.out.push(self.bottom.to_be_bytes()[0]);
            self.bottom &= 0x00ff_ffff;
            self.room = 8;
        }
    }

    /// Zeros behind them say themselves.
    fn finish(mut self) -> Vec<u8> {
        for _ in 0..32 {
            self.shift();
        }
        let len = self.out.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        self.out.truncate(len);
        self.out
    }
}

/// What is said next of a kind.
#[derive(Clone, Copy)]
enum Said {
    /// So many predictions are right, one after the other.
    Right(u32),
    /// One is wrong by this.
    Wrong(u32),
}

/// Gathers corrections, and codes them when it knows all: how many are right in a row stands where the first of them is.
pub struct Coder {
    said: Vec<(Kind, Said)>,
    /// Where it stands of each kind how many are right, if nothing was wrong since.
    right: [Option<usize>; KIND_COUNT],
    occurs: [bool; KIND_COUNT],
    wrong_count: usize,
}

impl Coder {
    pub fn new() -> Self {
        Self { said: Vec::new(), right: [None; KIND_COUNT], occurs: [false; KIND_COUNT], wrong_count: 0 }
    }

    /// How many predictions were wrong.
    pub fn wrong_count(&self) -> usize {
        self.wrong_count
    }

    /// The next correction of this kind, 0 if there is nothing to correct.
    #[inline]
    pub fn push(&mut self, kind: Kind, value: u32) {
        let right = &mut self.right[kind as usize];
        if value > 0 {
            *right = None;
            self.occurs[kind as usize] = true;
            self.wrong_count += 1;
            self.said.push((kind, Said::Wrong(value)));
            return;
        }
        if let Some((_, Said::Right(count))) = right.and_then(|at| self.said.get_mut(at)) {
            *count += 1;
            return;
        }
        *right = Some(self.said.len());
        self.said.push((kind, Said::Right(1)));
    }

    /// A number where another one was predicted.
    pub fn differing(&mut self, kind: Kind, predicted: u32, is: u32) {
        self.push(kind, if predicted >= is { (predicted - is) << 1 } else { (is - predicted) << 1 | 1 });
    }

    /// A yes or no.
    pub fn flipped(&mut self, kind: Kind, predicted: bool, is: bool) {
        self.push(kind, u32::from(predicted != is));
    }

    /// All of them.
    pub fn finish(self) -> Vec<u8> {
        let mut bits = Bits::new();
        let mut context = Context::default();
        for occurs in self.occurs {
            bits.put(occurs, &mut context);
        }
        let mut models: Box<[Model; KIND_COUNT]> = Box::default();
        for (kind, said) in self.said.into_iter().filter(|(kind, _)| self.occurs[*kind as usize]) {
            let model = &mut models[kind as usize];
            match said {
                Said::Right(count) => {
                    bits.put(true, &mut model.is_right);
                    model.right.put(&mut bits, count - 1);
                }
                Said::Wrong(value) => {
                    bits.put(false, &mut model.is_right);
                    model.wrong.put(&mut bits, value - 1);
                }
            }
        }
        bits.finish()
    }
}

impl Numbers {
    fn put(&mut self, bits: &mut Bits, number: u32) {
        let len = (u32::BITS - number.leading_zeros()) as usize;
        for (at, context) in self.len.iter_mut().enumerate().take(len + 1) {
            bits.put(at < len, context);
        }
        let lower = self.bits.iter_mut().enumerate().take(len.saturating_sub(1));
        for (at, context) in lower.rev() {
            bits.put(number >> at & 1 == 1, context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::corrections::Corrections;
    use super::*;
    use proptest::prelude::*;

    const KINDS: [Kind; 5] = [Kind::TokenCount, Kind::Len, Kind::Last, Kind::LiteralIsWrong, Kind::MatchIsWrong];

    proptest! {
        #[test]
        fn corrections_come_back(
            said in proptest::collection::vec((0_usize..5, prop_oneof![8 => Just(0_u32), 2 => 0_u32..5, 1 => 0..u32::MAX / 2]), 0..2000),
        ) {
            let mut coder = Coder::new();
            for (kind, value) in &said {
                coder.push(KINDS[*kind], *value);
            }
            let coded = coder.finish();
            let mut corrections = Corrections::new(&coded);
            for (kind, value) in said {
                prop_assert_eq!(corrections.next(KINDS[kind]), Some(value));
            }
        }
    }
}
