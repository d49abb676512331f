//! Views for operators and tools: 26, 28, 202, 208, 300, 303, 315, 317, 343, 345, 907; and 222,
//! which resets.

use std::collections::BTreeMap;
use std::sync::Arc;

use apogee_broker::Broker;
use apogee_broker::days::Mornings;
use apogee_broker::views::GroupQueue;
use apogee_types::Millis;
use apogee_types::route::MessageQueue;
use apogee_types::settings::Settings;
use apogee_wire::remoting::ResponseCode;
use apogee_wire::remoting::bodies::{
    BrokerStatsData, BrokerStatsItem, ConsumeStats, ConsumeStatsList, GroupList, HARuntimeInfo,
    KVTable, OffsetWrapper, QueryConsumeTimeSpanBody, QuerySubscriptionResponseBody, QueueTimeSpan,
    ResetOffsetBody, TopicList, TopicOffset, TopicStatsTable,
};
use apogee_wire::remoting::requests::{
    GetBrokerConfig, GetBrokerConfigResponse, GetBrokerConsumeStats, GetBrokerHaStatus,
    GetBrokerRuntimeInfo, GetConsumeStats, GetTopicStats, QueryConsumeTimeSpan,
    QuerySubscriptionByConsumer, QueryTopicConsumeByWho, QueryTopicsByConsumer, ResetOffset,
    ViewBrokerStats,
};
use apogee_wire::remoting::table::Empty;

use super::router::{Answer, Call, Refusal, Reply, Router, json_body};

/// Adds what this file serves.
#[must_use]
pub fn routes(router: Router) -> Router {
    router
        .on::<GetBrokerConfig>(config)
        .on::<GetBrokerRuntimeInfo>(runtime_info)
        .on::<GetTopicStats>(topic_stats)
        .on::<GetConsumeStats>(consume_stats)
        .on::<GetBrokerConsumeStats>(all_consume_stats)
        .on::<QueryTopicConsumeByWho>(groups_of_topic)
        .on::<QueryConsumeTimeSpan>(time_spans)
        .on::<QueryTopicsByConsumer>(topics_of_group)
        .on::<QuerySubscriptionByConsumer>(subscription)
        .on::<ResetOffset>(reset)
        .on::<GetBrokerHaStatus>(ha_status)
        .on::<ViewBrokerStats>(stats)
}

fn message_queue(broker: &Broker, topic: &str, queue_id: i32) -> MessageQueue {
    MessageQueue::new(topic, &broker.identity.name, queue_id)
}

fn topic_stats(call: &mut Call<'_>, request: GetTopicStats) -> Answer<Empty> {
    let broker = call.broker();
    let mut offset_table = BTreeMap::new();
    for queue in broker.topic_view(&request.topic)? {
        let offset = TopicOffset {
            last_update_timestamp: queue.newest_ms.unwrap_or(0),
            max_offset: queue.end as i64,
            min_offset: queue.min as i64,
        };
        offset_table.insert(message_queue(broker, &request.topic, queue.id), offset);
    }
    json_body(Empty, &TopicStatsTable { offset_table, topic_put_tps: 0.0 })
}

fn consume_stats(call: &mut Call<'_>, request: GetConsumeStats) -> Answer<Empty> {
    let broker = call.broker();
    let group = &request.consumer_group;
    let named = request.topic.filter(|it| !it.is_empty()).map(Arc::from);
    let listed = request.topic_list.unwrap_or_default();
    let listed = listed.split(';').filter(|it| !it.is_empty()).map(Arc::from);
    let mut topics: Vec<Arc<str>> = named.into_iter().chain(listed).collect();
    if topics.is_empty() {
        topics = broker.offsets.topics_of(group);
    }
    let mut offset_table = BTreeMap::new();
    for topic in topics {
        offset_table.extend(offsets_in(broker, group, &topic).into_iter().flatten());
    }
    json_body(Empty, &ConsumeStats { consume_tps: 0.0, offset_table })
}

/// What a group has consumed of a topic; `None` if it does not read it.
fn offsets_in(
    broker: &Broker,
    group: &str,
    topic: &str,
) -> Option<BTreeMap<MessageQueue, OffsetWrapper>> {
    let queues = broker.group_view(group, topic)?;
    let row = |queue: GroupQueue| (message_queue(broker, topic, queue.id), wrapper(&queue));
    Some(queues.into_iter().map(row).collect())
}

