//! What was done about compressed data, in a line.

use super::number;
use crate::archive::snapshot::ReflateStats;
use crate::units;

/// Members, their bytes, and what was spared; nothing of nothing.
pub(super) fn line(stats: &ReflateStats) -> String {
    if stats.is_empty() {
        return String::new();
    }
    let refused = match stats.members_refused {
        0 => String::new(),
        refused => format!("; {} stored as they came", number(refused, "member")),
    };
    format!(
        "{} of {}, stored as {} of plain bytes ({} of them new) and {} of corrections, at least {} spared{refused}",
        number(stats.members, "member"),
        units::size(stats.bytes_deflated),
        units::size(stats.bytes_plain),
        units::size(stats.bytes_plain_new),
        units::size(stats.bytes_corrections),
        units::size(stats.bytes_saved()),
    )
}

/// The same for a whole repository.
pub(super) fn sentence(stats: &ReflateStats) -> String {
    match line(stats) {
        line if line.is_empty() => line,
        line => format!("Compressed: {line}.\n"),
    }
}
