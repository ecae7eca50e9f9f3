//! What is recorded of a database beside its dump, and how SQL is written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::connect::Access;
use super::failure;
use super::session::Session;
use crate::error::{Error, Result};

/// Numbers of rows: schema, table, rows.
pub type Rows = BTreeMap<String, BTreeMap<String, u64>>;

/// What `row-counts.json` holds of one database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows of every table that is the users' own.
    pub tables: Rows,
    /// Number of large objects.
    pub large_objects: u64,
}

/// What `row-counts.json` holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCounts {
    /// By name of the database.
    pub databases: BTreeMap<String, Counts>,
}

/// What a plain dump of one database doesn't hold: how to create it, and what hangs on its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    pub name: String,
    pub owner: String,
    pub encoding: String,
    pub collate: String,
    pub ctype: String,
    /// `c` libc, `i` ICU, `b` builtin; none before 15.
    pub provider: Option<String>,
    /// The locale of ICU or of the builtin provider.
    pub locale: Option<String>,
    pub icu_rules: Option<String>,
    pub collation_version: Option<String>,
    pub tablespace: String,
    pub connection_limit: i64,
    pub is_template: bool,
    pub comment: Option<String>,
    /// None: the default privileges.
    pub privileges: Option<Vec<Privilege>>,
    #[serde(default)]
    pub settings: Vec<Setting>,
}

/// One privilege on a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Privilege {
    /// None: everybody.
    pub role: Option<String>,
    #[serde(rename = "privilege")]
    pub what: String,
    pub grantable: bool,
}

/// A setting that holds in a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// None: for everybody.
    pub role: Option<String>,
    pub name: String,
    pub value: String,
}

/// Columns that not every version has are taken out of the row as JSON. One line for each database.
const DATABASES: &str = "
SELECT json_build_object(
  'name', d.datname, 'owner', pg_get_userbyid(d.datdba), 'encoding', pg_encoding_to_char(d.encoding),
  'collate', d.datcollate, 'ctype', d.datctype, 'provider', to_jsonb(d)->>'datlocprovider',
  'locale', coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale'),
  'icu_rules', to_jsonb(d)->>'daticurules', 'collation_version', to_jsonb(d)->>'datcollversion',
  'tablespace', (SELECT spcname FROM pg_tablespace t WHERE t.oid = d.dattablespace),
  'connection_limit', d.datconnlimit, 'is_template', d.datistemplate,
  'comment', shobj_description(d.oid, 'pg_database'),
  'privileges', CASE WHEN d.datacl IS NOT NULL THEN (
     SELECT coalesce(json_agg(json_build_object('role', CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END,
                             'privilege', a.privilege_type, 'grantable', a.is_grantable)), '[]')
     FROM aclexplode(d.datacl) a) END,
  'settings', (
     SELECT coalesce(json_agg(json_build_object(
        'role', CASE WHEN s.setrole <> 0 THEN pg_get_userbyid(s.setrole) END,
        'name', split_part(one, '=', 1), 'value', substr(one, strpos(one, '=') + 1))), '[]')
     FROM pg_db_role_setting s, unnest(s.setconfig) one WHERE s.setdatabase = d.oid)
)::jsonb::text
FROM pg_database d WHERE d.datallowconn ORDER BY d.datname COLLATE pg_catalog.\"C\"";

/// Every database that takes connections, by name.
///
/// # Errors
/// When the server doesn't say.
pub fn databases(session: &mut Session<'_>) -> Result<Vec<Database>> {
    session.ask(DATABASES)?.iter().map(|row| decode(row)).collect()
}

fn decode<'a, T: Deserialize<'a>>(row: &'a str) -> Result<T> {
    serde_json::from_str(row).map_err(|cause| failure("The server's catalog can't be read").cause(cause))
}

/// A table of a database.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Table {
    pub schema: String,
    pub name: String,
    /// Whether it has columns whose values a dump holds. Rows of a table without any can't be dumped at all.
    pub has_values: bool,
}

impl Table {
    fn quoted(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.name))
    }
}

/// Tables whose rows a dump holds: the users' own, not those of extensions; on a standby none that is unlogged.
const TABLES: &str = r"
SELECT json_build_object('schema', n.nspname, 'name', c.relname, 'has_values', EXISTS (
         SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         AND coalesce(to_jsonb(a)->>'attgenerated', '') = ''))::jsonb::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT (c.relpersistence = 'u' AND pg_is_in_recovery())
  AND NOT EXISTS (SELECT FROM pg_depend d
                  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')";

/// The tables of the session's database.
///
/// # Errors
/// When the server doesn't say.
pub fn tables(session: &mut Session<'_>) -> Result<Vec<Table>> {
    session.ask(TABLES)?.iter().map(|row| decode(row)).collect()
}

/// Keeps tables from being dropped or rewritten until the transaction ends, as `pg_dump` does.
///
/// # Errors
/// When a lock can't be had.
pub fn lock(session: &mut Session<'_>, tables: &[Table]) -> Result<()> {
    for some in tables.chunks(100) {
        let names: Vec<String> = some.iter().map(|table| format!("ONLY {}", table.quoted())).collect();
        session.ask(&format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", ")))?;
    }
    Ok(())
}

