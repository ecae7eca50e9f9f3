//! What the invalid vectors are made of: each breaks one rule.

use compline::archive::entry::EntryKind;
use compline::codec::Writer;
use compline::crypto::{Purpose, SIGNATURE_LEN, Secret};
use compline::id::{ChunkId, RepositoryId};
use compline::store::config::ConfigHead;
use compline::store::envelope::{Header, ObjectType};
use compline::store::index_segment;
use compline::store::pack::{self, FrameKind, Lineage, Role};
use compline::store::parity::{self, Share};
use compline::store::rights::Grant;
use compline::store::signature::Signer;
use serde_json::{Value, json};

use super::valid;
use super::vectors::{Vector, vector};

struct Maker {
    made: Vec<Vector>,
}

impl Maker {
    fn add(&mut self, name: &str, bytes: Vec<u8>) {
        self.made.push(vector(name, Value::Null, bytes));
    }

    fn given(&mut self, name: &str, given: Value, bytes: Vec<u8>) {
        self.made.push(vector(name, given, bytes));
    }

    /// A record written field by field.
    fn write(&mut self, name: &str, fields: impl Fn(&mut Writer)) {
        let mut w = Writer::new();
        fields(&mut w);
        self.add(name, w.into_bytes());
    }

    /// A valid vector with `len` bytes at `at` replaced.
    fn change(&mut self, name: &str, of: &str, at: usize, len: usize, with: &[u8]) {
        let found = valid::all().into_iter().find(|vector| vector.name == of).expect("a valid vector");
        let mut bytes = found.bytes;
        bytes.splice(at..at + len, with.iter().copied());
        self.given(name, found.given, bytes);
    }

    fn extend(&mut self, name: &str, of: &str) {
        let found = valid::all().into_iter().find(|vector| vector.name == of).expect("a valid vector");
        self.change(name, of, found.bytes.len(), 0, &[0]);
    }
}

/// Every invalid vector that is made; those that fuzzing found are only on disk.
pub fn all() -> Vec<Vector> {
    let mut maker = Maker { made: Vec::new() };
    headers(&mut maker);
    keys(&mut maker);
    packs(&mut maker);
    parities(&mut maker);
    footers(&mut maker);
    lineages(&mut maker);
    deltas(&mut maker);
    entries(&mut maker);
    contents(&mut maker);
    trees(&mut maker);
    tables(&mut maker);
    records(&mut maker);
    key_objects(&mut maker);
    maker.made
}

fn headers(m: &mut Maker) {
    m.change("header-magic", "header-pack", 0, 1, b"c");
    m.change("header-type", "header-pack", 8, 1, &[4]);
    m.change("header-version", "header-pack", 9, 1, &[2]);
    m.change("header-key-slot", "header-pack", 10, 1, &[2]);
    m.change("header-truncated", "header-pack", 43, 1, &[]);
    m.extend("header-trailing", "header-pack");
    m.change("config-head-short", "config-head", 87, 1, &[]);
    m.extend("config-head-trailing", "config-head");
}

fn keys(m: &mut Maker) {
    m.change("key-extra-cost-memory", "key-extra-passphrase", 17, 4, &u32::MAX.to_le_bytes());
    m.change("key-extra-cost-no-memory", "key-extra-passphrase", 17, 4, &7u32.to_le_bytes());
    m.change("key-extra-cost-no-passes", "key-extra-passphrase", 21, 4, &[0; 4]);
    m.change("key-extra-cost-lanes", "key-extra-passphrase", 25, 4, &65u32.to_le_bytes());
    m.change("key-extra-file-with-cost", "key-extra-file", 25, 1, &[1]);
    m.change("key-extra-recipient-with-cost", "key-extra-recipient", 25, 1, &[1]);
    m.change("key-extra-read-only-with-cost", "key-extra-read-only", 25, 1, &[1]);
    m.extend("key-extra-trailing", "key-extra-file");
}

