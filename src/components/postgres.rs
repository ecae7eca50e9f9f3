//! Kind `postgres`: every database of a server as plain SQL, and the roles that own them.
//!
//! Plain, uncompressed SQL with a restrict key that is the same every night, because an idle database must give the same
//! bytes twice and a changed one nearly the same. What makes a dump count: `pg_dump` exited 0, the stream ends with
//! its own completeness marker and key, and the numbers of rows were counted in the very snapshot that was dumped.
//!
//! A restore never touches a database that exists. It fills a new one, compares the numbers of rows, and only then lets
//! it take the name, in one transaction with the old one giving it up.

mod capture;
mod catalog;
mod client;
mod connect;
mod globals;
mod restore;
mod rows;
mod session;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use self::connect::{Access, CONNECT_FIELDS, Connect};
use super::process::Limits;
use super::{
    CaptureEnvironment, Captured, Component, EXISTING, RestoreEnvironment, RestoreStep, Restored, STALL_TIMEOUT,
    TIMEOUT,
};
use crate::archive::{ArchivePath, CaptureSink};
use crate::error::{Error, ErrorKind, Result};
use crate::settings::{Field, Settings, Shape};

/// How long a dump waits for a table lock if the plan doesn't say.
const LOCK_WAIT: Duration = Duration::from_secs(60);
/// Roles, memberships and tablespaces, in the component.
const GLOBALS: &str = "globals.sql";
/// The numbers of rows of every table, in the component.
const ROW_COUNTS: &str = "row-counts.json";

/// Keys of the kind.
pub const FIELDS: &[Field] = &[
    Field::optional(
        "connect",
        Shape::Table(CONNECT_FIELDS),
        "How to reach the server; what is left out is libpq's default",
    ),
    Field::optional("databases", Shape::TextOrList, "\"all\" (the default) or names; templates only by name"),
    Field::optional("exclude", Shape::TextList, "Databases to leave out of \"all\""),
    Field::optional("bin", Shape::Text, "Directory of psql, pg_dump and pg_dumpall; found by itself if not set"),
    Field::optional("options", Shape::Table(OPTION_FIELDS), "Fine tuning"),
    Field::optional("restore", Shape::Table(RESTORE_FIELDS), "How to restore"),
    TIMEOUT,
    STALL_TIMEOUT,
];

const OPTION_FIELDS: &[Field] = &[
    Field::optional("lock_wait", Shape::Duration, "How long a dump waits for a table lock; 60s if not set"),
    Field::optional("row_counts", Shape::Boolean, "Whether the rows of every table are counted; true if not set"),
    Field::optional(
        "role_passwords",
        Shape::Boolean,
        "Whether password hashes of roles are dumped, which takes a superuser; true if not set",
    ),
];

const RESTORE_FIELDS: &[Field] = &[
    EXISTING,
    Field::optional("connect", Shape::Table(CONNECT_FIELDS), "Overrides of `connect` for the server to restore into"),
];

/// A component of kind `postgres`.
#[derive(Debug)]
pub struct Postgres {
    connect: Connect,
    restore_connect: Connect,
    /// Names; none means all.
    databases: Option<Vec<String>>,
    exclude: Vec<String>,
    bin: Option<PathBuf>,
    lock_wait: Duration,
    row_counts: bool,
    role_passwords: bool,
    limits: Limits,
}

/// Builds the component from settings that were checked against [`FIELDS`].
///
/// # Errors
/// `InvalidPlan` with the line of what is wrong.
pub fn build(settings: &Settings) -> Result<Box<dyn Component>> {
    let connect =
        settings.table("connect").map(|table| Connect::from_settings(&table)).transpose()?.unwrap_or_default();
    let restored = settings.table("restore").and_then(|table| table.table("connect"));
    let overrides = restored.map(|table| Connect::from_settings(&table)).transpose()?.unwrap_or_default();
    let options = settings.table("options");
    let flag = |key| options.as_ref().and_then(|table| table.boolean(key)).unwrap_or(true);
    Ok(Box::new(Postgres {
        restore_connect: connect.overridden_by(&overrides),
        connect,
        databases: databases(settings)?,
        exclude: settings.text_list("exclude"),
        bin: settings.path("bin"),
        lock_wait: options.as_ref().and_then(|table| table.duration("lock_wait")).unwrap_or(LOCK_WAIT),
        row_counts: flag("row_counts"),
        role_passwords: flag("role_passwords"),
        limits: Limits { timeout: settings.duration("timeout"), stall_timeout: settings.duration("stall_timeout") },
    }))
}

fn databases(settings: &Settings) -> Result<Option<Vec<String>>> {
    let names = settings.text_list("databases");
    if names.is_empty() && settings.has("databases") {
        return Err(settings.error("databases", "names no database"));
    }
    if names.is_empty() || names == ["all"] {
        return Ok(None);
    }
    if settings.has("exclude") {
        return Err(settings.error("exclude", "only makes sense with `databases = \"all\"`"));
    }
    Ok(Some(names))
}

impl Component for Postgres {
    fn discover(&self, env: &CaptureEnvironment<'_>) -> Result<BTreeMap<String, String>> {
        let access =
            Access::open(env.context, &self.connect, self.bin.as_deref(), env.variable, env.scratch, self.limits)?;
        Ok(versions(&access))
    }

    fn capture(&self, env: &CaptureEnvironment<'_>, sink: &mut dyn CaptureSink) -> Result<Captured> {
        let access =
            Access::open(env.context, &self.connect, self.bin.as_deref(), env.variable, env.scratch, self.limits)?;
        capture::capture(self, &access, env, sink)
    }

    fn plan_restore(&self, env: &RestoreEnvironment<'_>) -> Result<Vec<RestoreStep>> {
        if let Some(root) = &env.root {
            return super::extract::plan_files_below(env, root);
        }
        Ok(restore::Plan::decide(env, &self.restore_access(env)?)?.steps())
    }

    fn restore(&self, env: &RestoreEnvironment<'_>) -> Result<Restored> {
        if let Some(root) = &env.root {
            return super::extract::restore_files_below(env, root);
        }
        let access = self.restore_access(env)?;
        restore::Plan::decide(env, &access)?.execute(env, &access)
    }
}

impl Postgres {
    /// Without limits: a restore that is ended for being slow helps nobody.
    fn restore_access<'a>(&self, env: &RestoreEnvironment<'a>) -> Result<Access<'a>> {
        let bin = self.bin.as_deref();
        Access::open(env.context, &self.restore_connect, bin, env.variable, env.scratch, Limits::default())
    }
}

fn versions(access: &Access<'_>) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("server".to_owned(), access.server.version.clone()),
        ("client".to_owned(), access.client.version.clone()),
    ])
}

fn archive_path(path: &str) -> Result<ArchivePath> {
    ArchivePath::parse(path)
        .map_err(|cause| Error::damaged(format!("{path} is not a path inside the component")).cause(cause))
}

/// An error of this kind of component.
fn failure(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Component, message)
}
