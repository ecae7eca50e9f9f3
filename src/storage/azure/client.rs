//! Requests in the words of Azure: signed with the key of the account (`SharedKey`), or with a shared access signature.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use zeroize::Zeroizing;

use super::super::web::{Answer, Failure, Prepared, Put, RequestKind, Requests, Silence, Subject, Web, tls};
use super::super::{StorageError, StorageErrorKind};
use super::address::AzureAddress;
use crate::clock::{Clock, SystemClock};

/// The version of the protocol that is spoken.
const VERSION: HeaderValue = HeaderValue::from_static("2021-08-06");
/// What a signature covers of the usual headers, in this order.
const SIGNED: [&str; 11] = [
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

/// Who asks.
enum Credentials {
    /// The key of the account.
    Key(Zeroizing<Vec<u8>>),
    /// A shared access signature, as it stands in an address.
    Signature(Zeroizing<String>),
}

/// Sends requests to one container.
pub(super) struct Client {
    web: Web,
    account: String,
    credentials: Credentials,
    container: Url,
    name: String,
}

/// What is asked.
pub(super) struct Question<'q> {
    method: Method,
    kind: RequestKind,
    /// The name of the blob; empty for the container.
    blob: String,
    pub(super) query: Vec<(&'static str, String)>,
    headers: HeaderMap,
    pub(super) body: &'q [u8],
}

impl Question<'_> {
    pub(super) fn new(method: Method, kind: RequestKind, blob: String) -> Self {
        Self { method, kind, blob, query: Vec::new(), headers: HeaderMap::new(), body: &[] }
    }

    pub(super) fn header(&mut self, name: &'static str, value: HeaderValue) {
        self.headers.insert(name, value);
    }
}