fn packs(m: &mut Maker) {
    m.change("trailer-magic", "trailer", 19, 1, b"d");
    m.change("trailer-no-footer", "trailer", 0, 4, &15u32.to_le_bytes());
    m.change("trailer-beyond-the-pack", "trailer", 0, 4, &99_937u32.to_le_bytes());
    m.change("trailer-parity-beyond-the-pack", "trailer", 4, 8, &u64::MAX.to_le_bytes());
    m.given("trailer-footer-too-long", json!({ "pack_len": 1u64 << 30 }), pack::encode_trailer((64 << 20) + 1));
    m.given("trailer-pack-too-long", json!({ "pack_len": (4u64 << 30) + 1 }), pack::encode_trailer(1000));
    let of_pack = |at: usize, xor: u8| {
        let mut bytes = valid::pack_bytes(Role::Content);
        bytes[at] ^= xor;
        bytes
    };
    let given = || valid::with_master(&Value::Null);
    let end = of_pack(0, 0).len();
    m.given("pack-role-changed", given(), of_pack(11, 3));
    m.given("pack-role-unknown", given(), of_pack(11, 7));
    m.given("pack-salt-changed", given(), of_pack(12, 1));
    m.given("pack-frame-changed", given(), of_pack(44, 1));
    m.given("pack-footer-changed", given(), of_pack(end - 21, 0x80));
    m.given("pack-footer-length-changed", given(), of_pack(end - 20, 1));
    m.given("pack-truncated", given(), of_pack(0, 0)[..end - 1].to_vec());
    let other = json!({ "master": "ff".repeat(32), "repository": valid::REPOSITORY });
    m.given("pack-of-another-repository", other, of_pack(0, 0));
}

/// Labels whose last field is right, so that what they say is looked at; and objects beyond healing.
fn parities(m: &mut Maker) {
    let mut label = |name: &str, at: usize, with: &[u8]| {
        let found = valid::all().into_iter().find(|vector| vector.name == "label-block").expect("a valid vector");
        let mut bytes = found.bytes;
        bytes[at..at + with.len()].copy_from_slice(with);
        let check = *blake3::hash(&bytes[..40]).as_bytes();
        bytes[40..].copy_from_slice(&check[..8]);
        m.add(name, bytes);
    };
    label("label-magic", 0, b"c");
    label("label-no-data", 12, &0u64.to_le_bytes());
    label("label-data-too-long", 12, &((1u64 << 32) + 1).to_le_bytes());
    label("label-too-many-shards", 12, &(1u64 << 30).to_le_bytes());
    label("label-shard-too-short", 24, &32u32.to_le_bytes());
    label("label-shard-too-long", 24, &((1u32 << 20) + 64).to_le_bytes());
    label("label-shard-odd", 24, &4095u32.to_le_bytes());
    label("label-no-parity", 28, &0u32.to_le_bytes());
    label("label-more-parity-than-data", 28, &2000u32.to_le_bytes());
    m.change("label-changed", "label-block", 8, 1, &[40]);
    m.change("label-check-changed", "label-block", 47, 1, &[0]);
    let mut damaged = |name: &str, damage: &dyn Fn(&mut Vec<u8>)| {
        m.made.push(valid::damaged(name, 300, 100, damage));
    };
    damaged("parity-four-shards", &|object| [0, 64, 128, 192].iter().for_each(|at| object[*at] ^= 1));
    damaged("parity-all-labels", &|object| {
        let start = 300 + 48 + 20;
        for at in [300, start, start + 112, start + 224, start + 336] {
            object[at] ^= 1;
        }
    });
    damaged("parity-cut-too-far", &|object| object.truncate(300));
    damaged("parity-shifted", &|object| object.insert(10, 0));
    let mut other = valid::damaged("parity-of-another-name", 300, 100, |_| {});
    other.given = json!({ "name": "00".repeat(32) });
    m.made.push(other);
}

