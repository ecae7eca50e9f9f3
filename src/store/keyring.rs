//! Key objects (format-spec 10): the master key, wrapped once for each passphrase, key file or recipient. Adding, removing and
//! changing one rewrites no data.

use jiff::Timestamp;
use serde::Serialize;
use zeroize::Zeroizing;

use super::card::{Card, CardReader};
use super::config::ConfigHead;
use super::envelope::{self, Header, ObjectType, no_random};
use super::heal::{self, Verdict};
use super::rights::{Body, Grant, Rights, Sort};
use super::signature::Signer;
use crate::codec::{Decoded, Reader, Writer};
use crate::crypto::{self, KEY_LEN, PassphraseCost, Purpose, Secret};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{KeyId, RepositoryId, from_hex, to_hex};
use crate::storage::{ObjectKey, ObjectKind, Storage, StorageErrorKind};

/// Plain part behind the header: repository, derivation, its cost. The salt of the derivation is the header's.
pub const EXTRA_LEN: usize = RepositoryId::LEN + 1 + 3 * 4;

const DERIVE_PASSPHRASE: u8 = 1;
const DERIVE_KEY_FILE: u8 = 2;
const DERIVE_RECIPIENT: u8 = 3;
/// Added to one of these: what it opens is enough to back up, and no more.
const DERIVE_WRITE_ONLY: u8 = 16;
/// Added to one of these: what it opens is enough to read, and no more.
const DERIVE_READ_ONLY: u8 = 32;
const KEY_FILE_MAGIC: &str = "compline-key-1:";
const IDENTITY_MAGIC: &str = "compline-identity-1:";
const RECIPIENT_MAGIC: &str = "compline-recipient-1:";
const KIND_DAMAGED: &str = "damaged";
const KIND_NEWER: &str = "of a newer compline";
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
    /// 1 passphrase, 2 key file, 3 recipient; 16 more if it only writes, 32 more if it only reads; others are of later versions.
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
        let is_bad = match split(derivation) {
            Some((DERIVE_PASSPHRASE, _)) => !cost.is_allowed(),
            Some(_) => cost != PassphraseCost::NONE,
            None => false,
        };
        if is_bad {
            return Err(r.error("bad key derivation cost"));
        }
        r.end()?;
        Ok(Self { repository, derivation, cost })
    }

    fn sort(&self) -> Option<Sort> {
        split(self.derivation).map(|(_, sort)| sort)
    }

    fn kind_name(&self) -> &'static str {
        match split(self.derivation) {
            Some((DERIVE_PASSPHRASE, Sort::Full)) => "passphrase",
            Some((DERIVE_KEY_FILE, Sort::Full)) => "key-file",
            Some((_, Sort::Full)) => "recipient",
            Some((DERIVE_PASSPHRASE, Sort::WriteOnly)) => "passphrase, write-only",
            Some((DERIVE_KEY_FILE, Sort::WriteOnly)) => "key-file, write-only",
            Some((_, Sort::WriteOnly)) => "recipient, write-only",
            Some((DERIVE_PASSPHRASE, Sort::ReadOnly)) => "passphrase, read-only",
            Some((DERIVE_KEY_FILE, Sort::ReadOnly)) => "key-file, read-only",
            Some((_, Sort::ReadOnly)) => "recipient, read-only",
            None => KIND_NEWER,
        }
    }
}

/// How the wrapping key is made, and of what sort the key is. None for derivations of later versions.
fn split(derivation: u8) -> Option<(u8, Sort)> {
    let sorts = [(Sort::Full, 0), (Sort::WriteOnly, DERIVE_WRITE_ONLY), (Sort::ReadOnly, DERIVE_READ_ONLY)];
    sorts.into_iter().find_map(|(sort, more)| {
        let made = derivation.checked_sub(more)?;
        (DERIVE_PASSPHRASE..=DERIVE_RECIPIENT).contains(&made).then_some((made, sort))
    })
}

/// What a listing tells of a key. Label and time are told to who can read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyInfo {
    /// Its name.
    pub id: KeyId,
    /// `passphrase`, `key-file` or `recipient`, and what it is restricted to; `damaged`, or `of a newer compline`.
    pub kind: &'static str,
    /// What the operator called it.
    pub label: Option<String>,
    /// When it was added.
    pub created_at: Option<Timestamp>,
    /// Whether it is the one that opened the repository now.
    pub current: bool,
    /// What is wrong with it, if that can't be healed.
    pub problem: Option<String>,
}

