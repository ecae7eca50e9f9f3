//! Looking at directories: names, what the system tells of each, and what of it is as it was in the parent snapshot.
//!
//! Directories are looked at ahead of need, several at once, because a cold cache answers each question only after a
//! journey to the disk. Inodes are asked for in the order of their numbers, which is that of the disk on most file systems.
//!
//! A name whose change time, inode, device, length and ownership are as in the parent *is* the parent's entry: it is taken
//! over with its extended attributes, which can't change without the change time. That costs one `stat` and no memory.
//! Not so where the parent may know less of it than is to be known now ([`Parent::tells_all`](crate::archive::Parent)).

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

use super::{SMALL_LEN_MAX, Step, ToRead, problem, unreadable};
use crate::archive::FilesSource;
use crate::archive::content::{self, each_chunk};
use crate::archive::entry::{Content, Entry, EntryKind, name_is_valid};
use crate::archive::posix::{self, FoundKind, Inspected, Owners, Seen};
use crate::archive::tree::Tree;
use crate::error::Result;
use crate::id::ChunkId;
use crate::observer::Problem;
use crate::store::ChunkSource;

/// Chunk ids of unchanged files that are looked up at once.
const LOOK_UP_COUNT: usize = 4096;
const CACHEDIR_TAG: &[u8] = b"CACHEDIR.TAG";
const CACHEDIR_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// Looks at directories, from any thread.
pub(super) struct Scout<'s> {
    pub source: &'s FilesSource,
    pub omit: &'s [PathBuf],
    pub chunks: &'s dyn ChunkSource,
    /// Which chunks are stored.
    pub contains: &'s (dyn Fn(&[ChunkId]) -> Result<Vec<bool>> + Sync),
    pub owners: &'s Owners,
    /// Whether what is as it was may be taken over with its attributes.
    pub takes_over: bool,
}

/// A directory that is open.
pub(super) struct Place {
    pub directory: Arc<OwnedFd>,
    pub path: PathBuf,
    pub inspected: io::Result<Inspected>,
    /// What the parent has of it.
    pub tree: Option<Arc<Tree>>,
    /// The file system to stay on.
    pub device: Option<u64>,
}

/// What is in a directory.
#[derive(Default)]
pub(super) struct Found {
    /// Positions in the parent's tree.
    pub same: Vec<usize>,
    /// Everything else but directories.
    pub steps: Vec<Step>,
    pub directories: Vec<OsString>,
}

/// A directory to be looked at.
pub(super) struct Visit {
    pub above: Arc<OwnedFd>,
    pub name: OsString,
    pub path: PathBuf,
    /// The parent's tree of the directory above.
    pub tree: Option<Arc<Tree>>,
    pub device: Option<u64>,
}

/// What came of it.
pub(super) enum Visited {
    Found(Box<Place>, Found),
    Problem(Problem),
    Vanished,
}

/// What is known of a name from the list of its directory.
pub(super) struct Listed {
    pub name: OsString,
    inode: u64,
    is_directory: bool,
}

impl Listed {
    pub fn of(name: &OsStr) -> Self {
        Self { name: name.to_owned(), inode: 0, is_directory: false }
    }
}

/// New files from this length on are looked for under other numbers.
const PREDECESSOR_LEN_MIN: u64 = 256 << 10;

/// What was found out about a name.
struct Look {
    name: OsString,
    /// Its position in the parent's tree.
    known: Option<usize>,
    seen: io::Result<Seen>,
    /// Its content is the parent's.
    keeps_content: bool,
}

