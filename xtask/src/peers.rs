//! The servers that are compared: Apache RocketMQ from Maven Central, Apogee, and the floor.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::commands::{self, command, output, run};
use crate::machine;
use crate::questions::Questions;

pub const APACHE_VERSION: &str = "5.5.0";
/// The last of those before 5.0, which many still run.
pub const APACHE_VERSION_OLD: &str = "4.9.7";
/// A log of 8 GiB may have to be read.
const START_MAX: Duration = Duration::from_secs(300);
const STOP_MAX: Duration = Duration::from_secs(120);
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

/// What a benchmark runs, and where.
#[derive(Args)]
pub struct PlaceArgs {
    /// Where Apache RocketMQ lies or will be fetched to.
    #[arg(long, value_name = "DIR")]
    apache_home: Option<PathBuf>,
    /// The program, instead of a release build of it.
    #[arg(long, value_name = "FILE")]
    apogee_bin: Option<PathBuf>,
    /// Where stores are made, up to 20 GiB, and deleted afterwards [default: in the target
    /// directory].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Heap of Apache's broker, as `4g` or `512m`; half of it is for young objects.
    #[arg(long, value_name = "SIZE", default_value = "4g", value_parser = broker_heap)]
    heap: String,
}

/// What the JVM is told for a heap of this size.
fn broker_heap(size: &str) -> anyhow::Result<String> {
    let number = |unit| size.strip_suffix(unit).and_then(|it: &str| it.parse::<u64>().ok());
    let mib = number('g').map(|gib| gib * 1024).or_else(|| number('m'));
    let mib = mib.filter(|mib| 64 <= *mib).context("must be as `4g` or `512m`, 64m at least")?;
    let young = if mib % 2048 == 0 { format!("{}g", mib / 2048) } else { format!("{}m", mib / 2) };
    Ok(format!("-Xms{size} -Xmx{size} -Xmn{young}"))
}

impl PlaceArgs {
    /// Fetches and builds what is not given; makes the directory.
    pub fn places(&self) -> anyhow::Result<Places> {
        let apache_home = fetch_apache(APACHE_VERSION, self.apache_home.as_deref())?;
        let apogee = self.apogee_bin.clone().map_or_else(commands::build_apogee, Ok)?;
        let data = self.data.clone().unwrap_or_else(|| commands::target_dir().join("bench-data"));
        std::fs::create_dir_all(&data)?;
        let (apogee, data) = (apogee.canonicalize()?, data.canonicalize()?);
        Ok(Places { apache_home, apogee, data, broker_heap: self.heap.clone() })
    }
}

/// Where the servers are and where they may write.
pub struct Places {
    pub apache_home: PathBuf,
    pub apogee: PathBuf,
    /// Stores are made in here and deleted afterwards.
    pub data: PathBuf,
    /// What the JVM of Apache's broker is told.
    pub broker_heap: String,
}

/// A running server. Ends with this value as by `kill -9`, and what is in `dir` goes.
pub struct Peer {
    pub kind: Kind,
    pub name_server: String,
    /// `host:port`.
    pub broker: String,
    /// From the start of a process until it answered: each process.
    pub start_times: Vec<Duration>,
    /// The broker last.
    processes: Vec<Child>,
    store: PathBuf,
    patience: Duration,
    dir: PathBuf,
}

/// How a server runs, beside its default settings.
pub struct Setup<'a> {
    pub flush: Flush,
    /// A store that stays when the server ends; else an empty one that goes with it.
    pub store: Option<&'a Path>,
    /// The broker is run by this command, in whose process it must end up.
    pub under: &'a [&'a str],
    /// What a broker that serves has; else its name server must know it.
    pub queues: &'a [Queue],
    /// How long it may take until then.
    pub patience: Duration,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { flush: Flush::Async, store: None, under: &[], queues: &[], patience: START_MAX }
    }
}

/// A queue, and the offset that its next message will get.
pub struct Queue {
    pub topic: String,
    pub id: u32,
    pub next: u64,
}

impl Places {
    pub fn start(&self, kind: Kind, flush: Flush) -> anyhow::Result<Peer> {
        self.start_with(kind, &Setup { flush, ..Setup::default() })
    }

