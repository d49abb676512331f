//! Where the floor lies: a server that does next to nothing, and a loop that only syncs.
//!
//! The server walks the header, computes the checksum, copies the record into memory that was
//! touched before, under one mutex, and writes the answer; with `--sync` it brings the record to
//! the device before. A thread serves a connection, reads block. It keeps nothing and is no broker.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use apogee_types::config::Perm;
use apogee_types::record;
use apogee_types::route::{BrokerData, ClusterInfo, QueueData, TopicRouteData};
use apogee_types::{LogOffset, Message, QueueId, QueueOffset, SysFlag, json};
use apogee_wire::output::Output;
use apogee_wire::remoting::header::ResponseHead;
use apogee_wire::remoting::requests::{
    GetBrokerClusterInfo, GetMaxOffset, GetMinOffset, GetRouteInfoByTopic, OffsetResponse,
};
use apogee_wire::remoting::{Fields, Header, Request, ResponseCode, frame};

use super::args::FsyncLoopArgs;
use super::report;
use super::tally::Times;

const NAME: &str = "floor";
const QUEUES: i32 = 8;
const LOG_LEN: usize = 256 << 20;
const FRAME_LEN_MAX: usize = 16 << 20;

/// Records one after the other; starts again when it is full.
struct Log {
    bytes: Vec<u8>,
    end: usize,
    count: u64,
    /// Takes each record before it is acknowledged.
    synced: Option<SyncedFile>,
}

struct Floor {
    log: Mutex<Log>,
    addr: SocketAddr,
}

pub fn serve(port: u16, sync: Option<&Path>) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let addr = listener.local_addr()?;
    let synced = sync.map(SyncedFile::create).transpose()?;
    let log = Log { bytes: vec![1; LOG_LEN], end: 0, count: 0, synced };
    let floor = Arc::new(Floor { log: Mutex::new(log), addr });
    report::print(&format!("the floor listens on {addr}, process {}", std::process::id()));
    for stream in listener.incoming() {
        let (floor, stream) = (Arc::clone(&floor), stream?);
        // A connection that breaks is a client that has gone.
        std::thread::spawn(move || floor.connection(stream).ok());
    }
    Ok(())
}

/// What the floor reads of the header of a send.
#[derive(Default)]
struct Send<'a> {
    topic: &'a str,
    queue_id: i32,
    born_ms: i64,
    properties: &'a str,
    opaque: u64,
}

impl<'a> Send<'a> {
    /// Walks the whole header once; `None` if it is not of a send. `unescaped` is scratch space.
    fn walk(header: &'a [u8], unescaped: &'a mut String) -> Option<Self> {
        let text = std::str::from_utf8(header).ok()?;
        text.starts_with("{\"code\":310,").then_some(())?;
        let (mut send, mut properties) = (Self::default(), "");
        let mut rest = &text["{\"code\":310,".len()..];
        while let Some((name, after)) = quoted(rest) {
            let value;
            (value, rest) = match after.strip_prefix(":\"") {
                Some(_) => quoted(&after[1..])?,
                None => after[1..].split_once([',', '}', '{'])?,
            };
            match name {
                "b" => send.topic = value,
                "e" => send.queue_id = value.parse().ok()?,
                "g" => send.born_ms = value.parse().ok()?,
                "i" => properties = value,
                "opaque" => send.opaque = value.parse().ok()?,
                _ => {}
            }
        }
        unescaped.clear();
        let mut parts = properties.split("\\u000");
        unescaped.push_str(parts.next()?);
        for part in parts {
            let digit = part.bytes().next()?;
            unescaped.push(char::from(digit - b'0'));
            unescaped.push_str(&part[1..]);
        }
        send.properties = unescaped;
        Some(send)
    }
}

/// The first quoted text and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let start = 1 + bytes.iter().position(|&byte| byte == b'"')?;
    let mut end = start;
    while bytes.get(end)? != &b'"' {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    Some((&text[start..end], &text[end + 1..]))
}

const HEX: [u8; 16] = *b"0123456789ABCDEF";

fn put_int(out: &mut Vec<u8>, value: u64) {
    if 9 < value {
        put_int(out, value / 10);
    }
    out.push(HEX[(value % 10) as usize]);
}

impl Floor {
    fn connection(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        stream.set_nodelay(true)?;
        let peer = stream.peer_addr()?;
        let (mut input, mut end) = (vec![0; 1 << 20], 0);
        let mut output = Output::default();
        let mut properties = String::new();
        loop {
            let len = stream.read(&mut input[end..])?;
            if len == 0 {
                return Ok(());
            }
            end += len;
            let mut start = 0;
            while let Some(frame) = frame::split(&input[start..end], FRAME_LEN_MAX)? {
                start += frame.len;
                match Send::walk(frame.header, &mut properties) {
                    Some(send) => self.store(&send, frame.body, peer, &mut output.bytes)?,
                    None => self.answer(&frame, &mut output)?,
                }
            }
            input.copy_within(start..end, 0);
            end -= start;
            if end == input.len() {
                input.resize(2 * end, 0);
            }
            stream.write_all(&output.bytes)?;
            output.clear();
        }
    }

