//! Locks of objects: until a time nobody can delete a version of an object or put another in its place, whatever rights he
//! has (compliance), or only with a right of its own (governance). A delete hides the object, and the version stays.
//!
//! - **Set when stored**, on everything that a restore needs; never on sessions and lists of what is retired, which come and
//!   go with each run.
//! - **Extended for what is needed**, which [`extend_locks`] is told. Whoever calls it at least once in half of the term
//!   leaves nothing that is needed without a lock at any time: each time whatever has less than half of the term left gets the whole
//!   of it again.
//! - **Few requests.** A list tells when objects were stored, and those stored within the last half of the term have more
//!   than half left without being asked. Each of the others costs a HEAD, and a PUT every second time.
//!
//! [`extend_locks`]: super::Storage::extend_locks

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use s3::command::Command;

use super::super::web::{Answer, Failure};
use super::{ObjectKey, ObjectKind, S3Storage, StorageError, StorageErrorKind};
use crate::clock::{Clock, SystemClock};
use crate::pipeline;

const MODE: HeaderName = HeaderName::from_static("x-amz-object-lock-mode");
const UNTIL: HeaderName = HeaderName::from_static("x-amz-object-lock-retain-until-date");
/// Looked after at once.
const AT_ONCE: usize = 8;
/// Servers take no longer term: a hundred years.
pub(super) const TERM_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Who may lift a lock before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Whoever has the right to pass over it.
    Governance,
    /// Nobody.
    Compliance,
}

impl LockMode {
    const ALL: [Self; 2] = [Self::Governance, Self::Compliance];

    /// Its name in a location.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Governance => "governance",
            Self::Compliance => "compliance",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == text)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Governance => "GOVERNANCE",
            Self::Compliance => "COMPLIANCE",
        }
    }
}

/// How objects are locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectLock {
    /// Who may lift it.
    pub mode: LockMode,
    /// For how long, each time.
    pub term: Duration,
}

impl ObjectLock {
    /// The end of a lock that begins now, to the second as servers want it, never less than the term.
    fn until(&self, now: Timestamp) -> Timestamp {
        let end = now.saturating_add(SignedDuration::try_from(self.term).unwrap_or(SignedDuration::MAX));
        let end = end.unwrap_or(Timestamp::MAX).as_second().saturating_add(1);
        Timestamp::from_second(end).unwrap_or(Timestamp::MAX)
    }

    /// What has a lock until then needs no other at `now`.
    fn is_enough(&self, until: Timestamp, now: Timestamp) -> bool {
        let left = until.duration_since(now);
        left.unsigned_abs() >= self.term / 2 && left.is_positive()
    }

    /// What says so when an object of `kind` is stored.
    pub(super) fn headers(&self, kind: ObjectKind) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !matches!(kind, ObjectKind::Session | ObjectKind::Retired) {
            let until = text(self.until(SystemClock.now()));
            headers.insert(MODE, HeaderValue::from_static(self.mode.word()));
            headers.insert(UNTIL, HeaderValue::from_str(&until).expect("cannot fail because a time is ASCII"));
        }
        headers
    }
}

fn text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What an answer says of the lock. Nothing, too, where whoever asks may not know.
struct Lock {
    is_compliance: bool,
    until: Timestamp,
}

impl Lock {
    fn of(answer: &Answer) -> Option<Self> {
        let until = answer.header(UNTIL.as_str())?.parse().ok()?;
        Some(Self { is_compliance: answer.header(MODE.as_str()) == Some(LockMode::Compliance.word()), until })
    }
}

impl S3Storage {
    fn lock_of(&self, key: &ObjectKey) -> Result<Option<Lock>, StorageError> {
        match self.client.send(&self.name(key), &Command::HeadObject) {
            Ok(answer) => Ok(Lock::of(&answer)),
            Err(failure) => match self.error(key, failure) {
                error if error.kind() == StorageErrorKind::NotFound => Ok(None),
                error => Err(error),
            },
        }
    }

    /// [`Storage::locked_until`].
    pub(super) fn end_of_lock(&self, key: &ObjectKey) -> Result<Option<Timestamp>, StorageError> {
        let lock = if self.address.lock.is_some() { self.lock_of(key)? } else { None };
        Ok(lock.map(|lock| lock.until).filter(|until| *until > SystemClock.now()))
    }

