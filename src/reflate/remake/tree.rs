//! The codes of a block as they stand in front of it: predicted from how often each symbol occurs, as zlib makes them, and corrected.

use super::code::{
    CODE_LEN_MAX, DISTANCE_LENS_MAX, DISTANCE_SYMBOLS, END, LITERAL_LENS_MAX, LITERAL_SYMBOLS, codes, distance_symbol,
    len_symbol,
};
use super::coder::Coder;
use super::corrections::{Corrections, Kind};
use super::reader::{BitReader, Table};
use super::writer::BitWriter;

/// Fewest lengths of codes that are told for literals, for distances, and of the code of lengths.
const LITERAL_LENS_MIN: usize = 257;
const DISTANCE_LENS_MIN: usize = 1;
const LEN_CODE_LENS_MIN: usize = 4;
/// Symbols of the code of lengths: 0 to 15 for these, and three sorts of runs.
const LEN_SYMBOLS: usize = 19;
const REPEAT: u32 = 16;
const FEW_ZEROS: u32 = 17;
const MANY_ZEROS: u32 = 18;
/// The order in which the lengths of the code of lengths are told.
const LEN_ORDER: [usize; LEN_SYMBOLS] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const LEN_CODE_LEN_MAX: usize = 7;

/// How often each symbol occurs in a block. Counts go around at 65,536, as those of the format do.
pub struct Frequencies {
    literals: [u16; LITERAL_SYMBOLS],
    distances: [u16; DISTANCE_SYMBOLS],
}

impl Default for Frequencies {
    fn default() -> Self {
        let mut literals = [0; LITERAL_SYMBOLS];
        literals[END] = 1;
        Self { literals, distances: [0; DISTANCE_SYMBOLS] }
    }
}

fn count(counts: &mut [u16], symbol: usize) {
    if let Some(count) = counts.get_mut(symbol) {
        *count = count.wrapping_add(1);
    }
}

impl Frequencies {
    pub fn count_literal(&mut self, byte: u8) {
        count(&mut self.literals, byte.into());
    }

    pub fn count_match(&mut self, len: u32, distance: u32) {
        count(&mut self.literals, len_symbol(len));
        count(&mut self.distances, distance_symbol(distance));
    }
}

/// A length of a code as it is, or a run of them.
#[derive(Debug, Clone, Copy)]
struct Run {
    symbol: u32,
    /// The length, or how many there are.
    value: u32,
}

impl Run {
    /// Values, and how many bits are written of how much they are above the least.
    fn values(symbol: u32) -> Option<(std::ops::RangeInclusive<u32>, u32)> {
        match symbol {
            0 => Some((0..=15, 0)),
            REPEAT => Some((3..=6, 2)),
            FEW_ZEROS => Some((3..=10, 3)),
            MANY_ZEROS => Some((11..=138, 7)),
            _ => None,
        }
    }

    /// Its symbol in the code of lengths.
    fn coded(self) -> usize {
        if self.symbol == 0 { self.value as usize } else { self.symbol as usize }
    }

    /// How many lengths it stands for.
    fn len(self) -> usize {
        if self.symbol == 0 { 1 } else { self.value as usize }
    }
}

/// What stands in front of a block.
pub struct Tree {
    /// Those of literals, and those of distances behind them.
    lens: Vec<u8>,
    literal_count: usize,
    runs: Vec<Run>,
    len_code_lens: [u8; LEN_SYMBOLS],
    len_code_count: usize,
}

