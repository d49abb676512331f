//! What a name server answers, request by request. Spec `broker.md` 9.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apogee_client::{Answer, Client};
use apogee_types::config::{DataVersion, Perm, TopicConfig};
use apogee_types::json;
use apogee_types::route::TopicRouteData;
use apogee_types::settings::NamesrvSettings;
use apogee_wire::remoting::bodies::{
    RegisterBrokerBody, TopicConfigAndMappingSerializeWrapper, TopicList,
};
use apogee_wire::remoting::requests::{
    GetHasUnitSubTopicList, GetHasUnitSubUnunitTopicList, GetRouteInfoByTopic, GetUnitTopicList,
    QueryDataVersion, QueryDataVersionResponse, RegisterBroker, UnregisterBroker,
};
use apogee_wire::remoting::{Request, ResponseCode};
use bytes::Bytes;
use tokio::time::sleep;

use crate::world::{NAMES, World, route};

const VERSION: DataVersion = DataVersion { counter: 1, state_version: 0, timestamp: 0 };

/// A broker that knows acting masters, in this zone, with topics of these sys flags.
async fn register(client: &Client, (name, id): (&str, i64), zone: &str, topics: &[(&str, i32)]) {
    let config = |(topic, flag): &(&str, i32)| {
        let config = TopicConfig::new(topic, 4, Perm::READ_WRITE);
        ((*topic).into(), Arc::new(TopicConfig { topic_sys_flag: *flag, ..config }))
    };
    let topic_config_table: BTreeMap<_, _> = topics.iter().map(config).collect();
    let wrapper = TopicConfigAndMappingSerializeWrapper {
        data_version: VERSION,
        topic_config_table,
        ..Default::default()
    };
    let body = RegisterBrokerBody {
        topic_config_serialize_wrapper: wrapper,
        ..RegisterBrokerBody::default()
    };
    let request = RegisterBroker {
        broker_name: name.to_owned(),
        broker_addr: format!("{name}-{id}"),
        cluster_name: "c".to_owned(),
        ha_server_addr: None,
        broker_id: id,
        heartbeat_timeout_ms: None,
        enable_acting_master: Some(true),
        compressed: false,
        body_crc32: 0,
        zone_name: Some(zone.to_owned()),
    };
    let body = json::write(&body).into();
    client.call::<RegisterBroker>(NAMES, &request, body).await.unwrap();
}

