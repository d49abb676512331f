//! The scenarios: which connections do what.

use std::time::Duration;

use anyhow::ensure;

use super::args::{
    ConsumeArgs, LatencyArgs, MixedArgs, OutputArgs, ProduceArgs, Shape, Span, Target,
};
use super::cluster::{self, Calls, Cluster};
use super::frames::{Spec, Stamp};
use super::link::Link;
use super::load::{Limits, Load, Role, Station};
use super::pace::Pace;
use super::puller::{AtEnd, Options, Puller};
use super::report::{self, Report};
use super::sender::Sender;
use super::watch::{self, MemoryWatch};

/// At a fixed rate a slow server must not stop the schedule.
const IN_FLIGHT_OF_SCHEDULE: u32 = 4096;
/// Messages that a waiting consumer asks for.
const PULL_COUNT: i32 = 32;

pub fn produce(args: &ProduceArgs) -> anyhow::Result<()> {
    let cluster = Cluster::prepare(&args.target)?;
    let senders = senders(&cluster, &args.target, &args.shape, args.in_flight)?;
    let title = format!("produce, {}", shape_text(&args.shape, senders.len(), args.in_flight));
    let load = load(senders, Pace::Unbounded, &args.span, fastrand::u64(..), false);
    run(load, title, &cluster, &args.target, &args.output)
}

pub fn consume(args: &ConsumeArgs) -> anyhow::Result<()> {
    let cluster = Cluster::prepare(&args.target)?;
    let at_end = if args.once { AtEnd::Stop } else { AtEnd::StartAgain };
    let options =
        Options { in_flight: args.in_flight, count_max: args.pull, at_end, verify: args.verify };
    let topic = &args.target.topic;
    let pullers = match args.scattered {
        false => pullers(&cluster, topic, args.connections, &options)?,
        true => scattered(&cluster, topic, args.connections, &options)?,
    };
    let title = format!(
        "consume, {} connections x {} pulls in flight, {} messages a pull",
        pullers.len(),
        args.in_flight,
        args.pull
    );
    let mut load = load(pullers, Pace::Unbounded, &args.span, 0, false);
    if args.once {
        load.limits.warmup = Duration::ZERO;
    }
    run(load, title, &cluster, &args.target, &args.output)
}

pub fn latency(args: &LatencyArgs) -> anyhow::Result<()> {
    let pace = match args.rate {
        Some(rate) => Pace::rate(rate),
        None if args.end_to_end => Pace::alone((args.pause * 1e6) as u64),
        None => Pace::rate(1000.0),
    };
    let rate = match args.rate {
        None if args.end_to_end => "one at a time".to_owned(),
        rate => format!("{} a second", rate.unwrap_or(1000.0)),
    };
    let kind = if args.end_to_end { "latency to a waiting consumer" } else { "latency" };
    let title =
        format!("{kind}, {rate}, {} B, {} connections", args.shape.size, args.shape.connections);
    send_and_read(args.end_to_end, pace, title, args.as_send())
}

pub fn mixed(args: &MixedArgs) -> anyhow::Result<()> {
    let pace = args.rate.map_or(Pace::Unbounded, Pace::rate);
    let text = shape_text(&args.shape, args.shape.connections as usize, args.in_flight);
    send_and_read(true, pace, format!("mixed, {text}"), args.as_send())
}

/// What `latency` and `mixed` have in common.
struct Send<'a> {
    target: &'a Target,
    shape: &'a Shape,
    in_flight: u32,
    span: &'a Span,
    output: &'a OutputArgs,
}

impl LatencyArgs {
    fn as_send(&self) -> Send<'_> {
        let Self { target, shape, span, output, .. } = self;
        Send { target, shape, in_flight: IN_FLIGHT_OF_SCHEDULE, span, output }
    }
}

impl MixedArgs {
    fn as_send(&self) -> Send<'_> {
        let Self { target, shape, in_flight, span, output, .. } = self;
        let in_flight = if self.rate.is_some() { IN_FLIGHT_OF_SCHEDULE } else { *in_flight };
        Send { target, shape, in_flight, span, output }
    }
}

fn send_and_read(reads: bool, pace: Pace, title: String, args: Send<'_>) -> anyhow::Result<()> {
    let cluster = Cluster::prepare(args.target)?;
    let run_id = fastrand::u64(..);
    let mut stations = senders(&cluster, args.target, args.shape, args.in_flight)?;
    if reads {
        ensure!(Stamp::LEN <= args.shape.size, "--size must be at least {} here", Stamp::LEN);
        let options = Options {
            in_flight: u32::MAX,
            count_max: PULL_COUNT,
            at_end: AtEnd::Wait { run: run_id },
            verify: args.shape.verify,
        };
        stations.extend(pullers(&cluster, &args.target.topic, 1, &options)?);
    }
    let load = load(stations, pace, args.span, run_id, reads);
    run(load, title, &cluster, args.target, args.output)
}

