//! What went wrong with a request, and what a person has to know of it.
//!
//! A server answers with a status and a code in XML; what is decided here is decided on these two, never on the words
//! beside them. What comes without an answer (refused, reset, timed out, a certificate) is told by types of errors.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use jiff::Timestamp;
use reqwest::header::{DATE, HeaderMap};
use serde::Deserialize;

use super::super::{ObjectKey, ObjectKind, StorageError, StorageErrorKind};

/// Servers refuse a request that is older or younger than this.
const SKEW_SECONDS_MAX: u64 = 900;

/// What a request was about.
#[derive(Debug, Clone, Copy)]
pub(in crate::storage) enum Subject {
    Object(ObjectKey),
    List(ObjectKind),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(key) => write!(f, "Object {key} can't be reached"),
            Self::List(ObjectKind::Config) => write!(f, "It can't be seen whether there is a config"),
            Self::List(kind) => write!(f, "The list of {}/ can't be had", kind.prefix()),
        }
    }
}

/// The body of an error.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ErrorBody {
    code: String,
    message: String,
    region: Option<String>,
}

/// An answer that is no success.
#[derive(Debug, Clone)]
pub(in crate::storage) struct Refusal {
    pub(in crate::storage) status: u16,
    /// The code of S3, empty where the answer had none: for a HEAD, or from something in between.
    pub(in crate::storage) code: String,
    message: String,
    region: Option<String>,
    /// How far the clock of the server is from that of the request, in seconds.
    skew: Option<u64>,
}

impl Refusal {
    /// Reads the answer to a request that was signed at `signed_at`, in the form of `x-amz-date`.
    pub(in crate::storage) fn read(status: u16, headers: &HeaderMap, body: &[u8], signed_at: &str) -> Self {
        let text = String::from_utf8_lossy(body);
        let body: ErrorBody = quick_xml::de::from_str(&text).unwrap_or_default();
        // A HEAD is answered without a body.
        let header_code = headers.get("x-ms-error-code").and_then(|value| value.to_str().ok());
        let code = if body.code.is_empty() { header_code.unwrap_or_default().to_owned() } else { body.code };
        let header_region = headers.get("x-amz-bucket-region").and_then(|value| value.to_str().ok());
        let region = body.region.or_else(|| header_region.map(str::to_owned));
        Self { status, code, message: body.message, region, skew: skew(headers, signed_at) }
    }

    /// Whether the same request may succeed a moment later.
    pub(in crate::storage) fn is_passing(&self) -> bool {
        let by_code = [
            "BadDigest", // torn on the way
            "ConditionalRequestConflict",
            "IncompleteBody",
            "InternalError",
            "OperationAborted",
            "OperationTimedOut",
            "RequestTimeout",
            "ServerBusy",
            "ServiceUnavailable",
            "SlowDown",
            "SlowDownRead",
            "SlowDownWrite",
            "Throttling",
            "ThrottlingException",
            "TooManyRequests",
            "XAmzContentSHA256Mismatch",
        ];
        matches!(self.status, 408 | 425 | 429 | 500 | 502..=504 | 509) || by_code.contains(&self.code.as_str())
    }

    pub(in crate::storage) fn is_not_found(&self) -> bool {
        self.status == 404 && !matches!(self.code.as_str(), "NoSuchBucket" | "NoSuchUpload" | "ContainerNotFound")
    }

    /// Whether a reason that people could do something about was not told.
    pub(in crate::storage) fn is_wordless(&self) -> bool {
        (300..500).contains(&self.status) && self.status != 404 && self.code.is_empty()
    }

    /// The condition of the request did not hold: there is such an object.
    pub(in crate::storage) fn is_there_already(&self) -> bool {
        self.status == 412
            || (self.status == 409 && matches!(self.code.as_str(), "ObjectAlreadyExists" | "BlobAlreadyExists"))
    }

    /// The server knows no conditions, or not with this request.
    pub(in crate::storage) fn is_not_implemented(&self) -> bool {
        self.status == 501 || matches!(self.code.as_str(), "NotImplemented" | "InvalidArgument" | "UnsupportedArgument")
    }

    fn is_full(&self) -> bool {
        let codes = ["QuotaExceeded", "InsufficientStorage", "StorageFull", "XMinioStorageFull", "TooManyObjects"];
        self.status == 507 || codes.iter().any(|code| self.code.contains(code))
    }

