//! A look inside: tar archives in a snapshot, compressed or not, as trees of their own.
//!
//! Of a gzip'd archive that was taken apart (format-spec 15) the plain bytes are stored as they are, so only headers are read of it and
//! contents are passed over. Others are undone from their first byte on. Nothing is written and nothing is run: names in an
//! archive are names, whatever is in them, and those that can't stand in a path are passed over.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZFlush, MZStatus};

use super::entry::{Content, Entry, EntryKind, Metadata, Time, name_is_valid};
use super::path::ArchivePath;
use super::reader::{ArchiveReader, PlainReader};
use crate::error::{Error, ErrorKind, Result};
use crate::reflate::{Header, header};

/// Most entries of an archive that is looked into; each takes some hundred bytes of memory.
const ENTRY_COUNT_MAX: usize = 5_000_000;
/// Bytes that are read at once to be passed over.
const STEP_LEN: usize = 1 << 20;
const TAR_BLOCK_LEN: usize = 512;
/// Where `ustar` stands in the first block.
const TAR_MAGIC: std::ops::Range<usize> = 257..262;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What is in an archive.
#[derive(Debug, Default)]
pub struct Inside {
    entries: BTreeMap<Vec<Vec<u8>>, Entry>,
    /// Where in the archive the content of a file begins.
    offsets: BTreeMap<Vec<Vec<u8>>, u64>,
    /// What tells contents apart, if they were read.
    hashes: BTreeMap<Vec<Vec<u8>>, blake3::Hash>,
}

/// Splits a path at the first name that ends with `!`: a file, and a path in it.
#[must_use]
pub fn split(path: &ArchivePath) -> Option<(ArchivePath, ArchivePath)> {
    let at = path.names().iter().position(|name| name.len() > 1 && name.ends_with(b"!"))?;
    let (outer, inner) = path.names().split_at(at + 1);
    let mut names = outer.to_vec();
    let _mark = names.last_mut()?.pop();
    let of = |names: &[Vec<u8>]| names.iter().try_fold(ArchivePath::root(), |path, name| path.join(name)).ok();
    Some((of(&names)?, of(inner)?))
}

/// Whether a content is an archive that can be looked into.
///
/// # Errors
/// When its beginning can't be read.
pub fn is_archive(reader: &ArchiveReader<'_>, content: &Content) -> Result<bool> {
    if content.len < TAR_BLOCK_LEN as u64 {
        return Ok(false);
    }
    let mut block = Vec::new();
    let read = open(reader, content)?.take(TAR_BLOCK_LEN as u64).read_to_end(&mut block);
    Ok(read.is_ok() && block.get(TAR_MAGIC) == Some(b"ustar"))
}

impl Inside {
    /// Reads what is in an archive. `compares`: contents are read as well, so that they can be told apart.
    ///
    /// # Errors
    /// `Usage` when it is none; when it can't be read.
    pub fn read(reader: &ArchiveReader<'_>, path: &ArchivePath, content: &Content, compares: bool) -> Result<Self> {
        let none = |cause: io::Error| {
            let error = Error::new(ErrorKind::Usage, format!("/{path} is no archive that can be looked into"));
            match cause.downcast::<Error>() {
                Ok(error) => error,
                Err(cause) => error.cause(cause).hint("tar archives can be, plain or compressed with gzip or zstd"),
            }
        };
        let mut archive = tar::Archive::new(open(reader, content)?);
        let mut inside = Self::default();
        for entry in archive.entries_with_seek().map_err(none)? {
            let mut entry = entry.map_err(none)?;
            inside.add(&mut entry, compares).map_err(none)?;
            if inside.entries.len() > ENTRY_COUNT_MAX {
                return Err(Error::new(ErrorKind::Usage, format!("/{path} has too many entries to look into")));
            }
        }
        Ok(inside)
    }

