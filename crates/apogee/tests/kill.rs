//! The server is killed under load, again and again: what it acknowledged is there, once, in order.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a real process on a real disk")]

mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use apogee_client::{Message, Producer, PullConsumer};
use apogee_types::route::MessageQueue;
use apogee_wire::remoting::requests::ConsumerSendMsgBack;
use bytes::Bytes;
use server::Server;

const ROUNDS: usize = 20;
const QUEUES: i32 = 4;
const SENDERS: usize = 8;
const LOAD_TIME: Duration = Duration::from_millis(200);
const TOPIC: &str = "kill";

/// What the server acknowledged: by queue and offset, the body.
type Acknowledged = BTreeMap<(i32, i64), String>;

fn queue(broker: &str, id: i32) -> MessageQueue {
    MessageQueue::new(TOPIC, broker, id)
}

/// Sends as fast as answers come until the server is gone; what was acknowledged, also counted in
/// `count` while it goes on.
async fn load(addr: &str, broker: &str, round: usize, count: Arc<AtomicUsize>) -> Acknowledged {
    let producer = Producer::builder(addr).group("kill").retries(0).start().await.unwrap();
    let producer = Arc::new(producer);
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        let (producer, broker) = (Arc::clone(&producer), broker.to_owned());
        let acknowledged_count = Arc::clone(&count);
        senders.spawn(async move {
            let mut acknowledged = Acknowledged::new();
            for count in 0.. {
                let body = format!("{round}-{sender}-{count}-{}", "x".repeat(count * 37 % 900));
                let to = queue(&broker, (sender as i32) % QUEUES);
                let sent = producer.send_to(Message::new(TOPIC, body.clone()), &to).await;
                let Ok(receipt) = sent else { break };
                acknowledged_count.fetch_add(1, Ordering::Relaxed);
                let place = (receipt.queue.queue_id, receipt.queue_offset);
                let twice = acknowledged.insert(place, body);
                assert!(twice.is_none(), "{place:?} was given twice");
            }
            acknowledged
        });
    }
    let mut all = Acknowledged::new();
    while let Some(acknowledged) = senders.join_next().await {
        all.extend(acknowledged.unwrap());
    }
    all
}

/// Reads every queue from its start and compares.
async fn check(addr: &str, broker: &str, acknowledged: &Acknowledged, round: usize) {
    let consumer = PullConsumer::new(addr, "check").unwrap();
    let mut found = Acknowledged::new();
    let mut bodies = std::collections::BTreeSet::new();
    for id in 0..QUEUES {
        let queue = queue(broker, id);
        let mut offset = 0;
        loop {
            let pulled =
                consumer.pull(&queue, "*", offset, 32, Duration::from_millis(1)).await.unwrap();
            if pulled.messages.is_empty() {
                break;
            }
            for message in &pulled.messages {
                let at = message.queue_offset.0 as i64;
                assert_eq!(at, offset, "round {round}: queue {id} has a gap");
                offset += 1;
                let body = String::from_utf8(message.body.to_vec()).unwrap();
                assert!(bodies.insert(body.clone()), "round {round}: {body} is there twice");
                found.insert((id, at), body);
            }
        }
    }
    for (place, body) in acknowledged {
        assert_eq!(found.get(place), Some(body), "round {round}: lost what was acknowledged");
    }
}

async fn killed_again_and_again(flush: &str, port: u16) {
    let dir = tempfile::tempdir().unwrap();
    // Small files, so that rounds cross from one to the next.
    let conf = format!(
        "flushDiskType={flush}\nbrokerName=b\nmappedFileSizeCommitLog=1048576\n\
         mappedFileSizeConsumeQueue=6000\nmaxHashSlotNum=1000\nmaxIndexNum=4000\n"
    );
    let start = || Server::start(dir.path(), port, &conf);
    let mut acknowledged = Acknowledged::new();
    let server = start();
    let client = PullConsumer::new(&server.addr, "make").unwrap();
    client.client().create_topic(TOPIC, QUEUES).await.unwrap();
    let mut server = Some(server);
    for round in 0..ROUNDS {
        let running = server.take().unwrap_or_else(start);
        check(&running.addr, "b", &acknowledged, round).await;
        let addr = running.addr.clone();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let load = tokio::spawn(async move { load(&addr, "b", round, counted).await });
        tokio::time::sleep(LOAD_TIME).await;
        // A disk that others use may need longer for the first; a kill before it proves nothing.
        let patience = Instant::now() + Duration::from_secs(10);
        while count.load(Ordering::Relaxed) == 0 && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(running);
        let new = load.await.unwrap();
        assert!(!new.is_empty(), "round {round}: nothing was acknowledged");
        acknowledged.extend(new);
    }
    let server = start();
    check(&server.addr, "b", &acknowledged, ROUNDS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn with_asynchronous_flush_a_killed_server_loses_nothing() {
    killed_again_and_again("ASYNC_FLUSH", 23_101).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn with_synchronous_flush_a_killed_server_loses_nothing() {
    killed_again_and_again("SYNC_FLUSH", 23_201).await;
}

/// The bodies of a queue.
async fn bodies(consumer: &PullConsumer, topic: &str) -> Vec<String> {
    let queue = MessageQueue::new(topic, "b", 0);
    let pulled = consumer.pull(&queue, "*", 0, 32, Duration::from_millis(1)).await.unwrap();
    let text = |body: &[u8]| String::from_utf8(body.to_vec()).unwrap();
    pulled.messages.iter().map(|message| text(&message.body)).collect()
}

#[tokio::test]
async fn a_topic_that_a_send_created_is_there_after_a_kill_and_so_is_one_for_dead_letters() {
    let dir = tempfile::tempdir().unwrap();
    let start = || Server::start(dir.path(), 23_301, "brokerName=b\n");
    let (server, all) = (start(), ["first", "second"]);
    let producer = Producer::builder(&server.addr).group("kill").retries(0).start().await.unwrap();
    let mut offset_id = String::new();
    for topic in all {
        let queue = MessageQueue::new(topic, "b", 0);
        let sent = producer.send_to(Message::new(topic, topic), &queue).await;
        offset_id = sent.unwrap().offset_id;
    }
    drop(server);
    let server = start();
    let consumer = PullConsumer::new(&server.addr, "check").unwrap();
    for topic in all {
        assert_eq!(consumer.queues(topic).await.unwrap().len(), 4);
        assert_eq!(bodies(&consumer, topic).await, [topic]);
    }
    let back = ConsumerSendMsgBack {
        log_offset: i64::from_str_radix(&offset_id[16..], 16).unwrap(),
        group: "tired".to_owned(),
        delay_level: -1,
        origin_msg_id: None,
        origin_topic: None,
        unit_mode: false,
        max_reconsume_times: None,
    };
    let broker = consumer.client().broker_address("b", 0).unwrap();
    consumer.client().call::<ConsumerSendMsgBack>(&broker, &back, Bytes::new()).await.unwrap();
    drop(server);
    let server = start();
    let consumer = PullConsumer::new(&server.addr, "check").unwrap();
    assert_eq!(consumer.queues("%DLQ%tired").await.unwrap().len(), 1);
    assert_eq!(bodies(&consumer, "%DLQ%tired").await, ["second"]);
    let groups = std::fs::read_to_string(dir.path().join("data/config/subscriptionGroup.json"));
    assert!(groups.unwrap().contains("\"tired\""));
}
