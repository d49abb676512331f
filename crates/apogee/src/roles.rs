//! What each role is made of: the only wiring in the code base.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use apogee_broker::{Broker, Identity};
use apogee_client::{Client, Options};
use apogee_listeners::remoting::names::{NameServer, OwnBroker};
use apogee_listeners::remoting::registrar::Registrar;
use apogee_listeners::remoting::{self, Door, Router};
use apogee_net::{Listener, Tcp, Transport};
use apogee_store::{Documents, RealDisk, Store};
use apogee_types::settings;
use apogee_types::{Millis, SystemClock};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config::Config;
use crate::steps::{EndProcessOnPanic, Steps};
use crate::{greeting, machine, retention};

/// How often the memory ahead of the log's end is looked after, and the keys that wait for the
/// index; at full speed both last longer.
const PREPARE_PAUSE: Duration = Duration::from_millis(25);

/// The same while nothing is appended: what lies prepared lasts for that long at 128 MB/s.
const PREPARE_PAUSE_IDLE: Duration = Duration::from_millis(500);

/// How often name servers look for brokers that went silent, and brokers for changed topics.
const SWEEP_PAUSE_IDLE: Duration = Duration::from_secs(1);

/// A flush that has failed does not succeed later; this only repeats why nothing is accepted.
const FAILED_PAUSE: Duration = Duration::from_secs(10);

/// Name server and broker in one process, both on every port.
pub fn standalone(config: Config, port: u16) -> anyhow::Result<()> {
    run(async {
        let mut listeners = vec![listen(&config, port, "--port").await?];
        listeners.extend(listen_all(&config, &broker_ports(&config), "--broker-port").await?);
        let running = RunningBroker::start(&config)?;
        let own = OwnBroker {
            addr: broker_addr(&config).into(),
            ha_addr: ha_addr(&config).into(),
            listen_port: config.broker.listen_port,
            advertised: config.broker.advertised_addresses.clone(),
            is_fixed: !config.broker.broker_ip1.is_empty(),
        };
        let names = Arc::new(open_names(&config, Some(own))?);
        let router = remoting::name_server_routes(remoting::broker_routes(Router::default()));
        let limits = (&config.net, &config.store);
        let door = Door::new(router, Some(Arc::clone(&running.broker)), Some(names), limits);
        door.topics_changed();
        serve(&door, listeners, || greeting::broker(&config, &broker_addr(&config), Some(port)))
            .await?;
        running.stop()
    })
}

/// A broker that registers with name servers elsewhere.
pub fn broker(config: Config) -> anyhow::Result<()> {
    run(async {
        let listeners = listen_all(&config, &broker_ports(&config), "listenPort").await?;
        let running = RunningBroker::start(&config)?;
        let router = remoting::broker_routes(Router::default());
        let limits = (&config.net, &config.store);
        let door = Door::new(router, Some(Arc::clone(&running.broker)), None, limits);
        // What was there at the start each registrar tells anyway.
        door.topics_changed();
        let mut registering = JoinSet::new();
        let greet = || {
            greeting::broker(&config, &broker_addr(&config), None);
            for registrar in registrars(&config, &door) {
                registering.spawn(registrar.run());
            }
        };
        serve(&door, listeners, greet).await?;
        registering.shutdown().await;
        let mut leaving = JoinSet::new();
        for registrar in registrars(&config, &door) {
            leaving.spawn(async move { registrar.leave().await });
        }
        // A name server that does not answer finds out by itself.
        let _ = tokio::time::timeout(Duration::from_millis(500), leaving.join_all()).await;
        running.stop()
    })
}

/// A name server.
pub fn namesrv(config: Config) -> anyhow::Result<()> {
    run(async {
        let listener = listen(&config, config.namesrv.listen_port, "listenPort").await?;
        let names = Arc::new(open_names(&config, None)?);
        let router = remoting::name_server_routes(Router::default());
        let door = Door::new(router, None, Some(names), (&config.net, &config.store));
        serve(&door, vec![listener], || greeting::name_server(&config)).await
    })
}

/// One for each name server.
fn registrars(config: &Config, door: &Arc<Door>) -> Vec<Registrar> {
    let options = Options::new(config.broker.namesrv_addr.as_str());
    let name_servers = options.name_servers.clone();
    let client = Client::new(options);
    let registrar = |name_server| Registrar {
        door: Arc::clone(door),
        client: client.clone(),
        name_server,
        addr: broker_addr(config),
        ha_addr: ha_addr(config),
    };
    name_servers.into_iter().map(registrar).collect()
}

fn open_names(config: &Config, own: Option<OwnBroker>) -> anyhow::Result<NameServer> {
    let (clock, disk) = (Arc::new(SystemClock), Arc::new(RealDisk));
    NameServer::open(config.namesrv.clone(), clock, disk, own)
        .map_err(|error| anyhow::anyhow!("the name server's configuration: {error}"))
}

