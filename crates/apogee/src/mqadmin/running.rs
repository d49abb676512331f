//! What consumers say of themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use apogee_store::{Disk, RealDisk};
use apogee_types::route::MessageQueue;
use apogee_types::subscription::ConsumeType;
use apogee_types::{Clock, Millis, SystemClock};
use apogee_wire::remoting::bodies::{ConsumerRunningInfo, ProcessQueueInfo};
use apogee_wire::remoting::requests::GetConsumerRunningInfo;
use bytes::Bytes;

use super::print::{self, line};
use super::{Admin, Command, groups, optional, required, switch};

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "consumerStatus",
    help: "Query consumer's internal data structure.",
    flags: &[
        required('g', "consumerGroup", "consumer group name"),
        optional('i', "clientId", "The consumer's client id"),
        optional('b', "brokerAddr", "broker address"),
        switch('s', "jstack", "Run jstack command in the consumer progress"),
    ],
    run: |admin| Box::pin(status(admin)),
}];

/// Longer than a broker waits for the client.
const WITHIN: Duration = Duration::from_secs(15);

async fn status(admin: &Admin) -> anyhow::Result<()> {
    let group = admin.required('g');
    let Some(found) = groups::connection(admin, group).await? else {
        bail!("Not found the consumer group connection: the group [{group}] is not online");
    };
    if let Some(client) = admin.flag('i') {
        crate::greeting::say(&text(&ask(admin, group, client).await?));
        return Ok(());
    }
    let row = |index: &str, client: &str, version: &str, file: &str| {
        line!("{index:<10} {client:<40} {version:<20} {file}");
    };
    row("#Index", "#ClientId", "#Version", "#ConsumerRunningInfoFile");
    let now = SystemClock.now_ms();
    let mut infos = BTreeMap::<Arc<str>, ConsumerRunningInfo>::new();
    for it in &found.connection_set {
        let info = match ask(admin, group, &it.client_id).await {
            Ok(info) => info,
            Err(error) => {
                eprintln!("mqadmin consumerStatus: {}: {error:#}", it.client_id);
                continue;
            }
        };
        // A client may give any id; it must not name a file elsewhere.
        let path = format!("{now}/{}", it.client_id.replace(['/', '\\'], "_"));
        RealDisk.replace(Path::new(&path), text(&info).as_bytes()).with_context(|| path.clone())?;
        infos.insert(Arc::clone(&it.client_id), info);
        let index = infos.len().to_string();
        row(&index, &it.client_id, &print::version(it.version), &path);
    }
    let Some(first) = infos.values().next() else { return Ok(()) };
    if !is_same_everywhere(first, infos.values(), now) {
        line!("\n\nWARN: Different subscription in the same group of consumer!!!");
        return Ok(());
    }
    line!("\n\nSame subscription in the same group of consumer\n\nRebalance OK");
    for (client, info) in &infos {
        for (queue, it) in &info.mq_table {
            if let Some(trouble) = trouble(info, it, now) {
                line!("{client} {} {trouble}", print::queue(queue));
            }
        }
    }
    Ok(())
}

/// Asks the first broker that knows the client to ask it.
async fn ask(admin: &Admin, group: &str, client: &str) -> anyhow::Result<ConsumerRunningInfo> {
    let addrs = match admin.flag('b') {
        Some(addr) => vec![addr.to_owned()],
        None => groups::masters_of(admin, group).await?,
    };
    let request = GetConsumerRunningInfo {
        consumer_group: group.to_owned(),
        client_id: client.to_owned(),
        jstack_enable: admin.is_set('s'),
    };
    let mut failed = None;
    for addr in addrs {
        let call = admin.client.call_within::<GetConsumerRunningInfo>(
            &addr,
            &request,
            Bytes::new(),
            WITHIN,
        );
        match call.await.and_then(apogee_client::Answer::success) {
            Ok(answer) => return Ok(answer.json()?),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.context("no broker knows the group")?.into())
}

fn property<'i>(info: &'i ConsumerRunningInfo, name: &str) -> &'i str {
    info.properties.get(name).map_or("", String::as_str)
}

fn is_push(info: &ConsumerRunningInfo) -> bool {
    property(info, "PROP_CONSUME_TYPE") == ConsumeType::Passively.name()
}

/// Whether all members of a push group subscribe the same; of one that has just begun, they may be
/// about to.
fn is_same_everywhere<'i>(
    first: &ConsumerRunningInfo,
    all: impl Iterator<Item = &'i ConsumerRunningInfo>,
    now: Millis,
) -> bool {
    let began_ms: Millis =
        property(first, "PROP_CONSUMER_START_TIMESTAMP").parse().unwrap_or_default();
    if !is_push(first) || now - began_ms <= 120_000 {
        return true;
    }
    let subscribed = |info: &ConsumerRunningInfo| {
        let pair = |it: &apogee_types::subscription::SubscriptionData| {
            (Arc::clone(&it.topic), it.sub_string.to_string())
        };
        info.subscription_set.iter().map(pair).collect::<BTreeSet<_>>()
    };
    let wanted = subscribed(first);
    all.into_iter().all(|info| subscribed(info) == wanted)
}

