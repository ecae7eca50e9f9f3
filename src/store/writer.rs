//! Writing chunks: look up, gather into frames, compress, seal, fill packs, read back, upload, index.
//!
//! ```text
//! caller: dedup, gather -> [find base, delta, compress] x cores -> pack: order, seal -> upload: read back, put, index
//!             bases far away -> [fetch] x 8 ^
//! ```
//! All queues are bounded, so a slow disk slows the caller. A chunk counts as stored when its pack is in storage and in
//! the local index; until then it is `pending`, so that it is not stored twice. What a crash leaves: packs in storage that
//! no segment lists. They are harmless; the next writer finds them and lists them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::alignment::Older;
use super::frame_maker::{Batch, FrameMaker, PackedFrame};
use super::index_segment::{self, PackEntry};
use super::pack::{FRAME_CHUNK_COUNT_MAX, FrameKind, Role};
use super::pack_writer::{FinishedPack, PackWriter};
use super::relied::Relied;
use super::repository::Repository;
use super::session::Session;
use crate::error::{Error, ErrorKind, Result};
use crate::id::ChunkId;
use crate::observer::{Context, Counter};
use crate::pipeline::{self, Receiver, Reorder, Sender, Worker, lock};
use crate::storage::ObjectKey;

/// An index segment is published when so many bytes of packs are uploaded: what a crash costs other machines at most.
const CHECKPOINT_LEN: u64 = 1 << 30;
/// Batches whose bases are fetched at once, where the storage is far away.
const FETCHES_AT_ONCE: usize = 8;
/// Packs that are uploaded at once, where the storage is far away. Each is held in memory meanwhile.
const UPLOADS_AT_ONCE: usize = 4;

struct BatchJob {
    number: u64,
    batch: Batch,
}

enum PackJob {
    Frames(Role, Vec<PackedFrame>),
    /// Finish all packs; the frames before it in number are in.
    Flush,
}

/// What the threads share.
#[derive(Default)]
struct Shared {
    rehearsal: bool,
    failure: Mutex<Option<Error>>,
    pending: Mutex<HashSet<ChunkId>>,
    uploaded: Mutex<Vec<PackEntry>>,
    uploaded_bytes: AtomicU64,
    uploaded_count: AtomicU64,
    delta_count: AtomicU64,
}

impl Shared {
    fn fail(&self, error: Error) {
        lock(&self.failure).get_or_insert(error);
    }

    fn check(&self) -> Result<()> {
        // The failure is given out once; what follows is a closed queue.
        lock(&self.failure).take().map_or(Ok(()), Err)
    }
}

/// Takes chunks in. Consumed by [`Writer::finish`]; dropped, it stores what is under way and publishes nothing.
#[must_use = "an unfinished writer publishes nothing"]
pub struct Writer {
    repository: Repository,
    shared: Arc<Shared>,
    maker: Arc<FrameMaker>,
    batches: [Batch; 2],
    next_number: u64,
    jobs: Option<Sender<BatchJob>>,
    /// For batches whose bases are far away; none where nothing is.
    ahead: Option<Sender<BatchJob>>,
    done: Option<(Receiver<()>, usize)>,
    flush: Option<Sender<(u64, PackJob)>>,
    workers: Vec<Worker>,
    reported: (u64, u64, u64),
    /// Bytes that came in.
    offered: u64,
    has_lost_packs: bool,
    /// None in a rehearsal.
    session: Option<Session>,
}

/// A chunk for [`Writer::put`].
#[derive(Debug, Clone)]
pub struct Offered<'b> {
    /// Its id.
    pub id: ChunkId,
    /// Its bytes.
    pub bytes: &'b [u8],
    /// Chunks that lay at its place in an older version of what it belongs to: it may be stored as a delta of them.
    pub older: Older,
}

/// What [`Writer::put`] found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PutSummary {
    /// Chunks that were not stored yet.
    pub chunks_new: u64,
    /// Their bytes.
    pub bytes_new: u64,
}

