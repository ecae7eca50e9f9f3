//! Restoring: decide what to do with every role and database, then do that.
//!
//! For each database, in this order, so that a crash at any line leaves the old database or the new one, whole:
//!
//! ```text
//! create under a temporary name     crash: a database that nobody uses; the next restore drops it
//! fill, ANALYZE, compare the rows   crash: the same
//! old -> set aside, new -> name     one transaction
//! drop the old one                  crash: it is left under its other name; the next restore drops it
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::Deserialize;

use super::catalog::{self, Database, RowCounts, identifier, literal};
use super::connect::Access;
use super::globals::{self, Decided, Present};
use super::session::{self, Session};
use super::{GLOBALS, ROW_COUNTS, archive_path, failure};
use crate::components::process::{Chain, Input, Limits};
use crate::components::{Existing, RestoreEnvironment, RestoreStep, Restored};
use crate::error::{Error, ErrorKind, Result};
use crate::observer::Context;

/// Longest stored script of roles, and list of row counts, that is read.
const TEXT_LEN_MAX: u64 = 256 << 20;
/// How often a name is taken from sessions that keep coming back.
const SWAP_TRIES: u32 = 5;
/// How long tidying up after a failure may take.
const TIDY_LIMITS: Limits = Limits { timeout: Some(Duration::from_secs(60)), stall_timeout: None };

/// What the record says.
#[derive(Debug, Deserialize)]
struct Recorded {
    server_version_num: u32,
    #[serde(default)]
    restrict: bool,
    databases: Vec<RecordedDatabase>,
}

#[derive(Debug, Deserialize)]
struct RecordedDatabase {
    entry: String,
    #[serde(flatten)]
    database: Database,
}

/// What happens to one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Create,
    /// There is one of that name with nothing in it.
    ReplaceEmpty,
    Replace,
    Skip,
}

#[derive(Debug)]
struct Step {
    recorded: RecordedDatabase,
    action: Action,
}

/// What a restore will do.
#[derive(Debug)]
pub struct Plan {
    globals: Decided,
    databases: Vec<Step>,
    counts: RowCounts,
}

impl Plan {
    /// Decides, without any effect.
    ///
    /// # Errors
    /// `VersionGuard` when the server is older than the one that was dumped, `UnsafeTarget` when databases with something
    /// in them are in the way.
    pub fn decide(env: &RestoreEnvironment<'_>, access: &Access<'_>) -> Result<Self> {
        let recorded = recorded(env)?;
        guard_version(env, access, &recorded)?;
        let statements = globals::parse(&read_text(env, GLOBALS)?)?;
        let counts = counts(env)?;
        let mut session = Session::open(access, access.maintenance())?;
        let present = present(&mut session, access)?;
        let existing = all_databases(&mut session)?;
        session.close()?;
        let alter = matches!(env.existing, Existing::Update | Existing::Replace);
        let globals = globals::decide(&statements, &present, alter);
        let step = |recorded: RecordedDatabase| -> Result<Step> {
            Ok(Step { action: action(env, access, &existing, &recorded.database.name)?, recorded })
        };
        let databases: Vec<Step> = recorded.databases.into_iter().map(step).collect::<Result<_>>()?;
        if env.existing == Existing::Fail {
            refuse(access, &databases)?;
        }
        Ok(Self { globals, databases, counts })
    }

