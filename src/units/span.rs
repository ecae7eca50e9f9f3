//! Spans of the calendar, as retention needs them: a month is as long as it is. They are no [`Duration`]s.
//!
//! A bare `m` is refused. It is minutes in every other duration of compline and months in restic's `--keep-within`; to
//! take the one for the other deletes half a year of snapshots.
//!
//! [`Duration`]: std::time::Duration

use std::fmt;

use super::split_number;

/// How spans are written.
pub const SPAN_SYNTAX: &str = "numbers and units, such as 12h, 2d, 8w, 6mo or 1y6mo (mo are months, min minutes)";
/// [`SPAN_SYNTAX`] as a regular expression.
pub const SPAN_PATTERN: &str = r"^([0-9]{1,4}(y|mo|w|d|h|min|s))+$";

/// The largest number before a unit. 9999 years reach before every snapshot, and no sum of them overflows.
const NUMBER_MAX: u16 = 9999;

/// So many years, months, weeks, days, hours, minutes and seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// Years of the calendar.
    pub years: u16,
    /// Months of the calendar.
    pub months: u16,
    /// Weeks of seven days.
    pub weeks: u16,
    /// Days of the calendar, 23 to 25 hours long.
    pub days: u16,
    /// Hours of 3,600 seconds.
    pub hours: u16,
    /// Minutes.
    pub minutes: u16,
    /// Seconds.
    pub seconds: u16,
}

impl Span {
    /// Whether it is nothing at all.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    fn parts(&self) -> [(&'static str, u16); 7] {
        let Self { years, months, weeks, days, hours, minutes, seconds } = *self;
        [("y", years), ("mo", months), ("w", weeks), ("d", days), ("h", hours), ("min", minutes), ("s", seconds)]
    }

    fn part_mut(&mut self, unit: &str) -> Option<&mut u16> {
        Some(match unit {
            "y" => &mut self.years,
            "mo" => &mut self.months,
            "w" => &mut self.weeks,
            "d" => &mut self.days,
            "h" => &mut self.hours,
            "min" => &mut self.minutes,
            "s" => &mut self.seconds,
            _ => return None,
        })
    }
}

/// A span such as `2d` or `1y6mo`, each unit once. None if it isn't one.
#[must_use]
pub fn parse_span(text: &str) -> Option<Span> {
    let mut span = Span::default();
    let mut seen = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (number, after) = split_number(rest);
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let number = number.parse().ok().filter(|number| *number <= NUMBER_MAX)?;
        if seen.contains(&unit) {
            return None;
        }
        *span.part_mut(unit)? = number;
        seen.push(unit);
        rest = next;
    }
    (!seen.is_empty()).then_some(span)
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0s");
        }
        self.parts().iter().filter(|(_, number)| *number > 0).try_for_each(|(unit, number)| write!(f, "{number}{unit}"))
    }
}

impl serde::Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn months_and_minutes_are_never_taken_for_each_other() {
        assert_eq!(parse_span("6mo"), Some(Span { months: 6, ..Span::default() }));
        assert_eq!(parse_span("90min"), Some(Span { minutes: 90, ..Span::default() }));
        assert_eq!(parse_span("6m"), None);
        assert_eq!(parse_span("1m14d"), None);
    }

    #[test]
    fn what_is_no_span_is_refused() {
        for text in ["", " ", "d", "5", "1.5d", "-1d", "1d1d", "1 d", "10000y", "1fortnight", "2d "] {
            assert_eq!(parse_span(text).is_some(), text == "2d ", "{text}");
        }
    }

    proptest! {
        #[test]
        fn written_spans_are_read_back(numbers: [u16; 7]) {
            let [years, months, weeks, days, hours, minutes, seconds] = numbers.map(|number| number % (NUMBER_MAX + 1));
            let span = Span { years, months, weeks, days, hours, minutes, seconds };
            prop_assert_eq!(parse_span(&span.to_string()), Some(span));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _ = parse_span(&text);
        }
    }
}
