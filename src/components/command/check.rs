//! What a plan can ask of a stream before it counts as whole.

use super::json::JsonCheck;
use crate::archive::snapshot::CommandRecord;
use crate::components::process::Tail;
use crate::error::{Error, ErrorKind, Result};
use crate::settings::{Field, Settings, Shape};

/// How much of either end is looked at.
const END_LEN: usize = 4096;

/// Keys of `check`.
pub const CHECK_FIELDS: &[Field] = &[
    Field::optional("tail_contains", Shape::Text, "Text that the last 4 KiB hold"),
    Field::optional("head_contains", Shape::Text, "Text that the first 4 KiB hold"),
    Field::optional("magic", Shape::Text, "First bytes as hexadecimal digits, such as \"1f8b\""),
    Field::optional("min_bytes", Shape::Size, "Shortest length; \"0B\" allows an empty stream"),
    Field::optional("max_bytes", Shape::Size, "Longest length"),
    Field::optional("json", Shape::Boolean, "Whether the stream must be JSON values to its end"),
];

/// What to ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Check {
    tail_contains: Option<String>,
    head_contains: Option<String>,
    magic: Option<Vec<u8>>,
    min_len: Option<u64>,
    max_len: Option<u64>,
    json: bool,
}

impl Check {
    /// From settings that were checked against [`CHECK_FIELDS`].
    ///
    /// # Errors
    /// `InvalidPlan`.
    pub fn from_settings(settings: &Settings) -> Result<Self> {
        let magic = settings.text("magic").map(|digits| {
            let wrong = || settings.error("magic", "must be an even number of hexadecimal digits");
            decode_hex(&digits).filter(|magic| !magic.is_empty() && magic.len() <= END_LEN).ok_or_else(wrong)
        });
        let (min_len, max_len) = (settings.size("min_bytes"), settings.size("max_bytes"));
        if min_len.zip(max_len).is_some_and(|(min, max)| min > max) {
            return Err(settings.error("max_bytes", "is below `min_bytes`"));
        }
        for key in ["tail_contains", "head_contains"] {
            if settings.text(key).is_some_and(|text| text.is_empty() || text.len() > END_LEN) {
                return Err(settings.error(key, "must have between 1 and 4096 bytes"));
            }
        }
        Ok(Self {
            tail_contains: settings.text("tail_contains"),
            head_contains: settings.text("head_contains"),
            magic: magic.transpose()?,
            min_len,
            max_len,
            json: settings.boolean("json").unwrap_or(false),
        })
    }
}

/// Watches a stream go by.
#[derive(Debug)]
pub struct Inspector<'a> {
    check: &'a Check,
    head: Vec<u8>,
    tail: Tail,
    json: Option<JsonCheck>,
}

