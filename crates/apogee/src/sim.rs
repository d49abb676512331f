//! `apogee sim`: lives histories from seeds and says which of them break a promise.

use anyhow::bail;
use apogee_sim::history;
use clap::Args;

use crate::greeting::say;

#[derive(Debug, Args)]
pub struct SimArgs {
    /// Seed of the first history; a seed is the same history every time.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How many histories, each with the next seed.
    #[arg(long, value_name = "M", default_value_t = 1)]
    count: u64,
    /// Print every event.
    #[arg(long)]
    verbose: bool,
}

/// An error if any history breaks a promise.
pub fn run(args: &SimArgs) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for seed in args.seed..args.seed.saturating_add(args.count) {
        let outcome = history::run(seed);
        if args.verbose {
            outcome.entries.iter().for_each(|entry| say(&format!("{entry}\n")));
        }
        if let Some(complaint) = outcome.complaint() {
            say(&format!("{complaint}\n"));
            failed.push(seed);
        } else if args.verbose {
            say(&format!("seed {seed} ({:?} flush) keeps the promises\n", outcome.flush));
        }
    }
    match failed.len() {
        0 => {
            say(&format!("{} histories from seed {} keep the promises\n", args.count, args.seed));
            Ok(())
        }
        count => bail!("{count} of {} histories break a promise: seeds {failed:?}", args.count),
    }
}
