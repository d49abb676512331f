//! What clients are answered, and when, seen as bytes.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "raw sockets are its input")]

mod raw;
mod server;

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use raw::{
    answer, ask, connect, create_topic_as, delete_topic, frame, pull, pull_as, send, send_as,
    whole_answer,
};
use server::Server;

/// Waits for messages with tag `wanted`.
fn hold(topic: &str, offset: i64, suspend: Duration) -> Vec<u8> {
    pull_as("g", topic, 0, offset, "wanted", 6, suspend)
}

#[test]
fn a_held_pull_learns_every_few_seconds_where_to_go_on_and_at_once_that_its_topic_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_761, "");
    let (mut sender, mut holder) = (connect(&server), connect(&server));
    let tagged =
        |tag| send_as("t", 0, &format!(r#""i":"TAGS\u0001{tag}","f":"0","m":"false""#), b"x");
    assert_eq!(ask(&mut sender, &tagged("wanted")).0, 0);
    let began = Instant::now();
    holder.write_all(&hold("t", 1, Duration::from_secs(15))).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(ask(&mut sender, &tagged("other")).0, 0);
    let told = answer(&mut holder);
    assert_eq!((&told["code"], &told["extFields"]["nextBeginOffset"]), (&20.into(), &"2".into()));
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());

    holder.write_all(&hold("t", 2, Duration::from_secs(15))).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    assert_eq!(ask(&mut sender, &delete_topic("t")).0, 0);
    assert_eq!(answer(&mut holder)["code"], 17);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(ask(&mut sender, &send("t", 0, b"x")).0, 0);
}

/// A heartbeat of group `g`, which subscribes `t`, in its second version; `without_sub` leaves the
/// subscriptions out.
fn beat(client: &str, fingerprint: i32, without_sub: bool) -> Vec<u8> {
    let subscription = r#"{"topic":"t","subString":"*","subVersion":1}"#;
    let subscriptions = if without_sub { "" } else { subscription };
    let body = format!(
        r#"{{"clientID":"{client}","heartbeatFingerprint":{fingerprint},
            "withoutSub":{without_sub},"consumerDataSet":[{{"groupName":"g",
            "consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING",
            "subscriptionDataSet":[{subscriptions}]}}]}}"#
    );
    frame(r#"{"code":34,"opaque":1}"#, body.as_bytes())
}

/// The answer to a heartbeat; what the server asks meanwhile is passed over.
fn is_sub_change(stream: &mut TcpStream, request: &[u8]) -> bool {
    stream.write_all(request).unwrap();
    loop {
        let answer = answer(stream);
        if answer["flag"] == 1 {
            assert_eq!(answer["extFields"]["IS_SUPPORT_HEART_BEAT_V2"], "true");
            return answer["extFields"]["IS_SUB_CHANGE"] == "true";
        }
    }
}

/// A pull that goes by what the group's heartbeats subscribe.
fn pull_subscribed() -> Vec<u8> {
    pull_as("g", "t", 0, 0, "", 0, Duration::ZERO)
}

#[test]
fn heartbeats_of_the_second_version_may_leave_out_what_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_781, "");
    let (mut sender, mut member) = (connect(&server), connect(&server));
    assert_eq!(ask(&mut sender, &send("t", 0, b"x")).0, 0);
    assert!(is_sub_change(&mut member, &beat("c", 0, false)), "the first version");
    assert!(!is_sub_change(&mut member, &beat("c", 7, false)));
    assert!(!is_sub_change(&mut member, &beat("c", 7, true)));
    assert_eq!(ask(&mut sender, &pull_subscribed()).0, 0, "it still subscribes");
    assert!(is_sub_change(&mut member, &beat("c", 8, true)));
}

#[test]
fn a_member_is_told_at_once_that_the_connection_of_another_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_801, "");
    let (mut stays, mut drops) = (connect(&server), connect(&server));
    is_sub_change(&mut stays, &beat("stays", 0, false));
    is_sub_change(&mut drops, &beat("drops", 0, false));
    let mut told = |what| {
        let began = Instant::now();
        let notice = answer(&mut stays);
        assert_eq!(
            (&notice["code"], &notice["extFields"]["consumerGroup"]),
            (&40.into(), &"g".into())
        );
        assert!(began.elapsed() < Duration::from_secs(1), "{what}");
    };
    told("one came");
    drop(drops);
    told("one dropped");
}

