//! Reads queues at the application's own pace, and moves a group's offsets.

use std::sync::Arc;
use std::time::Duration;

use apogee_types::record::RecordError;
use apogee_types::route::{BrokerData, MessageQueue};
use apogee_types::subscription::{SQL92, SubscriptionData};
use apogee_types::{Millis, names};
use apogee_wire::remoting::requests::{
    GetMaxOffset, GetMinOffset, PullMessage, QueryConsumerOffset, SearchOffset,
    UpdateConsumerOffset,
};
use apogee_wire::remoting::{ResponseCode, Text};
use bytes::Bytes;

use crate::message::{End, INFLATED_LEN_MAX, ReceivedMessage};
use crate::{Client, Error, Options};

/// Bits of a pull's `sysFlag`. Spec `messages.md` 3.
const COMMIT: i32 = 0x1;
const SUSPEND: i32 = 0x2;
const SUBSCRIPTION: i32 = 0x4;

/// What the broker takes beyond the time it may hold a pull; upstream: 30 s in all.
const PULL_MARGIN: Duration = Duration::from_secs(15);

/// What a pull found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullStatus {
    Found,
    /// The queue ends here.
    Empty,
    /// There were messages, but none that is wanted.
    NoMatch,
    /// The offset lies outside the queue; `next_offset` does not.
    OffsetMoved,
}

/// What a pull brought.
#[derive(Debug, Clone)]
pub struct Pulled {
    pub status: PullStatus,
    pub messages: Vec<ReceivedMessage>,
    /// Where to pull next.
    pub next_offset: i64,
    pub min_offset: i64,
    pub max_offset: i64,
    /// From which of the brokers of this name: 0 the master.
    pub suggested_broker_id: i64,
}

/// One pull.
pub(crate) struct Pull<'a> {
    pub group: &'a str,
    pub queue: &'a MessageQueue,
    pub subscription: &'a SubscriptionData,
    pub offset: i64,
    pub max_count: i32,
    /// Commits this offset on the way; only a master takes it.
    pub commit: Option<i64>,
    /// How long the broker may wait for messages.
    pub hold: Duration,
    /// Which one of the brokers of this name to ask, if it is there.
    pub broker_id: i64,
}

impl Client {
    /// Pulls. A record that cannot be read is left out, and no other: nothing would make it
    /// readable, and the queue goes on behind it.
    pub(crate) async fn pull(&self, pull: &Pull<'_>) -> Result<Pulled, Error> {
        let (mut pulled, mut unreadable) = self.pull_some(pull, pull.max_count).await?;
        if unreadable.is_some() && 1 < pull.max_count {
            // Alone, so that the broker tells what comes after it.
            (pulled, unreadable) = self.pull_some(pull, 1).await?;
        }
        if let Some(error) = unreadable {
            let MessageQueue { topic, broker_name, queue_id } = pull.queue;
            tracing::error!(group = pull.group, %topic, broker = %broker_name, queue_id,
                offset = pulled.next_offset - 1, %error, "a message is unreadable and left out");
        }
        Ok(pulled)
    }

    /// One pull, and what is wrong with its first record, if it cannot be read.
    async fn pull_some(
        &self,
        pull: &Pull<'_>,
        max_count: i32,
    ) -> Result<(Pulled, Option<RecordError>), Error> {
        let broker = &pull.queue.broker_name;
        let (broker_id, addr) = self.reading_address(broker, pull.broker_id)?;
        let request = pull.request(broker_id, max_count);
        let within = pull.hold + PULL_MARGIN;
        let answer =
            self.call_within::<PullMessage<'_>>(&addr, &request, Bytes::new(), within).await?;
        let status = match answer.code {
            ResponseCode::SUCCESS => PullStatus::Found,
            ResponseCode::PULL_NOT_FOUND => PullStatus::Empty,
            ResponseCode::PULL_RETRY_IMMEDIATELY => PullStatus::NoMatch,
            ResponseCode::PULL_OFFSET_MOVED => PullStatus::OffsetMoved,
            _ => return Err(answer.refusal()),
        };
        let (mut messages, mut unread_from, mut unreadable) = (Vec::new(), None, None);
        if status == PullStatus::Found {
            let end;
            (messages, end) = ReceivedMessage::read(&answer.body, broker, INFLATED_LEN_MAX);
            let behind = messages.last().map(|last| last.queue_offset.0 as i64 + 1);
            match end {
                End::All => {}
                End::Malformed(error) if behind.is_none() => unreadable = Some(error),
                End::Malformed(_) | End::TooLong => unread_from = behind,
            }
            // Tag hashes collide: the broker lets through what the tags themselves do not allow.
            messages.retain(|message| is_wanted(pull.subscription, message.tag()));
        }
        let pulled = answer.fields(|it| Pulled {
            status,
            messages,
            next_offset: unread_from.unwrap_or(it.next_offset),
            min_offset: it.min_offset,
            max_offset: it.max_offset,
            suggested_broker_id: it.suggested_broker_id,
        })?;
        Ok((pulled, unreadable))
    }

