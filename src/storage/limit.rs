//! Any storage, held back: bytes a second each way, requests a second, requests at once. For lines and servers that others
//! need too.
//!
//! Each rate is a bucket that fills steadily and holds a second's worth. Who takes more than is in it waits until the
//! debt is paid, and so does everybody after; so the mean is right whatever the sizes, and nobody starves. What is
//! written waits before it is sent; what is read has to be read to know its length, so its debt is paid after.

use std::ops::Range;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Listed, ObjectBytes, ObjectKey, ObjectKind, Storage, StorageError};
use crate::pipeline;

/// How much of a line and a server may be used. None of them: as much as there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes a second that are written.
    pub upload: Option<u64>,
    /// Bytes a second that are read.
    pub download: Option<u64>,
    /// Operations a second.
    pub requests: Option<u64>,
    /// Operations at once.
    pub concurrency: Option<u64>,
}

impl Limits {
    /// These, and where they say nothing, those of `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            upload: self.upload.or(other.upload),
            download: self.download.or(other.download),
            requests: self.requests.or(other.requests),
            concurrency: self.concurrency.or(other.concurrency),
        }
    }

    /// Puts them around `storage`, if there are any.
    #[must_use]
    pub fn around(self, storage: Box<dyn Storage>) -> Box<dyn Storage> {
        if self == Self::default() { storage } else { Box::new(LimitedStorage::around(storage, self)) }
    }
}

/// A rate.
#[derive(Debug)]
struct Rate {
    per_second: u64,
    /// When all that was taken is paid for.
    paid_at: Mutex<Option<Instant>>,
}

impl Rate {
    fn new(per_second: u64) -> Self {
        Self { per_second: per_second.max(1), paid_at: Mutex::new(None) }
    }

    /// Takes `count` at `now` and says how long to wait for it.
    fn take(&self, count: u64, now: Instant) -> Duration {
        let mut paid_at = pipeline::lock(&self.paid_at);
        // What was not used for more than a second is lost.
        let full = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        let begin = paid_at.map_or(full, |paid_at| paid_at.max(full));
        let cost = u128::from(count) * 1_000_000_000 / u128::from(self.per_second);
        let end = begin + Duration::from_nanos(u64::try_from(cost).unwrap_or(u64::MAX).min(MONTH_NS));
        *paid_at = Some(end);
        end.saturating_duration_since(now)
    }

    #[expect(clippy::disallowed_methods, reason = "a rate is a matter of the stop-watch")]
    fn wait_for(&self, count: u64) {
        let wait = self.take(count, Instant::now());
        if !wait.is_zero() {
            pipeline::pause_unless_stopping(wait);
        }
    }
}

/// Nobody waits longer for one operation.
const MONTH_NS: u64 = 30 * 86_400 * 1_000_000_000;

/// So many may be inside.
#[derive(Debug)]
struct Gate {
    room: Mutex<u64>,
    left: Condvar,
}

impl Gate {
    fn enter(&self) -> Inside<'_> {
        let mut room = pipeline::lock(&self.room);
        while *room == 0 {
            room = self.left.wait(room).unwrap_or_else(PoisonError::into_inner);
        }
        *room -= 1;
        Inside(self)
    }
}

struct Inside<'g>(&'g Gate);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        *pipeline::lock(&self.0.room) += 1;
        self.0.left.notify_one();
    }
}

/// A storage that is held back.
pub struct LimitedStorage {
    inner: Box<dyn Storage>,
    upload: Option<Rate>,
    download: Option<Rate>,
    requests: Option<Rate>,
    gate: Option<Gate>,
}

impl LimitedStorage {
    /// Holds `inner` back.
    pub fn new(inner: impl Storage + 'static, limits: Limits) -> Self {
        Self::around(Box::new(inner), limits)
    }

    fn around(inner: Box<dyn Storage>, limits: Limits) -> Self {
        let gate = |room: u64| Gate { room: Mutex::new(room.max(1)), left: Condvar::new() };
        Self {
            inner,
            upload: limits.upload.map(Rate::new),
            download: limits.download.map(Rate::new),
            requests: limits.requests.map(Rate::new),
            gate: limits.concurrency.map(gate),
        }
    }

