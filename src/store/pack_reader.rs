//! Reading packs: footers, frames, and many chunks at once in pack order.

use std::ops::Range;

use super::envelope::{self, HEADER_LEN, Header, ObjectType};
use super::pack::{self, Frame, FrameKind, Role, TRAILER_LEN};
use super::rights::{Access, Deposits, Rights};
use super::signature::{Signer, Verifier};
use crate::codec::{DecodeError, Reader};
use crate::compress::{self, DecompressError};
use crate::crypto::{CryptoError, OpenError, SealKey, Secret, SignatureError};
use crate::delta;
use crate::id::{ChunkId, RepositoryId};
use crate::storage::{ObjectKey, Storage, StorageError};

/// The subkeys that packs need.
pub struct PackKeys {
    chunk_id: Secret,
    /// Of packs of content and of trees; none for who can't read.
    frames: Option<[Secret; 2]>,
    index: Secret,
    deposits: Deposits,
    verifier: Verifier,
    /// None for who can't write.
    signer: Option<Signer>,
}

impl PackKeys {
    /// Those that a key of `repository` opened.
    ///
    /// # Errors
    /// When the library refuses a private key; none is known for which it does.
    pub fn new(repository: RepositoryId, rights: &Rights) -> Result<Self, CryptoError> {
        let deposits = match &rights.access {
            Access::All { read, .. } | Access::Read(read) => Deposits::new(read.deposit.clone())?,
            Access::Write(write, _) => Deposits::to(write.deposit),
        };
        let signer = rights.write().map(|write| Signer::new(repository, &write.signature));
        Ok(Self {
            chunk_id: rights.chunk_id.clone(),
            frames: rights.read().map(|read| [read.content.clone(), read.tree.clone()]),
            index: rights.index.clone(),
            deposits,
            verifier: Verifier::new(repository, rights.public),
            signer: signer.transpose()?,
        })
    }

    /// Whether frames can be opened.
    #[must_use]
    pub fn can_read(&self) -> bool {
        self.frames.is_some()
    }

    /// Signs footers and segments. None for who can't write.
    #[must_use]
    pub fn signer(&self) -> Option<&Signer> {
        self.signer.as_ref()
    }

    /// Tells what was signed by who can write.
    #[must_use]
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Whether what the one seals the other can open.
    #[must_use]
    pub fn are_those_of(&self, other: &Self) -> bool {
        self.can_read() && other.can_read() && self.index.as_bytes() == other.index.as_bytes()
    }

    /// What seals or opens the frames of a pack of `role` with this header. None if it can't be known here.
    #[must_use]
    pub fn frames(&self, role: Role, header: &[u8]) -> Option<SealKey> {
        let subkey = if envelope::is_deposit(header) {
            self.deposits.key(header)?
        } else {
            self.frames.as_ref()?[role as usize - 1].clone()
        };
        Some(subkey.object_key(header))
    }

    /// To seal what only others can open, and to open what was sealed so.
    #[must_use]
    pub fn deposits(&self) -> &Deposits {
        &self.deposits
    }

    /// The subkey that seals footers and segments.
    #[must_use]
    pub fn index(&self) -> &Secret {
        &self.index
    }

    /// The id of a chunk.
    #[must_use]
    pub fn chunk_id(&self, bytes: &[u8]) -> ChunkId {
        ChunkId::from_bytes(*blake3::keyed_hash(self.chunk_id.as_bytes(), bytes).as_bytes())
    }
}

