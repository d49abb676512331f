//! What all connections of this process share, and what each connection is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use apogee_broker::Broker;
use apogee_broker::clients::{ConnectionId, Hear, Heard, Notice, Outlet, Reply};
use apogee_net::{Admission, Closed, Lane, Listener, Outbox, Stream, lane, pump};
use apogee_types::names;
use apogee_types::settings::{Key, NetSettings, Settings, StoreSettings};
use apogee_wire::output::Output;
use apogee_wire::remoting::header::RequestHead;
use apogee_wire::remoting::requests::{GetConsumerRunningInfo, PushReplyMessage};
use apogee_wire::remoting::{Fields, HeaderEncoding, Request, ResponseCode, Text, requests};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use super::complaints::Complaints;
use super::names::NameServer;
use super::router::Router;
use super::session::ServerSession;

/// The roles of this process, behind one router.
pub struct Door {
    pub router: Router,
    pub broker: Option<Arc<Broker>>,
    pub names: Option<Arc<NameServer>>,
    /// Told when topics changed: whoever registers with name servers elsewhere waits for it.
    pub changed: watch::Sender<()>,
    /// Told when a request is parked: whoever looks after its deadline may have slept.
    pub parked: Notify,
    pub complaints: Complaints,
    /// `syncFlushTimeout`.
    pub sync_flush_timeout: Duration,
    /// `serverChannelMaxIdleTimeSeconds`.
    idle: Duration,
    admission: Arc<Admission>,
    next_connection: AtomicU64,
    /// The settings of network and store, for who asks.
    pub limits: Vec<(&'static Key, String)>,
}

/// One connection, as the core sees it.
pub struct Peer {
    pub connection: ConnectionId,
    /// The address under which the peer reached us.
    pub local: SocketAddr,
    pub addr: SocketAddr,
    pub address: Arc<str>,
    pub outbox: Outbox,
    /// Numbers our own requests to this peer.
    next_opaque: AtomicI32,
    /// Who waits for the peer's answers, by number. Each is told once; `None`: there will be none.
    calls: Mutex<BTreeMap<i32, Waiting>>,
}

/// The answer to a request of ours.
pub(super) struct Answered<'a> {
    pub code: ResponseCode,
    pub remark: Option<Text<'a>>,
    pub body: &'a [u8],
}