    fn add(&mut self, found: &mut tar::Entry<'_, impl Read>, compares: bool) -> io::Result<()> {
        let path = found.path_bytes();
        let names: Vec<Vec<u8>> =
            path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).map(<[u8]>::to_vec).collect();
        drop(path);
        let Some(name) = names.last().filter(|_| names.iter().all(|name| name_is_valid(name))).cloned() else {
            return Ok(());
        };
        let header = found.header();
        let link = || found.link_name_bytes().map(|target| target.to_vec()).unwrap_or_default();
        let numbers = || (header.device_major().ok().flatten(), header.device_minor().ok().flatten());
        let device = |make: fn(u32, u32) -> EntryKind| make(numbers().0.unwrap_or(0), numbers().1.unwrap_or(0));
        let kind = match header.entry_type() {
            tar::EntryType::Directory => EntryKind::Directory(Content::default()),
            tar::EntryType::Symlink | tar::EntryType::Link => EntryKind::Symlink(link()),
            tar::EntryType::Char => device(EntryKind::CharDevice),
            tar::EntryType::Block => device(EntryKind::BlockDevice),
            tar::EntryType::Fifo => EntryKind::Fifo,
            _ => EntryKind::File(Content { len: found.size(), ..Content::default() }),
        };
        let metadata = metadata(header);
        if matches!(kind, EntryKind::File(_)) {
            self.offsets.insert(names.clone(), found.raw_file_position());
            if compares {
                let mut hasher = blake3::Hasher::new();
                hasher.update_reader(found)?;
                self.hashes.insert(names.clone(), hasher.finalize());
            }
        }
        for above in 1..names.len() {
            let (name, path) = (&names[above - 1], names[..above].to_vec());
            self.entries.entry(path).or_insert_with(|| directory(name.clone()));
        }
        self.entries.insert(names, Entry { name, kind, metadata, changed_while_read: false });
        Ok(())
    }

    /// The entry at `path`; the empty one is the archive's root.
    #[must_use]
    pub fn entry(&self, path: &ArchivePath) -> Option<Entry> {
        if path.is_root() { Some(directory(Vec::new())) } else { self.entries.get(path.names()).cloned() }
    }

    /// Everything below `path`, or only what is directly in it, in the order of paths.
    pub fn below(&self, path: &ArchivePath, recursive: bool) -> impl Iterator<Item = (ArchivePath, &Entry)> {
        let (start, depth) = (path.names().to_vec(), path.names().len());
        let inside = self.entries.range(start.clone()..).take_while(move |(names, _)| names.starts_with(&start));
        let wanted = inside.filter(move |(names, _)| names.len() > depth && (recursive || names.len() == depth + 1));
        wanted.filter_map(|(names, entry)| {
            let path = names.iter().try_fold(ArchivePath::root(), |path, name| path.join(name)).ok()?;
            Some((path, entry))
        })
    }

    /// What tells the content of the file at `path` from others, if contents were read.
    #[must_use]
    pub fn hash(&self, path: &ArchivePath) -> Option<blake3::Hash> {
        self.hashes.get(path.names()).copied()
    }

    /// The bytes of the file at `path`; `content` is that of the archive.
    ///
    /// # Errors
    /// `NotFound` when it is no file.
    pub fn open<'r>(
        &self,
        reader: &'r ArchiveReader<'_>,
        content: &Content,
        path: &ArchivePath,
    ) -> Result<Box<dyn Read + 'r>> {
        let file = self.entries.get(path.names()).zip(self.offsets.get(path.names()));
        let (entry, offset) =
            file.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("There is no file /{path} in the archive")))?;
        let mut archive = open(reader, content)?;
        let seek = i64::try_from(*offset).map_err(io::Error::other).and_then(|at| archive.seek(SeekFrom::Current(at)));
        seek.map_err(|cause| Error::io("The archive can't be read", cause))?;
        Ok(Box::new(archive.take(entry.len())))
    }
}

fn directory(name: Vec<u8>) -> Entry {
    let metadata = Metadata { mode: 0o755, link_count: 1, ..Metadata::default() };
    Entry { name, kind: EntryKind::Directory(Content::default()), metadata, changed_while_read: false }
}

fn metadata(header: &tar::Header) -> Metadata {
    let number = |number: io::Result<u64>| number.ok().and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
    let name = |name: Option<&[u8]>| name.unwrap_or_default().to_vec();
    Metadata {
        mode: header.mode().unwrap_or(0) & 0o7777,
        uid: number(header.uid()),
        gid: number(header.gid()),
        user: name(header.username_bytes()),
        group: name(header.groupname_bytes()),
        mtime: Time { seconds: header.mtime().unwrap_or(0).cast_signed(), nanoseconds: 0 },
        link_count: 1,
        ..Metadata::default()
    }
}

