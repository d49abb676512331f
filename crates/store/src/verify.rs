//! Checks a store against itself: each record of the log, and what queues and index say of it. One
//! walk through the log; memory for each queue and each slot of an index file, not each message.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use apogee_types::properties::{self, name};
use apogee_types::record::Record;
use apogee_types::{LogOffset, QueueId, names, tags};

use crate::checkpoint::IndexMark;
use crate::consume_queue::ConsumeQueue;
use crate::error::Error;
use crate::index::audit::Audit;
use crate::read::Unit;
use crate::recovery;
use crate::view::{Opened, View, dirs};
use crate::walk::{Step, is_half};

mod report;

pub use report::{Finding, Findings, Kind, Report, Severity};

/// How often progress is told, in bytes of the log.
const TELL_LEN: u64 = 4 << 20;

/// Codes at or below are places in `consumequeue_ext`. Spec `store.md` 3.5.
const EXT_CODE_MAX: i64 = -2_147_483_649;

/// What the walk saw of a queue.
#[derive(Default)]
struct Seen {
    queue: Option<Arc<ConsumeQueue>>,
    /// There are files, and they cannot be opened.
    is_broken: bool,
    /// Records whose unit names them.
    matched: u64,
    /// Records beyond the queue's end, and the place of the last of them.
    behind: u64,
    last_behind: LogOffset,
    /// Records of a queue that does not exist.
    homeless: u64,
}

struct Walk<'a> {
    view: &'a View,
    seen: BTreeMap<Arc<str>, BTreeMap<QueueId, Seen>>,
    batch_topics: BTreeSet<String>,
    index: Option<Audit>,
    report: Report,
}

/// Checks everything. `topics` are those that exist, if that is known: what the log holds of others
/// was deleted. `tell` hears now and then how far in the log the check is.
pub fn verify(
    view: &View,
    topics: Option<&BTreeSet<String>>,
    tell: &mut dyn FnMut(LogOffset),
) -> Result<Report, Error> {
    let batch = dirs(&view.settings.root.join("batchconsumequeue"))?;
    let batch_topics = batch.iter().filter_map(|dir| dir.file_name()?.to_str());
    let mut walk = Walk {
        view,
        seen: seen(view),
        batch_topics: batch_topics.map(str::to_owned).collect(),
        index: None,
        report: Report::default(),
    };
    walk.look_around();
    walk.log(tell);
    walk.tail();
    walk.queues(topics);
    if let Some(index) = walk.index.take() {
        index.finish(&mut walk.report);
    }
    walk.report.topic_count = view.queues.len();
    walk.report.queue_count = view.queues.values().map(BTreeMap::len).sum();
    Ok(walk.report)
}

fn seen(view: &View) -> BTreeMap<Arc<str>, BTreeMap<QueueId, Seen>> {
    let of = |opened: &Opened| Seen {
        queue: opened.as_ref().ok().cloned(),
        is_broken: opened.is_err(),
        ..Seen::default()
    };
    let of_topic = |queues: &BTreeMap<QueueId, Opened>| {
        queues.iter().map(|(id, opened)| (*id, of(opened))).collect()
    };
    view.queues.iter().map(|(topic, queues)| (Arc::clone(topic), of_topic(queues))).collect()
}

