//! The constants of the format, as the specification and as the code have them.
//!
//! `format-spec/constants.toml` is read line by line: `name = value`, where a value is an integer, a string or `true`;
//! under a heading `[pack]` the name is `pack.name`. The code's side is the text after `const NAME: … =`, whose integer
//! arithmetic is worked out here; so private constants can be compared too.

use std::collections::BTreeMap;

/// Name in the specification, file of the code, name in the code.
pub const TABLE: &[(&str, &str, &str)] = &[
    ("object.magic", "src/store/envelope.rs", "MAGIC"),
    ("object.format_version", "src/store/envelope.rs", "FORMAT_VERSION"),
    ("object.header_len", "src/store/envelope.rs", "HEADER_LEN"),
    ("object.key_slot_derived", "src/store/envelope.rs", "KEY_SLOT_DERIVED"),
    ("object.key_slot_deposit", "src/store/envelope.rs", "KEY_SLOT_DEPOSIT"),
    ("object.compression_none", "src/store/envelope.rs", "COMPRESSION_NONE"),
    ("object.compression_zstd", "src/store/envelope.rs", "COMPRESSION_ZSTD"),
    ("object.record_len_max", "src/store/envelope.rs", "RECORD_LEN_MAX"),
    ("object.features_known", "src/store/config.rs", "FEATURES_KNOWN"),
    ("key.len", "src/crypto.rs", "KEY_LEN"),
    ("key.tag_len", "src/crypto.rs", "TAG_LEN"),
    ("key.signature_len", "src/crypto.rs", "SIGNATURE_LEN"),
    ("key.derivation_passphrase", "src/store/keyring.rs", "DERIVE_PASSPHRASE"),
    ("key.derivation_key_file", "src/store/keyring.rs", "DERIVE_KEY_FILE"),
    ("key.derivation_write_only", "src/store/keyring.rs", "DERIVE_WRITE_ONLY"),
    ("key.derivation_read_only", "src/store/keyring.rs", "DERIVE_READ_ONLY"),
    ("key.derivation_recipient", "src/store/keyring.rs", "DERIVE_RECIPIENT"),
    ("key.identity_magic", "src/store/keyring.rs", "IDENTITY_MAGIC"),
    ("key.recipient_magic", "src/store/keyring.rs", "RECIPIENT_MAGIC"),
    ("key.file_magic", "src/store/keyring.rs", "KEY_FILE_MAGIC"),
    ("key.card_plain_len", "src/store/card.rs", "PLAIN_LEN"),
    ("chunk.len_max", "src/chunker.rs", "CHUNK_LEN_MAX"),
    ("pack.trailer_magic", "src/store/pack.rs", "TRAILER_MAGIC"),
    ("pack.trailer_len", "src/store/pack.rs", "TRAILER_LEN"),
    ("pack.len_max", "src/store/pack.rs", "PACK_LEN_MAX"),
    ("pack.footer_len_max", "src/store/pack.rs", "FOOTER_LEN_MAX"),
    ("pack.footer_len_close", "src/store/pack_writer.rs", "FOOTER_LEN_CLOSE"),
    ("pack.frame_kind_raw", "src/store/pack.rs", "FRAME_KIND_RAW"),
    ("pack.frame_kind_zstd", "src/store/pack.rs", "FRAME_KIND_ZSTD"),
    ("pack.frame_kind_delta", "src/store/pack.rs", "FRAME_KIND_DELTA"),
    ("pack.frame_plain_len_max", "src/store/pack.rs", "FRAME_PLAIN_LEN_MAX"),
    ("pack.frame_chunk_count_max", "src/store/pack.rs", "FRAME_CHUNK_COUNT_MAX"),
    ("pack.frame_extension_len_max", "src/store/pack.rs", "FRAME_EXTENSION_LEN_MAX"),
    ("delta.base_count_max", "src/store/pack.rs", "BASE_COUNT_MAX"),
    ("delta.base_len_max", "src/store/pack.rs", "BASE_LEN_MAX"),
    ("parity.label_magic", "src/store/parity.rs", "LABEL_MAGIC"),
    ("parity.label_len", "src/store/parity.rs", "LABEL_LEN"),
    ("parity.shard_hash_len", "src/store/parity.rs", "SHARD_HASH_LEN"),
    ("parity.label_hash_len", "src/store/parity.rs", "LABEL_HASH_LEN"),
    ("parity.shard_unit", "src/store/parity.rs", "SHARD_UNIT"),
    ("parity.shard_len_max", "src/store/parity.rs", "SHARD_LEN_MAX"),
    ("parity.shard_count_max", "src/store/parity.rs", "SHARD_COUNT_MAX"),
    ("parity.spare_count", "src/store/parity.rs", "SPARE_COUNT"),
    ("segment.version", "src/store/index_segment.rs", "SEGMENT_VERSION"),
    ("segment.len", "src/store/index_segment.rs", "SEGMENT_LEN"),
    ("entry.name_len_max", "src/archive/entry.rs", "NAME_LEN_MAX"),
    ("entry.link_len_max", "src/archive/entry.rs", "LINK_LEN_MAX"),
    ("entry.owner_len_max", "src/archive/entry.rs", "OWNER_LEN_MAX"),
    ("entry.xattr_count_max", "src/archive/entry.rs", "XATTR_COUNT_MAX"),
    ("entry.xattr_name_len_max", "src/archive/entry.rs", "XATTR_NAME_LEN_MAX"),
    ("entry.xattr_value_len_max", "src/archive/entry.rs", "XATTR_VALUE_LEN_MAX"),
    ("entry.flag_changed", "src/archive/entry.rs", "FLAG_CHANGED"),
    ("entry.field_count_max", "src/archive/fields.rs", "FIELD_COUNT_MAX"),
    ("entry.field_len_max", "src/archive/fields.rs", "FIELD_LEN_MAX"),
    ("content.encoding_chunks", "src/archive/entry.rs", "CONTENT_CHUNKS"),
    ("content.encoding_reflated", "src/archive/entry.rs", "CONTENT_REFLATED"),
    ("reflate.algorithm", "src/reflate.rs", "ALGORITHM"),
    ("reflate.record_literal", "src/reflate/recipe.rs", "RECORD_LITERAL"),
    ("reflate.record_copy", "src/reflate/recipe.rs", "RECORD_COPY"),
    ("reflate.record_piece", "src/reflate/recipe.rs", "RECORD_PIECE"),
    ("reflate.record_rest", "src/reflate/recipe.rs", "RECORD_REST"),
    ("reflate.literal_len_max", "src/reflate/recipe.rs", "LITERAL_LEN_MAX"),
    ("reflate.corrections_len_max", "src/reflate/recipe.rs", "CORRECTIONS_LEN_MAX"),
    ("reflate.dictionary_len_max", "src/reflate/piece.rs", "DICTIONARY_LEN_MAX"),
    ("reflate.piece_plain_len_max", "src/reflate/piece.rs", "PIECE_PLAIN_LEN_MAX"),
    ("reflate.piece_bits_max", "src/reflate/piece.rs", "PIECE_BITS_MAX"),
    ("content.depth_max", "src/archive/entry.rs", "CONTENT_DEPTH_MAX"),
    ("content.piece_count_max", "src/archive/entry.rs", "PIECE_COUNT_MAX"),
    ("content.inline_count_max", "src/archive/content.rs", "INLINE_COUNT_MAX"),
    ("content.list_count_min", "src/archive/content.rs", "LIST_COUNT_MIN"),
    ("content.list_count_avg", "src/archive/content.rs", "LIST_COUNT_AVG"),
    ("tree.version", "src/archive/tree.rs", "TREE_VERSION"),
    ("tree.len_max", "src/archive/content.rs", "TREE_LEN_MAX"),
    ("table.version", "src/archive/table.rs", "TABLE_VERSION"),
    ("table.key_len_max", "src/archive/table.rs", "KEY_LEN_MAX"),
    ("table.text_len_max", "src/archive/table.rs", "TEXT_LEN_MAX"),
    ("table.user_count_max", "src/archive/table.rs", "USER_COUNT_MAX"),
    ("table.page_len_max", "src/archive/table.rs", "PAGE_LEN_MAX"),
    ("table.page_len_min", "src/archive/table.rs", "PAGE_LEN_MIN"),
    ("table.level_max", "src/archive/table.rs", "LEVEL_MAX"),
    ("table.field_modified", "src/archive/table.rs", "FIELD_MODIFIED"),
    ("table.field_etag", "src/archive/table.rs", "FIELD_ETAG"),
    ("table.field_version", "src/archive/table.rs", "FIELD_VERSION"),
    ("table.field_content_type", "src/archive/table.rs", "FIELD_CONTENT_TYPE"),
    ("table.field_user", "src/archive/table.rs", "FIELD_USER"),
    ("snapshot.format", "src/archive/snapshot.rs", "SNAPSHOT_FORMAT"),
];

