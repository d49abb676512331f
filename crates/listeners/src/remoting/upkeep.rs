//! What an operator has cleaned: 306, 316, 329.

use apogee_broker::Error;
use apogee_wire::remoting::requests::{
    CleanExpiredConsumeQueue, CleanUnusedTopic, DeleteExpiredCommitLog,
};
use apogee_wire::remoting::table::Empty;

use super::router::{Answer, Call, Reply, Router};

/// Adds what this file serves.
#[must_use]
pub fn routes(router: Router) -> Router {
    router
        .on::<CleanExpiredConsumeQueue>(queues)
        .on::<CleanUnusedTopic>(topics)
        .on::<DeleteExpiredCommitLog>(log)
}

/// Upstream removes queues as a whole that have no message left, and lets them begin at offset 0
/// again, below where their groups are. Files are enough.
fn queues(call: &mut Call<'_>, _: CleanExpiredConsumeQueue) -> Answer<Empty> {
    call.broker().store.clean().map_err(Error::from)?;
    Ok(Reply::Now(Empty))
}

fn topics(call: &mut Call<'_>, _: CleanUnusedTopic) -> Answer<Empty> {
    call.broker().clean_unused_topics()?;
    Ok(Reply::Now(Empty))
}

/// The next runs of retention do it.
fn log(call: &mut Call<'_>, _: DeleteExpiredCommitLog) -> Answer<Empty> {
    call.broker().store.ask_to_delete();
    Ok(Reply::Now(Empty))
}
