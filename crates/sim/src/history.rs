//! A history from a seed: clients at work while the node under them is stopped, killed and struck
//! by power cuts, and what all of them saw.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use apogee_store::FlushMode;
use apogee_types::QueueId;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::clients::{self, Clients, Ending};
use crate::clock::SimClock;
use crate::disk::{Faults, SimDisk};
use crate::net::{SimNet, Weather};
use crate::node::{Node, NodeSettings};
use crate::promises;

pub const TOPIC: &str = "orders";
pub const QUEUE_COUNT: i32 = 3;
const ADDR: &str = "10.0.0.1:9876";
/// How long clients send, and the node dies.
const WORK_TIME: Duration = Duration::from_secs(8);
const CALM: Weather = Weather { delay_ms_max: 1, reset_one_in: 0 };

/// A queue and an offset in it.
pub type Place = (i32, i64);

/// Something that a client or the world saw. Bodies stand here by their name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The node runs.
    Started,
    DidNotStart(String),
    Stopped,
    DidNotStop(String),
    Killed,
    Crashed,
    /// A crash made a queue shorter: offsets from the first up to the second are given out again.
    Shortened {
        queue: i32,
        to: i64,
        from: i64,
    },
    /// All connections broke.
    Cut,
    /// A producer sends bodies; again if an earlier try failed. More than one are a batch, for
    /// which the producer chooses the queue.
    Sending {
        queue: Option<i32>,
        bodies: Vec<String>,
        is_delayed: bool,
    },
    /// They are stored, side by side from this place on.
    Acknowledged {
        place: Place,
        bodies: Vec<String>,
    },
    /// It is stored and will be delivered to its queue.
    AcknowledgedDelayed {
        body: String,
    },
    Refused {
        bodies: Vec<String>,
        error: String,
    },
    /// A consumer pulled it.
    Pulled {
        by: String,
        place: Place,
        body: String,
    },
    /// A consumer was told that its next offset is not the one after the last.
    Moved {
        by: String,
        queue: i32,
        from: i64,
        to: i64,
    },
    /// A member of the push group handles it; `place` if it does not come again.
    Handled {
        by: String,
        place: Option<Place>,
        body: String,
        wants_again: bool,
    },
    Committing {
        queue: i32,
        offset: i64,
    },
    Committed {
        queue: i32,
        offset: i64,
    },
}

/// When something happened, in virtual time from the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub at: Duration,
    pub event: Event,
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>9.3} {:?}", self.at.as_secs_f64(), self.event)
    }
}

/// Takes down what happens; all tasks of a history share one.
pub struct Record {
    start: Instant,
    entries: Mutex<Vec<Entry>>,
}

impl Record {
    pub fn note(&self, event: Event) {
        let entry = Entry { at: self.start.elapsed(), event };
        self.entries.lock().push(entry);
    }

    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().clone()
    }
}

/// What became of one history.
pub struct Outcome {
    pub seed: u64,
    pub flush: FlushMode,
    pub entries: Vec<Entry>,
    pub violations: Vec<String>,
}

impl Outcome {
    /// The same for the same history and, most likely, for no other.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut text = String::new();
        for entry in &self.entries {
            let _ = writeln!(text, "{entry}");
        }
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |digest, byte| {
            (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// What is wrong, if anything, and how to see more of it.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        if self.violations.is_empty() {
            return None;
        }
        let mut text = format!("seed {} ({:?} flush):\n", self.seed, self.flush);
        self.violations.iter().for_each(|it| text.extend([it, "\n"]));
        let _ = write!(text, "see it again: apogee sim --seed {} --verbose", self.seed);
        Some(text)
    }
}

/// Lives the history of a seed from its first to its last moment.
///
/// # Panics
/// If there is no runtime to be had.
#[must_use]
pub fn run(seed: u64) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing of the system");
    runtime.block_on(async { History::new(seed).live().await })
}

struct History {
    seed: u64,
    random: fastrand::Rng,
    flush: FlushMode,
    net: SimNet,
    node: Node,
    record: Arc<Record>,
    clients: Clients,
    /// Where each queue ended when we looked last.
    ends: [i64; QUEUE_COUNT as usize],
}

