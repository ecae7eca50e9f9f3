//! A power cut at any moment: what was acknowledged is there, whole, and the next run goes on.
//!
//! The program runs under `strace`, which tells in which order it wrote, named, removed and synced. That order is replayed
//! into a model of a disk that keeps of a file what was synced of it, and of a directory the names that were synced in it;
//! of everything else it keeps what it likes. After each step the states that a cut may leave are made real, and used.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::program::{Host, Random, asked, noise};

const TRACED: &str = "trace=openat,open,creat,close,write,pwrite64,writev,pwritev,ftruncate,truncate,fsync,fdatasync,rename,\
                      renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,mkdir,mkdirat";

/// A file tree: files with their bytes, directories without.
type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

fn read_tree(root: &Path) -> Tree {
    let mut tree = Tree::from([(root.to_owned(), None)]);
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tree.extend(read_tree(&path));
        } else {
            tree.insert(path.clone(), Some(std::fs::read(&path).unwrap()));
        }
    }
    tree
}

fn write_tree(root: &Path, tree: &Tree) {
    let _none_yet = std::fs::remove_dir_all(root);
    for (path, content) in tree {
        match content {
            None => std::fs::create_dir_all(path).unwrap(),
            Some(bytes) => std::fs::write(path, bytes).unwrap(),
        }
    }
}

/// What a system call did.
#[derive(Debug)]
enum Step {
    Open { fd: u64, path: PathBuf, creates: bool, truncates: bool },
    Close(u64),
    Write { fd: u64, bytes: Vec<u8> },
    Sync(u64),
    Rename(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Unlink(PathBuf),
    MakeDirectory(PathBuf),
}

/// `"\x61"`, which is how strace is told to print texts.
fn text(argument: &str) -> Vec<u8> {
    let hex = argument.trim().trim_matches('"');
    hex.split("\\x").skip(1).map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect()
}

/// Names below an open directory begin with its number.
fn path(directory: &str, argument: &str) -> PathBuf {
    let path = PathBuf::from(String::from_utf8(text(argument)).unwrap());
    if path.is_absolute() || directory == "AT_FDCWD" { path } else { Path::new(OPEN).join(directory).join(path) }
}

const OPEN: &str = "/open";

/// Calls in the order in which they ended. Those that failed did nothing.
fn steps(log: &str) -> Vec<Step> {
    let mut begun: HashMap<&str, String> = HashMap::new();
    let mut steps = Vec::new();
    for line in log.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(call) = call.strip_suffix("<unfinished ...>") {
            begun.insert(thread, call.to_owned());
            continue;
        }
        let whole = match call.strip_prefix("<... ") {
            Some(rest) => {
                let (_, rest) = rest.split_once("resumed>").unwrap();
                begun.remove(thread).unwrap_or_default() + rest
            }
            None => call.to_owned(),
        };
        steps.extend(step(&whole));
    }
    steps
}

fn step(call: &str) -> Option<Step> {
    let (name, rest) = call.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    let result: u64 = result.split_whitespace().next()?.parse().ok()?;
    let arguments: Vec<&str> = arguments.trim_end().trim_end_matches(')').split(", ").collect();
    let fd = || arguments[0].parse().ok();
    Some(match name {
        "openat" => Step::Open {
            fd: result,
            path: path(arguments[0], arguments[1]),
            creates: arguments[2].contains("O_CREAT"),
            truncates: arguments[2].contains("O_TRUNC"),
        },
        "close" => Step::Close(fd()?),
        "write" => {
            let mut bytes = text(arguments[1]);
            bytes.truncate(usize::try_from(result).unwrap());
            Step::Write { fd: fd()?, bytes }
        }
        "fsync" | "fdatasync" => Step::Sync(fd()?),
        "rename" => Step::Rename(path("AT_FDCWD", arguments[0]), path("AT_FDCWD", arguments[1])),
        "renameat" | "renameat2" => Step::Rename(path(arguments[0], arguments[1]), path(arguments[2], arguments[3])),
        "link" => Step::Link(path("AT_FDCWD", arguments[0]), path("AT_FDCWD", arguments[1])),
        "linkat" => Step::Link(path(arguments[0], arguments[1]), path(arguments[2], arguments[3])),
        "unlink" => Step::Unlink(path("AT_FDCWD", arguments[0])),
        "unlinkat" => Step::Unlink(path(arguments[0], arguments[1])),
        "mkdir" => Step::MakeDirectory(path("AT_FDCWD", arguments[0])),
        "mkdirat" => Step::MakeDirectory(path(arguments[0], arguments[1])),
        // Of the index, which lies elsewhere; the end of a replay is compared with what is there.
        _ => return None,
    })
}

