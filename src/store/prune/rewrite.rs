//! What is needed of packs that are going to go, into new ones.

use rayon::prelude::*;

use super::Run;
use crate::compress;
use crate::error::{Error, Result};
use crate::id::{ChunkId, PackId};
use crate::observer::{Counter, Problem};
use crate::storage::{ObjectBytes, ObjectKey, StorageErrorKind};
use crate::store::envelope::HEADER_LEN;
use crate::store::frame_maker::{PackedFrame, together};
use crate::store::frame_source::{FrameSource, READ_FRAMES_LEN};
use crate::store::index_segment::{PackEntry, split};
use crate::store::pack::{Frame, FrameKind, Lineage, Role};
use crate::store::pack_reader::{self, FrameOpener, PackKeys};
use crate::store::pack_writer::PackWriter;

/// New packs in the making.
struct NewPacks {
    open: [Option<PackWriter>; 2],
    entries: Vec<PackEntry>,
}

impl Run<'_> {
    /// Takes packs out of `left`, puts what is needed of them into new packs and publishes the index of those. Gives the
    /// packs that were read, and why it ended before all were: the storage is full. What was not put elsewhere then
    /// keeps its pack from being deleted, as does everything that can't be read.
    pub(super) fn rewrite(&mut self, left: &mut Vec<PackId>) -> Result<(Vec<PackId>, Option<Error>)> {
        let source = FrameSource::new(self.repository.clone(), Some(*self.context), READ_FRAMES_LEN);
        let mut new = NewPacks { open: [None, None], entries: Vec::new() };
        let mut read = Vec::new();
        let mut full = None;
        for id in std::mem::take(left) {
            if full.is_some() {
                left.push(id);
                continue;
            }
            self.context.go_on()?;
            match self.rewrite_or_look_again(&source, &mut new, id) {
                Ok(()) => read.push(id),
                Err(error) if error.is_full() => {
                    read.push(id);
                    full = Some(error);
                }
                Err(error) if error.is_of_one_object() => {
                    let message = format!("It can't be rewritten, and stays as it is. {}", error.chain());
                    self.context.observer.problem(Problem::new(ObjectKey::Pack(id).path(), message));
                }
                Err(error) => return Err(error),
            }
        }
        for slot in 0..new.open.len() {
            match self.close(&mut new, slot) {
                Err(error) if error.is_full() => full = Some(error),
                other => other?,
            }
        }
        for entries in split(&new.entries) {
            match self.repository.publish_segment(entries) {
                Err(error) if error.is_full() => {}
                other => drop(other?),
            }
        }
        Ok((read, full))
    }

    /// Another run that gives space back may have put the base of a delta elsewhere since it was looked for.
    fn rewrite_or_look_again(&mut self, source: &FrameSource<'_>, new: &mut NewPacks, id: PackId) -> Result<()> {
        loop {
            let generation = source.generation();
            match self.rewrite_pack(source, new, id) {
                Err(error) if error.is_of_one_object() && source.refresh(generation, self.context)? => {}
                other => return other,
            }
        }
    }

    fn rewrite_pack(&mut self, source: &FrameSource<'_>, new: &mut NewPacks, id: PackId) -> Result<()> {
        let key = ObjectKey::Pack(id);
        let bytes = match self.repository.storage().get(&key) {
            Ok(bytes) if PackId::from_bytes(*blake3::hash(&bytes).as_bytes()) == id => bytes,
            // What is rewritten is healed on the way, where that can be.
            Ok(bytes) => match self.repository.healed_pack(id, Some(self.context)) {
                Some(healed) => ObjectBytes::Owned(healed.to_vec()),
                None => bytes,
            },
            // Somebody else deleted it: nothing in it was needed.
            Err(error) if error.kind() == StorageErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let Some(entry) = self.repository.find_pack_entry(id, bytes.len() as u64, None)? else { return Ok(()) };
        let damaged = |cause| Error::damaged(format!("Pack {id} is damaged")).cause(cause);
        let header = bytes.get(..HEADER_LEN).unwrap_or_default();
        let opener = FrameOpener::new(header, &self.repository.inner.keys).map_err(damaged)?;
        let Run { repository, liveness, .. } = self;
        let (keys, liveness) = (&repository.inner.keys, &*liveness);
        let frames: Vec<Option<PackedFrame>> = entry
            .frames
            .par_iter()
            .map(|frame| {
                let needed = liveness.needs(&id, frame)?;
                if !needed.contains(&true) {
                    return Ok(None);
                }
                packed(keys, source, &opener, frame, &needed, &bytes).map(Some)
            })
            .collect::<Result<_>>()
            .map_err(|cause| {
                if cause.is_of_one_object() { cause } else { cause.context(format!("Pack {id} can't be read")) }
            })?;
        for frame in frames.into_iter().flatten() {
            self.push(new, entry.role, frame)?;
        }
        Ok(())
    }

    fn push(&mut self, new: &mut NewPacks, role: Role, frame: PackedFrame) -> Result<()> {
        let slot = role as usize - 1;
        if new.open[slot].is_none() {
            new.open[slot] = Some(PackWriter::new(role, 0, self.repository.parity(), &self.repository.inner.keys)?);
        }
        let is_full = new.open[slot].as_mut().is_some_and(|pack| {
            pack.push(frame);
            pack.is_full(self.repository.pack_len())
        });
        if is_full { self.close(new, slot) } else { Ok(()) }
    }

    fn close(&mut self, new: &mut NewPacks, slot: usize) -> Result<()> {
        let Some(pack) = new.open[slot].take() else { return Ok(()) };
        let pack = pack.finish();
        pack.read_back(&self.repository.inner.keys)?;
        self.repository.storage().put_new(&ObjectKey::Pack(pack.entry.id), &pack.bytes)?;
        self.repository.index().add_pack(&pack.entry, &[])?;
        self.context.count(Counter::ObjectsPut, 1);
        self.context.count(Counter::BytesStored, pack.entry.len);
        self.summary.bytes_written += pack.entry.len;
        new.entries.push(pack.entry);
        Ok(())
    }
}

