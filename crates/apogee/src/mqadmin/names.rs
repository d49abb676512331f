//! Commands on name servers: key-value configuration, and who may be written.

use anyhow::bail;
use apogee_control::kv::ORDER_TOPIC_CONFIG;
use apogee_wire::remoting::ResponseCode;
use apogee_wire::remoting::requests::{
    AddWritePermOfBroker, DeleteKvConfig, GetKvConfig, GetNameServerConfig, PutKvConfig,
    WipeWritePermOfBroker,
};
use bytes::Bytes;

use super::print::line;
use super::{Admin, Command, optional, required};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "updateKvConfig",
        help: "Create or update KV config.",
        flags: &[
            required('s', "namespace", "set the namespace"),
            required('k', "key", "set the key name"),
            required('v', "value", "set the key value"),
        ],
        run: |admin| Box::pin(update(admin)),
    },
    Command {
        name: "deleteKvConfig",
        help: "Delete KV config.",
        flags: &[
            required('s', "namespace", "set the namespace"),
            required('k', "key", "set the key name"),
        ],
        run: |admin| Box::pin(delete(admin)),
    },
    Command {
        name: "updateOrderConf",
        help: "Create or update or delete order conf.",
        flags: &[
            required('t', "topic", "topic name"),
            required('m', "method", "option type [eg. put|get|delete"),
            optional('v', "orderConf", "set order conf [eg. brokerName1:num;brokerName2:num]"),
        ],
        run: |admin| Box::pin(order(admin)),
    },
    Command {
        name: "wipeWritePerm",
        help: "Wipe write perm of broker in all name server you defined in the -n param.",
        flags: &[required('b', "brokerName", "broker name")],
        run: |admin| Box::pin(wipe(admin)),
    },
    Command {
        name: "addWritePerm",
        help: "Add write perm of broker in all name server you defined in the -n param.",
        flags: &[required('b', "brokerName", "broker name")],
        run: |admin| Box::pin(add(admin)),
    },
    Command {
        name: "getNamesrvConfig",
        help: "Get configs of name server.",
        flags: &[],
        run: |admin| Box::pin(config(admin)),
    },
];

async fn config(admin: &Admin) -> anyhow::Result<()> {
    for addr in admin.client.name_servers() {
        let request = GetNameServerConfig {};
        let answer = admin.client.call::<GetNameServerConfig>(addr, &request, Bytes::new()).await?;
        line!("============{addr}============");
        super::brokers::show_settings(&answer.body, "");
    }
    Ok(())
}

/// Sets a key at every name server.
pub async fn put(admin: &Admin, namespace: &str, key: &str, value: &str) -> anyhow::Result<()> {
    let (namespace, key, value) = (namespace.to_owned(), key.to_owned(), value.to_owned());
    let request = PutKvConfig { namespace, key, value };
    for addr in admin.client.name_servers() {
        admin.client.call::<PutKvConfig>(addr, &request, Bytes::new()).await?;
    }
    Ok(())
}

pub async fn find(admin: &Admin, namespace: &str, key: &str) -> anyhow::Result<Option<String>> {
    let request = GetKvConfig { namespace: namespace.to_owned(), key: key.to_owned() };
    let answer = admin.client.call_name_server::<GetKvConfig>(&request, Bytes::new()).await?;
    if answer.code == ResponseCode::QUERY_NOT_FOUND {
        return Ok(None);
    }
    Ok(answer.success()?.fields(|it| it.value)?)
}

async fn remove(admin: &Admin, namespace: &str, key: &str) -> anyhow::Result<()> {
    let request = DeleteKvConfig { namespace: namespace.to_owned(), key: key.to_owned() };
    for addr in admin.client.name_servers() {
        admin.client.call::<DeleteKvConfig>(addr, &request, Bytes::new()).await?;
    }
    Ok(())
}

async fn update(admin: &Admin) -> anyhow::Result<()> {
    put(admin, admin.required('s'), admin.required('k'), admin.required('v')).await?;
    line!("create or update kv config to namespace success.");
    Ok(())
}

async fn delete(admin: &Admin) -> anyhow::Result<()> {
    remove(admin, admin.required('s'), admin.required('k')).await?;
    line!("delete kv config from namespace success.");
    Ok(())
}

async fn order(admin: &Admin) -> anyhow::Result<()> {
    let topic = admin.required('t');
    match (admin.required('m'), admin.flag('v').filter(|value| !value.is_empty())) {
        ("get", _) => {
            let Some(conf) = find(admin, ORDER_TOPIC_CONFIG, topic).await? else {
                bail!("No config item, Namespace: {ORDER_TOPIC_CONFIG} Key: {topic}");
            };
            line!("get orderConf success. topic=[{topic}], orderConf=[{conf}] ");
        }
        ("put", Some(conf)) => {
            put(admin, ORDER_TOPIC_CONFIG, topic, conf).await?;
            line!("update orderConf success. topic=[{topic}], orderConf=[{conf}]");
        }
        ("put", None) => bail!("please set orderConf with option -v."),
        ("delete", _) => {
            remove(admin, ORDER_TOPIC_CONFIG, topic).await?;
            line!("delete orderConf success. topic=[{topic}]");
        }
        (method, _) => bail!("-m {method}: must be put, get or delete"),
    }
    Ok(())
}

async fn wipe(admin: &Admin) -> anyhow::Result<()> {
    let broker = admin.required('b');
    let request = WipeWritePermOfBroker { broker_name: broker.to_owned() };
    for addr in admin.client.name_servers() {
        let call = admin.client.call::<WipeWritePermOfBroker>(addr, &request, Bytes::new());
        let count = call.await?.fields(|it| it.topic_count)?;
        line!("wipe write perm of broker[{broker}] in name server[{addr}] OK, {count}");
    }
    Ok(())
}

async fn add(admin: &Admin) -> anyhow::Result<()> {
    let broker = admin.required('b');
    let request = AddWritePermOfBroker { broker_name: broker.to_owned() };
    for addr in admin.client.name_servers() {
        let call = admin.client.call::<AddWritePermOfBroker>(addr, &request, Bytes::new());
        let count = call.await?.fields(|it| it.topic_count)?;
        line!("add write perm of broker[{broker}] in name server[{addr}] OK, {count}");
    }
    Ok(())
}