fn footers(m: &mut Maker) {
    let footer = |m: &mut Maker, name: &str, frame: &dyn Fn(&mut Writer)| {
        m.write(name, |w| {
            w.varint(1);
            frame(w);
        });
    };
    let chunk = [7; 32];
    footer(m, "footer-frame-too-short", &|w| {
        w.u8(0).varint(15).varint(0).varint(1).bytes(&chunk).varint(1);
    });
    footer(m, "footer-frame-too-long", &|w| {
        w.u8(0).varint((16 << 20) + 17).varint(0).varint(1).bytes(&chunk).varint(1);
    });
    footer(m, "footer-raw-of-another-length", &|w| {
        w.u8(0).varint(117).varint(0).varint(1).bytes(&chunk).varint(100);
    });
    footer(m, "footer-extension-of-a-known-kind", &|w| {
        w.u8(1).varint(50).counted_bytes(b"x").varint(1).bytes(&chunk).varint(100);
    });
    footer(m, "footer-extension-too-long", &|w| {
        w.u8(2).varint(50).counted_bytes(&[0; 256]).varint(1).bytes(&chunk).varint(100);
    });
    footer(m, "footer-no-chunks", &|w| {
        w.u8(1).varint(50).varint(0).varint(0);
    });
    footer(m, "footer-too-many-chunks", &|w| {
        w.u8(1).varint(50).varint(0).varint(65_537);
    });
    footer(m, "footer-empty-chunk", &|w| {
        w.u8(1).varint(50).varint(0).varint(1).bytes(&chunk).varint(0);
    });
    footer(m, "footer-chunk-too-long", &|w| {
        w.u8(1).varint(50).varint(0).varint(1).bytes(&chunk).varint((8 << 20) + 1);
    });
    footer(m, "footer-frame-plain-too-long", &|w| {
        w.u8(1).varint(50).varint(0).varint(3);
        for _ in 0..3 {
            w.bytes(&chunk).varint(8 << 20);
        }
    });
    m.write("footer-no-frames", |w| {
        w.varint(0);
    });
    m.write("footer-count-beyond-the-bytes", |w| {
        w.varint(u64::MAX);
    });
    m.add("footer-varint-too-long", vec![0x81, 0x00]);
    m.add("footer-varint-overflow", vec![0xff; 10]);
    m.extend("footer-trailing", "footer");
    m.change("segment-version", "segment", 0, 1, &[2]);
    m.change("segment-role", "segment", 34, 1, &[9]);
    m.extend("segment-trailing", "segment");
    m.write("segment-footer-too-long", |w| {
        w.u8(1).varint(1).bytes(&[1; 32]).u8(1).varint(1000).varint((64 << 20) + 1);
    });
    m.write("segment-pack-too-long", |w| {
        w.u8(1).varint(1).bytes(&[1; 32]).u8(1).varint((4 << 30) + 1);
    });
    m.write("segment-footer-with-a-rest", |w| {
        let mut footer = pack::encode_footer(&[valid::frame(44, 17, FrameKind::Raw, &[(1, 1)])]);
        footer.push(0);
        w.u8(1).varint(1).bytes(&[1; 32]).u8(1).varint(1000).counted_bytes(&footer);
    });
}

/// Footers of one delta frame, and lineages.
fn lineages(m: &mut Maker) {
    let of_chunks = |extension: &[u8], count: u64| {
        let mut w = Writer::new();
        w.varint(1).u8(2).varint(50).counted_bytes(extension).varint(count);
        (0..count).for_each(|_| {
            w.bytes(&[7; 32]).varint(100);
        });
        w.into_bytes()
    };
    let sound = valid::lineage(1, 1, &[2]).encode();
    m.add("footer-delta-of-two-chunks", of_chunks(&sound, 2));
    m.add("footer-delta-without-extension", of_chunks(&[], 1));
    m.add("footer-delta-extension-cut", of_chunks(&sound[..34], 1));
    for (what, bases) in [("depth-zero", 1), ("no-base", 0), ("eight-bases", 8)] {
        let lineage = valid::lineage(u8::from(what != "depth-zero"), 1, &vec![2; bases]).encode();
        m.add(&format!("footer-delta-{what}"), of_chunks(&lineage, 1));
        m.add(&format!("lineage-{what}"), lineage);
    }
    m.add("lineage-odd-length", [sound.as_slice(), &[0]].concat());
}

