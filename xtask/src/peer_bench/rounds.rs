//! Runs the rows: A B A B, and the floor beside them.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use super::Extent;
use super::rows::{Action, Row};
use crate::commands::{command, output};
use crate::figures::{Bar, Metric, Outcome};
use crate::machine::PageCache;
use crate::peers::{Flush, Kind, Peer, Places};

pub struct Runner<'a> {
    places: Places,
    extent: &'a Extent,
    page_cache: PageCache,
    /// The highest of each load.
    memory: BTreeMap<Kind, Vec<f64>>,
}

const PEERS: [Kind; 2] = [Kind::Apache, Kind::Apogee];
/// After a start or a pause, until a server has caught up.
const SETTLE: Duration = Duration::from_secs(1);
/// Until the threads of a start are done.
const SETTLE_IDLE: Duration = Duration::from_secs(15);
const PROFILE_LINES: usize = 10;

impl<'a> Runner<'a> {
    pub fn new(places: Places, extent: &'a Extent) -> anyhow::Result<Self> {
        let page_cache = PageCache::new(&places.data)?;
        Ok(Self { places, extent, page_cache, memory: BTreeMap::new() })
    }

    pub fn row(&mut self, row: &'static Row) -> anyhow::Result<Outcome> {
        println!("\n== {}: {}", row.head.id, row.head.title);
        let mut outcome = Outcome::new(&row.head);
        match row.action {
            Action::Load(load) => self.loads(row, &mut outcome, None, load)?,
            Action::Backlog { fill, load } => self.loads(row, &mut outcome, Some(fill), load)?,
            Action::Start => self.starts(&mut outcome)?,
            Action::Idle => self.idle(&mut outcome)?,
            Action::Memory => {
                for (kind, peaks) in &self.memory {
                    let peak = peaks.iter().copied().fold(0.0, f64::max);
                    outcome.add(*kind, Metric::Memory, peak);
                }
            }
        }
        if outcome.is_missed()
            && let Action::Load(load) | Action::Backlog { load, .. } = row.action
        {
            self.profile(row, &mut outcome, load)?;
        }
        Ok(outcome)
    }

    fn loads(
        &mut self,
        row: &Row,
        outcome: &mut Outcome,
        fill: Option<&str>,
        load: &str,
    ) -> anyhow::Result<()> {
        let flush = row.flush;
        let apache = self.start(Kind::Apache, flush, fill)?;
        // A store that grows is made anew for each round; a backlog stays.
        let filled = match fill {
            Some(_) => Some(self.start(Kind::Apogee, flush, fill)?),
            None => None,
        };
        filled.iter().for_each(Peer::pause);
        self.load(&apache, load, self.extent.jvm_warmup, Duration::ZERO)?;
        for _ in 0..self.extent.rounds {
            apache.resume()?;
            std::thread::sleep(SETTLE);
            self.measure(outcome, &apache, load)?;
            apache.pause();

            match &filled {
                Some(apogee) => {
                    apogee.resume()?;
                    self.measure(outcome, apogee, load)?;
                    apogee.pause();
                }
                None => self.measure_new(row, outcome, Kind::Apogee, load)?,
            }
            if row.has_floor {
                self.measure_new(row, outcome, Kind::Floor, load)?;
            }
            if outcome.head.bars.iter().any(|(_, bar)| matches!(bar, Bar::OfLoop(_))) {
                outcome.loop_rates.push(self.fsync_loop()?);
            }
        }
        Ok(())
    }

    fn start(&self, kind: Kind, flush: Flush, fill: Option<&str>) -> anyhow::Result<Peer> {
        let peer = self.places.start(kind, flush)?;
        if let Some(fill) = fill {
            let mut words: Vec<_> = fill.split(' ').collect();
            let count = self.extent.backlog.to_string();
            words.extend(["--count", &count]);
            self.places.bench(&peer, &words)?;
        }
        Ok(peer)
    }

    fn measure_new(
        &mut self,
        row: &Row,
        outcome: &mut Outcome,
        kind: Kind,
        load: &str,
    ) -> anyhow::Result<()> {
        let peer = self.places.start(kind, row.flush)?;
        self.measure(outcome, &peer, load)
    }

