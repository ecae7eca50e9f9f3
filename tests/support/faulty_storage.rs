//! Storage that fails at one chosen call, for crash tests: run a scenario once and count its calls, then once for each
//! call with a fault there, reopen what is left, and look.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use compline::storage::{
    Listed, MemoryStorage, ObjectBytes, ObjectKey, ObjectKind, Storage, StorageError, StorageErrorKind,
};

/// How a call fails. In each case the caller gets an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call has no effect; later calls work. A hiccup.
    Refused,
    /// The call has its effect but the answer is lost; later calls work.
    AnswerLost,
    /// The call has no effect, and no later one works: the machine died before it.
    DiedBefore,
    /// The call has its effect, and no later one works: the machine died after it.
    DiedAfter,
}

impl Fault {
    /// All faults.
    pub const ALL: [Self; 4] = [Self::Refused, Self::AnswerLost, Self::DiedBefore, Self::DiedAfter];
}

/// Memory storage with at most one fault. Every call is counted, those that only read too.
pub struct FaultyStorage {
    objects: MemoryStorage,
    fault: Option<(u64, Fault)>,
    calls: AtomicU64,
    hit_a_read: AtomicBool,
    hit_the_end: AtomicBool,
    hit_a_key: AtomicBool,
}

impl FaultyStorage {
    /// Works, and counts.
    pub fn counting(objects: MemoryStorage) -> Self {
        Self {
            objects,
            fault: None,
            calls: AtomicU64::new(0),
            hit_a_read: AtomicBool::new(false),
            hit_the_end: AtomicBool::new(false),
            hit_a_key: AtomicBool::new(false),
        }
    }

    /// Fails at the call number `at`, counted from 0.
    pub fn failing(objects: MemoryStorage, at: u64, fault: Fault) -> Self {
        Self {
            objects,
            fault: Some((at, fault)),
            calls: AtomicU64::new(0),
            hit_a_read: AtomicBool::new(false),
            hit_the_end: AtomicBool::new(false),
            hit_a_key: AtomicBool::new(false),
        }
    }

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Whether the scenario came as far as the fault. A test in which it didn't has tested nothing.
    pub fn was_hit(&self) -> bool {
        self.fault.is_some_and(|(at, _)| self.calls() > at)
    }

    /// Whether the call that failed only reads: whether it had its effect makes no difference then.
    #[allow(dead_code, reason = "only the crash test asks")]
    pub fn hit_a_read(&self) -> bool {
        self.hit_a_read.load(Ordering::SeqCst)
    }

    /// Whether the call that failed was to end a session: everything was done by then.
    #[allow(dead_code, reason = "only the crash tests ask")]
    pub fn hit_the_end(&self) -> bool {
        self.hit_the_end.load(Ordering::SeqCst)
    }

    /// Whether the call that failed was to read a key. Who remembers the key that opened last reads it again, among all others.
    #[allow(dead_code, reason = "only the crash test asks")]
    pub fn hit_a_key(&self) -> bool {
        self.hit_a_key.load(Ordering::SeqCst)
    }

    /// What is in the storage now: what a machine finds that comes up again.
    pub fn remains(&self) -> MemoryStorage {
        self.objects.clone()
    }

    fn call<T>(&self, reads: bool, work: impl FnOnce() -> Result<T, StorageError>) -> Result<T, StorageError> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let Some((at, fault)) = self.fault else { return work() };
        self.hit_a_read.fetch_or(reads && number == at, Ordering::SeqCst);
        let dead = number > at && matches!(fault, Fault::DiedBefore | Fault::DiedAfter);
        let has_effect = !dead && (number != at || matches!(fault, Fault::AnswerLost | Fault::DiedAfter));
        let result = if has_effect { Some(work()) } else { None };
        match result {
            Some(result) if number != at => result,
            _ => Err(StorageError::with_message(StorageErrorKind::Other, format!("Injected fault at call {number}"))),
        }
    }
}

impl Storage for FaultyStorage {
    fn put_new(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        self.call(false, || self.objects.put_new(key, bytes))
    }
    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        self.call(false, || self.objects.replace(key, bytes))
    }
    fn get(&self, key: &ObjectKey) -> Result<ObjectBytes, StorageError> {
        let is_key = matches!(key, ObjectKey::Key(_)) && self.fault.is_some_and(|(at, _)| at == self.calls());
        self.hit_a_key.fetch_or(is_key, Ordering::SeqCst);
        self.call(true, || self.objects.get(key))
    }
    fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        self.call(true, || self.objects.get_range(key, range))
    }
    fn len(&self, key: &ObjectKey) -> Result<u64, StorageError> {
        self.call(true, || self.objects.len(key))
    }
    fn list(&self, kind: ObjectKind) -> Result<Vec<Listed>, StorageError> {
        self.call(true, || self.objects.list(kind))
    }
    fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        let is_end = matches!(key, ObjectKey::Session(..)) && self.fault.is_some_and(|(at, _)| at == self.calls());
        self.hit_the_end.fetch_or(is_end, Ordering::SeqCst);
        self.call(false, || self.objects.delete(key))
    }
    fn extend_locks(&self, kind: ObjectKind, is_needed: &dyn Fn(&ObjectKey) -> bool) -> Result<u64, StorageError> {
        self.call(false, || self.objects.extend_locks(kind, is_needed))
    }
    fn locked_until(&self, key: &ObjectKey) -> Result<Option<jiff::Timestamp>, StorageError> {
        self.call(true, || self.objects.locked_until(key))
    }
    fn location(&self) -> String {
        "memory with a fault".to_owned()
    }
}
