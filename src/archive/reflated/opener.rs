//! Taking a stream apart while it is read: what comes out are its plain bytes, and a recipe beside them.
//!
//! Bytes in which nothing begins are passed on where they lie. Pieces of one member, and of several in a row, are looked at on all
//! cores, a window of them at once; the first one that can't be made again turns the rest of its member back into bytes.

use std::io::{self, Cursor, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::known::KnownPieces;
use super::splitter::{Segment, Splitter};
use crate::codec::Writer;
use crate::id::PieceProof;
use crate::pipeline::{self, lock};
use crate::reflate::{CORRECTIONS_LEN_MAX, Piece, Policy, Record, proof, recreate};

/// Pieces that are looked at together, for each core and at most. Each has its plain bytes, a quarter of that deflated, and
/// tables to find corrections with in memory.
const WINDOW_COUNT: usize = 2;
const WINDOW_COUNT_MAX: usize = 16;
/// Bytes between pieces that are passed on at once.
const RAW_LEN: usize = 1 << 20;
/// Bytes between pieces up to this length stand in the recipe: headers and trailers, which differ from night to night and would
/// break up the plain bytes. Longer ones stand among the plain bytes, where they are found again.
const LITERAL_LEN: usize = 256;
/// A chunk of a recipe is closed when it is so long.
const RECIPE_CHUNK_LEN: usize = 64 << 10;

/// A part of a recipe that becomes a chunk: whole records.
#[derive(Debug, Default)]
pub struct RecipeChunk {
    /// The records.
    pub bytes: Vec<u8>,
    /// The proofs of its pieces.
    pub proofs: Vec<PieceProof>,
}

/// What came of a stream so far. Shared by who reads it and who stores it.
#[derive(Debug, Default)]
pub struct Opened {
    /// Bytes that were read of the source.
    pub read_len: AtomicU64,
    /// Members that were opened.
    pub members: AtomicU64,
    /// Deflated bytes of their pieces.
    pub deflated_len: AtomicU64,
    /// Plain bytes of them.
    pub plain_len: AtomicU64,
    /// Bytes of corrections.
    pub corrections_len: AtomicU64,
    /// Pieces that were known, so that nothing had to be found out.
    pub known: AtomicU64,
    /// Members of which something was tried in vain.
    pub in_vain: AtomicU64,
    recipe: Mutex<Vec<RecipeChunk>>,
}

impl Opened {
    /// Parts of the recipe that are finished.
    #[must_use]
    pub fn take_recipe(&self) -> Vec<RecipeChunk> {
        std::mem::take(&mut lock(&self.recipe))
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// What a segment is found to be.
enum Looked {
    Raw(Vec<u8>),
    /// A piece; with its record, if it was made again.
    Piece {
        piece: Piece,
        begins: bool,
        record: Option<Record>,
    },
}

/// What looking at a segment takes, from any thread.
struct Looking<'o> {
    policy: Policy,
    pieces: &'o KnownPieces<'o>,
    known: &'o AtomicU64,
}

impl Looking<'_> {
    fn look(&self, segment: Segment) -> Looked {
        match segment {
            Segment::Raw(bytes) => Looked::Raw(bytes),
            Segment::Piece { piece, begins } => {
                let record = self.record(&piece);
                Looked::Piece { piece, begins, record }
            }
        }
    }

    /// How to make a piece again, if that is worth it and was seen to succeed.
    fn record(&self, piece: &Piece) -> Option<Record> {
        let bits = piece.bits();
        let proof = proof(&piece.dictionary, &bits, piece.bit_len);
        if let Some(record) = self.pieces.record(&proof) {
            add(self.known, 1);
            return Some(record);
        }
        let places = [0, piece.skipped];
        let places = &places[..if piece.skipped > 0 { 2 } else { 1 }];
        let (alignment, corrections) =
            places.iter().find_map(|place| Some((*place, self.find(piece, &bits, *place)?)))?;
        let plain_len = piece.plain.len() as u64;
        Some(Record::Piece { plain_len, alignment, bit_len: piece.bit_len, proof, corrections })
    }

    /// The corrections of a piece that begins at this place in a byte.
    fn find(&self, piece: &Piece, bits: &[u8], alignment: u8) -> Option<Vec<u8>> {
        let corrections = piece.corrections(bits, alignment, self.pieces.compressor())?;
        let is_fair = corrections.len() <= CORRECTIONS_LEN_MAX && self.policy.accepts(piece, corrections.len());
        let made = if is_fair {
            recreate(&piece.dictionary, &piece.plain, &corrections, alignment, piece.bit_len)?
        } else {
            return None;
        };
        (made == bits).then_some(corrections)
    }
}

/// Reads a source and gives the plain bytes that are to be stored in its place.
pub struct Opener<'o> {
    splitter: Splitter<'o>,
    policy: Policy,
    pieces: &'o KnownPieces<'o>,
    opened: &'o Opened,
    /// Plain bytes that are to be given.
    ready: Cursor<Vec<u8>>,
    /// Bytes since the last piece, as long as they may become a literal ...
    raw: Vec<u8>,
    /// ... and how many went to the plain bytes.
    copied: u64,
    /// The byte in which the last piece ends, if it ends within one, and how many bits of it are the piece's.
    shared: Option<(u8, u8)>,
    chunk: Writer,
    proofs: Vec<PieceProof>,
    is_opened: bool,
    is_done: bool,
}

