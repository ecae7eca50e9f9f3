//! Finding snapshots: all of them, one by its name, the parent of the next.

use jiff::Timestamp;
use rayon::prelude::*;

use super::reach;
use super::snapshot::{SNAPSHOT_FORMAT, Snapshot, Status};
use crate::error::{Error, ErrorKind, Result};
use crate::id::SnapshotId;
use crate::observer::{Context, Problem};
use crate::storage::{ObjectKey, StorageErrorKind};
use crate::store::Repository;
use crate::store::session::Session;

/// A published snapshot and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its id.
    pub id: SnapshotId,
    /// Its record.
    pub snapshot: Snapshot,
}

/// How a person names a snapshot: DESIGN section 9.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The newest, or so many before it. `latest` is the newest complete one where there is one.
    Latest(usize),
    /// The newest complete one at or before this time.
    At(Timestamp),
    /// The newest with this tag.
    Tag(String),
    /// The one whose id begins so.
    Prefix(String),
}

impl std::str::FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::new(ErrorKind::Usage, format!("`{text}` names no snapshot: {why}"))
                .hint("Use an id or its beginning, latest, latest~2, @2026-09-01T12:00, or tag:NAME")
        };
        if text == "latest" {
            return Ok(Self::Latest(0));
        }
        if let Some(count) = text.strip_prefix("latest~") {
            return count.parse().map(Self::Latest).map_err(|_| bad("a number follows ~"));
        }
        if let Some(time) = text.strip_prefix('@') {
            return parse_time(time).map(Self::At).ok_or_else(|| bad("a time follows @"));
        }
        if let Some(tag) = text.strip_prefix("tag:") {
            return if tag.is_empty() { Err(bad("a tag follows tag:")) } else { Ok(Self::Tag(tag.to_owned())) };
        }
        let is_hex = !text.is_empty() && text.len() <= 64 && text.bytes().all(|c| c.is_ascii_hexdigit());
        if is_hex { Ok(Self::Prefix(text.to_ascii_lowercase())) } else { Err(bad("it is no id")) }
    }
}

/// A time as people write it: with an offset or `Z`, else in the machine's time zone; date alone is the end of that day.
#[must_use]
pub fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let zone = jiff::tz::TimeZone::system();
    if let Ok(time) = text.parse::<jiff::civil::DateTime>()
        && text.contains(['T', ' '])
    {
        return zone.to_timestamp(time).ok();
    }
    let day = text.parse::<jiff::civil::Date>().ok()?;
    zone.to_timestamp(day.at(23, 59, 59, 999_999_999)).ok()
}

/// Every published snapshot, oldest first. Damaged ones are problems and left out.
///
/// # Errors
/// From the storage.
pub fn all(repository: &Repository, context: &Context<'_>) -> Result<Vec<Published>> {
    let ids = repository.list_snapshots()?;
    let read: Vec<(SnapshotId, Result<Published>)> = ids.into_par_iter().map(|id| (id, read(repository, id))).collect();
    let mut snapshots = Vec::new();
    for (id, found) in read {
        match found {
            // Somebody forgot it since it was listed.
            Err(_) if is_forgotten(repository, id) => {}
            Ok(published) => snapshots.push(published),
            Err(error) if error.is_of_one_object() => {
                context.observer.problem(Problem::new("snapshots", error.chain()));
            }
            Err(error) => return Err(error),
        }
    }
    repository.tell_damage(context);
    snapshots.sort_by_key(|published| (published.snapshot.time, published.snapshot.finished_at, published.id));
    Ok(snapshots)
}

/// Whether a snapshot is certainly not there any more.
pub fn is_forgotten(repository: &Repository, id: SnapshotId) -> bool {
    let len = repository.storage().len(&ObjectKey::Snapshot(id));
    len.is_err_and(|error| error.kind() == StorageErrorKind::NotFound)
}

/// One snapshot.
///
/// # Errors
/// `Damaged`, `UnsupportedFormat`, or from the storage.
pub fn read(repository: &Repository, id: SnapshotId) -> Result<Published> {
    let record = repository.read_snapshot(id)?;
    let stored = |is_newer| Error::stored(format!("Snapshot {}", id.short()), is_newer);
    let AnyVersion { format } = serde_json::from_slice(&record).map_err(|cause| stored(false).cause(cause))?;
    if format > SNAPSHOT_FORMAT {
        return Err(stored(true));
    }
    let snapshot = serde_json::from_slice(&record).map_err(|cause| stored(false).cause(cause))?;
    Ok(Published { id, snapshot })
}

