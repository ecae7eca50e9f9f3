//! Storage in bad weather: several machines reach one storage over lines that refuse, lose answers, carry things out late
//! or twice, take their time, or break for good. What happens is drawn from a seed; threads make their order their own.
//!
//! All of it is within the contract of `Storage`: a call that succeeds has had its effect, once, before it returns. Only of
//! a call that fails nobody knows whether it had its effect, or is going to have it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use compline::id::SessionId;
use compline::pipeline;
use compline::storage::{
    Listed, MemoryStorage, ObjectBytes, ObjectKey, ObjectKind, Storage, StorageError, StorageErrorKind,
};

/// What may happen to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// No effect, and an error.
    Refused,
    /// Nothing fits any more, and an error that says so.
    Full,
    /// The effect, and an error.
    AnswerLost,
    /// An error; the effect comes later, when others have gone on.
    Late,
    /// Carried out twice; the answer is that of the second time: what is put is there already, what is deleted is gone.
    Doubled,
    /// It takes its time.
    Slow,
    /// No effect, and none of this machine's later calls gets through.
    DiedBefore,
    /// The same, after the effect.
    DiedAfter,
    /// The same, and the effect comes when the machine is long gone.
    DiedLate,
}

impl Trouble {
    const OF_READS: [Self; 4] = [Self::Refused, Self::Slow, Self::Refused, Self::DiedBefore];
    const OF_CHANGES: [Self; 9] = [
        Self::Refused,
        Self::Full,
        Self::AnswerLost,
        Self::Late,
        Self::Doubled,
        Self::Slow,
        Self::DiedBefore,
        Self::DiedAfter,
        Self::DiedLate,
    ];
}

/// Calls that others make before something late comes true, at most.
const LATE_CALLS_MAX: u64 = 400;
/// What a message says of an error that was made here.
pub const INJECTED: &str = "Injected:";

#[derive(Clone)]
enum Change {
    Put(ObjectKey, Vec<u8>),
    Delete(ObjectKey),
}

impl Change {
    fn apply(&self, objects: &MemoryStorage) -> Result<(), StorageError> {
        match self {
            Self::Put(key, bytes) => objects.put_new(key, bytes),
            Self::Delete(key) => objects.delete(key),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Put(key, _) => format!("puts {}", key.path()),
            Self::Delete(key) => format!("deletes {}", key.path()),
        }
    }
}

struct UnderWay {
    due: u64,
    line: u64,
    change: Change,
}

#[derive(Default)]
struct State {
    random: u64,
    calls: u64,
    lines: u64,
    under_way: Vec<UnderWay>,
    /// Which line showed a session.
    sessions: HashMap<SessionId, u64>,
    /// Lines that nobody uses any more.
    closed: HashSet<u64>,
    counts: BTreeMap<Trouble, u64>,
    /// What changed, in order, for a post-mortem.
    history: Vec<String>,
    /// Every pack that ever was.
    packs: BTreeMap<ObjectKey, Vec<u8>>,
}

/// The storage, and what becomes of calls to it.
pub struct Weather {
    objects: MemoryStorage,
    /// One call that changes something in so many meets trouble, and one in ten times as many that read.
    one_in: u64,
    state: Mutex<State>,
}

impl Weather {
    /// Weather over `objects`: one call in `one_in` that changes something meets trouble, of those that read, which are
    /// many more, one in ten times as many.
    pub fn new(objects: MemoryStorage, seed: u64, one_in: u64) -> Arc<Self> {
        Arc::new(Self { objects, one_in, state: Mutex::new(State { random: seed, ..State::default() }) })
    }

    /// A machine's line to the storage.
    pub fn line(self: &Arc<Self>) -> Arc<Line> {
        let mut state = self.lock();
        state.lines += 1;
        Arc::new(Line {
            weather: self.clone(),
            number: state.lines,
            is_dead: AtomicBool::new(false),
            is_troubled: AtomicBool::new(false),
        })
    }

    /// A number below `end`, another one each time.
    pub fn random(&self, end: u64) -> u64 {
        self.lock().random(end)
    }

    /// Lets everything that is under way come true.
    pub fn settle(&self) {
        let mut state = self.lock();
        for late in std::mem::take(&mut state.under_way) {
            state.history.push(format!("at last line {} {}", late.line, late.change.describe()));
            let _too_late = late.change.apply(&self.objects);
        }
    }

