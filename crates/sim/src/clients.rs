//! The clients of a history: producers, consumers that pull, and a group that is pushed to. Each
//! notes what it sees.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use apogee_client::{
    Client, Error, Message, Options, Outcome, Producer, PullConsumer, PullStatus, Pulled,
    PushConsumer, ReceivedMessage, SendReceipt, SendStatus, StartFrom,
};
use apogee_net::Transport;
use apogee_types::properties::name;
use apogee_types::route::MessageQueue;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::clock::SimClock;
use crate::history::{Entry, Event, QUEUE_COUNT, Record, TOPIC};
use crate::node::Node;

/// After so long without anything new nothing new will come: longer than clients wait between
/// two looks at their group.
const QUIET: Duration = Duration::from_secs(45);
/// A member's clock is this far off at most.
const SKEW_MS_MAX: i64 = 1000;
/// Of the messages that are there at the end, so many-th each.
const LOOKED_UP_ONE_IN: usize = 5;
const PUSH_GROUP: &str = "pushed";
const PULL_GROUP: &str = "pulling";

/// What a last look at the node finds.
#[derive(Debug, Default)]
pub struct Ending {
    pub queues: BTreeMap<i32, KeptQueue>,
    /// Bodies that are in a queue, but are not found by their key.
    pub unfound: Vec<String>,
    /// How far the pulling group is, by queue.
    pub committed: BTreeMap<i32, Option<i64>>,
}

/// A queue, and what was read from its first offset on: offset and body.
#[derive(Debug)]
pub struct KeptQueue {
    pub min: i64,
    pub max: i64,
    pub messages: Vec<(i64, String)>,
}

/// All clients of a history.
pub struct Clients {
    name_server: &'static str,
    transport: Arc<dyn Transport>,
    clock: SimClock,
    record: Arc<Record>,
    /// When producers stop.
    until: Instant,
    random: fastrand::Rng,
    producers: JoinSet<()>,
    others: JoinSet<()>,
    pushed: Vec<PushConsumer>,
}

impl Clients {
    #[must_use]
    pub fn new(
        name_server: &'static str,
        transport: Arc<dyn Transport>,
        clock: SimClock,
        record: Arc<Record>,
        until: Instant,
        random: &mut fastrand::Rng,
    ) -> Self {
        let (producers, others, pushed) = (JoinSet::new(), JoinSet::new(), Vec::new());
        let random = random.fork();
        Self { name_server, transport, clock, record, until, random, producers, others, pushed }
    }

    fn options(&mut self, id: &str) -> Options {
        Options {
            name_servers: vec![self.name_server.to_owned()],
            transport: Arc::clone(&self.transport),
            clock: Arc::new(self.clock.with_skew(self.random.i64(-SKEW_MS_MAX..=SKEW_MS_MAX))),
            seed: self.random.u64(..),
            client_id: Some(id.to_owned()),
        }
    }

    /// Once, in calm weather.
    pub async fn create_topic(&mut self) -> Result<(), String> {
        let client = Client::new(self.options("admin"));
        let created = client.create_topic(TOPIC, QUEUE_COUNT).await;
        client.close().await;
        created.map_err(|error| format!("the topic was not created: {error}"))
    }

    pub async fn start(&mut self) -> Result<(), String> {
        for at in 0..self.random.u32(2..=3) {
            let options = self.options(&format!("p{at}"));
            let (random, until) = (self.random.fork(), self.until);
            let producer = Producer::builder(self.name_server).options(options).group("producers");
            let producer = producer.send_timeout(Duration::from_secs(1)).retries(0);
            let producer = producer.start().await.map_err(|error| error.to_string())?;
            let record = Arc::clone(&self.record);
            let sender = Sender { producer, record, random, name: format!("p{at}"), count: 0 };
            self.producers.spawn(sender.run(until));
        }
        for at in 0..2 {
            let client = Client::new(self.options(&format!("c{at}")));
            // The second one only looks; the first one's group moves.
            let group = if at == 0 { PULL_GROUP } else { "looking" };
            let consumer = PullConsumer::with(client, group).map_err(|it| it.to_string())?;
            let (record, random) = (Arc::clone(&self.record), self.random.fork());
            let puller = Puller { consumer, record, random, name: format!("c{at}") };
            self.others.spawn(puller.run(at == 0));
        }
        for at in 0..2 {
            // Where the weather breaks the connection, it is for the caller to try again.
            let mut member = self.member(&format!("g{at}")).await;
            while member.is_err() {
                sleep(Duration::from_millis(200)).await;
                member = self.member(&format!("g{at}")).await;
            }
            self.pushed.extend(member);
        }
        Ok(())
    }

