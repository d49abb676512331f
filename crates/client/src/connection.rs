//! One connection to a peer, shared by all who call it: requests go out as they come, answers are
//! matched by opaque id. And the table of connections by address.

use std::collections::BTreeMap;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use apogee_net::{Admission, Closed, Lane, Outbox, Session, Stream, Transport, pump};
use apogee_types::json;
use apogee_wire::output::Output;
use apogee_wire::remoting::{
    ExtFields, FieldIndex, Fields, FrameRef, Header, HeaderEncoding, Request, RequestHead,
    ResponseCode, ResponseHead,
};
use bytes::Bytes;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::Error;
use crate::notices::{Listeners, Notice};

/// Answers that one connection may owe us; upstream's bound for asynchronous calls.
const CALLS_MAX: usize = 65_535;
/// Dialing takes a few round trips or it fails; upstream waits as long.
const DIAL_TIME: Duration = Duration::from_secs(3);
/// After the first failed dial; doubles with each further one.
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
/// A broker that restarts is found again within this.
const BACK_OFF_MAX: Duration = Duration::from_secs(3);
/// So long is waited for another's dial after one that failed: a few round trips. If it takes
/// longer the peer is silent, and one who waits for it in vain is enough.
const REDIAL_TIME: Duration = Duration::from_millis(200);
/// Upstream's `clientChannelMaxIdleTimeSeconds`.
const IDLE: Duration = Duration::from_secs(120);
/// A peer may be silent for so long, however short the time of a call is.
const SILENCE_MIN: Duration = Duration::from_secs(1);
/// How long a connection may take to write its last bytes.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// How long a caller waits before it looks again whether a full connection has room.
const ROOM_PAUSE: Duration = Duration::from_millis(5);

/// A request that a peer sent to us.
pub(crate) struct PeerRequest<'a> {
    pub code: i32,
    pub fields: &'a ExtFields<'a>,
    pub body: &'a [u8],
}

/// What a peer answered, of any code.
#[derive(Debug)]
pub struct Answer<R> {
    pub code: ResponseCode,
    pub remark: String,
    pub body: Bytes,
    addr: Arc<str>,
    encoding: HeaderEncoding,
    header: Vec<u8>,
    request: PhantomData<fn() -> R>,
}

impl<R: Request> Answer<R> {
    /// The answer if its code is 0, else the refusal as an error.
    pub fn success(self) -> Result<Self, Error> {
        if self.code == ResponseCode::SUCCESS { Ok(self) } else { Err(self.refusal()) }
    }

    /// The code and remark as an error, whatever the code.
    #[must_use]
    pub fn refusal(&self) -> Error {
        Error::Refused {
            addr: self.addr.clone(),
            request: R::INFO.name,
            code: self.code,
            remark: self.remark.clone(),
        }
    }

    /// Reads the fields of the header.
    pub fn fields<T>(&self, read: impl FnOnce(R::Response<'_>) -> T) -> Result<T, Error> {
        let mut index = Vec::new();
        let frame = FrameRef { encoding: self.encoding, header: &self.header, body: b"", len: 0 };
        let header = Header::parse(&frame, &mut index).map_err(|error| self.malformed(&error))?;
        let response = R::Response::decode(&header.fields);
        Ok(read(response.map_err(|error| self.malformed(&error))?))
    }

    /// Reads the body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        json::read(&self.body).map_err(|error| self.malformed(&error))
    }

    pub(crate) fn malformed(&self, problem: &dyn std::fmt::Display) -> Error {
        let problem = problem.to_string();
        Error::Malformed { addr: self.addr.clone(), request: R::INFO.name, problem }
    }
}

/// An answer before its type is known.
struct RawAnswer {
    code: ResponseCode,
    remark: String,
    encoding: HeaderEncoding,
    header: Vec<u8>,
    body: Bytes,
}

/// Who waits for which answer. Once `closed`, nobody does and nobody may.
#[derive(Default)]
struct Calls {
    waiting: BTreeMap<i32, oneshot::Sender<RawAnswer>>,
    closed: bool,
}

impl Calls {
    fn close(&mut self) {
        self.closed = true;
        self.waiting.clear();
    }
}

