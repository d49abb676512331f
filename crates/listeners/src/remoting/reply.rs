//! Replies to messages that were sent as requests: 324 and 325, pushed to the producer that asks.
//! Rules: spec `broker.md` 1.7.

use std::sync::Arc;

use apogee_broker::Broker;
use apogee_broker::clients::Reply as Pushed;
use apogee_broker::publish::{Places, Recent, Send};
use apogee_types::properties::{self, name};
use apogee_types::{LogOffset, SysFlag};
use apogee_wire::remoting::header::ResponseHead;
use apogee_wire::remoting::requests::{
    SendMessageResponse, SendMessageV2, SendReplyMessage, SendReplyMessageV2,
};
use apogee_wire::remoting::{Fields, ResponseCode, Text};

use super::door::Peer;
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
    let broker = call.broker();
    let refused = |remark: String| Refusal::new(ResponseCode::SYSTEM_ERROR, remark);
    let mut encoded = Vec::new();
    if let Some(text) = request.properties {
        text.append_to(&mut encoded);
    }
    // It is pushed before it is stored, so the store's own check would come too late.
    if properties::LEN_MAX < encoded.len() {
        let remark = format!("the properties are {} bytes long, more than 32767", encoded.len());
        return Err(Refusal::new(ResponseCode::MESSAGE_ILLEGAL, remark));
    }
    let client_id = properties::find(&encoded, name::REPLY_TO_CLIENT).map(str::to_owned);
    let client_id = client_id
        .ok_or_else(|| refused("reply message properties[REPLY_TO_CLIENT] is null".to_owned()))?;
    let client = broker.clients.producer_by_id(&client_id).ok_or_else(|| {
        refused(format!("push reply message fail, channel of <{client_id}> not found."))
    })?;
    let mut reply = message(call, request);
    reply.properties.clone_from(&encoded);
    let now = reply.stored_ms.to_string();
    properties::set(&mut reply.properties, name::PUSH_REPLY_TIME, &now);
    let responder = Responder {
        broker: Arc::clone(broker),
        peer: Arc::clone(call.peer),
        head: (!call.header.is_oneway()).then(|| call.head()),
        client_id,
        default_topic: plain(request.default_topic).to_owned(),
        encoded,
        reply: reply.clone(),
    };
    client.outlet.push_reply(reply, Box::new(move |was_taken| responder.pushed(was_taken)));
    Ok(Reply::Later)
}

fn message(call: &Call<'_>, request: &SendMessageV2<'_>) -> Pushed {
    let broker = call.broker();
    Pushed {
        producer_group: request.producer_group.to_cow().into_owned(),
        topic: plain(request.topic).to_owned(),
        queue_id: request.queue_id,
        sys_flag: request.sys_flag,
        flag: request.flag,
        born_ms: request.born_ms,
        born_host: call.peer.addr,
        store_host: broker.identity.store_host,
        stored_ms: broker.clock.now_ms(),
        reconsume_times: request.reconsume_times.unwrap_or(0),
        properties: Vec::new(),
        body: call.body.to_vec(),
    }
}

/// Who sent a reply, and waits to hear whether the requester took it.
struct Responder {
    broker: Arc<Broker>,
    peer: Arc<Peer>,
    /// `None`: it wants no answer.
    head: Option<ResponseHead<'static>>,
    client_id: String,
    default_topic: String,
    /// The properties as the responder wrote them.
    encoded: Vec<u8>,
    reply: Pushed,
}

impl Responder {
    fn pushed(mut self, was_taken: bool) {
        // A reply that was taken is a success, whatever becomes of its copy.
        let keeps = was_taken && self.broker.settings.store_reply_message_enable;
        let stored = if keeps { self.store() } else { None };
        let id = stored.map_or("0".to_owned(), |(at, ..)| self.broker.message_id(at).to_string());
        let (_, queue_id, queue_offset) = stored.unwrap_or_default();
        let fields = SendMessageResponse {
            msg_id: Text::Plain(&id),
            queue_id,
            queue_offset,
            transaction_id: None,
            recall_handle: None,
            region: Some(Text::Plain(&self.broker.settings.region_id)),
            trace_on: Some(Text::Plain(self.broker.trace_on())),
        };
        let Some(head) = self.head else { return };
        let remark = format!("push reply message to <{}>fail.", self.client_id);
        let refused =
            ResponseHead { code: ResponseCode::SYSTEM_ERROR, remark: Some(&remark), ..head };
        let head = if was_taken { head } else { refused };
        self.peer.outbox.put(|output| head.write(output, |put| fields.encode(put), |_| {}));
    }

    /// Stores the reply as well; where, if that went well.
    fn store(&mut self) -> Option<(LogOffset, i32, i64)> {
        let reply = &self.reply;
        let send = Send {
            topic: &reply.topic,
            queue_id: reply.queue_id,
            default_topic: &self.default_topic,
            default_queue_count: 1,
            sys_flag: SysFlag(reply.sys_flag),
            flag: reply.flag,
            born_ms: reply.born_ms,
            born_host: reply.born_host,
            reconsume_times: reply.reconsume_times,
            max_reconsume_times: None,
            unit_mode: false,
            body: &reply.body,
            now: self.broker.clock.now_ms(),
        };
        let published =
            self.broker.publish(&send, &mut self.encoded, &mut Recent::default()).ok()?;
        self.broker.dispatch();
        let Places::One(at) = published.places else { return None };
        Some((at, published.queue_id.to_wire(), published.queue_offset.0 as i64))
    }
}
