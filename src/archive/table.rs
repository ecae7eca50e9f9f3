//! Object tables (format-spec 08): what a bucket holds. Keys are bytes and no paths; there may be a hundred million.
//!
//! Rows are sorted by key and gathered into pages, one chunk each. Pages of level 0 hold rows; pages of level n name
//! the pages of level n-1 by their first key. So one key is found by reading one page of each level, and a listing by
//! prefix reads what it shows. Where a page ends depends on the keys alone: a night that changed some objects stores the
//! pages of those and the few above them, and nothing else.

use super::content::ListSink;
use super::entry::{Content, Time};
use super::fields::Fields;
use crate::codec::{DecodeError, Decoded, Reader, Writer};
use crate::error::{Error, ErrorKind, Result};
use crate::id::ChunkId;
use crate::store::{ChunkSource, Older};

/// First byte of every page.
pub const TABLE_VERSION: u8 = 1;
/// Longest key of a row in bytes. S3 allows 1024; others may allow more one day.
pub const KEY_LEN_MAX: usize = 4096;
/// Longest text field (entity tag, version, content type) in bytes.
pub const TEXT_LEN_MAX: usize = 1024;
/// Most items of user metadata.
pub const USER_COUNT_MAX: usize = 1024;
/// No page is longer, whatever its keys.
pub const PAGE_LEN_MAX: usize = 1 << 20;
/// A page ends behind a marked key, but not before it is so long, unless it is the last.
const PAGE_LEN_MIN: usize = 16 << 10;
/// Highest level of a page.
pub const LEVEL_MAX: u8 = 8;

const FIELD_MODIFIED: u64 = 2;
const FIELD_ETAG: u64 = 4;
const FIELD_VERSION: u64 = 6;
const FIELD_CONTENT_TYPE: u64 = 8;
const FIELD_USER: u64 = 10;

/// One object of a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row {
    /// Any bytes, at least one.
    pub key: Vec<u8>,
    /// Its bytes.
    pub content: Content,
    /// When the bucket says that it was last written.
    pub modified: Option<Time>,
    /// Entity tag, as the bucket gives it.
    pub etag: Option<Vec<u8>>,
    /// Version, as the bucket calls it.
    pub version: Option<Vec<u8>>,
    /// Media type.
    pub content_type: Option<Vec<u8>>,
    /// User metadata, sorted by name, each name once.
    pub user: Vec<(Vec<u8>, Vec<u8>)>,
    /// Fields of later versions, kept as they are.
    pub later: Fields,
}

impl Row {
    /// Appends the encoding.
    pub fn encode(&self, w: &mut Writer) {
        // Destructured so that a new field must be encoded here too.
        let Self { key, content, modified, etag, version, content_type, user, later } = self;
        let mut fields = later.clone();
        if let Some(time) = modified {
            let mut value = Writer::new();
            value.i64(time.seconds).u32(time.nanoseconds);
            fields.set(FIELD_MODIFIED, value.into_bytes());
        }
        for (number, text) in [(FIELD_ETAG, etag), (FIELD_VERSION, version), (FIELD_CONTENT_TYPE, content_type)] {
            if let Some(text) = text {
                fields.set(number, text.clone());
            }
        }
        if !user.is_empty() {
            fields.set(FIELD_USER, encode_user(user));
        }
        w.counted_bytes(key);
        content.encode(w);
        fields.encode(w);
    }

