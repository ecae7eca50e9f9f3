//! Content and trees under other names.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Mutex;

use super::super::ancestor::Ancestor;
use super::super::content::{ContentBuilder, Leaves, ListSink, read_tree};
use super::super::entry::{Content, Entry, EntryKind, Piece};
use super::super::tree::Tree;
use crate::chunker::{Chunker, Profile};
use crate::error::{Error, ErrorKind, Result};
use crate::id::ChunkId;
use crate::observer::{Context, Counter};
use crate::pipeline::lock;
use crate::store::index::Translation;
use crate::store::{ChunkSource, Offered, Repository, Role, Writer};

/// Content bytes that are held at once, ...
const WINDOW_LEN: u64 = 32 << 20;
/// ... in no more chunks than this.
const WINDOW_COUNT: usize = 4096;

/// Stores the content of a snapshot in another repository, then its trees.
pub struct Translator<'t> {
    source: &'t dyn ChunkSource,
    target_chunks: &'t dyn ChunkSource,
    target: &'t Repository,
    names: &'t Translation,
    writer: &'t mut Writer,
    context: Context<'t>,
    chunker: Chunker,
    waiting: Vec<WaitingFile<'t>>,
    waiting_len: u64,
    waiting_count: usize,
}

/// A short file whose content is stored together with others.
struct WaitingFile<'t> {
    pieces: Vec<Piece>,
    older: Rc<Older<'t>>,
}

impl<'t> Translator<'t> {
    /// Reads from `source`, writes by `writer` into `target`, in whose chunks older versions are looked up.
    pub fn new(
        source: &'t dyn ChunkSource,
        target_chunks: &'t dyn ChunkSource,
        target: &'t Repository,
        names: &'t Translation,
        writer: &'t mut Writer,
        context: Context<'t>,
    ) -> Self {
        let chunker = target.chunker(Profile::named("db-text").unwrap_or_default());
        let waiting = Vec::new();
        Self {
            source,
            target_chunks,
            target,
            names,
            writer,
            context,
            chunker,
            waiting,
            waiting_len: 0,
            waiting_count: 0,
        }
    }

    /// Stores the content of all files at and below `entry`; that of short ones waits for [`Self::flush`]. `older` is what the
    /// target has in its place.
    pub fn store(&mut self, entry: &Entry, older: Option<Entry>) -> Result<()> {
        let older = Rc::new(Older::root(self.target_chunks, older));
        self.store_entry(entry, older)
    }

    fn store_entry(&mut self, entry: &Entry, older: Rc<Older<'t>>) -> Result<()> {
        match &entry.kind {
            EntryKind::Directory(content) => {
                for entry in &read_tree(self.source, content)?.entries {
                    let older = Rc::new(Older::child(older.clone(), &entry.name));
                    self.store_entry(entry, older)?;
                }
                Ok(())
            }
            EntryKind::File(content) if content.depth == 0 && content.stored_len() <= WINDOW_LEN / 4 => {
                self.waiting_len += content.stored_len();
                self.waiting_count += content.pieces.len();
                self.waiting.push(WaitingFile { pieces: content.pieces.clone(), older });
                if self.waiting_len >= WINDOW_LEN || self.waiting_count >= WINDOW_COUNT { self.flush() } else { Ok(()) }
            }
            EntryKind::File(content) => self.store_long(content, &older),
            _ => Ok(()),
        }
    }

    fn store_long(&mut self, content: &Content, older: &Older<'t>) -> Result<()> {
        let chunks = self.target_chunks;
        let mut ancestor = older.content().map(|older| Ancestor::new(chunks, older));
        let mut window = Vec::new();
        let mut len = 0;
        for piece in Leaves::new(self.source, content) {
            let piece = piece?;
            len += if piece.is_hole() { 0 } else { piece.len };
            window.push(piece);
            if len >= WINDOW_LEN || window.len() >= WINDOW_COUNT {
                let known = self.resolve(&window)?;
                self.offer(&window, &known, &mut ancestor)?;
                window.clear();
                len = 0;
            }
        }
        let known = self.resolve(&window)?;
        self.offer(&window, &known, &mut ancestor)
    }

