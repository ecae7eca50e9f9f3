//! Reading small files.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use super::{ATTEMPTS, SMALL_LEN_MAX, SmallFile, Step, ToRead, unreadable};
use crate::archive::ancestor::Ancestor;
use crate::archive::posix::{self, Inspected, Owners};
use crate::chunker::{Batch, Chunker};
use crate::id::ChunkId;

/// Does what a step asks for that needs no order. What the workers share.
pub(super) struct Reading<'l> {
    pub chunker: &'l Chunker,
    pub chunk_id: &'l (dyn Fn(&[u8]) -> ChunkId + Sync),
    pub owners: &'l Owners,
}

impl Reading<'_> {
    pub fn unit(&self, steps: Vec<Step>) -> Vec<Step> {
        steps.into_iter().map(|step| if let Step::Read(read) = step { self.file(read) } else { step }).collect()
    }

    fn file(&self, read: ToRead) -> Step {
        match self.read(&read.directory, OsStr::from_bytes(&read.name), read.inspected.clone()) {
            Ok(Some((inspected, bytes, changed))) => {
                let chunks = Batch::whole(bytes, self.chunker);
                let ToRead { path, name, is_new, old, .. } = read;
                let mut ancestor = old.as_ref().map(Ancestor::of_short);
                let ids = chunks
                    .chunks()
                    .map(|chunk| {
                        let id = (self.chunk_id)(chunk);
                        let older = ancestor.as_mut().map(|ancestor| ancestor.older(&id, chunk.len() as u64));
                        (id, older.unwrap_or_default())
                    })
                    .collect();
                Step::Small(SmallFile { name, inspected, chunks, ids, changed: changed.then_some(path), is_new })
            }
            // It outgrew what is read whole.
            Ok(None) => Step::Large(read),
            Err(cause) => unreadable(&read.path, &cause),
        }
    }

    /// The bytes of a small file, read again while it changes. None when it is not small any more.
    fn read(
        &self,
        directory: &OwnedFd,
        name: &OsStr,
        mut inspected: Inspected,
    ) -> io::Result<Option<(Inspected, Vec<u8>, bool)>> {
        let mut bytes = Vec::new();
        for attempt in 1.. {
            let mut file = posix::open_file_at(directory, name)?;
            bytes.clear();
            let expected = usize::try_from(inspected.kind_len()).unwrap_or(0);
            bytes.reserve_exact(expected + 1);
            (&mut file).take(SMALL_LEN_MAX + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > SMALL_LEN_MAX {
                return Ok(None);
            }
            let held_still = posix::same_state(&inspected, &posix::state_of(&file)?);
            if held_still || attempt == ATTEMPTS {
                return Ok(Some((inspected, bytes, !held_still)));
            }
            inspected = posix::inspect_at(directory, name, self.owners)?;
        }
        Ok(None)
    }
}
