//! What a cluster is configured to be, as files of JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use apogee_store::{Disk, RealDisk};
use apogee_types::config::{GroupConfig, TopicConfig};
use apogee_types::names::{self, DLQ_PREFIX, RETRY_PREFIX};
use apogee_types::{Clock, SystemClock, json};
use apogee_wire::remoting::bodies::{
    Connection, SubscriptionGroupWrapper, TopicConfigAndMappingSerializeWrapper,
    TopicConfigSerializeWrapper, TopicList,
};
use apogee_wire::remoting::header::VERSION;
use apogee_wire::remoting::requests::{
    GetAllGroupConfig, GetAllTopicConfig, GetBrokerConfig, GetSystemTopicListFromBroker,
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::print::{self, line};
use super::{Admin, Command, masters, optional, required, stats, switch};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "exportMetadata",
        help: "Export metadata.",
        flags: &[
            optional('c', "clusterName", "choose a cluster to export"),
            optional('b', "brokerAddr", "choose a broker to export"),
            optional('f', "filePath", "export metadata.json path | default /tmp/rocketmq/export"),
            switch('t', "topic", "only export topic metadata"),
            switch('g', "subscriptionGroup", "only export subscriptionGroup metadata"),
            switch('s', "specialTopic", "need retryTopic and dlqTopic"),
        ],
        run: |admin| Box::pin(metadata(admin)),
    },
    Command {
        name: "exportConfigs",
        help: "Export configs.",
        flags: &[
            required('c', "clusterName", "choose a cluster to export"),
            optional('f', "filePath", "export configs.json path | default /tmp/rocketmq/export"),
        ],
        run: |admin| Box::pin(configs(admin)),
    },
    Command {
        name: "exportMetrics",
        help: "Export metrics.",
        flags: &[
            required('c', "clusterName", "choose a cluster to export"),
            optional('f', "filePath", "export metrics.json path | default /tmp/rocketmq/export"),
        ],
        run: |admin| Box::pin(metrics(admin)),
    },
];

/// Puts a file below the directory of `-f`.
fn write(admin: &Admin, name: &str, value: &[u8]) -> anyhow::Result<()> {
    let path = format!("{}/{name}", admin.flag('f').unwrap_or("/tmp/rocketmq/export"));
    let text = print::pretty(value);
    RealDisk.replace(Path::new(&path), text.as_bytes()).with_context(|| path.clone())?;
    line!("export {path} success");
    Ok(())
}

async fn metadata(admin: &Admin) -> anyhow::Result<()> {
    let (only_topics, only_groups) = (admin.is_set('t'), admin.is_set('g'));
    if let Some(addr) = admin.flag('b') {
        return match (only_topics, only_groups) {
            (true, _) => write(admin, "topic.json", &json::write(&user_topics(admin, addr).await?)),
            (false, true) => write(
                admin,
                "subscriptionGroup.json",
                &json::write(&user_groups(admin, addr).await?),
            ),
            (false, false) => bail!("of one broker choose topics with -t or groups with -g"),
        };
    }
    // Of a topic that several brokers have, the queues are added up, as the retry queues of groups.
    let mut topics = BTreeMap::<Arc<str>, TopicConfig>::new();
    let mut groups = BTreeMap::<Arc<str>, GroupConfig>::new();
    for target in admin.targets().await? {
        for (name, config) in user_topics(admin, &target.addr).await?.topic_config_table {
            let (read, write) = topics
                .get(&name)
                .map_or((0, 0), |known| (known.read_queue_count, known.write_queue_count));
            let mut config = (*config).clone();
            config.read_queue_count += read;
            config.write_queue_count += write;
            topics.insert(name, config);
        }
        for (name, config) in user_groups(admin, &target.addr).await?.subscription_group_table {
            let mut config = (*config).clone();
            config.retry_queue_count +=
                groups.get(&name).map_or(0, |known| known.retry_queue_count);
            groups.insert(name, config);
        }
    }
    let (topics, groups) = (json!(topics), json!(groups));
    let mut all = BTreeMap::from([("exportTime", json!(SystemClock.now_ms()))]);
    let name = match (only_topics, only_groups) {
        (true, _) => "topic.json",
        (false, true) => "subscriptionGroup.json",
        (false, false) => "metadata.json",
    };
    if name != "subscriptionGroup.json" {
        all.insert("topicConfigTable", topics);
    }
    if name != "topic.json" {
        all.insert("subscriptionGroupTable", groups);
    }
    write(admin, name, &json::write(&all))
}

