//! Pulls, of consumers of both kinds.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use apogee_client::{Client, Outcome, PullConsumer, PushConsumer, ReceivedMessage, StartFrom};
use apogee_types::SysFlag;
use apogee_types::route::MessageQueue;
use parking_lot::Mutex;

use crate::world::World;

/// A consumer that notes the bodies that it is given.
async fn push_consumer(world: &Arc<World>) -> (PushConsumer, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let (noted, touched) = (Arc::clone(&seen), Arc::clone(world));
    let handler = move |messages: Vec<ReceivedMessage>| {
        let bodies = messages.iter().map(|it| String::from_utf8_lossy(&it.body).into_owned());
        noted.lock().extend(bodies);
        touched.touch();
        ready(Outcome::Done)
    };
    let builder = PushConsumer::builder("", "G").options(world.options()).subscribe("T", "*");
    let consumer = builder.start_from(StartFrom::Earliest).start(handler).await.unwrap();
    (consumer, seen)
}

#[tokio::test(start_paused = true)]
async fn a_slave_is_read_when_the_master_is_gone() {
    let world = World::new(&["a"], 1);
    let broker = world.broker("a");
    broker.put("T", 0, "one", "");
    let (consumer, seen) = push_consumer(&world).await;
    world.until("one is read", |_| seen.lock().len() == 1).await;
    broker.put("T", 0, "two", "");
    world.touch();
    world.until("two is read", |_| seen.lock().len() == 2).await;
    world.until("a pull commits", |_| broker.state.lock().committing_pulls != 0).await;

    world.slaves.lock().insert("a");
    tokio::time::sleep(Duration::from_secs(61)).await;
    broker.state.lock().committing_pulls = 0;
    broker.put("T", 0, "three", "");
    world.touch();
    world.until("three is read", |_| seen.lock().len() == 3).await;
    let puller = PullConsumer::with(Client::new(world.options()), "P").unwrap();
    let queue = MessageQueue::new("T", "a", 0);
    let pulled = puller.pull(&queue, "*", 0, 32, Duration::ZERO).await.unwrap();
    assert_eq!(pulled.messages.len(), 3);
    assert_eq!(broker.state.lock().committing_pulls, 0, "a slave takes no offsets with a pull");
    consumer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_is_left_out_and_no_other() {
    let world = World::new(&["a"], 1);
    let broker = world.broker("a");
    for number in 0..6 {
        broker.put("T", 0, &number.to_string(), "");
    }
    for at in [0, 3] {
        // The magic number.
        broker.state.lock().queues.get_mut(&("T".to_owned(), 0)).unwrap()[at][4] ^= 1;
    }
    let (consumer, seen) = push_consumer(&world).await;
    world.until("all others are read", |_| seen.lock().len() == 4).await;
    assert_eq!(*seen.lock(), ["1", "2", "4", "5"]);
    consumer.shutdown().await;
    assert_eq!(broker.offset("G", "T", 0), Some(6));

    let puller = PullConsumer::with(Client::new(world.options()), "P").unwrap();
    let queue = MessageQueue::new("T", "a", 0);
    let mut ends = Vec::new();
    let mut offset = 0;
    while offset < 6 {
        let pulled = puller.pull(&queue, "*", offset, 32, Duration::ZERO).await.unwrap();
        offset = pulled.next_offset;
        ends.push((pulled.messages.len(), offset));
    }
    assert_eq!(ends, [(0, 1), (2, 3), (0, 4), (2, 6)]);
}

#[tokio::test(start_paused = true)]
async fn what_would_inflate_to_too_much_at_once_comes_with_the_next_pull() {
    // A zstd frame of 40 MiB: one byte, 128 KiB times in each block.
    let block = ((128 << 10) << 3 | 1 << 1) as u32;
    let block = [&block.to_le_bytes()[..3], &[7]].concat();
    let head = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
    let last = [3 | (1 << 3), 0, 0, 7];
    let body = [&head[..], &block.repeat(320), &last].concat();
    let flag = SysFlag::COMPRESSED.with(SysFlag::COMPRESSION_ZSTD);

    let world = World::new(&["a"], 1);
    let broker = world.broker("a");
    broker.put("T", 0, "short", "");
    for _ in 0..2 {
        broker.store("T", 0, flag.0, &body, b"");
    }
    let puller = PullConsumer::with(Client::new(world.options()), "P").unwrap();
    let queue = MessageQueue::new("T", "a", 0);
    let pull = |offset| puller.pull(&queue, "*", offset, 32, Duration::ZERO);
    puller.queues("T").await.unwrap();
    let first = pull(0).await.unwrap();
    let lens: Vec<usize> = first.messages.iter().map(|it| it.body.len()).collect();
    assert_eq!((lens, first.next_offset), (vec![5, (40 << 20) + 1], 2));
    let second = pull(2).await.unwrap();
    assert_eq!((second.messages.len(), second.next_offset), (1, 3));
}
