//! What prune did, in words.

use super::{local_time, number};
use crate::commands::prune::PruneReport;
use crate::store::prune::PruneSummary;
use crate::units;

pub(super) fn text(report: &PruneReport) -> String {
    let PruneSummary { decision, .. } = &report.summary;
    let mut text = format!(
        "{} {} {} of {} in {}.\n",
        number(report.snapshots, "snapshot"),
        if report.snapshots == 1 { "needs" } else { "need" },
        units::size(decision.bytes_needed),
        units::size(decision.bytes),
        number(decision.packs, "pack"),
    );
    if report.dry_run {
        text.push_str(&format!(
            "Would delete {} that nobody needs ({}), and rewrite {} ({} of them are needed): {} would be freed.\n",
            number(decision.packs_unused, "pack"),
            units::size(decision.bytes_unused),
            number(decision.packs_rewritten, "pack"),
            units::size(decision.bytes_rewritten),
            units::size(decision.bytes_freed),
        ));
        return text;
    }
    text.push_str(&pruned(&report.summary));
    text
}

fn pruned(summary: &PruneSummary) -> String {
    let freed = summary.bytes_deleted.saturating_sub(summary.bytes_written);
    let mut text = match summary.packs_deleted {
        0 if summary.packs_locked > 0 => "No space was freed.\n".to_owned(),
        0 => "Nothing was deleted.\n".to_owned(),
        n => format!(
            "Deleted {}, wrote {} anew: {} freed.\n",
            number(n, "pack"),
            units::size(summary.bytes_written),
            units::size(freed)
        ),
    };
    if let Some(until) = summary.locked_until {
        text.push_str(&format!(
            "{} ({}) deleted and locked: space is taken until {}.\n",
            number(summary.packs_locked, "pack"),
            units::size(summary.bytes_locked),
            local_time(until)
        ));
    }
    if summary.locks_extended > 0 {
        text.push_str(&format!("{} locked for longer.\n", number(summary.locks_extended, "object")));
    }
    if summary.packs_spared > 0 {
        text.push_str(&format!(
            "{} stay: what was published meanwhile needs them.\n",
            number(summary.packs_spared, "pack")
        ));
    }
    text
}
