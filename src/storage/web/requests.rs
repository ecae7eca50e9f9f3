//! A count of requests: object stores are paid and slow by the request, so a test holds every operation to its number.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// Reads an object or a range of it.
    Get,
    /// Asks whether an object is there, and how long it is.
    Head,
    /// One page of a listing.
    List,
    /// Writes an object or a part of one.
    Put,
    /// Begins, ends or drops an object in parts.
    Multipart,
    /// Removes an object.
    Delete,
}

impl RequestKind {
    /// All kinds.
    pub const ALL: [Self; 6] = [Self::Get, Self::Head, Self::List, Self::Put, Self::Multipart, Self::Delete];
}

/// Counters that any thread may read at any time.
#[derive(Debug, Default)]
pub struct Requests {
    counts: [AtomicU64; RequestKind::ALL.len()],
    again: AtomicU64,
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
}

impl Requests {
    pub(in crate::storage) fn count(&self, kind: RequestKind, len: u64) {
        self.counts[kind as usize].fetch_add(1, Ordering::Relaxed);
        self.bytes_sent.fetch_add(len, Ordering::Relaxed);
    }

    pub(in crate::storage) fn received(&self, len: u64) {
        self.bytes_received.fetch_add(len, Ordering::Relaxed);
    }

    pub(in crate::storage) fn again(&self) {
        self.again.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests of one kind, tries included.
    #[must_use]
    pub fn of(&self, kind: RequestKind) -> u64 {
        self.counts[kind as usize].load(Ordering::Relaxed)
    }

    /// All requests, tries included.
    #[must_use]
    pub fn all(&self) -> u64 {
        RequestKind::ALL.into_iter().map(|kind| self.of(kind)).sum()
    }

    /// How many of them were sent because the one before had failed.
    #[must_use]
    pub fn repeated(&self) -> u64 {
        self.again.load(Ordering::Relaxed)
    }

    /// Bytes of bodies, there and back.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_sent.load(Ordering::Relaxed), self.bytes_received.load(Ordering::Relaxed))
    }
}

/// `14 requests: 5 get, 6 list, 3 put`
impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests", self.all())?;
        let said = RequestKind::ALL.into_iter().map(|kind| (kind, self.of(kind))).filter(|(_, count)| *count > 0);
        for (number, (kind, count)) in said.enumerate() {
            let before = if number == 0 { ": " } else { ", " };
            write!(f, "{before}{count} {}", format!("{kind:?}").to_lowercase())?;
        }
        Ok(())
    }
}
