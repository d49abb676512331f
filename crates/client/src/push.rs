//! Reads topics as a member of a group: takes its share of the queues, calls the handler with what
//! they hold, and keeps the group's offsets.
//!
//! One task, the [`coordinator`], owns what the member is: its share of the queues, and who knows
//! of it. Each [`queue`] has a task that owns its lock and its offset, and two that [read](reader)
//! it: one pulls, one hands to the handler.

mod coordinator;
mod inbox;
mod offsets;
mod queue;
mod reader;
mod rebalance;
mod send_back;
mod window;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use apogee_types::names::{self, RETRY_PREFIX};
use apogee_types::subscription::{ConsumeFromWhere, MessageModel, SubscriptionData};
use apogee_types::{Millis, tags};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::client::Membership;
use crate::message::ReceivedMessage;
use crate::pull::subscription;
use crate::{Client, Error, Options};

use coordinator::Coordinator;
pub use rebalance::share;

/// What became of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Deliver them again later: after 10 s, 30 s, 1 min and so on up to 2 h, and after the last
    /// time to the group's dead letters. In order: after a second, before anything else.
    Retry,
    /// The same with this delay level (1 s, 5 s, 10 s, ... from 1 on).
    RetryAt {
        delay_level: u8,
    },
    /// Neither done nor failed: the group's offset stays below them, so that whoever reads the
    /// queue next gets them again. For a consumer that is about to shut down.
    Leave,
}

/// Where a group begins to read a queue that it has not read before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFrom {
    Earliest,
    /// With what arrives from now on. A queue that is so young that nothing of it has been deleted
    /// is read from its start, as upstream does: else a group would miss what is sent between the
    /// creation of a topic and the first look at it.
    Latest,
    /// With what was stored at this time or later.
    Time(Millis),
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Handler = dyn Fn(Vec<ReceivedMessage>) -> BoxFuture<Outcome> + Send + Sync;

/// How to read; every setting has upstream's default.
pub struct PushConsumerBuilder {
    client: Option<Client>,
    options: Options,
    group: String,
    /// By topic: expression, and whether it is SQL.
    subscriptions: BTreeMap<String, (String, bool)>,
    settings: Settings,
}

#[derive(Debug, Clone)]
struct Settings {
    model: MessageModel,
    start_from: StartFrom,
    is_ordered: bool,
    concurrency: usize,
    batch_len: usize,
    pull_count: i32,
    /// -1: what the broker says (16), or in order without end.
    max_reconsume_times: i32,
}

impl PushConsumerBuilder {
    /// Another network, clock or seed. Replaces the name servers as well.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Shares the connections of `client`, which then is not closed by this consumer.
    #[must_use]
    pub fn client(mut self, client: Client) -> Self {
        self.client = Some(client);
        self
    }

    /// Reads messages with these tags: `*`, or `A || B`.
    #[must_use]
    pub fn subscribe(mut self, topic: &str, tags: &str) -> Self {
        self.subscriptions.insert(topic.to_owned(), (tags.to_owned(), false));
        self
    }

    /// Reads messages whose properties match an SQL expression.
    #[must_use]
    pub fn subscribe_sql(mut self, topic: &str, expression: &str) -> Self {
        self.subscriptions.insert(topic.to_owned(), (expression.to_owned(), true));
        self
    }

    /// Every member reads every message; failed ones do not come again. Offsets are kept in
    /// memory only, so that each start begins at [`start_from`](Self::start_from).
    #[must_use]
    pub fn broadcasting(mut self) -> Self {
        self.settings.model = MessageModel::Broadcasting;
        self
    }

    /// Default: [`StartFrom::Latest`].
    #[must_use]
    pub fn start_from(mut self, start_from: StartFrom) -> Self {
        self.settings.start_from = start_from;
        self
    }

    /// One queue's messages are handled one after the other, by one member of the group at a time.
    #[must_use]
    pub fn ordered(mut self) -> Self {
        self.settings.is_ordered = true;
        self
    }

    /// How many calls of the handler may run at once. Default: 20.
    #[must_use]
    pub fn concurrency(mut self, count: usize) -> Self {
        self.settings.concurrency = count.max(1);
        self
    }

    /// How many messages a call of the handler gets at most. Default: 1.
    #[must_use]
    pub fn batch_len(mut self, len: usize) -> Self {
        self.settings.batch_len = len.max(1);
        self
    }

    /// How many messages a pull asks for. Default: 32, which is also what brokers bring at most.
    #[must_use]
    pub fn pull_count(mut self, count: i32) -> Self {
        self.settings.pull_count = count.max(1);
        self
    }

