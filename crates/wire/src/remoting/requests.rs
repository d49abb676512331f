//! The one table: every request of the protocol. Spec `remoting.md` 3, `since-5.3.md` 1.
//!
//! A field is written `name "wireName": Type = default`; the wire name stands where it differs
//! from ours, the default where the field may be absent, `Option<T>` where absence means something.
//! `[Other]` instead of fields: the same fields as that request. Bodies: [`super::bodies`].

use std::fmt::Write;

use super::fields::Text;
use super::table::{Empty, FieldInfo, RequestInfo};
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
        max_bytes "maxMsgBytes": Option<i32>,
        /// Who asks: 0 or absent a client, 1 a proxy for a broadcast group, 2 a proxy.
        request_source "requestSource": Option<i32>,
        /// The client for whom a proxy asks; the spelling is upstream's.
        proxied_client_id "proxyFrowardClientId": Option<Text<'a>>,
        lite_topic "liteTopic": Option<Text<'a>>,
    } -> PullMessageResponse;

    /// Messages by key, in a time span; body: the messages.
    12 QUERY_MESSAGE QueryMessage (Sub) {
        topic: String,
        key: String,
        max_count "maxNum": i32,
        begin_ms "beginTimestamp": i64,
        end_ms "endTimestamp": i64,
        /// `K` keys, `U` unique keys, `T` tags; absent is `K`.
        index_type "indexType": Option<String>,
        last_key "lastKey": Option<String>,
        is_unique_key "_UNIQUE_KEY_QUERY": bool = false,
    } -> QueryMessageResponse;

    /// Never used.
    13 QUERY_BROKER_OFFSET QueryBrokerOffset (Any) {} -> Empty;

    /// How far a group has come in a queue.
    14 QUERY_CONSUMER_OFFSET QueryConsumerOffset (Sub) {
        consumer_group "consumerGroup": String,
        topic: String,
        queue_id "queueId": i32,
        set_zero_if_not_found "setZeroIfNotFound": bool = true,
    } -> OffsetResponse;

    /// Sets the offset from which a group reads a queue next.
    15 UPDATE_CONSUMER_OFFSET UpdateConsumerOffset (Sub) {
        consumer_group "consumerGroup": String,
        topic: String,
        queue_id "queueId": i32,
        commit_offset "commitOffset": i64,
    } -> Empty;

    /// Creates or changes a topic.
    17 UPDATE_AND_CREATE_TOPIC UpdateAndCreateTopic (Create) {
        topic: String,
        default_topic "defaultTopic": Option<String>,
        read_queue_count "readQueueNums": i32,
        write_queue_count "writeQueueNums": i32,
        perm: i32,
        topic_filter_type "topicFilterType": Option<String>,
        topic_sys_flag "topicSysFlag": Option<i32>,
        order: bool = false,
        /// `+name=value,-name`: attributes to set and to remove.
        attributes: Option<String>,
        force: bool = false,
    } -> Empty;

    /// [`UpdateAndCreateTopic`] for many; body: `CreateTopicListRequestBody`.
    18 UPDATE_AND_CREATE_TOPIC_LIST UpdateAndCreateTopicList (Create) {} -> Empty;

    /// All topics; body: `TopicConfigAndMappingSerializeWrapper`.
    21 GET_ALL_TOPIC_CONFIG GetAllTopicConfig (Get) {
        /// The first topic that is wanted; with the other two absent everything is.
        topic_seq "topicSeq": Option<i32>,
        data_version "dataVersion": Option<String>,
        max_topic_count "maxTopicNum": Option<i32>,
    } -> GetAllTopicConfigResponse;

    /// Never used.
    22 GET_TOPIC_CONFIG_LIST GetTopicConfigList (Any) {} -> Empty;

    /// Never used.
    23 GET_TOPIC_NAME_LIST GetTopicNameList (Any) {} -> Empty;

    /// Changes settings of a broker; body: properties text.
    25 UPDATE_BROKER_CONFIG UpdateBrokerConfig (Update) {} -> Empty;

    /// The settings of a broker; body: properties text.
    26 GET_BROKER_CONFIG GetBrokerConfig (Get) {} -> GetBrokerConfigResponse;

    /// Never used.
    27 TRIGGER_DELETE_FILES TriggerDeleteFiles (Any) {} -> Empty;

    /// What a broker is doing; body: `KVTable`.
    28 GET_BROKER_RUNTIME_INFO GetBrokerRuntimeInfo (Get) {} -> Empty;

    /// The offset of the first message of a queue that was stored at or after a time.
    29 SEARCH_OFFSET_BY_TIMESTAMP SearchOffset (Get) {
        topic: String,
        queue_id "queueId": i32,
        timestamp_ms "timestamp": i64,
        /// `UPPER` (in any case): the last message of that time instead of the first.
        boundary_type "boundaryType": Option<String>,
        lite_topic "liteTopic": Option<String>,
    } -> OffsetResponse;

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

    /// When the oldest message of a queue was stored; -1 for an empty queue.
    32 GET_EARLIEST_MSG_STORETIME GetEarliestStoreTime (Get) {
        topic: String,
        queue_id "queueId": i32,
    } -> TimestampResponse;

    /// One message by its log offset; body: the message.
    33 VIEW_MESSAGE_BY_ID ViewMessageById (Get) {
        topic: Option<String>,
        log_offset "offset": i64,
    } -> Empty;

    /// A client tells its groups and subscriptions; body: `HeartbeatData`.
    34 HEART_BEAT HeartBeat (Sub) {} -> HeartBeatResponse;

    /// A client leaves its groups.
    35 UNREGISTER_CLIENT UnregisterClient (Sub) {
        client_id "clientID": String,
        producer_group "producerGroup": Option<String>,
        consumer_group "consumerGroup": Option<String>,
    } -> Empty;

    /// A consumer could not process a message: deliver it again later.
    36 CONSUMER_SEND_MSG_BACK ConsumerSendMsgBack (Sub) {
        log_offset "offset": i64,
        group: String,
        delay_level "delayLevel": i32,
        origin_msg_id "originMsgId": Option<String>,
        origin_topic "originTopic": Option<String>,
        unit_mode "unitMode": bool = false,
        max_reconsume_times "maxReconsumeTimes": Option<i32>,
    } -> Empty;

    /// Commits or rolls back a half message.
    37 END_TRANSACTION EndTransaction (Pub) {
        topic: Option<String>,
        producer_group "producerGroup": String,
        /// Queue offset of the half message.
        half_offset "tranStateTableOffset": i64,
        /// Log offset of the half message.
        log_offset "commitLogOffset": i64,
        /// 8 commit, 12 roll back, 0 not known yet.
        end "commitOrRollback": i32,
        from_check "fromTransactionCheck": bool = false,
        msg_id "msgId": Option<String>,
        transaction_id "transactionId": Option<String>,
    } -> Empty;

    /// The clients of a group; body: `GetConsumerListByGroupResponseBody`.
    38 GET_CONSUMER_LIST_BY_GROUP GetConsumerListByGroup (Sub) {
        consumer_group "consumerGroup": String,
    } -> Empty;

    /// Broker to producer, one-way: what became of this half message? Body: the message.
    39 CHECK_TRANSACTION_STATE CheckTransactionState (Any) {
        topic: Option<String>,
        half_offset "tranStateTableOffset": i64,
        log_offset "commitLogOffset": i64,
        /// The client's unique key of the message, and again in `transaction_id`.
        msg_id "msgId": Option<String>,
        transaction_id "transactionId": Option<String>,
        offset_msg_id "offsetMsgId": Option<String>,
        broker_name "bname": Option<String>,
    } -> Empty;

    /// Broker to consumer, one-way: the members of your group have changed.
    40 NOTIFY_CONSUMER_IDS_CHANGED NotifyConsumerIdsChanged (Any) {
        consumer_group "consumerGroup": String,
    } -> Empty;

    /// Locks queues for a client; bodies: `LockBatchRequestBody`, `LockBatchResponseBody`.
    41 LOCK_BATCH_MQ LockBatchMq (Sub) {} -> Empty;

    /// Unlocks queues; body: `LockBatchRequestBody`.
    42 UNLOCK_BATCH_MQ UnlockBatchMq (Sub) {} -> Empty;

    /// All consumer offsets; body: `ConsumerOffsetSerializeWrapper`.
    43 GET_ALL_CONSUMER_OFFSET GetAllConsumerOffset (Cluster) {} -> Empty;

    /// How far delayed messages have been delivered; body: `DelayOffsetSerializeWrapper`.
    45 GET_ALL_DELAY_OFFSET GetAllDelayOffset (Cluster) {} -> Empty;

    /// Would this subscription be accepted? Body: `CheckClientRequestBody`.
    46 CHECK_CLIENT_CONFIG CheckClientConfig (Sub) {} -> Empty;

    /// Never used.
    47 GET_CLIENT_CONFIG GetClientConfig (Any) {} -> Empty;

    /// Access control of 4.x, gone since 5.3; so the next four.
    50 UPDATE_AND_CREATE_ACL_CONFIG UpdateAndCreateAclConfig (Update) {} -> Empty;
    51 DELETE_ACL_CONFIG DeleteAclConfig (Update) {} -> Empty;
    52 GET_BROKER_CLUSTER_ACL_INFO GetBrokerClusterAclInfo (Get) {} -> Empty;
    53 UPDATE_GLOBAL_WHITE_ADDRS_CONFIG UpdateGlobalWhiteAddrsConfig (Update) {} -> Empty;
    54 GET_BROKER_CLUSTER_ACL_CONFIG GetBrokerClusterAclConfig (Get) {} -> Empty;

    /// How far the timer has come; body: seven numbers of 8 bytes.
    60 GET_TIMER_CHECK_POINT GetTimerCheckPoint (Cluster) {} -> Empty;

    /// Waiting timer messages by topic; body: JSON.
    61 GET_TIMER_METRICS GetTimerMetrics (Cluster) {} -> Empty;

    /// Sets a key of the name server's key-value configuration.
    100 PUT_KV_CONFIG PutKvConfig (Update) {
        namespace: String,
        key: String,
        value: String,
    } -> Empty;

    101 GET_KV_CONFIG GetKvConfig (Get) {
        namespace: String,
        key: String,
    } -> GetKvConfigResponse;

    102 DELETE_KV_CONFIG DeleteKvConfig (Update) {
        namespace: String,
        key: String,
    } -> Empty;

    /// A broker tells a name server what it serves; bodies: `RegisterBrokerBody`, `KVTable`.
    103 REGISTER_BROKER RegisterBroker (Cluster) {
        broker_name "brokerName": String,
        broker_addr "brokerAddr": String,
        cluster_name "clusterName": String,
        ha_server_addr "haServerAddr": Option<String>,
        broker_id "brokerId": i64,
        heartbeat_timeout_ms "heartbeatTimeoutMillis": Option<i64>,
        /// Present, whatever its value: the sender knows acting masters (5.x).
        enable_acting_master "enableActingMaster": Option<bool>,
        compressed: bool = false,
        /// CRC-32 of the body without its top bit; 0 means unchecked.
        body_crc32 "bodyCrc32": i32 = 0,
        zone_name "__ZONE_NAME": Option<String>,
    } -> RegisterBrokerResponse;

    104 UNREGISTER_BROKER UnregisterBroker (Cluster) {
        broker_name "brokerName": String,
        broker_addr "brokerAddr": String,
        cluster_name "clusterName": String,
        broker_id "brokerId": i64,
    } -> Empty;

    /// Who serves a topic; body: `TopicRouteData`.
    105 GET_ROUTEINFO_BY_TOPIC GetRouteInfoByTopic (Any) {
        topic: String,
        accept_standard_json_only "acceptStandardJsonOnly": bool = false,
        /// With `zone_name`: brokers of other zones are left out.
        zone_mode "__ZONE_MODE": bool = false,
        zone_name "__ZONE_NAME": Option<String>,
    } -> Empty;

    /// All brokers; body: `ClusterInfo`.
    106 GET_BROKER_CLUSTER_INFO GetBrokerClusterInfo (Any) {} -> Empty;

    /// Creates or changes a group; body: `GroupConfig`.
    200 UPDATE_AND_CREATE_SUBSCRIPTIONGROUP UpdateAndCreateGroup (Update) {} -> Empty;

    /// All groups; body: `SubscriptionGroupWrapper`.
    201 GET_ALL_SUBSCRIPTIONGROUP_CONFIG GetAllGroupConfig (Get) {
        group_seq "groupSeq": Option<i32>,
        data_version "dataVersion": Option<String>,
        max_group_count "maxGroupNum": Option<i32>,
    } -> GetAllGroupConfigResponse;

    /// Offsets of all queues of a topic; body: `TopicStatsTable`.
    202 GET_TOPIC_STATS_INFO GetTopicStats (Get) {
        topic: String,
    } -> Empty;

    /// The clients of a group; body: `ConsumerConnection`.
    203 GET_CONSUMER_CONNECTION_LIST GetConsumerConnectionList (Get) {
        consumer_group "consumerGroup": String,
    } -> Empty;

    /// The clients of a producer group; body: `ProducerConnection`.
    204 GET_PRODUCER_CONNECTION_LIST GetProducerConnectionList (Get) {
        producer_group "producerGroup": String,
    } -> Empty;

    /// No more sends to a broker.
    205 WIPE_WRITE_PERM_OF_BROKER WipeWritePermOfBroker (Update) {
        broker_name "brokerName": String,
    } -> WipeWritePermResponse;

    /// All topics that the name server knows; body: `TopicList`.
    206 GET_ALL_TOPIC_LIST_FROM_NAMESERVER GetAllTopicList (Get) {} -> Empty;

    207 DELETE_SUBSCRIPTIONGROUP DeleteGroup (Delete) {
        group_name "groupName": String,
        clean_offset "cleanOffset": bool = false,
    } -> Empty;

    /// How far a group is behind; body: `ConsumeStats`.
    208 GET_CONSUME_STATS GetConsumeStats (Get) {
        consumer_group "consumerGroup": String,
        topic: Option<String>,
        /// Separated by `;`.
        topic_list "topicList": Option<String>,
    } -> Empty;

    /// Constants without a handler; so the next five.
    209 SUSPEND_CONSUMER SuspendConsumer (Any) {} -> Empty;
    210 RESUME_CONSUMER ResumeConsumer (Any) {} -> Empty;
    211 RESET_CONSUMER_OFFSET_IN_CONSUMER ResetConsumerOffsetInConsumer (Any) {} -> Empty;
    212 RESET_CONSUMER_OFFSET_IN_BROKER ResetConsumerOffsetInBroker (Any) {} -> Empty;
    213 ADJUST_CONSUMER_THREAD_POOL AdjustConsumerThreadPool (Any) {} -> Empty;
    214 WHO_CONSUME_THE_MESSAGE WhoConsumeTheMessage (Any) {} -> Empty;

    215 DELETE_TOPIC_IN_BROKER DeleteTopicInBroker (Delete) {
        topic: String,
    } -> Empty;

    216 DELETE_TOPIC_IN_NAMESRV DeleteTopicInNameServer (Delete) {
        topic: String,
        /// Only the brokers of this cluster.
        cluster_name "clusterName": Option<String>,
    } -> Empty;

    /// Sets the queues of one topic; body: `TopicRouteData`.
    217 REGISTER_TOPIC_IN_NAMESRV RegisterTopicInNameServer (Cluster) {
        topic: String,
    } -> Empty;

    /// Body: `KVTable`.
    219 GET_KVLIST_BY_NAMESPACE GetKvListByNamespace (Get) {
        namespace: String,
    } -> Empty;

    /// Broker to consumer, one-way: go on from these offsets. Body: `ResetOffsetBody`.
    220 RESET_CONSUMER_CLIENT_OFFSET ResetConsumerClientOffset (Any) {
        topic: String,
        group: String,
        timestamp_ms "timestamp": i64,
        is_force "isForce": bool = false,
        queue_id "queueId": i32 = -1,
        offset: Option<i64>,
    } -> Empty;

    /// Broker to consumer: how far are you? Body: `GetConsumerStatusBody`.
    221 GET_CONSUMER_STATUS_FROM_CLIENT GetConsumerStatusFromClient (Any) {
        topic: String,
        group: String,
        client_addr "clientAddr": Option<String>,
    } -> Empty;

    /// Sets the offsets of a whole group; body: `ResetOffsetBody`.
    222 INVOKE_BROKER_TO_RESET_OFFSET ResetOffset (Update) {
        topic: String,
        group: String,
        /// Go to what was stored at that time; -1 to the end.
        timestamp_ms "timestamp": i64,
        is_force "isForce": bool = false,
        queue_id "queueId": i32 = -1,
        offset: Option<i64>,
    } -> Empty;

    /// What [`GetConsumerStatusFromClient`] brings from every client.
    /// Body: `GetConsumerStatusBody`.
    223 INVOKE_BROKER_TO_GET_CONSUMER_STATUS GetConsumerStatus (Get) {
        topic: String,
        group: String,
        client_addr "clientAddr": Option<String>,
    } -> Empty;

    /// Body: `TopicList`.
    224 GET_TOPICS_BY_CLUSTER GetTopicsByCluster (Get) {
        cluster: String,
    } -> Empty;

    /// Body: `SubscriptionGroupList`.
    225 UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST UpdateAndCreateGroupList (Update) {} -> Empty;

    /// The groups that read a topic; body: `GroupList`.
    300 QUERY_TOPIC_CONSUME_BY_WHO QueryTopicConsumeByWho (Get) {
        topic: String,
    } -> Empty;

    /// Gone since 4.x; so the next.
    301 REGISTER_FILTER_SERVER RegisterFilterServer (Any) {} -> Empty;
    302 REGISTER_MESSAGE_FILTER_CLASS RegisterMessageFilterClass (Any) {} -> Empty;

    /// How old the messages are that a group reads now; body: `QueryConsumeTimeSpanBody`.
    303 QUERY_CONSUME_TIME_SPAN QueryConsumeTimeSpan (Get) {
        topic: String,
        group: String,
    } -> Empty;

    /// Cluster and broker names; body: `TopicList`.
    304 GET_SYSTEM_TOPIC_LIST_FROM_NS GetSystemTopicListFromNameServer (Get) {} -> Empty;

    /// Body: `TopicList`.
    305 GET_SYSTEM_TOPIC_LIST_FROM_BROKER GetSystemTopicListFromBroker (Get) {} -> Empty;

    306 CLEAN_EXPIRED_CONSUMEQUEUE CleanExpiredConsumeQueue (Update) {} -> Empty;

    /// To a broker, which asks the client with the same request; body: JSON of the client.
    307 GET_CONSUMER_RUNNING_INFO GetConsumerRunningInfo (Get) {
        consumer_group "consumerGroup": String,
        client_id "clientId": String,
        jstack_enable "jstackEnable": bool = false,
    } -> Empty;

    /// Body: `QueryCorrectionOffsetBody`.
    308 QUERY_CORRECTION_OFFSET QueryCorrectionOffset (Get) {
        /// Separated by `,`.
        filter_groups "filterGroups": Option<String>,
        compare_group "compareGroup": String,
        topic: String,
    } -> Empty;

    /// To a broker, which passes it to the client with the message as body.
    309 CONSUME_MESSAGE_DIRECTLY ConsumeMessageDirectly (Update) {
        consumer_group "consumerGroup": String,
        client_id "clientId": Option<String>,
        msg_id "msgId": Option<String>,
        broker_name "brokerName": Option<String>,
        topic: Option<String>,
        topic_sys_flag "topicSysFlag": Option<i32>,
        group_sys_flag "groupSysFlag": Option<i32>,
    } -> Empty;

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

    /// Bodies of these three: `TopicList`.
    311 GET_UNIT_TOPIC_LIST GetUnitTopicList (Get) {} -> Empty;
    312 GET_HAS_UNIT_SUB_TOPIC_LIST GetHasUnitSubTopicList (Get) {} -> Empty;
    313 GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST GetHasUnitSubUnunitTopicList (Get) {} -> Empty;

    /// Lets a group start where another one is.
    314 CLONE_GROUP_OFFSET CloneGroupOffset (Update) {
        source_group "srcGroup": String,
        dest_group "destGroup": String,
        topic: Option<String>,
        offline: bool = false,
    } -> Empty;

    /// One counter of the broker; body: `BrokerStatsData`.
    315 VIEW_BROKER_STATS_DATA ViewBrokerStats (Get) {
        stats_name "statsName": String,
        stats_key "statsKey": String,
    } -> Empty;

    316 CLEAN_UNUSED_TOPIC CleanUnusedTopic (Update) {} -> Empty;

    /// [`GetConsumeStats`] of every group; body: `ConsumeStatsList`.
    317 GET_BROKER_CONSUME_STATS GetBrokerConsumeStats (Get) {
        is_order "isOrder": bool = false,
    } -> Empty;

    /// Body: properties text; so the next.
    318 UPDATE_NAMESRV_CONFIG UpdateNameServerConfig (Update) {} -> Empty;
    319 GET_NAMESRV_CONFIG GetNameServerConfig (Get) {} -> Empty;

    /// A batch of messages; body: [`super::batch`].
    320 SEND_BATCH_MESSAGE SendBatchMessage<'a> (Pub) [SendMessageV2] -> SendMessageResponse<'a>;

    /// Units of a consume queue; body: `QueryConsumeQueueResponseBody`.
    321 QUERY_CONSUME_QUEUE QueryConsumeQueue (Get) {
        topic: String,
        queue_id "queueId": i32 = 0,
        index: i64 = 0,
        count: i32 = 0,
        consumer_group "consumerGroup": Option<String>,
    } -> Empty;

    /// Has the name server this version of a broker's topics? Bodies: `DataVersion`.
    322 QUERY_DATA_VERSION QueryDataVersion (Cluster) {
        broker_name "brokerName": String,
        broker_addr "brokerAddr": String,
        cluster_name "clusterName": String,
        broker_id "brokerId": i64,
    } -> QueryDataVersionResponse;

    /// Checks a half message again that was given up.
    323 RESUME_CHECK_HALF_MESSAGE ResumeCheckHalfMessage (Update) {
        topic: Option<String>,
        msg_id "msgId": Option<String>,
    } -> Empty;

    /// A reply to the client that sent the request.
    324 SEND_REPLY_MESSAGE SendReplyMessage<'a> (Pub) [SendMessage] -> SendMessageResponse<'a>;
    325 SEND_REPLY_MESSAGE_V2 SendReplyMessageV2<'a> (Pub) [SendMessageV2]
        -> SendMessageResponse<'a>;

    /// Broker to producer: a reply has come. Body: that of the reply.
    326 PUSH_REPLY_MESSAGE_TO_CLIENT PushReplyMessage (Any) {
        producer_group "producerGroup": String,
        topic: String,
        default_topic "defaultTopic": String,
        default_topic_queue_count "defaultTopicQueueNums": i32,
        queue_id "queueId": i32,
        sys_flag "sysFlag": i32,
        born_ms "bornTimestamp": i64,
        flag: i32,
        properties: Option<String>,
        reconsume_times "reconsumeTimes": Option<i32>,
        unit_mode "unitMode": bool = false,
        /// `ip:port`, as `store_host`.
        born_host "bornHost": String,
        store_host "storeHost": String,
        store_ms "storeTimestamp": i64,
    } -> Empty;

    /// Undoes [`WipeWritePermOfBroker`].
    327 ADD_WRITE_PERM_OF_BROKER AddWritePermOfBroker (Update) {
        broker_name "brokerName": String,
    } -> AddWritePermResponse;

    /// Body: `ProducerTableInfo`.
    328 GET_ALL_PRODUCER_INFO GetAllProducerInfo (Get) {} -> Empty;

    329 DELETE_EXPIRED_COMMITLOG DeleteExpiredCommitLog (Update) {} -> Empty;

    /// The topics that a group has offsets for; body: `TopicList`.
    343 QUERY_TOPICS_BY_CONSUMER QueryTopicsByConsumer (Get) {
        group: String,
    } -> Empty;

    /// Body: `QuerySubscriptionResponseBody`.
    345 QUERY_SUBSCRIPTION_BY_CONSUMER QuerySubscriptionByConsumer (Get) {
        group: String,
        topic: Option<String>,
    } -> Empty;

    /// Body: `TopicConfig`.
    351 GET_TOPIC_CONFIG GetTopicConfig (Get) {
        topic: String,
        /// The mapping of a static topic applies.
        logical "lo": Option<bool>,
    } -> Empty;

    /// Body: `GroupConfig`.
    352 GET_SUBSCRIPTIONGROUP_CONFIG GetGroupConfig (Get) {
        group: String,
    } -> Empty;

    /// Forbids a group to read a topic, or allows it; body: `GroupForbidden`.
    353 UPDATE_AND_GET_GROUP_FORBIDDEN UpdateAndGetGroupForbidden (Update) {
        group: String,
        topic: String,
        /// Absent: only tell.
        readable: Option<bool>,
    } -> Empty;

    354 CHECK_ROCKSDB_CQ_WRITE_PROGRESS CheckRocksdbCqWriteProgress (Get) {
        topic: String,
        check_store_time_ms "checkStoreTime": Option<i64>,
    } -> Empty;

    355 EXPORT_ROCKSDB_CONFIG_TO_JSON ExportRocksdbConfigToJson (Update) {
        config_type "configType": String,
    } -> Empty;

    /// A pull of a consumer that assigns its queues itself.
    361 LITE_PULL_MESSAGE LitePullMessage<'a> (Sub) [PullMessage] -> PullMessageResponse;

    /// Takes a timer message back before it is delivered.
    370 RECALL_MESSAGE RecallMessage (Pub) {
        producer_group "producerGroup": Option<String>,
        topic: String,
        recall_handle "recallHandle": String,
    } -> RecallMessageResponse;

    /// Which queues shall I read?
    /// Bodies: `QueryAssignmentRequestBody`, `QueryAssignmentResponseBody`.
    400 QUERY_ASSIGNMENT QueryAssignment (Sub) {} -> Empty;

    /// Pull or pop for a group and topic; body: `SetMessageRequestModeRequestBody`.
    401 SET_MESSAGE_REQUEST_MODE SetMessageRequestMode (Update) {} -> Empty;

    /// Body: `MessageRequestModeSerializeWrapper`.
    402 GET_ALL_MESSAGE_REQUEST_MODE GetAllMessageRequestMode (Cluster) {} -> Empty;

    /// [`UpdateAndCreateTopic`] of a static topic; body: `TopicQueueMappingDetail`.
    513 UPDATE_AND_CREATE_STATIC_TOPIC UpdateAndCreateStaticTopic (Create)
        [UpdateAndCreateTopic] -> Empty;

    /// The addresses of a set of brokers; body: `GetBrokerMemberGroupResponseBody`.
    901 GET_BROKER_MEMBER_GROUP GetBrokerMemberGroup (Get) {
        cluster_name "clusterName": String,
        broker_name "brokerName": String,
    } -> Empty;

    /// To a broker container; so the next.
    902 ADD_BROKER AddBroker (Cluster) {
        config_path "configPath": Option<String>,
    } -> Empty;

    903 REMOVE_BROKER RemoveBroker (Cluster) {
        broker_name "brokerName": String,
        cluster_name "brokerClusterName": String,
        broker_id "brokerId": i64,
    } -> Empty;

    /// To name server and controller: still here.
    904 BROKER_HEARTBEAT BrokerHeartbeat (Cluster) {
        cluster_name "clusterName": String,
        broker_addr "brokerAddr": String,
        broker_name "brokerName": String,
        broker_id "brokerId": Option<i64>,
        epoch: Option<i32>,
        max_offset "maxOffset": Option<i64>,
        confirm_offset "confirmOffset": Option<i64>,
        heartbeat_timeout_ms "heartbeatTimeoutMills": Option<i64>,
        election_priority "electionPriority": Option<i32>,
    } -> Empty;

    /// Name server to brokers, one-way: the smallest id of your set has changed.
    905 NOTIFY_MIN_BROKER_ID_CHANGE NotifyMinBrokerIdChange (Cluster) {
        min_broker_id "minBrokerId": Option<i64>,
        broker_name "brokerName": Option<String>,
        min_broker_addr "minBrokerAddr": Option<String>,
        offline_broker_addr "offlineBrokerAddr": Option<String>,
        ha_broker_addr "haBrokerAddr": Option<String>,
    } -> Empty;

    /// Master and slave tell each other where they are.
    906 EXCHANGE_BROKER_HA_INFO ExchangeBrokerHaInfo (Cluster) {
        master_ha_address "masterHaAddress": Option<String>,
        master_flush_offset "masterFlushOffset": Option<i64>,
        master_address "masterAddress": Option<String>,
    } -> ExchangeBrokerHaInfoResponse;

    /// Body: `HARuntimeInfo`.
    907 GET_BROKER_HA_STATUS GetBrokerHaStatus (Get) {} -> Empty;

    908 RESET_MASTER_FLUSH_OFFSET ResetMasterFlushOffset (Cluster) {
        master_flush_offset "masterFlushOffset": i64,
    } -> Empty;

    /// Bodies, both ways: `SyncStateSet`.
    1001 CONTROLLER_ALTER_SYNC_STATE_SET AlterSyncStateSet (Cluster) {
        broker_name "brokerName": String,
        master_broker_id "masterBrokerId": i64,
        master_epoch "masterEpoch": i32,
        invoke_time_ms "invokeTime": Option<i64>,
    } -> AlterSyncStateSetResponse;

    /// Body: `ElectMasterResponseBody`.
    1002 CONTROLLER_ELECT_MASTER ElectMaster (Cluster) {
        cluster_name "clusterName": Option<String>,
        broker_name "brokerName": String,
        broker_id "brokerId": Option<i64>,
        /// An operator wants exactly this broker.
        designate_elect "designateElect": bool = false,
        invoke_time_ms "invokeTime": Option<i64>,
    } -> ElectMasterResponse;

    /// Body: `SyncStateSet`.
    1003 CONTROLLER_REGISTER_BROKER RegisterBrokerToController (Cluster) {
        cluster_name "clusterName": String,
        broker_name "brokerName": String,
        broker_id "brokerId": i64,
        broker_address "brokerAddress": String,
        invoke_time_ms "invokeTime": Option<i64>,
    } -> RegisterBrokerToControllerResponse;

    /// Body: `SyncStateSet`.
    1004 CONTROLLER_GET_REPLICA_INFO GetReplicaInfo (Cluster) {
        broker_name "brokerName": String,
    } -> GetReplicaInfoResponse;

    1005 CONTROLLER_GET_METADATA_INFO GetControllerMetadata (Get) {} -> ControllerMetadataResponse;

    /// Body: names of brokers as a JSON list; response: `BrokerReplicasInfo`.
    1006 CONTROLLER_GET_SYNC_STATE_DATA GetSyncStateData (Get) {} -> Empty;

    /// Body: `EpochEntryCache`.
    1007 GET_BROKER_EPOCH_CACHE GetBrokerEpochCache (Get) {} -> Empty;

    /// Controller to broker, one-way: who is master now. Body: `SyncStateSet`.
    1008 NOTIFY_BROKER_ROLE_CHANGED NotifyBrokerRoleChanged (Cluster) {
        master_address "masterAddress": Option<String>,
        master_epoch "masterEpoch": Option<i32>,
        sync_state_set_epoch "syncStateSetEpoch": Option<i32>,
        master_broker_id "masterBrokerId": Option<i64>,
    } -> Empty;

    /// Body: properties text; so the next.
    1009 UPDATE_CONTROLLER_CONFIG UpdateControllerConfig (Update) {} -> Empty;
    1010 GET_CONTROLLER_CONFIG GetControllerConfig (Get) {} -> Empty;

    1011 CLEAN_BROKER_DATA CleanBrokerData (Update) {
        cluster_name "clusterName": Option<String>,
        broker_name "brokerName": String,
        /// Separated by `;`.
        broker_ids "brokerControllerIdsToClean": Option<String>,
        clean_living_broker "isCleanLivingBroker": bool = false,
        invoke_time_ms "invokeTime": Option<i64>,
    } -> Empty;

    1012 CONTROLLER_GET_NEXT_BROKER_ID GetNextBrokerId (Cluster) {
        cluster_name "clusterName": String,
        broker_name "brokerName": String,
    } -> GetNextBrokerIdResponse;

    1013 CONTROLLER_APPLY_BROKER_ID ApplyBrokerId (Cluster) {
        cluster_name "clusterName": String,
        broker_name "brokerName": String,
        applied_broker_id "appliedBrokerId": i64,
        register_check_code "registerCheckCode": String,
    } -> ApplyBrokerIdResponse;

    /// Between controllers of upstream, in its own consensus; so the next four.
    1014 BROKER_CLOSE_CHANNEL_REQUEST BrokerCloseChannel (Cluster) {} -> Empty;
    1015 CHECK_NOT_ACTIVE_BROKER_REQUEST CheckNotActiveBroker (Cluster) {} -> Empty;
    1016 GET_BROKER_LIVE_INFO_REQUEST GetBrokerLiveInfo (Cluster) {} -> Empty;
    1017 GET_SYNC_STATE_DATA_REQUEST GetSyncStateDataInternal (Cluster) {} -> Empty;
    1018 RAFT_BROKER_HEART_BEAT_EVENT_REQUEST RaftBrokerHeartBeatEvent (Cluster) {} -> Empty;

    /// Body: properties text, `group=threshold`.
    2001 UPDATE_COLD_DATA_FLOW_CTR_CONFIG UpdateColdDataFlowConfig (Update) {} -> Empty;

    /// Body: the group's name.
    2002 REMOVE_COLD_DATA_FLOW_CTR_CONFIG RemoveColdDataFlowConfig (Update) {} -> Empty;

    /// Body: JSON.
    2003 GET_COLD_DATA_FLOW_CTR_INFO GetColdDataFlowInfo (Get) {} -> Empty;

    2004 SET_COMMITLOG_READ_MODE SetCommitLogReadMode (Update) {
        /// 0 normal, 1 random.
        read_ahead_mode "READ_AHEAD_MODE": Option<String>,
    } -> Empty;

    /// Body: `UserInfo`; so the next.
    3001 AUTH_CREATE_USER AuthCreateUser (Update) {
        username: Option<String>,
    } -> Empty;

    3002 AUTH_UPDATE_USER AuthUpdateUser (Update) {
        username: Option<String>,
    } -> Empty;

    3003 AUTH_DELETE_USER AuthDeleteUser (Update) {
        username: Option<String>,
    } -> Empty;

    /// Body: `UserInfo`, or none.
    3004 AUTH_GET_USER AuthGetUser (Get) {
        username: Option<String>,
    } -> Empty;

    /// Body: a list of `UserInfo`, or none.
    3005 AUTH_LIST_USER AuthListUser (Get) {
        filter: Option<String>,
    } -> Empty;

    /// Body: `AclInfo`; so the next.
    3006 AUTH_CREATE_ACL AuthCreateAcl (Update) {
        subject: Option<String>,
    } -> Empty;

    3007 AUTH_UPDATE_ACL AuthUpdateAcl (Update) {
        subject: Option<String>,
    } -> Empty;

    3008 AUTH_DELETE_ACL AuthDeleteAcl (Update) {
        subject: Option<String>,
        policy_type "policyType": Option<String>,
        resource: Option<String>,
    } -> Empty;

    /// Body: `AclInfo`, or none.
    3009 AUTH_GET_ACL AuthGetAcl (Get) {
        subject: Option<String>,
    } -> Empty;

    /// Body: a list of `AclInfo`, or none.
    3010 AUTH_LIST_ACL AuthListAcl (Get) {
        subject_filter "subjectFilter": Option<String>,
        resource_filter "resourceFilter": Option<String>,
    } -> Empty;

    5001 SWITCH_TIMER_ENGINE SwitchTimerEngine (Update) {
        /// `F` the wheel of files, `R` RocksDB.
        engine "E_T": Option<String>,
    } -> Empty;

    /// Reads messages of all queues of a topic; each is invisible to others for a time.
    200050 POP_MESSAGE PopMessage<'a> (Sub) {
        consumer_group "consumerGroup": Text<'a>,
        topic: Text<'a>,
        /// -1: any queue.
        queue_id "queueId": i32,
        max_count "maxMsgNums": i32,
        invisible_ms "invisibleTime": i64,
        poll_ms "pollTime": i64,
        born_ms "bornTime": i64,
        /// Where a new group starts: 0 at the oldest message, 1 at the end.
        init_mode "initMode": i32,
        expression_type "expType": Option<Text<'a>>,
        expression "exp": Option<Text<'a>>,
        order: bool = false,
        attempt_id "attemptId": Option<Text<'a>>,
    } -> PopMessageResponse<'a>;

    /// A popped message is done.
    200051 ACK_MESSAGE AckMessage<'a> (Sub) {
        consumer_group "consumerGroup": Text<'a>,
        topic: Text<'a>,
        queue_id "queueId": i32,
        /// The message's property `POP_CK`.
        receipt_handle "extraInfo": Text<'a>,
        offset: i64,
        lite_topic "liteTopic": Option<Text<'a>>,
    } -> Empty;

    /// A look at messages without taking them.
    200052 PEEK_MESSAGE PeekMessage (Sub) {
        topic: String,
        queue_id "queueId": i32,
        max_count "maxMsgNums": i32,
        consumer_group "consumerGroup": String,
    } -> PopMessageResponse<'a>;

    /// A popped message stays invisible for another time.
    200053 CHANGE_MESSAGE_INVISIBLETIME ChangeInvisibleTime<'a> (Sub) {
        consumer_group "consumerGroup": Text<'a>,
        topic: Text<'a>,
        queue_id "queueId": i32,
        receipt_handle "extraInfo": Text<'a>,
        offset: i64,
        invisible_ms "invisibleTime": i64,
        lite_topic "liteTopic": Option<Text<'a>>,
        /// The next delivery does not count as another attempt.
        suspend: bool = false,
    } -> ChangeInvisibleTimeResponse;

    /// Waits until there is something to pop.
    200054 NOTIFICATION Notification (Sub) {
        consumer_group "consumerGroup": String,
        topic: String,
        queue_id "queueId": i32,
        poll_ms "pollTime": i64,
        born_ms "bornTime": i64,
        order: bool = false,
        attempt_id "attemptId": Option<String>,
        expression_type "expType": Option<String>,
        expression "exp": Option<String>,
    } -> NotificationResponse;

    /// How many pops wait.
    200055 POLLING_INFO PollingInfo (Sub) {
        consumer_group "consumerGroup": String,
        topic: String,
        queue_id "queueId": i32,
    } -> PollingInfoResponse;

    200056 POP_ROLLBACK PopRollback (Update) {} -> Empty;

    /// [`PopMessage`] from the lite topics that a client has subscribed to.
    200070 POP_LITE_MESSAGE PopLiteMessage (Sub) {
        client_id "clientId": String,
        consumer_group "consumerGroup": String,
        /// The parent topic.
        topic: String,
        /// Without the `s` of the other requests.
        max_count "maxMsgNum": i32,
        invisible_ms "invisibleTime": i64,
        poll_ms "pollTime": i64,
        born_ms "bornTime": i64,
        attempt_id "attemptId": Option<String>,
    } -> PopMessageResponse<'a>;

    /// Body: `LiteSubscriptionCtlRequestBody`.
    200071 LITE_SUBSCRIPTION_CTL LiteSubscriptionCtl (Sub) {} -> Empty;

    /// A constant without a handler.
    200072 ACK_LITE_MESSAGE AckLiteMessage (Sub) {} -> Empty;

    /// Broker to client, one-way: another client has taken over this lite topic.
    200073 NOTIFY_UNSUBSCRIBE_LITE NotifyUnsubscribeLite (Any) {
        lite_topic "liteTopic": String,
        consumer_group "consumerGroup": String,
        client_id "clientId": String,
    } -> Empty;

    /// Bodies of the next five: JSON.
    200074 GET_BROKER_LITE_INFO GetBrokerLiteInfo (Get) {} -> Empty;

    200075 GET_PARENT_TOPIC_INFO GetParentTopicInfo (Get) {
        topic: String,
    } -> Empty;

    200076 GET_LITE_TOPIC_INFO GetLiteTopicInfo (Get) {
        parent_topic "parentTopic": Option<String>,
        lite_topic "liteTopic": Option<String>,
    } -> Empty;

    200077 GET_LITE_CLIENT_INFO GetLiteClientInfo (Get) {
        parent_topic "parentTopic": Option<String>,
        group: Option<String>,
        client_id "clientId": Option<String>,
        max_count "maxCount": i32 = 1000,
    } -> Empty;

    200078 GET_LITE_GROUP_INFO GetLiteGroupInfo (Get) {
        group: String,
        lite_topic "liteTopic": Option<String>,
        top_count "topK": i32 = 0,
    } -> Empty;

    200079 TRIGGER_LITE_DISPATCH TriggerLiteDispatch (Update) {
        group: String,
        client_id "clientId": Option<String>,
    } -> Empty;

    /// [`AckMessage`] for many; body: `BatchAckMessageRequestBody`.
    200151 BATCH_ACK_MESSAGE BatchAckMessage (Sub) {} -> Empty;
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

