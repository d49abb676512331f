//! Clients, their groups and subscriptions, and the queues they are given.

use std::collections::BTreeMap;
use std::sync::Arc;

use apogee_types::Millis;
use apogee_types::json::object_keys;
use apogee_types::route::MessageQueue;
use apogee_types::subscription::{
    ConsumeFromWhere, ConsumeType, MessageModel, RequestMode, SubscriptionData,
};

bodies! {
    /// 34: what a client is and wants.
    HeartbeatData {
        #[serde(rename = "clientID")]
        client_id: Arc<str>,
        consumer_data_set: Vec<ConsumerData>,
        /// A hash of the rest; 0 from clients that do not know of it.
        heartbeat_fingerprint: i32,
        producer_data_set: Vec<ProducerData>,
        /// The subscriptions are left out: they are what they were (fingerprint not 0).
        without_sub: bool,
    }

    ConsumerData {
        consume_from_where: ConsumeFromWhere,
        consume_type: ConsumeType,
        group_name: Arc<str>,
        message_model: MessageModel,
        subscription_data_set: Vec<SubscriptionData>,
        unit_mode: bool,
    }

    ProducerData {
        group_name: Arc<str>,
    }

    /// 46.
    CheckClientRequestBody {
        client_id: String,
        group: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        subscription_data: SubscriptionData,
    }

    /// 38.
    GetConsumerListByGroupResponseBody {
        consumer_id_list: Vec<Arc<str>>,
    }

    /// 41 and 42; upstream has a second type of the same shape for 42.
    LockBatchRequestBody {
        client_id: String,
        consumer_group: String,
        mq_set: Vec<MessageQueue>,
        only_this_broker: bool,
    }

    /// 41: the queues that the client now has.
    LockBatchResponseBody {
        #[serde(rename = "lockOKMQSet")]
        lock_ok_mq_set: Vec<MessageQueue>,
    }

    /// 220 and 222: where to go on.
    ResetOffsetBody {
        #[serde(with = "object_keys")]
        offset_table: BTreeMap<MessageQueue, i64>,
    }

    /// 220 to a C++ client.
    ResetOffsetBodyForC {
        offset_table: Vec<ResetOffsetOfQueue>,
    }

    ResetOffsetOfQueue {
        broker_name: Arc<str>,
        offset: i64,
        queue_id: i32,
        topic: Arc<str>,
    }

    /// 221 fills the second table, 223 the first, by client.
    GetConsumerStatusBody {
        consumer_table: BTreeMap<String, ConsumerOffsets>,
        #[serde(with = "object_keys")]
        message_queue_table: BTreeMap<MessageQueue, i64>,
    }

    /// 400.
    QueryAssignmentRequestBody {
        client_id: String,
        consumer_group: String,
        message_model: MessageModel,
        strategy_name: String,
        topic: String,
    }

    /// 400; without the set a client keeps what it has.
    QueryAssignmentResponseBody {
        #[serde(skip_serializing_if = "Option::is_none")]
        message_queue_assignments: Option<Vec<MessageQueueAssignment>>,
    }

    MessageQueueAssignment {
        #[serde(skip_serializing_if = "Option::is_none")]
        attachments: Option<BTreeMap<String, String>>,
        message_queue: MessageQueue,
        mode: RequestMode,
    }

    /// 401.
    SetMessageRequestModeRequestBody {
        consumer_group: Arc<str>,
        mode: RequestMode,
        pop_share_queue_num: i32,
        topic: Arc<str>,
    }

    /// 402, and the file `messageRequestMode.json`: by topic and group.
    MessageRequestModeSerializeWrapper {
        message_request_mode_map:
            BTreeMap<Arc<str>, BTreeMap<Arc<str>, SetMessageRequestModeRequestBody>>,
    }

    /// 200151.
    BatchAckMessageRequestBody {
        acks: Vec<BatchAck>,
        broker_name: String,
    }

    /// Acknowledges popped messages of one check point; the short names are upstream's.
    BatchAck {
        /// A Java `BitSet` in base64: which offsets from `start_offset` on.
        #[serde(rename = "b", alias = "bitSet")]
        bits: String,
        #[serde(rename = "c", alias = "consumerGroup")]
        consumer_group: String,
        #[serde(rename = "it", alias = "invisibleTime")]
        invisible_ms: i64,
        #[serde(rename = "pt", alias = "popTime")]
        pop_time_ms: Millis,
        #[serde(rename = "q", alias = "queueId")]
        queue_id: i32,
        /// `0` the topic itself, `1` and `2` its retry topic of the first and second form.
        #[serde(rename = "r", alias = "retry")]
        retry: String,
        #[serde(rename = "rq", alias = "reviveQueueId")]
        revive_queue_id: i32,
        #[serde(rename = "so", alias = "startOffset")]
        start_offset: i64,
        #[serde(rename = "t", alias = "topic")]
        topic: String,
    }

    /// 200071.
    LiteSubscriptionCtlRequestBody {
        subscription_set: Vec<LiteSubscription>,
    }

    LiteSubscription {
        /// `PARTIAL_ADD`, `PARTIAL_REMOVE`, `COMPLETE_ADD` or `COMPLETE_REMOVE`.
        action: String,
        client_id: String,
        group: String,
        lite_topic_set: Vec<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        offset_option: Option<OffsetOption>,
        topic: String,
        version: i64,
    }

    /// Where to start.
    OffsetOption {
        /// `POLICY`, `OFFSET`, `TAIL_N` or `TIMESTAMP`.
        #[serde(rename = "type")]
        kind: String,
        value: i64,
    }
}

/// How far one client is in each of its queues.
#[derive(Debug, Default, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ConsumerOffsets(#[serde(with = "object_keys")] pub BTreeMap<MessageQueue, i64>);
