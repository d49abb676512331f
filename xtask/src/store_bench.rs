//! `cargo xtask store-bench`: what the stores of Apogee and Apache RocketMQ do with much data, on
//! the same files and this machine, in alternation.

mod lab;
mod lookups;
mod pauses;
mod rows;
mod slow_disk;
mod starts;
mod topics;

use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;

use crate::figures::Outcome;
use crate::machine::{self, Ticks};
use crate::page::{self, Section};
use crate::peers::{APACHE_VERSION, PlaceArgs};
use crate::tools;

use lab::Lab;
use rows::ROWS;

#[derive(Args)]
pub struct StoreBenchArgs {
    /// Measurements of each server in each row; the median counts.
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// The same for the long row, `latency`.
    #[arg(long, value_name = "N", default_value_t = 1)]
    long_rounds: usize,
    /// Seconds of a measurement of the long row.
    #[arg(long, value_name = "N", default_value_t = 120)]
    long_seconds: u64,
    /// GiB of the log that is started on and read.
    #[arg(long, value_name = "N", default_value_t = 8)]
    gib: u64,
    /// Messages of the queue that is searched and read.
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    messages: u64,
    /// Only these rows; nothing is written.
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    only: Vec<String>,
    /// One short round with little data, to see that everything works; nothing is written.
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    places: PlaceArgs,
}

/// How much is measured.
pub struct Extent {
    pub rounds: usize,
    pub long_rounds: usize,
    /// Of a measurement.
    pub duration: Duration,
    pub long: Duration,
    /// Before each measurement.
    pub warmup: Duration,
    /// Once for each JVM.
    pub jvm_warmup: Duration,
    pub log_bytes: u64,
    pub messages: u64,
}

impl StoreBenchArgs {
    fn extent(&self) -> Extent {
        let seconds = Duration::from_secs;
        let extent = Extent {
            rounds: self.rounds.max(1),
            long_rounds: self.long_rounds.max(1),
            duration: seconds(6),
            long: seconds(self.long_seconds.max(1)),
            warmup: seconds(1),
            jvm_warmup: seconds(10),
            log_bytes: self.gib << 30,
            messages: self.messages,
        };
        if !self.quick {
            return extent;
        }
        Extent {
            rounds: 1,
            duration: seconds(3),
            long: seconds(10),
            jvm_warmup: seconds(5),
            log_bytes: 1 << 30,
            messages: 1_000_000,
            ..extent
        }
    }
}

pub fn run(args: &StoreBenchArgs) -> anyhow::Result<()> {
    for id in &args.only {
        let ids: Vec<_> = ROWS.iter().map(|row| row.head.id).collect();
        ensure!(ids.contains(&id.as_str()), "no row `{id}`; there are {}", ids.join(", "));
    }
    tools::require_strace()?;
    let places = args.places.places()?;
    let machine = machine::describe(&places.data)?;
    let load_average = machine::load_average()?;
    let (started, ticks) = (Instant::now(), Ticks::now()?);

    let extent = args.extent();
    let heap = places.broker_heap.clone();
    let mut lab = Lab::new(places, &extent)?;
    let mut outcomes: Vec<Outcome> = Vec::new();
    let is_whole = args.only.is_empty() && !args.quick;
    let mut text = String::new();
    for row in ROWS {
        if args.only.is_empty() || args.only.iter().any(|id| id == row.head.id) {
            let passed = started.elapsed().as_secs();
            println!("\n== {}: {} ({passed} s so far)", row.head.id, row.head.title);
            let mut outcome = Outcome::new(&row.head);
            lab.prepare(row.stock)?;
            (row.measure)(&mut lab, &mut outcome)?;
            println!("{}", page::table([&outcome]));
            outcomes.push(outcome);
            let stolen = Ticks::now()?.stolen_since(ticks);
            text = section(&extent, &heap, &outcomes)?;
            text += &page::machine_table(&machine, load_average, stolen);
            text.push('\n');
            text += &page::table(&outcomes);
            for outcome in &outcomes {
                page::details(&mut text, outcome)?;
            }
            // After each row: a long run may be cut short.
            if is_whole {
                page::write(Section::Store, &text)?;
            }
        }
    }
    println!("\n{text}\n{} s in all", started.elapsed().as_secs());
    Ok(())
}

/// What is above the table.
fn section(extent: &Extent, heap: &str, outcomes: &[Outcome]) -> anyhow::Result<String> {
    let (revision, date) = page::revision_and_date()?;
    let mut text = format!(
        "{}\n\nApogee at {revision} against Apache RocketMQ {APACHE_VERSION}, {date}. Made by \
         `cargo xtask store-bench`.\n\nBoth servers have default settings, Apache's broker with \
         `{}`, and work on the same files, which Apogee has written: a log of {}.5 GiB, \
         messages of 1 KiB in 125 topics of 8 queues; a queue of {} messages of 128 bytes with \
         one of a tenth as many keys each; topics of 4 queues with a message in each. What is \
         read is in the page cache. {} rounds, in alternation; figures are medians, with the \
         least and the greatest.",
        Section::Store.heading(),
        heap,
        extent.log_bytes >> 30,
        extent.messages,
        extent.rounds,
    );
    if outcomes.iter().any(|outcome| outcome.head.id == rows::LATENCY) {
        text += &format!(
            " `{}`: {} rounds of {} s.",
            rows::LATENCY,
            extent.long_rounds,
            extent.long.as_secs()
        );
    }
    Ok(text + "\n\n")
}
