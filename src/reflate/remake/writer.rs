//! Bits as deflate writes them, up to so many.

/// Bits that are made, the lowest of each byte first.
pub struct BitWriter {
    bytes: Vec<u8>,
    /// More full bytes than this are not kept.
    byte_len_max: usize,
    bit_len_max: u64,
    /// Bits that don't fill four bytes yet.
    open: u64,
    open_len: u32,
}

impl BitWriter {
    pub fn new(bit_len_max: u64) -> Option<Self> {
        let byte_len_max = usize::try_from(bit_len_max / 8 + 8).ok()?;
        Some(Self { bytes: Vec::new(), byte_len_max, bit_len_max, open: 0, open_len: 0 })
    }

    /// Appends up to 32 bits.
    #[inline]
    pub fn put(&mut self, bits: u32, len: u32) {
        self.open |= u64::from(bits) << self.open_len;
        self.open_len += len;
        if self.open_len >= 32 {
            let [a, b, c, d, ..] = self.open.to_le_bytes();
            if self.bytes.len() < self.byte_len_max {
                self.bytes.extend_from_slice(&[a, b, c, d]);
            }
            self.open >>= 32;
            self.open_len -= 32;
        }
    }

    /// Appends zeros up to the next byte.
    pub fn align(&mut self) {
        self.put(0, self.open_len.next_multiple_of(8) - self.open_len);
    }

    /// Appends bytes, at the beginning of one.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.flush();
        if self.bytes.len() < self.byte_len_max {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn flush(&mut self) {
        while self.open_len >= 8 {
            let [first, ..] = self.open.to_le_bytes();
            self.bytes.push(first);
            self.open >>= 8;
            self.open_len -= 8;
        }
    }

    /// Whether there are more bits than there may be.
    pub fn is_full(&self) -> bool {
        self.bytes.len() as u64 * 8 + u64::from(self.open_len) > self.bit_len_max
    }

    /// The bytes that are full. None if there are more bits than there may be.
    pub fn finish(mut self) -> Option<Vec<u8>> {
        let is_full = self.is_full();
        self.flush();
        (!is_full).then_some(self.bytes)
    }
}
