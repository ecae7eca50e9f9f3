//! Entries: one name in a tree (format-spec 08).
//!
//! An entry is what `lstat` and friends tell of a file, or the little that is known of a stream, together with its
//! content. Content is a list of chunk ids with lengths; long lists are themselves stored as chunks ([`Content::depth`]).
//! A content may stand for other bytes than those of its chunks: those that are made of them ([`Reflated`]).

use super::fields::Fields;
use crate::codec::{DecodeError, Decoded, Reader, Writer};
use crate::id::ChunkId;
use crate::reflate;

/// Longest name of an entry in bytes.
pub const NAME_LEN_MAX: usize = 4096;
/// Longest target of a symbolic link in bytes.
pub const LINK_LEN_MAX: usize = 65_536;
/// Most extended attributes of one entry.
pub const XATTR_COUNT_MAX: usize = 4096;
/// Longest name of an extended attribute in bytes.
pub const XATTR_NAME_LEN_MAX: usize = 256;
/// Longest value of an extended attribute in bytes.
pub const XATTR_VALUE_LEN_MAX: usize = 1 << 20;
/// Longest name of a user or group in bytes.
pub const OWNER_LEN_MAX: usize = 256;
/// Most pieces in one content list; longer contents grow deeper.
pub const PIECE_COUNT_MAX: usize = 4096;
/// Deepest nesting of content lists.
pub const CONTENT_DEPTH_MAX: u8 = 8;

/// A point in time as the file system keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time {
    /// Seconds since 1970-01-01 UTC; may be negative.
    pub seconds: i64,
    /// Nanoseconds, 0..1,000,000,000.
    pub nanoseconds: u32,
}

/// One piece of a content: a chunk, or a hole in a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The chunk; all zero for a hole.
    pub id: ChunkId,
    /// Content bytes that this piece stands for.
    pub len: u64,
}

impl Piece {
    /// The id that marks a hole.
    pub const HOLE: ChunkId = ChunkId::from_bytes([0; 32]);

    /// A hole: reads as zeros, occupies nothing.
    #[must_use]
    pub fn hole(len: u64) -> Self {
        Self { id: Self::HOLE, len }
    }

    /// Whether this is a hole.
    #[must_use]
    pub fn is_hole(&self) -> bool {
        self.id == Self::HOLE
    }
}

/// The bytes of a file, a stream or a tree: `depth` 0 lists the chunks themselves; at depth n each piece names a chunk
/// that holds a list of depth n-1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// Total length in bytes.
    pub len: u64,
    /// Levels of lists below this one.
    pub depth: u8,
    /// The pieces, in order; their lengths sum to the stored length.
    pub pieces: Vec<Piece>,
    /// The pieces are not the bytes themselves, but what they are made of.
    pub reflated: Option<Reflated>,
}

/// A content that was inflated where it could be: its pieces hold plain bytes, and behind them the recipe that makes the
/// content of them (format-spec 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reflated {
    /// Length of the plain bytes.
    pub plain_len: u64,
    /// Length of the recipe.
    pub recipe_len: u64,
}

const CONTENT_CHUNKS: u8 = 0;
const CONTENT_REFLATED: u8 = 1;

impl Content {
    /// Appends the encoding.
    pub fn encode(&self, w: &mut Writer) {
        match self.reflated {
            None => w.u8(CONTENT_CHUNKS),
            Some(Reflated { plain_len, recipe_len }) => {
                w.u8(CONTENT_REFLATED).varint(reflate::ALGORITHM).varint(plain_len).varint(recipe_len)
            }
        };
        w.u8(self.depth).varint(self.len);
        encode_pieces(&self.pieces, w);
    }

    /// Length of what the pieces hold.
    #[must_use]
    pub fn stored_len(&self) -> u64 {
        self.reflated.map_or(self.len, |reflated| reflated.plain_len.saturating_add(reflated.recipe_len))
    }

