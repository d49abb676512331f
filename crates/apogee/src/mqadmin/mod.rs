//! `apogee mqadmin`: the operator's command line of Apache RocketMQ, with its names, flags and
//! output.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::{Context, bail};
use apogee_client::{Client, Options};
use apogee_store::{Disk, RealDisk};
use apogee_types::route::{BrokerData, ClusterInfo};

use crate::greeting::say;
use crate::produce::name_servers;

mod brokers;
mod export;
mod groups;
mod latency;
mod messages;
mod names;
mod print;
mod running;
mod stats;
mod topics;

/// A command: everything about it stands in one place, beside its function.
struct Command {
    name: &'static str,
    help: &'static str,
    flags: &'static [Flag],
    run: for<'a> fn(&'a Admin) -> Running<'a>,
}

type Running<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

struct Flag {
    short: char,
    long: &'static str,
    help: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// With a value, and must be there.
    Required,
    /// With a value.
    Optional,
    Switch,
}

const fn required(short: char, long: &'static str, help: &'static str) -> Flag {
    Flag { short, long, help, kind: Kind::Required }
}

const fn optional(short: char, long: &'static str, help: &'static str) -> Flag {
    Flag { short, long, help, kind: Kind::Optional }
}

const fn switch(short: char, long: &'static str, help: &'static str) -> Flag {
    Flag { short, long, help, kind: Kind::Switch }
}

/// What every command understands.
const COMMON: [Flag; 2] = [
    switch('h', "help", "Print help"),
    optional(
        'n',
        "namesrvAddr",
        "Name server address list, eg: '192.168.0.1:9876;192.168.0.2:9876'",
    ),
];

/// Commands of upstream that are not there yet.
const LATER: &str = "addBroker checkRocksdbCqWriteProgress cleanBrokerMetadata copyAcl \
    copyUser createAcl createUser deleteAcl deleteUser dumpCompactionLog electMaster \
    exportMetadataInRocksDB exportPopRecord getAcl getBrokerEpoch getBrokerLiteInfo \
    getColdDataFlowCtrInfo getControllerConfig getControllerMetaData getLiteClientInfo \
    getLiteGroupInfo getLiteTopicInfo getParentTopicInfo getSyncStateSet getUser listAcl \
    listUser queryMsgTraceById remappingStaticTopic removeBroker \
    removeColdDataFlowCtrGroupConfig resetMasterFlushOffset rocksDBConfigToJson \
    setCommitLogReadAheadMode setConsumeMode startMonitoring switchTimerEngine \
    triggerLiteDispatch updateAcl updateBrokerConfig updateColdDataFlowCtrGroupConfig \
    updateControllerConfig updateNamesrvConfig updateStaticTopic updateUser";

fn commands() -> impl Iterator<Item = &'static Command> {
    let families = [
        topics::COMMANDS,
        groups::COMMANDS,
        brokers::COMMANDS,
        messages::COMMANDS,
        latency::COMMANDS,
        names::COMMANDS,
        stats::COMMANDS,
        export::COMMANDS,
        running::COMMANDS,
    ];
    families.into_iter().flatten()
}

/// As upstream's, names are found in any case.
fn find(name: &str) -> Option<&'static Command> {
    commands().find(|command| command.name.eq_ignore_ascii_case(name))
}

/// Runs the command that `args` name; the exit code.
pub fn main(args: &[String]) -> i32 {
    let unknown = |name: &str| {
        if LATER.split(' ').any(|later| later.eq_ignore_ascii_case(name)) {
            eprintln!("mqadmin {name}: Apogee does not have this command yet");
            return 1;
        }
        say(&format!("The sub command {name} not exist.\n"));
        0
    };
    match args {
        [] => say(&overview()),
        [help] if help == "help" => say(&overview()),
        [help, name, ..] if help == "help" => match find(name) {
            Some(command) => say(&usage(command)),
            None => return unknown(name),
        },
        [name, rest @ ..] => match find(name) {
            Some(command) => return start(command, rest),
            None => return unknown(name),
        },
    }
    0
}

