//! Bounds of queues: 29 to 32.

use apogee_store::Boundary;
use apogee_wire::remoting::requests::{
    GetEarliestStoreTime, GetMaxOffset, GetMinOffset, OffsetResponse, SearchOffset,
    TimestampResponse,
};

use super::router::{Answer, Call, Reply, Router};

/// Adds what this file serves.
#[must_use]
pub fn routes(router: Router) -> Router {
    router
        .on::<SearchOffset>(by_time)
        .on::<GetMaxOffset>(max)
        .on::<GetMinOffset>(min)
        .on::<GetEarliestStoreTime>(earliest)
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
