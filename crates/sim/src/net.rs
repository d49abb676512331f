//! A network in memory: pipes with delay, and hosts that can be cut off.
//!
//! As with TCP, bytes between two hosts arrive in order or the connection breaks; what a network
//! does to packets shows as delay, as silence, and as connections that are reset.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use apogee_net::transport::{BoxFuture, Listener, Stream, Transport};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::{Notify, mpsc};

/// Bytes on their way in one direction.
const PIPE_LEN: usize = 64 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: usize = 128;

/// What the network does to traffic; drawn anew for each piece of bytes.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    pub delay_ms_max: u64,
    /// One of so many pieces breaks its connection; 0 for never.
    pub reset_one_in: u32,
}

/// The shared medium. Each process on it has a [`SimNet`] handle of its own.
#[derive(Clone)]
pub struct SimNet {
    state: Arc<Mutex<State>>,
}

struct State {
    listeners: BTreeMap<SocketAddr, mpsc::Sender<SimStream>>,
    random: fastrand::Rng,
    weather: Weather,
    next_port: u16,
    /// Told when all connections are to break. Not a `watch`, which wakes in an order by chance.
    cuts: Arc<Notify>,
}

impl SimNet {
    #[must_use]
    pub fn new(seed: u64, weather: Weather) -> Self {
        let state = State {
            listeners: BTreeMap::new(),
            random: fastrand::Rng::with_seed(seed),
            weather,
            next_port: 40_000,
            cuts: Arc::default(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The weather of connections that begin from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.state.lock().weather = weather;
    }

    /// Breaks every connection there is.
    pub fn cut_all(&self) {
        self.state.lock().cuts.notify_waiters();
    }

    /// Nobody listens at `addr` any more: its process died.
    pub fn unlisten(&self, addr: SocketAddr) {
        self.state.lock().listeners.remove(&addr);
    }

    fn connect(&self, addr: SocketAddr) -> io::Result<SimStream> {
        let mut state = self.state.lock();
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        state.next_port = state.next_port.checked_add(1).unwrap_or(40_000);
        let local = SocketAddr::new(addr.ip(), state.next_port);
        let listener = state.listeners.get(&addr).ok_or_else(refused)?.clone();
        let (client_end, client_far) = tokio::io::duplex(PIPE_LEN);
        let (server_end, server_far) = tokio::io::duplex(PIPE_LEN);
        let server = SimStream { pipe: server_end, local: addr, peer: local };
        listener.try_send(server).map_err(|_| refused())?;
        let (client_reads, client_writes) = tokio::io::split(client_far);
        let (server_reads, server_writes) = tokio::io::split(server_far);
        let seeds = [state.random.u64(..), state.random.u64(..)];
        let weather = state.weather;
        let there = carry(client_reads, server_writes, seeds[0], weather);
        let back = carry(server_reads, client_writes, seeds[1], weather);
        let cut = Arc::clone(&state.cuts).notified_owned();
        tokio::spawn(async move {
            // When one direction ends so does the other: neither side of the protocol uses a
            // connection that is half closed.
            tokio::select! {
                biased;
                () = cut => {}
                () = there => {}
                () = back => {}
            }
        });
        Ok(SimStream { pipe: client_end, local, peer: addr })
    }
}

/// Carries bytes in one direction until an end closes or the connection breaks.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    seed: u64,
    weather: Weather,
) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut buffer = vec![0; 4096];
    loop {
        let Ok(len @ 1..) = from.read(&mut buffer).await else { return };
        if weather.reset_one_in != 0 && random.u32(0..weather.reset_one_in) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(random.u64(0..=weather.delay_ms_max))).await;
        if to.write_all(&buffer[..len]).await.is_err() {
            return;
        }
    }
}

impl Transport for SimNet {
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let (sender, arrivals) = mpsc::channel(BACKLOG);
            let mut state = self.state.lock();
            if state.listeners.get(&addr).is_some_and(|other| !other.is_closed()) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            state.listeners.insert(addr, sender);
            Ok(Box::new(SimListener { addr, arrivals }) as Box<dyn Listener>)
        })
    }

    fn dial<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let addr = addr.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
            Ok(Box::new(self.connect(addr)?) as Box<dyn Stream>)
        })
    }
}

struct SimListener {
    addr: SocketAddr,
    arrivals: mpsc::Receiver<SimStream>,
}

impl Listener for SimListener {
    fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            match self.arrivals.recv().await {
                Some(stream) => Ok(Box::new(stream) as Box<dyn Stream>),
                // The address was given to a later process; this one hears nothing any more.
                None => std::future::pending().await,
            }
        })
    }
}

struct SimStream {
    pipe: DuplexStream,
    local: SocketAddr,
    peer: SocketAddr,
}

impl Stream for SimStream {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn peer_addr(&self) -> SocketAddr {
        self.peer
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buffer)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Weather = Weather { delay_ms_max: 5, reset_one_in: 0 };

    #[tokio::test(start_paused = true)]
    async fn bytes_arrive_in_order_and_a_cut_ends_both_sides() {
        let net = SimNet::new(1, CALM);
        let addr = "10.0.0.1:9876".parse().unwrap();
        assert!(net.dial("10.0.0.1:9876").await.is_err());
        let mut listener = net.listen(addr).await.unwrap();
        let mut client = net.dial("10.0.0.1:9876").await.unwrap();
        let mut server = listener.accept().await.unwrap();
        let sent: Vec<u8> = (0..100_000_u32).map(|it| it as u8).collect();
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
            client
        });
        let mut received = vec![0; expected.len()];
        server.read_exact(&mut received).await.unwrap();
        assert!(received == expected);
        let mut client = writer.await.unwrap();
        net.cut_all();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap_or(0), 0);
        assert_eq!(server.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }
}
