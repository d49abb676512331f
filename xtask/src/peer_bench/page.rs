//! `docs/benchmarks.md`.

use std::fmt::Write;

use super::Extent;
use super::rounds::{Outcome, spread};
use super::rows::{Bar, Metric};
use crate::commands::{command, output, root};
use crate::peers::{APACHE_VERSION, BROKER_HEAP, Kind, NAME_SERVER_HEAP};

const PATH: &str = "docs/benchmarks.md";
/// From here on the page is written by hand, and kept.
const NOTES: &str = "## Notes";

pub struct Page<'a> {
    pub machine: Vec<(&'static str, String)>,
    pub load_average: f64,
    pub stolen_percent: f64,
    pub extent: &'a Extent,
    pub outcomes: Vec<Outcome>,
}

impl Page<'_> {
    pub fn write(&self) -> anyhow::Result<()> {
        let path = root().join(PATH);
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        let notes = before.find(&format!("\n{NOTES}\n")).map_or("", |at| &before[at + 1..]);
        let notes = if notes.is_empty() { "" } else { &format!("\n{notes}") };
        std::fs::create_dir_all(path.parent().expect("it lies in a directory"))?;
        std::fs::write(&path, self.text()? + notes)?;
        println!("wrote {PATH}");
        Ok(())
    }

    pub fn text(&self) -> anyhow::Result<String> {
        let revision = output(&mut command("git", &["rev-parse", "--short", "HEAD"]))?;
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
        let Extent { rounds, duration, jvm_warmup, .. } = self.extent;
        let mut text = format!(
            "# Benchmarks\n\n\
             Apogee at {} against Apache RocketMQ {APACHE_VERSION}, {date}. Made by `cargo xtask \
             peer-bench`; what is below `{NOTES}` is kept.\n\n\
             Both servers have default settings; Apache's broker has `{}`, its name server `{}`. \
             The load is `apogee bench`, with JSON headers as the Java client sends them, on the \
             same machine, 8 queues. Before each measurement the free memory is filled with page \
             cache. {rounds} rounds of {} s for each server, in alternation, \
             after {} s of load for each new JVM; the broker that is not measured is stopped. \
             Figures are medians, with the least and the greatest. The bare loop is a throw-away \
             server that only walks the header, computes the checksum, copies the record into \
             memory and answers; beside SYNC_FLUSH it is a loop of append and fdatasync.\n\n",
            revision.trim(),
            BROKER_HEAP.join(" "),
            NAME_SERVER_HEAP.join(" "),
            duration.as_secs(),
            jvm_warmup.as_secs(),
        );
        text.push_str("| | |\n|---|---|\n");
        for (name, value) in &self.machine {
            writeln!(text, "| {name} | {value} |")?;
        }
        writeln!(text, "| load average before | {:.2} |", self.load_average)?;
        writeln!(text, "| stolen by other machines | {:.1} % |\n", self.stolen_percent)?;
        text.push_str(&table(&self.outcomes));
        for outcome in &self.outcomes {
            details(&mut text, outcome)?;
        }
        Ok(text)
    }
}

/// A line for each bar.
pub fn table<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> String {
    let mut text = String::from(
        "| scenario | | Apache | bare loop | Apogee | Apogee / Apache | must be | |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for outcome in outcomes {
        for (at, &(metric, bar)) in outcome.row.bars.iter().enumerate() {
            let title = if at == 0 { outcome.row.title } else { "" };
            let figure = |kind| spread_text(metric, outcome.spread(kind, metric));
            let floor = match bar {
                Bar::OfLoop(_) => spread_text(metric, spread(&outcome.loop_rates)),
                _ => figure(Kind::Floor),
            };
            let (ratio, verdict) = match outcome.judge(metric, bar) {
                None => ("-".to_owned(), "not measured"),
                Some((ratio, true)) => (ratio_text(ratio, bar), "PASS"),
                Some((ratio, false)) => (ratio_text(ratio, bar), "**MISS**"),
            };
            let cells = [
                title,
                metric.name(),
                &figure(Kind::Apache),
                &floor,
                &figure(Kind::Apogee),
                &ratio,
                &bar.text(metric),
                verdict,
            ];
            text += &format!("| {} |\n", cells.join(" | "));
        }
    }
    text
}

fn spread_text(metric: Metric, spread: Option<[f64; 3]>) -> String {
    match spread.map(|values| values.map(|value| metric.text(value))) {
        None => "-".to_owned(),
        Some([median, least, most]) if least == most => median,
        Some([median, least, most]) => format!("{median} ({least} - {most})"),
    }
}

fn ratio_text(ratio: Option<f64>, bar: Bar) -> String {
    match (ratio, bar) {
        (None, _) => "-".to_owned(),
        (Some(ratio), Bar::OfLoop(_)) => format!("{ratio:.2} of the loop"),
        (Some(ratio), _) if ratio < 1.0 => format!("1/{:.1}", 1.0 / ratio),
        (Some(ratio), _) => format!("{ratio:.1}x"),
    }
}

/// What else was seen, and where the time goes in a row that was missed.
fn details(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    if outcome.notes.is_empty() && outcome.profile.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n### {}\n", outcome.row.title)?;
    for note in &outcome.notes {
        writeln!(text, "- {note}")?;
    }
    if !outcome.profile.is_empty() {
        writeln!(text, "Where Apogee's time goes:\n\n```\n{}\n```", outcome.profile.join("\n"))?;
    }
    Ok(())
}
