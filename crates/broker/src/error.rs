//! What can go wrong, by who can do something about it. Each door maps it to its own codes.

use apogee_types::names::NameError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    // The caller can act.
    #[error(
        "topic[{topic}] not exist, apply first please! Create it with updateTopic, or by sending \
         with autoCreateTopicEnable=true"
    )]
    NoSuchTopic { topic: String },
    #[error(
        "subscription group [{group}] does not exist; create it with updateSubGroup or set \
         autoCreateSubscriptionGroup=true"
    )]
    NoSuchGroup { group: String },
    #[error(transparent)]
    IllegalName(#[from] NameError),
    #[error("Sending message to topic[{topic}] is forbidden.")]
    SendForbidden { topic: String },
    #[error("{0}")]
    NotPermitted(&'static str),
    #[error("{what} of topic[{topic}] is not permitted: its perm is {perm}")]
    TopicNotPermitted { topic: String, what: &'static str, perm: i32 },
    #[error("the group[{group}] is not permitted to read topic[{topic}]")]
    GroupNotPermitted { group: String, topic: String },
    #[error("queueId[{queue_id}] is illegal, topic:[{topic}] has {queue_count} queues")]
    NoSuchQueue { topic: String, queue_id: i32, queue_count: i32 },
    #[error("the message body is {len} bytes long, more than maxMessageSize = {max}")]
    BodyTooLong { len: usize, max: u32 },
    #[error("the message is illegal: {0}")]
    IllegalMessage(String),
    #[error("{0}")]
    InvalidParameter(String),
    #[error("{0}")]
    InvalidState(String),
    #[error("parse the consumer's subscription failed: {0}")]
    IllegalSubscription(String),
    #[error("the consumer's group info not exist: group[{group}] has no live client here")]
    GroupOffline { group: String },
    #[error(
        "the consumer's subscription not exist: group[{group}] does not subscribe topic[{topic}]"
    )]
    NotSubscribed { group: String, topic: String },
    #[error(
        "the consumer's subscription not latest: the broker has version {known}, \
         the request {asked}"
    )]
    SubscriptionNotLatest { known: i64, asked: i64 },
    #[error(
        "The broker does not support consumer to filter message by SQL92; \
         set enablePropertyFilter=true"
    )]
    FilterNotSupported,
    #[error("{0} is not supported by this server")]
    NotSupported(&'static str),
    #[error(
        "[REJECTREQUEST]system busy, start flow control for a while: \
         this broker is a slave, ask its master"
    )]
    Slave,
    // The moment.
    #[error("broker unable to service, until {until}")]
    NotYet { until: String },
    #[error("look message by offset failed, {at}: there is no message")]
    NoSuchMessage { at: u64 },
    // The operator can act.
    #[error(transparent)]
    Append(#[from] apogee_store::AppendError),
    #[error(transparent)]
    Store(#[from] apogee_store::Error),
}
