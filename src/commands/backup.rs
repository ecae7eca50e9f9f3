//! `backup`: capture components into one snapshot.
//!
//! A component that fails discards nothing but itself: the others are committed, the snapshot is partial. What fails the
//! run as a whole is the repository, or the wish to stop; then nothing is published.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use super::{App, Target, scratch};
use crate::archive::snapshot::{ComponentStats, SNAPSHOT_FORMAT, Status};
use crate::archive::snapshots::{self as finding, Published};
use crate::archive::writer::FinishedComponent;
use crate::archive::{ArchivePath, ArchiveWriter, CaptureSink, ComponentRecord, FilesSource, Parent, Snapshot};
use crate::chunker::Profile;
use crate::clock::seconds_since;
use crate::components::files::Files;
use crate::components::process::{Chain, Limits, Program};
use crate::components::{CaptureEnvironment, Captured, Component};
use crate::error::{Error, ErrorKind, Result};
use crate::id::SnapshotId;
use crate::observer::{Context, Counter, Problem, Recorder};
use crate::plan::{Importance, OnError, Plan, PlannedComponent, Presence};
use crate::reflate::Policy;
use crate::store::Repository;

/// The program that writes a snapshot.
const TOOL: &str = concat!("compline ", env!("CARGO_PKG_VERSION"));

/// What to capture.
pub enum Work<'a> {
    /// What the plan says.
    Plan {
        /// The plan.
        plan: &'a Plan,
        /// Only these, if any are named.
        only: &'a [String],
        /// Not these.
        skip: &'a [String],
    },
    /// File trees, as the component `files`.
    Files(FilesSource),
    /// One stream, as a component of its own.
    Stream {
        /// Its name.
        name: String,
        /// Where it comes from.
        input: Box<dyn Read + Send + 'a>,
    },
    /// What a program writes, as a component of its own.
    Command {
        /// Its name.
        name: String,
        /// The words.
        argv: Vec<String>,
    },
}

/// How to capture and record it, whatever the plan says.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    /// Host that the snapshot is of.
    pub host: String,
    /// User that runs it.
    pub user: String,
    /// Labels.
    pub tags: Vec<String>,
    /// Whether retention has to leave it alone until it is unpinned.
    pub pin: bool,
    /// Nominal time, if not now.
    pub time: Option<Timestamp>,
    /// What is done about compressed data.
    pub reflate: Option<Policy>,
}

/// What became of one component.
#[derive(Debug, Serialize)]
pub struct ComponentReport {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// How it ended.
    pub status: Status,
    /// Why it failed or was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What proved it whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completeness: Option<String>,
    /// How many problems it had.
    pub problems: u64,
    /// Counts.
    #[serde(flatten)]
    pub stats: ComponentStats,
}

/// What was published.
#[derive(Debug, Serialize)]
pub struct BackupReport {
    /// Its id; none after a rehearsal.
    pub snapshot: Option<SnapshotId>,
    /// The one it was compared with.
    pub parent: Option<SnapshotId>,
    /// Complete or partial.
    pub status: Status,
    /// One for each component.
    pub components: Vec<ComponentReport>,
    /// Content bytes read.
    pub bytes_read: u64,
    /// Content bytes that were new.
    pub bytes_new: u64,
    /// Bytes written to storage.
    pub bytes_stored: u64,
    /// New chunks.
    pub chunks_new: u64,
    /// New chunks that are stored as deltas.
    pub chunks_delta: u64,
    /// Wall time.
    pub seconds: f64,
}

impl BackupReport {
    /// Whether something went wrong on the way: exit code 3.
    #[must_use]
    pub fn has_problems(&self) -> bool {
        self.components.iter().any(|component| component.problems > 0 || component.status == Status::Failed)
    }
}

type Capture<'a> = Box<dyn FnOnce(&CaptureEnvironment<'_>, &mut dyn CaptureSink) -> Result<Captured> + 'a>;

/// One component that is going to be captured.
struct Job<'a> {
    name: String,
    kind: String,
    role: String,
    references: Vec<String>,
    derived_from: Vec<String>,
    chunker: String,
    reflate: Policy,
    /// Its failure stops the run.
    stops: bool,
    skipped: Option<String>,
    planned: Option<&'a PlannedComponent>,
    capture: Capture<'a>,
}

