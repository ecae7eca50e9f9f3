//! `forget`: remove snapshots, by name or by the rules of retention. Space is given back by reclaiming, not here.
//!
//! First everything is decided, from one listing, and reported by a dry run as it is. Then the snapshots go, oldest first.
//! Each is one object, so whatever stops the run leaves the others as they were, and the same command goes on with them.
//! One that somebody else has removed in the meantime is removed.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::prune::{self, PruneReport};
use super::{App, Target};
use crate::archive::retention::group::{Group, GroupBy};
use crate::archive::retention::{Item, Policy, Reason, Verdict, decide};
use crate::archive::snapshots::{self as finding, Published, Selector};
use crate::archive::{Snapshot, Status};
use crate::error::{Error, ErrorKind, Result};
use crate::id::SnapshotId;
use crate::observer::{Context, Problem};
use crate::store::Repository;
use crate::store::prune::PruneOptions;

/// Failures in a row after which the storage is taken to be out of order.
const FAILURES_MAX: u32 = 5;

/// What to forget.
pub enum Wish {
    /// These, and nothing else. A tag stands for every snapshot that has it.
    Named(Vec<Selector>),
    /// What rules don't keep.
    Rules(Box<Rules>),
}

/// Rules, and for which snapshots.
pub struct Rules {
    /// What is kept.
    pub policy: Policy,
    /// Among which snapshots it chooses.
    pub group_by: GroupBy,
    /// Whose days and weeks.
    pub zone: TimeZone,
    /// All others are left alone.
    pub only: Only,
    /// Whether a group may lose all its snapshots.
    pub allow_empty: bool,
}

/// Which snapshots rules apply to.
#[derive(Debug, Default)]
pub struct Only {
    /// Those with all of these tags.
    pub tags: Vec<String>,
    /// Those of this host.
    pub host: Option<String>,
    /// Those of this platform; empty for those without a plan.
    pub platform: Option<String>,
}

impl Only {
    pub(super) fn fits(&self, snapshot: &Snapshot) -> bool {
        self.tags.iter().all(|tag| snapshot.tags.contains(tag))
            && self.host.as_ref().is_none_or(|host| *host == snapshot.host)
            && self.platform.as_ref().is_none_or(|platform| *platform == snapshot.platform)
    }
}

/// A snapshot, and what becomes of it.
#[derive(Debug, Clone, Serialize)]
pub struct Decided {
    /// Its id.
    pub id: SnapshotId,
    /// Enough of it for people.
    pub short_id: String,
    /// Its record, if it can be read.
    #[serde(flatten)]
    pub labels: Option<Labels>,
    /// Why it is kept; empty if it is not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    /// Why it is not kept: `named`, `no-rule`, or `partial`: no rule wants it beside the complete ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed_as: Option<&'static str>,
}

/// What people know a snapshot by.
#[derive(Debug, Clone, Serialize)]
pub struct Labels {
    /// Nominal time.
    pub time: Timestamp,
    /// Complete or partial.
    pub status: Status,
    /// Tags.
    pub tags: Vec<String>,
    /// Whether it is pinned.
    pub pinned: bool,
}

/// The snapshots of a group.
#[derive(Debug, Serialize)]
pub struct GroupReport {
    /// What they have in common.
    #[serde(flatten)]
    pub group: Group,
    /// Those that stay, oldest first.
    pub keep: Vec<Decided>,
    /// Those that go, oldest first.
    pub remove: Vec<Decided>,
}

/// What was decided and done.
#[derive(Debug, Serialize)]
pub struct ForgetReport {
    /// Nothing was removed, only decided.
    pub dry_run: bool,
    /// Whose days and weeks counted; none if snapshots were named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// What was decided.
    pub groups: Vec<GroupReport>,
    /// Those that are gone now.
    pub removed: Vec<SnapshotId>,
    /// Those that should be and are not.
    pub failed: Vec<SnapshotId>,
    /// A person or the system asked to stop before all were gone.
    pub interrupted: bool,
    /// What came of giving the space back, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prune: Option<PruneReport>,
}

