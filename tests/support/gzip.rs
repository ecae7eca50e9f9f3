//! Compressing, where no program is asked to.

use miniz_oxide::deflate::compress_to_vec;

/// A gzip member. Its sum is none: nobody looks at it here.
pub fn gzip(bytes: &[u8], level: u8) -> Vec<u8> {
    let mut member = vec![0x1f, 0x8b, 8, 0, 1, 2, 3, 4, 0, 255];
    member.extend(compress_to_vec(bytes, level));
    member.extend_from_slice(b"sum!");
    member.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
    member
}