    /// What is stored now.
    pub fn objects(&self) -> &MemoryStorage {
        &self.objects
    }

    /// Notes something for the history.
    pub fn note(&self, what: String) {
        self.lock().history.push(what);
    }

    /// What happened to anything that one of `words` names, in order.
    pub fn history(&self, words: &[String]) -> Vec<String> {
        let state = self.lock();
        let numbered = state.history.iter().enumerate().map(|(n, line)| format!("{n}: {line}"));
        numbered.filter(|line| words.iter().any(|word| line.contains(word.as_str()))).collect()
    }

    /// Every pack that ever was, beside what is there.
    pub fn everything(&self) -> MemoryStorage {
        let all = self.objects.clone();
        for (key, bytes) in &self.lock().packs {
            let _there_already = all.put_new(key, bytes);
        }
        all
    }

    /// How often each trouble was met.
    pub fn counts(&self) -> BTreeMap<Trouble, u64> {
        self.lock().counts.clone()
    }

    /// Ends the sessions of machines that are gone and of whose calls none is under way any more: what others do after an
    /// hour. `rude`: those of the living too.
    pub fn end_sessions(&self, rude: bool) -> u64 {
        let mut state = self.lock();
        let mut ended = 0;
        for row in self.objects.list(ObjectKind::Session).unwrap() {
            let ObjectKey::Session(id, _) = row.key else { continue };
            let Some(line) = state.sessions.get(&id) else { continue };
            let is_dead = state.closed.contains(line) && state.under_way.iter().all(|late| late.line != *line);
            if is_dead || rude {
                let line = *line;
                state.history.push(format!("session {id} of line {line} is ended, dead: {is_dead}"));
                ended += u64::from(self.objects.delete(&row.key).is_ok());
            }
        }
        ended
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins: what is due comes true, and what becomes of the call is drawn.
    fn draw(&self, troubles: &[Trouble], one_in: u64) -> Option<Trouble> {
        let mut state = self.lock();
        state.calls += 1;
        let now = state.calls;
        let (due, under_way): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.under_way).into_iter().partition(|late| late.due <= now);
        state.under_way = under_way;
        for late in due {
            state.history.push(format!("late, line {} {}", late.line, late.change.describe()));
            let _too_late = late.change.apply(&self.objects);
        }
        if state.random(one_in) != 0 {
            return None;
        }
        let trouble = troubles[usize::try_from(state.random(troubles.len() as u64)).unwrap()];
        *state.counts.entry(trouble).or_default() += 1;
        Some(trouble)
    }

    fn delay(&self, line: u64, change: &Change) {
        let mut state = self.lock();
        let due = state.calls + 1 + state.random(LATE_CALLS_MAX);
        state.under_way.push(UnderWay { due, line, change: change.clone() });
    }
}

impl State {
    fn random(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_add(1);
        let hash = blake3::hash(&self.random.to_le_bytes());
        u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap()) % end
    }
}

/// One machine's way to the storage.
pub struct Line {
    weather: Arc<Weather>,
    number: u64,
    is_dead: AtomicBool,
    is_troubled: AtomicBool,
}

impl Line {
    /// Whether any of its calls met trouble.
    pub fn is_troubled(&self) -> bool {
        self.is_troubled.load(Ordering::SeqCst)
    }

    /// Its number in the history.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The machine has ended what it did, one way or the other.
    pub fn close(&self) {
        self.is_dead.store(true, Ordering::SeqCst);
        self.weather.lock().closed.insert(self.number);
    }

    fn error(kind: StorageErrorKind, what: &str) -> StorageError {
        StorageError::with_message(kind, format!("{INJECTED} {what}"))
    }

    fn die(&self) -> StorageError {
        self.is_dead.store(true, Ordering::SeqCst);
        Self::error(StorageErrorKind::Other, "the machine died")
    }

    fn alive(&self) -> Result<(), StorageError> {
        let is_dead = self.is_dead.load(Ordering::SeqCst);
        if is_dead { Err(Self::error(StorageErrorKind::Other, "the machine is dead")) } else { Ok(()) }
    }

