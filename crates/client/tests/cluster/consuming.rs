//! Members of groups.

use std::sync::Arc;
use std::time::Duration;

use apogee_client::{Outcome, PushConsumer, PushConsumerBuilder, ReceivedMessage, StartFrom};
use apogee_types::json;
use apogee_types::route::MessageQueue;
use apogee_wire::remoting::Fields;
use apogee_wire::remoting::bodies::ResetOffsetBody;
use apogee_wire::remoting::requests::ResetConsumerClientOffset;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::broker::push;
use crate::world::World;

/// What a handler saw: when, and of each message the queue and body.
#[derive(Clone)]
pub struct Seen {
    pub world: Arc<World>,
    pub messages: Arc<Mutex<Vec<(Instant, i32, String)>>>,
}

impl Seen {
    pub fn new(world: &Arc<World>) -> Self {
        Self { world: Arc::clone(world), messages: Arc::default() }
    }

    pub fn note(&self, messages: &[ReceivedMessage]) {
        for message in messages {
            let body = String::from_utf8_lossy(&message.body).into_owned();
            self.messages.lock().push((Instant::now(), message.queue_id, body));
        }
        self.world.touch();
    }

    pub fn bodies(&self) -> Vec<String> {
        self.messages.lock().iter().map(|(_, _, body)| body.clone()).collect()
    }

    pub async fn until(&self, count: usize) {
        let what = format!("{count} messages were seen");
        self.world.until(&what, |_| count <= self.messages.lock().len()).await;
    }
}

pub fn builder(world: &Arc<World>, id: &str) -> PushConsumerBuilder {
    let options = apogee_client::Options { client_id: Some(id.to_owned()), ..world.options() };
    PushConsumer::builder("", "G")
        .options(options)
        .subscribe("T", "*")
        .start_from(StartFrom::Earliest)
}

/// A consumer whose handler always says the same.
pub async fn consumer(builder: PushConsumerBuilder, seen: &Seen, outcome: Outcome) -> PushConsumer {
    let seen = seen.clone();
    let handler = move |messages: Vec<ReceivedMessage>| {
        seen.note(&messages);
        std::future::ready(outcome)
    };
    builder.start(handler).await.unwrap()
}

pub fn put(world: &World, queue_id: i32, bodies: std::ops::Range<i32>) {
    for body in bodies {
        world.broker("a").put("T", queue_id, &body.to_string(), "");
    }
    world.touch();
}

