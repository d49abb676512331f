//! After a clean or an unclean stop: where the log ends, and what the queues lack. Spec `store.md`
//! 7, `since-5.3.md` 5.2.

use std::collections::BTreeSet;

use apogee_types::record::{self, Record};
use apogee_types::{LogOffset, Message, Millis, QueueOffset, names, properties};

use crate::checkpoint::{Checkpoint, IndexMark};
use crate::commit_log::CommitLog;
use crate::consume_queue::ConsumeQueue;
use crate::dispatch::Dispatched;
use crate::error::Error;
use crate::queue_ends::{Had, QueueEnds};
use crate::read::Unit;
use crate::store::{Recovery, Store};
use crate::walk::{Batch, Found, SECTOR_LEN, Walked, batches, next};

/// The checkpoint, if it speaks of this log: where it says that a record starts, one does. With
/// times only, as releases before 5.5 leave it, the place is a segment that began before them.
pub(crate) fn believe(known: Checkpoint, log: &CommitLog) -> Option<Checkpoint> {
    /// By which times may be ahead of what was flushed. Spec `store.md` 6.
    const MARGIN_MS: Millis = 3000;
    let at = known.queues_at;
    let has_place = at != LogOffset(0) || known.index.end != LogOffset(0);
    let is_expired = at.0 < log.segments.bounds().0;
    if !has_place || is_expired {
        let ms = known.log_ms.min(known.queues_ms) - MARGIN_MS;
        let queues_at = last_segment(log, ms).unwrap_or_default();
        return Some(Checkpoint { queues_at, index: IndexMark::default(), ..known });
    }
    record_end(log, at).is_some_and(|end| known.index.end <= end).then_some(known)
}

/// The last segment that begins with a record which was stored at `ms` or before.
pub(crate) fn last_segment(log: &CommitLog, ms: Millis) -> Option<LogOffset> {
    let ((first, after), len) = (log.segments.bounds(), log.segments.segment_len());
    let mut starts = (0..(after - first) / len).rev().map(|number| first + number * len);
    let is_it = |at: &u64| first_stored_ms(log, *at).is_some_and(|stored_ms| stored_ms <= ms);
    starts.find(is_it).map(LogOffset)
}

fn first_stored_ms(log: &CommitLog, segment: u64) -> Option<Millis> {
    let (file, place) = log.segments.locate(segment)?;
    match next(&file.slice(0, file.len() as usize), place as usize, segment) {
        Found::Record(record) | Found::Flipped(record) => Some(record.stored_ms),
        Found::Blank | Found::Nothing => None,
    }
}

/// Where the record ends that starts at `at`; `None` if none does.
fn record_end(log: &CommitLog, at: LogOffset) -> Option<LogOffset> {
    let (file, place) = log.segments.locate(at.0)?;
    match next(&file.slice(0, file.len() as usize), place as usize, at.0) {
        Found::Record(record) | Found::Flipped(record) => Some(at.plus(record.len as u64)),
        Found::Blank | Found::Nothing => None,
    }
}

/// What is known before the log is read.
struct Known {
    /// Where to begin: a record starts there, or a segment.
    from: u64,
    /// The queues hold all records below that they should. A queue that is not there was deleted.
    dispatched: LogOffset,
    /// So does the index.
    indexed: LogOffset,
    /// What memory shows of queues beyond that may differ from what the device has.
    is_unsure: bool,
    /// The log once was whole up to here: what is no record below is damage, not the end.
    intact: LogOffset,
    /// A stop in order was the last that happened to the log.
    is_as_left: bool,
    /// Apache does not start if one of them has a queue of the other kind. Spec `store.md` 3.7.
    batch_topics: BTreeSet<String>,
}

/// Empties the queues that an earlier start was building: the device may have any part of them. Of
/// those whose messages are all too old it built nothing, and only they know their end.
pub(crate) fn forget_built(store: &Store) -> Result<(), Error> {
    let first = LogOffset(store.log.segments.bounds().0);
    let is_expired = |end: LogOffset| LogOffset(0) < end && end <= first;
    store.queues.each(|queue| if is_expired(queue.log_end()) { Ok(()) } else { queue.clear() })
}

/// What a start found.
pub(crate) struct AtStart {
    pub was_unclean: bool,
    pub had_checkpoint: bool,
    /// Queues have blank places that are to be filled from the log.
    pub has_mended: bool,
}

