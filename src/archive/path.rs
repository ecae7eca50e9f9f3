//! Paths inside a snapshot: normalised, relative, made of bytes; they can't escape.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::entry::name_is_valid;

/// A path is not one that a tree can hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad path in a snapshot: {0:?}")]
pub struct BadPath(String);

/// Names from the root of a component (or snapshot) downwards. Ordered like a depth-first walk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ArchivePath {
    names: Vec<Vec<u8>>,
}

impl ArchivePath {
    /// The root.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Splits at `/`; empty parts and `.` are dropped.
    ///
    /// # Errors
    /// On `..`, NUL, and names that are too long.
    pub fn parse(path: impl AsRef<[u8]>) -> Result<Self, BadPath> {
        let path = path.as_ref();
        let mut names = Vec::new();
        for name in path.split(|byte| *byte == b'/') {
            if name.is_empty() || name == b"." {
                continue;
            }
            if !name_is_valid(name) {
                return Err(BadPath(String::from_utf8_lossy(path).into_owned()));
            }
            names.push(name.to_vec());
        }
        Ok(Self { names })
    }

    /// The same for a path of the file system.
    ///
    /// # Errors
    /// As [`ArchivePath::parse`].
    pub fn from_path(path: &Path) -> Result<Self, BadPath> {
        Self::parse(path.as_os_str().as_bytes())
    }

    /// The path one name further down.
    ///
    /// # Errors
    /// When `name` may not stand in a tree.
    pub fn join(&self, name: &[u8]) -> Result<Self, BadPath> {
        if !name_is_valid(name) {
            return Err(BadPath(String::from_utf8_lossy(name).into_owned()));
        }
        let mut names = self.names.clone();
        names.push(name.to_vec());
        Ok(Self { names })
    }

    /// The names, outermost first.
    #[must_use]
    pub fn names(&self) -> &[Vec<u8>] {
        &self.names
    }

    /// Whether it is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.names.is_empty()
    }

    /// First name and the rest.
    #[must_use]
    pub fn split_first(&self) -> Option<(&[u8], Self)> {
        let (first, rest) = self.names.split_first()?;
        Some((first, Self { names: rest.to_vec() }))
    }

    /// The path without its last name, and that name.
    #[must_use]
    pub fn split_last(&self) -> Option<(Self, &[u8])> {
        let (last, rest) = self.names.split_last()?;
        Some((Self { names: rest.to_vec() }, last))
    }

    /// Bytes with `/` between the names, none at the start.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.names.join(&b'/')
    }

    /// The path below `directory`. Never leaves it, names being what they are; symbolic links are another matter.
    #[must_use]
    pub fn below(&self, directory: &Path) -> std::path::PathBuf {
        let mut path = directory.to_path_buf();
        path.extend(self.names.iter().map(|name| OsStr::from_bytes(name)));
        path
    }
}

/// Escapes what would disturb a terminal: control characters, and bytes that aren't UTF-8 as `\xHH`.
impl fmt::Display for ArchivePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.to_bytes()))
    }
}

/// `bytes` for a terminal: control characters and bytes that aren't UTF-8 as `\n`, `\t` or `\xHH`, the backslash doubled.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        for character in part.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                c if c.is_control() => text.extend(c.to_string().bytes().map(|byte| format!("\\x{byte:02x}"))),
                c => text.push(c),
            }
        }
        text.extend(part.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_climbs_is_refused() {
        assert!(ArchivePath::parse("a/../b").is_err());
        assert!(ArchivePath::parse(b"a\0b").is_err());
        assert_eq!(ArchivePath::parse("//a/./b/").map(|path| path.to_bytes()), Ok(b"a/b".to_vec()));
    }

    #[test]
    fn odd_bytes_are_escaped_for_people() {
        let path = ArchivePath::parse(b"a\nb\xff\\").expect("a valid path");
        assert_eq!(path.to_string(), "a\\nb\\xff\\\\");
    }
}
