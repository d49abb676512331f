//! Sends: 10, 310, 320, and messages that a consumer sends back: 36.

use apogee_broker::publish::{BatchEntry, Places, Published, Send};
use apogee_broker::retry::{SendBack, SentBack};
use apogee_types::id::OFFSET_ID_LEN_MAX;
use apogee_types::properties::KeyPlaces;
use apogee_types::{LogOffset, SysFlag};
use apogee_wire::remoting::requests::{
    ConsumerSendMsgBack, SendBatchMessage, SendMessage, SendMessageResponse, SendMessageV2,
};
use apogee_wire::remoting::table::Empty;
use apogee_wire::remoting::{ResponseCode, Text, batch};

use super::pending::Until;
use super::router::{Answer, Call, Refusal, Reply, Router, plain};

/// Upstream honours `maxReconsumeTimes` of a header from this release on (3.4.9).
const VERSION_MAX_RECONSUME_TIMES: i32 = 121;

/// Adds what this file serves.
#[must_use]
pub fn routes(router: Router) -> Router {
    router
        .on::<SendMessage>(send)
        .on::<SendMessageV2>(send_v2)
        .on::<SendBatchMessage>(send_batch)
        .on::<ConsumerSendMsgBack>(send_back)
}

fn send<'a, 'b>(
    call: &'b mut Call<'a>,
    request: SendMessage<'a>,
) -> Answer<SendMessageResponse<'b>> {
    store(call, short_form(request))
}

/// The same request with the short names of version two.
pub(super) fn short_form(request: SendMessage<'_>) -> SendMessageV2<'_> {
    SendMessageV2 {
        producer_group: request.producer_group,
        topic: request.topic,
        default_topic: request.default_topic,
        default_topic_queue_count: request.default_topic_queue_count,
        queue_id: request.queue_id,
        sys_flag: request.sys_flag,
        born_ms: request.born_ms,
        flag: request.flag,
        properties: request.properties,
        reconsume_times: request.reconsume_times,
        unit_mode: request.unit_mode,
        max_reconsume_times: request.max_reconsume_times,
        batch: request.batch,
        broker_name: None,
    }
}

fn send_v2<'a, 'b>(
    call: &'b mut Call<'a>,
    request: SendMessageV2<'a>,
) -> Answer<SendMessageResponse<'b>> {
    store(call, request)
}

fn send_batch<'a, 'b>(
    call: &'b mut Call<'a>,
    SendBatchMessage(request): SendBatchMessage<'a>,
) -> Answer<SendMessageResponse<'b>> {
    store(call, SendMessageV2 { batch: true, ..request })
}

fn store<'a, 'b>(
    call: &'b mut Call<'a>,
    request: SendMessageV2<'a>,
) -> Answer<SendMessageResponse<'b>> {
    let honours_max = VERSION_MAX_RECONSUME_TIMES <= call.header.version;
    let send = Send {
        topic: plain(request.topic),
        queue_id: request.queue_id,
        default_topic: plain(request.default_topic),
        default_queue_count: request.default_topic_queue_count,
        sys_flag: SysFlag(request.sys_flag),
        flag: request.flag,
        born_ms: request.born_ms,
        born_host: call.peer.addr,
        reconsume_times: request.reconsume_times.unwrap_or(0),
        max_reconsume_times: request.max_reconsume_times.filter(|_| honours_max),
        unit_mode: request.unit_mode,
        body: call.body,
        now: call.now(),
    };
    let broker = call.door.broker();
    let encoded = &mut call.scratch.properties;
    encoded.clear();
    if let Some(text) = request.properties {
        text.append_to(encoded);
    }
    let published = if request.batch {
        let entry = |it: batch::BatchRecord<'a>| BatchEntry {
            flag: it.flag,
            body: it.body,
            properties: it.properties,
        };
        let entries: Result<Vec<_>, _> =
            batch::records(call.body).map(|record| record.map(entry)).collect();
        let entries = entries
            .map_err(|error| Refusal::new(ResponseCode::MESSAGE_ILLEGAL, error.to_string()))?;
        broker.publish_batch(&send, encoded, &entries)?
    } else {
        broker.publish(&send, encoded, &mut call.scratch.recent)?
    };
    call.scratch.appended = true;
    Ok(respond(call, &published))
}

fn respond<'b>(call: &'b mut Call<'_>, published: &Published) -> Reply<SendMessageResponse<'b>> {
    let broker = call.door.broker();
    let scratch = &mut *call.scratch;
    scratch.ids.clear();
    let put = |ids: &mut String, at: LogOffset| {
        ids.push_str(broker.message_id(at).write(&mut [0; OFFSET_ID_LEN_MAX]));
    };
    match &published.places {
        Places::One(at) => put(&mut scratch.ids, *at),
        Places::Many(places) => {
            for (index, at) in places.iter().enumerate() {
                if 0 < index {
                    scratch.ids.push(',');
                }
                put(&mut scratch.ids, *at);
            }
        }
    }
    let places = published.key_places.unwrap_or_else(|| KeyPlaces::find(&scratch.properties));
    let unique_key = places.unique_key.of(&scratch.properties);
    let unique_key = unique_key.and_then(|key| std::str::from_utf8(key).ok());
    let fields = SendMessageResponse {
        msg_id: Text::Plain(&scratch.ids),
        queue_id: published.queue_id.to_wire(),
        queue_offset: published.queue_offset.0 as i64,
        transaction_id: unique_key.map(Text::Plain),
        recall_handle: None,
        region: Some(Text::Plain(&broker.settings.region_id)),
        trace_on: Some(Text::Plain(broker.trace_on())),
    };
    let waits = published.wait && broker.store.flushes_synchronously();
    let flushed = if waits { published.end } else { LogOffset(0) };
    Reply::After(fields, Until { flushed, created: published.created })
}

fn send_back<'a>(call: &mut Call<'a>, request: ConsumerSendMsgBack) -> Answer<Empty> {
    let at = u64::try_from(request.log_offset).map_err(|_| {
        let remark = format!("look message by offset failed, {}", request.log_offset);
        Refusal::new(ResponseCode::SYSTEM_ERROR, remark)
    })?;
    let sent_back = call.broker().send_back(&SendBack {
        group: &request.group,
        at: LogOffset(at),
        delay_level: request.delay_level,
        max_reconsume_times: request.max_reconsume_times,
        unit_mode: request.unit_mode,
    })?;
    call.scratch.appended = true;
    let Some(SentBack { end, created }) = sent_back else { return Ok(Reply::Now(Empty)) };
    let waits = call.broker().store.flushes_synchronously();
    let flushed = if waits { end } else { LogOffset(0) };
    Ok(Reply::After(Empty, Until { flushed, created }))
}