/// Finds the end of the log, cuts off what a crash left half-written, and dispatches what the
/// queues and the index lack.
pub(crate) fn recover(
    store: &Store,
    checkpoint: &Checkpoint,
    at_start: &AtStart,
) -> Result<Recovery, Error> {
    let &AtStart { was_unclean, had_checkpoint, has_mended } = at_start;
    let mut known = look_around(store, checkpoint, was_unclean)?;
    if !known.batch_topics.is_empty() {
        let topics = &known.batch_topics;
        tracing::warn!(?topics, "topics with batch queues, which are not supported: left alone");
    }
    if known.dispatched < checkpoint.queues_at || known.indexed < checkpoint.index.end {
        store.begin_rebuilding()?;
    }
    let first = store.log.segments.bounds().0;
    if has_mended {
        known.from = first;
    }
    let mut scanned = scan(store, &known, first < known.from)?;
    if scanned.has_gap {
        // Entries of a queue are missing whose records lie further back.
        store.begin_rebuilding()?;
        known.indexed = known.indexed.max(LogOffset(scanned.end));
        known.from = first;
        scanned = scan(store, &known, false)?;
    }
    let (from, end) = (known.from, LogOffset(scanned.end));
    let recovery = Recovery { from: LogOffset(from), to: end, record_count: scanned.record_count };
    if was_unclean {
        tracing::info!(
            records = recovery.record_count,
            from,
            to = end.0,
            "the last stop was not clean: log checked from the checkpoint on"
        );
        // Only memory may have it: it was not flushed, or not that we know of. Who has removed the
        // checkpoint, to have all built anew, is not made to wait for the whole log: between two
        // flushes lies no more than this, and after a failed one no more is taken.
        let flush_max = if had_checkpoint { u64::MAX } else { store.settings.segment_len };
        let unsure = known.intact.0.max(end.0.saturating_sub(flush_max)).clamp(from, end.0);
        rewrite(store, unsure, end.0)?;
        store.log.segments.sync(unsure, end.0)?;
    }
    if !known.is_as_left {
        report_lost(store, end);
    }
    cut(store, end.0)?;
    store.queues.each(|queue| {
        queue.truncate(end)?;
        if was_unclean {
            queue.expect_rest()?;
        }
        queue.raise_min(LogOffset(first))
    })?;
    if let Some(index) = &store.index {
        index.truncate(end)?;
    }
    store.dispatching.state.lock().newest = scanned.newest;
    store.log.start_at(end.0, scanned.last_ms)?;
    Ok(recovery)
}

/// Cuts off of the queues what the log does not have, and says what can be told without reading it.
fn look_around(store: &Store, checkpoint: &Checkpoint, was_unclean: bool) -> Result<Known, Error> {
    store
        .queues
        .each(|queue| queue.cut_while(|offset, unit| !holds(&store.log, queue, offset, unit)))?;
    let queued = store.queues.all().iter().map(|queue| queue.log_end()).max().unwrap_or_default();
    let noted = checkpoint.queues_at;
    let ends = if was_unclean { None } else { believed_ends(store, noted, queued)? };
    if let Some(index) = store.index.as_ref().filter(|_| !was_unclean) {
        let had = ends.iter().flat_map(QueueEnds::index_files);
        index.cut_at_hole(&checkpoint.index, LogOffset(store.log.segments.bounds().0), had)?;
    }
    let indexed = store.index.as_ref().map(|index| index.end(&checkpoint.index));
    let on_device = if was_unclean { noted } else { queued };
    store.queues.each(|queue| queue.set_flushed(on_device))?;
    let dispatched = on_device.min(queued);
    let in_index = indexed.unwrap_or(LogOffset(u64::MAX));
    let is_as_left = ends.is_some();
    let from = match ends {
        _ if was_unclean => start(store, dispatched.min(in_index)),
        Some(ends) => start(store, find_lacking(store, &ends)?.min(noted).min(in_index)),
        // How much there should be of each queue only its records tell.
        None => segment_start(store, dispatched.min(in_index)),
    };
    Ok(Known {
        from,
        dispatched,
        indexed: in_index,
        is_unsure: was_unclean,
        intact: if was_unclean {
            noted
        } else {
            noted.max(queued).max(indexed.unwrap_or_default())
        },
        is_as_left,
        batch_topics: batch_topics(store)?,
    })
}

