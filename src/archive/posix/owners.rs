//! Names of users and groups. Each is asked of the system once for each run, whatever the number of files.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::hash::Hash;
use std::os::unix::ffi::OsStrExt;
use std::sync::{PoisonError, RwLock};

use crate::archive::entry::OWNER_LEN_MAX;

/// Remembers who is who. One for each run, shared by its threads.
#[derive(Debug, Default)]
pub struct Owners {
    users: Cache<u32, Vec<u8>>,
    groups: Cache<u32, Vec<u8>>,
    uids: Cache<Vec<u8>, Option<u32>>,
    gids: Cache<Vec<u8>, Option<u32>>,
}

impl Owners {
    /// Knows nobody yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Name of the user `uid`; empty if there is none, or none that an entry can hold.
    pub fn user(&self, uid: u32) -> Vec<u8> {
        self.users.get(&uid, || uzers::get_user_by_uid(uid).map(|user| storable(user.name())).unwrap_or_default())
    }

    /// Name of the group `gid`; empty if there is none, or none that an entry can hold.
    pub fn group(&self, gid: u32) -> Vec<u8> {
        self.groups.get(&gid, || uzers::get_group_by_gid(gid).map(|group| storable(group.name())).unwrap_or_default())
    }

    /// Whether `name` is what [`Owners::user`] would tell; cheaper.
    pub fn is_user(&self, uid: u32, name: &[u8]) -> bool {
        self.users.peek(&uid, |known| known == name).unwrap_or_else(|| self.user(uid) == name)
    }

    /// Whether `name` is what [`Owners::group`] would tell; cheaper.
    pub fn is_group(&self, gid: u32, name: &[u8]) -> bool {
        self.groups.peek(&gid, |known| known == name).unwrap_or_else(|| self.group(gid) == name)
    }

    /// Number of the user called `name` here.
    pub fn uid(&self, name: &[u8]) -> Option<u32> {
        self.uids.get(name, || uzers::get_user_by_name(OsStr::from_bytes(name)).map(|user| user.uid()))
    }

    /// Number of the group called `name` here.
    pub fn gid(&self, name: &[u8]) -> Option<u32> {
        self.gids.get(name, || uzers::get_group_by_name(OsStr::from_bytes(name)).map(|group| group.gid()))
    }
}

fn storable(name: &OsStr) -> Vec<u8> {
    if name.len() <= OWNER_LEN_MAX { name.as_bytes().to_vec() } else { Vec::new() }
}

#[derive(Debug)]
struct Cache<K, V>(RwLock<HashMap<K, V>>);

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Hash + Eq, V: Clone> Cache<K, V> {
    /// What `look` makes of what is known of `key`; None where nothing is.
    fn peek<R>(&self, key: &K, look: impl FnOnce(&V) -> R) -> Option<R> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).map(look)
    }

    /// Two threads may ask the system for the same key; both get the same answer.
    fn get<Q>(&self, key: &Q, ask: impl FnOnce() -> V) -> V
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(known) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(key) {
            return known.clone();
        }
        let answer = ask();
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), answer.clone());
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_both_ways_and_strangers_have_no_name() {
        let owners = Owners::new();
        assert_eq!(owners.user(0), b"root");
        assert!(owners.is_user(0, b"root") && owners.is_user(0, b"root") && !owners.is_user(0, b"toor"));
        assert!(owners.is_group(0, b"root") && !owners.is_group(3_999_999_999, b"root"));
        assert_eq!(owners.uid(b"root"), Some(0));
        assert_eq!(owners.user(3_999_999_999), b"");
        assert_eq!(owners.uid(b"no such user here"), None);
        assert_eq!(owners.gid(b"no such group here"), None);
    }

    #[test]
    fn the_system_is_asked_once() {
        let cache: Cache<u32, u32> = Cache::default();
        assert_eq!(cache.get(&1, || 7), 7);
        assert_eq!(cache.get(&1, || 8), 7);
    }
}