    pub fn start_with(&self, kind: Kind, setup: &Setup<'_>) -> anyhow::Result<Peer> {
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
            broker: format!("127.0.0.1:{broker}"),
            start_times: Vec::new(),
            processes: Vec::new(),
            store: setup.store.map_or_else(|| dir.join("store"), Path::to_owned),
            patience: setup.patience,
            dir,
        };
        let config = peer.config(broker, setup.flush)?;
        match kind {
            Kind::Apache => self.start_apache(&mut peer, name_server, &config, setup)?,
            Kind::Apogee => {
                let mut apogee = under(setup.under, &self.apogee);
                apogee.arg("--data").arg(&peer.store).arg("-c").arg(&config);
                apogee.arg(format!("--port={name_server}"));
                apogee.arg(format!("--broker-port={broker}"));
                peer.launch(apogee, "apogee.log", &|peer| peer.serves(setup.queues))?;
            }
            Kind::Floor => {
                let mut floor = Command::new(&self.apogee);
                floor.args(["bench", "floor"]).arg(format!("--port={name_server}"));
                peer.launch(floor, "floor.log", &|peer| is_routable(&peer.name_server))?;
            }
        }
        Ok(peer)
    }

    /// What `apogee bench` says of a load of these words.
    pub fn bench(&self, peer: &Peer, words: &[&str]) -> anyhow::Result<Value> {
        said(self.bench_command(peer, words).arg("--pid").arg(peer.pids().join(",")))
    }

    /// Without the processes of the server.
    pub fn bench_command(&self, peer: &Peer, words: &[&str]) -> Command {
        let mut bench = command(&self.apogee, &["bench"]);
        bench.args(words).args(["--json", "-n", &peer.name_server]);
        bench
    }

    fn start_apache(
        &self,
        peer: &mut Peer,
        port: u16,
        config: &Path,
        setup: &Setup<'_>,
    ) -> anyhow::Result<()> {
        let name_server_config = peer.dir.join("namesrv.conf");
        std::fs::write(&name_server_config, format!("listenPort={port}\n"))?;
        let mut name_server = self.java(peer, &[], NAME_SERVER_HEAP, "namesrv", "NamesrvStartup");
        name_server.arg("-c").arg(&name_server_config);
        peer.launch(name_server, "namesrv.log", &|peer| route_code(&peer.name_server).is_some())?;
        let heap: Vec<&str> = self.broker_heap.split(' ').collect();
        let mut broker = self.java(peer, setup.under, &heap, "broker", "BrokerStartup");
        broker.arg("-c").arg(config).args(["-n", &peer.name_server]);
        peer.launch(broker, "broker.log", &|peer| peer.serves(setup.queues))
    }

    fn java(
        &self,
        peer: &Peer,
        wrapper: &[&str],
        heap: &[&str],
        part: &str,
        main: &str,
    ) -> Command {
        let mut java = under(wrapper, Path::new("java"));
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
        let store = &self.store;
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
        is_up: &dyn Fn(&Self) -> bool,
    ) -> anyhow::Result<()> {
        let log = self.dir.join(log);
        let file = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        command.current_dir(&self.dir);
        let started = Instant::now();
        let program = command.get_program().to_string_lossy().into_owned();
        self.processes.push(command.spawn().with_context(|| program.clone())?);
        while !is_up(self) {
            let process = self.processes.last_mut().expect("it was just pushed");
            let ended = process.try_wait()?;
            if ended.is_some() || self.patience < started.elapsed() {
                let how = match ended {
                    Some(status) => format!("ended with {status}"),
                    None => format!("does not serve after {:?}", self.patience),
                };
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                let said = said.lines().filter(|line| !line.contains("|-")).collect::<Vec<_>>();
                bail!("{program} {how}:\n{}", said.join("\n"));
            }
            // Asking must not slow the start that it measures: one part in a hundred is exact
            // enough.
            std::thread::sleep((started.elapsed() / 100).max(Duration::from_micros(500)));
        }
        self.start_times.push(started.elapsed());
        Ok(())
    }

    /// Whether the broker has these queues; without any, whether the name server knows it.
    fn serves(&self, queues: &[Queue]) -> bool {
        if queues.is_empty() {
            return is_routable(&self.name_server);
        }
        let Some(mut broker) = Questions::connect(&self.broker) else { return false };
        // What was written last comes back last.
        let is_there = |queue: &Queue| broker.next_offset(queue) == Some(queue.next);
        queues.iter().rev().all(is_there)
    }

    /// From the start of the broker until it served.
    pub fn ready_time(&self) -> Duration {
        *self.start_times.last().expect("it was started")
    }

    /// Waits until the name server knows a topic; says since when the broker runs then.
    pub fn wait_for_route(&self, topic: &str, since: Instant) -> anyhow::Result<Duration> {
        let mut name_server = Questions::connect(&self.name_server).context("no name server")?;
        while name_server.route_code(topic) != Some(0) {
            ensure!(since.elapsed() < START_MAX, "the name server does not learn of {topic}");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(since.elapsed())
    }

    /// Asks the broker to stop and waits until it has.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.signal_broker(Signal::TERM);
        let mut broker = self.processes.pop().expect("it was started");
        let asked = Instant::now();
        while broker.try_wait()?.is_none() {
            if STOP_MAX < asked.elapsed() {
                self.processes.push(broker);
                bail!("{:?} does not stop", self.kind);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What the broker has printed.
    pub fn log(&self) -> String {
        let name = if self.kind == Kind::Apache { "broker.log" } else { "apogee.log" };
        std::fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }

    pub fn broker_pid(&self) -> u32 {
        self.processes.last().expect("it was started").id()
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
        self.pids().iter().map(|pid| machine::cpu_seconds_of(pid)).sum()
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

/// The line of JSON that a command prints.
pub fn said(command: &mut Command) -> anyhow::Result<Value> {
    let text = output(command)?;
    serde_json::from_str(&text).with_context(|| format!("apogee said {text}"))
}

/// A program, run by a command.
fn under(wrapper: &[&str], program: &Path) -> Command {
    match wrapper {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    }
}

/// Whether the name server knows the topic that every broker registers.
fn is_routable(name_server: &str) -> bool {
    route_code(name_server) == Some(0)
}

fn route_code(name_server: &str) -> Option<i64> {
    Questions::connect(name_server)?.route_code("TBW102")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_a_heap_is_for_young_objects() {
        for (size, flags) in [
            ("4g", "-Xms4g -Xmx4g -Xmn2g"),
            ("1g", "-Xms1g -Xmx1g -Xmn512m"),
            ("768m", "-Xms768m -Xmx768m -Xmn384m"),
        ] {
            assert_eq!(broker_heap(size).expect("a size"), flags);
        }
        for bad in ["", "4", "g", "-1g", "4t", "1m"] {
            assert!(broker_heap(bad).is_err(), "{bad}");
        }
    }
}
