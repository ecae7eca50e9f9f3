//! Components: one named, independently restorable unit of state outside the repository, each kind in a file of its
//! own. A kind knows how to discover versions, capture, prove completeness, restore and verify. Components know no chunks.

pub mod command;
mod extract;
pub mod files;
mod none;
pub mod postgres;
pub mod process;
pub mod sqlite;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::archive::snapshot::CommandRecord;
use crate::archive::{CaptureSink, CaptureSource, ComponentRecord};
use crate::error::Result;
use crate::observer::Context;
use crate::settings::{Field, Settings, Shape};

/// What the world gives to a capture.
pub struct CaptureEnvironment<'a> {
    /// Clock, observer, wish to stop.
    pub context: Context<'a>,
    /// Name of the component in the plan.
    pub name: &'a str,
    /// 32 secret bytes that belong to the repository and to `purpose`; the same every night.
    pub secret: &'a dyn Fn(&str) -> [u8; 32],
    /// Reads a variable of compline's own environment, for secrets by reference and for finding programs.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// A private directory for scratch files; removed after the run.
    pub scratch: &'a Path,
}

/// What a capture tells of itself. Returned only when every process exited 0 and the completeness proof passed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Captured {
    /// Versions of server, client, extensions, schema.
    pub versions: BTreeMap<String, String>,
    /// What proved that the capture is whole, in a few words.
    pub completeness: String,
    /// What only this kind knows.
    pub facts: Map<String, Value>,
    /// Processes that were run.
    pub commands: Vec<CommandRecord>,
}

/// What to do with state that is in the way of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Existing {
    /// Refuse: exit code 7.
    #[default]
    Fail,
    /// Leave what exists, restore the rest.
    Skip,
    /// Overwrite what differs, keep what the snapshot lacks.
    Update,
    /// Remove what exists, then restore.
    Replace,
}

/// What the world gives to a restore.
pub struct RestoreEnvironment<'a> {
    /// Clock, observer, wish to stop.
    pub context: Context<'a>,
    /// Name of the component in the plan.
    pub name: &'a str,
    /// What the snapshot says of the component.
    pub record: &'a ComponentRecord,
    /// What the snapshot holds of it.
    pub source: &'a dyn CaptureSource,
    /// What to do with state that is in the way, from the plan or the command line.
    pub existing: Existing,
    /// Reason for ignoring the version guard, if the operator gave one.
    pub force_version: Option<&'a str>,
    /// Restore files below this directory instead of to their own places.
    pub root: Option<PathBuf>,
    /// Reads a variable of compline's own environment, for secrets by reference and for finding programs.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Places that must survive whatever the restore replaces: the repository it reads from, the cache.
    pub keep: &'a [PathBuf],
    /// A private directory for scratch files; removed after the run.
    pub scratch: &'a Path,
}

/// One thing that a restore is going to do, for `--plan-only` and for the question before it begins.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RestoreStep {
    /// A sentence: "Create database app".
    pub what: String,
    /// Whether it removes or overwrites something that exists.
    pub destructive: bool,
}

/// What a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Restored {
    /// Sentences about what was proved: "row counts of 12 tables are as recorded".
    pub proofs: Vec<String>,
}

/// One kind of outside state, configured for one component.
pub trait Component: Send + Sync {
    /// Asks the source for versions and reachability, without capturing: for `doctor` and `--dry-run`.
    fn discover(&self, env: &CaptureEnvironment<'_>) -> Result<BTreeMap<String, String>>;

    /// Puts the present state into `sink`. `Ok` promises that it is whole: every process in every chain exited 0, the
    /// completeness marker was seen. Problems that don't spoil the whole go to the observer.
    fn capture(&self, env: &CaptureEnvironment<'_>, sink: &mut dyn CaptureSink) -> Result<Captured>;

    /// Decides what a restore would do, without any effect. Fails with `UnsafeTarget` or `VersionGuard` where it must
    /// not be done.
    fn plan_restore(&self, env: &RestoreEnvironment<'_>) -> Result<Vec<RestoreStep>>;

    /// Restores, then verifies: does what [`Component::plan_restore`] said.
    fn restore(&self, env: &RestoreEnvironment<'_>) -> Result<Restored>;
}

/// A kind of component: its name in plans and snapshots, the keys it takes, and how it is built from them.
pub struct Kind {
    /// `kind` in the plan.
    pub name: &'static str,
    /// What it captures: a sentence without a full stop.
    pub doc: &'static str,
    /// Keys of its own, besides those of every component. A key that is named like a common one replaces it. Kinds that
    /// read from programs list [`STALL_TIMEOUT`]; what a kind lists is also taken from `[defaults]`.
    pub fields: &'static [Field],
    /// Builds the component from its table, which has been checked against `fields` and has the defaults filled in.
    pub build: fn(&Settings) -> Result<Box<dyn Component>>,
}

/// Every kind that this program knows.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "command",
        doc: "What a program prints, and another one takes back",
        fields: command::FIELDS,
        build: command::build,
    },
    Kind {
        name: "postgres",
        doc: "Databases and roles of a PostgreSQL server, as plain SQL",
        fields: postgres::FIELDS,
        build: postgres::build,
    },
    Kind {
        name: "sqlite",
        doc: "SQLite databases, copied consistently while they are in use",
        fields: sqlite::FIELDS,
        build: sqlite::build,
    },
    Kind { name: "files", doc: "File trees of this machine", fields: files::FIELDS, build: files::build },
    Kind {
        name: "none",
        doc: "Stores nothing; names what is rebuilt from other components, or may be lost",
        fields: none::FIELDS,
        build: none::build,
    },
];

/// The kind called `name`.
#[must_use]
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// For `[component.restore]`: kinds with a table `restore` of their own put this into it.
pub const EXISTING: Field = Field::optional(
    "existing",
    Shape::OneOf(&["fail", "skip", "update", "replace"]),
    "What to do with state that is in the way of a restore; `fail` (the default) refuses",
);

/// A key of every component, as any of them can have programs to run.
pub const TIMEOUT: Field = Field::optional(
    "timeout",
    Shape::Duration,
    "How long a program of the component may run before it is ended and the component has failed",
);

/// For kinds that read from programs.
pub const STALL_TIMEOUT: Field = Field::optional(
    "stall_timeout",
    Shape::Duration,
    "How long a program of the component may go without a byte in or out before it is ended",
);