/// Serves connections until a signal comes; then nothing new arrives and all of them close.
async fn serve(
    door: &Arc<Door>,
    listeners: Vec<Box<dyn Listener>>,
    greet: impl FnOnce(),
) -> anyhow::Result<()> {
    // A name server has no backlog.
    let backlog = door.broker.is_some().then(backlog_runtime).transpose()?;
    let mut doors = JoinSet::new();
    for listener in listeners {
        let backlog = backlog.as_ref().map(|runtime| runtime.handle().clone());
        doors.spawn(Arc::clone(door).accept(listener, backlog));
    }
    doors.spawn(sweep(Arc::clone(door)));
    // Who is told that we are ready may ask us to stop at once.
    let stop = machine::stop_requested()?;
    greet();
    let signal = stop.await;
    tracing::info!(signal, "stopping");
    doors.shutdown().await;
    if let Some(backlog) = backlog {
        // What is under way there ends before the store is closed, unless the disk holds it up.
        let end = || backlog.shutdown_timeout(Duration::from_secs(1));
        tokio::task::spawn_blocking(end).await?;
    }
    Ok(())
}

/// What has to happen a few times a second although nobody asks.
async fn sweep(door: Arc<Door>) {
    loop {
        match door.sweep_step() {
            Some(pause) => tokio::time::sleep(pause).await,
            // Parked or not, it is time.
            None => drop(tokio::time::timeout(SWEEP_PAUSE_IDLE, door.parked.notified()).await),
        }
    }
}

/// A broker over its store, and the threads that serve them.
struct RunningBroker {
    broker: Arc<Broker>,
    steps: Steps,
    tasks: JoinSet<()>,
}

impl RunningBroker {
    fn start(config: &Config) -> anyhow::Result<Self> {
        let broker = open_broker(config)?;
        let mut steps = Steps::default();
        run_store_steps(&mut steps, &broker, &config.store)?;
        let delaying = Arc::clone(&broker);
        steps.run("delay", move || Duration::from_millis(delaying.delay_step().unsigned_abs()))?;
        let tidying = Arc::clone(&broker);
        let period = Duration::from_millis(config.broker.flush_consumer_offset_interval);
        steps.run("housekeeping", move || {
            tidying.housekeeping_step();
            period
        })?;
        let mut tasks = JoinSet::new();
        tasks.spawn(write_created(Arc::clone(&broker)));
        if broker.store.flushes_synchronously() {
            tasks.spawn(flush_for_all(Arc::clone(&broker)));
        }
        Ok(Self { broker, steps, tasks })
    }

    /// The steps end first: what follows must be the last word.
    fn stop(mut self) -> anyhow::Result<()> {
        self.steps.stop();
        self.tasks.abort_all();
        self.broker.persist_tables()?;
        self.broker.persist_progress()?;
        self.broker.store.close()?;
        tracing::info!("stopped; everything is on disk");
        Ok(())
    }
}

fn open_broker(config: &Config) -> anyhow::Result<Arc<Broker>> {
    let disk = Arc::new(RealDisk);
    let clock = Arc::new(SystemClock);
    let root = Path::new(&config.store.store_path_root_dir);
    // Why they cannot be read is told when the broker reads them.
    let topics = crate::store::topics(root).unwrap_or_default();
    let kept = apogee_store::Settings { topics, ..store_settings(config)? };
    let store = Store::open(disk.clone(), clock.clone(), kept);
    let store = store.map_err(|error| explain_store(error, root))?;
    let identity = Identity {
        cluster: config.broker.broker_cluster_name.clone(),
        name: config.broker.broker_name.clone(),
        id: config.broker.broker_id,
        store_host: store_host(config),
    };
    let documents = Documents::new(disk, root);
    let seed = fastrand::u64(..);
    let settings = config.broker.clone();
    let broker = Broker::new(identity, settings, clock, Arc::new(store), documents, seed)?;
    Ok(Arc::new(broker))
}

pub fn store_settings(config: &Config) -> anyhow::Result<apogee_store::Settings> {
    let store = &config.store;
    let kept = apogee_store::Settings::at(&store.store_path_root_dir);
    Ok(apogee_store::Settings {
        commit_log_dir: store.commit_log_dir(),
        segment_len: store.mapped_file_size_commit_log,
        queue_file_len: store.mapped_file_size_consume_queue,
        // Most descriptors are for connections.
        queue_files_open_max: kept.queue_files_open_max.min(machine::file_limit() / 4),
        index_enabled: store.message_index_enable,
        index_slot_count: store.max_hash_slot_num,
        index_entry_count: store.max_index_num,
        local_time,
        flush: store.flush_disk_type,
        delays_ms: config.broker.message_delay_level.delays_ms(),
        ..kept
    })
}