#[derive(Clone, Default)]
struct File {
    bytes: Vec<u8>,
    synced: Vec<u8>,
}

/// What a name stands for.
#[derive(Clone, Copy)]
enum Node {
    Directory,
    File(usize),
}

/// A name that was given or taken.
struct Naming {
    path: PathBuf,
    node: Option<Node>,
    is_synced: bool,
}

/// What is on the disk and what may be.
struct Disk {
    root: PathBuf,
    files: Vec<File>,
    namings: Vec<Naming>,
    open: HashMap<u64, (PathBuf, Option<usize>)>,
}

/// What a cut leaves of what was not synced.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Nothing,
    Names,
    Everything,
    Some(u64),
}

impl Disk {
    fn new(root: &Path, tree: &Tree) -> Self {
        let mut disk = Self { root: root.to_owned(), files: Vec::new(), namings: Vec::new(), open: HashMap::new() };
        for (path, content) in tree {
            let node = content.as_ref().map_or(Node::Directory, |bytes| {
                disk.files.push(File { bytes: bytes.clone(), synced: bytes.clone() });
                Node::File(disk.files.len() - 1)
            });
            disk.namings.push(Naming { path: path.clone(), node: Some(node), is_synced: true });
        }
        disk
    }

    /// The whole path of what may lie below an open directory.
    fn resolve(&self, path: &Path) -> PathBuf {
        let Ok(below) = path.strip_prefix(OPEN) else { return path.to_owned() };
        let mut names = below.components();
        let fd = names.next().and_then(|fd| fd.as_os_str().to_str()?.parse::<u64>().ok());
        let directory = fd.and_then(|fd| self.open.get(&fd));
        directory.map_or_else(|| path.to_owned(), |(directory, _)| directory.join(names.as_path()))
    }

    fn node(&self, path: &Path) -> Option<Node> {
        self.namings.iter().rev().find(|naming| naming.path == path).and_then(|naming| naming.node)
    }

    fn name(&mut self, path: &Path, node: Option<Node>) {
        if path.starts_with(&self.root) {
            self.namings.push(Naming { path: path.to_owned(), node, is_synced: false });
        }
    }

    fn file(&self, path: &Path) -> Option<usize> {
        if let Some(Node::File(number)) = self.node(path) { Some(number) } else { None }
    }

    /// Carries out a step. Whether it changes what a cut may leave.
    fn carry_out(&mut self, step: &Step) -> bool {
        match step {
            Step::Open { fd, path, creates, truncates } => {
                let path = &self.resolve(path);
                let mut number = self.file(path);
                let is_new = number.is_none() && *creates && path.starts_with(&self.root);
                if is_new {
                    self.files.push(File::default());
                    number = Some(self.files.len() - 1);
                    self.name(path, number.map(Node::File));
                }
                assert!(!truncates || number.is_none(), "{}: an object is cut short", path.display());
                self.open.insert(*fd, (path.clone(), number));
                is_new
            }
            Step::Close(fd) => {
                self.open.remove(fd);
                false
            }
            Step::Write { fd, bytes } => {
                let Some((_, Some(number))) = self.open.get(fd) else { return false };
                self.files[*number].bytes.extend(bytes);
                true
            }
            Step::Sync(fd) => {
                let Some((path, number)) = self.open.get(fd) else { return false };
                if let Some(number) = number {
                    let file = &mut self.files[*number];
                    file.synced.clone_from(&file.bytes);
                }
                for naming in self.namings.iter_mut().filter(|naming| naming.path.parent() == Some(path)) {
                    naming.is_synced = true;
                }
                path.starts_with(&self.root)
            }
            Step::Rename(from, to) | Step::Link(from, to) => {
                let (from, to) = (&self.resolve(from), &self.resolve(to));
                let Some(node) = self.node(from) else { return false };
                self.name(to, Some(node));
                if matches!(step, Step::Rename(..)) {
                    self.name(from, None);
                }
                true
            }
            Step::Unlink(path) => {
                let path = &self.resolve(path);
                let is_there = self.node(path).is_some();
                self.name(path, None);
                is_there
            }
            Step::MakeDirectory(path) => {
                let path = &self.resolve(path);
                self.name(path, Some(Node::Directory));
                path.starts_with(&self.root)
            }
        }
    }

