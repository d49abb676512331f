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

use crate::admission::{FREE_LEN, Share};
use crate::{Admission, Lane, Outbox, Stream};

/// One side of a connection: what to do with frames. Servers and clients are the two kinds.
pub trait Session: Send {
    /// Takes a frame; what can be answered at once goes to `output`. An error closes the
    /// connection.
    fn on_frame(&mut self, frame: &FrameRef<'_>, output: &mut Output) -> Result<(), Closed>;

    /// Something arrived, perhaps only a part of a frame.
    fn on_bytes(&mut self) {}

    /// All frames that one read brought were taken; their answers are about to be written.
    fn after_batch(&mut self, _output: &mut Output) {}

    /// Whether the last batch was a part of a backlog: the peer will ask for more at once, and it
    /// may take long to get it.
    fn reads_backlog(&mut self) -> bool {
        false
    }

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

/// How long one frame may take to arrive: 16 MiB at 280 KiB/s.
const FRAME_TIME: Duration = Duration::from_secs(60);
/// How long to wait before asking again for memory that others use.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// A connection begins with a buffer this small, so that thousands of idle ones cost little.
const READ_LEN_MIN: usize = 2 * 1024;
/// What one read may bring at most, unless a frame is longer.
const READ_LEN_MAX: usize = 256 * 1024;
/// Answers beyond this are written before further requests are taken: a small request can have an
/// answer a thousand times as long, and a peer may send thousands without reading.
const OUTPUT_LEN_MAX: usize = 1024 * 1024;
/// The same of what was copied: more at once than a cache holds is not written any faster.
const COPIED_LEN_MAX: usize = 192 * 1024;
/// A buffer for answers is kept up to this length: twice what is copied, since it doubles.
const OUTPUT_KEPT_LEN_MAX: usize = 512 * 1024;
/// Who is sent so many bytes at once has work to do with them.
const MUCH_LEN_MIN: usize = 4 * 1024;
/// Who reads a backlog is at its end after so many batches without.
const BACKLOG_PAUSE_MAX: u32 = 32;

/// Pieces of one write. Eight pulls of 32 records are 264; the kernel takes 1024.
const SLICES_MAX: usize = 512;

/// A peer that asks again at once is waited for awake: so often is looked for its next request,
/// which takes some 50 us. To sleep and be woken takes half as much of the processor in a virtual
/// machine, and delays the peer besides.
const LOOKS: usize = 128;
/// With a peer that takes no longer than this, as far as one who sleeps can tell, it is tried after
/// one in so many answers whether it is as quick as that.
const TRY_WITHIN: Duration = Duration::from_micros(100);
const TRY_EVERY: u32 = 32;
/// A peer stays quick with one miss in [`MISS_COST`] hits.
const CREDIT_MAX: u32 = 8;
const MISS_COST: u32 = 4;

/// Moves frames until the connection ends, for example because nothing moved for as long as `idle`,
/// and says why it did.
pub async fn pump(
    mut stream: Box<dyn Stream>,
    session: &mut dyn Session,
    outbox: &Outbox,
    admission: &Arc<Admission>,
    lane: &Lane,
    idle: Duration,
) -> Closed {
    let mut pump = Pump {
        stream: &mut *stream,
        input: Input::new(Share::new(admission)),
        output: Output::default(),
        output_share: Share::new(admission),
        heard: Instant::now(),
        quick: Quick::default(),
        lane,
        backlog_left: 0,
        idle,
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
    output_share: Share,
    /// When bytes last moved in either direction.
    heard: Instant,
    quick: Quick,
    lane: &'s Lane,
    /// More than zero while the peer reads a backlog.
    backlog_left: u32,
    idle: Duration,
}

impl Pump<'_> {
    async fn run(&mut self, session: &mut dyn Session, outbox: &Outbox) -> Result<Never, Closed> {
        let mut timer = pin!(sleep_until(Instant::now() + self.idle));
        loop {
            self.next(session, outbox, timer.as_mut()).await?;
            // Else what is to be written had to wait, for the device perhaps.
            let is_prompt = self.output.is_empty();
            let mut is_more = true;
            while is_more {
                let taken = self.take_frames(session);
                // What came before a frame that ends the connection counts.
                session.after_batch(&mut self.output);
                is_more = taken?;
                if !self.output.is_empty() {
                    let is_little = self.output.len() < MUCH_LEN_MIN;
                    if let Err(closed) = self.write().await {
                        if let Closed::Io(_) = closed {
                            self.take_rest(session).await;
                        }
                        return Err(closed);
                    }
                    self.quick.has_answered = is_prompt && is_little;
                    self.choose_lane(session.reads_backlog()).await;
                }
            }
            let limit = self.input.partial_since.map(|since| since + FRAME_TIME);
            if let Some(limit) = limit.filter(|limit| *limit < timer.deadline()) {
                timer.as_mut().reset(limit);
            }
        }
    }

    /// Goes where backlogs are served, or comes back from there.
    async fn choose_lane(&mut self, reads_backlog: bool) {
        let left = self.backlog_left.saturating_sub(1);
        self.backlog_left = if reads_backlog { BACKLOG_PAUSE_MAX } else { left };
        if self.lane.change(0 < self.backlog_left).await {
            // Without it the other runtime goes on waking us, which only takes longer.
            let _ = self.stream.move_here();
        }
    }

    /// Waits until there is something to take or to write.
    async fn next(
        &mut self,
        session: &mut dyn Session,
        outbox: &Outbox,
        mut timer: Pin<&mut Sleep>,
    ) -> Result<(), Closed> {
        if self.quick.is_likely() {
            for _ in 0..LOOKS {
                let look =
                    poll_fn(|cx| Poll::Ready(self.poll_next(cx, session, outbox, timer.as_mut())));
                if let Poll::Ready(next) = look.await {
                    self.quick.hit();
                    return next;
                }
                // The other connections' turn, and the kernel's to tell what has arrived.
                tokio::task::yield_now().await;
            }
            self.quick.missed();
        }
        poll_fn(|cx| self.poll_next(cx, session, outbox, timer.as_mut())).await
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut dyn Session,
        outbox: &Outbox,
        mut timer: Pin<&mut Sleep>,
    ) -> Poll<Result<(), Closed>> {
        session.poll_ready(cx, &mut self.output);
        let is_open = outbox.drain(cx, &mut self.output, &mut self.output_share);
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
                let before = std::mem::replace(&mut self.heard, Instant::now());
                self.quick.pause = self.heard - before;
                session.on_bytes();
                return Poll::Ready(read);
            }
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(self.on_timer(timer.as_mut()))
    }

    /// The timer fired: too long idle, or a frame too slow; else sets it anew.
    fn on_timer(&mut self, timer: Pin<&mut Sleep>) -> Result<(), Closed> {
        let now = Instant::now();
        if self.heard + self.idle <= now {
            return Err(Closed::Idle(self.idle));
        }
        let mut next = self.heard + self.idle;
        if let Some(since) = self.input.partial_since {
            if since + FRAME_TIME <= now {
                return Err(Closed::TooSlow(FRAME_TIME));
            }
            next = next.min(since + FRAME_TIME);
        }
        self.input.shrink();
        self.shrink_output();
        timer.reset(next);
        Ok(())
    }

    /// Hands over what has arrived; `true` if frames are left because so much is to be written.
    fn take_frames(&mut self, session: &mut dyn Session) -> Result<bool, Closed> {
        let mut taken = 0;
        let mut is_more = false;
        while let Some(frame) = frame::split(&self.input.filled()[taken..], FRAME_LEN_MAX)? {
            session.on_frame(&frame, &mut self.output)?;
            taken += frame.len;
            let copied = &self.output.bytes;
            is_more = OUTPUT_LEN_MAX <= self.output.len()
                || COPIED_LEN_MAX <= copied.len()
                || (FREE_LEN <= copied.len() && !self.output_share.allows(copied.capacity()));
            if is_more {
                break;
            }
        }
        self.input.consume(taken);
        Ok(is_more)
    }

    /// The peer has gone and takes no answers. What it sent before counts all the same: a consumer
    /// that stops commits its offsets and closes.
    async fn take_rest(&mut self, session: &mut dyn Session) {
        const READS_MAX: usize = 64;
        for _ in 0..READS_MAX {
            self.output.clear();
            let taken = self.take_frames(session);
            session.after_batch(&mut self.output);
            match taken {
                Ok(true) => continue,
                Ok(false) if self.input.has_room() => {}
                _ => return,
            }
            let read = poll_fn(|cx| Poll::Ready(self.input.poll_read(cx, self.stream))).await;
            if !matches!(read, Poll::Ready(Ok(()))) {
                return;
            }
        }
    }

    /// Writes all of the output, with one call if the socket takes it.
    async fn write(&mut self) -> Result<(), Closed> {
        let idle = self.idle;
        let mut written = 0;
        while written < self.output.len() {
            // Mostly the socket takes all at once, and no timer is needed.
            let tried = poll_fn(|cx| Poll::Ready(self.poll_write(cx, written))).await;
            let write = poll_fn(|cx| self.poll_write(cx, written));
            let len = match tried {
                Poll::Ready(len) => len?,
                Poll::Pending => {
                    tokio::time::timeout(idle, write).await.map_err(|_| Closed::Idle(idle))??
                }
            };
            if len == 0 {
                return Err(Closed::ByPeer);
            }
            written += len;
            self.heard = Instant::now();
        }
        self.output.clear();
        if OUTPUT_KEPT_LEN_MAX < self.output.bytes.capacity() {
            self.shrink_output();
        }
        Ok(())
    }

    fn shrink_output(&mut self) {
        self.output = Output::default();
        self.output_share.give_back();
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, from: usize) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut *self.stream);
        if let Some(bytes) = self.output.as_slice() {
            return stream.poll_write(cx, &bytes[from..]);
        }
        let mut slices = [IoSlice::new(b""); SLICES_MAX];
        let count = self.output.slices(from, &mut slices);
        stream.poll_write_vectored(cx, &slices[..count])
    }
}

