//! Key objects (format-spec 10): the master key, wrapped once for each passphrase or key file. Adding, removing and
//! changing one rewrites no data.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::envelope::{self, ObjectType, no_random};
use crate::codec::{Decoded, Reader, Writer};
use crate::crypto::{self, KEY_LEN, PassphraseCost, Secret};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{KeyId, from_hex, to_hex};
use crate::storage::{ObjectKey, ObjectKind, Storage};

/// Plain part behind the header: derivation, its cost, its salt.
pub const EXTRA_LEN: usize = 1 + 3 * 4 + KEY_LEN;

const DERIVE_PASSPHRASE: u8 = 1;
const DERIVE_KEY_FILE: u8 = 2;
const KEY_FILE_MAGIC: &str = "compline-key-1:";

/// What opens a repository.
#[derive(Clone)]
pub enum Unlock {
    /// A passphrase.
    Passphrase(Zeroizing<String>),
    /// The bytes of a key file.
    KeyFile(Secret),
}

impl Unlock {
    /// Reads the text of a key file.
    ///
    /// # Errors
    /// When it isn't one.
    pub fn from_key_file(text: &str) -> Result<Self> {
        let bytes = text.trim().strip_prefix(KEY_FILE_MAGIC).and_then(|hex| from_hex::<KEY_LEN>(hex).ok());
        bytes.map(|bytes| Self::KeyFile(Secret::from_bytes(bytes))).ok_or_else(|| {
            Error::new(ErrorKind::WrongKey, "The key file does not hold a compline key")
                .hint("`compline init --key-file FILE` makes one; a passphrase goes into --password-file")
        })
    }

    /// A new key file: the key and its text.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new_key_file() -> Result<(Self, Zeroizing<String>)> {
        let secret = Secret::random().map_err(no_random)?;
        let text = Zeroizing::new(format!("{KEY_FILE_MAGIC}{}\n", to_hex(secret.as_bytes())));
        Ok((Self::KeyFile(secret), text))
    }

    fn derivation(&self) -> u8 {
        match self {
            Self::Passphrase(_) => DERIVE_PASSPHRASE,
            Self::KeyFile(_) => DERIVE_KEY_FILE,
        }
    }

    fn wrapping_key(&self, extra: &Extra) -> Result<Secret, crypto::CryptoError> {
        match self {
            Self::Passphrase(text) => crypto::passphrase_key(text.as_bytes(), &extra.salt, extra.cost),
            Self::KeyFile(secret) => Ok(crypto::key_file_key(secret, &extra.salt)),
        }
    }
}

struct Extra {
    derivation: u8,
    cost: PassphraseCost,
    salt: [u8; KEY_LEN],
}

impl Extra {
    fn encode(&self) -> Vec<u8> {
        let PassphraseCost { memory_kib, passes, lanes } = self.cost;
        let mut w = Writer::new();
        w.u8(self.derivation).u32(memory_kib).u32(passes).u32(lanes).bytes(&self.salt);
        w.into_bytes()
    }

    fn decode(bytes: &[u8]) -> Decoded<Self> {
        let mut r = Reader::new(bytes);
        let derivation = r.u8()?;
        if !matches!(derivation, DERIVE_PASSPHRASE | DERIVE_KEY_FILE) {
            return Err(r.error("unknown key derivation"));
        }
        let cost = PassphraseCost { memory_kib: r.u32()?, passes: r.u32()?, lanes: r.u32()? };
        let extra = Self { derivation, cost, salt: r.array()? };
        r.end()?;
        Ok(extra)
    }
}

#[derive(Serialize, Deserialize)]
struct Body {
    master: Zeroizing<String>,
    label: String,
    created_at: Timestamp,
}

/// What a listing tells of a key. Label and time are known only of the key that opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyInfo {
    /// Its name.
    pub id: KeyId,
    /// `passphrase` or `key-file`.
    pub kind: &'static str,
    /// What the operator called it.
    pub label: Option<String>,
    /// When it was added.
    pub created_at: Option<Timestamp>,
    /// Whether it is the one that opened the repository now.
    pub current: bool,
}

/// A key that opened.
pub struct Opened {
    /// The master key.
    pub master: Secret,
    /// Which key object it was.
    pub info: KeyInfo,
}

fn damaged(id: &KeyId) -> Error {
    Error::damaged(format!("Key {id} is damaged"))
}

fn kind_name(derivation: u8) -> &'static str {
    if derivation == DERIVE_KEY_FILE { "key-file" } else { "passphrase" }
}

