//! Who is connected: producers and consumers, with their subscriptions. Spec `broker.md` 4.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use apogee_types::Millis;
use apogee_types::subscription::{ConsumeFromWhere, ConsumeType, MessageModel, SubscriptionData};
use parking_lot::Mutex;

use crate::Map;

/// A client that said nothing for so long is gone; upstream's `channelExpiredTimeout`.
pub const EXPIRY_MS: Millis = 120_000;

/// A number that no other connection of this process has had.
pub type ConnectionId = u64;

/// Something to tell a client, unasked. The door encodes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Members or topics of the group changed: balance again.
    GroupChanged { group: Arc<str> },
}

/// The answer to a message that a producer sent as a request. Spec `broker.md` 1.7.
#[derive(Debug, Clone)]
pub struct Reply {
    pub producer_group: String,
    pub topic: String,
    pub queue_id: i32,
    pub sys_flag: i32,
    pub flag: i32,
    pub born_ms: Millis,
    pub born_host: SocketAddr,
    pub store_host: SocketAddr,
    pub stored_ms: Millis,
    pub reconsume_times: i32,
    pub properties: Vec<u8>,
    pub body: Vec<u8>,
}

/// What a client says when it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// In a form that only tools read.
    Answer(Vec<u8>),
    Refusal(String),
    /// It is gone, or takes too long.
    Nothing,
}

pub type Hear = Box<dyn FnOnce(Heard) + Send>;

/// The way to a connected client. One implementation for each kind of door.
pub trait Outlet: Send + Sync {
    /// Passes on a notice; drops it if the client reads too slowly.
    fn notify(&self, notice: Notice);
    /// Hands a reply to the client that asked; `done` is told whether the client took it.
    fn push_reply(&self, reply: Reply, done: Box<dyn FnOnce(bool) + Send>);
    /// Asks a consumer what it does for a group; with stacks: of its threads, too.
    fn ask_running_info(&self, client_id: &str, group: &str, has_stacks: bool, done: Hear);
    /// Closes the connection.
    fn close(&self);
}

/// A connection and who speaks over it.
#[derive(Clone)]
pub struct Client {
    pub connection: ConnectionId,
    pub client_id: Arc<str>,
    /// `host:port` of the peer.
    pub address: Arc<str>,
    /// Numbers of the protocol, for views: what it is written in, and its release.
    pub language: u8,
    pub version: i32,
    pub outlet: Arc<dyn Outlet>,
}

/// What a heartbeat says about one consumer group.
#[derive(Debug, Clone)]
pub struct GroupBeat {
    pub group: Arc<str>,
    pub consume_type: ConsumeType,
    pub message_model: MessageModel,
    pub consume_from_where: ConsumeFromWhere,
    /// `None`: unchanged since the last heartbeat (its second version leaves them out).
    pub subscriptions: Option<Vec<SubscriptionData>>,
    /// Whether changes are told to the members, by configuration.
    pub notify: bool,
}

/// A consumer group as its live members describe it; the last heartbeat wins.
#[derive(Clone, Default)]
pub struct ConsumerGroup {
    pub consume_type: ConsumeType,
    pub message_model: MessageModel,
    pub consume_from_where: ConsumeFromWhere,
    pub subscriptions: BTreeMap<Arc<str>, Arc<SubscriptionData>>,
    members: BTreeMap<ConnectionId, Member>,
}

#[derive(Clone)]
struct Member {
    client: Client,
    heard_at: Millis,
}

impl ConsumerGroup {
    #[must_use]
    pub fn is_broadcasting(&self) -> bool {
        self.message_model == MessageModel::Broadcasting
    }

    #[must_use]
    pub fn has_member(&self, connection: ConnectionId) -> bool {
        self.members.contains_key(&connection)
    }

    pub fn clients(&self) -> impl Iterator<Item = &Client> {
        self.members.values().map(|member| &member.client)
    }
}

/// Connected clients by group.
///
/// A connection is in `connections` with every group it is a member of, so that closing it finds
/// them without a search.
#[derive(Default)]
pub struct Clients {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    consumers: Map<Arc<str>, ConsumerGroup>,
    producers: Map<Arc<str>, BTreeMap<ConnectionId, Member>>,
    connections: Map<ConnectionId, Groups>,
    /// Fingerprint of the last heartbeat of a group, version two.
    fingerprints: Map<Arc<str>, i32>,
}

