//! One long queue: searched by time and by key, and read by a hundred consumers at once.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::lab::{KEYED, Lab, PEERS, add, add_errors};
use crate::commands::command;
use crate::figures::{Metric, Outcome};

const CONSUMERS: &str = "100";
const PRODUCER: &str = "latency --rate 20000 --connections 4 --size 1024 --topic produced";

pub fn by_time(lab: &mut Lab<'_>, outcome: &mut Outcome) -> anyhow::Result<()> {
    lookup(lab, outcome, "--by time")
}

pub fn by_key(lab: &mut Lab<'_>, outcome: &mut Outcome) -> anyhow::Result<()> {
    let keys = lab.keys();
    lookup(lab, outcome, &format!("--by key --keys {keys}"))
}

fn lookup(lab: &mut Lab<'_>, outcome: &mut Outcome, what: &str) -> anyhow::Result<()> {
    for _ in 0..lab.extent.rounds {
        for kind in PEERS {
            lab.store()?.read_log()?;
            let peer = lab.start(kind)?;
            let words = format!("lookup --topic {KEYED} {what}");
            let result = lab.load(&peer, &words, lab.warmup(kind))?;
            let times = &result["received"]["us"];
            add(outcome, kind, &[(Metric::P50, &times["p50"]), (Metric::P99, &times["p99"])])?;
            add_errors(outcome, kind, &result);
            peer.stop()?;
        }
    }
    Ok(())
}

pub fn catch_up(lab: &mut Lab<'_>, outcome: &mut Outcome) -> anyhow::Result<()> {
    let warmup = lab.extent.warmup;
    for _ in 0..lab.extent.rounds {
        for kind in PEERS {
            lab.store()?.read_log()?;
            let peer = lab.start(kind)?;
            lab.load(&peer, PRODUCER, lab.warmup(kind))?;
            let alone = lab.load(&peer, PRODUCER, warmup)?;
            // Consumers are there before the producer's measured time, and longer.
            let span = lab.extent.duration + 2 * warmup + Duration::from_secs(2);
            let consumers = std::thread::scope(|scope| {
                let consuming = scope.spawn(|| consume(lab, &peer.pids(), &peer.name_server, span));
                std::thread::sleep(warmup);
                let beside = lab.load(&peer, PRODUCER, warmup);
                let consumed = consuming.join().expect("it does not panic")?;
                anyhow::Ok((beside?, consumed))
            });
            let (beside, consumed) = consumers?;
            let read = consumed["received"]["messages"].as_f64().context("nothing was read")?;
            let cpu = consumed["serverCpuSeconds"].as_f64().context("no processor time")?;
            let per_cpu = Value::from(read / cpu);
            let figures = [
                (Metric::PerCpu, &per_cpu),
                (Metric::Rate, &consumed["received"]["perSecond"]),
                (Metric::P99Before, &alone["sent"]["us"]["p99"]),
                (Metric::P99, &beside["sent"]["us"]["p99"]),
            ];
            add(outcome, kind, &figures)?;
            for result in [&alone, &beside, &consumed] {
                add_errors(outcome, kind, result);
            }
            peer.stop()?;
        }
    }
    Ok(())
}

/// Lets consumers read for a while. They stand for other machines, so they yield to the server and
/// to the producer.
fn consume(
    lab: &Lab<'_>,
    pids: &[String],
    name_server: &str,
    span: Duration,
) -> anyhow::Result<Value> {
    let mut consume = command("nice", &["-n", "10"]);
    consume.arg(&lab.places.apogee).args(["bench", "consume", "--scattered", "--topic", KEYED]);
    consume.args(["--connections", CONSUMERS, "--in-flight", "1", "--json", "-n", name_server]);
    consume.args(["--warmup", "1", "--duration", &span.as_secs().to_string(), "--pid"]);
    let output = consume.arg(pids.join(",")).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the consumers have failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}
