//! Programs that components run: one, or several piped into each other.
//!
//! What makes a stream trustworthy is decided here, once for all kinds:
//!
//! - **The end of the output is not the end of the story.** A reader of [`Running`] gets its end of file only after
//!   every program of the chain has been waited for and has exited 0. Otherwise it gets an error, so that whoever
//!   copies the stream never takes a truncated one for whole.
//! - **The end of the input isn't either.** When the reader that feeds a chain fails, the chain is killed instead of
//!   being shown an end of file, which `psql` and `tar` would take for success.
//! - **Nothing is left behind.** Each program leads a process group of its own. Whatever way [`Running`] is left,
//!   the groups are ended (SIGTERM, two seconds, SIGKILL) and the programs reaped.
//! - **Nobody deadlocks.** One loop around `poll` serves standard input, output and the standard errors of the whole chain;
//!   no thread is needed, and neither a chatty program nor a slow reader can block it.
//!
//! A word is an argument, never shell text. Secrets travel in the environment or in files.

mod chain;
mod member;
mod program;
mod rewrite;
mod running;
mod tail;

pub use chain::{Chain, Input, Limits, Output};
pub use program::Program;
pub use rewrite::Rewrite;
pub use running::Running;
pub use tail::Tail;
pub(crate) use tail::contains;

#[cfg(test)]
mod tests;
