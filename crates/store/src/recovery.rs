//! After a clean or an unclean stop: where the log ends, and what the queues lack. Spec `store.md`
//! 7, `since-5.3.md` 5.2.

use std::path::Path;

use apogee_types::record::{MAGIC_BLANK, MAGIC_V1, MAGIC_V2, Record};
use apogee_types::{LogOffset, Millis, QueueOffset, properties};

use crate::checkpoint::Checkpoint;
use crate::commit_log::CommitLog;
use crate::consume_queue::ConsumeQueue;
use crate::disk::{Disk, DiskFile};
use crate::error::Error;
use crate::index::TopicHash;
use crate::read::Unit;
use crate::store::{Dispatched, Recovery, Settings, Store};

/// Takes the store's lock, the same kind as Apache's.
pub(crate) fn lock(disk: &dyn Disk, settings: &Settings) -> Result<Box<dyn Send + Sync>, Error> {
    let path = settings.root.join("lock");
    if disk.read(&path).map_err(Error::io(&path))?.is_none() {
        disk.replace(&path, b"lock").map_err(Error::io(&path))?;
    }
    disk.lock(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::PermissionDenied => {
            Error::Locked { path }
        }
        _ => Error::io(path)(error),
    })
}

/// Recognises directories that we must not touch, before anything is written.
pub(crate) fn refuse_foreign(disk: &dyn Disk, settings: &Settings) -> Result<(), Error> {
    let in_rocksdb = "holds consume queues in RocksDB, which are not supported";
    let foreign = [("consumequeue_rocksdb", in_rocksdb)];
    // Every broker of Apache's makes the directory; only topics in it make a difference.
    let compacted = settings.root.join("compaction").join("compactionLog");
    if !disk.list(&compacted).map_err(Error::io(&compacted))?.is_empty() {
        let what = "holds compaction topics, which are not supported";
        return Err(Error::Foreign { path: compacted, what });
    }
    for entry in disk.list(&settings.root).map_err(Error::io(&settings.root))? {
        let found = foreign.iter().find(|(name, _)| entry.name.starts_with(name));
        if let Some((_, what)) = found.filter(|_| entry.is_dir) {
            return Err(Error::Foreign { path: settings.root.join(&entry.name), what });
        }
        if entry.name.starts_with("dledger-") {
            let what = "holds a DLedger commit log, which is not supported";
            return Err(Error::Foreign { path: settings.root.join(&entry.name), what });
        }
    }
    Ok(())
}

/// The checkpoint, if it speaks of this log: where it says that a record starts, one does. With
/// one that does not, nothing is known.
pub(crate) fn believe(known: Checkpoint, log: &CommitLog) -> Checkpoint {
    let at = known.queues_at;
    let record_end = || {
        let (file, place) = log.segments.locate(at.0)?;
        match next(&*file, place, at.0) {
            Found::Record(bytes) | Found::Flipped(bytes) => Some(at.plus(bytes.len() as u64)),
            Found::Blank | Found::Nothing => None,
        }
    };
    // Checkpoints of Apache's before 5.5 have no place, only times.
    if at == LogOffset(0) && known.index.end == LogOffset(0) {
        return known;
    }
    match record_end() {
        Some(end) if known.index.end <= end => known,
        _ => {
            tracing::error!(%at, "the checkpoint is damaged or of another log: not believed");
            Checkpoint::default()
        }
    }
}

/// What is known before the log is read.
struct Known {
    /// The queues hold all records below that they should. A queue that is not there was deleted.
    dispatched: LogOffset,
    /// So does the index.
    indexed: LogOffset,
    /// What memory shows of queues beyond that may differ from what the device has.
    is_unsure: bool,
    /// The log once was whole up to here: what is no record below is damage, not the end.
    intact: LogOffset,
}