/// The codes for these frequencies.
pub fn remake(frequencies: &Frequencies, corrections: &mut Corrections<'_>) -> Option<Tree> {
    let mut predicted = code_lens(&frequencies.literals, CODE_LEN_MAX)?;
    let literal_count = corrected_count(corrections, Kind::LiteralCount, predicted.len())?;
    if !(LITERAL_LENS_MIN..=LITERAL_LENS_MAX).contains(&literal_count) {
        return None;
    }
    predicted.resize(literal_count, 0);
    let mut distances = code_lens(&frequencies.distances, CODE_LEN_MAX)?;
    let distance_count = corrected_count(corrections, Kind::DistanceCount, distances.len())?;
    if !(DISTANCE_LENS_MIN..=DISTANCE_LENS_MAX).contains(&distance_count) {
        return None;
    }
    distances.resize(distance_count, 0);
    predicted.append(&mut distances);

    let runs = corrected_runs(corrections, &predicted)?;
    let lens = lens_of(&runs);
    let (len_code_lens, len_code_count) = corrected_len_code(corrections, &runs)?;
    Some(Tree { lens, literal_count, runs, len_code_lens, len_code_count })
}

fn corrected_count(corrections: &mut Corrections<'_>, kind: Kind, predicted: usize) -> Option<usize> {
    Some(corrections.differing(kind, u32::try_from(predicted).ok()?)? as usize)
}

/// What the lengths of codes are told as.
fn corrected_runs(corrections: &mut Corrections<'_>, predicted: &[u8]) -> Option<Vec<Run>> {
    let mut runs = Vec::with_capacity(predicted.len());
    let (mut left, mut before) = (predicted, None);
    while let Some(len) = left.first() {
        let symbol = corrections.differing(Kind::RunSymbol, predicted_run(left, before))?;
        before = Some(*len);
        let (values, _) = Run::values(symbol)?;
        let value = if symbol == 0 {
            corrections.differing(Kind::LenOfCode, u32::from(*len))?
        } else {
            corrections.differing(Kind::RunLen, predicted_run_len(left, symbol)?)?
        };
        if !values.contains(&value) {
            return None;
        }
        let run = Run { symbol, value };
        left = left.get(run.len()..)?;
        runs.push(run);
    }
    Some(runs)
}

/// Zeros make runs from the third on, others where three are as the one before.
fn predicted_run(left: &[u8], before: Option<u8>) -> u32 {
    if left.first() != Some(&0) {
        let repeats = before.is_some_and(|before| left.iter().take_while(|len| **len == before).take(3).count() == 3);
        return if repeats { REPEAT } else { 0 };
    }
    match left.iter().take_while(|len| **len == 0).take(11).count() {
        11 => MANY_ZEROS,
        3.. => FEW_ZEROS,
        _ => 0,
    }
}

/// As long as lengths go on as they must, and the shortest one at least.
fn predicted_run_len(left: &[u8], symbol: u32) -> Option<u32> {
    let (values, _) = Run::values(symbol)?;
    let same = if symbol == REPEAT { *left.first()? } else { 0 };
    let most = (*values.end() as usize).min(left.len());
    let more = left.iter().take(most).skip(*values.start() as usize).take_while(|len| **len == same).count();
    Some(values.start() + u32::try_from(more).ok()?)
}

/// The lengths that these runs tell. What is repeated is the last one that was told as it is, even if zeros stand between.
fn lens_of(runs: &[Run]) -> Vec<u8> {
    let (mut lens, mut last) = (Vec::new(), 0);
    for run in runs {
        match run.symbol {
            0 => {
                last = u8::try_from(run.value).unwrap_or_default();
                lens.push(last);
            }
            REPEAT => lens.resize(lens.len() + run.len(), last),
            _ => lens.resize(lens.len() + run.len(), 0),
        }
    }
    lens
}

