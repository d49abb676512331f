//! A node in simulation: name server and broker in one process, as `apogee` runs them, on a disk,
//! a network and a clock that are not real. It can be stopped, killed and struck by a power cut.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use apogee_broker::{Broker, Identity};
use apogee_listeners::remoting::names::{NameServer, OwnBroker};
use apogee_listeners::remoting::{self, Door, Router};
use apogee_net::Transport;
use apogee_store::{Documents, FlushMode, Store};
use apogee_types::settings::{BrokerSettings, NamesrvSettings, NetSettings, StoreSettings};
use apogee_types::{Clock, Millis};
use tokio::task::JoinSet;

use crate::clock::SimClock;
use crate::disk::{PowerCut, SimDisk};
use crate::net::SimNet;

const ROOT: &str = "/store";
/// A clock is this far off at most, another way after each start.
const SKEW_MS_MAX: Millis = 200;
/// What a step may be late.
const LATE_MS_MAX: u64 = 3;

/// How a node is configured.
#[derive(Debug, Clone, Copy)]
pub struct NodeSettings {
    pub addr: SocketAddr,
    pub flush: FlushMode,
    /// With asynchronous flush, how often.
    pub flush_interval: Duration,
}

/// A machine with a disk, on which the node runs or does not.
pub struct Node {
    settings: NodeSettings,
    disk: SimDisk,
    net: SimNet,
    clock: SimClock,
    random: fastrand::Rng,
    running: Option<Running>,
}

struct Running {
    broker: Arc<Broker>,
    doors: JoinSet<()>,
    steps: JoinSet<()>,
}

impl Node {
    pub const BROKER: &str = "broker-a";

