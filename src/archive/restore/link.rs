//! Hard links: entries of equal device and inode are one file. The first that is met brings the content; the others wait
//! until it is whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::directory::Directory;
use crate::archive::entry::Entry;

/// How the first name is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstState {
    Pending,
    Whole,
    /// There is nothing to link to: the next name brings the content itself.
    Unusable,
}

/// The first name of a file with several.
#[derive(Debug)]
pub(super) struct First {
    pub directory: Arc<Directory>,
    pub name: Vec<u8>,
    state: AtomicU8,
}

impl First {
    pub fn new(directory: &Arc<Directory>, name: &[u8]) -> Arc<Self> {
        Arc::new(Self { directory: Arc::clone(directory), name: name.to_vec(), state: AtomicU8::new(0) })
    }

    pub fn state(&self) -> FirstState {
        match self.state.load(Ordering::Acquire) {
            0 => FirstState::Pending,
            1 => FirstState::Whole,
            _ => FirstState::Unusable,
        }
    }

    pub fn settle(&self, whole: bool) {
        self.state.store(if whole { 1 } else { 2 }, Ordering::Release);
    }
}

/// A further name, waiting. It is a task of its directory.
#[derive(Debug)]
pub(super) struct Link {
    pub directory: Arc<Directory>,
    pub entry: Entry,
    pub first: Arc<First>,
}
