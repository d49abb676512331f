//! The name server's table: which broker has which topics, and which brokers are alive.
//! Rules: spec `broker.md` 9.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apogee_types::Millis;
use apogee_types::config::{DataVersion, Perm, TopicConfig};
use apogee_types::route::{BrokerData, ClusterInfo, QueueData, TopicRouteData};

use crate::Map;

/// A connection of a broker to the name server.
pub type ChannelId = u64;

/// Upstream's default: a broker that said nothing for so long is gone.
const EXPIRY_MS: Millis = 120_000;

/// What a broker says of itself.
#[derive(Debug, Clone)]
pub struct Registration {
    pub cluster: Arc<str>,
    pub broker_name: Arc<str>,
    /// 0 is the master.
    pub broker_id: i64,
    pub addr: Arc<str>,
    pub ha_addr: Arc<str>,
    pub version: DataVersion,
    /// `None`: as before.
    pub topics: Option<BTreeMap<Arc<str>, Arc<TopicConfig>>>,
    /// How long it may be silent; `None` for the default.
    pub timeout_ms: Option<Millis>,
    pub enable_acting_master: bool,
    pub zone_name: Option<Arc<str>>,
    pub channel: ChannelId,
}

/// What a slave is told of its master.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Registered {
    pub master_addr: Option<Arc<str>>,
    pub ha_addr: Option<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error("No topic route info in name server for the topic: {topic}")]
    NoRoute { topic: String },
    #[error("register broker failed: the first registration of a broker must hold all its topics")]
    Incomplete,
}

/// Live brokers, and the queues of topics.
///
/// Every broker name of `topics` is in `brokers`; every address of `brokers` is in `live`.
#[derive(Default)]
pub struct Routes {
    topics: Map<Arc<str>, BTreeMap<Arc<str>, QueueData>>,
    brokers: BTreeMap<Arc<str>, BrokerData>,
    live: BTreeMap<Arc<str>, Live>,
}

struct Live {
    broker_name: Arc<str>,
    broker_id: i64,
    heard_at: Millis,
    timeout_ms: Millis,
    version: DataVersion,
    ha_addr: Arc<str>,
    channel: ChannelId,
    /// Of its last registration, while all the topics of that are here.
    digest: Option<u64>,
}

impl Routes {
    /// Takes over what a broker says of itself.
    pub fn register(&mut self, new: Registration, now: Millis) -> Result<Registered, RouteError> {
        self.drop_other_id(&new);
        if let Some(holder) = self.holder(&new)
            && new.version.state_version < self.live[&holder].version.state_version
        {
            // A replaced master speaks late: its successor's entry stays.
            return Ok(Registered::default());
        }
        // Also when a slave comes back as the master: its topics were those of a slave.
        let is_first = self.is_new_id(&new);
        let topic_count = new.topics.as_ref().map(BTreeMap::len);
        if is_first && topic_count == Some(1) {
            return Err(RouteError::Incomplete);
        }
        let live = self.live.get(&new.addr);
        let is_changed = is_first || live.is_none_or(|live| live.version != new.version);
        self.put_broker(&new);
        if let Some(topics) = &new.topics
            && self.speaks_for_set(&new)
        {
            self.put_topics(&new, topics, is_changed);
        }
        let registered = self.master_of(&new.broker_name, new.broker_id);
        self.live.insert(
            Arc::clone(&new.addr),
            Live {
                broker_name: new.broker_name,
                broker_id: new.broker_id,
                heard_at: now,
                timeout_ms: new.timeout_ms.unwrap_or(EXPIRY_MS),
                version: new.version,
                ha_addr: new.ha_addr,
                channel: new.channel,
                digest: None,
            },
        );
        Ok(registered)
    }

