//! Strict reading of TOML tables, with positions: every message names the file, the line and the key.
//!
//! A table is checked once against a list of [`Field`]s ([`Settings::check`]), which also documents the table and is
//! the source of the JSON Schema. After the check the accessors can't go wrong; they give `None` for what is absent.
//! A key that no field names is an error: a misspelt `exclude` must not be found out at the restore.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, ErrorKind, Result};
use crate::units::{self, Span};

mod secret;
mod shape;

pub use secret::SecretSource;
pub use shape::{Field, Shape};

/// Deepest nesting of tables and lists that is read.
const DEPTH_MAX: usize = 32;

/// One TOML table, with the byte position of every key and value, and the plan's text for messages.
#[derive(Debug, Clone)]
pub struct Settings {
    document: Arc<Document>,
    /// What messages call the table: `component "etc"`, `[retention]`; empty for the top level.
    label: String,
    /// Where the table begins.
    at: usize,
    items: Vec<Item>,
}

#[derive(Debug)]
struct Document {
    path: PathBuf,
    /// Byte positions at which lines begin.
    line_starts: Vec<usize>,
    text: String,
}

#[derive(Debug, Clone)]
struct Item {
    name: String,
    at: usize,
    value: Located,
}

#[derive(Debug, Clone)]
struct Located {
    at: usize,
    node: Node,
}

#[derive(Debug, Clone)]
enum Node {
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Located>),
    Table(Vec<Item>),
    /// A float or a date: no key takes one. Also an integer that doesn't fit.
    Other(&'static str),
}

