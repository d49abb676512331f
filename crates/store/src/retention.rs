//! What may be deleted: whole segments, oldest first, never the last. Spec `store.md` 10.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use apogee_types::record::Record;
use apogee_types::{LogOffset, Millis};

use crate::error::Error;
use crate::store::Store;

impl Store {
    /// Deletes up to `count_max` segments whose last message was stored before `before_ms`, of
    /// whatever time if that is [`Millis::MAX`], and what queues and index knew of them; how many
    /// there were.
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
        self.clean()?;
        Ok(deleted)
    }

    /// Removes the files of queues and index that speak of deleted records only; those that an
    /// earlier call has left because the disk failed. A queue keeps its last file, and with it its
    /// offsets.
    pub fn clean(&self) -> Result<(), Error> {
        if self.is_uncleaned.load(Ordering::Relaxed) {
            let log_min = self.log_min();
            self.queues.each(|queue| queue.raise_min(log_min))?;
            if let Some(index) = &self.index {
                index.clean(log_min)?;
            }
            self.is_uncleaned.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Removes the queues of topics that `is_unused` names, if the log has no message of them any
    /// more; which topics.
    pub fn remove_unused(&self, is_unused: &dyn Fn(&str) -> bool) -> Result<Vec<Arc<str>>, Error> {
        self.clean()?;
        self.queues.remove_unused(is_unused)
    }

    /// What is old enough is to be deleted whatever the hour, in the next runs of retention: in as
    /// many as upstream's.
    pub fn ask_to_delete(&self) {
        self.deletions_asked.store(20, Ordering::Relaxed);
    }

    /// Whether a run of retention is one of those.
    pub fn take_asked(&self) -> bool {
        let one_less = |count: u32| count.checked_sub(1);
        self.deletions_asked.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    /// Whether the log had left its first segment before `before_ms`: a later one begins with a
    /// record that was stored before. The next one tells, unless its first record is damaged or
    /// its time cannot be, for an earlier one has a later time or it is still to come.
    fn first_is_older(&self, before_ms: Millis) -> bool {
        let (segment_len, end) = (self.log.segments.segment_len(), self.log.end().0);
        let next = self.log_min().0 + segment_len;
        // Where a queue ended cannot be told any more if neither it nor the log is on the device.
        let is_last = end <= next || self.checkpoint.load().queues_at.0 < next;
        if is_last || before_ms == Millis::MAX {
            return !is_last;
        }
        let now_ms = self.log.now_ms();
        let first_ms = self.stored_ms_at(self.log_min()).filter(|ms| *ms <= now_ms);
        let possible = first_ms.unwrap_or(0)..=now_ms;
        let mut starts = (next..end).step_by(segment_len as usize).map(LogOffset);
        let stored_ms =
            starts.find_map(|at| self.stored_ms_at(at).filter(|ms| possible.contains(ms)));
        stored_ms.is_some_and(|stored_ms| stored_ms <= before_ms)
    }

    fn stored_ms_at(&self, at: LogOffset) -> Option<Millis> {
        let record = self.log.record_at(at)?;
        Some(Record::parse(&record).ok()?.stored_ms)
    }
}
