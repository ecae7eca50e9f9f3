//! The paths that are to be captured.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

/// The paths to capture, as a tree of names. A selected node is captured with all that is below it.
#[derive(Debug, Default)]
pub(super) struct Selection {
    pub selected: bool,
    pub below: BTreeMap<OsString, Selection>,
}

impl Selection {
    pub fn of(paths: &[PathBuf]) -> Result<Self> {
        let mut root = Self::default();
        for path in paths {
            let mut node = &mut root;
            for name in absolute(path)?.components().skip(1) {
                node = node.below.entry(name.as_os_str().to_owned()).or_default();
            }
            node.selected = true;
        }
        Ok(root)
    }

    pub fn is_empty(&self) -> bool {
        self.below.is_empty() && !self.selected
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    let missing = |cause| {
        Error::io(format!("{} can't be captured", path.display()), cause)
            .hint("Correct the path in the plan or on the command line; `compline plan check` shows what is asked for")
    };
    let has_dots = path.components().any(|part| part == Component::ParentDir);
    let path = if has_dots { path.canonicalize() } else { std::path::absolute(path) }.map_err(missing)?;
    path.symlink_metadata().map_err(missing)?;
    Ok(path)
}
