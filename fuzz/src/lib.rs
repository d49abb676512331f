//! What each fuzz target does with its bytes: nothing may panic, and what was read must come out
//! again when it is written. `crates/wire/tests/corpus.rs` runs the kept inputs as a plain test.

use apogee_types::config::{GroupConfig, TopicConfig};
use apogee_types::limits::FRAME_LEN_MAX;
use apogee_types::record::Record;
use apogee_types::route::{ClusterInfo, TopicRouteData};
use apogee_types::settings::{
    self, Assigned, BrokerSettings, NamesrvSettings, NetSettings, Settings, StoreSettings,
};
use apogee_types::{json, properties as pairs};
use apogee_wire::output::Output;
use apogee_wire::remoting::bodies::*;
use apogee_wire::remoting::requests::{REQUESTS, reencode, reencode_response};
use apogee_wire::remoting::{
    ExtFields, Header, HeaderEncoding, PutFields, ResponseCode, ResponseHead, batch as batches,
    frame as frames,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub type Target = fn(&[u8]);

/// The targets by name; each has a folder of this name under `corpus/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("frame", frame),
    ("header_json", header_json),
    ("header_binary", header_binary),
    ("requests", requests),
    ("properties", properties),
    ("batch", batch),
    ("json_bodies", json_bodies),
    ("record", record),
    ("config", config),
];

/// Whole frames, one after the other.
pub fn frame(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some(frame)) = frames::split(rest, FRAME_LEN_MAX) {
        header(frame.encoding, frame.header);
        rest = &rest[frame.len..];
    }
}

pub fn header_json(bytes: &[u8]) {
    header(HeaderEncoding::Json, bytes);
}

pub fn header_binary(bytes: &[u8]) {
    header(HeaderEncoding::Binary, bytes);
}

/// A header, after one byte that says how it is written: its fields as those of every request.
pub fn requests(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let encoding = if kind & 1 == 0 { HeaderEncoding::Json } else { HeaderEncoding::Binary };
    with_header(encoding, bytes, |header| {
        for request in REQUESTS {
            let _ = reencode(request.code, &header.fields, &mut Nowhere);
            let _ = reencode_response(request.code, &header.fields, &mut Nowhere);
        }
    });
}

pub fn properties(bytes: &[u8]) {
    for (name, value) in pairs::pairs(bytes) {
        assert!(!name.is_empty() && !value.is_empty());
        assert!(pairs::find(bytes, name).is_some());
    }
    let mut text = bytes.to_vec();
    pairs::set(&mut text, "CLUSTER", "c");
    assert_eq!(pairs::find(&text, "CLUSTER"), Some("c"));
    pairs::remove(&mut text, "CLUSTER");
    assert_eq!(pairs::find(&text, "CLUSTER"), None);
}

pub fn batch(bytes: &[u8]) {
    let read: Vec<_> = batches::records(bytes).map_while(Result::ok).collect();
    let mut written = Vec::new();
    read.iter().for_each(|record| batches::put(&mut written, record));
    let again: Vec<_> = batches::records(&written).map_while(Result::ok).collect();
    assert_eq!(again, read);
}

pub fn json_bodies(bytes: &[u8]) {
    body::<Value>(bytes);
    body::<HeartbeatData>(bytes);
    body::<TopicRouteData>(bytes);
    body::<ClusterInfo>(bytes);
    body::<RegisterBrokerBody>(bytes);
    body::<LockBatchRequestBody>(bytes);
    body::<ResetOffsetBody>(bytes);
    body::<GetConsumerStatusBody>(bytes);
    body::<ConsumerConnection>(bytes);
    body::<ConsumeStatsList>(bytes);
    body::<TopicStatsTable>(bytes);
    body::<SubscriptionGroupWrapper>(bytes);
    body::<ConsumerOffsetSerializeWrapper>(bytes);
    body::<QueryAssignmentResponseBody>(bytes);
    body::<BatchAckMessageRequestBody>(bytes);
    body::<TopicConfig>(bytes);
    body::<GroupConfig>(bytes);
    body::<Vec<UserInfo>>(bytes);
    body::<Vec<AclInfo>>(bytes);
    let _ = RegisterBrokerBody::read(bytes, true, 513);
    let _ = RegisterBrokerBody::read(bytes, false, 30);
}

