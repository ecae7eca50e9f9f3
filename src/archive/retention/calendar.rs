//! Periods of the calendar, in a time zone.
//!
//! A period is known by its name, `2026-W09` or `2026-03-01T02+01:00`: equal names are one period. Names of hours and
//! minutes carry the offset, so that a day on which clocks go back has 25 hours, and one on which they go forward 23.

use jiff::{Timestamp, ToSpan, Zoned};

use crate::units::Span;

/// What a counted rule keeps one snapshot of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Period {
    /// No period: every snapshot counts by itself (`last`).
    Each,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week of ISO 8601: from Monday; week 1 is the one with the year's first Thursday.
    Week,
    /// A month.
    Month,
    /// A quarter, from January, April, July or October.
    Quarter,
    /// Half a year, from January or July.
    HalfYear,
    /// A year.
    Year,
}

impl Period {
    /// From the shortest to the longest.
    pub const ALL: [Self; 9] = [
        Self::Each,
        Self::Minute,
        Self::Hour,
        Self::Day,
        Self::Week,
        Self::Month,
        Self::Quarter,
        Self::HalfYear,
        Self::Year,
    ];

    /// The rule that counts such periods: `--keep-NAME`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Each => "last",
            Self::Minute => "minutely",
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Quarter => "quarter-yearly",
            Self::HalfYear => "half-yearly",
            Self::Year => "yearly",
        }
    }

    /// The name of the period in which `time` lies.
    pub(super) fn of(self, time: &Zoned) -> String {
        let third = |months: i8| (time.month() - 1) / months + 1;
        match self {
            Self::Each => String::new(),
            Self::Minute => time.strftime("%Y-%m-%dT%H:%M%:z").to_string(),
            Self::Hour => time.strftime("%Y-%m-%dT%H%:z").to_string(),
            Self::Day => time.strftime("%Y-%m-%d").to_string(),
            Self::Week => time.strftime("%G-W%V").to_string(),
            Self::Month => time.strftime("%Y-%m").to_string(),
            Self::Quarter => format!("{}-Q{}", time.strftime("%Y"), third(3)),
            Self::HalfYear => format!("{}-H{}", time.strftime("%Y"), third(6)),
            Self::Year => time.strftime("%Y").to_string(),
        }
    }

    /// The name `of` a period, for people: single snapshots have none.
    pub(super) fn shown(self, of: String) -> Option<String> {
        (self != Self::Each).then_some(of)
    }
}

/// The moment `span` before `time`: years to days by the calendar, hours and shorter by the clock. A day that the month
/// lacks is its last one. What lies before all time is the beginning of it.
pub(super) fn before(time: &Zoned, span: Span) -> Timestamp {
    let Span { years, months, weeks, days, hours, minutes, seconds } = span;
    let span = i64::from(years).years().months(i64::from(months)).weeks(i64::from(weeks)).days(i64::from(days));
    let span = span.hours(i64::from(hours)).minutes(i64::from(minutes)).seconds(i64::from(seconds));
    time.checked_sub(span).map_or(Timestamp::MIN, |time| time.timestamp())
}
