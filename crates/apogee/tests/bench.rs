//! `apogee bench` against a server of this workspace: what it says of its work is so.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a real server on a real disk")]

mod server;

use std::process::Command;

use serde_json::{Value, json};
use server::Server;

/// Runs `apogee bench` and returns what it says.
#[track_caller]
fn bench(server: &Server, words: &str) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_apogee"))
        .arg("bench")
        .args(words.split_whitespace())
        .args(["--json", "-n", &server.addr])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{words}: {said}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{words}: {error}: {said}"))
}

/// Runs a load that must meet no error; how many messages it received.
#[track_caller]
fn received(server: &Server, words: &str) -> u64 {
    let said = bench(server, words);
    assert_eq!((&said["errors"], &said["lost"]), (&json!({}), &json!(0)), "{words}: {said}");
    said["received"]["messages"].as_u64().unwrap()
}

#[test]
fn what_is_filled_is_found_by_time_and_by_key_and_read_from_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 24_021, "");
    let fill = "fill --topic filled --queues 2 --each 310 --size 100 --batch 50 --keys 20";
    let filled = bench(&server, fill);
    assert_eq!((&filled["topics"], &filled["messages"]), (&json!(1), &json!(620)), "{filled}");

    assert_eq!(received(&server, "consume --topic filled --once --verify"), 620);
    assert_eq!(received(&server, "lookup --topic filled --by time --count 50"), 50);
    // Of each of the 20 keys there are 31 messages, fewer than a query asks for.
    let by_key = bench(&server, "lookup --topic filled --by key --keys 20 --count 20");
    let record_len = 91 + 100 + "filled".len();
    let number = |name: &str| by_key["received"][name].as_f64().unwrap();
    let mib = number("mibPerSecond") * number("seconds");
    assert!((20 * 31 * record_len) as f64 <= mib * 1_048_576.0, "{by_key}");

    // Five consumers, each with the whole of one queue, from a place of its own and again.
    let scattered = "consume --topic filled --scattered --verify --connections 5 --in-flight 1 \
                     --warmup 0 --duration 0.5";
    let count = received(&server, scattered);
    assert!(5 * 310 < count, "{count} messages");
}

#[test]
fn many_topics_are_filled_each() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 24_041, "");
    let filled = bench(&server, "fill --topics 700 --topic many --queues 2 --each 1");
    assert_eq!((&filled["topics"], &filled["messages"]), (&json!(700), &json!(1400)), "{filled}");
    for topic in ["many-0", "many-699"] {
        assert_eq!(received(&server, &format!("consume --topic {topic} --once --verify")), 2);
    }
}

#[test]
fn what_is_sent_is_received_and_every_answer_was_checked() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 24_061, "");
    let sent = bench(&server, "produce --count 5000 --size 300 --connections 3 --verify");
    assert_eq!((&sent["sent"]["messages"], &sent["errors"]), (&json!(5000), &json!({})), "{sent}");
    assert_eq!(received(&server, "consume --once --verify"), 5000);
    let mixed = bench(&server, "mixed --topic mixed --warmup 0 --duration 0.5 --verify");
    assert_eq!((&mixed["errors"], &mixed["lost"]), (&json!({}), &json!(0)), "{mixed}");
    assert_eq!(mixed["sent"]["messages"], mixed["received"]["messages"], "{mixed}");
}

#[test]
fn what_is_sent_at_a_rate_is_as_much_as_that_and_the_server_is_watched() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 24_081, "");
    let span = "--warmup 0.2 --duration 1";
    let pid = format!("--pid {}", server.child.id());
    for load in ["latency --topic sent", "mixed --topic mixed"] {
        let said = bench(&server, &format!("{load} --rate 500 {span} {pid}"));
        assert_eq!((&said["errors"], &said["lost"]), (&json!({}), &json!(0)), "{load}: {said}");
        // A busy machine sends late, but what is due is sent.
        let sent = said["sent"]["messages"].as_u64().unwrap();
        assert!((400..=600).contains(&sent), "{load}: {said}");
        let times = &said["sent"]["us"];
        let at = |name: &str| times[name].as_f64().unwrap_or_else(|| panic!("{name}: {said}"));
        assert!(0.0 < at("p50") && at("p50") <= at("p99"), "{load}: {said}");
        let cpu = said["serverCpuSeconds"].as_f64().unwrap();
        assert!(0.0 < cpu && cpu < 4.0, "{load}: {said}");
        assert!(1_000_000 < said["anonymousBytesMax"].as_u64().unwrap(), "{load}: {said}");
    }
    let said = bench(&server, &format!("latency --topic waited --end-to-end --pause 2 {span}"));
    assert_eq!((&said["errors"], &said["lost"]), (&json!({}), &json!(0)), "{said}");
    let received = said["received"]["messages"].as_u64().unwrap();
    assert!((50..=500).contains(&received), "one after the other, with pauses: {said}");
    assert!(said["serverCpuSeconds"].is_null(), "{said}");
}
