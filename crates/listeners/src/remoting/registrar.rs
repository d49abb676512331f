//! A broker registers with a name server elsewhere, and keeps its entry alive. Spec `broker.md`
//! 9.5.
//!
//! One task for each name server, so that one that is away delays nothing. All topics are sent
//! once; after that only those that changed, and every half minute no more than their version.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apogee_broker::topics::TopicTable;
use apogee_client::{Client, Error};
use apogee_types::json;
use apogee_types::record::body_crc;
use apogee_wire::remoting::bodies::{RegisterBrokerBody, TopicConfigAndMappingSerializeWrapper};
use apogee_wire::remoting::requests::{
    QueryDataVersion, QueryDataVersionResponse, RegisterBroker, UnregisterBroker,
};
use bytes::Bytes;

use super::door::Door;

/// Upstream's `registerBrokerTimeoutMills`.
const TIMEOUT: Duration = Duration::from_secs(24);
/// How soon a name server that was away is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(3);

/// Where a broker says it can be reached, and the name server that it tells.
pub struct Registrar {
    pub door: Arc<Door>,
    pub client: Client,
    pub name_server: String,
    pub addr: String,
    pub ha_addr: String,
    pub period: Duration,
}

impl Registrar {
    /// Registers again and again, at once when topics change.
    pub async fn run(self) {
        let mut changed = self.door.changed.subscribe();
        let mut sent: Option<TopicTable> = None;
        loop {
            changed.mark_unchanged();
            let table = self.door.broker().topics.table();
            let pause = match self.tell(sent.as_ref(), &table).await {
                Ok(()) => {
                    if sent.is_none() {
                        let (name_server, topics) =
                            (&*self.name_server, table.topic_config_table.len());
                        tracing::info!(name_server, topics, "registered");
                    }
                    sent = Some(table);
                    self.period
                }
                Err(error) => {
                    let name_server = &*self.name_server;
                    tracing::warn!(name_server, %error, "cannot register, will try again");
                    sent = None;
                    RETRY_PAUSE
                }
            };
            // Nobody drops the sender while the door is held.
            let _ = tokio::time::timeout(pause, changed.changed()).await;
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

    /// Tells what the name server does not know.
    async fn tell(&self, sent: Option<&TopicTable>, table: &TopicTable) -> Result<(), Error> {
        match sent {
            None => self.register(table).await,
            Some(sent) if sent.data_version == table.data_version => {
                if self.has_forgotten(table).await? {
                    return self.register(table).await;
                }
                Ok(())
            }
            Some(sent) => self.register(&difference(sent, table)).await,
        }
    }

    /// Whether the name server knows another version of our topics; keeps our entry alive.
    async fn has_forgotten(&self, table: &TopicTable) -> Result<bool, Error> {
        let identity = &self.door.broker().identity;
        let request = QueryDataVersion {
            broker_name: identity.name.clone(),
            broker_addr: self.addr.clone(),
            cluster_name: identity.cluster.clone(),
            broker_id: identity.id,
        };
        let body = json::write(&table.data_version).into();
        let answer =
            self.client.call::<QueryDataVersion>(&self.name_server, &request, body).await?;
        answer.fields(|response: QueryDataVersionResponse| response.changed)
    }

    async fn register(&self, table: &TopicTable) -> Result<(), Error> {
        let broker = self.door.broker();
        let mut topics = table.topic_config_table.clone();
        for topic in topics.values_mut() {
            let perm = topic.perm.and(broker.permission());
            if perm != topic.perm {
                Arc::make_mut(topic).perm = perm;
            }
        }
        let wrapper = TopicConfigAndMappingSerializeWrapper {
            data_version: table.data_version,
            topic_config_table: topics,
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
        let (name_server, body) = (&self.name_server, body.into());
        let answer =
            self.client.call_within::<RegisterBroker>(name_server, &request, body, TIMEOUT).await?;
        answer.success().map(|_| ())
    }
}

/// The topics that are new or other than in `sent`.
fn difference(sent: &TopicTable, table: &TopicTable) -> TopicTable {
    let topics = table.topic_config_table.iter();
    let is_new = |(name, topic): &(&Arc<str>, &Arc<_>)| {
        sent.topic_config_table.get(*name).is_none_or(|known| !Arc::ptr_eq(known, topic))
    };
    let changed: BTreeMap<_, _> =
        topics.filter(is_new).map(|(name, topic)| (Arc::clone(name), Arc::clone(topic))).collect();
    TopicTable { data_version: table.data_version, topic_config_table: changed }
}
