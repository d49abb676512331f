//! The server's side of a connection: requests in, responses out, a batch at a time.

use std::sync::Arc;
use std::task::Context;

use apogee_net::{Closed, Session};
use apogee_wire::output::Output;
use apogee_wire::remoting::{FrameRef, HeaderReader, ResponseCode};

use super::door::{Answered, Door, Peer};
use super::pending::Pending;
use super::router::{Call, Scratch};

pub struct ServerSession {
    door: Arc<Door>,
    peer: Arc<Peer>,
    headers: HeaderReader,
    scratch: Scratch,
    pending: Pending,
}

impl ServerSession {
    #[must_use]
    pub fn new(door: Arc<Door>, peer: Arc<Peer>) -> Self {
        let (headers, scratch) = Default::default();
        let pending = Pending::new(door.sync_flush_timeout);
        Self { door, peer, headers, scratch, pending }
    }
}

impl Session for ServerSession {
    fn on_frame(&mut self, frame: &FrameRef<'_>, output: &mut Output) -> Result<(), Closed> {
        let header =
            self.headers.read(frame).map_err(|error| Closed::Protocol(error.to_string()))?;
        if header.is_response() {
            let (code, remark) = (ResponseCode(header.code), header.remark);
            let answer = Answered { code, remark, body: frame.body };
            self.peer.answered(header.opaque, Some(answer));
            return Ok(());
        }
        let mut call = Call {
            door: &self.door,
            peer: &self.peer,
            header: &header,
            encoding: frame.encoding,
            body: frame.body,
            scratch: &mut self.scratch,
        };
        self.door.router.dispatch(&mut call, output, &mut self.pending);
        Ok(())
    }

    fn after_batch(&mut self, _output: &mut Output) {
        self.scratch.recent.clear();
        let Some(broker) = &self.door.broker else { return };
        if broker.topics.has_changed() {
            self.door.topics_changed();
        }
        if std::mem::take(&mut self.scratch.appended) {
            broker.dispatch();
        }
    }

    fn reads_backlog(&mut self) -> bool {
        std::mem::take(&mut self.scratch.reads_backlog)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>, output: &mut Output) {
        if self.pending.is_empty() {
            return;
        }
        let broker = self.door.broker();
        let flushed = broker.store.flushed_watermark();
        if self.pending.release(cx, flushed, &broker.created, output) {
            broker.dispatch();
        }
    }

    fn wants_more(&self) -> bool {
        !self.pending.is_full()
    }
}