/// Gives up its place among those who wait, however the call ends.
struct Place<'a> {
    connection: &'a Connection,
    opaque: i32,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.connection.calls.lock().waiting.remove(&self.opaque);
    }
}

pub(crate) struct Connection {
    addr: Arc<str>,
    local: SocketAddr,
    outbox: Arc<Outbox>,
    calls: Arc<Mutex<Calls>>,
    /// Counts what arrives, whole frames or parts.
    heard: Arc<AtomicU64>,
    /// The peer wants new calls over another connection. Those under way it answers here.
    is_left: AtomicBool,
}

impl Connection {
    /// Our end.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub fn takes_calls(&self) -> bool {
        !self.outbox.is_closed() && !self.is_left.load(Ordering::Relaxed)
    }

    /// Closes it, after what was put before.
    pub fn close(&self) {
        self.outbox.close();
    }

    /// Closes it and tells those who wait, though the peer may not even take what was put before.
    fn give_up(&self) {
        self.close();
        self.calls.lock().close();
    }

    /// Sends a request and waits for its answer. If nothing at all arrives meanwhile, the
    /// connection is given up: a peer that lost its power says nothing, and TCP asks for long.
    pub async fn call<R: Request>(
        &self,
        frame: &RequestFrame<R>,
        deadline: Deadline,
    ) -> Result<Answer<R>, Error> {
        let (began, heard) = (Instant::now(), self.heard.load(Ordering::Relaxed));
        let Ok(answer) = timeout_at(deadline.at, self.exchange(frame)).await else {
            if SILENCE_MIN <= began.elapsed() && self.heard.load(Ordering::Relaxed) == heard {
                tracing::warn!(addr = %self.addr, request = R::INFO.name, "nothing is heard");
                self.give_up();
            }
            return Err(self.timed_out::<R>(deadline));
        };
        let raw = answer.ok_or_else(|| self.lost::<R>())?;
        if raw.code == ResponseCode::GO_AWAY {
            self.is_left.store(true, Ordering::Relaxed);
        }
        Ok(Answer {
            code: raw.code,
            remark: raw.remark,
            body: raw.body,
            addr: self.addr.clone(),
            encoding: raw.encoding,
            header: raw.header,
            request: PhantomData,
        })
    }

    /// Sends a request that is not answered.
    pub async fn oneway<R: Request>(
        &self,
        frame: &RequestFrame<R>,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let sent = timeout_at(deadline.at, self.put(frame)).await;
        let sent = sent.map_err(|_| self.timed_out::<R>(deadline))?;
        if sent { Ok(()) } else { Err(self.lost::<R>()) }
    }

    /// Waits until the connection has ended, in the place of a call that nobody answers; no other
    /// call has this `opaque`.
    pub async fn ended(&self, opaque: i32) {
        let (sender, receiver) = oneshot::channel();
        let mut sender = Some(sender);
        while let Some(has_place) = self.enlist(opaque, &mut sender) {
            if has_place {
                let _place = Place { connection: self, opaque };
                let _ = receiver.await;
                return;
            }
            tokio::time::sleep(ROOM_PAUSE).await;
        }
    }

    /// `None` if the connection ended.
    async fn exchange<R>(&self, frame: &RequestFrame<R>) -> Option<RawAnswer> {
        let (sender, receiver) = oneshot::channel();
        let mut sender = Some(sender);
        while !self.enlist(frame.opaque, &mut sender)? {
            tokio::time::sleep(ROOM_PAUSE).await;
        }
        let _place = Place { connection: self, opaque: frame.opaque };
        if !self.put(frame).await {
            return None;
        }
        receiver.await.ok()
    }

    /// Takes a place among those who wait; `Some(false)` if there is none, `None` if the
    /// connection ended.
    fn enlist(&self, opaque: i32, sender: &mut Option<oneshot::Sender<RawAnswer>>) -> Option<bool> {
        let mut calls = self.calls.lock();
        if calls.closed {
            return None;
        }
        if CALLS_MAX <= calls.waiting.len() {
            return Some(false);
        }
        if let Some(sender) = sender.take() {
            calls.waiting.insert(opaque, sender);
        }
        Some(true)
    }

    /// Puts a frame into the outbox, waiting for room; `false` if the connection ended.
    async fn put<R>(&self, frame: &RequestFrame<R>) -> bool {
        while !self.outbox.put(|output| frame.write(output)) {
            if self.outbox.is_closed() {
                return false;
            }
            tokio::time::sleep(ROOM_PAUSE).await;
        }
        true
    }

    fn timed_out<R: Request>(&self, deadline: Deadline) -> Error {
        let after = deadline.within;
        Error::TimedOut { addr: self.addr.clone(), request: R::INFO.name, after }
    }

    fn lost<R: Request>(&self) -> Error {
        Error::Lost { addr: self.addr.clone(), request: R::INFO.name }
    }
}

