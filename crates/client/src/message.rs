//! A message as an application sees it, and how it becomes bytes and back.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use apogee_types::id::OffsetMessageId;
use apogee_types::limits::FRAME_LEN_MAX;
use apogee_types::names::{self, RETRY_PREFIX};
use apogee_types::properties::{self, name};
use apogee_types::record::{Record, RecordError};
use apogee_types::{LogOffset, Millis, QueueOffset, SysFlag};
use bytes::Bytes;

use crate::Error;

/// A body that inflates to more than this stays compressed: more than any broker takes.
pub(crate) const INFLATED_LEN_MAX: usize = 4 * FRAME_LEN_MAX;

/// A message to be sent.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub body: Bytes,
    /// The application's own number; brokers only keep it.
    pub flag: i32,
    /// Checked when the message is sent: names and values are not empty and hold no separators.
    pub properties: BTreeMap<String, String>,
}

impl Message {
    #[must_use]
    pub fn new(topic: &str, body: impl Into<Bytes>) -> Self {
        Self { topic: topic.to_owned(), body: body.into(), ..Self::default() }
    }

    /// What consumers filter by.
    #[must_use]
    pub fn tag(self, tag: &str) -> Self {
        self.property(name::TAGS, tag)
    }

    /// Adds a key under which the message can be looked up.
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        let keys = self.properties.entry(name::KEYS.to_owned()).or_default();
        if !keys.is_empty() {
            keys.push(' ');
        }
        keys.push_str(key);
        self
    }

    #[must_use]
    pub fn property(mut self, name: &str, value: &str) -> Self {
        self.properties.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Delivered later: 1 after a second, up to 18 after two hours (the broker's
    /// `messageDelayLevel`).
    #[must_use]
    pub fn delay_level(self, level: u8) -> Self {
        self.property(name::DELAY, &level.to_string())
    }

    /// Delivered at this time, up to three days ahead.
    #[must_use]
    pub fn deliver_at(self, at: Millis) -> Self {
        self.property(name::TIMER_DELIVER_MS, &at.to_string())
    }

    /// Checks what the broker would refuse or silently drop.
    pub(crate) fn check(&self, len_max: usize) -> Result<(), Error> {
        names::check_topic(&self.topic)?;
        if !names::may_send(&self.topic) {
            return Err(Error::NoSend(self.topic.clone()));
        }
        let broken = |text: &str| text.is_empty() || text.contains(['\u{1}', '\u{2}']);
        if let Some((name, _)) = self.properties.iter().find(|(n, v)| broken(n) || broken(v)) {
            return Err(Error::Property { name: name.clone() });
        }
        let (len, max) = (self.body.len(), len_max);
        if max < len {
            return Err(Error::TooLong { what: "a body", len, max });
        }
        Ok(())
    }

    /// The properties as they travel.
    pub(crate) fn encoded_properties(&self) -> Result<Vec<u8>, Error> {
        let mut encoded = Vec::new();
        for (name, value) in &self.properties {
            properties::push(&mut encoded, name, value);
        }
        if properties::LEN_MAX < encoded.len() {
            let (len, max) = (encoded.len(), properties::LEN_MAX);
            return Err(Error::TooLong { what: "a message's properties", len, max });
        }
        Ok(encoded)
    }
}

/// A message from a queue.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceivedMessage {
    /// The topic to which it was sent; for a message that comes again not the retry topic.
    pub topic: Arc<str>,
    pub broker_name: Arc<str>,
    pub queue_id: i32,
    pub queue_offset: QueueOffset,
    pub log_offset: LogOffset,
    pub body: Bytes,
    pub flag: i32,
    /// Still says compressed if the body could not be inflated.
    pub sys_flag: SysFlag,
    pub properties: BTreeMap<String, String>,
    pub born_ms: Millis,
    pub born_host: SocketAddr,
    pub stored_ms: Millis,
    pub store_host: SocketAddr,
    /// How often it was delivered before.
    pub reconsume_times: i32,
    /// Bytes that the broker keeps of it.
    pub stored_len: usize,
}

impl ReceivedMessage {
    /// The id that the producer gave, else the broker's.
    #[must_use]
    pub fn id(&self) -> String {
        let unique = self.properties.get(name::UNIQ_KEY);
        unique.cloned().unwrap_or_else(|| self.offset_id().to_string())
    }

