//! `apogee bench lookup`: offsets by time, messages by key, one request at a time.

use std::time::Instant;

use anyhow::{Context, ensure};
use apogee_types::Millis;
use apogee_types::record::Record;
use apogee_wire::remoting::ResponseCode;
use apogee_wire::remoting::requests::{PullMessage, QueryMessage, SearchOffset};

use super::args::{LookupArgs, LookupBy};
use super::cluster::{self, Calls, Cluster};
use super::fill::key;
use super::load::Measured;
use super::puller::pull_request;
use super::report::{self, Report};
use super::tally::Tally;
use super::watch::{self, MemoryWatch};

/// Messages that a query by key asks for: what the Java client does.
const COUNT_MAX: i32 = 32;

pub fn lookup(args: &LookupArgs) -> anyhow::Result<()> {
    let cluster = Cluster::prepare(&args.target)?;
    let broker = cluster.brokers.first().context("the topic is on no broker")?;
    let mut asker = Asker {
        calls: Calls::connect(&broker.addr)?,
        topic: args.target.topic.clone(),
        queues: Vec::new(),
    };
    for queue_id in 0..broker.queue_count {
        asker.add_queue(queue_id)?;
    }
    ensure!(!asker.queues.is_empty(), "topic `{}` is empty", asker.topic);

    let pids = &args.output.pid[..];
    let cpu = || anyhow::Ok((watch::cpu_seconds(pids)?, watch::own_cpu_seconds()?));
    asker.ask(args, args.span.warmup.as_secs_f64(), None)?;
    let (before, memory, started) = (cpu()?, MemoryWatch::start(pids), Instant::now());
    let tally = asker.ask(args, args.span.duration.as_secs_f64(), args.span.count)?;
    let (seconds, after) = (started.elapsed().as_secs_f64(), cpu()?);
    let report = Report {
        title: format!("lookup by {:?}, one request at a time", args.by).to_lowercase(),
        place: format!("{}, topic {}", cluster.name_server, args.target.topic),
        measured: Measured { tally, seconds, send_seconds: seconds },
        server_cpu: (!pids.is_empty()).then_some(after.0 - before.0),
        own_cpu: after.1 - before.1,
        memory_peak: (!pids.is_empty()).then(|| memory.stop()),
    };
    report::print(&if args.output.json { report.json() } else { report.text() });
    Ok(())
}

struct Asker {
    calls: Calls,
    topic: String,
    /// Ids, and when their first and last messages were stored.
    queues: Vec<(i32, [Millis; 2])>,
}

impl Asker {
    fn add_queue(&mut self, queue_id: i32) -> anyhow::Result<()> {
        let (first, next) = cluster::offsets(&mut self.calls, &self.topic, queue_id)?;
        if first < next {
            let ends = [self.stored_ms(queue_id, first)?, self.stored_ms(queue_id, next - 1)?];
            self.queues.push((queue_id, ends));
        }
        Ok(())
    }

    fn stored_ms(&mut self, queue_id: i32, queue_offset: i64) -> anyhow::Result<Millis> {
        let request = pull_request(&self.topic, (queue_id, queue_offset), 1, false);
        let body = self.calls.call::<PullMessage<'_>>(&request)?.succeeded()?;
        Ok(Record::parse(&body)?.stored_ms)
    }

    /// Asks for so many seconds, or so many times. What was found counts as received.
    fn ask(
        &mut self,
        args: &LookupArgs,
        seconds: f64,
        count: Option<u64>,
    ) -> anyhow::Result<Tally> {
        let (started, mut tally) = (Instant::now(), Tally::default());
        loop {
            let asked = Instant::now();
            let is_over = match count {
                Some(count) => count <= tally.received.messages,
                None => seconds <= started.elapsed().as_secs_f64(),
            };
            if is_over {
                return Ok(tally);
            }
            let found = match args.by {
                LookupBy::Time => self.by_time(),
                LookupBy::Key => self.by_key(fastrand::u64(..args.keys.max(1))),
            };
            match found? {
                Ok(bytes) => {
                    tally.received.messages += 1;
                    tally.received.bytes += bytes;
                    tally.received.times.record(asked.elapsed().as_nanos() as u64);
                }
                Err(code) => tally.error(code),
            }
        }
    }

    /// Bytes of the answer.
    fn by_time(&mut self) -> anyhow::Result<Result<u64, ResponseCode>> {
        let (queue_id, [first, last]) = self.queues[fastrand::usize(..self.queues.len())];
        let request = SearchOffset {
            topic: self.topic.clone(),
            queue_id,
            timestamp_ms: fastrand::i64(first..=last),
            boundary_type: None,
            lite_topic: None,
        };
        let reply = self.calls.call::<SearchOffset>(&request)?;
        Ok(if reply.offset.is_some() { Ok(0) } else { Err(reply.code) })
    }

    fn by_key(&mut self, number: u64) -> anyhow::Result<Result<u64, ResponseCode>> {
        let request = QueryMessage {
            topic: self.topic.clone(),
            key: key(number),
            max_count: COUNT_MAX,
            begin_ms: 0,
            end_ms: i64::MAX,
            index_type: None,
            last_key: None,
            is_unique_key: false,
        };
        let reply = self.calls.call::<QueryMessage>(&request)?;
        if reply.code != ResponseCode::SUCCESS {
            return Ok(Err(reply.code));
        }
        let body = reply.succeeded()?;
        Record::parse(&body).context("no message was found by key")?;
        Ok(Ok(body.len() as u64))
    }
}
