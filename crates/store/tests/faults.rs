//! One history of a store, lived again and again, each time with another call of the disk failing,
//! in each way that it can: what was promised is there, what is served is whole and in order, and
//! who is refused is told why.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use apogee_sim::disk::{Broken, Call, Fault, Faults, SimDisk};
use apogee_store::{
    AppendError, Boundary, Disk, Documents, Error, FlushMode, ReadLimits, Settings, Store,
};
use apogee_types::record::Record;
use apogee_types::{Clock, LogOffset, Message, Millis, QueueId, QueueOffset, properties};

const DELETED: &str = "deleted";
const TOPICS: [&str; 3] = ["a", "b", DELETED];
const QUEUES: i32 = 2;
const SEGMENT_LEN: u64 = 16 * 1024;
const DOCUMENT: &str = "topics.json";
const ALL: LogOffset = LogOffset(u64::MAX);
const THREADS: usize = 2;

/// A clock that the history turns.
struct Turned(AtomicI64);

impl Clock for Turned {
    fn now_ms(&self) -> Millis {
        self.0.load(Ordering::Relaxed)
    }
}

/// A message that was appended, and was not found to be lost.
#[derive(Debug)]
struct Stored {
    topic: &'static str,
    queue: QueueId,
    offset: QueueOffset,
    at: LogOffset,
    end: LogOffset,
    stored_ms: Millis,
    key: String,
    body: Vec<u8>,
}

/// What happens in a life.
type Life = fn(&mut History, &Store);

/// How a process ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Stop,
    Kill,
    PowerCut,
}

struct History {
    flush: FlushMode,
    broken: Option<Broken>,
    disk: SimDisk,
    clock: Arc<Turned>,
    /// In the order of the log.
    stored: Vec<Stored>,
    next_number: u64,
    /// The device had confirmed that much.
    flushed: LogOffset,
    /// With synchronous flush: the kernel had that much, for those who do not wait.
    written: LogOffset,
    /// The next start must find that much.
    kept: LogOffset,
    /// A sync of the log failed in this life: where the watermark stood, never to move again.
    failed_at: Option<LogOffset>,
    /// Retention may have deleted what lies below.
    may_be_deleted: LogOffset,
    is_topic_deleted: bool,
    /// What the document may hold: more than one if a write failed.
    document: RangeInclusive<u64>,
}

impl History {
    fn new(flush: FlushMode, broken: Option<Broken>) -> Self {
        let seed = broken.map_or(0, |it| it.call as u64);
        Self {
            flush,
            broken,
            disk: SimDisk::new(seed, Faults::default()),
            clock: Arc::new(Turned(AtomicI64::new(1_767_225_600_000))),
            stored: Vec::new(),
            next_number: 0,
            flushed: LogOffset(0),
            written: LogOffset(0),
            kept: LogOffset(0),
            failed_at: None,
            may_be_deleted: LogOffset(0),
            is_topic_deleted: false,
            document: 0..=0,
        }
    }

    /// Lives, and draws the balance after a power cut, on a disk that works again. All calls of
    /// the disk.
    fn live(mut self) -> Vec<Call> {
        self.disk.watch(self.broken);
        self.live_on();
        let calls = self.disk.mend();
        self.broken = None;
        self.disk.crash();
        self.kept = self.flushed;
        let store = self.open().unwrap();
        self.start(&store);
        self.grow_a_little(&store);
        self.check_document();
        self.end(store, End::Stop);
        let store = self.open().unwrap();
        self.start(&store);
        calls
    }

    fn live_on(&mut self) {
        let lives: [(Life, End); 4] = [
            (Self::grow, End::Stop),
            (Self::age, End::PowerCut),
            (Self::grow_a_little, End::Kill),
            (Self::grow_a_little, End::Stop),
        ];
        for (live, end) in lives {
            let Some(store) = self.open_or_again() else { return };
            self.start(&store);
            live(self, &store);
            self.end(store, end);
        }
    }

