//! Rewriting a stream on its way into the archive.

use std::io::{self, Read};

/// Size of one read.
const BUFFER_LEN: usize = 64 << 10;

/// Takes a stream piece by piece, however it is cut, and gives the one that is stored instead.
pub trait Rewrite: Send {
    /// Takes the next bytes and appends what is known of the result to `out`.
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>);

    /// The stream has ended: appends what was held back.
    fn finish(&mut self, out: &mut Vec<u8>);
}

/// Reads as `inner` after it went through `rewrite`. When `inner` fails so does this; what was held back is not given out.
pub struct Rewriting<'a, R> {
    inner: R,
    rewrite: &'a mut dyn Rewrite,
    buffer: Vec<u8>,
    out: Vec<u8>,
    /// How much of `out` was given out.
    given: usize,
    ended: bool,
}

impl<'a, R: Read> Rewriting<'a, R> {
    /// Will give what `rewrite` makes of `inner`.
    pub fn new(inner: R, rewrite: &'a mut dyn Rewrite) -> Self {
        Self { inner, rewrite, buffer: vec![0; BUFFER_LEN], out: Vec::new(), given: 0, ended: false }
    }
}

impl<R: Read> Read for Rewriting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.out.len() && !self.ended {
            self.out.clear();
            self.given = 0;
            match self.inner.read(&mut self.buffer)? {
                0 => {
                    self.ended = true;
                    self.rewrite.finish(&mut self.out);
                }
                len => self.rewrite.push(&self.buffer[..len], &mut self.out),
            }
        }
        let len = (&self.out[self.given..]).read(buffer)?;
        self.given += len;
        Ok(len)
    }
}