    fn is_skewed(&self) -> bool {
        let is_far = self.status == 403 && self.skew.is_some_and(|skew| skew > SKEW_SECONDS_MAX);
        is_far || matches!(self.code.as_str(), "RequestTimeTooSkewed" | "RequestExpired" | "RequestNotReadyYet")
    }

    /// Kind, what it means, and what to do.
    #[expect(clippy::too_many_lines, reason = "a table of codes and what they mean")]
    fn explain(&self, bucket: &str) -> (StorageErrorKind, String, Option<&'static str>) {
        use StorageErrorKind::{Denied, Full, Other};
        if self.is_full() {
            return (Full, "no space or quota is left for it".to_owned(), None);
        }
        if self.is_skewed() {
            let far = self.skew.filter(|skew| *skew > SKEW_SECONDS_MAX);
            let far = far.map_or_else(String::new, |skew| format!(" by {skew} seconds"));
            let what = format!("the clock of this machine differs too much from that of the server{far}");
            return (
                Denied,
                what,
                Some("Set the clock of this machine, with NTP or chrony, and run the same command again"),
            );
        }
        match (self.code.as_str(), self.status) {
            ("NoSuchBucket", _) => (
                Other,
                format!("there is no bucket {bucket}"),
                Some("Create the bucket with the tools of the server, or correct the location; compline makes none"),
            ),
            ("ContainerNotFound" | "ContainerBeingDeleted", _) => (
                Other,
                format!("there is no container {bucket}"),
                Some("Create the container with the tools of Azure, or correct the location; compline makes none"),
            ),
            (
                "AuthenticationFailed"
                | "AuthorizationFailure"
                | "AuthorizationPermissionMismatch"
                | "InvalidAuthenticationInfo"
                | "NoAuthenticationInformation",
                _,
            ) => (
                Denied,
                "the server does not accept the key or signature, or not from here".to_owned(),
                Some(
                    "Check AZURE_STORAGE_ACCOUNT, AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, and the network rules of \
                     the account",
                ),
            ),
            ("InvalidAccessKeyId" | "NotSignedUp" | "InvalidClientTokenId", _) => {
                (Denied, "the server does not know the access key".to_owned(), Some(CHECK_KEYS))
            }
            ("SignatureDoesNotMatch", _) => (
                Denied,
                "the secret key does not fit the access key, or the region is not the one of the server".to_owned(),
                Some(CHECK_KEYS),
            ),
            ("ExpiredToken" | "TokenRefreshRequired" | "InvalidToken", _) => {
                (Denied, "the session token has expired or is not valid".to_owned(), Some(CHECK_KEYS))
            }
            ("PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException", _)
            | (_, 301) => {
                let region = self.region.as_ref().map_or_else(String::new, |region| format!(": it is {region}"));
                (
                    Other,
                    format!("bucket {bucket} is in another region{region}"),
                    Some("Add region=NAME to the location"),
                )
            }
            ("InvalidStorageClass", _) => (
                Other,
                "the server has no such storage class".to_owned(),
                Some("Correct storage_class in the location"),
            ),
            ("InvalidObjectState", _) => (
                Other,
                "it lies in an archive from which it has to be brought back first".to_owned(),
                Some("Restore the objects with the tools of the server, and choose a storage class with instant reads"),
            ),
            (_, 401 | 403) => (
                Denied,
                "the server does not allow it".to_owned(),
                Some(
                    "Give the user the rights that the manual lists for this storage, on this place; and check the keys: \
                     some servers say no more when they are wrong",
                ),
            ),
            _ if self.is_passing() => (Other, "the server can't do it now".to_owned(), Some(LATER)),
            _ => (Other, "the server refused".to_owned(), Some(WHO_ANSWERS)),
        }
    }

