//! Parity as format-spec/14-parity.md has it, written from there alone and slowly: nothing of compline or of its code for
//! Reed-Solomon is used. Heals by solving the equations of the code, so it is for short objects.

use std::collections::BTreeMap;
use std::ops::Range;

const LABEL_LEN: usize = 48;
const BASIS: [u16; 16] = [
    0x0001, 0xacca, 0x3c0e, 0x163e, 0xc582, 0xed2e, 0x914c, 0x4012, 0x6c98, 0x10d8, 0x6a72, 0xb900, 0xfdb8, 0xfb34,
    0xff38, 0x991e,
];

/// The numbers that a label tells.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Numbers {
    data_len: usize,
    footer_len: u32,
    shard_len: usize,
    parity_count: usize,
}

impl Numbers {
    fn shard_count(&self) -> usize {
        self.data_len.div_ceil(self.shard_len)
    }

    fn table_len(&self) -> usize {
        LABEL_LEN + 4 * self.shard_count()
    }

    fn block(&self, number: usize) -> Range<usize> {
        let start = self.data_len + self.table_len() + number * (LABEL_LEN + self.shard_len);
        start..start + LABEL_LEN + self.shard_len
    }

    fn tables(&self) -> [usize; 2] {
        [self.data_len, self.block(self.parity_count).start]
    }
}

fn hash<const LEN: usize>(bytes: &[u8]) -> [u8; LEN] {
    blake3::hash(bytes).as_bytes()[..LEN].try_into().unwrap()
}

/// Number, what it tells, and the hash of what follows.
fn label(bytes: &[u8]) -> Option<(u32, Numbers, [u8; 8])> {
    let bytes = bytes.get(..LABEL_LEN)?;
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let numbers = Numbers {
        data_len: usize::try_from(u64::from_le_bytes(bytes[12..20].try_into().unwrap())).ok()?,
        footer_len: u32_at(20),
        shard_len: u32_at(24) as usize,
        parity_count: u32_at(28) as usize,
    };
    let is_label = &bytes[..8] == b"COMPLPAR" && bytes[40..] == hash::<8>(&bytes[..40]);
    is_label.then_some((u32_at(8), numbers, bytes[32..40].try_into().unwrap()))
}

fn write_label(number: u32, numbers: &Numbers, body: &[u8]) -> Vec<u8> {
    let mut label = b"COMPLPAR".to_vec();
    label.extend(number.to_le_bytes());
    label.extend((numbers.data_len as u64).to_le_bytes());
    label.extend(numbers.footer_len.to_le_bytes());
    label.extend(u32::try_from(numbers.shard_len).unwrap().to_le_bytes());
    label.extend(u32::try_from(numbers.parity_count).unwrap().to_le_bytes());
    label.extend(hash::<8>(body));
    label.extend(hash::<8>(&label));
    label
}

/// The field: polynomials modulo x^16 + x^5 + x^3 + x^2 + 1.
fn times(a: u16, b: u16) -> u16 {
    let (mut a, mut product) = (u32::from(a), 0);
    for bit in 0..16 {
        if b >> bit & 1 == 1 {
            product ^= a;
        }
        a <<= 1;
        if a >> 16 == 1 {
            a ^= 0x1_002d;
        }
    }
    u16::try_from(product).unwrap()
}

fn inverse(a: u16) -> u16 {
    // a^(2^16 - 2)
    (1..16)
        .fold((1, a), |(product, power), _| {
            let power = times(power, power);
            (times(product, power), power)
        })
        .0
}

/// The element that a number of 16 bits stands for: the sum of the basis elements of its bits.
fn element(number: u16) -> u16 {
    (0..16).filter(|bit| number >> bit & 1 == 1).fold(0, |sum, bit| sum ^ BASIS[bit])
}

/// The number that stands for an element.
fn number(element: u16) -> u16 {
    // Gauss over bits: few enough to try the basis from its leading bits down.
    let mut rows: Vec<(u16, u16)> = (0..16).map(|bit| (BASIS[bit], 1 << bit)).collect();
    let (mut rest, mut number) = (element, 0);
    for bit in (0..16).rev() {
        let Some(at) = rows.iter().position(|(row, _)| row >> bit & 1 == 1) else { continue };
        let (row, mark) = rows.swap_remove(at);
        for other in &mut rows {
            if other.0 >> bit & 1 == 1 {
                *other = (other.0 ^ row, other.1 ^ mark);
            }
        }
        if rest >> bit & 1 == 1 {
            (rest, number) = (rest ^ row, number ^ mark);
        }
    }
    number
}

/// The symbol `at` of a shard: its block of 64 bytes has the low bytes first.
fn symbol(shard: &[u8], at: usize) -> u16 {
    let low = at / 32 * 64 + at % 32;
    u16::from_le_bytes([shard[low], shard[low + 32]])
}

fn set_symbol(shard: &mut [u8], at: usize, value: u16) {
    let low = at / 32 * 64 + at % 32;
    [shard[low], shard[low + 32]] = value.to_le_bytes();
}

