//! The binary as an operator meets it: what it prints, how it starts and stops.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "files are its input")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn apogee(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_apogee"));
    command.current_dir(dir).env_remove("ROCKETMQ_HOME").env_remove("NAMESRV_ADDR");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Ports that were free a moment ago; the second is far enough from the first to have all that a
/// broker derives.
fn free_ports() -> (String, String) {
    let port = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    (port().to_string(), port().to_string())
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
    let greeting = first_lines(&mut child, 4);
    assert!(greeting.contains("is ready"), "{greeting}");
    assert!(greeting.contains(&format!("127.0.0.1:{port}")), "{greeting}");
    assert!(greeting.contains(&format!("{}/data", dir.path().display())), "{greeting}");
    assert!(greeting.contains("flushDiskType=ASYNC_FLUSH"), "{greeting}");

    let second = apogee(dir.path()).args(args).output().unwrap();
    let complaint = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success());
    assert!(complaint.contains("in use"), "{complaint}");

    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_bad_value_ends_the_start_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("broker.conf"), "brokerName=a\nlistenPort=x\n").unwrap();
    let output = apogee(dir.path()).args(["broker", "-c", "broker.conf"]).output().unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(complaint.contains("broker.conf:2: listenPort = x: must be a port"), "{complaint}");
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

#[test]
fn shutdown_finds_the_running_server() {
    let dir = tempfile::tempdir().unwrap();
    // A copy, so that only this test's server bears the name.
    let binary = dir.path().join(format!("apogee-{}", std::process::id()));
    std::fs::copy(env!("CARGO_BIN_EXE_apogee"), &binary).unwrap();
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
    std::fs::copy(env!("CARGO_BIN_EXE_apogee"), &binary).unwrap();
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
        std::thread::sleep(std::time::Duration::from_millis(100));
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
