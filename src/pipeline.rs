//! Threads. They live here and nowhere else: stages with bounded queues between them, order restored at the end.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub use crossbeam_channel::{Receiver, Sender, bounded};

/// How many threads may compute at once.
#[must_use]
pub fn parallelism() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Lets so many requests wait for answers at once that a line with a long way is kept busy: more threads work on what is split
/// between them from here on than there are cores. Of no effect where that has begun already.
pub fn overlap_requests(count: usize) {
    let _begun_already = rayon::ThreadPoolBuilder::new().num_threads(count.max(parallelism())).build_global();
}

/// A thread that is joined when dropped. It must end by itself once its queues close.
#[derive(Debug)]
pub struct Worker(Option<JoinHandle<()>>);

impl Worker {
    /// Starts `work` on a thread called `name`.
    ///
    /// # Errors
    /// When the system gives no thread.
    #[expect(clippy::disallowed_methods, reason = "the module that owns threads")]
    pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        thread::Builder::new().name(name.to_owned()).spawn(work).map(|handle| Self(Some(handle)))
    }

    /// Waits for its end. `false` if it panicked.
    #[must_use]
    pub fn join(mut self) -> bool {
        self.0.take().is_none_or(|handle| handle.join().is_ok())
    }
}

/// What `mutex` guards, also after a thread panicked with it in hand: its panic goes on where the thread is joined.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets some time pass, where nothing tells of what is waited for.
#[expect(clippy::disallowed_methods, reason = "what another machine does can only be looked at again")]
pub fn pause(time: Duration) {
    thread::sleep(time);
}

/// There is one, as there is one process to stop.
static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
/// How soon a pause ends when this process is asked to stop.
const PAUSE_PART: Duration = Duration::from_millis(50);

/// The flag that a signal sets. From then on nobody holds back or is patient any more: the run has to come to its end.
pub fn stop_flag() -> Arc<AtomicBool> {
    STOP.clone()
}

/// Whether this process was asked to stop.
pub fn is_stopping() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Lets some time pass, but none that only holds a run up that was asked to stop.
pub fn pause_unless_stopping(time: Duration) {
    let mut left = time;
    while !left.is_zero() && !is_stopping() {
        let part = left.min(PAUSE_PART);
        pause(part);
        left -= part;
    }
}

/// Does `beside` on another thread while `here` runs on this one. A panic of either goes on from here.
pub fn both<A: Send, B>(beside: impl FnOnce() -> A + Send, here: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| {
        let beside = scope.spawn(beside);
        let here = here();
        (beside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), here)
    })
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            let _ended = handle.join();
        }
    }
}

/// Puts numbered things back into order.
#[derive(Debug)]
pub struct Reorder<T> {
    next: u64,
    held: BTreeMap<u64, T>,
}

impl<T> Default for Reorder<T> {
    fn default() -> Self {
        Self { next: 0, held: BTreeMap::new() }
    }
}

impl<T> Reorder<T> {
    /// Takes the thing with `number`.
    pub fn push(&mut self, number: u64, thing: T) {
        self.held.insert(number, thing);
    }

    /// The thing that is next in order, if it is here.
    pub fn pop(&mut self) -> Option<T> {
        let thing = self.held.remove(&self.next)?;
        self.next += 1;
        Some(thing)
    }
}

/// Runs `map` over what `produce` emits on `workers` threads and gives the results to `consume` on the calling thread, in
/// order. `produce` runs on a thread of its own; its `emit` says false when nobody listens any more. At most `queue` items
/// are under way. Stops early, without consuming the rest, when `consume` fails.
///
/// # Errors
/// The first error of `consume`.
pub fn ordered<I, O, E>(
    produce: impl FnOnce(&dyn Fn(I) -> bool) + Send,
    workers: usize,
    queue: usize,
    map: impl Fn(I) -> O + Sync,
    mut consume: impl FnMut(O) -> Result<(), E>,
) -> Result<(), E>
where
    I: Send,
    O: Send,
{
    let (job_sender, jobs) = bounded::<(I, Sender<O>)>(queue);
    let (slot_sender, slots) = bounded::<Receiver<O>>(queue);
    thread::scope(|scope| {
        scope.spawn(move || {
            produce(&|item| {
                let (sender, receiver) = bounded(1);
                slot_sender.send(receiver).is_ok() && job_sender.send((item, sender)).is_ok()
            });
        });
        for _ in 0..workers.max(1) {
            let (jobs, map) = (jobs.clone(), &map);
            scope.spawn(move || {
                for (item, slot) in jobs {
                    // The consumer may have given up; then nobody wants the result.
                    let _unwanted = slot.send(map(item));
                }
            });
        }
        drop(jobs);
        for slot in slots {
            // A closed slot means that a worker panicked; the scope passes the panic on.
            let Ok(result) = slot.recv() else { break };
            consume(result)?;
        }
        Ok(())
    })
}

/// Hands a value from each item of a sequence to the next one, whichever threads they are on: a pair of ends for each
/// item. Items must be begun in order, or all threads may wait for one that nobody has begun; [`ordered`] begins them so.
#[derive(Debug)]
pub struct Relay<T>(Receiver<T>);

/// One item's place in a [`Relay`].
#[derive(Debug)]
pub struct Turn<T> {
    before: Receiver<T>,
    after: Sender<T>,
}

impl<T> Relay<T> {
    /// The first item gets `value`.
    #[must_use]
    pub fn new(value: T) -> Self {
        let (sender, receiver) = bounded(1);
        let _room = sender.send(value);
        Self(receiver)
    }

