//! Commands on consumer and producer groups.

use std::collections::BTreeMap;

use anyhow::bail;
use apogee_client::Error;
use apogee_types::config::GroupConfig;
use apogee_types::route::MessageQueue;
use apogee_types::subscription::{ConsumeType, MessageModel};
use apogee_types::{json, names};
use apogee_wire::remoting::ResponseCode;
use apogee_wire::remoting::bodies::{
    ConsumeStats, ConsumerConnection, OffsetWrapper, ProducerConnection, ProducerInfo,
    ProducerTableInfo, ResetOffsetBody, SubscriptionGroupList,
};
use apogee_wire::remoting::requests::{
    DeleteGroup, GetAllProducerInfo, GetGroupConfig, GetProducerConnectionList, ResetOffset,
    UpdateAndCreateGroup, UpdateAndCreateGroupList,
};
use bytes::Bytes;

use super::print::{self, line};
use super::{Admin, Command, Master, optional, required};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "updateSubGroup",
        help: "Update or create subscription group.",
        flags: &[
            optional('b', "brokerAddr", "create subscription group to which broker"),
            optional('c', "clusterName", "create subscription group to which cluster"),
            required('g', "groupName", "consumer group name"),
            optional('s', "consumeEnable", "consume enable"),
            optional('m', "consumeFromMinEnable", "from min offset"),
            optional('d', "consumeBroadcastEnable", "broadcast"),
            optional('o', "consumeMessageOrderly", "consume message orderly"),
            optional('q', "retryQueueNums", "retry queue nums"),
            optional('r', "retryMaxTimes", "retry max times"),
            optional('i', "brokerId", "consumer from which broker id"),
            optional('w', "whichBrokerWhenConsumeSlowly", "which broker id when consume slowly"),
            optional('a', "notifyConsumerIdsChanged", "notify consumerId changed"),
        ],
        run: |admin| Box::pin(update(admin)),
    },
    Command {
        name: "updateSubGroupList",
        help: "Update or create subscription group in batch",
        flags: &[
            optional('b', "brokerAddr", "create groups to which broker"),
            optional('c', "clusterName", "create groups to which cluster"),
            required(
                'f',
                "filename",
                "Path to a file with a list of \
                 org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig \
                 in json format",
            ),
        ],
        run: |admin| Box::pin(update_list(admin)),
    },
    Command {
        name: "deleteSubGroup",
        help: "Delete subscription group from broker.",
        flags: &[
            optional('b', "brokerAddr", "delete subscription group from which broker"),
            optional('c', "clusterName", "delete subscription group from which cluster"),
            required('g', "groupName", "subscription group name"),
            optional('r', "removeOffset", "remove offset"),
        ],
        run: |admin| Box::pin(delete(admin)),
    },
    Command {
        name: "getConsumerConfig",
        help: "Get consumer config by subscription group name.",
        flags: &[required('g', "groupName", "subscription group name")],
        run: |admin| Box::pin(config(admin)),
    },
    Command {
        name: "consumerProgress",
        help: "Query consumer's progress, speed.",
        flags: &[
            optional('g', "groupName", "consumer group name"),
            optional('t', "topicName", "topic name"),
        ],
        run: |admin| Box::pin(progress(admin)),
    },
    Command {
        name: "consumerConnection",
        help: "Query consumer's socket connection, client version and subscription.",
        flags: &[
            required('g', "consumerGroup", "consumer group name"),
            optional('b', "brokerAddr", "broker address"),
        ],
        run: |admin| Box::pin(consumers(admin)),
    },
    Command {
        name: "producerConnection",
        help: "Query producer's socket connection and client version.",
        flags: &[
            required('g', "producerGroup", "producer group name"),
            required('t', "topic", "topic name"),
        ],
        run: |admin| Box::pin(producers(admin)),
    },
    Command {
        name: "producer",
        help: "Query producer's instances, connection, status, etc.",
        flags: &[required('b', "broker", "broker address")],
        run: |admin| Box::pin(all_producers(admin)),
    },
    Command {
        name: "resetOffsetByTime",
        help: "Reset consumer offset by timestamp(without client restart).",
        flags: &[
            required('g', "group", "set the consumer group"),
            required('t', "topic", "set the topic"),
            required(
                's',
                "timestamp",
                "set the timestamp[now|currentTimeMillis|yyyy-MM-dd#HH:mm:ss:SSS]",
            ),
            optional('f', "force", "set the force rollback by timestamp switch[true|false]"),
            optional('b', "broker", "broker addr which you want to reset offset"),
            optional('q', "queue", "queue id which you want to reset offset"),
            optional('o', "offset", "new offset of that queue"),
        ],
        run: |admin| Box::pin(reset(admin)),
    },
    Command {
        name: "skipAccumulatedMessage",
        help: "Skip all messages that are accumulated (not consumed) currently.",
        flags: &[
            required('g', "group", "set the consumer group"),
            required('t', "topic", "set the topic"),
            optional('f', "force", "set the force rollback by timestamp switch[true|false]"),
        ],
        run: |admin| Box::pin(skip(admin)),
    },
    Command {
        name: "cloneGroupOffset",
        help: "Clone offset from other group.",
        flags: &[
            required('s', "srcGroup", "set source consumer group"),
            required('d', "destGroup", "set destination consumer group"),
            required('t', "topic", "set the topic"),
            optional('o', "offline", "the group or the topic is offline"),
        ],
        run: |admin| Box::pin(clone(admin)),
    },
];

