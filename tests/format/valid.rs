//! What the valid vectors are made of.

use compline::archive::entry::{Content, Entry, EntryKind, Metadata, Piece, Time};
use compline::archive::fields::Fields;
use compline::archive::table::{Page, PageRef, Row, Table};
use compline::archive::tree::Tree;
use compline::codec::Writer;
use compline::compress;
use compline::crypto::{self, PassphraseCost, Purpose, Secret};
use compline::id::{ChunkId, PackId, RepositoryId, from_hex, to_hex};
use compline::store::PackedFrame;
use compline::store::card::Card;
use compline::store::config::ConfigHead;
use compline::store::envelope::{self, Header, ObjectType};
use compline::store::index_segment::{self, PackEntry};
use compline::store::keyring::{self, Extra};
use compline::store::pack::{self, Frame, FrameKind, Lineage, Role};
use compline::store::pack_reader::PackKeys;
use compline::store::pack_writer::PackWriter;
use compline::store::parity::{self, Geometry, Label, Share};
use compline::store::rights::{Deposits, Grant, Rights};
use compline::store::signature::Signer;
use serde_json::{Value, json};

use super::reference_delta::{self, Op};
use super::shapes;
use super::vectors::{Vector, vector};

pub const REPOSITORY: RepositoryId = RepositoryId::from_bytes(*b"repository no. 1");
pub const SALT: [u8; 32] = *b"a salt that no one should repeat";
pub const KEY_FILE: &str = "compline-key-1:6b65792066696c65206f662074686520766563746f7273206f66207468652073";

/// An identity file: the private key of Bob in RFC 7748.
pub const IDENTITY: &str = "compline-identity-1:5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb";

/// The master key of all vectors: the bytes 0 to 31.
pub fn master() -> Secret {
    Secret::from_bytes(std::array::from_fn(|n| u8::try_from(n).unwrap()))
}

pub fn with_master(more: &Value) -> Value {
    let mut given = json!({ "master": to_hex(master().as_bytes()), "repository": REPOSITORY });
    given.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    given
}

/// All keys of packs.
pub fn pack_keys() -> PackKeys {
    PackKeys::new(REPOSITORY, &Rights::all(master()).unwrap()).unwrap()
}

/// Who signs all vectors.
pub fn signer() -> Signer {
    Signer::of(REPOSITORY, &master()).unwrap()
}

pub fn id(byte: u8) -> ChunkId {
    ChunkId::from_bytes([byte; 32])
}

pub fn frame(offset: u64, sealed_len: u64, kind: FrameKind, chunks: &[(u8, u64)]) -> Frame {
    let chunks: Vec<(ChunkId, u64)> = chunks.iter().map(|(byte, len)| (id(*byte), *len)).collect();
    let plain_len = chunks.iter().map(|(_, len)| len).sum();
    Frame { offset, sealed_len, kind, extension: Vec::new(), plain_len, chunks }
}

pub fn frames() -> Vec<Frame> {
    let delta =
        Frame { extension: lineage(1, 3, &[0xba]).encode(), ..frame(2216, 300, FrameKind::Delta, &[(4, 262_144)]) };
    let later = Frame { extension: vec![0xee; 5], ..frame(2516, 100, FrameKind::Other(3), &[(5, 1), (6, 300)]) };
    vec![
        frame(44, 2016, FrameKind::Raw, &[(1, 2000)]),
        frame(2060, 156, FrameKind::Zstd, &[(2, 100), (3, 65_536)]),
        delta,
        later,
    ]
}

pub fn lineage(depth: u8, generation: u16, bases: &[u8]) -> Lineage {
    Lineage { depth, generation, bases: bases.iter().map(|byte| id(*byte)).collect() }
}

pub fn content(depth: u8, pieces: &[(u8, u64)]) -> Content {
    let pieces: Vec<Piece> = pieces.iter().map(|(byte, len)| Piece { id: id(*byte), len: *len }).collect();
    Content { len: pieces.iter().map(|piece| piece.len).sum(), depth, pieces, reflated: None }
}

pub fn entry(name: &[u8], kind: EntryKind) -> Entry {
    let metadata = Metadata {
        mode: 0o644,
        uid: 1000,
        gid: 100,
        user: b"alice".to_vec(),
        group: b"users".to_vec(),
        mtime: Time { seconds: 1_790_000_000, nanoseconds: 123_456_789 },
        ctime: Time { seconds: 1_790_000_001, nanoseconds: 0 },
        device: 2049,
        inode: 131_074,
        link_count: 1,
        ..Metadata::default()
    };
    Entry { name: name.to_vec(), kind, metadata, changed_while_read: false }
}

