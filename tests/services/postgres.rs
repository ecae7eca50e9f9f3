//! Kind `postgres`, against real servers.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use compline::archive::{
    ArchivePath, ArchiveReader, ArchiveWriter, CaptureSink, CaptureSource, ComponentReader, Entry, FilesSource,
    RestoreOptions, RestoreSummary, Snapshot, Status, StreamSummary,
};
use compline::chunker::Profile;
use compline::clock::{Clock, SystemClock};
use compline::components::{Captured, Component, Existing};
use compline::error::{Error, ErrorKind, Result};
use compline::observer::{Context, Counter, Ledger};
use compline::storage::MemoryStorage;
use compline::store::{Repository, Unlock};

use crate::postgres_server::{PostgresServer, bin};
use crate::stage::{MemoryArchive, Night, Stage, Wish, record};

const ODD: &str = r#"
CREATE ROLE "Zoë ""z""" LOGIN PASSWORD 'pa''ss\word';
CREATE ROLE readers NOLOGIN;
GRANT readers TO "Zoë ""z""";
COMMENT ON ROLE readers IS E'two\nlines; CREATE ROLE nobody_made_me;';
ALTER ROLE readers SET search_path = public, "Odd Schema";
CREATE DATABASE "Ünï/code %" OWNER "Zoë ""z""" TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C';
COMMENT ON DATABASE app IS 'it''s the app';
ALTER DATABASE app SET work_mem = '8MB';
ALTER DATABASE app SET search_path = public, "Odd Schema";
ALTER ROLE readers IN DATABASE app SET statement_timeout = '1min';
ALTER DATABASE app CONNECTION LIMIT 50;
REVOKE CONNECT ON DATABASE app FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE app TO readers WITH GRANT OPTION;
\c app
CREATE SCHEMA "Odd Schema" AUTHORIZATION "Zoë ""z""";
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE "Odd Schema"."Tä ""ble" (
  id bigserial PRIMARY KEY, "näme" text COLLATE "C", raw bytea, m mood, n numeric(20,5), at timestamptz, days daterange,
  tags text[], doc jsonb, u uuid, ip inet, p positive, double_it int GENERATED ALWAYS AS (p * 2) STORED);
INSERT INTO "Odd Schema"."Tä ""ble" ("näme", raw, m, n, at, days, tags, doc, u, ip, p)
SELECT E'r\\ow\t' || i || E'\n\\.\n', decode(md5(i::text), 'hex'), (ARRAY['sad','glad'])[1 + i % 2]::mood, i / 7.0,
       '2026-01-01Z'::timestamptz + i * interval '1 hour', daterange('2026-01-01', '2026-01-02'), ARRAY['a,b', NULL, '"'],
       jsonb_build_object('i', i, 'ü', '\\restrict'), md5(i::text)::uuid, '::1', i
FROM generate_series(1, 500) i;
CREATE TABLE empty_one (x int);
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES;
CREATE UNLOGGED TABLE unlogged_one AS SELECT 1 AS x;
CREATE TABLE parted (k int, v text) PARTITION BY RANGE (k);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (100);
CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (100) TO (200);
INSERT INTO parted SELECT i, 'v' || i FROM generate_series(0, 199) i;
CREATE TABLE heir (y int) INHERITS (empty_one);
INSERT INTO heir VALUES (1, 2);
CREATE MATERIALIZED VIEW seen AS SELECT count(*) FROM parted;
CREATE FUNCTION trick() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'not at a restore'; END$$;
CREATE TRIGGER no_inserts BEFORE INSERT ON empty_one EXECUTE FUNCTION trick();
SELECT lo_from_bytea(4711, '\xdeadbeef');
SELECT lo_from_bytea(4712, decode(repeat('00ff', 100000), 'hex'));
GRANT SELECT ON ALL TABLES IN SCHEMA public TO readers;
\c "Ünï/code %"
CREATE TABLE latin (v text);
INSERT INTO latin VALUES ('grün');
CREATE TABLE "grün" AS SELECT 'ä' AS v;
"#;