async fn update(admin: &Admin) -> anyhow::Result<()> {
    let mut config = GroupConfig::new(admin.required('g'));
    // What upstream's command begins with.
    config.consume_from_min_enable = admin.truth('m').unwrap_or(false);
    config.consume_broadcast_enable = admin.truth('d').unwrap_or(false);
    config.consume_enable = admin.truth('s').unwrap_or(config.consume_enable);
    config.consume_message_orderly = admin.truth('o').unwrap_or(false);
    config.retry_queue_count = admin.number('q')?.unwrap_or(config.retry_queue_count);
    config.retry_max_times = admin.number('r')?.unwrap_or(config.retry_max_times);
    config.broker_id = admin.number('i')?.unwrap_or(config.broker_id);
    let slowly = config.which_broker_when_consume_slowly;
    config.which_broker_when_consume_slowly = admin.number('w')?.unwrap_or(slowly);
    let notifies = admin.truth('a').unwrap_or(config.notify_consumer_ids_changed_enable);
    config.notify_consumer_ids_changed_enable = notifies;
    let body = Bytes::from(json::write(&config));
    for target in admin.targets().await? {
        let request = UpdateAndCreateGroup {};
        admin.client.call::<UpdateAndCreateGroup>(&target.addr, &request, body.clone()).await?;
        line!("create subscription group to {} success.", target.addr);
    }
    line!("{}", print::group(&config));
    Ok(())
}

async fn update_list(admin: &Admin) -> anyhow::Result<()> {
    let group_config_list: Vec<GroupConfig> = json::read(&admin.file('f')?)?;
    if group_config_list.is_empty() {
        return Ok(());
    }
    let body = Bytes::from(json::write(&SubscriptionGroupList { group_config_list }));
    let what = if admin.is_set('b') { "group" } else { "subscription group" };
    for Master { addr, .. } in admin.targets().await? {
        let request = UpdateAndCreateGroupList {};
        admin.client.call::<UpdateAndCreateGroupList>(&addr, &request, body.clone()).await?;
        line!("submit batch of {what} config to {addr} success, please check the result later.");
    }
    Ok(())
}

async fn delete(admin: &Admin) -> anyhow::Result<()> {
    let group = admin.required('g');
    let clean_offset = admin.truth('r').unwrap_or(false);
    let request = DeleteGroup { group_name: group.to_owned(), clean_offset };
    for target in admin.targets().await? {
        admin.client.call::<DeleteGroup>(&target.addr, &request, Bytes::new()).await?;
        let place = match admin.flag('b') {
            Some(_) => String::new(),
            None => format!(" in cluster [{}]", admin.flag('c').unwrap_or_default()),
        };
        let addr = target.addr;
        line!("delete subscription group [{group}] from broker [{addr}]{place} success.");
    }
    Ok(())
}