    fn measure(&mut self, outcome: &mut Outcome, peer: &Peer, load: &str) -> anyhow::Result<()> {
        self.page_cache.fill()?;
        let is_floor = peer.kind == Kind::Floor;
        let duration = if is_floor { self.extent.floor } else { self.extent.duration };
        let result = self.load(peer, load, self.extent.warmup, duration)?;
        // What is read is what counts where something is read.
        let flow = match &result["received"] {
            received if received["messages"].as_u64() == Some(0) => &result["sent"],
            received => received,
        };
        let mut figures = vec![
            (Metric::Rate, &flow["perSecond"]),
            (Metric::Cpu, &result["serverCpuSecondsPerMillion"]),
            (Metric::P50, &flow["us"]["p50"]),
            (Metric::P99, &flow["us"]["p99"]),
            (Metric::P999, &flow["us"]["p99.9"]),
        ];
        figures.retain(|(_, value)| !value.is_null());
        let mut line = format!("  {:<7}", format!("{:?}", peer.kind));
        for (metric, value) in figures {
            let value = value.as_f64().context("a figure that is no number")?;
            line += &format!(" {} {},", metric.name(), metric.text(value));
            outcome.add(peer.kind, metric, value);
        }
        println!("{}", line.trim_end_matches(','));
        if let Some(bytes) = result["anonymousBytesMax"].as_f64().filter(|_| !is_floor) {
            self.memory.entry(peer.kind).or_default().push(bytes);
        }
        let errors = result["errors"].as_object().filter(|errors| !errors.is_empty());
        if let Some(errors) = errors {
            outcome.notes.push(format!("{:?} answered with errors: {errors:?}", peer.kind));
        }
        if let Some(lost) = result["lost"].as_u64().filter(|lost| 0 < *lost) {
            outcome.notes.push(format!("{:?} left {lost} unanswered", peer.kind));
        }
        Ok(())
    }

    fn load(
        &self,
        peer: &Peer,
        load: &str,
        warmup: Duration,
        duration: Duration,
    ) -> anyhow::Result<Value> {
        let mut words: Vec<_> = load.split(' ').collect();
        let (warmup, duration) = (warmup.as_secs().to_string(), duration.as_secs().to_string());
        words.extend(["--warmup", &warmup, "--duration", &duration]);
        self.places.bench(peer, &words)
    }

    fn fsync_loop(&self) -> anyhow::Result<f64> {
        let mut bench = command(&self.places.apogee, &["bench", "fsync-loop", "--json"]);
        bench.arg("--duration").arg(self.extent.floor.as_secs().to_string());
        let text = output(bench.arg(&self.places.data))?;
        let result: Value = serde_json::from_str(&text)?;
        let rate = result["perSecond"].as_f64().context("the loop said no rate")?;
        println!("  loop    {rate:.0} appends with fdatasync/s");
        Ok(rate)
    }

    fn starts(&self, outcome: &mut Outcome) -> anyhow::Result<()> {
        for _ in 0..self.extent.rounds {
            for kind in PEERS {
                let peer = self.places.start(kind, Flush::Async)?;
                let total: Duration = peer.start_times.iter().sum();
                println!("  {kind:?} {:?}", peer.start_times);
                outcome.add(kind, Metric::Start, total.as_secs_f64() * 1000.0);
            }
        }
        Ok(())
    }

    fn idle(&self, outcome: &mut Outcome) -> anyhow::Result<()> {
        for kind in PEERS {
            let peer = self.places.start(kind, Flush::Async)?;
            std::thread::sleep(SETTLE_IDLE.min(2 * self.extent.idle));
            let (started, before) = (Instant::now(), peer.cpu_seconds()?);
            std::thread::sleep(self.extent.idle);
            let used = peer.cpu_seconds()? - before;
            let minute = used * 60.0 / started.elapsed().as_secs_f64();
            println!("  {kind:?} {minute:.2} CPU-s a minute");
            outcome.add(kind, Metric::Idle, minute);
        }
        Ok(())
    }

    /// Where Apogee spends its time under this load.
    fn profile(&mut self, row: &Row, outcome: &mut Outcome, load: &str) -> anyhow::Result<()> {
        let fill = match row.action {
            Action::Backlog { fill, .. } => Some(fill),
            _ => None,
        };
        let peer = self.start(Kind::Apogee, row.flush, fill)?;
        self.page_cache.fill()?;
        let mut bench = command(&self.places.apogee, &["bench"]);
        bench.args(load.split(' ')).args(["--duration", "8", "-n", &peer.name_server]);
        let mut bench = bench.stdout(Stdio::null()).spawn()?;
        std::thread::sleep(2 * SETTLE);
        let file = self.places.data.join("perf.data");
        let mut record = command("perf", &["record", "-q", "-F", "499", "-g", "-o"]);
        record.arg(&file).args(["-p", &peer.pids().join(","), "--", "sleep", "4"]);
        let recorded = record.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        bench.wait()?;
        if recorded {
            let mut report = command("perf", &["report", "--stdio", "--no-children", "-i"]);
            report.arg(&file).args(["-g", "none", "--sort", "symbol"]).stderr(Stdio::null());
            let text = String::from_utf8_lossy(&report.output()?.stdout).into_owned();
            let lines = text.lines().filter(|line| line.contains('%'));
            outcome.profile.extend(lines.take(PROFILE_LINES).map(without_columns));
        }
        let _ = std::fs::remove_file(&file);
        Ok(())
    }
}

/// A line of `perf report` without its empty columns at the end.
fn without_columns(line: &str) -> String {
    line.trim_end_matches([' ', '-']).trim_start().to_owned()
}