/// Of all groups that are configured, in all topics, or all that are ordered.
fn all_consume_stats(call: &mut Call<'_>, request: GetBrokerConsumeStats) -> Answer<Empty> {
    let broker = call.broker();
    let is_wanted = |topic: &Arc<str>| {
        !request.is_order || broker.topics.find(topic).is_some_and(|config| config.order)
    };
    let mut all = ConsumeStatsList {
        broker_addr: broker.identity.store_host.to_string().into(),
        ..ConsumeStatsList::default()
    };
    for group in broker.groups.table().subscription_group_table.into_keys() {
        let mut stats = Vec::new();
        for topic in broker.offsets.topics_of(&group).iter().filter(|topic| is_wanted(topic)) {
            let Some(offset_table) = offsets_in(broker, &group, topic) else { continue };
            for it in offset_table.values() {
                let (diff, in_flight) = (&mut all.total_diff, &mut all.total_inflight_diff);
                *diff = diff.saturating_add(it.broker_offset - it.consumer_offset);
                *in_flight = in_flight.saturating_add(it.pull_offset - it.consumer_offset);
            }
            stats.push(ConsumeStats { consume_tps: 0.0, offset_table });
        }
        all.consume_stats_list.push(BTreeMap::from([(group, stats)]));
    }
    json_body(Empty, &all)
}

fn wrapper(queue: &GroupQueue) -> OffsetWrapper {
    OffsetWrapper {
        broker_offset: queue.end as i64,
        consumer_offset: queue.committed,
        last_timestamp: queue.consumed_ms.unwrap_or(0),
        pull_offset: queue.pulled,
    }
}

fn time_spans(call: &mut Call<'_>, request: QueryConsumeTimeSpan) -> Answer<Empty> {
    let broker = call.broker();
    let now = broker.clock.now_ms();
    let (topic, group) = (&request.topic, &request.group);
    let progress = broker.group_view(group, topic).unwrap_or_default();
    let consumed: BTreeMap<i32, GroupQueue> = progress.into_iter().map(|it| (it.id, it)).collect();
    let span = |queue: apogee_broker::views::TopicQueue| {
        let group = consumed.get(&queue.id);
        let min_time_stamp = queue.oldest_ms.unwrap_or(0);
        QueueTimeSpan {
            consume_time_stamp: group.and_then(|it| it.consumed_ms).unwrap_or(min_time_stamp),
            delay_time: group.and_then(|it| it.waiting_ms).map_or(0, |since| now - since),
            max_time_stamp: queue.newest_ms.unwrap_or(0),
            message_queue: message_queue(broker, topic, queue.id),
            min_time_stamp,
        }
    };
    let consume_time_span_set = broker.topic_view(topic)?.into_iter().map(span).collect();
    json_body(Empty, &QueryConsumeTimeSpanBody { consume_time_span_set })
}

/// Live groups that subscribe the topic, and groups with offsets in it.
fn groups_of_topic(call: &mut Call<'_>, request: QueryTopicConsumeByWho) -> Answer<Empty> {
    let broker = call.broker();
    let mut group_list = broker.clients.groups_of(&request.topic);
    group_list.extend(broker.offsets.groups_of(&request.topic));
    group_list.sort();
    group_list.dedup();
    json_body(Empty, &GroupList { group_list })
}

fn topics_of_group(call: &mut Call<'_>, request: QueryTopicsByConsumer) -> Answer<Empty> {
    let broker = call.broker();
    let topic_list = broker.offsets.topics_of(&request.group);
    let broker_addr = Some(broker.identity.store_host.to_string().into());
    json_body(Empty, &TopicList { broker_addr, topic_list })
}

fn subscription(call: &mut Call<'_>, request: QuerySubscriptionByConsumer) -> Answer<Empty> {
    let topic = request.topic.unwrap_or_default();
    let found = call.broker().clients.with_consumer_group(&request.group, |group| {
        group.subscriptions.get(topic.as_str()).map(|it| (**it).clone())
    });
    let subscription_data = found.flatten();
    json_body(
        Empty,
        &QuerySubscriptionResponseBody { group: request.group, subscription_data, topic },
    )
}

/// Spec `broker.md` 3.4.
fn reset(call: &mut Call<'_>, request: ResetOffset) -> Answer<Empty> {
    let broker = call.broker();
    let (group, topic) = (&request.group, &request.topic);
    let offsets = if 0 <= request.queue_id && request.offset.is_some_and(|it| it != -1) {
        let offset = request.offset.unwrap_or_default();
        vec![broker.reset_queue(group, topic, request.queue_id, offset)?]
    } else {
        broker.reset_by_time(group, topic, request.queue_id, request.timestamp_ms)?
    };
    let offset_table = offsets
        .into_iter()
        .map(|(queue_id, offset)| (message_queue(broker, topic, queue_id), offset))
        .collect();
    json_body(Empty, &ResetOffsetBody { offset_table })
}

