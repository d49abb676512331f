//! What is measured and what it must reach.

use std::collections::BTreeMap;

use crate::peers::Kind;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Messages a second.
    Rate,
    /// Seconds of the server's processor time for a million messages.
    Cpu,
    /// Microseconds.
    P50,
    P99,
    P999,
    /// Seconds of processor time in a minute.
    Idle,
    /// Bytes of anonymous memory.
    Memory,
    /// Milliseconds.
    Start,
    /// Milliseconds until the name server knows the last topic.
    Registered,
    /// GiB of log in a second.
    Rebuilt,
    /// GiB of log in a second of processor time.
    Checked,
    /// Microseconds, the longest of all.
    Max,
    /// Microseconds, without what the row is about.
    P99Before,
    /// At the other server's rate.
    P999Same,
    MaxSame,
    /// While a segment of the log begins, and at all other times.
    AtRoll,
    BetweenRolls,
    /// Messages in a second of the server's processor time.
    PerCpu,
    /// Open at once.
    Files,
    Mappings,
}

/// What a figure is compared with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bar {
    /// At least so many times Apache's.
    Times(f64),
    /// At most this part of Apache's.
    Part(f64),
    /// At least this.
    AtLeast(f64),
    /// At most so many times Apogee's own figure of another metric.
    OfOwn(f64, Metric),
    /// Shown beside the others.
    None,
    /// At most this.
    AtMost(f64),
    /// At least this part of the loop that only appends and syncs.
    OfLoop(f64),
}

/// A scenario as it stands in the page.
pub struct Head {
    /// For `--only`.
    pub id: &'static str,
    pub title: &'static str,
    pub bars: &'static [(Metric, Bar)],
}

/// What was measured, a figure for each round.
pub type Figures = BTreeMap<(Kind, Metric), Vec<f64>>;

pub struct Outcome {
    pub head: &'static Head,
    pub figures: Figures,
    /// Appends with fdatasync a second.
    pub loop_rates: Vec<f64>,
    /// Errors that the load saw, and the like.
    pub notes: Vec<String>,
    /// Where the time goes, if the row was missed.
    pub profile: Vec<String>,
}

impl Outcome {
    pub fn new(head: &'static Head) -> Self {
        Self {
            head,
            figures: Figures::new(),
            loop_rates: Vec::new(),
            notes: Vec::new(),
            profile: Vec::new(),
        }
    }

    pub fn add(&mut self, kind: Kind, metric: Metric, value: f64) {
        self.figures.entry((kind, metric)).or_default().push(value);
    }

    /// Whether something was measured beside the two servers.
    pub fn has_floor(&self) -> bool {
        !self.loop_rates.is_empty() || self.figures.keys().any(|(kind, _)| *kind == Kind::Floor)
    }

    /// The median, the least and the greatest.
    pub fn spread(&self, kind: Kind, metric: Metric) -> Option<[f64; 3]> {
        spread(self.figures.get(&(kind, metric))?)
    }

    /// Apogee's figure as a multiple of what it is compared with, and whether that is enough.
    pub fn judge(&self, metric: Metric, bar: Bar) -> Option<(Option<f64>, bool)> {
        let [ours, ..] = self.spread(Kind::Apogee, metric)?;
        let theirs = match bar {
            Bar::AtMost(_) | Bar::AtLeast(_) | Bar::None => {
                let theirs = self.spread(Kind::Apache, metric).map(|[median, ..]| ours / median);
                let is_enough = match bar {
                    Bar::AtMost(most) => ours <= most,
                    Bar::AtLeast(least) => least <= ours,
                    _ => true,
                };
                return Some((theirs, is_enough));
            }
            Bar::OfOwn(_, other) => self.spread(Kind::Apogee, other)?[0],
            Bar::OfLoop(_) => spread(&self.loop_rates)?[0],
            _ => self.spread(Kind::Apache, metric)?[0],
        };
        let ratio = ours / theirs;
        let is_enough = match bar {
            Bar::Times(least) | Bar::OfLoop(least) => least <= ratio,
            Bar::Part(most) | Bar::OfOwn(most, _) => ratio <= most,
            Bar::AtMost(_) | Bar::AtLeast(_) | Bar::None => unreachable!("returned above"),
        };
        Some((Some(ratio), is_enough))
    }

    pub fn is_missed(&self) -> bool {
        let judge = |(metric, bar): &(Metric, Bar)| self.judge(*metric, *bar);
        self.head.bars.iter().filter_map(judge).any(|(_, is_enough)| !is_enough)
    }
}

impl Bar {
    pub fn text(self, metric: Metric) -> String {
        match self {
            Self::Times(times) => format!(">= {times}x"),
            Self::Part(part) => format!("<= 1/{:.0}", 1.0 / part),
            Self::AtMost(most) => format!("<= {}", metric.text(most)),
            Self::AtLeast(least) => format!(">= {}", metric.text(least)),
            Self::OfOwn(most, other) => format!("<= {most}x {}", other.name()),
            Self::None => String::new(),
            Self::OfLoop(part) => format!(">= {part} of the loop"),
        }
    }
}

impl Metric {
    pub fn name(self) -> &'static str {
        use Metric::*;
        match self {
            Rate => "messages/s",
            Cpu => "server CPU-s per million",
            P50 => "p50",
            P99 => "p99",
            P999 => "p99.9",
            Idle => "CPU-s",
            Memory => "MiB",
            Start => "ms",
            Registered => "ms until the name server knows the last topic",
            Rebuilt => "GiB/s",
            Checked => "GiB a CPU-s",
            Max => "max",
            P999Same => "p99.9 at half of Apache's maximum",
            MaxSame => "max at half of Apache's maximum",
            AtRoll => "longest within 50 ms of a roll",
            BetweenRolls => "longest elsewhere",
            P99Before => "p99 without",
            PerCpu => "messages a server CPU-s",
            Files => "open files",
            Mappings => "mappings",
        }
    }

    /// The figure as it stands in the page.
    pub fn text(self, value: f64) -> String {
        use Metric::*;
        match self {
            Rate | PerCpu | Files | Mappings => thousands(value as u64),
            Memory => format!("{:.1}", value / 1024.0 / 1024.0),
            Start | Registered => format!("{value:.0}"),
            Cpu | Idle if 10.0 <= value => format!("{value:.1}"),
            Cpu | Idle | Rebuilt | Checked => format!("{value:.2}"),
            P50 | P99 | P999 | P99Before | P999Same | Max | MaxSame | AtRoll | BetweenRolls => {
                match value {
                    us if us < 1000.0 => format!("{us:.0} us"),
                    us => format!("{:.2} ms", us / 1000.0),
                }
            }
        }
    }
}

/// With three digits that count and commas between groups of three.
fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let rounded = match digits.len() {
        0..=3 => value,
        len => {
            let unit = 10_u64.pow(len as u32 - 3);
            (value + unit / 2) / unit * unit
        }
    };
    let digits = rounded.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if 0 < at && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The median, the least and the greatest.
pub fn spread(values: &[f64]) -> Option<[f64; 3]> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = match values.len() {
        0 => return None,
        len if len % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    };
    Some([median, values[0], values[values.len() - 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some([2.0, 1.0, 3.0]));
        assert_eq!(spread(&[4.0, 1.0]), Some([2.5, 1.0, 4.0]));
    }
}