async fn ask<R: Request>(client: &Client, request: &R::At<'_>) -> Answer<R> {
    let within = Duration::from_secs(3);
    client.call_within::<R>(NAMES, request, Bytes::new(), within).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_broker_outlives_the_connection_over_which_it_registered() {
    let world = World::new();
    let _names = world.name_server(NAMES, NamesrvSettings::default()).await;
    let (first, second) = (world.client(&[NAMES]), world.client(&[NAMES]));
    register(&first, ("a", 0), "z", &[("t", 0), ("u", 0)]).await;
    let request = QueryDataVersion {
        broker_name: "a".to_owned(),
        broker_addr: "a-0".to_owned(),
        cluster_name: "c".to_owned(),
        broker_id: 0,
    };
    let body = json::write(&VERSION).into();
    let answer = second.call::<QueryDataVersion>(NAMES, &request, body).await.unwrap();
    let is_changed = answer.fields(|it: QueryDataVersionResponse| it.changed);
    assert!(!is_changed.unwrap());
    first.close().await;
    sleep(Duration::from_secs(1)).await;
    let client = world.client(&[NAMES]);
    assert!(route(&client, "t").await.is_some());
    second.close().await;
    sleep(Duration::from_secs(1)).await;
    assert!(route(&client, "t").await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_client_in_zone_mode_sees_the_brokers_of_its_zone() {
    let world = World::new();
    let _names = world.name_server(NAMES, NamesrvSettings::default()).await;
    let client = world.client(&[NAMES]);
    register(&client, ("near", 0), "z1", &[("t", 0), ("u", 0)]).await;
    register(&client, ("far", 0), "z2", &[("t", 0), ("u", 0)]).await;
    for (zone_mode, zone_name, seen) in [
        (true, Some("Z1"), vec!["near"]),
        (true, Some(" "), vec!["far", "near"]),
        (true, None, vec!["far", "near"]),
        (false, Some("z1"), vec!["far", "near"]),
    ] {
        let request = GetRouteInfoByTopic {
            topic: "t".to_owned(),
            accept_standard_json_only: true,
            zone_mode,
            zone_name: zone_name.map(ToOwned::to_owned),
        };
        let answer = ask::<GetRouteInfoByTopic>(&client, &request).await;
        let route: TopicRouteData = answer.json().unwrap();
        let brokers: Vec<_> = route.broker_datas.iter().map(|it| &*it.broker_name).collect();
        let queues: Vec<_> = route.queue_datas.iter().map(|it| &*it.broker_name).collect();
        assert_eq!((&brokers, &queues), (&seen, &seen), "{zone_mode} {zone_name:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slave_is_shown_as_master_if_that_is_set() {
    const MEMBERS: &str = "rmq_sys_SYNC_BROKER_MEMBER_a";
    for support_acting_master in [false, true] {
        let world = World::new();
        let settings = NamesrvSettings { support_acting_master, ..NamesrvSettings::default() };
        let _names = world.name_server(NAMES, settings).await;
        let client = world.client(&[NAMES]);
        for id in [0, 1] {
            register(&client, ("a", id), "z", &[("t", 0), (MEMBERS, 0)]).await;
        }
        let master = UnregisterBroker {
            broker_name: "a".to_owned(),
            broker_addr: "a-0".to_owned(),
            cluster_name: "c".to_owned(),
            broker_id: 0,
        };
        ask::<UnregisterBroker>(&client, &master).await;
        for (topic, id) in [("t", i64::from(!support_acting_master)), (MEMBERS, 1)] {
            let route = route(&client, topic).await.unwrap();
            let addrs: Vec<_> = route.broker_datas[0].broker_addrs.iter().collect();
            assert_eq!(addrs, [(&id, &Arc::from("a-1"))], "{topic} {support_acting_master}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn topics_of_units_are_listed_by_their_flags() {
    let world = World::new();
    let names = world.name_server(NAMES, NamesrvSettings::default()).await;
    let client = world.client(&[NAMES]);
    let topics = [("none", 0), ("unit", 1), ("sub", 2), ("both", 3)];
    register(&client, ("a", 0), "z", &topics).await;
    async fn listed<R: Request>(client: &Client, request: R::At<'_>) -> Vec<Arc<str>> {
        ask::<R>(client, &request).await.json::<TopicList>().unwrap().topic_list
    }
    let units = listed::<GetUnitTopicList>(&client, GetUnitTopicList {}).await;
    assert_eq!(units, ["both".into(), Arc::from("unit")]);
    let subs = listed::<GetHasUnitSubTopicList>(&client, GetHasUnitSubTopicList {}).await;
    assert_eq!(subs, ["both".into(), Arc::from("sub")]);
    let request = GetHasUnitSubUnunitTopicList {};
    let ununits = listed::<GetHasUnitSubUnunitTopicList>(&client, request).await;
    assert_eq!(ununits, [Arc::from("sub")]);
    names.kill().await;
    let settings = NamesrvSettings { enable_topic_list: false, ..NamesrvSettings::default() };
    let _names = world.name_server(NAMES, settings).await;
    let client = world.client(&[NAMES]);
    let answer = ask::<GetUnitTopicList>(&client, &GetUnitTopicList {}).await;
    assert_eq!((answer.code, &*answer.remark), (ResponseCode::SYSTEM_ERROR, "disable"));
}

#[tokio::test(start_paused = true)]
async fn clients_wait_until_brokers_had_time_to_register() {
    let world = World::new();
    let settings = NamesrvSettings {
        need_wait_for_service: true,
        wait_seconds_for_service: 45,
        ..NamesrvSettings::default()
    };
    let _names = world.name_server(NAMES, settings).await;
    let client = world.client(&[NAMES]);
    register(&client, ("a", 0), "z", &[("t", 0), ("u", 0)]).await;
    let request = GetRouteInfoByTopic {
        topic: "t".to_owned(),
        accept_standard_json_only: true,
        zone_mode: false,
        zone_name: None,
    };
    sleep(Duration::from_secs(44)).await;
    let answer = ask::<GetRouteInfoByTopic>(&client, &request).await;
    let refused = (answer.code, &*answer.remark);
    assert_eq!(refused, (ResponseCode::SYSTEM_ERROR, "name server not ready"));
    sleep(Duration::from_secs(1)).await;
    let answer = ask::<GetRouteInfoByTopic>(&client, &request).await;
    assert_eq!(answer.code, ResponseCode::SUCCESS);
}
