//! What may be deleted: whole segments, oldest first, never the last. Spec `store.md` 10.

use std::sync::atomic::Ordering;

use apogee_types::record::Record;
use apogee_types::{LogOffset, Millis};

use crate::error::Error;
use crate::store::Store;

impl Store {
    /// Deletes up to `count_max` segments whose last message was stored before `before_ms`, and
    /// what queues and index knew of them; how many there were.
    pub fn delete_older(&self, before_ms: Millis, count_max: usize) -> Result<usize, Error> {
        let mut deleted = 0;
        while deleted < count_max && self.first_is_older(before_ms) {
            self.log.segments.remove_first()?;
            self.is_uncleaned.store(true, Ordering::Relaxed);
            deleted += 1;
        }
        let log_min = self.log_min();
        if 0 < deleted {
            tracing::info!(deleted, log_min = log_min.0, "old commit-log files deleted");
        }
        // Also what an earlier call has left because the disk failed.
        if self.is_uncleaned.load(Ordering::Relaxed) {
            self.queues.each(|queue| queue.raise_min(log_min))?;
            if let Some(index) = &self.index {
                index.clean(log_min)?;
            }
            self.is_uncleaned.store(false, Ordering::Relaxed);
        }
        Ok(deleted)
    }

    /// The first segment was left for the next one before `before_ms`: when that one's first
    /// record was stored.
    fn first_is_older(&self, before_ms: Millis) -> bool {
        let next = self.log_min().plus(self.log.segments.segment_len());
        let is_last = self.log.end() <= next;
        !is_last && self.stored_ms_at(next).is_some_and(|stored_ms| stored_ms <= before_ms)
    }

    fn stored_ms_at(&self, at: LogOffset) -> Option<Millis> {
        let record = self.log.record_at(at)?;
        Some(Record::parse(&record).ok()?.stored_ms)
    }
}
