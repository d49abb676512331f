//! What each role is made of: the only wiring in the code base.

use std::io;
use std::net::SocketAddr;

use anyhow::Context;
use apogee_net::transport::{Listener, Tcp, Transport};
use tokio::runtime::Runtime;

use crate::config::Config;
use crate::steps::Steps;
use crate::{greeting, machine};

/// Name server and broker in one process, both on `port`.
pub fn standalone(mut config: Config, port: u16) -> anyhow::Result<()> {
    machine::raise_file_limit();
    config.adopt_sizes();
    runtime()?.block_on(async {
        let ports = broker_ports(&config);
        let shared = listen(&config, port, "--port").await?;
        let doors = listen_all(&config, &ports, "--broker-port").await?;
        let steps = Steps::default();
        greeting::broker(&config, &broker_addr(&config), Some(port));
        until_stopped(steps, (shared, doors)).await
    })
}

/// A broker that registers with name servers elsewhere.
pub fn broker(mut config: Config) -> anyhow::Result<()> {
    machine::raise_file_limit();
    config.adopt_sizes();
    runtime()?.block_on(async {
        let doors = listen_all(&config, &broker_ports(&config), "listenPort").await?;
        let steps = Steps::default();
        greeting::broker(&config, &broker_addr(&config), None);
        until_stopped(steps, doors).await
    })
}

/// A name server.
pub fn namesrv(config: Config) -> anyhow::Result<()> {
    machine::raise_file_limit();
    runtime()?.block_on(async {
        let door = listen(&config, config.namesrv.listen_port, "listenPort").await?;
        greeting::name_server(&config);
        until_stopped(Steps::default(), door).await
    })
}

/// Leaves one core to the steps.
fn runtime() -> io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.saturating_sub(1).max(1))
        .thread_name("doors")
        .enable_all()
        .build()
}

/// Serves until a signal comes; then the doors close first, so that nothing new arrives while the
/// steps finish.
async fn until_stopped<D>(steps: Steps, doors: D) -> anyhow::Result<()> {
    let signal = machine::stop_requested().await?;
    tracing::info!(signal, "stopping");
    drop(doors);
    steps.stop();
    tracing::info!("stopped");
    Ok(())
}

/// The port that is configured, and the one that clients before 4.9 derive from it.
fn broker_ports(config: &Config) -> Vec<u16> {
    let port = config.broker.listen_port;
    [Some(port), port.checked_sub(2).filter(|fast| *fast != 0)].into_iter().flatten().collect()
}

/// The address that is registered: as configured, else ours on the way to the name server.
fn broker_addr(config: &Config) -> String {
    let port = config.broker.listen_port;
    match config.broker.broker_ip1.as_str() {
        "" => {
            let name_server = config.broker.namesrv_addr.split(';').next();
            let ip = machine::local_ip(name_server.filter(|addr| !addr.is_empty()));
            SocketAddr::new(ip, port).to_string()
        }
        ip => format!("{ip}:{port}"),
    }
}

async fn listen_all(
    config: &Config,
    ports: &[u16],
    setting: &str,
) -> anyhow::Result<Vec<Box<dyn Listener>>> {
    let mut listeners = Vec::new();
    for port in ports {
        listeners.push(listen(config, *port, setting).await?);
    }
    Ok(listeners)
}

/// `setting` is what the operator would change to listen elsewhere.
async fn listen(config: &Config, port: u16, setting: &str) -> anyhow::Result<Box<dyn Listener>> {
    let bind = &config.net.bind_address;
    let ip =
        bind.parse().with_context(|| format!("bindAddress = {bind}: must be an IP address"))?;
    let addr = SocketAddr::new(ip, port);
    Tcp.listen(addr).await.map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "the port is in use: stop the other server or choose another port with"
            }
            io::ErrorKind::AddrNotAvailable => {
                "this machine does not have the address: see bindAddress,"
            }
            io::ErrorKind::PermissionDenied => {
                "a port below 1024 needs privileges: choose another with"
            }
            _ => "choose another port with",
        };
        anyhow::anyhow!("cannot listen on {addr}: {advice} {setting} ({error})")
    })
}

/// Why a store did not open, for who has to make it open.
fn explain_store(error: &io::Error, path: &str) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock => format!(
            "the store {path} is in use by another process, Apogee or Apache RocketMQ: \
             stop it, or choose another directory (storePathRootDir, --data)"
        ),
        io::ErrorKind::ReadOnlyFilesystem => {
            format!("the store {path} is on a read-only file system: remount it, or choose another")
        }
        io::ErrorKind::PermissionDenied => {
            format!("the store {path} may not be written: give its files to this user")
        }
        io::ErrorKind::StorageFull => {
            format!("the disk of the store {path} is full: make room, or lower fileReservedTime")
        }
        _ => format!("cannot open the store {path}: {error}"),
    }
}
