//! What is deleted, and what the log's times are, where a record or a clock lies.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use apogee_store::{AppendError, FlushMode, RealDisk, Settings, Store};
use apogee_types::{Clock, LogOffset, Message, Millis, QueueId, QueueOffset};

const SEGMENT_LEN: u64 = 64 * 1024;
const NOW: Millis = 1_767_225_600_000;
const DAY: Millis = 24 * 3_600_000;

struct Turned(AtomicI64);

impl Clock for Turned {
    fn now_ms(&self) -> Millis {
        self.0.load(Ordering::Relaxed)
    }
}

fn clock_at(ms: Millis) -> Arc<Turned> {
    Arc::new(Turned(AtomicI64::new(ms)))
}

fn open(dir: &Path, clock: &Arc<Turned>, flush: FlushMode) -> Store {
    let kept = Settings { segment_len: SEGMENT_LEN, flush, ..Settings::at(dir) };
    Store::open(Arc::new(RealDisk), clock.clone(), kept).unwrap()
}

fn send(store: &Store, len: usize) -> Result<Millis, AppendError> {
    let body = vec![7; len];
    let appended = store.append(&Message::new("t", QueueId::from_wire(0).unwrap(), &body))?;
    store.flush_all().unwrap();
    store.dispatch(&mut |_| {});
    Ok(appended.stored_ms)
}

/// A store with `count` whole segments and one more.
fn fill(store: &Store, count: u64) {
    while store.visible() < LogOffset(count * SEGMENT_LEN + 10_000) {
        send(store, 5_000).unwrap();
    }
}

#[test]
fn a_damaged_record_does_not_keep_files_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock_at(NOW);
    let store = open(dir.path(), &clock, FlushMode::Async);
    fill(&store, 4);
    store.close().unwrap();
    drop(store);
    // The first record of the second file has lost its head.
    let second = dir.path().join(format!("commitlog/{SEGMENT_LEN:020}"));
    let mut bytes = std::fs::read(&second).unwrap();
    bytes[..91].fill(0);
    std::fs::write(&second, bytes).unwrap();
    let store = open(dir.path(), &clock, FlushMode::Async);
    clock.0.store(NOW + DAY, Ordering::Relaxed);
    assert_eq!(store.delete_older(NOW - 1, 10).unwrap(), 0);
    assert_eq!(store.delete_older(NOW + 1, 10).unwrap(), 4);
}

#[test]
fn times_that_cannot_be_do_not_keep_files_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    // The clock was wrong once, and is set right.
    let clock = clock_at(NOW + 365 * DAY);
    let store = open(dir.path(), &clock, FlushMode::Async);
    fill(&store, 2);
    clock.0.store(NOW, Ordering::Relaxed);
    assert_eq!(send(&store, 10).unwrap(), NOW);
    fill(&store, 4);
    store.close().unwrap();
    drop(store);
    let store = open(dir.path(), &clock, FlushMode::Async);
    assert_eq!(send(&store, 10).unwrap(), NOW);
    clock.0.store(NOW + DAY, Ordering::Relaxed);
    assert_eq!(store.delete_older(NOW - 1, 10).unwrap(), 0);
    assert_eq!(store.delete_older(NOW + 1, 10).unwrap(), 4);
}

#[test]
fn a_full_disk_does_not_ask_for_times() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock_at(NOW + 365 * DAY);
    let store = open(dir.path(), &clock, FlushMode::Async);
    fill(&store, 3);
    // Before a checkpoint, only the log tells where its queues end.
    assert_eq!(store.delete_older(Millis::MAX, 10).unwrap(), 0);
    clock.0.store(NOW, Ordering::Relaxed);
    store.checkpoint_step(&mut |_| {}).unwrap();
    assert_eq!(store.delete_older(NOW, 10).unwrap(), 0);
    assert_eq!(store.delete_older(Millis::MAX, 10).unwrap(), 3);
}

#[test]
fn a_clock_that_steps_back_a_little_leaves_times_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock_at(NOW);
    let store = open(dir.path(), &clock, FlushMode::Async);
    assert_eq!(send(&store, 10).unwrap(), NOW);
    clock.0.store(NOW - 2_000, Ordering::Relaxed);
    assert_eq!(send(&store, 10).unwrap(), NOW);
}

#[test]
fn what_does_not_fit_a_file_is_refused_and_harms_nobody() {
    for flush in [FlushMode::Async, FlushMode::Sync] {
        let dir = tempfile::tempdir().unwrap();
        let clock = clock_at(NOW);
        let store = open(dir.path(), &clock, flush);
        send(&store, 10).unwrap();
        let refused = send(&store, SEGMENT_LEN as usize).unwrap_err();
        assert!(matches!(refused, AppendError::LongerThanFile { .. }), "{refused}");
        assert!(refused.is_illegal_message());
        // The longest that fits: beside the blank record's head, and what a record has of its own.
        let fits = SEGMENT_LEN as usize - 8 - 91 - "t".len();
        send(&store, fits + 1).unwrap_err();
        send(&store, fits).unwrap();
        send(&store, 10).unwrap();
        // As by kill -9.
        drop(store);
        let store = open(dir.path(), &clock, flush);
        let queue = QueueId::from_wire(0).unwrap();
        assert_eq!(store.queue_bounds("t", queue).end.0, 3);
    }
}

#[test]
fn of_unused_topics_those_go_that_have_no_message_left() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock_at(NOW);
    let store = open(dir.path(), &clock, FlushMode::Async);
    let queue = QueueId::from_wire(0).unwrap();
    let send_to = |topic: &str| {
        let appended = store.append(&Message::new(topic, queue, b"x")).unwrap();
        store.dispatch(&mut |_| {});
        appended.queue_offset.0
    };
    for topic in ["gone", "used", "made", "full"] {
        send_to(topic);
    }
    fill(&store, 2);
    send_to("full");
    let all = &|topic: &str| topic != "used";
    assert!(store.remove_unused(all).unwrap().is_empty(), "all have messages");
    store.checkpoint_step(&mut |_| {}).unwrap();
    assert_eq!(store.delete_older(Millis::MAX, 1).unwrap(), 1);
    // Made by somebody just as it was about to go.
    let asked = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let is_unused = |topic: &str| {
        let is_first = asked.lock().unwrap().insert(topic.to_owned());
        all(topic) && (is_first || topic != "made")
    };
    let removed = store.remove_unused(&is_unused).unwrap();
    assert_eq!(removed.iter().map(|it| &**it).collect::<Vec<_>>(), ["gone"]);
    let names = std::fs::read_dir(dir.path().join("consumequeue")).unwrap();
    let mut names: Vec<_> = names.map(|it| it.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["full", "made", "t", "used"]);
    assert_eq!(store.queue_bounds("full", queue), QueueOffset(1)..QueueOffset(2));
    // What goes on, goes on where it was; what is made again begins anew.
    assert_eq!((send_to("used"), send_to("made"), send_to("gone")), (1, 1, 0));
    store.close().unwrap();
    drop(store);
    let store = open(dir.path(), &clock, FlushMode::Async);
    assert_eq!(store.queue_bounds("gone", queue), QueueOffset(0)..QueueOffset(1));
    assert_eq!(store.queue_bounds("used", queue), QueueOffset(1)..QueueOffset(2));
}
