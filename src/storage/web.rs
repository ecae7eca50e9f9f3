//! Requests over HTTP, whatever they are about.
//!
//! One pool of connections for all threads, how many requests are under way, how long to wait, what to try again, and a
//! count of everything. What a request says, and who may send it, is the part of those who make them.
//!
//! **Trying again.** What passes (429, 5xx, resets, silence) is tried again after a pause that doubles and is drawn at
//! random, so that many hosts don't come back in step, until the patience of the location is used up. Until the server
//! has answered anything at all, patience is short: a wrong address must not look like a slow one. Whoever sent a
//! request with an effect has to know whether an earlier try may have had it: [`Failure::was_unclear`].

mod errand;
mod requests;
pub(in crate::storage) mod tls;
mod trouble;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, HeaderMap};
use reqwest::{Method, Url};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::{StorageError, StorageErrorKind};
use crate::pipeline;

pub(in crate::storage) use errand::Errand;
pub use requests::{RequestKind, Requests};
pub(in crate::storage) use trouble::{Refusal, Silence, Subject, Tries};

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
/// Patience with a server that has never answered, and of a run that was asked to stop.
const FIRST_PATIENCE: Duration = Duration::from_secs(4);
/// After so many requests in a row that were given up, each further one is tried once: a restore asks for many packs, and must not
/// wait for each of them where the server is gone.
const GIVEN_UP_MAX: u32 = 3;
/// This machine, at the port of the address.
const LOOPBACK: [SocketAddr; 2] =
    [SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0), SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0)];
/// An answer is read into so much memory at first, whatever it says of its length.
const RESERVED_MAX: u64 = 64 << 20;

/// How often a new object is sent whose answer is lost each time.
const LOST_PUTS_MAX: u32 = 8;

/// A line to one server.
pub(in crate::storage) struct Web {
    runtime: Runtime,
    http: reqwest::Client,
    patience: Duration,
    permits: Semaphore,
    requests: Requests,
    has_answered: AtomicBool,
    /// Requests in a row that were given up.
    given_up: AtomicU32,
}

/// A request that is ready to be sent.
pub(in crate::storage) struct Prepared {
    pub(in crate::storage) kind: RequestKind,
    pub(in crate::storage) method: Method,
    pub(in crate::storage) url: Url,
    pub(in crate::storage) headers: HeaderMap,
    pub(in crate::storage) body: Vec<u8>,
    /// Whether a try after one whose answer was lost may be refused because of that very one. A server refuses at once, and an
    /// early answer to a long body is lost as well; so whoever sent it has to look before the next try.
    pub(in crate::storage) is_conditional: bool,
    /// When it was signed, in the form of `x-amz-date`.
    pub(in crate::storage) signed_at: String,
}

/// A request that was answered well.
#[derive(Debug)]
pub(in crate::storage) struct Answer {
    pub(in crate::storage) headers: HeaderMap,
    pub(in crate::storage) body: Vec<u8>,
}

impl Answer {
    pub(in crate::storage) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A request that was not.
pub(in crate::storage) struct Failure {
    why: Why,
    tries: Tries,
    /// Whether it may have had its effect all the same, in an earlier try or in the last one.
    pub(in crate::storage) was_unclear: bool,
}

enum Why {
    Refused(Refusal),
    Silent(Silence),
}

impl Failure {
    /// Whether there was no answer, so that only a look can tell.
    fn is_lost(&self) -> bool {
        matches!(&self.why, Why::Silent(silence) if silence.may_have_effect())
    }

    /// What the server answered, if it did.
    pub(in crate::storage) fn refusal(&self) -> Option<&Refusal> {
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

/// How a put on condition went.
pub(in crate::storage) enum Put {
    Stored,
    Exists,
    Failed(Failure),
}

impl Failure {
    /// As an error about `subject`.
    pub(in crate::storage) fn into_error(self, subject: Subject, bucket: &str, endpoint: &str) -> StorageError {
        let Self { why, tries, .. } = self;
        match why {
            Why::Refused(refusal) => refusal.into_error(subject, bucket, endpoint, tries),
            Why::Silent(silence) => silence.into_error(subject, endpoint, tries),
        }
    }
}

impl Web {
    /// Gets ready; sends nothing. `place` is for messages. A `host` below `localhost` is this machine (RFC 6761), whatever is
    /// known of it to those who are asked for names as a rule.
    ///
    /// # Errors
    /// When threads can't be had.
    pub(in crate::storage) fn new(
        tls: rustls::ClientConfig,
        patience: Duration,
        place: &str,
        host: &str,
    ) -> Result<Self, StorageError> {
        let failed = |what: &str| StorageError::with_message(StorageErrorKind::Other, format!("{what} for {place}"));
        let builder = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
        let runtime = builder.map_err(|cause| failed("No threads can be had").cause(cause))?;
        let named = reqwest::Client::builder();
        let named = if host.ends_with(".localhost") { named.resolve_to_addrs(host, &LOOPBACK) } else { named };
        let http = named
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
            patience,
            permits: Semaphore::new(REQUESTS_MAX),
            requests: Requests::default(),
            has_answered: AtomicBool::new(false),
            given_up: AtomicU32::new(0),
        })
    }