    /// The id that the broker gave: where the record lies.
    #[must_use]
    pub fn offset_id(&self) -> OffsetMessageId {
        OffsetMessageId { store_host: self.store_host, at: self.log_offset }
    }

    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.properties.get(name::TAGS).map(String::as_str)
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.properties.get(name::KEYS).into_iter().flat_map(|keys| keys.split_whitespace())
    }

    /// The records of a response body, read one after the other.
    pub(crate) fn read_all(body: &Bytes, broker_name: &Arc<str>) -> Result<Vec<Self>, RecordError> {
        let (messages, end) = Self::read(body, broker_name, usize::MAX);
        if let End::Malformed(error) = end { Err(error) } else { Ok(messages) }
    }

    /// The records of a response body up to one that cannot be read, or with which so much of it
    /// would be inflated.
    pub(crate) fn read(
        body: &Bytes,
        broker_name: &Arc<str>,
        inflated_len_max: usize,
    ) -> (Vec<Self>, End) {
        let mut messages = Vec::new();
        let (mut at, mut inflated_len) = (0, 0);
        while at < body.len() {
            let record = match Record::parse(&body[at..]) {
                Ok(record) => record,
                Err(error) => return (messages, End::Malformed(error)),
            };
            at += record.len;
            let message = Self::from_record(&record, body, broker_name);
            if message.sys_flag != record.sys_flag {
                inflated_len += message.body.len();
                if inflated_len_max < inflated_len && !messages.is_empty() {
                    return (messages, End::TooLong);
                }
            }
            messages.push(message);
        }
        (messages, End::All)
    }

    fn from_record(record: &Record<'_>, whole: &Bytes, broker_name: &Arc<str>) -> Self {
        let properties: BTreeMap<String, String> = properties::pairs(record.properties)
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let (body, sys_flag) = plain_body(record, whole);
        Self {
            topic: original_topic(record.topic, &properties).into(),
            broker_name: Arc::clone(broker_name),
            queue_id: record.queue_id.to_wire(),
            queue_offset: record.queue_offset,
            log_offset: record.at,
            body,
            flag: record.flag,
            sys_flag,
            born_ms: record.born_ms,
            born_host: record.born_host,
            stored_ms: record.stored_ms,
            store_host: record.store_host,
            reconsume_times: record.reconsume_times,
            stored_len: record.len,
            properties,
        }
    }
}

/// Why no more records were read.
pub(crate) enum End {
    All,
    TooLong,
    Malformed(RecordError),
}

fn original_topic<'a>(topic: &'a str, properties: &'a BTreeMap<String, String>) -> &'a str {
    if !topic.starts_with(RETRY_PREFIX) {
        return topic;
    }
    properties.get(name::RETRY_TOPIC).map_or(topic, String::as_str)
}

/// The body without compression, and the flags that then hold.
fn plain_body(record: &Record<'_>, whole: &Bytes) -> (Bytes, SysFlag) {
    let flag = record.sys_flag;
    if !flag.has(SysFlag::COMPRESSED) {
        return (whole.slice_ref(record.body), flag);
    }
    match inflate(record.body, flag.compression()) {
        Ok(body) => {
            let compression = SysFlag::COMPRESSED.with(flag.compression());
            (body.into(), flag.without(compression))
        }
        Err(error) => {
            tracing::warn!(topic = record.topic, at = %record.at, %error, "body stays compressed");
            (whole.slice_ref(record.body), flag)
        }
    }
}

/// Compresses a body as every client can read it: zlib, level 5 as upstream.
pub(crate) fn deflate(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(5));
    encoder.write_all(body).and_then(|()| encoder.finish()).expect("a Vec takes everything")
}

/// The body that was compressed as `compression` says. An error for an unknown compression, bytes
/// that are none, and a body that would be too long.
pub fn inflate(body: &[u8], compression: SysFlag) -> io::Result<Vec<u8>> {
    match compression {
        SysFlag::COMPRESSION_LZ4 => read_bounded(lz4_flex::frame::FrameDecoder::new(body)),
        SysFlag::COMPRESSION_ZSTD => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(body);
            read_bounded(decoder.map_err(io::Error::other)?)
        }
        _ => read_bounded(flate2::read::ZlibDecoder::new(body)),
    }
}