/// The code that the runs are written in: the lengths of its codes, and how many of them are told.
fn corrected_len_code(corrections: &mut Corrections<'_>, runs: &[Run]) -> Option<([u8; LEN_SYMBOLS], usize)> {
    let mut frequencies = [0; LEN_SYMBOLS];
    for run in runs {
        count(&mut frequencies, run.coded());
    }
    let predicted = code_lens(&frequencies, LEN_CODE_LEN_MAX)?;
    let told = corrected_count(corrections, Kind::LenOfLenCode, predicted_told(&predicted)?)?;
    if !(LEN_CODE_LENS_MIN..=LEN_SYMBOLS).contains(&told) {
        return None;
    }
    let mut lens = [0; LEN_SYMBOLS];
    for symbol in LEN_ORDER.into_iter().take(told) {
        let predicted = predicted.get(symbol).copied().unwrap_or_default();
        let len = corrections.differing(Kind::LenOfLenCode, predicted.into())?;
        lens[symbol] = u8::try_from(len).ok().filter(|len| usize::from(*len) <= LEN_CODE_LEN_MAX)?;
    }
    Some((lens, told))
}

/// How many lengths of the code of lengths are told: zeros at the end are not.
fn predicted_told(predicted: &[u8]) -> Option<usize> {
    let mut told = predicted.len();
    while told > LEN_CODE_LENS_MIN && *predicted.get(*LEN_ORDER.get(told - 1)?)? == 0 {
        told -= 1;
    }
    Some(told)
}

fn differing(coder: &mut Coder, kind: Kind, predicted: usize, is: usize) -> Option<()> {
    coder.differing(kind, u32::try_from(predicted).ok()?, u32::try_from(is).ok()?);
    Some(())
}

/// The other way: what has to be corrected for `tree` to come out.
pub fn correct(frequencies: &Frequencies, tree: &Tree, coder: &mut Coder) -> Option<()> {
    let mut predicted = code_lens(&frequencies.literals, CODE_LEN_MAX)?;
    differing(coder, Kind::LiteralCount, predicted.len(), tree.literal_count)?;
    predicted.resize(tree.literal_count, 0);
    let mut distances = code_lens(&frequencies.distances, CODE_LEN_MAX)?;
    differing(coder, Kind::DistanceCount, distances.len(), tree.distance_lens().len())?;
    distances.resize(tree.distance_lens().len(), 0);
    predicted.append(&mut distances);

    let (mut left, mut before) = (predicted.as_slice(), None);
    let mut run_frequencies = [0; LEN_SYMBOLS];
    for run in &tree.runs {
        let len = *left.first()?;
        coder.differing(Kind::RunSymbol, predicted_run(left, before), run.symbol);
        before = Some(len);
        if run.symbol == 0 {
            coder.differing(Kind::LenOfCode, u32::from(len), run.value);
        } else {
            coder.differing(Kind::RunLen, predicted_run_len(left, run.symbol)?, run.value);
        }
        left = left.get(run.len()..)?;
        count(&mut run_frequencies, run.coded());
    }
    let predicted = code_lens(&run_frequencies, LEN_CODE_LEN_MAX)?;
    differing(coder, Kind::LenOfLenCode, predicted_told(&predicted)?, tree.len_code_count)?;
    for symbol in LEN_ORDER.into_iter().take(tree.len_code_count) {
        let predicted = predicted.get(symbol).copied().unwrap_or_default();
        differing(coder, Kind::LenOfLenCode, predicted.into(), tree.len_code_lens[symbol].into())?;
    }
    left.is_empty().then_some(())
}

