//! What operators and tests ask of a cluster.

use apogee_types::Millis;
use apogee_types::config::{Perm, TopicConfig};
use apogee_types::id::OffsetMessageId;
use apogee_types::route::{BrokerData, ClusterInfo};
use apogee_wire::remoting::ResponseCode;
use apogee_wire::remoting::bodies::{ConsumeStats, ConsumerConnection, TopicStatsTable};
use apogee_wire::remoting::requests::{
    DeleteTopicInBroker, DeleteTopicInNameServer, GetBrokerClusterInfo, GetConsumeStats,
    GetConsumerConnectionList, GetTopicStats, QueryMessage, UpdateAndCreateTopic, ViewMessageById,
};
use bytes::Bytes;

use crate::message::ReceivedMessage;
use crate::{Client, Error};

impl Client {
    /// All brokers and clusters.
    pub async fn cluster_info(&self) -> Result<ClusterInfo, Error> {
        let request = GetBrokerClusterInfo {};
        let answer = self.call_name_server::<GetBrokerClusterInfo>(&request, Bytes::new()).await?;
        answer.success()?.json()
    }

    /// Creates or changes a topic on every master of the cluster.
    pub async fn create_topic(&self, topic: &str, queue_count: i32) -> Result<(), Error> {
        apogee_types::names::check_topic(topic)?;
        let config = TopicConfig::new(topic, queue_count, Perm::READ_WRITE);
        for broker in self.cluster_info().await?.broker_addr_table.values() {
            if let Some(addr) = broker.master() {
                self.create_topic_on(addr, &config).await?;
            }
        }
        Ok(())
    }

    /// Creates or changes a topic on one broker. The names of attributes say with a sign what to
    /// do: `+name` sets, `-name` removes.
    pub async fn create_topic_on(&self, addr: &str, config: &TopicConfig) -> Result<(), Error> {
        let change = |(name, value): (&String, &String)| {
            if value.is_empty() { name.clone() } else { format!("{name}={value}") }
        };
        let attributes: Vec<String> = config.attributes.iter().map(change).collect();
        let request = UpdateAndCreateTopic {
            topic: config.topic_name.to_string(),
            default_topic: Some(apogee_types::names::AUTO_CREATE_TOPIC.to_owned()),
            read_queue_count: config.read_queue_count,
            write_queue_count: config.write_queue_count,
            perm: config.perm.0,
            topic_filter_type: Some(config.topic_filter_type.clone()),
            topic_sys_flag: Some(config.topic_sys_flag),
            order: config.order,
            attributes: Some(attributes.join(",")).filter(|text| !text.is_empty()),
            force: false,
        };
        self.call::<UpdateAndCreateTopic>(addr, &request, Bytes::new()).await.map(|_| ())
    }

    /// Deletes a topic everywhere: from the brokers, then from the name servers.
    pub async fn delete_topic(&self, topic: &str) -> Result<(), Error> {
        let request = DeleteTopicInBroker { topic: topic.to_owned() };
        for broker in self.cluster_info().await?.broker_addr_table.values() {
            for addr in broker.broker_addrs.values() {
                self.call::<DeleteTopicInBroker>(addr, &request, Bytes::new()).await?;
            }
        }
        let request = DeleteTopicInNameServer { topic: topic.to_owned(), cluster_name: None };
        for addr in self.name_servers() {
            self.call::<DeleteTopicInNameServer>(addr, &request, Bytes::new()).await?;
        }
        Ok(())
    }

    /// The messages of a topic with this key that were stored in this time span.
    pub async fn query_by_key(
        &self,
        topic: &str,
        key: &str,
        max_count: i32,
        span: std::ops::Range<Millis>,
    ) -> Result<Vec<ReceivedMessage>, Error> {
        let request = QueryMessage {
            topic: topic.to_owned(),
            key: key.to_owned(),
            max_count,
            begin_ms: span.start,
            end_ms: span.end,
            index_type: None,
            last_key: None,
            is_unique_key: false,
        };
        self.query(&request).await
    }

    /// The messages of a topic to which a producer gave this id.
    pub async fn query_by_id(&self, topic: &str, id: &str) -> Result<Vec<ReceivedMessage>, Error> {
        let request = QueryMessage {
            topic: topic.to_owned(),
            key: id.to_owned(),
            max_count: 32,
            begin_ms: 0,
            end_ms: i64::MAX,
            index_type: None,
            last_key: None,
            is_unique_key: true,
        };
        self.query(&request).await
    }

    /// One message by the id that its broker gave; asks the broker that the id names.
    pub async fn view_message(&self, offset_id: &str) -> Result<Option<ReceivedMessage>, Error> {
        let id = OffsetMessageId::parse(offset_id)
            .ok_or_else(|| Error::MessageId(offset_id.to_owned()))?;
        let request = ViewMessageById { topic: None, log_offset: id.at.0 as i64 };
        let addr = id.store_host.to_string();
        let answer = self.call::<ViewMessageById>(&addr, &request, Bytes::new()).await?;
        let messages = ReceivedMessage::read_all(&answer.body, &"".into());
        Ok(messages.map_err(|error| answer.malformed(&error))?.pop())
    }

    /// Who reads with a group, as one broker knows it.
    pub async fn consumer_connections(
        &self,
        addr: &str,
        group: &str,
    ) -> Result<ConsumerConnection, Error> {
        let request = GetConsumerConnectionList { consumer_group: group.to_owned() };
        self.call::<GetConsumerConnectionList>(addr, &request, Bytes::new()).await?.json()
    }

    /// How far a group is behind on one broker.
    pub async fn consume_stats(&self, addr: &str, group: &str) -> Result<ConsumeStats, Error> {
        let group = group.to_owned();
        let request = GetConsumeStats { consumer_group: group, topic: None, topic_list: None };
        self.call::<GetConsumeStats>(addr, &request, Bytes::new()).await?.json()
    }

    /// The offsets of all queues of a topic on one broker.
    pub async fn topic_stats(&self, addr: &str, topic: &str) -> Result<TopicStatsTable, Error> {
        let request = GetTopicStats { topic: topic.to_owned() };
        self.call::<GetTopicStats>(addr, &request, Bytes::new()).await?.json()
    }

    /// Asks every broker of the topic.
    async fn query(&self, request: &QueryMessage) -> Result<Vec<ReceivedMessage>, Error> {
        let mut found = Vec::new();
        for broker in &self.route(&request.topic).await?.data().broker_datas {
            let addr = broker.broker_addrs.get(&BrokerData::MASTER_ID);
            let Some(addr) = addr.or_else(|| broker.broker_addrs.values().next()) else { continue };
            let answer = match self.call::<QueryMessage>(addr, request, Bytes::new()).await {
                Err(error) if error.code() == Some(ResponseCode::QUERY_NOT_FOUND) => continue,
                answer => answer?,
            };
            let messages = ReceivedMessage::read_all(&answer.body, &broker.broker_name);
            found.extend(messages.map_err(|error| answer.malformed(&error))?);
        }
        Ok(found)
    }
}
