//! A broker registers with a name server elsewhere, and keeps its entry alive. Spec `broker.md`
//! 9.5.
//!
//! One task for each name server, so that one that is away delays nothing. All topics are sent
//! over each new connection, and when the name server has lost them; else only those that changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apogee_broker::topics::TopicTable;
use apogee_client::{Client, Error, Link};
use apogee_types::config::TopicConfig;
use apogee_types::json;
use apogee_types::record::body_crc;
use apogee_wire::remoting::bodies::{
    KVTable, RegisterBrokerBody, TopicConfigAndMappingSerializeWrapper,
};
use apogee_wire::remoting::requests::{
    QueryDataVersion, QueryDataVersionResponse, RegisterBroker, UnregisterBroker,
};
use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};

use super::door::Door;
use super::names::permitted;

/// How soon a name server that was away is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(3);
/// How soon one is tried again that has hung up; it may do so each time.
const HANG_UP_PAUSE: Duration = Duration::from_millis(500);

/// Where a broker says it can be reached, and the name server that it tells.
pub struct Registrar {
    pub door: Arc<Door>,
    pub client: Client,
    pub name_server: String,
    pub addr: String,
    pub ha_addr: String,
}

impl Registrar {
    /// Registers again and again.
    pub async fn run(self) {
        let name_server = &*self.name_server;
        loop {
            let pause = match self.register_over_a_connection().await {
                Ok(()) => {
                    tracing::info!(name_server, "the connection ended, will register again");
                    HANG_UP_PAUSE
                }
                Err(error) => {
                    tracing::warn!(name_server, %error, "cannot register, will try again");
                    RETRY_PAUSE
                }
            };
            sleep(pause).await;
        }
    }

    /// Leaves the name server's table.
    pub async fn leave(&self) {
        let identity = &self.door.broker().identity;
        let request = UnregisterBroker {
            broker_name: identity.name.clone(),
            broker_addr: self.addr.clone(),
            cluster_name: identity.cluster.clone(),
            broker_id: identity.id,
        };
        let call = self.client.call::<UnregisterBroker>(&self.name_server, &request, Bytes::new());
        if let Err(error) = call.await {
            tracing::warn!(name_server = &*self.name_server, %error, "cannot unregister");
        }
    }

    async fn register_over_a_connection(&self) -> Result<(), Error> {
        let link = self.client.link(&self.name_server).await?;
        let ended = self.register_until_it_ends(&link).await;
        // Over one that has become silent nothing may ever pass again.
        link.close();
        ended
    }

    /// Registers again and again until the connection ends. What was told over one is not built
    /// upon over the next: a name server forgets us when ours ends, may have been started anew, and
    /// takes a few topics of a broker that it does not know for all of them.
    async fn register_until_it_ends(&self, link: &Link) -> Result<(), Error> {
        let broker = self.door.broker();
        let period = broker.settings.register_name_server_period.clamp(10_000, 60_000);
        let period = Duration::from_millis(period);
        let mut changed = self.door.changed.subscribe();
        let mut told = broker.topics.table();
        self.register(link, &told, told.topic_config_table.clone()).await?;
        let (name_server, topics) = (&*self.name_server, told.topic_config_table.len());
        tracing::info!(name_server, topics, "registered");
        let mut due = Instant::now() + period;
        loop {
            let is_due = tokio::select! {
                biased;
                () = link.ended() => return Ok(()),
                () = sleep_until(due) => true,
                // Nobody drops the sender while the door is held.
                _ = changed.changed() => false,
            };
            if is_due {
                due = Instant::now() + period;
            }
            let table = broker.topics.table();
            let is_forced = is_due && broker.settings.force_register;
            let topics = if is_forced || self.has_forgotten(link, &told).await? {
                table.topic_config_table.clone()
            } else {
                difference(&told, &table)
            };
            // Now and then for the sake of the answer, which says what topics are ordered. Else
            // nothing is to be told of topics that are only deleted.
            if is_due || !topics.is_empty() {
                self.register(link, &table, topics).await?;
                told = table;
            }
        }
    }

    /// Whether the name server knows another version of our topics; keeps our entry alive.
    async fn has_forgotten(&self, link: &Link, told: &TopicTable) -> Result<bool, Error> {
        let identity = &self.door.broker().identity;
        let request = QueryDataVersion {
            broker_name: identity.name.clone(),
            broker_addr: self.addr.clone(),
            cluster_name: identity.cluster.clone(),
            broker_id: identity.id,
        };
        let body = json::write(&told.data_version).into();
        let answer = link.call::<QueryDataVersion>(&request, body, self.time_limit()).await?;
        answer.fields(|response: QueryDataVersionResponse| response.changed)
    }

    /// Tells some of the topics of `table`, and takes over which of them are ordered.
    async fn register(
        &self,
        link: &Link,
        table: &TopicTable,
        topics: BTreeMap<Arc<str>, Arc<TopicConfig>>,
    ) -> Result<(), Error> {
        let broker = self.door.broker();
        let wrapper = TopicConfigAndMappingSerializeWrapper {
            data_version: table.data_version,
            topic_config_table: permitted(topics, broker.permission()),
            ..Default::default()
        };
        let body = json::write(&RegisterBrokerBody {
            topic_config_serialize_wrapper: wrapper,
            ..Default::default()
        });
        let request = RegisterBroker {
            broker_name: broker.identity.name.clone(),
            broker_addr: self.addr.clone(),
            cluster_name: broker.identity.cluster.clone(),
            ha_server_addr: Some(self.ha_addr.clone()),
            broker_id: broker.identity.id,
            heartbeat_timeout_ms: None,
            enable_acting_master: Some(false),
            compressed: false,
            body_crc32: body_crc(&body) as i32,
            zone_name: None,
        };
        let answer = link.call::<RegisterBroker>(&request, body.into(), self.time_limit()).await?;
        if !answer.body.is_empty() {
            let ordered: KVTable = answer.json()?;
            broker.topics.set_ordered(ordered.table.keys(), broker.clock.now_ms());
        }
        Ok(())
    }

    fn time_limit(&self) -> Duration {
        Duration::from_millis(self.door.broker().settings.register_broker_timeout_mills)
    }
}

/// The topics that are new or other than in `told`.
fn difference(told: &TopicTable, table: &TopicTable) -> BTreeMap<Arc<str>, Arc<TopicConfig>> {
    let is_new = |(name, topic): &(&Arc<str>, &Arc<_>)| {
        told.topic_config_table.get(*name).is_none_or(|known| !Arc::ptr_eq(known, topic))
    };
    let changed = table.topic_config_table.iter().filter(is_new);
    changed.map(|(name, topic)| (Arc::clone(name), Arc::clone(topic))).collect()
}
