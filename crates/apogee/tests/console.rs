//! `apogee produce` and `apogee consume` as they are typed.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a real server on a real disk")]

mod server;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use apogee_client::PullConsumer;
use serde_json::Value;
use server::Server;

/// `apogee` with these words, for half a minute at most.
fn apogee(server: &Server, words: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["30", env!("CARGO_BIN_EXE_apogee")]).args(words).args(["-n", &server.addr]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[track_caller]
fn done(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn run(server: &Server, words: &[&str]) -> String {
    done(apogee(server, words).output().unwrap())
}

/// What a new group reads of a topic, as JSON.
#[track_caller]
fn read(server: &Server, topic: &str, group: &str, count: usize) -> Vec<Value> {
    let count = count.to_string();
    let out = run(server, &["consume", topic, "--group", group, "--count", &count, "--json"]);
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_is_produced_is_what_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 24_401, "");
    let marks =
        ["--tag", "a", "--key", "k1", "--key", "k2", "--property", "p=x=y", "--property", "q="];
    // A property without a value cannot be kept; it is refused before anything is sent.
    let refused = apogee(&server, &[&["produce", "t", "body"], &marks[..]].concat()).output();
    assert_eq!(refused.unwrap().status.code(), Some(1));
    let said = run(&server, &[&["produce", "t", "one", "two"], &marks[..8]].concat());
    assert_eq!(said.lines().count(), 2, "{said}");
    let messages = read(&server, "t", "g1", 2);
    let bodies: BTreeSet<_> = messages.iter().map(|it| it["body"].as_str().unwrap()).collect();
    assert_eq!(bodies, BTreeSet::from(["one", "two"]));
    for message in &messages {
        let properties = &message["properties"];
        assert_eq!((&properties["TAGS"], &properties["KEYS"]), (&"a".into(), &"k1 k2".into()));
        assert_eq!(properties["p"], "x=y");
        assert_eq!((&message["topic"], &message["reconsumeTimes"]), (&"t".into(), &0.into()));
        assert!(said.contains(message["id"].as_str().unwrap()), "{message} in {said}");
    }

    let said = run(&server, &["produce", "sized", "--size", "1000", "--count", "50"]);
    assert!(said.starts_with("50 messages"), "{said}");
    let messages = read(&server, "sized", "g", 50);
    let len = |it: &Value| it["body"].as_array().map(Vec::len);
    assert!(messages.iter().all(|it| len(it) == Some(1000)), "{messages:?}");

    let file = dir.path().join("file");
    std::fs::write(&file, "two\nlines\n").unwrap();
    run(&server, &["produce", "file", "--file", file.to_str().unwrap()]);
    assert_eq!(read(&server, "file", "g", 1)[0]["body"], "two\nlines\n");

    for (topic, more, bodies) in
        [("lines", &[][..], &["a", "b"][..]), ("whole", &["--file", "-"], &["a\r\n\nb\n"])]
    {
        let words = [&["produce", topic], more].concat();
        let mut typed = apogee(&server, &words).stdin(Stdio::piped()).spawn().unwrap();
        typed.stdin.take().unwrap().write_all(b"a\r\n\nb\n").unwrap();
        done(typed.wait_with_output().unwrap());
        let found = read(&server, topic, "g", bodies.len());
        let found: BTreeSet<_> = found.iter().map(|it| it["body"].as_str().unwrap()).collect();
        assert_eq!(found, bodies.iter().copied().collect());
    }
}

#[test]
fn consumers_get_the_tags_and_the_time_that_they_ask_for() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 24_421, "");
    for tag in ["a", "b", "c"] {
        run(&server, &["produce", "t", tag, "--tag", tag]);
    }
    std::thread::sleep(Duration::from_millis(50));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().to_string();
    run(&server, &["produce", "t", "late"]);
    let consume =
        |group, more: &[&str]| run(&server, &[&["consume", "t", "--group", group], more].concat());
    let mut of_tags: Vec<_> =
        consume("tags", &["--tag", "a || c", "--count", "2"]).lines().map(str::to_owned).collect();
    of_tags.sort();
    assert_eq!(of_tags, ["a", "c"]);
    assert_eq!(consume("time", &["--from", &now, "--count", "1"]), "late\n");
    assert_eq!(consume("whole", &["--count", "4"]).lines().count(), 4);
    let wrong = apogee(&server, &["consume", "t", "--group", "g", "--from", "never"]).output();
    let wrong = String::from_utf8(wrong.unwrap().stderr).unwrap();
    assert!(wrong.contains("must be earliest, latest, or a time"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_latest_messages_are_those_after_the_queues_ends() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 24_441, "");
    run(&server, &["produce", "t", "old", "--count", "20"]);
    let words = ["consume", "t", "--group", "g", "--from", "latest", "--count", "1"];
    let consumer = apogee(&server, &words).spawn().unwrap();
    let group = PullConsumer::new(&server.addr, "g").unwrap();
    for queue in group.queues("t").await.unwrap() {
        let end = Some(group.client().max_offset(&queue).await.unwrap());
        for _ in 0..200 {
            if group.committed(&queue).await.unwrap() == end {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(group.committed(&queue).await.unwrap(), end);
    }
    run(&server, &["produce", "t", "new"]);
    assert_eq!(done(consumer.wait_with_output().unwrap()), "new\n");
}

#[test]
fn who_waits_for_a_topic_that_is_not_there_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 24_461, "");
    for from in ["earliest", "latest"] {
        let words = ["consume", from, "--group", "g", "--from", from, "--count", "1"];
        let mut consumer = apogee(&server, &words).spawn().unwrap();
        let mut said = BufReader::new(consumer.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, format!("there is no topic {from} yet; waiting for it\n"));
        run(&server, &["produce", from, "first"]);
        assert_eq!(done(consumer.wait_with_output().unwrap()), "first\n");
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
    }
}

#[test]
fn when_one_of_many_messages_fails_the_others_are_counted_and_the_error_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 24_481, "maxMessageSize=20000");
    // Of what repeats itself only a little would be sent.
    let long: String = (0..20_000_u64).map(|it| format!("{it:x}")).collect();
    let mut words = vec!["produce", "t"];
    words.extend(["short"; 300]);
    words[250] = &long;
    let failed = apogee(&server, &words).output().unwrap();
    let (said, error) = (String::from_utf8(failed.stdout), String::from_utf8(failed.stderr));
    let (said, error) = (said.unwrap(), error.unwrap());
    assert_eq!(failed.status.code(), Some(1), "{error}");
    assert!(error.contains("MESSAGE_ILLEGAL"), "{error}");
    let count: usize = said.split(' ').next().unwrap().parse().unwrap();
    assert!((248..300).contains(&count), "{said}");
    assert!(error.contains(&format!("{count} messages were stored, then")), "{error}");
    assert_eq!(read(&server, "t", "g", count).len(), count);
}