/// An entry with everything that entries can have.
fn nasty_entry() -> Entry {
    let mut entry = entry(b"\xff\n caf\xc3\xa9", EntryKind::File(content(2, &[(7, 5_000_000_000), (8, 1)])));
    let metadata = &mut entry.metadata;
    metadata.mode = 0o6755;
    metadata.uid = u32::MAX;
    metadata.mtime = Time { seconds: -1, nanoseconds: 999_999_999 };
    metadata.device = u64::MAX;
    metadata.link_count = 3;
    metadata.xattrs = vec![
        (b"security.capability".to_vec(), vec![1, 0, 0, 2]),
        (b"system.posix_acl_access".to_vec(), vec![2, 0, 0, 0]),
        (b"user.comment".to_vec(), b"two words".to_vec()),
        (b"user.empty".to_vec(), Vec::new()),
    ];
    metadata.later = later();
    entry.changed_while_read = true;
    entry
}

/// A field of a version that is not yet.
fn later() -> Fields {
    let mut later = Fields::default();
    later.set(1000, b"later".to_vec());
    later
}

pub fn row(key: &[u8]) -> Row {
    Row { key: key.to_vec(), content: content(0, &[(9, 77)]), ..Row::default() }
}

fn full_row() -> Row {
    Row {
        modified: Some(Time { seconds: 1_790_000_000, nanoseconds: 250_000_000 }),
        etag: Some(b"9b2cf535f27731c974343645a3985328".to_vec()),
        version: Some(b"3/L4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY".to_vec()),
        content_type: Some(b"image/jpeg".to_vec()),
        user: vec![(b"camera".to_vec(), b"M3".to_vec()), (b"rotated".to_vec(), Vec::new())],
        later: later(),
        ..row(b"photos/2026/../a//b\0")
    }
}

