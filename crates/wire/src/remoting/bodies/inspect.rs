//! What operators look at.

use std::collections::BTreeMap;
use std::sync::Arc;

use apogee_types::Millis;
use apogee_types::json::object_keys;
use apogee_types::route::MessageQueue;
use apogee_types::subscription::{ConsumeFromWhere, ConsumeType, MessageModel, SubscriptionData};

bodies! {
    /// 202.
    TopicStatsTable {
        #[serde(with = "object_keys")]
        offset_table: BTreeMap<MessageQueue, TopicOffset>,
        topic_put_tps: f64,
    }

    TopicOffset {
        /// 0 for an empty queue.
        last_update_timestamp: Millis,
        max_offset: i64,
        min_offset: i64,
    }

    /// 208.
    ConsumeStats {
        consume_tps: f64,
        #[serde(with = "object_keys")]
        offset_table: BTreeMap<MessageQueue, OffsetWrapper>,
    }

    OffsetWrapper {
        broker_offset: i64,
        consumer_offset: i64,
        last_timestamp: Millis,
        pull_offset: i64,
    }

    /// 317: of each group a map of one entry.
    ConsumeStatsList {
        broker_addr: Arc<str>,
        consume_stats_list: Vec<BTreeMap<Arc<str>, Vec<ConsumeStats>>>,
        total_diff: i64,
        total_inflight_diff: i64,
    }

    /// 203.
    ConsumerConnection {
        connection_set: Vec<Connection>,
        consume_from_where: ConsumeFromWhere,
        consume_type: ConsumeType,
        message_model: MessageModel,
        subscription_table: BTreeMap<Arc<str>, SubscriptionData>,
    }

    /// 204.
    ProducerConnection {
        connection_set: Vec<Connection>,
    }

    Connection {
        client_addr: String,
        client_id: Arc<str>,
        language: String,
        version: i32,
    }

    /// 328, by producer group.
    ProducerTableInfo {
        data: BTreeMap<Arc<str>, Vec<ProducerInfo>>,
    }

    ProducerInfo {
        client_id: Arc<str>,
        language: String,
        last_update_timestamp: Millis,
        #[serde(rename = "remoteIP")]
        remote_ip: String,
        version: i32,
    }

    /// 315.
    BrokerStatsData {
        stats_day: BrokerStatsItem,
        stats_hour: BrokerStatsItem,
        stats_minute: BrokerStatsItem,
    }

    BrokerStatsItem {
        avgpt: f64,
        sum: i64,
        tps: f64,
    }

    /// 303.
    QueryConsumeTimeSpanBody {
        consume_time_span_set: Vec<QueueTimeSpan>,
    }

    /// Upstream writes each time as a text as well and reads only the numbers.
    QueueTimeSpan {
        consume_time_stamp: Millis,
        delay_time: i64,
        max_time_stamp: Millis,
        message_queue: MessageQueue,
        min_time_stamp: Millis,
    }

    /// 308, by queue.
    QueryCorrectionOffsetBody {
        correction_offsets: BTreeMap<i32, i64>,
    }

    /// 345.
    QuerySubscriptionResponseBody {
        group: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        subscription_data: Option<SubscriptionData>,
        topic: String,
    }

    /// 321.
    QueryConsumeQueueResponseBody {
        #[serde(skip_serializing_if = "Option::is_none")]
        filter_data: Option<String>,
        max_queue_index: i64,
        min_queue_index: i64,
        queue_data: Vec<ConsumeQueueData>,
        #[serde(skip_serializing_if = "Option::is_none")]
        subscription_data: Option<SubscriptionData>,
    }

    ConsumeQueueData {
        #[serde(skip_serializing_if = "Option::is_none")]
        bit_map: Option<String>,
        /// The message passes the filter of the group that was named.
        eval: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        extend_data_json: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        msg: Option<String>,
        physic_offset: i64,
        physic_size: i32,
        tags_code: i64,
    }
}
