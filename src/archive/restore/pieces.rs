//! The pieces of a content, one after the other: lists below lists are read when their turn comes, so that a file of any
//! length costs the memory of one list for each level.

use crate::archive::entry::{self, Content, Piece};
use crate::codec::Reader;
use crate::error::{Error, Result};
use crate::store::ChunkSource;

struct Level {
    pieces: std::vec::IntoIter<Piece>,
    /// Levels of lists below.
    depth: u8,
}

/// Gives chunks and holes with their offsets.
pub(super) struct Pieces {
    levels: Vec<Level>,
    offset: u64,
}

impl Pieces {
    pub fn new(content: Content) -> Self {
        let Content { depth, pieces, .. } = content;
        Self { levels: vec![Level { pieces: pieces.into_iter(), depth }], offset: 0 }
    }

    /// The next chunk or hole. After an error the rest of the list that failed is skipped: its length is in
    /// the error, and the pieces after it may still be asked for.
    pub fn next(&mut self, chunks: &dyn ChunkSource) -> Option<Result<(u64, Piece), (u64, Error)>> {
        loop {
            let level = self.levels.last_mut()?;
            let depth = level.depth;
            let Some(piece) = level.pieces.next() else {
                self.levels.pop();
                continue;
            };
            if depth > 0 && !piece.is_hole() {
                match read_list(chunks, &piece) {
                    Ok(pieces) => self.levels.push(Level { pieces: pieces.into_iter(), depth: depth - 1 }),
                    Err(error) => {
                        self.offset = self.offset.saturating_add(piece.len);
                        return Some(Err((piece.len, error)));
                    }
                }
                continue;
            }
            let offset = self.offset;
            self.offset = self.offset.saturating_add(piece.len);
            return Some(Ok((offset, piece)));
        }
    }
}

fn read_list(chunks: &dyn ChunkSource, piece: &Piece) -> Result<Vec<Piece>> {
    let bytes = chunks.get(&piece.id)?;
    let damaged = || format!("Content list {} is damaged", piece.id.short());
    let mut r = Reader::new(&bytes);
    let pieces = entry::decode_pieces(&mut r)
        .and_then(|pieces| r.end().map(|()| pieces))
        .map_err(|error| Error::damaged(damaged()).cause(error))?;
    if entry::sum(&pieces) == Some(piece.len) { Ok(pieces) } else { Err(Error::damaged(damaged())) }
}