/// Why a part of a pack can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A record in it is malformed.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It was changed, or is of another repository.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A frame holds something else than it says.
    #[error(transparent)]
    Decompress(#[from] DecompressError),
    /// Who sealed it may not write.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// A chunk is not what its id says.
    #[error("chunk {0} is not what its id says")]
    WrongChunk(ChunkId),
    /// It was sealed for somebody else.
    #[error("the key in use can't read")]
    NoKey,
    /// A delta whose bases were not given.
    #[error("a delta, which can't be read without its base")]
    NoBase,
    /// A later version wrote it.
    #[error("a frame of kind {0}, which this program does not know")]
    UnknownFrame(u8),
    /// Frames and footer do not fill it.
    #[error("the footer does not describe the pack")]
    WrongFooter,
    /// It can't be had.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl PackError {
    /// Whether a newer program may have written it.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        match self {
            Self::Decode(cause) => cause.is_newer(),
            Self::UnknownFrame(_) => true,
            _ => false,
        }
    }
}

/// Opens frames of one pack.
pub struct FrameOpener {
    key: SealKey,
}

impl FrameOpener {
    /// From the first 44 bytes of the pack.
    ///
    /// # Errors
    /// When they are no pack header.
    pub fn new(header: &[u8], keys: &PackKeys) -> Result<Self, PackError> {
        let mut r = Reader::new(header);
        let head = Header::decode(ObjectType::Pack, &mut r)?;
        r.end()?;
        let role = Role::from_byte(head.detail).ok_or_else(|| r.error("unknown role"))?;
        let key = keys.frames(role, header).ok_or(PackError::NoKey)?;
        Ok(Self { key })
    }

    /// For a pack that is being written, whose key is at hand.
    #[must_use]
    pub fn of(key: SealKey) -> Self {
        Self { key }
    }

    /// What was sealed of the frame at `offset`: its plain text if it is raw, else what its kind makes of it.
    ///
    /// # Errors
    /// When a bit of it, or of what is believed of it, differs from what was sealed.
    pub fn unseal<'s>(
        &self,
        offset: u64,
        kind: FrameKind,
        plain_len: u64,
        extension: &[u8],
        sealed: &'s mut [u8],
    ) -> Result<&'s [u8], PackError> {
        Ok(self.key.open(offset, &pack::frame_aad(kind, plain_len, extension), sealed)?)
    }
}

/// The plain text of a frame out of what was unsealed, into `plain`. Not of deltas.
///
/// # Errors
/// When it is not what its kind asks for.
pub fn unpack(kind: FrameKind, plain_len: u64, body: &[u8], plain: &mut Vec<u8>) -> Result<(), PackError> {
    let plain_len = usize::try_from(plain_len).map_err(|_| PackError::WrongFooter)?;
    match kind {
        FrameKind::Raw if body.len() == plain_len => {
            plain.clear();
            plain.extend_from_slice(body);
            Ok(())
        }
        FrameKind::Raw => Err(PackError::WrongFooter),
        FrameKind::Zstd => Ok(compress::decompress_into(body, plain_len, plain)?),
        FrameKind::Delta => Err(PackError::NoBase),
        FrameKind::Other(kind) => Err(PackError::UnknownFrame(kind)),
    }
}

/// The plain text of a delta out of what was unsealed.
///
/// # Errors
/// When it is no delta over `base`.
pub fn undo(plain_len: u64, body: &[u8], base: &[u8]) -> Result<Vec<u8>, PackError> {
    let plain_len = usize::try_from(plain_len).map_err(|_| PackError::WrongFooter)?;
    let delta = compress::decompress_up_to(body, plain_len)?;
    Ok(delta::decode(&delta, base, plain_len)?)
}

/// Compares every chunk of a frame with its id.
///
/// # Errors
/// Names the first chunk that differs.
pub fn verify_chunks(frame: &Frame, plain: &[u8], keys: &PackKeys) -> Result<(), PackError> {
    let mut rest = plain;
    for (id, len) in &frame.chunks {
        let len = usize::try_from(*len).map_err(|_| PackError::WrongFooter)?;
        let (chunk, after) = rest.split_at_checked(len).ok_or(PackError::WrongFooter)?;
        if keys.chunk_id(chunk) != *id {
            return Err(PackError::WrongChunk(*id));
        }
        rest = after;
    }
    if rest.is_empty() { Ok(()) } else { Err(PackError::WrongFooter) }
}