/// A value that both sides can have.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Integer(u128),
    Bytes(Vec<u8>),
}

/// What differs, what the specification has and the table lacks, and what the table has and the specification lacks.
pub fn differences(
    specification: &str,
    table: &[(&str, &str, &str)],
    read: &dyn Fn(&str) -> Option<String>,
) -> Vec<String> {
    let (specified, mut findings) = read_specification(specification);
    for (name, path, constant) in table {
        let Some(expected) = specified.get(*name) else {
            findings.push(format!("{name}: the table has it, constants.toml does not"));
            continue;
        };
        match read(path).ok_or_else(|| "no such file".to_owned()).and_then(|text| constant_of(&text, constant, 0)) {
            Ok(actual) if actual == *expected => {}
            Ok(actual) => {
                findings.push(format!("{name}: specified {expected:?}, but {path} has {constant} = {actual:?}"));
            }
            Err(why) => findings.push(format!("{name}: {path}, {constant}: {why}")),
        }
    }
    let unmatched = specified.keys().filter(|name| !table.iter().any(|(known, _, _)| known == name));
    findings.extend(unmatched.map(|name| format!("{name}: specified, but the table names no constant of the code")));
    findings
}

fn read_specification(text: &str) -> (BTreeMap<String, Value>, Vec<String>) {
    let (mut values, mut findings) = (BTreeMap::new(), Vec::new());
    let mut heading = String::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            heading = format!("{name}.");
            continue;
        }
        let parsed = line.split_once('=').and_then(|(name, value)| Some((name.trim(), specified_value(value.trim())?)));
        match parsed {
            Some((name, value)) => {
                if values.insert(format!("{heading}{name}"), value).is_some() {
                    findings.push(format!("constants.toml:{number}: {name} is there twice"));
                }
            }
            None => findings.push(format!("constants.toml:{number}: not `name = integer` or `name = \"string\"`")),
        }
    }
    (values, findings)
}