impl History {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let clock = SimClock::start(0);
        let flush = if random.bool() { FlushMode::Sync } else { FlushMode::Async };
        let settings = NodeSettings {
            addr: ADDR.parse().expect("written above"),
            flush,
            flush_interval: Duration::from_millis(random.u64(50..=500)),
        };
        let net = SimNet::new(random.u64(..), CALM);
        let disk = SimDisk::new(random.u64(..), Faults::default());
        let node = Node::new(settings, disk, net.clone(), clock, random.u64(..));
        let start = Instant::now();
        let record = Arc::new(Record { start, entries: Mutex::default() });
        let transport = Arc::new(net.clone());
        let clients = Clients::new(
            ADDR,
            transport,
            clock,
            Arc::clone(&record),
            start + WORK_TIME,
            &mut random,
        );
        let ends = [0; QUEUE_COUNT as usize];
        Self { seed, random, flush, net, node, record, clients, ends }
    }

    async fn live(mut self) -> Outcome {
        let ending = self.work_and_rest().await;
        let entries = self.record.entries();
        // A flush may leave the last bytes to the next one.
        let slack = 2 * self.node.settings().flush_interval + Duration::from_millis(50);
        let violations = match ending {
            Ok(ending) => promises::check(&entries, &ending, self.flush, slack),
            Err(error) => vec![error],
        };
        Outcome { seed: self.seed, flush: self.flush, entries, violations }
    }

    /// Everything that happens, up to the last look at what is kept.
    async fn work_and_rest(&mut self) -> Result<Ending, String> {
        self.start().await?;
        self.clients.create_topic().await?;
        let reset_one_in = if self.random.bool() { self.random.u32(50..500) } else { 0 };
        self.net.set_weather(Weather { delay_ms_max: self.random.u64(0..20), reset_one_in });
        self.clients.start().await?;
        for _ in 0..self.random.u32(2..=4) {
            sleep(Duration::from_millis(self.random.u64(100..2500))).await;
            self.strike().await?;
        }
        sleep(WORK_TIME.saturating_sub(self.record.start.elapsed())).await;
        self.net.set_weather(CALM);
        self.net.cut_all();
        self.clients.come_to_rest(&self.record).await;
        self.stop().await?;
        self.start().await?;
        clients::read_all(&mut self.clients).await
    }

    /// The node goes down in some way and comes up again, or the network breaks.
    async fn strike(&mut self) -> Result<(), String> {
        match self.random.u32(0..10) {
            0 => {
                self.net.cut_all();
                self.record.note(Event::Cut);
                Ok(())
            }
            1 => {
                self.stop().await?;
                self.pause_and_start().await
            }
            2 => {
                // The power may fail while the node stops.
                self.fail_after(0..20);
                self.stop().await?;
                self.pause_and_start().await
            }
            3..6 => {
                self.node.kill().await;
                self.record.note(Event::Killed);
                self.pause_and_start().await
            }
            6 => self.crash_and_start().await,
            _ => {
                // The power fails between any two changes of the disk.
                self.fail_after(0..100);
                let patience = Instant::now() + Duration::from_secs(1);
                while !self.node.disk().has_no_power() && Instant::now() < patience {
                    sleep(Duration::from_millis(2)).await;
                }
                self.crash_and_start().await
            }
        }
    }

    async fn crash_and_start(&mut self) -> Result<(), String> {
        self.crash().await;
        if self.random.u32(0..3) == 0 {
            // And it may again while the node finds out what is left.
            self.fail_after(0..40);
        }
        self.pause_and_start().await
    }

    fn fail_after(&mut self, changes: std::ops::Range<u32>) {
        self.node.disk().fail_after(Some(self.random.u32(changes)));
    }

    async fn crash(&mut self) {
        self.look_at_ends();
        self.node.crash().await;
        self.record.note(Event::Crashed);
    }

    async fn pause_and_start(&mut self) -> Result<(), String> {
        sleep(self.down_time()).await;
        self.start().await
    }

    fn down_time(&mut self) -> Duration {
        Duration::from_millis(self.random.u64(10..800))
    }

    /// Starts the node, again if the power fails meanwhile.
    async fn start(&mut self) -> Result<(), String> {
        loop {
            match self.node.start().await {
                Ok(true) => {
                    self.node.disk().fail_after(None);
                    self.record.note(Event::Started);
                    self.look_at_ends();
                    return Ok(());
                }
                Ok(false) => self.crash().await,
                Err(error) => {
                    self.record.note(Event::DidNotStart(error.clone()));
                    return Err(format!("the node does not start: {error}"));
                }
            }
        }
    }

    async fn stop(&mut self) -> Result<(), String> {
        self.look_at_ends();
        match self.node.stop().await {
            Ok(true) => {
                self.node.disk().fail_after(None);
                self.record.note(Event::Stopped);
            }
            Ok(false) => self.crash().await,
            Err(error) => {
                self.record.note(Event::DidNotStop(error.clone()));
                return Err(format!("the node does not stop: {error}"));
            }
        }
        Ok(())
    }

    /// Notes which queues are shorter than they were, as only the simulation can see it.
    fn look_at_ends(&mut self) {
        let Some(broker) = self.node.broker() else { return };
        for (id, before) in (0..).zip(&mut self.ends) {
            let queue = QueueId::from_wire(id).expect("ids count from 0");
            let end = broker.store.queue_bounds(TOPIC, queue).end.0 as i64;
            if end < *before {
                self.record.note(Event::Shortened { queue: id, to: end, from: *before });
            }
            *before = end;
        }
    }
}