/// A server with pgbench's data and everything odd.
fn populated() -> PostgresServer {
    let server = PostgresServer::start();
    server.sql("postgres", "CREATE DATABASE app");
    server.must("pgbench", &["-i", "-q", "-s", "1", "app"]);
    server.sql("postgres", ODD);
    server
}

fn component(stage: &Stage, server: &PostgresServer, more: &str) -> Box<dyn Component> {
    stage.component("postgres", &format!("{}{more}", server.connect()))
}

/// Everything that a restore must bring back, as text to compare: per database, role, table and large object.
fn contents(server: &PostgresServer) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let roles = "SELECT to_jsonb(r) - 'oid' FROM pg_authid r WHERE rolname !~ '^pg_' ORDER BY rolname";
    all.insert("roles".to_owned(), server.sql("postgres", roles));
    let members = "SELECT roleid::regrole, member::regrole, admin_option FROM pg_auth_members ORDER BY 1, 2";
    all.insert("members".to_owned(), server.sql("postgres", members));
    let settings = "SELECT d.datname, r.rolname, setconfig FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = setdatabase
                    LEFT JOIN pg_roles r ON r.oid = setrole ORDER BY 1, 2";
    all.insert("settings".to_owned(), server.sql("postgres", settings));
    for database in server.databases() {
        let about = "SELECT pg_get_userbyid(datdba), encoding, datcollate, datctype, datconnlimit, shobj_description(oid, 'pg_database'),
                            (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(datacl) a)
                     FROM pg_database WHERE datname = current_database()";
        all.insert(database.clone(), server.sql(&database, about));
        let tables = "SELECT c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
                      WHERE relkind IN ('r', 'm', 'p') AND nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1";
        for table in server.sql(&database, tables).lines() {
            let sum = format!(
                "SELECT count(*), md5(coalesce(string_agg(t::text, E'\\n' ORDER BY t::text), '')) FROM {table} t"
            );
            all.insert(format!("{database}: {table}"), server.sql(&database, &sum));
        }
        let objects = "SELECT oid, md5(lo_get(oid)) FROM pg_largeobject_metadata ORDER BY oid";
        all.insert(format!("{database}: large objects"), server.sql(&database, objects));
        let sequences = "SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2";
        all.insert(format!("{database}: sequences"), server.sql(&database, sequences));
    }
    all
}

#[test]
fn the_first_night_restores_into_a_fresh_server_and_the_second_over_it() {
    let (server, stage) = (populated(), Stage::new());
    let source = component(&stage, &server, "");
    let first_contents = contents(&server);
    let first = stage.capture(source.as_ref()).unwrap();
    assert_eq!(
        first.archive.paths(),
        ["db/app.sql", "db/postgres.sql", "db/Ünï%2Fcode %25.sql", "globals.sql", "row-counts.json"]
    );
    assert_eq!(first.captured.facts["databases"][0]["name"], "app");
    assert!(first.captured.versions["server"].starts_with(char::is_numeric));
    assert!(first.problems.is_empty(), "{:?}", first.problems);
    assert_eq!(first.captured.completeness, "exit status, end marker and key, row counts");

    server.must("pgbench", &["-t", "200", "-c", "2", "-n", "app"]);
    server.sql("app", "DELETE FROM parted WHERE k % 7 = 0; CREATE TABLE later AS SELECT 1; SELECT lo_unlink(4711);");
    server.sql("postgres", "ALTER ROLE readers CONNECTION LIMIT 3");
    // A dump holds no rows of materialized views; they are computed anew.
    server.sql("app", "REFRESH MATERIALIZED VIEW seen");
    let second_contents = contents(&server);
    let second = stage.capture(source.as_ref()).unwrap();
    assert_ne!(first_contents, second_contents);

    let fresh = PostgresServer::start();
    let target = component(&stage, &fresh, "");
    let steps = stage.plan(target.as_ref(), &first, &Wish::default()).unwrap();
    assert!(steps.iter().all(|step| !step.destructive), "{steps:?}");
    let restored = stage.restore(target.as_ref(), &first, &Wish::default()).unwrap();
    assert_eq!(restored.proofs.len(), 3, "{restored:?}");
    assert_eq!(contents(&fresh), first_contents);

    let refused = stage.restore(target.as_ref(), &second, &Wish::default()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::UnsafeTarget);
    assert_eq!(contents(&fresh), first_contents);
    let replace = Wish { existing: Existing::Replace, ..Wish::default() };
    assert!(stage.plan(target.as_ref(), &second, &replace).unwrap().iter().any(|step| step.destructive));
    stage.restore(target.as_ref(), &second, &replace).unwrap();
    assert_eq!(contents(&fresh), second_contents);
    assert_eq!(fresh.databases(), server.databases());
    stage.assert_swept();
}

