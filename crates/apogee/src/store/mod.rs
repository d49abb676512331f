//! `apogee store`: looks at a store directory, and repairs it, while no broker runs on it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context;
use apogee_broker::topics::TopicTable;
use apogee_store::view::Live;
use apogee_store::{Disk, Error, RealDisk, View};
use apogee_types::{Millis, json, names};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::tz::TimeZone;

mod dump;
mod repair;
mod verify;

#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Check a store, Apogee's or Apache RocketMQ's: exit code 1 if readers would miss something.
    Verify(verify::VerifyArgs),
    /// Print messages of a store, one a line, in the order of the log or of one queue.
    Dump(dump::DumpArgs),
    /// Build consume queues and index anew from the commit log, which stays as it is.
    Repair(repair::RepairArgs),
}

/// Which store.
#[derive(Debug, Args)]
struct Place {
    /// The store: the directory with commitlog, consumequeue, index (storePathRootDir).
    dir: PathBuf,
    /// Where its commit log is (storePathCommitLog) [default: DIR/commitlog].
    #[arg(long = "commitlog", value_name = "DIR")]
    commit_log: Option<PathBuf>,
}

impl Place {
    fn open(&self, live: Live) -> anyhow::Result<View> {
        let view = View::open(&self.dir, self.commit_log.as_deref(), live);
        view.map_err(|error| match error {
            Error::Locked { path } => {
                let dir = path.parent().unwrap_or(&path).display();
                anyhow::anyhow!("a broker runs on {dir}: stop it first (verify also takes --live)")
            }
            error => error.into(),
        })
    }
}

/// The exit code.
pub fn run(command: StoreCommand) -> anyhow::Result<i32> {
    match command {
        StoreCommand::Verify(args) => verify::run(&args),
        StoreCommand::Dump(args) => dump::run(&args).map(|()| 0),
        StoreCommand::Repair(args) => repair::run(&args).map(|()| 0),
    }
}

/// The topics that exist; `None` where nothing tells.
pub fn topics(root: &Path) -> anyhow::Result<Option<BTreeSet<String>>> {
    for name in ["topics.json", "topics.json.bak"] {
        let path = root.join("config").join(name);
        let content = RealDisk.read(&path).with_context(|| path.display().to_string())?;
        let table = content.and_then(|bytes| json::read::<TopicTable>(&bytes).ok());
        if let Some(table) = table {
            let mut topics: BTreeSet<_> =
                table.topic_config_table.keys().map(ToString::to_string).collect();
            topics.insert(names::SCHEDULE_TOPIC.to_owned());
            return Ok(Some(topics));
        }
    }
    Ok(None)
}

/// Shown on a terminal only.
fn progress_bar(view: &View) -> ProgressBar {
    let template = "{bar:40} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, \
                    {eta} left";
    let style = ProgressStyle::with_template(template).expect("the template is well-formed");
    ProgressBar::new(view.end_hint().0 - view.log_bounds().start).with_style(style)
}

/// Local time with milliseconds; `never` for 0.
fn time(ms: Millis) -> String {
    if ms == 0 {
        return "never".to_owned();
    }
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or_default();
    TimeZone::system().to_datetime(time).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

fn mib(len: u64) -> String {
    format!("{:.1} MiB", len as f64 / (1024.0 * 1024.0))
}
