//! Snapshots of one repository into another: what `compline copy` does.
//!
//! Names of chunks are made with a key, so a tree of one repository means nothing in another. Content is read, verified, and
//! offered to a writer of the target, chunk by chunk as it was cut; trees and lists are written again with the names of the
//! target. Where both share their keys names are the same, and frames are taken over as they are.
//!
//! A copy is a writer as any other: chunks and index first, the record last, so a crash leaves chunks that the next copy finds.
//! It goes twice over a snapshot: first all content is stored, many files at once and in the order of their trees; then the
//! trees are written, when every name is known. Nothing grows with the snapshot but the files beside the index.

mod content;

use std::collections::HashSet;

use serde_json::{Map, Value};

use self::content::Translator;
use super::entry::Entry;
use super::reach::{self, Reached};
use super::snapshot::{ComponentRecord, Snapshot, Status};
use super::snapshots::{self as finding, Published};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ChunkId, SnapshotId};
use crate::observer::Context;
use crate::storage::{ObjectKey, StorageErrorKind};
use crate::store::index::Translation;
use crate::store::session::Session;
use crate::store::{Repository, TakeOver, Writer};

/// What became of a snapshot.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It is in the target now.
    Copied(Box<Published>),
    /// Somebody else has copied it meanwhile.
    ThereAlready(SnapshotId),
    /// It was forgotten in the source before it was copied.
    Forgotten,
}

/// The id under which a snapshot was published first, in whatever repository that was.
#[must_use]
pub fn origin(published: &Published) -> SnapshotId {
    published.snapshot.original.unwrap_or(published.id)
}

/// The one of `there` that is a copy of `published`, or that it is a copy of. What was copied when it was only a part doesn't
/// stand for the whole.
#[must_use]
pub fn copy_of<'p>(published: &Published, there: &'p [Published]) -> Option<&'p Published> {
    let first = origin(published);
    there.iter().find(|other| {
        let is_enough = other.snapshot.status == published.snapshot.status || other.snapshot.status == Status::Complete;
        origin(other) == first && is_enough
    })
}

/// Copies snapshots from one repository into another.
pub struct Copier<'c> {
    source: &'c Repository,
    target: &'c Repository,
    context: Context<'c>,
    /// None where both share their keys.
    names: Option<Translation>,
}

impl<'c> Copier<'c> {
    /// From `source` into `target`.
    ///
    /// # Errors
    /// When the names of chunks can't be kept.
    pub fn new(source: &'c Repository, target: &'c Repository, context: Context<'c>) -> Result<Self> {
        let names =
            if source.shares_keys_with(target) { None } else { Some(Translation::open(target.index(), source.id())?) };
        Ok(Self { source, target, context, names })
    }

    /// Whether frames are taken over as they are.
    #[must_use]
    pub fn takes_frames(&self) -> bool {
        self.names.is_none()
    }

    /// Copies a snapshot; `there` is what the target has.
    ///
    /// # Errors
    /// From both repositories; then the target has no part of the snapshot that anybody sees.
    pub fn copy(&self, published: &Published, there: &[Published]) -> Result<Outcome> {
        let copied = self.try_copy(published, there);
        match copied {
            Err(_) if finding::is_forgotten(self.source, published.id) => Ok(Outcome::Forgotten),
            other => other,
        }
    }

    fn try_copy(&self, published: &Published, there: &[Published]) -> Result<Outcome> {
        let mut writer = self.target.writer_of("copy", &self.context)?;
        let record = self.source.read_snapshot(published.id)?;
        let roots = if let Some(names) = &self.names {
            self.translate(&published.snapshot, names, there, &mut writer)?
        } else {
            self.take_over(&published.snapshot, &mut writer)?;
            published.snapshot.components.iter().map(|component| component.root.clone()).collect()
        };
        let session = writer.finish(&self.context)?;
        self.context.go_on()?;
        let session = session.ok_or_else(|| Error::new(ErrorKind::Bug, "A copy has nothing to publish"))?;
        if let Some(twin) = self.newcomer(published, there)? {
            session.end();
            return Ok(Outcome::ThereAlready(twin));
        }
        let parent = published.snapshot.parent.and_then(|parent| {
            let is_parent = |other: &&Published| other.id == parent || other.snapshot.original == Some(parent);
            there.iter().find(is_parent).map(|parent| parent.id)
        });
        let record = rewritten(&record, origin(published), parent, &roots)?;
        self.publish(&record, session, there).map(|copy| Outcome::Copied(Box::new(copy)))
    }

    fn publish(&self, record: &[u8], session: Session, there: &[Published]) -> Result<Published> {
        let snapshot: Snapshot = serde_json::from_slice(record).map_err(unencodable)?;
        let id = finding::publish_record(self.target, record, &snapshot, session, &self.context)?;
        let copy = Published { id, snapshot };
        self.withdraw_twins(&copy, there)
    }

