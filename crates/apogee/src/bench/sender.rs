//! One connection that sends: its window of unanswered requests.

use anyhow::{Context, bail, ensure};
use apogee_wire::remoting::requests::SendMessageV2;
use apogee_wire::remoting::{FieldIndex, Fields, FrameRef, Header, Request, ResponseCode};

use super::cluster::Broker;
use super::frames::{self, OPAQUE_MAX, OPAQUE_MIN, Scanner, Spec, Stamp, Template};
use super::tally::Tally;

pub struct Sender {
    /// One for each queue; requests go round.
    templates: Vec<Template>,
    next_queue: usize,
    batch: u32,
    size: u64,
    window: Vec<Slot>,
    free: Vec<u32>,
    next_opaque: i32,
    next_key: u64,
    scanner: Scanner,
    verifier: Option<Verifier>,
}

/// A request that waits for its answer.
#[derive(Default, Clone, Copy)]
struct Slot {
    /// 0 if there is none.
    opaque: i32,
    queue: u32,
    since: u64,
}

/// When a message is sent, and for whom.
#[derive(Clone, Copy)]
pub struct Moment {
    pub run: u64,
    /// When it was due.
    pub since: u64,
    /// The wall clock, as the header states it.
    pub born: [u8; 13],
}

impl Sender {
    /// `index` tells the senders of a run apart.
    pub fn new(spec: &Spec<'_>, broker: &Broker, in_flight: u32, index: usize) -> Self {
        let queues = 0..broker.queue_count;
        let templates = queues.map(|queue| Template::new(spec, &broker.name, queue)).collect();
        Self {
            templates,
            next_queue: index % broker.queue_count.max(1) as usize,
            batch: spec.batch,
            size: spec.size as u64,
            window: vec![Slot::default(); in_flight as usize],
            free: (0..in_flight).rev().collect(),
            next_opaque: 0,
            next_key: (index as u64) << 36,
            scanner: Scanner::default(),
            verifier: None,
        }
    }

    /// Checks every field of the answers from now on.
    pub fn verify(&mut self) {
        self.verifier = Some(Verifier::new(self.templates.len()));
    }

    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    pub fn unanswered(&self) -> usize {
        self.window.len() - self.free.len()
    }

    pub fn window_len(&self) -> usize {
        self.window.len()
    }

    /// Messages of a request.
    pub fn batch(&self) -> u64 {
        u64::from(self.batch)
    }

    /// Appends a request to `output`. There must be room.
    pub fn send(&mut self, output: &mut Vec<u8>, moment: &Moment) {
        let place = self.free.pop().expect("the caller has looked for room");
        let opaque = self.opaque(place);
        let queue = self.next_queue;
        self.next_queue = (queue + 1) % self.templates.len();
        self.window[place as usize] = Slot { opaque, queue: queue as u32, since: moment.since };
        let stamp = Stamp { run: moment.run, due_ns: moment.since };
        self.templates[queue].put(output, opaque, &moment.born, self.next_key, stamp);
        self.next_key += u64::from(self.batch);
    }

    /// Holds the place in the window, so that an answer finds it, and changes with every request,
    /// so that a wrong answer does not.
    fn opaque(&mut self, place: u32) -> i32 {
        let opaque = OPAQUE_MIN + self.next_opaque + place as i32;
        self.next_opaque += self.window.len() as i32;
        if OPAQUE_MAX - OPAQUE_MIN < self.next_opaque + 2 * self.window.len() as i32 {
            self.next_opaque = 0;
        }
        opaque
    }

    /// Takes an answer. Returns how many messages it accepted, or refused if `Err`.
    pub fn answer(
        &mut self,
        frame: &FrameRef<'_>,
        now: u64,
        tally: &mut Tally,
    ) -> anyhow::Result<Option<Result<u64, ResponseCode>>> {
        let Some(answer) = self.scanner.scan(frame)? else { return Ok(None) };
        let place = (answer.opaque - OPAQUE_MIN).rem_euclid(self.window.len() as i32) as usize;
        let slot = std::mem::take(&mut self.window[place]);
        if slot.opaque != answer.opaque {
            bail!("the server answers a request {} that was not sent", answer.opaque);
        }
        self.free.push(place as u32);
        let code = ResponseCode(answer.code);
        if code != ResponseCode::SUCCESS {
            tally.error(code);
            return Ok(Some(Err(code)));
        }
        if let Some(verifier) = &mut self.verifier {
            verifier.check(frame, slot.queue as usize, self.batch)?;
        }
        let messages = u64::from(self.batch);
        tally.sent.messages += messages;
        tally.sent.bytes += messages * self.size;
        tally.sent.times.record(now.saturating_sub(slot.since));
        Ok(Some(Ok(messages)))
    }
}

/// Checks what the bare counting leaves out.
struct Verifier {
    /// By queue. A server may answer in any order, but give no offset twice.
    given: Vec<Given>,
    index: Vec<FieldIndex>,
}

/// A set of offsets, a bit each.
#[derive(Default)]
struct Given {
    base: i64,
    bits: Vec<u64>,
}

impl Given {
    /// Far more than can be unanswered when the first answer comes.
    const BEFORE_FIRST: i64 = 1 << 20;

    /// False if the offset was there already.
    fn insert(&mut self, offset: i64) -> bool {
        if self.bits.is_empty() {
            self.base = offset - Self::BEFORE_FIRST;
        }
        let Ok(place) = usize::try_from(offset - self.base) else { return false };
        if self.bits.len() <= place / 64 {
            self.bits.resize(place / 64 + 1, 0);
        }
        let (word, bit) = (&mut self.bits[place / 64], 1 << (place % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}

impl Verifier {
    fn new(queue_count: usize) -> Self {
        let given = std::iter::repeat_with(Given::default).take(queue_count).collect();
        Self { given, index: Vec::new() }
    }

    fn check(&mut self, frame: &FrameRef<'_>, queue: usize, batch: u32) -> anyhow::Result<()> {
        let header = Header::parse(frame, &mut self.index)?;
        let answer = <SendMessageV2<'static> as Request>::Response::decode(&header.fields)
            .context("the answer to a send")?;
        ensure!(
            answer.queue_id as usize == queue,
            "sent to {queue}, stored in {}",
            answer.queue_id
        );
        let ids = answer.msg_id.to_cow().split(',').filter(|id| id.len() == 32).count();
        ensure!(ids == batch as usize, "{} is no list of {batch} ids", answer.msg_id.to_cow());
        for offset in answer.queue_offset..answer.queue_offset + i64::from(batch) {
            ensure!(self.given[queue].insert(offset), "offset {offset} of queue {queue} twice");
        }
        Ok(())
    }
}

/// The wall clock as sends state it, rewritten only when it moves on.
pub struct Born {
    ms: i64,
    digits: [u8; 13],
}

impl Born {
    pub fn new() -> Self {
        Self { ms: 0, digits: frames::born_digits(0) }
    }

    pub fn at(&mut self, ms: i64) -> [u8; 13] {
        if self.ms != ms {
            self.ms = ms;
            self.digits = frames::born_digits(ms);
        }
        self.digits
    }
}
