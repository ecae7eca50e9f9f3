//! What `compline serve` and its client say to each other: `docs/src/serve-protocol.md` in Rust.

use super::super::StorageErrorKind;

/// The version of the protocol that this program speaks.
pub const VERSION: u32 = 1;
/// Begins both greetings, so that neither side takes something else for the other.
pub const MAGIC: &[u8] = b"compline";

/// Kinds of frames.
pub mod kind {
    pub const HELLO: u8 = 1;
    pub const WELCOME: u8 = 2;
    pub const PUT_NEW: u8 = 3;
    pub const REPLACE: u8 = 4;
    pub const GET: u8 = 5;
    pub const GET_RANGE: u8 = 6;
    pub const LEN: u8 = 7;
    pub const LIST: u8 = 8;
    pub const DELETE: u8 = 9;
    pub const PART: u8 = 101;
    pub const DONE: u8 = 102;
    pub const ERROR: u8 = 103;
}

/// Longest frame of a greeting.
pub const GREETING_LEN_MAX: usize = 8 << 10;
/// Longest frame that the server takes: an object and its key.
pub const REQUEST_LEN_MAX: usize = (512 << 20) + (1 << 10);
/// Most bytes of an object or listing in one frame of the server.
pub const PART_LEN: usize = 256 << 10;
/// Longest frame that the client takes.
pub const ANSWER_LEN_MAX: usize = PART_LEN + (1 << 10);
/// Longest text of an error.
pub const TEXT_LEN_MAX: usize = 1000;

/// What a client may do. The server decides, whatever the client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Look.
    ReadOnly,
    /// Look and add. Nothing that is there changes or goes, but for what the same connection put: its session, and a
    /// snapshot that it takes back.
    AppendOnly,
    /// Everything.
    AllowPrune,
}

impl Rights {
    pub(in super::super) fn code(self) -> u8 {
        match self {
            Self::ReadOnly => 1,
            Self::AppendOnly => 2,
            Self::AllowPrune => 3,
        }
    }

    /// In the words of the command line.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::AppendOnly => "append-only",
            Self::AllowPrune => "allow-prune",
        }
    }
}

/// Why a request was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// As the storage says.
    Storage(StorageErrorKind),
    /// The rights of this connection don't go so far.
    Rights,
    /// Not a request, or not the repository that is served.
    Request,
}

const REFUSALS: [(u8, Refusal); 8] = [
    (1, Refusal::Storage(StorageErrorKind::NotFound)),
    (2, Refusal::Storage(StorageErrorKind::Exists)),
    (3, Refusal::Storage(StorageErrorKind::OutOfRange)),
    (4, Refusal::Storage(StorageErrorKind::Full)),
    (5, Refusal::Storage(StorageErrorKind::Denied)),
    (6, Refusal::Storage(StorageErrorKind::Other)),
    (7, Refusal::Rights),
    (8, Refusal::Request),
];

impl Refusal {
    pub fn code(self) -> u8 {
        REFUSALS.iter().find(|(_, refusal)| *refusal == self).map_or(6, |(code, _)| *code)
    }

    /// Codes of later versions are as bad as any.
    pub fn of(code: u8) -> Self {
        let known = REFUSALS.iter().find(|(known, _)| *known == code);
        known.map_or(Self::Storage(StorageErrorKind::Other), |(_, refusal)| *refusal)
    }
}
