//! Snapshots: the record of one published run (format-spec 09). Stored as sealed JSON, so that a later reader can
//! show what an earlier one did not know of; unknown fields are kept when a record is written again.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::entry::{self, Entry};
use super::reflated::Opened;
use crate::codec::Writer;
use crate::error::{Error, Result};
use crate::id::{SnapshotId, from_hex, to_hex};
use crate::observer::Problem;

/// `format` of the records that this program writes.
pub const SNAPSHOT_FORMAT: u32 = 1;

/// How a run, or one component of it, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Everything that was asked for is there, and proved.
    Complete,
    /// Of a component: there, but with problems (unreadable or changing files). Of a snapshot: a component failed or
    /// has problems.
    Partial,
    /// Of a component: nothing of it was committed.
    Failed,
    /// Of a component: not captured on purpose.
    Skipped,
}

/// One process that was run for a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRecord {
    /// The words, without secrets.
    pub argv: Vec<String>,
    /// Exit code; none after a signal.
    pub exit_code: Option<i32>,
    /// The end of what it wrote to standard error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stderr: String,
}

/// Counts of one component's capture.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ComponentStats {
    /// Content bytes read from the source.
    pub bytes_read: u64,
    /// Content bytes that were new to the repository.
    pub bytes_new: u64,
    /// Content bytes that the snapshot holds of the component.
    pub bytes_logical: u64,
    /// Files and streams.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Files that were taken over from the parent without reading them.
    pub files_unchanged: u64,
    /// What was compressed, and taken apart.
    #[serde(skip_serializing_if = "ReflateStats::is_empty")]
    pub reflated: ReflateStats,
}

/// What was done about compressed data in one component's capture.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReflateStats {
    /// Members that are stored as their plain bytes: gzip'd files, files in zip archives.
    pub members: u64,
    /// Bytes that they have compressed.
    pub bytes_deflated: u64,
    /// Plain bytes that are stored instead.
    pub bytes_plain: u64,
    /// Those of them that were new, with what stands between members.
    pub bytes_plain_new: u64,
    /// Bytes of corrections, by which they are compressed again.
    pub bytes_corrections: u64,
    /// Pieces that were known already.
    pub pieces_known: u64,
    /// Members that can't be made again, or not at a fair price, and are stored as they are.
    pub members_refused: u64,
}

impl std::ops::AddAssign<&ReflateStats> for ReflateStats {
    fn add_assign(&mut self, other: &Self) {
        self.members += other.members;
        self.bytes_deflated += other.bytes_deflated;
        self.bytes_plain += other.bytes_plain;
        self.bytes_plain_new += other.bytes_plain_new;
        self.bytes_corrections += other.bytes_corrections;
        self.pieces_known += other.pieces_known;
        self.members_refused += other.members_refused;
    }
}

impl ReflateStats {
    /// Whether there was nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Compressed bytes that were not stored because their plain bytes were there: at least so many, since of the new ones most are
    /// stored as deltas.
    #[must_use]
    pub fn bytes_saved(&self) -> u64 {
        let (deflated, plain) = (u128::from(self.bytes_deflated), u128::from(self.bytes_plain.max(1)));
        let new = deflated * u128::from(self.bytes_plain_new.min(self.bytes_plain)) / plain;
        let saved = deflated.saturating_sub(new).saturating_sub(u128::from(self.bytes_corrections));
        u64::try_from(saved).unwrap_or(u64::MAX)
    }

    pub(super) fn add(&mut self, opened: &Opened) {
        let Self { members, bytes_deflated, bytes_plain, bytes_corrections, pieces_known, members_refused, .. } = self;
        for (sum, counter) in [
            (members, &opened.members),
            (bytes_deflated, &opened.deflated_len),
            (bytes_plain, &opened.plain_len),
            (bytes_corrections, &opened.corrections_len),
            (pieces_known, &opened.known),
            (members_refused, &opened.in_vain),
        ] {
            *sum += counter.load(Ordering::Relaxed);
        }
    }
}

/// What a snapshot says of one component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentRecord {
    /// First part of every path of the component in the snapshot.
    pub name: String,
    /// Which adapter wrote it and restores it.
    pub kind: String,
    /// `source`, `derived`, `ephemeral` or `mixed`.
    pub role: String,
    /// Components that this one refers to: captured after it, restored before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
    /// Components it is rebuilt from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub derived_from: Vec<String>,
    /// How its capture ended.
    pub status: Status,
    /// Why it failed or was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When its capture began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Versions of server, client, extensions, schema.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, String>,
    /// What proved that the capture is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completeness: Option<String>,
    /// What only this kind knows: method, positions, settings that matter at restore.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub facts: Map<String, Value>,
    /// Processes that were run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<CommandRecord>,
    /// The first problems; `problem_count` has all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// How many problems there were.
    #[serde(default)]
    pub problem_count: u64,
    /// Chunker profile.
    pub chunker: String,
    /// Counts.
    pub stats: ComponentStats,
    /// The root entry, encoded, as hexadecimal digits. Absent if nothing was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl ComponentRecord {
    /// The root entry: a directory, or the one stream of an ad-hoc run.
    ///
    /// # Errors
    /// When nothing was committed, or the record is damaged.
    pub fn root_entry(&self) -> Result<Entry> {
        let damaged = || Error::damaged(format!("Component {} has a damaged root entry", self.name));
        let Some(root) = &self.root else {
            return Err(Error::new(
                crate::error::ErrorKind::NotFound,
                format!("Component {} was not committed in this snapshot", self.name),
            )
            .hint("Take an earlier snapshot: `compline snapshots --component NAME` shows which have it"));
        };
        let bytes = decode_hex(root).ok_or_else(damaged)?;
        entry::decode_one(&bytes).map_err(|cause| damaged().cause(cause))
    }

    /// Encodes `entry` for [`ComponentRecord::root`].
    #[must_use]
    pub fn encode_root(entry: &Entry) -> String {
        let mut w = Writer::new();
        entry.encode(&mut w);
        to_hex(&w.into_bytes())
    }
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits
        .chunks_exact(2)
        .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| from_hex::<1>(pair).ok()).map(|byte| byte[0]))
        .collect()
}

/// The record of one published run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`SNAPSHOT_FORMAT`].
    pub format: u32,
    /// Name of the platform; empty for ad-hoc runs.
    pub platform: String,
    /// Host that wrote it.
    pub host: String,
    /// User that wrote it.
    pub user: String,
    /// Nominal time of the run (`--time`), else when it began.
    pub time: Timestamp,
    /// When the last component was in.
    pub finished_at: Timestamp,
    /// Complete or partial.
    pub status: Status,
    /// Labels.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Whether it is kept until it is unpinned, whatever the rules of retention say.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// The id under which it was published first, if its record was written again since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<SnapshotId>,
    /// The snapshot it was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SnapshotId>,
    /// `compline` and its version.
    pub tool: String,
    /// What was captured, in order.
    pub components: Vec<ComponentRecord>,
    /// Groups of components in the order of restore.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restore_order: Vec<Vec<String>>,
    /// The text of the plan, so that a restore needs nothing else. Plans hold no secrets, only references to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Snapshot {
    /// The component called `name`.
    #[must_use]
    pub fn component(&self, name: &str) -> Option<&ComponentRecord> {
        self.components.iter().find(|component| component.name == name)
    }
}
