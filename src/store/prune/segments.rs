//! Index segments without what is gone, and fewer of them.

use std::collections::HashSet;

use super::{Run, delete};
use crate::error::Result;
use crate::id::{PackId, SegmentId};
use crate::storage::{ObjectKey, ObjectKind};
use crate::store::index_segment::{PackEntry, split};

/// A segment shorter than this is small ...
const SMALL_LEN: u64 = 1 << 20;
/// ... and so many small ones are worth being joined.
const SMALL_COUNT_MIN: usize = 16;
/// Frames that are held in memory before a segment is made of them.
const HELD_FRAMES_MAX: usize = 64 << 10;

impl Run<'_> {
    /// Takes packs off the segments that list them.
    pub(super) fn unlist(&self, doomed: &[PackId]) -> Result<()> {
        let listing = self.repository.index().segments_of(doomed)?;
        self.replace(&listing, &doomed.iter().copied().collect())
    }

    /// Joins small segments where there are many.
    pub(super) fn join_segments(&mut self) -> Result<()> {
        let listed = self.repository.storage().list(ObjectKind::Segment)?;
        let small: HashSet<SegmentId> = listed
            .into_iter()
            .filter(|row| row.len < SMALL_LEN)
            .filter_map(|row| if let ObjectKey::Segment(id) = row.key { Some(id) } else { None })
            .collect();
        if small.len() >= SMALL_COUNT_MIN {
            self.summary.segments_joined += small.len() as u64;
            self.replace(&small, &HashSet::new())?;
        }
        Ok(())
    }

    /// Publishes what `old` segments say of other packs than the doomed ones, then deletes them. A crash in between leaves
    /// segments that say the same.
    fn replace(&self, old: &HashSet<SegmentId>, doomed: &HashSet<PackId>) -> Result<()> {
        let mut held: Vec<PackEntry> = Vec::new();
        let mut seen = HashSet::new();
        for id in old {
            self.context.go_on()?;
            // One that can't be read says nothing; the packs do.
            let Ok(entries) = self.repository.read_segment(*id) else { continue };
            held.extend(entries.into_iter().filter(|entry| !doomed.contains(&entry.id) && seen.insert(entry.id)));
            if held.iter().map(|entry| entry.frames.len()).sum::<usize>() >= HELD_FRAMES_MAX {
                self.publish(&std::mem::take(&mut held))?;
            }
        }
        self.publish(&held)?;
        for id in old {
            delete(self.repository, &ObjectKey::Segment(*id))?;
        }
        self.repository.index().remove_segments(&old.iter().copied().collect::<Vec<_>>())
    }

    /// On a full disk nothing is published: what no segment lists is found by its footer.
    fn publish(&self, entries: &[PackEntry]) -> Result<()> {
        for entries in split(entries) {
            match self.repository.publish_segment(entries) {
                Err(error) if error.is_full() => return Ok(()),
                other => drop(other?),
            }
        }
        Ok(())
    }
}
