//! `apogee consume`: prints the messages of a topic as they come.

use std::io::Write;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use apogee_client::{
    Client, Options, Outcome, PullConsumer, PushConsumer, ReceivedMessage, StartFrom,
};
use apogee_types::Millis;
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
        "latest" => return Ok(StartFrom::Latest),
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
    // While the first look at the cluster lasts, Ctrl-C ends the process as ever.
    let client = Client::new(Options::new(&name_servers(args.namesrv)));
    let begun = begin(&client, &args.group, &args.topic, args.from).await?;
    let consumer = PushConsumer::builder("", &args.group)
        .client(client.clone())
        .subscribe(&args.topic, &args.tag)
        .start_from(begun)
        .concurrency(1)
        .start(handler)
        .await?;
    let stop = machine::stop_requested().context("signals")?;
    let mut finished = pin!(printer.finished.notified());
    tokio::select! {
        () = &mut finished => {}
        _ = stop => {}
    }
    consumer.shutdown().await;
    client.close().await;
    Ok(())
}

/// Waits for the topic, and says where the group begins what it has not read before. With `Latest`
/// a consumer would read a young queue from its start, and this machine's clock may be wrong: so
/// the end of each queue becomes the group's offset, and queues that come later are read whole.
async fn begin(
    client: &Client,
    group: &str,
    topic: &str,
    from: StartFrom,
) -> Result<StartFrom, apogee_client::Error> {
    const PAUSE: Duration = Duration::from_secs(1);
    let group = PullConsumer::with(client.clone(), group)?;
    let mut is_new = false;
    let queues = loop {
        match group.queues(topic).await {
            Err(apogee_client::Error::NoRoute { .. }) => {
                if !std::mem::replace(&mut is_new, true) {
                    eprintln!("there is no topic {topic} yet; waiting for it");
                }
                tokio::time::sleep(PAUSE).await;
            }
            queues => break queues?,
        }
    };
    if from != StartFrom::Latest {
        return Ok(from);
    }
    // Of a topic that has just come, all is new.
    let old = if is_new { &[] } else { &queues[..] };
    for queue in old {
        if group.committed(queue).await?.is_none() {
            let end = client.max_offset(queue).await?;
            // Only a group that is there can commit, and a pull makes it.
            group.pull(queue, "*", end, 1, Duration::ZERO).await?;
            group.commit(queue, end).await?;
        }
    }
    Ok(StartFrom::Earliest)
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
