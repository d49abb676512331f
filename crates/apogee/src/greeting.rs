//! What a server prints when it is ready, and its settings on demand.

use std::io::Write;
use std::path::Path;

use apogee_types::clock::{Clock, SystemClock};
use apogee_types::settings::{
    BrokerSettings, FlushMode, Key, NamesrvSettings, NetSettings, StoreSettings, When,
};
use jiff::Timestamp;
use jiff::tz::offset;

use crate::config::Config;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A broker, with a name server in the same process if `name_server_port` says so.
pub fn broker(config: &Config, addr: &str, name_server_port: Option<u16>) {
    let bind = &config.net.bind_address;
    let BrokerSettings { listen_port, namesrv_addr, broker_name, .. } = &config.broker;
    let fast_port = listen_port.saturating_sub(2);
    let (what, ports) = match name_server_port {
        Some(port) => (
            "name server and broker in one process".into(),
            format!("{bind}:{port}; the broker also on {listen_port} and {fast_port}"),
        ),
        None => (format!("broker {broker_name}"), format!("{bind}:{listen_port} and {fast_port}")),
    };
    let advice = match (name_server_port, namesrv_addr.as_str()) {
        (Some(9876), _) => try_it(""),
        (Some(port), _) => try_it(&format!(" -n localhost:{port}")),
        (None, "") => "apogee broker -n HOST:9876, so that clients find this broker".into(),
        (None, servers) => try_it(&format!(" -n \"{servers}\"")),
    };
    let told = name_server_port.map_or(String::new(), |_| told(&config.broker, addr));
    let mut text = format!(
        "Apogee {VERSION} is ready: {what}\n  listens   {ports}\n  stores    {}\n  \
         promises  {}\n{told}  try       {advice}\n",
        absolute(&config.store.store_path_root_dir),
        promise(config.store.flush_disk_type),
    );
    if name_server_port.is_none() {
        // Scripts wait for this line of Apache RocketMQ.
        let servers = match namesrv_addr.as_str() {
            "" => String::new(),
            servers => format!(" and name server is {servers}"),
        };
        text += &format!(
            "The broker[{broker_name}, {addr}] boot success. serializeType=JSON{servers}\n"
        );
    }
    say(&text);
}

/// Where clients are told to find the broker.
fn told(settings: &BrokerSettings, addr: &str) -> String {
    let to = match (settings.advertised_addresses.is_empty(), settings.broker_ip1.as_str()) {
        (true, "") => "the address that it reached; behind a published port, set \
                       advertisedAddresses"
            .to_owned(),
        (true, _) => format!("{addr} (brokerIP1)"),
        (false, "") => "what advertisedAddresses says, else the address that it reached".to_owned(),
        (false, _) => format!("what advertisedAddresses says, else {addr} (brokerIP1)"),
    };
    format!("  tells     each client {to}\n")
}

fn try_it(target: &str) -> String {
    format!(
        "apogee produce hello{target} \"first light\"\n            \
         apogee consume hello{target} --group me"
    )
}

pub fn name_server(config: &Config) {
    let bind = &config.net.bind_address;
    let NamesrvSettings { listen_port, kv_config_path, .. } = &config.namesrv;
    say(&format!(
        "Apogee {VERSION} is ready: name server\n  listens   {bind}:{listen_port}\n  \
         stores    {}\n  try       apogee broker -n localhost:{listen_port}\n\
         The Name Server boot success. serializeType=JSON, address {bind}:{listen_port}\n",
        absolute(kv_config_path),
    ));
}

/// Prints to whoever still listens: a server outlives the pipe that it was started with.
pub fn say(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

/// What an acknowledgement of a send survives.
fn promise(flush: FlushMode) -> &'static str {
    match flush {
        FlushMode::Async => {
            "an acknowledged message survives the death of this process, not of the machine \
             (flushDiskType=ASYNC_FLUSH)"
        }
        FlushMode::Sync => {
            "an acknowledged message is on the device and survives a loss of power \
             (flushDiskType=SYNC_FLUSH)"
        }
    }
}

fn absolute(path: &str) -> String {
    let path = Path::new(path);
    std::path::absolute(path).unwrap_or(path.into()).display().to_string()
}

/// `-p` and `-m`: one line a setting, as Apache RocketMQ's console log shows it.
pub fn print_settings(rows: &[(&'static Key, String)], only_important: bool) {
    let now = Timestamp::from_millisecond(SystemClock.now_ms()).unwrap_or_default();
    let now = offset(8).to_datetime(now).strftime("%F %T").to_string();
    for (key, value) in rows.iter().filter(|(key, _)| key.important || !only_important) {
        say(&format!("{now} INFO main - {key}={value}\n"));
    }
}

/// The manual's pages of settings.
pub fn print_manual() {
    manual_page("Broker", &BrokerSettings::default());
    manual_page("Store", &StoreSettings::default());
    manual_page("Network", &NetSettings::default());
    manual_page("Name server", &NamesrvSettings::default());
}

fn manual_page(title: &str, table: &dyn apogee_types::settings::Settings) {
    say(&format!(
        "## {title}\n\n| setting | default | range | change counts | meaning |\n\
         |---|---|---|---|---|\n"
    ));
    for (key, default) in table.rows() {
        let when = match key.when {
            When::Live => "at once",
            When::AtRestart => "at restart",
        };
        let range = key.range.map_or(String::new(), |(low, high)| format!("{low} to {high}"));
        say(&format!("| `{key}` | {default} | {range} | {when} | {} |\n", key.doc.trim()));
    }
    say("\n");
}
