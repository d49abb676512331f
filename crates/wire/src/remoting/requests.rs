//! The one table: every request of the protocol. Spec `remoting.md` 3, `since-5.3.md` 1.
//!
//! A field is written `name "wireName": Type = default`; the wire name stands where it differs
//! from ours, the default where the field may be absent, `Option<T>` where absence means something.

use super::fields::Text;
use super::table::Empty;
use crate::{fields, requests};

requests! {
    /// Stores a message, or a batch of them as body.
    10 SEND_MESSAGE SendMessage<'a> (Pub) {
        producer_group "producerGroup": Text<'a>,
        topic: Text<'a>,
        default_topic "defaultTopic": Text<'a>,
        default_topic_queue_count "defaultTopicQueueNums": i32,
        queue_id "queueId": i32,
        sys_flag "sysFlag": i32,
        born_ms "bornTimestamp": i64,
        flag: i32,
        properties: Option<Text<'a>>,
        reconsume_times "reconsumeTimes": Option<i32>,
        unit_mode "unitMode": bool = false,
        max_reconsume_times "maxReconsumeTimes": Option<i32>,
        batch: bool = false,
    } -> SendMessageResponse<'a>;

    /// Reads messages of a queue from an offset; may wait for some to arrive.
    11 PULL_MESSAGE PullMessage<'a> (Sub) {
        consumer_group "consumerGroup": Text<'a>,
        topic: Text<'a>,
        queue_id "queueId": i32,
        queue_offset "queueOffset": i64,
        max_count "maxMsgNums": i32,
        /// 0x1 commit `commit_offset`, 0x2 wait, 0x4 the subscription is here, 0x10 lite pull.
        sys_flag "sysFlag": i32,
        commit_offset "commitOffset": i64,
        suspend_ms "suspendTimeoutMillis": i64,
        subscription: Option<Text<'a>>,
        sub_version "subVersion": i64,
        expression_type "expressionType": Option<Text<'a>>,
    } -> PullMessageResponse;

    /// The offset that the next message of a queue will get.
    30 GET_MAX_OFFSET GetMaxOffset (Get) {
        topic: String,
        queue_id "queueId": i32,
        /// `false` also counts messages that consumers cannot see yet.
        committed: bool = true,
    } -> OffsetResponse;

    /// The offset of the oldest message of a queue.
    31 GET_MIN_OFFSET GetMinOffset (Get) {
        topic: String,
        queue_id "queueId": i32,
    } -> OffsetResponse;

    /// [`SendMessage`] with short names: what Java clients send.
    310 SEND_MESSAGE_V2 SendMessageV2<'a> (Pub) {
        producer_group "a": Text<'a>,
        topic "b": Text<'a>,
        default_topic "c": Text<'a>,
        default_topic_queue_count "d": i32,
        queue_id "e": i32,
        sys_flag "f": i32,
        born_ms "g": i64,
        flag "h": i32,
        properties "i": Option<Text<'a>>,
        reconsume_times "j": Option<i32>,
        unit_mode "k": bool = false,
        max_reconsume_times "l": Option<i32>,
        batch "m": bool = false,
        broker_name "n": Option<Text<'a>>,
    } -> SendMessageResponse<'a>;
}

fields! {
    /// Where a message was stored.
    SendMessageResponse<'a> {
        /// Id of the stored message; of a batch all ids, joined by `,`.
        msg_id "msgId": Text<'a>,
        queue_id "queueId": i32,
        /// Of a batch that of the first message.
        queue_offset "queueOffset": i64,
        /// The client's own unique key of the message.
        transaction_id "transactionId": Option<Text<'a>>,
        recall_handle "recallHandle": Option<Text<'a>>,
        /// Clients read the next two without looking whether they are there.
        region "MSG_REGION": Option<Text<'a>>,
        trace_on "TRACE_ON": Option<Text<'a>>,
    }
}

fields! {
    /// Comes with the messages as body, or tells where to go on.
    PullMessageResponse {
        suggested_broker_id "suggestWhichBrokerId": i64,
        next_offset "nextBeginOffset": i64,
        min_offset "minOffset": i64,
        max_offset "maxOffset": i64,
        topic_sys_flag "topicSysFlag": Option<i32>,
        group_sys_flag "groupSysFlag": Option<i32>,
        forbidden_type "forbiddenType": Option<i32>,
    }
}

fields! {
    /// An offset of a queue.
    OffsetResponse {
        offset: i64,
    }
}
