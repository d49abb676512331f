//! The settings of a broker. Meaning and defaults: spec `config.md` 2.1, and 2.2 where it decides.

use super::value::INT_MAX;
use super::{Addresses, AdvertisedAddresses, DelayLevels, settings};

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
        "namesrvAddr" namesrv_addr: Addresses = Addresses::default(), Live important;
        /// Port for clients. Two less is open too: clients before 4.9 derive it.
        "listenPort" listen_port: u16 [1..=65_535] = 10911, AtRestart important;
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
        "brokerPermission" broker_permission: i32 [0..=7] = 6, Live;

        /// Queues of a topic that a send creates, at most.
        "defaultTopicQueueNums" default_topic_queue_nums: i32 [1..=65_536] = 8, AtRestart;
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

        /// Time (ms since 1970) before which sends are refused.
        "startAcceptSendRequestTimeStamp" start_accept_send_request_time_stamp: i64 = 0, Live;
        /// Largest body in bytes.
        "maxMessageSize" max_message_size: u32 [1..=INT_MAX] = 4 << 20, Live;
        /// Region that a send is told, kept with each message.
        "regionId" region_id: String = "DefaultRegion".into(), Live;
        /// Whether a send is told to trace.
        "traceOn" trace_on: bool = true, Live;
        /// Whether replies of request-reply are stored if they cannot be pushed.
        "storeReplyMessageEnable" store_reply_message_enable: bool = true, Live;
        /// Delays of the levels 1, 2, ...
        "messageDelayLevel" message_delay_level: DelayLevels =
            DelayLevels::default(), AtRestart;

        /// Whether a pull waits for messages.
        "longPollingEnable" long_polling_enable: bool = true, Live;
        /// How long a pull waits while longPollingEnable is off, in ms.
        "shortPollingTimeMills" short_polling_time_mills: u64 = 1000, Live;
        /// Messages of one pull, at most.
        "maxTransferCountOnMessageInMemory" max_transfer_count_on_message_in_memory:
            u32 [1..=INT_MAX] = 32, Live important;
        /// Bytes of one pull, at most; a longer message comes alone. No pull is longer than the
        /// 16 MiB that clients take.
        "maxTransferBytesOnMessageInMemory" max_transfer_bytes_on_message_in_memory:
            u32 [1..=INT_MAX] = 256 << 10, Live important;
        /// Results of a query by key, at most.
        "maxMsgsNumBatch" max_msgs_num_batch: u32 [1..=INT_MAX] = 64, Live;
        /// Results of a query by unique key, at most.
        "defaultQueryMaxNum" default_query_max_num: u32 [1..=INT_MAX] = 32, Live;
        /// Whether lite pull consumers are served.
        "litePullMessageEnable" lite_pull_message_enable: bool = true, Live;
        /// Whether pull consumers are refused that no heartbeat has announced.
        "rejectPullConsumerEnable" reject_pull_consumer_enable: bool = false, Live;
        /// Whether consumers are told when their group changes.
        "notifyConsumerIdsChangedEnable" notify_consumer_ids_changed_enable: bool = true, Live;

        /// Whether answers may send a consumer to a slave.
        "slaveReadEnable" slave_read_enable: bool = false, Live;

        /// How often the progress of groups is saved, in ms.
        "flushConsumerOffsetInterval" flush_consumer_offset_interval: u64 [1..=INT_MAX] =
            5000, AtRestart;

        /// How often the broker registers, in ms; 10000 to 60000.
        "registerNameServerPeriod" register_name_server_period: u64 = 30_000, AtRestart;
        /// Time limit of a registration, in ms.
        "registerBrokerTimeoutMills" register_broker_timeout_mills: u64 = 24_000, Live;
        /// Whether all topics are registered each time, and not only what has changed (upstream's
        /// default is true): for 10,000 topics 2 MB to each name server.
        "forceRegister" force_register: bool = false, Live;
    }
}
