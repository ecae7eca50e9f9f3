//! The envelope of every stored object (format-spec 02 and 10): 44 plain bytes of header, then what is sealed.
//!
//! ```text
//! 0   8  magic "COMPLINE"
//! 8   1  object type
//! 9   1  format version, 1
//! 10  1  key slot: 0 = key derived from the subkey and the salt, 1 = sealed to the public key of the repository
//! 11  1  detail: compression of records (0 none, 1 zstd), role of packs (1 content, 2 tree)
//! 12 32  salt, random
//! 44     plain extra part of fixed length (config and keys only), then the sealed body; the last 64 bytes within the
//!        seal are a signature (config, segments, snapshots)
//!        the card (keys); parity and trailer (config, keys, snapshots)
//! ```
//! The key of an object is made of its subkey and these 44 bytes. Small objects ("records") are sealed whole at position
//! 0, with header and extra part as associated data. Those that nothing else could bring back carry as much parity as they
//! are long; segments don't, they are made again from packs.

use super::parity::{self, Share};
use super::rights;
use super::signature::{Signer, Verifier};
use crate::codec::{Decoded, Reader, Writer};
use crate::compress;
use crate::crypto::{self, KEY_LEN, Secret, SignatureError, TAG_LEN};
use crate::error::{Error, ErrorKind, Result};

/// First bytes of every object.
pub const MAGIC: &[u8; 8] = b"COMPLINE";
/// Version of the format that this program writes and reads.
pub const FORMAT_VERSION: u8 = 1;
/// Length of the header.
pub const HEADER_LEN: usize = 44;
/// Longest plain text of a record.
pub const RECORD_LEN_MAX: usize = 256 << 20;

const KEY_SLOT_DERIVED: u8 = 0;
const KEY_SLOT_DEPOSIT: u8 = 1;
const KEY_SLOT_OFFSET: usize = 10;
const SALT_OFFSET: usize = 12;
const COMPRESSION_NONE: u8 = 0;
const COMPRESSION_ZSTD: u8 = 1;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectType {
    /// `config`
    Config = 1,
    /// `keys/*`
    Key = 2,
    /// `packs/*`
    Pack = 3,
    /// `index/*`
    Segment = 4,
    /// `snapshots/*`
    Snapshot = 5,
    /// `sessions/*`
    Session = 6,
    /// `retired/*`
    Retired = 7,
}

impl ObjectType {
    /// Length of the plain extra part behind the header.
    #[must_use]
    pub fn extra_len(self) -> usize {
        match self {
            Self::Config => super::config::EXTRA_LEN,
            Self::Key => super::keyring::EXTRA_LEN,
            Self::Pack | Self::Segment | Self::Snapshot | Self::Session | Self::Retired => 0,
        }
    }

    /// Whether it is a record with parity behind its body.
    #[must_use]
    pub fn has_parity(self) -> bool {
        matches!(self, Self::Config | Self::Key | Self::Snapshot)
    }

    /// Length of what follows the sealed body, before parity.
    fn tail_len(self) -> usize {
        match self {
            Self::Key => super::card::CARD_LEN,
            _ => 0,
        }
    }

    /// Whether it is a record that is believed because it opens, and not for any other reason.
    #[must_use]
    pub fn is_signed(self) -> bool {
        matches!(self, Self::Config | Self::Segment | Self::Snapshot)
    }

    /// Whether it may be sealed to the public key of the repository.
    fn may_be_deposit(self) -> bool {
        matches!(self, Self::Pack | Self::Snapshot)
    }

    /// Whether its body may be compressed. Key bodies are not: the length would tell something of the master key.
    fn is_compressible(self) -> bool {
        matches!(self, Self::Segment | Self::Snapshot | Self::Session | Self::Retired)
    }
}

/// The fields of a header that vary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Compression or role.
    pub detail: u8,
    /// Makes the object's key.
    pub salt: [u8; KEY_LEN],
}

impl Header {
    /// The 44 bytes.
    #[must_use]
    pub fn encode(&self, object: ObjectType) -> Vec<u8> {
        self.encode_in(KEY_SLOT_DERIVED, object)
    }

    /// The same of an object that is sealed to the public key of the repository.
    #[must_use]
    pub fn encode_deposit(&self, object: ObjectType) -> Vec<u8> {
        self.encode_in(KEY_SLOT_DEPOSIT, object)
    }

    fn encode_in(&self, slot: u8, object: ObjectType) -> Vec<u8> {
        let mut w = Writer::new();
        w.bytes(MAGIC).u8(object as u8).u8(FORMAT_VERSION).u8(slot).u8(self.detail).bytes(&self.salt);
        w.into_bytes()
    }