fn local_time(utc_ms: Millis) -> Millis {
    let time = jiff::Timestamp::from_millisecond(utc_ms).unwrap_or_default();
    utc_ms + 1000 * Millis::from(jiff::tz::TimeZone::system().to_offset(time).seconds())
}

fn run_store_steps(
    steps: &mut Steps,
    broker: &Arc<Broker>,
    settings: &settings::StoreSettings,
) -> io::Result<()> {
    if !broker.store.flushes_synchronously() {
        let flushing = Arc::clone(broker);
        let interval = Duration::from_millis(settings.flush_interval_commit_log);
        steps.run("flush", move || {
            let pause = if flush(&flushing) { interval } else { FAILED_PAUSE };
            // What waited for room on the disk may have it now.
            flushing.dispatch_left();
            pause
        })?;
    }
    let preparing = Arc::clone(broker);
    let mut end = None;
    steps.run("prepare", move || match preparing.store.prepare_step() {
        Ok(true) => Duration::ZERO,
        result => {
            report(result);
            let is_idle = end.replace(preparing.store.visible()) == Some(preparing.store.visible());
            if is_idle { PREPARE_PAUSE_IDLE } else { PREPARE_PAUSE }
        }
    })?;
    let deleting = Arc::clone(broker);
    let policy = settings.clone();
    steps.run("retention", move || {
        report(retention::step(&deleting.store, &policy));
        Duration::from_millis(policy.clean_resource_interval)
    })?;
    let saving = Arc::clone(broker);
    let interval = Duration::from_millis(settings.flush_interval_consume_queue);
    steps.run("checkpoint", move || {
        report(saving.checkpoint_step());
        interval
    })
}