    /// Stores the content of the files that wait.
    pub fn flush(&mut self) -> Result<()> {
        (self.waiting_len, self.waiting_count) = (0, 0);
        let files = std::mem::take(&mut self.waiting);
        let pieces: Vec<Piece> = files.iter().flat_map(|file| file.pieces.iter().copied()).collect();
        let known = self.resolve(&pieces)?;
        for file in files {
            let is_read = |piece: &Piece| known.get(&piece.id).is_some_and(|known| known.bytes.is_some());
            // An older version matters only to what is going to be stored.
            let wants_older = file.pieces.iter().any(is_read);
            let older = if wants_older { file.older.content() } else { None };
            let mut ancestor = older.map(|older| Ancestor::new(self.target_chunks, older));
            self.offer(&file.pieces, &known, &mut ancestor)?;
        }
        Ok(())
    }

    /// The names here of all chunks of `pieces`; those that are not stored here under a name that is known are read.
    fn resolve(&self, pieces: &[Piece]) -> Result<HashMap<ChunkId, Known>> {
        self.context.go_on()?;
        let mut ids: Vec<ChunkId> = pieces.iter().filter(|piece| !piece.is_hole()).map(|piece| piece.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut known = HashMap::new();
        let (mut there, mut here) = (Vec::new(), Vec::new());
        for (id, name) in ids.iter().zip(self.names.look_up(&ids)?) {
            if let Some(name) = name {
                there.push(*id);
                here.push(name);
            }
        }
        for ((id, name), lacks) in there.iter().zip(&here).zip(self.writer.lacks(&here)?) {
            if !lacks {
                known.insert(*id, Known { id: *name, bytes: None });
            }
        }
        // In the order of the content, which is about the order in which they lie.
        let mut missing = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for piece in pieces.iter().filter(|piece| !piece.is_hole()) {
            if !known.contains_key(&piece.id) && seen.insert(piece.id) {
                missing.push(piece.id);
            }
        }
        let read = Mutex::new(known);
        self.source.get_many(&missing, &|n, bytes| {
            let id = self.target.chunk_id(bytes);
            lock(&read).insert(missing[n], Known { id, bytes: Some(bytes.to_vec()) });
            Ok(())
        })?;
        let known = read.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.names.note(missing.iter().filter_map(|id| known.get(id).map(|known| (id, &known.id))))?;
        Ok(known)
    }

    /// Offers the chunks of one file, or of a part of it, to the writer.
    fn offer(
        &mut self,
        pieces: &[Piece],
        known: &HashMap<ChunkId, Known>,
        ancestor: &mut Option<Ancestor<'_>>,
    ) -> Result<()> {
        let mut offered = Vec::new();
        for piece in pieces {
            if piece.is_hole() {
                if let Some(ancestor) = ancestor {
                    ancestor.skip(piece.len);
                }
                continue;
            }
            let known = known.get(&piece.id).ok_or_else(|| unnamed(&piece.id))?;
            let older = ancestor.as_mut().map(|ancestor| ancestor.place(&known.id, piece.len)).unwrap_or_default();
            if let Some(bytes) = &known.bytes {
                if bytes.len() as u64 != piece.len {
                    return Err(wrong_len(&piece.id));
                }
                offered.push(Offered { id: known.id, bytes, older });
            }
        }
        self.context.count(Counter::BytesRead, pieces.iter().map(|piece| piece.len).sum());
        if !offered.is_empty() {
            let summary = self.writer.put(Role::Content, offered.into_iter(), &self.context)?;
            self.context.count(Counter::BytesNew, summary.bytes_new);
        }
        Ok(())
    }

    /// The entry under the names of the target. Its content must be stored, see [`Self::store`].
    pub fn entry(&mut self, entry: Entry, older: Option<Entry>) -> Result<Entry> {
        let older = Rc::new(Older::root(self.target_chunks, older));
        self.translated(entry, &older)
    }

    fn translated(&mut self, mut entry: Entry, older: &Rc<Older<'t>>) -> Result<Entry> {
        self.context.go_on()?;
        entry.kind = match entry.kind {
            EntryKind::File(content) => EntryKind::File(self.content(&content)?),
            EntryKind::Directory(content) => {
                let mut entries = Vec::new();
                for entry in read_tree(self.source, &content)?.entries {
                    let older = Rc::new(Older::child(older.clone(), &entry.name));
                    entries.push(self.translated(entry, &older)?);
                }
                let content = self.lists().put_tree(&Tree { entries }, older.content())?;
                EntryKind::Directory(content)
            }
            other => other,
        };
        Ok(entry)
    }

    fn lists(&mut self) -> ListSink<'_> {
        ListSink { repository: self.target, writer: self.writer, chunker: &self.chunker, context: self.context }
    }