    /// The offset that the next message of a queue will get.
    pub async fn max_offset(&self, queue: &MessageQueue) -> Result<i64, Error> {
        let addr = self.master_of(queue).await?;
        let (topic, queue_id) = (queue.topic.to_string(), queue.queue_id);
        let request = GetMaxOffset { topic, queue_id, committed: true };
        let answer = self.call::<GetMaxOffset>(&addr, &request, Bytes::new()).await?;
        answer.fields(|it| it.offset)
    }

    /// The offset of the oldest message of a queue.
    pub async fn min_offset(&self, queue: &MessageQueue) -> Result<i64, Error> {
        let addr = self.master_of(queue).await?;
        let request = GetMinOffset { topic: queue.topic.to_string(), queue_id: queue.queue_id };
        let answer = self.call::<GetMinOffset>(&addr, &request, Bytes::new()).await?;
        answer.fields(|it| it.offset)
    }

    /// The offset of the first message that was stored at this time or later.
    pub async fn offset_at(&self, queue: &MessageQueue, time: Millis) -> Result<i64, Error> {
        let addr = self.master_of(queue).await?;
        let request = SearchOffset {
            topic: queue.topic.to_string(),
            queue_id: queue.queue_id,
            timestamp_ms: time,
            boundary_type: None,
            lite_topic: None,
        };
        let answer = self.call::<SearchOffset>(&addr, &request, Bytes::new()).await?;
        answer.fields(|it| it.offset)
    }

