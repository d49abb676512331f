//! Configuration of topics: 17, 18, 21, 215, 305, 351.

use std::collections::BTreeMap;

use apogee_broker::{Broker, attributes};
use apogee_types::config::{Perm, TopicConfig};
use apogee_types::limits::TOPIC_QUEUES_MAX;
use apogee_types::names;
use apogee_wire::remoting::ResponseCode;
use apogee_wire::remoting::bodies::{
    CreateTopicListRequestBody, TopicConfigAndMappingSerializeWrapper, TopicList,
};
use apogee_wire::remoting::requests::{
    DeleteTopicInBroker, GetAllTopicConfig, GetAllTopicConfigResponse,
    GetSystemTopicListFromBroker, GetTopicConfig, UpdateAndCreateTopic, UpdateAndCreateTopicList,
};
use apogee_wire::remoting::table::Empty;

use super::pending::Until;
use super::router::{Answer, Call, Refusal, Reply, Router, body, json_body};

/// Adds what this file serves.
#[must_use]
pub fn routes(router: Router) -> Router {
    router
        .on::<UpdateAndCreateTopic>(create)
        .on::<UpdateAndCreateTopicList>(create_list)
        .on::<DeleteTopicInBroker>(delete)
        .on::<GetAllTopicConfig>(all)
        .on::<GetTopicConfig>(one)
        .on::<GetSystemTopicListFromBroker>(system)
}

fn create(call: &mut Call<'_>, request: UpdateAndCreateTopic) -> Answer<Empty> {
    let attributes = parse_attributes(&request.attributes.unwrap_or_default())?;
    put(
        call,
        vec![TopicConfig {
            attributes,
            order: request.order,
            perm: Perm(request.perm),
            read_queue_count: request.read_queue_count,
            topic_filter_type: request.topic_filter_type.unwrap_or_else(|| "SINGLE_TAG".to_owned()),
            topic_name: request.topic.into(),
            topic_sys_flag: request.topic_sys_flag.unwrap_or(0),
            write_queue_count: request.write_queue_count,
        }],
    )
}

fn create_list(call: &mut Call<'_>, _: UpdateAndCreateTopicList) -> Answer<Empty> {
    let request: CreateTopicListRequestBody = body(call.body)?;
    put(call, request.topic_config_list)
}

/// Creates or changes topics, all or none; acknowledged once the file has them.
fn put(call: &Call<'_>, mut configs: Vec<TopicConfig>) -> Answer<Empty> {
    let broker = call.door.broker();
    for config in &mut configs {
        check(broker, config)?;
        let known = broker.topics.find(&config.topic_name);
        let known = known.as_ref().map(|known| &known.attributes);
        config.attributes = attributes::change(known, &config.attributes)?;
    }
    let now = broker.clock.now_ms();
    let number = configs.into_iter().map(|config| broker.topics.put(config, now)).max();
    call.door.topics_changed();
    Ok(Reply::After(Empty, Until::created(number.unwrap_or(0))))
}

fn check(broker: &Broker, config: &TopicConfig) -> Result<(), Refusal> {
    let topic = &*config.topic_name;
    let invalid = |remark: String| Refusal::new(ResponseCode::INVALID_PARAMETER, remark);
    names::check_topic(topic).map_err(|error| invalid(error.to_string()))?;
    if broker.is_system_topic(topic) {
        return Err(conflict(topic));
    }
    for count in [config.read_queue_count, config.write_queue_count] {
        if !(0..=TOPIC_QUEUES_MAX).contains(&count) {
            let remark =
                format!("topic[{topic}] cannot have {count} queues: 0 to {TOPIC_QUEUES_MAX}");
            return Err(invalid(remark));
        }
    }
    Ok(())
}

fn conflict(topic: &str) -> Refusal {
    let remark = format!("The topic[{topic}] is conflict with system topic.");
    Refusal::new(ResponseCode::INVALID_PARAMETER, remark)
}

/// `+key=value,-key`, with the signs as part of the keys.
fn parse_attributes(text: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let refused = |part: &str| {
        let remark = format!("attribute `{part}` is neither +key=value nor -key");
        Refusal::new(ResponseCode::SYSTEM_ERROR, remark)
    };
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| match part.split_once('=') {
            Some((key, value)) if key.starts_with('+') => Ok((key.to_owned(), value.to_owned())),
            None if part.starts_with('-') => Ok((part.to_owned(), String::new())),
            _ => Err(refused(part)),
        })
        .collect()
}

fn delete(call: &mut Call<'_>, request: DeleteTopicInBroker) -> Answer<Empty> {
    let topic = request.topic.trim();
    if topic.is_empty() {
        let remark = "The specified topic is blank.";
        return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark));
    }
    if call.broker().is_system_topic(topic) {
        return Err(conflict(topic));
    }
    let number = call.broker().delete_topic(topic)?;
    call.door.topics_changed();
    Ok(Reply::After(Empty, Until::created(number)))
}

fn all(call: &mut Call<'_>, _: GetAllTopicConfig) -> Answer<GetAllTopicConfigResponse> {
    let table = call.broker().topics.table();
    let total_topic_count = Some(table.topic_config_table.len() as i32);
    let wrapper = TopicConfigAndMappingSerializeWrapper {
        data_version: table.data_version,
        topic_config_table: table.topic_config_table,
        ..Default::default()
    };
    json_body(GetAllTopicConfigResponse { total_topic_count }, &wrapper)
}

fn one(call: &mut Call<'_>, request: GetTopicConfig) -> Answer<Empty> {
    let config = call.broker().topics.expect(&request.topic)?;
    json_body(Empty, &*config)
}

fn system(call: &mut Call<'_>, _: GetSystemTopicListFromBroker) -> Answer<Empty> {
    let topic_list = call.broker().system_topics();
    json_body(Empty, &TopicList { topic_list, broker_addr: None })
}
