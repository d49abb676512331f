//! Locks of queues for ordered consumption: 41 and 42.

use apogee_types::QueueId;
use apogee_types::route::MessageQueue;
use apogee_wire::remoting::bodies::{LockBatchRequestBody, LockBatchResponseBody};
use apogee_wire::remoting::requests::{LockBatchMq, UnlockBatchMq};
use apogee_wire::remoting::table::Empty;

use super::router::{Answer, Call, Reply, Router, body, json_body};

/// Adds what this file serves.
#[must_use]
pub fn routes(router: Router) -> Router {
    router.on::<LockBatchMq>(lock).on::<UnlockBatchMq>(unlock)
}

fn lock(call: &mut Call<'_>, _: LockBatchMq) -> Answer<Empty> {
    let request: LockBatchRequestBody = body(call.body)?;
    let broker = call.door.broker();
    let now = broker.clock.now_ms();
    let (group, client) = (&request.consumer_group, &request.client_id);
    let is_locked = |queue: &MessageQueue| {
        QueueId::from_wire(queue.queue_id)
            .is_some_and(|id| broker.locks.lock(group, client, &queue.topic, id, now))
    };
    let lock_ok_mq_set = request.mq_set.iter().filter(|it| is_locked(it)).cloned().collect();
    json_body(Empty, &LockBatchResponseBody { lock_ok_mq_set })
}

fn unlock(call: &mut Call<'_>, _: UnlockBatchMq) -> Answer<Empty> {
    let request: LockBatchRequestBody = body(call.body)?;
    let locks = &call.broker().locks;
    for queue in &request.mq_set {
        if let Some(id) = QueueId::from_wire(queue.queue_id) {
            locks.unlock(&request.consumer_group, &request.client_id, &queue.topic, id);
        }
    }
    Ok(Reply::Now(Empty))
}