impl Settings {
    /// Parses `text`; `path` is what messages call it, and its directory is what relative paths start from.
    ///
    /// # Errors
    /// `InvalidPlan` with line and column when it isn't TOML.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let document = Arc::new(Document::new(path, text));
        let table = DeTable::parse(text).map_err(|error| document.syntax_error(&error))?;
        let items = items_of(table.get_ref(), 0).map_err(|at| document.error(at, "nested too deep"))?;
        Ok(Self { document, label: String::new(), at: 0, items })
    }

    /// The same table under the name that messages shall give it.
    #[must_use]
    pub fn labelled(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Takes over those of `names` that are set in `defaults` and not here.
    #[must_use]
    pub fn inherit(mut self, defaults: &Self, names: &[&str]) -> Self {
        for name in names {
            if let (None, Some(item)) = (self.item(name), defaults.item(name)) {
                self.items.push(item.clone());
            }
        }
        self
    }

    /// Checks the table against `fields`: no unknown keys, every required one there, every value of its shape; tables
    /// below likewise.
    ///
    /// # Errors
    /// `InvalidPlan` that names file, line and key, with a suggestion for a misspelt key.
    pub fn check(&self, fields: &[Field]) -> Result<()> {
        self.check_all(&[fields])
    }

    /// As [`Settings::check`], against several lists at once. Where two lists name the same key, the first counts.
    ///
    /// # Errors
    /// As [`Settings::check`].
    pub fn check_all(&self, lists: &[&[Field]]) -> Result<()> {
        let find = |name: &str| lists.iter().copied().flatten().find(|field| field.name == name);
        let mut items: Vec<&Item> = self.items.iter().collect();
        items.sort_by_key(|item| item.at);
        for item in items {
            match find(&item.name) {
                Some(field) => self.check_value(&item.name, &item.value, &field.shape)?,
                None => return Err(self.unknown_key(item, lists)),
            }
        }
        let missing = lists.iter().copied().flatten().find(|field| field.required && self.item(field.name).is_none());
        match missing {
            Some(field) => Err(self.missing(field)),
            None => Ok(()),
        }
    }

    fn check_value(&self, name: &str, value: &Located, shape: &Shape) -> Result<()> {
        if let Some(complaint) = shape::complaint(&value.node, shape) {
            let error = self.document.error(value.at, format!("\"{name}\"{} {}", self.place(), complaint.message));
            return Err(error.hint(complaint.hint));
        }
        match (&value.node, shape) {
            (Node::Table(items), Shape::Table(fields)) => self.below(name, value.at, items.clone()).check(fields),
            (Node::List(list), Shape::TableList(fields)) => {
                list.iter().filter_map(|entry| self.below_list(name, entry)).try_for_each(|table| table.check(fields))
            }
            _ => Ok(()),
        }
    }

    fn unknown_key(&self, item: &Item, lists: &[&[Field]]) -> Error {
        let known: Vec<&str> = lists.iter().copied().flatten().map(|field| field.name).collect();
        let message = format!("unknown key \"{}\"{}{}", item.name, self.place(), did_you_mean(&item.name, &known));
        self.document.error(item.at, message).hint(format!("Known keys here: {}", listing(&known)))
    }

    fn missing(&self, field: &Field) -> Error {
        let message = format!("\"{}\" is missing{}", field.name, self.place());
        self.document.error(self.at, message).hint(format!("It is required: {}", field.doc))
    }

    /// ` in component "etc"`, or nothing at the top level.
    fn place(&self) -> String {
        if self.label.is_empty() { String::new() } else { format!(" in {}", self.label) }
    }

    /// The text at `key`.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<String> {
        match self.node(key)? {
            Node::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// The integer at `key`.
    #[must_use]
    pub fn integer(&self, key: &str) -> Option<i64> {
        match self.node(key)? {
            Node::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The boolean at `key`.
    #[must_use]
    pub fn boolean(&self, key: &str) -> Option<bool> {
        match self.node(key)? {
            Node::Boolean(value) => Some(*value),
            _ => None,
        }
    }

    /// The duration at `key`.
    #[must_use]
    pub fn duration(&self, key: &str) -> Option<Duration> {
        units::parse_duration(&self.text(key)?)
    }

    /// The span of the calendar at `key`.
    #[must_use]
    pub fn span(&self, key: &str) -> Option<Span> {
        units::parse_span(&self.text(key)?)
    }

    /// The size at `key`, in bytes.
    #[must_use]
    pub fn size(&self, key: &str) -> Option<u64> {
        units::parse_size(&self.text(key)?)
    }

    /// The path at `key`; a relative one starts from the plan's directory.
    #[must_use]
    pub fn path(&self, key: &str) -> Option<PathBuf> {
        self.text(key).map(|path| self.resolve(path))
    }

    /// The paths at `key`, as [`Settings::path`].
    #[must_use]
    pub fn paths(&self, key: &str) -> Vec<PathBuf> {
        self.text_list(key).into_iter().map(|path| self.resolve(path)).collect()
    }

    /// `path`, seen from the plan's directory.
    #[must_use]
    pub fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        self.directory().join(path)
    }

    /// The directory of the plan: where relative paths start.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.document.path.parent().unwrap_or(Path::new(""))
    }

    /// Where commands of the plan run: its directory. None when that is the directory we are in anyway, or the plan is not
    /// read from a file of this machine.
    #[must_use]
    pub fn working_directory(&self) -> Option<PathBuf> {
        let directory = self.directory();
        directory.is_dir().then(|| directory.to_owned())
    }

    /// The command at `key`: program and arguments.
    #[must_use]
    pub fn argv(&self, key: &str) -> Option<Vec<String>> {
        texts(self.node(key)?)
    }

    /// The commands at `key`; none if it is absent.
    #[must_use]
    pub fn argv_list(&self, key: &str) -> Vec<Vec<String>> {
        match self.node(key) {
            Some(Node::List(list)) => list.iter().filter_map(|entry| texts(&entry.node)).collect(),
            _ => Vec::new(),
        }
    }

    /// The texts at `key`; a lone text is a list of one.
    #[must_use]
    pub fn text_list(&self, key: &str) -> Vec<String> {
        match self.node(key) {
            Some(Node::Text(text)) => vec![text.clone()],
            Some(node) => texts(node).unwrap_or_default(),
            None => Vec::new(),
        }
    }

    /// Where the secret at `key` comes from. Relative files start from the plan's directory.
    #[must_use]
    pub fn secret(&self, key: &str) -> Option<SecretSource> {
        let table = self.table(key)?;
        table
            .path("file")
            .map(SecretSource::File)
            .or_else(|| table.text("env").map(SecretSource::Env))
            .or_else(|| table.argv("command").map(SecretSource::Command))
            .or_else(|| table.text("systemd").map(SecretSource::Systemd))
    }

    /// The table at `key`.
    #[must_use]
    pub fn table(&self, key: &str) -> Option<Self> {
        let item = self.item(key)?;
        match &item.value.node {
            Node::Table(items) => Some(self.below(key, item.at, items.clone())),
            _ => None,
        }
    }

    /// The tables of the list at `key`; none if it is absent.
    #[must_use]
    pub fn tables(&self, key: &str) -> Vec<Self> {
        match self.node(key) {
            Some(Node::List(list)) => list.iter().filter_map(|entry| self.below_list(key, entry)).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether `key` is set.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.item(key).is_some()
    }

    /// The keys that are set, as the plan has them.
    #[must_use]
    pub fn keys(&self) -> Vec<&str> {
        let mut items: Vec<&Item> = self.items.iter().collect();
        items.sort_by_key(|item| item.at);
        items.into_iter().map(|item| item.name.as_str()).collect()
    }

    /// The table as JSON, for `plan show`. It can hold no secret, since plans hold none.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Map<String, serde_json::Value> {
        json_of(&self.items)
    }

    /// `InvalidPlan` at the line of `key`, or of the table where the key is absent.
    pub fn error(&self, key: &str, message: impl AsRef<str>) -> Error {
        let at = self.item(key).map_or(self.at, |item| item.at);
        self.document.error(at, format!("\"{key}\"{} {}", self.place(), message.as_ref()))
    }

    /// `InvalidPlan` at the line where the table begins; `message` is the whole sentence.
    pub fn error_here(&self, message: impl AsRef<str>) -> Error {
        self.document.error(self.at, message)
    }

    fn item(&self, key: &str) -> Option<&Item> {
        self.items.iter().find(|item| item.name == key)
    }

    fn node(&self, key: &str) -> Option<&Node> {
        self.item(key).map(|item| &item.value.node)
    }

    fn below(&self, key: &str, at: usize, items: Vec<Item>) -> Self {
        let label = match self.label.strip_prefix('[').and_then(|label| label.strip_suffix(']')) {
            _ if self.label.is_empty() => format!("[{key}]"),
            Some(outer) => format!("[{outer}.{key}]"),
            None => format!("[{key}] of {}", self.label),
        };
        Self { document: Arc::clone(&self.document), label, at, items }
    }

    fn below_list(&self, key: &str, entry: &Located) -> Option<Self> {
        match &entry.node {
            Node::Table(items) => Some(self.below(key, entry.at, items.clone())),
            _ => None,
        }
    }
}

impl Document {
    fn new(path: &Path, text: &str) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { path: path.to_owned(), line_starts, text: text.to_owned() }
    }

    /// Line and column of a byte position, counted from 1.
    fn position(&self, at: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|start| *start <= at);
        let start = self.line_starts.get(line.wrapping_sub(1)).copied().unwrap_or(0);
        let column = self.text.get(start..at).map_or(0, |before| before.chars().count());
        (line, column + 1)
    }

    fn error(&self, at: usize, message: impl AsRef<str>) -> Error {
        let (line, _) = self.position(at);
        let message = format!("Plan {}, line {line}: {}", self.path.display(), message.as_ref());
        Error::new(ErrorKind::InvalidPlan, message)
    }

    fn syntax_error(&self, error: &toml::de::Error) -> Error {
        let at = error.span().map_or(0, |Range { start, .. }| start);
        let (line, column) = self.position(at);
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        let message = format!("Plan {}, line {line}, column {column}: {message}", self.path.display());
        Error::new(ErrorKind::InvalidPlan, message)
            .hint("A plan is TOML: https://toml.io; `compline plan schema` lists every key")
    }
}

