//! Bytes to meaning and back, for every record of the format: what the vectors are compared through.

use std::collections::BTreeMap;

use compline::archive::entry::{self, Content, Entry, EntryKind, Metadata, Piece, Reflated, Time};
use compline::archive::fields::Fields;
use compline::archive::snapshot::Snapshot;
use compline::archive::table::{Page, PageRef, Row, Table};
use compline::archive::tree::Tree;
use compline::chunker::{Chunker, Gear, Profile};
use compline::codec::{DecodeError, Reader, Writer};
use compline::crypto::{Purpose, Secret};
use compline::delta;
use compline::id::{ChunkId, RepositoryId, from_hex, to_hex};
use compline::reflate::{Record, decode_records, recreate};
use compline::storage::{MemoryStorage, ObjectKey, Storage};
use compline::store::card::CardReader;
use compline::store::config::{Config, ConfigHead};
use compline::store::envelope::{self, HEADER_LEN, Header, ObjectType};
use compline::store::index_segment::{self, PackEntry};
use compline::store::keyring::{self, Extra, Unlock};
use compline::store::pack::{self, Frame, FrameKind, Lineage, Role};
use compline::store::pack_reader::{FrameOpener, PackError, PackKeys, footer_of, undo, unpack, verify_chunks};
use compline::store::parity::{self, Geometry, Label};
use compline::store::rights::{Access, Deposits, Grant, Rights};
use compline::store::signature::Signer;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::vectors::from_text;
use super::{reference_delta, reference_parity};

type Decoded = Result<(Value, Vec<u8>), String>;

