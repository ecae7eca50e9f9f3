//! `s3://bucket/prefix?endpoint=URL&region=R&path_style=true`: where a repository lies in an object store.
//!
//! Bucket and prefix are taken as they are; the values of the query are percent-decoded, so that an endpoint may be
//! written either way. Secrets have no place here: they come from the chain of [`credentials`](super::credentials).

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::lock::{self, LockMode, ObjectLock};
use crate::settings::did_you_mean;
use crate::units;

/// What may stand behind the question mark.
const OPTIONS: [&str; 10] =
    ["ca", "endpoint", "lock", "lock_for", "part_size", "path_style", "patience", "profile", "region", "storage_class"];

/// How long a request that fails is tried again.
const PATIENCE: Duration = Duration::from_secs(120);
/// The smallest part that S3 takes, but for the last one of an object.
const PART_LEN_MIN: u64 = 5 << 20;
/// The largest one.
const PART_LEN_MAX: u64 = 5 << 30;
/// Objects that are longer are sent in parts of this length. Packs are shorter as a rule: one request each.
const PART_LEN: u64 = 64 << 20;

/// A bucket, a place in it, and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Address {
    /// The bucket.
    pub bucket: String,
    /// What all keys begin with, without slashes at its ends. Empty for the whole bucket.
    pub prefix: String,
    /// The server, with its scheme. None for that of AWS in the region.
    pub endpoint: Option<String>,
    /// The region. None for what the environment says, or `us-east-1`.
    pub region: Option<String>,
    /// Whether the bucket stands in the path instead of the name of the host. None: with an endpoint, and where the
    /// bucket has dots, which certificates for `*.server` don't cover.
    pub path_style: Option<bool>,
    /// A file of certificates (PEM) to trust beside those of the machine.
    pub ca: Option<PathBuf>,
    /// The storage class of new packs.
    pub storage_class: Option<String>,
    /// How what is stored is locked against deletion.
    pub lock: Option<ObjectLock>,
    /// The profile in the shared files of AWS.
    pub profile: Option<String>,
    /// Objects that are longer are sent in parts of this length.
    pub part_len: u64,
    /// How long a request that fails is tried again.
    pub patience: Duration,
}

/// What is wrong with the words behind `s3:`. Never repeats a value, which may be a secret at the wrong place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum S3AddressError {
    /// No bucket, or one that can't be.
    #[error("The location names no bucket that can be: s3://BUCKET/PREFIX is wanted")]
    Bucket,
    /// `s3://key:secret@bucket`.
    #[error("The location holds credentials, which would be seen by everybody")]
    Credentials,
    /// A key of the query that nobody knows.
    #[error("An S3 location has no option {0}")]
    UnknownOption(String),
    /// A value that can't be.
    #[error("The option `{0}` of the location {1}")]
    Option(&'static str, &'static str),
}

impl S3AddressError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Bucket => "Write it as s3://bucket/prefix?endpoint=https://server&region=R",
            Self::Credentials => {
                "Give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in ~/.aws/credentials with profile=NAME"
            }
            Self::UnknownOption(_) => {
                "It knows ca, endpoint, lock, lock_for, part_size, path_style, patience, profile, region and storage_class"
            }
            Self::Option(..) => "docs/src/storage-s3.md has all options; quote the location in a shell: it has & in it",
        }
    }
}

impl S3Address {
    /// The bucket `bucket`, and nothing said of how to reach it.
    #[must_use]
    pub fn new(bucket: &str, prefix: &str) -> Self {
        Self {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: None,
            region: None,
            path_style: None,
            ca: None,
            storage_class: None,
            lock: None,
            profile: None,
            part_len: PART_LEN,
            patience: PATIENCE,
        }
    }