    /// As an error.
    pub(in crate::storage) fn into_error(
        self,
        subject: Subject,
        bucket: &str,
        endpoint: &str,
        tries: Tries,
    ) -> StorageError {
        if self.is_not_found()
            && let Subject::Object(key) = subject
        {
            return StorageError::new(StorageErrorKind::NotFound, &key);
        }
        let (kind, what, advice) = self.explain(bucket);
        let error = StorageError::with_message(kind, format!("{subject}: {what}"));
        let error = error.cause(format!("{endpoint} answered {self}{tries}"));
        advice.into_iter().fold(error, StorageError::advise)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        let is_word = self.code.len() <= 60 && self.code.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !self.code.is_empty() && is_word {
            write!(f, " {}", self.code)?;
        }
        // What a server says of a signature may hold the whole of what was signed; a line is enough.
        let line = self.message.lines().next().unwrap_or_default().trim();
        if line.is_empty() { Ok(()) } else { write!(f, ": {}", line.chars().take(200).collect::<String>()) }
    }
}

const CHECK_KEYS: &str =
    "Check the keys, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the profile, and region=NAME in the location";
const WHO_ANSWERS: &str = "Is the endpoint of the location that of the storage? Something in between may have answered";
const LATER: &str = "Run the same command again when the server is well; nothing that was published is lost, and what was uploaded is used";

/// How often it was tried, for messages.
#[derive(Debug, Clone, Copy)]
pub(in crate::storage) struct Tries {
    pub(in crate::storage) count: u32,
    pub(in crate::storage) seconds: u64,
}

impl fmt::Display for Tries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count < 2 { Ok(()) } else { write!(f, " (tried {} times in {} s)", self.count, self.seconds) }
    }
}

/// No answer, or none that was whole.
#[derive(Debug)]
pub(in crate::storage) enum Silence {
    /// The request could not be made: no effect, and no use in trying again.
    Impossible(Box<dyn StdError + Send + Sync>),
    /// Nobody is there to sign it, and the error says who was asked.
    Unsigned(StorageError),
    /// The server is not who it should be.
    Untrusted(reqwest::Error),
    /// There was no connection: no effect.
    Unreached(reqwest::Error),
    /// It may have had its effect.
    Lost(reqwest::Error),
    /// Nothing came for so many seconds. It may have had its effect.
    TimedOut(u64),
}

impl Silence {
    /// Of a request that was sent or was to be.
    pub(in crate::storage) fn of(error: reqwest::Error) -> Self {
        if cause::<rustls::Error>(&error).is_some() {
            return Self::Untrusted(error);
        }
        if error.is_builder() {
            return Self::Impossible(error.into());
        }
        if error.is_connect() { Self::Unreached(error) } else { Self::Lost(error) }
    }

    pub(in crate::storage) fn is_passing(&self) -> bool {
        matches!(self, Self::Unreached(_) | Self::Lost(_) | Self::TimedOut(_))
    }

    /// Whether the request may have been carried out.
    pub(in crate::storage) fn may_have_effect(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::TimedOut(_))
    }

    /// In words, for somebody who knows what was asked.
    pub(in crate::storage) fn reason(&self) -> String {
        match self {
            Self::Impossible(cause) => cause.to_string(),
            Self::Unsigned(error) => error.to_string(),
            Self::Untrusted(cause) => cause_text::<rustls::Error>(cause),
            Self::Unreached(cause) => cause_text::<io::Error>(cause),
            Self::Lost(cause) => innermost(cause),
            Self::TimedOut(seconds) => format!("said nothing for {seconds} s"),
        }
    }

    pub(in crate::storage) fn into_error(self, subject: Subject, endpoint: &str, tries: Tries) -> StorageError {
        let error =
            |what: &str| StorageError::with_message(StorageErrorKind::Other, format!("{subject}: {what}{tries}"));
        match self {
            Self::Impossible(cause) => error("the request can't be made").cause(cause),
            Self::Unsigned(error) => error,
            Self::Untrusted(cause) => {
                let why = cause_text::<rustls::Error>(&cause);
                error(&format!("no safe connection to {endpoint}")).cause(why).advise(
                    "Trust the authority that signed its certificate: ca=FILE in the location, or the certificates of the \
                     machine; the name in the endpoint has to be the one in the certificate",
                )
            }
            Self::Unreached(cause) => {
                let why = cause_text::<io::Error>(&cause);
                error(&format!("no connection to {endpoint}")).cause(why).advise(
                    "Is the endpoint of the location right, and does the server run? A proxy is taken from HTTPS_PROXY",
                )
            }
            Self::Lost(cause) => {
                let why = innermost(&cause);
                error(&format!("the connection to {endpoint} broke")).cause(why).advise(LATER)
            }
            Self::TimedOut(seconds) => error(&format!("{endpoint} said nothing for {seconds} s")).advise(LATER),
        }
    }
}

