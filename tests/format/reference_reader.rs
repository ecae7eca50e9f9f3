//! A reader of repositories, written from format-spec/ alone: nothing of compline is used. It opens a local directory
//! with a key file or a passphrase, builds its own map of chunks from the footers of all packs, and restores a snapshot
//! to a map. The numbers of rules (`PACK-3`) are those of the specification.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde_json::Value;

use super::{reference_delta, reference_parity, reference_reflate};

const HEADER_LEN: usize = 44;
/// 256 bytes, a signature, a tag.
const CARD_LEN: usize = 256 + 64 + 16;
const TRAILER_LEN: usize = 20;

type Id = [u8; 32];
pub type Result<T> = std::result::Result<T, String>;

pub enum Key<'a> {
    Passphrase(&'a str),
    /// The text of an identity file.
    Identity(&'a str),
    /// The text of a key file.
    File(&'a str),
}

/// Where a chunk lies.
struct Place {
    pack: PathBuf,
    frame: Frame,
    start: usize,
    len: usize,
}

#[derive(Clone)]
pub struct Frame {
    offset: usize,
    sealed_len: usize,
    pub kind: u8,
    /// As it is in the footer; a part of the associated data.
    extension: Vec<u8>,
    /// 06-delta: how many deltas have to be undone. Zero for all other kinds.
    pub depth: u8,
    bases: Vec<Id>,
    plain_len: usize,
}

type Opened = BTreeMap<(PathBuf, usize), Rc<Vec<u8>>>;

pub struct Repository {
    root: PathBuf,
    keys: Keys,
    id: Vec<u8>,
    /// Whose signatures are believed.
    public: Id,
    chunks: BTreeMap<Id, Place>,
    /// Plain frames by pack and offset: a base is wanted by many deltas.
    opened: RefCell<Opened>,
}

/// What a key object opens: everything, or the subkeys that reading needs.
enum Keys {
    Master(Id),
    Read(Value),
}

impl Keys {
    fn subkey(&self, purpose: &str) -> Result<Id> {
        let read = match self {
            Self::Master(master) => return Ok(blake3::derive_key(&format!("compline v1 {purpose}"), master)),
            Self::Read(read) => read,
        };
        let field = match purpose {
            "chunk id" => "chunk_id",
            "content frames" => "content",
            "tree frames" => "tree",
            "records" => "record",
            "deposits" => "deposit",
            other => other,
        };
        digits(&read[field])
    }

    /// Whose signatures are those of the repository.
    fn public(&self) -> Result<Id> {
        match self {
            Self::Master(_) => {
                let pair = Ed25519KeyPair::from_seed_unchecked(&self.subkey("signatures")?).unwrap();
                Ok(pair.public_key().as_ref().try_into().unwrap())
            }
            Self::Read(read) => digits(&read["verify"]),
        }
    }
}

fn digits(field: &Value) -> Result<Id> {
    hex(field.as_str().ok_or("a key that opens only a part")?)?.try_into().map_err(|_| "no key".to_owned())
}

/// One restored thing. Content is there for regular files only; holes are filled with zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// As `ls -l` shows it.
    pub letter: char,
    pub mode: u64,
    pub uid: u64,
    pub gid: u64,
    pub mtime: (i64, u32),
    pub target: Vec<u8>,
    pub bytes: Vec<u8>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Takes fields off the front (01-terms).
pub struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (found, rest) = self.0.split_at_checked(len).ok_or("truncated")?;
        self.0 = rest;
        Ok(found)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().unwrap()))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().unwrap()))
    }

    fn id(&mut self) -> Result<Id> {
        Ok(self.take(32)?.try_into().unwrap())
    }

    pub fn varint(&mut self) -> Result<u64> {
        let (mut value, mut shift) = (0u128, 0);
        loop {
            let byte = self.byte()?;
            value |= u128::from(byte & 0x7f) << shift;
            shift += 7;
            match byte & 0x80 {
                0 if byte == 0 && shift > 7 => return Err("a number in a longer form than it needs".to_owned()),
                0 => return u64::try_from(value).map_err(|error| error.to_string()),
                _ if shift > 63 => return Err("a number too long".to_owned()),
                _ => {}
            }
        }
    }

    pub fn len(&mut self) -> Result<usize> {
        usize::try_from(self.varint()?).map_err(|error| error.to_string())
    }

    fn counted(&mut self) -> Result<&'a [u8]> {
        let len = self.len()?;
        self.take(len)
    }

    fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err("trailing bytes".to_owned()) }
    }
}