/// Topics of a broker that are not the system's; with `-s` those for retries, too.
async fn user_topics(admin: &Admin, addr: &str) -> anyhow::Result<TopicConfigSerializeWrapper> {
    let client = &admin.client;
    let request = GetSystemTopicListFromBroker {};
    let system = client.call::<GetSystemTopicListFromBroker>(addr, &request, Bytes::new()).await?;
    let system: TopicList = system.json()?;
    let request = GetAllTopicConfig { topic_seq: None, data_version: None, max_topic_count: None };
    let all = client.call::<GetAllTopicConfig>(addr, &request, Bytes::new()).await?;
    let all: TopicConfigAndMappingSerializeWrapper = all.json()?;
    let mut topic_config_table = all.topic_config_table;
    topic_config_table.retain(|topic, config| {
        let is_system = system.topic_list.contains(topic) || names::is_system_topic(topic);
        let is_special = topic.starts_with(RETRY_PREFIX) || topic.starts_with(DLQ_PREFIX);
        !is_system && (admin.is_set('s') || !is_special) && (0..8).contains(&config.perm.0)
    });
    Ok(TopicConfigSerializeWrapper { data_version: all.data_version, topic_config_table })
}

/// Groups of a broker that are not the system's.
async fn user_groups(admin: &Admin, addr: &str) -> anyhow::Result<SubscriptionGroupWrapper> {
    let request = GetAllGroupConfig { group_seq: None, data_version: None, max_group_count: None };
    let all = admin.client.call::<GetAllGroupConfig>(addr, &request, Bytes::new()).await?;
    let mut all: SubscriptionGroupWrapper = all.json()?;
    let is_system =
        |group: &str| names::is_system_group(group) || PREDEFINED_GROUPS.contains(&group);
    all.subscription_group_table.retain(|group, _| !is_system(group));
    Ok(all)
}

/// Further groups that upstream's own tools and services use.
const PREDEFINED_GROUPS: [&str; 12] = [
    "DEFAULT_CONSUMER",
    "DEFAULT_PRODUCER",
    "SCHEDULE_CONSUMER",
    "FILTERSRV_CONSUMER",
    "__MONITOR_CONSUMER",
    "CLIENT_INNER_PRODUCER",
    "SELF_TEST_P_GROUP",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
    "CID_ONSAPI_PULL",
];

/// What upstream shows of a broker's settings.
const SHOWN: [&str; 16] = [
    "brokerClusterName",
    "brokerId",
    "brokerName",
    "brokerRole",
    "fileReservedTime",
    "filterServerNums",
    "flushDiskType",
    "maxMessageSize",
    "messageDelayLevel",
    "msgTraceTopicName",
    "slaveReadEnable",
    "traceOn",
    "traceTopicEnable",
    "useTLS",
    "autoCreateTopicEnable",
    "autoCreateSubscriptionGroup",
];

async fn configs(admin: &Admin) -> anyhow::Result<()> {
    let cluster = admin.required('c');
    let info = admin.client.cluster_info().await?;
    let masters = masters(&info, cluster)?;
    let mut configs = BTreeMap::<String, BTreeMap<String, String>>::new();
    for master in &masters {
        let mut settings = settings(admin, &master.addr).await?;
        settings.retain(|key, _| SHOWN.contains(&&**key));
        configs.insert(master.name.to_string(), settings);
    }
    let of_cluster = info.broker_addr_table.values().filter(|it| *it.cluster == *cluster);
    let brokers: usize = of_cluster.map(|it| it.broker_addrs.len()).sum();
    let scale: Value = json!({
        "namesrvSize": admin.client.name_servers().len(),
        "masterBrokerSize": masters.len(),
        "slaveBrokerSize": brokers.saturating_sub(masters.len()),
    });
    let all = BTreeMap::from([("brokerConfigs", json!(configs)), ("clusterScale", scale)]);
    write(admin, "configs.json", &json::write(&all))
}

