//! One request to somebody else than the server of a line: to whoever gives out keys. It has a connection of its own, is counted
//! nowhere, and its patience is short, for it stands before the first request of a run.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, Url};
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use super::{Refusal, Silence, Web, pause, tls};

/// So often it is tried.
const TRIES_MAX: u32 = 3;
/// To reach who is near (a link-local address, the loopback), and for the whole of such a request. Where nobody has that
/// address nothing refuses, and every command would wait for it.
const NEAR_CONNECT_TIME: Duration = Duration::from_secs(1);
const NEAR_TIME: Duration = Duration::from_secs(5);
/// The same for anybody.
const FAR_TIME: Duration = Duration::from_secs(20);
/// No such answer is longer.
const ANSWER_LEN_MAX: usize = 1 << 20;

/// What is asked, and of whom.
pub(in crate::storage) struct Errand {
    pub(in crate::storage) method: Method,
    pub(in crate::storage) url: Url,
    pub(in crate::storage) headers: HeaderMap,
    /// May hold a token.
    pub(in crate::storage) body: Zeroizing<String>,
    /// Whether it is this machine, or what it runs in: no proxy knows the way, and it answers at once.
    pub(in crate::storage) is_near: bool,
    /// A file of certificates to trust beside those of the machine.
    pub(in crate::storage) ca: Option<PathBuf>,
}

/// Why there is no answer, in words.
type Reason = Box<dyn std::error::Error + Send + Sync>;

impl Errand {
    /// A plain question.
    pub(in crate::storage) fn get(url: Url, is_near: bool) -> Self {
        let (headers, body) = (HeaderMap::new(), Zeroizing::default());
        Self { method: Method::GET, url, headers, body, is_near, ca: None }
    }

    /// Asks, again if need be, and waits for the answer, which may hold keys.
    ///
    /// # Errors
    /// A [`StorageError`] about certificates, or words.
    pub(in crate::storage) fn run(&self, web: &Web) -> Result<Zeroizing<String>, Reason> {
        let http = self.client()?;
        let mut count = 0;
        loop {
            let answer = web.runtime.block_on(self.attempt(&http));
            count += 1;
            match answer {
                Ok(body) => return Ok(body),
                Err((_, true)) if count < TRIES_MAX => web.runtime.block_on(async { sleep(pause(count)).await }),
                Err((reason, _)) => return Err(format!("{}: {reason}", self.url.origin().ascii_serialization()).into()),
            }
        }
    }

    fn client(&self) -> Result<reqwest::Client, Reason> {
        let tls = tls::configuration(self.url.scheme() == "http", self.ca.as_deref())?;
        let builder = reqwest::Client::builder().use_preconfigured_tls(tls).redirect(reqwest::redirect::Policy::none());
        let builder = if self.is_near { builder.no_proxy().connect_timeout(NEAR_CONNECT_TIME) } else { builder };
        Ok(builder.build()?)
    }

    /// With a reason: whether it may pass.
    async fn attempt(&self, http: &reqwest::Client) -> Result<Zeroizing<String>, (String, bool)> {
        let asked = async {
            let request = http.request(self.method.clone(), self.url.clone());
            let response = request.headers(self.headers.clone()).body(self.body.to_string()).send().await?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Ok::<_, reqwest::Error>((status, headers, response.bytes().await?))
        };
        let allowed = if self.is_near { NEAR_TIME } else { FAR_TIME };
        let answered =
            timeout(allowed, asked).await.map_err(|_| (format!("silent for {} s", allowed.as_secs()), true))?;
        let (status, headers, body) = answered.map_err(|error| {
            // Nobody near is somebody who comes up a moment later.
            let may_pass = !(self.is_near && error.is_connect());
            let silence = Silence::of(error);
            let may_pass = may_pass && silence.is_passing();
            (silence.reason(), may_pass)
        })?;
        let refusal = || Refusal::read(status, &headers, &body, "");
        match std::str::from_utf8(&body) {
            Ok(text) if (200..300).contains(&status) && text.len() <= ANSWER_LEN_MAX => {
                Ok(Zeroizing::new(text.to_owned()))
            }
            _ if (200..300).contains(&status) => Err(("no answer that can be".to_owned(), false)),
            _ => Err((format!("answered {}", refusal()), refusal().is_passing())),
        }
    }
}