/// Whether a peer sends its next request as soon as it has an answer.
#[derive(Default)]
struct Quick {
    /// All that was asked was just answered, without delay.
    has_answered: bool,
    /// How long the last request was waited for.
    pause: Duration,
    /// Answers since the last try.
    answer_count: u32,
    /// More than zero while the peer is quick.
    credit: u32,
}

impl Quick {
    /// Whether to look for the next request awake: the peer is quick, or it is time to try.
    fn is_likely(&mut self) -> bool {
        if !std::mem::take(&mut self.has_answered) {
            return false;
        }
        self.answer_count = (self.answer_count + 1) % TRY_EVERY;
        0 < self.credit || (self.answer_count == 0 && self.pause < TRY_WITHIN)
    }

    fn hit(&mut self) {
        self.credit = (self.credit + 1).min(CREDIT_MAX);
    }

    fn missed(&mut self) {
        self.credit = self.credit.saturating_sub(MISS_COST);
    }
}

/// Bytes that were read and not yet taken.
struct Input {
    bytes: Vec<u8>,
    /// `bytes[..len]` were read; the rest is room.
    len: usize,
    share: Share,
    /// The last read filled the buffer: more was waiting.
    was_full: bool,
    /// When the frame at the start began to arrive, if it is not complete.
    partial_since: Option<Instant>,
}

