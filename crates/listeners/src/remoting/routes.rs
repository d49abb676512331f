//! The name server's requests: 100 to 106, 205, 206, 216, 217, 219, 224, 304, 311 to 313, 319,
//! 322, 327, 901, 904.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use apogee_control::kv::ORDER_TOPIC_CONFIG;
use apogee_control::{Registered, Registration, RouteError, Routes};
use apogee_types::config::DataVersion;
use apogee_types::route::TopicRouteData;
use apogee_types::settings::Settings;
use apogee_wire::remoting::ResponseCode;
use apogee_wire::remoting::bodies::{
    BrokerMemberGroup, GetBrokerMemberGroupResponseBody, KVTable, RegisterBrokerBody, TopicList,
    write_route,
};
use apogee_wire::remoting::requests::{
    AddWritePermOfBroker, AddWritePermResponse, BrokerHeartbeat, DeleteKvConfig,
    DeleteTopicInNameServer, GetAllTopicList, GetBrokerClusterInfo, GetBrokerMemberGroup,
    GetHasUnitSubTopicList, GetHasUnitSubUnunitTopicList, GetKvConfig, GetKvConfigResponse,
    GetKvListByNamespace, GetNameServerConfig, GetRouteInfoByTopic,
    GetSystemTopicListFromNameServer, GetTopicsByCluster, GetUnitTopicList, PutKvConfig,
    QueryDataVersion, QueryDataVersionResponse, RegisterBroker, RegisterBrokerResponse,
    RegisterTopicInNameServer, UnregisterBroker, WipeWritePermOfBroker, WipeWritePermResponse,
};
use apogee_wire::remoting::table::Empty;

use super::router::{Answer, Call, Refusal, Reply, Router, body, json_body};

/// Sys flags of a topic; upstream's `TopicSysFlag`.
const UNIT: i32 = 1;
const UNIT_SUB: i32 = 2;

/// Adds what this file serves.
#[must_use]
pub fn routes(router: Router) -> Router {
    router
        .on::<GetRouteInfoByTopic>(route)
        .on::<GetBrokerClusterInfo>(cluster_info)
        .on::<RegisterBroker>(register)
        .on::<UnregisterBroker>(unregister)
        .on::<QueryDataVersion>(data_version)
        .on::<BrokerHeartbeat>(broker_heartbeat)
        .on::<GetBrokerMemberGroup>(member_group)
        .on::<RegisterTopicInNameServer>(register_topic)
        .on::<DeleteTopicInNameServer>(delete_topic)
        .on::<WipeWritePermOfBroker>(wipe_write_perm)
        .on::<AddWritePermOfBroker>(add_write_perm)
        .on::<GetAllTopicList>(all_topics)
        .on::<GetTopicsByCluster>(topics_of_cluster)
        .on::<GetUnitTopicList>(unit_topics)
        .on::<GetHasUnitSubTopicList>(unit_sub_topics)
        .on::<GetHasUnitSubUnunitTopicList>(unit_sub_ununit_topics)
        .on::<GetSystemTopicListFromNameServer>(system_topics)
        .on::<PutKvConfig>(put_kv)
        .on::<GetKvConfig>(get_kv)
        .on::<DeleteKvConfig>(delete_kv)
        .on::<GetKvListByNamespace>(kv_namespace)
        .on::<GetNameServerConfig>(config)
}

fn route(call: &mut Call<'_>, request: GetRouteInfoByTopic) -> Answer<Empty> {
    let names = call.door.names();
    if !names.is_ready() {
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, "name server not ready"));
    }
    let version = call.header.version;
    let zone = request.zone_name.filter(|zone| request.zone_mode && !zone.trim().is_empty());
    let route = names.route_for(&request.topic, zone.as_deref(), call.peer, version)?;
    let standard_only = request.accept_standard_json_only;
    Ok(Reply::WithBody(Empty, write_route(&route, version, standard_only)))
}

impl From<RouteError> for Refusal {
    fn from(error: RouteError) -> Self {
        let code = match error {
            RouteError::NoRoute { .. } => ResponseCode::TOPIC_NOT_EXIST,
            RouteError::Incomplete => ResponseCode::SYSTEM_ERROR,
        };
        Self::new(code, error.to_string())
    }
}

fn cluster_info(call: &mut Call<'_>, _: GetBrokerClusterInfo) -> Answer<Empty> {
    let names = call.door.names();
    let mut info = names.with_routes(|routes| routes.cluster_info());
    for broker in info.broker_addr_table.values_mut() {
        names.show(broker, call.peer, call.header.version);
    }
    json_body(Empty, &info)
}

