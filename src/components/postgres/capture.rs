//! Dumping: globals first, then one database after the other, each from one snapshot that its rows are counted in too.

use serde_json::{Map, Value, json};

use super::catalog::{self, Counts, Database, RowCounts, Table};
use super::connect::Access;
use super::rows::{self, RowCounter};
use super::session::Session;
use super::{GLOBALS, Postgres, ROW_COUNTS, archive_path, failure, versions};
use crate::archive::CaptureSink;
use crate::archive::snapshot::CommandRecord;
use crate::components::process::{Chain, Program, Tail};
use crate::components::{CaptureEnvironment, Captured};
use crate::error::{Error, Result};
use crate::id::to_hex;

/// How much of the end of a dump is looked at.
const TAIL_LEN: usize = 4096;
/// `pg_dump` takes at most 63 letters and digits.
const RESTRICT_KEY_LEN: usize = 60;
/// The end of a dump of one database, and of the globals.
const DATABASE_MARKER: &str = "\n-- PostgreSQL database dump complete\n";
const GLOBALS_MARKER: &str = "\n-- PostgreSQL database cluster dump complete\n";

const LOOK_BETWEEN: &str = "Nothing of it was committed; look at what stands between compline and the server";

/// One capture, as it goes on.
struct Dumping<'a, 'b> {
    plan: &'a Postgres,
    access: &'a Access<'b>,
    /// Secret, so that nobody can prepare data that breaks out of the mode it opens; the same every night.
    restrict_key: Option<String>,
    commands: Vec<CommandRecord>,
}

/// Captures the server that `access` leads to.
///
/// # Errors
/// When anything is not whole; the message names the database.
pub fn capture(
    plan: &Postgres,
    access: &Access<'_>,
    env: &CaptureEnvironment<'_>,
    sink: &mut dyn CaptureSink,
) -> Result<Captured> {
    let restrict_key = || to_hex(&(env.secret)("postgres restrict key"))[..RESTRICT_KEY_LEN].to_owned();
    let restrict_key = access.client.restrict.then(restrict_key);
    let mut dumping = Dumping { plan, access, restrict_key, commands: Vec::new() };
    let databases = choose(plan, access)?;
    dumping.globals(sink)?;
    let mut row_counts = RowCounts::default();
    let mut facts = Vec::new();
    for database in databases {
        env.context.go_on()?;
        env.context.observer.detail(&format!("{}: dumping database {}", env.name, database.name));
        let dumped = dumping.database(&database, sink);
        let (counts, mut fact) = dumped.map_err(|error| not_dumped(error, &database.name))?;
        if let Some(counts) = counts {
            fact.insert("tables".to_owned(), counts.table_count().into());
            fact.insert("rows".to_owned(), counts.row_count().into());
            row_counts.databases.insert(database.name, counts);
        }
        facts.push(Value::Object(fact));
    }
    if plan.row_counts {
        let text =
            serde_json::to_vec_pretty(&row_counts).map_err(|cause| failure("Row counts are no JSON").cause(cause))?;
        sink.put_stream(&archive_path(ROW_COUNTS)?, &mut text.as_slice())?;
    }
    Ok(Captured {
        versions: versions(access),
        completeness: completeness(plan, dumping.restrict_key.is_some()),
        facts: server_facts(access, &facts),
        commands: dumping.commands,
    })
}

/// The texts are for the hint alone.
fn not_dumped(error: Error, name: &str) -> Error {
    let chain = error.chain();
    let locked = ["lock timeout", "LOCK TABLE"].iter().any(|words| chain.contains(words));
    let error = error.context(format!("Can't dump database {name}"));
    if locked {
        return error.hint("A transaction holds a table for itself: find it in pg_locks, or raise `options.lock_wait`");
    }
    error
}

fn completeness(plan: &Postgres, restricted: bool) -> String {
    let key = if restricted { " and key" } else { "" };
    let rows = if plan.row_counts { ", row counts" } else { "" };
    format!("exit status, end marker{key}{rows}")
}

fn server_facts(access: &Access<'_>, databases: &[Value]) -> Map<String, Value> {
    let facts = json!({
        "method": "logical",
        "server_version_num": access.server.number,
        "system_identifier": access.server.system_identifier,
        "restrict": access.client.restrict,
        "databases": databases,
    });
    match facts {
        Value::Object(facts) => facts,
        _ => Map::new(),
    }
}

/// The databases to dump.
fn choose(plan: &Postgres, access: &Access<'_>) -> Result<Vec<Database>> {
    let mut session = Session::open(access, access.maintenance())?;
    let existing = catalog::databases(&mut session)?;
    session.close()?;
    let missing = |name: &&String| existing.iter().all(|one| one.name != **name);
    // A database that is to be left out and is gone already costs nothing.
    if let Some(name) = plan.databases.iter().flatten().find(missing) {
        let names = existing.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ");
        let message = format!("There is no database {name} at {access}");
        return Err(failure(message).hint(format!("Correct `databases`; there are: {names}")));
    }
    for name in plan.exclude.iter().filter(missing) {
        access.context.observer.detail(&format!("there is no database {name} to leave out"));
    }
    let wanted = |database: &Database| match &plan.databases {
        Some(names) => names.contains(&database.name),
        None => !database.is_template && !plan.exclude.contains(&database.name),
    };
    Ok(existing.into_iter().filter(wanted).collect())
}

