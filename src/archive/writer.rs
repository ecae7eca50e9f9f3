//! Writing an archive: components in, one snapshot out.
//!
//! The publish order is the order of lines in [`ArchiveWriter::publish`]: chunks and their index first, the snapshot last.
//! A crash before the last line leaves packs that nothing refers to, and the parent snapshots as they were.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::ancestor::Ancestor;
use super::content::{self, ContentBuilder, ListSink};
use super::entry::{Content, Entry, EntryKind, Metadata, Piece, Reflated, Time};
use super::path::ArchivePath;
use super::posix::{self, FoundKind, Inspected};
use super::reflated::{KnownPieces, Opened, Opener, RecipeChunk};
use super::snapshot::{ComponentStats, Snapshot};
use super::snapshots;
use super::tree::Tree;
use super::walk::{self, Section};
use super::{CaptureSink, FilesSource, StreamSummary};
use crate::chunker::{Batch, Chunker, Profile, Segment, Segments};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ChunkId, SnapshotId};
use crate::observer::{Context, Counter, Problem};
use crate::pipeline::{self, Receiver, Relay, Sender, Turn};
use crate::reflate::Policy;
use crate::store::{Offered, Older, Repository, Role, Writer};

/// Bytes of a stream that are cut and hashed together, in chunks of greatest length. A segment has a chunk or two that are
/// cut twice, and one such length of the next segment with it. Twice as many cost 8 MiB on two cores and gain nothing there.
const SEGMENT_CHUNK_COUNT: usize = 2;
/// No segment is shorter.
const SEGMENT_LEN_MIN: usize = 2 << 20;
/// More threads than this cut faster than anything can be read or stored, and each has a segment in memory.
const STREAM_WORKERS_MAX: usize = 8;
/// Permission bits of streams: nobody but the owner.
const STREAM_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// One snapshot in the making.
pub struct ArchiveWriter<'c> {
    repository: Repository,
    writer: Writer,
    tree_chunker: Chunker,
    omit: Vec<PathBuf>,
    context: Context<'c>,
    started: Time,
}

impl<'c> ArchiveWriter<'c> {
    /// Begins a snapshot. A rehearsal does everything but store: it tells what a run would cost. Absolute paths in `omit`
    /// are never captured: the repository itself, caches.
    ///
    /// # Errors
    /// From the store.
    pub fn new(repository: &Repository, rehearsal: bool, omit: Vec<PathBuf>, context: Context<'c>) -> Result<Self> {
        let now = context.clock.now();
        let nanoseconds = u32::try_from(now.subsec_nanosecond()).unwrap_or(0);
        Ok(Self {
            writer: repository.writer(rehearsal, &context)?,
            tree_chunker: repository.chunker(Profile::named("db-text").unwrap_or_default()),
            repository: repository.clone(),
            omit,
            context,
            started: Time { seconds: now.as_second(), nanoseconds },
        })
    }

    /// Begins a component. `parent` is what an earlier snapshot has of it, for comparison; `context` counts for it.
    pub fn component<'w>(
        &'w mut self,
        name: &str,
        profile: Profile,
        parent: Option<Parent>,
        context: Context<'w>,
    ) -> ComponentWriter<'w> {
        let has_lost_packs = self.writer.has_lost_packs();
        ComponentWriter {
            name: name.to_owned(),
            chunker: self.repository.chunker(profile),
            repository: self.repository.clone(),
            tree_chunker: &self.tree_chunker,
            writer: &mut self.writer,
            omit: &self.omit,
            context,
            started: self.started,
            // Where packs are lost, what a parent refers to may be lost with them: everything is read again.
            parent: parent.filter(|_| !has_lost_packs),
            reflate: Policy::default(),
            root: None,
            tree: BTreeMap::new(),
            stream: None,
            spares: pipeline::bounded(STREAM_WORKERS_MAX),
            stats: ComponentStats::default(),
        }
    }

    /// Ends a rehearsal: nothing was stored and nothing is published.
    ///
    /// # Errors
    /// The first failure of any stage.
    pub fn discard(self) -> Result<()> {
        self.writer.finish(&self.context).map(drop)
    }

    /// Publishes: chunks, index, snapshot. Nothing is visible before the last step.
    ///
    /// # Errors
    /// From the store; then nothing was published.
    pub fn publish(self, snapshot: &Snapshot) -> Result<SnapshotId> {
        let session = self.writer.finish(&self.context)?;
        self.context.go_on()?;
        let session = session.ok_or_else(|| Error::new(ErrorKind::Bug, "A rehearsal has nothing to publish"))?;
        snapshots::publish(&self.repository, snapshot, session, &self.context)
    }
}