fields! {
    TimestampResponse {
        timestamp_ms "timestamp": i64,
    }
}

fields! {
    /// How far the index has come.
    QueryMessageResponse {
        index_updated_ms "indexLastUpdateTimestamp": i64,
        index_log_offset "indexLastUpdatePhyoffset": i64,
    }
}

fields! {
    GetAllTopicConfigResponse {
        total_topic_count "totalTopicNum": Option<i32>,
    }
}

fields! {
    GetAllGroupConfigResponse {
        total_group_count "totalGroupNum": Option<i32>,
    }
}

fields! {
    GetBrokerConfigResponse {
        /// A `DataVersion` as JSON.
        version: String,
    }
}

fields! {
    HeartBeatResponse {
        supports_v2 "IS_SUPPORT_HEART_BEAT_V2": bool = false,
        /// The subscriptions are others than before.
        is_sub_change "IS_SUB_CHANGE": bool = false,
    }
}

fields! {
    GetKvConfigResponse {
        value: Option<String>,
    }
}

fields! {
    /// A slave learns its master.
    RegisterBrokerResponse {
        ha_server_addr "haServerAddr": Option<String>,
        master_addr "masterAddr": Option<String>,
    }
}

fields! {
    WipeWritePermResponse {
        topic_count "wipeTopicCount": i32,
    }
}

