//! Sizes, rates, durations and counts: as the plan and the command line write them, and as people read them.
//!
//! Parsing is exact (no floating point): `1.5MiB` is 1,572,864 bytes. `KiB` and `K` are 1024, `KB` is 1000.

mod span;

use std::time::Duration;

pub use span::{SPAN_PATTERN, SPAN_SYNTAX, Span, parse_span};

const SIZE_UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
    ("K", 1 << 10),
    ("M", 1 << 20),
    ("G", 1 << 30),
    ("T", 1 << 40),
    ("P", 1 << 50),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
];

const DURATION_UNITS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];

/// How sizes are written, for messages and the JSON Schema.
pub const SIZE_SYNTAX: &str = "a number and a unit, such as 512B, 64KiB, 1.5MiB or 20GB";
/// How durations are written.
pub const DURATION_SYNTAX: &str = "a number and a unit, such as 30s, 5m, 2h, 1h30m, 1d or 1w";
/// [`SIZE_SYNTAX`] as a regular expression.
pub const SIZE_PATTERN: &str = r"^[0-9]+(\.[0-9]+)? *(B|[kK]B|[KMGTP]iB|[MGTP]B|[KMGTP])?$";
/// [`DURATION_SYNTAX`] as a regular expression.
pub const DURATION_PATTERN: &str = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d|w))+$";

/// Bytes of a size such as `64KiB` or `1.5MiB`; a bare number is bytes. None if it isn't one, or is out of range.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, rest) = split_number(text.trim());
    scaled(number, unit(SIZE_UNITS, rest.trim_start())?)
}

/// Bytes a second, with or without the `/s`: `500KiB`, `20MB/s`. None if it isn't one, or is nothing, or has no unit: other programs
/// count in KiB.
#[must_use]
pub fn parse_speed(text: &str) -> Option<u64> {
    let text = text.trim();
    let size = text.strip_suffix("/s").unwrap_or(text).trim_end();
    let has_unit = size.ends_with(|last: char| last.is_ascii_alphabetic());
    parse_size(size).filter(|rate| *rate > 0 && has_unit)
}

/// A duration such as `30s`, `1.5h` or `1h30m`. None if it isn't one, or is out of range.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total_ms = 0u64;
    while !rest.is_empty() {
        let (number, after) = split_number(rest);
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (name, next) = after.split_at(end);
        total_ms = total_ms.checked_add(scaled(number, unit(DURATION_UNITS, name)?)?)?;
        rest = next;
    }
    if text.trim().is_empty() { None } else { Some(Duration::from_millis(total_ms)) }
}

fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.split_at(end)
}

fn unit(units: &[(&str, u64)], name: &str) -> Option<u64> {
    units.iter().find(|(known, _)| *known == name).map(|(_, factor)| *factor)
}

/// `number` (digits, perhaps with a fraction) times `factor`, rounded down.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let mut total = u128::from(whole.parse::<u64>().ok()?).checked_mul(u128::from(factor))?;
    if fraction.len() > 18 {
        return None;
    }
    let divisor = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    total = total.checked_add(u128::from(fraction.parse::<u64>().ok()?) * u128::from(factor) / divisor)?;
    u64::try_from(total).ok()
}

/// A size for people: `0 B`, `812 B`, `1.5 MiB`, `12.0 GiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const NAMES: &[&str] = &["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut name = 0;
    while tenths >= 10_240 && name + 1 < NAMES.len() {
        tenths /= 1024;
        name += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, NAMES[name])
}

/// A size as the plan writes it, exactly: `64KiB`, `1000B`.
#[must_use]
pub fn size_exact(bytes: u64) -> String {
    const NAMES: &[(&str, u64)] =
        &[("PiB", 1 << 50), ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match NAMES.iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor)) {
        Some((name, factor)) => format!("{}{name}", bytes / factor),
        None => format!("{bytes}B"),
    }
}

/// Bytes in a time, for people: `120.3 MiB/s`.
#[must_use]
pub fn rate(bytes: u64, time: Duration) -> String {
    let per_second = u128::from(bytes) * 1_000_000 / time.as_micros().max(1);
    format!("{}/s", size(u64::try_from(per_second).unwrap_or(u64::MAX)))
}

/// A duration for people: `0.4 s`, `12.0 s`, `3 min 05 s`, `1 h 02 min`, `2 d 3 h`.
#[must_use]
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}.{} s", time.subsec_millis() / 100),
        60..3_600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {:02} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// A duration as the plan writes it, exactly to the millisecond: `2h`, `1h30m`, `0s`.
#[must_use]
pub fn duration_exact(time: Duration) -> String {
    const NAMES: &[(&str, u128)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let mut rest = time.as_millis();
    let mut parts = Vec::new();
    for (name, factor) in NAMES {
        if rest >= *factor {
            parts.push(format!("{}{name}", rest / factor));
            rest %= factor;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.concat() }
}

/// A count for people, with thousands apart: `12,345`.
#[must_use]
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_exactly() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("64KiB", 65_536),
            ("64 KiB", 65_536),
            ("1.5MiB", 1_572_864),
            ("0.1KB", 100),
            ("20GB", 20_000_000_000),
            ("2G", 2 << 30),
            ("16383PiB", 16_383 << 50),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in
            ["", "KiB", "-1", "1..5K", "1.K", ".5K", "5 potatoes", "64kib", "16384PiB", "99999999999999999999", "1e3"]
        {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn rates_are_sizes_a_second() {
        assert_eq!((parse_speed("20MiB"), parse_speed(" 20 MiB/s")), (Some(20 << 20), Some(20 << 20)));
        for text in ["20", "20/s", "0B", "/s", "fast"] {
            assert_eq!(parse_speed(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_read() {
        for (text, ms) in [
            ("30s", 30_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1_500),
            ("250ms", 250),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", " ", "5", "s", "5 s", "5y", "h5", "-1s", "99999999999999999w"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn people_read_short_forms() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1.0 KiB");
        assert_eq!(size(1_572_864), "1.5 MiB");
        assert_eq!(size(u64::MAX), "15.9 EiB");
        assert_eq!(rate(10 << 20, Duration::from_millis(500)), "20.0 MiB/s");
        assert_eq!(duration(Duration::from_millis(449)), "0.4 s");
        assert_eq!(duration(Duration::from_secs(185)), "3 min 05 s");
        assert_eq!(duration(Duration::from_secs(3_720)), "1 h 02 min");
        assert_eq!(duration(Duration::from_secs(183_600)), "2 d 3 h");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
    }

    proptest! {
        #[test]
        fn exact_forms_are_read_back(bytes: u64, ms in 0u64..u64::MAX / 2) {
            prop_assert_eq!(parse_size(&size_exact(bytes)), Some(bytes));
            let time = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&duration_exact(time)), Some(time));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in ".{0,40}") {
            let _ = (parse_size(&text), parse_speed(&text), parse_duration(&text));
        }
    }
}
