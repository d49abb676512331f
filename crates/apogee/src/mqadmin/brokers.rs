//! Commands on brokers and clusters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use apogee_types::route::BrokerData;
use apogee_types::{Clock, SystemClock};
use apogee_wire::remoting::Request;
use apogee_wire::remoting::bodies::{ConsumeStatsList, HARuntimeInfo, KVTable};
use apogee_wire::remoting::requests::{
    CleanExpiredConsumeQueue, CleanUnusedTopic, DeleteExpiredCommitLog, GetBrokerConfig,
    GetBrokerConsumeStats, GetBrokerHaStatus, GetBrokerRuntimeInfo,
};
use bytes::Bytes;

use super::print::{self, line};
use super::{Admin, Command, masters, optional, required, switch};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "clusterList",
        help: "List cluster infos.",
        flags: &[
            switch('m', "moreStats", "Print more stats"),
            optional('i', "interval", "specify intervals numbers, it is in seconds"),
            optional('c', "clusterName", "which cluster"),
        ],
        run: |admin| Box::pin(list(admin)),
    },
    Command {
        name: "brokerStatus",
        help: "Fetch broker runtime status data.",
        flags: &[
            optional('b', "brokerAddr", "Broker address"),
            optional('c', "clusterName", "which cluster"),
        ],
        run: |admin| Box::pin(status(admin)),
    },
    Command {
        name: "getBrokerConfig",
        help: "Get broker config by cluster or special broker.",
        flags: &[
            optional('b', "brokerAddr", "get which broker"),
            optional('c', "clusterName", "get which cluster"),
            optional('k', "keyPattern", "the text that keys must contain"),
        ],
        run: |admin| Box::pin(config(admin)),
    },
    Command {
        name: "brokerConsumeStats",
        help: "Fetch broker consume stats data.",
        flags: &[
            required('b', "brokerAddr", "Broker address"),
            optional('t', "timeoutMillis", "request timeout Millis"),
            optional('l', "level", "threshold of print diff"),
            optional('o', "order", "order topic"),
        ],
        run: |admin| Box::pin(consume_stats(admin)),
    },
    Command {
        name: "haStatus",
        help: "Fetch ha runtime status data.",
        flags: &[
            optional('c', "clusterName", "which cluster"),
            optional('b', "brokerAddr", "which broker to fetch"),
            optional('i', "interval", "the interval(second) of get info"),
        ],
        run: |admin| Box::pin(ha_status(admin)),
    },
    Command {
        name: "cleanExpiredCQ",
        help: "Clean expired ConsumeQueue on broker.",
        flags: &[
            optional('b', "brokerAddr", "Broker address"),
            optional('c', "cluster", "clustername"),
        ],
        run: |admin| Box::pin(clean(admin, CleanExpiredConsumeQueue {})),
    },
    Command {
        name: "cleanUnusedTopic",
        help: "Clean unused topic on broker.",
        flags: &[
            optional('b', "brokerAddr", "Broker address"),
            optional('c', "cluster", "cluster name"),
        ],
        run: |admin| Box::pin(clean(admin, CleanUnusedTopic {})),
    },
    Command {
        name: "deleteExpiredCommitLog",
        help: "Delete expired CommitLog files.",
        flags: &[
            optional('b', "brokerAddr", "Broker address"),
            optional('c', "cluster", "clustername"),
        ],
        run: |admin| Box::pin(clean(admin, DeleteExpiredCommitLog {})),
    },
];

/// Asks the broker of `-b`, else all of the cluster of `-c`, else all there are.
async fn clean<R>(admin: &Admin, request: R) -> anyhow::Result<()>
where
    R: for<'a> Request<At<'a> = R>,
{
    let addrs: Vec<Arc<str>> = match admin.flag('b') {
        Some(addr) => vec![addr.into()],
        None => {
            let info = admin.client.cluster_info().await?;
            let all = info.broker_addr_table.values();
            let cluster = admin.flag('c').filter(|it| !it.is_empty());
            if let Some(cluster) = cluster {
                masters(&info, cluster)?;
            }
            let is_wanted = |it: &&BrokerData| cluster.is_none_or(|wanted| *it.cluster == *wanted);
            all.filter(is_wanted).flat_map(|it| it.broker_addrs.values().cloned()).collect()
        }
    };
    for addr in addrs {
        admin.client.call::<R>(&addr, &request, Bytes::new()).await?;
    }
    line!("success");
    Ok(())
}

