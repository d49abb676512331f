//! The network seam: listen and dial. TCP here, pipes in the simulator.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An open connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    /// Our end: for an accepted stream the address under which the peer reached us.
    fn local_addr(&self) -> SocketAddr;
    fn peer_addr(&self) -> SocketAddr;

    /// From now on the runtime that we are in tells what has arrived; if that fails, the one before
    /// goes on doing so.
    fn move_here(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A bound address that accepts connections.
pub trait Listener: Send {
    fn local_addr(&self) -> SocketAddr;
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Stream>>>;
}

/// A network.
pub trait Transport: Send + Sync {
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;
    /// `addr` is `host:port`.
    fn dial<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>>;
}

/// The network of the operating system.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tcp {
    /// Buffers of accepted connections in bytes; with 0 the system decides.
    pub send_buffer_len: u32,
    pub receive_buffer_len: u32,
}

/// Connections that may wait to be accepted: as upstream.
const BACKLOG: u32 = 1024;

impl Tcp {
    fn bind(self, addr: SocketAddr) -> io::Result<TcpListener> {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        // Accepted connections inherit them.
        if self.send_buffer_len != 0 {
            socket.set_send_buffer_size(self.send_buffer_len)?;
        }
        if self.receive_buffer_len != 0 {
            socket.set_recv_buffer_size(self.receive_buffer_len)?;
        }
        socket.bind(addr)?;
        socket.listen(BACKLOG)
    }
}

impl Transport for Tcp {
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = self.bind(addr)?;
            let addr = listener.local_addr()?;
            Ok(Box::new(TcpAccept { listener, addr }) as Box<dyn Listener>)
        })
    }

    #[allow(clippy::disallowed_methods, reason = "this is the seam")]
    fn dial<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move { open(TcpStream::connect(addr).await?) })
    }
}

struct TcpAccept {
    listener: TcpListener,
    addr: SocketAddr,
}

impl Listener for TcpAccept {
    fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move { open(self.listener.accept().await?.0) })
    }
}

fn open(stream: TcpStream) -> io::Result<Box<dyn Stream>> {
    // Batches are written with one call; waiting for more to send would only delay them.
    stream.set_nodelay(true)?;
    let (local, peer) = (unmapped(stream.local_addr()?), unmapped(stream.peer_addr()?));
    Ok(Box::new(TcpPipe { stream, local, peer }))
}

/// An IPv4 peer of a dual-stack socket shows as `::ffff:a.b.c.d`; we say `a.b.c.d`.
fn unmapped(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

struct TcpPipe {
    stream: TcpStream,
    local: SocketAddr,
    peer: SocketAddr,
}

impl Stream for TcpPipe {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    fn move_here(&mut self) -> io::Result<()> {
        let socket = self.stream.as_fd().try_clone_to_owned()?;
        self.stream = TcpStream::from_std(socket.into())?;
        Ok(())
    }
}

impl AsyncRead for TcpPipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for TcpPipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn buffers_have_the_length_that_was_asked_for() {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let lens = async |tcp: Tcp| {
            let listener = tcp.bind(any_port).unwrap();
            let addr = listener.local_addr().unwrap().to_string();
            let _peer = Tcp::default().dial(&addr).await.unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            let socket = TcpSocket::from_std_stream(accepted.into_std().unwrap());
            (socket.send_buffer_size().unwrap(), socket.recv_buffer_size().unwrap())
        };
        // Linux gives twice what is asked for, for its own book-keeping.
        let asked = Tcp { send_buffer_len: 20_000, receive_buffer_len: 30_000 };
        assert_eq!(lens(asked).await, (40_000, 60_000));
        assert_ne!(lens(Tcp::default()).await, (40_000, 60_000));
    }
}
