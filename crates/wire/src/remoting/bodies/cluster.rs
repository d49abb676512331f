//! Brokers, controllers and what they tell each other.

use std::collections::BTreeMap;
use std::sync::Arc;

bodies! {
    /// 901.
    GetBrokerMemberGroupResponseBody {
        broker_member_group: BrokerMemberGroup,
    }

    BrokerMemberGroup {
        broker_addrs: BTreeMap<i64, Arc<str>>,
        broker_name: Arc<str>,
        cluster: Arc<str>,
    }

    /// 28, 103, 219: texts by name.
    KVTable {
        table: BTreeMap<String, String>,
    }

    /// 907.
    HARuntimeInfo {
        ha_client_runtime_info: HAClientRuntimeInfo,
        ha_connection_info: Vec<HAConnectionRuntimeInfo>,
        in_sync_slave_nums: i32,
        master: bool,
        master_commit_log_max_offset: i64,
    }

    HAClientRuntimeInfo {
        last_read_timestamp: i64,
        last_write_timestamp: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        master_addr: Option<String>,
        master_flush_offset: i64,
        max_offset: i64,
        transferred_byte_in_second: i64,
    }

    HAConnectionRuntimeInfo {
        addr: String,
        diff: i64,
        in_sync: bool,
        slave_ack_offset: i64,
        transfer_from_where: i64,
        transferred_byte_in_second: i64,
    }

    /// 1001, 1003, 1004, 1008: which brokers have everything that was acknowledged.
    SyncStateSet {
        sync_state_set: Vec<i64>,
        sync_state_set_epoch: i32,
    }

    /// 1002.
    ElectMasterResponseBody {
        #[serde(skip_serializing_if = "Option::is_none")]
        broker_member_group: Option<BrokerMemberGroup>,
        sync_state_set: Vec<i64>,
    }

    /// 1006, by broker name.
    BrokerReplicasInfo {
        replicas_info_table: BTreeMap<Arc<str>, ReplicasInfo>,
    }

    ReplicasInfo {
        in_sync_replicas: Vec<ReplicaIdentity>,
        #[serde(skip_serializing_if = "Option::is_none")]
        master_address: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        master_broker_id: Option<i64>,
        master_epoch: i32,
        not_in_sync_replicas: Vec<ReplicaIdentity>,
        sync_state_set_epoch: i32,
    }

    ReplicaIdentity {
        alive: bool,
        broker_address: String,
        broker_id: i64,
        broker_name: String,
    }

    /// 1007.
    EpochEntryCache {
        broker_id: i64,
        broker_name: String,
        cluster_name: String,
        epoch_list: Vec<EpochEntry>,
        max_offset: i64,
    }

    EpochEntry {
        /// `i64::MAX` while the epoch lasts.
        end_offset: i64,
        epoch: i32,
        start_offset: i64,
    }

    /// 3001, 3002, 3004; a list of them 3005.
    UserInfo {
        #[serde(skip_serializing_if = "Option::is_none")]
        password: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        user_status: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        user_type: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        username: Option<String>,
    }

    /// 3006, 3007, 3009; a list of them 3010.
    AclInfo {
        policies: Vec<PolicyInfo>,
        #[serde(skip_serializing_if = "Option::is_none")]
        subject: Option<String>,
    }

    PolicyInfo {
        entries: Vec<PolicyEntryInfo>,
        #[serde(skip_serializing_if = "Option::is_none")]
        policy_type: Option<String>,
    }

    PolicyEntryInfo {
        actions: Vec<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        decision: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        resource: Option<String>,
        source_ips: Vec<String>,
    }
}
