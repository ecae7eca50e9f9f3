//! Storage in a container of Azure Blob Storage.
//!
//! - **Never twice.** A new blob is created with `If-None-Match: *`, which every server of Azure honours.
//! - **Whole or not at all.** Every body goes with its MD5, which the server checks; a blob appears with the answer.
//! - **A lost answer** leaves open whether a blob was stored, so what is there is read before the next try. A blob that is gone when a delete is tried again was deleted.
//! - **Requests outlive their sender**, as with S3.

mod address;
mod client;

use std::fmt;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde::Deserialize;

use self::client::{Client, Question};
use super::web::{Failure, Put, Refusal, RequestKind, Requests, Subject, announced_len};
use super::{Listed, ObjectBytes, ObjectKey, ObjectKind, Storage, StorageError, StorageErrorKind};

pub use address::{AzureAddress, AzureAddressError};

/// A container that holds objects, below a prefix.
pub struct AzureStorage {
    client: Client,
    address: AzureAddress,
    /// Rows of a page of a listing; none: as many as the server gives.
    page_count: Option<u32>,
}

impl fmt::Debug for AzureStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureStorage").field("address", &self.address).finish_non_exhaustive()
    }
}

/// One page of a listing.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    blobs: Blobs,
    #[serde(default)]
    next_marker: String,
}

#[derive(Deserialize)]
struct Blobs {
    #[serde(rename = "Blob", default)]
    blobs: Vec<Blob>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Blob {
    name: String,
    properties: Properties,
}

#[derive(Deserialize)]
struct Properties {
    #[serde(rename = "Content-Length")]
    content_length: u64,
}

impl AzureStorage {
    /// Gets ready to use the place. Nothing is asked of the server, and nothing written.
    ///
    /// # Errors
    /// `Denied` when there are no credentials; also when a file of certificates can't be read.
    pub fn open(address: &AzureAddress) -> Result<Self, StorageError> {
        Ok(Self { client: Client::new(address)?, address: address.clone(), page_count: None })
    }

    /// The same with the key of the account, whatever the environment says.
    ///
    /// # Errors
    /// `Denied` when the key is none; also when a file of certificates can't be read.
    pub fn with_key(address: &AzureAddress, account: &str, key: &str) -> Result<Self, StorageError> {
        Ok(Self { client: Client::with_key(address, account, key)?, address: address.clone(), page_count: None })
    }

    /// The same storage, with listings in pages of so many rows.
    #[must_use]
    pub fn with_page_count(self, count: u32) -> Self {
        Self { page_count: Some(count), ..self }
    }

    /// Makes the container. compline does so nowhere: containers are made by whoever pays for them.
    ///
    /// # Errors
    /// What the server says.
    pub fn create_container(&self) -> Result<(), StorageError> {
        let mut question = Question::new(Method::PUT, RequestKind::Put, String::new());
        question.query = vec![("restype", "container".to_owned())];
        let made = self.client.send(&question).map(drop);
        made.map_err(|failure| self.client.error(Subject::List(ObjectKind::Config), failure))
    }

    /// What was asked of the server so far.
    #[must_use]
    pub fn requests(&self) -> &Requests {
        self.client.requests()
    }

    fn error(&self, key: &ObjectKey, failure: Failure) -> StorageError {
        self.client.error(Subject::Object(*key), failure)
    }

    fn about<'q>(&self, method: Method, kind: RequestKind, key: &ObjectKey) -> Question<'q> {
        Question::new(method, kind, self.address.blob(&key.path()))
    }

    fn put(&self, key: &ObjectKey, bytes: &[u8], is_new: bool) -> Result<(), Failure> {
        let mut question = self.about(Method::PUT, RequestKind::Put, key);
        question.body = bytes;
        question.header("x-ms-blob-type", HeaderValue::from_static("BlockBlob"));
        question.header("content-type", HeaderValue::from_static("application/octet-stream"));
        let digest = HeaderValue::from_str(&STANDARD.encode(*md5::compute(bytes)));
        question.header("content-md5", digest.expect("cannot fail because base64 is ASCII"));
        if is_new {
            question.header("if-none-match", HeaderValue::from_static("*"));
        }
        // Everything but packs is small, read at once, and deleted soon.
        let tier = self.address.tier.as_ref().filter(|_| key.kind() == ObjectKind::Pack);
        if let Some(tier) = tier.and_then(|tier| HeaderValue::from_str(tier).ok()) {
            question.header("x-ms-access-tier", tier);
        }
        self.client.send(&question).map(drop)
    }

