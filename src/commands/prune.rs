//! `prune`: gives back the space of what no snapshot needs.

use std::collections::HashSet;

use serde::Serialize;

use super::{App, Target, tell_of_writers};
use crate::archive::{reach, snapshots as finding};
use crate::clock::seconds_since;
use crate::error::{Error, Result};
use crate::id::SnapshotId;
use crate::observer::{Context, Problem};
use crate::storage::{ObjectKey, StorageErrorKind};
use crate::store::Repository;
use crate::store::index::Liveness;
use crate::store::prune::{self as store_prune, PruneOptions, PruneSummary};

/// What was decided and done.
#[derive(Debug, Serialize)]
pub struct PruneReport {
    /// Snapshots whose needs were looked at.
    pub snapshots: u64,
    /// Nothing was done.
    pub dry_run: bool,
    /// The rest.
    #[serde(flatten)]
    pub summary: PruneSummary,
    /// What went wrong on the way.
    pub problems: Vec<Problem>,
    /// Wall time.
    pub seconds: f64,
}

/// Deletes what no snapshot needs, or says what it would delete.
///
/// # Errors
/// When the repository can't be read, or it can't be known what is needed; then nothing was deleted that is.
pub fn run(app: App<'_>, target: &Target, options: PruneOptions) -> Result<PruneReport> {
    let started = app.context.clock.now();
    let repository = target.open_fully()?;
    let (snapshots, summary) = of_repository(&repository, options, &app.context)?;
    tell_of_writers(&summary.writers_waited_for, "what was to be deleted stays, until prune is run again later", app);
    Ok(PruneReport {
        snapshots,
        dry_run: options.dry_run,
        summary,
        problems: app.ledger.problems(),
        seconds: seconds_since(app.context.clock, started),
    })
}

/// The same for an open repository. Gives how many snapshots were looked at, too.
///
/// # Errors
/// As [`run`].
pub fn of_repository(
    repository: &Repository,
    options: PruneOptions,
    context: &Context<'_>,
) -> Result<(u64, PruneSummary)> {
    let mut seen = HashSet::new();
    let mut reach = |liveness: &mut Liveness<'_>| {
        for id in repository.list_snapshots()? {
            if !seen.contains(&id) && reach_snapshot(repository, id, liveness, context)? {
                seen.insert(id);
            }
        }
        Ok(())
    };
    let summary = store_prune::run(repository, options, &mut reach, context)?;
    Ok((seen.len() as u64, summary))
}

/// False if it was forgotten meanwhile.
fn reach_snapshot(
    repository: &Repository,
    id: SnapshotId,
    liveness: &mut Liveness<'_>,
    context: &Context<'_>,
) -> Result<bool> {
    let chunks = repository.reader(*context);
    let reached = finding::read(repository, id)
        .and_then(|published| reach::reach(&chunks, &published.snapshot, liveness, context));
    match reached {
        Ok(()) => Ok(true),
        Err(cause) => match repository.storage().len(&ObjectKey::Snapshot(id)) {
            Err(error) if error.kind() == StorageErrorKind::NotFound => Ok(false),
            _ if cause.is_of_one_object() => {
                let message = format!("Nobody knows what snapshot {} needs: nothing was deleted", id.short());
                let hint = format!("Try `compline repair`; if it can't be mended, `compline forget {}`", id.short());
                Err(Error::new(cause.kind(), message).cause(cause).hint(hint))
            }
            _ => Err(cause),
        },
    }
}
