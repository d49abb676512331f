//! The task that owns a member of a group: its share of the queues, its timers, its notices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use apogee_types::json;
use apogee_types::route::MessageQueue;
use apogee_types::subscription::{ConsumeType, SubscriptionData};
use apogee_wire::remoting::bodies::{
    CheckClientRequestBody, ConsumerData, GetConsumerListByGroupResponseBody, HeartbeatData,
    LockBatchRequestBody, LockBatchResponseBody,
};
use apogee_wire::remoting::requests::{
    CheckClientConfig, GetConsumerListByGroup, LockBatchMq, UnlockBatchMq, UnregisterClient,
    UpdateConsumerOffset,
};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use super::queue::Queue;
use super::{Member, offsets, rebalance, spread};
use crate::notices::{Listener, Notice};
use crate::producer::HEARTBEAT_PERIOD;
use crate::routes::Route;
use crate::{Client, Error};

/// Upstream's `rocketmq.client.rebalance.waitInterval`.
const REBALANCE_PERIOD: Duration = Duration::from_secs(20);
/// Upstream's `minInterval`: while something is missing, and between notices.
const REBALANCE_PAUSE: Duration = Duration::from_secs(1);
/// Upstream's `persistConsumerOffsetInterval`.
const COMMIT_PERIOD: Duration = Duration::from_secs(5);
/// Upstream's `rebalanceLockInterval`.
const LOCK_PERIOD: Duration = Duration::from_secs(20);
/// Half of what the broker gives, so that ours ends first; upstream's `rebalanceLockMaxLiveTime`.
const LEASE: Duration = Duration::from_secs(30);
/// Notices that may wait. A change of members that is lost in a full queue is no loss: those that
/// wait say the same.
const NOTICES_MAX: usize = 64;

pub(super) struct Coordinator {
    member: Arc<Member>,
    stopped: watch::Receiver<bool>,
    notices: mpsc::Receiver<Notice>,
    _listener: Arc<Listener>,
    queues: BTreeMap<MessageQueue, Queue>,
    /// Queues that are no longer ours, but whose last messages the handler still has.
    retired: BTreeSet<MessageQueue>,
    retiring: JoinSet<MessageQueue>,
    rebalanced: Instant,
    next_rebalance: Instant,
}

/// What the coordinator does next.
enum Duty {
    Notice(Notice),
    Rebalance,
    Heartbeat,
    Commit,
    Lock,
    Retired(MessageQueue),
}

