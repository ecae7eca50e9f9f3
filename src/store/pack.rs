//! Pack layout (format-spec 05), pure: header, frames, footer, trailer.
//!
//! ```text
//! header   44  envelope header; detail = role
//! frames       sealed one after the other; position = offset in the pack; key: content or tree subkey + header
//! footer       sealed list of frames and chunks; position = its offset; key: index subkey + header; aad = header
//! parity       bytes that a later version may add and this one passes over
//! trailer  20  footer length u32, parity length u64, magic "COMPLEND"
//! ```

use std::ops::Range;

use super::envelope::HEADER_LEN;
use crate::chunker::CHUNK_LEN_MAX;
use crate::codec::{Decoded, Reader, Writer};
use crate::crypto::{Purpose, TAG_LEN};
use crate::id::ChunkId;

/// Last bytes of every pack.
pub const TRAILER_MAGIC: &[u8; 8] = b"COMPLEND";
/// Length of the trailer.
pub const TRAILER_LEN: usize = 4 + 8 + 8;
/// Longest plain text of a frame.
pub const FRAME_PLAIN_LEN_MAX: u64 = 16 << 20;
/// Most chunks in one frame.
pub const FRAME_CHUNK_COUNT_MAX: u64 = 1 << 16;
/// Longest plain footer.
pub const FOOTER_LEN_MAX: u64 = 64 << 20;
/// Longest pack.
pub const PACK_LEN_MAX: u64 = 4 << 30;

/// What sort of chunks a pack holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Content of files and streams.
    Content = 1,
    /// Trees and content lists.
    Tree = 2,
}

impl Role {
    /// The role with this number.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Content),
            2 => Some(Self::Tree),
            _ => None,
        }
    }

    /// Which subkey seals its frames.
    #[must_use]
    pub fn purpose(self) -> Purpose {
        match self {
            Self::Content => Purpose::Content,
            Self::Tree => Purpose::Tree,
        }
    }
}

/// How a frame's plain text is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// As it is.
    Raw,
    /// One zstd frame over all chunks.
    Zstd,
    /// A kind of a later version: its chunks are known, its bytes can't be read.
    Other(u8),
}

const FRAME_KIND_RAW: u8 = 0;
const FRAME_KIND_ZSTD: u8 = 1;
/// Number of the reserved frame kind: one chunk, zstd with another chunk as prefix.
pub const FRAME_KIND_DELTA: u8 = 2;
/// Longest extension of a frame's entry in the footer.
pub const FRAME_EXTENSION_LEN_MAX: usize = 255;

impl FrameKind {
    /// The kind with this number.
    #[must_use]
    pub fn from_byte(byte: u8) -> Self {
        match byte {
            FRAME_KIND_RAW => Self::Raw,
            FRAME_KIND_ZSTD => Self::Zstd,
            other => Self::Other(other),
        }
    }

    /// Its number.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Raw => FRAME_KIND_RAW,
            Self::Zstd => FRAME_KIND_ZSTD,
            Self::Other(byte) => byte,
        }
    }
}

/// One frame as the footer lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Where in the pack.
    pub offset: u64,
    /// Length of the sealed bytes.
    pub sealed_len: u64,
    /// How it is kept.
    pub kind: FrameKind,
    /// What only kinds of later versions have; empty for all others.
    pub extension: Vec<u8>,
    /// Length of the plain text: the sum of its chunks.
    pub plain_len: u64,
    /// Ids and lengths of its chunks, in the order of the plain text.
    pub chunks: Vec<(ChunkId, u64)>,
}

impl Frame {
    /// About how many bytes of a footer it takes; never less than it does.
    #[must_use]
    pub fn footer_len(&self) -> u64 {
        (16 + self.extension.len() + self.chunks.len() * (ChunkId::LEN + 4)) as u64
    }
}

/// Associated data of a frame: what the footer and every index say of it must be what was sealed.
#[must_use]
pub fn frame_aad(kind: FrameKind, plain_len: u64) -> [u8; 9] {
    let mut aad = [0; 9];
    aad[0] = kind.byte();
    aad[1..].copy_from_slice(&plain_len.to_le_bytes());
    aad
}

/// The plain footer of a pack with these frames, which follow each other without gaps behind the header.
#[must_use]
pub fn encode_footer(frames: &[Frame]) -> Vec<u8> {
    let mut w = Writer::new();
    w.varint(frames.len() as u64);
    for frame in frames {
        w.u8(frame.kind.byte()).varint(frame.sealed_len).counted_bytes(&frame.extension);
        w.varint(frame.chunks.len() as u64);
        for (id, len) in &frame.chunks {
            w.bytes(id.as_bytes()).varint(*len);
        }
    }
    w.into_bytes()
}

/// Reads a plain footer.
///
/// # Errors
/// On lengths out of bounds and trailing bytes. Unknown kinds are none: their chunks are listed like all others.
pub fn decode_footer(bytes: &[u8]) -> Decoded<Vec<Frame>> {
    let mut r = Reader::new(bytes);
    let count = r.varint()?;
    let mut frames = Vec::new();
    let mut offset = HEADER_LEN as u64;
    for _ in 0..count {
        let frame = decode_frame(&mut r, offset)?;
        offset += frame.sealed_len;
        frames.push(frame);
    }
    if frames.is_empty() {
        return Err(r.error("no frames"));
    }
    r.end()?;
    Ok(frames)
}

