//! Every frame that Apache RocketMQ 5.5.0 wrote is read, and written again it means the same.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use apogee_types::config::{DataVersion, GroupConfig, TopicConfig};
use apogee_types::json;
use apogee_types::limits::FRAME_LEN_MAX;
use apogee_types::route::{ClusterInfo, TopicRouteData};
use apogee_wire::output::Output;
use apogee_wire::remoting::bodies::*;
use apogee_wire::remoting::table::FieldInfo;
use apogee_wire::remoting::{
    ExtFields, FieldError, Header, HeaderEncoding, PutFields, RequestHead, ResponseCode,
    ResponseHead, batch, frame, requests,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const FIXTURES: &[&str] = &[
    include_str!("fixtures/apache-5.5.0.jsonl"),
    include_str!("fixtures/apache-5.5.0-binary.jsonl"),
];

/// One line of a fixture.
struct Exchange {
    code: i32,
    request: Vec<u8>,
    response: Option<Vec<u8>>,
}

impl Exchange {
    fn all() -> impl Iterator<Item = Self> {
        FIXTURES.iter().flat_map(|text| text.lines()).map(|line| {
            let value: Value = serde_json::from_str(line).unwrap();
            let code = value["code"].as_i64().unwrap() as i32;
            let response = value["response"].as_str().map(hex);
            Self { code, request: hex(value["request"].as_str().unwrap()), response }
        })
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// Calls `check` with the header and the body of a whole frame.
fn with_frame(bytes: &[u8], check: impl FnOnce(&Header<'_>, HeaderEncoding, &[u8])) {
    let frame = frame::split(bytes, FRAME_LEN_MAX).unwrap().expect("a whole frame");
    assert_eq!(frame.len, bytes.len());
    let mut index = Vec::new();
    check(&Header::parse(&frame, &mut index).unwrap(), frame.encoding, frame.body);
}

/// Fields as they were written, in order.
#[derive(Default)]
struct Written(Vec<(String, String)>);

impl PutFields for Written {
    fn text(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), value.to_owned()));
    }

    fn int(&mut self, name: &str, value: i64) {
        self.text(name, &value.to_string());
    }
}

impl Written {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(written, _)| written == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    fn put(&self, put: &mut dyn PutFields) {
        for (name, value) in &self.0 {
            put.text(name, value);
        }
    }
}

/// Each field that the table declares and the peer sent must come out as it went in. Absent and
/// empty are the same: the binary header cannot tell them apart.
fn same_fields(list: &[FieldInfo], sent: &ExtFields<'_>, written: &Written) {
    for field in list {
        let Some(sent) = sent.get(field.name) else { continue };
        let sent = sent.to_cow();
        let expected = Some(&*sent).filter(|value| !value.is_empty());
        assert_eq!(written.get(field.name), expected, "field {}", field.name);
    }
}

#[test]
fn every_recorded_code_is_in_the_table() {
    assert!(Exchange::all().count() > 150);
    for exchange in Exchange::all() {
        let code = exchange.code;
        assert!(requests::request_name(code).is_some(), "{code}");
        with_frame(&exchange.request, |header, _, _| {
            // A binary header cuts codes to 16 bits.
            assert_eq!(header.code as i16, code as i16);
            assert!(!header.is_response());
        });
    }
}

/// Fields that any request or response may carry, and that stand in no entry of the table.
const COMMON_FIELDS: &[&str] =
    &["ns", "nsd", "bname", "oway", "lo", "ReqT", "MSG_REGION", "TRACE_ON"];

#[test]
fn every_recorded_field_is_in_the_table() {
    let check = |code: i32, list: &[FieldInfo], fields: &ExtFields<'_>| {
        for (name, _) in fields.iter().filter(|(name, _)| !COMMON_FIELDS.contains(name)) {
            assert!(list.iter().any(|field| field.name == name), "{code}: {name}");
        }
    };
    for exchange in Exchange::all() {
        let info = requests::request_info(exchange.code).unwrap();
        with_frame(&exchange.request, |header, _, _| {
            check(info.code, info.fields, &header.fields);
        });
        if let Some(response) = &exchange.response {
            with_frame(response, |header, _, _| check(info.code, info.response, &header.fields));
        }
    }
}

