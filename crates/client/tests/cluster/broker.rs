//! A broker of a test: keeps messages in memory and notes what it was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use apogee_net::{Closed, Outbox, Session};
use apogee_types::record;
use apogee_types::route::MessageQueue;
use apogee_types::{LogOffset, Message, QueueId, QueueOffset, SysFlag, json};
use apogee_wire::output::Output;
use apogee_wire::remoting::bodies::{
    GetConsumerListByGroupResponseBody, HeartbeatData, LockBatchRequestBody, LockBatchResponseBody,
};
use apogee_wire::remoting::requests::{
    ConsumerSendMsgBack, GetMaxOffset, GetMinOffset, GetRouteInfoByTopic, HeartBeatResponse,
    NotifyConsumerIdsChanged, OffsetResponse, PullMessage, PullMessageResponse,
    QueryConsumerOffset, SendMessageResponse, SendMessageV2, UnregisterClient,
    UpdateConsumerOffset, ViewMessageById,
};
use apogee_wire::remoting::{
    Fields, FrameRef, Header, HeaderEncoding, PutFields, Request, RequestHead, ResponseCode,
    ResponseHead, Text, batch,
};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::world::World;

pub struct Broker {
    pub name: &'static str,
    pub addr: SocketAddr,
    pub state: Mutex<State>,
}

#[derive(Default)]
pub struct State {
    /// Records by topic and queue.
    pub queues: BTreeMap<(String, i32), Vec<Vec<u8>>>,
    /// By group, topic and queue.
    pub offsets: BTreeMap<(String, String, i32), i64>,
    /// Connections by group and client id.
    pub members: BTreeMap<String, BTreeMap<Arc<str>, Arc<Outbox>>>,
    /// Who holds the lock of a queue.
    pub locks: BTreeMap<MessageQueue, String>,
    /// Since when; one without a time lasts.
    pub locked_at: BTreeMap<MessageQueue, Instant>,
    /// A queue that is in every answer to one who locks.
    pub locks_too: Option<MessageQueue>,
    /// Queues whose next pull is answered with 21 and this offset.
    pub moves: BTreeMap<(String, i32), i64>,
    /// All connections.
    pub outboxes: Vec<Arc<Outbox>>,
    pub sent_back: Vec<ConsumerSendMsgBack>,
    /// Pulls that committed on the way.
    pub committing_pulls: usize,
    /// Codes of all requests, in order.
    pub asked: Vec<i32>,
    /// Sends are answered with this code.
    pub refuses: Option<ResponseCode>,
    /// Requests of these codes are refused.
    pub refused: BTreeSet<i32>,
    /// Requests of these codes are not answered.
    pub deaf_to: BTreeSet<i32>,
    /// Connections so far.
    pub connection_count: usize,
    /// Of the first so many connections the other end is dead, and nobody knows.
    pub half_open_count: usize,
    /// Over the first so many connections no new requests are taken.
    pub left_count: usize,
    /// Answers to requests of this code take five seconds, a part each second.
    pub slow_at: Option<i32>,
    /// The connection ends at a request of this code.
    pub hangs_up_at: Option<i32>,
    /// The connection ends after a request of this code is answered.
    pub hangs_up_after: Option<i32>,
}

impl Broker {
    pub fn new(name: &'static str) -> Self {
        let addr = if name == "a" { "10.0.0.1:10911" } else { "10.0.0.2:10911" };
        Self { name, addr: addr.parse().unwrap(), state: Mutex::default() }
    }

    /// Stores a message without a client.
    pub fn put(&self, topic: &str, queue_id: i32, body: &str, properties: &str) {
        let (body, properties) = (body.as_bytes(), properties.as_bytes());
        self.store(topic, queue_id, 0, body, properties);
    }

    pub fn offset(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        let key = (group.to_owned(), topic.to_owned(), queue_id);
        self.state.lock().offsets.get(&key).copied()
    }

    /// Ends its connections, and forgets what a broker does not keep on a disk.
    pub fn restart(&self) {
        self.forget().into_iter().for_each(|outbox| outbox.close());
    }

    /// The same, but gives the connections to be ended.
    pub fn forget(&self) -> Vec<Arc<Outbox>> {
        let mut state = self.state.lock();
        state.members.clear();
        state.locks.clear();
        std::mem::take(&mut state.outboxes)
    }

    pub fn count_asked(&self, code: i32) -> usize {
        self.state.lock().asked.iter().filter(|asked| **asked == code).count()
    }

