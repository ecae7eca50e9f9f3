//! An S3 server in the process of the test: `s3s-fs` over a directory, on a free port of the loopback, which checks signatures and
//! digests as servers do. It counts, answers with errors on demand, and can be made to pass over conditions.
//!
//! `s3s-fs` looks whether an object is there and writes it afterwards; here one request that changes something is served at a time,
//! so that a condition holds, as it does with the servers that it stands for.
#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::TokioIo;
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::host::SingleDomain;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

pub const ACCESS_KEY: &str = "AKTEST";
pub const SECRET_KEY: &str = "SKTEST";
pub const BUCKET: &str = "backups";

/// A request, as the server sees it before it is served.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub path: String,
    /// How many requests there were before.
    pub number: u64,
    pub headers: HeaderMap,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// What is answered instead of serving.
#[derive(Debug, Clone)]
pub enum Instead {
    /// A status, and a code in XML.
    Refuse(u16, &'static str),
    /// The request is served, and the answer is lost: the connection is closed.
    LoseAnswer,
    /// The request is served, and the answer ends early, shorter than it says.
    CutShort,
    /// The connection is closed, the request is not served.
    Cut,
}

type Rule = Box<dyn FnMut(&Seen) -> Option<Instead> + Send>;

/// Locks of objects by path, as the headers have them: `s3s-fs` knows none.
type Locks = BTreeMap<String, Lock>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    pub mode: String,
    pub until: String,
}

#[derive(Default)]
struct State {
    keeps_locks: AtomicBool,
    locks: Mutex<Locks>,
    connections: AtomicU64,
    requests: Mutex<Vec<Seen>>,
    rule: Mutex<Option<Rule>>,
    ignores_conditions: AtomicBool,
    reads_fast: AtomicBool,
    data: PathBuf,
    changing: tokio::sync::Mutex<()>,
}

pub struct S3Server {
    state: Arc<State>,
    root: TempDir,
    port: u16,
    /// The certificate of its authority, where it speaks TLS.
    ca: Option<PathBuf>,
    /// Whether the bucket stands in the name of the host.
    is_virtual: bool,
    _runtime: Runtime,
}

impl S3Server {
    pub fn start() -> Self {
        Self::start_with(false, false)
    }

    pub fn start_with_tls() -> Self {
        Self::start_with(true, false)
    }

    /// One that knows buckets by the names of hosts alone: `bucket.localhost`.
    pub fn start_with_hosts() -> Self {
        Self::start_with(false, true)
    }

    fn start_with(tls: bool, is_virtual: bool) -> Self {
        let root = TempDir::new().unwrap();
        std::fs::create_dir_all(root.path().join("data").join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path().join("data")).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        if is_virtual {
            builder.set_host(SingleDomain::new(&format!("localhost:{port}")).unwrap());
        }
        let service = builder.build();
        let (acceptor, ca) = if tls { Some(certified(root.path())).unzip() } else { (None, None) };
        let state = Arc::new(State { data: root.path().join("data"), ..State::default() });
        runtime.spawn(accept(listener, acceptor, service, Arc::clone(&state)));
        Self { state, root, port, ca, is_virtual, _runtime: runtime }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// LOCATION of `prefix`, reached through `port`, with options behind it.
    pub fn location_by(&self, port: u16, prefix: &str, options: &str) -> String {
        let scheme = if self.ca.is_some() { "https" } else { "http" };
        let (host, style) = if self.is_virtual { ("localhost", "&path_style=false") } else { ("127.0.0.1", "") };
        format!("s3://{BUCKET}/{prefix}?endpoint={scheme}://{host}:{port}&region=us-east-1{style}{options}")
    }

    pub fn location(&self, prefix: &str) -> String {
        let ca = self.ca().map_or_else(String::new, |ca| format!("&ca={}", ca.display()));
        self.location_by(self.port, prefix, &format!("&patience=20s{ca}"))
    }

    /// Where its objects lie.
    pub fn directory(&self) -> PathBuf {
        self.root.path().join("data").join(BUCKET)
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Requests since the last time somebody took them.
    pub fn take_requests(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.requests.lock().unwrap())
    }

    /// What to do instead of serving a request, if anything.
    pub fn set_rule(&self, rule: impl FnMut(&Seen) -> Option<Instead> + Send + 'static) {
        *self.state.rule.lock().unwrap() = Some(Box::new(rule));
    }

    pub fn clear_rule(&self) {
        *self.state.rule.lock().unwrap() = None;
    }

    /// As a bucket that was created with object lock. Versions are no part of it: what is deleted is gone.
    pub fn keep_locks(&self) {
        self.state.keeps_locks.store(true, Ordering::SeqCst);
    }

    /// The lock of the object at `path`, which begins at the bucket.
    pub fn lock(&self, path: &str) -> Option<Lock> {
        self.state.locks.lock().unwrap().get(&format!("/{BUCKET}/{path}")).cloned()
    }

    /// As if the object had been stored at another time, and been locked until another time.
    pub fn make_old(&self, path: &str, stored_at: SystemTime, until: &str) {
        let file = std::fs::File::options().append(true).open(self.directory().join(path)).unwrap();
        file.set_modified(stored_at).unwrap();
        let mut locks = self.state.locks.lock().unwrap();
        until.clone_into(&mut locks.get_mut(&format!("/{BUCKET}/{path}")).unwrap().until);
    }

    /// As a server that has never heard of `If-None-Match`.
    pub fn ignore_conditions(&self) {
        self.state.ignores_conditions.store(true, Ordering::SeqCst);
    }

    /// Objects are read in one piece and by anybody: `s3s-fs` reads 4 KiB at a time, no faster than 50 MB/s.
    pub fn read_fast(&self) {
        self.state.reads_fast.store(true, Ordering::SeqCst);
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: Option<tokio_rustls::TlsAcceptor>,
    service: S3Service,
    state: Arc<State>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        state.connections.fetch_add(1, Ordering::SeqCst);
        let (service, state, acceptor) = (service.clone(), Arc::clone(&state), acceptor.clone());
        tokio::spawn(async move {
            let _answers_at_once = stream.set_nodelay(true);
            match acceptor {
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        converse(stream, service, state).await;
                    }
                }
                None => converse::<TcpStream>(stream, service, state).await,
            }
        });
    }
}

