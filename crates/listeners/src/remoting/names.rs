//! The name server's state in this process, and how a broker of this process registers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use apogee_broker::Broker;
use apogee_control::kv::ORDER_TOPIC_CONFIG;
use apogee_control::routes::{keep_zone, show_acting_masters};
use apogee_control::{ChannelId, KvConfig, Registration, RouteError, Routes};
use apogee_store::Disk;
use apogee_types::config::{Perm, TopicConfig};
use apogee_types::route::{BrokerData, TopicRouteData};
use apogee_types::settings::{AdvertisedAddresses, NamesrvSettings};
use apogee_types::{Clock, Millis, json, names};
use parking_lot::Mutex;

use super::door::Peer;

/// A broker of the same process is never silent.
const FOREVER_MS: i64 = i64::MAX / 4;
/// The channel of a broker in the same process: no connection has it.
const OWN_CHANNEL: ChannelId = 0;
/// What stands for all that it registered.
const OWN_DIGEST: u64 = 0;
/// For how long nobody looks whether that is still there: two brokers of one name are not to take
/// it from each other all the time.
const TAKE_BACK_PAUSE_MS: Millis = 5000;

/// From this release on (4.5.1) clients no longer derive a second port from a broker's address.
const VERSION_ONE_PORT: i32 = 315;

pub struct NameServer {
    pub settings: NamesrvSettings,
    pub clock: Arc<dyn Clock>,
    started_ms: Millis,
    disk: Arc<dyn Disk>,
    routes: Mutex<Routes>,
    kv: Mutex<KvConfig>,
    own: Option<OwnBroker>,
    /// When all that it has was registered last.
    own_registered_ms: AtomicI64,
}

/// The broker of this process.
#[derive(Debug, Clone)]
pub struct OwnBroker {
    /// Where it is registered.
    pub addr: Arc<str>,
    pub ha_addr: Arc<str>,
    pub listen_port: u16,
    /// What clients are told that came a certain way.
    pub advertised: AdvertisedAddresses,
    /// `brokerIP1` is set: every other client is told that address.
    pub is_fixed: bool,
}

impl NameServer {
    /// Reads the key-value configuration; one that cannot be read is an error.
    pub fn open(
        settings: NamesrvSettings,
        clock: Arc<dyn Clock>,
        disk: Arc<dyn Disk>,
        own: Option<OwnBroker>,
    ) -> Result<Self, String> {
        let path = settings.kv_config_path.clone();
        let failed = |error: String| format!("{path}: {error}");
        let kv = match disk.read(path.as_ref()).map_err(|it| failed(it.to_string()))? {
            Some(text) => json::read(&text).map_err(|it| failed(it.to_string()))?,
            None => KvConfig::default(),
        };
        let (routes, kv) = (Mutex::default(), Mutex::new(kv));
        let (started_ms, own_registered_ms) = (clock.now_ms(), AtomicI64::default());
        Ok(Self { settings, clock, started_ms, disk, routes, kv, own, own_registered_ms })
    }

    /// Looks at or changes the route table; not to be held over I/O.
    pub fn with_routes<T>(&self, use_routes: impl FnOnce(&mut Routes) -> T) -> T {
        use_routes(&mut self.routes.lock())
    }

    pub fn with_kv<T>(&self, look: impl FnOnce(&KvConfig) -> T) -> T {
        look(&self.kv.lock())
    }

    /// Changes the key-value configuration; the file is written before it counts.
    pub fn change_kv(&self, change: impl FnOnce(&mut KvConfig)) -> Result<(), String> {
        let mut kv = self.kv.lock();
        let mut changed = kv.clone();
        change(&mut changed);
        let path = &self.settings.kv_config_path;
        let written = self.disk.replace(path.as_ref(), &json::write_standard(&changed));
        written.map_err(|error| format!("{path}: {error}"))?;
        *kv = changed;
        Ok(())
    }

    /// The broker of this process says what it has: what changed, or all if that is not here.
    pub fn register_own(&self, broker: &Broker) {
        let Some(own) = &self.own else { return };
        let now = self.clock.now_ms();
        if self.settings.return_order_topic_config_to_broker
            && let Some(ordered) = self.with_kv(|kv| kv.namespace(ORDER_TOPIC_CONFIG).cloned())
        {
            broker.topics.set_ordered(ordered.keys(), now);
        }
        self.with_routes(|routes| {
            let changed = broker.topics.changed_topics();
            let topics = if is_known(own, routes, now) {
                changed
            } else {
                self.own_registered_ms.store(now, Ordering::Relaxed);
                warn_of_namesake(own, broker, routes);
                broker.topics.table().topic_config_table
            };
            let registration = Registration {
                cluster: broker.identity.cluster.as_str().into(),
                broker_name: broker.identity.name.as_str().into(),
                broker_id: broker.identity.id,
                addr: Arc::clone(&own.addr),
                ha_addr: Arc::clone(&own.ha_addr),
                version: broker.topics.version(),
                topics: Some(permitted(topics, broker.permission())),
                timeout_ms: Some(FOREVER_MS),
                enable_acting_master: false,
                zone_name: None,
                channel: OWN_CHANNEL,
            };
            match routes.register(registration, now) {
                Ok(_) => routes.remember(&own.addr, OWN_DIGEST),
                Err(error) => tracing::error!(%error, "our own broker was not registered"),
            }
        });
    }

