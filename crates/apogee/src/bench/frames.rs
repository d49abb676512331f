//! Requests that are encoded once and then only patched, and the parts of answers that count.
//!
//! What changes from message to message has a fixed width: the opaque (9 digits), the born time
//! (13 digits), the unique key (32 hex digits, of which 12 count), and the first 16 bytes of the
//! body, which say which run sent it and when ([`Stamp`]).

use anyhow::Context;
use apogee_wire::output::Output;
use apogee_wire::remoting::batch::{self, BatchRecord};
use apogee_wire::remoting::requests::{SendBatchMessage, SendMessageV2};
use apogee_wire::remoting::{
    FieldIndex, Fields, FrameRef, Header, HeaderEncoding, Request, RequestHead, Text,
};

/// Opaques of sends have nine digits.
pub const OPAQUE_MIN: i32 = 100_000_000;
pub const OPAQUE_MAX: i32 = 999_999_999;

/// As long as the key of a Java client with an IPv4 address.
const KEY_PREFIX: &str = "7F0000010BE6AC0FFEE0";
const KEY_DIGITS: usize = 12;
const BORN_MS: i64 = 1_700_000_000_000;

/// What a request is made of.
pub struct Spec<'a> {
    pub topic: &'a str,
    pub size: usize,
    /// Messages of a request; above 1 it is a batch.
    pub batch: u32,
}

/// The request for one queue.
pub struct Template {
    bytes: Vec<u8>,
    opaque_at: usize,
    born_at: usize,
    keys_at: Vec<usize>,
    stamps_at: Vec<usize>,
}

/// At the start of a body that is long enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub run: u64,
    /// When the message was due, in nanoseconds since the run began.
    pub due_ns: u64,
}

impl Stamp {
    pub const LEN: usize = 16;

    /// The stamp of a body, if it is of this run.
    pub fn read(body: &[u8], run: u64) -> Option<u64> {
        let (found, rest) = body.split_first_chunk()?;
        let (due_ns, _) = rest.split_first_chunk()?;
        (u64::from_le_bytes(*found) == run).then(|| u64::from_le_bytes(*due_ns))
    }
}

impl Template {
    pub fn new(spec: &Spec<'_>, broker_name: &str, queue_id: i32) -> Self {
        let key = format!("{KEY_PREFIX}{:0KEY_DIGITS$}", 0);
        let own = format!("UNIQ_KEY\u{1}{key}\u{2}WAIT\u{1}true\u{2}");
        let is_batch = 1 < spec.batch;
        let header = SendMessageV2 {
            producer_group: "apogee-bench".into(),
            topic: spec.topic.into(),
            default_topic: "TBW102".into(),
            default_topic_queue_count: 4,
            queue_id,
            sys_flag: 0,
            born_ms: BORN_MS,
            flag: 0,
            properties: Some(Text::Plain(if is_batch { "WAIT\u{1}true\u{2}" } else { &own })),
            reconsume_times: Some(0),
            unit_mode: false,
            max_reconsume_times: None,
            batch: is_batch,
            broker_name: Some(broker_name.into()),
        };
        let body: Vec<u8> = (0..spec.size).map(|at| b'a' + (at % 26) as u8).collect();
        let mut output = Output::default();
        let code = match is_batch {
            true => SendBatchMessage::INFO.code,
            false => SendMessageV2::INFO.code,
        };
        let encoding = HeaderEncoding::Json;
        let head = RequestHead { encoding, code, opaque: OPAQUE_MIN, oneway: false };
        let record = BatchRecord { flag: 0, body: &body, properties: own.as_bytes() };
        head.write(
            &mut output,
            |put| header.encode(put),
            |out| match is_batch {
                false => out.bytes.extend_from_slice(&body),
                true => (0..spec.batch).for_each(|_| batch::put(&mut out.bytes, &record)),
            },
        );
        Self::with_places(output.bytes, &body, &key)
    }

