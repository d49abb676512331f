//! `cargo xtask peer-bench`: Apogee against Apache RocketMQ, on this machine, in alternation.

mod page;
mod rounds;
mod rows;

use std::time::Duration;

use anyhow::ensure;
use clap::Args;

use crate::machine::{self, Ticks};
use crate::page as pages;
use crate::peers::PlaceArgs;

use rounds::Runner;
use rows::ROWS;

#[derive(Args)]
pub struct PeerBenchArgs {
    /// Measurements of each server in each row; the median counts.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Seconds of a measurement.
    #[arg(long, value_name = "N", default_value_t = 10)]
    seconds: u64,
    /// Seconds of load that a new JVM gets before it is measured: it is still becoming faster
    /// after a minute.
    #[arg(long, value_name = "N", default_value_t = 60)]
    warmup: u64,
    /// Only these rows; nothing is written.
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    only: Vec<String>,
    /// One short round, to see that everything works; nothing is written.
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    places: PlaceArgs,
}

/// How much is measured.
pub struct Extent {
    pub rounds: usize,
    pub duration: Duration,
    /// Before each measurement.
    pub warmup: Duration,
    /// Once for each JVM.
    pub jvm_warmup: Duration,
    /// Messages to pull.
    pub backlog: u64,
    pub idle: Duration,
    pub floor: Duration,
}

impl PeerBenchArgs {
    fn extent(&self) -> Extent {
        let seconds = Duration::from_secs;
        if self.quick {
            return Extent {
                rounds: 1,
                duration: seconds(3),
                warmup: seconds(1),
                jvm_warmup: seconds(5),
                backlog: 100_000,
                idle: seconds(5),
                floor: seconds(2),
            };
        }
        Extent {
            rounds: self.rounds.max(1),
            duration: seconds(self.seconds.max(1)),
            warmup: seconds(2),
            jvm_warmup: seconds(self.warmup),
            backlog: 1_000_000,
            idle: seconds(60),
            floor: seconds(3),
        }
    }
}

pub fn run(args: &PeerBenchArgs) -> anyhow::Result<()> {
    for id in &args.only {
        let ids: Vec<_> = ROWS.iter().map(|row| row.head.id).collect();
        ensure!(ids.contains(&id.as_str()), "no row `{id}`; there are {}", ids.join(", "));
    }
    let places = args.places.places()?;
    let machine = machine::describe(&places.data)?;
    let load_average = machine::load_average()?;
    let ticks = Ticks::now()?;

    let extent = args.extent();
    let mut page = page::Page {
        machine,
        load_average,
        stolen_percent: 0.0,
        extent: &extent,
        broker_heap: places.broker_heap.clone(),
        outcomes: Vec::new(),
    };
    let mut runner = Runner::new(places, &extent)?;
    for row in ROWS {
        if args.only.is_empty() || args.only.iter().any(|id| id == row.head.id) {
            let outcome = runner.row(row)?;
            println!("{}", pages::table([&outcome]));
            page.outcomes.push(outcome);
            page.stolen_percent = Ticks::now()?.stolen_since(ticks);
            // After each row: a run of an hour may be cut short.
            if args.only.is_empty() && !args.quick {
                page.write()?;
            }
        }
    }
    println!("\n{}", page.text()?);
    Ok(())
}
