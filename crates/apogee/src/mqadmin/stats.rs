//! How many messages topics and groups move.

use apogee_types::names::{DLQ_PREFIX, RETRY_PREFIX};
use apogee_wire::remoting::bodies::BrokerStatsData;
use apogee_wire::remoting::requests::ViewBrokerStats;
use bytes::Bytes;

use super::print::{self, line};
use super::{Admin, Command, optional, switch};

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "statsAll",
    help: "Topic and Consumer tps stats.",
    flags: &[
        switch('a', "activeTopic", "print active topic only"),
        optional('t', "topic", "print select topic only"),
    ],
    run: |admin| Box::pin(all(admin)),
}];

async fn all(admin: &Admin) -> anyhow::Result<()> {
    let topics = super::topics::all(admin).await?;
    let names = ["#Topic", "#Consumer Group"];
    row(names, ["#Accumulation", "#InTPS", "#OutTPS", "#InMsg24Hour", "#OutMsg24Hour"]);
    let wanted = admin.flag('t').filter(|it| !it.is_empty());
    for topic in topics {
        let is_wanted = wanted.is_none_or(|wanted| wanted == &*topic);
        if !is_wanted || topic.starts_with(RETRY_PREFIX) || topic.starts_with(DLQ_PREFIX) {
            continue;
        }
        // One that nobody can tell of does not keep the others from being shown.
        let _ = show(admin, &topic).await;
    }
    Ok(())
}

fn row([topic, group]: [&str; 2], [behind, in_tps, out_tps, came, went]: [&str; 5]) {
    let rates = format!("{behind:>12} {in_tps:>11} {out_tps:>11}");
    line!("{topic:<64}  {group:<64} {rates} {came:>14} {went:>14}");
}

async fn show(admin: &Admin, topic: &str) -> anyhow::Result<()> {
    let groups = super::topics::groups_of(admin, topic).await?;
    let came = moved(admin, topic, "TOPIC_PUT_NUMS", topic).await?;
    let only_active = admin.is_set('a');
    let name = print::cut(topic, 64);
    let (in_tps, in_count) = (format!("{:.2}", came.tps), came.count.to_string());
    if groups.is_empty() && (!only_active || 0 < came.count) {
        row([name, ""], ["0", &in_tps, "", &in_count, "NO_CONSUMER"]);
    }
    for group in groups {
        let went = moved(admin, topic, "GROUP_GET_NUMS", &format!("{topic}@{group}")).await?;
        let stats = super::groups::stats(admin, &group).await.unwrap_or_default();
        let queues = stats.offset_table.iter().filter(|(queue, _)| &*queue.topic == topic);
        let behind: i64 = queues.map(|(_, it)| it.broker_offset - it.consumer_offset).sum();
        if !only_active || 0 < came.count || 0 < went.count {
            let (behind, out_tps) = (behind.max(0).to_string(), format!("{:.2}", went.tps));
            let rates = [&*behind, &in_tps, &out_tps, &in_count, &went.count.to_string()];
            row([name, print::cut(&group, 64)], rates);
        }
    }
    Ok(())
}

#[derive(Default)]
pub struct Moved {
    /// Messages a second in the last minute.
    pub tps: f64,
    /// Messages of a day; of a younger broker since it began.
    pub count: i64,
}

/// What the brokers of a topic have counted under a name.
async fn moved(admin: &Admin, topic: &str, name: &str, key: &str) -> anyhow::Result<Moved> {
    let mut moved = Moved::default();
    let route = admin.client.route(topic).await?;
    for addr in route.data().broker_datas.iter().filter_map(|broker| broker.master()) {
        let of_broker = moved_on(admin, addr, name, key).await;
        moved.tps += of_broker.tps;
        moved.count += of_broker.count;
    }
    Ok(moved)
}

/// What a broker has counted; if it has not, nothing.
pub async fn moved_on(admin: &Admin, addr: &str, name: &str, key: &str) -> Moved {
    let request = ViewBrokerStats { stats_name: name.to_owned(), stats_key: key.to_owned() };
    let call = admin.client.call::<ViewBrokerStats>(addr, &request, Bytes::new()).await;
    let Ok(found) = call.and_then(|answer| answer.json::<BrokerStatsData>()) else {
        return Moved::default();
    };
    let sums = [found.stats_day.sum, found.stats_hour.sum, found.stats_minute.sum];
    let count = sums.into_iter().find(|sum| *sum != 0).unwrap_or(0);
    Moved { tps: found.stats_minute.tps, count }
}