fn read_bounded(decoder: impl Read) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    decoder.take(INFLATED_LEN_MAX as u64 + 1).read_to_end(&mut body)?;
    if INFLATED_LEN_MAX < body.len() {
        return Err(io::Error::other(format!("it inflates to more than {INFLATED_LEN_MAX} bytes")));
    }
    Ok(body)
}

#[cfg(test)]
pub(crate) mod tests {
    use apogee_types::record;
    use apogee_types::{Message as Stored, QueueId};
    use proptest::prelude::*;

    use super::*;

    /// Some message of a topic.
    pub fn received(topic: &str) -> ReceivedMessage {
        let bytes = Bytes::from(stored(topic, b"body", b"", SysFlag::default(), "10.0.0.1:7"));
        ReceivedMessage::read_all(&bytes, &"b".into()).unwrap().remove(0)
    }

    /// The record of a message, as a broker would send it.
    pub fn stored(
        topic: &str,
        body: &[u8],
        properties: &[u8],
        flag: SysFlag,
        host: &str,
    ) -> Vec<u8> {
        let message = Stored {
            topic,
            queue_id: QueueId::from_wire(3).unwrap(),
            flag: 5,
            sys_flag: flag,
            born_ms: 11,
            born_host: host.parse().unwrap(),
            store_host: host.parse().unwrap(),
            reconsume_times: 2,
            prepared_at: LogOffset(0),
            body,
            properties,
            key_places: None,
            tags_code: 0,
        };
        let place = (QueueOffset(17), LogOffset(4096), 12);
        let mut bytes = Vec::new();
        let crc = record::body_crc(body);
        record::encode(&message, crc, place, |part| bytes.extend_from_slice(part));
        bytes
    }

