//! The stored record: the same bytes on disk, on the HA link and in a pull response.
//!
//! ```text
//!  total size 4 | magic 4 | body CRC 4 | queue id 4 | flag 4 | queue offset 8 | log offset 8
//!  | sys flag 4 | born ms 8 | born host 8 or 20 | stored ms 8 | store host 8 or 20
//!  | reconsume times 4 | prepared at 8 | body: length 4, bytes | topic: length 1 or 2, bytes
//!  | properties: length 2, bytes
//! ```
//!
//! All integers are big-endian. A topic above 127 bytes makes it version 2, with the longer topic
//! length. Spec `messages.md` 1, `store.md` 2.2.

use std::net::{IpAddr, SocketAddr};

use crate::names::RETRY_TOPIC_LEN_MAX;
use crate::{LogOffset, Message, Millis, QueueId, QueueOffset, SysFlag};

pub const MAGIC_V1: u32 = 0xDAA3_20A7;
pub const MAGIC_V2: u32 = 0xDAA3_20AB;
/// Marks the rest of a segment as free: `length 4 | magic 4`.
pub const MAGIC_BLANK: u32 = 0xCBD4_3194;

/// Length of what stands before the body, with the longest hosts.
const HEAD_LEN_MAX: usize = 112;
/// Length of what stands between body and properties, with the longest topic.
const MIDDLE_LEN_MAX: usize = 4 + RETRY_TOPIC_LEN_MAX;

/// A record without body, topic and properties, version 1, with IPv4 hosts.
const FIXED_LEN: usize = 91;
const IPV6_EXTRA: usize = 12;

/// A record, read from its bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Record<'a> {
    pub len: usize,
    pub body_crc: u32,
    pub queue_id: QueueId,
    pub flag: i32,
    pub queue_offset: QueueOffset,
    pub at: LogOffset,
    pub sys_flag: SysFlag,
    pub born_ms: Millis,
    pub born_host: SocketAddr,
    pub stored_ms: Millis,
    pub store_host: SocketAddr,
    pub reconsume_times: i32,
    pub prepared_at: LogOffset,
    pub body: &'a [u8],
    pub topic: &'a str,
    pub properties: &'a [u8],
}

/// Why bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the record ends within its {0}")]
    Truncated(&'static str),
    #[error("{0:#x} is not the magic number of a record")]
    Magic(u32),
    #[error("the record says it is {stated} bytes long, its parts are {found}")]
    Length { stated: usize, found: usize },
    #[error("the topic is not UTF-8 or the queue id is negative")]
    Field,
    #[error("the body's checksum is {found:#x}, not {stated:#x}")]
    Crc { stated: u32, found: u32 },
}

/// The checksum that a record keeps of its body.
#[must_use]
pub fn body_crc(body: &[u8]) -> u32 {
    crc32fast::hash(body) & 0x7FFF_FFFF
}

/// Length of the record of `message`.
#[must_use]
pub fn encoded_len(message: &Message<'_>) -> usize {
    let v6_count =
        usize::from(message.born_host.is_ipv6()) + usize::from(message.store_host.is_ipv6());
    let topic_extra = usize::from(is_v2(message.topic));
    let variable = message.body.len() + message.topic.len() + message.properties.len();
    FIXED_LEN + IPV6_EXTRA * v6_count + topic_extra + variable
}

fn is_v2(topic: &str) -> bool {
    127 < topic.len()
}

/// Gives the record of `message` to `put`, part by part, with the queue offset, log offset and
/// store time that were assigned. Its topic is no longer than the longest.
#[inline]
pub fn encode(
    message: &Message<'_>,
    crc: u32,
    place: (QueueOffset, LogOffset, Millis),
    mut put: impl FnMut(&[u8]),
) {
    let mut head = [0; HEAD_LEN_MAX];
    let head_len = encode_head(message, crc, place, &mut head);
    let mut middle = [0; MIDDLE_LEN_MAX];
    let middle_len = encode_middle(message, &mut middle);
    put(&head[..head_len]);
    put(message.body);
    put(&middle[..middle_len]);
    put(message.properties);
}

/// Writes what stands before the body; returns its length.
fn encode_head(
    message: &Message<'_>,
    crc: u32,
    place: (QueueOffset, LogOffset, Millis),
    head: &mut [u8; HEAD_LEN_MAX],
) -> usize {
    let (queue_offset, at, stored_ms) = place;
    let magic = if is_v2(message.topic) { MAGIC_V2 } else { MAGIC_V1 };
    let mut sys_flag = message.sys_flag.without(SysFlag::BORN_HOST_V6.with(SysFlag::STORE_HOST_V6));
    if message.born_host.is_ipv6() {
        sys_flag = sys_flag.with(SysFlag::BORN_HOST_V6);
    }
    if message.store_host.is_ipv6() {
        sys_flag = sys_flag.with(SysFlag::STORE_HOST_V6);
    }
    let mut writer = Writer { bytes: head, at: 0 };
    writer.put(&(encoded_len(message) as u32).to_be_bytes());
    writer.put(&magic.to_be_bytes());
    writer.put(&crc.to_be_bytes());
    writer.put(&message.queue_id.to_wire().to_be_bytes());
    writer.put(&message.flag.to_be_bytes());
    writer.put(&queue_offset.0.to_be_bytes());
    writer.put(&at.0.to_be_bytes());
    writer.put(&sys_flag.0.to_be_bytes());
    writer.put(&message.born_ms.to_be_bytes());
    writer.host(message.born_host);
    writer.put(&stored_ms.to_be_bytes());
    writer.host(message.store_host);
    writer.put(&message.reconsume_times.to_be_bytes());
    writer.put(&message.prepared_at.0.to_be_bytes());
    writer.put(&(message.body.len() as u32).to_be_bytes());
    writer.at
}