impl Input {
    fn new(share: Share) -> Self {
        Self { bytes: Vec::new(), len: 0, share, was_full: true, partial_since: None }
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
            if !self.share.allows(target) {
                return !is_full;
            }
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
            self.share.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};

    use crate::{Tcp, Transport, lane};

    #[test]
    fn a_peer_is_waited_for_awake_only_while_it_is_quick() {
        let (quick, slow) = (Duration::from_micros(60), Duration::from_micros(400));
        let looks_after = |state: &mut Quick, pause| {
            (state.has_answered, state.pause) = (true, pause);
            state.is_likely()
        };
        let mut state = Quick::default();
        assert!((0..1000).all(|_| !looks_after(&mut state, slow)), "never with a slow one");
        let tries = (0..10 * TRY_EVERY).filter(|_| {
            let looks = looks_after(&mut state, quick);
            if looks {
                state.missed();
            }
            looks
        });
        assert_eq!(tries.count(), 10, "now and then, if it might be quick");

        for _ in 0..CREDIT_MAX {
            state.hit();
        }
        assert!(looks_after(&mut state, slow), "it was quick so far");
        assert!(!state.is_likely(), "it has not been answered since");
        state.missed();
        assert!(looks_after(&mut state, slow), "one miss is forgiven");
        state.missed();
        assert!(!looks_after(&mut state, slow), "two are not");
    }

    /// A pipe as a connection.
    struct Pipe(DuplexStream);

    impl Stream for Pipe {
        fn local_addr(&self) -> SocketAddr {
            ([127, 0, 0, 1], 1).into()
        }

        fn peer_addr(&self) -> SocketAddr {
            self.local_addr()
        }
    }

    impl AsyncRead for Pipe {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Pipe {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write_vectored(cx, slices)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    /// Answers every frame with so many bytes.
    struct Generous {
        answer_len: usize,
        output_len_max: usize,
    }

    impl Session for Generous {
        fn on_frame(&mut self, _: &FrameRef<'_>, output: &mut Output) -> Result<(), Closed> {
            output.bytes.resize(output.bytes.len() + self.answer_len, 0);
            self.output_len_max = self.output_len_max.max(output.len());
            Ok(())
        }
    }

