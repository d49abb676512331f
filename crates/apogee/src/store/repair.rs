//! `apogee store repair`: builds consume queues and index anew from the commit log.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use apogee_store::rebuild::{Old, Plan};
use apogee_store::verify::{Kind, Report, Severity, verify};
use apogee_store::view::Live;
use apogee_store::{Recovery, Settings, View};
use apogee_types::{Clock, SystemClock};
use indicatif::ProgressBar;
use jiff::tz::TimeZone;

use super::{Place, mib, progress_bar, topics};
use crate::config::Role;
use crate::greeting::say;
use crate::roles;

#[derive(Debug, clap::Args)]
pub struct RepairArgs {
    #[command(flatten)]
    place: Place,
    /// The broker's file of settings: delay levels, and sizes where no file tells them.
    #[arg(short = 'c', long = "config", alias = "configFile", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Delete the old queues and index first, instead of keeping them under another name.
    #[arg(long)]
    delete: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

pub fn run(args: &RepairArgs) -> anyhow::Result<()> {
    // Held while the question waits, so that no broker starts meanwhile.
    let view = args.place.open(Live::Refuse)?;
    let bar = progress_bar(&view);
    let start = view.log_bounds().start;
    let topics = topics(&args.place.dir)?;
    let report = verify(&view, topics.as_ref(), &mut |at| bar.set_position(at.0 - start))?;
    bar.finish_and_clear();
    if report.message_count == 0 {
        bail!("the commit log holds no message: there is nothing to build queues from");
    }
    let old = if args.delete { Old::Delete } else { Old::Aside(suffix()) };
    let plan = Plan::new(&view, settings(args, &view)?, &report);
    say(&intention(args, &report, &old));
    if !args.yes {
        confirm()?;
    }
    let bar = progress_bar(&view);
    drop(view);
    let built = build(&plan, &old, &bar, start)?;
    say(&format!(
        "built from {} records; `apogee store verify {}` checks it\n",
        built.record_count,
        args.place.dir.display()
    ));
    if let Old::Aside(suffix) = &old {
        let dir = args.place.dir.display();
        say(&format!(
            "the old ones are kept; to delete them: rm -r {dir}/consumequeue.{suffix} \
             {dir}/index.{suffix}\n"
        ));
    }
    Ok(())
}

/// What the files tell, and the settings what they do not.
fn settings(args: &RepairArgs, view: &View) -> anyhow::Result<Settings> {
    let dir = args.place.dir.to_string_lossy().into_owned();
    let config =
        crate::load(Role::Broker, args.config.as_deref(), &[("storePathRootDir", Some(dir))])?;
    let given = roles::store_settings(&config)?;
    let (found, default) = (view.settings().clone(), Settings::at(&args.place.dir));
    let counts = |it: &Settings| (it.index_slot_count, it.index_entry_count);
    let (slots, entries) =
        if counts(&found) == counts(&default) { counts(&given) } else { counts(&found) };
    Ok(Settings {
        index_enabled: given.index_enabled,
        index_slot_count: slots,
        index_entry_count: entries,
        local_time: given.local_time,
        delays_ms: given.delays_ms,
        ..found
    })
}

fn intention(args: &RepairArgs, report: &Report, old: &Old) -> String {
    let mut text = String::new();
    let errors = report.findings.0.iter().filter(|(kind, _)| kind.severity() == Severity::Error);
    for (kind, finding) in errors.clone() {
        text += &format!("  {}: {} {}\n", kind.name(), finding.count, kind.meaning());
        finding.examples.iter().for_each(|example| text += &format!("    {example}\n"));
    }
    if text.is_empty() {
        text = "  no errors: a repair is not needed\n".to_owned();
    }
    if errors.clone().any(|(kind, _)| matches!(kind, Kind::BodyChecksum | Kind::LogDamage)) {
        text += "  what is damaged in the commit log itself stays as it is\n";
    }
    let becomes = match old {
        Old::Aside(suffix) => format!("renamed to consumequeue.{suffix} and index.{suffix}"),
        Old::Delete => "DELETED first".to_owned(),
    };
    format!(
        "found in {}:\n{text}will read {} of the commit log, which stays as it is, and build all \
         consume queues and the index anew; the old ones are {becomes}\n",
        args.place.dir.display(),
        mib(report.log_end.0 - report.log_min.0),
    )
}

fn confirm() -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody is there to confirm it: give --yes");
    }
    print!("Continue? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("nothing was changed");
    }
    Ok(())
}

/// Builds on a thread of its own; this one shows how far it is.
fn build(plan: &Plan, old: &Old, bar: &ProgressBar, start: u64) -> anyhow::Result<Recovery> {
    const SHOWN_EVERY: Duration = Duration::from_millis(100);
    let reached = Arc::new(AtomicU64::new(start));
    std::thread::scope(|scope| {
        let telling = Arc::clone(&reached);
        let builder = std::thread::Builder::new().name("repair".into());
        let building = builder.spawn_scoped(scope, move || plan.run(old, telling))?;
        while !building.is_finished() {
            bar.set_position(reached.load(Ordering::Relaxed).saturating_sub(start));
            std::thread::sleep(SHOWN_EVERY);
        }
        bar.finish_and_clear();
        let built = building.join().map_err(|_| anyhow::anyhow!("the repair has panicked"))?;
        built.context("the repair has failed; try it again once the reason is gone")
    })
}

/// For names: `bak-20260131-120000`.
fn suffix() -> String {
    let now = jiff::Timestamp::from_millisecond(SystemClock.now_ms()).unwrap_or_default();
    TimeZone::system().to_datetime(now).strftime("bak-%Y%m%d-%H%M%S").to_string()
}
