//! Responses that wait for the disk: for the log, in log order, or for a topic that was created.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use apogee_broker::created::Created;
use apogee_store::Watermark;
use apogee_types::LogOffset;
use apogee_wire::output::Output;
use apogee_wire::remoting::header::{ResponseHead, recode};
use apogee_wire::remoting::{HeaderEncoding, ResponseCode};
use tokio::time::{Instant, Sleep, sleep_until};

/// Responses that one connection may have waiting; past it the peer's requests wait unread.
const COUNT_MAX: usize = 64 * 1024;
/// Upstream's default of `syncFlushTimeout`.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Encoded responses of one connection, in the order of what they acknowledge.
///
/// `output` holds the responses of `queue` one after the other.
pub struct Pending {
    queue: VecDeque<Response>,
    output: Output,
    /// `syncFlushTimeout`.
    timeout: Duration,
    /// Set to the deadline of the first response, while there is one.
    timer: Option<Pin<Box<Sleep>>>,
}

/// What the disk must have before a response is given; by default nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Until {
    /// The device has the log up to there.
    pub flushed: LogOffset,
    /// Topics and groups are written up to this creation or change.
    pub created: u64,
}

impl Until {
    /// The files have that creation or change.
    #[must_use]
    pub fn created(created: u64) -> Self {
        Self { created, ..Self::default() }
    }
}

struct Response {
    until: Until,
    /// When the answer is given although the disk does not have it.
    deadline: Instant,
    len: usize,
    opaque: i32,
}

impl Default for Pending {
    fn default() -> Self {
        Self::new(TIMEOUT)
    }
}

impl Pending {
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self { queue: VecDeque::new(), output: Output::default(), timeout, timer: None }
    }

    /// Keeps what `write` appends until the disk has what it promises.
    pub fn push(&mut self, until: Until, opaque: i32, write: impl FnOnce(&mut Output)) {
        let before = self.output.bytes.len();
        write(&mut self.output);
        let len = self.output.bytes.len() - before;
        let deadline = Instant::now() + self.timeout;
        self.queue.push_back(Response { until, deadline, len, opaque });
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
        created: &Created,
        output: &mut Output,
    ) -> bool {
        let mut released = 0;
        let mut failed = false;
        while let Some(response) = self.queue.front() {
            match flushed.poll_reached(cx, response.until.flushed) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => {
                    if created.poll_written(cx, response.until.created).is_pending() {
                        break;
                    }
                    released += response.len;
                }
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
        let is_late = self.release_late(cx, output);
        0 < released || failed || is_late
    }

    /// Answers those that have waited too long: stored, but not on the device. Whether there were
    /// any; else sets the timer for the first.
    fn release_late(&mut self, cx: &mut Context<'_>, output: &mut Output) -> bool {
        let before = output.bytes.len();
        let mut late = 0;
        while let Some(response) = self.queue.front() {
            let first = response.deadline;
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(first)));
            if timer.deadline() != first {
                timer.as_mut().reset(first);
            }
            if timer.as_mut().poll(cx).is_pending() {
                break;
            }
            let frame = &self.output.bytes[late..late + response.len];
            recode(frame, ResponseCode::FLUSH_DISK_TIMEOUT, &mut output.bytes);
            late += response.len;
            self.queue.pop_front();
        }
        self.output.bytes.drain(..late);
        before < output.bytes.len()
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use apogee_wire::remoting::Header;
    use apogee_wire::remoting::frame;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_for_the_device_is_told_so_with_all_fields() {
        for encoding in [HeaderEncoding::Json, HeaderEncoding::Binary] {
            let (flushed, timeout) = (Watermark::at(LogOffset(10)), Duration::from_millis(300));
            let mut pending = Pending::new(timeout);
            for (end, opaque) in [(10, 1), (20, 2), (30, 3)] {
                let code = ResponseCode::SUCCESS;
                let head = ResponseHead { encoding, code, opaque, remark: None };
                let write =
                    |out: &mut Output| head.write(out, |put| put.text("queueId", "7"), |_| {});
                let until = Until { flushed: LogOffset(end), created: 0 };
                pending.push(until, opaque, write);
            }
            let began = Instant::now();
            let mut output = Output::default();
            poll_fn(|cx| {
                pending.release(cx, &flushed, &Created::default(), &mut output);
                if pending.is_empty() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            assert_eq!(began.elapsed().as_millis(), 300);
            let (mut rest, mut codes) = (&output.bytes[..], Vec::new());
            while let Some(frame) = frame::split(rest, 1000).unwrap() {
                let mut index = Vec::new();
                let header = Header::parse(&frame, &mut index).unwrap();
                assert!(String::from_utf8_lossy(frame.header).contains("queueId"));
                codes.push((header.opaque, header.code));
                rest = &rest[frame.len..];
            }
            assert_eq!(codes, [(1, 0), (2, 10), (3, 10)]);
        }
    }
}
