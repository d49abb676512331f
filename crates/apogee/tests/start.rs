//! The binary as an operator meets it: what it prints, how it starts and stops.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "files are its input")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

fn apogee(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_apogee"));
    command.current_dir(dir).env_remove("ROCKETMQ_HOME").env_remove("NAMESRV_ADDR");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Two ports of which no other test of this file has one, nor the system for connections; the
/// second has room for all that a broker derives.
fn free_ports() -> (String, String) {
    static NEXT: AtomicU16 = AtomicU16::new(23_401);
    let port = NEXT.fetch_add(20, Ordering::Relaxed);
    (port.to_string(), (port + 10).to_string())
}

fn first_lines(child: &mut Child, count: usize) -> String {
    let output = BufReader::new(child.stdout.take().unwrap());
    output.lines().take(count).map(|line| line.unwrap() + "\n").collect()
}

#[test]
fn a_standalone_server_says_where_it_is_and_stops_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (port, broker_port) = free_ports();
    let args = ["--port", &port, "--broker-port", &broker_port, "--bind", "127.0.0.1"];
    let mut child = apogee(dir.path()).args(args).spawn().unwrap();
    let greeting = first_lines(&mut child, 5);
    assert!(greeting.contains("is ready"), "{greeting}");
    assert!(greeting.contains(&format!("127.0.0.1:{port}")), "{greeting}");
    assert!(greeting.contains(&format!("{}/data", dir.path().display())), "{greeting}");
    assert!(greeting.contains("flushDiskType=ASYNC_FLUSH"), "{greeting}");
    assert!(greeting.contains("the address that it reached"), "{greeting}");

    let second = apogee(dir.path()).args(args).output().unwrap();
    let complaint = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success());
    assert!(complaint.contains("in use"), "{complaint}");

    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Asks for a route until there is an answer, whichever; how long that took.
fn first_answer(port: &str, since: Instant) -> Duration {
    let header = br#"{"code":105,"language":"JAVA","version":500,"opaque":1,"flag":0}"#;
    let len = header.len() as u32;
    let request = [&(len + 4).to_be_bytes()[..], &len.to_be_bytes(), header].concat();
    while since.elapsed() < Duration::from_secs(10) {
        let asked = TcpStream::connect(format!("127.0.0.1:{port}")).and_then(|mut stream| {
            stream.write_all(&request)?;
            stream.read_exact(&mut [0; 8])
        });
        if asked.is_ok() {
            return since.elapsed();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("no answer after ten seconds");
}

/// The promises are 100 ms and 2 s; a busy machine and a build for tests get ten times the first.
#[test]
fn a_server_answers_at_once_and_stops_soon_and_leaves_no_mark_of_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let (port, broker_port) = free_ports();
    let args = ["--port", &port, "--broker-port", &broker_port, "--bind", "127.0.0.1"];
    for start in ["on an empty directory", "on a store"] {
        let started = Instant::now();
        let mut child = apogee(dir.path()).args(args).spawn().unwrap();
        let answered = first_answer(&port, started);
        println!("{start}: the first answer after {answered:?}");
        assert!(answered < Duration::from_secs(1), "{start}: after {answered:?}");
        let server = format!("127.0.0.1:{port}");
        let sent = apogee(dir.path()).args(["produce", "t", "x", "-n", &server]).output().unwrap();
        assert!(sent.status.success(), "{sent:?}");
        let mark = dir.path().join("data/abort");
        assert!(mark.exists(), "a kill from here on is a crash");
        let asked = Instant::now();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success());
        println!("{start}: stopped after {:?}", asked.elapsed());
        assert!(asked.elapsed() < Duration::from_secs(2), "{start}: {:?}", asked.elapsed());
        assert!(!mark.exists(), "{start}");
    }
}

#[test]
fn a_bad_value_ends_the_start_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("broker.conf"), "brokerName=a\nlistenPort=x\n").unwrap();
    let output = apogee(dir.path()).args(["broker", "-c", "broker.conf"]).output().unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        complaint.contains("broker.conf:2: listenPort = x: must be a port, 1 to 65535"),
        "{complaint}"
    );
}

