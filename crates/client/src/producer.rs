//! Sends messages: chooses the queue, tries again elsewhere, keeps its group known to brokers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use apogee_types::properties::name;
use apogee_types::route::{BrokerData, MessageQueue};
use apogee_types::tags::java_hash;
use apogee_types::{Millis, SysFlag, names};
use apogee_wire::remoting::batch::{self, BatchRecord};
use apogee_wire::remoting::bodies::{HeartbeatData, ProducerData};
use apogee_wire::remoting::requests::{
    SendBatchMessage, SendMessageResponse, SendMessageV2, UnregisterClient,
};
use apogee_wire::remoting::{Request, ResponseCode, Text};
use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep};

use crate::client::DEFAULT_QUEUE_COUNT;
use crate::connection::{Answer, Deadline};
use crate::message::{Message, deflate};
use crate::routes::Route;
use crate::{Client, Error, Options};

/// What has a message delivered later.
const LATER: [&str; 4] =
    [name::DELAY, name::TIMER_DELIVER_MS, name::TIMER_DELAY_MS, name::TIMER_DELAY_SEC];

/// Upstream's `heartbeatBrokerInterval`.
pub(crate) const HEARTBEAT_PERIOD: Duration = Duration::from_secs(30);

/// What to send with; every setting has upstream's default.
pub struct ProducerBuilder {
    client: Option<Client>,
    options: Options,
    group: String,
    send_time: Duration,
    retry_count: u32,
    compress_from: usize,
    body_len_max: usize,
}

impl ProducerBuilder {
    /// Default: `DEFAULT_PRODUCER`.
    #[must_use]
    pub fn group(mut self, group: &str) -> Self {
        self.group = group.to_owned();
        self
    }

    /// Another network, clock or seed. Replaces the name servers as well.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Shares the connections of `client`, which then is not closed by this producer.
    #[must_use]
    pub fn client(mut self, client: Client) -> Self {
        self.client = Some(client);
        self
    }

    /// How long a send may take with all its tries. Default: 3 s.
    #[must_use]
    pub fn send_timeout(mut self, within: Duration) -> Self {
        self.send_time = within;
        self
    }

    /// How often a failed send is tried again within its time: on another broker at once, on the
    /// same one after a pause. Default: 2.
    #[must_use]
    pub fn retries(mut self, count: usize) -> Self {
        self.retry_count = u32::try_from(count).unwrap_or(u32::MAX);
        self
    }

    /// The length from which a body is compressed. Default: 4 KiB.
    #[must_use]
    pub fn compress_from(mut self, len: usize) -> Self {
        self.compress_from = len;
        self
    }

    /// The longest body. Default: 4 MiB, as the broker's `maxMessageSize`.
    #[must_use]
    pub fn max_body_len(mut self, len: usize) -> Self {
        self.body_len_max = len;
        self
    }

    pub async fn start(self) -> Result<Producer, Error> {
        names::check_group(&self.group)?;
        let owns_client = self.client.is_none();
        let client = self.client.unwrap_or_else(|| Client::new(self.options));
        let seed = client.chance(usize::MAX);
        let heartbeats = tokio::spawn(heartbeat_often(client.clone(), self.group.clone()));
        Ok(Producer {
            client,
            owns_client,
            group: self.group,
            send_time: self.send_time,
            retry_count: self.retry_count,
            compress_from: self.compress_from,
            body_len_max: self.body_len_max,
            turn: AtomicUsize::new(seed / 2),
            heartbeats,
        })
    }
}

/// Sends messages. All methods take `&self`: share it in an `Arc` and send as many at once as you
/// like, they are pipelined over one connection per broker.
pub struct Producer {
    client: Client,
    owns_client: bool,
    group: String,
    send_time: Duration,
    retry_count: u32,
    compress_from: usize,
    body_len_max: usize,
    /// Counts sends, so that they go round the queues.
    turn: AtomicUsize,
    heartbeats: JoinHandle<()>,
}

