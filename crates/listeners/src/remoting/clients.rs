//! Clients and their groups: 34, 35, 38, 46, and the views 203, 204, 307, 328.

use std::collections::BTreeMap;
use std::sync::Arc;

use apogee_broker::Broker;
use apogee_broker::clients::{Client, GroupBeat, Heard};
use apogee_types::names;
use apogee_wire::remoting::bodies::{
    CheckClientRequestBody, Connection, ConsumerConnection, ConsumerData,
    GetConsumerListByGroupResponseBody, HeartbeatData, ProducerConnection, ProducerInfo,
    ProducerTableInfo,
};
use apogee_wire::remoting::header::ResponseHead;
use apogee_wire::remoting::requests::{
    CheckClientConfig, GetAllProducerInfo, GetConsumerConnectionList, GetConsumerListByGroup,
    GetConsumerRunningInfo, GetProducerConnectionList, HeartBeat, HeartBeatResponse,
    UnregisterClient,
};
use apogee_wire::remoting::table::Empty;
use apogee_wire::remoting::{Language, ResponseCode};

use super::door::PeerOutlet;
use super::pending::Until;
use super::router::{Answer, Call, Refusal, Reply, Router, body, json_body};

/// Adds what this file serves.
#[must_use]
pub fn routes(router: Router) -> Router {
    router
        .on::<HeartBeat>(heart_beat)
        .on::<UnregisterClient>(unregister)
        .on::<GetConsumerListByGroup>(consumer_ids)
        .on::<CheckClientConfig>(check_config)
        .on::<GetConsumerConnectionList>(consumer_connections)
        .on::<GetProducerConnectionList>(producer_connections)
        .on::<GetAllProducerInfo>(all_producers)
        .on::<GetConsumerRunningInfo>(running_info)
}

fn heart_beat(call: &mut Call<'_>, _: HeartBeat) -> Answer<HeartBeatResponse> {
    let beat: HeartbeatData = body(call.body)?;
    let broker = call.door.broker();
    let now = broker.clock.now_ms();
    let client = client(call, &beat.client_id);
    let mut is_changed = beat.heartbeat_fingerprint == 0;
    let mut created = 0;
    for data in beat.consumer_data_set {
        let group = Arc::clone(&data.group_name);
        let Some(number) = beat_consumer(broker, &client, data, beat.without_sub) else { continue };
        created = created.max(number);
        if beat.heartbeat_fingerprint != 0 {
            let fingerprint = beat.heartbeat_fingerprint;
            is_changed |= broker.clients.fingerprint_changed(&group, fingerprint);
        }
    }
    for data in beat.producer_data_set {
        broker.clients.beat_producer(&client, &data.group_name, now);
    }
    let fields = HeartBeatResponse { supports_v2: true, is_sub_change: is_changed };
    Ok(Reply::After(fields, Until::created(created)))
}

/// Steps of spec `client-behaviour.md` 3; which creation is to be waited for. `None`: a group that
/// may not be created is passed over.
fn beat_consumer(
    broker: &Broker,
    client: &Client,
    data: ConsumerData,
    without_sub: bool,
) -> Option<u64> {
    let now = broker.clock.now_ms();
    let config = broker.groups.find_or_create(&data.group_name, now).ok()?;
    let mut created = broker.created.number(&data.group_name);
    if 0 < config.retry_queue_count {
        let retry_topic = names::retry_topic(&data.group_name);
        let unit_mode = data.unit_mode;
        broker.topics.find_or_create(&retry_topic, config.retry_queue_count, unit_mode, now);
        created = created.max(broker.created.number(&retry_topic));
    }
    let notify = broker.settings.notify_consumer_ids_changed_enable
        && config.notify_consumer_ids_changed_enable;
    let beat = GroupBeat {
        group: data.group_name,
        consume_type: data.consume_type,
        message_model: data.message_model,
        consume_from_where: data.consume_from_where,
        subscriptions: (!without_sub).then_some(data.subscription_data_set),
        notify,
    };
    broker.clients.beat_consumer(client, beat, now);
    Some(created)
}

fn client(call: &Call<'_>, client_id: &str) -> Client {
    Client {
        connection: call.peer.connection,
        client_id: client_id.into(),
        address: Arc::clone(&call.peer.address),
        language: call.header.language.0,
        version: call.header.version,
        outlet: Arc::new(PeerOutlet(Arc::clone(call.peer))),
    }
}

/// C++ clients send the other group as an empty text.
fn unregister(call: &mut Call<'_>, request: UnregisterClient) -> Answer<Empty> {
    let broker = call.door.broker();
    let connection = call.peer.connection;
    if let Some(group) = request.producer_group.filter(|it| !it.is_empty()) {
        broker.clients.leave_producer(connection, &group);
    }
    if let Some(group) = request.consumer_group.filter(|it| !it.is_empty()) {
        let config = broker.groups.find(&group);
        let notify = config.is_none_or(|it| it.notify_consumer_ids_changed_enable)
            && broker.settings.notify_consumer_ids_changed_enable;
        broker.clients.leave_consumer(connection, &group, notify);
    }
    Ok(Reply::Now(Empty))
}

