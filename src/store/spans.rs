//! Parts of packs that were fetched last. Each is fetched once, however many threads want it at the same time: over a line
//! the others wait no longer for it than they would for their own.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::error::Result;
use crate::id::PackId;
use crate::pipeline::lock;

/// A pack, and where in it something begins.
pub type FrameKey = (PackId, u64);

/// What was read last, up to a number of bytes.
pub struct Recent {
    kept: HashMap<FrameKey, Arc<Vec<u8>>>,
    order: VecDeque<FrameKey>,
    len: usize,
    len_max: usize,
}

impl Recent {
    /// Nothing yet.
    pub fn new(len_max: usize) -> Self {
        Self { kept: HashMap::new(), order: VecDeque::new(), len: 0, len_max }
    }

    /// What was kept under `key`, if it still is.
    pub fn get(&self, key: &FrameKey) -> Option<Arc<Vec<u8>>> {
        self.kept.get(key).cloned()
    }

    /// Keeps `bytes`, and lets go of what came first.
    pub fn insert(&mut self, key: FrameKey, bytes: Arc<Vec<u8>>) {
        self.len += bytes.len();
        if let Some(old) = self.kept.insert(key, bytes) {
            self.len -= old.len();
        } else {
            self.order.push_back(key);
        }
        while self.len > self.len_max {
            let Some(oldest) = self.order.pop_front() else { return };
            if let Some(bytes) = self.kept.remove(&oldest) {
                self.len -= bytes.len();
            }
        }
    }
}

/// Parts of packs by where they begin.
pub struct Spans {
    recent: Mutex<Recent>,
    under_way: Mutex<HashSet<FrameKey>>,
    arrived: Condvar,
}

/// A span that somebody fetches, until this is dropped.
struct Fetching<'s> {
    spans: &'s Spans,
    key: FrameKey,
}

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        lock(&self.spans.under_way).remove(&self.key);
        self.spans.arrived.notify_all();
    }
}

impl Spans {
    /// Keeps so many bytes.
    pub fn new(len_max: usize) -> Self {
        Self { recent: Mutex::new(Recent::new(len_max)), under_way: Mutex::default(), arrived: Condvar::new() }
    }

    /// The span at `key`; `fetch` gets it if nobody has it or is about to.
    ///
    /// # Errors
    /// From `fetch`. Others who waited try by themselves.
    pub fn get(&self, key: FrameKey, fetch: impl FnOnce() -> Result<Vec<u8>>) -> Result<Arc<Vec<u8>>> {
        let mut under_way = lock(&self.under_way);
        loop {
            if let Some(span) = lock(&self.recent).get(&key) {
                return Ok(span);
            }
            if under_way.insert(key) {
                break;
            }
            under_way = self.arrived.wait(under_way).unwrap_or_else(PoisonError::into_inner);
        }
        drop(under_way);
        let _fetching = Fetching { spans: self, key };
        let span = Arc::new(fetch()?);
        lock(&self.recent).insert(key, span.clone());
        Ok(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::sync::atomic::{AtomicU64, Ordering};

    const KEY: FrameKey = (PackId::from_bytes([1; 32]), 0);

    #[test]
    fn a_span_that_many_want_is_fetched_once() {
        let (spans, count) = (Spans::new(100), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let fetch = || {
                        count.fetch_add(1, Ordering::Relaxed);
                        std::thread::yield_now();
                        Ok(vec![7; 10])
                    };
                    assert_eq!(*spans.get(KEY, fetch).unwrap(), [7; 10]);
                });
            }
        });
        assert_eq!(count.into_inner(), 1);
    }

    #[test]
    fn who_can_not_get_a_span_leaves_it_to_others() {
        let spans = Spans::new(100);
        spans.get(KEY, || Err(Error::damaged("gone"))).unwrap_err();
        assert_eq!(*spans.get(KEY, || Ok(vec![1])).unwrap(), [1]);
    }

    #[test]
    fn what_came_first_is_let_go_of_first() {
        let spans = Spans::new(20);
        for start in 0..3 {
            spans.get((KEY.0, start), || Ok(vec![0; 10])).unwrap();
        }
        assert!(spans.get((KEY.0, 0), || Err(Error::damaged("asked again"))).is_err());
        assert!(spans.get((KEY.0, 2), || Err(Error::damaged("kept"))).is_ok());
    }
}
