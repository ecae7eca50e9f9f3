//! Chunks and the frames they can lie in: three chunks, each plain, and deltas with bases of depth 0 and 1.
//!
//! A pack is a set of frames, a byte with a bit for each. Ids and bytes don't matter to the protocol; what can be read
//! from which packs does.

/// A set of chunks.
pub type Chunks = u8;
/// A set of frames.
pub type Frames = u8;

pub const A: Chunks = 1;
pub const B: Chunks = 2;
pub const C: Chunks = 4;

pub const PLAIN_A: Frames = 1;
pub const PLAIN_B: Frames = 2;
pub const PLAIN_C: Frames = 4;
/// B as its difference from A, depth 1.
pub const B_ON_A: Frames = 8;
/// A as its difference from B, depth 1: with the one above the two could point at each other, were it not for depths.
pub const A_ON_B: Frames = 16;
/// C as its difference from B, depth 2: B may be a delta itself.
pub const C_ON_B: Frames = 32;

/// What a frame holds and needs.
#[derive(Clone, Copy)]
pub struct Kind {
    pub frame: Frames,
    pub chunk: Chunks,
    pub base: Chunks,
    /// The frames of smaller depth in which the base may lie (DELTA-5). Empty: needs nothing.
    through: Frames,
    pub name: &'static str,
}

/// By depth.
pub const KINDS: [Kind; 6] = [
    Kind { frame: PLAIN_A, chunk: A, base: 0, through: 0, name: "a" },
    Kind { frame: PLAIN_B, chunk: B, base: 0, through: 0, name: "b" },
    Kind { frame: PLAIN_C, chunk: C, base: 0, through: 0, name: "c" },
    Kind { frame: B_ON_A, chunk: B, base: A, through: PLAIN_A, name: "b-on-a" },
    Kind { frame: A_ON_B, chunk: A, base: B, through: PLAIN_B, name: "a-on-b" },
    Kind { frame: C_ON_B, chunk: C, base: B, through: PLAIN_B | B_ON_A, name: "c-on-b" },
];

/// How closely somebody looks at deltas. Everything but `Sound` is a planted mistake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sight {
    /// A delta counts if its base can be read from a frame of smaller depth.
    Sound,
    /// A delta counts if its base lies anywhere.
    DepthsIgnored,
    /// A delta counts.
    BasesIgnored,
}

impl Sight {
    /// Those of `frames` that can be read when there are no others.
    pub const fn readable(self, frames: Frames) -> Frames {
        let mut out = 0;
        let mut i = 0;
        while i < KINDS.len() {
            let kind = KINDS[i];
            let enough = match self {
                Sight::Sound => kind.through == 0 || out & kind.through != 0,
                Sight::DepthsIgnored => kind.through == 0 || chunks(frames) & kind.base != 0,
                Sight::BasesIgnored => true,
            };
            if frames & kind.frame != 0 && enough {
                out |= kind.frame;
            }
            i += 1;
        }
        out
    }
}

/// The chunks that lie in `frames`, readable or not.
pub const fn chunks(frames: Frames) -> Chunks {
    let mut out = 0;
    let mut i = 0;
    while i < KINDS.len() {
        if frames & KINDS[i].frame != 0 {
            out |= KINDS[i].chunk;
        }
        i += 1;
    }
    out
}

/// The chunks that can be read from `frames` alone.
pub fn found(frames: Frames) -> Chunks {
    const TABLE: [Chunks; 64] = {
        let mut table = [0; 64];
        let mut frames = 0;
        while frames < 64 {
            table[frames as usize] = chunks(Sight::Sound.readable(frames));
            frames += 1;
        }
        table
    };
    TABLE[usize::from(frames)]
}

/// `wanted` and all bases through which any of `frames` may give one of them, and the bases of those.
pub fn with_bases(wanted: Chunks, frames: Frames) -> Chunks {
    let mut out = wanted;
    for kind in KINDS.iter().rev().chain(KINDS.iter().rev()) {
        if frames & kind.frame != 0 && out & kind.chunk != 0 {
            out |= kind.base;
        }
    }
    out
}

/// Every set of frames that holds each of `missing` once and that counts together with `kept`, looked at with `sight`.
pub fn ways_to_store(missing: Chunks, kept: Frames, sight: Sight) -> Vec<Frames> {
    (1..64u8)
        .filter(|frames| frames.count_ones() == missing.count_ones() && chunks(*frames) == missing)
        .filter(|frames| sight.readable(frames | kept) & frames == *frames)
        .collect()
}

/// `a+b-on-a`
pub fn names(frames: Frames) -> String {
    let names: Vec<_> = KINDS.iter().filter(|kind| frames & kind.frame != 0).map(|kind| kind.name).collect();
    names.join("+")
}
