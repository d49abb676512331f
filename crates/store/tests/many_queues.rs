//! More queues than may be open: all are served, and no more are open than may be.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "looks at /proc")]

mod common;

use std::path::Path;
use std::sync::Arc;

use apogee_store::{RealDisk, Settings, Store};
use apogee_types::{Message, QueueId, QueueOffset};

const TOPICS: usize = 400;
const QUEUES: i32 = 2;
const OPEN_MAX: usize = 40;
/// Enough for a second file of each queue.
const ROUNDS: u64 = 25;

fn open(root: &Path) -> Store {
    let settings = Settings {
        queue_files_open_max: OPEN_MAX,
        segment_len: 4 << 20,
        index_entry_count: 30_000,
        ..common::settings(root)
    };
    common::open_on(Arc::new(RealDisk), settings).unwrap()
}

fn places() -> impl Iterator<Item = (String, QueueId)> {
    (0..TOPICS).flat_map(|topic| {
        (0..QUEUES).map(move |id| (format!("topic{topic}"), QueueId::from_wire(id).unwrap()))
    })
}

/// Appends a message to each queue.
fn send_round(store: &Store) {
    for (topic, queue_id) in places() {
        store.append(&Message::new(&topic, queue_id, topic.as_bytes())).unwrap();
        store.dispatch(&mut |_| {});
    }
}

#[track_caller]
fn check(store: &Store, root: &Path, rounds: u64) {
    for (topic, queue) in places() {
        let end = QueueOffset(rounds);
        assert_eq!(store.queue_bounds(&topic, queue), QueueOffset(0)..end, "{topic} {queue}");
        let units = common::read_all(store, &topic, queue);
        assert_eq!(units.len() as u64, rounds, "{topic} {queue}");
        let last = store.unit(&topic, queue, QueueOffset(rounds - 1)).unwrap();
        assert_eq!(last, units.last().copied());
        let mut records = store.records();
        for unit in units {
            let bytes = records.slice(&unit).unwrap();
            let record = apogee_types::record::Record::parse(&bytes).unwrap();
            assert_eq!((record.topic, record.queue_id), (&*topic, queue));
        }
    }
    check_open(store, root);
}

#[track_caller]
fn check_open(store: &Store, root: &Path) {
    let queues = root.join("consumequeue");
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let maps = maps.lines().filter(|line| line.contains(queues.to_str().unwrap())).count();
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    let is_queue = |file: &std::fs::DirEntry| {
        std::fs::read_link(file.path()).is_ok_and(|path| path.starts_with(&queues))
    };
    let files = files.filter_map(Result::ok).filter(is_queue).count();
    assert!(maps <= OPEN_MAX, "{maps} mappings");
    assert!(files <= OPEN_MAX, "{files} descriptors");
    assert_eq!(store.statistics().queue_files_open, maps);
}

#[test]
fn more_queues_are_served_than_are_open_after_a_stop_and_a_kill_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let store = open(root);
    for _ in 0..ROUNDS - 2 {
        send_round(&store);
    }
    store.checkpoint_step(&mut |_| {}).unwrap();
    check(&store, root, ROUNDS - 2);
    store.close().unwrap();
    drop(store);

    let store = open(root);
    check_open(&store, root);
    check(&store, root, ROUNDS - 2);
    send_round(&store);
    store.checkpoint_step(&mut |_| {}).unwrap();
    send_round(&store);
    // As by a kill, after the checkpoint.
    drop(store);

    let store = open(root);
    check_open(&store, root);
    check(&store, root, ROUNDS);
}

#[test]
fn a_topic_whose_queues_are_closed_can_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let store = open(root);
    send_round(&store);
    for topic in 0..TOPICS / 2 {
        store.delete_topic(&format!("topic{topic}")).unwrap();
    }
    send_round(&store);
    for (number, (topic, queue)) in places().enumerate() {
        let count = if number < TOPICS / 2 * QUEUES as usize { 1 } else { 2 };
        assert_eq!(common::read_all(&store, &topic, queue).len(), count, "{topic} {queue}");
    }
    check_open(&store, root);
}