    /// Reads a content off the front.
    ///
    /// # Errors
    /// On an encoding that isn't known, too many pieces, too deep, or lengths that don't sum up.
    pub fn decode(r: &mut Reader<'_>) -> Decoded<Self> {
        let reflated = match r.u8()? {
            CONTENT_CHUNKS => None,
            CONTENT_REFLATED => Some(Reflated::decode(r)?),
            _ => return Err(r.error("unknown content encoding")),
        };
        let depth = r.u8()?;
        if depth > CONTENT_DEPTH_MAX {
            return Err(r.error("content too deep"));
        }
        let len = r.varint()?;
        let pieces = decode_pieces(r)?;
        if depth > 0 && (pieces.is_empty() || pieces.iter().any(Piece::is_hole)) {
            return Err(r.error("deep content without lists"));
        }
        let content = Self { len, depth, pieces, reflated };
        if sum(&content.pieces) != Some(content.stored_len()) {
            return Err(r.error("pieces do not sum to the content length"));
        }
        Ok(content)
    }
}

impl Reflated {
    fn decode(r: &mut Reader<'_>) -> Decoded<Self> {
        if r.varint()? != reflate::ALGORITHM {
            return Err(r.error("unknown way of making a content again"));
        }
        let (plain_len, recipe_len) = (r.varint()?, r.varint()?);
        if recipe_len == 0 {
            return Err(r.error("reflated content without a recipe"));
        }
        Ok(Self { plain_len, recipe_len })
    }
}

/// Total length of `pieces`, unless it overflows.
#[must_use]
pub fn sum(pieces: &[Piece]) -> Option<u64> {
    pieces.iter().try_fold(0u64, |total, piece| total.checked_add(piece.len))
}

/// Appends a list of pieces; the whole content of a list chunk.
pub fn encode_pieces(pieces: &[Piece], w: &mut Writer) {
    w.varint(pieces.len() as u64);
    for piece in pieces {
        w.varint(piece.len).bytes(piece.id.as_bytes());
    }
}

/// Reads a list of pieces off the front.
///
/// # Errors
/// On too many pieces, or an empty one.
pub fn decode_pieces(r: &mut Reader<'_>) -> Decoded<Vec<Piece>> {
    let count = r.varint_at_most(PIECE_COUNT_MAX as u64, "too many pieces")?;
    let mut pieces = Vec::new();
    for _ in 0..count {
        let len = r.varint()?;
        if len == 0 {
            return Err(r.error("empty piece"));
        }
        pieces.push(Piece { id: ChunkId::from_bytes(r.array()?), len });
    }
    Ok(pieces)
}

/// What kind of thing an entry is, with what only that kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file, or a stream that reads like one.
    File(Content),
    /// A directory; the content holds its encoded tree.
    Directory(Content),
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket. Never restored.
    Socket,
    /// A character device: major and minor number.
    CharDevice(u32, u32),
    /// A block device: major and minor number.
    BlockDevice(u32, u32),
}

impl EntryKind {
    fn tag(&self) -> u8 {
        match self {
            Self::File(_) => 1,
            Self::Directory(_) => 2,
            Self::Symlink(_) => 3,
            Self::Fifo => 4,
            Self::Socket => 5,
            Self::CharDevice(..) => 6,
            Self::BlockDevice(..) => 7,
        }
    }

    /// The letter that `ls -l` shows.
    #[must_use]
    pub fn letter(&self) -> char {
        match self {
            Self::File(_) => '-',
            Self::Directory(_) => 'd',
            Self::Symlink(_) => 'l',
            Self::Fifo => 'p',
            Self::Socket => 's',
            Self::CharDevice(..) => 'c',
            Self::BlockDevice(..) => 'b',
        }
    }
}

