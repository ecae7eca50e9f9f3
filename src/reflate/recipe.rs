//! A recipe: how a stream is made of the plain bytes that are stored in its place (format-spec 15).

use crate::codec::{Decoded, Reader, Writer};
use crate::id::PieceProof;

use super::piece::{PIECE_BITS_MAX, PIECE_PLAIN_LEN_MAX};

/// Longest literal.
pub const LITERAL_LEN_MAX: usize = 64 << 10;
/// Most corrections of one piece, in bytes. No piece that needs so many is worth it.
pub const CORRECTIONS_LEN_MAX: usize = 512 << 10;

const RECORD_LITERAL: u8 = 0;
const RECORD_COPY: u8 = 1;
const RECORD_PIECE: u8 = 2;
const RECORD_REST: u8 = 3;

/// What comes next in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// These bytes.
    Literal(Vec<u8>),
    /// So many of the plain bytes, as they are.
    Copy(u64),
    /// What so many of the plain bytes are deflated to.
    Piece {
        /// Plain bytes.
        plain_len: u64,
        /// Where in a byte it is made to begin, 0 to 7.
        alignment: u8,
        /// Deflated bits.
        bit_len: u64,
        /// Proves that the bits are right.
        proof: PieceProof,
        /// For the library.
        corrections: Vec<u8>,
    },
    /// What is left of the byte in which the last piece ends: that byte, zeros in the place of the piece's bits.
    Rest(u8),
}

impl Record {
    /// Appends the encoding.
    pub fn encode(&self, w: &mut Writer) {
        match self {
            Self::Literal(bytes) => w.u8(RECORD_LITERAL).counted_bytes(bytes),
            Self::Copy(len) => w.u8(RECORD_COPY).varint(*len),
            Self::Piece { plain_len, alignment, bit_len, proof, corrections } => w
                .u8(RECORD_PIECE)
                .varint(*plain_len)
                .u8(*alignment)
                .varint(*bit_len)
                .bytes(proof.as_bytes())
                .counted_bytes(corrections),
            Self::Rest(byte) => w.u8(RECORD_REST).u8(*byte),
        };
    }

    /// Reads a record off the front.
    ///
    /// # Errors
    /// On what the specification forbids.
    pub fn decode(r: &mut Reader<'_>) -> Decoded<Self> {
        Ok(match r.u8()? {
            RECORD_LITERAL => match r.counted_bytes(LITERAL_LEN_MAX, "literal too long")? {
                [] => return Err(r.error("empty literal")),
                bytes => Self::Literal(bytes.to_vec()),
            },
            RECORD_COPY => match r.varint()? {
                0 => return Err(r.error("empty copy")),
                len => Self::Copy(len),
            },
            RECORD_PIECE => Self::Piece {
                plain_len: r.varint_at_most(PIECE_PLAIN_LEN_MAX as u64, "piece too long")?,
                alignment: match r.u8()? {
                    alignment @ 0..8 => alignment,
                    _ => return Err(r.error("piece begins beyond a byte")),
                },
                bit_len: match r.varint_at_most(PIECE_BITS_MAX, "piece with too many bits")? {
                    0 => return Err(r.error("piece without bits")),
                    len => len,
                },
                proof: PieceProof::from_bytes(r.array()?),
                corrections: r.counted_bytes(CORRECTIONS_LEN_MAX, "too many corrections")?.to_vec(),
            },
            RECORD_REST => Self::Rest(r.u8()?),
            _ => return Err(r.error("unknown record of a recipe")),
        })
    }

    /// Plain bytes that it takes.
    #[must_use]
    pub fn plain_len(&self) -> u64 {
        match self {
            Self::Copy(len) => *len,
            Self::Piece { plain_len, .. } => *plain_len,
            Self::Literal(_) | Self::Rest(_) => 0,
        }
    }
}

/// Reads all records of one chunk of a recipe.
///
/// # Errors
/// On what the specification forbids.
pub fn decode_records(bytes: &[u8]) -> Decoded<Vec<Record>> {
    let mut r = Reader::new(bytes);
    let mut records = Vec::new();
    while r.remaining() > 0 {
        records.push(Record::decode(&mut r)?);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_what_is_forbidden_does_not() {
        let records = [
            Record::Literal(b"header".to_vec()),
            Record::Copy(1 << 40),
            Record::Piece {
                plain_len: 0,
                alignment: 7,
                bit_len: 3,
                proof: PieceProof::from_bytes([7; 32]),
                corrections: vec![1, 2],
            },
            Record::Rest(0xf8),
        ];
        let mut w = Writer::new();
        for record in &records {
            record.encode(&mut w);
        }
        let bytes = w.into_bytes();
        assert_eq!(decode_records(&bytes).unwrap(), records);
        for len in 1..bytes.len() {
            let cut = decode_records(&bytes[..len]).unwrap_or_default();
            assert!(cut.len() < records.len(), "{len}");
        }
        for wrong in [&[0, 0][..], &[1, 0], &[4], &[2, 0, 0, 0], &[2, 0, 8, 1], &[3]] {
            assert!(decode_records(wrong).is_err(), "{wrong:?}");
        }
    }
}
