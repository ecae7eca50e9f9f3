//! Kind `sqlite`, on real database files.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use compline::components::Existing;
use compline::error::ErrorKind;
use rusqlite::Connection;

use crate::stage::{Stage, Wish};

struct House {
    stage: Stage,
    home: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        Self { stage: Stage::new(), home: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn database(&self, name: &str, journal_mode: &str) -> Connection {
        let connection = Connection::open(self.path(name)).unwrap();
        connection.pragma_update_and_check(None, "journal_mode", journal_mode, |_| Ok(())).unwrap();
        connection
            .execute_batch(
                "CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER);
                 CREATE TABLE \"odd \"\"name\" (x);
                 INSERT INTO account SELECT value, 100 FROM
                   (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT 1000) SELECT * FROM n);
                 PRAGMA user_version = 42; PRAGMA application_id = 7;",
            )
            .unwrap();
        connection
    }

    fn settings(&self, names: &[&str]) -> String {
        let paths: Vec<String> = names.iter().map(|name| format!("{:?}", self.path(name))).collect();
        format!("paths = [{}]", paths.join(", "))
    }
}

fn total(path: &Path) -> i64 {
    let connection = Connection::open(path).unwrap();
    connection.query_row("SELECT sum(balance) FROM account", [], |row| row.get(0)).unwrap()
}

#[test]
fn what_only_the_write_ahead_log_holds_is_captured_and_comes_back() {
    let house = House::new();
    let live = house.database("app.db", "wal");
    live.execute("UPDATE account SET balance = 101 WHERE id = 1", []).unwrap();
    assert!(house.path("app.db-wal").metadata().unwrap().len() > 0);
    let component = house.stage.component("sqlite", &house.settings(&["app.db"]));
    let night = house.stage.capture(component.as_ref()).unwrap();
    house.stage.assert_swept();
    assert_eq!(night.archive.paths(), ["app.db", "row-counts.json"]);
    let database = &night.captured.facts["databases"][0];
    assert_eq!((&database["user_version"], &database["application_id"]), (&42.into(), &7.into()));
    assert_eq!(database["journal_mode"], "wal");
    let counts: serde_json::Value = serde_json::from_slice(night.archive.file("row-counts.json")).unwrap();
    assert_eq!(counts["databases"]["app.db"]["account"], 1000);
    assert_eq!(counts["databases"]["app.db"]["odd \"name"], 0);

    let root = tempfile::tempdir().unwrap();
    let wish = Wish { root: Some(root.path()), ..Wish::default() };
    house.stage.restore(component.as_ref(), &night, &wish).unwrap();
    let restored = root.path().join(house.path("app.db").strip_prefix("/").unwrap());
    assert_eq!(total(&restored), 100_001);
}

#[test]
fn copies_taken_while_somebody_writes_hold_one_moment() {
    for mode in ["wal", "delete"] {
        let house = House::new();
        drop(house.database("bank.db", mode));
        let done = AtomicBool::new(false);
        let path = house.path("bank.db");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let teller = Connection::open(&path).unwrap();
                teller.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
                teller.pragma_update(None, "synchronous", "OFF").unwrap();
                let mut n = 0i64;
                while !done.load(Ordering::Relaxed) {
                    // Money moves, its sum does not.
                    let (from, to) = (1 + n % 1000, 1 + (n * 7 + 3) % 1000);
                    teller
                        .execute_batch(&format!(
                            "BEGIN IMMEDIATE; UPDATE account SET balance = balance - 1 WHERE id = {from};
                             UPDATE account SET balance = balance + 1 WHERE id = {to}; COMMIT"
                        ))
                        .unwrap();
                    n += 1;
                }
            });
            let component = house.stage.component("sqlite", &house.settings(&["bank.db"]));
            let nights: Vec<_> = (0..5).map(|_| house.stage.capture(component.as_ref())).collect();
            done.store(true, Ordering::Relaxed);
            for night in nights {
                let copy = house.path("copy.db");
                std::fs::write(&copy, night.unwrap().archive.file("bank.db")).unwrap();
                assert_eq!(total(&copy), 100_000, "in journal mode {mode}");
            }
        });
    }
}

#[test]
fn an_idle_database_gives_the_same_bytes_every_night() {
    let house = House::new();
    let _live = house.database("app.db", "wal");
    let component = house.stage.component("sqlite", &house.settings(&["app.db"]));
    let first = house.stage.capture(component.as_ref()).unwrap();
    assert_eq!(first.archive, house.stage.capture(component.as_ref()).unwrap().archive);
}

#[test]
fn what_is_absent_or_no_database_is_refused_and_not_created() {
    let house = House::new();
    std::fs::write(house.path("text.db"), "not a database, though it is long enough to hold a header, it seems")
        .unwrap();
    std::fs::write(house.path("empty.db"), "").unwrap();
    for name in ["absent.db", "text.db", "empty.db"] {
        let component = house.stage.component("sqlite", &house.settings(&[name]));
        let error = house.stage.capture(component.as_ref()).unwrap_err();
        assert!(error.to_string().contains(name) && error.hint_text().is_some(), "{error:?}");
    }
    assert!(!house.path("absent.db").exists());
}

