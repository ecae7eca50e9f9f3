//! What is fuzzed: every decoder of stored bytes, and the texts that people write. A decoder must not panic, must bound what
//! it allocates (`-rss_limit_mb` of the runner), and must encode what it accepted back to the same bytes.

use std::path::Path;

use compline::archive::entry::{self, Content, Entry};
use compline::archive::path::{ArchivePath, escape};
use compline::archive::snapshot::Snapshot;
use compline::archive::snapshots::Selector;
use compline::archive::table::{Page, Row, Table};
use compline::archive::tree::Tree;
use compline::chunker::{Batch, Chunker, Gear, PROFILES, Profile};
use compline::codec::{Decoded, Reader, Writer};
use compline::compress;
use compline::crypto::{Purpose, Secret};
use compline::delta::{self, BaseIndex, Encoded};
use compline::id::{KeyId, RepositoryId};
use compline::plan::Plan;
use compline::reflate::{Compressor, Header, Inflater, Piece, Step, decode_records, header, recreate};
use compline::storage::{Location, MemoryStorage, ObjectKey, Storage};
use compline::store::Unlock;
use compline::store::config::{Config, ConfigHead};
use compline::store::envelope::{self, ObjectType};
use compline::store::index_segment;
use compline::store::keyring::{self, Extra};
use compline::store::pack::{self, FrameKind, Lineage, Role};
use compline::store::pack_reader::{self, PackKeys};
use compline::store::parity::{self, Label, Share};
use compline::store::rights::Rights;
use compline::store::signature::Signer;
use compline::units;
use preflate_rs::recreate_whole_deflate_stream;

/// Name of a target, and what it does with bytes.
pub const ALL: &[(&str, fn(&[u8]))] = &[
    ("config", config),
    ("key", key),
    ("record", record),
    ("pack", pack_object),
    ("footer", footer),
    ("trailer", trailer),
    ("frame", frame),
    ("delta", delta_of_any_base),
    ("similar", similar),
    ("label", label),
    ("parity", parity_of_anything),
    ("segment", segment),
    ("entry", entry_record),
    ("tree", tree),
    ("content", content),
    ("pieces", pieces),
    ("recipe", recipe),
    ("reflate", reflate),
    ("deflate", deflate),
    ("snapshot", snapshot),
    ("page", page),
    ("row", row),
    ("table", table),
    ("path", path),
    ("plan", plan),
    ("words", words),
    ("chunker", chunker),
];

const SALT: [u8; 32] = *b"a salt that no one should repeat";
const REPOSITORY: RepositoryId = RepositoryId::from_bytes(*b"repository no. 1");

/// The master key of the vectors.
fn master() -> Secret {
    Secret::from_bytes(std::array::from_fn(|n| n as u8))
}

fn head() -> ConfigHead {
    ConfigHead::new(REPOSITORY, &master()).expect("any bytes sign")
}

/// Who signs what is fuzzed, so that the fuzzer gets behind the signature.
fn signer() -> Signer {
    Signer::of(REPOSITORY, &master()).expect("any bytes sign")
}

fn pack_keys() -> PackKeys {
    PackKeys::new(REPOSITORY, &Rights::all(master()).expect("any bytes are keys")).expect("any bytes are keys")
}