impl Coordinator {
    /// Finds the brokers and tells them of the member.
    pub async fn join(member: Arc<Member>, stopped: watch::Receiver<bool>) -> Result<Self, Error> {
        let (sender, notices) = mpsc::channel(NOTICES_MAX);
        let listener: Arc<Listener> = Arc::new(move |notice: &Notice| {
            let _ = sender.try_send(notice.clone());
        });
        member.client.listen(&listener);
        for (topic, subscription) in &member.subscriptions {
            match member.client.route(topic).await {
                Ok(route) => check(&member, subscription, &route).await?,
                Err(Error::NoRoute { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let now = Instant::now();
        let coordinator = Self {
            member,
            stopped,
            notices,
            _listener: listener,
            queues: BTreeMap::new(),
            retired: BTreeSet::new(),
            retiring: JoinSet::new(),
            rebalanced: now,
            next_rebalance: now,
        };
        coordinator.heartbeat().await;
        Ok(coordinator)
    }

    pub async fn run(mut self) {
        let mut stopped = self.stopped.clone();
        let work = async {
            let mut heartbeat = every(HEARTBEAT_PERIOD);
            let mut commit = every(COMMIT_PERIOD);
            let mut lock = every(LOCK_PERIOD);
            loop {
                let duty = self.next_duty(&mut heartbeat, &mut commit, &mut lock).await;
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

    async fn next_duty(
        &mut self,
        heartbeat: &mut Interval,
        commit: &mut Interval,
        lock: &mut Interval,
    ) -> Duty {
        tokio::select! {
            biased;
            Some(notice) = self.notices.recv() => Duty::Notice(notice),
            Some(Ok(queue)) = self.retiring.join_next() => Duty::Retired(queue),
            () = sleep_until(self.next_rebalance) => Duty::Rebalance,
            _ = heartbeat.tick() => Duty::Heartbeat,
            _ = commit.tick() => Duty::Commit,
            _ = lock.tick() => Duty::Lock,
        }
    }

    async fn fulfil(&mut self, duty: Duty) {
        match duty {
            Duty::Notice(notice) => self.take_notice(notice).await,
            Duty::Rebalance => self.rebalance().await,
            Duty::Heartbeat => self.heartbeat().await,
            Duty::Commit => self.commit().await,
            Duty::Lock => self.renew_locks().await,
            Duty::Retired(queue) => {
                self.retired.remove(&queue);
                self.rebalance_soon();
            }
        }
    }

    async fn take_notice(&mut self, notice: Notice) {
        match notice {
            Notice::MembersChanged { group } if *group == *self.member.group => {
                self.rebalance_soon();
            }
            Notice::OffsetsReset { group, offsets, .. } if *group == *self.member.group => {
                self.reset_offsets(offsets).await;
            }
            _ => {}
        }
    }

    /// Rebalances at once, but not twice within a second.
    fn rebalance_soon(&mut self) {
        self.next_rebalance = self.next_rebalance.min(self.rebalanced + REBALANCE_PAUSE);
    }

    async fn rebalance(&mut self) {
        let mut is_complete = true;
        let topics: Vec<Arc<str>> = self.member.subscriptions.keys().cloned().collect();
        for topic in topics {
            let adopted = match self.share(&topic).await {
                Ok(Some(share)) => self.adopt(&topic, share).await,
                Ok(None) => Ok(false),
                // The broker makes the retry topic when it hears of the group.
                Err(Error::NoRoute { .. }) => Ok(Member::is_retry_topic(&topic)),
                Err(error) => Err(error),
            };
            is_complete &= adopted.unwrap_or_else(|error| {
                tracing::warn!(group = %self.member.group, %topic, %error, "not rebalanced");
                false
            });
        }
        self.rebalanced = Instant::now();
        let pause = if is_complete { REBALANCE_PERIOD } else { REBALANCE_PAUSE };
        self.next_rebalance = self.rebalanced + pause;
    }

    /// Our queues of a topic; `None` if the brokers do not know us yet.
    async fn share(&self, topic: &str) -> Result<Option<Vec<MessageQueue>>, Error> {
        let route = self.member.client.route(topic).await?;
        let queues = route.read_queues();
        if !self.member.is_clustering() {
            return Ok(Some(queues));
        }
        let members = members(&self.member, &route).await?;
        let share = rebalance::share(queues, members, &self.member.client.id());
        if share.is_none() {
            self.heartbeat().await;
        }
        Ok(share)
    }

    /// Gives up the queues of the topic that are not in `share` and begins those that are new.
    /// `false` if some could not be begun yet.
    async fn adopt(&mut self, topic: &str, share: Vec<MessageQueue>) -> Result<bool, Error> {
        let share: BTreeSet<MessageQueue> = share.into_iter().collect();
        let lost: Vec<MessageQueue> = self
            .queues
            .keys()
            .filter(|queue| &*queue.topic == topic && !share.contains(queue))
            .cloned()
            .collect();
        for queue in lost {
            self.retire(queue, LastOffset::Commit).await;
        }
        let new: Vec<MessageQueue> =
            share.into_iter().filter(|queue| !self.queues.contains_key(queue)).collect();
        let wanted = new.len();
        let free = new.into_iter().filter(|queue| !self.retired.contains(queue)).collect();
        let mut begun = 0;
        for queue in self.lock(free).await? {
            let leased_until = Instant::now() + LEASE;
            let first = offsets::first(&self.member, &queue).await?;
            tracing::info!(group = %self.member.group, %topic, broker = %queue.broker_name,
                queue_id = queue.queue_id, offset = first.0, "reads a queue");
            let started = Queue::start(&self.member, &queue, first, leased_until);
            self.queues.insert(queue, started);
            begun += 1;
        }
        Ok(begun == wanted)
    }

    /// Stops reading a queue. What the handler has, it finishes in the background.
    async fn retire(&mut self, queue: MessageQueue, last_offset: LastOffset) {
        let Some(mut reading) = self.queues.remove(&queue) else { return };
        tracing::info!(group = %self.member.group, topic = %queue.topic,
            broker = %queue.broker_name, queue_id = queue.queue_id, "gives up a queue");
        reading.stop();
        let member = Arc::clone(&self.member);
        let is_locked = member.settings.is_ordered && member.is_clustering();
        let commits = last_offset == LastOffset::Commit && member.is_clustering();
        if commits && !is_locked {
            // At once: the next reader begins here, and must not be set back later.
            commit_last(&member, &queue, &reading).await;
        }
        self.retired.insert(queue.clone());
        self.retiring.spawn(async move {
            reading.stopped().await;
            if is_locked {
                // The next reader waits for the lock, so the very last offset counts.
                if commits {
                    commit_last(&member, &queue, &reading).await;
                }
                unlock(&member, vec![queue.clone()]).await;
            }
            queue
        });
    }

    async fn reset_offsets(&mut self, offsets: BTreeMap<MessageQueue, i64>) {
        for (queue, offset) in offsets {
            if !self.queues.contains_key(&queue) {
                continue;
            }
            self.retire(queue.clone(), LastOffset::Forget).await;
            let group = &self.member.group;
            if let Err(error) = self.member.client.commit_offset(group, &queue, offset).await {
                tracing::warn!(%group, topic = %queue.topic, offset, %error, "not reset");
            }
        }
        self.rebalance_soon();
    }

    /// Tells all known brokers of the member.
    async fn heartbeat(&self) {
        let member = &self.member;
        let data = HeartbeatData {
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
        };
        for addr in member.client.brokers().values() {
            if let Err(error) = member.client.heartbeat(addr, &data).await {
                tracing::warn!(group = %member.group, %addr, %error, "no heartbeat");
            }
        }
    }

    /// Commits how far each queue is, where that is news.
    async fn commit(&mut self) {
        if !self.member.is_clustering() {
            return;
        }
        for (queue, reading) in &mut self.queues {
            let offset = reading.window.done_below();
            if reading.committed == Some(offset) {
                continue;
            }
            match commit_oneway(&self.member, queue, offset).await {
                Ok(()) => reading.committed = Some(offset),
                Err(error) => {
                    let group = &self.member.group;
                    tracing::warn!(%group, topic = %queue.topic, offset, %error, "not committed");
                }
            }
        }
    }

    /// The queues of these that we may read: all, or in order those that we could lock.
    async fn lock(&self, queues: Vec<MessageQueue>) -> Result<Vec<MessageQueue>, Error> {
        if !self.member.settings.is_ordered || !self.member.is_clustering() {
            return Ok(queues);
        }
        let mut locked = Vec::new();
        for (addr, queues) in by_broker(&self.member.client, queues).await {
            let body = json::write(&lock_body(&self.member, queues)).into();
            let answer = self.member.client.call::<LockBatchMq>(&addr, &LockBatchMq {}, body).await;
            locked.extend(answer?.json::<LockBatchResponseBody>()?.lock_ok_mq_set);
        }
        Ok(locked)
    }

    /// Holds the locks for another while. A queue that another has locked meanwhile is given up;
    /// one whose broker does not answer is not read once the lease has ended.
    async fn renew_locks(&mut self) {
        let held: Vec<MessageQueue> = self.queues.keys().cloned().collect();
        if held.is_empty() || !self.member.settings.is_ordered || !self.member.is_clustering() {
            return;
        }
        let until = Instant::now() + LEASE;
        let locked: BTreeSet<MessageQueue> = match self.lock(held.clone()).await {
            Ok(locked) => locked.into_iter().collect(),
            Err(error) => {
                tracing::warn!(group = %self.member.group, %error, "locks are not renewed");
                return;
            }
        };
        for queue in held {
            if locked.contains(&queue) {
                self.queues[&queue].extend_lease(until);
            } else {
                tracing::warn!(group = %self.member.group, topic = %queue.topic,
                    queue_id = queue.queue_id, "another holds the lock");
                self.retire(queue, LastOffset::Forget).await;
            }
        }
    }

    /// Lets the handler finish, commits, unlocks, and tells the brokers.
    async fn leave(mut self) {
        for reading in self.queues.values() {
            reading.stop();
        }
        let member = &self.member;
        let is_locked = member.settings.is_ordered && member.is_clustering();
        for (queue, reading) in &mut self.queues {
            reading.stopped().await;
            if member.is_clustering() {
                commit_last(member, queue, reading).await;
            }
        }
        while self.retiring.join_next().await.is_some() {}
        if is_locked {
            unlock(member, self.queues.keys().cloned().collect()).await;
        }
        let request = UnregisterClient {
            client_id: member.client.id().to_string(),
            producer_group: None,
            consumer_group: Some(member.group.to_string()),
        };
        for addr in member.client.brokers().values() {
            let left = member.client.call::<UnregisterClient>(addr, &request, Bytes::new()).await;
            if let Err(error) = left {
                tracing::debug!(group = %member.group, %addr, %error, "not unregistered");
            }
        }
    }
}

/// Whether the offset that a queue has reached is to be kept.
#[derive(Clone, Copy, PartialEq)]
enum LastOffset {
    Commit,
    Forget,
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
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

async fn commit_oneway(member: &Member, queue: &MessageQueue, offset: i64) -> Result<(), Error> {
    let addr = member.client.master_of(queue).await?;
    let request = UpdateConsumerOffset {
        consumer_group: member.group.to_string(),
        topic: queue.topic.to_string(),
        queue_id: queue.queue_id,
        commit_offset: offset,
    };
    member.client.oneway::<UpdateConsumerOffset>(&addr, &request, Bytes::new()).await
}

/// Commits and waits for the broker to say so.
async fn commit_last(member: &Member, queue: &MessageQueue, reading: &Queue) {
    let offset = reading.window.done_below();
    if reading.committed == Some(offset) {
        return;
    }
    if let Err(error) = member.client.commit_offset(&member.group, queue, offset).await {
        let group = &member.group;
        tracing::warn!(%group, topic = %queue.topic, offset, %error, "not committed");
    }
}

async fn unlock(member: &Member, queues: Vec<MessageQueue>) {
    for (addr, queues) in by_broker(&member.client, queues).await {
        let body = json::write(&lock_body(member, queues)).into();
        let unlocked = member.client.call::<UnlockBatchMq>(&addr, &UnlockBatchMq {}, body).await;
        if let Err(error) = unlocked {
            tracing::debug!(group = %member.group, %addr, %error, "not unlocked");
        }
    }
}

fn lock_body(member: &Member, queues: Vec<MessageQueue>) -> LockBatchRequestBody {
    LockBatchRequestBody {
        client_id: member.client.id().to_string(),
        consumer_group: member.group.to_string(),
        mq_set: queues,
        only_this_broker: false,
    }
}

/// Queues by the address of their broker; those whose broker is not known are left out.
async fn by_broker(
    client: &Client,
    queues: Vec<MessageQueue>,
) -> BTreeMap<Arc<str>, Vec<MessageQueue>> {
    let mut by_broker: BTreeMap<Arc<str>, Vec<MessageQueue>> = BTreeMap::new();
    for queue in queues {
        if let Ok(addr) = client.master_of(&queue).await {
            by_broker.entry(addr).or_default().push(queue);
        }
    }
    by_broker
}
