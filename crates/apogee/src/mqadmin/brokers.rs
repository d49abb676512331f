//! Commands on brokers and clusters.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use apogee_types::{Clock, SystemClock};
use apogee_wire::remoting::bodies::KVTable;
use apogee_wire::remoting::requests::{GetBrokerConfig, GetBrokerRuntimeInfo};
use bytes::Bytes;

use super::print::line;
use super::{Admin, Command, optional};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "clusterList",
        help: "List cluster infos.",
        flags: &[optional('c', "clusterName", "which cluster")],
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
];

async fn runtime_info(admin: &Admin, addr: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let request = GetBrokerRuntimeInfo {};
    let answer = admin.client.call::<GetBrokerRuntimeInfo>(addr, &request, Bytes::new()).await?;
    Ok(answer.json::<KVTable>()?.table)
}

async fn list(admin: &Admin) -> anyhow::Result<()> {
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
