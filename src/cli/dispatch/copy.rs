//! `copy`: from where, to where, and what opens both.

use std::ffi::OsStr;

use super::{Session, selector, usage};
use crate::archive::snapshots::Selector;
use crate::cli::arguments::{Copy, FromKey};
use crate::cli::environment::unless_said;
use crate::cli::render::Copies;
use crate::cli::{Ending, unlock};
use crate::commands::copy::{CopyReport, Wish};
use crate::commands::forget::Only;
use crate::commands::{self, Named};
use crate::error::Result;
use crate::observer::Problem;
use crate::plan::{Plan, PlannedCopy};
use crate::store::Repository;

pub(super) fn copy(session: &Session<'_>, options: &Copy) -> Result<Ending> {
    let copies = match &unless_said(options.from.as_ref(), "COMPLINE_FROM_REPO")? {
        Some(location) => Copies { done: vec![by_hand(session, options, location)?], ..Copies::default() },
        None => by_plan(session, options)?,
    };
    session.out.copy(&copies)?;
    Ok(session.ending())
}

/// Out of the repository at `location`.
fn by_hand(session: &Session<'_>, options: &Copy, location: &OsStr) -> Result<CopyReport> {
    let to = session.target()?;
    let own = || Ok(to.unlock.clone());
    let source = (location, Named::From);
    let from = unlock::from(session.global, source, &options.from_key, session.app.variable, own)?;
    commands::copy::run(session.app, &from, &to, &wish(options, None)?, options.dry_run)
}

/// Into every repository that the plan names. One that can't be had is a problem, and the others are filled all the same. An
/// error if none can be had.
fn by_plan(session: &Session<'_>, options: &Copy) -> Result<Copies> {
    let plan = session.plan.as_ref().filter(|plan| !plan.copies().is_empty()).ok_or_else(|| {
        usage("Nothing says where to copy from")
            .hint("Name the other repository with --from LOCATION, or give a plan with [[copy]]")
    })?;
    let from = session.target()?;
    let mut copies = Copies::default();
    for planned in plan.copies() {
        let report =
            unlock::copy_target(session.global, &planned.repository, &from, session.app.variable).and_then(|to| {
                let wish = wish(options, Some((plan, planned)))?;
                commands::copy::run(session.app, &from, &to, &wish, options.dry_run)
            });
        match report {
            Ok(report) => copies.done.push(report),
            Err(error) if session.app.context.go_on().is_err() => return Err(error),
            Err(error) => {
                let to = planned.repository.location.to_string();
                session.app.context.observer.problem(Problem::new(format!("Copy to {to}"), error.chain()));
                copies.failed.push((to, error));
            }
        }
    }
    if copies.done.is_empty() && !copies.failed.is_empty() {
        return Err(copies.failed.swap_remove(0).1);
    }
    Ok(copies)
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
    let own = || unlock::existing(session.global, session.plan.as_ref(), session.app.variable, location);
    let source = (location, Named::CopyKeysFrom);
    unlock::from(session.global, source, key, session.app.variable, own)?.open_fully()
}
