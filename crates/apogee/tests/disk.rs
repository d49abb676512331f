//! What an operator is told when the port, the store or the disk does not do: one line, and nothing
//! of a store that is in use is touched. File systems are mounted, so these tests must run as root.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "files are its input")]

mod server;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use apogee_client::{Message, Producer};
use apogee_types::route::MessageQueue;
use server::Server;

/// A file system in memory.
struct Mount(PathBuf);

impl Mount {
    fn new(dir: &Path, size: &str) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let mount = Self(dir.to_owned());
        mount.run(&["mount", "-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        mount
    }

    fn make_read_only(&self) {
        self.run(&["mount", "-o", "remount,ro"]);
    }

    fn run(&self, words: &[&str]) {
        let output = Command::new(words[0]).args(&words[1..]).arg(&self.0).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {error}(root?)");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Starts a server that must not come up; what it says besides its log.
#[track_caller]
fn refused(data: &Path, port: u16) -> String {
    let (port, broker_port) = (port.to_string(), (port + 10).to_string());
    let output = Command::new("timeout")
        .args(["20", env!("CARGO_BIN_EXE_apogee"), "--log", "off", "--bind", "127.0.0.1"])
        .args(["--port", &port, "--broker-port", &broker_port, "--data"])
        .arg(data)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty(), "it says that it is ready");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[track_caller]
fn says(said: &str, words: &[&str]) {
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
}

/// Every file below `dir`, with what is in it.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in dir.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// As in `ps`: `T` is stopped.
fn state(server: &Server) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.child.id())).unwrap();
    stat.rsplit_once(") ").unwrap().1.to_owned()
}

#[test]
fn a_port_in_use_is_named_and_no_store_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let _other = std::net::TcpListener::bind("127.0.0.1:23711").unwrap();
    let said = refused(&dir.path().join("data"), 23_701);
    says(&said, &["127.0.0.1:23711", "in use", "--broker-port"]);
    assert!(!dir.path().join("data").exists());
}

#[test]
fn a_store_in_use_is_refused_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let conf = "mappedFileSizeCommitLog=65536\nmaxHashSlotNum=100\nmaxIndexNum=400\n";
    let mut server = Server::start(dir.path(), 23_721, conf);
    let data = dir.path().join("data");
    assert!(std::net::TcpStream::connect(&server.addr).is_ok());
    // Stopped, so that it changes nothing itself.
    let pid = rustix::process::Pid::from_child(&server.child);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    while !state(&server).starts_with('T') {
        std::thread::yield_now();
    }
    let before = files(&data);
    says(&refused(&data, 23_741), &["in use by another process", "--data"]);
    let changed: Vec<_> = files(&data).into_iter().filter(|file| !before.contains(file)).collect();
    let changed: Vec<_> = changed.iter().map(|(path, _)| path).collect();
    assert!(changed.is_empty(), "the store of another was changed: {changed:?}");
    server.child.kill().unwrap();
}

#[test]
fn a_store_that_cannot_be_written_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mount = Mount::new(&dir.path().join("read-only"), "1m");
    mount.make_read_only();
    says(&refused(&mount.0, 23_761), &["Read-only", "remount", "storePathRootDir"]);
    says(&refused(&mount.0.join("data"), 23_761), &["remount"]);
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    says(&refused(&file, 23_761), &["a file stands where a directory should be"]);
}

#[test]
fn a_queue_with_a_file_that_is_not_its_own_is_refused_with_the_repair_that_builds_it() {
    let dir = tempfile::tempdir().unwrap();
    let queue = dir.path().join("data/consumequeue/t/0");
    std::fs::create_dir_all(&queue).unwrap();
    std::fs::write(queue.join("notes.txt"), "").unwrap();
    let data = dir.path().join("data");
    let repair = format!("`apogee store repair {}`", data.display());
    says(&refused(&data, 23_771), &["consumequeue/t/0", &repair]);
}

#[test]
fn a_directory_of_others_is_refused_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("Cargo.toml"), "").unwrap();
    let before = files(dir.path());
    says(&refused(dir.path(), 23_791), &[dir.path().to_str().unwrap(), "nothing of a store"]);
    assert_eq!(files(dir.path()), before);
}

#[test]
fn a_disk_that_is_full_at_the_start_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mount = Mount::new(&dir.path().join("full"), "64k");
    std::fs::write(mount.0.join(".ballast"), vec![1; 60_000]).unwrap();
    says(&refused(&mount.0, 23_781), &["make room"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_disk_that_fills_up_refuses_sends_serves_reads_and_takes_sends_again() {
    let dir = tempfile::tempdir().unwrap();
    let mount = Mount::new(&dir.path().join("data"), "48m");
    let ballast = mount.0.join(".ballast");
    std::fs::write(&ballast, vec![1; 16 << 20]).unwrap();
    let conf = "mappedFileSizeCommitLog=1048576\nmappedFileSizeConsumeQueue=6000\n\
                maxHashSlotNum=1000\nmaxIndexNum=4000\ncleanFileForciblyEnable=false\n\
                brokerName=b\n";
    let server = Server::start(dir.path(), 23_801, conf);
    let client = apogee_client::PullConsumer::new(&server.addr, "g").unwrap();
    client.client().create_topic("full", 1).await.unwrap();
    let producer = Producer::builder(&server.addr).group("p").retries(0).start().await.unwrap();
    let mut acknowledged = Vec::new();
    let refusal = loop {
        // Too short for the client to compress.
        let body = format!("{} {}", acknowledged.len(), "x".repeat(4000));
        match producer.send(Message::new("full", body.clone())).await {
            Ok(_) => acknowledged.push(body),
            Err(error) => break error.to_string(),
        }
        assert!(acknowledged.len() < 12_000, "more than the disk holds");
    };
    assert!(refusal.contains("disk"), "{refusal}");
    assert_eq!(read_all(&client).await, acknowledged);
    std::fs::remove_file(&ballast).unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let body = "after".to_owned();
        match producer.send(Message::new("full", body.clone())).await {
            Ok(_) => break acknowledged.push(body),
            Err(error) => assert!(Instant::now() < end, "still refused: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(read_all(&client).await, acknowledged);
    drop(server);
    let server = Server::start(dir.path(), 23_821, conf);
    let client = apogee_client::PullConsumer::new(&server.addr, "g").unwrap();
    assert_eq!(read_all(&client).await, acknowledged);
}

/// The bodies of the only queue, in order.
async fn read_all(client: &apogee_client::PullConsumer) -> Vec<String> {
    let queue = MessageQueue::new("full", "b", 0);
    let mut bodies = Vec::new();
    loop {
        let from = bodies.len() as i64;
        let pulled = client.pull(&queue, "*", from, 32, Duration::from_millis(1)).await.unwrap();
        if pulled.messages.is_empty() {
            return bodies;
        }
        let texts = pulled.messages.iter().map(|it| String::from_utf8(it.body.to_vec()).unwrap());
        bodies.extend(texts);
    }
}
