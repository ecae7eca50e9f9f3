//! Making a stream again out of its plain bytes and its recipe. Pieces are made on all cores, a window of them at once; what
//! comes out is in order, and compared with its proof before anybody sees it.

use std::io::{self, Cursor, Read};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use crate::archive::content::Leaves;
use crate::archive::entry::{Content, Reflated};
use crate::archive::reader::ContentReader;
use crate::error::{Error, ErrorKind, Result};
use crate::id::ChunkId;
use crate::pipeline;
use crate::reflate::{Bits, DICTIONARY_LEN_MAX, Record, decode_records, proof, recreate};
use crate::store::ChunkSource;

/// Pieces that are made together, for each core and at most.
const WINDOW_COUNT: usize = 2;
const WINDOW_COUNT_MAX: usize = 16;
/// Plain bytes that are gathered at once, unless one piece has more.
const WINDOW_LEN: u64 = 8 << 20;
/// Chunks of the recipe that are fetched together.
const RECIPE_COUNT: usize = 16;

/// What goes out next.
enum Part {
    Bytes(Vec<u8>),
    Piece { dictionary: Vec<u8>, plain: Vec<u8>, record: Record },
    Rest(u8),
}

/// The same, made.
enum Made {
    Bytes(Vec<u8>),
    Bits(Vec<u8>, u64),
    Rest(u8),
}

/// Reads a reflated content as the bytes that it stands for. Errors of the repository come out as `io::Error` with an
/// [`Error`] inside.
pub struct Recreated<'s> {
    chunks: &'s dyn ChunkSource,
    plain: ContentReader<'s>,
    plain_left: u64,
    recipe: Leaves<'s>,
    recipe_left: u64,
    records: std::vec::IntoIter<Record>,
    /// What is left of a copy.
    copying: u64,
    /// Plain bytes that the next piece may refer back to.
    dictionary: Vec<u8>,
    /// What was made; at last a byte that is not full yet.
    open: Bits,
    ready: Cursor<Vec<u8>>,
    /// Bytes that are still to come.
    left: u64,
}

fn wrong(what: &str) -> Error {
    Error::damaged(format!("A compressed file can't be made again: {what}"))
}

impl<'s> Recreated<'s> {
    /// The content of these lengths, `stored` as these bytes.
    #[must_use]
    pub fn new(chunks: &'s dyn ChunkSource, content: &Content, reflated: Reflated, stored: ContentReader<'s>) -> Self {
        Self {
            chunks,
            plain: stored,
            plain_left: reflated.plain_len,
            recipe: Leaves::behind(chunks, content, reflated.plain_len),
            recipe_left: reflated.recipe_len,
            records: Vec::new().into_iter(),
            copying: 0,
            dictionary: Vec::new(),
            open: Bits::default(),
            ready: Cursor::default(),
            left: content.len,
        }
    }

    fn next_record(&mut self) -> Result<Option<Record>> {
        loop {
            if let Some(record) = self.records.next() {
                return Ok(Some(record));
            }
            if self.recipe_left == 0 {
                return Ok(None);
            }
            self.records = self.next_records()?.into_iter();
        }
    }

    fn next_records(&mut self) -> Result<Vec<Record>> {
        let pieces = self.recipe.by_ref().take(RECIPE_COUNT).collect::<Result<Vec<_>>>()?;
        let ids: Vec<ChunkId> = pieces.iter().map(|piece| piece.id).collect();
        let found: Vec<Mutex<Vec<u8>>> = ids.iter().map(|_| Mutex::default()).collect();
        self.chunks.get_many(&ids, &|at, bytes| {
            *pipeline::lock(&found[at]) = bytes.to_vec();
            Ok(())
        })?;
        let mut records = Vec::new();
        for (piece, bytes) in pieces.iter().zip(found) {
            let bytes = bytes.into_inner().unwrap_or_else(PoisonError::into_inner);
            let left = self.recipe_left.checked_sub(piece.len).filter(|_| bytes.len() as u64 == piece.len);
            self.recipe_left = left.ok_or_else(|| wrong("its recipe has another length than its list says"))?;
            records.extend(
                decode_records(&bytes)
                    .map_err(|cause| Error::stored("A recipe of a compressed file", cause.is_newer()).cause(cause))?,
            );
        }
        if ids.is_empty() { Err(wrong("its recipe ends early")) } else { Ok(records) }
    }

    fn take_plain(&mut self, len: u64) -> Result<Vec<u8>> {
        self.plain_left = self.plain_left.checked_sub(len).ok_or_else(|| wrong("its recipe takes too much"))?;
        let mut plain = vec![0; usize::try_from(len).map_err(|_| wrong("a piece is too long"))?];
        match self.plain.read_exact(&mut plain) {
            Ok(()) => Ok(plain),
            Err(error) => Err(error.downcast().unwrap_or_else(|_| wrong("its plain bytes end early"))),
        }
    }