    /// The broker at `addr` registers once more with what [`remember`](Self::remember) was told of:
    /// nothing needs to be read. `None`: [`register`](Self::register) it.
    pub fn renew(
        &mut self,
        addr: &str,
        digest: u64,
        channel: ChannelId,
        now: Millis,
    ) -> Option<Registered> {
        let live = self.live.get_mut(addr).filter(|live| live.digest == Some(digest))?;
        live.heard_at = now;
        live.channel = channel;
        let (broker_name, broker_id) = (Arc::clone(&live.broker_name), live.broker_id);
        Some(self.master_of(&broker_name, broker_id))
    }

    /// Everything that the broker at `addr` sent to register, fields and body, had this digest.
    pub fn remember(&mut self, addr: &str, digest: u64) {
        if let Some(live) = self.live.get_mut(addr) {
            live.digest = Some(digest);
        }
    }

    /// The version that the broker at `addr` registered last; refreshes it. From now on it speaks
    /// over `channel`: the end of the one before is not its end.
    pub fn touch(&mut self, addr: &str, channel: ChannelId, now: Millis) -> Option<DataVersion> {
        let live = self.live.get_mut(addr)?;
        live.heard_at = now;
        live.channel = channel;
        Some(live.version)
    }

    /// The broker leaves.
    pub fn unregister(&mut self, addr: &str) {
        let Some(live) = self.live.remove(addr) else { return };
        self.forget_digests();
        let Some(broker) = self.brokers.get_mut(&live.broker_name) else { return };
        broker.broker_addrs.retain(|_, it| **it != *addr);
        if broker.broker_addrs.is_empty() {
            self.brokers.remove(&live.broker_name);
            self.topics.retain(|_, queues| {
                queues.remove(&live.broker_name);
                !queues.is_empty()
            });
        } else if broker.enable_acting_master && broker.master().is_none() {
            self.change_perm(&live.broker_name, |perm| perm.without(Perm::WRITE));
        }
    }

    /// A connection closed: the brokers leave that spoke over it last.
    pub fn channel_closed(&mut self, channel: ChannelId) -> Vec<Arc<str>> {
        self.remove_where(|live| live.channel == channel)
    }

    /// Brokers that were silent for too long leave.
    pub fn expire(&mut self, now: Millis) -> Vec<Arc<str>> {
        self.remove_where(|live| live.heard_at.saturating_add(live.timeout_ms) < now)
    }

    /// Who serves the topic.
    pub fn route(&self, topic: &str) -> Result<TopicRouteData, RouteError> {
        let no_route = || RouteError::NoRoute { topic: topic.to_owned() };
        let queues = self.topics.get(topic).filter(|it| !it.is_empty()).ok_or_else(no_route)?;
        let brokers = queues.keys().filter_map(|name| self.brokers.get(name));
        Ok(TopicRouteData {
            broker_datas: brokers.cloned().collect(),
            queue_datas: queues.values().cloned().collect(),
            ..TopicRouteData::default()
        })
    }

    /// All brokers.
    #[must_use]
    pub fn cluster_info(&self) -> ClusterInfo {
        let mut info =
            ClusterInfo { broker_addr_table: self.brokers.clone(), ..Default::default() };
        for (name, broker) in &self.brokers {
            let names = info.cluster_addr_table.entry(Arc::clone(&broker.cluster)).or_default();
            names.push(Arc::clone(name));
        }
        info
    }

    #[must_use]
    pub fn broker(&self, name: &str) -> Option<&BrokerData> {
        self.brokers.get(name)
    }

    /// All topics, by name.
    #[must_use]
    pub fn topics(&self) -> Vec<Arc<str>> {
        let topics: BTreeSet<_> = self.topics.keys().cloned().collect();
        topics.into_iter().collect()
    }

    /// The topics that brokers of a cluster have.
    #[must_use]
    pub fn topics_of_cluster(&self, cluster: &str) -> Vec<Arc<str>> {
        let is_member = |name: &Arc<str>| {
            self.brokers.get(name).is_some_and(|broker| *broker.cluster == *cluster)
        };
        let topics = self.topics.iter().filter(|(_, queues)| queues.keys().any(is_member));
        let topics: BTreeSet<_> = topics.map(|(topic, _)| Arc::clone(topic)).collect();
        topics.into_iter().collect()
    }

