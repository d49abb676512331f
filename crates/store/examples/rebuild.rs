//! How fast a store is opened, and lost queues and index are built again:
//! `rebuild DIR GIB [KEYS] [TOPICS]`.
//!
//! Fills a store with messages of 1 KiB and that many keys each (1: the unique key), in four queues
//! of each topic, unless it is there. Opens it after a clean stop, as after a kill, and without
//! `consumequeue` and `index`.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "it measures")]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use apogee_store::{RealDisk, Settings, Store};
use apogee_types::clock::SystemClock;
use apogee_types::{Message, QueueId};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, dir, gib, counts @ ..] = &args[..] else { panic!("rebuild DIR GIB [KEYS] [TOPICS]") };
    let dir = Path::new(dir);
    let count = |index: usize, default| counts.get(index).map_or(default, |it| it.parse().unwrap());
    if !dir.exists() {
        let len = gib.parse::<f64>().unwrap() * f64::from(1 << 30);
        fill(dir, len as u64, count(0, 1), count(1, 8));
    }
    for _ in 0..2 {
        timed("after a clean stop", dir).close().unwrap();
        std::fs::write(dir.join("abort"), "1").unwrap();
        timed("as after a kill", dir).close().unwrap();
        for lost in ["consumequeue", "index"] {
            std::fs::remove_dir_all(dir.join(lost)).unwrap();
        }
        timed("without queues and index", dir).close().unwrap();
    }
}

fn timed(what: &str, dir: &Path) -> Store {
    let start = Instant::now();
    let store = open(dir);
    let taken = start.elapsed();
    let recovery = store.recovery();
    let mib = (recovery.to.0 - recovery.from.0) >> 20;
    let rate = mib as f64 / taken.as_secs_f64();
    let count = recovery.record_count;
    println!("{what}: {count} records, {mib} MiB in {taken:.2?}: {rate:.0} MiB/s");
    store
}

fn open(dir: &Path) -> Store {
    Store::open(Arc::new(RealDisk), Arc::new(SystemClock), Settings::at(dir)).unwrap()
}

fn fill(dir: &Path, len: u64, keys: usize, topic_count: usize) {
    let store = open(dir);
    let topics: Vec<String> = (0..topic_count).map(|number| format!("topic{number}")).collect();
    let start = Instant::now();
    let mut number: u64 = 0;
    while store.visible().0 < len {
        let mut properties = format!("UNIQ_KEY\u{1}0A00000100{number:022X}\u{2}WAIT\u{1}true\u{2}");
        for key in 1..keys {
            properties += &format!("KEYS\u{1}order-{number}-{key}\u{2}");
        }
        let topic = &topics[number as usize % topics.len()];
        let queue = QueueId::from_wire((number / topic_count as u64 % 4) as i32).unwrap();
        let message = Message {
            properties: properties.as_bytes(),
            ..Message::new(topic, queue, &[b'x'; 1024])
        };
        store.append(&message).unwrap();
        number += 1;
        if number.is_multiple_of(64) {
            store.dispatch(&mut |_| {});
        }
    }
    store.dispatch(&mut |_| {});
    store.close().unwrap();
    println!("{number} messages in {:.2?}", start.elapsed());
}