/// The items of a table; the position of what is nested too deep on failure.
fn items_of(table: &DeTable<'_>, depth: usize) -> Result<Vec<Item>, usize> {
    table
        .iter()
        .map(|(key, value)| {
            let value = located(value, depth)?;
            Ok(Item { name: key.get_ref().to_string(), at: key.span().start, value })
        })
        .collect()
}

fn located(value: &Spanned<DeValue<'_>>, depth: usize) -> Result<Located, usize> {
    let at = value.span().start;
    if depth > DEPTH_MAX {
        return Err(at);
    }
    let node = match value.get_ref() {
        DeValue::String(text) => Node::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Node::Other("an integer out of range"), Node::Integer),
        DeValue::Boolean(value) => Node::Boolean(*value),
        DeValue::Float(_) => Node::Other("a floating point number"),
        DeValue::Datetime(_) => Node::Other("a date"),
        DeValue::Array(list) => {
            Node::List(list.iter().map(|entry| located(entry, depth + 1)).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => Node::Table(items_of(table, depth + 1)?),
    };
    Ok(Located { at, node })
}

fn texts(node: &Node) -> Option<Vec<String>> {
    let Node::List(list) = node else { return None };
    list.iter()
        .map(|entry| match &entry.node {
            Node::Text(text) => Some(text.clone()),
            _ => None,
        })
        .collect()
}

fn json_of(items: &[Item]) -> serde_json::Map<String, serde_json::Value> {
    items.iter().map(|item| (item.name.clone(), json_of_node(&item.value.node))).collect()
}

fn json_of_node(node: &Node) -> serde_json::Value {
    match node {
        Node::Text(text) => text.clone().into(),
        Node::Integer(number) => (*number).into(),
        Node::Boolean(value) => (*value).into(),
        Node::List(list) => list.iter().map(|entry| json_of_node(&entry.node)).collect(),
        Node::Table(items) => json_of(items).into(),
        Node::Other(_) => serde_json::Value::Null,
    }
}

/// The one of `known` that `word` was probably meant to be.
#[must_use]
pub fn suggestion<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance_max = (word.chars().count() / 3).max(1) + 1;
    known
        .iter()
        .map(|name| (strsim::osa_distance(&word.to_lowercase(), name), *name))
        .filter(|(distance, name)| *distance <= distance_max && *distance < name.len())
        .min()
        .map(|(_, name)| name)
}

/// `; did you mean "paths"?`, or nothing.
#[must_use]
pub fn did_you_mean(word: &str, known: &[&str]) -> String {
    suggestion(word, known).map_or_else(String::new, |name| format!("; did you mean \"{name}\"?"))
}

/// `a, b, c`, sorted and without repetitions.
#[must_use]
pub fn listing(names: &[&str]) -> String {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

#[cfg(test)]
mod tests;
