//! The stores that are measured, and how a server is started on one.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use super::Extent;
use crate::commands::command;
use crate::figures::{Metric, Outcome};
use crate::machine::{self, PageCache};
use crate::peers::{Kind, Peer, Places, Queue, Setup, said};

/// In the order of a round.
pub const PEERS: [Kind; 2] = [Kind::Apache, Kind::Apogee];
const LOG_TOPICS: u32 = 125;
const LOG_QUEUES: u32 = 8;
/// Bytes of a record with a body of 1 KiB.
const RECORD_LEN: u64 = 1235;
const SEGMENT_LEN: u64 = 1 << 30;
/// The topic of the long queue.
pub const KEYED: &str = "keyed";
/// Messages that have the same key.
const MESSAGES_OF_KEY: u64 = 10;

/// Which store a row needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stock {
    /// The row makes its own.
    None,
    /// A long log in 1,000 queues.
    Log,
    /// One long queue of messages with keys.
    Keyed,
    /// Many topics: made by the rows, each more than the one before.
    Topics,
}

/// A store on disk. Goes with this value.
pub struct Store {
    pub dir: PathBuf,
    /// What must be there before a server counts as ready.
    pub queues: Vec<Queue>,
    /// What the rows have made of topics.
    pub topic_count: u32,
}

pub struct Lab<'a> {
    pub places: Places,
    pub extent: &'a Extent,
    pub page_cache: PageCache,
    /// At most one, for the room that it takes.
    store: Option<(Stock, Store)>,
}

impl<'a> Lab<'a> {
    pub fn new(places: Places, extent: &'a Extent) -> anyhow::Result<Self> {
        let page_cache = PageCache::new(&places.data)?;
        Ok(Self { places, extent, page_cache, store: None })
    }

    /// Makes the store that a row needs, unless it is there.
    pub fn prepare(&mut self, stock: Stock) -> anyhow::Result<()> {
        if self.store.as_ref().is_some_and(|(kept, _)| *kept == stock) {
            return Ok(());
        }
        self.store = None;
        let store = match stock {
            Stock::None => return Ok(()),
            Stock::Topics => Store::new(&self.places.data.join("store-topics"))?,
            Stock::Log => {
                let queues = u64::from(LOG_TOPICS * LOG_QUEUES);
                // Ends in the middle of a segment: what a start reads of the last one counts.
                let len = self.extent.log_bytes + SEGMENT_LEN / 2;
                let each = len / RECORD_LEN / queues;
                self.fill("log", LOG_TOPICS, LOG_QUEUES, &format!("--size 1024 --each {each}"))?
            }
            Stock::Keyed => {
                let (messages, size) = (self.extent.messages, 128);
                let keys = self.keys();
                let words = format!("--size {size} --batch 32 --each {messages} --keys {keys}");
                self.fill(KEYED, 1, 1, &words)?
            }
        };
        self.store = Some((stock, store));
        Ok(())
    }

    /// How many keys the messages of the long queue have.
    pub fn keys(&self) -> u64 {
        (self.extent.messages / MESSAGES_OF_KEY).max(1)
    }

    /// The store of this row.
    pub fn store(&self) -> anyhow::Result<&Store> {
        Ok(&self.store.as_ref().context("the row has named no store")?.1)
    }

    pub fn store_mut(&mut self) -> anyhow::Result<&mut Store> {
        Ok(&mut self.store.as_mut().context("the row has named no store")?.1)
    }

    /// Lets Apogee write a store.
    fn fill(&self, name: &str, topics: u32, queues: u32, words: &str) -> anyhow::Result<Store> {
        let mut store = Store::new(&self.places.data.join(format!("store-{name}")))?;
        println!("  filling {}", store.dir.display());
        let setup = Setup { store: Some(&store.dir), ..Setup::default() };
        let peer = self.places.start_with(Kind::Apogee, &setup)?;
        let count = topics.to_string();
        let queue_count = queues.to_string();
        let mut all = vec!["fill", "--topic", name, "--queues", &queue_count];
        if 1 < topics {
            all.extend(["--topics", &count]);
        }
        all.extend(words.split(' '));
        let filled = said(&mut self.places.bench_command(&peer, &all))?;
        println!("  {filled}");
        peer.stop()?;
        let messages = filled["messages"].as_u64().context("fill says no messages")?;
        store.queues = (0..topics * queues)
            .map(|at| Queue {
                topic: match topics {
                    1 => name.to_owned(),
                    _ => format!("{name}-{}", at / queues),
                },
                id: at % queues,
                next: messages / u64::from(topics * queues),
            })
            .collect();
        Ok(store)
    }