    /// Reads a row off the front.
    ///
    /// # Errors
    /// On anything the specification forbids.
    pub fn decode(r: &mut Reader<'_>) -> Decoded<Self> {
        let key = decode_key(r)?;
        let content = Content::decode(r)?;
        let mut fields = Fields::decode(r, |_| false)?;
        let error = |what| DecodeError { offset: r.position(), what };
        let mut text = |number| match fields.take(number) {
            Some(text) if text.len() > TEXT_LEN_MAX => Err(error("row field too long")),
            text => Ok(text),
        };
        let (etag, version, content_type) = (text(FIELD_ETAG)?, text(FIELD_VERSION)?, text(FIELD_CONTENT_TYPE)?);
        let modified = fields.take(FIELD_MODIFIED).map(|value| decode_modified(&value)).transpose()?;
        let user = fields.take(FIELD_USER).map(|value| decode_user(&value)).transpose()?.unwrap_or_default();
        Ok(Self { key, content, modified, etag, version, content_type, user, later: fields })
    }
}

fn decode_key(r: &mut Reader<'_>) -> Decoded<Vec<u8>> {
    let key = r.counted_bytes(KEY_LEN_MAX, "key too long")?;
    if key.is_empty() { Err(r.error("empty key")) } else { Ok(key.to_vec()) }
}

fn decode_modified(value: &[u8]) -> Decoded<Time> {
    let mut r = Reader::new(value);
    let time = Time { seconds: r.i64()?, nanoseconds: r.u32()? };
    r.end()?;
    if time.nanoseconds >= 1_000_000_000 { Err(r.error("bad nanoseconds")) } else { Ok(time) }
}

fn encode_user(user: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut w = Writer::new();
    w.varint(user.len() as u64);
    for (name, value) in user {
        w.counted_bytes(name).counted_bytes(value);
    }
    w.into_bytes()
}

fn decode_user(value: &[u8]) -> Decoded<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut r = Reader::new(value);
    let count = r.varint_at_most(USER_COUNT_MAX as u64, "too much user metadata")?;
    let mut user: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for _ in 0..count {
        let name = r.counted_bytes(value.len(), "truncated")?.to_vec();
        if user.last().is_some_and(|(last, _)| *last >= name) {
            return Err(r.error("user metadata not sorted"));
        }
        user.push((name, r.counted_bytes(value.len(), "truncated")?.to_vec()));
    }
    if user.is_empty() {
        return Err(r.error("empty user metadata"));
    }
    r.end()?;
    Ok(user)
}

/// A page as the page above it names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRef {
    /// The first key below it.
    pub first_key: Vec<u8>,
    /// The chunk.
    pub id: ChunkId,
    /// Rows below it.
    pub row_count: u64,
    /// Content bytes of those rows.
    pub content_len: u64,
}

/// What one page holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// Level 0.
    Rows(Vec<Row>),
    /// Level 1 and above.
    Pages(u8, Vec<PageRef>),
}

impl Page {
    /// The bytes that are stored as one chunk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(TABLE_VERSION);
        match self {
            Self::Rows(rows) => {
                w.u8(0).varint(rows.len() as u64);
                for row in rows {
                    row.encode(&mut w);
                }
            }
            Self::Pages(level, pages) => {
                w.u8(*level).varint(pages.len() as u64);
                for page in pages {
                    encode_page_ref(page, &mut w);
                }
            }
        }
        w.into_bytes()
    }

    /// Reads what [`Page::encode`] wrote.
    ///
    /// # Errors
    /// On an unknown version, bad rows, wrong order, a key twice, trailing bytes.
    pub fn decode(bytes: &[u8]) -> Decoded<Self> {
        let mut r = Reader::new(bytes);
        if r.u8()? != TABLE_VERSION {
            return Err(r.error("unknown table version"));
        }
        let level = r.u8()?;
        if level > LEVEL_MAX {
            return Err(r.error("table too deep"));
        }
        let page = if level == 0 {
            Self::Rows(decode_sorted(&mut r, Row::decode, |row| &row.key)?)
        } else {
            let pages = decode_sorted(&mut r, decode_page_ref, |page| &page.first_key)?;
            if pages.is_empty() {
                return Err(r.error("page without pages"));
            }
            Self::Pages(level, pages)
        };
        r.end()?;
        Ok(page)
    }

    fn level(&self) -> u8 {
        match self {
            Self::Rows(_) => 0,
            Self::Pages(level, _) => *level,
        }
    }

    fn first_key(&self) -> Option<&[u8]> {
        match self {
            Self::Rows(rows) => rows.first().map(|row| row.key.as_slice()),
            Self::Pages(_, pages) => pages.first().map(|page| page.first_key.as_slice()),
        }
    }

    /// Rows and content bytes below it, unless they overflow.
    fn totals(&self) -> Option<(u64, u64)> {
        match self {
            Self::Rows(rows) => {
                let len = rows.iter().try_fold(0u64, |sum, row| sum.checked_add(row.content.len))?;
                Some((rows.len() as u64, len))
            }
            Self::Pages(_, pages) => pages.iter().try_fold((0u64, 0u64), |(rows, len), page| {
                Some((rows.checked_add(page.row_count)?, len.checked_add(page.content_len)?))
            }),
        }
    }
}

