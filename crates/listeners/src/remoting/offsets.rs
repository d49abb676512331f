//! Committed offsets: 14 and 15.

use apogee_broker::offsets::Committed;
use apogee_broker::queues::GroupOffset;
use apogee_wire::remoting::ResponseCode;
use apogee_wire::remoting::requests::{OffsetResponse, QueryConsumerOffset, UpdateConsumerOffset};
use apogee_wire::remoting::table::Empty;

use super::router::{Answer, Call, Refusal, Reply, Router};

/// Adds what this file serves.
#[must_use]
pub fn routes(router: Router) -> Router {
    router.on::<QueryConsumerOffset>(query).on::<UpdateConsumerOffset>(update)
}

fn query(call: &mut Call<'_>, request: QueryConsumerOffset) -> Answer<OffsetResponse> {
    let found = call.broker().group_offset(
        &request.consumer_group,
        &request.topic,
        request.queue_id,
        request.set_zero_if_not_found,
    )?;
    match found {
        GroupOffset::Committed(offset) => Ok(Reply::Now(OffsetResponse { offset })),
        GroupOffset::Young => Ok(Reply::Now(OffsetResponse { offset: 0 })),
        GroupOffset::None => {
            let remark = "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first";
            Err(Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark))
        }
    }
}

fn update(call: &mut Call<'_>, request: UpdateConsumerOffset) -> Answer<Empty> {
    let committed = call.broker().commit_offset(
        &request.consumer_group,
        &request.topic,
        request.queue_id,
        request.commit_offset,
    )?;
    Ok(match committed {
        Committed::Stored => Reply::Now(Empty),
        Committed::ResetPending => Reply::Coded {
            code: ResponseCode::SUCCESS,
            remark: "Offset has been previously reset",
            fields: Empty,
        },
    })
}
