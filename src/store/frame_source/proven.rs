//! Chunks in spite of frames that open and hold something else than their footer says. No damage makes such frames, but whoever has
//! a key can: even one that only reads, with the footer of another pack (format-spec 13).
//!
//! What was made of a wrong base is wrong in every place, and nothing tells which base it was. So here each base is compared with
//! its id before anything is made of it, and where it is wrong the next place is taken. That is slow, and done where all else
//! failed. Each place is found to be wrong once, and each base lies less deep than what was made of it, so it comes to an end.

use std::sync::Arc;

use super::{FrameSource, UNREADABLE_COUNT_MAX, may_lie_elsewhere, unusable, wrong};
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::pipeline::lock;
use crate::store::index::ChunkPlace;
use crate::store::pack::{BASE_LEN_MAX, FrameKind, Lineage};
use crate::store::pack_reader;

impl FrameSource<'_> {
    /// A chunk out of frames that hold what they should, all bases as well, or `error`. Not for writers, as
    /// [`FrameSource::another_place`].
    pub(in crate::store) fn proven_or(&self, id: &ChunkId, error: Error) -> Result<Vec<u8>> {
        if self.context.is_none() || !may_lie_elsewhere(&error) {
            return Err(error);
        }
        self.proven(id, usize::MAX)?.ok_or(error)
    }

    /// The same from frames less deep than `depth_end`; none if there is none.
    fn proven(&self, id: &ChunkId, depth_end: usize) -> Result<Option<Vec<u8>>> {
        let mut failed = Vec::new();
        for place in self.repository.index().all_places(id)? {
            let key = (place.frame.pack, place.frame.offset, place.offset);
            if usize::from(place.frame.depth()) >= depth_end || lock(&self.hollow).contains(&key) {
                continue;
            }
            match self.proven_at(id, &place) {
                Ok(chunk) => {
                    failed.iter().try_for_each(|(pack, error)| self.tell(*pack, error))?;
                    return Ok(Some(chunk));
                }
                Err(error) if may_lie_elsewhere(&error) => {
                    let mut hollow = lock(&self.hollow);
                    if error.is_of_one_object() && hollow.len() < UNREADABLE_COUNT_MAX {
                        hollow.insert(key);
                    }
                    failed.push((place.frame.pack, error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn proven_at(&self, id: &ChunkId, place: &ChunkPlace) -> Result<Vec<u8>> {
        let frame = &place.frame;
        // What is kept may have been made of something wrong.
        if let Some(chunk) = self.kept(frame).and_then(|plain| self.right(id, place, &plain)) {
            return Ok(chunk);
        }
        let mut sealed = self.sealed(frame)?;
        let body = self.unseal(frame, &mut sealed)?;
        let mut plain = Vec::new();
        if let Some(lineage) = &frame.lineage {
            let base = self.proven_base(lineage)?;
            plain = pack_reader::undo(frame.plain_len, body, &base).map_err(|cause| unusable(frame, cause))?;
        } else {
            pack_reader::unpack(FrameKind::from_byte(frame.kind), frame.plain_len, body, &mut plain)
                .map_err(|cause| unusable(frame, cause))?;
        }
        let chunk = self.right(id, place, &plain).ok_or_else(|| wrong(id))?;
        self.keep(frame, Arc::new(plain));
        Ok(chunk)
    }

    fn proven_base(&self, lineage: &Lineage) -> Result<Vec<u8>> {
        let mut base = Vec::new();
        for id in &lineage.bases {
            base.extend(self.proven(id, usize::from(lineage.depth))?.ok_or_else(|| wrong(id))?);
            if base.len() as u64 > BASE_LEN_MAX {
                return Err(wrong(id));
            }
        }
        Ok(base)
    }

    /// The chunk at `place` of a plain frame, if it is what its id says.
    fn right(&self, id: &ChunkId, place: &ChunkPlace, plain: &[u8]) -> Option<Vec<u8>> {
        let (start, end) = (usize::try_from(place.offset).ok()?, usize::try_from(place.offset + place.len).ok()?);
        let chunk = plain.get(start..end)?;
        (self.repository.chunk_id(chunk) == *id).then(|| chunk.to_vec())
    }
}
