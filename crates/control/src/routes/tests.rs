//! The rules of `broker.md` 9, one by one.

use super::*;

fn table(topics: &[&str]) -> BTreeMap<Arc<str>, Arc<TopicConfig>> {
    let config = |topic: &&str| TopicConfig::new(topic, 4, Perm::READ_WRITE);
    topics.iter().map(|topic| ((*topic).into(), Arc::new(config(topic)))).collect()
}

/// A broker of the set `a` with topics T and U; its channel has the number of its id.
fn broker(id: i64, addr: &str) -> Registration {
    Registration {
        cluster: "c".into(),
        broker_name: "a".into(),
        broker_id: id,
        addr: addr.into(),
        ha_addr: format!("{addr}-ha").into(),
        version: DataVersion { counter: 1, ..DataVersion::default() },
        topics: Some(table(&["T", "U"])),
        timeout_ms: None,
        enable_acting_master: false,
        zone_name: None,
        channel: id as ChannelId,
    }
}

fn acting(id: i64, addr: &str) -> Registration {
    Registration { enable_acting_master: true, ..broker(id, addr) }
}

fn changed(mut registration: Registration, counter: i64) -> Registration {
    registration.version.counter = counter;
    registration
}

fn with_master() -> Routes {
    let mut routes = Routes::default();
    routes.register(broker(0, "m"), 0).unwrap();
    routes
}

fn perm(routes: &Routes, topic: &str) -> Perm {
    routes.route(topic).unwrap().queue_datas[0].perm
}

#[test]
fn a_registered_topic_has_a_route() {
    let routes = with_master();
    let route = routes.route("T").unwrap();
    assert_eq!(route.queue_datas[0].read_queue_count, 4);
    assert_eq!(route.broker_datas[0].master().map(|addr| &**addr), Some("m"));
    assert!(matches!(routes.route("unknown"), Err(RouteError::NoRoute { .. })));
    assert_eq!(routes.topics_of_cluster("c").len(), 2);
    assert_eq!(routes.topics_of_cluster("d"), []);
}

#[test]
fn an_unknown_broker_cannot_start_with_a_change_of_one_topic() {
    let one = |topic: &str| Registration { topics: Some(table(&[topic])), ..broker(0, "m") };
    let mut routes = Routes::default();
    assert_eq!(routes.register(one("T"), 0), Err(RouteError::Incomplete));
    assert_eq!(routes.cluster_info(), ClusterInfo::default());
    let mut routes = with_master();
    routes.register(changed(one("V"), 2), 0).unwrap();
    assert_eq!(routes.topics().len(), 3);
}

#[test]
fn a_slave_learns_its_master_and_its_topics_do_not_count() {
    let mut routes = with_master();
    let mut slave = broker(1, "s");
    slave.topics = Some(table(&["T", "X"]));
    let master = Registered { master_addr: Some("m".into()), ha_addr: Some("m-ha".into()) };
    assert_eq!(routes.register(slave, 0), Ok(master));
    assert!(routes.route("X").is_err());
    assert_eq!(routes.broker("a").unwrap().broker_addrs.len(), 2);
}

#[test]
fn the_smallest_slave_acts_as_master_that_nobody_may_write_to() {
    let mut routes = Routes::default();
    routes.register(acting(0, "m"), 0).unwrap();
    routes.register(acting(1, "s"), 0).unwrap();
    routes.unregister("m");
    let mut route = routes.route("T").unwrap();
    assert_eq!((route.queue_datas[0].perm, route.broker_datas[0].master()), (Perm::READ, None));
    show_acting_masters(&mut route);
    assert_eq!(route.broker_datas[0].master().map(|addr| &**addr), Some("s"));
    routes.register(changed(acting(1, "s"), 2), 0).unwrap();
    assert_eq!(perm(&routes, "T"), Perm::READ);
}

#[test]
fn a_slave_that_became_master_may_be_written_to_at_once() {
    let mut routes = Routes::default();
    routes.register(acting(0, "m"), 0).unwrap();
    routes.register(acting(1, "s"), 0).unwrap();
    routes.unregister("m");
    routes.register(acting(0, "s"), 0).unwrap();
    assert_eq!(perm(&routes, "T"), Perm::READ_WRITE);
    let addrs = &routes.broker("a").unwrap().broker_addrs;
    assert_eq!(addrs.iter().collect::<Vec<_>>(), [(&0, &Arc::from("s"))]);
}

#[test]
fn a_broker_on_a_new_connection_outlives_the_old_one() {
    let mut routes = with_master();
    routes.register(Registration { channel: 5, ..broker(0, "m") }, 9).unwrap();
    assert_eq!(routes.channel_closed(0), []);
    assert!(routes.route("T").is_ok());
    assert_eq!(routes.expire(9 + EXPIRY_MS), []);
    assert_eq!(routes.expire(10 + EXPIRY_MS), [Arc::from("m")]);
    assert!(routes.route("T").is_err());
}