fn encoded(encode: impl Fn(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::new();
    encode(&mut w);
    w.into_bytes()
}

/// A record sealed with the master key and the salt of the vectors.
pub fn sealed(object: ObjectType, extra: &[u8], plain: &[u8]) -> Vec<u8> {
    sealed_by(&signer(), object, extra, plain)
}

/// The same, signed by somebody.
pub fn sealed_by(signer: &Signer, object: ObjectType, extra: &[u8], plain: &[u8]) -> Vec<u8> {
    let purpose = if object == ObjectType::Segment { Purpose::Index } else { Purpose::Record };
    envelope::seal_record_salted(object, SALT, &master().subkey(purpose), Some(signer), extra, plain).unwrap()
}

/// A snapshot sealed to the public key of the repository; the key that was drawn for it is that of the identity.
fn deposit(plain: &[u8]) -> Vec<u8> {
    let (_, drawn) = IDENTITY.split_once(':').unwrap();
    let salt = crypto::public_key(&Secret::from_bytes(from_hex(drawn).unwrap())).unwrap();
    let header = Header { detail: 0, salt }.encode_deposit(ObjectType::Snapshot);
    let key = Deposits::new(master().subkey(Purpose::Deposit)).unwrap().key(&header).unwrap();
    envelope::seal_deposit(ObjectType::Snapshot, salt, &key, Some(&signer()), plain).unwrap()
}

pub fn config_object(features: u64, json: &str) -> Vec<u8> {
    let head = ConfigHead { features, ..ConfigHead::new(REPOSITORY, &master()).unwrap() };
    sealed(ObjectType::Config, &head.encode(), json.as_bytes())
}

pub const CONFIG: &str = r#"{"created_at":"2026-09-21T12:00:00Z","pack_len":16777216,"frame_len":1048576,"parity":20}"#;
pub const CHEAP: PassphraseCost = PassphraseCost { memory_kib: 64, passes: 1, lanes: 1 };

pub fn key_object(given: &Value) -> Vec<u8> {
    key_object_of(given, 0, (&master(), Grant::All))
}

/// The same that opens something else, and says in plain that it does: `more` is added to its derivation.
pub fn key_object_of(given: &Value, more: u8, what: (&Secret, Grant<'_>)) -> Vec<u8> {
    let (derivation, cost) = match given["key_file"].as_str() {
        Some(IDENTITY) => (3, PassphraseCost::NONE),
        Some(_) => (2, PassphraseCost::NONE),
        None => (1, CHEAP),
    };
    let extra = Extra { repository: REPOSITORY, derivation: derivation + more, cost };
    let card = Card { label: "office".to_owned(), created_at: "2026-09-21T12:00:00Z".parse().unwrap() };
    keyring::seal(&extra, SALT, &shapes::unlock(given), what, &card).unwrap()
}

pub fn key_given(more: &Value) -> Value {
    let mut given = json!({ "object": "key", "repository": REPOSITORY });
    given.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    given
}

/// Chunks of a small pack: one frame of noise, one of text.
pub fn pack_bytes(role: Role) -> Vec<u8> {
    pack_with_parity(role, Share::NONE)
}

fn pack_with_parity(role: Role, parity: Share) -> Vec<u8> {
    let keys = pack_keys();
    let mut pack = PackWriter::with_salt(role, &keys, signer(), SALT);
    pack.set_parity(parity);
    let noise = blake3::hash(b"noise").as_bytes().to_vec();
    let text = [b"compline ".repeat(9), b"the last office of the day\n".repeat(4)];
    pack.push(packed(&keys, FrameKind::Raw, &[&noise], noise.clone(), Vec::new()));
    let zstd = compress::always_compress(compress::LEVEL, &text.concat()).unwrap();
    pack.push(packed(&keys, FrameKind::Zstd, &[&text[0], &text[1]], zstd, Vec::new()));
    pack.finish().bytes
}

/// An object of text and parity, damaged by `damage`, and its name.
pub fn damaged(name: &str, len: usize, thousandths: u16, damage: impl Fn(&mut Vec<u8>)) -> Vector {
    let mut object = b"the last office of the day, ".repeat(len / 28 + 1);
    object.truncate(len);
    parity::protect(&mut object, 99, Share::of_packs(thousandths).unwrap());
    let given = json!({ "name": to_hex(blake3::hash(&object).as_bytes()) });
    damage(&mut object);
    vector(name, given, object)
}

fn parities() -> Vec<Vector> {
    let flip = |at: usize| move |object: &mut Vec<u8>| object[at] ^= 1;
    let geometry = Geometry { data_len: 8_000_000, footer_len: 300, shard_len: 4096, parity_count: 42 };
    let largest = Geometry { data_len: 1 << 32, footer_len: u32::MAX, shard_len: 131_072, parity_count: 32_768 };
    vec![
        vector("label-table", Value::Null, Label { number: u32::MAX, geometry, hash: *b"12345678" }.encode()),
        vector("label-block", Value::Null, Label { number: 41, geometry, hash: [0xff; 8] }.encode()),
        vector("label-largest", Value::Null, Label { number: 0, geometry: largest, hash: [0; 8] }.encode()),
        damaged("parity-whole", 300, 100, |_| {}),
        damaged("parity-one-byte", 1, 500, |_| {}),
        damaged("parity-bit-of-data", 300, 100, flip(130)),
        damaged("parity-bit-of-both-tables", 300, 100, |object| {
            // The last entry of each.
            object[300 + 48 + 19] ^= 1;
            let end = object.len();
            object[end - 21] ^= 1;
        }),
        damaged("parity-burst", 300, 100, |object| object[200..264].fill(0xff)),
        damaged("parity-burst-over-the-end-of-data", 300, 100, |object| object[290..354].fill(0xff)),
        damaged("parity-three-shards", 300, 100, |object| [0, 64, 299].iter().for_each(|at| object[*at] ^= 0x80)),
        damaged("parity-trailer", 300, 100, |object| {
            let end = object.len();
            object[end - 20..].fill(0);
        }),
        damaged("parity-cut", 300, 100, |object| object.truncate(500)),
        damaged("parity-appended", 300, 100, |object| object.extend_from_slice(b"COMPLEND")),
        // Three parity shards of four points.
        damaged("parity-one-label-left", 300, 100, |object| {
            let start = 300 + 48 + 20;
            for at in [300, start, start + 112, start + 336] {
                object[at] ^= 1;
            }
        }),
    ]
}

/// A frame of `chunks` that seals `bytes`.
fn packed(keys: &PackKeys, kind: FrameKind, chunks: &[&[u8]], bytes: Vec<u8>, extension: Vec<u8>) -> PackedFrame {
    let chunks: Vec<(ChunkId, u64)> = chunks.iter().map(|chunk| (keys.chunk_id(chunk), chunk.len() as u64)).collect();
    let plain_len = chunks.iter().map(|(_, len)| len).sum();
    PackedFrame { kind, plain_len, bytes, chunks, extension, features: Vec::new() }
}

/// What the deltas are made of.
pub const ROWS: &str = "id 1 paid;id 2 open;id 3 open;";

/// A delta of `bases`, by its operations (literal length, start of the copy, its length) and its literals.
pub fn delta_vector(
    name: &str,
    bases: &[&str],
    plain_len: u64,
    ops: &[(usize, usize, usize)],
    literals: &str,
) -> Vector {
    let op = |(literal_len, start, copy_len): &(usize, usize, usize)| Op {
        literal_len: *literal_len,
        start: *start,
        copy_len: *copy_len,
    };
    let bytes = reference_delta::write(&ops.iter().map(op).collect::<Vec<_>>(), literals.as_bytes());
    vector(name, json!({ "bases": bases, "plain_len": plain_len }), bytes)
}

fn deltas() -> Vec<Vector> {
    vec![
        vector("lineage", Value::Null, lineage(1, 1, &[0xb1]).encode()),
        vector("lineage-longest", Value::Null, lineage(255, 65_535, &[1, 2, 3, 4, 5, 6, 7]).encode()),
        vector("lineage-base-twice", Value::Null, lineage(2, 300, &[1, 1]).encode()),
        delta_vector("delta-no-operation", &[ROWS], 10, &[], "id 4 paid;"),
        delta_vector("delta-same", &[ROWS], 30, &[(0, 0, 30)], ""),
        delta_vector("delta-substitute", &[ROWS], 30, &[(0, 0, 15), (4, 19, 11)], "paid"),
        delta_vector("delta-insert", &[ROWS], 41, &[(0, 0, 20), (11, 20, 10)], "id 2b paid;"),
        delta_vector("delta-delete", &[ROWS], 20, &[(0, 0, 10), (0, 20, 10)], ""),
        delta_vector("delta-append", &[ROWS], 40, &[(0, 0, 30)], "id 4 open;"),
        delta_vector("delta-backwards", &[ROWS], 31, &[(0, 20, 10), (1, 10, 10), (0, 0, 10)], ";"),
        delta_vector("delta-copy-twice", &[ROWS], 60, &[(0, 0, 30), (0, 0, 30)], ""),
        delta_vector("delta-empty-copy", &[ROWS], 3, &[(1, 30, 0), (1, 0, 0)], "abc"),
        delta_vector("delta-several-bases", &[ROWS, "id 4 open;", "id 5 open;"], 30, &[(4, 14, 26)], "id 2"),
    ]
}

/// A delta of a delta, their common base, and the delta between them: in this order in the pack.
fn pack_of_deltas() -> Vec<u8> {
    let keys = pack_keys();
    let mut pack = PackWriter::with_salt(Role::Content, &keys, signer(), SALT);
    let first = ROWS.as_bytes();
    let (second, third) = (b"id 1 paid;id 2 paid;id 3 open;", b"id 1 paid;id 2 paid;id 3 paid;id 4 open;");
    let delta_of = |bases: &[&[u8]], depth, target: &[u8], ops: &[(usize, usize, usize)], literals: &str| {
        let bytes = delta_vector("", &[], 0, ops, literals).bytes;
        let bases = bases.iter().map(|base| keys.chunk_id(base)).collect();
        let extension = Lineage { depth, generation: depth.into(), bases }.encode();
        packed(&keys, FrameKind::Delta, &[target], compress::always_compress(6, &bytes).unwrap(), extension)
    };
    pack.push(delta_of(&[second, first], 2, third, &[(0, 0, 25), (10, 45, 5)], "paid;id 4 "));
    pack.push(packed(&keys, FrameKind::Raw, &[first], first.to_vec(), Vec::new()));
    pack.push(delta_of(&[first], 1, second, &[(0, 0, 15), (4, 19, 11)], "paid"));
    pack.finish().bytes
}

/// A pack with one chunk, [`ROWS`], and a delta frame that says in the footer that it is `target`, made of `listed`, and
/// that was sealed with `sealed`.
pub fn pack_of_one_delta(target: &[u8], delta: &[u8], sealed: &Lineage, listed: &Lineage) -> Vec<u8> {
    pack_of_one_delta_by(Some(&signer()), target, delta, sealed, listed)
}

/// The same with a footer that somebody signed, or nobody.
pub fn pack_of_one_delta_by(
    signer: Option<&Signer>,
    target: &[u8],
    delta: &[u8],
    sealed: &Lineage,
    listed: &Lineage,
) -> Vec<u8> {
    let keys = pack_keys();
    let mut bytes = Header { detail: Role::Content as u8, salt: SALT }.encode(ObjectType::Pack);
    let (key, footer_key) = (keys.frames(Role::Content, &bytes).unwrap(), keys.index().object_key(&bytes));
    let header = bytes.clone();
    let mut frames = Vec::new();
    for (chunk, kind, body, sealed, listed) in [
        (ROWS.as_bytes(), FrameKind::Raw, ROWS.as_bytes().to_vec(), Vec::new(), Vec::new()),
        (target, FrameKind::Delta, compress::always_compress(6, delta).unwrap(), sealed.encode(), listed.encode()),
    ] {
        let (offset, plain_len, mut body) = (bytes.len() as u64, chunk.len() as u64, body);
        key.seal(offset, &pack::frame_aad(kind, plain_len, &sealed), &mut body);
        let chunks = vec![(keys.chunk_id(chunk), plain_len)];
        frames.push(Frame { offset, sealed_len: body.len() as u64, kind, extension: listed, plain_len, chunks });
        bytes.extend_from_slice(&body);
    }
    let mut footer = pack::encode_footer(&frames);
    if let Some(signer) = signer {
        signer.sign(&header, &mut footer);
    }
    footer_key.seal(bytes.len() as u64, &header, &mut footer);
    let trailer = pack::encode_trailer(u32::try_from(footer.len()).unwrap());
    [bytes, footer, trailer].concat()
}

pub const SNAPSHOT_MINIMAL: &str = r#"{"format":1,"platform":"","host":"h","user":"u","time":"2026-09-21T00:10:00Z","finished_at":"2026-09-21T00:11:00Z","status":"complete","tags":[],"tool":"compline 0.1.0","components":[]}"#;

fn snapshot_labelled() -> String {
    let labels = format!(r#""tags":["pre-upgrade"],"pinned":true,"original":"{}","#, "cd".repeat(32));
    SNAPSHOT_MINIMAL.replace(r#""tags":[],"#, &labels)
}

fn snapshot_full() -> String {
    let root = to_hex(&encoded(|w| entry(b"db", EntryKind::Directory(content(0, &[(3, 90)]))).encode(w)));
    format!(
        r#"{{"format":1,"platform":"shop","host":"db1","user":"root","time":"2026-09-21T00:10:00Z","finished_at":"2026-09-21T00:11:00.5Z","status":"partial","tags":["nightly"],"parent":"{parent}","tool":"compline 0.1.0","components":[{{"name":"db","kind":"postgres","role":"source","references":["files"],"derived_from":["x"],"status":"partial","reason":"one table changed","started_at":"2026-09-21T00:10:01Z","finished_at":"2026-09-21T00:10:59Z","versions":{{"client":"17.2","server":"17.2"}},"completeness":"trailer line","facts":{{"method":"logical"}},"commands":[{{"argv":["pg_dump","shop"],"exit_code":0,"stderr":"note"}},{{"argv":["true"],"exit_code":null}}],"problems":[{{"subject":"db","message":"m"}}],"problem_count":7,"chunker":"db-text","stats":{{"bytes_read":10,"bytes_new":5,"bytes_logical":10,"files":2,"directories":1,"files_unchanged":1}},"root":"{root}","of_a_later_version":{{"a":[1]}}}}],"restore_order":[["files"],["db"]],"plan":"format = 1\n","of_a_later_version":true}}"#,
        parent = "ab".repeat(32),
    )
}

fn cuts(name: &str, profile: &str, len: u64, mask: u8) -> Vector {
    let given = json!({ "profile": profile, "seed": "compline", "len": len, "mask": mask });
    let key = *master().subkey(Purpose::Chunker).as_bytes();
    vector(name, given, key.to_vec())
}

fn records() -> Vec<Vector> {
    let given = |object: &str| with_master(&json!({ "object": object }));
    let segment = index_segment::encode(&[pack_entry()]);
    let config = serde_json::from_str(CONFIG).unwrap();
    let by_file = key_given(&json!({ "key_file": KEY_FILE }));
    let by_identity = key_given(&json!({ "key_file": IDENTITY }));
    let by_passphrase = key_given(&json!({ "passphrase": "correct horse battery staple \u{e9}" }));
    vec![
        vector("record-config", given("config"), config_object(0, CONFIG)),
        vector("record-snapshot", given("snapshot"), sealed(ObjectType::Snapshot, b"", b"short")),
        vector(
            "record-snapshot-zstd",
            given("snapshot"),
            sealed(ObjectType::Snapshot, b"", SNAPSHOT_MINIMAL.repeat(3).as_bytes()),
        ),
        vector("record-snapshot-deposit", given("snapshot"), deposit(b"short")),
        vector("record-segment", given("segment"), sealed(ObjectType::Segment, b"", &segment)),
        vector("record-key-file", by_file.clone(), key_object(&by_file)),
        vector("record-key-recipient", by_identity.clone(), key_object(&by_identity)),
        vector("record-key-passphrase", by_passphrase.clone(), key_object(&by_passphrase)),
        vector("record-key-read-only", by_file.clone(), key_object_of(&by_file, 32, (&master(), Grant::Read))),
        vector(
            "record-key-write-only",
            by_file.clone(),
            key_object_of(&by_file, 16, (&master(), Grant::Write(&config))),
        ),
    ]
}

pub fn pack_entry() -> PackEntry {
    PackEntry { id: PackId::from_bytes([0xee; 32]), role: Role::Content, len: 2616 + 16 + 300 + 20, frames: frames() }
}

fn plain_records() -> Vec<Vector> {
    let none = || Value::Null;
    let features = 0x8000_0000_0000_0001;
    let head = ConfigHead { repository: REPOSITORY, features, public: [0x5a; 32], deposit: [0xa5; 32] };
    let passphrase = Extra { repository: REPOSITORY, derivation: 1, cost: PassphraseCost::DEFAULT };
    let file = Extra { derivation: 2, cost: PassphraseCost::NONE, ..passphrase };
    let recipient = Extra { derivation: 3, cost: PassphraseCost::NONE, ..passphrase };
    let later = Extra { derivation: 200, cost: PassphraseCost { memory_kib: 1, passes: 2, lanes: 3 }, ..passphrase };
    let tree_pack =
        PackEntry { role: Role::Tree, frames: vec![frame(44, 2016, FrameKind::Raw, &[(1, 2000)])], ..pack_entry() };
    let mut trailer_with_parity = pack::encode_trailer(1000);
    trailer_with_parity[4..12].copy_from_slice(&4096u64.to_le_bytes());
    vec![
        vector("header-pack", json!({ "object": "pack" }), Header { detail: 2, salt: SALT }.encode(ObjectType::Pack)),
        vector(
            "header-snapshot",
            json!({ "object": "snapshot" }),
            Header { detail: 1, salt: [0xff; 32] }.encode(ObjectType::Snapshot),
        ),
        vector("config-head", none(), head.encode()),
        vector("key-extra-passphrase", none(), passphrase.encode()),
        vector("key-extra-file", none(), file.encode()),
        vector("key-extra-write-only", none(), Extra { derivation: 18, ..file }.encode()),
        vector("key-extra-read-only", none(), Extra { derivation: 35, ..recipient }.encode()),
        vector("key-extra-recipient", none(), recipient.encode()),
        vector("key-extra-later", none(), later.encode()),
        vector("trailer", json!({ "pack_len": 100_000 }), pack::encode_trailer(1000)),
        vector("trailer-parity", json!({ "pack_len": 100_000 }), trailer_with_parity),
        vector("footer", none(), pack::encode_footer(&frames())),
        vector("segment-empty", none(), index_segment::encode(&[])),
        vector("segment", none(), index_segment::encode(&[pack_entry(), tree_pack])),
    ]
}

fn archive_records() -> Vec<Vector> {
    let one = |name: &str, entry: &Entry| vector(name, Value::Null, encoded(|w| entry.encode(w)));
    let mut sparse = content(0, &[(1, 65_536)]);
    sparse.pieces.insert(0, Piece::hole(1 << 40));
    sparse.len += 1 << 40;
    let stream = Entry {
        metadata: Metadata { mode: 0o600, link_count: 1, ..Metadata::default() },
        ..entry(b"app.sql", EntryKind::File(content(0, &[(5, 123)])))
    };
    let entries = vec![
        entry(b"A", EntryKind::Fifo),
        entry(b"a", EntryKind::Directory(content(0, &[(6, 2)]))),
        entry(b"a.txt", EntryKind::File(content(0, &[(7, 12)]))),
    ];
    let pages = vec![
        PageRef { first_key: b"a".to_vec(), id: id(1), row_count: 300, content_len: 1 << 33 },
        PageRef { first_key: b"b".to_vec(), id: id(2), row_count: 1, content_len: 0 },
    ];
    vec![
        one("entry-file", &entry(b"a.txt", EntryKind::File(content(0, &[(7, 12)])))),
        one("entry-file-empty", &entry(b"empty", EntryKind::File(Content::default()))),
        one("entry-file-sparse", &entry(b"disk.img", EntryKind::File(sparse))),
        one("entry-file-nasty", &nasty_entry()),
        one("entry-stream", &stream),
        one("entry-directory", &entry(b"etc", EntryKind::Directory(content(0, &[(6, 2)])))),
        one("entry-symlink", &entry(b"link", EntryKind::Symlink(b"../\xfftarget".to_vec()))),
        one("entry-fifo", &entry(b"pipe", EntryKind::Fifo)),
        one("entry-socket", &entry(b"sock", EntryKind::Socket)),
        one("entry-char-device", &entry(b"null", EntryKind::CharDevice(1, 3))),
        one("entry-block-device", &entry(b"sda", EntryKind::BlockDevice(8, 0))),
        vector("tree-empty", Value::Null, Tree::default().encode()),
        vector("tree", Value::Null, Tree { entries }.encode()),
        vector("content", Value::Null, encoded(|w| content(0, &[(1, 1), (2, 300)]).encode(w))),
        vector("content-deep", Value::Null, encoded(|w| content(8, &[(1, u64::MAX)]).encode(w))),
        vector(
            "pieces",
            Value::Null,
            encoded(|w| compline::archive::entry::encode_pieces(&content(0, &[(1, 5), (0, 7)]).pieces, w)),
        ),
        vector("row", Value::Null, encoded(|w| row(b"k").encode(w))),
        vector("row-full", Value::Null, encoded(|w| full_row().encode(w))),
        vector("page-empty", Value::Null, Page::Rows(Vec::new()).encode()),
        vector("page-rows", Value::Null, Page::Rows(vec![row(b"\0"), row(b"k"), full_row()]).encode()),
        vector("page-pages", Value::Null, Page::Pages(1, pages).encode()),
        vector(
            "table",
            Value::Null,
            encoded(|w| Table { level: 2, id: id(1), row_count: 301, content_len: 1 << 33 }.encode(w)),
        ),
        vector("snapshot-minimal", Value::Null, SNAPSHOT_MINIMAL.as_bytes().to_vec()),
        vector("snapshot-labelled", Value::Null, snapshot_labelled().into_bytes()),
        vector("snapshot-full", Value::Null, snapshot_full().into_bytes()),
    ]
}

/// Every valid vector.
pub fn all() -> Vec<Vector> {
    let mut all = plain_records();
    all.extend(archive_records());
    all.extend(records());
    all.push(vector("pack-content", with_master(&Value::Null), pack_bytes(Role::Content)));
    all.extend(deltas());
    all.extend(super::reflates::vectors());
    all.push(vector("pack-deltas", with_master(&Value::Null), pack_of_deltas()));
    all.extend(parities());
    let with_parity = pack_with_parity(Role::Content, Share::of_packs(100).unwrap());
    all.push(vector("pack-with-parity", with_master(&Value::Null), with_parity));
    all.push(vector("pack-tree", with_master(&Value::Null), pack_bytes(Role::Tree)));
    all.push(cuts("cuts-default", "default", 3_000_001, 255));
    all.push(cuts("cuts-db-text", "db-text", 1_000_003, 255));
    all.push(cuts("cuts-db-page", "db-page", 500_000, 15));
    all.push(cuts("cuts-blob", "blob", 8_000_000, 255));
    all.push(cuts("cuts-zeros", "default", 2_500_001, 0));
    all.push(cuts("cuts-short", "default", 65_536, 255));
    all
}
