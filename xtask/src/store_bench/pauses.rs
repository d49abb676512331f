//! Latency at half of the maximum rate, for so long that the kernel writes back and segments roll.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
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
/// Bytes of a record with a body of 1 KiB, as the bench sends it.
const RECORD_LEN: f64 = 1241.0;
/// What a log prepares at once, and how often it is flushed.
const WRITE_LEN: usize = 2 << 20;
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);

pub fn latency(lab: &mut Lab<'_>, outcome: &mut Outcome) -> anyhow::Result<()> {
    for _ in 0..lab.extent.long_rounds {
        let apache = lab.places.start(Kind::Apache, Flush::Async)?;
        let apache_half = half(lab, &apache)?;
        let [p999, max] = measure(lab, outcome, &apache, apache_half, true)?;
        let same = [(Metric::P999Same, &p999), (Metric::MaxSame, &max)];
        add(outcome, Kind::Apache, &same)?;
        drop(apache);

        // In one life: a store of 40 GB that is deleted in between is felt on the disk for minutes.
        let apogee = lab.places.start(Kind::Apogee, Flush::Async)?;
        let apogee_half = half(lab, &apogee)?;
        let [p999, max] = measure(lab, outcome, &apogee, apache_half, false)?;
        let same = [(Metric::P999Same, &p999), (Metric::MaxSame, &max)];
        add(outcome, Kind::Apogee, &same)?;
        measure(lab, outcome, &apogee, apogee_half, true)?;
        drop(apogee);

        floor(lab, outcome, apogee_half)?;
    }
    Ok(())
}

/// What is left to a server that keeps nothing, alone and beside what any log has to write: where
/// the floor of this machine lies.
fn floor(lab: &mut Lab<'_>, outcome: &mut Outcome, rate: f64) -> anyhow::Result<()> {
    let words = format!("latency --rate {rate:.0} {SHAPE}");
    let dir = lab.places.data.join("beside");
    for is_alone in [true, false] {
        let floor = lab.places.start(Kind::Floor, Flush::Async)?;
        lab.page_cache.fill()?;
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        let is_over = AtomicBool::new(is_alone);
        let result = std::thread::scope(|scope| {
            let writing = scope.spawn(|| write_beside(&dir, rate * RECORD_LEN, &is_over));
            let result = lab.load_for(&floor, &words, lab.extent.warmup, lab.extent.long);
            is_over.store(true, Ordering::Relaxed);
            writing.join().expect("it does not panic")?;
            result
        })?;
        let us = |name: &str| result["sent"]["us"][name].as_f64().unwrap_or(f64::NAN);
        let beside = if is_alone { "alone" } else { "beside a thread that writes as many bytes" };
        let said = format!(
            "a bare loop that keeps nothing, {beside}, at {rate:.0}/s: p99.9 {}, max {}",
            Metric::P999.text(us("p99.9")),
            Metric::Max.text(us("max"))
        );
        println!("  {said}");
        outcome.notes.push(said);
    }
    Ok(std::fs::remove_dir_all(&dir)?)
}

/// Writes files as long as segments, and flushes them as a log with asynchronous flush does.
fn write_beside(dir: &Path, bytes_per_second: f64, is_over: &AtomicBool) -> anyhow::Result<()> {
    let (flushed, flushes) = mpsc::channel::<Arc<File>>();
    let flushing = std::thread::spawn(move || flushes.iter().try_for_each(|it| it.sync_data()));
    let zeros = vec![0; WRITE_LEN];
    let began = Instant::now();
    let (mut written, mut flush_at) = (0, FLUSH_INTERVAL);
    let mut file = None;
    while !is_over.load(Ordering::Relaxed) {
        let elapsed = began.elapsed();
        if elapsed.as_secs_f64() * bytes_per_second < written as f64 {
            std::thread::sleep(PROBE_PAUSE);
            continue;
        }
        if written % SEGMENT_LEN == 0 {
            let next = Arc::new(File::create(dir.join(format!("{written:020}")))?);
            if let Some(full) = file.replace(next) {
                flushed.send(full).context("a flush has failed")?;
            }
        }
        let file = file.as_ref().expect("the first comes before the first byte");
        (&**file).write_all(&zeros)?;
        written += zeros.len() as u64;
        if flush_at <= elapsed {
            flush_at = elapsed + FLUSH_INTERVAL;
            flushed.send(Arc::clone(file)).context("a flush has failed")?;
        }
    }
    drop(flushed);
    Ok(flushing.join().expect("it does not panic")?)
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
