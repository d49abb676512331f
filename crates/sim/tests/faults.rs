//! A broker whose device fails: who sends is told, with the code that clients understand and a
//! sentence for the operator, and who reads is served.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::time::Duration;

use apogee_client::{Client, Error, Message, Options, Producer, PullConsumer};
use apogee_sim::clock::SimClock;
use apogee_sim::disk::{Broken, Fault, Faults, SimDisk};
use apogee_sim::net::{SimNet, Weather};
use apogee_sim::node::{Node, NodeSettings};
use apogee_store::FlushMode;
use apogee_types::QueueId;

const ADDR: &str = "10.0.0.1:9876";
const TOPIC: &str = "orders";

fn options(net: &SimNet, clock: SimClock, id: &str) -> Options {
    Options {
        name_servers: vec![ADDR.to_owned()],
        transport: Arc::new(net.clone()),
        clock: Arc::new(clock),
        seed: 1,
        client_id: Some(id.to_owned()),
    }
}

/// The code and the remark.
fn refused(error: &Error) -> (i32, &str) {
    match error {
        Error::Refused { code, remark, .. } => (code.0, remark),
        other => panic!("{other}"),
    }
}

async fn live(flush: FlushMode) {
    let clock = SimClock::start(0);
    let net = SimNet::new(1, Weather { delay_ms_max: 1, reset_one_in: 0 });
    let disk = SimDisk::new(1, Faults::default());
    let flush_interval = Duration::from_millis(500);
    let settings = NodeSettings { addr: ADDR.parse().unwrap(), flush, flush_interval };
    let mut node = Node::new(settings, disk.clone(), net.clone(), clock, 1);
    assert_eq!(node.start().await, Ok(true));
    let client = Client::new(options(&net, clock, "c"));
    client.create_topic(TOPIC, 1).await.unwrap();
    let producer = Producer::builder(ADDR).options(options(&net, clock, "p")).group("producers");
    let producer = producer.retries(0).start().await.unwrap();
    let send = |body: &'static str| producer.send(Message::new(TOPIC, body));
    send("before").await.unwrap();
    disk.watch(Some(Broken { call: 0, fault: Fault::Device, for_good: true }));
    match (flush, send("during").await) {
        (FlushMode::Sync, sent) => {
            let error = sent.unwrap_err();
            let (code, remark) = refused(&error);
            assert!(code == 1 && remark.contains("device failed"), "{error}");
        }
        // Promised for a stop of the process only; the flush comes later.
        (FlushMode::Async, sent) => drop(sent.unwrap()),
    }
    tokio::time::sleep(2 * flush_interval).await;
    let error = send("after").await.unwrap_err();
    let (code, remark) = refused(&error);
    assert!(code == 14 && remark.contains("/store/commitlog/"), "{error}");
    assert!(remark.contains("restart"), "{error}");
    let consumer = PullConsumer::with(client, "readers").unwrap();
    let queue = &consumer.queues(TOPIC).await.unwrap()[0];
    let pulled = consumer.pull(queue, "*", 0, 32, Duration::ZERO).await.unwrap();
    let bodies: Vec<_> = pulled.messages.iter().map(|it| &it.body[..]).collect();
    let expected: &[&[u8]] = match flush {
        FlushMode::Sync => &[b"before"],
        FlushMode::Async => &[b"before", b"during"],
    };
    assert_eq!(bodies, expected);
}

#[tokio::test(start_paused = true)]
async fn sends_are_refused_and_pulls_served_after_a_failed_flush() {
    live(FlushMode::Async).await;
    live(FlushMode::Sync).await;
}