fn config(call: &mut Call<'_>, _: GetBrokerConfig) -> Answer<GetBrokerConfigResponse> {
    let rows = call.broker().settings.rows().into_iter().chain(call.door.limits.iter().cloned());
    let text: String = rows.map(|(key, value)| format!("{key}={value}\n")).collect();
    let version = r#"{"counter":0,"stateVersion":0,"timestamp":0}"#.to_owned();
    Ok(Reply::WithBody(GetBrokerConfigResponse { version }, text.into_bytes()))
}

/// Nothing is counted while messages come: what is stored tells how many were put into a topic.
/// How many a group has got, or how many a put has, nobody knows.
fn stats(call: &mut Call<'_>, request: ViewBrokerStats) -> Answer<Empty> {
    let broker = call.broker();
    let ViewBrokerStats { stats_name: name, stats_key: key } = request;
    if name != "TOPIC_PUT_NUMS" || broker.topics.find(&key).is_none() {
        let remark = format!("The stats <{name}> <{key}> not exist");
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    }
    let now = broker.clock.now_ms();
    let last = |seconds: i64| {
        let sum = broker.stored_since(&key, now - seconds * 1000)? as i64;
        Ok::<_, Refusal>(BrokerStatsItem { avgpt: 0.0, sum, tps: sum as f64 / seconds as f64 })
    };
    let (stats_minute, stats_hour, stats_day) = (last(60)?, last(3_600)?, last(24 * 3_600)?);
    json_body(Empty, &BrokerStatsData { stats_day, stats_hour, stats_minute })
}

/// There is no slave to tell of, and none that follows a master.
fn ha_status(call: &mut Call<'_>, _: GetBrokerHaStatus) -> Answer<Empty> {
    let broker = call.broker();
    let max = broker.store.visible().0 as i64;
    let mut info = HARuntimeInfo { master: !broker.identity.is_slave(), ..Default::default() };
    match info.master {
        true => info.master_commit_log_max_offset = max,
        false => info.ha_client_runtime_info.max_offset = max,
    }
    json_body(Empty, &info)
}

/// What `mqadmin clusterList` and `brokerStatus` read. Spec `json-quirks.md` 2.3.
fn runtime_info(call: &mut Call<'_>, _: GetBrokerRuntimeInfo) -> Answer<Empty> {
    let broker = call.broker();
    let store = broker.store.statistics();
    let (put, got) = (store.put_count, store.read_count);
    let Mornings { today, yesterday } = broker.days.mornings();
    let uptime_ms: Millis = broker.clock.now_ms() - broker.started_ms;
    let seconds = (uptime_ms / 1000).max(1) as f64;
    let rate = |count: u64| format!("{0:.1} {0:.1} {0:.1}", count as f64 / seconds);
    let table = [
        ("brokerVersionDesc", "V5_5_0".to_owned()),
        ("brokerVersion", apogee_wire::remoting::header::VERSION.to_string()),
        ("putTps", rate(put)),
        ("getTransferredTps", rate(got)),
        ("getTransferedTps", rate(got)),
        ("putMessageAverageSize", (store.put_bytes as f64 / put.max(1) as f64).to_string()),
        ("msgPutTotalYesterdayMorning", yesterday.put.to_string()),
        ("msgPutTotalTodayMorning", today.put.to_string()),
        ("msgGetTotalYesterdayMorning", yesterday.got.to_string()),
        ("msgGetTotalTodayMorning", today.got.to_string()),
        ("msgPutTotalTodayNow", put.to_string()),
        ("msgGetTotalTodayNow", got.to_string()),
        ("commitLogMinOffset", store.log_min.0.to_string()),
        ("commitLogMaxOffset", store.log_visible.0.to_string()),
        ("bootTimestamp", broker.started_ms.to_string()),
        ("sendThreadPoolQueueSize", "0".to_owned()),
        ("pullThreadPoolQueueSize", "0".to_owned()),
        ("ackThreadPoolQueueSize", "0".to_owned()),
        ("sendThreadPoolQueueHeadWaitTimeMills", "0".to_owned()),
        ("pullThreadPoolQueueHeadWaitTimeMills", "0".to_owned()),
        ("ackThreadPoolQueueHeadWaitTimeMills", "0".to_owned()),
        ("pageCacheLockTimeMills", "0".to_owned()),
        ("commitLogDiskRatio", store.disk_used_ratio.unwrap_or(-1.0).to_string()),
        ("timerReadBehind", "0".to_owned()),
        ("timerOffsetBehind", "0".to_owned()),
        ("timerCongestNum", "0".to_owned()),
        ("timerEnqueueTps", "0.0".to_owned()),
        ("timerDequeueTps", "0.0".to_owned()),
        ("brokerActive", "true".to_owned()),
    ];
    let table = table.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    json_body(Empty, &KVTable { table })
}