    fn content(&mut self, content: &Content) -> Result<Content> {
        let mut builder = ContentBuilder::default();
        let mut leaves = Leaves::new(self.source, content);
        loop {
            let window: Vec<Piece> = leaves.by_ref().take(WINDOW_COUNT).collect::<Result<_>>()?;
            if window.is_empty() {
                let copied = builder.finish(&mut self.lists())?;
                return Ok(Content { len: content.len, reflated: content.reflated, ..copied });
            }
            let ids: Vec<ChunkId> = window.iter().map(|piece| piece.id).collect();
            for (piece, name) in window.iter().zip(self.names.look_up(&ids)?) {
                let id = if piece.is_hole() { Piece::HOLE } else { name.ok_or_else(|| unnamed(&piece.id))? };
                builder.push(Piece { id, len: piece.len }, &mut self.lists())?;
            }
        }
    }
}

/// What is known of a chunk: its name here and, if it had to be read, its bytes.
struct Known {
    id: ChunkId,
    bytes: Option<Vec<u8>>,
}

fn unnamed(id: &ChunkId) -> Error {
    Error::new(ErrorKind::Bug, format!("Chunk {} was stored without a name", id.short()))
        .hint("Delete the cache directory of this repository, and run the copy again")
}

fn wrong_len(id: &ChunkId) -> Error {
    Error::damaged(format!("Chunk {} is not as long as a list says", id.short()))
}

/// What the target has in the place of an entry, looked up when somebody wants to know.
struct Older<'t> {
    chunks: &'t dyn ChunkSource,
    from: From<'t>,
    content: OnceCell<Option<Content>>,
    tree: OnceCell<Option<Tree>>,
}

enum From<'t> {
    Root(Option<Box<Entry>>),
    Child(Rc<Older<'t>>, Vec<u8>),
}

impl<'t> Older<'t> {
    fn root(chunks: &'t dyn ChunkSource, entry: Option<Entry>) -> Self {
        Self { chunks, from: From::Root(entry.map(Box::new)), content: OnceCell::new(), tree: OnceCell::new() }
    }

    fn child(above: Rc<Self>, name: &[u8]) -> Self {
        let chunks = above.chunks;
        let from = From::Child(above, name.to_vec());
        Self { chunks, from, content: OnceCell::new(), tree: OnceCell::new() }
    }

    fn content(&self) -> Option<&Content> {
        let find = || {
            let entry = match &self.from {
                From::Root(entry) => entry.as_ref()?,
                From::Child(above, name) => above.tree()?.get(name)?,
            };
            match &entry.kind {
                EntryKind::File(content) | EntryKind::Directory(content) => Some(content.clone()),
                _ => None,
            }
        };
        self.content.get_or_init(find).as_ref()
    }

    /// What can't be read any more, or is no directory, has nothing below it.
    fn tree(&self) -> Option<&Tree> {
        self.tree.get_or_init(|| read_tree(self.chunks, self.content()?).ok()).as_ref()
    }
}
