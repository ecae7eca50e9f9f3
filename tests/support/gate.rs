//! A way to an HTTP server on the loopback that can be cut: it carries bytes until so many have gone there or back, and
//! then nothing until it is opened again, as when the server has died. It can also answer some requests by itself, for
//! servers that can't be made to.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// An answer to requests that begin with `begins` and have `part` in their first line.
#[derive(Clone)]
pub struct Instead {
    pub begins: &'static str,
    pub part: &'static str,
    /// Status line and headers, without the length.
    pub head: String,
}

#[derive(Default)]
struct State {
    is_closed: bool,
    /// How many bytes may still pass there, and back. None: any.
    left: [Option<usize>; 2],
    instead: Option<Instead>,
    streams: Vec<TcpStream>,
}

impl State {
    fn close(&mut self) {
        self.is_closed = true;
        self.streams.drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }

    /// Whether `len` bytes may pass. If not, nothing does any more.
    fn may_pass(&mut self, way: usize, len: usize) -> bool {
        match &mut self.left[way] {
            Some(left) if *left < len => self.close(),
            Some(left) => *left -= len,
            None => {}
        }
        !self.is_closed
    }
}

pub struct Gate {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Gate {
    /// An open one, to the server at the port `server`.
    pub fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = Self { port: listener.local_addr().unwrap().port(), state: Arc::default() };
        let state = Arc::clone(&gate.state);
        // It ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                pass(&stream.unwrap(), server, &state);
            }
        });
        gate
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets so many bytes pass to the server, and then nothing.
    pub fn close_after_sending(&self, len: usize) {
        self.state.lock().unwrap().left[0] = Some(len);
    }

    /// Lets so many bytes pass from the server, and then nothing.
    pub fn close_after_receiving(&self, len: usize) {
        self.state.lock().unwrap().left[1] = Some(len);
    }

    pub fn answer(&self, instead: Instead) {
        self.state.lock().unwrap().instead = Some(instead);
    }

    /// Opens it again, and lets everything pass.
    pub fn open(&self) {
        *self.state.lock().unwrap() = State::default();
    }
}

fn pass(client: &TcpStream, port: u16, state: &Arc<Mutex<State>>) {
    let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut held = state.lock().unwrap();
    if held.is_closed {
        return;
    }
    held.streams.extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
    for (way, from, to) in [(0, client, &server), (1, &server, client)] {
        let (from, to, state) = (from.try_clone().unwrap(), to.try_clone().unwrap(), Arc::clone(state));
        thread::spawn(move || carry(way, from, to, &state));
    }
}

fn carry(way: usize, mut from: TcpStream, mut to: TcpStream, state: &Mutex<State>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(len) = from.read(&mut buffer) {
        let bytes = &buffer[..len];
        let (passes, instead) = {
            let mut state = state.lock().unwrap();
            (state.may_pass(way, len), state.instead.clone().filter(|instead| way == 0 && instead.is_for(bytes)))
        };
        if len == 0 || !passes {
            break;
        }
        let carried = match instead {
            Some(instead) => instead.answer(bytes, &mut from),
            None => to.write_all(bytes).is_ok(),
        };
        if !carried {
            break;
        }
    }
    let _closed_already = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

impl Instead {
    /// A request begins where a read does: the client waits for the answer to the one before.
    fn is_for(&self, bytes: &[u8]) -> bool {
        let line = String::from_utf8_lossy(bytes.split(|byte| *byte == b'\r').next().unwrap_or_default());
        line.starts_with(self.begins) && line.contains(self.part)
    }

    /// Takes the rest of the request, so that the answer is heard.
    fn answer(&self, bytes: &[u8], client: &mut TcpStream) -> bool {
        let text = String::from_utf8_lossy(bytes);
        let Some((head, _)) = text.split_once("\r\n\r\n") else { return false };
        let announced =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let body_at = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let left = announced.unwrap_or(0u64).saturating_sub((bytes.len() - body_at) as u64);
        let taken = std::io::copy(&mut client.take(left), &mut std::io::sink());
        let answer = format!("{}\r\ncontent-length: 0\r\n\r\n", self.head);
        taken.is_ok_and(|taken| taken == left) && client.write_all(answer.as_bytes()).is_ok()
    }
}
