//! `apogee bench` alone, quicker to build than the whole program.

use clap::Parser;

#[path = "../src/bench/mod.rs"]
mod bench;
#[path = "../src/machine.rs"]
#[allow(dead_code, reason = "the program uses the rest")]
mod machine;

#[derive(Parser)]
enum Cli {
    Bench(bench::BenchArgs),
}

fn main() -> anyhow::Result<()> {
    let Cli::Bench(args) = Cli::parse();
    bench::run(args)
}
