//! `copy`: snapshots of one repository into another, off-site for example. What is there already is passed over, so that the
//! same command every night costs what is new.

use jiff::Timestamp;
use serde::Serialize;

use super::forget::Only;
use super::{App, Named, Target};
use crate::archive::copy::{Copier, Outcome, copy_of};
use crate::archive::snapshots::{self as finding, Published, Selector};
use crate::clock::seconds_since;
use crate::error::{Error, ErrorKind, Result};
use crate::id::SnapshotId;
use crate::observer::{Counter, Problem};
use crate::store::Repository;

/// Which snapshots.
pub enum Wish {
    /// These; a tag stands for every snapshot that has it.
    Named(Vec<Selector>),
    /// All that fit.
    Fitting(Only),
}

/// A snapshot, and what became of it.
#[derive(Debug, Serialize)]
pub struct CopyRow {
    /// Its id in the source.
    pub snapshot: SnapshotId,
    /// Its id in the target; none if it is not there.
    pub copy: Option<SnapshotId>,
    /// Nominal time.
    pub time: Timestamp,
    /// Content bytes that it holds.
    pub bytes_logical: u64,
    /// `copied`, `there`, `forgotten`, `failed`; `wanted` in a rehearsal.
    pub state: &'static str,
}

/// What was decided and done.
#[derive(Debug, Serialize)]
pub struct CopyReport {
    /// Where snapshots were taken from.
    pub from: String,
    /// Where they were put.
    pub to: String,
    /// Nothing was copied, only decided.
    pub dry_run: bool,
    /// Whether both have the same keys, so that frames and deltas are taken over as they are.
    pub shares_keys: bool,
    /// All snapshots that were asked for, oldest first.
    pub snapshots: Vec<CopyRow>,
    /// Bytes of chunks that were not in the target before.
    pub bytes_new: u64,
    /// Bytes of objects that were written.
    pub bytes_stored: u64,
    /// Chunks that were not in the target before.
    pub chunks_new: u64,
    /// Those of them that are stored as deltas.
    pub chunks_delta: u64,
    /// Wall time.
    pub seconds: f64,
}

impl CopyReport {
    /// How many snapshots are in this state.
    #[must_use]
    pub fn count(&self, state: &str) -> usize {
        self.snapshots.iter().filter(|row| row.state == state).count()
    }
}

/// Copies snapshots from one repository into another, or says which it would copy.
///
/// # Errors
/// When a repository can't be opened, or a snapshot that was named is not there. One that can't be copied is a problem, and
/// the others are copied all the same.
pub fn run(app: App<'_>, from: &Target, to: &Target, wish: &Wish, dry_run: bool) -> Result<CopyReport> {
    let source = from.open().map_err(|error| {
        let kind = error.kind();
        let error = error.context(format!("Nothing can be copied from {}", from.location));
        match (kind, from.named) {
            (ErrorKind::WrongKey, Named::From) => {
                error.hint("Name its key with --from-password-file, --from-password-command or --from-key-file")
            }
            _ => error,
        }
    })?;
    let target = to.open_fully()?;
    if source.id() == target.id() {
        let message = format!("{} and {} are the same repository", from.location, to.location);
        let hint = match to.named {
            Named::PlannedCopy => "Name another one in [[copy]]",
            _ => "Name another one with --from, or with -r",
        };
        return Err(Error::new(ErrorKind::Usage, message).hint(hint));
    }
    of_repositories(app, &source, &target, wish, dry_run)
}

/// The same for open repositories.
///
/// # Errors
/// As [`run`].
pub fn of_repositories(
    app: App<'_>,
    source: &Repository,
    target: &Repository,
    wish: &Wish,
    dry_run: bool,
) -> Result<CopyReport> {
    let started = app.context.clock.now();
    let counters = [Counter::BytesNew, Counter::BytesStored, Counter::ChunksNew, Counter::ChunksDelta];
    let before = counters.map(|counter| app.ledger.get(counter));
    let wanted = wanted(&finding::all(source, &app.context)?, wish)?;
    let mut there = finding::all(target, &app.context)?;
    let copier = Copier::new(source, target, app.context)?;
    let mut snapshots = Vec::new();
    for published in &wanted {
        let (state, copy) = match copy_of(published, &there) {
            Some(copy) => ("there", Some(copy.id)),
            None if dry_run => ("wanted", None),
            None => copy_one(app, &copier, published, &mut there)?,
        };
        let bytes_logical = logical_len(published);
        snapshots.push(CopyRow { snapshot: published.id, copy, time: published.snapshot.time, bytes_logical, state });
    }
    let [bytes_new, bytes_stored, chunks_new, chunks_delta] = {
        let mut before = before.into_iter();
        counters.map(|counter| app.ledger.get(counter) - before.next().unwrap_or(0))
    };
    Ok(CopyReport {
        from: source.storage().location(),
        to: target.storage().location(),
        dry_run,
        shares_keys: copier.takes_frames(),
        snapshots,
        bytes_new,
        bytes_stored,
        chunks_new,
        chunks_delta,
        seconds: seconds_since(app.context.clock, started),
    })
}

fn logical_len(published: &Published) -> u64 {
    published.snapshot.components.iter().map(|component| component.stats.bytes_logical).sum()
}

fn wanted(all: &[Published], wish: &Wish) -> Result<Vec<Published>> {
    let selectors = match wish {
        Wish::Fitting(only) => {
            return Ok(all.iter().filter(|published| only.fits(&published.snapshot)).cloned().collect());
        }
        Wish::Named(selectors) => selectors,
    };
    let mut named = Vec::new();
    for selector in selectors {
        let one = finding::select(all, selector)?.id;
        match selector {
            Selector::Tag(tag) => {
                named.extend(all.iter().filter(|other| other.snapshot.tags.contains(tag)).map(|other| other.id));
            }
            _ => named.push(one),
        }
    }
    // Oldest first, as they were made: each finds in the one before what it is a delta of.
    Ok(all.iter().filter(|published| named.contains(&published.id)).cloned().collect())
}

/// Only what ends the run is an error.
fn copy_one(
    app: App<'_>,
    copier: &Copier<'_>,
    published: &Published,
    there: &mut Vec<Published>,
) -> Result<(&'static str, Option<SnapshotId>)> {
    let observer = app.context.observer;
    let short = published.id.short();
    observer.stage(&format!("Copying snapshot {short}"));
    observer.expect(logical_len(published), 0);
    match copier.copy(published, there) {
        Ok(Outcome::Copied(copy)) => {
            let id = copy.id;
            let key = |other: &Published| (other.snapshot.time, other.snapshot.finished_at, other.id);
            let at = there.partition_point(|other| key(other) < key(&copy));
            there.insert(at, *copy);
            Ok(("copied", Some(id)))
        }
        Ok(Outcome::ThereAlready(id)) => Ok(("there", Some(id))),
        Ok(Outcome::Forgotten) => {
            observer.detail(&format!("Snapshot {short} was forgotten before it was copied"));
            Ok(("forgotten", None))
        }
        Err(error) if error.is_of_one_object() => {
            observer
                .problem(Problem::new(format!("Snapshot {short}"), format!("It was not copied: {}", error.chain())));
            Ok(("failed", None))
        }
        Err(error) => Err(error),
    }
}