/// How safely a message is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendStatus {
    /// As the broker is configured to keep it.
    Ok,
    /// Stored, but not on the device in time.
    FlushDiskTimeout,
    /// Stored, but not on a slave in time.
    FlushSlaveTimeout,
    /// Stored, but there is no slave.
    SlaveNotAvailable,
}

/// Where a message was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendReceipt {
    pub status: SendStatus,
    /// The id that we gave; of a batch all, joined by `,`.
    pub id: String,
    /// The broker's id; of a batch all, joined by `,`.
    pub offset_id: String,
    pub queue: MessageQueue,
    /// Of a batch that of the first message.
    pub queue_offset: i64,
    /// With which a message that is not yet delivered can be recalled.
    pub recall_handle: Option<String>,
}

/// What is sent, whichever way the queue is chosen.
struct Parcel {
    topic: String,
    id: String,
    sys_flag: SysFlag,
    flag: i32,
    properties: String,
    body: Bytes,
    is_batch: bool,
}

impl Producer {
    /// Name servers are separated by `;`.
    #[must_use]
    pub fn builder(name_servers: &str) -> ProducerBuilder {
        ProducerBuilder {
            client: None,
            options: Options::new(name_servers),
            group: "DEFAULT_PRODUCER".to_owned(),
            send_time: Duration::from_secs(3),
            retry_count: 2,
            compress_from: 4096,
            body_len_max: 4 * 1024 * 1024,
        }
    }

    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Sends a message and waits until it is stored; tries again on another broker if one fails.
    pub async fn send(&self, message: Message) -> Result<SendReceipt, Error> {
        self.send_parcel(self.parcel(message)?).await
    }

    /// Sends messages of one topic at once: all are stored, in order, in one queue, or none.
    pub async fn send_batch(&self, messages: Vec<Message>) -> Result<SendReceipt, Error> {
        self.send_parcel(self.batch_parcel(messages)?).await
    }

    /// Sends to the queue that belongs to `key`: messages with the same key stay in order, if each
    /// is sent after the one before was stored. Not tried elsewhere.
    pub async fn send_ordered(&self, message: Message, key: &str) -> Result<SendReceipt, Error> {
        let parcel = self.parcel(message.property(name::SHARDING_KEY, key))?;
        let deadline = self.deadline();
        let (_, queues) = self.queues(&parcel.topic, deadline).await?;
        let queues = non_empty(&queues, &parcel.topic)?;
        let at = java_hash(key).unsigned_abs() as usize % queues.len();
        self.send_parcel_to(&parcel, &queues[at], deadline).await
    }

    /// Sends to this queue and no other.
    pub async fn send_to(
        &self,
        message: Message,
        queue: &MessageQueue,
    ) -> Result<SendReceipt, Error> {
        let parcel = self.parcel(message)?;
        self.send_parcel_to(&parcel, queue, self.deadline()).await
    }

    /// Sends without waiting for an answer: whether the message was stored is not known.
    pub async fn send_oneway(&self, message: Message) -> Result<(), Error> {
        let parcel = self.parcel(message)?;
        let (route, queues) = self.queues(&parcel.topic, self.deadline()).await?;
        let (queue, addr) = self.next_queue(&route, &queues, &[])?;
        let request = self.request(&parcel, queue);
        self.client.oneway::<SendMessageV2<'_>>(&addr, &request, parcel.body.clone()).await
    }

    /// Leaves the group, and closes the connections unless they are shared.
    pub async fn shutdown(mut self) {
        self.heartbeats.abort();
        let _ = (&mut self.heartbeats).await;
        let request = UnregisterClient {
            client_id: self.client.id().to_string(),
            producer_group: Some(self.group.clone()),
            consumer_group: None,
        };
        for addr in masters(&self.client) {
            let left = self.client.call::<UnregisterClient>(&addr, &request, Bytes::new()).await;
            if let Err(error) = left {
                tracing::debug!(group = self.group, %error, "not unregistered");
            }
        }
        if self.owns_client {
            self.client.close().await;
        }
    }

