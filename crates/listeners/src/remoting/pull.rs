//! Pulls: 11 and 361, answered at once or parked until something arrives.

use std::sync::Arc;

use apogee_broker::Broker;
use apogee_broker::pull::{Admitted, Expression, Pull, PullStatus, Pulled};
use apogee_broker::waiters::Waiter;
use apogee_store::{ReadStatus, Unit};
use apogee_types::Millis;
use apogee_wire::output::Output;
use apogee_wire::remoting::header::ResponseHead;
use apogee_wire::remoting::requests::{LitePullMessage, PullMessage, PullMessageResponse};
use apogee_wire::remoting::{Fields, ResponseCode};

use super::door::{Door, Peer};
use super::router::{Answer, Call, Refusal, Reply, Router, plain};

/// Bits of a pull's sys flag. Spec `messages.md` 3.
const COMMIT_OFFSET: i32 = 0x1;
const SUSPEND: i32 = 0x2;
const SUBSCRIPTION: i32 = 0x4;

/// Adds what this file serves.
#[must_use]
pub fn routes(router: Router) -> Router {
    router.on::<PullMessage>(pull).on::<LitePullMessage>(lite_pull)
}

fn lite_pull<'a>(
    call: &mut Call<'a>,
    LitePullMessage(request): LitePullMessage<'a>,
) -> Answer<PullMessageResponse> {
    if !call.broker().settings.lite_pull_message_enable {
        let remark = "the broker for lite pull consumer is forbidden";
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
    }
    pull(call, request)
}

fn pull<'a>(call: &mut Call<'a>, request: PullMessage<'a>) -> Answer<PullMessageResponse> {
    let broker = call.door.broker();
    let subscription = request.subscription.map(|it| it.to_cow());
    let expression_type = request.expression_type.map(|it| it.to_cow());
    let pull = Pull {
        group: plain(request.consumer_group),
        topic: plain(request.topic),
        queue_id: request.queue_id,
        from: request.queue_offset,
        max_count: request.max_count,
        subscription: (request.sys_flag & SUBSCRIPTION != 0).then(|| Expression {
            kind: expression_type.as_deref(),
            text: subscription.as_deref().unwrap_or_default(),
        }),
        sub_version: request.sub_version,
    };
    let admitted = broker.admit_pull(&pull)?;
    broker.check_puller(pull.group, call.peer.connection)?;
    if request.sys_flag & COMMIT_OFFSET != 0 {
        let now = broker.clock.now_ms();
        broker.offsets.commit(pull.group, pull.topic, admitted.queue, request.commit_offset, now);
    }
    let mut units = std::mem::take(&mut call.scratch.units);
    let pulled = broker.pull(&pull, &admitted, &mut units)?;
    call.scratch.reads_backlog |= pulled.next < pulled.max;
    let (code, remark) = outcome(&pulled, request.queue_offset);
    let may_wait = request.sys_flag & SUSPEND != 0 && !call.header.is_oneway();
    if code == ResponseCode::PULL_NOT_FOUND && may_wait {
        call.scratch.units = units;
        return Ok(park(call, &pull, admitted, request.suspend_ms, &pulled));
    }
    let fields = fields(&pulled);
    if code == ResponseCode::SUCCESS {
        return Ok(Reply::Records { remark, fields, units });
    }
    call.scratch.units = units;
    Ok(Reply::Coded { code, remark, fields })
}

/// The code for how a pull went. Spec `broker.md` 2.3.
fn outcome(pulled: &Pulled, from: i64) -> (ResponseCode, &'static str) {
    let PullStatus::Read(status) = pulled.status else {
        return (ResponseCode::PULL_OFFSET_MOVED, "OFFSET_RESET");
    };
    let code = match status {
        ReadStatus::Found => ResponseCode::SUCCESS,
        ReadStatus::NoMatchedMessage | ReadStatus::MessageWasRemoving => {
            ResponseCode::PULL_RETRY_IMMEDIATELY
        }
        ReadStatus::NoMatchedLogicQueue | ReadStatus::NoMessageInQueue if from != 0 => {
            ResponseCode::PULL_OFFSET_MOVED
        }
        ReadStatus::NoMatchedLogicQueue
        | ReadStatus::NoMessageInQueue
        | ReadStatus::OffsetFoundNull
        | ReadStatus::OffsetOverflowOne => ResponseCode::PULL_NOT_FOUND,
        ReadStatus::OffsetOverflowBadly | ReadStatus::OffsetTooSmall => {
            ResponseCode::PULL_OFFSET_MOVED
        }
    };
    (code, status.name())
}

