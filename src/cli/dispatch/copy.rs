//! `copy`: from where, to where, and what opens both.

use std::ffi::OsStr;

use super::{Session, selector, usage};
use crate::archive::snapshots::Selector;
use crate::cli::arguments::{Copy, FromKey};
use crate::cli::environment::unless_said;
use crate::cli::{Ending, unlock};
use crate::commands;
use crate::commands::copy::{CopyReport, Wish};
use crate::commands::forget::Only;
use crate::error::{Error, Result};
use crate::observer::Problem;
use crate::plan::{Plan, PlannedCopy};
use crate::storage::Limits;
use crate::store::Repository;

pub(super) fn copy(session: &Session<'_>, options: &Copy) -> Result<Ending> {
    let mut reports = Vec::new();
    if let Some(location) = &unless_said(options.from.as_ref(), "COMPLINE_FROM_REPO")? {
        let to = session.target()?;
        let from =
            unlock::from(location, &options.from_key, (to.cache.clone(), to.limits), session.app.variable, || {
                Ok(to.unlock.clone())
            })?;
        reports.push(commands::copy::run(session.app, &from, &to, &wish(options, None)?, options.dry_run)?);
    } else {
        reports = by_plan(session, options)?;
    }
    session.out.copy(&reports)?;
    Ok(session.ending())
}

/// Into every repository that the plan names. One that can't be had is a problem, and the others are filled all the same.
fn by_plan(session: &Session<'_>, options: &Copy) -> Result<Vec<CopyReport>> {
    let plan = session.plan.as_ref().filter(|plan| !plan.copies().is_empty()).ok_or_else(|| {
        usage("Nothing says where to copy from")
            .hint("Name the other repository with --from LOCATION, or give a plan with [[copy]]")
    })?;
    let from = session.target()?;
    let mut reports = Vec::new();
    let mut failed: Option<Error> = None;
    for planned in plan.copies() {
        let report = unlock::copy_target(&planned.repository, &from, session.app.variable).and_then(|to| {
            let wish = wish(options, Some((plan, planned)))?;
            commands::copy::run(session.app, &from, &to, &wish, options.dry_run)
        });
        match report {
            Ok(report) => reports.push(report),
            Err(error) if session.app.context.go_on().is_err() => return Err(error),
            Err(error) => {
                let subject = format!("Copy to {}", planned.repository.location);
                session.app.context.observer.problem(Problem::new(subject, error.chain()));
                failed.get_or_insert(error);
            }
        }
    }
    match failed {
        Some(error) if reports.is_empty() => Err(error),
        _ => Ok(reports),
    }
}

fn wish(options: &Copy, planned: Option<(&Plan, &PlannedCopy)>) -> Result<Wish> {
    if !options.snapshots.is_empty() {
        let selectors: Result<Vec<Selector>> = options.snapshots.iter().map(|name| selector(name)).collect();
        return Ok(Wish::Named(selectors?));
    }
    let mut only = Only { tags: options.tags.clone(), host: options.host.clone(), platform: options.platform.clone() };
    if let Some((plan, planned)) = planned {
        // Another platform in the same repository has a plan of its own.
        only.platform.get_or_insert_with(|| plan.platform().name.clone());
        only.tags.extend(planned.tags.iter().cloned());
    }
    Ok(Wish::Fitting(only))
}

/// The repository whose keys a new one gets.
pub(super) fn keys_of(session: &Session<'_>, location: &OsStr, key: &FromKey) -> Result<Repository> {
    let cache = unlock::cache(session.global, session.app.variable)?;
    let own = || unlock::existing(session.global, session.plan.as_ref(), session.app.variable, location);
    unlock::from(location, key, (cache, Limits::default()), session.app.variable, own)?.open_fully()
}