/// Counts rows and large objects as the session's transaction sees them. Tables without values are left out.
///
/// # Errors
/// When a table can't be read.
pub fn count(session: &mut Session<'_>, tables: &[Table]) -> Result<Counts> {
    let mut counts =
        Counts { large_objects: number(session, "SELECT count(*) FROM pg_largeobject_metadata")?, ..Counts::default() };
    for table in tables.iter().filter(|table| table.has_values) {
        let rows = number(session, &format!("SELECT count(*) FROM ONLY {}", table.quoted()))?;
        counts.tables.entry(table.schema.clone()).or_default().insert(table.name.clone(), rows);
    }
    Ok(counts)
}

fn number(session: &mut Session<'_>, statement: &str) -> Result<u64> {
    let answer = session.ask_one(statement)?;
    answer.parse().map_err(|_| failure(format!("The server counts \"{answer}\"")))
}

impl Counts {
    /// Number of tables.
    pub fn table_count(&self) -> usize {
        self.tables.values().map(BTreeMap::len).sum()
    }

    /// Number of rows in all tables.
    pub fn row_count(&self) -> u64 {
        self.tables.values().flat_map(BTreeMap::values).sum()
    }

    /// The first difference to what was found later.
    pub fn difference(&self, found: &Self) -> Option<String> {
        for (schema, tables) in &self.tables {
            for (table, rows) in tables {
                let now = found.tables.get(schema).and_then(|tables| tables.get(table));
                if now != Some(rows) {
                    let now = now.map_or("does not exist".to_owned(), |now| format!("has {now}"));
                    return Some(format!("table {schema}.{table} had {rows} rows and now {now}"));
                }
            }
        }
        let (had, has) = (self.large_objects, found.large_objects);
        (had != has).then(|| format!("there were {had} large objects and now there are {has}"))
    }
}

const EXTENSIONS: &str =
    "SELECT coalesce(json_object_agg(extname, extversion ORDER BY extname), '{}')::jsonb::text FROM pg_extension";

/// Extensions of the session's database, with their versions.
///
/// # Errors
/// When the server doesn't say.
pub fn extensions(session: &mut Session<'_>) -> Result<BTreeMap<String, String>> {
    decode(&session.ask_one(EXTENSIONS)?)
}

