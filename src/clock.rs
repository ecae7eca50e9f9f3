//! Time, as a parameter. Recorded times are UTC; nothing in the format depends on clocks that agree.

use jiff::Timestamp;

/// Tells the time.
pub trait Clock: Send + Sync {
    /// The wall clock now, UTC.
    fn now(&self) -> Timestamp;
}

/// Seconds since `started`; none if the clock was set back since.
pub fn seconds_since(clock: &dyn Clock, started: Timestamp) -> f64 {
    clock.now().duration_since(started).as_secs_f64().max(0.0)
}

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that stands still: for tests and for `--time`.
#[derive(Debug, Clone, Copy)]
pub struct FixedClock(pub Timestamp);

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        self.0
    }
}
