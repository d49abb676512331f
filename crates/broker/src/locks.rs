//! Queues that a client of an ordered group holds for itself. Spec `remoting.md` 3.5.

use std::sync::Arc;

use apogee_types::{Millis, QueueId};
use parking_lot::Mutex;

use crate::Map;

/// How long a lock holds without being renewed; upstream's
/// `rocketmq.broker.rebalance.lockMaxLiveTime`.
const LIFE_MS: Millis = 60_000;

struct Lock {
    client: Arc<str>,
    renewed_at: Millis,
}

impl Lock {
    fn is_live(&self, now: Millis) -> bool {
        now - self.renewed_at <= LIFE_MS
    }
}

type Queues = Map<(Arc<str>, QueueId), Lock>;

/// Locks by group, then topic and queue. In memory only: clients lock again after a restart.
#[derive(Default)]
pub struct Locks {
    groups: Mutex<Map<Arc<str>, Queues>>,
}

impl Locks {
    /// Takes or renews the lock; `false` if another client holds it.
    pub fn lock(
        &self,
        group: &str,
        client: &str,
        topic: &str,
        queue: QueueId,
        now: Millis,
    ) -> bool {
        let mut groups = self.groups.lock();
        let queues = crate::entry(&mut groups, group);
        match queues.get_mut(&(Arc::from(topic), queue)) {
            Some(lock) if *lock.client != *client && lock.is_live(now) => return false,
            Some(lock) if *lock.client == *client => lock.renewed_at = now,
            _ => {
                let lock = Lock { client: client.into(), renewed_at: now };
                queues.insert((topic.into(), queue), lock);
            }
        }
        true
    }

    /// Gives the lock back; another client's stays.
    pub fn unlock(&self, group: &str, client: &str, topic: &str, queue: QueueId) {
        let mut groups = self.groups.lock();
        let Some(queues) = groups.get_mut(group) else { return };
        let key = (Arc::from(topic), queue);
        if queues.get(&key).is_some_and(|lock| *lock.client == *client) {
            queues.remove(&key);
        }
        if queues.is_empty() {
            groups.remove(group);
        }
    }

    /// The group consumes in order: one of its locks is live.
    #[must_use]
    pub fn is_ordered(&self, group: &str, now: Millis) -> bool {
        let groups = self.groups.lock();
        groups.get(group).is_some_and(|queues| queues.values().any(|lock| lock.is_live(now)))
    }

    /// Forgets locks that nobody renewed, so that vanished groups cost nothing.
    pub fn expire(&self, now: Millis) {
        self.groups.lock().retain(|_, queues| {
            queues.retain(|_, lock| lock.is_live(now));
            !queues.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q: QueueId = QueueId::from_wire(0).unwrap();

    #[test]
    fn a_queue_has_one_holder_until_the_lock_expires() {
        let locks = Locks::default();
        assert!(locks.lock("g", "a", "t", Q, 0));
        assert!(!locks.lock("g", "b", "t", Q, LIFE_MS));
        assert!(locks.lock("g", "a", "t", Q, LIFE_MS));
        locks.unlock("g", "b", "t", Q);
        assert!(!locks.lock("g", "b", "t", Q, LIFE_MS + 1));
        assert!(locks.is_ordered("g", 2 * LIFE_MS));
        assert!(locks.lock("g", "b", "t", Q, 2 * LIFE_MS + 1));
        locks.expire(4 * LIFE_MS);
        assert!(!locks.is_ordered("g", 4 * LIFE_MS));
    }
}
