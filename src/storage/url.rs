//! Where a repository lies, as people write it: `/var/backups/compline`, `file:relative/path`, `ssh://host/path`,
//! `sftp://host/path`, `s3://bucket/prefix`.
//!
//! A path is taken as it is, without percent-decoding. A path that looks like an address (`s3:old`) can be written
//! `./s3:old`.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::address::SshAddress;
use super::{
    AzureAddress, AzureAddressError, AzureStorage, LocalStorage, S3Address, S3AddressError, S3Storage, ServedStorage,
    SftpStorage, Storage, StorageError,
};
use crate::error::{Error, ErrorKind};

/// A parsed LOCATION.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// A directory of this machine.
    Local(PathBuf),
    /// A directory that a compline on another machine serves.
    Ssh(SshAddress),
    /// A directory that an SFTP server gives access to.
    Sftp(SshAddress),
    /// A bucket, or a place in one.
    S3(Box<S3Address>),
    /// A container of Azure, or a place in one.
    Azure(Box<AzureAddress>),
}

/// A LOCATION that means nothing here. The message never repeats the text, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseLocationError {
    /// Nothing was given.
    #[error("The location of the repository is empty")]
    Empty,
    /// A scheme that nobody knows.
    #[error("{0}:// is no storage that compline knows")]
    UnknownScheme(String),
    /// What stands behind `azblob:`.
    #[error(transparent)]
    Azure(#[from] AzureAddressError),
    /// What stands behind `s3:`.
    #[error(transparent)]
    S3(#[from] S3AddressError),
    /// `file://` with a machine's name.
    #[error("file:// can't name another machine")]
    ForeignHost,
    /// `ssh://` or `sftp://` that is none, and why.
    #[error("An address {0}:// can't be used: {1}")]
    Address(&'static str, &'static str),
    /// `ssh://` or `sftp://` with a password.
    #[error("A password can't stand in an address {0}://")]
    Password(&'static str),
}

impl ParseLocationError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Empty => "Give a directory, or an address such as s3://bucket/prefix",
            Self::UnknownScheme(_) => "Write a directory as /path or ./path",
            Self::S3(error) => error.hint(),
            Self::Azure(error) => error.hint(),
            Self::ForeignHost => "Write file:///absolute/path or the path alone",
            Self::Address(..) => {
                "Write ssh://user@host:port/absolute/path, or ssh://host/~/path for one below the home; sftp:// likewise"
            }
            Self::Password(_) => "Log in with a key: ssh-keygen makes one, ssh-copy-id takes it there",
        }
    }
}

impl From<ParseLocationError> for Error {
    fn from(error: ParseLocationError) -> Self {
        Self::new(ErrorKind::Usage, error.to_string()).hint(error.hint())
    }
}

impl Location {
    /// Reads a LOCATION, which may be a path that is not UTF-8.
    ///
    /// # Errors
    /// When it is empty, or an address of a storage that this build lacks.
    pub fn parse(text: &OsStr) -> Result<Self, ParseLocationError> {
        let bytes = text.as_bytes();
        if bytes.is_empty() {
            return Err(ParseLocationError::Empty);
        }
        let Some((scheme, rest)) = split_scheme(bytes) else {
            return Ok(Self::Local(PathBuf::from(text)));
        };
        match scheme.as_str() {
            "file" => file_path(rest).map(Self::Local),
            "ssh" => SshAddress::parse("ssh", rest).map(Self::Ssh),
            "sftp" => SshAddress::parse("sftp", rest).map(Self::Sftp),
            "s3" => s3_address(rest),
            "azblob" => {
                let text = std::str::from_utf8(rest).unwrap_or_default();
                Ok(Self::Azure(Box::new(AzureAddress::parse(text)?)))
            }
            // restic writes rest:https://…
            _ if rest.windows(3).any(|part| part == b"://") || rest.starts_with(b"//") => {
                Err(ParseLocationError::UnknownScheme(scheme))
            }
            _ => Ok(Self::Local(PathBuf::from(text))),
        }
    }

    /// Opens the storage, which must exist.
    ///
    /// # Errors
    /// `NotFound` if there is nothing, or what reaching it says.
    pub fn open(&self) -> Result<Box<dyn Storage>, StorageError> {
        match self {
            Self::Local(path) => Ok(Box::new(LocalStorage::open(path)?)),
            Self::Ssh(address) => Ok(Box::new(ServedStorage::open(address)?)),
            Self::Sftp(address) => Ok(Box::new(SftpStorage::open(address)?)),
            Self::S3(address) => Ok(Box::new(S3Storage::open(address)?)),
            Self::Azure(address) => Ok(Box::new(AzureStorage::open(address)?)),
        }
    }

    /// Opens the storage and makes the place for it where it is missing.
    ///
    /// # Errors
    /// What making and reaching it say.
    pub fn create(&self) -> Result<Box<dyn Storage>, StorageError> {
        match self {
            Self::Local(path) => Ok(Box::new(LocalStorage::create(path)?)),
            Self::Ssh(address) => Ok(Box::new(ServedStorage::create(address)?)),
            Self::Sftp(address) => Ok(Box::new(SftpStorage::create(address)?)),
            // Buckets are made by whoever pays for them, and prefixes need no making.
            Self::S3(_) | Self::Azure(_) => self.open(),
        }
    }

