//! One queue's index into the log. Spec `store.md` 3.
//!
//! ```text
//!  a unit:  log offset 8 | record length 4 | tag code 8        unit n lies at byte 20 n
//! ```

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use apogee_types::{LogOffset, QueueId, QueueOffset};

use crate::disk::Disk;
use crate::error::Error;
use crate::index::TopicHash;
use crate::read::Unit;
use crate::segments::Segments;

pub const UNIT_LEN: u64 = 20;

/// How much space is taken from the disk at once.
const ALLOCATED_LEN_MIN: u64 = 4096;
const ALLOCATED_LEN_MAX: u64 = 64 * 1024;

/// The length in a unit that only fills the space of a message that is lost.
const BLANK_LEN: u32 = 0x7FFF_FFFF;

impl Unit {
    /// Not a filler, and not what was never written.
    fn is_message(&self) -> bool {
        self.len != 0 && self.len != BLANK_LEN
    }
}

/// A consume queue. One thread at a time appends (the store's dispatch sees to it), all read.
pub struct ConsumeQueue {
    pub topic: Arc<str>,
    pub id: QueueId,
    /// Of the topic, for the index.
    pub(crate) topic_hash: TopicHash,
    segments: Segments,
    /// The oldest unit whose record is still there.
    min: AtomicU64,
    /// Published after the unit's bytes: everything below may be read.
    end: AtomicU64,
    /// Everything below is on the device.
    flushed: AtomicU64,
    /// The offset that the next appended message gets. Written under the log's tail lock only.
    next: AtomicU64,
    /// From the place of the first write since the start up to here, as bytes of the row, units
    /// have space on the disk. Appended to by one thread at a time, as the units are.
    allocated: AtomicU64,
    /// Stands in the list of queues to be flushed.
    pub(crate) is_dirty: AtomicBool,
}

