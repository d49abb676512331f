//! Commands on messages.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use apogee_client::{Message, Producer, PullConsumer, PullStatus, ReceivedMessage, SendStatus};
use apogee_store::{Disk, RealDisk};
use apogee_types::names;
use apogee_types::properties::name;
use apogee_types::route::MessageQueue;

use super::print::{self, line};
use super::{Admin, Command, optional, required};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "queryMsgById",
        help: "Query Message by Id.",
        flags: &[
            required('i', "msgId", "Message Id"),
            optional('f', "bodyFormat", "print message body by the specified format"),
        ],
        run: |admin| Box::pin(by_id(admin)),
    },
    Command {
        name: "queryMsgByKey",
        help: "Query Message by Key.",
        flags: &[
            required('t', "topic", "Topic name"),
            required('k', "msgKey", "Message Key"),
            optional('b', "beginTimestamp", "Begin timestamp(ms). default:0, eg:1676730526212"),
            optional('e', "endTimestamp", "End timestamp(ms). default:Long.MAX_VALUE"),
            optional('m', "maxNum", "The maximum number of messages returned by the query"),
        ],
        run: |admin| Box::pin(by_key(admin)),
    },
    Command {
        name: "queryMsgByUniqueKey",
        help: "Query Message by Unique key.",
        flags: &[
            required('i', "msgId", "Message Id"),
            required('t', "topic", "The topic of msg"),
            optional('a', "showAll", "Print all message, the limit is 32"),
        ],
        run: |admin| Box::pin(by_unique_key(admin)),
    },
    Command {
        name: "queryMsgByOffset",
        help: "Query Message by offset.",
        flags: &[
            required('t', "topic", "topic name"),
            required('b', "brokerName", "Broker Name"),
            required('i', "queueId", "Queue Id"),
            required('o', "offset", "Queue Offset"),
            optional('f', "bodyFormat", "print message body by the specified format"),
        ],
        run: |admin| Box::pin(by_offset(admin)),
    },
    Command {
        name: "printMsg",
        help: "Print Message Detail.",
        flags: &[
            required('t', "topic", "topic name"),
            optional('c', "charsetName", "CharsetName(eg: UTF-8)"),
            optional('s', "subExpression", "Subscribe Expression(eg: TagA || TagB)"),
            optional(
                'b',
                "beginTimestamp",
                "Begin timestamp[currentTimeMillis|yyyy-MM-dd#HH:mm:ss:SSS]",
            ),
            optional(
                'e',
                "endTimestamp",
                "End timestamp[currentTimeMillis|yyyy-MM-dd#HH:mm:ss:SSS]",
            ),
            optional('d', "printBody", "print body"),
        ],
        run: |admin| Box::pin(print_all(admin)),
    },
    Command {
        name: "sendMessage",
        help: "Send a message.",
        flags: &[
            required('t', "topic", "Topic name"),
            required('p', "body", "UTF-8 string format of the message body"),
            optional('k', "key", "Message keys"),
            optional('c', "tags", "Message tags"),
            optional('b', "broker", "Send message to target broker"),
            optional('i', "qid", "Send message to target queue"),
        ],
        run: |admin| Box::pin(send(admin)),
    },
];

/// Where upstream's command leaves bodies.
const BODIES: &str = "/tmp/rocketmq/msgbodys";

async fn by_id(admin: &Admin) -> anyhow::Result<()> {
    for id in admin.required('i').split(',').map(str::trim).filter(|id| !id.is_empty()) {
        match admin.client.view_message(id).await? {
            Some(message) => {
                line!("{:<20} {}", "OffsetID:", message.offset_id());
                show(admin, &message).await?;
            }
            None => line!("\nMessage not found!"),
        }
    }
    Ok(())
}

