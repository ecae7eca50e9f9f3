//! `repair`: bring back what can be brought back. One step after the other, the surest first; each changes nothing where
//! nothing is wrong, so that a repair that was interrupted is simply run again.

use serde::Serialize;

use super::{App, Target};
use crate::error::Result;
use crate::observer::Counter;
use crate::store::heal::{self, Finding, State};

/// What was found and done.
#[derive(Debug, Serialize)]
pub struct RepairReport {
    /// Whether it was a rehearsal: nothing was written.
    pub dry_run: bool,
    /// Objects that were damaged and are whole again; in a rehearsal those that would be.
    pub healed: u64,
    /// Objects that can't be healed.
    pub lost: u64,
    /// All damaged objects.
    pub findings: Vec<Finding>,
    /// Bytes that were read.
    pub bytes_read: u64,
    /// Wall time.
    pub seconds: f64,
}

impl RepairReport {
    /// Whether damage is left behind.
    #[must_use]
    pub fn leaves_damage(&self) -> bool {
        self.lost > 0 || (self.dry_run && self.healed > 0)
    }
}

/// Repairs what can be repaired; with `dry_run` it only says so.
///
/// # Errors
/// When the repository can't be opened, read or written.
pub fn run(app: App<'_>, target: &Target, dry_run: bool) -> Result<RepairReport> {
    let started = app.context.clock.now();
    let repository = target.open()?;
    app.context.observer.stage("Healing objects");
    let findings = heal::heal_all(&repository, dry_run, &app.context)?;
    let lost = findings.iter().filter(|finding| finding.state == State::Lost).count() as u64;
    Ok(RepairReport {
        dry_run,
        healed: findings.len() as u64 - lost,
        lost,
        findings,
        bytes_read: app.ledger.get(Counter::BytesChecked),
        seconds: app.context.clock.now().duration_since(started).as_secs_f64(),
    })
}
