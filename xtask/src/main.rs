//! Tasks of this workspace: tests with foreign clients, fuzzing, benchmarks against Apache
//! RocketMQ.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a tool, not the product")]

mod commands;
mod compat;
mod figures;
mod fuzz;
mod machine;
mod page;
mod peer_bench;
mod peers;
mod questions;
mod store_bench;
mod tools;

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", max_term_width = 100)]
enum Task {
    /// Run every test: our own, then those of Apache's Java client and of the Go client, and the
    /// two-way door.
    Test,
    /// Run the suites of the foreign clients alone.
    Compat(compat::CompatArgs),
    /// Let Apache RocketMQ and Apogee take turns on one store, stopped and killed.
    Door,
    /// Run every fuzz target for a while, from the kept corpus.
    Fuzz(fuzz::FuzzArgs),
    /// Measure Apogee against Apache RocketMQ: messages on their way.
    PeerBench(peer_bench::PeerBenchArgs),
    /// Measure what the stores of both do with much data: starts, rebuilds, lookups, slow disks.
    StoreBench(store_bench::StoreBenchArgs),
}

fn main() -> anyhow::Result<()> {
    match Task::parse() {
        Task::Test => compat::test(),
        Task::Compat(args) => compat::compat(&args),
        Task::Door => compat::door(),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::PeerBench(args) => peer_bench::run(&args),
        Task::StoreBench(args) => store_bench::run(&args),
    }
}
