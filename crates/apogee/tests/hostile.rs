//! What no client would send, and clients that do not read: answered, bounded or cut off, and
//! nobody else notices.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "raw sockets are its input")]

mod raw;
mod server;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use raw::{
    answer, ask, connect, create_topic, delete_topic, frame, pull, send, send_batch, send_to,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use server::Server;

/// Memory of the server that no file backs, in MiB.
fn own_memory(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[track_caller]
fn is_served(stream: &mut TcpStream) {
    assert_eq!(ask(stream, &send_to("good")).0, 0);
    assert_eq!(ask(stream, &pull("g", "good", 0, 0)).0, 0);
}

#[test]
fn a_topic_name_as_long_as_a_frame_is_refused_and_the_connection_lives() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_501, "");
    let mut stream = connect(&server);
    // Repeated in the remark with its escapes escaped, it would be too long for any header.
    stream.write_all(&send_to(&"\\u0001".repeat(2_600_000))).unwrap();
    let refused = answer(&mut stream);
    assert_eq!(refused["code"], 29);
    assert!(refused["remark"].as_str().unwrap().len() < 2000);
    stream.write_all(&send_to("good")).unwrap();
    assert_eq!(answer(&mut stream)["code"], 0);
}

#[test]
fn what_the_store_could_not_keep_is_refused_and_the_connection_lives() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("data/config");
    std::fs::create_dir_all(&config).unwrap();
    let batch = r#"{"dataVersion":{"counter":1,"stateVersion":0,"timestamp":1},
        "topicConfigTable":{"batch":{"attributes":{"queue.type":"BatchCQ"},"order":false,"perm":6,
        "readQueueNums":1,"topicFilterType":"SINGLE_TAG","topicName":"batch","topicSysFlag":0,
        "writeQueueNums":1}}}"#;
    std::fs::write(config.join("topics.json"), batch).unwrap();
    let server = Server::start(dir.path(), 23_221, "");
    let mut stream = connect(&server);
    let (code, remark) = ask(&mut stream, &send_to("batch"));
    assert!(code == 16 && remark.contains("BatchCQ"), "{code} {remark}");
    assert!(!dir.path().join("data/consumequeue/batch").exists());
    let zeros = format!(r#""i":"x\u0001{}\u0002""#, r"\u0000".repeat(1100));
    let header = String::from_utf8(send("good", 0, b"").split_off(8)).unwrap();
    let (code, remark) = ask(&mut stream, &frame(&header.replace(r#""i":"""#, &zeros), b"x"));
    assert!(code == 13 && remark.contains("zero bytes"), "{code} {remark}");
    is_served(&mut stream);
}

#[test]
fn garbage_ends_its_own_connection_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_521, "");
    let mut good = connect(&server);
    let lies: [&[u8]; 4] = [
        b"\x7f\xff\xff\xff\0\0\0\x02{}",
        b"\0\0\0\x08\0\0\0\xff{}{}",
        b"\0\0\0\x08\x07\0\0\x02{}{}",
        b"\0\0\0\x08\0\0\0\x04{{{{",
    ];
    for lie in lies {
        let mut bad = connect(&server);
        bad.write_all(lie).unwrap();
        assert_eq!(bad.read(&mut [0; 64]).unwrap_or(0), 0, "{lie:?} was not cut off");
    }
    good.write_all(&send_to("good")).unwrap();
    assert_eq!(answer(&mut good)["code"], 0);
}

#[test]
fn lengths_that_lie_end_their_connection() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_541, "");
    let mut good = connect(&server);
    let lies: [&[u8]; 7] = [
        b"\xff\xff\xff\xff\0\0\0\x02{}",
        b"\x80\0\0\0\0\0\0\x02{}",
        b"\0\0\0\0\0\0\0\x02{}",
        b"\0\0\0\x03abc\0\0",
        // One more than a frame may have.
        b"\0\xff\xff\xfd\0\0\0\x02{}",
        b"\0\0\0\x06\0\0\0\x03{}",
        b"\0\0\0\x06\0\xff\xff\xff{}",
    ];
    for lie in lies {
        let mut bad = connect(&server);
        bad.write_all(lie).unwrap();
        assert_eq!(bad.read(&mut [0; 64]).unwrap_or(0), 0, "{lie:?} was not cut off");
        is_served(&mut good);
    }
}