fn start(command: &Command, args: &[String]) -> i32 {
    let flags = match parse(command, args) {
        Ok(flags) if flags.contains_key(&'h') => {
            say(&usage(command));
            return 0;
        }
        Ok(flags) => flags,
        Err(complaint) => {
            eprintln!("{complaint}");
            say(&usage(command));
            return 1;
        }
    };
    let run = async {
        let client = Client::new(Options::new(&name_servers(flags.get(&'n').cloned())));
        (command.run)(&Admin { client, flags }).await
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.context("cannot start").and_then(|runtime| runtime.block_on(run));
    let Err(error) = result else { return 0 };
    eprintln!("mqadmin {}: {error:#}", command.name);
    1
}

/// The flags by their short names; `-t x`, `-tx`, `--topic x` and `--topic=x` are the same.
fn parse(command: &Command, args: &[String]) -> Result<BTreeMap<char, String>, String> {
    let known = || command.flags.iter().chain(&COMMON);
    let mut flags = BTreeMap::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let unknown = || format!("Unrecognized option: {arg}");
        let (flag, inline) = if let Some(long) = arg.strip_prefix("--") {
            let (long, inline) = long.split_once('=').map_or((long, None), |(l, v)| (l, Some(v)));
            (known().find(|flag| flag.long == long).ok_or_else(unknown)?, inline)
        } else {
            let mut rest = arg.strip_prefix('-').ok_or_else(unknown)?.chars();
            let short = rest.next();
            let flag = known().find(|flag| Some(flag.short) == short).ok_or_else(unknown)?;
            (flag, Some(rest.as_str()).filter(|rest| !rest.is_empty()))
        };
        let missing = || format!("Missing argument for option: {}", flag.short);
        let value = match (flag.kind, inline) {
            (Kind::Switch, None) => String::new(),
            (Kind::Switch, Some(_)) => return Err(unknown()),
            (_, Some(inline)) => inline.to_owned(),
            (_, None) => args.next().ok_or_else(missing)?.clone(),
        };
        flags.insert(flag.short, value.trim().to_owned());
    }
    let lacks = |flag: &&Flag| flag.kind == Kind::Required && !flags.contains_key(&flag.short);
    let missing: Vec<_> = command.flags.iter().filter(lacks).map(|it| it.short.into()).collect();
    if missing.is_empty() || flags.contains_key(&'h') {
        return Ok(flags);
    }
    let missing: Vec<String> = missing;
    Err(format!("Missing required option: {}", missing.join(", ")))
}

fn overview() -> String {
    let mut text = "The most commonly used mqadmin commands are:\n".to_owned();
    for command in commands() {
        let _ = writeln!(text, "   {:<20} {}", command.name, command.help);
    }
    text + "\nSee 'mqadmin help <command>' for more information on a specific command.\n"
}

fn usage(command: &Command) -> String {
    let mut flags: Vec<&Flag> = command.flags.iter().chain(&COMMON).collect();
    flags.sort_by_key(|flag| (flag.short.to_ascii_lowercase(), flag.short));
    let mut text = format!("usage: mqadmin {}", command.name);
    for flag in &flags {
        let _ = match flag.kind {
            Kind::Required => write!(text, " -{} <arg>", flag.short),
            Kind::Optional => write!(text, " [-{} <arg>]", flag.short),
            Kind::Switch => write!(text, " [-{}]", flag.short),
        };
    }
    text.push('\n');
    let name = |flag: &Flag| {
        let value = if flag.kind == Kind::Switch { "" } else { " <arg>" };
        format!("-{},--{}{value}", flag.short, flag.long)
    };
    let width = flags.iter().map(|flag| name(flag).len()).max().unwrap_or(0);
    for flag in flags {
        let _ = writeln!(text, " {:<width$}   {}", name(flag), flag.help);
    }
    text
}

