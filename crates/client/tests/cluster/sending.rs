//! Calls and producers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use apogee_client::{Client, Error, Message, Options, Producer, PullConsumer, PullStatus};
use apogee_types::route::MessageQueue;
use apogee_wire::remoting::ResponseCode;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::world::{NAME_SERVER, World};

async fn producer(world: &Arc<World>) -> Producer {
    Producer::builder("").options(world.options()).group("P").start().await.unwrap()
}

fn stored(world: &World) -> BTreeMap<(&'static str, i32), usize> {
    let brokers = world.brokers.values();
    brokers
        .flat_map(|broker| {
            let state = broker.state.lock();
            let queues = state.queues.iter();
            queues.map(|((_, id), records)| ((broker.name, *id), records.len())).collect::<Vec<_>>()
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn sends_go_round_the_queues_of_all_brokers() {
    let world = World::new(&["a", "b"], 2);
    let producer = producer(&world).await;
    for _ in 0..8 {
        let receipt = producer.send(Message::new("T", "x")).await.unwrap();
        assert_eq!(receipt.id.len(), 32);
    }
    assert_eq!(stored(&world), [(("a", 0), 2), (("a", 1), 2), (("b", 0), 2), (("b", 1), 2)].into());
    producer.shutdown().await;
    assert_eq!(world.broker("a").count_asked(35), 1);
}

#[tokio::test(start_paused = true)]
async fn a_send_that_one_broker_refuses_goes_to_another() {
    let world = World::new(&["a", "b"], 4);
    world.broker("a").state.lock().refuses = Some(ResponseCode::SERVICE_NOT_AVAILABLE);
    let builder = Producer::builder("").options(world.options()).retries(1);
    let producer = builder.start().await.unwrap();
    for _ in 0..4 {
        let receipt = producer.send(Message::new("T", "x")).await.unwrap();
        assert_eq!(&*receipt.queue.broker_name, "b");
    }
    world.broker("a").state.lock().refuses = Some(ResponseCode::MESSAGE_ILLEGAL);
    let mut refusals = 0;
    for _ in 0..8 {
        if let Err(error) = producer.send(Message::new("T", "x")).await {
            assert_eq!(error.code(), Some(ResponseCode::MESSAGE_ILLEGAL), "not tried again");
            refusals += 1;
        }
    }
    assert_eq!(refusals, 4);
}

#[tokio::test(start_paused = true)]
async fn a_send_goes_to_another_broker_when_one_is_gone_or_hangs_up() {
    let world = World::new(&["a", "b"], 1);
    let producer = producer(&world).await;
    world.broker("a").state.lock().hangs_up_at = Some(310);
    for _ in 0..3 {
        producer.send(Message::new("T", "x")).await.unwrap();
    }
    world.down.lock().insert(world.broker("a").addr.to_string());
    for _ in 0..3 {
        producer.send(Message::new("T", "x")).await.unwrap();
    }
    assert_eq!(stored(&world), [(("b", 0), 6)].into());
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_deadline_or_with_its_connection() {
    let world = World::new(&["a"], 1);
    let client = Client::new(world.options());
    client.route("T").await.unwrap();
    let queue = MessageQueue::new("T", "a", 0);
    world.broker("a").state.lock().deaf_to.insert(30);
    let started = Instant::now();
    let error = client.max_offset(&queue).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { request: "GET_MAX_OFFSET", .. }), "{error}");
    assert_eq!(started.elapsed(), Duration::from_secs(3));
    world.broker("a").state.lock().hangs_up_at = Some(31);
    let (deaf, lost) = tokio::join!(client.max_offset(&queue), client.min_offset(&queue));
    assert!(matches!(lost, Err(Error::Lost { .. })));
    assert!(matches!(deaf, Err(Error::Lost { .. })), "all who wait learn it at once");
    world.broker("a").state.lock().hangs_up_at = None;
    assert_eq!(client.min_offset(&queue).await.unwrap(), 0, "it connects again");
    client.close().await;
    assert!(matches!(client.min_offset(&queue).await, Err(Error::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_a_new_name_server_does_not_know_yet_can_be_sent_to() {
    let world = World::new(&["a"], 1);
    let producer = producer(&world).await;
    let send = || producer.send(Message::new("T", "x"));
    send().await.unwrap();
    for _ in 0..3 {
        // A restart, which the client notices once.
        world.topics.lock().remove("T");
        tokio::time::sleep(Duration::from_secs(31)).await;
        send().await.unwrap();
        world.topics.lock().insert("T".to_owned(), 1);
        tokio::time::sleep(Duration::from_secs(31)).await;
        send().await.unwrap();
    }
    world.topics.lock().remove("T");
    tokio::time::sleep(Duration::from_secs(62)).await;
    assert!(matches!(send().await, Err(Error::NoRoute { .. })));
}

#[tokio::test(start_paused = true)]
async fn another_name_server_is_asked_when_one_is_down() {
    let world = World::new(&["a"], 1);
    for name_servers in [["10.0.0.8:1", NAME_SERVER], [NAME_SERVER, "10.0.0.8:1"]] {
        let name_servers = name_servers.map(str::to_owned).to_vec();
        let client = Client::new(Options { name_servers, ..world.options() });
        assert_eq!(client.route("T").await.unwrap().write_queues().len(), 1);
    }
    let nowhere = vec!["10.0.0.8:1".to_owned()];
    let client = Client::new(Options { name_servers: nowhere, ..world.options() });
    assert!(matches!(client.route("T").await, Err(Error::Unreachable { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_does_not_exist_is_sent_to_by_the_template() {
    let world = World::new(&["a"], 1);
    let producer = producer(&world).await;
    let error = producer.send(Message::new("New", "x")).await.unwrap_err();
    assert!(matches!(error, Error::NoRoute { topic } if topic == "New"));
    world.topics.lock().insert("TBW102".to_owned(), 8);
    for _ in 0..8 {
        producer.send(Message::new("New", "x")).await.unwrap();
    }
    let counts: Vec<usize> = stored(&world).into_values().collect();
    assert_eq!(counts, [2; 4], "a new topic gets four queues");
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_is_what_is_pulled() {
    let world = World::new(&["a"], 1);
    let producer = producer(&world).await;
    let long = "tick tock ".repeat(1000);
    let message = Message::new("T", long.clone()).tag("x").key("k").property("p", "é");
    producer.send(message).await.unwrap();
    let batch = ["one", "two", "three"].map(|body| Message::new("T", body).tag("x")).to_vec();
    let receipt = producer.send_batch(batch).await.unwrap();
    assert_eq!((receipt.queue_offset, receipt.id.split(',').count()), (1, 3));
    producer.send(Message::new("T", "other").tag("y")).await.unwrap();
    let record_len = world.broker("a").state.lock().queues[&("T".to_owned(), 0)][0].len();
    assert!(record_len < 1000, "the long body travels compressed");

    let consumer = PullConsumer::with(producer.client().clone(), "G").unwrap();
    let queue = consumer.queues("T").await.unwrap().remove(0);
    let pulled = consumer.pull(&queue, "x", 0, 32, Duration::ZERO).await.unwrap();
    let bodies: Vec<&[u8]> = pulled.messages.iter().map(|message| &message.body[..]).collect();
    assert_eq!(bodies, [long.as_bytes(), b"one", b"two", b"three"]);
    assert_eq!((pulled.next_offset, pulled.messages[0].properties["p"].as_str()), (5, "é"));
    let end = consumer.pull(&queue, "*", 5, 32, Duration::from_secs(1)).await.unwrap();
    assert_eq!((end.status, end.next_offset), (PullStatus::Empty, 5));

    assert_eq!(consumer.committed(&queue).await.unwrap(), None);
    consumer.commit(&queue, 5).await.unwrap();
    assert_eq!(consumer.committed(&queue).await.unwrap(), Some(5));
}

#[tokio::test(start_paused = true)]
async fn messages_of_one_key_share_a_queue_and_batches_are_of_one_topic() {
    let world = World::new(&["a", "b"], 4);
    let producer = producer(&world).await;
    let mut queues = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let sent = producer.send_ordered(Message::new("T", "x"), "order-7").await.unwrap();
        queues.insert(sent.queue);
    }
    assert_eq!(queues.len(), 1);
    let mixed = vec![Message::new("T", "x"), Message::new("U", "x")];
    assert!(matches!(producer.send_batch(mixed).await, Err(Error::Batch(_))));
    let plain = Message::new("T", "x");
    for delayed in [
        plain.clone().delay_level(1),
        plain.clone().deliver_at(1_700_000_001_000),
        plain.clone().property("TIMER_DELAY_MS", "1"),
        plain.clone().property("TIMER_DELAY_SEC", "1"),
    ] {
        let batch = vec![plain.clone(), delayed];
        assert!(matches!(producer.send_batch(batch).await, Err(Error::Batch(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_oneway_send_is_written_even_if_the_producer_ends_at_once() {
    let world = World::new(&["a"], 1);
    let producer = producer(&world).await;
    producer.send_oneway(Message::new("T", "x")).await.unwrap();
    producer.shutdown().await;
    world.until("the message is there", |world| !stored(world).is_empty()).await;
}

fn down(world: &World, name: &str) {
    world.down.lock().insert(world.broker(name).addr.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_new_master_is_found_at_once_whichever_way_the_queue_is_chosen() {
    let world = World::new(&["a"], 1);
    let producer = producer(&world).await;
    let queue = MessageQueue::new("T", "a", 0);
    let message = || Message::new("T", "x");
    producer.send(message()).await.unwrap();
    for way in 0..4 {
        world.slaves.lock().insert("a");
        // The client learns that there is no master.
        tokio::time::sleep(Duration::from_secs(31)).await;
        world.slaves.lock().clear();
        let began = Instant::now();
        match way {
            0 => drop(producer.send(message()).await.unwrap()),
            1 => drop(producer.send_to(message(), &queue).await.unwrap()),
            2 => drop(producer.send_ordered(message(), "key").await.unwrap()),
            _ => producer.send_oneway(message()).await.unwrap(),
        }
        assert!(began.elapsed() < Duration::from_secs(1), "way {way}: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_send_waits_for_a_master_and_for_a_broker_that_restarts() {
    let world = World::new(&["a"], 1);
    let producer = Arc::new(producer(&world).await);
    producer.send(Message::new("T", "x")).await.unwrap();
    let send = async || {
        let began = Instant::now();
        let sent = producer.send(Message::new("T", "x")).await;
        (sent, began.elapsed())
    };
    let passes = Duration::from_millis(1500);

    world.broker("a").state.lock().hangs_up_at = Some(310);
    down(&world, "a");
    let restart = async {
        tokio::time::sleep(passes).await;
        world.broker("a").state.lock().hangs_up_at = None;
        world.down.lock().clear();
    };
    let ((sent, took), ()) = tokio::join!(send(), restart);
    sent.unwrap();
    assert!(passes <= took && took < Duration::from_secs(3), "{took:?}");

    world.slaves.lock().insert("a");
    tokio::time::sleep(Duration::from_secs(31)).await;
    let fail_over = async {
        tokio::time::sleep(passes).await;
        world.slaves.lock().clear();
    };
    let ((sent, took), ()) = tokio::join!(send(), fail_over);
    sent.unwrap();
    assert!(passes <= took && took < Duration::from_secs(3), "{took:?}");

    // However many wait, the name server is asked a few times a second.
    world.slaves.lock().insert("a");
    tokio::time::sleep(Duration::from_secs(31)).await;
    let before = world.routes_asked.load(Ordering::Relaxed);
    let mut sends = JoinSet::new();
    for _ in 0..100 {
        let producer = Arc::clone(&producer);
        sends.spawn(async move { producer.send(Message::new("T", "x")).await });
    }
    for sent in sends.join_all().await {
        assert!(matches!(sent, Err(Error::NoRoute { .. })));
    }
    let asked = world.routes_asked.load(Ordering::Relaxed) - before;
    assert!((3..20).contains(&asked), "{asked} times");
    world.slaves.lock().clear();
    tokio::time::sleep(Duration::from_secs(31)).await;

    // What will not pass fails without delay, after three tries.
    world.broker("a").state.lock().refuses = Some(ResponseCode::NO_PERMISSION);
    let asked = world.broker("a").count_asked(310);
    let (sent, took) = send().await;
    assert_eq!(sent.unwrap_err().code(), Some(ResponseCode::NO_PERMISSION));
    assert_eq!((world.broker("a").count_asked(310) - asked, took), (3, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_send_keeps_its_time_whoever_is_silent() {
    let silent = "10.0.0.8:1";
    for seed in 0..4 {
        let world = World::new(&["a", "b"], 1);
        world.topics.lock().insert("TBW102".to_owned(), 8);
        world.dark.lock().extend([silent.to_owned(), world.broker("a").addr.to_string()]);
        let name_servers = vec![silent.to_owned(), NAME_SERVER.to_owned()];
        let options = Options { name_servers, seed, ..world.options() };
        let producer = Producer::builder("").options(options).start().await.unwrap();
        for topic in ["New", "T"] {
            let began = Instant::now();
            let sent = producer.send(Message::new(topic, "x")).await.unwrap();
            assert_eq!(&*sent.queue.broker_name, "b");
            assert!(began.elapsed() < Duration::from_secs(3), "{topic}: {:?}", began.elapsed());
        }
    }
    let world = World::new(&["a"], 1);
    world.dark.lock().insert(NAME_SERVER.to_owned());
    let within = Duration::from_millis(700);
    let builder = Producer::builder("").options(world.options()).send_timeout(within);
    let producer = builder.start().await.unwrap();
    let began = Instant::now();
    producer.send(Message::new("T", "x")).await.unwrap_err();
    assert_eq!(began.elapsed(), within);
}

#[tokio::test(start_paused = true)]
async fn a_connection_on_which_a_call_hears_nothing_is_given_up() {
    let world = World::new(&["a"], 1);
    let client = Client::new(world.options());
    let producer = Producer::builder("").client(client.clone()).start().await.unwrap();
    producer.send(Message::new("T", "x")).await.unwrap();
    world.broker("a").state.lock().half_open_count = 1;
    let queue = MessageQueue::new("T", "a", 0);
    let first = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        client.min_offset(&queue).await
    };
    let (lost, other) = tokio::join!(producer.send(Message::new("T", "x")), first);
    assert!(matches!(lost, Err(Error::TimedOut { .. })), "{lost:?}");
    assert!(matches!(other, Err(Error::Lost { .. })), "who waits for it as well learns it at once");
    let began = Instant::now();
    producer.send(Message::new("T", "x")).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(100), "over a new one");

    // One that answers others is kept, so is one that is slow, or was given little time.
    world.broker("a").state.lock().deaf_to.insert(30);
    let poll = async {
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            client.min_offset(&queue).await.unwrap();
        }
    };
    let (slow, ()) = tokio::join!(client.max_offset(&queue), poll);
    assert!(matches!(slow, Err(Error::TimedOut { .. })));
    world.broker("a").state.lock().slow_at = Some(31);
    assert!(matches!(client.min_offset(&queue).await, Err(Error::TimedOut { .. })));
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.broker("a").state.lock().slow_at = None;
    world.broker("a").state.lock().deaf_to.insert(310);
    let hasty = Producer::builder("").client(client.clone()).send_timeout(Duration::from_millis(9));
    hasty.start().await.unwrap().send(Message::new("T", "x")).await.unwrap_err();
    client.min_offset(&queue).await.unwrap();
    assert_eq!(world.broker("a").state.lock().connection_count, 2);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_cannot_be_reached_costs_a_wait_only_now_and_then() {
    let world = World::new(&["a"], 1);
    let client = Client::new(world.options());
    client.route("T").await.unwrap();
    world.dark.lock().insert(world.broker("a").addr.to_string());
    let queue = MessageQueue::new("T", "a", 0);
    let mut waited = Duration::ZERO;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(60) {
        let asked = Instant::now();
        assert!(matches!(client.max_offset(&queue).await, Err(Error::Unreachable { .. })));
        waited += asked.elapsed();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(waited < Duration::from_secs(40), "{waited:?} of a minute");

    // Nor do all pay who come while one dials.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let timed = async || {
        let asked = Instant::now();
        client.max_offset(&queue).await.unwrap_err();
        asked.elapsed()
    };
    let (one, other) = tokio::join!(timed(), timed());
    assert_eq!((one.as_millis(), other.as_millis()), (3000, 200));
}

#[tokio::test(start_paused = true)]
async fn a_route_that_is_refused_stops_no_other() {
    let world = World::new(&["a"], 1);
    world.topics.lock().insert("A".to_owned(), 1);
    let client = Client::new(world.options());
    client.route("A").await.unwrap();
    client.route("T").await.unwrap();
    world.broken_topics.lock().insert("A".to_owned());
    world.topics.lock().insert("T".to_owned(), 2);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(client.route("T").await.unwrap().write_queues().len(), 2);
    assert_eq!(client.route("A").await.unwrap().write_queues().len(), 1, "the known one stays");
}

#[tokio::test(start_paused = true)]
async fn a_route_of_more_queues_than_can_be_is_not_believed() {
    let world = World::new(&["a"], i32::MAX);
    let client = Client::new(world.options());
    assert!(matches!(client.route("T").await, Err(Error::Malformed { .. })));
    world.topics.lock().insert("T".to_owned(), 1024);
    assert_eq!(client.route("T").await.unwrap().write_queues().len(), 1024);
    world.topics.lock().insert("T".to_owned(), i32::MAX);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(client.route("T").await.unwrap().write_queues().len(), 1024, "it stays");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_go_away_is_called_over_a_new_connection() {
    let world = World::new(&["a"], 1);
    let producer = producer(&world).await;
    let puller = PullConsumer::with(producer.client().clone(), "G").unwrap();
    let queue = puller.queues("T").await.unwrap().remove(0);
    let send = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.broker("a").state.lock().left_count = 1;
        let began = Instant::now();
        producer.send(Message::new("T", "x")).await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
    };
    let pull = puller.pull(&queue, "*", 0, 32, Duration::from_secs(10));
    let (pulled, ()) = tokio::join!(pull, send);
    assert_eq!(pulled.unwrap().messages.len(), 1, "the old one is not cut");
    assert_eq!(world.broker("a").state.lock().connection_count, 2);
    producer.shutdown().await;
}
