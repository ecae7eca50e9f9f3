//! The command line: parse, wire the world to the library, render. The only layer that prints, reads the environment, or
//! knows that there are people.

mod arguments;
mod dispatch;
mod environment;
mod render;
mod terminal;
mod unlock;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

pub use arguments::Cli;

use crate::error::{Error, ErrorKind};

/// Exit code of a run that committed, but with problems.
const EXIT_PROBLEMS: u8 = 3;
/// Exit code of a check that found damage.
const EXIT_DAMAGE: u8 = 5;

/// How a verb ended, if not with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Well,
    Problems,
    Damage,
    Interrupted,
}

/// Runs the program with these words (the first is its name) and says how to exit.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no failure.
            let _nowhere_to_tell = error.print();
            return ExitCode::from(if error.use_stderr() { ErrorKind::Usage.exit_code() } else { 0 });
        }
    };
    let json = cli.global.json;
    match dispatch::run(cli) {
        Ok(Ending::Well) => ExitCode::SUCCESS,
        Ok(Ending::Problems) => ExitCode::from(EXIT_PROBLEMS),
        Ok(Ending::Interrupted) => ExitCode::from(ErrorKind::Interrupted.exit_code()),
        Ok(Ending::Damage) => ExitCode::from(EXIT_DAMAGE),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _nowhere_to_tell = tell(&error, json);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// The reader of our output went away: nothing to complain about.
fn is_broken_pipe(error: &Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if inner.is_some_and(|inner| inner.downcast_ref::<render::ReaderGone>().is_some()) {
            return true;
        }
        next = cause.source();
    }
    false
}

fn tell(error: &Error, json: bool) -> std::io::Result<()> {
    if json {
        writeln!(std::io::stdout(), "{}", render::error_object(error))?;
    }
    let mut out = std::io::stderr().lock();
    writeln!(out, "compline: {} [{}]", error.chain(), error.kind().code())?;
    if let Some(hint) = error.hint_text() {
        writeln!(out, "  {hint}.")?;
    }
    Ok(())
}