fn deltas(m: &mut Maker) {
    let given = |plain_len: u64| json!({ "bases": [valid::ROWS], "plain_len": plain_len });
    let mut made = |name: &str, plain_len, ops: &[(usize, usize, usize)], literals: &str| {
        m.made.push(valid::delta_vector(name, &[valid::ROWS], plain_len, ops, literals));
    };
    made("delta-copy-beyond-the-base", 30, &[(0, 1, 30)], "");
    made("delta-empty-copy-beyond-the-base", 1, &[(1, 31, 0)], "x");
    made("delta-copy-too-long", 29, &[(0, 0, 30)], "");
    made("delta-copies-too-long", 40, &[(0, 0, 30), (0, 0, 30)], "");
    made("delta-literal-too-long", 3, &[(4, 0, 0)], "paid");
    made("delta-literals-and-copy-too-long", 33, &[(4, 0, 30)], "paid");
    made("delta-literals-missing", 19, &[(0, 0, 15), (4, 19, 0)], "pai");
    made("delta-literals-trailing", 34, &[(0, 0, 30)], "paid;");
    made("delta-too-short", 31, &[(0, 0, 30)], "");
    m.given("delta-copy-before-the-base", given(30), vec![1, 0, 30, 1]);
    m.given("delta-copy-start-overflow", given(30), [&[1, 0, 30, 0xfe], [0xff; 8].as_slice(), &[0x01]].concat());
    m.given("delta-too-many-operations", given(30), vec![100, 0, 30, 0]);
    m.given("delta-operations-cut", given(30), vec![2, 0, 0, 30, 0, 0]);
    m.given("delta-varint-too-long", given(30), vec![1, 0, 30, 0x80, 0]);
    let pack = |m: &mut Maker, name: &str, target: &[u8], delta: &[u8], sealed: &Lineage, listed: &Lineage| {
        m.given(name, valid::with_master(&Value::Null), valid::pack_of_one_delta(target, delta, sealed, listed));
    };
    let of = |id: ChunkId, depth: u8| Lineage { depth, generation: 1, bases: vec![id] };
    let rows = valid::pack_keys().chunk_id(valid::ROWS.as_bytes());
    let sound = of(rows, 1);
    let first_row = [1, 0, 10, 0];
    pack(m, "pack-delta-of-another-base", b"id 1 paid;", &first_row, &of(valid::id(9), 1), &sound);
    pack(m, "pack-delta-of-another-depth", b"id 1 paid;", &first_row, &sound, &of(rows, 2));
    pack(m, "pack-delta-of-another-chunk", b"id 1 open;", &first_row, &sound, &sound);
    let by = |signer| valid::pack_of_one_delta_by(signer, b"id 1 paid;", &first_row, &sound, &sound);
    m.given("pack-unsigned", valid::with_master(&Value::Null), by(None));
    m.given("pack-signed-by-a-reader", valid::with_master(&Value::Null), by(Some(&reader())));
    pack(m, "pack-delta-longer-than-its-chunk", b"ab", &[1, 1, 1, 0, b'a', b'b'], &sound, &sound);
}

fn entries(m: &mut Maker) {
    let named = |name: &[u8]| {
        let mut w = Writer::new();
        valid::entry(name, EntryKind::Fifo).encode(&mut w);
        w.into_bytes()
    };
    for (what, name) in [
        ("empty", b"".as_slice()),
        ("dot", b"."),
        ("dot-dot", b".."),
        ("slash", b"a/b"),
        ("nul", b"a\0b"),
        ("too-long", &[b'x'; 4097]),
    ] {
        m.add(&format!("entry-name-{what}"), named(name));
    }
    m.change("entry-kind", "entry-fifo", 0, 1, &[8]);
    m.change("entry-flag", "entry-fifo", 1, 1, &[2]);
    m.extend("entry-trailing", "entry-fifo");
    let changed = |change: &dyn Fn(&mut compline::archive::Entry)| {
        let mut entry = valid::entry(b"a", EntryKind::Fifo);
        change(&mut entry);
        let mut w = Writer::new();
        entry.encode(&mut w);
        // Bounds are checked before bytes are read, so the rest of what is too long is not needed.
        let mut bytes = w.into_bytes();
        bytes.truncate(1000);
        bytes
    };
    m.add("entry-mode", changed(&|entry| entry.metadata.mode = 0o10000));
    m.add("entry-user-too-long", changed(&|entry| entry.metadata.user = vec![b'u'; 257]));
    m.add("entry-nanoseconds", changed(&|entry| entry.metadata.ctime.nanoseconds = 1_000_000_000));
    let pair = |name: &[u8]| (name.to_vec(), Vec::new());
    m.add("entry-xattrs-not-sorted", changed(&|entry| entry.metadata.xattrs = vec![pair(b"b"), pair(b"a")]));
    m.add("entry-xattr-twice", changed(&|entry| entry.metadata.xattrs = vec![pair(b"a"), pair(b"a")]));
    m.add("entry-xattr-without-name", changed(&|entry| entry.metadata.xattrs = vec![pair(b"")]));
    m.add("entry-xattr-name-too-long", changed(&|entry| entry.metadata.xattrs = vec![pair(&[b'x'; 257])]));
    m.add("entry-field-to-be-understood", changed(&|entry| entry.metadata.later.set(7, Vec::new())));
    m.add("entry-field-too-long", changed(&|entry| entry.metadata.later.set(8, vec![0; 65_537])));
    m.add("entry-link-nul", changed(&|entry| entry.kind = EntryKind::Symlink(b"a\0".to_vec())));
    m.add("entry-link-too-long", changed(&|entry| entry.kind = EntryKind::Symlink(vec![b'x'; 65_537])));
    // Offsets: kind, flags, counted name "pipe", two bytes of mode, of uid, one of gid, ...
    m.change("entry-uid", "entry-fifo", 9, 2, &[0x80, 0x80, 0x80, 0x80, 0x10]);
}

