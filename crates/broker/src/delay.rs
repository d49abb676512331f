//! Messages that wait for one of the fixed delay levels. Spec `broker.md` 1.9, `messages.md` 9.1.
//!
//! A delayed message is stored in `SCHEDULE_TOPIC_XXXX`, queue = level - 1, with its delivery time
//! as tag code. The delivery step walks each level's queue and stores what is due once more, in
//! the topic and queue that the message was sent to.

use std::collections::BTreeMap;

use apogee_store::Appended;
use apogee_types::config::DataVersion;
use apogee_types::properties::{self, name};
use apogee_types::record::Record;
use apogee_types::{LogOffset, Message, Millis, QueueId, QueueOffset, names, tags};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::broker::Broker;
use crate::error::Error;

/// Messages of one level that are delivered before the next level has its turn.
const STEP_COUNT_MAX: usize = 256;
/// How long until a level that failed is looked at again; upstream's `DELAY_FOR_A_WHILE`.
const PAUSE_MS: Millis = 100;

/// The delays, by level from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    delays_ms: Vec<Millis>,
}

/// How far each level was delivered, as `delayOffset.json` holds it: level -> next offset.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DelayTable {
    pub offset_table: BTreeMap<i32, i64>,
    pub data_version: DataVersion,
}

/// The progress of delivery. Only the delivery step moves it.
pub struct Delays {
    pub levels: Levels,
    /// Next offset of each level's queue.
    progress: Mutex<Vec<u64>>,
    version: Mutex<DataVersion>,
}

impl Levels {
    /// `delays_ms` by level, from 1; at least one.
    #[must_use]
    pub fn new(delays_ms: Vec<Millis>) -> Self {
        assert!(!delays_ms.is_empty(), "a setting without delays is refused");
        Self { delays_ms }
    }

    /// By level, from 1.
    #[must_use]
    pub fn delays_ms(&self) -> &[Millis] {
        &self.delays_ms
    }

    /// The highest level.
    #[must_use]
    pub fn max(&self) -> i32 {
        self.delays_ms.len() as i32
    }

    /// How long nothing that is stored from now on can be due: the shortest delay, but no less than
    /// what is late by custom.
    fn pause_ms(&self) -> Millis {
        self.delays_ms.iter().min().map_or(PAUSE_MS, |shortest| PAUSE_MS.max(*shortest))
    }

    /// The delay of a level; above the highest that of the highest.
    #[must_use]
    pub fn delay_ms(&self, level: i32) -> Millis {
        let index = level.clamp(1, self.max()) as usize - 1;
        self.delays_ms[index]
    }
}

impl Delays {
    #[must_use]
    pub fn new(levels: Levels, file: &DelayTable) -> Self {
        let offset = |level| file.offset_table.get(&level).copied().unwrap_or(0).max(0) as u64;
        let progress = (1..=levels.max()).map(offset).collect();
        Self { levels, progress: Mutex::new(progress), version: Mutex::new(file.data_version) }
    }

    /// As the file holds it.
    #[must_use]
    pub fn snapshot(&self) -> DelayTable {
        let progress = self.progress.lock();
        let offset_table = (1..).zip(progress.iter().map(|offset| *offset as i64)).collect();
        DelayTable { offset_table, data_version: *self.version.lock() }
    }
}

impl Broker {
    /// Stores a message where it waits for its level's delay.
    pub(crate) fn append_delayed(
        &self,
        message: Message<'_>,
        level: i32,
        encoded: &mut Vec<u8>,
    ) -> Result<Appended, Error> {
        let level = level.min(self.delays.levels.max());
        properties::set(encoded, name::DELAY, &level.to_string());
        properties::set(encoded, name::REAL_TOPIC, message.topic);
        properties::set(encoded, name::REAL_QID, &message.queue_id.to_string());
        let queue_id = QueueId::from_wire(level - 1).expect("levels count from 1");
        // The delivery time counts from the store time; up to a tick earlier is as good.
        let tags_code = self.clock.now_ms() + self.delays.levels.delay_ms(level);
        let topic = names::SCHEDULE_TOPIC;
        let delayed = Message { topic, queue_id, properties: encoded, tags_code, ..message };
        Ok(self.store.append(&delayed)?)
    }