async fn converse<S>(stream: S, service: S3Service, state: Arc<State>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(move |request| {
        let (service, state) = (service.clone(), Arc::clone(&state));
        async move { serve(request, &service, &state).await }
    });
    let _ended = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

async fn serve(
    request: Request<Incoming>,
    service: &S3Service,
    state: &State,
) -> Result<Response<Body>, std::io::Error> {
    let instead = {
        let mut requests = state.requests.lock().unwrap();
        let path = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
        let (method, headers) = (request.method().to_string(), request.headers().clone());
        let seen = Seen { method, path, number: requests.len() as u64, headers };
        requests.push(seen.clone());
        state.rule.lock().unwrap().as_mut().and_then(|rule| rule(&seen))
    };
    match instead {
        Some(Instead::Cut) => return Err(std::io::Error::other("cut")),
        Some(Instead::Refuse(status, code)) => return Ok(refusal(status, code)),
        Some(Instead::LoseAnswer | Instead::CutShort) | None => {}
    }
    let asked = Asked::of(&request);
    if let Some(answer) = state.refuse_lock(&asked) {
        return Ok(answer);
    }
    if asked.is_about_lock() {
        return Ok(state.change_lock(&asked, Body::from(request.into_body())).await);
    }
    if state.reads_fast.load(Ordering::SeqCst)
        && let Some(answer) = read_at_once(&request, &state.data)
    {
        return Ok(answer);
    }
    if state.ignores_conditions.load(Ordering::SeqCst) {
        return Ok(unconditional(request, service, state).await);
    }
    let is_change = !matches!(*request.method(), Method::GET | Method::HEAD);
    let guard = if is_change { Some(state.changing.lock().await) } else { None };
    let answer =
        service.call(request.map(Body::from)).await.map_err(|error| std::io::Error::other(format!("{error:?}")))?;
    drop(guard);
    let answer = state.with_lock(&asked, answer);
    match instead {
        Some(Instead::LoseAnswer) => Err(std::io::Error::other("answer lost")),
        Some(Instead::CutShort) => Ok(answer.map(|_| Body::from("o".to_owned()))),
        _ => Ok(answer),
    }
}

/// What locks are about in a request.
struct Asked {
    method: Method,
    path: String,
    query: String,
    lock: Option<Lock>,
}

impl Asked {
    fn of(request: &Request<Incoming>) -> Self {
        let header = |name: &str| Some(request.headers().get(name)?.to_str().unwrap().to_owned());
        let lock = header("x-amz-object-lock-mode").zip(header("x-amz-object-lock-retain-until-date"));
        Self {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            query: request.uri().query().unwrap_or_default().to_owned(),
            lock: lock.map(|(mode, until)| Lock { mode, until }),
        }
    }

    fn is_about_lock(&self) -> bool {
        self.query.trim_end_matches('=') == "retention"
    }
}

impl State {
    /// What a bucket without object lock says.
    fn refuse_lock(&self, asked: &Asked) -> Option<Response<Body>> {
        let is_lock = asked.lock.is_some() || asked.is_about_lock();
        (is_lock && !self.keeps_locks.load(Ordering::SeqCst)).then(|| refusal(400, "InvalidRequest"))
    }

    /// A put of `?retention`. Nobody makes a lock shorter.
    async fn change_lock(&self, asked: &Asked, mut body: Body) -> Response<Body> {
        let text = String::from_utf8(body.store_all_limited(1 << 16).await.unwrap().to_vec()).unwrap();
        let inside = |name: &str| {
            let rest = text.split(&format!("<{name}>")).nth(1).unwrap();
            rest.split('<').next().unwrap().to_owned()
        };
        let lock = Lock { mode: inside("Mode"), until: inside("RetainUntilDate") };
        let mut locks = self.locks.lock().unwrap();
        if locks.get(&asked.path).is_some_and(|present| present.until > lock.until) {
            return refusal(403, "AccessDenied");
        }
        locks.insert(asked.path.clone(), lock);
        Response::new(Body::empty())
    }

    /// Keeps the lock of what was stored, and tells that of what is asked for.
    fn with_lock(&self, asked: &Asked, mut answer: Response<Body>) -> Response<Body> {
        let mut locks = self.locks.lock().unwrap();
        if !answer.status().is_success() {
            return answer;
        }
        match asked.lock.clone() {
            Some(lock) => drop(locks.insert(asked.path.clone(), lock)),
            None if asked.method == Method::DELETE => drop(locks.remove(&asked.path)),
            None => {}
        }
        if let Some(lock) = locks.get(&asked.path).filter(|_| asked.method == Method::HEAD) {
            answer.headers_mut().insert("x-amz-object-lock-mode", lock.mode.parse().unwrap());
            answer.headers_mut().insert("x-amz-object-lock-retain-until-date", lock.until.parse().unwrap());
        }
        answer
    }
}

/// What a GET asks for, if it is an object or a range of one.
fn read_at_once(request: &Request<Incoming>, data: &Path) -> Option<Response<Body>> {
    if *request.method() != Method::GET || request.uri().query().is_some_and(|query| query.contains("list-type")) {
        return None;
    }
    let file = std::fs::File::open(data.join(request.uri().path().trim_start_matches('/'))).ok()?;
    let whole = file.metadata().ok()?.len();
    let range = request.headers().get("range").and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
    let (start, end) = match range.and_then(|range| range.split_once('-')) {
        Some((start, end)) => (start.parse().ok()?, end.parse::<u64>().ok()? + 1),
        None => (0, whole),
    };
    let mut bytes = vec![0; usize::try_from(end.checked_sub(start)?).ok()?];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, start).ok()?;
    let answer = Response::builder().status(if range.is_some() { 206 } else { 200 });
    answer.header("content-range", format!("bytes {start}-{}/{whole}", end - 1)).body(Body::from(bytes)).ok()
}

/// Serves a conditional put as a plain one: what is there is taken away before, and nobody looks meanwhile.
async fn unconditional(request: Request<Incoming>, service: &S3Service, state: &State) -> Response<Body> {
    let _guard = state.changing.lock().await;
    if request.headers().contains_key("if-none-match") {
        let path = request.uri().path().trim_start_matches('/').to_owned();
        let _was_not_there = std::fs::remove_file(state.data.join(path));
    }
    match service.call(request.map(Body::from)).await {
        Ok(answer) => answer,
        Err(_) => refusal(500, "InternalError"),
    }
}

fn refusal(status: u16, code: &str) -> Response<Body> {
    let xml = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as the test wants</Message></Error>");
    Response::builder().status(status).header("content-type", "application/xml").body(Body::from(xml)).unwrap()
}

/// What speaks TLS for 127.0.0.1, and the file with the certificate of the authority that says so.
fn certified(directory: &Path) -> (tokio_rustls::TlsAcceptor, PathBuf) {
    let _set_already = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let path = directory.join("ca.pem");
    std::fs::write(&path, certified.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let configuration = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    (tokio_rustls::TlsAcceptor::from(Arc::new(configuration)), path)
}
