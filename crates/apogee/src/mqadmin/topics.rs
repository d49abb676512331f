//! Commands on topics.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, bail};
use apogee_control::kv::ORDER_TOPIC_CONFIG;
use apogee_types::config::{Perm, TopicConfig};
use apogee_types::{json, names};
use apogee_wire::remoting::bodies::{
    ConsumeQueueData, CreateTopicListRequestBody, GroupList, QueryConsumeQueueResponseBody,
    TopicList,
};
use apogee_wire::remoting::requests::{
    DeleteTopicInBroker, DeleteTopicInNameServer, GetAllTopicList, QueryConsumeQueue,
    QueryTopicConsumeByWho, UpdateAndCreateTopicList,
};
use bytes::Bytes;

use super::print::{self, line};
use super::{Admin, Command, Master, masters, optional, required, switch};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "updateTopic",
        help: "Update or create topic.",
        flags: &[
            optional('b', "brokerAddr", "create topic to which broker"),
            optional('c', "clusterName", "create topic to which cluster"),
            required('t', "topic", "topic name"),
            optional('a', "attributes", "attribute(+a=b,+c=d,-e)"),
            optional('r', "readQueueNums", "set read queue nums"),
            optional('w', "writeQueueNums", "set write queue nums"),
            optional('p', "perm", "set topic's permission(2|4|6), intro[2:W 4:R; 6:RW]"),
            optional('o', "order", "set topic's order(true|false)"),
            optional('u', "unit", "is unit topic (true|false)"),
            optional('s', "hasUnitSub", "has unit sub (true|false)"),
        ],
        run: |admin| Box::pin(update(admin)),
    },
    Command {
        name: "updateTopicList",
        help: "create or update topic in batch",
        flags: &[
            optional('b', "brokerAddr", "create topic to which broker"),
            optional('c', "clusterName", "create topic to which cluster"),
            required(
                'f',
                "filename",
                "Path to a file with list of org.apache.rocketmq.common.TopicConfig in json format",
            ),
        ],
        run: |admin| Box::pin(update_list(admin)),
    },
    Command {
        name: "updateTopicPerm",
        help: "Update topic perm.",
        flags: &[
            optional('b', "brokerAddr", "create topic to which broker"),
            optional('c', "clusterName", "create topic to which cluster"),
            required('t', "topic", "topic name"),
            required('p', "perm", "set topic's permission(2|4|6), intro[2:W; 4:R; 6:RW]"),
        ],
        run: |admin| Box::pin(update_perm(admin)),
    },
    Command {
        name: "deleteTopic",
        help: "Delete topic from broker and NameServer.",
        flags: &[
            required('t', "topic", "topic name"),
            required('c', "clusterName", "delete topic from which cluster"),
        ],
        run: |admin| Box::pin(delete(admin)),
    },
    Command {
        name: "topicList",
        help: "Fetch all topic list from name server.",
        flags: &[switch('c', "clusterModel", "clusterModel")],
        run: |admin| Box::pin(list(admin)),
    },
    Command {
        name: "topicRoute",
        help: "Examine topic route info.",
        flags: &[required('t', "topic", "topic name")],
        run: |admin| Box::pin(route(admin)),
    },
    Command {
        name: "topicStatus",
        help: "Examine topic Status info.",
        flags: &[
            required('t', "topic", "topic name"),
            optional(
                'c',
                "cluster",
                "cluster name or lmq parent topic, lmq is used to find the route.",
            ),
        ],
        run: |admin| Box::pin(status(admin)),
    },
    Command {
        name: "topicClusterList",
        help: "Get cluster info for topic.",
        flags: &[required('t', "topic", "topic name")],
        run: |admin| Box::pin(clusters(admin)),
    },
    Command {
        name: "queryCq",
        help: "Query cq command.",
        flags: &[
            required('t', "topic", "topic name"),
            required('q', "queue", "queue num, ie. 1"),
            required('i', "index", "start queue index."),
            optional('c', "count", "how many."),
            optional('b', "broker", "broker addr."),
            optional('g', "consumer", "consumer group."),
        ],
        run: |admin| Box::pin(query_queue(admin)),
    },
    Command {
        name: "allocateMQ",
        help: "Allocate MQ.",
        flags: &[required('t', "topic", "topic name"), required('i', "ipList", "ipList")],
        run: |admin| Box::pin(allocate(admin)),
    },
];

