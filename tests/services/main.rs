//! Kinds that need a server, against real ones. The programs come from Debian's packages (`tests/run` installs them):
//! postgresql, postgresql-contrib.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../support/stage.rs"]
mod stage;

mod postgres;
mod postgres_server;
