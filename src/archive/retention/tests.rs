use proptest::prelude::*;

use super::*;
use crate::units::parse_span;

const NOW: &str = "2030-01-01T00:00:00Z";

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn span(text: &str) -> Span {
    parse_span(text).expect("a span")
}

/// Berlin's rules, independent of the machine's database.
fn berlin() -> TimeZone {
    TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a time zone")
}

/// Snapshots of these times, numbered as they come. A `p` before the time makes one partial, a `!` pins it.
fn items(times: &[&str]) -> Vec<Item<'static>> {
    let item = |(n, text): (u8, &&str)| {
        let time = time(text.trim_start_matches(['p', '!']));
        Item {
            id: SnapshotId::from_bytes([n; 32]),
            original: None,
            time,
            finished_at: time,
            is_complete: !text.starts_with('p'),
            is_pinned: text.starts_with('!'),
            tags: &[],
        }
    };
    (0..).zip(times).map(item).collect()
}

fn counts<const N: usize>(counts: [(Period, u32); N]) -> Policy {
    Policy { counts: counts.map(|(period, count)| (period, Count::Newest(count))).to_vec(), ..Policy::default() }
}

/// The numbers of those that are kept, and why.
fn reasons(items: &[Item<'_>], policy: &Policy, zone: &TimeZone) -> Vec<(usize, String)> {
    let verdicts = decide(items, policy, zone, time(NOW));
    let kept = verdicts.into_iter().enumerate().filter_map(|(n, verdict)| match verdict {
        Verdict::Keep(reasons) => Some((n, reasons.iter().map(Reason::to_string).collect::<Vec<_>>().join("; "))),
        _ => None,
    });
    kept.collect()
}

fn kept(times: &[&str], policy: &Policy, zone: &TimeZone) -> Vec<usize> {
    reasons(&items(times), policy, zone).into_iter().map(|(n, _)| n).collect()
}

#[test]
fn the_newest_of_each_period_is_kept_and_the_oldest_while_slots_are_left() {
    let times = [
        "2026-02-27T02:10:00Z",
        "2026-02-28T02:10:00Z",
        "2026-02-28T14:00:00Z",
        "2026-03-01T02:10:00Z",
        "2026-03-02T02:10:00Z",
    ];
    let items = items(&times);
    let because = |policy: &Policy| reasons(&items, policy, &TimeZone::UTC);
    let text = |rows: &[(usize, &str)]| rows.iter().map(|(n, text)| (*n, (*text).to_owned())).collect::<Vec<_>>();
    assert_eq!(
        because(&counts([(Period::Day, 3)])),
        text(&[(2, "daily 2026-02-28"), (3, "daily 2026-03-01"), (4, "daily 2026-03-02")])
    );
    assert_eq!(
        because(&counts([(Period::Month, 5), (Period::Each, 1)])),
        text(&[(0, "oldest for monthly 2026-02"), (2, "monthly 2026-02"), (4, "monthly 2026-03; last")])
    );
    assert_eq!(because(&counts([(Period::Month, 2)])).len(), 2);
    assert!(because(&counts([(Period::Month, 0)])).is_empty());
    let every = Policy { counts: vec![(Period::Month, Count::Every)], ..Policy::default() };
    assert_eq!(because(&every).len(), 3);
}

#[test]
fn weeks_are_those_of_iso_8601() {
    // 2026-12-31 and 2027-01-01 are Thursday and Friday of week 53; 2027-01-04 begins week 1. 2024-12-30 is in 2025.
    let times = [
        "2024-12-30T12:00:00Z",
        "2025-01-05T12:00:00Z",
        "2026-12-31T12:00:00Z",
        "2027-01-03T12:00:00Z",
        "2027-01-04T12:00:00Z",
    ];
    let weeks = reasons(&items(&times), &counts([(Period::Week, 3)]), &TimeZone::UTC);
    assert_eq!(
        weeks,
        [(1, "weekly 2025-W01".to_owned()), (3, "weekly 2026-W53".to_owned()), (4, "weekly 2027-W01".to_owned())]
    );
}

#[test]
fn quarters_and_halves_begin_with_their_months() {
    let times: Vec<String> = (1..=12).map(|month| format!("2028-{month:02}-29T23:59:59Z")).collect();
    let times: Vec<&str> = times.iter().map(String::as_str).collect();
    assert_eq!(kept(&times, &counts([(Period::Quarter, 4)]), &TimeZone::UTC), [2, 5, 8, 11]);
    assert_eq!(kept(&times, &counts([(Period::HalfYear, 2)]), &TimeZone::UTC), [5, 11]);
    assert_eq!(kept(&times, &counts([(Period::Year, 1)]), &TimeZone::UTC), [11]);
    assert_eq!(kept(&times, &counts([(Period::Month, 12)]), &TimeZone::UTC).len(), 12);
}

#[test]
fn days_begin_where_the_time_zone_says() {
    // Half past midnight in Berlin is still the day before in London.
    let times = ["2026-07-01T12:00:00Z", "2026-07-01T22:30:00Z", "2026-07-02T12:00:00Z"];
    assert_eq!(kept(&times, &counts([(Period::Day, 2)]), &TimeZone::UTC), [1, 2]);
    assert_eq!(kept(&times, &counts([(Period::Day, 2)]), &berlin()), [0, 2]);
}

#[test]
fn the_day_on_which_clocks_go_back_has_25_hours_and_the_other_one_23() {
    for (day, hours) in [("2026-10-25", 25), ("2026-03-29", 23), ("2026-06-01", 24)] {
        let midnight = day.parse::<jiff::civil::Date>().unwrap().to_zoned(berlin()).unwrap();
        let end = midnight.tomorrow().unwrap();
        // Every half-hour of the day; half of them are the newest of their hour.
        let times: Vec<String> = (0..2 * 25)
            .map(|n| midnight.timestamp() + jiff::SignedDuration::from_mins(30 * n))
            .take_while(|time| *time < end.timestamp())
            .map(|time| time.to_string())
            .collect();
        let times: Vec<&str> = times.iter().map(String::as_str).collect();
        assert_eq!(times.len(), 2 * hours);
        assert_eq!(kept(&times, &counts([(Period::Hour, 24)]), &berlin()).len(), (hours + 1).min(24), "{day}");
        let every = Policy { counts: vec![(Period::Hour, Count::Every)], ..Policy::default() };
        // The oldest of all as well.
        assert_eq!(kept(&times, &every, &berlin()).len(), hours + 1, "{day}");
        assert_eq!(kept(&times, &counts([(Period::Day, 1)]), &berlin()).len(), 1, "{day}");
        assert_eq!(kept(&times, &counts([(Period::Minute, 60)]), &berlin()).len(), 2 * hours, "{day}");
    }
}

#[test]
fn a_date_that_comes_twice_is_one_day() {
    // St. John's went back at 00:01 until 2011: the sixth began, the fifth went on for an hour, the sixth began again.
    let zone = TimeZone::posix("NST3:30NDT,M3.2.0/0:01,M11.1.0/0:01").unwrap();
    let times = ["2010-11-06T12:00:00Z", "2010-11-07T02:30:30Z", "2010-11-07T03:00:00Z", "2010-11-07T12:00:00Z"];
    let days = reasons(&items(&times), &counts([(Period::Day, 2)]), &zone);
    assert_eq!(days, [(2, "daily 2010-11-06".to_owned()), (3, "daily 2010-11-07".to_owned())]);
}

#[test]
fn spans_are_of_the_calendar_and_hours_are_of_the_clock() {
    let zone = berlin();
    let ago = |from: &str, back: &str| calendar::before(&time(from).to_zoned(zone.clone()), span(back)).to_string();
    // 02:10 on the day after clocks went back: a day ago it was 02:10 too, 25 hours earlier.
    assert_eq!(ago("2026-10-26T01:10:00Z", "1d"), "2026-10-25T00:10:00Z");
    assert_eq!(ago("2026-10-25T12:00:00Z", "1d"), "2026-10-24T11:00:00Z");
    assert_eq!(ago("2026-10-25T12:00:00Z", "24h"), "2026-10-24T12:00:00Z");
    // A day that the month lacks is its last one.
    assert_eq!(ago("2028-03-31T10:00:00Z", "1mo"), "2028-02-29T11:00:00Z");
    assert_eq!(ago("2028-02-29T11:00:00Z", "1y"), "2027-02-28T11:00:00Z");
    assert_eq!(ago("2028-02-29T11:00:00Z", "9999y"), "-007971-02-28T11:00:00Z");
    let everything = "9999y9999mo9999w9999d9999h9999min9999s";
    assert!(calendar::before(&Timestamp::MIN.to_zoned(zone.clone()), span(everything)) == Timestamp::MIN);
}

#[test]
fn within_counts_back_from_the_newest_and_leaves_out_the_moment_itself() {
    let times = ["2020-01-01T00:00:00Z", "2020-01-06T00:00:00Z", "2020-01-06T00:00:01Z", "2020-01-08T00:00:00Z"];
    let within = |text| Policy { within: Some(span(text)), ..Policy::default() };
    assert_eq!(kept(&times, &within("2d"), &TimeZone::UTC), [2, 3]);
    assert_eq!(kept(&times, &within("1s"), &TimeZone::UTC), [3]);
    assert!(kept(&times, &within("0d"), &TimeZone::UTC).is_empty());
    let daily = Policy { within_periods: vec![(Period::Day, span("1w"))], ..Policy::default() };
    assert_eq!(kept(&times, &daily, &TimeZone::UTC), [2, 3]);
    let text = reasons(&items(&times), &daily, &TimeZone::UTC).pop().unwrap().1;
    assert_eq!(text, "daily 2020-01-08 within 1w");
}

#[test]
fn what_has_yet_to_come_is_kept_and_pushes_nothing_out() {
    let times = ["2029-12-30T00:00:00Z", "2029-12-31T00:00:00Z", "2036-02-07T06:28:15Z", "2036-02-07T06:28:15Z"];
    assert_eq!(kept(&times, &counts([(Period::Each, 1)]), &TimeZone::UTC), [1, 2, 3]);
    let within = Policy { within: Some(span("12h")), ..Policy::default() };
    assert_eq!(kept(&times, &within, &TimeZone::UTC), [1, 2, 3]);
    // A machine whose clock was set back to the epoch removes nothing.
    let verdicts = decide(&items(&times), &counts([(Period::Each, 1)]), &TimeZone::UTC, Timestamp::UNIX_EPOCH);
    assert!(verdicts.iter().all(Verdict::is_kept));
}

#[test]
fn equal_times_are_ordered_by_when_they_finished_and_then_by_id() {
    let mut items = items(&["2026-01-01T00:00:00Z"; 4]);
    items[1].finished_at = time("2026-01-01T01:00:00Z");
    let last = |items: &[Item<'_>], n| {
        let rows = reasons(items, &counts([(Period::Each, n)]), &TimeZone::UTC);
        rows.into_iter().map(|(n, _)| n).collect::<Vec<_>>()
    };
    assert_eq!(last(&items, 1), [1]);
    assert_eq!(last(&items, 2), [1, 3]);
}

#[test]
fn tags_ids_and_pins_keep_whatever_the_rules_say() {
    let (one, both) = (vec!["a".to_owned()], vec!["a".to_owned(), "b".to_owned()]);
    let mut items =
        items(&["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "!2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z"]);
    items[0].tags = &one;
    items[1].tags = &both;
    items[3].original = Some(SnapshotId::from_bytes([0xab; 32]));
    let policy = |tags: &[&str], ids: &[&str]| Policy {
        tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
        ids: ids.iter().map(|&id| id.to_owned()).collect(),
        ..Policy::default()
    };
    let numbers =
        |policy: &Policy| reasons(&items, policy, &TimeZone::UTC).into_iter().map(|(n, _)| n).collect::<Vec<_>>();
    assert_eq!(numbers(&policy(&["a"], &[])), [0, 1, 2]);
    assert_eq!(numbers(&policy(&["a,b"], &[])), [1, 2]);
    assert_eq!(numbers(&policy(&["b", "c"], &[])), [1, 2]);
    assert_eq!(numbers(&policy(&[], &["0000", "abab"])), [0, 2, 3]);
    assert!(Policy::default().keeps_nothing() && !policy(&["a"], &[]).keeps_nothing());
}

#[test]
fn two_records_of_one_snapshot_take_one_slot_and_stay_or_go_together() {
    let mut items = items(&[
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00Z",
        "2026-01-02T00:00:00Z",
        "2026-01-02T00:00:00Z",
        "2026-01-03T00:00:00Z",
    ]);
    items[0].original = Some(items[1].id);
    items[3].original = Some(items[2].id);
    let numbers = |items: &[Item<'_>], policy: &Policy| {
        reasons(items, policy, &TimeZone::UTC).into_iter().map(|(n, _)| n).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&items, &counts([(Period::Each, 2)])), [2, 3, 4]);
    assert_eq!(numbers(&items, &counts([(Period::Each, 1)])), [4]);
    items[0].is_pinned = true;
    let because = reasons(&items, &counts([(Period::Each, 1)]), &TimeZone::UTC);
    assert_eq!(because[1], (1, "the same one as another, with other labels".to_owned()));
}

#[test]
fn partial_snapshots_never_displace_complete_ones() {
    let times = [
        "2026-01-01T02:00:00Z",
        "2026-01-02T02:00:00Z",
        "p2026-01-02T03:00:00Z",
        "p2026-01-03T02:00:00Z",
        "2026-01-04T02:00:00Z",
        "p2026-01-05T02:00:00Z",
        "p2026-01-06T02:00:00Z",
    ];
    // The third has a day of its own within reach, the day of 2 has a complete one. Those after the last complete one
    // have slots too.
    assert_eq!(kept(&times, &counts([(Period::Day, 2)]), &TimeZone::UTC), [1, 4, 5, 6]);
    assert_eq!(kept(&times, &counts([(Period::Day, 3)]), &TimeZone::UTC), [0, 1, 3, 4, 5, 6]);
    assert_eq!(kept(&times, &counts([(Period::Each, 1)]), &TimeZone::UTC), [4, 6]);
    assert_eq!(kept(&times, &counts([(Period::Each, 5)]), &TimeZone::UTC), [0, 1, 4, 5, 6]);
    // The month has a complete one; the newest of all is kept all the same.
    let monthly = reasons(&items(&times), &counts([(Period::Month, 1)]), &TimeZone::UTC);
    assert_eq!(monthly, [(4, "monthly 2026-01".to_owned()), (6, "newest, though partial".to_owned())]);
    let verdicts = decide(&items(&times), &counts([(Period::Month, 1)]), &TimeZone::UTC, time(NOW));
    assert_eq!((&verdicts[0], &verdicts[2]), (&Verdict::Remove, &Verdict::RemovePartial));
    // Counted like complete ones, where that is asked for.
    let alike = Policy { only_complete: false, ..counts([(Period::Day, 2)]) };
    assert_eq!(kept(&times, &alike, &TimeZone::UTC), [5, 6]);
}

#[test]
fn where_no_snapshot_is_complete_the_partial_ones_have_the_rules_to_themselves() {
    let times = ["p2026-01-01T02:00:00Z", "p2026-01-02T02:00:00Z", "p2026-01-02T03:00:00Z", "p2026-01-03T02:00:00Z"];
    assert_eq!(kept(&times, &counts([(Period::Day, 2)]), &TimeZone::UTC), [2, 3]);
    assert_eq!(kept(&times, &counts([(Period::Month, 2)]), &TimeZone::UTC), [0, 3]);
}

#[test]
fn weeks_of_partial_nights_neither_push_out_the_last_complete_ones_nor_lose_their_days() {
    let night = |n: i64| (time("2026-01-01T02:00:00Z") + jiff::SignedDuration::from_hours(24 * n)).to_string();
    let times: Vec<String> = (0..90).map(|n| if n < 30 { night(n) } else { format!("p{}", night(n)) }).collect();
    let times: Vec<&str> = times.iter().map(String::as_str).collect();
    let kept = kept(&times, &counts([(Period::Day, 7)]), &TimeZone::UTC);
    assert_eq!(kept, (23..30).chain(83..90).collect::<Vec<_>>());
    let within = Policy { within: Some(span("3d")), ..Policy::default() };
    assert_eq!(super::tests::kept(&times, &within, &TimeZone::UTC), [27, 28, 29, 87, 88, 89]);
}

fn a_policy() -> impl Strategy<Value = Policy> {
    let periods = || prop::sample::select(Period::ALL.to_vec());
    let spans = prop::sample::select(vec!["0d", "1min", "90min", "1d", "1w", "2mo", "1y1mo1d", "9999y"]);
    let count = prop_oneof![4 => (0u32..6).prop_map(Count::Newest), 1 => Just(Count::Every)];
    (
        prop::collection::vec((periods(), count), 0..4),
        prop::option::weighted(0.3, spans.clone()),
        prop::collection::vec((periods(), spans), 0..3),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(counts, within, within_periods, tagged, only_complete)| Policy {
            counts,
            within: within.map(span),
            within_periods: within_periods.into_iter().map(|(period, text)| (period, span(text))).collect(),
            tags: if tagged { vec!["keep".to_owned()] } else { Vec::new() },
            ids: Vec::new(),
            only_complete,
        })
}

/// So many seconds before now, how much more until it finished, complete, pinned, tagged.
type Raw = (i64, i64, bool, bool, bool);

fn raw() -> impl Strategy<Value = Vec<Raw>> {
    // Minutes, hours, days and years apart; some in the future, many at equal times.
    let ago = prop_oneof![-7200i64..7200, 0i64..400_000, 0i64..100_000_000, (0i64..40).prop_map(|n| n * 43_200)];
    prop::collection::vec(
        (ago, 0i64..3, prop::bool::weighted(0.6), prop::bool::weighted(0.05), prop::bool::weighted(0.1)),
        0..40,
    )
}

fn zones() -> impl Strategy<Value = TimeZone> {
    prop_oneof![Just(TimeZone::UTC), Just(berlin()), Just(TimeZone::posix("LHST-10:30LHDT-11,M10.1.0,M4.1.0").unwrap())]
}

fn built<'t>(raw: &[Raw], tags: &'t [String]) -> Vec<Item<'t>> {
    let mut items: Vec<Item<'t>> = Vec::new();
    for (n, &(ago, more, is_complete, is_pinned, tagged)) in (0..).zip(raw) {
        let time = time(NOW) - jiff::SignedDuration::from_secs(ago);
        let (id, tags): (_, &[String]) = (SnapshotId::from_bytes([n; 32]), if tagged { tags } else { &[] });
        let finished_at = time + jiff::SignedDuration::from_secs(more);
        let fresh = Item { id, original: None, time, finished_at, is_complete, is_pinned, tags };
        items.push(match items.last() {
            // Now and then what came before, with other labels.
            Some(twin) if more == 2 => Item { id, original: Some(twin.lineage()), is_pinned, tags, ..twin.clone() },
            _ => fresh,
        });
    }
    items
}