fn directory_content(entry: &Entry) -> Option<&Content> {
    match &entry.kind {
        EntryKind::Directory(content) => Some(content),
        _ => None,
    }
}

fn segment_len(profile: Profile) -> usize {
    SEGMENT_LEN_MIN.max(profile.len_max * SEGMENT_CHUNK_COUNT)
}

enum Node {
    Directory(BTreeMap<Vec<u8>, Node>),
    Entry(Box<Entry>),
}

/// What a finished component consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedComponent {
    /// Its root.
    pub root: Entry,
    /// Counts.
    pub stats: ComponentStats,
}

/// A component in an earlier snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Its root.
    pub root: Entry,
    /// A capture of now would find nothing about an unchanged file that isn't there: it had no problems, which must be told
    /// again, and the same user took it, to whom the system shows the same attributes, with the same program.
    pub tells_all: bool,
}

/// One component in the making. Dropped without [`ComponentWriter::finish`], nothing of it becomes visible.
#[must_use = "an unfinished component is discarded"]
pub struct ComponentWriter<'w> {
    name: String,
    repository: Repository,
    writer: &'w mut Writer,
    tree_chunker: &'w Chunker,
    chunker: Chunker,
    context: Context<'w>,
    omit: &'w [PathBuf],
    started: Time,
    parent: Option<Parent>,
    reflate: Policy,
    root: Option<(Metadata, Vec<Entry>)>,
    tree: BTreeMap<Vec<u8>, Node>,
    stream: Option<Content>,
    /// Memory of segments that are stored, for the next ones.
    spares: (Sender<Vec<u8>>, Receiver<Vec<u8>>),
    stats: ComponentStats,
}

/// One content in the making.
struct Stream<'s> {
    builder: ContentBuilder,
    ancestor: Option<Ancestor<'s>>,
    /// What is taken apart of it, and what is known of that.
    opened: Option<(&'s Opened, &'s KnownPieces<'s>)>,
    /// Chunks of its recipe, which come behind all others.
    recipe: Vec<Piece>,
    read_len: u64,
    new_len: u64,
}

impl<'s> Stream<'s> {
    fn new(ancestor: Option<Ancestor<'s>>) -> Self {
        Self { builder: ContentBuilder::default(), ancestor, opened: None, recipe: Vec::new(), read_len: 0, new_len: 0 }
    }
}

impl<'w> ComponentWriter<'w> {
    /// Whether streams and files are taken apart where they are compressed.
    pub fn reflate(&mut self, policy: Policy) {
        self.reflate = policy;
    }

    pub(super) fn reflate_policy(&self) -> Policy {
        self.reflate
    }

