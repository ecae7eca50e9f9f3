//! Which snapshots of a group are kept, and why: decided without effects, from the recorded times alone.
//!
//! - A snapshot is kept if any rule wants it. Rules never see each other.
//! - Order is that of format-spec 09: `time`, `finished_at`, id. A counted rule walks from the newest to the oldest and
//!   keeps the newest of each period; while it has slots left at the oldest snapshot, it keeps that as well, so that
//!   history reaches back as far as it can.
//! - `within` counts back from the newest snapshot and not from today: where backups have stopped, nothing runs out.
//! - **The future.** Nothing ran at a time that has yet to come, so a clock was wrong: the writer's then, or ours now. In
//!   neither case may such a snapshot push out another. It is kept, takes no slot, and is nobody's "newest"; once its time
//!   has come it is one like all others. On a machine that was set back by years nothing is removed at all.
//! - **Partial snapshots** never displace complete ones: which complete ones are kept is decided as if there were no
//!   others. A partial one is kept where a rule finds a period without any complete snapshot, in slots that it shares
//!   with partial ones only, and never further back than the rule reaches with complete ones. A platform whose runs are
//!   all partial, for one unreadable file, has its nights all the same. The newest one of all is kept while it is newer
//!   than the newest complete one.
//! - **Twins**: while a snapshot gets other labels, and after a crash in it, there are two records of it (SNAP-7). They
//!   are one snapshot: they take one slot, and both stay or both go. If one of them could be removed for the other,
//!   whoever is about to remove that other would remove the last.
//! - **Pinned** snapshots are kept, whatever the rules say; they count where they are wanted.
//!
//! What was kept is kept again: deciding once more, of the kept ones, removes nothing.

pub mod calendar;
pub mod group;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::Serialize;

pub use calendar::Period;

use super::snapshot::Status;
use super::snapshots::Published;
use crate::id::SnapshotId;
use crate::units::Span;

/// How many periods a rule keeps one snapshot of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// So many, the newest ones.
    Newest(u32),
    /// Every one there is.
    Every,
}

impl Count {
    /// A number, or `unlimited`, or -1 as restic has it. None for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "unlimited" | "-1" => Some(Self::Every),
            _ => text.parse().ok().map(Self::Newest),
        }
    }
}

/// What is to be kept. The default keeps nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The newest of each of so many periods.
    pub counts: Vec<(Period, Count)>,
    /// Everything younger than this, counted from the newest.
    pub within: Option<Span>,
    /// The newest of each period that is younger than this.
    pub within_periods: Vec<(Period, Span)>,
    /// Those with one of these tags; `a,b` stands for both at once.
    pub tags: Vec<String>,
    /// Those whose id begins so, or had begun so before it was tagged.
    pub ids: Vec<String>,
    /// Whether partial snapshots stand behind complete ones, or count like them.
    pub only_complete: bool,
}

impl Default for Policy {
    fn default() -> Self {
        let (counts, within_periods) = (Vec::new(), Vec::new());
        Self { counts, within: None, within_periods, tags: Vec::new(), ids: Vec::new(), only_complete: true }
    }
}

impl Policy {
    /// Whether no rule could keep anything.
    #[must_use]
    pub fn keeps_nothing(&self) -> bool {
        !self.has_rules_of_time() && self.tags.is_empty() && self.ids.is_empty()
    }

    /// Whether it has rules that keep something of every group.
    #[must_use]
    pub fn has_rules_of_time(&self) -> bool {
        self.counts.iter().any(|(_, count)| *count != Count::Newest(0))
            || self.within_periods.iter().map(|(_, span)| span).chain(&self.within).any(|span| !span.is_zero())
    }
}

/// What retention looks at in a snapshot.
#[derive(Debug, Clone)]
pub struct Item<'a> {
    /// Its id.
    pub id: SnapshotId,
    /// The id it had before it was tagged.
    pub original: Option<SnapshotId>,
    /// Nominal time.
    pub time: Timestamp,
    /// When it was published.
    pub finished_at: Timestamp,
    /// Whether it is complete, and not partial.
    pub is_complete: bool,
    /// Whether it is pinned.
    pub is_pinned: bool,
    /// Its tags.
    pub tags: &'a [String],
}

impl Item<'_> {
    /// What its twins have in common with it.
    fn lineage(&self) -> SnapshotId {
        self.original.unwrap_or(self.id)
    }
}

impl<'a> From<&'a Published> for Item<'a> {
    fn from(Published { id, snapshot }: &'a Published) -> Self {
        Self {
            id: *id,
            original: snapshot.original,
            time: snapshot.time,
            finished_at: snapshot.finished_at,
            is_complete: snapshot.status == Status::Complete,
            is_pinned: snapshot.pinned,
            tags: &snapshot.tags,
        }
    }
}