    pub fn store(
        &self,
        topic: &str,
        queue_id: i32,
        flag: i32,
        body: &[u8],
        properties: &[u8],
    ) -> i64 {
        let mut state = self.state.lock();
        let queue = state.queues.entry((topic.to_owned(), queue_id)).or_default();
        let message = Message {
            topic,
            queue_id: QueueId::from_wire(queue_id).unwrap(),
            flag: 0,
            sys_flag: SysFlag(flag),
            born_ms: 1,
            born_host: self.addr,
            store_host: self.addr,
            reconsume_times: 0,
            prepared_at: LogOffset(0),
            body,
            properties,
            key_places: None,
            tags_code: 0,
        };
        let offset = queue.len() as u64;
        let place = (QueueOffset(offset), LogOffset(1000 + offset), 2);
        let mut bytes = Vec::new();
        record::encode(&message, 0, place, |part| bytes.extend_from_slice(part));
        queue.push(bytes);
        offset as i64
    }
}

/// One connection to a name server or broker.
pub struct Door {
    world: Arc<World>,
    /// `None` for a name server.
    broker: Option<Arc<Broker>>,
    /// Which of the broker's connections this is.
    number: usize,
    outbox: Arc<Outbox>,
}

/// What a request gets: code, fields, body. `None`: no answer (yet).
type Reply = Option<(ResponseCode, Box<dyn FnOnce(&mut dyn PutFields) + Send>, Vec<u8>)>;

fn reply(code: ResponseCode, body: Vec<u8>) -> Reply {
    Some((code, Box::new(|_| {}), body))
}

fn ok() -> Reply {
    reply(ResponseCode::SUCCESS, Vec::new())
}

impl Door {
    pub fn new(world: Arc<World>, broker: Option<Arc<Broker>>, outbox: Arc<Outbox>) -> Self {
        let mut number = 0;
        if let Some(broker) = &broker {
            let mut state = broker.state.lock();
            number = state.connection_count;
            state.connection_count += 1;
            state.outboxes.push(Arc::clone(&outbox));
        }
        Self { world, broker, number, outbox }
    }

    fn answer(&self, header: &Header<'_>, body: &[u8]) -> Result<Reply, Closed> {
        let Some(broker) = &self.broker else { return Ok(self.name_server(header)) };
        {
            let mut state = broker.state.lock();
            if self.number < state.half_open_count {
                return Ok(None);
            }
            if self.number < state.left_count {
                return Ok(reply(ResponseCode::GO_AWAY, Vec::new()));
            }
            state.asked.push(header.code);
            if state.hangs_up_at == Some(header.code) {
                return Err(Closed::ByUs);
            }
            if state.deaf_to.contains(&header.code) {
                return Ok(None);
            }
            if state.refused.contains(&header.code) {
                return Ok(reply(ResponseCode::NO_PERMISSION, Vec::new()));
            }
        }
        Ok(self.broker(broker, header, body))
    }

    fn name_server(&self, header: &Header<'_>) -> Reply {
        let request = GetRouteInfoByTopic::decode(&header.fields).unwrap();
        if self.world.broken_topics.lock().contains(&request.topic) {
            return reply(ResponseCode::SYSTEM_ERROR, Vec::new());
        }
        match self.world.route(&request.topic) {
            Some(body) => reply(ResponseCode::SUCCESS, body),
            None => reply(ResponseCode::TOPIC_NOT_EXIST, Vec::new()),
        }
    }

    fn broker(&self, broker: &Arc<Broker>, header: &Header<'_>, body: &[u8]) -> Reply {
        let fields = &header.fields;
        match header.code {
            310 | 320 => self.send(broker, &SendMessageV2::decode(fields).unwrap(), body),
            11 => self.pull(broker, &PullMessage::decode(fields).unwrap(), header.opaque),
            14 => {
                let it = QueryConsumerOffset::decode(fields).unwrap();
                match broker.offset(&it.consumer_group, &it.topic, it.queue_id) {
                    Some(offset) => offset_reply(offset),
                    None => reply(ResponseCode::QUERY_NOT_FOUND, Vec::new()),
                }
            }
            15 => {
                let it = UpdateConsumerOffset::decode(fields).unwrap();
                let key = (it.consumer_group, it.topic, it.queue_id);
                broker.state.lock().offsets.insert(key, it.commit_offset);
                ok()
            }
            30 => {
                let it = GetMaxOffset::decode(fields).unwrap();
                let state = broker.state.lock();
                offset_reply(state.queues.get(&(it.topic, it.queue_id)).map_or(0, Vec::len) as i64)
            }
            31 => GetMinOffset::decode(fields).map(|_| offset_reply(0)).unwrap(),
            33 => {
                let it = ViewMessageById::decode(fields).unwrap();
                let state = broker.state.lock();
                let place = (it.log_offset - 1000) as usize;
                let found = state.queues.values().find_map(|queue| queue.get(place));
                reply(ResponseCode::SUCCESS, found.unwrap().clone())
            }
            34 => self.heartbeat(broker, &json::read(body).unwrap()),
            35 => self.unregister(broker, &UnregisterClient::decode(fields).unwrap()),
            36 => {
                let it = ConsumerSendMsgBack::decode(fields).unwrap();
                broker.state.lock().sent_back.push(it);
                ok()
            }
            38 => members(broker, header),
            41 => lock(broker, &json::read(body).unwrap()),
            42 => {
                let it: LockBatchRequestBody = json::read(body).unwrap();
                let mut state = broker.state.lock();
                state
                    .locks
                    .retain(|queue, holder| *holder != it.client_id || !it.mq_set.contains(queue));
                ok()
            }
            code => panic!("a request of code {code}"),
        }
    }

