//! The end of the log: append, read, flush. Spec `store.md` 2.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use apogee_types::record::{self, MAGIC_BLANK, Record};
use apogee_types::settings::FlushMode;
use apogee_types::{Clock, LogOffset, Message, Millis, QueueOffset, properties};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::consume_queue::ConsumeQueue;
use crate::disk::{Disk, DiskFile};
use crate::error::{AppendError, Error};
use crate::index::KeyHashes;
use crate::read::{RecordReader, Unit};
use crate::segments::Segments;
use crate::statistics::Flushes;
use crate::store::{Appended, Batch, Settings};
use crate::walk;
use crate::watermark::Watermark;

/// What says how long a segment is.
const LEN_SETTING: &str = "mappedFileSizeCommitLog";
/// Bytes that a segment keeps for the blank record at its end.
const BLANK_LEN: u64 = 8;
/// How far ahead of the end memory is prepared, but at most a segment. Twice what is written in
/// 50 ms at 600 MB/s.
const AHEAD: u64 = 64 << 20;
/// How much disk space is taken at once.
const ALLOCATED_LEN: u64 = 4 << 20;
/// What is prepared in one step: a huge page if much is missing. Each costs one page fault, and to
/// flush it one interruption of the other processors, instead of 512; but while it is made, who
/// serves clients may wait for the processor for a millisecond or more.
const SLICE_LARGE: u64 = 2 << 20;
/// As much as is written in 25 ms at 160 MB/s.
const MUCH: u64 = 4 << 20;
const SLICE_SMALL: u64 = 64 << 10;
/// A clock that goes back further was wrong before, or the time of the last record is: later
/// messages do not wait for it, nor does retention for theirs. Who looks for a time may miss some.
const CLOCK_SET_BACK_MS: Millis = 60_000;
/// With synchronous flush, where the device is busy with it meanwhile.
const SLICE_SYNC: u64 = 1 << 20;

/// Bytes that wait for a synchronous flush at most, but for one append; then they are written.
const STAGED_MAX: usize = 1 << 20;
/// What an asynchronous flush leaves alone at most, while more than that comes.
const LEFT_ALONE: u64 = 64 << 10;
/// In how many parts it brings what has come, each at least so long.
const FLUSHED_PARTS: u64 = 8;
const FLUSHED_LEN_MIN: u64 = 1 << 20;

/// What dispatch has to know of an appended message.
pub struct Entry {
    pub queue: Arc<ConsumeQueue>,
    pub at: LogOffset,
    pub len: u32,
    pub tags_code: i64,
    pub queue_offset: QueueOffset,
    pub stored_ms: Millis,
    pub keys: KeyHashes,
}

pub struct CommitLog {
    pub(crate) segments: Segments,
    pub(crate) clock: Arc<dyn Clock>,
    mode: FlushMode,
    /// Serializes appends. Held for one memory copy, never across a system call, but where memory
    /// was not prepared in time. Taken before `allocated`.
    tail: Mutex<Tail>,
    /// The buffer that is not being filled. Held while it is written, so that who comes second
    /// finds everything written that was staged before. Taken before `tail`.
    spare: Mutex<Vec<u8>>,
    /// Mirrors the tail's end; below lie whole records only.
    end: AtomicU64,
    /// All bytes below are on the device.
    pub(crate) flushed: Watermark,
    /// Below, the log has space on the disk and pages in memory; appends stay below. Never below
    /// `end`.
    prepared: AtomicU64,
    /// Below, the log has space on the disk. Who moves `prepared` holds the lock.
    allocated: Mutex<u64>,
    /// The device has failed to take the log once.
    has_failed: AtomicBool,
    /// Entries wait for dispatch.
    has_entries: AtomicBool,
    /// Of this process, as far as the device took them.
    pub(crate) flushes: Mutex<Flushes>,
    /// Appends that found their place not prepared.
    pub(crate) prepare_misses: AtomicU64,
    /// What the flush service waits for, with synchronous flush.
    unflushed: Mutex<Unflushed>,
}

#[derive(Default)]
struct Unflushed {
    /// Something was appended since the last flush began.
    is_any: bool,
    /// Who flushes.
    waker: Option<Waker>,
}