fn specified_value(text: &str) -> Option<Value> {
    if let Some(rest) = text.strip_prefix('"') {
        let (string, after) = rest.split_once('"')?;
        let after = after.trim();
        return (after.is_empty() || after.starts_with('#')).then(|| Value::Bytes(unescape(string)));
    }
    let number = text.split('#').next()?.trim();
    integer(number).map(Value::Integer)
}

/// The value of `const name` in `text`; other constants of the same file may stand in it.
fn constant_of(text: &str, name: &str, depth: u32) -> Result<Value, String> {
    if depth > 8 {
        return Err("constants refer to each other in a circle".to_owned());
    }
    let start = format!("const {name}:");
    let at = text.find(&start).ok_or_else(|| format!("there is no `{start} … = …;`"))?;
    let definition = text[at..].split_once('=').map(|(_, rest)| rest).unwrap_or_default();
    let expression = definition_end(definition).trim();
    if let Some(bytes) = bytes_literal(expression) {
        return Ok(Value::Bytes(bytes));
    }
    let tokens = tokens(expression)?;
    let mut rest = tokens.as_slice();
    let lookup = |other: &str| match constant_of(text, other, depth + 1)? {
        Value::Integer(value) => Ok(value),
        Value::Bytes(_) => Err(format!("{other} is no integer")),
    };
    let value = shift(&mut rest, &lookup)?;
    if rest.is_empty() { Ok(Value::Integer(value)) } else { Err(format!("can't work out `{expression}`")) }
}

