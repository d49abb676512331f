//! From a send to the log: the checks, what the broker adds, and where delayed and retried
//! messages really go. Rules: spec `broker.md` 1.

use std::net::SocketAddr;
use std::sync::Arc;

use apogee_store::{Appended, Batch};
use apogee_types::config::{Perm, TopicConfig};
use apogee_types::id::OffsetMessageId;
use apogee_types::properties::{self, KeyPlaces, Place, name};
use apogee_types::{LogOffset, Message, Millis, QueueId, QueueOffset, SysFlag, names, scan, tags};

use crate::broker::Broker;
use crate::error::Error;
use crate::topics::Template;

/// A message as a producer sends it.
#[derive(Debug, Clone, Copy)]
pub struct Send<'a> {
    pub topic: &'a str,
    /// Negative: any.
    pub queue_id: i32,
    pub default_topic: &'a str,
    pub default_queue_count: i32,
    pub sys_flag: SysFlag,
    pub flag: i32,
    pub born_ms: Millis,
    pub born_host: SocketAddr,
    pub reconsume_times: i32,
    /// How often a message may be sent to its retry topic; `None`: as the group says.
    pub max_reconsume_times: Option<i32>,
    pub unit_mode: bool,
    pub body: &'a [u8],
    /// The time, when it came.
    pub now: Millis,
}

/// What sends that came together share. To be cleared after them, so that none misses a change.
#[derive(Default)]
pub struct Recent {
    /// The time, once it was asked for.
    pub now: Option<Millis>,
    /// One that passed the checks of a send.
    topic: Option<Arc<TopicConfig>>,
    queues: apogee_store::Recent,
}

impl Recent {
    pub fn clear(&mut self) {
        (self.now, self.topic) = (None, None);
        self.queues.clear();
    }
}

/// One message of a batch, borrowed from the request.
#[derive(Debug, Clone, Copy)]
pub struct BatchEntry<'a> {
    pub flag: i32,
    pub body: &'a [u8],
    pub properties: &'a [u8],
}

/// Where a message was stored.
#[derive(Debug, Clone)]
pub struct Published {
    /// The queue that was asked for; a delayed message waits in another.
    pub queue_id: QueueId,
    pub queue_offset: QueueOffset,
    /// Of a batch each message's place.
    pub places: Places,
    /// Everything below must be on the device before this is acknowledged, if the broker flushes
    /// synchronously and the message asks for it.
    pub end: LogOffset,
    /// `WAIT`: the producer wants the promise of the flush mode.
    pub wait: bool,
    /// The creation that must be written before this is acknowledged, see
    /// [`Created::number`](crate::created::Created::number).
    pub created: u64,
    /// Where the keys stand in the properties that were stored; `None`: it is not known.
    pub key_places: Option<KeyPlaces>,
}

/// Log offsets of what was stored; one needs no allocation.
#[derive(Debug, Clone)]
pub enum Places {
    One(LogOffset),
    Many(Vec<LogOffset>),
}

const NOT_IN_BATCH: &str = "a batch may hold neither delayed nor half messages";

/// What the broker looks at in a message's properties, found in one pass.
#[derive(Debug, Default)]
struct Known {
    places: KeyPlaces,
    tags_code: i64,
    /// Names that the broker sets or removes are there already.
    has_own: bool,
    delay_level: i32,
    wait: bool,
    has_timer: bool,
    is_half: bool,
    is_inner_batch: bool,
}