    /// Whether exactly these bytes are stored. None if nothing is.
    fn holds(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Option<bool>, StorageError> {
        match self.get(key) {
            Ok(found) => Ok(Some(*found == *bytes)),
            Err(error) if error.kind() == StorageErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn page(&self, kind: ObjectKind, marker: &str) -> Result<Page, StorageError> {
        let prefix = match kind.prefix() {
            "" => self.address.blob(&ObjectKey::Config.path()),
            prefix => self.address.blob(&format!("{prefix}/")),
        };
        let mut question = Question::new(Method::GET, RequestKind::List, String::new());
        question.query = vec![("comp", "list".to_owned()), ("prefix", prefix), ("restype", "container".to_owned())];
        if let Some(count) = self.page_count {
            question.query.push(("maxresults", count.to_string()));
        }
        if !marker.is_empty() {
            question.query.push(("marker", marker.to_owned()));
        }
        let answer = self.client.send(&question).map_err(|failure| self.client.error(Subject::List(kind), failure))?;
        let text = String::from_utf8_lossy(&answer.body);
        quick_xml::de::from_str(text.trim_start_matches('\u{feff}')).map_err(|cause| {
            let what = format!("{}: {} answered with something else", Subject::List(kind), self.address);
            StorageError::with_message(StorageErrorKind::Other, what).cause(cause)
        })
    }
}

impl Storage for AzureStorage {
    fn put_new(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        let put = || self.put(key, bytes, true);
        match self.client.put_on_condition(&put, &|| self.holds(key, bytes))? {
            Put::Stored => Ok(()),
            Put::Exists => Err(StorageError::new(StorageErrorKind::Exists, key)),
            Put::Failed(failure) => Err(self.error(key, failure)),
        }
    }

    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        self.put(key, bytes, false).map_err(|failure| self.error(key, failure))
    }

    fn get(&self, key: &ObjectKey) -> Result<ObjectBytes, StorageError> {
        let answer = self.client.send(&self.about(Method::GET, RequestKind::Get, key));
        answer.map(|answer| ObjectBytes::Owned(answer.body)).map_err(|failure| self.error(key, failure))
    }

    fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        let out_of_range = || StorageError::new(StorageErrorKind::OutOfRange, key);
        if range.start >= range.end {
            let is_within = range.start == range.end && range.end <= self.len(key)?;
            return if is_within { Ok(Vec::new()) } else { Err(out_of_range()) };
        }
        let mut question = self.about(Method::GET, RequestKind::Get, key);
        let wanted = format!("bytes={}-{}", range.start, range.end - 1);
        question.header("x-ms-range", HeaderValue::from_str(&wanted).expect("cannot fail because it is ASCII"));
        match self.client.send(&question) {
            Ok(answer) if answer.body.len() as u64 == range.end - range.start => Ok(answer.body),
            Ok(_) => Err(out_of_range()),
            Err(failure) if failure.refusal().is_some_and(|refusal| refusal.status == 416) => Err(out_of_range()),
            Err(failure) => Err(self.error(key, failure)),
        }
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StorageError> {
        let answer = self.client.send(&self.about(Method::HEAD, RequestKind::Head, key));
        let answer = answer.map_err(|failure| self.error(key, failure))?;
        announced_len(&answer).ok_or_else(|| {
            StorageError::new(StorageErrorKind::Other, key).cause("the server does not say how long it is")
        })
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<Listed>, StorageError> {
        let mut found = Vec::new();
        let mut marker = String::new();
        loop {
            let page = self.page(kind, &marker)?;
            for blob in page.blobs.blobs {
                let key = self.address.path(&blob.name).and_then(ObjectKey::from_path);
                let len = blob.properties.content_length;
                found.extend(key.filter(|key| key.kind() == kind).map(|key| Listed { key, len }));
            }
            if page.next_marker.is_empty() {
                break;
            }
            marker = page.next_marker;
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        match self.client.send(&self.about(Method::DELETE, RequestKind::Delete, key)) {
            Ok(_) => Ok(()),
            Err(failure) if failure.was_unclear && failure.refusal().is_some_and(Refusal::is_not_found) => Ok(()),
            Err(failure) => Err(self.error(key, failure)),
        }
    }

    fn location(&self) -> String {
        self.address.to_string()
    }

    fn is_remote(&self) -> bool {
        true
    }
}