async fn config(admin: &Admin) -> anyhow::Result<()> {
    let request = GetGroupConfig { group: admin.required('g').to_owned() };
    for (name, broker) in &admin.client.cluster_info().await?.broker_addr_table {
        let Some(addr) = broker.master() else { continue };
        let answer = admin.client.call::<GetGroupConfig>(addr, &request, Bytes::new()).await?;
        let config = answer.json::<GroupConfig>()?;
        let frame = "=".repeat(29);
        line!("{frame}{}:{name}{frame}", broker.cluster);
        for (field, value) in print::group_fields(&config) {
            line!("{field:<40}=  {value}");
        }
    }
    Ok(())
}

/// What all masters of the group's retry topic say of its progress.
pub async fn stats(admin: &Admin, group: &str) -> anyhow::Result<ConsumeStats> {
    let mut all = ConsumeStats::default();
    for addr in masters_of(admin, group).await? {
        let stats = admin.client.consume_stats(&addr, group).await?;
        all.consume_tps += stats.consume_tps;
        all.offset_table.extend(stats.offset_table);
    }
    Ok(all)
}

/// Those who have the group's retry topic; without one, all.
pub async fn masters_of(admin: &Admin, group: &str) -> anyhow::Result<Vec<String>> {
    let brokers = match admin.client.route(&names::retry_topic(group)).await {
        Ok(route) => route.data().broker_datas.clone(),
        Err(Error::NoRoute { .. }) => {
            admin.client.cluster_info().await?.broker_addr_table.into_values().collect()
        }
        Err(error) => return Err(error.into()),
    };
    Ok(brokers.iter().filter_map(|broker| Some(broker.master()?.to_string())).collect())
}