/// Bits of a topic's sys flag.
const UNIT: i32 = 1;
const UNIT_SUB: i32 = 2;

async fn update(admin: &Admin) -> anyhow::Result<()> {
    let topic = admin.required('t');
    names::check_topic(topic)?;
    let bit = |short, bit| if admin.truth(short) == Some(true) { bit } else { 0 };
    let order = admin.truth('o').unwrap_or(false);
    let mut config = TopicConfig::new(topic, 8, Perm(admin.number('p')?.unwrap_or(6)));
    config.read_queue_count = admin.number('r')?.unwrap_or(8);
    config.write_queue_count = admin.number('w')?.unwrap_or(8);
    config.topic_sys_flag = bit('u', UNIT) | bit('s', UNIT_SUB);
    config.order = order;
    for part in admin.flag('a').unwrap_or_default().split(',').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        config.attributes.insert(name.to_owned(), value.to_owned());
    }
    let targets = admin.targets().await?;
    if order {
        let places = targets.iter().map(|it| format!("{}:{}", it.name, config.write_queue_count));
        let places = places.collect::<Vec<_>>().join(";");
        let what = if admin.is_set('b') { "broker" } else { "cluster" };
        put_order(admin, topic, &places, what == "broker").await?;
        line!("set {what} orderConf. isOrder=true, orderConf=[{places}]");
    }
    for target in &targets {
        admin.client.create_topic_on(&target.addr, &config).await?;
        line!("create topic to {} success.", target.addr);
    }
    line!("{}", print::topic(&config));
    Ok(())
}

async fn update_list(admin: &Admin) -> anyhow::Result<()> {
    let topic_config_list: Vec<TopicConfig> = json::read(&admin.file('f')?)?;
    if topic_config_list.is_empty() {
        return Ok(());
    }
    let body = Bytes::from(json::write(&CreateTopicListRequestBody { topic_config_list }));
    for Master { addr, .. } in admin.targets().await? {
        let request = UpdateAndCreateTopicList {};
        admin.client.call::<UpdateAndCreateTopicList>(&addr, &request, body.clone()).await?;
        line!("submit batch of topic config to {addr} success, please check the result later.");
    }
    Ok(())
}

/// All else of the topic stays as its route shows it.
async fn update_perm(admin: &Admin) -> anyhow::Result<()> {
    let topic = admin.required('t');
    let perm: i32 = admin.number('p')?.unwrap_or_default();
    let route = admin.client.route(topic).await?;
    let queues = &route.data().queue_datas;
    let of_broker = |name: &str| queues.iter().find(|it| &*it.broker_name == name);
    let (found, targets) = match admin.flag('b') {
        Some(addr) => {
            let mut brokers = route.data().broker_datas.iter();
            let broker = brokers.find(|it| it.master().is_some_and(|master| &**master == addr));
            let queues = broker
                .and_then(|it| of_broker(&it.broker_name))
                .context("updateTopicPerm error broker not exit or broker is not master!.")?;
            if queues.perm.0 == perm {
                line!("new perm equals to the old one!");
                return Ok(());
            }
            (queues, vec![addr.into()])
        }
        None => {
            let masters = admin.targets().await?.into_iter().map(|it| it.addr);
            (queues.first().context("no broker serves the topic")?, masters.collect())
        }
    };
    let mut config = TopicConfig::new(topic, found.write_queue_count, Perm(perm));
    config.read_queue_count = found.read_queue_count;
    config.topic_sys_flag = found.topic_sys_flag;
    let old = found.perm.0;
    for addr in targets {
        let addr: Arc<str> = addr;
        admin.client.create_topic_on(&addr, &config).await?;
        line!("update topic perm from {old} to {perm} in {addr} success.");
    }
    if admin.is_set('b') {
        line!("{}.", print::topic(&config));
    }
    Ok(())
}