impl Scout<'_> {
    pub fn visit(&self, visit: Visit) -> Visited {
        match posix::open_directory_at(&visit.above, &visit.name) {
            Ok(directory) => {
                let old = visit.tree.as_deref().and_then(|tree| tree.get(visit.name.as_bytes()));
                let place = self.place(directory, visit.path, old, visit.device);
                let found = self.all(&place);
                Visited::Found(Box::new(place), found)
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Visited::Vanished,
            Err(cause) => Visited::Problem(problem(&visit.path, format!("Can't be opened: {cause}"))),
        }
    }

    pub fn place(&self, directory: OwnedFd, path: PathBuf, old: Option<&Entry>, device: Option<u64>) -> Place {
        let inspected = match posix::see_open(&directory, old.filter(|_| self.takes_over), self.owners) {
            Ok(Seen::Same) => Ok(Inspected {
                kind: FoundKind::Directory,
                metadata: old.map(|old| old.metadata.clone()).unwrap_or_default(),
                problems: Vec::new(),
            }),
            Ok(Seen::Other(inspected)) => Ok(*inspected),
            Err(cause) => Err(cause),
        };
        let tree = match old.map(|old| &old.kind) {
            // A parent that can't be read only costs the comparison.
            Some(EntryKind::Directory(content)) => content::read_tree(self.chunks, content).ok().map(Arc::new),
            _ => None,
        };
        Place { directory: Arc::new(directory), path, inspected, tree, device }
    }

    pub fn all(&self, place: &Place) -> Found {
        let is_foreign = |inspected: &Inspected| place.device.is_some_and(|device| device != inspected.metadata.device);
        if place.inspected.as_ref().is_ok_and(is_foreign) {
            return Found::default();
        }
        let mut names = match list(&place.directory) {
            Ok(names) => names,
            Err(cause) => {
                let step = Step::Problem(problem(&place.path, format!("Can't be listed: {cause}")));
                return Found { steps: vec![step], ..Found::default() };
            }
        };
        self.leave_out(place, &mut names);
        let (directories, files): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.is_directory);
        let mut found = self.names(place, files);
        found.directories = directories.into_iter().map(|name| name.name).collect();
        found
    }

    fn leave_out(&self, place: &Place, names: &mut Vec<Listed>) {
        let has_tag = self.source.exclude_caches && names.iter().any(|name| name.name.as_bytes() == CACHEDIR_TAG);
        if has_tag && is_cache(&place.directory) {
            names.retain(|name| name.name.as_bytes() == CACHEDIR_TAG);
        }
        let omitted: Vec<&OsStr> = self
            .omit
            .iter()
            .filter(|omit| omit.parent() == Some(&place.path))
            .filter_map(|omit| omit.file_name())
            .collect();
        if !omitted.is_empty() {
            names.retain(|name| !omitted.contains(&name.name.as_os_str()));
        }
        if let Some(globs) = &self.source.exclude {
            names.retain(|name| !globs.is_match(place.path.join(&name.name)));
        }
    }

    /// What is known of `names`, none of them a directory, in the order of their names.
    pub fn names(&self, place: &Place, mut names: Vec<Listed>) -> Found {
        names.sort_unstable_by_key(|name| name.inode);
        let mut looks: Vec<Look> = names.into_iter().map(|name| self.look(place, name)).collect();
        looks.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.forget_lost(place, &mut looks);
        let mut found = Found::default();
        for look in looks {
            sort_in(place, look, &mut found);
        }
        found
    }

    fn look(&self, place: &Place, name: Listed) -> Look {
        let name = name.name;
        let tree = place.tree.as_deref();
        let known = tree.and_then(|tree| tree.position(name.as_bytes()));
        let old = known.and_then(|at| tree?.entries.get(at));
        let seen = posix::see_at(&*place.directory, &name, old.filter(|_| self.takes_over), self.owners);
        let keeps_content = match (&seen, old) {
            (Ok(Seen::Same), _) => true,
            (Ok(Seen::Other(inspected)), Some(old)) => {
                posix::is_unchanged(old, &inspected.metadata, inspected.kind_len())
            }
            _ => false,
        };
        Look { name, known, seen, keeps_content }
    }

    /// What the parent snapshot refers to may have been lost since. Then the file is read again, which brings its chunks
    /// back.
    fn forget_lost(&self, place: &Place, looks: &mut [Look]) {
        let Some(tree) = place.tree.as_deref() else { return };
        let content = |look: &Look| match &tree.entries.get(look.known?)?.kind {
            EntryKind::File(content) if look.keeps_content => Some(content),
            _ => None,
        };
        // Nearly always nothing is lost: all are looked up together, and one by one only when something is missing.
        let all = looks.iter().filter_map(content);
        if self.are_stored(all) {
            return;
        }
        for look in looks {
            if content(look).is_some_and(|content| !self.are_stored(std::iter::once(content))) {
                self.forget(place, look);
            }
        }
    }

    fn forget(&self, place: &Place, look: &mut Look) {
        look.keeps_content = false;
        if matches!(look.seen, Ok(Seen::Same)) {
            look.seen = posix::see_at(&*place.directory, &look.name, None, self.owners);
        }
    }

    /// Whether every chunk of `contents` is stored. Looks up so many ids at once, however long the files are.
    fn are_stored<'c>(&self, contents: impl Iterator<Item = &'c Content>) -> bool {
        let mut ids = Vec::new();
        let flush = |ids: &mut Vec<ChunkId>| {
            let stored = ids.is_empty() || (self.contains)(ids).is_ok_and(|found| found.iter().all(|found| *found));
            ids.clear();
            stored
        };
        for content in contents {
            let stored = each_chunk(self.chunks, content.depth, &content.pieces, &mut |_| Ok(true), &mut |id| {
                ids.push(id);
                Ok(ids.len() < LOOK_UP_COUNT || flush(&mut ids))
            });
            if !stored.is_ok_and(|stored| stored) {
                return false;
            }
        }
        flush(&mut ids)
    }
}