    /// Topics of units, a commercial feature, by `topicSysFlag` of the first broker of each.
    #[must_use]
    pub fn topics_by_flag(&self, is_wanted: impl Fn(i32) -> bool) -> Vec<Arc<str>> {
        let first = |queues: &BTreeMap<Arc<str>, QueueData>| {
            queues.values().next().is_some_and(|queue| is_wanted(queue.topic_sys_flag))
        };
        let topics = self.topics.iter().filter(|(_, queues)| first(queues));
        let topics: BTreeSet<_> = topics.map(|(topic, _)| Arc::clone(topic)).collect();
        topics.into_iter().collect()
    }

    /// Takes the right to be written from all topics of a broker; how many had it.
    pub fn wipe_write_perm(&mut self, broker: &str) -> usize {
        self.change_perm(broker, |perm| perm.without(Perm::WRITE))
    }

    /// Gives it back.
    pub fn add_write_perm(&mut self, broker: &str) -> usize {
        self.change_perm(broker, |_| Perm::READ_WRITE)
    }

    /// Forgets a topic, or only its queues on brokers of `cluster`.
    pub fn delete_topic(&mut self, topic: &str, cluster: Option<&str>) {
        self.forget_digests();
        let Some(queues) = self.topics.get_mut(topic) else { return };
        if let Some(cluster) = cluster {
            let brokers = &self.brokers;
            queues.retain(|name, _| brokers.get(name).is_none_or(|it| *it.cluster != *cluster));
            if !queues.is_empty() {
                return;
            }
        }
        self.topics.remove(topic);
    }

    /// Sets the queues of one topic, if all the brokers are known.
    pub fn put_topic(&mut self, topic: &str, queues: Vec<QueueData>) {
        let is_known = queues.iter().all(|it| self.brokers.contains_key(&it.broker_name));
        if is_known && !queues.is_empty() {
            let table = self.topics.entry(topic.into()).or_default();
            table.extend(queues.into_iter().map(|it| (Arc::clone(&it.broker_name), it)));
        }
    }

    /// The same address came back under another id: a slave that is the master now.
    fn drop_other_id(&mut self, new: &Registration) {
        if let Some(broker) = self.brokers.get_mut(&new.broker_name) {
            broker.broker_addrs.retain(|id, addr| *id == new.broker_id || **addr != *new.addr);
        }
    }

    fn is_new_id(&self, new: &Registration) -> bool {
        let broker = self.brokers.get(&new.broker_name);
        broker.is_none_or(|broker| !broker.broker_addrs.contains_key(&new.broker_id))
    }

    /// Who holds the id that `new` wants, if it is another address that is alive.
    fn holder(&self, new: &Registration) -> Option<Arc<str>> {
        let held = self.brokers.get(&new.broker_name)?.broker_addrs.get(&new.broker_id)?;
        (**held != *new.addr && self.live.contains_key(held)).then(|| Arc::clone(held))
    }

    fn put_broker(&mut self, new: &Registration) {
        let broker = self.brokers.entry(Arc::clone(&new.broker_name)).or_default();
        broker.broker_name = Arc::clone(&new.broker_name);
        broker.cluster = Arc::clone(&new.cluster);
        broker.enable_acting_master = new.enable_acting_master;
        broker.zone_name.clone_from(&new.zone_name);
        let replaced = broker.broker_addrs.insert(new.broker_id, Arc::clone(&new.addr));
        if let Some(replaced) = replaced.filter(|it| **it != *new.addr) {
            self.live.remove(&replaced);
        }
    }

    /// Topics are taken from the master, or from the first of a set that has none.
    fn speaks_for_set(&self, new: &Registration) -> bool {
        let broker = &self.brokers[&new.broker_name];
        let first = broker.broker_addrs.keys().next();
        new.broker_id == BrokerData::MASTER_ID
            || (new.enable_acting_master && first == Some(&new.broker_id))
    }