    fn parcel(&self, mut message: Message) -> Result<Parcel, Error> {
        message.check(self.body_len_max)?;
        let id = self.identify(&mut message);
        let mut sys_flag = SysFlag::default();
        let mut body = message.body.clone();
        if self.compress_from <= body.len() {
            let deflated = deflate(&body);
            // What does not get shorter only costs the consumer time.
            if deflated.len() < body.len() {
                body = deflated.into();
                sys_flag = sys_flag.with(SysFlag::COMPRESSED);
            }
        }
        let properties = text(message.encoded_properties()?);
        let (flag, topic) = (message.flag, message.topic);
        Ok(Parcel { topic, id, sys_flag, flag, properties, body, is_batch: false })
    }

    /// Spec `messages.md` 5.2.
    fn batch_parcel(&self, messages: Vec<Message>) -> Result<Parcel, Error> {
        let first = messages.first().ok_or(Error::Batch("it is empty"))?;
        let topic = first.topic.clone();
        if topic.starts_with(names::RETRY_PREFIX) {
            return Err(Error::Batch("retry topics take no batches"));
        }
        let (mut ids, mut body) = (Vec::new(), Vec::new());
        for mut message in messages {
            message.check(self.body_len_max)?;
            if message.topic != topic {
                return Err(Error::Batch("its messages have different topics"));
            }
            if LATER.iter().any(|name| message.properties.contains_key(*name)) {
                return Err(Error::Batch("delayed messages cannot be in it"));
            }
            ids.push(self.identify(&mut message));
            let properties = message.encoded_properties()?;
            let record =
                BatchRecord { flag: message.flag, body: &message.body, properties: &properties };
            batch::put(&mut body, &record);
        }
        let (len, max) = (body.len(), self.body_len_max);
        if max < len {
            return Err(Error::TooLong { what: "a batch", len, max });
        }
        Ok(Parcel {
            topic,
            id: ids.join(","),
            sys_flag: SysFlag::default(),
            flag: 0,
            properties: format!("{}\u{1}true\u{2}", name::WAIT),
            body: body.into(),
            is_batch: true,
        })
    }

    /// Gives the message a unique key, unless it has one, and returns it.
    fn identify(&self, message: &mut Message) -> String {
        message.properties.entry(name::WAIT.to_owned()).or_insert_with(|| "true".to_owned());
        let entry = message.properties.entry(name::UNIQ_KEY.to_owned());
        entry.or_insert_with(|| self.client.unique_key()).clone()
    }

    fn deadline(&self) -> Deadline {
        Deadline::within(self.send_time)
    }

    async fn send_parcel(&self, parcel: Parcel) -> Result<SendReceipt, Error> {
        let deadline = self.deadline();
        // Addresses of brokers.
        let mut failed = Vec::new();
        for retries_left in (0..=self.retry_count).rev() {
            let (route, queues) = self.queues(&parcel.topic, deadline).await?;
            let error = match self.next_queue(&route, &queues, &failed) {
                Ok((queue, addr)) => {
                    let deadline = deadline.one_try_of(retries_left.saturating_add(1));
                    match self.try_send(&parcel, queue, &addr, deadline).await {
                        Ok(receipt) => return Ok(receipt),
                        Err(error) => {
                            failed.push(addr);
                            error
                        }
                    }
                }
                Err(no_master) => no_master,
            };
            let is_late = deadline.left().is_zero();
            if retries_left == 0 || is_late || !is_worth_another_try(&error) {
                return Err(error);
            }
            tracing::debug!(topic = parcel.topic, %error, "again");
            let mut addrs = queues.iter().flat_map(|queue| master(&route, queue));
            if addrs.all(|addr| failed.contains(&addr)) {
                failed.clear();
                if may_pass(&error) {
                    // For a broker that restarts, or one that takes its place.
                    let pause = deadline.left() / retries_left / 2;
                    sleep(pause).await;
                    self.client.renew_route(&parcel.topic, Instant::now() + pause).await;
                }
            }
        }
        unreachable!("the last try returned")
    }

