//! What the environment says. It is read here and not by the parser of the command line, because the command line wins over
//! it as a whole: `--password-file` over `COMPLINE_KEY_FILE` too. And a usage error should not tell as required what was
//! exported once.

use std::ffi::OsString;

use crate::error::{Error, ErrorKind, Result};

/// An environment variable, for what takes text only.
#[expect(clippy::disallowed_methods, reason = "the layer that reads the environment")]
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The variable that stands for a word of the command line.
#[expect(clippy::disallowed_methods, reason = "the layer that reads the environment")]
pub(super) fn value(name: &str) -> Result<Option<OsString>> {
    match std::env::var_os(name) {
        Some(value) if value.is_empty() => Err(usage(name, "is empty")),
        value => Ok(value),
    }
}

/// The same where only text will do.
pub(super) fn text(name: &str) -> Result<Option<String>> {
    value(name)?.map(|value| value.into_string().map_err(|_| usage(name, "is not UTF-8 text"))).transpose()
}

/// What the command line says or, where it says nothing, the variable.
pub(super) fn unless_said<T: Clone + From<OsString>>(said: Option<&T>, name: &str) -> Result<Option<T>> {
    match said {
        Some(said) => Ok(Some(said.clone())),
        None => Ok(value(name)?.map(T::from)),
    }
}

fn usage(name: &str, what: &str) -> Error {
    Error::new(ErrorKind::Usage, format!("{name} {what}"))
}
