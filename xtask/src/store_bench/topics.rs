//! Many topics, each queue written once: what a server holds, and how it starts.

use std::time::{Duration, Instant};

use anyhow::Context;

use super::lab::{Lab, PEERS, Store};
use crate::figures::{Metric, Outcome};
use crate::machine::Holdings;
use crate::peers::{Kind, Peer, Queue, Setup, said};

const QUEUES: u32 = 4;
/// A process may raise the soft limit to the hard one, and must.
const LIMITED: &[&str] = &["sh", "-c", "ulimit -Sn 1024 && exec \"$0\" \"$@\""];
/// A server that has not started by then is told as such.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn few(lab: &mut Lab<'_>, outcome: &mut Outcome) -> anyhow::Result<()> {
    measure(lab, outcome, 1000)
}

pub fn some(lab: &mut Lab<'_>, outcome: &mut Outcome) -> anyhow::Result<()> {
    measure(lab, outcome, 5000)
}

pub fn many(lab: &mut Lab<'_>, outcome: &mut Outcome) -> anyhow::Result<()> {
    measure(lab, outcome, 20_000)
}

fn measure(lab: &mut Lab<'_>, outcome: &mut Outcome, count: u32) -> anyhow::Result<()> {
    let mut store = Store::new(&lab.places.data.join("store-topics"))?;
    let last = format!("topics-{}", count - 1);
    write(lab, outcome, &store, count)?;
    store.queues = vec![Queue { topic: last.clone(), id: QUEUES - 1, next: 1 }];
    let mut peers = PEERS.to_vec();
    for _ in 0..lab.extent.rounds {
        for kind in peers.clone() {
            if let Err(error) = start(lab, outcome, &store, kind, &last) {
                anyhow::ensure!(kind == Kind::Apache, error);
                let text = format!("{error:#}");
                let first = text.lines().filter(|line| line.contains("Error")).take(2);
                let first: Vec<_> = text.lines().take(1).chain(first).collect();
                println!("  {text}");
                outcome.notes.push(format!("Apache: {}", first.join(" ")));
                peers.retain(|peer| *peer != kind);
            }
        }
    }
    Ok(())
}

/// Lets Apogee make the topics and write to them.
fn write(lab: &Lab<'_>, outcome: &mut Outcome, store: &Store, count: u32) -> anyhow::Result<()> {
    let setup = Setup { store: Some(&store.dir), under: LIMITED, ..Setup::default() };
    let peer = lab.places.start_with(Kind::Apogee, &setup)?;
    let (queues, count) = (QUEUES.to_string(), count.to_string());
    let words =
        ["fill", "--topic", "topics", "--queues", &queues, "--topics", &count, "--size", "100"];
    let filled = said(&mut lab.places.bench_command(&peer, &words))?;
    println!("  {filled}");
    let seconds = |name| filled[name].as_f64().context("fill says no times");
    outcome.notes.push(format!(
        "making the topics took Apogee {:.2} s (500 a request), a message to each queue {:.2} s",
        seconds("topicSeconds")?,
        seconds("messageSeconds")?
    ));
    add_holdings(outcome, &peer)?;
    peer.stop()
}

fn start(
    lab: &Lab<'_>,
    outcome: &mut Outcome,
    store: &Store,
    kind: Kind,
    last: &str,
) -> anyhow::Result<()> {
    let setup = Setup {
        store: Some(&store.dir),
        under: LIMITED,
        queues: &store.queues,
        patience: PATIENCE,
        ..Setup::default()
    };
    let peer = lab.places.start_with(kind, &setup)?;
    let ready = peer.ready_time();
    let registered = peer.wait_for_route(last, Instant::now() - ready)?;
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    outcome.add(kind, Metric::Start, ms(ready));
    outcome.add(kind, Metric::Registered, ms(registered));
    println!("  {kind:?} ready after {ready:.2?}, registered after {registered:.2?}");
    add_holdings(outcome, &peer)?;
    peer.stop()
}

fn add_holdings(outcome: &mut Outcome, peer: &Peer) -> anyhow::Result<()> {
    let held = Holdings::of(peer.broker_pid())?;
    println!(
        "  {:?} {:.1} MiB anonymous, {} files of {}, {} mappings",
        peer.kind,
        held.anonymous_bytes as f64 / 1024.0 / 1024.0,
        held.file_count,
        held.file_limit,
        held.mapping_count
    );
    outcome.add(peer.kind, Metric::Memory, held.anonymous_bytes as f64);
    outcome.add(peer.kind, Metric::Files, held.file_count as f64);
    outcome.add(peer.kind, Metric::Mappings, held.mapping_count as f64);
    Ok(())
}
