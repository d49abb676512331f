//! A disk that takes 20 ms longer for every sync.

use std::time::Duration;

use super::lab::{Lab, PEERS, add, add_errors};
use crate::figures::{Metric, Outcome};
use crate::peers::{Flush, Kind, Setup};

/// As a grandchild, so that the server's process is ours to stop; only syncs stop for it.
const STRACE: [&str; 7] =
    ["strace", "-D", "-f", "--seccomp-bpf", "-o", "/dev/null", "--trace=fdatasync,fsync,msync"];
const DELAY: &str = "--inject=fdatasync,fsync,msync:delay_exit=20000";

pub fn sync(lab: &mut Lab<'_>, outcome: &mut Outcome) -> anyhow::Result<()> {
    let load = "produce --connections 2 --in-flight 128 --size 1024";
    for _ in 0..lab.extent.rounds {
        for kind in PEERS {
            let sent = measure(lab, outcome, kind, Flush::Sync, true, load)?;
            add(outcome, kind, &[(Metric::Rate, &sent["perSecond"])])?;
        }
    }
    Ok(())
}

pub fn asynchronous(lab: &mut Lab<'_>, outcome: &mut Outcome) -> anyhow::Result<()> {
    let load = "latency --rate 10000 --connections 4 --size 1024";
    for _ in 0..lab.extent.rounds {
        for kind in PEERS {
            let fast = measure(lab, outcome, kind, Flush::Async, false, load)?;
            let slow = measure(lab, outcome, kind, Flush::Async, true, load)?;
            let figures =
                [(Metric::P99Before, &fast["us"]["p99"]), (Metric::P99, &slow["us"]["p99"])];
            add(outcome, kind, &figures)?;
        }
    }
    Ok(())
}

/// What the load says of what was sent.
fn measure(
    lab: &mut Lab<'_>,
    outcome: &mut Outcome,
    kind: Kind,
    flush: Flush,
    is_slow: bool,
    load: &str,
) -> anyhow::Result<serde_json::Value> {
    lab.page_cache.fill()?;
    let under = [&STRACE[..], &[DELAY]].concat();
    // Without the delay it is run in the same way.
    let under = if is_slow { &under[..] } else { &STRACE[..] };
    let peer = lab.places.start_with(kind, &Setup { flush, under, ..Setup::default() })?;
    let result = lab.load(&peer, load, lab.warmup(kind).max(Duration::from_secs(2)))?;
    add_errors(outcome, kind, &result);
    Ok(result["sent"].clone())
}
