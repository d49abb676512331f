//! The few requests of the remoting protocol that tell whether a server is there.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::peers::Queue;

const ANSWER_WAIT_MAX: Duration = Duration::from_secs(3);

/// A connection on which one question after the other is asked.
pub struct Questions(TcpStream);

impl Questions {
    /// `None` if nobody listens.
    pub fn connect(addr: &str) -> Option<Self> {
        let stream = TcpStream::connect(addr).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(ANSWER_WAIT_MAX)).ok()?;
        Some(Self(stream))
    }

    /// The code that a name server answers to a request for a route.
    pub fn route_code(&mut self, topic: &str) -> Option<i64> {
        self.ask(105, json!({ "topic": topic }))?.get("code")?.as_i64()
    }

    /// The offset that the next message of a queue will get.
    pub fn next_offset(&mut self, queue: &Queue) -> Option<u64> {
        let fields = json!({ "topic": queue.topic, "queueId": queue.id.to_string() });
        self.ask(30, fields)?["extFields"]["offset"].as_str()?.parse().ok()
    }

    /// Sends a message to the first queue; returns where in the log it is.
    pub fn send(&mut self, topic: &str, body: &str) -> Option<u64> {
        let fields = json!({
            "a": "apogee-bench", "b": topic, "c": "TBW102", "d": "4", "e": "0", "f": "0",
            "g": "1795541560002", "h": "0", "i": "WAIT\u{1}true", "j": "0", "k": "false",
            "m": "false",
        });
        let answer = self.ask_with(310, fields, body.as_bytes())?;
        // Address and port of the broker, 16 digits, and the offset.
        let id = answer["extFields"]["msgId"].as_str()?;
        u64::from_str_radix(id.get(id.len().checked_sub(16)?..)?, 16).ok()
    }

    fn ask(&mut self, code: i32, fields: Value) -> Option<Value> {
        self.ask_with(code, fields, &[])
    }

    /// The header of the answer.
    fn ask_with(&mut self, code: i32, fields: Value, body: &[u8]) -> Option<Value> {
        let header = json!({ "code": code, "extFields": fields, "flag": 0, "opaque": 1 });
        let header = header.to_string().into_bytes();
        let len = header.len() as u32;
        let prefix = [(4 + len + body.len() as u32).to_be_bytes(), len.to_be_bytes()];
        self.0.write_all(&[&prefix.concat(), &header[..], body].concat()).ok()?;
        let mut prefix = [0; 8];
        self.0.read_exact(&mut prefix).ok()?;
        let [l0, l1, l2, l3, _, h0, h1, h2] = prefix;
        let len = u32::from_be_bytes([l0, l1, l2, l3]).checked_sub(4)?;
        let mut rest = vec![0; len as usize];
        self.0.read_exact(&mut rest).ok()?;
        let header_len = u32::from_be_bytes([0, h0, h1, h2]) as usize;
        serde_json::from_slice(rest.get(..header_len)?).ok()
    }
}