fn decode_sorted<T>(
    r: &mut Reader<'_>,
    decode: impl Fn(&mut Reader<'_>) -> Decoded<T>,
    key: impl Fn(&T) -> &Vec<u8>,
) -> Decoded<Vec<T>> {
    let count = r.varint()?;
    let mut items: Vec<T> = Vec::new();
    for _ in 0..count {
        let item = decode(r)?;
        if items.last().is_some_and(|last| key(last) >= key(&item)) {
            return Err(r.error("keys not sorted"));
        }
        items.push(item);
    }
    Ok(items)
}

fn encode_page_ref(page: &PageRef, w: &mut Writer) {
    let PageRef { first_key, id, row_count, content_len } = page;
    w.counted_bytes(first_key).bytes(id.as_bytes()).varint(*row_count).varint(*content_len);
}

fn decode_page_ref(r: &mut Reader<'_>) -> Decoded<PageRef> {
    let first_key = decode_key(r)?;
    let id = ChunkId::from_bytes(r.array()?);
    let row_count = r.varint()?;
    if row_count == 0 {
        return Err(r.error("page without rows"));
    }
    Ok(PageRef { first_key, id, row_count, content_len: r.varint()? })
}

/// A whole table: its topmost page and what is below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Level of the topmost page.
    pub level: u8,
    /// The topmost page.
    pub id: ChunkId,
    /// Rows.
    pub row_count: u64,
    /// Content bytes of all rows.
    pub content_len: u64,
}

impl Table {
    /// Appends the encoding.
    pub fn encode(&self, w: &mut Writer) {
        let Self { level, id, row_count, content_len } = self;
        w.u8(*level).bytes(id.as_bytes()).varint(*row_count).varint(*content_len);
    }

    /// Reads a table off the front.
    ///
    /// # Errors
    /// When it is too deep or too short.
    pub fn decode(r: &mut Reader<'_>) -> Decoded<Self> {
        let level = r.u8()?;
        if level > LEVEL_MAX {
            return Err(r.error("table too deep"));
        }
        Ok(Self { level, id: ChunkId::from_bytes(r.array()?), row_count: r.varint()?, content_len: r.varint()? })
    }

    /// Reads the page at the top.
    fn top(&self, chunks: &dyn ChunkSource) -> Result<Page> {
        read_page(chunks, &self.id, self.level, None, (self.row_count, self.content_len))
    }

    /// The row of `key`. Reads one page of each level.
    ///
    /// # Errors
    /// When pages can't be had or are not what the pages above say.
    pub fn get(&self, chunks: &dyn ChunkSource, key: &[u8]) -> Result<Option<Row>> {
        let mut page = self.top(chunks)?;
        loop {
            match page {
                Page::Rows(mut rows) => {
                    let found = rows.binary_search_by(|row| row.key.as_slice().cmp(key));
                    return Ok(found.ok().map(|at| rows.swap_remove(at)));
                }
                Page::Pages(level, pages) => {
                    let after = pages.partition_point(|page| page.first_key.as_slice() <= key);
                    let Some(below) = after.checked_sub(1).map(|at| &pages[at]) else { return Ok(None) };
                    page = read_below(chunks, level, below)?;
                }
            }
        }
    }

