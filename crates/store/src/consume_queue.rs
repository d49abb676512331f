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
use crate::open_files::OpenFiles;
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
    /// Where the record of the last unit ends; 0 if there is none. Written as the units are.
    log_end: AtomicU64,
    /// From the place of the first write since the start up to here, as bytes of the row, units
    /// have space on the disk. Appended to by one thread at a time, as the units are.
    allocated: AtomicU64,
    /// What lies behind the end may not be zeros. Changed as `allocated`.
    has_rest: AtomicBool,
    /// Stands in the list of queues to be flushed.
    pub(crate) is_dirty: AtomicBool,
    /// Its topic was deleted: what still comes is not kept. Set before the files are removed.
    is_removed: AtomicBool,
}

/// How long a file is where that much is set: whole units.
pub(crate) fn row_file_len(set: u64) -> u64 {
    set.div_ceil(UNIT_LEN) * UNIT_LEN
}

impl ConsumeQueue {
    /// Looks at the queue in `dir`, or prepares one that has no file yet. Its files are opened
    /// when they are used, as far as `open_files` has room.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        file_len: u64,
        (topic, id): (Arc<str>, QueueId),
        open_files: Arc<OpenFiles>,
    ) -> Result<Self, Error> {
        let len = row_file_len(file_len);
        let setting = "mappedFileSizeConsumeQueue";
        let segments = Segments::open_on_use(disk, dir, len, setting, open_files)?;
        let queue = Self {
            topic_hash: TopicHash::of(&topic),
            topic,
            id,
            segments,
            min: AtomicU64::new(0),
            end: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            next: AtomicU64::new(0),
            log_end: AtomicU64::new(0),
            allocated: AtomicU64::new(0),
            has_rest: AtomicBool::new(false),
            is_dirty: AtomicBool::new(false),
            is_removed: AtomicBool::new(false),
        };
        queue.find_end()?;
        Ok(queue)
    }

    pub(crate) fn has_file(&self) -> bool {
        0 < self.segments.count()
    }

    /// The offsets that can be read.
    #[must_use]
    pub fn bounds(&self) -> Range<QueueOffset> {
        let end = self.end.load(Ordering::Acquire);
        QueueOffset(self.min.load(Ordering::Acquire).min(end))..QueueOffset(end)
    }

    /// The log has no message of it, and none is on its way.
    pub(crate) fn is_empty(&self) -> bool {
        let bounds = self.bounds();
        bounds.is_empty() && self.next.load(Ordering::Relaxed) <= bounds.end.0
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
        if offset.0 < end || self.is_removed() {
            return Ok(());
        }
        let filled = if end < offset.0 { self.fill_blank(end, offset.0) } else { Ok(()) };
        match filled.and_then(|()| self.write(offset.0, unit)) {
            // The files went away while they were written.
            Err(_) if self.is_removed() => return Ok(()),
            written => written?,
        }
        self.log_end.store(unit.end().0, Ordering::Relaxed);
        self.end.store(offset.0 + 1, Ordering::Release);
        if self.next.load(Ordering::Relaxed) <= offset.0 {
            self.next.fetch_max(offset.0 + 1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The topic is being deleted: nothing is appended any more.
    pub(crate) fn remove(&self) {
        self.is_removed.store(true, Ordering::Release);
    }

    fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::Acquire)
    }

    /// Puts a unit right that is there and wrong.
    pub(crate) fn correct(&self, offset: QueueOffset, unit: &Unit) -> Result<(), Error> {
        self.flushed.fetch_min(offset.0, Ordering::Relaxed);
        if offset.0 + 1 == self.bounds().end.0 {
            self.log_end.store(unit.end().0, Ordering::Relaxed);
        }
        self.write(offset.0, unit)
    }

    /// The unit of a message; `None` where there is none, or only a filler for a lost one.
    pub fn unit(&self, offset: QueueOffset) -> Result<Option<Unit>, Error> {
        let bounds = self.bounds();
        if offset < bounds.start || bounds.end <= offset {
            return Ok(None);
        }
        let located = self.segments.locate_or_open(offset.0 * UNIT_LEN)?;
        let mut bytes = [0; UNIT_LEN as usize];
        let Some((file, place)) = located else { return Ok(None) };
        file.read_at(place, &mut bytes);
        Ok(Some(decode(&bytes)).filter(Unit::is_message))
    }

    /// Looks at units from `from` on, in order, until `look` says stop or the end is reached. Of a
    /// lost message there is only the offset.
    pub(crate) fn scan(
        &self,
        from: QueueOffset,
        mut look: impl FnMut(QueueOffset, Option<Unit>) -> bool,
    ) -> Result<(), Error> {
        const CHUNK_COUNT: u64 = 32;
        let end = self.end.load(Ordering::Acquire);
        let mut at = from.0;
        let mut bytes = [0; (CHUNK_COUNT * UNIT_LEN) as usize];
        while at < end {
            let located = self.segments.locate_or_open(at * UNIT_LEN)?;
            let Some((file, place)) = located else { break };
            let in_file = (self.segments.segment_len() - place) / UNIT_LEN;
            let count = CHUNK_COUNT.min(in_file).min(end - at);
            let bytes = &mut bytes[..(count * UNIT_LEN) as usize];
            file.read_at(place, bytes);
            for unit in bytes.chunks_exact(UNIT_LEN as usize) {
                let unit = Some(decode(unit)).filter(Unit::is_message);
                if !look(QueueOffset(at), unit) {
                    return Ok(());
                }
                at += 1;
            }
        }
        Ok(())
    }

    /// Brings the queue to the device.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        let end = self.end.load(Ordering::Acquire);
        let flushed = self.flushed.load(Ordering::Relaxed);
        self.segments.sync(flushed * UNIT_LEN, end * UNIT_LEN)?;
        self.flushed.store(end, Ordering::Relaxed);
        Ok(())
    }

    /// Everything that is there now, to be passed to [`note_flushed`](Self::note_flushed).
    pub(crate) fn written(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// All that was `written` then is on the device now.
    pub(crate) fn note_flushed(&self, written: u64) {
        self.flushed.fetch_max(written, Ordering::Relaxed);
    }

    /// Where the last unit's record ends; 0 for an empty queue.
    #[must_use]
    pub fn log_end(&self) -> LogOffset {
        LogOffset(self.log_end.load(Ordering::Relaxed))
    }

    /// Cuts off the units whose records lie at or above `end`.
    pub(crate) fn truncate(&self, end: LogOffset) -> Result<(), Error> {
        if self.log_end() <= end {
            return Ok(());
        }
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
            let unit = self.message_at(keep - 1)?;
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
        let end = self.bounds().end.0;
        for offset in keep.0..end {
            self.write(offset, &gone)?;
        }
        if keep.0 < end {
            let last = keep.0.checked_sub(1).map(|last| self.message_at(last)).transpose()?;
            self.set_end(keep.0, last.flatten());
        }
        self.segments.truncate(keep.0 * UNIT_LEN)
    }

    /// Removes all units, as if there had never been any.
    pub(crate) fn clear(&self) -> Result<(), Error> {
        self.segments.truncate(0)?;
        self.set_end(0, None);
        self.min.store(0, Ordering::Release);
        Ok(())
    }

    /// A power cut may have left units behind the end, behind one that is lost, which Apache would
    /// take for its own once the place between is filled. They are made zeros before that; at once
    /// it would take seconds for many queues.
    pub(crate) fn expect_rest(&self) -> Result<(), Error> {
        self.has_rest.store(true, Ordering::Relaxed);
        self.allocated.store(0, Ordering::Relaxed);
        self.segments.truncate(self.end.load(Ordering::Relaxed) * UNIT_LEN)
    }

    /// Counts what is blank at the beginning as well: it is to be filled.
    pub(crate) fn show_all(&self) {
        self.min.store(self.segments.bounds().0 / UNIT_LEN, Ordering::Release);
    }

    fn clear_rest(&self) -> Result<(), Error> {
        let end = self.end.load(Ordering::Relaxed) * UNIT_LEN;
        let Some((file, place)) = self.segments.locate_or_open(end)? else { return Ok(()) };
        file.zero(place, file.len()).map_err(Error::io(self.segments.path(end - place)))
    }

    /// Hides the units whose records were deleted, those below `log_min`, and removes the files
    /// that hold no other; never the last. Spec `store.md` 10.
    pub(crate) fn raise_min(&self, log_min: LogOffset) -> Result<(), Error> {
        let min = self.first_from(log_min)?;
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
    pub(crate) fn set_flushed(&self, log_end: LogOffset) -> Result<(), Error> {
        let is_all = self.log_end() <= log_end;
        let flushed = if is_all { self.bounds().end.0 } else { self.first_from(log_end)? };
        self.flushed.store(flushed, Ordering::Relaxed);
        Ok(())
    }

    /// The first unit of a record at or above `at`.
    fn first_from(&self, at: LogOffset) -> Result<u64, Error> {
        let bounds = self.bounds();
        let is_below = |offset| {
            // Of a filler the message that follows tells.
            for offset in offset..bounds.end.0 {
                if let Some(unit) = self.message_at(offset)? {
                    return Ok(unit.at < at);
                }
            }
            Ok(true)
        };
        // Most often it is the first: one look at one file.
        if at == LogOffset(0) || bounds.is_empty() || !is_below(bounds.start.0)? {
            return Ok(bounds.start.0);
        }
        first_that(bounds.start.0, bounds.end.0, |offset| Ok(!is_below(offset)?))
    }

    /// The unit, if it is a message's. The file is not opened for it: for looking at every queue.
    fn message_at(&self, offset: u64) -> Result<Option<Unit>, Error> {
        let mut bytes = [0; UNIT_LEN as usize];
        let is_there = self.segments.peek(offset * UNIT_LEN, &mut bytes)?;
        Ok(is_there.then(|| decode(&bytes)).filter(Unit::is_message))
    }

    fn write(&self, offset: u64, unit: &Unit) -> Result<(), Error> {
        let at = offset * UNIT_LEN;
        let (file, place) = self.segments.locate_or_create(at)?;
        if self.allocated.load(Ordering::Relaxed) < at + UNIT_LEN {
            if self.has_rest.load(Ordering::Relaxed) {
                self.clear_rest()?;
                self.has_rest.store(false, Ordering::Relaxed);
            }
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
    fn find_end(&self) -> Result<(), Error> {
        let (start, after) = self.segments.bounds();
        if start == after {
            return Ok(());
        }
        let per_file = self.segments.segment_len() / UNIT_LEN;
        let (first, after) = (start / UNIT_LEN, after / UNIT_LEN);
        let mut page = Page { segments: &self.segments, first: 0, units: Vec::new() };
        // In the last file that has any; most queues end in the first few units of it.
        let starts = first_that(1, (after - first) / per_file, |number| {
            Ok(!page.is_written(first + number * per_file)?)
        })?;
        let from = first + (starts - 1) * per_file;
        page.load(from)?;
        let in_page = page.units.iter().take_while(|it| it.len != 0).count() as u64;
        let is_in_page = in_page < page.units.len() as u64;
        let end = if is_in_page {
            from + in_page
        } else {
            // Open it costs less than one look after the other.
            self.segments.locate_or_open(from * UNIT_LEN)?;
            first_that(from + in_page, from + per_file, |offset| Ok(!page.is_written(offset)?))?
        };
        let last = if first < end { page.unit(end - 1)? } else { None };
        self.set_end(end, last.filter(Unit::is_message));
        // Fillers before the first message lie in the first file; others are not looked for here.
        let mut min = first;
        while min < end && page.unit(min)?.is_some_and(|it| !it.is_message()) {
            min += 1;
        }
        self.min.store(min, Ordering::Release);
        Ok(())
    }

    /// `last` is the unit before `end`.
    fn set_end(&self, end: u64, last: Option<Unit>) {
        self.end.store(end, Ordering::Release);
        self.next.store(end, Ordering::Relaxed);
        self.log_end.store(last.map_or(0, |unit| unit.end().0), Ordering::Relaxed);
        self.flushed.fetch_min(end, Ordering::Relaxed);
        self.allocated.fetch_min(end * UNIT_LEN, Ordering::Relaxed);
    }
}

/// The units around the one that was looked at last: files are read by the page, each read being
/// three system calls.
struct Page<'a> {
    segments: &'a Segments,
    /// Offset of the first unit.
    first: u64,
    units: Vec<Unit>,
}

impl Page<'_> {
    const COUNT: u64 = 4096 / UNIT_LEN;

    fn is_written(&mut self, offset: u64) -> Result<bool, Error> {
        Ok(self.unit(offset)?.is_some_and(|unit| 0 < unit.len))
    }

    fn unit(&mut self, offset: u64) -> Result<Option<Unit>, Error> {
        let found = |page: &Self| {
            let index = offset.checked_sub(page.first)?;
            page.units.get(index as usize).copied()
        };
        if found(self).is_none() {
            self.load(offset)?;
        }
        Ok(found(self))
    }

    fn load(&mut self, offset: u64) -> Result<(), Error> {
        let mut bytes = [0; (Self::COUNT * UNIT_LEN) as usize];
        let per_file = self.segments.segment_len() / UNIT_LEN;
        let count = Self::COUNT.min(per_file - offset % per_file);
        let bytes = &mut bytes[..(count * UNIT_LEN) as usize];
        self.first = offset;
        self.units.clear();
        if self.segments.peek(offset * UNIT_LEN, bytes)? {
            self.units.extend(bytes.chunks_exact(UNIT_LEN as usize).map(decode));
        }
        Ok(())
    }
}

/// The first number of a range for which `is_so`, which is so for all that follow; `to` for none.
fn first_that(
    from: u64,
    to: u64,
    mut is_so: impl FnMut(u64) -> Result<bool, Error>,
) -> Result<u64, Error> {
    let (mut low, mut high) = (from, to);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_so(middle)? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
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