type Waiting = Box<dyn FnOnce(Option<Answered<'_>>) + Send>;

/// How often parked requests are looked at for their deadline.
const SWEEP_PAUSE: Duration = Duration::from_millis(250);

/// `serverChannelMaxIdleTimeSeconds=0`: silence ends no connection for a century.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Requests of ours that a peer may leave unanswered; those beyond are not sent.
const CALLS_MAX: usize = 4096;
/// How long a client may take to answer a request of ours; upstream's for replies.
const ANSWER_TIME: Duration = Duration::from_secs(10);

impl Door {
    #[must_use]
    pub fn new(
        router: Router,
        broker: Option<Arc<Broker>>,
        names: Option<Arc<NameServer>>,
        (net, store): (&NetSettings, &StoreSettings),
    ) -> Arc<Self> {
        Arc::new(Self {
            router,
            broker,
            names,
            changed: watch::Sender::new(()),
            parked: Notify::new(),
            complaints: Complaints::default(),
            sync_flush_timeout: Duration::from_millis(store.sync_flush_timeout),
            idle: match net.server_channel_max_idle_time_seconds {
                0 => NEVER,
                seconds => Duration::from_secs(seconds).min(NEVER),
            },
            admission: Arc::default(),
            next_connection: AtomicU64::new(1),
            limits: net.rows().into_iter().chain(store.rows()).collect(),
        })
    }

    #[must_use]
    pub fn broker(&self) -> &Arc<Broker> {
        self.broker.as_ref().expect("a broker's requests are routed only where one is")
    }

    #[must_use]
    pub fn names(&self) -> &Arc<NameServer> {
        self.names.as_ref().expect("a name server's requests are routed only where one is")
    }

    /// Topics were created, changed or deleted: name servers are to know at once.
    pub fn topics_changed(&self) {
        match (&self.names, &self.broker) {
            (Some(names), Some(broker)) => names.register_own(broker),
            (None, Some(broker)) => drop(broker.topics.take_changed()),
            (_, None) => {}
        }
        self.changed.send_replace(());
    }

    /// Answers parked pulls whose time is up, and lets silent brokers go. Says when to be called
    /// again; with `None`, in a while, or when a request is parked.
    pub fn sweep_step(&self) -> Option<Duration> {
        if let Some(broker) = &self.broker {
            broker.waiters.expire(broker.clock.now_ms());
            let has_forgotten = |names: &Arc<NameServer>| names.has_forgotten_own();
            if broker.topics.has_changed() || self.names.as_ref().is_some_and(has_forgotten) {
                self.topics_changed();
            }
        }
        if let Some(names) = &self.names {
            names.expire_step();
        }
        self.complaints.sum_up();
        let has_parked = self.broker.as_ref().is_some_and(|broker| !broker.waiters.is_empty());
        has_parked.then_some(SWEEP_PAUSE)
    }

    /// Accepts connections until the listener fails for good; each runs as a task of its own,
    /// dropped with what this returns. Those that read a backlog are served in the runtime for
    /// that, if there is one.
    pub async fn accept(self: Arc<Self>, mut listener: Box<dyn Listener>, backlog: Option<Handle>) {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok(stream) => {
                    let door = Arc::clone(&self);
                    let serve = |lane| door.serve(stream, lane);
                    connections.spawn(lane::run(backlog.clone(), serve));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: others will close theirs.
                    let address = listener.local_addr();
                    tracing::warn!(%error, %address, "cannot accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Serves one connection to its end.
    async fn serve(self: Arc<Self>, stream: Box<dyn Stream>, lane: Arc<Lane>) {
        let connection = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let outbox = Outbox::new(&self.admission);
        let (local, addr) = (stream.local_addr(), stream.peer_addr());
        let peer = Arc::new(Peer::new(connection, local, addr, outbox));
        let mut session = ServerSession::new(Arc::clone(&self), Arc::clone(&peer));
        // Dropping the task, as a stop does, must leave the groups as well.
        let leave = Leave { door: &self, peer: &peer };
        let (outbox, admission) = (&peer.outbox, &self.admission);
        let closed = pump(stream, &mut session, outbox, admission, &lane, self.idle).await;
        drop(leave);
        match closed {
            Closed::ByPeer | Closed::ByUs => {}
            reason @ (Closed::Frame(_) | Closed::Protocol(_) | Closed::TooSlow(_)) => {
                let line = || tracing::warn!(peer = %peer.addr, %reason, "connection cut off");
                self.complaints.tell(line);
            }
            reason => tracing::debug!(peer = %peer.addr, %reason, "connection closed"),
        }
    }
}

struct Leave<'a> {
    door: &'a Door,
    peer: &'a Peer,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.peer.outbox.close();
        self.peer.abandon_calls();
        if let Some(broker) = &self.door.broker {
            broker.clients.closed(self.peer.connection);
            broker.waiters.forget(self.peer.connection);
        }
        if let Some(names) = &self.door.names {
            names.connection_closed(self.peer.connection);
        }
    }
}

impl Peer {
    #[must_use]
    pub fn new(
        connection: ConnectionId,
        local: SocketAddr,
        addr: SocketAddr,
        outbox: Outbox,
    ) -> Self {
        let address = addr.to_string().into();
        let (next_opaque, calls) = (AtomicI32::new(0), Mutex::default());
        Self { connection, local, addr, address, outbox, next_opaque, calls }
    }

    /// Sends the peer a request; `waiting` is told of its answer.
    fn call<R: Request>(self: &Arc<Self>, request: &R::At<'_>, body: &[u8], waiting: Waiting) {
        let opaque = self.next_opaque.fetch_add(1, Ordering::Relaxed);
        let (encoding, code) = (HeaderEncoding::Json, R::INFO.code);
        let head = RequestHead { encoding, code, opaque, oneway: false };
        {
            let mut calls = self.calls.lock();
            if CALLS_MAX <= calls.len() {
                drop(calls);
                return waiting(None);
            }
            calls.insert(opaque, waiting);
        }
        let body = |output: &mut Output| output.bytes.extend_from_slice(body);
        if !self.outbox.put(|output| head.write(output, |put| request.encode(put), body)) {
            return self.answered(opaque, None);
        }
        let peer = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(ANSWER_TIME).await;
            if let Some(peer) = peer.upgrade() {
                peer.answered(opaque, None);
            }
        });
    }

    /// The peer has answered a request of ours, or will not.
    pub(super) fn answered(&self, opaque: i32, answer: Option<Answered<'_>>) {
        let waiting = self.calls.lock().remove(&opaque);
        if let Some(waiting) = waiting {
            waiting(answer);
        }
    }

    /// The connection is closed: nothing will be answered any more.
    fn abandon_calls(&self) {
        let calls = std::mem::take(&mut *self.calls.lock());
        calls.into_values().for_each(|waiting| waiting(None));
    }

    /// Sends the peer a request that it does not answer.
    pub fn send_oneway<R: Request>(&self, request: &R::At<'_>) {
        let head = RequestHead {
            encoding: HeaderEncoding::Json,
            code: R::INFO.code,
            opaque: self.next_opaque.fetch_add(1, Ordering::Relaxed),
            oneway: true,
        };
        self.outbox.put(|output| head.write(output, |put| request.encode(put), |_| {}));
    }
}