    /// Reads what follows `s3://`.
    ///
    /// # Errors
    /// As [`S3AddressError`] says.
    pub fn parse(text: &str) -> Result<Self, S3AddressError> {
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.contains('@') {
            return Err(S3AddressError::Credentials);
        }
        let is_of_bucket = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let begins_well = bucket.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        if !begins_well || !bucket.bytes().all(is_of_bucket) || bucket.len() > 255 {
            return Err(S3AddressError::Bucket);
        }
        let prefix = prefix.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        let mut address = Self::new(bucket, &prefix);
        let (mut mode, mut term) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = OPTIONS.into_iter().find(|known| *known == name).ok_or_else(|| unknown(name))?;
            let value = percent_decoded(value).ok_or(S3AddressError::Option(name, "is not text"))?;
            match name {
                _ if value.is_empty() => return Err(S3AddressError::Option(name, "is empty")),
                "lock" => mode = Some(lock_mode(&value)?),
                "lock_for" => term = Some(lock_term(&value)?),
                _ => address.set(name, value)?,
            }
        }
        address.lock = lock(mode, term)?;
        Ok(address)
    }

    fn set(&mut self, name: &'static str, value: String) -> Result<(), S3AddressError> {
        match name {
            "ca" => self.ca = Some(PathBuf::from(value)),
            "endpoint" => self.endpoint = Some(endpoint(&value)?),
            "part_size" => self.part_len = part_len(&value)?,
            "path_style" => self.path_style = Some(flag(&value)?),
            "patience" => {
                let is_none = S3AddressError::Option("patience", "is no time; write 30s or 5m");
                self.patience = units::parse_duration(&value).ok_or(is_none)?;
            }
            "profile" => self.profile = Some(word("profile", value)?),
            "region" => self.region = Some(word("region", value)?),
            _ => self.storage_class = Some(word("storage_class", value)?),
        }
        Ok(())
    }

    /// Whether requests name the bucket in the path.
    #[must_use]
    pub fn is_path_style(&self) -> bool {
        self.path_style.unwrap_or(self.endpoint.is_some() || self.bucket.contains('.'))
    }

    /// The key of the bucket for `path`, which begins at the root of the storage.
    #[must_use]
    pub fn key(&self, path: &str) -> String {
        if self.prefix.is_empty() { path.to_owned() } else { format!("{}/{path}", self.prefix) }
    }

    /// The other way round. None for a key of somebody else.
    #[must_use]
    pub fn path<'k>(&self, key: &'k str) -> Option<&'k str> {
        if self.prefix.is_empty() { Some(key) } else { key.strip_prefix(&self.prefix)?.strip_prefix('/') }
    }
}

/// As it can be given again; it never has secrets.
impl fmt::Display for S3Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        write!(f, "s3://{}{slash}{}", self.bucket, self.prefix)?;
        let texts = [
            ("endpoint", self.endpoint.clone()),
            ("region", self.region.clone()),
            ("path_style", self.path_style.map(|flag| flag.to_string())),
            ("ca", self.ca.as_ref().map(|path| path.display().to_string())),
            ("storage_class", self.storage_class.clone()),
            ("lock", self.lock.map(|lock| lock.mode.name().to_owned())),
            ("lock_for", self.lock.map(|lock| units::duration_exact(lock.term))),
            ("profile", self.profile.clone()),
            ("part_size", (self.part_len != PART_LEN).then(|| units::size_exact(self.part_len))),
            ("patience", (self.patience != PATIENCE).then(|| format!("{}ms", self.patience.as_millis()))),
        ];
        let said = texts.into_iter().filter_map(|(name, value)| Some((name, value?)));
        for (number, (name, value)) in said.enumerate() {
            let before = if number == 0 { '?' } else { '&' };
            write!(f, "{before}{name}={}", value.replace('%', "%25").replace('&', "%26"))?;
        }
        Ok(())
    }
}

/// A name that is said is no secret as a rule, but a long one may be one at the wrong place.
fn unknown(name: &str) -> S3AddressError {
    let is_word = name.len() <= 20 && name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let text = if is_word { format!("`{name}`{}", did_you_mean(name, &OPTIONS)) } else { "of that name".to_owned() };
    S3AddressError::UnknownOption(text)
}

pub(in crate::storage) fn endpoint(text: &str) -> Result<String, S3AddressError> {
    let error = |why| Err(S3AddressError::Option("endpoint", why));
    let (scheme, host) = text.split_once("://").unwrap_or(("https", text));
    let host = host.trim_end_matches('/');
    if host.contains('@') {
        return error("holds credentials, which would be seen by everybody");
    }
    if !matches!(scheme, "http" | "https") {
        return error("is neither http:// nor https://");
    }
    if host.is_empty() || host.bytes().any(|byte| byte.is_ascii_whitespace() || b"?#".contains(&byte)) {
        return error("is no address");
    }
    Ok(format!("{scheme}://{host}"))
}

fn part_len(text: &str) -> Result<u64, S3AddressError> {
    let len = units::parse_size(text).filter(|len| (PART_LEN_MIN..=PART_LEN_MAX).contains(len));
    len.ok_or(S3AddressError::Option("part_size", "is no size from 5MiB to 5GiB"))
}

fn lock_mode(text: &str) -> Result<LockMode, S3AddressError> {
    LockMode::parse(text).ok_or(S3AddressError::Option("lock", "is neither governance nor compliance"))
}

