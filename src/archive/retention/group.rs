//! Groups: snapshots of the same thing, among which retention chooses.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::archive::Snapshot;
use crate::archive::snapshots::Published;

/// What snapshots of one group have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a word of --group-by")]
pub struct GroupBy {
    /// The platform.
    pub platform: bool,
    /// The host.
    pub host: bool,
    /// The names of their components, in any order; those that failed or were skipped too.
    pub components: bool,
    /// The tags.
    pub tags: bool,
}

impl Default for GroupBy {
    fn default() -> Self {
        Self { platform: true, host: true, components: true, tags: false }
    }
}

impl GroupBy {
    /// All that it can be made of.
    pub const WORDS: [&str; 4] = ["platform", "host", "components", "tags"];

    /// Of some of [`GroupBy::WORDS`]; of none of them all snapshots are one group.
    ///
    /// # Errors
    /// The word that is none of them.
    pub fn of<'w>(words: impl IntoIterator<Item = &'w str>) -> Result<Self, &'w str> {
        let mut by = Self { platform: false, host: false, components: false, tags: false };
        for word in words {
            match word {
                "platform" => by.platform = true,
                "host" => by.host = true,
                "components" => by.components = true,
                "tags" => by.tags = true,
                _ => return Err(word),
            }
        }
        Ok(by)
    }

    /// The words it is made of.
    #[must_use]
    pub fn words(&self) -> Vec<&'static str> {
        let chosen = [self.platform, self.host, self.components, self.tags];
        Self::WORDS.into_iter().zip(chosen).filter_map(|(word, is_chosen)| is_chosen.then_some(word)).collect()
    }

    /// The group of a snapshot.
    #[must_use]
    pub fn group(&self, snapshot: &Snapshot) -> Group {
        let sorted = |mut words: Vec<String>| {
            words.sort();
            words
        };
        let names = || snapshot.components.iter().map(|component| component.name.clone()).collect();
        Group {
            platform: self.platform.then(|| snapshot.platform.clone()),
            host: self.host.then(|| snapshot.host.clone()),
            components: self.components.then(|| sorted(names())),
            paths: if self.components { sorted(ad_hoc_paths(snapshot)) } else { Vec::new() },
            tags: self.tags.then(|| sorted(snapshot.tags.clone())),
        }
    }

    /// `snapshots` by group; in each their order stays.
    #[must_use]
    pub fn groups<'p>(
        &self,
        snapshots: impl IntoIterator<Item = &'p Published>,
    ) -> BTreeMap<Group, Vec<&'p Published>> {
        let mut groups: BTreeMap<Group, Vec<&Published>> = BTreeMap::new();
        for published in snapshots {
            groups.entry(self.group(&published.snapshot)).or_default().push(published);
        }
        groups
    }
}

/// Every run without a plan calls its component `files`, whatever it saves; what tells `/etc` from `/home` are the paths.
/// In a plan the name tells, and paths may come and go.
fn ad_hoc_paths(snapshot: &Snapshot) -> Vec<String> {
    if !snapshot.platform.is_empty() {
        return Vec::new();
    }
    let facts = snapshot.components.iter().filter_map(|component| component.facts.get("paths"));
    facts.filter_map(Value::as_array).flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What the snapshots of a group have in common; what they are not grouped by is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Group {
    /// Name of the platform; empty for runs without a plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Name of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Names of the components.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub components: Option<Vec<String>>,
    /// Paths of a run without a plan.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |what: &str, name: &str| format!("{what} {}", if name.is_empty() { "-" } else { name });
        let listed = |what: &str, names: &[String]| named(what, &names.join(" "));
        let parts = [
            self.platform.as_ref().filter(|name| !name.is_empty()).map(|name| named("platform", name)),
            self.host.as_ref().map(|name| named("host", name)),
            self.components.as_ref().map(|names| listed("components", names)),
            (!self.paths.is_empty()).then(|| listed("paths", &self.paths)),
            self.tags.as_ref().map(|names| listed("tags", names)),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() { f.write_str("all snapshots") } else { f.write_str(&parts.join(", ")) }
    }
}