impl ConsumeQueue {
    /// Opens the queue in `dir`, or prepares one that has no file yet.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        file_len: u64,
        topic: Arc<str>,
        id: QueueId,
    ) -> Result<Self, Error> {
        let len = file_len.div_ceil(UNIT_LEN) * UNIT_LEN;
        let segments = Segments::open(disk, dir, len, "mappedFileSizeConsumeQueue")?;
        let queue = Self {
            topic_hash: TopicHash::of(&topic),
            topic,
            id,
            segments,
            min: AtomicU64::new(0),
            end: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            next: AtomicU64::new(0),
            allocated: AtomicU64::new(0),
            is_dirty: AtomicBool::new(false),
        };
        queue.find_end();
        Ok(queue)
    }

    /// The offsets that can be read.
    #[must_use]
    pub fn bounds(&self) -> Range<QueueOffset> {
        let end = self.end.load(Ordering::Acquire);
        QueueOffset(self.min.load(Ordering::Acquire).min(end))..QueueOffset(end)
    }

    /// Takes `count` offsets for messages that are being appended; under the log's tail lock.
    pub(crate) fn take_offsets(&self, count: u64) -> QueueOffset {
        let first = self.next.load(Ordering::Relaxed);
        self.next.store(first + count, Ordering::Relaxed);
        QueueOffset(first)
    }

    /// Appends the unit of a message with that queue offset. One that is there already stays.
    pub(crate) fn append(&self, offset: QueueOffset, unit: &Unit) -> Result<(), Error> {
        let end = self.end.load(Ordering::Relaxed);
        if offset.0 < end {
            return Ok(());
        }
        if end < offset.0 {
            self.fill_blank(end, offset.0)?;
        }
        self.write(offset.0, unit)?;
        self.end.store(offset.0 + 1, Ordering::Release);
        self.next.fetch_max(offset.0 + 1, Ordering::Relaxed);
        Ok(())
    }

    /// Puts a unit right that is there and wrong.
    pub(crate) fn correct(&self, offset: QueueOffset, unit: &Unit) -> Result<(), Error> {
        self.flushed.fetch_min(offset.0, Ordering::Relaxed);
        self.write(offset.0, unit)
    }

    /// The unit of a message; `None` where there is none, or only a filler for a lost one.
    #[must_use]
    pub fn unit(&self, offset: QueueOffset) -> Option<Unit> {
        let bounds = self.bounds();
        let is_inside = bounds.start <= offset && offset < bounds.end;
        is_inside.then(|| self.unit_at(offset.0)).flatten().filter(Unit::is_message)
    }

    /// Looks at units from `from` on, in order, until `look` says stop or the end is reached. Of a
    /// lost message there is only the offset.
    pub(crate) fn scan(
        &self,
        from: QueueOffset,
        mut look: impl FnMut(QueueOffset, Option<Unit>) -> bool,
    ) {
        const CHUNK_COUNT: u64 = 32;
        let end = self.end.load(Ordering::Acquire);
        let mut at = from.0;
        let mut bytes = [0; (CHUNK_COUNT * UNIT_LEN) as usize];
        while at < end {
            let Some((file, place)) = self.segments.locate(at * UNIT_LEN) else { return };
            let in_file = (self.segments.segment_len() - place) / UNIT_LEN;
            let count = CHUNK_COUNT.min(in_file).min(end - at);
            let bytes = &mut bytes[..(count * UNIT_LEN) as usize];
            file.read_at(place, bytes);
            for unit in bytes.chunks_exact(UNIT_LEN as usize) {
                let unit = Some(decode(unit)).filter(Unit::is_message);
                if !look(QueueOffset(at), unit) {
                    return;
                }
                at += 1;
            }
        }
    }

    /// Brings the queue to the device.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        let end = self.end.load(Ordering::Acquire);
        let flushed = self.flushed.load(Ordering::Relaxed);
        self.segments.sync(flushed * UNIT_LEN, end * UNIT_LEN)?;
        self.flushed.store(end, Ordering::Relaxed);
        Ok(())
    }

    /// Where the last unit's record ends; 0 for an empty queue.
    #[must_use]
    pub fn log_end(&self) -> LogOffset {
        let bounds = self.bounds();
        let last = bounds.end.0.checked_sub(1).filter(|last| bounds.start.0 <= *last);
        let unit = last.and_then(|last| self.unit_at(last)).filter(Unit::is_message);
        unit.map_or(LogOffset(0), |unit| unit.end())
    }

    /// Cuts off the units whose records lie at or above `end`.
    pub(crate) fn truncate(&self, end: LogOffset) -> Result<(), Error> {
        self.cut_while(|_, unit| end < unit.end())
    }

    /// Cuts units off the end as long as `is_lost` says so, and fillers with them.
    pub(crate) fn cut_while(
        &self,
        is_lost: impl Fn(QueueOffset, &Unit) -> bool,
    ) -> Result<(), Error> {
        let bounds = self.bounds();
        let mut keep = bounds.end.0;
        while bounds.start.0 < keep {
            let unit = self.unit_at(keep - 1).filter(Unit::is_message);
            if unit.is_some_and(|unit| !is_lost(QueueOffset(keep - 1), &unit)) {
                break;
            }
            keep -= 1;
        }
        self.cut(QueueOffset(keep))
    }

    /// Cuts off the units from `keep` on.
    pub(crate) fn cut(&self, keep: QueueOffset) -> Result<(), Error> {
        let gone = Unit { at: LogOffset(0), len: 0, tags_code: 0 };
        for offset in keep.0..self.bounds().end.0 {
            self.write(offset, &gone)?;
        }
        self.set_end(keep.0);
        self.segments.truncate(keep.0 * UNIT_LEN)
    }

    /// Hides the units whose records were deleted, those below `log_min`, and removes the files
    /// that hold no other; never the last. Spec `store.md` 10.
    pub(crate) fn raise_min(&self, log_min: LogOffset) -> Result<(), Error> {
        let min = self.first_from(log_min);
        self.min.store(min, Ordering::Release);
        let len = self.segments.segment_len();
        loop {
            let (start, after) = self.segments.bounds();
            if after <= start + len || min * UNIT_LEN < start + len {
                return Ok(());
            }
            self.segments.remove_first()?;
        }
    }

    /// The device is known to have the units of all records below `log_end`.
    pub(crate) fn set_flushed(&self, log_end: LogOffset) {
        self.flushed.store(self.first_from(log_end), Ordering::Relaxed);
    }

    /// The first unit of a record at or above `at`.
    fn first_from(&self, at: LogOffset) -> u64 {
        let bounds = self.bounds();
        let (mut low, mut high) = (bounds.start.0, bounds.end.0);
        // Of a filler the message that follows tells.
        let message_at = |offset| self.unit_at(offset).filter(Unit::is_message);
        let is_below =
            |offset| (offset..bounds.end.0).find_map(message_at).is_none_or(|unit| unit.at < at);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_below(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn unit_at(&self, offset: u64) -> Option<Unit> {
        let (file, place) = self.segments.locate(offset * UNIT_LEN)?;
        let mut bytes = [0; UNIT_LEN as usize];
        file.read_at(place, &mut bytes);
        Some(decode(&bytes))
    }

    fn write(&self, offset: u64, unit: &Unit) -> Result<(), Error> {
        let at = offset * UNIT_LEN;
        let (file, place) = self.segments.locate_or_create(at)?;
        if self.allocated.load(Ordering::Relaxed) < at + UNIT_LEN {
            // As much again as there is: a queue with few messages costs little.
            let to = (place + at.clamp(ALLOCATED_LEN_MIN, ALLOCATED_LEN_MAX)).min(file.len());
            file.allocate(place, to).map_err(Error::io(self.segments.path(at - place)))?;
            self.allocated.store(at - place + to, Ordering::Relaxed);
        }
        let mut bytes = [0; UNIT_LEN as usize];
        bytes[..8].copy_from_slice(&unit.at.0.to_be_bytes());
        bytes[8..12].copy_from_slice(&unit.len.to_be_bytes());
        bytes[12..].copy_from_slice(&unit.tags_code.to_be_bytes());
        file.write_at(place, &bytes);
        Ok(())
    }

    /// Fills the space of messages that are lost. Spec `store.md` 3.2 for those before the first;
    /// between others it is ours, so that those stay readable.
    fn fill_blank(&self, from: u64, to: u64) -> Result<(), Error> {
        let per_file = self.segments.segment_len() / UNIT_LEN;
        let bounds = self.segments.bounds();
        let is_empty = bounds.0 == bounds.1;
        let start = if is_empty { to - to % per_file } else { from };
        let blank = Unit { at: LogOffset(0), len: BLANK_LEN, tags_code: 0 };
        for offset in start..to {
            self.write(offset, &blank)?;
        }
        if is_empty || self.bounds().is_empty() {
            self.min.store(to, Ordering::Release);
        }
        Ok(())
    }

    /// After opening: the end is the first unit that was never written.
    fn find_end(&self) {
        let (start, after) = self.segments.bounds();
        let (first, after) = (start / UNIT_LEN, after / UNIT_LEN);
        let is_written = |offset| self.unit_at(offset).is_some_and(|unit| 0 < unit.len);
        let (mut low, mut high) = (first, after);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_written(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.set_end(low);
        // Fillers before the first message lie in the first file; others are not looked for here.
        let is_filler = |offset: &u64| self.unit_at(*offset).is_some_and(|it| !it.is_message());
        let fillers = (first..low).take_while(is_filler).count() as u64;
        self.min.store(first + fillers, Ordering::Release);
    }

    fn set_end(&self, end: u64) {
        self.end.store(end, Ordering::Release);
        self.next.store(end, Ordering::Relaxed);
        self.flushed.fetch_min(end, Ordering::Relaxed);
        self.allocated.fetch_min(end * UNIT_LEN, Ordering::Relaxed);
    }
}

fn decode(bytes: &[u8]) -> Unit {
    let (at, rest) = bytes.split_first_chunk().expect("a unit has 20 bytes");
    let (len, rest) = rest.split_first_chunk().expect("a unit has 20 bytes");
    let tags_code = rest.try_into().expect("a unit has 20 bytes");
    Unit {
        at: LogOffset(u64::from_be_bytes(*at)),
        len: u32::from_be_bytes(*len),
        tags_code: i64::from_be_bytes(tags_code),
    }
}