fn lock_term(text: &str) -> Result<Duration, S3AddressError> {
    let term = units::parse_duration(text).filter(|term| !term.is_zero() && *term <= lock::TERM_MAX);
    term.ok_or(S3AddressError::Option("lock_for", "is no time; write 30d or 12h"))
}

fn lock(mode: Option<LockMode>, term: Option<Duration>) -> Result<Option<ObjectLock>, S3AddressError> {
    match (mode, term) {
        (Some(mode), Some(term)) => Ok(Some(ObjectLock { mode, term })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(S3AddressError::Option("lock", "needs lock_for=TIME beside it")),
        (None, Some(_)) => {
            Err(S3AddressError::Option("lock_for", "needs lock=governance or lock=compliance beside it"))
        }
    }
}

fn flag(text: &str) -> Result<bool, S3AddressError> {
    text.parse().map_err(|_| S3AddressError::Option("path_style", "is neither true nor false"))
}

/// What is put into headers and addresses.
fn word(name: &'static str, text: String) -> Result<String, S3AddressError> {
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@/ ".contains(&byte));
    if is_word { Ok(text) } else { Err(S3AddressError::Option(name, "has characters that can't be")) }
}

/// `%2F` is `/`; a lone `%` stays.
pub(in crate::storage) fn percent_decoded(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *byte == b'%');
        decoded.push(value.unwrap_or(*byte));
        at += if value.is_some() { 3 } else { 1 };
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_all_it_was_told_and_can_be_read_again() {
        let text = "backups/compline//shop/?endpoint=https%3A%2F%2Frgw.example:8443/&region=default&path_style=true\
                    &ca=/etc/ca%26b.pem&storage_class=STANDARD_IA&profile=backup&part_size=16MiB&patience=30s\
                    &lock=compliance&lock_for=30d";
        let address = S3Address::parse(text).expect("it parses");
        assert_eq!((address.bucket.as_str(), address.prefix.as_str()), ("backups", "compline/shop"));
        assert_eq!(address.endpoint.as_deref(), Some("https://rgw.example:8443"));
        assert_eq!(address.ca, Some(PathBuf::from("/etc/ca&b.pem")));
        assert_eq!(address.part_len, 16 << 20);
        let term = Duration::from_secs(30 * 86_400);
        assert_eq!(address.lock, Some(ObjectLock { mode: LockMode::Compliance, term }));
        let shown = address.to_string();
        assert_eq!(S3Address::parse(shown.strip_prefix("s3://").expect("its scheme")), Ok(address));
    }

    #[test]
    fn what_is_not_said_has_defaults() {
        let address = S3Address::parse("backups").expect("it parses");
        assert_eq!(address, S3Address::new("backups", ""));
        assert!(!address.is_path_style());
        assert!(S3Address::new("my.backups", "").is_path_style());
        assert!(S3Address::parse("b?endpoint=minio:9000").expect("it parses").is_path_style());
        assert_eq!(address.to_string(), "s3://backups");
    }

    #[test]
    fn keys_and_paths_lead_to_each_other_and_others_keys_nowhere() {
        for (prefix, key) in [("", "config"), ("a/b", "a/b/config")] {
            let address = S3Address::new("bucket", prefix);
            assert_eq!(address.key("config"), key);
            assert_eq!(address.path(key), Some("config"));
        }
        assert_eq!(S3Address::new("bucket", "a").path("ab/config"), None);
    }

    #[test]
    fn nonsense_is_refused_and_secrets_are_never_repeated() {
        for text in [
            "",
            "/prefix",
            "-x",
            "a b",
            "?region=x",
            "bucket?path_style=yes",
            "b?endpoint=ftp://x",
            "b?region",
            "b?lock=compliance",
            "b?lock_for=1d",
            "b?lock=strict&lock_for=1d",
            "b?lock=compliance&lock_for=0s",
            "b?lock=compliance&lock_for=200000d",
        ] {
            S3Address::parse(text).expect_err(text);
        }
        for text in
            ["key:s3cr3t@bucket", "b?endpoint=https://key:s3cr3t@host", "b?s3cr3ts3cr3ts3cr3ts3cr3t=x", "b?s3cr3t=1"]
        {
            let error = S3Address::parse(text).expect_err(text);
            assert!(!format!("{error}{error:?}{}", error.hint()).contains("s3cr3t"), "{error}");
        }
        let error = S3Address::parse("b?endpiont=x").expect_err("misspelt");
        assert!(error.to_string().contains("did you mean \"endpoint\""), "{error}");
    }
}