async fn settings(admin: &Admin, addr: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let call = admin.client.call::<GetBrokerConfig>(addr, &GetBrokerConfig {}, Bytes::new());
    let answer = call.await?;
    let text = String::from_utf8_lossy(&answer.body);
    let rows = text.lines().filter_map(|row| row.split_once('='));
    Ok(rows.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

/// What a broker moves: messages that are sent and read, half messages, delayed ones.
struct Moves {
    /// A second.
    rates: [f64; 4],
    /// A day.
    counts: [i64; 4],
}

async fn moves(admin: &Admin, addr: &str, runtime: &BTreeMap<String, String>) -> Moves {
    let put = "TOPIC_PUT_NUMS";
    let half = stats::moved_on(admin, addr, put, names::HALF_TOPIC).await;
    let delayed = stats::moved_on(admin, addr, put, names::SCHEDULE_TOPIC).await;
    let rate = |key: &str| {
        let first = runtime.get(key).and_then(|text| text.split_whitespace().next());
        first.and_then(|text| text.parse().ok()).unwrap_or(0.0)
    };
    let yesterday = |what: &str| {
        let count = |day: &str| {
            let text = runtime.get(&format!("{what}{day}Morning"));
            text.and_then(|text| text.parse::<i64>().ok()).unwrap_or(0)
        };
        count("Today") - count("Yesterday")
    };
    let (put, got) = (yesterday("msgPutTotal"), yesterday("msgGetTotal"));
    Moves {
        rates: [rate("putTps"), rate("getTransferredTps"), half.tps, delayed.tps],
        counts: [put, got, half.count, delayed.count],
    }
}

/// Names of the numbers of [`Moves`].
const RATES: [&str; 4] = ["normalInTps", "normalOutTps", "transInTps", "scheduleInTps"];
const COUNTS: [&str; 4] =
    ["normalOneDayInNum", "normalOneDayOutNum", "transOneDayInNum", "scheduleOneDayInNum"];
const TOTAL_RATES: [&str; 4] =
    ["totalNormalInTps", "totalNormalOutTps", "totalTransInTps", "totalScheduleInTps"];

fn named<N>(names: [&'static str; 4], numbers: [N; 4]) -> BTreeMap<&'static str, N> {
    names.into_iter().zip(numbers).collect()
}

async fn metrics(admin: &Admin) -> anyhow::Result<()> {
    let mut report = BTreeMap::new();
    let mut totals = Moves { rates: [0.0; 4], counts: [0; 4] };
    for master in masters(&admin.client.cluster_info().await?, admin.required('c'))? {
        let runtime = super::brokers::runtime_info(admin, &master.addr).await?;
        let moves = moves(admin, &master.addr, &runtime).await;
        totals.rates.iter_mut().zip(moves.rates).for_each(|(total, more)| *total += more);
        totals.counts.iter_mut().zip(moves.counts).for_each(|(total, more)| *total += more);
        let of_broker = metrics_of(admin, &master.addr, &runtime, &moves).await?;
        report.insert(master.name.to_string(), of_broker);
    }
    let (rates, counts) = (named(TOTAL_RATES, totals.rates), named(COUNTS, totals.counts));
    let totals = json!({ "totalTps": rates, "totalOneDayNum": counts });
    let all = json!({ "evaluateReport": report, "totalData": totals });
    write(admin, "metrics.json", &json::write(&all))
}

async fn metrics_of(
    admin: &Admin,
    addr: &str,
    runtime: &BTreeMap<String, String>,
    moves: &Moves,
) -> anyhow::Result<Value> {
    let settings = settings(admin, addr).await?;
    let groups = user_groups(admin, addr).await?.subscription_group_table;
    let topics = user_topics(admin, addr).await?.topic_config_table;
    let mut clients = BTreeSet::new();
    for group in groups.keys() {
        let Ok(Some(found)) = super::groups::connection(admin, group).await else { continue };
        let name = |it: &Connection| format!("{}%{}", it.language, print::version(it.version));
        clients.extend(found.connection_set.iter().map(name));
    }
    // What a broker does not tell is left out.
    let mut env = BTreeMap::new();
    env.extend(settings.get("clientCallbackExecutorThreads").map(|it| ("cpuNum", it)));
    env.extend(runtime.get("totalMemKBytes").map(|it| ("totalMemKBytes", it)));
    let disks = ["commitLogDiskRatio", "consumeQueueDiskRatio"];
    let disks = disks.into_iter().filter_map(|key| Some((key, runtime.get(key)?)));
    let mut quota = json!({
        "diskRatio": disks.collect::<BTreeMap<_, _>>(),
        "tps": named(RATES, moves.rates),
        "oneDayNum": named(COUNTS, moves.counts),
        "topicSize": topics.len(),
        "groupSize": groups.len(),
    });
    if let Some(len) = runtime.get("putMessageAverageSize") {
        quota["messageAverageSize"] = json!(len);
    }
    let version = json!({ "rocketmqVersion": print::version(VERSION), "clientInfo": clients });
    Ok(json!({ "runtimeEnv": env, "runtimeQuota": quota, "runtimeVersion": version }))
}
