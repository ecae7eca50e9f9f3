//! Key objects (format-spec 10): the master key, wrapped once for each passphrase, key file or recipient. Adding, removing and
//! changing one rewrites no data.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::envelope::{self, Header, ObjectType, no_random};
use super::heal::{self, Verdict};
use super::rights::{self, Rights, WriteBody, WriteKeys};
use crate::codec::{Decoded, Reader, Writer};
use crate::crypto::{self, KEY_LEN, PassphraseCost, Secret};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{KeyId, RepositoryId, from_hex, to_hex};
use crate::storage::{ObjectKey, ObjectKind, Storage};

/// Plain part behind the header: repository, derivation, its cost. The salt of the derivation is the header's.
pub const EXTRA_LEN: usize = RepositoryId::LEN + 1 + 3 * 4;

const DERIVE_PASSPHRASE: u8 = 1;
const DERIVE_KEY_FILE: u8 = 2;
const DERIVE_RECIPIENT: u8 = 3;
/// Added to one of these: what it opens is enough to back up, and no more.
const DERIVE_WRITE_ONLY: u8 = 16;
const KEY_FILE_MAGIC: &str = "compline-key-1:";
const IDENTITY_MAGIC: &str = "compline-identity-1:";
const RECIPIENT_MAGIC: &str = "compline-recipient-1:";
/// What the wrapping key of a recipient is for.
const RECIPIENT_CONTEXT: &str = "compline v1 recipient";

/// The public key of somebody who may open a repository. Who wraps a key for it needs no secret of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipient([u8; KEY_LEN]);

impl std::str::FromStr for Recipient {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bytes = text.trim().strip_prefix(RECIPIENT_MAGIC).and_then(|hex| from_hex(hex).ok());
        bytes.map(Self).ok_or_else(|| {
            Error::new(ErrorKind::Usage, "That is no recipient")
                .hint("It begins with compline-recipient-1: and stands in the identity file; `compline key generate` makes one")
        })
    }
}

impl std::fmt::Display for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{RECIPIENT_MAGIC}{}", to_hex(&self.0))
    }
}

/// What opens a repository.
#[derive(Clone)]
pub enum Unlock {
    /// A passphrase.
    Passphrase(Zeroizing<String>),
    /// The bytes of a key file.
    KeyFile(Secret),
    /// The private key of a recipient.
    Identity(Secret),
    /// Opens nothing here: a key for somebody else.
    Recipient(Recipient),
}

