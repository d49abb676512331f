//! Messages that a consumer sends back: to be tried again later, or dead letters.
//! Rules: spec `broker.md` 1.8, `messages.md` 9.3.

use apogee_types::config::Perm;
use apogee_types::properties::{self, name};
use apogee_types::record::Record;
use apogee_types::{LogOffset, Message, Millis, QueueId, names, tags};

use crate::broker::Broker;
use crate::error::Error;

/// A consumer could not handle a message.
#[derive(Debug, Clone, Copy)]
pub struct SendBack<'a> {
    pub group: &'a str,
    pub at: LogOffset,
    /// 0: by the number of tries; negative: make it a dead letter at once.
    pub delay_level: i32,
    /// `None`: as the group says.
    pub max_reconsume_times: Option<i32>,
    pub unit_mode: bool,
}

/// With delay level 0 the first retry waits for level 3 (10 s), the next for level 4, and so on.
const FIRST_LEVEL: i32 = 3;

/// Where a message that came back was stored.
#[derive(Debug, Clone, Copy)]
pub struct SentBack {
    pub end: LogOffset,
    /// See [`Published::created`](crate::publish::Published::created).
    pub created: u64,
}

impl Broker {
    /// Stores the message again, for the group's retry topic or as a dead letter; `None` if the
    /// group wants nothing again.
    ///
    /// The consumer goes on as if it were done: with synchronous flush it may only be told once
    /// the device has it, although upstream does not wait.
    pub fn send_back(&self, back: &SendBack<'_>) -> Result<Option<SentBack>, Error> {
        if self.identity.is_slave() {
            return Err(Error::Slave);
        }
        let now = self.clock.now_ms();
        let config = self.groups.find_or_create(back.group, now)?;
        if !self.permission().has(Perm::WRITE) {
            return Err(Error::NotPermitted("the broker sending message is forbidden"));
        }
        if config.retry_queue_count <= 0 {
            return Ok(None);
        }
        let retry_topic = names::retry_topic(back.group);
        let retry =
            self.topics.find_or_create(&retry_topic, config.retry_queue_count, back.unit_mode, now);
        if !retry.perm.has(Perm::WRITE) {
            let what = "Writing";
            return Err(Error::TopicNotPermitted { topic: retry_topic, what, perm: retry.perm.0 });
        }
        let bytes = self.store.record_at(back.at)?;
        let missing = || Error::NoSuchMessage { at: back.at.0 };
        let bytes = bytes.ok_or_else(missing)?;
        let record = Record::parse(&bytes).map_err(|_| missing())?;
        let max = back.max_reconsume_times.unwrap_or(config.retry_max_times);
        if max <= record.reconsume_times || back.delay_level < 0 {
            return self.store_dead(back.group, &record, now).map(Some);
        }
        let level = match back.delay_level {
            0 => FIRST_LEVEL.saturating_add(record.reconsume_times),
            level => level,
        };
        self.store_again(&retry.topic_name, retry.write_queue_count, level, &record).map(Some)
    }

    fn store_dead(&self, group: &str, record: &Record<'_>, now: Millis) -> Result<SentBack, Error> {
        let topic = self.topics.find_or_create(&names::dlq_topic(group), 1, false, now);
        tracing::warn!(group, "a message was tried too often and is a dead letter now");
        self.store_again(&topic.topic_name, topic.write_queue_count, 0, record)
    }

    fn store_again(
        &self,
        topic: &str,
        queue_count: i32,
        level: i32,
        record: &Record<'_>,
    ) -> Result<SentBack, Error> {
        let mut encoded = record.properties.to_vec();
        if properties::find(&encoded, name::RETRY_TOPIC).is_none() {
            properties::push(&mut encoded, name::RETRY_TOPIC, record.topic);
        }
        if properties::find(&encoded, name::ORIGIN_MESSAGE_ID).is_none() {
            let id = self.message_id(record.at).to_string();
            properties::push(&mut encoded, name::ORIGIN_MESSAGE_ID, &id);
        }
        // Marks of an earlier wait; the message may wait again, for another level.
        for stale in [name::DELAY, name::REAL_TOPIC, name::REAL_QID] {
            properties::remove(&mut encoded, stale);
        }
        properties::set(&mut encoded, name::WAIT, "false");
        let queue_id = self.random_below(queue_count).and_then(QueueId::from_wire);
        let message = Message {
            topic,
            queue_id: queue_id.unwrap_or_default(),
            reconsume_times: record.reconsume_times.saturating_add(1),
            store_host: self.identity.store_host,
            tags_code: tags::code(properties::find(&encoded, name::TAGS)),
            ..record.to_message()
        };
        let appended = if 0 < level {
            self.append_delayed(message, level, &mut encoded)?
        } else {
            self.store.append(&Message { properties: &encoded, ..message })?
        };
        Ok(SentBack { end: appended.end, created: self.created.number(topic) })
    }
}
