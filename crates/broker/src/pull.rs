//! Reading a queue for a consumer: the checks, the filter, and what the answer says of where to
//! go on. Rules: spec `broker.md` 2, `client-behaviour.md` 7.

use std::sync::Arc;

use apogee_store::{ReadLimits, ReadStatus, Unit};
use apogee_types::config::{GroupConfig, Perm, TopicConfig};
use apogee_types::limits::PULL_BYTES_MAX;
use apogee_types::subscription::{ConsumeType, SUB_ALL, SubscriptionData, TAG};
use apogee_types::{Millis, QueueId, QueueOffset, names};

use crate::broker::Broker;
use crate::clients::ConnectionId;
use crate::error::Error;

/// A pull as a consumer asks for it.
#[derive(Debug, Clone, Copy)]
pub struct Pull<'a> {
    pub group: &'a str,
    pub topic: &'a str,
    pub queue_id: i32,
    pub from: i64,
    pub max_count: i32,
    /// The subscription, if the request brings it; else that of the group's heartbeats counts.
    pub subscription: Option<Expression<'a>>,
    /// Version of the subscription that the consumer has.
    pub sub_version: i64,
}

/// What is wanted of a topic, as text.
#[derive(Debug, Clone, Copy)]
pub struct Expression<'a> {
    /// `None` or `TAG`, or `SQL92`.
    pub kind: Option<&'a str>,
    pub text: &'a str,
}

/// Which messages are wanted, by tag code.
#[derive(Debug, Clone)]
pub enum Filter {
    All,
    Tags(Arc<SubscriptionData>),
}

/// What a pull found. The messages themselves are `units`, filled beside it.
#[derive(Debug, Clone, Copy)]
pub struct Pulled {
    pub status: PullStatus,
    /// From where to go on.
    pub next: QueueOffset,
    pub min: QueueOffset,
    pub max: QueueOffset,
    pub topic_sys_flag: i32,
    pub group_sys_flag: i32,
    /// The replica to ask next; 0 is the master.
    pub suggested_broker_id: i64,
}

/// How a read went; `Reset` means that an operator moved the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullStatus {
    Read(ReadStatus),
    Reset,
}

/// A pull that passed its checks.
#[derive(Debug, Clone)]
pub struct Admitted {
    pub filter: Filter,
    pub queue: QueueId,
    topic: Arc<TopicConfig>,
    group: Arc<GroupConfig>,
}

impl Filter {
    #[must_use]
    pub fn matches(&self, tags_code: i64) -> bool {
        match self {
            Self::All => true,
            Self::Tags(subscription) => subscription.matches(tags_code),
        }
    }

    fn new(subscription: Arc<SubscriptionData>) -> Self {
        if &*subscription.sub_string == SUB_ALL { Self::All } else { Self::Tags(subscription) }
    }
}

impl Broker {
    /// Checks a pull, in upstream's order. Spec `broker.md` 2.1.
    pub fn admit_pull(&self, pull: &Pull<'_>) -> Result<Admitted, Error> {
        let (topic, group, queue) = self.check_pull(pull)?;
        let filter = match pull.subscription {
            Some(expression) => parse_filter(pull.topic, expression)?,
            None => self.subscribed_filter(pull, &group)?,
        };
        Ok(Admitted { filter, queue, topic, group })
    }

    /// Checks once more a pull that was parked; what it wants stays.
    pub fn admit_again(&self, pull: &Pull<'_>, admitted: Admitted) -> Result<Admitted, Error> {
        let (topic, group, queue) = self.check_pull(pull)?;
        Ok(Admitted { queue, topic, group, ..admitted })
    }

    fn check_pull(
        &self,
        pull: &Pull<'_>,
    ) -> Result<(Arc<TopicConfig>, Arc<GroupConfig>, QueueId), Error> {
        if self.identity.is_slave() && !self.settings.slave_read_enable {
            return Err(Error::Slave);
        }
        if !self.permission().has(Perm::READ) {
            return Err(Error::NotPermitted("the broker pulling message is forbidden"));
        }
        let group = self.groups.find_or_create(pull.group, self.clock.now_ms())?;
        if !group.consume_enable {
            return Err(Error::NotPermitted("subscription group no permission"));
        }
        let topic = self.topics.expect(pull.topic)?;
        if !topic.perm.has(Perm::READ) {
            let (name, perm) = (pull.topic.to_owned(), topic.perm.0);
            return Err(Error::TopicNotPermitted { topic: name, what: "Pulling", perm });
        }
        let in_range = 0 <= pull.queue_id && pull.queue_id < topic.read_queue_count;
        let queue = QueueId::from_wire(pull.queue_id).filter(|_| in_range);
        let queue = queue.ok_or_else(|| Error::NoSuchQueue {
            topic: pull.topic.to_owned(),
            queue_id: pull.queue_id,
            queue_count: topic.read_queue_count,
        })?;
        Ok((topic, group, queue))
    }