/// Forgets what is wished, or only says what that is.
///
/// # Errors
/// When nothing was removed: from the repository, `NotFound`, `UnsafeTarget` where a group would be emptied or a pinned
/// snapshot was named. What fails later is a problem and in the report.
pub fn run(
    app: App<'_>,
    target: &Target,
    wish: &Wish,
    dry_run: bool,
    then_prune: Option<PruneOptions>,
) -> Result<ForgetReport> {
    let repository = target.open_fully()?;
    let context = &app.context;
    let (groups, time_zone) = match wish {
        Wish::Named(selectors) => (vec![named(&repository, selectors, context)?], None),
        Wish::Rules(rules) => (by_rules(&repository, rules, context)?, Some(zone_name(&rules.zone))),
    };
    let (removed, failed) = (Vec::new(), Vec::new());
    let mut report = ForgetReport { dry_run, time_zone, groups, removed, failed, interrupted: false, prune: None };
    if !dry_run {
        execute(&repository, &mut report, context)?;
        if let Some(options) = then_prune.filter(|_| !report.interrupted) {
            report.prune = Some(prune::run(app, target, options)?);
        }
    }
    Ok(report)
}

fn zone_name(zone: &TimeZone) -> String {
    zone.iana_name().unwrap_or("the machine's time zone").to_owned()
}

fn by_rules(repository: &Repository, rules: &Rules, context: &Context<'_>) -> Result<Vec<GroupReport>> {
    let all = finding::all(repository, context)?;
    for prefix in &rules.policy.ids {
        refuse_unknown(&all, prefix)?;
    }
    let chosen = all.iter().filter(|published| rules.only.fits(&published.snapshot));
    let now = context.clock.now();
    let groups = rules.group_by.groups(chosen).into_iter();
    let reports: Vec<GroupReport> = groups.map(|(group, members)| decided(group, &members, rules, now)).collect();
    match reports.iter().find(|report| report.keep.is_empty()) {
        Some(emptied) if !rules.allow_empty => Err(would_empty(emptied)),
        _ => Ok(reports),
    }
}

/// A wrong letter in an id that is to be kept must not remove what it meant.
fn refuse_unknown(all: &[Published], prefix: &str) -> Result<()> {
    let begins = |id: &SnapshotId| id.to_hex().starts_with(prefix);
    let known =
        |published: &Published| begins(&published.id) || published.snapshot.original.as_ref().is_some_and(begins);
    if all.iter().any(known) {
        return Ok(());
    }
    let error = Error::new(
        ErrorKind::NotFound,
        format!("No snapshot has an id that begins with {prefix}: nothing was removed"),
    );
    Err(error.hint("`compline snapshots` lists what there is; take the id out of --keep-id if the snapshot is gone"))
}

fn would_empty(emptied: &GroupReport) -> Error {
    let count = emptied.remove.len();
    let what = if count == 1 { "the only snapshot".to_owned() } else { format!("all {count} snapshots") };
    let error =
        Error::new(ErrorKind::UnsafeTarget, format!("The rules keep none of: {}. Nothing was removed", emptied.group));
    error.hint(format!("Add a rule such as --keep-last 1, or say --allow-empty to remove {what} of it"))
}

fn decided(group: Group, members: &[&Published], rules: &Rules, now: Timestamp) -> GroupReport {
    let items: Vec<Item<'_>> = members.iter().map(|published| Item::from(*published)).collect();
    let verdicts = decide(&items, &rules.policy, &rules.zone, now);
    let row = |(published, verdict): (&&Published, Verdict)| {
        let (reasons, removed_as) = match verdict {
            Verdict::Keep(reasons) => (reasons, None),
            Verdict::Remove => (Vec::new(), Some("no-rule")),
            Verdict::RemovePartial => (Vec::new(), Some("partial")),
        };
        Decided { reasons, removed_as, ..Decided::of(published) }
    };
    let rows = members.iter().zip(verdicts).map(row);
    let (keep, remove) = rows.partition(|row| row.removed_as.is_none());
    GroupReport { group, keep, remove }
}

