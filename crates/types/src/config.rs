//! Configuration of topics and subscription groups, as bodies and files carry it.
//! Shapes: spec `json-quirks.md` 2.4 and 3.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Millis;

/// What may be done with a topic. Spec `messages.md` 3: 1 inherit, 2 write, 4 read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Perm(pub i32);

impl Perm {
    pub const INHERIT: Self = Self(1);
    pub const WRITE: Self = Self(2);
    pub const READ: Self = Self(4);
    pub const READ_WRITE: Self = Self(6);

    #[must_use]
    pub const fn has(self, bits: Self) -> bool {
        self.0 & bits.0 == bits.0
    }

    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    #[must_use]
    pub const fn without(self, bits: Self) -> Self {
        Self(self.0 & !bits.0)
    }
}

/// A topic as one broker has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfig {
    pub attributes: BTreeMap<String, String>,
    pub order: bool,
    pub perm: Perm,
    #[serde(rename = "readQueueNums")]
    pub read_queue_count: i32,
    /// `SINGLE_TAG` or `MULTI_TAG`.
    pub topic_filter_type: String,
    pub topic_name: Arc<str>,
    pub topic_sys_flag: i32,
    #[serde(rename = "writeQueueNums")]
    pub write_queue_count: i32,
}

impl TopicConfig {
    /// A topic with `queue_count` queues to read and to write.
    #[must_use]
    pub fn new(name: &str, queue_count: i32, perm: Perm) -> Self {
        Self {
            topic_name: name.into(),
            read_queue_count: queue_count,
            write_queue_count: queue_count,
            perm,
            ..Self::default()
        }
    }
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            attributes: BTreeMap::new(),
            order: false,
            perm: Perm::READ_WRITE,
            read_queue_count: 16,
            topic_filter_type: "SINGLE_TAG".to_owned(),
            topic_name: "".into(),
            topic_sys_flag: 0,
            write_queue_count: 16,
        }
    }
}

/// A subscription group as one broker has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupConfig {
    pub attributes: BTreeMap<String, String>,
    pub broker_id: i64,
    pub consume_broadcast_enable: bool,
    pub consume_enable: bool,
    pub consume_from_min_enable: bool,
    pub consume_message_orderly: bool,
    pub consume_timeout_minute: i32,
    pub group_name: Arc<str>,
    /// Kept as it came: only gRPC proxies read it.
    pub group_retry_policy: serde_json::Value,
    pub group_sys_flag: i32,
    pub notify_consumer_ids_changed_enable: bool,
    pub retry_max_times: i32,
    #[serde(rename = "retryQueueNums")]
    pub retry_queue_count: i32,
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub subscription_data_set: serde_json::Value,
    pub which_broker_when_consume_slowly: i64,
}

impl GroupConfig {
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { group_name: name.into(), ..Self::default() }
    }
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            attributes: BTreeMap::new(),
            broker_id: 0,
            consume_broadcast_enable: true,
            consume_enable: true,
            consume_from_min_enable: true,
            consume_message_orderly: false,
            consume_timeout_minute: 15,
            group_name: "".into(),
            group_retry_policy: serde_json::json!({ "type": "CUSTOMIZED" }),
            group_sys_flag: 0,
            notify_consumer_ids_changed_enable: true,
            retry_max_times: 16,
            retry_queue_count: 1,
            subscription_data_set: serde_json::Value::Null,
            which_broker_when_consume_slowly: 1,
        }
    }
}

/// The version of a table: changes when the table does.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataVersion {
    pub counter: i64,
    pub state_version: i64,
    pub timestamp: Millis,
}

impl DataVersion {
    /// The version after one more change.
    #[must_use]
    pub fn next(self, now: Millis) -> Self {
        Self { counter: self.counter + 1, timestamp: now, ..self }
    }
}
