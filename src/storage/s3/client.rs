//! Requests: signed by `rust-s3`, carried by a client of our own.
//!
//! `rust-s3` could send them itself, but its client trusts no authority that we name, tells nothing of headers where we
//! need them, and sends again on its own terms (`format-spec/decisions/s3-client.md`). So its part is what S3 is about:
//! addresses, headers and signatures. Ours is the line: one pool of connections for all threads, how many requests are
//! under way, how long to wait, what to try again, and a count of everything.
//!
//! **Trying again.** What passes (429, 5xx, resets, silence) is tried again after a pause that doubles and is drawn at
//! random, so that many hosts don't come back in step, until the patience of the location is used up. Until the server
//! has answered anything at all, patience is short: a wrong address must not look like a slow one. Whoever sent a
//! request with an effect has to know whether an earlier try may have had it: [`Answer::was_unclear`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, HeaderMap, IF_NONE_MATCH};
use s3::Bucket;
use s3::command::{Command, HttpMethod};
use s3::request::Request;
use s3::request::tokio_backend::ReqwestRequest;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::super::{StorageError, StorageErrorKind};
use super::address::S3Address;
use super::credentials;
use super::requests::{RequestKind, Requests};
use super::tls;
use super::trouble::{Refusal, Silence, Subject, Tries};

/// Requests under way at once, and connections that are kept.
const REQUESTS_MAX: usize = 16;
/// Threads that move bytes. One core does about a gigabyte a second with TLS.
const THREADS: usize = 2;
/// To reach the server.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Silence of a server that has the whole request, or is in the middle of its answer.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// No line is slower, in bytes a second, with all requests under way: what longer uploads are waited for.
const RATE_MIN: u64 = 8 << 10;
/// The first pause before a request is sent again, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Patience with a server that has never answered.
const FIRST_PATIENCE: Duration = Duration::from_secs(4);
/// An answer is read into so much memory at first, whatever it says of its length.
const RESERVED_MAX: u64 = 64 << 20;

/// Sends requests to one bucket.
pub(super) struct Client {
    runtime: Runtime,
    http: reqwest::Client,
    bucket: Box<Bucket>,
    endpoint: String,
    patience: Duration,
    permits: Semaphore,
    requests: Requests,
    has_answered: AtomicBool,
}

/// A request that was answered well.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A request that was not.
pub(super) struct Failure {
    why: Why,
    tries: Tries,
    /// Whether it may have had its effect all the same, in an earlier try or in the last one.
    pub(super) was_unclear: bool,
}

enum Why {
    Refused(Refusal),
    Silent(Silence),
}

impl Failure {
    /// Whether there was no answer, so that only a look can tell.
    pub(super) fn is_lost(&self) -> bool {
        matches!(&self.why, Why::Silent(silence) if silence.may_have_effect())
    }

    /// What the server answered, if it did.
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        match &self.why {
            Why::Refused(refusal) => Some(refusal),
            Why::Silent(_) => None,
        }
    }
}

impl Why {
    fn is_passing(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_passing(),
            Self::Silent(silence) => silence.is_passing(),
        }
    }

    fn may_have_effect(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.status >= 500,
            Self::Silent(silence) => silence.may_have_effect(),
        }
    }
}

impl Client {
    /// Gets ready to ask; asks nothing.
    ///
    /// # Errors
    /// When there are no credentials, certificates can't be read, or threads can't be had.
    pub(super) fn new(address: &S3Address) -> Result<Self, StorageError> {
        Self::with_credentials(address, credentials::find(address)?)
    }

