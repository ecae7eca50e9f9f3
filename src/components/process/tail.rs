//! The last bytes of a stream.

/// Keeps the last `cap` bytes of all that went by.
#[derive(Debug, Clone)]
pub struct Tail {
    bytes: Vec<u8>,
    cap: usize,
    len: u64,
}

impl Tail {
    /// Keeps up to `cap` bytes.
    #[must_use]
    pub fn new(cap: usize) -> Self {
        Self { bytes: Vec::new(), cap, len: 0 }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        let bytes = &bytes[bytes.len().saturating_sub(self.cap)..];
        self.bytes.extend_from_slice(bytes);
        // Moved only when twice too long, so that each byte is moved once on average.
        if self.bytes.len() > self.cap.saturating_mul(2) {
            self.bytes.drain(..self.bytes.len() - self.cap);
        }
    }

    /// The last bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.bytes.len().saturating_sub(self.cap)..]
    }

    /// Length of the whole stream so far.
    #[must_use]
    pub fn stream_len(&self) -> u64 {
        self.len
    }

    /// Whether the last bytes hold `needle`.
    #[must_use]
    pub fn contains(&self, needle: &[u8]) -> bool {
        contains(self.bytes(), needle)
    }
}

/// Whether `haystack` holds `needle`.
pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || haystack.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_same_however_the_stream_is_cut() {
        let stream: Vec<u8> = (0..1000u32).map(|n| n.to_le_bytes()[0]).collect();
        for step in [1, 3, 7, 64, 1000] {
            let mut tail = Tail::new(64);
            stream.chunks(step).for_each(|part| tail.push(part));
            assert_eq!(tail.bytes(), &stream[1000 - 64..], "parts of {step}");
            assert_eq!(tail.stream_len(), 1000);
        }
    }

    #[test]
    fn a_short_stream_is_its_own_tail() {
        let mut tail = Tail::new(64);
        tail.push(b"abc");
        assert!(tail.contains(b"bc") && !tail.contains(b"d"));
    }
}
