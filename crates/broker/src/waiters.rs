//! Requests parked until something arrives in a queue: long polling. Spec `broker.md` 2.4.
//!
//! A waiter is answered once: by an arrival, by its deadline, or never if its connection closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering, fence};

use apogee_types::limits::PARKED_BYTES_MAX;
use apogee_types::{Millis, QueueId, QueueOffset};
use parking_lot::Mutex;

use crate::Map;

/// What a parked request costs beside its answer's closure: the entry and its share of the maps.
const WAITER_LEN: usize = 512;
/// More cannot be parked: about a million.
const COUNT_MAX: usize = PARKED_BYTES_MAX / WAITER_LEN;

/// How often those are woken whose queue got only what they do not want: so they learn where to go
/// on. Upstream's, too.
const RECHECK_MS: Millis = 5_000;

/// Why a parked request is run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    Arrived,
    Deadline,
}

/// A parked request.
pub struct Waiter {
    /// The first offset that was not there.
    pub from: QueueOffset,
    pub deadline_ms: Millis,
    /// Whether a message with this tag code is wanted.
    pub wants: Box<dyn Fn(i64) -> bool + Send>,
    /// The connection it came from, so that closing it frees what it parked.
    pub connection: u64,
    /// Runs the request again, without parking it a second time.
    pub answer: Box<dyn FnOnce(Wake) + Send>,
}

/// A waiter in its queue.
struct Waiting {
    waiter: Waiter,
    /// Something arrived for it that it does not want.
    is_passed_over: bool,
}

type Queues = Map<QueueId, Vec<Waiting>>;

/// Parked requests by queue.
#[derive(Default)]
pub struct Waiters {
    topics: Mutex<Map<Arc<str>, Queues>>,
    /// How many there are; looked at without the lock, since mostly there are none to wake.
    count: AtomicUsize,
    /// When those that were passed over are woken next.
    recheck_at: AtomicI64,
}

impl Waiters {
    /// Parks a request; gives it back if there are too many.
    ///
    /// A message may arrive just before: look at the queue's end afterwards and call
    /// [`recheck`](Self::recheck).
    pub fn park(&self, topic: &str, queue: QueueId, waiter: Waiter) -> Result<(), Waiter> {
        if COUNT_MAX <= self.count.fetch_add(1, Ordering::SeqCst) {
            self.count.fetch_sub(1, Ordering::SeqCst);
            return Err(waiter);
        }
        let mut topics = self.topics.lock();
        let waiting = Waiting { waiter, is_passed_over: false };
        crate::entry(&mut topics, topic).entry(queue).or_default().push(waiting);
        Ok(())
    }

    /// Nobody waits for anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// The queue has reached `end`; `tags_codes` are those of the messages that came.
    pub fn arrived(&self, topic: &str, queue: QueueId, end: QueueOffset, tags_codes: &[i64]) {
        // The end was published before; a parker counts itself before it looks at the end. With
        // this fence one of the two sees the other.
        fence(Ordering::SeqCst);
        if self.is_empty() {
            return;
        }
        let woken = self.take(topic, queue, |Waiting { waiter, is_passed_over }| {
            let is_new = waiter.from < end;
            *is_passed_over |= is_new;
            is_new && tags_codes.iter().any(|code| (waiter.wants)(*code))
        });
        woken.into_iter().for_each(|waiter| (waiter.answer)(Wake::Arrived));
    }

    /// Wakes those for whom the queue holds something new, wanted or not.
    pub fn recheck(&self, topic: &str, queue: QueueId, end: QueueOffset) {
        let woken = self.take(topic, queue, |waiting| waiting.waiter.from < end);
        woken.into_iter().for_each(|waiter| (waiter.answer)(Wake::Arrived));
    }

    /// Answers the requests whose time is up, and now and then those that were passed over. To be
    /// called a few times a second, by one.
    pub fn expire(&self, now: Millis) {
        if self.is_empty() {
            return;
        }
        let recheck_at = self.recheck_at.load(Ordering::Relaxed);
        // A clock that was set back must not put it off.
        let rechecks = !(now..=now + RECHECK_MS).contains(&recheck_at);
        if rechecks {
            self.recheck_at.store(now + RECHECK_MS, Ordering::Relaxed);
        }
        let is_due = |it: &Waiting| it.waiter.deadline_ms <= now || (rechecks && it.is_passed_over);
        self.drain(is_due).into_iter().for_each(|waiter| (waiter.answer)(Wake::Deadline));
    }

    /// Drops what a closed connection had parked.
    pub fn forget(&self, connection: u64) {
        if !self.is_empty() {
            drop(self.drain(|waiting| waiting.waiter.connection == connection));
        }
    }