    fn read_one(bytes: Vec<u8>) -> ReceivedMessage {
        let mut all = ReceivedMessage::read_all(&bytes.into(), &"b".into()).unwrap();
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    #[test]
    fn a_record_becomes_a_message() {
        for host in ["10.0.0.1:10911", "[fd00::1]:10911"] {
            let properties = b"TAGS\x01a\x02KEYS\x01k1 k2\x02UNIQ_KEY\x01U";
            let message = read_one(stored("T", b"hello", properties, SysFlag::default(), host));
            assert_eq!((&*message.topic, &message.body[..]), ("T", &b"hello"[..]));
            assert_eq!((message.tag(), message.id().as_str()), (Some("a"), "U"));
            assert_eq!(message.keys().collect::<Vec<_>>(), ["k1", "k2"]);
            assert_eq!(message.store_host, host.parse().unwrap());
            assert_eq!((message.queue_offset, message.reconsume_times), (QueueOffset(17), 2));
            assert_eq!(message.offset_id().at, LogOffset(4096));
        }
    }

    #[test]
    fn compressed_bodies_of_all_clients_are_inflated() {
        let body = b"tick tock ".repeat(500);
        let zlib = deflate(&body);
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(&body).unwrap();
        let lz4 = lz4.finish().unwrap();
        let zero = SysFlag::default();
        for (bytes, kind) in
            [(&zlib, zero), (&zlib, SysFlag::COMPRESSION_ZLIB), (&lz4, SysFlag::COMPRESSION_LZ4)]
        {
            let flag = SysFlag::COMPRESSED.with(kind);
            let message = read_one(stored("T", bytes, b"", flag, "1.2.3.4:5"));
            assert_eq!(message.body, body, "{kind:?}");
            assert_eq!(message.sys_flag, zero);
        }
        let message = read_one(stored("T", b"no zlib", b"", SysFlag::COMPRESSED, "1.2.3.4:5"));
        assert_eq!(&message.body[..], b"no zlib");
        assert!(message.sys_flag.has(SysFlag::COMPRESSED));
    }

    #[test]
    fn what_java_clients_compress_with_zstd_is_read() {
        // Written by the Java client's way, `ZstdOutputStream` of zstd-jni 1.5.2 at its default
        // level and at its highest.
        let of_java: [&[u8]; 2] = [
            include_bytes!("../tests/fixtures/zstd-jni-level-5.zst"),
            include_bytes!("../tests/fixtures/zstd-jni-level-22.zst"),
        ];
        let body: String = (0..300).map(|number| format!("tick {}\n", number * number)).collect();
        let flag = SysFlag::COMPRESSED.with(SysFlag::COMPRESSION_ZSTD);
        for bytes in of_java {
            let message = read_one(stored("T", bytes, b"", flag, "1.2.3.4:5"));
            assert_eq!(message.body, body);
            assert_eq!(message.sys_flag, SysFlag::default());
            for cut in 0..bytes.len() {
                assert!(inflate(&bytes[..cut], SysFlag::COMPRESSION_ZSTD).is_err(), "at {cut}");
            }
            // A flipped bit makes an error or another body, but never a panic.
            for bit in 0..8 * bytes.len() {
                let mut flipped = bytes.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let _ = inflate(&flipped, SysFlag::COMPRESSION_ZSTD);
            }
        }
    }

    #[test]
    fn a_zstd_body_that_would_fill_the_memory_stays_as_it_is() {
        // A frame of blocks that repeat one byte 128 KiB times, more than a gigabyte of them.
        let block = ((128 << 10) << 3 | 1 << 1) as u32;
        let block = [&block.to_le_bytes()[..3], &[7]].concat();
        let head = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
        let bomb = [&head[..], &block.repeat(10_000)].concat();
        let error = inflate(&bomb, SysFlag::COMPRESSION_ZSTD).unwrap_err();
        assert!(error.to_string().contains("inflates to more than"), "{error}");
    }

    proptest! {
        #[test]
        fn bytes_that_are_no_zstd_are_an_error_or_a_body(
            head in any::<bool>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let magic: &[u8] = if head { &[0x28, 0xb5, 0x2f, 0xfd] } else { &[] };
            let _ = inflate(&[magic, &bytes].concat(), SysFlag::COMPRESSION_ZSTD);
        }
    }

    #[test]
    fn a_message_that_comes_again_has_its_first_topic() {
        let flag = SysFlag::default();
        let retry = stored("%RETRY%g", b"", b"RETRY_TOPIC\x01T\x02", flag, "1.2.3.4:5");
        assert_eq!(&*read_one(retry).topic, "T");
        let plain = stored("T", b"", b"RETRY_TOPIC\x01X\x02", flag, "1.2.3.4:5");
        assert_eq!(&*read_one(plain).topic, "T");
    }

    #[test]
    fn what_a_broker_would_refuse_is_not_sent() {
        let check = |message: Message| message.check(4);
        assert!(check(Message::new("T", "1234")).is_ok());
        assert!(matches!(check(Message::new("T", "12345")), Err(Error::TooLong { max: 4, .. })));
        assert!(matches!(check(Message::new("a b", "")), Err(Error::Name(_))));
        assert!(matches!(check(Message::new("SCHEDULE_TOPIC_XXXX", "")), Err(Error::NoSend(_))));
        let broken = Message::new("T", "").property("p", "a\u{1}b");
        assert!(matches!(check(broken), Err(Error::Property { name }) if name == "p"));
    }

    proptest! {
        #[test]
        fn cut_and_flipped_records_are_errors_or_messages_but_never_a_panic(
            body in proptest::collection::vec(any::<u8>(), 0..64),
            cut in any::<proptest::sample::Index>(),
            flip in any::<(proptest::sample::Index, u8)>(),
        ) {
            let flag = SysFlag::COMPRESSED;
            let mut bytes = stored("T", &body, b"TAGS\x01a\x02", flag, "[::1]:1");
            prop_assert!(ReceivedMessage::read_all(&bytes.clone().into(), &"b".into()).is_ok());
            let at = flip.0.index(bytes.len());
            bytes[at] ^= flip.1;
            let _ = ReceivedMessage::read_all(&bytes.clone().into(), &"b".into());
            bytes.truncate(cut.index(bytes.len()));
            let read = ReceivedMessage::read_all(&bytes.clone().into(), &"b".into());
            prop_assert!(bytes.is_empty() || read.is_err() || flip.1 != 0);
        }
    }
}
