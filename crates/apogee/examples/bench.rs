//! `apogee bench` alone, quicker to build than the whole program.

use clap::Parser;

#[path = "../src/bench/mod.rs"]
mod bench;
#[path = "../src/machine.rs"]
mod machine;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: bench::BenchArgs,
}

fn main() -> anyhow::Result<()> {
    bench::run(Cli::parse().args)
}