/// What the file system knows of an entry beyond its content. Streams have only mode and modification time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Permission bits with set-user-id, set-group-id and sticky: the low 12 bits of `st_mode`.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Name of the owner at capture, empty if unknown.
    pub user: Vec<u8>,
    /// Name of the group at capture, empty if unknown.
    pub group: Vec<u8>,
    /// Content changed.
    pub mtime: Time,
    /// Anything changed.
    pub ctime: Time,
    /// Device of the file system it was on. Tells hard links apart; not used to recognise changes.
    pub device: u64,
    /// Inode number. Zero for streams.
    pub inode: u64,
    /// Number of hard links. More than one: entries of equal device and inode are one file.
    pub link_count: u64,
    /// Extended attributes sorted by name, POSIX ACLs and capabilities among them.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Fields of later versions, kept as they are.
    pub later: Fields,
}

/// One name in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Any bytes but `/` and NUL; not empty, not `.` or `..`.
    pub name: Vec<u8>,
    /// Kind and content.
    pub kind: EntryKind,
    /// The rest.
    pub metadata: Metadata,
    /// The file changed while it was read, on every attempt: its content mixes two states.
    pub changed_while_read: bool,
}

const FLAG_CHANGED: u64 = 1;
const FLAGS_KNOWN: u64 = FLAG_CHANGED;

impl Entry {
    /// Appends the encoding.
    pub fn encode(&self, w: &mut Writer) {
        // Destructured so that a new field must be encoded here too.
        let Self { name, kind, metadata, changed_while_read } = self;
        w.u8(kind.tag());
        w.varint(if *changed_while_read { FLAG_CHANGED } else { 0 });
        w.counted_bytes(name);
        encode_metadata(metadata, w);
        match kind {
            EntryKind::File(content) | EntryKind::Directory(content) => content.encode(w),
            EntryKind::Symlink(target) => {
                w.counted_bytes(target);
            }
            EntryKind::CharDevice(major, minor) | EntryKind::BlockDevice(major, minor) => {
                w.u32(*major).u32(*minor);
            }
            EntryKind::Fifo | EntryKind::Socket => {}
        }
    }

    /// Reads an entry off the front.
    ///
    /// # Errors
    /// On anything the specification forbids.
    pub fn decode(r: &mut Reader<'_>) -> Decoded<Self> {
        let tag = r.u8()?;
        let flags = r.varint()?;
        if flags & !FLAGS_KNOWN != 0 {
            return Err(r.error("unknown entry flag"));
        }
        let name = r.counted_bytes(NAME_LEN_MAX, "name too long")?.to_vec();
        if !name_is_valid(&name) {
            return Err(r.error("bad name"));
        }
        let metadata = decode_metadata(r)?;
        let kind = decode_kind(tag, r)?;
        Ok(Self { name, kind, metadata, changed_while_read: flags & FLAG_CHANGED != 0 })
    }

    /// Length of the content; 0 for things without.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an entry is no collection; the length is that of its content")]
    pub fn len(&self) -> u64 {
        match &self.kind {
            EntryKind::File(content) => content.len,
            _ => 0,
        }
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, EntryKind::Directory(_))
    }
}

/// Whether `name` may stand in a tree.
#[must_use]
pub fn name_is_valid(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_LEN_MAX
        && name != b"."
        && name != b".."
        && !name.contains(&b'/')
        && !name.contains(&0)
}

fn decode_kind(tag: u8, r: &mut Reader<'_>) -> Decoded<EntryKind> {
    Ok(match tag {
        1 => EntryKind::File(Content::decode(r)?),
        2 => match Content::decode(r)? {
            Content { reflated: Some(_), .. } => return Err(r.error("reflated tree")),
            content => EntryKind::Directory(content),
        },
        3 => EntryKind::Symlink(decode_target(r)?),
        4 => EntryKind::Fifo,
        5 => EntryKind::Socket,
        6 => EntryKind::CharDevice(r.u32()?, r.u32()?),
        7 => EntryKind::BlockDevice(r.u32()?, r.u32()?),
        _ => return Err(r.error("unknown entry kind")),
    })
}

fn decode_target(r: &mut Reader<'_>) -> Decoded<Vec<u8>> {
    let target = r.counted_bytes(LINK_LEN_MAX, "link target too long")?;
    if target.contains(&0) { Err(r.error("bad link target")) } else { Ok(target.to_vec()) }
}

