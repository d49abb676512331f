//! Commands on messages.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use apogee_client::{Message, Producer, PullConsumer, PullStatus, ReceivedMessage};
use apogee_store::{Disk, RealDisk};
use apogee_types::properties::name;
use apogee_types::route::MessageQueue;
use apogee_types::{Clock, SystemClock, names};

use super::print::{self, line};
use super::{Admin, Command, Flag, optional, required};

const BEGIN: Flag =
    optional('b', "beginTimestamp", "Begin timestamp[currentTimeMillis|yyyy-MM-dd#HH:mm:ss:SSS]");
const END: Flag =
    optional('e', "endTimestamp", "End timestamp[currentTimeMillis|yyyy-MM-dd#HH:mm:ss:SSS]");

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
            BEGIN,
            END,
            optional('d', "printBody", "print body"),
        ],
        run: |admin| Box::pin(print_all(admin)),
    },
    Command {
        name: "printMsgByQueue",
        help: "Print Message Detail by queueId.",
        flags: &[
            required('t', "topic", "topic name"),
            required('a', "brokerName", "broker name"),
            required('i', "queueId", "queue id"),
            optional('c', "charsetName", "CharsetName(eg: UTF-8,GBK)"),
            optional('s', "subExpression", "Subscribe Expression(eg: TagA || TagB)"),
            BEGIN,
            END,
            optional('p', "print msg", "print msg. eg: true | false(default)"),
            optional('d', "printBody", "print body. eg: true | false(default)"),
            optional('f', "calculate", "calculate by tag. eg: true | false(default)"),
        ],
        run: |admin| Box::pin(print_queue(admin)),
    },
    Command {
        name: "consumeMessage",
        help: "Consume message.",
        flags: &[
            required('t', "topic", "Topic name"),
            optional('b', "brokerName", "Broker name"),
            optional('i', "queueId", "Queue Id"),
            optional('o', "offset", "Queue offset"),
            optional('g', "consumerGroup", "Consumer group name"),
            optional(
                's',
                "beginTimestamp",
                "Begin timestamp[currentTimeMillis|yyyy-MM-dd#HH:mm:ss:SSS]",
            ),
            END,
            optional('c', "MessageNumber", "Number of message to be consumed"),
        ],
        run: |admin| Box::pin(consume(admin)),
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
        let Range { start: mut at, end } = span(admin, &queue, 'b', 'e').await?;
        let name = print::queue(&queue);
        line!("minOffset={at}, maxOffset={end}, {name}");
        while at < end {
            let pulled = consumer.pull(&queue, tags, at, 32, Duration::ZERO).await?;
            at = pulled.next_offset;
            match pulled.status {
                PullStatus::Found => print_found(&pulled.messages, with_body),
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

fn print_found(messages: &[ReceivedMessage], with_body: bool) {
    for it in messages {
        let body = String::from_utf8_lossy(&it.body);
        let body = if with_body { &*body } else { "NOT PRINT BODY" };
        line!("MSGID: {} {} BODY: {body}", it.id(), print::message(it));
    }
}

/// The offsets of a queue, or those of the times that the flags `from` and `until` give.
async fn span(
    admin: &Admin,
    queue: &MessageQueue,
    from: char,
    until: char,
) -> anyhow::Result<Range<i64>> {
    let client = &admin.client;
    let start = match admin.flag(from) {
        Some(text) => client.offset_at(queue, print::parse_time(text)?).await?,
        None => client.min_offset(queue).await?,
    };
    let end = match admin.flag(until) {
        Some(text) => client.offset_at(queue, print::parse_time(text)?).await?,
        None => client.max_offset(queue).await?,
    };
    Ok(start..end)
}

async fn print_queue(admin: &Admin) -> anyhow::Result<()> {
    let is_set = |short| admin.truth(short) == Some(true);
    let (prints, with_body, counts) = (is_set('p'), is_set('d'), is_set('f'));
    let tags = admin.flag('s').unwrap_or("*");
    let id = admin.number('i')?.context("a required flag")?;
    let queue = MessageQueue::new(admin.required('t'), admin.required('a'), id);
    let consumer = PullConsumer::with(admin.client.clone(), names::TOOLS_GROUP)?;
    admin.client.route(&queue.topic).await?;
    let Range { start: mut at, end } = span(admin, &queue, 'b', 'e').await?;
    let mut tagged = BTreeMap::<String, u64>::new();
    while at < end {
        let pulled = consumer.pull(&queue, tags, at, 32, Duration::ZERO).await?;
        at = pulled.next_offset;
        match pulled.status {
            PullStatus::Found => {}
            // Upstream ends here; wanted messages may follow.
            PullStatus::NoMatch => continue,
            PullStatus::Empty | PullStatus::OffsetMoved => break,
        }
        if prints {
            print_found(&pulled.messages, with_body);
        }
        for tag in pulled.messages.iter().filter_map(ReceivedMessage::tag) {
            *tagged.entry(tag.to_owned()).or_default() += 1;
        }
    }
    let mut tagged: Vec<_> = tagged.into_iter().filter(|_| counts).collect();
    tagged.sort_by_key(|(_, count)| Reverse(*count));
    tagged.iter().for_each(|(tag, count)| line!("Tag: {tag:<30} Count: {count}"));
    Ok(())
}

async fn consume(admin: &Admin) -> anyhow::Result<()> {
    let mut left: i64 = admin.number('c')?.unwrap_or(128);
    if left <= 0 {
        bail!("Please input a positive messageNumber!");
    }
    check_times(admin)?;
    let group = admin.flag('g').unwrap_or(names::TOOLS_GROUP);
    let consumer = PullConsumer::with(admin.client.clone(), group)?;
    let queues = consumer.queues(admin.required('t')).await?;
    let (broker, id) = (admin.flag('b'), admin.number::<i32>('i')?);
    let offset: Option<i64> = admin.number('o')?;
    let Some(id) = id else {
        if offset.is_some() {
            bail!("Please set queueId before offset!");
        }
        for queue in queues {
            let Range { start, end } = span(admin, &queue, 's', 'e').await?;
            let mut last = end;
            if left < end - start {
                line!("The older {left} message of the {} queue will be provided", queue.queue_id);
                last = start + left - 1;
            }
            consume_queue(&consumer, &queue, start, last).await?;
            left -= (end - start).clamp(0, left);
            if left == 0 {
                break;
            }
        }
        return Ok(());
    };
    let broker = broker.context("Please set the brokerName before queueId!")?;
    let queue = MessageQueue::new(admin.required('t'), broker, id);
    let Range { start, end } = span(admin, &queue, 's', 'e').await?;
    let start = match offset {
        Some(offset) if end < offset => {
            line!("{} no matched msg, offset={offset}", print::queue(&queue));
            return Ok(());
        }
        Some(offset) => start.max(offset),
        None => start,
    };
    let mut last = end;
    if left < end - start {
        line!("The oldler {left} message will be provided");
        last = start + left - 1;
    }
    consume_queue(&consumer, &queue, start, last).await
}

fn check_times(admin: &Admin) -> anyhow::Result<()> {
    let time = |short| admin.flag(short).map(print::parse_time).transpose();
    let (from, until, now) = (time('s')?, time('e')?, SystemClock.now_ms());
    if from.is_some_and(|from| now < from) {
        bail!("Please set the beginTimestamp before now!");
    }
    if until.is_some_and(|until| now < until) {
        bail!("Please set the endTimestamp before now!");
    }
    if from.zip(until).is_some_and(|(from, until)| until < from) {
        bail!("Please make sure that the beginTimestamp is less than or equal to the endTimestamp");
    }
    Ok(())
}

/// Shows the messages up to and with offset `last`; none is committed.
async fn consume_queue(
    consumer: &PullConsumer,
    queue: &MessageQueue,
    mut at: i64,
    last: i64,
) -> anyhow::Result<()> {
    let name = print::queue(queue);
    while at <= last {
        let count = i32::try_from(last - at + 1).unwrap_or(i32::MAX);
        let pulled = consumer.pull(queue, "*", at, count, Duration::ZERO).await?;
        at = pulled.next_offset;
        let status = match pulled.status {
            PullStatus::Found => {
                line!("Consume ok");
                print_found(&pulled.messages, true);
                continue;
            }
            PullStatus::NoMatch => {
                line!("{name} no matched msg. status=NO_MATCHED_MSG, offset={at}");
                continue;
            }
            PullStatus::Empty => "NO_NEW_MSG",
            PullStatus::OffsetMoved => "OFFSET_ILLEGAL",
        };
        line!("{name} print msg finished. status={status}, offset={at}");
        break;
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
    let status = print::send_status(sent.status);
    line!("{:<32}  {:<4}  {:<20}    {}", "#Broker Name", "#QID", "#Send Result", "#MsgId");
    let (broker, id) = (&sent.queue.broker_name, sent.queue.queue_id);
    line!("{broker:<32}  {id:<4}  {status:<20}    {}", sent.id);
    Ok(())
}
