//! After a clean or an unclean stop: where the log ends, and what the queues lack. Spec `store.md`
//! 7, `since-5.3.md` 5.2.

use std::path::Path;

use apogee_types::record::{MAGIC_BLANK, Record};
use apogee_types::{LogOffset, Millis};

use crate::checkpoint::Checkpoint;
use crate::commit_log::Entry;
use crate::disk::{Disk, DiskFile};
use crate::error::Error;
use crate::index::KeyHashes;
use crate::store::{Settings, Store};

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

/// Finds the end of the log, cuts off what a crash left half-written, and dispatches what the
/// queues and the index lack.
pub(crate) fn recover(store: &Store, known: &Checkpoint, was_unclean: bool) -> Result<(), Error> {
    let start = start(store, known, was_unclean);
    let scanned = scan(store, start)?;
    if was_unclean {
        let (records, from, to) = (scanned.count, start, scanned.end);
        tracing::info!(
            records,
            from,
            to,
            "the last stop was not clean: log checked from the checkpoint on"
        );
    }
    cut(store, scanned.end)?;
    for queue in store.queues.all() {
        queue.truncate(LogOffset(scanned.end))?;
        queue.raise_min(LogOffset(store.log.segments.bounds().0));
    }
    store.log.start_at(scanned.end, scanned.last_ms)
}

/// The first byte to be looked at: the start of a segment before which everything is known to be
/// whole and dispatched.
fn start(store: &Store, known: &Checkpoint, was_unclean: bool) -> u64 {
    let segments = &store.log.segments;
    let (first, after) = segments.bounds();
    let dispatched = if was_unclean {
        known.queues_at.0
    } else {
        store.queues.all().iter().map(|queue| queue.log_end().0).max().unwrap_or(0)
    };
    // An index file that was removed has to be built again from its first record.
    let indexed = store.index.as_ref().map(|index| index.end_at().map_or(0, |at| at.0));
    let trusted = dispatched.min(indexed.unwrap_or(u64::MAX)).min(after);
    let mut start = after.saturating_sub(segments.segment_len()).max(first);
    while first < start && trusted < start {
        start -= segments.segment_len();
    }
    start
}

struct Scanned {
    end: u64,
    last_ms: Millis,
    count: u64,
}

/// Walks records from `start` until something is no whole record.
fn scan(store: &Store, start: u64) -> Result<Scanned, Error> {
    let segment_len = store.log.segments.segment_len();
    let mut scanned = Scanned { end: start, last_ms: 0, count: 0 };
    let index_end = store.index.as_ref().and_then(|index| index.end_at());
    while let Some((file, place)) = store.log.segments.locate(scanned.end) {
        match next(&*file, place, scanned.end) {
            Found::Record(bytes) => {
                let record = Record::parse(&bytes).expect("it was just read");
                redispatch(store, &record, index_end)?;
                scanned.last_ms = scanned.last_ms.max(record.stored_ms);
                scanned.end += record.len as u64;
                scanned.count += 1;
            }
            Found::Blank => scanned.end += segment_len - place,
            Found::Nothing => break,
        }
    }
    Ok(scanned)
}

enum Found {
    Record(bytes::Bytes),
    Blank,
    Nothing,
}

/// What lies at `place` of a segment, where the log's offset is `at`.
fn next(file: &dyn DiskFile, place: u64, at: u64) -> Found {
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
    let is_whole =
        Record::parse(&bytes).is_ok_and(|record| record.at.0 == at && record.check_body().is_ok());
    if is_whole { Found::Record(bytes) } else { Found::Nothing }
}

/// Brings a record into its queue and the index, unless it is there.
fn redispatch(
    store: &Store,
    record: &Record<'_>,
    index_end: Option<LogOffset>,
) -> Result<(), Error> {
    use apogee_types::SysFlag;
    let transaction = record.sys_flag.transaction();
    let is_half = transaction == SysFlag::TRANSACTION_PREPARED
        || transaction == SysFlag::TRANSACTION_ROLLBACK;
    if is_half {
        return Ok(());
    }
    let queue = store.queues.find_or_create(record.topic, record.queue_id)?;
    let is_indexed = index_end.is_some_and(|end| record.at <= end);
    let keys = match store.index {
        Some(_) if !is_indexed => queue.topic_hash.keys(record.properties),
        _ => KeyHashes::default(),
    };
    // A unit of a record that was lost must not stand in the way of the one that took its offset.
    let known = queue.unit(record.queue_offset);
    if known.is_some_and(|unit| unit.at != record.at) {
        queue.truncate(record.at)?;
    }
    store.enqueue(&Entry {
        queue,
        at: record.at,
        len: record.len as u32,
        tags_code: tags_code(record, &store.settings.delays_ms),
        queue_offset: record.queue_offset,
        stored_ms: record.stored_ms,
        keys,
    });
    Ok(())
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

/// Makes everything from `end` on zeros, so that no later start takes it for records.
fn cut(store: &Store, end: u64) -> Result<(), Error> {
    store.log.segments.truncate(end.max(1))?;
    if let Some((file, place)) = store.log.segments.locate(end) {
        file.zero(place, file.len()).map_err(Error::io(Path::new("commitlog")))?;
    }
    Ok(())
}