/// Until when a call may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    pub at: Instant,
    within: Duration,
    /// What of that may go by before there is a connection.
    dial: Duration,
}

impl Deadline {
    pub fn within(within: Duration) -> Self {
        Self { at: Instant::now() + within, within, dial: within.min(DIAL_TIME) }
    }

    /// What is left of it.
    pub fn left(&self) -> Duration {
        self.at.duration_since(Instant::now())
    }

    /// The rest of it for one try of so many: a peer that cannot be reached leaves its part to
    /// those after it.
    pub fn one_try_of(&self, count: u32) -> Self {
        let rest = Self::within(self.left());
        Self { dial: rest.dial.min(rest.within / count), ..rest }
    }
}

/// A request as bytes; may be sent to several peers one after the other.
pub(crate) struct RequestFrame<R> {
    opaque: i32,
    /// The frame without its body.
    head: Vec<u8>,
    body: Bytes,
    request: PhantomData<fn() -> R>,
}

impl<R: Request> RequestFrame<R> {
    /// `opaque` must differ from that of every other call that is under way.
    pub fn new(request: &R::At<'_>, body: Bytes, opaque: i32, oneway: bool) -> Self {
        let encoding = HeaderEncoding::Json;
        let head = RequestHead { encoding, code: R::INFO.code, opaque, oneway };
        let mut output = Output::default();
        let put_body = |output: &mut Output| output.reference(body.clone());
        head.write(&mut output, |put| request.encode(put), put_body);
        Self { opaque, head: output.bytes, body, request: PhantomData }
    }
}

/// From this length on a body is referenced; below, a copy is cheaper (measured).
const REFERENCE_LEN_MIN: usize = 4096;

impl<R> RequestFrame<R> {
    fn write(&self, output: &mut Output) {
        output.bytes.extend_from_slice(&self.head);
        if REFERENCE_LEN_MIN <= self.body.len() {
            output.reference(self.body.clone());
        } else {
            output.bytes.extend_from_slice(&self.body);
        }
    }
}

/// Our side of a connection: hands answers to those who wait, and requests to `listeners`.
struct ClientSession {
    calls: Arc<Mutex<Calls>>,
    heard: Arc<AtomicU64>,
    listeners: Arc<Listeners>,
    index: Vec<FieldIndex>,
}

