//! Parity (format-spec 14): what lets an object be healed from itself, pure.
//!
//! ```text
//! data     header, frames and footer of a pack; a whole record
//! table    label, then four bytes of hash for each shard of the data
//! blocks   label, then one shard of parity; as many as were chosen
//! table    the same once more
//! trailer
//! ```
//! The data is cut into shards; the code makes parity shards of them, and any so many of both give the data back. Hashes
//! tell which shards to trust. Each label says all there is to know of the arrangement, so that any one of them is enough:
//! neither the trailer nor a certain place has to survive. A burst damages one of the two tables at most, because all blocks
//! lie between them.
//!
//! Everything behind the data follows from the data and four numbers. So an object heals to exactly the bytes that were
//! written, and its name, which is their hash, proves it. Nothing else is proven here: hashes and labels are plain, and
//! whoever can write to the storage can forge them.

use std::ops::Range;

use memchr::memmem;
use reed_solomon_simd::engine::{DefaultEngine, Engine, Naive, ShardsRefMut, utils};
use reed_solomon_simd::rate::{HighRateDecoder, RateDecoder};
use serde::{Deserialize, Serialize};

use super::pack::{self, PACK_LEN_MAX, TRAILER_LEN};
use crate::codec::{Decoded, Reader, Writer};

/// First bytes of every label.
pub const LABEL_MAGIC: &[u8; 8] = b"COMPLPAR";
/// Length of a label.
pub const LABEL_LEN: usize = 8 + 4 + 8 + 4 + 4 + 4 + 8 + 8;
/// What the label of a table has in the place of a number.
const TABLE_NUMBER: u32 = u32::MAX;
/// Bytes of hash for each shard of the data.
const SHARD_HASH_LEN: usize = 4;
/// Bytes of hash in a label.
const LABEL_HASH_LEN: usize = 8;
/// Shards are multiples of this, the unit of the code.
const SHARD_UNIT: usize = 64;
/// Longest shard.
const SHARD_LEN_MAX: usize = 1 << 20;
/// Most shards: data, and parity as the next power of two.
const SHARD_COUNT_MAX: usize = 1 << 16;
/// So many parity shards more than the share asks for: a burst may begin and end within a shard, and the last one is short.
const SPARE_COUNT: usize = 2;

/// How much parity an object gets, in thousandths of its data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Share(u16);

impl Share {
    /// No parity.
    pub const NONE: Self = Self(0);
    /// What packs get by default (decision `parity`).
    pub const PACK: Self = Self(20);
    /// What snapshots, keys and the config get: they are small, and much hangs on them.
    pub const RECORD: Self = Self(1000);
    /// The most that packs may get.
    pub const PACK_MAX: Self = Self(500);

    /// So many thousandths, if packs may get so much.
    #[must_use]
    pub fn of_packs(thousandths: u16) -> Option<Self> {
        (thousandths <= Self::PACK_MAX.0).then_some(Self(thousandths))
    }

    /// Whether packs may get so much.
    #[must_use]
    pub fn is_for_packs(self) -> bool {
        self.0 <= Self::PACK_MAX.0
    }
}

/// How data and parity lie in an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Length of the data.
    pub data_len: usize,
    /// What the trailer says of the footer; zero in records.
    pub footer_len: u32,
    /// Length of a shard.
    pub shard_len: usize,
    /// Shards of parity.
    pub parity_count: usize,
}

impl Geometry {
    /// How `data_len` bytes are protected; none if they are not.
    ///
    /// Short shards cost labels and hashes, long ones the two that are to spare: the length between is about the root.
    #[must_use]
    pub fn choose(data_len: usize, footer_len: u32, share: Share) -> Option<Self> {
        if share == Share::NONE || data_len == 0 {
            return None;
        }
        let thousandths = u128::from(share.0);
        let weighed = data_len as u128 * (4000 + 24 * thousandths) / 1000;
        let mut shard_len = (1_usize << (weighed.ilog2() / 2)).clamp(SHARD_UNIT, SHARD_LEN_MAX);
        loop {
            let wanted = (data_len as u128 * thousandths).div_ceil(1000 * shard_len as u128);
            let shard_count = data_len.div_ceil(shard_len);
            let parity_count = usize::try_from(wanted).unwrap_or(usize::MAX).min(shard_count) + SPARE_COUNT;
            let geometry = Self { data_len, footer_len, shard_len, parity_count };
            if geometry.is_allowed() || shard_len >= SHARD_LEN_MAX {
                return Some(geometry).filter(Self::is_allowed);
            }
            shard_len *= 2;
        }
    }

