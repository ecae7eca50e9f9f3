//! Checking what snapshots refer to: every tree is read, every chunk of every content is in the index and its pack in
//! storage. A tree that several snapshots share is read once.

use std::collections::HashSet;

use super::content::{Leaves, read_tree};
use super::entry::{Content, Entry, EntryKind};
use super::path::ArchivePath;
use super::reach::tree_key;
use super::reader::ArchiveReader;
use super::snapshots::{Published, is_forgotten};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ChunkId, SnapshotId};
use crate::observer::{Context, Counter, Ledger, Problem};
use crate::store::{ChunkReader, Repository};

/// Ids that are looked up together.
const BATCH_COUNT: usize = 4096;

struct Checker<'k> {
    repository: &'k Repository,
    chunks: &'k ChunkReader<'k>,
    context: Context<'k>,
    /// Makes compressed files again, if all data are read.
    maker: Option<ArchiveReader<'k>>,
    seen: HashSet<Vec<u8>>,
    waiting: Vec<ChunkId>,
    owners: Vec<(usize, String)>,
    /// What is wrong with the snapshot that is looked at.
    found: Vec<Problem>,
    /// The index was brought up to date for something that was missing, and it is still: it is lost, and so may be others.
    looked_in_vain: bool,
}

/// Checks everything below `snapshots`. What is wrong goes to the observer. `reads_data`: files that were taken apart are made
/// again, each once.
///
/// # Errors
/// When the repository can't be read at all.
pub fn run(repository: &Repository, snapshots: &[Published], reads_data: bool, context: Context<'_>) -> Result<()> {
    let chunks = repository.reader(context);
    let maker = reads_data.then(|| ArchiveReader::new(repository, context));
    let mut checker = Checker {
        repository,
        chunks: &chunks,
        context,
        maker,
        seen: HashSet::new(),
        waiting: Vec::new(),
        owners: Vec::new(),
        found: Vec::new(),
        looked_in_vain: false,
    };
    for Published { id, snapshot } in snapshots {
        context.observer.stage(&format!("Checking snapshot {}", id.short()));
        for record in snapshot.components.iter().filter(|record| record.root.is_some()) {
            let subject = format!("{}:/{}", id.short(), record.name);
            match record.root_entry() {
                Ok(root) => checker.entry(&root, &subject, &ArchivePath::root())?,
                Err(error) => checker.problem(&subject, &error)?,
            }
        }
        checker.flush()?;
        checker.tell(*id);
    }
    Ok(())
}

impl Checker<'_> {
    /// Tells what is wrong with a snapshot, unless it was forgotten meanwhile: then what it needs may go, and what it shares
    /// with others is looked at again for them.
    fn tell(&mut self, id: SnapshotId) {
        let found = std::mem::take(&mut self.found);
        if !found.is_empty() && is_forgotten(self.repository, id) {
            self.seen.clear();
            self.looked_in_vain = false;
            return;
        }
        for problem in found {
            self.context.observer.problem(problem);
        }
    }

    /// Damage is a problem; everything else ends the check.
    fn problem(&mut self, subject: &str, error: &crate::error::Error) -> Result<()> {
        if error.kind() == ErrorKind::Interrupted {
            return self.context.go_on();
        }
        self.found.push(Problem::new(subject, error.chain()));
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, subject: &str, path: &ArchivePath) -> Result<()> {
        self.context.go_on()?;
        let shown = || if path.is_root() { subject.to_owned() } else { format!("{subject}/{path}") };
        match &entry.kind {
            EntryKind::File(content) => self.content(content, &shown()),
            EntryKind::Directory(content) => self.directory(content, subject, path),
            _ => Ok(()),
        }
    }

    fn directory(&mut self, content: &Content, subject: &str, path: &ArchivePath) -> Result<()> {
        if !self.seen.insert(tree_key(content).to_vec()) {
            return Ok(());
        }
        let shown = format!("{subject}/{path}");
        let tree = match read_tree(self.chunks, content) {
            Ok(tree) => tree,
            Err(error) => return self.problem(&shown, &error),
        };
        for entry in tree.entries {
            match path.join(&entry.name) {
                Ok(below) => self.entry(&entry, subject, &below)?,
                Err(cause) => self.found.push(Problem::new(&shown, cause.to_string())),
            }
        }
        Ok(())
    }

    fn content(&mut self, content: &Content, subject: &str) -> Result<()> {
        self.owners.push((self.waiting.len(), subject.to_owned()));
        let mut found: Vec<ChunkId> = Vec::new();
        for piece in Leaves::new(self.chunks, content) {
            match piece {
                Ok(piece) if piece.is_hole() => {}
                Ok(piece) => found.push(piece.id),
                Err(error) => {
                    self.problem(subject, &error)?;
                    break;
                }
            }
            if found.len() >= BATCH_COUNT {
                self.waiting.append(&mut found);
                self.flush()?;
                self.owners.push((0, subject.to_owned()));
            }
        }
        self.waiting.append(&mut found);
        if self.waiting.len() >= BATCH_COUNT {
            self.flush()?;
        }
        self.make_again(content, subject)
    }

    fn make_again(&mut self, content: &Content, subject: &str) -> Result<()> {
        let Some(maker) = self.maker.as_ref().filter(|_| content.reflated.is_some()) else { return Ok(()) };
        if !self.seen.insert(tree_key(content).to_vec()) {
            return Ok(());
        }
        let mut reader = maker.open(content);
        let mut buffer = vec![0; 1 << 20];
        let error = loop {
            self.context.go_on()?;
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(cause) => {
                    break cause.downcast().unwrap_or_else(|cause| Error::io("Its bytes can't be read", cause));
                }
            }
        };
        drop(reader);
        self.problem(subject, &error)
    }

    /// Looks up what is waiting. What is not known may have been stored since the index was brought up to date, or moved.
    fn flush(&mut self) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        let owners = std::mem::take(&mut self.owners);
        self.context.count(Counter::ChunksChecked, waiting.len() as u64);
        let mut found = self.repository.index().contains(&waiting)?;
        if found.contains(&false) && !self.looked_in_vain {
            // What is wrong with packs was told when those were checked.
            let untold = Ledger::default();
            self.repository.settle(&Context { observer: &untold, ..self.context })?;
            let again = self.repository.index().contains(&waiting)?;
            self.looked_in_vain = again == found;
            found = again;
        }
        let mut told = HashSet::new();
        for (at, _) in found.iter().enumerate().filter(|(_, found)| !**found) {
            let owner = owners.partition_point(|(start, _)| *start <= at).saturating_sub(1);
            if told.insert(owner) {
                let subject = owners.get(owner).map_or("", |(_, subject)| subject);
                let message = format!("Its content is incomplete: chunk {} is in no pack", waiting[at].short());
                self.found.push(Problem::new(subject, message));
            }
        }
        Ok(())
    }
}
