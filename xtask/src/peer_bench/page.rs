//! The section of `docs/benchmarks.md` about messages on their way.

use super::Extent;
use crate::figures::Outcome;
use crate::page::{self, Section};
use crate::peers::{APACHE_VERSION, NAME_SERVER_HEAP};

pub struct Page<'a> {
    pub machine: Vec<(&'static str, String)>,
    pub load_average: f64,
    pub stolen_percent: f64,
    pub extent: &'a Extent,
    pub broker_heap: String,
    pub outcomes: Vec<Outcome>,
}

impl Page<'_> {
    pub fn write(&self) -> anyhow::Result<()> {
        page::write(Section::Peers, &self.text()?)
    }

    pub fn text(&self) -> anyhow::Result<String> {
        let (revision, date) = page::revision_and_date()?;
        let Extent { rounds, duration, jvm_warmup, .. } = self.extent;
        let mut text = format!(
            "{}\n\n\
             Apogee at {revision} against Apache RocketMQ {APACHE_VERSION}, {date}. Made by \
             `cargo xtask peer-bench`; what is below `{}` is kept.\n\n\
             Both servers have default settings; Apache's broker has `{}`, its name server `{}`. \
             The load is `apogee bench`, with JSON headers as the Java client sends them, on the \
             same machine, 8 queues. Before each measurement the free memory is filled with page \
             cache. {rounds} rounds of {} s for each server, in alternation, \
             after {} s of load for each new JVM; the broker that is not measured is stopped. \
             Figures are medians, with the least and the greatest. The bare loop is a throw-away \
             server that only walks the header, computes the checksum, copies the record into \
             memory and answers; beside SYNC_FLUSH it is a loop of append and fdatasync.\n\n",
            Section::Peers.heading(),
            Section::Notes.heading(),
            self.broker_heap,
            NAME_SERVER_HEAP.join(" "),
            duration.as_secs(),
            jvm_warmup.as_secs(),
        );
        text += &page::machine_table(&self.machine, self.load_average, self.stolen_percent);
        text.push('\n');
        text.push_str(&page::table(&self.outcomes));
        for outcome in &self.outcomes {
            page::details(&mut text, outcome)?;
        }
        Ok(text)
    }
}