#[test]
fn an_idle_server_gives_the_same_bytes_every_night_and_no_other_repository_shares_its_key() {
    let (server, mut stage) = (populated(), Stage::new());
    let source = component(&stage, &server, "");
    let first = stage.capture(source.as_ref()).unwrap();
    assert_eq!(first.archive, stage.capture(source.as_ref()).unwrap().archive);
    let key = |night: &Night| {
        let dump = String::from_utf8_lossy(night.archive.file("db/app.sql")).into_owned();
        dump.lines().find_map(|line| line.strip_prefix("\\restrict ").map(str::to_owned)).unwrap()
    };
    stage.repository = 8;
    let other = stage.capture(source.as_ref()).unwrap();
    assert_ne!(key(&first), key(&other));
    assert!(key(&first).len() >= 32 && key(&first).chars().all(|c| c.is_ascii_alphanumeric()));
    let told = format!("{:?}", first.captured);
    assert!(told.contains("--restrict-key=***") && !told.contains(&key(&first)), "the key is recorded");
}

#[test]
fn rows_are_counted_in_the_snapshot_that_is_dumped() {
    let (server, stage) = (PostgresServer::start(), Stage::new());
    server.sql("postgres", "CREATE DATABASE app");
    server.sql("app", "CREATE TABLE t AS SELECT generate_series(1, 100) x");
    let source = component(&stage, &server, "databases = [\"app\"]");
    // While the dump is read, rows come in.
    let night = with_sink(&stage, source.as_ref(), "db/app.sql", &|| {
        server.sql("app", "INSERT INTO t SELECT generate_series(1, 50)");
    })
    .unwrap();
    let counts: serde_json::Value = serde_json::from_slice(night.archive.file("row-counts.json")).unwrap();
    assert_eq!(counts["databases"]["app"]["tables"]["public"]["t"], 100);
    let fresh = PostgresServer::start();
    stage.restore(component(&stage, &fresh, "").as_ref(), &night, &Wish::default()).unwrap();
    assert_eq!(fresh.sql("app", "SELECT count(*) FROM t"), "100");
}

/// Captures into a sink that acts once it has seen the first bytes of `path`.
fn with_sink(stage: &Stage, component: &dyn Component, path: &str, act: &dyn Fn()) -> Result<Night> {
    struct Acting<'a> {
        archive: MemoryArchive,
        path: &'a str,
        act: &'a dyn Fn(),
    }
    impl CaptureSink for Acting<'_> {
        fn put_stream(&mut self, path: &ArchivePath, reader: &mut (dyn Read + Send)) -> Result<StreamSummary> {
            let mut first = [0; 1];
            let len = reader.read(&mut first).map_err(|cause| Error::io("Can't read", cause))?;
            if path.to_bytes() == self.path.as_bytes() {
                (self.act)();
            }
            self.archive.put_stream(path, &mut (&first[..len]).chain(reader))
        }
        fn put_files(&mut self, source: &FilesSource) -> Result<()> {
            self.archive.put_files(source)
        }
    }
    let mut sink = Acting { archive: MemoryArchive::default(), path, act };
    let (captured, problems) = stage.capture_into(component, &mut sink)?;
    Ok(Night { archive: sink.archive, captured, problems })
}

