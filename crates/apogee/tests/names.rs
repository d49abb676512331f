//! Name servers and a broker, each a process of its own.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "files are its input")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use apogee_client::{Client, Error, Message, Options, Producer};
use rustix::process::{Pid, Signal, kill_process};

/// Longer than a broker takes to come back, shorter than it takes to register anyway.
const SOON: Duration = Duration::from_secs(8);

/// `kill -9` at the end.
struct Process(Child);

impl Process {
    /// Starts a role over the settings `conf`, and waits until it is ready.
    fn start(dir: &Path, role: &str, conf: &str, arguments: &[&str]) -> Self {
        let file = dir.join(format!("{role}.conf"));
        std::fs::write(&file, conf).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_apogee"))
            .args([role, "-c", file.to_str().unwrap()])
            .args(arguments)
            .current_dir(dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let is_ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("ready"));
        assert!(is_ready, "the {role} ended before it was ready");
        std::thread::Builder::new().spawn(move || lines.for_each(drop)).unwrap();
        Self(child)
    }

    fn name_server(dir: &Path, port: u16) -> Self {
        let conf = format!("listenPort={port}\nbindAddress=127.0.0.1\nkvConfigPath=kv.json\n");
        Self::start(dir, "namesrv", &conf, &[])
    }

    fn broker(dir: &Path, port: u16, name_servers: &str) -> Self {
        let conf = format!(
            "listenPort={port}\nbrokerName=b\nstorePathRootDir=store\nbrokerIP1=127.0.0.1\n\
             bindAddress=127.0.0.1\n"
        );
        Self::start(dir, "broker", &conf, &["-n", name_servers])
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the name servers of `client` tell of a topic, or do not any more.
async fn until_route(client: &Client, topic: &str, is_there: bool) {
    let began = Instant::now();
    loop {
        match client.refresh_route(topic).await {
            Ok(_) if is_there => return,
            Err(Error::NoRoute { .. }) if !is_there => return,
            _ => assert!(began.elapsed() < SOON, "{topic}: a route, after {SOON:?}: {}", !is_there),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn name_servers_are_restarted_one_after_the_other_and_messages_pass() {
    let dir = tempfile::tempdir().unwrap();
    let ports = [23_501, 23_502];
    let addrs = ports.map(|port| format!("127.0.0.1:{port}"));
    let both = addrs.join(";");
    let mut names = ports.map(|port| Process::name_server(dir.path(), port));
    let broker = Process::broker(dir.path(), 23_511, &both);
    let clients = addrs.map(|addr| Client::new(Options::new(&addr)));
    for client in &clients {
        until_route(client, "TBW102", true).await;
    }
    let producer = Producer::builder(&both).start().await.unwrap();
    producer.send(Message::new("kept", "x")).await.unwrap();
    for at in [0, 1] {
        names[at].0.kill().unwrap();
        names[at].0.wait().unwrap();
        producer.send(Message::new("kept", "x")).await.unwrap();
        // A topic of before goes, two others come while this one is away.
        clients[1 - at].create_topic("short-lived", 1).await.unwrap();
        until_route(&clients[1 - at], "short-lived", true).await;
        clients[1 - at].delete_topic("short-lived").await.unwrap();
        for topic in ["new", "newer"].map(|topic| format!("{topic}-{at}")) {
            producer.send(Message::new(&topic, "x")).await.unwrap();
        }
        names[at] = Process::name_server(dir.path(), ports[at]);
        for topic in ["kept", "TBW102", &format!("new-{at}"), &format!("newer-{at}")] {
            until_route(&clients[at], topic, true).await;
        }
        producer.send(Message::new("kept", "x")).await.unwrap();
    }
    drop(broker);
    for client in &clients {
        until_route(client, "kept", false).await;
    }
}

#[test]
fn a_broker_stops_within_two_seconds_though_no_name_server_answers() {
    let dir = tempfile::tempdir().unwrap();
    let mute: Vec<_> = (0..5).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addrs: Vec<_> = mute.iter().map(|it| it.local_addr().unwrap().to_string()).collect();
    let mut broker = Process::broker(dir.path(), 23_521, &addrs.join(";"));
    let began = Instant::now();
    kill_process(Pid::from_child(&broker.0), Signal::TERM).unwrap();
    assert!(broker.0.wait().unwrap().success());
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}