    fn open(&self) -> Result<Store, Error> {
        let settings = Settings {
            segment_len: SEGMENT_LEN,
            queue_file_len: 80,
            // Fewer than there are; queues are flushed all at once but where only one is dirty.
            queue_files_open_max: 16,
            index_slot_count: 16,
            index_entry_count: 32,
            flush: self.flush,
            ..Settings::at("/store")
        };
        Store::open(Arc::new(self.disk.clone()), self.clock.clone(), settings)
    }

    /// Starts the process, again if that fails; in vain only if the disk is broken for good.
    fn open_or_again(&mut self) -> Option<Store> {
        let opened = self.open().or_else(|error| {
            assert!(!self.disk.take_failed().is_empty(), "{error}");
            assert!(error.to_string().contains("/store"), "{error}");
            self.disk.kill();
            self.open()
        });
        self.disk.take_failed();
        match opened {
            Err(error) if !self.broken.is_some_and(|it| it.for_good) => panic!("again: {error}"),
            opened => opened.ok(),
        }
    }

    fn end(&mut self, store: Store, end: End) {
        self.kept = match self.flush {
            FlushMode::Async => ALL,
            FlushMode::Sync => self.flushed.max(self.written),
        };
        if end == End::Stop {
            let closed = self.may_fail(store.close());
            if closed.is_some() && store.flushed_watermark().failure().is_none() {
                self.kept = ALL;
            }
        }
        drop(store);
        if end == End::PowerCut {
            self.kept = self.flushed;
            self.disk.crash();
        } else {
            self.disk.kill();
        }
        self.failed_at = None;
        match end {
            // An operator wants them built anew; later the log would not tell of all queues.
            End::Stop if !self.is_topic_deleted => {
                for name in ["index", "consumequeue"] {
                    let root = Path::new("/store");
                    let _ = self.disk.rename(&root.join(name), &root.join(format!("old-{name}")));
                }
            }
            End::Kill => self.leave_empty_segment(),
            End::Stop | End::PowerCut => {}
        }
    }

    /// As by a process that ends between making a file and giving it its length.
    fn leave_empty_segment(&self) {
        let dir = Path::new("/store/commitlog");
        let Ok(entries) = self.disk.list(dir) else { return };
        let last = entries.last().map_or(0, |it| it.name.parse::<u64>().unwrap() + SEGMENT_LEN);
        let _ = self.disk.open(&dir.join(format!("{last:020}")), 0);
    }

    fn grow(&mut self, store: &Store) {
        for round in 1..=48 {
            self.send(store);
            if round % 3 == 0 {
                self.note(store, |store| store.dispatch(&mut |_| {}));
            }
            if round % 5 == 0 {
                self.flush(store);
            }
            if round % 7 == 0 {
                self.try_to(store, Store::prepare_step);
            }
            if round % 16 == 0 {
                self.look(store);
                self.pass_time(11_000);
                self.try_to(store, |store| store.checkpoint_step(&mut |_| {}));
            }
        }
        self.send_batch(store);
        self.write_document();
        self.write_document();
        // As by an editor: the one before is read then.
        let _ = self.disk.replace(&Path::new("/store/config").join(DOCUMENT), b"damaged");
        self.document = self.document.start().saturating_sub(1)..=*self.document.end();
        self.check_document();
        self.check_document();
        self.rest(store);
    }

