//! Finds name servers and brokers, and calls them. Knows nothing of producers and consumers.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use apogee_net::{Tcp, Transport};
use apogee_types::limits::ROUTE_QUEUES_MAX;
use apogee_types::names::AUTO_CREATE_TOPIC;
use apogee_types::route::TopicRouteData;
use apogee_types::{Clock, Millis, SystemClock};
use apogee_wire::remoting::bodies::HeartbeatData;
use apogee_wire::remoting::requests::{GetRouteInfoByTopic, HeartBeat};
use apogee_wire::remoting::{Request, ResponseCode};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

use crate::connection::{Answer, Connections, Deadline, RequestFrame};
use crate::error::Error;
use crate::link::Link;
use crate::notices::{Listener, Listeners};
use crate::routes::{Route, Routes, stated_queues};
use crate::unique_key::UniqueKeys;

/// Upstream's `mqClientApiTimeout`.
pub(crate) const CALL_TIME: Duration = Duration::from_secs(3);
/// Upstream's `pollNameServerInterval`.
const ROUTE_PERIOD: Duration = Duration::from_secs(30);
/// Between two rounds for doubted routes: many sends that fail are no reason to ask more often.
const DOUBT_PAUSE: Duration = Duration::from_millis(200);
/// Upstream's `defaultTopicQueueNums`: what a topic gets that its first message creates.
pub(crate) const DEFAULT_QUEUE_COUNT: i32 = 4;

/// What a client is made of.
pub struct Options {
    /// Name servers, each `host:port`.
    pub name_servers: Vec<String>,
    pub transport: Arc<dyn Transport>,
    pub clock: Arc<dyn Clock>,
    /// For every choice at random.
    pub seed: u64,
    /// How brokers tell clients apart; by default made of address, process id and chance.
    pub client_id: Option<String>,
}

impl Options {
    /// Over TCP, with the system's clock and chance. Name servers are separated by `;`.
    #[must_use]
    pub fn new(name_servers: &str) -> Self {
        let addrs = name_servers.split(';').map(str::trim).filter(|addr| !addr.is_empty());
        Self {
            name_servers: addrs.map(str::to_owned).collect(),
            transport: Arc::new(Tcp::default()),
            clock: Arc::new(SystemClock),
            seed: fastrand::Rng::new().u64(..),
            client_id: None,
        }
    }
}

/// Connections to name servers and brokers, and the routes. Cheap to clone; all clones share one
/// connection per address. Must be made within a tokio runtime.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    name_servers: Vec<String>,
    /// The name server that answered last.
    name_server: AtomicUsize,
    connections: Connections,
    next_opaque: AtomicI32,
    listeners: Arc<Listeners>,
    routes: Routes,
    doubts: Arc<Doubts>,
    clock: Arc<dyn Clock>,
    chance: Mutex<fastrand::Rng>,
    id: OnceLock<Arc<str>>,
    unique_keys: OnceLock<UniqueKeys>,
    /// Groups of which this client is a member.
    groups: Mutex<BTreeSet<String>>,
    /// Keeps the routes fresh; ends with the last clone.
    refresher: OnceLock<JoinHandle<()>>,
}

/// Topics whose route is wanted anew before its time.
#[derive(Default)]
struct Doubts {
    topics: Mutex<BTreeSet<Arc<str>>>,
    raised: Notify,
    /// A topic was taken out.
    settled: Notify,
}

impl Client {
    #[must_use]
    pub fn new(options: Options) -> Self {
        let mut chance = fastrand::Rng::with_seed(options.seed);
        let listeners = Arc::<Listeners>::default();
        let id = OnceLock::new();
        if let Some(given) = options.client_id {
            let _ = id.set(given.into());
        }
        let first = chance.usize(..options.name_servers.len().max(1));
        let shared = Arc::new(Shared {
            name_server: AtomicUsize::new(first),
            name_servers: options.name_servers,
            connections: Connections::new(options.transport, Arc::clone(&listeners)),
            next_opaque: AtomicI32::new(1),
            listeners,
            routes: Routes::default(),
            doubts: Arc::default(),
            clock: options.clock,
            chance: Mutex::new(chance),
            id,
            unique_keys: OnceLock::new(),
            groups: Mutex::default(),
            refresher: OnceLock::new(),
        });
        let doubts = Arc::clone(&shared.doubts);
        let refresher = tokio::spawn(refresh_often(Arc::downgrade(&shared), doubts));
        let _ = shared.refresher.set(refresher);
        Self { shared }
    }

