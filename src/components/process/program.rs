//! One program with its words and surroundings.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;

use zeroize::Zeroizing;

/// Shown instead of a secret.
const HIDDEN: &str = "***";
/// Shorter secrets would blot out ordinary text.
const HIDDEN_LEN_MIN: usize = 4;

/// A program to run: words, additions to the environment, directory.
#[derive(Debug, Clone, Default)]
pub struct Program {
    words: Vec<OsString>,
    shown: Vec<String>,
    variables: Vec<(OsString, Option<OsString>)>,
    secrets: Vec<Zeroizing<String>>,
    directory: Option<PathBuf>,
    missing_hint: Option<String>,
}

impl Program {
    /// The program `name`, looked for on `PATH` unless it has a slash.
    pub fn new(name: impl Into<OsString>) -> Self {
        Self::default().arg(name.into())
    }

    /// A program and its words, as a plan has them.
    pub fn from_argv<W: Into<OsString>>(argv: impl IntoIterator<Item = W>) -> Self {
        argv.into_iter().fold(Self::default(), |program, word| program.arg(word.into()))
    }

    /// Adds a word.
    #[must_use]
    pub fn arg(mut self, word: impl Into<OsString>) -> Self {
        let word = word.into();
        self.shown.push(word.to_string_lossy().into_owned());
        self.words.push(word);
        self
    }

    /// Adds a word made of `label` and a value that records and messages don't show. For values that need not be kept
    /// from those who may look at this machine's processes; real secrets go through [`Program::secret_variable`].
    #[must_use]
    pub fn arg_unrecorded(mut self, label: &str, value: &str) -> Self {
        self.shown.push(format!("{label}{HIDDEN}"));
        self.words.push(format!("{label}{value}").into());
        self
    }

    /// Sets a variable in the program's environment.
    #[must_use]
    pub fn variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), Some(value.into())));
        self
    }

    /// Removes a variable from the program's environment.
    #[must_use]
    pub fn without_variable(mut self, name: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), None));
        self
    }

    /// Sets a variable whose value is blotted out wherever the program's messages repeat it.
    #[must_use]
    pub fn secret_variable(mut self, name: impl Into<OsString>, value: &Zeroizing<String>) -> Self {
        self.secrets.push(value.clone());
        self.variable(name, value.as_str())
    }

    /// Blots out `value` wherever the program's messages repeat it.
    #[must_use]
    pub fn hide(mut self, value: &Zeroizing<String>) -> Self {
        self.secrets.push(value.clone());
        self
    }

    /// Runs it in `directory`.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// What to do when the program is not installed.
    #[must_use]
    pub fn missing_hint(mut self, hint: impl Into<String>) -> Self {
        self.missing_hint = Some(hint.into());
        self
    }

    /// What to do when the program is not installed.
    #[must_use]
    pub fn hint_if_missing(&self) -> String {
        let fallback = || format!("Install the program, or give its full path: `{}` is not on PATH", self.name());
        self.missing_hint.clone().unwrap_or_else(fallback)
    }

    /// The program's name, without directories, for messages.
    #[must_use]
    pub fn name(&self) -> String {
        let first = self.shown.first().map_or("(no program)", String::as_str);
        first.rsplit('/').next().unwrap_or(first).to_owned()
    }

    /// Its words as records may keep them.
    #[must_use]
    pub fn shown(&self) -> &[String] {
        &self.shown
    }

    /// `text` with this program's secrets blotted out.
    #[must_use]
    pub fn blot(&self, text: &str) -> String {
        let worth = self.secrets.iter().filter(|secret| secret.len() >= HIDDEN_LEN_MIN);
        worth.fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), HIDDEN))
    }

    /// The directory it is to run in.
    pub(super) fn working_directory(&self) -> Option<&PathBuf> {
        self.directory.as_ref()
    }

    /// The same for the standard library, without streams.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(self.words.first().map_or(OsStr::new(""), OsString::as_os_str));
        command.args(self.words.iter().skip(1));
        for (name, value) in &self.variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }
}
