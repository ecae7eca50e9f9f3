//! Copying a live database, and proving that a copy is sound.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::observer::Context;

/// How long to wait for a lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait for the last users of a database that is to be replaced.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pages that are copied between two looks at the wish to stop.
const STEP_PAGE_COUNT: i32 = 2048;
/// How often a copy of a database without write-ahead log begins anew because somebody wrote, before writers are held
/// off until it is done.
const RESTARTS_MAX: u32 = 3;
/// How many findings of an integrity check a message quotes.
const FINDINGS_SHOWN: usize = 3;

/// Number of rows by table.
pub type Rows = BTreeMap<String, u64>;

/// What a database says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The application's version of its schema.
    pub user_version: i64,
    /// SQLite's count of schema changes.
    pub schema_version: i64,
    /// Which application's file it is.
    pub application_id: i64,
    /// `wal`, `delete` and so on.
    pub journal_mode: String,
    /// Bytes of a page.
    pub page_size: i64,
}

/// Opens a database that must exist and be one.
pub fn open_source(path: &Path) -> Result<Connection> {
    let shown = path.display();
    let metadata = fs::metadata(path).map_err(|cause| {
        let hint = "Correct `paths` in the plan; SQLite itself would have made an empty database";
        Error::io(format!("Can't open database {shown}"), cause).hint(hint)
    })?;
    if !metadata.is_file() || metadata.len() == 0 {
        let what = if metadata.is_file() { "is empty" } else { "is not a file" };
        return Err(Error::new(ErrorKind::Component, format!("{shown} {what}, so it is no SQLite database"))
            .hint("Correct `paths` in the plan"));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|cause| failed(path, "open", cause))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|cause| failed(path, "open", cause))?;
    // The first thing that reads the file: says whether it is a database at all.
    number(&connection, "schema_version").map_err(|cause| failed(path, "read", cause))?;
    Ok(connection)
}

/// Copies the database at `path` into the empty file `copy`, as it is at one moment.
pub fn copy(context: Context<'_>, path: &Path, copy: &Path) -> Result<State> {
    let source = open_source(path)?;
    let broken = |cause| failed(path, "copy", cause);
    let mut target = Connection::open(copy).map_err(broken)?;
    let state = state(&source).map_err(broken)?;
    // With a write-ahead log an open read transaction hinders nobody and holds the moment.
    let pinned = state.journal_mode == "wal";
    if pinned {
        source.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").map_err(broken)?;
    }
    run(context, path, &source, &mut target, pinned)?;
    target.close().map_err(|(_, cause)| broken(cause))?;
    Ok(state)
}

fn run(context: Context<'_>, path: &Path, source: &Connection, target: &mut Connection, pinned: bool) -> Result<()> {
    let broken = |cause| failed(path, "copy", cause);
    let backup = Backup::new(source, target).map_err(broken)?;
    let (mut restarts, mut remaining) = (0, i32::MAX);
    loop {
        context.go_on()?;
        let patient = pinned || restarts < RESTARTS_MAX;
        match backup.step(if patient { STEP_PAGE_COUNT } else { -1 }).map_err(broken)? {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            _ => return Err(busy(path)),
        }
        let progress = backup.progress();
        restarts += u32::from(progress.remaining > remaining);
        remaining = progress.remaining;
    }
}

fn state(connection: &Connection) -> rusqlite::Result<State> {
    Ok(State {
        user_version: number(connection, "user_version")?,
        schema_version: number(connection, "schema_version")?,
        application_id: number(connection, "application_id")?,
        journal_mode: connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?,
        page_size: number(connection, "page_size")?,
    })
}

fn number(connection: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, pragma, |row| row.get(0))
}

/// Opens a copy that nobody else uses, so that not even a lock file appears beside it.
fn open_copy(copy: &Path) -> Result<Connection> {
    let mut uri = String::from("file:");
    for byte in copy.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'-' | b'_') {
            uri.push(char::from(*byte));
        } else {
            // Writing into a string can't fail.
            let _infallible = write!(uri, "%{byte:02X}");
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(uri, flags).map_err(|cause| failed(copy, "open", cause))
}

