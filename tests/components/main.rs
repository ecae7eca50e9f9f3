//! Kinds that need no server, against real programs and real database files.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test says what went wrong by stopping"
)]
#![allow(clippy::unnecessary_debug_formatting, reason = "paths are quoted as TOML wants them")]

#[path = "../support/stage.rs"]
mod stage;

mod command;
mod sqlite;