fn register(call: &mut Call<'_>, request: RegisterBroker) -> Answer<RegisterBrokerResponse> {
    if request.body_crc32 != 0
        && request.body_crc32 as u32 != apogee_types::record::body_crc(call.body)
    {
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, "crc32 not match"));
    }
    let names = call.door.names();
    let digest = digest(&request, call.header.version, call.body);
    let (addr, channel, now) =
        (request.broker_addr.clone(), call.peer.connection, names.clock.now_ms());
    let renewed = names.with_routes(|routes| routes.renew(&addr, digest, channel, now));
    let registered = match renewed {
        Some(registered) => registered,
        None => {
            let registration = registration(call, request)?;
            names.with_routes(|routes| {
                let registered = routes.register(registration, now)?;
                routes.remember(&addr, digest);
                Ok::<Registered, RouteError>(registered)
            })?
        }
    };
    let fields = RegisterBrokerResponse {
        ha_server_addr: registered.ha_addr.map(|it| it.to_string()),
        master_addr: registered.master_addr.map(|it| it.to_string()),
    };
    let orders = names.with_kv(|kv| kv.namespace(ORDER_TOPIC_CONFIG).cloned());
    match orders.filter(|_| names.settings.return_order_topic_config_to_broker) {
        Some(table) => json_body(fields, &KVTable { table }),
        None => Ok(Reply::Now(fields)),
    }
}

/// Of all that a broker sends to register.
fn digest(request: &RegisterBroker, version: i32, body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    let fields = (
        (&request.broker_name, &request.broker_addr, &request.cluster_name, request.broker_id),
        (&request.ha_server_addr, request.heartbeat_timeout_ms, request.enable_acting_master),
        (request.compressed, &request.zone_name, version),
    );
    fields.hash(&mut hasher);
    body.hash(&mut hasher);
    hasher.finish()
}

fn registration(call: &Call<'_>, request: RegisterBroker) -> Result<Registration, Refusal> {
    let version = call.header.version;
    let read = RegisterBrokerBody::read(call.body, request.compressed, version);
    let body = read.map_err(|error| Refusal::new(ResponseCode::SYSTEM_ERROR, error.to_string()))?;
    let wrapper = body.topic_config_serialize_wrapper;
    Ok(Registration {
        cluster: request.cluster_name.into(),
        broker_name: request.broker_name.into(),
        broker_id: request.broker_id,
        addr: request.broker_addr.into(),
        ha_addr: request.ha_server_addr.unwrap_or_default().into(),
        version: wrapper.data_version,
        topics: Some(wrapper.topic_config_table),
        timeout_ms: request.heartbeat_timeout_ms,
        enable_acting_master: request.enable_acting_master.unwrap_or(false),
        zone_name: request.zone_name.map(Arc::from),
        channel: call.peer.connection,
    })
}

fn unregister(call: &mut Call<'_>, request: UnregisterBroker) -> Answer<Empty> {
    call.door.names().with_routes(|routes| routes.unregister(&request.broker_addr));
    Ok(Reply::Now(Empty))
}

fn data_version(
    call: &mut Call<'_>,
    request: QueryDataVersion,
) -> Answer<QueryDataVersionResponse> {
    let asked: DataVersion = body(call.body)?;
    let names = call.door.names();
    let (channel, now) = (call.peer.connection, names.clock.now_ms());
    match names.with_routes(|routes| routes.touch(&request.broker_addr, channel, now)) {
        Some(known) => json_body(QueryDataVersionResponse { changed: known != asked }, &known),
        None => Ok(Reply::Now(QueryDataVersionResponse { changed: true })),
    }
}

fn broker_heartbeat(call: &mut Call<'_>, request: BrokerHeartbeat) -> Answer<Empty> {
    let names = call.door.names();
    let (channel, now) = (call.peer.connection, names.clock.now_ms());
    names.with_routes(|routes| routes.touch(&request.broker_addr, channel, now));
    Ok(Reply::Now(Empty))
}

fn member_group(call: &mut Call<'_>, request: GetBrokerMemberGroup) -> Answer<Empty> {
    let names = call.door.names();
    let found = names.with_routes(|routes| routes.broker(&request.broker_name).cloned());
    let mut broker = found.unwrap_or_default();
    names.show(&mut broker, call.peer, call.header.version);
    let broker_member_group = BrokerMemberGroup {
        broker_addrs: broker.broker_addrs,
        broker_name: request.broker_name.into(),
        cluster: request.cluster_name.into(),
    };
    json_body(Empty, &GetBrokerMemberGroupResponseBody { broker_member_group })
}

fn register_topic(call: &mut Call<'_>, request: RegisterTopicInNameServer) -> Answer<Empty> {
    let route: TopicRouteData = body(call.body)?;
    call.door.names().with_routes(|routes| routes.put_topic(&request.topic, route.queue_datas));
    Ok(Reply::Now(Empty))
}

fn delete_topic(call: &mut Call<'_>, request: DeleteTopicInNameServer) -> Answer<Empty> {
    let cluster = request.cluster_name.filter(|it| !it.is_empty());
    let names = call.door.names();
    names.with_routes(|routes| routes.delete_topic(&request.topic, cluster.as_deref()));
    Ok(Reply::Now(Empty))
}

fn wipe_write_perm(
    call: &mut Call<'_>,
    request: WipeWritePermOfBroker,
) -> Answer<WipeWritePermResponse> {
    let names = call.door.names();
    let count = names.with_routes(|routes| routes.wipe_write_perm(&request.broker_name));
    Ok(Reply::Now(WipeWritePermResponse { topic_count: count as i32 }))
}

