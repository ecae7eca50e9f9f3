//! Why an operation stopped. An [`Error`] names its subject in the message, keeps the cause apart in `source`, and
//! carries a [`ErrorKind`] that programs decide on: the kind gives the stable code and the exit code. Nothing ever
//! decides on message texts.

use std::borrow::Cow;
use std::fmt;

/// Result of nearly everything above `storage`.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of thing went wrong. The numbers of [`ErrorKind::code`] are stable and documented in `docs/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The call's words or values are off.
    Usage,
    /// The plan can't be read or contradicts itself.
    InvalidPlan,
    /// There is no repository at the location.
    NoRepository,
    /// There is a repository already.
    RepositoryExists,
    /// No key of the repository opens with what was given.
    WrongKey,
    /// The repository was written by a newer format, or needs features this program lacks.
    UnsupportedFormat,
    /// Stored bytes are missing or are not what was written.
    Damaged,
    /// A snapshot, a path in one, a component or a key that was asked for is not there.
    NotFound,
    /// A prefix or name fits several things.
    Ambiguous,
    /// The storage said no, or could not be reached.
    Storage,
    /// The machine said no: a local file, a directory, memory, a process.
    Environment,
    /// A component's dump, check or restore failed.
    Component,
    /// A gate refuses to start.
    Gate,
    /// Server and snapshot are of versions that must not meet.
    VersionGuard,
    /// The target of a restore holds something that would be lost.
    UnsafeTarget,
    /// A person or the system asked to stop.
    Interrupted,
    /// A contradiction inside compline.
    Bug,
}

impl ErrorKind {
    /// All kinds.
    pub const ALL: [Self; 17] = [
        Self::Usage,
        Self::InvalidPlan,
        Self::NoRepository,
        Self::RepositoryExists,
        Self::WrongKey,
        Self::UnsupportedFormat,
        Self::Damaged,
        Self::NotFound,
        Self::Ambiguous,
        Self::Storage,
        Self::Environment,
        Self::Component,
        Self::Gate,
        Self::VersionGuard,
        Self::UnsafeTarget,
        Self::Interrupted,
        Self::Bug,
    ];

    /// Stable code, printed with the message.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Usage => "C-0002",
            Self::InvalidPlan => "C-0013",
            Self::NoRepository => "C-0010",
            Self::RepositoryExists => "C-0011",
            Self::WrongKey => "C-0012",
            Self::UnsupportedFormat => "C-0014",
            Self::Damaged => "C-0005",
            Self::NotFound => "C-0020",
            Self::Ambiguous => "C-0021",
            Self::Storage => "C-0030",
            Self::Environment => "C-0031",
            Self::Component => "C-0040",
            Self::Gate => "C-0004",
            Self::VersionGuard => "C-0006",
            Self::UnsafeTarget => "C-0007",
            Self::Interrupted => "C-0130",
            Self::Bug => "C-0099",
        }
    }

    /// Exit code of the process, DESIGN section 9.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Usage => 2,
            Self::Gate => 4,
            Self::Damaged => 5,
            Self::VersionGuard => 6,
            Self::UnsafeTarget => 7,
            Self::NoRepository => 10,
            Self::WrongKey => 12,
            Self::InvalidPlan => 13,
            Self::Interrupted => 130,
            _ => 1,
        }
    }
}

/// Why an operation stopped: what, which object, why (`source`), what to do next (`hint`).
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// The storage has no space left.
    is_full: bool,
}

impl Error {
    /// An error of `kind`; `message` names the subject, starts with a capital and has no full stop.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), hint: None, source: None, is_full: false }))
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn cause(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Puts this error under a message that says what was being done; kind and hint stay.
    #[must_use]
    pub fn context(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        let mut outer = Self::new(self.0.kind, message);
        outer.0.hint = self.0.hint.take();
        outer.0.is_full = self.0.is_full;
        outer.0.source = Some(Box::new(self));
        outer
    }

    /// What programs decide on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What to do next, if anybody knows.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The message and its causes on one line, for records and problems.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }

    /// A local file operation failed.
    pub fn io(message: impl Into<Cow<'static, str>>, source: std::io::Error) -> Self {
        let error = Self::new(ErrorKind::Environment, message);
        let hint = match source.kind() {
            std::io::ErrorKind::StorageFull => Some("Free some space there and run the same command again"),
            std::io::ErrorKind::PermissionDenied => Some("Check the owner and mode there, or run as a user who may"),
            _ => None,
        };
        let error = error.cause(source);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    /// Stored bytes are not what was written.
    pub fn damaged(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Damaged, message).hint("Run `compline check --read-data` to see how far the damage goes")
    }

    /// The stored `subject` can't be read: it is of a newer format, or damaged.
    pub fn stored(subject: impl fmt::Display, is_newer: bool) -> Self {
        if is_newer {
            Self::new(ErrorKind::UnsupportedFormat, format!("{subject} was written by a newer compline"))
                .hint("Use that one, or a newer one")
        } else {
            Self::damaged(format!("{subject} is damaged"))
        }
    }

    /// Whether one stored object is at fault and all others may be fine.
    #[must_use]
    pub fn is_of_one_object(&self) -> bool {
        matches!(self.kind(), ErrorKind::Damaged | ErrorKind::UnsupportedFormat)
    }

    /// Whether the storage has no space left: what deletes helps.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.is_full
    }

    /// The run was asked to stop.
    #[must_use]
    pub fn interrupted() -> Self {
        Self::new(ErrorKind::Interrupted, "Interrupted")
            .hint("Nothing was published; run the same command again to go on")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}: {}", self.0.kind.code(), self.0.kind, self.chain())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source.as_ref() as &(dyn std::error::Error + 'static))
    }
}

impl From<crate::storage::StorageError> for Error {
    fn from(source: crate::storage::StorageError) -> Self {
        let hint = source.hint();
        let mut error = Self::new(ErrorKind::Storage, source.to_string());
        error.0.is_full = source.kind() == crate::storage::StorageErrorKind::Full;
        let error = match std::error::Error::source(&source) {
            Some(_) => error.cause(source.into_cause()),
            None => error,
        };
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}
