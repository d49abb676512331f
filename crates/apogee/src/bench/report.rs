//! What a load has shown: one screen for people, one line for programs.

use std::fmt::Write;

use apogee_wire::remoting::ResponseCode;
use serde_json::{Value, json};

use super::args::FsyncLoopArgs;
use super::load::Measured;
use super::tally::{Flow, Times};

const PERCENTILES: [(&str, f64); 4] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9)];
const MIB: f64 = 1024.0 * 1024.0;

pub struct Report {
    pub title: String,
    pub place: String,
    pub measured: Measured,
    /// Seconds of processor time: of the watched processes, and of this one.
    pub server_cpu: Option<f64>,
    pub own_cpu: f64,
    pub memory_peak: Option<u64>,
}

#[allow(clippy::print_stdout, reason = "the result of the command")]
pub fn print(text: &str) {
    println!("{}", text.trim_end());
}

impl Report {
    /// What processor time is divided by: what was sent, or what was read if nothing was.
    fn messages(&self) -> u64 {
        match self.measured.tally.sent.messages {
            0 => self.measured.tally.received.messages,
            sent => sent,
        }
    }

    /// Seconds of processor time for a million messages.
    fn per_million(&self, cpu: f64) -> f64 {
        cpu * 1e6 / self.messages().max(1) as f64
    }

    pub fn text(&self) -> String {
        let Measured { tally, seconds, send_seconds } = &self.measured;
        let mut text = format!("{}\n  {:<11} {}\n", self.title, "cluster", self.place);
        flow(&mut text, ["sent", "answered in"], &tally.sent, *send_seconds);
        let reads = ["read", if tally.sent.messages == 0 { "a pull took" } else { "arrived in" }];
        flow(&mut text, reads, &tally.received, *seconds);
        if !tally.late.is_empty() {
            line(&mut text, "left late", &times_text(&tally.late));
        }
        let errors = tally.errors.iter().map(|(code, n)| format!("{n} x {}", ResponseCode(*code)));
        let mut errors: Vec<_> = errors.collect();
        if 0 < tally.lost {
            errors.push(format!("{} never answered or never arrived", tally.lost));
        }
        let none = "none".to_owned();
        line(&mut text, "errors", &if errors.is_empty() { none } else { errors.join(", ") });
        if let Some(cpu) = self.server_cpu {
            let each = self.per_million(cpu);
            let cores = cpu / seconds;
            let server = format!("{each:.2} CPU-s per million messages, {cores:.2} cores");
            line(&mut text, "server", &server);
        }
        if let Some(peak) = self.memory_peak {
            line(&mut text, "memory", &format!("{:.1} MiB anonymous at most", peak as f64 / MIB));
        }
        let each = self.per_million(self.own_cpu);
        line(&mut text, "generator", &format!("{each:.2} CPU-s per million messages"));
        text
    }

    pub fn json(&self) -> String {
        let Measured { tally, seconds, send_seconds } = &self.measured;
        let errors = tally.errors.iter().map(|(code, count)| (code.to_string(), json!(count)));
        let value = json!({
            "title": self.title,
            "place": self.place,
            "sent": flow_json(&tally.sent, *send_seconds),
            "received": flow_json(&tally.received, *seconds),
            "lateUs": times_json(&tally.late),
            "errors": Value::Object(errors.collect()),
            "lost": tally.lost,
            "serverCpuSeconds": self.server_cpu,
            "serverCpuSecondsPerMillion": self.server_cpu.map(|cpu| self.per_million(cpu)),
            "serverCores": self.server_cpu.map(|cpu| cpu / seconds),
            "anonymousBytesMax": self.memory_peak,
            "generatorCpuSecondsPerMillion": self.per_million(self.own_cpu),
        });
        value.to_string()
    }
}

/// Of the loop that only syncs.
pub fn loop_text(rate: f64, times: &Times, args: &FsyncLoopArgs) -> String {
    if args.json {
        return json!({ "perSecond": rate, "us": times_json(times) }).to_string();
    }
    format!("{rate:.0} appends of {} B with fdatasync/s, {}", args.size, times_text(times))
}

fn line(text: &mut String, name: &str, value: &str) {
    writeln!(text, "  {name:<11} {value}").expect("a String takes everything");
}

fn flow(text: &mut String, names: [&str; 2], flow: &Flow, seconds: f64) {
    if flow.messages == 0 {
        return;
    }
    let rate = thousands((flow.messages as f64 / seconds) as u64);
    let bytes = flow.bytes as f64 / seconds / MIB;
    let count = thousands(flow.messages);
    let value = format!("{rate} messages/s, {bytes:.1} MiB/s ({count} in {seconds:.2} s)");
    line(text, names[0], &value);
    line(text, names[1], &times_text(&flow.times));
}

fn flow_json(flow: &Flow, seconds: f64) -> Value {
    json!({
        "messages": flow.messages,
        "seconds": seconds,
        "perSecond": flow.messages as f64 / seconds,
        "mibPerSecond": flow.bytes as f64 / seconds / MIB,
        "us": times_json(&flow.times),
    })
}

fn times_text(times: &Times) -> String {
    let mut parts: Vec<_> = PERCENTILES
        .iter()
        .map(|(name, percent)| format!("{name} {}", time(times.percentile(*percent))))
        .collect();
    parts.push(format!("max {}", time(times.max())));
    parts.join("  ")
}

/// Microseconds.
fn times_json(times: &Times) -> Value {
    if times.is_empty() {
        return Value::Null;
    }
    let us = |ns: u64| json!(ns as f64 / 1000.0);
    let mut map: serde_json::Map<_, _> = PERCENTILES
        .iter()
        .map(|(name, percent)| ((*name).to_owned(), us(times.percentile(*percent))))
        .collect();
    map.insert("max".into(), us(times.max()));
    map.insert("mean".into(), json!(times.mean() / 1000.0));
    Value::Object(map)
}

fn time(ns: u64) -> String {
    match ns as f64 {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e5 => format!("{:.1} us", ns / 1e3),
        ns if ns < 1e6 => format!("{:.0} us", ns / 1e3),
        ns if ns < 1e8 => format!("{:.2} ms", ns / 1e6),
        ns if ns < 1e9 => format!("{:.0} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

/// With commas between groups of three digits.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if 0 < at && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_as_people_write_them() {
        let numbers = [0, 999, 1000, 12_345, 1_234_567].map(thousands);
        assert_eq!(numbers, ["0", "999", "1,000", "12,345", "1,234,567"]);
        let times = [999, 1000, 250_000, 1_500_000, 250_000_000, 2_000_000_000].map(time);
        assert_eq!(times, ["999 ns", "1.0 us", "250 us", "1.50 ms", "250 ms", "2.00 s"]);
    }
}