#[tokio::test(start_paused = true)]
async fn commits_that_could_not_be_written_are_written_later_although_no_more_come() {
    let clock = SimClock::start(0);
    let net = SimNet::new(1, Weather { delay_ms_max: 1, reset_one_in: 0 });
    let disk = SimDisk::new(1, Faults::default());
    let (flush, flush_interval) = (FlushMode::Async, Duration::from_millis(500));
    let settings = NodeSettings { addr: ADDR.parse().unwrap(), flush, flush_interval };
    let mut node = Node::new(settings, disk.clone(), net, clock, 1);
    assert_eq!(node.start().await, Ok(true));
    let queue = QueueId::default();
    let mut call = 0;
    loop {
        let offset = call as i64 + 1;
        let broker = node.broker().unwrap();
        broker.offsets.commit("g", TOPIC, queue, offset, 0);
        disk.watch(Some(Broken { call, fault: Fault::Full, for_good: false }));
        let written = broker.persist_progress();
        disk.mend();
        assert_eq!(node.stop().await, Ok(true));
        assert_eq!(node.start().await, Ok(true));
        let kept = node.broker().unwrap().offsets.committed("g", TOPIC, queue);
        assert_eq!(kept, Some(offset), "after {written:?} of call {call}");
        call += 1;
        // The disk was broken beyond what there was to do.
        if written.is_ok() && 8 < call {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_group_has_read_outlives_a_power_cut_as_its_offset_does() {
    for seed in 0..8 {
        let clock = SimClock::start(0);
        let net = SimNet::new(seed, Weather { delay_ms_max: 1, reset_one_in: 0 });
        let disk = SimDisk::new(seed, Faults::default());
        // Nothing is flushed by time.
        let (flush, flush_interval) = (FlushMode::Async, Duration::from_secs(1000));
        let settings = NodeSettings { addr: ADDR.parse().unwrap(), flush, flush_interval };
        let mut node = Node::new(settings, disk, net.clone(), clock, seed);
        assert_eq!(node.start().await, Ok(true));
        Client::new(options(&net, clock, "c")).create_topic(TOPIC, 1).await.unwrap();
        let producer = Producer::builder(ADDR).options(options(&net, clock, "p"));
        let producer = producer.group("producers").retries(0).start().await.unwrap();
        producer.send(Message::new(TOPIC, "read")).await.unwrap();
        let (broker, queue) = (node.broker().unwrap(), QueueId::default());
        broker.offsets.commit("g", TOPIC, queue, 1, 0);
        broker.persist_progress().unwrap();
        node.crash().await;
        assert_eq!(node.start().await, Ok(true));
        let broker = node.broker().unwrap();
        assert_eq!(broker.offsets.committed("g", TOPIC, queue), Some(1));
        // Else the next message would get the offset of the one that was read.
        assert_eq!(broker.store.queue_bounds(TOPIC, queue).end.0, 1, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn with_synchronous_flush_a_message_that_does_not_want_to_wait_is_answered_at_once() {
    let clock = SimClock::start(0);
    let net = SimNet::new(1, Weather { delay_ms_max: 1, reset_one_in: 0 });
    let disk = SimDisk::new(1, Faults::default());
    // The device takes a second.
    let (flush, flush_interval) = (FlushMode::Sync, Duration::from_secs(20));
    let settings = NodeSettings { addr: ADDR.parse().unwrap(), flush, flush_interval };
    let mut node = Node::new(settings, disk, net.clone(), clock, 1);
    assert_eq!(node.start().await, Ok(true));
    Client::new(options(&net, clock, "c")).create_topic(TOPIC, 1).await.unwrap();
    let producer = Producer::builder(ADDR).options(options(&net, clock, "p")).group("producers");
    let producer = producer.retries(0).start().await.unwrap();
    let took = async |wait: &str| {
        let began = tokio::time::Instant::now();
        producer.send(Message::new(TOPIC, "x").property("WAIT", wait)).await.unwrap();
        began.elapsed()
    };
    // After it the device has just begun anew.
    took("true").await;
    let (fast, slow) = (took("false").await, took("true").await);
    assert!(fast < Duration::from_millis(20), "{fast:?}");
    assert!(Duration::from_millis(900) < slow, "{slow:?}");
    // What did not wait is written all the same, and survives a kill.
    took("false").await;
    node.kill().await;
    assert_eq!(node.start().await, Ok(true));
    let end = node.broker().unwrap().store.queue_bounds(TOPIC, QueueId::default()).end.0;
    assert_eq!(end, 4);
}
