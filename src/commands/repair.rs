//! `repair`: bring back what can be brought back. One step after the other, the surest first; each changes nothing where
//! nothing is wrong, so that a repair that was interrupted is simply run again.

use std::time::Duration;

use serde::Serialize;

use super::{App, Named, Target, tell_of_writers};
use crate::archive::mend::{self, Mended, Mender};
use crate::archive::snapshots::{self as finding, Published};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{PackId, SnapshotId};
use crate::observer::{Counter, Problem};
use crate::storage::{Location, ObjectKey};
use crate::store::Repository;
use crate::store::heal::{self, Finding, State};
use crate::store::salvage::{Salvage, salvage};
use crate::store::session::Session;

/// Lost paths of a snapshot that are told one by one.
const LOST_COUNT_MAX: usize = 1000;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct RepairOptions {
    /// Write nothing.
    pub dry_run: bool,
    /// Repositories with the same keys, such as mirrors, that may have what is lost.
    pub from: Vec<Location>,
    /// How long writers are waited for before packs go that can't be healed.
    pub wait: Duration,
}

/// A snapshot that has lost something.
#[derive(Debug, Serialize)]
pub struct HitSnapshot {
    /// Its id.
    pub snapshot: SnapshotId,
    /// The one that was written without what is lost; none in a rehearsal, if it was written before, or if nothing is left.
    pub mended: Option<SnapshotId>,
    /// How many paths are lost.
    pub lost_count: u64,
    /// The first of them.
    pub lost: Vec<String>,
}

/// What was found and done.
#[derive(Debug, Default, Serialize)]
pub struct RepairReport {
    /// Whether it was a rehearsal: nothing was written.
    pub dry_run: bool,
    /// Objects that were damaged and are whole again; in a rehearsal those that would be.
    pub healed: u64,
    /// Objects that were taken over from another repository.
    pub fetched: u64,
    /// Objects that can't be healed.
    pub lost: u64,
    /// All damaged objects.
    pub findings: Vec<Finding>,
    /// Index segments that could not be read and were deleted.
    pub segments_deleted: u64,
    /// Packs that no segment listed, and one does now.
    pub packs_listed: u64,
    /// What came of packs that can't be healed.
    pub salvage: Salvage,
    /// Chunks that were missing and came from another repository.
    pub chunks_fetched: u64,
    /// Snapshots that have lost something.
    pub snapshots_hit: Vec<HitSnapshot>,
    /// Bytes that were read.
    pub bytes_read: u64,
    /// Wall time.
    pub seconds: f64,
}

impl RepairReport {
    /// Whether damage is left behind.
    #[must_use]
    pub fn leaves_damage(&self) -> bool {
        let is_left = self.lost > self.salvage.packs_removed || (self.dry_run && self.healed > 0);
        is_left || !self.snapshots_hit.is_empty()
    }
}

/// Repairs what can be repaired; with `dry_run` it only says so.
///
/// # Errors
/// When the repository can't be opened, read or written.
pub fn run(app: App<'_>, target: &Target, options: &RepairOptions) -> Result<RepairReport> {
    let repository = target.open_fully()?;
    let elsewhere = options.from.iter().map(|location| open_mirror(target, location, &repository));
    let elsewhere: Vec<Repository> = elsewhere.collect::<Result<_>>()?;
    of_repository(app, &repository, &elsewhere, options)
}

/// The same for open repositories.
///
/// # Errors
/// As [`run`].
pub fn of_repository(
    app: App<'_>,
    repository: &Repository,
    elsewhere: &[Repository],
    options: &RepairOptions,
) -> Result<RepairReport> {
    let started = app.context.clock.now();
    let repair = Repair { app, repository, elsewhere, options };
    let mut report = RepairReport { dry_run: options.dry_run, ..RepairReport::default() };
    let lost_packs = repair.objects(&mut report)?;
    repair.packs(&lost_packs, &mut report)?;
    repair.snapshots(&mut report)?;
    report.bytes_read = app.ledger.get(Counter::BytesChecked);
    report.seconds = app.context.clock.now().duration_since(started).as_secs_f64();
    Ok(report)
}

/// A repository that has chunks by the same names.
fn open_mirror(target: &Target, location: &Location, repository: &Repository) -> Result<Repository> {
    let Target { unlock, limits, .. } = target;
    let unlock = unlock.clone();
    let mirror =
        Target { location: location.clone(), unlock, cache: None, limits: *limits, named: Named::Mirror }.open()?;
    if mirror.chunk_id(b"") == repository.chunk_id(b"") {
        return Ok(mirror);
    }
    let message = format!("The repository at {location} has other keys: its chunks have other names");
    Err(Error::new(ErrorKind::Usage, message)
        .hint("Name a mirror of this repository; of others restore the files, and back them up again"))
}

