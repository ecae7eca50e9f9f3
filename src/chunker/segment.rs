//! Cutting one stream on many cores (format-spec 04, CUT-1).
//!
//! A cut depends on the bytes since the last cut and nothing else, so a stream seems to have to be cut from its first byte
//! to its last. But content-defined cuts find each other again: begun anywhere, the chunker soon cuts where it would have
//! cut anyway, and from there on it always does. So a stream is read in segments, each with the first bytes of the next
//! one behind it, and each is cut as if there were a cut at its start: a *guess*, which needs no other segment. Then, in
//! the order of the stream, the true first cut comes in from the segment before; the segment is cut from there until a
//! true cut is among the guessed ones, and the rest of the guess is true as well ([`Segment::settle`]). On ordinary bytes
//! that is a chunk or two. Where the cuts never meet, as in long runs of one byte, the whole segment is cut again:
//! slower by that, never wrong.

use std::io::{self, Read};

use super::Chunker;

/// Reads a stream in segments.
pub struct Segments<R> {
    reader: R,
    segment_len: usize,
    ahead_len: usize,
    /// What was read of the next segment already.
    ahead: Vec<u8>,
    done: bool,
}

/// A part of a stream, and what follows it: enough to end the last chunk that begins in it.
#[derive(Debug)]
pub struct Segment {
    bytes: Vec<u8>,
    /// Without what belongs to the next one.
    len: usize,
    guess: Vec<usize>,
}

/// Length of the first read; it doubles from there. Most streams are short, and clearing memory for long ones costs more
/// than reading them.
const FIRST_LEN: usize = 256 << 10;

impl<R: Read> Segments<R> {
    pub(super) fn new(reader: R, segment_len: usize, ahead_len: usize) -> Self {
        Self { reader, segment_len: segment_len.max(1), ahead_len, ahead: Vec::new(), done: false }
    }

    /// Whether the end of the stream was seen: the last segment was given.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The next segment, in the memory of `buffer`, whose content is of no interest.
    ///
    /// # Errors
    /// The reader's; nothing comes after it.
    pub fn next_in(&mut self, buffer: Vec<u8>) -> Option<io::Result<Segment>> {
        if self.done {
            return None;
        }
        let segment = self.read(buffer);
        self.done |= segment.is_err();
        segment.map(|segment| (!segment.bytes.is_empty()).then_some(segment)).transpose()
    }

    fn read(&mut self, mut bytes: Vec<u8>) -> io::Result<Segment> {
        let wanted = self.segment_len + self.ahead_len;
        let mut filled = self.ahead.len();
        if bytes.len() < filled {
            bytes.resize(filled, 0);
        }
        bytes[..filled].copy_from_slice(&self.ahead);
        while filled < wanted {
            if filled >= bytes.len() {
                bytes.resize((filled * 2).clamp(FIRST_LEN, wanted.max(FIRST_LEN)), 0);
            }
            let end = bytes.len().min(wanted);
            match self.reader.read(&mut bytes[filled..end]) {
                Ok(0) => break,
                Ok(len) => filled += len,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(cause),
            }
        }
        bytes.truncate(filled);
        self.done = filled < wanted;
        let len = if self.done { filled } else { self.segment_len };
        self.ahead.clear();
        self.ahead.extend_from_slice(&bytes[len..]);
        Ok(Segment { bytes, len, guess: Vec::new() })
    }
}

impl Segment {
    /// Cuts it as if there were a cut at its start.
    pub fn guess(&mut self, chunker: &Chunker) {
        self.guess = vec![0];
        let mut at = 0;
        while at < self.len {
            at += chunker.cut(&self.bytes[at..]);
            self.guess.push(at);
        }
    }

    /// Its true chunks, the first of which begins at `start`, and where the first of the next segment begins there.
    #[must_use]
    pub fn settle(self, chunker: &Chunker, start: usize) -> (Batch, usize) {
        let mut cuts = vec![start];
        let mut at = start;
        while at < self.len {
            if let Ok(known) = self.guess.binary_search(&at) {
                cuts.extend_from_slice(&self.guess[known + 1..]);
                break;
            }
            at += chunker.cut(&self.bytes[at..]);
            cuts.push(at);
        }
        let end = *cuts.last().expect("not empty because it began with `start`");
        (Batch { bytes: self.bytes, cuts }, end - self.len)
    }
}

/// Chunks that follow each other in one buffer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where the first chunk begins and where each ends.
    cuts: Vec<usize>,
}

