//! The struct of services; what a broker is made of.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use apogee_store::{Arrival, Documents, Store};
use apogee_types::config::{Perm, TopicConfig};
use apogee_types::names;
use apogee_types::properties::{self, name};
use apogee_types::settings::BrokerSettings;
use apogee_types::{Clock, Millis};
use parking_lot::Mutex;

use crate::clients::Clients;
use crate::created::Created;
use crate::days::{Counts, Days};
use crate::delay::{Delays, Levels};
use crate::documents::{Loaded, Written};
use crate::error::Error;
use crate::groups::Groups;
use crate::locks::Locks;
use crate::offsets::Offsets;
use crate::topics::Topics;
use crate::waiters::Waiters;

/// Who this broker is in its cluster.
#[derive(Debug, Clone)]
pub struct Identity {
    pub cluster: String,
    pub name: String,
    /// 0 is the master, others are its slaves.
    pub id: i64,
    /// Where the log that we write can be reached; part of every record and message id.
    pub store_host: SocketAddr,
}

/// A broker: its services, which doors borrow.
pub struct Broker {
    pub identity: Identity,
    pub settings: BrokerSettings,
    pub clock: Arc<dyn Clock>,
    pub store: Arc<Store>,
    pub topics: Topics,
    pub groups: Groups,
    pub created: Arc<Created>,
    pub offsets: Offsets,
    pub clients: Clients,
    pub locks: Locks,
    pub waiters: Waiters,
    pub delays: Delays,
    pub days: Days,
    pub started_ms: Millis,
    /// `brokerPermission`; live.
    permission: AtomicI32,
    pub(crate) documents: Documents,
    pub(crate) written: Written,
    /// Encoded properties that every stored message gets.
    pub(crate) stamp: Vec<u8>,
    pub(crate) unique_keys: UniqueKeys,
    random: Mutex<fastrand::Rng>,
}

impl Identity {
    #[must_use]
    pub fn is_slave(&self) -> bool {
        self.id != 0
    }
}

impl Broker {
    /// Builds a broker over an open store. `seed` is where its chance comes from.
    pub fn new(
        identity: Identity,
        settings: BrokerSettings,
        clock: Arc<dyn Clock>,
        store: Arc<Store>,
        documents: Documents,
        seed: u64,
    ) -> Result<Self, Error> {
        let loaded = Loaded::read(&documents)?;
        let system = system_topics(&identity, &settings);
        let levels = Levels::new(settings.message_delay_level.delays_ms());
        let mut stamp = Vec::new();
        properties::push(&mut stamp, name::MSG_REGION, &settings.region_id);
        properties::push(
            &mut stamp,
            name::TRACE_ON,
            if settings.trace_on { "true" } else { "false" },
        );
        properties::push(&mut stamp, name::CLUSTER, &identity.cluster);
        let mut random = fastrand::Rng::with_seed(seed);
        let created = Arc::new(Created::default());
        let creates = settings.auto_create_topic_enable;
        let topics = Topics::new(system, loaded.topics, creates, Arc::clone(&created));
        let creates = settings.auto_create_subscription_group;
        let groups = Groups::new(loaded.groups, creates, Arc::clone(&created));
        Ok(Self {
            topics,
            groups,
            created,
            offsets: Offsets::new(&loaded.offsets),
            clients: Clients::default(),
            locks: Locks::default(),
            waiters: Waiters::default(),
            delays: Delays::new(levels, &loaded.delays),
            days: Days::default(),
            started_ms: clock.now_ms(),
            permission: AtomicI32::new(settings.broker_permission),
            documents,
            written: Written::default(),
            stamp,
            unique_keys: UniqueKeys { salt: random.u32(..), count: AtomicU64::new(0) },
            random: Mutex::new(random),
            identity,
            settings,
            clock,
            store,
        })
    }

    /// What this broker lets clients do at all.
    pub fn permission(&self) -> Perm {
        Perm(self.permission.load(Ordering::Relaxed))
    }

    /// Refuses sends to a slave, and before `startAcceptSendRequestTimeStamp`. Spec `broker.md`
    /// 1.1, 1.2.
    pub fn check_takes_sends(&self) -> Result<(), Error> {
        if self.identity.is_slave() {
            return Err(Error::Slave);
        }
        let start_ms = self.settings.start_accept_send_request_time_stamp;
        if start_ms <= 0 || start_ms <= self.clock.now_ms() {
            return Ok(());
        }
        let start = jiff::Timestamp::from_millisecond(start_ms).unwrap_or(jiff::Timestamp::MAX);
        let start = jiff::tz::TimeZone::system().to_datetime(start);
        Err(Error::NotYet { until: start.strftime("%Y-%m-%d %H:%M:%S,%3f").to_string() })
    }

