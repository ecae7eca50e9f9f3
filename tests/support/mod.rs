//! What tests share. A test binary takes it with `#[path = "../support/mod.rs"] mod support;`.
#![allow(dead_code, reason = "every test binary uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::struct_excessive_bools,
    clippy::unused_self,
    clippy::large_stack_arrays,
    clippy::unnecessary_debug_formatting,
    reason = "a test says what went wrong by stopping, and is read more often than it is called"
)]

pub mod compare;
pub mod dump;
pub mod gzip;
pub mod memory;
pub mod nasty;

use std::sync::atomic::AtomicBool;

use compline::clock::FixedClock;
use compline::observer::{Context, Ledger};

/// A world that stands still and keeps what it is told.
pub struct World {
    pub clock: FixedClock,
    pub ledger: Ledger,
    pub interrupt: AtomicBool,
}

impl World {
    pub fn new() -> Self {
        let clock = FixedClock("2026-01-02T03:04:05Z".parse().unwrap());
        Self { clock, ledger: Ledger::default(), interrupt: AtomicBool::new(false) }
    }

    pub fn context(&self) -> Context<'_> {
        Context { clock: &self.clock, observer: &self.ledger, interrupt: &self.interrupt }
    }

    /// The problems so far, one line each.
    pub fn problems(&self) -> Vec<String> {
        self.ledger.problems().iter().map(|problem| format!("{}: {}", problem.subject, problem.message)).collect()
    }
}

/// Whether the tests run as root. Both must pass.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