impl Decided {
    fn of(published: &Published) -> Self {
        let Snapshot { time, status, tags, pinned, .. } = &published.snapshot;
        let labels = Labels { time: *time, status: *status, tags: tags.clone(), pinned: *pinned };
        Self { labels: Some(labels), ..Self::unread(published.id) }
    }

    fn unread(id: SnapshotId) -> Self {
        Self { id, short_id: id.short(), labels: None, reasons: Vec::new(), removed_as: Some("named") }
    }
}

fn named(repository: &Repository, selectors: &[Selector], context: &Context<'_>) -> Result<GroupReport> {
    let mut remove: Vec<Decided> = Vec::new();
    let by_id = |selector: &&Selector| matches!(selector, Selector::Prefix(_));
    // Named by id, a snapshot needs no look at all the others, damaged ones among them.
    let all =
        if selectors.iter().all(|selector| by_id(&selector)) { Vec::new() } else { finding::all(repository, context)? };
    for selector in selectors {
        match selector {
            Selector::Prefix(prefix) => remove.push(by_prefix(repository, prefix)?),
            Selector::Tag(tag) => remove.extend(with_tag(&all, tag)?.map(Decided::of)),
            _ => remove.push(Decided::of(finding::select(&all, selector)?)),
        }
    }
    let mut seen = BTreeSet::new();
    remove.retain(|row| seen.insert(row.id));
    remove.sort_by_key(|row| row.labels.as_ref().map(|labels| labels.time));
    if let Some(row) = remove.iter().find(|row| row.labels.as_ref().is_some_and(|labels| labels.pinned)) {
        let id = &row.short_id;
        let error = Error::new(ErrorKind::UnsafeTarget, format!("Snapshot {id} is pinned: nothing was removed"));
        return Err(error.hint(format!("`compline tag {id} --unpin` takes the pin out; it has another id then")));
    }
    Ok(GroupReport { group: Group::default(), keep: Vec::new(), remove })
}

fn with_tag<'p>(all: &'p [Published], tag: &str) -> Result<impl Iterator<Item = &'p Published>> {
    let found: Vec<&Published> =
        all.iter().filter(|published| published.snapshot.tags.iter().any(|own| own == tag)).collect();
    if found.is_empty() {
        return finding::select(all, &Selector::Tag(tag.to_owned())).map(|one| vec![one].into_iter());
    }
    Ok(found.into_iter())
}

/// A damaged record can be removed by its id; it says nothing any more, a pin neither.
fn by_prefix(repository: &Repository, prefix: &str) -> Result<Decided> {
    let ids = repository.list_snapshots()?;
    let id = finding::one_by_prefix(&ids, prefix)?;
    match finding::read(repository, id) {
        Ok(published) => Ok(Decided::of(&published)),
        Err(error) if error.kind() == ErrorKind::Damaged => Ok(Decided::unread(id)),
        Err(error) => Err(error),
    }
}

/// Removes what was decided. What fails is told and passed over; a storage that fails again and again is left alone.
fn execute(repository: &Repository, report: &mut ForgetReport, context: &Context<'_>) -> Result<()> {
    let doomed: Vec<SnapshotId> = report.groups.iter().flat_map(|group| &group.remove).map(|row| row.id).collect();
    let mut failures = 0;
    let mut first = None;
    for id in doomed {
        if context.go_on().is_err() {
            report.interrupted = true;
        }
        if report.interrupted || failures >= FAILURES_MAX {
            report.failed.push(id);
            continue;
        }
        match repository.remove_snapshot(id) {
            Ok(_) => {
                failures = 0;
                report.removed.push(id);
            }
            Err(error) => {
                failures += 1;
                report.failed.push(id);
                let message = format!("It could not be removed: {}", error.chain());
                context.observer.problem(Problem::new(format!("Snapshot {}", id.short()), message));
                first.get_or_insert(error);
            }
        }
    }
    match first {
        Some(error) if report.removed.is_empty() => Err(error.context("No snapshot was removed")),
        _ if report.interrupted && report.removed.is_empty() => Err(Error::interrupted()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
