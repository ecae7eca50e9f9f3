//! Filling packs: frames in, sealed objects out, each read back before it is trusted.

use super::envelope::{HEADER_LEN, Header, ObjectType, no_random};
use super::frame_maker::PackedFrame;
use super::index_segment::PackEntry;
use super::pack::{self, Frame, FrameKind, Role};
use super::pack_reader::{self, FrameOpener, PackError, PackKeys};
use super::parity::{self, Share};
use super::rights;
use super::signature::Signer;
use crate::crypto::{self, KEY_LEN, SealKey};
use crate::delta::Features;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ChunkId, PackId};

/// A pack that is being filled, in memory.
#[must_use = "an unfinished pack is discarded"]
pub struct PackWriter {
    role: Role,
    header: Vec<u8>,
    frame_key: SealKey,
    footer_key: SealKey,
    signer: Signer,
    bytes: Vec<u8>,
    frames: Vec<Frame>,
    /// What was sealed of each delta, whose bases are not at hand when the pack is read back.
    proofs: Vec<Option<blake3::Hash>>,
    features: Vec<(ChunkId, Features)>,
    footer_len: u64,
    parity: Share,
}

/// A pack is closed as well when its footer grows beyond this: many tiny chunks that compress well would make a footer
/// that is longer than the format allows.
const FOOTER_LEN_CLOSE: u64 = 4 << 20;

impl PackWriter {
    /// An empty pack with a fresh salt that gets so much parity, with `room` for so many bytes before that: growing would
    /// double it.
    ///
    /// # Errors
    /// When the system gives no random bytes, and for who can't write.
    pub fn new(role: Role, room: usize, parity: Share, keys: &PackKeys) -> Result<Self> {
        let signer = keys.signer().ok_or_else(rights::cannot_write)?.clone();
        let mut pack = if keys.can_read() {
            Self::with_salt(role, keys, signer, crypto::random().map_err(no_random)?)
        } else {
            let (salt, key) = keys.deposits().draw().map_err(no_random)?;
            let header = Header { detail: role as u8, salt }.encode_deposit(ObjectType::Pack);
            let frame_key = key.object_key(&header);
            Self::with_header(role, keys, signer, header, frame_key)
        };
        pack.bytes.reserve_exact(if room > 0 { room + parity::protection_len(room, parity) } else { 0 });
        pack.parity = parity;
        Ok(pack)
    }

    /// An empty pack with a salt that was never used before, which gets no parity.
    pub fn with_salt(role: Role, keys: &PackKeys, signer: Signer, salt: [u8; KEY_LEN]) -> Self {
        let header = Header { detail: role as u8, salt }.encode(ObjectType::Pack);
        let frame_key = keys.frames(role, &header).expect("only who can read draws such a salt");
        Self::with_header(role, keys, signer, header, frame_key)
    }

    fn with_header(role: Role, keys: &PackKeys, signer: Signer, header: Vec<u8>, frame_key: SealKey) -> Self {
        let footer_key = keys.index().object_key(&header);
        Self {
            role,
            bytes: header.clone(),
            header,
            frame_key,
            footer_key,
            signer,
            frames: Vec::new(),
            proofs: Vec::new(),
            features: Vec::new(),
            footer_len: 0,
            parity: Share::NONE,
        }
    }

    /// Gives it so much parity.
    pub fn set_parity(&mut self, parity: Share) {
        self.parity = parity;
    }

    /// Length so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether it has no frame.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether it should be finished now; `pack_len` is the length that packs should have.
    #[must_use]
    pub fn is_full(&self, pack_len: u64) -> bool {
        self.len() >= pack_len || self.footer_len >= FOOTER_LEN_CLOSE
    }

    /// Seals a frame and appends it.
    pub fn push(&mut self, frame: PackedFrame) {
        let PackedFrame { kind, plain_len, mut bytes, chunks, extension, features } = frame;
        let offset = self.len();
        self.proofs.push((kind == FrameKind::Delta).then(|| blake3::hash(&bytes)));
        self.features.extend(features);
        self.frame_key.seal(offset, &pack::frame_aad(kind, plain_len, &extension), &mut bytes);
        self.bytes.extend_from_slice(&bytes);
        let sealed_len = bytes.len() as u64;
        let frame = Frame { offset, sealed_len, kind, extension, plain_len, chunks };
        self.footer_len += frame.footer_len();
        self.frames.push(frame);
    }