    pub(super) fn with_credentials(
        address: &S3Address,
        credentials: s3::creds::Credentials,
    ) -> Result<Self, StorageError> {
        let failed = |what: &str| StorageError::with_message(StorageErrorKind::Other, format!("{what} for {address}"));
        let region = region(address);
        let endpoint = endpoint(address, &region);
        let tls = tls::configuration(address)?;
        let builder = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
        let runtime = builder.map_err(|cause| failed("No threads can be had").cause(cause))?;
        let region = s3::Region::Custom { region, endpoint: endpoint.clone() };
        let mut bucket = Bucket::new(&address.bucket, region, credentials)
            .map_err(|cause| failed("No requests can be made").cause(cause))?;
        if address.is_path_style() {
            bucket.set_path_style();
        }
        let http = reqwest::Client::builder()
            .use_preconfigured_tls(tls)
            .connect_timeout(CONNECT_TIME)
            .pool_max_idle_per_host(REQUESTS_MAX)
            // Servers close what has been idle for a minute or less; a request must not meet that.
            .pool_idle_timeout(Duration::from_secs(20))
            .tcp_keepalive(Duration::from_secs(15))
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|cause| failed("No connections can be made").cause(cause))?;
        Ok(Self {
            runtime,
            http,
            bucket,
            endpoint,
            patience: address.patience,
            permits: Semaphore::new(REQUESTS_MAX),
            requests: Requests::default(),
            has_answered: AtomicBool::new(false),
        })
    }

    /// What was sent so far.
    pub(super) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Sends `command` for the object at `key`, again if need be, and waits for the answer.
    pub(super) fn send(&self, key: &str, command: &Command<'_>) -> Result<Answer, Failure> {
        self.send_by(&self.bucket, key, command)
    }

    /// The same with headers that `command` has no room for.
    pub(super) fn send_with(&self, key: &str, command: &Command<'_>, headers: HeaderMap) -> Result<Answer, Failure> {
        match self.bucket.with_extra_headers(headers) {
            Ok(bucket) => self.send_by(&bucket, key, command),
            Err(cause) => Err(Failure {
                why: Why::Silent(Silence::Impossible(cause.into())),
                tries: Tries { count: 1, seconds: 0 },
                was_unclear: false,
            }),
        }
    }

    fn send_by(&self, bucket: &Bucket, key: &str, command: &Command<'_>) -> Result<Answer, Failure> {
        self.runtime.block_on(self.until_settled(bucket, key, command))
    }

    async fn until_settled(&self, bucket: &Bucket, key: &str, command: &Command<'_>) -> Result<Answer, Failure> {
        let begun = Instant::now();
        let mut was_unclear = false;
        let mut count = 0;
        loop {
            let why = match self.attempt(bucket, key, command).await {
                Ok(answer) => return Ok(answer),
                Err(why) => why,
            };
            count += 1;
            let is_refused = matches!(&why, Why::Refused(_));
            let has_answered = self.has_answered.fetch_or(is_refused, Ordering::Relaxed) || is_refused;
            let patience = if has_answered { self.patience } else { self.patience.min(FIRST_PATIENCE) };
            let pause = pause(count);
            was_unclear |= why.may_have_effect();
            let is_for_caller =
                is_conditional(command) && matches!(&why, Why::Silent(silence) if silence.may_have_effect());
            if !why.is_passing() || is_for_caller || begun.elapsed() + pause > patience {
                let tries = Tries { count, seconds: begun.elapsed().as_secs() };
                return Err(Failure { why, tries, was_unclear });
            }
            self.requests.again();
            sleep(pause).await;
        }
    }

    async fn attempt(&self, bucket: &Bucket, key: &str, command: &Command<'_>) -> Result<Answer, Why> {
        let impossible = |cause: s3::error::S3Error| Why::Silent(Silence::Impossible(cause.into()));
        // The semaphore is never closed; without a permit there would merely be one request more.
        let _permit = self.permits.acquire().await;
        let request = ReqwestRequest::new(bucket, key, command.clone()).await.map_err(impossible)?;
        let headers = request.headers().await.map_err(impossible)?;
        let signed_at = headers.get("x-amz-date").and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
        let url = request.url().map_err(impossible)?;
        let body = request.request_body().map_err(impossible)?;
        let len = body.len() as u64;
        self.requests.count(RequestKind::of(command), len);
        let sent = self.http.request(method(&command.http_verb()), url).headers(headers).body(body).send();
        let allowed = SILENCE_MAX + Duration::from_secs(len / RATE_MIN);
        let response = match timeout(allowed, sent).await {
            Ok(response) => response.map_err(|error| Why::Silent(Silence::of(error)))?,
            Err(_) => return Err(Why::Silent(Silence::TimedOut(allowed.as_secs()))),
        };
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let is_head = matches!(command.http_verb(), HttpMethod::Head);
        let body = read(response, is_head).await.map_err(Why::Silent)?;
        self.requests.received(body.len() as u64);
        if (200..300).contains(&status) {
            self.has_answered.store(true, Ordering::Relaxed);
            return Ok(Answer { headers, body });
        }
        Err(Why::Refused(Refusal::read(status, &headers, &body, &signed_at)))
    }

    /// Waits before try number `count` + 1 of somebody who tries again by himself.
    pub(super) fn pause(&self, count: u32) {
        self.requests.again();
        // A timer is made inside the runtime that drives it.
        self.runtime.block_on(async { sleep(pause(count)).await });
    }

    /// As an error about `subject`.
    pub(super) fn error(&self, subject: Subject, failure: Failure) -> StorageError {
        let Failure { why, tries, .. } = failure;
        match why {
            Why::Refused(refusal) => refusal.into_error(subject, &self.bucket.name(), &self.endpoint, tries),
            Why::Silent(silence) => silence.into_error(subject, &self.endpoint, tries),
        }
    }
}