/// Publishes a snapshot for which everything is stored, and ends the `session` that kept it from being taken away
/// meanwhile. If somebody took that session for dead, the snapshot is looked through; one that is not whole is not
/// published, or withdrawn.
///
/// # Errors
/// From the storage; then nothing was published, unless the error says so.
pub fn publish(
    repository: &Repository,
    snapshot: &Snapshot,
    session: Session,
    context: &Context<'_>,
) -> Result<SnapshotId> {
    let record = serde_json::to_vec(snapshot)
        .map_err(|cause| Error::new(ErrorKind::Bug, "The snapshot record can't be encoded").cause(cause))?;
    publish_record(repository, &record, snapshot, session, context)
}

/// The same for a record that may have more in it than this program knows of `snapshot`.
pub(super) fn publish_record(
    repository: &Repository,
    record: &[u8],
    snapshot: &Snapshot,
    mut session: Session,
    context: &Context<'_>,
) -> Result<SnapshotId> {
    // Whatever was counted as stored by what is not certain any more is looked for again.
    let mut is_looked_through = false;
    loop {
        let stands = session.stands()?;
        if stands && (is_looked_through || !session.has_learned()?) {
            break;
        }
        if stands {
            session.settle(context)?;
        } else {
            session = Session::begin(repository, "backup", context)?;
            session.avoid_retired(context)?;
        }
        is_looked_through = is_whole(repository, snapshot, &mut session, context)?;
        if !is_looked_through {
            return Err(taken_away());
        }
    }
    let id = match repository.publish_snapshot(record, context) {
        Ok(id) => id,
        Err(error) => {
            session.leave();
            return Err(error);
        }
    };
    let confirmed = session.stands().and_then(|stands| {
        if stands {
            return Ok(true);
        }
        session.avoid_retired(context)?;
        is_whole(repository, snapshot, &mut session, context)
    });
    let confirmed = confirmed.map_err(|cause| {
        Error::new(cause.kind(), format!("Snapshot {} was published, but can't be confirmed", id.short()))
            .cause(cause)
            .hint("`compline check` tells whether it is whole; run the backup again to be sure")
    })?;
    if !confirmed {
        match repository.storage().delete(&ObjectKey::Snapshot(id)) {
            // Somebody forgot it already.
            Err(error) if error.kind() != StorageErrorKind::NotFound => return Err(error.into()),
            _ => return Err(taken_away()),
        }
    }
    session.end();
    Ok(id)
}

/// Whether all that `snapshot` refers to was there when the session looked. What it misses may have come since: then it looks
/// again.
fn is_whole(
    repository: &Repository,
    snapshot: &Snapshot,
    session: &mut Session,
    context: &Context<'_>,
) -> Result<bool> {
    loop {
        let known = session.known();
        let is_there = if repository.can_read() {
            reach::is_whole(repository, snapshot, known, context)?
        } else {
            repository.relies_on_nothing_lost(known)?
        };
        if is_there {
            return Ok(true);
        }
        session.settle(context)?;
        if session.known() == known {
            return Ok(false);
        }
    }
}

fn taken_away() -> Error {
    Error::new(ErrorKind::Storage, "What was counted as stored was given back meanwhile: nothing was published").hint(
        "Run it again; if it happens again, look whether this machine was stopped for long or its clock jumped, so that \
         another one took the run for dead",
    )
}

/// What records of all versions have; it is looked at before fields that may mean something else by then.
#[derive(serde::Deserialize)]
struct AnyVersion {
    format: u32,
}

/// The one of `snapshots` (oldest first) that `selector` names.
///
/// # Errors
/// `NotFound` or `Ambiguous`.
pub fn select<'p>(snapshots: &'p [Published], selector: &Selector) -> Result<&'p Published> {
    let none = |what: String| Error::new(ErrorKind::NotFound, what).hint("`compline snapshots` lists what there is");
    match selector {
        Selector::Latest(back) => latest(snapshots).nth(*back).ok_or_else(|| match snapshots.len() {
            0 => none("The repository has no snapshots".to_owned()),
            1 => none("The repository has only 1 snapshot".to_owned()),
            count => none(format!("The repository has only {count} snapshots")),
        }),
        Selector::At(time) => latest(snapshots)
            .find(|published| published.snapshot.time <= *time && published.snapshot.status == Status::Complete)
            .ok_or_else(|| {
                none(format!("There is no complete snapshot at or before {}", time.strftime("%Y-%m-%dT%H:%M:%SZ")))
            }),
        Selector::Tag(tag) => snapshots
            .iter()
            .rev()
            .find(|published| published.snapshot.tags.contains(tag))
            .ok_or_else(|| none(format!("No snapshot has the tag {tag}"))),
        Selector::Prefix(prefix) => by_prefix(snapshots, prefix),
    }
}