/// Who reads with the group; `None` if nobody does.
pub async fn connection(admin: &Admin, group: &str) -> anyhow::Result<Option<ConsumerConnection>> {
    let addrs = match admin.flag('b') {
        Some(addr) => vec![addr.to_owned()],
        None => masters_of(admin, group).await?,
    };
    for addr in addrs {
        match admin.client.consumer_connections(&addr, group).await {
            Ok(found) if found.connection_set.is_empty() => {}
            Ok(found) => return Ok(Some(found)),
            Err(error) if error.code() == Some(ResponseCode::CONSUMER_NOT_ONLINE) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

async fn progress(admin: &Admin) -> anyhow::Result<()> {
    match admin.flag('g') {
        Some(group) => progress_of(admin, group).await,
        None => progress_of_all(admin).await,
    }
}

async fn progress_of(admin: &Admin, group: &str) -> anyhow::Result<()> {
    line!(
        "{:<64}  {:<32}  {:<4}  {:<20}  {:<20}  {:<20} {:<20}{}",
        "#Topic",
        "#Broker Name",
        "#QID",
        "#Broker Offset",
        "#Consumer Offset",
        "#Diff",
        "#Inflight",
        "#LastTime"
    );
    let stats = stats(admin, group).await?;
    let wanted = |queue: &MessageQueue| admin.flag('t').is_none_or(|it| it == &*queue.topic);
    let mut rows: Vec<_> = stats.offset_table.iter().filter(|(queue, _)| wanted(queue)).collect();
    rows.sort_by_key(|(queue, _)| (&queue.topic, &queue.broker_name, queue.queue_id));
    let (mut diffs, mut inflights) = (0, 0);
    for (queue, it) in rows {
        let diff = it.broker_offset - it.consumer_offset;
        let inflight = it.pull_offset - it.consumer_offset;
        diffs += diff;
        inflights += inflight;
        let topic = print::cut(&queue.topic, 64);
        let broker = print::cut(&queue.broker_name, 32);
        let place = format!("{topic:<64}  {broker:<32}  {:<4}", queue.queue_id);
        let OffsetWrapper { broker_offset, consumer_offset, last_timestamp, .. } = *it;
        let time = if last_timestamp == 0 { "N/A".into() } else { print::seconds(last_timestamp) };
        let offsets = format!("{broker_offset:<20}  {consumer_offset:<20}");
        line!("{place}  {offsets}  {diff:<20} {inflight:<20} {time}");
    }
    line!("\nConsume TPS: {:.2}", stats.consume_tps);
    line!("Consume Diff Total: {diffs}\nConsume Inflight Total: {inflights}");
    Ok(())
}

/// Every group that has a retry topic.
async fn progress_of_all(admin: &Admin) -> anyhow::Result<()> {
    let row =
        |group: &str, count: &str, version: &str, kind: &str, model: &str, rest: [&str; 2]| {
            let [tps, diff] = rest;
            line!(
                "{group:<64}  {count:<6}  {version:<24} {kind:<5}  {model:<14}  {tps:<7}  {diff}"
            );
        };
    row("#Group", "#Count", "#Version", "#Type", "#Model", ["#TPS", "#Diff Total"]);
    for topic in super::topics::all(admin).await? {
        let Some(group) = topic.strip_prefix(names::RETRY_PREFIX) else { continue };
        let stats = stats(admin, group).await.unwrap_or_default();
        let diff: i64 =
            stats.offset_table.values().map(|it| it.broker_offset - it.consumer_offset).sum();
        let rest = [&*format!("{}", stats.consume_tps as i64), &diff.to_string()];
        let group = print::cut(group, 64);
        let Some(found) = connection(admin, group).await.unwrap_or_default() else {
            row(group, "0", "OFFLINE", "", "", rest);
            continue;
        };
        let version = found.connection_set.iter().map(|it| it.version).min().unwrap_or(0);
        let (kind, model) = match found.consume_type {
            ConsumeType::Actively => ("PULL", ""),
            ConsumeType::Passively => ("PUSH", found.message_model.name()),
            ConsumeType::Pop => ("PUSH", ""),
        };
        let count = found.connection_set.len().to_string();
        row(group, &count, &print::version(version), kind, model, rest);
    }
    Ok(())
}

async fn consumers(admin: &Admin) -> anyhow::Result<()> {
    let group = admin.required('g');
    let Some(found) = connection(admin, group).await? else {
        bail!("Not found the consumer group connection: the group [{group}] is not online");
    };
    line!("{:<36} {:<22} {:<10} {}", "#ClientId", "#ClientAddr", "#Language", "#Version");
    for it in &found.connection_set {
        let version = print::version(it.version);
        line!("{:<36} {:<22} {:<10} {version}", it.client_id, it.client_addr, it.language);
    }
    line!("\nBelow is subscription:\n{:<20} {}", "#Topic", "#SubExpression");
    for it in found.subscription_table.values() {
        line!("{:<20} {}", it.topic, it.sub_string);
    }
    let (kind, model) = (found.consume_type.name(), found.message_model.name());
    line!("\nConsumeType: {kind}\nMessageModel: {model}");
    line!("ConsumeFromWhere: {}", found.consume_from_where.name());
    Ok(())
}

async fn producers(admin: &Admin) -> anyhow::Result<()> {
    let group = admin.required('g');
    let request = GetProducerConnectionList { producer_group: group.to_owned() };
    let route = admin.client.route(admin.required('t')).await?;
    let mut count = 0;
    for addr in route.data().broker_datas.iter().filter_map(|broker| broker.master()) {
        let call = admin.client.call::<GetProducerConnectionList>(addr, &request, Bytes::new());
        let Ok(answer) = call.await else { continue };
        for it in answer.json::<ProducerConnection>()?.connection_set {
            count += 1;
            let place = format!("{:<32} {:<22} {:<8}", it.client_id, it.client_addr, it.language);
            line!("{count:04}  {place} {}", print::version(it.version));
        }
        if 0 < count {
            return Ok(());
        }
    }
    bail!("the producer group [{group}] is not online");
}

/// Of all groups on one broker.
async fn all_producers(admin: &Admin) -> anyhow::Result<()> {
    let call = admin.client.call::<GetAllProducerInfo>(
        admin.required('b'),
        &GetAllProducerInfo {},
        Bytes::new(),
    );
    for (group, producers) in call.await?.json::<ProducerTableInfo>()?.data {
        if producers.is_empty() {
            line!("producer group ({group}) instances are empty");
        }
        for it in producers {
            let ProducerInfo { client_id, remote_ip, language, version, .. } = it;
            let heard_ms = it.last_update_timestamp;
            let client = format!("clientId={client_id},remoteIP={remote_ip}, language={language}");
            let rest = format!("version={version}, lastUpdateTimestamp={heard_ms}");
            line!("producer group ({group}) instance : {client}, {rest}");
        }
    }
    Ok(())
}

async fn reset(admin: &Admin) -> anyhow::Result<()> {
    let (group, topic, text) = (admin.required('g'), admin.required('t'), admin.required('s'));
    let timestamp_ms = print::parse_time(text)?;
    let is_force = admin.truth('f').unwrap_or(true);
    let request = ResetOffset {
        topic: topic.to_owned(),
        group: group.to_owned(),
        timestamp_ms,
        is_force,
        queue_id: admin.number('q')?.unwrap_or(-1),
        offset: admin.number('o')?,
    };
    let offsets = reset_on_all(admin, &request).await?;
    line!(
        "start reset consumer offset by specified, group[{group}], topic[{topic}], \
         force[{is_force}], timestamp(string)[{text}], timestamp(long)[{timestamp_ms}]"
    );
    show_offsets(&offsets);
    Ok(())
}

/// To the end of each queue.
async fn skip(admin: &Admin) -> anyhow::Result<()> {
    let request = ResetOffset {
        topic: admin.required('t').to_owned(),
        group: admin.required('g').to_owned(),
        timestamp_ms: -1,
        is_force: admin.truth('f').unwrap_or(true),
        queue_id: -1,
        offset: None,
    };
    show_offsets(&reset_on_all(admin, &request).await?);
    Ok(())
}

/// The new offsets on the broker of `-b`, else on all masters that have the topic.
async fn reset_on_all(
    admin: &Admin,
    request: &ResetOffset,
) -> anyhow::Result<BTreeMap<MessageQueue, i64>> {
    let addrs: Vec<String> = match admin.flag('b') {
        Some(addr) => vec![addr.to_owned()],
        None => {
            let route = admin.client.route(&request.topic).await?;
            let masters = route.data().broker_datas.iter().filter_map(|it| it.master());
            masters.map(|addr| addr.to_string()).collect()
        }
    };
    let mut offsets = BTreeMap::new();
    for addr in addrs {
        let answer = admin.client.call::<ResetOffset>(&addr, request, Bytes::new()).await?;
        offsets.extend(answer.json::<ResetOffsetBody>()?.offset_table);
    }
    Ok(offsets)
}

fn show_offsets(offsets: &BTreeMap<MessageQueue, i64>) {
    line!("{:<40}  {:<40}  {:<40}", "#brokerName", "#queueId", "#offset");
    for (queue, offset) in offsets {
        let broker = print::cut(&queue.broker_name, 32);
        line!("{broker:<40}  {:<40}  {offset:<40}", queue.queue_id);
    }
}

async fn clone(admin: &Admin) -> anyhow::Result<()> {
    let (from, to, topic) = (admin.required('s'), admin.required('d'), admin.required('t'));
    // The places of the brokers.
    admin.client.route(topic).await?;
    for (queue, it) in stats(admin, from).await?.offset_table {
        if &*queue.topic == topic {
            admin.client.commit_offset(to, &queue, it.consumer_offset).await?;
        }
    }
    line!("clone group offset success. srcGroup[{from}], destGroup=[{to}], topic[{topic}]");
    Ok(())
}

/// What became of a message in each group that reads its topic, in upstream's words.
pub async fn track(
    admin: &Admin,
    group: &str,
    queue: &MessageQueue,
    offset: i64,
    tag: Option<&str>,
) -> anyhow::Result<&'static str> {
    let Some(found) = connection(admin, group).await? else { return Ok("NOT_ONLINE") };
    match found.consume_type {
        ConsumeType::Actively => return Ok("PULL"),
        _ if found.message_model == MessageModel::Broadcasting => {
            return Ok("CONSUME_BROADCASTING");
        }
        _ => {}
    }
    let stats = stats(admin, group).await?;
    let consumed = stats.offset_table.get(queue).is_some_and(|it| offset < it.consumer_offset);
    if !consumed {
        return Ok("NOT_CONSUME_YET");
    }
    let is_filtered = found.subscription_table.get(&queue.topic).is_some_and(|it| {
        !it.tags_set.is_empty() && tag.is_none_or(|tag| !it.tags_set.contains(tag))
    });
    Ok(if is_filtered { "CONSUMED_BUT_FILTERED" } else { "CONSUMED" })
}