    /// Reads the header of an object of type `object` off the front.
    ///
    /// # Errors
    /// When it is another type, a newer version or no object at all.
    pub fn decode(object: ObjectType, r: &mut Reader<'_>) -> Decoded<Self> {
        if r.bytes(MAGIC.len())? != MAGIC {
            return Err(r.error("bad magic"));
        }
        if r.u8()? != object as u8 {
            return Err(r.error("wrong object type"));
        }
        if r.u8()? != FORMAT_VERSION {
            return Err(r.error("unknown format version"));
        }
        match r.u8()? {
            KEY_SLOT_DERIVED => {}
            KEY_SLOT_DEPOSIT if object.may_be_deposit() => {}
            _ => return Err(r.error("unknown key slot")),
        }
        Ok(Self { detail: r.u8()?, salt: r.array()? })
    }
}

/// Whether the object with this header was sealed to the public key of the repository.
#[must_use]
pub fn is_deposit(header: &[u8]) -> bool {
    header.get(KEY_SLOT_OFFSET) == Some(&KEY_SLOT_DEPOSIT)
}

/// The salt in a header.
#[must_use]
pub fn salt_of(header: &[u8]) -> Option<[u8; KEY_LEN]> {
    header.get(SALT_OFFSET..HEADER_LEN)?.try_into().ok()
}