    async fn member(&mut self, id: &str) -> Result<PushConsumer, Error> {
        let (record, name) = (Arc::clone(&self.record), id.to_owned());
        let random = Arc::new(parking_lot::Mutex::new(self.random.fork()));
        let handle = move |messages: Vec<ReceivedMessage>| {
            let mut wants_again = false;
            for message in &messages {
                let comes_again = 0 < message.reconsume_times;
                wants_again = !comes_again && random.lock().u32(0..10) == 0;
                let place = (message.queue_id, message.queue_offset.0 as i64);
                record.note(Event::Handled {
                    by: name.clone(),
                    place: Some(place).filter(|_| !comes_again),
                    body: name_of(message),
                    wants_again,
                });
            }
            let busy = Duration::from_millis(random.lock().u64(0..20));
            async move {
                sleep(busy).await;
                if wants_again { Outcome::RetryAt { delay_level: 1 } } else { Outcome::Done }
            }
        };
        let options = self.options(id);
        let builder = PushConsumer::builder(self.name_server, PUSH_GROUP).options(options);
        builder.subscribe(TOPIC, "*").start_from(StartFrom::Earliest).start(handle).await
    }

    /// Lets producers finish and the group handle what there is.
    pub async fn come_to_rest(&mut self, record: &Record) {
        while self.producers.join_next().await.is_some() {}
        sleep(Duration::from_secs(2)).await;
        self.others.shutdown().await;
        let mut known = 0;
        let mut since = Instant::now();
        loop {
            let entries = record.entries();
            let handled =
                entries.iter().filter(|it| matches!(it.event, Event::Handled { .. })).count();
            if known < handled {
                (known, since) = (handled, Instant::now());
            }
            if QUIET < since.elapsed() || is_all_handled(&entries) {
                break;
            }
            sleep(Duration::from_millis(500)).await;
        }
        // What comes twice may come.
        sleep(Duration::from_secs(1)).await;
        for member in self.pushed.drain(..) {
            member.shutdown().await;
        }
    }
}

/// Whether the group has all that was acknowledged, and again what it wanted again.
fn is_all_handled(entries: &[Entry]) -> bool {
    let mut open = BTreeSet::new();
    let mut handled = BTreeSet::new();
    for entry in entries {
        match &entry.event {
            Event::Handled { body, wants_again: true, .. } => drop(open.insert(body)),
            Event::Handled { body, .. } => {
                open.remove(body);
                handled.insert(body);
            }
            Event::Acknowledged { bodies, .. } => {
                open.extend(bodies.iter().filter(|body| !handled.contains(body)));
            }
            Event::AcknowledgedDelayed { body } if !handled.contains(body) => {
                open.insert(body);
            }
            _ => {}
        }
    }
    open.is_empty()
}

/// Reads every queue from its first offset on, looks some of it up by key, and asks where the
/// pulling group is.
pub async fn read_all(clients: &mut Clients) -> Result<Ending, String> {
    let client = Client::new(clients.options("reader"));
    let reader = PullConsumer::with(client.clone(), PULL_GROUP).map_err(|it| it.to_string())?;
    let mut ending = Ending::default();
    for id in 0..QUEUE_COUNT {
        let queue = queue(id);
        let failed = |error: Error| format!("queue {id} cannot be read at the end: {error}");
        reader.queues(TOPIC).await.map_err(failed)?;
        let min = client.min_offset(&queue).await.map_err(failed)?;
        let max = client.max_offset(&queue).await.map_err(failed)?;
        let mut messages = Vec::new();
        let mut next = min;
        while next < max {
            let pulled =
                reader.pull(&queue, "*", next, 32, Duration::ZERO).await.map_err(failed)?;
            if pulled.next_offset <= next {
                return Err(format!("queue {id} cannot be read at {next}: {:?}", pulled.status));
            }
            let place = |it: &ReceivedMessage| (it.queue_offset.0 as i64, name_of(it));
            messages.extend(pulled.messages.iter().map(place));
            next = pulled.next_offset;
        }
        for (_, body) in messages.iter().step_by(LOOKED_UP_ONE_IN) {
            let key = unique_key(body.split('/').next().unwrap_or(body));
            let found = client.query_by_key(TOPIC, &key, 32, 0..i64::MAX).await;
            let found = found.map_err(failed)?;
            if !found.iter().any(|message| name_of(message) == *body) {
                ending.unfound.push(body.clone());
            }
        }
        ending.queues.insert(id, KeptQueue { min, max, messages });
        let committed = reader.committed(&queue).await.map_err(failed)?;
        ending.committed.insert(id, committed);
    }
    client.close().await;
    Ok(ending)
}

fn queue(id: i32) -> MessageQueue {
    MessageQueue::new(TOPIC, Node::BROKER, id)
}

fn unique_key(name: &str) -> String {
    format!("{name:->32}")
}

/// A body tells its name, and the rest follows from it.
fn body(name: &str, len: usize) -> String {
    format!("{name}/{len}:{}", "x".repeat(len))
}

/// The name of a body that a producer made; of another the whole body.
fn name_of(message: &ReceivedMessage) -> String {
    let text = String::from_utf8_lossy(&message.body);
    let name = text.split_once(':').map_or("", |(name, _)| name);
    let made = name.split_once('/').and_then(|(name, len)| Some(body(name, len.parse().ok()?)));
    if made.as_deref() == Some(&*text) { name.to_owned() } else { format!("mangled: {text}") }
}

