//! Sessions (format-spec 11): a writer shows that it is there before it looks at what is there, so that nobody takes away
//! what it is going to rely on.

mod process;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use self::process::Process;
use super::envelope::{ObjectType, no_random};
use super::index::Known;
use super::repository::{Repository, Settled};
use super::retired;
use crate::crypto;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{PackId, SessionId};
use crate::observer::Context;
use crate::pipeline::{self, Sender, Worker};
use crate::storage::{ObjectKey, ObjectKind, StorageErrorKind};

/// How often a writer shows that it is alive.
const SIGN_EVERY: Duration = Duration::from_secs(5 * 60);
/// A session whose signs of life have stopped for so long, by the clock of who looks, is taken for dead. To be wrong is
/// rude and harms nobody: see [`Session::stands`].
const SILENT_MAX: SignedDuration = SignedDuration::from_hours(1);
/// `format` of the records that this program writes.
const SESSION_FORMAT: u32 = 1;

/// What a session says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// [`SESSION_FORMAT`].
    format: u32,
    /// What it is doing: `backup`, `prune`.
    pub command: String,
    /// When it began.
    pub started_at: Timestamp,
    /// Who it is.
    #[serde(flatten)]
    pub process: Process,
}

/// A running writer. Dropped, it has ended.
#[must_use = "a session that is dropped at once protects nothing"]
pub struct Session {
    repository: Repository,
    id: SessionId,
    signs: Option<(Sender<()>, Worker)>,
    is_left: bool,
    /// What was on lists when it looked, and what it found then.
    avoided: HashSet<PackId>,
    settled: Option<Settled>,
}

impl Session {
    /// Shows that a writer is there. Only after this may it look at what is stored.
    ///
    /// # Errors
    /// From the storage.
    pub fn begin(repository: &Repository, command: &str, context: &Context<'_>) -> Result<Self> {
        let id = SessionId::from_bytes(crypto::random().map_err(no_random)?);
        let record = SessionRecord {
            format: SESSION_FORMAT,
            command: command.to_owned(),
            started_at: context.clock.now(),
            process: Process::this(),
        };
        put(repository, id, 0, &record)?;
        let mut session = Self {
            repository: repository.clone(),
            id,
            signs: None,
            is_left: false,
            avoided: HashSet::new(),
            settled: None,
        };
        let (stop, stopped) = pipeline::bounded::<()>(0);
        let repository = repository.clone();
        let signs = Worker::spawn("session", move || {
            let mut sign = 0;
            while stopped.recv_timeout(SIGN_EVERY).is_err_and(|error| error.is_timeout()) {
                // One that can't be shown now is shown the next time; the anchor stays in any case.
                if put(&repository, id, sign + 1, &record).is_ok() {
                    withdraw(&repository, id, sign);
                    sign += 1;
                }
            }
            withdraw(&repository, id, sign);
        });
        let signs = signs.map_err(|cause| Error::io("A thread can't be started", cause))?;
        session.signs = Some((stop, signs));
        Ok(session)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// From now on the index counts nothing as stored that is on its way out, nor what is not there. True if packs were
    /// lost.
    ///
    /// # Errors
    /// From storage and index.
    pub fn avoid_retired(&mut self, context: &Context<'_>) -> Result<bool> {
        let lists = retired::list(&self.repository)?;
        self.avoided = lists.into_iter().flat_map(|list| list.packs).collect();
        self.settle(context)
    }

    /// What was on lists when this session looked.
    #[must_use]
    pub fn avoided(&self) -> &HashSet<PackId> {
        &self.avoided
    }

    /// Looks again at what is there, and still relies on nothing that was on a list when this session began to look.
    ///
    /// # Errors
    /// From storage and index.
    pub fn settle(&mut self, context: &Context<'_>) -> Result<bool> {
        let settled = self.repository.settle(context)?;
        self.repository.index().set_aside(&self.avoided)?;
        self.settled = Some(settled);
        Ok(settled.has_lost_packs)
    }

    /// What of the index was there when this session looked last, and what it stored itself until then.
    #[must_use]
    pub fn known(&self) -> Known {
        self.settled.map_or(Known::ALL, |settled| settled.known)
    }

    /// Whether the index learned of packs since this session looked: of another process of this machine, or out of an index
    /// segment. It may have heard of them before they went.
    ///
    /// # Errors
    /// From SQLite.
    pub fn has_learned(&self) -> Result<bool> {
        Ok(self.settled.map(|settled| settled.state) != Some(self.repository.index().state()?))
    }

    /// Whether nobody has taken this writer for dead. If somebody has, whatever it relies on may be gone since.
    ///
    /// # Errors
    /// From the storage.
    pub fn stands(&self) -> Result<bool> {
        match self.repository.storage().len(&ObjectKey::Session(self.id, 0)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == StorageErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The writer relies on nothing any more.
    pub fn end(self) {
        drop(self);
    }

    /// Nobody knows whether what was published last is going to appear yet: the session is left to others, who take it for
    /// dead in time.
    pub fn leave(mut self) {
        self.is_left = true;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some((stop, signs)) = self.signs.take() {
            drop(stop);
            drop(signs);
        }
        if self.is_left {
            return;
        }
        // If this fails somebody else finds the process gone.
        let _left_behind = self.repository.storage().delete(&ObjectKey::Session(self.id, 0));
    }
}

fn put(repository: &Repository, id: SessionId, sign: u32, record: &SessionRecord) -> Result<()> {
    let plain = serde_json::to_vec(record)
        .map_err(|cause| Error::new(ErrorKind::Bug, "The session can't be encoded").cause(cause))?;
    let object = repository.seal_record(ObjectType::Session, &plain)?;
    match repository.storage().put_new(&ObjectKey::Session(id, sign), &object) {
        // The answer was lost when it was shown.
        Err(error) if sign > 0 && error.kind() == StorageErrorKind::Exists => Ok(()),
        shown => Ok(shown?),
    }
}

/// Takes back a sign of life, but never the session itself.
fn withdraw(repository: &Repository, id: SessionId, sign: u32) {
    if sign > 0 {
        let _left_behind = repository.storage().delete(&ObjectKey::Session(id, sign));
    }
}

/// A session as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenSession {
    /// Its name.
    pub id: SessionId,
    /// All its signs of life that are there, the session itself among them as 0.
    signs: Vec<u32>,
    /// What it says of itself, if that can be read.
    pub record: Option<SessionRecord>,
}

impl SeenSession {
    /// In words.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.record {
            Some(SessionRecord { command, started_at, process, .. }) => {
                let started = started_at.strftime("%Y-%m-%dT%H:%M:%SZ");
                format!("{command} on {}, process {}, since {started}", process.host, process.pid)
            }
            None => format!("session {}, which can't be read", self.id.short()),
        }
    }
}

