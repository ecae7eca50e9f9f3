//! Index segments without what is gone, and fewer of them.

use std::collections::HashSet;

use super::{delete, on_lists, present};
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

/// Takes packs that were found to be gone off the segments that list them, or every machine that looks would take them for
/// lost again.
///
/// # Errors
/// From storage and index.
pub fn unlist_lost(repository: &Repository, context: &Context<'_>) -> Result<()> {
    replace(repository, &repository.index().suspects()?, &HashSet::new(), context)
}

/// Publishes what `old` segments say of other packs than the doomed ones, then deletes them. A crash in between leaves
/// segments that say the same.
///
/// Another run may take a pack off the old segments between their being read and the new ones being published, which would
/// bring it back. So it is looked which packs are on their way out, then which are there, and once more when the new
/// segments are published; what is retired later than that is taken off the new segments by who retires it.
fn replace(
    repository: &Repository,
    old: &HashSet<SegmentId>,
    doomed: &HashSet<PackId>,
    context: &Context<'_>,
) -> Result<()> {
    let mut old = old.clone();
    while !old.is_empty() {
        let (retired, present) = (on_lists(repository, None)?, present(repository)?);
        let stays = |pack: &PackId| !doomed.contains(pack) && !retired.contains(pack) && present.contains(pack);
        let (new, listed) = publish_those(repository, &old, &stays, context)?;
        for id in &old {
            delete(repository, &ObjectKey::Segment(*id))?;
        }
        repository.index().remove_segments(&old.iter().copied().collect::<Vec<_>>())?;
        let (retired, present) = (on_lists(repository, None)?, self::present(repository)?);
        let is_right = listed.iter().all(|pack| !retired.contains(pack) && present.contains(pack));
        old = if is_right { HashSet::new() } else { new };
    }
    Ok(())
}

/// Publishes what `old` segments say of packs that stay. Gives the new segments and what they list.
fn publish_those(
    repository: &Repository,
    old: &HashSet<SegmentId>,
    stays: &dyn Fn(&PackId) -> bool,
    context: &Context<'_>,
) -> Result<(HashSet<SegmentId>, HashSet<PackId>)> {
    let mut held: Vec<PackEntry> = Vec::new();
    let mut listed = HashSet::new();
    let mut new = HashSet::new();
    for id in old {
        context.go_on()?;
        let entries = match repository.read_segment(*id) {
            Ok(entries) => entries.unwrap_or_default(),
            // One that can't be read says nothing; the packs do.
            Err(error) if error.is_of_one_object() => continue,
            Err(error) => return Err(error),
        };
        held.extend(entries.into_iter().filter(|entry| stays(&entry.id) && listed.insert(entry.id)));
        if held.iter().map(|entry| entry.frames.len()).sum::<usize>() >= HELD_FRAMES_MAX {
            publish(repository, &std::mem::take(&mut held), &mut new)?;
        }
    }
    publish(repository, &held, &mut new)?;
    Ok((new, listed))
}

/// On a full disk nothing is published: what no segment lists is found by its footer.
fn publish(repository: &Repository, entries: &[PackEntry], new: &mut HashSet<SegmentId>) -> Result<()> {
    for entries in split(entries) {
        match repository.publish_segment(entries) {
            Err(error) if error.is_full() => return Ok(()),
            other => new.insert(other?.0),
        };
    }
    Ok(())
}
