//! `apogee bench`: loads a cluster, any that speaks the protocol, and says how it did.
//!
//! One thread drives all connections ([`load`]), because it shares the machine with the server
//! that it measures: frames are encoded once and patched ([`frames`]), everything that can be
//! written or read at once is. `docs/benchmarks.md` is made with it.

#![allow(clippy::disallowed_methods, reason = "a load generator measures real time")]

mod args;
mod cluster;
mod fill;
mod floor;
mod frames;
mod link;
mod load;
mod lookup;
mod pace;
mod puller;
mod report;
mod scenario;
mod sender;
mod tally;
mod watch;

pub use args::BenchArgs;
use args::Scenario;

/// Runs one scenario and prints what came of it.
pub fn run(args: BenchArgs) -> anyhow::Result<()> {
    match args.scenario {
        Scenario::Produce(args) => scenario::produce(&args),
        Scenario::Consume(args) => scenario::consume(&args),
        Scenario::Latency(args) => scenario::latency(&args),
        Scenario::Mixed(args) => scenario::mixed(&args),
        Scenario::Fill(args) => fill::fill(&args),
        Scenario::Lookup(args) => lookup::lookup(&args),
        Scenario::Floor { port, sync } => floor::serve(port, sync.as_deref()),
        Scenario::FsyncLoop(args) => floor::fsync_loop(&args),
    }
}
