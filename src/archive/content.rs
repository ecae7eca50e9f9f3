//! Contents: from bytes to lists of pieces and back. Long lists are stored as chunks themselves (format-spec 08), so that
//! a stream of a tebibyte needs no list of a million ids in any tree or in memory.

use super::ancestor::Ancestor;
use super::entry::{self, CONTENT_DEPTH_MAX, Content, PIECE_COUNT_MAX, Piece};
use super::tree::Tree;
use crate::chunker::Chunker;
use crate::codec::{Reader, Writer};
use crate::error::{Error, ErrorKind, Result};
use crate::id::ChunkId;
use crate::observer::Context;
use crate::store::{ChunkSource, Offered, Older, PutSummary, Repository, Role, Writer as StoreWriter};

/// Pieces that an entry holds itself.
pub const INLINE_COUNT_MAX: usize = 64;
/// A list ends behind a piece whose id begins with a byte string divisible by this (about as many pieces on average) ...
const LIST_COUNT_AVG: u16 = 256;
/// ... but is never shorter, unless it is the last.
const LIST_COUNT_MIN: usize = 64;

/// Gathers the pieces of one content.
#[derive(Debug, Default)]
pub struct ContentBuilder {
    levels: Vec<Vec<Piece>>,
    len: u64,
}

impl ContentBuilder {
    /// Appends a piece; empty ones are passed over.
    ///
    /// # Errors
    /// From the store, when a full list is put there.
    pub fn push(&mut self, piece: Piece, sink: &mut ListSink<'_>) -> Result<()> {
        if piece.len == 0 {
            return Ok(());
        }
        self.len += piece.len;
        self.push_at(0, piece, sink)
    }

    fn push_at(&mut self, level: usize, piece: Piece, sink: &mut ListSink<'_>) -> Result<()> {
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        let list = &mut self.levels[level];
        list.push(piece);
        if !list_ends(list) {
            return Ok(());
        }
        let full = std::mem::take(list);
        let piece = sink.put_list(&full)?;
        self.push_at(level + 1, piece, sink)
    }

    /// Length of the pieces so far.
    #[must_use]
    pub fn pushed_len(&self) -> u64 {
        self.len
    }

    /// The content.
    ///
    /// # Errors
    /// From the store, and when the content is too long for the format (beyond exabytes).
    pub fn finish(mut self, sink: &mut ListSink<'_>) -> Result<Content> {
        let mut level = 0;
        while level < self.levels.len() {
            let list = std::mem::take(&mut self.levels[level]);
            let is_top = level + 1 == self.levels.len();
            if is_top && list.len() <= INLINE_COUNT_MAX {
                return self.content(level, list);
            }
            if !list.is_empty() {
                let piece = sink.put_list(&list)?;
                self.push_at(level + 1, piece, sink)?;
            }
            level += 1;
        }
        self.content(0, Vec::new())
    }

    fn content(&self, level: usize, pieces: Vec<Piece>) -> Result<Content> {
        match u8::try_from(level) {
            Ok(depth) if depth <= CONTENT_DEPTH_MAX => Ok(Content { len: self.len, depth, pieces, reflated: None }),
            _ => Err(Error::new(ErrorKind::Bug, "A content list grew too deep")),
        }
    }
}

/// Where a list ends depends on its ids, so that a change in the middle of a stream leaves the other lists as they were.
fn list_ends(list: &[Piece]) -> bool {
    let last = list.last().map_or([0; 32], |piece| *piece.id.as_bytes());
    let marked = u16::from_le_bytes([last[0], last[1]]).is_multiple_of(LIST_COUNT_AVG);
    list.len() >= PIECE_COUNT_MAX || (list.len() >= LIST_COUNT_MIN && marked)
}

/// Stores lists and trees.
pub struct ListSink<'w> {
    /// Makes ids.
    pub repository: &'w Repository,
    /// Takes chunks.
    pub writer: &'w mut StoreWriter,
    /// Cuts long trees.
    pub chunker: &'w Chunker,
    /// Counts.
    pub context: Context<'w>,
}

impl ListSink<'_> {
    fn put_list(&mut self, pieces: &[Piece]) -> Result<Piece> {
        let mut w = Writer::new();
        entry::encode_pieces(pieces, &mut w);
        let bytes = w.into_bytes();
        let id = self.put_chunk(&bytes, Older::default())?.0;
        Ok(Piece { id, len: pieces.iter().map(|piece| piece.len).sum() })
    }

    pub(super) fn put_chunk(&mut self, bytes: &[u8], older: Older) -> Result<(ChunkId, PutSummary)> {
        let id = self.repository.chunk_id(bytes);
        let offered = Offered { id, bytes, older };
        let summary = self.writer.put(Role::Tree, std::iter::once(offered), &self.context)?;
        Ok((id, summary))
    }

    /// Stores a tree. `older` is what the directory was in an earlier snapshot.
    ///
    /// # Errors
    /// From the store.
    pub fn put_tree(&mut self, tree: &Tree, older: Option<&Content>) -> Result<Content> {
        let bytes = tree.encode();
        let mut builder = ContentBuilder::default();
        let chunker = self.chunker;
        let mut ancestor = older.map(Ancestor::of_short);
        for chunk in chunker.split(&bytes) {
            let id = self.repository.chunk_id(chunk);
            let older = ancestor.as_mut().map(|ancestor| ancestor.place(&id, chunk.len() as u64)).unwrap_or_default();
            let (id, _) = self.put_chunk(chunk, older)?;
            builder.push(Piece { id, len: chunk.len() as u64 }, self)?;
        }
        builder.finish(self)
    }
}

