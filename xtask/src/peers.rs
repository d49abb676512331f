//! The servers that are compared: Apache RocketMQ from Maven Central, Apogee, and the floor.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::commands::{self, command, run};

pub const APACHE_VERSION: &str = "5.5.0";
/// The last of those before 5.0, which many still run.
pub const APACHE_VERSION_OLD: &str = "4.9.7";
const START_MAX: Duration = Duration::from_secs(90);
/// A broker of Apache's registers every 30 seconds, and what it does first may fail.
const RESUME_MAX: Duration = Duration::from_secs(90);

/// What `runbroker.sh` and `runserver.sh` give the JVM, but for the heap and for touching all of
/// it at the start, which would only make memory and start look worse.
const JVM: &[&str] = &[
    "-server",
    "-XX:+UseG1GC",
    "-XX:G1HeapRegionSize=16m",
    "-XX:G1ReservePercent=25",
    "-XX:InitiatingHeapOccupancyPercent=30",
    "-XX:SoftRefLRUPolicyMSPerMB=0",
    "-XX:-OmitStackTraceInFastThrow",
    "-XX:-UseLargePages",
    "-XX:MaxDirectMemorySize=15g",
    "--add-exports=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
];
pub const BROKER_HEAP: &[&str] = &["-Xms4g", "-Xmx4g", "-Xmn2g"];
pub const NAME_SERVER_HEAP: &[&str] = &["-Xms512m", "-Xmx512m", "-Xmn256m"];

/// Fetches Apache RocketMQ if it is not there; says where it lies.
pub fn fetch_apache(version: &str, home: Option<&Path>) -> anyhow::Result<PathBuf> {
    let cached = commands::target_dir().join(format!("apache-rocketmq-{version}"));
    let home = home.map_or(cached, Path::to_owned);
    let script = commands::root().join("compat/fetch-apache.sh");
    run(command(script, &[version]).arg(&home))?;
    Ok(home)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Apache,
    Apogee,
    /// The throw-away server of `apogee bench floor`.
    Floor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    Async,
    Sync,
}

/// Where the servers are and where they may write.
pub struct Places {
    pub apache_home: PathBuf,
    pub apogee: PathBuf,
    /// Stores are made in here and deleted afterwards.
    pub data: PathBuf,
}

/// A running server with an empty store of its own. Ends with this value, and its store as well.
pub struct Peer {
    pub kind: Kind,
    pub name_server: String,
    /// From the start of a process until it answered: each process.
    pub start_times: Vec<Duration>,
    /// The broker last.
    processes: Vec<Child>,
    dir: PathBuf,
}

impl Places {
    pub fn start(&self, kind: Kind, flush: Flush) -> anyhow::Result<Peer> {
        let (name_server, broker) = match kind {
            Kind::Apache => (29801, 29811),
            Kind::Apogee => (29821, 29831),
            Kind::Floor => (29841, 29841),
        };
        let dir = self.data.join(format!("{kind:?}").to_lowercase());
        remove_dir(&dir);
        std::fs::create_dir_all(&dir)?;
        let mut peer = Peer {
            kind,
            name_server: format!("127.0.0.1:{name_server}"),
            start_times: Vec::new(),
            processes: Vec::new(),
            dir,
        };
        let config = peer.config(broker, flush)?;
        match kind {
            Kind::Apache => self.start_apache(&mut peer, name_server, &config)?,
            Kind::Apogee => {
                let mut apogee = Command::new(&self.apogee);
                apogee.arg("--data").arg(peer.dir.join("store")).arg("-c").arg(&config);
                apogee.arg(format!("--port={name_server}"));
                apogee.arg(format!("--broker-port={broker}"));
                peer.launch(apogee, "apogee.log", is_routable)?;
            }
            Kind::Floor => {
                let mut floor = Command::new(&self.apogee);
                floor.args(["bench", "floor"]).arg(format!("--port={name_server}"));
                peer.launch(floor, "floor.log", is_routable)?;
            }
        }
        Ok(peer)
    }

    fn start_apache(&self, peer: &mut Peer, port: u16, config: &Path) -> anyhow::Result<()> {
        let name_server_config = peer.dir.join("namesrv.conf");
        std::fs::write(&name_server_config, format!("listenPort={port}\n"))?;
        let mut name_server = self.java(peer, NAME_SERVER_HEAP, "namesrv", "NamesrvStartup");
        name_server.arg("-c").arg(&name_server_config);
        peer.launch(name_server, "namesrv.log", |addr| answer(addr).is_some())?;
        let mut broker = self.java(peer, BROKER_HEAP, "broker", "BrokerStartup");
        broker.arg("-c").arg(config).args(["-n", &peer.name_server]);
        peer.launch(broker, "broker.log", is_routable)
    }