/// Wraps `master` for `unlock` and publishes it as a new key object.
///
/// # Errors
/// From the storage, or when the passphrase is empty.
pub fn add(storage: &dyn Storage, master: &Secret, unlock: &Unlock, label: &str, now: Timestamp) -> Result<KeyId> {
    if matches!(unlock, Unlock::Passphrase(text) if text.is_empty()) {
        return Err(Error::new(ErrorKind::Usage, "The passphrase is empty").hint("Choose one of several words"));
    }
    let cost = match unlock {
        Unlock::Passphrase(_) => PassphraseCost::DEFAULT,
        Unlock::KeyFile(_) => PassphraseCost { memory_kib: 0, passes: 0, lanes: 0 },
    };
    let extra = Extra { derivation: unlock.derivation(), cost, salt: crypto::random().map_err(no_random)? };
    let wrapping = unlock.wrapping_key(&extra).map_err(no_random)?;
    let master = Zeroizing::new(to_hex(master.as_bytes()));
    let body = Body { master, label: label.to_owned(), created_at: now };
    let json = Zeroizing::new(serde_json::to_vec(&body).expect("plain fields always serialize"));
    let object = envelope::seal_record(ObjectType::Key, &wrapping, &extra.encode(), &json)?;
    let id = KeyId::from_bytes(crypto::random().map_err(no_random)?);
    storage.put_new(&ObjectKey::Key(id), &object)?;
    Ok(id)
}

/// Finds the key object that `unlock` opens.
///
/// # Errors
/// `WrongKey` if none does.
pub fn open(storage: &dyn Storage, unlock: &Unlock) -> Result<Opened> {
    let mut bad = Vec::new();
    let ids = ids(storage)?;
    for id in &ids {
        match try_open(storage, *id, unlock) {
            Ok(Some(opened)) => return Ok(opened),
            Ok(None) => {}
            Err(error) => bad.push(error),
        }
    }
    let error = Error::new(ErrorKind::WrongKey, format!("None of the {} keys of the repository opens with this", ids.len()))
        .hint("Check the passphrase or key file; --password-file, --password-command, --key-file and COMPLINE_* say where it comes from");
    Err(match bad.pop() {
        Some(cause) => error.cause(cause),
        None => error,
    })
}

fn ids(storage: &dyn Storage) -> Result<Vec<KeyId>> {
    let listed = storage.list(ObjectKind::Key)?;
    Ok(listed
        .into_iter()
        .filter_map(|row| match row.key {
            ObjectKey::Key(id) => Some(id),
            _ => None,
        })
        .collect())
}

fn read_extra(id: &KeyId, object: &[u8]) -> Result<Extra> {
    envelope::record_extra(ObjectType::Key, object).and_then(Extra::decode).map_err(|cause| damaged(id).cause(cause))
}

fn try_open(storage: &dyn Storage, id: KeyId, unlock: &Unlock) -> Result<Option<Opened>> {
    let object = storage.get(&ObjectKey::Key(id))?;
    let extra = read_extra(&id, &object)?;
    if extra.derivation != unlock.derivation() {
        return Ok(None);
    }
    let wrapping = unlock.wrapping_key(&extra).map_err(|cause| damaged(&id).cause(cause))?;
    let Ok(json) = envelope::open_record(ObjectType::Key, &wrapping, &object).map(Zeroizing::new) else {
        return Ok(None);
    };
    let body: Body = serde_json::from_slice(&json).map_err(|cause| damaged(&id).cause(cause))?;
    let master = from_hex(&body.master).map_err(|cause| damaged(&id).cause(cause))?;
    let kind = kind_name(extra.derivation);
    let info = KeyInfo { id, kind, label: Some(body.label), created_at: Some(body.created_at), current: true };
    Ok(Some(Opened { master: Secret::from_bytes(master), info }))
}

/// All keys; `current` is known in full.
///
/// # Errors
/// From the storage, and for damaged key objects.
pub fn list(storage: &dyn Storage, current: &KeyInfo) -> Result<Vec<KeyInfo>> {
    ids(storage)?
        .into_iter()
        .map(|id| {
            if id == current.id {
                return Ok(current.clone());
            }
            let extra = read_extra(&id, &storage.get(&ObjectKey::Key(id))?)?;
            Ok(KeyInfo { id, kind: kind_name(extra.derivation), label: None, created_at: None, current: false })
        })
        .collect()
}

/// Removes a key; never the last one.
///
/// # Errors
/// `Usage` for the last key, `NotFound` for one that isn't there.
pub fn remove(storage: &dyn Storage, id: KeyId) -> Result<()> {
    let ids = ids(storage)?;
    if !ids.contains(&id) {
        return Err(
            Error::new(ErrorKind::NotFound, format!("There is no key {id}")).hint("`compline key list` shows them")
        );
    }
    if ids.len() == 1 {
        return Err(Error::new(ErrorKind::Usage, "This is the last key; without it nobody could read the repository")
            .hint("Add another one first: `compline key add`"));
    }
    Ok(storage.delete(&ObjectKey::Key(id))?)
}