#[derive(Default)]
struct Groups {
    consumers: Vec<Arc<str>>,
    producers: Vec<Arc<str>>,
}

/// Notices that a change caused, to be sent once the lock is free.
struct Told {
    group: Arc<str>,
    clients: Vec<Client>,
}

impl Clients {
    /// Notes that a producer is alive.
    pub fn beat_producer(&self, client: &Client, group: &str, now: Millis) {
        let mut state = self.state.lock();
        let member = Member { client: client.clone(), heard_at: now };
        let members = crate::entry(&mut state.producers, group);
        if members.insert(client.connection, member).is_none() {
            let groups = state.connections.entry(client.connection).or_default();
            groups.producers.push(group.into());
        }
    }

    /// Notes that a consumer is alive, and tells the group if its members or topics changed.
    pub fn beat_consumer(&self, client: &Client, beat: GroupBeat, now: Millis) {
        let told = {
            let mut state = self.state.lock();
            let is_new = state.join(client, &beat.group, now);
            let group = state.consumers.entry(Arc::clone(&beat.group)).or_default();
            group.consume_type = beat.consume_type;
            group.message_model = beat.message_model;
            group.consume_from_where = beat.consume_from_where;
            let has_changed = match beat.subscriptions {
                Some(subscriptions) => replace_subscriptions(group, subscriptions),
                None => false,
            };
            (beat.notify && (is_new || has_changed)).then(|| told(&beat.group, group)).flatten()
        };
        tell(told);
    }

    /// Stores a group's fingerprint; says whether another one was stored before.
    pub fn fingerprint_changed(&self, group: &str, fingerprint: i32) -> bool {
        let before = self.state.lock().fingerprints.insert(group.into(), fingerprint);
        before.is_some_and(|before| before != fingerprint)
    }

    /// The connection leaves a producer group.
    pub fn leave_producer(&self, connection: ConnectionId, group: &str) {
        self.state.lock().leave_producer(connection, group);
    }

    /// The connection leaves a consumer group; those who stay are told if `notify` says so.
    pub fn leave_consumer(&self, connection: ConnectionId, group: &str, notify: bool) {
        let left = self.state.lock().leave_consumer(connection, group);
        tell(left.filter(|_| notify));
    }

    /// The connection is closed: it leaves all its groups.
    pub fn closed(&self, connection: ConnectionId) {
        let told: Vec<Told> = {
            let mut state = self.state.lock();
            let Some(groups) = state.connections.remove(&connection) else { return };
            groups.producers.iter().for_each(|group| state.leave_producer(connection, group));
            let leave = |group: &Arc<str>| state.leave_consumer(connection, group);
            groups.consumers.iter().filter_map(leave).collect()
        };
        told.into_iter().for_each(|told| tell(Some(told)));
    }

    /// Closes the connections of clients that were not heard for too long.
    pub fn expire(&self, now: Millis) {
        let is_silent = |member: &&Member| EXPIRY_MS < now - member.heard_at;
        let silent: Vec<Client> = {
            let state = self.state.lock();
            let consumers = state.consumers.values().flat_map(|group| group.members.values());
            let producers = state.producers.values().flat_map(BTreeMap::values);
            consumers.chain(producers).filter(is_silent).map(|it| it.client.clone()).collect()
        };
        for client in silent {
            tracing::info!(client = &*client.client_id, "no heartbeat for two minutes, closing");
            client.outlet.close();
            self.closed(client.connection);
        }
    }

    /// A snapshot of the group, if it has live members.
    #[must_use]
    pub fn consumer_group(&self, group: &str) -> Option<ConsumerGroup> {
        self.state.lock().consumers.get(group).cloned()
    }

    /// Looks at the group without copying it.
    pub fn with_consumer_group<T>(
        &self,
        group: &str,
        look: impl FnOnce(&ConsumerGroup) -> T,
    ) -> Option<T> {
        self.state.lock().consumers.get(group).map(look)
    }

    /// The live producers of a group.
    #[must_use]
    pub fn producers(&self, group: &str) -> Vec<Client> {
        let state = self.state.lock();
        let members = state.producers.get(group).into_iter().flat_map(BTreeMap::values);
        members.map(|member| member.client.clone()).collect()
    }