/// Up to the semicolon that is not in a string.
fn definition_end(text: &str) -> &str {
    let (mut in_string, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            ';' if !in_string => return &text[..at],
            '"' if !escaped => in_string = !in_string,
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    text
}

fn bytes_literal(expression: &str) -> Option<Vec<u8>> {
    let expression = expression.trim_start_matches(['*', '&']);
    let string = expression.strip_prefix('b').unwrap_or(expression).strip_prefix('"')?.strip_suffix('"')?;
    Some(unescape(string))
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let digits = |start, end| rest.get(at + start..at + end).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let (byte, len) = match rest.as_bytes().get(at + 1) {
            Some(b'0') => (0, 2),
            Some(b'n') => (b'\n', 2),
            Some(b'r') => (b'\r', 2),
            Some(b't') => (b'\t', 2),
            Some(b'x') => (digits(2, 4).unwrap_or(b'?'), 4),
            Some(b'u') => (digits(4, 6).unwrap_or(b'?'), 6), // TOML's \u00NN
            Some(other) => (*other, 2),
            None => (b'\\', 1),
        };
        bytes.push(byte);
        rest = rest.get(at + len..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

fn integer(text: &str) -> Option<u128> {
    let text = text.replace('_', "");
    let text = ["usize", "u128", "u64", "u32", "u16", "u8", "i64", "i32"]
        .iter()
        .find_map(|suffix| text.strip_suffix(suffix))
        .unwrap_or(&text);
    match text.get(..2) {
        Some("0x") => u128::from_str_radix(&text[2..], 16).ok(),
        Some("0b") => u128::from_str_radix(&text[2..], 2).ok(),
        _ => text.parse().ok(),
    }
}

fn tokens(expression: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    let mut rest = expression.trim_start();
    while let Some(first) = rest.chars().next() {
        let len = match first {
            'b' if rest.starts_with("b'") => 4,
            c if c.is_alphanumeric() || c == '_' => {
                rest.find(|c: char| !(c.is_alphanumeric() || "_:".contains(c))).unwrap_or(rest.len())
            }
            '<' if rest.starts_with("<<") => 2,
            '+' | '-' | '*' | '/' | '(' | ')' => 1,
            _ => return Err(format!("can't work out `{expression}`")),
        };
        let (token, after) = rest.split_at_checked(len).ok_or("cut short")?;
        tokens.push(token.to_owned());
        rest = after.trim_start();
    }
    Ok(tokens)
}

type Lookup<'a> = &'a dyn Fn(&str) -> Result<u128, String>;

fn shift(tokens: &mut &[String], lookup: Lookup<'_>) -> Result<u128, String> {
    let mut value = sum(tokens, lookup)?;
    while take(tokens, "<<") {
        value <<= sum(tokens, lookup)?;
    }
    Ok(value)
}

fn sum(tokens: &mut &[String], lookup: Lookup<'_>) -> Result<u128, String> {
    let mut value = product(tokens, lookup)?;
    loop {
        if take(tokens, "+") {
            value += product(tokens, lookup)?;
        } else if take(tokens, "-") {
            value = value.checked_sub(product(tokens, lookup)?).ok_or("below zero")?;
        } else {
            return Ok(value);
        }
    }
}

fn product(tokens: &mut &[String], lookup: Lookup<'_>) -> Result<u128, String> {
    let mut value = atom(tokens, lookup)?;
    loop {
        if take(tokens, "*") {
            value *= atom(tokens, lookup)?;
        } else if take(tokens, "/") {
            value = value.checked_div(atom(tokens, lookup)?).ok_or("division by zero")?;
        } else if take(tokens, "as") {
            *tokens = tokens.get(1..).ok_or("no type after `as`")?;
        } else {
            return Ok(value);
        }
    }
}

fn atom(tokens: &mut &[String], lookup: Lookup<'_>) -> Result<u128, String> {
    let Some((first, rest)) = tokens.split_first() else { return Err("an expression ends early".to_owned()) };
    *tokens = rest;
    if first == "(" {
        let value = shift(tokens, lookup)?;
        return if take(tokens, ")") { Ok(value) } else { Err("a bracket is left open".to_owned()) };
    }
    if let Some(letter) = first.strip_prefix("b'").and_then(|rest| rest.bytes().next()) {
        return Ok(letter.into());
    }
    match integer(first) {
        Some(value) => Ok(value),
        None => lookup(first.strip_prefix("Self::").unwrap_or(first)),
    }
}

fn take(tokens: &mut &[String], token: &str) -> bool {
    let found = tokens.first().is_some_and(|first| first == token);
    if found {
        *tokens = &tokens[1..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = r#"
        const MAGIC: [u8; 4] = *b"CL\x01;";
        pub const KIB: u64 = 1 << 10;
        pub(crate) const PACK_LEN_MAX: u64 = 32 * KIB * (KIB - 0x18 + 24u64);
        const TAG: u8 = b'z' - 2;
        const CIRCLE: u8 = CIRCLE + 1;
    "#;

    fn differ(specification: &str, table: &[(&str, &str, &str)]) -> Vec<String> {
        differences(specification, table, &|path| (path == "code").then(|| CODE.to_owned()))
    }

    #[test]
    fn equal_constants_are_equal_however_they_are_written() {
        let specification = "# all\n[pack]\nmagic = \"CL\\u0001;\"\nlen_max = 33_554_432 # bytes\ntag = 0x78\n";
        let table =
            [("pack.magic", "code", "MAGIC"), ("pack.len_max", "code", "PACK_LEN_MAX"), ("pack.tag", "code", "TAG")];
        assert_eq!(differ(specification, &table), [] as [String; 0]);
    }

    #[test]
    fn every_sort_of_difference_is_found() {
        assert_eq!(differ("kib = 1000", &[("kib", "code", "KIB")]).len(), 1, "another value");
        assert_eq!(differ("kib = 1024", &[]).len(), 1, "no row in the table");
        assert_eq!(differ("", &[("kib", "code", "KIB")]).len(), 1, "not specified");
        assert_eq!(differ("kib = 1024", &[("kib", "code", "KIBI")]).len(), 1, "no such constant");
        assert_eq!(differ("kib = 1024", &[("kib", "gone", "KIB")]).len(), 1, "no such file");
        assert_eq!(differ("kib = [1]", &[]).len(), 1, "no value");
        assert_eq!(differ("a = 1\na = 1", &[("a", "code", "KIB")]).len(), 2, "twice, and another value");
        assert_eq!(differ("a = 1", &[("a", "code", "CIRCLE")]).len(), 1, "a circle");
    }
}