fn hex(text: &str) -> Result<Vec<u8>> {
    let digit = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..text.len()).step_by(2).map(|at| digit(at).ok_or_else(|| format!("no digits: {text}"))).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The object of that name, healed (14-parity) if its bytes are not what the name says.
fn read_named(path: &Path) -> Result<Vec<u8>> {
    let is_right = |bytes: &[u8]| to_hex(blake3::hash(bytes).as_bytes()).starts_with(&name(path));
    let bytes = read(path)?;
    let healed = if is_right(&bytes) { Some(bytes) } else { reference_parity::heal(&bytes, is_right) };
    healed.ok_or_else(|| format!("{} is not what was written", path.display()))
}

fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let rows = fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut paths: Vec<PathBuf> = rows.map(|row| row.unwrap().path()).collect();
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// 10-encryption: AES-256-GCM; the nonce is the position as u64, then four zero bytes.
fn open(object_key: &Id, position: u64, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, object_key).unwrap());
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&position.to_le_bytes());
    let mut bytes = sealed.to_vec();
    let plain = key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut bytes);
    plain.map(|plain| plain.to_vec()).map_err(|_| "authentication failed".to_owned())
}

/// 02-repository: the header, checked.
fn header(object: &[u8], object_type: u8) -> Result<&[u8]> {
    let header = object.get(..HEADER_LEN).ok_or("truncated")?;
    let slot_max = u8::from(matches!(object_type, 3 | 5));
    let is_right = &header[..8] == b"COMPLINE" && header[8] == object_type && header[9] == 1;
    if !is_right || header[10] > slot_max {
        return Err(format!("not the header of an object of type {object_type}"));
    }
    Ok(header)
}

/// 10-encryption, signatures: what was signed behind `front`, without its signature.
fn signed<'b>(repository: &[u8], public: &Id, front: &[u8], plain: &'b [u8]) -> Result<&'b [u8]> {
    let (body, signature) = plain.split_last_chunk::<64>().ok_or("no signature")?;
    let hash = blake3::derive_key("compline v1 signed object", &[repository, front, body].concat());
    let verified = UnparsedPublicKey::new(&ED25519, public).verify(&hash, signature);
    verified.map(|()| body).map_err(|_| "signed by nobody who may write".to_owned())
}

/// 02-repository: a record; `extra_len` plain bytes lie between header and body.
fn record(object: &[u8], object_type: u8, extra_len: usize, subkey: &Id, by: Option<(&[u8], &Id)>) -> Result<Vec<u8>> {
    let header = header(object, object_type)?;
    let data = data_of(object)?;
    // A card lies behind the body of a key.
    let data = if object_type == 2 { &data[..data.len().checked_sub(CARD_LEN).ok_or("truncated")?] } else { data };
    let (front, sealed) = data.split_at_checked(HEADER_LEN + extra_len).ok_or("truncated")?;
    let object_key = *blake3::keyed_hash(subkey, header).as_bytes();
    let mut body = open(&object_key, 0, front, sealed)?;
    if let Some((repository, public)) = by {
        body = signed(repository, public, front, &body)?.to_vec();
    }
    match header[11] {
        0 => Ok(body),
        1 => decompress(&body[4..], u32::from_le_bytes(body[..4].try_into().unwrap()) as usize),
        other => Err(format!("compression {other}")),
    }
}

/// REC-4: all but segments, which this reader never opens, end with parity and a trailer.
fn data_of(object: &[u8]) -> Result<&[u8]> {
    let (rest, mut trailer) =
        object.split_last_chunk::<TRAILER_LEN>().map(|(rest, end)| (rest, Cursor(end))).ok_or("truncated")?;
    let (zero, parity_len) = (trailer.u32()?, usize::try_from(trailer.u64()?).unwrap());
    if zero != 0 || trailer.take(8)? != b"COMPLEND" {
        return Err("no trailer".to_owned());
    }
    rest.len().checked_sub(parity_len).map(|len| &rest[..len]).ok_or_else(|| "parity longer than the record".to_owned())
}