    /// All live producers by group, with the time of their last heartbeat.
    #[must_use]
    pub fn all_producers(&self) -> BTreeMap<Arc<str>, Vec<(Client, Millis)>> {
        let state = self.state.lock();
        let clients = |members: &BTreeMap<_, Member>| {
            members.values().map(|it| (it.client.clone(), it.heard_at)).collect()
        };
        state.producers.iter().map(|(group, it)| (Arc::clone(group), clients(it))).collect()
    }

    /// A live producer of that client id, whichever its group.
    #[must_use]
    pub fn producer_by_id(&self, client_id: &str) -> Option<Client> {
        let state = self.state.lock();
        let mut members = state.producers.values().flat_map(BTreeMap::values);
        members.find(|member| &*member.client.client_id == client_id).map(|it| it.client.clone())
    }

    /// The live groups that subscribe the topic.
    #[must_use]
    pub fn groups_of(&self, topic: &str) -> Vec<Arc<str>> {
        let state = self.state.lock();
        let subscribed =
            state.consumers.iter().filter(|(_, it)| it.subscriptions.contains_key(topic));
        let mut groups: Vec<_> = subscribed.map(|(group, _)| Arc::clone(group)).collect();
        groups.sort();
        groups
    }
}

impl State {
    /// Adds or refreshes the member; whether it is new in the group.
    fn join(&mut self, client: &Client, group: &Arc<str>, now: Millis) -> bool {
        let members = &mut self.consumers.entry(Arc::clone(group)).or_default().members;
        let member = Member { client: client.clone(), heard_at: now };
        let is_new = members.insert(client.connection, member).is_none();
        if is_new {
            let groups = self.connections.entry(client.connection).or_default();
            groups.consumers.push(Arc::clone(group));
        }
        is_new
    }

    fn leave_producer(&mut self, connection: ConnectionId, group: &str) {
        if let Some(members) = self.producers.get_mut(group) {
            members.remove(&connection);
            if members.is_empty() {
                self.producers.remove(group);
            }
        }
        if let Some(groups) = self.connections.get_mut(&connection) {
            groups.producers.retain(|it| **it != *group);
        }
    }

    /// Whom to tell, if the group was known.
    fn leave_consumer(&mut self, connection: ConnectionId, group: &str) -> Option<Told> {
        if let Some(groups) = self.connections.get_mut(&connection) {
            groups.consumers.retain(|it| **it != *group);
        }
        let name = Arc::clone(self.consumers.get_key_value(group)?.0);
        let group = self.consumers.get_mut(&name)?;
        group.members.remove(&connection);
        if group.members.is_empty() {
            self.consumers.remove(&name);
            self.fingerprints.remove(&name);
            return None;
        }
        told(&name, group)
    }
}

/// Takes over the heartbeat's set of subscriptions; whether the set of topics changed. An older
/// version of a subscription than the known one is left out.
fn replace_subscriptions(group: &mut ConsumerGroup, subscriptions: Vec<SubscriptionData>) -> bool {
    let before = std::mem::take(&mut group.subscriptions);
    for new in subscriptions {
        let topic = Arc::clone(&new.topic);
        let newer = match before.get(&topic) {
            Some(known) if new.sub_version <= known.sub_version => Arc::clone(known),
            _ => Arc::new(new),
        };
        group.subscriptions.insert(topic, newer);
    }
    !before.keys().eq(group.subscriptions.keys())
}

/// The members to be told; none in a broadcasting group, where nothing is shared out.
fn told(name: &Arc<str>, group: &ConsumerGroup) -> Option<Told> {
    let clients = || group.clients().cloned().collect();
    (!group.is_broadcasting()).then(|| Told { group: Arc::clone(name), clients: clients() })
}

