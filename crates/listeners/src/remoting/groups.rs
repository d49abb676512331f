//! Configuration of subscription groups: 200, 201, 207, 225, 352.

use apogee_types::config::GroupConfig;
use apogee_types::limits::TOPIC_QUEUES_MAX;
use apogee_types::names;
use apogee_wire::remoting::ResponseCode;
use apogee_wire::remoting::bodies::SubscriptionGroupList;
use apogee_wire::remoting::requests::{
    DeleteGroup, GetAllGroupConfig, GetAllGroupConfigResponse, GetGroupConfig,
    UpdateAndCreateGroup, UpdateAndCreateGroupList,
};
use apogee_wire::remoting::table::Empty;

use super::pending::Until;
use super::router::{Answer, Call, Refusal, Reply, Router, body, json_body};

/// Adds what this file serves.
#[must_use]
pub fn routes(router: Router) -> Router {
    router
        .on::<UpdateAndCreateGroup>(create)
        .on::<UpdateAndCreateGroupList>(create_list)
        .on::<GetAllGroupConfig>(all)
        .on::<DeleteGroup>(delete)
        .on::<GetGroupConfig>(one)
}

fn create(call: &mut Call<'_>, _: UpdateAndCreateGroup) -> Answer<Empty> {
    let config = body(call.body)?;
    put(call, vec![config])
}

fn create_list(call: &mut Call<'_>, _: UpdateAndCreateGroupList) -> Answer<Empty> {
    let list: SubscriptionGroupList = body(call.body)?;
    put(call, list.group_config_list)
}

/// Creates or changes groups, all or none; acknowledged once the file has them.
fn put(call: &Call<'_>, configs: Vec<GroupConfig>) -> Answer<Empty> {
    let broker = call.door.broker();
    let invalid = |remark: String| Refusal::new(ResponseCode::INVALID_PARAMETER, remark);
    for config in &configs {
        let group = &*config.group_name;
        names::check_group(group).map_err(|error| invalid(error.to_string()))?;
        // The retry topic gets as many.
        let count = config.retry_queue_count;
        if TOPIC_QUEUES_MAX < count {
            let remark =
                format!("{count} retry queues of group {group}: at most {TOPIC_QUEUES_MAX}");
            return Err(invalid(remark));
        }
    }
    let now = broker.clock.now_ms();
    let number = configs.into_iter().map(|config| broker.groups.put(config, now)).max();
    Ok(Reply::After(Empty, Until::created(number.unwrap_or(0))))
}

fn all(call: &mut Call<'_>, _: GetAllGroupConfig) -> Answer<GetAllGroupConfigResponse> {
    let table = call.broker().groups.table();
    let total_group_count = Some(table.subscription_group_table.len() as i32);
    json_body(GetAllGroupConfigResponse { total_group_count }, &table)
}

fn delete(call: &mut Call<'_>, request: DeleteGroup) -> Answer<Empty> {
    let broker = call.door.broker();
    let now = broker.clock.now_ms();
    let number = broker.groups.remove(&request.group_name, now);
    if request.clean_offset {
        broker.offsets.remove_group(&request.group_name, now);
    }
    Ok(Reply::After(Empty, Until::created(number)))
}

fn one(call: &mut Call<'_>, request: GetGroupConfig) -> Answer<Empty> {
    let group = request.group;
    let found = call.broker().groups.find(&group);
    let config = found.ok_or(apogee_broker::Error::NoSuchGroup { group })?;
    json_body(Empty, &*config)
}
