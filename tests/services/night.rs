//! A night, end to end, as an operator has it: a plan with a tree, a database and a program, its repository on some storage and
//! a copy beside it; by the program, from `init` to `check`. What comes back is compared with what was there.

use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;

use crate::host::{Host, Outcome, noise, value};
use crate::postgres_server::PostgresServer;

/// The whole of it. `at_unchanged` is called before a night in which nothing has changed and after it.
pub fn night(host: &Host, at_unchanged: &mut dyn FnMut()) {
    Night::new(host, None).pass(at_unchanged);
}

/// The same for a platform that has a database server, too.
pub fn night_with_postgres(host: &Host, server: &PostgresServer) {
    server.sql("postgres", "CREATE DATABASE app");
    server.sql("app", "CREATE TABLE account AS SELECT n AS id, md5(n::text) AS owner FROM generate_series(1, 5000) n");
    Night::new(host, Some(server)).pass(&mut || ());
}

/// How many snapshots there are before any is forgotten.
pub const NIGHTS: usize = 4;

/// A host, and what it is about.
struct Night<'n> {
    host: &'n Host,
    /// Where the copy lies.
    vault: String,
    postgres: Option<&'n PostgresServer>,
}

/// What a platform was at some moment.
struct State {
    tree: PathBuf,
    rows: String,
    packages: Vec<u8>,
    accounts: Option<String>,
}

impl<'n> Night<'n> {
    fn new(host: &'n Host, postgres: Option<&'n PostgresServer>) -> Self {
        Self { host, vault: beside(&host.location), postgres }
    }

    fn pass(&self, at_unchanged: &mut dyn FnMut()) {
        self.found();
        let first = self.state("first");
        for _ in 0..2 {
            self.by_plan(&["backup"]);
        }
        at_unchanged();
        self.by_plan(&["backup"]);
        at_unchanged();
        self.change();
        let second = self.state("second");
        self.by_plan(&["backup"]);
        self.browse(&second);
        self.restore_parts(&first, &second);
        self.copy(&second);
        self.forget();
        self.restore_all(&second, &["restore", "--yes"]);
    }