fn batch_topics(store: &Store) -> Result<BTreeSet<String>, Error> {
    let dir = store.settings.root.join("batchconsumequeue");
    let entries = store.disk.list(&dir).map_err(Error::io(dir))?;
    Ok(entries.into_iter().filter(|it| it.is_dir).map(|it| it.name).collect())
}

/// Where the queues ended at the last stop, if nobody has used the store since: the log's last
/// record is the same, and no queue knows of a later one.
fn believed_ends(
    store: &Store,
    noted: LogOffset,
    queued: LogOffset,
) -> Result<Option<QueueEnds>, Error> {
    let ends = QueueEnds::read(&*store.disk, &store.settings.root)?;
    let is_last = |ends: &QueueEnds| {
        ends.last_at == noted && record_end(&store.log, noted).is_some_and(|end| queued <= end)
    };
    Ok(ends.filter(is_last))
}

/// Up to where in the log all queues have what they had; those that were lost are made. One that
/// has lost its beginning is emptied, since units are only added at the end.
fn find_lacking(store: &Store, ends: &QueueEnds) -> Result<LogOffset, Error> {
    const TOLD_MAX: u64 = 10;
    let (mut complete, mut count) = (LogOffset(u64::MAX), 0);
    for Had { topic, id, first, end } in ends.queues() {
        let found = store.queues.find(topic, id);
        let has = found.as_ref().map_or(QueueOffset(0)..QueueOffset(0), |queue| queue.bounds());
        let has_lost_first = first.is_some_and(|first| first < end && first < has.start);
        if end <= has.end && !has_lost_first || found.is_none() && is_deleted(store, topic) {
            continue;
        }
        if count == 0 {
            store.begin_rebuilding()?;
        }
        let queue = store.queues.find_or_create(topic, id)?;
        if has_lost_first {
            queue.clear()?;
        }
        complete = complete.min(queue.log_end());
        count += 1;
        if count <= TOLD_MAX {
            let (has_first, has, had_first, had) = (has.start, has.end, first, end);
            tracing::error!(topic, queue = %id, %has_first, %has, ?had_first, %had,
                "a queue has lost what it had");
        }
    }
    if 0 < count {
        tracing::error!(queues = count, from = %complete, "queues are completed from the log");
    }
    Ok(complete)
}

/// Nobody knows the topic any more: its queues are not missed, although the log has its messages.
fn is_deleted(store: &Store, topic: &str) -> bool {
    let topics = store.settings.topics.as_ref();
    topics.is_some_and(|topics| !topics.contains(topic) && !names::is_system_topic(topic))
}

/// Writes a byte of each sector over itself. After a sync has failed, memory and device differ, and
/// the operating system no longer knows: only what is written again is brought to the device.
fn rewrite(store: &Store, from: u64, to: u64) -> Result<(), Error> {
    const CHUNK_LEN: u64 = 4 << 20;
    let mut at = from;
    while let Some((file, place)) = store.log.segments.locate(at).filter(|_| at < to) {
        let end = place + CHUNK_LEN.min(to - at).min(file.len() - place);
        // What was read is there, but an older process may have left holes between.
        file.allocate(place, end).map_err(Error::io(store.log.segments.path(at - place)))?;
        let first = place.next_multiple_of(SECTOR_LEN).min(end);
        for sector in std::iter::once(place).chain((first..end).step_by(SECTOR_LEN as usize)) {
            let mut byte = [0];
            file.read_at(sector, &mut byte);
            file.write_at(sector, &byte);
        }
        at += end - place;
    }
    Ok(())
}

/// The first byte to be looked at: `trusted` if a record starts there, else its segment.
fn start(store: &Store, trusted: LogOffset) -> u64 {
    let is_start = record_end(&store.log, trusted).is_some();
    if is_start { trusted.0 } else { segment_start(store, trusted) }
}

/// The start of the segment that holds `trusted`, or of the last.
fn segment_start(store: &Store, trusted: LogOffset) -> u64 {
    let segments = &store.log.segments;
    let (first, after) = segments.bounds();
    let mut start = after.saturating_sub(segments.segment_len()).max(first);
    while first < start && trusted.0 < start {
        start -= segments.segment_len();
    }
    start
}