/// What keeps a push consumer from going on in a queue, if something seems to.
fn trouble(info: &ConsumerRunningInfo, it: &ProcessQueueInfo, now: Millis) -> Option<String> {
    if !is_push(info) {
        return None;
    }
    if property(info, "PROP_CONSUMEORDERLY").eq_ignore_ascii_case("true") {
        if !it.locked {
            return Some(format!("can't lock for a while, {}ms", now - it.last_lock_timestamp));
        }
        let times = it.try_unlock_times;
        return (it.dropped && 0 < times).then(|| format!("unlock {times} times, still failed"));
    }
    let idle_ms = now - it.last_consume_timestamp;
    let is_stuck = 60_000 < idle_ms && 0 < it.cached_msg_count;
    is_stuck.then(|| format!("can't consume for a while, maybe blocked, {idle_ms}ms"))
}

/// All of it, in upstream's words.
fn text(info: &ConsumerRunningInfo) -> String {
    let mut text = "#Consumer Properties#\n".to_owned();
    for (name, value) in &info.properties {
        let _ = writeln!(text, "{name:<40}: {value}");
    }
    text += "\n\n#Consumer Subscription#\n";
    for (number, it) in (1..).zip(&info.subscription_set) {
        let (topic, tags) = (&it.topic, &it.sub_string);
        let is_filter = it.class_filter_mode.to_string();
        let topic = format!("{number:03} Topic: {topic:<40}");
        let _ = writeln!(text, "{topic} ClassFilter: {is_filter:<8} SubExpression: {tags}");
    }
    let head = |what: &str, last: &str, width: usize| {
        let (topic, broker, id) = ("#Topic", "#Broker Name", "#QID");
        format!("\n\n#Consumer {what}#\n{topic:<width$}  {broker:<32}  {id:<4}  {last:<20}\n")
    };
    let place = |queue: &MessageQueue, width: usize| {
        let MessageQueue { topic, broker_name, queue_id } = queue;
        format!("{topic:<width$}  {broker_name:<32}  {queue_id:<4}")
    };
    text += &head("Offset", "#Consumer Offset", 64);
    for (queue, it) in &info.mq_table {
        let _ = writeln!(text, "{}  {:<20}", place(queue, 32), it.commit_offset);
    }
    text += &head("MQ Detail", "#ProcessQueueInfo", 64);
    for (queue, it) in &info.mq_table {
        let _ = writeln!(text, "{}  {}", place(queue, 64), process_queue(it));
    }
    text += &head("Pop Detail", "#ProcessQueueInfo", 32);
    for (queue, it) in &info.mq_pop_table {
        let (count, is_dropped) = (it.wait_ack_count, it.dropped);
        let place = place(queue, 32);
        let it = format!("droped:{is_dropped}, lastPopTimestamp:{}", it.last_pop_timestamp);
        let _ = writeln!(text, "{place}  PopProcessQueueInfo [waitAckCount:{count}, {it}]");
    }
    let (pull, done) = (["#Pull RT", "#Pull TPS", "#Consume RT"], "#ConsumeOK TPS");
    let failed = ["#ConsumeFailed TPS", "#ConsumeFailedMsgsInHour"];
    let rates = format!("{:>14} {:>14} {:>14} {done:>14}", pull[0], pull[1], pull[2]);
    let head = format!("{:<64}  {rates} {:>18} {:>25}", "#Topic", failed[0], failed[1]);
    let _ = writeln!(text, "\n\n#Consumer RT&TPS#\n{head}");
    for (topic, it) in &info.status_table {
        let pull = format!("{:>14.2} {:>14.2}", it.pull_rt, it.pull_tps);
        let done = format!("{:>14.2} {:>14.2}", it.consume_rt, it.consume_ok_tps);
        let failed = format!("{:>18.2} {:>25}", it.consume_failed_tps, it.consume_failed_msgs);
        let _ = writeln!(text, "{topic:<32}  {pull} {done} {failed}");
    }
    text += "\n\n#User Consume Info#\n";
    for (name, value) in &info.user_consumer_info {
        let _ = writeln!(text, "{name:<40}: {value}");
    }
    if let Some(stacks) = &info.jstack {
        let _ = write!(text, "\n\n#Consumer jstack#\n{stacks}");
    }
    text
}

fn process_queue(it: &ProcessQueueInfo) -> String {
    format!(
        "ProcessQueueInfo [commitOffset={}, cachedMsgMinOffset={}, cachedMsgMaxOffset={}, \
         cachedMsgCount={}, cachedMsgSizeInMiB={}, transactionMsgMinOffset={}, \
         transactionMsgMaxOffset={}, transactionMsgCount={}, locked={}, tryUnlockTimes={}, \
         lastLockTimestamp={}, droped={}, lastPullTimestamp={}, lastConsumeTimestamp={}]",
        it.commit_offset,
        it.cached_msg_min_offset,
        it.cached_msg_max_offset,
        it.cached_msg_count,
        it.cached_msg_size_in_mib,
        it.transaction_msg_min_offset,
        it.transaction_msg_max_offset,
        it.transaction_msg_count,
        it.locked,
        it.try_unlock_times,
        print::digits(it.last_lock_timestamp),
        it.dropped,
        print::digits(it.last_pull_timestamp),
        print::digits(it.last_consume_timestamp)
    )
}