    const FRAME: &[u8] = b"\0\0\0\x06\0\0\0\x02{}";

    const IDLE: Duration = Duration::from_secs(90);

    async fn serve_generously(stream: DuplexStream, answer_len: usize) -> (Closed, usize) {
        serve_within(stream, answer_len, Arc::default()).await
    }

    async fn serve_within(
        stream: DuplexStream,
        answer_len: usize,
        admission: Arc<Admission>,
    ) -> (Closed, usize) {
        let mut session = Generous { answer_len, output_len_max: 0 };
        let outbox = Outbox::default();
        let pipe = Box::new(Pipe(stream));
        let closed = pump(pipe, &mut session, &outbox, &admission, &Lane::default(), IDLE).await;
        (closed, session.output_len_max)
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_a_second_is_cut_off_when_its_frame_has_had_its_time() {
        let (mut ours, theirs) = tokio::io::duplex(64);
        let served = tokio::spawn(serve_generously(theirs, 1));
        let began = Instant::now();
        ours.write_all(b"\0\x40\0\0\0\0\0\x02{}").await.unwrap();
        while ours.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(matches!(served.await.unwrap().0, Closed::TooSlow(_)));
        let took = began.elapsed().as_secs();
        assert!((60..=62).contains(&took), "after {took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_cut_off_when_the_time_that_was_set_has_passed() {
        let (_ours, theirs) = tokio::io::duplex(64);
        let began = Instant::now();
        assert!(matches!(serve_generously(theirs, 1).await.0, Closed::Idle(IDLE)));
        assert_eq!(began.elapsed().as_secs(), 90);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_much_and_reads_nothing_is_not_answered_beyond_a_bound_and_cut_off() {
        let (mut ours, theirs) = tokio::io::duplex(1 << 20);
        ours.write_all(&FRAME.repeat(5000)).await.unwrap();
        let (closed, output_len_max) = serve_generously(theirs, 256 * 1024).await;
        assert!(matches!(closed, Closed::Idle(_)), "{closed}");
        assert!(output_len_max <= COPIED_LEN_MAX + 256 * 1024, "{output_len_max} bytes");
    }

    /// Takes each frame for the next of these, and says on which thread.
    struct Reader {
        asks: std::vec::IntoIter<Ask>,
        was_backlog: bool,
        threads: mpsc::Sender<String>,
        may_go_on: mpsc::Receiver<()>,
    }

    #[derive(Clone, Copy, PartialEq)]
    enum Ask {
        Backlog,
        /// Answered only once that is allowed.
        SlowBacklog,
        Other,
    }

    impl Session for Reader {
        fn on_frame(&mut self, _: &FrameRef<'_>, output: &mut Output) -> Result<(), Closed> {
            let thread = std::thread::current().name().map(str::to_owned);
            self.threads.send(thread.unwrap()).unwrap();
            let ask = self.asks.next().unwrap();
            if ask == Ask::SlowBacklog {
                self.may_go_on.recv_timeout(Duration::from_secs(10)).unwrap();
            }
            self.was_backlog = ask != Ask::Other;
            output.bytes.push(0);
            Ok(())
        }

        fn reads_backlog(&mut self) -> bool {
            self.was_backlog
        }
    }

    #[test]
    fn who_reads_a_backlog_holds_up_nobody_and_comes_back_after_it() {
        const DOORS: &str = "doors";
        const BACKLOG: &str = "backlog";
        let runtime = |name: &str| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(1).thread_name(name).enable_all().build().unwrap()
        };
        let (doors, backlog) = (runtime(DOORS), runtime(BACKLOG));
        let mut asks = vec![Ask::Backlog, Ask::SlowBacklog];
        asks.resize(2 + BACKLOG_PAUSE_MAX as usize + 2, Ask::Other);
        let (threads, seen) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        let (taken, was_backlog) = (asks.clone().into_iter(), false);
        let mut session = Reader { asks: taken, was_backlog, threads, may_go_on };
        doors.block_on(async {
            let mut listener = Tcp::default().listen(([127, 0, 0, 1], 0).into()).await.unwrap();
            let addr = listener.local_addr().to_string();
            let mut ours = Tcp::default().dial(&addr).await.unwrap();
            let theirs = listener.accept().await.unwrap();
            let serve = |lane: Arc<Lane>| async move {
                let (outbox, admission) = (Outbox::default(), Arc::default());
                pump(theirs, &mut session, &outbox, &admission, &lane, IDLE).await;
            };
            let served = tokio::spawn(lane::run(Some(backlog.handle().clone()), serve));
            let (mut other, other_served) = tokio::io::duplex(64);
            tokio::spawn(async move { serve_generously(other_served, 1).await });
            for ask in asks {
                ours.write_all(FRAME).await.unwrap();
                if ask == Ask::SlowBacklog {
                    other.write_all(FRAME).await.unwrap();
                    other.read_exact(&mut [0]).await.unwrap();
                    go_on.send(()).unwrap();
                }
                ours.read_exact(&mut [0]).await.unwrap();
            }
            drop(ours);
            served.await.unwrap();
        });
        let mut expected = vec![DOORS];
        expected.resize(2 + BACKLOG_PAUSE_MAX as usize, BACKLOG);
        expected.extend([DOORS, DOORS]);
        assert_eq!(seen.iter().collect::<Vec<_>>(), expected);
        backlog.shutdown_background();
    }

    /// Counts frames, of all its kind, and answers nothing.
    struct Counting(Arc<AtomicUsize>);

    impl Session for Counting {
        fn on_frame(&mut self, _: &FrameRef<'_>, _: &mut Output) -> Result<(), Closed> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_was_sent_before_the_peer_went_counts_although_nothing_can_be_answered() {
        let (mut ours, theirs) = tokio::io::duplex(1 << 20);
        ours.write_all(&FRAME.repeat(3)).await.unwrap();
        drop(ours);
        let count = Arc::default();
        let (outbox, admission) = (Outbox::default(), Arc::default());
        outbox.put(|output| output.bytes.extend_from_slice(b"a parked answer"));
        let mut session = Counting(Arc::clone(&count));
        let closed =
            pump(Box::new(Pipe(theirs)), &mut session, &outbox, &admission, &Lane::default(), IDLE)
                .await;
        assert!(matches!(closed, Closed::Io(_)), "{closed}");
        assert_eq!(count.load(Ordering::Relaxed), 3);
    }

    /// Answers with pieces, of which each is unlike its neighbours.
    struct Pieces(usize);

    impl Session for Pieces {
        fn on_frame(&mut self, _: &FrameRef<'_>, output: &mut Output) -> Result<(), Closed> {
            for index in 0..self.0 {
                output.reference(vec![(index % 251) as u8; 3].into());
            }
            Ok(())
        }
    }

    #[tokio::test]
    async fn pieces_that_do_not_fit_one_write_come_with_the_next() {
        const COUNT: usize = 3 * SLICES_MAX + 5;
        let (mut ours, theirs) = tokio::io::duplex(1 << 20);
        ours.write_all(FRAME).await.unwrap();
        ours.shutdown().await.unwrap();
        let (outbox, admission) = (Outbox::default(), Arc::default());
        let mut session = Pieces(COUNT);
        let closed =
            pump(Box::new(Pipe(theirs)), &mut session, &outbox, &admission, &Lane::default(), IDLE)
                .await;
        assert!(matches!(closed, Closed::ByPeer), "{closed}");
        let mut answer = Vec::new();
        ours.read_to_end(&mut answer).await.unwrap();
        let expected: Vec<_> = (0..COUNT).flat_map(|index| [(index % 251) as u8; 3]).collect();
        assert_eq!(answer, expected);
    }

    #[tokio::test]
    async fn what_did_not_fit_one_output_is_answered_with_the_next() {
        let (mut ours, theirs) = tokio::io::duplex(1 << 20);
        let served = tokio::spawn(serve_generously(theirs, 256 * 1024));
        ours.write_all(&FRAME.repeat(50)).await.unwrap();
        ours.shutdown().await.unwrap();
        let mut answers = Vec::new();
        ours.read_to_end(&mut answers).await.unwrap();
        assert_eq!(answers.len(), 50 * 256 * 1024);
        assert!(matches!(served.await.unwrap().0, Closed::ByPeer));
    }

    #[tokio::test]
    async fn while_others_use_the_common_memory_answers_are_written_in_smaller_parts() {
        const LEN: usize = 10 * 1024;
        let (mut ours, theirs) = tokio::io::duplex(1 << 20);
        let served = tokio::spawn(serve_within(theirs, LEN, Admission::of(0).into()));
        ours.write_all(&FRAME.repeat(50)).await.unwrap();
        ours.shutdown().await.unwrap();
        let mut answers = Vec::new();
        ours.read_to_end(&mut answers).await.unwrap();
        assert_eq!(answers.len(), 50 * LEN);
        let (closed, output_len_max) = served.await.unwrap();
        assert!(matches!(closed, Closed::ByPeer), "{closed}");
        assert!(output_len_max < FREE_LEN + LEN, "{output_len_max} bytes");
    }
}