    /// Appends footer, parity and trailer.
    pub fn finish(mut self) -> FinishedPack {
        let mut footer = pack::encode_footer(&self.frames);
        self.signer.sign(&self.header, &mut footer);
        self.footer_key.seal(self.bytes.len() as u64, &self.header, &mut footer);
        self.bytes.extend_from_slice(&footer);
        let footer_len = u32::try_from(footer.len()).expect("a footer is shorter than FOOTER_LEN_MAX");
        let protected = Protected { data_len: self.bytes.len(), footer_len, share: self.parity };
        parity::protect(&mut self.bytes, footer_len, self.parity);
        let id = PackId::from_bytes(*blake3::hash(&self.bytes).as_bytes());
        let entry = PackEntry { id, role: self.role, len: self.bytes.len() as u64, frames: self.frames };
        let opener = FrameOpener::of(self.frame_key);
        FinishedPack { entry, bytes: self.bytes, proofs: self.proofs, features: self.features, protected, opener }
    }
}

/// What parity was made of.
struct Protected {
    data_len: usize,
    footer_len: u32,
    share: Share,
}

/// A whole pack that is not in storage yet.
pub struct FinishedPack {
    /// What the index will know of it.
    pub entry: PackEntry,
    /// The object.
    pub bytes: Vec<u8>,
    /// Features of some of its chunks.
    pub features: Vec<(ChunkId, Features)>,
    proofs: Vec<Option<blake3::Hash>>,
    protected: Protected,
    /// For who can't make one of the header.
    opener: FrameOpener,
}

impl FinishedPack {
    /// Reads everything back out of the finished bytes: footer, every chunk, parity. A flipped bit in memory or a fault in
    /// a library is found now and not at the restore. Deltas were decoded when they were made; here they must be what they
    /// were then.
    ///
    /// # Errors
    /// `Bug` when anything differs from what was put in.
    pub fn read_back(&self, keys: &PackKeys) -> Result<()> {
        let differs = || {
            Error::new(
                ErrorKind::Bug,
                format!("Pack {} is not what was written: nothing of it was published", self.entry.id),
            )
            .hint("Run the backup again; if it happens again, test the memory of this machine")
        };
        let (role, frames) = pack_reader::footer_of(&self.bytes, keys).map_err(|cause| differs().cause(cause))?;
        if (role, &frames) != (self.entry.role, &self.entry.frames) {
            return Err(differs());
        }
        let of_header = match FrameOpener::new(&self.bytes[..HEADER_LEN], keys) {
            Err(PackError::NoKey) => None,
            other => Some(other.map_err(|cause| differs().cause(cause))?),
        };
        let opener = of_header.as_ref().unwrap_or(&self.opener);
        let mut plain = Vec::new();
        for (frame, proof) in frames.iter().zip(&self.proofs) {
            let start = usize::try_from(frame.offset).map_err(|_| differs())?;
            let end = usize::try_from(frame.offset + frame.sealed_len).map_err(|_| differs())?;
            let mut sealed = self.bytes[start..end].to_vec();
            let body = opener
                .unseal(frame.offset, frame.kind, frame.plain_len, &frame.extension, &mut sealed)
                .map_err(|cause| differs().cause(cause))?;
            if let Some(proof) = proof {
                if blake3::hash(body) != *proof {
                    return Err(differs());
                }
                continue;
            }
            pack_reader::unpack(frame.kind, frame.plain_len, body, &mut plain)
                .and_then(|()| pack_reader::verify_chunks(frame, &plain, keys))
                .map_err(|cause| differs().cause(cause))?;
        }
        let Protected { data_len, footer_len, share } = self.protected;
        let is_protected = parity::is_as_protected(&self.bytes, data_len, footer_len, share);
        if is_protected { Ok(()) } else { Err(differs()) }
    }
}
