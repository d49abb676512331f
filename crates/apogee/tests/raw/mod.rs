//! Requests as bytes, and their answers.

#![allow(dead_code, reason = "each test uses a part")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::server::Server;

pub fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(&server.addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

pub fn frame(header: &str, body: &[u8]) -> Vec<u8> {
    let mut frame = ((header.len() + body.len()) as u32 + 4).to_be_bytes().to_vec();
    frame.extend_from_slice(&(header.len() as u32).to_be_bytes());
    frame.extend_from_slice(header.as_bytes());
    frame.extend_from_slice(body);
    frame
}

/// The header of the next response.
pub fn answer(stream: &mut TcpStream) -> serde_json::Value {
    whole_answer(stream).0
}

/// The header of what comes next; `None` once the server is gone.
pub fn next_answer(stream: &mut TcpStream) -> Option<serde_json::Value> {
    stream.peek(&mut [0]).is_ok_and(|len| 0 < len).then(|| answer(stream))
}

/// Header and body of what comes next.
pub fn whole_answer(stream: &mut TcpStream) -> (serde_json::Value, Vec<u8>) {
    let mut lengths = [0; 8];
    stream.read_exact(&mut lengths).unwrap();
    let len = u32::from_be_bytes(lengths[..4].try_into().unwrap()) as usize;
    let mut rest = vec![0; len - 4];
    stream.read_exact(&mut rest).unwrap();
    let header_len = u32::from_be_bytes([0, lengths[5], lengths[6], lengths[7]]) as usize;
    let body = rest.split_off(header_len);
    (serde_json::from_slice(&rest).unwrap(), body)
}

pub fn send(topic: &str, queue: i32, body: &[u8]) -> Vec<u8> {
    send_as(topic, queue, r#""i":"","f":"0","m":"false""#, body)
}

/// Sends with these properties, sys flag and kind.
pub fn send_as(topic: &str, queue: i32, fields: &str, body: &[u8]) -> Vec<u8> {
    let header = format!(
        r#"{{"code":310,"opaque":1,"extFields":{{"a":"g","b":"{topic}","c":"TBW102","d":"4",
            "e":"{queue}","g":"1","h":"0",{fields}}}}}"#
    );
    frame(&header, body)
}

/// A batch of so many messages of 100 bytes, with these properties and sys flag.
pub fn send_batch(count: usize, properties: &str, sys_flag: i32) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..count {
        body.extend_from_slice(&122_u32.to_be_bytes());
        body.extend_from_slice(&[0; 12]);
        body.extend_from_slice(&100_u32.to_be_bytes());
        body.extend_from_slice(&[b'x'; 100]);
        body.extend_from_slice(&[0; 2]);
    }
    let fields = format!(r#""i":"{properties}","f":"{sys_flag}","m":"true""#);
    send_as("good", 0, &fields, &body)
}

pub fn send_to(topic: &str) -> Vec<u8> {
    send(topic, 0, b"x")
}

pub fn pull(group: &str, topic: &str, queue: i32, offset: i64) -> Vec<u8> {
    pull_as(group, topic, queue, offset, "*", 4, Duration::ZERO)
}

/// Pulls what has one of these tags. Bits of `sys_flag`: 2 waits for so long, 4 brings the tags.
pub fn pull_as(
    group: &str,
    topic: &str,
    queue: i32,
    offset: i64,
    tags: &str,
    sys_flag: i32,
    suspend: Duration,
) -> Vec<u8> {
    let suspend = suspend.as_millis();
    let header = format!(
        r#"{{"code":11,"opaque":2,"extFields":{{"consumerGroup":"{group}","topic":"{topic}",
            "queueId":"{queue}","queueOffset":"{offset}","maxMsgNums":"32","sysFlag":"{sys_flag}",
            "commitOffset":"0","suspendTimeoutMillis":"{suspend}","subscription":"{tags}",
            "subVersion":"0"}}}}"#
    );
    frame(&header, b"")
}

pub fn create_topic(topic: &str, attributes: &str) -> Vec<u8> {
    create_topic_as(topic, false, attributes)
}

pub fn create_topic_as(topic: &str, order: bool, attributes: &str) -> Vec<u8> {
    let header = format!(
        r#"{{"code":17,"opaque":1,"extFields":{{"topic":"{topic}","defaultTopic":"TBW102",
            "readQueueNums":"4","writeQueueNums":"4","perm":"6","topicFilterType":"SINGLE_TAG",
            "topicSysFlag":"0","order":"{order}","attributes":"{attributes}"}}}}"#
    );
    frame(&header, b"")
}

pub fn delete_topic(topic: &str) -> Vec<u8> {
    let header = format!(r#"{{"code":215,"opaque":1,"extFields":{{"topic":"{topic}"}}}}"#);
    frame(&header, b"")
}

/// Asks, and returns code and remark.
pub fn ask(stream: &mut TcpStream, request: &[u8]) -> (i64, String) {
    stream.write_all(request).unwrap();
    let answer = answer(stream);
    (answer["code"].as_i64().unwrap(), answer["remark"].as_str().unwrap_or_default().to_owned())
}