    /// For people.
    pub fn steps(&self) -> Vec<RestoreStep> {
        let step = |what: String, destructive| RestoreStep { what, destructive };
        let listed = |names: &BTreeSet<String>| names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let mut steps = Vec::new();
        let Decided { created, altered, kept, tablespaces, script: _ } = &self.globals;
        if !created.is_empty() {
            steps.push(step(format!("Create roles {}", created.join(", ")), false));
        }
        if !altered.is_empty() {
            steps.push(step(format!("Give roles {} their recorded passwords and attributes", listed(altered)), true));
        }
        if !kept.is_empty() {
            steps.push(step(format!("Leave roles {} as they are", listed(kept)), false));
        }
        if !tablespaces.is_empty() {
            steps.push(step(format!("Create tablespaces {}", tablespaces.join(", ")), false));
        }
        steps.extend(self.databases.iter().map(|one| {
            let name = &one.recorded.database.name;
            match one.action {
                Action::Create => step(format!("Create database {name}"), false),
                Action::ReplaceEmpty => step(format!("Create database {name} in place of an empty one"), false),
                Action::Replace => step(format!("Replace database {name}, after the new one is proved"), true),
                Action::Skip => step(format!("Leave database {name} as it is"), false),
            }
        }));
        steps
    }

    /// Does it.
    ///
    /// # Errors
    /// When anything fails; the databases before it are restored, the one that failed is as it was.
    pub fn execute(&self, env: &RestoreEnvironment<'_>, access: &Access<'_>) -> Result<Restored> {
        access.run(access.maintenance(), &self.globals.script).map_err(|error| {
            let hint = "Databases were not touched. For a tablespace, create its directory for the server's user first";
            error.context("Can't restore roles and tablespaces").hint(hint)
        })?;
        let mut proofs = Vec::new();
        for step in self.databases.iter().filter(|step| step.action != Action::Skip) {
            env.context.go_on()?;
            let name = &step.recorded.database.name;
            env.context.observer.detail(&format!("{}: restoring database {name}", env.name));
            let restored = Restoring::new(env, access, step, self.counts.databases.get(name)).run();
            proofs.push(restored.map_err(|error| error.context(format!("Can't restore database {name}")))?);
        }
        Ok(Restored { proofs })
    }
}

fn recorded(env: &RestoreEnvironment<'_>) -> Result<Recorded> {
    serde_json::from_value(env.record.facts.clone().into())
        .map_err(|cause| Error::damaged(format!("The record of component {} can't be read", env.name)).cause(cause))
}

fn guard_version(env: &RestoreEnvironment<'_>, access: &Access<'_>, recorded: &Recorded) -> Result<()> {
    let (dumped, server) = (recorded.server_version_num / 10_000, access.server.major());
    if let (true, Some(reason)) = (dumped > server, env.force_version) {
        env.context.observer.detail(&format!("{}: version {dumped} goes into {server}: {reason}", env.name));
    } else if dumped > server {
        let message = format!("A dump of PostgreSQL {dumped} must not go into version {server}");
        let hint = format!("Restore into version {dumped} or newer, or force it with a reason");
        return Err(Error::new(ErrorKind::VersionGuard, message).hint(hint));
    }
    if recorded.restrict && !access.client.restrict {
        let message = format!("psql {} doesn't know \\restrict, which the dump uses", access.client.version);
        let hint = "Update the Debian package postgresql-client, or set `bin` to a newer one";
        return Err(Error::new(ErrorKind::VersionGuard, message).hint(hint));
    }
    Ok(())
}

fn read_text(env: &RestoreEnvironment<'_>, path: &str) -> Result<String> {
    let mut text = String::new();
    let reader = env.source.open(&archive_path(path)?)?;
    let unreadable = |cause| Error::damaged(format!("Can't read {path} of component {}", env.name)).cause(cause);
    reader.take(TEXT_LEN_MAX).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

/// The recorded numbers of rows; none if the plan of that night didn't want any.
fn counts(env: &RestoreEnvironment<'_>) -> Result<RowCounts> {
    match env.source.entry(&archive_path(ROW_COUNTS)?) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(RowCounts::default()),
        other => other?,
    };
    serde_json::from_str(&read_text(env, ROW_COUNTS)?)
        .map_err(|cause| Error::damaged(format!("{ROW_COUNTS} of component {} can't be read", env.name)).cause(cause))
}

