//! The pump between a stream and a session: one read, one write a batch.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use apogee_types::limits::FRAME_LEN_MAX;
use apogee_wire::output::Output;
use apogee_wire::remoting::frame::{self, FrameError, FrameRef};
use tokio::io::ReadBuf;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::admission::FREE_LEN;
use crate::{Admission, Outbox, Stream};

/// One side of a connection: what to do with frames. Servers and clients are the two kinds.
pub trait Session: Send {
    /// Takes a frame; what can be answered at once goes to `output`. An error closes the
    /// connection.
    fn on_frame(&mut self, frame: &FrameRef<'_>, output: &mut Output) -> Result<(), Closed>;

    /// All frames that one read brought were taken; their answers are about to be written.
    fn after_batch(&mut self, _output: &mut Output) {}

    /// Appends answers that became ready since, and registers to be woken for the others.
    fn poll_ready(&mut self, _cx: &mut Context<'_>, _output: &mut Output) {}

    /// `false` while the session holds so much that the peer should wait.
    fn wants_more(&self) -> bool {
        true
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    #[error("the peer closed the connection")]
    ByPeer,
    #[error("we closed the connection")]
    ByUs,
    #[error("nothing was read or written for {0:?}")]
    Idle(Duration),
    #[error("a frame was not complete after {0:?}")]
    TooSlow(Duration),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Protocol(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Upstream's `serverChannelMaxIdleTimeSeconds`.
const IDLE: Duration = Duration::from_secs(120);
/// How long one frame may take to arrive: 16 MiB at 280 KiB/s.
const FRAME_TIME: Duration = Duration::from_secs(60);
/// How long to wait before asking again for memory that others use.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// A connection begins with a buffer this small, so that thousands of idle ones cost little.
const READ_LEN_MIN: usize = 4 * 1024;
/// What one read may bring at most, unless a frame is longer.
const READ_LEN_MAX: usize = 256 * 1024;

/// Moves frames until the connection ends, and says why it did.
pub async fn pump(
    mut stream: Box<dyn Stream>,
    session: &mut dyn Session,
    outbox: &Outbox,
    admission: &Arc<Admission>,
) -> Closed {
    let mut pump = Pump {
        stream: &mut *stream,
        input: Input::new(Arc::clone(admission)),
        output: Output::default(),
        heard: Instant::now(),
    };
    let closed = match pump.run(session, outbox).await {
        Err(closed) => closed,
        Ok(never) => match never {},
    };
    outbox.close();
    closed
}

enum Never {}

struct Pump<'s> {
    stream: &'s mut dyn Stream,
    input: Input,
    output: Output,
    /// When bytes last moved in either direction.
    heard: Instant,
}

impl Pump<'_> {
    async fn run(&mut self, session: &mut dyn Session, outbox: &Outbox) -> Result<Never, Closed> {
        let mut timer = pin!(sleep_until(Instant::now() + IDLE));
        loop {
            self.next(session, outbox, timer.as_mut()).await?;
            self.take_frames(session)?;
            session.after_batch(&mut self.output);
            if !self.output.is_empty() {
                self.write().await?;
            }
        }
    }

    /// Waits until there is something to take or to write.
    async fn next(
        &mut self,
        session: &mut dyn Session,
        outbox: &Outbox,
        mut timer: Pin<&mut Sleep>,
    ) -> Result<(), Closed> {
        poll_fn(|cx| {
            session.poll_ready(cx, &mut self.output);
            let is_open = outbox.drain(cx, &mut self.output);
            // What was put before the close is written before it.
            if !self.output.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if !is_open {
                return Poll::Ready(Err(Closed::ByUs));
            }
            if session.wants_more() {
                if !self.input.has_room() {
                    timer.as_mut().reset(Instant::now() + BUSY_PAUSE);
                } else if let Poll::Ready(read) = self.input.poll_read(cx, self.stream) {
                    return Poll::Ready(read.map(|()| self.heard = Instant::now()));
                }
            }
            ready!(timer.as_mut().poll(cx));
            Poll::Ready(self.on_timer(timer.as_mut()))
        })
        .await
    }

    /// The timer fired: too long idle, or a frame too slow; else sets it anew.
    fn on_timer(&mut self, timer: Pin<&mut Sleep>) -> Result<(), Closed> {
        let now = Instant::now();
        if self.heard + IDLE <= now {
            return Err(Closed::Idle(IDLE));
        }
        let mut next = self.heard + IDLE;
        if let Some(since) = self.input.partial_since {
            if since + FRAME_TIME <= now {
                return Err(Closed::TooSlow(FRAME_TIME));
            }
            next = next.min(since + FRAME_TIME);
        }
        self.input.shrink();
        timer.reset(next);
        Ok(())
    }

    fn take_frames(&mut self, session: &mut dyn Session) -> Result<(), Closed> {
        let mut taken = 0;
        while let Some(frame) = frame::split(&self.input.filled()[taken..], FRAME_LEN_MAX)? {
            session.on_frame(&frame, &mut self.output)?;
            taken += frame.len;
        }
        self.input.consume(taken);
        Ok(())
    }

    /// Writes all of the output, with one call if the socket takes it.
    async fn write(&mut self) -> Result<(), Closed> {
        let mut written = 0;
        while written < self.output.len() {
            let write = poll_fn(|cx| self.poll_write(cx, written));
            let len = tokio::time::timeout(IDLE, write).await.map_err(|_| Closed::Idle(IDLE))??;
            if len == 0 {
                return Err(Closed::ByPeer);
            }
            written += len;
            self.heard = Instant::now();
        }
        self.output.clear();
        Ok(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, from: usize) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(b""); 64];
        let count = self.output.slices(from, &mut slices);
        let stream = Pin::new(&mut *self.stream);
        if count == 1 {
            return stream.poll_write(cx, &slices[0]);
        }
        stream.poll_write_vectored(cx, &slices[..count])
    }
}

/// Bytes that were read and not yet taken.
struct Input {
    bytes: Vec<u8>,
    /// `bytes[..len]` were read; the rest is room.
    len: usize,
    admission: Arc<Admission>,
    /// How much of `bytes` was taken from the shared budget.
    admitted: usize,
    /// The last read filled the buffer: more was waiting.
    was_full: bool,
    /// When the frame at the start began to arrive, if it is not complete.
    partial_since: Option<Instant>,
}

impl Input {
    fn new(admission: Arc<Admission>) -> Self {
        let bytes = Vec::new();
        Self { bytes, len: 0, admission, admitted: 0, was_full: true, partial_since: None }
    }

    fn filled(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Makes room to read into; `false` if there is none and no memory for it now.
    ///
    /// A buffer that was filled doubles: so it follows what really arrives and not what the
    /// length of a frame promises.
    fn has_room(&mut self) -> bool {
        let is_full = self.len == self.bytes.len();
        if is_full || (self.was_full && self.bytes.len() < READ_LEN_MAX) {
            let target = (self.bytes.len() * 2).clamp(READ_LEN_MIN, 2 * FRAME_LEN_MAX);
            let extra = target.saturating_sub(FREE_LEN) - self.admitted;
            if !self.admission.take(extra) {
                return !is_full;
            }
            self.admitted += extra;
            self.bytes.resize(target, 0);
        }
        true
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut dyn Stream,
    ) -> Poll<Result<(), Closed>> {
        let mut buffer = ReadBuf::new(&mut self.bytes[self.len..]);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        let read = buffer.filled().len();
        if read == 0 {
            return Poll::Ready(Err(Closed::ByPeer));
        }
        self.len += read;
        self.was_full = self.len == self.bytes.len();
        Poll::Ready(Ok(()))
    }

    /// Drops the first `count` bytes.
    fn consume(&mut self, count: usize) {
        self.bytes.copy_within(count..self.len, 0);
        self.len -= count;
        if self.len == 0 {
            self.partial_since = None;
        } else if self.partial_since.is_none() || 0 < count {
            self.partial_since = Some(Instant::now());
        }
        if READ_LEN_MAX < self.bytes.len() {
            self.shrink();
        }
    }

    /// Gives back the buffer if nothing is in it.
    fn shrink(&mut self) {
        if self.len == 0 {
            self.bytes = Vec::new();
            self.admission.give_back(std::mem::take(&mut self.admitted));
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.admission.give_back(self.admitted);
    }
}