impl Session for ClientSession {
    fn on_bytes(&mut self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    fn on_frame(&mut self, frame: &FrameRef<'_>, output: &mut Output) -> Result<(), Closed> {
        let header = Header::parse(frame, &mut self.index)
            .map_err(|error| Closed::Protocol(error.to_string()))?;
        if !header.is_response() {
            let request =
                PeerRequest { code: header.code, fields: &header.fields, body: frame.body };
            self.listeners.pass_on(&request);
            if !header.is_oneway() {
                refuse(&header, frame.encoding, output);
            }
            return Ok(());
        }
        // Without a receiver the call has timed out: the answer comes too late for it.
        if let Some(waiting) = self.calls.lock().waiting.remove(&header.opaque) {
            let _ = waiting.send(RawAnswer {
                code: ResponseCode(header.code),
                remark: header.remark.map(|text| text.to_cow().into_owned()).unwrap_or_default(),
                encoding: frame.encoding,
                header: frame.header.to_vec(),
                body: Bytes::copy_from_slice(frame.body),
            });
        }
        Ok(())
    }
}

fn refuse(header: &Header<'_>, encoding: HeaderEncoding, output: &mut Output) {
    let remark = format!("this client does not answer requests of code {}", header.code);
    let code = ResponseCode::REQUEST_CODE_NOT_SUPPORTED;
    let head = ResponseHead { encoding, code, opaque: header.opaque, remark: Some(&remark) };
    head.write(output, |_| {}, |_| {});
}

/// The connections of a client, by address.
pub(crate) struct Connections {
    transport: Arc<dyn Transport>,
    admission: Arc<Admission>,
    listeners: Arc<Listeners>,
    table: Mutex<Table>,
}

/// Once `closed`, it stays empty.
#[derive(Default)]
struct Table {
    slots: BTreeMap<Arc<str>, Arc<Slot>>,
    pumps: JoinSet<()>,
    closed: bool,
}

/// One address.
#[derive(Default)]
struct Slot {
    /// Locked while it is dialed, so that all who want it wait for the same connection.
    state: tokio::sync::Mutex<SlotState>,
    /// The last dial did.
    has_failed: AtomicBool,
}

enum SlotState {
    Open(Arc<Connection>),
    /// Not connected, after so many failed dials. The back-off: until when, and why.
    Apart {
        failures: u32,
        back_off: Option<(Instant, Arc<io::Error>)>,
    },
}

impl Default for SlotState {
    fn default() -> Self {
        Self::Apart { failures: 0, back_off: None }
    }
}

/// Whether a slot is in use, open, or failed a short while ago. Nobody new can come to use it: its
/// table is locked.
fn is_needed(slot: &Arc<Slot>) -> bool {
    if 1 < Arc::strong_count(slot) {
        return true;
    }
    slot.state.try_lock().map_or(true, |state| match &*state {
        SlotState::Open(connection) => connection.takes_calls(),
        SlotState::Apart { back_off, .. } => {
            back_off.as_ref().is_some_and(|(until, _)| until.elapsed() < IDLE)
        }
    })
}

fn silence(within: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("nobody answered within {within:?}"))
}

impl Connections {
    pub fn new(transport: Arc<dyn Transport>, listeners: Arc<Listeners>) -> Self {
        let admission = Arc::default();
        Self { transport, admission, listeners, table: Mutex::default() }
    }

    /// The open connection to `addr`, or a new one. Fails at once while a back-off lasts.
    pub async fn get(&self, addr: &str, deadline: Deadline) -> Result<Arc<Connection>, Error> {
        let slot = self.slot(addr)?;
        let until = deadline.at.min(Instant::now() + deadline.dial);
        // Another may be dialing.
        let wait =
            if slot.has_failed.load(Ordering::Relaxed) { REDIAL_TIME } else { deadline.dial };
        let wait_until = until.min(Instant::now() + wait);
        let Ok(mut state) = timeout_at(wait_until, slot.state.lock()).await else {
            let cause = Arc::new(silence(wait));
            return Err(Error::Unreachable { addr: addr.into(), cause });
        };
        if let SlotState::Open(connection) = &*state {
            if connection.takes_calls() {
                return Ok(Arc::clone(connection));
            }
            *state = SlotState::default();
        }
        let SlotState::Apart { failures, back_off } = &mut *state else {
            unreachable!("an open slot was replaced before");
        };
        if let Some((next_dial, cause)) = back_off
            && Instant::now() < *next_dial
        {
            return Err(Error::Unreachable { addr: addr.into(), cause: Arc::clone(cause) });
        }
        let dialed = timeout_at(until, self.transport.dial(addr)).await;
        let dialed = dialed.unwrap_or_else(|_| Err(silence(deadline.dial)));
        slot.has_failed.store(dialed.is_err(), Ordering::Relaxed);
        match dialed {
            Ok(stream) => {
                let connection = self.start(addr, stream)?;
                *state = SlotState::Open(Arc::clone(&connection));
                Ok(connection)
            }
            Err(cause) => {
                let cause = Arc::new(cause);
                let pause = BACK_OFF_MIN.saturating_mul(1 << (*failures).min(8)).min(BACK_OFF_MAX);
                *failures += 1;
                // From now on: a peer that is silent takes longer to fail than a back-off lasts.
                *back_off = Some((Instant::now() + pause, Arc::clone(&cause)));
                Err(Error::Unreachable { addr: addr.into(), cause })
            }
        }
    }

