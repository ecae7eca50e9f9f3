//! Pack layout (format-spec 05), pure: header, frames, footer, trailer.
//!
//! ```text
//! header   44  envelope header; detail = role
//! frames       sealed one after the other; position = offset in the pack; key: content or tree subkey + salt
//! footer       sealed list of frames and chunks; position = its offset; key: index subkey + salt; aad = header
//! trailer  20  footer length u32, parity length u64 (0), magic "COMPLEND"
//! ```

use super::envelope::HEADER_LEN;
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
    Raw = 0,
    /// One zstd frame over all chunks.
    Zstd = 1,
}

/// Number of the reserved frame kind: one chunk, zstd with another chunk as prefix.
pub const FRAME_KIND_DELTA: u8 = 2;

impl FrameKind {
    /// The kind with this number.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Raw),
            1 => Some(Self::Zstd),
            _ => None,
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
    /// Length of the plain text: the sum of its chunks.
    pub plain_len: u64,
    /// Ids and lengths of its chunks, in the order of the plain text.
    pub chunks: Vec<(ChunkId, u64)>,
}

/// Associated data of a frame: what the footer and every index say of it must be what was sealed.
#[must_use]
pub fn frame_aad(kind: FrameKind, plain_len: u64) -> [u8; 9] {
    let mut aad = [0; 9];
    aad[0] = kind as u8;
    aad[1..].copy_from_slice(&plain_len.to_le_bytes());
    aad
}

/// The plain footer of a pack with these frames, which follow each other without gaps behind the header.
#[must_use]
pub fn encode_footer(frames: &[Frame]) -> Vec<u8> {
    let mut w = Writer::new();
    w.varint(frames.len() as u64);
    for frame in frames {
        w.u8(frame.kind as u8).varint(frame.sealed_len).varint(frame.chunks.len() as u64);
        for (id, len) in &frame.chunks {
            w.bytes(id.as_bytes()).varint(*len);
        }
    }
    w.into_bytes()
}

/// Reads a plain footer.
///
/// # Errors
/// On unknown kinds, lengths out of bounds, trailing bytes.
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
    r.end()?;
    Ok(frames)
}

fn decode_frame(r: &mut Reader<'_>, offset: u64) -> Decoded<Frame> {
    let kind = r.u8()?;
    if kind == FRAME_KIND_DELTA {
        return Err(r.error("reserved frame kind"));
    }
    let kind = FrameKind::from_byte(kind).ok_or_else(|| r.error("unknown frame kind"))?;
    let sealed_len = r.varint_at_most(FRAME_PLAIN_LEN_MAX + TAG_LEN as u64, "frame too long")?;
    if sealed_len < TAG_LEN as u64 {
        return Err(r.error("frame too short"));
    }
    let count = r.varint_at_most(FRAME_CHUNK_COUNT_MAX, "too many chunks in a frame")?;
    let mut chunks = Vec::new();
    let mut plain_len = 0;
    for _ in 0..count {
        let id = ChunkId::from_bytes(r.array()?);
        let len = r.varint_at_most(FRAME_PLAIN_LEN_MAX, "chunk too long")?;
        plain_len += len;
        chunks.push((id, len));
    }
    if count == 0 || plain_len > FRAME_PLAIN_LEN_MAX {
        return Err(r.error("bad frame length"));
    }
    Ok(Frame { offset, sealed_len, kind, plain_len, chunks })
}

/// The trailer of a pack.
#[must_use]
pub fn encode_trailer(footer_len: u32) -> Vec<u8> {
    let mut w = Writer::new();
    w.u32(footer_len).u64(0).bytes(TRAILER_MAGIC);
    w.into_bytes()
}

/// The length of the sealed footer, from the last 20 bytes of a pack that is `pack_len` long.
///
/// # Errors
/// When the magic is missing, parity is announced, or the footer would not fit.
pub fn decode_trailer(bytes: &[u8], pack_len: u64) -> Decoded<u64> {
    let mut r = Reader::new(bytes);
    let footer_len = u64::from(r.u32()?);
    if r.u64()? != 0 {
        return Err(r.error("unknown parity"));
    }
    if r.bytes(TRAILER_MAGIC.len())? != TRAILER_MAGIC {
        return Err(r.error("bad trailer magic"));
    }
    r.end()?;
    let fits = footer_len >= TAG_LEN as u64
        && footer_len <= FOOTER_LEN_MAX
        && pack_len <= PACK_LEN_MAX
        && footer_len + (HEADER_LEN + TRAILER_LEN) as u64 <= pack_len;
    if fits { Ok(footer_len) } else { Err(r.error("footer does not fit")) }
}

/// Whether the frames fill the pack from the header to the footer, exactly.
#[must_use]
pub fn frames_fill(frames: &[Frame], pack_len: u64, footer_len: u64) -> bool {
    let end = frames.last().map_or(HEADER_LEN as u64, |frame| frame.offset + frame.sealed_len);
    end.checked_add(footer_len + TRAILER_LEN as u64) == Some(pack_len)
}
