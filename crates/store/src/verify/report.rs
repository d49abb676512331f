//! What a check found: kinds of findings, how bad each is and what helps, counts and examples.

use std::collections::{BTreeMap, BTreeSet};

use apogee_types::{LogOffset, Millis};

use crate::checkpoint::Checkpoint;

/// Examples that are kept of a kind.
const EXAMPLES_MAX: usize = 5;

// What helps.
const REPAIR: &str = "`apogee store repair` puts it right";
const COPY: &str = "the log has no second copy of it: take it from a slave or a backup";
const START: &str = "the next start puts it right";
const NOTHING: &str = "nothing to do";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// A reader is served something wrong, or not at all.
    Error,
    /// The next start repairs it by itself, or there is nothing to repair.
    Note,
}

/// What can be found, the log first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    BodyChecksum,
    LogDamage,
    UnitBeyondLog,
    QueueFiles,
    QueueMissing,
    UnitMissing,
    UnitWrong,
    UnitDangling,
    IndexFiles,
    IndexEntry,
    IndexChain,
    IndexMissing,
    UncleanStop,
    InUse,
    TornTail,
    QueueBehind,
    IndexBehind,
    IndexRebuilt,
    NoIndex,
    Checkpoint,
    TopicDeleted,
    LostMessage,
    BatchQueues,
}

impl Kind {
    /// Name for programs, severity, what it means, what helps.
    fn row(self) -> (&'static str, Severity, &'static str, &'static str) {
        use Severity::{Error, Note};
        match self {
            Self::BodyChecksum => {
                ("body-checksum", Error, "messages do not match their checksum", COPY)
            }
            Self::LogDamage => ("log-damage", Error, "bytes of the log are no records", COPY),
            Self::UnitBeyondLog => {
                ("unit-beyond-log", Error, "queues name messages that the log has lost", COPY)
            }
            Self::QueueFiles => {
                ("queue-files", Error, "queues whose files cannot be opened: no start", REPAIR)
            }
            Self::QueueMissing => {
                ("queue-missing", Error, "messages whose queue is not there", REPAIR)
            }
            Self::UnitMissing => ("unit-missing", Error, "messages that their queue lacks", REPAIR),
            Self::UnitWrong => {
                ("unit-wrong", Error, "messages in whose place the queue names another", REPAIR)
            }
            Self::UnitDangling => {
                ("unit-dangling", Error, "units of queues that name no message of it", REPAIR)
            }
            Self::IndexFiles => {
                ("index-files", Error, "the index cannot be opened: no start", REPAIR)
            }
            Self::IndexEntry => {
                ("index-entry", Error, "entries of the index that name no message", REPAIR)
            }
            Self::IndexChain => {
                ("index-chain", Error, "entries of the index that no search reaches", REPAIR)
            }
            Self::IndexMissing => {
                ("index-missing", Error, "messages that are not found by their keys", REPAIR)
            }
            Self::UncleanStop => ("unclean-stop", Note, "the last stop was not clean", START),
            Self::InUse => {
                ("in-use", Note, "a broker runs on the store: its end moves", "stop it to be sure")
            }
            Self::TornTail => {
                ("torn-tail", Note, "after the log's end there are bytes of no record", START)
            }
            Self::QueueBehind => {
                ("queue-behind", Note, "messages that are not in their queue yet", START)
            }
            Self::IndexBehind => {
                ("index-behind", Note, "messages that are not in the index yet", START)
            }
            Self::IndexRebuilt => {
                ("index-rebuilt", Note, "index files that will be built again", START)
            }
            Self::NoIndex => {
                ("no-index", Note, "messages with keys, but no index", "if it is enabled: a start")
            }
            Self::Checkpoint => {
                ("checkpoint", Note, "the checkpoint is damaged or of another log", START)
            }
            Self::TopicDeleted => {
                ("topic-deleted", Note, "messages of topics that do not exist", NOTHING)
            }
            Self::LostMessage => {
                ("lost-message", Note, "places in queues whose message is lost", NOTHING)
            }
            Self::BatchQueues => {
                ("batch-queues", Note, "topics with batch queues, not checked", NOTHING)
            }
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().0
    }

    #[must_use]
    pub fn severity(self) -> Severity {
        self.row().1
    }

    #[must_use]
    pub fn meaning(self) -> &'static str {
        self.row().2
    }

    #[must_use]
    pub fn advice(self) -> &'static str {
        self.row().3
    }
}

/// All of one kind.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Finding {
    pub count: u64,
    /// The first few, each in words.
    pub examples: Vec<String>,
}

/// Findings by kind.
#[derive(Debug, Default, Clone)]
pub struct Findings(pub BTreeMap<Kind, Finding>);

impl Findings {
    pub(crate) fn add(&mut self, kind: Kind, example: impl FnOnce() -> String) {
        self.add_many(kind, 1, example);
    }

    pub(crate) fn add_many(&mut self, kind: Kind, count: u64, example: impl FnOnce() -> String) {
        let finding = self.0.entry(kind).or_default();
        finding.count += count;
        if finding.examples.len() < EXAMPLES_MAX {
            finding.examples.push(example());
        }
    }

    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.0.keys().any(|kind| kind.severity() == Severity::Error)
    }
}

/// What a store holds and what is wrong with it.
#[derive(Debug, Default, Clone)]
pub struct Report {
    pub message_count: u64,
    /// Records of transactions that were not committed, and roll-backs: in no queue.
    pub half_count: u64,
    /// Messages whose place in the queue has a later one: the topic was deleted and made again.
    pub superseded_count: u64,
    /// Topics that do not exist any more, of which the log holds messages.
    pub deleted_topics: BTreeSet<String>,
    pub topic_count: usize,
    pub queue_count: usize,
    pub index_file_count: usize,
    pub index_entry_count: u64,
    /// The first byte of the log.
    pub log_min: LogOffset,
    /// Where the last record ends.
    pub log_end: LogOffset,
    /// Store times of the first and the last record; 0 if there is none.
    pub first_ms: Millis,
    pub last_ms: Millis,
    /// Where the last record starts.
    pub last_at: LogOffset,
    pub checkpoint: Checkpoint,
    pub findings: Findings,
}