impl Tree {
    /// Reads one (RFC 1951, 3.2.7).
    pub fn read(bits: &mut BitReader<'_>) -> Option<Self> {
        let literal_count = bits.take(5)? as usize + LITERAL_LENS_MIN;
        let distance_count = bits.take(5)? as usize + DISTANCE_LENS_MIN;
        let len_code_count = bits.take(4)? as usize + LEN_CODE_LENS_MIN;
        let mut len_code_lens = [0; LEN_SYMBOLS];
        for symbol in LEN_ORDER.into_iter().take(len_code_count) {
            len_code_lens[symbol] = u8::try_from(bits.take(3)?).ok()?;
        }
        let mut table = Table::default();
        table.fill(&codes::<LEN_SYMBOLS>(&len_code_lens)?);
        let (mut lens, mut runs) = (Vec::new(), Vec::new());
        while lens.len() < literal_count + distance_count {
            let coded = table.next(bits)?;
            let symbol = if coded < REPEAT { 0 } else { coded };
            let (values, extra_len) = Run::values(symbol)?;
            let run = Run { symbol, value: if symbol == 0 { coded } else { values.start() + bits.take(extra_len)? } };
            let len = match symbol {
                0 => u8::try_from(coded).ok()?,
                REPEAT => *lens.last()?,
                _ => 0,
            };
            lens.resize(lens.len() + run.len(), len);
            runs.push(run);
        }
        let fits = lens.len() == literal_count + distance_count && lens_of(&runs) == lens;
        fits.then_some(Self { lens, literal_count, runs, len_code_lens, len_code_count })
    }

    pub fn literal_lens(&self) -> &[u8] {
        self.lens.get(..self.literal_count).unwrap_or_default()
    }

    pub fn distance_lens(&self) -> &[u8] {
        self.lens.get(self.literal_count..).unwrap_or_default()
    }

    /// Writes it (RFC 1951, 3.2.7).
    pub fn put(&self, writer: &mut BitWriter) -> Option<()> {
        let counts = [
            (self.literal_count - LITERAL_LENS_MIN, 5),
            (self.distance_lens().len().checked_sub(DISTANCE_LENS_MIN)?, 5),
            (self.len_code_count - LEN_CODE_LENS_MIN, 4),
        ];
        for (count, len) in counts {
            writer.put(u32::try_from(count).ok()?, len);
        }
        for symbol in LEN_ORDER.into_iter().take(self.len_code_count) {
            writer.put(self.len_code_lens[symbol].into(), 3);
        }
        let codes = codes::<LEN_SYMBOLS>(&self.len_code_lens)?;
        for run in &self.runs {
            let code = codes.get(run.coded())?;
            writer.put(code.bits, code.len);
            let (values, extra_len) = Run::values(run.symbol)?;
            if extra_len > 0 {
                writer.put(run.value - values.start(), extra_len);
            }
        }
        Some(())
    }
}

/// A symbol or two nodes that were joined.
#[derive(Clone, Copy)]
struct Node {
    frequency: u32,
    depth: u32,
    of: Of,
}

#[derive(Clone, Copy)]
enum Of {
    Symbol(usize),
    Nodes(usize, usize),
}

impl Node {
    /// Of two that are as frequent, the one that is less deep comes first.
    fn is_before(&self, other: &Self) -> bool {
        (self.frequency, self.depth) <= (other.frequency, other.depth)
    }
}

/// Moves the node at `at` down a heap, to where it is before those below it.
fn sink(heap: &mut [Node], mut at: usize) {
    let Some(sunk) = heap.get(at).copied() else { return };
    while let Some(mut child) = heap.get(2 * at + 1) {
        let mut below = 2 * at + 1;
        if let Some(second) = heap.get(below + 1).filter(|second| second.is_before(child)) {
            (child, below) = (second, below + 1);
        }
        if sunk.is_before(child) {
            break;
        }
        heap[at] = *child;
        at = below;
    }
    heap[at] = sunk;
}

