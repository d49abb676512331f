//! Watches the processes of a server: processor time and memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;

/// Of `utime` and `stime` in `/proc/PID/stat`, fixed in Linux's interface.
const TICKS_PER_SECOND: f64 = 100.0;
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// Seconds of processor time that the processes have used so far.
pub fn cpu_seconds(pids: &[u32]) -> anyhow::Result<f64> {
    pids.iter().map(|pid| cpu_seconds_of(&pid.to_string())).sum()
}

/// Seconds of processor time that this process has used so far.
pub fn own_cpu_seconds() -> anyhow::Result<f64> {
    cpu_seconds_of("self")
}

fn cpu_seconds_of(process: &str) -> anyhow::Result<f64> {
    let path = format!("/proc/{process}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    // The name in brackets may hold anything; `utime` is the twelfth field after it.
    let (_, fields) = stat.rsplit_once(')').with_context(|| path.clone())?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<_, _>>().context(path)?;
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// Anonymous memory of the processes now, in bytes.
fn anonymous_memory(pids: &[u32]) -> u64 {
    let of = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    1024 * pids.iter().filter_map(of).sum::<u64>()
}

/// Samples the memory of processes until it is told to stop.
pub struct MemoryWatch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    peak: AtomicU64,
}

impl MemoryWatch {
    pub fn start(pids: &[u32]) -> Self {
        let shared = Arc::<Shared>::default();
        let (theirs, pids) = (Arc::clone(&shared), pids.to_vec());
        let sample = move || {
            while !theirs.stop.load(Ordering::Relaxed) {
                theirs.peak.fetch_max(anonymous_memory(&pids), Ordering::Relaxed);
                std::thread::park_timeout(SAMPLE_EVERY);
            }
        };
        Self { shared, thread: Some(std::thread::spawn(sample)) }
    }

    /// The highest sum of the processes' anonymous memory, in bytes.
    pub fn stop(mut self) -> u64 {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            thread.join().expect("the sampler does not panic");
        }
        self.shared.peak.load(Ordering::Relaxed)
    }
}
