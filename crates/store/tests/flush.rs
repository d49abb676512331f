//! What an asynchronous flush leaves alone, and who asks for more.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use apogee_sim::disk::{Faults, SimDisk};
use apogee_store::{Settings, Store};
use apogee_types::{Message, QueueId, SystemClock};

#[test]
fn all_that_was_appended_is_on_the_device_for_who_says_that_it_was_seen() {
    for is_all in [false, true] {
        let disk = SimDisk::new(1, Faults::default());
        let open = || {
            let kept = Settings { segment_len: 1 << 20, ..Settings::at("/store") };
            Store::open(Arc::new(disk.clone()), Arc::new(SystemClock), kept).unwrap()
        };
        let store = open();
        let queue = QueueId::from_wire(0).unwrap();
        let body = vec![7; 30_000];
        let sent: Vec<_> =
            (0..5).map(|_| store.append(&Message::new("t", queue, &body)).unwrap()).collect();
        let end = sent.last().unwrap().end;
        if is_all {
            store.flush_all().unwrap();
        } else {
            store.flush_step().unwrap();
        }
        assert_eq!(store.flushed_watermark().get() == end, is_all);
        drop(store);
        disk.crash();
        assert!(!is_all || open().visible() == end);
    }
}
