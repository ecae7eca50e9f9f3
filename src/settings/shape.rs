//! What the value of a key must look like.

use super::{Node, did_you_mean, listing};
use crate::units;

/// One key of a table: how it is called, what it takes, what it is for.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// The key.
    pub name: &'static str,
    /// What it takes.
    pub shape: Shape,
    /// Whether the table is invalid without it.
    pub required: bool,
    /// What it is for: a sentence without a full stop, shown in messages and in the JSON Schema.
    pub doc: &'static str,
}

impl Field {
    /// A key that may be left out.
    #[must_use]
    pub const fn optional(name: &'static str, shape: Shape, doc: &'static str) -> Self {
        Self { name, shape, required: false, doc }
    }

    /// A key that must be there.
    #[must_use]
    pub const fn required(name: &'static str, shape: Shape, doc: &'static str) -> Self {
        Self { name, shape, required: true, doc }
    }
}

/// What a key takes.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// A text.
    Text,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A text such as `5m`.
    Duration,
    /// A text such as `6mo`: a span of the calendar.
    Span,
    /// A text such as `64KiB`.
    Size,
    /// A command: a list of texts, the first of which is the program.
    Argv,
    /// A list of commands.
    ArgvList,
    /// A list of texts.
    TextList,
    /// A text, or a list of texts.
    TextOrList,
    /// A reference to a secret: `{ file = … }`, `{ env = … }`, `{ command = […] }` or `{ systemd = … }`.
    Secret,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A table with these keys.
    Table(&'static [Field]),
    /// A list of tables with these keys.
    TableList(&'static [Field]),
    /// A list of tables; the reader checks each himself.
    AnyTables,
    /// Whatever there is; the reader checks it himself.
    Any,
}

/// Why a value is not of its shape; follows the key in the message.
pub(super) struct Complaint {
    pub message: String,
    pub hint: String,
}

const SECRET_HINT: &str = "Write { file = \"/path\" }, { env = \"NAME\" }, { command = [\"program\", \"argument\"] } or { systemd = \"credential\" }";
const ARGV_HINT: &str =
    "Write a list, program first: [\"pg_dump\", \"app\"]; a shell must be named: [\"sh\", \"-c\", \"one | two\"]";

pub(super) fn complaint(node: &Node, shape: &Shape) -> Option<Complaint> {
    let fault = |message: String, hint: &str| Some(Complaint { message, hint: hint.to_owned() });
    let wanted = |what: &str, hint: &str| fault(format!("must be {what}, not {}", describe(node)), hint);
    match (shape, node) {
        (Shape::Duration, Node::Text(text)) if units::parse_duration(text).is_none() => {
            fault(format!("has \"{text}\", which is not a duration"), &format!("Write {}", units::DURATION_SYNTAX))
        }
        (Shape::Span, Node::Text(text)) if units::parse_span(text).is_none() => {
            fault(format!("has \"{text}\", which is not a span of time"), &format!("Write {}", units::SPAN_SYNTAX))
        }
        (Shape::Size, Node::Text(text)) if units::parse_size(text).is_none() => {
            fault(format!("has \"{text}\", which is not a size"), &format!("Write {}", units::SIZE_SYNTAX))
        }
        (Shape::OneOf(words), Node::Text(text)) if !words.contains(&text.as_str()) => {
            fault(unknown_word(text, words), &format!("Write one of {}", listing(words)))
        }
        (
            Shape::Text | Shape::Duration | Shape::Span | Shape::Size | Shape::OneOf(_) | Shape::TextOrList,
            Node::Text(_),
        )
        | (Shape::Integer, Node::Integer(_))
        | (Shape::Boolean, Node::Boolean(_))
        | (Shape::Table(_), Node::Table(_))
        | (Shape::Any, _) => None,
        (Shape::TextList | Shape::TextOrList, Node::List(_)) if all_texts(node) => None,
        (Shape::Argv, Node::List(_)) if is_argv(node) => None,
        (Shape::ArgvList, Node::List(list)) if list.iter().all(|entry| is_argv(&entry.node)) => None,
        (Shape::TableList(_) | Shape::AnyTables, Node::List(list))
            if list.iter().all(|entry| matches!(entry.node, Node::Table(_))) =>
        {
            None
        }
        (Shape::Secret, Node::Table(_)) => secret_complaint(node),
        (Shape::Secret, _) => {
            fault("must not be written into the plan, only where it comes from".to_owned(), SECRET_HINT)
        }
        (Shape::Text, _) => wanted("a text", "Write it in quotes"),
        (Shape::Integer, _) => wanted("a whole number", "Write digits without quotes"),
        (Shape::Boolean, _) => wanted("true or false", "Write it without quotes"),
        (Shape::Duration, _) => wanted("a duration", "Write a text: \"30s\", \"5m\", \"2h\", \"1d\""),
        (Shape::Span, _) => wanted("a span of time", "Write a text: \"12h\", \"2d\", \"6mo\""),
        (Shape::Size, _) => wanted("a size", "Write a text: \"64KiB\", \"1.5MiB\""),
        (Shape::Argv, _) => wanted("a command", ARGV_HINT),
        (Shape::ArgvList, _) => wanted("a list of commands", "Write a list of lists: [[\"program\", \"argument\"]]"),
        (Shape::TextList, _) => wanted("a list of texts", "Write [\"one\", \"two\"]"),
        (Shape::TextOrList, _) => wanted("a text or a list of texts", "Write \"one\" or [\"one\", \"two\"]"),
        (Shape::OneOf(words), _) => wanted("a word", &format!("Write one of {}", listing(words))),
        (Shape::Table(_), _) => wanted("a table", "Write { key = value }, or a section of its own"),
        (Shape::TableList(_) | Shape::AnyTables, _) => {
            wanted("a list of tables", "Write a section with two brackets for each: [[name]]")
        }
    }
}

fn unknown_word(text: &str, words: &[&str]) -> String {
    format!("has \"{text}\", which is not one of its words{}", did_you_mean(text, words))
}

fn secret_complaint(node: &Node) -> Option<Complaint> {
    let Node::Table(items) = node else { return None };
    let good = match items.as_slice() {
        [item] => match (item.name.as_str(), &item.value.node) {
            ("file" | "env" | "systemd", Node::Text(text)) => !text.is_empty(),
            ("command", value) => is_argv(value),
            _ => false,
        },
        _ => false,
    };
    let message = "must say in one way where the secret comes from".to_owned();
    if good { None } else { Some(Complaint { message, hint: SECRET_HINT.to_owned() }) }
}

fn all_texts(node: &Node) -> bool {
    matches!(node, Node::List(list) if list.iter().all(|entry| matches!(entry.node, Node::Text(_))))
}

fn is_argv(node: &Node) -> bool {
    let Node::List(list) = node else { return false };
    let program = list.first().map(|entry| &entry.node);
    all_texts(node) && matches!(program, Some(Node::Text(program)) if !program.is_empty())
}

fn describe(node: &Node) -> &'static str {
    match node {
        Node::Text(_) => "a text",
        Node::Integer(_) => "a number",
        Node::Boolean(_) => "true or false",
        Node::List(list) if list.is_empty() => "an empty list",
        Node::List(_) => "such a list",
        Node::Table(_) => "a table",
        Node::Other(what) => what,
    }
}