fn contents(m: &mut Maker) {
    m.write("content-encoding", |w| {
        w.u8(2).u8(0).varint(0).varint(0);
    });
    m.write("content-reflated-algorithm", |w| {
        w.u8(1).varint(2).varint(1).varint(1).u8(0).varint(9).varint(1).varint(2).bytes(&[1; 32]);
    });
    m.write("content-reflated-without-recipe", |w| {
        w.u8(1).varint(1).varint(2).varint(0).u8(0).varint(9).varint(1).varint(2).bytes(&[1; 32]);
    });
    m.write("content-reflated-length", |w| {
        w.u8(1).varint(1).varint(2).varint(1).u8(0).varint(2).varint(1).varint(2).bytes(&[1; 32]);
    });
    m.write("recipe-kind", |w| {
        w.u8(4);
    });
    m.write("recipe-empty-literal", |w| {
        w.u8(0).varint(0);
    });
    m.write("recipe-literal-too-long", |w| {
        w.u8(0).varint(65_537);
    });
    m.write("recipe-empty-copy", |w| {
        w.u8(1).varint(0);
    });
    m.write("recipe-piece-too-long", |w| {
        w.u8(2).varint((1 << 24) + 1).u8(0).varint(1).bytes(&[1; 32]).varint(0);
    });
    m.write("recipe-piece-alignment", |w| {
        w.u8(2).varint(1).u8(8).varint(1).bytes(&[1; 32]).varint(0);
    });
    m.write("recipe-piece-without-bits", |w| {
        w.u8(2).varint(1).u8(0).varint(0).bytes(&[1; 32]).varint(0);
    });
    m.write("recipe-piece-too-many-bits", |w| {
        w.u8(2).varint(1).u8(0).varint((1 << 27) + 1).bytes(&[1; 32]).varint(0);
    });
    m.write("recipe-piece-too-many-corrections", |w| {
        w.u8(2).varint(1).u8(0).varint(1).bytes(&[1; 32]).varint(524_289);
    });
    m.write("recipe-rest-cut", |w| {
        w.u8(3);
    });
    m.write("content-too-deep", |w| {
        w.u8(0).u8(9).varint(0).varint(0);
    });
    m.write("content-deep-but-empty", |w| {
        w.u8(0).u8(1).varint(0).varint(0);
    });
    m.write("content-hole-among-lists", |w| {
        w.u8(0).u8(1).varint(5).varint(1).varint(5).bytes(&[0; 32]);
    });
    m.write("content-length", |w| {
        w.u8(0).u8(0).varint(6).varint(1).varint(5).bytes(&[1; 32]);
    });
    m.write("content-length-overflow", |w| {
        w.u8(0).u8(0).varint(0).varint(2).varint(1).bytes(&[1; 32]).varint(u64::MAX).bytes(&[1; 32]);
    });
    m.write("pieces-too-many", |w| {
        w.varint(4097);
    });
    m.write("pieces-empty-piece", |w| {
        w.varint(1).varint(0).bytes(&[1; 32]);
    });
    m.extend("pieces-trailing", "pieces");
}

fn trees(m: &mut Maker) {
    m.change("tree-version", "tree", 0, 1, &[2]);
    m.extend("tree-trailing", "tree");
    m.write("tree-count-beyond-the-bytes", |w| {
        w.u8(1).varint(u64::MAX);
    });
    for (what, names) in [("not-sorted", [b"b", b"a"]), ("name-twice", [b"a", b"a"])] {
        m.write(&format!("tree-{what}"), |w| {
            w.u8(1).varint(2);
            for name in names {
                valid::entry(name, EntryKind::Fifo).encode(w);
            }
        });
    }
}