/// What a command works with.
struct Admin {
    client: Client,
    flags: BTreeMap<char, String>,
}

/// A set of brokers that has a master.
struct Master {
    addr: Arc<str>,
    name: Arc<str>,
}

impl Admin {
    fn flag(&self, short: char) -> Option<&str> {
        self.flags.get(&short).map(String::as_str)
    }

    /// The value of a flag that the table says is required.
    fn required(&self, short: char) -> &str {
        self.flag(short).expect("a required flag: parse has looked")
    }

    fn is_set(&self, short: char) -> bool {
        self.flags.contains_key(&short)
    }

    fn number<N: std::str::FromStr>(&self, short: char) -> anyhow::Result<Option<N>> {
        let read = |text: &str| text.parse().ok().with_context(|| format!("-{short} {text}"));
        self.flag(short).map(read).transpose()
    }

    /// As Java reads it: `true` in any case, all else is false.
    fn truth(&self, short: char) -> Option<bool> {
        self.flag(short).map(|text| text.eq_ignore_ascii_case("true"))
    }

    /// What is in the file of a required flag.
    fn file(&self, short: char) -> anyhow::Result<Vec<u8>> {
        let path = self.required(short);
        let bytes = RealDisk.read(Path::new(path)).with_context(|| path.to_owned())?;
        bytes.with_context(|| format!("the file path {path} does not exists"))
    }

    /// The masters that `-b` or `-c` name.
    async fn targets(&self) -> anyhow::Result<Vec<Master>> {
        let info = self.client.cluster_info().await?;
        if let Some(addr) = self.flag('b') {
            let has = |broker: &&BrokerData| broker.broker_addrs.values().any(|it| **it == *addr);
            let found = info.broker_addr_table.values().find(has);
            let name = found.map_or_else(|| "".into(), |broker| Arc::clone(&broker.broker_name));
            return Ok(vec![Master { addr: addr.into(), name }]);
        }
        match self.flag('c') {
            Some(cluster) => masters(&info, cluster),
            None => bail!("give a broker with -b or a cluster with -c"),
        }
    }
}

/// Masters of a cluster; an error if there is no such cluster.
fn masters(info: &ClusterInfo, cluster: &str) -> anyhow::Result<Vec<Master>> {
    let names = info.cluster_addr_table.get(cluster);
    let names = names.with_context(|| format!("cluster [{cluster}] not exist"))?;
    let brokers = names.iter().filter_map(|name| info.broker_addr_table.get(name));
    let master = |broker: &BrokerData| {
        let name = Arc::clone(&broker.broker_name);
        Some(Master { addr: Arc::clone(broker.master()?), name })
    };
    Ok(brokers.filter_map(master).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn every_form_of_a_flag_is_understood() {
        let command = find("TOPICSTATUS").unwrap();
        for text in ["-t T", "-tT", "--topic T", "--topic=T"] {
            assert_eq!(parse(command, &args(text)).unwrap()[&'t'], "T", "{text}");
        }
        for (text, complaint) in [
            ("", "Missing required option: t"),
            ("-t", "Missing argument for option: t"),
            ("-z", "Unrecognized option: -z"),
            ("-t T x", "Unrecognized option: x"),
        ] {
            assert_eq!(parse(command, &args(text)).unwrap_err(), complaint);
        }
        assert!(parse(command, &args("-h")).is_ok());
    }

    #[test]
    fn no_name_and_no_flag_of_a_command_is_there_twice() {
        let mut names = std::collections::BTreeSet::new();
        for later in LATER.split(' ') {
            assert!(names.insert(later.to_lowercase()), "{later}");
        }
        for command in commands() {
            assert!(names.insert(command.name.to_lowercase()), "{}", command.name);
            let flags = || command.flags.iter().chain(&COMMON);
            let shorts: std::collections::BTreeSet<_> = flags().map(|flag| flag.short).collect();
            assert_eq!(shorts.len(), flags().count(), "{}", command.name);
        }
    }
}
