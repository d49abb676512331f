//! Replies to messages that were sent as requests: 324 and 325, pushed to the producer that asks.
//! Rules: spec `broker.md` 1.7.

use std::sync::Arc;

use apogee_broker::clients::Reply as Pushed;
use apogee_broker::publish::Send;
use apogee_types::SysFlag;
use apogee_types::properties::{self, name};
use apogee_wire::remoting::requests::{
    SendMessageResponse, SendMessageV2, SendReplyMessage, SendReplyMessageV2,
};
use apogee_wire::remoting::{Fields, ResponseCode, Text};

use super::router::{Answer, Call, Refusal, Reply, Router, plain};
use super::send::short_form;

/// Adds what this file serves.
#[must_use]
pub fn routes(router: Router) -> Router {
    router.on::<SendReplyMessage>(reply_v1).on::<SendReplyMessageV2>(reply_v2)
}

fn reply_v1<'a, 'b>(
    call: &'b mut Call<'a>,
    SendReplyMessage(request): SendReplyMessage<'a>,
) -> Answer<SendMessageResponse<'b>> {
    push(call, &short_form(request))
}

fn reply_v2<'a, 'b>(
    call: &'b mut Call<'a>,
    SendReplyMessageV2(request): SendReplyMessageV2<'a>,
) -> Answer<SendMessageResponse<'b>> {
    push(call, &request)
}

fn push<'b>(
    call: &'b mut Call<'_>,
    request: &SendMessageV2<'_>,
) -> Answer<SendMessageResponse<'b>> {
    let broker = Arc::clone(call.broker());
    let refused = |remark: String| Refusal::new(ResponseCode::SYSTEM_ERROR, remark);
    let mut encoded = Vec::new();
    if let Some(text) = request.properties {
        text.append_to(&mut encoded);
    }
    let client_id = properties::find(&encoded, name::REPLY_TO_CLIENT).map(str::to_owned);
    let client_id = client_id.ok_or_else(|| {
        refused("reply message properties[REPLY_TO_CLIENT] is null".to_owned())
    })?;
    let client = broker.clients.producer_by_id(&client_id).ok_or_else(|| {
        refused(format!("push reply message fail, channel of <{client_id}> not found."))
    })?;
    let now = broker.clock.now_ms();
    let mut pushed = encoded.clone();
    properties::set(&mut pushed, name::PUSH_REPLY_TIME, &now.to_string());
    let (peer, head) = (Arc::clone(call.peer), call.head());
    let message = Pushed {
        producer_group: request.producer_group.to_cow().into_owned(),
        topic: plain(request.topic).to_owned(),
        queue_id: request.queue_id,
        sys_flag: request.sys_flag,
        flag: request.flag,
        born_ms: request.born_ms,
        born_host: call.peer.addr,
        store_host: broker.identity.store_host,
        stored_ms: now,
        reconsume_times: request.reconsume_times.unwrap_or(0),
        properties: pushed,
        body: call.body.to_vec(),
    };
    let kept = message.clone();
    let default_topic = plain(request.default_topic).to_owned();
    let is_oneway = call.header.is_oneway();
    let done = move |was_taken: bool| {
        if is_oneway {
            return;
        }
        let mut id = "0".to_owned();
        let mut place = (0, 0);
        if was_taken && broker.settings.store_reply_message_enable {
            let send = Send {
                topic: &kept.topic,
                queue_id: kept.queue_id,
                default_topic: &default_topic,
                default_queue_count: 1,
                sys_flag: SysFlag(kept.sys_flag),
                flag: kept.flag,
                born_ms: kept.born_ms,
                born_host: kept.born_host,
                reconsume_times: kept.reconsume_times,
                max_reconsume_times: None,
                unit_mode: false,
                body: &kept.body,
            };
            if let Ok(published) = broker.publish(&send, &mut encoded) {
                if let apogee_broker::publish::Places::One(at) = published.places {
                    id = broker.message_id(at).to_string();
                }
                place = (published.queue_id.to_wire(), published.queue_offset.0 as i64);
                broker.dispatch();
            }
        }
        let remark = format!("push reply message to <{client_id}>fail.");
        let fields = SendMessageResponse {
            msg_id: Text::Plain(&id),
            queue_id: place.0,
            queue_offset: place.1,
            transaction_id: None,
            recall_handle: None,
            region: Some(Text::Plain(&broker.settings.region_id)),
            trace_on: Some(Text::Plain("true")),
        };
        let mut head = head;
        if !was_taken {
            head.code = ResponseCode::SYSTEM_ERROR;
            head.remark = Some(&remark);
        }
        peer.outbox.put(|output| head.write(output, |put| fields.encode(put), |_| {}));
    };
    client.outlet.push_reply(message, Box::new(done));
    Ok(Reply::Later)
}
