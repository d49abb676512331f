//! `docs/benchmarks.md`: a section for each command, and notes written by hand.

use std::fmt::Write;

use crate::commands::{command, output, root};
use crate::figures::{Bar, Metric, Outcome, spread};
use crate::peers::Kind;

const PATH: &str = "docs/benchmarks.md";

/// Lines that begin a section, in their order. Each command writes its own and keeps the others.
#[derive(Clone, Copy, PartialEq)]
pub enum Section {
    Peers,
    Store,
    Notes,
}

impl Section {
    const ALL: [Self; 3] = [Self::Peers, Self::Store, Self::Notes];

    pub const fn heading(self) -> &'static str {
        match self {
            Self::Peers => "# Benchmarks",
            Self::Store => "## The store",
            Self::Notes => "## Notes",
        }
    }
}

/// Puts a section into the page; `text` begins with its heading.
pub fn write(section: Section, text: &str) -> anyhow::Result<()> {
    let path = root().join(PATH);
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    std::fs::create_dir_all(path.parent().expect("it lies in a directory"))?;
    std::fs::write(&path, replaced(&before, section, text))?;
    println!("wrote {PATH}");
    Ok(())
}

fn replaced(page: &str, section: Section, text: &str) -> String {
    let mut parts: [String; 3] = Default::default();
    // What stands before any heading belongs to the first section.
    let mut at = 0;
    for line in page.lines() {
        at = Section::ALL.iter().position(|it| it.heading() == line).unwrap_or(at);
        parts[at].push_str(line);
        parts[at].push('\n');
    }
    parts[section as usize] = text.to_owned();
    let parts = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("\n\n") + "\n"
}

/// Which Apogee, and when.
pub fn revision_and_date() -> anyhow::Result<(String, String)> {
    let revision = output(&mut command("git", &["rev-parse", "--short", "HEAD"]))?;
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    Ok((revision.trim().to_owned(), date.to_string()))
}

/// What must be known of the machine, and what disturbed it.
pub fn machine_table(
    machine: &[(&'static str, String)],
    load_average: f64,
    stolen_percent: f64,
) -> String {
    let mut text = String::from("| | |\n|---|---|\n");
    for (name, value) in machine {
        text += &format!("| {name} | {value} |\n");
    }
    text += &format!("| load average before | {load_average:.2} |\n");
    text + &format!("| stolen by other machines | {stolen_percent:.1} % |\n")
}

/// A line for each bar.
pub fn table<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> String {
    let outcomes: Vec<_> = outcomes.into_iter().collect();
    let has_floor = outcomes.iter().any(|outcome| outcome.has_floor());
    let mut text = String::from(match has_floor {
        true => "| scenario | | Apache | bare loop | Apogee | Apogee / Apache | must be | |\n",
        false => "| scenario | | Apache | Apogee | Apogee / Apache | must be | |\n",
    });
    text += &format!("|{}\n", "---|".repeat(if has_floor { 8 } else { 7 }));
    for outcome in outcomes {
        for (at, &(metric, bar)) in outcome.head.bars.iter().enumerate() {
            let title = if at == 0 { outcome.head.title } else { "" };
            let figure = |kind| spread_text(metric, outcome.spread(kind, metric));
            let floor = match bar {
                Bar::OfLoop(_) => spread_text(metric, spread(&outcome.loop_rates)),
                _ => figure(Kind::Floor),
            };
            let (ratio, verdict) = match outcome.judge(metric, bar) {
                None => ("-".to_owned(), "not measured"),
                Some((ratio, _)) if bar == Bar::None => (ratio_text(ratio, bar), ""),
                Some((ratio, true)) => (ratio_text(ratio, bar), "PASS"),
                Some((ratio, false)) => (ratio_text(ratio, bar), "**MISS**"),
            };
            let (apache, apogee) = (figure(Kind::Apache), figure(Kind::Apogee));
            let must_be = bar.text(metric);
            let name = metric.name();
            let mut cells = vec![title, name, &apache, &floor, &apogee, &ratio, &must_be, verdict];
            if !has_floor {
                cells.remove(3);
            }
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
        (Some(ratio), Bar::OfOwn(_, other)) => format!("{ratio:.2}x {}", other.name()),
        (Some(ratio), _) if ratio < 1.0 => format!("1/{:.1}", 1.0 / ratio),
        (Some(ratio), _) => format!("{ratio:.1}x"),
    }
}

/// What else was seen, and where the time goes in a row that was missed.
pub fn details(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    if outcome.notes.is_empty() && outcome.profile.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n### {}\n", outcome.head.title)?;
    for note in &outcome.notes {
        writeln!(text, "- {note}")?;
    }
    if !outcome.profile.is_empty() {
        writeln!(text, "Where Apogee's time goes:\n\n```\n{}\n```", outcome.profile.join("\n"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_keeps_what_others_wrote() {
        let page = "# Benchmarks\n\nold\n\n## Notes\n\nby hand: `## The store`\n";
        let page = replaced(page, Section::Store, "## The store\n\nfast\n");
        let page = replaced(&page, Section::Peers, "# Benchmarks\n\nnew\n");
        let expected = "# Benchmarks\n\nnew\n\n## The store\n\nfast\n\n## Notes\n\n\
                        by hand: `## The store`\n";
        assert_eq!(page, expected);
    }
}