/// The sessions that stand.
///
/// # Errors
/// From the storage.
pub fn list(repository: &Repository) -> Result<Vec<SeenSession>> {
    let mut signs: BTreeMap<SessionId, Vec<u32>> = BTreeMap::new();
    for row in repository.storage().list(ObjectKind::Session)? {
        if let ObjectKey::Session(id, sign) = row.key {
            signs.entry(id).or_default().push(sign);
        }
    }
    let mut found = Vec::new();
    for (id, signs) in signs {
        if !signs.contains(&0) {
            // Who only reads clears nothing away.
            for sign in signs.into_iter().filter(|_| repository.can_write()) {
                withdraw(repository, id, sign);
            }
            continue;
        }
        let record = match repository.storage().get(&ObjectKey::Session(id, 0)) {
            Ok(object) => {
                let plain = repository.open_record(ObjectType::Session, &object).ok();
                plain.and_then(|plain| serde_json::from_slice(&plain).ok())
            }
            Err(error) if error.kind() == StorageErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        found.push(SeenSession { id, signs, record });
    }
    Ok(found)
}

/// The sessions that stand and are alive. Those of processes that are gone, and those that have been silent for long, are
/// ended.
///
/// # Errors
/// From storage and index.
pub fn list_living(repository: &Repository, context: &Context<'_>) -> Result<Vec<SeenSession>> {
    let this = Process::this();
    let mut living = Vec::new();
    for session in list(repository)? {
        let newest = session.signs.iter().copied().max().unwrap_or(0);
        let now = context.clock.now();
        let seen = repository.index().sign_seen(session.id, newest, now)?;
        // A request that a dead process sent may still arrive where somebody carries it.
        let is_over = repository.storage().requests_die_with_sender();
        let is_gone = is_over && session.record.as_ref().is_some_and(|record| record.process.is_gone(&this));
        if is_gone || now.duration_since(seen) >= SILENT_MAX {
            context.observer.detail(&format!("Ended a dead session: {}", session.describe()));
            end(repository, &session)?;
        } else {
            living.push(session);
        }
    }
    Ok(living)
}

/// Ends somebody's session. If it lives after all it finds out before anything it publishes counts.
fn end(repository: &Repository, session: &SeenSession) -> Result<()> {
    match repository.storage().delete(&ObjectKey::Session(session.id, 0)) {
        Ok(()) => {}
        Err(error) if error.kind() == StorageErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    for sign in &session.signs {
        withdraw(repository, session.id, *sign);
    }
    Ok(())
}
