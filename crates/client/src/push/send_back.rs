//! What becomes of a message that the handler could not handle: a broker delivers it again, or
//! makes it a dead letter. Spec `client-behaviour.md` 9.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use apogee_types::properties::name;
use apogee_types::route::{BrokerData, MessageQueue};
use apogee_types::{LogOffset, QueueOffset, SysFlag, names};
use apogee_wire::remoting::requests::{ConsumerSendMsgBack, SendMessageV2, ViewMessageById};
use apogee_wire::remoting::{ResponseCode, Text};
use bytes::Bytes;
use tokio::time::sleep;

use super::reader::Reader;
use super::{Member, Outcome};
use crate::Error;
use crate::client::DEFAULT_QUEUE_COUNT;
use crate::message::{Message, ReceivedMessage, deflate};

/// Before the handler gets a message again that no broker took, as upstream.
const PAUSE: Duration = Duration::from_secs(5);
/// How long a broker may take to take a message back, as upstream.
const SEND_BACK_TIME: Duration = Duration::from_secs(5);
/// The group that upstream's consumers send with.
const INNER_PRODUCER: &str = "CLIENT_INNER_PRODUCER";
/// The first retry waits for this level (10 s), the next for the one after it, and so on.
const FIRST_LEVEL: i32 = 3;
/// Bodies from this length on are compressed, as those of producers.
const COMPRESS_FROM: usize = 4096;

/// The delay level that sends a message to the dead letters at once. Spec `messages.md` 9.3.
pub(super) const DEAD_LETTER: i32 = -1;

/// What is needed of a message once the handler has it.
pub(super) struct Mark {
    pub offset: QueueOffset,
    log_offset: LogOffset,
    pub id: String,
    topic: Arc<str>,
}

impl Mark {
    pub fn of(message: &ReceivedMessage) -> Self {
        Self {
            offset: message.queue_offset,
            log_offset: message.log_offset,
            id: message.id(),
            topic: Arc::clone(&message.topic),
        }
    }
}

impl Reader {
    /// Has a broker deliver a message again later. As long as none takes it, the handler gets it
    /// again from time to time, until it is done or the queue stops; then it comes again anyway.
    pub async fn retry(&self, mark: &Mark, mut delay_level: i32) {
        let mut tries = 0;
        loop {
            let Err(error) = self.send_back(mark, delay_level).await else { break };
            self.warn(mark, &error);
            // The handler had the message for good.
            let message = self.fetch(mark, tries).await.inspect_err(|error| self.warn(mark, error));
            if let Ok(message) = &message {
                let Err(error) = self.send_copy(message, delay_level).await else { break };
                self.warn(mark, &error);
            }
            let again = async {
                sleep(PAUSE).await;
                self.permit().await
            };
            let Some(permit) = self.unless_stopped(again).await else { return };
            let Ok(mut message) = message else { continue };
            message.reconsume_times += 1;
            let outcome = self.call(vec![message]).await;
            drop(permit);
            tries += 1;
            delay_level = match outcome {
                Outcome::Done => break,
                Outcome::Leave => return,
                Outcome::Retry => 0,
                Outcome::RetryAt { delay_level } => delay_level.into(),
            };
        }
        self.window.done(mark.offset.0 as i64);
    }

    /// Makes a message a dead letter; `false` if no broker took it.
    pub async fn bury(&self, message: &ReceivedMessage) -> bool {
        let mark = Mark::of(message);
        let Err(error) = self.send_back(&mark, DEAD_LETTER).await else { return true };
        self.warn(&mark, &error);
        let copied = self.send_copy(message, DEAD_LETTER).await;
        copied.inspect_err(|error| self.warn(&mark, error)).is_ok()
    }

    fn warn(&self, mark: &Mark, error: &Error) {
        tracing::warn!(group = %self.member.group, id = mark.id, %error, "not sent back");
    }

    async fn send_back(&self, mark: &Mark, delay_level: i32) -> Result<(), Error> {
        let Member { client, group, .. } = &*self.member;
        let addr = client.master_of(&self.queue).await?;
        let request = ConsumerSendMsgBack {
            log_offset: mark.log_offset.0 as i64,
            group: group.to_string(),
            delay_level,
            origin_msg_id: Some(mark.id.clone()),
            origin_topic: Some(mark.topic.to_string()),
            unit_mode: false,
            max_reconsume_times: self.max_reconsume_times(),
        };
        let answer = client
            .call_within::<ConsumerSendMsgBack>(&addr, &request, Bytes::new(), SEND_BACK_TIME)
            .await?;
        answer.success().map(|_| ())
    }