/// Finds the end of the log, cuts off what a crash left half-written, and dispatches what the
/// queues and the index lack.
pub(crate) fn recover(
    store: &Store,
    checkpoint: &Checkpoint,
    was_unclean: bool,
) -> Result<Recovery, Error> {
    let queues = store.queues.all();
    for queue in &queues {
        queue.cut_while(|offset, unit| !holds(&store.log, queue, offset, unit))?;
    }
    let queued = queues.iter().map(|queue| queue.log_end()).max().unwrap_or_default();
    let indexed = store.index.as_ref().map(|index| index.end(&checkpoint.index));
    let noted = checkpoint.queues_at;
    let mut known = Known {
        dispatched: if was_unclean { noted.min(queued) } else { queued },
        indexed: indexed.unwrap_or(LogOffset(u64::MAX)),
        is_unsure: was_unclean,
        intact: if was_unclean {
            noted
        } else {
            noted.max(queued).max(indexed.unwrap_or_default())
        },
    };
    let on_device = if was_unclean { noted } else { queued };
    queues.iter().for_each(|queue| queue.set_flushed(on_device));
    let first = store.log.segments.bounds().0;
    let mut from = start(store, known.dispatched.min(known.indexed).0);
    let mut scanned = scan(store, from, &known, first < from)?;
    if scanned.has_gap {
        // Entries of a queue are missing whose records lie further back.
        known.indexed = known.indexed.max(LogOffset(scanned.end));
        from = first;
        scanned = scan(store, from, &known, false)?;
    }
    let end = LogOffset(scanned.end);
    let recovery = Recovery { from: LogOffset(from), to: end, record_count: scanned.record_count };
    if was_unclean {
        tracing::info!(
            records = recovery.record_count,
            from,
            to = end.0,
            "the last stop was not clean: log checked from the checkpoint on"
        );
        // Only memory may have it: it was not flushed, or not that we know of.
        let unsure = noted.0.clamp(from, end.0);
        rewrite(store, unsure, end.0)?;
        store.log.segments.sync(unsure, end.0)?;
    }
    report_lost(store, end);
    cut(store, end.0)?;
    for queue in store.queues.all() {
        queue.truncate(end)?;
        queue.raise_min(LogOffset(first))?;
    }
    if let Some(index) = &store.index {
        index.truncate(end)?;
    }
    store.dispatching.lock().newest = scanned.newest;
    store.log.start_at(end.0, scanned.last_ms)?;
    Ok(recovery)
}

/// Writes bytes over themselves. After a sync has failed, memory and device differ, and the
/// operating system no longer knows: only what is written again is brought to the device.
fn rewrite(store: &Store, from: u64, to: u64) -> Result<(), Error> {
    const CHUNK_LEN: u64 = 64 * 1024;
    let mut bytes = Vec::new();
    let mut at = from;
    while let Some((file, place)) = store.log.segments.locate(at).filter(|_| at < to) {
        let len = CHUNK_LEN.min(to - at).min(file.len() - place);
        // What was read is there, but an older process may have left holes between.
        file.allocate(place, place + len)
            .map_err(Error::io(store.log.segments.path(at - place)))?;
        bytes.clear();
        file.append_to(place, len as usize, &mut bytes);
        file.write_at(place, &bytes);
        at += len;
    }
    Ok(())
}

