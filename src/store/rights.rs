//! What a key lets its holder do (format-spec 10): everything, back up and not read, or read and not write.
//!
//! Who backs up and does not read has the public key of the repository, and of the secret ones only those that tell what is
//! stored: ids of chunks, cuts, index. What such a host seals it seals to the public key, so it can't open it again itself.
//!
//! Who reads and does not write has every key that opens, and not the one that signs: what such a holder seals nobody believes
//! ([`signature`](super::signature)). Nor the one of sessions and retired lists, which no reader asks for.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::config::Config;
use super::envelope;
use crate::crypto::{self, CryptoError, KEY_LEN, Purpose, Secret, SigningKey};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{from_hex, to_hex};

/// What the key of an object is for that was sealed to the public key.
const DEPOSIT_CONTEXT: &str = "compline v1 deposit";

/// What a new key is to open.
#[derive(Debug, Clone, Copy)]
pub enum Grant<'g> {
    /// Everything.
    All,
    /// All that is stored, and nothing is believed that its holder writes.
    Read,
    /// Enough to back up. The config goes with it, which only those can open who read.
    Write(&'g Config),
}

/// What a key opened.
pub struct Rights {
    /// Whose signatures are those of the repository.
    pub public: [u8; KEY_LEN],
    /// Ids of chunks.
    pub chunk_id: Secret,
    /// Where content is cut.
    pub chunker: Secret,
    /// Footers and index segments.
    pub index: Secret,
    /// What not everybody holds.
    pub access: Access,
}

/// What sorts of keys differ in.
pub enum Access {
    /// Everything.
    All {
        /// What all others come from.
        master: Secret,
        /// To read.
        read: ReadKeys,
        /// To write.
        write: WriteKeys,
    },
    /// Enough to read.
    Read(ReadKeys),
    /// Enough to back up, with the config, which such a key can't open.
    Write(WriteKeys, Config),
}

/// What readers need besides.
pub struct ReadKeys {
    /// Frames of packs of content.
    pub content: Secret,
    /// Frames of packs of trees.
    pub tree: Secret,
    /// Config and snapshots.
    pub record: Secret,
    /// The private key of the repository: what hosts sealed that can't read.
    pub deposit: Secret,
}

/// What writers need besides.
pub struct WriteKeys {
    /// The public key of the repository: what is new is sealed to it by who can't read.
    pub deposit: [u8; KEY_LEN],
    /// Sessions and retired lists.
    pub session: Secret,
    /// Secrets that components ask for.
    pub component: Secret,
    /// Signs.
    pub signature: Secret,
}

impl Rights {
    /// Everything, in the repository that `master` opens.
    ///
    /// # Errors
    /// When the library refuses a private key; none is known for which it does.
    pub fn all(master: Secret) -> Result<Self, CryptoError> {
        let (deposit, signature) = (master.subkey(Purpose::Deposit), master.subkey(Purpose::Signature));
        Ok(Self {
            public: SigningKey::from_seed(&signature)?.public(),
            chunk_id: master.subkey(Purpose::ChunkId),
            chunker: master.subkey(Purpose::Chunker),
            index: master.subkey(Purpose::Index),
            access: Access::All {
                write: WriteKeys {
                    deposit: crypto::public_key(&deposit)?,
                    session: master.subkey(Purpose::Session),
                    component: master.subkey(Purpose::Component),
                    signature,
                },
                read: ReadKeys {
                    content: master.subkey(Purpose::Content),
                    tree: master.subkey(Purpose::Tree),
                    record: master.subkey(Purpose::Record),
                    deposit,
                },
                master,
            },
        })
    }

    /// The master key. None for who holds a part.
    #[must_use]
    pub fn master(&self) -> Option<&Secret> {
        match &self.access {
            Access::All { master, .. } => Some(master),
            _ => None,
        }
    }

    /// None for who can't read.
    #[must_use]
    pub fn read(&self) -> Option<&ReadKeys> {
        match &self.access {
            Access::All { read, .. } | Access::Read(read) => Some(read),
            Access::Write(..) => None,
        }
    }

    /// None for who can't write.
    #[must_use]
    pub fn write(&self) -> Option<&WriteKeys> {
        match &self.access {
            Access::All { write, .. } | Access::Write(write, _) => Some(write),
            Access::Read(_) => None,
        }
    }

    /// The public key to which those seal who can't read.
    ///
    /// # Errors
    /// When the library refuses the private one; none is known for which it does.
    pub fn deposit(&self) -> Result<[u8; KEY_LEN], CryptoError> {
        match &self.access {
            Access::All { write, .. } | Access::Write(write, _) => Ok(write.deposit),
            Access::Read(read) => crypto::public_key(&read.deposit),
        }
    }

    /// Why its holder may not do what takes a full key.
    #[must_use]
    pub fn refusal(&self) -> Error {
        if self.read().is_some() { cannot_write() } else { cannot_read() }
    }

