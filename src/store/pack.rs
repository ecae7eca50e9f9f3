//! Pack layout (format-spec 05), pure: header, frames, footer, trailer.
//!
//! ```text
//! header   44  envelope header; detail = role
//! frames       sealed one after the other; position = offset in the pack; key: content or tree subkey + header
//! footer       sealed list of frames and chunks; position = its offset; key: index subkey + header; aad = header
//! parity       what heals the rest: `parity`; readers pass over it
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
    /// One chunk, as a zstd frame over its delta to other chunks.
    Delta,
    /// A kind of a later version: its chunks are known, its bytes can't be read.
    Other(u8),
}

const FRAME_KIND_RAW: u8 = 0;
const FRAME_KIND_ZSTD: u8 = 1;
const FRAME_KIND_DELTA: u8 = 2;
/// Longest extension of a frame's entry in the footer.
pub const FRAME_EXTENSION_LEN_MAX: usize = 255;

impl FrameKind {
    /// The kind with this number.
    #[must_use]
    pub fn from_byte(byte: u8) -> Self {
        match byte {
            FRAME_KIND_RAW => Self::Raw,
            FRAME_KIND_ZSTD => Self::Zstd,
            FRAME_KIND_DELTA => Self::Delta,
            other => Self::Other(other),
        }
    }

    /// Its number.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Raw => FRAME_KIND_RAW,
            Self::Zstd => FRAME_KIND_ZSTD,
            Self::Delta => FRAME_KIND_DELTA,
            Self::Other(byte) => byte,
        }
    }
}

/// Most bases of a delta.
pub const BASE_COUNT_MAX: usize = 7;
/// Longest base of a delta: all chunks of it together.
pub const BASE_LEN_MAX: u64 = 16 << 20;

/// What a delta frame says of its base: its extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// How many deltas have to be undone one after the other: 1 if no base is a delta itself. Every base is read from a
    /// frame of a smaller depth, so that no chain is endless.
    pub depth: u8,
    /// How many versions came before it, as far as anybody knows; decides what the next version is a delta of.
    pub generation: u16,
    /// The chunks that make the base, one after the other.
    pub bases: Vec<ChunkId>,
}

impl Lineage {
    /// The extension of the frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(self.depth).u16(self.generation);
        for base in &self.bases {
            w.bytes(base.as_bytes());
        }
        w.into_bytes()
    }

    /// Reads an extension.
    ///
    /// # Errors
    /// On a depth of zero, no base or too many, a base cut short.
    pub fn decode(bytes: &[u8]) -> Decoded<Self> {
        let mut r = Reader::new(bytes);
        let (depth, generation) = (r.u8()?, r.u16()?);
        if depth == 0 {
            return Err(r.error("a delta of depth zero"));
        }
        let mut bases = Vec::new();
        while r.remaining() > 0 {
            bases.push(ChunkId::from_bytes(r.array()?));
        }
        if bases.is_empty() || bases.len() > BASE_COUNT_MAX {
            return Err(r.error("bad count of bases"));
        }
        Ok(Self { depth, generation, bases })
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
    /// The [`Lineage`] of a delta, whatever it is of a later kind, empty for all others.
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
pub fn frame_aad(kind: FrameKind, plain_len: u64, extension: &[u8]) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(kind.byte()).u64(plain_len).bytes(extension);
    w.into_bytes()
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
    match kind {
        FrameKind::Raw | FrameKind::Zstd if !extension.is_empty() => return Err(r.error("unexpected frame extension")),
        FrameKind::Delta => drop(Lineage::decode(&extension)?),
        _ => {}
    }
    let (plain_len, chunks) = decode_chunks(r)?;
    if kind == FrameKind::Delta && chunks.len() != 1 {
        return Err(r.error("a delta of several chunks"));
    }
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
    encode_trailer_with(footer_len, 0)
}

/// The trailer of a pack with so much parity.
#[must_use]
pub fn encode_trailer_with(footer_len: u32, parity_len: u64) -> Vec<u8> {
    let mut w = Writer::new();
    w.u32(footer_len).u64(parity_len).bytes(TRAILER_MAGIC);
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
        let frames = [frame(FrameKind::Other(9), &[7; 32]), second];
        assert_eq!(decode_footer(&encode_footer(&frames)), Ok(frames.to_vec()));
    }

    #[test]
    fn known_kinds_have_no_extension() {
        let error = decode_footer(&encode_footer(&[frame(FrameKind::Zstd, b"x")])).unwrap_err();
        assert_eq!(error.what, "unexpected frame extension");
    }

    #[test]
    fn a_delta_holds_one_chunk_and_says_what_it_was_made_of() {
        let lineage = Lineage { depth: 3, generation: 300, bases: vec![ChunkId::from_bytes([8; 32]); 2] };
        let mut delta = frame(FrameKind::Delta, &lineage.encode());
        assert_eq!(decode_footer(&encode_footer(&[delta.clone()])).unwrap_err().what, "a delta of several chunks");
        delta.chunks.pop();
        delta.plain_len = 30;
        assert_eq!(decode_footer(&encode_footer(&[delta.clone()])), Ok(vec![delta.clone()]));
        assert_eq!(Lineage::decode(&delta.extension), Ok(lineage.clone()));
        for (lineage, what) in [
            (Lineage { depth: 0, ..lineage.clone() }, "a delta of depth zero"),
            (Lineage { bases: Vec::new(), ..lineage.clone() }, "bad count of bases"),
        ] {
            delta.extension = lineage.encode();
            assert_eq!(decode_footer(&encode_footer(&[delta.clone()])).unwrap_err().what, what);
        }
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
