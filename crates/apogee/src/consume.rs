//! `apogee consume`: prints the messages of a topic as they come.

use std::io::Write;
use std::pin::pin;
use std::sync::Arc;

use anyhow::Context;
use apogee_client::{Outcome, PushConsumer, ReceivedMessage, StartFrom};
use apogee_types::{Clock, Millis, SystemClock};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;

use crate::machine;
use crate::produce::name_servers;

/// Print messages as they come, until Ctrl-C.
#[derive(Debug, clap::Args)]
pub struct ConsumeArgs {
    topic: String,
    /// The members of a group share its messages; each group gets all of them.
    #[arg(long)]
    group: String,
    /// Where a new group begins: earliest, latest, or a time (`2026-01-31T12:00`, `...Z`, or
    /// milliseconds since 1970).
    #[arg(long, value_name = "WHERE", default_value = "earliest", value_parser = start_from)]
    from: StartFrom,
    /// Only messages with this tag, or these: `A || B`.
    #[arg(long, value_name = "TAGS", default_value = "*", hide_default_value = true)]
    tag: String,
    /// Each message as an object on a line, with everything that is known of it.
    #[arg(long)]
    json: bool,
    /// End after so many messages.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Name servers, `host:port;host:port` [default: NAMESRV_ADDR in the environment, else
    /// localhost:9876].
    #[arg(short = 'n', long, value_name = "ADDRS")]
    namesrv: Option<String>,
}

fn start_from(text: &str) -> Result<StartFrom, String> {
    match text {
        "earliest" => return Ok(StartFrom::Earliest),
        // `StartFrom::Latest` would begin a young queue at its start.
        "latest" => return Ok(StartFrom::Time(SystemClock.now_ms())),
        _ => {}
    }
    time(text).map(StartFrom::Time).ok_or_else(|| "must be earliest, latest, or a time".to_owned())
}

/// A time of the command line: local, with a zone, or milliseconds since 1970.
pub fn time(text: &str) -> Option<Millis> {
    let zone = jiff::tz::TimeZone::system();
    let local = |time: jiff::civil::DateTime| zone.to_timestamp(time).ok();
    text.parse::<i64>().ok().or_else(|| {
        let time = text.parse::<jiff::Timestamp>().ok();
        let time = time.or_else(|| text.parse().ok().and_then(local));
        time.map(jiff::Timestamp::as_millisecond)
    })
}

pub async fn run(args: ConsumeArgs) -> anyhow::Result<()> {
    let printer = Arc::new(Printer {
        as_json: args.json,
        left: Mutex::new(args.count.unwrap_or(u64::MAX)),
        finished: Notify::new(),
    });
    let printing = Arc::clone(&printer);
    let handler = move |messages: Vec<ReceivedMessage>| {
        let outcome = printing.print(&messages);
        std::future::ready(outcome)
    };
    let consumer = PushConsumer::builder(&name_servers(args.namesrv), &args.group)
        .subscribe(&args.topic, &args.tag)
        .start_from(args.from)
        .concurrency(1);
    // While the first look at the cluster lasts, Ctrl-C ends the process as ever.
    let consumer = consumer.start(handler).await?;
    let stop = machine::stop_requested().context("signals")?;
    let mut finished = pin!(printer.finished.notified());
    tokio::select! {
        () = &mut finished => {}
        _ = stop => {}
    }
    consumer.shutdown().await;
    Ok(())
}

struct Printer {
    as_json: bool,
    /// How many are still to be printed. Held while one is, so that lines do not mix.
    left: Mutex<u64>,
    finished: Notify,
}

impl Printer {
    /// Prints one message: what is not printed stays for the next reader.
    fn print(&self, messages: &[ReceivedMessage]) -> Outcome {
        let mut left = self.left.lock();
        for message in messages {
            if *left == 0 {
                return Outcome::Leave;
            }
            if write(message, self.as_json).is_err() {
                // Whoever reads our output has gone, as `head` does.
                *left = 0;
                self.finished.notify_one();
                return Outcome::Leave;
            }
            *left -= 1;
            if *left == 0 {
                self.finished.notify_one();
            }
        }
        Outcome::Done
    }
}

fn write(message: &ReceivedMessage, as_json: bool) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    if as_json {
        writeln!(output, "{}", to_json(message))?;
    } else {
        output.write_all(&message.body)?;
        output.write_all(b"\n")?;
    }
    output.flush()
}

/// A body that is no text appears as a list of its bytes.
fn to_json(message: &ReceivedMessage) -> serde_json::Value {
    let body = match std::str::from_utf8(&message.body) {
        Ok(text) => json!(text),
        Err(_) => json!(&message.body[..]),
    };
    json!({
        "id": message.id(),
        "offsetId": message.offset_id().to_string(),
        "topic": &*message.topic,
        "broker": &*message.broker_name,
        "queue": message.queue_id,
        "offset": message.queue_offset.0,
        "born": message.born_ms,
        "bornHost": message.born_host.to_string(),
        "stored": message.stored_ms,
        "reconsumeTimes": message.reconsume_times,
        "properties": message.properties,
        "body": body,
    })
}
