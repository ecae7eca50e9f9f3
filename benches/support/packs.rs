//! Packs that hold nothing, for filling an index: shaped like those of content, four chunks of 256 KiB in a frame of
//! 1 MiB, sixteen frames in a pack.

use compline::id::{ChunkId, PackId};
use compline::store::index_segment::PackEntry;
use compline::store::pack::{Frame, FrameKind, Role};

pub const CHUNKS_PER_FRAME: u64 = 4;
pub const FRAMES_PER_PACK: u64 = 16;
pub const CHUNKS_PER_PACK: u64 = CHUNKS_PER_FRAME * FRAMES_PER_PACK;
const CHUNK_LEN: u64 = 256 << 10;
const SEALED_LEN: u64 = 300 << 10;

/// 32 bytes that look random and belong to `n`.
pub fn hash(n: u64) -> [u8; 32] {
    *blake3::hash(&n.to_le_bytes()).as_bytes()
}

/// The id of chunk `n`. Chunks are numbered through all packs.
pub fn chunk(n: u64) -> ChunkId {
    ChunkId::from_bytes(hash(n))
}

/// Pack `n`, with the chunks from `n * CHUNKS_PER_PACK` on.
pub fn pack(n: u64) -> PackEntry {
    let frame = |number: u64| {
        let first = n * CHUNKS_PER_PACK + number * CHUNKS_PER_FRAME;
        Frame {
            offset: 44 + number * SEALED_LEN,
            sealed_len: SEALED_LEN,
            kind: FrameKind::Zstd,
            extension: Vec::new(),
            plain_len: CHUNKS_PER_FRAME * CHUNK_LEN,
            chunks: (first..first + CHUNKS_PER_FRAME).map(|n| (chunk(n), CHUNK_LEN)).collect(),
        }
    };
    PackEntry {
        id: PackId::from_bytes(hash(u64::MAX - n)),
        role: Role::Content,
        len: FRAMES_PER_PACK * SEALED_LEN,
        frames: (0..FRAMES_PER_PACK).map(frame).collect(),
    }
}
