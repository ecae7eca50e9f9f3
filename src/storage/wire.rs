//! Frames on a line to another process: `u32 length | u8 kind | u32 id | body`, big-endian, the length counting what follows
//! it. SFTP has chosen this shape, and `compline serve` speaks in it as well.
//!
//! Whoever is at the other end may be hostile: a length is bounded before anything is read, and memory is taken as bytes
//! arrive, not as they are announced.

use std::io::{self, Read, Write};

/// Length of kind and id.
const HEAD_LEN: usize = 5;
/// Memory that is taken for a body before any of it has arrived.
const FIRST_ROOM: usize = 256 << 10;
/// Bodies up to this length are copied behind their head, so that they leave in one write.
const JOINED_LEN_MAX: usize = 64 << 10;

/// What goes over the line in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: u8,
    /// Which request it is, or answers. In greetings: the version.
    pub id: u32,
    /// The rest.
    pub body: Vec<u8>,
}

/// Writes one frame, whose body is `parts` one behind the other.
///
/// # Errors
/// What the line says; `InvalidInput` when the body is too long for a frame.
pub fn write_frame(out: &mut (impl Write + ?Sized), kind: u8, id: u32, parts: &[&[u8]]) -> io::Result<()> {
    let body_len: usize = parts.iter().map(|part| part.len()).sum();
    let len = u32::try_from(body_len + HEAD_LEN).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut head = Vec::with_capacity(4 + HEAD_LEN + body_len.min(JOINED_LEN_MAX));
    head.extend(len.to_be_bytes());
    head.push(kind);
    head.extend(id.to_be_bytes());
    let mut parts = parts.iter().peekable();
    while let Some(part) = parts.next_if(|part| head.len() + part.len() <= JOINED_LEN_MAX) {
        head.extend_from_slice(part);
    }
    out.write_all(&head)?;
    for part in parts {
        out.write_all(part)?;
    }
    out.flush()
}

/// Reads one frame. None when the line ended between two frames.
///
/// # Errors
/// `UnexpectedEof` when it ended inside one, `InvalidData` when the length is impossible or above `len_max`.
pub fn read_frame(input: &mut impl Read, len_max: usize) -> io::Result<Option<Frame>> {
    let Some(len) = read_len(input, len_max)? else { return Ok(None) };
    let mut head = [0; HEAD_LEN];
    input.read_exact(&mut head)?;
    let [kind, id @ ..] = head;
    let body_len = len - HEAD_LEN;
    let mut body = Vec::with_capacity(body_len.min(FIRST_ROOM));
    input.take(body_len as u64).read_to_end(&mut body)?;
    if body.len() < body_len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(Frame { kind, id: u32::from_be_bytes(id), body }))
}

/// A length field that passed. The bytes of one that did not are in the error: text there was written by somebody else.
fn read_len(input: &mut impl Read, len_max: usize) -> io::Result<Option<usize>> {
    let mut bytes = [0; 4];
    let mut filled = 0;
    while filled < bytes.len() {
        match input.read(&mut bytes[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let len = usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX);
    if len < HEAD_LEN || len > len_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("\"{}\" is no frame", bytes.escape_ascii())));
    }
    Ok(Some(len))
}

/// Fields of a body, written.
#[derive(Debug, Default)]
pub struct Body(pub Vec<u8>);

impl Body {
    /// One byte.
    pub fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    /// Four bytes.
    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// Eight bytes.
    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A length of four bytes and the bytes. Only for what is known to be short.
    pub fn text(self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        let mut body = self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        body.0.extend_from_slice(bytes);
        body
    }
}

/// Fields of a body, read. None at the end and for what is cut short.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }

    /// One byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A length of four bytes and the bytes.
    pub fn text(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.u32()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    /// Whether nothing is left.
    pub fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_written_and_the_end_is_seen() {
        let mut line = Vec::new();
        write_frame(&mut line, 7, 9, &[b"ab", &vec![3; 100_000], b"c"]).unwrap();
        write_frame(&mut line, 1, 0, &[]).unwrap();
        let mut input = &line[..];
        let first = read_frame(&mut input, 200_000).unwrap().unwrap();
        assert_eq!((first.kind, first.id, first.body.len()), (7, 9, 100_003));
        assert_eq!(read_frame(&mut input, 200_000).unwrap(), Some(Frame { kind: 1, id: 0, body: Vec::new() }));
        assert_eq!(read_frame(&mut input, 200_000).unwrap(), None);
    }

    #[test]
    fn every_cut_and_every_impossible_length_is_an_error() {
        let mut line = Vec::new();
        write_frame(&mut line, 7, 9, &[b"abc"]).unwrap();
        for end in 1..line.len() {
            let error = read_frame(&mut &line[..end], 100).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "cut at {end}");
        }
        for len in [0u32, 4, 101, u32::MAX] {
            line[..4].copy_from_slice(&len.to_be_bytes());
            assert_eq!(read_frame(&mut &line[..], 100).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn a_long_frame_that_never_comes_takes_little_memory() {
        let mut line = u32::MAX.to_be_bytes().to_vec();
        line.extend([1; 100]);
        assert!(read_frame(&mut &line[..], usize::MAX).is_err());
    }

    #[test]
    fn fields_that_are_cut_short_are_none() {
        let body = Body::default().u8(1).u32(2).u64(3).text("four").0;
        let mut fields = Fields(&body);
        assert_eq!((fields.u8(), fields.u32(), fields.u64()), (Some(1), Some(2), Some(3)));
        assert_eq!(fields.text(), Some(&b"four"[..]));
        assert!(fields.is_at_end());
        assert_eq!((fields.u8(), fields.u64(), fields.text()), (None, None, None));
        assert_eq!(Fields(&body[13..body.len() - 1]).text(), None);
    }
}