/// What goes forward: a reader of plain bytes that can pass over some.
trait Forward: Read {
    /// Passes over `len` bytes.
    fn pass(&mut self, len: u64) -> io::Result<()> {
        let mut buffer = vec![0; STEP_LEN];
        let mut left = len;
        while left > 0 {
            let step = usize::try_from(left).unwrap_or(STEP_LEN).min(STEP_LEN);
            self.read_exact(&mut buffer[..step])?;
            left -= step as u64;
        }
        Ok(())
    }
}

/// The bytes of an archive, from its first on.
struct Bytes<'r> {
    source: Box<dyn Forward + 'r>,
    at: u64,
}

impl Read for Bytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.source.read(buffer)?;
        self.at += len as u64;
        Ok(len)
    }
}

/// Forwards only; that is all that a tar archive needs.
impl Seek for Bytes<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(to) => Some(to),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(_) => None,
        };
        let len = to.and_then(|to| to.checked_sub(self.at)).ok_or(io::ErrorKind::Unsupported)?;
        self.source.pass(len)?;
        self.at += len;
        Ok(self.at)
    }
}

/// The plain bytes of a content, whatever it is compressed with.
fn open<'r>(reader: &'r ArchiveReader<'_>, content: &Content) -> Result<Bytes<'r>> {
    if let Some(reflated) = content.reflated
        && reader.is_all_deflated(content)?
    {
        return Ok(Bytes { source: Box::new(reader.plain(content, reflated.plain_len)), at: 0 });
    }
    let mut start = Vec::new();
    let failed = |cause: io::Error| cause.downcast().unwrap_or_else(|cause| Error::io("A file can't be read", cause));
    reader.open(content).take(crate::reflate::HEADER_LEN_MAX as u64).read_to_end(&mut start).map_err(failed)?;
    let bytes = reader.open(content);
    let source: Box<dyn Forward + 'r> = match header(&start) {
        Header::Len(len) if start.starts_with(&[0x1f, 0x8b]) => {
            let mut bytes = BufReader::with_capacity(1 << 20, bytes);
            io::copy(&mut (&mut bytes).take(len as u64), &mut io::sink()).map_err(failed)?;
            Box::new(Gunzip { source: bytes, state: InflateState::new_boxed(DataFormat::Raw), is_done: false })
        }
        _ if start.starts_with(&ZSTD_MAGIC) => Box::new(Unzstd(zstd::Decoder::new(bytes).map_err(failed)?)),
        _ if content.reflated.is_some() => Box::new(Made(bytes)),
        _ => Box::new(reader.plain(content, content.len)),
    };
    Ok(Bytes { source, at: 0 })
}

/// The first member of a gzip file. Archives have one.
struct Gunzip<R> {
    source: BufReader<R>,
    state: Box<InflateState>,
    is_done: bool,
}

impl<R: Read> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::io::BufRead;
        while !self.is_done && !buffer.is_empty() {
            let input = self.source.fill_buf()?;
            let is_end = input.is_empty();
            let result = inflate(&mut self.state, input, buffer, MZFlush::None);
            self.source.consume(result.bytes_consumed);
            self.is_done = matches!(result.status, Ok(MZStatus::StreamEnd));
            if result.bytes_written > 0 {
                return Ok(result.bytes_written);
            }
            if !self.is_done && (is_end || result.bytes_consumed == 0) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the gzip data are damaged or end early"));
            }
        }
        Ok(0)
    }
}

impl<R: Read> Forward for Gunzip<R> {}

struct Unzstd<R: Read>(zstd::Decoder<'static, BufReader<R>>);

impl<R: Read> Read for Unzstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Forward for Unzstd<R> {}

impl Forward for PlainReader<'_> {
    fn pass(&mut self, len: u64) -> io::Result<()> {
        PlainReader::pass(self, len)
    }
}

/// Bytes that are made again on their way.
struct Made<'r>(Box<dyn Read + Send + 'r>);

impl Read for Made<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Forward for Made<'_> {}
