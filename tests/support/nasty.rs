//! A tree with everything that breaks backup tools. Built below open directories, because it is deeper than any path.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use compline::archive::Time;
use compline::archive::posix;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::is_root;
use super::memory::CHUNK_LEN;

/// Levels of directories with names of 255 bytes.
pub const DEPTH: usize = 60;

/// Builds the tree in the new directory `root`. What this system or user can't make is left out and named in the answer.
pub fn build(root: &Path) -> Vec<&'static str> {
    std::fs::create_dir_all(root).unwrap();
    let top = posix::open_directory(root).unwrap();
    let mut skipped = Vec::new();
    names(&directory(&top, "names"));
    sizes(&directory(&top, "sizes"));
    deep(&directory(&top, "deep"));
    sparse(&directory(&top, "sparse"));
    links(&top);
    special(&directory(&top, "special"), &mut skipped);
    attributes(&directory(&top, "attributes"), &mut skipped);
    owners(&directory(&top, "owners"), &mut skipped);
    many(&directory(&top, "many"));
    directory(&top, "empty directory");
    // Last, because a directory keeps its time only while nothing is made in it.
    modes(&directory(&top, "modes"));
    times(&directory(&top, "times"));
    set_time(&top, ".", Time { seconds: 1_234_567_890, nanoseconds: 123_456_789 });
    skipped
}

/// A file that only root can read.
pub fn build_unreadable(directory: &Path) {
    let directory = posix::open_directory(directory).unwrap();
    file(&directory, "unreadable", b"secret");
    set_mode(&directory, "unreadable", 0);
}

fn directory(parent: &impl AsFd, name: impl AsRef<OsStr>) -> OwnedFd {
    rustix::fs::mkdirat(parent, name.as_ref(), Mode::from_raw_mode(0o755)).unwrap();
    posix::open_directory_at(parent, name.as_ref()).unwrap()
}

fn create(parent: &impl AsFd, name: impl AsRef<OsStr>) -> File {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    File::from(rustix::fs::openat(parent, name.as_ref(), flags, Mode::from_raw_mode(0o644)).unwrap())
}

fn file(parent: &impl AsFd, name: impl AsRef<OsStr>, bytes: &[u8]) {
    create(parent, name).write_all_at(bytes, 0).unwrap();
}

fn set_mode(parent: &impl AsFd, name: &str, mode: u32) {
    posix::change_mode_at(parent, OsStr::new(name), mode).unwrap();
}