    fn send(&self, broker: &Broker, it: &SendMessageV2<'_>, body: &[u8]) -> Reply {
        if let Some(code) = broker.state.lock().refuses {
            return reply(code, Vec::new());
        }
        let topic = it.topic.to_cow();
        let properties = it.properties.map(|text| text.to_cow().into_owned()).unwrap_or_default();
        let queue_offset = if it.batch {
            let stored: Vec<i64> = batch::records(body)
                .map(|record| record.unwrap())
                .map(|it2| broker.store(&topic, it.queue_id, 0, it2.body, it2.properties))
                .collect();
            stored[0]
        } else {
            broker.store(&topic, it.queue_id, it.sys_flag, body, properties.as_bytes())
        };
        let queue_id = it.queue_id;
        let fields = move |put: &mut dyn PutFields| {
            let response = SendMessageResponse {
                msg_id: Text::Plain("ID"),
                queue_id,
                queue_offset,
                transaction_id: None,
                recall_handle: None,
                region: None,
                trace_on: None,
            };
            response.encode(put);
        };
        Some((ResponseCode::SUCCESS, Box::new(fields), Vec::new()))
    }

    /// Answers when something has arrived, or at the time limit.
    fn pull(&self, broker: &Arc<Broker>, it: &PullMessage<'_>, opaque: i32) -> Reply {
        if !self.world.topics.lock().contains_key(&*it.topic.to_cow()) {
            return reply(ResponseCode::TOPIC_NOT_EXIST, Vec::new());
        }
        let key = (it.topic.to_cow().into_owned(), it.queue_id);
        let (offset, count) = (it.queue_offset as usize, it.max_count as usize);
        let (broker, world, outbox) =
            (Arc::clone(broker), Arc::clone(&self.world), Arc::clone(&self.outbox));
        let hold = Duration::from_millis(it.suspend_ms as u64);
        if it.sys_flag & 1 != 0 {
            broker.state.lock().committing_pulls += 1;
        }
        tokio::spawn(async move {
            let mut changed = world.changed.subscribe();
            let moved = || broker.state.lock().moves.remove(&key);
            let found = || {
                let state = broker.state.lock();
                let queue = state.queues.get(&key)?.get(offset..)?;
                let found = &queue[..count.min(queue.len())];
                Some((found.len(), found.concat())).filter(|(count, _)| *count != 0)
            };
            let arrival = async {
                loop {
                    if let Some(found) = found() {
                        break found;
                    }
                    changed.changed().await.unwrap();
                }
            };
            let nothing = (0, Vec::new());
            let end = broker.state.lock().queues.get(&key).map_or(0, Vec::len);
            let moved_to = moved().or((end < offset).then_some(end as i64));
            let (code, (count, body)) = if moved_to.is_some() {
                (ResponseCode::PULL_OFFSET_MOVED, nothing)
            } else {
                match tokio::time::timeout(hold, arrival).await {
                    Ok(found) => (ResponseCode::SUCCESS, found),
                    Err(_) => (ResponseCode::PULL_NOT_FOUND, nothing),
                }
            };
            let response = PullMessageResponse {
                suggested_broker_id: 0,
                next_offset: moved_to.unwrap_or((offset + count) as i64),
                min_offset: 0,
                max_offset: 0,
                topic_sys_flag: None,
                group_sys_flag: None,
                forbidden_type: None,
            };
            outbox.put(|output| {
                write(output, opaque, code, |put| response.encode(put), &body);
            });
        });
        None
    }

    fn heartbeat(&self, broker: &Broker, data: &HeartbeatData) -> Reply {
        for consumer in &data.consumer_data_set {
            let mut state = broker.state.lock();
            let group = state.members.entry(consumer.group_name.to_string()).or_default();
            let id = Arc::clone(&data.client_id);
            if group.insert(id, Arc::clone(&self.outbox)).is_none() {
                notify(group, &consumer.group_name);
            }
        }
        let response = HeartBeatResponse { supports_v2: false, is_sub_change: true };
        let fields = move |put: &mut dyn PutFields| response.encode(put);
        Some((ResponseCode::SUCCESS, Box::new(fields), Vec::new()))
    }

