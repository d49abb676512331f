//! Members of groups whose brokers, routes or handlers fail.

use std::sync::Arc;
use std::time::Duration;

use apogee_client::{Client, Error, Outcome, ReceivedMessage};
use apogee_types::route::MessageQueue;
use apogee_wire::remoting::ResponseCode;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::broker::notify;
use crate::consuming::{Seen, builder, consumer, put, reset};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

fn is(message: &ReceivedMessage, body: &str) -> bool {
    message.body == body
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_while_queues_are_given_up_cuts_no_handler_short() {
    let world = World::new(&["a", "b"], 1);
    world.broker("b").put("T", 0, "slow", "");
    let (begun, done) = (Seen::new(&world), Seen::new(&world));
    let (to_begin, to_end) = (begun.clone(), done.clone());
    let slow = move |messages: Vec<ReceivedMessage>| {
        let (begun, done) = (to_begin.clone(), to_end.clone());
        async move {
            begun.note(&messages);
            sleep(10 * SECOND).await;
            done.note(&messages);
            Outcome::Done
        }
    };
    let first = builder(&world, "m1").start(slow).await.unwrap();
    begun.until(1).await;
    world.broker("b").state.lock().deaf_to.insert(15);
    let second = consumer(builder(&world, "m2"), &Seen::new(&world), Outcome::Done).await;
    let commits = |world: &World| 0 < world.broker("b").count_asked(15);
    world.until("the queue of b is given up", commits).await;
    first.shutdown().await;
    assert_eq!(done.bodies(), ["slow"]);
    drop(second);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_at_the_shutdown_keeps_no_other_queue_from_being_committed() {
    for is_ordered in [false, true] {
        let world = World::new(&["a"], 2);
        world.broker("a").put("T", 0, "hangs", "");
        put(&world, 1, 0..3);
        let seen = Seen::new(&world);
        let noted = seen.clone();
        let handler = move |messages: Vec<ReceivedMessage>| {
            noted.note(&messages);
            async move {
                if is(&messages[0], "hangs") {
                    std::future::pending::<()>().await;
                }
                Outcome::Done
            }
        };
        let builder = builder(&world, "m");
        let builder = if is_ordered { builder.ordered() } else { builder };
        let consumer = builder.start(handler).await.unwrap();
        seen.until(4).await;
        timeout(SECOND, consumer.shutdown()).await.unwrap_err();
        assert_eq!(world.broker("a").offset("G", "T", 1), Some(3));
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_can_skip_a_message_that_always_fails() {
    let world = World::new(&["a"], 1);
    put(&world, 0, 0..6);
    let seen = Seen::new(&world);
    let noted = seen.clone();
    let handler = move |messages: Vec<ReceivedMessage>| {
        noted.note(&messages);
        let fails = is(&messages[0], "1");
        std::future::ready(if fails { Outcome::Retry } else { Outcome::Done })
    };
    let consumer = builder(&world, "m").ordered().start(handler).await.unwrap();
    seen.until(4).await;
    world.broker("a").state.lock().moves.insert(("T".to_owned(), 0), 4);
    // The pull that waits was before.
    put(&world, 0, 6..7);
    world.until("the end", |_| seen.bodies().last().is_some_and(|last| last == "6")).await;
    consumer.shutdown().await;
    let tail: Vec<_> = seen.bodies().into_iter().rev().take(4).collect();
    assert_eq!(tail, ["6", "5", "4", "1"]);
    assert_eq!(world.broker("a").offset("G", "T", 0), Some(7));
}

#[tokio::test(start_paused = true)]
async fn after_a_move_back_no_message_is_handled_twice_at_the_same_time() {
    let world = World::new(&["a"], 1);
    put(&world, 0, 0..3);
    let (seen, done) = (Seen::new(&world), Seen::new(&world));
    let (to_begin, to_end) = (seen.clone(), done.clone());
    let slow = move |messages: Vec<ReceivedMessage>| {
        let (seen, done) = (to_begin.clone(), to_end.clone());
        async move {
            seen.note(&messages);
            sleep(10 * SECOND).await;
            done.note(&messages);
            Outcome::Done
        }
    };
    let consumer = builder(&world, "m").start(slow).await.unwrap();
    seen.until(3).await;
    world.broker("a").state.lock().moves.insert(("T".to_owned(), 0), 1);
    put(&world, 0, 3..4);
    seen.until(5).await;
    assert!(3 <= done.bodies().len());
    seen.until(7).await;
    consumer.shutdown().await;
    assert_eq!(done.bodies(), ["0", "1", "2", "3", "1", "2", "3"]);
    assert_eq!(world.broker("a").offset("G", "T", 0), Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_say_where_to_begin_delays_no_other() {
    let world = World::new(&["a", "b"], 2);
    world.broker("a").state.lock().deaf_to.insert(14);
    (0..2).for_each(|queue| world.broker("b").put("T", queue, "b", ""));
    let (seen, started) = (Seen::new(&world), Instant::now());
    let consumer = consumer(builder(&world, "m"), &seen, Outcome::Done).await;
    seen.until(2).await;
    assert!(started.elapsed() < SECOND);
    drop(consumer);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_gone_costs_the_queues_of_another_neither_lock_nor_commits() {
    let world = World::new(&["a", "b"], 16);
    let seen = Seen::new(&world);
    let consumer = consumer(builder(&world, "m").ordered(), &seen, Outcome::Done).await;
    world.until("it reads", |world| 16 <= world.broker("b").count_asked(11)).await;
    // What cannot be committed any more.
    (0..16).for_each(|queue| world.broker("a").put("T", queue, "a", ""));
    world.touch();
    seen.until(16).await;
    world.dark.lock().insert(world.broker("a").addr.to_string());
    world.broker("a").restart();
    for round in 1..60 {
        sleep(3 * SECOND).await;
        let put_at = Instant::now();
        world.broker("b").put("T", 7, "b", "");
        world.touch();
        seen.until(16 + round).await;
        assert!(put_at.elapsed() < SECOND, "round {round}: {:?}", put_at.elapsed());
        let committed = world.broker("b").offset("G", "T", 7).unwrap_or(0);
        assert!(round as i64 <= committed + 3, "round {round}: {committed}");
    }
    drop(consumer);
}

#[tokio::test(start_paused = true)]
async fn the_lock_is_held_until_the_handler_is_done_with_a_queue_that_was_given_up() {
    let world = World::new(&["a", "b"], 1);
    world.broker("b").put("T", 0, "long", "");
    let (begun, done, next) = (Seen::new(&world), Seen::new(&world), Seen::new(&world));
    let (to_begin, to_end) = (begun.clone(), done.clone());
    let long = move |messages: Vec<ReceivedMessage>| {
        let (begun, done) = (to_begin.clone(), to_end.clone());
        async move {
            begun.note(&messages);
            sleep(200 * SECOND).await;
            done.note(&messages);
            Outcome::Done
        }
    };
    let first = builder(&world, "m1").ordered().start(long).await.unwrap();
    begun.until(1).await;
    let second = consumer(builder(&world, "m2").ordered(), &next, Outcome::Done).await;
    sleep(50 * SECOND).await;
    // It goes while the handler has it still.
    first.shutdown().await;
    assert_eq!(done.bodies(), ["long"]);
    world.broker("b").put("T", 0, "next", "");
    world.touch();
    next.until(1).await;
    assert_eq!(next.bodies(), ["next"], "it was done before the lock was free");
    second.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn who_lost_the_lock_for_a_while_goes_on_behind_those_who_read_meanwhile() {
    for has_other_read in [true, false] {
        let world = World::new(&["a"], 1);
        put(&world, 0, 0..3);
        let seen = Seen::new(&world);
        let consumer = consumer(builder(&world, "m").ordered(), &seen, Outcome::Done).await;
        seen.until(3).await;
        sleep(6 * SECOND).await;
        world.broker("a").state.lock().deaf_to.insert(41);
        sleep(60 * SECOND).await;
        if has_other_read {
            let key = ("G".to_owned(), "T".to_owned(), 0);
            world.broker("a").state.lock().offsets.insert(key, 10);
        }
        put(&world, 0, 3..12);
        world.broker("a").state.lock().deaf_to.remove(&41);
        let expected = if has_other_read { vec![0, 1, 2, 10, 11] } else { (0..12).collect() };
        seen.until(expected.len()).await;
        consumer.shutdown().await;
        let expected: Vec<String> = expected.into_iter().map(|body| body.to_string()).collect();
        assert_eq!(seen.bodies(), expected);
        assert_eq!(world.broker("a").offset("G", "T", 0), Some(12));
    }
}

#[tokio::test(start_paused = true)]
async fn broadcasting_goes_on_where_it_was_when_a_broker_comes_back() {
    let world = World::new(&["a", "b"], 1);
    world.broker("b").put("T", 0, "before", "");
    let seen = Seen::new(&world);
    let consumer = consumer(builder(&world, "m").broadcasting(), &seen, Outcome::Done).await;
    seen.until(1).await;
    world.unknown.lock().insert("b");
    sleep(60 * SECOND).await;
    world.broker("b").put("T", 0, "meanwhile", "");
    world.unknown.lock().remove("b");
    seen.until(2).await;
    sleep(60 * SECOND).await;
    consumer.shutdown().await;
    assert_eq!(seen.bodies(), ["before", "meanwhile"]);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_restarts_knows_all_members_at_once_and_each_keeps_its_queues() {
    let world = World::new(&["a", "b"], 2);
    let mut members = Vec::new();
    for id in ["m1", "m2", "m3"] {
        let seen = Seen::new(&world);
        members.push(consumer(builder(&world, id), &seen, Outcome::Done).await);
    }
    for name in ["a", "b"] {
        // Every member is about to look at its share again.
        sleep(39 * SECOND).await;
        let begun = || ["a", "b"].map(|name| world.broker(name).count_asked(14));
        let before = begun();
        for outbox in world.broker(name).forget() {
            outbox.close();
            sleep(SECOND).await;
        }
        assert_eq!(world.broker(name).state.lock().members["G"].len(), 3, "{name}");
        sleep(10 * SECOND).await;
        assert_eq!(begun(), before, "{name}: nobody took a queue of another");
    }
    drop(members);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_new_in_the_route_is_told_of_the_member_at_once() {
    let world = World::new(&["a", "b"], 1);
    world.unknown.lock().insert("b");
    let seen = Seen::new(&world);
    let consumer = consumer(builder(&world, "m"), &seen, Outcome::Done).await;
    sleep(7 * SECOND).await;
    world.unknown.lock().remove("b");
    world.until("its queue is read", |world| 0 < world.broker("b").count_asked(11)).await;
    sleep(SECOND / 10).await;
    assert_eq!(world.broker("b").state.lock().members["G"].len(), 1);
    drop(consumer);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_hangs_up_after_each_heartbeat_stops_neither_us_nor_itself() {
    let world = World::new(&["a", "b"], 2);
    let seen = Seen::new(&world);
    world.broker("b").state.lock().hangs_up_after = Some(34);
    let first = consumer(builder(&world, "m1"), &seen, Outcome::Done).await;
    let second = consumer(builder(&world, "m2"), &seen, Outcome::Done).await;
    sleep(20 * SECOND).await;
    let heartbeats = world.broker("b").count_asked(34);
    assert!((20..=100).contains(&heartbeats), "{heartbeats}");
    put(&world, 0, 0..1);
    put(&world, 1, 1..2);
    seen.until(2).await;
    first.shutdown().await;
    let left = Instant::now();
    let taken = |world: &World| 4 <= world.broker("a").count_asked(14);
    world.until("the second takes the queues of the first", taken).await;
    assert!(left.elapsed() < 32 * SECOND, "{:?}", left.elapsed());
    second.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_starts_before_its_topic_exists_reads_it_soon_after() {
    let world = World::new(&["a"], 1);
    world.topics.lock().clear();
    let seen = Seen::new(&world);
    let consumer = consumer(builder(&world, "m"), &seen, Outcome::Done).await;
    sleep(7 * SECOND).await;
    let made = Instant::now();
    world.topics.lock().insert("T".to_owned(), 1);
    put(&world, 0, 0..1);
    seen.until(1).await;
    assert!(made.elapsed() < 3 * SECOND, "{:?}", made.elapsed());
    drop(consumer);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_a_broker_says_is_locked_though_nobody_asked_is_ignored() {
    let world = World::new(&["a"], 1);
    let stranger = MessageQueue::new("Other", "a", 7);
    world.broker("a").state.lock().locks_too = Some(stranger);
    put(&world, 0, 0..1);
    let seen = Seen::new(&world);
    let consumer = consumer(builder(&world, "m").ordered(), &seen, Outcome::Done).await;
    sleep(30 * SECOND).await;
    put(&world, 0, 1..2);
    seen.until(2).await;
    consumer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_deleted_and_made_again_is_read_from_its_first_message() {
    let world = World::new(&["a"], 1);
    put(&world, 0, 0..100);
    let seen = Seen::new(&world);
    let consumer = consumer(builder(&world, "m"), &seen, Outcome::Done).await;
    seen.until(100).await;
    sleep(7 * SECOND).await;
    world.topics.lock().clear();
    {
        let mut state = world.broker("a").state.lock();
        state.queues.clear();
        state.offsets.clear();
    }
    sleep(100 * SECOND).await;
    assert!(world.broker("a").offset("G", "T", 0).is_none(), "nothing is committed any more");
    world.topics.lock().insert("T".to_owned(), 1);
    put(&world, 0, 100..101);
    seen.until(101).await;
    consumer.shutdown().await;
    assert_eq!(seen.bodies()[100], "100");
}

#[tokio::test(start_paused = true)]
async fn a_client_is_only_one_member_of_a_group() {
    let world = World::new(&["a"], 1);
    let client = Client::new(world.options());
    let ready = |_: Vec<ReceivedMessage>| std::future::ready(Outcome::Done);
    let builder = || builder(&world, "unused").client(client.clone());
    let first = builder().start(ready).await.unwrap();
    let second = builder().start(ready).await;
    assert!(matches!(second, Err(Error::Member { group }) if group == "G"));
    first.shutdown().await;
    builder().start(ready).await.unwrap().shutdown().await;
    drop(builder().start(ready).await.unwrap());
    builder().start(ready).await.unwrap().shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_its_broker_does_not_take_back_is_copied_to_another() {
    for is_ordered in [false, true] {
        let world = World::new(&["a", "b"], 1);
        world.topics.lock().insert("%RETRY%G".to_owned(), 1);
        let properties = "KEYS\u{1}k\u{2}UNIQ_KEY\u{1}U\u{2}";
        world.broker("a").put("T", 0, "fails", properties);
        // It is drained: neither its own retries nor others'.
        {
            let mut state = world.broker("a").state.lock();
            state.refuses = Some(ResponseCode::NO_PERMISSION);
            state.refused.insert(36);
        }
        let copies = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&copies);
        let handler = move |messages: Vec<ReceivedMessage>| {
            let is_copy = messages[0].properties.contains_key("RETRY_TOPIC");
            if is_copy {
                noted.lock().extend(messages);
            }
            std::future::ready(if is_copy { Outcome::Done } else { Outcome::Retry })
        };
        let builder = builder(&world, "m").max_reconsume_times(2);
        let builder = if is_ordered { builder.ordered() } else { builder };
        let consumer = builder.start(handler).await.unwrap();
        world.until("it is done", |world| world.broker("a").offset("G", "T", 0) == Some(1)).await;
        consumer.shutdown().await;
        let copies = std::mem::take(&mut *copies.lock());
        assert_eq!(copies.len(), 1);
        assert_eq!((&*copies[0].topic, &*copies[0].broker_name), ("T", "b"));
        assert_eq!((&copies[0].body[..], copies[0].id().as_str()), (&b"fails"[..], "U"));
        let delay = if is_ordered { "-1" } else { "3" };
        assert_eq!((copies[0].properties["DELAY"].as_str(), copies[0].tag()), (delay, None));
        assert_eq!(copies[0].keys().collect::<Vec<_>>(), ["k"]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_broker_takes_back_the_handler_gets_again() {
    for is_ordered in [false, true] {
        let world = World::new(&["a"], 1);
        put(&world, 0, 0..2);
        world.broker("a").state.lock().refused.insert(36);
        let seen = Seen::new(&world);
        let noted = seen.clone();
        let handler = move |messages: Vec<ReceivedMessage>| {
            noted.note(&messages);
            let fails = is(&messages[0], "0") && messages[0].reconsume_times < 3;
            std::future::ready(if fails { Outcome::Retry } else { Outcome::Done })
        };
        let builder = builder(&world, "m").max_reconsume_times(2);
        let builder = if is_ordered { builder.ordered() } else { builder };
        let consumer = builder.start(handler).await.unwrap();
        world.until("all is done", |world| world.broker("a").offset("G", "T", 0) == Some(2)).await;
        consumer.shutdown().await;
        let expected =
            if is_ordered { ["0", "0", "0", "0", "1"] } else { ["0", "1", "0", "0", "0"] };
        assert_eq!(seen.bodies(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn no_flood_of_notices_hides_that_an_operator_sets_the_group_back() {
    let world = World::new(&["a"], 1);
    put(&world, 0, 0..3);
    let seen = Seen::new(&world);
    let consumer = consumer(builder(&world, "m"), &seen, Outcome::Done).await;
    seen.until(3).await;
    sleep(2 * SECOND).await;
    world.broker("a").state.lock().deaf_to.insert(38);
    let tell = || notify(&world.broker("a").state.lock().members["G"], "G");
    tell();
    sleep(SECOND).await;
    (0..100).for_each(|_| tell());
    reset(&world, "m", 1);
    seen.until(5).await;
    consumer.shutdown().await;
    assert_eq!(seen.bodies(), ["0", "1", "2", "1", "2"]);
}

/// Keeps the warnings of its thread, each as `name=value` and so on.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            text += &format!("{field}={value:?} ");
        });
        self.0.lock().push(text);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_is_warned_of() {
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let world = World::new(&["a"], 1);
    put(&world, 0, 0..1);
    let hangs = |_: Vec<ReceivedMessage>| std::future::pending::<Outcome>();
    let consumer = builder(&world, "m").start(hangs).await.unwrap();
    sleep(1000 * SECOND).await;
    drop(consumer);
    let warnings = warnings.0.lock();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for part in ["group=G", "topic=T", "broker=a", "queue_id=0", "runs_for=900s"] {
        assert!(warnings[0].contains(part), "{part}: {warnings:?}");
    }
}