#[test]
fn a_dump_whose_connection_is_ended_half_way_is_not_committed() {
    let (server, stage) = (PostgresServer::start(), Stage::new());
    server.sql("postgres", "CREATE DATABASE app");
    server.sql(
        "app",
        "CREATE TABLE big AS SELECT i, repeat(md5(i::text), 20) AS filler FROM generate_series(1, 50000) i",
    );
    let source = component(&stage, &server, "databases = [\"app\"]");
    let error = with_sink(&stage, source.as_ref(), "db/app.sql", &|| {
        let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                     WHERE datname = 'app' AND state = 'active' AND pid <> pg_backend_pid()";
        assert_eq!(server.sql("postgres", ended), "1");
    })
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Component);
    let chain = error.chain();
    assert!(chain.contains("Can't dump database app: pg_dump failed with exit code 1"), "{chain}");
    // The server ends what it was told to end a little later.
    let left = || server.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE datname = 'app'");
    let is_ended = |_| left() == "0" || server.sql("postgres", "SELECT pg_sleep(0.1)") == "never";
    assert!((0..300).any(is_ended), "{} connections are left", left());
}

#[test]
fn a_dump_program_that_exits_0_with_a_cut_output_is_not_committed() {
    let (server, stage) = (PostgresServer::start(), Stage::new());
    server.sql("postgres", "CREATE DATABASE app");
    server.sql("app", "CREATE TABLE t AS SELECT generate_series(1, 1000) x");
    for (name, filter) in [
        ("without its end", "head -c -60"),
        ("cut in the middle", "head -c 900"),
        ("empty", "head -c 0"),
        ("with the marker in the data and no key", "sed '/unrestrict/d'"),
        ("with a hole", "sed /^500$/d"),
        ("without its rows", "sed '/^COPY/,/^.\\.$/d'"),
    ] {
        let wrapped = tempfile::tempdir().unwrap();
        for tool in ["psql", "pg_dumpall"] {
            symlink(bin().join(tool), wrapped.path().join(tool)).unwrap();
        }
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *--version*|*--help*) exec {0} \"$@\";; esac\n{0} \"$@\" | {filter}\nexit 0\n",
            bin().join("pg_dump").display()
        );
        write_program(&wrapped.path().join("pg_dump"), &script);
        let settings = format!("databases = [\"app\"]\nbin = {:?}", wrapped.path());
        let error = stage.capture(component(&stage, &server, &settings).as_ref()).unwrap_err();
        assert!(error.chain().contains("pg_dump exited 0, but its output"), "{name}: {}", error.chain());
    }
}