fn sort_in(place: &Place, look: Look, found: &mut Found) {
    let Look { name, known, seen, keeps_content } = look;
    match seen {
        Ok(Seen::Same) => found.same.extend(known),
        Ok(Seen::Other(inspected)) => {
            let path = place.path.join(&name);
            let told = inspected.problems.iter().map(|message| Step::Problem(problem(&path, message)));
            found.steps.extend(told);
            let old = known.and_then(|at| place.tree.as_deref()?.entries.get(at)).map(|old| (old, keeps_content));
            found.steps.extend(step(place, path, name.into_vec(), *inspected, old));
        }
        Err(cause) => found.steps.push(unreadable(&place.path.join(&name), &cause)),
    }
}

/// What is to be done about one name that isn't simply taken over. `old`: what the parent has of it, and whether its
/// content is still that.
fn step(
    place: &Place,
    path: PathBuf,
    name: Vec<u8>,
    inspected: Inspected,
    old: Option<(&Entry, bool)>,
) -> Option<Step> {
    if !name_is_valid(&name) {
        return Some(Step::Problem(problem(&path, "The name is too long for the format")));
    }
    let kind = match inspected.kind {
        FoundKind::File { len, sparse } => {
            if let Some((old, true)) = old {
                return Some(Step::Entry(Entry { metadata: inspected.metadata, ..old.clone() }, true));
            }
            let is_new = old.is_none();
            let old = match old {
                Some((Entry { kind: EntryKind::File(content), .. }, _)) => Some(content.clone()),
                _ => place.tree.as_deref().and_then(|tree| predecessor(tree, &name, len)).cloned(),
            };
            let read = ToRead { directory: place.directory.clone(), path, name, inspected, is_new, old };
            return Some(if sparse || len > SMALL_LEN_MAX as u64 { Step::Large(read) } else { Step::Read(read) });
        }
        // It became a directory since it was listed; the next backup has it.
        FoundKind::Directory => return None,
        FoundKind::Symlink(target) => EntryKind::Symlink(target),
        FoundKind::Fifo => EntryKind::Fifo,
        FoundKind::Socket => EntryKind::Socket,
        FoundKind::CharDevice(major, minor) => EntryKind::CharDevice(major, minor),
        FoundKind::BlockDevice(major, minor) => EntryKind::BlockDevice(major, minor),
    };
    let ctime = inspected.metadata.ctime;
    let unchanged = old.is_some_and(|(old, _)| old.metadata.ctime == ctime && old.kind == kind);
    Some(Step::Entry(Entry { name, kind, metadata: inspected.metadata, changed_while_read: false }, unchanged))
}