    #[must_use]
    pub fn new(
        settings: NodeSettings,
        disk: SimDisk,
        net: SimNet,
        clock: SimClock,
        seed: u64,
    ) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { settings, disk, net, clock, random, running: None }
    }

    /// Starts the process on what its disk holds; why it did not, if so. `false` if the power
    /// failed meanwhile: [`crash`](Self::crash) is next.
    pub async fn start(&mut self) -> Result<bool, String> {
        let listener = self.net.listen(self.settings.addr).await.map_err(|it| it.to_string())?;
        let skew_ms = self.random.i64(-SKEW_MS_MAX..=SKEW_MS_MAX);
        let clock: Arc<dyn Clock> = Arc::new(self.clock.with_skew(skew_ms));
        let Some(broker) = unless_power_fails(|| self.open_broker(&clock)) else {
            return Ok(false);
        };
        let broker = Arc::new(broker?);
        let addr = self.settings.addr;
        let own = OwnBroker {
            addr: addr.to_string().into(),
            ha_addr: addr.to_string().into(),
            listen_port: addr.port(),
            advertised: BrokerSettings::default().advertised_addresses,
            is_fixed: true,
        };
        let disk = Arc::new(self.disk.clone());
        let names = NameServer::open(NamesrvSettings::default(), clock, disk, Some(own))?;
        let router = remoting::name_server_routes(remoting::broker_routes(Router::default()));
        let limits = (&NetSettings::default(), &StoreSettings::default());
        let door = Door::new(router, Some(Arc::clone(&broker)), Some(Arc::new(names)), limits);
        door.topics_changed();
        let mut doors = JoinSet::new();
        doors.spawn(Arc::clone(&door).accept(listener, None));
        self.every(&mut doors, move || {
            door.sweep_step();
            Duration::from_millis(250)
        });
        let steps = self.run_steps(&broker);
        self.running = Some(Running { broker, doors, steps });
        Ok(true)
    }

    /// Ends the process in order; `false` if the power failed meanwhile.
    pub async fn stop(&mut self) -> Result<bool, String> {
        let Some(mut running) = self.running.take() else { return Ok(true) };
        running.doors.shutdown().await;
        running.steps.shutdown().await;
        let stopped = unless_power_fails(|| last_words(&running.broker));
        self.end();
        stopped.map_or(Ok(false), |stopped| stopped.map(|()| true))
    }

    /// The process dies; what it wrote is in the memory of the operating system.
    pub async fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.doors.shutdown().await;
            running.steps.shutdown().await;
        }
        self.end();
    }

    /// The power fails: of what was not on the device any part is lost.
    pub async fn crash(&mut self) {
        self.kill().await;
        self.disk.crash();
    }

    #[must_use]
    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    #[must_use]
    pub fn settings(&self) -> &NodeSettings {
        &self.settings
    }

    /// The broker, while it runs.
    #[must_use]
    pub fn broker(&self) -> Option<&Arc<Broker>> {
        self.running.as_ref().map(|running| &running.broker)
    }

    fn end(&mut self) {
        self.disk.kill();
        self.net.unlisten(self.settings.addr);
        // Else what was written into a socket still arrives.
        if self.random.bool() {
            self.net.cut_all();
        }
    }

    fn open_broker(&mut self, clock: &Arc<dyn Clock>) -> Result<Broker, String> {
        let settings = BrokerSettings { max_message_size: 4096, ..BrokerSettings::default() };
        // Small files, so that a short history crosses from one to the next.
        let kept = apogee_store::Settings {
            segment_len: 16 * 1024,
            queue_file_len: 400,
            queue_files_open_max: 16,
            index_slot_count: 16,
            index_entry_count: 64,
            flush: self.settings.flush,
            delays_ms: settings.message_delay_level.delays_ms(),
            ..apogee_store::Settings::at(ROOT)
        };
        let disk = Arc::new(self.disk.clone());
        let store = Store::open(disk.clone(), Arc::clone(clock), kept);
        let store = store.map_err(|error| error.to_string())?;
        let identity = Identity {
            cluster: settings.broker_cluster_name.clone(),
            name: Self::BROKER.to_owned(),
            id: 0,
            store_host: self.settings.addr,
        };
        let documents = Documents::new(disk, ROOT.as_ref());
        let (clock, seed) = (Arc::clone(clock), self.random.u64(..));
        Broker::new(identity, settings, clock, Arc::new(store), documents, seed)
            .map_err(|error| error.to_string())
    }

    /// The steps of a broker, as `apogee::roles` runs them.
    fn run_steps(&mut self, broker: &Arc<Broker>) -> JoinSet<()> {
        let mut steps = JoinSet::new();
        let (flushing, interval) = (Arc::clone(broker), self.settings.flush_interval);
        self.every(&mut steps, move || {
            let is_flushed = flushing.store.flush_step().is_ok();
            if flushing.store.flushes_synchronously() {
                if is_flushed {
                    flushing.dispatch();
                }
                // What the device takes.
                return interval / 20;
            }
            flushing.dispatch_left();
            interval
        });
        let preparing = Arc::clone(broker);
        self.every(&mut steps, move || match preparing.store.prepare_step() {
            Ok(true) => Duration::ZERO,
            _ => Duration::from_millis(100),
        });
        let deleting = Arc::clone(broker);
        self.every(&mut steps, move || {
            let reserved_ms = 72 * 3_600_000;
            let _ = deleting.store.delete_older(deleting.clock.now_ms() - reserved_ms, 10);
            Duration::from_secs(10)
        });
        let saving = Arc::clone(broker);
        self.every(&mut steps, move || {
            let _ = saving.checkpoint_step();
            Duration::from_secs(1)
        });
        let delaying = Arc::clone(broker);
        self.every(&mut steps, move || Duration::from_millis(delaying.delay_step().unsigned_abs()));
        let (writing, interval) = (Arc::clone(broker), Duration::from_millis(5));
        steps.spawn(async move {
            loop {
                poll_fn(|cx| writing.created.poll_unwritten(cx)).await;
                let _ = writing.persist_tables();
                tokio::time::sleep(interval).await;
            }
        });
        let tidying = Arc::clone(broker);
        self.every(&mut steps, move || {
            tidying.housekeeping_step();
            Duration::from_millis(tidying.settings.flush_consumer_offset_interval)
        });
        steps
    }

    /// Calls a step again and again, each time after the pause that it asks for and a little more.
    fn every(
        &mut self,
        tasks: &mut JoinSet<()>,
        mut step: impl FnMut() -> Duration + Send + 'static,
    ) {
        let mut random = self.random.fork();
        tasks.spawn(async move {
            loop {
                let late = Duration::from_millis(random.u64(1..=LATE_MS_MAX));
                tokio::time::sleep(step() + late).await;
            }
        });
    }
}

/// What a broker brings to the disk at its end.
fn last_words(broker: &Broker) -> Result<(), String> {
    broker.persist_tables().map_err(|error| error.to_string())?;
    broker.persist_progress().map_err(|error| error.to_string())?;
    broker.store.close().map_err(|error| error.to_string())
}

/// Does something on the disk; `None` if the power failed on the way.
fn unless_power_fails<T>(act: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(done) => Some(done),
        Err(panic) if panic.is::<PowerCut>() => None,
        Err(panic) => resume_unwind(panic),
    }
}
