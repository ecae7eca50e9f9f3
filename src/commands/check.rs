//! `check`: is everything there, and is it what was written?

use jiff::Timestamp;
use serde::Serialize;

use super::{App, Target};
use crate::archive::{check as archive_check, snapshots as finding};
use crate::clock::seconds_since;
use crate::error::Result;
use crate::observer::{Counter, Problem};
use crate::store::check::{self as store_check, DataSubset};

/// What was checked and found.
#[derive(Debug, Serialize)]
pub struct CheckReport {
    /// Snapshots whose trees were walked.
    pub snapshots: u64,
    /// Packs in storage.
    pub packs: u64,
    /// Bytes of packs that were read and verified.
    pub bytes_read: u64,
    /// Packs that this machine has never read whole and found right.
    pub packs_unread: u64,
    /// When the one of the others was, for which that is the longest ago.
    pub read_since: Option<Timestamp>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Wall time.
    pub seconds: f64,
}

/// Checks structure and references, and the bytes of the chosen packs.
///
/// # Errors
/// When the repository can't be read at all; what is wrong in it is in the report.
pub fn run(app: App<'_>, target: &Target, subset: DataSubset) -> Result<CheckReport> {
    let started = app.context.clock.now();
    let repository = target.open()?;
    store_check::run(&repository, subset, &app.context)?;
    let snapshots = finding::all(&repository, &app.context)?;
    archive_check::run(&repository, &snapshots, app.context)?;
    let (packs, verified) = (repository.index().totals()?.packs, repository.index().verified()?);
    Ok(CheckReport {
        snapshots: snapshots.len() as u64,
        packs,
        packs_unread: packs.saturating_sub(verified.len() as u64),
        read_since: verified.values().min().and_then(|oldest| Timestamp::from_second(*oldest).ok()),
        bytes_read: app.ledger.get(Counter::BytesChecked),
        problems: app.ledger.problems(),
        seconds: seconds_since(app.context.clock, started),
    })
}