impl Walk<'_> {
    /// What can be told without reading the log.
    fn look_around(&mut self) {
        let view = self.view;
        let findings = &mut self.report.findings;
        if view.is_in_use {
            findings.add(Kind::InUse, || view.settings.root.display().to_string());
        } else if view.is_unclean {
            findings.add(Kind::UncleanStop, || "there is a file `abort`".to_owned());
        }
        let believed = view.believed();
        if believed.is_none() {
            let at = view.checkpoint.queues_at;
            findings.add(Kind::Checkpoint, || format!("it says that a record starts at {at}"));
        }
        for (topic, queues) in &view.queues {
            for (id, opened) in queues {
                if let Err(error) = opened {
                    findings.add(Kind::QueueFiles, || format!("{topic} {id}: {error}"));
                }
            }
        }
        for topic in &self.batch_topics {
            findings.add(Kind::BatchQueues, || topic.clone());
        }
        self.report.checkpoint = view.checkpoint;
        let is_open = view.is_unclean || view.is_in_use;
        let believed = is_open.then(|| believed.unwrap_or_default());
        self.index = Audit::open(view, believed.as_ref(), &mut self.report);
    }

    fn log(&mut self, tell: &mut dyn FnMut(LogOffset)) {
        let from = LogOffset(self.view.log_bounds().start);
        self.report.log_min = from;
        let mut told = from;
        let view = self.view;
        self.report.log_end = view.walk(from, &mut |step| {
            match step {
                Step::Record(record) => self.record(record),
                Step::Flipped(record) => {
                    self.report.findings.add(Kind::BodyChecksum, || place_of(record));
                    self.record(record);
                }
                Step::Lost(range) => {
                    let len = range.end.0 - range.start.0;
                    self.report.findings.add_many(Kind::LogDamage, len, || {
                        format!("{len} bytes from {} to {}", range.start, range.end)
                    });
                }
            }
            if told.plus(TELL_LEN) <= self.report.last_at {
                told = self.report.last_at;
                tell(told);
            }
            ControlFlow::Continue(())
        });
        tell(self.report.log_end);
    }

    fn record(&mut self, record: &Record<'_>) {
        let report = &mut self.report;
        if report.message_count + report.half_count == 0 {
            report.first_ms = record.stored_ms;
        }
        report.last_ms = record.stored_ms;
        report.last_at = record.at;
        let is_half = is_half(record);
        if let Some(index) = &mut self.index {
            index.record(record, is_half, report);
        }
        if is_half {
            report.half_count += 1;
            return;
        }
        report.message_count += 1;
        if self.batch_topics.is_empty() || !self.batch_topics.contains(record.topic) {
            self.unit(record);
        }
    }

    /// Whether the record's queue names it in its place.
    fn unit(&mut self, record: &Record<'_>) {
        let found = self.seen.get_mut(record.topic).and_then(|it| it.get_mut(&record.queue_id));
        let seen = match found {
            Some(seen) => seen,
            None => {
                let of_topic = self.seen.entry(record.topic.into()).or_default();
                of_topic.entry(record.queue_id).or_default()
            }
        };
        if seen.is_broken {
            return;
        }
        let Some(queue) = &seen.queue else {
            seen.homeless += 1;
            seen.last_behind = record.at;
            return;
        };
        let (at, offset, report) = (record.at, record.queue_offset, &mut self.report);
        let unit = queue.unit(offset).unwrap_or_else(|error| {
            report.findings.add(Kind::QueueFiles, || error.to_string());
            None
        });
        match unit {
            Some(unit) if unit.at == at && unit.len as usize == record.len => {
                seen.matched += 1;
                if let Some(wanted) = wrong_code(record, &unit) {
                    let (found, place) = (unit.tags_code, place_of(record));
                    report.findings.add(Kind::UnitWrong, || {
                        format!("{place}: the unit's tag code is {found}, not {wanted}")
                    });
                }
            }
            Some(unit) if at < unit.at && recovery::holds(&self.view.log, queue, offset, &unit) => {
                report.superseded_count += 1;
            }
            Some(unit) => report.findings.add(Kind::UnitWrong, || {
                format!("{}: the unit names {} bytes at {}", place_of(record), unit.len, unit.at)
            }),
            None if queue.bounds().end <= offset && queue.log_end() <= at => {
                seen.behind += 1;
                seen.last_behind = at;
            }
            None if queue.bounds().end <= offset => report.superseded_count += 1,
            None => report.findings.add(Kind::UnitMissing, || place_of(record)),
        }
    }

    /// What lies after the last record.
    fn tail(&mut self) {
        /// What a crash leaves lies near the end.
        const LOOK_LEN: u64 = 64 << 20;
        let end = self.report.log_end;
        let Some((file, place)) = self.view.log.segments.locate(end.0) else { return };
        let bytes = file.slice(place, (file.len() - place).min(LOOK_LEN) as usize);
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            let example = || format!("{} bytes from {end}", last + 1);
            self.report.findings.add(Kind::TornTail, example);
        }
    }

    /// What the queues hold beside what the log told, and lack.
    fn queues(&mut self, topics: Option<&BTreeSet<String>>) {
        let scan_start = self.scan_start();
        let has_no_queue = self.view.queues.is_empty();
        for (topic, queues) in &self.seen {
            for (id, seen) in queues {
                let findings = &mut self.report.findings;
                let is_seen_at_start = scan_start <= seen.last_behind;
                if let Some(queue) = &seen.queue {
                    let kind = if is_seen_at_start { Kind::QueueBehind } else { Kind::UnitMissing };
                    if 0 < seen.behind {
                        let from = queue.bounds().end;
                        findings.add_many(kind, seen.behind, || {
                            format!("{topic} {id}: {} messages from offset {from}", seen.behind)
                        });
                    }
                    self.report.findings.units(self.view, queue, seen, self.report.log_end);
                } else if 0 < seen.homeless {
                    let is_deleted = topics.is_some_and(|topics| !topics.contains(&**topic))
                        && !self.view.queues.contains_key(topic);
                    let is_rebuilt = has_no_queue || (self.view.is_unclean && is_seen_at_start);
                    let kind = match (is_deleted, is_rebuilt) {
                        (true, _) => Kind::TopicDeleted,
                        (_, true) => Kind::QueueBehind,
                        _ => Kind::QueueMissing,
                    };
                    if is_deleted {
                        self.report.deleted_topics.insert(topic.to_string());
                    }
                    findings.add_many(kind, seen.homeless, || {
                        format!("{topic} {id}: {} messages", seen.homeless)
                    });
                }
            }
        }
    }

    /// From where on the next start compares queues with the log, at least: the log's last segment,
    /// or what comes after the checkpoint.
    fn scan_start(&self) -> LogOffset {
        if self.view.is_unclean {
            return self.view.believed().unwrap_or_default().queues_at;
        }
        let (start, len) = (self.report.log_min.0, self.view.settings.segment_len);
        let end = self.report.log_end.0.max(start + 1) - 1;
        LogOffset(start + (end - start) / len * len)
    }
}

