//! `apogee produce`: sends messages from arguments, lines, a file or chance.

use std::io::{BufRead, IsTerminal, Read};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use apogee_client::{Message, Producer, SendReceipt};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Send messages.
#[derive(Debug, clap::Args)]
pub struct ProduceArgs {
    /// Where to send them; made by the broker if it may.
    topic: String,
    /// One message each [default: one for each line of the standard input that holds something].
    #[arg(value_name = "BODY", conflicts_with_all = ["file", "size"])]
    bodies: Vec<String>,
    /// One message of what the file holds; `-` is the standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "size")]
    file: Option<String>,
    /// Messages of so many random bytes.
    #[arg(long, value_name = "BYTES")]
    size: Option<usize>,
    /// Send each so many times.
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: u64,
    /// What consumers filter by.
    #[arg(long)]
    tag: Option<String>,
    /// A key to look the messages up by; may be repeated.
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// A property; may be repeated.
    #[arg(long = "property", value_name = "NAME=VALUE", value_parser = property)]
    properties: Vec<(String, String)>,
    /// Name servers, `host:port;host:port` [default: NAMESRV_ADDR in the environment, else
    /// localhost:9876].
    #[arg(short = 'n', long, value_name = "ADDRS")]
    namesrv: Option<String>,
}

fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Of up to so many messages each is shown, and each is sent after the one before.
const FEW: u64 = 20;
/// Sends that are under way at once when there are many.
const AT_ONCE: usize = 128;
/// Lines that were read and not yet sent.
const LINES_MAX: usize = 1024;

pub async fn run(args: ProduceArgs) -> anyhow::Result<()> {
    let name_servers = name_servers(args.namesrv.clone());
    let producer = Producer::builder(&name_servers).group("apogee-produce").start().await?;
    let producer = Arc::new(producer);
    let sent = send_all(&args, &producer).await;
    let producer = Arc::into_inner(producer).expect("every send has ended");
    producer.shutdown().await;
    sent
}

/// What the flag says, else the environment, else this machine.
pub fn name_servers(flag: Option<String>) -> String {
    let set = flag.or_else(|| std::env::var("NAMESRV_ADDR").ok());
    set.filter(|addrs| !addrs.is_empty()).unwrap_or_else(|| "localhost:9876".to_owned())
}

async fn send_all(args: &ProduceArgs, producer: &Arc<Producer>) -> anyhow::Result<()> {
    let mut bodies = bodies(args)?;
    let count = args.count.max(1);
    let total = bodies.known_count().map(|known| known * count);
    let mut sender = Sender::new(producer, total);
    let sent = sender.send_all(&mut bodies, args, count).await;
    sender.finish(sent).await
}

fn message(args: &ProduceArgs, body: &Body) -> Message {
    let body = match body {
        Body::Given(bytes) => bytes.clone(),
        Body::Random(len) => std::iter::repeat_with(|| fastrand::u8(..)).take(*len).collect(),
    };
    let mut message = Message::new(&args.topic, body);
    if let Some(tag) = &args.tag {
        message = message.tag(tag);
    }
    for key in &args.keys {
        message = message.key(key);
    }
    for (name, value) in &args.properties {
        message = message.property(name, value);
    }
    message
}

/// Sends and reports: a line each as long as there are few, then a bar and a summary.
struct Sender<'a> {
    producer: &'a Arc<Producer>,
    total: Option<u64>,
    begun: u64,
    stored: u64,
    bytes: u64,
    started: Instant,
    bar: Option<ProgressBar>,
    under_way: JoinSet<Result<(SendReceipt, usize), apogee_client::Error>>,
}

impl<'a> Sender<'a> {
    fn new(producer: &'a Arc<Producer>, total: Option<u64>) -> Self {
        let bar = total.filter(|total| FEW < *total).map(progress_bar);
        let under_way = JoinSet::new();
        let started = Instant::now();
        Self { producer, total, begun: 0, stored: 0, bytes: 0, started, bar, under_way }
    }

