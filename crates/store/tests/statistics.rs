//! What a store says of itself is what was done with it.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use apogee_store::AppendError;
use apogee_types::{LogOffset, QueueId};

#[test]
fn statistics_tell_what_was_put_read_flushed_and_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = common::open(dir.path());
    let sent: Vec<_> = (0..100).map(|number| common::send(&store, number)).collect();
    let last = sent.last().unwrap();
    while store.flush_step().unwrap() {}
    for topic in ["topic0", "topic1", "topic2"] {
        for id in 0..2 {
            common::read_all(&store, topic, QueueId::from_wire(id).unwrap());
        }
    }
    let told = store.statistics();
    assert_eq!((told.put_count, told.read_count), (100, 100));
    let put_bytes: u64 = sent.iter().map(|it| it.end.0 - it.at.0).sum();
    assert_eq!(told.put_bytes, put_bytes);
    assert_eq!((told.log_min, told.log_end, told.log_visible), (LogOffset(0), last.end, last.end));
    assert_eq!((told.log_flushed, told.log_dispatched), (last.end, last.end));
    assert_eq!((told.queue_count, told.queue_files_open), (6, 4));
    assert!(0 < told.flushes.count && told.flushes.max_ms <= told.flushes.total_ms);
    assert!(told.disk_used_ratio.is_some_and(|used| (0.0..=1.0).contains(&used)));
    assert_eq!(told.refused, None);
    assert_eq!(told.checkpoint_at, LogOffset(0));
    store.close().unwrap();
    let told = store.statistics();
    assert_eq!((told.checkpoint_at, told.checkpoint_ms), (last.at, last.stored_ms));
    assert!(matches!(told.refused, Some(AppendError::NotWritable(_))), "{told:?}");
    drop(store);
    let told = common::open(dir.path()).statistics();
    assert_eq!((told.put_count, told.read_count, told.log_end), (0, 0, last.end));
    assert_eq!(told.recovery.to, last.end);
}
