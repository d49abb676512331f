//! What could not be dispatched is tried again.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use apogee_sim::disk::{Broken, Fault, Faults, SimDisk};
use apogee_store::{FlushMode, Settings, Store};
use apogee_types::{Message, QueueId, SystemClock};

#[test]
fn what_had_no_room_in_its_queue_gets_there_without_another_message() {
    for flush in [FlushMode::Async, FlushMode::Sync] {
        let disk = SimDisk::new(1, Faults::default());
        let kept = Settings { segment_len: 1 << 20, flush, ..Settings::at("/store") };
        let store = Store::open(Arc::new(disk.clone()), Arc::new(SystemClock), kept).unwrap();
        let queue = QueueId::from_wire(0).unwrap();
        let send = || store.append(&Message::new("t", queue, b"x"));
        send().unwrap();
        store.flush_step().unwrap();
        disk.watch(Some(Broken { call: 0, fault: Fault::Full, for_good: true }));
        store.dispatch(&mut |_| {});
        assert!(send().unwrap_err().to_string().contains("room"), "{flush:?}");
        disk.mend();
        let mut arrived = 0;
        store.checkpoint_step(&mut |_| arrived += 1).unwrap();
        assert_eq!((arrived, store.queue_bounds("t", queue).end.0), (1, 1), "{flush:?}");
        send().unwrap();
    }
}
