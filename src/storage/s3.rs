//! Storage in a bucket: AWS, Ceph RGW, MinIO, Garage, whatever speaks S3.
//!
//! - **Never twice.** A new object is created with `If-None-Match: *`. Some servers pass over that header without a word,
//!   so it is tried out: the first object that a process stores is sent a second time, the same bytes, and a server
//!   that does not refuse them doesn't know the condition. Then, and for objects in parts, a HEAD goes before each
//!   object. What that leaves open is a race of two writers of one key, and names make it harmless: they are
//!   hashes of the bytes, or random; only two `init` of one place within the same second could meet. Nothing of this is
//!   recorded anywhere: it would be wrong when a server is updated, or a bucket moves.
//! - **Whole or not at all.** Every body goes with its MD5 and, in the signature, its SHA-256, and the server checks both.
//!   An object in parts appears when it is completed, or never.
//! - **A lost answer** leaves open whether an object was stored. The next try would be refused then, "there already", and
//!   the early answer to a long body is often lost as well; so what is there is read before, and if these are our
//!   bytes, they are stored.
//! - **Requests outlive their sender.** One that was given up for lost may still be on its way, so
//!   [`Storage::requests_die_with_sender`] is false here.
//! - **Deleting** something that is not there is no error for S3; the contract wants one, so a HEAD goes before; but not for
//!   sessions, with which every run ends.
//! - **Locks** against deletion: [`lock`].
//!
//! What a run that died leaves unfinished of an object in parts is invisible, but paid for: a rule of the bucket should
//! end it (`docs/src/storage-s3.md`).

mod address;
mod client;
mod credentials;
mod lock;

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};

use jiff::Timestamp;
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
use s3::command::{Command, Multipart};
use s3::serde_types::{CompleteMultipartUploadData, InitiateMultipartUploadResponse, ListBucketResult, Part};

use self::client::Client;
use self::credentials::Keys;
use super::web::{Answer, Failure, Put, Refusal, Requests, Subject, announced_len};
use super::{Listed, ObjectBytes, ObjectKey, ObjectKind, Storage, StorageError, StorageErrorKind};

pub use address::{S3Address, S3AddressError};
pub(super) use address::{endpoint, percent_decoded};
pub use lock::{LockMode, ObjectLock};

const STORAGE_CLASS: HeaderName = HeaderName::from_static("x-amz-storage-class");
const CONTENT_TYPE: &str = "application/octet-stream";
/// A row of a listing is some hundred bytes; servers give a thousand of them at once, whatever is asked for.
const PAGE_COUNT: usize = 1000;
/// No object of any server is longer, so a range that is has not to be asked for.
const OBJECT_LEN_MAX: u64 = 1 << 50;
/// The conditions of a server are tried out with an object no longer than this.
const TRIAL_LEN_MAX: usize = 64 << 10;

/// What is known of `If-None-Match`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Conditions {
    Unknown,
    Honoured,
    Ignored,
}

/// A bucket that holds objects, below a prefix.
pub struct S3Storage {
    client: Client,
    address: S3Address,
    conditions: AtomicU8,
}

impl fmt::Debug for S3Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Storage").field("address", &self.address).finish_non_exhaustive()
    }
}

impl S3Storage {
    /// Gets ready to use the place. Nothing is asked of the server, and nothing written.
    ///
    /// # Errors
    /// `Denied` when there are no credentials; also when a file of certificates can't be read.
    pub fn open(address: &S3Address) -> Result<Self, StorageError> {
        Self::open_in(address, &credentials::environment)
    }

