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

impl PackEntry {
    /// About how many bytes of a segment it takes; never less than it does.
    fn encoded_len(&self) -> u64 {
        64 + self.frames.iter().map(Frame::footer_len).sum::<u64>()
    }
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

/// A segment is not made longer than this, unless one pack alone is: far below what a record may hold.
const SEGMENT_LEN: u64 = 16 << 20;

/// Groups of `packs`, one for each segment.
pub fn split(packs: &[PackEntry]) -> impl Iterator<Item = &[PackEntry]> {
    let mut rest = packs;
    std::iter::from_fn(move || {
        let mut len = 0;
        let count = rest.iter().take_while(|entry| {
            let fits = len == 0 || len + entry.encoded_len() <= SEGMENT_LEN;
            len += entry.encoded_len();
            fits
        });
        let (group, after) = rest.split_at(count.count());
        rest = after;
        (!group.is_empty()).then_some(group)
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ChunkId;
    use crate::store::pack::FrameKind;

    fn entry(n: u8, chunk_count: usize) -> PackEntry {
        let frame = Frame {
            offset: 44,
            sealed_len: chunk_count as u64 + 16,
            kind: FrameKind::Raw,
            extension: Vec::new(),
            plain_len: chunk_count as u64,
            chunks: vec![(ChunkId::from_bytes([n; 32]), 1); chunk_count],
        };
        PackEntry { id: PackId::from_bytes([n; 32]), role: Role::Content, len: 1 << 20, frames: vec![frame; 9] }
    }

    #[test]
    fn many_packs_of_tiny_chunks_go_into_several_segments_of_bounded_length() {
        let packs: Vec<PackEntry> = (0..8).map(|n| entry(n, 65_536)).collect();
        let groups: Vec<&[PackEntry]> = split(&packs).collect();
        assert_eq!(groups.concat(), packs);
        assert!(groups.len() > 1);
        for group in groups {
            assert!(group.len() == 1 || encode(group).len() as u64 <= SEGMENT_LEN);
        }
        assert_eq!(split(&[]).count(), 0);
    }

    #[test]
    fn a_pack_takes_no_more_of_a_segment_than_it_is_counted_for() {
        for entry in [entry(1, 1), entry(2, 5000)] {
            assert!(encode(std::slice::from_ref(&entry)).len() as u64 <= entry.encoded_len());
        }
    }
}