    /// The rows from `start` on, in order of their keys. Holds one page of each level in memory.
    #[must_use]
    pub fn rows_from<'s>(&self, chunks: &'s dyn ChunkSource, start: &[u8]) -> Rows<'s> {
        Rows {
            chunks,
            start: start.to_vec(),
            top: Some(self.clone()),
            stack: Vec::new(),
            ready: Vec::new().into_iter(),
        }
    }
}

fn bad_page(id: &ChunkId) -> Error {
    Error::damaged(format!("Page {} of a table is not what the format allows", id.short()))
}

fn read_below(chunks: &dyn ChunkSource, level: u8, page: &PageRef) -> Result<Page> {
    read_page(chunks, &page.id, level - 1, Some(&page.first_key), (page.row_count, page.content_len))
}

fn read_page(
    chunks: &dyn ChunkSource,
    id: &ChunkId,
    level: u8,
    first_key: Option<&[u8]>,
    totals: (u64, u64),
) -> Result<Page> {
    let bytes = chunks.get(id)?;
    let page = Page::decode(&bytes)
        .map_err(|cause| Error::stored(format!("Page {} of a table", id.short()), cause.is_newer()).cause(cause))?;
    let is_right = page.level() == level
        && page.totals() == Some(totals)
        && first_key.is_none_or(|first_key| page.first_key() == Some(first_key));
    if is_right { Ok(page) } else { Err(bad_page(id)) }
}

/// See [`Table::rows_from`].
pub struct Rows<'s> {
    chunks: &'s dyn ChunkSource,
    start: Vec<u8>,
    top: Option<Table>,
    stack: Vec<(u8, std::vec::IntoIter<PageRef>)>,
    ready: std::vec::IntoIter<Row>,
}

impl Rows<'_> {
    fn enter(&mut self, page: Page) {
        match page {
            Page::Rows(mut rows) => {
                let before = rows.partition_point(|row| row.key < self.start);
                self.ready = rows.split_off(before).into_iter();
            }
            Page::Pages(level, mut pages) => {
                let after = pages.partition_point(|page| page.first_key <= self.start);
                self.stack.push((level, pages.split_off(after.saturating_sub(1)).into_iter()));
            }
        }
    }

    fn step(&mut self) -> Result<bool> {
        if let Some(table) = self.top.take() {
            let page = table.top(self.chunks)?;
            self.enter(page);
            return Ok(true);
        }
        let Some((level, pages)) = self.stack.last_mut() else { return Ok(false) };
        let level = *level;
        match pages.next() {
            Some(below) => {
                let page = read_below(self.chunks, level, &below)?;
                self.enter(page);
            }
            None => {
                self.stack.pop();
            }
        }
        Ok(true)
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.ready.next() {
                return Some(Ok(row));
            }
            match self.step() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.stack.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}

/// A page that is being filled.
#[derive(Debug, Default)]
struct OpenPage {
    body: Writer,
    count: u64,
    first_key: Vec<u8>,
    row_count: u64,
    content_len: u64,
}

impl OpenPage {
    /// A page ends behind a key with this mark, so that a change of one row leaves the other pages as they were.
    fn ends(&self, level: u8, key: &[u8]) -> bool {
        self.body.len() >= PAGE_LEN_MIN && blake3::hash(key).as_bytes()[usize::from(level)] == 0
    }

    fn push(&mut self, item: &[u8], key: &[u8], row_count: u64, content_len: u64) {
        if self.count == 0 {
            self.first_key = key.to_vec();
        }
        self.body.bytes(item);
        self.count += 1;
        self.row_count += row_count;
        self.content_len = self.content_len.saturating_add(content_len);
    }
}

