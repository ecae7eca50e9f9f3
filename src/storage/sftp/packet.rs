//! Packets of SFTP version 3 (draft-ietf-secsh-filexfer-02), the few that objects need, with OpenSSH's extensions.

use super::super::wire::{Body, Fields, Frame};

/// The version that every server speaks.
pub const VERSION: u32 = 3;
/// Longest packet that is taken. OpenSSH's are at most 256 KiB.
pub const PACKET_LEN_MAX: usize = 1 << 20;
/// Bytes in one read or write: what every server must take.
pub const DATA_LEN: usize = 32 << 10;
/// Most of them, where a server says that it takes more.
const DATA_LEN_MAX: u64 = 256 << 10;

/// Kinds of packets.
pub mod kind {
    pub const INIT: u8 = 1;
    pub const VERSION: u8 = 2;
    pub const OPEN: u8 = 3;
    pub const CLOSE: u8 = 4;
    pub const READ: u8 = 5;
    pub const WRITE: u8 = 6;
    pub const FSTAT: u8 = 8;
    pub const OPENDIR: u8 = 11;
    pub const READDIR: u8 = 12;
    pub const REMOVE: u8 = 13;
    pub const MKDIR: u8 = 14;
    pub const STAT: u8 = 17;
    pub const RENAME: u8 = 18;
    pub const STATUS: u8 = 101;
    pub const HANDLE: u8 = 102;
    pub const DATA: u8 = 103;
    pub const NAME: u8 = 104;
    pub const ATTRS: u8 = 105;
    pub const EXTENDED: u8 = 200;
    pub const EXTENDED_REPLY: u8 = 201;
}

/// Codes of a STATUS.
pub mod status {
    pub const OK: u32 = 0;
    pub const EOF: u32 = 1;
    pub const NO_SUCH_FILE: u32 = 2;
    pub const PERMISSION_DENIED: u32 = 3;
}

const OPEN_READ: u32 = 1;
const OPEN_WRITE: u32 = 2;
const OPEN_CREATE: u32 = 8;
const OPEN_EXCLUSIVE: u32 = 0x20;
const HAS_SIZE: u32 = 1;
const HAS_OWNER: u32 = 2;
const HAS_MODE: u32 = 4;
const HAS_TIMES: u32 = 8;
const HAS_MORE: u32 = 0x8000_0000;

const TYPE_MASK: u32 = 0o170_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_LINK: u32 = 0o120_000;

/// What a server can do beyond version 3.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an extension by itself")]
pub struct Extensions {
    /// `posix-rename@openssh.com`: replaces atomically.
    pub posix_rename: bool,
    /// `hardlink@openssh.com`: names without replacing.
    pub hardlink: bool,
    /// `fsync@openssh.com`: makes durable.
    pub fsync: bool,
    /// `statvfs@openssh.com`: tells what space is left.
    pub statvfs: bool,
    /// `limits@openssh.com`: tells how much it takes at once.
    pub limits: bool,
}

impl Extensions {
    /// Reads what stands in a VERSION packet.
    pub fn of(packet: &Frame) -> Self {
        let mut fields = Fields(&packet.body);
        let mut found = Self::default();
        while let Some((name, _)) = fields.text().zip(fields.text()) {
            match name {
                b"posix-rename@openssh.com" => found.posix_rename = true,
                b"hardlink@openssh.com" => found.hardlink = true,
                b"fsync@openssh.com" => found.fsync = true,
                b"statvfs@openssh.com" => found.statvfs = true,
                b"limits@openssh.com" => found.limits = true,
                _ => {}
            }
        }
        found
    }
}

/// What a server says of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    pub size: Option<u64>,
    mode: Option<u32>,
    /// Last change, in seconds of the server's clock.
    pub changed_at: Option<u32>,
}

impl Attributes {
    /// Takes them out of a packet.
    pub fn take(fields: &mut Fields<'_>) -> Option<Self> {
        let flags = fields.u32()?;
        let mut found = Self::default();
        if flags & HAS_SIZE != 0 {
            found.size = Some(fields.u64()?);
        }
        if flags & HAS_OWNER != 0 {
            fields.u64()?;
        }
        if flags & HAS_MODE != 0 {
            found.mode = Some(fields.u32()?);
        }
        if flags & HAS_TIMES != 0 {
            fields.u32()?;
            found.changed_at = Some(fields.u32()?);
        }
        if flags & HAS_MORE != 0 {
            for _ in 0..fields.u32()? {
                fields.text().zip(fields.text())?;
            }
        }
        Some(found)
    }

    fn is(&self, file_type: u32) -> bool {
        self.mode.is_some_and(|mode| mode & TYPE_MASK == file_type)
    }

    /// A regular file with a length.
    pub fn file_len(&self) -> Option<u64> {
        self.size.filter(|_| self.is(TYPE_FILE))
    }

    /// A directory, as far as the server tells.
    pub fn may_be_directory(&self) -> bool {
        self.mode.is_none() || self.is(TYPE_DIRECTORY)
    }

    /// Whether only another question tells what it is: a link, or a server that is sparing with words.
    pub fn tell_too_little(&self) -> bool {
        self.mode.is_none() || self.is(TYPE_LINK) || (self.is(TYPE_FILE) && self.size.is_none())
    }
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub name: Vec<u8>,
    pub attributes: Attributes,
}