fn kept_ids(items: &[Item<'_>], policy: &Policy, zone: &TimeZone) -> BTreeSet<SnapshotId> {
    let verdicts = decide(items, policy, zone, time(NOW));
    items.iter().zip(verdicts).filter(|(_, verdict)| verdict.is_kept()).map(|(item, _)| item.id).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_was_kept_is_kept_again(raw in raw(), policy in a_policy(), zone in zones()) {
        let tags = ["keep".to_owned()];
        let items = built(&raw, &tags);
        let kept = kept_ids(&items, &policy, &zone);
        let rest: Vec<Item<'_>> = items.into_iter().filter(|item| kept.contains(&item.id)).collect();
        prop_assert_eq!(kept_ids(&rest, &policy, &zone), kept);
    }

    #[test]
    fn no_group_is_emptied_by_a_rule_of_time(raw in raw(), policy in a_policy(), zone in zones()) {
        let tags = ["keep".to_owned()];
        let items = built(&raw, &tags);
        let kept = kept_ids(&items, &policy, &zone);
        if policy.has_rules_of_time() {
            prop_assert_eq!(kept.is_empty(), items.is_empty());
            // The newest that is complete, or the newest, if that is in the past.
            let present = items.iter().filter(|item| item.time <= time(NOW));
            let key = |item: &&Item<'_>| (item.is_complete || !policy.only_complete, item.time, item.finished_at, item.id);
            let newest = present.max_by_key(key);
            prop_assert!(newest.is_none_or(|newest| kept.contains(&newest.id)));
        }
        for item in &items {
            prop_assert!(kept.contains(&item.id) || !(item.is_pinned || item.time > time(NOW)));
        }
    }

    #[test]
    fn complete_ones_are_decided_as_if_there_were_no_partial_ones(raw in raw(), policy in a_policy(), zone in zones()) {
        let (tags, policy) = (["keep".to_owned()], Policy { only_complete: true, ..policy });
        let items = built(&raw, &tags);
        let complete: Vec<Item<'_>> = items.iter().filter(|item| item.is_complete).cloned().collect();
        let alone = kept_ids(&complete, &policy, &zone);
        let kept = kept_ids(&items, &policy, &zone);
        let among: BTreeSet<SnapshotId> = complete.iter().map(|item| item.id).filter(|id| kept.contains(id)).collect();
        prop_assert_eq!(among, alone);
    }

    #[test]
    fn more_rules_keep_more_and_the_order_of_items_is_nothing(
        raw in raw(), policy in a_policy(), more in a_policy(), zone in zones()
    ) {
        let (tags, more) = (["keep".to_owned()], Policy { only_complete: policy.only_complete, ..more });
        let mut items = built(&raw, &tags);
        let kept = kept_ids(&items, &policy, &zone);
        let mut both = policy.clone();
        both.counts.extend(more.counts);
        both.within_periods.extend(more.within_periods);
        prop_assert!(kept.is_subset(&kept_ids(&items, &both, &zone)));
        items.reverse();
        prop_assert_eq!(kept_ids(&items, &policy, &zone), kept);
    }

    #[test]
    fn a_counted_rule_keeps_no_more_than_its_count_of_each_sort(
        raw in raw(), count in 0u32..5, period in prop::sample::select(Period::ALL.to_vec())
    ) {
        let plain = raw.into_iter().map(|(ago, _, is_complete, _, _)| (ago.max(0), 0, is_complete, false, false));
        let items = built(&plain.collect::<Vec<_>>(), &[]);
        let kept = kept_ids(&items, &counts([(period, count)]), &TimeZone::UTC);
        let complete = items.iter().filter(|item| item.is_complete && kept.contains(&item.id)).count();
        // The newest partial one comes on top.
        prop_assert!(complete <= count as usize && kept.len() - complete <= count as usize + 1);
    }
}