    /// The same in an environment of one's own.
    ///
    /// # Errors
    /// As [`S3Storage::open`].
    pub fn open_in(address: &S3Address, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, StorageError> {
        Client::new(address, variable).map(|client| Self::with_client(address, client))
    }

    /// The same with credentials that are given, whatever the environment says.
    ///
    /// # Errors
    /// When a file of certificates can't be read.
    pub fn with_keys(address: &S3Address, access_key: &str, secret_key: &str) -> Result<Self, StorageError> {
        let keys = Keys::lasting(access_key, secret_key);
        Client::with_keys(address, keys, &credentials::environment).map(|client| Self::with_client(address, client))
    }

    fn with_client(address: &S3Address, client: Client) -> Self {
        Self { client, address: address.clone(), conditions: AtomicU8::new(Conditions::Unknown as u8) }
    }

    /// What was asked of the server so far.
    #[must_use]
    pub fn requests(&self) -> &Requests {
        self.client.requests()
    }

    fn name(&self, key: &ObjectKey) -> String {
        self.address.key(&key.path())
    }

    fn error(&self, key: &ObjectKey, failure: Failure) -> StorageError {
        self.client.error(Subject::Object(*key), failure)
    }

    /// A HEAD is refused without a word. Who asks for a byte is told why.
    fn in_words(&self, key: &ObjectKey, failure: Failure) -> Failure {
        if !failure.refusal().is_some_and(Refusal::is_wordless) {
            return failure;
        }
        let first_byte = Command::GetObjectRange { start: 0, end: Some(0) };
        let told = self.client.send(&self.name(key), &first_byte).err();
        told.filter(|told| told.refusal().is_some()).unwrap_or(failure)
    }

    /// What a server said that can't be, about `key`.
    fn nonsense(&self, key: &ObjectKey, what: &str) -> StorageError {
        StorageError::new(StorageErrorKind::Other, key).cause(format!("{} {what}", self.address))
    }

    fn conditions(&self) -> Conditions {
        match self.conditions.load(Ordering::Acquire) {
            known if known == Conditions::Honoured as u8 => Conditions::Honoured,
            known if known == Conditions::Ignored as u8 => Conditions::Ignored,
            _ => Conditions::Unknown,
        }
    }

    fn learn(&self, conditions: Conditions) {
        self.conditions.store(conditions as u8, Ordering::Release);
    }

    fn is_there(&self, key: &ObjectKey) -> Result<bool, StorageError> {
        match self.len(key) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == StorageErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn refuse_existing(&self, key: &ObjectKey) -> Result<(), StorageError> {
        if self.is_there(key)? { Err(StorageError::new(StorageErrorKind::Exists, key)) } else { Ok(()) }
    }

    /// One request that stores all of `bytes`.
    fn put(&self, key: &ObjectKey, bytes: &[u8], is_new: bool) -> Result<Answer, Failure> {
        let mut headers = self.headers(key);
        if is_new {
            headers.insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
        }
        let custom_headers = Some(headers);
        let command =
            Command::PutObject { content: bytes, content_type: CONTENT_TYPE, custom_headers, multipart: None };
        self.client.send(&self.name(key), &command)
    }

    /// The storage class is that of packs: everything else is small, read at once, and deleted soon.
    fn headers(&self, key: &ObjectKey) -> HeaderMap {
        let mut headers = self.address.lock.map(|lock| lock.headers(key.kind())).unwrap_or_default();
        let class = self.address.storage_class.as_ref().filter(|_| key.kind() == ObjectKind::Pack);
        if let Some(class) = class.and_then(|class| HeaderValue::from_str(class).ok()) {
            headers.insert(STORAGE_CLASS, class);
        }
        headers
    }

    /// A put with the condition that there is no such object. False: the server knows no such condition, and nothing is
    /// stored.
    fn put_on_condition(&self, key: &ObjectKey, bytes: &[u8]) -> Result<bool, StorageError> {
        let put = || self.put(key, bytes, true).map(drop);
        match self.client.put_on_condition(&put, &|| self.holds(key, bytes))? {
            Put::Stored => Ok(true),
            Put::Exists => Err(StorageError::new(StorageErrorKind::Exists, key)),
            Put::Failed(failure) if failure.refusal().is_some_and(Refusal::is_not_implemented) => Ok(false),
            Put::Failed(failure) => Err(self.lock_error(key, failure)),
        }
    }

    /// Whether exactly these bytes are stored. None if nothing is.
    fn holds(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Option<bool>, StorageError> {
        match self.get(key) {
            Ok(found) => Ok(Some(*found == *bytes)),
            Err(error) if error.kind() == StorageErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Finds out about conditions with an object that has just been stored: to store the same bytes once more does no harm.
    fn try_conditions(&self, key: &ObjectKey, bytes: &[u8]) {
        let known = match self.put(key, bytes, true) {
            Ok(_) => Conditions::Ignored,
            Err(failure) if failure.refusal().is_some_and(Refusal::is_there_already) => Conditions::Honoured,
            // Somebody else is going to find out.
            Err(_) => return,
        };
        self.learn(known);
    }

    fn put_plainly(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        self.put(key, bytes, false).map(drop).map_err(|failure| self.lock_error(key, failure))
    }

    /// Stores an object in parts. It appears when the last request is answered, or never.
    fn put_in_parts(&self, key: &ObjectKey, bytes: &[u8], is_new: bool) -> Result<(), StorageError> {
        let name = self.name(key);
        let begin = Command::InitiateMultipartUpload { content_type: CONTENT_TYPE };
        let answer = self
            .client
            .send_with(&name, &begin, &self.headers(key))
            .map_err(|failure| self.lock_error(key, failure))?;
        let upload: InitiateMultipartUploadResponse =
            quick_xml::de::from_str(&String::from_utf8_lossy(&answer.body))
                .map_err(|cause| self.nonsense(key, "began an upload without naming it").cause(cause))?;
        let id = upload.upload_id.as_str();
        let stored = self.put_parts(key, bytes, id).and_then(|parts| self.complete(key, bytes, id, parts, is_new));
        if stored.is_err() {
            // If this fails too, the rule of the bucket that ends unfinished uploads does it.
            let _left_behind = self.client.send(&name, &Command::AbortMultipartUpload { upload_id: id });
        }
        stored
    }

    fn put_parts(&self, key: &ObjectKey, bytes: &[u8], upload_id: &str) -> Result<Vec<Part>, StorageError> {
        let part_len = usize::try_from(self.address.part_len).unwrap_or(usize::MAX);
        let name = self.name(key);
        (1..)
            .zip(bytes.chunks(part_len))
            .map(|(part_number, content)| {
                let multipart = Some(Multipart::new(part_number, upload_id));
                let custom_headers = None;
                let part = Command::PutObject { content, content_type: CONTENT_TYPE, custom_headers, multipart };
                let answer = self.client.send(&name, &part).map_err(|failure| self.error(key, failure))?;
                let etag = answer.header("etag").ok_or_else(|| self.nonsense(key, "gave a part no ETag"))?;
                Ok(Part { part_number, etag: etag.to_owned() })
            })
            .collect()
    }

    fn complete(
        &self,
        key: &ObjectKey,
        bytes: &[u8],
        upload_id: &str,
        parts: Vec<Part>,
        is_new: bool,
    ) -> Result<(), StorageError> {
        let command = Command::CompleteMultipartUpload { upload_id, data: CompleteMultipartUploadData { parts } };
        let mut headers = HeaderMap::new();
        if is_new && self.conditions() == Conditions::Honoured {
            headers.insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
        }
        match self.client.send_with(&self.name(key), &command, &headers) {
            // The status was sent before the server was done; what went wrong after it is in the body.
            Ok(answer) if !String::from_utf8_lossy(&answer.body).contains("<Error>") => Ok(()),
            Ok(_) if self.holds(key, bytes)? == Some(true) => Ok(()),
            Ok(_) => Err(self.nonsense(key, "could not put the parts of an object together")),
            Err(failure) if failure.was_unclear && self.holds(key, bytes)? == Some(true) => Ok(()),
            Err(failure) if failure.refusal().is_some_and(Refusal::is_there_already) => {
                Err(StorageError::new(StorageErrorKind::Exists, key))
            }
            Err(failure) => Err(self.error(key, failure)),
        }
    }

    fn is_in_parts(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 > self.address.part_len
    }

    /// One page of a listing, from where the last one said that it goes on, or else behind a key.
    fn page(
        &self,
        kind: ObjectKind,
        token: Option<String>,
        after: Option<String>,
    ) -> Result<ListBucketResult, StorageError> {
        let prefix = match kind.prefix() {
            "" => self.address.key(&ObjectKey::Config.path()),
            prefix => self.address.key(&format!("{prefix}/")),
        };
        let command = Command::ListObjectsV2 {
            prefix,
            delimiter: None,
            continuation_token: token,
            start_after: after,
            max_keys: Some(PAGE_COUNT),
        };
        let answer =
            self.client.send("/", &command).map_err(|failure| self.client.error(Subject::List(kind), failure))?;
        quick_xml::de::from_str(&String::from_utf8_lossy(&answer.body)).map_err(|cause| {
            let what = format!("{}: {} answered with something else", Subject::List(kind), self.address);
            StorageError::with_message(StorageErrorKind::Other, what).cause(cause)
        })
    }

    /// Every object of one kind, with the time when it was stored as the server says it.
    fn rows(&self, kind: ObjectKind) -> Result<Vec<(Listed, String)>, StorageError> {
        let mut found = Vec::new();
        let (mut token, mut after) = (None, None);
        loop {
            let page = self.page(kind, token, after)?;
            let last = page.contents.last().map(|object| object.key.clone());
            for object in page.contents {
                let key = self.address.path(&object.key).and_then(ObjectKey::from_path);
                let row = key.filter(|key| key.kind() == kind).map(|key| Listed { key, len: object.size });
                found.extend(row.map(|row| (row, object.last_modified)));
            }
            if !page.is_truncated {
                break;
            }
            // Not every server says where a list goes on; behind its last key it does.
            token = page.next_continuation_token.filter(|token| !token.is_empty());
            after = last.filter(|_| token.is_none());
            if token.is_none() && after.is_none() {
                let what = format!("{}: {} cut it short", Subject::List(kind), self.address);
                return Err(StorageError::with_message(StorageErrorKind::Other, what));
            }
        }
        Ok(found)
    }
}

impl Storage for S3Storage {
    fn put_new(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        if self.is_in_parts(bytes) {
            self.refuse_existing(key)?;
            return self.put_in_parts(key, bytes, true);
        }
        let conditions = self.conditions();
        let may_meet_another = conditions == Conditions::Ignored
            || (conditions == Conditions::Unknown && (*key == ObjectKey::Config || bytes.len() > TRIAL_LEN_MAX));
        if may_meet_another {
            self.refuse_existing(key)?;
        }
        if conditions == Conditions::Ignored {
            return self.put_plainly(key, bytes);
        }
        if !self.put_on_condition(key, bytes)? {
            self.learn(Conditions::Ignored);
            self.refuse_existing(key)?;
            return self.put_plainly(key, bytes);
        }
        if conditions == Conditions::Unknown && bytes.len() <= TRIAL_LEN_MAX {
            self.try_conditions(key, bytes);
        }
        Ok(())
    }

    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        if self.is_in_parts(bytes) { self.put_in_parts(key, bytes, false) } else { self.put_plainly(key, bytes) }
    }

    fn get(&self, key: &ObjectKey) -> Result<ObjectBytes, StorageError> {
        let answer = self.client.send(&self.name(key), &Command::GetObject);
        answer.map(|answer| ObjectBytes::Owned(answer.body)).map_err(|failure| self.error(key, failure))
    }

    fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        let out_of_range = || StorageError::new(StorageErrorKind::OutOfRange, key);
        if range.start > range.end || range.end > OBJECT_LEN_MAX {
            return Err(out_of_range());
        }
        if range.start == range.end {
            return if range.end > self.len(key)? { Err(out_of_range()) } else { Ok(Vec::new()) };
        }
        let command = Command::GetObjectRange { start: range.start, end: Some(range.end - 1) };
        let answer = match self.client.send(&self.name(key), &command) {
            Ok(answer) => answer,
            Err(failure) if failure.refusal().is_some_and(|refusal| refusal.status == 416) => {
                return Err(out_of_range());
            }
            Err(failure) => return Err(self.error(key, failure)),
        };
        let wanted = usize::try_from(range.end - range.start).map_err(|_| out_of_range())?;
        let is_range = answer.header(CONTENT_RANGE.as_str()).is_some_and(|said| begins_at(said, range.start));
        let mut body = answer.body;
        if !is_range {
            // A server, or something before it, that passes over ranges gives the whole object.
            let start = usize::try_from(range.start).map_err(|_| out_of_range())?;
            if start > body.len() {
                return Err(out_of_range());
            }
            body.drain(..start);
            body.truncate(wanted);
        }
        match body.len() {
            len if len == wanted => Ok(body),
            len if len < wanted => Err(out_of_range()),
            _ => Err(self.nonsense(key, "gave more than the range that was asked for")),
        }
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StorageError> {
        let answer = self.client.send(&self.name(key), &Command::HeadObject);
        let answer = answer.map_err(|failure| self.error(key, self.in_words(key, failure)))?;
        announced_len(&answer).ok_or_else(|| self.nonsense(key, "does not say how long it is"))
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<Listed>, StorageError> {
        let mut found: Vec<Listed> = self.rows(kind)?.into_iter().map(|(row, _)| row).collect();
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        if key.kind() != ObjectKind::Session {
            self.len(key)?;
        }
        let answer = self.client.send(&self.name(key), &Command::DeleteObject);
        answer.map(drop).map_err(|failure| self.error(key, failure))
    }

    fn extend_locks(&self, kind: ObjectKind, is_needed: &dyn Fn(&ObjectKey) -> bool) -> Result<u64, StorageError> {
        self.extend(kind, is_needed)
    }

    fn locked_until(&self, key: &ObjectKey) -> Result<Option<Timestamp>, StorageError> {
        self.end_of_lock(key)
    }

    fn location(&self) -> String {
        self.address.to_string()
    }

    fn is_remote(&self) -> bool {
        true
    }
}

/// Whether `bytes 5-9/100` begins at `start`.
fn begins_at(said: &str, start: u64) -> bool {
    let numbers = said.strip_prefix("bytes ").unwrap_or_default();
    numbers.split_once('-').is_some_and(|(first, _)| first.parse() == Ok(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_known_by_where_it_begins() {
        assert!(begins_at("bytes 5-9/100", 5));
        for said in ["bytes 0-9/100", "5-9/100", "bytes */100", ""] {
            assert!(!begins_at(said, 5), "{said}");
        }
    }
}
