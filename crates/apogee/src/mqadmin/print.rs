//! How values look in mqadmin's output.

use std::collections::BTreeMap;
use std::fmt::Display;

use anyhow::Context;
use apogee_client::{ReceivedMessage, SendReceipt, SendStatus};
use apogee_types::Millis;
use apogee_types::config::{GroupConfig, Perm, TopicConfig};
use apogee_types::record::body_crc;
use apogee_types::route::MessageQueue;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// A line of output.
macro_rules! line {
    ($($arg:tt)*) => { $crate::greeting::say(&(format!($($arg)*) + "\n")) };
}
pub(super) use line;

fn local(ms: Millis) -> DateTime {
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or_default();
    TimeZone::system().to_datetime(time)
}

pub fn seconds(ms: Millis) -> String {
    local(ms).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

pub fn millis(ms: Millis) -> String {
    local(ms).strftime("%Y-%m-%d %H:%M:%S,%3f").to_string()
}

/// Nothing but digits, to the millisecond.
pub fn digits(ms: Millis) -> String {
    local(ms).strftime("%Y%m%d%H%M%S%3f").to_string()
}

/// Milliseconds since 1970, `now` (which is -1), or local time as `yyyy-MM-dd#HH:mm:ss:SSS`.
pub fn parse_time(text: &str) -> anyhow::Result<Millis> {
    if text == "now" {
        return Ok(-1);
    }
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    let iso = text.rsplit_once(':').map(|(rest, ms)| format!("{}.{ms}", rest.replace('#', "T")));
    let time = iso.and_then(|iso| iso.parse::<DateTime>().ok());
    let time = time.and_then(|time| TimeZone::system().to_timestamp(time).ok());
    let wanted = || format!("{text} is no time: now, ms since 1970, or yyyy-MM-dd#HH:mm:ss:SSS");
    Ok(time.with_context(wanted)?.as_millisecond())
}

/// As upstream cuts names that are wider than their column.
pub fn cut(text: &str, len: usize) -> &str {
    text.char_indices().nth(len).map_or(text, |(at, _)| &text[..at])
}

/// `{a=1, b=2}`, as Java prints a map.
pub fn map<K: Display, V: Display>(map: &BTreeMap<K, V>) -> String {
    let pairs: Vec<_> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("{{{}}}", pairs.join(", "))
}

pub fn perm(perm: Perm) -> String {
    let letter = |bit, letter| if perm.has(bit) { letter } else { '-' };
    [letter(Perm::READ, 'R'), letter(Perm::WRITE, 'W'), letter(Perm::INHERIT, 'X')].iter().collect()
}

pub fn topic(config: &TopicConfig) -> String {
    format!(
        "TopicConfig [topicName={}, readQueueNums={}, writeQueueNums={}, perm={}, \
         topicFilterType={}, topicSysFlag={}, order={}, attributes={}]",
        config.topic_name,
        config.read_queue_count,
        config.write_queue_count,
        perm(config.perm),
        config.topic_filter_type,
        config.topic_sys_flag,
        config.order,
        map(&config.attributes)
    )
}

pub fn group(config: &GroupConfig) -> String {
    let field = |(name, value): (&str, String)| match name {
        "subscriptionDataSet" => format!("{name}=null"),
        _ => format!("{name}={value}"),
    };
    let fields: Vec<_> = group_fields(config).into_iter().map(field).collect();
    format!("SubscriptionGroupConfig{{{}}}", fields.join(", "))
}

/// In the order of upstream's class.
pub fn group_fields(config: &GroupConfig) -> [(&'static str, String); 15] {
    let policy = "GroupRetryPolicy{type=CUSTOMIZED, exponentialRetryPolicy=null, \
                  customizedRetryPolicy=null}";
    [
        ("groupName", config.group_name.to_string()),
        ("consumeEnable", config.consume_enable.to_string()),
        ("consumeFromMinEnable", config.consume_from_min_enable.to_string()),
        ("consumeBroadcastEnable", config.consume_broadcast_enable.to_string()),
        ("consumeMessageOrderly", config.consume_message_orderly.to_string()),
        ("retryQueueNums", config.retry_queue_count.to_string()),
        ("retryMaxTimes", config.retry_max_times.to_string()),
        ("groupRetryPolicy", policy.to_owned()),
        ("brokerId", config.broker_id.to_string()),
        ("whichBrokerWhenConsumeSlowly", config.which_broker_when_consume_slowly.to_string()),
        ("notifyConsumerIdsChangedEnable", config.notify_consumer_ids_changed_enable.to_string()),
        ("groupSysFlag", config.group_sys_flag.to_string()),
        ("consumeTimeoutMinute", config.consume_timeout_minute.to_string()),
        ("subscriptionDataSet", String::new()),
        ("attributes", map(&config.attributes)),
    ]
}

pub fn queue(queue: &MessageQueue) -> String {
    let MessageQueue { topic, broker_name, queue_id } = queue;
    format!("MessageQueue [topic={topic}, brokerName={broker_name}, queueId={queue_id}]")
}

pub fn send_status(status: SendStatus) -> &'static str {
    match status {
        SendStatus::Ok => "SEND_OK",
        SendStatus::FlushDiskTimeout => "FLUSH_DISK_TIMEOUT",
        SendStatus::FlushSlaveTimeout => "FLUSH_SLAVE_TIMEOUT",
        SendStatus::SlaveNotAvailable => "SLAVE_NOT_AVAILABLE",
    }
}

pub fn receipt(it: &SendReceipt) -> String {
    format!(
        "SendResult [sendStatus={}, msgId={}, offsetMsgId={}, messageQueue={}, queueOffset={}, \
         recallHandle={}]",
        send_status(it.status),
        it.id,
        it.offset_id,
        queue(&it.queue),
        it.queue_offset,
        it.recall_handle.as_deref().unwrap_or("null")
    )
}

/// A message on one line, as Java's `MessageExt.toString`.
pub fn message(it: &ReceivedMessage) -> String {
    let bytes: Vec<_> = it.body.iter().map(|byte| (*byte as i8).to_string()).collect();
    format!(
        "MessageExt [brokerName={}, queueId={}, storeSize={}, queueOffset={}, sysFlag={}, \
         bornTimestamp={}, bornHost=/{}, storeTimestamp={}, storeHost=/{}, msgId={}, \
         commitLogOffset={}, bodyCRC={}, reconsumeTimes={}, preparedTransactionOffset=0, \
         toString()=Message{{topic='{}', flag={}, properties={}, body=[{}], \
         transactionId='null'}}]",
        it.broker_name,
        it.queue_id,
        it.stored_len,
        it.queue_offset.0,
        it.sys_flag.0,
        it.born_ms,
        it.born_host,
        it.stored_ms,
        it.store_host,
        it.offset_id(),
        it.log_offset.0,
        body_crc(&it.body),
        it.reconsume_times,
        it.topic,
        it.flag,
        map(&it.properties),
        bytes.join(", ")
    )
}

/// Compact JSON over many lines, indented by tabs.
pub fn pretty(json: &[u8]) -> String {
    let text = String::from_utf8_lossy(json);
    let (mut out, mut depth, mut in_text, mut escaped) = (String::new(), 0, false, false);
    let mut chars = text.chars().peekable();
    let newline = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&"\t".repeat(depth));
    };
    while let Some(char) = chars.next() {
        if in_text {
            in_text = escaped || char != '"';
            escaped = char == '\\' && !escaped;
            out.push(char);
            continue;
        }
        in_text = char == '"';
        match char {
            '{' | '[' => {
                out.push(char);
                if let Some(end) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    newline(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth -= 1;
                newline(&mut out, depth);
                out.push(char);
            }
            ',' => {
                out.push(char);
                newline(&mut out, depth);
            }
            _ => out.push(char),
        }
    }
    out
}