    fn put_topics(
        &mut self,
        new: &Registration,
        topics: &BTreeMap<Arc<str>, Arc<TopicConfig>>,
        is_changed: bool,
    ) {
        let is_acting = new.broker_id != BrokerData::MASTER_ID;
        for (name, topic) in topics {
            let queues = self.topics.entry(Arc::clone(name)).or_default();
            if !is_changed && queues.contains_key(&new.broker_name) {
                continue;
            }
            let perm = if is_acting { topic.perm.without(Perm::WRITE) } else { topic.perm };
            let data = QueueData {
                broker_name: Arc::clone(&new.broker_name),
                perm,
                read_queue_count: topic.read_queue_count,
                topic_sys_flag: topic.topic_sys_flag,
                write_queue_count: topic.write_queue_count,
            };
            queues.insert(Arc::clone(&new.broker_name), data);
        }
    }

    fn master_of(&self, broker_name: &str, broker_id: i64) -> Registered {
        if broker_id == BrokerData::MASTER_ID {
            return Registered::default();
        }
        let master_addr = self.brokers.get(broker_name).and_then(BrokerData::master).cloned();
        let live = master_addr.as_ref().and_then(|addr| self.live.get(addr));
        let ha_addr = live.map(|live| Arc::clone(&live.ha_addr));
        Registered { master_addr: master_addr.filter(|_| ha_addr.is_some()), ha_addr }
    }

    /// Not all of what brokers registered is here any more: they must be read again.
    fn forget_digests(&mut self) {
        self.live.values_mut().for_each(|live| live.digest = None);
    }

    fn change_perm(&mut self, broker: &str, change: impl Fn(Perm) -> Perm) -> usize {
        let queues = self.topics.values_mut().filter_map(|queues| queues.get_mut(broker));
        queues.map(|queue| queue.perm = change(queue.perm)).count()
    }

    fn remove_where(&mut self, is_gone: impl Fn(&Live) -> bool) -> Vec<Arc<str>> {
        let gone = self.live.iter().filter(|(_, live)| is_gone(live));
        let gone: Vec<_> = gone.map(|(addr, _)| Arc::clone(addr)).collect();
        gone.iter().for_each(|addr| self.unregister(addr));
        gone
    }

    /// Ids and addresses that are alive, for the logs.
    pub fn live(&self) -> impl Iterator<Item = (&str, i64)> {
        self.live.values().map(|live| (&*live.broker_name, live.broker_id))
    }
}

/// Shows a set without a master, whose topics nobody may write, with its smallest id as master.
/// For name servers with `supportActingMaster`.
pub fn show_acting_masters(route: &mut TopicRouteData) {
    for broker in &mut route.broker_datas {
        let mut queues = route.queue_datas.iter();
        let queue = queues.find(|queue| queue.broker_name == broker.broker_name);
        let is_writable = queue.is_some_and(|queue| queue.perm.has(Perm::WRITE));
        if broker.enable_acting_master
            && broker.master().is_none()
            && !is_writable
            && let Some((_, addr)) = broker.broker_addrs.pop_first()
        {
            broker.broker_addrs.insert(BrokerData::MASTER_ID, addr);
        }
    }
}

/// Leaves a client the brokers of its own zone. Those that have lost their master stay: their
/// slaves may be all that can still be read.
pub fn keep_zone(route: &mut TopicRouteData, zone: &str) {
    route.broker_datas.retain(|broker| {
        let own = broker.zone_name.as_deref().is_some_and(|it| it.eq_ignore_ascii_case(zone));
        own || broker.master().is_none()
    });
    let kept = &route.broker_datas;
    route.queue_datas.retain(|queue| kept.iter().any(|it| it.broker_name == queue.broker_name));
}

#[cfg(test)]
mod tests;