/// Why a snapshot is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// `last` to `yearly`, `within`, `tag`, `id`, `pinned`, `future`, `newest-partial` or `twin`.
    pub rule: &'static str,
    /// The period it is the newest one of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<String>,
    /// It is not the newest of its period, but the oldest of all, and the rule had a slot left.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub oldest: bool,
    /// The span of a rule that looks back so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<Span>,
    /// The tag or id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl Reason {
    fn plain(rule: &'static str) -> Self {
        Self { rule, ..Self::default() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule {
            "future" => return f.write_str("its time has yet to come"),
            "twin" => return f.write_str("the same one as another, with other labels"),
            "newest-partial" => return f.write_str("newest, though partial"),
            _ => {}
        }
        if self.oldest {
            f.write_str("oldest for ")?;
        }
        f.write_str(self.rule)?;
        for part in [&self.period, &self.value].into_iter().flatten() {
            write!(f, " {part}")?;
        }
        match self.within {
            Some(span) if self.rule == "within" => write!(f, " {span}"),
            Some(span) => write!(f, " within {span}"),
            None => Ok(()),
        }
    }
}

/// What becomes of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is kept, for these reasons.
    Keep(Vec<Reason>),
    /// No rule wants it.
    Remove,
    /// No rule wants it beside the complete ones.
    RemovePartial,
}

impl Verdict {
    /// Whether it is kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        matches!(self, Self::Keep(_))
    }
}

/// What becomes of each of `items`, the snapshots of one group in any order. Days, weeks and months are those of `zone`.
#[must_use]
pub fn decide(items: &[Item<'_>], policy: &Policy, zone: &TimeZone, now: Timestamp) -> Vec<Verdict> {
    let mut reasons: Vec<Vec<Reason>> = items.iter().map(|item| reasons_of_its_own(item, policy, now)).collect();
    let order = |at: usize| (items[at].time, items[at].finished_at, items[at].id);
    let mut heads: BTreeMap<SnapshotId, usize> = BTreeMap::new();
    for (at, item) in items.iter().enumerate() {
        let head = heads.entry(item.lineage()).or_insert(at);
        if order(at) > order(*head) {
            *head = at;
        }
    }
    let mut present: Vec<Place> = heads
        .values()
        .copied()
        .filter(|at| items[*at].time <= now)
        .map(|at| Place { at, time: items[at].time.to_zoned(zone.clone()) })
        .collect();
    present.sort_by_key(|place| std::cmp::Reverse(order(place.at)));
    let is_first = |place: &Place| !policy.only_complete || items[place.at].is_complete;
    let (mut first, mut second): (Vec<Place>, Vec<Place>) = present.into_iter().partition(is_first);
    if first.is_empty() {
        std::mem::swap(&mut first, &mut second);
    }
    for (at, reason) in (Round { first: &first, second: &second }).by_rules(policy) {
        reasons[at].push(reason);
    }
    // With tags alone to go by, the newest is as dispensable as the others.
    if let (Some(newest), Some(partial)) = (first.first(), second.first())
        && policy.has_rules_of_time()
        && partial.time > newest.time
        && reasons[partial.at].is_empty()
    {
        reasons[partial.at].push(Reason::plain("newest-partial"));
    }
    let kept: BTreeSet<SnapshotId> =
        items.iter().zip(&reasons).filter(|(_, reasons)| !reasons.is_empty()).map(|(item, _)| item.lineage()).collect();
    for (item, reasons) in items.iter().zip(&mut reasons) {
        if reasons.is_empty() && kept.contains(&item.lineage()) {
            reasons.push(Reason::plain("twin"));
        }
    }
    let displaced: BTreeSet<usize> = second.iter().map(|place| place.at).collect();
    let verdict = |(at, reasons): (usize, Vec<Reason>)| match reasons.is_empty() {
        false => Verdict::Keep(reasons),
        true if displaced.contains(&at) => Verdict::RemovePartial,
        true => Verdict::Remove,
    };
    reasons.into_iter().enumerate().map(verdict).collect()
}

/// Reasons that don't depend on other snapshots.
fn reasons_of_its_own(item: &Item<'_>, policy: &Policy, now: Timestamp) -> Vec<Reason> {
    let has = |tag: &str| item.tags.iter().any(|own| own == tag);
    let tags = policy.tags.iter().filter(|tag| has(tag) || tag.split(',').all(&has));
    let begins =
        |prefix: &str| [Some(item.id), item.original].iter().flatten().any(|id| id.to_hex().starts_with(prefix));
    let ids = policy.ids.iter().filter(|prefix| begins(prefix));
    let named = |rule| move |value: &String| Reason { value: Some(value.clone()), ..Reason::plain(rule) };
    let pinned = item.is_pinned.then(|| Reason::plain("pinned"));
    let future = (item.time > now).then(|| Reason::plain("future"));
    pinned.into_iter().chain(future).chain(tags.map(named("tag"))).chain(ids.map(named("id"))).collect()
}

/// A snapshot's place among the items, and its time in the zone.
struct Place {
    at: usize,
    time: Zoned,
}

/// Those whose slots nobody takes, and those that fill gaps; both newest first.
struct Round<'r> {
    first: &'r [Place],
    second: &'r [Place],
}

