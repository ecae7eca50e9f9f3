//! Index segments (format-spec 07), pure: a cache of some packs' footers.

use super::pack::{self, FOOTER_LEN_MAX, Frame, PACK_LEN_MAX, Role};
use crate::codec::{Decoded, Reader, Writer};
use crate::id::PackId;

/// First byte of a plain segment.
pub const SEGMENT_VERSION: u8 = 1;

/// What is known of one pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackEntry {
    /// Its name.
    pub id: PackId,
    /// What it holds.
    pub role: Role,
    /// Its length in bytes.
    pub len: u64,
    /// Its frames.
    pub frames: Vec<Frame>,
}

/// The plain text of a segment about `packs`.
#[must_use]
pub fn encode(packs: &[PackEntry]) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(SEGMENT_VERSION).varint(packs.len() as u64);
    for entry in packs {
        w.bytes(entry.id.as_bytes()).u8(entry.role as u8).varint(entry.len);
        w.counted_bytes(&pack::encode_footer(&entry.frames));
    }
    w.into_bytes()
}

/// Reads a plain segment.
///
/// # Errors
/// On an unknown version or role, bad footers, trailing bytes.
pub fn decode(bytes: &[u8]) -> Decoded<Vec<PackEntry>> {
    let mut r = Reader::new(bytes);
    if r.u8()? != SEGMENT_VERSION {
        return Err(r.error("unknown segment version"));
    }
    let count = r.varint()?;
    let mut packs = Vec::new();
    for _ in 0..count {
        let id = PackId::from_bytes(r.array()?);
        let role = Role::from_byte(r.u8()?).ok_or_else(|| r.error("unknown role"))?;
        let len = r.varint_at_most(PACK_LEN_MAX, "pack too long")?;
        let footer_len_max = usize::try_from(FOOTER_LEN_MAX).unwrap_or(usize::MAX);
        let frames = pack::decode_footer(r.counted_bytes(footer_len_max, "footer too long")?)?;
        packs.push(PackEntry { id, role, len, frames });
    }
    r.end()?;
    Ok(packs)
}
