//! Bounds of queues: 29 to 32; and what stands in them: 321.

use apogee_store::Boundary;
use apogee_wire::remoting::ResponseCode;
use apogee_wire::remoting::bodies::{ConsumeQueueData, QueryConsumeQueueResponseBody};
use apogee_wire::remoting::requests::{
    GetEarliestStoreTime, GetMaxOffset, GetMinOffset, OffsetResponse, QueryConsumeQueue,
    SearchOffset, TimestampResponse,
};
use apogee_wire::remoting::table::Empty;

use super::router::{Answer, Call, Refusal, Reply, Router, json_body};

/// Adds what this file serves.
#[must_use]
pub fn routes(router: Router) -> Router {
    router
        .on::<SearchOffset>(by_time)
        .on::<GetMaxOffset>(max)
        .on::<GetMinOffset>(min)
        .on::<GetEarliestStoreTime>(earliest)
        .on::<QueryConsumeQueue>(units)
}

fn max(call: &mut Call<'_>, request: GetMaxOffset) -> Answer<OffsetResponse> {
    let bounds = call.broker().queue_bounds(&request.topic, request.queue_id)?;
    Ok(Reply::Now(OffsetResponse { offset: bounds.end.0 as i64 }))
}

fn min(call: &mut Call<'_>, request: GetMinOffset) -> Answer<OffsetResponse> {
    let bounds = call.broker().queue_bounds(&request.topic, request.queue_id)?;
    Ok(Reply::Now(OffsetResponse { offset: bounds.start.0 as i64 }))
}

fn by_time(call: &mut Call<'_>, request: SearchOffset) -> Answer<OffsetResponse> {
    let is_upper =
        request.boundary_type.is_some_and(|boundary| boundary.eq_ignore_ascii_case("upper"));
    let boundary = if is_upper { Boundary::Upper } else { Boundary::Lower };
    let broker = call.broker();
    let offset =
        broker.offset_by_time(&request.topic, request.queue_id, request.timestamp_ms, boundary)?;
    Ok(Reply::Now(OffsetResponse { offset: offset.0 as i64 }))
}

fn earliest(call: &mut Call<'_>, request: GetEarliestStoreTime) -> Answer<TimestampResponse> {
    let found = call.broker().earliest_ms(&request.topic, request.queue_id)?;
    Ok(Reply::Now(TimestampResponse { timestamp_ms: found.unwrap_or(-1) }))
}

/// Spec `broker.md` 8. The bits of extended units are not kept, so that `eval` is always false.
fn units(call: &mut Call<'_>, request: QueryConsumeQueue) -> Answer<Empty> {
    /// As many as some megabytes of JSON hold.
    const COUNT_MAX: u64 = 50_000;
    let broker = call.broker();
    let QueryConsumeQueue { topic, queue_id, index, count, consumer_group } = request;
    let bounds = broker.queue_bounds(&topic, queue_id)?;
    if bounds.end.0 == 0 {
        let remark = format!("{queue_id}@{topic} is not exist!");
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    }
    let from = u64::try_from(index).unwrap_or(u64::MAX);
    if !(bounds.start.0..bounds.end.0).contains(&from) {
        let remark = format!("Index {index} of {queue_id}@{topic} is not exist!");
        return Err(Refusal::new(ResponseCode::SUCCESS, remark));
    }
    let (mut subscription_data, mut filter_data) = (None, None);
    if let Some(group) = consumer_group {
        let found = broker.clients.with_consumer_group(&group, |live| {
            live.subscriptions.get(topic.as_str()).map(|it| (**it).clone())
        });
        subscription_data = found.flatten();
        // Of tags upstream has no filter.
        filter_data = Some(match &subscription_data {
            Some(_) => "null".to_owned(),
            None => format!("{group}@{topic} is not online!"),
        });
    }
    let count = u64::try_from(count).unwrap_or(0).min(COUNT_MAX);
    let mut queue_data = Vec::new();
    for offset in from..(from + count).min(bounds.end.0) {
        let unit = broker.queue_unit(&topic, queue_id, offset)?;
        queue_data.push(unit.map_or_else(ConsumeQueueData::default, |unit| ConsumeQueueData {
            physic_offset: unit.at.0 as i64,
            physic_size: unit.len as i32,
            tags_code: unit.tags_code,
            ..ConsumeQueueData::default()
        }));
    }
    let (min, max) = (bounds.start.0 as i64, bounds.end.0 as i64);
    json_body(
        Empty,
        &QueryConsumeQueueResponseBody {
            filter_data,
            max_queue_index: max,
            min_queue_index: min,
            queue_data,
            subscription_data,
        },
    )
}