impl Unlock {
    /// Reads the text of a key file or an identity file. Lines that begin with `#` are for people.
    ///
    /// # Errors
    /// When it isn't one.
    pub fn from_key_file(text: &str) -> Result<Self> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let line = lines.next().filter(|_| lines.next().is_none()).unwrap_or_default();
        let secret = |magic: &str| Some(Secret::from_bytes(from_hex(line.strip_prefix(magic)?).ok()?));
        let unlock = secret(KEY_FILE_MAGIC).map(Self::KeyFile);
        unlock.or_else(|| secret(IDENTITY_MAGIC).map(Self::Identity)).ok_or_else(|| {
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

    /// A new identity: its text, for a file, and who wraps keys for it.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new_identity() -> Result<(Zeroizing<String>, Recipient)> {
        let secret = Secret::random().map_err(no_random)?;
        let recipient = Recipient(crypto::public_key(&secret).map_err(no_random)?);
        let text = format!("# {recipient}\n{IDENTITY_MAGIC}{}\n", to_hex(secret.as_bytes()));
        Ok((Zeroizing::new(text), recipient))
    }

    /// The text of a key file or an identity file, for a sheet of paper; none of what has no file.
    #[must_use]
    pub fn to_text(&self) -> Option<Zeroizing<String>> {
        let (magic, secret) = match self {
            Self::KeyFile(secret) => (KEY_FILE_MAGIC, secret),
            Self::Identity(secret) => (IDENTITY_MAGIC, secret),
            Self::Passphrase(_) | Self::Recipient(_) => return None,
        };
        Some(Zeroizing::new(format!("{magic}{}", to_hex(secret.as_bytes()))))
    }

    fn derivation(&self) -> u8 {
        match self {
            Self::Passphrase(_) => DERIVE_PASSPHRASE,
            Self::KeyFile(_) => DERIVE_KEY_FILE,
            Self::Identity(_) | Self::Recipient(_) => DERIVE_RECIPIENT,
        }
    }

    /// The key that opens an object with this salt; none for a recipient, whose private key is elsewhere.
    fn wrapping_key(&self, salt: &[u8; KEY_LEN], extra: &Extra) -> Result<Option<Secret>, crypto::CryptoError> {
        match self {
            Self::Passphrase(text) => crypto::passphrase_key(text.as_bytes(), salt, extra.cost).map(Some),
            Self::KeyFile(secret) => Ok(Some(crypto::key_file_key(secret, salt))),
            // The salt is the public key that was drawn for this object.
            Self::Identity(secret) => {
                let own = crypto::public_key(secret)?;
                // A salt that is no public key is none that was drawn for us.
                Ok(crypto::shared_key(RECIPIENT_CONTEXT, secret, salt, &own).ok())
            }
            Self::Recipient(_) => Ok(None),
        }
    }

    /// A new salt, and the key that it makes.
    fn new_wrapping_key(&self, extra: &Extra) -> Result<([u8; KEY_LEN], Secret)> {
        let failed = |cause| Error::new(ErrorKind::Environment, "The key can't be wrapped").cause(cause);
        let recipient = match self {
            Self::Recipient(Recipient(public)) => *public,
            Self::Identity(secret) => crypto::public_key(secret).map_err(failed)?,
            _ => {
                let salt = crypto::random().map_err(no_random)?;
                let key = self.wrapping_key(&salt, extra).map_err(|cause| {
                    Error::new(ErrorKind::Environment, "The passphrase can't be turned into a key").cause(cause)
                })?;
                return Ok((salt, key.expect("passphrases and key files make one")));
            }
        };
        let drawn = Secret::random().map_err(no_random)?;
        let salt = crypto::public_key(&drawn).map_err(failed)?;
        let key = crypto::shared_key(RECIPIENT_CONTEXT, &drawn, &salt, &recipient)
            .map_err(|cause| Error::new(ErrorKind::Usage, "That recipient is no public key").cause(cause))?;
        Ok((salt, key))
    }
}

/// The plain part of a key object: which repository it is of, and how its wrapping key is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extra {
    /// The repository that the key is of; a key that strayed in from another one is passed over.
    pub repository: RepositoryId,
    /// 1 passphrase, 2 key file, 3 recipient; others are of later versions.
    pub derivation: u8,
    /// Cost of a passphrase; all zero for the others.
    pub cost: PassphraseCost,
}

