//! Numbers that no client would send: they are refused or served, and nobody panics.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "raw sockets are its input")]

mod raw;
mod server;

use std::io::Write;
use std::net::TcpStream;

use apogee_wire::remoting::RequestInfo;
use apogee_wire::remoting::requests::REQUESTS;
use apogee_wire::remoting::table::FieldInfo;
use fastrand::Rng;
use raw::{answer, ask, connect, create_topic, frame, next_answer, pull, send_as, send_to};
use server::Server;

/// How often each request is made, with other values each time.
const ROUNDS: usize = 500;
/// Tells the answer of what is sent after the others.
const LAST: i64 = 99;

fn value(field: &FieldInfo, random: &mut Rng) -> String {
    let ints = [i32::MIN, i32::MIN + 1, -1, 0, 1, 2, 32, i32::MAX - 1, i32::MAX];
    let longs = [i64::MIN, i64::MIN + 1, i64::MIN / 2, i64::MAX / 2, i64::MAX - 1, i64::MAX];
    let texts = ["good", "good", "g", "TBW102", "", "%RETRY%g", "key", "127.0.0.1:1", "0", "*"];
    let chosen = random.usize(..1000);
    if field.kind.contains("i32") || (field.kind.contains("i64") && random.bool()) {
        return ints[chosen % ints.len()].to_string();
    }
    match field.kind {
        kind if kind.contains("i64") => longs[chosen % longs.len()].to_string(),
        kind if kind.contains("bool") => chosen.is_multiple_of(2).to_string(),
        kind if kind.contains("f64") => ["NaN", "1e308", "-1", "0"][chosen % 4].to_owned(),
        // Mostly what is there, so that the numbers are looked at.
        _ if 100 <= chosen && field.name.to_lowercase().ends_with("topic") => "good".to_owned(),
        _ if 100 <= chosen && field.name.to_lowercase().contains("group") => "g".to_owned(),
        _ if 100 <= chosen && field.name.len() == 1 => "good".to_owned(),
        _ => texts[chosen % texts.len()].to_owned(),
    }
}

