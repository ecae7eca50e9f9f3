//! Kind `sqlite`: databases in files, copied while their programs go on writing.
//!
//! Copying the file is not enough: what was committed last may be in the `-wal` file, and a copy that is taken between
//! two pages of one transaction is a broken database. SQLite's backup interface gives one consistent state, which is
//! checked, counted and then stored under the database's own file name.
//!
//! A restore never edits a database in place. The new one is written beside it, checked, and takes its name by rename;
//! only the write-ahead log of the old one must be gone before, because SQLite would replay it onto the new file.

mod copy;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Component as PathPart, Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, json};
use tempfile::NamedTempFile;

use self::copy::{Rows, State};
use super::{CaptureEnvironment, Captured, Component, EXISTING, Existing, RestoreEnvironment, RestoreStep, Restored};
use crate::archive::{ArchivePath, CaptureSink};
use crate::durable;
use crate::error::{Error, ErrorKind, Result};
use crate::settings::{Field, Settings, Shape};

/// Where the numbers of rows are stored in the component.
const ROW_COUNTS: &str = "row-counts.json";

/// Keys of the kind.
pub const FIELDS: &[Field] = &[
    Field::required("paths", Shape::TextOrList, "Database files"),
    Field::optional(
        "integrity_check",
        Shape::Boolean,
        "Whether a copy counts only if SQLite finds it sound; true if not set",
    ),
    Field::optional("restore", Shape::Table(&[EXISTING]), "How to restore"),
];

/// A component of kind `sqlite`.
#[derive(Debug)]
pub struct Sqlite {
    paths: Vec<PathBuf>,
    integrity_check: bool,
}

/// What the record says of one database.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Recorded {
    /// Where it was, and goes.
    path: PathBuf,
    /// Path in the component.
    entry: String,
    mode: u32,
    uid: u32,
    gid: u32,
    #[serde(flatten)]
    state: State,
}

/// Row counts of every database, by path in the component.
#[derive(Debug, Default, Serialize, Deserialize)]
struct RowCounts {
    databases: BTreeMap<String, Rows>,
}

/// Builds the component from settings that were checked against [`FIELDS`].
///
/// # Errors
/// `InvalidPlan` with the line of what is wrong.
pub fn build(settings: &Settings) -> Result<Box<dyn Component>> {
    let paths = settings.paths("paths");
    if paths.is_empty() {
        return Err(settings.error("paths", "names no database"));
    }
    let integrity_check = settings.boolean("integrity_check").unwrap_or(true);
    Ok(Box::new(Sqlite { paths, integrity_check }))
}

impl Component for Sqlite {
    fn discover(&self, _env: &CaptureEnvironment<'_>) -> Result<BTreeMap<String, String>> {
        for path in &self.paths {
            copy::open_source(path)?;
        }
        Ok(BTreeMap::from([("sqlite".to_owned(), rusqlite::version().to_owned())]))
    }

    fn capture(&self, env: &CaptureEnvironment<'_>, sink: &mut dyn CaptureSink) -> Result<Captured> {
        let mut counts = RowCounts::default();
        let mut databases = Vec::new();
        for (path, entry) in self.paths.iter().zip(entries(&self.paths)?) {
            env.context.go_on()?;
            let (recorded, rows) = self.capture_one(env, sink, path, &entry)?;
            counts.databases.insert(recorded.entry.clone(), rows);
            databases.push(json!(recorded));
        }
        let text = serde_json::to_vec_pretty(&counts).map_err(|cause| bug("row counts").cause(cause))?;
        sink.put_stream(&archive_path(ROW_COUNTS)?, &mut text.as_slice())?;
        let proof = if self.integrity_check { "consistent copy, integrity check ok" } else { "consistent copy" };
        Ok(Captured {
            versions: BTreeMap::from([("sqlite".to_owned(), rusqlite::version().to_owned())]),
            completeness: proof.to_owned(),
            facts: Map::from_iter([("databases".to_owned(), databases.into())]),
            commands: Vec::new(),
        })
    }

    fn plan_restore(&self, env: &RestoreEnvironment<'_>) -> Result<Vec<RestoreStep>> {
        recorded(env)?.iter().map(|database| plan_one(env, database)).collect()
    }

