//! What snapshots refer to: every chunk of every tree, list and content below them. What several of them share is walked
//! once.

use std::collections::HashSet;
use std::sync::Mutex;

use super::content::{each_chunk, read_tree};
use super::entry::{Content, EntryKind};
use super::snapshot::Snapshot;
use super::tree::Tree;
use crate::codec::Writer;
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::observer::Context;
use crate::pipeline::lock;
use crate::store::index::{Known, Liveness};
use crate::store::{ChunkSource, Repository};

/// Trees that are read together.
const BATCH_COUNT: usize = 256;
/// Chunks that are told of together.
const TOLD_COUNT: usize = 4096;

/// Is told what is reached.
pub trait Reached {
    /// What `key` stands for is walked now. False if it was before.
    ///
    /// # Errors
    /// From where it is noted.
    fn is_new(&mut self, key: &[u8; 32]) -> Result<bool>;
    /// These chunks are referred to. False: enough.
    ///
    /// # Errors
    /// From where they are noted.
    fn chunks(&mut self, ids: Vec<ChunkId>) -> Result<bool>;
    /// The walk ended before its end: what [`Self::is_new`] was told of may not have been walked to its end either, and is
    /// new again. A snapshot that is forgotten and reclaimed while it is walked shares trees with others that stay.
    ///
    /// # Errors
    /// From where it is noted.
    fn ended_early(&mut self) -> Result<()>;
}

impl Reached for Liveness<'_> {
    fn is_new(&mut self, key: &[u8; 32]) -> Result<bool> {
        self.reach_tree(key)
    }

    fn chunks(&mut self, ids: Vec<ChunkId>) -> Result<bool> {
        self.reach(ids).map(|()| true)
    }

    fn ended_early(&mut self) -> Result<()> {
        self.forget_trees()
    }
}

/// Tells `reached` of everything that `snapshot` refers to.
///
/// # Errors
/// When a tree or a list can't be read: then nobody knows what else it refers to.
pub fn reach(
    chunks: &dyn ChunkSource,
    snapshot: &Snapshot,
    reached: &mut dyn Reached,
    context: &Context<'_>,
) -> Result<()> {
    for record in snapshot.components.iter().filter(|record| record.root.is_some()) {
        let walked = record.root_entry().and_then(|root| {
            let mut walk = Walk { chunks, reached, context, open: Vec::new(), found: Vec::new(), enough: false };
            walk.entry(&root.kind)?;
            walk.all()
        });
        if walked.is_err() {
            reached.ended_early()?;
        }
        walked.map_err(|cause| {
            if !cause.is_of_one_object() {
                return cause;
            }
            Error::new(cause.kind(), format!("What component {} refers to can't be read", record.name))
                .cause(cause)
                .hint("`compline check` tells what is wrong, `compline repair` what can be done")
        })?;
    }
    Ok(())
}

struct Walk<'w> {
    chunks: &'w dyn ChunkSource,
    reached: &'w mut dyn Reached,
    context: &'w Context<'w>,
    /// Directories that were not read yet.
    open: Vec<Content>,
    found: Vec<ChunkId>,
    enough: bool,
}

impl Walk<'_> {
    fn all(&mut self) -> Result<()> {
        while !self.open.is_empty() && !self.enough {
            self.context.go_on()?;
            let batch = self.open.split_off(self.open.len().saturating_sub(BATCH_COUNT));
            for tree in self.trees(&batch)? {
                for entry in tree.entries {
                    self.entry(&entry.kind)?;
                }
            }
        }
        self.tell()
    }

    fn tell(&mut self) -> Result<()> {
        let found = std::mem::take(&mut self.found);
        self.enough |= !self.reached.chunks(found)?;
        Ok(())
    }

    fn entry(&mut self, kind: &EntryKind) -> Result<()> {
        match kind {
            EntryKind::File(content) => self.content(content)?,
            EntryKind::Directory(content) if self.reached.is_new(&tree_key(content))? => {
                self.content(content)?;
                self.open.push(content.clone());
            }
            _ => {}
        }
        if self.found.len() >= TOLD_COUNT { self.tell() } else { Ok(()) }
    }

    fn content(&mut self, content: &Content) -> Result<()> {
        let (reached, found, enough) = (&mut *self.reached, &mut self.found, &mut self.enough);
        let told = std::cell::RefCell::new(reached);
        each_chunk(self.chunks, content.depth, &content.pieces, &mut |key| told.borrow_mut().is_new(key), &mut |id| {
            found.push(id);
            if found.len() >= TOLD_COUNT {
                *enough |= !told.borrow_mut().chunks(std::mem::take(found))?;
            }
            Ok(!*enough)
        })
        .map(drop)
    }

    /// Nearly every tree is one chunk: those are read together.
    fn trees(&self, contents: &[Content]) -> Result<Vec<Tree>> {
        let (short, long): (Vec<&Content>, Vec<&Content>) =
            contents.iter().partition(|content| content.depth == 0 && content.pieces.len() == 1);
        let ids: Vec<ChunkId> = short.iter().map(|content| content.pieces[0].id).collect();
        let trees = Mutex::new(Vec::new());
        self.chunks.get_many(&ids, &|_, bytes| {
            let tree = Tree::decode(bytes).map_err(|cause| Error::stored("A tree", cause.is_newer()).cause(cause))?;
            lock(&trees).push(tree);
            Ok(())
        })?;
        let mut trees = trees.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        for content in long {
            trees.push(read_tree(self.chunks, content)?);
        }
        Ok(trees)
    }
}

pub(super) fn tree_key(content: &Content) -> [u8; 32] {
    let mut w = Writer::new();
    content.encode(&mut w);
    *blake3::hash(&w.into_bytes()).as_bytes()
}

/// Whether all that `snapshot` refers to may be relied on, and was known then.
///
/// # Errors
/// From storage and index.
pub fn is_whole(repository: &Repository, snapshot: &Snapshot, known: Known, context: &Context<'_>) -> Result<bool> {
    struct Looking<'l> {
        repository: &'l Repository,
        known: Known,
        seen: HashSet<[u8; 32]>,
        is_whole: bool,
    }
    impl Reached for Looking<'_> {
        fn is_new(&mut self, key: &[u8; 32]) -> Result<bool> {
            Ok(self.seen.insert(*key))
        }
        fn ended_early(&mut self) -> Result<()> {
            self.seen.clear();
            Ok(())
        }
        fn chunks(&mut self, ids: Vec<ChunkId>) -> Result<bool> {
            self.is_whole &= self.repository.index().contains_of(&ids, self.known)?.iter().all(|stored| *stored);
            Ok(self.is_whole)
        }
    }
    let mut looking = Looking { repository, known, seen: HashSet::new(), is_whole: true };
    let chunks = repository.reader(*context);
    match reach(&chunks, snapshot, &mut looking, context) {
        Ok(()) => Ok(looking.is_whole),
        Err(error) if error.is_of_one_object() => Ok(false),
        Err(error) => Err(error),
    }
}