#[test]
fn bad_requests_get_apache_s_codes_and_their_connection_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let conf = "autoCreateSubscriptionGroup=false\nmaxMessageSize=1000\n";
    let server = Server::start(dir.path(), 23_561, conf);
    let mut stream = connect(&server);
    assert_eq!(ask(&mut stream, &send_to("good")).0, 0);
    let long = "t".repeat(128);
    for (request, code, words) in [
        (send("good", 0, &[b'x'; 1001]), 13, "maxMessageSize"),
        (send("good", 0, b""), 13, "it has no body"),
        (send_batch(8, "", 0), 0, ""),
        (send_batch(9, "", 0), 13, "maxMessageSize"),
        (send_batch(0, "", 0), 13, "no message"),
        (send_batch(1, r"DELAY\u00013\u0002", 0), 13, "delayed"),
        (send_batch(1, "", 4), 13, "half"),
        (send_to("a.b"), 29, "illegal characters"),
        (send_to(" "), 29, "blank"),
        (send_to(&long), 29, "longer than topic max length"),
        (send("good", 4, b""), 29, "queueId[4] is illegal"),
        (send_to("SCHEDULE_TOPIC_XXXX"), 16, "forbidden"),
        (pull("nobody", "good", 0, 0), 26, "subscription group [nobody] does not exist"),
        (pull("TOOLS_CONSUMER", "nothing", 0, 0), 17, "topic[nothing] not exist"),
        (pull("TOOLS_CONSUMER", "good", 4, 0), 29, "queueId[4] is illegal"),
        (pull("TOOLS_CONSUMER", "good", -1, 0), 29, "queueId[-1] is illegal"),
        (pull("TOOLS_CONSUMER", "good", 0, -1), 21, "OFFSET_TOO_SMALL"),
        (pull("TOOLS_CONSUMER", "good", 0, i64::MIN), 21, "OFFSET_TOO_SMALL"),
        (pull("TOOLS_CONSUMER", "good", 1, -1), 21, "NO_MESSAGE_IN_QUEUE"),
        (pull("TOOLS_CONSUMER", "good", 0, 99), 21, "OFFSET_OVERFLOW_BADLY"),
        (pull("TOOLS_CONSUMER", "good", 0, i64::MAX), 21, "OFFSET_OVERFLOW_BADLY"),
        (create_topic("DefaultCluster", ""), 29, "conflict with system topic"),
        (delete_topic("DefaultCluster"), 29, "conflict with system topic"),
        (delete_topic("DefaultCluster_REPLY_TOPIC"), 29, "conflict with system topic"),
        (delete_topic(" "), 29, "blank"),
        (create_topic("good", "+foo=bar"), 1, "unsupported key: foo"),
        (create_topic("good", "+message.type=FIFO"), 0, ""),
        (create_topic("good", "-message.type"), 0, ""),
        (create_topic("good", "-message.type"), 1, "does not have"),
        (frame(r#"{"code":4711,"opaque":1}"#, b""), 3, "4711"),
        (frame(r#"{"code":310,"opaque":1}"#, b""), 29, "lacks the field"),
    ] {
        let (got, remark) = ask(&mut stream, &request);
        let what = String::from_utf8_lossy(&request[8..request.len().min(250)]).into_owned();
        assert_eq!(got, code, "{remark}; {what}");
        assert!(remark.contains(words), "{remark}; {what}");
    }
    assert_eq!(ask(&mut connect(&server), &pull("TOOLS_CONSUMER", "good", 0, 0)).0, 0);
}

#[test]
fn a_slave_takes_no_messages_and_is_read_only_where_it_is_set_so() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_741, "");
    is_served(&mut connect(&server));
    drop(server);
    let send_back = r#"{"code":36,"opaque":1,"extFields":{"offset":"0","group":"g",
        "delayLevel":"0"}}"#;
    for (conf, pull_code) in [("", 2), ("slaveReadEnable=true\n", 0)] {
        let conf = format!("brokerRole=SLAVE\nbrokerId=1\n{conf}");
        let server = Server::start(dir.path(), 23_741, &conf);
        let mut stream = connect(&server);
        for request in [send_to("good"), send_batch(1, "", 0), frame(send_back, b"")] {
            let (code, remark) = ask(&mut stream, &request);
            assert_eq!(code, 2, "{remark}");
            assert!(remark.starts_with("[REJECTREQUEST]"), "{remark}");
        }
        assert_eq!(ask(&mut stream, &pull("g", "good", 0, 0)).0, pull_code);
    }
}

#[test]
fn a_silent_connection_is_closed_after_the_time_that_is_set() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_641, "serverChannelMaxIdleTimeSeconds=1\n");
    let mut silent = connect(&server);
    let began = std::time::Instant::now();
    assert_eq!(silent.read(&mut [0; 64]).unwrap(), 0);
    let took = began.elapsed().as_millis();
    assert!((900..5000).contains(&took), "after {took} ms");
}

