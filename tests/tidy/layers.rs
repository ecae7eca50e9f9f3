//! Which module may use which.

use crate::sources::{Source, without_comment};

/// The layers, lowest first: the picture in `src/lib.rs`, the archive's design in one table.
const LAYERS: [(&str, &[&str]); 10] = [
    ("vocabulary", &["id", "units", "clock", "error", "observer", "codec", "settings"]),
    ("leaves", &["chunker", "compress", "delta", "reflate", "crypto", "pipeline", "durable", "mmap", "allocator"]),
    ("storage", &["storage"]),
    ("store", &["store"]),
    ("archive", &["archive"]),
    ("components", &["components"]),
    ("plan", &["plan"]),
    ("commands", &["commands", "ui", "mount"]),
    ("cli", &["cli"]),
    ("main", &["main", "lib"]),
];

/// Words of the vocabulary know each other; modules of any other layer don't.
const VOCABULARY: usize = 0;

/// Arrows that point up all the same, with the reason.
const EXCEPTIONS: [(&str, &str, &str); 1] =
    [("src/error.rs", "storage::StorageError", "the one conversion that every `?` above storage needs")];

/// Arrows that point down and are refused all the same, with the reason.
const REFUSED: [(&str, &[&str], &str); 2] = [
    (
        "components",
        &["store", "storage", "chunker", "compress", "delta", "reflate", "crypto"],
        "components know no chunks",
    ),
    ("storage", &["codec", "chunker", "compress", "delta", "reflate", "crypto"], "storage knows no formats"),
];

/// Where `module` stands, or none if the table doesn't have it.
fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, modules)| modules.contains(&module))
}

/// What is wrong with the arrows that start in `source`.
pub fn violations(source: &Source) -> Vec<String> {
    let path = source.path.strip_prefix("src/").unwrap_or(&source.path);
    let module = path.split(['/', '.']).next().unwrap_or(path);
    if rank(module).is_none() {
        return vec![format!("{}: module `{module}` has no layer; give it one in tests/tidy/layers.rs", source.path)];
    }
    let mut findings = Vec::new();
    for (number, line) in source.code_lines() {
        for used in uses(without_comment(line)) {
            if let Some(why) = refusal(&source.path, module, used) {
                findings.push(format!("{}:{number}: `{module}` uses `{used}`: {why}", source.path));
            }
        }
    }
    findings
}

/// The paths after every `crate::` (or `compline::`, in the program) of a line: `error::Error`, `id::{ChunkId`.
fn uses(line: &str) -> impl Iterator<Item = &str> {
    let starts = ["crate::", "compline::"].into_iter().flat_map(move |root| line.match_indices(root));
    starts
        .filter(move |(at, _)| !line[..*at].ends_with(|before: char| before.is_alphanumeric() || "_$".contains(before)))
        .map(move |(at, root)| {
            let rest = &line[at + root.len()..];
            let end = rest.find(|c: char| !(c.is_alphanumeric() || "_:".contains(c))).unwrap_or(rest.len());
            rest[..end].trim_end_matches(':')
        })
}

fn refusal(path: &str, module: &str, used: &str) -> Option<String> {
    let target = used.split(':').next().unwrap_or(used);
    if target.is_empty() {
        return Some("name what you use, one path to a line".to_owned());
    }
    if target == module || EXCEPTIONS.iter().any(|(from, to, _)| *from == path && used.starts_with(to)) {
        return None;
    }
    if let Some((_, _, why)) = REFUSED.iter().find(|(from, to, _)| *from == module && to.contains(&target)) {
        return Some((*why).to_owned());
    }
    let (from, Some(to)) = (rank(module)?, rank(target)) else {
        // A macro or a re-export at the root of the crate: fine for the program, a detour for everybody else.
        return (rank(module)? < LAYERS.len() - 1).then(|| "the table of layers has no such module".to_owned());
    };
    let points_down = to < from || (to == VOCABULARY && from == VOCABULARY);
    (!points_down).then(|| format!("an arrow from layer `{}` to layer `{}`", LAYERS[from].0, LAYERS[to].0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> usize {
        violations(&Source { path: path.to_owned(), text: text.to_owned() }).len()
    }

    #[test]
    fn arrows_up_sideways_and_into_the_unknown_are_found() {
        assert_eq!(findings("src/store/pack.rs", "use crate::archive::Tree;"), 1);
        assert_eq!(findings("src/store.rs", "    let x = crate::archive::tree::decode(b);"), 1);
        assert_eq!(findings("src/durable.rs", "use crate::mmap::Map;"), 1);
        assert_eq!(findings("src/components/files.rs", "use crate::store::Store;"), 1);
        assert_eq!(findings("src/novelty.rs", ""), 1);
        assert_eq!(findings("src/store.rs", "use crate::{archive, error};"), 1);
        assert_eq!(findings("src/storage.rs", "use crate::error::Error; use crate::cli;"), 1);
    }

    #[test]
    fn arrows_down_tests_comments_and_the_exception_are_not() {
        assert_eq!(findings("src/archive/tree.rs", "use crate::store::ChunkSource;\nuse crate::archive::entry;"), 0);
        assert_eq!(findings("src/observer.rs", "use crate::clock::Clock;"), 0);
        assert_eq!(findings("src/error.rs", "impl From<crate::storage::StorageError> for Error {"), 0);
        assert_eq!(findings("src/mmap.rs", "//! [`durable`](crate::durable)\nfn f() {} // crate::cli"), 0);
        assert_eq!(findings("src/store.rs", "#[cfg(test)]\nmod tests { use crate::archive::Tree; }"), 0);
    }
}
