//! Looking up messages: by key, 12, and by place in the log, 33.

use apogee_broker::queries::Query;
use apogee_types::LogOffset;
use apogee_wire::remoting::ResponseCode;
use apogee_wire::remoting::requests::{QueryMessage, QueryMessageResponse, ViewMessageById};
use apogee_wire::remoting::table::Empty;

use super::router::{Answer, Call, Refusal, Reply, Router};

/// Adds what this file serves.
#[must_use]
pub fn routes(router: Router) -> Router {
    router.on::<QueryMessage>(by_key).on::<ViewMessageById>(by_id)
}

fn by_key(call: &mut Call<'_>, request: QueryMessage) -> Answer<QueryMessageResponse> {
    let max_count = match request.is_unique_key {
        true => call.broker().settings.default_query_max_num as usize,
        false => usize::try_from(request.max_count).unwrap_or(0),
    };
    let is_tags = request.index_type.as_deref() == Some("T");
    let key = if is_tags { format!("T#{}", request.key) } else { request.key };
    let broker = call.broker();
    let found = broker.query(&Query {
        topic: &request.topic,
        key: &key,
        max_count,
        from_ms: request.begin_ms,
        to_ms: request.end_ms,
    })?;
    if found.is_empty() {
        let remark = "can not find message, maybe time range not correct";
        return Err(Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark));
    }
    let fields = QueryMessageResponse {
        index_updated_ms: broker.clock.now_ms(),
        index_log_offset: broker.store.visible().0 as i64,
    };
    Ok(Reply::WithBody(fields, found.concat()))
}

fn by_id(call: &mut Call<'_>, request: ViewMessageById) -> Answer<Empty> {
    let at = u64::try_from(request.log_offset).ok().map(LogOffset);
    let record = at.and_then(|at| call.broker().view(at).ok());
    match record {
        Some(record) => Ok(Reply::WithBody(Empty, record.to_vec())),
        None => {
            let remark = format!("can not find message by the offset, {}", request.log_offset);
            Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark))
        }
    }
}