/// Whether the record of a unit is there, or was there until it was too old.
pub(crate) fn holds(
    log: &CommitLog,
    queue: &ConsumeQueue,
    offset: QueueOffset,
    unit: &Unit,
) -> bool {
    if unit.at.0 < log.segments.bounds().0 {
        return true;
    }
    let Some(bytes) = log.slice(unit) else { return false };
    Record::parse(&bytes).is_ok_and(|record| {
        let is_of_queue = &*queue.topic == record.topic
            && queue.id == record.queue_id
            && offset == record.queue_offset;
        // A record may stand in more queues than its own. Spec `store.md` 3.6.
        let is_shared = || properties::find(record.properties, "INNER_MULTI_DISPATCH").is_some();
        let is_of_unit = record.at == unit.at && record.len == unit.len as usize;
        is_of_unit && (is_of_queue || is_shared())
    })
}

struct Scanned {
    end: u64,
    last_ms: Millis,
    record_count: u64,
    newest: Option<Dispatched>,
    /// Stopped before a record whose predecessors in its queue are missing.
    has_gap: bool,
}

/// Walks records from `known.from` until something is no whole record; with `stop_at_gap` also
/// before one that its queue cannot take yet.
///
/// One thread reads and checks the log, this one fills queues and index, in the log's order.
fn scan(store: &Store, known: &Known, stop_at_gap: bool) -> Result<Scanned, Error> {
    /// Batches that are read ahead. Few, so that their records are still in the cache.
    const AHEAD: usize = 4;
    let start = known.from;
    let mut scanned =
        Scanned { end: start, last_ms: 0, record_count: 0, newest: None, has_gap: false };
    let mut progress = Progress::new(store, start);
    std::thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::sync_channel::<Batch>(AHEAD);
        // Ends also when nobody receives any more.
        let places = (LogOffset(start), known.intact, known.indexed);
        scope.spawn(move || batches(store, places, |batch| sender.send(batch).is_ok()));
        for batch in receiver {
            for record in &batch.records {
                let topic = batch.topic(record);
                if redispatch(store, topic, record, known, stop_at_gap)? == Outcome::Gap {
                    scanned.end = record.unit.at.0;
                    scanned.has_gap = true;
                    return Ok(scanned);
                }
                scanned.last_ms = scanned.last_ms.max(record.stored_ms);
                scanned.record_count += 1;
                let (at, end, stored_ms) = (record.unit.at, record.unit.end(), record.stored_ms);
                scanned.newest = Some(Dispatched { at, end, stored_ms });
            }
            scanned.end = batch.end.0;
            progress.tell(scanned.end);
        }
        Ok(scanned)
    })
}

/// Says now and then how far the log was read, if it takes long: the broker serves nobody yet.
struct Progress<'a> {
    store: &'a Store,
    start: u64,
    start_ms: Millis,
    told_ms: Millis,
}

impl<'a> Progress<'a> {
    fn new(store: &'a Store, start: u64) -> Self {
        let now_ms = store.log.clock.now_ms();
        Self { store, start, start_ms: now_ms, told_ms: now_ms }
    }

    fn tell(&mut self, at: u64) {
        const PERIOD_MS: Millis = 3000;
        let now_ms = self.store.log.clock.now_ms();
        if now_ms < self.told_ms + PERIOD_MS {
            return;
        }
        self.told_ms = now_ms;
        // The last segment may be empty from somewhere on.
        let end = self.store.log.segments.bounds().1;
        let (done, all) = ((at - self.start) >> 20, (end - self.start) >> 20);
        let rate = done * 1000 / (now_ms - self.start_ms) as u64;
        let left_s = (all - done) / rate.max(1);
        tracing::info!(
            "the log is being read, to complete queues and index: {done} MiB of at most {all}, \
             {rate} MiB/s, {left_s} s left; nothing is served yet"
        );
    }
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Done,
    /// Its queue had it as it should be.
    WasThere,
    /// The queue lacks what comes before the record.
    Gap,
}

/// Brings a record into its queue and the index, unless it is there.
fn redispatch(
    store: &Store,
    topic: &str,
    record: &Walked,
    known: &Known,
    stop_at_gap: bool,
) -> Result<Outcome, Error> {
    if record.is_half {
        return Ok(Outcome::Done);
    }
    let (unit, offset) = (&record.unit, record.queue_offset);
    let queue = match store.queues.find(topic, record.queue_id) {
        _ if !known.batch_topics.is_empty() && known.batch_topics.contains(topic) => None,
        // After an unclean stop its config may not have been kept yet.
        None if !known.is_unsure && is_deleted(store, topic) => None,
        None if known.dispatched <= unit.at => {
            Some(store.queues.find_or_create(topic, record.queue_id)?)
        }
        found => found,
    };
    if let Some(queue) = queue {
        match put(store, &queue, offset, unit, stop_at_gap)? {
            Outcome::Gap => return Ok(Outcome::Gap),
            Outcome::WasThere if known.is_unsure && known.dispatched <= unit.at => {
                // See `rewrite`.
                queue.correct(offset, unit)?;
            }
            Outcome::WasThere | Outcome::Done => {}
        }
        store.mark_dirty(&queue);
    }
    store.put_keys(unit.at, record.stored_ms, &record.keys)?;
    Ok(Outcome::Done)
}