impl<'o> Opener<'o> {
    /// Begins with `source`.
    pub fn new(
        source: &'o mut (dyn Read + Send),
        policy: Policy,
        pieces: &'o KnownPieces<'o>,
        opened: &'o Opened,
    ) -> Self {
        Self {
            splitter: Splitter::new(source, &opened.read_len, policy),
            policy,
            pieces,
            opened,
            ready: Cursor::default(),
            raw: Vec::new(),
            copied: 0,
            shared: None,
            chunk: Writer::new(),
            proofs: Vec::new(),
            is_opened: false,
            is_done: false,
        }
    }

    /// Gathers a window, looks at it, and makes plain bytes and records of it.
    fn advance(&mut self) -> io::Result<()> {
        let room = (pipeline::parallelism() * WINDOW_COUNT).min(WINDOW_COUNT_MAX);
        let (mut window, mut pieces, mut raw_len) = (Vec::new(), 0, 0);
        while pieces < room && raw_len < RAW_LEN {
            let Some(segment) = self.splitter.next()? else {
                self.is_done = true;
                break;
            };
            match &segment {
                Segment::Raw(bytes) => raw_len += bytes.len(),
                Segment::Piece { .. } => pieces += 1,
            }
            window.push(segment);
        }
        let looking = Looking { policy: self.policy, pieces: self.pieces, known: &self.opened.known };
        let looked: Vec<Looked> = window.into_par_iter().map(|segment| looking.look(segment)).collect();
        let looked = self.mend(looked)?;
        self.take(looked);
        if self.is_done {
            self.finish();
        }
        Ok(())
    }

    /// Some pieces can't be made again for where they end: such a one is looked at again together with the next one.
    fn mend(&mut self, looked: Vec<Looked>) -> io::Result<Vec<Looked>> {
        let looking = Looking { policy: self.policy, pieces: self.pieces, known: &self.opened.known };
        let mut mended = Vec::with_capacity(looked.len());
        let mut rest = looked.into_iter();
        while let Some(looked) = rest.next() {
            let Looked::Piece { piece, begins, record: None } = looked else {
                mended.push(looked);
                continue;
            };
            let behind = match rest.next() {
                None if !piece.is_last => self.splitter.next()?.map(|segment| looking.look(segment)),
                behind => behind,
            };
            let whole = match &behind {
                Some(Looked::Piece { piece: behind, begins: false, .. }) => piece.joined(behind),
                _ => None,
            };
            match whole.and_then(|whole| Some((looking.record(&whole)?, whole))) {
                Some((record, piece)) => mended.push(Looked::Piece { piece, begins, record: Some(record) }),
                None => {
                    mended.extend([Some(Looked::Piece { piece, begins, record: None }), behind].into_iter().flatten());
                }
            }
        }
        Ok(mended)
    }

