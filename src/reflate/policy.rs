//! Whether it pays to open something.

use std::fmt;
use std::str::FromStr;

use super::piece::Piece;

/// When deflated data is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Where it is likely to pay.
    #[default]
    Auto,
    /// Wherever it can be made again, whatever it costs.
    Always,
    /// Nowhere.
    Never,
}

impl Policy {
    /// The words for it.
    pub const NAMES: [&'static str; 3] = ["auto", "always", "never"];
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [auto, always, never] = Self::NAMES;
        f.write_str(match self {
            Self::Auto => auto,
            Self::Always => always,
            Self::Never => never,
        })
    }
}

impl FromStr for Policy {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let [auto, always, never] = Self::NAMES;
        match text {
            _ if text == auto => Ok(Self::Auto),
            _ if text == always => Ok(Self::Always),
            _ if text == never => Ok(Self::Never),
            _ => Err(()),
        }
    }
}

/// Members that are shorter are left alone: a record and a list entry for each would eat what is gained.
const DEFLATED_LEN_MIN: u64 = 1 << 10;
/// What got smaller by less than one part in so many is noise, pictures perhaps. It doesn't change, and gains nothing.
const GAIN_SHARE: u64 = 16;
/// One byte of corrections for so many deflated ones is too many. `gzip` takes one for a thousand at most, 7-Zip one for fourteen.
const CORRECTIONS_SHARE: u64 = 8;
const CORRECTIONS_SHARE_ALWAYS: u64 = 2;

impl Policy {
    /// Whether a member that begins with `piece` may be left alone without another look.
    #[must_use]
    pub fn passes_over(self, piece: &Piece) -> bool {
        let (plain, deflated) = (piece.plain.len() as u64, piece.bit_len / 8);
        match self {
            Self::Never => true,
            Self::Always => false,
            Self::Auto => deflated < DEFLATED_LEN_MIN || plain < deflated + deflated / GAIN_SHARE,
        }
    }

    /// Whether `piece` with so many bytes of corrections is better than its bytes.
    #[must_use]
    pub fn accepts(self, piece: &Piece, corrections_len: usize) -> bool {
        let share = if self == Self::Always { CORRECTIONS_SHARE_ALWAYS } else { CORRECTIONS_SHARE };
        let least = 64;
        corrections_len as u64 <= piece.bit_len / 8 / share + least
    }
}