impl Known {
    fn scan(encoded: &[u8]) -> Self {
        let mut known = Self { wait: true, ..Self::default() };
        for (key, value) in properties::raw_pairs(encoded) {
            match key {
                b"WAIT" => known.wait = !value.eq_ignore_ascii_case(b"false"),
                b"DELAY" => {
                    let level = std::str::from_utf8(value).ok().and_then(|it| it.parse().ok());
                    known.delay_level = level.unwrap_or(0);
                }
                b"TRAN_MSG" => known.is_half = value.eq_ignore_ascii_case(b"true"),
                b"INNER_NUM" => known.is_inner_batch = true,
                b"TIMER_DELAY_SEC" | b"TIMER_DELAY_MS" | b"TIMER_DELIVER_MS" => {
                    known.has_timer = true;
                }
                b"MSG_REGION" | b"TRACE_ON" | b"CLUSTER" | b"POP_CK" => known.has_own = true,
                _ => known.places.note(encoded, key, value),
            }
        }
        if let Some(tags) = known.places.tags.of(encoded) {
            known.tags_code = tags::java_hash_bytes(0, tags).map_or(0, i64::from);
        }
        known
    }

    /// Where the keys stand in what [`Broker::stamp`] made of the properties, if it is known.
    fn stamped_places(&self) -> Option<KeyPlaces> {
        let is_in_place = !self.has_own && self.places.unique_key != Place::default();
        is_in_place.then_some(self.places)
    }
}

impl Broker {
    /// Stores one message. `properties` are the producer's; they are rewritten to what is stored.
    pub fn publish(
        &self,
        send: &Send<'_>,
        encoded: &mut Vec<u8>,
        recent: &mut Recent,
    ) -> Result<Published, Error> {
        let is_it =
            |it: &Arc<TopicConfig>| scan::is_same(it.topic_name.as_bytes(), send.topic.as_bytes());
        let topic = match recent.topic.take().filter(is_it) {
            Some(topic) => topic,
            None => self.check_send(send)?,
        };
        let published = self.publish_to(&topic, send, encoded, &mut recent.queues);
        recent.topic = Some(topic);
        published
    }

    fn publish_to(
        &self,
        topic: &TopicConfig,
        send: &Send<'_>,
        encoded: &mut Vec<u8>,
        queues: &mut apogee_store::Recent,
    ) -> Result<Published, Error> {
        self.check_len(send)?;
        let known = Known::scan(encoded);
        self.refuse_unsupported(&known, topic)?;
        self.stamp(encoded, &known, send.born_host);
        if topic.topic_name.starts_with(names::RETRY_PREFIX) {
            return self.publish_retry(send, topic, &known, encoded, queues);
        }
        self.store_one(send, topic, known.delay_level, &known, encoded, queues)
    }