    /// Finds the places to patch.
    fn with_places(bytes: Vec<u8>, body: &[u8], key: &str) -> Self {
        let after = |text: &str| {
            let at = find_all(&bytes, text.as_bytes()).next();
            at.expect("our own encoder wrote it") + text.len()
        };
        let opaque_at = after("\"opaque\":");
        let born_at = after("\"g\":\"");
        let keys_at = find_all(&bytes, key.as_bytes()).map(|at| at + KEY_PREFIX.len()).collect();
        let stamps_at = match body.len() < Stamp::LEN {
            true => Vec::new(),
            false => find_all(&bytes, body).collect(),
        };
        Self { opaque_at, born_at, keys_at, stamps_at, bytes }
    }

    /// Appends the request. `first_key` and the numbers after it become the unique keys.
    pub fn put(
        &self,
        out: &mut Vec<u8>,
        opaque: i32,
        born: &[u8; 13],
        first_key: u64,
        stamp: Stamp,
    ) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let frame = &mut out[start..];
        put_digits(&mut frame[self.opaque_at..self.opaque_at + 9], opaque as u32);
        frame[self.born_at..self.born_at + 13].copy_from_slice(born);
        for (key, &at) in (first_key..).zip(&self.keys_at) {
            put_hex(&mut frame[at..at + KEY_DIGITS], key);
        }
        for &at in &self.stamps_at {
            frame[at..at + 8].copy_from_slice(&stamp.run.to_le_bytes());
            frame[at + 8..at + 16].copy_from_slice(&stamp.due_ns.to_le_bytes());
        }
    }
}

/// Where `part` starts, without overlaps.
fn find_all<'a>(bytes: &'a [u8], part: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let mut from = 0;
    std::iter::from_fn(move || {
        let found = bytes[from..].windows(part.len()).position(|window| window == part)?;
        let at = from + found;
        from = at + part.len();
        Some(at)
    })
}

/// The 13 digits of a time.
pub fn born_digits(ms: i64) -> [u8; 13] {
    let text = format!("{ms:013}");
    *text.as_bytes().first_chunk().expect("13 digits reach for centuries")
}

fn put_digits(digits: &mut [u8], mut value: u32) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn put_hex(digits: &mut [u8], mut value: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789ABCDEF"[(value & 15) as usize];
        value >>= 4;
    }
}

/// What an answer says, as far as the counting goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub opaque: i32,
    pub code: i32,
}

/// Reads answers. Those of successful sends look alike, so it looks first where the opaque was
/// last time.
#[derive(Default)]
pub struct Scanner {
    /// From the start of `"opaque":` to the end of the header.
    distance: usize,
    index: Vec<FieldIndex>,
}

impl Scanner {
    /// `None` for a request of the server.
    #[inline]
    pub fn scan(&mut self, frame: &FrameRef<'_>) -> anyhow::Result<Option<Answer>> {
        if let Some(opaque) = self.success(frame) {
            return Ok(Some(Answer { opaque, code: 0 }));
        }
        let header = Header::parse(frame, &mut self.index).context("an answer's header")?;
        if frame.encoding == HeaderEncoding::Json && header.code == 0 && header.remark.is_none() {
            self.distance = distance(frame.header).unwrap_or(0);
        }
        let answer = Answer { opaque: header.opaque, code: header.code };
        Ok(header.is_response().then_some(answer))
    }

    /// The opaque of a success, if it stands where it did last time.
    #[inline]
    fn success(&self, frame: &FrameRef<'_>) -> Option<i32> {
        let rest = frame.header.strip_prefix(b"{\"code\":0,")?;
        let at = rest.len().checked_sub(self.distance)?;
        let digits = rest[at..].strip_prefix(b"\"opaque\":")?;
        let (digits, rest) = digits.split_first_chunk::<9>()?;
        if rest.first() != Some(&b',') || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        Some(digits.iter().fold(0, |value, digit| 10 * value + i32::from(digit - b'0')))
    }
}

fn distance(header: &[u8]) -> Option<usize> {
    let at = find_all(header, b"\"opaque\":").last()?;
    Some(header.len() - at)
}

