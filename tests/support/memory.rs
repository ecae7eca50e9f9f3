//! Captures trees into memory and gives them back chunk by chunk: what `restore_tree` needs of a repository, in fifty
//! lines, with faults on demand.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use compline::archive::entry::{encode_pieces, sum};
use compline::archive::posix::{self, FoundKind, Inspected, Owners};
use compline::archive::restore::TreeSource;
use compline::archive::{Content, Entry, EntryKind, Piece, Tree};
use compline::codec::Writer;
use compline::error::{Error, ErrorKind, Result};
use compline::id::ChunkId;
use compline::store::ChunkSource;

/// Length of all chunks but the last of an extent.
pub const CHUNK_LEN: u64 = 64 << 10;
/// Pieces in one list; small, so that ordinary files have lists of lists.
const LIST_LEN: usize = 16;

/// Chunks in memory.
pub struct MemoryArchive {
    chunks: HashMap<ChunkId, Vec<u8>>,
    owners: Owners,
    /// Chunks that can't be read.
    pub lost: Mutex<HashSet<ChunkId>>,
    /// Chunks that were delivered in bulk.
    pub delivered: AtomicU64,
    /// The most that were asked for at once.
    pub batch_len_max: AtomicU64,
    /// Deliveries that are left until it stops with `Interrupted`.
    pub patience: AtomicI64,
    /// When the patience is over, the process dies on the spot, like one that is killed.
    pub deadly: AtomicBool,
}

impl MemoryArchive {
    pub fn new() -> Self {
        Self {
            chunks: HashMap::new(),
            owners: Owners::new(),
            lost: Mutex::default(),
            delivered: AtomicU64::new(0),
            batch_len_max: AtomicU64::new(0),
            patience: AtomicI64::new(i64::MAX),
            deadly: AtomicBool::new(false),
        }
    }

    /// Captures `path` with all that is below it.
    pub fn capture(&mut self, path: &Path) -> Entry {
        let found = posix::inspect(path, &self.owners).unwrap();
        let name = path.file_name().unwrap().to_owned();
        let parent = posix::open_directory(path.parent().unwrap()).unwrap();
        self.capture_at(parent.as_fd(), &name, found)
    }

    fn capture_at(&mut self, parent: impl AsFd, name: &OsStr, found: Inspected) -> Entry {
        assert_eq!(found.problems, Vec::<String>::new(), "{name:?}");
        let kind = match found.kind {
            FoundKind::File { len, .. } => EntryKind::File(self.capture_file(&parent, name, len)),
            FoundKind::Directory => EntryKind::Directory(self.capture_directory(&parent, name)),
            FoundKind::Symlink(target) => EntryKind::Symlink(target),
            FoundKind::Fifo => EntryKind::Fifo,
            FoundKind::Socket => EntryKind::Socket,
            FoundKind::CharDevice(major, minor) => EntryKind::CharDevice(major, minor),
            FoundKind::BlockDevice(major, minor) => EntryKind::BlockDevice(major, minor),
        };
        Entry { name: name.as_bytes().to_vec(), kind, metadata: found.metadata, changed_while_read: false }
    }

    fn capture_directory(&mut self, parent: &impl AsFd, name: &OsStr) -> Content {
        let directory = posix::open_directory_at(parent, name).unwrap();
        let mut tree = Tree::default();
        for name in posix::list_names(&directory).unwrap() {
            let found = posix::inspect_at(&directory, &name, &self.owners).unwrap();
            tree.entries.push(self.capture_at(&directory, &name, found));
        }
        self.store(&tree.encode())
    }

    fn capture_file(&mut self, parent: &impl AsFd, name: &OsStr, len: u64) -> Content {
        let file = posix::open_file_at(parent, name).unwrap();
        let mut pieces = Vec::new();
        for extent in posix::holes(&file, len).unwrap() {
            if extent.is_hole {
                pieces.push(Piece::hole(extent.len));
                continue;
            }
            let end = extent.offset + extent.len;
            for offset in (extent.offset..end).step_by(usize::try_from(CHUNK_LEN).unwrap()) {
                let mut bytes = vec![0; usize::try_from(CHUNK_LEN.min(end - offset)).unwrap()];
                file.read_exact_at(&mut bytes, offset).unwrap();
                pieces.push(self.store_chunk(bytes));
            }
        }
        self.list(pieces)
    }

    /// Stores `bytes` as the content of a file or tree.
    pub fn store(&mut self, bytes: &[u8]) -> Content {
        let chunk_len = usize::try_from(CHUNK_LEN).unwrap();
        let pieces = bytes.chunks(chunk_len).map(|chunk| self.store_chunk(chunk.to_vec())).collect();
        self.list(pieces)
    }

