//! A conversation with a server, held open by a `psql`.

use super::connect::Access;
use super::failure;
use crate::components::process::{Chain, Input, Limits, Program, Running};
use crate::error::Result;

/// Printed after each answer. No row can be taken for it: rows are JSON, or numbers.
const END: &str = "(compline: end of answer)";

/// `psql` made for programs: no start-up file, bare rows, stops at the first error, reads standard input.
pub fn psql(program: Program) -> Program {
    let words = ["--no-psqlrc", "--no-align", "--tuples-only", "--quiet", "--set=ON_ERROR_STOP=1", "--file=-"];
    words.into_iter().fold(program, Program::arg).variable("PGCLIENTENCODING", "UTF8")
}

/// One connection to one database, with one transaction after the other as the caller likes.
pub struct Session<'a> {
    running: Running<'a>,
}

impl<'a> Session<'a> {
    /// Connects to `database`.
    ///
    /// # Errors
    /// When `psql` can't be started. Whether the server answers shows with the first question.
    pub fn open(access: &Access<'a>, database: &str) -> Result<Self> {
        // It lives as long as a dump and the counting after it, and a count may take long without a word.
        let limits = Limits { timeout: access.limits.timeout.map(|timeout| timeout * 2), stall_timeout: None };
        let chain = Chain::single(psql(access.program("psql", database)), limits);
        let mut session = Self { running: chain.start(access.context, Input::Pipe)? };
        // Nothing that a user of the database may have put into its schemas shall be taken for the server's own.
        session.ask("SELECT pg_catalog.set_config('search_path', '', false)")?;
        Ok(session)
    }

    /// Runs one statement and returns its rows.
    ///
    /// # Errors
    /// When the statement fails, which ends the session.
    pub fn ask(&mut self, statement: &str) -> Result<Vec<String>> {
        self.running.send(format!("{statement};\n\\echo '{END}'\n").as_bytes())?;
        let mut rows = Vec::new();
        loop {
            match self.running.next_line()? {
                Some(line) if line == END => return Ok(rows),
                Some(line) => rows.push(line),
                None => return Err(failure("psql ended before it had answered")),
            }
        }
    }

    /// The only row of one statement.
    ///
    /// # Errors
    /// As [`Session::ask`], and when there is not exactly one row.
    pub fn ask_one(&mut self, statement: &str) -> Result<String> {
        let rows = self.ask(statement)?;
        match <[String; 1]>::try_from(rows) {
            Ok([row]) => Ok(row),
            Err(rows) => Err(failure(format!("The server gave {} rows instead of one", rows.len()))),
        }
    }

    /// Ends the conversation.
    ///
    /// # Errors
    /// When `psql` did not exit 0.
    pub fn close(self) -> Result<()> {
        self.running.finish().map(drop)
    }
}
