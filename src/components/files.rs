//! Kind `files`: file trees of this machine, with all that POSIX knows of them.
//!
//! The snapshot has every path under its absolute path, and remembers which paths were asked for. A restore goes by
//! what the snapshot remembers, not by what the plan says today.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind as ErrorKindOfIo;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component as Part, Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde_json::Value;

use super::{CaptureEnvironment, Captured, Component, Existing, RestoreEnvironment, RestoreStep, Restored};
use crate::archive::{ArchivePath, CaptureSink, Entry, FilesSource, Overwrite, RestoreOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::settings::{Field, Settings, Shape};

/// Keys of its own.
pub(super) const FIELDS: &[Field] = &[
    Field::required("paths", Shape::TextList, "Files and directories; relative ones start from the plan's directory"),
    Field::optional(
        "exclude",
        Shape::TextOrList,
        "Globs to leave out with all below; one that begins with / is an absolute path, others match at any depth",
    ),
    Field::optional("one_file_system", Shape::Boolean, "Stay on the file system of each path"),
    Field::optional("exclude_caches", Shape::Boolean, "Leave out directories with a CACHEDIR.TAG"),
];

pub(super) fn build(settings: &Settings) -> Result<Box<dyn Component>> {
    let paths = settings.paths("paths");
    if paths.is_empty() {
        return Err(settings.error("paths", "names no path"));
    }
    let exclude = exclude_set(&settings.text_list("exclude"))
        .map_err(|error| settings.error("exclude", format!("has a glob that can't be used: {}", error.chain())))?;
    Ok(Box::new(Files::new(FilesSource {
        paths,
        exclude,
        one_file_system: settings.boolean("one_file_system").unwrap_or(false),
        exclude_caches: settings.boolean("exclude_caches").unwrap_or(false),
    })))
}

/// Globs for [`FilesSource::exclude`]: one that begins with `/` is an absolute path, others match at any depth. `*` does
/// not match a slash, `**` does.
///
/// # Errors
/// `Usage` when one isn't a glob.
pub fn exclude_set(patterns: &[String]) -> Result<Option<GlobSet>> {
    let refuse = |cause: globset::Error| Error::new(ErrorKind::Usage, "Can't use an exclude pattern").cause(cause);
    if patterns.is_empty() {
        return Ok(None);
    }
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let anywhere = if pattern.starts_with('/') { pattern.clone() } else { format!("**/{pattern}") };
        let pattern = anywhere.strip_suffix('/').unwrap_or(&anywhere);
        set.add(GlobBuilder::new(pattern).literal_separator(true).build().map_err(refuse)?);
    }
    set.build().map(Some).map_err(refuse)
}

/// File trees as a component: of a plan, or named on the command line.
pub struct Files {
    source: FilesSource,
}

impl Files {
    /// The component that captures `source`.
    #[must_use]
    pub fn new(source: FilesSource) -> Self {
        Self { source }
    }

    fn absolute_paths(&self) -> Result<Vec<PathBuf>> {
        self.source.paths.iter().map(|path| absolute(path)).collect()
    }
}

/// The absolute path under which the snapshot has `path`.
fn absolute(path: &Path) -> Result<PathBuf> {
    let fail = |cause| Error::io(format!("Can't find {}", path.display()), cause);
    let absolute = std::path::absolute(path).map_err(fail)?;
    // What `..` means depends on symbolic links on the way.
    if absolute.components().any(|part| part == Part::ParentDir) {
        fs::canonicalize(absolute).map_err(fail)
    } else {
        Ok(absolute)
    }
}

impl Component for Files {
    fn discover(&self, _: &CaptureEnvironment<'_>) -> Result<BTreeMap<String, String>> {
        for path in self.absolute_paths()? {
            fs::symlink_metadata(&path).map_err(|cause| Error::io(format!("Can't find {}", path.display()), cause))?;
        }
        // Which kernel wrote the metadata; absent where /proc is.
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let kernel = kernel.trim();
        Ok(if kernel.is_empty() { BTreeMap::new() } else { BTreeMap::from([("linux".to_owned(), kernel.to_owned())]) })
    }

    fn capture(&self, env: &CaptureEnvironment<'_>, sink: &mut dyn CaptureSink) -> Result<Captured> {
        let versions = self.discover(env)?;
        let paths = self.absolute_paths()?;
        sink.put_files(&FilesSource { paths: paths.clone(), ..self.source.clone() })?;
        let recorded = paths.iter().map(|path| recorded_path(path)).collect::<Vec<_>>();
        Ok(Captured {
            versions,
            completeness: "every directory was read to its end".to_owned(),
            facts: [(FACT_PATHS.to_owned(), Value::from(recorded))].into_iter().collect(),
            commands: Vec::new(),
        })
    }

