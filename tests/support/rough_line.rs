//! A line on the loopback between a client and a server: as long, as narrow and as unreliable as a test or a bench wants it.
//!
//! Bytes wait for their turn on the line, whose width all connections share, and then for the time of the way; those behind
//! them follow meanwhile, as on a real line: length costs no throughput by itself, only to who waits for answers. A
//! connection is made in one way there and back. What is not here: packets that get lost, and the slow start of TCP.
#![allow(dead_code, reason = "each crate uses a part of it")]

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Bytes that travel together.
const PIECE_LEN: usize = 64 << 10;
/// Pieces of one connection that are under way each way: 8 MiB, which is what TCP has room for at most.
const PIECES_UNDER_WAY: usize = 128;
/// So much may wait for its turn where the line begins; more waits with who sends.
const QUEUE: Duration = Duration::from_millis(5);

/// What a line is like.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nature {
    /// From one end to the other: half of what `ping` tells.
    pub way: Duration,
    /// Bytes a second each way, of all connections together. None: as many as there are.
    pub rate: Option<u64>,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fate {
    /// It lasts.
    #[default]
    Whole,
    /// It is reset when so many bytes went to the server.
    CutUp(u64),
    /// It is reset when so many bytes came back.
    CutDown(u64),
    /// It ends in order, as if the server had said all, when so many bytes came back.
    Truncated(u64),
    /// Somebody on the way answers in HTTP that the service is unavailable.
    Refused,
}

/// Where one direction of a connection ends.
#[derive(Clone, Copy)]
struct Limit {
    len: u64,
    /// Not in order.
    is_reset: bool,
}

impl Fate {
    fn limits(self) -> [Limit; 2] {
        let none = Limit { len: u64::MAX, is_reset: false };
        match self {
            Self::Whole | Self::Refused => [none, none],
            Self::CutUp(len) => [Limit { len, is_reset: true }, none],
            Self::CutDown(len) => [none, Limit { len, is_reset: true }],
            Self::Truncated(len) => [none, Limit { len, is_reset: false }],
        }
    }
}

const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 5\r\n\r\nlater";

type Fates = Box<dyn FnMut(u64) -> Fate + Send>;

/// One direction.
#[derive(Default)]
struct Direction {
    /// When all that was taken has left.
    free_at: Mutex<Option<Instant>>,
    carried: AtomicU64,
}

impl Direction {
    /// Waits until `len` bytes are on the line, and says when they arrive.
    async fn take(&self, len: usize, nature: Nature) -> Instant {
        self.carried.fetch_add(len as u64, Ordering::Relaxed);
        let now = Instant::now();
        let Some(rate) = nature.rate else { return now + nature.way };
        let gone = {
            let mut free_at = self.free_at.lock().unwrap();
            let begin = free_at.map_or(now, |free_at| free_at.max(now));
            *free_at.insert(begin + Duration::from_nanos(len as u64 * 1_000_000_000 / rate))
        };
        sleep_until(gone.checked_sub(QUEUE).unwrap_or(gone)).await;
        gone + nature.way
    }
}

struct State {
    port: u16,
    nature: Nature,
    up: Direction,
    down: Direction,
    connections: AtomicU64,
    fates: Mutex<Fates>,
}

/// The near end of a line. It ends when this is dropped, with all connections.
pub struct RoughLine {
    port: u16,
    state: Arc<State>,
    _runtime: Runtime,
}

impl RoughLine {
    /// A line to the server at `port` on which nothing happens.
    pub fn to(port: u16, nature: Nature) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let near = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            port,
            nature,
            up: Direction::default(),
            down: Direction::default(),
            connections: AtomicU64::new(0),
            fates: Mutex::new(Box::new(|_| Fate::Whole)),
        });
        runtime.spawn(accept(listener, Arc::clone(&state)));
        Self { port: near, state, _runtime: runtime }
    }

    /// Where clients find it.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Decides what becomes of connections from here on, by how many there were before.
    pub fn set_fates(&self, fates: impl FnMut(u64) -> Fate + Send + 'static) {
        *self.state.fates.lock().unwrap() = Box::new(fates);
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Bytes so far, to the server and back.
    pub fn carried(&self) -> (u64, u64) {
        let carried = |direction: &Direction| direction.carried.load(Ordering::Relaxed);
        (carried(&self.state.up), carried(&self.state.down))
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((client, _)) = listener.accept().await {
        let number = state.connections.fetch_add(1, Ordering::Relaxed);
        let fate = (state.fates.lock().unwrap())(number);
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let _ended = match fate {
                Fate::Refused => refuse(client).await,
                fate => connect(client, fate, state).await,
            };
        });
    }
}

