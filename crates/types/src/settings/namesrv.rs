//! The settings of a name server. Meaning and defaults: spec `config.md` 2.5.

use super::settings;

settings! {
    /// What a name server answers.
    NamesrvSettings {
        /// Port for clients and brokers.
        "listenPort" listen_port: u16 [1..=65_535] = 9876, AtRestart;
        /// File of the key-value configuration. Unset: `namesrv/kvConfig.json` in the
        /// home directory.
        "kvConfigPath" kv_config_path: String = String::new(), AtRestart;
        /// File that updates of the configuration are written to. Unset: the file given by `-c`.
        "configStorePath" config_store_path: String = String::new(), AtRestart;
        /// Whether routes carry the order configuration of their topic.
        "orderMessageEnable" order_message_enable: bool = false, Live;
        /// Whether the answer to a registration carries the order configurations.
        "returnOrderTopicConfigToBroker" return_order_topic_config_to_broker: bool = true, Live;
        /// Whether a slave is shown as master while there is none.
        "supportActingMaster" support_acting_master: bool = false, Live;
        /// Whether anyone may list all topics.
        "enableAllTopicList" enable_all_topic_list: bool = true, Live;
        /// Whether anyone may list the topics of a cluster or unit.
        "enableTopicList" enable_topic_list: bool = true, Live;
        /// Whether clients have to wait after the start, until brokers have registered.
        "needWaitForService" need_wait_for_service: bool = false, Live;
        /// How long, in s.
        "waitSecondsForService" wait_seconds_for_service: u64 = 45, Live;
    }
}