    /// Wakes every waiter of a topic, for example because the topic is gone.
    pub fn wake_topic(&self, topic: &str) {
        let queues = self.topics.lock().remove(topic);
        let woken: Vec<Waiting> = queues.into_iter().flatten().flat_map(|(_, all)| all).collect();
        self.count.fetch_sub(woken.len(), Ordering::SeqCst);
        woken.into_iter().for_each(|it| (it.waiter.answer)(Wake::Deadline));
    }

    /// Takes the waiters of one queue that `chosen` picks, in the order in which they came.
    fn take(
        &self,
        topic: &str,
        queue: QueueId,
        chosen: impl FnMut(&mut Waiting) -> bool,
    ) -> Vec<Waiter> {
        let mut topics = self.topics.lock();
        let waiting = topics.get_mut(topic).and_then(|queues| queues.get_mut(&queue));
        let Some(waiting) = waiting else { return Vec::new() };
        let taken: Vec<Waiter> = waiting.extract_if(.., chosen).map(|it| it.waiter).collect();
        self.count.fetch_sub(taken.len(), Ordering::SeqCst);
        taken
    }

    /// Takes the waiters of all queues that `chosen` picks, by topic, queue and arrival: an order
    /// that does not hang on the hasher's chance, so that a simulation repeats itself.
    fn drain(&self, chosen: impl Fn(&Waiting) -> bool) -> Vec<Waiter> {
        let mut topics = self.topics.lock();
        let mut taken = Vec::new();
        topics.retain(|topic, queues| {
            queues.retain(|queue, waiting| {
                let picked = waiting.extract_if(.., |it| chosen(it));
                taken.extend(picked.map(|it| (Arc::clone(topic), *queue, it.waiter)));
                !waiting.is_empty()
            });
            !queues.is_empty()
        });
        self.count.fetch_sub(taken.len(), Ordering::SeqCst);
        taken.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
        taken.into_iter().map(|(_, _, waiter)| waiter).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    const Q: QueueId = QueueId::from_wire(0).unwrap();

    fn park(waiters: &Waiters, from: u64, tag: i64, deadline_ms: Millis) -> Receiver<Wake> {
        let (sender, receiver) = channel();
        let waiter = Waiter {
            from: QueueOffset(from),
            deadline_ms,
            wants: Box::new(move |code| code == tag),
            connection: 1,
            answer: Box::new(move |wake| sender.send(wake).unwrap()),
        };
        assert!(waiters.park("t", Q, waiter).is_ok());
        receiver
    }

    #[test]
    fn an_arrival_wakes_who_waits_for_that_place_and_tag() {
        let waiters = Waiters::default();
        let here = park(&waiters, 4, 7, 100);
        let later = park(&waiters, 5, 7, 100);
        let other_tag = park(&waiters, 4, 8, 100);
        waiters.arrived("t", Q, QueueOffset(5), &[1, 7]);
        assert_eq!(here.try_recv(), Ok(Wake::Arrived));
        assert!(later.try_recv().is_err() && other_tag.try_recv().is_err());
        waiters.expire(99);
        assert!(later.try_recv().is_err());
        waiters.expire(100);
        assert_eq!(
            (later.try_recv(), other_tag.try_recv()),
            (Ok(Wake::Deadline), Ok(Wake::Deadline))
        );
        assert!(waiters.is_empty());
    }

    #[test]
    fn who_waits_for_what_does_not_come_is_woken_every_few_seconds_if_anything_came() {
        let waiters = Waiters::default();
        waiters.expire(1_000);
        let (passed, other) = (park(&waiters, 4, 7, 60_000), park(&waiters, 6, 7, 60_000));
        waiters.expire(1_000);
        waiters.arrived("t", Q, QueueOffset(5), &[1]);
        waiters.expire(5_999);
        assert!(passed.try_recv().is_err());
        waiters.expire(6_001);
        assert!(passed.try_recv().is_ok() && other.try_recv().is_err());
        waiters.arrived("t", Q, QueueOffset(7), &[1]);
        // The clock was set back.
        waiters.expire(10);
        assert!(other.try_recv().is_ok() && waiters.is_empty());
    }

    #[test]
    fn a_message_that_came_while_parking_is_seen_by_the_recheck() {
        let waiters = Waiters::default();
        let parked = park(&waiters, 4, 7, 100);
        waiters.recheck("t", Q, QueueOffset(5));
        assert_eq!(parked.try_recv(), Ok(Wake::Arrived));
    }

    #[test]
    fn a_closed_connection_leaves_nothing_behind() {
        let waiters = Waiters::default();
        let parked = park(&waiters, 4, 7, 100);
        waiters.forget(1);
        assert!(waiters.is_empty() && parked.try_recv().is_err());
    }
}