/// Meaning and encoding of `bytes`, or the error.
pub fn decode(shape: &str, bytes: &[u8], given: &Value) -> Decoded {
    match shape {
        "header" => header(bytes, given),
        "config" => config_head(bytes),
        "key" => key_extra(bytes),
        "trailer" => trailer(bytes, given),
        "footer" => footer(bytes),
        "lineage" => lineage(bytes),
        "delta" => delta(bytes, given),
        "segment" => segment(bytes),
        "entry" => whole(bytes, Entry::decode, Entry::encode, entry_meaning),
        "recipe" => recipe(bytes),
        "reflate" => reflate(bytes, given),
        "content" => whole(bytes, Content::decode, Content::encode, content_meaning),
        "pieces" => {
            whole(bytes, entry::decode_pieces, |pieces, w| entry::encode_pieces(pieces, w), |p| pieces_meaning(p))
        }
        "row" => whole(bytes, Row::decode, Row::encode, row_meaning),
        "table" => whole(bytes, Table::decode, Table::encode, table_meaning),
        "tree" => tree(bytes),
        "page" => page(bytes),
        "snapshot" => snapshot(bytes),
        "record" => record(bytes, given),
        "pack" => pack_object(bytes, given),
        "label" => label(bytes),
        "parity" => parity_object(bytes, given),
        "cuts" => cuts(bytes, given),
        other => Err(format!("no such shape: {other}")),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn text(error: impl ToString) -> String {
    error.to_string()
}

/// An error with its causes: `Error` says what happened, the innermost cause says why.
#[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn chain(error: compline::error::Error) -> String {
    format!("{}: {}", error.kind().code(), error.chain())
}

fn whole<T>(
    bytes: &[u8],
    decode: impl Fn(&mut Reader<'_>) -> Result<T, DecodeError>,
    encode: impl Fn(&T, &mut Writer),
    meaning: impl Fn(&T) -> Value,
) -> Decoded {
    let mut r = Reader::new(bytes);
    let value = decode(&mut r).map_err(text)?;
    r.end().map_err(text)?;
    let mut w = Writer::new();
    encode(&value, &mut w);
    Ok((meaning(&value), w.into_bytes()))
}

/// Bytes as text where they are text, else as digits.
fn shown(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => json!(text),
        _ => json!({ "hex": to_hex(bytes) }),
    }
}

fn object_type(given: &Value) -> ObjectType {
    match given["object"].as_str() {
        Some("config") => ObjectType::Config,
        Some("key") => ObjectType::Key,
        Some("pack") => ObjectType::Pack,
        Some("segment") => ObjectType::Segment,
        Some("snapshot") => ObjectType::Snapshot,
        other => panic!("given.object is {other:?}"),
    }
}

fn header(bytes: &[u8], given: &Value) -> Decoded {
    let object = object_type(given);
    let mut r = Reader::new(bytes);
    let header = Header::decode(object, &mut r).map_err(text)?;
    r.end().map_err(text)?;
    Ok((json!({ "detail": header.detail, "salt": to_hex(&header.salt) }), header.encode(object)))
}

fn config_head(bytes: &[u8]) -> Decoded {
    let head = ConfigHead::decode(bytes).map_err(text)?;
    let meaning = json!({
        "repository": head.repository, "features": head.features, "public": to_hex(&head.public),
        "deposit": to_hex(&head.deposit),
    });
    Ok((meaning, head.encode()))
}

fn key_extra(bytes: &[u8]) -> Decoded {
    let extra = Extra::decode(bytes).map_err(text)?;
    let cost = extra.cost;
    let meaning = json!({
        "repository": extra.repository, "derivation": extra.derivation,
        "memory_kib": cost.memory_kib, "passes": cost.passes, "lanes": cost.lanes,
    });
    Ok((meaning, extra.encode()))
}

fn trailer(bytes: &[u8], given: &Value) -> Decoded {
    let pack_len = given["pack_len"].as_u64().unwrap_or(u64::MAX);
    let range = pack::decode_trailer(bytes, pack_len).map_err(text)?;
    let parity_len = pack_len - 20 - range.end;
    let mut w = Writer::new();
    w.u32(u32::try_from(range.end - range.start).unwrap()).u64(parity_len).bytes(pack::TRAILER_MAGIC);
    let meaning =
        json!({ "footer_offset": range.start, "footer_len": range.end - range.start, "parity_len": parity_len });
    Ok((meaning, w.into_bytes()))
}

fn label(bytes: &[u8]) -> Decoded {
    let label = Label::decode(bytes).map_err(text)?;
    let Label { number, geometry: Geometry { data_len, footer_len, shard_len, parity_count }, hash } = label;
    let meaning = json!({
        "number": number, "data_len": data_len, "footer_len": footer_len, "shard_len": shard_len,
        "parity_count": parity_count, "hash": to_hex(&hash),
    });
    let mut encoded = label.encode();
    encoded.extend_from_slice(bytes.get(encoded.len()..).unwrap_or_default());
    Ok((meaning, encoded))
}

/// An object of a given name that may be damaged. The reference and the code make the same of it.
fn parity_object(bytes: &[u8], given: &Value) -> Decoded {
    let name: [u8; 32] = from_hex(given["name"].as_str().unwrap()).unwrap();
    let is_right = |healed: &[u8]| *blake3::hash(healed).as_bytes() == name;
    let by_the_book = reference_parity::heal(bytes, is_right);
    let healed = parity::heal(bytes, is_right);
    assert_eq!(healed.as_ref().ok().map(|healed| &healed.bytes), by_the_book.as_ref(), "the specification differs");
    let healed = healed.map_err(text)?;
    let meaning = json!({
        "healed": to_hex(&healed.bytes), "damaged": healed.damaged, "shard_count": healed.shard_count,
    });
    Ok((meaning, bytes.to_vec()))
}

fn frame_meaning(frame: &Frame) -> Value {
    let chunks: Vec<Value> = frame.chunks.iter().map(|(id, len)| json!({ "id": id, "len": len })).collect();
    json!({
        "offset": frame.offset, "sealed_len": frame.sealed_len, "kind": frame.kind.byte(),
        "extension": to_hex(&frame.extension), "plain_len": frame.plain_len, "chunks": chunks,
    })
}

fn footer(bytes: &[u8]) -> Decoded {
    let frames = pack::decode_footer(bytes).map_err(text)?;
    Ok((frames.iter().map(frame_meaning).collect(), pack::encode_footer(&frames)))
}

fn lineage(bytes: &[u8]) -> Decoded {
    let lineage = Lineage::decode(bytes).map_err(text)?;
    let meaning = json!({ "depth": lineage.depth, "generation": lineage.generation, "bases": lineage.bases });
    Ok((meaning, lineage.encode()))
}

/// A delta of the chunks that are given. Its operations are told by the reference, its target by both.
fn delta(bytes: &[u8], given: &Value) -> Decoded {
    let base: String = given["bases"].as_array().unwrap().iter().map(|base| base.as_str().unwrap()).collect();
    let plain_len = usize::try_from(given["plain_len"].as_u64().unwrap()).unwrap();
    let by_the_book = reference_delta::undo(bytes, base.as_bytes(), plain_len);
    let plain = match delta::decode(bytes, base.as_bytes(), plain_len) {
        Ok(plain) => plain,
        Err(error) => {
            assert!(by_the_book.is_err(), "the specification takes it for {by_the_book:?}");
            return Err(text(error));
        }
    };
    assert_eq!(by_the_book.as_ref(), Ok(&plain), "the specification makes something else of it");
    let (ops, literals) = reference_delta::parse(bytes)?;
    let shown_ops: Vec<Value> = ops
        .iter()
        .map(|op| json!({ "literal_len": op.literal_len, "copy_start": op.start, "copy_len": op.copy_len }))
        .collect();
    let meaning = json!({ "operations": shown_ops, "literals": shown(literals), "plain": shown(&plain) });
    Ok((meaning, reference_delta::write(&ops, literals)))
}

fn segment(bytes: &[u8]) -> Decoded {
    let packs = index_segment::decode(bytes).map_err(text)?;
    let meaning = |entry: &PackEntry| {
        let frames: Vec<Value> = entry.frames.iter().map(frame_meaning).collect();
        json!({ "id": entry.id, "role": entry.role as u8, "len": entry.len, "frames": frames })
    };
    Ok((packs.iter().map(meaning).collect(), index_segment::encode(&packs)))
}

fn time(time: Time) -> Value {
    json!([time.seconds, time.nanoseconds])
}

fn pairs(pairs: &[(Vec<u8>, Vec<u8>)]) -> Value {
    pairs.iter().map(|(name, value)| json!([shown(name), shown(value)])).collect()
}

fn fields(fields: &Fields) -> Value {
    fields.iter().map(|(number, value)| json!([number, to_hex(value)])).collect()
}

fn pieces_meaning(pieces: &[Piece]) -> Value {
    let meaning = |piece: &Piece| {
        if piece.is_hole() { json!({ "hole": piece.len }) } else { json!({ "id": piece.id, "len": piece.len }) }
    };
    pieces.iter().map(meaning).collect()
}

fn content_meaning(content: &Content) -> Value {
    let mut meaning = json!({ "len": content.len, "depth": content.depth, "pieces": pieces_meaning(&content.pieces) });
    if let Some(Reflated { plain_len, recipe_len }) = content.reflated {
        meaning["reflated"] = json!({ "plain_len": plain_len, "recipe_len": recipe_len });
    }
    meaning
}

fn recipe(bytes: &[u8]) -> Decoded {
    let records = decode_records(bytes).map_err(text)?;
    let mut w = Writer::new();
    for record in &records {
        record.encode(&mut w);
    }
    let meaning = |record: &Record| match record {
        Record::Literal(bytes) => json!({ "literal": shown(bytes) }),
        Record::Copy(len) => json!({ "copy": len }),
        Record::Rest(byte) => json!({ "rest": byte }),
        Record::Piece { plain_len, alignment, bit_len, proof, corrections } => json!({ "piece": {
            "plain_len": plain_len, "alignment": alignment, "bit_len": bit_len, "proof": proof.to_hex(),
            "corrections": to_hex(corrections),
        } }),
    };
    if records.is_empty() {
        Err("no records".to_owned())
    } else {
        Ok((records.iter().map(meaning).collect(), w.into_bytes()))
    }
}

/// Corrections of a piece whose plain bytes are given, and the bits that come of them.
fn reflate(bytes: &[u8], given: &Value) -> Decoded {
    let given_bytes = |name: &str| from_text(given[name].as_str().unwrap_or_default());
    let (alignment, bit_len) = (given["alignment"].as_u64().unwrap_or(0), given["bit_len"].as_u64().unwrap_or(0));
    let (dictionary, plain) = (given_bytes("dictionary"), given_bytes("plain"));
    let bits = recreate(&dictionary, &plain, bytes, u8::try_from(alignment).map_err(text)?, bit_len);
    let bits = bits.ok_or("these corrections are none for these bytes")?;
    Ok((json!({ "bits": to_hex(&bits) }), bytes.to_vec()))
}

fn kind_meaning(kind: &EntryKind) -> Value {
    match kind {
        EntryKind::File(content) => json!({ "file": content_meaning(content) }),
        EntryKind::Directory(content) => json!({ "directory": content_meaning(content) }),
        EntryKind::Symlink(target) => json!({ "symlink": shown(target) }),
        EntryKind::Fifo => json!("fifo"),
        EntryKind::Socket => json!("socket"),
        EntryKind::CharDevice(major, minor) => json!({ "char_device": [major, minor] }),
        EntryKind::BlockDevice(major, minor) => json!({ "block_device": [major, minor] }),
    }
}

fn entry_meaning(entry: &Entry) -> Value {
    let Entry { name, kind, metadata, changed_while_read } = entry;
    let Metadata { mode, uid, gid, user, group, mtime, ctime, device, inode, link_count, xattrs, later } = metadata;
    json!({
        "name": shown(name), "kind": kind_meaning(kind), "changed_while_read": changed_while_read, "mode": mode,
        "uid": uid, "gid": gid, "user": shown(user), "group": shown(group), "mtime": time(*mtime),
        "ctime": time(*ctime), "device": device, "inode": inode, "link_count": link_count,
        "xattrs": pairs(xattrs), "later": fields(later),
    })
}

fn tree(bytes: &[u8]) -> Decoded {
    let tree = Tree::decode(bytes).map_err(text)?;
    Ok((tree.entries.iter().map(entry_meaning).collect(), tree.encode()))
}

fn row_meaning(row: &Row) -> Value {
    let Row { key, content, modified, etag, version, content_type, user, later } = row;
    let text = |text: &Option<Vec<u8>>| text.as_ref().map(|text| shown(text));
    json!({
        "key": shown(key), "content": content_meaning(content), "modified": modified.map(time), "etag": text(etag),
        "version": text(version), "content_type": text(content_type), "user": pairs(user), "later": fields(later),
    })
}

fn page(bytes: &[u8]) -> Decoded {
    let page = Page::decode(bytes).map_err(text)?;
    let below = |page: &PageRef| {
        json!({
            "first_key": shown(&page.first_key), "id": page.id, "row_count": page.row_count,
            "content_len": page.content_len,
        })
    };
    let meaning = match &page {
        Page::Rows(rows) => json!({ "rows": rows.iter().map(row_meaning).collect::<Vec<_>>() }),
        Page::Pages(level, pages) => json!({ "level": level, "pages": pages.iter().map(below).collect::<Vec<_>>() }),
    };
    Ok((meaning, page.encode()))
}

fn table_meaning(table: &Table) -> Value {
    json!({ "level": table.level, "id": table.id, "row_count": table.row_count, "content_len": table.content_len })
}

/// Records are JSON already: the meaning is what is kept of it.
fn snapshot(bytes: &[u8]) -> Decoded {
    // The words of the JSON library may change; the class of its error does not.
    let snapshot: Snapshot =
        serde_json::from_slice(bytes).map_err(|error| format!("no snapshot record: {:?}", error.classify()))?;
    for component in &snapshot.components {
        if component.root.is_some() {
            component.root_entry().map_err(chain)?;
        }
    }
    Ok((serde_json::to_value(&snapshot).unwrap(), serde_json::to_vec(&snapshot).unwrap()))
}

pub fn secret(hex: &Value) -> Secret {
    Secret::from_bytes(from_hex(hex.as_str().expect("given has the key")).unwrap())
}

fn repository(given: &Value) -> RepositoryId {
    given["repository"].as_str().expect("given has the repository").parse().unwrap()
}

/// A sealed record: its plain extra part, and its plain body.
fn record(bytes: &[u8], given: &Value) -> Decoded {
    let object = object_type(given);
    if object == ObjectType::Key {
        return key_object(bytes, given);
    }
    let master = secret(&given["master"]);
    let purpose = if object == ObjectType::Segment { Purpose::Index } else { Purpose::Record };
    let is_deposit = envelope::is_deposit(bytes);
    let deposit = Deposits::new(master.subkey(Purpose::Deposit)).unwrap().key(bytes).filter(|_| is_deposit);
    let subkey = deposit.unwrap_or_else(|| master.subkey(purpose));
    let signer = Signer::of(repository(given), &master).unwrap();
    if object == ObjectType::Config {
        ConfigHead::read(bytes).and_then(|head| Config::open(bytes, &subkey, &head.verifier())).map_err(chain)?;
    }
    let plain = envelope::open_record(object, &subkey, Some(&signer.verifier()), bytes).map_err(text)?;
    let header = Header::decode(object, &mut Reader::new(bytes)).map_err(text)?;
    let extra = envelope::record_extra(object, bytes).map_err(text)?;
    let meaning = json!({ "detail": header.detail, "extra": to_hex(extra), "plain": shown(&plain) });
    let again = if is_deposit {
        envelope::seal_deposit(object, header.salt, &subkey, Some(&signer), &plain).map_err(chain)?
    } else {
        envelope::seal_record_salted(object, header.salt, &subkey, Some(&signer), extra, &plain).map_err(chain)?
    };
    // Two versions of zstd may write one plain text in two ways.
    let encoded = if header.detail == 0 { again } else { bytes.to_vec() };
    Ok((meaning, encoded))
}

pub fn unlock(given: &Value) -> Unlock {
    match given["passphrase"].as_str() {
        Some(text) => Unlock::Passphrase(Zeroizing::new(text.to_owned())),
        None => Unlock::from_key_file(given["key_file"].as_str().expect("given has passphrase or key_file")).unwrap(),
    }
}

fn key_object(bytes: &[u8], given: &Value) -> Decoded {
    let master = super::valid::master();
    let head = ConfigHead::new(repository(given), &master).unwrap();
    let unlock = unlock(given);
    let hash = blake3::hash(bytes);
    let id = compline::id::KeyId::from_bytes(hash.as_bytes()[..16].try_into().unwrap());
    let storage = MemoryStorage::new();
    storage.put_new(&ObjectKey::Key(id), bytes).map_err(text)?;
    let opened = keyring::open(&storage, &head, &unlock, None).map_err(chain)?;
    let header = Header::decode(ObjectType::Key, &mut Reader::new(bytes)).map_err(text)?;
    let extra = Extra::decode(envelope::record_extra(ObjectType::Key, bytes).map_err(text)?).map_err(text)?;
    let grant = match &opened.rights.access {
        Access::All { .. } => Grant::All,
        Access::Read(_) => Grant::Read,
        Access::Write(_, config) => Grant::Write(config),
    };
    // Who can't read knows no card, not even that of the own key.
    let cards = CardReader::new(repository(given), &Rights::all(super::valid::master()).unwrap()).unwrap();
    let card = cards.read(bytes).ok_or("no card")?;
    let mut meaning = serde_json::to_value(opened.rights.to_body(grant).map_err(chain)?).unwrap();
    meaning["card"] = serde_json::to_value(&card).unwrap();
    meaning["object"] = ObjectKey::Key(id).path().into();
    let encoded = keyring::seal(&extra, header.salt, &unlock, (&master, grant), &card).map_err(chain)?;
    Ok((meaning, encoded))
}

fn pack_object(bytes: &[u8], given: &Value) -> Decoded {
    let keys = PackKeys::new(repository(given), &Rights::all(secret(&given["master"])).unwrap()).unwrap();
    let head = bytes.get(..HEADER_LEN).ok_or("truncated")?;
    let header = Header::decode(ObjectType::Pack, &mut Reader::new(head)).map_err(text)?;
    let opener = FrameOpener::new(head, &keys).map_err(text)?;
    let (_, frames) = footer_of(bytes, &keys).map_err(text)?;
    let mut plains = vec![Vec::new(); frames.len()];
    let mut known: BTreeMap<ChunkId, Vec<u8>> = BTreeMap::new();
    // Deltas last: their bases are in the same pack.
    let mut order: Vec<usize> = (0..frames.len()).collect();
    order.sort_by_key(|n| Lineage::decode(&frames[*n].extension).map_or(0, |lineage| lineage.depth));
    for n in order {
        let frame = &frames[n];
        let range = usize::try_from(frame.offset).unwrap()..usize::try_from(frame.offset + frame.sealed_len).unwrap();
        let mut sealed = bytes[range].to_vec();
        let body =
            opener.unseal(frame.offset, frame.kind, frame.plain_len, &frame.extension, &mut sealed).map_err(text)?;
        if frame.kind == FrameKind::Delta {
            let lineage = Lineage::decode(&frame.extension).map_err(text)?;
            let bases: Option<Vec<&[u8]>> = lineage.bases.iter().map(|id| known.get(id).map(Vec::as_slice)).collect();
            let base = bases.map(|bases| bases.concat()).ok_or_else(|| text(PackError::NoBase))?;
            plains[n] = undo(frame.plain_len, body, &base).map_err(text)?;
        } else {
            unpack(frame.kind, frame.plain_len, body, &mut plains[n]).map_err(text)?;
        }
        verify_chunks(frame, &plains[n], &keys).map_err(text)?;
        let mut rest = plains[n].as_slice();
        for (id, len) in &frame.chunks {
            let (chunk, after) = rest.split_at(usize::try_from(*len).unwrap());
            known.insert(*id, chunk.to_vec());
            rest = after;
        }
    }
    let name = ObjectKey::Pack(compline::id::PackId::from_bytes(*blake3::hash(bytes).as_bytes())).path();
    let frames: Vec<Value> = frames.iter().map(frame_meaning).collect();
    let plains: Vec<Value> = plains.iter().map(|plain| shown(plain)).collect();
    let role = Role::from_byte(header.detail).ok_or("unknown role")? as u8;
    let meaning = json!({ "object": name, "role": role, "frames": frames, "plain": plains });
    Ok((meaning, bytes.to_vec()))
}

/// The stream that cut points are given for: `len` bytes of BLAKE3 output, each masked.
pub fn stream(given: &Value) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(given["len"].as_u64().unwrap()).unwrap()];
    let seed = given["seed"].as_str().unwrap();
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    let mask = u8::try_from(given["mask"].as_u64().unwrap()).unwrap();
    for byte in &mut bytes {
        *byte &= mask;
    }
    bytes
}

/// The bytes are the chunker's key; the meaning is the lengths of the chunks.
fn cuts(bytes: &[u8], given: &Value) -> Decoded {
    let key: [u8; 32] = bytes.try_into().map_err(text)?;
    let profile = Profile::named(given["profile"].as_str().unwrap()).ok_or("no such profile")?;
    let chunker = Chunker::new(Gear::new(&key), profile);
    let stream = stream(given);
    let lens: Vec<usize> = chunker.split(&stream).map(<[u8]>::len).collect();
    let by_the_book = super::reference_chunker::lens(&key, given["profile"].as_str().unwrap(), &stream);
    assert_eq!(lens, by_the_book, "the chunker of the specification cuts elsewhere");
    Ok((json!({ "lens": lens }), key.to_vec()))
}
