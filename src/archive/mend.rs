//! Snapshots without what is lost: the same trees, but for files of which a chunk can't be had any more. The old snapshot stays
//! until it is forgotten.

use std::collections::HashMap;

use super::content::{ListSink, each_chunk, read_tree};
use super::entry::{Content, Entry, EntryKind};
use super::path::escape;
use super::snapshot::{ComponentRecord, Snapshot, Status};
use super::snapshots::Published;
use super::tree::Tree;
use crate::chunker::{Chunker, Profile};
use crate::error::Result;
use crate::id::ChunkId;
use crate::observer::{Context, Problem};
use crate::store::{ChunkSource, Offered, Older, Repository, Role, Writer};

/// Problems that a component of a mended snapshot tells one by one.
const PROBLEM_COUNT_MAX: usize = 100;

/// What is gone of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mended {
    /// What is left of it; none if nothing is.
    pub snapshot: Option<Snapshot>,
    /// What is gone, as paths that begin with the component.
    pub lost: Vec<String>,
}

/// Looks for what is gone. What is found once is not looked for again in the next snapshot.
pub struct Mender<'m> {
    repository: &'m Repository,
    chunks: &'m dyn ChunkSource,
    context: Context<'m>,
    chunker: Chunker,
    /// Where mended trees go; none in a rehearsal.
    writer: Option<&'m mut Writer>,
    /// What was found about directories: whole, or what became of them, and what they lost.
    known: HashMap<[u8; 32], Option<(Content, Vec<String>)>>,
}

impl<'m> Mender<'m> {
    /// For snapshots of `repository`, whose index must know what is there.
    #[must_use]
    pub fn new(
        repository: &'m Repository,
        chunks: &'m dyn ChunkSource,
        writer: Option<&'m mut Writer>,
        context: Context<'m>,
    ) -> Self {
        let chunker = repository.chunker(Profile::named("db-text").unwrap_or_default());
        Self { repository, chunks, context, chunker, writer, known: HashMap::new() }
    }

    /// What is gone of a snapshot, and what is left; none if nothing is gone.
    ///
    /// # Errors
    /// From storage and index.
    pub fn mend(&mut self, published: &Published) -> Result<Option<Mended>> {
        let mut snapshot = published.snapshot.clone();
        let mut all_lost = Vec::new();
        for record in &mut snapshot.components {
            let Some(lost) = self.component(record)? else { continue };
            tell(record, &lost);
            all_lost.extend(lost.into_iter().map(|path| format!("{}/{path}", record.name)));
        }
        if all_lost.is_empty() {
            return Ok(None);
        }
        snapshot.status = Status::Partial;
        snapshot.original = Some(snapshot.original.unwrap_or(published.id));
        let has_content = snapshot.components.iter().any(|record| record.root.is_some());
        Ok(Some(Mended { snapshot: has_content.then_some(snapshot), lost: all_lost }))
    }

    /// What a component has lost; none if nothing. Its root is what is left.
    fn component(&mut self, record: &mut ComponentRecord) -> Result<Option<Vec<String>>> {
        if record.root.is_none() {
            return Ok(None);
        }
        let root = match record.root_entry() {
            Ok(root) => root,
            Err(error) if error.is_of_one_object() => {
                record.root = None;
                return Ok(Some(vec![String::new()]));
            }
            Err(error) => return Err(error),
        };
        match self.entry(&root)? {
            Found::Whole => Ok(None),
            Found::Gone => {
                record.root = None;
                Ok(Some(vec![String::new()]))
            }
            Found::Less(content, lost) => {
                let root = Entry { kind: EntryKind::Directory(content), ..root };
                record.root = Some(ComponentRecord::encode_root(&root));
                Ok(Some(lost))
            }
        }
    }

    fn entry(&mut self, entry: &Entry) -> Result<Found> {
        self.context.go_on()?;
        match &entry.kind {
            EntryKind::File(content) if self.is_there(content)? => Ok(Found::Whole),
            EntryKind::File(_) => Ok(Found::Gone),
            EntryKind::Directory(content) => self.directory(content),
            _ => Ok(Found::Whole),
        }
    }