    /// Reads what is there, into `units`. Spec `broker.md` 2.2.
    pub fn pull(
        &self,
        pull: &Pull<'_>,
        admitted: &Admitted,
        units: &mut Vec<Unit>,
    ) -> Result<Pulled, Error> {
        units.clear();
        let queue = admitted.queue;
        let bounds = self.store.queue_bounds(pull.topic, queue);
        let mut pulled = Pulled {
            status: PullStatus::Reset,
            next: bounds.start,
            min: bounds.start,
            max: bounds.end,
            topic_sys_flag: admitted.topic.topic_sys_flag,
            group_sys_flag: admitted.group.group_sys_flag,
            suggested_broker_id: admitted.group.broker_id,
        };
        if let Some(reset) = self.offsets.take_reset(pull.group, pull.topic, queue) {
            pulled.next = QueueOffset(reset.max(0) as u64);
            return Ok(pulled);
        }
        let Ok(from) = u64::try_from(pull.from) else {
            let is_empty = bounds.end == QueueOffset(0);
            let status =
                if is_empty { ReadStatus::NoMessageInQueue } else { ReadStatus::OffsetTooSmall };
            return Ok(Pulled { status: PullStatus::Read(status), ..pulled });
        };
        let count_max = self.settings.max_transfer_count_on_message_in_memory as usize;
        let bytes_max = self.settings.max_transfer_bytes_on_message_in_memory as usize;
        let limits = ReadLimits {
            count: usize::try_from(pull.max_count).unwrap_or(0).clamp(1, count_max),
            bytes: bytes_max.min(PULL_BYTES_MAX),
        };
        let mut wants = |code| admitted.filter.matches(code);
        let from = QueueOffset(from);
        let read = self.store.read(pull.topic, queue, from, limits, &mut wants, units)?;
        self.offsets.pulled(pull.group, pull.topic, queue, read.next.0 as i64);
        Ok(Pulled {
            status: PullStatus::Read(read.status),
            next: read.next,
            min: read.min,
            max: read.end,
            ..pulled
        })
    }

    /// The subscription that the group's heartbeats declared.
    fn subscribed_filter(&self, pull: &Pull<'_>, config: &GroupConfig) -> Result<Filter, Error> {
        let found = self.clients.with_consumer_group(pull.group, |group| {
            (group.is_broadcasting(), group.subscriptions.get(pull.topic).cloned())
        });
        let offline = || Error::GroupOffline { group: pull.group.to_owned() };
        let (is_broadcasting, subscription) = found.ok_or_else(offline)?;
        if is_broadcasting && !config.consume_broadcast_enable {
            return Err(Error::NotPermitted("the consumer group can not consume by broadcast way"));
        }
        let (group, topic) = (pull.group.to_owned(), pull.topic.to_owned());
        if self.groups.is_reading_forbidden(pull.group, pull.topic) {
            return Err(Error::GroupNotPermitted { group, topic });
        }
        let subscription = subscription.ok_or(Error::NotSubscribed { group, topic })?;
        if subscription.sub_version < pull.sub_version {
            let (known, asked) = (subscription.sub_version, pull.sub_version);
            return Err(Error::SubscriptionNotLatest { known, asked });
        }
        if !subscription.is_tag_type() {
            return Err(Error::FilterNotSupported);
        }
        Ok(Filter::new(subscription))
    }

    /// Refuses pull consumers that no heartbeat has announced, if rejectPullConsumerEnable says so.
    pub fn check_puller(&self, group: &str, connection: ConnectionId) -> Result<(), Error> {
        if !self.settings.reject_pull_consumer_enable || names::is_system_group(group) {
            return Ok(());
        }
        let is_known = self.clients.with_consumer_group(group, |it| {
            it.consume_type != ConsumeType::Actively || it.has_member(connection)
        });
        let offline = || Error::GroupOffline { group: group.to_owned() };
        is_known.filter(|is_known| *is_known).map(drop).ok_or_else(offline)
    }

    /// When a parked pull is answered although nothing came.
    #[must_use]
    pub fn park_until(&self, suspend_ms: Millis) -> Millis {
        let longest = if self.settings.long_polling_enable {
            suspend_ms
        } else {
            self.settings.short_polling_time_mills as Millis
        };
        self.clock.now_ms().saturating_add(longest)
    }
}

fn parse_filter(topic: &str, expression: Expression<'_>) -> Result<Filter, Error> {
    if expression.kind.is_some_and(|kind| !kind.is_empty() && kind != TAG) {
        return Err(Error::FilterNotSupported);
    }
    if matches!(expression.text, "" | SUB_ALL) {
        return Ok(Filter::All);
    }
    let subscription = SubscriptionData::of_tags(topic, expression.text)
        .map_err(|error| Error::IllegalSubscription(error.to_string()))?;
    Ok(Filter::new(Arc::new(subscription)))
}