/// A frame with what is needed of it. One that is needed whole is kept as it was compressed. Every chunk is compared
/// with its id.
fn packed(
    keys: &PackKeys,
    source: &FrameSource<'_>,
    opener: &FrameOpener,
    frame: &Frame,
    needed: &[bool],
    pack: &[u8],
) -> Result<PackedFrame> {
    let damaged = |cause| Error::damaged(format!("The frame at byte {} is damaged", frame.offset)).cause(cause);
    let start = usize::try_from(frame.offset).unwrap_or(usize::MAX);
    let len = usize::try_from(frame.sealed_len).unwrap_or(usize::MAX);
    let mut sealed = pack.get(start..start.saturating_add(len)).unwrap_or_default().to_vec();
    let body =
        opener.unseal(frame.offset, frame.kind, frame.plain_len, &frame.extension, &mut sealed).map_err(damaged)?;
    let mut plain = Vec::new();
    if frame.kind == FrameKind::Delta {
        let lineage = Lineage::decode(&frame.extension).map_err(|cause| damaged(cause.into()))?;
        plain = pack_reader::undo(frame.plain_len, body, &source.base(&lineage)?.bytes).map_err(damaged)?;
    } else {
        pack_reader::unpack(frame.kind, frame.plain_len, body, &mut plain).map_err(damaged)?;
    }
    pack_reader::verify_chunks(frame, &plain, keys).map_err(damaged)?;
    if needed.iter().all(|needed| *needed) {
        return Ok(PackedFrame {
            kind: frame.kind,
            plain_len: frame.plain_len,
            bytes: body.to_vec(),
            chunks: frame.chunks.clone(),
            extension: frame.extension.clone(),
            features: Vec::new(),
        });
    }
    let (plain, chunks) = without(&plain, &frame.chunks, needed);
    Ok(together(plain, chunks, compress::LEVEL))
}

fn without(plain: &[u8], chunks: &[(ChunkId, u64)], needed: &[bool]) -> (Vec<u8>, Vec<(ChunkId, u64)>) {
    let (mut kept, mut kept_chunks) = (Vec::new(), Vec::new());
    let mut rest = plain;
    for ((id, len), needed) in chunks.iter().zip(needed) {
        let (chunk, after) = rest.split_at(usize::try_from(*len).unwrap_or(rest.len()).min(rest.len()));
        if *needed {
            kept.extend_from_slice(chunk);
            kept_chunks.push((*id, *len));
        }
        rest = after;
    }
    (kept, kept_chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_needed_is_cut_out() {
        let id = |n| ChunkId::from_bytes([n; 32]);
        let chunks = [(id(1), 2), (id(2), 3), (id(3), 1)];
        assert_eq!(without(b"aabbbc", &chunks, &[true, false, true]), (b"aac".to_vec(), vec![(id(1), 2), (id(3), 1)]));
    }
}