impl Dumping<'_, '_> {
    fn globals(&mut self, sink: &mut dyn CaptureSink) -> Result<()> {
        let mut program = self.access.program("pg_dumpall", self.access.maintenance()).arg("--globals-only");
        program = program.arg(format!("--database={}", self.access.maintenance())).arg("--encoding=UTF8");
        if !self.plan.role_passwords {
            program = program.arg("--no-role-passwords");
        }
        self.dump(program, GLOBALS, GLOBALS_MARKER, &mut |_| {}, sink).map_err(|error| {
            let known = error.hint_text().is_some() || self.access.server.superuser || !self.plan.role_passwords;
            let error = error.context("Can't dump roles and tablespaces");
            if known {
                return error;
            }
            let user = &self.access.server.user;
            error.hint(format!("{user} is no superuser: dump as one, or set `options.role_passwords = false`"))
        })
    }

    fn database(
        &mut self,
        database: &Database,
        sink: &mut dyn CaptureSink,
    ) -> Result<(Option<Counts>, Map<String, Value>)> {
        let mut session = Session::open(self.access, &database.name)?;
        let (snapshot, tables) = self.open_snapshot(&mut session)?;
        let entry = catalog::entry(&database.name);
        let program = self.access.program("pg_dump", &database.name);
        let program = program
            .arg("--format=plain")
            .arg(format!("--lock-wait-timeout={}", self.plan.lock_wait.as_millis()))
            .arg(format!("--snapshot={snapshot}"));
        let mut counter = RowCounter::default();
        self.dump(program, &entry, DATABASE_MARKER, &mut |bytes| counter.push(bytes), sink)?;
        let counts = if self.plan.row_counts { Some(catalog::count(&mut session, &tables)?) } else { None };
        let dumped = counter.finish();
        let is_utf8 = database.encoding == "UTF8";
        if let Some(difference) = counts.as_ref().and_then(|counts| rows::difference(&counts.tables, &dumped, is_utf8))
        {
            let message = format!("pg_dump exited 0, but its output lacks rows: {difference}");
            return Err(failure(message).hint(LOOK_BETWEEN));
        }
        let extensions = catalog::extensions(&mut session)?;
        session.ask("COMMIT")?;
        session.close()?;
        let mut fact = match json!(database) {
            Value::Object(fact) => fact,
            _ => Map::new(),
        };
        fact.insert("entry".to_owned(), entry.into());
        fact.insert("extensions".to_owned(), json!(extensions));
        Ok((counts, fact))
    }

    /// Opens a transaction that `pg_dump` will share, and holds the tables that will be counted in it.
    fn open_snapshot(&self, session: &mut Session<'_>) -> Result<(String, Vec<Table>)> {
        session.ask(&format!("SET lock_timeout = {}", self.plan.lock_wait.as_millis()))?;
        for setting in ["statement_timeout = 0", "idle_in_transaction_session_timeout = 0", "row_security = off"] {
            session.ask(&format!("SET {setting}"))?;
        }
        session.ask("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")?;
        let tables = if self.plan.row_counts { catalog::tables(session)? } else { Vec::new() };
        catalog::lock(session, &tables)?;
        Ok((session.ask_one("SELECT pg_export_snapshot()")?, tables))
    }

    /// Runs a program of PostgreSQL's and stores what it prints, if its end is the end that such a dump has.
    fn dump(
        &mut self,
        program: Program,
        path: &str,
        marker: &str,
        watch: &mut (dyn FnMut(&[u8]) + Send),
        sink: &mut dyn CaptureSink,
    ) -> Result<()> {
        let program = match &self.restrict_key {
            Some(key) => program.arg_unrecorded("--restrict-key=", key),
            None => program,
        };
        let name = program.name();
        let mut tail = Tail::new(TAIL_LEN);
        let chain = Chain::single(program, self.access.limits);
        let path = archive_path(path)?;
        let (_, commands) = chain.store(self.access.context, sink, &path, &mut |bytes| {
            tail.push(bytes);
            watch(bytes);
        })?;
        if !ends_well(&tail, marker, self.restrict_key.as_deref()) {
            let message = format!("{name} exited 0, but its output is cut off after {} bytes", tail.stream_len());
            return Err(failure(message).hint(LOOK_BETWEEN));
        }
        self.commands.extend(commands);
        Ok(())
    }
}

/// Whether a dump is whole: the marker near its end and, since data could quote the marker, the secret key in its last
/// line.
fn ends_well(tail: &Tail, marker: &str, restrict_key: Option<&str>) -> bool {
    let text = String::from_utf8_lossy(tail.bytes());
    let last = text.trim_end().lines().last().unwrap_or_default();
    let seen = text.contains(marker);
    match restrict_key {
        // The dump of the globals has the key before the marker.
        Some(key) if marker == GLOBALS_MARKER => {
            seen && text.contains(&format!("\\unrestrict {key}\n")) && last == "--"
        }
        Some(key) => seen && last == format!("\\unrestrict {key}"),
        None => seen && last == "--",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(text: &str, key: Option<&str>) -> bool {
        let mut tail = Tail::new(TAIL_LEN);
        tail.push(text.as_bytes());
        ends_well(&tail, DATABASE_MARKER, key)
    }

    #[test]
    fn a_dump_ends_with_its_marker_and_its_key() {
        let whole = "data\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abc\n\n";
        assert!(ends(whole, Some("abc")));
        assert!(!ends(whole, Some("abd")));
        for cut in 0..whole.len() - 2 {
            assert!(!ends(&whole[..cut], Some("abc")), "cut at {cut}");
        }
    }

    #[test]
    fn without_keys_the_marker_must_be_the_last_thing() {
        let whole = "data\n--\n-- PostgreSQL database dump complete\n--\n\n";
        assert!(ends(whole, None));
        assert!(!ends(&format!("{whole}more data\n"), None));
        assert!(!ends("data\n-- PostgreSQL database dump complete", None));
    }
}