/// Writes what stands between body and properties; returns its length.
fn encode_middle(message: &Message<'_>, middle: &mut [u8; MIDDLE_LEN_MAX]) -> usize {
    let mut writer = Writer { bytes: middle, at: 0 };
    if is_v2(message.topic) {
        writer.put(&(message.topic.len() as u16).to_be_bytes());
    } else {
        writer.put(&[message.topic.len() as u8]);
    }
    writer.put(message.topic.as_bytes());
    writer.put(&(message.properties.len() as u16).to_be_bytes());
    writer.at
}

struct Writer<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn host(&mut self, host: SocketAddr) {
        match host.ip() {
            IpAddr::V4(ip) => self.put(&ip.octets()),
            IpAddr::V6(ip) => self.put(&ip.octets()),
        }
        self.put(&u32::from(host.port()).to_be_bytes());
    }
}

impl<'a> Record<'a> {
    /// Reads the record at the start of `bytes`, without checking its body's checksum.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let mut reader = Reader { bytes, at: 0 };
        let len = reader.u32("size")? as usize;
        let magic = reader.u32("magic")?;
        let is_v2 = match magic {
            MAGIC_V1 => false,
            MAGIC_V2 => true,
            other => return Err(RecordError::Magic(other)),
        };
        let body_crc = reader.u32("checksum")?;
        let queue_id = QueueId::from_wire(reader.u32("queue id")? as i32);
        let flag = reader.u32("flag")? as i32;
        let queue_offset = QueueOffset(reader.u64("queue offset")?);
        let at = LogOffset(reader.u64("log offset")?);
        let sys_flag = SysFlag(reader.u32("sys flag")? as i32);
        let born_ms = reader.u64("born time")? as i64;
        let born_host = reader.host(sys_flag.has(SysFlag::BORN_HOST_V6))?;
        let stored_ms = reader.u64("store time")? as i64;
        let store_host = reader.host(sys_flag.has(SysFlag::STORE_HOST_V6))?;
        let reconsume_times = reader.u32("reconsume times")? as i32;
        let prepared_at = LogOffset(reader.u64("prepared offset")?);
        let body_len = reader.u32("body length")? as usize;
        let body = reader.take(body_len, "body")?;
        let topic_len = if is_v2 {
            usize::from(u16::from_be_bytes(reader.array("topic length")?))
        } else {
            usize::from(reader.array::<1>("topic length")?[0])
        };
        let topic = std::str::from_utf8(reader.take(topic_len, "topic")?);
        let properties_len = usize::from(u16::from_be_bytes(reader.array("properties length")?));
        let properties = reader.take(properties_len, "properties")?;
        if reader.at != len {
            return Err(RecordError::Length { stated: len, found: reader.at });
        }
        Ok(Self {
            len,
            body_crc,
            queue_id: queue_id.ok_or(RecordError::Field)?,
            flag,
            queue_offset,
            at,
            sys_flag,
            born_ms,
            born_host,
            stored_ms,
            store_host,
            reconsume_times,
            prepared_at,
            body,
            topic: topic.map_err(|_| RecordError::Field)?,
            properties,
        })
    }

    /// Compares the body with its checksum.
    pub fn check_body(&self) -> Result<(), RecordError> {
        let found = body_crc(self.body);
        if found == self.body_crc {
            return Ok(());
        }
        Err(RecordError::Crc { stated: self.body_crc, found })
    }

    /// The message of this record, to be stored again.
    #[must_use]
    pub fn to_message(&self) -> Message<'a> {
        Message {
            topic: self.topic,
            queue_id: self.queue_id,
            flag: self.flag,
            sys_flag: self.sys_flag,
            born_ms: self.born_ms,
            born_host: self.born_host,
            store_host: self.store_host,
            reconsume_times: self.reconsume_times,
            prepared_at: self.prepared_at,
            body: self.body,
            properties: self.properties,
            key_places: None,
            tags_code: 0,
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], RecordError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..len).ok_or(RecordError::Truncated(what))?;
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], RecordError> {
        Ok(self.take(N, what)?.try_into().expect("as many bytes as were asked for"))
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, RecordError> {
        self.array(what).map(u32::from_be_bytes)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, RecordError> {
        self.array(what).map(u64::from_be_bytes)
    }

    fn host(&mut self, is_v6: bool) -> Result<SocketAddr, RecordError> {
        let ip: IpAddr =
            if is_v6 { self.array::<16>("host")?.into() } else { self.array::<4>("host")?.into() };
        Ok(SocketAddr::new(ip, self.u32("port")? as u16))
    }
}
