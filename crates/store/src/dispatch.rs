//! From the log into the queues and the index.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use apogee_types::{LogOffset, Millis, QueueId, QueueOffset};
use parking_lot::{Mutex, MutexGuard};

use crate::commit_log::Entry;
use crate::error::{AppendError, Error};
use crate::index::KeyHashes;
use crate::read::Unit;
use crate::store::Store;

/// Messages that are appended and not yet in their queues before who appends more has to wait.
const BEHIND_MAX: usize = 1024;

/// A queue has grown.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    pub topic: &'a str,
    pub queue: QueueId,
    /// The queue's end now.
    pub end: QueueOffset,
    /// Tag codes of what came.
    pub tags_codes: &'a [i64],
}

/// Entries on their way from the log, one dispatch at a time.
#[derive(Default)]
pub(crate) struct Dispatching {
    pub(crate) state: Mutex<Dispatch>,
    /// Mirrors whether [`Dispatch::stuck`] is set.
    pub(crate) is_stuck: AtomicBool,
    /// Somebody came second, and nobody has looked since.
    is_left: AtomicBool,
    /// Mirrors the end of [`Dispatch::newest`].
    pub(crate) end: AtomicU64,
}

#[derive(Default)]
pub(crate) struct Dispatch {
    batch: Vec<Entry>,
    /// Why the first entry of the batch did not get into its queue or the index. It is tried again;
    /// those that follow wait, so that no reader passes it over, and no more messages are taken.
    pub(crate) stuck: Option<AppendError>,
    /// The newest record that was dispatched, and all before it: what a checkpoint may say once
    /// queues and index are flushed.
    pub(crate) newest: Option<Dispatched>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dispatched {
    pub at: LogOffset,
    pub end: LogOffset,
    pub stored_ms: Millis,
}

impl Dispatching {
    pub(crate) fn mirror(&self, state: &Dispatch) {
        let end = state.newest.map_or(0, |newest| newest.end.0);
        self.end.store(end, Ordering::Relaxed);
    }
}

impl From<&Entry> for Dispatched {
    fn from(entry: &Entry) -> Self {
        let end = entry.at.plus(u64::from(entry.len));
        Self { at: entry.at, end, stored_ms: entry.stored_ms }
    }
}

impl Store {
    /// Brings what was appended and may be seen into the queues and the index, and reports what
    /// arrived. Cheap when there is nothing.
    pub fn dispatch(&self, arrived: &mut dyn FnMut(Arrival<'_>)) {
        while (self.log.has_entries() || self.dispatching.is_stuck.load(Ordering::Acquire))
            && self.dispatch_batch(arrived)
        {}
    }

    /// As [`dispatch`](Self::dispatch), of what nobody else will bring there: what is stuck, and
    /// what was appended while a checkpoint looked at the queues. Who appended the rest brings it
    /// there before it answers; were it taken away, the answer would come first.
    pub fn dispatch_left(&self, arrived: &mut dyn FnMut(Arrival<'_>)) {
        /// Who appended meanwhile most likely comes again by then, and takes what is left.
        const PAUSE: Duration = Duration::from_millis(1);
        let is_left = || self.dispatching.is_left.load(Ordering::SeqCst);
        while (is_left() || self.dispatching.is_stuck.load(Ordering::Acquire))
            && self.dispatch_batch(arrived)
        {
            if is_left() {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Whether there was something, and nobody else was at it, and all of it got there.
    fn dispatch_batch(&self, arrived: &mut dyn FnMut(Arrival<'_>)) -> bool {
        let Some(mut dispatch) = self.begin_dispatch() else { return false };
        self.dispatching.is_left.store(false, Ordering::SeqCst);
        let mut batch = std::mem::take(&mut dispatch.batch);
        self.log.take_entries(&mut batch);
        if batch.is_empty() {
            dispatch.batch = batch;
            return false;
        }
        let done = self.enqueue_all(&batch, &mut dispatch);
        for entry in &batch[..done] {
            let (queue, tags_codes) = (&entry.queue, [entry.tags_code]);
            let (topic, end) = (&*queue.topic, queue.bounds().end);
            arrived(Arrival { topic, queue: queue.id, end, tags_codes: &tags_codes });
        }
        batch.drain(..done);
        dispatch.batch = batch;
        self.dispatching.mirror(&dispatch);
        let is_stuck = dispatch.stuck.is_some();
        self.dispatching.is_stuck.store(is_stuck, Ordering::Release);
        !is_stuck
    }

    /// One at a time. Who comes second leaves its entries to the first, which looks once more when
    /// it is done; but it waits where the first, as it makes many files of queues, falls behind.
    fn begin_dispatch(&self) -> Option<MutexGuard<'_, Dispatch>> {
        self.dispatching.state.try_lock().or_else(|| {
            self.dispatching.is_left.store(true, Ordering::SeqCst);
            match self.log.entry_count() < BEHIND_MAX {
                true => self.dispatching.state.try_lock(),
                false => Some(self.dispatching.state.lock()),
            }
        })
    }

    /// Brings entries into their queues and the index, up to the first that does not get there;
    /// how many did.
    fn enqueue_all(&self, batch: &[Entry], dispatch: &mut Dispatch) -> usize {
        for (done, entry) in batch.iter().enumerate() {
            let queue = &entry.queue;
            if let Err(error) = self.enqueue(entry) {
                if dispatch.stuck.is_none() {
                    tracing::error!(topic = &*queue.topic, queue = %queue.id, %error,
                        "messages in the log wait for their queue, no more are taken until it \
                         takes them");
                }
                dispatch.stuck = Some(error.into());
                return done;
            }
            dispatch.newest = Some(entry.into());
        }
        if dispatch.stuck.take().is_some() {
            tracing::info!("the queues take messages again");
        }
        batch.len()
    }

    /// Brings one entry into its queue and the index; what is there already stays.
    fn enqueue(&self, entry: &Entry) -> Result<(), Error> {
        let queue = &entry.queue;
        let unit = Unit { at: entry.at, len: entry.len, tags_code: entry.tags_code };
        self.mark_dirty(queue);
        queue.append(entry.queue_offset, &unit)?;
        self.put_keys(entry.at, entry.stored_ms, &entry.keys)
    }

    /// Brings the keys of one record into the index.
    pub(crate) fn put_keys(
        &self,
        at: LogOffset,
        stored_ms: Millis,
        keys: &KeyHashes,
    ) -> Result<(), Error> {
        self.index.as_ref().map_or(Ok(()), |index| index.put(keys, at, stored_ms))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use apogee_types::{Message, SystemClock};

    use super::*;
    use crate::{RealDisk, Settings};

    fn open(dir: &tempfile::TempDir) -> Store {
        let kept = Settings { segment_len: 1 << 20, ..Settings::at(dir.path()) };
        Store::open(std::sync::Arc::new(RealDisk), std::sync::Arc::new(SystemClock), kept).unwrap()
    }

    fn append(store: &Store, count: usize) {
        let message = Message::new("t", QueueId::from_wire(0).unwrap(), b"x");
        (0..count).for_each(|_| assert!(store.append(&message).is_ok()));
    }

    fn end(store: &Store) -> u64 {
        store.queue_bounds("t", QueueId::from_wire(0).unwrap()).end.0
    }

    #[test]
    fn a_service_leaves_to_senders_what_they_appended_and_takes_what_they_could_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        append(&store, 1);
        store.dispatch_left(&mut |_| {});
        assert_eq!(end(&store), 0, "its sender has not come yet");
        let checkpoint = store.dispatching.state.lock();
        store.dispatch(&mut |_| {});
        drop(checkpoint);
        assert_eq!(end(&store), 0, "its sender does not wait for a checkpoint");
        store.dispatch_left(&mut |_| {});
        assert_eq!(end(&store), 1);
        append(&store, 1);
        store.dispatch_left(&mut |_| {});
        assert_eq!(end(&store), 1, "what was left was taken");
    }

    #[test]
    fn who_appends_waits_for_a_dispatch_that_falls_behind() {
        let dir = tempfile::tempdir().unwrap();
        let store = &open(&dir);
        append(store, 1);
        let (go_on, may_go_on) = mpsc::channel();
        std::thread::scope(|scope| {
            let slow = scope.spawn(move || {
                let mut is_first = true;
                store.dispatch(&mut |_| {
                    if std::mem::take(&mut is_first) {
                        may_go_on.recv().unwrap();
                    }
                });
            });
            while end(store) == 0 {
                std::thread::yield_now();
            }
            append(store, BEHIND_MAX - 1);
            store.dispatch(&mut |_| {});
            append(store, 1);
            let waiting = scope.spawn(|| store.dispatch(&mut |_| {}));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!waiting.is_finished() && !slow.is_finished());
            assert_eq!(end(store), 1);
            go_on.send(()).unwrap();
        });
        assert_eq!(end(store), 1 + BEHIND_MAX as u64);
    }
}
