//! Which snapshots are to be kept.

use std::time::Duration;

use crate::error::Result;
use crate::settings::Settings;

/// `[retention]` of a plan. A snapshot is kept if any of the rules wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// The newest ones.
    pub last: u32,
    /// One for each of so many hours that have one.
    pub hourly: u32,
    /// One for each of so many days.
    pub daily: u32,
    /// One for each of so many weeks.
    pub weekly: u32,
    /// One for each of so many months.
    pub monthly: u32,
    /// One for each of so many years.
    pub yearly: u32,
    /// All that are younger.
    pub within: Option<Duration>,
    /// Those with one of these tags.
    pub keep_tags: Vec<String>,
    /// Count complete snapshots only.
    pub only_complete: bool,
}

impl Retention {
    /// Reads a checked table `[retention]`.
    pub(super) fn read(settings: &Settings) -> Result<Self> {
        let Some(keep) = settings.table("keep") else {
            return Err(settings.error("keep", "is missing"));
        };
        let retention = Self {
            last: count(&keep, "last")?,
            hourly: count(&keep, "hourly")?,
            daily: count(&keep, "daily")?,
            weekly: count(&keep, "weekly")?,
            monthly: count(&keep, "monthly")?,
            yearly: count(&keep, "yearly")?,
            within: keep.duration("within"),
            keep_tags: settings.text_list("keep_tags"),
            only_complete: settings.boolean("only_complete").unwrap_or(true),
        };
        if retention.keeps_nothing() {
            let error = settings.error("keep", "would keep no snapshot at all");
            return Err(error.hint("Give at least one rule, such as keep = { last = 3, daily = 14 }"));
        }
        Ok(retention)
    }

    fn keeps_nothing(&self) -> bool {
        let counts = [self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly];
        counts.iter().all(|count| *count == 0) && self.within.is_none_or(|within| within.is_zero())
    }
}

fn count(settings: &Settings, key: &str) -> Result<u32> {
    u32::try_from(settings.integer(key).unwrap_or(0))
        .map_err(|_| settings.error(key, "must be a number of snapshots, 0 or more"))
}