    fn max_reconsume_times(&self) -> Option<i32> {
        Some(self.member.settings.max_reconsume_times).filter(|times| 0 <= *times)
    }

    /// The message once more, after the handler had it so many `times` again.
    async fn fetch(&self, mark: &Mark, times: i32) -> Result<ReceivedMessage, Error> {
        let client = &self.member.client;
        let addr = client.master_of(&self.queue).await?;
        let request = ViewMessageById { topic: None, log_offset: mark.log_offset.0 as i64 };
        let answer = client.call::<ViewMessageById>(&addr, &request, Bytes::new()).await?;
        let messages = ReceivedMessage::read_all(&answer.body, &self.queue.broker_name);
        let mut messages = messages.map_err(|error| answer.malformed(&error))?;
        let message = messages.pop().filter(|message| message.queue_offset == mark.offset);
        let mut message = message.ok_or_else(|| answer.malformed(&"another message"))?;
        message.reconsume_times += times;
        Ok(message)
    }

    /// Sends a copy to the group's retry topic: on whichever broker takes it.
    async fn send_copy(&self, message: &ReceivedMessage, delay_level: i32) -> Result<(), Error> {
        let Member { client, group, .. } = &*self.member;
        let topic = names::retry_topic(group);
        let (body, sys_flag) = packed_body(message);
        let properties = copied_properties(message, delay_level)?;
        let queues = client.route(&topic).await?.write_queues();
        let first = client.chance(queues.len().max(1));
        let mut failure = Error::NoRoute { topic: topic.clone() };
        let mut asked = BTreeSet::new();
        for MessageQueue { broker_name, queue_id, .. } in queues[first..].iter().chain(&queues) {
            if !asked.insert(broker_name) {
                continue;
            }
            let request = SendMessageV2 {
                producer_group: Text::Plain(INNER_PRODUCER),
                topic: Text::Plain(&topic),
                default_topic: Text::Plain(names::AUTO_CREATE_TOPIC),
                default_topic_queue_count: DEFAULT_QUEUE_COUNT,
                queue_id: *queue_id,
                sys_flag: sys_flag.0,
                born_ms: client.now_ms(),
                flag: message.flag,
                properties: Some(Text::Plain(&properties)),
                reconsume_times: Some(message.reconsume_times + 1),
                unit_mode: false,
                // One who was delivered more often than that is a dead letter.
                max_reconsume_times: match delay_level {
                    DEAD_LETTER => Some(0),
                    _ => self.max_reconsume_times(),
                },
                batch: false,
                broker_name: Some(Text::Plain(broker_name)),
            };
            let addr = client.broker_address(broker_name, BrokerData::MASTER_ID)?;
            match client.call::<SendMessageV2<'_>>(&addr, &request, body.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) if error.code().is_some_and(is_stored) => return Ok(()),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

/// Codes of answers to a send whose message is stored, if not as safely as it could be.
fn is_stored(code: ResponseCode) -> bool {
    matches!(
        code,
        ResponseCode::FLUSH_DISK_TIMEOUT
            | ResponseCode::FLUSH_SLAVE_TIMEOUT
            | ResponseCode::SLAVE_NOT_AVAILABLE
    )
}

fn packed_body(message: &ReceivedMessage) -> (Bytes, SysFlag) {
    let packing = SysFlag::COMPRESSED.with(message.sys_flag.compression());
    if message.sys_flag.has(SysFlag::COMPRESSED) {
        return (message.body.clone(), packing);
    }
    if COMPRESS_FROM <= message.body.len() {
        return (deflate(&message.body).into(), SysFlag::COMPRESSED);
    }
    (message.body.clone(), SysFlag::default())
}

/// As a broker's own retry has them.
fn copied_properties(message: &ReceivedMessage, delay_level: i32) -> Result<String, Error> {
    let mut copy = Message::new(&message.topic, Bytes::new());
    copy.properties = message.properties.clone();
    copy.properties.remove(name::TRAN_MSG);
    let own = copy.properties.entry(name::ORIGIN_MESSAGE_ID.to_owned());
    own.or_insert_with(|| message.offset_id().to_string());
    let level = if delay_level == 0 { FIRST_LEVEL + message.reconsume_times } else { delay_level };
    let copy =
        copy.property(name::RETRY_TOPIC, &message.topic).property(name::DELAY, &level.to_string());
    let encoded = copy.encoded_properties()?;
    Ok(String::from_utf8(encoded).expect("made of names and values that are texts"))
}
