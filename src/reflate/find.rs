//! Where deflated data begins: told by its bytes, never by a name.
//!
//! Sought are members of gzip and of zip archives wherever they are, and zlib streams where they are usual: in front, and as streams
//! of PDF. Two bytes of zlib's would be found in noise at every turn. What looks like a beginning and is none is found out
//! when it is inflated.

use memchr::memmem;

/// A header that is longer is taken for none. Those of zip have a name of up to 64 KiB; nobody has such names.
pub const HEADER_LEN_MAX: usize = 4096;

const GZIP: [u8; 3] = [0x1f, 0x8b, 8];
const ZIP: [u8; 4] = *b"PK\x03\x04";
const ZLIB: u8 = 0x78;
/// What stands before a stream of PDF, with the first byte of zlib.
const PDF: [&[u8]; 2] = [b"stream\nx", b"stream\r\nx"];
/// The longest of all that is sought.
const SOUGHT_LEN_MAX: usize = 9;
/// Searched at once, so that several searches read memory once.
const BLOCK_LEN: usize = 128 << 10;

const GZIP_HEADER_CHECK: u8 = 2;
const GZIP_EXTRA: u8 = 4;
const GZIP_NAME: u8 = 8;
const GZIP_COMMENT: u8 = 16;
const GZIP_RESERVED: u8 = 0xe0;
const ZIP_HEADER_LEN: usize = 30;
const ZIP_ENCRYPTED: u8 = 1;
const ZIP_DEFLATED: u16 = 8;
const ZLIB_DICTIONARY: u8 = 0x20;

/// What stands where something may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// Nothing.
    None,
    /// That can't be told yet.
    Unfinished,
    /// So many bytes of header; deflated data is behind them.
    Len(usize),
}

/// The first place from `from` on where a header may begin. `is_front`: `bytes` is the beginning of everything.
#[must_use]
pub fn next_start(bytes: &[u8], from: usize, is_front: bool) -> Option<usize> {
    if is_front && from == 0 && bytes.first() == Some(&ZLIB) {
        return Some(0);
    }
    let mut start = from;
    while start < bytes.len() {
        let end = bytes.len().min(start + BLOCK_LEN + SOUGHT_LEN_MAX);
        if let Some(at) = next_in(&bytes[start..end]) {
            return Some(start + at);
        }
        start += BLOCK_LEN;
    }
    None
}

fn next_in(block: &[u8]) -> Option<usize> {
    let plain = [GZIP.as_slice(), ZIP.as_slice()].into_iter().filter_map(|sought| memmem::find(block, sought));
    let pdf = PDF.into_iter().filter_map(|sought| memmem::find(block, sought).map(|at| at + sought.len() - 1));
    plain.chain(pdf).min()
}

/// How many bytes at the end of `bytes` may be the beginning of something sought.
#[must_use]
pub fn held_back(bytes: &[u8]) -> usize {
    let sought = [GZIP.as_slice(), ZIP.as_slice()].into_iter().chain(PDF);
    let held = sought.map(|sought| (1..sought.len()).rev().find(|len| bytes.ends_with(&sought[..*len])).unwrap_or(0));
    held.max().unwrap_or(0)
}

/// What `bytes` begins with.
#[must_use]
pub fn header(bytes: &[u8]) -> Header {
    let len = match bytes {
        [0x1f, 0x8b, 8, ..] => gzip(bytes),
        [b'P', b'K', 3, 4, ..] => zip(bytes),
        [ZLIB, ..] => zlib(bytes),
        _ => Ok(Header::None),
    };
    match len {
        Ok(Header::Len(len)) if len > HEADER_LEN_MAX => Header::None,
        Ok(header) => header,
        Err(Short) if bytes.len() >= HEADER_LEN_MAX => Header::None,
        Err(Short) => Header::Unfinished,
    }
}

/// There is more to a header than there are bytes.
struct Short;

fn byte(bytes: &[u8], at: usize) -> Result<u8, Short> {
    bytes.get(at).copied().ok_or(Short)
}

fn number(bytes: &[u8], at: usize) -> Result<usize, Short> {
    Ok(usize::from(u16::from_le_bytes([byte(bytes, at)?, byte(bytes, at + 1)?])))
}