async fn by_key(admin: &Admin) -> anyhow::Result<()> {
    let (topic, key) = (admin.required('t'), admin.required('k'));
    let span = admin.number('b')?.unwrap_or(0)..admin.number('e')?.unwrap_or(i64::MAX);
    let count = admin.number('m')?.unwrap_or(64);
    let found = admin.client.query_by_key(topic, key, count, span).await?;
    line!("{:<50} {:>4} {:>40} {:<200}", "#Message ID", "#QID", "#Offset", "#IndexKey");
    for it in found {
        let (id, hour) = (it.id(), it.stored_ms / 3_600_000 * 3_600_000);
        let index = format!("{hour}@{topic}@K@{key}@{id}@{}", it.log_offset.0);
        line!("{id:<50} {:>4} {:>40} {index:<200}", it.queue_id, it.queue_offset.0);
    }
    Ok(())
}

async fn by_unique_key(admin: &Admin) -> anyhow::Result<()> {
    let (topic, id) = (admin.required('t'), admin.required('i'));
    let found = admin.client.query_by_id(topic, id).await?;
    if found.is_empty() {
        bail!("query message by id finished, but no message.");
    }
    let count = if admin.truth('a') == Some(true) { found.len() } else { 1 };
    for message in found.iter().take(count) {
        show(admin, message).await?;
    }
    Ok(())
}

async fn by_offset(admin: &Admin) -> anyhow::Result<()> {
    let (topic, broker) = (admin.required('t'), admin.required('b'));
    let id = admin.number('i')?.context("a required flag")?;
    let offset: i64 = admin.number('o')?.context("a required flag")?;
    let queue = MessageQueue::new(topic, broker, id);
    let consumer = PullConsumer::with(admin.client.clone(), names::TOOLS_GROUP)?;
    let pulled = consumer.pull(&queue, "*", offset, 1, Duration::ZERO).await?;
    match pulled.messages.first() {
        Some(message) => {
            line!("{:<20} {}", "OffsetID:", message.offset_id());
            show(admin, message).await
        }
        None => bail!("{}: there is no message at {offset}", print::queue(&queue)),
    }
}

/// Everything about one message, and what its consumers did with it.
async fn show(admin: &Admin, it: &ReceivedMessage) -> anyhow::Result<()> {
    let body = keep_body(it)?;
    let property = |name: &str| it.properties.get(name).map_or("null", String::as_str);
    let rows = [
        ("Topic:", it.topic.to_string()),
        ("Tags:", format!("[{}]", property(name::TAGS))),
        ("Keys:", format!("[{}]", property(name::KEYS))),
        ("Queue ID:", it.queue_id.to_string()),
        ("Queue Offset:", it.queue_offset.0.to_string()),
        ("CommitLog Offset:", it.log_offset.0.to_string()),
        ("Reconsume Times:", it.reconsume_times.to_string()),
        ("Born Timestamp:", print::millis(it.born_ms)),
        ("Store Timestamp:", print::millis(it.stored_ms)),
        ("Born Host:", it.born_host.to_string()),
        ("Store Host:", it.store_host.to_string()),
        ("System Flag:", it.sys_flag.0.to_string()),
        ("Properties:", print::map(&it.properties)),
        ("Message Body Path:", body),
    ];
    rows.iter().for_each(|(what, value)| line!("{what:<20} {value}"));
    if admin.is_set('f') {
        line!("{:<20} {}", "Message Body:", String::from_utf8_lossy(&it.body));
    }
    let groups = super::topics::groups_of(admin, &it.topic).await.unwrap_or_default();
    if groups.is_empty() {
        line!("\n\nWARN: No Consumer");
        return Ok(());
    }
    line!("\n");
    let queue = MessageQueue::new(&it.topic, &it.broker_name, it.queue_id);
    let offset = it.queue_offset.0 as i64;
    for group in groups {
        let (kind, cause) =
            match super::groups::track(admin, &group, &queue, offset, it.tag()).await {
                Ok(kind) => (kind, "null".to_owned()),
                Err(error) => ("UNKNOWN", error.to_string()),
            };
        line!("MessageTrack [consumerGroup={group}, trackType={kind}, exceptionDesc={cause}]");
    }
    Ok(())
}