    /// What was sent so far.
    pub(in crate::storage) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Waits for what a library does in its own way.
    pub(in crate::storage) fn wait_for<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Sends what `prepare` makes, again if need be, each time made anew, and waits for the answer.
    pub(in crate::storage) fn send(&self, prepare: &dyn Fn() -> Result<Prepared, Silence>) -> Result<Answer, Failure> {
        let begun = Instant::now();
        let mut was_unclear = false;
        let mut count = 0;
        loop {
            let attempt = prepare().map_err(Why::Silent);
            let is_conditional = attempt.as_ref().is_ok_and(|prepared| prepared.is_conditional);
            let why = match attempt.and_then(|prepared| self.runtime.block_on(self.attempt(prepared))) {
                Ok(answer) => {
                    self.given_up.store(0, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(why) => why,
            };
            count += 1;
            let is_refused = matches!(&why, Why::Refused(_));
            let has_answered = self.has_answered.fetch_or(is_refused, Ordering::Relaxed) || is_refused;
            let patience = self.patience_now(has_answered);
            let pause = pause(count);
            was_unclear |= why.may_have_effect();
            let is_for_caller = is_conditional && matches!(&why, Why::Silent(silence) if silence.may_have_effect());
            let gives_up = why.is_passing() && begun.elapsed() + pause > patience;
            if !why.is_passing() || is_for_caller || gives_up {
                self.given_up.fetch_add(u32::from(gives_up), Ordering::Relaxed);
                let tries = Tries { count, seconds: begun.elapsed().as_secs() };
                return Err(Failure { why, tries, was_unclear });
            }
            self.requests.again();
            self.runtime.block_on(async { sleep(pause).await });
        }
    }

    fn patience_now(&self, has_answered: bool) -> Duration {
        if pipeline::is_stopping() {
            return self.patience.min(FIRST_PATIENCE);
        }
        match self.given_up.load(Ordering::Relaxed) {
            0 if has_answered => self.patience,
            0..GIVEN_UP_MAX => self.patience.min(FIRST_PATIENCE),
            _ => Duration::ZERO,
        }
    }

    /// Puts an object that must not be there yet, on that condition. Where an answer is lost it is looked whether exactly the
    /// bytes are there (`holds`; none: nothing is) before they are put again.
    ///
    /// # Errors
    /// From `holds`.
    pub(in crate::storage) fn put_on_condition(
        &self,
        put: &dyn Fn() -> Result<(), Failure>,
        holds: &dyn Fn() -> Result<Option<bool>, StorageError>,
    ) -> Result<Put, StorageError> {
        let mut count = 0;
        loop {
            let Err(failure) = put() else { return Ok(Put::Stored) };
            count += 1;
            if failure.refusal().is_some_and(Refusal::is_there_already) {
                let is_ours = failure.was_unclear && holds()? == Some(true);
                return Ok(if is_ours { Put::Stored } else { Put::Exists });
            }
            if !failure.is_lost() || count >= LOST_PUTS_MAX {
                return Ok(Put::Failed(failure));
            }
            match holds()? {
                Some(true) => return Ok(Put::Stored),
                Some(false) => return Ok(Put::Exists),
                None => {}
            }
            self.requests.again();
            // A timer is made inside the runtime that drives it.
            self.runtime.block_on(async { sleep(pause(count)).await });
        }
    }

    async fn attempt(&self, prepared: Prepared) -> Result<Answer, Why> {
        // The semaphore is never closed; without a permit there would merely be one request more.
        let _permit = self.permits.acquire().await;
        let Prepared { kind, method, url, headers, body, signed_at, .. } = prepared;
        let len = body.len() as u64;
        let is_head = method == Method::HEAD;
        self.requests.count(kind, len);
        let sent = self.http.request(method, url).headers(headers).body(body).send();
        let allowed = SILENCE_MAX + Duration::from_secs(len / RATE_MIN);
        let response = match timeout(allowed, sent).await {
            Ok(response) => response.map_err(|error| Why::Silent(Silence::of(error)))?,
            Err(_) => return Err(Why::Silent(Silence::TimedOut(allowed.as_secs()))),
        };
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = read(response, is_head).await.map_err(Why::Silent)?;
        self.requests.received(body.len() as u64);
        if (200..300).contains(&status) {
            self.has_answered.store(true, Ordering::Relaxed);
            return Ok(Answer { headers, body });
        }
        Err(Why::Refused(Refusal::read(status, &headers, &body, &signed_at)))
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
pub(in crate::storage) fn announced_len(answer: &Answer) -> Option<u64> {
    answer.header(CONTENT_LENGTH.as_str())?.parse().ok()
}

/// Before try number `count` + 1: from half of a time that doubles to all of it.
fn pause(count: u32) -> Duration {
    let longest = PAUSE_MIN.saturating_mul(1 << count.min(16)).min(PAUSE_MAX);
    // Without random bytes all hosts come back at once, which is not worth an error.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    longest.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0)
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
}
