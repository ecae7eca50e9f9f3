//! What compline promises, proved at library level: one file for each promise.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test says what went wrong by stopping"
)]

#[path = "../support/faulty_storage.rs"]
mod faulty_storage;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/weather.rs"]
mod weather;

mod clock_jumps;
mod concurrent;
mod copy;
mod crash;
mod crash_prune;
mod damage;
mod deltas;
mod incremental;
mod kill;
mod kill_copy;
mod labels;
mod lost_bases;
mod model;
mod parity;
mod prune;
mod read_only;
mod reflate;
mod remote;
mod repair;
mod restic_policies;
mod secrets;
mod shelf;
mod storms;
mod stream;
mod versions;
mod write_only;
