//! Bytes that no client would send: answered or cut off, and nobody else notices.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "raw sockets are its input")]

mod server;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use server::Server;

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(&server.addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn frame(header: &str) -> Vec<u8> {
    let mut frame = (header.len() as u32 + 4).to_be_bytes().to_vec();
    frame.extend_from_slice(&(header.len() as u32).to_be_bytes());
    frame.extend_from_slice(header.as_bytes());
    frame
}

/// The header of the next response.
fn answer(stream: &mut TcpStream) -> serde_json::Value {
    let mut lengths = [0; 8];
    stream.read_exact(&mut lengths).unwrap();
    let len = u32::from_be_bytes(lengths[..4].try_into().unwrap()) as usize;
    let mut rest = vec![0; len - 4];
    stream.read_exact(&mut rest).unwrap();
    let header_len = u32::from_be_bytes([0, lengths[5], lengths[6], lengths[7]]) as usize;
    serde_json::from_slice(&rest[..header_len]).unwrap()
}

fn send_to(topic: &str) -> Vec<u8> {
    frame(&format!(
        r#"{{"code":310,"opaque":1,"extFields":{{"a":"g","b":"{topic}","c":"TBW102","d":"4",
            "e":"0","f":"0","g":"1","h":"0","i":"","m":"false"}}}}"#
    ))
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
