//! Vectors of pieces: what zlib, miniz and hands deflated, taken apart by the library that the format names, and made again.

use compline::archive::entry::Reflated;
use compline::codec::Writer;
use compline::id::to_hex;
use compline::reflate::{Bits, Compressor, Piece, Record, proof};
use miniz_oxide::deflate::compress_to_vec;
use serde_json::{Value, json};

use super::valid::content;
use super::vectors::{Vector, from_text, vector};

/// [`rows`], deflated by zlib 1.2.13 at level 1.
const ZLIB_1: &str = "55d64b6e1c310c04d07d4e3147688aa43eb94d108f77818389835c3fcd26d555de197059a2f4d8945f1fff1ec7f7c7cfbf7f3e3f7e3d5f8f \
    e3f1f17a7bbe9e6ff1d3fbe3f78fd7e7e3f8f63a5342a925ebcea9dc41b9828d8253e71deced0eda15540a0e1f7770e91d5c57d028d847bf \
    83edfc9baa51fa95744afaf23be96719956c7e253b27c5eee43c4f5649cd3507254dcfdaea821acab4ac735252fd3c6e25fd5c7ed79977b4 \
    28d9c67983959c67c9bbce79d529ac230b3e4150511b1965223940e4b0943cbd305283d104a6d6feacb40c4a8252a53a849d6687939d3fee \
    3bad52196ac4a9eb0206916a9e8aa5c6012941ad960d254cd5c3a75635b45eab285b79fc7e1700d5e417b6b20e2b546a5969632a9da08a8f \
    60ab66a734a66a0b541daa9257d5be5009ac506805594a14528af6f376dd696329075487a9e5e91b43ad01a80553ab45196a2e4029dacfb2 \
    531a434d01545cef6eea8a32d450402d98ee0258aa3ba41ad59ac752a6f201aa18435540dd953295c578d8df2a54134059ca0e4835945aa8 \
    ca561a73ac1675a8b66c1565ab169fd2de1facd580ca581298158daea953d5f9bf5881cad07ef5a12853012aba7b43d53467a81547de9ba3 \
    4ec90f45196a1aa00cfda779a7c650a3032a9e812aa0c68f31541f8012d45a43cd58ca17a4a296bd6a4e4a632917480da0d6fc3596328514 \
    4a6d39548da1d401155fedde3f5f0a63a93640d5615acf8f3195c42b5a02a8b49e34632b1158c5f356fbd73b696c156f7dadd949357bca99 \
    6ac59b53d178876bd16c6967a919236f178af6cba672861a1350d109fba2ae91e6ec340e382d90e6447166ea311bf6eea833efde99c9a339 \
    2b1923b376af3a59c9e26e2a39015a6767249d84843af73f33aca40794e25f8baf4ace4aad812936a8e869ff1f";
/// [`rows`], deflated by zlib 1.2.13 at level 6.
const ZLIB_6: &str = "65d64b6edc301004d07d4ea123a8ff646e13c4e35d30816c23d74f220aac1267a745416ce935c93e9e7fb6fdfbf6f3ebe3f3f9eb716cfbf6 \
    3cde1ec7e3edffd3fbf6fbc7f1b9eddf8e7f29a154973e73263328675029d8accd60ea0cfa19340a56d40c769bc17e069d825939835a583a \
    cf6450327acc64b499d43893c949f1996c7d266dbcb328e966581d65faa8b351d242b1baa3cef18f3a25b504ab07ea6ce3b7b38e74f8080a \
    f51a5126921d44014b195f2f8ca4306ac0b46b7d56ea0e2541a97275083bb5849327de7a95ca50d50055446a23ca52b5434a50ab8f8612a6 \
    4a0595a3f5f48ab25538ac0aaa835fd8ca1356a8d447a5ca54d64065d47da35394a9b4832aa12ae357e98d4a608542af204b8941cad07ea1 \
    23ca5201a884a98faf5786ea05a80e53bf5eca50ad03cad07e3e3a4519aa09a0525ea20c5506a8ae2f05b05406a434d7cf32a68a0255d4fa \
    af8ca9bc81aab505c058ca7748a9aea8c656a6b00a5b5bc5d84a1d58cdd70634c6920496b4a5a9ed66052aefeb4631a60254dbd7cd670cd5 \
    1550e2eb96b67e5b1d501eeb41e10c5509a8caf5f87186ca0294eceba1e62c151d522eeb49e92c1502a9a2febb6a652937da56eba1ee0c65 \
    0128a3e36fdc14ce525aa04a985ed78f339574baa9d62bcdd94a045646ed777d3f5b19a89254afbb97a97a80aa4375141a2cd512524a77da \
    483254351a26e84a1bc9db34b1d33401d2d127711b2794c68958df791b279cc6895ceb64254f1a276afdf6db7e6a84242f3ff4364fec344f \
    e8aa14b7814269a030b6ff0b";
