//! `restore -p PLAN`: components back into the platform, in the right order.
//!
//! First every component decides what it would do, without any effect; only if all of them may, and the operator agrees,
//! the first one begins.

use std::path::PathBuf;

use serde::Serialize;

use super::{App, Target, scratch, snapshot};
use crate::archive::snapshots::{Published, Selector};
use crate::archive::{ArchiveReader, ComponentReader, ComponentRecord, Status};
use crate::clock::seconds_since;
use crate::components::{Existing, RestoreEnvironment, RestoreStep};
use crate::error::{Error, ErrorKind, Result};
use crate::id::SnapshotId;
use crate::plan::{Enabled, Plan, PlannedComponent, Role, no_such_component};

/// What to recover, and how.
#[derive(Debug, Clone)]
pub struct Recovery {
    /// From which snapshot.
    pub selector: Selector,
    /// Only these components, if any are named.
    pub only: Vec<String>,
    /// What to do with state that is in the way; else the plan decides.
    pub existing: Option<Existing>,
    /// Reason for ignoring the version guard.
    pub force_version: Option<String>,
    /// Files go below this directory instead of to their own places.
    pub root: Option<PathBuf>,
}

/// What one component is going to do.
#[derive(Debug, Serialize)]
pub struct ComponentSteps {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// In order.
    pub steps: Vec<RestoreStep>,
}

/// What a recovery is going to do, in order.
#[derive(Debug, Serialize)]
pub struct RecoveryPlan {
    /// From this snapshot.
    pub snapshot: SnapshotId,
    /// Of this time.
    pub time: jiff::Timestamp,
    /// One after the other.
    pub components: Vec<ComponentSteps>,
    /// Components of the plan that are left out, and why.
    pub left_out: Vec<(String, String)>,
}

/// What a recovery did.
#[derive(Debug, Serialize)]
pub struct RecoveryReport {
    /// From this snapshot.
    pub snapshot: SnapshotId,
    /// What each component proved.
    pub components: Vec<(String, Vec<String>)>,
    /// Wall time.
    pub seconds: f64,
}

struct Chosen<'a> {
    planned: &'a PlannedComponent,
    record: &'a ComponentRecord,
}

/// Decides, asks `agree`, and restores. `None` if `agree` says no.
///
/// # Errors
/// `UnsafeTarget`, `VersionGuard`, `NotFound`, and what the components say.
pub fn run(
    app: App<'_>,
    target: &Target,
    plan: &Plan,
    recovery: &Recovery,
    agree: &mut dyn FnMut(&RecoveryPlan) -> Result<bool>,
) -> Result<Option<RecoveryReport>> {
    let started = app.context.clock.now();
    let repository = target.open()?;
    let published = snapshot(app, &repository, &recovery.selector)?;
    let reader = ArchiveReader::new(&repository, app.context);
    let (chosen, left_out) = choose(plan, &published, recovery)?;
    let scratch = scratch(target.cache.as_deref())?;
    let work = Work { app, reader: &reader, recovery, keep: target.own_places(), scratch: scratch.path().to_owned() };
    let decided = chosen.iter().map(|chosen| work.decide(chosen)).collect::<Result<Vec<_>>>()?;
    let shown = RecoveryPlan { snapshot: published.id, time: published.snapshot.time, components: decided, left_out };
    if !agree(&shown)? {
        return Ok(None);
    }
    let components = chosen.iter().map(|chosen| work.execute(chosen)).collect::<Result<Vec<_>>>()?;
    let seconds = seconds_since(app.context.clock, started);
    Ok(Some(RecoveryReport { snapshot: published.id, components, seconds }))
}

type LeftOut = Vec<(String, String)>;

