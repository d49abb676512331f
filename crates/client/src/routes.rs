//! Who has which queue of a topic.

use std::collections::BTreeMap;
use std::sync::Arc;

use apogee_types::config::Perm;
use apogee_types::route::{BrokerData, MessageQueue, TopicRouteData};
use parking_lot::Mutex;

/// The route of one topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    topic: Arc<str>,
    data: TopicRouteData,
}

impl Route {
    #[must_use]
    pub fn new(topic: &str, data: TopicRouteData) -> Self {
        Self { topic: topic.into(), data }
    }

    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    #[must_use]
    pub fn data(&self) -> &TopicRouteData {
        &self.data
    }

    /// The queues to send to, in order: those with write permission whose master is there.
    /// `order_topic_conf` overrides them.
    #[must_use]
    pub fn write_queues(&self) -> Vec<MessageQueue> {
        if let Some(conf) = self.data.order_topic_conf.as_deref().filter(|conf| !conf.is_empty()) {
            return self.order_queues(conf);
        }
        let queues = self.data.queue_datas.iter().filter(|data| {
            data.perm.has(Perm::WRITE) && self.address(&data.broker_name, 0).is_some()
        });
        self.sorted(queues.map(|data| (&data.broker_name, data.write_queue_count)))
    }

    /// The queues to read, in order.
    #[must_use]
    pub fn read_queues(&self) -> Vec<MessageQueue> {
        let queues = self.data.queue_datas.iter().filter(|data| data.perm.has(Perm::READ));
        self.sorted(queues.map(|data| (&data.broker_name, data.read_queue_count)))
    }

    /// The address of a broker: of the one with this id.
    #[must_use]
    pub fn address(&self, broker: &str, id: i64) -> Option<&Arc<str>> {
        self.broker(broker)?.broker_addrs.get(&id)
    }

    /// The address of a broker: its master, or another if there is none.
    #[must_use]
    pub fn any_address(&self, broker: &str) -> Option<&Arc<str>> {
        self.broker(broker)?.broker_addrs.values().next()
    }

    /// As if this route, of the template topic, were that of `topic`: what its first message
    /// makes of it.
    #[must_use]
    pub(crate) fn into_template(mut self, topic: &str, queue_count: i32) -> Self {
        self.topic = topic.into();
        for data in &mut self.data.queue_datas {
            let count = data.read_queue_count.min(queue_count);
            (data.read_queue_count, data.write_queue_count) = (count, count);
        }
        self
    }

    fn broker(&self, name: &str) -> Option<&BrokerData> {
        self.data.broker_datas.iter().find(|broker| &*broker.broker_name == name)
    }

    fn order_queues(&self, conf: &str) -> Vec<MessageQueue> {
        let brokers: Vec<(Arc<str>, i32)> =
            order_counts(conf).map(|(name, count)| (name.into(), count)).collect();
        self.sorted(brokers.iter().map(|(name, count)| (name, *count)))
    }

    fn sorted<'a>(&self, brokers: impl Iterator<Item = (&'a Arc<str>, i32)>) -> Vec<MessageQueue> {
        let queue = |broker: &Arc<str>, queue_id| MessageQueue {
            broker_name: Arc::clone(broker),
            queue_id,
            topic: Arc::clone(&self.topic),
        };
        let mut queues: Vec<_> = brokers
            .flat_map(|(broker, count)| (0..count).map(move |queue_id| queue(broker, queue_id)))
            .collect();
        queues.sort();
        queues
    }
}

/// Brokers and their counts of queues: `broker-a:4;broker-b:4`.
fn order_counts(conf: &str) -> impl Iterator<Item = (&str, i32)> {
    let parts = conf.split(';').filter_map(|part| part.split_once(':'));
    parts.filter_map(|(name, count)| Some((name, count.parse().ok()?)))
}