fn shape_text(shape: &Shape, connections: usize, in_flight: u32) -> String {
    let batch = if 1 < shape.batch { format!(", batches of {}", shape.batch) } else { "".into() };
    format!("{connections} connections x {in_flight} in flight, {} B{batch}", shape.size)
}

/// Connections go round the brokers, each at least once.
fn senders(
    cluster: &Cluster,
    target: &Target,
    shape: &Shape,
    in_flight: u32,
) -> anyhow::Result<Vec<Station>> {
    ensure!(0 < in_flight && 0 < shape.batch, "--in-flight and --batch must be at least 1");
    let spec = Spec { topic: &target.topic, size: shape.size, batch: shape.batch };
    let count = (shape.connections as usize).max(cluster.brokers.len());
    let brokers = cluster.brokers.iter().cycle().take(count).enumerate();
    brokers
        .map(|(index, broker)| {
            let mut sender = Sender::new(&spec, broker, in_flight, index);
            if shape.verify {
                sender.verify();
            }
            Ok(Station { link: Link::connect(&broker.addr)?, role: Role::Send(sender) })
        })
        .collect()
}

/// Every queue is read by one connection.
fn pullers(
    cluster: &Cluster,
    topic: &str,
    connections: u32,
    options: &Options,
) -> anyhow::Result<Vec<Station>> {
    let mut stations = Vec::new();
    for broker in &cluster.brokers {
        let mut calls = Calls::connect(&broker.addr)?;
        let mut queues = Vec::new();
        for queue_id in 0..broker.queue_count {
            let (first, next) = cluster::offsets(&mut calls, topic, queue_id)?;
            match options.at_end {
                AtEnd::Wait { .. } => queues.push((queue_id, next)),
                _ if first < next => queues.push((queue_id, first)),
                _ => {}
            }
        }
        ensure!(!queues.is_empty(), "topic `{topic}` on {} is empty", broker.addr);
        let per_link = queues.len().div_ceil(connections.max(1) as usize);
        for part in queues.chunks(per_link) {
            let role = Role::Pull(Puller::new(topic, part, options));
            stations.push(Station { link: Link::connect(&broker.addr)?, role });
        }
    }
    Ok(stations)
}

/// Every connection reads one queue, from a place in its first nine tenths on, so that none goes
/// round in the few messages at the end.
fn scattered(
    cluster: &Cluster,
    topic: &str,
    connections: u32,
    options: &Options,
) -> anyhow::Result<Vec<Station>> {
    let mut queues = Vec::new();
    for broker in &cluster.brokers {
        let mut calls = Calls::connect(&broker.addr)?;
        for queue_id in 0..broker.queue_count {
            let (first, next) = cluster::offsets(&mut calls, topic, queue_id)?;
            if first < next {
                queues.push((&broker.addr, queue_id, first..first + (next - first) * 9 / 10 + 1));
            }
        }
    }
    ensure!(!queues.is_empty(), "topic `{topic}` is empty");
    let readers = queues.iter().cycle().take(connections.max(1) as usize);
    readers
        .map(|(addr, queue_id, places)| {
            let start = (*queue_id, fastrand::i64(places.clone()));
            let role = Role::Pull(Puller::new(topic, &[start], options));
            Ok(Station { link: Link::connect(addr)?, role })
        })
        .collect()
}

fn load(stations: Vec<Station>, pace: Pace, span: &Span, run: u64, awaits_arrival: bool) -> Load {
    // Who says how many messages wants them all counted.
    let (warmup, duration) = match span.count {
        Some(_) => (Duration::ZERO, Duration::from_secs(365 * 86_400)),
        None => (span.warmup, span.duration),
    };
    let limits = Limits { warmup, duration, count: span.count, awaits_arrival };
    Load { stations, pace, run, limits }
}

fn run(
    mut load: Load,
    title: String,
    cluster: &Cluster,
    target: &Target,
    output: &OutputArgs,
) -> anyhow::Result<()> {
    let pids = &output.pid[..];
    let cpu = || anyhow::Ok((watch::cpu_seconds(pids)?, watch::own_cpu_seconds()?));
    let (mut before, mut after) = (cpu()?, (0.0, 0.0));
    let memory = MemoryWatch::start(pids);
    let measured = load.run(
        || {
            before = cpu()?;
            Ok(())
        },
        || {
            after = cpu()?;
            Ok(())
        },
    )?;
    let report = Report {
        title,
        place: format!("{}, topic {}", cluster.name_server, target.topic),
        measured,
        server_cpu: (!pids.is_empty()).then_some(after.0 - before.0),
        own_cpu: after.1 - before.1,
        memory_peak: (!pids.is_empty()).then(|| memory.stop()),
    };
    report::print(&if output.json { report.json() } else { report.text() });
    Ok(())
}