impl KeyInfo {
    /// A key with its card, if that could be read.
    fn new(id: KeyId, kind: &'static str, card: Option<Card>) -> Self {
        let (label, created_at) = card.map(|card| (card.label, card.created_at)).unzip();
        Self { id, kind, label, created_at, current: false, problem: None }
    }

    /// A key of `extra` that opened nothing now. What has no card nobody made who may.
    fn other(id: KeyId, object: &[u8], extra: &Extra, cards: Option<&CardReader>) -> Self {
        let card = cards.and_then(|cards| cards.read(object));
        let is_forged = cards.is_some() && card.is_none() && extra.sort().is_some();
        let problem = is_forged.then(|| format!("Key {id} was not made by anybody who may change keys"));
        Self { problem, ..Self::new(id, extra.kind_name(), card) }
    }

    /// A key whose object can't be read.
    fn unreadable(id: KeyId, error: &Error) -> Self {
        let is_newer = error.kind() == ErrorKind::UnsupportedFormat;
        let kind = if is_newer { KIND_NEWER } else { KIND_DAMAGED };
        Self { problem: Some(error.chain()), ..Self::new(id, kind, None) }
    }
}

/// A key that opened.
pub struct Opened {
    /// What it opens.
    pub rights: Rights,
    /// Which key object it was.
    pub info: KeyInfo,
    /// Whether it had to be healed.
    pub verdict: Verdict,
}

fn stored(id: &KeyId, is_newer: bool) -> Error {
    Error::stored(format!("Key {id}"), is_newer)
}