fn present(session: &mut Session<'_>, access: &Access<'_>) -> Result<Present> {
    let mut names = |statement: &str| -> Result<_> { session.ask(statement)?.iter().map(|row| text_of(row)).collect() };
    Ok(Present {
        roles: names("SELECT to_json(rolname::text)::text FROM pg_roles")?,
        tablespaces: names("SELECT to_json(spcname::text)::text FROM pg_tablespace")?,
        me: access.server.user.clone(),
    })
}

fn text_of(row: &str) -> Result<String> {
    serde_json::from_str(row).map_err(|cause| failure("The server's catalog can't be read").cause(cause))
}

/// Every database by name, and whether it takes connections.
fn all_databases(session: &mut Session<'_>) -> Result<BTreeMap<String, bool>> {
    let decode = |row: &String| {
        serde_json::from_str(row).map_err(|cause| failure("The server's catalog can't be read").cause(cause))
    };
    session.ask("SELECT json_build_array(datname, datallowconn)::text FROM pg_database")?.iter().map(decode).collect()
}

fn action(
    env: &RestoreEnvironment<'_>,
    access: &Access<'_>,
    existing: &BTreeMap<String, bool>,
    name: &str,
) -> Result<Action> {
    match existing.get(name) {
        None => Ok(Action::Create),
        // What can't be looked into may hold anything.
        Some(true) if catalog::object_count(access, name)? == 0 => Ok(Action::ReplaceEmpty),
        Some(_) if env.existing == Existing::Skip => Ok(Action::Skip),
        Some(_) => Ok(Action::Replace),
    }
}

fn refuse(access: &Access<'_>, databases: &[Step]) -> Result<()> {
    let names = databases.iter().filter(|step| step.action == Action::Replace);
    let names = names.map(|step| step.recorded.database.name.as_str()).collect::<Vec<_>>().join(", ");
    if names.is_empty() {
        return Ok(());
    }
    let hint = "Choose what happens to them: `existing = \"replace\"` or \"skip\" in the component's restore table, or \
                restore into another server with `restore.connect`";
    let message = format!("Databases that are not empty are in the way at {access}: {names}");
    Err(Error::new(ErrorKind::UnsafeTarget, message).hint(hint))
}

/// One database on its way.
struct Restoring<'a, 'b> {
    env: &'a RestoreEnvironment<'b>,
    access: &'a Access<'b>,
    step: &'a Step,
    counts: Option<&'a catalog::Counts>,
    /// Where it is filled.
    fresh: String,
    /// What the old one is called before it is dropped.
    aside: String,
    /// The database from which others are created, renamed and dropped.
    hub: String,
}

impl<'a, 'b> Restoring<'a, 'b> {
    fn new(
        env: &'a RestoreEnvironment<'b>,
        access: &'a Access<'b>,
        step: &'a Step,
        counts: Option<&'a catalog::Counts>,
    ) -> Self {
        let name = &step.recorded.database.name;
        // The same every time, so that the next restore finds what a crash left; two at once exclude each other.
        let hash = blake3::hash(name.as_bytes()).to_hex();
        let hub = match access.maintenance() {
            own if own != name => own,
            "template1" => "postgres",
            _ => "template1",
        };
        Self {
            env,
            access,
            step,
            counts,
            fresh: format!("compline_restoring_{}", &hash[..16]),
            aside: format!("compline_replaced_{}", &hash[..16]),
            hub: hub.to_owned(),
        }
    }

    fn run(&self) -> Result<String> {
        let (fresh, aside) = (identifier(&self.fresh), identifier(&self.aside));
        let leftovers = format!("DROP DATABASE IF EXISTS {fresh};\nDROP DATABASE IF EXISTS {aside};\n");
        self.access.run(&self.hub, &leftovers).map_err(|error| {
            error.context("Can't drop what an earlier restore left").hint("See that no other restore is running")
        })?;
        let create = self.step.recorded.database.create_statement(&self.fresh, self.access.server.major());
        self.access.run(&self.hub, &create).map_err(|error| {
            error.hint("If the locale is missing, generate it on the server's machine; see the record for its name")
        })?;
        let proof = self.fill().inspect_err(|_| self.drop_fresh())?;
        self.swap()?;
        Ok(proof)
    }