    /// The part of them that is granted, for a key object.
    ///
    /// # Errors
    /// For who hasn't got it.
    pub fn to_body(&self, grant: Grant<'_>) -> Result<Body> {
        let mut body = Body { master: None, write: None, read: None };
        match grant {
            Grant::All => body.master = Some(hex(self.master().ok_or_else(|| self.refusal())?)),
            Grant::Read => body.read = Some(ReadBody::of(self).ok_or_else(cannot_read)?),
            Grant::Write(config) => body.write = Some(WriteBody::of(self, config).ok_or_else(cannot_write)?),
        }
        Ok(body)
    }
}

/// The same in a key object. One of the three is there.
#[derive(Serialize, Deserialize)]
pub struct Body {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    master: Option<Zeroizing<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    write: Option<WriteBody>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    read: Option<ReadBody>,
}

impl Body {
    /// Whether it holds nothing that this program knows of.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.master.is_none() && self.write.is_none() && self.read.is_none()
    }

    /// What it opens. None if it is malformed, or not what is written in plain that it is.
    #[must_use]
    pub fn rights(&self, sort: Sort) -> Option<Rights> {
        match (sort, &self.master, &self.write, &self.read) {
            (Sort::Full, Some(master), None, None) => Rights::all(secret(master)?).ok(),
            (Sort::WriteOnly, None, Some(write), None) => write.rights(),
            (Sort::ReadOnly, None, None, Some(read)) => read.rights(),
            _ => None,
        }
    }
}

/// What sort of key an object says in plain that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// It opens everything.
    Full,
    /// It is for a host that backs up.
    WriteOnly,
    /// It is for somebody who looks and restores.
    ReadOnly,
}

#[derive(Serialize, Deserialize)]
struct WriteBody {
    public: String,
    chunk_id: Zeroizing<String>,
    chunker: Zeroizing<String>,
    index: Zeroizing<String>,
    session: Zeroizing<String>,
    component: Zeroizing<String>,
    sign: Zeroizing<String>,
    config: Config,
}

impl WriteBody {
    fn of(rights: &Rights, config: &Config) -> Option<Self> {
        let write = rights.write()?;
        Some(Self {
            public: to_hex(&write.deposit),
            chunk_id: hex(&rights.chunk_id),
            chunker: hex(&rights.chunker),
            index: hex(&rights.index),
            session: hex(&write.session),
            component: hex(&write.component),
            sign: hex(&write.signature),
            config: config.clone(),
        })
    }

    fn rights(&self) -> Option<Rights> {
        let signature = secret(&self.sign)?;
        Some(Rights {
            public: SigningKey::from_seed(&signature).ok()?.public(),
            chunk_id: secret(&self.chunk_id)?,
            chunker: secret(&self.chunker)?,
            index: secret(&self.index)?,
            access: Access::Write(
                WriteKeys {
                    deposit: from_hex(&self.public).ok()?,
                    session: secret(&self.session)?,
                    component: secret(&self.component)?,
                    signature,
                },
                self.config.clone().checked()?,
            ),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct ReadBody {
    verify: String,
    chunk_id: Zeroizing<String>,
    chunker: Zeroizing<String>,
    index: Zeroizing<String>,
    content: Zeroizing<String>,
    tree: Zeroizing<String>,
    record: Zeroizing<String>,
    deposit: Zeroizing<String>,
}

impl ReadBody {
    fn of(rights: &Rights) -> Option<Self> {
        let read = rights.read()?;
        Some(Self {
            verify: to_hex(&rights.public),
            chunk_id: hex(&rights.chunk_id),
            chunker: hex(&rights.chunker),
            index: hex(&rights.index),
            content: hex(&read.content),
            tree: hex(&read.tree),
            record: hex(&read.record),
            deposit: hex(&read.deposit),
        })
    }

    fn rights(&self) -> Option<Rights> {
        Some(Rights {
            public: from_hex(&self.verify).ok()?,
            chunk_id: secret(&self.chunk_id)?,
            chunker: secret(&self.chunker)?,
            index: secret(&self.index)?,
            access: Access::Read(ReadKeys {
                content: secret(&self.content)?,
                tree: secret(&self.tree)?,
                record: secret(&self.record)?,
                deposit: secret(&self.deposit)?,
            }),
        })
    }
}

fn hex(secret: &Secret) -> Zeroizing<String> {
    Zeroizing::new(to_hex(secret.as_bytes()))
}

fn secret(text: &str) -> Option<Secret> {
    from_hex(text).ok().map(Secret::from_bytes)
}

/// The public key of a repository and, for those who can read, the private one.
pub struct Deposits {
    public: [u8; KEY_LEN],
    private: Option<Secret>,
}

impl Deposits {
    /// With the private one.
    ///
    /// # Errors
    /// When the library refuses it; none is known for which it does.
    pub fn new(private: Secret) -> Result<Self, CryptoError> {
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

/// The key in use can't do that either.
#[must_use]
pub fn cannot_write() -> Error {
    Error::new(ErrorKind::WrongKey, "The key in use can read, and nothing else")
        .hint("Use a full key: a read-only key is for whoever looks, checks or restores, not for whoever changes the repository")
}