#[test]
fn sends_before_their_time_are_refused_and_trace_is_off_where_it_is_set_so() {
    let dir = tempfile::tempdir().unwrap();
    let conf = "startAcceptSendRequestTimeStamp=33000000000000\n";
    let server = Server::start(dir.path(), 23_661, conf);
    let (code, remark) = ask(&mut connect(&server), &send_to("t"));
    assert_eq!(code, 1, "{remark}");
    assert!(remark.starts_with("broker unable to service, until 3015-"), "{remark}");
    drop(server);
    let server = Server::start(dir.path(), 23_661, "traceOn=false\n");
    let mut stream = connect(&server);
    stream.write_all(&send_to("t")).unwrap();
    assert_eq!(answer(&mut stream)["extFields"]["TRACE_ON"], "false");
}

/// A broker elsewhere says that it has the topics `a` and `b`.
fn register() -> Vec<u8> {
    let header = r#"{"code":103,"opaque":1,"version":513,"extFields":{"brokerName":"other",
        "brokerAddr":"127.0.0.9:1","clusterName":"c","haServerAddr":"","brokerId":"0",
        "enableActingMaster":"false","compressed":"false","bodyCrc32":"0"}}"#;
    let body = br#"{"filterServerList":[],"topicConfigSerializeWrapper":{"dataVersion":
        {"counter":1,"stateVersion":0,"timestamp":1},"topicConfigTable":{
        "a":{"topicName":"a"},"b":{"topicName":"b"}}}}"#;
    frame(header, body)
}

#[test]
fn a_registration_that_is_repeated_keeps_its_topics_and_brings_back_what_was_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_681, "");
    let mut stream = connect(&server);
    let topic = |code| format!(r#"{{"code":{code},"opaque":1,"extFields":{{"topic":"a"}}}}"#);
    let (route, delete) = (frame(&topic(105), b""), frame(&topic(216), b""));
    for _ in 0..3 {
        assert_eq!(ask(&mut stream, &register()), (0, String::new()));
        assert_eq!(ask(&mut stream, &route).0, 0);
    }
    assert_eq!(ask(&mut stream, &delete).0, 0);
    assert_eq!(ask(&mut stream, &route).0, 17);
    assert_eq!(ask(&mut stream, &register()).0, 0);
    assert_eq!(ask(&mut stream, &route).0, 0);
}

#[test]
fn ten_thousand_silent_connections_cost_little_and_others_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_581, "");
    let mut good = connect(&server);
    is_served(&mut good);
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let before = own_memory(&server);
    let mut silent = Vec::new();
    while silent.len() < 10_000 {
        silent.push(connect(&server));
        if silent.len() % 1000 == 0 {
            is_served(&mut good);
        }
    }
    is_served(&mut connect(&server));
    let grown = own_memory(&server) - before;
    assert!(grown < 64, "{grown} MiB");
}

#[test]
fn frames_that_promise_much_and_come_slowly_cost_what_has_come() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_601, "");
    let mut good = connect(&server);
    is_served(&mut good);
    let before = own_memory(&server);
    let mut slow: Vec<_> = (0..500).map(|_| connect(&server)).collect();
    let mut promise = 4_000_000_u32.to_be_bytes().to_vec();
    promise.extend_from_slice(&[0, 0, 0, 2]);
    slow.iter_mut().for_each(|stream| stream.write_all(&promise).unwrap());
    for _ in 0..3 {
        slow.iter_mut().for_each(|stream| stream.write_all(b"{").unwrap());
        is_served(&mut good);
    }
    let grown = own_memory(&server) - before;
    assert!(grown < 16, "{grown} MiB");
}

