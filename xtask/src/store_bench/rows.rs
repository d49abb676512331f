//! The table of rows: what is done with which store, and what Apogee must reach.

use super::lab::{Lab, Stock};
use super::{lookups, pauses, slow_disk, starts, topics};
use crate::figures::{Bar, Head, Metric, Outcome};

pub struct Row {
    pub head: Head,
    pub stock: Stock,
    pub measure: fn(&mut Lab<'_>, &mut Outcome) -> anyhow::Result<()>,
}

/// Told apart in the page's introduction.
pub const LATENCY: &str = "latency";

use Bar::{AtLeast, AtMost, OfOwn, Part, Times};
use Metric::{
    AtRoll, BetweenRolls, Checked, Files, Mappings, Max, MaxSame, Memory, P50, P99, P99Before,
    P999, P999Same, PerCpu, Rate, Rebuilt, Registered, Start,
};

const TOPICS: &[(Metric, Bar)] = &[
    (Memory, AtMost(150e6)),
    (Mappings, AtMost(65_530.0)),
    (Files, Bar::None),
    (Start, AtMost(2000.0)),
    (Registered, Bar::None),
];

/// Those on one store follow each other; deleting many topics goes on after the end.
pub const ROWS: &[Row] = &[
    Row {
        head: Head {
            id: "ready-clean",
            title: "ready to serve after a clean stop, 1,000 queues",
            bars: &[(Start, AtMost(300.0)), (Start, Part(1.0 / 10.0))],
        },
        stock: Stock::Log,
        measure: starts::after_stop,
    },
    Row {
        head: Head {
            id: "ready-kill",
            title: "ready after kill -9 under load, same store",
            bars: &[(Start, Part(1.0 / 5.0))],
        },
        stock: Stock::Log,
        measure: starts::after_kill,
    },
    Row {
        head: Head {
            id: "rebuild",
            title: "all consume queues and the index built again from the log",
            bars: &[(Rebuilt, AtLeast(1.0)), (Rebuilt, Times(5.0))],
        },
        stock: Stock::Log,
        measure: starts::rebuild,
    },
    Row {
        head: Head {
            id: "verify",
            title: "`apogee store verify`",
            bars: &[(Checked, AtLeast(1.0)), (Rebuilt, Bar::None)],
        },
        stock: Stock::Log,
        measure: starts::verify,
    },
    Row {
        head: Head {
            id: "by-time",
            title: "offset by time in the long queue",
            bars: &[(P99, AtMost(1000.0)), (P50, Bar::None)],
        },
        stock: Stock::Keyed,
        measure: lookups::by_time,
    },
    Row {
        head: Head {
            id: "by-key",
            title: "query by key, 10 messages found",
            bars: &[(P99, AtMost(1000.0)), (P50, Bar::None)],
        },
        stock: Stock::Keyed,
        measure: lookups::by_key,
    },
    Row {
        head: Head {
            id: "catch-up",
            title: "100 consumers from random places of the long queue, beside 20,000 sends/s",
            bars: &[
                (PerCpu, Times(5.0)),
                (Rate, Bar::None),
                (P99, OfOwn(2.0, P99Before)),
                (P99Before, Bar::None),
            ],
        },
        stock: Stock::Keyed,
        measure: lookups::catch_up,
    },
    Row {
        head: Head {
            id: "slow-sync",
            title: "every sync takes 20 ms longer: SYNC_FLUSH, 256 in flight, 1 KiB",
            bars: &[(Rate, AtLeast(10_240.0))],
        },
        stock: Stock::None,
        measure: slow_disk::sync,
    },
    Row {
        head: Head {
            id: "slow-async",
            title: "every sync takes 20 ms longer: ASYNC_FLUSH, 10,000/s, 1 KiB",
            // Unchanged, but for what differs from one measurement to the next.
            bars: &[(P99, OfOwn(1.1, P99Before)), (P99Before, Bar::None)],
        },
        stock: Stock::None,
        measure: slow_disk::asynchronous,
    },
    Row {
        head: Head {
            id: LATENCY,
            title: "send at half of each server's maximum, 1 KiB",
            bars: &[
                (P999, Part(1.0 / 20.0)),
                (Max, Part(1.0 / 5.0)),
                (P999Same, Part(1.0 / 20.0)),
                (MaxSame, Part(1.0 / 5.0)),
                (AtRoll, OfOwn(1.0, BetweenRolls)),
                (BetweenRolls, Bar::None),
            ],
        },
        stock: Stock::None,
        measure: pauses::latency,
    },
    Row {
        head: Head { id: "topics-1k", title: "1,000 topics x 4 queues", bars: TOPICS },
        stock: Stock::Topics,
        measure: topics::few,
    },
    Row {
        head: Head { id: "topics-5k", title: "5,000 topics x 4 queues", bars: TOPICS },
        stock: Stock::Topics,
        measure: topics::some,
    },
    Row {
        head: Head { id: "topics-20k", title: "20,000 topics x 4 queues", bars: TOPICS },
        stock: Stock::Topics,
        measure: topics::many,
    },
];