fn write_program(path: &Path, script: &str) {
    std::fs::write(path, script).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn passwords_come_by_reference_and_stay_out_of_sight() {
    let (server, mut stage) = (PostgresServer::start(), Stage::new());
    server.sql("postgres", r"CREATE ROLE backup SUPERUSER LOGIN PASSWORD 'a:b\c d'");
    stage.variables.insert("PG_PASSWORD".into(), r"a:b\c d".into());
    let source = stage.component("postgres", &server.connect_with_password("backup", "PG_PASSWORD"));
    let night = stage.capture(source.as_ref()).unwrap();
    assert!(!format!("{:?}", night.captured).contains(r"a:b"));
    stage.assert_swept();

    stage.variables.insert("PG_PASSWORD".into(), "wrong".into());
    let error = stage.capture(source.as_ref()).unwrap_err();
    assert!(error.chain().contains("password authentication failed for user \"backup\""), "{}", error.chain());
    assert!(error.hint_text().unwrap().contains("connect.password"), "{error:?}");
    stage.variables.clear();
    assert!(stage.capture(source.as_ref()).unwrap_err().chain().contains("PG_PASSWORD is not set"));
    stage.assert_swept();
}

#[test]
fn a_role_that_may_not_read_passwords_is_told_what_to_do() {
    let (server, mut stage) = (PostgresServer::start(), Stage::new());
    server.sql("postgres", "CREATE ROLE plain LOGIN PASSWORD 'x'");
    stage.variables.insert("PG_PASSWORD".into(), "x".into());
    let settings = server.connect_with_password("plain", "PG_PASSWORD");
    let error = stage.capture(stage.component("postgres", &settings).as_ref()).unwrap_err();
    assert!(error.hint_text().unwrap().contains("role_passwords = false"), "{error:?}");
    let modest = stage.component("postgres", &format!("{settings}options = {{ role_passwords = false }}"));
    assert!(stage.capture(modest.as_ref()).is_ok());
}

#[test]
fn a_missing_database_is_an_error_that_lists_those_there_are() {
    let (server, stage) = (PostgresServer::start(), Stage::new());
    let error = stage.capture(component(&stage, &server, "databases = [\"nope\"]").as_ref()).unwrap_err();
    assert!(error.to_string().contains("no database nope"), "{error}");
    assert!(error.hint_text().unwrap().contains("postgres"), "{error:?}");
    assert!(stage.capture(component(&stage, &server, "exclude = [\"nope\"]").as_ref()).is_ok());
}

#[test]
fn names_of_roles_survive_a_database_of_another_encoding() {
    let (server, stage) = (PostgresServer::start(), Stage::new());
    server.sql("postgres", "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'");
    server.sql("latin", "SET client_encoding TO 'UTF8'; CREATE ROLE \"Zoë\"");
    let settings = server.connect().replace("user =", "database = \"latin\", user =");
    let night = stage.capture(stage.component("postgres", &settings).as_ref()).unwrap();
    assert!(String::from_utf8_lossy(night.archive.file("globals.sql")).contains("CREATE ROLE \"Zoë\""));
    let fresh = PostgresServer::start();
    stage.restore(component(&stage, &fresh, "").as_ref(), &night, &Wish::default()).unwrap();
    assert_eq!(fresh.sql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname = 'Zoë'"), "1");
}

#[test]
fn a_server_that_is_down_is_named_with_its_place() {
    let (server, stage) = (PostgresServer::start(), Stage::new());
    let source = component(&stage, &server, "");
    server.stop();
    let error = stage.capture(source.as_ref()).unwrap_err();
    assert!(error.to_string().contains(&format!("{} port {}", server.socket().display(), server.port())), "{error}");
    assert!(error.hint_text().unwrap().contains("the server runs"), "{error:?}");
}

#[test]
fn a_table_that_stays_locked_fails_the_dump_after_the_time_that_was_set() {
    let (server, stage) = (PostgresServer::start(), Stage::new());
    server.sql("postgres", "CREATE TABLE t (x int)");
    let _held = server.hold("postgres", "BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE;");
    for options in ["lock_wait = \"200ms\"", "lock_wait = \"200ms\", row_counts = false"] {
        let settings = format!("options = {{ {options} }}");
        let error = stage.capture(component(&stage, &server, &settings).as_ref()).unwrap_err();
        assert!(error.hint_text().is_some_and(|hint| hint.contains("options.lock_wait")), "{error:?}");
    }
}

/// A night of a server with a database `app` of one table, and that server.
fn small_night(stage: &Stage) -> (PostgresServer, Night) {
    let server = PostgresServer::start();
    server.sql("postgres", "CREATE DATABASE app");
    server.sql("app", "CREATE TABLE t AS SELECT generate_series(1, 100) x");
    let night = stage.capture(component(stage, &server, "").as_ref()).unwrap();
    (server, night)
}

const REPLACE: Wish<'_> = Wish { existing: Existing::Replace, root: None, force_version: None, keep: &[] };

#[test]
fn a_restore_that_fails_leaves_the_existing_database_and_nothing_else() {
    let stage = Stage::new();
    let (server, night) = small_night(&stage);
    server.sql("app", "INSERT INTO t VALUES (101)");
    let broken = |path: &str, from: &str, to: &str| {
        let text = String::from_utf8(night.archive.file(path).to_vec()).unwrap();
        assert!(text.contains(from), "{text}");
        let mut archive = night.archive.clone();
        archive.files.insert(path.as_bytes().to_vec(), text.replace(from, to).into_bytes());
        Night { archive, captured: night.captured.clone(), problems: vec![] }
    };
    for (night, words) in [
        (broken("db/app.sql", "CREATE TABLE public.t", "CREATE TALBE public.t"), "syntax error"),
        (broken("db/app.sql", "\n100\n", "\n"), "had 100 rows and now has 99"),
        (broken("row-counts.json", "\"t\": 100", "\"u\": 100"), "does not exist"),
        (broken("globals.sql", "CREATE ROLE postgres;", "CREATE ROLE no_end"), "syntax error"),
    ] {
        let error = stage.restore(component(&stage, &server, "").as_ref(), &night, &REPLACE).unwrap_err();
        assert!(error.chain().contains(words), "{}", error.chain());
        assert_eq!(server.databases(), ["app", "postgres"]);
        assert_eq!(server.sql("app", "SELECT count(*) FROM t"), "101");
    }
}

/// A source that acts after the first bytes of `path` were read from it.
struct Disturbed<'a> {
    inner: &'a MemoryArchive,
    path: &'a str,
    act: &'a (dyn Fn() -> std::io::Result<()> + Sync),
}

impl CaptureSource for Disturbed<'_> {
    fn entry(&self, path: &ArchivePath) -> Result<Entry> {
        self.inner.entry(path)
    }
    fn list(&self, path: &ArchivePath) -> Result<Vec<Entry>> {
        self.inner.list(path)
    }
    fn open(&self, path: &ArchivePath) -> Result<Box<dyn Read + Send + '_>> {
        struct Then<'a>(&'a (dyn Fn() -> std::io::Result<()> + Sync));
        impl Read for Then<'_> {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                (self.0)().map(|()| 0)
            }
        }
        let inner = self.inner.open(path)?;
        if path.to_bytes() != self.path.as_bytes() {
            return Ok(inner);
        }
        Ok(Box::new(inner.take(1000).chain(Then(self.act)).chain(self.inner.open(path)?)))
    }
    fn restore_files(&self, path: &ArchivePath, to: &Path, options: &RestoreOptions) -> Result<RestoreSummary> {
        self.inner.restore_files(path, to, options)
    }
}