    fn is_allowed(&self) -> bool {
        let Self { data_len, shard_len, parity_count, .. } = *self;
        if !shard_len.is_multiple_of(SHARD_UNIT) || !(SHARD_UNIT..=SHARD_LEN_MAX).contains(&shard_len) {
            return false;
        }
        let shard_count = data_len.div_ceil(shard_len);
        data_len as u64 <= PACK_LEN_MAX
            && (1..=SHARD_COUNT_MAX).contains(&shard_count)
            && (1..=shard_count + SPARE_COUNT).contains(&parity_count)
            && shard_count + parity_count.next_power_of_two() <= SHARD_COUNT_MAX
    }

    fn shard_count(&self) -> usize {
        self.data_len.div_ceil(self.shard_len)
    }

    fn table_len(&self) -> usize {
        LABEL_LEN + SHARD_HASH_LEN * self.shard_count()
    }

    fn block_len(&self) -> usize {
        LABEL_LEN + self.shard_len
    }

    /// Length of the parity part.
    #[must_use]
    pub fn part_len(&self) -> usize {
        2 * self.table_len() + self.parity_count * self.block_len()
    }

    /// Length of the whole object.
    fn object_len(&self) -> usize {
        self.data_len + self.part_len() + TRAILER_LEN
    }

    /// Where the two tables lie in the object.
    fn tables(&self) -> [Range<usize>; 2] {
        let second = self.data_len + self.table_len() + self.parity_count * self.block_len();
        [self.data_len, second].map(|start| start..start + self.table_len())
    }

    /// Where the block `number` lies in the object.
    fn block(&self, number: usize) -> Range<usize> {
        let start = self.data_len + self.table_len() + number * self.block_len();
        start..start + self.block_len()
    }

    /// Whether a label that says this, and is of `number`, may lie at `at`.
    fn has_label_at(&self, number: u32, at: usize) -> bool {
        match number {
            TABLE_NUMBER => self.tables().iter().any(|table| table.start == at),
            number => (number as usize) < self.parity_count && self.block(number as usize).start == at,
        }
    }

    fn trailer(&self) -> Vec<u8> {
        pack::encode_trailer_with(self.footer_len, self.part_len() as u64)
    }
}

/// What stands before every table and every block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// Number of the block; of tables the highest that there is.
    pub number: u32,
    /// How everything lies.
    pub geometry: Geometry,
    /// Of what follows.
    pub hash: [u8; LABEL_HASH_LEN],
}

impl Label {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Geometry { data_len, footer_len, shard_len, parity_count } = self.geometry;
        let short = |n: usize| u32::try_from(n).expect("a geometry that is allowed has short shards, and few");
        let mut w = Writer::new();
        w.bytes(LABEL_MAGIC).u32(self.number).u64(data_len as u64).u32(footer_len);
        w.u32(short(shard_len)).u32(short(parity_count)).bytes(&self.hash);
        let mut label = w.into_bytes();
        let check = hash::<LABEL_HASH_LEN>(&label);
        label.extend_from_slice(&check);
        label
    }

    /// Reads a label off the front.
    ///
    /// # Errors
    /// When it is none, was changed, or says what can't be.
    pub fn decode(bytes: &[u8]) -> Decoded<Self> {
        let mut r = Reader::new(bytes);
        if r.bytes(LABEL_MAGIC.len())? != LABEL_MAGIC {
            return Err(r.error("bad label magic"));
        }
        let number = r.u32()?;
        let (data_len, footer_len) = (r.u64()?, r.u32()?);
        let (shard_len, parity_count) = (r.u32()? as usize, r.u32()? as usize);
        let body = r.array()?;
        let end = r.position();
        if r.array::<LABEL_HASH_LEN>()? != hash::<LABEL_HASH_LEN>(&bytes[..end]) {
            return Err(r.error("a label that was changed"));
        }
        let data_len = usize::try_from(data_len).map_err(|_| r.error("bad arrangement of parity"))?;
        let geometry = Geometry { data_len, footer_len, shard_len, parity_count };
        if !geometry.is_allowed() {
            return Err(r.error("bad arrangement of parity"));
        }
        Ok(Self { number, geometry, hash: body })
    }
}

fn hash<const LEN: usize>(bytes: &[u8]) -> [u8; LEN] {
    let hash = blake3::hash(bytes);
    *hash.as_bytes().first_chunk().expect("a hash is longer")
}