    fn plan_restore(&self, env: &RestoreEnvironment<'_>) -> Result<Vec<RestoreStep>> {
        let targets = targets(env)?;
        targets.iter().try_for_each(|target| refuse_to_remove(target, env))?;
        targets.iter().map(|target| step(target, env.existing)).collect()
    }

    fn restore(&self, env: &RestoreEnvironment<'_>) -> Result<Restored> {
        self.plan_restore(env)?;
        let mut proofs = Vec::new();
        for target in targets(env)? {
            env.context.go_on()?;
            restore_missing_parents(env, &target)?;
            let (directory, options) = destination(&target, env.existing);
            let done = env.source.restore_files(&target.inside, directory, &options)?;
            let (files, right, kept) = (done.files_restored, done.files_right, done.files_kept);
            let kept = if kept == 0 { String::new() } else { format!(", {kept} left as they were") };
            let plural = if files == 1 { "" } else { "s" };
            proofs
                .push(format!("{}: {files} file{plural} written, {right} right already{kept}", target.path.display()));
        }
        Ok(Restored { proofs })
    }
}

/// Key in the facts of a component's record: the paths that were asked for.
const FACT_PATHS: &str = "paths";

/// A path as JSON can hold it: bytes that aren't UTF-8, and `%`, as `%` and two digits.
fn recorded_path(path: &Path) -> String {
    let parts = path.as_os_str().as_bytes().utf8_chunks().map(|chunk| {
        let invalid: Vec<String> = chunk.invalid().iter().map(|byte| format!("%{byte:02x}")).collect();
        chunk.valid().replace('%', "%25") + &invalid.concat()
    });
    parts.collect::<Vec<_>>().concat()
}

/// The reverse; none if it was not written by [`recorded_path`].
fn path_from_record(text: &str) -> Option<PathBuf> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    let path = Path::new(OsStr::from_bytes(&bytes));
    path.is_absolute().then(|| path.to_owned())
}

/// One path to restore.
struct Target {
    /// Where the snapshot has it.
    inside: ArchivePath,
    entry: Entry,
    /// Where it goes.
    path: PathBuf,
}

fn targets(env: &RestoreEnvironment<'_>) -> Result<Vec<Target>> {
    let root = root_of(env);
    recorded_paths(env)?
        .into_iter()
        .map(|path| {
            let inside = ArchivePath::from_path(&path).map_err(|cause| damaged(env).cause(cause))?;
            let entry = env.source.entry(&inside)?;
            let path = path.strip_prefix("/").map_or_else(|_| path.clone(), |below| root.join(below));
            Ok(Target { inside, entry, path })
        })
        .collect()
}

fn root_of<'e>(env: &'e RestoreEnvironment<'_>) -> &'e Path {
    env.root.as_deref().unwrap_or(Path::new("/"))
}

fn recorded_paths(env: &RestoreEnvironment<'_>) -> Result<Vec<PathBuf>> {
    let Some(Value::Array(list)) = env.record.facts.get(FACT_PATHS) else { return Err(damaged(env)) };
    list.iter().map(|path| path.as_str().and_then(path_from_record).ok_or_else(|| damaged(env))).collect()
}

fn damaged(env: &RestoreEnvironment<'_>) -> Error {
    Error::new(ErrorKind::Damaged, format!("The snapshot does not say which paths component {} has", env.name))
        .hint("Restore its files into a directory: `compline restore SNAP:/NAME --target DIR`")
}

fn step(target: &Target, existing: Existing) -> Result<RestoreStep> {
    let path = target.path.display();
    if !is_occupied(target)? {
        return Ok(RestoreStep { what: format!("Write {path}"), destructive: false });
    }
    let (what, destructive) = match existing {
        Existing::Fail => return Err(in_the_way(target)),
        Existing::Skip => (format!("Write what {path} lacks; leave what it has"), false),
        Existing::Update => (format!("Overwrite what differs in {path}"), true),
        Existing::Replace => {
            (format!("Make {path} what the snapshot has: overwrite what differs, remove all else"), true)
        }
    };
    Ok(RestoreStep { what, destructive })
}

