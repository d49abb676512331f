//! What a store says of itself, for metrics and administration. Nobody else counts the same.

use std::sync::atomic::Ordering;

use apogee_types::{LogOffset, Millis};

use crate::error::AppendError;
use crate::store::{Recovery, Store};

/// A look at a store; counts are those since it was opened.
#[derive(Debug, Clone)]
pub struct Statistics {
    /// Where the oldest record lies.
    pub log_min: LogOffset,
    pub log_end: LogOffset,
    /// Below, messages may be seen.
    pub log_visible: LogOffset,
    /// Below, the device has everything.
    pub log_flushed: LogOffset,
    /// Below, every message is in its queue, and found by its keys; 0 if there is none.
    pub log_dispatched: LogOffset,
    pub put_count: u64,
    /// Bytes of the records that were put.
    pub put_bytes: u64,
    /// Messages that reads of queues found.
    pub read_count: u64,
    pub queue_count: usize,
    pub queue_files_open: usize,
    /// Of all files: each open one is mapped.
    pub mapping_count: usize,
    pub flushes: Flushes,
    /// Appends that had to make or prepare their place in the log themselves.
    pub prepare_misses: u64,
    /// The newest record that the checkpoint vouches for, and its store time; 0 for none.
    pub checkpoint_at: LogOffset,
    pub checkpoint_ms: Millis,
    /// There will be no more checkpoints: the device failed to take one.
    pub has_failed_checkpoint: bool,
    pub recovery: Recovery,
    /// Why no more messages are taken, if so.
    pub refused: Option<AppendError>,
    /// How full the file system of the commit log is, from 0 to 1; `None` if it does not tell.
    pub disk_used_ratio: Option<f64>,
}

/// Flushes of the log that reached the device.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Flushes {
    pub count: u64,
    pub total_ms: Millis,
    pub max_ms: Millis,
}

impl Flushes {
    pub(crate) fn note(&mut self, taken_ms: Millis) {
        self.count += 1;
        self.total_ms += taken_ms;
        self.max_ms = self.max_ms.max(taken_ms);
    }
}

impl Store {
    /// Looks at everything; some system calls, and a walk over the open files.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let checkpoint = self.checkpoint.load();
        let (put_count, put_bytes) = self.log.put_totals();
        let queue_files_open = self.queues.open_file_count();
        let index_file_count = self.index.as_ref().map_or(0, |index| index.file_count());
        // And the checkpoint's.
        let mapping_count = self.log.segments.count() + queue_files_open + index_file_count + 1;
        Statistics {
            log_min: self.log_min(),
            log_end: self.log.end(),
            log_visible: self.log.visible(),
            log_flushed: self.log.flushed.get(),
            log_dispatched: LogOffset(self.dispatching.end.load(Ordering::Relaxed)),
            put_count,
            put_bytes,
            read_count: self.read_count(),
            queue_count: self.queues.count(),
            queue_files_open,
            mapping_count,
            flushes: *self.log.flushes.lock(),
            prepare_misses: self.log.prepare_misses.load(Ordering::Relaxed),
            checkpoint_at: checkpoint.queues_at,
            checkpoint_ms: checkpoint.queues_ms,
            has_failed_checkpoint: self.has_failed_checkpoint.load(Ordering::Relaxed),
            recovery: self.recovery(),
            refused: self.check_writable().err(),
            disk_used_ratio: self.disk_used_ratio().ok(),
        }
    }
}