/// Appends parity and trailer to the data in `object`.
pub fn protect(object: &mut Vec<u8>, footer_len: u32, share: Share) {
    match Geometry::choose(object.len(), footer_len, share) {
        Some(geometry) => append(object, &geometry),
        None => object.extend_from_slice(&pack::encode_trailer(footer_len)),
    }
}

/// About how many bytes [`protect`] appends to `data_len`.
#[must_use]
pub fn protection_len(data_len: usize, share: Share) -> usize {
    Geometry::choose(data_len, 0, share).map_or(0, |geometry| geometry.part_len()) + TRAILER_LEN
}

/// The data of a record that [`protect`] made.
///
/// # Errors
/// When it does not end as one.
pub fn data_of(record: &[u8]) -> Decoded<&[u8]> {
    let (rest, trailer) = record.split_at_checked(record.len().wrapping_sub(TRAILER_LEN)).unwrap_or((&[], record));
    let mut r = Reader::new(trailer);
    let (footer_len, parity_len) = (r.u32()?, r.u64()?);
    if r.bytes(pack::TRAILER_MAGIC.len())? != pack::TRAILER_MAGIC {
        return Err(r.error("bad trailer magic"));
    }
    let data_len = usize::try_from(parity_len).ok().and_then(|parity_len| rest.len().checked_sub(parity_len));
    match data_len {
        Some(data_len) if footer_len == 0 => Ok(&rest[..data_len]),
        _ => Err(r.error("parity does not fit")),
    }
}

/// Appends parity part and trailer.
fn append(object: &mut Vec<u8>, geometry: &Geometry) {
    debug_assert_eq!(object.len(), geometry.data_len);
    let part = part_of(object, geometry);
    object.reserve_exact(part.len() + TRAILER_LEN);
    object.extend_from_slice(&part);
    object.extend_from_slice(&geometry.trailer());
}

/// Whether the object, whose data is `data_len` long, ends as [`protect`] ends it. Everything is made once more.
#[must_use]
pub fn is_as_protected(object: &[u8], data_len: usize, footer_len: u32, share: Share) -> bool {
    let Some((data, end)) = object.split_at_checked(data_len) else { return false };
    match Geometry::choose(data_len, footer_len, share) {
        Some(geometry) => end
            .split_at_checked(geometry.part_len())
            .is_some_and(|(part, trailer)| trailer == geometry.trailer() && part == part_of(data, &geometry)),
        None => end == pack::encode_trailer(footer_len),
    }
}

/// The parity part of `data`.
fn part_of(data: &[u8], geometry: &Geometry) -> Vec<u8> {
    let mut part = vec![0; geometry.part_len()];
    if data.len() <= NAIVE_LEN_MAX {
        encode(&Naive::new(), data, &mut part, geometry);
    } else {
        encode(&DefaultEngine::new(), data, &mut part, geometry);
    }
    let label = |number, body: &[u8]| Label { number, geometry: *geometry, hash: hash(body) }.encode();
    let table: Vec<u8> = data.chunks(geometry.shard_len).flat_map(hash::<SHARD_HASH_LEN>).collect();
    let table = [label(TABLE_NUMBER, &table), table].concat();
    for place in geometry.tables() {
        part[place.start - data.len()..place.end - data.len()].copy_from_slice(&table);
    }
    for (number, block) in (0..).zip(geometry.blocks(&mut part)) {
        let (head, shard) = block.split_at_mut(LABEL_LEN);
        head.copy_from_slice(&label(number, shard));
    }
    part
}

/// Up to this length the engine without large tables is used: filling the others' costs more than they save.
const NAIVE_LEN_MAX: usize = 256 << 10;
/// Columns of shards are worked on together up to so many bytes: what the caches hold, and a bound on memory.
const COLUMNS_LEN: usize = 512 << 10;
/// The same for healing, which works on all shards at once.
const HEAL_COLUMNS_LEN: usize = 16 << 20;

impl Geometry {
    /// The blocks in the parity part.
    fn blocks<'p>(&self, part: &'p mut [u8]) -> impl Iterator<Item = &'p mut [u8]> + use<'p> {
        part[self.table_len()..].chunks_mut(self.block_len()).take(self.parity_count)
    }

    /// Ranges of bytes of shards that are worked on together, if `rows` of them are in memory and may take `len`.
    fn columns(&self, rows: usize, len: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let width = (len / rows / SHARD_UNIT * SHARD_UNIT).clamp(SHARD_UNIT, self.shard_len);
        let shard_len = self.shard_len;
        (0..shard_len).step_by(width).map(move |start| start..shard_len.min(start + width))
    }
}

