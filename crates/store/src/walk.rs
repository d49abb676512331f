//! The log record by record, past damage: what is whole, and what recovery has to know of it.

use std::ops::{ControlFlow, Range};

use apogee_types::properties::{self, KeyPlaces};
use apogee_types::record::{MAGIC_BLANK, MAGIC_V1, MAGIC_V2, Record};
use apogee_types::{LogOffset, Millis, QueueId, QueueOffset, SysFlag, names, tags};

use crate::index::{KeyHashes, TopicHash};
use crate::read::Unit;
use crate::segments::Segments;
use crate::store::Store;

/// What a device writes whole or not at all.
pub(crate) const SECTOR_LEN: u64 = 512;
const SECTOR: usize = SECTOR_LEN as usize;

/// Records that are handed over at once: so many that it costs nothing, so few that they stay in a
/// cache.
const BATCH_COUNT: usize = 1024;

/// Records one after another; their topics' names are kept together.
#[derive(Default)]
pub(crate) struct Batch {
    pub records: Vec<Walked>,
    topics: String,
    /// Where the last of them ends.
    pub end: LogOffset,
}

/// What recovery has to know of a record.
pub(crate) struct Walked {
    /// As it is to stand in the queue.
    pub unit: Unit,
    pub queue_id: QueueId,
    pub queue_offset: QueueOffset,
    pub stored_ms: Millis,
    pub is_half: bool,
    /// Under which it is to be brought into the index.
    pub keys: KeyHashes,
    topic: Range<usize>,
}

impl Batch {
    fn push(&mut self, record: &Record<'_>, delays_ms: &[Millis], indexed: LogOffset) {
        if self.records.is_empty() {
            self.records.reserve(BATCH_COUNT);
        }
        let is_half = is_half(record);
        let is_indexed = is_half || record.at < indexed;
        let places = KeyPlaces::find(record.properties);
        let hash = || TopicHash::of(record.topic).keys_at(record.properties, &places);
        let keys = (!is_indexed).then(hash);
        let start = self.topics.len();
        self.topics.push_str(record.topic);
        let tags_code = tags_code(record, &places, delays_ms);
        let unit = Unit { at: record.at, len: record.len as u32, tags_code };
        self.end = unit.end();
        self.records.push(Walked {
            unit,
            queue_id: record.queue_id,
            queue_offset: record.queue_offset,
            stored_ms: record.stored_ms,
            is_half,
            keys: keys.unwrap_or_default(),
            topic: start..self.topics.len(),
        });
    }

    /// The topic of one of its records.
    pub fn topic(&self, record: &Walked) -> &str {
        &self.topics[record.topic.clone()]
    }
}

/// What a walk through the log meets.
pub enum Step<'a> {
    Record(&'a Record<'a>),
    /// A record whose body does not match its checksum.
    Flipped(&'a Record<'a>),
    /// Bytes that are no record, with records after them.
    Lost(Range<LogOffset>),
}

/// Walks through the log from `from`, where a record starts, until it ends or `look` says so; where
/// that is. It ends with what is no whole record, but below `intact` that is damage: what lies
/// there, and the record that starts at `intact`, was on the device once.
pub(crate) fn walk(
    segments: &Segments,
    from: LogOffset,
    intact: LogOffset,
    look: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
) -> LogOffset {
    let mut at = from.0;
    while let Some((file, place)) = segments.locate(at) {
        let start = at - place;
        let segment = file.slice(0, file.len() as usize);
        while at < start + file.len() {
            let (is_damage, place) = (at < intact.0, (at - start) as usize);
            let looked = match next(&segment, place, at) {
                Found::Record(record) if at <= intact.0 || !is_torn(&record, place) => {
                    at += record.len as u64;
                    look(Step::Record(&record))
                }
                Found::Flipped(record) if is_damage => {
                    at += record.len as u64;
                    look(Step::Flipped(&record))
                }
                Found::Blank => {
                    at = start + file.len();
                    ControlFlow::Continue(())
                }
                Found::Record(_) | Found::Flipped(_) | Found::Nothing => {
                    let next = is_damage.then(|| find_next(segments, at + 1, intact.0)).flatten();
                    let Some(next) = next else { return LogOffset(at) };
                    let lost = LogOffset(at)..LogOffset(next);
                    at = next;
                    look(Step::Lost(lost))
                }
            };
            if looked.is_break() {
                return LogOffset(at);
            }
        }
    }
    LogOffset(at)
}

/// Of a transaction that is not committed: it belongs neither into a queue nor into the index.
pub(crate) fn is_half(record: &Record<'_>) -> bool {
    let transaction = record.sys_flag.transaction();
    transaction == SysFlag::TRANSACTION_PREPARED || transaction == SysFlag::TRANSACTION_ROLLBACK
}

