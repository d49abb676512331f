//! What all connections of this process share, and what each connection is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use apogee_broker::Broker;
use apogee_broker::clients::{ConnectionId, Notice, Outlet};
use apogee_net::{Admission, Closed, Listener, Outbox, Stream, pump};
use apogee_wire::remoting::header::RequestHead;
use apogee_wire::remoting::{Fields, HeaderEncoding, Request, requests};

use super::names::NameServer;
use super::router::Router;
use super::session::ServerSession;

/// The roles of this process, behind one router.
pub struct Door {
    pub router: Router,
    pub broker: Option<Arc<Broker>>,
    pub names: Option<Arc<NameServer>>,
    /// Told when topics changed: whoever registers with name servers elsewhere waits for it.
    pub changed: tokio::sync::Notify,
    admission: Arc<Admission>,
    next_connection: AtomicU64,
}

/// One connection, as the core sees it.
pub struct Peer {
    pub connection: ConnectionId,
    /// The address under which the peer reached us.
    pub local: SocketAddr,
    pub addr: SocketAddr,
    pub address: Arc<str>,
    pub outbox: Outbox,
    /// Numbers our own requests to this peer.
    next_opaque: AtomicI32,
}

impl Door {
    #[must_use]
    pub fn new(
        router: Router,
        broker: Option<Arc<Broker>>,
        names: Option<Arc<NameServer>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            router,
            broker,
            names,
            changed: tokio::sync::Notify::new(),
            admission: Arc::default(),
            next_connection: AtomicU64::new(1),
        })
    }

    #[must_use]
    pub fn broker(&self) -> &Arc<Broker> {
        self.broker.as_ref().expect("a broker's requests are routed only where one is")
    }

    #[must_use]
    pub fn names(&self) -> &Arc<NameServer> {
        self.names.as_ref().expect("a name server's requests are routed only where one is")
    }

    /// Topics were created, changed or deleted: name servers are to know at once.
    pub fn topics_changed(&self) {
        if let (Some(names), Some(broker)) = (&self.names, &self.broker) {
            names.register_own(broker);
        }
        self.changed.notify_one();
    }

    /// Answers parked pulls whose time is up, and lets silent brokers go. A few times a second.
    pub fn sweep_step(&self) {
        if let Some(broker) = &self.broker {
            broker.waiters.expire(broker.clock.now_ms());
            if broker.topics.has_changed() {
                self.topics_changed();
            }
        }
        if let Some(names) = &self.names {
            names.expire_step();
        }
    }

    /// Accepts connections until the listener fails for good; each runs as a task of its own,
    /// dropped with the returned set.
    pub async fn accept(self: Arc<Self>, mut listener: Box<dyn Listener>) {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok(stream) => drop(connections.spawn(Arc::clone(&self).serve(stream))),
                Err(error) => {
                    // Out of file descriptors, most likely: others will close theirs.
                    tracing::warn!(%error, address = %listener.local_addr(), "cannot accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Serves one connection to its end.
    pub async fn serve(self: Arc<Self>, stream: Box<dyn Stream>) {
        let connection = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let peer = Arc::new(Peer::new(connection, stream.local_addr(), stream.peer_addr()));
        let mut session = ServerSession::new(Arc::clone(&self), Arc::clone(&peer));
        // Dropping the task, as a stop does, must leave the groups as well.
        let leave = Leave { door: &self, peer: &peer };
        let closed = pump(stream, &mut session, &peer.outbox, &self.admission).await;
        drop(leave);
        match closed {
            Closed::ByPeer | Closed::ByUs => {}
            reason => tracing::debug!(peer = %peer.addr, %reason, "connection closed"),
        }
    }
}

struct Leave<'a> {
    door: &'a Door,
    peer: &'a Peer,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.peer.outbox.close();
        if let Some(broker) = &self.door.broker {
            broker.clients.closed(self.peer.connection);
            broker.waiters.forget(self.peer.connection);
        }
        if let Some(names) = &self.door.names {
            names.connection_closed(self.peer.connection);
        }
    }
}

impl Peer {
    fn new(connection: ConnectionId, local: SocketAddr, addr: SocketAddr) -> Self {
        let (address, outbox) = (addr.to_string().into(), Outbox::default());
        Self { connection, local, addr, address, outbox, next_opaque: AtomicI32::new(0) }
    }

    /// Sends the peer a request that it does not answer.
    pub fn send_oneway<R: Request>(&self, request: &R::At<'_>) {
        let head = RequestHead {
            encoding: HeaderEncoding::Json,
            code: R::INFO.code,
            opaque: self.next_opaque.fetch_add(1, Ordering::Relaxed),
            oneway: true,
        };
        self.outbox.put(|output| head.write(output, |put| request.encode(put), |_| {}));
    }
}

impl Outlet for Peer {
    fn notify(&self, notice: Notice) {
        match notice {
            Notice::GroupChanged { group } => {
                let request =
                    requests::NotifyConsumerIdsChanged { consumer_group: group.to_string() };
                self.send_oneway::<requests::NotifyConsumerIdsChanged>(&request);
            }
        }
    }

    fn close(&self) {
        self.outbox.close();
    }
}