fn add_write_perm(
    call: &mut Call<'_>,
    request: AddWritePermOfBroker,
) -> Answer<AddWritePermResponse> {
    let names = call.door.names();
    let count = names.with_routes(|routes| routes.add_write_perm(&request.broker_name));
    Ok(Reply::Now(AddWritePermResponse { topic_count: count as i32 }))
}

fn all_topics(call: &mut Call<'_>, _: GetAllTopicList) -> Answer<Empty> {
    let names = call.door.names();
    if !names.settings.enable_all_topic_list {
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, "disable"));
    }
    topic_list(names.with_routes(|routes| routes.topics()), None)
}

fn topics_of_cluster(call: &mut Call<'_>, request: GetTopicsByCluster) -> Answer<Empty> {
    listed(call, |routes| routes.topics_of_cluster(&request.cluster))
}

fn unit_topics(call: &mut Call<'_>, _: GetUnitTopicList) -> Answer<Empty> {
    listed(call, |routes| routes.topics_by_flag(|flag| flag & UNIT != 0))
}

fn unit_sub_topics(call: &mut Call<'_>, _: GetHasUnitSubTopicList) -> Answer<Empty> {
    listed(call, |routes| routes.topics_by_flag(|flag| flag & UNIT_SUB != 0))
}

fn unit_sub_ununit_topics(call: &mut Call<'_>, _: GetHasUnitSubUnunitTopicList) -> Answer<Empty> {
    listed(call, |routes| routes.topics_by_flag(|flag| flag & (UNIT | UNIT_SUB) == UNIT_SUB))
}

/// A list of topics, if `enableTopicList` allows.
fn listed(call: &Call<'_>, list: impl FnOnce(&Routes) -> Vec<Arc<str>>) -> Answer<Empty> {
    let names = call.door.names();
    if !names.settings.enable_topic_list {
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, "disable"));
    }
    topic_list(names.with_routes(|routes| list(routes)), None)
}

/// The names of clusters and brokers: each is a topic too.
fn system_topics(call: &mut Call<'_>, _: GetSystemTopicListFromNameServer) -> Answer<Empty> {
    let info = call.door.names().with_routes(|routes| routes.cluster_info());
    let mut topics: Vec<Arc<str>> = info.cluster_addr_table.keys().cloned().collect();
    topics.extend(info.broker_addr_table.keys().cloned());
    let addr = info.broker_addr_table.values().find_map(|it| it.broker_addrs.values().next());
    topic_list(topics, addr.cloned())
}

fn topic_list(topic_list: Vec<Arc<str>>, broker_addr: Option<Arc<str>>) -> Answer<Empty> {
    json_body(Empty, &TopicList { broker_addr, topic_list })
}

fn put_kv(call: &mut Call<'_>, request: PutKvConfig) -> Answer<Empty> {
    let PutKvConfig { namespace, key, value } = &request;
    let changed = call.door.names().change_kv(|kv| kv.put(namespace, key, value));
    changed.map_err(|error| Refusal::new(ResponseCode::SYSTEM_ERROR, error))?;
    if namespace == ORDER_TOPIC_CONFIG {
        // The broker of this process is told with its registration.
        call.door.topics_changed();
    }
    Ok(Reply::Now(Empty))
}

fn get_kv(call: &mut Call<'_>, request: GetKvConfig) -> Answer<GetKvConfigResponse> {
    let GetKvConfig { namespace, key } = &request;
    let found = call.door.names().with_kv(|kv| kv.find(namespace, key).map(str::to_owned));
    let value = found.ok_or_else(|| {
        let remark = format!("No config item, Namespace: {namespace} Key: {key}");
        Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark)
    })?;
    Ok(Reply::Now(GetKvConfigResponse { value: Some(value) }))
}

fn delete_kv(call: &mut Call<'_>, request: DeleteKvConfig) -> Answer<Empty> {
    let changed = call.door.names().change_kv(|kv| kv.remove(&request.namespace, &request.key));
    changed.map_err(|error| Refusal::new(ResponseCode::SYSTEM_ERROR, error))?;
    Ok(Reply::Now(Empty))
}

fn kv_namespace(call: &mut Call<'_>, request: GetKvListByNamespace) -> Answer<Empty> {
    let namespace = &request.namespace;
    let found = call.door.names().with_kv(|kv| kv.namespace(namespace).cloned());
    let table = found.ok_or_else(|| {
        let remark = format!("No config item, Namespace: {namespace}");
        Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark)
    })?;
    json_body(Empty, &KVTable { table })
}

fn config(call: &mut Call<'_>, _: GetNameServerConfig) -> Answer<Empty> {
    let rows = call.door.names().settings.rows();
    let text: String = rows.into_iter().map(|(key, value)| format!("{key}={value}\n")).collect();
    Ok(Reply::WithBody(Empty, text.into_bytes()))
}