fn choose<'a>(plan: &'a Plan, published: &'a Published, recovery: &Recovery) -> Result<(Vec<Chosen<'a>>, LeftOut)> {
    if let Some(name) = recovery.only.iter().find(|name| plan.component(name).is_none()) {
        return Err(no_such_component(plan, name));
    }
    let (mut chosen, mut left_out) = (Vec::new(), Vec::new());
    for planned in plan.restore_groups().flatten() {
        let named = recovery.only.iter().any(|name| name == planned.name());
        if !recovery.only.is_empty() && !named {
            continue;
        }
        let record = published.snapshot.component(planned.name());
        match reason_to_leave_out(planned, record) {
            Some(reason) if !named => left_out.push((planned.name().to_owned(), reason)),
            _ => chosen.push(Chosen { planned, record: usable(planned, record, published)? }),
        }
    }
    Ok((chosen, left_out))
}

/// Why a restore of everything goes without the component: it may be lost, or it was not there when it could have been
/// captured and the plan says that it need not be.
fn reason_to_leave_out(planned: &PlannedComponent, record: Option<&ComponentRecord>) -> Option<String> {
    if planned.role() == Role::Ephemeral {
        return Some("it is ephemeral; name it with --only to restore it".to_owned());
    }
    let record = record.filter(|record| record.status == Status::Skipped && *planned.enabled() != Enabled::Yes)?;
    Some(format!("it was skipped: {}", record.reason.as_deref().unwrap_or("no reason given")))
}

/// The record of a component that can be restored: committed, and of the kind that the plan says.
fn usable<'a>(
    planned: &PlannedComponent,
    record: Option<&'a ComponentRecord>,
    published: &Published,
) -> Result<&'a ComponentRecord> {
    let name = planned.name();
    let record = record.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("Snapshot {} has no component {name}", published.id.short()))
            .hint("Restore the others with --only, or take another snapshot")
    })?;
    if record.root.is_none() {
        let reason = record.reason.as_deref().unwrap_or("it was skipped");
        let message = format!("Snapshot {} did not commit {name}: {reason}", published.id.short());
        return Err(Error::new(ErrorKind::NotFound, message)
            .hint("Restore the others with --only, or take an earlier snapshot"));
    }
    if record.kind != planned.kind().name {
        let message = format!(
            "{name} is of kind {} in the snapshot and of kind {} in the plan",
            record.kind,
            planned.kind().name
        );
        return Err(Error::new(ErrorKind::Usage, message)
            .hint("Use the plan that the snapshot was made with: `compline show SNAP --plan-text` prints it"));
    }
    Ok(record)
}

struct Work<'w> {
    app: App<'w>,
    reader: &'w ArchiveReader<'w>,
    recovery: &'w Recovery,
    keep: Vec<PathBuf>,
    scratch: PathBuf,
}

