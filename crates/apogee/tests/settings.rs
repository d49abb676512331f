//! Numbers of the settings at their bounds, in a server that runs with them.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a real server on a real disk")]

mod server;

use std::process::{Command, Output};
use std::time::Duration;

use apogee_client::PullConsumer;
use apogee_types::settings::{
    BrokerSettings, Key, NamesrvSettings, NetSettings, Range, StoreSettings,
};
use rustix::process::{Pid, Signal, kill_process};
use server::Server;

/// Numbers that say themselves that nothing is served, or that depend on this machine's disk, or
/// that the test gives.
const OTHERS: &[&str] = &[
    "brokerPermission",
    "startAcceptSendRequestTimeStamp",
    "diskMaxUsedSpaceRatio",
    "diskSpaceCleanForciblyRatio",
    "diskSpaceWarningLevelRatio",
    "listenPort",
];

/// Every number at the bound that `pick` takes, as a file.
fn at_bounds(pick: fn(&Key, Range) -> i64) -> String {
    let tables =
        [BrokerSettings::KEYS, StoreSettings::KEYS, NetSettings::KEYS, NamesrvSettings::KEYS];
    let numbers = tables.into_iter().flatten().filter_map(|key| Some((key, key.range?)));
    let numbers = numbers.filter(|(key, _)| !OTHERS.contains(&key.name));
    let lines = numbers.map(|(key, range)| format!("{key}={}\n", pick(key, range)));
    // At no hour: with nothing reserved the messages would be deleted before they are read.
    lines.chain(["deleteWhen=;\n".to_owned()]).collect()
}

/// Messages are stored, found and counted off, the server does not spin, and it stops in order.
fn serves(port: u16, conf: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), port, conf);
    let run = |args: &[&str]| {
        let output = tool(args, &server.addr);
        assert!(output.status.success(), "{args:?}: {output:?}\nwith\n{conf}");
        String::from_utf8(output.stdout).unwrap()
    };
    run(&["produce", "t", "x", "--key", "k", "--count", "100"]);
    let read = run(&["consume", "t", "--group", "g", "--from", "earliest", "--count", "100"]);
    assert_eq!(read, "x\n".repeat(100));
    let before = cpu_ticks(&server);
    std::thread::sleep(Duration::from_secs(1));
    let spent = cpu_ticks(&server) - before;
    assert!(spent < 50, "{spent} hundredths of an idle second\nwith\n{conf}");
    stop(&mut server);
}

fn tool(args: &[&str], addr: &str) -> Output {
    let mut command = Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_apogee")]).args(args);
    command.args(["-n", addr]).output().unwrap()
}

fn stop(server: &mut Server) {
    kill_process(Pid::from_child(&server.child), Signal::TERM).unwrap();
    assert!(server.child.wait().unwrap().success());
}

/// What all threads of the server have used of the processors, in hundredths of a second.
fn cpu_ticks(server: &Server) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.child.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_server_lives_with_the_least_of_every_number() {
    serves(24_201, &at_bounds(|_, (low, _)| low));
}

#[test]
fn a_server_lives_with_the_most_of_every_number() {
    // The slots of an index are written, all of them.
    let most = |key: &Key, (_, high)| if key.name == "maxHashSlotNum" { 1 << 20 } else { high };
    serves(24_221, &at_bounds(most));
}

#[test]
fn a_store_is_opened_with_the_sizes_that_it_was_made_with() {
    let dir = tempfile::tempdir().unwrap();
    let conf = "mappedFileSizeCommitLog=65536\nmappedFileSizeConsumeQueue=400\n";
    let run = |addr: &str, args: &[&str]| {
        let output = tool(args, addr);
        assert!(output.status.success(), "{args:?}: {output:?}");
        output.stdout
    };
    let mut server = Server::start(dir.path(), 24_241, conf);
    run(&server.addr, &["produce", "t", "x"]);
    stop(&mut server);
    let refusal = |conf: &str| {
        std::fs::write(dir.path().join("broker.conf"), conf).unwrap();
        let args = ["5", env!("CARGO_BIN_EXE_apogee"), "--data", "data", "-c", "broker.conf"];
        let output = Command::new("timeout").args(args).current_dir(&dir).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let said = refusal("\nmappedFileSizeCommitLog=131072\n");
    let expected = "broker.conf:2: mappedFileSizeCommitLog = 131072: the files in data/commitlog \
                    are 65536 bytes long";
    assert!(said.contains(expected), "{said}");
    let segment = dir.path().join("data/commitlog/00000000000000000000");
    let whole = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &whole[..40_000]).unwrap();
    let said = refusal("");
    assert!(said.contains("is 40000 bytes long, as if it was cut"), "{said}");
    std::fs::write(&segment, whole).unwrap();
    let server = Server::start(dir.path(), 24_241, "");
    let consume = ["consume", "t", "--group", "g", "--from", "earliest", "--count", "1"];
    assert_eq!(run(&server.addr, &consume), b"x\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_bounds_of_pulls_and_queries_are_those_of_the_settings() {
    for (port, conf, pulled, queried) in [
        (24_261, "", 32, 64),
        (24_281, "maxTransferCountOnMessageInMemory=90\nmaxMsgsNumBatch=80\n", 90, 80),
        (24_301, "maxTransferBytesOnMessageInMemory=1000\n", 4, 64),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path(), port, conf);
        let client = PullConsumer::new(&server.addr, "g").unwrap();
        client.client().create_topic("t", 1).await.unwrap();
        let sent = tool(&["produce", "t", "x", "--key", "k", "--count", "100"], &server.addr);
        assert!(sent.status.success(), "{sent:?}");
        let queue = client.queues("t").await.unwrap().remove(0);
        let found = client.pull(&queue, "*", 0, 100, Duration::from_millis(1)).await.unwrap();
        assert_eq!(found.messages.len(), pulled, "{conf}");
        let found = client.client().query_by_key("t", "k", 100, 0..i64::MAX).await.unwrap();
        assert_eq!(found.len(), queried, "{conf}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_pull_consumer_that_no_heartbeat_announced_can_be_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 24_321, "rejectPullConsumerEnable=true\n");
    let sent = tool(&["produce", "t", "x"], &server.addr);
    assert!(sent.status.success(), "{sent:?}");
    let client = PullConsumer::new(&server.addr, "g").unwrap();
    let queue = client.queues("t").await.unwrap().remove(0);
    let refused = client.pull(&queue, "*", 0, 1, Duration::from_millis(1)).await.unwrap_err();
    assert!(refused.to_string().contains("group info not exist"), "{refused}");
    let consume = ["consume", "t", "--group", "g", "--count", "1"];
    assert_eq!(tool(&consume, &server.addr).stdout, b"x\n");
}
