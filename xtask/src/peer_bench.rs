//! `cargo xtask peer-bench`: Apogee against Apache RocketMQ, on this machine, in alternation.

mod page;
mod rounds;
mod rows;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;

use crate::machine::{self, Ticks};
use crate::peers::{self, Places};
use crate::{commands, page as pages};

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
    /// Where Apache RocketMQ lies or will be fetched to.
    #[arg(long, value_name = "DIR")]
    apache_home: Option<PathBuf>,
    /// The program, instead of a release build of it.
    #[arg(long, value_name = "FILE")]
    apogee_bin: Option<PathBuf>,
    /// Where stores are made, and deleted afterwards [default: in the target directory].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
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
    let apache_home = peers::fetch_apache(peers::APACHE_VERSION, args.apache_home.as_deref())?;
    let apogee = args.apogee_bin.clone().map_or_else(commands::build_apogee, Ok)?.canonicalize()?;
    let data = args.data.clone().unwrap_or_else(|| commands::target_dir().join("peer-bench"));
    std::fs::create_dir_all(&data)?;
    let machine = machine::describe(&data)?;
    let load_average = machine::load_average()?;
    let ticks = Ticks::now()?;

    let extent = args.extent();
    let mut page = page::Page {
        machine,
        load_average,
        stolen_percent: 0.0,
        extent: &extent,
        outcomes: Vec::new(),
    };
    let mut runner = Runner::new(Places { apache_home, apogee, data }, &extent)?;
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
