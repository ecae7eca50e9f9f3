//! What compline promises, proved at library level: one file for each promise.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test says what went wrong by stopping"
)]

#[path = "../support/faulty_storage.rs"]
mod faulty_storage;
#[path = "../support/mod.rs"]
mod support;

mod concurrent;
mod crash;
mod damage;
mod deltas;
mod incremental;
mod kill;
mod labels;
mod lost_bases;
mod model;
mod parity;
mod prune;
mod repair;
mod restic_policies;
mod secrets;
mod shelf;
mod stream;
mod versions;