    fn restore(&self, env: &RestoreEnvironment<'_>) -> Result<Restored> {
        let databases = recorded(env)?;
        self.plan_restore(env)?;
        let counts = read_counts(env)?;
        let mut proofs = Vec::new();
        for database in &databases {
            env.context.go_on()?;
            let target = target(env, database);
            if env.existing == Existing::Skip && occupied(&target)? {
                continue;
            }
            proofs.push(restore_one(env, database, &target, counts.databases.get(&database.entry))?);
        }
        Ok(Restored { proofs })
    }
}

impl Sqlite {
    fn capture_one(
        &self,
        env: &CaptureEnvironment<'_>,
        sink: &mut dyn CaptureSink,
        path: &Path,
        entry: &ArchivePath,
    ) -> Result<(Recorded, Rows)> {
        env.context.observer.detail(&format!("copying {}", path.display()));
        let scratch = tempfile::Builder::new().prefix("sqlite-").tempfile_in(env.scratch);
        let scratch = scratch.map_err(|cause| Error::io("Can't create a scratch file for a database", cause))?;
        let state = copy::copy(env.context, path, scratch.path())?;
        if self.integrity_check {
            copy::check_integrity(scratch.path(), &path.display().to_string())?;
        }
        let rows = copy::count_rows(scratch.path())?;
        let metadata =
            fs::metadata(path).map_err(|cause| Error::io(format!("Can't look at {}", path.display()), cause))?;
        let file = File::open(scratch.path()).map_err(|cause| Error::io("Can't read the copy of a database", cause))?;
        sink.put_stream(entry, &mut BufReader::new(file))?;
        let recorded = Recorded {
            path: place_of(path)?,
            entry: String::from_utf8_lossy(&entry.to_bytes()).into_owned(),
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            state,
        };
        Ok((recorded, rows))
    }
}

/// The absolute path of a database, without `..`: where a restore puts it, on whatever machine and from whatever
/// directory.
fn place_of(path: &Path) -> Result<PathBuf> {
    let failed = |cause| Error::io(format!("Can't find out where {} is", path.display()), cause);
    let path = std::path::absolute(path).map_err(failed)?;
    if path.components().any(|part| part == PathPart::ParentDir) {
        path.canonicalize().map_err(failed)
    } else {
        Ok(path)
    }
}

/// Where each database goes in the component: its file name, or its whole path where two have the same name.
fn entries(paths: &[PathBuf]) -> Result<Vec<ArchivePath>> {
    let names: Vec<_> = paths.iter().map(|path| path.file_name().unwrap_or_default()).collect();
    let once = |name| names.iter().filter(|other| **other == name).count() == 1;
    let entries = paths.iter().zip(&names).map(|(path, name)| {
        let path = if once(*name) { Path::new(name) } else { path.as_path() };
        if path.to_str().is_none() {
            let message = format!("The name of database {} is not UTF-8", path.display());
            return Err(Error::new(ErrorKind::InvalidPlan, message).hint("Give it a link with a plain name"));
        }
        ArchivePath::from_path(path).map_err(|cause| Error::new(ErrorKind::InvalidPlan, cause.to_string()))
    });
    let entries: Vec<ArchivePath> = entries.collect::<Result<_>>()?;
    let mut seen = BTreeSet::from([archive_path(ROW_COUNTS)?]);
    match entries.iter().find(|entry| !seen.insert((*entry).clone())) {
        Some(twice) => Err(Error::new(ErrorKind::InvalidPlan, format!("Two databases would be stored as {twice}"))),
        None => Ok(entries),
    }
}

fn recorded(env: &RestoreEnvironment<'_>) -> Result<Vec<Recorded>> {
    let facts = env.record.facts.get("databases").cloned().unwrap_or_default();
    let damaged = || Error::damaged(format!("The record of component {} does not list its databases", env.name));
    let databases: Vec<Recorded> = serde_json::from_value(facts).map_err(|cause| damaged().cause(cause))?;
    let astray = |path: &Path| !path.is_absolute() || path.components().any(|part| part == PathPart::ParentDir);
    if databases.iter().any(|database| astray(&database.path)) {
        return Err(damaged());
    }
    Ok(databases)
}

fn read_counts(env: &RestoreEnvironment<'_>) -> Result<RowCounts> {
    let damaged = || Error::damaged(format!("{}/{ROW_COUNTS} can't be read", env.name));
    let mut text = Vec::new();
    let reader = env.source.open(&archive_path(ROW_COUNTS)?)?;
    reader.take(64 << 20).read_to_end(&mut text).map_err(|cause| damaged().cause(cause))?;
    serde_json::from_slice(&text).map_err(|cause| damaged().cause(cause))
}