    fn unregister(&self, broker: &Broker, it: &UnregisterClient) -> Reply {
        let mut state = broker.state.lock();
        if let Some(name) = &it.consumer_group
            && let Some(group) = state.members.get_mut(name)
        {
            group.remove(&*it.client_id);
            notify(group, name);
        }
        ok()
    }
}

fn offset_reply(offset: i64) -> Reply {
    let fields = move |put: &mut dyn PutFields| OffsetResponse { offset }.encode(put);
    Some((ResponseCode::SUCCESS, Box::new(fields), Vec::new()))
}

fn members(broker: &Broker, header: &Header<'_>) -> Reply {
    let group = header.fields.get("consumerGroup").unwrap().to_cow().into_owned();
    let state = broker.state.lock();
    let Some(group) = state.members.get(&group).filter(|group| !group.is_empty()) else {
        return reply(ResponseCode::SYSTEM_ERROR, Vec::new());
    };
    let body =
        GetConsumerListByGroupResponseBody { consumer_id_list: group.keys().cloned().collect() };
    reply(ResponseCode::SUCCESS, json::write(&body))
}

fn lock(broker: &Broker, it: &LockBatchRequestBody) -> Reply {
    let mut guard = broker.state.lock();
    let state = &mut *guard;
    let mut body = LockBatchResponseBody::default();
    for queue in &it.mq_set {
        let locked_at = state.locked_at.get(queue);
        if locked_at.is_some_and(|at| Duration::from_secs(60) < at.elapsed()) {
            state.locks.remove(queue);
        }
        let holder = state.locks.entry(queue.clone()).or_insert_with(|| it.client_id.clone());
        if *holder == it.client_id {
            state.locked_at.insert(queue.clone(), Instant::now());
            body.lock_ok_mq_set.push(queue.clone());
        }
    }
    body.lock_ok_mq_set.extend(state.locks_too.clone());
    reply(ResponseCode::SUCCESS, json::write(&body))
}

pub fn notify(group: &BTreeMap<Arc<str>, Arc<Outbox>>, name: &str) {
    let request = NotifyConsumerIdsChanged { consumer_group: name.to_owned() };
    for outbox in group.values() {
        push::<NotifyConsumerIdsChanged>(outbox, |put| request.encode(put), Vec::new());
    }
}

/// Sends a one-way request to a client.
pub fn push<R: Request>(outbox: &Outbox, fields: impl FnOnce(&mut dyn PutFields), body: Vec<u8>) {
    let code = R::INFO.code;
    let head = RequestHead { encoding: HeaderEncoding::Json, code, opaque: 0, oneway: true };
    let put_body = |output: &mut Output| output.bytes.extend_from_slice(&body);
    outbox.put(|output| head.write(output, fields, put_body));
}

fn write(
    output: &mut Output,
    opaque: i32,
    code: ResponseCode,
    fields: impl FnOnce(&mut dyn PutFields),
    body: &[u8],
) {
    let encoding = HeaderEncoding::Json;
    let head = ResponseHead { encoding, code, opaque, remark: Some("scripted") };
    head.write(output, fields, |output| output.bytes.extend_from_slice(body));
}

async fn put_slowly(outbox: Arc<Outbox>, bytes: Vec<u8>) {
    for part in bytes.chunks(bytes.len().div_ceil(5)) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        outbox.put(|output| output.bytes.extend_from_slice(part));
    }
}

impl Session for Door {
    fn on_frame(&mut self, frame: &FrameRef<'_>, output: &mut Output) -> Result<(), Closed> {
        let mut index = Vec::new();
        let header = Header::parse(frame, &mut index).unwrap();
        let answer = self.answer(&header, frame.body)?;
        if let Some((code, fields, body)) = answer
            && !header.is_oneway()
        {
            let is_slow = |broker: &Arc<Broker>| broker.state.lock().slow_at == Some(header.code);
            if self.broker.as_ref().is_some_and(is_slow) {
                let mut whole = Output::default();
                write(&mut whole, header.opaque, code, fields, &body);
                tokio::spawn(put_slowly(Arc::clone(&self.outbox), whole.bytes));
            } else {
                write(output, header.opaque, code, fields, &body);
            }
        }
        let broker = self.broker.as_ref();
        if broker.is_some_and(|it| it.state.lock().hangs_up_after == Some(header.code)) {
            self.outbox.close();
        }
        self.world.touch();
        Ok(())
    }
}