/// 10-encryption, cards: what a key is called. A reader opens keys without; this one proves that they are there.
fn label(object: &[u8], repository: &[u8], keys: &Keys) -> Result<String> {
    let data = data_of(object)?;
    let (front, card) = data.split_at_checked(data.len().wrapping_sub(CARD_LEN)).ok_or("truncated")?;
    let object_key = *blake3::keyed_hash(&keys.subkey("records")?, header(object, 2)?).as_bytes();
    let plain = open(&object_key, front.len() as u64, front, card)?;
    let card: Value = serde_json::from_slice(signed(repository, &keys.public()?, front, &plain)?)
        .map_err(|error| error.to_string())?;
    card["label"].as_str().map(str::to_owned).ok_or_else(|| "no label".to_owned())
}

fn decompress(packed: &[u8], len: usize) -> Result<Vec<u8>> {
    let plain = zstd::bulk::decompress(packed, len).map_err(|error| error.to_string())?;
    if plain.len() == len { Ok(plain) } else { Err("another length than it says".to_owned()) }
}

/// 10-encryption, key objects: what `object` opens, if it is a key of `repository` that `key` opens.
fn unwrap_keys(object: &[u8], repository: &[u8], key: &Key<'_>) -> Result<Keys> {
    let header = header(object, 2)?;
    let salt = &header[12..];
    let mut extra = Cursor(&object[HEADER_LEN..]);
    if extra.take(16)? != repository {
        return Err("a key of another repository".to_owned());
    }
    let (derivation, memory, passes, lanes) = (extra.byte()?, extra.u32()?, extra.u32()?, extra.u32()?);
    // 32 more: a read-only key.
    let wrapping: Id = match (key, derivation & !32) {
        (Key::Passphrase(text), 1) => {
            let params = argon2::Params::new(memory, passes, lanes, Some(32)).map_err(|error| error.to_string())?;
            let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
            let mut out = [0; 32];
            argon.hash_password_into(text.as_bytes(), salt, &mut out).map_err(|error| error.to_string())?;
            out
        }
        (Key::File(text), 2) => {
            let digits = text.trim().strip_prefix("compline-key-1:").ok_or("no key file")?;
            let derived = blake3::derive_key("compline v1 key file", &hex(digits)?);
            *blake3::keyed_hash(&derived, salt).as_bytes()
        }
        (Key::Identity(text), 3) => {
            let line = text.lines().find(|line| !line.starts_with('#')).unwrap_or_default();
            let digits = line.trim().strip_prefix("compline-identity-1:").ok_or("no identity file")?;
            let private = agreement::PrivateKey::from_private_key(&agreement::X25519, &hex(digits)?).unwrap();
            let own = private.compute_public_key().unwrap();
            let drawn = agreement::UnparsedPublicKey::new(&agreement::X25519, salt);
            agreement::agree(&private, drawn, "no public key".to_owned(), |shared| {
                Ok(blake3::derive_key("compline v1 recipient", &[shared, salt, own.as_ref()].concat()))
            })?
        }
        _ => return Err("a key of another sort".to_owned()),
    };
    let body = record(object, 2, 29, &wrapping, None)?;
    let mut body: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let keys =
        if derivation > 32 { Keys::Read(body["read"].take()) } else { digits(&body["master"]).map(Keys::Master)? };
    label(object, repository, &keys).map(|_| keys)
}

/// A frame, and ids and lengths of its chunks.
type ListedFrame = (Frame, Vec<(Id, usize)>);

/// 06-delta: depth and bases, from the extension of a delta frame.
fn lineage(extension: &[u8]) -> Result<(u8, Vec<Id>)> {
    let mut r = Cursor(extension);
    let (depth, _generation) = (r.byte()?, r.take(2)?);
    let mut bases = Vec::new();
    while !r.0.is_empty() {
        bases.push(r.id()?);
    }
    if depth > 0 && (1..=7).contains(&bases.len()) { Ok((depth, bases)) } else { Err("a bad lineage".to_owned()) }
}