fields! {
    AddWritePermResponse {
        topic_count "addTopicCount": i32,
    }
}

fields! {
    QueryDataVersionResponse {
        changed: bool,
    }
}

fields! {
    RecallMessageResponse {
        msg_id "msgId": String,
    }
}

fields! {
    ExchangeBrokerHaInfoResponse {
        master_ha_address "masterHaAddress": Option<String>,
        master_flush_offset "masterFlushOffset": Option<i64>,
        master_address "masterAddress": Option<String>,
    }
}

fields! {
    AlterSyncStateSetResponse {
        sync_state_set_epoch "newSyncStateSetEpoch": i32,
    }
}

fields! {
    ElectMasterResponse {
        master_broker_id "masterBrokerId": Option<i64>,
        master_address "masterAddress": Option<String>,
        master_epoch "masterEpoch": Option<i32>,
        sync_state_set_epoch "syncStateSetEpoch": Option<i32>,
    }
}

fields! {
    /// Without a master the last four are absent.
    RegisterBrokerToControllerResponse {
        cluster_name "clusterName": Option<String>,
        broker_name "brokerName": Option<String>,
        master_broker_id "masterBrokerId": Option<i64>,
        master_address "masterAddress": Option<String>,
        master_epoch "masterEpoch": Option<i32>,
        sync_state_set_epoch "syncStateSetEpoch": Option<i32>,
    }
}

