//! The script of roles, memberships and tablespaces: taken apart into statements, so that those which would stumble
//! over what exists can be left out, and all others must succeed.
//!
//! `psql` without `ON_ERROR_STOP` would run through the whole script too, but hide real errors among the expected ones.

use std::collections::BTreeSet;

use crate::error::{Error, Result};

/// What a statement is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum About {
    CreateRole(String),
    /// Attributes, settings or comment of a role.
    Role(String),
    CreateTablespace(String),
    Other,
}

/// One statement of the script, without its semicolon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    text: String,
    about: About,
}

/// What the server has already.
#[derive(Debug, Clone, Default)]
pub struct Present {
    /// Names of roles.
    pub roles: BTreeSet<String>,
    /// Names of tablespaces.
    pub tablespaces: BTreeSet<String>,
    /// The role that restores. It is never altered: a recorded password would lock it out of its own restore.
    pub me: String,
}

/// What will be run of a script.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decided {
    /// Roles that are created.
    pub created: Vec<String>,
    /// Roles that exist and are given their recorded attributes.
    pub altered: BTreeSet<String>,
    /// Roles that exist and stay as they are.
    pub kept: BTreeSet<String>,
    /// Tablespaces that are created.
    pub tablespaces: Vec<String>,
    /// For `psql`.
    pub script: String,
}

/// Takes a script of `pg_dumpall --globals-only` apart.
///
/// # Errors
/// `Damaged` when it ends inside a statement.
pub fn parse(script: &str) -> Result<Vec<Statement>> {
    let mut statements = Vec::new();
    let mut rest = skip_noise(script);
    while !rest.is_empty() {
        let end = statement_len(rest).ok_or_else(|| Error::damaged("The stored script of roles breaks off"))?;
        statements.push(Statement { text: rest[..end].to_owned(), about: about(&rest[..end]) });
        rest = skip_noise(&rest[end + 1..]);
    }
    Ok(statements)
}

/// Cuts white space, comments and the commands of `psql` off the front.
fn skip_noise(mut text: &str) -> &str {
    loop {
        text = text.trim_start();
        if !text.starts_with("--") && !text.starts_with('\\') {
            return text;
        }
        text = text.split_once('\n').map_or("", |(_, rest)| rest);
    }
}

