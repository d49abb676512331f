//! A network in memory with name servers and simple brokers: enough to tell what a client does.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use apogee_client::Options;
use apogee_net::transport::BoxFuture;
use apogee_net::{Lane, Listener, Outbox, Stream, Transport, pump};
use apogee_types::clock::Millis;
use apogee_types::config::Perm;
use apogee_types::route::{BrokerData, QueueData, TopicRouteData};
use apogee_types::{Clock, json};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::watch;

use crate::broker::{Broker, Door};

pub const NAME_SERVER: &str = "10.0.0.9:9876";
/// Bytes on their way in one direction.
const PIPE_LEN: usize = 1 << 20;

/// All hosts, and what the name servers tell.
#[derive(Default)]
pub struct World {
    pub brokers: BTreeMap<&'static str, Arc<Broker>>,
    /// Topics that the route table has, with their count of queues on each broker.
    pub topics: Mutex<BTreeMap<String, i32>>,
    /// Of these topics the name server answers only that it failed.
    pub broken_topics: Mutex<BTreeSet<String>>,
    /// How often a route was asked for.
    pub routes_asked: AtomicUsize,
    /// Addresses that refuse connections.
    pub down: Mutex<BTreeSet<String>>,
    /// Addresses that do not answer one who dials.
    pub dark: Mutex<BTreeSet<String>>,
    /// Brokers that are slaves.
    pub slaves: Mutex<BTreeSet<&'static str>>,
    /// Brokers that the name servers do not know of.
    pub unknown: Mutex<BTreeSet<&'static str>>,
    /// Grows with whatever happens, for those who wait for something.
    pub changed: watch::Sender<u64>,
}

impl World {
    /// One or two brokers, `a` and `b`, and a topic `T` with so many queues on each.
    pub fn new(brokers: &[&'static str], queue_count: i32) -> Arc<Self> {
        let brokers = brokers.iter().map(|name| (*name, Arc::new(Broker::new(name)))).collect();
        let topics = Mutex::new(BTreeMap::from([("T".to_owned(), queue_count)]));
        Arc::new(Self { brokers, topics, ..Self::default() })
    }

    pub fn broker(&self, name: &str) -> &Arc<Broker> {
        &self.brokers[name]
    }

    pub fn options(self: &Arc<Self>) -> Options {
        Options {
            transport: Arc::new(Network(Arc::clone(self))),
            clock: Arc::new(Stopped),
            seed: 1,
            ..Options::new(NAME_SERVER)
        }
    }

    pub fn touch(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Waits until `check` holds; an hour of the paused clock is taken for never.
    pub async fn until(&self, what: &str, check: impl Fn(&Self) -> bool) {
        let mut changed = self.changed.subscribe();
        let hour = std::time::Duration::from_secs(3600);
        let held = tokio::time::timeout(hour, async {
            while !check(self) {
                changed.changed().await.expect("the world lasts");
            }
        });
        held.await.unwrap_or_else(|_| panic!("never happened: {what}"));
    }

    pub fn route(&self, topic: &str) -> Option<Vec<u8>> {
        self.routes_asked.fetch_add(1, Ordering::Relaxed);
        let count = *self.topics.lock().get(topic)?;
        let mut route = TopicRouteData::default();
        let unknown = self.unknown.lock();
        for (name, broker) in self.brokers.iter().filter(|(name, _)| !unknown.contains(*name)) {
            let id = i64::from(self.slaves.lock().contains(name));
            route.broker_datas.push(BrokerData {
                broker_name: (*name).into(),
                broker_addrs: [(id, broker.addr.to_string().into())].into(),
                ..BrokerData::default()
            });
            route.queue_datas.push(QueueData {
                broker_name: (*name).into(),
                perm: Perm::READ_WRITE,
                read_queue_count: count,
                write_queue_count: count,
                topic_sys_flag: 0,
            });
        }
        Some(json::write_standard(&route))
    }
}

struct Stopped;

impl Clock for Stopped {
    fn now_ms(&self) -> Millis {
        1_700_000_000_000
    }
}

struct Network(Arc<World>);

impl Transport for Network {
    fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn dial<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            if self.0.dark.lock().contains(addr) {
                std::future::pending::<()>().await;
            }
            let broker = self.0.brokers.values().find(|broker| broker.addr.to_string() == addr);
            if self.0.down.lock().contains(addr) || (broker.is_none() && addr != NAME_SERVER) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (ours, theirs) = tokio::io::duplex(PIPE_LEN);
            let outbox = Arc::<Outbox>::default();
            let mut door = Door::new(Arc::clone(&self.0), broker.cloned(), Arc::clone(&outbox));
            tokio::spawn(async move {
                let idle = std::time::Duration::from_secs(120);
                let pipe = Box::new(Pipe(theirs));
                let _ =
                    pump(pipe, &mut door, &outbox, &Arc::default(), &Lane::default(), idle).await;
            });
            Ok(Box::new(Pipe(ours)) as Box<dyn Stream>)
        })
    }
}

struct Pipe(DuplexStream);

impl Stream for Pipe {
    fn local_addr(&self) -> SocketAddr {
        "10.0.1.1:5000".parse().unwrap()
    }

    fn peer_addr(&self) -> SocketAddr {
        "10.0.1.2:5000".parse().unwrap()
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

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
