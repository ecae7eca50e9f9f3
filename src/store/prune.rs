//! Giving space back (format-spec 11), beside writers and readers that nobody stops. The steps are methods of `Run`, in
//! the order of the lines of [`run`].
//!
//! Nothing is locked. A pack is deleted only after it was on a list that every writer sees that began since, after every
//! writer ended that began before, and after what is published by then was looked at again.

mod decide;
mod rewrite;
mod segments;

pub(super) use self::segments::unlist;
use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

pub use self::decide::{Allowance, Decision, decide};
use super::index::{Liveness, Usage};
use super::repository::Repository;
use super::retired;
use super::session::{self, Session};
use crate::error::{Error, Result};
use crate::id::{PackId, RetiredId, SessionId};
use crate::observer::{Context, Problem};
use crate::pipeline;
use crate::storage::{ObjectKey, ObjectKind, StorageErrorKind};

/// How often it is looked, at first, whether the writers that are waited for have ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked in the end: over a network each look costs.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(30);
/// Who is waited for so long is told, to those who asked for quiet as well.
const NOTICE_AFTER: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct PruneOptions {
    /// How much may stay unused.
    pub allowance: Allowance,
    /// How long writers are waited for that began before.
    pub wait: Duration,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PruneSummary {
    /// What was decided.
    #[serde(flatten)]
    pub decision: Decision,
    /// Packs that were deleted and gave their space back.
    pub packs_deleted: u64,
    /// Their bytes.
    pub bytes_deleted: u64,
    /// Bytes of the packs that were written instead.
    pub bytes_written: u64,
    /// Packs that were deleted and take space all the same until their locks end.
    pub packs_locked: u64,
    /// Their bytes.
    pub bytes_locked: u64,
    /// When the last of these locks ends.
    pub locked_until: Option<Timestamp>,
    /// Objects that are needed and whose locks got more time.
    pub locks_extended: u64,
    /// Packs that were to go and stay, because something that was published meanwhile needs them.
    pub packs_spared: u64,
    /// Writers that were still running when waiting for them ended: what was to be deleted stays for the next time.
    pub writers_waited_for: Vec<String>,
    /// Index segments that were joined.
    pub segments_joined: u64,
}

impl PruneSummary {
    /// A pack was deleted, and takes its space until a lock ends, if there is one.
    fn count(&mut self, len: u64, locked_until: Option<Timestamp>) {
        let (packs, bytes) = match locked_until {
            Some(_) => (&mut self.packs_locked, &mut self.bytes_locked),
            None => (&mut self.packs_deleted, &mut self.bytes_deleted),
        };
        *packs += 1;
        *bytes += len;
        self.locked_until = self.locked_until.max(locked_until);
    }
}

/// Tells a [`Liveness`] of everything that the snapshots refer to which it was not told of before.
pub type Reach<'r> = dyn FnMut(&mut Liveness<'_>) -> Result<()> + 'r;

/// Decides what nobody needs, and deletes it.
///
/// # Errors
/// From storage and index, and when it can't be known what is needed; then nothing was deleted that is needed.
pub fn run(
    repository: &Repository,
    options: PruneOptions,
    reach: &mut Reach<'_>,
    context: &Context<'_>,
) -> Result<PruneSummary> {
    let mut run = Run {
        repository,
        options,
        liveness: repository.index().liveness()?,
        reach,
        context,
        summary: PruneSummary::default(),
        deletes: false,
        lent: Vec::new(),
        lent_before: HashSet::new(),
    };
    let session = if options.dry_run { None } else { Some(run.begin()?) };
    let decision = run.survey()?;
    run.summary.decision = decision.clone();
    if options.dry_run {
        return Ok(run.summary);
    }
    session.into_iter().for_each(Session::end);
    // What is not needed goes before anything is written: the disk may be full.
    let mut goes_on = run.reclaim(&decision.drop)?;
    let mut left = decision.rewrite;
    left.append(&mut run.lent);
    while goes_on && !left.is_empty() {
        context.observer.stage("Rewriting packs");
        let session = run.begin()?;
        let (rewritten, why) = run.rewrite(&mut left)?;
        session.end();
        let deleted = run.summary.packs_deleted;
        goes_on = run.reclaim(&rewritten)?;
        match why {
            // The disk is full, and what was deleted makes no room.
            Some(cause) if run.summary.packs_deleted == deleted => return Err(cause),
            _ => left.append(&mut run.lent),
        }
    }
    run.release_others()?;
    // Where nothing was deleted nobody was waited for, and what dead runs left would stay.
    session::list_living(repository, context)?;
    segments::unlist_lost(repository, context)?;
    run.summary.segments_joined = segments::join(repository, context)?;
    let on_their_way = if goes_on { HashSet::new() } else { decision.drop.into_iter().collect() };
    run.extend_locks(&on_their_way)?;
    Ok(run.summary)
}

