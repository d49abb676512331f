//! `apogee store` as an operator meets it: exit codes, output, and what it leaves alone.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "files are its input")]

mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use apogee_client::{Message, Producer, PullConsumer};
use apogee_types::route::MessageQueue;
use serde_json::Value;
use server::Server;

const CONF: &str = "mappedFileSizeCommitLog=65536\nmappedFileSizeConsumeQueue=400\n\
                    maxHashSlotNum=100\nmaxIndexNum=400\nbrokerName=b\n";
const COUNT: usize = 300;

/// `apogee store` with these words, and the store of `dir`.
fn store(dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_apogee"));
    command.args(["store", words[0]]).arg(dir.join("data")).args(&words[1..]);
    command.stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// What the check finds, as JSON, and its exit code.
fn verified(dir: &Path) -> (Option<i32>, Value) {
    let (code, out, err) = said(&store(dir, &["verify", "--json"]));
    (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}")))
}

fn kinds(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|it| it["kind"].as_str().unwrap()).collect()
}

fn dumped(dir: &Path, words: &[&str]) -> Vec<Value> {
    let words: Vec<_> = ["dump", "--json"].iter().chain(words).copied().collect();
    let (code, out, err) = said(&store(dir, &words));
    assert_eq!(code, Some(0), "{err}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Sends to two queues, then stops the server in order.
async fn fill(dir: &Path, port: u16) {
    let mut server = Server::start(dir, port, CONF);
    let client = PullConsumer::new(&server.addr, "g").unwrap();
    client.client().create_topic("t", 2).await.unwrap();
    let producer = Producer::builder(&server.addr).group("p").start().await.unwrap();
    for number in 0..COUNT {
        let message = Message::new("t", format!("body {number}")).tag("x");
        let queue = MessageQueue::new("t", "b", (number % 2) as i32);
        producer.send_to(message.key(&format!("k{number}")), &queue).await.unwrap();
    }
    let big = Message::new("t", "long ".repeat(2000)).key("big");
    producer.send_to(big, &MessageQueue::new("t", "b", 0)).await.unwrap();
    producer.shutdown().await;
    stop(&mut server);
}

/// Sets the store time of the record at a place of the log.
fn set_stored(dir: &Path, at: u64, ms: i64) {
    use std::os::unix::fs::FileExt;
    let path = dir.join(format!("data/commitlog/{:020}", at - at % 65536));
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&ms.to_be_bytes(), at % 65536 + 56).unwrap();
}

fn stop(server: &mut Server) {
    let pid = rustix::process::Pid::from_child(&server.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(server.child.wait().unwrap().success());
}

fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = dir.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> =
        paths.map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_store_is_checked_repaired_and_served_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fill(dir, 23_901).await;
    let (code, report) = verified(dir);
    assert_eq!((code, kinds(&report)), (Some(0), vec![]), "{report:#}");
    assert_eq!((&report["sound"], &report["queues"]), (&true.into(), &2.into()));
    assert_eq!(report["messages"], COUNT + 1);
    let (code, out, _) = said(&store(dir, &["verify"]));
    assert!(code == Some(0) && out.ends_with("\nsound\n"), "{out}");

    let queue = dir.join("data/consumequeue/t/1");
    std::fs::remove_file(queue.join("00000000000000000000")).unwrap();
    let (code, report) = verified(dir);
    assert_eq!((code, kinds(&report)), (Some(1), vec!["unit-missing"]), "{report:#}");
    let (code, out, _) = said(&store(dir, &["verify"]));
    assert!(code == Some(1) && out.contains("NOT SOUND") && out.contains("repair"), "{out}");

    let log = files(&dir.join("data/commitlog"));
    let (code, out, err) = said(&store(dir, &["repair"]));
    assert!(code == Some(1) && err.contains("--yes"), "{err}");
    assert!(out.contains("unit-missing") && out.contains("renamed to consumequeue.bak-"), "{out}");
    assert_eq!(verified(dir).0, Some(1), "nothing was done");
    let (code, out, err) = said(&store(dir, &["repair", "--yes"]));
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("rm -r"), "{out}");
    assert!(files(&dir.join("data/commitlog")) == log, "the commit log has changed");
    let (code, report) = verified(dir);
    assert_eq!((code, kinds(&report)), (Some(0), vec![]), "{report:#}");

    let mut server = Server::start(dir, 23_921, CONF);
    let client = PullConsumer::new(&server.addr, "g").unwrap();
    for id in 0..2 {
        let queue = MessageQueue::new("t", "b", id);
        let pulled = client.pull(&queue, "x", 0, 32, Duration::from_millis(1)).await.unwrap();
        let texts: Vec<_> = pulled.messages.iter().map(|it| it.body.to_vec()).collect();
        assert_eq!(texts[0], format!("body {id}").into_bytes());
        assert_eq!(client.client().max_offset(&queue).await.unwrap(), [151, 150][id as usize]);
    }
    let (code, _, err) = said(&store(dir, &["verify"]));
    assert!(code == Some(1) && err.contains("a broker runs on"), "{err}");
    let (code, _, err) = said(&store(dir, &["repair", "--yes"]));
    assert!(code == Some(1) && err.contains("a broker runs on"), "{err}");
    let (code, out, _) = said(&store(dir, &["verify", "--live"]));
    assert!(code == Some(0) && out.contains("in-use"), "{out}");
    let (code, out, err) = said(&store(dir, &["dump", "--limit", "1"]));
    assert!(code == Some(0) && out.lines().count() == 1 && err.contains("a broker runs"), "{err}");
    stop(&mut server);
    let (code, report) = verified(dir);
    assert_eq!((code, kinds(&report)), (Some(0), vec![]), "{report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn messages_are_printed_as_they_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fill(dir, 23_941).await;
    let all = dumped(dir, &["--body"]);
    assert_eq!(all.len(), COUNT + 1);
    assert!(all.iter().all(|it| it["bodyIsSound"] == true && it["topic"] == "t"));
    assert_eq!((&all[7]["body"], &all[7]["queue"]), (&"body 7".into(), &1.into()));
    // The client compresses long ones.
    assert_eq!(all[COUNT]["body"], "long ".repeat(2000));
    assert!(all[COUNT]["bodyLength"].as_u64().unwrap() < 1000);
    let offsets = |words: &[&str]| -> Vec<u64> {
        dumped(dir, words).iter().map(|it| it["offset"].as_u64().unwrap()).collect()
    };
    let of_queue = ["--topic", "t", "--queue", "1"];
    let with = |more: &[&'static str]| -> Vec<&str> { [&of_queue, more].concat() };
    assert_eq!(offsets(&of_queue), (0..150).collect::<Vec<_>>());
    assert_eq!(offsets(&with(&["--offset", "5"])), [5]);
    assert_eq!(offsets(&with(&["--offset", "5..8"])), [5, 6, 7]);
    assert_eq!(offsets(&with(&["--offset", "148.."])), [148, 149]);
    assert_eq!(offsets(&with(&["--limit", "2"])), [0, 1]);
    let found = dumped(dir, &["--key", "k77"]);
    assert_eq!((found.len(), &found[0]["offset"]), (1, &38.into()));
    let time = all[200]["stored"].as_i64().unwrap();
    for words in [&[][..], &of_queue] {
        let time = time.to_string();
        let later = dumped(dir, &[words, &["--from", &time]].concat());
        let earlier = dumped(dir, &[words, &["--to", &time]].concat());
        assert_eq!(later.len() + earlier.len(), if words.is_empty() { COUNT + 1 } else { 150 });
        assert!(later.iter().all(|it| all[200]["stored"].as_i64() <= it["stored"].as_i64()));
        assert!(!later.is_empty() && !earlier.is_empty());
    }
    // As where a clock was set back: a message before those that are wanted was stored later.
    let (at, ahead_ms) = (all[100]["logOffset"].as_u64().unwrap(), time + 1_800_000);
    set_stored(dir, at, ahead_ms);
    let earlier = dumped(dir, &["--to", &(time + 1).to_string()]);
    let is_wanted = |it: &&Value| it["stored"].as_i64() <= Some(time) && it["logOffset"] != at;
    let wanted: Vec<_> = all.iter().filter(is_wanted).map(|it| &it["logOffset"]).collect();
    assert_eq!(earlier.iter().map(|it| &it["logOffset"]).collect::<Vec<_>>(), wanted);
    // Without the queue the log tells the same.
    let before = offsets(&with(&["--offset", "5..8"]));
    std::fs::remove_dir_all(dir.join("data/consumequeue")).unwrap();
    let (code, out, err) =
        said(&store(dir, &[&["dump"], &with(&["--offset", "5..8"])[..]].concat()));
    assert!(code == Some(0) && err.contains("from the commit log instead"), "{err}");
    assert_eq!(out.lines().count(), before.len());
    assert!(out.starts_with("t 1 5  "), "{out}");
}

#[test]
fn what_is_no_store_is_refused_with_one_line() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["verify", "dump", "repair"] {
        let (code, out, err) = said(&store(dir.path(), &[command]));
        assert_eq!((code, out.as_str(), err.lines().count()), (Some(1), "", 1), "{err}");
        assert!(err.contains("holds no store"), "{err}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whoever_reads_the_output_may_go() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 23_961).await;
    let script = format!(
        "set -o pipefail; {} store dump {} --body | head -1",
        env!("CARGO_BIN_EXE_apogee"),
        dir.path().join("data").display()
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    let (code, out, err) = said(&output);
    assert_eq!((code, out.lines().count(), err.as_str()), (Some(0), 1, ""), "{out}");
}