impl<'a> Inspector<'a> {
    /// Will judge by `check`.
    pub fn new(check: &'a Check) -> Self {
        Self { check, head: Vec::new(), tail: Tail::new(END_LEN), json: check.json.then(JsonCheck::default) }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let missing = END_LEN - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(missing)]);
        self.tail.push(bytes);
        if let Some(json) = &mut self.json {
            json.push(bytes);
        }
    }

    /// What proved that the stream is whole, in a few words.
    ///
    /// # Errors
    /// `Component` when a check failed; the message names the check and what the programs said last.
    pub fn verdict(&self, commands: &[CommandRecord]) -> Result<String> {
        if let Some(fault) = self.fault() {
            let program = commands.first().and_then(|command| command.argv.first()).map_or("", String::as_str);
            let message = format!("{program} exited 0, but its output is not accepted: {fault}");
            let error = Error::new(ErrorKind::Component, message)
                .hint("Nothing of it was committed; run the command by hand and look at its output");
            let said = commands.iter().filter_map(|command| command.stderr.trim_end().lines().last()).next_back();
            return Err(match said {
                Some(said) => error.cause(said.to_owned()),
                None => error,
            });
        }
        let proofs = self.proofs();
        Ok(if proofs.is_empty() {
            "exit status only".to_owned()
        } else {
            format!("exit status, {}", proofs.join(", "))
        })
    }

    fn fault(&self) -> Option<String> {
        let Check { tail_contains, head_contains, magic, min_len, max_len, json: _ } = self.check;
        let len = self.tail.stream_len();
        if len == 0 && *min_len != Some(0) {
            return Some("it is empty; set check.min_bytes = \"0B\" if it may be".to_owned());
        }
        if let Some(min) = min_len.filter(|min| len < *min) {
            return Some(format!("it has {len} bytes, the plan wants at least {min}"));
        }
        if let Some(max) = max_len.filter(|max| len > *max) {
            return Some(format!("it has {len} bytes, the plan allows {max}"));
        }
        if magic.as_ref().is_some_and(|magic| !self.head.starts_with(magic)) {
            return Some("it does not begin with the magic bytes".to_owned());
        }
        if let Some(text) = head_contains.as_ref().filter(|text| !contains(&self.head, text)) {
            return Some(format!("its beginning lacks \"{text}\""));
        }
        if let Some(text) = tail_contains.as_ref().filter(|text| !self.tail.contains(text.as_bytes())) {
            return Some(format!("its end lacks \"{text}\""));
        }
        self.json.as_ref().and_then(JsonCheck::fault)
    }

    fn proofs(&self) -> Vec<String> {
        let Check { tail_contains, head_contains, magic, min_len, max_len, json } = self.check;
        let mut proofs = Vec::new();
        proofs.extend(magic.as_ref().map(|_| "magic bytes".to_owned()));
        proofs.extend(head_contains.as_ref().map(|text| format!("beginning holds \"{text}\"")));
        proofs.extend(tail_contains.as_ref().map(|text| format!("end holds \"{text}\"")));
        proofs.extend(min_len.map(|len| format!("at least {len} bytes")));
        proofs.extend(max_len.map(|len| format!("at most {len} bytes")));
        proofs.extend(json.then(|| "JSON to its end".to_owned()));
        proofs
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    crate::components::process::contains(bytes, text.as_bytes())
}

fn decode_hex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let byte = |pair: &[u8]| Some(nibble(*pair.first()?)? << 4 | nibble(*pair.get(1)?)?);
    digits.chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(check: &Check, stream: &[u8], step: usize) -> Result<String> {
        let mut inspector = Inspector::new(check);
        stream.chunks(step).for_each(|part| inspector.push(part));
        inspector.verdict(&[])
    }

    #[test]
    fn without_checks_only_the_exit_status_is_claimed() {
        assert_eq!(verdict(&Check::default(), b"x", 1).unwrap(), "exit status only");
    }

    #[test]
    fn an_empty_stream_counts_only_where_the_plan_says_so() {
        assert!(verdict(&Check::default(), b"", 1).is_err());
        let allowed = Check { min_len: Some(0), ..Check::default() };
        assert!(verdict(&allowed, b"", 1).is_ok());
    }

    #[test]
    fn each_check_accepts_what_it_asks_for_and_nothing_less() {
        let base = Check::default;
        let long = [&b"head"[..], &[b'.'; 9000], b"complete\n"].concat();
        let cases = [
            (Check { tail_contains: Some("complete".into()), ..base() }, true),
            (Check { tail_contains: Some("head".into()), ..base() }, false),
            (Check { head_contains: Some("head".into()), ..base() }, true),
            (Check { head_contains: Some("complete".into()), ..base() }, false),
            (Check { magic: decode_hex("68656164"), ..base() }, true),
            (Check { magic: decode_hex("6865ff"), ..base() }, false),
            (Check { min_len: Some(long.len() as u64), ..base() }, true),
            (Check { min_len: Some(long.len() as u64 + 1), ..base() }, false),
            (Check { max_len: Some(long.len() as u64), ..base() }, true),
            (Check { max_len: Some(long.len() as u64 - 1), ..base() }, false),
            (Check { json: true, ..base() }, false),
        ];
        for (check, accepted) in cases {
            for step in [1, 1000, 100_000] {
                assert_eq!(verdict(&check, &long, step).is_ok(), accepted, "{check:?} in parts of {step}");
            }
        }
    }

    #[test]
    fn hexadecimal_digits_come_in_pairs() {
        assert_eq!(decode_hex("1F8b"), Some(vec![0x1f, 0x8b]));
        assert_eq!(decode_hex("1f8"), None);
        assert_eq!(decode_hex("zz"), None);
    }
}