#[test]
fn a_consumer_is_asked_what_it_does_and_what_it_says_is_passed_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 24_561, "");
    let (mut member, mut admin) = (connect(&server), connect(&server));
    is_sub_change(&mut member, &beat("c", 0, false));
    let question = |client: &str| {
        let header = format!(
            r#"{{"code":307,"opaque":99,"extFields":{{"consumerGroup":"g","clientId":"{client}",
                "jstackEnable":"true"}}}}"#
        );
        frame(&header, b"")
    };
    let not_online = (1, "The Consumer <g> <other> not online".to_owned());
    assert_eq!(ask(&mut admin, &question("other")), not_online);

    admin.write_all(&question("c")).unwrap();
    let mut writer = member.try_clone().unwrap();
    let mut asked = || {
        let mut asked = answer(&mut member);
        // It may be told of itself before.
        while asked["code"] == 40 {
            asked = answer(&mut member);
        }
        let fields = &asked["extFields"];
        assert_eq!((&asked["code"], &fields["consumerGroup"]), (&307.into(), &"g".into()));
        assert_eq!((&fields["clientId"], &fields["jstackEnable"]), (&"c".into(), &"true".into()));
        asked["opaque"].as_i64().unwrap()
    };
    let number = asked();
    // No legal JSON, as Java's.
    let said = br#"{"mqTable":{{"topic":"t"}:{"locked":false}}}"#;
    let header = format!(r#"{{"code":0,"flag":1,"opaque":{number}}}"#);
    writer.write_all(&frame(&header, said)).unwrap();
    let (header, body) = whole_answer(&mut admin);
    assert_eq!((&header["code"], &header["opaque"], &body[..]), (&0.into(), &99.into(), &said[..]));

    admin.write_all(&question("c")).unwrap();
    let header = format!(r#"{{"code":1,"flag":1,"opaque":{},"remark":"no such group"}}"#, asked());
    writer.write_all(&frame(&header, b"")).unwrap();
    assert_eq!(answer(&mut admin)["remark"], "no such group");

    admin.write_all(&question("c")).unwrap();
    asked();
    writer.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(answer(&mut admin)["code"], 207);
}

/// The server's files as an operator left them.
fn put_groups(dir: &Path, groups: &str) {
    let config = dir.join("data/config");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("subscriptionGroup.json"), groups).unwrap();
}

#[test]
fn what_an_operator_forbade_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    put_groups(
        dir.path(),
        r#"{"dataVersion":{"counter":1},"forbiddenTable":{"g":{"t":4}},
            "subscriptionGroupTable":{"off":{"groupName":"off","consumeEnable":false}}}"#,
    );
    let is_refused = |stream: &mut TcpStream, request: &[u8], words: &str| {
        let (code, remark) = ask(stream, request);
        assert_eq!(code, 16, "{remark}");
        assert!(remark.contains(words), "{remark}");
    };
    let send_back = r#"{"code":36,"opaque":1,"extFields":{"offset":"0","group":"g",
        "delayLevel":"0"}}"#;
    let read = pull("other", "t", 0, 0);
    {
        let server = Server::start(dir.path(), 23_821, "");
        let (mut stream, mut member) = (connect(&server), connect(&server));
        assert_eq!(ask(&mut stream, &send("t", 0, b"x")).0, 0);
        is_sub_change(&mut member, &beat("c", 0, false));
        is_refused(&mut stream, &pull_subscribed(), "the group[g] is not permitted to read");
        is_refused(&mut stream, &pull("off", "t", 0, 0), "subscription group no permission");
        assert_eq!(ask(&mut stream, &read).0, 0);
        assert_eq!(ask(&mut stream, &create_topic_as("ordered", true, "")).0, 0);
        assert_eq!(ask(&mut stream, &send("ordered", 0, b"x")).0, 0);
    }
    {
        // Read only. A topic without order takes what still comes, as Apache's does.
        let server = Server::start(dir.path(), 23_821, "brokerPermission=4\n");
        let mut stream = connect(&server);
        assert_eq!(ask(&mut stream, &send("t", 0, b"x")).0, 0);
        is_refused(&mut stream, &send("ordered", 0, b"x"), "sending message is forbidden");
        is_refused(&mut stream, &frame(send_back, b""), "sending message is forbidden");
        assert_eq!(ask(&mut stream, &read).0, 0);
    }
    let server = Server::start(dir.path(), 23_821, "brokerPermission=2\n");
    let mut stream = connect(&server);
    assert_eq!(ask(&mut stream, &frame(send_back, b"")).0, 0);
    is_refused(&mut stream, &read, "pulling message is forbidden");
}