/// Seals `plain` as a whole object with `extra` readable in front. Types that are signed need a `signer`.
///
/// # Errors
/// When the system gives no random bytes.
pub fn seal_record(
    object: ObjectType,
    subkey: &Secret,
    signer: Option<&Signer>,
    extra: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>> {
    seal_record_salted(object, crypto::random().map_err(no_random)?, subkey, signer, extra, plain)
}

/// The same with a salt that the caller drew, for keys that are made of the salt. No salt may be used twice.
///
/// # Errors
/// When `plain` is longer than the format allows.
pub fn seal_record_salted(
    object_type: ObjectType,
    salt: [u8; KEY_LEN],
    subkey: &Secret,
    signer: Option<&Signer>,
    extra: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>> {
    let header = |detail| Header { detail, salt }.encode(object_type);
    seal_behind(&header, object_type, subkey, signer, extra, plain, |_| Ok(()))
}

/// The same to the public key of the repository: the salt is the public half of a key that was drawn for it, and `key` what
/// that one shares with the repository's.
///
/// # Errors
/// When `plain` is longer than the format allows.
pub fn seal_deposit(
    object_type: ObjectType,
    salt: [u8; KEY_LEN],
    key: &Secret,
    signer: Option<&Signer>,
    plain: &[u8],
) -> Result<Vec<u8>> {
    let header = |detail| Header { detail, salt }.encode_deposit(object_type);
    seal_behind(&header, object_type, key, signer, &[], plain, |_| Ok(()))
}

/// A key object: `plain` is sealed under a wrapping key that is made of the salt, and `append_card` writes what follows.
///
/// # Errors
/// From `append_card`.
pub fn seal_key(
    salt: [u8; KEY_LEN],
    wrapping: &Secret,
    extra: &[u8],
    plain: &[u8],
    append_card: impl FnOnce(&mut Vec<u8>) -> Result<()>,
) -> Result<Vec<u8>> {
    let header = |detail| Header { detail, salt }.encode(ObjectType::Key);
    seal_behind(&header, ObjectType::Key, wrapping, None, extra, plain, append_card)
}

/// `append_tail` writes what lies between body and parity.
fn seal_behind(
    header: &dyn Fn(u8) -> Vec<u8>,
    object_type: ObjectType,
    subkey: &Secret,
    signer: Option<&Signer>,
    extra: &[u8],
    plain: &[u8],
    append_tail: impl FnOnce(&mut Vec<u8>) -> Result<()>,
) -> Result<Vec<u8>> {
    debug_assert_eq!(extra.len(), object_type.extra_len());
    let plain_len = u32::try_from(plain.len()).ok().filter(|len| *len as usize <= RECORD_LEN_MAX);
    let plain_len =
        plain_len.ok_or_else(|| Error::new(ErrorKind::Bug, "A record grew longer than the format allows"))?;
    let packed = if object_type.is_compressible() { compress::compress(plain) } else { None };
    let detail = if packed.is_some() { COMPRESSION_ZSTD } else { COMPRESSION_NONE };
    let mut object = header(detail);
    let key = subkey.object_key(&object);
    object.extend_from_slice(extra);
    let mut body = Writer::new();
    match packed {
        Some(packed) => body.u32(plain_len).bytes(&packed),
        None => body.bytes(plain),
    };
    let mut body = body.into_bytes();
    if object_type.is_signed() {
        signer.ok_or_else(rights::cannot_write)?.sign(&object, &mut body);
    }
    key.seal(0, &object, &mut body);
    object.append(&mut body);
    append_tail(&mut object)?;
    if object_type.has_parity() {
        parity::protect(&mut object, 0, Share::RECORD);
    }
    Ok(object)
}

/// The system gave no random bytes.
pub(super) fn no_random(cause: crypto::CryptoError) -> Error {
    Error::new(ErrorKind::Environment, "No random bytes can be had").cause(cause)
}

/// Why a record did not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The header is off.
    #[error(transparent)]
    Decode(#[from] crate::codec::DecodeError),
    /// Wrong key or changed bytes.
    #[error(transparent)]
    Open(#[from] crypto::OpenError),
    /// It is for those who write.
    #[error("the key in use can't open it")]
    NoKey,
    /// Who sealed it may not write.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The plain text is not what it says.
    #[error(transparent)]
    Decompress(#[from] compress::DecompressError),
}

impl RecordError {
    /// Whether a newer program may have written it.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Decode(cause) if cause.is_newer())
    }
}

/// The plain extra part of an object, without a key.
///
/// # Errors
/// When the header is off or the object too short.
pub fn record_extra(object: ObjectType, bytes: &[u8]) -> Decoded<&[u8]> {
    let mut r = Reader::new(bytes);
    Header::decode(object, &mut r)?;
    r.bytes(object.extra_len())
}

/// Opens what [`seal_record`] sealed. Types that are signed need a `verifier`.
///
/// # Errors
/// On another type, version or key, on changed bytes, and on what is not signed.
pub fn open_record(
    object: ObjectType,
    subkey: &Secret,
    verifier: Option<&Verifier>,
    bytes: &[u8],
) -> Result<Vec<u8>, RecordError> {
    let mut r = Reader::new(bytes);
    let header = Header::decode(object, &mut r)?;
    r.bytes(object.extra_len())?;
    let data = if object.has_parity() { parity::data_of(bytes)? } else { bytes };
    let data = data.len().checked_sub(object.tail_len()).and_then(|len| data.get(..len));
    let data = data.ok_or_else(|| r.error("truncated"))?;
    let (aad, sealed) = data.split_at_checked(r.position()).ok_or_else(|| r.error("truncated"))?;
    if sealed.len() < TAG_LEN {
        return Err(r.error("truncated").into());
    }
    let mut body = sealed.to_vec();
    let mut plain: &[u8] = subkey.object_key(&bytes[..HEADER_LEN]).open(0, aad, &mut body)?;
    if object.is_signed() {
        plain = verifier.ok_or(SignatureError)?.verified(aad, plain)?;
    }
    match header.detail {
        COMPRESSION_NONE if plain.len() > RECORD_LEN_MAX => Err(r.error("record too long").into()),
        COMPRESSION_NONE => Ok(plain.to_vec()),
        COMPRESSION_ZSTD => decompress_body(plain),
        _ => Err(r.error("unknown compression").into()),
    }
}

fn decompress_body(plain: &[u8]) -> Result<Vec<u8>, RecordError> {
    let mut r = Reader::new(plain);
    let len = r.u32()? as usize;
    if len > RECORD_LEN_MAX {
        return Err(r.error("record too long").into());
    }
    let packed = r.bytes(r.remaining())?;
    Ok(compress::decompress(packed, len)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RepositoryId;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_opens_only_as_it_was_sealed(plain in proptest::collection::vec(0u8..4, 0..300), bit: usize) {
            let key = Secret::from_bytes([3; 32]);
            let signer = Signer::new(RepositoryId::from_bytes([1; 16]), &key).expect("any bytes sign");
            let sealed = seal_record(ObjectType::Snapshot, &key, Some(&signer), &[], &plain);
            let sealed = sealed.expect("random bytes can be had");
            let verifier = signer.verifier();
            let open = |object, key: &Secret, bytes: &[u8]| open_record(object, key, Some(&verifier), bytes);
            prop_assert_eq!(open(ObjectType::Snapshot, &key, &sealed), Ok(plain));
            prop_assert!(open(ObjectType::Segment, &key, &sealed).is_err());
            prop_assert!(open(ObjectType::Snapshot, &Secret::from_bytes([4; 32]), &sealed).is_err());
            prop_assert!(open_record(ObjectType::Snapshot, &key, None, &sealed).is_err());
            let mut flipped = sealed.clone();
            let data_len = parity::data_of(&sealed).map(<[u8]>::len).unwrap_or_default();
            flipped[bit / 8 % data_len] ^= 1 << (bit % 8);
            prop_assert!(open(ObjectType::Snapshot, &key, &flipped).is_err());
            let healed = parity::heal(&flipped, |bytes| bytes == sealed);
            prop_assert_eq!(healed.map(|healed| healed.bytes), Ok(sealed));
        }

        #[test]
        fn opening_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let key = Secret::from_bytes([3; 32]);
            prop_assert!(open_record(ObjectType::Key, &key, None, &bytes).is_err());
        }
    }
}