fn decode_frame(r: &mut Reader<'_>, offset: u64) -> Decoded<Frame> {
    let kind = FrameKind::from_byte(r.u8()?);
    let sealed_len = r.varint_at_most(FRAME_PLAIN_LEN_MAX + TAG_LEN as u64, "frame too long")?;
    if sealed_len < TAG_LEN as u64 {
        return Err(r.error("frame too short"));
    }
    let extension = r.counted_bytes(FRAME_EXTENSION_LEN_MAX, "frame extension too long")?.to_vec();
    if !extension.is_empty() && !matches!(kind, FrameKind::Other(_)) {
        return Err(r.error("unexpected frame extension"));
    }
    let (plain_len, chunks) = decode_chunks(r)?;
    if kind == FrameKind::Raw && sealed_len != plain_len + TAG_LEN as u64 {
        return Err(r.error("bad frame length"));
    }
    Ok(Frame { offset, sealed_len, kind, extension, plain_len, chunks })
}

fn decode_chunks(r: &mut Reader<'_>) -> Decoded<(u64, Vec<(ChunkId, u64)>)> {
    let count = r.varint_at_most(FRAME_CHUNK_COUNT_MAX, "too many chunks in a frame")?;
    let mut chunks = Vec::new();
    let mut plain_len = 0;
    for _ in 0..count {
        let id = ChunkId::from_bytes(r.array()?);
        let len = r.varint_at_most(CHUNK_LEN_MAX as u64, "chunk too long")?;
        if len == 0 {
            return Err(r.error("empty chunk"));
        }
        plain_len += len;
        chunks.push((id, len));
    }
    if chunks.is_empty() {
        return Err(r.error("no chunks in a frame"));
    }
    if plain_len > FRAME_PLAIN_LEN_MAX {
        return Err(r.error("frame too long"));
    }
    Ok((plain_len, chunks))
}

/// The trailer of a pack without parity.
#[must_use]
pub fn encode_trailer(footer_len: u32) -> Vec<u8> {
    let mut w = Writer::new();
    w.u32(footer_len).u64(0).bytes(TRAILER_MAGIC);
    w.into_bytes()
}

/// Where the sealed footer lies, from the last 20 bytes of a pack that is `pack_len` long.
///
/// # Errors
/// When the magic is missing or the footer would not fit.
pub fn decode_trailer(bytes: &[u8], pack_len: u64) -> Decoded<Range<u64>> {
    let mut r = Reader::new(bytes);
    let footer_len = u64::from(r.u32()?);
    let parity_len = r.u64()?;
    if r.bytes(TRAILER_MAGIC.len())? != TRAILER_MAGIC {
        return Err(r.error("bad trailer magic"));
    }
    r.end()?;
    let end = pack_len.checked_sub(TRAILER_LEN as u64).and_then(|end| end.checked_sub(parity_len));
    let start = end.and_then(|end| end.checked_sub(footer_len)).filter(|start| *start >= HEADER_LEN as u64);
    let fits = (TAG_LEN as u64..=FOOTER_LEN_MAX).contains(&footer_len) && pack_len <= PACK_LEN_MAX;
    match start {
        Some(start) if fits => Ok(start..start + footer_len),
        _ => Err(r.error("footer does not fit")),
    }
}

/// Whether the frames fill the pack from the header to the footer, exactly.
#[must_use]
pub fn frames_fill(frames: &[Frame], footer_offset: u64) -> bool {
    frames.last().is_some_and(|frame| frame.offset + frame.sealed_len == footer_offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: FrameKind, extension: &[u8]) -> Frame {
        let chunks = vec![(ChunkId::from_bytes([1; 32]), 30), (ChunkId::from_bytes([2; 32]), 70)];
        Frame { offset: 44, sealed_len: 116, kind, extension: extension.to_vec(), plain_len: 100, chunks }
    }

    #[test]
    fn a_frame_of_a_later_kind_hides_nothing_of_the_pack() {
        let second = Frame { offset: 160, ..frame(FrameKind::Raw, b"") };
        let frames = [frame(FrameKind::Other(FRAME_KIND_DELTA), &[7; 32]), second];
        assert_eq!(decode_footer(&encode_footer(&frames)), Ok(frames.to_vec()));
    }

    #[test]
    fn known_kinds_have_no_extension() {
        let error = decode_footer(&encode_footer(&[frame(FrameKind::Zstd, b"x")])).unwrap_err();
        assert_eq!(error.what, "unexpected frame extension");
    }

    #[test]
    fn parity_that_a_later_version_added_is_passed_over() {
        let mut w = Writer::new();
        w.u32(100).u64(500).bytes(TRAILER_MAGIC);
        let trailer = w.into_bytes();
        assert_eq!(decode_trailer(&trailer, 1000), Ok(380..480));
        assert_eq!(decode_trailer(&trailer, 663).unwrap_err().what, "footer does not fit");
        assert_eq!(decode_trailer(&trailer, 664), Ok(44..144));
    }
}
