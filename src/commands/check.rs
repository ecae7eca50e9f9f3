//! `check`: is everything there, and is it what was written?

use jiff::Timestamp;
use serde::Serialize;

use super::{App, Target};
use crate::archive::{check as archive_check, snapshots as finding};
use crate::clock::seconds_since;
use crate::error::Result;
use crate::observer::{Counter, Problem};
use crate::storage::ObjectKind;
use crate::store::check::{self as store_check, DataSubset};
use crate::store::session::{self, SeenSession};

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
    /// Who shows a session: runs that are at work, or died and were not cleared yet.
    pub sessions: Vec<String>,
    /// Lists of packs that prunes are about to delete, or died over.
    pub retired_lists: u64,
    /// Packs that no index segment lists: a run is writing them, or died before it could list them.
    pub packs_unlisted: u64,
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
    archive_check::run(&repository, &snapshots, subset == DataSubset::All, app.context)?;
    let (packs, verified) = (repository.index().totals()?.packs, repository.index().verified()?);
    let sessions = session::list(&repository)?;
    Ok(CheckReport {
        sessions: sessions.iter().map(SeenSession::describe).collect(),
        retired_lists: repository.storage().list(ObjectKind::Retired)?.len() as u64,
        packs_unlisted: repository.index().unpublished()?.len() as u64,
        snapshots: snapshots.len() as u64,
        packs,
        packs_unread: packs.saturating_sub(verified.len() as u64),
        read_since: verified.values().min().and_then(|oldest| Timestamp::from_second(*oldest).ok()),
        bytes_read: app.ledger.get(Counter::BytesChecked),
        problems: app.ledger.problems(),
        seconds: seconds_since(app.context.clock, started),
    })
}