/// Wraps what is granted of `master` for `unlock` and publishes it as a new key object, after it was opened again.
///
/// # Errors
/// From the storage, or when the passphrase is empty.
pub fn add(
    storage: &dyn Storage,
    repository: RepositoryId,
    (master, grant): (&Secret, Grant<'_>),
    unlock: &Unlock,
    card: &Card,
) -> Result<KeyId> {
    refuse_empty(unlock)?;
    let extra = Extra { repository, derivation: unlock.derivation() + more_of(grant), cost: cost_of(unlock) };
    let (salt, wrapping) = unlock.new_wrapping_key(&extra)?;
    let rights = rights_of(master)?;
    let json = body_of(&rights, grant)?;
    let object = seal_with(&extra, (salt, &wrapping), (master, &json), card)?;
    let back = envelope::open_record(ObjectType::Key, &wrapping, None, &object).map(Zeroizing::new);
    let back_card = CardReader::new(repository, &rights).and_then(|cards| cards.read(&object));
    let opens = back.as_ref() == Ok(&json) && matches!(open_with(&object, &wrapping), Ok(Some(_)));
    if !opens || back_card.as_ref() != Some(card) {
        return Err(Error::new(ErrorKind::Bug, "The new key does not open again: it was not published")
            .hint("Try again; if it happens again, test the memory of this machine"));
    }
    let id = id_of(&object);
    storage.put_new(&ObjectKey::Key(id), &object)?;
    Ok(id)
}

fn more_of(grant: Grant<'_>) -> u8 {
    match grant {
        Grant::All => 0,
        Grant::Read => DERIVE_READ_ONLY,
        Grant::Write(_) => DERIVE_WRITE_ONLY,
    }
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

/// A whole key object.
///
/// # Errors
/// When the passphrase can't be turned into a key.
pub fn seal(
    extra: &Extra,
    salt: [u8; KEY_LEN],
    unlock: &Unlock,
    (master, grant): (&Secret, Grant<'_>),
    card: &Card,
) -> Result<Vec<u8>> {
    let wrapping = unlock.wrapping_key(&salt, extra).map_err(|cause| {
        Error::new(ErrorKind::Environment, "The passphrase can't be turned into a key").cause(cause)
    })?;
    let wrapping = wrapping.ok_or_else(|| Error::new(ErrorKind::Bug, "A recipient has no key of its own here"))?;
    seal_with(extra, (salt, &wrapping), (master, &body_of(&rights_of(master)?, grant)?), card)
}

fn seal_with(
    extra: &Extra,
    (salt, wrapping): ([u8; KEY_LEN], &Secret),
    (master, body): (&Secret, &[u8]),
    card: &Card,
) -> Result<Vec<u8>> {
    let signer = Signer::of(extra.repository, master).map_err(not_made)?;
    let records = master.subkey(Purpose::Record);
    envelope::seal_key(salt, wrapping, &extra.encode(), body, |object| card.append_to(object, &records, &signer))
}

fn body_of(rights: &Rights, grant: Grant<'_>) -> Result<Zeroizing<Vec<u8>>> {
    let body = rights.to_body(grant)?;
    Ok(Zeroizing::new(serde_json::to_vec(&body).expect("plain fields always serialize")))
}

fn rights_of(master: &Secret) -> Result<Rights> {
    Rights::all(master.clone()).map_err(not_made)
}

fn not_made(cause: crypto::CryptoError) -> Error {
    Error::new(ErrorKind::Environment, "The keys of the repository can't be made").cause(cause)
}

fn id_of(object: &[u8]) -> KeyId {
    let [id @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *blake3::hash(object).as_bytes();
    KeyId::from_bytes(id)
}

/// Finds the key object that `unlock` opens, of the repository with this config. `first` is the one that opened the last time: as a
/// rule it is there, and none of the others, of which there may be one for each host, has to be looked at.
///
/// # Errors
/// `WrongKey` if none does, the storage's failure if one that might could not be read.
pub fn open(storage: &dyn Storage, head: &ConfigHead, unlock: &Unlock, first: Option<KeyId>) -> Result<Opened> {
    let of_first = first.map(|id| try_open(storage, id, head, unlock));
    let is_first_no_use = matches!(of_first, Some(Ok(None)));
    if let Some(Ok(Some(opened))) = of_first {
        return Ok(opened);
    }
    let (mut bad, mut unread) = (Vec::new(), None);
    let ids = ids(storage)?;
    for id in ids.iter().filter(|id| !is_first_no_use || Some(**id) != first) {
        match try_open(storage, *id, head, unlock) {
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

/// The same, and its plain part.
fn read_with_extra(storage: &dyn Storage, id: KeyId) -> Result<(Vec<u8>, Extra, Verdict)> {
    let (object, verdict) = read(storage, id)?;
    let extra = read_extra(&object).map_err(|cause| stored(&id, cause.is_newer()).cause(cause))?;
    Ok((object, extra, verdict))
}

/// Whether a key is certainly not there any more.
fn is_gone(storage: &dyn Storage, id: KeyId) -> bool {
    storage.len(&ObjectKey::Key(id)).is_err_and(|error| error.kind() == StorageErrorKind::NotFound)
}

fn try_open(storage: &dyn Storage, id: KeyId, head: &ConfigHead, unlock: &Unlock) -> Result<Option<Opened>> {
    let (object, extra, verdict) = read_with_extra(storage, id)?;
    let opened = open_object(&object, head, unlock).map_err(|error| error.context(format!("Key {id}")))?;
    Ok(opened.map(|rights| {
        let cards = CardReader::new(head.repository, &rights);
        let info = KeyInfo { current: true, ..KeyInfo::other(id, &object, &extra, cards.as_ref()) };
        Opened { rights, info, verdict }
    }))
}

/// What it opens, if the object is of this repository and opens with `unlock`.
///
/// Anybody can wrap a key for a recipient, whose public key is no secret. So what it opens must fit the public keys in the config:
/// no forged key makes anybody believe forged signatures, or seal backups to the forger.
fn open_object(object: &[u8], head: &ConfigHead, unlock: &Unlock) -> Result<Option<Rights>> {
    let damaged = || Error::damaged("What it holds is no key");
    let mut r = Reader::new(object);
    let header = Header::decode(ObjectType::Key, &mut r).map_err(|cause| damaged().cause(cause))?;
    let extra = read_extra(object).map_err(|cause| damaged().cause(cause))?;
    let is_made_so = split(extra.derivation).is_some_and(|(made, _)| made == unlock.derivation());
    if extra.repository != head.repository || !is_made_so {
        return Ok(None);
    }
    let wrapping = unlock.wrapping_key(&header.salt, &extra).map_err(|cause| damaged().cause(cause))?;
    let opened = wrapping.map_or(Ok(None), |wrapping| open_with(object, &wrapping))?;
    match opened {
        Some(rights) if !head.fits(&rights) => Err(Error::damaged("It is no key of this repository")),
        opened => Ok(opened),
    }
}

fn open_with(object: &[u8], wrapping: &Secret) -> Result<Option<Rights>> {
    let damaged = || Error::damaged("What it holds is no key");
    let sort = read_extra(object).ok().and_then(|extra| extra.sort()).ok_or_else(damaged)?;
    let Ok(json) = envelope::open_record(ObjectType::Key, wrapping, None, object).map(Zeroizing::new) else {
        return Ok(None);
    };
    let body: Body = serde_json::from_slice(&json).map_err(|cause| damaged().cause(cause))?;
    if body.is_unknown() {
        return Err(Error::new(ErrorKind::UnsupportedFormat, "It opens a part of the repository only")
            .hint("A newer compline made this key and can use it"));
    }
    body.rights(sort).map(Some).ok_or_else(damaged)
}

/// All keys of `repository`, and whether their objects had to be healed; labels if there are `cards`. One that can't be read is
/// listed as such, whichever repository it is of: whoever may only add must not keep anybody from seeing and removing the others.
///
/// # Errors
/// From the storage.
pub fn list(
    storage: &dyn Storage,
    repository: RepositoryId,
    current: KeyId,
    cards: Option<&CardReader>,
) -> Result<Vec<(KeyInfo, Verdict)>> {
    let mut keys = Vec::new();
    for id in ids(storage)? {
        match read_with_extra(storage, id) {
            Ok((_, extra, _)) if extra.repository != repository => {}
            Ok((object, extra, verdict)) => {
                let info = KeyInfo::other(id, &object, &extra, cards);
                keys.push((KeyInfo { current: id == current, ..info }, verdict));
            }
            Err(error) if error.is_of_one_object() => keys.push((KeyInfo::unreadable(id, &error), Verdict::Whole)),
            // Somebody removed it since it was listed.
            Err(_) if is_gone(storage, id) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(keys)
}

/// Removes a key, damaged ones too; never the last one that may open everything.
///
/// # Errors
/// `Usage` for the last key, `NotFound` for one that isn't there.
pub fn remove(storage: &dyn Storage, repository: RepositoryId, id: KeyId, cards: &CardReader) -> Result<()> {
    let ids = ids(storage)?;
    if !ids.contains(&id) {
        return Err(
            Error::new(ErrorKind::NotFound, format!("There is no key {id}")).hint("`compline key list` shows them")
        );
    }
    let mut is_last = true;
    for other in ids.iter().filter(|other| **other != id) {
        match read_with_extra(storage, *other) {
            // With one that opens less nobody could add another, nor with one that only looks like a key.
            Ok((object, extra, _)) => {
                let is_full = extra.repository == repository && extra.sort() == Some(Sort::Full);
                is_last &= !(is_full && cards.read(&object).is_some());
            }
            Err(error) if error.is_of_one_object() || is_gone(storage, *other) => {}
            Err(error) => return Err(error),
        }
    }
    if is_last {
        return Err(Error::new(
            ErrorKind::Usage,
            "This is the last key that opens everything; without it nobody could add another",
        )
        .hint("Add another one first: `compline key add`"));
    }
    Ok(storage.delete(&ObjectKey::Key(id))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;
    use crate::store::config::Config;
    use crate::store::rights::Access;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn file_key(byte: u8) -> Unlock {
        Unlock::KeyFile(Secret::from_bytes([byte; 32]))
    }

    fn repository(byte: u8) -> RepositoryId {
        RepositoryId::from_bytes([byte; 16])
    }

    fn add_to(storage: &MemoryStorage, of: u8, master: u8) -> KeyId {
        let master = Secret::from_bytes([master; 32]);
        add(storage, repository(of), (&master, Grant::All), &file_key(9), &card("")).unwrap()
    }

    fn card(label: &str) -> Card {
        Card { label: label.to_owned(), created_at: NOW }
    }

    fn cards() -> CardReader {
        CardReader::new(repository(1), &Rights::all(Secret::from_bytes([42; 32])).unwrap()).unwrap()
    }

    fn list(storage: &MemoryStorage, opened: &Opened) -> Vec<(KeyInfo, Verdict)> {
        super::list(storage, repository(1), opened.info.id, Some(&cards())).unwrap()
    }

    fn remove(storage: &MemoryStorage, id: KeyId) -> Result<()> {
        super::remove(storage, repository(1), id, &cards())
    }

    fn open_with(storage: &MemoryStorage, unlock: &Unlock) -> Result<Opened> {
        open_after(storage, unlock, None)
    }

    fn open_after(storage: &MemoryStorage, unlock: &Unlock, first: Option<KeyId>) -> Result<Opened> {
        open(storage, &ConfigHead::new(repository(1), &Secret::from_bytes([42; 32])).unwrap(), unlock, first)
    }

    #[test]
    fn whatever_opened_the_last_time_the_key_that_opens_now_is_found() {
        let storage = MemoryStorage::new();
        let other = {
            let master = Secret::from_bytes([42; 32]);
            add(&storage, repository(1), (&master, Grant::All), &file_key(8), &card("")).unwrap()
        };
        let own = add_to(&storage, 1, 42);
        let damaged = KeyId::from_bytes([0xee; 16]);
        storage.put_new(&ObjectKey::Key(damaged), b"x").unwrap();
        let gone = KeyId::from_bytes([0xdd; 16]);
        for first in [None, Some(own), Some(other), Some(damaged), Some(gone)] {
            let opened = open_after(&storage, &file_key(9), first).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(opened.info.id, own, "{first:?}");
            let error = open_after(&storage, &file_key(7), first).map(|opened| opened.info.id).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WrongKey, "{first:?}");
        }
        storage.delete(&ObjectKey::Key(own)).unwrap();
        let error = open_after(&storage, &file_key(9), Some(own)).map(|opened| opened.info.id).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongKey, "it was removed");
    }

    #[test]
    fn a_key_that_a_dead_create_left_behind_is_passed_over() {
        let storage = MemoryStorage::new();
        for dead in 100..108 {
            add_to(&storage, dead, dead);
        }
        add_to(&storage, 1, 42);
        let opened = open_with(&storage, &file_key(9)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(opened.rights.master().unwrap().as_bytes(), &[42; 32]);
        assert_eq!(list(&storage, &opened), [(opened.info.clone(), Verdict::Whole)]);
        let error = remove(&storage, opened.info.id).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "strays do not count as keys");
    }

    #[test]
    fn a_damaged_key_is_told_from_a_wrong_one() {
        let storage = MemoryStorage::new();
        let id = add_to(&storage, 1, 42);
        assert_eq!(open_with(&storage, &file_key(8)).err().unwrap().kind(), ErrorKind::WrongKey);
        let mut object = storage.get(&ObjectKey::Key(id)).unwrap().to_vec();
        object[100] ^= 1;
        storage.overwrite(&ObjectKey::Key(id), &object);
        let opened = open_with(&storage, &file_key(9)).unwrap_or_else(|error| panic!("{error}"));
        assert!(matches!(opened.verdict, Verdict::Healed(_)));
        object.iter_mut().step_by(50).for_each(|byte| *byte ^= 1);
        storage.overwrite(&ObjectKey::Key(id), &object);
        assert_eq!(open_with(&storage, &file_key(9)).err().unwrap().kind(), ErrorKind::Damaged);
    }

    #[test]
    fn a_forged_key_for_a_recipient_is_passed_over() {
        let storage = MemoryStorage::new();
        let (text, recipient) = Unlock::new_identity().unwrap();
        let add_for = |master: u8, grant| {
            add(
                &storage,
                repository(1),
                (&Secret::from_bytes([master; 32]), grant),
                &Unlock::Recipient(recipient),
                &card(""),
            )
        };
        let config = Config::new(NOW);
        for grant in [Grant::All, Grant::Read, Grant::Write(&config)].repeat(3) {
            add_for(66, grant).unwrap();
        }
        let identity = Unlock::from_key_file(&text).unwrap();
        assert_eq!(open_with(&storage, &identity).err().unwrap().kind(), ErrorKind::Damaged);
        // Of a host that signs as it should, and would have others seal to it.
        let mut rights = Rights::all(Secret::from_bytes([42; 32])).unwrap();
        let head = ConfigHead::new(repository(1), &Secret::from_bytes([42; 32])).unwrap();
        assert!(head.fits(&rights));
        if let Access::All { write, .. } = &mut rights.access {
            write.deposit[0] ^= 1;
        }
        assert!(!head.fits(&rights));
        add_for(42, Grant::Read).unwrap();
        let opened = open_with(&storage, &identity).unwrap_or_else(|error| panic!("{error}"));
        assert!(opened.rights.read().is_some() && opened.rights.write().is_none() && opened.rights.master().is_none());
        assert_eq!(opened.info.kind, "recipient, read-only");
    }

    #[test]
    fn a_key_of_a_later_kind_does_not_hide_the_others() {
        let storage = MemoryStorage::new();
        let extra = Extra { repository: repository(1), derivation: 9, cost: PassphraseCost::NONE };
        let master = Secret::from_bytes([1; 32]);
        let later = seal(&extra, [5; 32], &file_key(9), (&master, Grant::All), &card("")).unwrap();
        storage.put_new(&ObjectKey::Key(id_of(&later)), &later).unwrap();
        add_to(&storage, 1, 42);
        let opened = open_with(&storage, &file_key(9)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(list(&storage, &opened).len(), 2);
    }

    /// The key that `file_key(9)` opens, another one, and three that nobody can read: `list` tells which is which.
    #[test]
    fn a_damaged_key_hides_no_other_and_can_be_removed() {
        let storage = MemoryStorage::new();
        let current = add_to(&storage, 1, 42);
        let opened = open_with(&storage, &file_key(9)).unwrap_or_else(|error| panic!("{error}"));
        let other = add_to(&storage, 1, 42);
        let damaged = [b"".as_slice(), b"x", &[0xee; 700]].map(|bytes| {
            let id = KeyId::from_bytes([0xe0 + u8::try_from(bytes.len() % 16).unwrap(); 16]);
            storage.put_new(&ObjectKey::Key(id), bytes).unwrap();
            id
        });
        let mut newer = storage.get(&ObjectKey::Key(other)).unwrap().to_vec();
        newer[9] = envelope::FORMAT_VERSION + 1;
        let newer_id = id_of(&newer);
        storage.put_new(&ObjectKey::Key(newer_id), &newer).unwrap();

        let listed = list(&storage, &opened);
        let kind_of = |id: KeyId| {
            let (key, _) = listed.iter().find(|(key, _)| key.id == id).unwrap();
            (key.kind, key.current, key.problem.is_some())
        };
        assert_eq!(listed.len(), 6);
        assert_eq!((kind_of(current), kind_of(other)), (("key-file", true, false), ("key-file", false, false)));
        assert!(damaged.iter().all(|id| kind_of(*id) == ("damaged", false, true)));
        assert_eq!(kind_of(newer_id), ("of a newer compline", false, true));

        for id in [other].into_iter().chain(damaged) {
            remove(&storage, id).unwrap();
        }
        assert_eq!(list(&storage, &opened).len(), 2);
        // What nobody can read is no other key that opens everything.
        assert_eq!(remove(&storage, current).unwrap_err().kind(), ErrorKind::Usage);
    }

    #[test]
    fn what_only_looks_like_a_key_has_no_label_and_counts_for_none() {
        let storage = MemoryStorage::new();
        let master = Secret::from_bytes([42; 32]);
        let add_as = |label| add(&storage, repository(1), (&master, Grant::All), &file_key(9), &card(label)).unwrap();
        let current = add_as("office");
        let opened = open_with(&storage, &file_key(9)).unwrap_or_else(|error| panic!("{error}"));
        let forged = add_to(&storage, 1, 43);
        let told = |storage: &MemoryStorage, id: KeyId| {
            let (key, _) = list(storage, &opened).into_iter().find(|(key, _)| key.id == id).unwrap();
            (key.label, key.created_at, key.problem.is_some())
        };
        assert_eq!(told(&storage, current), (Some("office".to_owned()), Some(NOW), false));
        assert_eq!(told(&storage, forged), (None, None, true));
        assert_eq!(remove(&storage, current).unwrap_err().kind(), ErrorKind::Usage);
        let other = add_as("night");
        assert_eq!(told(&storage, other), (Some("night".to_owned()), Some(NOW), false));
        // Who can't read has no cards, and takes nothing for forged.
        let unseen = super::list(&storage, repository(1), current, None).unwrap();
        assert!(unseen.iter().all(|(key, _)| key.label.is_none() && key.problem.is_none()));
        remove(&storage, forged).unwrap();
        remove(&storage, current).unwrap();
    }
}