#[test]
fn every_recorded_request_comes_out_as_it_went_in() {
    for exchange in Exchange::all() {
        let code = exchange.code;
        with_frame(&exchange.request, |header, encoding, body| {
            let mut written = Written::default();
            let result = requests::reencode(code, &header.fields, &mut written).unwrap();
            assert_eq!(result, Ok(()), "{code}");
            same_fields(requests::request_info(code).unwrap().fields, &header.fields, &written);

            let head =
                RequestHead { encoding, code, opaque: header.opaque, oneway: header.is_oneway() };
            let mut output = Output::default();
            let put_body = |output: &mut Output| output.bytes.extend_from_slice(body);
            head.write(&mut output, |put| written.put(put), put_body);
            with_frame(&output.to_vec(), |again, _, again_body| {
                assert_eq!((again.opaque, again.flag), (header.opaque, header.flag));
                assert_eq!((again.version, again_body), (header.version, body));
                same_fields(requests::request_info(code).unwrap().fields, &again.fields, &written);
            });
        });
    }
}

#[test]
fn every_recorded_response_comes_out_as_it_went_in() {
    for exchange in Exchange::all() {
        let (code, Some(response)) = (exchange.code, &exchange.response) else { continue };
        with_frame(response, |header, encoding, _| {
            assert!(header.is_response());
            let mut written = Written::default();
            let result = requests::reencode_response(code, &header.fields, &mut written).unwrap();
            match result {
                Err(FieldError::Missing(_)) if header.code != 0 => return,
                result => assert_eq!(result, Ok(()), "{code}"),
            }
            let list = requests::request_info(code).unwrap().response;
            same_fields(list, &header.fields, &written);

            let remark = header.remark.map(|remark| remark.to_cow());
            let head = ResponseHead {
                encoding,
                code: ResponseCode(header.code),
                opaque: header.opaque,
                remark: remark.as_deref(),
            };
            let mut output = Output::default();
            head.write(&mut output, |put| written.put(put), |_| {});
            with_frame(&output.to_vec(), |again, _, _| {
                assert_eq!((again.code, again.flag), (header.code, header.flag));
                assert_eq!(again.remark, header.remark);
                same_fields(list, &again.fields, &written);
            });
        });
    }
}

type Rewrite = fn(&[u8]) -> Vec<u8>;

fn rewrite<T: Serialize + DeserializeOwned>(body: &[u8]) -> Vec<u8> {
    json::write(&json::read::<T>(body).unwrap())
}

/// How a request's JSON body is read and written; `None` where it has none.
fn request_body(code: i32) -> Option<Rewrite> {
    Some(match code {
        34 => rewrite::<HeartbeatData>,
        41 | 42 => rewrite::<LockBatchRequestBody>,
        46 => rewrite::<CheckClientRequestBody>,
        103 => rewrite::<RegisterBrokerBody>,
        200 => rewrite::<GroupConfig>,
        322 => rewrite::<DataVersion>,
        400 => rewrite::<QueryAssignmentRequestBody>,
        401 => rewrite::<SetMessageRequestModeRequestBody>,
        _ => return None,
    })
}