#[expect(clippy::disallowed_methods, reason = "these are the names that every tool for Azure reads credentials from")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Client {
    /// Gets ready to ask; asks nothing.
    ///
    /// # Errors
    /// `Denied` when there are no credentials; also when certificates can't be read, or threads can't be had.
    pub(super) fn new(address: &AzureAddress) -> Result<Self, StorageError> {
        let missing = |what: &str| {
            StorageError::with_message(StorageErrorKind::Denied, format!("There is no {what} for {address}")).advise(
                "Set AZURE_STORAGE_ACCOUNT (or account=NAME in the location) and AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN",
            )
        };
        let account = address.account.clone().or_else(|| variable("AZURE_STORAGE_ACCOUNT"));
        let account = account.ok_or_else(|| missing("storage account"))?;
        if let Some(key) = variable("AZURE_STORAGE_KEY") {
            return Self::with_key(address, &account, &key);
        }
        let signature = variable("AZURE_STORAGE_SAS_TOKEN").ok_or_else(|| missing("key"))?;
        let signature = signature.trim_start_matches('?').to_owned();
        Self::with_credentials(address, &account, Credentials::Signature(Zeroizing::new(signature)))
    }

    /// The same with the key of the account.
    ///
    /// # Errors
    /// `Denied` when the key is none.
    pub(super) fn with_key(address: &AzureAddress, account: &str, key: &str) -> Result<Self, StorageError> {
        let key = STANDARD.decode(key.trim()).map_err(|cause| {
            StorageError::with_message(
                StorageErrorKind::Denied,
                format!("The key of the account {account} is no base64"),
            )
            .cause(cause)
            .advise("Give AZURE_STORAGE_KEY as the portal shows it")
        })?;
        Self::with_credentials(address, account, Credentials::Key(Zeroizing::new(key)))
    }

    fn with_credentials(address: &AzureAddress, account: &str, credentials: Credentials) -> Result<Self, StorageError> {
        let endpoint = address.endpoint.clone().unwrap_or_else(|| format!("https://{account}.blob.core.windows.net"));
        let is_plain = endpoint.starts_with("http://");
        let tls = tls::configuration(is_plain, address.ca.as_deref())?;
        let container = Url::parse(&format!("{endpoint}/{}", address.container)).map_err(|cause| {
            StorageError::with_message(StorageErrorKind::Other, format!("{address} is no address")).cause(cause)
        })?;
        let web = Web::new(tls, address.patience, &address.to_string(), container.host_str().unwrap_or_default())?;
        let name = address.container.clone();
        Ok(Self { web, account: account.to_owned(), credentials, container, name })
    }

    /// What was sent so far.
    pub(super) fn requests(&self) -> &Requests {
        self.web.requests()
    }

    /// [`Web::put_on_condition`].
    pub(super) fn put_on_condition(
        &self,
        put: &dyn Fn() -> Result<(), Failure>,
        holds: &dyn Fn() -> Result<Option<bool>, StorageError>,
    ) -> Result<Put, StorageError> {
        self.web.put_on_condition(put, holds)
    }

    /// As an error about `subject`.
    pub(super) fn error(&self, subject: Subject, failure: Failure) -> StorageError {
        failure.into_error(subject, &self.name, self.container.as_str())
    }

    /// Asks, again if need be, and waits for the answer.
    pub(super) fn send(&self, question: &Question<'_>) -> Result<Answer, Failure> {
        self.web.send(&|| self.prepare(question).map_err(Silence::Impossible))
    }

    fn prepare(&self, question: &Question<'_>) -> Result<Prepared, Box<dyn std::error::Error + Send + Sync>> {
        let mut url = self.container.clone();
        if !question.blob.is_empty() {
            let mut path = url.path_segments_mut().map_err(|()| "an address without a path")?;
            path.extend(question.blob.split('/'));
        }
        if !question.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&question.query);
        }
        let now = SystemClock.now();
        let mut headers = question.headers.clone();
        headers.insert("x-ms-version", VERSION);
        headers.insert("x-ms-date", HeaderValue::from_str(&now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())?);
        if question.method == Method::PUT {
            headers.insert("content-length", question.body.len().into());
        }
        match &self.credentials {
            Credentials::Key(key) => {
                let text = text_to_sign(&question.method, &headers, &self.account, url.path(), &question.query);
                let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
                let value = format!("SharedKey {}:{}", self.account, STANDARD.encode(signature));
                let mut value = HeaderValue::from_str(&value)?;
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
            Credentials::Signature(signature) => {
                let query = match url.query() {
                    Some(query) => format!("{query}&{}", signature.as_str()),
                    None => signature.as_str().to_owned(),
                };
                url.set_query(Some(&query));
            }
        }
        let signed_at = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let body = question.body.to_vec();
        let is_conditional = headers.contains_key("if-none-match");
        let (kind, method) = (question.kind, question.method.clone());
        Ok(Prepared { kind, method, url, headers, body, is_conditional, signed_at })
    }
}

/// What the signature of a request is made of.
fn text_to_sign(
    method: &Method,
    headers: &HeaderMap,
    account: &str,
    path: &str,
    query: &[(&'static str, String)],
) -> String {
    let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut text = format!("{method}\n");
    for name in SIGNED {
        let value = value(name);
        // No length is an empty one since 2015.
        text.push_str(if name == "content-length" && value == "0" { "" } else { value });
        text.push('\n');
    }
    let mut names: Vec<&str> =
        headers.keys().map(reqwest::header::HeaderName::as_str).filter(|name| name.starts_with("x-ms-")).collect();
    names.sort_unstable();
    for name in names {
        text.push_str(&format!("{name}:{}\n", value(name).trim()));
    }
    text.push_str(&format!("/{account}{path}"));
    let mut query: Vec<_> = query.iter().collect();
    query.sort();
    for (name, value) in query {
        text.push_str(&format!("\n{name}:{value}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_to_sign_is_that_of_the_documentation() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-ms-version", "2015-02-21"),
            ("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT"),
            ("content-length", "0"),
            ("authorization", "no part of it"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let query = [("restype", "container".to_owned()), ("comp", "metadata".to_owned())];
        let text = text_to_sign(&Method::GET, &headers, "myaccount", "/mycontainer", &query);
        assert_eq!(
            text,
            "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n\
             /myaccount/mycontainer\ncomp:metadata\nrestype:container"
        );
    }
}
