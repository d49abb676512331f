//! One connection that reads: a pull for each of its queues.

use std::collections::VecDeque;

use anyhow::{Context, bail, ensure};
use apogee_types::record::Record;
use apogee_wire::output::Output;
use apogee_wire::remoting::requests::PullMessage;
use apogee_wire::remoting::{
    FieldIndex, Fields, FrameRef, Header, HeaderEncoding, Request, RequestHead, ResponseCode,
};

use super::frames::Stamp;
use super::pace::Pace;
use super::tally::Tally;

const GROUP: &str = "apogee-bench-consumer";
/// Bits of `sysFlag`.
const WAIT: i32 = 0x2;
const SUBSCRIPTION_INLINE: i32 = 0x4;
/// How long the server may hold a pull: what the Java client asks for.
const HOLD_MS: i64 = 15_000;

/// What to do at the end of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtEnd {
    Stop,
    StartAgain,
    /// Wait for more; messages of this run tell how long they took.
    Wait {
        run: u64,
    },
}

pub struct Puller {
    topic: String,
    queues: Vec<Cursor>,
    /// Queues to pull from next.
    ready: VecDeque<usize>,
    in_flight_max: usize,
    in_flight: usize,
    count_max: i32,
    at_end: AtEnd,
    verify: bool,
    index: Vec<FieldIndex>,
    output: Output,
}

struct Cursor {
    queue_id: i32,
    first: i64,
    next: i64,
    /// Sent, and when.
    pulled_at: Option<u64>,
}

pub struct Options {
    pub in_flight: u32,
    /// Messages that a pull asks for.
    pub count_max: i32,
    pub at_end: AtEnd,
    pub verify: bool,
}

/// Asks for messages of a queue from an offset on, of any tag.
pub fn pull_request(
    topic: &str,
    (queue_id, queue_offset): (i32, i64),
    max_count: i32,
    waits: bool,
) -> PullMessage<'_> {
    PullMessage {
        consumer_group: GROUP.into(),
        topic: topic.into(),
        queue_id,
        queue_offset,
        max_count,
        sys_flag: if waits { SUBSCRIPTION_INLINE | WAIT } else { SUBSCRIPTION_INLINE },
        commit_offset: 0,
        suspend_ms: if waits { HOLD_MS } else { 0 },
        subscription: Some("*".into()),
        sub_version: 0,
        expression_type: Some("TAG".into()),
        max_bytes: None,
        request_source: None,
        proxied_client_id: None,
        lite_topic: None,
    }
}

impl Puller {
    /// `queues` are ids and where to start.
    pub fn new(topic: &str, queues: &[(i32, i64)], options: &Options) -> Self {
        let cursor = |&(queue_id, first)| Cursor { queue_id, first, next: first, pulled_at: None };
        Self {
            topic: topic.to_owned(),
            queues: queues.iter().map(cursor).collect(),
            ready: (0..queues.len()).collect(),
            in_flight_max: options.in_flight as usize,
            in_flight: 0,
            count_max: options.count_max,
            at_end: options.at_end,
            verify: options.verify,
            index: Vec::new(),
            output: Output::default(),
        }
    }

    /// Pulls that will be answered soon. One that waits for messages may never be.
    pub fn unanswered(&self) -> usize {
        if matches!(self.at_end, AtEnd::Wait { .. }) { 0 } else { self.in_flight }
    }

    /// Appends as many pulls to `output` as are allowed.
    pub fn pull(&mut self, output: &mut Vec<u8>, now: u64) {
        while self.in_flight < self.in_flight_max
            && let Some(place) = self.ready.pop_front()
        {
            self.in_flight += 1;
            self.queues[place].pulled_at = Some(now);
            self.encode(place);
            output.append(&mut self.output.bytes);
        }
    }

    fn encode(&mut self, place: usize) {
        let cursor = &self.queues[place];
        let waits = matches!(self.at_end, AtEnd::Wait { .. });
        let place_in_queue = (cursor.queue_id, cursor.next);
        let request = pull_request(&self.topic, place_in_queue, self.count_max, waits);
        let head = RequestHead {
            encoding: HeaderEncoding::Json,
            code: PullMessage::INFO.code,
            opaque: place as i32,
            oneway: false,
        };
        head.write(&mut self.output, |put| request.encode(put), |_| {});
    }

