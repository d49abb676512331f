//! The task that owns a member of a group: its share of the queues, and which brokers know of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use apogee_types::json;
use apogee_types::route::MessageQueue;
use apogee_types::subscription::{ConsumeType, SubscriptionData};
use apogee_wire::remoting::bodies::{
    CheckClientRequestBody, ConsumerData, GetConsumerListByGroupResponseBody, HeartbeatData,
};
use apogee_wire::remoting::requests::{
    CheckClientConfig, GetConsumerListByGroup, UnregisterClient,
};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::inbox::{Inbox, News};
use super::queue::{self, End};
use super::{Member, rebalance, spread};
use crate::Error;
use crate::notices::{Listener, Notice};
use crate::producer::HEARTBEAT_PERIOD;
use crate::routes::Route;

/// Upstream's `rocketmq.client.rebalance.waitInterval`.
const REBALANCE_PERIOD: Duration = Duration::from_secs(20);
/// Upstream's `minInterval`: while something is missing, and between notices.
const REBALANCE_PAUSE: Duration = Duration::from_secs(1);
/// Between heartbeats to a broker that did not take one, or hung up.
const HEARTBEAT_PAUSE: Duration = Duration::from_secs(1);
/// What other members may take to come back to a broker that restarted: a pause between dials and
/// one between heartbeats. Who asks it for them earlier may be alone, and would take their queues.
const RETURN_TIME: Duration = Duration::from_secs(4);
/// Whatever brokers come back and go.
const REBALANCE_PERIOD_MAX: Duration = Duration::from_secs(30);

pub(super) struct Coordinator {
    member: Arc<Member>,
    stopped: watch::Receiver<bool>,
    inbox: Arc<Inbox>,
    _listener: Arc<Listener>,
    queues: BTreeMap<MessageQueue, Handle>,
    /// What reads the queues, those as well whose last messages the handler still has.
    readers: JoinSet<Stopped>,
    /// Broadcasting: where to read on in queues that have left the route.
    places: BTreeMap<MessageQueue, i64>,
    /// Brokers that know of us, for they took a heartbeat over the connection that lasts.
    told: BTreeSet<Arc<str>>,
    /// Brokers that knew of us and do no longer.
    lost: BTreeSet<Arc<str>>,
    /// Brokers that have not answered a heartbeat yet.
    being_told: BTreeSet<Arc<str>>,
    heartbeats: JoinSet<Told>,
    last_telling: Instant,
    rebalanced: Instant,
    next_rebalance: Instant,
    /// However soon it is wanted.
    no_rebalance_before: Instant,
    /// To all.
    next_heartbeat: Instant,
    /// To those who are not told.
    next_telling: Instant,
}

/// A queue that was read, and where to read on if only we know that.
type Stopped = (MessageQueue, Option<i64>);

/// A broker that had a heartbeat, and what came of it.
type Told = (Arc<str>, Result<(), Error>);

/// A queue that we read, or have just given up.
struct Handle {
    end: watch::Sender<Option<End>>,
    task: AbortHandle,
    is_ours: bool,
}

impl Handle {
    /// Ends the reading for good.
    fn end(&mut self, end: End) {
        self.is_ours = false;
        self.end.send_replace(Some(end));
    }
}

/// What the coordinator does next.
enum Duty {
    Read(News),
    NoteStopped(Result<Stopped, JoinError>),
    NoteTold(Result<Told, JoinError>),
    Rebalance,
    TellAll,
    TellOthers,
}

