//! `tag`: other tags on snapshots, or a pin. Their records are written again, so their ids change.

use serde::Serialize;

use super::{App, Target};
use crate::archive::relabel::{Relabel, Relabelled, relabel};
use crate::archive::snapshots::{self as finding, Published, Selector};
use crate::error::Result;
use crate::id::SnapshotId;
use crate::observer::Problem;

/// A snapshot and its labels now.
#[derive(Debug, Serialize)]
pub struct TagRow {
    /// The id it had.
    pub old: SnapshotId,
    /// The id it has; the same if nothing changed.
    pub id: SnapshotId,
    /// Whether anything changed.
    pub changed: bool,
    /// Its tags.
    pub tags: Vec<String>,
    /// Whether it is pinned.
    pub pinned: bool,
}

/// What became of the snapshots.
#[derive(Debug, Serialize)]
pub struct TagReport {
    /// One for each of them.
    pub snapshots: Vec<TagRow>,
}

/// Changes the labels of the snapshots that `selectors` name. All are found before the first is changed.
///
/// # Errors
/// `NotFound` and the like, and what the repository says before anything was changed. What fails later is a problem.
pub fn run(app: App<'_>, target: &Target, selectors: &[Selector], change: &Relabel) -> Result<TagReport> {
    let repository = target.open_fully()?;
    let all = finding::all(&repository, &app.context)?;
    let mut ids: Vec<SnapshotId> = Vec::new();
    for selector in selectors {
        let Published { id, .. } = finding::select(&all, selector)?;
        if !ids.contains(id) {
            ids.push(*id);
        }
    }
    let mut snapshots = Vec::new();
    for id in ids {
        match relabel(&repository, id, change, &all, &app.context) {
            Ok(done) => snapshots.push(row(id, done)),
            Err(error) if snapshots.is_empty() => return Err(error),
            Err(error) => {
                let message = format!("It has the labels it had: {}", error.chain());
                app.context.observer.problem(Problem::new(format!("Snapshot {}", id.short()), message));
            }
        }
    }
    Ok(TagReport { snapshots })
}

fn row(old: SnapshotId, now: Relabelled) -> TagRow {
    let Relabelled { id, tags, pinned } = now;
    TagRow { old, id, changed: id != old, tags, pinned }
}