/// Decodes, and encodes back to the same bytes.
fn whole<T>(data: &[u8], decode: impl Fn(&mut Reader<'_>) -> Decoded<T>, encode: impl Fn(&T, &mut Writer)) {
    let mut r = Reader::new(data);
    if let Ok(value) = decode(&mut r) {
        let mut w = Writer::new();
        encode(&value, &mut w);
        assert_eq!(w.into_bytes(), data[..r.position()]);
    }
}

fn recipe(data: &[u8]) {
    if let Ok(records) = decode_records(data) {
        let mut w = Writer::new();
        for record in &records {
            record.encode(&mut w);
        }
        assert_eq!(w.into_bytes(), data);
    }
}

/// Any corrections of any plain bytes, which are said several times over: the first bytes say how long what is.
fn reflate(data: &[u8]) {
    let Some(([dictionary, plain, times, alignment], rest)) = data.split_first_chunk() else { return };
    let (dictionary, rest) = rest.split_at(rest.len().min(usize::from(*dictionary)));
    let (plain, corrections) = rest.split_at(rest.len().min(usize::from(*plain)));
    let plain = plain.repeat(1 + usize::from(*times));
    let bit_len = plain.len() as u64 * 3 + 1;
    if let Some(bits) = recreate(dictionary, &plain, corrections, alignment % 8, bit_len) {
        assert_eq!(bits.len() as u64, bit_len.div_ceil(8));
    }
}

/// Any deflated stream, taken apart and made again.
fn deflate(data: &[u8]) {
    caught();
    let data = match header(data) {
        Header::Len(len) => data.get(len..).unwrap_or_default(),
        Header::None | Header::Unfinished => data,
    };
    let mut inflater = Inflater::default();
    let mut at = 0;
    // In parts, as it is read.
    while let (used, step @ (Step::Unfinished | Step::Piece(_))) = inflater.step(&data[at..data.len().min(at + 100)]) {
        at += used;
        match step {
            Step::Piece(piece) => {
                again(&piece);
                if piece.is_last {
                    return;
                }
            }
            _ if at >= data.len() => return,
            _ => {}
        }
    }
}

fn again(piece: &Piece) {
    let bits = piece.bits();
    for alignment in [0, piece.skipped, 1, 6] {
        if let Some(corrections) = piece.corrections(&bits, alignment, &Compressor::default()) {
            let ours = recreate(&piece.dictionary, &piece.plain, &corrections, alignment, piece.bit_len);
            // Of what is thrown away the library may never come to an end.
            if alignment == 0
                && ours.as_ref() == Some(&bits)
                && let Some(theirs) = theirs(piece, &corrections)
            {
                assert_eq!(ours, Some(theirs));
            }
        }
    }
}

/// What the library makes of our corrections of a piece that begins with a byte.
fn theirs(piece: &Piece, corrections: &[u8]) -> Option<Vec<u8>> {
    let text = [piece.dictionary.as_slice(), &piece.plain].concat();
    let made = std::panic::catch_unwind(|| recreate_whole_deflate_stream(&text, corrections).ok()).ok().flatten()?;
    let head_len = if piece.dictionary.is_empty() { 0 } else { 5 + piece.dictionary.len() };
    let mut bits = made.get(head_len..)?.to_vec();
    bits.truncate(piece.bit_len.div_ceil(8) as usize);
    if piece.bit_len % 8 != 0 {
        *bits.last_mut()? &= (1 << (piece.bit_len % 8)) - 1;
    }
    (bits.len() as u64 * 8 >= piece.bit_len).then_some(bits)
}

/// The library that these go through asserts what it believes of its input, and that is caught: only what escapes counts here.
fn caught() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}

/// The plain part as it is; the body sealed, so that the fuzzer gets behind the encryption.
fn config(data: &[u8]) {
    if let Ok(head) = ConfigHead::decode(data) {
        assert_eq!(head.encode(), data);
    }
    let _refused = ConfigHead::read(data);
    let (head, subkey) = (head(), master().subkey(Purpose::Record));
    let object =
        envelope::seal_record_salted(ObjectType::Config, SALT, &subkey, Some(&signer()), &head.encode(), data);
    if let Ok(config) = Config::open(&object.expect("it is short"), &subkey, &head.verifier()) {
        assert!(config.pack_len <= 1 << 30);
    }
}

