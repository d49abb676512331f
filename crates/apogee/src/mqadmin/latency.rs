//! Commands that send messages to see how long that takes.

use std::time::Duration;

use apogee_client::{Message, Producer};
use apogee_types::route::MessageQueue;
use apogee_types::{Clock, Millis, SystemClock};
use jiff::tz::{TimeZone, offset};

use super::print::{self, line};
use super::{Admin, Command, masters, optional, required};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "sendMsgStatus",
        help: "Send msg to broker.",
        flags: &[
            required(
                'b',
                "brokerName",
                "Broker Name e.g. clusterName_brokerName as DefaultCluster_broker-a",
            ),
            optional('s', "messageSize", "Message Size, Default: 128"),
            optional('c', "count", "send message count, Default: 50"),
        ],
        run: |admin| Box::pin(to_broker(admin)),
    },
    Command {
        name: "checkMsgSendRT",
        help: "Check message send response time.",
        flags: &[
            required('t', "topic", "topic name"),
            optional('a', "amount", "message amount | default 100"),
            optional('s', "size", "message size | default 128 Byte"),
        ],
        run: |admin| Box::pin(to_topic(admin)),
    },
    Command {
        name: "clusterRT",
        help: "List All clusters Message Send RT.",
        flags: &[
            optional('a', "amount", "message amount | default 100"),
            optional('s', "size", "message size | default 128 Byte"),
            optional('c', "cluster", "cluster name | default display all cluster"),
            optional('p', "print log", "print as tlog | default false"),
            optional('m', "machine room", "machine room name | default noname"),
            optional('i', "interval", "print interval | default 10 seconds"),
        ],
        run: |admin| Box::pin(to_clusters(admin)),
    },
];

/// One that does not try again: how long a single try takes is the question.
async fn producer(admin: &Admin, group: &str) -> anyhow::Result<Producer> {
    let client = admin.client.clone();
    Ok(Producer::builder("").client(client).group(group).retries(0).start().await?)
}

/// What upstream fills the messages with, up to at least so many bytes.
fn greeting(len: usize) -> String {
    const WORDS: &str = "hello jodie";
    WORDS.repeat(len.div_ceil(WORDS.len()))
}

/// Each broker has a topic of its own name.
async fn to_broker(admin: &Admin) -> anyhow::Result<()> {
    let topic = admin.required('b');
    let (len, count): (usize, u64) =
        (admin.number('s')?.unwrap_or(128), admin.number('c')?.unwrap_or(50));
    let producer = producer(admin, "PID_SMSC").await?;
    // The first one finds the way.
    producer.send(Message::new(topic, greeting(16))).await?;
    for _ in 0..count {
        let began_ms = SystemClock.now_ms();
        let sent = producer.send(Message::new(topic, greeting(len))).await?;
        line!("rt={}ms, SendResult={}", SystemClock.now_ms() - began_ms, print::receipt(&sent));
    }
    producer.shutdown().await;
    Ok(())
}

async fn to_topic(admin: &Admin) -> anyhow::Result<()> {
    let topic = admin.required('t');
    let (count, len) = (admin.number('a')?.unwrap_or(100), admin.number('s')?.unwrap_or(128));
    let producer = producer(admin, "apogee-mqadmin").await?;
    let row = |broker: &str, id: &str, sent: &str, time: &str| {
        line!("{broker:<32}  {id:<4}  {sent:<20}    {time}");
    };
    row("#Broker Name", "#QID", "#Send Result", "#RT");
    let mut times = Times::default();
    let (mut broker, mut id) = (String::new(), 0);
    for _ in 0..count {
        let (sent, took_ms) = times.send(&producer, topic, len).await;
        if let Some(queue) = &sent {
            (broker, id) = (queue.broker_name.to_string(), queue.queue_id);
        }
        row(&broker, &id.to_string(), &sent.is_some().to_string(), &took_ms.to_string());
    }
    line!("Avg RT: {:.2}", times.average_ms());
    producer.shutdown().await;
    Ok(())
}

/// Again and again, until the command is stopped.
async fn to_clusters(admin: &Admin) -> anyhow::Result<()> {
    let (count, len): (usize, usize) =
        (admin.number('a')?.unwrap_or(100), admin.number('s')?.unwrap_or(128));
    let pause = Duration::from_secs(admin.number('i')?.unwrap_or(10));
    let is_log = admin.truth('p') == Some(true);
    let room = admin.flag('m').unwrap_or("noname");
    let producer = producer(admin, "apogee-mqadmin").await?;
    let info = admin.client.cluster_info().await?;
    loop {
        if !is_log {
            let counts = format!("{:<8}  {:<8}", "#successCount", "#failCount");
            line!("{:<24}  {:<24}  {:<4}  {counts}", "#Cluster Name", "#Broker Name", "#RT");
        }
        let all = info.cluster_addr_table.keys().map(|name| &**name);
        let clusters: Vec<&str> = admin.flag('c').map_or_else(|| all.collect(), |it| vec![it]);
        for cluster in clusters {
            for broker in masters(&info, cluster)? {
                let mut times = Times::default();
                for _ in 0..count {
                    times.send(&producer, &broker.name, len).await;
                }
                let (name, average_ms) = (&broker.name, times.average_ms());
                if is_log {
                    let now = there(SystemClock.now_ms());
                    line!("{now}|{room}|{cluster}|{name}|{average_ms:.0}");
                } else {
                    let Times { sent, failed, .. } = times;
                    let average = format!("{average_ms:.2}");
                    line!("{cluster:<24}  {name:<24}  {average:<8}  {sent:<16}  {failed:<16}");
                }
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// The time where upstream comes from.
fn there(ms: Millis) -> String {
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or_default();
    let zone = TimeZone::fixed(offset(8));
    zone.to_datetime(time).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// How long sends took.
#[derive(Default)]
struct Times {
    sent: usize,
    failed: usize,
    /// Without the first one, which finds the way.
    total_ms: Millis,
}

impl Times {
    /// Sends `len` bytes; where they went, if they did, and how long it took.
    async fn send(
        &mut self,
        producer: &Producer,
        topic: &str,
        len: usize,
    ) -> (Option<MessageQueue>, Millis) {
        let began_ms = SystemClock.now_ms();
        let sent = producer.send(Message::new(topic, "a".repeat(len))).await.ok();
        let took_ms = SystemClock.now_ms() - began_ms;
        if 0 < self.sent + self.failed {
            self.total_ms += took_ms;
        }
        *(if sent.is_some() { &mut self.sent } else { &mut self.failed }) += 1;
        (sent.map(|it| it.queue), took_ms)
    }

    /// Not a number if there was only the first one.
    fn average_ms(&self) -> f64 {
        self.total_ms as f64 / (self.sent + self.failed).saturating_sub(1) as f64
    }
}
