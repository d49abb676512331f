//! Pulls, of consumers of both kinds.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use apogee_client::{Client, Outcome, PullConsumer, PushConsumer, ReceivedMessage, StartFrom};
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