fn target(env: &RestoreEnvironment<'_>, database: &Recorded) -> PathBuf {
    match &env.root {
        Some(root) => root.join(database.path.strip_prefix("/").unwrap_or(&database.path)),
        None => database.path.clone(),
    }
}

/// Whether there is something at `target` that would be lost.
fn occupied(target: &Path) -> Result<bool> {
    match fs::symlink_metadata(target) {
        Ok(metadata) => Ok(!metadata.is_file() || metadata.len() > 0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(Error::io(format!("Can't look at {}", target.display()), cause)),
    }
}

fn plan_one(env: &RestoreEnvironment<'_>, database: &Recorded) -> Result<RestoreStep> {
    let target = target(env, database);
    let shown = target.display();
    if !occupied(&target)? {
        return Ok(RestoreStep { what: format!("Create database {shown}"), destructive: false });
    }
    if !target.is_file() {
        let message = format!("{shown} is not a file, so no database can be restored to it");
        return Err(Error::new(ErrorKind::UnsafeTarget, message).hint("Move it away first"));
    }
    match env.existing {
        Existing::Skip => Ok(RestoreStep { what: format!("Leave database {shown} as it is"), destructive: false }),
        Existing::Update | Existing::Replace => {
            Ok(RestoreStep { what: format!("Replace database {shown}"), destructive: true })
        }
        Existing::Fail => {
            let hint = "Move it away, or choose what happens to it: `--existing replace` or `skip`, or `existing` in the \
                        component's restore table of the plan";
            Err(Error::new(ErrorKind::UnsafeTarget, format!("Database {shown} exists already")).hint(hint))
        }
    }
}

fn restore_one(
    env: &RestoreEnvironment<'_>,
    database: &Recorded,
    target: &Path,
    rows: Option<&Rows>,
) -> Result<String> {
    let shown = target.display().to_string();
    let directory = durable::parent(target);
    let failed = |what: &str, cause| Error::io(format!("Can't {what} {shown}"), cause);
    fs::create_dir_all(directory).map_err(|cause| failed("create the directory of", cause))?;
    let temp = tempfile::Builder::new().prefix(durable::TEMP_PREFIX).tempfile_in(directory);
    let mut temp = temp.map_err(|cause| failed("write beside", cause))?;
    let mut reader = env.source.open(&archive_path(&database.entry)?)?;
    copy::copy_stream(env.context, &mut reader, temp.as_file_mut(), &shown)?;
    copy::check_integrity(temp.path(), &shown)?;
    let found = copy::count_rows(temp.path())?;
    if let Some(difference) = rows.and_then(|rows| copy::difference(rows, &found)) {
        return Err(Error::damaged(format!("Database {shown} is not what was captured: {difference}")));
    }
    settle_owner(&temp, database, target)?;
    temp.as_file().sync_all().map_err(|cause| failed("make durable", cause))?;
    if occupied(target)? {
        copy::retire(target)?;
    }
    copy::remove_logs(target)?;
    temp.persist(target).map_err(|error| failed("give its name to", error.error))?;
    durable::sync_directory(directory).map_err(|cause| failed("make durable", cause))?;
    Ok(format!("{shown} is sound; row counts of {} tables are as recorded", found.len()))
}

/// Mode and owner of what was there, else those recorded. The owner can only be given by root.
fn settle_owner(temp: &NamedTempFile, database: &Recorded, target: &Path) -> Result<()> {
    let (mode, uid, gid) = match fs::metadata(target) {
        Ok(old) => (old.mode() & 0o7777, old.uid(), old.gid()),
        Err(_) => (database.mode & 0o7777, database.uid, database.gid),
    };
    let failed = |cause| Error::io(format!("Can't set owner and mode of {}", target.display()), cause);
    let own = temp.as_file().metadata().map_err(failed)?;
    if own.uid() == 0 && (own.uid(), own.gid()) != (uid, gid) {
        chown(temp.path(), Some(uid), Some(gid)).map_err(failed)?;
    }
    temp.as_file().set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)
}

fn archive_path(path: &str) -> Result<ArchivePath> {
    ArchivePath::parse(path).map_err(|cause| bug("path").cause(cause))
}

fn bug(what: &str) -> Error {
    Error::new(ErrorKind::Bug, format!("Kind sqlite made a bad {what}"))
}