fn key(data: &[u8]) {
    if let Ok(extra) = Extra::decode(data) {
        assert_eq!(extra.encode(), data);
    }
    open_key(data);
    let unlock = key_file();
    // A body of any bytes under the right wrapping key, of each sort of key.
    if let Unlock::KeyFile(secret) = &unlock {
        let wrapping = compline::crypto::key_file_key(secret, &SALT);
        for derivation in [2, 18, 34] {
            let extra = Extra { repository: REPOSITORY, derivation, cost: compline::crypto::PassphraseCost::NONE };
            let extra = extra.encode();
            let object = envelope::seal_record_salted(ObjectType::Key, SALT, &wrapping, None, &extra, data);
            open_key(&object.expect("it is short"));
        }
    }
}

fn key_file() -> Unlock {
    Unlock::KeyFile(Secret::from_bytes([7; 32]))
}

fn open_key(object: &[u8]) {
    let hash = blake3::hash(object);
    let id = KeyId::from_bytes(hash.as_bytes()[..16].try_into().expect("a hash is longer"));
    let storage = MemoryStorage::new();
    storage.put_new(&ObjectKey::Key(id), object).expect("it is empty");
    let _refused = keyring::open(&storage, &head(), &key_file(), None);
}

fn record(data: &[u8]) {
    let types = [ObjectType::Config, ObjectType::Key, ObjectType::Segment, ObjectType::Snapshot];
    for object in types {
        let _refused = envelope::record_extra(object, data);
        for purpose in [Purpose::Record, Purpose::Index] {
            let _refused = envelope::open_record(object, &master().subkey(purpose), Some(&signer().verifier()), data);
        }
    }
    compressed_body(data);
}

/// The bytes as the plain text of a record that says it is compressed. A segment: those need no parity.
fn compressed_body(data: &[u8]) {
    let subkey = master().subkey(Purpose::Record);
    let header = envelope::Header { detail: 1, salt: SALT }.encode(ObjectType::Segment);
    let mut body = data.to_vec();
    signer().sign(&header, &mut body);
    subkey.object_key(&header).seal(0, &header, &mut body);
    let object = [header, body].concat();
    let _refused = envelope::open_record(ObjectType::Segment, &subkey, Some(&signer().verifier()), &object);
}

fn pack_object(data: &[u8]) {
    let keys = pack_keys();
    if data.len() >= envelope::HEADER_LEN {
        let _refused = pack_reader::FrameOpener::new(&data[..envelope::HEADER_LEN], &keys);
    }
    let _refused = pack_reader::footer_of(data, &keys);
    // The bytes as the plain footer of a pack, whatever frames it lists.
    let mut header = envelope::Header { detail: Role::Content as u8, salt: SALT }.encode(ObjectType::Pack);
    let mut footer = data.to_vec();
    signer().sign(&header, &mut footer);
    keys.index().object_key(&header).seal(header.len() as u64, &header, &mut footer);
    let trailer = pack::encode_trailer(u32::try_from(footer.len()).expect("it is short"));
    header.extend([footer, trailer].concat());
    assert!(pack_reader::footer_of(&header, &keys).is_err(), "no frames fill an empty pack");
}

fn footer(data: &[u8]) {
    if let Ok(frames) = pack::decode_footer(data) {
        assert_eq!(pack::encode_footer(&frames), data);
        assert!(frames.iter().all(|frame| frame.plain_len <= pack::FRAME_PLAIN_LEN_MAX));
        for frame in frames.iter().filter(|frame| frame.kind == FrameKind::Delta) {
            assert!(frame.chunks.len() == 1 && Lineage::decode(&frame.extension).is_ok());
        }
    }
    if let Ok(lineage) = Lineage::decode(data) {
        assert_eq!(lineage.encode(), data);
        assert!(lineage.depth > 0 && (1..=pack::BASE_COUNT_MAX).contains(&lineage.bases.len()));
    }
}

fn trailer(data: &[u8]) {
    let Some((len, trailer)) = data.split_first_chunk::<8>() else { return };
    let len = u64::from_le_bytes(*len);
    if let Ok(range) = pack::decode_trailer(trailer, len) {
        assert!(range.start >= 44 && range.start <= range.end && range.end <= len - 20);
    }
}