impl Writer {
    pub(super) fn new(repository: Repository, command: &str, rehearsal: bool, context: &Context<'_>) -> Result<Self> {
        // In this order, or a pack could go between being looked at and being relied on (format-spec 11).
        let (session, has_lost_packs) = if rehearsal {
            (None, repository.settle(context)?.has_lost_packs)
        } else {
            let mut session = Session::begin(&repository, command, context)?;
            let has_lost_packs = session.avoid_retired(context)?;
            (Some(session), has_lost_packs)
        };
        let shared = Arc::new(Shared { rehearsal, ..Shared::default() });
        if !rehearsal {
            adopt(&repository, &shared)?;
        }
        // Who can't read has no bases, and can't look through the snapshot again.
        let mut policy = repository.delta_policy();
        if !repository.can_read() {
            policy.depth_max = 0;
            *lock(&repository.inner.relied) = Some(Relied::new()?);
        }
        let maker = Arc::new(FrameMaker::new(repository.clone(), policy));
        let cores = pipeline::parallelism();
        let (jobs, job_queue) = pipeline::bounded::<BatchJob>(cores);
        let (packed, packed_queue) = pipeline::bounded::<(u64, PackJob)>(cores);
        let (ahead, ahead_queue) = pipeline::bounded::<BatchJob>(0);
        let is_far = repository.storage().is_remote();
        // Here, one upload keeps the disk busy; far away, others go on while one waits for its answer.
        let upload_count = if is_far { UPLOADS_AT_ONCE } else { 1 };
        let (finished, finished_queue) = pipeline::bounded::<Option<FinishedPack>>(0);
        let (done_sender, done) = pipeline::bounded::<()>(upload_count);
        let mut workers = Vec::new();
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            Worker::spawn(name, work).map_err(|cause| Error::io("A thread can't be started", cause))
        };
        for _ in 0..cores {
            let (queue, packed, maker) = (job_queue.clone(), packed.clone(), maker.clone());
            workers.push(spawn("compress", Box::new(move || make_frames(&maker, &queue, &packed)))?);
        }
        if is_far {
            let (jobs, maker) = (jobs.clone(), maker.clone());
            workers.push(spawn("fetch", Box::new(move || fetch_bases(&maker, ahead_queue, &jobs)))?);
        }
        let (repo, state) = (repository.clone(), shared.clone());
        let fill = move || fill_packs(&repo, &state, packed_queue, &finished, upload_count);
        workers.push(spawn("pack", Box::new(fill))?);
        for _ in 0..upload_count {
            let (repo, state) = (repository.clone(), shared.clone());
            let (queue, done) = (finished_queue.clone(), done_sender.clone());
            workers.push(spawn("upload", Box::new(move || upload_packs(&repo, &state, &queue, &done)))?);
        }
        Ok(Self {
            repository,
            shared,
            maker,
            batches: [Batch::new(Role::Content), Batch::new(Role::Tree)],
            next_number: 0,
            jobs: Some(jobs),
            ahead: Some(ahead).filter(|_| is_far),
            done: Some((done, upload_count)),
            flush: Some(packed),
            workers,
            reported: (0, 0, 0),
            offered: 0,
            has_lost_packs,
            session,
        })
    }

    /// Whether packs were found to be gone when it began: what earlier snapshots refer to may not be stored any more.
    #[must_use]
    pub fn has_lost_packs(&self) -> bool {
        self.has_lost_packs
    }

    /// Stores those of `chunks` that are not stored yet. Their ids must have been made by
    /// [`Repository::chunk_id`].
    ///
    /// # Errors
    /// The first failure of any stage.
    pub fn put<'b>(
        &mut self,
        role: Role,
        chunks: impl Iterator<Item = Offered<'b>>,
        context: &Context<'_>,
    ) -> Result<PutSummary> {
        let chunks: Vec<Offered<'_>> = chunks.collect();
        let ids: Vec<ChunkId> = chunks.iter().map(|chunk| chunk.id).collect();
        if let Some(relied) = lock(&self.repository.inner.relied).as_mut() {
            relied.note(&ids)?;
        }
        let stored = self.repository.index().contains(&ids)?;
        let mut summary = PutSummary::default();
        self.offered += chunks.iter().map(|chunk| chunk.bytes.len() as u64).sum::<u64>();
        for (Offered { id, bytes, older }, stored) in chunks.into_iter().zip(stored) {
            if stored || !lock(&self.shared.pending).insert(id) {
                context.count(Counter::ChunksKnown, 1);
                continue;
            }
            summary.chunks_new += 1;
            summary.bytes_new += bytes.len() as u64;
            self.gather(role, id, bytes, older)?;
        }
        context.count(Counter::ChunksNew, summary.chunks_new);
        self.checkpoint(context)?;
        Ok(summary)
    }

    /// Which of `ids` are neither stored nor on their way.
    ///
    /// # Errors
    /// From the index.
    pub fn lacks(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        let stored = self.repository.index().contains(ids)?;
        let pending = lock(&self.shared.pending);
        Ok(ids.iter().zip(stored).map(|(id, stored)| !stored && !pending.contains(id)).collect())
    }

    /// Stores a frame as it is, which a repository with the same keys made. It must hold no chunk that is stored.
    ///
    /// # Errors
    /// The first failure of any stage.
    pub(super) fn put_frame(&mut self, role: Role, frame: PackedFrame, context: &Context<'_>) -> Result<()> {
        lock(&self.shared.pending).extend(frame.chunks.iter().map(|(id, _)| *id));
        context.count(Counter::ChunksNew, frame.chunks.len() as u64);
        self.offered += frame.plain_len;
        let number = self.next_number;
        self.next_number += 1;
        let sent =
            self.flush.as_ref().is_some_and(|packs| packs.send((number, PackJob::Frames(role, vec![frame]))).is_ok());
        if sent { self.checkpoint(context) } else { Err(self.failure()) }
    }

    fn gather(&mut self, role: Role, id: ChunkId, bytes: &[u8], older: Older) -> Result<()> {
        if self.batches[role as usize - 1].is_full(bytes.len(), self.repository.inner.config.frame_len) {
            self.send_batch(role)?;
        }
        let batch = &mut self.batches[role as usize - 1];
        batch.push(id, bytes, older);
        if batch.chunk_count() as u64 >= FRAME_CHUNK_COUNT_MAX {
            self.send_batch(role)?;
        }
        Ok(())
    }

    fn send_batch(&mut self, role: Role) -> Result<()> {
        let mut batch = std::mem::replace(&mut self.batches[role as usize - 1], Batch::new(role));
        if batch.chunk_count() == 0 {
            return Ok(());
        }
        batch.set_offered(self.offered);
        let job = BatchJob { number: self.next_number, batch };
        self.next_number += 1;
        let has_far_bases = self.maker.has_far_bases(&job.batch);
        let queue = self.ahead.as_ref().filter(|_| has_far_bases).or(self.jobs.as_ref());
        let sent = queue.is_some_and(|jobs| jobs.send(job).is_ok());
        if sent { Ok(()) } else { Err(self.failure()) }
    }

    fn failure(&self) -> Error {
        match self.shared.check() {
            Err(error) => error,
            Ok(()) => Error::new(ErrorKind::Bug, "A thread of the writer ended early"),
        }
    }

    /// Publishes an index segment now and then, so that other machines, and this one after a crash with its cache lost,
    /// find what is uploaded.
    fn checkpoint(&mut self, context: &Context<'_>) -> Result<()> {
        self.shared.check()?;
        let unlisted: u64 = lock(&self.shared.uploaded).iter().map(|entry| entry.len).sum();
        if unlisted >= CHECKPOINT_LEN {
            self.publish_index(context)?;
        }
        self.report(context);
        Ok(())
    }

    fn report(&mut self, context: &Context<'_>) {
        let bytes = self.shared.uploaded_bytes.load(Ordering::Relaxed);
        let count = self.shared.uploaded_count.load(Ordering::Relaxed);
        context.count(Counter::BytesStored, bytes - self.reported.0);
        context.count(Counter::ObjectsPut, count - self.reported.1);
        let deltas = self.shared.delta_count.load(Ordering::Relaxed);
        context.count(Counter::ChunksDelta, deltas - self.reported.2);
        self.reported = (bytes, count, deltas);
    }

    fn publish_index(&mut self, context: &Context<'_>) -> Result<()> {
        let entries = std::mem::take(&mut *lock(&self.shared.uploaded));
        for entries in index_segment::split(&entries) {
            let (_, len) = self.repository.publish_segment(entries)?;
            context.count(Counter::BytesStored, len);
            context.count(Counter::ObjectsPut, 1);
        }
        Ok(())
    }

    /// Waits until every chunk is in storage, then publishes the index of them. Only after this may a snapshot refer to
    /// the chunks; the session must stand until it is published. There is none in a rehearsal.
    ///
    /// # Errors
    /// The first failure of any stage.
    pub fn finish(mut self, context: &Context<'_>) -> Result<Option<Session>> {
        self.send_batch(Role::Content)?;
        self.send_batch(Role::Tree)?;
        let flushed = self.flush.take().is_some_and(|flush| flush.send((self.next_number, PackJob::Flush)).is_ok());
        self.jobs = None;
        self.ahead = None;
        let all_done = |(done, count): (Receiver<()>, usize)| (0..count).all(|_| done.recv().is_ok());
        let done = self.done.take().is_some_and(all_done);
        let workers = std::mem::take(&mut self.workers);
        let ended_well = workers.into_iter().map(Worker::join).fold(true, |all, one| all & one);
        self.shared.check()?;
        if !(flushed && done && ended_well) {
            return Err(self.failure());
        }
        self.publish_index(context)?;
        self.report(context);
        Ok(self.session.take())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Close the queues before the workers are joined.
        self.jobs = None;
        self.ahead = None;
        self.flush = None;
        self.done = None;
    }
}