    fn java(&self, peer: &Peer, heap: &[&str], part: &str, main: &str) -> Command {
        let mut java = Command::new("java");
        java.args(heap).args(JVM);
        java.arg(format!("-Drmq.logback.configurationFile=rmq.{part}.logback.xml"));
        java.arg(format!("-Duser.home={}", peer.dir.display()));
        java.arg(format!("-Drocketmq.home.dir={}", peer.dir.display()));
        java.arg("-cp").arg(self.apache_home.join("lib/*"));
        java.arg(format!("org.apache.rocketmq.{part}.{main}"));
        java
    }
}

impl Peer {
    /// Default settings, but for names, places and when a message counts as stored.
    fn config(&self, broker_port: u16, flush: Flush) -> anyhow::Result<PathBuf> {
        let store = self.dir.join("store");
        let mut text = String::from("brokerClusterName=DefaultCluster\nbrokerName=broker-a\n");
        text += "brokerId=0\nbrokerIP1=127.0.0.1\n";
        text += &format!("listenPort={broker_port}\nstorePathRootDir={}\n", store.display());
        text += &format!("storePathCommitLog={}\n", store.join("commitlog").display());
        if flush == Flush::Sync {
            text += "flushDiskType=SYNC_FLUSH\n";
        }
        let path = self.dir.join("broker.conf");
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// Starts a process and waits until it is up.
    fn launch(
        &mut self,
        mut command: Command,
        log: &str,
        is_up: fn(&str) -> bool,
    ) -> anyhow::Result<()> {
        let log = self.dir.join(log);
        let file = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        command.current_dir(&self.dir);
        let started = Instant::now();
        let program = command.get_program().to_string_lossy().into_owned();
        self.processes.push(command.spawn().with_context(|| program.clone())?);
        while !is_up(&self.name_server) {
            let process = self.processes.last_mut().expect("it was just pushed");
            if process.try_wait()?.is_some() || START_MAX < started.elapsed() {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("{program} does not start:\n{said}");
            }
            // Asking must not slow the start that it measures: one part in a hundred is exact
            // enough.
            std::thread::sleep((started.elapsed() / 100).max(Duration::from_micros(500)));
        }
        self.start_times.push(started.elapsed());
        Ok(())
    }

    pub fn pids(&self) -> Vec<String> {
        self.processes.iter().map(|process| process.id().to_string()).collect()
    }

    /// Takes the processor from the broker, so that it does not disturb the measuring of another.
    /// A name server of its own goes on: after a pause it would take its broker for silent.
    pub fn pause(&self) {
        self.signal_broker(Signal::STOP);
    }

    /// Gives it back, and waits until the name server knows the broker: one that was silent for
    /// two minutes was forgotten.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal_broker(Signal::CONT);
        let resumed = Instant::now();
        while !is_routable(&self.name_server) {
            ensure!(
                resumed.elapsed() < RESUME_MAX,
                "after a pause, the name server {} knows no broker",
                self.name_server
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Seconds of processor time so far.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let mut ticks = 0_u64;
        for pid in self.pids() {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
            let fields = stat.rsplit_once(')').context("no process name")?.1.split_whitespace();
            for field in fields.skip(11).take(2) {
                ticks += field.parse::<u64>()?;
            }
        }
        Ok(ticks as f64 / 100.0)
    }

    fn signal_broker(&self, signal: Signal) {
        if let Some(process) = self.processes.last() {
            // One that has ended is noticed by the load that misses it.
            let _ = kill_process(Pid::from_child(process), signal);
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The store goes as well, so nothing is lost by not asking politely.
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        remove_dir(&self.dir);
    }
}

/// A directory that is not there is as good as a removed one.
fn remove_dir(dir: &Path) {
    let _ = std::fs::remove_dir_all(dir);
}

/// Whether the name server knows the topic that every broker registers.
fn is_routable(name_server: &str) -> bool {
    answer(name_server) == Some(0)
}

/// The code that the name server answers to a request for a route.
fn answer(name_server: &str) -> Option<i64> {
    const HEADER: &[u8] = br#"{"code":105,"extFields":{"topic":"TBW102"},"flag":0,"opaque":1}"#;
    let mut stream = TcpStream::connect(name_server).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
    let len = HEADER.len() as u32;
    let prefix = [(4 + len).to_be_bytes(), len.to_be_bytes()].concat();
    stream.write_all(&[&prefix, HEADER].concat()).ok()?;
    let mut prefix = [0; 8];
    stream.read_exact(&mut prefix).ok()?;
    let header_len = u32::from_be_bytes([0, prefix[5], prefix[6], prefix[7]]);
    let mut header = vec![0; header_len as usize];
    stream.read_exact(&mut header).ok()?;
    serde_json::from_slice::<serde_json::Value>(&header).ok()?.get("code")?.as_i64()
}
