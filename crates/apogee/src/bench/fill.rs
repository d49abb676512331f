//! `apogee bench fill`: many topics, many messages, many keys, on one broker.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use apogee_types::config::{Perm, TopicConfig};
use apogee_types::json;
use apogee_wire::output::Output;
use apogee_wire::remoting::batch::{self, BatchRecord};
use apogee_wire::remoting::bodies::CreateTopicListRequestBody;
use apogee_wire::remoting::requests::{SendBatchMessage, SendMessageV2, UpdateAndCreateTopicList};
use apogee_wire::remoting::{
    FieldIndex, Fields, Header, HeaderEncoding, Request, RequestHead, ResponseCode, Text,
};
use serde_json::json;

use super::args::FillArgs;
use super::cluster::{self, Calls};
use super::link::Link;
use super::report;

/// Topics that a request makes.
const TOPICS_AT_ONCE: usize = 500;
/// Requests that are unanswered at once: few enough that all their answers fit into the socket.
const IN_FLIGHT: usize = 64;
const OUTPUT_LEN: usize = 64 << 10;
/// A server that says nothing for so long will not.
const SILENCE_MAX: Duration = Duration::from_secs(30);

pub fn fill(args: &FillArgs) -> anyhow::Result<()> {
    ensure!(0 < args.batch && 0 < args.each, "--batch and --each must be at least 1");
    let mut name_server = cluster::name_server(&args.target)?;
    let masters = cluster::masters(&mut name_server)?;
    let addr = masters.first().context("no broker")?;
    let topics: Vec<String> = match args.topics {
        None => vec![args.target.topic.clone()],
        Some(count) => (0..count).map(|at| format!("{}-{at}", args.target.topic)).collect(),
    };
    let queue_count = args.target.queues.unwrap_or(1);

    let started = Instant::now();
    make_topics(&mut Calls::connect(addr)?, &topics, queue_count)?;
    let making = started.elapsed().as_secs_f64();

    let started = Instant::now();
    let mut filler = Filler::connect(args, addr)?;
    let mut done = 0;
    while done < args.each {
        let count = args.batch.min(args.each - done);
        for topic in &topics {
            for queue_id in 0..queue_count {
                filler.send(topic, queue_id, count)?;
            }
        }
        done += count;
    }
    filler.finish()?;
    let (writing, count) = (started.elapsed().as_secs_f64(), filler.message_count);
    report::print(&match args.json {
        true => json!({
            "topics": topics.len(),
            "messages": count,
            "topicSeconds": making,
            "messageSeconds": writing,
        })
        .to_string(),
        false => {
            format!("{} topics in {making:.2} s, {count} messages in {writing:.2} s", topics.len())
        }
    });
    Ok(())
}

fn make_topics(calls: &mut Calls, topics: &[String], queue_count: i32) -> anyhow::Result<()> {
    for some in topics.chunks(TOPICS_AT_ONCE) {
        let config = |name: &String| TopicConfig::new(name, queue_count, Perm::READ_WRITE);
        let topic_config_list = some.iter().map(config).collect();
        let body = json::write_standard(&CreateTopicListRequestBody { topic_config_list });
        calls
            .call_with::<UpdateAndCreateTopicList>(&UpdateAndCreateTopicList {}, &body)?
            .succeeded()?;
    }
    Ok(())
}

struct Filler<'a> {
    args: &'a FillArgs,
    link: Link,
    body: Vec<u8>,
    output: Output,
    unanswered: usize,
    message_count: u64,
    index: Vec<FieldIndex>,
}

impl<'a> Filler<'a> {
    fn connect(args: &'a FillArgs, addr: &str) -> anyhow::Result<Self> {
        let link = Link::connect(addr)?;
        link.stream().set_read_timeout(Some(SILENCE_MAX))?;
        Ok(Self {
            args,
            link,
            body: (0..args.size).map(|at| b'a' + (at % 26) as u8).collect(),
            output: Output::default(),
            unanswered: 0,
            message_count: 0,
            index: Vec::new(),
        })
    }

    /// Sends `count` messages in one request, once there is room for it.
    fn send(&mut self, topic: &str, queue_id: i32, count: u64) -> anyhow::Result<()> {
        while IN_FLIGHT <= self.unanswered {
            self.read()?;
        }
        self.encode(topic, queue_id, count);
        self.link.output.append(&mut self.output.bytes);
        self.unanswered += 1;
        if OUTPUT_LEN <= self.link.output.len() {
            self.link.flush()?;
        }
        Ok(())
    }

    fn encode(&mut self, topic: &str, queue_id: i32, count: u64) {
        let is_batch = 1 < self.args.batch;
        let properties = self.properties();
        let born = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let of_request = if is_batch { "WAIT\u{1}true\u{2}" } else { &properties };
        let header = SendMessageV2 {
            producer_group: "apogee-bench".into(),
            topic: topic.into(),
            default_topic: "TBW102".into(),
            default_topic_queue_count: 4,
            queue_id,
            sys_flag: 0,
            born_ms: born.as_millis() as i64,
            flag: 0,
            properties: Some(Text::Plain(of_request)),
            reconsume_times: Some(0),
            unit_mode: false,
            max_reconsume_times: None,
            batch: is_batch,
            broker_name: None,
        };
        let code = match is_batch {
            true => SendBatchMessage::INFO.code,
            false => SendMessageV2::INFO.code,
        };
        let encoding = HeaderEncoding::Json;
        let head = RequestHead { encoding, code, opaque: 1, oneway: false };
        let mut output = std::mem::take(&mut self.output);
        head.write(
            &mut output,
            |put| header.encode(put),
            |out| match is_batch {
                false => out.bytes.extend_from_slice(&self.body),
                true => {
                    for number in self.message_count..self.message_count + count {
                        let properties = self.properties_of(number);
                        let properties = properties.as_bytes();
                        let record = BatchRecord { flag: 0, body: &self.body, properties };
                        batch::put(&mut out.bytes, &record);
                    }
                }
            },
        );
        self.output = output;
        self.message_count += count;
    }

    /// Of the next message.
    fn properties(&self) -> String {
        self.properties_of(self.message_count)
    }

    fn properties_of(&self, number: u64) -> String {
        let mut text = format!("UNIQ_KEY\u{1}7F0000010BE6AC0FFEE0{number:012X}\u{2}WAIT\u{1}true");
        if let Some(keys) = self.args.keys {
            text += &format!("\u{2}KEYS\u{1}{}", key(number % keys.max(1)));
        }
        text
    }

    /// Waits for answers.
    fn read(&mut self) -> anyhow::Result<()> {
        self.link.flush()?;
        let before = self.unanswered;
        self.link.fill()?;
        self.link.drain(|frame| {
            let header = Header::parse(frame, &mut self.index).context("an answer's header")?;
            if !header.is_response() {
                return Ok(());
            }
            if header.code != ResponseCode::SUCCESS.0 {
                let remark = header.remark.map(|text| text.to_cow().into_owned());
                bail!("{}: {}", ResponseCode(header.code), remark.unwrap_or_default());
            }
            self.unanswered -= 1;
            Ok(())
        })?;
        ensure!(self.unanswered < before, "the server does not answer");
        Ok(())
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        while 0 < self.unanswered {
            self.read()?;
        }
        Ok(())
    }
}

/// A key of a message.
pub fn key(number: u64) -> String {
    format!("key-{number}")
}