    /// Delivers what is due, a bounded number of each level; says when to come again. What waits on
    /// a slave is the master's to deliver.
    pub fn delay_step(&self) -> Millis {
        let mut pause_ms = self.delays.levels.pause_ms();
        if self.identity.is_slave() {
            return pause_ms;
        }
        let delivered = || self.delays.progress.lock().iter().sum::<u64>();
        let before = delivered();
        for level in 1..=self.delays.levels.max() {
            let level_ms = self.deliver_level(level).unwrap_or_else(|error| {
                tracing::error!(level, %error, "delayed messages of this level still wait");
                Some(PAUSE_MS)
            });
            pause_ms = pause_ms.min(level_ms.unwrap_or(pause_ms));
        }
        if delivered() != before {
            self.dispatch();
        }
        pause_ms
    }

    /// Delivers from one level's queue; in how long the next of it is due, if there is one.
    fn deliver_level(&self, level: i32) -> Result<Option<Millis>, Error> {
        let queue = QueueId::from_wire(level - 1).expect("levels count from 1");
        let index = queue.index();
        let mut next = QueueOffset(self.delays.progress.lock()[index]);
        let bounds = self.store.queue_bounds(names::SCHEDULE_TOPIC, queue);
        let end = bounds.end;
        next = next.clamp(bounds.start, end);
        let latest_due = self.clock.now_ms();
        let mut next_due_in = None;
        let mut left = STEP_COUNT_MAX;
        while next < end {
            let Some(unit) = self.store.unit(names::SCHEDULE_TOPIC, queue, next)? else {
                // The message is lost; those that follow are not.
                next = next.plus(1);
                continue;
            };
            // A time beyond the level's delay comes from a clock that was set back: due.
            let is_due = unit.tags_code <= latest_due
                || latest_due + self.delays.levels.delay_ms(level) < unit.tags_code;
            if !is_due {
                next_due_in = Some(unit.tags_code - latest_due);
                break;
            }
            if left == 0 {
                next_due_in = Some(0);
                break;
            }
            self.deliver(unit.at)?;
            next = next.plus(1);
            left -= 1;
            // At once: it must not be delivered again because the one after it fails.
            self.delays.progress.lock()[index] = next.0;
        }
        self.delays.progress.lock()[index] = next.0;
        Ok(next_due_in)
    }

    /// Stores one waiting message in the queue that it was sent to.
    fn deliver(&self, at: LogOffset) -> Result<(), Error> {
        let Some(bytes) = self.store.record_at(at)? else { return Ok(()) };
        let Ok(record) = Record::parse(&bytes) else {
            tracing::error!(at = at.0, "a delayed message cannot be read and is passed over");
            return Ok(());
        };
        let encoded = record.properties;
        let topic = properties::find(encoded, name::REAL_TOPIC);
        let queue_id = properties::find(encoded, name::REAL_QID).and_then(|it| it.parse().ok());
        let (Some(topic), Some(queue_id)) = (topic, queue_id.and_then(QueueId::from_wire)) else {
            tracing::error!(at = at.0, "a delayed message does not say where it belongs");
            return Ok(());
        };
        if topic == names::HALF_TOPIC {
            return Ok(());
        }
        let tags_code = tags::code(properties::find(encoded, name::TAGS));
        match self.store.append(&Message { topic, queue_id, tags_code, ..record.to_message() }) {
            // No try will take it, and those that follow wait.
            Err(error) if error.is_illegal_message() => {
                tracing::error!(at = at.0, %error, "a delayed message is passed over");
                Ok(())
            }
            appended => Ok(appended.map(|_| ())?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apogee_types::settings::DelayLevels;

    #[test]
    fn the_default_levels_are_read() {
        let levels = Levels::new(DelayLevels::default().delays_ms());
        assert_eq!(levels.max(), 18);
        assert_eq!((levels.delay_ms(3), levels.delay_ms(18)), (10_000, 7_200_000));
        assert_eq!(levels.delay_ms(99), 7_200_000);
        assert_eq!(levels.pause_ms(), 1000);
        assert_eq!(Levels::new(vec![5000, 0]).pause_ms(), 100);
    }
}