/// Writes topics and groups that were created, changed or removed, at once: who caused it waits.
/// What comes during a write is written with the next.
async fn write_created(broker: Arc<Broker>) {
    /// Until it is tried again after it failed.
    const PAUSE: Duration = Duration::from_secs(1);
    let _guard = EndProcessOnPanic;
    loop {
        poll_fn(|cx| broker.created.poll_unwritten(cx)).await;
        let writing = Arc::clone(&broker);
        let written = tokio::task::spawn_blocking(move || {
            let _guard = EndProcessOnPanic;
            writing.persist_tables()
        });
        // Cancelled: the process ends.
        let Ok(written) = written.await else { return };
        if let Err(error) = written {
            tracing::error!(%error, "topics and groups are not on disk; will try again");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Flushes the log; `false` if it takes no more messages.
fn flush(broker: &Broker) -> bool {
    let flushed = broker.store.flush_step();
    if let Err(error) = &flushed {
        tracing::error!(%error, "the log takes no more messages");
    }
    flushed.is_ok()
}

/// Flushes synchronously, for all who are ready at the same time at once. For a few messages and as
/// long as the device answers fast, on the thread of the doors: waking another thread, and being
/// woken by it, takes about as long as the device does. While many are flushed, the doors answer
/// those of the flush before and read the next.
async fn flush_for_all(broker: Arc<Broker>) {
    /// Messages that are flushed on the thread of the doors at most.
    const FEW: u64 = 8;
    /// What the doors may have to wait, and how many flushes are left to another thread after one
    /// that took longer.
    const FAST: Duration = Duration::from_millis(2);
    const SLOW_COUNT: u32 = 32;
    let _guard = EndProcessOnPanic;
    let mut slow = 0_u32;
    let mut gather = Gather { until: Instant::now(), count: 0 };
    let mut flushed_count = 0;
    loop {
        poll_fn(|cx| broker.store.poll_unflushed(cx)).await;
        // Whoever is ready now comes along.
        tokio::task::yield_now().await;
        while broker.store.put_count() < gather.count && Instant::now() < gather.until {
            tokio::task::yield_now().await;
        }
        let count = broker.store.put_count();
        let answered = count - flushed_count;
        flushed_count = count;
        let (is_flushed, taken) = if slow == 0 && answered <= FEW {
            flush_timed(&broker)
        } else {
            let broker = Arc::clone(&broker);
            let flushed = tokio::task::spawn_blocking(move || {
                let _guard = EndProcessOnPanic;
                flush_timed(&broker)
            });
            // Cancelled: the process ends.
            let Ok(flushed) = flushed.await else { return };
            flushed
        };
        slow = if FAST < taken { SLOW_COUNT } else { slow.saturating_sub(1) };
        // Only what has just reached the device may be seen.
        broker.dispatch();
        let (expected, wait) = match answered {
            all if 0 < slow => (all, taken / 16),
            few if few <= FEW => (few / 2, taken / 2),
            many => (many * 3 / 4, taken * 3 / 2),
        };
        gather =
            Gather { until: Instant::now() + wait, count: broker.store.put_count() + expected };
        if !is_flushed {
            tokio::time::sleep(FAILED_PAUSE).await;
        }
    }
}

/// [`flush`], and how long it took.
fn flush_timed(broker: &Broker) -> (bool, Duration) {
    let began = Instant::now();
    (flush(broker), began.elapsed())
}

/// Who was just answered mostly sends again at once. If the next flush does not wait for them for a
/// moment, they wait for two. With a slow device that is most of their time, so all are waited for;
/// with a fast one most of them, or half of a few, so that flushes serve enough and a message that
/// comes alone waits for nobody.
struct Gather {
    until: Instant,
    /// Messages since the start, once they are back.
    count: u64,
}

fn report<T>(result: Result<T, apogee_store::Error>) {
    if let Err(error) = result {
        tracing::error!(%error, "the store");
    }
}

/// Runs a role to its end, with as many open files as the system allows.
fn run(role: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    machine::raise_file_limit();
    runtime()?.block_on(role)
}

fn runtime() -> io::Result<Runtime> {
    runtime_builder("doors").build()
}

/// For connections that read a backlog. They may wait for the disk, and use what the doors leave of
/// the processor.
fn backlog_runtime() -> io::Result<Runtime> {
    runtime_builder("backlog").on_thread_start(machine::let_others_go_first).build()
}

/// Leaves one core to the steps.
fn runtime_builder(thread_name: &str) -> tokio::runtime::Builder {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(cores.saturating_sub(1).max(1)).thread_name(thread_name).enable_all();
    builder
}

/// The port that is configured, and the one that clients before 4.9 derive from it.
fn broker_ports(config: &Config) -> Vec<u16> {
    let port = config.broker.listen_port;
    [Some(port), port.checked_sub(2).filter(|fast| *fast != 0)].into_iter().flatten().collect()
}

/// The address that is registered: as configured, else ours on the way to the name server.
fn broker_addr(config: &Config) -> String {
    match config.broker.broker_ip1.as_str() {
        "" => store_host(config).to_string(),
        ip => format!("{ip}:{}", config.broker.listen_port),
    }
}

/// The address at which slaves find this broker.
fn ha_addr(config: &Config) -> String {
    let port = u16::try_from(config.store.ha_listen_port).unwrap_or_default();
    match config.broker.broker_ip2.as_str() {
        "" => SocketAddr::new(store_host(config).ip(), port).to_string(),
        ip => format!("{ip}:{port}"),
    }
}

/// The same as part of records and message ids, which hold no names.
fn store_host(config: &Config) -> SocketAddr {
    let name_server =
        config.broker.namesrv_addr.as_str().split(';').next().filter(|addr| !addr.is_empty());
    let bound = Some(config.net.bind_address).filter(|ip| !ip.is_unspecified());
    let given = config.broker.broker_ip1.parse().ok().or(bound);
    let ip = given.unwrap_or_else(|| machine::local_ip(name_server));
    SocketAddr::new(ip, config.broker.listen_port)
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
    let addr = SocketAddr::new(config.net.bind_address, port);
    let net = &config.net;
    let tcp = Tcp {
        send_buffer_len: net.server_socket_snd_buf_size,
        receive_buffer_len: net.server_socket_rcv_buf_size,
    };
    tcp.listen(addr).await.map_err(|error| {
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

/// Why a store did not open, with what its operator can do.
fn explain_store(error: apogee_store::Error, root: &Path) -> anyhow::Error {
    let elsewhere = "choose another directory (storePathRootDir, --data)";
    let repair = format!(
        "if the settings are right, `apogee store repair {}` builds queues and index anew, or ",
        root.display()
    );
    // What lies below is built from the log.
    let is_built = |path: &Path| {
        let of_store = path.strip_prefix(root).map_or(Vec::new(), |it| it.iter().collect());
        matches!(of_store[..], [dir, _, ..] if dir == "consumequeue" || dir == "index")
    };
    let advice = match &error {
        apogee_store::Error::Locked { .. } => "or ",
        apogee_store::Error::Io { source, .. } => match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem => "remount the file system writable, or ",
            io::ErrorKind::PermissionDenied => "give the directory and its files to this user, or ",
            io::ErrorKind::StorageFull => "make room on the disk, or ",
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                "a file stands where a directory should be: move it away, or "
            }
            _ => "see the log of the system, or ",
        },
        apogee_store::Error::Foreign { path, .. }
        | apogee_store::Error::WrongLength { path, .. }
        | apogee_store::Error::Gap { path }
            if is_built(path) =>
        {
            &repair
        }
        _ => "the store was not touched; see the settings, or ",
    };
    anyhow::anyhow!("cannot open the store: {error}; {advice}{elsewhere}")
}