impl Findings {
    /// Looks at the units of a queue that no record of the log has claimed.
    fn units(&mut self, view: &View, queue: &ConsumeQueue, seen: &Seen, log_end: LogOffset) {
        let (topic, id, log_min) = (&queue.topic, queue.id, view.log_bounds().start);
        let (mut present, mut lost, mut beyond) = (0, 0, 0);
        let start = queue.bounds().start;
        let counted = queue.scan(start, |_, unit| {
            match unit {
                None => lost += 1,
                Some(unit) if unit.at.0 < log_min => {}
                Some(unit) if log_end < unit.end() => beyond += 1,
                Some(_) => present += 1,
            }
            true
        });
        if let Err(error) = counted {
            return self.add(Kind::QueueFiles, || error.to_string());
        }
        if 0 < lost {
            self.add_many(Kind::LostMessage, lost, || format!("{topic} {id}: {lost} places"));
        }
        if 0 < beyond {
            let is_open = view.is_unclean || view.is_in_use;
            let kind = if is_open { Kind::TornTail } else { Kind::UnitBeyondLog };
            self.add_many(kind, beyond, || format!("{topic} {id}: {beyond} units after {log_end}"));
        }
        if present == seen.matched {
            return;
        }
        let looked = queue.scan(start, |offset, unit| {
            let inside = unit.filter(|unit| log_min <= unit.at.0 && unit.end() <= log_end);
            if let Some(unit) = inside.filter(|it| !recovery::holds(&view.log, queue, offset, it)) {
                self.add(Kind::UnitDangling, || {
                    format!("{topic} {id} {offset}: {} bytes at {}", unit.len, unit.at)
                });
            }
            true
        });
        if let Err(error) = looked {
            self.add(Kind::QueueFiles, || error.to_string());
        }
    }
}

/// The tag code that the unit should have, if it has another.
fn wrong_code(record: &Record<'_>, unit: &Unit) -> Option<i64> {
    if unit.tags_code <= EXT_CODE_MAX {
        return None;
    }
    let is_delayed = record.topic == names::SCHEDULE_TOPIC
        && properties::find(record.properties, name::DELAY).is_some();
    if is_delayed {
        // The delivery time; delay levels may be other ones by now.
        return (unit.tags_code < record.stored_ms).then_some(record.stored_ms);
    }
    let wanted = tags::code(properties::find(record.properties, name::TAGS));
    (unit.tags_code != wanted).then_some(wanted)
}

fn place_of(record: &Record<'_>) -> String {
    let Record { topic, queue_id, queue_offset, at, .. } = record;
    format!("{topic} {queue_id} {queue_offset}, at {at} in the log")
}

impl Report {
    /// Whether the last to use the store was Apogee: Apache notes no index in the checkpoint.
    #[must_use]
    pub fn is_of_apogee(&self) -> bool {
        self.checkpoint.index != IndexMark::default()
    }
}