/// 05-pack: frames with their chunks, from the footer.
fn frames(footer: &[u8]) -> Result<Vec<ListedFrame>> {
    let mut r = Cursor(footer);
    let mut offset = HEADER_LEN;
    let mut frames = Vec::new();
    for _ in 0..r.varint()? {
        let (kind, sealed_len, extension) = (r.byte()?, r.len()?, r.counted()?.to_vec());
        // PACK-9: what the extension of a later kind says is nobody's business.
        let (depth, bases) = if kind == 2 { lineage(&extension)? } else { (0, Vec::new()) };
        let mut chunks = Vec::new();
        for _ in 0..r.varint()? {
            chunks.push((r.id()?, r.len()?));
        }
        let plain_len = chunks.iter().map(|(_, len)| len).sum();
        frames.push((Frame { offset, sealed_len, kind, extension, depth, bases, plain_len }, chunks));
        offset += sealed_len;
    }
    r.end()?;
    Ok(frames)
}

impl Repository {
    pub fn open(root: &Path, key: &Key<'_>) -> Result<Self> {
        // The name of this one says nothing; it is proven when it opens.
        let config = read(&root.join("config"))?;
        let config = reference_parity::heal(&config, |_| true).unwrap_or(config);
        header(&config, 1)?;
        let repository = &config[HEADER_LEN..HEADER_LEN + 16];
        let public: Id = config[HEADER_LEN + 24..HEADER_LEN + 56].try_into().unwrap();
        if config[HEADER_LEN + 16..HEADER_LEN + 24] != [0; 8] {
            return Err("features that this reader does not know".to_owned());
        }
        let keys = list(&root.join("keys"))?;
        // KEY-10: what it opens fits the config, or it is passed over.
        let fits = |keys: &Keys| keys.public() == Ok(public);
        let mut keys = keys.iter().filter_map(|path| unwrap_keys(&read_named(path).ok()?, repository, key).ok());
        let keys = keys.find(fits).ok_or("no key opens")?;
        record(&config, 1, 88, &keys.subkey("records")?, Some((repository, &public)))?;
        let (chunks, id) = (BTreeMap::new(), repository.to_vec());
        let mut opened = Self { root: root.to_owned(), keys, id, public, chunks, opened: RefCell::default() };
        for directory in list(&root.join("packs"))? {
            for pack in list(&directory)? {
                opened.learn(&pack)?;
            }
        }
        Ok(opened)
    }

    /// What stands for the subkey of `purpose` where an object was sealed to the public key of the repository.
    fn subkey_of(&self, purpose: &str, header: &[u8]) -> Result<Id> {
        if header[10] == 0 {
            return self.keys.subkey(purpose);
        }
        let private = self.keys.subkey("deposits")?;
        let private = agreement::PrivateKey::from_private_key(&agreement::X25519, &private).unwrap();
        let own = private.compute_public_key().unwrap();
        let salt = &header[12..HEADER_LEN];
        let drawn = agreement::UnparsedPublicKey::new(&agreement::X25519, salt);
        agreement::agree(&private, drawn, "no public key".to_owned(), |shared| {
            Ok(blake3::derive_key("compline v1 deposit", &[shared, salt, own.as_ref()].concat()))
        })
    }

    fn learn(&mut self, pack: &Path) -> Result<()> {
        let bytes = read_named(pack)?;
        let header = header(&bytes, 3)?;
        let trailer_offset = bytes.len() - TRAILER_LEN;
        let mut trailer = Cursor(&bytes[trailer_offset..]);
        let (footer_len, parity_len) = (trailer.u32()? as usize, usize::try_from(trailer.u64()?).unwrap());
        if trailer.take(8)? != b"COMPLEND" {
            return Err("no trailer".to_owned());
        }
        let start = trailer_offset - parity_len - footer_len;
        let object_key = *blake3::keyed_hash(&self.keys.subkey("index")?, header).as_bytes();
        let footer = open(&object_key, start as u64, header, &bytes[start..start + footer_len])?;
        for (frame, chunks) in frames(signed(&self.id, &self.public, header, &footer)?)? {
            let mut at = 0;
            for (id, len) in chunks {
                // DELTA-6: of several places that of the smallest depth.
                if self.chunks.get(&id).is_none_or(|known| frame.depth < known.frame.depth) {
                    self.chunks.insert(id, Place { pack: pack.to_owned(), frame: frame.clone(), start: at, len });
                }
                at += len;
            }
        }
        Ok(())
    }

