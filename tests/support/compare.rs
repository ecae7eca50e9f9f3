//! Compares two trees in everything a restore must bring back, and says what differs.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use compline::archive::path::escape;
use compline::archive::posix::{self, FoundKind, Inspected, Owners};

/// Bytes of holes that a restore may lose at the edges of each extent.
const HOLE_SLACK: u64 = 8192;

/// What is left out of the comparison.
#[expect(clippy::struct_excessive_bools, reason = "independent switches, named where they are set")]
#[derive(Debug, Clone, Copy, Default)]
pub struct Ignore {
    /// Sockets are never restored.
    pub sockets: bool,
    /// Owners can't be restored by everybody.
    pub owners: bool,
    /// The times of directories, where something was made in them afterwards.
    pub directory_times: bool,
    /// The metadata of the two directories themselves.
    pub root: bool,
}

/// Every difference between the trees `left` and `right`; none if they are equal.
pub fn differences(left: &Path, right: &Path, ignore: Ignore) -> Vec<String> {
    let owners = Owners::new();
    let mut comparison = Comparison { owners, ignore, found: Vec::new(), links: [BTreeMap::new(), BTreeMap::new()] };
    let (a, b) =
        (posix::inspect(left, &comparison.owners).unwrap(), posix::inspect(right, &comparison.owners).unwrap());
    if !ignore.root {
        comparison.metadata(".", &a, &b);
    }
    comparison.directories(&posix::open_directory(left).unwrap(), &posix::open_directory(right).unwrap(), &[]);
    comparison.hard_links();
    comparison.found
}

/// Fails with every difference.
#[track_caller]
pub fn assert_equal(left: &Path, right: &Path) {
    let found = differences(left, right, Ignore { sockets: true, ..Ignore::default() });
    let shown = &found[..found.len().min(40)];
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), shown.join("\n"));
}

struct Comparison {
    owners: Owners,
    ignore: Ignore,
    found: Vec<String>,
    /// For each side, the names of every inode.
    links: [BTreeMap<u64, Vec<Vec<u8>>>; 2],
}

impl Comparison {
    fn say(&mut self, path: &str, what: impl std::fmt::Display) {
        self.found.push(format!("{path}: {what}"));
    }

    fn directories(&mut self, left: &OwnedFd, right: &OwnedFd, path: &[u8]) {
        let (left_names, right_names) = (self.names(left), self.names(right));
        for name in left_names.keys().chain(right_names.keys().filter(|name| !left_names.contains_key(*name))) {
            let path = [path, b"/", name.as_bytes()].concat();
            match (left_names.get(name), right_names.get(name)) {
                (Some(a), Some(b)) => self.entries((left, a), (right, b), name, &path),
                (Some(_), None) => self.say(&escape(&path), "missing on the right"),
                (None, _) => self.say(&escape(&path), "missing on the left"),
            }
        }
    }

    fn names(&self, directory: &OwnedFd) -> BTreeMap<OsString, Inspected> {
        let names = posix::list_names(directory).unwrap().into_iter();
        let inspected = names.map(|name| {
            let found = posix::inspect_at(directory, &name, &self.owners).unwrap();
            (name, found)
        });
        inspected.filter(|(_, found)| !(self.ignore.sockets && found.kind == FoundKind::Socket)).collect()
    }

    fn entries(&mut self, left: (&OwnedFd, &Inspected), right: (&OwnedFd, &Inspected), name: &OsStr, path: &[u8]) {
        let text = shorten(&escape(path));
        let ((left, a), (right, b)) = (left, right);
        self.metadata(&text, a, b);
        for (side, found) in [a, b].into_iter().enumerate() {
            if found.kind != FoundKind::Directory {
                self.links[side].entry(found.metadata.inode).or_default().push(path.to_vec());
            }
        }
        match (&a.kind, &b.kind) {
            (FoundKind::Directory, FoundKind::Directory) => {
                let open = |parent| posix::open_directory_at(parent, name).unwrap();
                self.directories(&open(left), &open(right), path);
            }
            (FoundKind::File { len, .. }, FoundKind::File { len: other, .. }) if len == other => {
                let open = |parent| posix::open_file_at(parent, name).unwrap();
                self.files(&open(left), &open(right), *len, &text);
            }
            (FoundKind::File { len, .. }, FoundKind::File { len: other, .. }) => {
                self.say(&text, format!("length {len} and {other}"));
            }
            (a, b) if a == b => {}
            (a, b) => self.say(&text, format!("{a:?} and {b:?}")),
        }
    }

    fn metadata(&mut self, path: &str, a: &Inspected, b: &Inspected) {
        let is_directory = a.kind == FoundKind::Directory;
        let (a, b) = (&a.metadata, &b.metadata);
        if a.mode != b.mode {
            self.say(path, format!("mode {:o} and {:o}", a.mode, b.mode));
        }
        if (a.uid, a.gid) != (b.uid, b.gid) && !self.ignore.owners {
            self.say(path, format!("owner {}:{} and {}:{}", a.uid, a.gid, b.uid, b.gid));
        }
        if a.mtime != b.mtime && !(is_directory && self.ignore.directory_times) {
            self.say(path, format!("time {:?} and {:?}", a.mtime, b.mtime));
        }
        if a.xattrs != b.xattrs {
            self.say(path, format!("attributes {:?} and {:?}", a.xattrs, b.xattrs));
        }
    }

    fn files(&mut self, left: &File, right: &File, len: u64, path: &str) {
        let (left_extents, right_extents) = (posix::holes(left, len).unwrap(), posix::holes(right, len).unwrap());
        let hole_len = |extents: &[posix::Extent]| extents.iter().filter(|e| e.is_hole).map(|e| e.len).sum::<u64>();
        let (a, b) = (hole_len(&left_extents), hole_len(&right_extents));
        if a > b + HOLE_SLACK * left_extents.len() as u64 {
            self.say(path, format!("{a} bytes of holes and {b}"));
        }
        // Whatever one side calls data is compared; holes of both sides are zeros anyway.
        for extent in left_extents.iter().chain(&right_extents).filter(|extent| !extent.is_hole) {
            if let Some(at) = first_difference(left, right, extent) {
                self.say(path, format!("content differs in the extent at {at}"));
                return;
            }
        }
    }

    fn hard_links(&mut self) {
        let groups = |side: &BTreeMap<u64, Vec<Vec<u8>>>| {
            let mut groups: Vec<_> = side.values().filter(|names| names.len() > 1).cloned().collect();
            groups.sort();
            groups
        };
        let (a, b) = (groups(&self.links[0]), groups(&self.links[1]));
        if a != b {
            let text = |groups: &[Vec<Vec<u8>>]| {
                groups.iter().map(|names| escape(&names.join(&b" = "[..]))).collect::<Vec<_>>().join(", ")
            };
            self.found.push(format!("hard links [{}] and [{}]", text(&a), text(&b)));
        }
    }
}

fn first_difference(left: &File, right: &File, extent: &posix::Extent) -> Option<u64> {
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = extent.offset;
    let end = extent.offset + extent.len;
    while at < end {
        let step = usize::try_from(end - at).unwrap().min(a.len());
        left.read_exact_at(&mut a[..step], at).unwrap();
        right.read_exact_at(&mut b[..step], at).unwrap();
        if a[..step] != b[..step] {
            return Some(at);
        }
        at += step as u64;
    }
    None
}

fn shorten(path: &str) -> String {
    let count = path.chars().count();
    if count <= 200 {
        path.to_owned()
    } else {
        path.chars().take(90).chain("...".chars()).chain(path.chars().skip(count - 90)).collect()
    }
}