fn tables(m: &mut Maker) {
    let mut bad_row = |name: &str, change: &dyn Fn(&mut compline::archive::table::Row)| {
        let mut row = valid::row(b"k");
        change(&mut row);
        m.write(name, |w| row.encode(w));
    };
    bad_row("row-key-empty", &|row| row.key.clear());
    bad_row("row-key-too-long", &|row| row.key = vec![b'k'; 4097]);
    bad_row("row-etag-too-long", &|row| row.etag = Some(vec![b'e'; 1025]));
    bad_row("row-field-to-be-understood", &|row| row.later.set(1, Vec::new()));
    bad_row("row-user-not-sorted", &|row| row.user = vec![(b"b".to_vec(), Vec::new()), (b"a".to_vec(), Vec::new())]);
    bad_row("row-user-empty", &|row| row.later.set(10, vec![0]));
    bad_row("row-modified-short", &|row| row.later.set(2, vec![0; 11]));
    m.change("page-version", "page-rows", 0, 1, &[2]);
    m.change("page-too-deep", "page-pages", 1, 1, &[9]);
    m.extend("page-trailing", "page-rows");
    m.write("page-without-pages", |w| {
        w.u8(1).u8(1).varint(0);
    });
    m.write("page-without-rows", |w| {
        w.u8(1).u8(1).varint(1).counted_bytes(b"a").bytes(&[1; 32]).varint(0).varint(0);
    });
    m.write("page-key-twice", |w| {
        w.u8(1).u8(0).varint(2);
        valid::row(b"k").encode(w);
        valid::row(b"k").encode(w);
    });
    m.write("table-too-deep", |w| {
        w.u8(9).bytes(&[1; 32]).varint(0).varint(0);
    });
}

