//! The tables of the plan: every key, what it takes, what it is for. They check plans and make the JSON Schema.

use crate::components::{EXISTING, TIMEOUT};
use crate::reflate::Policy;
use crate::settings::{Field, Shape};

/// Chunker profiles that a component may ask for.
pub(super) const CHUNKERS: &[&str] = &["default", "db-text", "db-page", "blob"];

/// What a component may say about compressed data.
pub(super) const REFLATE: &[&str] = &Policy::NAMES;

/// The top level.
pub(super) const PLAN: &[Field] = &[
    Field::required("format", Shape::Integer, "Version of the plan's own format: 1"),
    Field::required("platform", Shape::Table(PLATFORM), "What the plan is about"),
    Field::optional("repository", Shape::Table(REPOSITORY), "Where snapshots go; `-r` overrides it"),
    Field::optional("defaults", Shape::Table(DEFAULTS), "What holds for every component that doesn't say otherwise"),
    Field::required("component", Shape::AnyTables, "The components, each in a section [[component]]"),
    Field::optional("retention", Shape::Table(RETENTION), "Which snapshots are to be kept"),
    Field::optional(
        "copy",
        Shape::TableList(COPY),
        "Repositories that `compline copy` fills, each in a section [[copy]]",
    ),
];

/// Where copies go.
pub(super) const COPY: &[Field] = &[
    Field::required("location", Shape::Text, "Where the other repository lies, as in [repository]"),
    Field::optional(
        "password",
        Shape::Secret,
        "Where its passphrase comes from; if nothing is said, what opens [repository]",
    ),
    Field::optional("key_file", Shape::Text, "Path of its key file, instead of a passphrase"),
    LIMIT_UPLOAD,
    LIMIT_DOWNLOAD,
    LIMIT_REQUESTS,
    CONCURRENCY,
    Field::optional("tags", Shape::TextList, "Only snapshots with all of these tags are copied"),
];

const PLATFORM: &[Field] = &[
    Field::required("name", Shape::Text, "Name of the platform, recorded in every snapshot"),
    Field::optional("description", Shape::Text, "What it is, for people"),
    Field::optional("timezone", Shape::Text, "IANA time zone in which the days of [retention] begin; UTC if not given"),
];

const REPOSITORY: &[Field] = &[
    Field::required(
        "location",
        Shape::Text,
        "A directory (a relative one starts from the plan's directory), or s3://bucket/prefix?endpoint=URL",
    ),
    Field::optional("password", Shape::Secret, "Where the passphrase comes from"),
    Field::optional("key_file", Shape::Text, "Path of the key file, instead of a passphrase"),
    LIMIT_UPLOAD,
    LIMIT_DOWNLOAD,
    LIMIT_REQUESTS,
    CONCURRENCY,
];

const LIMIT_UPLOAD: Field =
    Field::optional("limit_upload", Shape::Text, "Bytes a second that may be written there, such as 20MB");
const LIMIT_DOWNLOAD: Field =
    Field::optional("limit_download", Shape::Text, "Bytes a second that may be read from there");
const LIMIT_REQUESTS: Field =
    Field::optional("limit_requests", Shape::Integer, "Operations a second that the storage may be asked for");
const CONCURRENCY: Field =
    Field::optional("concurrency", Shape::Integer, "Operations that the storage may be asked for at once");

const DEFAULTS: &[Field] = &[
    Field::optional("timeout", Shape::Duration, "`timeout` of every component"),
    Field::optional("stall_timeout", Shape::Duration, "`stall_timeout` of every component whose kind has it"),
    Field::optional(
        "on_error",
        Shape::OneOf(&["continue", "stop"]),
        "Whether the components after one that failed are captured (the default) or skipped",
    ),
    Field::optional("importance", IMPORTANCE, "`importance` of every component"),
    Field::optional("chunker", Shape::OneOf(CHUNKERS), "`chunker` of every component"),
    Field::optional("reflate", Shape::OneOf(REFLATE), "`reflate` of every component"),
    Field::optional("exclude_caches", Shape::Boolean, "`exclude_caches` of every component of kind files"),
    Field::optional("one_file_system", Shape::Boolean, "`one_file_system` of every component of kind files"),
];

const IMPORTANCE: Shape = Shape::OneOf(&["required", "best-effort"]);