/// Stored records, one after the other.
pub fn record(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(record) = Record::parse(rest) {
        let _ = record.check_body();
        let _ = record.to_message();
        properties(record.properties);
        assert!(0 < record.len && record.len <= rest.len());
        rest = &rest[record.len..];
    }
}

/// A file of settings, for a process with every role. What was set reads back as it was.
pub fn config(bytes: &[u8]) {
    let Ok(entries) = settings::file::parse(bytes) else { return };
    assert!(entries.is_sorted_by(|before, after| before.line < after.line));
    let (mut broker, mut store) = (BrokerSettings::default(), StoreSettings::default());
    let (mut net, mut names) = (NetSettings::default(), NamesrvSettings::default());
    let mut tables: [&mut dyn Settings; 4] = [&mut broker, &mut net, &mut store, &mut names];
    let mut unknown_count = 0;
    for entry in entries {
        match settings::assign(&mut tables, &entry.key, &entry.value) {
            Assigned::Note(said) => assert!(!said.contains("of this role"), "{said}"),
            Assigned::Warning(said) if said.starts_with("unknown") => unknown_count += 1,
            Assigned::Quietly | Assigned::Warning(_) | Assigned::Error(_) => {}
        }
        // To find what an unknown key may mean is slow.
        if unknown_count == 2 {
            break;
        }
    }
    for table in tables {
        for (key, text) in table.rows() {
            assert_eq!(table.set(key.name, &text), Ok(()), "{key} = {text}");
            assert_eq!(table.get(key.name).as_ref(), Some(&text), "{key}");
        }
    }
}

/// What is read and written reads the same again.
fn body<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(value) = json::read::<T>(bytes) else { return };
    let written = json::write(&value);
    let again: T = json::read(&written).expect("what we write, we read");
    assert_eq!(json::write(&again), written);
}

fn header(encoding: HeaderEncoding, bytes: &[u8]) {
    with_header(encoding, bytes, |header| {
        let remark = header.remark.map(|remark| remark.to_cow().into_owned());
        let head = ResponseHead {
            encoding: HeaderEncoding::Json,
            code: ResponseCode(header.code),
            opaque: header.opaque,
            remark: remark.as_deref(),
        };
        let mut output = Output::default();
        let put_all = |put: &mut dyn PutFields| {
            header.fields.iter().for_each(|(name, value)| put.text(name, &value.to_cow()));
        };
        // A name with an escape in it is none of upstream's, and is not written again.
        let is_plain = |name: &str| !name.contains(['"', '\\']) && !name.contains(char::is_control);
        if !header.fields.iter().all(|(name, _)| is_plain(name)) {
            return;
        }
        head.write(&mut output, put_all, |_| {});
        let written = output.to_vec();
        let frame = frames::split(&written, usize::MAX);
        let frame = frame.ok().flatten().expect("what we write is a whole frame");
        with_header(frame.encoding, frame.header, |again| {
            assert_eq!((again.code, again.opaque), (header.code, header.opaque));
            assert_eq!(again.remark.map(|it| it.to_cow().into_owned()), remark);
            assert_eq!(pairs_of(&again.fields), pairs_of(&header.fields));
        });
    });
}

fn pairs_of(fields: &ExtFields<'_>) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| (name.to_owned(), value.to_cow().into_owned())).collect()
}

fn with_header(encoding: HeaderEncoding, bytes: &[u8], check: impl FnOnce(&Header<'_>)) {
    let frame = frames::FrameRef { encoding, header: bytes, body: &[], len: bytes.len() };
    let mut index = Vec::new();
    if let Ok(header) = Header::parse(&frame, &mut index) {
        check(&header);
    }
}

struct Nowhere;

impl PutFields for Nowhere {
    fn text(&mut self, _: &str, _: &str) {}
    fn int(&mut self, _: &str, _: i64) {}
}
