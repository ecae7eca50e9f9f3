//! `snapshots` and `show`: what was published.

use serde::Serialize;

use super::{App, SnapshotPath, Target, snapshot};
use crate::archive::Snapshot;
use crate::archive::snapshots::{self as finding, Published};
use crate::error::{Error, ErrorKind, Result};
use crate::id::SnapshotId;

/// One row of the list.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its id.
    pub id: SnapshotId,
    /// Enough of it for people.
    pub short_id: String,
    /// The record.
    #[serde(flatten)]
    pub snapshot: Snapshot,
}

impl From<Published> for Row {
    fn from(Published { id, mut snapshot }: Published) -> Self {
        snapshot.plan = None;
        for component in &mut snapshot.components {
            component.root = None;
        }
        Self { id, short_id: id.short(), snapshot }
    }
}

/// The snapshots that have all of `tags` and, if given, the component, oldest first.
///
/// # Errors
/// From the repository.
pub fn list(app: App<'_>, target: &Target, tags: &[String], component: Option<&str>) -> Result<Vec<Row>> {
    let repository = target.open()?;
    let all = finding::all(&repository, &app.context)?;
    let wanted = all.into_iter().filter(|Published { snapshot, .. }| {
        tags.iter().all(|tag| snapshot.tags.contains(tag))
            && component.is_none_or(|name| snapshot.component(name).is_some_and(|record| record.root.is_some()))
    });
    Ok(wanted.map(Row::from).collect())
}

/// One snapshot, whole.
///
/// # Errors
/// `NotFound` and the like.
pub fn show(app: App<'_>, target: &Target, what: &SnapshotPath) -> Result<Published> {
    if !what.path.is_root() {
        return Err(
            Error::new(ErrorKind::Usage, "`show` takes a snapshot without a path").hint("`compline ls` shows paths")
        );
    }
    let repository = target.open()?;
    snapshot(app, &repository, &what.selector)
}
