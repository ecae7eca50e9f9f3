//! Reading small files.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use super::{ATTEMPTS, SMALL_LEN_MAX, SmallFile, Step, Taken, ToRead, UNIT_LEN, unreadable};
use crate::archive::ancestor::Ancestor;
use crate::archive::posix::{self, Inspected, Owners};
use crate::chunker::Chunker;
use crate::id::ChunkId;
use crate::pipeline::Receiver;

/// Does what steps ask for that needs no order. What the workers share.
pub(super) struct Reading<'l> {
    pub chunker: &'l Chunker,
    pub chunk_id: &'l (dyn Fn(&[u8]) -> ChunkId + Sync),
    pub owners: &'l Owners,
    /// Takes apart what is compressed; none where nothing is to be.
    pub open: Option<&'l TakeApart<'l>>,
    /// Buffers of units that are stored.
    pub spares: Receiver<Vec<u8>>,
}

/// Takes a file apart, if there is anything in it to be taken apart.
pub(super) type TakeApart<'t> = dyn Fn(&[u8]) -> Option<Taken> + Sync + 't;

/// A unit whose small files are read, all into one buffer that is used again: memory that one thread allocates for every
/// file and another one frees stays with the allocator, in pieces (60 MiB of them in a tree of 80,000 files).
pub(super) struct ReadUnit {
    pub steps: Vec<Step>,
    pub bytes: Vec<u8>,
}

impl Reading<'_> {
    pub fn unit(&self, steps: Vec<Step>) -> ReadUnit {
        let mut bytes = Vec::new();
        if steps.iter().any(|step| matches!(step, Step::Read(_))) {
            bytes = self.spares.try_recv().unwrap_or_else(|_| Vec::with_capacity(UNIT_LEN + SMALL_LEN_MAX));
        }
        let mut read = |step| if let Step::Read(file) = step { self.file(file, &mut bytes) } else { step };
        let steps = steps.into_iter().map(&mut read).collect();
        ReadUnit { steps, bytes }
    }

    fn file(&self, read: ToRead, bytes: &mut Vec<u8>) -> Step {
        let start = bytes.len();
        let found = self.read(&read.directory, OsStr::from_bytes(&read.name), read.inspected.clone(), bytes);
        if !matches!(found, Ok(Some(_))) {
            bytes.truncate(start);
        }
        match found {
            Ok(Some((inspected, changed))) => {
                let len = (bytes.len() - start) as u64;
                let mut taken = self.open.and_then(|open| open(&bytes[start..]));
                if let Some(taken) = &mut taken {
                    bytes.truncate(start);
                    bytes.append(&mut taken.plain);
                }
                let mut cuts = vec![start];
                let mut end = start;
                let ToRead { path, name, is_new, old, .. } = read;
                let mut ancestor = old.as_ref().map(Ancestor::of_short);
                let mut ids = Vec::new();
                for chunk in self.chunker.split(&bytes[start..]) {
                    end += chunk.len();
                    cuts.push(end);
                    let id = (self.chunk_id)(chunk);
                    let older = ancestor.as_mut().map(|ancestor| ancestor.older(&id, chunk.len() as u64));
                    ids.push((id, older.unwrap_or_default()));
                }
                let changed = changed.then_some(path);
                Step::Small(SmallFile { name, inspected, len, cuts, ids, taken, changed, is_new })
            }
            // It outgrew what is read whole.
            Ok(None) => Step::Large(read),
            Err(cause) => unreadable(&read.path, &cause),
        }
    }

    /// Reads a small file to the end of `bytes`, again while it changes: what it was, and whether it never held still.
    /// None when it is not small any more.
    fn read(
        &self,
        directory: &OwnedFd,
        name: &OsStr,
        mut inspected: Inspected,
        bytes: &mut Vec<u8>,
    ) -> io::Result<Option<(Inspected, bool)>> {
        let start = bytes.len();
        for attempt in 1.. {
            let mut file = posix::open_file_at(directory, name)?;
            bytes.truncate(start);
            let expected = usize::try_from(inspected.kind_len()).unwrap_or(0);
            bytes.reserve(expected + 1);
            (&mut file).take(SMALL_LEN_MAX as u64 + 1).read_to_end(bytes)?;
            if bytes.len() - start > SMALL_LEN_MAX {
                return Ok(None);
            }
            let held_still = posix::same_state(&inspected, &posix::state_of(&file)?);
            if held_still || attempt == ATTEMPTS {
                return Ok(Some((inspected, !held_still)));
            }
            inspected = posix::inspect_at(directory, name, self.owners)?;
        }
        Ok(None)
    }
}
