//! `apogee store verify`: what is in a store, and what is wrong with it.

use std::fmt::Write;

use apogee_store::verify::{Kind, Report, Severity, verify};
use apogee_store::view::Live;
use serde_json::json;
use tokio::time::Instant;

use super::{Place, mib, progress_bar, time, topics};
use crate::greeting::say;

#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    place: Place,
    /// Check a store that a broker runs on: what it is writing just now may look unfinished.
    #[arg(long)]
    live: bool,
    /// One object with all that was found.
    #[arg(long)]
    json: bool,
}

/// 1 if there are errors.
pub fn run(args: &VerifyArgs) -> anyhow::Result<i32> {
    let view = args.place.open(if args.live { Live::Allow } else { Live::Refuse })?;
    let bar = progress_bar(&view);
    let (started, start) = (Instant::now(), view.log_bounds().start);
    let topics = topics(&args.place.dir)?;
    let report = verify(&view, topics.as_ref(), &mut |at| bar.set_position(at.0 - start))?;
    bar.finish_and_clear();
    let seconds = started.elapsed().as_secs_f64();
    if args.json {
        say(&format!("{}\n", to_json(&report, seconds)));
    } else {
        say(&in_words(args, &report, seconds));
    }
    Ok(i32::from(report.findings.has_errors()))
}

fn in_words(args: &VerifyArgs, it: &Report, seconds: f64) -> String {
    let len = it.log_end.0 - it.log_min.0;
    let rate = len as f64 / (1u64 << 30) as f64 / seconds.max(1e-6);
    let maker =
        if it.is_of_apogee() { "Apogee" } else { "Apache RocketMQ, or Apogee without an index" };
    let mut text = format!(
        "{}\n  log         {} to {}: {} messages in {}\n  stored      {} to {}\n  queues      {} \
         of {} topics\n  index       {} files, {} entries\n  checkpoint  log {}, queues {} (record \
         at {}), index {}\n  last used   by {maker}\n  checked     in {seconds:.2} s, {rate:.2} \
         GiB/s\n",
        args.place.dir.display(),
        it.log_min,
        it.log_end,
        it.message_count,
        mib(len),
        time(it.first_ms),
        time(it.last_ms),
        it.queue_count,
        it.topic_count,
        it.index_file_count,
        it.index_entry_count,
        time(it.checkpoint.log_ms),
        time(it.checkpoint.queues_ms),
        it.checkpoint.queues_at,
        time(it.checkpoint.index_ms),
    );
    if 0 < it.half_count {
        let _ = writeln!(text, "  in no queue {} parts of transactions", it.half_count);
    }
    if 0 < it.superseded_count {
        let count = it.superseded_count;
        let _ = writeln!(text, "  replaced    {count} messages of topics that were made again");
    }
    for (kind, finding) in &it.findings.0 {
        let _ = writeln!(
            text,
            "{}  {}: {} {}; {}",
            severity(*kind),
            kind.name(),
            finding.count,
            kind.meaning(),
            kind.advice()
        );
        for example in &finding.examples {
            let _ = writeln!(text, "         {example}");
        }
    }
    text + verdict(it) + "\n"
}

fn verdict(it: &Report) -> &'static str {
    match (it.findings.has_errors(), it.findings.0.is_empty()) {
        (true, _) => "NOT SOUND: readers would miss messages or get wrong ones",
        (false, false) => "sound; the notes tell what the next start puts right by itself",
        (false, true) => "sound",
    }
}

fn severity(kind: Kind) -> &'static str {
    match kind.severity() {
        Severity::Error => "error",
        Severity::Note => "note",
    }
}

fn to_json(it: &Report, seconds: f64) -> serde_json::Value {
    let findings = it.findings.0.iter().map(|(kind, finding)| {
        json!({
            "kind": kind.name(),
            "severity": severity(*kind),
            "count": finding.count,
            "meaning": kind.meaning(),
            "advice": kind.advice(),
            "examples": finding.examples,
        })
    });
    json!({
        "sound": !it.findings.has_errors(),
        "messages": it.message_count,
        "halfMessages": it.half_count,
        "supersededMessages": it.superseded_count,
        "topics": it.topic_count,
        "queues": it.queue_count,
        "indexFiles": it.index_file_count,
        "indexEntries": it.index_entry_count,
        "logMin": it.log_min.0,
        "logEnd": it.log_end.0,
        "firstStored": it.first_ms,
        "lastStored": it.last_ms,
        "checkpoint": {
            "log": it.checkpoint.log_ms,
            "queues": it.checkpoint.queues_ms,
            "index": it.checkpoint.index_ms,
            "queuesAt": it.checkpoint.queues_at.0,
        },
        "seconds": seconds,
        "findings": findings.collect::<Vec<_>>(),
    })
}
