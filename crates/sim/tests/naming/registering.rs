//! Brokers that register, and name servers that come and go.

use std::time::Duration;

use apogee_net::Transport;
use apogee_sim::disk::{Faults, SimDisk};
use apogee_sim::node::{Node, NodeSettings};
use apogee_store::FlushMode;
use apogee_types::config::Perm;
use apogee_types::names::AUTO_CREATE_TOPIC;
use apogee_types::settings::{BrokerSettings, NamesrvSettings};
use apogee_wire::remoting::requests::{DeleteTopicInNameServer, PutKvConfig};
use bytes::Bytes;
use tokio::time::sleep;

use crate::world::{MORE_NAMES, NAMES, World, route, until_route};

/// Longer than a broker takes to come back, shorter than it takes to register anyway.
const SOON: Duration = Duration::from_secs(5);
const PERIOD: Duration = Duration::from_secs(31);

fn forced() -> BrokerSettings {
    BrokerSettings { force_register: true, ..BrokerSettings::default() }
}

#[tokio::test(start_paused = true)]
async fn a_name_server_that_was_started_anew_knows_all_topics_again() {
    for settings in [BrokerSettings::default(), forced()] {
        for pause_ms in (0..1500).step_by(50) {
            let world = World::new();
            let names = world.name_server(NAMES, NamesrvSettings::default()).await;
            let _more = world.name_server(MORE_NAMES, NamesrvSettings::default()).await;
            let broker = world.broker("a", settings.clone(), &[NAMES, MORE_NAMES]);
            for topic in ["kept", "deleted"] {
                broker.create(topic);
            }
            let clients = [world.client(&[NAMES]), world.client(&[MORE_NAMES])];
            for client in &clients {
                until_route(client, "deleted", true, SOON).await;
            }
            names.kill().await;
            let restart = async {
                sleep(Duration::from_millis(500)).await;
                world.name_server(NAMES, NamesrvSettings::default()).await
            };
            let change = async {
                sleep(Duration::from_millis(pause_ms)).await;
                broker.delete("deleted");
                sleep(Duration::from_millis(100)).await;
                broker.create("new");
                broker.create("newer");
            };
            let (_names, ()) = tokio::join!(restart, change);
            for client in &clients {
                for topic in ["kept", "new", "newer", AUTO_CREATE_TOPIC] {
                    until_route(client, topic, true, SOON).await;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn connections_that_break_lose_no_topics() {
    for pause_ms in 0..10 {
        let world = World::new();
        let _names = world.name_server(NAMES, NamesrvSettings::default()).await;
        let broker = world.broker("a", BrokerSettings::default(), &[NAMES]);
        broker.create("kept");
        let client = world.client(&[NAMES]);
        until_route(&client, "kept", true, SOON).await;
        world.net.cut_all();
        sleep(Duration::from_millis(pause_ms)).await;
        broker.create("new");
        broker.create("newer");
        world.net.cut_all();
        for topic in ["kept", "new", "newer"] {
            until_route(&client, topic, true, SOON).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_server_that_became_silent_is_dialed_anew() {
    let world = World::new();
    let mut silent = world.net.listen(NAMES.parse().unwrap()).await.unwrap();
    let _broker = world.broker("a", BrokerSettings::default(), &[NAMES]);
    let _open = silent.accept().await.unwrap();
    world.net.unlisten(NAMES.parse().unwrap());
    let _names = world.name_server(NAMES, NamesrvSettings::default()).await;
    let client = world.client(&[NAMES]);
    until_route(&client, AUTO_CREATE_TOPIC, true, PERIOD).await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_broker_is_forgotten_at_once() {
    let world = World::new();
    let _names = world.name_server(NAMES, NamesrvSettings::default()).await;
    let broker = world.broker("a", BrokerSettings::default(), &[NAMES]);
    let _other = world.broker("bb", BrokerSettings::default(), &[NAMES]);
    broker.create("t");
    let client = world.client(&[NAMES]);
    until_route(&client, "t", true, SOON).await;
    broker.kill().await;
    until_route(&client, "t", false, Duration::from_millis(100)).await;
    let left = route(&client, AUTO_CREATE_TOPIC).await.unwrap();
    assert_eq!(left.broker_datas.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_only_the_name_server_lost_comes_back_if_that_is_forced() {
    let world = World::new();
    let _names = world.name_server(NAMES, NamesrvSettings::default()).await;
    let broker = world.broker("a", forced(), &[NAMES]);
    broker.create("t");
    let client = world.client(&[NAMES]);
    until_route(&client, "t", true, SOON).await;
    let request = DeleteTopicInNameServer { topic: "t".to_owned(), cluster_name: None };
    client.call::<DeleteTopicInNameServer>(NAMES, &request, Bytes::new()).await.unwrap();
    assert_eq!(route(&client, "t").await, None);
    until_route(&client, "t", true, PERIOD).await;
}

#[tokio::test(start_paused = true)]
async fn topics_are_registered_with_their_permission_or_less() {
    for (broker_permission, told) in [(6, 7), (4, 4), (2, 2), (7, 7)] {
        let world = World::new();
        let _names = world.name_server(NAMES, NamesrvSettings::default()).await;
        let settings = BrokerSettings { broker_permission, ..BrokerSettings::default() };
        let _broker = world.broker("a", settings, &[NAMES]);
        let client = world.client(&[NAMES]);
        until_route(&client, AUTO_CREATE_TOPIC, true, SOON).await;
        let route = route(&client, AUTO_CREATE_TOPIC).await.unwrap();
        assert_eq!(route.queue_datas[0].perm, Perm(told), "brokerPermission={broker_permission}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_the_name_server_orders_is_ordered_on_the_broker() {
    let world = World::new();
    let settings = NamesrvSettings { order_message_enable: true, ..NamesrvSettings::default() };
    let _names = world.name_server(NAMES, settings).await;
    let broker = world.broker("a", BrokerSettings::default(), &[NAMES]);
    broker.create("t");
    let client = world.client(&[NAMES]);
    until_route(&client, "t", true, SOON).await;
    let request = PutKvConfig {
        namespace: "ORDER_TOPIC_CONFIG".to_owned(),
        key: "t".to_owned(),
        value: "a:4".to_owned(),
    };
    client.call::<PutKvConfig>(NAMES, &request, Bytes::new()).await.unwrap();
    let conf = route(&client, "t").await.unwrap().order_topic_conf;
    assert_eq!(conf.as_deref(), Some("a:4"));
    assert!(!broker.broker.topics.find("t").unwrap().order);
    sleep(PERIOD).await;
    assert!(broker.broker.topics.find("t").unwrap().order);
}

/// Name server and broker in one process.
async fn standalone(world: &World) -> Node {
    let flush_interval = Duration::from_millis(500);
    let settings =
        NodeSettings { addr: NAMES.parse().unwrap(), flush: FlushMode::Async, flush_interval };
    let disk = SimDisk::new(1, Faults::default());
    let mut node = Node::new(settings, disk, world.net.clone(), world.clock, 1);
    assert_eq!(node.start().await, Ok(true));
    node
}

#[tokio::test(start_paused = true)]
async fn our_own_broker_keeps_its_name_from_another() {
    let world = World::new();
    let _node = standalone(&world).await;
    let client = world.client(&[NAMES]);
    client.create_topic("t", 4).await.unwrap();
    let namesake = world.broker(Node::BROKER, BrokerSettings::default(), &[NAMES]);
    let is_ours = async || {
        for topic in ["t", AUTO_CREATE_TOPIC] {
            let route = route(&client, topic).await.unwrap();
            assert_eq!(&*route.broker_datas[0].broker_addrs[&0], NAMES, "{topic}");
        }
    };
    sleep(SOON + Duration::from_secs(1)).await;
    is_ours().await;
    namesake.kill().await;
    sleep(Duration::from_millis(500)).await;
    is_ours().await;
    client.create_topic("u", 4).await.unwrap();
    assert!(route(&client, "u").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn our_own_broker_takes_over_which_topics_are_ordered() {
    let world = World::new();
    let node = standalone(&world).await;
    let client = world.client(&[NAMES]);
    client.create_topic("t", 4).await.unwrap();
    let request = PutKvConfig {
        namespace: "ORDER_TOPIC_CONFIG".to_owned(),
        key: "t".to_owned(),
        value: "broker-a:4".to_owned(),
    };
    client.call::<PutKvConfig>(NAMES, &request, Bytes::new()).await.unwrap();
    assert!(node.broker().unwrap().topics.find("t").unwrap().order);
}