/// The part of a shard in `columns`, as far as there is data.
fn column<'s>(shard: &'s [u8], columns: &Range<usize>) -> &'s [u8] {
    shard.get(columns.start..shard.len().min(columns.end)).unwrap_or_default()
}

/// Writes the parity shards of `data` into the blocks of `part`. The high-rate code of the crate, group of shards by group,
/// so that nothing is copied whole.
fn encode<E: Engine>(engine: &E, data: &[u8], part: &mut [u8], geometry: &Geometry) {
    let rows = geometry.parity_count.next_power_of_two();
    for columns in geometry.columns(2 * rows, COLUMNS_LEN) {
        let units = columns.len() / SHARD_UNIT;
        let mut sum = vec![[0; SHARD_UNIT]; rows * units];
        let mut group = sum.clone();
        for (number, shards) in data.chunks(rows * geometry.shard_len).enumerate() {
            let mut shards = shards.chunks(geometry.shard_len);
            let count = shards.len();
            for row in group.chunks_mut(units) {
                let shard = shards.next().map_or([].as_slice(), |shard| column(shard, &columns));
                let (filled, empty) = row.as_flattened_mut().split_at_mut(shard.len());
                filled.copy_from_slice(shard);
                empty.fill(0);
            }
            let mut work = ShardsRefMut::new(rows, units, &mut group);
            engine.ifft(&mut work, 0, rows, count, rows * (number + 1));
            utils::xor(&mut sum, &group);
        }
        let mut work = ShardsRefMut::new(rows, units, &mut sum);
        engine.fft(&mut work, 0, rows, geometry.parity_count, 0);
        for (block, shard) in geometry.blocks(part).zip(sum.chunks(units)) {
            block[LABEL_LEN..][columns.clone()].copy_from_slice(shard.as_flattened());
        }
    }
}

/// Why an object can't be healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HealError {
    /// No label is left, or never was.
    #[error("it has no parity, or nothing is left of it")]
    NoParity,
    /// More is damaged than parity can make good.
    #[error("{damaged} of its {shard_count} shards are damaged, and {parity_count} are the most that can be healed")]
    TooMuch {
        /// Shards that are damaged, of data and parity.
        damaged: usize,
        /// All shards.
        shard_count: usize,
        /// How many of them are parity.
        parity_count: usize,
    },
    /// The parity is of something else.
    #[error("what its parity makes of it is not what its name says")]
    NotIt,
}

/// An object as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healed {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Shards that were damaged, of data and parity.
    pub damaged: usize,
    /// All shards.
    pub shard_count: usize,
}

/// So many arrangements are tried, if labels contradict each other: by chance they never do.
const TRIES_MAX: usize = 4;

/// Makes of `object`, which may be damaged, what was written, as `is_right` judges it.
///
/// # Errors
/// When too much of it is damaged.
pub fn heal(object: &[u8], is_right: impl Fn(&[u8]) -> bool) -> Result<Healed, HealError> {
    let mut tried: Vec<Geometry> = Vec::new();
    let mut why = HealError::NoParity;
    // From the end: that is where labels are.
    for at in memmem::rfind_iter(object, LABEL_MAGIC) {
        let Ok(label) = Label::decode(&object[at..]) else { continue };
        let geometry = label.geometry;
        if !geometry.has_label_at(label.number, at) || tried.contains(&geometry) {
            continue;
        }
        match heal_as(object, &geometry) {
            Ok(healed) if is_right(&healed.bytes) => return Ok(healed),
            Ok(_) => why = HealError::NotIt,
            Err(error) => why = error,
        }
        tried.push(geometry);
        if tried.len() >= TRIES_MAX {
            break;
        }
    }
    Err(why)
}

/// Which shards can be trusted.
struct Survey {
    data: Vec<bool>,
    parity: Vec<bool>,
    /// Neither table is: nobody knows what of the data is damaged.
    is_blind: bool,
    /// Everything else is as it was written too.
    is_whole: bool,
}

