//! Object keys: every object name that the format knows is spelled here and nowhere else.

use std::fmt;

use crate::id::{KeyId, PackId, SegmentId, SnapshotId};

/// The kinds of objects in a repository (format-spec 02).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// The one `config` object.
    Config,
    /// `keys/*`
    Key,
    /// `packs/xx/*`
    Pack,
    /// `index/*`
    Segment,
    /// `snapshots/*`
    Snapshot,
}

impl ObjectKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Config, Self::Key, Self::Pack, Self::Segment, Self::Snapshot];

    /// The directory or key prefix, without a slash at the end. Empty for `config`.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Config => "",
            Self::Key => "keys",
            Self::Pack => "packs",
            Self::Segment => "index",
            Self::Snapshot => "snapshots",
        }
    }
}

/// The name of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// `config`
    Config,
    /// `keys/<32 hex>`
    Key(KeyId),
    /// `packs/<first 2 hex>/<64 hex>`
    Pack(PackId),
    /// `index/<64 hex>`
    Segment(SegmentId),
    /// `snapshots/<64 hex>`
    Snapshot(SnapshotId),
}

impl ObjectKey {
    /// What kind of object it names.
    #[must_use]
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Config => ObjectKind::Config,
            Self::Key(_) => ObjectKind::Key,
            Self::Pack(_) => ObjectKind::Pack,
            Self::Segment(_) => ObjectKind::Segment,
            Self::Snapshot(_) => ObjectKind::Snapshot,
        }
    }

    /// The path of the object below the root of the storage, with `/` between the parts.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Self::Config => "config".to_owned(),
            Self::Key(id) => format!("keys/{id}"),
            Self::Pack(id) => {
                let hex = id.to_hex();
                format!("packs/{}/{hex}", &hex[..2])
            }
            Self::Segment(id) => format!("index/{id}"),
            Self::Snapshot(id) => format!("snapshots/{id}"),
        }
    }

    /// The key that has `path`, or none if the format knows no such name.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        if path == "config" {
            return Some(Self::Config);
        }
        let (directory, name) = path.split_once('/')?;
        match directory {
            "keys" => name.parse().ok().map(Self::Key),
            "index" => name.parse().ok().map(Self::Segment),
            "snapshots" => name.parse().ok().map(Self::Snapshot),
            "packs" => {
                let (fan_out, name) = name.split_once('/')?;
                let id: PackId = name.parse().ok()?;
                name.starts_with(fan_out).then_some(()).filter(|()| fan_out.len() == 2)?;
                Some(Self::Pack(id))
            }
            _ => None,
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_again_from_its_path() {
        let keys = [
            ObjectKey::Config,
            ObjectKey::Key(KeyId::from_bytes([1; 16])),
            ObjectKey::Pack(PackId::from_bytes([0xfe; 32])),
            ObjectKey::Segment(SegmentId::from_bytes([3; 32])),
            ObjectKey::Snapshot(SnapshotId::from_bytes([4; 32])),
        ];
        for key in keys {
            assert_eq!(ObjectKey::from_path(&key.path()), Some(key));
        }
    }

    #[test]
    fn foreign_names_are_no_keys() {
        let wrong_fan_out = format!("packs/00/{}", "ab".repeat(32));
        for path in ["", "config/x", "keys/", "keys/zz", "packs/ab", &wrong_fan_out, "tmp/x", "packs/.tmp-1"] {
            assert_eq!(ObjectKey::from_path(path), None, "{path}");
        }
    }
}