/// How many queues a route states, to read and to write.
pub(crate) fn stated_queues(data: &TopicRouteData) -> u64 {
    let of_order = data.order_topic_conf.iter().flat_map(|conf| order_counts(conf));
    let of_order = of_order.map(|(_, count)| count);
    let of_brokers =
        data.queue_datas.iter().flat_map(|it| [it.read_queue_count, it.write_queue_count]);
    of_brokers.chain(of_order).map(|count| count.max(0) as u64).sum()
}

/// The routes that are known, by topic.
#[derive(Default)]
pub(crate) struct Routes {
    table: Mutex<BTreeMap<Arc<str>, Arc<Route>>>,
}

impl Routes {
    pub fn get(&self, topic: &str) -> Option<Arc<Route>> {
        self.table.lock().get(topic).cloned()
    }

    pub fn put(&self, topic: &str, route: Arc<Route>) {
        self.table.lock().insert(topic.into(), route);
    }

    pub fn forget(&self, topic: &str) {
        self.table.lock().remove(topic);
    }

    pub fn topics(&self) -> Vec<Arc<str>> {
        self.table.lock().keys().cloned().collect()
    }

    /// The address of a broker, looked up in all routes.
    pub fn address(&self, broker: &str, id: i64) -> Option<Arc<str>> {
        self.table.lock().values().find_map(|route| route.address(broker, id).cloned())
    }

    /// The id and address of the broker with this id; else of the one with the lowest.
    pub fn reading_address(&self, broker: &str, id: i64) -> Option<(i64, Arc<str>)> {
        if let Some(addr) = self.address(broker, id) {
            return Some((id, addr));
        }
        let table = self.table.lock();
        let mut known = table.values().filter_map(|route| route.broker(broker));
        let (id, addr) = known.find_map(|broker| broker.broker_addrs.first_key_value())?;
        Some((*id, Arc::clone(addr)))
    }

    /// All known brokers: address by name and id.
    pub fn brokers(&self) -> BTreeMap<(Arc<str>, i64), Arc<str>> {
        let table = self.table.lock();
        let brokers = table.values().flat_map(|route| &route.data.broker_datas);
        brokers
            .flat_map(|broker| {
                let name = &broker.broker_name;
                broker.broker_addrs.iter().map(|(id, addr)| ((name.clone(), *id), addr.clone()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use apogee_types::route::QueueData;

    use super::*;

    fn route() -> Route {
        let broker = |name: &str, ids: &[i64]| BrokerData {
            broker_name: name.into(),
            broker_addrs: ids.iter().map(|id| (*id, format!("{name}-{id}").into())).collect(),
            ..BrokerData::default()
        };
        let queues = |name: &str, perm, read, write| QueueData {
            broker_name: name.into(),
            perm: Perm(perm),
            read_queue_count: read,
            write_queue_count: write,
            topic_sys_flag: 0,
        };
        let data = TopicRouteData {
            broker_datas: vec![broker("b", &[0]), broker("a", &[0, 1]), broker("c", &[1])],
            queue_datas: vec![queues("b", 4, 1, 1), queues("a", 6, 1, 2), queues("c", 6, 1, 1)],
            ..TopicRouteData::default()
        };
        Route::new("T", data)
    }

    #[test]
    fn only_brokers_with_a_master_are_sent_to_and_all_readable_ones_are_read() {
        let queue = |broker, id| MessageQueue::new("T", broker, id);
        assert_eq!(route().write_queues(), [queue("a", 0), queue("a", 1)]);
        assert_eq!(route().read_queues(), [queue("a", 0), queue("b", 0), queue("c", 0)]);
    }

    #[test]
    fn an_order_topic_has_the_queues_of_its_configuration() {
        let mut route = route();
        route.data.order_topic_conf = Some("b:2;a:1".into());
        let queue = |broker, id| MessageQueue::new("T", broker, id);
        assert_eq!(route.write_queues(), [queue("a", 0), queue("b", 0), queue("b", 1)]);
    }
}
