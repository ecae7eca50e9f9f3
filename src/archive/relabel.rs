//! Other labels on a published snapshot: its record is written again, under the new id that its new bytes have.
//!
//! The new record is published before the old one goes, so a crash leaves both and never neither; doing it again mends
//! that. The record is changed as JSON and not as a [`Snapshot`](super::Snapshot), so that everything in it stays that a
//! later compline put there (SNAP-2), however deep.

use serde_json::{Map, Value};

use super::reach;
use super::snapshots::{Published, publish_record, read};
use crate::error::{Error, ErrorKind, Result};
use crate::id::SnapshotId;
use crate::observer::{Context, Problem};
use crate::store::Repository;
use crate::store::session::Session;

/// What to change.
#[derive(Debug, Clone, Default)]
pub struct Relabel {
    /// These tags instead of those it has.
    pub set: Option<Vec<String>>,
    /// These too.
    pub add: Vec<String>,
    /// Not these.
    pub remove: Vec<String>,
    /// Pin or unpin it.
    pub pin: Option<bool>,
}

impl Relabel {
    /// Whether nothing would change on any snapshot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_none() && self.add.is_empty() && self.remove.is_empty() && self.pin.is_none()
    }

    /// The tags of a snapshot that had `tags`: each once, in the order in which they came.
    #[must_use]
    pub fn tags(&self, tags: &[String]) -> Vec<String> {
        let mut wanted: Vec<String> = Vec::new();
        for tag in self.set.as_deref().unwrap_or(tags).iter().chain(&self.add) {
            if !self.remove.contains(tag) && !wanted.contains(tag) {
                wanted.push(tag.clone());
            }
        }
        wanted
    }
}

/// A snapshot under its new id.
#[derive(Debug, Clone)]
pub struct Relabelled {
    /// What it is called now; what it was, if nothing changed.
    pub id: SnapshotId,
    /// Its tags now.
    pub tags: Vec<String>,
    /// Whether it is pinned now.
    pub pinned: bool,
}

/// Changes the labels of one of `all` snapshots. A twin with these labels, which a crash has left beside it, is taken
/// instead of a third.
///
/// # Errors
/// From the repository; then the snapshot is what it was.
pub fn relabel(
    repository: &Repository,
    id: SnapshotId,
    change: &Relabel,
    all: &[Published],
    context: &Context<'_>,
) -> Result<Relabelled> {
    let old = read(repository, id)?.snapshot;
    let (tags, pinned) = (change.tags(&old.tags), change.pin.unwrap_or(old.pinned));
    if tags == old.tags && pinned == old.pinned {
        return Ok(Relabelled { id, tags, pinned });
    }
    let original = old.original.unwrap_or(id);
    let is_twin = |other: &&Published| {
        let snapshot = &other.snapshot;
        other.id != id && snapshot.original == Some(original) && snapshot.tags == tags && snapshot.pinned == pinned
    };
    context.go_on()?;
    let twin = all.iter().find(is_twin).and_then(|twin| read(repository, twin.id).ok());
    let new = match twin {
        Some(twin) => twin.id,
        None => publish_again(repository, id, original, (&tags, pinned), context)?,
    };
    // Already gone is fine: who forgot or tagged it at the same time has the last word on their own record only.
    if let Err(error) = repository.remove_snapshot(id) {
        let message = format!("It is now {}, but the old record could not be removed: {}", new.short(), error.chain());
        context.observer.problem(Problem::new(format!("Snapshot {}", id.short()), message));
    }
    Ok(Relabelled { id: new, tags, pinned })
}

/// Publishes the record of a snapshot with other labels.
///
/// This is a writer as any other (RECL-7, RECL-9): somebody may forget the old record meanwhile, and a prune would then take
/// away what the new one refers to. So the session comes first, then what is retired is taken for gone, and the old record is
/// read only then.
fn publish_again(
    repository: &Repository,
    id: SnapshotId,
    original: SnapshotId,
    (tags, pinned): (&[String], bool),
    context: &Context<'_>,
) -> Result<SnapshotId> {
    let mut session = Session::begin(repository, "tag", context)?;
    session.avoid_retired(context)?;
    let record = repository.read_snapshot(id)?;
    let snapshot = read(repository, id)?.snapshot;
    if repository.index().has_aside() && !reach::is_whole(repository, &snapshot, session.known(), context)? {
        let message = format!("Snapshot {} refers to packs that a prune is about to delete or to spare", id.short());
        return Err(Error::new(ErrorKind::Storage, message).hint("Run it again when the prune has ended"));
    }
    let record = rewritten(&record, original, tags, pinned)?;
    publish_record(repository, &record, &snapshot, session, context)
}

/// The record with other labels, and all else as it was.
fn rewritten(record: &[u8], original: SnapshotId, tags: &[String], pinned: bool) -> Result<Vec<u8>> {
    let bad = |cause| {
        Error::new(ErrorKind::Bug, format!("The record of snapshot {} can't be encoded", original.short())).cause(cause)
    };
    let mut fields: Map<String, Value> = serde_json::from_slice(record).map_err(bad)?;
    fields.insert("tags".to_owned(), Value::from(tags));
    if pinned {
        fields.insert("pinned".to_owned(), true.into());
    } else {
        fields.remove("pinned");
    }
    fields.insert("original".to_owned(), original.to_hex().into());
    serde_json::to_vec(&fields).map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn tags_are_set_then_added_then_removed_and_each_stands_once() {
        let tags = |set: Option<&[&str]>, add: &[&str], remove: &[&str]| {
            let change = Relabel { set: set.map(words), add: words(add), remove: words(remove), pin: None };
            change.tags(&words(&["a", "b", "a"]))
        };
        assert_eq!(tags(None, &["c", "b"], &[]), ["a", "b", "c"]);
        assert_eq!(tags(None, &["c"], &["a"]), ["b", "c"]);
        assert_eq!(tags(Some(&["x"]), &["y"], &[]), ["x", "y"]);
        assert!(tags(Some(&[]), &[], &[]).is_empty());
    }

    #[test]
    fn what_a_later_compline_wrote_stays_at_every_depth() {
        let id = SnapshotId::from_bytes([7; 32]);
        let record = br#"{"later":{"x":[1,2.5]},"tags":["old"],
            "components":[{"name":"a","commands":[{"later":18446744073709551615}]}]}"#;
        let once = rewritten(record, id, &words(&["new"]), true).unwrap();
        let twice = rewritten(&once, id, &[], false).unwrap();
        let (once, twice): (Value, Value) =
            (serde_json::from_slice(&once).unwrap(), serde_json::from_slice(&twice).unwrap());
        assert_eq!(once["later"]["x"], serde_json::json!([1, 2.5]));
        assert_eq!(once["components"][0]["commands"][0]["later"], u64::MAX);
        assert_eq!(
            (&once["tags"][0], &once["pinned"], &once["original"]),
            (&"new".into(), &true.into(), &id.to_hex().into())
        );
        assert_eq!((twice.get("pinned"), &twice["original"]), (None, &id.to_hex().into()));
    }
}