    /// Calls a peer; an answer of another code than 0 is an error.
    pub fn call<'c, R: Request>(
        &'c self,
        addr: &'c str,
        request: &R::At<'_>,
        body: Bytes,
    ) -> impl Future<Output = Result<Answer<R>, Error>> + Send + use<'c, R> {
        let answered = self.call_within::<R>(addr, request, body, CALL_TIME);
        async move { answered.await?.success() }
    }

    /// Calls a peer; an answer of any code comes back.
    pub fn call_within<'c, R: Request>(
        &'c self,
        addr: &'c str,
        request: &R::At<'_>,
        body: Bytes,
        within: Duration,
    ) -> impl Future<Output = Result<Answer<R>, Error>> + Send + use<'c, R> {
        self.call_until::<R>(addr, request, body, Deadline::within(within))
    }

    /// As [`Self::call_within`].
    pub(crate) fn call_until<'c, R: Request>(
        &'c self,
        addr: &'c str,
        request: &R::At<'_>,
        body: Bytes,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Answer<R>, Error>> + Send + use<'c, R> {
        let frame = self.frame::<R>(request, body, false);
        async move { self.send(addr, &frame, deadline).await }
    }

    /// Sends a request that no one answers.
    pub fn oneway<'c, R: Request>(
        &'c self,
        addr: &'c str,
        request: &R::At<'_>,
        body: Bytes,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<'c, R> {
        let frame = self.frame::<R>(request, body, true);
        async move {
            let deadline = Deadline::within(CALL_TIME);
            self.shared.connections.get(addr, deadline).await?.oneway(&frame, deadline).await
        }
    }

    /// Calls the name servers one after the other, from the last good one on, until one answers.
    /// An answer of any code comes back.
    pub fn call_name_server<'c, R: Request>(
        &'c self,
        request: &R::At<'_>,
        body: Bytes,
    ) -> impl Future<Output = Result<Answer<R>, Error>> + Send + use<'c, R> {
        let frame = self.frame::<R>(request, body, false);
        async move { self.send_to_name_server(&frame, self.name_server_deadline()).await }
    }

    /// Each name server has its time.
    fn name_server_deadline(&self) -> Deadline {
        Deadline::within(CALL_TIME * self.shared.name_servers.len() as u32)
    }

    /// The connection to a peer: the open one, else a new one.
    pub async fn link(&self, addr: &str) -> Result<Link, Error> {
        let connection = self.shared.connections.get(addr, Deadline::within(CALL_TIME)).await?;
        Ok(Link { client: self.clone(), connection })
    }

    pub(crate) fn frame<R: Request>(
        &self,
        request: &R::At<'_>,
        body: Bytes,
        oneway: bool,
    ) -> RequestFrame<R> {
        RequestFrame::new(request, body, self.next_opaque(), oneway)
    }

    pub(crate) fn next_opaque(&self) -> i32 {
        self.shared.next_opaque.fetch_add(1, Ordering::Relaxed)
    }

    async fn send<R: Request>(
        &self,
        addr: &str,
        frame: &RequestFrame<R>,
        deadline: Deadline,
    ) -> Result<Answer<R>, Error> {
        self.shared.connections.get(addr, deadline).await?.call(frame, deadline).await
    }

    async fn send_to_name_server<R: Request>(
        &self,
        frame: &RequestFrame<R>,
        deadline: Deadline,
    ) -> Result<Answer<R>, Error> {
        let Shared { name_servers, name_server, .. } = &*self.shared;
        let (first, count) = (name_server.load(Ordering::Relaxed), name_servers.len());
        let mut failure = Error::NoNameServer;
        for tried in 0..count {
            let at = (first + tried) % count;
            let addr = &name_servers[at];
            // Each has its part, so that one that is silent leaves some for the next.
            let within = (deadline.left() / (count - tried) as u32).min(CALL_TIME);
            match self.send(addr, frame, Deadline::within(within)).await {
                Ok(answer) => {
                    name_server.store(at, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) if error.is_transport() => {
                    tracing::debug!(%addr, %error, "name server failed");
                    failure = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }

    #[must_use]
    pub fn name_servers(&self) -> &[String] {
        &self.shared.name_servers
    }

    /// The route of a topic: the known one, else that of a name server.
    pub async fn route(&self, topic: &str) -> Result<Arc<Route>, Error> {
        match self.shared.routes.get(topic) {
            Some(route) => Ok(route),
            None => self.refresh_route(topic).await,
        }
    }

    /// Asks a name server for the route of a topic.
    pub async fn refresh_route(&self, topic: &str) -> Result<Arc<Route>, Error> {
        self.refresh_route_until(topic, self.name_server_deadline()).await
    }

    async fn refresh_route_until(
        &self,
        topic: &str,
        deadline: Deadline,
    ) -> Result<Arc<Route>, Error> {
        let data = self.fetch_route(topic, deadline).await?;
        let route = Arc::new(Route::new(topic, data));
        self.shared.routes.put(topic, Arc::clone(&route));
        Ok(route)
    }

    /// The route to send to a topic: if it does not exist yet, one to brokers that create it.
    pub(crate) async fn send_route(
        &self,
        topic: &str,
        deadline: Deadline,
    ) -> Result<Arc<Route>, Error> {
        if let Some(route) = self.shared.routes.get(topic) {
            return Ok(route);
        }
        let missing = match self.refresh_route_until(topic, deadline).await {
            Err(error @ Error::NoRoute { .. }) => error,
            found => return found,
        };
        let template = self.fetch_route(AUTO_CREATE_TOPIC, deadline).await;
        let template = template.map_err(|error| match error {
            Error::NoRoute { .. } => missing,
            other => other,
        })?;
        let route =
            Route::new(AUTO_CREATE_TOPIC, template).into_template(topic, DEFAULT_QUEUE_COUNT);
        let route = Arc::new(route);
        self.shared.routes.put(topic, Arc::clone(&route));
        Ok(route)
    }

    /// Has a name server asked for the route of a topic again, soon and in the background.
    pub(crate) fn doubt_route(&self, topic: &str) {
        let doubts = &self.shared.doubts;
        doubts.topics.lock().insert(topic.into());
        doubts.raised.notify_one();
    }

    /// Doubts the route of a topic and waits until a name server was asked, but no longer than
    /// `until`.
    pub(crate) async fn renew_route(&self, topic: &str, until: Instant) {
        self.doubt_route(topic);
        let doubts = &self.shared.doubts;
        let settled = async {
            loop {
                // Made before the look, so that it misses nothing.
                let settled = doubts.settled.notified();
                if !doubts.topics.lock().contains(topic) {
                    break;
                }
                settled.await;
            }
        };
        let _ = timeout_at(until, settled).await;
    }

    /// The address of a broker that some known route names.
    pub fn broker_address(&self, broker: &str, id: i64) -> Result<Arc<str>, Error> {
        let found = self.shared.routes.address(broker, id);
        found.ok_or_else(|| Error::NoBroker { broker: broker.to_owned(), id })
    }

    /// The broker to read from, as id and address: the one with this id, else the master, else
    /// another of this name.
    pub(crate) fn reading_address(&self, broker: &str, id: i64) -> Result<(i64, Arc<str>), Error> {
        let found = self.shared.routes.reading_address(broker, id);
        found.ok_or_else(|| Error::NoBroker { broker: broker.to_owned(), id })
    }

    /// All brokers of the known routes: address by name and id.
    #[must_use]
    pub fn brokers(&self) -> BTreeMap<(Arc<str>, i64), Arc<str>> {
        self.shared.routes.brokers()
    }

    /// How brokers tell this client from others.
    #[must_use]
    pub fn id(&self) -> Arc<str> {
        let make = || {
            let chance = self.shared.chance.lock().u32(..);
            format!("{}@{}#{chance:08x}", self.local_ip(), std::process::id()).into()
        };
        Arc::clone(self.shared.id.get_or_init(make))
    }

    /// Closes every connection; calls that are under way fail.
    pub async fn close(&self) {
        if let Some(refresher) = self.shared.refresher.get() {
            refresher.abort();
        }
        self.shared.connections.close().await;
    }

    pub(crate) fn now_ms(&self) -> Millis {
        self.shared.clock.now_ms()
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn chance(&self, end: usize) -> usize {
        self.shared.chance.lock().usize(..end)
    }

    pub(crate) fn unique_key(&self) -> String {
        let make = || {
            let chance = self.shared.chance.lock().u32(..);
            UniqueKeys::new(self.local_ip(), std::process::id(), chance)
        };
        self.shared.unique_keys.get_or_init(make).next(self.now_ms())
    }

    /// Makes the client a member of a group, of which it can be one only: brokers tell members
    /// apart by the client's id.
    pub(crate) fn join(&self, group: &str) -> Result<Membership, Error> {
        if !self.shared.groups.lock().insert(group.to_owned()) {
            return Err(Error::Member { group: group.to_owned() });
        }
        Ok(Membership { client: self.clone(), group: group.to_owned() })
    }

    /// Tells `listener` every notice for as long as it lives.
    pub(crate) fn listen(&self, listener: &Arc<Listener>) {
        self.shared.listeners.add(listener);
    }

    /// Tells one broker of our groups.
    pub(crate) async fn heartbeat(&self, addr: &str, data: &HeartbeatData) -> Result<(), Error> {
        let body = apogee_types::json::write(data).into();
        self.call::<HeartBeat>(addr, &HeartBeat {}, body).await.map(|_| ())
    }

    async fn fetch_route(&self, topic: &str, deadline: Deadline) -> Result<TopicRouteData, Error> {
        let request = GetRouteInfoByTopic {
            topic: topic.to_owned(),
            accept_standard_json_only: true,
            zone_mode: false,
            zone_name: None,
        };
        let frame = self.frame::<GetRouteInfoByTopic>(&request, Bytes::new(), false);
        let answer = self.send_to_name_server(&frame, deadline).await?;
        if answer.code == ResponseCode::TOPIC_NOT_EXIST {
            return Err(Error::NoRoute { topic: topic.to_owned() });
        }
        let answer = answer.success()?;
        let route: TopicRouteData = answer.json()?;
        let stated = stated_queues(&route);
        if ROUTE_QUEUES_MAX < stated {
            return Err(answer.malformed(&format!("a route of {stated} queues")));
        }
        Ok(route)
    }

    /// Brings every known route up to date. A topic that is gone is forgotten, if it was `missing`
    /// the last time: a name server that has just been started learns of it only when its brokers
    /// come back. While no name server answers, what is known stays.
    async fn refresh_routes(&self, missing: &mut BTreeSet<Arc<str>>) {
        for topic in self.shared.routes.topics() {
            match self.refresh_route(&topic).await {
                Ok(_) => drop(missing.remove(&topic)),
                Err(Error::NoRoute { .. }) if missing.remove(&topic) => {
                    self.shared.routes.forget(&topic);
                }
                Err(Error::NoRoute { .. }) => drop(missing.insert(topic)),
                // Of this topic only.
                Err(error @ (Error::Refused { .. } | Error::Malformed { .. })) => {
                    tracing::warn!(%topic, %error, "a route is not refreshed");
                }
                Err(error) => {
                    tracing::warn!(%error, "routes are not refreshed");
                    break;
                }
            }
        }
    }

    /// Asks for the routes that are doubted. What no name server tells stays as it is.
    async fn settle_doubts(&self) {
        let Doubts { topics, settled, .. } = &*self.shared.doubts;
        let doubted = topics.lock().clone();
        for topic in doubted {
            let renewed = self.refresh_route(&topic).await;
            topics.lock().remove(&topic);
            if let Err(error) = renewed {
                tracing::debug!(%topic, %error, "a route is not renewed");
                if error.is_transport() {
                    // No better for the others.
                    topics.lock().clear();
                }
            }
            settled.notify_waiters();
        }
    }

    /// Ours as peers see it, once there is a connection.
    fn local_ip(&self) -> IpAddr {
        let addr = self.shared.connections.local_addr();
        addr.map_or(Ipv4Addr::LOCALHOST.into(), |addr| addr.ip())
    }
}

/// Keeps the routes fresh: all of them now and then, doubted ones soon.
async fn refresh_often(client: Weak<Shared>, doubts: Arc<Doubts>) {
    let mut ticks = interval(ROUTE_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut missing = BTreeSet::new();
    loop {
        let is_time = tokio::select! {
            biased;
            _ = ticks.tick() => true,
            () = doubts.raised.notified() => false,
        };
        let Some(shared) = client.upgrade() else { break };
        let client = Client { shared };
        if is_time {
            client.refresh_routes(&mut missing).await;
        } else {
            client.settle_doubts().await;
            drop(client);
            sleep(DOUBT_PAUSE).await;
        }
    }
}

/// That a client is a member of a group; as long as it lives.
pub(crate) struct Membership {
    client: Client,
    group: String,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.client.shared.groups.lock().remove(&self.group);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(refresher) = self.refresher.get() {
            refresher.abort();
        }
    }
}
