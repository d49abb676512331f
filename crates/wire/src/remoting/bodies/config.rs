//! Tables of topics, groups and offsets: bodies between brokers, and files on disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use apogee_types::config::{DataVersion, GroupConfig, TopicConfig};
use serde_json::Value;

bodies! {
    /// 206, 224, 304, 305, 311-313, 343.
    TopicList {
        #[serde(skip_serializing_if = "Option::is_none")]
        broker_addr: Option<Arc<str>>,
        topic_list: Vec<Arc<str>>,
    }

    /// 300.
    GroupList {
        group_list: Vec<Arc<str>>,
    }

    /// `topics.json`; 21 of 4.x.
    TopicConfigSerializeWrapper {
        data_version: DataVersion,
        topic_config_table: BTreeMap<Arc<str>, Arc<TopicConfig>>,
    }

    /// 21, and what a broker registers.
    TopicConfigAndMappingSerializeWrapper {
        data_version: DataVersion,
        mapping_data_version: DataVersion,
        topic_config_table: BTreeMap<Arc<str>, Arc<TopicConfig>>,
        /// Of static topics; the values are kept as they came.
        topic_queue_mapping_detail_map: BTreeMap<Arc<str>, Arc<Value>>,
        topic_queue_mapping_info_map: BTreeMap<Arc<str>, Arc<Value>>,
    }

    /// 18.
    CreateTopicListRequestBody {
        topic_config_list: Vec<TopicConfig>,
    }

    /// 225.
    SubscriptionGroupList {
        group_config_list: Vec<GroupConfig>,
    }

    /// 201, and `subscriptionGroup.json`.
    SubscriptionGroupWrapper {
        data_version: DataVersion,
        /// By group and topic a bit set; bit 2: reading is forbidden.
        forbidden_table: BTreeMap<Arc<str>, BTreeMap<Arc<str>, i32>>,
        subscription_group_table: BTreeMap<Arc<str>, Arc<GroupConfig>>,
    }

    /// 43, and `consumerOffset.json`: by `topic@group` and queue.
    ConsumerOffsetSerializeWrapper {
        data_version: DataVersion,
        offset_table: BTreeMap<String, BTreeMap<i32, i64>>,
    }

    /// 45, and `delayOffset.json`: by delay level, counted from 1.
    DelayOffsetSerializeWrapper {
        data_version: DataVersion,
        offset_table: BTreeMap<i32, i64>,
    }

    /// 353.
    GroupForbidden {
        group: String,
        readable: bool,
        topic: String,
    }
}