fields! {
    GetReplicaInfoResponse {
        master_broker_id "masterBrokerId": Option<i64>,
        master_address "masterAddress": Option<String>,
        master_epoch "masterEpoch": Option<i32>,
    }
}

fields! {
    ControllerMetadataResponse {
        group: Option<String>,
        leader_id "controllerLeaderId": Option<String>,
        leader_address "controllerLeaderAddress": Option<String>,
        is_leader "isLeader": bool = false,
        peers: Option<String>,
    }
}

fields! {
    GetNextBrokerIdResponse {
        cluster_name "clusterName": Option<String>,
        broker_name "brokerName": Option<String>,
        next_broker_id "nextBrokerId": i64,
    }
}

fields! {
    ApplyBrokerIdResponse {
        cluster_name "clusterName": Option<String>,
        broker_name "brokerName": Option<String>,
    }
}

fields! {
    /// Comes with the messages as body.
    PopMessageResponse<'a> {
        pop_time_ms "popTime": i64 = 0,
        invisible_ms "invisibleTime": i64 = 0,
        revive_queue_id "reviveQid": i32 = 0,
        rest_count "restNum": i64 = 0,
        /// Which offsets of which queues the body holds; `messages.md` 10.
        start_offset_info "startOffsetInfo": Option<Text<'a>>,
        msg_offset_info "msgOffsetInfo": Option<Text<'a>>,
        order_count_info "orderCountInfo": Option<Text<'a>>,
    }
}