impl Batch {
    /// The chunks in order.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        self.cuts.windows(2).map(|cuts| &self.bytes[cuts[0]..cuts[1]])
    }

    /// Bytes of all chunks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cuts.last().unwrap_or(&0) - self.cuts.first().unwrap_or(&0)
    }

    /// Whether there is no chunk.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its memory, for the next segment.
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunker::{Gear, Profile};
    use proptest::collection::vec;
    use proptest::prelude::*;

    const LEN_MAX: usize = 4096;

    fn small() -> Chunker {
        let profile = Profile { name: "test", len_min: 256, len_avg: 1024, len_max: LEN_MAX };
        Chunker::new(Gear::new(&[5; 32]), profile)
    }

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    /// Gives at most so many bytes at a time, and is interrupted before each.
    struct Dribble<'a>(&'a [u8], usize, bool);
    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.2 = !self.2;
            if self.2 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let len = buffer.len().min(self.1);
            Read::read(&mut self.0, &mut buffer[..len])
        }
    }

    /// Cuts as many cores would, one after the other: every guess before anything is settled.
    fn in_segments(bytes: &[u8], step: usize, segment_len: usize) -> Vec<Batch> {
        let chunker = small();
        let mut segments = chunker.segments(Dribble(bytes, step, false), segment_len);
        // What a used buffer holds must not matter.
        let read = std::iter::from_fn(|| segments.next_in(vec![7; step]));
        let mut guessed: Vec<Segment> = read.map(|segment| segment.expect("memory")).collect();
        for segment in &mut guessed {
            segment.guess(&chunker);
        }
        let mut start = 0;
        let settle = |segment: Segment| {
            let (batch, next) = segment.settle(&chunker, start);
            start = next;
            batch
        };
        let batches = guessed.into_iter().map(settle).collect();
        assert_eq!(start, 0, "the last chunk ends with the stream");
        batches
    }

    fn same_as_whole(bytes: &[u8], step: usize, segment_len: usize) -> Result<(), TestCaseError> {
        let chunker = small();
        let whole: Vec<&[u8]> = chunker.split(bytes).collect();
        let batches = in_segments(bytes, step, segment_len);
        let cut: Vec<&[u8]> = batches.iter().flat_map(Batch::chunks).collect();
        prop_assert_eq!(whole, cut);
        prop_assert_eq!(batches.iter().map(Batch::len).sum::<usize>(), bytes.len());
        Ok(())
    }

    #[test]
    fn an_empty_stream_has_no_segments() {
        assert!(small().segments(io::empty(), 1000).next_in(Vec::new()).is_none());
    }

    #[test]
    fn a_read_error_ends_the_stream() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let mut segments = small().segments(io::Cursor::new(noise(100, 1)).chain(Broken), 1000);
        assert!(segments.next_in(Vec::new()).is_some_and(|segment| segment.is_err()));
        assert!(segments.is_done() && segments.next_in(Vec::new()).is_none());
    }

    /// What makes it worth while: almost nothing is cut twice.
    #[test]
    fn guesses_are_right_but_for_their_first_chunks() {
        let chunker = small();
        let bytes = noise(1 << 20, 3);
        let mut segments = chunker.segments(bytes.as_slice(), 64 << 10);
        let (mut start, mut right, mut all) = (0, 0, 0);
        while let Some(segment) = segments.next_in(Vec::new()) {
            let mut segment = segment.expect("memory");
            segment.guess(&chunker);
            let guess = segment.guess.clone();
            let (batch, next) = segment.settle(&chunker, start);
            start = next;
            all += batch.cuts.len();
            right += batch.cuts.iter().filter(|cut| guess.binary_search(cut).is_ok()).count();
        }
        assert!(right * 10 > all * 9, "{right} of {all}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn segments_of_noise_are_cut_like_the_whole(
            len in 0usize..60_000, seed: u64, step in 1usize..9000, segment_len in 1usize..30_000,
        ) {
            same_as_whole(&noise(len, seed), step, segment_len)?;
        }

        /// Short periods and runs of one byte: guessed and true cuts may never meet.
        #[test]
        fn segments_of_dull_bytes_are_cut_like_the_whole(
            runs in vec((vec(any::<u8>(), 1..6), 0usize..12_000), 0..8), noise_at in 0usize..8, seed: u64,
            step in 1usize..9000, segment_len in 1usize..30_000,
        ) {
            let mut bytes = Vec::new();
            for (at, (period, len)) in runs.iter().enumerate() {
                if at == noise_at {
                    bytes.extend(noise(len % 700, seed));
                }
                bytes.extend(period.iter().cycle().take(*len));
            }
            same_as_whole(&bytes, step, segment_len)?;
        }

        #[test]
        fn segments_of_zeros_behind_an_odd_start_are_cut_like_the_whole(
            start in 0usize..5000, seed: u64, zeros in 0usize..80_000, segment_len in 1usize..20_000,
        ) {
            let mut bytes = noise(start, seed);
            bytes.resize(start + zeros, 0);
            same_as_whole(&bytes, 8192, segment_len)?;
        }
    }
}