    fn write<T>(&self, len: usize, work: impl FnOnce(&dyn Storage) -> T) -> T {
        let _inside = self.gate.as_ref().map(Gate::enter);
        self.requests.iter().for_each(|rate| rate.wait_for(1));
        self.upload.iter().for_each(|rate| rate.wait_for(len as u64));
        work(self.inner.as_ref())
    }

    fn ask<T>(&self, work: impl FnOnce(&dyn Storage) -> T) -> T {
        self.write(0, work)
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&dyn Storage) -> Result<T, StorageError>,
        len: impl FnOnce(&T) -> usize,
    ) -> Result<T, StorageError> {
        let _inside = self.gate.as_ref().map(Gate::enter);
        self.requests.iter().for_each(|rate| rate.wait_for(1));
        let result = work(self.inner.as_ref())?;
        if let Some(rate) = &self.download {
            rate.wait_for(len(&result) as u64);
        }
        Ok(result)
    }
}

impl Storage for LimitedStorage {
    fn put_new(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        self.write(bytes.len(), |inner| inner.put_new(key, bytes))
    }
    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        self.write(bytes.len(), |inner| inner.replace(key, bytes))
    }
    fn get(&self, key: &ObjectKey) -> Result<ObjectBytes, StorageError> {
        self.read(|inner| inner.get(key), |bytes| bytes.len())
    }
    fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        self.read(|inner| inner.get_range(key, range), Vec::len)
    }
    fn len(&self, key: &ObjectKey) -> Result<u64, StorageError> {
        self.ask(|inner| inner.len(key))
    }
    fn list(&self, kind: ObjectKind) -> Result<Vec<Listed>, StorageError> {
        self.ask(|inner| inner.list(kind))
    }
    fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        self.ask(|inner| inner.delete(key))
    }
    fn extend_locks(&self, kind: ObjectKind, is_needed: &dyn Fn(&ObjectKey) -> bool) -> Result<u64, StorageError> {
        self.ask(|inner| inner.extend_locks(kind, is_needed))
    }
    fn locked_until(&self, key: &ObjectKey) -> Result<Option<Timestamp>, StorageError> {
        self.ask(|inner| inner.locked_until(key))
    }
    fn location(&self) -> String {
        self.inner.location()
    }
    fn requests_die_with_sender(&self) -> bool {
        self.inner.requests_die_with_sender()
    }
    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PackId;
    use crate::storage::MemoryStorage;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn the_mean_of_a_rate_is_right_whatever_the_sizes() {
        let (rate, begun) = (Rate::new(1000), Instant::now());
        assert_eq!(rate.take(1000, begun), Duration::ZERO, "a second's worth is there at first");
        assert_eq!(rate.take(500, begun), Duration::from_millis(500));
        assert_eq!(rate.take(3000, begun), Duration::from_millis(3500), "the debt of those before is paid too");
        let later = begun + Duration::from_secs(100);
        assert_eq!(rate.take(1500, later), Duration::from_millis(500), "no more than a second's worth is saved up");
        assert!(rate.take(u64::MAX, later) <= Duration::from_nanos(MONTH_NS) + Duration::from_secs(1));
    }

    #[test]
    fn no_more_than_allowed_are_inside_at_once() {
        let gate = Gate { room: Mutex::new(2), left: Condvar::new() };
        let (inside, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _inside = gate.enter();
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 2);
    }

    #[test]
    fn reads_and_writes_wait_for_their_own_rate() {
        let limits = Limits { upload: Some(1_000_000), ..Limits::default() };
        let storage = LimitedStorage::new(MemoryStorage::new(), limits);
        let begun = Instant::now();
        for number in 0..3 {
            storage.put_new(&ObjectKey::Pack(PackId::from_bytes([number; 32])), &vec![0; 400_000]).expect("it is new");
        }
        assert!(begun.elapsed() >= Duration::from_millis(190), "1.2 s of bytes, a second of them saved up");
        let begun = Instant::now();
        storage.get(&ObjectKey::Pack(PackId::from_bytes([1; 32]))).expect("it is there");
        assert!(begun.elapsed() < Duration::from_millis(190));
    }
}