/// Role and frames of a whole pack in memory.
///
/// # Errors
/// When header, trailer or footer are not what they should be.
pub fn footer_of(bytes: &[u8], keys: &PackKeys) -> Result<(Role, Vec<Frame>), PackError> {
    let len = bytes.len() as u64;
    let trailer = bytes.len().checked_sub(TRAILER_LEN).ok_or(PackError::WrongFooter)?;
    let range = pack::decode_trailer(&bytes[trailer..], len)?;
    let position = range.start;
    let start = usize::try_from(range.start).map_err(|_| PackError::WrongFooter)?;
    let end = usize::try_from(range.end).map_err(|_| PackError::WrongFooter)?;
    open_footer(&bytes[..HEADER_LEN], &bytes[start..end], position, keys)
}

/// Role and frames of a pack in storage, by reading its ends only.
///
/// # Errors
/// From the storage, and as [`footer_of`].
pub fn read_footer(
    storage: &dyn Storage,
    key: &ObjectKey,
    len: u64,
    keys: &PackKeys,
) -> Result<(Role, Vec<Frame>), PackError> {
    let end = len.checked_sub(TRAILER_LEN as u64).ok_or(PackError::WrongFooter)?;
    let header = storage.get_range(key, 0..HEADER_LEN as u64)?;
    let range = pack::decode_trailer(&storage.get_range(key, end..len)?, len)?;
    let position = range.start;
    let footer = storage.get_range(key, range)?;
    open_footer(&header, &footer, position, keys)
}

/// Opens the footer that lies at `position` of the pack.
fn open_footer(header: &[u8], footer: &[u8], position: u64, keys: &PackKeys) -> Result<(Role, Vec<Frame>), PackError> {
    let mut r = Reader::new(header);
    let head = Header::decode(ObjectType::Pack, &mut r)?;
    let role = Role::from_byte(head.detail).ok_or_else(|| r.error("unknown role"))?;
    let mut sealed = footer.to_vec();
    let plain = keys.index().object_key(header).open(position, header, &mut sealed)?;
    let frames = pack::decode_footer(keys.verifier.verified(header, plain)?)?;
    if pack::frames_fill(&frames, position) { Ok((role, frames)) } else { Err(PackError::WrongFooter) }
}

/// Two reads of one pack are joined when no more than this lies between them: a request costs more than so many bytes.
pub const GAP_LEN_MAX: u64 = 64 << 10;
/// A joined read is no longer than this, so that several can be under way in little memory.
pub const READ_LEN_MAX: u64 = 4 << 20;

/// Joins neighbouring frames of one pack, given in order as (offset, length), into ranges to read. Each item says how
/// many frames it covers.
#[must_use]
pub fn coalesce(frames: &[(u64, u64)]) -> Vec<(Range<u64>, usize)> {
    let mut reads: Vec<(Range<u64>, usize)> = Vec::new();
    for (offset, len) in frames {
        let end = offset + len;
        match reads.last_mut() {
            Some((range, count)) if *offset <= range.end + GAP_LEN_MAX && end - range.start <= READ_LEN_MAX => {
                range.end = range.end.max(end);
                *count += 1;
            }
            _ => reads.push((*offset..end, 1)),
        }
    }
    reads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_frames_are_read_together_and_far_ones_apart() {
        let reads = coalesce(&[(44, 100), (144, 100), (100_000, 50), (150_000, 10), (1 << 30, 5)]);
        assert_eq!(
            reads,
            vec![(44..244, 2), (100_000..150_010, 2), (1 << 30..(1 << 30) + 5, 1)]
                .into_iter()
                .map(|(range, count): (Range<u64>, usize)| (range, count))
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_read_stays_below_its_longest_length() {
        let frames: Vec<_> = (0..20).map(|n| (n << 20, 1 << 20)).collect();
        assert!(coalesce(&frames).iter().all(|(range, _)| range.end - range.start <= READ_LEN_MAX));
    }
}
