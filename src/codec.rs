//! Bounds-checked little-endian reading and writing of records. Decoders built on [`Reader`] are total: they bound
//! before they allocate, refuse trailing bytes, and never panic on any input.

/// Why bytes are not the record they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {offset}")]
pub struct DecodeError {
    /// Where in the input.
    pub offset: usize,
    /// What is wrong there; stable, used by the invalid vectors.
    pub what: &'static str,
}

impl DecodeError {
    /// Whether a newer program may have written it: such errors begin with `unknown`, in all decoders. All others are
    /// damage.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        self.what.starts_with("unknown ")
    }
}

/// Result of decoding.
pub type Decoded<T> = Result<T, DecodeError>;

/// Reads fields off the front of a byte string.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes that are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Bytes that were read.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// An error at the present position.
    #[must_use]
    pub fn error(&self, what: &'static str) -> DecodeError {
        DecodeError { offset: self.at, what }
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Decoded<&'a [u8]> {
        if len > self.remaining() {
            return Err(self.error("truncated"));
        }
        let found = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(found)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    /// One byte.
    pub fn u8(&mut self) -> Decoded<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> Decoded<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> Decoded<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> Decoded<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little-endian, two's complement.
    pub fn i64(&mut self) -> Decoded<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// An unsigned LEB128 number of at most ten bytes, in its shortest form.
    pub fn varint(&mut self) -> Decoded<u64> {
        let start = self.at;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    break;
                }
                return Ok(value);
            }
        }
        Err(DecodeError { offset: start, what: "bad varint" })
    }

    /// A varint of at most `max`.
    pub fn varint_at_most(&mut self, max: u64, what: &'static str) -> Decoded<u64> {
        let start = self.at;
        let value = self.varint()?;
        if value > max { Err(DecodeError { offset: start, what }) } else { Ok(value) }
    }

    /// A length (varint) of at most `max`, then so many bytes.
    pub fn counted_bytes(&mut self, max: usize, what: &'static str) -> Decoded<&'a [u8]> {
        let len = self.varint_at_most(max as u64, what)?;
        let len = usize::try_from(len).map_err(|_| self.error(what))?;
        self.bytes(len)
    }

    /// Refuses trailing bytes.
    pub fn end(&self) -> Decoded<()> {
        if self.remaining() == 0 { Ok(()) } else { Err(self.error("trailing bytes")) }
    }
}

/// Appends fields to a byte vector.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty record.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The record.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Length so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends raw bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    /// Appends two bytes, little-endian.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends four bytes, little-endian.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends eight bytes, little-endian.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends eight bytes, little-endian, two's complement.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends an unsigned LEB128 number.
    #[expect(clippy::cast_possible_truncation, reason = "seven bits fit a byte")]
    pub fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.bytes.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
        self
    }

    /// Appends a length (varint) and the bytes.
    pub fn counted_bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.varint(bytes.len() as u64).bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn varint_in_a_longer_form_than_needed_is_refused() {
        assert!(Reader::new(&[0x80, 0x00]).varint().is_err());
        assert!(Reader::new(&[0xff; 10]).varint().is_err());
        assert!(Reader::new(&[0x80]).varint().is_err());
    }

    #[test]
    fn counted_bytes_beyond_the_bound_are_refused_before_allocating() {
        let mut writer = Writer::new();
        writer.varint(u64::MAX);
        let bytes = writer.into_bytes();
        assert!(Reader::new(&bytes).counted_bytes(10, "too long").is_err());
    }

    proptest! {
        #[test]
        fn varint_round_trips(value: u64) {
            let mut writer = Writer::new();
            writer.varint(value);
            let bytes = writer.into_bytes();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert_eq!(reader.end(), Ok(()));
        }
    }
}