    async fn send_parcel_to(
        &self,
        parcel: &Parcel,
        queue: &MessageQueue,
        deadline: Deadline,
    ) -> Result<SendReceipt, Error> {
        let topic = &parcel.topic;
        let mut route = self.client.send_route(topic, deadline).await?;
        if master(&route, queue).is_err() {
            self.client.renew_route(topic, deadline.at).await;
            route = self.client.send_route(topic, deadline).await?;
        }
        self.try_send(parcel, queue, &master(&route, queue)?, deadline).await
    }

    /// The route to send to a topic, and the queues. A known one without any is asked for again:
    /// there may be a new master.
    async fn queues(
        &self,
        topic: &str,
        deadline: Deadline,
    ) -> Result<(Arc<Route>, Vec<MessageQueue>), Error> {
        let mut route = self.client.send_route(topic, deadline).await?;
        let mut queues = route.write_queues();
        if queues.is_empty() {
            self.client.renew_route(topic, deadline.at).await;
            route = self.client.send_route(topic, deadline).await?;
            queues = route.write_queues();
        }
        Ok((route, queues))
    }

    async fn try_send(
        &self,
        parcel: &Parcel,
        queue: &MessageQueue,
        addr: &str,
        deadline: Deadline,
    ) -> Result<SendReceipt, Error> {
        let (client, request) = (&self.client, self.request(parcel, queue));
        let body = parcel.body.clone();
        let sent = if parcel.is_batch {
            let request = SendBatchMessage(request);
            let sent = client.call_until::<SendBatchMessage<'_>>(addr, &request, body, deadline);
            sent.await.and_then(|answer| receipt(&answer, parcel, queue))
        } else {
            let sent = client.call_until::<SendMessageV2<'_>>(addr, &request, body, deadline);
            sent.await.and_then(|answer| receipt(&answer, parcel, queue))
        };
        if sent.as_ref().is_err_and(Error::is_transport) {
            // Brokers that are gone leave the route; if no name server answers, it stays.
            client.doubt_route(&parcel.topic);
        }
        sent
    }

    fn request<'a>(&'a self, parcel: &'a Parcel, queue: &'a MessageQueue) -> SendMessageV2<'a> {
        SendMessageV2 {
            producer_group: Text::Plain(&self.group),
            topic: Text::Plain(&parcel.topic),
            default_topic: Text::Plain(names::AUTO_CREATE_TOPIC),
            default_topic_queue_count: DEFAULT_QUEUE_COUNT,
            queue_id: queue.queue_id,
            sys_flag: parcel.sys_flag.0,
            born_ms: self.now(),
            flag: parcel.flag,
            properties: Some(Text::Plain(&parcel.properties)),
            reconsume_times: Some(0),
            unit_mode: false,
            max_reconsume_times: None,
            batch: parcel.is_batch,
            broker_name: Some(Text::Plain(&queue.broker_name)),
        }
    }

    fn now(&self) -> Millis {
        self.client.now_ms()
    }

    /// The next queue in turn and its master: another than those that failed, if there is one.
    fn next_queue<'q>(
        &self,
        route: &Route,
        queues: &'q [MessageQueue],
        failed: &[Arc<str>],
    ) -> Result<(&'q MessageQueue, Arc<str>), Error> {
        let queues = non_empty(queues, route.topic())?;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = (turn..turn + queues.len()).map(|at| &queues[at % queues.len()]);
        let mut others = in_turn.filter_map(|queue| {
            let addr = master(route, queue).ok()?;
            (!failed.contains(&addr)).then_some((queue, addr))
        });
        let first = &queues[turn % queues.len()];
        others.next().map_or_else(|| Ok((first, master(route, first)?)), Ok)
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.heartbeats.abort();
    }
}

