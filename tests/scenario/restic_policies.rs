//! The retention cases that restic publishes, as an outside check: the policies of its test, and what its golden files
//! keep. Nothing of restic is in this repository; the test reads a checkout of it (BSD-2-Clause) where there is one:
//!
//! ```text
//! git clone https://github.com/restic/restic
//! COMPLINE_RESTIC=$PWD/restic cargo nextest run --test scenario restic
//! ```

use std::path::{Path, PathBuf};

use compline::archive::retention::{Count, Item, Period, Policy, decide};
use compline::id::SnapshotId;
use compline::units::{Span, parse_span};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

/// A snapshot as both sides know it.
type Known = (Timestamp, Vec<String>);

fn package() -> Option<PathBuf> {
    let checkout = PathBuf::from(std::env::var_os("COMPLINE_RESTIC")?);
    // It has moved once.
    let found = ["internal/data", "internal/restic"].map(|place| checkout.join(place));
    let found = found.into_iter().find(|place| place.join("snapshot_policy_test.go").exists());
    Some(found.expect("COMPLINE_RESTIC is a checkout of restic with snapshot_policy_test.go"))
}

#[test]
fn the_golden_files_of_restic_keep_the_same_snapshots() {
    let Some(package) = package() else {
        eprintln!("SKIPPED: COMPLINE_RESTIC names no checkout of restic");
        return;
    };
    let text = std::fs::read_to_string(package.join("snapshot_policy_test.go")).unwrap();
    let snapshots: Vec<Known> =
        between(&text, "testExpireSnapshots = ", "var tests").lines().filter_map(known).collect();
    let policies = policies(between(&text, "var tests = ", "for i, p"));
    assert!(snapshots.len() > 90 && policies.len() >= 40, "{} snapshots, {} policies", snapshots.len(), policies.len());
    for (n, written) in policies.iter().enumerate() {
        let golden = golden(&package.join(format!("testdata/policy_keep_snapshots_{n}")));
        assert_eq!(kept(&snapshots, &policy(written)), golden, "policy {n}: {written}");
    }
    eprintln!("{} policies of restic keep the same of {} snapshots", policies.len(), snapshots.len());
}

fn between<'t>(text: &'t str, start: &str, end: &str) -> &'t str {
    let text = text.split_once(start).expect(start).1;
    text.split_once(end).expect(end).0
}

/// A line of the list of snapshots: a time, and perhaps tags.
fn known(line: &str) -> Option<Known> {
    let time = line.split_once("parseTimeUTC(\"")?.1.split_once('"')?.0;
    let time = format!("{}Z", time.replace(' ', "T")).parse().unwrap();
    let tags = line.split_once("Tags: []string{").map_or("", |(_, rest)| rest.split('}').next().unwrap());
    Some((time, quoted(tags)))
}

fn quoted(text: &str) -> Vec<String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The texts between the outermost braces below the first one.
fn policies(text: &str) -> Vec<String> {
    let text: String = text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join(" ");
    let (mut depth, mut found) = (0, Vec::new());
    for c in text.chars() {
        depth -= i32::from(c == '}');
        if depth >= 2
            && let Some(policy) = found.last_mut()
        {
            String::push(policy, c);
        }
        if c == '{' {
            depth += 1;
            if depth == 2 {
                found.push(String::new());
            }
        }
    }
    found
}

fn policy(written: &str) -> Policy {
    let mut policy = Policy::default();
    let value = |name: &str| {
        let at = written.match_indices(name).find(|(at, _)| !written[..*at].ends_with(char::is_alphanumeric))?.0;
        Some(written[at + name.len()..].trim_start().to_owned())
    };
    for (period, name) in [
        (Period::Each, "Last"),
        (Period::Hour, "Hourly"),
        (Period::Day, "Daily"),
        (Period::Week, "Weekly"),
        (Period::Month, "Monthly"),
        (Period::Year, "Yearly"),
    ] {
        if let Some(rest) = value(&format!("{name}:")) {
            let number = rest.split([',', ' ', '}']).next().unwrap();
            policy.counts.push((period, Count::parse(number).expect("a count")));
        }
        if let Some(rest) = value(&format!("Within{name}:")) {
            policy.within_periods.push((period, span(&rest)));
        }
    }
    policy.within = value("Within:").map(|rest| span(&rest));
    if let Some(rest) = value("Tags:") {
        let lists = rest.split('{').skip(2).map(|list| quoted(list.split('}').next().unwrap()).join(","));
        policy.tags = lists.collect();
    }
    policy
}

/// restic's `m` are months.
fn span(rest: &str) -> Span {
    let text = quoted(rest)[0].replace('m', "mo");
    parse_span(&text).expect("a span")
}

fn golden(path: &Path) -> Vec<Known> {
    let value: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let empty = Vec::new();
    let rows = value["keep"].as_array().unwrap_or(&empty);
    let tags = |row: &Value| match &row["tags"] {
        Value::Array(tags) => tags.iter().map(|tag| tag.as_str().unwrap().to_owned()).collect(),
        _ => Vec::new(),
    };
    let mut known: Vec<Known> =
        rows.iter().map(|row| (row["time"].as_str().unwrap().parse().unwrap(), tags(row))).collect();
    known.sort();
    known
}

/// What compline keeps. Equal times are ordered by id here, and by their place in the list there: the first counts as
/// the newest.
fn kept(snapshots: &[Known], policy: &Policy) -> Vec<Known> {
    let items: Vec<Item<'_>> = (0u8..=255)
        .rev()
        .zip(snapshots)
        .map(|(id, (time, tags))| Item {
            id: SnapshotId::from_bytes([id; 32]),
            original: None,
            time: *time,
            finished_at: *time,
            is_complete: true,
            is_pinned: false,
            tags,
        })
        .collect();
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let verdicts = decide(&items, policy, &TimeZone::UTC, now);
    let mut kept: Vec<Known> = snapshots
        .iter()
        .zip(verdicts)
        .filter(|(_, verdict)| verdict.is_kept())
        .map(|(known, _)| known.clone())
        .collect();
    kept.sort();
    kept
}