/// The first byte to be looked at: the start of the segment that holds `trusted`, or of the last.
fn start(store: &Store, trusted: u64) -> u64 {
    let segments = &store.log.segments;
    let (first, after) = segments.bounds();
    let mut start = after.saturating_sub(segments.segment_len()).max(first);
    while first < start && trusted < start {
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

/// Walks records from `start` until something is no whole record; with `stop_at_gap` also before
/// one that its queue cannot take yet.
fn scan(store: &Store, start: u64, known: &Known, stop_at_gap: bool) -> Result<Scanned, Error> {
    let segment_len = store.log.segments.segment_len();
    let mut scanned =
        Scanned { end: start, last_ms: 0, record_count: 0, newest: None, has_gap: false };
    while let Some((file, place)) = store.log.segments.locate(scanned.end) {
        let is_damage = scanned.end < known.intact.0;
        let bytes = match next(&*file, place, scanned.end) {
            Found::Record(bytes) => bytes,
            Found::Flipped(bytes) if is_damage => {
                report_flipped(&bytes);
                bytes
            }
            Found::Blank => {
                scanned.end += segment_len - place;
                continue;
            }
            Found::Nothing if is_damage => {
                let found = find_next(&store.log, scanned.end + 1, known.intact.0);
                let Some(to) = found else { break };
                tracing::error!(from = scanned.end, to, "the log is damaged: these bytes are lost");
                scanned.end = to;
                continue;
            }
            Found::Flipped(_) | Found::Nothing => break,
        };
        let record = Record::parse(&bytes).expect("it was just read");
        if redispatch(store, &record, known, stop_at_gap)? == Outcome::Gap {
            scanned.has_gap = true;
            break;
        }
        scanned.last_ms = scanned.last_ms.max(record.stored_ms);
        scanned.end += record.len as u64;
        scanned.record_count += 1;
        let (at, end) = (record.at, LogOffset(scanned.end));
        scanned.newest = Some(Dispatched { at, end, stored_ms: record.stored_ms });
    }
    Ok(scanned)
}

fn report_flipped(bytes: &[u8]) {
    let Ok(record) = Record::parse(bytes) else { return };
    let (at, topic, queue, offset) =
        (record.at, record.topic, record.queue_id, record.queue_offset);
    tracing::error!(%at, topic, %queue, %offset,
        "a message does not match its checksum: it is kept as it is");
}

/// The next place from `from` on, up to `to`, where a record or a blank one starts.
pub(crate) fn find_next(log: &CommitLog, from: u64, to: u64) -> Option<u64> {
    let mut at = from;
    while at <= to {
        let (file, place) = log.segments.locate(at)?;
        let bytes = file.slice(place, (file.len() - place) as usize);
        let magics = [MAGIC_V1, MAGIC_V2, MAGIC_BLANK].map(u32::to_be_bytes);
        let is_start = |ahead: &u64| {
            let magic = bytes.get(*ahead as usize + 4..*ahead as usize + 8);
            magics.iter().any(|it| magic == Some(it))
                && !matches!(next(&*file, place + ahead, at + ahead), Found::Nothing)
        };
        let len = bytes.len() as u64;
        if let Some(ahead) = (0..len.min(to - at + 1)).find(is_start) {
            return Some(at + ahead);
        }
        at += len;
    }
    None
}

pub(crate) enum Found {
    Record(bytes::Bytes),
    /// Whole but for its body, which does not match its checksum.
    Flipped(bytes::Bytes),
    Blank,
    Nothing,
}

/// What lies at `place` of a segment, where the log's offset is `at`.
pub(crate) fn next(file: &dyn DiskFile, place: u64, at: u64) -> Found {
    let left = file.len() - place;
    if left < 8 {
        return Found::Nothing;
    }
    let mut start = [0; 8];
    file.read_at(place, &mut start);
    let len = u64::from(u32::from_be_bytes([start[0], start[1], start[2], start[3]]));
    let magic = u32::from_be_bytes([start[4], start[5], start[6], start[7]]);
    if magic == MAGIC_BLANK && len == left {
        return Found::Blank;
    }
    if left < len {
        return Found::Nothing;
    }
    let bytes = file.slice(place, len as usize);
    // The place is compared as well: bytes of an earlier use of the file may look like a record.
    let Some(record) = Record::parse(&bytes).ok().filter(|record| record.at.0 == at) else {
        return Found::Nothing;
    };
    if is_torn(&record, place) {
        return Found::Nothing;
    }
    match record.check_body() {
        Ok(()) => Found::Record(bytes),
        Err(_) => Found::Flipped(bytes),
    }
}

/// Whether a part of the record never reached the device. The checksum tells of the body alone,
/// and the lengths tell of the head; of topic and properties a missing sector is left as zeros,
/// and a page that was written while the record was being copied ends in them.
fn is_torn(record: &Record<'_>, place: u64) -> bool {
    const SECTOR: usize = 512;
    let (properties, end) = (record.properties, place as usize + record.len);
    let start = end - properties.len();
    let (first, rest) =
        properties.split_at((start.next_multiple_of(SECTOR) - start).min(properties.len()));
    let is_lost = |part: &[u8]| !part.is_empty() && part.iter().all(|byte| *byte == 0);
    record.topic.contains('\0')
        || properties.last() == Some(&0)
        || is_lost(first)
        || rest.chunks(SECTOR).any(is_lost)
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Done,
    /// The queue lacks what comes before the record.
    Gap,
}

/// Brings a record into its queue and the index, unless it is there.
fn redispatch(
    store: &Store,
    record: &Record<'_>,
    known: &Known,
    stop_at_gap: bool,
) -> Result<Outcome, Error> {
    use apogee_types::SysFlag;
    let transaction = record.sys_flag.transaction();
    let is_half = transaction == SysFlag::TRANSACTION_PREPARED
        || transaction == SysFlag::TRANSACTION_ROLLBACK;
    if is_half {
        return Ok(Outcome::Done);
    }
    let queue = match store.queues.find(record.topic, record.queue_id) {
        None if known.dispatched <= record.at => {
            Some(store.queues.find_or_create(record.topic, record.queue_id)?)
        }
        found => found,
    };
    if let Some(queue) = queue {
        let unit = Unit {
            at: record.at,
            len: record.len as u32,
            tags_code: tags_code(record, &store.settings.delays_ms),
        };
        if put(store, &queue, record.queue_offset, &unit, stop_at_gap)? == Outcome::Gap {
            return Ok(Outcome::Gap);
        }
        let is_unsure = known.is_unsure && known.dispatched <= record.at;
        if is_unsure && queue.unit(record.queue_offset) == Some(unit) {
            // See `rewrite`.
            queue.correct(record.queue_offset, &unit)?;
        }
        store.mark_dirty(&queue);
    }
    if known.indexed <= record.at {
        let keys = TopicHash::of(record.topic).keys(record.properties);
        store.put_keys(record.at, record.stored_ms, &keys)?;
    }
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
            if bounds.end < offset && stop_at_gap {
                return Ok(Outcome::Gap);
            }
            queue.append(offset, unit)?;
        }
        return Ok(Outcome::Done);
    }
    match queue.unit(offset) {
        // The code is left alone: delay levels may be other ones by now.
        Some(there) if there.at == unit.at && there.len == unit.len => {}
        Some(there) if there.at < unit.at => {
            queue.cut(offset)?;
            queue.append(offset, unit)?;
        }
        Some(there) if holds(&store.log, queue, offset, &there) => {}
        None if offset < bounds.start => {}
        Some(_) | None => queue.correct(offset, unit)?,
    }
    Ok(Outcome::Done)
}

/// The tag code of the record's unit; of a delayed message its delivery time. Spec `store.md` 3.1.
fn tags_code(record: &Record<'_>, delays_ms: &[Millis]) -> i64 {
    use apogee_types::properties::{find, name};
    let level = find(record.properties, name::DELAY).and_then(|it| it.parse::<usize>().ok());
    match level {
        Some(level @ 1..) if record.topic == apogee_types::names::SCHEDULE_TOPIC => {
            let delay = delays_ms.get(level.min(delays_ms.len()).saturating_sub(1));
            record.stored_ms + delay.unwrap_or(&1000)
        }
        _ => apogee_types::tags::code(find(record.properties, name::TAGS)),
    }
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
    store.log.segments.truncate(end.max(1))?;
    if let Some((file, place)) = store.log.segments.locate(end) {
        let zeroed = file.zero(place, file.len()).and_then(|()| file.sync(place, file.len()));
        // Before anything is appended: else a crash could show it in front of what was cut off.
        zeroed.map_err(Error::io(Path::new("commitlog")))?;
    }
    Ok(())
}