fn bad_list(id: &ChunkId) -> Error {
    Error::damaged(format!("Content list {} is not what the format allows", id.short()))
}

/// The pieces that a piece of a list of `depth` > 0 stands for.
///
/// # Errors
/// When the chunk can't be had or is no list of the right length.
pub fn read_list(chunks: &dyn ChunkSource, piece: &Piece) -> Result<Vec<Piece>> {
    let bytes = chunks.get(&piece.id)?;
    let mut r = Reader::new(&bytes);
    let pieces = entry::decode_pieces(&mut r)
        .and_then(|pieces| r.end().map(|()| pieces))
        .map_err(|cause| bad_list(&piece.id).cause(cause))?;
    if entry::sum(&pieces) == Some(piece.len) { Ok(pieces) } else { Err(bad_list(&piece.id)) }
}

/// Tells `found` of every chunk that a content consists of, those that hold its lists among them. `is_new` is asked, with a
/// key of what is below, before a list is read. False if `found` said so, which ends it.
///
/// # Errors
/// When a list can't be had or is none.
pub fn each_chunk(
    chunks: &dyn ChunkSource,
    depth: u8,
    pieces: &[Piece],
    is_new: &mut dyn FnMut(&[u8; 32]) -> Result<bool>,
    found: &mut dyn FnMut(ChunkId) -> Result<bool>,
) -> Result<bool> {
    for piece in pieces {
        if piece.is_hole() {
            continue;
        }
        if !found(piece.id)? {
            return Ok(false);
        }
        if depth > 0 && is_new(&list_key(depth, &piece.id))? {
            let below = read_list(chunks, piece)?;
            if !each_chunk(chunks, depth - 1, &below, is_new, found)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The same bytes may be a list at one depth and something else at another.
fn list_key(depth: u8, id: &ChunkId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[depth]).update(id.as_bytes());
    *hasher.finalize().as_bytes()
}

/// The leaf pieces of a content, in order. Holds one list of each level in memory.
pub struct Leaves<'s> {
    chunks: &'s dyn ChunkSource,
    stack: Vec<(u8, std::vec::IntoIter<Piece>)>,
    /// Bytes that are passed over, lists unread.
    skip: u64,
}

impl<'s> Leaves<'s> {
    /// Begins at the first piece.
    #[must_use]
    pub fn new(chunks: &'s dyn ChunkSource, content: &Content) -> Self {
        Self { chunks, stack: vec![(content.depth, content.pieces.clone().into_iter())], skip: 0 }
    }

    /// Begins behind the first `len` bytes, which end with a piece; otherwise with the piece that they end in.
    #[must_use]
    pub fn behind(chunks: &'s dyn ChunkSource, content: &Content, len: u64) -> Self {
        Self { skip: len, ..Self::new(chunks, content) }
    }

    /// Passes over as many whole pieces as fit into `len` bytes; tells how many bytes are left of that.
    ///
    /// # Errors
    /// When a list can't be read.
    pub fn pass(&mut self, len: u64) -> Result<u64> {
        self.skip = len;
        if let Some(piece) = self.next_piece()? {
            // The first one that is not passed over is still to come.
            self.stack.push((0, vec![piece].into_iter()));
        }
        Ok(std::mem::take(&mut self.skip))
    }

    fn descend(&mut self, depth: u8, piece: &Piece) -> Result<()> {
        if piece.is_hole() {
            return Err(bad_list(&piece.id));
        }
        let pieces = read_list(self.chunks, piece)?;
        self.stack.push((depth - 1, pieces.into_iter()));
        Ok(())
    }
}

impl Leaves<'_> {
    /// The next leaf that does not end within what is to be passed over.
    fn next_piece(&mut self) -> Result<Option<Piece>> {
        loop {
            let Some((depth, pieces)) = self.stack.last_mut() else { return Ok(None) };
            let depth = *depth;
            let Some(piece) = pieces.next() else {
                self.stack.pop();
                continue;
            };
            if piece.len <= self.skip {
                self.skip -= piece.len;
                continue;
            }
            if depth == 0 {
                return Ok(Some(piece));
            }
            self.descend(depth, &piece)?;
        }
    }
}

impl Iterator for Leaves<'_> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_piece();
        self.skip = 0;
        if next.is_err() {
            self.stack.clear();
        }
        next.transpose()
    }
}

/// All bytes of a content, for trees. At most `len_max` of them.
///
/// # Errors
/// When chunks can't be had, or it is too long.
pub fn read_all(chunks: &dyn ChunkSource, content: &Content, len_max: u64) -> Result<Vec<u8>> {
    if content.len > len_max {
        return Err(Error::damaged("A tree is longer than any tree can be"));
    }
    let mut bytes = Vec::new();
    for piece in Leaves::new(chunks, content) {
        let piece = piece?;
        let chunk = chunks.get(&piece.id)?;
        if chunk.len() as u64 != piece.len {
            return Err(bad_list(&piece.id));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Longest encoded tree: a directory of some ten million names.
pub const TREE_LEN_MAX: u64 = 2 << 30;

/// Reads and decodes the tree of a directory.
///
/// # Errors
/// When chunks can't be had or are no tree.
pub fn read_tree(chunks: &dyn ChunkSource, content: &Content) -> Result<Tree> {
    let bytes = read_all(chunks, content, TREE_LEN_MAX)?;
    Tree::decode(&bytes).map_err(|cause| Error::stored("A tree", cause.is_newer()).cause(cause))
}