    /// Old files go, and a topic.
    fn age(&mut self, store: &Store) {
        self.grow_a_little(store);
        self.is_topic_deleted = true;
        self.try_to(store, |store| store.delete_topic(DELETED));
        self.try_to(store, Store::disk_used_ratio);
        let limit = store.log_min().0 + 3 * SEGMENT_LEN;
        self.may_be_deleted = self.may_be_deleted.max(LogOffset(limit));
        for count_max in [1, 2, 0] {
            let now = self.clock.now_ms();
            self.try_to(store, |store| store.delete_older(now, count_max));
        }
        let is_mended = self.broken.is_none_or(|it| !it.for_good);
        if is_mended {
            self.check_starts(store);
        }
        self.look(store);
        self.pass_time(11_000);
        self.try_to(store, |store| store.checkpoint_step(&mut |_| {}));
        self.rest(store);
        // Of one queue only.
        self.send(store);
        self.rest(store);
        self.pass_time(11_000);
        self.try_to(store, |store| store.checkpoint_step(&mut |_| {}));
        self.grow_a_little(store);
    }

    fn grow_a_little(&mut self, store: &Store) {
        for _ in 0..8 {
            self.send(store);
        }
        self.write_document();
        self.rest(store);
        // Not flushed, and not dispatched.
        self.send(store);
        self.send(store);
    }

    /// What was sent is brought to the device and the queues; then the store takes messages, unless
    /// its device has failed.
    fn rest(&mut self, store: &Store) {
        self.flush(store);
        // Again: what waited for room may have it by now.
        for _ in 0..2 {
            self.note(store, |store| store.dispatch(&mut |_| {}));
            self.look(store);
        }
        let writable = store.check_writable();
        if self.failed_at.is_some() {
            self.says(&writable.unwrap_err(), "restart");
        } else if self.broken.is_none_or(|it| !it.for_good) {
            let is_final = |error: &AppendError| error.to_string().contains("did not take the log");
            assert!(
                writable.as_ref().map_or_else(is_final, |()| true),
                "{writable:?} although it works again"
            );
        }
    }

    /// Also for those who sent and do not wait for it.
    fn flush(&mut self, store: &Store) {
        self.try_to(store, Store::flush_step);
        let result = self.note(store, Store::write_out);
        if self.accepted(result).is_some() {
            self.written = self.stored.last().map_or(self.written, |it| it.end);
        }
    }

    fn pass_time(&self, ms: Millis) {
        self.clock.0.fetch_add(ms, Ordering::Relaxed);
    }

    fn may_fail<T, E: Display>(&self, result: Result<T, E>) -> Option<T> {
        match result {
            Err(error) if self.broken.is_none() => panic!("{error}"),
            Err(error) => {
                assert!(error.to_string().contains("/store"), "{error}");
                None
            }
            Ok(done) => Some(done),
        }
    }

    /// Who is refused is told of which file, and what to do.
    fn says(&self, error: &AppendError, advice: &str) {
        let text = error.to_string();
        assert!(text.contains("/store/") && text.contains(advice), "{text}");
    }

    fn try_to<T, E: Display>(
        &mut self,
        store: &Store,
        act: impl FnOnce(&Store) -> Result<T, E>,
    ) -> Option<T> {
        let result = self.note(store, act);
        self.may_fail(result)
    }

    /// Does something, and sees whether a sync of the log failed, and how far the watermark is.
    fn note<T>(&mut self, store: &Store, act: impl FnOnce(&Store) -> T) -> T {
        let done = act(store);
        let reached = store.flushed_watermark().get();
        let is_log_sync = |it: &Call| it.what == "sync" && is_log(&it.path);
        if self.disk.take_failed().iter().any(is_log_sync) {
            self.failed_at.get_or_insert(reached);
        }
        if let Some(failed_at) = self.failed_at {
            assert_eq!(reached, failed_at, "nothing is said to be on the device any more");
            assert!(store.flushed_watermark().failure().is_some());
        }
        self.flushed = self.flushed.max(reached);
        done
    }

    fn next(&mut self) -> (&'static str, QueueId, String, Vec<u8>) {
        self.next_number += 1;
        self.pass_time(1);
        let number = self.next_number;
        let topics = if self.is_topic_deleted { &TOPICS[..2] } else { &TOPICS };
        let topic = topics[number as usize % topics.len()];
        let queue = QueueId::from_wire((number / 3 % QUEUES as u64) as i32).unwrap();
        let mut body = format!("{number} ").into_bytes();
        body.resize([100, 700, 3000][number as usize / 2 % 3], b'x');
        (topic, queue, format!("key{number}"), body)
    }