    /// Everything that can fail because of the dump.
    fn fill(&self) -> Result<String> {
        let RecordedDatabase { entry, database } = &self.step.recorded;
        let psql = session::psql(self.access.program("psql", &self.fresh)).arg("--output=/dev/null");
        let running = Chain::single(psql, self.access.limits).start(self.access.context, Input::Pipe)?;
        running.feed(&mut self.env.source.open(&archive_path(entry)?)?)?;
        self.access.run(&self.fresh, "ANALYZE;")?;
        let proof = self.compare()?;
        self.access.run(&self.hub, &database.attribute_statements(&self.fresh))?;
        Ok(proof)
    }

    fn compare(&self) -> Result<String> {
        let name = &self.step.recorded.database.name;
        let Some(counts) = self.counts else {
            return Ok(format!("database {name} was restored without errors; no row counts were recorded"));
        };
        let mut session = Session::open(self.access, &self.fresh)?;
        let tables = catalog::tables(&mut session)?;
        let found = catalog::count(&mut session, &tables)?;
        session.close()?;
        match counts.difference(&found) {
            Some(difference) => Err(failure(format!("The restored database is not what was captured: {difference}"))),
            None => Ok(format!(
                "database {name}: row counts of {} tables ({} rows) are as recorded",
                counts.table_count(),
                counts.row_count()
            )),
        }
    }

    /// Lets the new database take the name. It is kept if that fails: filling it again may take hours.
    fn swap(&self) -> Result<()> {
        let name = &self.step.recorded.database.name;
        let (target, fresh, aside) = (identifier(name), identifier(&self.fresh), identifier(&self.aside));
        if self.step.action == Action::Create {
            return self.access.run(&self.hub, &format!("ALTER DATABASE {fresh} RENAME TO {target};\n")).map(drop);
        }
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {} AND pid <> pg_backend_pid();\n",
            literal(name)
        );
        let rename = format!(
            "BEGIN;\nALTER DATABASE {target} RENAME TO {aside};\nALTER DATABASE {fresh} RENAME TO {target};\nCOMMIT;\n"
        );
        let mut swapped = self.access.run(&self.hub, &format!("{end}{rename}"));
        for _ in 1..SWAP_TRIES {
            swapped = swapped.or_else(|_| self.access.run(&self.hub, &format!("{end}{rename}")));
        }
        swapped.map_err(|error| {
            let hint = format!(
                "Stop the programs that use it, then rename {} to {name} by hand, or run the restore again",
                self.fresh
            );
            error.context(format!("The new database is complete as {}, but can't take its name", self.fresh)).hint(hint)
        })?;
        let drop_old = format!("ALTER DATABASE {aside} IS_TEMPLATE false;\nDROP DATABASE {aside};\n");
        self.access.run(&self.hub, &drop_old).map(drop).map_err(|error| {
            error
                .context(format!("The new database is in place, but the old one, now {}, can't be dropped", self.aside))
        })
    }

    /// Also after an interruption, when nothing else may be started any more.
    fn drop_fresh(&self) {
        static NEVER: AtomicBool = AtomicBool::new(false);
        let context = Context { interrupt: &NEVER, ..self.access.context };
        // The program that was killed may have left its backend at work.
        let force = if self.access.server.major() >= 13 { " WITH (FORCE)" } else { "" };
        let statement = format!("DROP DATABASE IF EXISTS {}{force};\n", identifier(&self.fresh));
        let psql = session::psql(self.access.program("psql", &self.hub));
        if let Err(error) = Chain::single(psql, TIDY_LIMITS).output(context, statement.as_bytes()) {
            context.observer.detail(&format!("database {} is left behind: {}", self.fresh, error.chain()));
        }
    }
}
