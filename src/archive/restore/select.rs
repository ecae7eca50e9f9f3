//! Which paths a restore is about.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{RestoreOptions, directory::Directory};

/// What the patterns say of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Selected {
    /// It is restored.
    Yes,
    /// It isn't, but something below it may be.
    Below,
    /// Neither it nor anything below it is restored.
    No,
}

/// What the patterns say of `name` in `directory`; `inside` if a directory above was included already.
pub(super) fn select(options: &RestoreOptions, directory: &Directory, name: &[u8], inside: bool) -> Selected {
    if options.include.is_none() && options.exclude.is_none() {
        return Selected::Yes;
    }
    let path = directory.path_of(name);
    let path = Path::new(OsStr::from_bytes(&path));
    let matches = |set: &Option<globset::GlobSet>| set.as_ref().is_some_and(|set| set.is_match(path));
    if matches(&options.exclude) {
        Selected::No
    } else if inside || options.include.is_none() || matches(&options.include) {
        Selected::Yes
    } else {
        Selected::Below
    }
}