    /// Takes an answer and says where its queue goes on.
    pub fn answer(
        &mut self,
        frame: &FrameRef<'_>,
        now: u64,
        tally: &mut Tally,
        pace: &mut Pace,
    ) -> anyhow::Result<()> {
        let mut index = std::mem::take(&mut self.index);
        let header = Header::parse(frame, &mut index).context("an answer's header")?;
        let (code, opaque) = (ResponseCode(header.code), header.opaque as usize);
        let is_response = header.is_response();
        let place = if code == ResponseCode::SUCCESS && is_response {
            let place = <PullMessage<'static> as Request>::Response::decode(&header.fields);
            Some(place.context("the answer to a pull")?)
        } else {
            None
        };
        self.index = index;
        if !is_response {
            return Ok(());
        }
        let cursor = self.queues.get_mut(opaque).context("an answer to no pull")?;
        let since = cursor.pulled_at.take().context("a second answer to a pull")?;
        self.in_flight -= 1;
        let Some(place) = place else { return self.nothing(opaque, code, tally) };
        cursor.next = place.next_offset;
        let is_at_end = place.max_offset <= place.next_offset;
        match self.at_end {
            AtEnd::Wait { run } => arrived(frame.body, run, now, tally, pace)?,
            _ => {
                count(frame.body, self.verify, tally)?;
                tally.received.times.record(now - since);
            }
        }
        match self.at_end {
            AtEnd::Stop if is_at_end => return Ok(()),
            AtEnd::StartAgain if is_at_end => cursor.next = cursor.first,
            _ => {}
        }
        self.ready.push_back(opaque);
        Ok(())
    }

    /// A pull brought no message.
    fn nothing(
        &mut self,
        place: usize,
        code: ResponseCode,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        let cursor = &mut self.queues[place];
        match (code, self.at_end) {
            (ResponseCode::PULL_NOT_FOUND, AtEnd::Stop) => return Ok(()),
            (ResponseCode::PULL_NOT_FOUND, AtEnd::StartAgain) if cursor.next == cursor.first => {
                // An empty queue, which must not be asked in circles.
                return Ok(());
            }
            (ResponseCode::PULL_NOT_FOUND, AtEnd::StartAgain) => cursor.next = cursor.first,
            (ResponseCode::PULL_NOT_FOUND | ResponseCode::PULL_RETRY_IMMEDIATELY, _) => {}
            (ResponseCode::PULL_OFFSET_MOVED, _) => bail!("the server has deleted what we read"),
            (code, _) => tally.error(code),
        }
        self.ready.push_back(place);
        Ok(())
    }
}

/// Counts the records of a backlog.
fn count(mut body: &[u8], verify: bool, tally: &mut Tally) -> anyhow::Result<()> {
    tally.received.bytes += body.len() as u64;
    while let Some(len) = body.first_chunk() {
        let len = u32::from_be_bytes(*len) as usize;
        ensure!(4 <= len && len <= body.len(), "a record of {len} bytes in {}", body.len());
        if verify {
            Record::parse(&body[..len])?.check_body()?;
        }
        body = &body[len..];
        tally.received.messages += 1;
    }
    ensure!(body.is_empty(), "{} bytes that are no record", body.len());
    Ok(())
}

/// Takes messages that a consumer was waiting for.
fn arrived(
    mut body: &[u8],
    run: u64,
    now: u64,
    tally: &mut Tally,
    pace: &mut Pace,
) -> anyhow::Result<()> {
    while !body.is_empty() {
        let record = Record::parse(body)?;
        if let Some(due) = Stamp::read(record.body, run) {
            tally.received.messages += 1;
            tally.received.bytes += record.body.len() as u64;
            tally.received.times.record(now.saturating_sub(due));
            pace.arrived(now);
        }
        body = &body[record.len..];
    }
    Ok(())
}