/// Lists packs in the next segment that an earlier run uploaded and did not live to list; forgets those that are gone.
fn adopt(repository: &Repository, shared: &Shared) -> Result<()> {
    let unlisted = repository.index().unpublished()?;
    let mut gone = Vec::new();
    for (id, len) in unlisted {
        if repository.index().is_aside(&id)? {
            continue;
        }
        match repository.find_pack_entry(id, len, None) {
            Ok(Some(entry)) => lock(&shared.uploaded).push(entry),
            Ok(None) => gone.push(id),
            Err(error) if error.kind() == ErrorKind::Damaged => gone.push(id),
            Err(error) => return Err(error),
        }
    }
    repository.index().remove_packs(&gone)
}

/// Hands batches on in their order, so that no more than these are under way when one takes its time.
fn fetch_bases(maker: &FrameMaker, batches: Receiver<BatchJob>, jobs: &Sender<BatchJob>) {
    let fetch = |job: BatchJob| {
        maker.fetch_ahead(&job.batch);
        job
    };
    let batches = pipeline::each(batches.into_iter());
    let _nobody_listens = pipeline::ordered(batches, FETCHES_AT_ONCE, FETCHES_AT_ONCE, fetch, |job| jobs.send(job));
}

fn make_frames(maker: &FrameMaker, jobs: &Receiver<BatchJob>, packed: &Sender<(u64, PackJob)>) {
    for BatchJob { number, batch } in jobs {
        let role = batch.role();
        if packed.send((number, PackJob::Frames(role, maker.make(batch)))).is_err() {
            return;
        }
    }
}