/// Whether a try after one whose answer was lost may be refused because of that very one. A server refuses at once, and an
/// early answer to a long body is lost as well; so whoever sent it has to look before the next try.
fn is_conditional(command: &Command<'_>) -> bool {
    match command {
        Command::PutObject { custom_headers: Some(headers), .. } => headers.contains_key(IF_NONE_MATCH),
        _ => false,
    }
}

/// The whole body. One that is shorter than it said is an error of the connection.
async fn read(mut response: reqwest::Response, is_head: bool) -> Result<Vec<u8>, Silence> {
    let announced = response.content_length().unwrap_or(0).min(RESERVED_MAX);
    let mut body = Vec::new();
    if is_head {
        return Ok(body);
    }
    body.reserve_exact(usize::try_from(announced).unwrap_or(0));
    loop {
        match timeout(SILENCE_MAX, response.chunk()).await {
            Ok(Ok(Some(bytes))) => body.extend_from_slice(&bytes),
            Ok(Ok(None)) => return Ok(body),
            Ok(Err(error)) => return Err(Silence::Lost(error)),
            Err(_) => return Err(Silence::TimedOut(SILENCE_MAX.as_secs())),
        }
    }
}

/// What the answer to a HEAD says of the length.
pub(super) fn announced_len(answer: &Answer) -> Option<u64> {
    answer.header(CONTENT_LENGTH.as_str())?.parse().ok()
}

fn method(verb: &HttpMethod) -> reqwest::Method {
    match verb {
        HttpMethod::Delete => reqwest::Method::DELETE,
        HttpMethod::Get => reqwest::Method::GET,
        HttpMethod::Post => reqwest::Method::POST,
        HttpMethod::Put => reqwest::Method::PUT,
        HttpMethod::Head => reqwest::Method::HEAD,
    }
}

/// Before try number `count` + 1: from half of a time that doubles to all of it.
fn pause(count: u32) -> Duration {
    let longest = PAUSE_MIN.saturating_mul(1 << count.min(16)).min(PAUSE_MAX);
    // Without random bytes all hosts come back at once, which is not worth an error.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    longest.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0)
}

fn region(address: &S3Address) -> String {
    let environment = || credentials::variable("AWS_REGION").or_else(|| credentials::variable("AWS_DEFAULT_REGION"));
    address.region.clone().or_else(environment).unwrap_or_else(|| "us-east-1".to_owned())
}

/// The server, with its scheme.
fn endpoint(address: &S3Address, region: &str) -> String {
    let environment =
        || credentials::variable("AWS_ENDPOINT_URL_S3").or_else(|| credentials::variable("AWS_ENDPOINT_URL"));
    address.endpoint.clone().or_else(environment).unwrap_or_else(|| {
        let country = if region.starts_with("cn-") { ".cn" } else { "" };
        format!("https://s3.{region}.amazonaws.com{country}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end_at_the_longest() {
        for (count, most) in [(1, 200), (2, 400), (5, 3_200), (7, 10_000), (40, 10_000)] {
            let pause = pause(count);
            let most = Duration::from_millis(most);
            assert!(pause <= most && pause >= most / 2, "{count}: {pause:?}");
        }
    }

    #[test]
    fn servers_of_aws_are_named_by_their_region() {
        let mut address = S3Address::new("bucket", "");
        assert_eq!(endpoint(&address, "eu-central-1"), "https://s3.eu-central-1.amazonaws.com");
        assert_eq!(endpoint(&address, "cn-north-1"), "https://s3.cn-north-1.amazonaws.com.cn");
        address.endpoint = Some("http://127.0.0.1:9000".to_owned());
        assert_eq!(endpoint(&address, "default"), "http://127.0.0.1:9000");
    }
}