/// The name of a client's release, by upstream's number of it.
pub fn version(number: i32) -> String {
    /// 4.0.0; from it on each release has two numbers, the first of them for its snapshots.
    const FIRST: i32 = 213;
    if number < FIRST - 1 {
        return number.to_string();
    }
    let release = 400 + (number + 1 - FIRST) / 2;
    let snapshot = if number % 2 == 0 { "_SNAPSHOT" } else { "" };
    format!("V{}_{}_{}{snapshot}", release / 100, release / 10 % 10, release % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_upstream_s_names() {
        let names = [(315, "V4_5_1"), (513, "V5_5_0"), (512, "V5_5_0_SNAPSHOT"), (120, "120")];
        for (number, name) in names {
            assert_eq!(version(number), name);
        }
    }

    #[test]
    fn json_is_indented_by_tabs_and_texts_stay_as_they_are() {
        let text = pretty(br#"{"a":{0:"x,{\"y"},"b":[],"c":[1,2]}"#);
        assert_eq!(
            text,
            "{\n\t\"a\":{\n\t\t0:\"x,{\\\"y\"\n\t},\n\t\"b\":[],\n\t\"c\":[\n\t\t1,\n\t\t2\n\t]\n}"
        );
    }

    #[test]
    fn times_are_read_as_upstream_writes_them() {
        assert_eq!(parse_time("now").unwrap(), -1);
        assert_eq!(parse_time("1700000000000").unwrap(), 1_700_000_000_000);
        let time = parse_time("2026-11-24#17:32:41:261").unwrap();
        assert_eq!(millis(time), "2026-11-24 17:32:41,261");
        assert!(parse_time("yesterday").is_err());
    }
}
