//! The façade: open, append, dispatch, read, look up, flush, close.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};

use apogee_types::record::Record;
use apogee_types::settings::FlushMode;
use apogee_types::{Clock, LogOffset, Message, Millis, QueueId, QueueOffset};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::checkpoint::{Checkpoint, CheckpointFile, IndexMark};
use crate::commit_log::CommitLog;
use crate::consume_queue::ConsumeQueue;
use crate::disk::Disk;
use crate::dispatch::{Arrival, Dispatching};
use crate::error::{AppendError, Error};
use crate::index::{Index, KeyHashes, TopicHash};
use crate::queue_ends::QueueEnds;
use crate::queues::{Damaged, Queues, Recent};
use crate::read::{Boundary, ReadLimits, ReadResult, ReadStatus, RecordReader, Unit};
use crate::recovery::{self, AtStart};
use crate::watermark::Watermark;

/// How a store is made.
#[derive(Debug, Clone)]
pub struct Settings {
    pub root: PathBuf,
    pub commit_log_dir: PathBuf,
    pub segment_len: u64,
    pub queue_file_len: u64,
    /// Files of queues that are open and mapped at once; more are served, but opened on use.
    pub queue_files_open_max: usize,
    pub index_enabled: bool,
    pub index_slot_count: u32,
    pub index_entry_count: u32,
    /// What a clock on the wall shows then: of such times Apache makes the names of index files, by
    /// which it orders them.
    pub local_time: fn(Millis) -> Millis,
    pub flush: FlushMode,
    /// The topics that exist, if it is known: queues of others that are not there are not missed.
    pub topics: Option<BTreeSet<String>>,
    /// The delay of each level from 1, by which the units of delayed messages are built anew.
    pub delays_ms: Vec<Millis>,
}

impl Settings {
    /// Upstream's defaults, below `root`.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self {
            commit_log_dir: root.join("commitlog"),
            root,
            segment_len: 1 << 30,
            queue_file_len: 6_000_000,
            // Of 65,530 mappings that Linux allows; the log has one for each GiB.
            queue_files_open_max: 4096,
            index_enabled: true,
            index_slot_count: 5_000_000,
            index_entry_count: 20_000_000,
            local_time: |utc| utc,
            flush: FlushMode::Async,
            topics: None,
            delays_ms: Vec::new(),
        }
    }
}

/// Where a message was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub at: LogOffset,
    /// Where the record, or the batch, ends.
    pub end: LogOffset,
    pub queue_offset: QueueOffset,
    pub stored_ms: Millis,
}

/// Where the messages of a batch were put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub first: Appended,
    pub places: Vec<LogOffset>,
}

/// A store that is open. Dropping it without [`close`](Self::close) is as a crash.
pub struct Store {
    pub(crate) settings: Settings,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) log: CommitLog,
    pub(crate) queues: Queues,
    pub(crate) index: Option<Index>,
    pub(crate) checkpoint: CheckpointFile,
    pub(crate) dispatching: Dispatching,
    /// Queues with units that are not on the device.
    dirty: Mutex<Vec<Arc<ConsumeQueue>>>,
    /// The disk is fuller than `diskSpaceWarningLevelRatio` allows.
    is_over_limit: AtomicBool,
    /// The device did not take queues, index or checkpoint once.
    pub(crate) has_failed_checkpoint: AtomicBool,
    is_closed: AtomicBool,
    /// Segments were deleted that queues and index may still speak of.
    pub(crate) is_uncleaned: AtomicBool,
    /// Runs of retention that are to delete whatever the hour.
    pub(crate) deletions_asked: AtomicU32,
    pub(crate) read_count: AtomicU64,
    recovery: Recovery,
    _lock: Box<dyn Send + Sync>,
}

/// How much of the log was read at the start.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    pub from: LogOffset,
    pub to: LogOffset,
    pub record_count: u64,
}

const ABORT: &str = "abort";
/// There while queues or index, or parts of them, are built anew: a start that finds it begins from
/// nothing, since it cannot tell how far the one before it came.
pub(crate) const REBUILDING: &str = "rebuilding";

