//! Threads. They live here and nowhere else: stages with bounded queues between them, order restored at the end.

use std::collections::BTreeMap;
use std::thread::{self, JoinHandle};

pub use crossbeam_channel::{Receiver, Sender, bounded};

/// How many threads may compute at once.
#[must_use]
pub fn parallelism() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
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
    fn a_failing_consumer_ends_an_endless_source() {
        let result = ordered(each(0u64..), 3, 4, |n| n, |n| if n == 50 { Err(n) } else { Ok(()) });
        assert_eq!(result, Err(50));
    }
}