    fn take(&mut self, looked: Vec<Looked>) {
        let mut refused = false;
        let mut goes_on = false;
        for looked in looked {
            match looked {
                Looked::Raw(bytes) => {
                    (refused, goes_on) = (false, false);
                    self.put_raw(&bytes);
                }
                Looked::Piece { piece, begins, record } => {
                    refused &= !begins;
                    goes_on = !piece.is_last;
                    if let Some(record) = record.filter(|_| !refused) {
                        self.put_piece(&piece, &record, begins);
                    } else {
                        self.put_refused(&piece, !refused);
                        refused = true;
                    }
                }
            }
        }
        if refused && goes_on {
            let rest = self.splitter.abandon();
            self.put_raw(&rest);
        }
    }

    /// A piece that stays as it is; the first one of a member, or one behind it.
    fn put_refused(&mut self, piece: &Piece, is_first: bool) {
        add(&self.opened.in_vain, u64::from(is_first));
        // The byte that it shares with the piece before is told with that.
        self.put_raw(piece.deflated.get(usize::from(piece.skipped > 0)..).unwrap_or_default());
        self.splitter.waste(piece.plain.len());
    }

    fn put_piece(&mut self, piece: &Piece, record: &Record, begins: bool) {
        if begins {
            add(&self.opened.members, 1);
        }
        self.end_raw();
        if let Record::Piece { proof, corrections, .. } = record {
            self.proofs.push(*proof);
            add(&self.opened.corrections_len, corrections.len() as u64);
        }
        add(&self.opened.deflated_len, piece.bit_len / 8);
        add(&self.opened.plain_len, piece.plain.len() as u64);
        self.put_record(record);
        self.ready.get_mut().extend_from_slice(&piece.plain);
        let bit_at = (u64::from(piece.skipped) + piece.bit_len) % 8;
        let last = usize::try_from((u64::from(piece.skipped) + piece.bit_len) / 8).unwrap_or(usize::MAX);
        let byte = piece.deflated.get(last).filter(|_| bit_at > 0);
        self.shared = byte.map(|byte| (*byte, u8::try_from(bit_at).unwrap_or(0)));
        self.is_opened = true;
    }

    fn put_raw(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.end_byte();
        if self.copied == 0 && self.raw.len() + bytes.len() <= LITERAL_LEN {
            self.raw.extend_from_slice(bytes);
            return;
        }
        self.copied += (self.raw.len() + bytes.len()) as u64;
        self.ready.get_mut().append(&mut self.raw);
        self.ready.get_mut().extend_from_slice(bytes);
    }

    /// The last piece ends within a byte, and no other one goes on there.
    fn end_byte(&mut self) {
        if let Some((byte, bits)) = self.shared.take() {
            self.put_record(&Record::Rest(byte >> bits << bits));
        }
    }

    /// What is between two pieces gets its record.
    fn end_raw(&mut self) {
        if !self.raw.is_empty() {
            let literal = Record::Literal(std::mem::take(&mut self.raw));
            self.put_record(&literal);
        } else if self.copied > 0 {
            let copy = Record::Copy(std::mem::take(&mut self.copied));
            self.put_record(&copy);
        }
    }

    fn put_record(&mut self, record: &Record) {
        record.encode(&mut self.chunk);
        if self.chunk.len() >= RECIPE_CHUNK_LEN {
            self.end_chunk();
        }
    }

    fn end_chunk(&mut self) {
        let bytes = std::mem::take(&mut self.chunk).into_bytes();
        if !bytes.is_empty() {
            lock(&self.opened.recipe).push(RecipeChunk { bytes, proofs: std::mem::take(&mut self.proofs) });
        }
    }

    /// A stream in which nothing was opened has no recipe.
    fn finish(&mut self) {
        if self.is_opened {
            self.end_byte();
            self.end_raw();
            self.end_chunk();
        } else {
            self.ready.get_mut().append(&mut self.raw);
        }
    }
}

impl Read for Opener<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let len = self.ready.read(buffer)?;
            if len > 0 || self.is_done || buffer.is_empty() {
                return Ok(len);
            }
            self.ready.get_mut().clear();
            self.ready.set_position(0);
            // Bytes before that may become a literal come first.
            if self.raw.is_empty()
                && self.shared.is_none()
                && let Some(len) = self.splitter.read_plainly(buffer)?.filter(|len| *len > 0)
            {
                self.copied += len as u64;
                return Ok(len);
            }
            self.advance()?;
        }
    }
}