struct Run<'r> {
    repository: &'r Repository,
    options: PruneOptions,
    liveness: Liveness<'r>,
    reach: &'r mut Reach<'r>,
    context: &'r Context<'r>,
    summary: PruneSummary,
    /// A pack of the present list is being deleted.
    deletes: bool,
    /// Packs that were to go and stay, because what is needed of them, or of others in their place, is only in packs that
    /// others have on their lists ...
    lent: Vec<PackId>,
    /// ... and all that ever were.
    lent_before: HashSet<PackId>,
}

/// Packs on lists, but for one.
fn on_lists(repository: &Repository, but: Option<RetiredId>) -> Result<HashSet<PackId>> {
    let lists = retired::list(repository)?;
    Ok(lists.into_iter().filter(|list| Some(list.id) != but).flat_map(|list| list.packs).collect())
}

/// The packs that are there.
fn present(repository: &Repository) -> Result<HashSet<PackId>> {
    let id = |key| if let ObjectKey::Pack(id) = key { Some(id) } else { None };
    Ok(repository.storage().list(ObjectKind::Pack)?.into_iter().filter_map(|row| id(row.key)).collect())
}

impl Run<'_> {
    /// Begins to write. On a full disk something has to go first: index segments can be spared, they are only copies of
    /// what packs say.
    fn begin(&self) -> Result<Session> {
        self.make_room(|| Session::begin(self.repository, "prune", self.context))
    }

    /// Looks at lists, snapshots and packs, in this order, and decides.
    fn survey(&mut self) -> Result<Decision> {
        self.context.observer.stage("Looking at what is needed");
        let (usage, _) = self.look(None)?;
        if self.repository.index().has_unknown_frames()? {
            return Err(Error::stored("A part of a pack", true));
        }
        if usage.missing_count > 0 {
            let message = format!(
                "{} chunks that snapshots refer to are in no pack. `compline check` tells which files that hits",
                usage.missing_count
            );
            self.context.observer.problem(Problem::new("snapshots", message));
        }
        Ok(decide(&usage.packs, self.options.allowance, self.repository.pack_len()))
    }

    /// What is needed now, with the packs of `own` and of all other lists, which are given too, told apart from those that
    /// stay.
    fn look(&mut self, own: Option<(RetiredId, &HashSet<PackId>)>) -> Result<(Usage, HashSet<PackId>)> {
        let others = on_lists(self.repository, own.map(|(id, _)| id))?;
        (self.reach)(&mut self.liveness)?;
        let known = self.repository.settle(self.context)?.known;
        let none = HashSet::new();
        Ok((self.liveness.usage(own.map_or(&none, |(_, packs)| packs), &others, known)?, others))
    }

    /// Retires `packs` and deletes those that still nobody needs after every writer ended that may not know. False if
    /// such a writer runs too long.
    fn reclaim(&mut self, packs: &[PackId]) -> Result<bool> {
        for packs in packs.chunks(retired::RETIRED_COUNT_MAX) {
            let list = self.retire(packs)?;
            let packs: HashSet<PackId> = packs.iter().copied().collect();
            let awaited = await_writers(self.repository, self.options.wait, self.context);
            let reclaimed = awaited.and_then(|left| {
                if left.is_empty() {
                    let doomed = self.judge(list, &packs)?;
                    self.delete(&doomed)?;
                }
                Ok(left)
            });
            match reclaimed {
                Ok(left) => {
                    self.release(list)?;
                    if !left.is_empty() {
                        self.summary.writers_waited_for = left;
                        return Ok(false);
                    }
                }
                // A delete whose answer never came may still happen. The list stays, and the next run goes on from it.
                Err(error) if self.deletes => return Err(error),
                Err(error) => {
                    self.release(list)?;
                    return Err(error);
                }
            }
            self.deletes = false;
        }
        Ok(true)
    }

    /// Publishes a list: no writer that begins from now on relies on `packs`.
    fn retire(&self, packs: &[PackId]) -> Result<RetiredId> {
        self.make_room(|| retired::publish(self.repository, packs, self.context))
    }

    /// Those of `packs`, which are on the own list, that no snapshot needs that is published by now.
    fn judge(&mut self, list: RetiredId, packs: &HashSet<PackId>) -> Result<Vec<(PackId, u64)>> {
        self.context.observer.stage("Looking again at what is needed");
        let (usage, others) = self.look(Some((list, packs)))?;
        let own = usage.packs.into_iter().filter(|pack| packs.contains(&pack.id));
        let (doomed, spared): (Vec<_>, Vec<_>) = own.partition(|pack| pack.live_len == 0 && !pack.is_precious);
        self.summary.packs_spared += spared.len() as u64;
        // Nobody else is going to work off the list of a run that died: what is needed of them is put elsewhere, once, and
        // then nothing keeps those any more that were only one place of several.
        let lent = spared.iter().filter(|pack| others.contains(&pack.id) || pack.live_len == 0).map(|pack| pack.id);
        self.lent.extend(lent.filter(|id| self.lent_before.insert(*id)));
        Ok(doomed.into_iter().map(|pack| (pack.id, pack.len)).collect())
    }

    /// Deletes packs, after the segments have forgotten them.
    fn delete(&mut self, doomed: &[(PackId, u64)]) -> Result<()> {
        if doomed.is_empty() {
            return Ok(());
        }
        self.context.observer.stage("Deleting packs");
        let ids: Vec<PackId> = doomed.iter().map(|(id, _)| *id).collect();
        unlist(self.repository, &ids, self.context)?;
        for (id, len) in doomed {
            self.context.go_on()?;
            let locked_until = self.repository.storage().locked_until(&ObjectKey::Pack(*id))?;
            self.deletes = true;
            delete(self.repository, &ObjectKey::Pack(*id))?;
            self.summary.count(*len, locked_until);
        }
        self.repository.index().remove_packs(&ids)
    }

    /// Sees to it that what is left stays locked, where it is: all of it is needed, but for packs `on_their_way` out.
    fn extend_locks(&mut self, on_their_way: &HashSet<PackId>) -> Result<()> {
        let is_needed = |key: &ObjectKey| !matches!(key, ObjectKey::Pack(id) if on_their_way.contains(id));
        for kind in ObjectKind::ALL {
            self.context.go_on()?;
            self.summary.locks_extended += self.repository.storage().extend_locks(kind, &is_needed)?;
        }
        Ok(())
    }

    /// Takes the own list back.
    fn release(&self, list: RetiredId) -> Result<()> {
        retired::release(self.repository, list)
    }

    /// Takes lists of others back of which nothing is there any more: those of runs that died.
    fn release_others(&self) -> Result<()> {
        let lists = retired::list(self.repository)?;
        if lists.is_empty() {
            return Ok(());
        }
        let present = present(self.repository)?;
        for list in lists.iter().filter(|list| list.packs.is_disjoint(&present)) {
            self.release(list.id)?;
        }
        Ok(())
    }

    /// Does `work`, and if the storage is full, once more each time that an index segment was deleted for it.
    fn make_room<T>(&self, work: impl Fn() -> Result<T>) -> Result<T> {
        loop {
            match work() {
                Err(error) if error.is_full() => {
                    let mut segments = self.repository.storage().list(ObjectKind::Segment)?;
                    segments.sort_by_key(|row| row.len);
                    let Some(largest) = segments.pop() else { return Err(error) };
                    self.context.observer.detail(&format!("The storage is full: {} goes, for now", largest.key));
                    delete(self.repository, &largest.key)?;
                }
                other => return other,
            }
        }
    }
}