fn encode_metadata(metadata: &Metadata, w: &mut Writer) {
    let Metadata { mode, uid, gid, user, group, mtime, ctime, device, inode, link_count, xattrs, later } = metadata;
    w.varint(u64::from(*mode)).varint(u64::from(*uid)).varint(u64::from(*gid));
    w.counted_bytes(user).counted_bytes(group);
    for time in [mtime, ctime] {
        w.i64(time.seconds).u32(time.nanoseconds);
    }
    w.varint(*device).varint(*inode).varint(*link_count);
    w.varint(xattrs.len() as u64);
    for (name, value) in xattrs {
        w.counted_bytes(name).counted_bytes(value);
    }
    later.encode(w);
}

fn decode_metadata(r: &mut Reader<'_>) -> Decoded<Metadata> {
    let mode = small(r, 0o7777, "bad mode")?;
    let uid = small(r, u64::from(u32::MAX), "bad uid")?;
    let gid = small(r, u64::from(u32::MAX), "bad gid")?;
    let user = r.counted_bytes(OWNER_LEN_MAX, "owner too long")?.to_vec();
    let group = r.counted_bytes(OWNER_LEN_MAX, "group too long")?.to_vec();
    let mtime = decode_time(r)?;
    let ctime = decode_time(r)?;
    let (device, inode, link_count) = (r.varint()?, r.varint()?, r.varint()?);
    let xattrs = decode_xattrs(r)?;
    let later = Fields::decode(r, |_| false)?;
    Ok(Metadata { mode, uid, gid, user, group, mtime, ctime, device, inode, link_count, xattrs, later })
}

fn small(r: &mut Reader<'_>, max: u64, what: &'static str) -> Decoded<u32> {
    let value = r.varint_at_most(max, what)?;
    u32::try_from(value).map_err(|_| r.error(what))
}

fn decode_time(r: &mut Reader<'_>) -> Decoded<Time> {
    let time = Time { seconds: r.i64()?, nanoseconds: r.u32()? };
    if time.nanoseconds >= 1_000_000_000 { Err(r.error("bad nanoseconds")) } else { Ok(time) }
}

fn decode_xattrs(r: &mut Reader<'_>) -> Decoded<Vec<(Vec<u8>, Vec<u8>)>> {
    let count = r.varint_at_most(XATTR_COUNT_MAX as u64, "too many extended attributes")?;
    let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for _ in 0..count {
        let name = r.counted_bytes(XATTR_NAME_LEN_MAX, "extended attribute name too long")?.to_vec();
        if name.is_empty() || name.contains(&0) || xattrs.last().is_some_and(|(last, _)| *last >= name) {
            return Err(r.error("extended attributes not sorted"));
        }
        let value = r.counted_bytes(XATTR_VALUE_LEN_MAX, "extended attribute too long")?.to_vec();
        xattrs.push((name, value));
    }
    Ok(xattrs)
}