/// Room for what precedes the items of a page.
const PAGE_HEAD_LEN_MAX: usize = 2 + 10;

/// Writes one table. Takes the rows in the order of their keys; holds one page of each level.
#[derive(Debug, Default)]
pub struct TableWriter {
    levels: Vec<OpenPage>,
    last_key: Option<Vec<u8>>,
}

impl TableWriter {
    /// Appends a row.
    ///
    /// # Errors
    /// When the key is not behind the last one or the row is beyond what the format allows; from the store, when a full
    /// page is put there.
    pub fn push(&mut self, row: &Row, sink: &mut ListSink<'_>) -> Result<()> {
        let mut w = Writer::new();
        row.encode(&mut w);
        let item = w.into_bytes();
        let is_allowed = Row::decode(&mut Reader::new(&item)).is_ok_and(|back| back == *row);
        let is_behind = self.last_key.as_ref().is_none_or(|last| *last < row.key);
        if !is_allowed || !is_behind || item.len() + PAGE_HEAD_LEN_MAX > PAGE_LEN_MAX {
            let key = super::path::escape(&row.key);
            return Err(Error::new(ErrorKind::Bug, format!("Object {key} does not fit into a table")));
        }
        self.push_at(0, &item, &row.key, 1, row.content.len, sink)?;
        self.last_key = Some(row.key.clone());
        Ok(())
    }

    fn push_at(
        &mut self,
        level: u8,
        item: &[u8],
        key: &[u8],
        row_count: u64,
        content_len: u64,
        sink: &mut ListSink<'_>,
    ) -> Result<()> {
        if level > LEVEL_MAX {
            return Err(Error::new(ErrorKind::Bug, "A table grew too deep"));
        }
        let at = usize::from(level);
        if self.levels.len() == at {
            self.levels.push(OpenPage::default());
        }
        if self.levels[at].count > 0 && self.levels[at].body.len() + item.len() + PAGE_HEAD_LEN_MAX > PAGE_LEN_MAX {
            self.close(level, sink)?;
        }
        self.levels[at].push(item, key, row_count, content_len);
        if self.levels[at].ends(level, key) { self.close(level, sink) } else { Ok(()) }
    }

    /// Stores the open page of `level` and names it in the one above.
    fn close(&mut self, level: u8, sink: &mut ListSink<'_>) -> Result<()> {
        let page = put_page(level, std::mem::take(&mut self.levels[usize::from(level)]), sink)?;
        let mut w = Writer::new();
        encode_page_ref(&page, &mut w);
        self.push_at(level + 1, &w.into_bytes(), &page.first_key, page.row_count, page.content_len, sink)
    }

    /// Stores what is open, and gives the table.
    ///
    /// # Errors
    /// From the store.
    pub fn finish(mut self, sink: &mut ListSink<'_>) -> Result<Table> {
        if self.levels.is_empty() {
            self.levels.push(OpenPage::default());
        }
        for level in 0..=LEVEL_MAX {
            let at = usize::from(level);
            if self.levels.len() == at + 1 {
                let PageRef { id, row_count, content_len, .. } =
                    put_page(level, std::mem::take(&mut self.levels[at]), sink)?;
                return Ok(Table { level, id, row_count, content_len });
            }
            if self.levels[at].count > 0 {
                self.close(level, sink)?;
            }
        }
        Err(Error::new(ErrorKind::Bug, "A table grew too deep"))
    }
}

fn put_page(level: u8, page: OpenPage, sink: &mut ListSink<'_>) -> Result<PageRef> {
    let OpenPage { body, count, first_key, row_count, content_len } = page;
    let mut w = Writer::new();
    w.u8(TABLE_VERSION).u8(level).varint(count).bytes(&body.into_bytes());
    let (id, _) = sink.put_chunk(&w.into_bytes(), Older::default())?;
    Ok(PageRef { first_key, id, row_count, content_len })
}

#[cfg(test)]
mod tests;