    /// Everything but a send, which only happens before a load.
    fn answer(&self, frame: &frame::FrameRef<'_>, output: &mut Output) -> anyhow::Result<()> {
        let mut index = Vec::new();
        let header = Header::parse(frame, &mut index)?;
        let mut body = Vec::new();
        let (code, encoding) = (ResponseCode::SUCCESS, frame.encoding);
        let head = ResponseHead { encoding, code, opaque: header.opaque, remark: None };
        if header.code == GetRouteInfoByTopic::INFO.code {
            body = json::write_standard(&self.route());
        } else if header.code == GetBrokerClusterInfo::INFO.code {
            body = json::write_standard(&self.cluster());
        } else if [GetMinOffset::INFO.code, GetMaxOffset::INFO.code].contains(&header.code) {
            head.write(output, |put| OffsetResponse { offset: 0 }.encode(put), |_| {});
            return Ok(());
        }
        head.write(output, |_| {}, |out| out.bytes.extend_from_slice(&body));
        Ok(())
    }

    fn store(
        &self,
        send: &Send<'_>,
        body: &[u8],
        peer: SocketAddr,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let message = Message {
            topic: send.topic,
            queue_id: QueueId::from_wire(send.queue_id).unwrap_or_default(),
            flag: 0,
            sys_flag: SysFlag::default(),
            born_ms: send.born_ms,
            born_host: peer,
            store_host: self.addr,
            reconsume_times: 0,
            prepared_at: LogOffset(0),
            body,
            properties: send.properties.as_bytes(),
            key_places: None,
            tags_code: 0,
        };
        let crc = record::body_crc(body);
        let (at, offset) = self.append(&message, crc)?;
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(b"{\"code\":0,\"extFields\":{\"queueId\":\"");
        put_int(out, send.queue_id as u64);
        out.extend_from_slice(b"\",\"TRACE_ON\":\"true\",\"MSG_REGION\":\"DefaultRegion\",");
        out.extend_from_slice(b"\"msgId\":\"7F00000100002A9F");
        (0..16).for_each(|digit| out.push(HEX[at >> (60 - 4 * digit) & 15]));
        out.extend_from_slice(b"\",\"queueOffset\":\"");
        put_int(out, offset);
        out.extend_from_slice(b"\"},\"flag\":1,\"language\":\"JAVA\",\"opaque\":");
        put_int(out, send.opaque);
        out.extend_from_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":513}");
        let header_len = (out.len() - start - 8) as u32;
        out[start..start + 4].copy_from_slice(&(header_len + 4).to_be_bytes());
        out[start + 4..start + 8].copy_from_slice(&header_len.to_be_bytes());
        Ok(())
    }

    fn append(&self, message: &Message<'_>, crc: u32) -> io::Result<(usize, u64)> {
        let len = record::encoded_len(message);
        let mut log = self.log.lock().expect("nobody panics while holding it");
        let log = &mut *log;
        if log.bytes.len() < log.end + len {
            log.end = 0;
        }
        let (at, count) = (log.end, log.count);
        let place = (QueueOffset(count), LogOffset(at as u64), message.born_ms);
        let mut end = at;
        record::encode(message, crc, place, |part| {
            log.bytes[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        });
        (log.end, log.count) = (end, count + 1);
        if let Some(file) = &mut log.synced {
            file.append(&log.bytes[at..end])?;
        }
        Ok((at, count))
    }

    fn broker(&self) -> BrokerData {
        BrokerData {
            broker_addrs: [(BrokerData::MASTER_ID, self.addr.to_string().into())].into(),
            broker_name: NAME.into(),
            cluster: NAME.into(),
            ..BrokerData::default()
        }
    }

    /// Every topic has its queues here.
    fn route(&self) -> TopicRouteData {
        let queues = QueueData {
            broker_name: NAME.into(),
            perm: Perm::READ_WRITE,
            read_queue_count: QUEUES,
            topic_sys_flag: 0,
            write_queue_count: QUEUES,
        };
        let queue_datas = vec![queues];
        TopicRouteData { broker_datas: vec![self.broker()], queue_datas, ..Default::default() }
    }

    fn cluster(&self) -> ClusterInfo {
        ClusterInfo {
            broker_addr_table: [(NAME.into(), self.broker())].into(),
            cluster_addr_table: [(NAME.into(), vec![NAME.into()])].into(),
        }
    }
}

/// Takes appends, each of which it syncs; starts again when it is full. It was written page by page
/// before, so that the device gets a page and no metadata each time, which is the best that a log
/// can do.
struct SyncedFile {
    file: File,
    end: u64,
}

impl SyncedFile {
    const LEN: u64 = 64 << 20;

    /// Makes it in `dir`, where it is deleted at once: it lives as long as it is open.
    fn create(dir: &Path) -> io::Result<Self> {
        const PAGE: usize = 4096;
        let path = dir.join(format!("fsync-loop-{}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(&path)?;
        for at in (0..Self::LEN).step_by(PAGE) {
            file.write_all_at(&[1; PAGE], at)?;
        }
        file.sync_all()?;
        Ok(Self { file, end: 0 })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if Self::LEN < self.end + bytes.len() as u64 {
            self.end = 0;
        }
        self.file.write_all_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        self.file.sync_data()
    }
}

/// Appends and syncs.
pub fn fsync_loop(args: &FsyncLoopArgs) -> anyhow::Result<()> {
    crate::machine::hurry_this_thread();
    let mut file = SyncedFile::create(&args.dir)?;
    let bytes = vec![7; args.size];
    let mut times = Times::default();
    let mut count = 0_u64;
    let started = Instant::now();
    let mut before = Duration::ZERO;
    while before < args.duration {
        file.append(&bytes)?;
        let now = started.elapsed();
        times.record((now - before).as_nanos() as u64);
        (before, count) = (now, count + 1);
    }
    let rate = count as f64 / before.as_secs_f64();
    report::print(&report::loop_text(rate, &times, args));
    Ok(())
}