fn frame(data: &[u8]) {
    let Some((len, packed)) = data.split_first_chunk::<2>() else { return };
    let len = usize::from(u16::from_le_bytes(*len));
    if let Ok(plain) = compress::decompress(packed, len) {
        assert_eq!(plain.len(), len);
    }
}

/// Length of the target, length of the base (u16), base, delta. Then all of it as a delta over the base of the vectors.
fn delta_of_any_base(data: &[u8]) {
    let undo = |delta: &[u8], base: &[u8], len: usize| {
        if let Ok(plain) = delta::decode(delta, base, len) {
            assert_eq!(plain.len(), len);
        }
    };
    undo(data, b"id 1 paid;id 2 open;id 3 open;", 30);
    let Some(([a, b, c, d], rest)) = data.split_first_chunk::<4>() else { return };
    let base_len = usize::from(u16::from_le_bytes([*c, *d])).min(rest.len());
    let (base, delta) = rest.split_at(base_len);
    undo(delta, base, usize::from(u16::from_le_bytes([*a, *b])));
}

/// Length of the base (u16), base, target. Then all of it, and the same with its two parts exchanged, which is similar.
fn similar(data: &[u8]) {
    let Some((len, rest)) = data.split_first_chunk::<2>() else { return };
    let (base, target) = rest.split_at(usize::from(u16::from_le_bytes(*len)).min(rest.len()));
    round_trip(base, target);
    round_trip(rest, &[target, base].concat());
    let _any = delta::features(rest);
}

fn round_trip(base: &[u8], target: &[u8]) {
    let mut index = BaseIndex::default();
    index.fill(base);
    if let Some(Encoded { bytes: delta, .. }) = delta::encode(&index, base, target) {
        assert!(delta.len() < target.len());
        assert_eq!(delta::decode(&delta, base, target.len()).as_deref(), Ok(target));
    }
}

fn label(data: &[u8]) {
    if let Ok(label) = Label::decode(data) {
        assert_eq!(label.encode(), data[..parity::LABEL_LEN]);
    }
    // The fuzzer can't guess hashes: the last field is made right for it, and the label is put where it says it lies.
    let Some(fields) = data.first_chunk::<40>() else { return };
    let check = *blake3::hash(fields).as_bytes();
    let label = [fields.as_slice(), &check[..8]].concat();
    let Ok(decoded) = Label::decode(&label) else { return };
    assert_eq!(decoded.encode(), label);
    let at = decoded.geometry.data_len;
    if at < 1 << 16 {
        let mut object = data.repeat(at / data.len() + 1);
        object.truncate(at);
        object.extend_from_slice(&label);
        object.extend_from_slice(data);
        let _refused = parity::heal(&object, |_| true);
    }
}

/// Length (u16), share, count of flips, the flips (u16 each); what follows is in the place of the object's beginning. Then all
/// of it as an object.
fn parity_of_anything(data: &[u8]) {
    let _refused = parity::heal(data, |_| true);
    let Some(([a, b, share, count], rest)) = data.split_first_chunk::<4>() else { return };
    let mut object = vec![*share; usize::from(u16::from_le_bytes([*a, *b])) % 20_000 + 1];
    parity::protect(&mut object, 7, Share::of_packs(u16::from(*share)).expect("no share is so great"));
    let mut damaged = object.clone();
    let (flips, rest) = rest.split_at(rest.len().min(usize::from(*count) * 2));
    let len = rest.len().min(damaged.len());
    damaged[..len].copy_from_slice(&rest[..len]);
    for flip in flips.chunks_exact(2) {
        let at = usize::from(u16::from_le_bytes([flip[0], flip[1]])) % damaged.len();
        damaged[at] ^= 1;
    }
    if let Ok(healed) = parity::heal(&damaged, |bytes| bytes == object) {
        assert!(healed.bytes == object);
    }
}