impl Job<'_> {
    /// Why it is skipped, if it is.
    fn presence(&self, context: Context<'_>) -> Result<Option<String>> {
        if self.skipped.is_some() {
            return Ok(self.skipped.clone());
        }
        match self.planned.map(|planned| planned.presence(context)).transpose()? {
            Some(Presence::Skipped(reason)) => Ok(Some(reason)),
            _ => Ok(None),
        }
    }
}

fn jobs(work: Work<'_>) -> Result<Vec<Job<'_>>> {
    match work {
        Work::Plan { plan, only, skip } => planned_jobs(plan, only, skip),
        Work::Files(source) => {
            let files = Files::new(source);
            Ok(vec![ad_hoc("files", "files", move |env, sink| files.capture(env, sink))])
        }
        Work::Stream { name, mut input } => {
            Ok(vec![ad_hoc(&name.clone(), "stream", move |_, sink| stream(&name, &mut *input, sink))])
        }
        Work::Command { name, argv } => {
            Ok(vec![ad_hoc(&name, "stream", move |env, sink| command(argv, env.context, sink))])
        }
    }
}

fn stream(name: &str, input: &mut (dyn Read + Send), sink: &mut dyn CaptureSink) -> Result<Captured> {
    let summary = sink.put_stream(&ArchivePath::root(), input)?;
    if summary.len == 0 {
        return Err(Error::new(ErrorKind::Component, format!("Nothing came in for {name}"))
            .hint("A pipe hides the failure of its first program; --stdin-from-command sees it"));
    }
    Ok(Captured { completeness: "end of input; the program before it was not seen".to_owned(), ..Captured::default() })
}

fn command(argv: Vec<String>, context: Context<'_>, sink: &mut dyn CaptureSink) -> Result<Captured> {
    let chain = Chain::single(Program::from_argv(argv), Limits::default());
    let (_, commands) = chain.store(context, sink, &ArchivePath::root(), &mut |_| {})?;
    Ok(Captured { completeness: "exit status".to_owned(), commands, ..Captured::default() })
}

fn ad_hoc<'a>(
    name: &str,
    kind: &str,
    capture: impl FnOnce(&CaptureEnvironment<'_>, &mut dyn CaptureSink) -> Result<Captured> + 'a,
) -> Job<'a> {
    Job {
        name: name.to_owned(),
        kind: kind.to_owned(),
        role: "source".to_owned(),
        references: Vec::new(),
        derived_from: Vec::new(),
        chunker: Profile::default().name.to_owned(),
        reflate: Policy::default(),
        stops: true,
        skipped: None,
        planned: None,
        capture: Box::new(capture),
    }
}

fn planned_jobs<'a>(plan: &'a Plan, only: &[String], skip: &[String]) -> Result<Vec<Job<'a>>> {
    for name in only.iter().chain(skip) {
        if plan.component(name).is_none() {
            return Err(crate::plan::no_such_component(plan, name));
        }
    }
    let stop = plan.on_error() == OnError::Stop;
    Ok(plan
        .in_capture_order()
        .map(|planned| {
            let name = planned.name().to_owned();
            let left_out = (!only.is_empty() && !only.contains(&name)) || skip.contains(&name);
            Job {
                kind: planned.kind().name.to_owned(),
                role: planned.role().to_string(),
                references: planned.references().to_vec(),
                derived_from: planned.derived_from().to_vec(),
                chunker: planned.chunker().to_owned(),
                reflate: planned.reflate(),
                stops: stop && planned.importance() == Importance::Required,
                skipped: left_out.then(|| "left out by --only or --skip".to_owned()),
                planned: Some(planned),
                capture: Box::new(|env, sink| planned.component().capture(env, sink)),
                name,
            }
        })
        .collect())
}

/// What all components of a run share.
struct Run<'r> {
    app: App<'r>,
    repository: &'r Repository,
    snapshots: &'r [Published],
    platform: String,
    host: String,
    user: String,
    scratch: PathBuf,
    /// Instead of what the plan says.
    reflate: Option<Policy>,
}