struct Tail {
    end: u64,
    /// The segment that holds `end`, and the offset of its first byte.
    file: Option<(Arc<dyn DiskFile>, u64)>,
    /// With synchronous flush: the bytes before `end` that are not in the files yet. Nobody reads
    /// above what is flushed.
    staged: Option<Vec<u8>>,
    /// Store times do not go back with the clock, unless it was set back by much.
    last_ms: Millis,
    /// Appended and not yet dispatched, in log order.
    entries: Vec<Entry>,
    /// Why no more messages are taken.
    refused: Option<String>,
    /// Records that were put since the start, and their bytes.
    put_count: u64,
    put_bytes: u64,
}

impl CommitLog {
    /// An error if the files are none that [`open`](Self::open) takes; nothing is written.
    pub(crate) fn judge(disk: &dyn Disk, settings: &Settings) -> Result<(), Error> {
        Segments::judge(disk, &settings.commit_log_dir, settings.segment_len, LEN_SETTING)
    }

    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let (dir, len) = (&settings.commit_log_dir, settings.segment_len);
        let segments = Segments::open(disk, dir, len, LEN_SETTING)?;
        let tail = Tail {
            end: 0,
            file: None,
            staged: (settings.flush == FlushMode::Sync).then(Vec::new),
            last_ms: 0,
            entries: Vec::new(),
            refused: None,
            put_count: 0,
            put_bytes: 0,
        };
        Ok(Self {
            segments,
            clock,
            mode: settings.flush,
            tail: Mutex::new(tail),
            spare: Mutex::default(),
            end: AtomicU64::new(0),
            flushed: Watermark::default(),
            prepared: AtomicU64::new(0),
            allocated: Mutex::default(),
            has_failed: AtomicBool::new(false),
            has_entries: AtomicBool::new(false),
            flushes: Mutex::default(),
            prepare_misses: AtomicU64::new(0),
            unflushed: Mutex::default(),
        })
    }

    /// Recovery found the end.
    pub(crate) fn start_at(&self, end: u64, last_ms: Millis) -> Result<(), Error> {
        let mut tail = self.tail.lock();
        tail.end = end;
        tail.last_ms = last_ms;
        tail.file = None;
        self.end.store(end, Ordering::Release);
        self.prepared.store(end, Ordering::Relaxed);
        self.flushed.advance(LogOffset(end));
        drop(tail);
        self.segments.locate_or_create(end)?;
        self.prepare().map(|_| ())
    }

    pub(crate) fn append(
        &self,
        message: &Message<'_>,
        queue: Arc<ConsumeQueue>,
        keys: KeyHashes,
        now: Millis,
    ) -> Result<Appended, AppendError> {
        self.check(message)?;
        let crc = record::body_crc(message.body);
        let len = record::encoded_len(message) as u64;
        let mut tail = self.tail.lock();
        self.make_room(&mut tail, len)?;
        let stored_ms = tail.tick(now);
        let queue_offset = queue.take_offsets(1);
        let at = LogOffset(tail.end);
        tail.write(message, crc, (queue_offset, at, stored_ms));
        let tags_code = message.tags_code;
        let len = len as u32;
        tail.entries.push(Entry { queue, at, len, tags_code, queue_offset, stored_ms, keys });
        let end = self.publish(tail);
        Ok(Appended { at, end, queue_offset, stored_ms })
    }

    pub(crate) fn append_batch(
        &self,
        messages: &[Message<'_>],
        queue: &Arc<ConsumeQueue>,
        keys: Vec<KeyHashes>,
    ) -> Result<Batch, AppendError> {
        messages.iter().try_for_each(|message| self.check(message))?;
        let total: usize = messages.iter().map(record::encoded_len).sum();
        let crcs: Vec<u32> = messages.iter().map(|it| record::body_crc(it.body)).collect();
        let mut tail = self.tail.lock();
        self.make_room(&mut tail, total as u64)?;
        let stored_ms = tail.tick(self.now_ms());
        let first_offset = queue.take_offsets(messages.len() as u64);
        let first_at = LogOffset(tail.end);
        let mut places = Vec::with_capacity(messages.len());
        for (index, ((message, crc), keys)) in messages.iter().zip(crcs).zip(keys).enumerate() {
            let (at, queue_offset) = (LogOffset(tail.end), first_offset.plus(index as u64));
            tail.write(message, crc, (queue_offset, at, stored_ms));
            places.push(at);
            let len = (tail.end - at.0) as u32;
            tail.entries.push(Entry {
                queue: Arc::clone(queue),
                at,
                len,
                tags_code: message.tags_code,
                queue_offset,
                stored_ms,
                keys,
            });
        }
        let end = self.publish(tail);
        let first = Appended { at: first_at, end, queue_offset: first_offset, stored_ms };
        Ok(Batch { first, places })
    }

    fn check(&self, message: &Message<'_>) -> Result<(), AppendError> {
        if properties::LEN_MAX < message.properties.len() {
            return Err(AppendError::PropertiesTooLong { len: message.properties.len() });
        }
        if walk::may_seem_torn(message.properties) {
            return Err(AppendError::PropertiesZeroed);
        }
        if apogee_types::names::RETRY_TOPIC_LEN_MAX < message.topic.len() {
            return Err(AppendError::TopicTooLong { len: message.topic.len() });
        }
        Ok(())
    }

    /// Makes sure that `len` bytes fit the tail's segment; closes it and takes the next one if not.
    fn make_room(&self, tail: &mut Tail, len: u64) -> Result<(), AppendError> {
        if let Some(reason) = &tail.refused {
            return Err(AppendError::NotWritable(reason.clone()));
        }
        self.check_device()?;
        let segment_len = self.segments.segment_len();
        let max = segment_len.saturating_sub(BLANK_LEN);
        if max < len {
            return Err(AppendError::LongerThanFile { len, max });
        }
        if tail.file.is_none() {
            let (file, place) = self.segments.locate_or_create(tail.end)?;
            tail.file = Some((file, tail.end - place));
        }
        let Some((_, start)) = tail.file else { unreachable!("it was just set") };
        let left = start + segment_len - tail.end;
        if len + BLANK_LEN <= left {
            return Ok(self.prepare_to(tail.end + len)?);
        }
        let next = start + segment_len;
        self.prepare_to(next + len)?;
        let (next_file, _) = self.segments.locate_or_create(next)?;
        let mut blank = [0; BLANK_LEN as usize];
        blank[..4].copy_from_slice(&(left as u32).to_be_bytes());
        blank[4..].copy_from_slice(&MAGIC_BLANK.to_be_bytes());
        tail.put(&blank);
        if let Some(staged) = &mut tail.staged {
            staged.resize(staged.len() + (left - BLANK_LEN) as usize, 0);
        }
        tail.end = next;
        tail.file = Some((next_file, next));
        Ok(())
    }

    /// Lets readers and the flush service see what was appended; gives the lock back.
    fn publish(&self, tail: parking_lot::MutexGuard<'_, Tail>) -> LogOffset {
        let end = tail.end;
        self.end.store(end, Ordering::Release);
        self.has_entries.store(true, Ordering::Release);
        let is_much = tail.staged.as_ref().is_some_and(|staged| STAGED_MAX < staged.len());
        drop(tail);
        if is_much {
            // If that fails, who waits for the flush is told.
            let _ = self.write_out();
        }
        if self.mode == FlushMode::Sync {
            let mut unflushed = self.unflushed.lock();
            let waker = if unflushed.is_any { None } else { unflushed.waker.take() };
            unflushed.is_any = true;
            drop(unflushed);
            waker.into_iter().for_each(Waker::wake);
        }
        LogOffset(end)
    }

    /// Something may be ready for dispatch.
    pub(crate) fn has_entries(&self) -> bool {
        self.has_entries.load(Ordering::Acquire)
            && (self.mode == FlushMode::Async || {
                let visible = self.flushed.get();
                let tail = self.tail.lock();
                tail.entries.first().is_some_and(|entry| entry.end() <= visible)
            })
    }

    /// Moves the entries that may be seen to the end of `out`, in log order.
    pub(crate) fn take_entries(&self, out: &mut Vec<Entry>) {
        let visible = self.visible();
        let mut tail = self.tail.lock();
        if self.mode == FlushMode::Async {
            out.append(&mut tail.entries);
        } else {
            let count = tail.entries.partition_point(|entry| entry.end() <= visible);
            out.extend(tail.entries.drain(..count));
        }
        self.has_entries.store(!tail.entries.is_empty(), Ordering::Release);
    }

    /// Entries that wait for their dispatch.
    pub(crate) fn entry_count(&self) -> usize {
        self.tail.lock().entries.len()
    }

    /// Records that were put since the start, and their bytes.
    pub(crate) fn put_totals(&self) -> (u64, u64) {
        let tail = self.tail.lock();
        (tail.put_count, tail.put_bytes)
    }

    #[must_use]
    pub fn end(&self) -> LogOffset {
        LogOffset(self.end.load(Ordering::Acquire))
    }

    #[must_use]
    pub fn visible(&self) -> LogOffset {
        match self.mode {
            FlushMode::Async => self.end(),
            FlushMode::Sync => self.flushed.get(),
        }
    }

    pub(crate) fn slice(&self, unit: &Unit) -> Option<Bytes> {
        RecordReader::new(&self.segments).slice(unit)
    }

    pub(crate) fn record_at(&self, at: LogOffset) -> Option<Bytes> {
        let visible = self.visible();
        let (file, place) = self.segments.locate(at.0)?;
        if visible.0 < at.0 + 4 || file.len() < place + 4 {
            return None;
        }
        let mut len = [0; 4];
        file.read_at(place, &mut len);
        let len = u64::from(u32::from_be_bytes(len));
        if file.len() < place + len || visible.0 < at.0 + len {
            return None;
        }
        let bytes = file.slice(place, len as usize);
        Record::parse(&bytes).is_ok_and(|record| record.at == at).then_some(bytes)
    }

    pub(crate) fn now_ms(&self) -> Millis {
        self.clock.now_ms()
    }

    /// No more messages are taken; the first reason stays.
    pub(crate) fn refuse(&self, reason: String) {
        self.tail.lock().refused.get_or_insert(reason);
    }

    pub(crate) fn check_writable(&self) -> Result<(), AppendError> {
        self.check_device()?;
        match &self.tail.lock().refused {
            Some(reason) => Err(AppendError::NotWritable(reason.clone())),
            None => Ok(()),
        }
    }

    /// Brings what was written so far to the device. A failure is final: what the device lost
    /// cannot be told, so a later success would prove nothing.
    pub(crate) fn flush(&self) -> Result<bool, Error> {
        self.unflushed.lock().is_any = false;
        let written = self.write_out()?;
        self.flush_to(written)
    }

    /// Writes what is staged to the files, where it survives the end of this process. Up to where
    /// everything is there.
    pub(crate) fn write_out(&self) -> Result<LogOffset, Error> {
        let mut spare = self.spare.lock();
        let end = {
            let mut tail = self.tail.lock();
            if let Some(staged) = &mut tail.staged {
                std::mem::swap(staged, &mut spare);
            }
            tail.end
        };
        let written = self.segments.write_through(end - spare.len() as u64, &spare);
        spare.clear();
        spare.shrink_to(2 * STAGED_MAX);
        written.inspect_err(|error| self.fail(error))?;
        Ok(LogOffset(end))
    }

    /// [`flush`](Self::flush) for who promises nothing: leaves the last bytes alone while more
    /// come; the next one brings those. A page that is brought to the device must be asked of the
    /// file system before it is written again, and the append that asks waits for whatever the
    /// journal is doing.
    pub(crate) fn flush_behind(&self) -> Result<bool, Error> {
        let (from, end) = (self.flushed.get(), self.end());
        let whole = LogOffset(end.0 - end.0 % LEFT_ALONE);
        let to = if from < whole { whole } else { end };
        // In parts: until all pages of one are on their way, nobody else gets the processor.
        let part = to.0.saturating_sub(from.0) / FLUSHED_PARTS;
        let part = part.next_multiple_of(LEFT_ALONE).max(FLUSHED_LEN_MIN);
        let mut is_any = false;
        for at in (from.0..to.0).step_by(part as usize) {
            is_any |= self.flush_to(LogOffset((at + part).min(to.0)))?;
        }
        Ok(is_any)
    }

    fn flush_to(&self, to: LogOffset) -> Result<bool, Error> {
        let from = self.flushed.get();
        if to <= from || self.flushed.failure().is_some() {
            return Ok(false);
        }
        let began_ms = self.now_ms();
        if let Err(error) = self.segments.sync(from.0, to.0) {
            self.fail(&error);
            return Err(error);
        }
        self.flushes.lock().note((self.now_ms() - began_ms).max(0));
        self.flushed.advance(to);
        Ok(true)
    }

    /// No more is taken, and nothing more is said to be on the device.
    fn fail(&self, error: &Error) {
        let reason = format!("the device did not take the log ({error}); replace it and restart");
        self.flushed.fail(reason);
        self.has_failed.store(true, Ordering::Release);
    }

    /// An error once the device has failed to take the log.
    pub(crate) fn check_device(&self) -> Result<(), AppendError> {
        if !self.has_failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let reason = self.flushed.failure().map_or(String::new(), |failed| failed.0);
        Err(AppendError::NotWritable(reason))
    }

    /// Ready once something was appended since the last flush began; with synchronous flush only.
    pub(crate) fn poll_unflushed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut unflushed = self.unflushed.lock();
        if unflushed.is_any {
            return Poll::Ready(());
        }
        unflushed.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Prepares a slice ahead of the end; whether more is to be prepared.
    pub(crate) fn prepare(&self) -> Result<bool, Error> {
        let to = self.end().0 + AHEAD.min(self.segments.segment_len());
        let mut allocated = self.allocated.lock();
        let is_behind = self.prepared.load(Ordering::Relaxed) < to;
        if is_behind {
            self.prepare_slice(&mut allocated, to)?;
        }
        Ok(is_behind)
    }

    /// Prepares up to `to` at once, for an append that the prepare service was too slow for.
    fn prepare_to(&self, to: u64) -> Result<(), Error> {
        if to <= self.prepared.load(Ordering::Acquire) {
            return Ok(());
        }
        self.prepare_misses.fetch_add(1, Ordering::Relaxed);
        let mut allocated = self.allocated.lock();
        while self.prepared.load(Ordering::Relaxed) < to {
            self.prepare_slice(&mut allocated, to)?;
        }
        Ok(())
    }

    /// Prepares a part of what is missing up to `wanted`.
    fn prepare_slice(&self, allocated: &mut u64, wanted: u64) -> Result<(), Error> {
        let from = self.prepared.load(Ordering::Relaxed);
        let (file, place) = self.segments.locate_or_create(from)?;
        let in_path = |error| Error::io(self.segments.path(from - place))(error);
        let is_much = MUCH <= wanted - from && place.is_multiple_of(SLICE_LARGE);
        let slice = match self.mode {
            FlushMode::Sync => SLICE_SYNC,
            FlushMode::Async if is_much => SLICE_LARGE,
            FlushMode::Async => SLICE_SMALL,
        };
        let to = (place + 1).next_multiple_of(slice).min(file.len());
        if *allocated < from + (to - place) {
            let end = (place + ALLOCATED_LEN).min(file.len());
            file.allocate(place, end).map_err(in_path)?;
            *allocated = from + (end - place);
        }
        if self.mode == FlushMode::Async {
            file.prepare(place, to).map_err(in_path)?;
        } else {
            // Zeros on the device, so that a later sync has no metadata to write. It also brings
            // the page of the log's end there, so a failure is one of the log.
            let zeros = [0; SLICE_SMALL as usize];
            for at in (place..to).step_by(zeros.len()) {
                let zeros = &zeros[..zeros.len().min((to - at) as usize)];
                file.write_through(at, zeros).map_err(in_path)?;
            }
            file.sync(place, to).map_err(in_path).inspect_err(|error| self.fail(error))?;
        }
        self.prepared.store(from + (to - place), Ordering::Release);
        Ok(())
    }

    /// Removes segments that were made ahead and hold nothing.
    pub(crate) fn drop_unused(&self) -> Result<(), Error> {
        let end = self.end().0;
        self.segments.truncate(end.max(1))
    }
}

impl Entry {
    fn end(&self) -> LogOffset {
        self.at.plus(u64::from(self.len))
    }
}

impl Tail {
    fn tick(&mut self, now: Millis) -> Millis {
        if self.last_ms < now || now + CLOCK_SET_BACK_MS < self.last_ms {
            self.last_ms = now;
        }
        self.last_ms
    }

    /// Writes the record of `message` at the end.
    fn write(&mut self, message: &Message<'_>, crc: u32, place: (QueueOffset, LogOffset, Millis)) {
        let before = self.end;
        record::encode(message, crc, place, |part| self.put(part));
        self.put_count += 1;
        self.put_bytes += self.end - before;
    }

    /// Puts bytes at the end, for which there is room.
    fn put(&mut self, bytes: &[u8]) {
        if let Some(staged) = &mut self.staged {
            staged.extend_from_slice(bytes);
        } else {
            let Some((file, start)) = &self.file else { unreachable!("room was made before") };
            file.write_at(self.end - start, bytes);
        }
        self.end += bytes.len() as u64;
    }
}
