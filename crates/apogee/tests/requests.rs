//! What clients are answered, and when, seen as bytes.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "raw sockets are its input")]

mod raw;
mod server;

use std::io::Write;
use std::time::{Duration, Instant};

use raw::{answer, ask, connect, delete_topic, pull_as, send, send_as};
use server::Server;

/// Waits for messages with tag `wanted`.
fn hold(topic: &str, offset: i64, suspend: Duration) -> Vec<u8> {
    pull_as("g", topic, 0, offset, "wanted", 6, suspend)
}

#[test]
fn a_held_pull_learns_every_few_seconds_where_to_go_on_and_at_once_that_its_topic_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 23_761, "");
    let (mut sender, mut holder) = (connect(&server), connect(&server));
    let tagged =
        |tag| send_as("t", 0, &format!(r#""i":"TAGS\u0001{tag}","f":"0","m":"false""#), b"x");
    assert_eq!(ask(&mut sender, &tagged("wanted")).0, 0);
    let began = Instant::now();
    holder.write_all(&hold("t", 1, Duration::from_secs(15))).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(ask(&mut sender, &tagged("other")).0, 0);
    let told = answer(&mut holder);
    assert_eq!((&told["code"], &told["extFields"]["nextBeginOffset"]), (&20.into(), &"2".into()));
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());

    holder.write_all(&hold("t", 2, Duration::from_secs(15))).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    assert_eq!(ask(&mut sender, &delete_topic("t")).0, 0);
    assert_eq!(answer(&mut holder)["code"], 17);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(ask(&mut sender, &send("t", 0, b"x")).0, 0);
}