fn response_body(code: i32) -> Option<Rewrite> {
    Some(match code {
        21 => rewrite::<TopicConfigAndMappingSerializeWrapper>,
        28 | 103 | 219 => rewrite::<KVTable>,
        38 => rewrite::<GetConsumerListByGroupResponseBody>,
        41 => rewrite::<LockBatchResponseBody>,
        105 => |body| write_route(&json::read(body).unwrap(), 513, false),
        106 => rewrite::<ClusterInfo>,
        201 => rewrite::<SubscriptionGroupWrapper>,
        202 => rewrite::<TopicStatsTable>,
        203 => rewrite::<ConsumerConnection>,
        204 => rewrite::<ProducerConnection>,
        206 | 224 | 304 | 305 | 343 => rewrite::<TopicList>,
        208 => rewrite::<ConsumeStats>,
        222 => rewrite::<ResetOffsetBody>,
        300 => rewrite::<GroupList>,
        315 => rewrite::<BrokerStatsData>,
        317 => rewrite::<ConsumeStatsList>,
        321 => rewrite::<QueryConsumeQueueResponseBody>,
        328 => rewrite::<ProducerTableInfo>,
        351 => rewrite::<TopicConfig>,
        352 => rewrite::<GroupConfig>,
        400 => rewrite::<QueryAssignmentResponseBody>,
        // Passed on as it came, or without a reader: consumer running info, cold data.
        307 | 2003 => return None,
        _ => return None,
    })
}

/// The body as a value that two spellings of the same thing share.
fn meaning(body: &[u8]) -> Value {
    let mut value: Value = json::read(body).unwrap();
    sort_sets(&mut value);
    value
}

/// Java writes sets in the order of their hashes.
fn sort_sets(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.iter_mut().for_each(sort_sets);
            items.sort_by_key(Value::to_string);
        }
        Value::Object(members) => members.values_mut().for_each(sort_sets),
        _ => {}
    }
}

#[test]
fn every_recorded_json_body_means_the_same_when_written_again() {
    let mut seen = 0;
    for exchange in Exchange::all() {
        let code = exchange.code;
        let mut check = |body: &[u8], rewrite: Option<Rewrite>, what: &str| {
            if !matches!(body.first(), Some(b'{' | b'[')) {
                return;
            }
            match rewrite {
                Some(rewrite) => {
                    let again = rewrite(body);
                    assert_eq!(meaning(&again), meaning(body), "{what} {code}");
                    assert_eq!(again.len(), body.len(), "{what} {code}: spelling differs");
                    seen += 1;
                }
                None => assert!(matches!(code, 307 | 2003), "{what} {code} has no struct"),
            }
        };
        with_frame(&exchange.request, |_, _, body| check(body, request_body(code), "request"));
        if let Some(response) = &exchange.response {
            with_frame(response, |_, _, body| check(body, response_body(code), "response"));
        }
    }
    assert!(seen > 60, "{seen} bodies");
}

#[test]
fn the_recorded_batches_are_read_and_written_to_the_byte() {
    let mut seen = 0;
    for exchange in Exchange::all().filter(|exchange| exchange.code == 320) {
        with_frame(&exchange.request, |_, _, body| {
            let mut again = Vec::new();
            for record in batch::records(body) {
                batch::put(&mut again, &record.unwrap());
                seen += 1;
            }
            assert_eq!(again, body);
        });
    }
    assert!(seen >= 10, "{seen} records");
}

#[test]
fn the_heartbeats_of_go_and_cpp_clients_are_read() {
    use apogee_types::subscription::{ConsumeFromWhere, ConsumeType, MessageModel};
    let cpp = br#"{"clientID":"10.0.0.9@123","consumerDataSet":[{"consumeFromWhere":4,
        "consumeType":1,"groupName":"G","messageModel":1,"subscriptionDataSet":[{"codeSet":[65],
        "subString":"A","subVersion":"1700000000000","tagsSet":["A"],"topic":"T"}]}]}
        "#;
    let go = br#"{"clientID":"10.0.0.9@123","producerDataSet":[],"consumerDataSet":[{
        "groupName":"G","consumeType":"CONSUME_PASSIVELY","messageModel":"Clustering",
        "consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","subscriptionDataSet":[{
        "ClassFilterMode":false,"topic":"T","subString":"A","tagsSet":["A"],"codeSet":["65"],
        "subVersion":1700000000000,"expressionType":"TAG"}],"unitMode":false}]}"#;
    for body in [&cpp[..], &go[..]] {
        let heartbeat: HeartbeatData = json::read(body).unwrap();
        assert_eq!(&*heartbeat.client_id, "10.0.0.9@123");
        let group = &heartbeat.consumer_data_set[0];
        assert_eq!(group.consume_from_where, ConsumeFromWhere::FirstOffset);
        assert_eq!(group.consume_type, ConsumeType::Passively);
        assert_eq!(group.message_model, MessageModel::Clustering);
        let subscription = &group.subscription_data_set[0];
        assert_eq!(subscription.sub_version, 1_700_000_000_000);
        assert!(subscription.matches(65) && subscription.is_tag_type());
    }
}