/// Writes the body to a file, whose path is returned.
fn keep_body(message: &ReceivedMessage) -> anyhow::Result<String> {
    let id = message.id();
    // A producer may give any id; it must not name a file elsewhere.
    let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let id = if is_plain { id } else { message.offset_id().to_string() };
    let path = format!("{BODIES}/{id}");
    RealDisk.replace(Path::new(&path), &message.body).with_context(|| path.clone())?;
    Ok(path)
}

async fn print_all(admin: &Admin) -> anyhow::Result<()> {
    let tags = admin.flag('s').unwrap_or("*");
    let with_body = admin.truth('d').unwrap_or(true);
    let consumer = PullConsumer::with(admin.client.clone(), names::TOOLS_GROUP)?;
    for queue in consumer.queues(admin.required('t')).await? {
        let mut at = match admin.flag('b') {
            Some(text) => admin.client.offset_at(&queue, print::parse_time(text)?).await?,
            None => admin.client.min_offset(&queue).await?,
        };
        let end = match admin.flag('e') {
            Some(text) => admin.client.offset_at(&queue, print::parse_time(text)?).await?,
            None => admin.client.max_offset(&queue).await?,
        };
        let name = print::queue(&queue);
        line!("minOffset={at}, maxOffset={end}, {name}");
        while at < end {
            let pulled = consumer.pull(&queue, tags, at, 32, Duration::ZERO).await?;
            at = pulled.next_offset;
            match pulled.status {
                PullStatus::Found => {
                    for it in &pulled.messages {
                        let body = String::from_utf8_lossy(&it.body);
                        let body = if with_body { &*body } else { "NOT PRINT BODY" };
                        line!("MSGID: {} {} BODY: {body}", it.id(), print::message(it));
                    }
                }
                PullStatus::NoMatch => {
                    line!("{name} no matched msg. status=NO_MATCHED_MSG, offset={at}");
                }
                PullStatus::Empty => {
                    line!("{name} print msg finished. status=NO_NEW_MSG, offset={at}");
                    break;
                }
                PullStatus::OffsetMoved => {
                    line!("{name} print msg finished. status=OFFSET_ILLEGAL, offset={at}");
                    break;
                }
            }
        }
        line!("--------------------------------------------------------");
    }
    Ok(())
}

async fn send(admin: &Admin) -> anyhow::Result<()> {
    let topic = admin.required('t');
    let mut message = Message::new(topic, admin.required('p').to_owned());
    if let Some(key) = admin.flag('k') {
        message = message.key(key);
    }
    if let Some(tag) = admin.flag('c') {
        message = message.tag(tag);
    }
    let client = admin.client.clone();
    let producer = Producer::builder("").client(client).group("apogee-mqadmin").start().await?;
    let sent = match (admin.flag('b'), admin.number('i')?) {
        (Some(broker), Some(id)) => {
            producer.send_to(message, &MessageQueue::new(topic, broker, id)).await
        }
        (None, None) => producer.send(message).await,
        _ => bail!("Broker name must be set if the queue is chosen! Give both -b and -i"),
    };
    producer.shutdown().await;
    let sent = sent?;
    let status = match sent.status {
        SendStatus::Ok => "SEND_OK",
        SendStatus::FlushDiskTimeout => "FLUSH_DISK_TIMEOUT",
        SendStatus::FlushSlaveTimeout => "FLUSH_SLAVE_TIMEOUT",
        SendStatus::SlaveNotAvailable => "SLAVE_NOT_AVAILABLE",
    };
    line!("{:<32}  {:<4}  {:<20}    {}", "#Broker Name", "#QID", "#Send Result", "#MsgId");
    let (broker, id) = (&sent.queue.broker_name, sent.queue.queue_id);
    line!("{broker:<32}  {id:<4}  {status:<20}    {}", sent.id);
    Ok(())
}