/// A producer and what it sends.
struct Sender {
    producer: Producer,
    record: Arc<Record>,
    random: fastrand::Rng,
    name: String,
    count: u32,
}

impl Sender {
    async fn run(mut self, until: Instant) {
        while Instant::now() < until {
            sleep(Duration::from_millis(self.random.u64(1..500))).await;
            let queue_id = self.random.i32(0..QUEUE_COUNT);
            let (count, is_delayed) = match self.random.u32(0..10) {
                0 => (self.random.usize(2..5), false),
                1 => (1, true),
                _ => (1, false),
            };
            let mut bodies = Vec::new();
            for _ in 0..count {
                self.count += 1;
                let len = self.random.usize(0..600);
                bodies.push((format!("{}-{}", self.name, self.count), len));
            }
            while !self.send(queue_id, &bodies, is_delayed).await && self.random.bool() {
                sleep(Duration::from_millis(self.random.u64(1..300))).await;
            }
        }
    }

    /// One try; whether it was acknowledged.
    async fn send(&mut self, queue_id: i32, bodies: &[(String, usize)], is_delayed: bool) -> bool {
        let to = Some(queue_id).filter(|_| bodies.len() == 1);
        let names: Vec<String> = bodies.iter().map(|(name, len)| format!("{name}/{len}")).collect();
        self.record.note(Event::Sending { queue: to, bodies: names.clone(), is_delayed });
        let mut messages: Vec<Message> =
            bodies.iter().map(|(name, len)| self.message(name, *len)).collect();
        let sent = if messages.len() == 1 {
            let message = messages.remove(0);
            let message = if is_delayed { message.delay_level(1) } else { message };
            self.producer.send_to(message, &queue(queue_id)).await
        } else {
            self.producer.send_batch(messages).await
        };
        let error = match sent {
            Ok(receipt) if receipt.status == SendStatus::Ok => {
                self.record.note(acknowledged(&receipt, names, is_delayed));
                return true;
            }
            Ok(receipt) => format!("{:?}", receipt.status),
            Err(error) => error.to_string(),
        };
        self.record.note(Event::Refused { bodies: names, error });
        false
    }

    fn message(&mut self, name: &str, len: usize) -> Message {
        // Of our own making, since the client's holds the id of this process.
        let unique = unique_key(name);
        let message = Message::new(TOPIC, body(name, len)).property(name::UNIQ_KEY, &unique);
        let message = if self.random.bool() { message.key(name) } else { message };
        if self.random.bool() { message.tag(["a", "b"][len % 2]) } else { message }
    }
}

fn acknowledged(receipt: &SendReceipt, mut bodies: Vec<String>, is_delayed: bool) -> Event {
    if is_delayed {
        return Event::AcknowledgedDelayed { body: bodies.remove(0) };
    }
    Event::Acknowledged { place: (receipt.queue.queue_id, receipt.queue_offset), bodies }
}

/// A consumer that pulls each queue from the start on.
struct Puller {
    consumer: PullConsumer,
    record: Arc<Record>,
    random: fastrand::Rng,
    name: String,
}

impl Puller {
    async fn run(mut self, commits: bool) {
        let mut next = vec![0; QUEUE_COUNT as usize];
        loop {
            for id in 0..QUEUE_COUNT {
                let from = next[id as usize];
                let hold = Duration::from_millis(self.random.u64(0..300));
                match self.consumer.pull(&queue(id), "*", from, 32, hold).await {
                    Ok(pulled) => next[id as usize] = self.note(id, from, &pulled),
                    Err(_) => sleep(Duration::from_millis(100)).await,
                }
                if commits && self.random.u32(0..4) == 0 {
                    self.commit(id, next[id as usize]).await;
                }
            }
            sleep(Duration::from_millis(self.random.u64(1..300))).await;
        }
    }

    /// Notes what came; where to go on.
    fn note(&self, queue: i32, from: i64, pulled: &Pulled) -> i64 {
        let mut expected = from;
        for message in &pulled.messages {
            let offset = message.queue_offset.0 as i64;
            self.expect(queue, expected, offset);
            let (by, place) = (self.name.clone(), (queue, offset));
            self.record.note(Event::Pulled { by, place, body: name_of(message) });
            expected = offset + 1;
        }
        if pulled.status != PullStatus::Empty {
            self.expect(queue, expected, pulled.next_offset);
            expected = pulled.next_offset;
        }
        expected
    }

    fn expect(&self, queue: i32, from: i64, to: i64) {
        if from != to {
            self.record.note(Event::Moved { by: self.name.clone(), queue, from, to });
        }
    }

    async fn commit(&self, id: i32, offset: i64) {
        self.record.note(Event::Committing { queue: id, offset });
        if self.consumer.commit(&queue(id), offset).await.is_ok() {
            self.record.note(Event::Committed { queue: id, offset });
        }
    }
}
