//! Deltas, written from format-spec/06-delta.md alone: nothing of compline is used. Slow and plain, so that it can be
//! compared with the page by eye.

use super::reference_reader::{Cursor, Result};

/// Literals, then a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op {
    pub literal_len: usize,
    /// Where the copy begins in the base.
    pub start: usize,
    pub copy_len: usize,
}

/// Operations, and all literals. Where copies lie is known only as far as the fields say it: nothing is compared with a base.
pub fn parse(delta: &[u8]) -> Result<(Vec<Op>, &[u8])> {
    let mut r = Cursor(delta);
    let count = r.len()?;
    if count > r.0.len() / 3 {
        return Err("more operations than bytes for them".to_owned());
    }
    let column = |r: &mut Cursor<'_>| (0..count).map(|_| r.varint()).collect::<Result<Vec<u64>>>();
    let (literal_lens, copy_lens, steps) = (column(&mut r)?, column(&mut r)?, column(&mut r)?);
    let mut ops = Vec::new();
    // The end of the last copy in the base.
    let mut end = 0_i128;
    for ((literal_len, copy_len), step) in literal_lens.into_iter().zip(copy_lens).zip(steps) {
        // 0, 1, 2, 3, 4 stand for 0, -1, 1, -2, 2.
        let step = if step % 2 == 0 { i128::from(step / 2) } else { -i128::from(step / 2) - 1 };
        let start = end + i128::from(literal_len) + step;
        end = start + i128::from(copy_len);
        let number = |n: i128| usize::try_from(n).map_err(|_| "no place in the base".to_owned());
        let op =
            Op { literal_len: number(literal_len.into())?, start: number(start)?, copy_len: number(copy_len.into())? };
        ops.push(op);
    }
    Ok((ops, r.0))
}

/// The target.
pub fn undo(delta: &[u8], base: &[u8], plain_len: usize) -> Result<Vec<u8>> {
    let (ops, mut literals) = parse(delta)?;
    let mut plain = Vec::new();
    for Op { literal_len, start, copy_len } in ops {
        let (new, rest) = literals.split_at_checked(literal_len).ok_or("literals are missing")?;
        let end = start.checked_add(copy_len).filter(|end| *end <= base.len()).ok_or("a copy from beyond the base")?;
        if plain.len() + new.len() + copy_len > plain_len {
            return Err("a delta that makes too much".to_owned());
        }
        plain.extend_from_slice(new);
        plain.extend_from_slice(&base[start..end]);
        literals = rest;
    }
    plain.extend_from_slice(literals);
    if plain.len() == plain_len { Ok(plain) } else { Err("a delta of another length than its chunk".to_owned()) }
}

/// The bytes of a delta, sound or not.
pub fn write(ops: &[Op], literals: &[u8]) -> Vec<u8> {
    let mut delta = Vec::new();
    varint(ops.len() as u64, &mut delta);
    for op in ops {
        varint(op.literal_len as u64, &mut delta);
    }
    for op in ops {
        varint(op.copy_len as u64, &mut delta);
    }
    let mut end = 0;
    for op in ops {
        let step = op.start as i128 - (end + op.literal_len) as i128;
        let number = if step < 0 { -2 * step - 1 } else { 2 * step };
        varint(u64::try_from(number).unwrap(), &mut delta);
        end = op.start + op.copy_len;
    }
    delta.extend_from_slice(literals);
    delta
}

fn varint(mut value: u64, bytes: &mut Vec<u8>) {
    while value > 127 {
        bytes.push(u8::try_from(value % 128).unwrap() + 128);
        value /= 128;
    }
    bytes.push(u8::try_from(value).unwrap());
}