#[test]
fn a_restore_that_is_interrupted_or_meets_damage_half_way_leaves_nothing_behind() {
    let stage = Stage::new();
    let (server, night) = small_night(&stage);
    server.sql("app", "INSERT INTO t VALUES (101)");
    let interrupt = || {
        stage.interrupt.store(true, Ordering::Relaxed);
        Ok(())
    };
    let damage = || Err(std::io::Error::other(Error::damaged("Pack x is damaged")));
    let cases: [(&(dyn Fn() -> std::io::Result<()> + Sync), ErrorKind); 2] =
        [(&damage, ErrorKind::Damaged), (&interrupt, ErrorKind::Interrupted)];
    for (act, kind) in cases {
        let source = Disturbed { inner: &night.archive, path: "db/app.sql", act };
        let target = component(&stage, &server, "");
        let error = stage.restore_from(target.as_ref(), &night.captured, &source, &REPLACE).unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert_eq!(server.databases(), ["app", "postgres"]);
        assert_eq!(server.sql("app", "SELECT count(*) FROM t"), "101");
    }
}

/// One night into a real repository. Returns its component, and how many content bytes were new.
fn real_night(stage: &Stage, repository: &Repository, component: &dyn Component) -> (compline::id::SnapshotId, u64) {
    let ledger = Ledger::default();
    let context = Context { clock: &SystemClock, observer: &ledger, interrupt: &stage.interrupt };
    let mut writer = ArchiveWriter::new(repository, false, Vec::new(), context).unwrap();
    let mut sink = writer.component("it", Profile::named("db-text").unwrap(), None, context);
    let (captured, problems) = stage.capture_into(component, &mut sink).unwrap();
    assert_eq!(problems, []);
    let finished = sink.finish().unwrap();
    let now = SystemClock.now();
    let snapshot = Snapshot {
        format: compline::archive::snapshot::SNAPSHOT_FORMAT,
        platform: String::new(),
        host: "host".into(),
        user: "user".into(),
        time: now,
        finished_at: now,
        status: Status::Complete,
        tags: vec![],
        pinned: false,
        original: None,
        parent: None,
        tool: "test".into(),
        components: vec![record(&captured, Some(&finished.root))],
        restore_order: vec![],
        plan: None,
        other: serde_json::Map::default(),
    };
    let id = writer.publish(&snapshot).unwrap();
    (id, ledger.get(Counter::BytesNew))
}

