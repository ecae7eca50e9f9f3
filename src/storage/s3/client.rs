//! Requests: signed by `rust-s3`, carried by a [line](super::super::web) of our own.
//!
//! `rust-s3` could send them itself, but its client trusts no authority that we name, tells nothing of headers where we
//! need them, and sends again on its own terms (`format-spec/decisions/s3-client.md`). So its part is what S3 is about:
//! addresses, headers and signatures.

use reqwest::Method;
use reqwest::header::{HeaderMap, IF_NONE_MATCH};
use s3::Bucket;
use s3::command::{Command, HttpMethod};
use s3::request::Request;
use s3::request::tokio_backend::ReqwestRequest;

use super::super::web::{Answer, Failure, Prepared, Put, RequestKind, Requests, Silence, Subject, Web, tls};
use super::super::{StorageError, StorageErrorKind};
use super::address::S3Address;
use super::credentials::{self, Credentials, Keys, Variable};
use crate::clock::{Clock, SystemClock};

/// Sends requests to one bucket.
pub(super) struct Client {
    web: Web,
    /// Without keys: each request gets those that hold.
    bucket: Bucket,
    credentials: Credentials,
    endpoint: String,
}

impl Client {
    /// Gets ready to ask; asks nothing.
    ///
    /// # Errors
    /// When there are no credentials, certificates can't be read, or threads can't be had.
    pub(super) fn new(address: &S3Address, variable: Variable<'_>) -> Result<Self, StorageError> {
        Self::with_credentials(address, Credentials::find(address, variable)?, variable)
    }

    /// The same with keys that are given.
    ///
    /// # Errors
    /// When certificates can't be read, or threads can't be had.
    pub(super) fn with_keys(address: &S3Address, keys: Keys, variable: Variable<'_>) -> Result<Self, StorageError> {
        Self::with_credentials(address, Credentials::given(keys, address), variable)
    }

    fn with_credentials(
        address: &S3Address,
        credentials: Credentials,
        variable: Variable<'_>,
    ) -> Result<Self, StorageError> {
        let region = credentials::region(address, variable);
        let endpoint = endpoint(address, &region, variable);
        let is_plain = address.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        let authorities = || variable("AWS_CA_BUNDLE").map(std::path::PathBuf::from).filter(|_| !is_plain);
        let tls = tls::configuration(is_plain, address.ca.clone().or_else(authorities).as_deref())?;
        let region = s3::Region::Custom { region, endpoint: endpoint.clone() };
        let mut bucket = Bucket::new_public(&address.bucket, region).map_err(|cause| {
            let what = format!("No requests can be made for {address}");
            StorageError::with_message(StorageErrorKind::Other, what).cause(cause)
        })?;
        if address.is_path_style() {
            bucket.set_path_style();
        }
        let host = bucket.host();
        let host = host.split_once(':').map_or(host.as_str(), |(name, _port)| name);
        let web = Web::new(tls, address.patience, &address.to_string(), host)?;
        Ok(Self { web, bucket, credentials, endpoint })
    }

    /// What was sent so far.
    pub(super) fn requests(&self) -> &Requests {
        self.web.requests()
    }

    /// Sends `command` for the object at `key`, again if need be, and waits for the answer.
    pub(super) fn send(&self, key: &str, command: &Command<'_>) -> Result<Answer, Failure> {
        self.send_with(key, command, &HeaderMap::new())
    }

    /// The same with headers that `command` has no room for.
    pub(super) fn send_with(&self, key: &str, command: &Command<'_>, headers: &HeaderMap) -> Result<Answer, Failure> {
        self.send_by(key, command, &|bucket| bucket.extra_headers_mut().extend(headers.clone()))
    }

    /// The same about something that belongs to the object.
    pub(super) fn send_about(&self, part: &str, key: &str, command: &Command<'_>) -> Result<Answer, Failure> {
        self.send_by(key, command, &|bucket| bucket.add_query(part, ""))
    }

    fn send_by(&self, key: &str, command: &Command<'_>, dress: &dyn Fn(&mut Bucket)) -> Result<Answer, Failure> {
        self.web.send(&|| {
            let impossible = |cause: s3::error::S3Error| Silence::Impossible(cause.into());
            let mut bucket = self.bucket()?;
            dress(&mut bucket);
            self.web.wait_for(async {
                let request = ReqwestRequest::new(&bucket, key, command.clone()).await.map_err(impossible)?;
                let headers = request.headers().await.map_err(impossible)?;
                let signed_at = headers.get("x-amz-date").and_then(|value| value.to_str().ok());
                Ok(Prepared {
                    kind: kind(command),
                    method: method(&command.http_verb()),
                    url: request.url().map_err(impossible)?,
                    signed_at: signed_at.unwrap_or("").to_owned(),
                    is_conditional: headers.contains_key(IF_NONE_MATCH) && matches!(command, Command::PutObject { .. }),
                    headers,
                    body: request.request_body().map_err(impossible)?,
                })
            })
        })
    }

    /// The bucket, as somebody sees it whose keys hold now.
    fn bucket(&self) -> Result<Bucket, Silence> {
        let keys = self.credentials.keys(&self.web, SystemClock.now()).map_err(Silence::Unsigned)?;
        let token = keys.token.as_ref().map(|token| token.as_str());
        let (access_key, secret_key) = (Some(keys.access_key.as_str()), Some(keys.secret_key.as_str()));
        let keys = s3::creds::Credentials::new(access_key, secret_key, None, token, None);
        let keys = keys.map_err(|cause| Silence::Impossible(cause.into()))?;
        let mut bucket = self.bucket.clone();
        bucket.set_credentials(keys);
        Ok(bucket)
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
        failure.into_error(subject, &self.bucket.name(), &self.endpoint)
    }
}

fn kind(command: &Command<'_>) -> RequestKind {
    match command {
        Command::HeadObject => RequestKind::Head,
        Command::ListObjectsV2 { .. } => RequestKind::List,
        Command::PutObject { .. } => RequestKind::Put,
        Command::DeleteObject => RequestKind::Delete,
        Command::InitiateMultipartUpload { .. }
        | Command::CompleteMultipartUpload { .. }
        | Command::AbortMultipartUpload { .. } => RequestKind::Multipart,
        _ => RequestKind::Get,
    }
}

fn method(verb: &HttpMethod) -> Method {
    match verb {
        HttpMethod::Delete => Method::DELETE,
        HttpMethod::Get => Method::GET,
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Head => Method::HEAD,
    }
}

/// The server, with its scheme.
fn endpoint(address: &S3Address, region: &str, variable: Variable<'_>) -> String {
    let environment = || variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
    address.endpoint.clone().or_else(environment).unwrap_or_else(|| {
        let country = if region.starts_with("cn-") { ".cn" } else { "" };
        format!("https://s3.{region}.amazonaws.com{country}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_aws_are_named_by_their_region() {
        let mut address = S3Address::new("bucket", "");
        let endpoint = |address: &S3Address, region: &str| endpoint(address, region, &|_| None);
        assert_eq!(endpoint(&address, "eu-central-1"), "https://s3.eu-central-1.amazonaws.com");
        assert_eq!(endpoint(&address, "cn-north-1"), "https://s3.cn-north-1.amazonaws.com.cn");
        address.endpoint = Some("http://127.0.0.1:9000".to_owned());
        assert_eq!(endpoint(&address, "default"), "http://127.0.0.1:9000");
    }
}