async fn consume_stats(admin: &Admin) -> anyhow::Result<()> {
    let is_order = admin.truth('o').unwrap_or(false);
    let within = Duration::from_millis(admin.number('t')?.unwrap_or(50_000));
    let level = admin.number('l')?.unwrap_or(0);
    let (addr, request) = (admin.required('b'), GetBrokerConsumeStats { is_order });
    let call =
        admin.client.call_within::<GetBrokerConsumeStats>(addr, &request, Bytes::new(), within);
    let all: ConsumeStatsList = call.await?.success()?.json()?;
    let row = |place: [&str; 4], offsets: [&str; 3], time: &str| {
        let ([topic, group, broker, id], [end, consumed, diff]) = (place, offsets);
        let place = format!("{topic:<64}  {group:<64}  {broker:<32}  {id:<4}");
        line!("{place}  {end:<20}  {consumed:<20}  {diff:<20}  {time}");
    };
    let place = ["#Topic", "#Group", "#Broker Name", "#QID"];
    row(place, ["#Broker Offset", "#Consumer Offset", "#Diff"], "#LastTime");
    for (group, stats) in all.consume_stats_list.iter().flatten() {
        for (queue, it) in stats.iter().flat_map(|stats| &stats.offset_table) {
            let diff = it.broker_offset - it.consumer_offset;
            if diff < level || it.last_timestamp <= 0 {
                continue;
            }
            let (topic, broker) =
                (print::cut(&queue.topic, 64), print::cut(&queue.broker_name, 32));
            let id = queue.queue_id.to_string();
            let offsets = [it.broker_offset, it.consumer_offset, diff].map(|it| it.to_string());
            let offsets = offsets.each_ref().map(String::as_str);
            row([topic, group, broker, &id], offsets, &print::seconds(it.last_timestamp));
        }
    }
    line!("\nDiff Total: {}", all.total_diff);
    Ok(())
}

async fn ha_status(admin: &Admin) -> anyhow::Result<()> {
    let pause = admin.number('i')?.map(Duration::from_secs);
    loop {
        for target in admin.targets().await? {
            ha_status_of(admin, &target.addr).await?;
        }
        let Some(pause) = pause else { return Ok(()) };
        tokio::time::sleep(pause).await;
    }
}

async fn ha_status_of(admin: &Admin, addr: &str) -> anyhow::Result<()> {
    let call = admin.client.call::<GetBrokerHaStatus>(addr, &GetBrokerHaStatus {}, Bytes::new());
    let info: HARuntimeInfo = call.await?.json()?;
    let speed = |bytes: i64| format!("{:.2}", bytes as f64 / 1024.0);
    if !info.master {
        let it = info.ha_client_runtime_info;
        line!("\n#MasterAddr\t{}", it.master_addr.as_deref().unwrap_or("null"));
        line!("#CommitLogMaxOffset\t{}", it.max_offset);
        line!("#TransferSpeed(KB/s)\t{}", speed(it.transferred_byte_in_second));
        line!("#LastReadTime\t{}", print::millis(it.last_read_timestamp));
        line!("#LastWriteTime\t{}", print::millis(it.last_write_timestamp));
        line!("#MasterFlushOffset\t{}", it.master_flush_offset);
        return Ok(());
    }
    line!(
        "\n#MasterAddr\t{addr}\n#MasterCommitLogMaxOffset\t{}",
        info.master_commit_log_max_offset
    );
    let (slaves, in_sync) = (info.ha_connection_info.len(), info.in_sync_slave_nums);
    line!("#SlaveNum\t{slaves}\n#InSyncSlaveNum\t{in_sync}");
    let row = |slave: &str, ack: &str, rest: [&str; 4]| {
        let [diff, speed, status, from] = rest;
        line!("{slave:<32}  {ack:<16} {diff:>16} {speed:>16} {status:>16} {from:>16}");
    };
    let rest = ["#Diff", "#TransferSpeed(KB/s)", "#Status", "#TransferFromWhere"];
    row("#SlaveAddr", "#SlaveAckOffset", rest);
    for it in info.ha_connection_info {
        let status = if it.in_sync { "OK" } else { "Fall Behind" };
        let speed = speed(it.transferred_byte_in_second);
        let rest = [&it.diff.to_string(), &*speed, status, &it.transfer_from_where.to_string()];
        row(&it.addr, &it.slave_ack_offset.to_string(), rest);
    }
    Ok(())
}