    fn send(&mut self, store: &Store) {
        let (topic, queue, key, body) = self.next();
        let encoded = properties(&key);
        let message = message(topic, queue, &body, &encoded);
        let result = self.note(store, |store| store.append(&message));
        let Some(appended) = self.accepted(result) else { return };
        let (at, end, stored_ms) = (appended.at, appended.end, appended.stored_ms);
        let offset = appended.queue_offset;
        self.stored.push(Stored { topic, queue, offset, at, end, stored_ms, key, body });
        // Not everyone waits for the flush.
        if self.next_number.is_multiple_of(4) {
            let result = self.note(store, Store::write_out);
            if self.accepted(result).is_some() {
                self.written = end;
            }
        }
    }

    fn send_batch(&mut self, store: &Store) {
        let (topic, queue, ..) = self.next();
        let parts: Vec<_> = (0..3).map(|_| self.next()).collect();
        let encoded: Vec<_> = parts.iter().map(|(_, _, key, _)| properties(key)).collect();
        let messages = parts.iter().zip(&encoded);
        let messages: Vec<_> =
            messages.map(|((.., body), encoded)| message(topic, queue, body, encoded)).collect();
        let result = self.note(store, |store| store.append_batch(&messages));
        let Some(batch) = self.accepted(result) else { return };
        let ends = batch.places[1..].iter().copied().chain([batch.first.end]);
        for (index, ((_, _, key, body), end)) in (0..).zip(parts.into_iter().zip(ends)) {
            let offset = batch.first.queue_offset.plus(index);
            let (at, stored_ms) = (batch.places[index as usize], batch.first.stored_ms);
            self.stored.push(Stored { topic, queue, offset, at, end, stored_ms, key, body });
        }
    }

    /// What was acknowledged; nothing is once the device has failed.
    fn accepted<T>(&self, result: Result<T, AppendError>) -> Option<T> {
        let error = match result {
            Ok(accepted) => {
                assert_eq!(self.failed_at, None, "acknowledged after a failed sync");
                return Some(accepted);
            }
            Err(error) => error,
        };
        assert!(self.broken.is_some(), "{error}");
        let advice = match error {
            AppendError::DiskFull(_) => "make room",
            _ if error.to_string().contains("did not take the log") => "restart",
            _ => "see to",
        };
        self.says(&error, advice);
        None
    }

    fn documents(&self) -> Documents {
        Documents::new(Arc::new(self.disk.clone()), Path::new("/store"))
    }

    fn write_document(&mut self) {
        let number = self.document.end() + 1;
        let written = self.documents().write(DOCUMENT, number.to_string().as_bytes());
        let is_written = self.may_fail(written).is_some();
        self.document = if is_written { number } else { *self.document.start() }..=number;
        self.check_document();
    }

    fn check_document(&mut self) {
        let parse = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
        let Some(read) = self.may_fail(self.documents().read(DOCUMENT, parse)) else { return };
        assert!(self.document.contains(&read.unwrap_or(0)), "{read:?} {:?}", self.document);
    }

    /// The process has started: what was promised is there, and all that is there is served.
    fn start(&mut self, store: &Store) {
        let end = store.visible();
        let lost = self.stored.iter().find(|it| end < it.end && it.end <= self.kept);
        assert!(lost.is_none(), "{lost:?} was promised; the log ends at {end}");
        self.stored.retain(|it| it.end <= end);
        (self.flushed, self.written) = (end, end);
        for (topic, queue) in places().filter(|(topic, _)| !self.is_gone(topic)) {
            let count = self.in_queue(topic, queue).map(|it| it.offset.0 + 1).last().unwrap_or(0);
            assert_eq!(store.queue_bounds(topic, queue).end.0, count, "{topic} {queue}");
        }
        self.check_starts(store);
        self.look(store);
        for it in self.stored.iter().filter(|it| store.log_min() <= it.at) {
            let is_found = keys(it).iter().all(|key| find(store, it.topic, key) == [it.at]);
            assert!(is_found || self.is_gone(it.topic), "the index lacks {it:?}");
        }
    }