    /// Whether the broker of this process is to register again: another one took its name, or
    /// someone removed it or one of its topics.
    pub fn has_forgotten_own(&self) -> bool {
        let now = self.clock.now_ms();
        let since_ms = now - self.own_registered_ms.load(Ordering::Relaxed);
        let is_lost = |own| !self.with_routes(|routes| is_known(own, routes, now));
        // A clock may have been set back.
        TAKE_BACK_PAUSE_MS <= since_ms.abs() && self.own.as_ref().is_some_and(is_lost)
    }

    pub fn connection_closed(&self, connection: ChannelId) {
        for addr in self.with_routes(|routes| routes.channel_closed(connection)) {
            tracing::warn!(broker = &*addr, "its connection closed: the broker is unregistered");
        }
    }

    /// To be called every few seconds.
    pub fn expire_step(&self) {
        let now = self.clock.now_ms();
        for addr in self.with_routes(|routes| routes.expire(now)) {
            tracing::warn!(broker = &*addr, "it was silent for too long and is unregistered");
        }
    }

    /// With `needWaitForService`, clients are not served before brokers had time to register.
    pub fn is_ready(&self) -> bool {
        let wait_ms = self.settings.wait_seconds_for_service.saturating_mul(1000);
        let uptime_ms = self.clock.now_ms() - self.started_ms;
        !self.settings.need_wait_for_service || wait_ms <= uptime_ms.max(0) as u64
    }

    /// The route as this peer can use it; with `zone`, without brokers of other zones.
    pub fn route_for(
        &self,
        topic: &str,
        zone: Option<&str>,
        peer: &Peer,
        version: i32,
    ) -> Result<TopicRouteData, RouteError> {
        let mut route = self.with_routes(|routes| routes.route(topic))?;
        // With that topic a set finds its members, whatever they are.
        if self.settings.support_acting_master && !topic.starts_with(names::MEMBERS_PREFIX) {
            show_acting_masters(&mut route);
        }
        if let Some(zone) = zone {
            keep_zone(&mut route, zone);
        }
        route.broker_datas.iter_mut().for_each(|broker| self.show(broker, peer, version));
        if self.settings.order_message_enable {
            let conf = self.with_kv(|kv| kv.find(ORDER_TOPIC_CONFIG, topic).map(Arc::from));
            route.order_topic_conf = conf;
        }
        Ok(route)
    }

    /// Tells the peer where it can dial our own broker.
    pub fn show(&self, broker: &mut BrokerData, peer: &Peer, version: i32) {
        let Some(own) = &self.own else { return };
        let Some(told) = own.told(peer.local, peer.addr.ip(), version) else { return };
        for addr in broker.broker_addrs.values_mut().filter(|addr| **addr == own.addr) {
            *addr = told.as_str().into();
        }
    }
}

/// Whether all that the broker of this process registered is still there.
fn is_known(own: &OwnBroker, routes: &mut Routes, now: Millis) -> bool {
    routes.renew(&own.addr, OWN_DIGEST, OWN_CHANNEL, now).is_some()
}

fn warn_of_namesake(own: &OwnBroker, broker: &Broker, routes: &Routes) {
    let (name, id) = (&*broker.identity.name, broker.identity.id);
    let holder = routes.broker(name).and_then(|set| set.broker_addrs.get(&id));
    if let Some(other) = holder.filter(|holder| **holder != own.addr) {
        tracing::warn!(name, id, other = &**other, "another broker took our name: we take it back");
    }
}

/// The topics as a broker of this `brokerPermission` registers them.
pub(super) fn permitted(
    mut topics: BTreeMap<Arc<str>, Arc<TopicConfig>>,
    permission: Perm,
) -> BTreeMap<Arc<str>, Arc<TopicConfig>> {
    // Else a template could not be inherited from any more.
    if !permission.has(Perm::READ_WRITE) {
        topics.values_mut().for_each(|topic| {
            let topic = Arc::make_mut(topic);
            topic.perm = topic.perm.and(permission);
        });
    }
    topics
}

impl OwnBroker {
    /// What a client is told instead of what is registered: what the operator has set for the way
    /// that it came; else nothing with `brokerIP1`; else the address under which it has just
    /// reached us, because the same port serves both roles. So it works through any forwarded port
    /// or second interface.
    fn told(&self, local: SocketAddr, peer: IpAddr, version: i32) -> Option<String> {
        if let Some(told) = self.advertised.find(local, peer) {
            return Some(told.to_owned());
        }
        let port = if version < VERSION_ONE_PORT { self.listen_port } else { local.port() };
        (!self.is_fixed).then(|| SocketAddr::new(local.ip(), port).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apogee_types::settings::Value;

    #[test]
    fn the_map_wins_over_broker_ip1_and_that_over_the_address_that_was_reached() {
        let mut own = OwnBroker {
            addr: "10.0.0.5:10911".into(),
            ha_addr: "10.0.0.5:10912".into(),
            listen_port: 10911,
            advertised: AdvertisedAddresses::parse("10.0.0.5:9876=h:19876").expect("a map"),
            is_fixed: false,
        };
        let told = |own: &OwnBroker, local: &str, version| {
            let local = local.parse().expect("an address");
            own.told(local, IpAddr::from([10, 1, 1, 1]), version)
        };
        assert_eq!(told(&own, "10.0.0.5:9876", 500).as_deref(), Some("h:19876"));
        assert_eq!(told(&own, "10.0.0.6:9876", 500).as_deref(), Some("10.0.0.6:9876"));
        assert_eq!(told(&own, "10.0.0.6:9876", 300).as_deref(), Some("10.0.0.6:10911"));
        own.is_fixed = true;
        assert_eq!(told(&own, "10.0.0.5:9876", 500).as_deref(), Some("h:19876"));
        assert_eq!(told(&own, "10.0.0.6:9876", 500), None);
    }
}