/// RFC 1952.
fn gzip(bytes: &[u8]) -> Result<Header, Short> {
    let flags = byte(bytes, 3)?;
    if flags & GZIP_RESERVED != 0 {
        return Ok(Header::None);
    }
    let mut len = 10;
    if flags & GZIP_EXTRA != 0 {
        len += 2 + number(bytes, len)?;
    }
    for text in [GZIP_NAME, GZIP_COMMENT] {
        if flags & text != 0 {
            let rest = bytes.get(len..).ok_or(Short)?;
            len += memchr::memchr(0, rest).ok_or(Short)? + 1;
        }
    }
    Ok(Header::Len(len + if flags & GZIP_HEADER_CHECK != 0 { 2 } else { 0 }))
}

/// APPNOTE.TXT of PKWARE, 4.3.7.
fn zip(bytes: &[u8]) -> Result<Header, Short> {
    let is_encrypted = byte(bytes, 6)? & ZIP_ENCRYPTED != 0;
    if is_encrypted || number(bytes, 8)? != usize::from(ZIP_DEFLATED) {
        return Ok(Header::None);
    }
    Ok(Header::Len(ZIP_HEADER_LEN + number(bytes, 26)? + number(bytes, 28)?))
}

/// RFC 1950.
fn zlib(bytes: &[u8]) -> Result<Header, Short> {
    let (method, flags) = (byte(bytes, 0)?, byte(bytes, 1)?);
    let is_right = u16::from_be_bytes([method, flags]).is_multiple_of(31) && flags & ZLIB_DICTIONARY == 0;
    Ok(if is_right { Header::Len(2) } else { Header::None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_gzip_have_the_length_that_their_flags_say() {
        let header_of = |flags: u8, rest: &[u8]| {
            let mut bytes = vec![0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 0, 3];
            bytes.extend_from_slice(rest);
            header(&bytes)
        };
        assert_eq!(header_of(0, b""), Header::Len(10));
        assert_eq!(header_of(GZIP_NAME, b"name\0data"), Header::Len(15));
        assert_eq!(header_of(GZIP_NAME | GZIP_COMMENT, b"n\0c\0"), Header::Len(14));
        assert_eq!(header_of(GZIP_EXTRA | GZIP_NAME | GZIP_HEADER_CHECK, b"\x03\0abcn\0"), Header::Len(19));
        assert_eq!(header_of(GZIP_NAME, b"name"), Header::Unfinished);
        assert_eq!(header_of(GZIP_NAME, &[b'n'; HEADER_LEN_MAX]), Header::None);
        assert_eq!(header_of(0x20, b""), Header::None);
    }

    #[test]
    fn zip_members_that_are_deflated_are_told_from_others() {
        let zip = |flags: u8, method: u8| {
            let mut bytes = [0; 40];
            bytes[..4].copy_from_slice(&ZIP);
            (bytes[6], bytes[8], bytes[26], bytes[28]) = (flags, method, 5, 2);
            header(&bytes)
        };
        assert_eq!(zip(8, 8), Header::Len(37));
        assert_eq!(zip(0, 0), Header::None);
        assert_eq!(zip(1, 8), Header::None);
        assert_eq!(header(b"PK\x03\x04"), Header::Unfinished);
    }

    #[test]
    fn zlib_counts_in_front_and_in_pdf() {
        assert_eq!(next_start(b"x\x9cabc", 0, true), Some(0));
        assert_eq!(next_start(b"x\x9cabc", 0, false), None);
        assert_eq!(next_start(b"<< >> stream\r\nx\x9c", 0, true), Some(14));
        assert_eq!(header(b"x\x9c"), Header::Len(2));
        assert_eq!(header(b"xy"), Header::None);
    }

    #[test]
    fn what_is_sought_is_found_at_every_place_and_in_every_part() {
        for at in [0, 1, BLOCK_LEN - 2, BLOCK_LEN - 1, BLOCK_LEN, 2 * BLOCK_LEN + 5] {
            let mut bytes = vec![b'.'; 3 * BLOCK_LEN];
            bytes[at..at + 3].copy_from_slice(&GZIP);
            assert_eq!(next_start(&bytes, 0, false), Some(at), "{at}");
            assert_eq!(next_start(&bytes, at + 1, false), None, "{at}");
        }
        assert_eq!(held_back(b"..\x1f\x8b"), 2);
        assert_eq!(held_back(b"..stream\r"), 7);
        assert_eq!(held_back(b"nothing"), 0);
    }
}