/// The first cause that is an `E`. What an `io::Error` carries is not among its sources by itself.
fn cause<'e, E: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let inside = inside.and_then(|inside| cause::<E>(inside));
        if let Some(found) = error.downcast_ref::<E>().or(inside) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn cause_text<E: StdError + 'static>(error: &(dyn StdError + 'static)) -> String {
    cause::<E>(error).map_or_else(|| innermost(error), ToString::to_string)
}

fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

/// How far the clock of the server is from that of the request.
fn skew(headers: &HeaderMap, signed_at: &str) -> Option<u64> {
    let theirs = headers.get(DATE)?.to_str().ok()?;
    let theirs = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(theirs).ok()?;
    let ours: Timestamp = jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", signed_at)
        .and_then(|broken| broken.to_datetime())
        .and_then(|datetime| jiff::tz::TimeZone::UTC.to_timestamp(datetime))
        .ok()?;
    Some(theirs.as_second().abs_diff(ours.as_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, body: &str) -> Refusal {
        let mut headers = HeaderMap::new();
        headers.insert(DATE, "Fri, 20 Nov 2026 22:00:00 GMT".parse().expect("a header"));
        Refusal::read(status, &headers, body.as_bytes(), "20261120T220012Z")
    }

    fn xml(code: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>words</Message><RequestId>1</RequestId></Error>"
        )
    }

    #[test]
    fn codes_decide_what_an_answer_means() {
        use StorageErrorKind::{Denied, Full, Other};
        for (status, code, kind, word) in [
            (403, "InvalidAccessKeyId", Denied, "access key"),
            (403, "SignatureDoesNotMatch", Denied, "secret key"),
            (403, "AccessDenied", Denied, "does not allow"),
            (403, "RequestTimeTooSkewed", Denied, "clock"),
            (403, "QuotaExceeded", Full, "quota"),
            (507, "", Full, "space"),
            (404, "NoSuchBucket", Other, "no bucket backups"),
            (301, "PermanentRedirect", Other, "another region"),
            (503, "SlowDown", Other, "now"),
        ] {
            let error = refusal(status, &xml(code)).into_error(
                Subject::Object(ObjectKey::Config),
                "backups",
                "https://server",
                Tries { count: 1, seconds: 0 },
            );
            assert_eq!(error.kind(), kind, "{code}");
            assert!(error.to_string().contains(word), "{code}: {error}");
            assert!(error.hint().is_some(), "{code}");
        }
        let missing = refusal(404, &xml("NoSuchKey"));
        assert!(missing.is_not_found());
        assert!(refusal(404, "").is_not_found(), "a HEAD has no body");
    }

    #[test]
    fn what_passes_is_told_from_what_stays() {
        for (status, code) in [(503, "SlowDown"), (400, "RequestTimeout"), (500, ""), (429, ""), (400, "BadDigest")] {
            assert!(refusal(status, &xml(code)).is_passing(), "{status} {code}");
        }
        for (status, code) in
            [(403, "AccessDenied"), (404, "NoSuchKey"), (412, "PreconditionFailed"), (400, "InvalidRequest")]
        {
            assert!(!refusal(status, &xml(code)).is_passing(), "{status} {code}");
        }
    }

    #[test]
    fn a_clock_that_is_off_is_seen_by_the_date_of_the_answer() {
        let mut headers = HeaderMap::new();
        headers.insert(DATE, "Fri, 20 Nov 2026 22:00:00 GMT".parse().expect("a header"));
        let refusal = Refusal::read(403, &headers, xml("AccessDenied").as_bytes(), "20261120T230000Z");
        assert!(refusal.is_skewed());
        assert_eq!(refusal.skew, Some(3600));
        assert!(!self::refusal(403, &xml("AccessDenied")).is_skewed());
    }

    #[test]
    fn answers_that_are_no_xml_are_answers_all_the_same() {
        let refusal = refusal(502, "<html><body>Bad gateway</body></html>");
        assert!(refusal.is_passing());
        assert_eq!(refusal.to_string(), "502");
    }
}
