//! What can still be read of packs that can't be healed goes into new ones; then the damaged ones go, so that the next backup
//! stores again what was lost.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;

use super::alignment::Older;
use super::envelope::HEADER_LEN;
use super::frame_source::{FrameSource, READ_FRAMES_LEN};
use super::index_segment::PackEntry;
use super::pack::{Frame, FrameKind, Lineage};
use super::pack_reader::{self, FrameOpener};
use super::prune::{await_writers, delete, unlist};
use super::repository::Repository;
use super::retired;
use super::writer::{Offered, Writer};
use crate::error::Result;
use crate::id::{ChunkId, PackId};
use crate::observer::Context;
use crate::storage::{ObjectKey, ObjectKind, StorageErrorKind};

/// What came of damaged packs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Salvage {
    /// Packs that were taken away.
    pub packs_removed: u64,
    /// Chunks of them that could be read.
    pub chunks_saved: u64,
    /// Chunks of them that could not; another pack may have them.
    pub chunks_unreadable: u64,
    /// Writers that were still running when waiting for them ended: the damaged packs stay for the next time.
    pub writers_waited_for: Vec<String>,
}

/// Takes away the packs `damaged`, after what can be read of them was stored again.
///
/// No writer may rely on them from the beginning, so they are retired first: what is in them is then stored again as if it
/// had never been. Unlike [`prune`](super::prune) nothing is spared, since nothing that goes could be had.
///
/// # Errors
/// From storage and index.
pub fn salvage(repository: &Repository, damaged: &[PackId], wait: Duration, context: &Context<'_>) -> Result<Salvage> {
    let mut summary = Salvage::default();
    if damaged.is_empty() {
        return Ok(summary);
    }
    let list = retired::publish(repository, damaged, context)?;
    let mut listed = listed_entries(repository, damaged, context)?;
    let mut writer = repository.writer(false, context)?;
    let source = FrameSource::new(repository.clone(), Some(*context), READ_FRAMES_LEN);
    for id in damaged {
        context.go_on()?;
        save_pack(repository, &source, &mut writer, *id, listed.remove(id), &mut summary, context)?;
    }
    if let Some(session) = writer.finish(context)? {
        session.end();
    }
    summary.writers_waited_for = await_writers(repository, wait, context)?;
    if summary.writers_waited_for.is_empty() {
        unlist(repository, damaged, context)?;
        for id in damaged {
            delete(repository, &ObjectKey::Pack(*id))?;
            summary.packs_removed += 1;
        }
        repository.index().remove_packs(damaged)?;
    }
    retired::release(repository, list)?;
    Ok(summary)
}

/// What segments say of packs whose footers may be damaged.
fn listed_entries(
    repository: &Repository,
    damaged: &[PackId],
    context: &Context<'_>,
) -> Result<HashMap<PackId, PackEntry>> {
    let mut found = HashMap::new();
    for row in repository.storage().list(ObjectKind::Segment)? {
        context.go_on()?;
        let ObjectKey::Segment(id) = row.key else { continue };
        let entries = repository.read_segment(id).unwrap_or_default();
        found.extend(
            entries.into_iter().flatten().filter(|entry| damaged.contains(&entry.id)).map(|entry| (entry.id, entry)),
        );
    }
    Ok(found)
}

fn save_pack(
    repository: &Repository,
    source: &FrameSource<'_>,
    writer: &mut Writer,
    id: PackId,
    listed: Option<PackEntry>,
    summary: &mut Salvage,
    context: &Context<'_>,
) -> Result<()> {
    let bytes = match repository.storage().get(&ObjectKey::Pack(id)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == StorageErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let entry = repository.read_pack_entry(id, bytes.len() as u64).ok().or(listed);
    // Nobody knows what was in it: what snapshots miss of it is seen when they are looked through.
    let Some(entry) = entry else { return Ok(()) };
    let opener = FrameOpener::new(bytes.get(..HEADER_LEN).unwrap_or_default(), &repository.inner.keys).ok();
    for frame in &entry.frames {
        context.go_on()?;
        let plain = opener.as_ref().and_then(|opener| plain(source, opener, frame, &bytes));
        let Some(plain) = plain else {
            summary.chunks_unreadable += frame.chunks.len() as u64;
            continue;
        };
        let mut rest = &plain[..];
        let chunks: Vec<(ChunkId, &[u8])> = frame
            .chunks
            .iter()
            .map(|(id, len)| {
                let (chunk, after) = rest.split_at(usize::try_from(*len).unwrap_or(rest.len()).min(rest.len()));
                rest = after;
                (*id, chunk)
            })
            .collect();
        let (whole, torn): (Vec<_>, Vec<_>) =
            chunks.into_iter().partition(|(id, bytes)| repository.chunk_id(bytes) == *id);
        summary.chunks_saved += whole.len() as u64;
        summary.chunks_unreadable += torn.len() as u64;
        let offered = whole.into_iter().map(|(id, bytes)| Offered { id, bytes, older: Older::default() });
        writer.put(entry.role, offered, context)?;
    }
    Ok(())
}

fn plain(source: &FrameSource<'_>, opener: &FrameOpener, frame: &Frame, pack: &[u8]) -> Option<Vec<u8>> {
    let start = usize::try_from(frame.offset).ok()?;
    let end = usize::try_from(frame.offset + frame.sealed_len).ok()?;
    let mut sealed = pack.get(start..end)?.to_vec();
    let body = opener.unseal(frame.offset, frame.kind, frame.plain_len, &frame.extension, &mut sealed).ok()?;
    let mut plain = Vec::new();
    if frame.kind == FrameKind::Delta {
        let base = source.base(&Lineage::decode(&frame.extension).ok()?).ok()?;
        plain = pack_reader::undo(frame.plain_len, body, &base.bytes).ok()?;
    } else {
        pack_reader::unpack(frame.kind, frame.plain_len, body, &mut plain).ok()?;
    }
    Some(plain)
}