fn non_empty<'q>(queues: &'q [MessageQueue], topic: &str) -> Result<&'q [MessageQueue], Error> {
    if queues.is_empty() { Err(Error::NoRoute { topic: topic.to_owned() }) } else { Ok(queues) }
}

fn master(route: &Route, queue: &MessageQueue) -> Result<Arc<str>, Error> {
    let id = BrokerData::MASTER_ID;
    let addr = route.address(&queue.broker_name, id).cloned();
    addr.ok_or_else(|| Error::NoBroker { broker: queue.broker_name.to_string(), id })
}

fn masters(client: &Client) -> impl Iterator<Item = Arc<str>> {
    let brokers = client.brokers().into_iter();
    brokers.filter(|((_, id), _)| *id == BrokerData::MASTER_ID).map(|(_, addr)| addr)
}

fn text(properties: Vec<u8>) -> String {
    String::from_utf8(properties).expect("made of names and values that are texts")
}

/// The same broker, or one that takes its place, may take it a moment later.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::NoRoute { .. } | Error::NoBroker { .. } => true,
        Error::Refused { code, .. } => {
            matches!(*code, ResponseCode::SYSTEM_BUSY | ResponseCode::SERVICE_NOT_AVAILABLE)
        }
        _ => error.is_transport(),
    }
}

/// The codes with which upstream tries another broker.
fn is_worth_another_try(error: &Error) -> bool {
    const CODES: [ResponseCode; 8] = [
        ResponseCode::SYSTEM_ERROR,
        ResponseCode::SYSTEM_BUSY,
        ResponseCode::SERVICE_NOT_AVAILABLE,
        ResponseCode::NO_PERMISSION,
        ResponseCode::TOPIC_NOT_EXIST,
        ResponseCode::NO_BUYER_ID,
        ResponseCode::NOT_IN_CURRENT_UNIT,
        ResponseCode::GO_AWAY,
    ];
    may_pass(error) || error.code().is_some_and(|code| CODES.contains(&code))
}

fn receipt<R>(
    answer: &Answer<R>,
    parcel: &Parcel,
    queue: &MessageQueue,
) -> Result<SendReceipt, Error>
where
    R: for<'a> Request<Response<'a> = SendMessageResponse<'a>>,
{
    let status = match answer.code {
        ResponseCode::SUCCESS => SendStatus::Ok,
        ResponseCode::FLUSH_DISK_TIMEOUT => SendStatus::FlushDiskTimeout,
        ResponseCode::FLUSH_SLAVE_TIMEOUT => SendStatus::FlushSlaveTimeout,
        ResponseCode::SLAVE_NOT_AVAILABLE => SendStatus::SlaveNotAvailable,
        _ => return Err(answer.refusal()),
    };
    answer.fields(|response| SendReceipt {
        status,
        id: parcel.id.clone(),
        offset_id: response.msg_id.to_cow().into_owned(),
        queue: MessageQueue { queue_id: response.queue_id, ..queue.clone() },
        queue_offset: response.queue_offset,
        recall_handle: response.recall_handle.map(|handle| handle.to_cow().into_owned()),
    })
}

/// Tells all known masters of the producer group, so that they can ask its members back.
async fn heartbeat_often(client: Client, group: String) {
    let mut ticks = interval(HEARTBEAT_PERIOD);
    loop {
        ticks.tick().await;
        let data = HeartbeatData {
            client_id: client.id(),
            producer_data_set: vec![ProducerData { group_name: group.as_str().into() }],
            ..HeartbeatData::default()
        };
        for addr in masters(&client) {
            if let Err(error) = client.heartbeat(&addr, &data).await {
                tracing::warn!(group, %addr, %error, "no heartbeat");
            }
        }
    }
}