    async fn send_all(
        &mut self,
        bodies: &mut Bodies,
        args: &ProduceArgs,
        count: u64,
    ) -> anyhow::Result<()> {
        while let Some(body) = bodies.next().await? {
            for _ in 0..count {
                self.send(message(args, &body)).await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, message: Message) -> anyhow::Result<()> {
        let at_once = if self.shows_each() { 1 } else { AT_ONCE };
        while at_once <= self.under_way.len() {
            self.take_one().await?;
        }
        self.begun += 1;
        let producer = Arc::clone(self.producer);
        let len = message.body.len();
        self.under_way.spawn(async move { Ok((producer.send(message).await?, len)) });
        // Who types lines wants to see what became of one before the next.
        if self.shows_each() {
            self.take_one().await?;
        }
        Ok(())
    }

    /// Of an unknown number the first few are shown.
    fn shows_each(&self) -> bool {
        self.total.unwrap_or(self.begun) <= FEW
    }

    async fn take_one(&mut self) -> anyhow::Result<()> {
        let Some(sent) = self.under_way.join_next().await else { return Ok(()) };
        let (receipt, len) = sent.context("a send failed")??;
        self.stored += 1;
        self.bytes += len as u64;
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
        if self.shows_each() {
            let SendReceipt { id, queue, queue_offset, .. } = receipt;
            say(&format!("{id}  {} {} {queue_offset}", queue.broker_name, queue.queue_id));
        }
        Ok(())
    }

    /// Waits for the sends that are under way, also after a failure, and says what was stored.
    async fn finish(mut self, mut sent: anyhow::Result<()>) -> anyhow::Result<()> {
        while !self.under_way.is_empty() {
            let last = self.take_one().await;
            sent = sent.and(last);
        }
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if FEW < self.stored {
            say(&summary(self.stored, self.bytes, self.started.elapsed()));
        }
        if 0 < self.stored {
            sent = sent.with_context(|| format!("{} messages were stored, then", self.stored));
        }
        sent
    }
}

fn summary(stored: u64, bytes: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(1e-6);
    let mib = bytes as f64 / (1024.0 * 1024.0);
    format!(
        "{stored} messages, {mib:.1} MiB in {seconds:.2} s: {:.0} messages/s, {:.1} MiB/s",
        stored as f64 / seconds,
        mib / seconds
    )
}

/// Shown on a terminal only.
fn progress_bar(total: u64) -> ProgressBar {
    let template = "{bar:40} {human_pos} of {human_len}, {per_sec}, {eta} left";
    let style = ProgressStyle::with_template(template).expect("the template is well-formed");
    ProgressBar::new(total).with_style(style)
}

/// Whoever reads our output may have gone; the messages are sent all the same.
fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{line}");
}

enum Body {
    Given(Vec<u8>),
    Random(usize),
}

/// Where bodies come from.
enum Bodies {
    Known(std::vec::IntoIter<Body>),
    Lines(mpsc::Receiver<std::io::Result<Vec<u8>>>),
}

impl Bodies {
    fn known_count(&self) -> Option<u64> {
        match self {
            Self::Known(bodies) => Some(bodies.len() as u64),
            Self::Lines(_) => None,
        }
    }

    async fn next(&mut self) -> anyhow::Result<Option<Body>> {
        match self {
            Self::Known(bodies) => Ok(bodies.next()),
            Self::Lines(lines) => {
                let line = lines.recv().await.transpose().context("standard input")?;
                Ok(line.map(Body::Given))
            }
        }
    }
}

fn bodies(args: &ProduceArgs) -> anyhow::Result<Bodies> {
    let known = if let Some(len) = args.size {
        vec![Body::Random(len)]
    } else if let Some(file) = &args.file {
        vec![Body::Given(read_file(file).with_context(|| file.clone())?)]
    } else if args.bodies.is_empty() {
        return Ok(Bodies::Lines(lines()?));
    } else {
        args.bodies.iter().map(|body| Body::Given(body.clone().into())).collect()
    };
    Ok(Bodies::Known(known.into_iter()))
}

#[allow(clippy::disallowed_methods, reason = "a file of the user's, not of a store")]
fn read_file(file: &str) -> std::io::Result<Vec<u8>> {
    if file != "-" {
        return std::fs::read(file);
    }
    let mut body = Vec::new();
    std::io::stdin().lock().read_to_end(&mut body)?;
    Ok(body)
}

/// The lines of the standard input, read by a thread of their own: reading blocks, and is not
/// waited for when the process ends.
fn lines() -> anyhow::Result<mpsc::Receiver<std::io::Result<Vec<u8>>>> {
    if std::io::stdin().is_terminal() {
        eprintln!("one message a line; end with Ctrl-D");
    }
    let (sender, lines) = mpsc::channel(LINES_MAX);
    let read = move || {
        for line in std::io::stdin().lock().split(b'\n') {
            let line = line.map(|mut line| {
                line.pop_if(|last| *last == b'\r');
                line
            });
            // No server takes a message without a body.
            if line.as_ref().is_ok_and(Vec::is_empty) {
                continue;
            }
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new().name("stdin".into()).spawn(read)?;
    Ok(lines)
}