fn tell(told: Option<Told>) {
    let Some(told) = told else { return };
    for client in told.clients {
        client.outlet.notify(Notice::GroupChanged { group: Arc::clone(&told.group) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes down what a client is told.
    #[derive(Default)]
    struct Told {
        notices: Mutex<Vec<Notice>>,
        is_closed: Mutex<bool>,
    }

    impl Outlet for Told {
        fn notify(&self, notice: Notice) {
            self.notices.lock().push(notice);
        }

        fn push_reply(&self, _: Reply, done: Box<dyn FnOnce(bool) + Send>) {
            done(false);
        }

        fn ask_running_info(&self, _: &str, _: &str, _: bool, done: Box<dyn FnOnce(Heard) + Send>) {
            done(Heard::Nothing);
        }

        fn close(&self) {
            *self.is_closed.lock() = true;
        }
    }

    impl Told {
        fn take(&self) -> usize {
            std::mem::take(&mut *self.notices.lock()).len()
        }
    }

    fn client(connection: ConnectionId) -> (Client, Arc<Told>) {
        let told = Arc::new(Told::default());
        let outlet: Arc<dyn Outlet> = told.clone();
        let (client_id, address) = (format!("c{connection}").into(), "10.0.0.9:1".into());
        (Client { connection, client_id, address, language: 0, version: 0, outlet }, told)
    }

    fn beat(model: MessageModel, topic: Option<&str>) -> GroupBeat {
        let subscription = |topic| vec![SubscriptionData::of_tags(topic, "*").unwrap()];
        GroupBeat {
            group: "g".into(),
            consume_type: ConsumeType::default(),
            message_model: model,
            consume_from_where: ConsumeFromWhere::default(),
            subscriptions: topic.map(subscription),
            notify: true,
        }
    }

    const CLUSTERING: MessageModel = MessageModel::Clustering;

    #[test]
    fn members_are_told_who_comes_and_goes_also_without_a_word() {
        let clients = Clients::default();
        let ((one, told_one), (two, told_two)) = (client(1), client(2));
        clients.beat_consumer(&one, beat(CLUSTERING, Some("t")), 0);
        told_one.take();
        clients.beat_consumer(&two, beat(CLUSTERING, Some("t")), 0);
        assert_eq!((told_one.take(), told_two.take()), (1, 1));
        clients.beat_consumer(&two, beat(CLUSTERING, Some("t")), 0);
        assert_eq!((told_one.take(), told_two.take()), (0, 0), "nothing is new");
        clients.beat_consumer(&two, beat(CLUSTERING, Some("other")), 0);
        assert_eq!((told_one.take(), told_two.take()), (1, 1), "other topics");
        clients.closed(2);
        assert_eq!((told_one.take(), told_two.take()), (1, 0), "its connection dropped");
    }

    #[test]
    fn members_of_a_broadcasting_group_are_told_nothing() {
        let clients = Clients::default();
        let ((one, told), (two, _)) = (client(1), client(2));
        for member in [&one, &two] {
            clients.beat_consumer(member, beat(MessageModel::Broadcasting, Some("t")), 0);
        }
        clients.closed(2);
        assert_eq!(told.take(), 0);
    }

    #[test]
    fn who_says_nothing_for_two_minutes_is_closed_and_the_others_are_told() {
        let clients = Clients::default();
        let ((silent, told_silent), (other, told_other)) = (client(1), client(2));
        clients.beat_consumer(&silent, beat(CLUSTERING, Some("t")), 0);
        clients.beat_producer(&silent, "p", 0);
        clients.beat_consumer(&other, beat(CLUSTERING, Some("t")), 60_000);
        told_other.take();
        clients.expire(EXPIRY_MS);
        assert!(!*told_silent.is_closed.lock());
        clients.expire(EXPIRY_MS + 1);
        assert!(*told_silent.is_closed.lock() && !*told_other.is_closed.lock());
        assert_eq!(told_other.take(), 1);
        assert_eq!(clients.with_consumer_group("g", |group| group.clients().count()), Some(1));
        assert!(clients.producers("p").is_empty());
    }

    #[test]
    fn a_beat_without_subscriptions_leaves_them_and_fingerprints_end_with_their_group() {
        let clients = Clients::default();
        let (one, _) = client(1);
        clients.beat_consumer(&one, beat(CLUSTERING, Some("t")), 0);
        assert!(!clients.fingerprint_changed("g", 7), "none was known");
        clients.beat_consumer(&one, beat(CLUSTERING, None), 0);
        assert_eq!(clients.groups_of("t"), ["g".into()]);
        assert!(!clients.fingerprint_changed("g", 7) && clients.fingerprint_changed("g", 8));
        clients.closed(1);
        assert!(!clients.fingerprint_changed("g", 9), "none is known any more");
    }
}