fn segment(data: &[u8]) {
    if let Ok(packs) = index_segment::decode(data) {
        assert_eq!(index_segment::encode(&packs), data);
    }
}

fn entry_record(data: &[u8]) {
    whole(data, Entry::decode, Entry::encode);
}

fn tree(data: &[u8]) {
    if let Ok(tree) = Tree::decode(data) {
        assert_eq!(tree.encode(), data);
        assert!(tree.entries.iter().all(|entry| tree.get(&entry.name) == Some(entry)));
    }
}

fn content(data: &[u8]) {
    whole(data, Content::decode, Content::encode);
}

fn pieces(data: &[u8]) {
    whole(data, entry::decode_pieces, |pieces, w| entry::encode_pieces(pieces, w));
}

fn snapshot(data: &[u8]) {
    let Ok(snapshot) = serde_json::from_slice::<Snapshot>(data) else { return };
    for component in &snapshot.components {
        let _damaged = component.root_entry();
    }
    let again = serde_json::to_vec(&snapshot).expect("it was JSON");
    assert_eq!(serde_json::from_slice::<Snapshot>(&again).expect("it is what was written"), snapshot);
}

fn page(data: &[u8]) {
    if let Ok(page) = Page::decode(data) {
        assert_eq!(page.encode(), data);
    }
}

fn row(data: &[u8]) {
    whole(data, Row::decode, Row::encode);
}

fn table(data: &[u8]) {
    whole(data, Table::decode, Table::encode);
}

fn path(data: &[u8]) {
    let shown = escape(data);
    assert!(!shown.chars().any(char::is_control));
    if let Ok(path) = ArchivePath::parse(data) {
        assert_eq!(ArchivePath::parse(path.to_bytes()), Ok(path.clone()));
        let below = path.below(Path::new("/target"));
        assert!(below.starts_with("/target") && below.components().all(|part| part.as_os_str() != ".."));
    }
}

fn plan(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(plan) = Plan::load(Path::new("/plan.toml"), text)
    {
        assert_eq!(plan.in_capture_order().count(), plan.components().len());
        let _shown = plan.problems();
    }
}

/// Short texts of the command line.
fn words(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _refused = (text.parse::<Selector>(), text.parse::<Location>(), text.parse::<KeyId>());
    let _refused = (units::parse_size(text), units::parse_speed(text), units::parse_duration(text));
    let _refused = (Unlock::from_key_file(text), ObjectKey::from_path(text));
}

/// Chunks put together are the stream, keep to their bounds, and are the same however it is read and in whatever segments.
fn chunker(data: &[u8]) {
    let Some((how, data)) = data.split_first_chunk::<3>() else { return };
    let small = Profile { len_min: 64, len_avg: 256, len_max: 1024, ..PROFILES[0] };
    let chunker = Chunker::new(Gear::new(&[how[0]; 32]), small);
    let whole: Vec<&[u8]> = chunker.split(data).collect();
    assert_eq!(whole.concat(), data);
    assert!(whole.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= 1024));
    assert!(whole.iter().rev().skip(1).all(|chunk| chunk.len() >= 64));
    let dribble = Dribble(data, usize::from(how[1]) + 1);
    let mut segments = chunker.segments(dribble, usize::from(how[2]) * 16);
    let (mut start, mut batches) = (0, Vec::new());
    while let Some(segment) = segments.next_in(Vec::new()) {
        let mut segment = segment.expect("memory");
        segment.guess(&chunker);
        let (batch, next) = segment.settle(&chunker, start);
        start = next;
        batches.push(batch);
    }
    assert!(batches.iter().flat_map(Batch::chunks).eq(whole));
}

/// Gives at most so many bytes at a time.
struct Dribble<'a>(&'a [u8], usize);

impl std::io::Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = buffer.len().min(self.1);
        std::io::Read::read(&mut self.0, &mut buffer[..len])
    }
}
