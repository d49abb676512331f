//! A client is told the address under which it reached the server: through `localhost`, through
//! either of two interfaces, and through a port-forward into a network that it cannot reach. Behind
//! a published port it is told what `advertisedAddresses` says.
//!
//! Hosts are network namespaces, so this test must run as root.

#![allow(clippy::disallowed_methods, reason = "a configuration file is its input")]

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const SERVER: &str = "apogee-server";
const NEAR: &str = "apogee-near";
const OTHER: &str = "apogee-other";
const FAR: &str = "apogee-far";

/// Removes the namespaces, and with them what runs and what is linked in them.
struct Hosts;

impl Hosts {
    /// `server` has a link to `near` and another to `other`; `far` has none.
    fn build() -> Self {
        let hosts = Self;
        hosts.remove();
        for host in [SERVER, NEAR, OTHER, FAR] {
            ip(&["netns", "add", host]);
            ip(&["-n", host, "link", "set", "lo", "up"]);
        }
        for (host, subnet) in [(NEAR, "10.77.1"), (OTHER, "10.77.2")] {
            let ours = format!("veth-{}", &host[7..]);
            let server = ["link", "add", &ours, "netns", SERVER, "type", "veth"];
            ip(&[&server[..], &["peer", "name", "eth0", "netns", host]].concat());
            let ends = [(SERVER, ours.as_str(), "1"), (host, "eth0", "2")];
            for (end, device, last) in ends {
                ip(&["-n", end, "addr", "add", &format!("{subnet}.{last}/24"), "dev", device]);
                ip(&["-n", end, "link", "set", device, "up"]);
            }
        }
        hosts
    }

    fn remove(&self) {
        for host in [SERVER, NEAR, OTHER, FAR] {
            // It may not be there.
            let _ = Command::new("ip").args(["netns", "del", host]).output();
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.remove();
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {error}(root?)", arguments.join(" "));
}

fn apogee_on(host: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", host, env!("CARGO_BIN_EXE_apogee")]).args(arguments);
    command
}

struct Server(Child);

impl Server {
    fn start(dir: &std::path::Path, conf: &str) -> Self {
        let file = dir.join("broker.conf");
        std::fs::write(&file, conf).expect("the directory is ours");
        let (data, file) = (dir.join("data"), file.to_str().expect("a path that is text"));
        let data = data.to_str().expect("a path that is text");
        let mut child = apogee_on(SERVER, &["--data", data, "-c", file])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let stdout = child.stdout.take().expect("it is piped");
        let mut lines = BufReader::new(stdout).lines();
        let is_ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("ready"));
        assert!(is_ready, "the server ended before it was ready");
        // Whatever it prints later must not block it.
        std::thread::Builder::new().spawn(move || lines.for_each(drop)).expect("a thread");
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Forwards `port` of `from`'s 127.0.0.1 to `target` as `to` sees it, as `kubectl port-forward`
/// and `ssh -L` do: the server sees a connection from its own loopback.
fn forward_port(from: &'static str, port: u16, to: &'static str, target: &'static str) {
    let (bound, is_bound) = std::sync::mpsc::channel();
    thread(move || {
        enter(from);
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        bound.send(()).expect("the test waits for it");
        for client in listener.incoming() {
            let client = client.expect("a connection");
            thread(move || {
                enter(to);
                if let Ok(server) = TcpStream::connect(target) {
                    relay(client, server);
                }
            });
        }
    });
    is_bound.recv().expect("the forwarder is bound");
}

fn relay(client: TcpStream, server: TcpStream) {
    let copy = |mut from: TcpStream, mut to: TcpStream| {
        thread(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Both);
        });
    };
    copy(client.try_clone().expect("a handle"), server.try_clone().expect("a handle"));
    copy(server, client);
}

/// Moves the calling thread to another host. Sockets stay where they were opened.
fn enter(host: &str) {
    let path = PathBuf::from("/var/run/netns").join(host);
    let namespace = rustix::fs::open(&path, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty())
        .expect("the namespace exists");
    let network = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(rustix::fd::AsFd::as_fd(&namespace), network).expect("root may move");
}

fn thread(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().spawn(work).expect("a thread");
}

/// Sends a message from `host` and reads it back, knowing nothing but the name server's address.
fn quickstart(host: &str, namesrv: &str) {
    let topic = format!("reach-{}", &host[7..]);
    let said = run(apogee_on(host, &["produce", &topic, "hello", "-n", namesrv]));
    assert!(said.status.success(), "{host} cannot send through {namesrv}: {said:?}");
    let consume = ["consume", &topic, "--group", "reach", "--from", "earliest", "--count", "1"];
    let said = run(apogee_on(host, &[&consume[..], &["-n", namesrv]].concat()));
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success() && text.contains("hello"), "{host}, {namesrv}: {said:?}");
}

fn run(mut command: Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let pid = rustix::process::Pid::from_child(&child);
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    thread(move || {
        if is_done.recv_timeout(Duration::from_secs(60)).is_err() {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    });
    let output = child.wait_with_output().expect("it ends");
    let _ = done.send(());
    output
}

#[test]
fn the_quickstart_works_from_anywhere_without_broker_ip1() {
    let hosts = Hosts::build();
    let dir = tempfile::tempdir().expect("a directory");
    // Who comes through the port that is published under another number arrives at an address of
    // its own, as in a container.
    let conf = "advertisedAddresses = 127.0.0.2:9876=127.0.0.1:19876; \
                10.77.2.0/24=10.77.2.1:10911; *:10911=127.0.0.1:29876";
    let server = Server::start(dir.path(), conf);
    quickstart(SERVER, "localhost:9876");
    quickstart(NEAR, "10.77.1.1:9876");
    quickstart(OTHER, "10.77.2.1:9876");
    forward_port(FAR, 9876, SERVER, "127.0.0.1:9876");
    quickstart(FAR, "localhost:9876");
    forward_port(FAR, 19876, SERVER, "127.0.0.2:9876");
    quickstart(FAR, "localhost:19876");
    // As a published port of a container: the server is reached at the address of its interface,
    // which clients elsewhere cannot dial.
    forward_port(FAR, 29876, SERVER, "10.77.1.1:10911");
    quickstart(FAR, "localhost:29876");
    drop(server);
    drop(hosts);
}