#[test]
fn under_the_names_of_the_scripts_it_behaves_as_they_do() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("bin")).unwrap();
    assert!(apogee(dir.path()).args(["links", "bin"]).status().unwrap().success());
    let fixture =
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/2m-2s-sync/broker-a.properties");
    let run = |name: &str, args: &[&str]| {
        // Many call them so; it needs a script that the shell can read.
        let mut command = Command::new("sh");
        command.arg(dir.path().join("bin").join(name)).args(args);
        let output = command.env_remove("ROCKETMQ_HOME").output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, settings) = run("mqbroker", &["-c", fixture, "-p"]);
    assert_eq!(code, Some(0));
    assert!(settings.contains("INFO main - brokerName=broker-a\n"), "{settings}");
    let root = dir.path().canonicalize().unwrap().join("data/store");
    let root = format!(" - storePathRootDir={}\n", root.display());
    assert!(settings.contains(&root), "no {root} in {settings}");
    let (_, important) = run("mqbroker", &["-c", fixture, "-m"]);
    assert!(important.contains(" - brokerRole=SYNC_MASTER\n"), "{important}");
    assert!(!important.contains("longPollingEnable"), "{important}");
    let (_, settings) = run("mqnamesrv", &["-p"]);
    assert!(settings.contains(" - listenPort=9876\n"), "{settings}");
    let (code, usage) = run("mqnamesrv", &["-h"]);
    assert!(code == Some(0) && usage.starts_with("usage: mqnamesrv [-c <arg>]"), "{usage}");
    let (code, usage) = run("mqbroker", &["-x"]);
    assert!(code == Some(1) && usage.starts_with("usage: mqbroker [-c <arg>]"), "{usage}");
    let usage = "Usage: mqshutdown broker | namesrv | controller | proxy\n";
    assert_eq!(run("mqshutdown", &["everything"]), (Some(0), usage.to_owned()));
    assert_eq!(run("mqshutdown", &["proxy"]), (Some(1), "No mqproxy running.\n".to_owned()));
    let direct = Command::new(dir.path().join("bin/mqbroker")).arg("-h").output().unwrap();
    assert!(direct.status.success());
}

/// By another process: a file that ours writes stays open for writing in every child that another
/// test starts meanwhile, and cannot be run as long.
fn copy_program(to: &Path) {
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_apogee")).arg(to).status();
    assert!(copied.unwrap().success());
}

#[test]
fn shutdown_finds_the_running_server() {
    let dir = tempfile::tempdir().unwrap();
    // A copy, so that only this test's server bears the name.
    let binary = dir.path().join(format!("apogee-{}", std::process::id()));
    copy_program(&binary);
    assert!(
        Command::new(&binary).args(["links", "."]).current_dir(&dir).status().unwrap().success()
    );
    std::fs::write(dir.path().join("n.conf"), format!("listenPort={}\n", free_ports().0)).unwrap();
    let mut server = Command::new(dir.path().join("mqnamesrv"))
        .args(["-c", "n.conf"])
        .current_dir(&dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(first_lines(&mut server, 1).contains("ready"));
    // An update replaces the program while it runs.
    std::fs::remove_file(&binary).unwrap();
    copy_program(&binary);
    let stop = Command::new(dir.path().join("mqshutdown")).arg("namesrv").output().unwrap();
    let said = String::from_utf8(stop.stdout).unwrap();
    assert!(said.contains(&format!("The mqnamesrv({}) is running...", server.id())), "{said}");
    assert!(server.wait().unwrap().success());
}

#[test]
fn a_broker_registers_with_name_servers_elsewhere_and_messages_pass() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("namesrv.conf"), "listenPort=23311\nkvConfigPath=kv.json\n")
        .unwrap();
    let conf = "listenPort=23331\nbrokerName=b\nstorePathRootDir=store\nbrokerIP1=127.0.0.1\n";
    std::fs::write(dir.path().join("broker.conf"), conf).unwrap();
    let mut names = apogee(dir.path()).args(["namesrv", "-c", "namesrv.conf"]).spawn().unwrap();
    assert!(first_lines(&mut names, 1).contains("ready"));
    let broker_args = ["broker", "-c", "broker.conf", "-n", "127.0.0.1:23311"];
    let mut broker = apogee(dir.path()).args(broker_args).spawn().unwrap();
    assert!(first_lines(&mut broker, 1).contains("ready"));
    let ns = ["-n", "127.0.0.1:23311"];
    let produce = || apogee(dir.path()).args(["produce", "t", "hello"]).args(ns).output().unwrap();
    // The registration follows the start; the route is there a moment later.
    let is_sent = (0..50).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        produce().status.success()
    });
    assert!(is_sent, "{:?}", produce());
    let consume = ["consume", "t", "--group", "g", "--from", "earliest", "--count", "1"];
    let said = apogee(dir.path()).args(consume).args(ns).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stdout).contains("hello"), "{said:?}");
    for mut child in [broker, names] {
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn slaves_are_told_the_address_that_is_meant_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let conf = "listenPort=23371\nbrokerName=b\nstorePathRootDir=store\nbrokerIP1=127.0.0.1\n\
                brokerIP2=10.9.8.7\nhaListenPort=12345\n";
    std::fs::write(dir.path().join("broker.conf"), conf).unwrap();
    let (port, told) = name_server_that_counts();
    let args = ["broker", "-c", "broker.conf", "-n", &format!("127.0.0.1:{port}")];
    let mut broker = apogee(dir.path()).args(args).spawn().unwrap();
    let (header, _) = told.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(header["extFields"]["brokerAddr"], "127.0.0.1:23371");
    assert_eq!(header["extFields"]["haServerAddr"], "10.9.8.7:12345");
    kill_process(Pid::from_child(&broker), Signal::TERM).unwrap();
    assert!(broker.wait().unwrap().success());
}

