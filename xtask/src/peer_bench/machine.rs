//! What must be known of the machine to read its figures.

use std::path::Path;

use anyhow::Context;

/// Lines for the page.
pub fn describe(data: &Path) -> anyhow::Result<Vec<(&'static str, String)>> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let memory_kib: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"))
        .context("no MemTotal in /proc/meminfo")?
        .parse()?;
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
