//! `forget` and `tag`: where rules, groups and the time zone come from.

use jiff::tz::TimeZone;

use super::{Session, selector, usage};
use crate::archive::relabel::Relabel;
use crate::archive::retention::group::GroupBy;
use crate::archive::retention::{Count, Period, Policy};
use crate::archive::snapshots::Selector;
use crate::cli::Ending;
use crate::cli::arguments::{Forget, RuleOptions, Tag};
use crate::commands;
use crate::commands::forget::{Only, Rules, Wish};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{Plan, Retention};
use crate::store::prune::{Allowance, PruneOptions};

pub(super) fn forget(session: &Session<'_>, options: &Forget) -> Result<Ending> {
    let wish = wish(session.plan.as_ref(), options)?;
    let wait = std::time::Duration::from_secs(3600);
    let prune = PruneOptions { allowance: Allowance::default(), wait, dry_run: false };
    let prune = options.prune.then_some(prune);
    let report = commands::forget::run(session.app, &session.target()?, &wish, options.dry_run, prune)?;
    session.out.forget(&report)?;
    Ok(if report.interrupted { Ending::Interrupted } else { session.ending() })
}

fn wish(plan: Option<&Plan>, options: &Forget) -> Result<Wish> {
    let asked = policy(&options.rules);
    if !options.snapshots.is_empty() {
        if asked != Policy::default() {
            return Err(usage("Snapshots are named, and rules are given: one or the other says what to remove"));
        }
        let selectors: Result<Vec<Selector>> = options.snapshots.iter().map(|name| selector(name)).collect();
        return Ok(Wish::Named(selectors?));
    }
    let mut only = Only { tags: options.tags.clone(), host: options.host.clone(), platform: options.platform.clone() };
    let planned = plan.and_then(Plan::retention);
    // Some rule or other on the command line stands for all of the plan's.
    let policy = match (planned, plan) {
        (Some(Retention { policy, .. }), Some(plan)) if !has_rules(&asked) => {
            // Another platform in the same repository has a plan of its own.
            only.platform.get_or_insert_with(|| plan.platform().name.clone());
            Policy { only_complete: policy.only_complete && asked.only_complete, ..policy.clone() }
        }
        _ => asked,
    };
    if policy.keeps_nothing() {
        return Err(usage("Nothing says which snapshots to keep").hint(
            "Name the snapshots to remove, or give rules such as --keep-daily 14 --keep-monthly 12, or a plan with [retention]",
        ));
    }
    Ok(Wish::Rules(Box::new(Rules {
        policy,
        group_by: group_by(options.group_by.as_deref(), planned)?,
        zone: zone(options.time_zone.as_deref(), plan)?,
        only,
        allow_empty: options.allow_empty,
    })))
}

fn policy(rules: &RuleOptions) -> Policy {
    let counts: [Option<Count>; 9] = [
        rules.keep_last,
        rules.keep_minutely,
        rules.keep_hourly,
        rules.keep_daily,
        rules.keep_weekly,
        rules.keep_monthly,
        rules.keep_quarter_yearly,
        rules.keep_half_yearly,
        rules.keep_yearly,
    ];
    let spans = [
        None,
        rules.keep_within_minutely,
        rules.keep_within_hourly,
        rules.keep_within_daily,
        rules.keep_within_weekly,
        rules.keep_within_monthly,
        rules.keep_within_quarter_yearly,
        rules.keep_within_half_yearly,
        rules.keep_within_yearly,
    ];
    Policy {
        counts: Period::ALL.into_iter().zip(counts).filter_map(|(period, count)| Some((period, count?))).collect(),
        within: rules.keep_within,
        within_periods: Period::ALL.into_iter().zip(spans).filter_map(|(period, span)| Some((period, span?))).collect(),
        tags: rules.keep_tags.clone(),
        ids: rules.keep_ids.clone(),
        only_complete: !rules.count_partial,
    }
}

/// Whether any rule was written, be it one that keeps nothing.
fn has_rules(policy: &Policy) -> bool {
    *policy != Policy { only_complete: policy.only_complete, ..Policy::default() }
}

fn group_by(text: Option<&str>, planned: Option<&Retention>) -> Result<GroupBy> {
    let Some(text) = text else {
        return Ok(planned.map(|retention| retention.group_by).unwrap_or_default());
    };
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    GroupBy::of(words).map_err(|word| {
        usage(format!("Snapshots can't be grouped by `{word}`"))
            .hint(format!("Write some of {}, with commas between", GroupBy::WORDS.join(", ")))
    })
}

/// The days that people mean: those of the plan, else those in which `snapshots` shows times.
fn zone(name: Option<&str>, plan: Option<&Plan>) -> Result<TimeZone> {
    let get = |name: &str| if name == "UTC" { Ok(TimeZone::UTC) } else { TimeZone::get(name) };
    if let Some(name) = name {
        return get(name).map_err(|_| {
            usage(format!("`{name}` is not a time zone that this machine knows"))
                .hint("Write a name such as Europe/Berlin, or UTC")
        });
    }
    let Some(plan) = plan else { return Ok(TimeZone::system()) };
    let name = &plan.platform().timezone;
    get(name).map_err(|_| {
        let message =
            format!("Plan {} has the time zone {name}, which this machine doesn't know", plan.path().display());
        Error::new(ErrorKind::InvalidPlan, message).hint("Correct `timezone`, or give --time-zone")
    })
}

pub(super) fn tag(session: &Session<'_>, options: Tag) -> Result<Ending> {
    let selectors: Result<Vec<Selector>> = options.snapshots.iter().map(|name| selector(name)).collect();
    let change = Relabel {
        set: (!options.set.is_empty()).then(|| options.set.into_iter().filter(|tag| !tag.is_empty()).collect()),
        add: options.add,
        remove: options.remove,
        pin: match (options.pin, options.unpin) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
    };
    let report = commands::tag::run(session.app, &session.target()?, &selectors?, &change)?;
    session.out.tag(&report)?;
    Ok(session.ending())
}