fn records(m: &mut Maker) {
    let given = |object: &str| valid::with_master(&json!({ "object": object }));
    let tag = 132 + valid::CONFIG.len() + SIGNATURE_LEN;
    for (name, at) in [("salt", 12), ("detail", 11), ("extra", 44), ("public-key", 70), ("body", 150), ("tag", tag)] {
        let mut bytes = valid::config_object(0, valid::CONFIG);
        bytes[at] ^= 1;
        m.given(&format!("record-config-{name}-changed"), given("config"), bytes);
    }
    m.given("record-config-features", given("config"), valid::config_object(4, valid::CONFIG));
    m.given(
        "record-config-pack-length",
        given("config"),
        valid::config_object(0, &valid::CONFIG.replace("16777216", "100")),
    );
    let too_much = valid::CONFIG.replace(r#""parity":20"#, r#""parity":501"#);
    m.given("record-config-too-much-parity", given("config"), valid::config_object(0, &too_much));
    m.given("record-config-no-json", given("config"), valid::config_object(0, "{"));
    m.given("record-config-as-snapshot", given("snapshot"), valid::config_object(0, valid::CONFIG));
    let snapshot = valid::sealed(ObjectType::Snapshot, b"", b"short");
    signatures(m);
    m.given("record-snapshot-truncated", given("snapshot"), snapshot[..59].to_vec());
    let mut without = snapshot[..44 + 5 + SIGNATURE_LEN + 15].to_vec();
    without.extend(pack::encode_trailer(0));
    m.given("record-snapshot-body-too-short", given("snapshot"), without);
    m.given("record-snapshot-without-trailer", given("snapshot"), snapshot[..44 + 5 + SIGNATURE_LEN + 16].to_vec());
    for (name, at, value) in [("parity-beyond-the-record", 16, u64::MAX), ("trailer-of-a-pack", 20, 1)] {
        let mut bytes = snapshot.clone();
        let len = bytes.len();
        let value = value.to_le_bytes();
        let width = if at == 20 { 4 } else { 8 };
        bytes[len - at..len - at + width].copy_from_slice(&value[..width]);
        m.given(&format!("record-snapshot-{name}"), given("snapshot"), bytes);
    }
    let mut as_segment = snapshot;
    as_segment[8] = ObjectType::Segment as u8;
    m.given("record-snapshot-as-segment", given("segment"), as_segment);
    m.given("record-segment-bomb", given("segment"), bomb());
    for (name, text) in [
        ("no-json", "{".to_owned()),
        ("no-components", valid::SNAPSHOT_MINIMAL.replace(r#","components":[]"#, "")),
        ("status", valid::SNAPSHOT_MINIMAL.replace("complete", "nearly")),
        ("time", valid::SNAPSHOT_MINIMAL.replace("2026-09-21T00:10:00Z", "2026-09-31T00:10:00Z")),
        ("format-twice", valid::SNAPSHOT_MINIMAL.replace(r#""format":1"#, r#""format":1,"format":1"#)),
    ] {
        m.add(&format!("snapshot-{name}"), text.into_bytes());
    }
}

fn key_objects(m: &mut Maker) {
    let by_file = valid::key_given(&json!({ "key_file": valid::KEY_FILE }));
    let key = valid::key_object(&by_file);
    let with = |name: &str, value: Value| {
        let mut given = by_file.clone();
        given[name] = value;
        given
    };
    m.given(
        "record-key-of-another-file",
        with("key_file", json!(format!("compline-key-1:{}", "00".repeat(32)))),
        key.clone(),
    );
    m.given("record-key-of-another-repository", with("repository", json!("00".repeat(16))), key.clone());
    let mut other_card = key.clone();
    let card_end = parity::data_of(&key).expect("a key has parity").len();
    other_card[card_end - 1] ^= 1;
    m.given("record-key-card-changed", by_file.clone(), other_card);
    m.given("record-key-and-a-passphrase", with("passphrase", json!("x")), key);
    let (master, other) = (valid::master(), Secret::from_bytes([0x66; 32]));
    for (name, more, what) in [
        ("read-only-that-opens-everything", 32, (&master, Grant::All)),
        ("full-that-only-reads", 0, (&master, Grant::Read)),
        ("of-another-signer", 0, (&other, Grant::All)),
        ("read-only-of-another-signer", 32, (&other, Grant::Read)),
    ] {
        m.given(&format!("record-key-{name}"), by_file.clone(), valid::key_object_of(&by_file, more, what));
    }
}

/// Somebody who can seal, and signs with a key of their own.
fn reader() -> Signer {
    Signer::of(valid::REPOSITORY, &Secret::from_bytes([0x66; 32])).unwrap()
}

/// What opens, and is signed by nobody, by somebody else, or for somebody else.
fn signatures(m: &mut Maker) {
    let given = |object: &str| valid::with_master(&json!({ "object": object }));
    let twin = Signer::of(RepositoryId::from_bytes(*b"repository no. 2"), &valid::master()).unwrap();
    let head = ConfigHead::new(valid::REPOSITORY, &valid::master()).unwrap().encode();
    let segment = index_segment::encode(&[valid::pack_entry()]);
    for (name, object, extra, plain) in [
        ("config", ObjectType::Config, &head[..], valid::CONFIG.as_bytes()),
        ("snapshot", ObjectType::Snapshot, b"", valid::SNAPSHOT_MINIMAL.as_bytes()),
        ("segment", ObjectType::Segment, b"", &segment),
    ] {
        let by = |signer: &Signer| valid::sealed_by(signer, object, extra, plain);
        m.given(&format!("record-{name}-signed-by-a-reader"), given(name), by(&reader()));
        m.given(&format!("record-{name}-of-a-twin"), given(name), by(&twin));
        m.given(&format!("record-{name}-unsigned"), given(name), unsigned(object, extra, plain));
    }
    m.given(
        "record-snapshot-shorter-than-a-signature",
        given("snapshot"),
        unsigned(ObjectType::Snapshot, b"", b"short"),
    );
}

/// A record without a signature.
fn unsigned(object_type: ObjectType, extra: &[u8], plain: &[u8]) -> Vec<u8> {
    let purpose = if object_type == ObjectType::Segment { Purpose::Index } else { Purpose::Record };
    let header = Header { detail: 0, salt: valid::SALT }.encode(object_type);
    let (mut object, mut body) = ([&header, extra].concat(), plain.to_vec());
    valid::master().subkey(purpose).object_key(&header).seal(0, &object, &mut body);
    object.extend_from_slice(&body);
    if object_type.has_parity() {
        parity::protect(&mut object, 0, Share::RECORD);
    }
    object
}

/// A compressed segment that claims to be longer than a record may be.
fn bomb() -> Vec<u8> {
    let header = Header { detail: 1, salt: valid::SALT }.encode(ObjectType::Segment);
    let mut body = Writer::new();
    body.u32((256 << 20) + 1).bytes(b"\x28\xb5\x2f\xfd");
    let mut body = body.into_bytes();
    valid::signer().sign(&header, &mut body);
    valid::master().subkey(Purpose::Index).object_key(&header).seal(0, &header, &mut body);
    [header, body].concat()
}