impl Extra {
    /// The bytes behind the header.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let PassphraseCost { memory_kib, passes, lanes } = self.cost;
        let mut w = Writer::new();
        w.bytes(self.repository.as_bytes()).u8(self.derivation).u32(memory_kib).u32(passes).u32(lanes);
        w.into_bytes()
    }

    /// Reads them. What the cost of an unknown derivation means is not asked.
    ///
    /// # Errors
    /// When the length differs, or the cost is none that the format allows.
    pub fn decode(bytes: &[u8]) -> Decoded<Self> {
        let mut r = Reader::new(bytes);
        let repository = RepositoryId::from_bytes(r.array()?);
        let derivation = r.u8()?;
        let cost = PassphraseCost { memory_kib: r.u32()?, passes: r.u32()?, lanes: r.u32()? };
        let is_bad = match derivation & !DERIVE_WRITE_ONLY {
            DERIVE_PASSPHRASE => !cost.is_allowed(),
            DERIVE_KEY_FILE | DERIVE_RECIPIENT => cost != PassphraseCost::NONE,
            _ => false,
        };
        if is_bad {
            return Err(r.error("bad key derivation cost"));
        }
        r.end()?;
        Ok(Self { repository, derivation, cost })
    }

    fn is_write_only(&self) -> bool {
        self.derivation & DERIVE_WRITE_ONLY != 0
    }

    fn kind_name(&self) -> &'static str {
        const WRITE_PASSPHRASE: u8 = DERIVE_PASSPHRASE | DERIVE_WRITE_ONLY;
        const WRITE_KEY_FILE: u8 = DERIVE_KEY_FILE | DERIVE_WRITE_ONLY;
        const WRITE_RECIPIENT: u8 = DERIVE_RECIPIENT | DERIVE_WRITE_ONLY;
        match self.derivation {
            DERIVE_PASSPHRASE => "passphrase",
            DERIVE_KEY_FILE => "key-file",
            DERIVE_RECIPIENT => "recipient",
            WRITE_PASSPHRASE => "passphrase, write-only",
            WRITE_KEY_FILE => "key-file, write-only",
            WRITE_RECIPIENT => "recipient, write-only",
            _ => "of a newer compline",
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Body {
    /// Absent in keys that open less than everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    master: Option<Zeroizing<String>>,
    /// What a write-only key opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    write: Option<WriteBody>,
    label: String,
    created_at: Timestamp,
}

/// What a listing tells of a key. Label and time are known only of the key that opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyInfo {
    /// Its name.
    pub id: KeyId,
    /// `passphrase`, `key-file` or `recipient`.
    pub kind: &'static str,
    /// What the operator called it.
    pub label: Option<String>,
    /// When it was added.
    pub created_at: Option<Timestamp>,
    /// Whether it is the one that opened the repository now.
    pub current: bool,
}

/// A key that opened, with everything or less.
pub struct OpenedAny {
    /// What it opens.
    pub rights: Rights,
    /// Which key object it was.
    pub info: KeyInfo,
    /// Whether it had to be healed.
    pub verdict: Verdict,
}

/// A key that opened everything.
pub struct Opened {
    /// The master key.
    pub master: Secret,
    /// Which key object it was.
    pub info: KeyInfo,
    /// Whether it had to be healed.
    pub verdict: Verdict,
}

fn stored(id: &KeyId, is_newer: bool) -> Error {
    Error::stored(format!("Key {id}"), is_newer)
}

/// Wraps `master` for `unlock` and publishes it as a new key object, after it was opened again.
///
/// # Errors
/// From the storage, or when the passphrase is empty.
pub fn add(
    storage: &dyn Storage,
    repository: RepositoryId,
    master: &Secret,
    unlock: &Unlock,
    label: &str,
    now: Timestamp,
) -> Result<KeyId> {
    refuse_empty(unlock)?;
    let extra = Extra { repository, derivation: unlock.derivation(), cost: cost_of(unlock) };
    let (salt, wrapping) = unlock.new_wrapping_key(&extra)?;
    let object = seal_with(&extra, salt, &wrapping, &body_of(master, label, now))?;
    let is_same = |rights: &Rights| matches!(rights, Rights::All(back) if back.as_bytes() == master.as_bytes());
    publish(storage, &object, &wrapping, is_same)
}

/// The same for a host that is to back up and not to read.
///
/// # Errors
/// As [`add`].
pub fn add_write_only(
    storage: &dyn Storage,
    repository: RepositoryId,
    keys: &WriteKeys,
    unlock: &Unlock,
    label: &str,
    now: Timestamp,
) -> Result<KeyId> {
    refuse_empty(unlock)?;
    let derivation = unlock.derivation() | DERIVE_WRITE_ONLY;
    let extra = Extra { repository, derivation, cost: cost_of(unlock) };
    let (salt, wrapping) = unlock.new_wrapping_key(&extra)?;
    let body = Body { master: None, write: Some(keys.to_body()), label: label.to_owned(), created_at: now };
    let object = seal_with(&extra, salt, &wrapping, &body)?;
    let is_same = |rights: &Rights| matches!(rights, Rights::Write(back) if back.public == keys.public);
    publish(storage, &object, &wrapping, is_same)
}