/// [`rows`], deflated by zlib 1.2.13 at level 9.
const ZLIB_9: &str = "65d64d92d4300c05e03da7c811a25fdbdc86627a76d4506128ae0fb4537ecfea5d2f5eb5957c8aa5ebe3cf717e3dbefffef5f9f1e3711de7 \
    f171bd3daec7dbff5fefc7cf6fd7e7717eb9fea5845243c6ca99aca03c834ac16e7d055357d09f41a3608bb682c356703c834ec16cb982da \
    70743e9341c918b192d15752e3994c4e8aaf641f2b69f33f1b25dd0ca7a34c9f75764a5a284e77d439dfd1a0a436c1e9813afb7cedac2303 \
    3e8242bdcd2813c909a280a5cca7174652187560da7d3e2b0d8792a054b93b849d7ac2c913ff7a97ca50ad03aa11a9cd284bb51352825a7d \
    369430552aa81cada77794adc261d5a03af985ad3c61854a7d56aa4c651d5446dd373b45994a07a812aa325f956e54022b147a07594a0c52 \
    86f60b9d51960a40254c7d3ebd32d468801a30f5fb4f19aa0f4019dacf67a72843750154ca4b94a19a016ae84b012c950129cdfa58c654d1 \
    4015adbe2b632aefa0eabd00184bf90929d58a6a6c650aabb0da2ac656eac0ea5e1bd0184b1258d24b53db66052a1ff54331a602543febc7 \
    670c351450e2f593b6b19d0e288f7a513843b50454cb7afdb86c63025072d64bcd759b139072a937a5db362820d5b4debfeedba4a0cfaa5e \
    ea1edba40094b53a293cb75101aaec75fc78db46054daa3ad29cad44606556e7a4b395812afd65f632d508508d28f33c641b1490d2515684 \
    d06d4ed0327196ad23b66de2a46d42ca2213db3aa1b44e44fdcf6d9d705a27b2d699db90a075a2d567dfbea74e48f2f242b77de2a47d42ab \
    526c0b85d242616cff17";

/// Some rows of text.
pub fn rows() -> Vec<u8> {
    let row =
        |n: usize| format!("row {n}: customer {} ordered {} of part {}\n", n * 7919 % 1000, n * 31 % 97, n * n % 53);
    (0..60).map(row).collect::<String>().into_bytes()
}

fn piece(dictionary: &[u8], plain: &[u8], deflated: &[u8], skipped: u8, is_last: bool) -> Piece {
    let bit_len = deflated.len() as u64 * 8 - u64::from(skipped);
    let (dictionary, plain, deflated) = (dictionary.to_vec(), plain.to_vec(), deflated.to_vec());
    Piece { dictionary, plain, deflated, skipped, bit_len, is_last }
}

fn reflate(name: &str, piece: &Piece, alignment: u8) -> Vector {
    let corrections =
        piece.corrections(&piece.bits(), alignment, &Compressor::default()).expect("it can be taken apart");
    let given = json!({
        "dictionary": to_hex(&piece.dictionary), "plain": to_hex(&piece.plain), "alignment": alignment, "bit_len": piece.bit_len,
    });
    vector(name, given, corrections)
}

/// A fixed block of "abc", behind so many bits, and a stored block of "xyz" behind it.
fn by_hand(skipped: u8) -> Piece {
    let mut bits = Bits::default();
    bits.extend(&[0xff], u64::from(skipped));
    // 010, then a, b, c and the end in the fixed code, the highest bit of each first.
    bits.extend(&[2], 3);
    for letter in [b'a', b'b', b'c'] {
        bits.extend(&[(letter + 0x30).reverse_bits()], 8);
    }
    bits.extend(&[0], 7);
    bits.extend(&[0], 3);
    bits.extend(&[0], (8 - bits.len() % 8) % 8);
    bits.extend(&[3, 0, 0xfc, 0xff, b'x', b'y', b'z'], 56);
    piece(b"before", b"abcxyz", &bits.into_bytes(), skipped, false)
}

pub fn vectors() -> Vec<Vector> {
    let rows = rows();
    let (before, behind) = rows.split_at(1000);
    let miniz = compress_to_vec(&rows, 6);
    let mut all = vec![
        reflate("reflate-zlib-1", &piece(b"", &rows, &from_text(ZLIB_1), 0, true), 0),
        reflate("reflate-zlib-6", &piece(b"", &rows, &from_text(ZLIB_6), 0, true), 0),
        reflate("reflate-zlib-9", &piece(b"", &rows, &from_text(ZLIB_9), 0, true), 0),
        reflate("reflate-miniz", &piece(b"", &rows, &miniz, 0, true), 0),
        reflate("reflate-dictionary", &piece(before, behind, &compress_to_vec(behind, 6), 0, true), 0),
        reflate("reflate-stored", &piece(b"", &rows, &compress_to_vec(&rows, 0), 0, true), 0),
    ];
    for skipped in 1..8 {
        all.push(reflate(&format!("reflate-alignment-{skipped}"), &by_hand(skipped), skipped));
    }
    all.push(vector("recipe", Value::Null, recipe()));
    let reflated = content(0, &[(1, 65_536), (2, 300)]);
    let content = compline::archive::Content {
        len: 20_000,
        reflated: Some(Reflated { plain_len: 65_536, recipe_len: 300 }),
        ..reflated
    };
    let mut w = Writer::new();
    content.encode(&mut w);
    all.push(vector("content-reflated", Value::Null, w.into_bytes()));
    all
}

fn recipe() -> Vec<u8> {
    let piece = by_hand(3);
    let bits = piece.bits();
    let proof = proof(&piece.dictionary, &bits, piece.bit_len);
    let corrections = piece.corrections(&bits, 3, &Compressor::default()).expect("it can be taken apart");
    let records = [
        Record::Literal(b"\x1f\x8b\x08".to_vec()),
        Record::Copy(1 << 40),
        Record::Piece { plain_len: 6, alignment: 3, bit_len: piece.bit_len, proof, corrections },
        Record::Rest(0b1010_0000),
    ];
    let mut w = Writer::new();
    for record in &records {
        record.encode(&mut w);
    }
    w.into_bytes()
}

#[test]
fn pieces_are_taken_apart_the_same_way_as_when_the_vectors_were_made() {
    // Another way would not be wrong, but is worth knowing of.
    for Vector { name, bytes, .. } in vectors() {
        let text = std::fs::read_to_string(super::vectors::directory("valid").join(format!("{name}.hex"))).unwrap();
        assert_eq!(from_text(&text), bytes, "{name}");
    }
}
