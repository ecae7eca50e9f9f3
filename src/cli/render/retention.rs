//! What became of snapshots, and why.

use super::{Renderer, local_time, number, status_word, table};
use crate::commands::forget::{Decided, ForgetReport, GroupReport};
use crate::commands::tag::{TagReport, TagRow};
use crate::error::Result;

impl Renderer {
    pub(in crate::cli) fn forget(&self, report: &ForgetReport) -> Result<()> {
        // A dry run is a question.
        if report.dry_run {
            self.answer(report, || forget_text(report))
        } else {
            self.report(report, || forget_text(report))
        }
    }

    pub(in crate::cli) fn tag(&self, report: &TagReport) -> Result<()> {
        self.report(report, || report.snapshots.iter().map(tag_text).collect())
    }
}

/// The tags of a snapshot, and its pin.
pub(super) fn labels(tags: &[String], pinned: bool) -> String {
    let pin = pinned.then_some("(pinned)");
    let tags = (!tags.is_empty()).then(|| tags.join(","));
    tags.as_deref().into_iter().chain(pin).collect::<Vec<_>>().join(" ")
}

fn forget_text(report: &ForgetReport) -> String {
    let mut text: String = report.groups.iter().map(|group| group_text(group, report.time_zone.is_some())).collect();
    let all: usize = report.groups.iter().map(|group| group.keep.len() + group.remove.len()).sum();
    let (doomed, all) =
        (report.groups.iter().map(|group| group.remove.len()).sum::<usize>(), number(all as u64, "snapshot"));
    let days = report.time_zone.as_ref().map(|zone| format!("; days begin in {zone}")).unwrap_or_default();
    text.push_str(&if report.dry_run {
        format!("{doomed} of {all} would be removed{days}. Nothing was changed.\n")
    } else {
        format!("{} of {all} removed{days}.\n", report.removed.len())
    });
    if let Some(prune) = &report.prune {
        text.push_str(&super::prune::text(prune));
    } else if !report.removed.is_empty() {
        text.push_str("`compline prune` gives back what only they needed.\n");
    }
    if !report.failed.is_empty() {
        let why = if report.interrupted { "Interrupted before" } else { "Not removed:" };
        let ids: Vec<String> = report.failed.iter().map(crate::id::SnapshotId::short).collect();
        text.push_str(&format!("{why} {}. The same command goes on with them.\n", ids.join(", ")));
    }
    text
}

fn group_text(group: &GroupReport, by_rules: bool) -> String {
    let mut rows: Vec<&Decided> = group.keep.iter().chain(&group.remove).collect();
    rows.sort_by_key(|row| row.labels.as_ref().map(|labels| labels.time));
    let cells: Vec<Vec<String>> = rows.into_iter().map(cells).collect();
    let head = if by_rules {
        format!("{}: keep {}, remove {}\n", capital(&group.group.to_string()), group.keep.len(), group.remove.len())
    } else {
        String::new()
    };
    format!("{head}{}\n", table(&["id", "time", "status", "tags", "", "why"], &cells))
}

fn cells(row: &Decided) -> Vec<String> {
    let (time, status, tags) = match &row.labels {
        Some(known) => (local_time(known.time), status_word(known.status), labels(&known.tags, known.pinned)),
        None => ("?".to_owned(), "damaged", String::new()),
    };
    let (verb, why) = match row.removed_as {
        None => ("keep", row.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        Some("partial") => ("remove", "partial, and no rule wants it beside complete ones".to_owned()),
        Some("named") => ("remove", "named".to_owned()),
        Some(_) => ("remove", "no rule wants it".to_owned()),
    };
    vec![row.short_id.clone(), time, status.to_owned(), tags, verb.to_owned(), why]
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn tag_text(row: &TagRow) -> String {
    let labels = match labels(&row.tags, row.pinned) {
        none if none.is_empty() => "no tags".to_owned(),
        labels => labels,
    };
    let (old, id) = (row.old.short(), row.id.short());
    if row.changed {
        format!("Snapshot {old} is now {id}: {labels}\n")
    } else {
        format!("Snapshot {id} stays: {labels}\n")
    }
}