/// The way from the core to a client behind a connection.
pub struct PeerOutlet(pub Arc<Peer>);

impl Outlet for PeerOutlet {
    fn notify(&self, notice: Notice) {
        match notice {
            Notice::GroupChanged { group } => {
                let request =
                    requests::NotifyConsumerIdsChanged { consumer_group: group.to_string() };
                self.0.send_oneway::<requests::NotifyConsumerIdsChanged>(&request);
            }
        }
    }

    fn push_reply(&self, reply: Reply, done: Box<dyn FnOnce(bool) + Send>) {
        let request = PushReplyMessage {
            producer_group: reply.producer_group,
            topic: reply.topic,
            default_topic: names::AUTO_CREATE_TOPIC.to_owned(),
            default_topic_queue_count: 0,
            queue_id: reply.queue_id,
            sys_flag: reply.sys_flag,
            born_ms: reply.born_ms,
            flag: reply.flag,
            properties: Some(String::from_utf8_lossy(&reply.properties).into_owned()),
            reconsume_times: Some(reply.reconsume_times),
            unit_mode: false,
            born_host: reply.born_host.to_string(),
            store_host: reply.store_host.to_string(),
            store_ms: reply.stored_ms,
        };
        let is_success = |it: Answered<'_>| it.code == ResponseCode::SUCCESS;
        let waiting =
            Box::new(move |answer: Option<Answered<'_>>| done(answer.is_some_and(is_success)));
        self.0.call::<PushReplyMessage>(&request, &reply.body, waiting);
    }

    fn ask_running_info(&self, client_id: &str, group: &str, has_stacks: bool, done: Hear) {
        let request = GetConsumerRunningInfo {
            consumer_group: group.to_owned(),
            client_id: client_id.to_owned(),
            jstack_enable: has_stacks,
        };
        let waiting = Box::new(move |answer: Option<Answered<'_>>| {
            done(match answer {
                Some(it) if it.code == ResponseCode::SUCCESS => Heard::Answer(it.body.to_vec()),
                Some(it) => {
                    Heard::Refusal(it.remark.map(|it| it.to_cow().into_owned()).unwrap_or_default())
                }
                None => Heard::Nothing,
            });
        });
        self.0.call::<GetConsumerRunningInfo>(&request, &[], waiting);
    }

    fn close(&self) {
        self.0.outbox.close();
    }
}