/// Walks as [`walk`] does and hands on what recovery has to know, as long as `take` wants more. The
/// keys of records below `indexed` are left out.
pub(crate) fn batches(
    store: &Store,
    (from, intact, indexed): (LogOffset, LogOffset, LogOffset),
    mut take: impl FnMut(Batch) -> bool,
) {
    let delays_ms = &*store.settings.delays_ms;
    let mut batch = Batch::default();
    let end = walk(&store.log.segments, from, intact, &mut |step| {
        match step {
            Step::Record(record) => batch.push(record, delays_ms, indexed),
            Step::Flipped(record) => {
                report_flipped(record);
                batch.push(record, delays_ms, indexed);
            }
            Step::Lost(Range { start, end }) => {
                let (from, to) = (start.0, end.0);
                tracing::error!(from, to, "the log is damaged: these bytes are lost");
            }
        }
        if batch.records.len() < BATCH_COUNT || take(std::mem::take(&mut batch)) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    batch.end = end;
    take(batch);
}

fn report_flipped(record: &Record<'_>) {
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
        let segment = file.slice(0, file.len() as usize);
        let place = place as usize;
        let magics = [MAGIC_V1, MAGIC_V2, MAGIC_BLANK].map(u32::to_be_bytes);
        let is_start = |ahead: &usize| {
            let here = place + ahead;
            let magic = segment.get(here + 4..here + 8);
            magics.iter().any(|it| magic == Some(it))
                && !matches!(next(&segment, here, at + *ahead as u64), Found::Nothing)
        };
        let len = segment.len() - place;
        if let Some(ahead) = (0..len.min((to - at + 1) as usize)).find(is_start) {
            return Some(at + ahead as u64);
        }
        at += len as u64;
    }
    None
}

/// What lies at a place of the log.
pub(crate) enum Found<'a> {
    Record(Record<'a>),
    /// Whole but for its body, which does not match its checksum.
    Flipped(Record<'a>),
    Blank,
    Nothing,
}

/// What lies at `place` of a segment, where the log's offset is `at`. A record may still be torn.
pub(crate) fn next(segment: &[u8], place: usize, at: u64) -> Found<'_> {
    let rest = &segment[place..];
    let Some([len @ .., m0, m1, m2, m3]) = rest.first_chunk::<8>() else { return Found::Nothing };
    let is_blank = u32::from_be_bytes([*m0, *m1, *m2, *m3]) == MAGIC_BLANK;
    if is_blank && u32::from_be_bytes(*len) as usize == rest.len() {
        return Found::Blank;
    }
    // The place is compared as well: bytes of an earlier use of the file may look like a record.
    let Some(record) = Record::parse(rest).ok().filter(|record| record.at.0 == at) else {
        return Found::Nothing;
    };
    match record.check_body() {
        Ok(()) => Found::Record(record),
        Err(_) => Found::Flipped(record),
    }
}

/// Whether a part of the record never reached the device. The checksum tells of the body alone,
/// and the lengths tell of the head; of topic and properties a missing sector is left as zeros,
/// and a page that was written while the record was being copied ends in them.
fn is_torn(record: &Record<'_>, place: usize) -> bool {
    let properties = record.properties;
    let start = place + record.len - properties.len();
    let (first, rest) =
        properties.split_at((start.next_multiple_of(SECTOR) - start).min(properties.len()));
    let is_lost = |part: &[u8]| part.iter().all(|byte| *byte == 0);
    // Their length stands before them: if it ends in their first sector, and not with a zero, that
    // sector is there.
    let may_lack_first = start % SECTOR == 1 && first.len() == SECTOR - 1;
    record.topic.contains('\0')
        || properties.last() == Some(&0)
        || (may_lack_first && properties.len().is_multiple_of(256) && is_lost(first))
        || rest.chunks_exact(SECTOR).any(is_lost)
}

/// Whether there are places in the log where [`is_torn`] would be wrong about these properties, so
/// that a start would cut off all that follows them.
pub(crate) fn may_seem_torn(properties: &[u8]) -> bool {
    let is_run = |zeros: &[u8]| SECTOR - 1 <= zeros.len();
    // Most hold none at all. Without a branch the compiler compares many at once.
    properties.iter().fold(false, |found, byte| found | (*byte == 0))
        && (properties.last() == Some(&0) || properties.split(|byte| *byte != 0).any(is_run))
}

/// The tag code of the record's unit; of a delayed message its delivery time. Spec `store.md` 3.1.
fn tags_code(record: &Record<'_>, places: &KeyPlaces, delays_ms: &[Millis]) -> i64 {
    if record.topic == names::SCHEDULE_TOPIC
        && let Some(level) = properties::find(record.properties, properties::name::DELAY)
        && let Ok(level @ 1..) = level.parse::<usize>()
    {
        let delay = delays_ms.get(level.min(delays_ms.len()).saturating_sub(1));
        return record.stored_ms + delay.unwrap_or(&1000);
    }
    let tags = places.tags.of(record.properties);
    tags::code(tags.and_then(|tags| std::str::from_utf8(tags).ok()))
}