fn survey(object: &[u8], geometry: &Geometry) -> Survey {
    let body = |place: Range<usize>, number: u32| {
        let (label, body) = object.get(place)?.split_at(LABEL_LEN);
        Label::decode(label)
            .is_ok_and(|label| label == Label { number, geometry: *geometry, hash: hash(body) })
            .then_some(body)
    };
    let tables = geometry.tables();
    let sound_tables = tables.iter().filter(|table| body((*table).clone(), TABLE_NUMBER).is_some()).count();
    let mut is_whole =
        object.len() == geometry.object_len() && object.ends_with(&geometry.trailer()) && sound_tables == tables.len();
    // Each entry is believed for itself: a flipped bit in a table costs nothing, one in each of them one shard at most.
    let entry = |table: &Range<usize>, n: usize| {
        let start = table.start + LABEL_LEN + n * SHARD_HASH_LEN;
        object.get(start..start + SHARD_HASH_LEN)
    };
    let is_sound = |n: usize| {
        let start = n * geometry.shard_len;
        let shard = object.get(start..geometry.data_len.min(start + geometry.shard_len))?;
        let hash = hash::<SHARD_HASH_LEN>(shard);
        Some(tables.iter().any(|table| entry(table, n) == Some(&hash)))
    };
    let data: Vec<bool> = (0..geometry.shard_count()).map(|n| is_sound(n).unwrap_or(false)).collect();
    let parity: Vec<bool> =
        (0..).take(geometry.parity_count).map(|n| body(geometry.block(n as usize), n).is_some()).collect();
    is_whole &= data.iter().chain(&parity).all(|is_sound| *is_sound);
    Survey { data, parity, is_blind: sound_tables == 0, is_whole }
}

fn heal_as(object: &[u8], geometry: &Geometry) -> Result<Healed, HealError> {
    let shard_count = geometry.shard_count() + geometry.parity_count;
    let too_much = |damaged| HealError::TooMuch { damaged, shard_count, parity_count: geometry.parity_count };
    // Shards that aren't there can't be more than parity has. Asked first: what follows takes memory for all of them.
    let present = object.len() / geometry.shard_len;
    if present + 1 < geometry.shard_count() {
        return Err(too_much(geometry.shard_count() - present));
    }
    let Survey { data: mut sound, parity, is_blind, is_whole } = survey(object, geometry);
    let mut damaged = sound.iter().chain(&parity).filter(|is_sound| !**is_sound).count();
    if is_whole {
        return Ok(Healed { bytes: object.to_vec(), damaged, shard_count });
    }
    if damaged > geometry.parity_count {
        if !is_blind || object.len() < geometry.data_len {
            return Err(too_much(damaged));
        }
        // Two bursts, and each hit a table. They may have hit nothing else.
        sound.fill(true);
        damaged = parity.iter().filter(|is_sound| !**is_sound).count();
    }
    let mut bytes = Vec::with_capacity(geometry.object_len());
    bytes.extend_from_slice(&object[..object.len().min(geometry.data_len)]);
    bytes.resize(geometry.data_len, 0);
    if sound.iter().any(|is_sound| !is_sound) {
        let restored = if bytes.len() <= NAIVE_LEN_MAX {
            restore::<Naive>(object, &mut bytes, geometry, &sound, &parity, Naive::new)
        } else {
            restore::<DefaultEngine>(object, &mut bytes, geometry, &sound, &parity, DefaultEngine::new)
        };
        restored.map_err(|_| too_much(damaged))?;
    }
    append(&mut bytes, geometry);
    Ok(Healed { bytes, damaged, shard_count })
}

/// Fills the shards of `data` that are not `sound`.
fn restore<E: Engine>(
    object: &[u8],
    data: &mut [u8],
    geometry: &Geometry,
    sound: &[bool],
    parity: &[bool],
    engine: impl Fn() -> E,
) -> Result<(), reed_solomon_simd::Error> {
    let (shard_count, parity_count) = (geometry.shard_count(), geometry.parity_count);
    let rows = (shard_count + parity_count.next_power_of_two()).next_power_of_two();
    let mut padded = Vec::new();
    for columns in geometry.columns(rows, HEAL_COLUMNS_LEN) {
        let mut decoder = HighRateDecoder::new(shard_count, parity_count, columns.len(), engine(), None)?;
        for (n, shard) in data.chunks(geometry.shard_len).enumerate().filter(|(n, _)| sound[*n]) {
            padded.clear();
            padded.extend_from_slice(column(shard, &columns));
            padded.resize(columns.len(), 0);
            decoder.add_original_shard(n, &padded)?;
        }
        for (n, _) in parity.iter().enumerate().filter(|(_, is_sound)| **is_sound) {
            let block = &object[geometry.block(n)];
            decoder.add_recovery_shard(n, &block[LABEL_LEN..][columns.clone()])?;
        }
        let decoded = decoder.decode()?;
        for (n, restored) in decoded.restored_original_iter() {
            let start = n * geometry.shard_len;
            let end = data.len().min(start + geometry.shard_len);
            let place = &mut data[start..end];
            let range = columns.start.min(place.len())..columns.end.min(place.len());
            let len = range.len();
            place[range].copy_from_slice(&restored[..len]);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