type Kept = Vec<(usize, Reason)>;

impl Round<'_> {
    /// The places that rules of time keep.
    fn by_rules(&self, policy: &Policy) -> Kept {
        let mut kept = Kept::new();
        for (period, count) in &policy.counts {
            self.counted(*period, *count, &mut kept);
        }
        if let Some(span) = policy.within {
            self.within(span, &mut kept);
        }
        for (period, span) in &policy.within_periods {
            self.within_periods(*period, *span, &mut kept);
        }
        kept
    }

    fn counted(&self, period: Period, count: Count, kept: &mut Kept) {
        let limit = match count {
            Count::Newest(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
            Count::Every => usize::MAX,
        };
        let reason = |of: String, oldest| Reason { period: period.shown(of), oldest, ..Reason::plain(period.name()) };
        let before = kept.len();
        kept.extend(newest_of_each(self.first, period).take(limit).map(|(at, of, oldest)| (at, reason(of, oldest))));
        // Where all slots are taken, the rule reaches no further back than the last of them.
        let is_used_up = kept.len() - before >= limit;
        let last = kept[before..].last().map(|(at, _)| *at);
        let horizon = self.first.iter().find(|place| is_used_up && Some(place.at) == last).map(|place| &place.time);
        let reaches = |place: &&Place| limit > 0 && horizon.is_none_or(|horizon| place.time > *horizon);
        let gaps = self.gaps(period, self.second.iter().take_while(reaches));
        kept.extend(gaps.take(limit).map(|(at, of)| (at, reason(of, false))));
    }

    fn within(&self, span: Span, kept: &mut Kept) {
        let reason = Reason { within: Some(span), ..Reason::plain("within") };
        let first = younger(self.first, self.first.first(), span);
        let second = younger(self.second, self.newest(), span);
        kept.extend(first.chain(second).map(|place| (place.at, reason.clone())));
    }

    fn within_periods(&self, period: Period, span: Span, kept: &mut Kept) {
        let reason = |of: String, oldest| Reason {
            period: period.shown(of),
            oldest,
            within: Some(span),
            ..Reason::plain(period.name())
        };
        let young: BTreeSet<usize> = younger(self.first, self.first.first(), span).map(|place| place.at).collect();
        let first = newest_of_each(self.first, period).filter(|(at, _, _)| young.contains(at));
        kept.extend(first.map(|(at, of, oldest)| (at, reason(of, oldest))));
        let gaps = self.gaps(period, younger(self.second, self.newest(), span));
        kept.extend(gaps.map(|(at, of)| (at, reason(of, false))));
    }

    /// The newest of each period in which nothing of the first is.
    fn gaps<'g>(
        &self,
        period: Period,
        second: impl Iterator<Item = &'g Place>,
    ) -> impl Iterator<Item = (usize, String)> {
        let mut taken: BTreeSet<String> = self.first.iter().map(|place| period.of(&place.time)).collect();
        let newest = self.first.first().map(|place| place.time.clone());
        second.filter_map(move |place| {
            let of = period.of(&place.time);
            let is_gap = match period {
                Period::Each => newest.as_ref().is_none_or(|newest| place.time > *newest),
                _ => taken.insert(of.clone()),
            };
            is_gap.then_some((place.at, of))
        })
    }

    fn newest(&self) -> Option<&Place> {
        self.first.first().into_iter().chain(self.second.first()).max_by(|a, b| a.time.cmp(&b.time))
    }
}

/// The newest of each period, and the oldest of all if it is not among them.
fn newest_of_each(places: &[Place], period: Period) -> impl Iterator<Item = (usize, String, bool)> {
    let mut seen = BTreeSet::new();
    places.iter().enumerate().filter_map(move |(n, place)| {
        let of = period.of(&place.time);
        let is_new = period == Period::Each || seen.insert(of.clone());
        (is_new || n + 1 == places.len()).then_some((place.at, of, !is_new))
    })
}

/// Those of `places` that are younger than `span`, counted back from `newest`.
fn younger<'p>(places: &'p [Place], newest: Option<&Place>, span: Span) -> impl Iterator<Item = &'p Place> {
    // A span of nothing keeps nothing, not even the newest.
    let since = newest.filter(|_| !span.is_zero()).map(|newest| calendar::before(&newest.time, span));
    places.iter().filter(move |place| since.is_some_and(|since| place.time.timestamp() > since))
}

#[cfg(test)]
mod tests;