#[test]
fn nights_in_a_real_repository_cost_what_changed_and_restore_after_it_is_opened_anew() {
    let (server, stage) = (populated(), Stage::new());
    let source = component(&stage, &server, "");
    let (storage, unlock) = (Arc::new(MemoryStorage::new()), Unlock::new_key_file().unwrap().0);
    Repository::create(&storage, &unlock, "test", SystemClock.now()).unwrap();
    let open = || Repository::open(Box::new(Arc::clone(&storage)), &unlock, None).unwrap();
    let repository = open();
    let first_contents = contents(&server);
    let (first, first_new) = real_night(&stage, &repository, source.as_ref());
    let (_, idle_new) = real_night(&stage, &repository, source.as_ref());
    assert!(first_new > 5_000_000, "{first_new}");
    assert_eq!(idle_new, 0, "an idle server's second night costs content");
    server.sql("app", "DROP TABLE pgbench_accounts");
    real_night(&stage, &repository, source.as_ref());
    drop(repository);

    let repository = open();
    let ledger = Ledger::default();
    let context = Context { clock: &SystemClock, observer: &ledger, interrupt: &stage.interrupt };
    repository.refresh(&context).unwrap();
    let snapshot = compline::archive::snapshots::read(&repository, first).unwrap().snapshot;
    let record = snapshot.component("it").unwrap();
    let archive = ArchiveReader::new(&repository, context);
    let reader = ComponentReader::new(&archive, record).unwrap();
    let fresh = PostgresServer::start();
    let captured = Captured { facts: record.facts.clone(), ..Captured::default() };
    let target = component(&stage, &fresh, "");
    stage.restore_from(target.as_ref(), &captured, &reader, &Wish::default()).unwrap();
    assert_eq!(contents(&fresh), first_contents);
}

#[test]
fn an_idle_database_dumped_by_a_command_costs_nothing_on_the_second_night_and_restores() {
    let (server, mut stage) = (populated(), Stage::new());
    let at = |server: &PostgresServer, program: &str, words: &str| {
        let program = crate::postgres_server::bin().join(program);
        format!(
            "[{program:?}, \"-h\", {:?}, \"-p\", \"{}\", \"-U\", \"postgres\", {words}]",
            server.socket(),
            server.port()
        )
    };
    let settings = |dumped: &PostgresServer, restored: &PostgresServer, normalise: &str| {
        format!(
            "dump = {}\nnormalise = {normalise}\ncheck = {{ tail_contains = \"database dump complete\" }}\nrestore = {}",
            at(dumped, "pg_dump", "\"--create\", \"app\""),
            at(restored, "psql", "\"-X\", \"-q\", \"-v\", \"ON_ERROR_STOP=1\", \"-f\", \"-\", \"postgres\""),
        )
    };
    let (storage, unlock) = (Arc::new(MemoryStorage::new()), Unlock::new_key_file().unwrap().0);
    Repository::create(&storage, &unlock, "test", SystemClock.now()).unwrap();
    let repository = Repository::open(Box::new(Arc::clone(&storage)), &unlock, None).unwrap();
    let source = stage.component("command", &settings(&server, &server, "[\"pg-restrict-key\"]"));
    let (_, first_new) = real_night(&stage, &repository, source.as_ref());
    let (_, idle_new) = real_night(&stage, &repository, source.as_ref());
    assert!(first_new > 5_000_000 && idle_new == 0, "{first_new}, then {idle_new}");
    let untouched = stage.component("command", &settings(&server, &server, "[]"));
    let (_, volatile_new) = real_night(&stage, &repository, untouched.as_ref());
    assert!(volatile_new > 0, "else pg_dump's key does not differ and this test says nothing");

    let night = stage.capture(source.as_ref()).unwrap();
    assert_eq!(night.captured.facts["normalised"], serde_json::json!(["pg-restrict-key"]));
    let fresh = PostgresServer::start();
    fresh.sql("postgres", "CREATE ROLE readers; CREATE ROLE \"Zoë \"\"z\"\"\"");
    let target = stage.component("command", &settings(&server, &fresh, "[]"));
    stage.restore(target.as_ref(), &night, &Wish::default()).unwrap();
    let of_app = |server: &PostgresServer| {
        let tables = contents(server).into_iter().filter(|(name, _)| name.starts_with("app: "));
        tables.collect::<BTreeMap<_, _>>()
    };
    assert!(of_app(&server).len() > 5);
    assert_eq!(of_app(&fresh), of_app(&server));

    stage.repository = 8;
    assert_ne!(stage.capture(source.as_ref()).unwrap().archive, night.archive, "the key is not the repository's");
}