fields! {
    /// What the new receipt handle is made of.
    ChangeInvisibleTimeResponse {
        pop_time_ms "popTime": i64,
        invisible_ms "invisibleTime": i64,
        revive_queue_id "reviveQid": i32,
    }
}

fields! {
    NotificationResponse {
        has_msg "hasMsg": bool,
        polling_full "pollingFull": bool = false,
    }
}

fields! {
    PollingInfoResponse {
        polling_count "pollingNum": i32,
    }
}

/// The row of a code.
#[must_use]
pub fn request_info(code: i32) -> Option<&'static RequestInfo> {
    REQUESTS.binary_search_by_key(&code, |info| info.code).ok().map(|at| &REQUESTS[at])
}

/// Upstream's name of a code.
#[must_use]
pub fn request_name(code: i32) -> Option<&'static str> {
    request_info(code).map(|info| info.name)
}

/// The table as a page of the manual.
#[must_use]
pub fn protocol_page() -> String {
    let mut page =
        "| code | request | permission | fields | response |\n|---|---|---|---|---|\n".to_owned();
    for info in REQUESTS {
        let (fields, response) = (field_list(info.fields), field_list(info.response));
        let (code, name, permission) = (info.code, info.name, info.permission);
        writeln!(page, "| {code} | {name} | {permission:?} | {fields} | {response} |")
            .expect("a String takes everything");
    }
    page
}

fn field_list(fields: &[FieldInfo]) -> String {
    if fields.is_empty() {
        return "-".to_owned();
    }
    fields.iter().map(FieldInfo::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_rise_and_names_are_unique() {
        assert!(REQUESTS.is_sorted_by(|a, b| a.code < b.code));
        let mut names: Vec<_> = REQUESTS.iter().map(|info| info.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), REQUESTS.len());
    }

    #[test]
    fn codes_have_upstreams_names() {
        assert_eq!(request_name(310), Some("SEND_MESSAGE_V2"));
        assert_eq!(request_name(301), Some("REGISTER_FILTER_SERVER"));
        assert_eq!(request_name(200_151), Some("BATCH_ACK_MESSAGE"));
        assert_eq!(request_name(999), None);
    }

    #[test]
    fn the_page_of_the_manual_has_a_row_for_every_code() {
        let page = protocol_page();
        assert_eq!(page.lines().count(), REQUESTS.len() + 2);
        assert!(page.contains("| 31 | GET_MIN_OFFSET | Get | topic s, queueId i | offset l |\n"));
        assert!(page.contains("| 13 | QUERY_BROKER_OFFSET | Any | - | - |\n"));
    }
}