/// Captures `work` and publishes a snapshot of it. A rehearsal reads and counts everything and stores nothing.
///
/// # Errors
/// When nothing could be committed; then nothing was published.
pub fn run(app: App<'_>, target: &Target, work: Work<'_>, labels: &Labels, rehearsal: bool) -> Result<BackupReport> {
    let started = app.context.clock.now();
    let (platform, plan_text, restore_order) = match &work {
        Work::Plan { plan, .. } => (plan.platform().name.clone(), Some(plan.text().to_owned()), plan.restore_order()),
        _ => (String::new(), None, Vec::new()),
    };
    let jobs = jobs(work)?;
    let left_out = jobs.iter().any(|job| job.skipped.is_some());
    let repository = target.open_to_write()?;
    let snapshots = if repository.can_read() {
        finding::all(&repository, &app.context)?
    } else {
        app.context.observer.detail("The key in use can't read: nothing is compared with earlier snapshots");
        Vec::new()
    };
    let scratch = scratch(target.cache.as_deref())?;
    let mut archive = ArchiveWriter::new(&repository, rehearsal, target.own_places(), app.context)?;
    let run = Run {
        app,
        repository: &repository,
        snapshots: &snapshots,
        platform,
        host: labels.host.clone(),
        user: labels.user.clone(),
        scratch: scratch.path().to_owned(),
        reflate: labels.reflate,
    };
    let (records, reports) = run.components(&mut archive, jobs)?;
    refuse_empty(&reports)?;
    let parent = records.first().and_then(|record| run.parent(&record.name)).map(|published| published.id);
    let snapshot = Snapshot {
        format: SNAPSHOT_FORMAT,
        platform: run.platform,
        host: labels.host.clone(),
        user: labels.user.clone(),
        time: labels.time.unwrap_or(started),
        finished_at: app.context.clock.now(),
        status: status_of(&records, left_out),
        tags: labels.tags.clone(),
        pinned: labels.pin,
        original: None,
        parent,
        tool: TOOL.to_owned(),
        components: records,
        restore_order,
        plan: plan_text,
        other: serde_json::Map::new(),
    };
    app.context.observer.stage("Publishing");
    let id = if rehearsal {
        archive.discard()?;
        None
    } else {
        Some(archive.publish(&snapshot)?)
    };
    Ok(report(app, id, &snapshot, reports, started))
}

fn report(
    app: App<'_>,
    id: Option<SnapshotId>,
    snapshot: &Snapshot,
    components: Vec<ComponentReport>,
    started: Timestamp,
) -> BackupReport {
    let get = |counter| app.ledger.get(counter);
    BackupReport {
        snapshot: id,
        parent: snapshot.parent,
        status: snapshot.status,
        components,
        bytes_read: get(Counter::BytesRead),
        bytes_new: get(Counter::BytesNew),
        bytes_stored: get(Counter::BytesStored),
        chunks_new: get(Counter::ChunksNew),
        chunks_delta: get(Counter::ChunksDelta),
        seconds: seconds_since(app.context.clock, started),
    }
}

/// Complete if every component is that was to be there: those that the plan itself skips are not missed, those that
/// were left out by hand are.
fn status_of(records: &[ComponentRecord], left_out: bool) -> Status {
    let good = |record: &ComponentRecord| matches!(record.status, Status::Complete | Status::Skipped);
    if !left_out && records.iter().all(good) { Status::Complete } else { Status::Partial }
}

fn refuse_empty(reports: &[ComponentReport]) -> Result<()> {
    let committed = |report: &ComponentReport| matches!(report.status, Status::Complete | Status::Partial);
    if reports.iter().any(committed) {
        return Ok(());
    }
    let failed = reports.iter().find(|report| report.status == Status::Failed);
    let Some(failed) = failed else {
        return Err(Error::new(ErrorKind::Component, "No component is left to capture: nothing was committed")
            .hint("Check --only and --skip, and `enabled` in the plan"));
    };
    let reason = failed.reason.clone().unwrap_or_default();
    let error = Error::new(ErrorKind::Component, format!("Nothing was committed: {} failed: {reason}", failed.name));
    Err(match &failed.hint {
        Some(hint) => error.hint(hint.clone()),
        None => error,
    })
}

/// Errors that no other component could survive either.
fn ends_the_run(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Storage | ErrorKind::Bug | ErrorKind::Interrupted)
}