    /// From where a group goes on reading a queue; `None` if it has not begun. With `young_is_0`
    /// the broker says 0 then for a queue of which nothing has been deleted yet.
    pub(crate) async fn committed_offset(
        &self,
        group: &str,
        queue: &MessageQueue,
        young_is_0: bool,
    ) -> Result<Option<i64>, Error> {
        let addr = self.master_of(queue).await?;
        let request = QueryConsumerOffset {
            consumer_group: group.to_owned(),
            topic: queue.topic.to_string(),
            queue_id: queue.queue_id,
            set_zero_if_not_found: young_is_0,
        };
        match self.call::<QueryConsumerOffset>(&addr, &request, Bytes::new()).await {
            // A negative one was committed by a client that had none.
            Ok(answer) => Ok(Some(answer.fields(|it| it.offset)?).filter(|offset| 0 <= *offset)),
            Err(error) if error.code() == Some(ResponseCode::QUERY_NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets from where a group goes on reading a queue.
    pub async fn commit_offset(
        &self,
        group: &str,
        queue: &MessageQueue,
        offset: i64,
    ) -> Result<(), Error> {
        let addr = self.master_of(queue).await?;
        let request = UpdateConsumerOffset {
            consumer_group: group.to_owned(),
            topic: queue.topic.to_string(),
            queue_id: queue.queue_id,
            commit_offset: offset,
        };
        self.call::<UpdateConsumerOffset>(&addr, &request, Bytes::new()).await.map(|_| ())
    }

    /// The address of the queue's master; of another broker of its name if there is none.
    pub(crate) async fn master_of(&self, queue: &MessageQueue) -> Result<Arc<str>, Error> {
        if let Ok(addr) = self.broker_address(&queue.broker_name, BrokerData::MASTER_ID) {
            return Ok(addr);
        }
        let route = self.route(&queue.topic).await?;
        route.any_address(&queue.broker_name).cloned().ok_or_else(|| Error::NoBroker {
            broker: queue.broker_name.to_string(),
            id: BrokerData::MASTER_ID,
        })
    }
}

impl<'a> Pull<'a> {
    /// To the broker with this id, for so many messages.
    fn request(&self, broker_id: i64, max_count: i32) -> PullMessage<'a> {
        // A broker that is asked with the subscription needs no heartbeat before.
        let mut sys_flag = SUBSCRIPTION;
        if !self.hold.is_zero() {
            sys_flag |= SUSPEND;
        }
        let commit = self.commit.filter(|_| broker_id == BrokerData::MASTER_ID);
        if commit.is_some() {
            sys_flag |= COMMIT;
        }
        PullMessage {
            consumer_group: Text::Plain(self.group),
            topic: Text::Plain(&self.queue.topic),
            queue_id: self.queue.queue_id,
            queue_offset: self.offset,
            max_count,
            sys_flag,
            commit_offset: commit.unwrap_or(0),
            suspend_ms: self.hold.as_millis() as i64,
            subscription: Some(Text::Plain(&self.subscription.sub_string)),
            sub_version: self.subscription.sub_version,
            expression_type: Some(Text::Plain(&self.subscription.expression_type)),
            max_bytes: None,
            request_source: None,
            proxied_client_id: None,
            lite_topic: None,
        }
    }
}

fn is_wanted(subscription: &SubscriptionData, tag: Option<&str>) -> bool {
    subscription.tags_set.is_empty()
        || !subscription.is_tag_type()
        || tag.is_some_and(|tag| subscription.tags_set.contains(tag))
}

/// A subscription of this kind; the version grows with each change.
pub(crate) fn subscription(
    topic: &str,
    expression: &str,
    is_sql: bool,
    version: Millis,
) -> Result<SubscriptionData, Error> {
    names::check_topic(topic)?;
    let mut subscription = if is_sql {
        SubscriptionData {
            topic: topic.into(),
            sub_string: expression.into(),
            expression_type: SQL92.into(),
            ..SubscriptionData::default()
        }
    } else {
        SubscriptionData::of_tags(topic, expression)?
    };
    subscription.sub_version = version;
    Ok(subscription)
}

/// Reads queues one pull at a time; what to read, and how far the group is, the caller decides.
pub struct PullConsumer {
    client: Client,
    group: String,
}

impl PullConsumer {
    /// Name servers are separated by `;`.
    pub fn new(name_servers: &str, group: &str) -> Result<Self, Error> {
        Self::with(Client::new(Options::new(name_servers)), group)
    }

    /// Over the connections of `client`.
    pub fn with(client: Client, group: &str) -> Result<Self, Error> {
        names::check_group(group)?;
        Ok(Self { client, group: group.to_owned() })
    }

    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The queues of a topic, in order.
    pub async fn queues(&self, topic: &str) -> Result<Vec<MessageQueue>, Error> {
        Ok(self.client.route(topic).await?.read_queues())
    }

    /// Reads at most `count` messages (brokers bring no more than 32) with these tags (`*`, or
    /// `A || B`), waiting up to `hold` for some.
    pub async fn pull(
        &self,
        queue: &MessageQueue,
        tags: &str,
        offset: i64,
        count: i32,
        hold: Duration,
    ) -> Result<Pulled, Error> {
        let subscription = subscription(&queue.topic, tags, false, self.client.now_ms())?;
        self.client.route(&queue.topic).await?;
        let pull = Pull {
            group: &self.group,
            queue,
            subscription: &subscription,
            offset,
            max_count: count,
            commit: None,
            hold,
            broker_id: BrokerData::MASTER_ID,
        };
        self.client.pull(&pull).await
    }

    /// From where the group goes on; `None` if it has not begun.
    pub async fn committed(&self, queue: &MessageQueue) -> Result<Option<i64>, Error> {
        self.client.committed_offset(&self.group, queue, false).await
    }

    pub async fn commit(&self, queue: &MessageQueue, offset: i64) -> Result<(), Error> {
        self.client.commit_offset(&self.group, queue, offset).await
    }
}
