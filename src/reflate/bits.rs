//! Strings of bits, the lowest of each byte first, as deflate writes them.

/// A string of bits that grows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bits {
    bytes: Vec<u8>,
    len: u64,
}

/// Bytes that hold so many bits.
pub(super) fn byte_len(bit_len: u64) -> usize {
    usize::try_from(bit_len.div_ceil(8)).unwrap_or(usize::MAX)
}

impl Bits {
    /// Its length in bits.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends the first `bit_len` bits of `bits`.
    pub fn extend(&mut self, bits: &[u8], bit_len: u64) {
        let used = u32::try_from(self.len % 8).unwrap_or(0);
        let bits = &bits[..bits.len().min(byte_len(bit_len))];
        if used == 0 {
            self.bytes.extend_from_slice(bits);
        } else {
            let mut low = self.bytes.pop().unwrap_or(0);
            for byte in bits {
                self.bytes.push(low | byte << used);
                low = byte >> (8 - used);
            }
            self.bytes.push(low);
        }
        self.len += bit_len;
        self.bytes.truncate(byte_len(self.len));
        clear_behind(&mut self.bytes, self.len);
    }

    /// Appends the lowest `count` bits of `value`.
    pub(super) fn push(&mut self, value: u64, count: u32) {
        self.extend(&value.to_le_bytes(), u64::from(count));
    }

    /// Appends zeros up to the next byte.
    pub(super) fn align(&mut self) {
        self.len = self.len.next_multiple_of(8);
    }

    /// The bytes, zeros behind the last bit.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Takes the bytes that are full.
    pub fn take_full(&mut self) -> Vec<u8> {
        let rest = if self.len.is_multiple_of(8) { None } else { self.bytes.pop() };
        self.len %= 8;
        std::mem::replace(&mut self.bytes, rest.into_iter().collect())
    }
}

/// `bit_len` bits of `bytes` behind the first `skipped`, from the lowest of the first byte on, zeros behind them. None if there
/// are not so many.
pub(super) fn behind(bytes: &[u8], skipped: u64, bit_len: u64) -> Option<Vec<u8>> {
    let bytes = bytes.get(usize::try_from(skipped / 8).ok()?..)?;
    let (skipped, len) = (u32::try_from(skipped % 8).ok()?, byte_len(bit_len));
    if (bytes.len() as u64).checked_mul(8)? < u64::from(skipped) + bit_len {
        return None;
    }
    let mut bits: Vec<u8> = if skipped == 0 {
        bytes[..len].to_vec()
    } else {
        let next = bytes.iter().skip(1).copied().chain([0]);
        bytes.iter().zip(next).map(|(low, high)| low >> skipped | high << (8 - skipped)).take(len).collect()
    };
    clear_behind(&mut bits, bit_len);
    Some(bits)
}

fn clear_behind(bits: &mut [u8], bit_len: u64) {
    if let Some(last) = bits.last_mut().filter(|_| !bit_len.is_multiple_of(8)) {
        *last &= (1 << (bit_len % 8)) - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_back_wherever_they_lie() {
        let source = [0b1010_0111, 0b0101_1001, 0b1111_0000, 0b1100_0011];
        for first in 0..=8 {
            for len in 0..=20 {
                let mut bits = Bits::default();
                bits.push(0, first);
                bits.extend(&source, len);
                bits.extend(&[0xff, 0xff], 11);
                let bytes = bits.clone().into_bytes();
                assert_eq!(bits.len(), u64::from(first) + len + 11);
                let (wanted, found) = (behind(&source, 0, len), behind(&bytes, u64::from(first), len));
                assert_eq!(found, wanted, "{first} {len}");
                assert_eq!(behind(&bytes, u64::from(first) + len, 11).unwrap(), [0xff, 7], "{first} {len}");
                assert_eq!(behind(&bytes, u64::from(first) + len, 64), None);
                let mut taken = bits.take_full();
                taken.extend(bits.into_bytes());
                assert_eq!(taken, bytes);
            }
        }
    }
}