pub async fn runtime_info(admin: &Admin, addr: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let request = GetBrokerRuntimeInfo {};
    let answer = admin.client.call::<GetBrokerRuntimeInfo>(addr, &request, Bytes::new()).await?;
    Ok(answer.json::<KVTable>()?.table)
}

/// Once, or with `-i` again and again.
async fn list(admin: &Admin) -> anyhow::Result<()> {
    let pause = admin.number('i')?.map(Duration::from_secs);
    loop {
        match admin.is_set('m') {
            true => list_days(admin).await?,
            false => list_now(admin).await?,
        }
        let Some(pause) = pause else { return Ok(()) };
        tokio::time::sleep(pause).await;
        line!("");
    }
}

/// How many messages came and went yesterday, and today so far.
async fn list_days(admin: &Admin) -> anyhow::Result<()> {
    let row = |cluster: &str, broker: &str, [put, got, put_now, got_now]: [&str; 4]| {
        let counts = format!("{put:>14} {got:>14} {put_now:>14} {got_now:>14}");
        line!("{cluster:<16}  {broker:<32} {counts}");
    };
    let counts = ["#InTotalYest", "#OutTotalYest", "#InTotalToday", "#OutTotalToday"];
    row("#Cluster Name", "#Broker Name", counts);
    let info = admin.client.cluster_info().await?;
    for (cluster, names) in &info.cluster_addr_table {
        if admin.flag('c').is_some_and(|wanted| wanted != &**cluster) {
            continue;
        }
        for broker in names.iter().filter_map(|name| info.broker_addr_table.get(name)) {
            for addr in broker.broker_addrs.values() {
                let table = runtime_info(admin, addr).await.unwrap_or_default();
                let count = |key: &str| {
                    table.get(key).and_then(|it| it.parse::<i64>().ok()).unwrap_or_default()
                };
                let between = |what: &str, from: &str, until: &str| {
                    (count(&format!("{what}{until}")) - count(&format!("{what}{from}"))).to_string()
                };
                let (put, got) = ("msgPutTotal", "msgGetTotal");
                let (before, morning, now) = ("YesterdayMorning", "TodayMorning", "TodayNow");
                let counts = [
                    between(put, before, morning),
                    between(got, before, morning),
                    between(put, morning, now),
                    between(got, morning, now),
                ];
                row(cluster, &broker.broker_name, counts.each_ref().map(String::as_str));
            }
        }
    }
    Ok(())
}

async fn list_now(admin: &Admin) -> anyhow::Result<()> {
    let info = admin.client.cluster_info().await?;
    let place = ("#Cluster Name", "#Broker Name", "#BID", "#Addr", "#Version");
    let (cluster, name, id, addr, version) = place;
    let place = format!("{cluster:<22}  {name:<22}  {id:<4}  {addr:<22} {version:<16}");
    let rates = format!("{:>16}  {:>30}", "#InTPS(LOAD)", "#OutTPS(LOAD)");
    let rest = format!("{:<22}  {:<11}  {:<12}", "#Timer(Progress)", "#PCWait(ms)", "#Hour");
    line!("{place}  {rates}  {rest}  {:<8}  #ACTIVATED", "#SPACE");
    for (cluster, names) in &info.cluster_addr_table {
        if admin.flag('c').is_some_and(|wanted| wanted != &**cluster) {
            continue;
        }
        for broker in names.iter().filter_map(|name| info.broker_addr_table.get(name)) {
            for (id, addr) in &broker.broker_addrs {
                // One that does not answer is shown with what is known of it.
                let table = runtime_info(admin, addr).await.unwrap_or_default();
                let place =
                    format!("{cluster:<22}  {:<22}  {id:<4}  {addr:<22}", broker.broker_name);
                line!("{place} {}", columns(&table));
            }
        }
    }
    Ok(())
}

