//! The settings of a broker. Meaning and defaults: spec `config.md` 2.1.

use super::{AdvertisedAddresses, settings};

settings! {
    /// What a broker is, and what it allows.
    BrokerSettings {
        /// Name of the set of a master and its slaves. Unset: the name of the host.
        "brokerName" broker_name: String = String::new(), AtRestart important;
        /// Name of the cluster that this broker belongs to.
        "brokerClusterName" broker_cluster_name: String =
            "DefaultCluster".into(), AtRestart important;
        /// 0 is a master, above 0 a slave.
        "brokerId" broker_id: i64 = 0, AtRestart important;
        /// Name servers to register with, `host:port;host:port`.
        "namesrvAddr" namesrv_addr: String = String::new(), Live important;
        /// Port for clients. Two less is open too: clients before 4.9 derive it.
        "listenPort" listen_port: u16 = 10911, AtRestart important;
        /// Address given to every client. Unset: each is told the one under which it reached us.
        "brokerIP1" broker_ip1: String = String::new(), AtRestart important;
        /// What clients are told that came a certain way, before brokerIP1: an address of ours that
        /// they reached (`*:9876`: any with that port), or their network, then what they can dial.
        /// The first that fits wins: `192.168.0.0/16=192.168.1.9:10911; *:9876=203.0.113.7:19876`.
        "advertisedAddresses" advertised_addresses: AdvertisedAddresses =
            AdvertisedAddresses::default(), AtRestart;
        /// Address given to slaves. Unset: like brokerIP1.
        "brokerIP2" broker_ip2: String = String::new(), AtRestart;
        /// What clients may do: 6 read and write, 4 read only, 2 write only.
        "brokerPermission" broker_permission: i32 = 6, Live;

        /// Queues of a topic that a send creates, at most.
        "defaultTopicQueueNums" default_topic_queue_nums: i32 = 8, AtRestart;
        /// Whether a send to an unknown topic creates it.
        "autoCreateTopicEnable" auto_create_topic_enable: bool = true, Live important;
        /// Whether an unknown group is created when it first consumes.
        "autoCreateSubscriptionGroup" auto_create_subscription_group: bool = true, Live important;
        /// Whether clients may send to the topic that is called as the cluster.
        "clusterTopicEnable" cluster_topic_enable: bool = true, AtRestart;
        /// Whether clients may send to the topic that is called as the broker.
        "brokerTopicEnable" broker_topic_enable: bool = true, AtRestart;
        /// Whether the topic for message traces exists from the start.
        "traceTopicEnable" trace_topic_enable: bool = false, AtRestart important;
        /// Name of the topic for message traces.
        "msgTraceTopicName" msg_trace_topic_name: String = "RMQ_SYS_TRACE_TOPIC".into(),
            AtRestart important;
        /// Whether groups of the system are created when they first consume.
        "enableCreateSysGroup" enable_create_sys_group: bool = true, Live;
        /// Whether system topics are protected from changes.
        "validateSystemTopicWhenUpdateTopic" validate_system_topic_when_update_topic: bool =
            true, Live;
        /// Whether topics may take messages of every type.
        "enableMixedMessageType" enable_mixed_message_type: bool = false, Live;

        /// Time (ms since 1970) before which sends are refused.
        "startAcceptSendRequestTimeStamp" start_accept_send_request_time_stamp: i64 = 0, Live;
        /// Whether transactional messages are refused.
        "rejectTransactionMessage" reject_transaction_message: bool = false, Live important;
        /// Region that a send is told, kept with each message.
        "regionId" region_id: String = "DefaultRegion".into(), Live;
        /// Whether a send is told to trace.
        "traceOn" trace_on: bool = true, Live;
        /// Whether replies of request-reply are stored if they cannot be pushed.
        "storeReplyMessageEnable" store_reply_message_enable: bool = true, Live;
        /// Whether a delayed message can be taken back.
        "recallMessageEnable" recall_message_enable: bool = false, Live;
        /// Delays of the levels 1, 2, ...
        "messageDelayLevel" message_delay_level: String =
            "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h".into(), AtRestart;
        /// How often the progress of delay levels is saved, in ms.
        "flushDelayOffsetInterval" flush_delay_offset_interval: u64 = 10_000, AtRestart;

        /// Whether a pull waits for messages.
        "longPollingEnable" long_polling_enable: bool = true, Live;
        /// How long a pull waits while longPollingEnable is off, in ms.
        "shortPollingTimeMills" short_polling_time_mills: u64 = 1000, Live;
        /// Whether lite pull consumers are served.
        "litePullMessageEnable" lite_pull_message_enable: bool = true, Live;
        /// Whether pull consumers are refused.
        "rejectPullConsumerEnable" reject_pull_consumer_enable: bool = false, Live;
        /// Whether consumers may filter by SQL92.
        "enablePropertyFilter" enable_property_filter: bool = false, Live;
        /// Whether SQL92 filters apply to retry topics too.
        "filterSupportRetry" filter_support_retry: bool = false, Live;
        /// Whether consumers are told when their group changes.
        "notifyConsumerIdsChangedEnable" notify_consumer_ids_changed_enable: bool = true, Live;
        /// Whether they are told at once, else every 15 s.
        "realTimeNotifyConsumerChange" real_time_notify_consumer_change: bool = true, Live;
        /// Whether answers may send a consumer to a slave.
        "slaveReadEnable" slave_read_enable: bool = false, Live;

        /// How often the progress of groups is saved, in ms.
        "flushConsumerOffsetInterval" flush_consumer_offset_interval: u64 = 5000, AtRestart;
        /// Commits of offsets after which their version goes up.
        "consumerOffsetUpdateVersionStep" consumer_offset_update_version_step: u64 = 500, Live;
        /// Whether a reset of offsets is kept here until its consumer asks.
        "useServerSideResetOffset" use_server_side_reset_offset: bool = true, Live;
        /// Age at which a silent client is forgotten, in ms.
        "channelExpiredTimeout" channel_expired_timeout: u64 = 120_000, AtRestart;
        /// Age at which a subscription of a silent group is forgotten, in ms.
        "subscriptionExpiredTimeout" subscription_expired_timeout: u64 = 600_000, AtRestart;

        /// How often the broker registers, in ms; 10000 to 60000.
        "registerNameServerPeriod" register_name_server_period: u64 = 30_000, AtRestart;
        /// Time limit of a registration, in ms.
        "registerBrokerTimeoutMills" register_broker_timeout_mills: u64 = 24_000, Live;
        /// Whether all topics are registered each time, and not only what has changed (upstream's
        /// default is true): for 10,000 topics 2 MB to each name server.
        "forceRegister" force_register: bool = false, Live;
        /// Whether the body of a registration is compressed.
        "compressedRegister" compressed_register: bool = false, Live;
        /// Silence after which name servers drop this broker, in ms.
        "brokerNotActiveTimeoutMillis" broker_not_active_timeout_millis: u64 = 10_000, Live;
    }
}