/// Keeps which brokers have how many queues of an order topic; with `keeps_others` those that are
/// not named stay.
async fn put_order(
    admin: &Admin,
    topic: &str,
    places: &str,
    keeps_others: bool,
) -> anyhow::Result<()> {
    let known = super::names::find(admin, ORDER_TOPIC_CONFIG, topic).await?;
    let known = known.filter(|_| keeps_others).unwrap_or_default();
    let pairs = known.split(';').chain(places.split(';')).filter_map(|it| it.split_once(':'));
    let pairs: BTreeMap<&str, &str> = pairs.collect();
    let pairs: Vec<_> = pairs.iter().map(|(broker, count)| format!("{broker}:{count}")).collect();
    super::names::put(admin, ORDER_TOPIC_CONFIG, topic, &pairs.join(";")).await
}

async fn delete(admin: &Admin) -> anyhow::Result<()> {
    let (topic, cluster) = (admin.required('t').to_owned(), admin.required('c'));
    let request = DeleteTopicInBroker { topic: topic.clone() };
    for target in masters(&admin.client.cluster_info().await?, cluster)? {
        admin.client.call::<DeleteTopicInBroker>(&target.addr, &request, Bytes::new()).await?;
    }
    line!("delete topic [{topic}] from cluster [{cluster}] success.");
    let cluster_name = Some(cluster.to_owned());
    let request = DeleteTopicInNameServer { topic: topic.clone(), cluster_name };
    for addr in admin.client.name_servers() {
        admin.client.call::<DeleteTopicInNameServer>(addr, &request, Bytes::new()).await?;
    }
    line!("delete topic [{topic}] from NameServer success.");
    Ok(())
}

pub async fn all(admin: &Admin) -> anyhow::Result<Vec<Arc<str>>> {
    let request = GetAllTopicList {};
    let answer = admin.client.call_name_server::<GetAllTopicList>(&request, Bytes::new()).await?;
    Ok(answer.success()?.json::<TopicList>()?.topic_list)
}

async fn list(admin: &Admin) -> anyhow::Result<()> {
    let topics = all(admin).await?;
    if !admin.is_set('c') {
        topics.iter().for_each(|topic| line!("{topic}"));
        return Ok(());
    }
    line!("{:<20}  {:<48}  {:<48}", "#Cluster Name", "#Topic", "#Consumer Group");
    for topic in topics {
        if topic.starts_with(names::RETRY_PREFIX) || topic.starts_with(names::DLQ_PREFIX) {
            continue;
        }
        let groups = groups_of(admin, &topic).await.unwrap_or_default();
        let groups = if groups.is_empty() { vec!["".into()] } else { groups };
        for cluster in clusters_of(admin, &topic).await.unwrap_or_default() {
            for group in &groups {
                let (cluster, topic) = (print::cut(&cluster, 20), print::cut(&topic, 64));
                line!("{cluster:<20}  {topic:<64}  {:<64}", print::cut(group, 64));
            }
        }
    }
    Ok(())
}

/// The groups that read a topic, as its first broker knows them.
pub async fn groups_of(admin: &Admin, topic: &str) -> anyhow::Result<Vec<Arc<str>>> {
    let route = admin.client.route(topic).await?;
    let request = QueryTopicConsumeByWho { topic: topic.to_owned() };
    let mut addrs = route.data().broker_datas.iter().filter_map(|broker| broker.master());
    let Some(addr) = addrs.next() else { return Ok(Vec::new()) };
    let answer = admin.client.call::<QueryTopicConsumeByWho>(addr, &request, Bytes::new()).await?;
    Ok(answer.json::<GroupList>()?.group_list)
}

async fn clusters_of(admin: &Admin, topic: &str) -> anyhow::Result<Vec<Arc<str>>> {
    let route = admin.client.route(topic).await?;
    let brokers = route.data().broker_datas.iter();
    let mut clusters: Vec<_> = brokers.map(|broker| Arc::clone(&broker.cluster)).collect();
    clusters.sort();
    clusters.dedup();
    Ok(clusters)
}

async fn route(admin: &Admin) -> anyhow::Result<()> {
    let route = admin.client.route(admin.required('t')).await?;
    line!("{}", print::pretty(&json::write(route.data())));
    Ok(())
}