#[test]
fn a_shared_subscription_of_an_old_java_client_is_read() {
    let body = br#"{"clientID":"c","consumerDataSet":[{"groupName":"A","subscriptionDataSet":[
        {"subString":"*","topic":"T"}]},{"groupName":"B","subscriptionDataSet":[
        {"$ref":"$.consumerDataSet[0].subscriptionDataSet[0]"}]}]}"#;
    let heartbeat: HeartbeatData = json::read(body).unwrap();
    assert_eq!(&*heartbeat.consumer_data_set[1].subscription_data_set[0].topic, "T");
}

/// Joins the lines of a body that is too long for one.
fn joined(lines: &str) -> String {
    lines.lines().map(str::trim).collect()
}

/// What is read is written to the byte.
fn keeps<T: Serialize + DeserializeOwned>(lines: &str) {
    let body = joined(lines);
    assert_eq!(String::from_utf8(rewrite::<T>(body.as_bytes())).unwrap(), body);
}

#[test]
fn bodies_have_upstreams_spelling() {
    keeps::<ResetOffsetBody>(
        r#"{"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"TopicA"}:50,
        {"brokerName":"broker-a","queueId":1,"topic":"TopicA"}:60}}"#,
    );
    keeps::<GetConsumerStatusBody>(
        r#"{"consumerTable":{"cid":{{"brokerName":"b","queueId":0,"topic":"T"}:5}},
        "messageQueueTable":{}}"#,
    );
    keeps::<ConsumerOffsetSerializeWrapper>(
        r#"{"dataVersion":{"counter":3,"stateVersion":0,"timestamp":1700000000000},
        "offsetTable":{"TopicA@GroupA":{0:10,1:11}}}"#,
    );
    keeps::<BatchAckMessageRequestBody>(
        r#"{"acks":[{"b":"BQI=","c":"GroupA","it":60000,"pt":1700000000000,"q":1,"r":"0",
        "rq":2,"so":100,"t":"TopicA"}],"brokerName":"broker-a"}"#,
    );
    keeps::<MessageRequestModeSerializeWrapper>(
        r#"{"messageRequestModeMap":{"TopicA":{"GroupA":{"consumerGroup":"GroupA","mode":"POP",
        "popShareQueueNum":8,"topic":"TopicA"}}}}"#,
    );
    keeps::<QueryAssignmentResponseBody>("{}");
}

#[test]
fn a_route_is_legal_json_for_clients_that_read_nothing_else() {
    let legacy = joined(
        r#"{"brokerDatas":[{"brokerAddrs":{0:"10.0.0.1:10911"},"brokerName":"broker-a",
        "cluster":"DefaultCluster","enableActingMaster":false}],"filterServerTable":{},
        "queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":4,"topicSysFlag":0,
        "writeQueueNums":4}]}"#,
    );
    let route: TopicRouteData = json::read(legacy.as_bytes()).unwrap();
    let standard = legacy.replace("0:\"", "\"0\":\"");
    for (version, standard_only, expected) in
        [(317, false, &legacy), (317, true, &standard), (401, false, &standard)]
    {
        assert_eq!(write_route(&route, version, standard_only), expected.as_bytes());
    }
}