fn fields(pulled: &Pulled) -> PullMessageResponse {
    PullMessageResponse {
        suggested_broker_id: pulled.suggested_broker_id,
        next_offset: pulled.next.0 as i64,
        min_offset: pulled.min.0 as i64,
        max_offset: pulled.max.0 as i64,
        topic_sys_flag: Some(pulled.topic_sys_flag),
        group_sys_flag: Some(pulled.group_sys_flag),
        forbidden_type: None,
    }
}

/// Parks the pull until a wanted message arrives or its time is up.
fn park(
    call: &Call<'_>,
    pull: &Pull<'_>,
    admitted: Admitted,
    suspend_ms: Millis,
    pulled: &Pulled,
) -> Reply<PullMessageResponse> {
    let broker = call.door.broker();
    let (queue, filter) = (admitted.queue, admitted.filter.clone());
    let parked = Parked {
        door: Arc::clone(call.door),
        peer: Arc::clone(call.peer),
        head: call.head(),
        group: pull.group.into(),
        topic: pull.topic.into(),
        from: pull.from,
        max_count: pull.max_count,
        admitted,
    };
    let waiter = Waiter {
        from: pulled.max,
        deadline_ms: broker.park_until(suspend_ms),
        wants: Box::new(move |tags_code| filter.matches(tags_code)),
        connection: call.peer.connection,
        answer: Box::new(move |_| parked.answer()),
    };
    match broker.waiters.park(pull.topic, queue, waiter) {
        Ok(()) => {
            call.door.parked.notify_one();
            let end = broker.store.queue_bounds(pull.topic, queue).end;
            if pulled.max < end {
                broker.waiters.recheck(pull.topic, queue, end);
            }
            Reply::Later
        }
        // Too many are parked: the consumer asks again.
        Err(_) => {
            let (code, remark) = outcome(pulled, pull.from);
            Reply::Coded { code, remark, fields: fields(pulled) }
        }
    }
}

/// What is needed to answer a pull later.
struct Parked {
    door: Arc<Door>,
    peer: Arc<Peer>,
    head: ResponseHead<'static>,
    group: Box<str>,
    topic: Box<str>,
    from: i64,
    max_count: i32,
    admitted: Admitted,
}

impl Parked {
    fn answer(self) {
        let broker = self.door.broker();
        let pull = Pull {
            group: &self.group,
            topic: &self.topic,
            queue_id: self.admitted.queue.to_wire(),
            from: self.from,
            max_count: self.max_count,
            subscription: None,
            sub_version: 0,
        };
        // The peer is gone or reads nothing: reading for it would be in vain.
        if self.peer.outbox.is_closed() {
            return;
        }
        let mut units = Vec::new();
        let admitted = broker.admit_again(&pull, self.admitted);
        let pulled = admitted.and_then(|admitted| broker.pull(&pull, &admitted, &mut units));
        let pulled = match pulled {
            Ok(pulled) => pulled,
            Err(error) => {
                let refusal = Refusal::from(error);
                let (code, remark) = (refusal.code, Some(&*refusal.remark));
                let head = ResponseHead { code, remark, ..self.head };
                self.peer.outbox.put(|output| head.write(output, |_| {}, |_| {}));
                return;
            }
        };
        let (code, remark) = outcome(&pulled, self.from);
        let head = ResponseHead { code, remark: Some(remark), ..self.head };
        self.peer.outbox.put(|output| {
            let fields = fields(&pulled);
            head.write(output, |put| fields.encode(put), |out| write_records(broker, &units, out));
        });
    }
}

/// From this length on a record is referenced. A reference saves one copy from memory that no cache
/// has, and costs as much as to copy some 500 bytes (measured: docs/benchmarks.md).
const REFERENCE_LEN_MIN: u32 = 1024;

/// Appends records: small ones copied, large ones referenced.
pub(super) fn write_records(broker: &Broker, units: &[Unit], output: &mut Output) {
    let mut records = broker.store.records();
    for unit in units {
        if unit.len < REFERENCE_LEN_MIN {
            records.copy(unit, &mut output.bytes);
        } else if let Some(record) = records.slice(unit) {
            output.reference(record);
        }
    }
}