    /// The local address of any open connection: how peers see this machine.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        let table = self.table.lock();
        table.slots.values().find_map(|slot| match &*slot.state.try_lock().ok()? {
            SlotState::Open(connection) => Some(connection.local_addr()),
            SlotState::Apart { .. } => None,
        })
    }

    /// Closes all connections and waits until their tasks have ended.
    pub async fn close(&self) {
        let (slots, mut pumps) = {
            let mut table = self.table.lock();
            table.closed = true;
            (std::mem::take(&mut table.slots), std::mem::take(&mut table.pumps))
        };
        for slot in slots.into_values() {
            if let SlotState::Open(connection) = &*slot.state.lock().await {
                connection.close();
            }
        }
        // Lets them write what was put before.
        let ended = async { while pumps.join_next().await.is_some() {} };
        if timeout(CLOSE_TIME, ended).await.is_err() {
            pumps.shutdown().await;
        }
    }

    fn slot(&self, addr: &str) -> Result<Arc<Slot>, Error> {
        let mut table = self.table.lock();
        if table.closed {
            return Err(Error::Closed);
        }
        if let Some(slot) = table.slots.get(addr) {
            return Ok(Arc::clone(slot));
        }
        table.slots.retain(|_, slot| is_needed(slot));
        let slot = Arc::<Slot>::default();
        table.slots.insert(addr.into(), Arc::clone(&slot));
        Ok(slot)
    }

    fn start(&self, addr: &str, stream: Box<dyn Stream>) -> Result<Arc<Connection>, Error> {
        let connection = Arc::new(Connection {
            addr: addr.into(),
            local: stream.local_addr(),
            outbox: Arc::default(),
            calls: Arc::default(),
            heard: Arc::default(),
            is_left: AtomicBool::new(false),
        });
        let (outbox, calls) = (Arc::clone(&connection.outbox), Arc::clone(&connection.calls));
        let heard = Arc::clone(&connection.heard);
        let listeners = Arc::clone(&self.listeners);
        let admission = Arc::clone(&self.admission);
        let addr = Arc::clone(&connection.addr);
        let mut table = self.table.lock();
        if table.closed {
            return Err(Error::Closed);
        }
        while table.pumps.try_join_next().is_some() {}
        table.pumps.spawn(async move {
            let (waiting, index) = (Arc::clone(&calls), Vec::new());
            let mut session =
                ClientSession { calls: waiting, heard, listeners: Arc::clone(&listeners), index };
            let _ended = End(calls);
            let lane = Lane::default();
            let closed = pump(stream, &mut session, &outbox, &admission, &lane, IDLE).await;
            tracing::debug!(%addr, %closed, "connection ended");
            listeners.tell(&Notice::ConnectionLost { addr });
        });
        Ok(connection)
    }
}

/// When a pump ends, whichever way, those who wait learn that no answer will come.
struct End(Arc<Mutex<Calls>>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.lock().close();
    }
}

#[cfg(test)]
mod tests {
    use apogee_net::Listener;
    use apogee_net::transport::BoxFuture;

    use super::*;

    /// A network without anybody.
    struct Nobody;

    impl Transport for Nobody {
        fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
            Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
        }

        fn dial<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
            Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn peers_that_are_gone_for_long_are_forgotten() {
        let connections = Connections::new(Arc::new(Nobody), Arc::default());
        let dial = async |name: &str| {
            assert!(connections.get(name, Deadline::within(DIAL_TIME)).await.is_err());
            connections.table.lock().slots.len()
        };
        for number in 0..1000 {
            let count = dial(&format!("pod-{number}:1")).await;
            assert!(count <= 12, "{count} after {number}");
            tokio::time::sleep(IDLE / 10).await;
        }
        let used = connections.slot("pod-0:1").unwrap();
        tokio::time::sleep(2 * IDLE).await;
        assert_eq!(dial("other:1").await, 2, "one that is used stays");
        drop(used);
        assert_eq!(dial("another:1").await, 2);
    }
}