/// What `clusterList` shows of a broker's own figures.
fn columns(table: &BTreeMap<String, String>) -> String {
    let text = |key: &str| table.get(key).map_or("", String::as_str);
    let number = |key: &str| text(key).parse::<f64>().unwrap_or(0.0);
    let rate = |key: &str| {
        let first = text(key).split_whitespace().next().and_then(|it| it.parse::<f64>().ok());
        first.unwrap_or(0.0)
    };
    let count = |key: &str| number(key) as i64;
    let load = |pool: &str| {
        let size = count(&format!("{pool}ThreadPoolQueueSize"));
        format!("{size},{}ms", count(&format!("{pool}ThreadPoolQueueHeadWaitTimeMills")))
    };
    let incoming = format!("{:.2}({})", rate("putTps"), load("send"));
    let out = rate("getTransferredTps");
    let outgoing = format!("{out:.2}({}|{})", load("pull"), load("ack"));
    let timer = format!(
        "{}-{}({:.1}w, {:.1}, {:.1})",
        count("timerReadBehind"),
        count("timerOffsetBehind"),
        number("timerCongestNum") / 10_000.0,
        number("timerEnqueueTps"),
        number("timerDequeueTps")
    );
    let oldest_ms = number("earliestMessageTimeStamp");
    let age_ms = if 0.0 < oldest_ms { SystemClock.now_ms() as f64 - oldest_ms } else { 0.0 };
    format!(
        "{:<16}  {incoming:>16}  {outgoing:>30}  {timer:<22}  {:>11}  {:<12}  {:<8}  {:>10}",
        text("brokerVersionDesc"),
        count("pageCacheLockTimeMills"),
        format!("{:.2}", age_ms / 3_600_000.0),
        format!("{:.4}", number("commitLogDiskRatio")),
        text("brokerActive")
    )
}

async fn status(admin: &Admin) -> anyhow::Result<()> {
    for target in admin.targets().await? {
        let place = if admin.is_set('b') { String::new() } else { format!("{:<24} ", target.addr) };
        for (key, value) in runtime_info(admin, &target.addr).await? {
            line!("{place}{key:<32}: {value}");
        }
    }
    Ok(())
}

async fn config(admin: &Admin) -> anyhow::Result<()> {
    if let Some(addr) = admin.flag('b') {
        return show_config(admin, &format!("============{addr}============"), addr).await;
    }
    let cluster = admin.flag('c').context("give a broker with -b or a cluster with -c")?;
    let info = admin.client.cluster_info().await?;
    let names = info.cluster_addr_table.get(cluster);
    let names = names.with_context(|| format!("cluster [{cluster}] not exist"))?;
    for broker in names.iter().filter_map(|name| info.broker_addr_table.get(name)) {
        let master: Arc<str> = broker.master().cloned().unwrap_or_else(|| "".into());
        for (id, addr) in &broker.broker_addrs {
            let title = match id {
                0 => format!("============Master: {addr}============"),
                _ => format!("============My Master: {master}=====Slave: {addr}============"),
            };
            show_config(admin, &title, addr).await?;
        }
    }
    Ok(())
}

async fn show_config(admin: &Admin, title: &str, addr: &str) -> anyhow::Result<()> {
    let answer =
        admin.client.call::<GetBrokerConfig>(addr, &GetBrokerConfig {}, Bytes::new()).await?;
    line!("{title}");
    show_settings(&answer.body, admin.flag('k').unwrap_or_default());
    Ok(())
}

/// Those whose keys contain `part`.
pub fn show_settings(body: &[u8], part: &str) {
    for (key, value) in String::from_utf8_lossy(body).lines().filter_map(|it| it.split_once('=')) {
        if key.contains(part) {
            line!("{key:<50}=  {value}");
        }
    }
}