impl Store {
    /// Opens a store and brings it into order after whatever ended its last use.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> Result<Self, Error> {
        crate::owner::refuse_foreign(&*disk, &settings)?;
        crate::owner::refuse_occupied(&*disk, &settings)?;
        CommitLog::judge(&*disk, &settings)?;
        let lock = crate::owner::lock(&*disk, &settings)?;
        crate::owner::tell_of_rocksdb(&*disk, &settings)?;
        let abort = settings.root.join(ABORT);
        let was_unclean = disk.read(&abort).map_err(Error::io(&abort))?.is_some();
        let had_checkpoint = CheckpointFile::is_there(&*disk, &settings.root)?;
        let noted = Checkpoint::read(&*disk, &settings.root)?;
        let log = CommitLog::open(Arc::clone(&disk), clock, &settings)?;
        let mut known = recovery::believe(noted, &log).unwrap_or_else(|| {
            tracing::error!("the checkpoint is damaged or of another log: not believed");
            Checkpoint::default()
        });
        let rebuilding = settings.root.join(REBUILDING);
        let was_rebuilding = disk.read(&rebuilding).map_err(Error::io(&rebuilding))?.is_some();
        if was_rebuilding {
            (known.index, known.index_ms) = (IndexMark::default(), 0);
        }
        let (queues, damaged) = Queues::open(Arc::clone(&disk), &settings)?;
        let index = if settings.index_enabled {
            let unclean = was_unclean.then_some(&known);
            Some(Index::open(Arc::clone(&disk), &settings, unclean)?)
        } else {
            None
        };
        // The files are ours: now they may be written.
        let checkpoint = CheckpointFile::open(&*disk, &settings.root)?;
        let mut store = Self {
            settings,
            disk,
            log,
            queues,
            index,
            checkpoint,
            dispatching: Dispatching::default(),
            dirty: Mutex::default(),
            is_over_limit: AtomicBool::new(false),
            has_failed_checkpoint: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            is_uncleaned: AtomicBool::new(false),
            deletions_asked: AtomicU32::new(0),
            read_count: AtomicU64::new(0),
            recovery: Recovery::default(),
            _lock: lock,
        };
        // Before anything is changed: what a start leaves behind that fails or crashes from here on
        // is not to be believed.
        let process = std::process::id().to_string();
        store.disk.replace(&abort, process.as_bytes()).map_err(Error::io(&abort))?;
        store.mend(&damaged)?;
        if was_rebuilding {
            recovery::forget_built(&store)?;
        }
        let at_start = AtStart { was_unclean, had_checkpoint, has_mended: !damaged.is_empty() };
        store.recovery = recovery::recover(&store, &known, &at_start)?;
        store.dispatching.mirror(&store.dispatching.state.lock());
        // So that a crash does not begin where the last one did, or know only what Apache noted.
        store.save_checkpoint(true, &mut |_| {})?;
        store.disk.remove(&rebuilding).map_err(Error::io(&rebuilding))?;
        QueueEnds::remove(&*store.disk, &store.settings.root)?;
        Ok(store)
    }

    fn mend(&self, damaged: &[Damaged]) -> Result<(), Error> {
        if !damaged.is_empty() {
            // A start that crashes leaves blank places that the next one cannot tell from others.
            self.begin_rebuilding()?;
        }
        for queue in damaged {
            let (topic, id, error) = (&queue.topic, queue.id, &queue.error);
            tracing::error!(topic, queue = %id, %error, "a queue is damaged: built again");
            self.queues.mend(queue)?;
        }
        Ok(())
    }

    /// What the checkpoint vouches for is not there, and will be built: until that is done and on
    /// the device, nobody is to believe the checkpoint.
    pub(crate) fn begin_rebuilding(&self) -> Result<(), Error> {
        let path = self.settings.root.join(REBUILDING);
        self.disk.replace(&path, b"").map_err(Error::io(path))
    }

    /// Appends a message. It can be read after the next [`dispatch`](Self::dispatch); with
    /// synchronous flush once it is on the device.
    pub fn append(&self, message: &Message<'_>) -> Result<Appended, AppendError> {
        self.check_room()?;
        let queue = self.queues.find_or_create(message.topic, message.queue_id)?;
        let keys = self.key_hashes(&queue, message);
        self.log.append(message, queue, keys, self.log.now_ms())
    }

    /// [`append`](Self::append) for one of messages that came together, which share the time and
    /// what was looked up.
    pub fn append_recent(
        &self,
        message: &Message<'_>,
        now: Millis,
        recent: &mut Recent,
    ) -> Result<Appended, AppendError> {
        self.check_room()?;
        let queue = self.queues.find_recent(message.topic, message.queue_id, recent)?;
        let keys = self.key_hashes(&queue, message);
        self.log.append(message, queue, keys, now)
    }

    /// Appends messages of one topic and queue: all or none, side by side.
    pub fn append_batch(&self, messages: &[Message<'_>]) -> Result<Batch, AppendError> {
        let first = messages.first().ok_or(AppendError::EmptyBatch)?;
        self.check_room()?;
        let queue = self.queues.find_or_create(first.topic, first.queue_id)?;
        let keys = |message: &Message<'_>| self.key_hashes(&queue, message);
        let keys = messages.iter().map(keys).collect();
        self.log.append_batch(messages, &queue, keys)
    }

    /// Sees to it that the next checkpoint brings the queue to the device.
    pub(crate) fn mark_dirty(&self, queue: &Arc<ConsumeQueue>) {
        // Looked at before it is written: a message mostly follows another.
        if !queue.is_dirty.load(Ordering::Relaxed) && !queue.is_dirty.swap(true, Ordering::Relaxed)
        {
            self.dirty.lock().push(Arc::clone(queue));
        }
    }

    /// One round of the flush service: brings the log to the device as far as it was written.
    /// After a failure the log takes no more messages. Whether there was anything to do.
    pub fn flush_step(&self) -> Result<bool, Error> {
        match self.settings.flush {
            FlushMode::Async => self.log.flush_behind(),
            FlushMode::Sync => self.log.flush(),
        }
    }

    /// Brings all that was appended so far to the device, whatever the flush mode promises.
    pub fn flush_all(&self) -> Result<(), AppendError> {
        self.log.flush()?;
        // One that failed before is not tried again.
        self.log.check_device()
    }

    /// Makes what was appended survive the end of this process: with synchronous flush it waits
    /// in memory for the next flush, which a sender may not want to wait for.
    pub fn write_out(&self) -> Result<(), AppendError> {
        self.log.write_out()?;
        // Who wrote before may have lost it: to write the nothing that is left succeeds.
        self.log.check_device()
    }

    /// Ready once there is something to flush, else the task is woken then; with synchronous
    /// flush only, and for one task.
    pub fn poll_unflushed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.log.poll_unflushed(cx)
    }

    /// Prepares memory and files ahead of the log's end; whether there is more to prepare.
    pub fn prepare_step(&self) -> Result<bool, Error> {
        if let Some(index) = &self.index {
            // It says itself what it could not do, and does it later.
            let _ = index.settle();
            self.checkpoint.tell_index_ms(index.end_ms());
        }
        self.log.prepare()
    }

    /// Messages that reads of queues found since the start.
    #[must_use]
    pub fn read_count(&self) -> u64 {
        self.read_count.load(Ordering::Relaxed)
    }

    /// Messages that were stored since the start.
    #[must_use]
    pub fn put_count(&self) -> u64 {
        self.log.put_totals().0
    }

    /// Brings queues to the device, then says so in the checkpoint, when enough has come since the
    /// last time; what is flushed must be asked of the file system before it is written again. The
    /// index, whose changes lie scattered, follows when more has come or nothing comes any more.
    /// Who appends while it looks at the queues does not wait: that is dispatched here, and
    /// `arrived` told.
    pub fn checkpoint_step(&self, arrived: &mut dyn FnMut(Arrival<'_>)) -> Result<(), Error> {
        /// Log that is read again for queues and index after a crash: a second or less.
        const QUEUES_BEHIND_MAX: u64 = 128 << 20;
        const QUEUES_BEHIND_MS_MAX: Millis = 10_000;
        const INDEX_BEHIND_MAX: u64 = 256 << 20;
        let known = self.checkpoint.load();
        let newest = self.dispatching.state.lock().newest;
        // Who came just then did not wait.
        self.dispatch_left(arrived);
        let Some(newest) = newest else { return Ok(()) };
        let is_idle = newest.at == known.queues_at;
        if is_idle && (self.index.is_none() || newest.end == known.index.end) {
            return Ok(());
        }
        let behind = QUEUES_BEHIND_MAX.min(self.settings.segment_len / 8);
        let is_due = known.queues_at.plus(behind) <= newest.end
            || !(0..QUEUES_BEHIND_MS_MAX).contains(&(self.log.now_ms() - known.queues_ms));
        let has_index_mark = known.index.end != LogOffset(0);
        let is_index_due = !has_index_mark || known.index.end.plus(INDEX_BEHIND_MAX) <= newest.end;
        if !is_idle && !is_due {
            return Ok(());
        }
        self.save_checkpoint(is_idle || is_index_due, arrived)
    }

    /// A failure is final, as one of the log is: what the device lost of queues and index cannot
    /// be told. The checkpoint stays where it is, and the next start builds them from there on.
    fn save_checkpoint(
        &self,
        with_index: bool,
        arrived: &mut dyn FnMut(Arrival<'_>),
    ) -> Result<(), Error> {
        if self.has_failed_checkpoint.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.try_checkpoint(with_index, arrived).inspect_err(|error| {
            tracing::error!(%error, "no checkpoints any more: the next start will take longer");
            self.has_failed_checkpoint.store(true, Ordering::Relaxed);
        })
    }

    fn try_checkpoint(
        &self,
        with_index: bool,
        arrived: &mut dyn FnMut(Arrival<'_>),
    ) -> Result<(), Error> {
        let mut known = self.checkpoint.load();
        let settles = |index: &&Index| with_index && index.settle().is_ok();
        // Most of it without the lock.
        let index = self.index.as_ref().filter(settles);
        let (newest, index_mark, dirty) = {
            // Between two batches of entries, so that the mark does not cut through a record's,
            // and no queue is marked whose unit is still to come.
            let dispatch = self.dispatching.state.lock();
            let Some(newest) = dispatch.newest else { return Ok(()) };
            // Of an entry that is stuck some keys may be there, which a mark would take for all.
            let index = index.filter(|it| dispatch.stuck.is_none() && settles(it));
            let dirty = std::mem::take(&mut *self.dirty.lock());
            dirty.iter().for_each(|queue| queue.is_dirty.store(false, Ordering::Relaxed));
            (newest, index.map(|index| index.mark(newest.end)), dirty)
        };
        self.dispatch_left(arrived);
        self.queues.flush(&dirty)?;
        // A checkpoint must not speak of records that the device may lose.
        self.log.flush()?;
        if self.log.flushed.get() < newest.end {
            return Ok(());
        }
        (known.queues_ms, known.queues_at) = (newest.stored_ms, newest.at);
        known.log_ms = newest.stored_ms;
        if let (Some(index), Some((mark, end_ms))) = (&self.index, index_mark) {
            index.flush()?;
            (known.index, known.index_ms) = (mark, end_ms);
        }
        if self.index.is_none() {
            known.index = IndexMark::default();
        }
        self.checkpoint.save(&known)
    }

    /// Ends the use of the store in order. After a failure it is left as by a crash, so that the
    /// next start looks at it.
    pub fn close(&self) -> Result<(), Error> {
        if self.is_closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        self.log.refuse("the store is being closed".to_owned());
        self.log.flush()?;
        self.dispatch(&mut |_| {});
        self.save_checkpoint(true, &mut |_| {})?;
        let has_failed_checkpoint = self.has_failed_checkpoint.load(Ordering::Acquire);
        // Else the checkpoint says nothing of what the index has, nor does the device of it.
        let is_settled = self.index.as_ref().is_none_or(|index| index.settle().is_ok());
        let is_kept = !has_failed_checkpoint && is_settled && self.log.check_device().is_ok();
        if !is_kept || self.dispatching.is_stuck.load(Ordering::Acquire) {
            return Ok(());
        }
        self.log.drop_unused()?;
        let (root, last_at) = (&self.settings.root, self.checkpoint.load().queues_at);
        let index_files = self.index.as_ref().map_or(Vec::new(), Index::names);
        QueueEnds::save(&*self.disk, root, last_at, &self.queues.all(), &index_files)?;
        let abort = self.settings.root.join(ABORT);
        self.disk.remove(&abort).map_err(Error::io(&abort))
    }

    /// How much of the log was read at the start.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    #[must_use]
    pub fn flushes_synchronously(&self) -> bool {
        self.settings.flush == FlushMode::Sync
    }

    #[must_use]
    pub fn flushed_watermark(&self) -> &Watermark {
        &self.log.flushed
    }

    /// Below this, messages may be seen.
    #[must_use]
    pub fn visible(&self) -> LogOffset {
        self.log.visible()
    }

    /// While the disk is too full, no message is taken; what is there is served. Told by the
    /// retention service.
    pub fn set_over_limit(&self, is_over: bool) {
        if self.is_over_limit.swap(is_over, Ordering::Relaxed) != is_over {
            if is_over {
                tracing::error!(
                    "the disk is too full: no more messages are taken until there is room"
                );
            } else {
                tracing::info!("the disk has room again: messages are taken");
            }
        }
    }

    /// How full the file system of the commit log is, or that of the queues if it is fuller.
    pub fn fullest_disk_ratio(&self) -> Result<f64, Error> {
        let root = &self.settings.root;
        let of_root = self.disk.used_ratio(root).map_err(Error::io(root))?;
        Ok(self.disk_used_ratio()?.max(of_root))
    }

    /// How full the file system of the commit log is, from 0 to 1.
    pub fn disk_used_ratio(&self) -> Result<f64, Error> {
        let dir = &self.settings.commit_log_dir;
        self.disk.used_ratio(dir).map_err(Error::io(dir))
    }

    /// Where the oldest record lies.
    #[must_use]
    pub fn log_min(&self) -> LogOffset {
        LogOffset(self.log.segments.bounds().0)
    }

    /// Why no more messages are taken, if so.
    pub fn check_writable(&self) -> Result<(), AppendError> {
        self.check_room()?;
        self.log.check_writable()
    }

    /// The offsets of a queue that can be read; empty if it does not exist.
    #[must_use]
    pub fn queue_bounds(&self, topic: &str, queue: QueueId) -> Range<QueueOffset> {
        let found = self.queues.find(topic, queue);
        found.map_or(QueueOffset(0)..QueueOffset(0), |queue| queue.bounds())
    }

    /// One unit of a queue; `None` where there is none, or only a filler for a lost message.
    pub fn unit(
        &self,
        topic: &str,
        queue: QueueId,
        offset: QueueOffset,
    ) -> Result<Option<Unit>, Error> {
        self.queues.find(topic, queue).map_or(Ok(None), |queue| queue.unit(offset))
    }

    /// Reads units from `from` on whose tag code is wanted, into `units`. Spec `store.md` 11.1.
    pub fn read(
        &self,
        topic: &str,
        queue: QueueId,
        from: QueueOffset,
        limits: ReadLimits,
        wants: &mut dyn FnMut(i64) -> bool,
        units: &mut Vec<Unit>,
    ) -> Result<ReadResult, Error> {
        let nothing = QueueOffset(0);
        let result = |status, next, bounds: Range<QueueOffset>| ReadResult {
            status,
            next,
            min: bounds.start,
            end: bounds.end,
        };
        let Some(queue) = self.queues.find(topic, queue) else {
            return Ok(result(ReadStatus::NoMatchedLogicQueue, nothing, nothing..nothing));
        };
        let bounds = queue.bounds();
        Ok(match from {
            _ if bounds.end.0 == 0 => result(ReadStatus::NoMessageInQueue, nothing, bounds),
            _ if from < bounds.start => result(ReadStatus::OffsetTooSmall, bounds.start, bounds),
            _ if from == bounds.end => result(ReadStatus::OffsetOverflowOne, from, bounds),
            _ if bounds.end < from => result(ReadStatus::OffsetOverflowBadly, bounds.end, bounds),
            _ => {
                let before = units.len();
                let (status, next) = collect(&queue, from, limits, wants, units)?;
                self.read_count.fetch_add((units.len() - before) as u64, Ordering::Relaxed);
                result(status, next, bounds)
            }
        })
    }

    /// For the records of what was read.
    #[must_use]
    pub fn records(&self) -> RecordReader<'_> {
        RecordReader::new(&self.log.segments)
    }

    /// The record at a place, if a whole one lies there and may be seen.
    pub fn record_at(&self, at: LogOffset) -> Result<Option<Bytes>, Error> {
        Ok(self.log.record_at(at))
    }

    /// Store time of the oldest message of a queue.
    pub fn earliest_ms(&self, topic: &str, queue: QueueId) -> Result<Option<Millis>, Error> {
        let Some(queue) = self.queues.find(topic, queue) else { return Ok(None) };
        self.time_of(&queue, queue.bounds().start)
    }

    /// Store time of one message; `None` also if it cannot be read.
    #[must_use]
    pub fn stored_ms(&self, topic: &str, queue: QueueId, offset: QueueOffset) -> Option<Millis> {
        let queue = self.queues.find(topic, queue)?;
        self.time_of(&queue, offset).unwrap_or_else(|error| {
            tracing::error!(topic, queue = %queue.id, %error, "cannot read a queue");
            None
        })
    }

    /// The offset of a store time. Spec `store.md` 11.2.
    pub fn offset_by_time(
        &self,
        topic: &str,
        queue: QueueId,
        time: Millis,
        boundary: Boundary,
    ) -> Result<QueueOffset, Error> {
        let Some(queue) = self.queues.find(topic, queue) else { return Ok(QueueOffset(0)) };
        let bounds = queue.bounds();
        let is_before = |offset: u64| {
            let stored = self.time_of(&queue, QueueOffset(offset))?.unwrap_or(Millis::MIN);
            Ok::<_, Error>(match boundary {
                Boundary::Lower => stored < time,
                Boundary::Upper => stored <= time,
            })
        };
        let (mut low, mut high) = (bounds.start.0, bounds.end.0);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(middle)? {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(QueueOffset(match boundary {
            Boundary::Lower => low,
            Boundary::Upper => low.saturating_sub(1).max(bounds.start.0),
        }))
    }

    /// Places of records that may carry the key.
    #[must_use]
    pub fn query_by_key(
        &self,
        topic: &str,
        key: &str,
        max: usize,
        from_ms: Millis,
        to_ms: Millis,
    ) -> Vec<LogOffset> {
        let Some(index) = &self.index else { return Vec::new() };
        index.query(TopicHash::of(topic).key(key), max, (from_ms, to_ms))
    }

    /// The record was written recently enough to be in memory, most likely.
    #[must_use]
    pub fn is_warm(&self, at: LogOffset) -> bool {
        const RECENT_LEN: u64 = 8 << 30;
        self.log.end().0.saturating_sub(at.0) < RECENT_LEN
    }

    /// Removes a topic's queues; its records stay in the log until they are too old.
    pub fn delete_topic(&self, topic: &str) -> Result<(), Error> {
        self.queues.remove_topic(topic)
    }

    fn check_room(&self) -> Result<(), AppendError> {
        if self.dispatching.is_stuck.load(Ordering::Relaxed)
            && let Some(error) = &self.dispatching.state.lock().stuck
        {
            // This one is final.
            self.log.check_device()?;
            return Err(error.clone());
        }
        if self.is_over_limit.load(Ordering::Relaxed) {
            let reason = "it is fuller than diskSpaceWarningLevelRatio allows";
            return Err(AppendError::DiskFull(reason.to_owned()));
        }
        Ok(())
    }

    /// The keys under which the index is to find a record; none where there is no index.
    fn key_hashes(&self, queue: &ConsumeQueue, message: &Message<'_>) -> KeyHashes {
        if self.index.is_none() {
            return KeyHashes::default();
        }
        match &message.key_places {
            Some(places) => queue.topic_hash.keys_at(message.properties, places),
            None => queue.topic_hash.keys(message.properties),
        }
    }

    fn time_of(&self, queue: &ConsumeQueue, offset: QueueOffset) -> Result<Option<Millis>, Error> {
        let record = queue.unit(offset)?.and_then(|unit| self.log.slice(&unit));
        Ok(record.and_then(|record| Some(Record::parse(&record).ok()?.stored_ms)))
    }
}

/// Collects wanted units; says how it went and where to go on.
fn collect(
    queue: &ConsumeQueue,
    from: QueueOffset,
    limits: ReadLimits,
    wants: &mut dyn FnMut(i64) -> bool,
    units: &mut Vec<Unit>,
) -> Result<(ReadStatus, QueueOffset), Error> {
    /// Units that one read looks at: upstream's `maxFilterMessageSize` of 16,000 bytes.
    const SCAN_COUNT_MAX: u64 = 800;
    let mut next = from;
    let mut bytes = 0;
    queue.scan(from, |offset, unit| {
        let len = unit.map_or(0, |unit| unit.len as usize);
        let is_full =
            limits.count <= units.len() || (!units.is_empty() && limits.bytes < bytes + len);
        if is_full || from.plus(SCAN_COUNT_MAX) <= offset {
            return false;
        }
        next = offset.plus(1);
        if let Some(unit) = unit.filter(|unit| wants(unit.tags_code)) {
            bytes += len;
            units.push(unit);
        }
        true
    })?;
    let status = if units.is_empty() { ReadStatus::NoMatchedMessage } else { ReadStatus::Found };
    Ok((status, next))
}
