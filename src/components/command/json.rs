//! Whether a stream is JSON to its very end, without keeping any of it but the nesting.
//!
//! One value, or several one after the other (JSON lines). What a truncated list of a server lacks is a bracket, so the
//! structure is checked strictly; words and numbers by their shape.

/// Deepest nesting that is taken.
const DEPTH_MAX: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// A value; at the top also the end.
    Value,
    /// A value or `]`: just after `[`.
    ValueOrEnd,
    /// A key or `}`: just after `{`.
    KeyOrEnd,
    /// A key: after a comma in an object.
    Key,
    Colon,
    /// `,` or the bracket that closes.
    CommaOrEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lexeme {
    None,
    String,
    Escape,
    /// A number, `true`, `false` or `null`.
    Word,
}

/// Reads a stream piece by piece.
#[derive(Debug)]
pub struct JsonCheck {
    /// One per open bracket: whether it is an object.
    open: Vec<bool>,
    expect: Expect,
    lexeme: Lexeme,
    key: bool,
    word: Vec<u8>,
    at: u64,
    values: u64,
    fault: Option<String>,
}

impl Default for JsonCheck {
    fn default() -> Self {
        Self {
            open: Vec::new(),
            expect: Expect::Value,
            lexeme: Lexeme::None,
            key: false,
            word: Vec::new(),
            at: 0,
            values: 0,
            fault: None,
        }
    }
}

impl JsonCheck {
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.fault.is_some() {
                return;
            }
            if !self.step(*byte) {
                self.fault = Some(format!("it is not JSON at byte {}", self.at));
            }
            self.at += 1;
        }
    }

    /// Why the stream so far is not JSON to its end.
    pub fn fault(&self) -> Option<String> {
        if self.fault.is_some() {
            return self.fault.clone();
        }
        let word_left = self.lexeme == Lexeme::Word;
        let whole = self.open.is_empty() && matches!(self.lexeme, Lexeme::None | Lexeme::Word);
        let values = self.values + u64::from(word_left && word_is_valid(&self.word));
        if !whole {
            Some("it is JSON that breaks off before its end".to_owned())
        } else if values == 0 || (word_left && !word_is_valid(&self.word)) {
            Some("it holds no JSON value".to_owned())
        } else {
            None
        }
    }

    fn step(&mut self, byte: u8) -> bool {
        match self.lexeme {
            Lexeme::Escape => self.lexeme = Lexeme::String,
            Lexeme::String => match byte {
                b'\\' => self.lexeme = Lexeme::Escape,
                b'"' => {
                    self.lexeme = Lexeme::None;
                    if self.key {
                        self.expect = Expect::Colon;
                    } else {
                        self.value_ended();
                    }
                }
                _ => return byte >= 0x20,
            },
            Lexeme::Word if is_word_byte(byte) => {
                self.word.push(byte);
                return self.word.len() <= 1024;
            }
            Lexeme::Word => {
                let valid = word_is_valid(&self.word);
                self.lexeme = Lexeme::None;
                self.value_ended();
                return valid && self.between(byte);
            }
            Lexeme::None => return self.between(byte),
        }
        true
    }

    /// A byte outside strings and words.
    fn between(&mut self, byte: u8) -> bool {
        let value_may_begin = matches!(self.expect, Expect::Value | Expect::ValueOrEnd);
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => true,
            b'"' if value_may_begin || matches!(self.expect, Expect::Key | Expect::KeyOrEnd) => {
                (self.key, self.lexeme) = (!value_may_begin, Lexeme::String);
                true
            }
            b'{' | b'[' if value_may_begin => {
                self.open.push(byte == b'{');
                self.expect = if byte == b'{' { Expect::KeyOrEnd } else { Expect::ValueOrEnd };
                self.open.len() <= DEPTH_MAX
            }
            b'}' => matches!(self.expect, Expect::KeyOrEnd | Expect::CommaOrEnd) && self.close(true),
            b']' => matches!(self.expect, Expect::ValueOrEnd | Expect::CommaOrEnd) && self.close(false),
            b',' if self.expect == Expect::CommaOrEnd => {
                self.expect = if self.open.last() == Some(&true) { Expect::Key } else { Expect::Value };
                true
            }
            b':' if self.expect == Expect::Colon => {
                self.expect = Expect::Value;
                true
            }
            _ if value_may_begin && is_word_byte(byte) => {
                self.word.clear();
                self.word.push(byte);
                self.lexeme = Lexeme::Word;
                true
            }
            _ => false,
        }
    }

    fn close(&mut self, object: bool) -> bool {
        let matching = self.open.pop() == Some(object);
        self.value_ended();
        matching
    }

    fn value_ended(&mut self) {
        if self.open.is_empty() {
            self.values += 1;
            self.expect = Expect::Value;
        } else {
            self.expect = Expect::CommaOrEnd;
        }
    }
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

fn word_is_valid(word: &[u8]) -> bool {
    matches!(word, b"true" | b"false" | b"null") || serde_json::from_slice::<serde_json::Number>(word).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault(bytes: &[u8], step: usize) -> Option<String> {
        let mut check = JsonCheck::default();
        bytes.chunks(step.max(1)).for_each(|part| check.push(part));
        check.fault()
    }

    #[test]
    fn values_and_lines_of_values_are_json() {
        for text in
            ["{}", "[]", " [1, 2.5e3, -0]\n", "true", "7", "{\"a\":{\"b\":[null,\"\\\"]\"]}}", "{\"a\":1}\n{\"a\":2}\n"]
        {
            assert_eq!(fault(text.as_bytes(), 3), None, "{text}");
        }
    }

    #[test]
    fn anything_less_is_not() {
        for text in
            ["", " ", "{", "[1,", "[1,]", "{\"a\"}", "{\"a\":1,}", "{]", "\"open", "tru", "[1 2]", "01", "}", "[1]]"]
        {
            assert!(fault(text.as_bytes(), 3).is_some(), "{text}");
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".*".prop_map(Into::into)
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                prop::collection::hash_map(".*", inner, 0..5).prop_map(|map| map.into_iter().collect())
            ]
        })
    }

    proptest! {
        #[test]
        fn every_list_is_json_and_no_beginning_of_it_is(value in any_json(), step in 1usize..9, cut in any::<prop::sample::Index>()) {
            let text = serde_json::to_vec(&serde_json::json!([value])).unwrap();
            prop_assert_eq!(fault(&text, step), None);
            let cut = cut.index(text.len());
            prop_assert!(fault(&text[..cut], step).is_some());
        }
    }
}