    fn place(&self, id: &Id) -> Result<&Place> {
        self.chunks.get(id).ok_or_else(|| format!("chunk {} is in no pack", to_hex(id)))
    }

    fn chunk(&self, id: &Id) -> Result<Vec<u8>> {
        let place = self.place(id)?;
        let plain = self.plain(place)?;
        let chunk = plain.get(place.start..place.start + place.len).ok_or("a chunk beyond its frame")?;
        let right = blake3::keyed_hash(&self.keys.subkey("chunk id")?, chunk).as_bytes() == id;
        if right { Ok(chunk.to_vec()) } else { Err("a chunk is not what its id says".to_owned()) }
    }

    /// The plain text of a frame.
    fn plain(&self, Place { pack, frame, .. }: &Place) -> Result<Rc<Vec<u8>>> {
        let key = (pack.clone(), frame.offset);
        if let Some(plain) = self.opened.borrow().get(&key) {
            return Ok(plain.clone());
        }
        let bytes = read_named(pack)?;
        let header = &bytes[..HEADER_LEN];
        let purpose = if header[11] == 1 { "content frames" } else { "tree frames" };
        let object_key = *blake3::keyed_hash(&self.subkey_of(purpose, header)?, header).as_bytes();
        let aad = [&[frame.kind], (frame.plain_len as u64).to_le_bytes().as_slice(), &frame.extension].concat();
        let body = open(&object_key, frame.offset as u64, &aad, &bytes[frame.offset..frame.offset + frame.sealed_len])?;
        let plain = match frame.kind {
            0 => body,
            1 => decompress(&body, frame.plain_len)?,
            2 => {
                let delta = zstd::bulk::decompress(&body, frame.plain_len).map_err(|error| error.to_string())?;
                reference_delta::undo(&delta, &self.base(frame)?, frame.plain_len)?
            }
            other => return Err(format!("frame kind {other}")),
        };
        let plain = Rc::new(plain);
        self.opened.borrow_mut().insert(key, plain.clone());
        Ok(plain)
    }

    /// 06-delta: the chunks that a delta was made against. Each lies less deep than the delta, so this comes to an end.
    fn base(&self, frame: &Frame) -> Result<Vec<u8>> {
        let mut base = Vec::new();
        for id in &frame.bases {
            if self.place(id)?.frame.depth >= frame.depth {
                return Err("a base that lies as deep as its delta".to_owned());
            }
            base.extend(self.chunk(id)?);
        }
        if base.len() <= 16 << 20 { Ok(base) } else { Err("a base too long".to_owned()) }
    }

    /// The frames that chunks are read from, each once for each of its chunks.
    pub fn frames(&self) -> impl Iterator<Item = &Frame> {
        self.chunks.values().map(|place| &place.frame)
    }

    /// Names and records of all snapshots.
    pub fn snapshots(&self) -> Result<Vec<(String, Value)>> {
        let mut found = Vec::new();
        for path in list(&self.root.join("snapshots"))? {
            let object = read_named(&path)?;
            let json = record(&object, 5, 0, &self.subkey_of("records", &object)?, Some((&self.id, &self.public)))?;
            found.push((name(&path), serde_json::from_slice(&json).map_err(|error| error.to_string())?));
        }
        Ok(found)
    }

    /// Everything in a snapshot, by path.
    pub fn restore(&self, snapshot: &Value) -> Result<BTreeMap<Vec<u8>, Found>> {
        let mut found = BTreeMap::new();
        for component in snapshot["components"].as_array().ok_or("no components")? {
            if let Some(root) = component["root"].as_str() {
                let root = hex(root)?;
                let mut r = Cursor(&root);
                self.entry(&mut r, b"", &mut found)?;
                r.end()?;
            }
        }
        Ok(found)
    }