    /// The next parts, as many as are worth all cores.
    fn gather(&mut self) -> Result<Vec<Part>> {
        let room = (pipeline::parallelism() * WINDOW_COUNT).min(WINDOW_COUNT_MAX);
        let (mut parts, mut pieces, mut len) = (Vec::new(), 0, 0);
        while pieces < room && len < WINDOW_LEN {
            if self.copying > 0 {
                let step = self.copying.min(WINDOW_LEN - len);
                self.copying -= step;
                len += step;
                parts.push(Part::Bytes(self.take_plain(step)?));
                continue;
            }
            match self.next_record()? {
                None => break,
                Some(Record::Literal(bytes)) => parts.push(Part::Bytes(bytes)),
                Some(Record::Rest(byte)) => parts.push(Part::Rest(byte)),
                Some(Record::Copy(copied)) => self.copying = copied,
                Some(record @ Record::Piece { plain_len, .. }) => {
                    let plain = self.take_plain(plain_len)?;
                    let dictionary = self.advance_dictionary(&plain);
                    parts.push(Part::Piece { dictionary, plain, record });
                    (pieces, len) = (pieces + 1, len + plain_len);
                    continue;
                }
            }
            self.dictionary.clear();
        }
        Ok(parts)
    }

    /// What a piece refers back to; then these plain bytes are before the next one.
    fn advance_dictionary(&mut self, plain: &[u8]) -> Vec<u8> {
        let before = self.dictionary.clone();
        let kept = DICTIONARY_LEN_MAX.saturating_sub(plain.len()).min(before.len());
        self.dictionary.clear();
        self.dictionary.extend_from_slice(&before[before.len() - kept..]);
        self.dictionary.extend_from_slice(&plain[plain.len().saturating_sub(DICTIONARY_LEN_MAX)..]);
        before
    }

    fn make(part: Part) -> Result<Made> {
        let (dictionary, plain, record) = match part {
            Part::Bytes(bytes) => return Ok(Made::Bytes(bytes)),
            Part::Rest(byte) => return Ok(Made::Rest(byte)),
            Part::Piece { dictionary, plain, record } => (dictionary, plain, record),
        };
        let Record::Piece { alignment, bit_len, proof: wanted, corrections, .. } = record else {
            return Err(Error::new(ErrorKind::Bug, "What is no piece can't be made again"));
        };
        let bits = recreate(&dictionary, &plain, &corrections, alignment, bit_len);
        let is_right = |bits: &Vec<u8>| proof(&dictionary, bits, bit_len) == wanted;
        let bits = bits.filter(is_right).ok_or_else(|| wrong("a piece came out different"))?;
        Ok(Made::Bits(bits, bit_len))
    }

    fn fill(&mut self) -> Result<()> {
        let parts = self.gather()?;
        let made = parts.into_par_iter().map(Self::make).collect::<Result<Vec<_>>>()?;
        for made in made {
            match made {
                Made::Bits(bits, bit_len) => self.open.extend(&bits, bit_len),
                Made::Rest(byte) => {
                    let used = self.open.len() % 8;
                    if used == 0 || u64::from(byte.trailing_zeros()) < used {
                        return Err(wrong("the rest of a byte does not fit"));
                    }
                    self.open.extend(&[byte >> used], 8 - used);
                }
                Made::Bytes(bytes) => {
                    if !self.open.len().is_multiple_of(8) {
                        return Err(wrong("bytes stand within a byte"));
                    }
                    self.open.extend(&bytes, bytes.len() as u64 * 8);
                }
            }
        }
        self.ready = Cursor::new(self.open.take_full());
        Ok(())
    }

    fn is_at_end(&self) -> bool {
        self.copying == 0 && self.recipe_left == 0 && self.records.len() == 0
    }

    /// Whatever the recipe says, the file is as long as its entry says.
    fn check_len(&mut self) -> Result<()> {
        let left =
            self.left.checked_sub(self.ready.get_ref().len() as u64).ok_or_else(|| wrong("it comes out too long"))?;
        self.left = left;
        if self.is_at_end() && (left > 0 || self.plain_left > 0 || !self.open.is_empty()) {
            return Err(wrong("it comes out with another length"));
        }
        Ok(())
    }
}

impl Read for Recreated<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let len = self.ready.read(buffer)?;
            if len > 0 || buffer.is_empty() || self.is_at_end() {
                return Ok(len);
            }
            self.fill().and_then(|()| self.check_len()).map_err(io::Error::other)?;
        }
    }
}
