//! Read-only maps of published objects: the one module with `unsafe` in it.
//!
//! The promise behind the `unsafe`: a mapped file is an object that [`durable`](crate::durable) has published. Such a
//! file is never written again; deleting it leaves the map intact. Files of a source tree shrink and change while they
//! are read and must never be mapped: the process would die of SIGBUS, or see bytes change under a `&[u8]`. Who cuts a
//! published object short by other means than compline, while compline reads it, gets the SIGBUS.
#![expect(unsafe_code, reason = "mapping a file is unsafe; the module's header carries the promise")]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

/// The bytes of an immutable file.
pub struct Map(Mmap);

impl Map {
    /// Maps the published object at `path`.
    ///
    /// # Errors
    /// What opening and mapping say.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::of(&File::open(path)?)
    }

    /// Maps a published object that is open already.
    ///
    /// # Errors
    /// What mapping says.
    pub fn of(file: &File) -> io::Result<Self> {
        // SAFETY: callers pass published objects only, which nobody writes to or shortens (see the header).
        let map = unsafe { Mmap::map(file) }?;
        Ok(Self(map))
    }
}

impl Deref for Map {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Map {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Map({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_has_the_bytes_of_the_file_and_outlives_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("object");
        std::fs::write(&path, b"published").unwrap();
        let map = Map::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(&*map, b"published");
    }

    #[test]
    fn an_empty_file_maps_to_no_bytes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Map::open(file.path()).unwrap().len(), 0);
    }
}