#[cfg(test)]
mod tests {
    use apogee_wire::remoting::frame;
    use apogee_wire::remoting::header::ResponseHead;
    use apogee_wire::remoting::{ResponseCode, header};

    use super::*;

    const STAMP: Stamp = Stamp { run: 7, due_ns: 99 };

    fn request(batch: u32) -> Vec<u8> {
        let spec = Spec { topic: "bench", size: 40, batch };
        let template = Template::new(&spec, "broker-a", 3);
        let mut out = b"before".to_vec();
        template.put(&mut out, 123_456_789, &born_digits(1_795_541_560_002), 0xABC, STAMP);
        out.split_off(6)
    }

    #[test]
    fn a_patched_request_reads_as_the_java_client_writes_it() {
        let bytes = request(1);
        let frame = frame::split(&bytes, 1 << 20).unwrap().unwrap();
        assert_eq!(frame.len, bytes.len());
        let text = std::str::from_utf8(frame.header).unwrap();
        let expected = concat!(
            r#"{"code":310,"extFields":{"a":"apogee-bench","b":"bench","c":"TBW102","d":"4","#,
            r#""e":"3","f":"0","g":"1795541560002","h":"0","i":"UNIQ_KEY\u0001"#,
            r#"7F0000010BE6AC0FFEE0000000000ABC\u0002WAIT\u0001true\u0002","j":"0","k":"false","#,
            r#""m":"false","n":"broker-a"},"flag":0,"language":"JAVA","opaque":123456789,"#,
            r#""serializeTypeCurrentRPC":"JSON","version":513}"#,
        );
        assert_eq!(text, expected);
        assert_eq!(Stamp::read(frame.body, 7), Some(99));
        assert_eq!(Stamp::read(frame.body, 8), None);
        assert_eq!(&frame.body[16..], b"qrstuvwxyzabcdefghijklmn");
    }

    #[test]
    fn every_message_of_a_batch_has_its_key_and_stamp() {
        let bytes = request(3);
        let frame = frame::split(&bytes, 1 << 20).unwrap().unwrap();
        let mut index = Vec::new();
        let header = header::Header::parse(&frame, &mut index).unwrap();
        assert_eq!((header.code, header.opaque), (320, 123_456_789));
        let records: Vec<_> = batch::records(frame.body).collect::<Result<_, _>>().unwrap();
        let keys = ["ABC", "ABD", "ABE"];
        for (record, key) in records.iter().zip(keys) {
            assert!(std::str::from_utf8(record.properties).unwrap().contains(key));
            assert_eq!(Stamp::read(record.body, 7), Some(99));
        }
        assert_eq!(records.len(), 3);
    }

    #[test]
    fn answers_are_read_with_and_without_a_guess() {
        let mut scanner = Scanner::default();
        let mut scan = |code, opaque, remark| {
            let mut output = Output::default();
            let encoding = HeaderEncoding::Json;
            let head = ResponseHead { encoding, code, opaque, remark };
            head.write(&mut output, |put| put.text("queueId", "1"), |_| {});
            let frame = frame::split(&output.bytes, 1 << 20).unwrap().unwrap();
            let guessed = scanner.success(&frame).is_some();
            (scanner.scan(&frame).unwrap().unwrap(), guessed)
        };
        let answer = |code, opaque| Answer { opaque, code };
        let ok = ResponseCode::SUCCESS;
        assert_eq!(scan(ok, 123_456_789, None), (answer(0, 123_456_789), false));
        assert_eq!(scan(ok, 987_654_321, None), (answer(0, 987_654_321), true));
        let busy = ResponseCode::SYSTEM_BUSY;
        assert_eq!(scan(busy, 111_111_111, Some("no")), (answer(2, 111_111_111), false));
        // What stands elsewhere is found, and looked for there the next time.
        assert_eq!(scan(ok, 7, None), (answer(0, 7), false));
        assert_eq!(scan(ok, 222_222_222, None), (answer(0, 222_222_222), false));
        assert_eq!(scan(ok, 333_333_333, None), (answer(0, 333_333_333), true));
    }
}