    fn linger(&self) {
        pipeline::pause(Duration::from_micros(self.weather.random(3000)));
    }

    fn read<T>(&self, work: impl FnOnce(&MemoryStorage) -> Result<T, StorageError>) -> Result<T, StorageError> {
        self.alive()?;
        let trouble = self.weather.draw(&Trouble::OF_READS, self.weather.one_in * 10);
        self.is_troubled.fetch_or(trouble.is_some(), Ordering::SeqCst);
        match trouble {
            None => {}
            Some(Trouble::Slow) => self.linger(),
            Some(Trouble::DiedBefore) => return Err(self.die()),
            Some(_) => return Err(Self::error(StorageErrorKind::Other, "refused")),
        }
        work(&self.weather.objects)
    }

    fn change(&self, change: &Change) -> Result<(), StorageError> {
        self.alive()?;
        let trouble = self.weather.draw(&Trouble::OF_CHANGES, self.weather.one_in);
        self.is_troubled.fetch_or(trouble.is_some(), Ordering::SeqCst);
        if let Change::Put(key @ ObjectKey::Pack(_), bytes) = change {
            self.weather.lock().packs.insert(*key, bytes.clone());
        }
        self.weather.note(format!("line {} {} ({trouble:?})", self.number, change.describe()));
        let result = self.carry_out(change, trouble);
        let outcome = result.as_ref().map_err(ToString::to_string);
        self.weather.note(format!("line {} {}: {outcome:?}", self.number, change.describe()));
        result
    }

    fn carry_out(&self, change: &Change, trouble: Option<Trouble>) -> Result<(), StorageError> {
        let objects = &self.weather.objects;
        let Some(trouble) = trouble else { return change.apply(objects) };
        let lost = || Self::error(StorageErrorKind::Other, "no answer");
        match trouble {
            Trouble::Refused => Err(Self::error(StorageErrorKind::Other, "refused")),
            Trouble::Full => match change {
                Change::Put(..) => Err(Self::error(StorageErrorKind::Full, "full")),
                Change::Delete(_) => Err(lost()),
            },
            Trouble::AnswerLost => {
                let _unheard = change.apply(objects);
                Err(lost())
            }
            Trouble::Late => {
                self.weather.delay(self.number, change);
                Err(lost())
            }
            Trouble::Doubled => change.apply(objects).and_then(|()| change.apply(objects)),
            Trouble::Slow => {
                self.linger();
                let result = change.apply(objects);
                self.linger();
                result
            }
            Trouble::DiedBefore => Err(self.die()),
            Trouble::DiedAfter => {
                let _unheard = change.apply(objects);
                Err(self.die())
            }
            Trouble::DiedLate => {
                self.weather.delay(self.number, change);
                Err(self.die())
            }
        }
    }
}

impl Storage for Line {
    fn put_new(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        if let ObjectKey::Session(id, _) = key {
            self.weather.lock().sessions.insert(*id, self.number);
        }
        self.change(&Change::Put(*key, bytes.to_vec()))
    }
    fn get(&self, key: &ObjectKey) -> Result<ObjectBytes, StorageError> {
        self.read(|objects| objects.get(key))
    }
    fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        self.read(|objects| objects.get_range(key, range))
    }
    fn len(&self, key: &ObjectKey) -> Result<u64, StorageError> {
        self.read(|objects| objects.len(key))
    }
    fn list(&self, kind: ObjectKind) -> Result<Vec<Listed>, StorageError> {
        self.weather.note(format!("line {} lists {kind:?}", self.number));
        self.read(|objects| objects.list(kind))
    }
    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), StorageError> {
        // No run of a storm heals anything.
        self.alive()?;
        self.weather.objects.replace(key, bytes)
    }
    fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        self.change(&Change::Delete(*key))
    }
    fn extend_locks(&self, kind: ObjectKind, is_needed: &dyn Fn(&ObjectKey) -> bool) -> Result<u64, StorageError> {
        self.read(|objects| objects.extend_locks(kind, is_needed))
    }
    fn locked_until(&self, key: &ObjectKey) -> Result<Option<jiff::Timestamp>, StorageError> {
        self.read(|objects| objects.locked_until(key))
    }
    fn location(&self) -> String {
        "memory in bad weather".to_owned()
    }
}
