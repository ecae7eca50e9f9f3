//! Bad days, with the real program: killed at any moment, many at once, on a full disk, through power cuts. Seconds of each
//! by default; variables ask for more, docs/src/reliability.md tells which.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test says what went wrong by stopping"
)]

mod full_disk;
mod power_cut;
mod program;
mod thrash;
