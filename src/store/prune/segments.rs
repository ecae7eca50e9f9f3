//! Index segments without what is gone, and fewer of them.

use std::collections::HashSet;

use super::delete;
use crate::error::Result;
use crate::id::{PackId, SegmentId};
use crate::observer::Context;
use crate::storage::{ObjectKey, ObjectKind};
use crate::store::index_segment::{PackEntry, split};
use crate::store::repository::Repository;

/// A segment shorter than this is small ...
const SMALL_LEN: u64 = 1 << 20;
/// ... and so many small ones are worth being joined.
const SMALL_COUNT_MIN: usize = 16;
/// Frames that are held in memory before a segment is made of them.
const HELD_FRAMES_MAX: usize = 64 << 10;

/// Takes packs off the segments that list them.
///
/// # Errors
/// From storage and index.
pub fn unlist(repository: &Repository, doomed: &[PackId], context: &Context<'_>) -> Result<()> {
    let listing = repository.index().segments_of(doomed)?;
    replace(repository, &listing, &doomed.iter().copied().collect(), context)
}

/// Joins small segments where there are many. How many were joined.
///
/// # Errors
/// From storage and index.
pub fn join(repository: &Repository, context: &Context<'_>) -> Result<u64> {
    let listed = repository.storage().list(ObjectKind::Segment)?;
    let small: HashSet<SegmentId> = listed
        .into_iter()
        .filter(|row| row.len < SMALL_LEN)
        .filter_map(|row| if let ObjectKey::Segment(id) = row.key { Some(id) } else { None })
        .collect();
    if small.len() < SMALL_COUNT_MIN {
        return Ok(0);
    }
    replace(repository, &small, &HashSet::new(), context)?;
    Ok(small.len() as u64)
}

/// Publishes what `old` segments say of other packs than the doomed ones, then deletes them. A crash in between leaves
/// segments that say the same.
fn replace(
    repository: &Repository,
    old: &HashSet<SegmentId>,
    doomed: &HashSet<PackId>,
    context: &Context<'_>,
) -> Result<()> {
    let mut held: Vec<PackEntry> = Vec::new();
    let mut seen = HashSet::new();
    for id in old {
        context.go_on()?;
        // One that can't be read says nothing; the packs do.
        let Ok(entries) = repository.read_segment(*id) else { continue };
        held.extend(entries.into_iter().filter(|entry| !doomed.contains(&entry.id) && seen.insert(entry.id)));
        if held.iter().map(|entry| entry.frames.len()).sum::<usize>() >= HELD_FRAMES_MAX {
            publish(repository, &std::mem::take(&mut held))?;
        }
    }
    publish(repository, &held)?;
    for id in old {
        delete(repository, &ObjectKey::Segment(*id))?;
    }
    repository.index().remove_segments(&old.iter().copied().collect::<Vec<_>>())
}

/// On a full disk nothing is published: what no segment lists is found by its footer.
fn publish(repository: &Repository, entries: &[PackEntry]) -> Result<()> {
    for entries in split(entries) {
        match repository.publish_segment(entries) {
            Err(error) if error.is_full() => return Ok(()),
            other => drop(other?),
        }
    }
    Ok(())
}