/// The snapshot doesn't hold the repository, so replacing a directory above it would remove it.
fn refuse_to_remove(target: &Target, env: &RestoreEnvironment<'_>) -> Result<()> {
    let Ok(path) = target.path.canonicalize() else { return Ok(()) };
    match env.keep.iter().find(|keep| env.existing == Existing::Replace && keep.starts_with(&path)) {
        None => Ok(()),
        Some(keep) => Err(Error::new(
            ErrorKind::UnsafeTarget,
            format!("Replacing {} would remove {}", path.display(), keep.display()),
        )
        .hint("Restore with existing = \"update\", or move the repository elsewhere first")),
    }
}

fn in_the_way(target: &Target) -> Error {
    let state = if target.entry.is_directory() { "is not empty" } else { "exists" };
    Error::new(ErrorKind::UnsafeTarget, format!("{} {state}", target.path.display())).hint(
        "Move it away, or say what to do with it: `--existing update`, `skip` or `replace`, or `existing` in the \
         component's restore table of the plan",
    )
}

/// Whether something is there that a restore could harm. An empty directory can't be harmed.
fn is_occupied(target: &Target) -> Result<bool> {
    let fail = |cause| Error::io(format!("Can't look at {}", target.path.display()), cause);
    match fs::symlink_metadata(&target.path) {
        Ok(found) if found.is_dir() && target.entry.is_directory() => {
            Ok(fs::read_dir(&target.path).map_err(fail)?.next().is_some())
        }
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKindOfIo::NotFound => Ok(false),
        Err(error) => Err(fail(error)),
    }
}

/// Makes the directories above the target that are gone, as they were: a tree may rely on the mode of one above it.
fn restore_missing_parents(env: &RestoreEnvironment<'_>, target: &Target) -> Result<()> {
    let nothing_inside = RestoreOptions { include: Some(GlobSet::empty()), ..RestoreOptions::default() };
    let Some((parent, _)) = target.inside.split_last() else { return Ok(()) };
    let mut inside = ArchivePath::root();
    let mut place = root_of(env).to_owned();
    for name in parent.names() {
        inside = inside.join(name).map_err(|cause| damaged(env).cause(cause))?;
        place.push(OsStr::from_bytes(name));
        let missing = fs::symlink_metadata(&place).is_err_and(|error| error.kind() == ErrorKindOfIo::NotFound);
        if missing && env.source.entry(&inside)?.is_directory() {
            env.source.restore_files(&inside, &place, &nothing_inside)?;
        }
    }
    Ok(())
}

/// The directory that [`restore_files`](crate::archive::CaptureSource::restore_files) shall write into, and how.
fn destination(target: &Target, existing: Existing) -> (&Path, RestoreOptions) {
    let overwrite = if existing == Existing::Skip { Overwrite::Never } else { Overwrite::IfChanged };
    let options = RestoreOptions { overwrite, ..RestoreOptions::default() };
    if target.entry.is_directory() {
        return (&target.path, RestoreOptions { delete: existing == Existing::Replace, ..options });
    }
    // A file goes in beside others that are none of its business: never delete there.
    (target.path.parent().unwrap_or(Path::new("/")), options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(patterns: &[&str], path: &str) -> bool {
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        exclude_set(&patterns).unwrap().is_some_and(|set| set.is_match(path))
    }

    #[test]
    fn globs_match_at_any_depth_unless_they_begin_with_a_slash() {
        assert!(excluded(&["*.tmp"], "/srv/a/b.tmp"));
        assert!(excluded(&["cache"], "/srv/cache"));
        assert!(excluded(&["cache/"], "/srv/cache"));
        assert!(excluded(&["a/b"], "/srv/a/b"));
        assert!(excluded(&["/srv/*/log"], "/srv/x/log"));
        assert!(!excluded(&["/srv/*/log"], "/srv/x/y/log"));
        assert!(!excluded(&["/cache"], "/srv/cache"));
        assert!(!excluded(&["*.tmp"], "/srv/a.tmp/b"));
        assert!(!excluded(&[], "/srv"));
    }

    #[test]
    fn a_broken_glob_is_refused() {
        assert_eq!(exclude_set(&["[a".to_owned()]).unwrap_err().kind(), ErrorKind::Usage);
    }

    #[test]
    fn paths_of_any_bytes_come_back_from_the_record() {
        for bytes in [&b"/srv/data"[..], b"/100%/\xff\xfe%41", "/ü/日".as_bytes(), b"/"] {
            let path = Path::new(OsStr::from_bytes(bytes));
            assert_eq!(path_from_record(&recorded_path(path)).as_deref(), Some(path));
        }
        for text in ["relative", "/a%", "/a%4", "/a%zz", "/a%é", ""] {
            assert_eq!(path_from_record(text), None, "{text}");
        }
    }
}