    /// The place of the next item.
    pub fn turn(&mut self) -> Turn<T> {
        let (after, next) = bounded(1);
        Turn { before: std::mem::replace(&mut self.0, next), after }
    }
}

impl<T> Turn<T> {
    /// Waits for what the item before hands on, and hands on what `step` makes of it. None when the item before ended
    /// without.
    pub fn take<R>(self, step: impl FnOnce(T) -> (R, T)) -> Option<R> {
        let (result, value) = step(self.before.recv().ok()?);
        // Nobody may be next.
        let _unwanted = self.after.send(value);
        Some(result)
    }
}

/// Threads that do tasks before their results are needed.
pub struct Ahead<'a, I, O> {
    jobs: Sender<(I, Sender<O>)>,
    work: &'a (dyn Fn(I) -> O + Sync),
    under_way: Cell<usize>,
    room: usize,
}

/// Something for [`Ahead`] to do.
pub struct Task<I, O>(State<I, O>);

enum State<I, O> {
    Waiting(I),
    Begun(Receiver<O>),
    /// Between the two.
    Moving,
}

impl<I, O> Task<I, O> {
    /// Nobody has begun it.
    #[must_use]
    pub fn new(item: I) -> Self {
        Self(State::Waiting(item))
    }
}

/// Runs `body` with `threads` that do `work` ahead of need. At most `room` results are under way or wait for `body`.
pub fn ahead<I: Send, O: Send, R>(
    threads: usize,
    room: usize,
    work: impl Fn(I) -> O + Sync,
    body: impl FnOnce(&Ahead<'_, I, O>) -> R,
) -> R {
    let (jobs, queue) = bounded::<(I, Sender<O>)>(room);
    thread::scope(|scope| {
        for _ in 0..threads {
            let (queue, work) = (queue.clone(), &work);
            scope.spawn(move || {
                for (item, slot) in queue {
                    // Nobody may want it any more.
                    let _unwanted = slot.send(work(item));
                }
            });
        }
        drop(queue);
        body(&Ahead { jobs, work: &work, under_way: Cell::new(0), room })
    })
}

impl<I, O> Ahead<'_, I, O> {
    /// Has `task` done by another thread, unless it is already or there is no room. Never waits.
    pub fn begin(&self, task: &mut Task<I, O>) {
        if self.under_way.get() >= self.room {
            return;
        }
        task.0 = match std::mem::replace(&mut task.0, State::Moving) {
            State::Waiting(item) => {
                let (slot, result) = bounded(1);
                self.under_way.set(self.under_way.get() + 1);
                // The queue has room for all that may be under way; if the threads are gone the slot is closed as well.
                let _gone = self.jobs.send((item, slot));
                State::Begun(result)
            }
            other => other,
        };
    }

    /// The result of `task`; done here if it wasn't begun. None if a thread panicked over it.
    pub fn finish(&self, task: Task<I, O>) -> Option<O> {
        match task.0 {
            State::Waiting(item) => Some((self.work)(item)),
            State::Begun(result) => {
                self.under_way.set(self.under_way.get() - 1);
                result.recv().ok()
            }
            State::Moving => None,
        }
    }
}

/// A producer for [`ordered`] out of an iterator.
pub fn each<I>(items: impl Iterator<Item = I> + Send) -> impl FnOnce(&dyn Fn(I) -> bool) + Send {
    move |emit| {
        let mut items = items;
        let _listening = items.all(emit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_whatever_the_workers_do() {
        let mut seen = Vec::new();
        let result: Result<(), ()> = ordered(
            each(0..1000u64),
            4,
            8,
            |n| (0..(n % 7) * 100).fold(n, |n, _| std::hint::black_box(n)),
            |n| {
                seen.push(n);
                Ok(())
            },
        );
        assert_eq!(result, Ok(()));
        assert!(seen.into_iter().eq(0..1000));
    }

    #[test]
    fn a_relay_hands_on_in_order() {
        let mut relay = Relay::new(1u64);
        let items = std::iter::repeat_with(move || relay.turn()).take(500).enumerate();
        let mut seen = Vec::new();
        let result: Result<(), ()> = ordered(
            each(items),
            4,
            8,
            |(n, turn)| turn.take(|before| ((n as u64, before), before + 1)),
            |found| {
                seen.extend(found);
                Ok(())
            },
        );
        assert_eq!(result, Ok(()));
        assert!(seen.into_iter().eq((0..500).map(|n| (n, n + 1))));
    }

    #[test]
    fn an_item_that_hands_nothing_on_ends_a_relay() {
        let mut relay = Relay::new(());
        drop(relay.turn());
        assert_eq!(relay.turn().take(|()| ((), ())), None);
    }

    #[test]
    fn tasks_done_ahead_are_bounded_and_keep_their_results() {
        let results = ahead(
            2,
            3,
            |n: u64| n * n,
            |ahead| {
                let mut tasks: Vec<Task<u64, u64>> = (0..100).map(Task::new).collect();
                for task in &mut tasks {
                    ahead.begin(task);
                }
                assert_eq!(ahead.under_way.get(), 3);
                // What is begun already takes no more room.
                for task in &mut tasks {
                    ahead.begin(task);
                }
                assert_eq!(ahead.under_way.get(), 3);
                tasks.into_iter().map(|task| ahead.finish(task)).collect::<Vec<_>>()
            },
        );
        assert!(results.into_iter().eq((0..100).map(|n| Some(n * n))));
    }

    #[test]
    fn a_failing_consumer_ends_an_endless_source() {
        let result = ordered(each(0u64..), 3, 4, |n| n, |n| if n == 50 { Err(n) } else { Ok(()) });
        assert_eq!(result, Err(50));
    }
}