    /// Makes a content of pieces; long ones become lists of lists.
    pub fn list(&mut self, mut pieces: Vec<Piece>) -> Content {
        let mut depth = 0;
        while pieces.len() > LIST_LEN {
            depth += 1;
            let lists: Vec<_> = pieces.chunks(LIST_LEN).map(<[Piece]>::to_vec).collect();
            pieces = lists.iter().map(|list| self.store_list(list)).collect();
        }
        Content { len: sum(&pieces).unwrap(), depth, pieces, reflated: None }
    }

    fn store_list(&mut self, pieces: &[Piece]) -> Piece {
        let mut w = Writer::new();
        encode_pieces(pieces, &mut w);
        Piece { len: sum(pieces).unwrap(), ..self.store_chunk(w.into_bytes()) }
    }

    /// Stores one chunk.
    pub fn store_chunk(&mut self, bytes: Vec<u8>) -> Piece {
        let id = ChunkId::from_bytes(*blake3::hash(&bytes).as_bytes());
        let len = bytes.len() as u64;
        self.chunks.insert(id, bytes);
        Piece { id, len }
    }

    /// A directory entry with these entries, as an archive from elsewhere could have it.
    pub fn directory(&mut self, name: &[u8], mut entries: Vec<Entry>) -> Entry {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let content = self.store(&Tree { entries }.encode());
        let metadata = plain_metadata(0o755);
        Entry { name: name.to_vec(), kind: EntryKind::Directory(content), metadata, changed_while_read: false }
    }

    /// A file entry.
    pub fn file(&mut self, name: &[u8], bytes: &[u8]) -> Entry {
        let content = self.store(bytes);
        let metadata = plain_metadata(0o644);
        Entry { name: name.to_vec(), kind: EntryKind::File(content), metadata, changed_while_read: false }
    }

    /// All chunks of depth 0 of a content.
    pub fn chunk_ids(&self, content: &Content) -> Vec<ChunkId> {
        assert_eq!(content.depth, 0, "only for short contents");
        content.pieces.iter().filter(|piece| !piece.is_hole()).map(|piece| piece.id).collect()
    }

    fn find(&self, id: &ChunkId) -> Result<&[u8]> {
        if self.lost.lock().unwrap().contains(id) {
            return Err(Error::damaged(format!("Chunk {} is damaged", id.short())));
        }
        let found = self.chunks.get(id).map(Vec::as_slice);
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("No chunk {}", id.short())))
    }

    fn deliver(&self, at: usize, id: &ChunkId, deliver: &(dyn Fn(usize, &[u8]) -> Result<()> + Sync)) -> Result<()> {
        if self.patience.fetch_sub(1, Ordering::SeqCst) <= 0 {
            if self.deadly.load(Ordering::SeqCst) {
                std::process::abort();
            }
            return Err(Error::interrupted());
        }
        self.delivered.fetch_add(1, Ordering::SeqCst);
        deliver(at, self.find(id)?)
    }
}

/// Metadata of a file of ours.
pub fn plain_metadata(mode: u32) -> compline::archive::Metadata {
    compline::archive::Metadata {
        mode,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mtime: compline::archive::Time { seconds: 1_000_000_000, nanoseconds: 5 },
        inode: 1,
        link_count: 1,
        ..compline::archive::Metadata::default()
    }
}

impl ChunkSource for MemoryArchive {
    fn get(&self, id: &ChunkId) -> Result<Vec<u8>> {
        self.find(id).map(<[u8]>::to_vec)
    }

    /// From two threads, each from the end to the start: an order that nobody expects.
    fn get_many(&self, ids: &[ChunkId], deliver: &(dyn Fn(usize, &[u8]) -> Result<()> + Sync)) -> Result<()> {
        self.batch_len_max.fetch_max(ids.len() as u64, Ordering::SeqCst);
        let half = |parity: usize| {
            let mine = ids.iter().enumerate().rev().filter(move |(at, _)| at % 2 == parity);
            mine.into_iter().try_for_each(|(at, id)| self.deliver(at, id, deliver))
        };
        std::thread::scope(|scope| {
            let odd = scope.spawn(|| half(1));
            let even = half(0);
            odd.join().unwrap().and(even)
        })
    }
}

impl TreeSource for MemoryArchive {
    fn tree(&self, content: &Content) -> Result<Tree> {
        let bytes = self.read(content)?;
        Tree::decode(&bytes).map_err(|error| Error::damaged("Tree is damaged").cause(error))
    }

    fn open(&self, content: &Content) -> Box<dyn Read + Send + '_> {
        unreachable!("nothing is taken apart here: {content:?}")
    }
}

impl MemoryArchive {
    fn read(&self, content: &Content) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for piece in &content.pieces {
            let chunk = self.find(&piece.id)?;
            if content.depth == 0 {
                bytes.extend_from_slice(chunk);
            } else {
                let pieces = compline::archive::entry::decode_pieces(&mut compline::codec::Reader::new(chunk)).unwrap();
                bytes.extend(self.read(&Content {
                    len: piece.len,
                    depth: content.depth - 1,
                    pieces,
                    reflated: None,
                })?);
            }
        }
        Ok(bytes)
    }
}