/// Decodes bytes that hold exactly one entry.
///
/// # Errors
/// As [`Entry::decode`], and on trailing bytes.
pub fn decode_one(bytes: &[u8]) -> Result<Entry, DecodeError> {
    let mut r = Reader::new(bytes);
    let entry = Entry::decode(&mut r)?;
    r.end()?;
    Ok(entry)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    fn piece() -> impl Strategy<Value = Piece> {
        (any::<[u8; 32]>(), 1..u64::MAX >> 12).prop_map(|(id, len)| Piece { id: ChunkId::from_bytes(id), len })
    }

    fn content() -> impl Strategy<Value = Content> {
        let piece = prop_oneof![4 => piece(), 1 => (1..1u64 << 40).prop_map(Piece::hole)];
        (0..=CONTENT_DEPTH_MAX, vec(piece, 0..20)).prop_map(|(depth, pieces)| {
            let len = sum(&pieces).expect("cannot overflow because each is below 2^52");
            // Lists of lists have no holes and are not empty.
            let depth = if pieces.is_empty() || pieces.iter().any(Piece::is_hole) { 0 } else { depth };
            Content { len, depth, pieces, reflated: None }
        })
    }

    fn kind() -> impl Strategy<Value = EntryKind> {
        prop_oneof![
            content().prop_map(EntryKind::File),
            content().prop_map(EntryKind::Directory),
            vec(1..=255u8, 0..300).prop_map(EntryKind::Symlink),
            Just(EntryKind::Fifo),
            Just(EntryKind::Socket),
            any::<(u32, u32)>().prop_map(|(major, minor)| EntryKind::CharDevice(major, minor)),
            any::<(u32, u32)>().prop_map(|(major, minor)| EntryKind::BlockDevice(major, minor)),
        ]
    }

    fn time() -> impl Strategy<Value = Time> {
        (any::<i64>(), 0..1_000_000_000u32).prop_map(|(seconds, nanoseconds)| Time { seconds, nanoseconds })
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        vec(any::<u8>(), 1..255).prop_filter("a valid name", |name| name_is_valid(name))
    }

    fn xattrs() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
        btree_map(vec(1..=255u8, 1..40), vec(any::<u8>(), 0..100), 0..5).prop_map(|map| map.into_iter().collect())
    }

    fn metadata() -> impl Strategy<Value = Metadata> {
        let owner = (any::<u32>(), any::<u32>(), vec(any::<u8>(), 0..32), vec(any::<u8>(), 0..32));
        let places = (any::<u64>(), any::<u64>(), any::<u64>());
        (0..=0o7777u32, owner, time(), time(), places, xattrs()).prop_map(
            |(mode, (uid, gid, user, group), mtime, ctime, (device, inode, link_count), xattrs)| Metadata {
                mode,
                uid,
                gid,
                user,
                group,
                mtime,
                ctime,
                device,
                inode,
                link_count,
                xattrs,
                later: Fields::default(),
            },
        )
    }

    /// Any entry that can be stored.
    pub fn entry() -> impl Strategy<Value = Entry> {
        (name(), kind(), metadata(), any::<bool>()).prop_map(|(name, kind, metadata, changed_while_read)| Entry {
            name,
            kind,
            metadata,
            changed_while_read,
        })
    }

    fn encoded(entry: &Entry) -> Vec<u8> {
        let mut w = Writer::new();
        entry.encode(&mut w);
        w.into_bytes()
    }

    fn fifo(name: &[u8]) -> Entry {
        let metadata = Metadata::default();
        Entry { name: name.to_vec(), kind: EntryKind::Fifo, metadata, changed_while_read: false }
    }

    #[track_caller]
    fn refused(entry: &Entry, what: &str) {
        assert_eq!(decode_one(&encoded(entry)).map_err(|error| error.what), Err(what));
    }

    #[test]
    fn names_that_could_climb_or_cut_a_path_are_refused() {
        for name in [b"".as_slice(), b".", b"..", b"a/b", b"/", b"a\0b"] {
            refused(&fifo(name), "bad name");
        }
        refused(&fifo(&vec![b'x'; NAME_LEN_MAX + 1]), "name too long");
        assert!(decode_one(&encoded(&fifo(b"..."))).is_ok());
    }

    #[test]
    fn metadata_beyond_its_bounds_is_refused() {
        let with = |metadata| Entry { metadata, ..fifo(b"x") };
        let time = Time { seconds: 0, nanoseconds: 1_000_000_000 };
        let xattr = |name: &[u8], len| (name.to_vec(), vec![0; len]);
        refused(&with(Metadata { mode: 0o10000, ..Metadata::default() }), "bad mode");
        refused(&with(Metadata { mtime: time, ..Metadata::default() }), "bad nanoseconds");
        refused(&with(Metadata { user: vec![b'u'; OWNER_LEN_MAX + 1], ..Metadata::default() }), "owner too long");
        refused(&with(Metadata { group: vec![b'g'; OWNER_LEN_MAX + 1], ..Metadata::default() }), "group too long");
        for (xattrs, what) in [
            (vec![xattr(b"b", 1), xattr(b"a", 1)], "extended attributes not sorted"),
            (vec![xattr(b"a", 1), xattr(b"a", 1)], "extended attributes not sorted"),
            (vec![xattr(b"", 1)], "extended attributes not sorted"),
            (vec![xattr(b"a\0b", 1)], "extended attributes not sorted"),
            (vec![xattr(&[b'a'; XATTR_NAME_LEN_MAX + 1], 1)], "extended attribute name too long"),
            (vec![xattr(b"a", XATTR_VALUE_LEN_MAX + 1)], "extended attribute too long"),
        ] {
            refused(&with(Metadata { xattrs, ..Metadata::default() }), what);
        }
    }

    #[test]
    fn contents_that_contradict_themselves_are_refused() {
        let with = |content| Entry { kind: EntryKind::File(content), ..fifo(b"x") };
        let hole = Piece::hole;
        refused(
            &with(Content { len: 2, depth: 0, pieces: vec![hole(1)], reflated: None }),
            "pieces do not sum to the content length",
        );
        refused(&with(Content { len: 0, depth: 0, pieces: vec![hole(0)], reflated: None }), "empty piece");
        refused(
            &with(Content { len: 1, depth: CONTENT_DEPTH_MAX + 1, pieces: vec![hole(1)], reflated: None }),
            "content too deep",
        );
        let overflow = vec![hole(u64::MAX), hole(2)];
        refused(
            &with(Content { len: 1, depth: 0, pieces: overflow, reflated: None }),
            "pieces do not sum to the content length",
        );
        let many = vec![hole(1); PIECE_COUNT_MAX + 1];
        refused(&with(Content { len: many.len() as u64, depth: 0, pieces: many, reflated: None }), "too many pieces");
        let target = EntryKind::Symlink(vec![b'x'; LINK_LEN_MAX + 1]);
        refused(&Entry { kind: target, ..fifo(b"x") }, "link target too long");
    }

    #[test]
    fn unknown_kinds_flags_and_contents_are_refused_and_not_guessed_at() {
        let mut bytes = encoded(&fifo(b"x"));
        bytes[0] = 8;
        assert_eq!(decode_one(&bytes).map_err(|error| error.what), Err("unknown entry kind"));
        bytes[0] = 4;
        bytes[1] = 2;
        assert_eq!(decode_one(&bytes).map_err(|error| error.what), Err("unknown entry flag"));
        bytes[1] = 0;
        bytes.push(0);
        assert_eq!(decode_one(&bytes).map_err(|error| error.what), Err("trailing bytes"));
        let file = Entry { kind: EntryKind::File(Content::default()), ..fifo(b"x") };
        let mut bytes = encoded(&file);
        let tag = bytes.len() - 4;
        bytes[tag] = 2;
        assert_eq!(decode_one(&bytes).map_err(|error| error.what), Err("unknown content encoding"));
    }

    proptest! {
        #[test]
        fn entries_round_trip(entry in entry()) {
            prop_assert_eq!(decode_one(&encoded(&entry)), Ok(entry));
        }

        #[test]
        fn every_truncated_entry_is_refused(entry in entry(), cut: prop::sample::Index) {
            let bytes = encoded(&entry);
            prop_assert!(decode_one(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn whatever_decodes_encodes_to_the_same_bytes(entry in entry(), at: prop::sample::Index, flip in 1..=255u8) {
            let mut bytes = encoded(&entry);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if let Ok(decoded) = decode_one(&bytes) {
                prop_assert_eq!(encoded(&decoded), bytes);
            }
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in vec(any::<u8>(), 0..400)) {
            if let Ok(decoded) = decode_one(&bytes) {
                prop_assert_eq!(encoded(&decoded), bytes);
            }
        }
    }
}