/// Waits for all writers that show now, who may not have seen the newest list. Gives those that ran for longer than `wait`.
///
/// # Errors
/// From storage and index, and when the run is asked to stop.
pub(super) fn await_writers(repository: &Repository, wait: Duration, context: &Context<'_>) -> Result<Vec<String>> {
    let mut awaited: Option<HashSet<SessionId>> = None;
    let mut waited = Duration::ZERO;
    loop {
        let living = session::list_living(repository, context)?;
        let awaited = awaited.get_or_insert_with(|| living.iter().map(|session| session.id).collect());
        let left: Vec<String> =
            living.iter().filter(|session| awaited.contains(&session.id)).map(session::SeenSession::describe).collect();
        if left.is_empty() || waited >= wait {
            return Ok(left);
        }
        context.observer.stage(&format!("Waiting for {}", left.join(", ")));
        if waited == NOTICE_AFTER {
            context.observer.notice(&waiting(&left, wait));
        }
        let until = wait.min(waited + (waited / 10).clamp(LOOK_EVERY, LOOK_EVERY_MAX));
        while waited < until {
            context.go_on()?;
            pipeline::pause_unless_stopping(LOOK_EVERY);
            waited += LOOK_EVERY;
        }
    }
}

fn waiting(writers: &[String], wait: Duration) -> String {
    format!(
        "Waiting until this ends, for {} s at most: {}. If it died, it counts as ended when no sign of life was seen for \
         an hour; it is safe to stop this run and let it go on later",
        wait.as_secs(),
        writers.join("; ")
    )
}

/// Deletes an object that somebody else may have deleted.
pub(super) fn delete(repository: &Repository, key: &ObjectKey) -> Result<()> {
    match repository.storage().delete(key) {
        Err(error) if error.kind() != StorageErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