/// The names of a NAME packet.
pub fn names(body: &[u8]) -> Option<Vec<Name>> {
    let mut fields = Fields(body);
    let mut names = Vec::new();
    for _ in 0..fields.u32()? {
        let (name, _long) = fields.text().zip(fields.text())?;
        names.push(Name { name: name.to_vec(), attributes: Attributes::take(&mut fields)? });
    }
    Some(names)
}

/// A number and a text out of a STATUS, which may come without the text.
pub fn status_of(body: &[u8]) -> Option<(u32, String)> {
    let mut fields = Fields(body);
    let code = fields.u32()?;
    let text = String::from_utf8_lossy(fields.text().unwrap_or_default()).into_owned();
    Some((code, text.chars().filter(|c| !c.is_control()).take(300).collect()))
}

/// The bytes of a string that is alone in its packet: a handle, data.
pub fn only_text(body: &[u8]) -> Option<&[u8]> {
    Fields(body).text()
}

/// Bytes that are left to who isn't root, out of the answer to `statvfs`.
pub fn free_space(body: &[u8]) -> Option<u64> {
    let mut fields = Fields(body);
    let (_block, fragment, _blocks, _free) = (fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?);
    fields.u64().map(|available| available.saturating_mul(fragment))
}

/// Bytes in one read or write, out of the answer to `limits`. A zero in it is no answer.
pub fn data_len(body: &[u8]) -> Option<usize> {
    let mut fields = Fields(body);
    let (_packet, read, write) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let len = usize::try_from(read.min(write).min(DATA_LEN_MAX)).ok()?;
    (len >= DATA_LEN).then_some(len)
}

pub fn open_to_read(path: &[u8]) -> Vec<u8> {
    Body::default().text(path).u32(OPEN_READ).u32(0).0
}

/// A file of mode 0600 that must not be there yet.
pub fn open_new(path: &[u8]) -> Vec<u8> {
    Body::default().text(path).u32(OPEN_WRITE | OPEN_CREATE | OPEN_EXCLUSIVE).u32(HAS_MODE).u32(0o600).0
}

/// A directory of mode 0700.
pub fn make_directory(path: &[u8]) -> Vec<u8> {
    Body::default().text(path).u32(HAS_MODE).u32(0o700).0
}

/// A path or a handle alone.
pub fn text(text: &[u8]) -> Vec<u8> {
    Body::default().text(text).0
}

pub fn read(handle: &[u8], offset: u64, len: u32) -> Vec<u8> {
    Body::default().text(handle).u64(offset).u32(len).0
}

/// All of a WRITE but its bytes.
pub fn write_head(handle: &[u8], offset: u64, len: u32) -> Vec<u8> {
    Body::default().text(handle).u64(offset).u32(len).0
}

pub fn two_paths(from: &[u8], to: &[u8]) -> Vec<u8> {
    Body::default().text(from).text(to).0
}

pub fn extended(name: &str, rest: &[u8]) -> Vec<u8> {
    let mut body = Body::default().text(name).0;
    body.extend_from_slice(rest);
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_every_shape_are_read_and_cut_ones_are_none() {
        let all = HAS_SIZE | HAS_OWNER | HAS_MODE | HAS_TIMES | HAS_MORE;
        let body = Body::default().u32(all).u64(7).u32(1).u32(2).u32(TYPE_FILE | 0o600).u32(3).u32(4);
        let body = body.u32(1).text("name").text("value").0;
        let mut fields = Fields(&body);
        let found = Attributes::take(&mut fields).unwrap();
        assert!(fields.is_at_end());
        assert_eq!((found.file_len(), found.changed_at), (Some(7), Some(4)));
        for end in 0..body.len() {
            assert_eq!(Attributes::take(&mut Fields(&body[..end])), None, "{end}");
        }
        let few = Attributes::take(&mut Fields(&[0; 4])).unwrap();
        assert!(few.tell_too_little() && few.may_be_directory() && few.file_len().is_none());
    }

    #[test]
    fn a_count_of_names_that_are_not_there_is_none() {
        assert_eq!(names(&u32::MAX.to_be_bytes()), None);
        let body = Body::default().u32(1).text("a").text("-rw a").u32(0).0;
        assert_eq!(names(&body).unwrap()[0].name, b"a");
    }

    #[test]
    fn limits_below_what_all_must_take_are_none_and_those_beyond_reason_are_ours() {
        let body = |read, write| Body::default().u64(0).u64(read).u64(write).u64(0).0;
        assert_eq!(data_len(&body(261_120, 300_000)), Some(261_120));
        assert_eq!(data_len(&body(u64::MAX, u64::MAX)), Some(256 << 10));
        assert_eq!(data_len(&body(0, 261_120)), None);
        assert_eq!(data_len(&body(261_120, 1)), None);
        assert_eq!(data_len(&body(1, 1)[..20]), None);
    }

    #[test]
    fn extensions_are_known_by_name() {
        let body = Body::default().text("fsync@openssh.com").text("1").text("x@y").text("1").text("cut").0;
        let found = Extensions::of(&Frame { kind: kind::VERSION, id: VERSION, body });
        assert_eq!(found, Extensions { fsync: true, ..Extensions::default() });
    }
}
