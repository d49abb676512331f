//! `apogee store dump`: prints the messages of a store.

use std::collections::BTreeMap;
use std::io::{BufWriter, StdoutLock, Write};
use std::ops::{ControlFlow, Range};

use anyhow::bail;
use apogee_client::inflate;
use apogee_store::view::Live;
use apogee_store::{Step, View};
use apogee_types::properties::{self, name};
use apogee_types::record::Record;
use apogee_types::{LogOffset, Millis, QueueId, QueueOffset, SysFlag};
use serde_json::json;

use super::{Place, time};
use crate::consume;

/// By which the clock of an Apache broker may have been set back: then later messages of the log
/// were stored earlier.
const STEP_MS_MAX: Millis = 3_600_000;

#[derive(Debug, clap::Args)]
pub struct DumpArgs {
    #[command(flatten)]
    place: Place,
    /// Only of this topic.
    #[arg(long)]
    topic: Option<String>,
    /// Only of this queue of the topic.
    #[arg(long, requires = "topic", value_parser = queue)]
    queue: Option<QueueId>,
    /// Only these offsets of the queue: `5`, `5..9` (9 is out), `5..` or `..9`.
    #[arg(long, requires = "queue", value_parser = offsets)]
    offset: Option<Range<u64>>,
    /// Only stored at or after this time (`2026-01-31T12:00`, `...Z`, or milliseconds since 1970).
    #[arg(long, value_parser = moment)]
    from: Option<Millis>,
    /// Only stored before this time.
    #[arg(long, value_parser = moment)]
    to: Option<Millis>,
    /// Only with this key or unique id.
    #[arg(long)]
    key: Option<String>,
    /// End after so many.
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
    /// Each message as an object on a line.
    #[arg(long)]
    json: bool,
    /// With bodies: text as text, anything else in hex, a line at most 1024 bytes of it.
    #[arg(long)]
    body: bool,
}

fn queue(text: &str) -> Result<QueueId, String> {
    text.parse().ok().and_then(QueueId::from_wire).ok_or_else(|| "must be a number".to_owned())
}

fn moment(text: &str) -> Result<Millis, String> {
    consume::time(text).ok_or_else(|| "must be a time".to_owned())
}

fn offsets(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str, default| match text {
        "" => Ok(default),
        text => text.parse::<u64>().map_err(|_| "must be N, N..M, N.. or ..M".to_owned()),
    };
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from, 0)?..number(to, u64::MAX)?),
        None => text
            .parse::<u64>()
            .map(|one| one..one.saturating_add(1))
            .map_err(|_| "must be N, N..M, N.. or ..M".to_owned()),
    }
}

/// Prints what is asked for; who reads the output may go early.
pub fn run(args: &DumpArgs) -> anyhow::Result<()> {
    let view = args.place.open(Live::Allow)?;
    if view.is_in_use() {
        eprintln!("apogee: a broker runs on this store; it is shown as it is just now");
    }
    let mut printer =
        Printer { args, left: args.limit, out: BufWriter::new(std::io::stdout().lock()) };
    if args.limit == 0 {
        return Ok(());
    }
    match (&args.topic, args.queue) {
        (Some(topic), Some(id)) => {
            let from = args.from.and_then(|ms| view.offset_by_time(topic, id, ms));
            let mut wanted = args.offset.clone().unwrap_or(0..u64::MAX);
            wanted.start = wanted.start.max(from.unwrap_or_default().0);
            let offsets = QueueOffset(wanted.start)..QueueOffset(wanted.end);
            let mut next = wanted.start;
            let read = view.read_queue((topic, id), offsets, &mut |record| {
                next = record.queue_offset.0 + 1;
                printer.print(record)
            });
            if let Err(reason) = read {
                eprintln!("apogee: {reason}: read from the commit log instead");
                wanted.start = next;
                from_log(&view, &mut printer, Some(&wanted));
            }
        }
        _ => from_log(&view, &mut printer, None),
    }
    match printer.out.flush() {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => bail!("output: {error}"),
        _ => Ok(()),
    }
}

/// Prints in the order of the log.
fn from_log(view: &View, printer: &mut Printer<'_>, offsets: Option<&Range<u64>>) {
    let start = LogOffset(view.log_bounds().start);
    let from = printer.args.from.map(|ms| ms.saturating_sub(STEP_MS_MAX));
    let start = from.map_or(start, |ms| view.segment_before(ms));
    view.walk(start, &mut |step| match step {
        Step::Record(record) | Step::Flipped(record) => {
            if offsets.is_some_and(|offsets| !offsets.contains(&record.queue_offset.0)) {
                return ControlFlow::Continue(());
            }
            printer.print(record)
        }
        Step::Lost(range) => {
            eprintln!("apogee: bytes {} to {} of the log are damaged", range.start, range.end);
            ControlFlow::Continue(())
        }
    });
}

