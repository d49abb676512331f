//! What must be known of the machine to read its figures.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use anyhow::Context;

/// Lines for the page.
pub fn describe(data: &Path) -> anyhow::Result<Vec<(&'static str, String)>> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let memory_kib = memory_kib("MemTotal")?;
    let cores = std::thread::available_parallelism()?;
    let processor = model.map_or("unknown", |(_, name)| name);
    Ok(vec![
        ("processor", format!("{processor}, {cores} cores")),
        ("memory", format!("{:.0} GiB", memory_kib as f64 / 1024.0 / 1024.0)),
        ("kernel", std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned()),
        ("file system", file_system(data)?),
    ])
}

/// Type and device of the file system that holds `path`.
fn file_system(path: &Path) -> anyhow::Result<String> {
    let path = path.canonicalize()?;
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (device, at, kind) = (words.next()?, words.next()?, words.next()?);
        path.starts_with(at).then(|| (at.len(), format!("{kind} on {device}")))
    });
    Ok(mounts.max_by_key(|(len, _)| *len).context("no file system")?.1)
}

/// Keeps the free memory filled with page cache, as it is on any server that has been up for a day.
///
/// A virtual machine gives free memory back to its host, and the first touch of such a page costs
/// five times as much as one of memory that it has: the figures would tell what ran before.
pub struct PageCache {
    /// Nothing but a hole as large as the memory: reading it asks no device. What was read first
    /// is dropped first, so reading goes on where it stopped.
    file: File,
}

impl PageCache {
    pub fn new(data: &Path) -> anyhow::Result<Self> {
        let path = data.join("page-cache");
        let file = File::options().create(true).append(true).read(true).open(path)?;
        file.set_len(memory_kib("MemTotal")? * 1024)?;
        Ok(Self { file })
    }

    pub fn fill(&mut self) -> anyhow::Result<()> {
        let mut chunk = vec![0; 8 << 20];
        let mut rewound = 0;
        while KEPT_FREE_KIB < memory_kib("MemFree")? && rewound < 2 {
            if self.file.read(&mut chunk)? == 0 {
                self.file.rewind()?;
                rewound += 1;
            }
        }
        Ok(())
    }
}

/// The kernel keeps about as much free itself.
const KEPT_FREE_KIB: u64 = 1 << 20;

fn memory_kib(name: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.with_context(|| format!("no {name} in /proc/meminfo"))?.trim().parse()?)
}

/// Processes that wanted to run, over the last minute.
pub fn load_average() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().context("/proc/loadavg is empty")?.parse()?)
}

/// Ticks of all processors so far.
#[derive(Clone, Copy)]
pub struct Ticks {
    /// That another machine took from us while we wanted to run.
    stolen: u64,
    total: u64,
}

impl Ticks {
    pub fn now() -> anyhow::Result<Self> {
        let text = std::fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().and_then(|line| line.strip_prefix("cpu "));
        let fields = line.context("/proc/stat has no sum")?.split_whitespace();
        let ticks: Vec<u64> = fields.map(str::parse).collect::<Result<_, _>>()?;
        let stolen = ticks.get(7).copied().unwrap_or(0);
        Ok(Self { stolen, total: ticks.iter().take(8).sum() })
    }

    /// In percent, since `before`.
    pub fn stolen_since(self, before: Self) -> f64 {
        100.0 * (self.stolen - before.stolen) as f64 / (self.total - before.total).max(1) as f64
    }
}

/// Seconds of processor time of the programs that we have run and waited for.
pub fn cpu_seconds_of_children() -> anyhow::Result<f64> {
    cpu_seconds("self", 13)
}

/// Seconds of processor time that a process has used so far.
pub fn cpu_seconds_of(pid: &str) -> anyhow::Result<f64> {
    cpu_seconds(pid, 11)
}

/// The sum of two neighbours in `/proc/PID/stat`, counted from the process's name.
fn cpu_seconds(pid: &str, field: usize) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').context("no process name")?.1.split_whitespace();
    let ticks = fields.skip(field).take(2).map(str::parse::<u64>);
    Ok(ticks.sum::<Result<u64, _>>()? as f64 / 100.0)
}

/// What a process holds.
pub struct Holdings {
    pub anonymous_bytes: u64,
    pub file_count: usize,
    /// How many files it may open.
    pub file_limit: u64,
    pub mapping_count: usize,
}

impl Holdings {
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let read = |name| std::fs::read_to_string(format!("/proc/{pid}/{name}"));
        let (status, limits) = (read("status")?, read("limits")?);
        let number = |text: &str, name| {
            let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
            rest.split_whitespace().next()?.parse::<u64>().ok()
        };
        Ok(Self {
            anonymous_bytes: 1024 * number(&status, "RssAnon:").context("no RssAnon")?,
            file_count: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
            file_limit: number(&limits, "Max open files").context("no limit of files")?,
            mapping_count: read("maps")?.lines().count(),
        })
    }
}

/// Reads the files of a directory, so that they are in the page cache. Returns their length.
pub fn read_all(dir: &Path) -> anyhow::Result<u64> {
    let (mut chunk, mut sum) = (vec![0; 8 << 20], 0);
    for entry in std::fs::read_dir(dir)? {
        let mut file = File::open(entry?.path())?;
        loop {
            match file.read(&mut chunk)? {
                0 => break,
                len => sum += len as u64,
            }
        }
    }
    Ok(sum)
}