    /// What is found after a cut.
    fn after(&self, cut: Cut) -> Tree {
        let mut random = Random(if let Cut::Some(seed) = cut { seed << 32 } else { 0 });
        let mut names: BTreeMap<&Path, Node> = BTreeMap::new();
        for naming in &self.namings {
            let survives = match cut {
                Cut::Nothing => false,
                Cut::Names | Cut::Everything => true,
                Cut::Some(_) => random.below(2) == 0,
            };
            match naming.node {
                _ if !naming.is_synced && !survives => {}
                Some(node) => drop(names.insert(&naming.path, node)),
                None => drop(names.remove(naming.path.as_path())),
            }
        }
        let mut tree = Tree::new();
        for (path, node) in names {
            // What lies in a directory that is lost is lost too.
            if path != self.root && tree.get(path.parent().unwrap()) != Some(&None) {
                continue;
            }
            let content = match node {
                Node::Directory => None,
                Node::File(number) => {
                    let File { bytes, synced } = &self.files[number];
                    Some(match cut {
                        Cut::Nothing | Cut::Names => synced.clone(),
                        Cut::Everything => bytes.clone(),
                        Cut::Some(_) if bytes == synced => synced.clone(),
                        Cut::Some(_) => {
                            bytes[..usize::try_from(random.below(bytes.len() as u64 + 1)).unwrap()].to_vec()
                        }
                    })
                }
            };
            tree.insert(path.to_owned(), content);
        }
        tree
    }
}

struct Story {
    host: Host,
    scratch: TempDir,
    /// States that were looked at.
    seen: HashSet<blake3::Hash>,
    syncs: u64,
    cuts: u64,
    random: Random,
}

/// One state in so many is looked at, unless all are asked for.
const STRIDE: u64 = 4;

impl Story {
    /// Runs the program under strace.
    fn trace(&self, words: &[&str], stdin: Option<Vec<u8>>) -> Vec<Step> {
        let log = self.scratch.path().join("log");
        let traced = self.host.command(words);
        let mut command = Command::new("strace");
        command.args(["-f", "-xx", "-s", "100000000", "-e", "signal=none", "-e", TRACED, "-o"]).arg(&log);
        command.arg(traced.get_program()).args(traced.get_args()).current_dir(&self.host.home);
        command.env("HOME", &self.host.home).stdout(Stdio::null()).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        if let Some(bytes) = stdin {
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), &bytes).unwrap();
        }
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success(), "{words:?}");
        steps(&std::fs::read_to_string(&log).unwrap())
    }

    /// Runs the program under strace, and cuts the power at each of its steps. `published` are the tags that are there
    /// before, and stay; `then` those that are there when it has ended.
    fn cut(&mut self, words: &[&str], stdin: Option<Vec<u8>>, published: &[&str], then: &[&str]) {
        let before = read_tree(&self.host.repository);
        let steps = self.trace(words, stdin);
        let after = read_tree(&self.host.repository);
        let mut disk = Disk::new(&self.host.repository, &before);
        for (at, step) in steps.iter().enumerate() {
            if !disk.carry_out(step) {
                continue;
            }
            self.syncs += u64::from(matches!(step, Step::Sync(_)));
            for cut in [Cut::Nothing, Cut::Names, Cut::Everything, Cut::Some(at as u64), Cut::Some(!(at as u64))] {
                self.look(
                    &disk.after(cut),
                    published,
                    &format!("{words:?}, {cut:?} after step {at}, {step:.60?}"),
                    false,
                );
            }
        }
        println!("{}: {} steps, {} states, {} syncs so far", words[0], steps.len(), self.seen.len(), self.syncs);
        // The replay is right, and nothing is left to be synced.
        assert!(disk.after(Cut::Everything) == after, "{words:?}: the replay is not what happened");
        self.look(&disk.after(Cut::Nothing), then, &format!("{words:?}, after its end"), true);
        write_tree(&self.host.repository, &after);
    }

    /// Uses what a cut left.
    fn look(&mut self, tree: &Tree, published: &[&str], what: &str, always: bool) {
        let mut hasher = blake3::Hasher::new();
        for (path, content) in tree {
            hasher.update(path.as_os_str().as_encoded_bytes()).update(&[0]);
            hasher.update(blake3::hash(content.as_deref().unwrap_or(b"directory")).as_bytes());
        }
        let is_new = self.seen.insert(hasher.finalize());
        let is_chosen = always || asked("COMPLINE_SOAK_EVERY_CUT", 0) > 0 || self.random.below(STRIDE) == 0;
        if !is_new || !is_chosen {
            return;
        }
        self.cuts += 1;
        write_tree(&self.host.repository, tree);
        let host = Host { cache: self.scratch.path().join("cache after a cut"), ..self.host.clone() };
        let _none_yet = std::fs::remove_dir_all(&host.cache);
        let check = host.run(&["check", "--read-data"], None, None);
        assert_eq!(check.code(), 0, "{what}: {}{}", check.stderr, String::from_utf8_lossy(&check.stdout));
        let tags = || -> Vec<String> { host.snapshots().into_iter().map(|(_, tag)| tag).collect() };
        for tag in published {
            assert!(tags().contains(&(*tag).to_owned()), "{what}: {tag} is lost");
            assert!(host.succeed(&["cat", &format!("tag:{tag}:/s")], None) == stream(tag), "{what}: {tag}");
        }
        let next = host.run(&["backup", "--tag", "next", "--stdin", "--stdin-name", "s"], Some(stream("next")), None);
        assert_eq!(next.code(), 0, "{what}: {}", next.stderr);
        let prune = host.run(&["prune", "--wait", "0s", "--max-unused", "0%"], None, None);
        assert_eq!(prune.code(), 0, "{what}: {}", prune.stderr);
        let check = host.run(&["check", "--read-data"], None, None);
        assert_eq!(check.code(), 0, "{what}: {}{}", check.stderr, String::from_utf8_lossy(&check.stdout));
        assert!(tags().contains(&"next".to_owned()), "{what}");
        assert_eq!(["sessions", "retired"].map(|directory| host.count(directory)), [0, 0], "{what}");
    }
}