fn request(info: &RequestInfo, random: &mut Rng) -> Vec<u8> {
    let mut fields = Vec::new();
    for field in info.fields {
        if !field.optional || random.bool() {
            fields.push(format!(r#""{}":"{}""#, field.name, value(field, random)));
        }
    }
    let version = [0, 315, 501, i32::MAX, i32::MIN][random.usize(..5)];
    let header = format!(
        r#"{{"code":{},"version":{version},"opaque":7,"extFields":{{{}}}}}"#,
        info.code,
        fields.join(",")
    );
    frame(&header, [&b""[..], b"{}", b"x"][random.usize(..3)])
}

/// The answers to what was sent before; `None` if that has ended the connection.
fn answers(stream: &mut TcpStream) -> Option<Vec<serde_json::Value>> {
    let last = format!(r#"{{"code":105,"opaque":{LAST},"extFields":{{"topic":"good"}}}}"#);
    stream.write_all(&frame(&last, b"")).ok()?;
    let mut answers = Vec::new();
    loop {
        let answer = next_answer(stream)?;
        if answer["opaque"] == LAST {
            return Some(answers);
        }
        answers.push(answer);
    }
}

#[test]
fn whatever_numbers_a_request_brings_nobody_panics() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_781, "");
    let mut stream = connect(&server);
    let mut random = Rng::with_seed(20_261_127);
    for info in REQUESTS {
        // What it is about may have been removed by the one before.
        ask(&mut stream, &create_topic("good", ""));
        for queue in [0, 0, 1] {
            let keyed = r#""i":"KEYS\u0001key\u0002TAGS\u0001a\u0002","f":"0","m":"false""#;
            assert_eq!(ask(&mut stream, &send_as("good", queue, keyed, b"x")).0, 0);
        }
        ask(&mut stream, &pull("g", "good", 0, 0));
        for _ in 0..ROUNDS {
            stream.write_all(&request(info, &mut random)).unwrap();
            assert!(answers(&mut stream).is_some(), "{} ended the connection", info.name);
        }
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
        assert!(!log.contains("panicked"), "{}: {log}", info.name);
        // Nobody else has noticed. What is parked goes with its connection.
        stream = connect(&server);
        ask(&mut stream, &create_topic("good", ""));
        assert_eq!(ask(&mut stream, &send_to("good")).0, 0, "after {}", info.name);
    }
}

/// Requests whose numbers are in their bodies: code, fields and body; `#` is a number.
const BODIES: &[(i32, &str, &str)] = &[
    (
        34,
        "",
        r#"{"clientID":"c","heartbeatFingerprint":#,"withoutSub":false,"producerDataSet":[],
            "consumerDataSet":[{"groupName":"g","consumeType":"CONSUME_PASSIVELY",
            "messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET",
            "subscriptionDataSet":[{"topic":"good","subString":"a","expressionType":"TAG",
            "tagsSet":["a"],"codeSet":[#],"subVersion":#}]}]}"#,
    ),
    (
        46,
        "",
        r#"{"clientId":"c","group":"g","subscriptionData":{"topic":"good","subString":"*",
            "expressionType":"TAG","codeSet":[#],"subVersion":#}}"#,
    ),
    (41, "", r#"{"clientId":"c","consumerGroup":"g","mqSet":[{"topic":"good","queueId":#}]}"#),
    (42, "", r#"{"clientId":"c","consumerGroup":"g","mqSet":[{"topic":"good","queueId":#}]}"#),
    (
        18,
        "",
        r#"{"topicConfigList":[{"topicName":"good","readQueueNums":#,"writeQueueNums":#,"perm":#,
            "topicSysFlag":#}]}"#,
    ),
    (
        200,
        "",
        r#"{"groupName":"g","retryMaxTimes":#,"retryQueueNums":#,"brokerId":#,"groupSysFlag":#,
            "whichBrokerWhenConsumeSlowly":#,"consumeTimeoutMinute":#}"#,
    ),
    (
        103,
        r##""brokerName":"x","brokerAddr":"127.0.0.1:1","clusterName":"x","haServerAddr":"",
           "brokerId":"#","bodyCrc32":"0""##,
        r#"{"topicConfigSerializeWrapper":{"dataVersion":{"counter":#,"stateVersion":#,
            "timestamp":#},"topicConfigTable":{"good":{"topicName":"good","readQueueNums":#,
            "writeQueueNums":#,"perm":#,"topicSysFlag":#}}},"filterServerList":[]}"#,
    ),
    (
        322,
        r##""brokerName":"x","brokerAddr":"127.0.0.1:1","clusterName":"x","brokerId":"#""##,
        r##"{"counter":#,"stateVersion":#,"timestamp":#}"##,
    ),
    (
        217,
        r#""topic":"good""#,
        r#"{"queueDatas":[{"brokerName":"x","readQueueNums":#,"writeQueueNums":#,"perm":#,
            "topicSysFlag":#}],"brokerDatas":[]}"#,
    ),
];

/// What shows all that was put: routes, brokers, tables, statistics.
const VIEWS: &[(i32, &str)] = &[
    (105, r#""topic":"good""#),
    (106, ""),
    (28, ""),
    (21, ""),
    (201, ""),
    (202, r#""topic":"good""#),
    (203, r#""consumerGroup":"g""#),
    (208, r#""consumerGroup":"g","topic":"good""#),
    (300, r#""topic":"good""#),
    (904, r#""brokerName":"x","brokerAddr":"127.0.0.1:1","clusterName":"x""#),
];

#[test]
fn whatever_numbers_a_body_brings_nobody_panics() {
    let numbers = [
        "-9223372036854775808",
        "9223372036854775807",
        "-2147483648",
        "2147483647",
        "-1",
        "0",
        "6",
        "65537",
        "1e308",
    ];
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_871, "");
    let mut stream = connect(&server);
    let mut random = Rng::with_seed(20_261_128);
    for (code, fields, body) in BODIES {
        let mut filled = |text: &str| {
            let parts: Vec<_> = text.split('#').collect();
            let mut filled = parts[0].to_owned();
            for part in &parts[1..] {
                // Mostly what is taken, so that what comes after it is looked at.
                let chosen = random.usize(..2 * numbers.len());
                filled += numbers.get(chosen).unwrap_or(&"4");
                filled += part;
            }
            filled
        };
        let mut taken = 0;
        for _ in 0..ROUNDS {
            let header =
                format!(r#"{{"code":{code},"opaque":7,"extFields":{{{}}}}}"#, filled(fields));
            let mut bytes = frame(&header, filled(body).as_bytes());
            for (code, fields) in VIEWS {
                let view = format!(r#"{{"code":{code},"opaque":8,"extFields":{{{fields}}}}}"#);
                bytes.append(&mut frame(&view, b""));
            }
            bytes.append(&mut pull("g", "good", 0, 0));
            bytes.append(&mut send_to("good"));
            stream.write_all(&bytes).unwrap();
            let answers = answers(&mut stream);
            let answers = answers.unwrap_or_else(|| panic!("{code} ended the connection"));
            taken += answers.iter().filter(|it| it["opaque"] == 7 && it["code"] == 0).count();
        }
        assert!(ROUNDS / 50 < taken, "{code} was taken {taken} times");
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
        assert!(!log.contains("panicked"), "{code}: {log}");
        ask(&mut stream, &create_topic("good", ""));
        assert_eq!(ask(&mut stream, &send_to("good")).0, 0, "after {code}");
    }
}

#[test]
fn a_message_that_claims_any_number_of_tries_can_be_sent_back() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_801, "");
    let mut stream = connect(&server);
    for tries in [i32::MAX, i32::MAX - 1, i32::MIN] {
        let fields = format!(r#""i":"","f":"0","m":"false","j":"{tries}""#);
        stream.write_all(&send_as("good", 0, &fields, b"x")).unwrap();
        let id = answer(&mut stream)["extFields"]["msgId"].as_str().unwrap().to_owned();
        let at = u64::from_str_radix(&id[id.len() - 16..], 16).unwrap();
        let back = format!(
            r#"{{"code":36,"opaque":1,"extFields":{{"offset":"{at}","group":"g","delayLevel":"0",
                "maxReconsumeTimes":"{}"}}}}"#,
            i32::MAX
        );
        assert_eq!(ask(&mut stream, &frame(&back, b"")).0, 0, "{tries}");
    }
}

#[test]
fn no_topic_or_group_gets_more_queues_than_a_view_can_list() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_821, "");
    let mut stream = connect(&server);
    for (code, body) in [
        (200, r#"{"groupName":"g","retryQueueNums":2147483647}"#),
        (225, r#"{"groupConfigList":[{"groupName":"g","retryQueueNums":65537}]}"#),
    ] {
        let header = format!(r#"{{"code":{code},"opaque":1,"extFields":{{}}}}"#);
        let (code, remark) = ask(&mut stream, &frame(&header, body.as_bytes()));
        assert!(code == 29 && remark.contains("at most 65536"), "{code} {remark}");
    }
}