fn refuse_empty(unlock: &Unlock) -> Result<()> {
    if matches!(unlock, Unlock::Passphrase(text) if text.is_empty()) {
        return Err(Error::new(ErrorKind::Usage, "The passphrase is empty").hint("Choose one of several words"));
    }
    Ok(())
}

fn cost_of(unlock: &Unlock) -> PassphraseCost {
    match unlock {
        Unlock::Passphrase(_) => PassphraseCost::DEFAULT,
        _ => PassphraseCost::NONE,
    }
}

fn publish(
    storage: &dyn Storage,
    object: &[u8],
    wrapping: &Secret,
    is_same: impl Fn(&Rights) -> bool,
) -> Result<KeyId> {
    match open_with(object, wrapping) {
        Ok(Some((_, back))) if is_same(&back) => {}
        _ => {
            return Err(Error::new(ErrorKind::Bug, "The new key does not open again: it was not published")
                .hint("Try again; if it happens again, test the memory of this machine"));
        }
    }
    let id = id_of(object);
    storage.put_new(&ObjectKey::Key(id), object)?;
    Ok(id)
}

/// A whole key object.
///
/// # Errors
/// When the passphrase can't be turned into a key.
pub fn seal(
    extra: &Extra,
    salt: [u8; KEY_LEN],
    unlock: &Unlock,
    master: &Secret,
    label: &str,
    created_at: Timestamp,
) -> Result<Vec<u8>> {
    let wrapping = unlock.wrapping_key(&salt, extra).map_err(|cause| {
        Error::new(ErrorKind::Environment, "The passphrase can't be turned into a key").cause(cause)
    })?;
    let wrapping = wrapping.ok_or_else(|| Error::new(ErrorKind::Bug, "A recipient has no key of its own here"))?;
    seal_with(extra, salt, &wrapping, &body_of(master, label, created_at))
}

fn body_of(master: &Secret, label: &str, created_at: Timestamp) -> Body {
    let master = Some(Zeroizing::new(to_hex(master.as_bytes())));
    Body { master, write: None, label: label.to_owned(), created_at }
}

fn seal_with(extra: &Extra, salt: [u8; KEY_LEN], wrapping: &Secret, body: &Body) -> Result<Vec<u8>> {
    let json = Zeroizing::new(serde_json::to_vec(body).expect("plain fields always serialize"));
    envelope::seal_record_salted(ObjectType::Key, salt, wrapping, &extra.encode(), &json)
}

