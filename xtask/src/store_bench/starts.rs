//! Starts on a long log: after a clean stop, after a kill, without queues and index; and its check.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::lab::{Lab, PEERS, Store};
use crate::commands::{command, run};
use crate::figures::{Metric, Outcome};
use crate::machine;
use crate::peers::{Kind, Peer};

/// The same for both, and what either can take.
const LOAD: &str = "latency --rate 20000 --connections 4 --size 1024 --topic killed";
const LOAD_BYTES_PER_SECOND: u64 = 20_000 * 1190;
const GIB: f64 = (1_u64 << 30) as f64;

pub fn after_stop(lab: &mut Lab<'_>, outcome: &mut Outcome) -> anyhow::Result<()> {
    for _ in 0..lab.extent.rounds {
        for kind in PEERS {
            // What is measured is the start after its own stop, not after the other's.
            lab.start(kind)?.stop()?;
            lab.store()?.read_log()?;
            let peer = lab.start(kind)?;
            add_start(outcome, &peer);
            peer.stop()?;
        }
    }
    Ok(())
}

pub fn after_kill(lab: &mut Lab<'_>, outcome: &mut Outcome) -> anyhow::Result<()> {
    let loaded = 2 * lab.extent.duration;
    for _ in 0..lab.extent.rounds {
        for kind in PEERS {
            lab.store()?.read_log()?;
            let peer = lab.start(kind)?;
            let words = format!("{LOAD} --duration 600");
            let words: Vec<_> = words.split(' ').collect();
            let mut load = lab.places.bench_command(&peer, &words);
            let mut load = load.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
            std::thread::sleep(loaded);
            ensure!(load.try_wait()?.is_none(), "the load on {kind:?} has ended by itself");
            drop(peer);
            let _ = load.kill();
            load.wait()?;
            let peer = lab.start(kind)?;
            add_start(outcome, &peer);
            if let Some(checked) = checked_bytes(&peer.log()) {
                outcome.notes.push(format!(
                    "{kind:?} checked {:.1} MiB of the log after a kill; the load had written \
                     about {} MiB",
                    checked as f64 / 1024.0 / 1024.0,
                    (LOAD_BYTES_PER_SECOND * loaded.as_secs()) >> 20,
                ));
            }
            peer.stop()?;
        }
    }
    Ok(())
}

/// What Apogee says of the start after an unclean stop.
fn checked_bytes(log: &str) -> Option<u64> {
    let line = log.lines().find(|line| line.contains("the last stop was not clean"))?;
    let number = |name: &str| {
        let rest = line.split_once(&format!(" {name}="))?.1;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
    };
    number("to")?.checked_sub(number("from")?)
}

pub fn rebuild(lab: &mut Lab<'_>, outcome: &mut Outcome) -> anyhow::Result<()> {
    let len = log_len(&check(lab, outcome)?)?;
    let lost = lab.store()?.dir.with_extension("lost");
    for round in 0..lab.extent.rounds {
        for kind in PEERS {
            lose_queues(lab.store()?, &lost.join(format!("{round}-{kind:?}")))?;
            lab.store()?.read_log()?;
            let peer = lab.start_complete(kind)?;
            let rate = len / GIB / peer.ready_time().as_secs_f64();
            println!("  {kind:?} {rate:.2} GiB/s");
            outcome.add(kind, Metric::Rebuilt, rate);
            peer.stop()?;
        }
    }
    std::fs::remove_dir_all(&lost)?;
    lab.store()?.read_log()?;
    let mut repair = command(&lab.places.apogee, &["store", "repair", "--delete", "--yes"]);
    let started = Instant::now();
    run(repair.arg(&lab.store()?.dir))?;
    outcome.notes.push(format!(
        "measured is the start with `abort` there, until every queue had its last message; \
         `apogee store repair`, which checks the store first, took {:.2} s for {:.2} GiB",
        started.elapsed().as_secs_f64(),
        len / GIB
    ));
    Ok(())
}

/// As after a crash that has taken what can be made again. It is moved to `lost`: where thousands
/// of files were just removed, ext4 takes long to make new ones.
fn lose_queues(store: &Store, lost: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(lost)?;
    for name in ["consumequeue", "index"] {
        let dir = store.dir.join(name);
        std::fs::rename(&dir, lost.join(name)).with_context(|| dir.display().to_string())?;
    }
    // With it Apache would read the last segments only, and leave most queues empty.
    let checkpoint = store.dir.join("checkpoint");
    std::fs::remove_file(&checkpoint).with_context(|| checkpoint.display().to_string())?;
    std::fs::write(store.dir.join("abort"), "")?;
    Ok(())
}

pub fn verify(lab: &mut Lab<'_>, outcome: &mut Outcome) -> anyhow::Result<()> {
    for _ in 0..lab.extent.rounds {
        lab.store()?.read_log()?;
        let before = machine::cpu_seconds_of_children()?;
        let report = check(lab, outcome)?;
        let cpu = machine::cpu_seconds_of_children()? - before;
        let gib = log_len(&report)? / GIB;
        let rate = gib / report["seconds"].as_f64().context("no seconds")?;
        println!("  Apogee {:.2} GiB a CPU-s, {rate:.2} GiB/s", gib / cpu);
        outcome.add(Kind::Apogee, Metric::Checked, gib / cpu);
        outcome.add(Kind::Apogee, Metric::Rebuilt, rate);
    }
    Ok(())
}

/// What `apogee store verify` says; what it finds goes into the notes.
fn check(lab: &Lab<'_>, outcome: &mut Outcome) -> anyhow::Result<Value> {
    let mut verify = command(&lab.places.apogee, &["store", "verify", "--json"]);
    let output = verify.arg(&lab.store()?.dir).stderr(Stdio::inherit()).output()?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    if let Some(findings) = report["findings"].as_array().filter(|found| !found.is_empty()) {
        for finding in findings {
            println!("  verify: {finding}");
            outcome.notes.push(format!(
                "verify found {} x {} ({})",
                finding["count"], finding["kind"], finding["severity"]
            ));
        }
    }
    Ok(report)
}

fn log_len(report: &Value) -> anyhow::Result<f64> {
    let at = |name| report[name].as_f64().with_context(|| format!("no {name}"));
    Ok(at("logEnd")? - at("logMin")?)
}

fn add_start(outcome: &mut Outcome, peer: &Peer) {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    outcome.add(peer.kind, Metric::Start, ms(peer.ready_time()));
}