impl Coordinator {
    /// Finds the brokers and tells them of the member.
    pub async fn join(member: Arc<Member>, stopped: watch::Receiver<bool>) -> Result<Self, Error> {
        let inbox = Arc::<Inbox>::default();
        let (put, group) = (Arc::clone(&inbox), Arc::clone(&member.group));
        let listener: Arc<Listener> = Arc::new(move |notice: &Notice| put.put(notice, &group));
        member.client.listen(&listener);
        for (topic, subscription) in &member.subscriptions {
            match member.client.route(topic).await {
                Ok(route) => check(&member, subscription, &route).await?,
                Err(Error::NoRoute { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let now = Instant::now();
        let mut coordinator = Self {
            member,
            stopped,
            inbox,
            _listener: listener,
            queues: BTreeMap::new(),
            readers: JoinSet::new(),
            places: BTreeMap::new(),
            told: BTreeSet::new(),
            lost: BTreeSet::new(),
            being_told: BTreeSet::new(),
            heartbeats: JoinSet::new(),
            last_telling: now,
            rebalanced: now,
            next_rebalance: now,
            no_rebalance_before: now,
            next_heartbeat: now,
            next_telling: now,
        };
        coordinator.tell_all();
        while let Some(told) = coordinator.heartbeats.join_next().await {
            coordinator.note_told(told);
        }
        Ok(coordinator)
    }

    pub async fn run(mut self) {
        let mut stopped = self.stopped.clone();
        let work = async {
            loop {
                let duty = self.next_duty().await;
                self.fulfil(duty).await;
            }
        };
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => {}
            () = work => {}
        }
        self.leave().await;
    }

    async fn next_duty(&mut self) -> Duty {
        tokio::select! {
            biased;
            news = self.inbox.take() => Duty::Read(news),
            Some(stopped) = self.readers.join_next() => Duty::NoteStopped(stopped),
            Some(told) = self.heartbeats.join_next() => Duty::NoteTold(told),
            () = sleep_until(self.next_rebalance) => Duty::Rebalance,
            () = sleep_until(self.next_heartbeat) => Duty::TellAll,
            () = sleep_until(self.next_telling) => Duty::TellOthers,
        }
    }

    async fn fulfil(&mut self, duty: Duty) {
        match duty {
            Duty::Read(news) => self.read(news),
            Duty::NoteStopped(stopped) => self.note_stopped(stopped),
            Duty::NoteTold(told) => self.note_told(told),
            Duty::Rebalance => self.rebalance().await,
            Duty::TellAll => self.tell_all(),
            Duty::TellOthers => self.tell_others(),
        }
    }

    fn read(&mut self, news: News) {
        for (queue, offset) in news.resets {
            if let Some(handle) = self.queues.get(&queue).filter(|handle| handle.is_ours) {
                handle.end.send_replace(Some(End::Moved(offset)));
            }
        }
        for addr in news.lost {
            let is_told = self.told.remove(&addr);
            if self.being_told.remove(&addr) || is_told {
                self.lost.insert(addr);
                self.next_telling = self.next_telling.min(self.last_telling + HEARTBEAT_PAUSE);
                self.let_others_return();
            }
        }
        if news.has_new_members {
            self.rebalance_soon();
        }
    }

    fn note_stopped(&mut self, stopped: Result<Stopped, JoinError>) {
        match stopped {
            Ok((queue, Some(place))) if !self.member.is_clustering() => {
                self.places.insert(queue, place);
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "the task of a queue failed"),
        }
        self.queues.retain(|_, handle| !handle.task.is_finished());
        self.rebalance_soon();
    }

    /// Rebalances at once, but not twice within a second.
    fn rebalance_soon(&mut self) {
        self.next_rebalance = self.next_rebalance.min(self.no_rebalance_before);
    }

    /// Rebalances when the other members know of the broker as well that has just gone or come.
    fn let_others_return(&mut self) {
        let returned = Instant::now() + RETURN_TIME;
        self.no_rebalance_before = returned.min(self.rebalanced + REBALANCE_PERIOD_MAX);
        self.next_rebalance = self.no_rebalance_before;
    }

    async fn rebalance(&mut self) {
        let mut is_complete = true;
        let topics: Vec<Arc<str>> = self.member.subscriptions.keys().cloned().collect();
        for topic in topics {
            is_complete &= match self.share(&topic).await {
                Ok(Some(share)) => {
                    self.adopt(&topic, share);
                    true
                }
                Ok(None) => false,
                Err(error) => {
                    let is_gone = matches!(error, Error::NoRoute { .. });
                    if is_gone {
                        self.forget(&topic);
                    }
                    // The broker makes the retry topic when it hears of the group.
                    let is_expected = is_gone && Member::is_retry_topic(&topic);
                    if !is_expected {
                        tracing::warn!(group = %self.member.group, %topic, %error,
                            "not rebalanced");
                    }
                    is_expected
                }
            };
        }
        // Routes may name new ones.
        self.tell_others();
        self.rebalanced = Instant::now();
        self.no_rebalance_before = self.rebalanced + REBALANCE_PAUSE;
        let pause = if is_complete { REBALANCE_PERIOD } else { REBALANCE_PAUSE };
        self.next_rebalance = self.rebalanced + pause;
    }

    /// Our queues of a topic; `None` if the brokers do not know us yet.
    async fn share(&mut self, topic: &str) -> Result<Option<Vec<MessageQueue>>, Error> {
        let route = self.member.client.route(topic).await?;
        let queues = route.read_queues();
        if !self.member.is_clustering() {
            return Ok(Some(queues));
        }
        let members = members(&self.member, &route).await;
        // One that knows no member at all refuses.
        let is_refused = members.as_ref().is_err_and(|error| error.code().is_some());
        let me = self.member.client.id();
        let share = members.map(|members| rebalance::share(queues, members, &me));
        if is_refused || matches!(share, Ok(None)) {
            self.tell_all();
        }
        share
    }

    /// Gives up the queues of the topic that are not in `share` and begins those that are new.
    fn adopt(&mut self, topic: &str, share: Vec<MessageQueue>) {
        let share: BTreeSet<MessageQueue> = share.into_iter().collect();
        for (queue, handle) in &mut self.queues {
            if &*queue.topic == topic && handle.is_ours && !share.contains(queue) {
                tracing::info!(group = %self.member.group, %topic, broker = %queue.broker_name,
                    queue_id = queue.queue_id, "gives up a queue");
                handle.end(End::GivenUp);
            }
        }
        for queue in share {
            // One that we had just given up begins again once the handler is done with the old.
            if self.queues.contains_key(&queue) {
                continue;
            }
            let (end, ended) = watch::channel(None);
            let (member, place) = (Arc::clone(&self.member), self.places.remove(&queue));
            let reading = queue.clone();
            let task = self.readers.spawn(async move {
                let place = queue::read(member, reading.clone(), place, ended).await;
                (reading, place)
            });
            self.queues.insert(queue, Handle { end, task, is_ours: true });
        }
    }

    /// Stops reading a topic that is gone: one that is made anew begins at its first message. The
    /// route was missing for more than half a minute before.
    fn forget(&mut self, topic: &str) {
        for (queue, handle) in &mut self.queues {
            if &*queue.topic == topic && handle.is_ours {
                handle.end(End::Forgotten);
            }
        }
    }

    /// Tells all known brokers of the member.
    fn tell_all(&mut self) {
        let known = self.known();
        self.told.retain(|addr| known.contains(addr));
        self.lost.retain(|addr| known.contains(addr));
        self.tell(known);
        self.next_heartbeat = Instant::now() + HEARTBEAT_PERIOD;
    }

    /// Tells those known brokers of the member that are not told yet.
    fn tell_others(&mut self) {
        let mut others = self.known();
        others.retain(|addr| !self.told.contains(addr));
        self.tell(others);
    }

    fn known(&self) -> BTreeSet<Arc<str>> {
        self.member.client.brokers().into_values().collect()
    }

    /// In the background: one that is gone delays nothing.
    fn tell(&mut self, addrs: BTreeSet<Arc<str>>) {
        let member = &self.member;
        let data = Arc::new(HeartbeatData {
            client_id: member.client.id(),
            consumer_data_set: vec![ConsumerData {
                consume_from_where: member.consume_from(),
                consume_type: ConsumeType::Passively,
                group_name: Arc::clone(&member.group),
                message_model: member.settings.model,
                subscription_data_set: member.subscriptions.values().cloned().collect(),
                unit_mode: false,
            }],
            ..HeartbeatData::default()
        });
        for addr in addrs {
            self.last_telling = Instant::now();
            if !self.being_told.insert(Arc::clone(&addr)) {
                continue;
            }
            let (client, data) = (member.client.clone(), Arc::clone(&data));
            self.heartbeats.spawn(async move {
                let told = client.heartbeat(&addr, &data).await;
                (addr, told)
            });
        }
        self.next_telling = Instant::now() + HEARTBEAT_PERIOD;
    }

    fn note_told(&mut self, told: Result<Told, JoinError>) {
        let now = Instant::now();
        match told {
            Ok((addr, Ok(()))) if self.being_told.remove(&addr) => {
                if self.lost.remove(&addr) {
                    self.let_others_return();
                } else if !self.told.contains(&addr) {
                    self.rebalance_soon();
                }
                self.told.insert(addr);
                return;
            }
            // Lost meanwhile.
            Ok((_, Ok(()))) => {}
            Ok((addr, Err(error))) => {
                tracing::warn!(group = %self.member.group, %addr, %error, "no heartbeat");
                self.being_told.remove(&addr);
                self.told.remove(&addr);
            }
            Err(error) => tracing::error!(%error, "a heartbeat failed"),
        }
        self.next_telling = self.next_telling.min(now + HEARTBEAT_PAUSE);
    }

    /// Has the queues commit and the handler finish, and then tells the brokers.
    async fn leave(mut self) {
        for handle in self.queues.values_mut().filter(|handle| handle.is_ours) {
            handle.end(End::Leaving);
        }
        while self.readers.join_next().await.is_some() {}
        let mut calls = JoinSet::new();
        for addr in self.known() {
            calls.spawn(unregister(Arc::clone(&self.member), addr));
        }
        while calls.join_next().await.is_some() {}
    }
}

async fn unregister(member: Arc<Member>, addr: Arc<str>) {
    let request = UnregisterClient {
        client_id: member.client.id().to_string(),
        producer_group: None,
        consumer_group: Some(member.group.to_string()),
    };
    let left = member.client.call::<UnregisterClient>(&addr, &request, Bytes::new()).await;
    if let Err(error) = left {
        tracing::debug!(group = %member.group, %addr, %error, "not unregistered");
    }
}

/// Has a broker check an expression of SQL, so that a mistake in it shows at the start.
async fn check(
    member: &Member,
    subscription: &SubscriptionData,
    route: &Route,
) -> Result<(), Error> {
    let broker = route.data().broker_datas.first();
    let Some(addr) = broker.and_then(|broker| broker.broker_addrs.values().next()) else {
        return Ok(());
    };
    if subscription.is_tag_type() {
        return Ok(());
    }
    let body = CheckClientRequestBody {
        client_id: member.client.id().to_string(),
        group: member.group.to_string(),
        namespace: None,
        subscription_data: subscription.clone(),
    };
    let request = CheckClientConfig {};
    let body = json::write(&body).into();
    member.client.call::<CheckClientConfig>(addr, &request, body).await.map(|_| ())
}

/// The members of the group, as the first broker of the route says that answers.
async fn members(member: &Member, route: &Route) -> Result<Vec<Arc<str>>, Error> {
    let request = GetConsumerListByGroup { consumer_group: member.group.to_string() };
    let brokers = &route.data().broker_datas;
    let mut failure = Error::NoRoute { topic: route.topic().to_owned() };
    for at in 0..brokers.len() {
        let broker = &brokers[(spread(&member.group, brokers.len()) + at) % brokers.len()];
        let Some(addr) = broker.broker_addrs.values().next() else { continue };
        let call = member.client.call::<GetConsumerListByGroup>(addr, &request, Bytes::new());
        match call.await {
            Ok(answer) => {
                return Ok(answer.json::<GetConsumerListByGroupResponseBody>()?.consumer_id_list);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}
