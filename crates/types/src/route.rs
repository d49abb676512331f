//! Who serves what: a topic's route, as name servers tell it and clients use it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::Perm;

/// One queue of a topic on one broker.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageQueue {
    pub broker_name: Arc<str>,
    pub queue_id: i32,
    pub topic: Arc<str>,
}

impl MessageQueue {
    #[must_use]
    pub fn new(topic: &str, broker_name: &str, queue_id: i32) -> Self {
        Self { broker_name: broker_name.into(), queue_id, topic: topic.into() }
    }
}

/// The queues that a set of brokers has of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueData {
    pub broker_name: Arc<str>,
    pub perm: Perm,
    #[serde(rename = "readQueueNums")]
    pub read_queue_count: i32,
    pub topic_sys_flag: i32,
    #[serde(rename = "writeQueueNums")]
    pub write_queue_count: i32,
}

impl Default for QueueData {
    fn default() -> Self {
        Self {
            broker_name: "".into(),
            perm: Perm::READ_WRITE,
            read_queue_count: 0,
            topic_sys_flag: 0,
            write_queue_count: 0,
        }
    }
}

/// A set of brokers: the master (id 0) and its slaves, under one name.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerData {
    pub broker_addrs: BTreeMap<i64, Arc<str>>,
    pub broker_name: Arc<str>,
    pub cluster: Arc<str>,
    pub enable_acting_master: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone_name: Option<Arc<str>>,
}

impl BrokerData {
    pub const MASTER_ID: i64 = 0;

    /// The master, if it is there.
    #[must_use]
    pub fn master(&self) -> Option<&Arc<str>> {
        self.broker_addrs.get(&Self::MASTER_ID)
    }
}

/// Everything a client needs to send to a topic and to read it.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicRouteData {
    pub broker_datas: Vec<BrokerData>,
    pub filter_server_table: BTreeMap<Arc<str>, Vec<String>>,
    /// `broker-a:4;broker-b:4` for an order topic. Absent, never empty, for others: clients take
    /// an empty one for a static topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_topic_conf: Option<Arc<str>>,
    pub queue_datas: Vec<QueueData>,
    /// Of a static topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_queue_mapping_by_broker: Option<QueueMappings>,
}

/// How a static topic's queues lie on brokers, by name: kept as brokers send it.
pub type QueueMappings = BTreeMap<Arc<str>, Arc<serde_json::Value>>;

/// All brokers, by name and by cluster.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterInfo {
    pub broker_addr_table: BTreeMap<Arc<str>, BrokerData>,
    pub cluster_addr_table: BTreeMap<Arc<str>, Vec<Arc<str>>>,
}
