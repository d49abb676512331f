//! The client of this workspace against the server of this workspace.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a real server on a real disk")]

mod server;

use std::collections::BTreeMap;
use std::future::ready;
use std::time::Duration;

use apogee_client::{
    Client, Message, Options, Outcome, Producer, PullConsumer, PushConsumer, ReceivedMessage,
    StartFrom,
};
use apogee_wire::remoting::requests::ResetOffset;
use bytes::Bytes;
use server::Server;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Longer than the first retry takes (10 s), with room for a slow machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// A client, and a topic with so many queues that clients can find.
async fn topic(server: &Server, queue_count: i32) -> (Client, String) {
    let client = Client::new(Options::new(&server.addr));
    client.create_topic("live", queue_count).await.unwrap();
    (client, "live".to_owned())
}

async fn producer(client: &Client) -> Producer {
    Producer::builder("").client(client.clone()).start().await.unwrap()
}

async fn next(seen: &mut mpsc::Receiver<ReceivedMessage>) -> ReceivedMessage {
    timeout(PATIENCE, seen.recv()).await.expect("no message came").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_failed_message_comes_again_after_ten_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_401, "");
    let (client, topic) = topic(&server, 1).await;
    let sent = producer(&client).await.send(Message::new(&topic, "x").tag("t")).await.unwrap();
    let (tell, mut seen) = mpsc::channel(16);
    let handler = move |messages: Vec<ReceivedMessage>| {
        let outcome = if messages[0].reconsume_times == 0 { Outcome::Retry } else { Outcome::Done };
        for message in messages {
            tell.try_send(message).unwrap();
        }
        ready(outcome)
    };
    let consumer = PushConsumer::builder("", "G")
        .client(client.clone())
        .subscribe(&topic, "t || u")
        .start_from(StartFrom::Earliest)
        .start(handler)
        .await
        .unwrap();
    let first = next(&mut seen).await;
    let came = Instant::now();
    let again = next(&mut seen).await;
    assert_eq!((first.id(), again.id()), (sent.id.clone(), sent.id));
    assert_eq!((&*again.topic, again.reconsume_times), (topic.as_str(), 1));
    assert!(Duration::from_secs(9) < came.elapsed(), "after {:?}", came.elapsed());
    consumer.shutdown().await;
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn messages_of_a_key_come_in_order_and_each_queue_has_one_reader() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_421, "");
    let (client, topic) = topic(&server, 4).await;
    let producer = producer(&client).await;
    for number in 0..60 {
        let key = format!("key{}", number % 5);
        let message = Message::new(&topic, number.to_string());
        producer.send_ordered(message, &key).await.unwrap();
    }
    let group = "G";
    let (tell, mut seen) = mpsc::channel(128);
    let mut consumers = Vec::new();
    for _ in 0..2 {
        let tell = tell.clone();
        let handler = move |messages: Vec<ReceivedMessage>| {
            for message in messages {
                tell.try_send(message).unwrap();
            }
            ready(Outcome::Done)
        };
        let builder = PushConsumer::builder(&server.addr, group)
            .subscribe(&topic, "*")
            .start_from(StartFrom::Earliest)
            .ordered();
        consumers.push(builder.start(handler).await.unwrap());
    }
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    for _ in 0..60 {
        let message = next(&mut seen).await;
        let number: i64 = std::str::from_utf8(&message.body).unwrap().parse().unwrap();
        let key = message.properties["__SHARDINGKEY"].clone();
        let before = last.insert(key, number);
        assert!(before.is_none_or(|before| before + 5 == number), "{before:?} then {number}");
    }
    for consumer in consumers {
        consumer.shutdown().await;
    }
    assert!(seen.try_recv().is_err(), "each message came once");
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn messages_are_found_by_key_and_by_both_ids_and_the_group_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_441, "");
    let (client, topic) = topic(&server, 2).await;
    let producer = producer(&client).await;
    let body = "long enough to be compressed ".repeat(400);
    let sent = producer.send(Message::new(&topic, body.clone()).key("k7")).await.unwrap();
    let batch = vec![Message::new(&topic, "1").key("k7"), Message::new(&topic, "2")];
    producer.send_batch(batch).await.unwrap();

    let viewed = client.view_message(&sent.offset_id).await.unwrap().unwrap();
    assert_eq!((viewed.id(), &viewed.body[..]), (sent.id.clone(), body.as_bytes()));
    let started = Instant::now();
    loop {
        let by_key = client.query_by_key(&topic, "k7", 32, 0..i64::MAX).await.unwrap();
        let by_id = client.query_by_id(&topic, &sent.id).await.unwrap();
        if by_key.len() == 2 && by_id.len() == 1 {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{} by key, {} by id", by_key.len(), by_id.len());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    let group = "G";
    let (tell, mut seen) = mpsc::channel(16);
    let handler = move |messages: Vec<ReceivedMessage>| {
        for message in messages {
            tell.try_send(message).unwrap();
        }
        ready(Outcome::Done)
    };
    let consumer = PushConsumer::builder("", group)
        .client(client.clone())
        .subscribe(&topic, "*")
        .start_from(StartFrom::Earliest)
        .start(handler)
        .await
        .unwrap();
    for _ in 0..3 {
        next(&mut seen).await;
    }
    let addr = client.broker_address(&sent.queue.broker_name, 0).unwrap();
    let connections = client.consumer_connections(&addr, group).await.unwrap();
    assert_eq!(connections.connection_set[0].client_id, client.id());
    consumer.shutdown().await;
    let stats = client.consume_stats(&addr, group).await.unwrap();
    let behind = stats.offset_table.values().map(|it| it.broker_offset - it.consumer_offset);
    assert_eq!(behind.sum::<i64>(), 0);
    assert!(client.consumer_connections(&addr, group).await.is_err(), "it has left");
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_delayed_message_comes_after_later_ones_and_not_before_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_461, "");
    let (client, topic) = topic(&server, 1).await;
    let (tell, mut seen) = mpsc::channel(16);
    let handler = move |messages: Vec<ReceivedMessage>| {
        for message in messages {
            tell.try_send(message).unwrap();
        }
        ready(Outcome::Done)
    };
    let consumer = PushConsumer::builder("", "G")
        .client(client.clone())
        .subscribe(&topic, "*")
        .start_from(StartFrom::Earliest)
        .start(handler)
        .await
        .unwrap();
    let producer = producer(&client).await;
    let sent = Instant::now();
    producer.send(Message::new(&topic, "later").delay_level(2)).await.unwrap();
    producer.send(Message::new(&topic, "now")).await.unwrap();
    assert_eq!(&next(&mut seen).await.body[..], b"now");
    assert_eq!(&next(&mut seen).await.body[..], b"later");
    assert!(Duration::from_millis(4500) < sent.elapsed(), "after {:?}", sent.elapsed());
    consumer.shutdown().await;
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_operator_skips_a_message_that_always_fails() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_381, "");
    let (client, topic) = topic(&server, 1).await;
    let producer = producer(&client).await;
    producer.send(Message::new(&topic, "fails")).await.unwrap();
    producer.send(Message::new(&topic, "waits")).await.unwrap();
    let (tell, mut seen) = mpsc::channel(64);
    let handler = move |messages: Vec<ReceivedMessage>| {
        let fails = messages[0].body == "fails";
        for message in messages {
            tell.try_send(message).unwrap();
        }
        ready(if fails { Outcome::Retry } else { Outcome::Done })
    };
    let consumer = PushConsumer::builder("", "G")
        .client(client.clone())
        .subscribe(&topic, "*")
        .start_from(StartFrom::Earliest)
        .ordered()
        .start(handler)
        .await
        .unwrap();
    assert_eq!(next(&mut seen).await.body, "fails");
    assert_eq!(next(&mut seen).await.body, "fails");
    let request = ResetOffset {
        topic: topic.clone(),
        group: "G".to_owned(),
        timestamp_ms: -1,
        is_force: true,
        queue_id: -1,
        offset: None,
    };
    let broker = client.brokers().into_values().next().unwrap();
    client.call::<ResetOffset>(&broker, &request, Bytes::new()).await.unwrap();
    producer.send(Message::new(&topic, "goes on")).await.unwrap();
    loop {
        let message = next(&mut seen).await;
        if message.body == "goes on" {
            break;
        }
        assert_eq!(message.body, "fails");
    }
    consumer.shutdown().await;
    let reader = PullConsumer::with(client.clone(), "G").unwrap();
    let queue = reader.queues(&topic).await.unwrap().remove(0);
    assert_eq!(reader.committed(&queue).await.unwrap(), Some(3));
    client.close().await;
}

/// What a connection's sends share must not outlive a change.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_connection_that_sends_learns_of_a_deleted_topic_and_of_its_next_life() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_981, "autoCreateTopicEnable=false\n");
    let (client, topic) = topic(&server, 1).await;
    let producer = producer(&client).await;
    for offset in 0..3 {
        let sent = producer.send(Message::new(&topic, "x")).await.unwrap();
        assert_eq!(sent.queue_offset, offset);
    }
    client.delete_topic(&topic).await.unwrap();
    let refused = producer.send(Message::new(&topic, "x")).await.unwrap_err();
    assert!(refused.to_string().contains(&topic), "{refused}");
    client.create_topic(&topic, 1).await.unwrap();
    let sent = producer.send(Message::new(&topic, "x")).await.unwrap();
    assert_eq!(sent.queue_offset, 0, "its queues are new");
    client.close().await;
}