    /// After so many deliveries a message goes to the dead letters. Default: the group's setting
    /// on the broker, 16; in order without end.
    #[must_use]
    pub fn max_reconsume_times(mut self, count: u16) -> Self {
        self.settings.max_reconsume_times = count.into();
        self
    }

    /// Joins the group and calls `handler` from then on. A client can be one member only of a
    /// group.
    pub async fn start<F, T>(self, handler: F) -> Result<PushConsumer, Error>
    where
        F: Fn(Vec<ReceivedMessage>) -> T + Send + Sync + 'static,
        T: Future<Output = Outcome> + Send + 'static,
    {
        names::check_group(&self.group)?;
        let owns_client = self.client.is_none();
        let client = self.client.unwrap_or_else(|| Client::new(self.options));
        let membership = client.join(&self.group)?;
        let subscriptions =
            all_subscriptions(&self.group, &self.subscriptions, &self.settings, client.now_ms())?;
        let member = Arc::new(Member {
            handler_permits: Arc::new(Semaphore::new(self.settings.concurrency)),
            client: client.clone(),
            group: self.group.as_str().into(),
            subscriptions,
            settings: self.settings,
            handler: Box::new(move |messages| Box::pin(handler(messages))),
        });
        let (stop, stopped) = watch::channel(false);
        let coordinator = Coordinator::join(member, stopped).await?;
        let coordinator = tokio::spawn(coordinator.run());
        Ok(PushConsumer { client, owns_client, stop, coordinator, _membership: membership })
    }
}

/// With the group's retry topic, where failed messages come again.
fn all_subscriptions(
    group: &str,
    wanted: &BTreeMap<String, (String, bool)>,
    settings: &Settings,
    now: Millis,
) -> Result<BTreeMap<Arc<str>, SubscriptionData>, Error> {
    let mut all = BTreeMap::new();
    for (topic, (expression, is_sql)) in wanted {
        let data = subscription(topic, expression, *is_sql, now)?;
        all.insert(Arc::clone(&data.topic), data);
    }
    if settings.model == MessageModel::Clustering {
        let data = subscription(&names::retry_topic(group), "*", false, now)?;
        all.insert(Arc::clone(&data.topic), data);
    }
    Ok(all)
}

/// What all tasks of a member share and none changes.
struct Member {
    client: Client,
    group: Arc<str>,
    subscriptions: BTreeMap<Arc<str>, SubscriptionData>,
    settings: Settings,
    handler: Box<Handler>,
    /// One for each call of the handler that may run.
    handler_permits: Arc<Semaphore>,
}

impl Member {
    fn is_clustering(&self) -> bool {
        self.settings.model == MessageModel::Clustering
    }

    /// Reads a queue only while it holds its lock on the broker.
    fn is_locking(&self) -> bool {
        self.settings.is_ordered && self.is_clustering()
    }

    fn consume_from(&self) -> ConsumeFromWhere {
        match self.settings.start_from {
            StartFrom::Earliest => ConsumeFromWhere::FirstOffset,
            StartFrom::Latest => ConsumeFromWhere::LastOffset,
            StartFrom::Time(_) => ConsumeFromWhere::Timestamp,
        }
    }

    fn is_retry_topic(topic: &str) -> bool {
        topic.starts_with(RETRY_PREFIX)
    }
}

/// A running member of a group. Leaves it in order by [`shutdown`](Self::shutdown); when it is
/// only dropped its tasks end at once, and others find out when its connection is gone.
pub struct PushConsumer {
    client: Client,
    owns_client: bool,
    stop: watch::Sender<bool>,
    coordinator: JoinHandle<()>,
    _membership: Membership,
}

impl PushConsumer {
    /// Name servers are separated by `;`.
    #[must_use]
    pub fn builder(name_servers: &str, group: &str) -> PushConsumerBuilder {
        PushConsumerBuilder {
            client: None,
            options: Options::new(name_servers),
            group: group.to_owned(),
            subscriptions: BTreeMap::new(),
            settings: Settings {
                model: MessageModel::Clustering,
                start_from: StartFrom::Latest,
                is_ordered: false,
                concurrency: 20,
                batch_len: 1,
                pull_count: 32,
                max_reconsume_times: -1,
            },
        }
    }

    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Lets the handler finish what it has, commits, leaves the group and waits for all of it.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if let Err(error) = (&mut self.coordinator).await {
            tracing::error!(%error, "the consumer's task failed");
        }
        if self.owns_client {
            self.client.close().await;
        }
    }
}

impl Drop for PushConsumer {
    fn drop(&mut self) {
        self.coordinator.abort();
    }
}

/// Spreads groups over brokers without chance, so that all members ask the same one first.
fn spread(text: &str, len: usize) -> usize {
    tags::java_hash(text).unsigned_abs() as usize % len
}