    /// The directory, if it is one of this machine.
    #[must_use]
    pub fn local_path(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::Ssh(_) | Self::Sftp(_) | Self::S3(_) | Self::Azure(_) => None,
        }
    }

    /// With what the environment says about ssh: `COMPLINE_SSH`, `COMPLINE_SSH_REMOTE`.
    #[must_use]
    pub fn equipped(self, variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let equip = |address: SshAddress| {
            address.by(variable("COMPLINE_SSH").as_deref(), variable("COMPLINE_SSH_REMOTE").as_deref())
        };
        match self {
            Self::Ssh(address) => Self::Ssh(equip(address)),
            Self::Sftp(address) => Self::Sftp(equip(address)),
            other => other,
        }
    }
}

impl FromStr for Location {
    type Err = ParseLocationError;
    fn from_str(text: &str) -> Result<Self, ParseLocationError> {
        Self::parse(OsStr::new(text))
    }
}

/// Without secrets.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::Ssh(address) | Self::Sftp(address) => address.fmt(f),
            Self::S3(address) => address.fmt(f),
            Self::Azure(address) => address.fmt(f),
        }
    }
}

/// The letters before the first colon, in case they can be a scheme, and what follows. In front of `//` capitals are as good as
/// small ones.
fn split_scheme(bytes: &[u8]) -> Option<(String, &[u8])> {
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    let (scheme, rest) = (&bytes[..colon], &bytes[colon + 1..]);
    let scheme = std::str::from_utf8(scheme).ok()?;
    let scheme = if rest.starts_with(b"//") { scheme.to_ascii_lowercase() } else { scheme.to_owned() };
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte));
    is_scheme.then_some((scheme, rest))
}

/// `s3://bucket/prefix?options`
fn s3_address(rest: &[u8]) -> Result<Location, ParseLocationError> {
    let text = std::str::from_utf8(rest).ok().and_then(|text| text.strip_prefix("//"));
    let address = S3Address::parse(text.ok_or(S3AddressError::Bucket)?)?;
    Ok(Location::S3(Box::new(address)))
}

/// `file:path`, `file:///path`, `file://localhost/path`.
fn file_path(rest: &[u8]) -> Result<PathBuf, ParseLocationError> {
    let path = match rest.strip_prefix(b"//") {
        None => rest,
        Some(address) => address.strip_prefix(b"localhost").unwrap_or(address),
    };
    match path {
        [] => Err(ParseLocationError::Empty),
        [first, ..] if *first != b'/' && rest.starts_with(b"//") => Err(ParseLocationError::ForeignHost),
        path => Ok(PathBuf::from(OsStr::from_bytes(path))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(path: &str) -> Location {
        Location::Local(PathBuf::from(path))
    }

    #[test]
    fn paths_and_file_addresses_are_directories() {
        for (text, path) in [
            ("/var/backups/compline", "/var/backups/compline"),
            ("relative", "relative"),
            ("./s3:old", "./s3:old"),
            ("10:30 backups", "10:30 backups"),
            ("host:dir", "host:dir"),
            ("file:relative", "relative"),
            ("file:/a", "/a"),
            ("file:///a%20b", "/a%20b"),
            ("file://localhost/a", "/a"),
            ("FILE:///a", "/a"),
            ("S3:old", "S3:old"),
        ] {
            assert_eq!(text.parse(), Ok(local(path)), "{text}");
        }
    }

    #[test]
    fn addresses_with_passwords_are_refused_and_never_repeated() {
        for scheme in ["azblob", "s3", "sftp", "ssh"] {
            let error = format!("{scheme}://user:secret@host/path").parse::<Location>().unwrap_err();
            let error = Error::from(error);
            assert!(!format!("{error:?}").contains("secret"));
            assert_eq!(error.kind().exit_code(), 2);
        }
    }

    #[test]
    fn an_address_of_s3_is_one_and_shows_itself() {
        let text = "s3://backups/shop?endpoint=https://rgw:8443&region=default";
        let location: Location = text.parse().expect("it parses");
        assert_eq!(location.to_string(), text);
        assert_eq!(location.local_path(), None);
        let error = "s3://key:secret@bucket/".parse::<Location>().unwrap_err();
        assert!(!format!("{error:?}{error}").contains("secret"));
        "s3:bucket".parse::<Location>().unwrap_err();
    }

    #[test]
    fn an_address_of_azure_is_one_and_shows_itself() {
        let text = "azblob://backups/shop?account=acme";
        let location: Location = text.parse().expect("it parses");
        assert_eq!((location.to_string().as_str(), location.local_path()), (text, None));
    }

    #[test]
    fn unknown_schemes_foreign_hosts_and_nothing_are_errors() {
        for (text, error) in [
            ("gopher://x", ParseLocationError::UnknownScheme("gopher".to_owned())),
            ("Gopher://x", ParseLocationError::UnknownScheme("gopher".to_owned())),
            ("rest:https://x/", ParseLocationError::UnknownScheme("rest".to_owned())),
            ("file://server/share", ParseLocationError::ForeignHost),
            ("file:", ParseLocationError::Empty),
            ("", ParseLocationError::Empty),
        ] {
            assert_eq!(text.parse::<Location>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_path_that_is_not_utf8_survives() {
        let text = OsStr::from_bytes(b"/backups/\xff");
        assert_eq!(Location::parse(text), Ok(Location::Local(PathBuf::from(text))));
    }
}
