//! The command line of `apogee bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

/// Load a cluster and measure it.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub(super) scenario: Scenario,
}

#[derive(Debug, Subcommand)]
pub(super) enum Scenario {
    /// Send as fast as the window allows.
    Produce(ProduceArgs),
    /// Read a backlog from its start, again and again until the time is over.
    Consume(ConsumeArgs),
    /// Send at a fixed rate and measure from when each message was due, so that a stall of the
    /// server counts for all the messages that it delayed.
    Latency(LatencyArgs),
    /// Send, and read at the same time what was sent.
    Mixed(MixedArgs),
    /// Make topics and fill their queues on one broker: to have a large store, or one of many
    /// topics or many keys.
    Fill(FillArgs),
    /// Ask for offsets by time or messages by key, one request at a time.
    Lookup(LookupArgs),
    /// Be a throw-away broker that does next to nothing: where the floor lies.
    #[command(hide = true)]
    Floor {
        /// Where to listen, as name server and as broker.
        #[arg(long, default_value_t = 29876)]
        port: u16,
        /// Append each record to a file in this directory and sync it, before it is acknowledged.
        #[arg(long, value_name = "DIR")]
        sync: Option<PathBuf>,
    },
    /// Append and fdatasync in a loop: what the file system can give to SYNC_FLUSH.
    #[command(hide = true)]
    FsyncLoop(FsyncLoopArgs),
}

#[derive(Debug, Args)]
pub(super) struct ProduceArgs {
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    pub shape: Shape,
    /// Requests that are unanswered at once on each connection.
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub in_flight: u32,
    #[command(flatten)]
    pub span: Span,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct ConsumeArgs {
    #[command(flatten)]
    pub target: Target,
    /// Connections.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub connections: u32,
    /// Pulls that are unanswered at once on each connection; at most one for each queue.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub in_flight: u32,
    /// Messages that a pull asks for.
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub pull: i32,
    /// Read the backlog once.
    #[arg(long)]
    pub once: bool,
    /// Every connection is a consumer of its own that starts at a random place of one queue,
    /// instead of having its share of the queues.
    #[arg(long, conflicts_with = "once")]
    pub scattered: bool,
    /// Check every record and its checksum.
    #[arg(long)]
    pub verify: bool,
    #[command(flatten)]
    pub span: Span,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct LatencyArgs {
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    pub shape: Shape,
    /// Messages a second [default: 1000; with --end-to-end one at a time].
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    /// Measure until a consumer that waits for it has the message.
    #[arg(long)]
    pub end_to_end: bool,
    /// Without a rate: milliseconds between the arrival of a message and the next.
    #[arg(long, value_name = "MS", default_value_t = 1.0)]
    pub pause: f64,
    #[command(flatten)]
    pub span: Span,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct MixedArgs {
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    pub shape: Shape,
    /// Requests that are unanswered at once on each connection.
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub in_flight: u32,
    /// Messages a second [default: as many as the window allows].
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    #[command(flatten)]
    pub span: Span,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct FillArgs {
    #[command(flatten)]
    pub target: Target,
    /// So many topics, `NAME-0` and so on [default: only NAME].
    #[arg(long, value_name = "N")]
    pub topics: Option<u32>,
    /// Messages in each queue.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub each: u64,
    /// Bytes of a message's body.
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    pub size: usize,
    /// Messages in a request.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub batch: u64,
    /// Give each message one of so many keys, `key-0` and so on.
    #[arg(long, value_name = "N")]
    pub keys: Option<u64>,
    /// One line of JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct LookupArgs {
    #[command(flatten)]
    pub target: Target,
    /// What is known of the messages.
    #[arg(long, value_enum)]
    pub by: LookupBy,
    /// How many keys `fill` was told.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub keys: u64,
    #[command(flatten)]
    pub span: Span,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LookupBy {
    /// A random time between the first message of a queue and its last.
    Time,
    /// A random key: 32 messages at most are asked for.
    Key,
}

/// Which cluster, and what there.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// Name servers, `host:port;host:port` [default: NAMESRV_ADDR in the environment, else
    /// localhost:9876].
    #[arg(short = 'n', long, value_name = "ADDRS")]
    pub namesrv: Option<String>,
    /// The topic; made if it is not there.
    #[arg(long, value_name = "NAME", default_value = "apogee-bench")]
    pub topic: String,
    /// Give the topic so many queues on each broker [default: as it is, or 8 for a new one].
    #[arg(long, value_name = "N")]
    pub queues: Option<i32>,
}

/// What is sent, over how many connections.
#[derive(Debug, Args)]
pub(super) struct Shape {
    /// Bytes of a message's body.
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    pub size: usize,
    /// Connections; at least one for each broker.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub connections: u32,
    /// Messages in a request.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub batch: u32,
    /// Check every field of every answer.
    #[arg(long)]
    pub verify: bool,
}

/// For how long.
#[derive(Debug, Args)]
pub(super) struct Span {
    /// Seconds that are measured.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "10")]
    pub duration: Duration,
    /// Seconds before them that are not.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "1")]
    pub warmup: Duration,
    /// Stop after so many messages; without warm-up, however long it takes.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// What is told.
#[derive(Debug, Args)]
pub(super) struct OutputArgs {
    /// Processes of the server: their processor time and memory are told as well.
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub pid: Vec<u32>,
    /// One line of JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct FsyncLoopArgs {
    /// Where the file is made; it is deleted afterwards.
    pub dir: PathBuf,
    /// Bytes of an append.
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    pub size: usize,
    /// Seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "5")]
    pub duration: Duration,
    /// One line of JSON.
    #[arg(long)]
    pub json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "must be a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}