fn id_of(object: &[u8]) -> KeyId {
    let [id @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *blake3::hash(object).as_bytes();
    KeyId::from_bytes(id)
}

/// Finds the key object of `repository` that `unlock` opens, which must open everything.
///
/// # Errors
/// As [`open_any`], and `WrongKey` if it opens less.
pub fn open(storage: &dyn Storage, repository: RepositoryId, unlock: &Unlock) -> Result<Opened> {
    let OpenedAny { rights, info, verdict } = open_any(storage, repository, unlock)?;
    match rights {
        Rights::All(master) => Ok(Opened { master, info, verdict }),
        Rights::Write(_) => Err(rights::cannot_read()),
    }
}

/// Finds the key object of `repository` that `unlock` opens.
///
/// # Errors
/// `WrongKey` if none does, the storage's failure if one that might could not be read.
pub fn open_any(storage: &dyn Storage, repository: RepositoryId, unlock: &Unlock) -> Result<OpenedAny> {
    let (mut bad, mut unread) = (Vec::new(), None);
    let ids = ids(storage)?;
    for id in &ids {
        match try_open(storage, *id, repository, unlock) {
            Ok(Some(opened)) => return Ok(opened),
            Ok(None) => {}
            // Whether it would have opened nobody can say: that is no wrong key.
            Err(error) if error.kind() == ErrorKind::Storage => unread = Some(error),
            Err(error) => bad.push(error),
        }
    }
    if let Some(error) = unread {
        return Err(error);
    }
    let all_bad = !bad.is_empty() && bad.len() == ids.len();
    match bad.pop() {
        Some(error) if all_bad => Err(error.context("No key of the repository can be read")),
        cause => {
            let error = Error::new(ErrorKind::WrongKey, format!("No key of the repository opens with this; it has {}", ids.len()))
                .hint("Check the passphrase or key file; --password-file, --password-command, --key-file and COMPLINE_* say where it comes from");
            Err(match cause {
                Some(cause) => error.cause(cause),
                None => error,
            })
        }
    }
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

/// The key object as it was published, healed if it has to be: its name is the beginning of its hash.
fn read(storage: &dyn Storage, id: KeyId) -> Result<(Vec<u8>, Verdict)> {
    match heal::read_record(storage, &ObjectKey::Key(id))? {
        (_, Verdict::Lost(why)) => Err(stored(&id, false).cause(why)),
        read => Ok(read),
    }
}

fn read_extra(object: &[u8]) -> Decoded<Extra> {
    envelope::record_extra(ObjectType::Key, object).and_then(Extra::decode)
}

fn try_open(storage: &dyn Storage, id: KeyId, repository: RepositoryId, unlock: &Unlock) -> Result<Option<OpenedAny>> {
    let (object, verdict) = read(storage, id)?;
    let extra = read_extra(&object).map_err(|cause| stored(&id, cause.is_newer()).cause(cause))?;
    let opened = open_object(&object, repository, unlock).map_err(|error| error.context(format!("Key {id}")))?;
    Ok(opened.map(|(body, rights)| {
        let kind = extra.kind_name();
        let info = KeyInfo { id, kind, label: Some(body.label), created_at: Some(body.created_at), current: true };
        OpenedAny { rights, info, verdict }
    }))
}

/// Body and what it opens, if the object is of this repository and opens with `unlock`.
fn open_object(object: &[u8], repository: RepositoryId, unlock: &Unlock) -> Result<Option<(Body, Rights)>> {
    let damaged = || Error::damaged("What it holds is no master key");
    let mut r = Reader::new(object);
    let header = Header::decode(ObjectType::Key, &mut r).map_err(|cause| damaged().cause(cause))?;
    let extra = read_extra(object).map_err(|cause| damaged().cause(cause))?;
    if extra.repository != repository || extra.derivation & !DERIVE_WRITE_ONLY != unlock.derivation() {
        return Ok(None);
    }
    let wrapping = unlock.wrapping_key(&header.salt, &extra).map_err(|cause| damaged().cause(cause))?;
    wrapping.map_or(Ok(None), |wrapping| open_with(object, &wrapping))
}

fn open_with(object: &[u8], wrapping: &Secret) -> Result<Option<(Body, Rights)>> {
    let damaged = || Error::damaged("What it holds is no master key");
    let Ok(json) = envelope::open_record(ObjectType::Key, wrapping, object).map(Zeroizing::new) else {
        return Ok(None);
    };
    let body: Body = serde_json::from_slice(&json).map_err(|cause| damaged().cause(cause))?;
    if let Some(write) = &body.write {
        let keys = WriteKeys::from_body(write).ok_or_else(damaged)?;
        return Ok(Some((body, Rights::Write(Box::new(keys)))));
    }
    let Some(master) = &body.master else {
        return Err(Error::new(ErrorKind::UnsupportedFormat, "It opens a part of the repository only")
            .hint("A newer compline made this key and can use it"));
    };
    let master = Secret::from_bytes(from_hex(master).map_err(|cause| damaged().cause(cause))?);
    Ok(Some((body, Rights::All(master))))
}

/// All keys of `repository`; `current` is known in full.
///
/// # Errors
/// From the storage, and for damaged key objects.
pub fn list(storage: &dyn Storage, repository: RepositoryId, current: &KeyInfo) -> Result<Vec<KeyInfo>> {
    let mut keys = Vec::new();
    for id in ids(storage)? {
        if id == current.id {
            keys.push(current.clone());
            continue;
        }
        let extra = read_extra(&read(storage, id)?.0).map_err(|cause| stored(&id, cause.is_newer()).cause(cause))?;
        if extra.repository == repository {
            keys.push(KeyInfo { id, kind: extra.kind_name(), label: None, created_at: None, current: false });
        }
    }
    Ok(keys)
}

/// Removes a key, damaged ones too; never the last one that may open the repository.
///
/// # Errors
/// `Usage` for the last key, `NotFound` for one that isn't there.
pub fn remove(storage: &dyn Storage, repository: RepositoryId, id: KeyId) -> Result<()> {
    let ids = ids(storage)?;
    if !ids.contains(&id) {
        return Err(
            Error::new(ErrorKind::NotFound, format!("There is no key {id}")).hint("`compline key list` shows them")
        );
    }
    let mut is_last = true;
    for other in ids.iter().filter(|other| **other != id) {
        match read(storage, *other) {
            // One that can't read doesn't keep the repository readable.
            Ok((object, _)) => {
                let reads = |extra: Extra| extra.repository == repository && !extra.is_write_only();
                is_last &= !read_extra(&object).is_ok_and(reads);
            }
            Err(error) if error.kind() == ErrorKind::Storage => return Err(error),
            Err(_) => {}
        }
    }
    if is_last {
        return Err(Error::new(ErrorKind::Usage, "This is the last key; without it nobody could read the repository")
            .hint("Add another one first: `compline key add`"));
    }
    Ok(storage.delete(&ObjectKey::Key(id))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn file_key(byte: u8) -> Unlock {
        Unlock::KeyFile(Secret::from_bytes([byte; 32]))
    }

    fn repository(byte: u8) -> RepositoryId {
        RepositoryId::from_bytes([byte; 16])
    }

    fn add_to(storage: &MemoryStorage, of: u8, master: u8) -> KeyId {
        add(storage, repository(of), &Secret::from_bytes([master; 32]), &file_key(9), "", NOW).unwrap()
    }

    #[test]
    fn a_key_that_a_dead_create_left_behind_is_passed_over() {
        let storage = MemoryStorage::new();
        for dead in 100..108 {
            add_to(&storage, dead, dead);
        }
        add_to(&storage, 1, 42);
        let opened = open(&storage, repository(1), &file_key(9)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(opened.master.as_bytes(), &[42; 32]);
        assert_eq!(list(&storage, repository(1), &opened.info).unwrap(), std::slice::from_ref(&opened.info));
        let error = remove(&storage, repository(1), opened.info.id).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "strays do not count as keys");
    }

    #[test]
    fn a_damaged_key_is_told_from_a_wrong_one() {
        let storage = MemoryStorage::new();
        let id = add_to(&storage, 1, 42);
        assert_eq!(open(&storage, repository(1), &file_key(8)).err().unwrap().kind(), ErrorKind::WrongKey);
        let mut object = storage.get(&ObjectKey::Key(id)).unwrap().to_vec();
        object[100] ^= 1;
        storage.overwrite(&ObjectKey::Key(id), &object);
        let opened = open(&storage, repository(1), &file_key(9)).unwrap_or_else(|error| panic!("{error}"));
        assert!(matches!(opened.verdict, Verdict::Healed(_)));
        object.iter_mut().step_by(50).for_each(|byte| *byte ^= 1);
        storage.overwrite(&ObjectKey::Key(id), &object);
        assert_eq!(open(&storage, repository(1), &file_key(9)).err().unwrap().kind(), ErrorKind::Damaged);
    }

    #[test]
    fn a_key_of_a_later_kind_does_not_hide_the_others() {
        let storage = MemoryStorage::new();
        let extra = Extra { repository: repository(1), derivation: 9, cost: PassphraseCost::NONE };
        let later = seal(&extra, [5; 32], &file_key(9), &Secret::from_bytes([1; 32]), "", NOW).unwrap();
        storage.put_new(&ObjectKey::Key(id_of(&later)), &later).unwrap();
        add_to(&storage, 1, 42);
        let opened = open(&storage, repository(1), &file_key(9)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(list(&storage, repository(1), &opened.info).unwrap().len(), 2);
    }
}