    /// [`Storage::extend_locks`].
    pub(super) fn extend(&self, kind: ObjectKind, is_needed: &dyn Fn(&ObjectKey) -> bool) -> Result<u64, StorageError> {
        let Some(lock) = self.address.lock.filter(|_| !matches!(kind, ObjectKind::Session | ObjectKind::Retired))
        else {
            return Ok(0);
        };
        let now = SystemClock.now();
        let rows = self.rows(kind)?.into_iter();
        let old = rows.filter(|(_, stored_at)| {
            let stored_at: Option<Timestamp> = stored_at.parse().ok();
            stored_at.is_none_or(|stored_at| !lock.is_enough(lock.until(stored_at), now))
        });
        let keys: Vec<ObjectKey> = old.map(|(row, _)| row.key).filter(|key| is_needed(key)).collect();
        let mut extended = 0;
        pipeline::ordered(
            pipeline::each(keys.into_iter()),
            AT_ONCE,
            AT_ONCE * 2,
            |key| self.extend_one(&key, lock, now),
            |was_due| was_due.map(|was_due| extended += u64::from(was_due)),
        )?;
        Ok(extended)
    }

    /// Whether it was due. What somebody deletes meanwhile is nobody's any more.
    fn extend_one(&self, key: &ObjectKey, lock: ObjectLock, now: Timestamp) -> Result<bool, StorageError> {
        let present = self.lock_of(key)?;
        if present.as_ref().is_some_and(|present| lock.is_enough(present.until, now)) {
            return Ok(false);
        }
        // Nobody can make the stricter of the two the other one.
        let is_compliance = present.is_some_and(|present| present.is_compliance);
        let mode = if is_compliance { LockMode::Compliance } else { lock.mode };
        let body = format!(
            "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>{}</Mode><RetainUntilDate>{}</RetainUntilDate>\
             </Retention>",
            mode.word(),
            text(lock.until(now))
        );
        let content_type = "application/xml";
        let (custom_headers, multipart) = (None, None);
        let command = Command::PutObject { content: body.as_bytes(), content_type, custom_headers, multipart };
        match self.client.send_about("retention", &self.name(key), &command) {
            Ok(_) => Ok(true),
            Err(failure) => match self.lock_error(key, failure) {
                error if error.kind() == StorageErrorKind::NotFound => Ok(false),
                error => Err(error),
            },
        }
    }

    /// An error of a request about a lock, or one that sets a lock. Where a bucket has none, servers say no more than that
    /// the request can't be.
    pub(super) fn lock_error(&self, key: &ObjectKey, failure: Failure) -> StorageError {
        let is_refused =
            failure.refusal().is_some_and(|refusal| refusal.status == 400 && refusal.code == "InvalidRequest");
        let error = self.error(key, failure);
        if is_refused && self.address.lock.is_some() {
            return error.advise(
                "Is the bucket one with object lock? That is decided when it is created; without it leave lock= out of the location",
            );
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_holds_for_its_term_at_least_and_is_extended_in_its_second_half() {
        let lock = ObjectLock { mode: LockMode::Compliance, term: Duration::from_secs(30 * 86_400) };
        let now: Timestamp = "2026-11-20T02:10:00.5Z".parse().expect("a time");
        let until = lock.until(now);
        assert_eq!(text(until), "2026-12-20T02:10:01Z");
        let days = |days: i64| now + SignedDuration::from_hours(24 * days);
        assert!(lock.is_enough(until, days(14)));
        assert!(!lock.is_enough(until, days(16)));
        assert!(!lock.is_enough(until, days(90)), "it has ended");
        let forever = ObjectLock { term: Duration::MAX, ..lock };
        assert_eq!(forever.until(now).as_second(), Timestamp::MAX.as_second());
    }

    #[test]
    fn what_comes_and_goes_with_a_run_is_not_locked() {
        let lock = ObjectLock { mode: LockMode::Governance, term: Duration::from_secs(60) };
        for kind in ObjectKind::ALL {
            let is_locked = !matches!(kind, ObjectKind::Session | ObjectKind::Retired);
            assert_eq!(lock.headers(kind).contains_key(MODE), is_locked, "{kind:?}");
        }
    }
}
