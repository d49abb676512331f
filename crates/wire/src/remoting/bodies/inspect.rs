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

    /// 307, as a client says it; we pass it on as it is.
    ConsumerRunningInfo {
        #[serde(skip_serializing_if = "Option::is_none")]
        jstack: Option<String>,
        #[serde(with = "object_keys")]
        mq_pop_table: BTreeMap<MessageQueue, PopProcessQueueInfo>,
        #[serde(with = "object_keys")]
        mq_table: BTreeMap<MessageQueue, ProcessQueueInfo>,
        properties: BTreeMap<String, String>,
        status_table: BTreeMap<Arc<str>, ConsumeStatus>,
        subscription_set: Vec<SubscriptionData>,
        user_consumer_info: BTreeMap<String, String>,
    }

    ProcessQueueInfo {
        cached_msg_count: i32,
        cached_msg_max_offset: i64,
        cached_msg_min_offset: i64,
        #[serde(rename = "cachedMsgSizeInMiB")]
        cached_msg_size_in_mib: i32,
        commit_offset: i64,
        #[serde(rename = "droped")]
        dropped: bool,
        last_consume_timestamp: Millis,
        last_lock_timestamp: Millis,
        last_pull_timestamp: Millis,
        locked: bool,
        transaction_msg_count: i32,
        transaction_msg_max_offset: i64,
        transaction_msg_min_offset: i64,
        try_unlock_times: i64,
    }

    PopProcessQueueInfo {
        #[serde(rename = "droped")]
        dropped: bool,
        last_pop_timestamp: Millis,
        wait_ack_count: i32,
    }

    ConsumeStatus {
        consume_failed_msgs: i64,
        #[serde(rename = "consumeFailedTPS")]
        consume_failed_tps: f64,
        #[serde(rename = "consumeOKTPS")]
        consume_ok_tps: f64,
        #[serde(rename = "consumeRT")]
        consume_rt: f64,
        #[serde(rename = "pullRT")]
        pull_rt: f64,
        #[serde(rename = "pullTPS")]
        pull_tps: f64,
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