    /// Starts a server on the store of this row and waits until it serves the last queue.
    pub fn start(&self, kind: Kind) -> anyhow::Result<Peer> {
        let queues = &self.store()?.queues;
        self.start_until(kind, &queues[queues.len().saturating_sub(1)..])
    }

    /// The same until every queue has its last message.
    pub fn start_complete(&self, kind: Kind) -> anyhow::Result<Peer> {
        self.start_until(kind, &self.store()?.queues)
    }

    fn start_until(&self, kind: Kind, queues: &[Queue]) -> anyhow::Result<Peer> {
        let setup = Setup { store: Some(&self.store()?.dir), queues, ..Setup::default() };
        let peer = self.places.start_with(kind, &setup)?;
        println!("  {kind:?} ready after {:.2?}", peer.ready_time());
        // A load asks the name server, which may learn of the broker later.
        peer.wait_for_route("TBW102", Instant::now())?;
        Ok(peer)
    }

    /// Runs a load that is measured, for the usual time.
    pub fn load(&self, peer: &Peer, words: &str, warmup: Duration) -> anyhow::Result<Value> {
        self.load_for(peer, words, warmup, self.extent.duration)
    }

    pub fn load_for(
        &self,
        peer: &Peer,
        words: &str,
        warmup: Duration,
        duration: Duration,
    ) -> anyhow::Result<Value> {
        let (warmup, duration) = (warmup.as_secs().to_string(), duration.as_secs().to_string());
        let mut words: Vec<_> = words.split(' ').collect();
        words.extend(["--warmup", &warmup, "--duration", &duration]);
        self.places.bench(peer, &words)
    }

    /// What a new server needs before it is measured.
    pub fn warmup(&self, kind: Kind) -> Duration {
        if kind == Kind::Apache { self.extent.jvm_warmup } else { self.extent.warmup }
    }
}

impl Store {
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        let _ = std::fs::remove_dir_all(dir);
        std::fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned(), queues: Vec::new(), topic_count: 0 })
    }

    /// Brings the log into the page cache; returns its length with what is not yet written to.
    pub fn read_log(&self) -> anyhow::Result<u64> {
        machine::read_all(&self.dir.join("commitlog"))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.topic_count == 0 {
            let _ = std::fs::remove_dir_all(&self.dir);
            return;
        }
        // The files of many topics take minutes where the file system tells the device of each.
        // Nothing is measured after them, and nobody needs to wait.
        println!("  {} is being deleted", self.dir.display());
        let _ = command("nice", &["rm", "-rf"]).arg(&self.dir).spawn();
    }
}

/// Adds figures of a load's report and says them.
pub fn add(outcome: &mut Outcome, kind: Kind, figures: &[(Metric, &Value)]) -> anyhow::Result<()> {
    let mut line = format!("  {kind:<7?}");
    for (metric, value) in figures {
        let value = value.as_f64().with_context(|| format!("no {}", metric.name()))?;
        outcome.add(kind, *metric, value);
        line += &format!(" {} {},", metric.name(), metric.text(value));
    }
    println!("{}", line.trim_end_matches(','));
    Ok(())
}

/// Notes what went wrong in a load.
pub fn add_errors(outcome: &mut Outcome, kind: Kind, result: &Value) {
    if let Some(errors) = result["errors"].as_object().filter(|errors| !errors.is_empty()) {
        outcome.notes.push(format!("{kind:?} answered with errors: {errors:?}"));
    }
    if let Some(lost) = result["lost"].as_u64().filter(|lost| 0 < *lost) {
        outcome.notes.push(format!("{kind:?} left {lost} unanswered"));
    }
}
