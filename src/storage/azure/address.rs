//! `azblob://container/prefix?account=NAME`: where a repository lies in Azure Blob Storage. Secrets have no place here: they
//! come from the environment.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::super::s3::{endpoint, percent_decoded};
use crate::units;

/// How long a request that fails is tried again.
const PATIENCE: Duration = Duration::from_secs(120);
/// Tiers that can be read at once.
const TIERS: [&str; 3] = ["Hot", "Cool", "Cold"];

/// A container, a place in it, and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzureAddress {
    /// The container.
    pub container: String,
    /// What all names begin with, without slashes at its ends. Empty for the whole container.
    pub prefix: String,
    /// The storage account. None for what the environment says.
    pub account: Option<String>,
    /// The server, with its scheme; none for that of Azure. A test server wants the account behind it: `http://host:port/account`.
    pub endpoint: Option<String>,
    /// A file of certificates (PEM) to trust beside those of the machine.
    pub ca: Option<PathBuf>,
    /// The access tier of new packs: `Hot`, `Cool`, `Cold`.
    pub tier: Option<String>,
    /// How long a request that fails is tried again.
    pub patience: Duration,
}

/// What is wrong with the words behind `azblob:`. Never repeats a value, which may be a secret at the wrong place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AzureAddressError(&'static str);

impl AzureAddressError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        "Write it as azblob://container/prefix?account=NAME; it knows account, ca, endpoint, patience and tier \
         (docs/src/storage-azure.md)"
    }
}

impl AzureAddress {
    /// Reads what follows `azblob:`.
    ///
    /// # Errors
    /// As the error says.
    pub fn parse(text: &str) -> Result<Self, AzureAddressError> {
        let text = text.strip_prefix("//").ok_or(AzureAddressError("The location names no container"))?;
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        let (container, prefix) = place.split_once('/').unwrap_or((place, ""));
        if container.contains('@') {
            return Err(AzureAddressError("The location holds credentials, which would be seen by everybody"));
        }
        let is_of_container = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-$".contains(&byte);
        if !(3..=63).contains(&container.len()) || !container.bytes().all(is_of_container) {
            return Err(AzureAddressError(
                "The location names no container that can be: 3 to 63 small letters, digits and hyphens",
            ));
        }
        let mut address = Self {
            container: container.to_owned(),
            prefix: prefix.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/"),
            account: None,
            endpoint: None,
            ca: None,
            tier: None,
            patience: PATIENCE,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            address.set(name, value)?;
        }
        Ok(address)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), AzureAddressError> {
        let value = percent_decoded(value).filter(|value| !value.is_empty());
        let value = value.ok_or(AzureAddressError("An option of the location is empty or no text"))?;
        let is_word = value.bytes().all(|byte| byte.is_ascii_alphanumeric());
        match name {
            "account" if is_word => self.account = Some(value),
            "tier" if TIERS.contains(&value.as_str()) => self.tier = Some(value),
            "ca" => self.ca = Some(PathBuf::from(value)),
            "endpoint" => {
                let bad =
                    AzureAddressError("The option `endpoint` of the location is no address, or holds credentials");
                self.endpoint = Some(endpoint(&value).map_err(|_| bad)?);
            }
            "patience" => {
                let bad = AzureAddressError("The option `patience` of the location is no time; write 30s or 5m");
                self.patience = units::parse_duration(&value).ok_or(bad)?;
            }
            "tier" => {
                return Err(AzureAddressError(
                    "The option `tier` of the location is Hot, Cool or Cold; what lies in the archive can't be read",
                ));
            }
            "account" => {
                return Err(AzureAddressError("An option of the location has characters that can't be"));
            }
            _ => return Err(AzureAddressError("The location has an option that nobody knows")),
        }
        Ok(())
    }

    /// The name of the blob for `path`, which begins at the root of the storage.
    #[must_use]
    pub fn blob(&self, path: &str) -> String {
        if self.prefix.is_empty() { path.to_owned() } else { format!("{}/{path}", self.prefix) }
    }

    /// The other way round. None for a blob of somebody else.
    #[must_use]
    pub fn path<'k>(&self, name: &'k str) -> Option<&'k str> {
        if self.prefix.is_empty() { Some(name) } else { name.strip_prefix(&self.prefix)?.strip_prefix('/') }
    }
}

/// As it can be given again; it never has secrets.
impl fmt::Display for AzureAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        write!(f, "azblob://{}{slash}{}", self.container, self.prefix)?;
        let texts = [
            ("account", self.account.clone()),
            ("endpoint", self.endpoint.clone()),
            ("ca", self.ca.as_ref().map(|path| path.display().to_string())),
            ("tier", self.tier.clone()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_all_it_was_told_and_can_be_read_again() {
        let text = "//backups/shop/nightly?account=acme&endpoint=http://127.0.0.1:10000/acme&ca=/etc/c%26a.pem&tier=Cool&patience=5s";
        let address = AzureAddress::parse(text).expect("it parses");
        assert_eq!((address.container.as_str(), address.prefix.as_str()), ("backups", "shop/nightly"));
        assert_eq!(address.endpoint.as_deref(), Some("http://127.0.0.1:10000/acme"));
        assert_eq!(address.blob("config"), "shop/nightly/config");
        assert_eq!(address.path("shop/nightly/config"), Some("config"));
        assert_eq!(address.path("shop/nightlyconfig"), None);
        let shown = address.to_string();
        assert_eq!(AzureAddress::parse(shown.strip_prefix("azblob:").expect("its scheme")), Ok(address));
    }

    #[test]
    fn nonsense_is_refused_and_secrets_are_never_repeated() {
        for text in ["", "//", "//ab", "//Backups", "//backups?x=1", "//backups?account=", "//backups?account=a-b"] {
            AzureAddress::parse(text).expect_err(text);
        }
        let error = AzureAddress::parse("//backups?tier=Archive").expect_err("what can't be read again");
        assert!(error.to_string().contains("Hot, Cool or Cold"), "{error}");
        let error = AzureAddress::parse("//acme:s3cr3t@backups/x").expect_err("a secret");
        assert!(!format!("{error}{error:?}").contains("s3cr3t"));
    }
}
