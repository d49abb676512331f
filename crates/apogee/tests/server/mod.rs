//! A standalone server for one test.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub struct Server {
    pub child: Child,
    pub addr: String,
}

impl Server {
    /// Starts on `port` (and on `port` + 10 and + 8), over what is in `dir`, set up by `conf`.
    /// Its log goes to `dir`, too.
    pub fn start(dir: &Path, port: u16, conf: &str) -> Self {
        let file = dir.join("broker.conf");
        std::fs::write(&file, conf).unwrap();
        let log = File::options().create(true).append(true).open(dir.join("log")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_apogee"))
            .args(["--data", dir.join("data").to_str().unwrap(), "--bind", "127.0.0.1"])
            .args(["--port", &port.to_string(), "--broker-port", &(port + 10).to_string()])
            .args(["-c", file.to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let is_ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("ready"));
        assert!(is_ready, "the server ended before it was ready");
        std::thread::Builder::new().spawn(move || lines.for_each(drop)).unwrap();
        Self { child, addr: format!("127.0.0.1:{port}") }
    }
}

/// `kill -9`.
impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