    /// A platform, its plan, and two repositories.
    fn found(&self) {
        self.host.make_tree();
        self.change_rows(
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT, amount INTEGER);
             INSERT INTO orders SELECT value, 'order ' || value, value * 7919 % 1000 FROM
               (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT 20000) SELECT * FROM n)",
        );
        std::fs::write(self.host.path("packages"), "some-package 1.0\n".repeat(500)).unwrap();
        std::fs::write(self.host.path("plan.toml"), self.plan()).unwrap();
        self.by_plan(&["plan", "check"]);
        self.by_plan(&["init"]);
        let again = Outcome::of(self.host.bare(&["-p", "plan.toml", "init"]).output().unwrap());
        assert_eq!(again.code, 1, "there is a repository already");
        self.in_vault(&["init"]);
    }

    fn plan(&self) -> String {
        let accounts = |server: &PostgresServer| {
            format!(
                "[[component]]\nname = \"accounts\"\nkind = \"postgres\"\ndatabases = [\"app\"]\n{}",
                server.connect()
            )
        };
        format!(
            r#"
            format = 1
            [platform]
            name = "shop"
            [repository]
            location = {:?}
            key_file = "key"
            [[component]]
            name = "orders"
            kind = "sqlite"
            paths = ["shop.db"]
            references = ["tree"]
            [[component]]
            name = "tree"
            kind = "files"
            paths = ["tree"]
            [[component]]
            name = "packages"
            kind = "command"
            dump = ["cat", "packages"]
            check = {{ min_bytes = "1KiB" }}
            restore = ["tee", "packages"]
            {}
            [retention]
            keep = {{ last = 1 }}
            [[copy]]
            location = {:?}
            key_file = "vault.key"
            "#,
            self.host.location,
            self.postgres.map(accounts).unwrap_or_default(),
            self.vault,
        )
    }

    /// Rows here and there, a file more, one less, a program that prints something else.
    fn change(&self) {
        self.change_rows(
            "UPDATE orders SET amount = amount + 1 WHERE id % 97 = 0; DELETE FROM orders WHERE id % 1009 = 0",
        );
        if let Some(server) = self.postgres {
            server.sql("app", "UPDATE account SET owner = 'nobody' WHERE id % 97 = 0");
        }
        std::fs::write(self.host.path("tree/0/new"), noise(1, 100_000)).unwrap();
        std::fs::remove_file(self.host.path("tree/1/1-1")).unwrap();
        std::fs::write(self.host.path("packages"), noise(2, 5_000)).unwrap();
    }

    fn change_rows(&self, statements: &str) {
        Connection::open(self.host.path("shop.db")).unwrap().execute_batch(statements).unwrap();
    }

    fn browse(&self, now: &State) {
        assert_eq!(self.by_plan(&["snapshots", "--json"]).matches("\"id\"").count(), NIGHTS);
        let listed = self.by_plan(&["ls", "-R", "latest"]);
        for path in ["/orders/shop.db", "/packages/stream", &self.in_tree("0/new"), &self.in_tree("large")] {
            assert!(listed.lines().any(|line| line == path), "{path}: {listed}");
        }
        let changed = self.by_plan(&["diff", "latest~1", "latest"]);
        for (sign, path) in [
            ("M", "/orders/shop.db"),
            ("M", "/packages/stream"),
            ("+", &self.in_tree("0/new")),
            ("-", &self.in_tree("1/1-1")),
        ] {
            let told = changed.lines().any(|line| line.starts_with(sign) && line.ends_with(path));
            assert!(told, "{sign} {path}: {changed}");
        }
        let found = self.by_plan(&["find", "1-1"]);
        assert_eq!(found.lines().count(), NIGHTS - 1, "in all but the last one: {found}");
        assert_eq!(self.cat("latest:/packages/stream"), now.packages);
        std::fs::write(self.host.path("dumped.db"), self.cat("latest:/orders/shop.db")).unwrap();
        assert_eq!(rows(&self.host.path("dumped.db")), now.rows);
    }

    /// A file, and a component, of the first night and of the last one.
    fn restore_parts(&self, first: &State, second: &State) {
        self.by_plan(&["restore", &format!("latest~1:{}", self.in_tree("1")), "--target", "one"]);
        assert_same(&first.tree.join("1"), &self.host.path("one"));
        self.by_plan(&["restore", "latest~3", "--yes", "--only", "orders", "--root", "elsewhere"]);
        let elsewhere = self.host.path("elsewhere").join(self.host.path("shop.db").strip_prefix("/").unwrap());
        assert_eq!(rows(&elsewhere), first.rows);
        self.change_rows("DROP TABLE orders");
        self.by_plan(&["restore", "--yes", "--only", "orders", "--existing", "replace"]);
        assert_eq!(rows(&self.host.path("shop.db")), second.rows);
    }

    /// The platform is lost, with its cache, and comes back.
    fn restore_all(&self, was: &State, words: &[&str]) {
        for directory in ["tree", "cache"] {
            std::fs::remove_dir_all(self.host.path(directory)).unwrap();
        }
        for file in ["shop.db", "packages"] {
            std::fs::remove_file(self.host.path(file)).unwrap();
        }
        if let Some(server) = self.postgres {
            server.sql("postgres", "DROP DATABASE app");
        }
        self.by_plan(words);
        self.must_be(was);
    }

    /// What the copy has brings the platform back, too. A second one has nothing to do.
    fn copy(&self, now: &State) {
        let report = value(&self.by_plan(&["copy", "--json"]), "copies");
        let copied = |report: &serde_json::Value, state: &str| report[0].to_string().matches(state).count();
        assert_eq!(copied(&report, "\"copied\""), NIGHTS, "{report}");
        let report = value(&self.by_plan(&["copy", "--json"]), "copies");
        assert_eq!((copied(&report, "\"there\""), report[0]["bytes_stored"].as_u64()), (NIGHTS, Some(0)), "{report}");
        self.restore_all(now, &["-r", &self.vault, "--key-file", "vault.key", "restore", "--yes"]);
    }

    /// By the plan's rules, here alone: the copy keeps what it has.
    fn forget(&self) {
        self.by_plan(&["forget", "--prune"]);
        self.by_plan(&["prune", "--max-unused", "0%"]);
        let count = |listed: &str| listed.matches("\"id\"").count();
        assert_eq!(count(&self.by_plan(&["snapshots", "--json"])), 1);
        assert_eq!(count(&self.in_vault(&["snapshots", "--json"])), NIGHTS);
        self.by_plan(&["check", "--read-data"]);
        self.in_vault(&["check", "--read-data"]);
    }

    /// By the plan alone, as from cron.
    fn by_plan(&self, words: &[&str]) -> String {
        self.host.bare_must(&[&["-p", "plan.toml"], words].concat())
    }

    fn in_vault(&self, words: &[&str]) -> String {
        self.host.bare_must(&[&["-r", &self.vault, "--key-file", "vault.key"], words].concat())
    }

    fn cat(&self, what: &str) -> Vec<u8> {
        let output = self.host.bare(&["-p", "plan.toml", "cat", what]).output().unwrap();
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Where the tree's file is in a snapshot.
    fn in_tree(&self, name: &str) -> String {
        format!("/tree{}", self.host.path("tree").join(name).display())
    }

    /// What there is now. The tree is kept under `name`.
    fn state(&self, name: &str) -> State {
        let (tree, kept) = (self.host.path("tree"), self.host.path(name));
        assert!(Command::new("cp").arg("-a").args([&tree, &kept]).status().unwrap().success());
        State {
            tree: kept,
            rows: rows(&self.host.path("shop.db")),
            packages: std::fs::read(self.host.path("packages")).unwrap(),
            accounts: self.postgres.map(accounts),
        }
    }

    fn must_be(&self, was: &State) {
        assert_same(&was.tree, &self.host.path("tree"));
        assert_eq!(rows(&self.host.path("shop.db")), was.rows);
        assert_eq!(std::fs::read(self.host.path("packages")).unwrap(), was.packages);
        assert_eq!(self.postgres.map(accounts), was.accounts);
    }
}

/// A place beside `location`.
fn beside(location: &str) -> String {
    match location.split_once('?') {
        Some((place, query)) => format!("{place}-vault?{query}"),
        None => format!("{location}-vault"),
    }
}

/// A SQLite database as text.
fn rows(database: &Path) -> String {
    let connection = Connection::open(database).unwrap();
    let all = "SELECT sql FROM sqlite_schema UNION ALL
               SELECT * FROM (SELECT quote(id) || quote(what) || quote(amount) FROM orders ORDER BY id)";
    let mut statement = connection.prepare(all).unwrap();
    let lines = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    lines.map(|line| line.unwrap() + "\n").collect()
}

/// A dump, without its key that is another one each time.
fn accounts(server: &PostgresServer) -> String {
    let dump = server.must("pg_dump", &["app"]);
    dump.split_inclusive('\n').filter(|line| !line.contains("restrict ")).collect()
}

fn assert_same(one: &Path, other: &Path) {
    let diff = Command::new("diff").args(["-r", "--brief"]).args([one, other]).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
}