const OBJECTS: &str = r"
SELECT (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')
     + (SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')
     + (SELECT count(*) FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')
     + (SELECT count(*) FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public'))
     + (SELECT count(*) FROM pg_extension WHERE extname <> 'plpgsql')
     + (SELECT count(*) FROM pg_largeobject_metadata)";

/// How many things in `database` somebody made.
///
/// # Errors
/// When the database can't be looked at.
pub fn object_count(access: &Access<'_>, database: &str) -> Result<u64> {
    let looked = || -> Result<u64> {
        let mut session = Session::open(access, database)?;
        let count = number(&mut session, OBJECTS)?;
        session.close()?;
        Ok(count)
    };
    looked().map_err(|error: Error| error.context(format!("Can't see what is in database {database}")))
}

/// `name` as an identifier.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as a literal, whatever the server's settings.
pub fn literal(text: &str) -> String {
    if text.contains('\\') {
        format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// Settings whose value is a list of names: it is stored quoted already.
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

impl Database {
    /// `CREATE DATABASE` under another name, from the template that has nothing.
    pub fn create_statement(&self, name: &str, server_major: u32) -> String {
        let mut words = vec![
            format!("CREATE DATABASE {} TEMPLATE template0", identifier(name)),
            format!("OWNER {}", identifier(&self.owner)),
            format!("ENCODING {}", literal(&self.encoding)),
            format!("LC_COLLATE {}", literal(&self.collate)),
            format!("LC_CTYPE {}", literal(&self.ctype)),
        ];
        if let (Some(provider), 15..) = (self.provider.as_deref(), server_major) {
            let (provider, key) = match provider {
                "i" => ("icu", "ICU_LOCALE"),
                "b" => ("builtin", "BUILTIN_LOCALE"),
                _ => ("libc", ""),
            };
            words.push(format!("LOCALE_PROVIDER {provider}"));
            if let Some(locale) = self.locale.as_ref().filter(|_| !key.is_empty()) {
                words.push(format!("{key} {}", literal(locale)));
            }
            words.extend(self.icu_rules.iter().map(|rules| format!("ICU_RULES {}", literal(rules))));
        }
        if self.tablespace != "pg_default" {
            words.push(format!("TABLESPACE {}", identifier(&self.tablespace)));
        }
        words.join(" ") + ";\n"
    }

    /// What hangs on the database's name: limit, comment, privileges, settings; for the database now called `name`.
    pub fn attribute_statements(&self, name: &str) -> String {
        let target = identifier(name);
        let mut statements = Vec::new();
        if self.connection_limit != -1 {
            statements.push(format!("ALTER DATABASE {target} CONNECTION LIMIT {}", self.connection_limit));
        }
        if self.is_template {
            statements.push(format!("ALTER DATABASE {target} IS_TEMPLATE true"));
        }
        if let Some(comment) = &self.comment {
            statements.push(format!("COMMENT ON DATABASE {target} IS {}", literal(comment)));
        }
        if let Some(privileges) = &self.privileges {
            statements.push(format!("REVOKE ALL ON DATABASE {target} FROM PUBLIC"));
            statements.push(format!("REVOKE ALL ON DATABASE {target} FROM {}", identifier(&self.owner)));
            statements.extend(privileges.iter().map(|privilege| privilege.statement(&target)));
        }
        statements.extend(self.settings.iter().map(|setting| setting.statement(&target)));
        statements.into_iter().map(|statement| statement + ";\n").collect()
    }
}

impl Privilege {
    fn statement(&self, target: &str) -> String {
        let role = self.role.as_deref().map_or("PUBLIC".to_owned(), identifier);
        let grantable = if self.grantable { " WITH GRANT OPTION" } else { "" };
        format!("GRANT {} ON DATABASE {target} TO {role}{grantable}", self.what)
    }
}

impl Setting {
    fn statement(&self, target: &str) -> String {
        let place = match &self.role {
            Some(role) => format!("ROLE {} IN DATABASE {target}", identifier(role)),
            None => format!("DATABASE {target}"),
        };
        // Names of settings may have a dot between two parts.
        let name = self.name.split('.').map(identifier).collect::<Vec<_>>().join(".");
        let value = match (LISTS.contains(&self.name.to_ascii_lowercase().as_str()), self.value.as_str()) {
            (_, "") => "''".to_owned(),
            (true, list) => list.to_owned(),
            (false, text) => literal(text),
        };
        format!("ALTER {place} SET {name} TO {value}")
    }
}

/// Path of a database's dump in the component. Whatever might be odd in a path is percent-escaped.
pub fn entry(database: &str) -> String {
    let mut path = String::from("db/");
    for (at, character) in database.chars().enumerate() {
        let odd = character.is_control() || matches!(character, '/' | '\\' | '%') || (at == 0 && character == '.');
        if odd {
            let mut bytes = [0; 4];
            let escaped = character.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}"));
            path.extend(escaped);
        } else {
            path.push(character);
        }
    }
    path.push_str(".sql");
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_odd_names_stay_inside_and_apart() {
        assert_eq!(entry("app"), "db/app.sql");
        assert_eq!(entry("ünï code"), "db/ünï code.sql");
        assert_eq!(entry("../x"), "db/%2E.%2Fx.sql");
        assert_ne!(entry("a/b"), entry("a%2Fb"));
    }

    #[test]
    fn identifiers_and_literals_hold_whatever_is_in_them() {
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'"), "E'a\\\\'''");
    }

    #[test]
    fn settings_that_are_lists_keep_their_own_quotes() {
        let setting = |name: &str, value: &str| Setting { role: None, name: name.into(), value: value.into() };
        assert_eq!(
            setting("search_path", "a, \"B c\"").statement("d"),
            "ALTER DATABASE d SET \"search_path\" TO a, \"B c\""
        );
        assert_eq!(setting("my.thing", "x y").statement("d"), "ALTER DATABASE d SET \"my\".\"thing\" TO 'x y'");
    }

    #[test]
    fn a_difference_names_the_table_and_both_numbers() {
        let counts = |rows| {
            let tables = BTreeMap::from([("public".to_owned(), BTreeMap::from([("t".to_owned(), rows)]))]);
            Counts { tables, large_objects: 0 }
        };
        assert_eq!(counts(1).difference(&counts(1)), None);
        assert_eq!(counts(2).difference(&counts(1)).unwrap(), "table public.t had 2 rows and now has 1");
        assert!(counts(2).difference(&Counts::default()).unwrap().contains("does not exist"));
    }
}
