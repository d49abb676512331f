//! The log record by record, as recovery needs it: what is whole, and what it says.

use std::ops::Range;

use apogee_types::record::{MAGIC_BLANK, MAGIC_V1, MAGIC_V2, Record};
use apogee_types::{LogOffset, Millis, QueueId, QueueOffset, SysFlag};

use crate::disk::DiskFile;
use crate::index::{KeyHashes, TopicHash};
use crate::read::Unit;
use crate::segments::Segments;
use crate::store::Store;

/// Records one after another; their topics' names are kept together.
#[derive(Default)]
pub(crate) struct Batch {
    pub records: Vec<Walked>,
    topics: String,
    /// Where the next record starts, if there is one.
    pub end: LogOffset,
}

/// What recovery has to know of a record.
pub(crate) struct Walked {
    /// As it is to stand in the queue.
    pub unit: Unit,
    pub queue_id: QueueId,
    pub queue_offset: QueueOffset,
    pub stored_ms: Millis,
    /// Of a transaction that is not committed: it belongs neither into a queue nor into the index.
    pub is_half: bool,
    /// Under which it is to be brought into the index.
    pub keys: KeyHashes,
    topic: Range<usize>,
}

impl Batch {
    /// The topic of one of its records.
    pub fn topic(&self, record: &Walked) -> &str {
        &self.topics[record.topic.clone()]
    }
}

/// A walk over the log from a place where a record starts until something is no whole record.
pub(crate) struct Walk<'a> {
    segments: &'a Segments,
    /// The delay of each level from 1.
    delays_ms: &'a [Millis],
    at: LogOffset,
    /// What is no record below is damage, not the end.
    intact: LogOffset,
    /// The index has the keys of all records below.
    indexed: LogOffset,
    is_over: bool,
}

impl<'a> Walk<'a> {
    pub fn new(store: &'a Store, at: LogOffset, intact: LogOffset, indexed: LogOffset) -> Self {
        let (segments, delays_ms) = (&store.log.segments, &*store.settings.delays_ms);
        Self { segments, delays_ms, at, intact, indexed, is_over: false }
    }

    /// The next records.
    pub fn next(&mut self) -> Option<Batch> {
        /// Enough that handing them over costs nothing, few enough to stay in a cache.
        const COUNT_MAX: usize = 1024;
        if self.is_over {
            return None;
        }
        let mut batch = Batch::default();
        batch.records.reserve(COUNT_MAX);
        while batch.records.len() < COUNT_MAX && !self.is_over {
            self.step(&mut batch);
        }
        batch.end = self.at;
        Some(batch)
    }

    /// Takes one record, or skips what is none.
    fn step(&mut self, batch: &mut Batch) {
        let at = self.at.0;
        let Some((file, place)) = self.segments.locate(at) else {
            self.is_over = true;
            return;
        };
        let is_damage = self.at < self.intact;
        let bytes = match next(&*file, place, at) {
            Found::Record(bytes) => bytes,
            Found::Flipped(bytes) if is_damage => {
                report_flipped(&bytes);
                bytes
            }
            Found::Blank => {
                self.at = LogOffset(at + file.len() - place);
                return;
            }
            Found::Nothing if is_damage => {
                match find_next(self.segments, at + 1, self.intact.0) {
                    Some(to) => {
                        tracing::error!(from = at, to, "the log is damaged: these bytes are lost");
                        self.at = LogOffset(to);
                    }
                    None => self.is_over = true,
                }
                return;
            }
            Found::Flipped(_) | Found::Nothing => {
                self.is_over = true;
                return;
            }
        };
        let record = Record::parse(&bytes).expect("it was just read");
        self.at = LogOffset(at + record.len as u64);
        self.take(&record, batch);
    }

    fn take(&self, record: &Record<'_>, batch: &mut Batch) {
        let transaction = record.sys_flag.transaction();
        let is_half = transaction == SysFlag::TRANSACTION_PREPARED
            || transaction == SysFlag::TRANSACTION_ROLLBACK;
        let is_indexed = is_half || record.at < self.indexed;
        let keys = (!is_indexed).then(|| TopicHash::of(record.topic).keys(record.properties));
        let tags_code = tags_code(record, self.delays_ms);
        let start = batch.topics.len();
        batch.topics.push_str(record.topic);
        batch.records.push(Walked {
            unit: Unit { at: record.at, len: record.len as u32, tags_code },
            queue_id: record.queue_id,
            queue_offset: record.queue_offset,
            stored_ms: record.stored_ms,
            is_half,
            keys: keys.unwrap_or_default(),
            topic: start..batch.topics.len(),
        });
    }
}

fn report_flipped(bytes: &[u8]) {
    let Ok(record) = Record::parse(bytes) else { return };
    let (at, topic, queue, offset) =
        (record.at, record.topic, record.queue_id, record.queue_offset);
    tracing::error!(%at, topic, %queue, %offset,
        "a message does not match its checksum: it is kept as it is");
}

/// The next place from `from` on, up to `to`, where a record or a blank one starts.
pub(crate) fn find_next(segments: &Segments, from: u64, to: u64) -> Option<u64> {
    let mut at = from;
    while at <= to {
        let (file, place) = segments.locate(at)?;
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

/// What lies at a place of the log.
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