/// Lengths of the codes of symbols that occur so often, up to the last one that does, as zlib makes them. None if they can't be.
fn code_lens(frequencies: &[u16], len_max: usize) -> Option<Vec<u8>> {
    let used = frequencies.iter().enumerate().filter(|(_, frequency)| **frequency > 0);
    let leaf = |(symbol, frequency): (usize, &u16)| Node {
        frequency: u32::from(*frequency),
        depth: 0,
        of: Of::Symbol(symbol),
    };
    let mut heap: Vec<Node> = used.map(leaf).collect();
    let last = frequencies.iter().rposition(|frequency| *frequency > 0).unwrap_or(0);
    let mut lens = vec![0; last + 1];
    if heap.len() <= 1 {
        // A code has two symbols: the one there is, and the first or the second.
        lens.resize(lens.len().max(2), 0);
        (lens[0], lens[last.max(1)]) = (1, 1);
        return Some(lens);
    }

    let nodes = joined(&mut heap);
    let mut depths = vec![0_usize; nodes.len()];
    for (at, node) in nodes.iter().enumerate().rev() {
        match node.of {
            Of::Symbol(symbol) => lens[symbol] = u8::try_from(depths[at]).ok()?,
            Of::Nodes(first, second) => {
                depths[first] = depths[at] + 1;
                depths[second] = depths[at] + 1;
            }
        }
    }
    if depths.iter().any(|depth| *depth > len_max) {
        limit(&nodes, &mut lens, len_max)?;
    }
    Some(lens)
}

/// All nodes in the order in which they were joined: those that are joined stand before what they are joined to.
fn joined(heap: &mut Vec<Node>) -> Vec<Node> {
    (0..heap.len() / 2).rev().for_each(|at| sink(heap, at));
    let mut nodes = Vec::with_capacity(2 * heap.len());
    while let [first, .., last] = heap[..] {
        heap[0] = last;
        heap.pop();
        sink(heap, 0);
        let second = heap[0];
        nodes.extend([first, second]);
        heap[0] = Node {
            frequency: first.frequency + second.frequency,
            depth: first.depth.max(second.depth) + 1,
            of: Of::Nodes(nodes.len() - 2, nodes.len() - 1),
        };
        sink(heap, 0);
    }
    nodes.append(heap);
    nodes
}

/// Makes codes that are too long shorter, and others longer for it.
fn limit(nodes: &[Node], lens: &mut [u8], len_max: usize) -> Option<()> {
    let mut counts = vec![0_usize; len_max + 1];
    let mut too_long = 0_usize;
    for len in lens.iter().map(|len| usize::from(*len)) {
        too_long += usize::from(len > len_max);
        counts[len.min(len_max)] += 1;
    }
    while too_long > 0 {
        let shorter = (1..len_max).rev().find(|len| counts[*len] > 0)?;
        counts[shorter] -= 1;
        counts[shorter + 1] += 2;
        counts[len_max] = counts[len_max].checked_sub(1)?;
        too_long = too_long.saturating_sub(2);
    }
    // The rarest get the longest.
    let mut len = len_max;
    for node in nodes {
        if let Of::Symbol(symbol) = node.of {
            while counts[len] == 0 {
                len = len.checked_sub(1).filter(|len| *len > 0)?;
            }
            lens[symbol] = u8::try_from(len).ok()?;
            counts[len] -= 1;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_as_long_as_zlib_makes_them() {
        assert_eq!(code_lens(&[0, 1, 2, 4, 8, 16, 32], 7), Some(vec![0, 5, 5, 4, 3, 2, 1]));
        assert_eq!(code_lens(&[0, 0], 7), Some(vec![1, 1]));
        assert_eq!(code_lens(&[5, 0], 7), Some(vec![1, 1]));
        assert_eq!(code_lens(&[0, 0, 5], 7), Some(vec![1, 0, 1]));
    }

    #[test]
    fn no_code_is_longer_than_it_may_be() {
        // Fibonacci's numbers make the deepest trees.
        let mut frequencies = [1_u16; 24];
        for n in 2..24 {
            frequencies[n] = frequencies[n - 1] + frequencies[n - 2];
        }
        for len_max in [7, 15] {
            // Not a complete code, since the writer doesn't count joined nodes that are too deep. Corrections make it one.
            let lens = code_lens(&frequencies, len_max).unwrap();
            assert_eq!(lens.iter().map(|len| usize::from(*len)).max(), Some(len_max));
            assert!(lens.iter().all(|len| *len > 0));
        }
    }
}