/// Bytes up to the semicolon that ends the statement at the front.
fn statement_len(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b';' => return Some(at),
            b'"' => at = quote_end(bytes, at, false)?,
            b'\'' => {
                let escapes = at > 0 && matches!(bytes[at - 1], b'E' | b'e');
                at = quote_end(bytes, at, escapes)?;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Where the quote that opens at `open` closes. A doubled quote closes and opens again, which comes to the same.
fn quote_end(bytes: &[u8], open: usize, escapes: bool) -> Option<usize> {
    let mut at = open + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if escapes => at += 1,
            byte if *byte == bytes[open] && escapes && bytes.get(at + 1) == Some(byte) => at += 1,
            byte if *byte == bytes[open] => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

fn about(statement: &str) -> About {
    let after = |words: &str| statement.strip_prefix(words).map(leading_identifier);
    if let Some(role) = after("CREATE ROLE ") {
        About::CreateRole(role)
    } else if let Some(role) = after("ALTER ROLE ").or_else(|| after("COMMENT ON ROLE ")) {
        About::Role(role)
    } else if let Some(tablespace) = after("CREATE TABLESPACE ") {
        About::CreateTablespace(tablespace)
    } else {
        About::Other
    }
}

/// The name at the front, without its quotes.
fn leading_identifier(text: &str) -> String {
    take_identifier(text).0
}

/// The name at the front, without its quotes, and what follows it.
pub(super) fn take_identifier(text: &str) -> (String, &str) {
    if !text.starts_with('"') {
        let end = text.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$'))).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    }
    let mut name = String::new();
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character == '"' && characters.next_if(|(_, next)| *next == '"').is_none() {
            return (name, &text[at + 1..]);
        }
        name.push(character);
    }
    (name, "")
}

/// Decides what to run on a server that has `present`. Roles that exist are altered only if `alter`.
pub fn decide(statements: &[Statement], present: &Present, alter: bool) -> Decided {
    let mut decided = Decided::default();
    let mut transaction = false;
    for Statement { text, about } in statements {
        let wanted = match about {
            About::CreateRole(role) if present.roles.contains(role) => false,
            About::CreateRole(role) => {
                decided.created.push(role.clone());
                true
            }
            About::Role(role) if !present.roles.contains(role) => true,
            About::Role(role) => {
                let altered = alter && *role != present.me;
                let list = if altered { &mut decided.altered } else { &mut decided.kept };
                list.insert(role.clone());
                altered
            }
            About::CreateTablespace(tablespace) if present.tablespaces.contains(tablespace) => false,
            About::CreateTablespace(tablespace) => {
                decided.tablespaces.push(tablespace.clone());
                true
            }
            About::Other => true,
        };
        if wanted {
            // Creating a tablespace is the only thing here that no transaction takes.
            let outside = matches!(about, About::CreateTablespace(_));
            decided.push(text, !outside, &mut transaction);
        }
    }
    if transaction {
        decided.script.push_str("COMMIT;\n");
    }
    decided
}

impl Decided {
    fn push(&mut self, statement: &str, inside: bool, transaction: &mut bool) {
        if inside != *transaction {
            self.script.push_str(if inside { "BEGIN;\n" } else { "COMMIT;\n" });
            *transaction = inside;
        }
        self.script.push_str(statement);
        self.script.push_str(";\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = r#"--
-- PostgreSQL database cluster dump
--

\restrict abc

SET standard_conforming_strings = on;

CREATE ROLE "Odd ""r; x";
ALTER ROLE "Odd ""r; x" WITH NOLOGIN PASSWORD 'a''b;c\';
COMMENT ON ROLE app IS E'two
lines; CREATE ROLE foo;\\ \';';
CREATE ROLE postgres;
ALTER ROLE postgres WITH SUPERUSER;
ALTER ROLE app SET search_path TO 'a', 'B c';
GRANT app TO "Odd ""r; x" GRANTED BY postgres;
CREATE TABLESPACE fast OWNER app LOCATION '/fast';
GRANT ALL ON TABLESPACE fast TO app;

\unrestrict abc
"#;

    fn present(roles: &[&str], tablespaces: &[&str]) -> Present {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Present { roles: set(roles), tablespaces: set(tablespaces), me: "postgres".into() }
    }

    #[test]
    fn statements_are_found_whatever_their_quotes_hold() {
        let statements = parse(SCRIPT).unwrap();
        assert_eq!(statements.len(), 10);
        assert_eq!(statements[1].about, About::CreateRole("Odd \"r; x".into()));
        assert_eq!(statements[3].about, About::Role("app".into()));
    }

    #[test]
    fn a_script_that_breaks_off_is_damaged() {
        let end = SCRIPT.find(" TO app;").unwrap();
        assert!(parse(&SCRIPT[..end]).is_err());
        let end = SCRIPT.find("foo;").unwrap() + 4;
        assert!(parse(&SCRIPT[..end]).is_err());
    }

    #[test]
    fn what_exists_is_neither_created_nor_altered_unless_asked() {
        let statements = parse(SCRIPT).unwrap();
        let decided = decide(&statements, &present(&["postgres", "app"], &["fast"]), false);
        assert_eq!(decided.created, ["Odd \"r; x"]);
        assert_eq!(decided.kept, ["app", "postgres"].map(String::from).into());
        assert!(!decided.script.contains("ALTER ROLE app") && !decided.script.contains("CREATE TABLESPACE"));
        assert!(decided.script.contains("GRANT ALL ON TABLESPACE"));
    }

    #[test]
    fn the_role_that_restores_is_never_altered() {
        let statements = parse(SCRIPT).unwrap();
        let decided = decide(&statements, &present(&["postgres", "app"], &[]), true);
        assert_eq!(decided.altered, ["app".to_owned()].into());
        assert!(!decided.script.contains("ALTER ROLE postgres"));
    }

    #[test]
    fn only_tablespaces_are_created_outside_a_transaction() {
        let decided = decide(&parse(SCRIPT).unwrap(), &present(&[], &[]), false);
        let flow: Vec<&str> = decided
            .script
            .lines()
            .filter(|line| line.starts_with("BEGIN") || line.starts_with("COMMIT;") || line.contains("TABLESPACE"))
            .collect();
        let create = "CREATE TABLESPACE fast OWNER app LOCATION '/fast';";
        assert_eq!(flow, ["BEGIN;", "COMMIT;", create, "BEGIN;", "GRANT ALL ON TABLESPACE fast TO app;", "COMMIT;"]);
    }
}