/// Answers the first request that comes, and listens until the client has had enough.
async fn refuse(mut client: TcpStream) -> io::Result<()> {
    let mut bytes = vec![0; PIECE_LEN];
    if client.read(&mut bytes).await? > 0 {
        client.write_all(REFUSAL).await?;
        client.shutdown().await?;
        while client.read(&mut bytes).await? > 0 {}
    }
    Ok(())
}

async fn connect(client: TcpStream, fate: Fate, state: Arc<State>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let server = TcpStream::connect(("127.0.0.1", state.port)).await?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let [up_limit, down_limit] = fate.limits();
    let (ended, mut ends) = mpsc::channel(2);
    let (tell, state_up) = (ended.clone(), Arc::clone(&state));
    let up = tokio::spawn(async move {
        // The first bytes come behind a greeting there and back.
        let greeting = state_up.nature.way * 2;
        let way = Way { direction: &state_up.up, nature: state_up.nature, limit: up_limit };
        let _cut_already = tell.send(carry(from_client, to_server, way, greeting).await).await;
    });
    let down = tokio::spawn(async move {
        let way = Way { direction: &state.down, nature: state.nature, limit: down_limit };
        let _cut_already = ended.send(carry(from_server, to_client, way, Duration::ZERO).await).await;
    });
    // Each direction ends by itself, but a cut ends both.
    while let Some(End::Over) = ends.recv().await {}
    up.abort();
    down.abort();
    Ok(())
}

#[derive(Clone, Copy)]
struct Way<'s> {
    direction: &'s Direction,
    nature: Nature,
    limit: Limit,
}

/// Bytes on the line.
struct Piece {
    due: Instant,
    bytes: Vec<u8>,
}

enum End {
    Over,
    Cut,
}

/// One direction of a connection, to its end.
async fn carry(mut from: OwnedReadHalf, to: OwnedWriteHalf, way: Way<'_>, greeting: Duration) -> End {
    let (sender, arriving) = mpsc::channel(PIECES_UNDER_WAY);
    let arrives = tokio::spawn(arrive(arriving, to));
    let end = depart(&mut from, sender, way, greeting).await;
    let Ok(to) = arrives.await else { return End::Cut };
    if matches!(end, End::Cut) && way.limit.is_reset {
        let streams: [&TcpStream; 2] = [from.as_ref(), to.as_ref()];
        let _gone_already = streams.map(TcpStream::set_zero_linger);
        to.forget();
    }
    end
}

async fn depart(from: &mut OwnedReadHalf, line: mpsc::Sender<Piece>, way: Way<'_>, mut late: Duration) -> End {
    let mut left = way.limit.len;
    while left > 0 {
        let mut bytes = vec![0; PIECE_LEN.min(usize::try_from(left).unwrap_or(PIECE_LEN))];
        let Ok(len @ 1..) = from.read(&mut bytes).await else { return End::Over };
        bytes.truncate(len);
        left -= len as u64;
        let due = way.direction.take(len, way.nature).await + std::mem::take(&mut late);
        if line.send(Piece { due, bytes }).await.is_err() {
            return End::Over;
        }
    }
    End::Cut
}

/// Ends with the line, or when nobody takes what arrives.
async fn arrive(mut line: mpsc::Receiver<Piece>, mut to: OwnedWriteHalf) -> OwnedWriteHalf {
    while let Some(Piece { due, bytes }) = line.recv().await {
        sleep_until(due).await;
        if to.write_all(&bytes).await.is_err() {
            break;
        }
    }
    to
}