/// Brings a unit to its place. A topic may have been deleted and made again, so that two records
/// claim one place: the later one has it.
fn put(
    store: &Store,
    queue: &ConsumeQueue,
    offset: QueueOffset,
    unit: &Unit,
    stop_at_gap: bool,
) -> Result<Outcome, Error> {
    let bounds = queue.bounds();
    if bounds.end <= offset {
        let is_of_earlier_life = unit.end() <= queue.log_end();
        if !is_of_earlier_life {
            if !may_have(queue, offset, unit) {
                let (at, topic, queue) = (unit.at, &queue.topic, queue.id);
                tracing::error!(%at, %topic, %queue, %offset,
                    "a message is damaged: its queue cannot be so long. It is in no queue");
                return Ok(Outcome::Done);
            }
            if bounds.end < offset && stop_at_gap {
                return Ok(Outcome::Gap);
            }
            queue.append(offset, unit)?;
        }
        return Ok(Outcome::Done);
    }
    match queue.unit(offset)? {
        // The code is left alone: delay levels may be other ones by now.
        Some(there) if there == *unit => return Ok(Outcome::WasThere),
        Some(there) if there.at == unit.at && there.len == unit.len => {}
        Some(there) if there.at < unit.at => {
            // A new life begins with its first message. Else the head of one of them is damaged.
            if offset == QueueOffset(0) || !holds(&store.log, queue, offset, &there) {
                queue.cut(offset)?;
                queue.append(offset, unit)?;
            } else {
                let (at, topic, queue) = (unit.at, &queue.topic, queue.id);
                tracing::error!(%at, %topic, %queue, %offset,
                    "a message is damaged: another has its place. It is in no queue");
            }
        }
        Some(there) if holds(&store.log, queue, offset, &there) => {}
        None if offset < bounds.start => {}
        Some(_) | None => queue.correct(offset, unit)?,
    }
    Ok(Outcome::Done)
}

/// Whether the log had room for all messages that come before this one in its queue. Apache puts it
/// at the queue's end; but from the offset that stands in it, consumers would go on there.
fn may_have(queue: &ConsumeQueue, offset: QueueOffset, unit: &Unit) -> bool {
    let len_min = record::encoded_len(&Message::new(&queue.topic, queue.id, &[])) as u64;
    let room = unit.at.0.saturating_sub(queue.log_end().0);
    offset.0 - queue.bounds().end.0 <= room / len_min
}

/// Says what will be cut off, unless it is nothing: the unwritten rest of a file is zeros.
fn report_lost(store: &Store, end: LogOffset) {
    /// What a crash leaves lies near the end.
    const LOOK_LEN: u64 = 64 << 20;
    let Some((file, place)) = store.log.segments.locate(end.0) else { return };
    let bytes = file.slice(place, (file.len() - place).min(LOOK_LEN) as usize);
    let Some(last) = bytes.iter().rposition(|byte| *byte != 0) else { return };
    let record = Record::parse(&bytes);
    let topic = record.as_ref().map_or("not known", |record| record.topic);
    tracing::error!(
        at = end.0,
        topic,
        len = last + 1,
        "the log ends here: what follows is no whole record and is cut off"
    );
}

/// Makes everything from `end` on zeros, so that no later start takes it for records.
fn cut(store: &Store, end: u64) -> Result<(), Error> {
    let segments = &store.log.segments;
    let (mut at, after) = (end, segments.bounds().1);
    // Before anything is appended: else a crash could show it in front of what was cut off. That
    // holds for whole files, too: their removal may not reach the device.
    while at < after {
        let Some((file, place)) = segments.locate_or_open(at)? else { break };
        let zeroed = file.zero(place, file.len()).and_then(|()| file.sync(place, file.len()));
        zeroed.map_err(Error::io(segments.path(at - place)))?;
        at += file.len() - place;
    }
    segments.truncate(end.max(1))
}