#[test]
fn a_damaged_database_is_not_committed_unless_the_plan_says_so() {
    let house = House::new();
    drop(house.database("app.db", "delete"));
    let mut bytes = std::fs::read(house.path("app.db")).unwrap();
    let page = bytes.len() - 4096;
    bytes[page..page + 64].fill(0xff);
    std::fs::write(house.path("app.db"), &bytes).unwrap();
    let component = house.stage.component("sqlite", &house.settings(&["app.db"]));
    let error = house.stage.capture(component.as_ref()).unwrap_err();
    assert!(error.to_string().contains("is damaged"), "{error:?}");
    house.stage.assert_swept();
}

#[test]
fn databases_of_one_name_are_stored_under_their_paths() {
    let house = House::new();
    for directory in ["a", "b"] {
        std::fs::create_dir(house.path(directory)).unwrap();
        drop(house.database(&format!("{directory}/app.db"), "delete"));
    }
    let component = house.stage.component("sqlite", &house.settings(&["a/app.db", "b/app.db"]));
    let night = house.stage.capture(component.as_ref()).unwrap();
    assert_eq!(night.archive.paths().len(), 3);
    assert!(night.archive.paths()[1].ends_with("/a/app.db"), "{:?}", night.archive.paths());
}

#[test]
fn a_relative_path_is_recorded_as_the_place_it_means() {
    let house = House::new();
    drop(house.database("app.db", "delete"));
    std::fs::create_dir(house.path("below")).unwrap();
    let settings = format!("paths = {:?}", house.path("below/../app.db"));
    let component = house.stage.component("sqlite", &settings);
    let mut night = house.stage.capture(component.as_ref()).unwrap();
    let place = house.home.path().canonicalize().unwrap().join("app.db");
    assert_eq!(night.captured.facts["databases"][0]["path"], place.to_str().unwrap());

    for astray in ["app.db", "/srv/../../etc/app.db"] {
        night.captured.facts["databases"][0]["path"] = astray.into();
        let error = house.stage.plan(component.as_ref(), &night, &Wish::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
    }
}

#[test]
fn a_database_that_exists_is_only_replaced_on_request() {
    let house = House::new();
    drop(house.database("app.db", "wal"));
    let component = house.stage.component("sqlite", &house.settings(&["app.db"]));
    let night = house.stage.capture(component.as_ref()).unwrap();
    Connection::open(house.path("app.db")).unwrap().execute("UPDATE account SET balance = 0", []).unwrap();

    let error = house.stage.restore(component.as_ref(), &night, &Wish::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsafeTarget);
    let skip = Wish { existing: Existing::Skip, ..Wish::default() };
    house.stage.restore(component.as_ref(), &night, &skip).unwrap();
    assert_eq!(total(&house.path("app.db")), 0);

    let replace = Wish { existing: Existing::Replace, ..Wish::default() };
    assert!(house.stage.plan(component.as_ref(), &night, &replace).unwrap()[0].destructive);
    assert_eq!(total(&house.path("app.db")), 0, "a plan must have no effect");
    house.stage.restore(component.as_ref(), &night, &replace).unwrap();
    assert_eq!(total(&house.path("app.db")), 100_000);
}

#[test]
fn a_stale_log_is_never_replayed_onto_a_restored_database() {
    let house = House::new();
    let live = house.database("app.db", "wal");
    let component = house.stage.component("sqlite", &house.settings(&["app.db"]));
    let night = house.stage.capture(component.as_ref()).unwrap();
    live.execute("UPDATE account SET balance = 0", []).unwrap();
    // As after a crash: the log is left behind, the database is gone.
    let log = std::fs::read(house.path("app.db-wal")).unwrap();
    drop(live);
    std::fs::remove_file(house.path("app.db")).unwrap();
    std::fs::write(house.path("app.db-wal"), log).unwrap();
    house.stage.restore(component.as_ref(), &night, &Wish::default()).unwrap();
    assert_eq!(total(&house.path("app.db")), 100_000);
}

#[test]
fn a_database_in_use_is_not_replaced() {
    let house = House::new();
    let live = house.database("app.db", "wal");
    let component = house.stage.component("sqlite", &house.settings(&["app.db"]));
    let night = house.stage.capture(component.as_ref()).unwrap();
    let replace = Wish { existing: Existing::Replace, ..Wish::default() };
    let error = house.stage.restore(component.as_ref(), &night, &replace).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsafeTarget, "{error:?}");
    assert_eq!(live.query_row("SELECT count(*) FROM account", [], |row| row.get::<_, i64>(0)).unwrap(), 1000);
}

#[test]
fn a_stored_database_that_lost_rows_does_not_reach_its_place() {
    let house = House::new();
    let live = house.database("app.db", "delete");
    let component = house.stage.component("sqlite", &house.settings(&["app.db"]));
    let night = house.stage.capture(component.as_ref()).unwrap();
    live.execute("DELETE FROM account WHERE id = 5", []).unwrap();
    drop(live);
    let mut later = house.stage.capture(component.as_ref()).unwrap();
    later.archive.files.insert(b"row-counts.json".to_vec(), night.archive.file("row-counts.json").to_vec());
    std::fs::remove_file(house.path("app.db")).unwrap();
    let error = house.stage.restore(component.as_ref(), &later, &Wish::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("had 1000 rows and now has 999"), "{error}");
    assert!(std::fs::read_dir(house.home.path()).unwrap().next().is_none(), "nothing is left behind");
}
