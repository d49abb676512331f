//! Where to begin a queue that was assigned. Spec `client-behaviour.md` 6.

use apogee_types::route::MessageQueue;

use super::{Member, StartFrom};
use crate::Error;

/// The first offset to pull, and what the group has committed.
pub(super) async fn first(
    member: &Member,
    queue: &MessageQueue,
) -> Result<(i64, Option<i64>), Error> {
    let client = &member.client;
    let start_from = member.settings.start_from;
    if member.is_clustering() {
        let young_is_0 = start_from == StartFrom::Latest;
        let committed = client.committed_offset(&member.group, queue, young_is_0).await?;
        if let Some(offset) = committed {
            return Ok((offset, committed));
        }
    }
    let offset = match start_from {
        // What failed before must come again, however the group begins.
        _ if Member::is_retry_topic(&queue.topic) => client.min_offset(queue).await?,
        StartFrom::Earliest => client.min_offset(queue).await?,
        StartFrom::Latest => client.max_offset(queue).await?,
        StartFrom::Time(time) => client.offset_at(queue, time).await?,
    };
    Ok((offset, None))
}