    fn directory(&mut self, content: &Content) -> Result<Found> {
        let key = super::reach::tree_key(content);
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone().map_or(Found::Whole, |(content, lost)| Found::Less(content, lost)));
        }
        let tree = if self.is_there(content)? { read_tree(self.chunks, content) } else { return Ok(Found::Gone) };
        let tree = match tree {
            Ok(tree) => tree,
            Err(error) if error.is_of_one_object() => return Ok(Found::Gone),
            Err(error) => return Err(error),
        };
        let (mut left, mut lost) = (Vec::new(), Vec::new());
        for mut entry in tree.entries {
            let name = escape(&entry.name);
            match self.entry(&entry)? {
                Found::Whole => left.push(entry),
                Found::Gone => lost.push(name),
                Found::Less(content, below) => {
                    lost.extend(below.into_iter().map(|path| format!("{name}/{path}")));
                    entry.kind = EntryKind::Directory(content);
                    left.push(entry);
                }
            }
        }
        let found = if lost.is_empty() { None } else { Some((self.put(&Tree { entries: left })?, lost)) };
        self.known.insert(key, found.clone());
        Ok(found.map_or(Found::Whole, |(content, lost)| Found::Less(content, lost)))
    }

    fn is_there(&self, content: &Content) -> Result<bool> {
        let mut ids = Vec::new();
        let all = each_chunk(self.chunks, content.depth, &content.pieces, &mut |_| Ok(true), &mut |id| {
            ids.push(id);
            Ok(true)
        });
        match all {
            Ok(_) => Ok(self.repository.index().contains(&ids)?.iter().all(|stored| *stored)),
            Err(error) if error.is_of_one_object() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn put(&mut self, tree: &Tree) -> Result<Content> {
        let Some(writer) = &mut self.writer else {
            // A rehearsal: nobody reads it.
            return Ok(Content::default());
        };
        let mut sink = ListSink { repository: self.repository, writer, chunker: &self.chunker, context: self.context };
        sink.put_tree(tree, None)
    }
}

/// What became of an entry.
enum Found {
    Whole,
    Gone,
    /// A directory that has less in it, and what it lost.
    Less(Content, Vec<String>),
}

fn tell(record: &mut ComponentRecord, lost: &[String]) {
    let problem = |path: &String| {
        let subject = if path.is_empty() { record.name.clone() } else { format!("{}/{path}", record.name) };
        Problem::new(subject, "It was lost in the repository, and left out when the snapshot was mended")
    };
    let problems: Vec<Problem> = lost.iter().take(PROBLEM_COUNT_MAX).map(problem).collect();
    record.problem_count += lost.len() as u64;
    record.problems.extend(problems);
    if record.root.is_some() {
        record.status = Status::Partial;
    } else {
        record.status = Status::Failed;
        record.reason = Some("Its content was lost in the repository".to_owned());
    }
}

/// Chunks from here or, where they can't be had, from elsewhere.
pub struct Either<'e> {
    /// First.
    pub here: &'e dyn ChunkSource,
    /// Then; it must be a repository with the same keys, or it has no chunk of the same name.
    pub elsewhere: &'e dyn ChunkSource,
}

impl ChunkSource for Either<'_> {
    fn get(&self, id: &ChunkId) -> Result<Vec<u8>> {
        match self.here.get(id) {
            Err(error) if error.is_of_one_object() => self.elsewhere.get(id).map_err(|_| error),
            other => other,
        }
    }

    fn get_many(&self, ids: &[ChunkId], deliver: &(dyn Fn(usize, &[u8]) -> Result<()> + Sync)) -> Result<()> {
        ids.iter().enumerate().try_for_each(|(n, id)| deliver(n, &self.get(id)?))
    }
}

/// Stores again what `snapshots` refer to and the repository has no more, as far as it is `elsewhere`. How many chunks that
/// were.
///
/// # Errors
/// From storage and index.
pub fn fetch_lost(
    repository: &Repository,
    elsewhere: &dyn ChunkSource,
    snapshots: &[Published],
    writer: &mut Writer,
    context: &Context<'_>,
) -> Result<u64> {
    let here = repository.reader(*context);
    let either = Either { here: &here, elsewhere };
    let mut fetching =
        Fetching { repository, elsewhere, writer, context, seen: std::collections::HashSet::new(), fetched: 0 };
    for published in snapshots {
        match super::reach::reach(&either, &published.snapshot, &mut fetching, context) {
            // The rest of this snapshot is out of sight.
            Err(error) if error.is_of_one_object() => {}
            other => other?,
        }
    }
    Ok(fetching.fetched)
}

struct Fetching<'f> {
    repository: &'f Repository,
    elsewhere: &'f dyn ChunkSource,
    writer: &'f mut Writer,
    context: &'f Context<'f>,
    seen: std::collections::HashSet<[u8; 32]>,
    fetched: u64,
}

impl super::reach::Reached for Fetching<'_> {
    fn is_new(&mut self, key: &[u8; 32]) -> Result<bool> {
        Ok(self.seen.insert(*key))
    }

    fn ended_early(&mut self) -> Result<()> {
        self.seen.clear();
        Ok(())
    }

    fn chunks(&mut self, ids: Vec<ChunkId>) -> Result<bool> {
        let stored = self.repository.index().contains(&ids)?;
        for (id, _) in ids.into_iter().zip(stored).filter(|(_, stored)| !stored) {
            let Ok(bytes) = self.elsewhere.get(&id) else { continue };
            if self.repository.chunk_id(&bytes) == id {
                // Whether it is of a tree or of content nobody knows any more; either may lie in either pack.
                let offered = Offered { id, bytes: &bytes, older: Older::default() };
                self.fetched += self.writer.put(Role::Content, std::iter::once(offered), self.context)?.chunks_new;
            }
        }
        Ok(true)
    }
}
