//! What many queues cost: `many_queues DIR write|open close|kill [TOPICS] [QUEUES]`.
//!
//! `write` appends a message to each queue, as two steps of a broker would: append and dispatch,
//! checkpoint. `open` opens the store and reads a message of each. Then the store is closed, or
//! left as by a kill. Prints times, and what of memory, mappings and descriptors it takes.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "it measures")]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use apogee_store::{ReadLimits, RealDisk, Settings, Store};
use apogee_types::clock::SystemClock;
use apogee_types::{Message, QueueId, QueueOffset};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, dir, what, end, counts @ ..] = &args[..] else {
        panic!("many_queues DIR write|open close|kill [TOPICS] [QUEUES]")
    };
    let count = |index: usize, default| counts.get(index).map_or(default, |it| it.parse().unwrap());
    let (topics, queues) = (count(0, 20_000), count(1, 4));
    let start = Instant::now();
    let settings = Settings::at(Path::new(dir));
    let store = Store::open(Arc::new(RealDisk), Arc::new(SystemClock), settings).unwrap();
    report("open", start);
    let start = Instant::now();
    match what.as_str() {
        "write" => write(&store, topics, queues),
        _ => read(&store, topics, queues),
    }
    report(what, start);
    let start = Instant::now();
    store.checkpoint_step(&mut |_| {}).unwrap();
    report("checkpoint", start);
    if end == "close" {
        let start = Instant::now();
        store.close().unwrap();
        report("close", start);
    }
    std::process::exit(0);
}

fn write(store: &Store, topics: i32, queues: i32) {
    for topic in 0..topics {
        let topic = format!("a-topic-among-many-{topic}");
        for queue in 0..queues {
            let properties = format!("UNIQ_KEY\u{1}0A0000010000{topic}{queue}\u{2}");
            let queue = QueueId::from_wire(queue).unwrap();
            let message = Message {
                properties: properties.as_bytes(),
                ..Message::new(&topic, queue, &[b'x'; 100])
            };
            store.append(&message).unwrap();
            store.dispatch(&mut |_| {});
        }
    }
}

fn read(store: &Store, topics: i32, queues: i32) {
    let limits = ReadLimits { count: 32, bytes: 1 << 20 };
    for topic in 0..topics {
        let topic = format!("a-topic-among-many-{topic}");
        for queue in 0..queues {
            let queue = QueueId::from_wire(queue).unwrap();
            let mut units = Vec::new();
            let from = QueueOffset(0);
            store.read(&topic, queue, from, limits, &mut |_| true, &mut units).unwrap();
            assert!(!units.is_empty(), "{topic} {queue}");
        }
    }
}

fn report(what: &str, start: Instant) {
    let taken = start.elapsed();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let anonymous = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    let anonymous = anonymous.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    let files = std::fs::read_dir("/proc/self/fd").unwrap().count();
    println!("{what:12} {taken:10.2?}  {anonymous} MiB anonymous, {maps} mappings, {files} files");
}
