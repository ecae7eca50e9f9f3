//! Recipes by the book (format-spec 15): a list of bits, one after the other, and the crate that the format names.

use std::io::Cursor as Bytes;

use preflate_rs::RecreateStreamProcessor;

type Result<T> = std::result::Result<T, String>;

fn byte(r: &mut &[u8]) -> Result<u8> {
    let (first, rest) = r.split_first().ok_or("truncated")?;
    *r = rest;
    Ok(*first)
}

fn varint(r: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let next = byte(r)?;
        value |= u64::from(next & 0x7f) << shift;
        if next < 0x80 {
            return Ok(value);
        }
    }
    Err("a number without end".to_owned())
}

fn take<'a>(r: &mut &'a [u8], len: u64) -> Result<&'a [u8]> {
    let (taken, rest) = r.split_at_checked(usize::try_from(len).unwrap()).ok_or("truncated")?;
    *r = rest;
    Ok(taken)
}

fn put(bits: &mut Vec<bool>, bytes: &[u8]) {
    bits.extend(bytes.iter().flat_map(|byte| (0..8).map(move |n| byte >> n & 1 == 1)));
}

fn packed(bits: &[bool]) -> Vec<u8> {
    let byte = |bits: &[bool]| bits.iter().enumerate().map(|(n, bit)| u8::from(*bit) << n).sum();
    bits.chunks(8).map(byte).collect()
}

/// The bits of a number, and of digits as they stand on the page.
fn number(value: u32, count: u32) -> Vec<bool> {
    (0..count).map(|n| value >> n & 1 == 1).collect()
}

fn digits(text: &str) -> Vec<bool> {
    text.bytes().filter(|digit| *digit != b' ').map(|digit| digit == b'1').collect()
}

/// Step 2: blocks of nothing.
fn alignment(bits_before: usize, alignment: u8) -> Vec<bool> {
    let mut blocks = Vec::new();
    if alignment % 2 == 1 {
        blocks.extend([digits("001"), number(0, 5), number(1, 5), number(15, 4)].concat());
        blocks.extend((0..19).flat_map(|n| number(u32::from(n == 2 || n == 17), 3)));
        blocks.extend([digits("1"), number(127, 7), digits("1"), number(106, 7), digits("0000 1")].concat());
    }
    while (bits_before + blocks.len()) % 8 != usize::from(alignment) {
        blocks.extend(digits("010 0000000"));
    }
    blocks
}

/// What a recipe makes of plain bytes.
pub fn make(plain: &[u8], recipe: &[u8]) -> Result<Vec<u8>> {
    let (mut plain, mut r) = (plain, recipe);
    let mut made: Vec<bool> = Vec::new();
    let mut dictionary: Vec<u8> = Vec::new();
    while !r.is_empty() {
        let kind = byte(&mut r)?;
        if kind != 2 {
            dictionary.clear();
        }
        if kind < 2 && !made.len().is_multiple_of(8) {
            return Err("bytes within a byte".to_owned());
        }
        match kind {
            0 => {
                let len = varint(&mut r)?;
                put(&mut made, take(&mut r, len)?);
            }
            1 => put(&mut made, take(&mut plain, varint(&mut r)?)?),
            2 => {
                let (plain_len, at, bit_len) = (varint(&mut r)?, byte(&mut r)?, varint(&mut r)?);
                let proof = take(&mut r, 32)?;
                let corrections_len = varint(&mut r)?;
                let corrections = take(&mut r, corrections_len)?;
                let text = [&dictionary, take(&mut plain, plain_len)?].concat();
                let whole = RecreateStreamProcessor::new().recompress(&mut Bytes::new(&text), corrections);
                let mut bits = Vec::new();
                put(&mut bits, &whole.map_err(|error| error.to_string())?.0);
                let stored = if dictionary.is_empty() { 0 } else { 8 * (5 + dictionary.len()) };
                let start = stored + alignment(stored, at).len();
                let bits = bits.get(start..start + usize::try_from(bit_len).unwrap()).ok_or("too few bits")?;
                let lens = [(dictionary.len() as u64).to_le_bytes(), bit_len.to_le_bytes()].concat();
                let proved = [dictionary.as_slice(), &packed(bits), &lens].concat();
                if blake3::hash(&proved).as_bytes() != proof {
                    return Err("a piece that is not proved".to_owned());
                }
                made.extend(bits);
                dictionary = text[text.len().saturating_sub(32_768)..].to_vec();
            }
            3 => {
                let (used, rest) = (made.len() % 8, byte(&mut r)?);
                if used == 0 || rest & ((1 << used) - 1) != 0 {
                    return Err("a rest that does not fit".to_owned());
                }
                made.extend(&number(u32::from(rest), 8)[used..]);
            }
            other => return Err(format!("record {other}")),
        }
    }
    if made.len().is_multiple_of(8) && plain.is_empty() {
        Ok(packed(&made))
    } else {
        Err("something is left".to_owned())
    }
}