fn set_time(parent: &impl AsFd, name: &str, time: Time) {
    let modified = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    let times = Timestamps { last_access: modified, last_modification: modified };
    rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Bytes that don't compress and don't repeat, always the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn names(parent: &OwnedFd) {
    let longest = vec![b'n'; 255];
    let names: [&[u8]; 16] = [
        b"\xff\xfe latin \xe9",
        b"new\nline",
        b"tab\tescape\x1b[31m",
        b"-rf",
        b" leading and trailing ",
        b"*?[a]{b}",
        b"quote'\"`$HOME",
        b"back\\slash",
        b"...",
        b".hidden",
        b"~",
        "snow \u{2603} and e\u{301}".as_bytes(),
        "snow \u{2603} and \u{e9}".as_bytes(),
        b"A",
        b"a",
        &longest,
    ];
    for name in names {
        file(parent, OsStr::from_bytes(name), name);
    }
    let odd = directory(parent, OsStr::from_bytes(b"dir\n\xff"));
    file(&odd, OsStr::from_bytes(b"\x01"), b"inside");
}

fn sizes(parent: &OwnedFd) {
    let mut lens = vec![0, 1, 4095, 4096, 4097, 1 << 20, (5 << 20) + 3];
    lens.extend([CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 3 * CHUNK_LEN]);
    for len in lens {
        file(parent, format!("noise {len}"), &noise(len, usize::try_from(len).unwrap()));
    }
    file(parent, "zeros", &vec![0; 1 << 20]);
    file(parent, "same chunks", &[b'x'; 1 << 20]);
}

fn deep(parent: &OwnedFd) {
    let mut at = parent.try_clone().unwrap();
    for level in 0..DEPTH {
        let name = format!("{level:02}{}", "d".repeat(253));
        let next = directory(&at, &name);
        file(&next, "file", format!("level {level}").as_bytes());
        at = next;
    }
    rustix::fs::symlinkat("../file", &at, "link").unwrap();
}

fn sparse(parent: &OwnedFd) {
    let mebibyte = 1 << 20;
    let data = noise(7, 100_000);
    create(parent, "only a hole").set_len(10 * mebibyte).unwrap();
    create(parent, "leading").write_all_at(&data, 8 * mebibyte).unwrap();
    let trailing = create(parent, "trailing");
    trailing.write_all_at(&data, 0).unwrap();
    trailing.set_len(16 * mebibyte + 1).unwrap();
    let inner = create(parent, "inner");
    for at in 0..20 {
        inner.write_all_at(&data[..5000], at * mebibyte).unwrap();
    }
    let huge = create(parent, "huge");
    huge.write_all_at(b"start", 0).unwrap();
    huge.write_all_at(b"end", 64 << 30).unwrap();
    // What a file system writes lazily it may still count as a hole.
    for file in [inner, huge, trailing] {
        file.sync_all().unwrap();
    }
}

fn links(top: &OwnedFd) {
    let one = directory(top, "links one");
    let two = directory(top, "links two");
    file(&one, "name", b"one file of three names");
    link(&one, "name", &two, "other name");
    link(&one, "name", top, "third name");
    file(&two, "big", &noise(9, 300_000));
    link(&two, "big", &one, "a big one");
    file(&one, "empty", b"");
    link(&one, "empty", &one, "empty too");

    let symlinks = directory(top, "symlinks");
    let long = format!("/{}", "long/".repeat(818));
    let targets: [(&str, &[u8]); 8] = [
        ("dangling", b"no such file"),
        ("absolute", b"/etc/passwd"),
        ("up", b"../../../../etc"),
        ("itself", b"itself"),
        ("directory", b"../links one"),
        ("odd", b"new\nline \xff"),
        ("long", long.as_bytes()),
        ("dot", b"."),
    ];
    for (name, target) in targets {
        rustix::fs::symlinkat(target, &symlinks, name).unwrap();
    }
    link(&symlinks, "dangling", &symlinks, "dangling twice");
    set_time(&symlinks, "dangling", Time { seconds: 86_400, nanoseconds: 1 });
}

fn link(from: &OwnedFd, name: &str, to: &OwnedFd, new_name: &str) {
    rustix::fs::linkat(from, name, to, new_name, AtFlags::empty()).unwrap();
}

fn special(parent: &OwnedFd, skipped: &mut Vec<&'static str>) {
    let mode = Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(parent, "fifo", FileType::Fifo, mode, 0).unwrap();
    link(parent, "fifo", parent, "fifo twice");
    rustix::fs::mknodat(parent, "socket", FileType::Socket, mode, 0).unwrap();
    let null = rustix::fs::makedev(1, 3);
    match rustix::fs::mknodat(parent, "null", FileType::CharacterDevice, mode, null) {
        Ok(()) => {
            let block = rustix::fs::makedev(7, 70_000);
            rustix::fs::mknodat(parent, "loop", FileType::BlockDevice, mode, block).unwrap();
        }
        Err(Errno::PERM) => skipped.push("devices"),
        Err(error) => panic!("{error}"),
    }
}

/// A POSIX ACL as the kernel keeps it: `(tag, permissions, id)`.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

const NOBODY: u32 = u32::MAX;

fn attributes(parent: &OwnedFd, skipped: &mut Vec<&'static str>) {
    let set = |name: &str, attribute: &str, value: &[u8]| {
        let path = format!("/proc/self/fd/{}/{name}", parent.as_raw_fd());
        rustix::fs::lsetxattr(path, attribute, value, XattrFlags::empty())
    };
    file(parent, "user", b"with attributes");
    match set("user", "user.text", b"value") {
        Ok(()) => {
            set("user", "user.empty", b"").unwrap();
            set("user", "user.binary", b"\x00\xff\n").unwrap();
            set("user", "user.long", &noise(3, 2000)).unwrap();
            file(parent, "read only", b"x");
            set("read only", "user.kept", b"yes").unwrap();
            set_mode(parent, "read only", 0o444);
            directory(parent, "user directory");
            set("user directory", "user.text", b"value").unwrap();
        }
        Err(Errno::OPNOTSUPP) => skipped.push("user attributes"),
        Err(error) => panic!("{error}"),
    }
    let access = acl(&[(1, 6, NOBODY), (2, 4, 1234), (4, 4, NOBODY), (8, 2, 4321), (16, 6, NOBODY), (32, 0, NOBODY)]);
    file(parent, "acl", b"shared");
    if set("acl", "system.posix_acl_access", &access) == Err(Errno::OPNOTSUPP) {
        skipped.push("ACLs");
        return;
    }
    let default = acl(&[(1, 7, NOBODY), (2, 5, 1234), (4, 5, NOBODY), (16, 5, NOBODY), (32, 5, NOBODY)]);
    let inheriting = directory(parent, "default acl");
    file(&inheriting, "older than the acl", b"x");
    set("default acl", "system.posix_acl_default", &default).unwrap();
    file(&inheriting, "inherits", b"x");
    directory(&inheriting, "inherits too");
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file(parent, "capable", b"#!/bin/sh\n");
    match set("capable", "security.capability", &capability) {
        Ok(()) => {
            set("capable", "trusted.secret", b"only root sees it").unwrap();
            rustix::fs::symlinkat("nowhere", parent, "trusted link").unwrap();
            set("trusted link", "trusted.link", b"on a link").unwrap();
        }
        Err(Errno::PERM | Errno::OPNOTSUPP) => skipped.push("capabilities"),
        Err(error) => panic!("{error}"),
    }
}

fn owners(parent: &OwnedFd, skipped: &mut Vec<&'static str>) {
    if !is_root() {
        skipped.push("foreign owners");
        return;
    }
    file(parent, "file", b"theirs");
    file(parent, "setuid", b"theirs, and runs as theirs");
    directory(parent, "directory");
    rustix::fs::symlinkat("file", parent, "link").unwrap();
    rustix::fs::mknodat(parent, "fifo", FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    for (name, uid, gid) in
        [("file", 1234, 5678), ("setuid", 33, 33), ("directory", 4_000_000_000, 1), ("link", 7, 8), ("fifo", 9, 9)]
    {
        chown(parent.as_fd(), name, uid, gid);
    }
    set_mode(parent, "setuid", 0o6755);
}

fn chown(parent: BorrowedFd<'_>, name: &str, uid: u32, gid: u32) {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn many(parent: &OwnedFd) {
    for at in 0..300u64 {
        file(parent, format!("small {at}"), &noise(at, usize::try_from(at * 7).unwrap()));
    }
}

fn modes(parent: &OwnedFd) {
    for mode in [0o400, 0o444, 0o600, 0o755, 0o777, 0o4755, 0o2755, 0o6711, 0o1644] {
        let name = format!("file {mode:04o}");
        file(parent, &name, name.as_bytes());
        set_mode(parent, &name, mode);
    }
    if is_root() {
        file(parent, "file 0000", b"nobody reads it");
        set_mode(parent, "file 0000", 0);
    }
    for mode in [0o500, 0o555, 0o700, 0o1777, 0o2775] {
        let name = format!("directory {mode:04o}");
        let inner = directory(parent, &name);
        file(&inner, "file", b"inside");
        directory(&inner, "directory");
        set_mode(parent, &name, mode);
    }
}

fn times(parent: &OwnedFd) {
    let times = [
        ("epoch", 0, 0),
        ("just before", -1, 999_999_999),
        ("1902", -2_140_000_000, 1),
        ("after 2038", 2_147_483_648, 500_000_000),
        ("2400", 13_569_465_600, 999_999_999),
    ];
    for (name, seconds, nanoseconds) in times {
        let time = Time { seconds, nanoseconds };
        file(parent, name, name.as_bytes());
        set_time(parent, name, time);
        let inner = format!("directory {name}");
        file(&directory(parent, &inner), "file", b"x");
        set_time(parent, &inner, time);
        let link = format!("link {name}");
        rustix::fs::symlinkat(name, parent, &link).unwrap();
        set_time(parent, &link, time);
    }
}