#[test]
fn what_an_administrator_changed_is_in_the_files_when_that_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_811, "");
    let mut admin = connect(&server);
    let config = dir.path().join("data/config");
    let file = |name: &str| std::fs::read_to_string(config.join(name)).unwrap_or_default();
    let is_ordered = || {
        let topics: serde_json::Value = serde_json::from_str(&file("topics.json")).unwrap();
        topics["topicConfigTable"]["t"]["order"].clone()
    };
    assert_eq!(ask(&mut admin, &create_topic_as("t", false, "")).0, 0);
    assert_eq!(is_ordered(), false);
    assert_eq!(ask(&mut admin, &create_topic_as("t", true, "")).0, 0);
    assert_eq!(is_ordered(), true);
    assert_eq!(ask(&mut admin, &delete_topic("t")).0, 0);
    assert_eq!(is_ordered(), serde_json::Value::Null);
    let put = frame(r#"{"code":200,"opaque":1}"#, br#"{"groupName":"payers","retryMaxTimes":3}"#);
    assert_eq!(ask(&mut admin, &put).0, 0);
    assert!(file("subscriptionGroup.json").contains("\"payers\""));
    let remove = r#"{"code":207,"opaque":1,"extFields":{"groupName":"payers"}}"#;
    assert_eq!(ask(&mut admin, &frame(remove, b"")).0, 0);
    assert!(!file("subscriptionGroup.json").contains("\"payers\""));
}

#[test]
fn what_was_taken_before_the_limit_was_lowered_is_delivered_after_its_delay() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_831, "");
    let mut sender = connect(&server);
    assert_eq!(ask(&mut sender, &send("t", 0, b"x")).0, 0);
    let delayed = |body: &[u8]| send_as("t", 0, r#""i":"DELAY\u00012","f":"0","m":"false""#, body);
    assert_eq!(ask(&mut sender, &delayed(&[b'x'; 900])).0, 0);
    drop(server);
    let server = Server::start(dir.path(), 23_831, "maxMessageSize=100\n");
    let (mut sender, mut reader) = (connect(&server), connect(&server));
    assert_eq!(ask(&mut sender, &delayed(&[b'x'; 900])).0, 13);
    assert_eq!(ask(&mut sender, &delayed(b"short")).0, 0);
    for offset in [1, 2] {
        let began = Instant::now();
        while ask(&mut reader, &pull("g", "t", 0, offset)).0 != 0 {
            assert!(began.elapsed() < Duration::from_secs(10), "{offset} does not come");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn what_nobody_waits_for_is_there_without_the_next_flush() {
    let dir = tempfile::tempdir().unwrap();
    let conf = "flushIntervalCommitLog=600000\nflushIntervalConsumeQueue=600000\n";
    let server = Server::start(dir.path(), 23_851, conf);
    let (mut sender, mut reader) = (connect(&server), connect(&server));
    let is_there = |reader: &mut TcpStream, offset| {
        let began = Instant::now();
        while ask(reader, &pull("g", "t", 0, offset)).0 != 0 {
            assert!(began.elapsed() < Duration::from_secs(10), "{offset} does not come");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    // A last message, and what ends its connection.
    let bytes = [send("t", 0, b"x"), b"\x7f\xff\xff\xff\0\0\0\x02{}".to_vec()].concat();
    sender.write_all(&bytes).unwrap();
    is_there(&mut reader, 0);
    let delayed = send_as("t", 0, r#""i":"DELAY\u00011","f":"0","m":"false""#, b"x");
    assert_eq!(ask(&mut connect(&server), &delayed).0, 0);
    is_there(&mut reader, 1);
}
