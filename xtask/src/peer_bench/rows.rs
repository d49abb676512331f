//! The table of scenarios: what is run, and what Apogee must reach.

use crate::figures::{Bar, Head, Metric};
use crate::peers::Flush;

#[derive(Debug, Clone, Copy)]
pub enum Action {
    /// `apogee bench` with these words, on empty stores.
    Load(&'static str),
    /// The same, on stores that were filled with these first.
    Backlog {
        fill: &'static str,
        load: &'static str,
    },
    Start,
    Idle,
    /// What was seen in all other rows.
    Memory,
}

pub struct Row {
    pub head: Head,
    pub action: Action,
    pub flush: Flush,
    /// The throw-away server can do it, too.
    pub has_floor: bool,
}

impl Row {
    const fn send(
        id: &'static str,
        title: &'static str,
        load: &'static str,
        bars: &'static [(Metric, Bar)],
    ) -> Self {
        let head = Head { id, title, bars };
        Self { head, action: Action::Load(load), flush: Flush::Async, has_floor: true }
    }

    const fn sync(self) -> Self {
        Self { flush: Flush::Sync, has_floor: false, ..self }
    }

    const fn without_floor(self) -> Self {
        Self { has_floor: false, ..self }
    }

    const fn with(self, action: Action) -> Self {
        Self { action, has_floor: false, ..self }
    }
}

use Bar::{AtMost, OfLoop, Part, Times};
use Metric::{Cpu, Idle, Memory, P50, P99, P999, Rate, Start};

pub const ROWS: &[Row] = &[
    Row::send(
        "send-1k",
        "send, 2 connections x 128 in flight, 1 KiB",
        "produce --connections 2 --in-flight 128 --size 1024",
        &[(Rate, Times(6.0)), (Cpu, Part(1.0 / 10.0))],
    ),
    Row::send(
        "send-128",
        "send, 2 connections x 128 in flight, 128 B",
        "produce --connections 2 --in-flight 128 --size 128",
        &[(Rate, Times(10.0)), (Cpu, Part(1.0 / 16.0))],
    ),
    Row::send(
        "send-64x1",
        "send, 64 connections x 1 in flight, 1 KiB",
        "produce --connections 64 --in-flight 1 --size 1024",
        &[(Rate, Times(2.5)), (Cpu, Part(1.0 / 6.0))],
    ),
    Row::send(
        "send-1x1",
        "send, 1 connection x 1 in flight, 128 B",
        "produce --connections 1 --in-flight 1 --size 128",
        &[(P50, Part(1.0 / 3.0)), (Cpu, Part(1.0 / 8.0))],
    ),
    Row::send(
        "latency",
        "send at a fixed 10,000/s, 4 connections, 1 KiB",
        "latency --rate 10000 --connections 4 --size 1024",
        &[(P50, Part(1.0 / 2.0)), (P99, Part(1.0 / 20.0)), (P999, Part(1.0 / 15.0))],
    ),
    Row::send("pull-1k", "pull a backlog, 32 a request, 1 KiB", "", &[(Cpu, Part(1.0 / 4.0))])
        .with(Action::Backlog {
            fill: "produce --size 1024",
            load: "consume --in-flight 8 --pull 32",
        }),
    Row::send("pull-128", "pull a backlog, 32 a request, 128 B", "", &[(Cpu, Part(1.0 / 4.0))])
        .with(Action::Backlog {
            fill: "produce --size 128",
            load: "consume --in-flight 8 --pull 32",
        }),
    Row::send(
        "end-to-end",
        "from send to a waiting consumer, one message at a time, 1 KiB",
        "latency --end-to-end --connections 1 --size 1024",
        &[(P50, Part(1.0 / 3.0)), (P999, Part(1.0 / 10.0))],
    )
    .without_floor(),
    Row::send(
        "sync-1x1",
        "SYNC_FLUSH: send, 1 connection x 1 in flight, 1 KiB",
        "produce --connections 1 --in-flight 1 --size 1024",
        &[(Rate, Times(4.0)), (Rate, OfLoop(0.8))],
    )
    .sync(),
    Row::send(
        "sync-64x1",
        "SYNC_FLUSH: send, 64 connections x 1 in flight, 1 KiB",
        "produce --connections 64 --in-flight 1 --size 1024",
        &[(Rate, Times(2.5)), (Cpu, Part(1.0 / 8.0))],
    )
    .sync(),
    Row::send(
        "sync-1k",
        "SYNC_FLUSH: send, 2 connections x 128 in flight, 1 KiB",
        "produce --connections 2 --in-flight 128 --size 1024",
        &[(Rate, Times(2.0)), (Cpu, Part(1.0 / 8.0))],
    )
    .sync(),
    Row::send(
        "start",
        "from exec to the first route answered, name server and broker, empty store",
        "",
        &[(Start, AtMost(100.0))],
    )
    .with(Action::Start),
    Row::send("idle", "idle for a minute, nothing connected", "", &[(Idle, AtMost(0.05))])
        .with(Action::Idle),
    Row::send(
        "memory",
        "peak anonymous memory through all of it, name server and broker",
        "",
        &[(Memory, AtMost(64.0 * 1024.0 * 1024.0))],
    )
    .with(Action::Memory),
];