struct Repair<'r> {
    app: App<'r>,
    repository: &'r Repository,
    elsewhere: &'r [Repository],
    options: &'r RepairOptions,
}

impl Repair<'_> {
    /// Heals objects from their parity, else from mirrors. Gives the packs that are beyond that.
    fn objects(&self, report: &mut RepairReport) -> Result<Vec<PackId>> {
        let context = &self.app.context;
        context.observer.stage("Healing objects");
        let dry_run = self.options.dry_run;
        let mut session = None;
        if !dry_run {
            let mut writer = Session::begin(self.repository, "repair", context)?;
            writer.avoid_retired(context)?;
            session = Some(writer);
        }
        report.findings = heal::heal_all(self.repository, session.as_ref(), dry_run, context)?;
        let mut lost_packs = Vec::new();
        for found in &mut report.findings {
            if found.state != State::Lost {
                report.healed += 1;
                continue;
            }
            let key = ObjectKey::from_path(&found.object);
            if let Some(key) = key.filter(|_| !dry_run)
                && self.fetch(&key)?
            {
                found.state = State::Healed;
                "It was damaged and was taken over from another repository".clone_into(&mut found.message);
                report.fetched += 1;
                continue;
            }
            report.lost += 1;
            if let Some(ObjectKey::Pack(id)) = key {
                lost_packs.push(id);
            }
        }
        self.repository.hush_damage();
        session.into_iter().for_each(Session::end);
        Ok(lost_packs)
    }

    fn fetch(&self, key: &ObjectKey) -> Result<bool> {
        for mirror in self.elsewhere {
            if heal::fetch_object(self.repository, mirror, key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Stores again what can be read of packs that can't be healed, takes those away, and mends the index.
    fn packs(&self, lost: &[PackId], report: &mut RepairReport) -> Result<()> {
        let context = &self.app.context;
        if self.options.dry_run {
            self.repository.settle(context)?;
            return self.repository.index().set_aside(&lost.iter().copied().collect());
        }
        context.observer.stage("Saving what can be read of damaged packs");
        report.salvage = salvage(self.repository, lost, self.options.wait, context)?;
        let stays = "damaged packs stay, until repair is run again later";
        tell_of_writers(&report.salvage.writers_waited_for, stays, self.app);
        context.observer.stage("Mending the index");
        (report.segments_deleted, report.packs_listed) = heal::mend_index(self.repository, context)?;
        Ok(())
    }

    /// Fetches what snapshots miss, and writes those that still miss something again, without it.
    fn snapshots(&self, report: &mut RepairReport) -> Result<()> {
        let context = &self.app.context;
        context.observer.stage("Looking through snapshots");
        let snapshots = finding::all(self.repository, context)?;
        if !self.options.dry_run {
            for mirror in self.elsewhere {
                let mut writer = self.repository.writer(false, context)?;
                let chunks = mirror.reader(*context);
                report.chunks_fetched += mend::fetch_lost(self.repository, &chunks, &snapshots, &mut writer, context)?;
                writer.finish(context)?.into_iter().for_each(Session::end);
            }
        }
        for published in &snapshots {
            report.snapshots_hit.extend(self.snapshot(published, &snapshots)?);
        }
        Ok(())
    }

    fn snapshot(&self, published: &Published, all: &[Published]) -> Result<Option<HitSnapshot>> {
        let context = self.app.context;
        let chunks = self.repository.reader(context);
        // Most have lost nothing, which is seen without a writer.
        let Some(mended) = Mender::new(self.repository, &chunks, None, context).mend(published)? else {
            return Ok(None);
        };
        let first = published.snapshot.original.unwrap_or(published.id);
        let is_mended = all.iter().any(|other| other.id != published.id && other.snapshot.original == Some(first));
        let mut hit = HitSnapshot {
            snapshot: published.id,
            mended: None,
            lost_count: mended.lost.len() as u64,
            lost: mended.lost.iter().take(LOST_COUNT_MAX).cloned().collect(),
        };
        if !self.options.dry_run && !is_mended && mended.snapshot.is_some() {
            let mut writer = self.repository.writer(false, &context)?;
            let again = Mender::new(self.repository, &chunks, Some(&mut writer), context).mend(published)?;
            let session = writer.finish(&context)?;
            if let (Some(Mended { snapshot: Some(snapshot), .. }), Some(session)) = (again, session) {
                hit.mended = Some(finding::publish(self.repository, &snapshot, session, &context)?);
            }
        }
        let message = format!("{} paths in it are lost", hit.lost_count);
        context.observer.problem(Problem::new(ObjectKey::Snapshot(published.id).path(), message));
        Ok(Some(hit))
    }
}
