//! How far topics and groups are, for operators; and moving a group. Spec `broker.md` 11, 3.4.

use apogee_store::Boundary;
use apogee_types::{Millis, QueueId, QueueOffset};

use crate::broker::Broker;
use crate::error::Error;

/// One queue of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicQueue {
    pub id: i32,
    pub min: u64,
    pub end: u64,
    pub oldest_ms: Option<Millis>,
    pub newest_ms: Option<Millis>,
}

/// One queue as a group reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupQueue {
    pub id: i32,
    pub end: u64,
    /// Where the group goes on; 0 if it has not begun.
    pub committed: i64,
    /// Where its last pull went on.
    pub pulled: i64,
    /// Store time of the last message that it consumed.
    pub consumed_ms: Option<Millis>,
    /// Store time of the next one, if there is one.
    pub waiting_ms: Option<Millis>,
}

impl Broker {
    /// All queues of a topic.
    pub fn topic_view(&self, topic: &str) -> Result<Vec<TopicQueue>, Error> {
        let config = self.topics.expect(topic)?;
        let count = config.read_queue_count.max(config.write_queue_count);
        let view = |id: QueueId| {
            let bounds = self.store.queue_bounds(topic, id);
            let stored = |offset: u64| self.store.stored_ms(topic, id, QueueOffset(offset));
            TopicQueue {
                id: id.to_wire(),
                min: bounds.start.0,
                end: bounds.end.0,
                oldest_ms: stored(bounds.start.0),
                newest_ms: bounds.end.0.checked_sub(1).and_then(stored),
            }
        };
        Ok((0..count).filter_map(QueueId::from_wire).map(view).collect())
    }

    /// How many messages of a topic were stored since then, as far as its queues still have them.
    pub fn stored_since(&self, topic: &str, since: Millis) -> Result<u64, Error> {
        let config = self.topics.expect(topic)?;
        let count = config.read_queue_count.max(config.write_queue_count);
        let stored = |id: QueueId| {
            let first = self.store.offset_by_time(topic, id, since, Boundary::Lower)?;
            let end = self.store.queue_bounds(topic, id).end;
            Ok::<_, Error>(end.0.saturating_sub(first.0))
        };
        (0..count).filter_map(QueueId::from_wire).map(stored).sum()
    }

    /// The readable queues of a topic as a group sees them; `None` for an unknown topic, or one
    /// that the live group does not subscribe.
    pub fn group_view(&self, group: &str, topic: &str) -> Option<Vec<GroupQueue>> {
        let config = self.topics.find(topic)?;
        let is_subscribed =
            self.clients.with_consumer_group(group, |live| live.subscriptions.contains_key(topic));
        if is_subscribed == Some(false) {
            return None;
        }
        let view = |id: QueueId| {
            let end = self.store.queue_bounds(topic, id).end.0;
            let committed = self.offsets.committed(group, topic, id).unwrap_or(0);
            let pulled = self.offsets.last_pulled(group, topic, id).unwrap_or(committed);
            let stored = |offset: i64| {
                let offset = u64::try_from(offset).ok()?;
                self.store.stored_ms(topic, id, QueueOffset(offset))
            };
            GroupQueue {
                id: id.to_wire(),
                end,
                committed,
                pulled: pulled.max(committed),
                consumed_ms: stored(committed - 1),
                waiting_ms: stored(committed),
            }
        };
        let ids = (0..config.read_queue_count).filter_map(QueueId::from_wire);
        Some(ids.map(view).collect())
    }

    /// Moves a group to an offset of one queue; its next pull is told so.
    pub fn reset_queue(
        &self,
        group: &str,
        topic: &str,
        queue_id: i32,
        offset: i64,
    ) -> Result<(i32, i64), Error> {
        self.check_reset(group, topic)?;
        let bounds = self.queue_bounds(topic, queue_id)?;
        let (min, max) = (bounds.start.0 as i64, bounds.end.0 as i64);
        if offset < min || max + 1 < offset {
            let refused =
                format!("Target offset {offset} not in consume queue range [{min}-{max}]");
            return Err(Error::InvalidState(refused));
        }
        self.put_reset(group, topic, queue_id, offset);
        Ok((queue_id, offset))
    }

    /// Moves a group to what was stored at a time, or to the end for a negative time; in one queue
    /// or, with a negative id, in all.
    pub fn reset_by_time(
        &self,
        group: &str,
        topic: &str,
        queue_id: i32,
        time: Millis,
    ) -> Result<Vec<(i32, i64)>, Error> {
        self.check_reset(group, topic)?;
        let count = self.topics.expect(topic)?.read_queue_count;
        let ids = if queue_id < 0 { 0..count } else { queue_id..queue_id.saturating_add(1) };
        let mut moved = Vec::new();
        for id in ids {
            let offset = if time < 0 {
                self.queue_bounds(topic, id)?.end
            } else {
                self.offset_by_time(topic, id, time, Boundary::Lower)?
            };
            self.put_reset(group, topic, id, offset.0 as i64);
            moved.push((id, offset.0 as i64));
        }
        Ok(moved)
    }

    fn check_reset(&self, group: &str, topic: &str) -> Result<(), Error> {
        self.topics.expect(topic)?;
        let no_group = || Error::NoSuchGroup { group: group.to_owned() };
        self.groups.find(group).map(|_| ()).ok_or_else(no_group)
    }

    fn put_reset(&self, group: &str, topic: &str, queue_id: i32, offset: i64) {
        if let Some(id) = QueueId::from_wire(queue_id) {
            self.offsets.reset(group, topic, id, offset, self.clock.now_ms());
        }
    }
}
