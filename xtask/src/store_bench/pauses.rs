//! Latency at half of the maximum rate, for so long that the kernel writes back and segments roll.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use super::lab::{Lab, add, add_errors};
use crate::figures::{Metric, Outcome};
use crate::peers::{Flush, Kind, Peer};
use crate::questions::Questions;

const SHAPE: &str = "--connections 4 --size 1024";
/// That of the load.
const TOPIC: &str = "apogee-bench";
const SEGMENT_LEN: u64 = 1 << 30;
const PROBE_PAUSE: Duration = Duration::from_millis(2);
/// What is so near to the first message of a segment counts for the roll.
const ROLL_SPAN: Duration = Duration::from_millis(50);

pub fn latency(lab: &mut Lab<'_>, outcome: &mut Outcome) -> anyhow::Result<()> {
    for _ in 0..lab.extent.long_rounds {
        let apache = lab.places.start(Kind::Apache, Flush::Async)?;
        let apache_half = half(lab, &apache)?;
        let [p999, max] = measure(lab, outcome, &apache, apache_half, true)?;
        let same = [(Metric::P999Same, &p999), (Metric::MaxSame, &max)];
        add(outcome, Kind::Apache, &same)?;
        drop(apache);

        let apogee = lab.places.start(Kind::Apogee, Flush::Async)?;
        let apogee_half = half(lab, &apogee)?;
        measure(lab, outcome, &apogee, apogee_half, true)?;
        drop(apogee);

        let apogee = lab.places.start(Kind::Apogee, Flush::Async)?;
        let [p999, max] = measure(lab, outcome, &apogee, apache_half, false)?;
        let same = [(Metric::P999Same, &p999), (Metric::MaxSame, &max)];
        add(outcome, Kind::Apogee, &same)?;
    }
    Ok(())
}

/// Half of the messages a second that a server can take.
fn half(lab: &Lab<'_>, peer: &Peer) -> anyhow::Result<f64> {
    let produce = format!("produce --in-flight 128 {SHAPE}");
    let result = lab.load(peer, &produce, 2 * lab.warmup(peer.kind))?;
    let rate = result["sent"]["perSecond"].as_f64().context("no rate")?;
    println!("  {:?} takes {rate:.0} messages/s at most", peer.kind);
    Ok(rate / 2.0)
}

/// Returns p99.9 and the longest; as figures of the row they are only at a server's own half.
fn measure(
    lab: &mut Lab<'_>,
    outcome: &mut Outcome,
    peer: &Peer,
    rate: f64,
    is_own_half: bool,
) -> anyhow::Result<[Value; 2]> {
    lab.page_cache.fill()?;
    let words = format!("latency --rate {rate:.0} {SHAPE}");
    let is_over = AtomicBool::new(false);
    let (result, probes) = std::thread::scope(|scope| {
        let probing = scope.spawn(|| probe(peer, &is_over));
        let result = lab.load_for(peer, &words, lab.extent.warmup, lab.extent.long);
        is_over.store(true, Ordering::Relaxed);
        (result, probing.join().expect("it does not panic"))
    });
    let (result, rolls) = (result?, Rolls::of(&probes?));
    let us = &result["sent"]["us"];
    let (p999, max) = (us["p99.9"].clone(), us["max"].clone());
    println!("  {:?} at {rate:.0}/s: p99.9 {p999} us, max {max} us; {rolls:?}", peer.kind);
    add_errors(outcome, peer.kind, &result);
    if is_own_half {
        add(outcome, peer.kind, &[(Metric::P999, &p999), (Metric::Max, &max)])?;
        if 0 < rolls.count {
            outcome.add(peer.kind, Metric::AtRoll, rolls.longest_at.as_nanos() as f64 / 1e3);
            let elsewhere = rolls.longest_elsewhere.as_nanos() as f64 / 1e3;
            outcome.add(peer.kind, Metric::BetweenRolls, elsewhere);
        }
    }
    outcome.notes.push(format!("{:?} at {rate:.0}/s: {} rolls", peer.kind, rolls.count));
    Ok([p999, max])
}

/// A message beside the load: when it was sent, how long it took, where in the log it is.
struct Probe {
    sent: Instant,
    took: Duration,
    log_offset: u64,
}

/// Sends one message after the other to see where in the log they land.
fn probe(peer: &Peer, is_over: &AtomicBool) -> anyhow::Result<Vec<Probe>> {
    let mut broker = Questions::connect(&peer.broker).context("no broker")?;
    let mut probes = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let sent = Instant::now();
        if let Some(log_offset) = broker.send(TOPIC, "probe") {
            probes.push(Probe { sent, took: sent.elapsed(), log_offset });
        }
        std::thread::sleep(PROBE_PAUSE);
    }
    Ok(probes)
}

/// What the probes tell of the beginnings of segments.
#[derive(Debug)]
struct Rolls {
    count: usize,
    longest_at: Duration,
    longest_elsewhere: Duration,
}

impl Rolls {
    fn of(probes: &[Probe]) -> Self {
        let segment = |probe: &Probe| probe.log_offset / SEGMENT_LEN;
        let pairs = probes.windows(2).filter(|pair| segment(&pair[0]) != segment(&pair[1]));
        let rolls: Vec<_> = pairs.map(|pair| pair[1].sent).collect();
        let is_at_roll = |probe: &&Probe| {
            rolls.iter().any(|roll| {
                let before = roll.saturating_duration_since(probe.sent + probe.took);
                let after = probe.sent.saturating_duration_since(*roll);
                before.max(after) < ROLL_SPAN
            })
        };
        let longest = |at_roll: bool| {
            let probes = probes.iter().filter(|probe| is_at_roll(probe) == at_roll);
            probes.map(|probe| probe.took).max().unwrap_or_default()
        };
        Self { count: rolls.len(), longest_at: longest(true), longest_elsewhere: longest(false) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_at_a_roll_is_told_from_others() {
        let start = Instant::now();
        let probe = |ms: u64, took: u64, log_offset| Probe {
            sent: start + Duration::from_millis(ms),
            took: Duration::from_millis(took),
            log_offset,
        };
        let end = SEGMENT_LEN;
        let probes =
            [probe(0, 3, 0), probe(200, 7, end - 1), probe(210, 1, end), probe(400, 5, end + 1)];
        let rolls = Rolls::of(&probes);
        assert_eq!(rolls.count, 1);
        assert_eq!(rolls.longest_at, Duration::from_millis(7));
        assert_eq!(rolls.longest_elsewhere, Duration::from_millis(5));
    }
}
