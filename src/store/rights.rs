//! What a key lets its holder do, and the keys of a host that may back up and not read (format-spec 10).
//!
//! Such a host has the public key of the repository, and of the secret ones only those that tell it what is stored: ids of
//! chunks, cuts, index. What it seals it seals to the public key, so it can't open it again itself.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::config::Config;
use super::envelope;
use crate::crypto::{self, CryptoError, KEY_LEN, Purpose, Secret};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{from_hex, to_hex};

/// What the key of an object is for that was sealed to the public key.
const DEPOSIT_CONTEXT: &str = "compline v1 deposit";

/// What a key opens.
pub enum Rights {
    /// Everything.
    All(Secret),
    /// Enough to back up.
    Write(Box<WriteKeys>),
}

/// What a host needs to back up.
pub struct WriteKeys {
    /// What is new is sealed to it.
    pub public: [u8; KEY_LEN],
    /// Ids of chunks.
    pub chunk_id: Secret,
    /// Where content is cut.
    pub chunker: Secret,
    /// Footers and index segments.
    pub index: Secret,
    /// Sessions and retired lists.
    pub session: Secret,
    /// Secrets that components ask for.
    pub component: Secret,
    /// The config, which is sealed for those who can read.
    pub config: Config,
}

/// The same in the body of a key object.
#[derive(Serialize, Deserialize)]
pub struct WriteBody {
    public: String,
    chunk_id: Zeroizing<String>,
    chunker: Zeroizing<String>,
    index: Zeroizing<String>,
    session: Zeroizing<String>,
    component: Zeroizing<String>,
    config: Config,
}

impl WriteKeys {
    /// Those of the repository that `master` opens.
    ///
    /// # Errors
    /// When the library refuses the private key; none is known for which it does.
    pub fn of(master: &Secret, config: &Config) -> Result<Self> {
        let public = Deposits::new(master).map_err(|cause| {
            Error::new(ErrorKind::Environment, "The public key of the repository can't be made").cause(cause)
        })?;
        Ok(Self {
            public: public.public,
            chunk_id: master.subkey(Purpose::ChunkId),
            chunker: master.subkey(Purpose::Chunker),
            index: master.subkey(Purpose::Index),
            session: master.subkey(Purpose::Session),
            component: master.subkey(Purpose::Component),
            config: config.clone(),
        })
    }

    /// For a key object.
    #[must_use]
    pub fn to_body(&self) -> WriteBody {
        let hex = |secret: &Secret| Zeroizing::new(to_hex(secret.as_bytes()));
        WriteBody {
            public: to_hex(&self.public),
            chunk_id: hex(&self.chunk_id),
            chunker: hex(&self.chunker),
            index: hex(&self.index),
            session: hex(&self.session),
            component: hex(&self.component),
            config: self.config.clone(),
        }
    }

    /// Out of a key object. None if it is malformed.
    #[must_use]
    pub fn from_body(body: &WriteBody) -> Option<Self> {
        let secret = |text: &str| from_hex(text).ok().map(Secret::from_bytes);
        Some(Self {
            public: from_hex(&body.public).ok()?,
            chunk_id: secret(&body.chunk_id)?,
            chunker: secret(&body.chunker)?,
            index: secret(&body.index)?,
            session: secret(&body.session)?,
            component: secret(&body.component)?,
            config: body.config.clone().checked()?,
        })
    }
}

/// The public key of a repository and, for those who can read, the private one.
pub struct Deposits {
    public: [u8; KEY_LEN],
    private: Option<Secret>,
}

impl Deposits {
    /// Of the repository that `master` opens.
    ///
    /// # Errors
    /// As [`WriteKeys::of`].
    pub fn new(master: &Secret) -> Result<Self, CryptoError> {
        let private = master.subkey(Purpose::Deposit);
        Ok(Self { public: crypto::public_key(&private)?, private: Some(private) })
    }

    /// Only the public one.
    #[must_use]
    pub fn to(public: [u8; KEY_LEN]) -> Self {
        Self { public, private: None }
    }

    /// A salt for a new object, and what stands for the subkey in sealing it.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn draw(&self) -> Result<([u8; KEY_LEN], Secret), CryptoError> {
        let drawn = Secret::random()?;
        let salt = crypto::public_key(&drawn)?;
        let key = crypto::shared_key(DEPOSIT_CONTEXT, &drawn, &salt, &self.public)?;
        Ok((salt, key))
    }

    /// What stands for the subkey in opening the object with this header. None if it can't be known here.
    #[must_use]
    pub fn key(&self, header: &[u8]) -> Option<Secret> {
        let salt = envelope::salt_of(header)?;
        crypto::shared_key(DEPOSIT_CONTEXT, self.private.as_ref()?, &salt, &self.public).ok()
    }
}

/// The key in use can't do that.
#[must_use]
pub fn cannot_read() -> Error {
    Error::new(ErrorKind::WrongKey, "The key in use can back up, and nothing else")
        .hint("Use a key that can read: a write-only key is for the host that is backed up, not for whoever looks or restores")
}
