//! What the store's tests share: small stores on the real disk, messages, what is served.

#![allow(dead_code, reason = "each test uses its part of it")]
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests damage files on purpose")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use apogee_store::{Disk, Error, FlushMode, ReadLimits, RealDisk, Settings, Store, Unit};
use apogee_types::record::Record;
use apogee_types::{Clock, LogOffset, Message, Millis, QueueId, QueueOffset, tags};

/// A clock that goes on by a millisecond each time it is asked, over all stores of a test.
struct Ticking;

static NOW_MS: AtomicI64 = AtomicI64::new(1_800_000_000_000);

impl Clock for Ticking {
    fn now_ms(&self) -> Millis {
        NOW_MS.fetch_add(1, Ordering::Relaxed)
    }
}

pub fn settings(root: &Path) -> Settings {
    Settings {
        segment_len: 64 << 10,
        queue_file_len: 400,
        // Fewer than there are.
        queue_files_open_max: 4,
        index_slot_count: 100,
        index_entry_count: 400,
        flush: FlushMode::Async,
        ..Settings::at(root)
    }
}

pub fn open_with(settings: Settings) -> Result<Store, Error> {
    open_on(Arc::new(RealDisk), settings)
}

pub fn open_on(disk: Arc<dyn Disk>, settings: Settings) -> Result<Store, Error> {
    Store::open(disk, Arc::new(Ticking), settings)
}

pub fn open(root: &Path) -> Store {
    open_with(settings(root)).unwrap()
}

/// What was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub topic: String,
    pub queue: QueueId,
    pub offset: QueueOffset,
    pub at: LogOffset,
    pub end: LogOffset,
    pub stored_ms: Millis,
    pub key: String,
    pub body: Vec<u8>,
}

/// Sends the `number`th message: topics and queues take turns, lengths differ.
pub fn send(store: &Store, number: usize) -> Sent {
    let topic = format!("topic{}", number % 3);
    let queue = QueueId::from_wire((number / 3 % 2) as i32).unwrap();
    let key = format!("key{number}");
    let body = format!("body {number} ").repeat(20 + number % 50).into_bytes();
    let properties = format!("KEYS\u{1}{key}\u{2}TAGS\u{1}tag{}\u{2}", number % 2);
    let message = Message {
        flag: 7,
        properties: properties.as_bytes(),
        tags_code: tags::code(Some(&format!("tag{}", number % 2))),
        ..Message::new(&topic, queue, &body)
    };
    let appended = store.append(&message).unwrap();
    store.dispatch(&mut |_| {});
    Sent {
        topic: topic.clone(),
        queue,
        offset: appended.queue_offset,
        at: appended.at,
        end: appended.end,
        stored_ms: appended.stored_ms,
        key,
        body,
    }
}

/// A store that some hundred messages were sent to: several segments, queue and index files.
pub struct Filled {
    pub dir: tempfile::TempDir,
    pub sent: Vec<Sent>,
}

pub const COUNT: usize = 600;

impl Filled {
    /// Stopped in order.
    pub fn clean() -> Self {
        Self::make(|store| store.close().unwrap())
    }

    /// Killed, long after the last checkpoint.
    pub fn killed() -> Self {
        Self::make(settle)
    }

    /// Killed before any key was in the index.
    pub fn killed_at_once() -> Self {
        Self::make(|_| {})
    }

    /// Stopped in each way: in order, by us or by Apache, who leaves no `queue-ends`; killed.
    pub fn each() -> [Self; 3] {
        let of_apache = Self::clean();
        std::fs::remove_file(of_apache.path("queue-ends")).unwrap();
        [Self::clean(), of_apache, Self::killed()]
    }

    fn make(stop: impl FnOnce(&Store)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let sent = (0..COUNT).map(|number| send(&store, number)).collect();
        stop(&store);
        Self { dir, sent }
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    pub fn open(&self) -> Store {
        open(self.root())
    }

    pub fn last(&self) -> &Sent {
        self.sent.last().unwrap()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Overwrites bytes of the commit log.
    pub fn damage_log(&self, at: u64, bytes: &[u8]) {
        let len = settings(self.root()).segment_len;
        let path = self.path(&format!("commitlog/{:020}", at - at % len));
        overwrite(&path, at % len, bytes);
    }
}

/// Brings keys that wait into the index.
pub fn settle(store: &Store) {
    store.prepare_step().unwrap();
}

pub fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

/// All files below a directory, by name.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Reads a whole queue.
pub fn read_all(store: &Store, topic: &str, queue: QueueId) -> Vec<Unit> {
    let bounds = store.queue_bounds(topic, queue);
    let (mut from, mut units) = (bounds.start, Vec::new());
    let limits = ReadLimits { count: 32, bytes: 1 << 20 };
    while from < bounds.end {
        let mut some = Vec::new();
        from = store.read(topic, queue, from, limits, &mut |_| true, &mut some).unwrap().next;
        units.extend(some);
    }
    units
}

/// Each message is served in each way: by its queue, its place, its key, its time.
pub fn check_served(store: &Store, sent: &[Sent]) {
    let queues = sent.iter().map(|it| (it.topic.clone(), it.queue));
    for (topic, queue) in queues.collect::<std::collections::BTreeSet<_>>() {
        let of_queue = sent.iter().filter(|it| it.topic == topic && it.queue == queue);
        let expected: Vec<_> = of_queue.map(|it| it.at).collect();
        let found: Vec<_> = read_all(store, &topic, queue).iter().map(|it| it.at).collect();
        assert_eq!(found, expected, "{topic} {queue}");
    }
    let mut records = store.records();
    let mut copied = Vec::new();
    for it in sent {
        let unit = store.unit(&it.topic, it.queue, it.offset).unwrap().unwrap();
        assert_eq!(unit.at, it.at, "{it:?}");
        let bytes = records.slice(&unit).unwrap();
        records.copy(&unit, &mut copied);
        assert_eq!(std::mem::take(&mut copied), bytes);
        let record = Record::parse(&bytes).unwrap();
        assert_eq!((record.body, record.at, record.topic), (&it.body[..], it.at, &*it.topic));
        assert_eq!(store.record_at(it.at).unwrap().unwrap(), bytes);
        assert_eq!(store.query_by_key(&it.topic, &it.key, 9, 0, i64::MAX), [it.at]);
        let time = it.stored_ms;
        let lower = apogee_store::Boundary::Lower;
        let by_time = store.offset_by_time(&it.topic, it.queue, time, lower).unwrap();
        assert_eq!(by_time, it.offset);
    }
}

/// None of the messages is served, in any way, and their places in the queue are free.
pub fn check_gone(store: &Store, sent: &[Sent]) {
    for it in sent {
        assert!(store.queue_bounds(&it.topic, it.queue).end <= it.offset, "{it:?}");
        assert_eq!(store.unit(&it.topic, it.queue, it.offset).unwrap(), None);
        assert_eq!(store.record_at(it.at).unwrap(), None);
        assert!(store.query_by_key(&it.topic, &it.key, 9, 0, i64::MAX).is_empty());
    }
}

/// The store goes on: takes messages, serves them, stops, and serves all again.
pub fn check_goes_on(store: Store, root: &Path, mut sent: Vec<Sent>) {
    sent.extend((1000..1010).map(|number| send(&store, number)));
    check_served(&store, &sent);
    store.close().unwrap();
    drop(store);
    let store = open(root);
    check_served(&store, &sent);
    store.close().unwrap();
}