/// Lets SQLite look for damage in the copy of the database `name`.
pub fn check_integrity(copy: &Path, name: &str) -> Result<()> {
    let connection = open_copy(copy)?;
    let findings = || -> rusqlite::Result<Vec<String>> {
        let mut statement = connection.prepare("PRAGMA integrity_check")?;
        statement.query_map([], |row| row.get(0))?.collect()
    };
    let findings = findings().unwrap_or_else(|cause| vec![cause.to_string()]);
    if findings == ["ok"] {
        return Ok(());
    }
    let quoted = findings.iter().take(FINDINGS_SHOWN).map(|line| line.trim()).collect::<Vec<_>>().join("; ");
    Err(Error::new(ErrorKind::Component, format!("Database {name} is damaged"))
        .cause(quoted)
        .hint("Repair it (`sqlite3 OLD .recover | sqlite3 NEW`); `integrity_check = false` stores it as it is"))
}

/// Counts the rows of every table in a copy. Virtual tables need modules that are not here and are left out; what they
/// keep is in ordinary tables.
pub fn count_rows(copy: &Path) -> Result<Rows> {
    let connection = open_copy(copy)?;
    count(&connection).map_err(|cause| failed(copy, "count the rows of", cause))
}

fn count(connection: &Connection) -> rusqlite::Result<Rows> {
    let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
                  AND sql NOT LIKE 'CREATE VIRTUAL%'";
    let mut statement = connection.prepare(tables)?;
    let names = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    let count_one = |name: String| {
        let query = format!("SELECT count(*) FROM \"{}\"", name.replace('"', "\"\""));
        let rows: i64 = connection.query_row(&query, [], |row| row.get(0))?;
        Ok((name, rows.unsigned_abs()))
    };
    names.into_iter().map(count_one).collect()
}

/// The first difference between recorded and found row counts.
pub fn difference(recorded: &Rows, found: &Rows) -> Option<String> {
    let other = recorded.iter().find(|(table, rows)| found.get(*table) != Some(rows));
    if let Some((table, rows)) = other {
        let found = found.get(table).map_or("none".to_owned(), ToString::to_string);
        return Some(format!("table {table} had {rows} rows and now has {found}"));
    }
    found.keys().find(|table| !recorded.contains_key(*table)).map(|table| format!("table {table} was not recorded"))
}

/// Makes sure that nobody uses the old database: folds its write-ahead log in, which no other user allows. A damaged
/// one has no users that matter.
pub fn retire(path: &Path) -> Result<()> {
    let fold = || -> rusqlite::Result<()> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.busy_timeout(RETIRE_TIMEOUT)?;
        connection.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get::<_, String>(0))?;
        connection.execute_batch("BEGIN EXCLUSIVE; COMMIT")
    };
    if let Err(cause) = fold()
        && matches!(cause.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
    {
        return Err(Error::new(ErrorKind::UnsafeTarget, format!("Database {} is in use", path.display()))
            .cause(cause)
            .hint("Stop the programs that use it and run the restore again; nothing was changed"));
    }
    Ok(())
}

/// Removes the logs beside a database, which SQLite would replay onto the next file of that name.
pub fn remove_logs(path: &Path) -> Result<()> {
    for suffix in ["-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match fs::remove_file(PathBuf::from(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(format!("Can't remove {}{suffix}", path.display()), error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Copies a stored stream into `file`; `name` is for messages.
pub fn copy_stream(context: Context<'_>, reader: &mut dyn Read, file: &mut fs::File, name: &str) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        context.go_on()?;
        let len = reader
            .read(&mut buffer)
            .map_err(|cause| Error::io(format!("Can't read what is stored of {name}"), cause))?;
        if len == 0 {
            return Ok(());
        }
        file.write_all(&buffer[..len]).map_err(|cause| Error::io(format!("Can't write {name}"), cause))?;
    }
}

fn busy(path: &Path) -> Error {
    let message = format!("Database {} was locked for longer than {} s", path.display(), BUSY_TIMEOUT.as_secs());
    Error::new(ErrorKind::Component, message).hint("Find the program that holds a write transaction open")
}

fn failed(path: &Path, what: &str, cause: rusqlite::Error) -> Error {
    if cause.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) {
        return busy(path);
    }
    let hint = match cause.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => "The file is not SQLite's, is encrypted, or its first page is damaged",
        Some(ErrorCode::CannotOpen) => "Reading a database in WAL mode needs write permission in its directory",
        _ => "Look at the file with `sqlite3 FILE 'PRAGMA integrity_check'`",
    };
    Error::new(ErrorKind::Component, format!("Can't {what} database {}", path.display())).cause(cause).hint(hint)
}