/// The newest file of the parent whose name differs in nothing but numbers, for a new file of some length: dumps and logs have
/// the date in their names, and are versions of each other all the same.
fn predecessor<'t>(tree: &'t Tree, name: &[u8], len: u64) -> Option<&'t Content> {
    if len < PREDECESSOR_LEN_MIN || !name.iter().any(u8::is_ascii_digit) {
        return None;
    }
    let wanted = without_numbers(name);
    let alike = tree.entries.iter().filter_map(|entry| match &entry.kind {
        EntryKind::File(content) if content.len >= len / 4 && without_numbers(&entry.name) == wanted => {
            Some((entry.metadata.mtime, content))
        }
        _ => None,
    });
    alike.max_by_key(|(mtime, _)| *mtime).map(|(_, content)| content)
}

/// A name with each run of digits as one.
fn without_numbers(name: &[u8]) -> Vec<u8> {
    let mut kept: Vec<u8> = name.iter().map(|byte| if byte.is_ascii_digit() { b'0' } else { *byte }).collect();
    kept.dedup_by(|a, b| *a == b'0' && *b == b'0');
    kept
}

fn is_cache(directory: &OwnedFd) -> bool {
    let mut start = Vec::new();
    posix::open_file_at(directory, OsStr::from_bytes(CACHEDIR_TAG))
        .and_then(|file| file.take(CACHEDIR_SIGNATURE.len() as u64).read_to_end(&mut start))
        .is_ok_and(|_| start == CACHEDIR_SIGNATURE)
}

/// Names in a directory, sorted, each once: a directory that changes while it is read may tell a name twice.
fn list(directory: &OwnedFd) -> io::Result<Vec<Listed>> {
    use rustix::fs::{AtFlags, Dir, FileType, statat};
    let mut names = Vec::new();
    for found in Dir::read_from(directory)? {
        let found = found?;
        let name = found.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let name = OsString::from_vec(name.to_vec());
        let is_directory = match found.file_type() {
            FileType::Unknown => statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir()),
            kind => kind.is_dir(),
        };
        names.push(Listed { name, inode: found.ino(), is_directory });
    }
    names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    names.dedup_by(|a, b| a.name == b.name);
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::entry::{Metadata, Time};

    #[test]
    fn a_dump_with_another_date_in_its_name_is_the_next_version() {
        let file = |name: &str, len: u64, seconds: i64| Entry {
            name: name.as_bytes().to_vec(),
            kind: EntryKind::File(Content { len, ..Content::default() }),
            metadata: Metadata { mtime: Time { seconds, nanoseconds: 0 }, ..Metadata::default() },
            changed_while_read: false,
        };
        let mib = 1 << 20;
        let tree = Tree {
            entries: vec![
                file("db-2026-09-09.sql", 10 * mib, 9),
                file("db-2026-09-10.sql", 11 * mib, 10),
                file("db-2026-09-8.sql", mib, 11),
                file("web-2026-09-10.sql", 12 * mib, 12),
            ],
        };
        let found = |name: &[u8], len| predecessor(&tree, name, len).map(|content| content.len);
        assert_eq!(found(b"db-2026-10-1.sql", 12 * mib), Some(11 * mib));
        assert_eq!(found(b"db-2026-10-1.sql.gz", 12 * mib), None);
        assert_eq!(found(b"db.sql", 12 * mib), None);
        assert_eq!(found(b"web-1-2-3.sql", 1000), None);
    }
}
