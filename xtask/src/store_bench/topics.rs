//! Many topics, each queue written once: what a server holds, and how it starts.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::lab::{Lab, PEERS, Store};
use crate::figures::{Metric, Outcome};
use crate::machine::Holdings;
use crate::peers::{Kind, Peer, Queue, Setup, said};

const QUEUES: u32 = 4;
/// A process may raise the soft limit of open files to the hard one, and must. The hard one is what
/// Apache's `os.sh` asks for, where we may set it.
const LIMITED: &[&str] =
    &["sh", "-c", "ulimit -Hn 655350 2> /dev/null; ulimit -Sn 1024 && exec \"$0\" \"$@\""];
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
    let written = grow(lab, outcome, count)?;
    let mut peers = PEERS.to_vec();
    for _ in 0..lab.extent.rounds {
        for kind in peers.clone() {
            if let Err(error) = start(lab, outcome, kind, &written) {
                ensure!(kind == Kind::Apache, error);
                println!("  {error:#}");
                let why = error.to_string();
                outcome
                    .notes
                    .push(format!("Apache: {}", why.lines().take(2).collect::<Vec<_>>().join(" ")));
                peers.retain(|peer| *peer != kind);
            }
        }
    }
    Ok(())
}

/// Lets Apogee make the topics that are missing, and write to them; returns what it held then.
fn grow(lab: &mut Lab<'_>, outcome: &mut Outcome, count: u32) -> anyhow::Result<Holdings> {
    let before = lab.store()?.topic_count;
    let peer = lab.places.start_with(Kind::Apogee, &setup(lab.store()?))?;
    let name = format!("topics-{before}");
    let (queues, more) = (QUEUES.to_string(), (count - before).to_string());
    let words = ["fill", "--topic", &name, "--queues", &queues, "--topics", &more, "--size", "100"];
    let filled = said(&mut lab.places.bench_command(&peer, &words))?;
    println!("  {filled}");
    let seconds = |name| filled[name].as_f64().context("fill says no times");
    outcome.notes.push(format!(
        "making {more} topics more took Apogee {:.2} s (500 a request), a message to each queue \
         {:.2} s",
        seconds("topicSeconds")?,
        seconds("messageSeconds")?
    ));
    let held = holdings(&peer)?;
    peer.stop()?;
    let store = lab.store_mut()?;
    store.topic_count = count;
    let topic = format!("{name}-{}", count - before - 1);
    store.queues = vec![Queue { topic, id: QUEUES - 1, next: 1 }];
    Ok(held)
}

fn setup(store: &Store) -> Setup<'_> {
    Setup {
        store: Some(&store.dir),
        under: LIMITED,
        queues: &store.queues,
        patience: PATIENCE,
        ..Setup::default()
    }
}

/// `written` is what Apogee held when it had written: what counts is the greater of both.
fn start(
    lab: &Lab<'_>,
    outcome: &mut Outcome,
    kind: Kind,
    written: &Holdings,
) -> anyhow::Result<()> {
    let setup = setup(lab.store()?);
    // What is measured is the start after its own clean stop, not after the other's.
    lab.places.start_with(kind, &setup)?.stop()?;
    let peer = lab.places.start_with(kind, &setup)?;
    let ready = peer.ready_time();
    let registered = peer.wait_for_route(&setup.queues[0].topic, Instant::now() - ready)?;
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    outcome.add(kind, Metric::Start, ms(ready));
    outcome.add(kind, Metric::Registered, ms(registered));
    println!("  {kind:?} ready after {ready:.2?}, registered after {registered:.2?}");
    let held = holdings(&peer)?;
    let mut add = |metric, now: f64, before: f64| {
        let most = if kind == Kind::Apogee { now.max(before) } else { now };
        outcome.add(kind, metric, most);
    };
    add(Metric::Memory, held.anonymous_bytes as f64, written.anonymous_bytes as f64);
    add(Metric::Files, held.file_count as f64, written.file_count as f64);
    add(Metric::Mappings, held.mapping_count as f64, written.mapping_count as f64);
    peer.stop()
}

fn holdings(peer: &Peer) -> anyhow::Result<Holdings> {
    let held = Holdings::of(peer.broker_pid())?;
    println!(
        "  {:?} {:.1} MiB anonymous, {} files of {}, {} mappings",
        peer.kind,
        held.anonymous_bytes as f64 / 1024.0 / 1024.0,
        held.file_count,
        held.file_limit,
        held.mapping_count
    );
    Ok(held)
}
