//! Responses that wait for the device: written in log order, released by the flushed watermark.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use apogee_store::Watermark;
use apogee_types::LogOffset;
use apogee_wire::output::Output;
use apogee_wire::remoting::header::ResponseHead;
use apogee_wire::remoting::{HeaderEncoding, ResponseCode};

/// Responses that one connection may have waiting; past it the peer's requests wait unread.
const COUNT_MAX: usize = 64 * 1024;

/// Encoded responses of one connection, in the order of what they acknowledge.
///
/// `bytes` holds the responses of `queue` one after the other.
#[derive(Default)]
pub struct Pending {
    queue: VecDeque<Response>,
    output: Output,
}

struct Response {
    end: LogOffset,
    len: usize,
    opaque: i32,
}

impl Pending {
    /// Keeps what `write` appends until the log is on the device up to `end`.
    pub fn push(&mut self, end: LogOffset, opaque: i32, write: impl FnOnce(&mut Output)) {
        let before = self.output.bytes.len();
        write(&mut self.output);
        let len = self.output.bytes.len() - before;
        self.queue.push_back(Response { end, len, opaque });
    }

    #[must_use]
    pub fn is_full(&self) -> bool {
        COUNT_MAX <= self.queue.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Appends the responses whose time has come, and registers for the next one. Whether any
    /// were released.
    pub fn release(
        &mut self,
        cx: &mut Context<'_>,
        flushed: &Watermark,
        output: &mut Output,
    ) -> bool {
        let mut released = 0;
        let mut failed = false;
        while let Some(response) = self.queue.front() {
            match flushed.poll_reached(cx, response.end) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => released += response.len,
                Poll::Ready(Err(_)) => {
                    failed = true;
                    break;
                }
            }
            self.queue.pop_front();
        }
        output.bytes.extend_from_slice(&self.output.bytes[..released]);
        self.output.bytes.drain(..released);
        if failed {
            self.refuse_all(output);
        }
        0 < released || failed
    }

    /// The device failed: nothing that still waits may be acknowledged.
    fn refuse_all(&mut self, output: &mut Output) {
        self.output.clear();
        for response in self.queue.drain(..) {
            let head = ResponseHead {
                encoding: HeaderEncoding::Json,
                code: ResponseCode::SYSTEM_ERROR,
                opaque: response.opaque,
                remark: Some("the device failed to take the message; this broker takes no more"),
            };
            head.write(output, |_| {}, |_| {});
        }
    }
}