#[tokio::test(start_paused = true)]
async fn a_group_goes_on_where_it_stopped() {
    let world = World::new(&["a"], 2);
    let seen = Seen::new(&world);
    put(&world, 0, 0..50);
    put(&world, 1, 50..60);
    let first = consumer(builder(&world, "m1"), &seen, Outcome::Done).await;
    seen.until(60).await;
    first.shutdown().await;
    let broker = world.broker("a");
    assert_eq!((broker.offset("G", "T", 0), broker.offset("G", "T", 1)), (Some(50), Some(10)));
    assert!(broker.state.lock().members["G"].is_empty(), "it has left the group");

    put(&world, 0, 60..63);
    let second = consumer(builder(&world, "m2"), &seen, Outcome::Done).await;
    seen.until(63).await;
    second.shutdown().await;
    let mut bodies: Vec<i32> = seen.bodies().iter().map(|body| body.parse().unwrap()).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, (0..63).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn latest_begins_at_the_end() {
    let world = World::new(&["a"], 1);
    let seen = Seen::new(&world);
    put(&world, 0, 0..5);
    let builder = builder(&world, "m").start_from(StartFrom::Latest);
    let consumer = consumer(builder, &seen, Outcome::Done).await;
    world.until("it pulls", |world| 1 <= world.broker("a").count_asked(11)).await;
    put(&world, 0, 5..7);
    seen.until(2).await;
    consumer.shutdown().await;
    assert_eq!(seen.bodies(), ["5", "6"]);
}

#[tokio::test(start_paused = true)]
async fn offsets_are_committed_while_it_runs_and_not_past_what_is_open() {
    let world = World::new(&["a"], 1);
    put(&world, 0, 0..10);
    let builder = builder(&world, "m");
    let stuck = |messages: Vec<ReceivedMessage>| async move {
        if &messages[0].body[..] == b"4" {
            std::future::pending::<()>().await;
        }
        Outcome::Done
    };
    let consumer = builder.start(stuck).await.unwrap();
    let committed = |world: &World| world.broker("a").offset("G", "T", 0) == Some(4);
    world.until("4 is committed", committed).await;
    drop(consumer);
}

#[tokio::test(start_paused = true)]
async fn members_share_the_queues_and_take_over_from_one_who_leaves() {
    let world = World::new(&["a", "b"], 4);
    let (one, two) = (Seen::new(&world), Seen::new(&world));
    let first = consumer(builder(&world, "m1"), &one, Outcome::Done).await;
    let second = consumer(builder(&world, "m2"), &two, Outcome::Done).await;
    tokio::time::sleep(Duration::from_secs(25)).await;
    let put_everywhere = || {
        for name in ["a", "b"] {
            (0..4).for_each(|queue| world.broker(name).put("T", queue, name, ""));
        }
        world.touch();
    };
    put_everywhere();
    one.until(4).await;
    two.until(4).await;
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!((one.bodies(), two.bodies()), (vec!["a".to_owned(); 4], vec!["b".to_owned(); 4]));

    let left = Instant::now();
    first.shutdown().await;
    put_everywhere();
    two.until(12).await;
    assert!(left.elapsed() < Duration::from_secs(3), "it was told, and need not wait 20 s");
    second.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn failed_messages_and_panics_are_sent_back_and_then_count_as_done() {
    let world = World::new(&["a"], 1);
    put(&world, 0, 0..3);
    let builder = builder(&world, "m").max_reconsume_times(5);
    let handler = |messages: Vec<ReceivedMessage>| async move {
        match &messages[0].body[..] {
            b"0" => Outcome::Retry,
            b"1" => Outcome::RetryAt { delay_level: 3 },
            _ => panic!("as the test wants it"),
        }
    };
    let consumer = builder.start(handler).await.unwrap();
    world.until("all came back", |world| world.broker("a").state.lock().sent_back.len() == 3).await;
    consumer.shutdown().await;
    let broker = world.broker("a");
    let mut back = broker.state.lock().sent_back.clone();
    back.sort_by_key(|it| it.log_offset);
    let levels: Vec<_> = back.iter().map(|it| (it.log_offset, it.delay_level)).collect();
    assert_eq!(levels, [(1000, 0), (1001, 3), (1002, 0)]);
    assert_eq!((back[0].group.as_str(), back[0].max_reconsume_times), ("G", Some(5)));
    assert_eq!(broker.offset("G", "T", 0), Some(3));
}

#[tokio::test(start_paused = true)]
async fn the_retry_topic_is_read_and_shows_the_first_topic() {
    let world = World::new(&["a"], 1);
    world.topics.lock().insert("%RETRY%G".to_owned(), 1);
    world.broker("a").put("%RETRY%G", 0, "again", "RETRY_TOPIC\u{1}T\u{2}");
    let topics = Arc::new(Mutex::new(Vec::new()));
    let (noted, told) = (Arc::clone(&topics), Arc::clone(&world));
    let handler = move |messages: Vec<ReceivedMessage>| {
        noted.lock().push(messages[0].topic.to_string());
        told.touch();
        std::future::ready(Outcome::Done)
    };
    let consumer = builder(&world, "m").start(handler).await.unwrap();
    world.until("it came", |_| topics.lock().len() == 1).await;
    consumer.shutdown().await;
    assert_eq!(*topics.lock(), ["T"]);
}

#[tokio::test(start_paused = true)]
async fn in_order_a_failed_message_comes_again_before_the_next() {
    let world = World::new(&["a"], 2);
    put(&world, 0, 0..4);
    let seen = Seen::new(&world);
    let noted = seen.clone();
    let handler = move |messages: Vec<ReceivedMessage>| {
        noted.note(&messages);
        let fails = &messages[0].body[..] == b"1" && messages[0].reconsume_times < 2;
        std::future::ready(if fails { Outcome::Retry } else { Outcome::Done })
    };
    let consumer = builder(&world, "m").ordered().start(handler).await.unwrap();
    seen.until(6).await;
    assert_eq!(seen.bodies(), ["0", "1", "1", "1", "2", "3"]);
    let at: Vec<Instant> = seen.messages.lock().iter().map(|(at, _, _)| *at).collect();
    assert_eq!(at[3] - at[1], Duration::from_secs(2));
    assert_eq!(world.broker("a").state.lock().locks.len(), 2);
    tokio::time::sleep(Duration::from_secs(120)).await;
    consumer.shutdown().await;
    let broker = world.broker("a");
    assert!(5 <= broker.count_asked(41), "locks are renewed");
    assert!(broker.state.lock().locks.is_empty(), "and given back");
    assert_eq!(broker.offset("G", "T", 0), Some(4));
}

#[tokio::test(start_paused = true)]
async fn in_order_a_message_that_fails_too_often_becomes_a_dead_letter() {
    let world = World::new(&["a"], 1);
    put(&world, 0, 0..2);
    let seen = Seen::new(&world);
    let builder = builder(&world, "m").ordered().max_reconsume_times(2);
    let consumer = consumer(builder, &seen, Outcome::Retry).await;
    seen.until(6).await;
    let back = |world: &World| world.broker("a").state.lock().sent_back.len() == 2;
    world.until("both are dead letters", back).await;
    consumer.shutdown().await;
    assert_eq!(seen.bodies(), ["0", "0", "0", "1", "1", "1"]);
    let state = world.broker("a").state.lock();
    assert!(state.sent_back.iter().all(|it| it.delay_level == -1));
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_another_has_locked_is_not_read() {
    let world = World::new(&["a"], 2);
    let taken = MessageQueue::new("T", "a", 0);
    world.broker("a").state.lock().locks.insert(taken.clone(), "other".to_owned());
    put(&world, 0, 0..1);
    put(&world, 1, 1..2);
    let seen = Seen::new(&world);
    let consumer = consumer(builder(&world, "m").ordered(), &seen, Outcome::Done).await;
    seen.until(1).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(seen.bodies(), ["1"]);
    world.broker("a").state.lock().locks.remove(&taken);
    seen.until(2).await;
    consumer.shutdown().await;
}

/// Tells a member that its queue 0 is to be read from here on.
pub fn reset(world: &World, member: &str, offset: i64) {
    let outbox = Arc::clone(&world.broker("a").state.lock().members["G"][member]);
    let request = ResetConsumerClientOffset {
        topic: "T".to_owned(),
        group: "G".to_owned(),
        timestamp_ms: 0,
        is_force: true,
        queue_id: -1,
        offset: None,
    };
    let offset_table = [(MessageQueue::new("T", "a", 0), offset)].into();
    let body = json::write(&ResetOffsetBody { offset_table });
    push::<ResetConsumerClientOffset>(&outbox, |put| request.encode(put), body);
}

#[tokio::test(start_paused = true)]
async fn an_operator_can_set_a_running_group_back() {
    let world = World::new(&["a"], 1);
    put(&world, 0, 0..3);
    let seen = Seen::new(&world);
    let consumer = consumer(builder(&world, "m"), &seen, Outcome::Done).await;
    seen.until(3).await;
    reset(&world, "m", 1);
    seen.until(5).await;
    consumer.shutdown().await;
    assert_eq!(seen.bodies(), ["0", "1", "2", "1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn broadcasting_reads_everything_and_commits_nothing() {
    let world = World::new(&["a"], 1);
    put(&world, 0, 0..3);
    let (one, two) = (Seen::new(&world), Seen::new(&world));
    let first = consumer(builder(&world, "m1").broadcasting(), &one, Outcome::Retry).await;
    let second = consumer(builder(&world, "m2").broadcasting(), &two, Outcome::Done).await;
    one.until(3).await;
    two.until(3).await;
    first.shutdown().await;
    second.shutdown().await;
    let broker = world.broker("a");
    assert_eq!(broker.offset("G", "T", 0), None);
    assert!(broker.state.lock().sent_back.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_a_leaving_consumer_does_not_take_stays_for_the_next() {
    let world = World::new(&["a"], 1);
    put(&world, 0, 0..5);
    let seen = Seen::new(&world);
    let noted = seen.clone();
    let handler = move |messages: Vec<ReceivedMessage>| {
        let takes = noted.messages.lock().len() < 2;
        if takes {
            noted.note(&messages);
        }
        std::future::ready(if takes { Outcome::Done } else { Outcome::Leave })
    };
    let first = builder(&world, "m1").concurrency(1).start(handler).await.unwrap();
    seen.until(2).await;
    first.shutdown().await;
    assert_eq!(world.broker("a").offset("G", "T", 0), Some(2));
    let second = consumer(builder(&world, "m2").concurrency(1), &seen, Outcome::Done).await;
    seen.until(5).await;
    second.shutdown().await;
    assert_eq!(seen.bodies(), ["0", "1", "2", "3", "4"]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_handler_holds_the_pulling_back() {
    let world = World::new(&["a"], 1);
    put(&world, 0, 0..5000);
    let stuck = |_: Vec<ReceivedMessage>| std::future::pending::<Outcome>();
    let consumer = builder(&world, "m").start(stuck).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let pulls = world.broker("a").count_asked(11);
    assert!((31..=33).contains(&pulls), "1000 messages are 32 pulls: {pulls}");
    drop(consumer);
}