async fn status(admin: &Admin) -> anyhow::Result<()> {
    let topic = admin.required('t');
    let header = ("#Broker Name", "#QID", "#Min Offset", "#Max Offset", "#Last Updated");
    let (broker, id, min, max, time) = header;
    line!("{broker:<32}  {id:<4}  {min:<20}  {max:<20}    {time}");
    let route = admin.client.route(topic).await?;
    let mut tps = 0.0;
    for addr in route.data().broker_datas.iter().filter_map(|broker| broker.master()) {
        let stats = admin.client.topic_stats(addr, topic).await?;
        tps += stats.topic_put_tps;
        for (queue, offset) in &stats.offset_table {
            let time = offset.last_update_timestamp;
            let time = if 0 < time { print::millis(time) } else { String::new() };
            let broker = print::cut(&queue.broker_name, 32);
            let (id, min, max) = (queue.queue_id, offset.min_offset, offset.max_offset);
            line!("{broker:<32}  {id:<4}  {min:<20}  {max:<20}    {time}");
        }
    }
    line!("\nTopic Put TPS: {tps:?}");
    Ok(())
}

async fn clusters(admin: &Admin) -> anyhow::Result<()> {
    for cluster in clusters_of(admin, admin.required('t')).await? {
        line!("{cluster}");
    }
    Ok(())
}

/// What stands in a consume queue, on the broker of `-b` or the first that has the topic.
async fn query_queue(admin: &Admin) -> anyhow::Result<()> {
    let topic = admin.required('t');
    let index = admin.number('i')?.context("a required flag")?;
    let request = QueryConsumeQueue {
        topic: topic.to_owned(),
        queue_id: admin.number('q')?.context("a required flag")?,
        index,
        count: admin.number('c')?.unwrap_or(10),
        consumer_group: admin.flag('g').map(str::to_owned),
    };
    let addr: Arc<str> = match admin.flag('b') {
        Some(addr) => addr.into(),
        None => {
            let route = admin.client.route(topic).await?;
            let first = route.data().broker_datas.first().and_then(|it| it.master());
            Arc::clone(first.context("No topic route data!")?)
        }
    };
    let answer = admin.client.call::<QueryConsumeQueue>(&addr, &request, Bytes::new()).await?;
    if answer.body.is_empty() {
        bail!("{}", answer.remark);
    }
    let found: QueryConsumeQueueResponseBody = answer.json()?;
    let frame = "=".repeat(38);
    if let Some(subscription) = &found.subscription_data {
        line!("Subscription data: \n{}", print::pretty(&json::write(subscription)));
        line!("{frame}");
    }
    if let Some(filter) = &found.filter_data {
        line!("Filter data: \n{filter}\n{frame}");
    }
    let (max, min) = (found.max_queue_index, found.min_queue_index);
    line!("Queue data: \nmax: {max}, min: {min}\n{frame}");
    for (at, it) in (index..).zip(&found.queue_data) {
        let text = |text: &Option<String>| text.as_deref().unwrap_or("null").to_owned();
        let ConsumeQueueData { physic_offset, physic_size, tags_code, eval, .. } = it;
        let place = format!("physicOffset={physic_offset}, physicSize={physic_size}");
        let (extension, bits) = (text(&it.extend_data_json), text(&it.bit_map));
        let rest = format!("extendDataJson='{extension}', bitMap='{bits}', eval={eval}");
        let msg = text(&it.msg);
        line!("idx: {at}\nConsumeQueueData{{{place}, tagsCode={tags_code}, {rest}, msg='{msg}'}}");
        line!("{frame}");
    }
    Ok(())
}

/// Who would get which queues by the strategy `AVG`.
async fn allocate(admin: &Admin) -> anyhow::Result<()> {
    let route = admin.client.route(admin.required('t')).await?;
    let members: Vec<Arc<str>> = admin.required('i').split(',').map(Arc::from).collect();
    let share = |member: &Arc<str>| {
        let queues = apogee_client::share(route.read_queues(), members.clone(), member);
        (Arc::clone(member), queues.unwrap_or_default())
    };
    let result: BTreeMap<_, _> = members.iter().map(share).collect();
    line!("{}", String::from_utf8_lossy(&json::write(&BTreeMap::from([("result", result)]))));
    Ok(())
}