    /// Stores the messages of a batch, all or none, with consecutive offsets. `envelope` are the
    /// properties of the request; they are not stored.
    pub fn publish_batch(
        &self,
        send: &Send<'_>,
        envelope: &[u8],
        entries: &[BatchEntry<'_>],
    ) -> Result<Published, Error> {
        let topic = self.check_send(send)?;
        if topic.topic_name.starts_with(names::RETRY_PREFIX) {
            let refused = format!("batch request does not support retry group {}", send.topic);
            return Err(Error::IllegalMessage(refused));
        }
        let queue_id = self.choose_queue(send, &topic)?;
        self.check_len(send)?;
        let is_transactional = send.sys_flag.transaction() != SysFlag::default();
        if is_transactional || 0 < Known::scan(envelope).delay_level {
            return Err(Error::IllegalMessage(NOT_IN_BATCH.to_owned()));
        }
        let mut stamped = Vec::new();
        let mut wait = true;
        for entry in entries {
            let known = Known::scan(entry.properties);
            if known.delay_level != 0 || known.has_timer || known.is_half {
                return Err(Error::IllegalMessage(NOT_IN_BATCH.to_owned()));
            }
            let mut encoded = entry.properties.to_vec();
            self.stamp(&mut encoded, &known, send.born_host);
            wait &= known.wait;
            stamped.push((encoded, known));
        }
        let messages: Vec<Message<'_>> = entries
            .iter()
            .zip(&stamped)
            .map(|(entry, (properties, known))| Message {
                flag: entry.flag,
                body: entry.body,
                properties,
                key_places: known.stamped_places(),
                tags_code: known.tags_code,
                ..self.message(send, &topic, queue_id)
            })
            .collect();
        let Batch { first, places } = self.store.append_batch(&messages)?;
        if !wait {
            self.store.write_out()?;
        }
        Ok(Published {
            queue_id,
            queue_offset: first.queue_offset,
            places: Places::Many(places),
            end: first.end,
            wait,
            created: self.created.number(&topic.topic_name),
            key_places: None,
        })
    }

    /// The checks that every send passes, in upstream's order. Spec `broker.md` 1.2.
    fn check_send(&self, send: &Send<'_>) -> Result<Arc<TopicConfig>, Error> {
        self.check_takes_sends()?;
        let found = self.topics.find(send.topic);
        if found.as_ref().is_some_and(|it| it.order) && !self.permission().has(Perm::WRITE) {
            return Err(Error::NotPermitted("the broker sending message is forbidden"));
        }
        if let Some(topic) = found.filter(|_| names::may_send(send.topic)) {
            // With a queue of the other kind beside, Apache would not start any more.
            if topic.attributes.get("queue.type").is_some_and(|kind| kind == "BatchCQ") {
                return Err(Error::NotSupported("a topic with batch queues (BatchCQ)"));
            }
            return Ok(topic);
        }
        names::check_topic(send.topic)?;
        if !names::may_send(send.topic) {
            return Err(Error::SendForbidden { topic: send.topic.to_owned() });
        }
        let template = Template {
            topic: send.topic,
            default_topic: send.default_topic,
            queue_count: send.default_queue_count,
            unit_mode: send.unit_mode,
        };
        self.topics.find_or_inherit(&template, send.now)
    }

    /// Of a batch all bodies count together. Only who sends is held to it: what was taken before
    /// the limit was lowered is still delivered after a delay, or again.
    fn check_len(&self, send: &Send<'_>) -> Result<(), Error> {
        let (len, max) = (send.body.len(), self.settings.max_message_size);
        if (max as usize) < len {
            return Err(Error::BodyTooLong { len, max });
        }
        Ok(())
    }

    fn choose_queue(&self, send: &Send<'_>, topic: &TopicConfig) -> Result<QueueId, Error> {
        let count = topic.write_queue_count.max(topic.read_queue_count);
        let chosen = match send.queue_id {
            any if any < 0 => self.random_below(topic.write_queue_count),
            asked if asked < count => Some(asked),
            _ => None,
        };
        chosen.and_then(QueueId::from_wire).ok_or_else(|| Error::NoSuchQueue {
            topic: send.topic.to_owned(),
            queue_id: send.queue_id,
            queue_count: count,
        })
    }

    fn refuse_unsupported(&self, known: &Known, topic: &TopicConfig) -> Result<(), Error> {
        if known.is_half {
            return Err(Error::NotSupported("a transactional message"));
        }
        if known.has_timer && known.delay_level <= 0 {
            return Err(Error::NotSupported("delivery at any time (TIMER_ properties)"));
        }
        if known.is_inner_batch {
            let refused = "INNER_NUM is for batch consume queues, which this topic does not have";
            return Err(Error::IllegalMessage(refused.to_owned()));
        }
        let is_compacted =
            topic.attributes.get("cleanup.policy").is_some_and(|policy| policy == "COMPACTION");
        if is_compacted && known.places.keys == Place::default() {
            return Err(Error::IllegalMessage("Required message key is missing".to_owned()));
        }
        Ok(())
    }

    /// Adds what the broker says of every message. Spec `broker.md` 1.5.
    fn stamp(&self, encoded: &mut Vec<u8>, known: &Known, born_host: SocketAddr) {
        if known.has_own {
            for own in [name::MSG_REGION, name::TRACE_ON, name::CLUSTER, name::POP_CK] {
                properties::remove(encoded, own);
            }
        }
        if encoded.last().is_some_and(|&last| last != properties::PAIR_END) {
            encoded.push(properties::PAIR_END);
        }
        encoded.extend_from_slice(&self.stamp);
        if known.places.unique_key == Place::default() {
            properties::push(encoded, name::UNIQ_KEY, &self.unique_keys.next(born_host.ip()));
        }
    }

    /// A send to a group's retry topic: too many tries, or a group that consumes in order, make it
    /// a dead letter. Spec `broker.md` 1.4.
    fn publish_retry(
        &self,
        send: &Send<'_>,
        topic: &TopicConfig,
        known: &Known,
        encoded: &mut Vec<u8>,
        queues: &mut apogee_store::Recent,
    ) -> Result<Published, Error> {
        let now = send.now;
        let group = names::group_of_retry_topic(&topic.topic_name).unwrap_or_default();
        let config = self.groups.find_or_create(group, now)?;
        let max = send.max_reconsume_times.unwrap_or(config.retry_max_times);
        if send.reconsume_times <= max && !self.locks.is_ordered(group, now) {
            return self.store_one(send, topic, known.delay_level, known, encoded, queues);
        }
        let dead = self.topics.find_or_create(&names::dlq_topic(group), 1, false, now);
        properties::set(encoded, name::DELAY, "-1");
        let known = &Known::scan(encoded);
        let to_dead = Send { queue_id: 0, topic: &dead.topic_name, ..*send };
        let published = self.store_one(&to_dead, &dead, 0, known, encoded, queues)?;
        let queue_id = self.choose_queue(send, topic)?;
        Ok(Published { queue_id, key_places: None, ..published })
    }

    fn store_one(
        &self,
        send: &Send<'_>,
        topic: &TopicConfig,
        delay_level: i32,
        known: &Known,
        encoded: &mut Vec<u8>,
        queues: &mut apogee_store::Recent,
    ) -> Result<Published, Error> {
        let queue_id = self.choose_queue(send, topic)?;
        if send.body.is_empty() {
            return Err(Error::IllegalMessage("it has no body".to_owned()));
        }
        let message = self.message(send, topic, queue_id);
        let message = Message { tags_code: known.tags_code, ..message };
        let key_places = known.stamped_places().filter(|_| delay_level <= 0);
        let Appended { at, end, queue_offset, .. } = if 0 < delay_level {
            self.append_delayed(message, delay_level, encoded)?
        } else {
            let message = Message { properties: encoded, key_places, ..message };
            self.store.append_recent(&message, send.now, queues)?
        };
        if !known.wait {
            self.store.write_out()?;
        }
        let (places, wait) = (Places::One(at), known.wait);
        let created = self.created.number(&topic.topic_name);
        Ok(Published { queue_id, queue_offset, places, end, wait, created, key_places })
    }

    /// The message of a send, without its properties.
    fn message<'a>(
        &self,
        send: &Send<'a>,
        topic: &'a TopicConfig,
        queue_id: QueueId,
    ) -> Message<'a> {
        let is_multi_tag = topic.topic_filter_type == "MULTI_TAG";
        // The address bits describe our own view of the two addresses; the store sets them.
        let sys_flag = send.sys_flag.without(SysFlag::BORN_HOST_V6.with(SysFlag::STORE_HOST_V6));
        Message {
            topic: &topic.topic_name,
            queue_id,
            flag: send.flag,
            sys_flag: if is_multi_tag { sys_flag.with(SysFlag::MULTI_TAGS) } else { sys_flag },
            born_ms: send.born_ms,
            born_host: send.born_host,
            store_host: self.identity.store_host,
            reconsume_times: send.reconsume_times,
            prepared_at: LogOffset(0),
            body: send.body,
            properties: &[],
            key_places: None,
            tags_code: 0,
        }
    }

    /// The id under which a stored message can be viewed.
    #[must_use]
    pub fn message_id(&self, at: LogOffset) -> OffsetMessageId {
        OffsetMessageId { store_host: self.identity.store_host, at }
    }
}