#[test]
fn an_unchanged_registration_is_not_read_again() {
    let mut routes = with_master();
    assert_eq!(routes.renew("m", 7, 0, 1), None);
    routes.remember("m", 7);
    assert_eq!(routes.renew("m", 8, 0, 1), None);
    assert_eq!(routes.renew("m", 7, 5, 1), Some(Registered::default()));
    assert_eq!(routes.channel_closed(0), []);
    routes.delete_topic("T", None);
    assert_eq!(routes.renew("m", 7, 5, 1), None, "a topic must come back");
}

#[test]
fn a_deleted_topic_comes_back_with_the_next_full_registration() {
    let mut routes = with_master();
    routes.delete_topic("T", Some("another"));
    assert!(routes.route("T").is_ok());
    routes.delete_topic("T", Some("c"));
    assert!(routes.route("T").is_err());
    routes.register(broker(0, "m"), 0).unwrap();
    assert!(routes.route("T").is_ok());
    routes.delete_topic("T", None);
    assert_eq!(routes.topics(), [Arc::from("U")]);
}

#[test]
fn wiped_permissions_stay_until_the_version_changes() {
    let mut routes = with_master();
    assert_eq!(routes.wipe_write_perm("a"), 2);
    routes.register(broker(0, "m"), 0).unwrap();
    assert_eq!(perm(&routes, "T"), Perm::READ);
    routes.register(changed(broker(0, "m"), 2), 0).unwrap();
    assert_eq!(perm(&routes, "T"), Perm::READ_WRITE);
    routes.wipe_write_perm("a");
    assert_eq!(routes.add_write_perm("a"), 2);
    assert_eq!(perm(&routes, "U"), Perm::READ_WRITE);
    assert_eq!(routes.wipe_write_perm("unknown"), 0);
}

#[test]
fn the_last_address_takes_topics_and_cluster_with_it() {
    let mut routes = with_master();
    routes.register(broker(1, "s"), 0).unwrap();
    routes.channel_closed(0);
    assert_eq!(perm(&routes, "T"), Perm::READ_WRITE, "no acting master: as it was");
    routes.unregister("s");
    assert_eq!(routes.topics(), []);
    assert_eq!(routes.cluster_info(), ClusterInfo::default());
    assert_eq!(routes.live().count(), 0);
}

#[test]
fn who_was_replaced_while_away_does_not_come_back() {
    let mut routes = Routes::default();
    let mut come = |addr: &str, state_version: i64| {
        let mut registration = acting(0, addr);
        registration.version.state_version = state_version;
        routes.register(registration, 0).unwrap();
        routes.broker("a").unwrap().broker_addrs[&0].clone()
    };
    assert_eq!(&*come("old", 1), "old");
    assert_eq!(&*come("new", 2), "new");
    assert_eq!(&*come("old", 1), "new");
    assert_eq!(&*come("newest", 2), "newest");
}

#[test]
fn a_sign_of_life_keeps_a_broker() {
    let mut routes = with_master();
    let version = DataVersion { counter: 1, ..DataVersion::default() };
    assert_eq!(routes.touch("m", 5, EXPIRY_MS), Some(version));
    assert_eq!(routes.touch("x", 5, EXPIRY_MS), None);
    assert_eq!(routes.channel_closed(0), [], "it speaks over another one now");
    assert_eq!(routes.expire(EXPIRY_MS + 1), []);
    assert_eq!(routes.expire(2 * EXPIRY_MS + 1).len(), 1);
}

#[test]
fn a_topic_is_set_only_for_known_brokers() {
    let mut routes = with_master();
    let queue = |name: &str| QueueData { broker_name: name.into(), ..QueueData::default() };
    routes.put_topic("V", vec![queue("a"), queue("unknown")]);
    assert!(routes.route("V").is_err());
    routes.put_topic("V", vec![queue("a")]);
    assert!(routes.route("V").is_ok());
    routes.put_topic("W", Vec::new());
    assert!(!routes.topics().contains(&Arc::from("W")));
}

#[test]
fn a_client_sees_its_zone_and_sets_without_master() {
    let mut routes = Routes::default();
    for (name, id, zone) in [("near", 0, "z1"), ("far", 0, "z2"), ("headless", 1, "z2")] {
        let zone_name = Some(zone.into());
        let registration = Registration { broker_name: name.into(), zone_name, ..acting(id, name) };
        routes.register(registration, 0).unwrap();
    }
    let mut route = routes.route("T").unwrap();
    keep_zone(&mut route, "Z1");
    let names: Vec<_> = route.queue_datas.iter().map(|queue| &*queue.broker_name).collect();
    assert_eq!(names, ["headless", "near"]);
}

#[test]
fn topics_are_listed_by_flag() {
    let mut topics = table(&["unit", "sub", "none"]);
    for (topic, flag) in [("unit", 1), ("sub", 2)] {
        Arc::make_mut(topics.get_mut(topic).unwrap()).topic_sys_flag = flag;
    }
    let mut routes = Routes::default();
    routes.register(Registration { topics: Some(topics), ..broker(0, "m") }, 0).unwrap();
    assert_eq!(routes.topics_by_flag(|flag| flag & 1 != 0), [Arc::from("unit")]);
    assert_eq!(routes.topics_by_flag(|flag| flag & 2 != 0), [Arc::from("sub")]);
}