/// Solves the equations of the code for the points in `unknown`, given the shards of all others.
fn solve(known: &BTreeMap<usize, Vec<u8>>, unknown: &[usize], shard_len: usize) -> BTreeMap<usize, Vec<u8>> {
    let point = |n: usize| element(u16::try_from(n).unwrap());
    let count = unknown.len();
    // PAR-5: for each power j below the number of points of parity, the sum of w(x) x^j is nothing. As many of these as
    // there are unknown points are enough; the matrix is one of Vandermonde.
    let mut rows: Vec<Vec<u16>> = (0..count)
        .map(|power| unknown.iter().map(|n| (0..power).fold(1, |product, _| times(product, point(*n)))).collect())
        .collect();
    let mut sums: Vec<Vec<u16>> = vec![vec![0; shard_len / 2]; count];
    for (n, shard) in known {
        let mut power = 1;
        for sum in &mut sums {
            for (at, cell) in sum.iter_mut().enumerate() {
                *cell ^= times(power, element(symbol(shard, at)));
            }
            power = times(power, point(*n));
        }
    }
    for column in 0..count {
        let pivot = (column..count).find(|row| rows[*row][column] != 0).unwrap();
        rows.swap(column, pivot);
        sums.swap(column, pivot);
        let factor = inverse(rows[column][column]);
        rows[column].iter_mut().for_each(|cell| *cell = times(*cell, factor));
        sums[column].iter_mut().for_each(|cell| *cell = times(*cell, factor));
        for row in (0..count).filter(|row| *row != column) {
            let factor = rows[row][column];
            let (from, sum) = (rows[column].clone(), sums[column].clone());
            rows[row].iter_mut().zip(from).for_each(|(cell, with)| *cell ^= times(factor, with));
            sums[row].iter_mut().zip(sum).for_each(|(cell, with)| *cell ^= times(factor, with));
        }
    }
    let mut solved = BTreeMap::new();
    for (n, sum) in unknown.iter().zip(sums) {
        let mut shard = vec![0; shard_len];
        sum.into_iter().enumerate().for_each(|(at, value)| set_symbol(&mut shard, at, number(value)));
        solved.insert(*n, shard);
    }
    solved
}

/// The whole object as its data and the numbers make it.
fn whole(data: &[u8], numbers: &Numbers) -> Vec<u8> {
    let points = numbers.parity_count.next_power_of_two();
    let padded = |shard: &[u8]| [shard, &vec![0; numbers.shard_len - shard.len()]].concat();
    let known = data.chunks(numbers.shard_len).enumerate().map(|(n, shard)| (points + n, padded(shard))).collect();
    let parity = solve(&known, &(0..points).collect::<Vec<_>>(), numbers.shard_len);
    let hashes: Vec<u8> = data.chunks(numbers.shard_len).flat_map(hash::<4>).collect();
    let table = [write_label(u32::MAX, numbers, &hashes), hashes].concat();
    let blocks: Vec<u8> = (0..numbers.parity_count)
        .flat_map(|n| [write_label(u32::try_from(n).unwrap(), numbers, &parity[&n]), parity[&n].clone()].concat())
        .collect();
    let part = [table.clone(), blocks, table].concat();
    let trailer = [&numbers.footer_len.to_le_bytes()[..], &(part.len() as u64).to_le_bytes(), b"COMPLEND"].concat();
    [data, &part, &trailer].concat()
}

/// What `object` was before it was damaged, if `is_right` says so.
pub fn heal(object: &[u8], is_right: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    (0..object.len().saturating_sub(8)).rev().find_map(|at| {
        let (number, numbers, _) = label(&object[at..])?;
        let lies_right = match number {
            u32::MAX => numbers.tables().contains(&at),
            number => numbers.block(number as usize).start == at,
        };
        let healed = if lies_right { heal_as(object, &numbers) } else { None };
        healed.filter(|healed| is_right(healed))
    })
}

fn heal_as(object: &[u8], numbers: &Numbers) -> Option<Vec<u8>> {
    let Numbers { data_len, shard_len, parity_count, .. } = *numbers;
    let points = parity_count.next_power_of_two();
    let mut known: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
    let mut lost = Vec::new();
    for n in 0..numbers.shard_count() {
        let shard = object.get(n * shard_len..data_len.min((n + 1) * shard_len));
        let entries =
            numbers.tables().map(|table| object.get(table + LABEL_LEN + 4 * n..table + LABEL_LEN + 4 * n + 4));
        match shard {
            // PAR-7: an entry of either table is enough.
            Some(shard) if entries.contains(&Some(&hash::<4>(shard))) => {
                known.insert(points + n, [shard, &vec![0; shard_len - shard.len()]].concat());
            }
            _ => lost.push(points + n),
        }
    }
    for n in 0..parity_count {
        let Some((head, shard)) = object.get(numbers.block(n)).map(|block| block.split_at(LABEL_LEN)) else { continue };
        if label(head) == Some((u32::try_from(n).unwrap(), *numbers, hash(shard))) {
            known.insert(n, shard.to_vec());
        }
    }
    // Points of parity that were lost, or never stored, are unknown too.
    let unknown: Vec<usize> = (0..points).filter(|n| !known.contains_key(n)).chain(lost).collect();
    if unknown.len() > points {
        return None;
    }
    known.extend(solve(&known, &unknown, shard_len));
    let data: Vec<u8> = (0..numbers.shard_count()).flat_map(|n| known[&(points + n)].clone()).take(data_len).collect();
    Some(whole(&data, numbers))
}