    /// Two copies of one snapshot that were made at once see each other at the latest now, because each was published before
    /// it looked. The one with the smaller id stays, whoever made it.
    fn withdraw_twins(&self, copy: &Published, there: &[Published]) -> Result<Published> {
        let twin = |other: &Published| other.id != copy.id && other.snapshot == copy.snapshot;
        let mut twins = self.newcomers(there)?;
        twins.retain(twin);
        twins.push(copy.clone());
        twins.sort_by_key(|twin| twin.id);
        for other in twins.iter().skip(1) {
            match self.target.storage().delete(&ObjectKey::Snapshot(other.id)) {
                Err(error) if error.kind() != StorageErrorKind::NotFound => {
                    // A storage that nothing may be deleted from: two equal snapshots cost nobody anything.
                    self.context.observer.detail(&format!("Snapshot {} is there twice: {error}", other.id.short()));
                    return Ok(copy.clone());
                }
                _ => {}
            }
        }
        Ok(twins.swap_remove(0))
    }

    /// A copy that somebody else has made since `there` was listed.
    fn newcomer(&self, published: &Published, there: &[Published]) -> Result<Option<SnapshotId>> {
        Ok(copy_of(published, &self.newcomers(there)?).map(|copy| copy.id))
    }

    fn newcomers(&self, there: &[Published]) -> Result<Vec<Published>> {
        let known: HashSet<SnapshotId> = there.iter().map(|other| other.id).collect();
        let new = self.target.list_snapshots()?.into_iter().filter(|id| !known.contains(id));
        // One that can't be read is nobody's twin, and told of elsewhere.
        Ok(new.filter_map(|id| finding::read(self.target, id).ok()).collect())
    }

    /// The encoded roots of all components, with the names of the target.
    fn translate(
        &self,
        snapshot: &Snapshot,
        names: &Translation,
        there: &[Published],
        writer: &mut Writer,
    ) -> Result<Vec<Option<String>>> {
        let reader = self.source.reader(self.context);
        let target_reader = self.target.reader(self.context);
        let mut translator = Translator::new(&reader, &target_reader, self.target, names, &mut *writer, self.context);
        let roots: Vec<Option<Entry>> = snapshot
            .components
            .iter()
            .map(|record| record.root.as_ref().map(|_| record.root_entry()).transpose())
            .collect::<Result<_>>()?;
        for (record, root) in snapshot.components.iter().zip(&roots) {
            if let Some(root) = root {
                translator.store(root, older(snapshot, record, there))?;
            }
        }
        translator.flush()?;
        let mut translated = Vec::new();
        for (record, root) in snapshot.components.iter().zip(roots) {
            let root = root.map(|root| translator.entry(root, older(snapshot, record, there))).transpose()?;
            translated.push(root.as_ref().map(ComponentRecord::encode_root));
        }
        Ok(translated)
    }

    fn take_over(&self, snapshot: &Snapshot, writer: &mut Writer) -> Result<()> {
        let reader = self.source.reader(self.context);
        let take = TakeOver::new(self.source, self.target, self.context);
        let mut taking = Taking { take, writer, seen: HashSet::new() };
        reach::reach(&reader, snapshot, &mut taking, &self.context)
    }
}

/// What the target has of a component, from before the snapshot if it can be: deltas are made of it.
fn older(snapshot: &Snapshot, record: &ComponentRecord, there: &[Published]) -> Option<Entry> {
    let before = there.partition_point(|other| other.snapshot.time <= snapshot.time);
    let parent = |of: &[Published]| {
        let found = finding::parent(of, &snapshot.platform, &snapshot.host, &record.name)?;
        found.snapshot.component(&record.name)?.root_entry().ok()
    };
    parent(&there[..before]).or_else(|| parent(there))
}

/// Takes over what is reached.
struct Taking<'t, 'w> {
    take: TakeOver<'t>,
    writer: &'w mut Writer,
    seen: HashSet<[u8; 32]>,
}

impl Reached for Taking<'_, '_> {
    fn is_new(&mut self, key: &[u8; 32]) -> Result<bool> {
        Ok(self.seen.insert(*key))
    }

    fn ended_early(&mut self) -> Result<()> {
        self.seen.clear();
        Ok(())
    }

    fn chunks(&mut self, ids: Vec<ChunkId>) -> Result<bool> {
        self.take.take(&ids, self.writer).map(|()| true)
    }
}

/// The record with other roots and where it came from, and all else as it was, fields of later versions too.
fn rewritten(
    record: &[u8],
    original: SnapshotId,
    parent: Option<SnapshotId>,
    roots: &[Option<String>],
) -> Result<Vec<u8>> {
    let mut fields: Map<String, Value> = serde_json::from_slice(record).map_err(unencodable)?;
    fields.insert("original".to_owned(), original.to_hex().into());
    match parent {
        Some(parent) => drop(fields.insert("parent".to_owned(), parent.to_hex().into())),
        None => drop(fields.remove("parent")),
    }
    let components = fields.get_mut("components").and_then(Value::as_array_mut).into_iter().flatten();
    for (component, root) in components.zip(roots) {
        if let (Some(component), Some(root)) = (component.as_object_mut(), root) {
            component.insert("root".to_owned(), root.as_str().into());
        }
    }
    serde_json::to_vec(&fields).map_err(unencodable)
}

fn unencodable(cause: serde_json::Error) -> Error {
    Error::new(ErrorKind::Bug, "The record of a copied snapshot can't be encoded").cause(cause)
}
