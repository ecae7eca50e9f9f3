//! The config object (format-spec 02): what must be known before anything else can be read.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::envelope::{self, ObjectType};
use super::parity::Share;
use super::rights::Rights;
use super::signature::{Signer, Verifier};
use crate::codec::{Decoded, Reader, Writer};
use crate::crypto::{CryptoError, KEY_LEN, Purpose, Secret};
use crate::error::{Error, ErrorKind, Result};
use crate::id::RepositoryId;

/// Plain part behind the header: repository id, required features, public keys.
pub const EXTRA_LEN: usize = RepositoryId::LEN + 8 + 2 * KEY_LEN;

/// Features that a reader must know, one bit each. Version 1 of the format has none.
pub const FEATURES_KNOWN: u64 = 0;

/// Default length in bytes at which a pack is closed.
pub const PACK_LEN: u64 = 8 << 20;
/// Default plain length in bytes at which a frame of several chunks is closed.
pub const FRAME_LEN: u64 = 1 << 20;

/// What anybody can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigHead {
    /// Random, for ever.
    pub repository: RepositoryId,
    /// Bits of [`FEATURES_KNOWN`].
    pub features: u64,
    /// Whose signatures are those of the repository, for ever.
    pub public: [u8; KEY_LEN],
    /// To whom those seal who can't read, for ever.
    pub deposit: [u8; KEY_LEN],
}

impl ConfigHead {
    /// Of a repository that `master` opens.
    ///
    /// # Errors
    /// As [`Rights::all`].
    pub fn new(repository: RepositoryId, master: &Secret) -> Result<Self, CryptoError> {
        let rights = Rights::all(master.clone())?;
        Ok(Self { repository, features: 0, public: rights.public, deposit: rights.deposit()? })
    }

    /// Whether a key that opened this is one of the repository, and not one that somebody wrapped who knows another.
    #[must_use]
    pub fn fits(&self, rights: &Rights) -> bool {
        rights.public == self.public && rights.deposit() == Ok(self.deposit)
    }

    /// What tells its signatures from others.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        Verifier::new(self.repository, self.public)
    }

    /// The bytes behind the header.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let mut w = Writer::new();
        w.bytes(self.repository.as_bytes()).u64(self.features).bytes(&self.public).bytes(&self.deposit);
        w.into_bytes()
    }

    /// Reads them. Features are not looked at.
    ///
    /// # Errors
    /// When the length differs.
    pub fn decode(bytes: &[u8]) -> Decoded<Self> {
        let mut r = Reader::new(bytes);
        let repository = RepositoryId::from_bytes(r.array()?);
        let head = Self { repository, features: r.u64()?, public: r.array()?, deposit: r.array()? };
        r.end()?;
        Ok(head)
    }

    /// Reads the plain part of a config object and refuses what this program can't handle.
    ///
    /// # Errors
    /// `Damaged` if it is no config object, `UnsupportedFormat` for newer versions and unknown features.
    pub fn read(object: &[u8]) -> Result<Self> {
        let head = envelope::record_extra(ObjectType::Config, object).and_then(Self::decode).map_err(|cause| {
            let kind = if cause.is_newer() { ErrorKind::UnsupportedFormat } else { ErrorKind::Damaged };
            Error::new(kind, "The config of the repository can't be read")
                .hint("If a newer compline wrote it, use that one; if not, bring the object `config` back from a copy")
                .cause(cause)
        })?;
        match head.features & !FEATURES_KNOWN {
            0 => Ok(head),
            unknown => Err(Error::new(
                ErrorKind::UnsupportedFormat,
                format!("The repository uses features that this program does not know (bits {unknown:#x})"),
            )
            .hint("Use the compline that wrote it, or a newer one")),
        }
    }
}

/// The sealed part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// When the repository was created.
    pub created_at: Timestamp,
    /// Packs are closed at this length.
    pub pack_len: u64,
    /// Frames of several chunks are closed at this plain length.
    pub frame_len: u64,
    /// Packs get so much parity, in thousandths.
    #[serde(default)]
    pub parity: Share,
}

impl Config {
    /// Defaults for a repository that is created now.
    #[must_use]
    pub fn new(created_at: Timestamp) -> Self {
        Self { created_at, pack_len: PACK_LEN, frame_len: FRAME_LEN, parity: Share::PACK }
    }

    /// The whole object.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn seal(&self, head: ConfigHead, master: &Secret) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(self).expect("plain fields always serialize");
        let signer = Signer::of(head.repository, master)
            .map_err(|cause| Error::new(ErrorKind::Environment, "The key that signs can't be made").cause(cause))?;
        let subkey = master.subkey(Purpose::Record);
        envelope::seal_record(ObjectType::Config, &subkey, Some(&signer), &head.encode(), &json)
    }

    /// Opens the sealed part with the subkey `record`.
    ///
    /// # Errors
    /// `Damaged` when it is not what was sealed with this key and signed for this repository, or a length is out of bounds.
    pub fn open(object: &[u8], record: &Secret, verifier: &Verifier) -> Result<Self> {
        let damaged = || Error::damaged("The config of the repository is damaged");
        let json = envelope::open_record(ObjectType::Config, record, Some(verifier), object)
            .map_err(|cause| damaged().cause(cause))?;
        let config: Self = serde_json::from_slice(&json).map_err(|cause| damaged().cause(cause))?;
        config.checked().ok_or_else(damaged)
    }

    /// The same, if its lengths are in bounds.
    #[must_use]
    pub fn checked(self) -> Option<Self> {
        let config = self;
        let fits = (1 << 16..=1 << 30).contains(&config.pack_len) && (1 << 10..=8 << 20).contains(&config.frame_len);
        (fits && config.parity.is_for_packs()).then_some(config)
    }
}