    /// `traceOn`, as a send is told.
    #[must_use]
    pub fn trace_on(&self) -> &'static str {
        if self.settings.trace_on { "true" } else { "false" }
    }

    /// Brings what was stored and may be seen into the queues, and wakes who waits for it.
    pub fn dispatch(&self) {
        self.store.dispatch(&mut |arrival| self.arrived(arrival));
    }

    /// As [`dispatch`](Self::dispatch), of what no sender will bring there; for services.
    pub fn dispatch_left(&self) {
        self.store.dispatch_left(&mut |arrival| self.arrived(arrival));
    }

    /// [`Store::checkpoint_step`].
    pub fn checkpoint_step(&self) -> Result<(), apogee_store::Error> {
        self.store.checkpoint_step(&mut |arrival| self.arrived(arrival))
    }

    fn arrived(&self, arrival: Arrival<'_>) {
        self.waiters.arrived(arrival.topic, arrival.queue, arrival.end, arrival.tags_codes);
    }

    /// What is to be done every few seconds; cheap when there is nothing.
    pub fn housekeeping_step(&self) {
        let now = self.clock.now_ms();
        self.clients.expire(now);
        self.locks.expire(now);
        let (put, got) = (self.store.put_count(), self.store.read_count());
        self.days.note(now, Counts { put, got });
        if let Err(error) = self.persist_tables().and_then(|()| self.persist_progress()) {
            tracing::error!(%error, "configuration and offsets are not on disk; will try again");
        }
    }

    /// Removes a topic with its queues and what groups know of it. Returns the number of that, as
    /// [`Created`] has it; 0 if there was none.
    pub fn delete_topic(&self, topic: &str) -> Result<u64, Error> {
        let now = self.clock.now_ms();
        let number = self.topics.remove(topic, now);
        self.offsets.remove_topic(topic, now);
        self.store.delete_topic(topic)?;
        self.waiters.wake_topic(topic);
        Ok(number)
    }

    /// Removes the queues of topics that are not configured any more and of which the log has no
    /// message, with what groups know of them: as may be left of a topic that was deleted before
    /// the start read its messages again. Upstream removes those as well that have messages, which
    /// whoever creates the topic anew would find.
    pub fn clean_unused_topics(&self) -> Result<(), Error> {
        let is_unused = |topic: &str| {
            self.topics.find(topic).is_none()
                && !topic.starts_with(names::LIGHT_PREFIX)
                && !self.is_system_topic(topic)
        };
        for topic in self.store.remove_unused(&is_unused)? {
            tracing::info!(topic = &*topic, "queues of a topic that is no more removed");
            self.offsets.remove_topic(&topic, self.clock.now_ms());
        }
        Ok(())
    }

    /// Whether no client may create, change or delete the topic.
    #[must_use]
    pub fn is_system_topic(&self, topic: &str) -> bool {
        names::is_system_topic(topic) || self.system_topics().iter().any(|it| **it == *topic)
    }

    /// Names of the topics that exist from the start.
    #[must_use]
    pub fn system_topics(&self) -> Vec<Arc<str>> {
        let topics = system_topics(&self.identity, &self.settings);
        topics.into_iter().map(|topic| topic.topic_name).collect()
    }

    pub(crate) fn random_below(&self, count: i32) -> Option<i32> {
        (0 < count).then(|| self.random.lock().i32(0..count))
    }
}

/// The topics that exist from the start. Spec `messages.md` 8.1.
fn system_topics(identity: &Identity, settings: &BrokerSettings) -> Vec<TopicConfig> {
    let all = Perm(7);
    let rw = Perm::READ_WRITE;
    let template = |enabled| if enabled { all } else { Perm::INHERIT };
    let mut topics = vec![
        ("SELF_TEST_TOPIC".to_owned(), 1, rw),
        ("BenchmarkTest".to_owned(), 1024, rw),
        (identity.cluster.clone(), 16, template(settings.cluster_topic_enable)),
        (identity.name.clone(), 1, template(settings.broker_topic_enable)),
        ("OFFSET_MOVED_EVENT".to_owned(), 1, rw),
        (names::SCHEDULE_TOPIC.to_owned(), 18, rw),
        (format!("{}_REPLY_TOPIC", identity.cluster), 1, rw),
        (format!("rmq_sys_REVIVE_LOG_{}", identity.cluster), 8, rw),
        (format!("{}{}", names::MEMBERS_PREFIX, identity.name), 1, Perm::INHERIT),
        (names::HALF_TOPIC.to_owned(), 1, rw),
        (names::OP_TOPIC.to_owned(), 1, rw),
        ("RMQ_SYS_ROCKSDB_TRANS_HALF_TOPIC".to_owned(), 1, rw),
        ("RMQ_SYS_ROCKSDB_TRANS_OP_HALF_TOPIC".to_owned(), 1, rw),
        (names::TIMER_TOPIC.to_owned(), 1, rw),
    ];
    if settings.auto_create_topic_enable {
        let queue_count = settings.default_topic_queue_nums;
        topics.push((names::AUTO_CREATE_TOPIC.to_owned(), queue_count, all));
    }
    if settings.trace_topic_enable {
        topics.push((settings.msg_trace_topic_name.clone(), 1, rw));
    }
    let config = |(name, count, perm): (String, i32, Perm)| TopicConfig::new(&name, count, perm);
    topics.into_iter().map(config).collect()
}

/// Makes unique keys for messages whose client made none, in the layout of `messages.md` 6.2.
pub(crate) struct UniqueKeys {
    salt: u32,
    count: AtomicU64,
}

impl UniqueKeys {
    pub(crate) fn next(&self, from: IpAddr) -> String {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let ip = match from {
            IpAddr::V4(ip) => u128::from(u32::from(ip)),
            IpAddr::V6(ip) => u128::from(ip),
        };
        let width = if from.is_ipv4() { 8 } else { 32 };
        format!("{ip:0width$X}{:08X}{count:016X}", self.salt)
    }
}