    /// 08-tree: one entry, and all below it.
    fn entry(&self, r: &mut Cursor<'_>, above: &[u8], found: &mut BTreeMap<Vec<u8>, Found>) -> Result<()> {
        let (kind, flags) = (r.byte()?, r.varint()?);
        if flags & !1 != 0 {
            return Err(format!("flags {flags}"));
        }
        let path = [above, r.counted()?].concat();
        let (mode, uid, gid) = (r.varint()?, r.varint()?, r.varint()?);
        let (_user, _group) = (r.counted()?, r.counted()?);
        let mtime = (r.u64()?.cast_signed(), r.u32()?);
        let _ctime = (r.u64()?, r.u32()?);
        let (_device, _inode, _link_count) = (r.varint()?, r.varint()?, r.varint()?);
        let pair = |r: &mut Cursor<'_>| Ok((r.counted()?.to_vec(), r.counted()?.to_vec()));
        let xattrs = (0..r.varint()?).map(|_| pair(r)).collect::<Result<_>>()?;
        for _ in 0..r.varint()? {
            let (number, _value) = (r.varint()?, r.counted()?);
            if number % 2 == 1 {
                return Err(format!("field {number} must be understood"));
            }
        }
        let letter = *['-', 'd', 'l', 'p', 's', 'c', 'b'].get(usize::from(kind).wrapping_sub(1)).ok_or("entry kind")?;
        let mut entry = Found { letter, mode, uid, gid, mtime, target: Vec::new(), bytes: Vec::new(), xattrs };
        match kind {
            1 => entry.bytes = self.content(r)?,
            2 => {
                let tree = self.content(r)?;
                self.tree(&tree, &[&path, b"/".as_slice()].concat(), found)?;
            }
            3 => entry.target = r.counted()?.to_vec(),
            6 | 7 => drop(r.take(8)?),
            _ => {}
        }
        found.insert(path, entry);
        Ok(())
    }

    fn tree(&self, tree: &[u8], path: &[u8], found: &mut BTreeMap<Vec<u8>, Found>) -> Result<()> {
        let mut r = Cursor(tree);
        if r.byte()? != 1 {
            return Err("tree version".to_owned());
        }
        for _ in 0..r.varint()? {
            self.entry(&mut r, path, found)?;
        }
        r.end()
    }

    /// 08-tree: the bytes of a content.
    fn content(&self, r: &mut Cursor<'_>) -> Result<Vec<u8>> {
        let reflated = match r.byte()? {
            0 => None,
            1 if r.varint()? == 1 => Some((r.len()?, r.len()?)),
            _ => return Err("content encoding".to_owned()),
        };
        let (depth, len) = (r.byte()?, r.len()?);
        let mut bytes = Vec::new();
        self.pieces(r, depth, &mut bytes)?;
        if let Some((plain_len, recipe_len)) = reflated {
            if bytes.len() != plain_len + recipe_len || recipe_len == 0 {
                return Err("plain bytes and recipe of other lengths".to_owned());
            }
            let (plain, recipe) = bytes.split_at(plain_len);
            bytes = reference_reflate::make(plain, recipe)?;
        }
        if bytes.len() == len { Ok(bytes) } else { Err("another length than it says".to_owned()) }
    }

    fn pieces(&self, r: &mut Cursor<'_>, depth: u8, bytes: &mut Vec<u8>) -> Result<()> {
        for _ in 0..r.varint()? {
            let (len, id) = (r.len()?, r.id()?);
            let end = bytes.len() + len;
            match depth {
                0 if id == [0; 32] => bytes.resize(end, 0),
                0 => bytes.extend_from_slice(&self.chunk(&id)?),
                _ => {
                    let list = self.chunk(&id)?;
                    let mut r = Cursor(&list);
                    self.pieces(&mut r, depth - 1, bytes)?;
                    r.end()?;
                }
            }
            if bytes.len() != end {
                return Err("a piece of another length than it says".to_owned());
            }
        }
        Ok(())
    }
}