    pub(super) fn context(&self) -> Context<'w> {
        self.context
    }

    pub(super) fn repository(&self) -> &Repository {
        &self.repository
    }

    pub(super) fn chunker(&self) -> &Chunker {
        &self.chunker
    }

    pub(super) fn parent(&self) -> Option<Parent> {
        self.parent.clone()
    }

    pub(super) fn set_root(&mut self, metadata: Metadata, entries: Vec<Entry>) {
        self.root = Some((metadata, entries));
    }

    pub(super) fn count(&mut self, counter: Counter, n: u64) {
        match counter {
            Counter::BytesRead => self.stats.bytes_read += n,
            Counter::BytesNew => self.stats.bytes_new += n,
            Counter::Directories => self.stats.directories += n,
            Counter::FilesNew | Counter::FilesChanged => self.stats.files += n,
            Counter::FilesUnchanged => {
                self.stats.files += n;
                self.stats.files_unchanged += n;
            }
            _ => {}
        }
        self.context.count(counter, n);
    }

    pub(super) fn count_logical(&mut self, len: u64) {
        self.stats.bytes_logical += len;
    }

    pub(super) fn problem(&self, problem: Problem) {
        self.context.observer.problem(problem);
    }

    /// Paths that are never captured.
    pub(super) fn omitted(&self) -> &[PathBuf] {
        self.omit
    }

    fn lists(&mut self) -> ListSink<'_> {
        ListSink {
            repository: &self.repository,
            writer: self.writer,
            chunker: self.tree_chunker,
            context: self.context,
        }
    }

    /// Whether the tree of a directory, which was just read, is here to stay.
    pub(super) fn may_rely_on(&self, content: &Content) -> Result<bool> {
        let index = self.repository.index();
        if !index.has_aside() {
            return Ok(true);
        }
        let chunks = self.repository.reader(self.context);
        content::each_chunk(&chunks, content.depth, &content.pieces, &mut |_| Ok(true), &mut |id| {
            Ok(index.contains(&[id])?[0])
        })
    }

    /// Stores a tree; `older` is what the directory was in the parent.
    pub(super) fn put_tree(&mut self, tree: &Tree, older: Option<&Content>) -> Result<Content> {
        self.lists().put_tree(tree, older)
    }

    /// Stores chunks; how many of their bytes were new.
    pub(super) fn put_chunks<'b>(&mut self, chunks: impl Iterator<Item = Offered<'b>>) -> Result<u64> {
        let summary = self.writer.put(Role::Content, chunks, &self.context)?;
        self.count(Counter::BytesNew, summary.bytes_new);
        Ok(summary.bytes_new)
    }

    /// The content with these pieces, all of them stored; behind them those of a recipe that makes `len` bytes of them, if there
    /// is one.
    pub(super) fn content_of(
        &mut self,
        pieces: impl Iterator<Item = Piece>,
        recipe: &[Piece],
        len: u64,
    ) -> Result<Content> {
        let mut builder = ContentBuilder::default();
        let mut lists = self.lists();
        for piece in pieces {
            builder.push(piece, &mut lists)?;
        }
        self.finish_content(builder, recipe, len)
    }

    fn finish_content(&mut self, mut builder: ContentBuilder, recipe: &[Piece], len: u64) -> Result<Content> {
        let plain_len = builder.pushed_len();
        let mut lists = self.lists();
        for piece in recipe {
            builder.push(*piece, &mut lists)?;
        }
        let mut content = builder.finish(&mut lists)?;
        if !recipe.is_empty() {
            let recipe_len = content.len - plain_len;
            content.reflated = Some(Reflated { plain_len, recipe_len });
            content.len = len;
        }
        self.stats.bytes_logical += content.len;
        Ok(content)
    }

    /// Stores a part of a recipe.
    pub(super) fn put_recipe(&mut self, chunk: &RecipeChunk, pieces: &KnownPieces<'_>) -> Result<Piece> {
        let id = self.repository.chunk_id(&chunk.bytes);
        self.put_chunks(std::iter::once(Offered { id, bytes: &chunk.bytes, older: Older::default() }))?;
        pieces.note(&id, &chunk.proofs)?;
        Ok(Piece { id, len: chunk.bytes.len() as u64 })
    }

    pub(super) fn count_opened(&mut self, opened: &Opened) {
        self.stats.reflated.add(opened);
    }

    pub(super) fn count_plain_new(&mut self, len: u64) {
        self.stats.reflated.bytes_plain_new += len;
    }

    /// Stores what `reader` gives behind what `stream` has, taken apart where it is compressed; nothing may follow it then. The
    /// inner error is the reader's.
    fn append_opened(
        &mut self,
        stream: &mut Stream<'_>,
        reader: &mut (dyn Read + Send),
        older: Option<&Content>,
    ) -> Result<io::Result<()>> {
        if self.reflate == Policy::Never {
            return self.append(stream, reader);
        }
        let repository = self.repository.clone();
        let pieces = KnownPieces::new(&repository, self.context);
        if let Some(older) = older {
            pieces.learn(older)?;
        }
        let opened = Opened::default();
        let mut opener = Opener::new(reader, self.reflate, &pieces, &opened);
        let ancestor = stream.ancestor.take();
        let mut inner = Stream { opened: Some((&opened, &pieces)), ..Stream::new(ancestor) };
        std::mem::swap(&mut inner.builder, &mut stream.builder);
        let appended = self.append(&mut inner, &mut opener)?;
        self.store_recipe(&mut inner)?;
        if !inner.recipe.is_empty() {
            self.count_plain_new(inner.new_len);
        }
        self.count_opened(&opened);
        (stream.builder, stream.recipe, stream.read_len) = (inner.builder, inner.recipe, inner.read_len);
        Ok(appended)
    }

    /// Stores those parts of a recipe that are finished.
    fn store_recipe(&mut self, stream: &mut Stream<'_>) -> Result<()> {
        let Some((opened, pieces)) = stream.opened else { return Ok(()) };
        let read_len = opened.read_len.load(Ordering::Relaxed);
        self.count(Counter::BytesRead, read_len - stream.read_len);
        stream.read_len = read_len;
        for chunk in opened.take_recipe() {
            stream.recipe.push(self.put_recipe(&chunk, pieces)?);
        }
        Ok(())
    }

    /// Stores what `reader` gives behind what `stream` has. The inner error is the reader's.
    fn append(&mut self, stream: &mut Stream<'_>, reader: &mut (dyn Read + Send)) -> Result<io::Result<()>> {
        let chunker = self.chunker.clone();
        let mut segments = chunker.segments(reader, segment_len(chunker.profile()));
        let mut segment = match segments.next_in(self.spares.1.try_recv().unwrap_or_default()) {
            Some(Ok(segment)) => segment,
            Some(Err(cause)) => return Ok(Err(cause)),
            None => return Ok(Ok(())),
        };
        if !segments.is_done() {
            return self.append_segments(stream, segment, segments);
        }
        // A short stream is not worth the threads.
        segment.guess(&chunker);
        let (batch, _) = segment.settle(&chunker, 0);
        let ids: Vec<ChunkId> = batch.chunks().map(|chunk| self.repository.chunk_id(chunk)).collect();
        self.append_batch(stream, &batch, &ids)?;
        let _enough = self.spares.0.try_send(batch.into_buffer());
        Ok(Ok(()))
    }

    /// One huge stream on all cores: a thread reads, the others cut and hash one segment each.
    fn append_segments(
        &mut self,
        stream: &mut Stream<'_>,
        first: Segment,
        mut segments: Segments<&mut (dyn Read + Send)>,
    ) -> Result<io::Result<()>> {
        let (chunker, repository) = (self.chunker.clone(), self.repository.clone());
        let workers = pipeline::parallelism().min(STREAM_WORKERS_MAX);
        let (spare, spares) = self.spares.clone();
        let read = move |emit: &dyn Fn((io::Result<Segment>, Turn<usize>)) -> bool| {
            let mut cuts = Relay::new(0);
            let mut next = Some(Ok(first));
            while let Some(segment) = next.take() {
                if emit((segment, cuts.turn())) {
                    next = segments.next_in(spares.try_recv().unwrap_or_default());
                }
            }
        };
        let cut = |(segment, turn): (io::Result<Segment>, Turn<usize>)| {
            segment.map(|mut segment| {
                segment.guess(&chunker);
                let batch = turn.take(|start| segment.settle(&chunker, start))?;
                let ids: Vec<ChunkId> = batch.chunks().map(|chunk| repository.chunk_id(chunk)).collect();
                Some((batch, ids))
            })
        };
        let mut failed = None;
        pipeline::ordered(read, workers, workers, cut, |hashed| {
            self.context.go_on()?;
            match hashed {
                Ok(Some((batch, ids))) => {
                    self.append_batch(stream, &batch, &ids)?;
                    let _enough = spare.try_send(batch.into_buffer());
                }
                // A thread panicked before; the panic goes on from where it is joined.
                Ok(None) => {}
                Err(cause) => failed = Some(cause),
            }
            Ok::<(), Error>(())
        })?;
        Ok(failed.map_or(Ok(()), Err))
    }

    fn append_batch(&mut self, stream: &mut Stream<'_>, batch: &Batch, ids: &[ChunkId]) -> Result<()> {
        if stream.opened.is_none() {
            self.count(Counter::BytesRead, batch.len() as u64);
        }
        self.store_recipe(stream)?;
        stream.new_len += self.put_chunks(ids.iter().zip(batch.chunks()).map(|(id, bytes)| {
            let older = stream.ancestor.as_mut().map(|ancestor| ancestor.place(id, bytes.len() as u64));
            Offered { id: *id, bytes, older: older.unwrap_or_default() }
        }))?;
        let mut lists = self.lists();
        for (chunk, id) in batch.chunks().zip(ids) {
            stream.builder.push(Piece { id: *id, len: chunk.len() as u64 }, &mut lists)?;
        }
        Ok(())
    }

    /// Streams a regular file, holes left out. The inner error is the file's.
    pub(super) fn put_file(
        &mut self,
        file: &File,
        inspected: &Inspected,
        older: Option<&Content>,
    ) -> Result<io::Result<Content>> {
        let reader = self.repository.reader(self.context);
        let mut stream = Stream::new(older.map(|older| Ancestor::new(&reader, older)));
        let len = inspected.kind_len();
        let extents = match inspected.kind {
            FoundKind::File { sparse: true, .. } => posix::holes(file, len),
            _ => Ok(vec![posix::Extent { offset: 0, len, is_hole: false }]),
        };
        let extents = match extents {
            Ok(extents) => extents,
            Err(cause) => return Ok(Err(cause)),
        };
        let is_whole = matches!(extents.as_slice(), [extent] if !extent.is_hole);
        for extent in extents {
            if extent.is_hole {
                stream.builder.push(Piece::hole(extent.len), &mut self.lists())?;
                if let Some(ancestor) = &mut stream.ancestor {
                    ancestor.skip(extent.len);
                }
                continue;
            }
            let mut section = Section::new(file, extent.offset, extent.offset + extent.len);
            let appended = if is_whole {
                self.append_opened(&mut stream, &mut section, older)?
            } else {
                self.append(&mut stream, &mut section)?
            };
            if let Err(cause) = appended {
                return Ok(Err(cause));
            }
        }
        self.finish_content(stream.builder, &stream.recipe, stream.read_len).map(Ok)
    }

    fn stream_entry(&self, name: &[u8], kind: EntryKind) -> Entry {
        let mode = if matches!(kind, EntryKind::Directory(_)) { DIRECTORY_MODE } else { STREAM_MODE };
        let metadata = Metadata { mode, mtime: self.started, link_count: 1, ..Metadata::default() };
        Entry { name: name.to_vec(), kind, metadata, changed_while_read: false }
    }

    fn insert(&mut self, path: &ArchivePath, content: Content) -> Result<()> {
        let occupied = || Error::new(ErrorKind::Bug, format!("{path} was captured twice in one component"));
        let Some((directory, name)) = path.split_last() else {
            return self.stream.replace(content).map_or(Ok(()), |_| Err(occupied()));
        };
        let entry = self.stream_entry(name, EntryKind::File(content));
        let mut tree = &mut self.tree;
        for above in directory.names() {
            let node = tree.entry(above.clone()).or_insert_with(|| Node::Directory(BTreeMap::new()));
            let Node::Directory(below) = node else { return Err(occupied()) };
            tree = below;
        }
        match tree.insert(name.to_vec(), Node::Entry(Box::new(entry))) {
            None => Ok(()),
            Some(_) => Err(occupied()),
        }
    }

    fn build(&mut self, tree: BTreeMap<Vec<u8>, Node>, older: Option<&Entry>) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for (name, node) in tree {
            entries.push(match node {
                Node::Entry(entry) => *entry,
                Node::Directory(below) => {
                    let older = self.older_at(older, &name);
                    let entries = self.build(below, older.as_ref())?;
                    let content = self.put_tree(&Tree { entries }, older.as_ref().and_then(directory_content))?;
                    self.stream_entry(&name, EntryKind::Directory(content))
                }
            });
        }
        Ok(entries)
    }

    /// Completes the component. Its trees are stored; they become visible with the snapshot.
    ///
    /// # Errors
    /// From the store.
    pub fn finish(mut self) -> Result<FinishedComponent> {
        if let Some(content) = self.stream.take() {
            let root = self.stream_entry(self.name.as_bytes(), EntryKind::File(content));
            return Ok(self.finished(root));
        }
        let tree = std::mem::take(&mut self.tree);
        let older = self.parent.as_ref().map(|parent| parent.root.clone());
        let mut entries = self.build(tree, older.as_ref())?;
        let mut root = self.stream_entry(self.name.clone().as_bytes(), EntryKind::Fifo);
        if let Some((metadata, found)) = self.root.take() {
            root.metadata = metadata;
            entries.extend(found);
            entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        } else {
            root.metadata.mode = DIRECTORY_MODE;
        }
        root.kind = EntryKind::Directory(self.put_tree(&Tree { entries }, older.as_ref().and_then(directory_content))?);
        Ok(self.finished(root))
    }

    fn finished(self, root: Entry) -> FinishedComponent {
        FinishedComponent { root, stats: self.stats }
    }

    /// What the parent has of `name` in the directory `above`. What can't be read any more is no base.
    fn older_at(&self, above: Option<&Entry>, name: &[u8]) -> Option<Entry> {
        let content = directory_content(above?)?;
        let tree = content::read_tree(&self.repository.reader(self.context), content).ok()?;
        tree.get(name).cloned()
    }

    /// What the parent has of the stream at `path`.
    fn older_stream(&self, path: &ArchivePath) -> Option<Content> {
        let root = self.parent.as_ref().map(|parent| parent.root.clone());
        let entry = path.names().iter().try_fold(root?, |entry, name| self.older_at(Some(&entry), name))?;
        match entry.kind {
            EntryKind::File(content) => Some(content),
            _ => None,
        }
    }

    fn stream_content(&mut self, path: &ArchivePath, reader: &mut (dyn Read + Send)) -> Result<Content> {
        let repository = self.repository.clone();
        let chunks = repository.reader(self.context);
        let older = self.older_stream(path);
        let mut stream = Stream::new(older.as_ref().map(|older| Ancestor::new(&chunks, older)));
        let name = path.to_string();
        self.append_opened(&mut stream, reader, older.as_ref())?
            .map_err(|cause| Error::new(ErrorKind::Component, format!("Stream {name} broke off")).cause(cause))?;
        let content = self.finish_content(stream.builder, &stream.recipe, stream.read_len)?;
        self.count(Counter::FilesNew, 1);
        Ok(content)
    }
}

impl CaptureSink for ComponentWriter<'_> {
    fn put_stream(&mut self, path: &ArchivePath, reader: &mut (dyn Read + Send)) -> Result<StreamSummary> {
        let content = self.stream_content(path, reader)?;
        let len = content.len;
        self.insert(path, content)?;
        Ok(StreamSummary { len })
    }

    fn put_files(&mut self, source: &FilesSource) -> Result<()> {
        walk::capture(self, source)
    }
}