/// Keys of every component, beside those of its kind.
pub(super) const COMPONENT: &[Field] = &[
    Field::required("name", Shape::Text, "Its name, and the first part of every path of it in a snapshot"),
    Field::required("kind", Shape::Text, "Which adapter captures and restores it"),
    Field::optional(
        "role",
        Shape::OneOf(&["source", "derived", "ephemeral"]),
        "`source` of truth (the default), `derived` from others (the default with derived_from), or `ephemeral`: \
         restored only when it is asked for by name",
    ),
    Field::optional(
        "importance",
        IMPORTANCE,
        "`required` (the default), or `best-effort`: its failure never stops the components after it",
    ),
    Field::optional(
        "references",
        Shape::TextList,
        "Components that this one refers to: captured after it, restored before it",
    ),
    Field::optional("derived_from", Shape::TextList, "Components that this one is made from: restored before it"),
    Field::optional("resync", Shape::ArgvList, "Commands that bring it up to date after it was restored"),
    Field::optional("rebuild", Shape::ArgvList, "Commands that make it anew out of what it is derived from"),
    Field::optional("enabled", Shape::Any, "false, or { command = [...] } that exits 0 where the component exists"),
    Field::optional(
        "when_missing",
        Shape::OneOf(&["skip", "fail"]),
        "What it means that the command of `enabled` failed: skip the component, or count it as failed (the default)",
    ),
    TIMEOUT,
    Field::optional("chunker", Shape::OneOf(CHUNKERS), "Profile of the cut points; keep it once there are snapshots"),
    Field::optional(
        "reflate",
        Shape::OneOf(REFLATE),
        "Whether gzip'd data is stored as its plain bytes, which change little from night to night: `auto` (the default) where it is \
         likely to pay, `always`, or `never`. It comes back bit for bit in any case",
    ),
    Field::optional("restore", Shape::Table(&[EXISTING]), "How it is restored"),
];

/// The table form of `enabled`.
pub(super) const ENABLED: &[Field] =
    &[Field::required("command", Shape::Argv, "A command that exits 0 where the component exists")];

/// What snapshots can be grouped by.
pub(super) const GROUP_WORDS: [&str; 4] = crate::archive::retention::group::GroupBy::WORDS;

const RETENTION: &[Field] = &[
    Field::required("keep", Shape::Table(KEEP), "How many snapshots to keep, the newest of each period; -1 are all"),
    Field::optional("keep_tags", Shape::TextList, "Snapshots with one of these tags are kept forever"),
    Field::optional(
        "only_complete",
        Shape::Boolean,
        "Whether only complete snapshots count, so that a partial one never displaces one; true if not given",
    ),
    Field::optional(
        "group_by",
        Shape::TextList,
        "Among which snapshots the rules choose: those equal in \"platform\", \"host\", \"components\" (the default) or \"tags\"",
    ),
];

/// `[retention] keep`.
pub(super) const KEEP: &[Field] = &[
    Field::optional("last", Shape::Integer, "The newest ones"),
    Field::optional("minutely", Shape::Integer, "One for each of so many minutes"),
    Field::optional("hourly", Shape::Integer, "One for each of so many hours"),
    Field::optional("daily", Shape::Integer, "One for each of so many days"),
    Field::optional("weekly", Shape::Integer, "One for each of so many weeks"),
    Field::optional("monthly", Shape::Integer, "One for each of so many months"),
    Field::optional("quarter_yearly", Shape::Integer, "One for each of so many quarters"),
    Field::optional("half_yearly", Shape::Integer, "One for each of so many half-years"),
    Field::optional("yearly", Shape::Integer, "One for each of so many years"),
    Field::optional("within", Shape::Span, "All that are younger than this, counted from the newest"),
    Field::optional("within_minutely", Shape::Span, "One for each minute so far back from the newest"),
    Field::optional("within_hourly", Shape::Span, "One for each hour"),
    Field::optional("within_daily", Shape::Span, "One for each day"),
    Field::optional("within_weekly", Shape::Span, "One for each week"),
    Field::optional("within_monthly", Shape::Span, "One for each month"),
    Field::optional("within_quarter_yearly", Shape::Span, "One for each quarter"),
    Field::optional("within_half_yearly", Shape::Span, "One for each half-year"),
    Field::optional("within_yearly", Shape::Span, "One for each year"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunker::PROFILES;

    #[test]
    fn every_chunker_profile_can_be_asked_for() {
        assert_eq!(PROFILES.map(|profile| profile.name), CHUNKERS);
    }
}