/// Newest first; but partial ones never come before the newest complete one.
fn latest(snapshots: &[Published]) -> impl Iterator<Item = &Published> {
    let newest_complete = snapshots.iter().rposition(|published| published.snapshot.status == Status::Complete);
    let first = newest_complete.into_iter();
    let rest = (0..snapshots.len()).rev().filter(move |n| newest_complete.is_none_or(|complete| *n < complete));
    first.chain(rest).map(|n| &snapshots[n])
}

fn by_prefix<'p>(snapshots: &'p [Published], prefix: &str) -> Result<&'p Published> {
    let ids: Vec<SnapshotId> = snapshots.iter().map(|published| published.id).collect();
    let id = one_by_prefix(&ids, prefix)?;
    Ok(snapshots.iter().find(|published| published.id == id).expect("cannot fail because the id is one of theirs"))
}

/// The one of `ids` that begins with `prefix`.
///
/// # Errors
/// `NotFound` or `Ambiguous`.
pub fn one_by_prefix(ids: &[SnapshotId], prefix: &str) -> Result<SnapshotId> {
    let mut found = ids.iter().filter(|id| id.to_hex().starts_with(prefix));
    let Some(first) = found.next() else {
        return Err(Error::new(ErrorKind::NotFound, format!("No snapshot has an id that begins with {prefix}"))
            .hint("`compline snapshots` lists what there is"));
    };
    if found.next().is_some() {
        return Err(Error::new(ErrorKind::Ambiguous, format!("Several snapshots have ids that begin with {prefix}"))
            .hint("Give more digits"));
    }
    Ok(*first)
}

/// The snapshot that a new one of `component` is compared with: the newest of the same platform and host that committed it.
#[must_use]
pub fn parent<'p>(snapshots: &'p [Published], platform: &str, host: &str, component: &str) -> Option<&'p Published> {
    snapshots.iter().rev().find(|published| {
        let snapshot = &published.snapshot;
        let committed = snapshot.component(component).is_some_and(|record| record.root.is_some());
        snapshot.platform == platform && snapshot.host == host && committed
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(number: u8, status: Status, tag: &str) -> Published {
        let time: Timestamp = format!("2026-01-{number:02}T02:10:00Z").parse().expect("a time");
        let snapshot = Snapshot {
            format: SNAPSHOT_FORMAT,
            platform: "p".to_owned(),
            host: "h".to_owned(),
            user: "u".to_owned(),
            time,
            finished_at: time,
            status,
            tags: vec![tag.to_owned()],
            pinned: false,
            original: None,
            parent: None,
            tool: "test".to_owned(),
            components: Vec::new(),
            restore_order: Vec::new(),
            plan: None,
            other: serde_json::Map::new(),
        };
        Published { id: SnapshotId::from_bytes([number; 32]), snapshot }
    }

    /// The day of the month of what `name` selects.
    fn select_in(nights: &[Published], name: &str) -> Result<u8> {
        select(nights, &name.parse()?).map(|published| published.id.as_bytes()[0])
    }

    #[test]
    fn a_partial_snapshot_never_displaces_a_complete_one() {
        let nights = [
            published(1, Status::Complete, "a"),
            published(2, Status::Partial, "b"),
            published(3, Status::Complete, "c"),
            published(4, Status::Partial, "d"),
        ];
        assert_eq!(select_in(&nights, "latest").ok(), Some(3));
        assert_eq!(select_in(&nights, "latest~1").ok(), Some(2));
        assert_eq!(select_in(&nights, "@2026-01-02T12:00:00Z").ok(), Some(1));
        assert_eq!(select_in(&nights, "tag:d").ok(), Some(4));
        assert_eq!(select_in(&nights, "0404").ok(), Some(4));
        assert_eq!(select_in(&nights[3..], "latest").ok(), Some(4));
    }

    #[test]
    fn what_is_not_there_or_not_unique_is_told_apart() {
        let nights = [published(0x11, Status::Complete, ""), published(0x12, Status::Complete, "")];
        let kind = |name: &str| select_in(&nights, name).map_err(|error| error.kind());
        assert_eq!(kind("1"), Err(ErrorKind::Ambiguous));
        assert_eq!(kind("ff"), Err(ErrorKind::NotFound));
        assert_eq!(kind("latest~2"), Err(ErrorKind::NotFound));
        assert_eq!(kind("@2020-01-01"), Err(ErrorKind::NotFound));
        assert_eq!(kind("yesterday"), Err(ErrorKind::Usage));
    }
}