#[test]
fn clients_that_pull_much_and_read_nothing_cost_little_and_others_are_served() {
    const COUNT: usize = 60;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_621, "");
    let mut good = connect(&server);
    // Records that are copied into the answers, and such as are sent from where they lie.
    for len in [600, 3500] {
        for _ in 0..32 {
            assert_eq!(ask(&mut good, &send("good", 0, &vec![b'x'; len])).0, 0);
        }
    }
    let before = own_memory(&server);
    let greedy: Vec<_> = (0..COUNT)
        .map(|index| {
            let mut stream = connect(&server);
            let request = pull("greedy", "good", 0, if index % 3 == 0 { 32 } else { 0 });
            std::thread::spawn(move || {
                // After it the server reads with a larger buffer.
                let first = frame(r#"{"code":4711,"opaque":1}"#, &[0; 200_000]);
                assert_eq!(ask(&mut stream, &first).0, 3);
                stream.set_nonblocking(true).unwrap();
                // As much as the sockets take.
                let requests = request.repeat(20_000);
                let end = std::time::Instant::now() + Duration::from_secs(3);
                let mut sent = 0;
                while std::time::Instant::now() < end && sent < requests.len() {
                    match (&stream).write(&requests[sent..]) {
                        Ok(len) => sent += len,
                        Err(_) => std::thread::sleep(Duration::from_millis(10)),
                    }
                }
                stream
            })
        })
        .collect();
    while !greedy.iter().all(std::thread::JoinHandle::is_finished) {
        is_served(&mut good);
        std::thread::sleep(Duration::from_millis(50));
    }
    let streams: Vec<_> = greedy.into_iter().map(|thread| thread.join().unwrap()).collect();
    is_served(&mut good);
    // Of each connection the requests that are not taken yet, and the answers that are not written.
    let grown = own_memory(&server) - before;
    assert!(grown < 40, "{grown} MiB for {} connections", streams.len());
}

#[test]
fn heartbeats_of_groups_that_are_refused_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_701, "");
    let mut good = connect(&server);
    is_served(&mut good);
    let beat = |round: usize| {
        let group =
            |index: usize| format!(r#"{{"groupName":"{round}-{index}-{}"}}"#, "!".repeat(400));
        let groups: Vec<_> = (0..8000).map(group).collect();
        let body = format!(
            r#"{{"clientID":"c","heartbeatFingerprint":7,"consumerDataSet":[{}]}}"#,
            groups.join(",")
        );
        frame(r#"{"code":34,"opaque":1}"#, body.as_bytes())
    };
    assert_eq!(ask(&mut connect(&server), &beat(0)).0, 0);
    let before = own_memory(&server);
    for round in 1..=6 {
        assert_eq!(ask(&mut connect(&server), &beat(round)).0, 0);
    }
    is_served(&mut good);
    let grown = own_memory(&server).saturating_sub(before);
    assert!(grown < 8, "{grown} MiB");
}

#[test]
fn the_operator_is_told_who_sends_what_no_client_should_and_not_of_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_721, "maxMessageSize=1000\n");
    let log = || std::fs::read_to_string(dir.path().join("log")).unwrap();
    let mut stream = connect(&server);
    is_served(&mut stream);
    // A client that goes in the middle of something, and one that asks what is not there yet.
    let mut gone = connect(&server);
    gone.write_all(&send_to("good")[..20]).unwrap();
    drop(gone);
    let unknown = frame(r#"{"code":105,"opaque":1,"extFields":{"topic":"later"}}"#, b"");
    assert_eq!(ask(&mut stream, &unknown).0, 17);
    assert_eq!(log().matches("WARN").count(), 0, "{}", log());
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0\0\0\x06\0\0\0\x03{}", b"\0\0\0\x06\0\0\0\x02{["]
    {
        let mut bad = connect(&server);
        bad.write_all(garbage).unwrap();
        assert_eq!(bad.read(&mut [0; 64]).unwrap_or(0), 0);
    }
    let peer = stream.local_addr().unwrap().to_string();
    for (request, code) in [
        (frame(r#"{"code":4711,"opaque":1}"#, b""), 3),
        (send_to("a.b"), 29),
        (send("good", 9, b"x"), 29),
        (send("good", 0, &[b'x'; 1001]), 13),
    ] {
        assert_eq!(ask(&mut stream, &request).0, code);
    }
    let told = log();
    for words in [
        &["1195725860 bytes is longer", "peer="][..],
        &["does not fit its frame"],
        &["malformed"],
        &["number=4711", &peer],
        &["SEND_MESSAGE_V2", "a.b", "illegal characters", &peer],
        &["SEND_MESSAGE_V2", "good", "queueId[9] is illegal", &peer],
        &["SEND_MESSAGE_V2", "good", "maxMessageSize", &peer],
    ] {
        let is_it = |line: &&str| words.iter().all(|word| line.contains(word));
        assert_eq!(told.lines().filter(is_it).count(), 1, "{words:?} in {told}");
    }
    for _ in 0..1000 {
        ask(&mut stream, &send_to("a.b"));
    }
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    while !log().contains("left_out=98") && std::time::Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(100));
    }
    let told = log();
    assert!(told.contains("left_out=98"), "{told}");
    assert_eq!(told.matches("WARN").count(), 20 + 1, "{told}");
}