fn fill_packs(
    repository: &Repository,
    shared: &Shared,
    queue: Receiver<(u64, PackJob)>,
    finished: &Sender<Option<FinishedPack>>,
    upload_count: usize,
) {
    let mut packs: [Option<PackWriter>; 2] = [None, None];
    let mut order = Reorder::default();
    for (number, job) in queue {
        order.push(number, job);
        while let Some(job) = order.pop() {
            let result = match job {
                PackJob::Frames(role, frames) => frames.into_iter().try_for_each(|frame| {
                    let full = push_frame(repository, &mut packs, role, frame).map_err(Some)?;
                    // Nobody listens any more: the other side says why.
                    full.map_or(Ok(()), |pack| finished.send(Some(pack)).map_err(|_| None))
                }),
                PackJob::Flush => {
                    let rest = packs.iter_mut().filter_map(Option::take).map(PackWriter::finish).map(Some);
                    // `None` says to one of those that upload that nothing follows.
                    let ends = std::iter::repeat_with(|| None).take(upload_count);
                    if !rest.chain(ends).all(|pack| finished.send(pack).is_ok()) {
                        return;
                    }
                    Ok(())
                }
            };
            match result {
                Ok(()) => {}
                Err(None) => return,
                Err(Some(error)) => return shared.fail(error),
            }
        }
    }
}

