//! Bounds of queues, and committed offsets of groups where the two meet.

use std::ops::Range;

use apogee_store::{Boundary, Unit};
use apogee_types::{Millis, QueueId, QueueOffset};

use crate::broker::Broker;
use crate::error::Error;
use crate::offsets::Committed;

/// What a group without a committed offset is told. Spec `broker.md` 3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupOffset {
    Committed(i64),
    /// The queue is young, its first message is still at hand: begin there.
    Young,
    None,
}

impl Broker {
    /// The offsets of the oldest message and of the next one.
    pub fn queue_bounds(&self, topic: &str, queue_id: i32) -> Result<Range<QueueOffset>, Error> {
        Ok(self.store.queue_bounds(topic, self.queue(topic, queue_id)?))
    }

    /// The first (or last) offset with that store time. Spec `store.md` 11.2.
    pub fn offset_by_time(
        &self,
        topic: &str,
        queue_id: i32,
        time: Millis,
        boundary: Boundary,
    ) -> Result<QueueOffset, Error> {
        Ok(self.store.offset_by_time(topic, self.queue(topic, queue_id)?, time, boundary)?)
    }

    /// Where a message of the queue lies; `None` for one that is not there or was lost.
    pub fn queue_unit(
        &self,
        topic: &str,
        queue_id: i32,
        offset: u64,
    ) -> Result<Option<Unit>, Error> {
        Ok(self.store.unit(topic, self.queue(topic, queue_id)?, QueueOffset(offset))?)
    }

    /// When the oldest message of the queue was stored.
    pub fn earliest_ms(&self, topic: &str, queue_id: i32) -> Result<Option<Millis>, Error> {
        Ok(self.store.earliest_ms(topic, self.queue(topic, queue_id)?)?)
    }

    /// Where a group goes on in a queue. `zero_if_none`: a young queue may be read from its start.
    pub fn group_offset(
        &self,
        group: &str,
        topic: &str,
        queue_id: i32,
        zero_if_none: bool,
    ) -> Result<GroupOffset, Error> {
        let queue = self.queue(topic, queue_id)?;
        if let Some(offset) = self.offsets.committed(group, topic, queue) {
            return Ok(GroupOffset::Committed(offset));
        }
        let bounds = self.store.queue_bounds(topic, queue);
        let is_young = bounds.start.0 == 0
            && 0 < bounds.end.0
            && self
                .store
                .unit(topic, queue, bounds.start)?
                .is_some_and(|it| self.store.is_warm(it.at));
        Ok(if zero_if_none && is_young { GroupOffset::Young } else { GroupOffset::None })
    }

    /// Commits where a group goes on. Spec `broker.md` 3.2.
    pub fn commit_offset(
        &self,
        group: &str,
        topic: &str,
        queue_id: i32,
        offset: i64,
    ) -> Result<Committed, Error> {
        if self.groups.find(group).is_none() {
            return Err(Error::NoSuchGroup { group: group.to_owned() });
        }
        self.topics.expect(topic)?;
        let queue = self.queue(topic, queue_id)?;
        Ok(self.offsets.commit(group, topic, queue, offset, self.clock.now_ms()))
    }

    fn queue(&self, topic: &str, queue_id: i32) -> Result<QueueId, Error> {
        QueueId::from_wire(queue_id).ok_or_else(|| Error::NoSuchQueue {
            topic: topic.to_owned(),
            queue_id,
            queue_count: self.topics.find(topic).map_or(0, |it| it.read_queue_count),
        })
    }
}
