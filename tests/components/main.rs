//! Kinds that need no server, against real programs and real database files.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../support/stage.rs"]
mod stage;

mod command;
mod sqlite;