fn consumer_ids(call: &mut Call<'_>, request: GetConsumerListByGroup) -> Answer<Empty> {
    let group = &request.consumer_group;
    let ids = call.broker().clients.with_consumer_group(group, |live| {
        live.clients().map(|it| Arc::clone(&it.client_id)).collect::<Vec<_>>()
    });
    let Some(consumer_id_list) = ids else {
        let remark = format!("no consumer for this group, {group}");
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    };
    json_body(Empty, &GetConsumerListByGroupResponseBody { consumer_id_list })
}

fn check_config(call: &mut Call<'_>, _: CheckClientConfig) -> Answer<Empty> {
    let check: CheckClientRequestBody = body(call.body)?;
    if check.subscription_data.is_tag_type() {
        return Ok(Reply::Now(Empty));
    }
    Err(apogee_broker::Error::FilterNotSupported.into())
}

fn consumer_connections(call: &mut Call<'_>, request: GetConsumerConnectionList) -> Answer<Empty> {
    let group = &request.consumer_group;
    let Some(live) = call.broker().clients.consumer_group(group) else {
        let remark = format!("the consumer group[{group}] not online");
        return Err(Refusal::new(ResponseCode::CONSUMER_NOT_ONLINE, remark));
    };
    let subscriptions =
        live.subscriptions.iter().map(|(topic, it)| (Arc::clone(topic), (**it).clone()));
    let connections = ConsumerConnection {
        connection_set: live.clients().map(connection).collect(),
        consume_from_where: live.consume_from_where,
        consume_type: live.consume_type,
        message_model: live.message_model,
        subscription_table: subscriptions.collect(),
    };
    json_body(Empty, &connections)
}

fn producer_connections(call: &mut Call<'_>, request: GetProducerConnectionList) -> Answer<Empty> {
    let group = &request.producer_group;
    let producers = call.broker().clients.producers(group);
    if producers.is_empty() {
        let remark = format!("the producer group[{group}] not exist");
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    }
    let connection_set = producers.iter().map(connection).collect();
    json_body(Empty, &ProducerConnection { connection_set })
}

fn all_producers(call: &mut Call<'_>, _: GetAllProducerInfo) -> Answer<Empty> {
    let info = |(client, heard_at): (Client, i64)| ProducerInfo {
        client_id: Arc::clone(&client.client_id),
        language: language(client.language),
        last_update_timestamp: heard_at,
        // As Java writes an address.
        remote_ip: format!("/{}", client.address),
        version: client.version,
    };
    let data: BTreeMap<_, _> = call
        .broker()
        .clients
        .all_producers()
        .into_iter()
        .map(|(group, clients)| (group, clients.into_iter().map(info).collect()))
        .collect();
    json_body(Empty, &ProducerTableInfo { data })
}

/// The client answers, as it likes; we pass that on.
fn running_info(call: &mut Call<'_>, request: GetConsumerRunningInfo) -> Answer<Empty> {
    let (group, id) = (request.consumer_group, request.client_id);
    let has_id = |it: &&Client| *it.client_id == *id;
    let client = call
        .broker()
        .clients
        .with_consumer_group(&group, |live| live.clients().find(has_id).cloned());
    let Some(client) = client.flatten() else {
        let remark = format!("The Consumer <{group}> <{id}> not online");
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    };
    let head = (!call.header.is_oneway()).then(|| call.head());
    let peer = Arc::clone(call.peer);
    let (asked, of) = (id.clone(), group.clone());
    let done = move |heard| {
        let Some(head) = head else { return };
        let (code, remark, body) = match heard {
            Heard::Answer(body) => (head.code, None, body),
            Heard::Refusal(remark) => (ResponseCode::SYSTEM_ERROR, Some(remark), Vec::new()),
            Heard::Nothing => {
                let remark = format!("consumer <{of}> <{asked}> Timeout: it does not answer");
                (ResponseCode::CONSUME_MSG_TIMEOUT, Some(remark), Vec::new())
            }
        };
        let head = ResponseHead { code, remark: remark.as_deref(), ..head };
        peer.outbox.put(|output| {
            head.write(output, |_| {}, |output| output.bytes.extend_from_slice(&body));
        });
    };
    client.outlet.ask_running_info(&id, &group, request.jstack_enable, Box::new(done));
    Ok(Reply::Later)
}

fn connection(client: &Client) -> Connection {
    Connection {
        client_addr: client.address.to_string(),
        client_id: Arc::clone(&client.client_id),
        language: language(client.language),
        version: client.version,
    }
}

fn language(number: u8) -> String {
    Language(number).name().unwrap_or("OTHER").to_owned()
}