    fn is_gone(&self, topic: &str) -> bool {
        self.is_topic_deleted && topic == DELETED
    }

    fn in_queue(&self, topic: &str, queue: QueueId) -> impl Iterator<Item = &Stored> {
        self.stored.iter().filter(move |it| it.topic == topic && it.queue == queue)
    }

    /// Queues start with the first message whose record retention has left.
    fn check_starts(&self, store: &Store) {
        assert!(store.log_min() <= self.may_be_deleted);
        for (topic, queue) in places().filter(|(topic, _)| !self.is_gone(topic)) {
            let bounds = store.queue_bounds(topic, queue);
            let mut there = self.in_queue(topic, queue).filter(|it| store.log_min() <= it.at);
            let first = there.next().map_or(bounds.end, |it| it.offset.min(bounds.end));
            assert_eq!(bounds.start, first, "{topic} {queue}");
        }
    }

    /// What is served is what was appended, whole, in order, and nothing is passed over; with
    /// synchronous flush only what the device has.
    fn look(&self, store: &Store) {
        for (topic, queue) in places() {
            if !self.is_gone(topic) {
                self.look_up(store, topic, queue);
            }
            let bounds = store.queue_bounds(topic, queue);
            let limits = ReadLimits { count: 800, bytes: usize::MAX };
            let mut units = Vec::new();
            let read = store.read(topic, queue, bounds.start, limits, &mut |_| true, &mut units);
            if self.may_fail(read).is_none() {
                continue;
            }
            let in_bounds = |it: &&Stored| bounds.contains(&it.offset);
            let expected: Vec<_> = self.in_queue(topic, queue).filter(in_bounds).collect();
            let by_place: BTreeMap<_, _> = expected.iter().map(|it| (it.at, *it)).collect();
            let mut records = store.records();
            for unit in &units {
                let stored = by_place.get(&unit.at);
                let stored = stored.unwrap_or_else(|| panic!("{topic} {queue}: {unit:?}"));
                assert_eq!(stored.end, unit.end());
                assert!(self.flush == FlushMode::Async || stored.end <= self.flushed);
                let bytes = match records.slice(unit) {
                    None if unit.at < store.log_min() => continue,
                    bytes => bytes.unwrap(),
                };
                let record = Record::parse(&bytes).unwrap();
                assert_eq!((record.body, record.at), (&stored.body[..], unit.at));
            }
            if self.is_gone(topic) {
                continue;
            }
            let served: Vec<_> = units.iter().map(|unit| unit.at).collect();
            let expected: Vec<_> = expected.iter().map(|it| it.at).collect();
            assert_eq!(served, expected, "{topic} {queue}");
        }
    }

    /// By key and by time it is the same.
    fn look_up(&self, store: &Store, topic: &str, queue: QueueId) {
        let bounds = store.queue_bounds(topic, queue);
        let is_there = |it: &&Stored| bounds.contains(&it.offset) && store.log_min() <= it.at;
        let Some(last) = self.in_queue(topic, queue).filter(is_there).last() else { return };
        let may_lack = store.check_writable().is_err();
        for found in keys(last).iter().map(|key| find(store, topic, key)) {
            let is_right = found == [last.at] || (may_lack && found.is_empty());
            assert!(is_right, "{last:?} is not found once by key: {found:?}");
        }
        let by_time = store.offset_by_time(topic, queue, last.stored_ms, Boundary::Lower);
        let same = self.in_queue(topic, queue).find(|it| it.stored_ms == last.stored_ms);
        let by_time = self.may_fail(by_time);
        assert!(by_time.is_none_or(|it| Some(it) == same.map(|it| it.offset)), "{last:?}");
    }
}