/// What a tag stands for: each has something of its own, and something of the others.
fn stream(tag: &str) -> Vec<u8> {
    let seed = u64::from(tag.as_bytes()[0]);
    [noise(seed, 700_000), noise(0, 100_000), noise(seed / 2, 80_000)].concat()
}

impl Story {
    /// None where nothing can be traced.
    fn begin() -> Option<Self> {
        let is_traced = Command::new("strace").args(["-o", "/dev/null", "true"]).status();
        if !is_traced.is_ok_and(|status| status.success()) {
            println!("SKIPPED: this test needs strace and the right to trace");
            return None;
        }
        let scratch = TempDir::new().unwrap();
        let host = Host::new(scratch.path(), "host");
        host.succeed(&["init"], None);
        Some(Self { host, scratch, seen: HashSet::new(), syncs: 0, cuts: 0, random: Random(1) })
    }
}

#[test]
fn a_power_cut_at_any_moment_loses_nothing_that_was_acknowledged() {
    let Some(mut story) = Story::begin() else { return };
    let back_up = |tag| ["backup", "--tag", tag, "--stdin", "--stdin-name", "s"];
    story.cut(&back_up("a"), Some(stream("a")), &[], &["a"]);
    story.cut(&back_up("b"), Some(stream("b")), &["a"], &["a", "b"]);
    story.cut(&back_up("c"), Some(stream("c")), &["a", "b"], &["a", "b", "c"]);
    story.cut(&["forget", "tag:a"], None, &["b", "c"], &["b", "c"]);
    let used = story.host.used();
    story.cut(&["prune", "--wait", "0s", "--max-unused", "0%"], None, &["b", "c"], &["b", "c"]);
    assert!(story.host.used() < used - 100_000, "nothing was given back");
    story.cut(&["tag", "--add", "x", "tag:b"], None, &["c"], &["c"]);
    println!(
        "{} different states after a power cut, {} of them looked at; {} syncs of the program",
        story.seen.len(),
        story.cuts,
        story.syncs
    );
    assert!(story.cuts > 20 && story.syncs > 50);
}

#[test]
fn a_disk_that_does_not_sync_is_found_out_by_this_very_test() {
    let Some(story) = Story::begin() else { return };
    let before = read_tree(&story.host.repository);
    let steps = story.trace(&["backup", "--tag", "a", "--stdin", "--stdin-name", "s"], Some(stream("a")));
    let mut disk = Disk::new(&story.host.repository, &before);
    for step in steps.iter().filter(|step| !matches!(step, Step::Sync(_))) {
        disk.carry_out(step);
    }
    write_tree(&story.host.repository, &disk.after(Cut::Nothing));
    assert_eq!(story.host.snapshots(), [], "it is lost");
    write_tree(&story.host.repository, &disk.after(Cut::Names));
    assert_eq!(story.host.run(&["check", "--read-data"], None, None).code(), 5, "names without bytes");
}