impl Work<'_> {
    fn with<T>(&self, chosen: &Chosen<'_>, work: impl FnOnce(&RestoreEnvironment<'_>) -> Result<T>) -> Result<T> {
        let source = ComponentReader::new(self.reader, chosen.record)?;
        let name = chosen.planned.name();
        let directory = self.scratch.join(name);
        crate::durable::create_directories(&directory)
            .map_err(|cause| Error::io("No scratch directory can be made", cause))?;
        let env = RestoreEnvironment {
            context: self.app.context,
            name,
            record: chosen.record,
            source: &source,
            existing: self.recovery.existing.unwrap_or(chosen.planned.existing()),
            force_version: self.recovery.force_version.as_deref(),
            root: self.recovery.root.clone(),
            variable: self.app.variable,
            keep: &self.keep,
            scratch: &directory,
        };
        work(&env).map_err(|error| error.context(format!("Component {name} can't be restored")))
    }

    fn decide(&self, chosen: &Chosen<'_>) -> Result<ComponentSteps> {
        let mut steps = self.with(chosen, |env| chosen.planned.component().plan_restore(env))?;
        steps.extend(
            chosen
                .planned
                .after_restore()
                .into_iter()
                .map(|argv| RestoreStep { what: format!("Run {}", argv.join(" ")), destructive: false }),
        );
        let (name, kind) = (chosen.planned.name().to_owned(), chosen.record.kind.clone());
        Ok(ComponentSteps { name, kind, steps })
    }

    fn execute(&self, chosen: &Chosen<'_>) -> Result<(String, Vec<String>)> {
        self.app.context.go_on()?;
        self.app.context.observer.stage(&format!("Restoring {}", chosen.planned.name()));
        let restored = self.with(chosen, |env| chosen.planned.component().restore(env))?;
        chosen.planned.finish_restore(self.app.context)?;
        Ok((chosen.planned.name().to_owned(), restored.proofs))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::commands::Named;
    use crate::commands::backup::{self, Labels, Work as Captured};
    use crate::observer::{Context, Ledger};
    use crate::storage::{Limits, Location};
    use crate::store::{Repository, Unlock};

    fn with<T>(verb: impl FnOnce(App<'_>) -> T) -> T {
        let (ledger, interrupt) = (Ledger::default(), AtomicBool::new(false));
        let context = Context { clock: &SystemClock, observer: &ledger, interrupt: &interrupt };
        verb(App { context, ledger: &ledger, variable: &|_| None })
    }

    /// A tree, and a repository inside it; the plan captures the tree.
    fn house(root: &Path) -> (Target, Plan) {
        let tree = root.join("srv");
        std::fs::create_dir_all(&tree).expect("room");
        std::fs::write(tree.join("file"), "content").expect("room");
        let location = Location::Local(tree.join("repository"));
        let (unlock, _) = Unlock::new_key_file().expect("random bytes");
        let storage = location.create().expect("room");
        Repository::create(storage.as_ref(), &unlock, "", SystemClock.now()).expect("a repository");
        let text = format!(
            "format = 1\n[platform]\nname = \"p\"\n[[component]]\nname = \"srv\"\nkind = \"files\"\npaths = [{tree:?}]\n"
        );
        let plan = Plan::load(&root.join("plan.toml"), &text).expect("a valid plan");
        (Target { location, unlock, cache: None, limits: Limits::default(), named: Named::Repo }, plan)
    }

    fn recovery(existing: Existing) -> Recovery {
        let existing = Some(existing);
        Recovery { selector: Selector::Latest(0), only: Vec::new(), existing, force_version: None, root: None }
    }

    #[test]
    fn replacing_a_directory_never_removes_the_repository_in_it() {
        let place = tempfile::tempdir().expect("a directory");
        let (target, plan) = house(place.path());
        let work = Captured::Plan { plan: &plan, only: &[], skip: &[] };
        with(|app| backup::run(app, &target, work, &Labels::default(), false)).expect("a snapshot");
        let error = with(|app| run(app, &target, &plan, &recovery(Existing::Replace), &mut |_| Ok(true))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsafeTarget, "{error:?}");
        assert!(place.path().join("srv/repository/config").exists());
    }

    #[test]
    fn nothing_happens_before_the_operator_agrees() {
        let place = tempfile::tempdir().expect("a directory");
        let (target, plan) = house(place.path());
        let work = Captured::Plan { plan: &plan, only: &[], skip: &[] };
        with(|app| backup::run(app, &target, work, &Labels::default(), false)).expect("a snapshot");
        let file = place.path().join("srv/file");
        std::fs::write(&file, "changed since").expect("room");
        let update = recovery(Existing::Update);
        let mut steps = 0;
        let refused = with(|app| {
            run(app, &target, &plan, &update, &mut |decided| {
                steps = decided.components.iter().map(|component| component.steps.len()).sum();
                Ok(false)
            })
        });
        assert!(refused.expect("a decision").is_none() && steps == 1);
        assert_eq!(std::fs::read_to_string(&file).expect("still there"), "changed since");
        let done = with(|app| run(app, &target, &plan, &update, &mut |_| Ok(true))).expect("restored");
        assert_eq!(std::fs::read_to_string(&file).expect("still there"), "content");
        assert_eq!(done.map(|report| report.components.len()), Some(1));
    }
}
