//! What we ask of the operating system besides disk and network.

use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use thread_priority::unix::{
    RealtimeThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};
use thread_priority::{ThreadPriority, ThreadPriorityValue};

/// The name of this machine, if it has one.
pub fn host_name() -> Option<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    (!name.is_empty()).then_some(name)
}

/// The address of this machine on the way to `peer`, else on its default route, else loopback.
/// Nothing is sent: connecting a datagram socket only asks the routing table.
pub fn local_ip(peer: Option<&str>) -> IpAddr {
    let towards = |peer: &str| -> io::Result<IpAddr> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(peer)?;
        Ok(socket.local_addr()?.ip())
    };
    let documentation_net = "192.0.2.1:9";
    let ip = peer.map_or(Err(io::ErrorKind::NotFound.into()), towards);
    ip.or_else(|_| towards(documentation_net)).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Raises the number of files and sockets that may be open to what the system allows at most.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        Ok(()) => tracing::debug!(files = ?limit.maximum, "raised the limit of open files"),
        Err(error) => tracing::warn!(%error, files = ?limit.current, "few files can be open"),
    }
}

/// How many files and sockets may be open.
pub fn file_limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| limit as usize)
}

/// Lets the calling thread go before others: what the device can do is measured with it.
pub fn hurry_this_thread() {
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let lowest = ThreadPriorityValue::try_from(1).expect("1 is a priority");
    let priority = ThreadPriority::Crossplatform(lowest);
    if set_thread_priority_and_policy(thread_native_id(), priority, policy).is_ok() {
        return;
    }
    // On Linux a priority belongs to a thread, and no process id means the calling one.
    if let Err(error) = setpriority_process(None, -10) {
        tracing::debug!(%error, "this thread has no priority over others");
    }
}

/// Lets other threads go before the calling one, which still gets a tenth of what they would.
pub fn let_others_go_first() {
    // On Linux a priority belongs to a thread, and no process id means the calling one.
    if let Err(error) = setpriority_process(None, 10) {
        tracing::debug!(%error, "this thread has the priority of all others");
    }
}

/// From now on a signal to stop does not end the process: the future resolves, with its name.
pub fn stop_requested() -> io::Result<impl Future<Output = &'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "Ctrl-C",
        }
    })
}
