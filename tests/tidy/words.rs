//! Words and calls that are refused. Only the clear-cut ones: a rule that cries wolf is switched off.

use crate::sources::{Source, without_comment};

/// Word, what to say, and where it means something else: a profile that is named for what its users call blobs, Azure's name of its objects,
/// PostgreSQL's catalogs and backends, the name of a module of rust-s3, other people's vaults.
const REFUSED: [(&str, &str, &[&str]); 9] = [
    ("vault", "repository", &["src/settings/"]),
    ("blob", "object, or chunk", &["src/chunker.rs", "src/plan/", "src/storage/azure", "src/storage/web/trouble.rs"]),
    ("blobs", "objects, or chunks", &["src/storage/azure"]),
    ("backend", "storage", &["src/components/", "src/storage/s3/client.rs"]),
    ("backends", "storage", &["src/components/"]),
    ("catalog", "index", &["src/components/"]),
    ("bundle", "pack", &[]),
    ("lockfile", "session", &[]),
    ("todo", "an issue, or the work itself", &[]),
];

/// Refused words in `source`, in code and comments.
pub fn refused_words(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for (number, line) in source.code_lines() {
        for (word, instead, elsewhere) in REFUSED {
            if !elsewhere.iter().any(|place| source.path.starts_with(place)) && has_word(line, word) {
                findings.push(format!("{}:{number}: `{word}`: say {instead}", source.path));
            }
        }
    }
    findings
}

/// Whether `word` stands in `line` by itself or as a part of an identifier: `blob`, `blob_len`, `BlobId`. Capitals
/// alone are somebody else's word: the column type `BLOB`.
fn has_word(line: &str, word: &str) -> bool {
    parts(line).any(|part| part.eq_ignore_ascii_case(word) && part != part.to_ascii_uppercase())
}

/// `BlobId::new(blob_len)` has the parts Blob, Id, new, blob, len.
fn parts(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_ascii_alphabetic()).flat_map(|word| {
        let humps = word.char_indices().filter(|(at, c)| {
            *at > 0 && c.is_ascii_uppercase() && word[..*at].ends_with(|before: char| before.is_ascii_lowercase())
        });
        let ends: Vec<usize> = humps.map(|(at, _)| at).chain([word.len()]).collect();
        let starts = [0].into_iter().chain(ends.clone());
        starts.zip(ends).map(|(start, end)| &word[start..end]).collect::<Vec<_>>()
    })
}

/// Sleeps after the first `skip` lines.
pub fn sleeps(source: &Source, skip: usize) -> Vec<String> {
    let call = concat!("thread::", "sleep(");
    let lines = (1..).zip(source.text.lines()).skip(skip);
    let lines = lines.filter(|(_, line)| without_comment(line).contains(call));
    lines.map(|(number, _)| format!("{}:{number}", source.path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_prose_and_identifiers_and_not_inside_others() {
        for line in ["the blob of", "let blob_len = 1;", "struct BlobId;", "fn blobId()", "//! A blob."] {
            assert!(has_word(line, "blob"), "{line}");
        }
        for line in ["azblob://", "value BLOB NOT NULL", "blobby"] {
            assert!(!has_word(line, "blob"), "{line}");
        }
    }
}