#[test]
fn sessions_on_a_database_are_ended_when_it_is_replaced() {
    let stage = Stage::new();
    let (server, night) = small_night(&stage);
    let _held = server.hold("app", "BEGIN; DELETE FROM t;");
    stage.restore(component(&stage, &server, "").as_ref(), &night, &REPLACE).unwrap();
    assert_eq!(server.sql("app", "SELECT count(*) FROM t"), "100");
}

#[test]
fn what_an_interrupted_restore_left_is_cleared_by_the_next() {
    let stage = Stage::new();
    let (server, night) = small_night(&stage);
    let hash = blake3::hash(b"app").to_hex();
    for what in ["restoring", "replaced"] {
        server.sql("postgres", &format!("CREATE DATABASE compline_{what}_{}", &hash[..16]));
    }
    stage.restore(component(&stage, &server, "").as_ref(), &night, &REPLACE).unwrap();
    assert_eq!(server.databases(), ["app", "postgres"]);
}

#[test]
fn skipping_leaves_what_exists_and_restores_the_rest() {
    let stage = Stage::new();
    let (server, night) = small_night(&stage);
    server.sql("postgres", "CREATE DATABASE other; ALTER DATABASE app RENAME TO gone");
    server.sql("postgres", "CREATE TABLE mine (x int)");
    let skip = Wish { existing: Existing::Skip, ..Wish::default() };
    stage.restore(component(&stage, &server, "").as_ref(), &night, &skip).unwrap();
    assert_eq!(server.databases(), ["app", "gone", "other", "postgres"]);
    assert_eq!(server.sql("postgres", "SELECT count(*) FROM mine"), "0");
}

#[test]
fn a_dump_of_a_newer_server_is_refused_unless_forced_with_a_reason() {
    let stage = Stage::new();
    let (server, mut night) = small_night(&stage);
    night.captured.facts.insert("server_version_num".into(), 990_001.into());
    let target = component(&stage, &server, "");
    let error = stage.plan(target.as_ref(), &night, &REPLACE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::VersionGuard);
    let forced = Wish { force_version: Some("the dump was looked at"), ..REPLACE };
    assert!(stage.plan(target.as_ref(), &night, &forced).is_ok());
}

#[test]
fn a_restore_goes_where_its_own_connection_says() {
    let stage = Stage::new();
    let (server, night) = small_night(&stage);
    let fresh = PostgresServer::start();
    let settings = format!("[restore]\nconnect = {{ socket = {:?}, port = {} }}", fresh.socket(), fresh.port());
    stage.restore(component(&stage, &server, &settings).as_ref(), &night, &Wish::default()).unwrap();
    assert_eq!(fresh.sql("app", "SELECT count(*) FROM t"), "100");
}

#[test]
fn below_a_directory_the_dumps_are_written_and_no_server_is_asked() {
    let stage = Stage::new();
    let (server, night) = small_night(&stage);
    let target = component(&stage, &server, "");
    server.stop();
    let root = tempfile::tempdir().unwrap();
    stage.restore(target.as_ref(), &night, &Wish { root: Some(root.path()), ..Wish::default() }).unwrap();
    assert_eq!(std::fs::read(root.path().join("it/db/app.sql")).unwrap(), night.archive.file("db/app.sql"));
}

#[test]
fn settings_that_contradict_themselves_are_found() {
    let stage = Stage::new();
    for (settings, word) in [
        ("connect = { host = \"a\", socket = \"/b\" }", "socket"),
        ("connect = { port = 70000 }", "port"),
        ("databases = []", "databases"),
        ("databases = [\"a\"]\nexclude = [\"b\"]", "exclude"),
    ] {
        let error = stage.try_component("postgres", settings).map(|_| panic!("accepted {settings}")).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}