impl Run<'_> {
    fn parent(&self, component: &str) -> Option<&Published> {
        finding::parent(self.snapshots, &self.platform, &self.host, component)
    }

    /// What to compare a capture with.
    fn comparable(&self, job: &Job<'_>) -> Option<Parent> {
        let Published { snapshot, .. } = self.parent(&job.name)?;
        let record = snapshot.component(&job.name).filter(|record| record.chunker == job.chunker)?;
        let tells_all = record.problem_count == 0 && snapshot.user == self.user && snapshot.tool == TOOL;
        Some(Parent { root: record.root_entry().ok()?, tells_all })
    }

    fn components(
        &self,
        archive: &mut ArchiveWriter<'_>,
        jobs: Vec<Job<'_>>,
    ) -> Result<(Vec<ComponentRecord>, Vec<ComponentReport>)> {
        let (mut records, mut reports) = (Vec::new(), Vec::new());
        let mut stopped: Option<String> = None;
        for mut job in jobs {
            if let Some(name) = &stopped {
                job.skipped.get_or_insert_with(|| format!("{name} failed before it"));
            }
            let stops = job.stops;
            let (record, hint) = self.component(archive, job)?;
            if record.status == Status::Failed && stops {
                stopped.get_or_insert_with(|| record.name.clone());
            }
            reports.push(component_report(&record, hint));
            records.push(record);
        }
        Ok((records, reports))
    }

    /// Captures one component; its failure is in the record, the hint of it beside.
    fn component(&self, archive: &mut ArchiveWriter<'_>, job: Job<'_>) -> Result<(ComponentRecord, Option<String>)> {
        let observer = Recorder::new(self.app.context.observer);
        let context = Context { observer: &observer, ..self.app.context };
        let mut record = blank_record(&job, context.clock.now());
        let result = job.presence(context).and_then(|skipped| match skipped {
            Some(reason) => {
                record.status = Status::Skipped;
                record.reason = Some(reason);
                Ok(())
            }
            None => self.capture(archive, job, context, &mut record),
        });
        let mut hint = None;
        if let Err(error) = result {
            if ends_the_run(&error) {
                return Err(error);
            }
            context.observer.problem(Problem::new(&record.name, error.chain()));
            hint = error.hint_text().map(str::to_owned);
            record.status = Status::Failed;
            record.reason = Some(error.chain());
        }
        (record.problem_count, record.problems) = observer.problems();
        if record.status == Status::Complete && record.problem_count > 0 {
            record.status = Status::Partial;
        }
        record.finished_at = context.clock.now();
        Ok((record, hint))
    }

    fn capture(
        &self,
        archive: &mut ArchiveWriter<'_>,
        job: Job<'_>,
        context: Context<'_>,
        record: &mut ComponentRecord,
    ) -> Result<()> {
        context.observer.stage(&format!("Saving {}", job.name));
        let parent = self.comparable(&job);
        let profile = Profile::named(&job.chunker).unwrap_or_default();
        let mut writer = archive.component(&job.name, profile, parent, context);
        writer.reflate(self.reflate.unwrap_or(job.reflate));
        let of_label = self.repository.component_secrets()?;
        let secret = |purpose: &str| of_label(&format!("{} {purpose}", job.kind));
        let directory = self.scratch.join(&job.name);
        crate::durable::create_directories(&directory)
            .map_err(|cause| Error::io("No scratch directory can be made", cause))?;
        let env = CaptureEnvironment {
            context,
            name: &job.name,
            secret: &secret,
            variable: self.app.variable,
            scratch: &directory,
        };
        let Captured { versions, completeness, facts, commands } = (job.capture)(&env, &mut writer)?;
        let FinishedComponent { root, stats } = writer.finish()?;
        record.versions = versions;
        record.completeness = Some(completeness);
        record.facts = facts;
        record.commands = commands;
        record.stats = stats;
        record.root = Some(ComponentRecord::encode_root(&root));
        record.status = Status::Complete;
        Ok(())
    }
}

fn blank_record(job: &Job<'_>, now: Timestamp) -> ComponentRecord {
    ComponentRecord {
        name: job.name.clone(),
        kind: job.kind.clone(),
        role: job.role.clone(),
        references: job.references.clone(),
        derived_from: job.derived_from.clone(),
        status: Status::Failed,
        reason: None,
        started_at: now,
        finished_at: now,
        versions: BTreeMap::new(),
        completeness: None,
        facts: serde_json::Map::new(),
        commands: Vec::new(),
        problems: Vec::new(),
        problem_count: 0,
        chunker: job.chunker.clone(),
        stats: ComponentStats::default(),
        root: None,
        other: serde_json::Map::new(),
    }
}

fn component_report(record: &ComponentRecord, hint: Option<String>) -> ComponentReport {
    ComponentReport {
        name: record.name.clone(),
        kind: record.kind.clone(),
        status: record.status,
        reason: record.reason.clone(),
        hint,
        completeness: record.completeness.clone(),
        problems: record.problem_count,
        stats: record.stats.clone(),
    }
}