/// A name server that answers everything with success and that nothing has changed. For each
/// request it tells its header and length.
fn name_server_that_counts() -> (u16, std::sync::mpsc::Receiver<(serde_json::Value, usize)>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, tell) = (stream.unwrap(), tell.clone());
            std::thread::spawn(move || {
                let mut lengths = [0; 8];
                while stream.read_exact(&mut lengths).is_ok() {
                    let len = u32::from_be_bytes(lengths[..4].try_into().unwrap()) as usize;
                    let header = u32::from_be_bytes([0, lengths[5], lengths[6], lengths[7]]);
                    let mut rest = vec![0; len - 4];
                    stream.read_exact(&mut rest).unwrap();
                    let header: serde_json::Value =
                        serde_json::from_slice(&rest[..header as usize]).unwrap();
                    let answer = serde_json::json!({
                        "code": 0, "flag": 1, "opaque": header["opaque"],
                        "extFields": { "changed": "false" },
                    });
                    let answer = answer.to_string().into_bytes();
                    stream.write_all(&(answer.len() as u32 + 4).to_be_bytes()).unwrap();
                    stream.write_all(&(answer.len() as u32).to_be_bytes()).unwrap();
                    stream.write_all(&answer).unwrap();
                    let _ = tell.send((header, len));
                }
            });
        }
    });
    (port, told)
}

#[test]
fn a_broker_with_ten_thousand_topics_sends_them_once() {
    let dir = tempfile::tempdir().unwrap();
    let topics: std::collections::BTreeMap<_, _> = (0..10_000)
        .map(|at| format!("topic-{at}"))
        .map(|topic| (topic.clone(), serde_json::json!({ "topicName": topic })))
        .collect();
    std::fs::create_dir_all(dir.path().join("store/config")).unwrap();
    let table = serde_json::json!({ "topicConfigTable": topics, "dataVersion": { "counter": 1 } });
    std::fs::write(dir.path().join("store/config/topics.json"), table.to_string()).unwrap();
    let conf = "listenPort=23351\nbrokerName=b\nstorePathRootDir=store\nbrokerIP1=127.0.0.1\n\
                registerNameServerPeriod=10000\n";
    std::fs::write(dir.path().join("broker.conf"), conf).unwrap();
    let (port, told) = name_server_that_counts();
    let args = ["broker", "-c", "broker.conf", "-n", &format!("127.0.0.1:{port}")];
    let mut broker = apogee(dir.path()).args(args).spawn().unwrap();
    let next = || told.recv_timeout(Duration::from_secs(30)).unwrap();
    let (header, len) = next();
    assert!(header["code"] == 103 && 1_000_000 < len, "{header} with {len} bytes");
    assert_eq!(header["extFields"]["haServerAddr"], "127.0.0.1:23352");
    let (header, len) = next();
    assert!(header["code"] == 322 && len < 1000, "{header} with {len} bytes");
    let (header, len) = next();
    assert!(header["code"] == 103 && len < 2000, "{header} with {len} bytes");
    kill_process(Pid::from_child(&broker), Signal::TERM).unwrap();
    assert!(broker.wait().unwrap().success());
}