struct Printer<'a> {
    args: &'a DumpArgs,
    left: u64,
    out: BufWriter<StdoutLock<'static>>,
}

impl Printer<'_> {
    /// Prints the record if it is wanted; no more once enough was printed or nobody reads.
    fn print(&mut self, record: &Record<'_>) -> ControlFlow<()> {
        if self.args.to.is_some_and(|to| to.saturating_add(STEP_MS_MAX) <= record.stored_ms) {
            return ControlFlow::Break(());
        }
        if !self.wants(record) {
            return ControlFlow::Continue(());
        }
        let line = if self.args.json {
            to_json(record, self.args.body).to_string()
        } else {
            in_words(record, self.args.body)
        };
        self.left -= 1;
        match writeln!(self.out, "{line}") {
            Ok(()) if 0 < self.left => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    }

    fn wants(&self, record: &Record<'_>) -> bool {
        let args = self.args;
        let is_key = |key: &str| {
            let words = properties::find(record.properties, name::KEYS).unwrap_or_default();
            words.split(' ').any(|word| word == key)
                || properties::find(record.properties, name::UNIQ_KEY) == Some(key)
        };
        args.topic.as_ref().is_none_or(|topic| topic == record.topic)
            && args.queue.is_none_or(|queue| queue == record.queue_id)
            && args.from.is_none_or(|from| from <= record.stored_ms)
            && args.to.is_none_or(|to| record.stored_ms < to)
            && args.key.as_ref().is_none_or(|key| is_key(key))
    }
}

/// The body as its producer gave it, where its compression is known.
fn plain(record: &Record<'_>) -> Vec<u8> {
    let flag = record.sys_flag;
    let inflated = flag.has(SysFlag::COMPRESSED).then(|| inflate(record.body, flag.compression()));
    inflated.and_then(Result::ok).unwrap_or_else(|| record.body.to_vec())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn in_words(it: &Record<'_>, with_body: bool) -> String {
    /// Of a longer body only the start is shown.
    const SHOWN_MAX: usize = 1024;
    let value = |name| properties::find(it.properties, name).unwrap_or("-");
    let mut line = format!(
        "{} {} {}  {}  at {}, {} bytes  tags {}  keys {}",
        it.topic.escape_debug(),
        it.queue_id,
        it.queue_offset,
        time(it.stored_ms),
        it.at,
        it.len,
        value(name::TAGS).escape_debug(),
        value(name::KEYS).escape_debug(),
    );
    if it.check_body().is_err() {
        line += "  DAMAGED: its checksum is another";
    }
    if with_body {
        let body = plain(it);
        let shown = match std::str::from_utf8(&body) {
            Ok(text) => text.chars().take(SHOWN_MAX).collect::<String>().escape_debug().to_string(),
            Err(_) => format!("hex {}", hex(&body[..body.len().min(SHOWN_MAX)])),
        };
        line += &format!("  body {shown}");
        if SHOWN_MAX < body.len() {
            line += &format!("... of {} bytes", body.len());
        }
    }
    line
}

/// Names as `apogee consume --json` has them; a body that is no text is `bodyHex`.
fn to_json(it: &Record<'_>, with_body: bool) -> serde_json::Value {
    let properties: BTreeMap<_, _> = properties::pairs(it.properties).collect();
    let mut object = json!({
        "topic": it.topic,
        "queue": it.queue_id.to_wire(),
        "offset": it.queue_offset.0,
        "logOffset": it.at.0,
        "size": it.len,
        "flag": it.flag,
        "sysFlag": it.sys_flag.0,
        "born": it.born_ms,
        "bornHost": it.born_host.to_string(),
        "stored": it.stored_ms,
        "storeHost": it.store_host.to_string(),
        "reconsumeTimes": it.reconsume_times,
        "preparedAt": it.prepared_at.0,
        "bodyLength": it.body.len(),
        "bodyIsSound": it.check_body().is_ok(),
        "properties": properties,
    });
    if with_body {
        let body = plain(it);
        match std::str::from_utf8(&body) {
            Ok(text) => object["body"] = json!(text),
            Err(_) => object["bodyHex"] = json!(hex(&body)),
        }
    }
    object
}
