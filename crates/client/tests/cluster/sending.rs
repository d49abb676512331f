//! Calls and producers.

use std::collections::BTreeMap;
use std::time::Duration;

use apogee_client::{Client, Error, Message, Options, Producer, PullConsumer, PullStatus};
use apogee_types::route::MessageQueue;
use apogee_wire::remoting::ResponseCode;

use crate::world::{NAME_SERVER, World};

async fn producer(world: &std::sync::Arc<World>) -> Producer {
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
    let started = tokio::time::Instant::now();
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
    let delayed = vec![Message::new("T", "x").delay_level(1)];
    assert!(matches!(producer.send_batch(delayed).await, Err(Error::Batch(_))));
}

#[tokio::test(start_paused = true)]
async fn a_oneway_send_is_written_even_if_the_producer_ends_at_once() {
    let world = World::new(&["a"], 1);
    let producer = producer(&world).await;
    producer.send_oneway(Message::new("T", "x")).await.unwrap();
    producer.shutdown().await;
    world.until("the message is there", |world| !stored(world).is_empty()).await;
}
