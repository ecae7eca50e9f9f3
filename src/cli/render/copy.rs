//! What was copied.

use super::{Renderer, error_object, local_time, number, seconds, table};
use crate::commands::copy::{CopyReport, CopyRow};
use crate::error::{Error, Result};
use crate::units;

/// What became of the repositories that were to be filled.
#[derive(Default)]
pub(in crate::cli) struct Copies {
    pub done: Vec<CopyReport>,
    /// Where nothing could be copied to, and why.
    pub failed: Vec<(String, Error)>,
}

impl Renderer {
    pub(in crate::cli) fn copy(&self, copies: &Copies) -> Result<()> {
        let Copies { done: reports, failed } = copies;
        let failed: Vec<_> = failed.iter().map(failure).collect();
        let value = serde_json::json!({ "copies": reports, "failed": failed });
        let text = || reports.iter().map(copy_text).collect();
        // A dry run is a question.
        if reports.iter().any(|report| report.dry_run) { self.answer(&value, text) } else { self.report(&value, text) }
    }
}

/// As of a command that fails, with where it was to go.
fn failure((to, error): &(String, Error)) -> serde_json::Value {
    let mut object = error_object(error);
    object["to"] = to.as_str().into();
    object
}

fn copy_text(report: &CopyReport) -> String {
    let CopyReport { from, to, .. } = report;
    let there = match report.count("there") {
        0 => String::new(),
        n => format!("; {n} there already"),
    };
    if report.dry_run {
        let mut text = rows(&report.snapshots);
        let wanted = number(report.count("wanted") as u64, "snapshot");
        text.push_str(&format!("{wanted} would be copied from {from} to {to}{there}. Nothing was changed.\n"));
        return text;
    }
    let mut text = format!("{} copied from {from} to {to}{there}", number(report.count("copied") as u64, "snapshot"));
    text.push_str(&format!(
        ": {} new, {} stored in {}.\n",
        units::size(report.bytes_new),
        units::size(report.bytes_stored),
        seconds(report.seconds),
    ));
    for row in &report.snapshots {
        let short = row.snapshot.short();
        match (row.state, &row.copy) {
            ("copied", Some(copy)) => text.push_str(&format!("Snapshot {short} is {} there.\n", copy.short())),
            ("forgotten", _) => text.push_str(&format!("Snapshot {short} was forgotten before it was copied.\n")),
            ("failed", _) => text.push_str(&format!("Snapshot {short} was not copied; the next copy tries again.\n")),
            _ => {}
        }
    }
    text
}

fn rows(snapshots: &[CopyRow]) -> String {
    if snapshots.is_empty() {
        return String::new();
    }
    let cell = |row: &CopyRow| {
        let copy = row.copy.map(|copy| copy.short()).unwrap_or_default();
        vec![row.snapshot.short(), local_time(row.time), units::size(row.bytes_logical), row.state.to_owned(), copy]
    };
    table(&["id", "time", "size", "state", "copy"], &snapshots.iter().map(cell).collect::<Vec<_>>())
}