fn places() -> impl Iterator<Item = (&'static str, QueueId)> {
    let queue = |topic| (0..QUEUES).map(move |id| (topic, QueueId::from_wire(id).unwrap()));
    TOPICS.into_iter().flat_map(queue)
}

fn is_log(path: &Path) -> bool {
    path.starts_with("/store/commitlog")
}

fn properties(key: &str) -> Vec<u8> {
    let mut encoded = Vec::new();
    properties::push(&mut encoded, properties::name::UNIQ_KEY, &unique(key));
    properties::push(&mut encoded, properties::name::KEYS, key);
    encoded
}

fn unique(key: &str) -> String {
    format!("unique-{key}")
}

fn keys(stored: &Stored) -> [String; 2] {
    [unique(&stored.key), stored.key.clone()]
}

fn find(store: &Store, topic: &str, key: &str) -> Vec<LogOffset> {
    store.query_by_key(topic, key, 9, 0, Millis::MAX)
}

fn message<'a>(
    topic: &'a str,
    queue_id: QueueId,
    body: &'a [u8],
    properties: &'a [u8],
) -> Message<'a> {
    Message { properties, ..Message::new(topic, queue_id, body) }
}

/// Every call of the history without faults, each way in which it can fail, once and for good.
fn breaks(flush: FlushMode) -> Vec<(FlushMode, Broken, Call)> {
    let calls = History::new(flush, None).live();
    let mut breaks = Vec::new();
    for (number, call) in calls.into_iter().enumerate() {
        for fault in [Fault::Device, Fault::Full, Fault::Half] {
            for for_good in [false, true] {
                if call.may_fail(fault) {
                    breaks.push((flush, Broken { call: number, fault, for_good }, call.clone()));
                }
            }
        }
    }
    breaks
}

/// What kind of a file it is.
fn kind(path: &Path) -> &str {
    let inner = path.strip_prefix("/store").unwrap_or(path);
    inner.iter().next().and_then(|name| name.to_str()).unwrap_or("root")
}

/// All of them, or those whose name begins like that: `APOGEE_FAULT=Async:17:Half:once`.
#[test]
fn whatever_call_of_the_disk_fails_no_promise_is_broken() {
    let mut breaks: Vec<_> = [FlushMode::Async, FlushMode::Sync].map(breaks).concat();
    let name = |(flush, broken, _): &(FlushMode, Broken, Call)| {
        let Broken { call, fault, for_good } = broken;
        format!("{flush:?}:{call}:{fault:?}:{}", if *for_good { "ever" } else { "once" })
    };
    if let Ok(given) = std::env::var("APOGEE_FAULT") {
        breaks.retain(|it| name(it).starts_with(&given));
    }
    let calls: BTreeSet<_> = breaks.iter().map(|(flush, it, _)| (*flush as u8, it.call)).collect();
    let kinds: BTreeSet<_> =
        breaks.iter().map(|(.., call)| format!("{} {}", call.what, kind(&call.path))).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut failed = Vec::new();
        while let Some(it) = breaks.get(next.fetch_add(1, Ordering::Relaxed)) {
            let history = AssertUnwindSafe(|| History::new(it.0, Some(it.1)).live());
            if std::panic::catch_unwind(history).is_err() {
                failed.push(format!("APOGEE_FAULT={} {} {:?}", name(it), it.2.what, it.2.path));
            }
        }
        failed
    };
    let failed: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|it| it.join().unwrap()).collect()
    });
    println!(
        "{} histories: {} calls of {} kinds ({}), each failing in each way, once and for good",
        breaks.len(),
        calls.len(),
        kinds.len(),
        kinds.into_iter().collect::<Vec<_>>().join(", ")
    );
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), breaks.len(), failed.join("\n"));
}
