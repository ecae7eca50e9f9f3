//! What storage answers when it can't.

use super::ObjectKey;

/// What programs decide on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageErrorKind {
    /// There is no such object.
    NotFound,
    /// There is such an object already.
    Exists,
    /// The range reaches past the end of the object.
    OutOfRange,
    /// No space or quota is left.
    Full,
    /// Not allowed.
    Denied,
    /// Anything else: the disk, the network, the server.
    Other,
}

/// A storage operation failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StorageError {
    kind: StorageErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    advice: Option<&'static str>,
}

impl StorageError {
    /// An error about `key`.
    #[must_use]
    pub fn new(kind: StorageErrorKind, key: &ObjectKey) -> Self {
        let what = match kind {
            StorageErrorKind::NotFound => "does not exist",
            StorageErrorKind::Exists => "exists already",
            StorageErrorKind::OutOfRange => "is shorter than it should be",
            StorageErrorKind::Full => "can't be written: no space left",
            StorageErrorKind::Denied => "can't be reached: permission denied",
            StorageErrorKind::Other => "can't be reached",
        };
        Self::with_message(kind, format!("Object {key} {what}"))
    }

    /// An error with words of its own.
    pub fn with_message(kind: StorageErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None, advice: None }
    }

    /// What was written or made for `key` a moment ago has no name any more.
    pub fn vanished(key: &ObjectKey) -> Self {
        let text = format!("Object {key} can't be written: its directory or the temporary file has vanished");
        Self::with_message(StorageErrorKind::Other, text)
    }

    /// Says what to do next, where that is more than the kind knows.
    #[must_use]
    pub fn advise(mut self, advice: &'static str) -> Self {
        self.advice = Some(advice);
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn cause(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What programs decide on.
    #[must_use]
    pub fn kind(&self) -> StorageErrorKind {
        self.kind
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        if self.advice.is_some() {
            return self.advice;
        }
        match self.kind {
            StorageErrorKind::Full => Some(
                "Free some space at the repository and run the same command again; nothing that was published is lost",
            ),
            StorageErrorKind::Denied => {
                Some("Check the owner and mode of the repository, or run as a user who may write there")
            }
            _ => None,
        }
    }

    /// The cause alone.
    #[must_use]
    pub fn into_cause(self) -> Box<dyn std::error::Error + Send + Sync> {
        self.source.unwrap_or_else(|| "no further cause is known".into())
    }

    /// Maps an I/O error met while handling `key`.
    #[must_use]
    pub fn from_io(key: &ObjectKey, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match source.kind() {
            Io::NotFound => StorageErrorKind::NotFound,
            Io::AlreadyExists => StorageErrorKind::Exists,
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => StorageErrorKind::Full,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => StorageErrorKind::Denied,
            _ => StorageErrorKind::Other,
        };
        Self::new(kind, key).cause(source)
    }
}
