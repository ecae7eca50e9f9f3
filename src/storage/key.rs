//! Object keys: every object name that the format knows is spelled here and nowhere else.

use std::fmt;

use crate::id::{KeyId, PackId, RetiredId, SegmentId, SessionId, SnapshotId, from_hex};

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
    /// `sessions/*`
    Session,
    /// `retired/*`
    Retired,
}

impl ObjectKind {
    /// All kinds.
    pub const ALL: [Self; 7] =
        [Self::Config, Self::Key, Self::Pack, Self::Segment, Self::Snapshot, Self::Session, Self::Retired];

    /// The directory or key prefix, without a slash at the end. Empty for `config`.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Config => "",
            Self::Key => "keys",
            Self::Pack => "packs",
            Self::Segment => "index",
            Self::Snapshot => "snapshots",
            Self::Session => "sessions",
            Self::Retired => "retired",
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
    /// `sessions/<32 hex>` for the session itself, with `-<8 hex>` behind it for its later signs of life.
    Session(SessionId, u32),
    /// `retired/<32 hex>`
    Retired(RetiredId),
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
            Self::Session(..) => ObjectKind::Session,
            Self::Retired(_) => ObjectKind::Retired,
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
            Self::Session(id, 0) => format!("sessions/{id}"),
            Self::Session(id, sign) => format!("sessions/{id}-{sign:08x}"),
            Self::Retired(id) => format!("retired/{id}"),
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
            "sessions" => session(name),
            "retired" => name.parse().ok().map(Self::Retired),
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

fn session(name: &str) -> Option<ObjectKey> {
    let Some((id, sign)) = name.split_once('-') else {
        return name.parse().ok().map(|id| ObjectKey::Session(id, 0));
    };
    let sign = u32::from_be_bytes(from_hex(sign).ok()?);
    id.parse().ok().filter(|_| sign > 0).map(|id| ObjectKey::Session(id, sign))
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
            ObjectKey::Session(SessionId::from_bytes([5; 16]), 0),
            ObjectKey::Session(SessionId::from_bytes([5; 16]), 0x1234_abcd),
            ObjectKey::Retired(RetiredId::from_bytes([6; 16])),
        ];
        for key in keys {
            assert_eq!(ObjectKey::from_path(&key.path()), Some(key));
        }
    }

    #[test]
    fn foreign_names_are_no_keys() {
        let wrong_fan_out = format!("packs/00/{}", "ab".repeat(32));
        let no_sign = format!("sessions/{}-00000000", "ab".repeat(16));
        let short_sign = format!("sessions/{}-1", "ab".repeat(16));
        let names = ["", "config/x", "keys/", "keys/zz", "packs/ab", "tmp/x", "packs/.tmp-1", "sessions/-00000001"];
        for path in names.into_iter().chain([&*wrong_fan_out, &*no_sign, &*short_sign]) {
            assert_eq!(ObjectKey::from_path(path), None, "{path}");
        }
    }
}