fn push_frame(
    repository: &Repository,
    packs: &mut [Option<PackWriter>; 2],
    role: Role,
    frame: PackedFrame,
) -> Result<Option<FinishedPack>> {
    let slot = &mut packs[role as usize - 1];
    if slot.is_none() {
        let config = &repository.inner.config;
        // Tree packs stay small as a rule; content packs end with the frame that fills them.
        let room = match role {
            Role::Content => config.pack_len + config.frame_len * 2,
            Role::Tree => 0,
        };
        *slot = Some(PackWriter::new(role, usize::try_from(room).unwrap_or(0), config.parity, &repository.inner.keys)?);
    }
    let pack = slot.as_mut().expect("filled above");
    pack.push(frame);
    let full = pack.is_full(repository.inner.config.pack_len);
    Ok(full.then(|| slot.take().map(PackWriter::finish)).flatten())
}

fn upload_packs(
    repository: &Repository,
    shared: &Shared,
    finished: &Receiver<Option<FinishedPack>>,
    done: &Sender<()>,
) {
    for pack in finished {
        let Some(pack) = pack else {
            // The writer waits for this; it may be gone.
            let _unwanted = done.send(());
            return;
        };
        if let Err(error) = upload(repository, shared, pack) {
            return shared.fail(error);
        }
    }
}

fn upload(repository: &Repository, shared: &Shared, pack: FinishedPack) -> Result<()> {
    pack.read_back(&repository.inner.keys)?;
    shared.uploaded_bytes.fetch_add(pack.entry.len, Ordering::Relaxed);
    shared.uploaded_count.fetch_add(1, Ordering::Relaxed);
    let deltas = pack.entry.frames.iter().filter(|frame| frame.kind == FrameKind::Delta).count();
    shared.delta_count.fetch_add(deltas as u64, Ordering::Relaxed);
    if shared.rehearsal {
        return Ok(());
    }
    repository.storage().put_new(&ObjectKey::Pack(pack.entry.id), &pack.bytes)?;
    if pack.entry.role == Role::Tree {
        repository.keep_copy(&ObjectKey::Pack(pack.entry.id), &pack.bytes);
    }
    repository.index().add_pack(&pack.entry, &pack.features)?;
    let mut pending = lock(&shared.pending);
    for (id, _) in pack.entry.frames.iter().flat_map(|frame| &frame.chunks) {
        pending.remove(id);
    }
    drop(pending);
    lock(&shared.uploaded).push(pack.entry);
    Ok(())
}
