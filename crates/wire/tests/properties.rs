//! Headers of both forms: what is written reads back, and no bytes are a reason to panic.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use apogee_types::json;
use apogee_types::limits::FRAME_LEN_MAX;
use apogee_wire::output::Output;
use apogee_wire::remoting::bodies::{ConsumeStats, HeartbeatData, RegisterBrokerBody};
use apogee_wire::remoting::{
    Header, HeaderEncoding, PutFields, RequestHead, ResponseCode, ResponseHead, batch, frame,
    requests,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::Value;

struct Nowhere;

impl PutFields for Nowhere {
    fn text(&mut self, _: &str, _: &str) {}
    fn int(&mut self, _: &str, _: i64) {}
}

fn encodings() -> impl Strategy<Value = HeaderEncoding> {
    prop_oneof![Just(HeaderEncoding::Json), Just(HeaderEncoding::Binary)]
}

/// Any text, rich in what JSON escapes.
fn texts() -> impl Strategy<Value = String> {
    vec(
        prop_oneof![
            any::<char>(),
            "[\"\\\\\u{0}-\u{1f}é😀]".prop_map(|s| s.chars().next().unwrap())
        ],
        0..12,
    )
    .prop_map(|chars| chars.into_iter().collect())
}

/// Reads every request and response that the code could mean.
fn decode_all(header: &Header<'_>) {
    for code in [header.code, 10, 11, 37, 310, 103, 200_050] {
        let _ = requests::reencode(code, &header.fields, &mut Nowhere);
        let _ = requests::reencode_response(code, &header.fields, &mut Nowhere);
    }
}

fn read_frame(bytes: &[u8]) {
    if let Ok(Some(frame)) = frame::split(bytes, FRAME_LEN_MAX) {
        let mut index = Vec::new();
        if let Ok(header) = Header::parse(&frame, &mut index) {
            decode_all(&header);
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back(
        encoding in encodings(),
        code in 0..i32::from(i16::MAX),
        opaque: i32,
        fields in btree_map("[a-zA-Z_]{1,8}", texts(), 0..20),
        remark in texts(),
        body in vec(any::<u8>(), 0..40),
    ) {
        let head = ResponseHead {
            encoding, code: ResponseCode(code), opaque,
            remark: Some(remark.as_str()).filter(|remark| !remark.is_empty()),
        };
        let mut output = Output::default();
        head.write(
            &mut output,
            |put| fields.iter().for_each(|(name, value)| put.text(name, value)),
            |output| output.bytes.extend_from_slice(&body),
        );
        let bytes = output.to_vec();
        let frame = frame::split(&bytes, FRAME_LEN_MAX).unwrap().unwrap();
        prop_assert_eq!(frame.body, &body[..]);
        let mut index = Vec::new();
        let header = Header::parse(&frame, &mut index).unwrap();
        prop_assert_eq!((header.code, header.opaque, header.flag), (code, opaque, 1));
        let read_remark = header.remark.map(|remark| remark.to_cow().into_owned());
        prop_assert_eq!(read_remark.unwrap_or_default(), remark.clone());
        prop_assert_eq!(header.fields.iter().count(), fields.len());
        for (name, value) in &fields {
            let read = header.fields.get(name).unwrap().to_cow().into_owned();
            prop_assert_eq!(&read, value);
        }
        if encoding == HeaderEncoding::Json {
            let value: Value = serde_json::from_slice(frame.header).unwrap();
            prop_assert_eq!(&value["code"], code);
            let strict: std::collections::BTreeMap<String, String> =
                serde_json::from_value(value["extFields"].clone()).unwrap();
            prop_assert_eq!(strict, fields);
        }
    }

    #[test]
    fn a_header_of_any_legal_json_is_read_as_serde_json_reads_it(
        fields in btree_map("[a-z]{1,6}", texts(), 0..12),
        remark in texts(),
        opaque: i32,
        pretty: bool,
    ) {
        let value = serde_json::json!({
            "opaque": opaque, "extFields": fields, "remark": remark, "code": 7, "other": [1, {}],
        });
        let write = if pretty { serde_json::to_string_pretty } else { serde_json::to_string };
        let text = write(&value).unwrap();
        let frame = frame::FrameRef {
            encoding: HeaderEncoding::Json, header: text.as_bytes(), body: &[], len: 0,
        };
        let mut index = Vec::new();
        let header = Header::parse(&frame, &mut index).unwrap();
        prop_assert_eq!((header.code, header.opaque), (7, opaque));
        let read: std::collections::BTreeMap<String, String> = header.fields.iter()
            .map(|(name, value)| (name.to_owned(), value.to_cow().into_owned())).collect();
        prop_assert_eq!(read, fields);
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..200)) {
        read_frame(&bytes);
        for encoding in [HeaderEncoding::Json, HeaderEncoding::Binary] {
            let frame = frame::FrameRef { encoding, header: &bytes, body: &[], len: 0 };
            let mut index = Vec::new();
            if let Ok(header) = Header::parse(&frame, &mut index) {
                decode_all(&header);
            }
        }
        let _ = batch::records(&bytes).count();
        let _ = json::read::<HeartbeatData>(&bytes);
        let _ = RegisterBrokerBody::read(&bytes, true, 513);
    }

    #[test]
    fn no_text_like_json_panics(text in "[{}\\[\\]\",:'a0\\-.$\\\\u/* ]{0,60}") {
        let frame = frame::FrameRef {
            encoding: HeaderEncoding::Json, header: text.as_bytes(), body: &[], len: 0,
        };
        let _ = Header::parse(&frame, &mut Vec::new());
        let _ = json::read::<Value>(text.as_bytes());
        let _ = json::read::<ConsumeStats>(text.as_bytes());
    }

    #[test]
    fn a_changed_byte_of_a_frame_is_no_reason_to_panic(
        encoding in encodings(), at in 0..120_usize, byte: u8,
    ) {
        let mut output = Output::default();
        let head = RequestHead { encoding, code: 310, opaque: 5, oneway: false };
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        head.write(&mut output, |put| names.iter().for_each(|name| put.int(name, 1)), |_| {});
        let mut bytes = output.to_vec();
        let len = bytes.len();
        bytes[at % len] = byte;
        read_frame(&bytes);
    }

    #[test]
    fn what_the_dialect_writes_the_lenient_reader_reads(
        map in btree_map(any::<i64>(), texts(), 0..8),
    ) {
        let written = json::write(&map);
        prop_assert_eq!(json::read::<std::collections::BTreeMap<i64, String>>(&written), Ok(map));
    }
}
